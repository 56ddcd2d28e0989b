//! Scalars: how each element type rounds, wraps and bounds.
//!
//! Floats of every type are held as f64 and integers (and bool) as i128, both exactly. An op computes there and brings
//! the result back with [`Rounding`] or [`wrap`].

use half::{bf16, f16};

use crate::minifloat;
use crate::op::UnaryOp;
use crate::types::{Class, DType};

/// How results of one float type are kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rounding {
    pub(super) dtype: DType,
    pub(super) wide: bool,
}

impl Rounding {
    /// The value as its type holds it. 16-bit types round through f32, as they are computed in it. In wide mode only
    /// the storage types round: they are part of what a program means.
    pub(super) fn apply(self, v: f64) -> f64 {
        match self.dtype {
            DType::F32 | DType::F16 | DType::BF16 if self.wide => v,
            DType::F32 => f64::from(v as f32),
            DType::F16 => f64::from(f16::from_f32(v as f32)),
            DType::BF16 => f64::from(bf16::from_f32(v as f32)),
            DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F8E5M2 | DType::F8E5M2FNUZ | DType::F8E8M0 | DType::F4E2M1 => {
                minifloat::encode(self.dtype, f64::from(v as f32), true)
                    .and_then(|code| minifloat::decode(self.dtype, code))
                    .unwrap_or(v)
            }
            DType::F64
            | DType::I8
            | DType::I16
            | DType::I32
            | DType::I64
            | DType::U8
            | DType::U16
            | DType::U32
            | DType::U64
            | DType::Bool
            | DType::I4
            | DType::U4
            | DType::I2
            | DType::U2
            | DType::Str => v,
        }
    }

    /// The type that sums of this type are kept in: f32 for 16-bit floats, else itself.
    pub(super) fn accumulator(self) -> Rounding {
        let dtype = if matches!(self.dtype, DType::F16 | DType::BF16) { DType::F32 } else { self.dtype };
        Rounding { dtype, ..self }
    }
}

/// Smallest and largest integer of a type; bool: 0 and 1.
pub(super) fn int_limits(dtype: DType) -> (i128, i128) {
    let bits = dtype.bits();
    match dtype.class() {
        Class::Signed => (-(1 << (bits - 1)), (1 << (bits - 1)) - 1),
        Class::Unsigned | Class::Bool => (0, (1 << bits) - 1),
        Class::Float | Class::Text => (0, 0),
    }
}

/// The low bits of a value as the type reads them; bool: whether it is not 0.
pub(super) fn wrap(dtype: DType, v: i128) -> i128 {
    let (low, high) = int_limits(dtype);
    if dtype == DType::Bool {
        return i128::from(v != 0);
    }
    low.wrapping_add(v.wrapping_sub(low) & (high - low))
}

/// An elementary function of f64, by the platform's libm (about 1 ulp); `None` for the others. Generated code that has
/// no lanes for a function calls this too.
pub fn elementary(op: UnaryOp, x: f64) -> Option<f64> {
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

/// The error function, within 2 ulp of f64.
///
/// Below 2: erf(x) = 2/sqrt(pi) e^(-x^2) sum over n of 2^n x^(2n+1) / (2n+1)!! (DLMF 7.6.2; every term is positive, so
/// nothing cancels). From 2: 1 - erfc(x) by the continued fraction of DLMF 7.9.1.
pub fn erf(x: f64) -> f64 {
    let a = x.abs();
    if x.is_nan() || a < 1e-300 {
        return x * std::f64::consts::FRAC_2_SQRT_PI;
    }
    if a >= 6.0 {
        return 1f64.copysign(x);
    }
    let square = a * a;
    // e^(-x^2) with the rounding error of the square made good to first order.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_wrap_to_their_width() {
        assert_eq!(wrap(DType::I8, 128), -128);
        assert_eq!(wrap(DType::U8, -1), 255);
        assert_eq!(wrap(DType::I2, 2), -2);
        assert_eq!(wrap(DType::U4, 17), 1);
        assert_eq!(wrap(DType::I64, i128::from(i64::MIN) - 1), i128::from(i64::MAX));
        assert_eq!(wrap(DType::U64, i128::MIN), 0);
        assert_eq!(wrap(DType::Bool, 256), 1);
    }

    /// From Python's math.erf (which is within 1 ulp).
    #[test]
    fn erf_agrees_with_libm() {
        let table = [
            (1e-300, 1.1283791670955126e-300),
            (1e-10, 1.1283791670955126e-10),
            (0.1, 0.1124629160182849),
            (0.25, 0.2763263901682369),
            (0.5, 0.5204998778130465),
            (0.75, 0.7111556336535151),
            (1.0, 0.8427007929497149),
            (1.25, 0.9229001282564582),
            (1.5, 0.9661051464753108),
            (1.75, 0.9866716712191824),
            (1.999, 0.9953015566513705),
            (2.0, 0.9953222650189527),
            (2.1, 0.997020533343667),
            (2.5, 0.999593047982555),
            (3.0, 0.9999779095030014),
            (3.5, 0.9999992569016276),
            (4.0, 0.9999999845827421),
            (5.0, 0.9999999999984626),
            (5.9, 0.9999999999999999),
        ];
        for (x, y) in table {
            assert!((erf(x) - y).abs() <= 4e-16 * y.abs(), "erf({x}) = {} not {y}", erf(x));
            assert_eq!(erf(-x), -erf(x));
        }
        assert_eq!(erf(7.0), 1.0);
        assert_eq!(erf(f64::NEG_INFINITY), -1.0);
        assert!(erf(f64::NAN).is_nan());
    }
}
