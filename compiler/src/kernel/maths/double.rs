//! What the functions that generated code calls compute: f64 elementary functions and integer powers.
//!
//! [`crate::cpu::abi::FUNCTIONS`] lists them; whoever fills that table takes them from here, so that the interpreter
//! and machine code agree. Accuracy is the platform's libm (about 1 ulp).

/// An elementary function of one operand is the reference evaluator's.
pub use frit_ir::reference::{elementary as unary, erf};
use frit_ir::{BinaryOp, DType};

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
