//! Why a module was not exported.

use std::fmt;
use std::path::PathBuf;

use indexmap::{IndexMap, IndexSet};

use crate::op::infer::TypeError;
use crate::verify::VerifyError;

/// Why a module was not exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Parts of the module that ONNX has no words for.
    #[error("ONNX opset {opset} can't express {refused}")]
    Unsupported {
        /// The opset that was asked for.
        opset: i64,
        /// Everything that is in the way.
        refused: Refusals,
    },
    /// An opset that is not written.
    #[error("opset {opset} is not written ({} to {} are)", known.start(), known.end())]
    Opset {
        /// The one asked for.
        opset: i64,
        /// Those that are.
        known: std::ops::RangeInclusive<i64>,
    },
    /// The module breaks its own rules.
    #[error(transparent)]
    Invalid(#[from] VerifyError),
    /// There is no function to export.
    #[error("the module has no function `{name}`")]
    NoFunction {
        /// The name.
        name: String,
    },
    /// More bytes than a file of this format may have.
    #[error("the model takes {bytes} bytes in one file; protobuf allows {limit}")]
    TooLarge {
        /// What it takes.
        bytes: usize,
        /// What is allowed.
        limit: usize,
    },
    /// A rewritten op does not fit its operands: a bug.
    #[error("`{origin}`: {error}")]
    Type {
        /// Where the op came from.
        origin: String,
        /// What does not fit.
        error: TypeError,
    },
    /// What can't be, given a verified module: a bug.
    #[error("{what}")]
    Internal {
        /// What happened.
        what: String,
    },
    /// A file could not be written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl ExportError {
    /// What to do about it, in a line.
    pub fn help(&self) -> &'static str {
        match self {
            ExportError::Unsupported { .. } => "ask for a newer opset where one is named, or keep the model as .frit",
            ExportError::Opset { .. } => "ask for one of these",
            ExportError::Invalid(_) => "repair the module: every rule is listed in ir/src/verify",
            ExportError::NoFunction { .. } => "name a function of the module",
            ExportError::TooLarge { .. } => "write to a file with -o: weights then lie in a second file beside it",
            ExportError::Type { .. } | ExportError::Internal { .. } => "this is a bug in frit: please report it",
            ExportError::Io { .. } => "check the path, and that the disk has room",
        }
    }

    /// Whether it is a bug.
    pub fn is_internal(&self) -> bool {
        matches!(self, ExportError::Type { .. } | ExportError::Internal { .. })
    }
}

/// What ONNX can't express, each once, with the ops that need it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Refusals {
    items: IndexMap<String, IndexSet<String>>,
}

impl Refusals {
    /// Notes that `origin` needs something; the same thing needed elsewhere joins the same entry.
    pub fn add(&mut self, what: impl Into<String>, origin: impl Into<String>) {
        self.items.entry(what.into()).or_default().insert(origin.into());
    }

    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// What, and the origins of the ops that need it, in the order they were met.
    pub fn items(&self) -> impl Iterator<Item = (&str, Vec<&str>)> {
        self.items.iter().map(|(what, origins)| (what.as_str(), origins.iter().map(String::as_str).collect()))
    }
}

impl fmt::Display for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        for (i, (what, origins)) in self.items.iter().enumerate() {
            let shown: Vec<String> = origins.iter().take(SHOWN).map(|o| format!("`{o}`")).collect();
            let separator = if i > 0 { "; " } else { "" };
            write!(f, "{separator}{what} at {}", shown.join(", "))?;
            if origins.len() > SHOWN {
                write!(f, " and {} more", origins.len() - SHOWN)?;
            }
        }
        Ok(())
    }
}
