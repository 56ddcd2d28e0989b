//! Products that are better not called products.
//!
//! Canonical: the order in which a library sums a product is its own, so which products are sums is decided from shapes
//! alone and at every level.

use frit_ir::op::BinaryOp;
use frit_ir::types::Dim;
use frit_ir::{NodeId, Op, ReduceKind, Value};

use super::movement::input;
use super::scope::known_product;
use super::{Outcome, Rule, Scope, found};

/// Longest contraction that becomes a sum of products.
const SHORT: i64 = 16;

pub(super) static RULES: &[Rule] = &[
    rule!("dot-of-transpose", "dot_general(x, transpose(y)) = dot_general(x, y)", "the free axes keep their order",
        Strict Canonical Rounding, dot_of_transpose, |b| {
        let (x, w) = (input(b, &[5, 40]), input(b, &[6, 40]));
        let w = b.transpose(w, vec![1, 0])?;
        Ok(vec![b.op(dot(1, 0, frit_ir::DType::F32), &[x, w])?])
    }),
    rule!("dot-short", "dot_general(x, w) = sum(x w)",
        "at most 16 contracted elements and one side without free elements, or nothing contracted",
        Strict Canonical Rounding, dot_short, |b| {
        let (x, w) = (input(b, &[4, 5, 6]), input(b, &[6, 1]));
        Ok(vec![b.op(dot(2, 0, frit_ir::DType::F32), &[x, w])?])
    }),
];

fn dot(lhs: usize, rhs: usize, accumulate: frit_ir::DType) -> Op {
    Op::DotGeneral {
        lhs_batch: vec![],
        rhs_batch: vec![],
        lhs_contract: vec![lhs],
        rhs_contract: vec![rhs],
        accumulate,
    }
}

fn free_axes(rank: usize, batch: &[usize], contract: &[usize]) -> Vec<usize> {
    (0..rank).filter(|i| !batch.contains(i) && !contract.contains(i)).collect()
}

fn dot_of_transpose(s: &Scope<'_>, id: NodeId) -> Outcome {
    let node = s.f.node(id);
    let (Op::DotGeneral { lhs_batch, rhs_batch, lhs_contract, rhs_contract, accumulate }, [lhs, rhs]) =
        (&node.op, node.operands())
    else {
        return Outcome::No;
    };
    let mut sides = [(*lhs, lhs_batch.clone(), lhs_contract.clone()), (*rhs, rhs_batch.clone(), rhs_contract.clone())];
    let mut used = Vec::new();
    let mut near = None;
    for (value, batch, contract) in &mut sides {
        let (Op::Transpose { perm }, Some(x)) = (&s.node(*value).op, s.operand(value.node, 0)) else { continue };
        let through = |axes: &[usize]| -> Vec<usize> { axes.iter().filter_map(|&a| perm.get(a).copied()).collect() };
        let free = through(&free_axes(perm.len(), batch, contract));
        if free.windows(2).any(|w| w[0] > w[1]) {
            near = Some("the free axes change their order");
            continue;
        }
        used.push(*value);
        (*batch, *contract) = (through(batch), through(contract));
        *value = x;
    }
    if used.is_empty() {
        return near.map_or(Outcome::No, Outcome::Near);
    }
    let [(lhs, lhs_batch, lhs_contract), (rhs, rhs_batch, rhs_contract)] = sides;
    let op = Op::DotGeneral { lhs_batch, rhs_batch, lhs_contract, rhs_contract, accumulate: *accumulate };
    found(used, move |b| b.op(op, &[lhs, rhs]))
}

/// One operand laid out over the axes (batch, lhs free, rhs free, contracted), with extents that it lacks repeated.
struct Side {
    value: Value,
    perm: Vec<usize>,
    axes: Vec<usize>,
}

fn dot_short(s: &Scope<'_>, id: NodeId) -> Outcome {
    let node = s.f.node(id);
    let (Op::DotGeneral { lhs_batch, rhs_batch, lhs_contract, rhs_contract, accumulate }, [lhs, rhs]) =
        (&node.op, node.operands())
    else {
        return Outcome::No;
    };
    let (Some(left), Some(right)) = (s.ty(*lhs), s.ty(*rhs)) else { return Outcome::No };
    let lhs_free = free_axes(left.rank(), lhs_batch, lhs_contract);
    let rhs_free = free_axes(right.rank(), rhs_batch, rhs_contract);
    let Some(length) = known_product(lhs_contract.iter().filter_map(|&a| left.dims.get(a))) else {
        return Outcome::No;
    };
    let single = |dims: &[Dim], free: &[usize]| known_product(free.iter().filter_map(|&a| dims.get(a))) == Some(1);
    let vector = single(&left.dims, &lhs_free) || single(&right.dims, &rhs_free);
    if length > SHORT || !(vector || length == 1) {
        return Outcome::No;
    }
    // Extents that are equal at run time only are the library's to check.
    let agree = |l: &[usize], r: &[usize]| l.iter().zip(r).all(|(&l, &r)| left.dims.get(l) == right.dims.get(r));
    if !agree(lhs_batch, rhs_batch) || !agree(lhs_contract, rhs_contract) {
        return Outcome::Near("extents of both sides are not known to be equal");
    }
    let (nb, nl, nr, nk) = (lhs_batch.len(), lhs_free.len(), rhs_free.len(), lhs_contract.len());
    let batch_axes = 0..nb;
    let contracted = nb + nl + nr..nb + nl + nr + nk;
    let lhs_side = Side {
        value: *lhs,
        perm: [lhs_batch.as_slice(), &lhs_free, lhs_contract].concat(),
        axes: batch_axes.clone().chain(nb..nb + nl).chain(contracted.clone()).collect(),
    };
    let rhs_side = Side {
        value: *rhs,
        perm: [rhs_batch.as_slice(), &rhs_free, rhs_contract].concat(),
        axes: batch_axes.chain(nb + nl..nb + nl + nr).chain(contracted.clone()).collect(),
    };
    let mut dims: Vec<Dim> = lhs_batch.iter().chain(&lhs_free).filter_map(|&a| left.dims.get(a).cloned()).collect();
    dims.extend(rhs_free.iter().filter_map(|&a| right.dims.get(a).cloned()));
    dims.extend(lhs_contract.iter().filter_map(|&a| left.dims.get(a).cloned()));
    let accumulate = *accumulate;
    found([], move |b| {
        let mut sides = Vec::with_capacity(2);
        for side in [lhs_side, rhs_side] {
            let wide = b.cast(side.value, accumulate)?;
            let turned = b.transpose(wide, side.perm)?;
            let whole = side.axes.iter().copied().eq(0..dims.len());
            sides.push(if whole {
                turned
            } else {
                b.op(Op::Broadcast { dims: dims.clone(), axes: side.axes }, &[turned])?
            });
        }
        let product = match sides.as_slice() {
            [x, y] => b.op(Op::Binary(BinaryOp::Mul), &[*x, *y])?,
            _ => return Err(frit_ir::op::infer::TypeError { op: "dot_general", message: "two operands".to_owned() }),
        };
        if contracted.is_empty() {
            return Ok(product);
        }
        b.reduce(product, contracted.collect(), ReduceKind::Sum, false)
    })
}
