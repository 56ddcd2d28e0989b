//! Ops that move elements without looking at them.

use frit_ir::builder::broadcast_shapes;
use frit_ir::{BinaryOp, DType, Dim, Op, Value};

use super::context::{Ctx, Results};
use super::error::{Fail, Ruled, invalid, unsupported};
use super::source::as_scalar;
use super::table::{Row, onnx, versions};

pub(super) const TABLE: &[Row] = &[
    onnx("CenterCropPad", center_crop_pad),
    onnx("Concat", concat),
    onnx("DepthToSpace", depth_to_space),
    onnx("Dropout", dropout),
    onnx("Expand", expand),
    onnx("Flatten", flatten),
    onnx("Pad", pad),
    onnx("Reshape", reshape),
    onnx("Slice", slice),
    onnx("SpaceToDepth", space_to_depth),
    onnx("Split", split),
    onnx("Squeeze", squeeze),
    versions("Tile", 6, i64::MAX, tile),
    onnx("Transpose", transpose),
    onnx("Trilu", trilu),
    onnx("Unsqueeze", unsqueeze),
];

/// 0 copies an extent (unless `allowzero`), -1 takes what is left.
fn reshape(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let from = c.shape(x)?;
    let wanted: Vec<Option<Dim>> = match c.opt(1) {
        Some(shape) => match c.partial_dims(shape) {
            // One unknown extent follows from the others, whatever it says.
            Some(dims) if dims.iter().filter(|d| d.is_none()).count() <= 1 => dims,
            _ => return Err(Fail::NeedsValue(shape, "the shape".to_owned())),
        },
        None => match c.ints("shape")? {
            Some(list) => list.into_iter().map(|v| Some(Dim::Known(v))).collect(),
            None => return invalid("no shape is given"),
        },
    };
    let keep_zero = c.flag("allowzero", false)?;
    let mut dims = Vec::with_capacity(wanted.len());
    let mut open = None;
    for (axis, dim) in wanted.into_iter().enumerate() {
        match dim {
            Some(Dim::Known(0)) if !keep_zero => match from.get(axis) {
                Some(d) => dims.push(d.clone()),
                None => return invalid(format!("axis {axis} of the shape copies an axis that the input hasn't")),
            },
            Some(Dim::Known(-1)) | None => {
                if open.replace(axis).is_some() {
                    return match c.opt(1) {
                        Some(shape) if c.const_dims(shape, "").is_err() => {
                            Err(Fail::NeedsValue(shape, "the shape".to_owned()))
                        }
                        _ => invalid("the shape holds -1 twice"),
                    };
                }
                dims.push(Dim::ONE);
            }
            Some(d) => dims.push(d),
        }
    }
    if let Some(axis) = open {
        let (all, rest) = (Dim::product(&from), Dim::product(&dims));
        if let (Some(a), Some(r)) = (all.known(), rest.known())
            && (r == 0 || a % r != 0)
        {
            return invalid(format!("{a} elements of the input don't split into {r}"));
        }
        if let Some(slot) = dims.get_mut(axis) {
            *slot = all.floordiv(&rest);
        }
    }
    Ok(vec![c.b.reshape(x, dims)?])
}

fn flatten(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let dims = c.shape(x)?;
    let rank = i64::try_from(dims.len()).unwrap_or(i64::MAX);
    let axis = c.int("axis")?.unwrap_or(1);
    let from_start = if axis < 0 { axis.saturating_add(rank) } else { axis };
    let Some((outer, inner)) = usize::try_from(from_start).ok().and_then(|a| dims.split_at_checked(a)) else {
        return invalid(format!("axis {axis} is outside rank {rank}"));
    };
    Ok(vec![c.b.reshape(x, vec![Dim::product(outer), Dim::product(inner)])?])
}

fn squeeze(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let dims = c.shape(x)?;
    let axes = match c.axes_input(1)? {
        Some(list) => c.axes_of(&list, dims.len())?,
        None => (0..dims.len()).filter(|&a| dims.get(a) == Some(&Dim::ONE)).collect(),
    };
    for &axis in &axes {
        if let Some(extent) = dims.get(axis).and_then(Dim::known).filter(|&d| d != 1) {
            return invalid(format!("axis {axis} has extent {extent}: only an axis of extent 1 can be squeezed"));
        }
        if let Some(extent) = dims.get(axis) {
            c.equal(extent, &Dim::ONE, format!("axis {axis}, which is squeezed"))?;
        }
    }
    let kept = dims.into_iter().enumerate().filter(|(a, _)| !axes.contains(a)).map(|(_, d)| d).collect();
    Ok(vec![c.b.reshape(x, kept)?])
}

