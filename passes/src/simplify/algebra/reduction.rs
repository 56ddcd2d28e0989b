//! Reductions of views.
//!
//! A sum or product runs over its elements in row-major order of the reduced axes (`frit_ir::order`), so views that keep
//! that order keep the bits. Minimum and maximum don't depend on order at all: NaN wins, and -0 is below 0.

use std::collections::{HashSet, VecDeque};

use frit_ir::builder::Builder;
use frit_ir::op::BinaryOp;
use frit_ir::op::infer::TypeError;
use frit_ir::types::{DType, Dim};
use frit_ir::{NodeId, Op, OpClass, ReduceKind, Value};

use super::movement::{input, known};
use super::scope::{Kept, kept_axes, known_product};
use super::{Outcome, Rule, Scope, found};
use crate::fuse::{SMALL_REDUCE, SPLIT_ABOVE};

/// Ops that are looked at for one question.
const NEAR: usize = 256;

pub(super) static RULES: &[Rule] = &[
    rule!("reduce-nothing", "reduce(x, []) = x", "no axes", Strict Algebra Bits, reduce_nothing, |b| {
        let x = input(b, &[3]);
        let y = b.op(Op::Reduce { axes: vec![], kind: ReduceKind::Max }, &[x])?;
        Ok(vec![b.binary(BinaryOp::Sub, y, x)?])
    }),
    rule!("reduce-of-one", "reduce(x) = reshape(x)", "the reduced extents are 1; min, max and prod, or integers",
        Strict Algebra Bits, |s, id| reduce_of_one(s, id, true), |b| {
        let x = input(b, &[3, 1]);
        Ok(vec![b.reduce(x, vec![1], ReduceKind::Max, false)?])
    }),
    rule!("sum-of-one", "sum(x) = reshape(x)", "the reduced extents are 1; floats: -0 becomes 0 on the left",
        Reassociate Algebra Rounding, |s, id| reduce_of_one(s, id, false), |b| {
        let x = input(b, &[3, 1]);
        Ok(vec![b.reduce(x, vec![1], ReduceKind::Sum, false)?])
    }),
    rule!("reduce-all-of-reshape", "reduce(reshape(x)) = reduce(x)", "both over all axes", Strict Algebra Bits,
        reduce_all_of_reshape, |b| {
        let x = input(b, &[5, 7]);
        let y = b.reshape(x, known(&[35]))?;
        Ok(vec![b.reduce(y, vec![0], ReduceKind::Sum, false)?])
    }),
    rule!("reduce-of-reshape", "reduce(reshape(x)) = reshape(reduce(x))",
        "the reshape keeps the reduced axes as they are, extents of 1 aside", Strict Algebra Bits, reduce_of_reshape, |b| {
        let x = input(b, &[5, 2, 7]);
        let y = b.reshape(x, known(&[10, 1, 7]))?;
        Ok(vec![b.reduce(y, vec![2], ReduceKind::Sum, false)?])
    }),
    rule!("reduce-of-transpose", "max(transpose(x), a) = transpose(max(x, perm[a]))",
        "min and max; all axes, or the kept axes keep their order", Strict Algebra Bits, reduce_of_transpose, |b| {
        let x = input(b, &[5, 7]);
        let y = b.transpose(x, vec![1, 0])?;
        Ok(vec![b.reduce(y, vec![0, 1], ReduceKind::Max, false)?])
    }),
    rule!("reduce-of-reduce", "max(max(x, a), b) = max(x, a and b)", "min and max", Strict Algebra Bits,
        |s, id| reduce_of_reduce(s, id, true), |b| {
        let x = input(b, &[5, 7, 2]);
        let y = b.reduce(x, vec![1], ReduceKind::Max, false)?;
        Ok(vec![b.reduce(y, vec![1], ReduceKind::Max, false)?])
    }),
    rule!("sum-of-sum", "sum(sum(x, a), b) = sum(x, a and b)", "sums and products", Reassociate Algebra Rounding,
        |s, id| reduce_of_reduce(s, id, false), |b| {
        let x = input(b, &[5, 7, 2]);
        let y = b.reduce(x, vec![1], ReduceKind::Sum, false)?;
        Ok(vec![b.reduce(y, vec![1], ReduceKind::Sum, false)?])
    }),
    rule!("extreme-of-extremes", "max(x, a and b) = max(max(x, a), b)", "min and max; max(x, a) is there, and much smaller",
        Strict Strength Bits, extreme_of_extremes, |b| {
        let x = input(b, &[5, 7, 2]);
        let y = b.reduce(x, vec![1, 2], ReduceKind::Max, false)?;
        Ok(vec![b.reduce(x, vec![0, 1, 2], ReduceKind::Max, false)?, y])
    }),
    rule!("extreme-by-short-axis", "max(x, a and last) = max(max(x, last), a)",
        "min and max; the last axis is short, and x is reduced along it alone elsewhere: then both share rows",
        Strict Strength Bits, extreme_by_short_axis, |b| {
        let x = input(b, &[5, 300, 6]);
        let x = b.unary(frit_ir::UnaryOp::Exp, x)?;
        let y = b.reduce(x, vec![2], ReduceKind::Sum, false)?;
        Ok(vec![b.reduce(x, vec![1, 2], ReduceKind::Max, false)?, y])
    }),
    rule!("sum-by-rows", "sum(x) = sum(sum(x, a))",
        "over all of many elements, which are computed from sums over a: then both share rows",
        Reassociate Strength Rounding, |s, id| by_rows(s, id, false), |b| of_rows_and_all(b, ReduceKind::Sum)),
    rule!("extreme-by-rows", "max(x) = max(max(x, a))",
        "min and max over all of many elements, which are computed from reductions over a: then both share rows",
        Strict Strength Bits, |s, id| by_rows(s, id, true), |b| of_rows_and_all(b, ReduceKind::Min)),
    rule!("max-of-broadcast", "max(broadcast(x), a) = broadcast(x)", "min and max over repeated axes that are not empty",
        Strict Algebra Bits, |s, id| reduce_of_broadcast(s, id, true), |b| {
        let x = input(b, &[5, 2]);
        let y = b.op(Op::Broadcast { dims: known(&[5, 7, 2]), axes: vec![0, 2] }, &[x])?;
        Ok(vec![b.reduce(y, vec![1], ReduceKind::Max, false)?])
    }),
    rule!("sum-of-broadcast", "sum(broadcast(x), a) = n broadcast(x)", "sums over n repeated elements",
        Reassociate Algebra Rounding, |s, id| reduce_of_broadcast(s, id, false), |b| {
        let x = input(b, &[5, 2]);
        let y = b.op(Op::Broadcast { dims: known(&[5, 7, 2]), axes: vec![0, 2] }, &[x])?;
        Ok(vec![b.reduce(y, vec![1], ReduceKind::Sum, false)?])
    }),
    rule!("reduce-before-broadcast", "sum(broadcast(x), a) = broadcast(sum(x, a))", "x holds every reduced axis",
        Strict Algebra Bits, reduce_before_broadcast, |b| {
        let x = input(b, &[5, 2]);
        let y = b.op(Op::Broadcast { dims: known(&[5, 7, 2]), axes: vec![0, 2] }, &[x])?;
        Ok(vec![b.reduce(y, vec![2], ReduceKind::Sum, false)?])
    }),
];

