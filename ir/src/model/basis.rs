//! The bases of an AF-KAN layer: pairs of shifted activations, and their normalisation over the whole tensor.

use super::net::{Net, Part};
use super::{Activation, BasisFunction, ModelError};
use crate::graph::Value;
use crate::op::{BinaryOp, ReduceKind, UnaryOp};

/// The least L2 norm that is divided by, as in PyTorch's `normalize`.
const LEAST_NORM: f64 = 1e-12;

/// The bases of x [B, D]: f(act(x - low_j), act(high_j - x)), of extents [B, D, n].
pub(super) fn bases(net: &mut Net<'_>, layer: &str, x: Value, activation: Activation, function: BasisFunction) -> Part {
    let (low, high) = (net.param(&format!("{layer}.phase_low"))?, net.param(&format!("{layer}.phase_high"))?);
    net.at(&format!("{layer}.basis"));
    let x = net.unsqueeze(x, 2)?;
    let (above, below) = (net.sub(x, low)?, net.sub(high, x)?);
    let (u, v) = (net.activation(above, activation)?, net.activation(below, activation)?);
    combined(net, u, v, function)
}

fn square(net: &mut Net<'_>, x: Value) -> Part {
    net.mul(x, x)
}

fn combined(net: &mut Net<'_>, u: Value, v: Value, function: BasisFunction) -> Part {
    match function {
        BasisFunction::Quad1 => {
            let product = net.mul(u, v)?;
            square(net, product)
        }
        BasisFunction::Quad2 => {
            let (product, uu, vv) = (net.mul(u, v)?, square(net, u)?, square(net, v)?);
            let sum = net.add(product, uu)?;
            net.add(sum, vv)
        }
        BasisFunction::Sum => net.add(u, v),
        BasisFunction::Prod => net.mul(u, v),
        BasisFunction::SumProd => {
            let (sum, product) = (net.add(u, v)?, net.mul(u, v)?);
            net.add(sum, product)
        }
        BasisFunction::Cubic1 => {
            let (sum, uu, vv) = (net.add(u, v)?, square(net, u)?, square(net, v)?);
            let squares = net.add(uu, vv)?;
            net.mul(sum, squares)
        }
        BasisFunction::Cubic2 => {
            let product = net.mul(u, v)?;
            let two = square(net, product)?;
            net.mul(two, product)
        }
    }
}

/// Smallest and largest of a tensor [B, D, n].
pub(super) fn extremes(net: &mut Net<'_>, phi: Value) -> Result<(Value, Value), ModelError> {
    let axes = [0, 1, 2];
    Ok((net.reduce(phi, &axes, ReduceKind::Min, false)?, net.reduce(phi, &axes, ReduceKind::Max, false)?))
}

/// (phi - least) / (most - least).
pub(super) fn scaled(net: &mut Net<'_>, phi: Value, least: Value, most: Value) -> Part {
    let from_least = net.sub(phi, least)?;
    let range = net.sub(most, least)?;
    net.div(from_least, range)
}

/// phi over its L2 norm, mapped to [0, 1] by its own extremes: all over the whole tensor, so that what a sample gives
/// depends on its batch.
pub(super) fn normalised(net: &mut Net<'_>, phi: Value) -> Part {
    let squares = square(net, phi)?;
    let sum = net.sum(squares, &[0, 1, 2], false)?;
    let root = net.unary(UnaryOp::Sqrt, sum)?;
    let length = net.with(BinaryOp::Max, root, LEAST_NORM)?;
    let unit = net.div(phi, length)?;
    let (least, most) = extremes(net, unit)?;
    scaled(net, unit, least, most)
}
