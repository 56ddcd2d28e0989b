//! Exponentials of sums over different axes: exp(x + y) = exp(x) exp(y), computed on the parts.
//!
//! For bases on a grid, e^(x_i - g_j) takes one exponential for each x instead of one for each pair. The product rounds
//! once more, and is wrong where a part overflows or becomes subnormal though the sum is small. So the parts are used
//! where |x| is at most [`SAFE`] and |g| at most [`GRID`] only; elsewhere the sum's own exponential is taken, as a
//! `select` whose condition is likely. What is known to be small needs no condition.

use frit_ir::op::BinaryOp;
use frit_ir::types::Dim;
use frit_ir::{DType, NodeId, Op, ReduceKind, UnaryOp, Value};

use super::movement::{input, known};
use super::{Outcome, Rule, Scope, found};

/// Magnitude up to which a part is split off: with [`GRID`] more, not only e^ of it is a normal f32 (up to 87.3), but also
/// the product of two such, which joins the divisions of two sigmoids.
const SAFE: f64 = 32.0;
/// Largest magnitude of the other part.
const GRID: f64 = 11.0;

pub(super) static RULES: &[Rule] = &[
    rule!("exp-of-negated", "exp(-x) = 1 / exp(x)", "exp(x) is there; f32", Approximate Strength Rounding,
        exp_of_negated, |b| {
        let x = input(b, &[5]);
        let x = b.unary(UnaryOp::Tanh, x)?;
        let minus = b.unary(UnaryOp::Neg, x)?;
        Ok(vec![b.unary(UnaryOp::Exp, minus)?, b.unary(UnaryOp::Exp, x)?])
    }),
    rule!("split-exp", "exp(x + y) = exp(x) exp(y), exp(x - y) = exp(x) exp(-y)",
        "x and y are smaller than the sum and repeat along different axes; used where both are small", Approximate Guarded Rounding,
        split_exp, |b| {
        let (x, y) = (input(b, &[5, 1]), input(b, &[1, 4]));
        let y = b.unary(UnaryOp::Tanh, y)?;
        let (x, y) = (b.broadcast_to(x, known(&[5, 4]))?, b.broadcast_to(y, known(&[5, 4]))?);
        let z = b.binary(BinaryOp::Sub, y, x)?;
        Ok(vec![b.unary(UnaryOp::Exp, z)?])
    }),
];

/// A division is one operation, on a unit that idles otherwise; an exponential is ten. Where e^x overflows or is 0 the
/// reciprocal is what e^-x rounds to, and near there both lose digits.
fn exp_of_negated(s: &Scope<'_>, id: NodeId) -> Outcome {
    let root = Value { node: id, result: 0 };
    let Some(minus) = s.unary(root, UnaryOp::Exp) else { return Outcome::No };
    let (Some(x), Some(ty)) = (s.unary(minus, UnaryOp::Neg), s.result(id)) else { return Outcome::No };
    let is_exp = |(user, _): &(NodeId, usize)| s.f.node(*user).op == Op::Unary(UnaryOp::Exp);
    let Some((user, _)) = s.f.uses(x).into_iter().find(is_exp) else { return Outcome::No };
    if ty.dtype != DType::F32 {
        return Outcome::Near("not f32");
    }
    let e = Value { node: user, result: 0 };
    found([minus, e], move |b| {
        let one = b.scalar(DType::F32, 1.0)?;
        b.binary(BinaryOp::Div, one, e)
    })
}

/// A term of a sum: what it repeats, and where.
struct Part {
    value: Value,
    op: Op,
    negative: bool,
}

fn split_exp(s: &Scope<'_>, id: NodeId) -> Outcome {
    let root = Value { node: id, result: 0 };
    let (Some(sum), Some(ty)) = (s.unary(root, UnaryOp::Exp), s.result(id)) else { return Outcome::No };
    // Of -(x - y) too.
    let (inner, turned) = s.unary(sum, UnaryOp::Neg).map_or((sum, false), |inner| (inner, true));
    let (x, y, minus) = match (s.binary(inner.node, BinaryOp::Add), s.binary(inner.node, BinaryOp::Sub)) {
        (Some((x, y)), _) => (x, y, turned),
        (_, Some((x, y))) => (x, y, !turned),
        (None, None) => return Outcome::No,
    };
    // What the guard falls back to stays.
    if s.is_fallback(root) {
        return Outcome::No;
    }
    let part = |v: Value, negative: bool| match (&s.node(v).op, s.operand(v.node, 0)) {
        (op @ Op::Broadcast { .. }, Some(value)) => Some(Part { value, op: op.clone(), negative }),
        _ => None,
    };
    let (Some(x), Some(y)) = (part(x, turned), part(y, minus)) else { return Outcome::No };
    if ty.dtype != DType::F32 {
        return Outcome::Near("not f32");
    }
    let smaller = |p: &Part| match (Dim::product(s.dims(p.value)), Dim::product(&ty.dims)) {
        (Dim::Known(part), Dim::Known(all)) => 2 * part <= all,
        (part, all) => part != all,
    };
    if !smaller(&x) || !smaller(&y) {
        return Outcome::Near("a part is as large as the sum");
    }
    // A part that is known to be small goes without a guard; of two that are not, the smaller counts as the grid.
    let (sx, sy) = (s.range(x.value).magnitude(), s.range(y.value).magnitude());
    let smaller_x = match (Dim::product(s.dims(x.value)), Dim::product(s.dims(y.value))) {
        (Dim::Known(a), Dim::Known(b)) => a < b,
        (a, _) => a.known().is_some(),
    };
    let (x, y, size, grid) = match (sy <= GRID, sx <= GRID) {
        (true, _) => (x, y, sx, sy),
        (false, true) => (y, x, sy, sx),
        (false, false) if smaller_x => (y, x, sy, sx),
        (false, false) => (x, y, sx, sy),
    };
    let guarded = (size > SAFE, grid > GRID);
    found([sum], move |b| {
        let exp = |b: &mut frit_ir::builder::Builder<'_>, p: &Part| {
            let v = if p.negative { b.unary(UnaryOp::Neg, p.value)? } else { p.value };
            let e = b.unary(UnaryOp::Exp, v)?;
            b.op(p.op.clone(), &[e])
        };
        let (p, q) = (exp(b, &x)?, exp(b, &y)?);
        let product = b.binary(BinaryOp::Mul, p, q)?;
        let within = |b: &mut frit_ir::builder::Builder<'_>, v: Value, safe: f64| {
            let (size, safe) = (b.unary(UnaryOp::Abs, v)?, b.scalar(DType::F32, safe)?);
            b.binary(BinaryOp::Le, size, safe)
        };
        // The grid is judged as a whole: one condition for each x.
        let largest = |b: &mut frit_ir::builder::Builder<'_>| {
            let (size, rank) = (b.unary(UnaryOp::Abs, y.value)?, b.dims(y.value)?.len());
            let most = b.reduce(size, (0..rank).collect(), ReduceKind::Max, false)?;
            within(b, most, GRID)
        };
        let ok = match guarded {
            (false, false) => return Ok(product),
            (true, false) => within(b, x.value, SAFE)?,
            (false, true) => {
                let (ok, dims) = (largest(b)?, b.dims(x.value)?);
                b.broadcast_to(ok, dims)?
            }
            (true, true) => {
                let (near, ok) = (within(b, x.value, SAFE)?, largest(b)?);
                b.binary(BinaryOp::And, near, ok)?
            }
        };
        let ok = b.op(x.op.clone(), &[ok])?;
        let whole = b.unary(UnaryOp::Exp, sum)?;
        b.select_likely(ok, product, whole)
    })
}
