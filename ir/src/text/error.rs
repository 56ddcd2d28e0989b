//! What is wrong with a text, and where.
//!
//! A [`TextError`] names the file, the line and the column; [`TextError::excerpt`] shows the line with a caret under
//! the place. Lines and columns count from 1, columns in characters.

use std::path::{Path, PathBuf};

/// Why a text, or a file beside it, can't be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// The text is wrong at one place.
    #[error("{file}:{line}:{column}: {message}")]
    At {
        /// The file, or a name for the text.
        file: String,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// What was expected and what was found.
        message: String,
        /// The line with a caret below the place.
        excerpt: String,
    },
    /// A file can't be read or written.
    #[error("{path}: {message}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        message: String,
    },
}

/// Characters of a line that an excerpt shows on each side of the caret.
const SHOWN: usize = 60;

impl TextError {
    /// An error at a byte offset of a text; `length` bytes are marked.
    pub(super) fn at(file: &str, text: &str, offset: usize, length: usize, message: String) -> Self {
        let offset = text.floor_char_boundary(offset);
        let before = text.get(..offset).unwrap_or("");
        let line = before.bytes().filter(|&b| b == b'\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |i| i + 1);
        let end = text.get(offset..).and_then(|rest| rest.find('\n')).map_or(text.len(), |i| offset + i);
        let (left, right) = (text.get(start..offset).unwrap_or(""), text.get(offset..end).unwrap_or(""));
        let column = left.chars().count() + 1;
        let cut = column.saturating_sub(1 + SHOWN);
        let shown: String = left.chars().skip(cut).map(visible).collect();
        let rest: String = right.chars().take(SHOWN).map(visible).collect();
        let marked = text.get(offset..text.floor_char_boundary(offset.saturating_add(length)).min(end));
        let carets = marked.map_or(1, |m| m.chars().count()).clamp(1, SHOWN);
        let gutter = line.to_string();
        let excerpt = format!(
            "{gutter} | {shown}{rest}\n{pad} | {space}{mark}",
            pad = " ".repeat(gutter.len()),
            space = " ".repeat(shown.chars().count()),
            mark = "^".repeat(carets),
        );
        TextError::At { file: file.to_owned(), line, column, message, excerpt }
    }

    /// An error about a file as a whole.
    pub(super) fn file(path: &Path, message: impl ToString) -> Self {
        TextError::File { path: path.to_owned(), message: message.to_string() }
    }

    /// The line with a caret below the place; empty for errors about a whole file.
    pub fn excerpt(&self) -> &str {
        match self {
            TextError::At { excerpt, .. } => excerpt,
            TextError::File { .. } => "",
        }
    }
}

/// Control characters (tabs too) become spaces, so that the caret stands where it should.
fn visible(c: char) -> char {
    if c.is_control() { ' ' } else { c }
}
