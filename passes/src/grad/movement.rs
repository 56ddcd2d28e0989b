//! Gradients of what moves elements: each element's cotangent moves back, and adds up where it was repeated.

use frit_ir::types::Dim;
use frit_ir::{BinaryOp, Op, ReduceKind, ScatterKind, Value};

use super::site::{Ruled, Site, refuse};

pub(super) fn broadcast(s: &mut Site<'_>, axes: &[usize]) -> Ruled {
    let (g, x) = (s.g()?, s.x(0)?);
    let (from, to) = (s.dims(x)?, s.dims(g)?);
    let mut repeated: Vec<usize> = (0..to.len()).filter(|a| !axes.contains(a)).collect();
    for (extent, &axis) in from.iter().zip(axes) {
        if *extent == to[axis] {
            continue;
        }
        if *extent != Dim::ONE {
            return refuse(format!("whether extent {extent} is repeated to {} is known at run time only", to[axis]));
        }
        repeated.push(axis);
    }
    repeated.sort_unstable();
    let sum = if repeated.is_empty() { g } else { s.b.reduce(g, repeated, ReduceKind::Sum, false)? };
    let gradient = s.b.reshape(sum, from)?;
    s.give(0, gradient);
    Ok(())
}

pub(super) fn reshape(s: &mut Site<'_>) -> Ruled {
    let (g, dims) = (s.g()?, s.dims(s.x(0)?)?);
    let gradient = s.b.reshape(g, dims)?;
    s.give(0, gradient);
    Ok(())
}

pub(super) fn transpose(s: &mut Site<'_>, perm: &[usize]) -> Ruled {
    let g = s.g()?;
    let gradient = s.b.transpose(g, inverse(perm))?;
    s.give(0, gradient);
    Ok(())
}

/// Where each axis goes that a permutation takes from somewhere.
pub(super) fn inverse(perm: &[usize]) -> Vec<usize> {
    let mut inverse = vec![0; perm.len()];
    for (i, &axis) in perm.iter().enumerate() {
        inverse[axis] = i;
    }
    inverse
}

pub(super) fn slice(s: &mut Site<'_>, starts: &[Dim], sizes: &[Dim], steps: &[i64]) -> Ruled {
    let extents = s.dims(s.x(0)?)?;
    let mut gradient = s.g()?;
    let (mut low, mut high) = (Vec::new(), Vec::new());
    for (axis, ((start, size), &step)) in starts.iter().zip(sizes).zip(steps).enumerate() {
        let span = size - &Dim::ONE;
        let stride = usize::try_from(step.unsigned_abs()).unwrap_or(usize::MAX);
        let mut first = start.clone();
        if step < 0 {
            gradient = reversed(s, gradient, axis)?;
            first = start + &(&span * &Dim::from(step));
        }
        // From the first element read to the last.
        let covered = &(&span * &Dim::from(stride)) + &Dim::ONE;
        gradient = spread(s, gradient, axis, stride)?;
        if stride > 1 {
            let mut dims = s.dims(gradient)?;
            dims[axis] = covered.clone();
            let (zeros, ones) = (vec![Dim::ZERO; dims.len()], vec![1; dims.len()]);
            gradient = s.op(Op::Slice { starts: zeros, sizes: dims, steps: ones }, &[gradient])?;
        }
        let after = &(&extents[axis] - &first) - &covered;
        low.push(first);
        high.push(after);
    }
    let gradient = placed(s, gradient, &low, &high)?;
    s.give(0, gradient);
    Ok(())
}

/// The elements of an axis from the last to the first.
fn reversed(s: &mut Site<'_>, x: Value, axis: usize) -> Ruled<Value> {
    let dims = s.dims(x)?;
    let mut starts = vec![Dim::ZERO; dims.len()];
    let mut steps = vec![1; dims.len()];
    starts[axis] = &dims[axis] - &Dim::ONE;
    steps[axis] = -1;
    s.op(Op::Slice { starts, sizes: dims, steps }, &[x])
}

