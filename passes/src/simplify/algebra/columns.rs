//! Sums over all but a few elements: each is a sum of its own.
//!
//! The gradient of a basis' parameter sums over batch and inputs and keeps one number for each of the few bases. What is
//! summed is computed on the fly, and vectors run along the inputs: as so many reductions to one element all of them run
//! in one loop, with an accumulator each. Along the few kept elements no vector would be full.

use frit_ir::types::Dim;
use frit_ir::{DType, Function, NodeId, Op, OpClass, ReduceKind, Value};

use super::movement::{input, known};
use super::reduction::reduce_of;
use super::scope::known_product;
use super::{Outcome, Rule, Scope, found};
use crate::fuse::SMALL_REDUCE;

pub(super) static RULES: &[Rule] = &[rule!("reduce-few-kept", "sum(x, a) = concat(sum(x[.., 0]), sum(x[.., 1]), ..)",
    "at most 16 elements are kept, of 256 or more each, and nothing that large lies in memory along the kept axes",
    Strict Strength Bits, apart, |b| {
    let (x, w) = (input(b, &[90, 60]), input(b, &[3]));
    let x = b.op(Op::Broadcast { dims: known(&[90, 60, 3]), axes: vec![0, 1] }, &[x])?;
    let y = b.binary(frit_ir::BinaryOp::Sub, x, w)?;
    let square = b.binary(frit_ir::BinaryOp::Mul, y, y)?;
    Ok(vec![b.reduce(square, vec![0, 1], ReduceKind::Sum, false)?])
})];

/// Ops that are looked at.
const NEAR: usize = 256;
/// Fewest elements that are worth a loop of their own.
const LEAST: i64 = 256;

fn apart(s: &Scope<'_>, id: NodeId) -> Outcome {
    let (Some((axes, kind, x)), Some(ty)) = (reduce_of(s, id), s.result(id)) else { return Outcome::No };
    let dims = s.dims(x);
    let kept: Vec<usize> = (0..dims.len()).filter(|a| !axes.contains(a) && dims[*a] != Dim::ONE).collect();
    let plain = matches!(kind, ReduceKind::Sum | ReduceKind::Min | ReduceKind::Max);
    if !plain || axes.is_empty() || kept.is_empty() || ty.dtype == DType::Bool {
        return Outcome::No;
    }
    let Some(count) = known_product(kept.iter().map(|&a| &dims[a])) else { return Outcome::No };
    let many = known_product(axes.iter().map(|&a| &dims[a])).is_none_or(|n| n >= LEAST);
    if !(2..=SMALL_REDUCE).contains(&count) || !many {
        return Outcome::No;
    }
    if !is_computed(s.f, x, &kept) {
        return Outcome::Near("what is reduced lies in memory");
    }
    let (dims, result) = (dims.to_vec(), ty.dims.clone());
    found([], move |b| {
        let mut parts = Vec::new();
        for place in 0..count {
            let (mut starts, mut sizes) = (vec![Dim::ZERO; dims.len()], dims.clone());
            let mut rest = place;
            for &axis in kept.iter().rev() {
                let extent = dims[axis].known().unwrap_or(1);
                starts[axis] = Dim::Known(rest % extent);
                sizes[axis] = Dim::ONE;
                rest /= extent;
            }
            let one = b.op(Op::Slice { starts, sizes, steps: vec![1; dims.len()] }, &[x])?;
            let sum = b.reduce(one, (0..dims.len()).collect(), kind, false)?;
            parts.push(b.reshape(sum, vec![Dim::ONE])?);
        }
        let all = b.op(Op::Concat { axis: 0 }, &parts)?;
        b.reshape(all, result)
    })
}

/// Whether a value is computed from smaller ones: no tensor of [`LEAST`] elements or more that holds a kept axis
/// is read for it.
pub(crate) fn is_computed(f: &Function, x: Value, kept: &[usize]) -> bool {
    let dims = |value: Value| f.ty(value).tensor().map_or(&[][..], |t| &t.dims);
    let mut open = vec![(x, kept.to_vec())];
    let mut seen: Vec<Value> = Vec::new();
    while let Some((value, axes)) = open.pop() {
        let large = known_product(dims(value)).is_none_or(|n| n >= LEAST);
        if axes.is_empty() || !large || seen.contains(&value) {
            continue;
        }
        seen.push(value);
        if seen.len() > NEAR {
            return false;
        }
        let node = f.node(value.node);
        match &node.op {
            Op::Broadcast { axes: places, .. } => {
                let Some(&from) = node.operands().first() else { return false };
                let real = |(i, place): (usize, &usize)| axes.contains(place) && dims(from)[i] != Dim::ONE;
                let inner = places.iter().enumerate().filter(|p| real(*p)).map(|(i, _)| i).collect();
                open.push((from, inner));
            }
            op if op.class() == OpClass::Elementwise => open.extend(node.operands().iter().map(|v| (*v, axes.clone()))),
            Op::Constant { .. } => {}
            _ => return false,
        }
    }
    true
}