fn unsqueeze(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let Some(list) = c.axes_input(1)? else { return invalid("no axes are given") };
    let mut dims = c.shape(x)?;
    for axis in c.axes_of(&list, dims.len() + list.len())? {
        dims.insert(axis.min(dims.len()), Dim::ONE);
    }
    Ok(vec![c.b.reshape(x, dims)?])
}

fn transpose(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let rank = c.rank(x)?;
    let perm = match c.ints("perm")? {
        Some(list) => list.iter().map(|&a| c.axis_of(a, rank)).collect::<Ruled<_>>()?,
        None => (0..rank).rev().collect(),
    };
    Ok(vec![c.b.transpose(x, perm)?])
}

/// Gives values equal extents on every axis but `axis`, where extents are unequal as expressions but may be equal.
pub(super) fn aligned(c: &mut Ctx, values: &[Value], axis: Option<usize>) -> Ruled<Vec<Value>> {
    let shapes = values.iter().map(|v| c.shape(*v)).collect::<Ruled<Vec<_>>>()?;
    let Some(first) = shapes.first() else { return Ok(Vec::new()) };
    let mut common = first.clone();
    for shape in &shapes {
        for (slot, d) in common.iter_mut().zip(shape) {
            if slot.known().is_none() && d.known().is_some() {
                *slot = d.clone();
            }
        }
    }
    let mut result = Vec::with_capacity(values.len());
    for (value, shape) in values.iter().zip(&shapes) {
        let open = |a: usize| Some(a) == axis || shape.get(a) == common.get(a);
        if shape.len() != common.len() || (0..shape.len()).all(open) {
            result.push(*value);
            continue;
        }
        for (a, (d, common)) in shape.iter().zip(&common).enumerate().filter(|(a, _)| Some(*a) != axis) {
            c.equal(d, common, format!("axis {a} of what is joined"))?;
        }
        let merge =
            |(a, d): (usize, &Dim)| if Some(a) == axis { d.clone() } else { common.get(a).unwrap_or(d).clone() };
        let dims: Vec<Dim> = shape.iter().enumerate().map(merge).collect();
        result.push(c.b.broadcast_to(*value, dims)?);
    }
    Ok(result)
}

fn concat(c: &mut Ctx) -> Results {
    let all = c.all()?;
    let Some(&first) = all.first() else { return invalid("no inputs") };
    let rank = c.rank(first)?;
    let axis = c.axis(1, rank)?;
    let all = aligned(c, &all, Some(axis))?;
    Ok(vec![c.cat(&all, axis)?])
}

/// Sizes of the parts that an axis splits into.
pub(super) fn split_sizes(c: &mut Ctx, extent: &Dim, parts: usize, sizes: Option<Vec<Dim>>) -> Ruled<Vec<Dim>> {
    if let Some(sizes) = sizes {
        let total = sizes.iter().fold(Dim::ZERO, |sum, s| &sum + s);
        if let (Some(t), Some(e)) = (total.known(), extent.known())
            && t != e
        {
            return invalid(format!("the parts add up to {t}, the axis has extent {e}"));
        }
        c.equal(&total, extent, "the sum of the parts and the axis")?;
        return Ok(sizes);
    }
    if parts == 0 {
        return invalid("0 parts");
    }
    let n = Dim::from(parts);
    let size = extent.ceildiv(&n);
    if c.version < 18 && extent.known().is_some_and(|e| Dim::Known(e).modulo(&n) != Dim::ZERO) {
        return invalid(format!("extent {extent} doesn't split into {parts} equal parts"));
    }
    if c.version < 18 {
        c.equal(&extent.modulo(&n), &Dim::ZERO, format!("what is left of {parts} equal parts"))?;
    }
    let mut sizes = vec![size.clone(); parts - 1];
    let rest = extent - &(&size * &Dim::from(parts - 1));
    sizes.push(if rest == size { size } else { rest.maximum(&Dim::ZERO) });
    // Parts past the end are empty.
    if let Some(extent) = extent.known() {
        let mut left = extent;
        for size in &mut sizes {
            let now = size.known().unwrap_or(0).min(left).max(0);
            *size = Dim::Known(now);
            left -= now;
        }
    }
    Ok(sizes)
}