/// A reduction over all of what is computed from sums by rows.
fn of_rows_and_all(b: &mut Builder<'_>, kind: ReduceKind) -> Result<Vec<Value>, TypeError> {
    let x = input(b, &[70, 90]);
    let sum = b.reduce(x, vec![1], ReduceKind::Sum, false)?;
    let sum = b.op(Op::Broadcast { dims: known(&[70, 90]), axes: vec![0] }, &[sum])?;
    let y = b.binary(BinaryOp::Sub, x, sum)?;
    Ok(vec![b.reduce(y, vec![0, 1], kind, false)?])
}

/// Axes and kind of a reduce, and what it reduces.
pub(super) fn reduce_of<'a>(s: &Scope<'a>, id: NodeId) -> Option<(&'a [usize], ReduceKind, Value)> {
    match (&s.f.node(id).op, s.operand(id, 0)) {
        (Op::Reduce { axes, kind }, Some(x)) => Some((axes, *kind, x)),
        _ => None,
    }
}

fn extreme_of_extremes(s: &Scope<'_>, id: NodeId) -> Outcome {
    let Some((axes, kind, x)) = reduce_of(s, id).filter(|(_, kind, _)| is_order_free(*kind)) else {
        return Outcome::No;
    };
    for (other, _) in s.f.uses(x) {
        let Some((fewer, same, _)) = reduce_of(s, other) else { continue };
        let part = Value { node: other, result: 0 };
        if same != kind || fewer.len() >= axes.len() || fewer.is_empty() || !fewer.iter().all(|a| axes.contains(a)) {
            continue;
        }
        let smaller = match (Dim::product(s.dims(part)), Dim::product(s.dims(x))) {
            (Dim::Known(part), Dim::Known(all)) => 4 * part <= all,
            (part, all) => part != all,
        };
        if smaller {
            // Where the axes that are left lie among those that are kept.
            let kept = (0..s.dims(x).len()).filter(|a| !fewer.contains(a)).enumerate();
            let left: Vec<usize> = kept.filter(|(_, a)| axes.contains(a)).map(|(i, _)| i).collect();
            return found([], move |b| b.reduce(part, left, kind, false));
        }
    }
    Outcome::No
}

