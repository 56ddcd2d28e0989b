//! Look-ups and their inverse: gathers, scatters, one-hot, selections that depend on data.
//!
//! The core set gathers and scatters along one axis. Ops that index several axes at once go through the row-major
//! position of each element: a flat view of the tensor, positions computed with integer arithmetic. Each axis's index is
//! checked against its own extent there, since another element of the flat tensor would be found for one that leaves it.

use frit_ir::{BinaryOp, DType, Dim, Op, Relation, ScatterKind, UnaryOp, Value};

use super::context::{Ctx, Results};
use super::error::{Ruled, invalid, unsupported};
use super::source::as_scalar;
use super::table::{Row, onnx, other};

pub(super) const TABLE: &[Row] = &[
    other("ai.onnx.ml", "ArrayFeatureExtractor", |c| {
        let x = c.x(0)?;
        let axis = c.rank(x)?.saturating_sub(1);
        gather_along(c, axis)
    }),
    onnx("Compress", compress),
    onnx("Gather", |c| {
        let x = c.x(0)?;
        let rank = c.rank(x)?;
        let axis = c.axis(0, rank)?;
        gather_along(c, axis)
    }),
    onnx("GatherElements", gather_elements),
    onnx("GatherND", gather_nd),
    onnx("MaxUnpool", max_unpool),
    onnx("NonZero", non_zero),
    onnx("OneHot", one_hot),
    onnx("ReverseSequence", reverse_sequence),
    onnx("Scatter", scatter_elements),
    onnx("ScatterElements", scatter_elements),
    onnx("ScatterND", scatter_nd),
    onnx("TensorScatter", tensor_scatter),
];

/// Indices counted from the start. Known ones are checked against the extent; others are whoever uses them to check.
pub(super) fn from_start(c: &mut Ctx, indices: Value, extent: &Dim) -> Ruled<Value> {
    let dtype = c.dtype(indices)?;
    if !dtype.is_int() {
        return invalid(format!("indices are {dtype}, expected integers"));
    }
    if let Some(known) = c.known(indices).and_then(|t| t.to_i64s()) {
        if let Some(extent) = extent.known()
            && let Some(bad) = known.iter().find(|&&i| i < extent.saturating_neg() || i >= extent)
        {
            return invalid(format!("index {bad} is outside extent {extent}"));
        }
        if let (Some(low), Some(high)) = (known.iter().min(), known.iter().max()) {
            c.require(Relation::AtMost, &high.saturating_add(1).into(), extent, "one more than the largest index")?;
            c.require(Relation::AtMost, &low.saturating_neg().into(), extent, "the index furthest from the end")?;
        }
        if known.iter().all(|&i| i >= 0) {
            return Ok(indices);
        }
    }
    if matches!(dtype, DType::U8 | DType::U16 | DType::U32 | DType::U64) {
        return Ok(indices);
    }
    let n = c.dim(extent.clone())?;
    let n = c.to(n, dtype)?;
    let shifted = c.add(indices, n)?;
    let negative = c.bin_s(BinaryOp::Lt, indices, 0.0)?;
    c.pick(negative, shifted, indices)
}

fn gather_along(c: &mut Ctx, axis: usize) -> Results {
    let (x, indices) = (c.x(0)?, c.x(1)?);
    let dims = c.shape(x)?;
    let Some(extent) = dims.get(axis) else { return invalid("the input is a scalar") };
    let indices = from_start(c, indices, extent)?;
    Ok(vec![c.op(Op::Gather { axis }, &[x, indices])?])
}

/// i64 positions along `axis` of `dims`, each times `stride`.
fn positions(c: &mut Ctx, dims: &[Dim], axis: usize, stride: &Dim) -> Ruled<Value> {
    let at = c.iota(DType::I64, dims.to_vec(), axis)?;
    scaled(c, at, stride)
}

fn scaled(c: &mut Ctx, at: Value, stride: &Dim) -> Ruled<Value> {
    if *stride == Dim::ONE {
        return Ok(at);
    }
    let stride = c.dim(stride.clone())?;
    c.mul(at, stride)
}

/// Elements that one step along each axis passes over.
fn strides(dims: &[Dim]) -> Vec<Dim> {
    (0..dims.len()).map(|a| Dim::product(dims.iter().skip(a + 1))).collect()
}

