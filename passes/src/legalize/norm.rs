//! Normalizations: subtract a mean, divide by a spread, scale and shift.
//!
//! Everything is computed in f32 (f64 for f64) and rounded once, as ONNX Runtime does.

use frit_ir::onnx::UNBIASED;
use frit_ir::{BinaryOp, DType, Dim, Op, Relation, UnaryOp, Value};

use super::context::{Ctx, Results};
use super::conv::lp_norm;
use super::elementwise::along;
use super::error::{Ruled, invalid, unsupported};
use super::table::{Row, onnx, versions};

pub(super) const TABLE: &[Row] = &[
    onnx("BatchNormalization", batch_norm),
    onnx("GroupNormalization", group_norm),
    onnx("InstanceNormalization", instance_norm),
    onnx("LayerNormalization", layer_norm),
    onnx("LRN", local_response_norm),
    onnx("LpNormalization", lp_normalization),
    versions("MeanVarianceNormalization", 9, i64::MAX, mean_variance_norm),
    onnx("RMSNormalization", rms_norm),
];

/// (x - mean, the mean, the mean square of the difference) over axes that stay.
fn moments(c: &mut Ctx, x: Value, axes: &[usize]) -> Ruled<(Value, Value, Value)> {
    let mean = c.mean(x, axes, true)?;
    let centred = c.sub(x, mean)?;
    let square = c.mul(centred, centred)?;
    let variance = c.mean(square, axes, true)?;
    Ok((centred, mean, variance))
}

/// 1 / sqrt(v + epsilon).
fn inverse_root(c: &mut Ctx, v: Value, epsilon: f64) -> Ruled<Value> {
    let v = c.add_s(v, epsilon)?;
    let root = c.un(UnaryOp::Sqrt, v)?;
    let one = c.like(root, 1.0)?;
    c.div(one, root)
}

/// y scale + bias, both converted to the type of y.
fn scaled(c: &mut Ctx, y: Value, scale: Option<Value>, bias: Option<Value>) -> Ruled<Value> {
    let (dims, dtype) = (c.shape(y)?, c.dtype(y)?);
    // They are repeated over y, never y over them.
    for own in [scale, bias].into_iter().flatten().map(|v| c.shape(v)).collect::<Ruled<Vec<_>>>()? {
        for (from, to) in own.iter().rev().zip(dims.iter().rev()) {
            c.require(Relation::OneOr, from, to, "scale or bias along the input")?;
        }
    }
    let mut y = y;
    if let Some(scale) = scale {
        let scale = c.to(scale, dtype)?;
        y = c.mul(y, scale)?;
    }
    if let Some(bias) = bias {
        let bias = c.to(bias, dtype)?;
        y = c.add(y, bias)?;
    }
    Ok(y)
}

/// Operand `i` as a vector along the channels of a tensor of those extents.
fn channels(c: &mut Ctx, i: usize, dims: &[Dim], dtype: DType) -> Ruled<Value> {
    let (v, rank) = (c.x(i)?, dims.len());
    if let ([own], Some(channels)) = (c.shape(v)?.as_slice(), dims.get(1.min(rank.saturating_sub(1)))) {
        c.require(Relation::OneOr, own, channels, format!("input {i} along the channels"))?;
    }
    let v = c.to(v, dtype)?;
    along(c, v, 1.min(rank.saturating_sub(1)), rank)
}

