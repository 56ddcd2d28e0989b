//! Why an ONNX file was not taken.
//!
//! Four kinds that call for different reactions: the file is wrong ([`OnnxError::Invalid`]), it is right but asks for
//! something missing here ([`OnnxError::Unsupported`], which lists everything, not the first), it asks for more than
//! is reasonable ([`OnnxError::Limit`]), or the file system said no ([`OnnxError::Io`]). Each prints as one line;
//! [`OnnxError::help`] is the second.

use std::fmt;
use std::path::PathBuf;

use indexmap::{IndexMap, IndexSet};

/// Why an ONNX model or test value was refused.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    /// The file breaks the format's rules.
    #[error("invalid ONNX: {place}: {what}")]
    Invalid {
        /// Which node, value or attribute; what it belongs to first.
        place: Place,
        /// What is wrong with it.
        what: String,
    },
    /// The file may be right, but needs what frit has not.
    #[error("{0}")]
    Unsupported(Report),
    /// More than a model may ask for.
    #[error("limit: {place}: {what}")]
    Limit {
        /// Which node, value or attribute.
        place: Place,
        /// What is too much, and how much is allowed.
        what: String,
    },
    /// A file could not be opened, read or mapped.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl OnnxError {
    pub(crate) fn invalid(place: impl Into<Place>, what: impl Into<String>) -> Self {
        OnnxError::Invalid { place: place.into(), what: what.into() }
    }

    pub(crate) fn limit(place: impl Into<Place>, what: impl Into<String>) -> Self {
        OnnxError::Limit { place: place.into(), what: what.into() }
    }

    /// What to do about it, in a line.
    pub fn help(&self) -> &'static str {
        match self {
            OnnxError::Invalid { .. } => {
                "the file is damaged or its exporter has a bug: export it again, or check it with onnx.checker"
            }
            OnnxError::Unsupported(_) => "export with another opset, or rewrite these parts of the model",
            OnnxError::Limit { .. } => "split the model, or simplify it before export",
            OnnxError::Io { .. } => "check the path; weights kept outside the model lie in the model's own folder",
        }
    }

    /// The same error, placed inside `outer` as well.
    pub(crate) fn inside(self, outer: impl FnOnce() -> String) -> Self {
        match self {
            OnnxError::Invalid { place, what } => OnnxError::Invalid { place: place.inside(outer()), what },
            OnnxError::Limit { place, what } => OnnxError::Limit { place: place.inside(outer()), what },
            other @ (OnnxError::Unsupported(_) | OnnxError::Io { .. }) => other,
        }
    }
}

/// Where in a model something is: from the outside in, such as graph, node, attribute.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Place(Vec<String>);

impl Place {
    fn inside(mut self, outer: String) -> Self {
        self.0.insert(0, outer);
        self
    }
}

impl<S: Into<String>> From<S> for Place {
    fn from(innermost: S) -> Self {
        Place(vec![innermost.into()])
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

/// What sort of thing is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MissingKind {
    /// An operator, or this version of it.
    Op,
    /// A version of an operator set.
    Opset,
    /// A type of value or element.
    Type,
    /// An attribute, or this value of it.
    Attribute,
    /// Anything else, named in full.
    Feature,
}

impl MissingKind {
    fn name(self) -> &'static str {
        match self {
            MissingKind::Op => "op",
            MissingKind::Opset => "opset",
            MissingKind::Type => "type",
            MissingKind::Attribute => "attribute",
            MissingKind::Feature => "feature",
        }
    }
}

/// One missing thing and who needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// What sort of thing.
    pub kind: MissingKind,
    /// Operator domain; empty: ai.onnx.
    pub domain: String,
    /// Version of the operator set that the model imports (0 where none plays a part).
    pub opset: i64,
    /// What: an operator type, `Op.attribute = value`, a type, ...
    pub what: String,
    /// Names of the nodes (or values) that need it.
    pub nodes: Vec<String>,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        write!(f, "{} ", self.kind.name())?;
        if self.kind != MissingKind::Opset && (self.opset > 0 || !self.domain.is_empty()) {
            let domain = if self.domain.is_empty() { "ai.onnx" } else { &self.domain };
            write!(f, "{domain}.{} (opset {})", self.what, self.opset)?;
        } else {
            f.write_str(&self.what)?;
        }
        let shown: Vec<String> = self.nodes.iter().take(SHOWN).map(|n| format!("`{n}`")).collect();
        if !shown.is_empty() {
            write!(f, " at {}", shown.join(", "))?;
        }
        match self.nodes.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// Everything that a model needs and frit has not, each once.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Report {
    missing: IndexMap<Needed, IndexSet<String>>,
}

/// Kind, domain, opset and what: what [`Report`] tells entries apart by.
type Needed = (MissingKind, String, i64, String);

impl Report {
    /// Notes that `node` needs something; the same thing needed elsewhere joins the same entry.
    pub fn add(&mut self, kind: MissingKind, domain: &str, opset: i64, what: &str, node: &str) {
        let needed = (kind, domain.to_owned(), opset, what.to_owned());
        self.missing.entry(needed).or_default().insert(node.to_owned());
    }

    /// Takes over the entries of another report.
    pub fn merge(&mut self, other: Report) {
        self.merge_for("", other);
    }

    /// Takes over the entries of another report; `user` is who needs what it has no name for.
    pub(crate) fn merge_for(&mut self, user: &str, other: Report) {
        for (needed, nodes) in other.missing {
            let nodes = nodes.into_iter().map(|n| if n.is_empty() { user.to_owned() } else { n });
            self.missing.entry(needed).or_default().extend(nodes);
        }
    }

    /// The entries, in the order they were met.
    pub fn missing(&self) -> impl Iterator<Item = Missing> + '_ {
        self.missing.iter().map(|((kind, domain, opset, what), nodes)| Missing {
            kind: *kind,
            domain: domain.clone(),
            opset: *opset,
            what: what.clone(),
            nodes: nodes.iter().cloned().collect(),
        })
    }

    /// Whether nothing is missing.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut missing = self.missing();
        match (missing.next(), self.missing.len()) {
            (Some(only), 1) => write!(f, "not supported: {only}"),
            _ => self.missing().try_fold(write!(f, "not supported:")?, |(), one| write!(f, "\n  {one}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_and_where_in_one_line() {
        let error = OnnxError::invalid("attribute `axis`", "is missing").inside(|| "node `squeeze` (Squeeze)".into());
        assert_eq!(error.to_string(), "invalid ONNX: node `squeeze` (Squeeze), attribute `axis`: is missing");
        let error = OnnxError::limit("initializer `w`", "too large");
        assert_eq!(error.to_string(), "limit: initializer `w`: too large");
    }

    #[test]
    fn a_report_lists_each_thing_once_with_all_nodes() {
        let mut report = Report::default();
        report.add(MissingKind::Op, "", 17, "Foo", "a");
        report.add(MissingKind::Op, "com.acme", 1, "Bar", "b");
        report.add(MissingKind::Op, "", 17, "Foo", "c");
        report.add(MissingKind::Op, "", 17, "Foo", "a");
        report.add(MissingKind::Type, "", 0, "sparse tensor", "x");
        let text = "not supported:\n  op ai.onnx.Foo (opset 17) at `a`, `c`\n  op com.acme.Bar (opset 1) at `b`\n  \
                    type sparse tensor at `x`";
        assert_eq!(report.to_string(), text);
        let mut report = Report::default();
        report.add(MissingKind::Op, "", 17, "Foo", "a");
        assert_eq!(report.to_string(), "not supported: op ai.onnx.Foo (opset 17) at `a`");
    }
}