fn split(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let dims = c.shape(x)?;
    let axis = c.axis(0, dims.len())?;
    let sizes = match c.opt(1) {
        Some(v) => Some(c.const_dims(v, "the split")?),
        None => c.ints("split")?.map(|list| list.into_iter().map(Dim::Known).collect()),
    };
    let declared = c.declared.len();
    let parts = match c.int("num_outputs")? {
        Some(n) => usize::try_from(n).unwrap_or(0),
        None => declared,
    };
    if sizes.as_ref().map_or(parts, Vec::len) != declared {
        return invalid(format!("{declared} outputs for a split into {}", sizes.map_or(parts, |s| s.len())));
    }
    let Some(extent) = dims.get(axis) else { return invalid("a scalar can't be split") };
    let sizes = split_sizes(c, extent, parts, sizes)?;
    parts_of(c, x, axis, &sizes)
}

/// Consecutive parts of the given sizes.
pub(super) fn parts_of(c: &mut Ctx, x: Value, axis: usize, sizes: &[Dim]) -> Ruled<Vec<Value>> {
    let mut start = Dim::ZERO;
    let mut parts = Vec::with_capacity(sizes.len());
    for size in sizes {
        parts.push(c.part(x, axis, start.clone(), size.clone())?);
        start = &start + size;
    }
    Ok(parts)
}

/// More than any index: a quotient by it is 0, or -1 for a negative number.
const ABOVE_ALL: Dim = Dim::Known(1 << 40);

/// A bound counted from the start.
fn from_start(bound: &Dim, extent: &Dim) -> Dim {
    // extent - 1 is negative only where there is nothing to count.
    if bound.is_nonnegative() || *bound == extent - &Dim::ONE {
        bound.clone()
    } else if (&Dim::Known(-1) - bound).is_nonnegative() {
        bound + extent
    } else {
        bound - &(extent * &bound.floordiv(&ABOVE_ALL))
    }
}

/// Bounds this large mean "to the end".
const TO_END: i64 = i32::MAX as i64;

/// First index and number of elements of `start..end` by `step` along an axis.
fn slice_bounds(start: &Dim, end: &Dim, step: i64, extent: &Dim) -> (Dim, Dim) {
    let last = extent - &Dim::ONE;
    if step > 0 {
        let end = if end.known().is_some_and(|e| e >= TO_END) { extent.clone() } else { from_start(end, extent) };
        let end = end.minimum(extent);
        // A start past the end gives no element, so only its lower bound matters.
        let start = if start.known().is_some_and(|s| s <= -TO_END) { Dim::ZERO } else { from_start(start, extent) };
        let start = start.maximum(&Dim::ZERO);
        let size = (&end - &start).ceildiv(&Dim::Known(step)).maximum(&Dim::ZERO);
        (start, size)
    } else {
        let start = if start.known().is_some_and(|s| s >= TO_END) { last.clone() } else { from_start(start, extent) };
        // As the operator's text and ONNX Runtime have it, and unlike Python: a start before the first element is at it.
        let start = start.maximum(&Dim::ZERO).minimum(&last);
        let end = match end.known() {
            Some(e) if e <= -TO_END => Dim::Known(-1),
            _ => from_start(end, extent).maximum(&Dim::Known(-1)),
        };
        let size = (&start - &end).ceildiv(&Dim::Known(step.saturating_neg())).maximum(&Dim::ZERO);
        (start.maximum(&Dim::ZERO), size)
    }
}

/// The same bound, near enough to be counted with.
fn within_reach(bound: &Dim) -> Dim {
    let far = ABOVE_ALL.known().unwrap_or(i64::MAX);
    bound.known().map_or_else(|| bound.clone(), |b| Dim::Known(b.clamp(-far, far)))
}

