//! Views that cancel, merge or do nothing. All are exact: elements move, none changes.
//!
//! Canonical direction: extents of 1 are absorbed by broadcasts, transposes that move only them become reshapes, and a
//! view over an elementwise op moves towards the inputs where it cancels there.

use frit_ir::builder::Builder;
use frit_ir::types::{DType, Dim, TensorType};
use frit_ir::{NodeId, Op, Tensor, UnaryOp, Value};

use super::scope::unit_map;
use super::{Outcome, Rule, Scope, found};
use crate::fuse::keeps_order;

/// An input of an example.
pub(super) fn input(b: &mut Builder<'_>, dims: &[usize]) -> Value {
    let name = format!("x{}", b.function.inputs().len());
    b.function.add_input(&name, TensorType::known(DType::F32, dims))
}

/// Known extents.
pub(super) fn known(dims: &[usize]) -> Vec<Dim> {
    dims.iter().map(|&d| Dim::from(d)).collect()
}

pub(super) static RULES: &[Rule] = &[
    rule!("reshape-identity", "reshape(x) = x", "same extents", Strict Algebra Bits, identity, |b| {
        let x = input(b, &[2, 3]);
        let y = b.op(Op::Reshape { dims: known(&[2, 3]) }, &[x])?;
        Ok(vec![b.unary(UnaryOp::Abs, y)?])
    }),
    rule!("reshape-of-reshape", "reshape(reshape(x)) = reshape(x)", "always", Strict Algebra Bits,
        reshape_of_reshape, |b| {
        let x = input(b, &[2, 3]);
        let y = b.reshape(x, known(&[6]))?;
        Ok(vec![b.reshape(y, known(&[3, 2]))?])
    }),
    rule!("transpose-identity", "transpose(x) = x", "the permutation is the identity", Strict Algebra Bits, identity, |b| {
        let x = input(b, &[2, 3]);
        let y = b.op(Op::Transpose { perm: vec![0, 1] }, &[x])?;
        Ok(vec![b.unary(UnaryOp::Abs, y)?])
    }),
    rule!("transpose-of-transpose", "transpose(transpose(x, p), q) = transpose(x, p[q])", "always", Strict Algebra Bits,
        transpose_of_transpose, |b| {
        let x = input(b, &[2, 3, 4]);
        let y = b.transpose(x, vec![1, 2, 0])?;
        Ok(vec![b.transpose(y, vec![0, 2, 1])?])
    }),
    rule!("transpose-of-ones", "transpose(x) = reshape(x)", "only extents of 1 change places", Strict Algebra Bits,
        transpose_of_ones, |b| {
        let x = input(b, &[2, 1, 3]);
        Ok(vec![b.transpose(x, vec![1, 0, 2])?])
    }),
    rule!("broadcast-of-broadcast", "broadcast(broadcast(x)) = broadcast(x)", "always", Strict Algebra Bits,
        broadcast_of_broadcast, |b| {
        let x = input(b, &[3, 1]);
        let y = b.op(Op::Broadcast { dims: known(&[3, 4]), axes: vec![0, 1] }, &[x])?;
        Ok(vec![b.op(Op::Broadcast { dims: known(&[3, 2, 4]), axes: vec![0, 2] }, &[y])?])
    }),
    rule!("broadcast-as-reshape", "broadcast(x) = reshape(x)", "nothing is repeated", Strict Algebra Bits,
        broadcast_as_reshape, |b| {
        let x = input(b, &[3, 4]);
        Ok(vec![b.op(Op::Broadcast { dims: known(&[3, 1, 4]), axes: vec![0, 2] }, &[x])?])
    }),
    rule!("broadcast-of-reshape", "broadcast(reshape(x)) = broadcast(x)",
        "the reshape adds or removes extents of 1, and those of x find axes", Strict Algebra Bits,
        broadcast_of_reshape, |b| {
        let x = input(b, &[3, 4]);
        let y = b.reshape(x, known(&[3, 4, 1]))?;
        Ok(vec![b.op(Op::Broadcast { dims: known(&[3, 4, 6]), axes: vec![0, 1, 2] }, &[y])?])
    }),
    rule!("reshape-of-broadcast", "reshape(broadcast(x)) = broadcast(x)", "the reshape adds or removes extents of 1",
        Strict Algebra Bits, reshape_of_broadcast, |b| {
        let x = input(b, &[4]);
        let y = b.broadcast_to(x, known(&[3, 4]))?;
        Ok(vec![b.reshape(y, known(&[3, 1, 4]))?])
    }),
    rule!("slice-all", "slice(x) = x", "it takes every element in order", Strict Algebra Bits, identity, |b| {
        let x = input(b, &[2, 3]);
        let all = Op::Slice { starts: known(&[0, 0]), sizes: known(&[2, 3]), steps: vec![1, 1] };
        let y = b.op(all, &[x])?;
        Ok(vec![b.unary(UnaryOp::Abs, y)?])
    }),
    rule!("slice-of-slice", "slice(slice(x)) = slice(x)", "always", Strict Algebra Bits, slice_of_slice, |b| {
        let x = input(b, &[10]);
        let y = b.op(Op::Slice { starts: known(&[8]), sizes: known(&[4]), steps: vec![-2] }, &[x])?;
        Ok(vec![b.op(Op::Slice { starts: known(&[1]), sizes: known(&[2]), steps: vec![2] }, &[y])?])
    }),
    rule!("concat-of-one", "concat(x) = x", "one operand, or the others are empty", Strict Algebra Bits, concat_of_one, |b| {
        let (x, y) = (input(b, &[2, 3]), input(b, &[2, 0]));
        let joined = b.op(Op::Concat { axis: 1 }, &[x, y])?;
        Ok(vec![b.unary(UnaryOp::Abs, joined)?])
    }),
    rule!("pad-nothing", "pad(x, v) = x", "no padding", Strict Algebra Bits, identity, |b| {
        let x = input(b, &[2]);
        let zero = b.scalar(DType::F32, 0.0)?;
        let y = b.op(Op::Pad { low: known(&[0]), high: known(&[0]) }, &[x, zero])?;
        Ok(vec![b.unary(UnaryOp::Abs, y)?])
    }),
    rule!("gather-run", "gather(x, i) = slice(x)", "constant indices inside x with one step between them",
        Strict Algebra Bits, gather_run, |b| {
        let x = input(b, &[2, 5]);
        let i = b.constant(Tensor::i64(&[2], &[3, 1]).map_err(|e| TypeErrorOf(e.to_string()).into_error())?)?;
        Ok(vec![b.op(Op::Gather { axis: 1 }, &[x, i])?])
    }),
    rule!("view-up", "view(u(view'(x))) = u(view(view'(x)))", "u is elementwise of one operand and used once",
        Strict Algebra Bits, view_up, |b| {
        let x = input(b, &[2, 3]);
        let y = b.transpose(x, vec![1, 0])?;
        let z = b.unary(UnaryOp::Abs, y)?;
        Ok(vec![b.transpose(z, vec![1, 0])?])
    }),
];

