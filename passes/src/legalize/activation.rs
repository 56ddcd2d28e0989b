//! Activations, written so that no intermediate overflows into NaN.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

use frit_ir::{BinaryOp, UnaryOp, Value};

use super::context::{Ctx, Results};
use super::elementwise::along;
use super::error::{Ruled, invalid};
use super::table::{Row, onnx};

pub(super) const TABLE: &[Row] = &[
    onnx("Celu", celu),
    onnx("Elu", elu),
    onnx("Gelu", gelu),
    onnx("HardSigmoid", |c| {
        let (alpha, beta) = (c.float("alpha")?.unwrap_or(0.2), c.float("beta")?.unwrap_or(0.5));
        let x = c.x(0)?;
        Ok(vec![hard_sigmoid(c, x, alpha, beta)?])
    }),
    onnx("HardSwish", |c| {
        let x = c.x(0)?;
        let gate = hard_sigmoid(c, x, 1.0 / 6.0, 0.5)?;
        Ok(vec![c.mul(x, gate)?])
    }),
    onnx("LeakyRelu", leaky_relu),
    onnx("Mish", mish),
    onnx("PRelu", prelu),
    onnx("Relu", relu),
    onnx("Selu", selu),
    onnx("Shrink", shrink),
    onnx("Sigmoid", |c| {
        let x = c.x(0)?;
        Ok(vec![sigmoid(c, x)?])
    }),
    onnx("Softplus", |c| {
        let x = c.x(0)?;
        Ok(vec![softplus(c, x)?])
    }),
    onnx("Softsign", |c| {
        let x = c.x(0)?;
        Ok(vec![softsign(c, x)?])
    }),
    onnx("SwiGLU", swiglu),
    onnx("Swish", swish),
    onnx("ThresholdedRelu", thresholded_relu),
];

/// 1 / (1 + e^-x): where e^-x overflows, the quotient is the limit 0.
pub(super) fn sigmoid(c: &mut Ctx, x: Value) -> Ruled<Value> {
    let minus = c.un(UnaryOp::Neg, x)?;
    let e = c.un(UnaryOp::Exp, minus)?;
    let below = c.add_s(e, 1.0)?;
    let one = c.like(x, 1.0)?;
    c.div(one, below)
}

/// x / 2 + |x| / 2 + log1p(e^-|x|): the halves are exact, and their slopes add up to that of the whole at 0 too.
pub(super) fn softplus(c: &mut Ctx, x: Value) -> Ruled<Value> {
    let a = c.un(UnaryOp::Abs, x)?;
    let minus = c.un(UnaryOp::Neg, a)?;
    let e = c.un(UnaryOp::Exp, minus)?;
    let log = c.un(UnaryOp::Log1p, e)?;
    let (half, size) = (c.mul_s(x, 0.5)?, c.mul_s(a, 0.5)?);
    let top = c.add(half, size)?;
    c.add(top, log)
}

pub(super) fn softsign(c: &mut Ctx, x: Value) -> Ruled<Value> {
    let a = c.un(UnaryOp::Abs, x)?;
    let below = c.add_s(a, 1.0)?;
    c.div(x, below)
}

/// min(max(alpha x + beta, 0), 1).
pub(super) fn hard_sigmoid(c: &mut Ctx, x: Value, alpha: f64, beta: f64) -> Ruled<Value> {
    let scaled = c.mul_s(x, alpha)?;
    let line = c.add_s(scaled, beta)?;
    let low = c.bin_s(BinaryOp::Max, line, 0.0)?;
    c.bin_s(BinaryOp::Min, low, 1.0)
}

/// x where it is positive, else `other`; NaN stays NaN because both are.
fn positive_or(c: &mut Ctx, x: Value, other: Value) -> Ruled<Value> {
    let negative = c.bin_s(BinaryOp::Lt, x, 0.0)?;
    c.pick(negative, other, x)
}

/// alpha (e^x - 1) below 0.
pub(super) fn elu_of(c: &mut Ctx, x: Value, alpha: f64) -> Ruled<Value> {
    let e = c.un(UnaryOp::Expm1, x)?;
    let scaled = c.mul_s(e, alpha)?;
    positive_or(c, x, scaled)
}

pub(super) fn leaky_of(c: &mut Ctx, x: Value, alpha: f64) -> Ruled<Value> {
    let scaled = c.mul_s(x, alpha)?;
    positive_or(c, x, scaled)
}

pub(super) fn thresholded_of(c: &mut Ctx, x: Value, alpha: f64) -> Ruled<Value> {
    let limit = c.like(x, alpha)?;
    let above = c.bin(BinaryOp::Lt, limit, x)?;
    let zero = c.like(x, 0.0)?;
    c.pick(above, x, zero)
}

fn elu(c: &mut Ctx) -> Results {
    let (x, alpha) = (c.x(0)?, c.float("alpha")?.unwrap_or(1.0));
    Ok(vec![elu_of(c, x, alpha)?])
}

