//! Patterns of parameters' names: `*` stands for any characters, `?` for one.

/// Whether a pattern matches a whole name.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where the last star is, and how far into the name it is tried to reach.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match (pattern.get(p), star) {
            (Some('*'), _) => {
                star = Some((p, n));
                p += 1;
            }
            (Some(c), _) if *c == '?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            (_, Some((at, reached))) => {
                star = Some((at, reached + 1));
                p = at + 1;
                n = reached + 1;
            }
            (_, None) => return false,
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks_match_as_in_a_shell() {
        let yes =
            [("*", ""), ("layers.0.*", "layers.0.weight"), ("*.bias", "a.b.bias"), ("a?c", "abc"), ("a*b*c", "aXbbYc")];
        let no = [("", "a"), ("layers.0", "layers.0.weight"), ("a?c", "ac"), ("*.bias", "bias"), ("a*b*c", "aXbYcd")];
        yes.iter().for_each(|(pattern, name)| assert!(matches(pattern, name), "{pattern} {name}"));
        no.iter().for_each(|(pattern, name)| assert!(!matches(pattern, name), "{pattern} {name}"));
        // Many stars do not make it slow.
        assert!(!matches(&"*a".repeat(40), &"a".repeat(39)));
    }
}
