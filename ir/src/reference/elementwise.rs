//! Ops on one element at a time.

use super::array::{Array, Data};
use super::number::{elementary, wrap};
use super::{Cx, Evaluated};
use crate::op::{BinaryOp, UnaryOp};
use crate::types::DType;

pub(super) fn unary(cx: &Cx<'_>, op: UnaryOp, x: &Array) -> Evaluated {
    let shape = x.shape.clone();
    let undefined = || cx.bad_operand(0, format!("is {}, on which the op is not defined", x.dtype));
    match &x.data {
        Data::Float(values) => {
            let results = values.iter().map(|&v| unary_float(op, v)).collect::<Option<Vec<_>>>();
            Ok(Array::floats(cx.rounding(x.dtype), shape, results.ok_or_else(undefined)?))
        }
        Data::Int(values) => {
            let results = values.iter().map(|&v| unary_int(op, v, x.dtype)).collect::<Option<Vec<_>>>();
            Ok(Array::ints(x.dtype, shape, results.ok_or_else(undefined)?))
        }
        Data::Text(_) => Err(undefined()),
    }
}

pub(super) fn unary_float(op: UnaryOp, x: f64) -> Option<f64> {
    Some(match op {
        UnaryOp::Neg => -x,
        UnaryOp::Abs => x.abs(),
        UnaryOp::Sign => {
            if x > 0.0 {
                1.0
            } else if x < 0.0 {
                -1.0
            } else {
                x
            }
        }
        UnaryOp::Floor => x.floor(),
        UnaryOp::Ceil => x.ceil(),
        UnaryOp::Trunc => x.trunc(),
        UnaryOp::RoundEven => x.round_ties_even(),
        UnaryOp::Sqrt => x.sqrt(),
        UnaryOp::Exp
        | UnaryOp::Expm1
        | UnaryOp::Log
        | UnaryOp::Log1p
        | UnaryOp::Sin
        | UnaryOp::Cos
        | UnaryOp::Tan
        | UnaryOp::Asin
        | UnaryOp::Acos
        | UnaryOp::Atan
        | UnaryOp::Tanh
        | UnaryOp::Erf => return elementary(op, x),
        UnaryOp::Not => return None,
    })
}

fn unary_int(op: UnaryOp, x: i128, dtype: DType) -> Option<i128> {
    Some(match op {
        UnaryOp::Neg => -x,
        UnaryOp::Abs => x.abs(),
        UnaryOp::Sign => x.signum(),
        UnaryOp::Not if dtype == DType::Bool => 1 - x,
        UnaryOp::Not => !x,
        UnaryOp::Floor
        | UnaryOp::Ceil
        | UnaryOp::Trunc
        | UnaryOp::RoundEven
        | UnaryOp::Sqrt
        | UnaryOp::Exp
        | UnaryOp::Expm1
        | UnaryOp::Log
        | UnaryOp::Log1p
        | UnaryOp::Sin
        | UnaryOp::Cos
        | UnaryOp::Tan
        | UnaryOp::Asin
        | UnaryOp::Acos
        | UnaryOp::Atan
        | UnaryOp::Tanh
        | UnaryOp::Erf => return None,
    })
}

pub(super) fn binary(cx: &Cx<'_>, op: BinaryOp, a: &Array, b: &Array) -> Evaluated {
    let shape = a.shape.clone();
    let undefined = || cx.bad_operand(0, format!("is {}, on which the op is not defined", a.dtype));
    match (&a.data, &b.data) {
        (Data::Float(x), Data::Float(y)) => {
            let pairs = x.iter().zip(y);
            if op.is_comparison() {
                return Ok(Array::bools(shape, pairs.map(|(a, b)| compare(op, a, b))));
            }
            let results = pairs.map(|(&a, &b)| binary_float(op, a, b)).collect::<Option<Vec<_>>>();
            Ok(Array::floats(cx.rounding(a.dtype), shape, results.ok_or_else(undefined)?))
        }
        (Data::Int(x), Data::Int(y)) => {
            let pairs = x.iter().zip(y);
            if op.is_comparison() {
                return Ok(Array::bools(shape, pairs.map(|(a, b)| compare(op, a, b))));
            }
            let results = pairs.map(|(&l, &r)| binary_int(op, l, r, a.dtype)).collect::<Option<Vec<_>>>();
            Ok(Array::ints(a.dtype, shape, results.ok_or_else(undefined)?))
        }
        (Data::Float(_) | Data::Int(_) | Data::Text(_), _) => Err(undefined()),
    }
}

