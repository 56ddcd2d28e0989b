//! Curves as text: braille dots where the terminal has them, stars elsewhere.
//!
//! In: a [`Panel`], values at even distances. Out: lines of one width, so that panels can stand side by side. A curve is
//! drawn column by column, each joined to the one before, so that it has no gap however steep it is.

/// A curve and its axes.
pub(super) struct Panel<'a> {
    /// What is drawn.
    pub(super) title: &'a str,
    /// What stands under the left and the right end.
    pub(super) ends: [&'a str; 2],
    /// The values, from left to right.
    pub(super) values: &'a [f64],
    /// Value at the upper edge; 0 is at the lower.
    pub(super) top: f64,
    /// How a value is written at the axis.
    pub(super) label: fn(f64) -> String,
}

/// Characters of a curve's width and height.
const WIDTH: usize = 28;
const HEIGHT: usize = 7;

/// Between two panels.
const GAP: &str = "    ";

/// What curves are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ink {
    /// Eight dots a character.
    Braille,
    /// A star.
    Star,
}

impl Ink {
    /// Dots of a character: columns and rows.
    fn dots(self) -> (usize, usize) {
        match self {
            Ink::Braille => (2, 4),
            Ink::Star => (1, 1),
        }
    }

    /// The corner and the two lines of the axes.
    fn axes(self) -> [&'static str; 3] {
        match self {
            Ink::Braille => ["└", "─", "│"],
            Ink::Star => ["+", "-", "|"],
        }
    }

    /// The character of these dots, row by row.
    fn character(self, lit: impl Fn(usize, usize) -> bool) -> char {
        match self {
            Ink::Star => {
                if lit(0, 0) {
                    '*'
                } else {
                    ' '
                }
            }
            Ink::Braille => {
                // Unicode counts the dots down the left column, then the right, and both of the last row at the end.
                const BITS: [[u32; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];
                let bit = |row: usize, column: usize| if lit(row, column) { BITS[row][column] } else { 0 };
                let bits: u32 =
                    (0..4).flat_map(|row| (0..2).map(move |column| (row, column))).map(|(r, c)| bit(r, c)).sum();
                if bits == 0 { ' ' } else { char::from_u32(0x2800 + bits).unwrap_or('*') }
            }
        }
    }
}

/// Panels side by side.
pub(super) fn plot(panels: &[Panel<'_>], ink: Ink) -> Vec<String> {
    let drawn: Vec<Vec<String>> = panels.iter().map(|panel| draw(panel, ink)).collect();
    let rows = drawn.iter().map(Vec::len).max().unwrap_or(0);
    let row = |at: usize| {
        let parts: Vec<&str> = drawn.iter().filter_map(|lines| lines.get(at)).map(String::as_str).collect();
        parts.join(GAP).trim_end().to_owned()
    };
    (0..rows).map(row).collect()
}

/// A panel's lines, all of one width.
fn draw(panel: &Panel<'_>, ink: Ink) -> Vec<String> {
    let (across, down) = ink.dots();
    let lit = curve(panel, WIDTH * across, HEIGHT * down);
    let [corner, line, side] = ink.axes();
    // Labels at the upper edge, in the middle and at the lower edge.
    let label = |row: usize| match row {
        0 => (panel.label)(panel.top),
        row if row == HEIGHT / 2 => (panel.label)(panel.top / 2.0),
        row if row + 1 == HEIGHT => (panel.label)(0.0),
        _ => String::new(),
    };
    let margin = (0..HEIGHT).map(|row| label(row).chars().count()).max().unwrap_or(0);
    let full = margin + 2 + WIDTH;
    let mut lines = vec![format!("{:margin$}  {:WIDTH$}", "", panel.title)];
    for row in 0..HEIGHT {
        let dot = |x: usize, y: usize| lit.get(y).and_then(|line| line.get(x)).copied().unwrap_or(false);
        let cells: String = (0..WIDTH).map(|x| ink.character(|r, c| dot(x * across + c, row * down + r))).collect();
        lines.push(format!("{:>margin$} {side}{cells}", label(row)));
    }
    lines.push(format!("{:margin$} {corner}{}", "", line.repeat(WIDTH)));
    let [left, right] = panel.ends;
    let space = WIDTH.saturating_sub(left.chars().count());
    lines.push(format!("{:margin$}  {left}{right:>space$}", ""));
    lines.iter().map(|line| format!("{line:full$}")).collect()
}

/// Which dots are on the curve, row by row from above.
fn curve(panel: &Panel<'_>, width: usize, height: usize) -> Vec<Vec<bool>> {
    let mut lit = vec![vec![false; width]; height];
    let last = panel.values.len().saturating_sub(1);
    // The value at a column, between the two that are next to it.
    let value = |x: usize| {
        let at = x as f64 / width.saturating_sub(1).max(1) as f64 * last as f64;
        let (low, part) = (at.floor() as usize, at.fract());
        let of = |i: usize| panel.values.get(i.min(last)).copied().unwrap_or(0.0);
        of(low) * (1.0 - part) + of(low + 1) * part
    };
    let row = |value: f64| {
        let share = (value / panel.top).clamp(0.0, 1.0);
        ((1.0 - share) * (height - 1) as f64).round() as usize
    };
    let mut before = row(value(0));
    for x in 0..width {
        let now = row(value(x));
        for line in lit.iter_mut().take(before.max(now) + 1).skip(before.min(now)) {
            line[x] = true;
        }
        before = now;
    }
    lit
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel<'a>(values: &'a [f64], top: f64) -> Panel<'a> {
        Panel { title: "loss", ends: ["0", "epoch 9"], values, top, label: |v| format!("{v:.1}") }
    }