fn extreme_by_short_axis(s: &Scope<'_>, id: NodeId) -> Outcome {
    let Some((axes, kind, x)) = reduce_of(s, id).filter(|(_, kind, _)| is_order_free(*kind)) else {
        return Outcome::No;
    };
    let Some(last) = s.dims(x).len().checked_sub(1).filter(|last| axes.contains(last)) else { return Outcome::No };
    let short = s.dims(x)[last].known().is_some_and(|n| (2..=SMALL_REDUCE).contains(&n));
    let rest: Vec<usize> = axes.iter().copied().filter(|a| *a != last).collect();
    let longer = known_product(rest.iter().map(|&a| &s.dims(x)[a])).is_none_or(|n| n > SMALL_REDUCE);
    let alone = |(user, _): &(NodeId, usize)| reduce_of(s, *user).is_some_and(|(a, ..)| a == [last]);
    if !short || !longer || !s.f.uses(x).iter().any(alone) {
        return Outcome::No;
    }
    found([], move |b| {
        let inner = b.reduce(x, vec![last], kind, false)?;
        b.reduce(inner, rest, kind, false)
    })
}

/// A reduction of all elements as one of rows, and one of its results: where what it reduces is computed from reductions
/// of such rows, all of them run in one kernel, and nothing is stored for it.
fn by_rows(s: &Scope<'_>, id: NodeId, exact: bool) -> Outcome {
    let Some((axes, kind, x)) = reduce_of(s, id) else { return Outcome::No };
    let fits = if exact { is_order_free(kind) } else { kind == ReduceKind::Sum };
    let dims = s.dims(x);
    if !fits || axes.len() != dims.len() || known_product(dims).is_some_and(|n| n <= SPLIT_ABOVE) {
        return Outcome::No;
    }
    let Some(inner) = rows_of(s, x) else { return Outcome::No };
    let outer = 0..dims.len() - inner.len();
    found([], move |b| {
        let rows = b.reduce(x, inner, kind, false)?;
        b.reduce(rows, outer.collect(), kind, false)
    })
}

/// The axes of the reductions that a value needs at its own places, each along a row: the first that are found.
fn rows_of(s: &Scope<'_>, x: Value) -> Option<Vec<usize>> {
    let dims = s.dims(x);
    let mut seen = HashSet::new();
    let mut open = VecDeque::from([x]);
    while let Some(value) = open.pop_front() {
        if !seen.insert(value) || seen.len() > NEAR {
            continue;
        }
        let node = s.node(value);
        match &node.op {
            Op::Broadcast { axes: places, .. } => {
                let Some(&row) = node.operands().first() else { continue };
                // Axes along which the operand repeats.
                let own = |a: usize| places.iter().position(|p| *p == a).and_then(|i| s.dims(row).get(i));
                let repeated: Vec<usize> =
                    (0..dims.len()).filter(|&a| own(a) != Some(&dims[a]) && dims[a] != Dim::ONE).collect();
                if !repeated.is_empty() && repeated.len() < dims.len() && needs_rows(s, row, dims, &repeated) {
                    return Some(repeated);
                }
            }
            op if op.class() == OpClass::Elementwise => open.extend(node.operands()),
            _ => {}
        }
    }
    None
}