fn compare<T: PartialOrd>(op: BinaryOp, a: &T, b: &T) -> bool {
    match op {
        BinaryOp::Eq => a == b,
        BinaryOp::Lt => a < b,
        BinaryOp::Le => a <= b,
        BinaryOp::Add
        | BinaryOp::Sub
        | BinaryOp::Mul
        | BinaryOp::Div
        | BinaryOp::Rem
        | BinaryOp::Pow
        | BinaryOp::Atan2
        | BinaryOp::Min
        | BinaryOp::Max
        | BinaryOp::And
        | BinaryOp::Or
        | BinaryOp::Xor
        | BinaryOp::Shl
        | BinaryOp::Shr => false,
    }
}

/// The result before rounding; `None` for ops that floats don't have.
pub(super) fn binary_float(op: BinaryOp, a: f64, b: f64) -> Option<f64> {
    Some(match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        BinaryOp::Rem => a % b,
        BinaryOp::Pow => a.powf(b),
        BinaryOp::Atan2 => a.atan2(b),
        BinaryOp::Min => minimum(a, b),
        BinaryOp::Max => -minimum(-a, -b),
        BinaryOp::And
        | BinaryOp::Or
        | BinaryOp::Xor
        | BinaryOp::Shl
        | BinaryOp::Shr
        | BinaryOp::Eq
        | BinaryOp::Lt
        | BinaryOp::Le => return None,
    })
}

/// NaN wins; -0 is below +0.
fn minimum(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a < b || (a == b && a.is_sign_negative()) {
        a
    } else {
        b
    }
}

/// The result before wrapping; `None` for ops that the type does not have.
pub(super) fn binary_int(op: BinaryOp, a: i128, b: i128, dtype: DType) -> Option<i128> {
    let logical = matches!(op, BinaryOp::And | BinaryOp::Or | BinaryOp::Xor | BinaryOp::Min | BinaryOp::Max);
    if dtype == DType::Bool && !logical {
        return None;
    }
    let width = i128::from(dtype.bits());
    Some(match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a.wrapping_mul(b),
        BinaryOp::Div => a.checked_div(b).unwrap_or(0),
        BinaryOp::Rem => a.checked_rem(b).unwrap_or(0),
        BinaryOp::Pow => power(a, b, dtype),
        BinaryOp::Min => a.min(b),
        BinaryOp::Max => a.max(b),
        BinaryOp::And => a & b,
        BinaryOp::Or => a | b,
        BinaryOp::Xor => a ^ b,
        // A count outside 0..width shifts everything out; a negative count is a large unsigned one.
        BinaryOp::Shl => {
            if (0..width).contains(&b) {
                a << b
            } else {
                0
            }
        }
        BinaryOp::Shr => {
            if (0..width).contains(&b) {
                a >> b
            } else {
                a >> 127
            }
        }
        BinaryOp::Atan2 | BinaryOp::Eq | BinaryOp::Lt | BinaryOp::Le => return None,
    })
}

fn power(base: i128, exponent: i128, dtype: DType) -> i128 {
    match (base, exponent) {
        (1, _) => 1,
        (-1, e) => {
            if e % 2 == 0 {
                1
            } else {
                -1
            }
        }
        (_, ..0) => 0,
        (base, mut left) => {
            let (mut result, mut square) = (1, base);
            while left > 0 {
                if left % 2 == 1 {
                    result = wrap(dtype, result * square);
                }
                // The square of a u64 leaves i128; its low bits are right.
                square = wrap(dtype, square.wrapping_mul(square));
                left /= 2;
            }
            result
        }
    }
}

pub(super) fn select(condition: &Array, a: &Array, b: &Array) -> Array {
    let both = Array::joined(&[a, b]);
    let from: Vec<usize> =
        condition.as_ints().iter().enumerate().map(|(i, &c)| if c != 0 { i } else { a.len() + i }).collect();
    both.take(&a.shape, &from)
}
