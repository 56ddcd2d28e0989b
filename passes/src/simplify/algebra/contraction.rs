//! Products that are better not called products, and sums that are products.
//!
//! Canonical: the order in which a library sums a product is its own, so which products are sums is decided from shapes
//! alone and at every level. A sum becomes a product only where it may be reordered.

use frit_ir::op::BinaryOp;
use frit_ir::types::{DType, Dim};
use frit_ir::{NodeId, Op, ReduceKind, Value};

use super::movement::{input, known};
use super::reduction::reduce_of;
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
    rule!("sum-is-dot", "sum(broadcast(x) broadcast(y)) = dot_general(x, y)",
        "f32 and f64; both hold the summed axes, at least 16 elements; each alone holds kept axes, at least 4 elements",
        Reassociate Algebra Rounding, sum_is_dot, |b| {
        let (x, y) = (input(b, &[5, 1, 6, 4]), input(b, &[7, 6, 4]));
        let (x, y) = (b.broadcast_to(x, known(&[5, 7, 6, 4]))?, b.broadcast_to(y, known(&[5, 7, 6, 4]))?);
        let product = b.binary(BinaryOp::Mul, x, y)?;
        Ok(vec![b.reduce(product, vec![2, 3], ReduceKind::Sum, false)?])
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

/// A factor of a sum: which axes of the product it holds, and the same without those that it only repeats.
struct Factor {
    value: Value,
    axes: Vec<usize>,
    dims: Vec<Dim>,
}

impl Factor {
    fn of(s: &Scope<'_>, value: Value, whole: &[Dim]) -> Option<Factor> {
        let (Op::Broadcast { axes, .. }, Some(x)) = (&s.node(value).op, s.operand(value.node, 0)) else { return None };
        let held = axes.iter().copied().zip(s.dims(x)).filter(|&(_, d)| *d != Dim::ONE);
        let (axes, dims): (Vec<usize>, Vec<Dim>) = held.map(|(axis, d)| (axis, d.clone())).unzip();
        axes.iter().zip(&dims).all(|(&a, d)| whole.get(a) == Some(d)).then_some(Factor { value: x, axes, dims })
    }

    fn holds(&self, axis: usize) -> bool {
        self.axes.contains(&axis)
    }

    /// Where the axes of the product lie among its own.
    fn places(&self, axes: &[usize]) -> Vec<usize> {
        axes.iter().filter_map(|axis| self.axes.iter().position(|a| a == axis)).collect()
    }
}

fn sum_is_dot(s: &Scope<'_>, id: NodeId) -> Outcome {
    /// Fewest elements to sum.
    const SUMMED: i64 = 16;
    /// Fewest elements along the axes that one factor alone holds.
    const OWN: i64 = 4;
    let (Some((axes, ReduceKind::Sum, product)), Some(ty)) = (reduce_of(s, id), s.result(id)) else {
        return Outcome::No;
    };
    let Some((x, y)) = s.binary(product.node, BinaryOp::Mul) else { return Outcome::No };
    let whole = s.dims(product);
    let (Some(x), Some(y)) = (Factor::of(s, x, whole), Factor::of(s, y, whole)) else { return Outcome::No };
    if !matches!(ty.dtype, DType::F32 | DType::F64) {
        return Outcome::Near("neither f32 nor f64");
    }
    let real = |keep: &dyn Fn(usize) -> bool| -> Vec<usize> {
        (0..whole.len()).filter(|&a| whole[a] != Dim::ONE && keep(a)).collect()
    };
    let contract = real(&|a| axes.contains(&a));
    if !contract.iter().all(|&a| x.holds(a) && y.holds(a)) {
        return Outcome::Near("a factor repeats along a summed axis");
    }
    let batch = real(&|a| !axes.contains(&a) && x.holds(a) && y.holds(a));
    let own = |f: &Factor, other: &Factor| real(&|a| !axes.contains(&a) && f.holds(a) && !other.holds(a));
    let (x_own, y_own) = (own(&x, &y), own(&y, &x));
    if batch.len() + x_own.len() + y_own.len() + contract.len() != real(&|_| true).len() {
        return Outcome::Near("neither factor holds a kept axis");
    }
    let at_least =
        |axes: &[usize], n: i64| known_product(axes.iter().map(|&a| &whole[a])).is_none_or(|count| count >= n);
    if !at_least(&contract, SUMMED) || !at_least(&x_own, OWN) || !at_least(&y_own, OWN) {
        return Outcome::Near("too small for a product");
    }
    // The side whose axes come first goes left: the result then mostly has its order.
    let ((x, x_own), (y, y_own)) =
        if y_own.first() < x_own.first() { ((y, y_own), (x, x_own)) } else { ((x, x_own), (y, y_own)) };
    let op = Op::DotGeneral {
        lhs_batch: x.places(&batch),
        rhs_batch: y.places(&batch),
        lhs_contract: x.places(&contract),
        rhs_contract: y.places(&contract),
        accumulate: ty.dtype,
    };
    let made = [batch, x_own, y_own].concat();
    let mut sorted = made.clone();
    sorted.sort_unstable();
    let perm: Vec<usize> = sorted.iter().filter_map(|axis| made.iter().position(|a| a == axis)).collect();
    let dims = ty.dims.clone();
    found([product], move |b| {
        let (x, y) = (b.reshape(x.value, x.dims)?, b.reshape(y.value, y.dims)?);
        let dot = b.op(op, &[x, y])?;
        let turned = b.transpose(dot, perm)?;
        b.reshape(turned, dims)
    })
}
