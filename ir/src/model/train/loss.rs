//! Losses: what one batch's outputs cost, as a mean over the batch.

use super::reciprocal_of_count;
use crate::builder::{Builder, Built};
use crate::graph::Value;
use crate::op::{BinaryOp, Op, ReduceKind, UnaryOp};
use crate::types::{DType, TensorType};

/// What is minimised; formulas as in PyTorch, reduction `mean`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loss {
    /// -log softmax(logits)\[class\], of logits [batch, classes] and classes i64\[batch\]. With smoothing s the target is
    /// 1 - s at the class plus s / classes everywhere.
    CrossEntropy {
        /// From 0 up to 1.
        smoothing: f64,
    },
    /// (output - target)^2, over all elements.
    Mse,
    /// Binary cross-entropy of a sigmoid: log(1 + e^x) - x target, over all elements; targets in [0, 1].
    Bce,
}

impl Loss {
    /// Whether targets are classes.
    pub fn has_classes(self) -> bool {
        matches!(self, Loss::CrossEntropy { .. })
    }

    /// The same without smoothing: what an evaluation shows.
    #[must_use]
    pub fn plain(self) -> Loss {
        match self {
            Loss::CrossEntropy { .. } => Loss::CrossEntropy { smoothing: 0.0 },
            Loss::Mse | Loss::Bce => self,
        }
    }

    /// The type of the targets for an output; `None` where the loss does not take such an output.
    pub fn target(self, output: &TensorType) -> Option<TensorType> {
        match self {
            Loss::CrossEntropy { .. } => match &output.dims[..] {
                [batch, _] => Some(TensorType::new(DType::I64, vec![batch.clone()])),
                _ => None,
            },
            Loss::Mse | Loss::Bce => Some(output.clone()),
        }
    }

    /// The loss as a scalar.
    pub(super) fn of(self, b: &mut Builder<'_>, output: Value, target: Value) -> Built {
        match self {
            Loss::CrossEntropy { smoothing } => cross_entropy(b, output, target, smoothing),
            Loss::Mse => {
                let difference = b.binary(BinaryOp::Sub, output, target)?;
                let square = b.binary(BinaryOp::Mul, difference, difference)?;
                mean(b, square)
            }
            Loss::Bce => binary_cross_entropy(b, output, target),
        }
    }
}

fn mean(b: &mut Builder<'_>, x: Value) -> Built {
    let ty = b.tensor(x)?;
    let sum = b.reduce(x, (0..ty.rank()).collect(), ReduceKind::Sum, false)?;
    let scale = reciprocal_of_count(b, &ty.dims, ty.dtype)?;
    b.binary(BinaryOp::Mul, sum, scale)
}

/// 1 at the class of each row, else 0.
fn one_hot(b: &mut Builder<'_>, classes: Value, like: &TensorType) -> Built {
    let places = b.op(Op::Iota { dtype: DType::I64, dims: like.dims.clone(), axis: 1 }, &[])?;
    let rows = b.op(Op::Broadcast { dims: like.dims.clone(), axes: vec![0] }, &[classes])?;
    let hit = b.binary(BinaryOp::Eq, places, rows)?;
    b.cast(hit, like.dtype)
}

fn cross_entropy(b: &mut Builder<'_>, logits: Value, classes: Value, smoothing: f64) -> Built {
    let ty = b.tensor(logits)?;
    let top = b.reduce(logits, vec![1], ReduceKind::Max, true)?;
    let shifted = b.binary(BinaryOp::Sub, logits, top)?;
    let e = b.unary(UnaryOp::Exp, shifted)?;
    let sum = b.reduce(e, vec![1], ReduceKind::Sum, true)?;
    let log = b.unary(UnaryOp::Log, sum)?;
    let log_softmax = b.binary(BinaryOp::Sub, shifted, log)?;
    let mut weight = one_hot(b, classes, &ty)?;
    if smoothing != 0.0 {
        let keep = b.scalar(ty.dtype, 1.0 - smoothing)?;
        let share = b.scalar(ty.dtype, smoothing)?;
        let one = reciprocal_of_count(b, &ty.dims[1..], ty.dtype)?;
        let each = b.binary(BinaryOp::Mul, share, one)?;
        let kept = b.binary(BinaryOp::Mul, weight, keep)?;
        weight = b.binary(BinaryOp::Add, kept, each)?;
    }
    // A class of probability 0 costs nothing, also where its score is -inf.
    let zero = b.scalar(ty.dtype, 0.0)?;
    let counts = b.binary(BinaryOp::Lt, zero, weight)?;
    let product = b.binary(BinaryOp::Mul, log_softmax, weight)?;
    let product = b.select(counts, product, zero)?;
    let sum = b.reduce(product, vec![0, 1], ReduceKind::Sum, false)?;
    let scale = reciprocal_of_count(b, &ty.dims[..1], ty.dtype)?;
    let mean = b.binary(BinaryOp::Mul, sum, scale)?;
    b.unary(UnaryOp::Neg, mean)
}

/// max(x, 0) - x t + log1p(e^-|x|), with max(x, 0) as x / 2 + |x| / 2, whose slope at 0 is right.
fn binary_cross_entropy(b: &mut Builder<'_>, output: Value, target: Value) -> Built {
    let dtype = b.tensor(output)?.dtype;
    let half = b.scalar(dtype, 0.5)?;
    let size = b.unary(UnaryOp::Abs, output)?;
    let (low, high) = (b.binary(BinaryOp::Mul, output, half)?, b.binary(BinaryOp::Mul, size, half)?);
    let top = b.binary(BinaryOp::Add, low, high)?;
    let product = b.binary(BinaryOp::Mul, output, target)?;
    let linear = b.binary(BinaryOp::Sub, top, product)?;
    let minus = b.unary(UnaryOp::Neg, size)?;
    let e = b.unary(UnaryOp::Exp, minus)?;
    let tail = b.unary(UnaryOp::Log1p, e)?;
    let each = b.binary(BinaryOp::Add, linear, tail)?;
    mean(b, each)
}
