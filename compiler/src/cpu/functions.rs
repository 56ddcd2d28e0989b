//! The functions that generated code may call, as addresses in the order of [`super::abi::FUNCTIONS`].
//!
//! What they compute is `kernel::maths::double`'s, so that the interpreter and machine code agree.
//! Integer powers multiply with wrap-around, as the core op `pow` says.

use std::sync::LazyLock;

use frit_ir::DType;

use super::abi::FUNCTIONS;
use crate::kernel::maths::double;

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
    erf(x: f64) -> f64 = super::double::erf(x);
    pow(x: f64, y: f64) -> f64 = x.powf(y);
    atan2(y: f64, x: f64) -> f64 = y.atan2(x);
    fmod(x: f64, y: f64) -> f64 = x % y;
    ipow(x: i64, n: i64) -> i64 = super::double::ipow(super::DType::I64, x.into(), n.into()) as i64;
    upow(x: u64, n: u64) -> u64 = super::double::ipow(super::DType::U64, x.into(), n.into()) as u64;
    fma(a: f64, b: f64, c: f64) -> f64 = a.mul_add(b, c);
    fmaf(a: f32, b: f32, c: f32) -> f32 = a.mul_add(b, c);
}

/// The addresses, for [`KernelArgs::functions`](super::abi::KernelArgs::functions).
pub fn table() -> &'static [usize] {
    static TABLE: LazyLock<Vec<usize>> =
        LazyLock::new(|| FUNCTIONS.iter().map(|name| address(name).unwrap_or(0)).collect());
    &TABLE
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
    fn integer_powers_wrap_and_know_negative_exponents() {
        assert_eq!(entry::ipow(3, 4), 81);
        assert_eq!(entry::ipow(-2, 63), i64::MIN);
        assert_eq!(entry::ipow(-1, -3), -1);
        assert_eq!(entry::ipow(-1, i64::MIN), 1);
        assert_eq!(entry::ipow(1, -9), 1);
        assert_eq!(entry::ipow(2, -1), 0);
        assert_eq!(entry::ipow(0, 0), 1);
        assert_eq!(entry::upow(3, u64::MAX), 12297829382473034411, "the inverse of 3 modulo 2^64");
    }
}
