//! Gradients of elementwise ops. g is the cotangent of the result y.

use frit_ir::{BinaryOp, Op, UnaryOp, Value};

use super::site::{Ruled, Site, refuse};

/// Broadcasts and reshapes are followed this far when a constant is looked for.
const DEPTH: usize = 16;

pub(super) fn unary(s: &mut Site<'_>, op: UnaryOp) -> Ruled {
    let (g, x, y) = (s.g()?, s.x(0)?, s.y());
    let gradient = match op {
        UnaryOp::Neg => s.neg(g)?,
        UnaryOp::Abs => {
            let sign = s.un(UnaryOp::Sign, x)?;
            s.mul(g, sign)?
        }
        // Steps: 0 almost everywhere.
        UnaryOp::Sign | UnaryOp::Floor | UnaryOp::Ceil | UnaryOp::Trunc | UnaryOp::RoundEven | UnaryOp::Not => {
            return Ok(());
        }
        // g / (2 y)
        UnaryOp::Sqrt => {
            let half = s.with(BinaryOp::Mul, g, 0.5)?;
            s.div(half, y)?
        }
        UnaryOp::Exp => s.strong_mul(g, y)?,
        UnaryOp::Expm1 => {
            let e = s.with(BinaryOp::Add, y, 1.0)?;
            s.strong_mul(g, e)?
        }
        UnaryOp::Log => s.div(g, x)?,
        UnaryOp::Log1p => {
            let below = s.with(BinaryOp::Add, x, 1.0)?;
            s.div(g, below)?
        }
        UnaryOp::Sin => {
            let cos = s.un(UnaryOp::Cos, x)?;
            s.mul(g, cos)?
        }
        UnaryOp::Cos => {
            let sin = s.un(UnaryOp::Sin, x)?;
            let product = s.mul(g, sin)?;
            s.neg(product)?
        }
        // g (1 + y^2)
        UnaryOp::Tan => {
            let square = s.mul(y, y)?;
            let slope = s.with(BinaryOp::Add, square, 1.0)?;
            s.mul(g, slope)?
        }
        // g / sqrt(1 - x^2)
        UnaryOp::Asin | UnaryOp::Acos => {
            let square = s.mul(x, x)?;
            let rest = s.from(1.0, square)?;
            let root = s.un(UnaryOp::Sqrt, rest)?;
            let gradient = s.div(g, root)?;
            if op == UnaryOp::Acos { s.neg(gradient)? } else { gradient }
        }
        UnaryOp::Atan => {
            let square = s.mul(x, x)?;
            let below = s.with(BinaryOp::Add, square, 1.0)?;
            s.div(g, below)?
        }
        UnaryOp::Tanh => {
            let square = s.mul(y, y)?;
            let slope = s.from(1.0, square)?;
            s.mul(g, slope)?
        }
        // g (2 / sqrt pi) e^(-x^2)
        UnaryOp::Erf => {
            let square = s.mul(x, x)?;
            let minus = s.neg(square)?;
            let e = s.un(UnaryOp::Exp, minus)?;
            let slope = s.with(BinaryOp::Mul, e, std::f64::consts::FRAC_2_SQRT_PI)?;
            s.mul(g, slope)?
        }
    };
    s.give(0, gradient);
    Ok(())
}

pub(super) fn binary(s: &mut Site<'_>, op: BinaryOp) -> Ruled {
    let (g, a, b, y) = (s.g()?, s.x(0)?, s.x(1)?, s.y());
    match op {
        BinaryOp::Add => {
            s.give(0, g);
            s.give(1, g);
        }
        BinaryOp::Sub => {
            s.give(0, g);
            if s.wants(1) {
                let minus = s.neg(g)?;
                s.give(1, minus);
            }
        }
        BinaryOp::Mul => {
            if s.wants(0) {
                let first = s.mul(g, b)?;
                s.give(0, first);
            }
            if s.wants(1) {
                let second = s.mul(g, a)?;
                s.give(1, second);
            }
        }
        // g / b, and -y (g / b)
        BinaryOp::Div => {
            let first = s.div(g, b)?;
            s.give(0, first);
            if s.wants(1) {
                let product = s.mul(first, y)?;
                let second = s.neg(product)?;
                s.give(1, second);
            }
        }
        // y = a - q b with a whole number q
        BinaryOp::Rem => {
            s.give(0, g);
            if s.wants(1) {
                let difference = s.bin(BinaryOp::Sub, y, a)?;
                let minus_q = s.div(difference, b)?;
                let second = s.mul(g, minus_q)?;
                s.give(1, second);
            }
        }
        BinaryOp::Pow => power(s)?,
        // With a the ordinate: g b / (a^2 + b^2) and -g a / (a^2 + b^2)
        BinaryOp::Atan2 => {
            let (aa, bb) = (s.mul(a, a)?, s.mul(b, b)?);
            let square = s.bin(BinaryOp::Add, aa, bb)?;
            let scaled = s.div(g, square)?;
            if s.wants(0) {
                let first = s.mul(scaled, b)?;
                s.give(0, first);
            }
            if s.wants(1) {
                let product = s.mul(scaled, a)?;
                let second = s.neg(product)?;
                s.give(1, second);
            }
        }
        BinaryOp::Min | BinaryOp::Max => {
            for (i, own, other) in [(0, a, b), (1, b, a)] {
                if s.wants(i) {
                    let gradient = extreme(s, op, own, other)?;
                    s.give(i, gradient);
                }
            }
        }
        BinaryOp::And
        | BinaryOp::Or
        | BinaryOp::Xor
        | BinaryOp::Shl
        | BinaryOp::Shr
        | BinaryOp::Eq
        | BinaryOp::Lt
        | BinaryOp::Le => {}
    }
    Ok(())
}