/// Whether a value of rows is computed from a reduction of values of extents `dims` along some axes, extents of 1 aside.
fn needs_rows(s: &Scope<'_>, row: Value, dims: &[Dim], repeated: &[usize]) -> bool {
    let mut seen = HashSet::new();
    let mut open = vec![row];
    while let Some(value) = open.pop() {
        if !seen.insert(value) || seen.len() > NEAR {
            continue;
        }
        let node = s.node(value);
        match &node.op {
            Op::Reduce { axes, .. } => {
                let whole = node.operands().first().is_some_and(|v| s.dims(*v) == dims);
                let real = axes.iter().filter(|&&a| dims.get(a) != Some(&Dim::ONE));
                if whole && real.eq(repeated) {
                    return true;
                }
            }
            Op::Reshape { .. } => open.extend(node.operands()),
            op if op.class() == OpClass::Elementwise => open.extend(node.operands()),
            _ => {}
        }
    }
    false
}

fn is_order_free(kind: ReduceKind) -> bool {
    matches!(kind, ReduceKind::Min | ReduceKind::Max)
}

fn is_index(kind: ReduceKind) -> bool {
    matches!(kind, ReduceKind::ArgMin | ReduceKind::ArgMax)
}

fn reduce_nothing(s: &Scope<'_>, id: NodeId) -> Outcome {
    match reduce_of(s, id) {
        Some(([], kind, x)) if !is_index(kind) => found([], move |_| Ok(x)),
        Some(_) | None => Outcome::No,
    }
}

fn reduce_of_one(s: &Scope<'_>, id: NodeId, exact: bool) -> Outcome {
    let (Some((axes, kind, x)), Some(ty)) = (reduce_of(s, id), s.result(id)) else { return Outcome::No };
    let ones = !axes.is_empty() && axes.iter().all(|&a| s.dims(x).get(a) == Some(&Dim::ONE));
    if !ones || is_index(kind) {
        return Outcome::No;
    }
    // The sum starts from 0, which makes 0 of -0.
    let changes = kind == ReduceKind::Sum && ty.dtype.is_float();
    if changes == exact {
        return Outcome::No;
    }
    let dims = ty.dims.clone();
    found([], move |b| b.reshape(x, dims))
}

fn reduce_all_of_reshape(s: &Scope<'_>, id: NodeId) -> Outcome {
    let Some((axes, kind, view)) = reduce_of(s, id) else { return Outcome::No };
    let (Op::Reshape { .. }, Some(x)) = (&s.node(view).op, s.operand(view.node, 0)) else { return Outcome::No };
    if axes.len() != s.dims(view).len() || is_index(kind) {
        return Outcome::No;
    }
    let rank = s.dims(x).len();
    if rank == 0 {
        return Outcome::No;
    }
    found([view], move |b| b.reduce(x, (0..rank).collect(), kind, false))
}

fn reduce_of_reshape(s: &Scope<'_>, id: NodeId) -> Outcome {
    let (Some((axes, kind, view)), Some(ty)) = (reduce_of(s, id), s.result(id)) else { return Outcome::No };
    let (Op::Reshape { .. }, Some(x)) = (&s.node(view).op, s.operand(view.node, 0)) else { return Outcome::No };
    let map = kept_axes(s.dims(view), s.dims(x));
    // Reduced extents of 1 that x lacks may go while another stays: a sum of them starts from 0 all the same.
    let mut own = Vec::with_capacity(axes.len());
    for &axis in axes {
        match map.get(axis) {
            Some(Kept::At(a)) => own.push(*a),
            Some(Kept::Unit) => {}
            Some(Kept::No) | None => return Outcome::Near("the reshape cuts or joins a reduced axis"),
        }
    }
    if own.is_empty() || (is_index(kind) && own.len() != axes.len()) {
        return Outcome::No;
    }
    let dims = ty.dims.clone();
    found([view], move |b| {
        let reduced = b.reduce(x, own, kind, false)?;
        b.reshape(reduced, dims)
    })
}

fn reduce_of_transpose(s: &Scope<'_>, id: NodeId) -> Outcome {
    let Some((axes, kind, view)) = reduce_of(s, id) else { return Outcome::No };
    let (Op::Transpose { perm }, Some(x)) = (&s.node(view).op, s.operand(view.node, 0)) else { return Outcome::No };
    let kept: Vec<usize> = (0..perm.len()).filter(|i| !axes.contains(i)).filter_map(|i| perm.get(i).copied()).collect();
    if kept.windows(2).any(|w| w[0] > w[1]) || axes.is_empty() {
        return Outcome::No;
    }
    let listed: Vec<usize> = axes.iter().filter_map(|&a| perm.get(a).copied()).collect();
    let ordered = listed.windows(2).all(|w| w[0] < w[1]);
    // In their order the elements of a sum keep theirs.
    if !ordered && !is_order_free(kind) {
        return Outcome::Near("the elements would be summed in another order");
    }
    let mut own = listed;
    own.sort_unstable();
    found([view], move |b| b.reduce(x, own, kind, false))
}

