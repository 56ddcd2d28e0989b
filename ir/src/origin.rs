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
        match (&self.name, &self.source) {
            (Some(name), Some(source)) => write!(f, "{name} ({source})"),
            (Some(text), None) | (None, Some(text)) => f.write_str(text),
            (None, None) => f.write_str("?"),
        }
    }
}