/// Each element of an axis followed by `stride` - 1 zeros.
pub(super) fn spread(s: &mut Site<'_>, x: Value, axis: usize, stride: usize) -> Ruled<Value> {
    if stride <= 1 {
        return Ok(x);
    }
    let dims = s.dims(x)?;
    let mut apart = dims.clone();
    apart.insert(axis + 1, Dim::ONE);
    let apart = s.b.reshape(x, apart)?;
    let mut high = vec![Dim::ZERO; dims.len() + 1];
    high[axis + 1] = Dim::from(stride - 1);
    let zero = s.b.scalar(s.b.tensor(x)?.dtype, 0.0)?;
    let padded = s.op(Op::Pad { low: vec![Dim::ZERO; high.len()], high }, &[apart, zero])?;
    let mut joined = dims;
    joined[axis] = &joined[axis] * &Dim::from(stride);
    Ok(s.b.reshape(padded, joined)?)
}

/// x with zeros before and after each axis; where an amount is negative, so many elements less.
pub(super) fn placed(s: &mut Site<'_>, x: Value, low: &[Dim], high: &[Dim]) -> Ruled<Value> {
    let dims = s.dims(x)?;
    let (mut starts, mut sizes) = (vec![Dim::ZERO; dims.len()], dims.clone());
    let (mut before, mut after) = (vec![Dim::ZERO; dims.len()], vec![Dim::ZERO; dims.len()]);
    for axis in 0..dims.len() {
        match low[axis].known() {
            Some(l) if l < 0 => {
                starts[axis] = Dim::from(-l);
                sizes[axis] = &sizes[axis] + &low[axis];
            }
            _ => before[axis] = low[axis].clone(),
        }
        match high[axis].known() {
            Some(h) if h < 0 => sizes[axis] = &sizes[axis] + &high[axis],
            _ => after[axis] = high[axis].clone(),
        }
    }
    let mut value = x;
    if sizes != dims {
        value = s.op(Op::Slice { starts, sizes, steps: vec![1; dims.len()] }, &[value])?;
    }
    if before.iter().chain(&after).any(|d| *d != Dim::ZERO) {
        let zero = s.b.scalar(s.b.tensor(x)?.dtype, 0.0)?;
        value = s.op(Op::Pad { low: before, high: after }, &[value, zero])?;
    }
    Ok(value)
}

pub(super) fn dynamic_slice(s: &mut Site<'_>) -> Ruled {
    let (g, x) = (s.g()?, s.x(0)?);
    let zeros = s.zeros(x)?;
    let operands: Vec<Value> = [zeros, g].into_iter().chain(s.operands[1..].iter().copied()).collect();
    let gradient = s.op(Op::UpdateSlice {}, &operands)?;
    s.give(0, gradient);
    Ok(())
}

pub(super) fn update_slice(s: &mut Site<'_>) -> Ruled {
    let (g, update) = (s.g()?, s.x(1)?);
    let starts = s.operands[2..].to_vec();
    if s.wants(0) {
        let zeros = s.zeros(update)?;
        let operands: Vec<Value> = [g, zeros].into_iter().chain(starts.iter().copied()).collect();
        let gradient = s.op(Op::UpdateSlice {}, &operands)?;
        s.give(0, gradient);
    }
    if s.wants(1) {
        let sizes = s.dims(update)?;
        let operands: Vec<Value> = std::iter::once(g).chain(starts).collect();
        let gradient = s.op(Op::DynamicSlice { sizes }, &operands)?;
        s.give(1, gradient);
    }
    Ok(())
}

pub(super) fn pad(s: &mut Site<'_>, low: &[Dim]) -> Ruled {
    let (g, sizes) = (s.g()?, s.dims(s.x(0)?)?);
    let rank = sizes.len();
    let inner = s.op(Op::Slice { starts: low.to_vec(), sizes: sizes.clone(), steps: vec![1; rank] }, &[g])?;
    s.give(0, inner);
    if s.wants(1) {
        // What is not inside: masked, since a difference of sums would cancel.
        let all = s.dims(g)?;
        let mut outside: Option<Value> = None;
        for axis in 0..rank {
            let at = s.count(all.clone(), axis)?;
            let (first, end) = (s.b.dim(low[axis].clone())?, s.b.dim(&low[axis] + &sizes[axis])?);
            let (before, after) = (s.bin(BinaryOp::Lt, at, first)?, s.bin(BinaryOp::Le, end, at)?);
            let here = s.bin(BinaryOp::Or, before, after)?;
            outside = Some(match outside {
                Some(found) => s.bin(BinaryOp::Or, found, here)?,
                None => here,
            });
        }
        let Some(outside) = outside else { return Ok(()) };
        let kept = s.when(outside, g)?;
        let gradient = s.b.reduce(kept, (0..rank).collect(), ReduceKind::Sum, false)?;
        s.give(1, gradient);
    }
    Ok(())
}

