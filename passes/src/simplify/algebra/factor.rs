//! What a product of two quotients and its gradients have in common.
//!
//! For p = (x / y) (z / w) the gradients to x and z hold p again, and more of its parts. With r = 1 / (y w), which
//! [`super::reciprocal`] makes, each is one factor times a short sum of what is there already: where y = 1 + e^-x, as in
//! silu(x) silu(z), the slope f x (1 + z - z / w) is f (x + x z - p y), because x z / w = x z r y = p y.

use frit_ir::builder::Builder;
use frit_ir::op::BinaryOp;
use frit_ir::op::infer::TypeError;
use frit_ir::{DType, NodeId, UnaryOp, Value};

use super::movement::input;
use super::reciprocal::{conditions, partner, quotient, reciprocal_of_both, sigmoid_divisor, where_likely};
use super::{Outcome, Rule, Scope, found};

pub(super) static RULES: &[Rule] = &[
    rule!("quotient-by-both", "(f (x / y)) / w = (f (1 / (y w))) x", "the divisors y and w are joined",
        Reassociate Strength Rounding, by_both, |b| {
        let [f, x, z] = [input(b, &[3]), input(b, &[3]), input(b, &[3])];
        let (y, w) = (sigmoid_divisor(b, x)?, sigmoid_divisor(b, z)?);
        let (r, v) = (reciprocal_of_both(b, y, w)?, b.binary(BinaryOp::Div, x, y)?);
        let n = b.binary(BinaryOp::Mul, f, v)?;
        Ok(vec![b.binary(BinaryOp::Div, n, w)?, r])
    }),
    rule!("slope-of-joined", "f x + f x (z - z / w) = f (x + x z - p y)",
        "p = x z (1 / (y w)) is there; elsewhere than where likely conditions hold, x (z / w) for p y", Reassociate Strength Rounding,
        slope, |b| {
        let [f, x, z] = [input(b, &[3]), input(b, &[3]), input(b, &[3])];
        let (y, w) = (sigmoid_divisor(b, x)?, sigmoid_divisor(b, z)?);
        let (r, xz) = (reciprocal_of_both(b, y, w)?, b.binary(BinaryOp::Mul, x, z)?);
        let (p, fx) = (b.binary(BinaryOp::Mul, xz, r)?, b.binary(BinaryOp::Mul, f, x)?);
        let v = b.binary(BinaryOp::Div, z, w)?;
        let e = b.binary(BinaryOp::Sub, z, v)?;
        let m = b.binary(BinaryOp::Mul, fx, e)?;
        Ok(vec![b.binary(BinaryOp::Add, fx, m)?, p])
    }),
];

fn by_both(s: &Scope<'_>, id: NodeId) -> Outcome {
    let Some((n, w)) = quotient(s, Value { node: id, result: 0 }) else { return Outcome::No };
    let Some((a, b)) = s.binary(n.node, BinaryOp::Mul) else { return Outcome::No };
    let Some(y) = partner(s, w).filter(|y| s.dims(*y) == s.dims(w)) else { return Outcome::No };
    for (f, v) in [(a, b), (b, a)] {
        let Some((x, _)) = quotient(s, v).filter(|(_, divisor)| *divisor == y) else { continue };
        if conditions(s, &[y, w]).is_none() {
            return Outcome::Near("the product of the divisors may be 0 or infinite");
        }
        return found([n, v], move |b| {
            let r = reciprocal_of_both(b, y, w)?;
            let factor = b.binary(BinaryOp::Mul, f, r)?;
            b.binary(BinaryOp::Mul, factor, x)
        });
    }
    Outcome::No
}

/// The product of two values, if it is there.
fn product_of(s: &Scope<'_>, x: Value, z: Value) -> Option<Value> {
    let is = |user: &NodeId| s.binary(*user, BinaryOp::Mul).is_some_and(|(a, b)| (a, b) == (x, z) || (a, b) == (z, x));
    s.f.uses(x).into_iter().map(|(user, _)| user).find(is).map(|node| Value { node, result: 0 })
}

/// Of x z: p = x z (1 / (y w)), and y.
fn joined_product(s: &Scope<'_>, xz: Value, w: Value) -> Option<(Value, Value)> {
    s.f.uses(xz).into_iter().find_map(|(user, i)| {
        let (a, b) = s.binary(user, BinaryOp::Mul)?;
        let r = if i == 0 { b } else { a };
        let (one, divisor) = s.binary(r.node, BinaryOp::Div)?;
        let (c, d) = s.binary(divisor.node, BinaryOp::Mul).filter(|_| s.is_number(one, 1.0))?;
        let y = if c == w { d } else { (d == w).then_some(c)? };
        Some((Value { node: user, result: 0 }, y))
    })
}

/// The factors of t + t e or t e + t, with what t e is.
fn slopes(s: &Scope<'_>, id: NodeId) -> Option<(Value, Value, Value)> {
    let (a, b) = s.binary(id, BinaryOp::Add)?;
    [(a, b), (b, a)].into_iter().find_map(|(t, m)| {
        let (p, q) = s.binary(m.node, BinaryOp::Mul).filter(|_| s.single_use(m))?;
        let e = if p == t { q } else { (q == t).then_some(p)? };
        (s.f.use_count(t) == 2).then_some((t, m, e))
    })
}

fn slope(s: &Scope<'_>, id: NodeId) -> Outcome {
    let Some((t, m, e)) = slopes(s, id).filter(|(t, ..)| s.ty(*t).is_some_and(|t| t.dtype == DType::F32)) else {
        return Outcome::No;
    };
    let (Some((a, b)), Some((z, v))) = (s.binary(t.node, BinaryOp::Mul), s.binary(e.node, BinaryOp::Sub)) else {
        return Outcome::No;
    };
    let Some((_, w)) = quotient(s, v).filter(|(top, _)| *top == z) else { return Outcome::No };
    for (f, x) in [(a, b), (b, a)] {
        let Some(xz) = product_of(s, x, z) else { continue };
        let Some((p, y)) = joined_product(s, xz, w) else { continue };
        let Some(conditions) = conditions(s, &[y, w]) else {
            return Outcome::Near("the product of the divisors may be 0 or infinite");
        };
        return found([t, m, e, v], move |b: &mut Builder<'_>| -> Result<Value, TypeError> {
            let minus = b.unary(UnaryOp::Neg, p)?;
            let usual = b.binary(BinaryOp::Mul, minus, y)?;
            let taken = if conditions.is_empty() {
                usual
            } else {
                let minus = b.unary(UnaryOp::Neg, x)?;
                let rare = b.binary(BinaryOp::Mul, minus, v)?;
                where_likely(b, &conditions, usual, rare)?
            };
            let rest = b.binary(BinaryOp::Add, x, xz)?;
            let sum = b.binary(BinaryOp::Add, taken, rest)?;
            b.binary(BinaryOp::Mul, f, sum)
        });
    }
    Outcome::No
}
