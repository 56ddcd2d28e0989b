//! What a function takes and gives when it runs: tensors, and the host's lists, optionals and maps.

use std::collections::BTreeMap;

use crate::tensor::Tensor;

/// A value outside a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostValue {
    /// A dense tensor.
    Tensor(Tensor),
    /// A list.
    Sequence(Vec<HostValue>),
    /// A value or none.
    Optional(Option<Box<HostValue>>),
    /// Values by key.
    Map(BTreeMap<MapKey, HostValue>),
}

/// A key of a map.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MapKey {
    /// An integer of any width.
    Int(i64),
    /// A text.
    Str(String),
}

impl HostValue {
    /// The tensor, when it is one.
    pub fn tensor(&self) -> Option<&Tensor> {
        match self {
            HostValue::Tensor(t) => Some(t),
            HostValue::Sequence(_) | HostValue::Optional(_) | HostValue::Map(_) => None,
        }
    }

    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            HostValue::Tensor(_) => "a tensor",
            HostValue::Sequence(_) => "a sequence",
            HostValue::Optional(_) => "an optional",
            HostValue::Map(_) => "a map",
        }
    }
}

impl From<Tensor> for HostValue {
    fn from(t: Tensor) -> Self {
        HostValue::Tensor(t)
    }
}
