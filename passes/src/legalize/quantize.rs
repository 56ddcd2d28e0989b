//! Quantisation: numbers to few bits and back, products of quantised numbers.

use frit_ir::{BinaryOp, DType, Dim, Op, ReduceKind, UnaryOp, Value};

use super::context::{Ctx, Results};
use super::contraction::{centred, matmul};
use super::conv::conv_centred;
use super::elementwise::along;
use super::error::{Ruled, invalid, unsupported};
use super::table::{Row, onnx};

pub(super) const TABLE: &[Row] = &[
    onnx("DequantizeLinear", dequantize),
    onnx("DynamicQuantizeLinear", dynamic_quantize),
    onnx("QLinearConv", qlinear_conv),
    onnx("QLinearMatMul", qlinear_matmul),
    onnx("QuantizeLinear", quantize),
];

/// A scale or zero point laid over x: one for all, one a slice along `axis`, or one a block of it.
fn laid_over(c: &mut Ctx, v: Value, x: Value) -> Ruled<Value> {
    let (dims, own) = (c.shape(x)?, c.shape(v)?);
    if own.iter().all(|d| *d == Dim::ONE) {
        return Ok(c.b.reshape(v, vec![])?);
    }
    let axis = c.axis(1, dims.len())?;
    if own.len() == 1 {
        return along(c, v, axis, dims.len());
    }
    let block = c.int("block_size")?.unwrap_or(0);
    if block < 1 || own.len() != dims.len() {
        return invalid(format!("a scale or zero point of {} for {}", c.ty(v)?, c.ty(x)?));
    }
    // [.., n, ..] as [.., n, block, ..] as [.., n block, ..]; the last block may be cut.
    let mut split = own.clone();
    split.insert(axis + 1, Dim::Known(block));
    let axes = (0..split.len()).filter(|&a| a != axis + 1).collect();
    let repeated = c.op(Op::Broadcast { dims: split, axes }, &[v])?;
    let mut merged = own;
    if let Some(slot) = merged.get_mut(axis) {
        *slot = &*slot * &Dim::Known(block);
    }
    let repeated = c.b.reshape(repeated, merged)?;
    match dims.get(axis) {
        Some(extent) => c.part(repeated, axis, Dim::ZERO, extent.clone()),
        None => Ok(repeated),
    }
}

/// round(x) + zero point, clamped to the range of `to`.
fn rounded(c: &mut Ctx, x: Value, zero: Option<Value>, to: DType) -> Ruled<Value> {
    let mut y = if to.is_float() { x } else { c.un(UnaryOp::RoundEven, x)? };
    if let Some(zero) = zero {
        let zero = c.to(zero, c.dtype(y)?)?;
        y = c.add(y, zero)?;
    }
    Ok(c.op(Op::Cast { to, saturate: true }, &[y])?)
}

fn quantize(c: &mut Ctx) -> Results {
    let (x, scale) = (c.x(0)?, c.x(1)?);
    let zero = c.opt(2);
    let to = match (zero, c.dtype_attr("output_dtype")?) {
        (Some(zero), _) => c.dtype(zero)?,
        (None, Some(to)) => to,
        (None, None) => DType::U8,
    };
    if to.is_float() && !c.flag("saturate", true)? {
        return unsupported("attribute `saturate` = 0");
    }
    let x = c.to(x, DType::F32)?;
    let scale = c.to(scale, DType::F32)?;
    let scale = laid_over(c, scale, x)?;
    let zero = match zero {
        Some(zero) => {
            let zero = c.to(zero, DType::F32)?;
            Some(laid_over(c, zero, x)?)
        }
        None => None,
    };
    let ratio = c.div(x, scale)?;
    Ok(vec![rounded(c, ratio, zero, to)?])
}

fn dequantize(c: &mut Ctx) -> Results {
    let (x, scale) = (c.x(0)?, c.x(1)?);
    let to = match c.dtype_attr("output_dtype")? {
        Some(to) => to,
        None => c.dtype(scale)?,
    };
    let scale = c.to(scale, DType::F32)?;
    let scale = laid_over(c, scale, x)?;
    // Differences of integers are exact before they become floats.
    let exact = if c.dtype(x)?.is_int() { DType::I32 } else { DType::F32 };
    let mut difference = c.to(x, exact)?;
    if let Some(zero) = c.opt(2) {
        let zero = c.to(zero, exact)?;
        let zero = laid_over(c, zero, x)?;
        difference = c.sub(difference, zero)?;
    }
    let difference = c.to(difference, DType::F32)?;
    let y = c.mul(difference, scale)?;
    Ok(vec![c.to(y, to)?])
}