/// A message as the error that examples give.
pub(super) struct TypeErrorOf(pub(super) String);

impl TypeErrorOf {
    pub(super) fn into_error(self) -> frit_ir::op::infer::TypeError {
        frit_ir::op::infer::TypeError { op: "constant", message: self.0 }
    }
}

/// Ops that change nothing; one function serves the rows that share it.
fn identity(s: &Scope<'_>, id: NodeId) -> Outcome {
    let node = s.f.node(id);
    let Some(x) = s.operand(id, 0) else { return Outcome::No };
    let same_type = s.ty(x) == s.result(id) && s.ty(x).is_some();
    let applies = match &node.op {
        Op::Reshape { .. } => same_type,
        Op::Transpose { perm } => perm.iter().copied().eq(0..perm.len()),
        Op::Pad { low, high } => low.iter().chain(high).all(|p| *p == Dim::ZERO),
        Op::Slice { starts, steps, .. } => {
            same_type && starts.iter().all(|d| *d == Dim::ZERO) && steps.iter().all(|&step| step == 1)
        }
        _ => false,
    };
    if applies { found([], move |_| Ok(x)) } else { Outcome::No }
}

fn reshape_of_reshape(s: &Scope<'_>, id: NodeId) -> Outcome {
    let (Op::Reshape { dims }, Some(inner)) = (&s.f.node(id).op, s.operand(id, 0)) else { return Outcome::No };
    let (Op::Reshape { .. }, Some(x)) = (&s.node(inner).op, s.operand(inner.node, 0)) else { return Outcome::No };
    let dims = dims.clone();
    found([inner], move |b| b.reshape(x, dims))
}

