//! Views leave elementwise work: a broadcast, so that there is less of it; a reshape, so that what it parted meets again.

use frit_ir::op::BinaryOp;
use frit_ir::types::Dim;
use frit_ir::{NodeId, Op, OpClass, UnaryOp, Value};

use super::movement::{input, known};
use super::scope::{Kept, kept_axes};
use super::{Outcome, Rule, Scope, found};

pub(super) static RULES: &[Rule] = &[
    rule!("hoist-over-broadcast", "op(broadcast(x), ..) = broadcast(op(x, ..))",
        "every operand is a broadcast, and one holds all the axes of the others", Strict Algebra Bits, hoist, |b| {
        let (x, y) = (input(b, &[4]), input(b, &[4]));
        let (p, q) = (b.broadcast_to(x, known(&[3, 4]))?, b.broadcast_to(y, known(&[3, 4]))?);
        let p = b.unary(UnaryOp::Abs, p)?;
        Ok(vec![b.binary(BinaryOp::Sub, p, q)?])
    }),
    rule!("reshape-after-op", "op(reshape(x), broadcast(y), ..) = reshape(op(x, broadcast(y), ..))",
        "every operand is a reshape of one shape, or repeats and varies along axes that the reshape keeps", Strict Algebra Bits,
        reshape_after_op, |b| {
        let (x, y) = (input(b, &[3, 4, 5]), input(b, &[5]));
        let (x, y) = (b.reshape(x, known(&[12, 1, 5]))?, b.broadcast_to(y, known(&[12, 1, 5]))?);
        Ok(vec![b.binary(BinaryOp::Mul, x, y)?])
    }),
];

/// A broadcast operand: what it repeats and where its axes go.
struct Repeated {
    x: Value,
    axes: Vec<usize>,
}

fn hoist(s: &Scope<'_>, id: NodeId) -> Outcome {
    let node = s.f.node(id);
    if node.op.class() != OpClass::Elementwise {
        return Outcome::No;
    }
    let Some(ty) = s.result(id) else { return Outcome::No };
    let mut parts: Vec<Repeated> = Vec::new();
    for &operand in node.operands() {
        let (Op::Broadcast { axes, .. }, Some(x)) = (&s.node(operand).op, s.operand(operand.node, 0)) else {
            return Outcome::No;
        };
        parts.push(Repeated { x, axes: axes.clone() });
    }
    // The operand with most axes that grows says the smaller shape.
    let Some(widest) = parts.iter().max_by_key(|p| p.axes.len()) else { return Outcome::No };
    let (axes, small) = (widest.axes.clone(), s.dims(widest.x).to_vec());
    let pinned = |i: usize, d: &Dim| axes.get(i).and_then(|&a| ty.dims.get(a)) == Some(d) || *d == Dim::ONE;
    if !small.iter().enumerate().all(|(i, d)| pinned(i, d)) || Dim::product(&small) == ty.numel() {
        return Outcome::No;
    }
    let mut places = Vec::with_capacity(parts.len());
    for part in &parts {
        let mut place = Vec::with_capacity(part.axes.len());
        for (axis, d) in part.axes.iter().zip(s.dims(part.x)) {
            match axes.iter().position(|a| a == axis) {
                Some(i) if small.get(i) == Some(d) || *d == Dim::ONE => place.push(i),
                // Known extents of 1 on other axes would need a reshape first: left to the reshape rules.
                Some(_) | None => return Outcome::Near("the operands repeat along different axes"),
            }
        }
        places.push(place);
    }
    let (op, dims) = (node.op.clone(), ty.dims.clone());
    let used: Vec<Value> = node.operands().to_vec();
    found(used, move |b| {
        let mut operands = Vec::with_capacity(parts.len());
        for (part, place) in parts.iter().zip(places) {
            let whole = place.iter().copied().eq(0..small.len()) && b.dims(part.x)? == small;
            operands.push(if whole {
                part.x
            } else {
                b.op(Op::Broadcast { dims: small.clone(), axes: place }, &[part.x])?
            });
        }
        let result = b.op(op, &operands)?;
        b.op(Op::Broadcast { dims, axes }, &[result])
    })
}

fn reshape_after_op(s: &Scope<'_>, id: NodeId) -> Outcome {
    let node = s.f.node(id);
    if node.op.class() != OpClass::Elementwise {
        return Outcome::No;
    }
    let Some(ty) = s.result(id) else { return Outcome::No };
    let source = |v: Value| match (&s.node(v).op, s.operand(v.node, 0)) {
        (Op::Reshape { .. }, Some(x)) => Some(x),
        _ => None,
    };
    let Some(from) = node.operands().iter().find_map(|v| source(*v)).map(|x| s.dims(x).to_vec()) else {
        return Outcome::No;
    };
    let map = kept_axes(&ty.dims, &from);
    // Operands over the shape before the reshape: itself, or a broadcast of a value with some extents of 1 taken out.
    enum Before {
        Plain(Value),
        Repeated { value: Value, dims: Vec<Dim>, axes: Vec<usize> },
    }
    let mut operands = Vec::with_capacity(node.operands().len());
    for &operand in node.operands() {
        if let Some(x) = source(operand) {
            if s.dims(x) != from {
                return Outcome::Near("the operands are reshaped from different shapes");
            }
            operands.push(Before::Plain(x));
            continue;
        }
        let (Op::Broadcast { axes: places, .. }, Some(value)) = (&s.node(operand).op, s.operand(operand.node, 0))
        else {
            return Outcome::No;
        };
        let (mut dims, mut axes) = (Vec::new(), Vec::new());
        for (place, d) in places.iter().zip(s.dims(value)) {
            match map.get(*place) {
                _ if *d == Dim::ONE => {}
                Some(Kept::At(a)) => {
                    dims.push(d.clone());
                    axes.push(*a);
                }
                Some(Kept::Unit | Kept::No) | None => {
                    return Outcome::Near("an operand varies along an axis that the reshape cuts or joins");
                }
            }
        }
        operands.push(Before::Repeated { value, dims, axes });
    }
    let (op, dims) = (node.op.clone(), ty.dims.clone());
    let used: Vec<Value> = node.operands().to_vec();
    found(used, move |b| {
        let mut values = Vec::with_capacity(operands.len());
        for operand in operands {
            values.push(match operand {
                Before::Plain(x) => x,
                Before::Repeated { value, dims, axes } => {
                    let value = b.reshape(value, dims)?;
                    b.op(Op::Broadcast { dims: from.clone(), axes }, &[value])?
                }
            });
        }
        let result = b.op(op, &values)?;
        b.reshape(result, dims)
    })
}
