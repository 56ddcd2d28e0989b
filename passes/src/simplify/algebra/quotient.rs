//! Fewer divisions: quotients of a product joined, reciprocals absorbed.
//!
//! A division takes as long as several multiplications. Divisors are multiplied only where facts say that each is at
//! least 1, so that their product is 0 nowhere; where it overflows the quotient was about to vanish.

use frit_ir::op::BinaryOp;
use frit_ir::types::Dim;
use frit_ir::{DType, NodeId, Op, UnaryOp, Value};

use super::movement::input;
use super::{Outcome, Rule, Scope, found};

pub(super) static RULES: &[Rule] = &[
    rule!("mul-of-reciprocal", "x (1 / y) = x / y", "the reciprocal is used once", Approximate Algebra Rounding,
        mul_of_reciprocal, |b| {
        let (x, y, one) = (input(b, &[3]), input(b, &[3]), b.scalar(DType::F32, 1.0)?);
        let (x, y) = (b.unary(UnaryOp::Tanh, x)?, b.unary(UnaryOp::Tanh, y)?);
        let two = b.scalar(DType::F32, 2.0)?;
        let y = b.binary(BinaryOp::Add, y, two)?;
        let r = b.binary(BinaryOp::Div, one, y)?;
        Ok(vec![b.binary(BinaryOp::Mul, x, r)?])
    }),
    rule!("scaled-quotient", "(x / y) c = (x c) / y", "a constant c; the quotient is used once", Reassociate Algebra Rounding,
        scaled_quotient, |b| {
        let (x, y, c) = (input(b, &[3]), input(b, &[3]), b.scalar(DType::F32, 3.0)?);
        let y = b.unary(UnaryOp::Exp, y)?;
        let q = b.binary(BinaryOp::Div, x, y)?;
        Ok(vec![b.binary(BinaryOp::Mul, q, c)?])
    }),
    rule!("product-of-quotients", "(x / y) (z / w) = x z / (y w)", "y and w are at least 1; each quotient is used once",
        Reassociate Guarded Rounding, product_of_quotients, |b| {
        let (x, z, one) = (input(b, &[3]), input(b, &[3]), b.scalar(DType::F32, 1.0)?);
        let (y, w) = (b.unary(UnaryOp::Exp, z)?, b.unary(UnaryOp::Exp, x)?);
        let (y, w) = (b.binary(BinaryOp::Add, y, one)?, b.binary(BinaryOp::Add, w, one)?);
        let (p, q) = (b.binary(BinaryOp::Div, x, y)?, b.binary(BinaryOp::Div, z, w)?);
        Ok(vec![b.binary(BinaryOp::Mul, p, q)?])
    }),
    rule!("div-by-repeated", "x / broadcast(y) = x broadcast(1 / y)",
        "y is at most a quarter as large and the quotient is not rounded; y below 2^-126 counts as 0", Reassociate Strength Rounding, div_by_repeated, |b| {
        let (x, y) = (input(b, &[3, 8]), input(b, &[3, 1]));
        let y = b.unary(UnaryOp::Exp, y)?;
        Ok(vec![b.binary(BinaryOp::Div, x, y)?])
    }),
    rule!("negative-difference", "-(x - y) = y - x", "floats: a zero may change its sign; x - y is used once", Reassociate Algebra Rounding,
        negative_difference, |b| {
        let (x, y) = (input(b, &[3]), input(b, &[3]));
        let d = b.binary(BinaryOp::Sub, x, y)?;
        Ok(vec![b.unary(UnaryOp::Neg, d)?])
    }),
];

fn is_float(s: &Scope<'_>, id: NodeId) -> bool {
    s.result(id).is_some_and(|t| t.dtype.is_float())
}

/// Both orders of the operands of a product.
fn factors(s: &Scope<'_>, id: NodeId) -> Option<[(Value, Value); 2]> {
    let (a, b) = s.binary(id, BinaryOp::Mul)?;
    (a != b && is_float(s, id)).then_some([(a, b), (b, a)])
}