fn batch_norm(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let (dims, dtype) = (c.shape(x)?, c.dtype(x)?);
    let rank = dims.len();
    if rank == 0 {
        return invalid("a scalar input");
    }
    if c.version < 9 && c.int("spatial")? == Some(0) {
        return unsupported("attribute `spatial` = 0");
    }
    let epsilon = c.float("epsilon")?.unwrap_or(1e-5);
    let wide = c.wide(dtype);
    let x = c.to(x, wide)?;
    let (scale, bias) = (channels(c, 1, &dims, wide)?, channels(c, 2, &dims, wide)?);
    let (mean, variance) = (channels(c, 3, &dims, wide)?, channels(c, 4, &dims, wide)?);
    let training = c.version >= 14 && c.flag("training_mode", false)?;
    let (used_mean, used_variance) = if training {
        let axes: Vec<usize> = (0..rank).filter(|&a| a != 1).collect();
        let (_, mean, variance) = moments(c, x, &axes)?;
        (mean, variance)
    } else {
        (mean, variance)
    };
    let inverse = inverse_root(c, used_variance, epsilon)?;
    let factor = c.mul(inverse, scale)?;
    let centred = c.sub(x, used_mean)?;
    let y = c.mul(centred, factor)?;
    let y = c.add(y, bias)?;
    let mut results = vec![c.to(y, dtype)?];
    if training {
        let momentum = c.float("momentum")?.unwrap_or(0.9);
        let kept_variance = if c.flag(UNBIASED, false)? { unbiased(c, &dims, used_variance)? } else { used_variance };
        for (operand, running, batch) in [(3, mean, used_mean), (4, variance, kept_variance)] {
            let (old, new) = (c.mul_s(running, momentum)?, c.mul_s(batch, 1.0 - momentum)?);
            let blend = c.add(old, new)?;
            let own = c.x(operand)?;
            let own = c.ty(own)?;
            let blend = c.b.reshape(blend, own.dims)?;
            results.push(c.to(blend, own.dtype)?);
        }
    }
    Ok(results)
}

/// A variance over all axes but the channels', with the divisor n - 1 in place of n.
fn unbiased(c: &mut Ctx, dims: &[Dim], variance: Value) -> Ruled<Value> {
    let kept = dims.iter().enumerate().filter(|(axis, _)| *axis != 1).map(|(_, dim)| dim);
    let count = kept.fold(Dim::ONE, |count, dim| &count * dim);
    c.require(Relation::AtMost, &Dim::Known(2), &count, "values a channel that a batch norm is trained on")?;
    let dtype = c.dtype(variance)?;
    let count = c.dim(count)?;
    let count = c.to(count, dtype)?;
    let rest = c.add_s(count, -1.0)?;
    let factor = c.div(count, rest)?;
    c.mul(variance, factor)
}

fn instance_norm(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let (dims, dtype) = (c.shape(x)?, c.dtype(x)?);
    let epsilon = c.float("epsilon")?.unwrap_or(1e-5);
    let wide = c.wide(dtype);
    let x = c.to(x, wide)?;
    let axes: Vec<usize> = (2..dims.len()).collect();
    let (scale, bias) = (channels(c, 1, &dims, wide)?, channels(c, 2, &dims, wide)?);
    let (centred, _, variance) = moments(c, x, &axes)?;
    let inverse = inverse_root(c, variance, epsilon)?;
    let y = c.mul(centred, inverse)?;
    let y = scaled(c, y, Some(scale), Some(bias))?;
    Ok(vec![c.to(y, dtype)?])
}

fn layer_norm(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let (rank, dtype) = (c.rank(x)?, c.dtype(x)?);
    let axes: Vec<usize> = (c.axis(-1, rank)?..rank).collect();
    let epsilon = c.float("epsilon")?.unwrap_or(1e-5);
    let stash = c.dtype_attr("stash_type")?.unwrap_or(DType::F32);
    let x = c.to(x, c.wide(dtype))?;
    let (centred, mean, variance) = moments(c, x, &axes)?;
    let inverse = inverse_root(c, variance, epsilon)?;
    let y = c.mul(centred, inverse)?;
    let (scale, bias) = (c.opt(1), c.opt(2));
    let y = scaled(c, y, scale, bias)?;
    Ok(vec![c.to(y, dtype)?, c.to(mean, stash)?, c.to(inverse, stash)?])
}

fn rms_norm(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let (rank, dtype) = (c.rank(x)?, c.dtype(x)?);
    let axes: Vec<usize> = (c.axis(-1, rank)?..rank).collect();
    let epsilon = c.float("epsilon")?.unwrap_or(1e-5);
    let x = c.to(x, c.wide(dtype))?;
    let square = c.mul(x, x)?;
    let mean = c.mean(square, &axes, true)?;
    let inverse = inverse_root(c, mean, epsilon)?;
    let y = c.mul(x, inverse)?;
    let scale = c.opt(1);
    let y = scaled(c, y, scale, None)?;
    Ok(vec![c.to(y, dtype)?])
}

