//! The slope of x / (1 + e), as silu, sigmoid and their like have it.
//!
//! A gradient through d = 1 + e comes back as w V e with w = g / d and V = x / d, and is added to w, what flows through x.
//! Since e / d = 1 - 1 / d, V e is x - V: no product with e, which may be infinite where w is 0, and no comparison for
//! that. It is the form in which frameworks write this slope by hand, s (1 + x (1 - s)). Alone, x - V would lose what is
//! left of it to cancellation where e is small; beside 1 it does not count.

use frit_ir::builder::{Builder, Built};
use frit_ir::op::BinaryOp;
use frit_ir::{DType, NodeId, Op, UnaryOp, Value};

use super::movement::input;
use super::{Outcome, Rule, Scope, found};

pub(super) static RULES: &[Rule] = &[rule!("slope-of-quotient", "w + w (x / d) e = w + w (x - x / d)",
    "d = 1 + e", Approximate Guarded Rounding, slope, |b| {
    let (w, x, one, zero) = (input(b, &[3]), input(b, &[3]), b.scalar(DType::F32, 1.0)?, b.scalar(DType::F32, 0.0)?);
    let (w, x) = (b.unary(UnaryOp::Tanh, w)?, b.unary(UnaryOp::Tanh, x)?);
    let e = b.unary(UnaryOp::Exp, x)?;
    let d = b.binary(BinaryOp::Add, e, one)?;
    let v = b.binary(BinaryOp::Div, x, d)?;
    let wv = b.binary(BinaryOp::Mul, w, v)?;
    let t = b.unary(UnaryOp::Neg, wv)?;
    let (none, te) = (b.binary(BinaryOp::Eq, t, zero)?, b.binary(BinaryOp::Mul, t, e)?);
    let s = b.select(none, zero, te)?;
    Ok(vec![b.binary(BinaryOp::Sub, w, s)?, v])
})];

/// w V e with V = x / (1 + e).
struct Term {
    negative: bool,
    x: Value,
    v: Value,
}

fn slope(s: &Scope<'_>, id: NodeId) -> Outcome {
    let (op, (a, b)) = match (s.binary(id, BinaryOp::Add), s.binary(id, BinaryOp::Sub)) {
        (Some(operands), _) => (BinaryOp::Add, operands),
        (_, Some(operands)) => (BinaryOp::Sub, operands),
        (None, None) => return Outcome::No,
    };
    for (w, other, first) in [(a, b, true), (b, a, false)] {
        let Some(Term { negative, x, v }) = term(s, w, other) else { continue };
        return found([other], move |b: &mut Builder<'_>| -> Built {
            let rest = b.binary(BinaryOp::Sub, x, v)?;
            let m = b.binary(BinaryOp::Mul, w, rest)?;
            match (op, first, negative) {
                (BinaryOp::Sub, true, true) | (BinaryOp::Add, _, false) => b.binary(BinaryOp::Add, w, m),
                (BinaryOp::Sub, true, false) | (BinaryOp::Add, _, true) => b.binary(BinaryOp::Sub, w, m),
                (_, _, false) => b.binary(BinaryOp::Sub, m, w),
                (_, _, true) => {
                    let sum = b.binary(BinaryOp::Add, w, m)?;
                    b.unary(UnaryOp::Neg, sum)
                }
            }
        });
    }
    Outcome::No
}

/// Takes a value apart, if it is that term of `w`, and only this sum's: t e, perhaps 0 where t is, with t = w V or -w V.
fn term(s: &Scope<'_>, w: Value, value: Value) -> Option<Term> {
    let node = s.node(value);
    if s.ty(value)?.dtype != DType::F32 || !s.single_use(value) {
        return None;
    }
    let product = match (&node.op, node.operands()) {
        (Op::Select { .. }, [c, zero, product]) => {
            let (t, nought) = s.binary(c.node, BinaryOp::Eq)?;
            let (a, _) = s.binary(product.node, BinaryOp::Mul)?;
            let zeros = s.number(*zero) == Some(0.0) && s.number(nought) == Some(0.0);
            (zeros && t == a).then_some(*product)?
        }
        _ => value,
    };
    let (a, b) = s.binary(product.node, BinaryOp::Mul)?;
    [(a, b), (b, a)].into_iter().find_map(|(t, e)| {
        let (negative, wv) = match s.unary(t, UnaryOp::Neg) {
            Some(inner) => (true, inner),
            None => (false, t),
        };
        let (p, q) = s.binary(wv.node, BinaryOp::Mul)?;
        let v = if p == w { q } else { (q == w).then_some(p)? };
        let (x, d) = s.binary(v.node, BinaryOp::Div)?;
        let (f, g) = s.binary(d.node, BinaryOp::Add)?;
        let one = if f == e { g } else { (g == e).then_some(f)? };
        s.is_number(one, 1.0).then_some(Term { negative, x, v })
    })
}