    #[test]
    fn a_falling_line_goes_from_corner_to_corner() {
        let lines = plot(&[panel(&[2.0, 0.0], 2.0)], Ink::Star);
        let expected = [
            "     loss",
            "2.0 |****",
            "    |   *****",
            "    |       ******",
            "1.0 |            *****",
            "    |                ******",
            "    |                     *****",
            "0.0 |                         ***",
            "    +----------------------------",
            "     0                    epoch 9",
        ];
        assert_eq!(lines.len(), expected.len());
        for (line, expected) in lines.iter().zip(expected) {
            assert_eq!(line, expected, "{lines:#?}");
        }
    }

    #[test]
    fn every_column_of_a_curve_has_a_dot_and_neighbours_touch() {
        let values = [0.1, 7.0, 0.0, 3.0, f64::NAN, 9.0];
        for (width, height) in [(56, 28), (28, 7)] {
            let lit = curve(&panel(&values, 5.0), width, height);
            let rows = |x: usize| (0..height).filter(|y| lit[*y][x]).collect::<Vec<_>>();
            for x in 1..width {
                let (before, now) = (rows(x - 1), rows(x));
                assert!(
                    !now.is_empty() && now[0] <= before[before.len() - 1] && before[0] <= now[now.len() - 1],
                    "{x}"
                );
            }
        }
    }

    #[test]
    fn braille_has_the_dots_that_are_lit() {
        assert_eq!(Ink::Braille.character(|row, column| (row, column) == (3, 1)), '\u{2880}');
        assert_eq!(Ink::Braille.character(|row, _| row == 0), '\u{2809}');
        assert_eq!(Ink::Braille.character(|_, _| true), '\u{28ff}');
        assert_eq!(Ink::Braille.character(|_, _| false), ' ');
        // Two panels side by side are as high as one.
        let lines = plot(&[panel(&[1.0], 1.0), panel(&[0.5, 0.5], 1.0)], Ink::Braille);
        assert_eq!(lines.len(), HEIGHT + 3);
        assert!(lines.iter().all(|line| line.chars().count() <= 80));
    }
}