fn slice(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let dims = c.shape(x)?;
    let (starts, ends, axes, steps) = if c.version < 10 {
        let known = |list: Option<Vec<i64>>| list.map(|l| l.into_iter().map(Dim::Known).collect::<Vec<_>>());
        let (Some(starts), Some(ends)) = (known(c.ints("starts")?), known(c.ints("ends")?)) else {
            return invalid("starts or ends are missing");
        };
        (starts, ends, c.ints("axes")?, None)
    } else {
        let (starts, ends) = (c.x(1)?, c.x(2)?);
        let starts = c.const_dims(starts, "starts")?;
        let ends = c.const_dims(ends, "ends")?;
        let axes = c.opt(3).map(|v| c.const_ints(v, "axes")).transpose()?;
        let steps = c.opt(4).map(|v| c.const_ints(v, "steps")).transpose()?;
        (starts, ends, axes, steps)
    };
    let axes: Vec<usize> = match axes {
        Some(list) => list.iter().map(|&a| c.axis_of(a, dims.len())).collect::<Ruled<_>>()?,
        None => (0..starts.len()).collect(),
    };
    let steps = steps.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] || axes.iter().any(|&a| a >= dims.len()) {
        return invalid("starts, ends, axes and steps don't fit together");
    }
    let mut sizes = dims.clone();
    let (mut first, mut by) = (vec![Dim::ZERO; dims.len()], vec![1; dims.len()]);
    for (i, &axis) in axes.iter().enumerate() {
        let (Some(start), Some(end), Some(&step)) = (starts.get(i), ends.get(i), steps.get(i)) else { continue };
        if step == 0 {
            return invalid(format!("axis {axis}: a step of 0"));
        }
        let Some(extent) = dims.get(axis) else { continue };
        let (start, size) = slice_bounds(&within_reach(start), &within_reach(end), step, extent);
        if let (Some(f), Some(b), Some(s)) = (first.get_mut(axis), by.get_mut(axis), sizes.get_mut(axis)) {
            (*f, *b, *s) = (start, step, size);
        }
    }
    if sizes == dims && by.iter().all(|&s| s == 1) {
        return Ok(vec![x]);
    }
    Ok(vec![c.op(Op::Slice { starts: first, sizes, steps: by }, &[x])?])
}

fn expand(c: &mut Ctx) -> Results {
    let (x, shape) = (c.x(0)?, c.x(1)?);
    let wanted = c.const_dims(shape, "the shape")?;
    let from = c.shape(x)?;
    // Exporters write -1 for "as it is".
    let offset = wanted.len().saturating_sub(from.len());
    let as_is = |(i, d): (usize, &Dim)| match (d.known(), i.checked_sub(offset).and_then(|a| from.get(a))) {
        (Some(-1), Some(own)) => own.clone(),
        _ => d.clone(),
    };
    let wanted: Vec<Dim> = wanted.iter().enumerate().map(as_is).collect();
    let dims = broadcast_shapes(&[from, wanted]).map_err(Fail::Invalid)?;
    Ok(vec![c.full(x, dims)?])
}

/// [d0, d1] as [1, d0, 1, d1], repeated to [r0, d0, r1, d1], as [r0 d0, r1 d1].
fn tile(c: &mut Ctx) -> Results {
    let (x, repeats) = (c.x(0)?, c.x(1)?);
    let repeats = c.const_dims(repeats, "the repeats")?;
    let from = c.shape(x)?;
    if repeats.len() != from.len() {
        return invalid(format!("{} repeats for rank {}", repeats.len(), from.len()));
    }
    let dims: Vec<Dim> = repeats.iter().zip(&from).flat_map(|(r, d)| [r.clone(), d.clone()]).collect();
    let axes = (0..from.len()).map(|a| 2 * a + 1).collect();
    let repeated = c.op(Op::Broadcast { dims, axes }, &[x])?;
    let merged = repeats.iter().zip(&from).map(|(r, d)| r * d).collect();
    Ok(vec![c.b.reshape(repeated, merged)?])
}

/// Elements cut off where padding is negative.
fn cropped(c: &mut Ctx, x: Value, low: &mut [Dim], high: &mut [Dim]) -> Ruled<Value> {
    let negative = |d: &Dim| d.known().is_some_and(|v| v < 0);
    if !low.iter().chain(high.iter()).any(negative) {
        return Ok(x);
    }
    let mut sizes = c.shape(x)?;
    let mut starts = vec![Dim::ZERO; sizes.len()];
    for (axis, size) in sizes.iter_mut().enumerate() {
        if let (Some(l), Some(start)) = (low.get_mut(axis).filter(|l| negative(l)), starts.get_mut(axis)) {
            *start = &Dim::ZERO - l;
            *size = &*size + l;
            *l = Dim::ZERO;
        }
        if let Some(h) = high.get_mut(axis).filter(|h| negative(h)) {
            *size = &*size + h;
            *h = Dim::ZERO;
        }
    }
    let steps = vec![1; sizes.len()];
    Ok(c.op(Op::Slice { starts, sizes, steps }, &[x])?)
}