/// Below opset 21 scale and bias have one entry a group, then one a channel.
fn group_norm(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let (dims, dtype) = (c.shape(x)?, c.dtype(x)?);
    let Some(groups) = c.int("num_groups")?.filter(|&g| g >= 1) else {
        return invalid("attribute `num_groups` must be at least 1");
    };
    let (Some(n), Some(channel_count)) = (dims.first(), dims.get(1)) else {
        return invalid("the input has no channels");
    };
    let groups = Dim::Known(groups);
    let epsilon = c.float("epsilon")?.unwrap_or(1e-5);
    let wide = c.wide(dtype);
    let x = c.to(x, wide)?;
    let mut split = vec![n.clone(), groups.clone(), channel_count.floordiv(&groups)];
    split.extend(dims.iter().skip(2).cloned());
    let rank = split.len();
    let grouped = c.b.reshape(x, split.clone())?;
    let axes: Vec<usize> = (2..rank).collect();
    let (centred, _, variance) = moments(c, grouped, &axes)?;
    let inverse = inverse_root(c, variance, epsilon)?;
    let y = c.mul(centred, inverse)?;
    let y = if c.version < 21 {
        let (scale, bias) = (channels(c, 1, &split, wide)?, channels(c, 2, &split, wide)?);
        let y = scaled(c, y, Some(scale), Some(bias))?;
        c.b.reshape(y, dims)?
    } else {
        let (scale, bias) = (channels(c, 1, &dims, wide)?, channels(c, 2, &dims, wide)?);
        let y = c.b.reshape(y, dims)?;
        scaled(c, y, Some(scale), Some(bias))?
    };
    Ok(vec![c.to(y, dtype)?])
}

/// x / (bias + alpha / size sum of squares of `size` channels around)^beta.
fn local_response_norm(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let (rank, dtype) = (c.rank(x)?, c.dtype(x)?);
    let Some(size) = c.int("size")?.and_then(|s| usize::try_from(s).ok()).filter(|&s| s >= 1) else {
        return invalid("attribute `size` must be at least 1");
    };
    let alpha = c.float("alpha")?.unwrap_or(1e-4);
    let (beta, bias) = (c.float("beta")?.unwrap_or(0.75), c.float("bias")?.unwrap_or(1.0));
    let x = c.to(x, c.wide(dtype))?;
    let square = c.mul(x, x)?;
    let zero = c.like(x, 0.0)?;
    let window = Op::Window {
        axes: vec![1],
        sizes: vec![size],
        strides: vec![1],
        dilations: vec![1],
        low: vec![(size - 1) / 2],
        high: vec![size / 2],
    };
    let near = c.op(window, &[square, zero])?;
    let sum = c.sum(near, &[rank], false)?;
    let scaled = c.mul_s(sum, alpha / size as f64)?;
    let base = c.add_s(scaled, bias)?;
    let below = c.bin_s(BinaryOp::Pow, base, beta)?;
    let y = c.div(x, below)?;
    Ok(vec![c.to(y, dtype)?])
}

/// x over its norm; a row of zeros stays zero.
fn lp_normalization(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let axis = c.axis(-1, c.rank(x)?)?;
    let p = c.int("p")?.unwrap_or(2) as f64;
    let norm = lp_norm(c, x, &[axis], p)?;
    let zero = c.like(norm, 0.0)?;
    let empty = c.bin(BinaryOp::Eq, norm, zero)?;
    let y = c.div(x, norm)?;
    Ok(vec![c.pick(empty, zero, y)?])
}

fn mean_variance_norm(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let axes = c.ints("axes")?.unwrap_or_else(|| vec![0, 2, 3]);
    let axes = c.axes_of(&axes, c.rank(x)?)?;
    let dtype = c.dtype(x)?;
    let x = c.to(x, c.wide(dtype))?;
    let (centred, _, variance) = moments(c, x, &axes)?;
    let deviation = c.un(UnaryOp::Sqrt, variance)?;
    let below = c.add_s(deviation, 1e-9)?;
    let y = c.div(centred, below)?;
    Ok(vec![c.to(y, dtype)?])
}
