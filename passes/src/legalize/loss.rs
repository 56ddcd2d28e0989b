//! Losses of classification.

use frit_ir::{BinaryOp, DType, Dim, Op, UnaryOp, Value};

use super::context::{Ctx, Results};
use super::error::{Ruled, invalid};
use super::gather::picked;
use super::reduction::log_softmax;
use super::table::{Row, onnx};

pub(super) const TABLE: &[Row] =
    &[onnx("NegativeLogLikelihoodLoss", nll_loss), onnx("SoftmaxCrossEntropyLoss", cross_entropy)];

fn nll_loss(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let dtype = c.dtype(x)?;
    let x = c.to(x, c.wide(dtype))?;
    let loss = loss_of(c, x)?;
    Ok(vec![c.to(loss, dtype)?])
}

fn cross_entropy(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let dtype = c.dtype(x)?;
    let x = c.to(x, c.wide(dtype))?;
    let logs = log_softmax(c, x, &[1])?;
    let loss = loss_of(c, logs)?;
    Ok(vec![c.to(loss, dtype)?, c.to(logs, dtype)?])
}

/// -weight[t] logs[n, t, ..] for each target t, then the reduction; `mean` divides by the sum of the weights.
fn loss_of(c: &mut Ctx, logs: Value) -> Ruled<Value> {
    let target = c.x(1)?;
    let target = c.to(target, DType::I64)?;
    let (dims, target_dims) = (c.shape(logs)?, c.shape(target)?);
    if dims.len() < 2 || target_dims.len() + 1 != dims.len() {
        return invalid(format!("scores are {}, targets {}", c.ty(logs)?, c.ty(target)?));
    }
    let ignored = match c.int("ignore_index")? {
        Some(index) => {
            let index = c.i64s(&[], &[index])?;
            Some(c.bin(BinaryOp::Eq, target, index)?)
        }
        None => None,
    };
    // An ignored target may be no class at all: class 0 stands in for it.
    let class = match ignored {
        Some(ignored) => {
            let zero = c.like(target, 0.0)?;
            c.pick(ignored, zero, target)?
        }
        None => target,
    };
    let mut column = target_dims.clone();
    column.insert(1, Dim::ONE);
    let at = c.b.reshape(class, column)?;
    let found = picked(c, logs, at, 1)?;
    let found = c.b.reshape(found, target_dims.clone())?;
    let one = c.like(logs, 1.0)?;
    let mut weight = match c.opt(2) {
        Some(w) => {
            let w = c.to(w, c.dtype(logs)?)?;
            c.op(Op::Gather { axis: 0 }, &[w, class])?
        }
        None => c.full(one, target_dims.clone())?,
    };
    if let Some(ignored) = ignored {
        let zero = c.like(weight, 0.0)?;
        weight = c.pick(ignored, zero, weight)?;
    }
    let minus = c.un(UnaryOp::Neg, found)?;
    let mut loss = c.mul(minus, weight)?;
    if let Some(ignored) = ignored {
        // 0 times an infinite score would be NaN.
        let zero = c.like(loss, 0.0)?;
        loss = c.pick(ignored, zero, loss)?;
    }
    let all: Vec<usize> = (0..target_dims.len()).collect();
    match c.text("reduction", "mean")?.as_str() {
        "none" => Ok(loss),
        "sum" => c.sum(loss, &all, false),
        "mean" => {
            let (total, weights) = (c.sum(loss, &all, false)?, c.sum(weight, &all, false)?);
            c.div(total, weights)
        }
        other => invalid(format!("no reduction `{other}`")),
    }
}