pub(super) fn concat(s: &mut Site<'_>, axis: usize) -> Ruled {
    let g = s.g()?;
    let mut start = Dim::ZERO;
    for (i, x) in s.operands.clone().into_iter().enumerate() {
        let sizes = s.dims(x)?;
        let next = &start + &sizes[axis];
        if s.wants(i) {
            let mut starts = vec![Dim::ZERO; sizes.len()];
            starts[axis] = start;
            let steps = vec![1; sizes.len()];
            let gradient = s.op(Op::Slice { starts, sizes, steps }, &[g])?;
            s.give(i, gradient);
        }
        start = next;
    }
    Ok(())
}

pub(super) fn gather(s: &mut Site<'_>, axis: usize) -> Ruled {
    let (g, x, indices) = (s.g()?, s.x(0)?, s.x(1)?);
    let places = s.ty(indices)?;
    let count = Dim::product(&places.dims);
    let flat = s.b.reshape(indices, vec![count.clone()])?;
    let mut dims = s.dims(x)?;
    dims[axis] = count;
    let updates = s.b.reshape(g, dims)?;
    let zeros = s.zeros(x)?;
    let gradient = s.op(Op::Scatter { axis, kind: ScatterKind::Add }, &[zeros, flat, updates])?;
    s.give(0, gradient);
    Ok(())
}

/// Scatters with a one-dimensional list of places.
struct Places {
    indices: Value,
    axis: usize,
}

impl Places {
    fn take(&self, s: &mut Site<'_>, x: Value) -> Ruled<Value> {
        s.op(Op::Gather { axis: self.axis }, &[x, self.indices])
    }

    fn put(&self, s: &mut Site<'_>, x: Value, updates: Value, kind: ScatterKind) -> Ruled<Value> {
        s.op(Op::Scatter { axis: self.axis, kind }, &[x, self.indices, updates])
    }
}

pub(super) fn scatter(s: &mut Site<'_>, axis: usize, kind: ScatterKind) -> Ruled {
    let (g, x, indices, updates) = (s.g()?, s.x(0)?, s.x(1)?, s.x(2)?);
    let places = Places { indices, axis };
    match kind {
        ScatterKind::Add => {
            s.give(0, g);
            if s.wants(2) {
                let taken = places.take(s, g)?;
                s.give(2, taken);
            }
        }
        ScatterKind::Assign => {
            if s.wants(0) {
                let zeros = s.zeros(updates)?;
                let gradient = places.put(s, g, zeros, ScatterKind::Assign)?;
                s.give(0, gradient);
            }
            if s.wants(2) {
                // Of several updates of one place the last counts.
                let order = s.count(s.dims(updates)?, axis)?;
                let nobody = s.count(s.dims(x)?, axis)?;
                let winners = places.put(s, nobody, order, ScatterKind::Assign)?;
                let (winner, taken) = (places.take(s, winners)?, places.take(s, g)?);
                let counts = s.bin(BinaryOp::Eq, winner, order)?;
                let gradient = s.when(counts, taken)?;
                s.give(2, gradient);
            }
        }
        // Each that equals the result gets an equal share.
        ScatterKind::Min | ScatterKind::Max => {
            let y = s.y();
            let kept = s.bin(BinaryOp::Eq, x, y)?;
            let result = places.take(s, y)?;
            let won = s.bin(BinaryOp::Eq, updates, result)?;
            let (one, zero) = (s.like(x, 1.0)?, s.zeros(x)?);
            let (ones, zeros) = (s.like(updates, 1.0)?, s.zeros(updates)?);
            let (kept_one, won_one) = (s.select(kept, one, zero)?, s.select(won, ones, zeros)?);
            let ties = places.put(s, kept_one, won_one, ScatterKind::Add)?;
            let share = s.div(g, ties)?;
            if s.wants(0) {
                let gradient = s.when(kept, share)?;
                s.give(0, gradient);
            }
            if s.wants(2) {
                let taken = places.take(s, share)?;
                let gradient = s.when(won, taken)?;
                s.give(2, gradient);
            }
        }
        ScatterKind::Mul => {
            if s.wants(2) {
                return refuse("of a product by what is scattered into it");
            }
            let ones = s.like(x, 1.0)?;
            let factor = places.put(s, ones, updates, ScatterKind::Mul)?;
            let gradient = s.mul(g, factor)?;
            s.give(0, gradient);
        }
    }
    Ok(())
}