fn mul_of_reciprocal(s: &Scope<'_>, id: NodeId) -> Outcome {
    for (x, r) in factors(s, id).into_iter().flatten() {
        let Some((one, y)) = s.binary(r.node, BinaryOp::Div) else { continue };
        if !s.is_number(one, 1.0) {
            continue;
        }
        if !s.single_use(r) {
            return Outcome::Near("the reciprocal is used elsewhere too");
        }
        return found([r], move |b| b.binary(BinaryOp::Div, x, y));
    }
    Outcome::No
}

fn scaled_quotient(s: &Scope<'_>, id: NodeId) -> Outcome {
    for (q, c) in factors(s, id).into_iter().flatten() {
        let (Some((x, y)), Some(_)) = (s.binary(q.node, BinaryOp::Div), s.number(c)) else { continue };
        if !s.single_use(q) {
            return Outcome::Near("the quotient is used elsewhere too");
        }
        return found([q], move |b| {
            let top = b.binary(BinaryOp::Mul, x, c)?;
            b.binary(BinaryOp::Div, top, y)
        });
    }
    Outcome::No
}

fn product_of_quotients(s: &Scope<'_>, id: NodeId) -> Outcome {
    let Some([(p, q), _]) = factors(s, id) else { return Outcome::No };
    let (Some((x, y)), Some((z, w))) = (s.binary(p.node, BinaryOp::Div), s.binary(q.node, BinaryOp::Div)) else {
        return Outcome::No;
    };
    if !s.single_use(p) || !s.single_use(q) {
        return Outcome::Near("a quotient is used elsewhere too");
    }
    if s.range(y).low < 1.0 || s.range(w).low < 1.0 {
        return Outcome::Near("a divisor may be below 1");
    }
    found([p, q], move |b| {
        let (top, bottom) = (b.binary(BinaryOp::Mul, x, z)?, b.binary(BinaryOp::Mul, y, w)?);
        b.binary(BinaryOp::Div, top, bottom)
    })
}

/// Whether one last digit of a value decides which integer comes out.
pub(super) fn is_rounded(s: &Scope<'_>, v: Value) -> bool {
    let rounds = |op: &Op| match op {
        Op::Unary(UnaryOp::Floor | UnaryOp::Ceil | UnaryOp::Trunc | UnaryOp::RoundEven) => true,
        Op::Cast { to, .. } => !to.is_float(),
        _ => false,
    };
    s.f.uses(v).iter().any(|(user, _)| rounds(&s.f.node(*user).op))
}

fn div_by_repeated(s: &Scope<'_>, id: NodeId) -> Outcome {
    let Some((x, divisor)) = s.binary(id, BinaryOp::Div).filter(|_| is_float(s, id)) else { return Outcome::No };
    let (op @ Op::Broadcast { .. }, Some(y)) = (&s.node(divisor).op, s.operand(divisor.node, 0)) else {
        return Outcome::No;
    };
    let Some(ty) = s.ty(y) else { return Outcome::No };
    let fewer = match (ty.numel(), Dim::product(s.dims(divisor))) {
        (Dim::Known(few), Dim::Known(all)) => 4 * few <= all,
        (few, all) => few != all,
    };
    if !fewer {
        return Outcome::Near("the divisor is hardly smaller");
    }
    if is_rounded(s, Value { node: id, result: 0 }) {
        return Outcome::Near("the quotient is rounded to an integer");
    }
    let (op, dtype) = (op.clone(), ty.dtype);
    found([divisor], move |b| {
        let one = b.scalar(dtype, 1.0)?;
        let reciprocal = b.binary(BinaryOp::Div, one, y)?;
        let repeated = b.op(op, &[reciprocal])?;
        b.binary(BinaryOp::Mul, x, repeated)
    })
}

fn negative_difference(s: &Scope<'_>, id: NodeId) -> Outcome {
    let root = Value { node: id, result: 0 };
    let Some(difference) = s.unary(root, UnaryOp::Neg).filter(|_| is_float(s, id)) else { return Outcome::No };
    match s.binary(difference.node, BinaryOp::Sub) {
        Some(_) if !s.single_use(difference) => Outcome::Near("the difference is used elsewhere too"),
        Some((x, y)) => found([difference], move |b| b.binary(BinaryOp::Sub, y, x)),
        None => Outcome::No,
    }
}
