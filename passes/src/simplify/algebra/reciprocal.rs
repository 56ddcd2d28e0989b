//! One division for several: quotients by the same divisor, and by two divisors that meet in a product.
//!
//! A gradient divides again by what the forward divided by: silu(x) = x / d with d = 1 + e^-x has the slope
//! (1 + silu(x) e^-x) / d. And where two such meet in a product, 1 / y and 1 / w follow from r = 1 / (y w) as r w and
//! r y. A reciprocal rounds once more, and what it is of must be far from 0 and infinity: facts say so, where a `select`
//! takes the side that it usually takes; where it does not, the divisions are as they were.

use frit_ir::builder::{Builder, Built};
use frit_ir::op::BinaryOp;
use frit_ir::{DType, NodeId, Op, UnaryOp, Value};

use super::movement::input;
use super::quotient::is_rounded;
use super::{Outcome, Rule, Scope, found};
use crate::simplify::assumed::Assumed;

/// What products of divisors, and divisors, lie between: reciprocals are normal f32.
const SMALLEST: f64 = 1.0 / (1_u128 << 100) as f64;
/// See [`SMALLEST`].
const LARGEST: f64 = (1_u128 << 125) as f64;
/// Conditions that a reciprocal may depend on.
const CONDITIONS: usize = 4;

pub(super) static RULES: &[Rule] = &[
    rule!("joined-reciprocals", "(x / y) (z / w) = x z (1 / (y w))",
        "where no quotient is used elsewhere x z / (y w); y w is far from 0 and infinity, at least where likely conditions hold",
        Reassociate Strength Rounding, joined, |b| {
        let (x, z) = (input(b, &[3]), input(b, &[3]));
        let (y, w) = (sigmoid_divisor(b, x)?, sigmoid_divisor(b, z)?);
        let (p, q) = (b.binary(BinaryOp::Div, z, y)?, b.binary(BinaryOp::Div, x, w)?);
        Ok(vec![b.binary(BinaryOp::Mul, p, q)?, p])
    }),
    rule!("quotient-by-joined", "x / y = x (1 / (y w)) w",
        "the divisors y and w are joined; elsewhere than where likely conditions hold, x / y", Reassociate Strength Rounding,
        by_joined, |b| {
        let (x, z) = (input(b, &[3]), input(b, &[3]));
        let (y, w) = (sigmoid_divisor(b, x)?, sigmoid_divisor(b, z)?);
        Ok(vec![reciprocal_of_both(b, y, w)?, b.binary(BinaryOp::Div, x, y)?])
    }),
    rule!("shared-reciprocal", "x / y, z / y = x (1 / y), z (1 / y)", "y is far from 0 and infinity", Reassociate Strength Rounding,
        shared, |b| {
        let (x, z, one) = (input(b, &[3]), input(b, &[3]), b.scalar(DType::F32, 1.0)?);
        let t = b.unary(UnaryOp::Tanh, z)?;
        let y = b.binary(BinaryOp::Mul, t, t)?;
        let y = b.binary(BinaryOp::Add, y, one)?;
        Ok(vec![b.binary(BinaryOp::Div, x, y)?, b.binary(BinaryOp::Div, z, y)?])
    }),
    rule!("likely-zero", "select(x = 0, 0, x y) = x y", "y is finite, at least where likely conditions hold",
        Approximate Strength Rounding, likely_zero, |b| {
        let (x, y) = (input(b, &[3]), input(b, &[3]));
        let (zero, y) = (b.scalar(DType::F32, 0.0)?, b.unary(UnaryOp::Tanh, y)?);
        let (product, is_zero) = (b.binary(BinaryOp::Mul, x, y)?, b.binary(BinaryOp::Eq, x, zero)?);
        Ok(vec![b.select(is_zero, zero, product)?])
    }),
];