fn transpose_of_transpose(s: &Scope<'_>, id: NodeId) -> Outcome {
    let (Op::Transpose { perm: outer }, Some(inner)) = (&s.f.node(id).op, s.operand(id, 0)) else { return Outcome::No };
    let (Op::Transpose { perm }, Some(x)) = (&s.node(inner).op, s.operand(inner.node, 0)) else { return Outcome::No };
    let perm: Vec<usize> = outer.iter().filter_map(|&o| perm.get(o).copied()).collect();
    found([inner], move |b| b.transpose(x, perm))
}

fn transpose_of_ones(s: &Scope<'_>, id: NodeId) -> Outcome {
    let (Op::Transpose { perm }, Some(x)) = (&s.f.node(id).op, s.operand(id, 0)) else { return Outcome::No };
    let Some(ty) = s.result(id) else { return Outcome::No };
    if !keeps_order(s.dims(x), perm) {
        return Outcome::No;
    }
    let dims = ty.dims.clone();
    found([], move |b| b.reshape(x, dims))
}

fn broadcast_of_broadcast(s: &Scope<'_>, id: NodeId) -> Outcome {
    let (Op::Broadcast { dims, axes: outer }, Some(inner)) = (&s.f.node(id).op, s.operand(id, 0)) else {
        return Outcome::No;
    };
    let (Op::Broadcast { axes, .. }, Some(x)) = (&s.node(inner).op, s.operand(inner.node, 0)) else {
        return Outcome::No;
    };
    let axes: Vec<usize> = axes.iter().filter_map(|&a| outer.get(a).copied()).collect();
    let dims = dims.clone();
    found([inner], move |b| b.op(Op::Broadcast { dims, axes }, &[x]))
}

fn broadcast_as_reshape(s: &Scope<'_>, id: NodeId) -> Outcome {
    let (Op::Broadcast { dims, .. }, Some(x)) = (&s.f.node(id).op, s.operand(id, 0)) else { return Outcome::No };
    // Equal extents but for ones, in the same order: then every axis is mapped to its own.
    let Some(from) = s.ty(x) else { return Outcome::No };
    if unit_map(&from.dims, dims).is_none() || from.numel() != Dim::product(dims) {
        return Outcome::No;
    }
    let dims = dims.clone();
    found([], move |b| b.reshape(x, dims))
}

fn broadcast_of_reshape(s: &Scope<'_>, id: NodeId) -> Outcome {
    let (Op::Broadcast { dims, axes }, Some(view)) = (&s.f.node(id).op, s.operand(id, 0)) else { return Outcome::No };
    let (Op::Reshape { .. }, Some(x)) = (&s.node(view).op, s.operand(view.node, 0)) else { return Outcome::No };
    let Some(map) = unit_map(s.dims(x), s.dims(view)) else { return Outcome::No };
    let wanted: Vec<Option<usize>> = map.into_iter().map(|m| m.and_then(|i| axes.get(i).copied())).collect();
    let Some(axes) = place_units(&wanted, dims.len()) else {
        return Outcome::Near("an extent of 1 finds no axis");
    };
    let dims = dims.clone();
    found([view], move |b| b.op(Op::Broadcast { dims, axes }, &[x]))
}

/// Ascending axes below `rank` where the given ones stay and the others take any place between their neighbours.
fn place_units(wanted: &[Option<usize>], rank: usize) -> Option<Vec<usize>> {
    let mut axes = Vec::with_capacity(wanted.len());
    let mut next = 0;
    for axis in wanted {
        let at = axis.unwrap_or(next);
        if at < next || at >= rank {
            return None;
        }
        axes.push(at);
        next = at + 1;
    }
    Some(axes)
}

fn reshape_of_broadcast(s: &Scope<'_>, id: NodeId) -> Outcome {
    let (Op::Reshape { dims }, Some(inner)) = (&s.f.node(id).op, s.operand(id, 0)) else { return Outcome::No };
    let (Op::Broadcast { dims: middle, axes }, Some(x)) = (&s.node(inner).op, s.operand(inner.node, 0)) else {
        return Outcome::No;
    };
    let Some(map) = unit_map(middle, dims) else { return Outcome::No };
    let wanted: Vec<Option<usize>> = axes.iter().map(|&a| map.get(a).copied().flatten()).collect();
    // An operand axis on a middle extent of 1 is itself 1, and may stand anywhere.
    let Some(axes) = place_units(&wanted, dims.len()) else {
        return Outcome::Near("an extent of 1 finds no axis");
    };
    let dims = dims.clone();
    found([inner], move |b| b.op(Op::Broadcast { dims, axes }, &[x]))
}