fn pad(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let (rank, dtype) = (c.rank(x)?, c.dtype(x)?);
    let (pads, fill, axes) = if c.version < 11 {
        let pads = if c.version < 2 { c.ints("paddings")? } else { c.ints("pads")? };
        let Some(pads) = pads else { return invalid("attribute `pads` is missing") };
        let value = c.float("value")?.unwrap_or(0.0);
        (pads.into_iter().map(Dim::Known).collect(), Some(c.scalar(dtype, value)?), None)
    } else {
        let pads = c.x(1)?;
        let fill = c.opt(2).map(|v| as_scalar(c, v)).transpose()?;
        let axes = c.opt(3).map(|v| c.const_ints(v, "axes")).transpose()?;
        (c.const_dims(pads, "pads")?, fill, axes)
    };
    let axes: Vec<usize> = match axes {
        Some(list) => list.iter().map(|&a| c.axis_of(a, rank)).collect::<Ruled<_>>()?,
        None => (0..rank).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return invalid(format!("{} pads for {} axes", pads.len(), axes.len()));
    }
    let (mut low, mut high) = (vec![Dim::ZERO; rank], vec![Dim::ZERO; rank]);
    for (i, &axis) in axes.iter().enumerate() {
        if let (Some(l), Some(h), Some(from), Some(to)) =
            (low.get_mut(axis), high.get_mut(axis), pads.get(i), pads.get(i + axes.len()))
        {
            (*l, *h) = (from.clone(), to.clone());
        }
    }
    let x = cropped(c, x, &mut low, &mut high)?;
    let fill = match fill {
        Some(v) => v,
        None => c.scalar(dtype, 0.0)?,
    };
    match c.text("mode", "constant")?.as_str() {
        "constant" => Ok(vec![c.op(Op::Pad { low, high }, &[x, fill])?]),
        mode @ ("edge" | "reflect" | "wrap") => {
            let mut y = x;
            for axis in 0..rank {
                let (Some(l), Some(h)) = (low.get(axis), high.get(axis)) else { continue };
                if *l == Dim::ZERO && *h == Dim::ZERO {
                    continue;
                }
                let (Some(l), Some(h)) = (l.known(), h.known()) else {
                    return unsupported(format!("mode `{mode}` with padding that depends on extents"));
                };
                let extent = c.known_extent(y, axis)?;
                y = mirrored(c, y, axis, mode, (l, h, i64::try_from(extent).unwrap_or(i64::MAX)))?;
            }
            Ok(vec![y])
        }
        other => invalid(format!("no mode `{other}`")),
    }
}

/// Most indices that a padded axis may take.
const MAX_PADDED: i64 = 1 << 24;

/// Padding whose elements are looked up in x itself.
fn mirrored(c: &mut Ctx, x: Value, axis: usize, mode: &str, (low, high, extent): (i64, i64, i64)) -> Ruled<Value> {
    if extent == 0 {
        return invalid(format!("axis {axis} is empty: mode `{mode}` has nothing to repeat"));
    }
    let total = low.saturating_add(high).saturating_add(extent);
    if total > MAX_PADDED {
        return unsupported(format!("axis {axis} padded to {total}"));
    }
    let period = (2 * (extent - 1)).max(1);
    let source = |i: i64| match mode {
        "edge" => i.clamp(0, extent - 1),
        "wrap" => i.rem_euclid(extent),
        _ => {
            let turn = i.rem_euclid(period);
            turn.min(period - turn).min(extent - 1)
        }
    };
    let indices: Vec<i64> = (0..total).map(|i| source(i - low)).collect();
    let indices = c.i64s(&[indices.len()], &indices)?;
    Ok(c.op(Op::Gather { axis }, &[x, indices])?)
}

fn block(c: &mut Ctx, x: Value) -> Ruled<(Vec<Dim>, Dim)> {
    let size = c.int("blocksize")?.filter(|&b| b >= 1);
    let Some(size) = size else { return invalid("attribute `blocksize` must be at least 1") };
    let dims = c.shape(x)?;
    if dims.len() != 4 {
        return invalid(format!("the input is {}, expected [n, c, h, w]", c.ty(x)?));
    }
    Ok((dims, Dim::Known(size)))
}

fn depth_to_space(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let (dims, b) = block(c, x)?;
    let [n, depth, h, w] = dims.as_slice() else { return invalid("rank 4 expected") };
    let channels = depth.floordiv(&(&b * &b));
    let (split, perm) = match c.text("mode", "DCR")?.as_str() {
        "DCR" => ([n, &b, &b, &channels, h, w], vec![0, 3, 4, 1, 5, 2]),
        "CRD" => ([n, &channels, &b, &b, h, w], vec![0, 1, 4, 2, 5, 3]),
        other => return invalid(format!("no mode `{other}`")),
    };
    let x = c.b.reshape(x, split.into_iter().cloned().collect())?;
    let x = c.b.transpose(x, perm)?;
    Ok(vec![c.b.reshape(x, vec![n.clone(), channels, h * &b, w * &b])?])
}

