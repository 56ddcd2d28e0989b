//! Where lines go: stdout, or stderr when stdout carries JSON.
//!
//! A [`Console`] is made from the `--json` flag. [`Console::line`] is for people; [`Console::json`] writes one line of
//! JSON to where the flag says and does nothing without it. A reader that goes away ends the command quietly.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::PathBuf;

use serde::Serialize;

use crate::args::JsonFlag;
use crate::error::{CliError, Done};

/// Where lines and JSON go.
pub(crate) struct Console {
    /// Stdout belongs to JSON.
    quiet: bool,
    /// Where JSON goes besides stdout.
    file: Option<(PathBuf, BufWriter<File>)>,
}

impl Console {
    /// Opens the file that the flag names, so that a bad path fails before the work.
    pub(crate) fn new(flag: &JsonFlag) -> Done<Console> {
        let (quiet, file) = match &flag.json {
            None => (false, None),
            Some(path) if path.as_os_str() == "-" => (true, None),
            Some(path) => {
                let file = File::create(path).map_err(|e| CliError::file(path, &e))?;
                (false, Some((path.clone(), BufWriter::new(file))))
            }
        };
        Ok(Console { quiet, file })
    }

    /// One that prints for people.
    pub(crate) fn plain() -> Console {
        Console { quiet: false, file: None }
    }

    /// Prints a line.
    pub(crate) fn line(&self, text: impl Display) -> Done {
        let written =
            if self.quiet { writeln!(io::stderr().lock(), "{text}") } else { writeln!(io::stdout().lock(), "{text}") };
        written.map_err(|e| CliError::output(&e))
    }

    /// Whether lines go to a terminal that shows braille and lines: one whose locale is UTF-8, not the console of Linux.
    pub(crate) fn draws(&self) -> bool {
        let terminal = if self.quiet { io::stderr().is_terminal() } else { io::stdout().is_terminal() };
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default().to_ascii_lowercase();
        let plain = set("TERM").is_some_and(|name| matches!(name.as_str(), "dumb" | "linux"));
        terminal && !plain && (locale.contains("utf-8") || locale.contains("utf8"))
    }

    /// Says something beside the work, on stderr.
    pub(crate) fn note(&self, text: impl Display) {
        // Nobody reads it: the work goes on.
        let _ = writeln!(io::stderr().lock(), "note: {text}");
    }

    /// Prints text as it is.
    pub(crate) fn text(&self, text: &str) -> Done {
        self.bytes(text.as_bytes())
    }

    /// Writes bytes to stdout.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Done {
        let mut out = io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush()).map_err(|e| CliError::output(&e))
    }

    /// Whether somebody wants JSON.
    pub(crate) fn wants_json(&self) -> bool {
        self.quiet || self.file.is_some()
    }

    /// Writes one line of JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Done {
        if !self.wants_json() {
            return Ok(());
        }
        let text = serde_json::to_string(value).map_err(CliError::internal)?;
        match &mut self.file {
            Some((path, file)) => {
                writeln!(file, "{text}").and_then(|()| file.flush()).map_err(|e| CliError::file(path, &e))
            }
            None => writeln!(io::stdout().lock(), "{text}").map_err(|e| CliError::output(&e)),
        }
    }
}
