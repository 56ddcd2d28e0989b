//! What differs between two texts, line by line, as `diff -u` shows it.

use std::fmt::Write as _;

/// Equal lines shown around a change.
const CONTEXT: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Both,
    Old,
    New,
}

/// The changes from one text to another; empty when there are none.
pub fn unified(old: &str, new: &str) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let steps = steps(&a, &b);
    let changed = |i: usize| steps.get(i).is_some_and(|(side, ..)| *side != Side::Both);
    let near = |i: usize| (i.saturating_sub(CONTEXT)..=i + CONTEXT).any(changed);
    let mut out = String::new();
    let mut open = false;
    for (i, (side, at_old, at_new)) in steps.iter().enumerate() {
        if !near(i) {
            open = false;
            continue;
        }
        if !open {
            let _ = writeln!(out, "@@ -{} +{} @@", at_old + 1, at_new + 1);
            open = true;
        }
        let (mark, line) = match side {
            Side::Both => (' ', a.get(*at_old)),
            Side::Old => ('-', a.get(*at_old)),
            Side::New => ('+', b.get(*at_new)),
        };
        let _ = writeln!(out, "{mark}{}", line.unwrap_or(&""));
    }
    out
}

/// The lines of both in one order, each with its place in the old and in the new text: a longest common subsequence.
fn steps(a: &[&str], b: &[&str]) -> Vec<(Side, usize, usize)> {
    let width = b.len() + 1;
    // length[i][j]: of the longest common subsequence of a[i..] and b[j..].
    let mut length = vec![0usize; (a.len() + 1) * width];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            length[i * width + j] = if a[i] == b[j] {
                length[(i + 1) * width + j + 1] + 1
            } else {
                length[(i + 1) * width + j].max(length[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j, mut steps) = (0, 0, Vec::new());
    while i < a.len() || j < b.len() {
        let side = if i < a.len() && j < b.len() && a[i] == b[j] {
            Side::Both
        } else if j == b.len() || (i < a.len() && length[(i + 1) * width + j] >= length[i * width + j + 1]) {
            Side::Old
        } else {
            Side::New
        };
        steps.push((side, i, j));
        i += usize::from(side != Side::New);
        j += usize::from(side != Side::Old);
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::unified;

    #[test]
    fn only_changes_and_their_neighbours_show() {
        let old = "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\nl\nm\nn\n";
        let new = old.replace("b\n", "B\n").replace("n\n", "");
        assert_eq!(unified(old, &new), "@@ -1 +1 @@\n a\n-b\n+B\n c\n d\n e\n@@ -11 +11 @@\n k\n l\n m\n-n\n");
        assert_eq!(unified(old, old), "");
        assert_eq!(unified("", "x\n"), "@@ -1 +1 @@\n+x\n");
    }
}
