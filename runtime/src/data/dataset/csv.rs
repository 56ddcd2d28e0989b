//! Tables as text: numbers in columns, with or without a header.
//!
//! In: text separated by comma, semicolon or tab (whichever the first line has most of), fields quoted or not. Out: a
//! [`Table`]. The first line is a header when none of its fields is a number, or when some are not and it has the name
//! that was asked for; else a line of both kinds is refused, because a header's name and a damaged number look alike.

use std::path::Path;

use super::DatasetError;

/// Numbers in columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Names of the columns; empty without a header.
    pub names: Vec<String>,
    /// How many columns.
    pub columns: usize,
    /// All rows, one after another.
    pub values: Vec<f64>,
}

/// Reads a table; `wanted` are names that a header must have.
///
/// # Errors
/// What the system says; text that is no table of numbers, naming record and column.
pub fn read_file(path: &Path, wanted: &[String]) -> Result<Table, DatasetError> {
    let bytes = std::fs::read(path).map_err(|error| DatasetError::io(path, error))?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|error| DatasetError::damaged(path, format!("no UTF-8 text at byte {}", error.valid_up_to())))?;
    parse(text, wanted, path)
}

/// Parses a table.
///
/// # Errors
/// As [`read_file`]; `path` is for messages.
pub fn parse(text: &str, wanted: &[String], path: &Path) -> Result<Table, DatasetError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).peekable();
    let Some((number, first)) = lines.peek().copied() else {
        return Err(DatasetError::damaged(path, "it holds no records"));
    };
    let separator = [',', ';', '\t'].into_iter().rev().max_by_key(|s| first.matches(*s).count()).unwrap_or(',');
    let fields = split(first, separator).ok_or_else(|| DatasetError::damaged(path, unclosed(number)))?;
    let columns = fields.len();
    let names = header(&fields, wanted, path)?;
    if !names.is_empty() {
        lines.next();
    }
    let mut values = Vec::new();
    for (record, (number, line)) in lines.enumerate() {
        let failed = |reason: String| DatasetError::Record {
            path: path.display().to_string(),
            record: record + 1,
            reason: format!("line {}: {reason}", number + 1),
        };
        let fields = split(line, separator).ok_or_else(|| failed("a quote is not closed".to_owned()))?;
        if fields.len() != columns {
            return Err(failed(format!("{} columns, where the first line has {columns}", fields.len())));
        }
        for (column, field) in fields.iter().enumerate() {
            let named = || names.get(column).map_or_else(|| format!("{}", column + 1), |name| format!("`{name}`"));
            let value = field.parse::<f64>();
            values.push(value.map_err(|_| failed(format!("column {}: `{}` is no number", named(), shown(field))))?);
        }
    }
    if values.is_empty() {
        return Err(DatasetError::damaged(path, "it holds no records: only a header"));
    }
    Ok(Table { names, columns, values })
}

/// Names of the columns when the first line is a header, else nothing.
fn header(fields: &[String], wanted: &[String], path: &Path) -> Result<Vec<String>, DatasetError> {
    let words = fields.iter().filter(|field| field.parse::<f64>().is_err()).count();
    if words == 0 {
        return Ok(Vec::new());
    }
    let asked = !wanted.is_empty() && wanted.iter().all(|name| fields.contains(name));
    if asked || words == fields.len() {
        return Ok(fields.to_vec());
    }
    let word = fields.iter().find(|field| field.parse::<f64>().is_err()).map_or("", |field| shown(field));
    let reason = format!(
        "the first line has numbers beside `{word}`: if it is a header, name the target's column (--label); \
         if not, that field is no number"
    );
    Err(DatasetError::Record { path: path.display().to_string(), record: 1, reason })
}

/// A field, short enough for a message.
fn shown(field: &str) -> &str {
    field.char_indices().nth(40).map_or(field, |(end, _)| field.get(..end).unwrap_or(field))
}

fn unclosed(line: usize) -> String {
    format!("line {}: a quote is not closed", line + 1)
}

/// Fields of a line, without quotes and the space around them; `None` when a quote is not closed.
fn split(line: &str, separator: char) -> Option<Vec<String>> {
    if !line.contains('"') {
        return Some(line.split(separator).map(|field| field.trim().to_owned()).collect());
    }
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            // Twice inside quotes: the character itself.
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                fields.last_mut()?.push('"');
            }
            '"' => quoted = !quoted,
            c if c == separator && !quoted => fields.push(String::new()),
            c => fields.last_mut()?.push(c),
        }
    }
    (!quoted).then(|| fields.iter().map(|field| field.trim().to_owned()).collect())
}
