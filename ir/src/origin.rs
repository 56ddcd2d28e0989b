//! Where an op came from, kept through every rewrite.
//!
//! A rewrite gives its new ops the origin of what they replace ([`Origin::merge`] when there are several). The verifier
//! refuses an op without one.

use std::fmt;
use std::sync::Arc;

/// Where an op came from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Origin {
    /// The ONNX node's name (its first output's where it has none), a .frit line, or the builder call.
    pub name: Option<Arc<str>>,
    /// `file:line in function` of the source, where the exporter recorded it.
    pub source: Option<Arc<str>>,
}

impl Origin {
    /// An origin that is a name only.
    pub fn named(name: impl AsRef<str>) -> Self {
        Origin { name: Some(name.as_ref().into()), source: None }
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.name.is_none() && self.source.is_none()
    }

    /// Its place in a source file with the last two components of the path: enough to find it, and no machine's folders.
    pub fn short_source(&self) -> Option<String> {
        let source = self.source.as_deref()?;
        // What follows the last colon is the line.
        let end = source.rfind(':').unwrap_or(source.len());
        let (path, rest) = source.split_at_checked(end)?;
        let start = path.rmatch_indices(['/', '\\']).nth(1).map_or(0, |(at, separator)| at + separator.len());
        Some(format!("{}{rest}", path.get(start..)?))
    }

    /// One origin for what several ops became: the names joined by `+`, at most four of them.
    pub fn merge<'a>(origins: impl IntoIterator<Item = &'a Origin>) -> Origin {
        const SHOWN: usize = 4;
        let (mut names, mut source, mut more) = (Vec::<String>::new(), None, 0);
        for origin in origins {
            for name in origin.name.iter().flat_map(|n| n.split('+')) {
                if names.iter().any(|n| n == name) || name == "..." {
                    continue;
                }
                if names.len() < SHOWN {
                    names.push(name.to_owned());
                } else {
                    more += 1;
                }
            }
            source = source.or_else(|| origin.source.clone());
        }
        if more > 0 {
            names.push("...".to_owned());
        }
        Origin { name: (!names.is_empty()).then(|| names.join("+").into()), source }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name, self.short_source()) {
            (Some(name), Some(source)) => write!(f, "{name} ({source})"),
            (Some(name), None) => f.write_str(name),
            (None, Some(source)) => f.write_str(&source),
            (None, None) => f.write_str("?"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_shown_without_the_folders_of_a_machine() {
        let short = |source: &str| Origin { name: Some("n".into()), source: Some(source.into()) }.to_string();
        assert_eq!(short("/home/a/models/net/mlp.py:12 in forward"), "n (net/mlp.py:12 in forward)");
        assert_eq!(short("C:\\models\\net\\mlp.py:12 in f"), "n (net\\mlp.py:12 in f)");
        assert_eq!(short("/mlp.py:12 in f"), "n (/mlp.py:12 in f)");
        assert_eq!(short("mlp.py:12"), "n (mlp.py:12)");
        assert_eq!(short("a/b/c"), "n (b/c)");
        assert_eq!(short(""), "n ()");
    }
}
