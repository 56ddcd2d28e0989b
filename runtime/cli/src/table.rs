//! Text that lines up: tables, numbers with units.

use std::time::Duration;

/// How a column is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// Rows under a head, columns as wide as their widest cell. The last column's right side is left as it is.
pub(crate) fn table(head: &[(&str, Align)], rows: &[Vec<String>]) -> Vec<String> {
    let mut widths: Vec<usize> = head.iter().map(|(title, _)| title.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for ((cell, width), (_, align)) in cells.zip(&widths).zip(head) {
            let space = " ".repeat(width.saturating_sub(cell.chars().count()));
            let (before, after) = if *align == Align::Right { (space.as_str(), "") } else { ("", space.as_str()) };
            text.push_str(&format!("  {before}{cell}{after}"));
        }
        text.truncate(text.trim_end().len());
        text
    };
    let titles = line(&mut head.iter().map(|(title, _)| *title));
    std::iter::once(titles).chain(rows.iter().map(|row| line(&mut row.iter().map(String::as_str)))).collect()
}

/// A time with three digits that matter.
pub(crate) fn time(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        s if s >= 1.0 => format!("{} s", three(s)),
        s if s >= 1e-3 => format!("{} ms", three(s * 1e3)),
        s => format!("{} us", three(s * 1e6)),
    }
}

/// Milliseconds, for JSON.
pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A number of bytes.
pub(crate) fn bytes(count: u64) -> String {
    scaled(count, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"])
}

/// A large count.
pub(crate) fn count(count: u64) -> String {
    scaled(count, 1000.0, &["", "k", "M", "G", "T"]).trim_end().to_owned()
}

fn scaled(count: u64, step: f64, units: &[&str]) -> String {
    let (mut value, mut unit) = (count as f64, 0);
    while value >= step && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    let number = if unit == 0 { count.to_string() } else { three(value) };
    format!("{number} {}", units.get(unit).unwrap_or(&""))
}

fn three(value: f64) -> String {
    match value {
        v if v >= 99.95 => format!("{v:.0}"),
        v if v >= 9.995 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// A text of at most `width` characters, its end cut when it is longer.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(3)).chain("...".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_owned(), "10".to_owned()], vec!["long".to_owned(), "5".to_owned()]];
        let lines = table(&[("name", Align::Left), ("n", Align::Right)], &rows);
        assert_eq!(lines, ["  name   n", "  a     10", "  long   5"]);
    }

    #[test]
    fn numbers_keep_three_digits() {
        assert_eq!(time(Duration::from_micros(1234)), "1.23 ms");
        assert_eq!(time(Duration::from_nanos(99_990)), "100 us");
        assert_eq!(bytes(20 << 20), "20.0 MiB");
        assert_eq!(bytes(12), "12 B");
        assert_eq!(count(12_345), "12.3 k");
        assert_eq!(count(7), "7");
        assert_eq!(cut("abcdef", 5), "ab...");
    }
}
