//! What a run refuses, and why it fails.

use frit_ir::{DType, TensorError};

use crate::library::LibraryError;

/// Why a run did not give results.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No input of that name.
    #[error("there is no input `{name}`; inputs are {known}")]
    UnknownInput {
        /// The name given.
        name: String,
        /// Those that exist.
        known: String,
    },
    /// An input that was not given.
    #[error("input `{name}` ({ty}) is missing; give it a value")]
    MissingInput {
        /// Its name.
        name: String,
        /// Its type.
        ty: String,
    },
    /// An input given twice, or more inputs than there are.
    #[error("{0}")]
    ExtraInput(String),
    /// A tensor where a sequence is expected, or the reverse.
    #[error("input `{name}` is {expected}, given {found}; pass a value of that kind")]
    Kind {
        /// The input.
        name: String,
        /// Its type.
        expected: String,
        /// What was given.
        found: String,
    },
    /// Another element type.
    #[error("input `{name}`: element type {found}, expected {expected}; convert the data first")]
    Dtype {
        /// The input.
        name: String,
        /// What the model takes.
        expected: DType,
        /// What was given.
        found: DType,
    },
    /// Another number of dims.
    #[error("input `{name}`: shape {found:?} has {} dims, expected {expected}", found.len())]
    Rank {
        /// The input.
        name: String,
        /// Its type.
        expected: String,
        /// What was given.
        found: Vec<usize>,
    },
    /// An extent that the model does not take.
    #[error("input `{name}`, axis {axis}: extent {found}, expected {expected}")]
    Extent {
        /// The input.
        name: String,
        /// The axis.
        axis: usize,
        /// What it must be.
        expected: String,
        /// What it is.
        found: i64,
    },
    /// Data whose length is not what shape and type take.
    #[error("input `{name}`: {found} bytes of data for a {dtype} tensor of shape {shape:?}")]
    Size {
        /// The input.
        name: String,
        /// Its element type.
        dtype: DType,
        /// Its shape.
        shape: Vec<usize>,
        /// Bytes given.
        found: usize,
    },
    /// An input that differs from the value that the model was compiled for.
    #[error("input `{name}` differs from the value that the model was compiled for; compile it again for this one")]
    Value {
        /// The input.
        name: String,
    },
    /// Extents that do not fit each other.
    #[error("`{origin}`: {message}")]
    Shape {
        /// The op.
        origin: String,
        /// Which, and how.
        message: String,
    },
    /// More memory than allowed.
    #[error("{what} takes {bytes} bytes, the limit is {limit}; run with smaller inputs or raise the limit")]
    Limit {
        /// What asks for it.
        what: String,
        /// How much; `usize::MAX` when no number of 64 bits holds it.
        bytes: usize,
        /// How much it may be.
        limit: usize,
    },
    /// More memory than the system gives.
    #[error("{what} takes {bytes} bytes, which the system does not give; run with smaller inputs")]
    Memory {
        /// What asks for it.
        what: String,
        /// How much.
        bytes: usize,
    },
    /// A check inside a kernel failed.
    #[error("`{origin}`: {message}")]
    Trap {
        /// The ops of the kernel.
        origin: String,
        /// What the check says.
        message: String,
    },
    /// An assertion of the model failed.
    #[error("`{origin}`: {message}")]
    Assertion {
        /// The op.
        origin: String,
        /// What it says.
        message: String,
    },
    /// A library call refused its operands.
    #[error("`{origin}`: {source}")]
    Library {
        /// The op.
        origin: String,
        /// Why.
        source: LibraryError,
    },
    /// A sequence op met a position or value that it can't take.
    #[error("`{origin}`: {message}")]
    Sequence {
        /// The op.
        origin: String,
        /// Why.
        message: String,
    },
    /// State that a step can't go on from.
    #[error("state of input `{name}`: {message}")]
    State {
        /// The donated input.
        name: String,
        /// Why.
        message: String,
    },
    /// A plan that contradicts itself: a bug, or a file that was tampered with.
    #[error("internal error: {0}")]
    Internal(String),
}

/// Why a tensor could not be copied.
pub(crate) fn uncopied(what: &str, error: TensorError) -> RunError {
    match error {
        TensorError::Memory { bytes } => RunError::Memory { what: what.to_owned(), bytes },
        other @ (TensorError::Size { .. } | TensorError::Kind(_)) => RunError::Internal(other.to_string()),
    }
}

impl RunError {
    /// Whether it is a bug of frit, not of the model or the caller.
    pub fn is_internal(&self) -> bool {
        matches!(self, RunError::Internal(_))
    }
}
