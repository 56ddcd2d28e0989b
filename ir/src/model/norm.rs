//! Normalisation over samples and over the batch.

use std::collections::HashMap;

use super::init::{Init, Specs};
use super::net::{Net, Part};
use super::{ModelError, Norm};
use crate::graph::Value;
use crate::op::{BinaryOp, UnaryOp};
use crate::types::DType;

/// Added to a variance before its root is taken.
const EPSILON: f64 = 1e-5;
/// Share of a batch in new running statistics.
const MOMENTUM: f64 = 0.1;

/// Whose statistics a batch norm uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// The running ones.
    Infer,
    /// The batch's.
    Train,
}

/// Lists the parameters of a norm called `name`.
pub(super) fn specs(specs: &mut Specs, norm: Norm, name: &str, extent: usize) {
    if norm == Norm::None {
        return;
    }
    specs.add(format!("{name}.weight"), &[extent], Init::Fill(1.0));
    specs.add(format!("{name}.bias"), &[extent], Init::Fill(0.0));
    if norm == Norm::Batch {
        specs.buffer(format!("{name}.running_mean"), &[extent], Init::Fill(0.0));
        specs.buffer(format!("{name}.running_var"), &[extent], Init::Fill(1.0));
    }
}

/// What training renews beside its results: parameters by name, in the order in which they were first renewed.
#[derive(Debug, Default)]
pub(super) struct Renewed {
    names: Vec<String>,
    values: HashMap<String, Value>,
}

impl Renewed {
    /// What a parameter is by now.
    fn now(&self, net: &mut Net<'_>, name: &str) -> Part {
        self.values.get(name).map_or_else(|| net.param(name), |v| Ok(*v))
    }

    fn set(&mut self, name: String, value: Value) {
        if self.values.insert(name.clone(), value).is_none() {
            self.names.push(name);
        }
    }

    /// Names and values.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, Value)> {
        self.names.iter().filter_map(|n| self.values.get(n).map(|v| (n.as_str(), *v)))
    }
}

/// Mean along an axis, the difference to it, and the sum of that difference's squares.
fn moments(net: &mut Net<'_>, x: Value, axis: usize, count: Value) -> Result<(Value, Value, Value), ModelError> {
    let sum = net.sum(x, &[axis], true)?;
    let mean = net.div(sum, count)?;
    let centred = net.sub(x, mean)?;
    let square = net.mul(centred, centred)?;
    Ok((mean, centred, net.sum(square, &[axis], true)?))
}

/// 1 / sqrt(v + epsilon).
fn inverse_root(net: &mut Net<'_>, variance: Value) -> Part {
    let moved = net.with(BinaryOp::Add, variance, EPSILON)?;
    let root = net.unary(UnaryOp::Sqrt, moved)?;
    let one = net.scalar(1.0)?;
    net.div(one, root)
}

/// The norm called `name` of x [B, D], scaled and shifted; running statistics go to `renewed` in training.
pub(super) fn apply(net: &mut Net<'_>, norm: Norm, mode: Mode, name: &str, x: Value, renewed: &mut Renewed) -> Part {
    net.at(name);
    let normal = match (norm, mode) {
        (Norm::None, _) => return Ok(x),
        (Norm::Layer, _) => {
            let dims = net.b.dims(x)?;
            let count = dims.get(1).and_then(crate::types::Dim::known).unwrap_or(1);
            let count = net.scalar(count as f64)?;
            let (_, centred, squares) = moments(net, x, 1, count)?;
            let variance = net.div(squares, count)?;
            let inverse = inverse_root(net, variance)?;
            net.mul(centred, inverse)?
        }
        (Norm::Batch, Mode::Infer) => {
            let (mean, variance) = (net.param(&running(name, "mean"))?, net.param(&running(name, "var"))?);
            let centred = net.sub(x, mean)?;
            let inverse = inverse_root(net, variance)?;
            net.mul(centred, inverse)?
        }
        (Norm::Batch, Mode::Train) => batch_norm(net, name, x, renewed)?,
    };
    let (weight, bias) = (net.param(&format!("{name}.weight"))?, net.param(&format!("{name}.bias"))?);
    let scaled = net.mul(normal, weight)?;
    net.add(scaled, bias)
}

fn running(name: &str, what: &str) -> String {
    format!("{name}.running_{what}")
}

/// Normalises by the batch's own statistics and renews the running ones: the variance that is kept has the divisor
/// B - 1, the one that is used B.
fn batch_norm(net: &mut Net<'_>, name: &str, x: Value, renewed: &mut Renewed) -> Part {
    let dims = net.b.dims(x)?;
    let flat = dims.get(1..).unwrap_or(&[]).to_vec();
    let count = net.b.dim(dims.first().cloned().unwrap_or(crate::types::Dim::ONE))?;
    let count = net.b.cast(count, DType::F32)?;
    let (mean, centred, squares) = moments(net, x, 0, count)?;
    let variance = net.div(squares, count)?;
    let inverse = inverse_root(net, variance)?;
    let rest = net.with(BinaryOp::Sub, count, 1.0)?;
    let unbiased = net.div(squares, rest)?;
    for (what, batch) in [("mean", mean), ("var", unbiased)] {
        let parameter = running(name, what);
        let old = renewed.now(net, &parameter)?;
        let kept = net.with(BinaryOp::Mul, old, 1.0 - MOMENTUM)?;
        let batch = net.reshape(batch, flat.clone())?;
        let new = net.with(BinaryOp::Mul, batch, MOMENTUM)?;
        let blend = net.add(kept, new)?;
        renewed.set(parameter, blend);
    }
    net.mul(centred, inverse)
}
