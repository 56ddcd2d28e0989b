//! Text to tokens, one at a time, with the current token in view.
//!
//! A [`Cursor`] walks the text once and holds one token; nothing is collected, so a text costs no more than what its
//! parser keeps. `;` starts a comment that ends with the line.

use std::fmt;

use super::error::TextError;

/// The smallest piece of a text.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token<'t> {
    /// Letters, digits and `_`, not starting with a digit.
    Word(&'t str),
    /// `%` and a name: a value.
    Value(&'t str),
    /// `#` and a word: an attribute that is one of a set.
    Choice(&'t str),
    /// Digits.
    Int(u64),
    /// A decimal number with a point or an exponent.
    Float(&'t str),
    /// `0x` and hex digits: the bits of an element.
    Bits(u64),
    /// Quoted text, escapes resolved.
    Text(String),
    /// `->`
    Arrow,
    /// Any other character.
    Mark(char),
    /// Nothing is left.
    End,
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Word(w) => write!(f, "`{w}`"),
            Token::Value(v) => write!(f, "`%{v}`"),
            Token::Choice(c) => write!(f, "`#{c}`"),
            Token::Int(v) => write!(f, "`{v}`"),
            Token::Float(v) => write!(f, "`{v}`"),
            Token::Bits(v) => write!(f, "`{v:#x}`"),
            Token::Text(t) => write!(f, "\"{}\"", t.chars().take(40).collect::<String>().escape_debug()),
            Token::Arrow => f.write_str("`->`"),
            Token::Mark(c) => write!(f, "`{}`", c.escape_debug()),
            Token::End => f.write_str("the end of the text"),
        }
    }
}

/// Result of reading.
pub(super) type Read<T> = Result<T, TextError>;

/// A place in a text and the token there.
pub(super) struct Cursor<'t> {
    file: &'t str,
    text: &'t str,
    token: Token<'t>,
    /// Where the token starts.
    start: usize,
    /// Where it ends.
    end: usize,
    /// Line of the token, from 1.
    line: usize,
}

fn is_name(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_'
}

impl<'t> Cursor<'t> {
    pub(super) fn new(file: &'t str, text: &'t str) -> Read<Self> {
        let mut cursor = Cursor { file, text, token: Token::End, start: 0, end: 0, line: 1 };
        cursor.advance()?;
        Ok(cursor)
    }