/// Indices counted from the start, and which of them lie inside the extent; `None`: all do.
fn along_axis(c: &mut Ctx, indices: Value, extent: &Dim) -> Ruled<(Value, Option<Value>)> {
    let known = c.known(indices).is_some();
    let at = from_start(c, indices, extent)?;
    let at = c.to(at, DType::I64)?;
    if known {
        return Ok((at, None));
    }
    let n = c.dim(extent.clone())?;
    let below = c.bin(BinaryOp::Lt, at, n)?;
    let negative = c.bin_s(BinaryOp::Lt, at, 0.0)?;
    let not_negative = c.un(UnaryOp::Not, negative)?;
    Ok((at, Some(c.bin(BinaryOp::And, not_negative, below)?)))
}

/// Positions where `inside`; elsewhere -1, which every lookup refuses. An index that leaves its axis would be another
/// element of the flat tensor.
fn refused_outside(c: &mut Ctx, positions: Value, inside: Option<Value>) -> Ruled<Value> {
    match inside {
        Some(inside) => {
            let nowhere = c.i64s(&[], &[-1])?;
            c.pick(inside, positions, nowhere)
        }
        None => Ok(positions),
    }
}

/// Row-major positions in a tensor of `dims` where axis `axis` is looked up in `indices` and the others stay.
fn element_positions(c: &mut Ctx, indices: Value, axis: usize, dims: &[Dim]) -> Ruled<Value> {
    let Some(extent) = dims.get(axis) else { return invalid("indices into a scalar") };
    let (at, inside) = along_axis(c, indices, extent)?;
    let own = c.shape(indices)?;
    if own.len() != dims.len() {
        return invalid(format!("indices of rank {} into rank {}", own.len(), dims.len()));
    }
    let strides = strides(dims);
    let mut sum = match strides.get(axis) {
        Some(stride) => scaled(c, at, stride)?,
        None => at,
    };
    for (other, (from, to)) in own.iter().zip(dims).enumerate().filter(|(other, _)| *other != axis) {
        c.require(Relation::AtMost, from, to, format!("axis {other} of the indices and of what they look into"))?;
    }
    for (other, stride) in strides.iter().enumerate() {
        if other != axis && dims.get(other) != Some(&Dim::ONE) {
            let term = positions(c, &own, other, stride)?;
            sum = c.add(sum, term)?;
        }
    }
    refused_outside(c, sum, inside)
}

/// x as one dim.
fn flat(c: &mut Ctx, x: Value) -> Ruled<Value> {
    let numel = c.ty(x)?.numel();
    Ok(c.b.reshape(x, vec![numel])?)
}

fn gather_elements(c: &mut Ctx) -> Results {
    let (x, indices) = (c.x(0)?, c.x(1)?);
    let axis = c.axis(0, c.rank(x)?)?;
    Ok(vec![picked(c, x, indices, axis)?])
}

/// x looked up along `axis` by indices of its rank; the other axes stay.
pub(super) fn picked(c: &mut Ctx, x: Value, indices: Value, axis: usize) -> Ruled<Value> {
    let dims = c.shape(x)?;
    let at = element_positions(c, indices, axis, &dims)?;
    let x = flat(c, x)?;
    Ok(c.op(Op::Gather { axis: 0 }, &[x, at])?)
}

/// Rows of an index tensor [.., k] as positions over `dims` (k of them): [..].
fn row_positions(c: &mut Ctx, indices: Value, dims: &[Dim]) -> Ruled<Value> {
    let own = c.shape(indices)?;
    let Some(last) = own.len().checked_sub(1) else { return invalid("indices are a scalar") };
    let outer: Vec<Dim> = own.iter().take(last).cloned().collect();
    let (mut sum, mut all): (Option<Value>, Option<Value>) = (None, None);
    for (k, (extent, stride)) in dims.iter().zip(strides(dims)).enumerate() {
        let column = c.part(indices, last, Dim::from(k), Dim::ONE)?;
        let column = c.b.reshape(column, outer.clone())?;
        let (at, inside) = along_axis(c, column, extent)?;
        all = match (all, inside) {
            (Some(all), Some(inside)) => Some(c.bin(BinaryOp::And, all, inside)?),
            (all, inside) => all.or(inside),
        };
        let term = scaled(c, at, &stride)?;
        sum = Some(match sum {
            Some(s) => c.add(s, term)?,
            None => term,
        });
    }
    match sum {
        Some(s) => refused_outside(c, s, all),
        None => {
            let zero = c.i64s(&[], &[0])?;
            c.full(zero, outer)
        }
    }
}

