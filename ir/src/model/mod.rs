//! Native graphs built in code: AF-KAN and the MLP that it is compared with.
//!
//! ```text
//!  AfKan, Mlp --- specs: names, shapes, distributions --- init: Philox ---> params
//!      |                                                                      |
//!      '--- net: ops on one function (parts: activations, norms) <------------'
//!              |      af_kan: basis, methods, combination; mlp
//!              '--> Module { infer, train }
//! ```
//!
//! In: a configuration. Out: a [`Module`](crate::Module) of core ops whose function `infer` takes `x` f32\[B, D\] (B
//! symbolic) and gives `logits` f32\[B, O\], or a [`ModelError`]. Parameters carry the names of the authors' PyTorch
//! modules (`layers.0.phase_low`); what is not trained (running statistics) is a parameter that is not trainable. Where
//! training differs from inference the module has a function `train` as well: the same input, the same first output,
//! and one output for each parameter that it renews, under that parameter's name.
//!
//! Holds: extents are checked before anything is allocated; two modules of one configuration and one seed are equal on
//! every machine; a graph reads exactly the parameters that its configuration uses. Formulas stand as in the papers: to
//! remove work is the compiler's business.

mod af_kan;
mod basis;
mod check;
mod init;
mod methods;
mod mlp;
mod net;
mod norm;
#[cfg(test)]
mod tests;
pub mod train;
mod words;

pub use af_kan::AfKan;
pub use mlp::Mlp;
pub use words::{Activation, BasisFunction, Combination, Method, Norm};

use crate::op::infer::TypeError;
use crate::tensor::TensorError;
use crate::types::TensorType;

/// Why a network can't be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// No layer can be made of so few extents.
    #[error("{found} layer extents; a network takes at least an input and an output extent, as 784,64,10")]
    FewLayers {
        /// How many there are.
        found: usize,
    },
    /// More layers than a graph should have.
    #[error("{found} layer extents; at most {limit} are built")]
    ManyLayers {
        /// How many there are.
        found: usize,
        /// The most.
        limit: usize,
    },
    /// A layer of no elements, or of too many.
    #[error("layer extent {index} is {extent}; it must be 1 to {limit}")]
    Extent {
        /// Which extent, from 0.
        index: usize,
        /// What it is.
        extent: usize,
        /// The most.
        limit: usize,
    },
    /// A grid that makes no bases, or too many.
    #[error("grid {grid} and order {order}: the grid must be at least 1, their sum at most {limit}")]
    Bases {
        /// The grid size.
        grid: usize,
        /// The order.
        order: usize,
        /// The most bases.
        limit: usize,
    },
    /// No reduction method, or too many.
    #[error("{found} methods; give 1 to {limit}")]
    Methods {
        /// How many there are.
        found: usize,
        /// The most.
        limit: usize,
    },
    /// local_attn looks at pairs of bases.
    #[error("local_attn takes windows of 2 bases, and grid + order is {bases}; use a larger grid or another method")]
    Windows {
        /// How many bases there are.
        bases: usize,
    },
    /// More parameters than are allocated.
    #[error("more than {limit} parameters; use smaller layers")]
    Parameters {
        /// The most.
        limit: usize,
    },
    /// A word that names nothing.
    #[error("`{word}` is no {what}; one of {known}")]
    Word {
        /// What was looked for.
        what: &'static str,
        /// The word.
        word: String,
        /// All that there are.
        known: String,
    },
    /// The module given is not of this configuration.
    #[error("parameter `{name}` should be {expected}, {found}; give a module of the same configuration")]
    Param {
        /// The parameter.
        name: String,
        /// What the configuration takes.
        expected: TensorType,
        /// What the module has.
        found: String,
    },
    /// Extremes of a network that has none.
    #[error("the bases are not normalised (func_norm is off): there are no extremes to measure or freeze")]
    NoExtremes,
    /// Measured extremes that don't fit.
    #[error("extremes `{name}`: {reason}; measure them with the function `extremes` on a batch of real data")]
    Extremes {
        /// Their output's name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// An op refused its operands: a bug of a builder.
    #[error("internal: the graph can't be built: {0}")]
    Graph(#[from] TypeError),
    /// Values that don't fill their shape: a bug of a builder, or no memory.
    #[error("a parameter can't be made: {0}")]
    Tensor(#[from] TensorError),
}

impl ModelError {
    /// Whether it is a bug of frit, not of the caller.
    pub fn is_internal(&self) -> bool {
        match self {
            ModelError::Graph(_) | ModelError::Tensor(TensorError::Size { .. } | TensorError::Kind(_)) => true,
            ModelError::FewLayers { .. }
            | ModelError::ManyLayers { .. }
            | ModelError::Extent { .. }
            | ModelError::Bases { .. }
            | ModelError::Methods { .. }
            | ModelError::Windows { .. }
            | ModelError::Parameters { .. }
            | ModelError::Word { .. }
            | ModelError::Param { .. }
            | ModelError::NoExtremes
            | ModelError::Extremes { .. }
            | ModelError::Tensor(TensorError::Memory { .. }) => false,
        }
    }
}