fn slice_of_slice(s: &Scope<'_>, id: NodeId) -> Outcome {
    let (Op::Slice { starts, sizes, steps }, Some(inner)) = (&s.f.node(id).op, s.operand(id, 0)) else {
        return Outcome::No;
    };
    let (Op::Slice { starts: first, steps: by, .. }, Some(x)) = (&s.node(inner).op, s.operand(inner.node, 0)) else {
        return Outcome::No;
    };
    let mut product = Vec::with_capacity(steps.len());
    for (a, b) in steps.iter().zip(by) {
        let Some(step) = a.checked_mul(*b) else { return Outcome::Near("the step overflows") };
        product.push(step);
    }
    let starts: Vec<Dim> = first.iter().zip(by).zip(starts).map(|((f, &b), s)| f + &(&Dim::Known(b) * s)).collect();
    let op = Op::Slice { starts, sizes: sizes.clone(), steps: product };
    found([inner], move |b| b.op(op, &[x]))
}

fn concat_of_one(s: &Scope<'_>, id: NodeId) -> Outcome {
    let node = s.f.node(id);
    let Op::Concat { axis } = node.op else { return Outcome::No };
    let kept: Vec<Value> =
        node.operands().iter().copied().filter(|v| s.dims(*v).get(axis) != Some(&Dim::ZERO)).collect();
    match kept.as_slice() {
        [x] if s.ty(*x) == s.result(id) => {
            let x = *x;
            found([], move |_| Ok(x))
        }
        [_, _, ..] if kept.len() < node.operands().len() => found([], move |b| b.op(Op::Concat { axis }, &kept)),
        _ => Outcome::No,
    }
}

fn gather_run(s: &Scope<'_>, id: NodeId) -> Outcome {
    let (Op::Gather { axis }, Some(x), Some(i)) = (&s.f.node(id).op, s.operand(id, 0), s.operand(id, 1)) else {
        return Outcome::No;
    };
    let axis = *axis;
    let (Some(indices), Some(ty)) = (s.constant(i), s.result(id)) else { return Outcome::No };
    let Some(values) = indices.to_i64s() else { return Outcome::No };
    let Some((&first, rest)) = values.split_first() else { return Outcome::No };
    let step = rest.first().map_or(1, |second| second.wrapping_sub(first));
    if step == 0 || values.windows(2).any(|w| w[1].wrapping_sub(w[0]) != step) {
        return Outcome::Near("the indices are not a run");
    }
    let inside = s.dims(x).get(axis).and_then(Dim::known).is_some_and(|n| values.iter().all(|v| (0..n).contains(v)));
    if !inside {
        return Outcome::Near("the indices are not known to be inside");
    }
    let mut sizes = s.dims(x).to_vec();
    let (mut starts, mut steps) = (vec![Dim::ZERO; sizes.len()], vec![1; sizes.len()]);
    (starts[axis], sizes[axis], steps[axis]) = (Dim::Known(first), Dim::from(values.len()), step);
    let dims = ty.dims.clone();
    found([i], move |b| {
        let run = b.op(Op::Slice { starts, sizes, steps }, &[x])?;
        b.reshape(run, dims)
    })
}

fn view_up(s: &Scope<'_>, id: NodeId) -> Outcome {
    let Some(middle) = s.operand(id, 0) else { return Outcome::No };
    let elementwise = s.node(middle);
    let (Op::Unary(_) | Op::Cast { .. } | Op::Bitcast { .. }, Some(view)) =
        (&elementwise.op, s.operand(middle.node, 0))
    else {
        return Outcome::No;
    };
    let outer = &s.f.node(id).op;
    let pair = matches!(
        (outer, &s.node(view).op),
        (Op::Reshape { .. }, Op::Reshape { .. }) | (Op::Transpose { .. }, Op::Transpose { .. })
    );
    if !pair {
        return Outcome::No;
    }
    if !s.single_use(middle) {
        return Outcome::Near("the op between is used elsewhere too");
    }
    let (outer, op) = (outer.clone(), elementwise.op.clone());
    found([middle], move |b| {
        let moved = b.op(outer, &[view])?;
        b.op(op, &[moved])
    })
}
