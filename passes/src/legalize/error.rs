//! What legalize says when it can't go on: invalid, unsupported or in need of values.
//!
//! An invalid model ends at once. What is not supported is collected over the whole model into one [`Report`], and so
//! are the inputs whose values are needed.

use std::fmt;

use super::driver::NO_RULE;
use frit_ir::op::infer::TypeError;
use frit_ir::{Origin, Value};

/// Why a module can't be legalized.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LegalizeError {
    /// The model contradicts itself or the operator's specification.
    #[error("node `{node}` ({op}): {message}")]
    Invalid {
        /// The node's name.
        node: String,
        /// Its operator.
        op: String,
        /// What is wrong.
        message: String,
    },
    /// The model uses what frit does not support yet.
    #[error("{0}")]
    Unsupported(Report),
    /// Shapes depend on the values of inputs: give them as [`super::LegalizeOptions::fixed`].
    #[error("node `{node}`: the values of {} are needed to compile", quoted(.inputs))]
    NeedsValues {
        /// Inputs of the function.
        inputs: Vec<String>,
        /// The first node that needs one.
        node: String,
    },
    /// Inputs whose shape the model leaves open.
    #[error("{} without a declared shape: it is taken from the value that the model is compiled for", quoted(.inputs))]
    Shapeless {
        /// Inputs of the function.
        inputs: Vec<String>,
    },
    /// A value given in [`super::LegalizeOptions::fixed`] is not of the input's type.
    #[error("input `{input}` is {declared}, the given value is {given}")]
    Fixed {
        /// The input.
        input: String,
        /// Its declared type.
        declared: String,
        /// Type of the value.
        given: String,
    },
    /// The graph of a function has a cycle.
    #[error("function `{0}` has a cycle")]
    Cycle(String),
}

fn quoted(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|n| format!("input `{n}`")).collect();
    names.join(", ")
}

/// Everything of a model that is not supported, one entry an operator and reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Entries, in the order of their first nodes.
    pub entries: Vec<Missing>,
}

/// Nodes of one operator that are not supported for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Operator domain; empty: ai.onnx.
    pub domain: String,
    /// Operator type.
    pub op_type: String,
    /// Version of the operator.
    pub since_version: i64,
    /// Why.
    pub reason: String,
    /// The nodes.
    pub nodes: Vec<String>,
}

impl Missing {
    /// Whether the operator itself is what is missing.
    pub fn is_operator(&self) -> bool {
        self.reason == NO_RULE
    }
}

impl Report {
    /// Adds a node.
    pub(super) fn add(&mut self, domain: &str, op_type: &str, since_version: i64, reason: String, node: String) {
        let same = self.entries.iter_mut().find(|m| {
            m.domain == domain && m.op_type == op_type && m.since_version == since_version && m.reason == reason
        });
        match same {
            // A body that is written out comes by more than once.
            Some(entry) if entry.nodes.contains(&node) => {}
            Some(entry) => entry.nodes.push(node),
            None => self.entries.push(Missing {
                domain: domain.to_owned(),
                op_type: op_type.to_owned(),
                since_version,
                reason,
                nodes: vec![node],
            }),
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        let domain = if self.domain.is_empty() { "ai.onnx" } else { &self.domain };
        write!(f, "{domain} {} (version {}): {}; ", self.op_type, self.since_version, self.reason)?;
        let names: Vec<String> = self.nodes.iter().take(SHOWN).map(|n| format!("`{n}`")).collect();
        write!(f, "node{} {}", if self.nodes.len() == 1 { "" } else { "s" }, names.join(", "))?;
        match self.nodes.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not supported yet:")?;
        self.entries.iter().try_for_each(|entry| write!(f, "\n  {entry}"))
    }
}

/// Why one node can't be legalized.
#[derive(Clone, Debug)]
pub(super) enum Fail {
    /// Against the specification.
    Invalid(String),
    /// Not written yet.
    Unsupported(String),
    /// The value (of the new function) must be known, it is the operand called so.
    NeedsValue(Value, String),
    /// A core op refused its operands: invalid or unsupported, by what the operands are.
    Type(TypeError),
    /// Something inside a region, already complete.
    Inner(Box<LegalizeError>),
    /// Reported or poisoned already.
    Poisoned,
}

impl From<TypeError> for Fail {
    fn from(error: TypeError) -> Self {
        Fail::Type(error)
    }
}

/// Result of a rule.
pub(super) type Ruled<T> = Result<T, Fail>;

/// Fails as invalid.
pub(super) fn invalid<T>(message: impl Into<String>) -> Ruled<T> {
    Err(Fail::Invalid(message.into()))
}

/// Fails as unsupported.
pub(super) fn unsupported<T>(reason: impl Into<String>) -> Ruled<T> {
    Err(Fail::Unsupported(reason.into()))
}

/// A node's name for messages.
pub(super) fn node_name(origin: &Origin) -> String {
    origin.to_string()
}