/// g p a^(p - 1), and g y ln a; 0 where the exponent is 0, and where the base is 0 and the exponent not negative.
fn power(s: &mut Site<'_>) -> Ruled {
    let (g, a, p, y) = (s.g()?, s.x(0)?, s.x(1)?, s.y());
    if s.wants(0) {
        let less = s.with(BinaryOp::Sub, p, 1.0)?;
        let lower = s.bin(BinaryOp::Pow, a, less)?;
        let slope = s.mul(p, lower)?;
        let mut first = s.mul(g, slope)?;
        if !is_constant(s, p) {
            let zero = s.zeros(p)?;
            let flat = s.bin(BinaryOp::Eq, p, zero)?;
            first = s.unless(flat, first)?;
        }
        s.give(0, first);
    }
    if s.wants(1) {
        let log = s.un(UnaryOp::Log, a)?;
        let slope = s.mul(y, log)?;
        let second = s.mul(g, slope)?;
        let zero = s.zeros(a)?;
        let (origin, upward) = (s.bin(BinaryOp::Eq, a, zero)?, s.bin(BinaryOp::Le, zero, p)?);
        let flat = s.bin(BinaryOp::And, origin, upward)?;
        let second = s.unless(flat, second)?;
        s.give(1, second);
    }
    Ok(())
}

/// What one operand of a minimum or maximum gets. NaN passes the cotangent on to both.
fn extreme(s: &mut Site<'_>, op: BinaryOp, own: Value, other: Value) -> Ruled<Value> {
    let g = s.g()?;
    // Where the other is the result.
    let (low, high) = if op == BinaryOp::Max { (own, other) } else { (other, own) };
    if is_constant(s, other) {
        let lost = s.bin(BinaryOp::Le, low, high)?;
        return s.unless(lost, g);
    }
    let (lost, tie) = (s.bin(BinaryOp::Lt, low, high)?, s.bin(BinaryOp::Eq, own, other)?);
    let half = s.with(BinaryOp::Mul, g, 0.5)?;
    let shared = s.select(tie, half, g)?;
    s.unless(lost, shared)
}

/// Whether a value repeats constants.
fn is_constant(s: &Site<'_>, mut value: Value) -> bool {
    for _ in 0..DEPTH {
        let node = s.b.function.node(value.node);
        match (&node.op, node.operands().first()) {
            (Op::Constant { .. }, _) => return true,
            (Op::Broadcast { .. } | Op::Reshape { .. }, Some(&x)) => value = x,
            _ => return false,
        }
    }
    false
}

pub(super) fn select(s: &mut Site<'_>) -> Ruled {
    let (g, c) = (s.g()?, s.x(0)?);
    if s.wants(1) {
        let first = s.when(c, g)?;
        s.give(1, first);
    }
    if s.wants(2) {
        let second = s.unless(c, g)?;
        s.give(2, second);
    }
    Ok(())
}

pub(super) fn cast(s: &mut Site<'_>) -> Ruled {
    let (g, from) = (s.g()?, s.ty(s.x(0)?)?.dtype);
    if from.is_storage_only() || s.ty(s.y())?.dtype.is_storage_only() {
        return refuse("rounding to a storage type has no slope");
    }
    let gradient = s.b.cast(g, from)?;
    s.give(0, gradient);
    Ok(())
}