/// 1 + e^ of something bounded.
pub(super) fn sigmoid_divisor(b: &mut Builder<'_>, x: Value) -> Built {
    let (one, t) = (b.scalar(DType::F32, 1.0)?, b.unary(UnaryOp::Tanh, x)?);
    let e = b.unary(UnaryOp::Exp, t)?;
    b.binary(BinaryOp::Add, e, one)
}

/// A quotient of floats as large as its divisor: one that is repeated has a reciprocal of its own.
pub(super) fn quotient(s: &Scope<'_>, v: Value) -> Option<(Value, Value)> {
    let (x, y) = s.binary(v.node, BinaryOp::Div)?;
    let ty = s.ty(v).filter(|t| t.dtype == DType::F32)?;
    (s.dims(y) == ty.dims && !matches!(s.node(y).op, Op::Broadcast { .. })).then_some((x, y))
}

/// The conditions under which the reciprocal of a product of divisors is a normal number.
pub(super) fn conditions(s: &Scope<'_>, divisors: &[Value]) -> Option<Vec<Value>> {
    let (conditions, assumed) = Assumed::usual(s, divisors);
    let (mut low, mut high) = (1.0, 1.0);
    for &divisor in divisors {
        let range = s.range_where(divisor, &assumed);
        if range.low < SMALLEST {
            return None;
        }
        (low, high) = (low * range.low, high * range.high);
    }
    let same = |c: &Value| divisors.iter().all(|d| s.dims(*c) == s.dims(*d));
    (low >= SMALLEST && high <= LARGEST && conditions.len() <= CONDITIONS && conditions.iter().all(same))
        .then_some(conditions)
}

/// `usual` where all conditions hold, else `rare`.
pub(super) fn where_likely(b: &mut Builder<'_>, conditions: &[Value], usual: Value, rare: Value) -> Built {
    conditions.iter().rev().try_fold(usual, |usual, c| b.select_likely(*c, usual, rare))
}

/// The divisors of a product of two quotients.
fn pair(s: &Scope<'_>, id: NodeId) -> Option<[(Value, Value); 2]> {
    let (p, q) = s.binary(id, BinaryOp::Mul)?;
    let (left, right) = (quotient(s, p)?, quotient(s, q)?);
    (p != q && left.1 != right.1).then_some([left, right])
}

/// 1 / (y w), the same whichever comes first.
pub(super) fn reciprocal_of_both(b: &mut Builder<'_>, y: Value, w: Value) -> Built {
    let (product, one) = (b.binary(BinaryOp::Mul, y.min(w), y.max(w))?, b.scalar(DType::F32, 1.0)?);
    b.binary(BinaryOp::Div, one, product)
}

fn joined(s: &Scope<'_>, id: NodeId) -> Outcome {
    let (Some([(x, y), (z, w)]), Some((p, q))) = (pair(s, id), s.binary(id, BinaryOp::Mul)) else {
        return Outcome::No;
    };
    if conditions(s, &[y, w]).is_none() {
        return Outcome::Near("the product of the divisors may be 0 or infinite");
    }
    // A reciprocal that nothing else needs is one operation more.
    let alone = s.single_use(p) && s.single_use(q);
    found([p, q], move |b| {
        let top = b.binary(BinaryOp::Mul, x, z)?;
        if alone {
            let product = b.binary(BinaryOp::Mul, y, w)?;
            return b.binary(BinaryOp::Div, top, product);
        }
        let r = reciprocal_of_both(b, y, w)?;
        b.binary(BinaryOp::Mul, top, r)
    })
}

/// The divisor that another one is, or could be, joined with.
pub(super) fn partner(s: &Scope<'_>, y: Value) -> Option<Value> {
    for (user, _) in s.f.uses(y) {
        // 1 / (y w) is there.
        if let Some((a, b)) = s.binary(user, BinaryOp::Mul).filter(|(a, b)| a != b) {
            let product = Value { node: user, result: 0 };
            let divided = |(by, i): &(NodeId, usize)| {
                *i == 1 && s.binary(*by, BinaryOp::Div).is_some_and(|(one, _)| s.is_number(one, 1.0))
            };
            if s.f.uses(product).iter().any(divided) {
                return Some(if a == y { b } else { a });
            }
        }
        // Or will be.
        let Some((_, divisor)) = s.binary(user, BinaryOp::Div) else { continue };
        if divisor != y {
            continue;
        }
        for (product, _) in s.f.uses(Value { node: user, result: 0 }) {
            if let Some([(_, a), (_, b)]) = pair(s, product) {
                return Some(if a == y { b } else { a });
            }
        }
    }
    None
}