fn index_depth(c: &mut Ctx, indices: Value, room: usize) -> Ruled<usize> {
    let rank = c.rank(indices)?;
    let Some(last) = rank.checked_sub(1) else { return invalid("indices are a scalar") };
    let depth = c.known_extent(indices, last)?;
    if depth > room {
        return invalid(format!("indices name {depth} axes of {room}"));
    }
    Ok(depth)
}

fn gather_nd(c: &mut Ctx) -> Results {
    let (x, indices) = (c.x(0)?, c.x(1)?);
    let (dims, own) = (c.shape(x)?, c.shape(indices)?);
    let batch = usize::try_from(c.int("batch_dims")?.unwrap_or(0)).unwrap_or(usize::MAX);
    if batch >= own.len() || batch > dims.len() {
        return invalid(format!("attribute `batch_dims` is {batch} for ranks {} and {}", dims.len(), own.len()));
    }
    let depth = index_depth(c, indices, dims.len() - batch)?;
    let (Some(looked), Some(rest)) = (dims.get(batch..batch + depth), dims.get(batch + depth..)) else {
        return invalid("indices name more axes than there are");
    };
    let mut at = row_positions(c, indices, looked)?;
    let (size, outer) = (Dim::product(looked), c.shape(at)?);
    // The batch axes are looked up where they are.
    let batch_dims: Vec<Dim> = dims.iter().take(batch).cloned().collect();
    for (axis, stride) in strides(&batch_dims).into_iter().enumerate() {
        let term = positions(c, &outer, axis, &(&stride * &size))?;
        at = c.add(at, term)?;
    }
    let mut rows = vec![&Dim::product(&batch_dims) * &size];
    rows.extend(rest.iter().cloned());
    let x = c.b.reshape(x, rows)?;
    Ok(vec![c.op(Op::Gather { axis: 0 }, &[x, at])?])
}

fn scatter_kind(c: &Ctx) -> Ruled<ScatterKind> {
    Ok(match c.text("reduction", "none")?.as_str() {
        "none" => ScatterKind::Assign,
        "add" => ScatterKind::Add,
        "mul" => ScatterKind::Mul,
        "min" => ScatterKind::Min,
        "max" => ScatterKind::Max,
        other => return invalid(format!("no reduction `{other}`")),
    })
}

/// Updates with the extents of what they belong to, which they must have.
fn shaped_as(c: &mut Ctx, updates: Value, like: Value) -> Ruled<Value> {
    let (own, dims) = (c.shape(updates)?, c.shape(like)?);
    if own.len() != dims.len() {
        return invalid(format!("updates of rank {} for indices of rank {}", own.len(), dims.len()));
    }
    for (axis, (a, b)) in own.iter().zip(&dims).enumerate() {
        c.equal(a, b, format!("axis {axis} of updates and indices"))?;
    }
    Ok(c.b.reshape(updates, dims)?)
}

fn scatter_elements(c: &mut Ctx) -> Results {
    let (x, indices, updates) = (c.x(0)?, c.x(1)?, c.x(2)?);
    let dims = c.shape(x)?;
    let axis = c.axis(0, dims.len())?;
    let kind = scatter_kind(c)?;
    let at = element_positions(c, indices, axis, &dims)?;
    let updates = shaped_as(c, updates, at)?;
    let (x, at, updates) = (flat(c, x)?, flat(c, at)?, flat(c, updates)?);
    let y = c.op(Op::Scatter { axis: 0, kind }, &[x, at, updates])?;
    Ok(vec![c.b.reshape(y, dims)?])
}

fn scatter_nd(c: &mut Ctx) -> Results {
    let (x, indices, updates) = (c.x(0)?, c.x(1)?, c.x(2)?);
    let dims = c.shape(x)?;
    let kind = scatter_kind(c)?;
    let depth = index_depth(c, indices, dims.len())?;
    let (Some(looked), Some(rest)) = (dims.get(..depth), dims.get(depth..)) else {
        return invalid("indices name more axes than there are");
    };
    let at = row_positions(c, indices, looked)?;
    let at = flat(c, at)?;
    let rows = |n: Dim| -> Vec<Dim> { std::iter::once(n).chain(rest.iter().cloned()).collect() };
    let count = c.ty(at)?.numel();
    let target = c.b.reshape(x, rows(Dim::product(looked)))?;
    let updates = c.b.reshape(updates, rows(count))?;
    let y = c.op(Op::Scatter { axis: 0, kind }, &[target, at, updates])?;
    Ok(vec![c.b.reshape(y, dims)?])
}