/// To u8, over the range of x widened to hold 0.
fn dynamic_quantize(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let axes: Vec<usize> = (0..c.rank(x)?).collect();
    let low = c.b.reduce(x, axes.clone(), ReduceKind::Min, false)?;
    let high = c.b.reduce(x, axes, ReduceKind::Max, false)?;
    let (low, high) = (c.bin_s(BinaryOp::Min, low, 0.0)?, c.bin_s(BinaryOp::Max, high, 0.0)?);
    let span = c.sub(high, low)?;
    let scale = c.bin_s(BinaryOp::Div, span, 255.0)?;
    // All zeros: any scale will do, 0 / 0 will not.
    let (zero, one) = (c.like(scale, 0.0)?, c.like(scale, 1.0)?);
    let empty = c.bin(BinaryOp::Eq, scale, zero)?;
    let divisor = c.pick(empty, one, scale)?;
    let shift = c.div(low, divisor)?;
    let shift = c.un(UnaryOp::Neg, shift)?;
    let shift = rounded(c, shift, None, DType::U8)?;
    let ratio = c.div(x, divisor)?;
    let y = rounded(c, ratio, Some(shift), DType::U8)?;
    Ok(vec![y, scale, shift])
}

/// A scale that is one number, or one for each slice along an axis counted from the end.
fn scale_along(c: &mut Ctx, scale: Value, rank: usize, from_end: usize) -> Ruled<Value> {
    let scale = c.to(scale, DType::F32)?;
    match (c.rank(scale)?, rank.checked_sub(from_end)) {
        (1, Some(axis)) => along(c, scale, axis, rank),
        _ => Ok(scale),
    }
}

/// Integer sums times scale_a scale_b / scale_y, rounded and shifted.
fn requantized(c: &mut Ctx, sums: Value, scales: [Value; 3], zero: Option<Value>, to: DType) -> Ruled<Value> {
    let [a, b, y] = scales;
    let y = c.to(y, DType::F32)?;
    let product = c.mul(a, b)?;
    let factor = c.div(product, y)?;
    let sums = c.to(sums, DType::F32)?;
    let scaled = c.mul(sums, factor)?;
    rounded(c, scaled, zero, to)
}

fn qlinear_matmul(c: &mut Ctx) -> Results {
    let (a, b) = (c.x(0)?, c.x(3)?);
    if !c.dtype(a)?.is_int() {
        return unsupported(format!("operands of {}", c.dtype(a)?));
    }
    let (zero_a, zero_b, zero_y) = (c.x(2)?, c.x(5)?, c.x(7)?);
    let to = c.dtype(zero_y)?;
    let (scale_a, scale_b, scale_y) = (c.x(1)?, c.x(4)?, c.x(6)?);
    let (a, b) = (centred(c, a, Some(zero_a), 2)?, centred(c, b, Some(zero_b), 1)?);
    let sums = matmul(c, a, b)?;
    let rank = c.rank(sums)?;
    let scales = [scale_along(c, scale_a, rank, 2)?, scale_along(c, scale_b, rank, 1)?, scale_y];
    let zero_y = zero_or_vector(c, zero_y)?;
    Ok(vec![requantized(c, sums, scales, Some(zero_y), to)?])
}

/// A vector of one zero point as a scalar.
fn zero_or_vector(c: &mut Ctx, zero: Value) -> Ruled<Value> {
    let one = c.ty(zero)?.numel() == Dim::ONE;
    Ok(if one { c.b.reshape(zero, vec![])? } else { zero })
}

fn qlinear_conv(c: &mut Ctx) -> Results {
    let (x, w) = (c.x(0)?, c.x(3)?);
    let (zero_x, zero_w, zero_y) = (c.x(2)?, c.x(5)?, c.x(7)?);
    let to = c.dtype(zero_y)?;
    let (scale_x, scale_w, scale_y) = (c.x(1)?, c.x(4)?, c.x(6)?);
    let mut sums = conv_centred(c, x, w, (Some(zero_x), Some(zero_w)))?;
    let rank = c.rank(sums)?;
    if let Some(bias) = c.opt(8) {
        let bias = along(c, bias, 1, rank)?;
        sums = c.add(sums, bias)?;
    }
    // One scale of w for each output channel.
    let scale_w = scale_along(c, scale_w, rank, rank.saturating_sub(1))?;
    let scale_x = c.to(scale_x, DType::F32)?;
    let (scale_x, scale_y) = (zero_or_vector(c, scale_x)?, zero_or_vector(c, scale_y)?);
    let zero_y = zero_or_vector(c, zero_y)?;
    Ok(vec![requantized(c, sums, [scale_x, scale_w, scale_y], Some(zero_y), to)?])
}