/// max(x, 0) + min(alpha (e^(x / alpha) - 1), 0).
fn celu(c: &mut Ctx) -> Results {
    let (x, alpha) = (c.x(0)?, c.float("alpha")?.unwrap_or(1.0));
    let scaled = c.bin_s(BinaryOp::Div, x, alpha)?;
    let e = c.un(UnaryOp::Expm1, scaled)?;
    let curve = c.mul_s(e, alpha)?;
    let (top, bottom) = (c.bin_s(BinaryOp::Max, x, 0.0)?, c.bin_s(BinaryOp::Min, curve, 0.0)?);
    Ok(vec![c.add(top, bottom)?])
}

fn selu(c: &mut Ctx) -> Results {
    let alpha = c.float("alpha")?.unwrap_or(1.673_263_192_176_818_8);
    let gamma = c.float("gamma")?.unwrap_or(1.050_700_902_938_843);
    let x = c.x(0)?;
    let y = elu_of(c, x, alpha)?;
    Ok(vec![c.mul_s(y, gamma)?])
}

fn gelu(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let inner = match c.text("approximate", "none")?.as_str() {
        "none" => {
            let scaled = c.mul_s(x, FRAC_1_SQRT_2)?;
            c.un(UnaryOp::Erf, scaled)?
        }
        "tanh" => {
            let square = c.mul(x, x)?;
            let cube = c.mul(square, x)?;
            let small = c.mul_s(cube, 0.044715)?;
            let sum = c.add(x, small)?;
            let scaled = c.mul_s(sum, (2.0 / PI).sqrt())?;
            c.un(UnaryOp::Tanh, scaled)?
        }
        other => return invalid(format!("no approximation `{other}`")),
    };
    let one = c.add_s(inner, 1.0)?;
    let half = c.mul_s(x, 0.5)?;
    Ok(vec![c.mul(half, one)?])
}

fn leaky_relu(c: &mut Ctx) -> Results {
    let (x, alpha) = (c.x(0)?, c.float("alpha")?.unwrap_or(0.01));
    Ok(vec![leaky_of(c, x, alpha)?])
}

fn mish(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let soft = softplus(c, x)?;
    let gate = c.un(UnaryOp::Tanh, soft)?;
    Ok(vec![c.mul(x, gate)?])
}

/// Below opset 7 the slope is one number or one for each channel (axis 1).
fn prelu(c: &mut Ctx) -> Results {
    let (x, slope) = (c.x(0)?, c.x(1)?);
    let rank = c.rank(x)?;
    let slope = if c.version < 7 && rank > 1 { along(c, slope, 1, rank)? } else { slope };
    let scaled = c.mul(x, slope)?;
    Ok(vec![positive_or(c, x, scaled)?])
}

fn relu(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    Ok(vec![c.bin_s(BinaryOp::Max, x, 0.0)?])
}

fn shrink(c: &mut Ctx) -> Results {
    let (x, bias, lambda) = (c.x(0)?, c.float("bias")?.unwrap_or(0.0), c.float("lambd")?.unwrap_or(0.5));
    let (up, down) = (c.add_s(x, bias)?, c.add_s(x, -bias)?);
    let (low, high, zero) = (c.like(x, -lambda)?, c.like(x, lambda)?, c.like(x, 0.0)?);
    let (below, above) = (c.bin(BinaryOp::Lt, x, low)?, c.bin(BinaryOp::Lt, high, x)?);
    let inner = c.pick(above, down, zero)?;
    Ok(vec![c.pick(below, up, inner)?])
}

fn swish(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    Ok(vec![swish_of(c, x)?])
}

fn swish_of(c: &mut Ctx, x: Value) -> Ruled<Value> {
    let alpha = c.float("alpha")?.unwrap_or(1.0);
    let scaled = if alpha == 1.0 { x } else { c.mul_s(x, alpha)? };
    let gate = sigmoid(c, scaled)?;
    c.mul(x, gate)
}

/// Swish of the first input, times the second; they are not broadcast.
fn swiglu(c: &mut Ctx) -> Results {
    let (a, b) = (c.x(0)?, c.x(1)?);
    let (left, right) = (c.shape(a)?, c.shape(b)?);
    if left.len() != right.len() {
        return invalid(format!("{} and {} should have the same extents", c.ty(a)?, c.ty(b)?));
    }
    for (left, right) in left.iter().zip(&right) {
        c.equal(left, right, "extents of gate and value")?;
    }
    let gate = swish_of(c, a)?;
    Ok(vec![c.mul(gate, b)?])
}

fn thresholded_relu(c: &mut Ctx) -> Results {
    let (x, alpha) = (c.x(0)?, c.float("alpha")?.unwrap_or(1.0));
    Ok(vec![thresholded_of(c, x, alpha)?])
}
