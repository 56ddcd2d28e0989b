//! Why an evaluation stops.

use std::fmt;

use crate::origin::Origin;
use crate::tensor::TensorError;
use crate::types::DType;

/// The op that an error is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    /// Its word.
    pub op: &'static str,
    /// Where it came from.
    pub origin: Origin,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ({})", self.op, self.origin)
    }
}

/// Why an evaluation stops.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// An index operand leaves the axis that it looks up.
    #[error("{at}: operand {operand} holds index {index}, outside 0..{extent}")]
    Index {
        /// The op.
        at: At,
        /// Which operand holds the index.
        operand: usize,
        /// The index.
        index: i64,
        /// The extent that it leaves.
        extent: usize,
    },
    /// The condition of an `assert` does not hold.
    #[error("{at}: {message}")]
    Assert {
        /// The op.
        at: At,
        /// The op's message.
        message: String,
    },
    /// An extent is not what its expression says.
    #[error("{what}: axis {axis} has extent {found}, its type says {dim} = {expected}")]
    Extent {
        /// The input or op.
        what: String,
        /// The axis.
        axis: usize,
        /// The expression.
        dim: String,
        /// Its value.
        expected: i64,
        /// The extent.
        found: usize,
    },
    /// A symbol breaks what the function states of it.
    #[error("function `{function}`: symbol {symbol} is {value}, which its facts don't allow")]
    Fact {
        /// The function.
        function: String,
        /// The symbol.
        symbol: String,
        /// Its value.
        value: i64,
    },
    /// Extents don't stand as the function requires.
    #[error("`{origin}`: {message} ({what})")]
    Requirement {
        /// The op that asked for it.
        origin: Origin,
        /// Which extents.
        what: String,
        /// How they are and should be.
        message: String,
    },
    /// An extent can't be computed: a symbol is not bound, or the result is negative or too large.
    #[error("{at}: extent {dim} has no value of at least 0; a symbol in it is fixed by no input")]
    Unbound {
        /// The op.
        at: At,
        /// The expression.
        dim: String,
    },
    /// An operand is missing, of the wrong kind, or has a value that the op refuses.
    #[error("{at}: operand {operand} {message}")]
    Operand {
        /// The op.
        at: At,
        /// Which operand.
        operand: usize,
        /// What is wrong with it.
        message: String,
    },
    /// Types or shapes at run time don't fit the op.
    #[error("{at}: {message}")]
    Type {
        /// The op.
        at: At,
        /// What is wrong.
        message: String,
    },
    /// The evaluator does not define this op.
    #[error("{at}: {message}")]
    Unsupported {
        /// The op.
        at: At,
        /// Why, and what to do.
        message: String,
    },
    /// More elements or steps than the options allow.
    #[error("{at}: takes more than {limit} {what}, the limit of this evaluation")]
    Limit {
        /// The op.
        at: At,
        /// Elements, steps or nested calls.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The function or parameter that an op names is not in the module.
    #[error("{at}: the module has no {what} `{name}`")]
    Missing {
        /// The op.
        at: At,
        /// Function or parameter.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The inputs don't fit the function.
    #[error("function `{function}`: {message}")]
    Inputs {
        /// The function.
        function: String,
        /// What is wrong.
        message: String,
    },
    /// The ops of a function depend on each other in a circle.
    #[error("function `{function}` has a cycle")]
    Cycle {
        /// The function.
        function: String,
    },
    /// A result can't be made a tensor; text elements in a number tensor are the only way there.
    #[error("a {0} result: {1}")]
    Tensor(DType, TensorError),
}
