//! The functions that generated code may call, as addresses in the order of [`FUNCTIONS`](super::abi::FUNCTIONS).
//!
//! f64 functions are the standard library's, except erf, which it does not have. Integer powers multiply with
//! wrap-around, as the core op `pow` says.

use std::sync::LazyLock;

use super::abi::FUNCTIONS;

macro_rules! functions {
    ($($name:ident ($($arg:ident : $ty:ty),*) -> $result:ty = $body:expr;)*) => {
        mod entry {
            $( pub(super) extern "C" fn $name($($arg: $ty),*) -> $result { $body } )*
        }

        fn address(name: &str) -> Option<usize> {
            match name {
                $( stringify!($name) => Some(entry::$name as *const () as usize), )*
                _ => None,
            }
        }
    };
}

functions! {
    exp(x: f64) -> f64 = x.exp();
    expm1(x: f64) -> f64 = x.exp_m1();
    log(x: f64) -> f64 = x.ln();
    log1p(x: f64) -> f64 = x.ln_1p();
    sin(x: f64) -> f64 = x.sin();
    cos(x: f64) -> f64 = x.cos();
    tan(x: f64) -> f64 = x.tan();
    asin(x: f64) -> f64 = x.asin();
    acos(x: f64) -> f64 = x.acos();
    atan(x: f64) -> f64 = x.atan();
    tanh(x: f64) -> f64 = x.tanh();
    erf(x: f64) -> f64 = super::erf(x);
    pow(x: f64, y: f64) -> f64 = x.powf(y);
    atan2(y: f64, x: f64) -> f64 = y.atan2(x);
    fmod(x: f64, y: f64) -> f64 = x % y;
    ipow(x: i64, n: i64) -> i64 = super::signed_power(x, n);
    upow(x: u64, n: u64) -> u64 = super::unsigned_power(x, n);
    fma(a: f64, b: f64, c: f64) -> f64 = a.mul_add(b, c);
    fmaf(a: f32, b: f32, c: f32) -> f32 = a.mul_add(b, c);
}

/// The addresses, for [`KernelArgs::functions`](super::abi::KernelArgs::functions).
pub fn table() -> &'static [usize] {
    static TABLE: LazyLock<Vec<usize>> =
        LazyLock::new(|| FUNCTIONS.iter().map(|name| address(name).unwrap_or(0)).collect());
    &TABLE
}

/// x^n by repeated squaring, modulo 2^64.
fn unsigned_power(x: u64, n: u64) -> u64 {
    let (mut result, mut square, mut left) = (1u64, x, n);
    while left > 0 {
        if left & 1 == 1 {
            result = result.wrapping_mul(square);
        }
        square = square.wrapping_mul(square);
        left >>= 1;
    }
    result
}

/// x^n modulo 2^64; 0 for n < 0 unless x is 1 or -1.
fn signed_power(x: i64, n: i64) -> i64 {
    match (x, n) {
        (1, _) => 1,
        (-1, _) => {
            if n % 2 == 0 {
                1
            } else {
                -1
            }
        }
        (_, ..0) => 0,
        (_, 0..) => unsigned_power(x as u64, n as u64) as i64,
    }
}

/// The error function, 2/sqrt(pi) times the integral of e^-t^2 from 0 to x, to a few units in the last place.
///
/// |x| < 2: the series 2/sqrt(pi) e^-x^2 sum_n 2^n x^(2n+1) / (2n+1)!! (Abramowitz and Stegun 7.1.6), whose terms all
/// have one sign, so nothing cancels. Beyond: 1 - erfc(x) with the continued fraction of erfc (7.1.14) by the
/// recurrence from its far end; erfc is below 0.005 there, so its error hardly counts.
pub fn erf(x: f64) -> f64 {
    const TWO_OVER_SQRT_PI: f64 = std::f64::consts::FRAC_2_SQRT_PI;
    let magnitude = x.abs();
    if x.is_nan() {
        return x;
    }
    if magnitude >= 6.0 {
        return 1.0f64.copysign(x);
    }
    if magnitude < 2.0 {
        let square = x * x;
        let (mut term, mut sum, mut n) = (x, x, 0.0f64);
        // Terms fall by at least 2 x^2 / (2 n + 3) once n passes x^2: some 45 terms at most.
        while n < 80.0 && term.abs() > sum.abs() * 1e-18 {
            n += 1.0;
            term *= 2.0 * square / (2.0 * n + 1.0);
            sum += term;
        }
        return TWO_OVER_SQRT_PI * (-square).exp() * sum;
    }
    // sqrt(pi) e^(x^2) erfc(x) = 1 / (x + (1/2) / (x + (2/2) / (x + (3/2) / (x + ...))))
    let mut tail = magnitude;
    for k in (1..=120).rev() {
        tail = magnitude + f64::from(k) / 2.0 / tail;
    }
    let erfc = (-magnitude * magnitude).exp() / tail * (TWO_OVER_SQRT_PI / 2.0);
    (1.0 - erfc).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_an_address() {
        assert_eq!(table().len(), FUNCTIONS.len());
        assert!(table().iter().all(|a| *a != 0), "{:?}", table());
    }

    #[test]
    fn erf_is_what_tables_say() {
        // Abramowitz and Stegun, table 7.1, and values of a 50-digit evaluation.
        let known = [
            (0.0, 0.0),
            (1e-10, 1.1283791670955126e-10),
            (0.1, 0.1124629160182849),
            (0.5, 0.5204998778130465),
            (1.0, 0.8427007929497149),
            (1.5, 0.9661051464753108),
            (2.0, 0.9953222650189527),
            (2.5, 0.999593047982555),
            (3.0, 0.9999779095030014),
            (4.0, 0.9999999845827421),
            (5.9, 1.0),
        ];
        for (x, value) in known {
            assert!((erf(x) - value).abs() <= 4.0 * f64::EPSILON * value, "erf({x}) = {}, not {value}", erf(x));
            assert_eq!(erf(-x).to_bits(), (-erf(x)).to_bits());
        }
        assert!(erf(f64::NAN).is_nan());
        assert_eq!(erf(f64::INFINITY), 1.0);
    }

    #[test]
    fn erf_does_not_jump_where_its_forms_meet() {
        let (below, above) = (erf(2.0 - 1e-15), erf(2.0));
        assert!((below - above).abs() < 1e-15, "{below} {above}");
    }

    #[test]
    fn integer_powers_wrap_and_know_negative_exponents() {
        assert_eq!(signed_power(3, 4), 81);
        assert_eq!(signed_power(-2, 63), i64::MIN);
        assert_eq!(signed_power(-1, -3), -1);
        assert_eq!(signed_power(-1, i64::MIN), 1);
        assert_eq!(signed_power(1, -9), 1);
        assert_eq!(signed_power(2, -1), 0);
        assert_eq!(signed_power(0, 0), 1);
        assert_eq!(unsigned_power(3, u64::MAX), 12297829382473034411, "the inverse of 3 modulo 2^64");
    }
}