fn one_hot(c: &mut Ctx) -> Results {
    let (indices, depth, values) = (c.x(0)?, c.x(1)?, c.x(2)?);
    let depth = match c.dtype(depth)?.is_float() {
        true => c.const_floats(depth, "the depth")?.first().map(|d| Dim::Known(*d as i64)),
        false => c.const_dims(depth, "the depth")?.into_iter().next(),
    };
    let Some(depth) = depth else { return invalid("the depth is empty") };
    let rank = c.rank(indices)?;
    let axis = c.axis_of(c.int("axis")?.unwrap_or(-1), rank + 1)?;
    let wide = c.to(indices, DType::I64)?;
    let n = c.dim(depth.clone())?;
    let negative = c.bin_s(BinaryOp::Lt, wide, 0.0)?;
    let shifted = c.add(wide, n)?;
    let wide = c.pick(negative, shifted, wide)?;
    let mut dims = c.shape(indices)?;
    dims.insert(axis, Dim::ONE);
    let wide = c.b.reshape(wide, dims.clone())?;
    if let Some(slot) = dims.get_mut(axis) {
        *slot = depth;
    }
    let classes = c.iota(DType::I64, dims, axis)?;
    let hit = c.bin(BinaryOp::Eq, wide, classes)?;
    let mut part = |at: i64| -> Ruled<Value> {
        let v = c.part(values, 0, Dim::Known(at), Dim::ONE)?;
        as_scalar(c, v)
    };
    let (off, on) = (part(0)?, part(1)?);
    Ok(vec![c.pick(hit, on, off)?])
}

/// Indices of the true elements of a mask; their number is a fresh extent.
fn compacted(c: &mut Ctx, mask: Value, what: &str) -> Ruled<Value> {
    if let Some(known) = c.known(mask).and_then(|t| t.to_i64s()) {
        let on: Vec<i64> = (0i64..).zip(known).filter(|(_, v)| *v != 0).map(|(i, _)| i).collect();
        return c.i64s(&[on.len()], &on);
    }
    let count = c.fresh(what);
    Ok(c.op(Op::Compact { count }, &[mask])?)
}

fn compress(c: &mut Ctx) -> Results {
    let (x, condition) = (c.x(0)?, c.x(1)?);
    let (x, axis) = match c.int("axis")? {
        Some(axis) => (x, c.axis_of(axis, c.rank(x)?)?),
        None => (flat(c, x)?, 0),
    };
    let at = compacted(c, condition, "kept")?;
    Ok(vec![c.op(Op::Gather { axis }, &[x, at])?])
}

fn non_zero(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let dims = c.shape(x)?;
    let zero = c.like(x, 0.0)?;
    let is_zero = c.bin(BinaryOp::Eq, x, zero)?;
    let mask = c.un(UnaryOp::Not, is_zero)?;
    let mask = flat(c, mask)?;
    let at = compacted(c, mask, "nonzero")?;
    let count = c.shape(at)?;
    let mut rows = Vec::with_capacity(dims.len());
    for (extent, stride) in dims.iter().zip(strides(&dims)) {
        let (stride, extent) = (c.dim(stride)?, c.dim(extent.clone())?);
        let outer = c.div(at, stride)?;
        let row = c.bin(BinaryOp::Rem, outer, extent)?;
        let row_dims: Vec<Dim> = std::iter::once(Dim::ONE).chain(count.iter().cloned()).collect();
        rows.push(c.b.reshape(row, row_dims)?);
    }
    if rows.is_empty() {
        return unsupported("a scalar input");
    }
    Ok(vec![c.cat(&rows, 0)?])
}

