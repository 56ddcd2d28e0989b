//! Gradients of reductions, running combinations and sorts.

use frit_ir::types::Dim;
use frit_ir::{BinaryOp, Op, ReduceKind, ScatterKind, UnaryOp, Value};

use super::movement::inverse;
use super::site::{Fail, Ruled, Site, refuse};
use super::window;
use crate::fuse::{SMALL_REDUCE, SPLIT_ABOVE};
use crate::simplify::algebra::is_computed;

/// A value of the reduced shape, repeated along the reduced axes.
fn along(s: &mut Site<'_>, reduced: Value, dims: &[Dim], axes: &[usize]) -> Ruled<Value> {
    let kept: Vec<usize> = (0..dims.len()).filter(|a| !axes.contains(a)).collect();
    if kept.len() == dims.len() {
        return Ok(reduced);
    }
    s.op(Op::Broadcast { dims: dims.to_vec(), axes: kept }, &[reduced])
}

pub(super) fn reduce(s: &mut Site<'_>, axes: &[usize], kind: ReduceKind) -> Ruled {
    let (g, x, y) = (s.g()?, s.x(0)?, s.y());
    let dims = s.dims(x)?;
    let gradient = match kind {
        ReduceKind::Sum => along(s, g, &dims, axes)?,
        ReduceKind::Prod => {
            let others = others(s, x, axes)?;
            let g = along(s, g, &dims, axes)?;
            s.mul(g, others)?
        }
        ReduceKind::Min | ReduceKind::Max => {
            let windows = matches!(s.b.function.op(x), Op::Window { axes: slid, .. }
                if axes.iter().copied().eq(dims.len() - slid.len()..dims.len()));
            if windows {
                window::first_extreme(s, axes, kind)?
            } else {
                let best = along(s, y, &dims, axes)?;
                let tied = s.bin(BinaryOp::Eq, x, best)?;
                let (one, zero) = (s.like(x, 1.0)?, s.zeros(x)?);
                let ones = s.select(tied, one, zero)?;
                let (count, rows) = match row_axis(&dims, axes) {
                    Some(row) => ties_by_row(s, x, ones, row, kind)?,
                    None => (s.b.reduce(ones, axes.to_vec(), ReduceKind::Sum, false)?, None),
                };
                let share = s.div(g, count)?;
                let share = along(s, share, &dims, axes)?;
                let shared = s.when(tied, share)?;
                rows.map_or(Ok(shared), |rows| s.when(rows, shared))?
            }
        }
        ReduceKind::ArgMin | ReduceKind::ArgMax => return Ok(()),
    };
    s.give(0, gradient);
    Ok(())
}

/// Whether a tensor has many elements, with those of a group of neighbours taken for one.
fn is_many(dims: &[Dim], group: i64) -> bool {
    Dim::product(dims).known().is_none_or(|n| n / group > SPLIT_ABOVE)
}

/// Where all of a large tensor is reduced: its outermost axis.
fn row_axis(dims: &[Dim], axes: &[usize]) -> Option<usize> {
    let row = dims.iter().position(|d| *d != Dim::ONE)?;
    let inner = dims.get(row + 1..)?.iter().any(|d| *d != Dim::ONE);
    (axes.len() == dims.len() && is_many(dims, 1) && inner).then_some(row)
}

/// How many elements are the extreme of all, and which may be: only rows whose own extreme that is need a look at their
/// elements. Along a short last axis, the bases of a layer say, each place has a row's extreme of its own, since all
/// that tie often have the same place.
fn ties_by_row(s: &mut Site<'_>, x: Value, ones: Value, row: usize, kind: ReduceKind) -> Ruled<(Value, Option<Value>)> {
    let dims = s.dims(x)?;
    let inner: Vec<usize> = (0..dims.len()).filter(|a| *a != row).collect();
    let last = dims.last().and_then(Dim::known).filter(|n| (2..=SMALL_REDUCE).contains(n)).unwrap_or(1);
    // Kernels that take all rows for one don't know where a row ends.
    let by_rows = is_many(&dims, last);
    // In memory, elements of one place would lie apart.
    let several = inner.iter().filter(|a| dims[**a] != Dim::ONE).count() > 1;
    let apart = by_rows && several && is_computed(s.b.function, x, &[dims.len() - 1]);
    let places = if apart { last } else { 1 };
    let mut best_of = Vec::new();
    for place in 0..places {
        let part = at_place(s, x, place, places)?;
        best_of.push(s.b.reduce(part, inner.clone(), kind, false)?);
    }
    let larger = if kind == ReduceKind::Min { BinaryOp::Min } else { BinaryOp::Max };
    let best_of_row = best_of.iter().copied().map(Ok).reduce(|a, b| s.bin(larger, a?, b?));
    let best_of_row = best_of_row.unwrap_or(Ok(x))?;
    let best = s.b.reduce(best_of_row, vec![0], kind, false)?;
    // The forward's own is the same number: as it is computed here, it costs nothing more.
    s.b.function.replace_uses(s.y(), best);
    let best = along(s, best, &dims[row..=row], &[0])?;
    let mut count_of_row: Option<Value> = None;
    for (place, best_of_place) in (0..).zip(&best_of) {
        let has_one = s.bin(BinaryOp::Eq, *best_of_place, best)?;
        let has_none = s.b.unary(UnaryOp::Not, has_one)?;
        let part = at_place(s, ones, place, places)?;
        let count = s.b.reduce(part, inner.clone(), ReduceKind::Sum, false)?;
        let none = s.zeros(count)?;
        let counted = s.b.select_likely(has_none, none, count)?;
        count_of_row = Some(match count_of_row {
            Some(before) => s.bin(BinaryOp::Add, before, counted)?,
            None => counted,
        });
    }
    let count = s.b.reduce(count_of_row.unwrap_or(best_of_row), vec![0], ReduceKind::Sum, false)?;
    let rows = if by_rows {
        let has_one = s.bin(BinaryOp::Eq, best_of_row, best)?;
        Some(s.op(Op::Broadcast { dims, axes: vec![row] }, &[has_one])?)
    } else {
        None
    };
    Ok((count, rows))
}