fn by_joined(s: &Scope<'_>, id: NodeId) -> Outcome {
    let root = Value { node: id, result: 0 };
    let Some((x, y)) = quotient(s, root) else { return Outcome::No };
    let Some(w) = partner(s, y).filter(|w| s.dims(*w) == s.dims(y)) else { return Outcome::No };
    // A product that it meets another in goes first.
    let meets = s.f.uses(root).iter().any(|(user, _)| pair(s, *user).is_some());
    if s.is_fallback(root) || meets {
        return Outcome::No;
    }
    if is_rounded(s, root) {
        return Outcome::Near("the quotient is rounded to an integer");
    }
    let Some(conditions) = conditions(s, &[y, w]) else {
        return Outcome::Near("the product of the divisors may be 0 or infinite");
    };
    found([], move |b| {
        let r = reciprocal_of_both(b, y, w)?;
        let usual = b.binary(BinaryOp::Mul, r, w)?;
        let reciprocal = if conditions.is_empty() {
            usual
        } else {
            let one = b.scalar(DType::F32, 1.0)?;
            let rare = b.binary(BinaryOp::Div, one, y)?;
            where_likely(b, &conditions, usual, rare)?
        };
        b.binary(BinaryOp::Mul, x, reciprocal)
    })
}

fn shared(s: &Scope<'_>, id: NodeId) -> Outcome {
    let root = Value { node: id, result: 0 };
    let Some((x, y)) = quotient(s, root).filter(|(x, _)| !s.is_number(*x, 1.0)) else { return Outcome::No };
    let divides = |(user, i): &(NodeId, usize)| *i == 1 && s.binary(*user, BinaryOp::Div).is_some();
    if s.f.uses(y).iter().filter(|u| divides(u)).count() < 2 || partner(s, y).is_some() {
        return Outcome::No;
    }
    if is_rounded(s, root) {
        return Outcome::Near("the quotient is rounded to an integer");
    }
    let range = s.range(y);
    if range.low < SMALLEST {
        return Outcome::Near("the divisor may be 0");
    }
    found([], move |b| {
        let one = b.scalar(DType::F32, 1.0)?;
        let r = b.binary(BinaryOp::Div, one, y)?;
        b.binary(BinaryOp::Mul, x, r)
    })
}

fn likely_zero(s: &Scope<'_>, id: NodeId) -> Outcome {
    let node = s.f.node(id);
    let (Op::Select { .. }, [c, zero, product]) = (&node.op, node.operands()) else { return Outcome::No };
    let (Some((x, nought)), Some((a, e))) = (s.binary(c.node, BinaryOp::Eq), s.binary(product.node, BinaryOp::Mul))
    else {
        return Outcome::No;
    };
    let is_zero = |v: Value| s.number(v) == Some(0.0);
    if x != a || !is_zero(nought) || !is_zero(*zero) || s.is_fallback(Value { node: id, result: 0 }) {
        return Outcome::No;
    }
    let (conditions, assumed) = Assumed::usual(s, &[e]);
    let same = |c: &Value| s.dims(*c) == s.dims(*product);
    if !s.range_where(e, &assumed).magnitude().is_finite() || !conditions.iter().all(same) {
        return Outcome::Near("the factor may be infinite");
    }
    let (c, zero, product) = (*c, *zero, *product);
    found([product], move |b| {
        if conditions.is_empty() {
            return Ok(product);
        }
        let rare = b.select(c, zero, product)?;
        where_likely(b, &conditions, product, rare)
    })
}
