//! What a value can be: element types, extents, tensor types.
//!
//! [`DType`] names an element, [`Dim`] an extent (known or symbolic), [`TensorType`] a tensor, [`ValueType`] whatever
//! an operand or result of an op can be. No data lives here.

pub mod dim;
mod dtype;

use std::fmt;

pub use dim::{Dim, Symbol};
pub use dtype::{Class, DType, UnknownDType};

/// Element type and extents of a tensor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TensorType {
    /// Element type.
    pub dtype: DType,
    /// Extents, outermost first; empty for a scalar.
    pub dims: Vec<Dim>,
}

impl TensorType {
    /// A tensor type from its parts.
    pub fn new(dtype: DType, dims: impl Into<Vec<Dim>>) -> Self {
        TensorType { dtype, dims: dims.into() }
    }

    /// A scalar.
    pub fn scalar(dtype: DType) -> Self {
        TensorType { dtype, dims: Vec::new() }
    }

    /// A tensor type with known extents.
    pub fn known(dtype: DType, dims: &[usize]) -> Self {
        TensorType { dtype, dims: dims.iter().map(|&d| Dim::from(d)).collect() }
    }

    /// Number of dims.
    pub fn rank(&self) -> usize {
        self.dims.len()
    }

    /// Number of elements.
    pub fn numel(&self) -> Dim {
        Dim::product(&self.dims)
    }

    /// The extents when all are known.
    pub fn known_dims(&self) -> Option<Vec<usize>> {
        self.dims.iter().map(|d| d.known().and_then(|d| usize::try_from(d).ok())).collect()
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype)?;
        for (i, dim) in self.dims.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{dim}")?;
        }
        f.write_str("]")
    }
}

/// Whatever an operand or result can be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// A dense tensor.
    Tensor(TensorType),
    /// A host list of values of one type.
    Sequence(Box<ValueType>),
    /// A host value that may be absent.
    Optional(Box<ValueType>),
    /// A host map.
    Map(DType, Box<ValueType>),
    /// Not known yet: only results of ONNX ops, before legalize, have it.
    Unknown,
}

impl ValueType {
    /// The tensor type, when it is a tensor.
    pub fn tensor(&self) -> Option<&TensorType> {
        match self {
            ValueType::Tensor(t) => Some(t),
            ValueType::Sequence(_) | ValueType::Optional(_) | ValueType::Map(..) | ValueType::Unknown => None,
        }
    }
}

impl From<TensorType> for ValueType {
    fn from(t: TensorType) -> Self {
        ValueType::Tensor(t)
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValueType::Tensor(t) => write!(f, "{t}"),
            ValueType::Sequence(e) => write!(f, "seq<{e}>"),
            ValueType::Optional(e) => write!(f, "optional<{e}>"),
            ValueType::Map(k, e) => write!(f, "map<{k}, {e}>"),
            ValueType::Unknown => f.write_str("unknown"),
        }
    }
}