fn space_to_depth(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let (dims, b) = block(c, x)?;
    let [n, depth, h, w] = dims.as_slice() else { return invalid("rank 4 expected") };
    let (rows, columns) = (h.floordiv(&b), w.floordiv(&b));
    let split = [n, depth, &rows, &b, &columns, &b].into_iter().cloned().collect();
    let perm = match c.text("mode", "DCR")?.as_str() {
        "DCR" => vec![0, 3, 5, 1, 2, 4],
        "CRD" => vec![0, 1, 3, 5, 2, 4],
        other => return invalid(format!("no mode `{other}`")),
    };
    let x = c.b.reshape(x, split)?;
    let x = c.b.transpose(x, perm)?;
    Ok(vec![c.b.reshape(x, vec![n.clone(), &(depth * &b) * &b, rows, columns])?])
}

/// Inference: the input, and a mask of ones.
fn dropout(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    if let Some(training) = c.opt(2) {
        let on = c.const_int(training, "training_mode")? != 0;
        let ratio = match c.opt(1) {
            Some(r) if on => c.const_floats(r, "the ratio")?.first().copied(),
            Some(_) => Some(0.0),
            None => Some(0.5),
        };
        if on && ratio != Some(0.0) {
            return unsupported("training mode");
        }
    }
    if c.version < 7 && c.int("is_test")? == Some(0) {
        return unsupported("training mode");
    }
    // Before opset 12 nothing says what the mask holds in inference.
    if c.version < 12 || c.declared.len() < 2 {
        return Ok(vec![x]);
    }
    let one = c.scalar(DType::Bool, 1.0)?;
    let dims = c.shape(x)?;
    Ok(vec![x, c.full(one, dims)?])
}

fn trilu(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let dims = c.shape(x)?;
    let Some(inner) = dims.len().checked_sub(2).and_then(|a| dims.get(a..)) else {
        return invalid(format!("{} has fewer than two dims", c.ty(x)?));
    };
    let inner = inner.to_vec();
    let rows = c.iota(DType::I64, inner.clone(), 0)?;
    let columns = c.iota(DType::I64, inner, 1)?;
    let k = match c.opt(1) {
        Some(k) => as_scalar(c, k)?,
        None => c.i64s(&[], &[0])?,
    };
    let diagonal = c.add(rows, k)?;
    let keep = if c.flag("upper", true)? {
        c.bin(BinaryOp::Le, diagonal, columns)?
    } else {
        c.bin(BinaryOp::Le, columns, diagonal)?
    };
    let zero = c.like(x, 0.0)?;
    Ok(vec![c.pick(keep, x, zero)?])
}

fn center_crop_pad(c: &mut Ctx) -> Results {
    let (x, shape) = (c.x(0)?, c.x(1)?);
    let target = c.const_ints(shape, "the shape")?;
    let rank = c.rank(x)?;
    let axes: Vec<usize> = match c.ints("axes")? {
        Some(list) => list.iter().map(|&a| c.axis_of(a, rank)).collect::<Ruled<_>>()?,
        None => (0..rank).collect(),
    };
    if axes.len() != target.len() {
        return invalid(format!("{} extents for {} axes", target.len(), axes.len()));
    }
    let (mut low, mut high) = (vec![Dim::ZERO; rank], vec![Dim::ZERO; rank]);
    for (&axis, &wanted) in axes.iter().zip(&target) {
        if wanted < 0 {
            return invalid(format!("axis {axis} would have extent {wanted}"));
        }
        let extent = i64::try_from(c.known_extent(x, axis)?).unwrap_or(i64::MAX);
        let more = wanted.saturating_sub(extent);
        // Odd differences: cropping starts at the floor of the half, padding puts the larger half after.
        let before = if more < 0 { -((-more) / 2) } else { more / 2 };
        if let (Some(l), Some(h)) = (low.get_mut(axis), high.get_mut(axis)) {
            (*l, *h) = (Dim::Known(before), Dim::Known(more - before));
        }
    }
    let x = cropped(c, x, &mut low, &mut high)?;
    let zero = c.like(x, 0.0)?;
    Ok(vec![c.op(Op::Pad { low, high }, &[x, zero])?])
}