    pub(super) fn peek(&self) -> &Token<'t> {
        &self.token
    }

    /// Line of the current token, from 1.
    pub(super) fn line(&self) -> usize {
        self.line
    }

    /// Byte offset of the current token.
    pub(super) fn offset(&self) -> usize {
        self.start
    }

    /// Takes the current token and reads the next.
    pub(super) fn advance(&mut self) -> Read<Token<'t>> {
        self.skip_blanks();
        self.start = self.end;
        let next = self.lex()?;
        Ok(std::mem::replace(&mut self.token, next))
    }

    fn byte(&self, ahead: usize) -> u8 {
        self.text.as_bytes().get(self.end + ahead).copied().unwrap_or(0)
    }

    fn skip_blanks(&mut self) {
        let bytes = self.text.as_bytes();
        while let Some(&b) = bytes.get(self.end) {
            match b {
                b'\n' => self.line += 1,
                b' ' | b'\t' | b'\r' => {}
                b';' => {
                    while bytes.get(self.end).is_some_and(|&b| b != b'\n') {
                        self.end += 1;
                    }
                    continue;
                }
                _ => break,
            }
            self.end += 1;
        }
    }

    /// Moves past bytes that `keep` accepts and returns them.
    fn take(&mut self, keep: impl Fn(u8) -> bool) -> &'t str {
        let start = self.end;
        let bytes = self.text.as_bytes();
        while bytes.get(self.end).is_some_and(|&b| keep(b)) {
            self.end += 1;
        }
        self.text.get(start..self.end).unwrap_or("")
    }

    fn lex(&mut self) -> Read<Token<'t>> {
        let b = self.byte(0);
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => Ok(Token::Word(self.take(is_name))),
            b'%' => {
                self.end += 1;
                let name = self.take(is_name);
                if name.is_empty() {
                    self.fail_here("expected a value's name after `%`")
                } else {
                    Ok(Token::Value(name))
                }
            }
            b'#' => {
                self.end += 1;
                let name = self.take(is_name);
                if name.is_empty() { self.fail_here("expected a word after `#`") } else { Ok(Token::Choice(name)) }
            }
            b'0' if self.byte(1) == b'x' => {
                self.end += 2;
                let digits = self.take(|b| b.is_ascii_hexdigit());
                match u64::from_str_radix(digits, 16) {
                    Ok(bits) if digits.len() <= 16 => Ok(Token::Bits(bits)),
                    _ => self.fail_here("expected 1 to 16 hex digits after `0x`"),
                }
            }
            b'0'..=b'9' => self.number(),
            b'"' => self.quoted(),
            b'-' if self.byte(1) == b'>' => {
                self.end += 2;
                Ok(Token::Arrow)
            }
            _ => match self.text.get(self.end..).and_then(|rest| rest.chars().next()) {
                Some(c) => {
                    self.end += c.len_utf8();
                    Ok(Token::Mark(c))
                }
                None => Ok(Token::End),
            },
        }
    }

    fn number(&mut self) -> Read<Token<'t>> {
        let start = self.end;
        let digits = self.take(|b| b.is_ascii_digit());
        let mut is_float = false;
        if self.byte(0) == b'.' && self.byte(1).is_ascii_digit() {
            is_float = true;
            self.end += 1;
            self.take(|b| b.is_ascii_digit());
        }
        let signed = usize::from(matches!(self.byte(1), b'-' | b'+'));
        if matches!(self.byte(0), b'e' | b'E') && self.byte(1 + signed).is_ascii_digit() {
            is_float = true;
            self.end += 1 + signed;
            self.take(|b| b.is_ascii_digit());
        }
        if is_float {
            return Ok(Token::Float(self.text.get(start..self.end).unwrap_or("")));
        }
        match digits.parse() {
            Ok(value) => Ok(Token::Int(value)),
            Err(_) => self.fail_here("the number is too large for 64 bits"),
        }
    }

    fn quoted(&mut self) -> Read<Token<'t>> {
        self.end += 1;
        let mut value = String::new();
        loop {
            value.push_str(self.take(|b| b != b'"' && b != b'\\' && b != b'\n'));
            match self.byte(0) {
                b'"' => {
                    self.end += 1;
                    return Ok(Token::Text(value));
                }
                b'\\' => {
                    let escape = self.byte(1);
                    self.end += 2;
                    value.push(match escape {
                        b'n' => '\n',
                        b't' => '\t',
                        b'r' => '\r',
                        b'"' => '"',
                        b'\\' => '\\',
                        b'u' if self.byte(0) == b'{' => {
                            self.end += 1;
                            let digits = self.take(|b| b.is_ascii_hexdigit());
                            let code = u32::from_str_radix(digits, 16).ok().and_then(char::from_u32);
                            match (code, self.byte(0)) {
                                (Some(c), b'}') => {
                                    self.end += 1;
                                    c
                                }
                                _ => return self.fail_here("expected a character's code as in `\\u{1f}`"),
                            }
                        }
                        _ => return self.fail_here("expected one of \\n \\t \\r \\\" \\\\ \\u{..}"),
                    });
                }
                _ => return self.fail_here("the quoted text is not closed on its line"),
            }
        }
    }

    /// An error about the token that is being read.
    fn fail_here<T>(&self, message: &str) -> Read<T> {
        let length = self.end.saturating_sub(self.start);
        Err(TextError::at(self.file, self.text, self.start, length, message.to_owned()))
    }

    /// An error at a place.
    pub(super) fn fail_at<T>(&self, offset: usize, message: impl Into<String>) -> Read<T> {
        let rest = self.text.as_bytes().get(offset..).unwrap_or(&[]);
        let length = rest.iter().take_while(|&&b| is_name(b) || matches!(b, b'%' | b'#')).count();
        Err(TextError::at(self.file, self.text, offset, length, message.into()))
    }

    /// "expected ..., found ..." at the current token.
    pub(super) fn expected<T>(&self, what: &str) -> Read<T> {
        let length = self.end.saturating_sub(self.start);
        let message = format!("expected {what}, found {}", self.token);
        Err(TextError::at(self.file, self.text, self.start, length, message))
    }

    // ---- what parsers ask for ----

    /// Takes a mark when it is there.
    pub(super) fn eat(&mut self, mark: char) -> Read<bool> {
        let there = self.token == Token::Mark(mark);
        if there {
            self.advance()?;
        }
        Ok(there)
    }

    /// Takes a mark that must be there.
    pub(super) fn expect(&mut self, mark: char) -> Read<()> {
        if self.eat(mark)? { Ok(()) } else { self.expected(&format!("`{mark}`")) }
    }

    /// Takes a word when it is there.
    pub(super) fn eat_word(&mut self, word: &str) -> Read<bool> {
        let there = self.token == Token::Word(word);
        if there {
            self.advance()?;
        }
        Ok(there)
    }

    /// Takes any word.
    pub(super) fn word(&mut self, what: &str) -> Read<&'t str> {
        let Token::Word(word) = self.token else { return self.expected(what) };
        self.advance()?;
        Ok(word)
    }

    /// Takes a quoted text.
    pub(super) fn quoted_text(&mut self, what: &str) -> Read<String> {
        if !matches!(self.token, Token::Text(_)) {
            return self.expected(what);
        }
        match self.advance()? {
            Token::Text(text) => Ok(text),
            other => self.fail_at(self.start, format!("expected {what}, found {other}")),
        }
    }

    /// Takes a value's name.
    pub(super) fn value(&mut self) -> Read<&'t str> {
        let Token::Value(name) = self.token else { return self.expected("a value such as `%3`") };
        self.advance()?;
        Ok(name)
    }

    /// Takes digits as an index.
    pub(super) fn index(&mut self, what: &str) -> Read<usize> {
        let Token::Int(value) = self.token else { return self.expected(what) };
        let Ok(value) = usize::try_from(value) else { return self.expected(what) };
        self.advance()?;
        Ok(value)
    }

    /// Takes an integer with an optional `-`.
    pub(super) fn integer(&mut self) -> Read<i64> {
        let start = self.start;
        let negative = self.eat('-')?;
        let Token::Int(value) = self.token else { return self.expected("an integer") };
        self.advance()?;
        match signed(value, negative) {
            Some(value) => Ok(value),
            None => self.fail_at(start, "the integer is outside 64 bits"),
        }
    }

    /// Takes items up to a closing mark, separated by commas.
    pub(super) fn list<T>(&mut self, close: char, mut item: impl FnMut(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        let mut items = Vec::new();
        if self.eat(close)? {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if self.eat(close)? {
                return Ok(items);
            }
            if !self.eat(',')? {
                return self.expected(&format!("`,` or `{close}`"));
            }
        }
    }
}

/// A magnitude with a sign, when i64 holds it.
pub(super) fn signed(magnitude: u64, negative: bool) -> Option<i64> {
    let wide = i128::from(magnitude);
    i64::try_from(if negative { -wide } else { wide }).ok()
}

/// Quoted, with what would break the line escaped.
pub(super) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => out.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Whether a name can stand without quotes.
pub(super) fn is_word(name: &str) -> bool {
    name.bytes().all(is_name) && !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit())
}