fn reduce_of_reduce(s: &Scope<'_>, id: NodeId, exact: bool) -> Outcome {
    let Some((outer, kind, inner)) = reduce_of(s, id) else { return Outcome::No };
    let Some((axes, same, x)) = reduce_of(s, inner.node) else { return Outcome::No };
    if kind != same || is_index(kind) || axes.is_empty() || outer.is_empty() {
        return Outcome::No;
    }
    let integers = s.result(id).is_some_and(|t| !t.dtype.is_float());
    if (is_order_free(kind) || integers) != exact {
        return Outcome::No;
    }
    if !s.single_use(inner) {
        return Outcome::Near("the inner result is used elsewhere too");
    }
    let kept: Vec<usize> = (0..s.dims(x).len()).filter(|i| !axes.contains(i)).collect();
    let mut all = axes.to_vec();
    all.extend(outer.iter().filter_map(|&a| kept.get(a).copied()));
    all.sort_unstable();
    found([inner], move |b| b.reduce(x, all, kind, false))
}

fn reduce_of_broadcast(s: &Scope<'_>, id: NodeId, exact: bool) -> Outcome {
    let (Some((axes, kind, view)), Some(ty)) = (reduce_of(s, id), s.result(id)) else { return Outcome::No };
    let (Op::Broadcast { dims, axes: places }, Some(x)) = (&s.node(view).op, s.operand(view.node, 0)) else {
        return Outcome::No;
    };
    let wanted = if exact { is_order_free(kind) } else { kind == ReduceKind::Sum };
    if !wanted || axes.is_empty() || axes.iter().any(|a| places.contains(a)) {
        return Outcome::No;
    }
    let Some(count) = known_product(axes.iter().filter_map(|&a| dims.get(a))) else {
        return Outcome::Near("the repeated extent is not known");
    };
    if count < 1 || (ty.dtype.is_int() && count > 1 << 53) {
        return Outcome::Near("the repeated extent is empty or too large");
    }
    // Axes of the result that are left of each kept one.
    let shifted = |axis: usize| axis - axes.iter().filter(|&&a| a < axis).count();
    let op = Op::Broadcast { dims: ty.dims.clone(), axes: places.iter().map(|&p| shifted(p)).collect() };
    let dtype: DType = ty.dtype;
    found([view], move |b| {
        let value = b.op(op, &[x])?;
        if exact {
            return Ok(value);
        }
        let n = b.scalar(dtype, count as f64)?;
        b.binary(BinaryOp::Mul, value, n)
    })
}

fn reduce_before_broadcast(s: &Scope<'_>, id: NodeId) -> Outcome {
    let (Some((axes, kind, view)), Some(ty)) = (reduce_of(s, id), s.result(id)) else { return Outcome::No };
    let (Op::Broadcast { dims, axes: places }, Some(x)) = (&s.node(view).op, s.operand(view.node, 0)) else {
        return Outcome::No;
    };
    // Where the operand's own extent is 1 it repeats there.
    let own = |axis: &usize| places.iter().position(|p| p == axis).filter(|&i| s.dims(x).get(i) == dims.get(*axis));
    let Some(inner) = axes.iter().map(own).collect::<Option<Vec<usize>>>() else { return Outcome::No };
    if axes.is_empty() || s.dims(x).len() == axes.len() && ty.dims.is_empty() {
        return Outcome::No;
    }
    let shifted = |axis: usize| axis - axes.iter().filter(|&&a| a < axis).count();
    let kept = places.iter().enumerate().filter(|(i, _)| !inner.contains(i));
    let op = Op::Broadcast { dims: ty.dims.clone(), axes: kept.map(|(_, &p)| shifted(p)).collect() };
    found([view], move |b| {
        let reduced = b.reduce(x, inner, kind, false)?;
        b.op(op, &[reduced])
    })
}
