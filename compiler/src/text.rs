//! Reading kernels and schedules as text: where an error is, and the cursor that both readers share.
//!
//! Blanks may stand between any two words, and in kernels comments: `;` to the end of a line.

use std::fmt;
use std::str::FromStr;

use frit_ir::{Dim, Symbol};

/// What can't be read, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct TextError {
    /// Line, from 1.
    pub line: usize,
    /// Character in the line, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

/// What reading gives.
pub(crate) type Read<T> = Result<T, TextError>;

/// A name as the text holds it: as it is when it is a word, else quoted.
pub(crate) struct Name<'n>(pub(crate) &'n str);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain =
            !self.0.is_empty() && self.0.chars().all(is_word) && !self.0.starts_with(|c: char| c.is_ascii_digit());
        if plain { f.write_str(self.0) } else { write!(f, "{:?}", self.0) }
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// A place in a text.
pub(crate) struct Cursor<'t> {
    text: &'t str,
    /// A byte offset at a character's start.
    at: usize,
    comments: bool,
}

impl<'t> Cursor<'t> {
    /// At the start of a text.
    pub(crate) fn new(text: &'t str) -> Self {
        Cursor { text, at: 0, comments: true }
    }

    /// At the start of a text where `;` separates.
    pub(crate) fn without_comments(text: &'t str) -> Self {
        Cursor { text, at: 0, comments: false }
    }

    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or("")
    }

    /// Where the next word begins, for [`Self::fail_at`].
    pub(crate) fn offset(&mut self) -> usize {
        self.skip();
        self.at
    }

    /// An error at the next word.
    pub(crate) fn fail<T>(&mut self, message: impl Into<String>) -> Read<T> {
        let offset = self.offset();
        self.fail_at(offset, message)
    }

    /// An error at an offset.
    pub(crate) fn fail_at<T>(&self, offset: usize, message: impl Into<String>) -> Read<T> {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        Err(TextError { line, column, message: message.into() })
    }

    /// An error at the next word: what was expected there, and what is.
    pub(crate) fn expected<T>(&mut self, what: &str) -> Read<T> {
        self.skip();
        let found: String = self.rest().chars().take_while(|c| !c.is_whitespace()).take(20).collect();
        let found = if found.is_empty() { "the end".to_owned() } else { format!("`{found}`") };
        self.fail_at(self.at, format!("expected {what}, found {found}"))
    }

    /// Passes blanks and comments.
    fn skip(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            self.at += rest.len() - trimmed.len();
            if !self.comments || !trimmed.starts_with(';') {
                return;
            }
            self.at += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    /// Whether a mark comes before the line ends.
    pub(crate) fn on_this_line(&self, mark: char) -> bool {
        self.rest().trim_start_matches([' ', '\t']).starts_with(mark)
    }

    /// Whether a mark comes next; it is passed when it does.
    pub(crate) fn eat(&mut self, mark: char) -> bool {
        self.skip();
        let found = self.rest().starts_with(mark);
        if found {
            self.at += mark.len_utf8();
        }
        found
    }

    /// Passes a mark.
    pub(crate) fn mark(&mut self, mark: char) -> Read<()> {
        if self.eat(mark) { Ok(()) } else { self.expected(&format!("`{mark}`")) }
    }

    /// Characters of a kind, perhaps none.
    pub(crate) fn take(&mut self, keep: impl Fn(char) -> bool) -> &'t str {
        self.skip();
        let rest = self.rest();
        let length = rest.find(|c| !keep(c)).unwrap_or(rest.len());
        self.at += length;
        rest.get(..length).unwrap_or("")
    }

    /// The next word, not passed; empty when there is none.
    pub(crate) fn peek(&mut self) -> &'t str {
        let start = self.at;
        let word = self.take(is_word);
        self.at = start;
        word
    }

    /// Whether a word comes next; it is passed when it does.
    pub(crate) fn eat_word(&mut self, word: &str) -> bool {
        let found = self.peek() == word;
        if found {
            self.take(is_word);
        }
        found
    }

    /// Passes a word.
    pub(crate) fn keyword(&mut self, word: &str) -> Read<()> {
        if self.eat_word(word) { Ok(()) } else { self.expected(&format!("`{word}`")) }
    }

    /// A word.
    pub(crate) fn word(&mut self, what: &str) -> Read<&'t str> {
        if self.peek().is_empty() { self.expected(what) } else { Ok(self.take(is_word)) }
    }

    /// Something written as one word.
    pub(crate) fn parsed<T: FromStr>(&mut self, what: &str) -> Read<T> {
        match self.peek().parse() {
            Ok(value) => {
                self.take(is_word);
                Ok(value)
            }
            Err(_) => self.expected(what),
        }
    }

    /// A name: a word or a quoted text.
    pub(crate) fn name(&mut self, what: &str) -> Read<String> {
        self.skip();
        match self.rest().chars().next() {
            Some('"') => self.quoted(),
            Some(c) if c.is_ascii_digit() => self.expected(what),
            _ => self.word(what).map(str::to_owned),
        }
    }

    /// The name of a loop or dim.
    pub(crate) fn symbol(&mut self) -> Read<Symbol> {
        let symbol = Symbol::new(self.peek());
        if symbol.name() != self.peek() {
            return self.expected("the name of a loop or dim");
        }
        self.take(is_word);
        Ok(symbol)
    }

    /// A text in quotes, as Rust's `{:?}` writes it.
    pub(crate) fn quoted(&mut self) -> Read<String> {
        self.mark('"')?;
        let start = self.at;
        let mut out = String::new();
        let mut chars = self.rest().char_indices();
        while let Some((i, c)) = chars.next() {
            match c {
                '"' => {
                    self.at = start + i + 1;
                    return Ok(out);
                }
                '\\' => match chars.next().map(|(_, c)| c) {
                    Some('n') => out.push('\n'),
                    Some('r') => out.push('\r'),
                    Some('t') => out.push('\t'),
                    Some('0') => out.push('\0'),
                    Some(c @ ('\\' | '"' | '\'')) => out.push(c),
                    Some('u') => {
                        let code: String = chars.by_ref().map(|(_, c)| c).take_while(|c| *c != '}').take(9).collect();
                        let code = code.strip_prefix('{').and_then(|c| u32::from_str_radix(c, 16).ok());
                        match code.and_then(char::from_u32) {
                            Some(c) => out.push(c),
                            None => return self.fail_at(start + i, "no character has this code"),
                        }
                    }
                    _ => return self.fail_at(start + i, "no escape begins so"),
                },
                c => out.push(c),
            }
        }
        self.fail_at(start.saturating_sub(1), "this quote is never closed")
    }

    /// An extent or index: everything up to a mark outside of parentheses that can't be part of one.
    pub(crate) fn dim(&mut self) -> Read<Dim> {
        self.skip();
        let (start, rest) = (self.at, self.rest());
        let mut depth = 0usize;
        let length = rest
            .find(|c| {
                match c {
                    '(' => depth += 1,
                    ')' if depth == 0 => return true,
                    ')' => depth -= 1,
                    ',' if depth == 0 => return true,
                    '{' | '}' | '[' | ']' | '\n' | ';' | '"' => return true,
                    _ => {}
                }
                false
            })
            .unwrap_or(rest.len());
        match rest.get(..length).unwrap_or("").trim_end().parse() {
            Ok(dim) => {
                self.at += length;
                Ok(dim)
            }
            Err(e) => self.fail_at(start, format!("expected an extent: {}", first_line(&e.to_string()))),
        }
    }

    /// Items between commas up to a closing mark, which is passed.
    pub(crate) fn list<T>(&mut self, close: char, mut item: impl FnMut(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        let mut items = Vec::new();
        if self.eat(close) {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if !self.eat(',') {
                self.mark(close)?;
                return Ok(items);
            }
        }
    }

    /// Whether nothing is left.
    pub(crate) fn is_done(&mut self) -> bool {
        self.skip();
        self.rest().is_empty()
    }

    /// The result of reading, once nothing is left.
    pub(crate) fn end<T>(&mut self, value: T) -> Read<T> {
        if self.is_done() { Ok(value) } else { self.expected("the end") }
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or("")
}
