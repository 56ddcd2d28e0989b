//! Powers with constant exponents.
//!
//! Canonical: x^1, x^2, x^3 and x^-1 are products and a quotient at every level, because a general power may round
//! differently. So is x^0.5, with what a square root alone gets wrong: the power of -infinity is infinity, of -0 is 0.
//! Other small whole exponents become products of squares where the last digits are free.

use frit_ir::builder::{Builder, Built};
use frit_ir::op::BinaryOp;
use frit_ir::{DType, NodeId, UnaryOp, Value};

use super::movement::input;
use super::{Outcome, Rule, Scope, found};

fn example(b: &mut Builder<'_>, exponent: f64) -> Result<Vec<Value>, frit_ir::op::infer::TypeError> {
    let (x, c) = (input(b, &[3]), b.scalar(DType::F32, exponent)?);
    Ok(vec![b.binary(BinaryOp::Pow, x, c)?])
}

/// Largest exponent written as products: each of them may lose half a unit in the last place.
const MOST_FACTORS: f64 = 8.0;

pub(super) static RULES: &[Rule] = &[
    rule!("pow-zero", "x^0 = 1", "a constant 0; also where x is NaN", Strict Algebra Bits, pow_zero, |b| example(b, 0.0)),
    rule!("pow-one", "x^1 = x", "a constant 1", Strict Canonical Bits, |s, id| power(s, id, 1.0, |_, x| Ok(x)), |b| {
        example(b, 1.0)
    }),
    rule!("pow-two", "x^2 = x x", "a constant 2", Strict Canonical Rounding,
        |s, id| power(s, id, 2.0, |b, x| b.binary(BinaryOp::Mul, x, x)), |b| example(b, 2.0)),
    rule!("pow-three", "x^3 = (x x) x", "a constant 3", Strict Canonical Rounding, |s, id| power(s, id, 3.0, |b, x| {
        let square = b.binary(BinaryOp::Mul, x, x)?;
        b.binary(BinaryOp::Mul, square, x)
    }), |b| example(b, 3.0)),
    rule!("pow-minus-one", "x^-1 = 1 / x", "a constant -1; floats", Strict Canonical Rounding,
        |s, id| float_power(s, id, -1.0, |b, x| {
            let ty = b.tensor(x)?;
            let one = b.scalar(ty.dtype, 1.0)?;
            b.binary(BinaryOp::Div, one, x)
        }), |b| example(b, -1.0)),
    rule!("pow-half", "x^0.5 = x = -inf ? inf : sqrt(x + 0)", "a constant 0.5; floats", Strict Canonical Rounding,
        |s, id| float_power(s, id, 0.5, |b, x| {
            let dtype = b.tensor(x)?.dtype;
            let (zero, low) = (b.scalar(dtype, 0.0)?, b.scalar(dtype, f64::NEG_INFINITY)?);
            let high = b.scalar(dtype, f64::INFINITY)?;
            let (positive, is_low) = (b.binary(BinaryOp::Add, x, zero)?, b.binary(BinaryOp::Eq, x, low)?);
            let root = b.unary(UnaryOp::Sqrt, positive)?;
            b.select(is_low, high, root)
        }), |b| example(b, 0.5)),
    rule!("pow-squares", "x^n = x^1 x^2 x^4 .., x^-n = 1 / x^n", "a constant n of 2 to 8; floats", Approximate Algebra Rounding,
        pow_squares, |b| example(b, 5.0)),
];

fn pow_zero(s: &Scope<'_>, id: NodeId) -> Outcome {
    let (Some((_, e)), Some(ty)) = (s.binary(id, BinaryOp::Pow), s.result(id)) else { return Outcome::No };
    // -0 is 0 here.
    if s.number(e) != Some(0.0) {
        return Outcome::No;
    }
    let (dtype, dims) = (ty.dtype, ty.dims.clone());
    found([], move |b| {
        let one = b.scalar(dtype, 1.0)?;
        b.broadcast_to(one, dims)
    })
}

fn pow_squares(s: &Scope<'_>, id: NodeId) -> Outcome {
    let (Some((x, e)), Some(ty)) = (s.binary(id, BinaryOp::Pow), s.result(id)) else { return Outcome::No };
    let Some(exponent) = s.number(e) else { return Outcome::No };
    let whole = exponent.trunc() == exponent && (2.0..=MOST_FACTORS).contains(&exponent.abs());
    if !whole || !ty.dtype.is_float() {
        return Outcome::No;
    }
    let dtype = ty.dtype;
    found([], move |b| {
        let (mut rest, mut square, mut product) = (exponent.abs() as u32, x, None);
        while rest > 0 {
            if rest % 2 == 1 {
                product = Some(match product {
                    None => square,
                    Some(low) => b.binary(BinaryOp::Mul, square, low)?,
                });
            }
            rest /= 2;
            if rest > 0 {
                square = b.binary(BinaryOp::Mul, square, square)?;
            }
        }
        let power = product.unwrap_or(x);
        if exponent > 0.0 {
            return Ok(power);
        }
        let one = b.scalar(dtype, 1.0)?;
        b.binary(BinaryOp::Div, one, power)
    })
}

fn power(s: &Scope<'_>, id: NodeId, exponent: f64, build: fn(&mut Builder<'_>, Value) -> Built) -> Outcome {
    match s.binary(id, BinaryOp::Pow) {
        Some((x, e)) if s.is_number(e, exponent) => found([], move |b| build(b, x)),
        Some(_) | None => Outcome::No,
    }
}

fn float_power(s: &Scope<'_>, id: NodeId, exponent: f64, build: fn(&mut Builder<'_>, Value) -> Built) -> Outcome {
    if s.result(id).is_some_and(|t| t.dtype.is_float()) { power(s, id, exponent, build) } else { Outcome::No }
}