/// The elements at one of the places along the last axis.
fn at_place(s: &mut Site<'_>, x: Value, place: i64, places: i64) -> Ruled<Value> {
    if places == 1 {
        return Ok(x);
    }
    let mut sizes = s.dims(x)?;
    let (mut starts, steps) = (vec![Dim::ZERO; sizes.len()], vec![1; sizes.len()]);
    if let (Some(start), Some(size)) = (starts.last_mut(), sizes.last_mut()) {
        (*start, *size) = (Dim::Known(place), Dim::ONE);
    }
    s.op(Op::Slice { starts, sizes, steps }, &[x])
}

/// For each element, the product of the others along the axes.
fn others(s: &mut Site<'_>, x: Value, axes: &[usize]) -> Ruled<Value> {
    let dims = s.dims(x)?;
    let kept = (0..dims.len()).filter(|a| !axes.contains(a));
    let perm: Vec<usize> = kept.chain(axes.iter().copied()).collect();
    let moved = s.b.transpose(x, perm.clone())?;
    let apart = s.dims(moved)?;
    let first = dims.len() - axes.len();
    let mut flat = apart[..first].to_vec();
    flat.push(Dim::product(&apart[first..]));
    let line = s.b.reshape(moved, flat)?;
    let running = |reverse| Op::Cumulate { axis: first, kind: ReduceKind::Prod, exclusive: true, reverse };
    let (before, after) = (s.op(running(false), &[line])?, s.op(running(true), &[line])?);
    let product = s.mul(before, after)?;
    let product = s.b.reshape(product, apart)?;
    Ok(s.b.transpose(product, inverse(&perm))?)
}

pub(super) fn cumulate(s: &mut Site<'_>, axis: usize, kind: ReduceKind, exclusive: bool, reverse: bool) -> Ruled {
    if kind != ReduceKind::Sum {
        return refuse(format!("of a running {}", kind.name()));
    }
    let g = s.g()?;
    let gradient = s.op(Op::Cumulate { axis, kind, exclusive, reverse: !reverse }, &[g])?;
    s.give(0, gradient);
    Ok(())
}

/// Each element's cotangent goes back to where the sort took it from.
pub(super) fn sort(s: &mut Site<'_>, axis: usize, descending: bool) -> Ruled {
    let dims = s.dims(s.x(0)?)?;
    // The same sort, with the places as one more operand.
    let places = s.count(dims.clone(), axis)?;
    let operands: Vec<Value> = s.operands.iter().copied().chain([places]).collect();
    let node = s.b.function.add_op_with(
        Op::Sort { axis, descending },
        &operands,
        Vec::new(),
        &s.b.origin.clone(),
        s.b.numerics,
    )?;
    let from = Value { node, result: s.operands.len() };
    // Row-major places in the whole tensor.
    let mut scale = Dim::ONE;
    let mut flat: Option<Value> = None;
    for a in (0..dims.len()).rev() {
        let at = if a == axis { from } else { s.count(dims.clone(), a)? };
        let step = s.b.dim(scale.clone())?;
        let scaled = s.bin(BinaryOp::Mul, at, step)?;
        flat = Some(match flat {
            Some(before) => s.bin(BinaryOp::Add, before, scaled)?,
            None => scaled,
        });
        scale = &scale * &dims[a];
    }
    let flat = flat.ok_or_else(|| Fail::Refused("a sort of a scalar".to_owned()))?;
    let numel = Dim::product(&dims);
    let flat = s.b.reshape(flat, vec![numel.clone()])?;
    for i in 0..s.operands.len() {
        let (true, Some(g)) = (s.wants(i), s.cotangents[i]) else { continue };
        let updates = s.b.reshape(g, vec![numel.clone()])?;
        let zeros = s.zeros(updates)?;
        let back = s.op(Op::Scatter { axis: 0, kind: ScatterKind::Assign }, &[zeros, flat, updates])?;
        let gradient = s.b.reshape(back, dims.clone())?;
        s.give(i, gradient);
    }
    Ok(())
}
