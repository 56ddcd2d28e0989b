//! What the functions that generated code calls compute: f64 elementary functions and integer powers.
//!
//! [`crate::cpu::abi::FUNCTIONS`] lists them; whoever fills that table takes them from here, so that the interpreter
//! and machine code agree. Accuracy is the platform's libm (about 1 ulp).

use frit_ir::{BinaryOp, DType, UnaryOp};

/// An elementary function of one operand.
pub fn unary(op: UnaryOp, x: f64) -> Option<f64> {
    Some(match op {
        UnaryOp::Exp => x.exp(),
        UnaryOp::Expm1 => x.exp_m1(),
        UnaryOp::Log => x.ln(),
        UnaryOp::Log1p => x.ln_1p(),
        UnaryOp::Sin => x.sin(),
        UnaryOp::Cos => x.cos(),
        UnaryOp::Tan => x.tan(),
        UnaryOp::Asin => x.asin(),
        UnaryOp::Acos => x.acos(),
        UnaryOp::Atan => x.atan(),
        UnaryOp::Tanh => x.tanh(),
        UnaryOp::Erf => erf(x),
        UnaryOp::Neg
        | UnaryOp::Abs
        | UnaryOp::Sign
        | UnaryOp::Floor
        | UnaryOp::Ceil
        | UnaryOp::Trunc
        | UnaryOp::RoundEven
        | UnaryOp::Sqrt
        | UnaryOp::Not => return None,
    })
}

/// An elementary function of two operands.
pub fn binary(op: BinaryOp, a: f64, b: f64) -> Option<f64> {
    match op {
        BinaryOp::Pow => Some(a.powf(b)),
        BinaryOp::Atan2 => Some(a.atan2(b)),
        BinaryOp::Rem => Some(a % b),
        _ => None,
    }
}

/// a^b by repeated multiplication, to be cut to the type's width; a negative exponent gives 0 (1 and -1 excepted).
pub fn ipow(dtype: DType, a: i128, b: i128) -> i128 {
    match (a, b) {
        (1, _) => 1,
        (-1, e) => 1 - 2 * (e & 1),
        (_, ..0) => 0,
        (a, b) => {
            let (mut result, mut square, mut left) = (1i64, a as i64, b);
            while left > 0 {
                if left & 1 == 1 {
                    result = result.wrapping_mul(square);
                }
                square = square.wrapping_mul(square);
                left >>= 1;
            }
            // Low bits are right for every width; the caller's type says how many count.
            if dtype == DType::U64 { i128::from(result as u64) } else { i128::from(result) }
        }
    }
}

/// The error function, within 2 ulp.
///
/// Below 2: erf(x) = 2/sqrt(pi) e^(-x^2) sum of 2^n x^(2n+1) / (2n+1)!! (DLMF 7.6.2; all terms positive). From 2:
/// 1 - erfc(x) by the continued fraction of DLMF 7.9.1.
pub fn erf(x: f64) -> f64 {
    let a = x.abs();
    if x.is_nan() || a < 1e-300 {
        return x * std::f64::consts::FRAC_2_SQRT_PI;
    }
    if a >= 6.0 {
        return 1f64.copysign(x);
    }
    let square = a * a;
    // The rounding error of the square, made good to first order.
    let gauss = (-square).exp() * (1.0 - a.mul_add(a, -square));
    let value = if a < 2.0 {
        let (mut term, mut sum, mut odd) = (a, a, 1.0);
        while term > sum * 1e-18 {
            odd += 2.0;
            term *= 2.0 * square / odd;
            sum += term;
        }
        std::f64::consts::FRAC_2_SQRT_PI * gauss * sum
    } else {
        let fraction = (1..=100).rev().fold(a, |tail, k| a + f64::from(k) / 2.0 / tail);
        1.0 - gauss * (std::f64::consts::FRAC_2_SQRT_PI / 2.0) / fraction
    };
    value.copysign(x)
}
