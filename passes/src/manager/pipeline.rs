//! Pipelines as text.
//!
//! ```text
//! pipeline := level | step {"," step}        level := ["-"] "O" ("0" | "1" | "2" | "3")
//! step     := name ["(" [option {"," option}] ")"]
//! option   := name "=" number
//! ```
//!
//! Spaces between words don't matter. Names and options are checked against the table of passes.

use std::fmt;

use super::PassError;
use super::options::{Level, PassOptions};
use super::table::{PASSES, PassInfo};

/// The passes that no compiled module goes without, in their order.
const REQUIRED: [&str; 2] = ["canonicalize", "grad"];

/// A pass with its options.
#[derive(Clone, Debug)]
pub struct Step {
    /// The pass.
    pub pass: &'static PassInfo,
    /// Its options.
    pub options: PassOptions,
}

/// Passes in order.
#[derive(Clone, Debug, Default)]
pub struct Pipeline {
    /// In order.
    pub steps: Vec<Step>,
}

impl Pipeline {
    /// Reads a pipeline.
    pub fn parse(text: &str) -> Result<Pipeline, PassError> {
        let trimmed = text.trim();
        let digit = trimmed.strip_prefix('-').unwrap_or(trimmed).strip_prefix('O').and_then(|d| d.parse::<u8>().ok());
        if let Some(level) = digit.and_then(Level::from_digit) {
            return Pipeline::parse(level.pipeline_text());
        }
        let mut reader = Reader { text, at: 0 };
        let mut steps = vec![reader.step()?];
        while reader.eats(',') {
            steps.push(reader.step()?);
        }
        match reader.peek() {
            None => Ok(Pipeline { steps }),
            Some(c) => Err(reader.error(format!("expected `,` or the end, found `{c}`"))),
        }
    }

    /// The pipeline with `canonicalize` and `grad` in it: where one is left out, it follows the first steps that make
    /// types known. Without them the same module has other bits, and ops nobody makes code for.
    #[must_use]
    pub fn with_required(mut self) -> Pipeline {
        for (i, name) in REQUIRED.iter().enumerate() {
            if self.steps.iter().any(|step| step.pass.name == *name) {
                continue;
            }
            let early = |step: &&Step| {
                ["legalize", "shape"].contains(&step.pass.name) || REQUIRED[..i].contains(&step.pass.name)
            };
            let at = self.steps.iter().take_while(early).count();
            let pass = PASSES.iter().find(|p| p.name == *name);
            self.steps.splice(at..at, pass.map(|pass| Step { pass, options: PassOptions::default() }));
        }
        self
    }

    /// The pipeline of a level.
    pub fn of(level: Level) -> Pipeline {
        // The texts of levels are constants; a test reads them all.
        Pipeline::parse(level.pipeline_text()).unwrap_or_default()
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.pass.name)?;
        let options: Vec<String> = self.options.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if options.is_empty() { Ok(()) } else { write!(f, "({})", options.join(",")) }
    }
}

impl fmt::Display for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps: Vec<String> = self.steps.iter().map(Step::to_string).collect();
        f.write_str(&steps.join(","))
    }
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Reader<'t> {
    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn peek(&mut self) -> Option<char> {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
        self.rest().chars().next()
    }

    fn eats(&mut self, c: char) -> bool {
        let found = self.peek() == Some(c);
        if found {
            self.at += c.len_utf8();
        }
        found
    }

    fn error(&self, message: String) -> PassError {
        let at = self.text.get(..self.at).map_or(0, |t| t.chars().count()) + 1;
        PassError::Syntax { text: self.text.to_owned(), at, message }
    }

    fn word(&mut self, what: &str) -> Result<&'t str, PassError> {
        let found = self.peek();
        let rest = self.rest();
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_')).unwrap_or(rest.len());
        match (end, found) {
            (0, Some(c)) => Err(self.error(format!("expected {what}, found `{c}`"))),
            (0, None) => Err(self.error(format!("expected {what}, found the end"))),
            (_, _) => {
                self.at += end;
                Ok(rest.get(..end).unwrap_or(""))
            }
        }
    }

    fn step(&mut self) -> Result<Step, PassError> {
        let name = self.word("the name of a pass")?;
        let Some(pass) = PASSES.iter().find(|p| p.name == name) else {
            let known: Vec<&str> = PASSES.iter().map(|p| p.name).collect();
            return Err(PassError::UnknownPass { name: name.to_owned(), known: known.join(", ") });
        };
        let mut options = PassOptions::default();
        if self.eats('(') && !self.eats(')') {
            loop {
                self.option(pass, &mut options)?;
                if self.eats(')') {
                    break;
                }
                if !self.eats(',') {
                    let found = self.peek().map_or("the end".to_owned(), |c| format!("`{c}`"));
                    return Err(self.error(format!("expected `,` or `)`, found {found}")));
                }
            }
        }
        Ok(Step { pass, options })
    }

    fn option(&mut self, pass: &'static PassInfo, options: &mut PassOptions) -> Result<(), PassError> {
        let name = self.word("the name of an option")?;
        let Some(info) = pass.options.iter().find(|o| o.name == name) else {
            let known = match pass.options {
                [] => "it has none".to_owned(),
                all => {
                    let texts: Vec<String> = all.iter().map(|o| format!("{} ({})", o.name, o.about)).collect();
                    format!("it has {}", texts.join(", "))
                }
            };
            return Err(PassError::UnknownOption { pass: pass.name, option: name.to_owned(), known });
        };
        if !self.eats('=') {
            return Err(self.error(format!("expected `=` after `{name}`")));
        }
        let value = self.word("a number")?;
        let number = value.parse::<u64>().map_err(|_| PassError::OptionValue {
            pass: pass.name,
            option: name.to_owned(),
            value: value.to_owned(),
        })?;
        options.0.insert(info.name, number);
        Ok(())
    }
}