/// Step t of sequence b comes from length[b] - 1 - t while t < length[b].
fn reverse_sequence(c: &mut Ctx) -> Results {
    let (x, lengths) = (c.x(0)?, c.x(1)?);
    let dims = c.shape(x)?;
    let batch_axis = c.axis_of(c.int("batch_axis")?.unwrap_or(1), dims.len())?;
    let time_axis = c.axis_of(c.int("time_axis")?.unwrap_or(0), dims.len())?;
    if batch_axis == time_axis {
        return invalid("batch_axis and time_axis are one axis");
    }
    let lengths = c.to(lengths, DType::I64)?;
    let lengths = c.spread(lengths, &[batch_axis], dims.len())?;
    let time = c.iota(DType::I64, dims.clone(), time_axis)?;
    let last = c.add_s(lengths, -1.0)?;
    let mirrored = c.sub(last, time)?;
    let inside = c.bin(BinaryOp::Lt, time, lengths)?;
    let from = c.pick(inside, mirrored, time)?;
    let at = element_positions(c, from, time_axis, &dims)?;
    let x = flat(c, x)?;
    Ok(vec![c.op(Op::Gather { axis: 0 }, &[x, at])?])
}

/// Values back to where their maxima were; indices count over the whole output.
fn max_unpool(c: &mut Ctx) -> Results {
    let (x, indices) = (c.x(0)?, c.x(1)?);
    let dims = c.shape(x)?;
    let Some(spatial) = dims.len().checked_sub(2).filter(|&n| n > 0) else { return invalid("no spatial axes") };
    let kernel = c.per_axis("kernel_shape", spatial, 1)?;
    let strides = c.per_axis("strides", spatial, 1)?;
    let pads = c.per_axis("pads", 2 * spatial, 0)?;
    let mut natural: Vec<Dim> = dims.iter().take(2).cloned().collect();
    for (i, d) in dims.iter().skip(2).enumerate() {
        let at = |list: &[usize], i: usize| Dim::from(list.get(i).copied().unwrap_or(0));
        let reach = &(&(d - &Dim::ONE) * &at(&strides, i)) + &at(&kernel, i);
        natural.push(&(&reach - &at(&pads, i)) - &at(&pads, i + spatial));
    }
    let zero = c.like(x, 0.0)?;
    let blank = c.full(zero, vec![Dim::product(&natural)])?;
    let (at, updates) = (flat(c, indices)?, flat(c, x)?);
    let y = c.op(Op::Scatter { axis: 0, kind: ScatterKind::Assign }, &[blank, at, updates])?;
    let y = c.b.reshape(y, natural.clone())?;
    let Some(shape) = c.opt(2) else { return Ok(vec![y]) };
    // Indices are positions in the extents that the attributes give; what is asked for beyond them is blank.
    let wanted = c.const_dims(shape, "the output shape")?;
    if wanted.len() != natural.len() {
        return invalid(format!("an output shape of {} extents for rank {}", wanted.len(), natural.len()));
    }
    let high: Vec<Dim> = wanted.iter().zip(&natural).map(|(w, n)| w - n).collect();
    if high.iter().any(|h| h.known().is_some_and(|h| h < 0)) {
        return unsupported("an output shape smaller than what the attributes give");
    }
    Ok(vec![c.op(Op::Pad { low: vec![Dim::ZERO; wanted.len()], high }, &[y, zero])?])
}

/// Rows of a cache replaced from write_indices[b] on, `circular` wrapping around.
fn tensor_scatter(c: &mut Ctx) -> Results {
    let (past, update) = (c.x(0)?, c.x(1)?);
    let dims = c.shape(past)?;
    let axis = c.axis(-2, dims.len())?;
    let own = c.shape(update)?;
    let steps = c.iota(DType::I64, own.clone(), axis)?;
    let at = match c.opt(2) {
        Some(first) => {
            let first = c.spread(first, &[0], own.len())?;
            c.add(steps, first)?
        }
        None => steps,
    };
    let at = match c.text("mode", "linear")?.as_str() {
        "linear" => at,
        "circular" => {
            let Some(extent) = dims.get(axis) else { return invalid("a scalar cache") };
            let n = c.dim(extent.clone())?;
            c.bin(BinaryOp::Rem, at, n)?
        }
        other => return invalid(format!("no mode `{other}`")),
    };
    let at = element_positions(c, at, axis, &dims)?;
    let (target, at, updates) = (flat(c, past)?, flat(c, at)?, flat(c, update)?);
    let y = c.op(Op::Scatter { axis: 0, kind: ScatterKind::Assign }, &[target, at, updates])?;
    Ok(vec![c.b.reshape(y, dims)?])
}
