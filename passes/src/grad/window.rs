//! The gradient of sliding windows: each offset inside the window is moved back to where it read, and all add up. Windows
//! that lie side by side are only put together again.

use frit_ir::types::Dim;
use frit_ir::{BinaryOp, Op, ReduceKind, Value};

use super::movement::{placed, spread};
use super::site::{Ruled, Site, refuse};

/// Windows of more elements are refused: each is an op.
const MOST: usize = 1 << 10;

/// Attributes of a window op.
pub(super) struct Slide<'a> {
    pub axes: &'a [usize],
    pub sizes: &'a [usize],
    pub strides: &'a [usize],
    pub dilations: &'a [usize],
    pub low: &'a [usize],
}

pub(super) fn window(s: &mut Site<'_>, slide: &Slide<'_>) -> Ruled {
    let (g, x) = (s.g()?, s.x(0)?);
    if s.wants(1) {
        return refuse("by the value outside");
    }
    let count = slide.sizes.iter().try_fold(1_usize, |n, &size| n.checked_mul(size)).unwrap_or(usize::MAX);
    if count > MOST {
        return refuse(format!("windows of {count} elements are more than {MOST}"));
    }
    let rank = s.dims(x)?.len();
    if let Some(whole) = tiled(s, g, x, slide)? {
        s.give(0, whole);
        return Ok(());
    }
    // What sums the windows up repeats one plane for all offsets.
    let same = repeated(s, g, rank)?;
    let mut sum: Option<Value> = None;
    for offset in offsets(slide.sizes) {
        let plane = match same {
            Some(plane) => plane,
            None => plane_at(s, g, rank, &offset)?,
        };
        let moved = back(s, plane, x, slide, &offset)?;
        sum = Some(match sum {
            Some(before) => s.bin(BinaryOp::Add, before, moved)?,
            None => moved,
        });
    }
    if let Some(sum) = sum {
        s.give(0, sum);
    }
    Ok(())
}

/// The cotangents of windows that lie side by side; `None`: they overlap, leave gaps, or begin outside.
fn tiled(s: &mut Site<'_>, g: Value, x: Value, slide: &Slide<'_>) -> Ruled<Option<Value>> {
    let side_by_side = slide.sizes == slide.strides && slide.dilations.iter().all(|&d| d == 1);
    if !side_by_side || slide.low.iter().any(|&low| low != 0) {
        return Ok(None);
    }
    let (extents, dims) = (s.dims(x)?, s.dims(g)?);
    let rank = extents.len();
    let (mut order, mut joined, mut after) = (Vec::new(), Vec::new(), vec![Dim::ZERO; rank]);
    for axis in 0..rank {
        order.push(axis);
        let Some(i) = slide.axes.iter().position(|&slid| slid == axis) else {
            joined.push(extents[axis].clone());
            continue;
        };
        order.push(rank + i);
        let covered = &dims[axis] * &Dim::from(slide.sizes[i]);
        after[axis] = &extents[axis] - &covered;
        // A last window may hang over the end.
        if after[axis].known().is_none_or(|rest| rest < 0) {
            return Ok(None);
        }
        joined.push(covered);
    }
    let beside = s.b.transpose(g, order)?;
    let together = s.b.reshape(beside, joined)?;
    placed(s, together, &vec![Dim::ZERO; rank], &after).map(Some)
}

/// Every place in a box.
fn offsets(sizes: &[usize]) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for &size in sizes {
        all = all.into_iter().flat_map(|o: Vec<usize>| (0..size).map(move |w| [&o[..], &[w]].concat())).collect();
    }
    all
}

/// The value that is repeated along all axes from `rank` on.
fn repeated(s: &mut Site<'_>, g: Value, rank: usize) -> Ruled<Option<Value>> {
    let node = s.b.function.node(g.node);
    let (Op::Broadcast { axes, .. }, Some(&from)) = (&node.op, node.operands().first()) else { return Ok(None) };
    if axes.iter().any(|&a| a >= rank) || axes.len() != rank {
        return Ok(None);
    }
    let mut dims = s.dims(g)?;
    dims.truncate(rank);
    Ok((s.dims(from)? == dims).then_some(from))
}

/// The cotangents of one offset inside the windows.
fn plane_at(s: &mut Site<'_>, g: Value, rank: usize, offset: &[usize]) -> Ruled<Value> {
    let dims = s.dims(g)?;
    let mut starts = vec![Dim::ZERO; rank];
    starts.extend(offset.iter().map(|&w| Dim::from(w)));
    let mut sizes = dims[..rank].to_vec();
    sizes.resize(dims.len(), Dim::ONE);
    let one = s.op(Op::Slice { starts, sizes, steps: vec![1; dims.len()] }, &[g])?;
    Ok(s.b.reshape(one, dims[..rank].to_vec())?)
}

/// A plane of window positions where its elements were read: o goes to o * stride + w * dilation - low.
fn back(s: &mut Site<'_>, plane: Value, x: Value, slide: &Slide<'_>, offset: &[usize]) -> Ruled<Value> {
    let extents = s.dims(x)?;
    let mut moved = plane;
    let (mut before, mut after) = (vec![Dim::ZERO; extents.len()], vec![Dim::ZERO; extents.len()]);
    for (i, &axis) in slide.axes.iter().enumerate() {
        moved = spread(s, moved, axis, slide.strides[i])?;
        let first = &Dim::from(offset[i].saturating_mul(slide.dilations[i])) - &Dim::from(slide.low[i]);
        let spread_out = s.dims(moved)?[axis].clone();
        after[axis] = &(&extents[axis] - &first) - &spread_out;
        if after[axis].known().is_none() {
            return refuse(format!("windows over an axis of extent {}", extents[axis]));
        }
        before[axis] = first;
    }
    placed(s, moved, &before, &after)
}

/// The cotangents of the elements of windows whose largest or smallest is kept: all for the first of equal ones, as
/// poolings have it. `axes` are those of the windows' elements, the last ones.
pub(super) fn first_extreme(s: &mut Site<'_>, axes: &[usize], kind: ReduceKind) -> Ruled<Value> {
    let (g, x) = (s.g()?, s.x(0)?);
    let dims = s.dims(x)?;
    let kept = dims.len() - axes.len();
    let mut flat = dims[..kept].to_vec();
    flat.push(Dim::product(&dims[kept..]));
    let elements = s.b.reshape(x, flat.clone())?;
    let which = if kind == ReduceKind::Max { ReduceKind::ArgMax } else { ReduceKind::ArgMin };
    let found = s.b.reduce(elements, vec![kept], which, true)?;
    let at = s.count(flat, kept)?;
    let first = s.bin(BinaryOp::Eq, at, found)?;
    let mut wide = s.dims(g)?;
    wide.push(Dim::ONE);
    let g = s.b.reshape(g, wide)?;
    let g = s.b.broadcast_to(g, s.b.dims(first)?)?;
    let chosen = s.when(first, g)?;
    Ok(s.b.reshape(chosen, dims)?)
}
