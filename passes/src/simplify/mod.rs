//! Less work for the same result: constants folded, equal ops merged, dead ops removed, algebra from a table of rules.
//!
//! ```text
//!  simplify = unbroadcast, then (fold, algebra, cse, dce) until nothing changes
//! ```
//!
//! In strict mode none of these changes a bit of any result, so every level gives the same bits. [`canonicalize`]
//! chooses among forms that do round differently, and runs at every level for that reason.

pub mod algebra;
mod assumed;
pub mod canonicalize;
pub mod cse;
pub mod dce;
pub mod extents;
pub mod facts;
pub mod fold;
pub mod unbroadcast;

use frit_ir::{DType, Module};

use crate::manager::{Context, Pass, PassError};

/// The pass that runs all of them.
pub struct Simplify;

impl Pass for Simplify {
    fn run(&self, module: &mut Module, context: &mut Context<'_>) -> Result<(), PassError> {
        unbroadcast::Unbroadcast.run(module, context)?;
        for _ in 0..context.step().get("rounds", 8) {
            let before = context.fired();
            fold::Fold.run(module, context)?;
            algebra::Algebra.run(module, context)?;
            cse::Cse.run(module, context)?;
            dce::Dce.run(module, context)?;
            if context.fired() == before {
                break;
            }
        }
        Ok(())
    }
}

/// The number that two bytes of a 16-bit float are.
pub(crate) fn half_to_f64(dtype: DType, bytes: &[u8]) -> Option<f64> {
    let bits = u16::from_le_bytes(bytes.try_into().ok()?);
    match dtype {
        DType::BF16 => Some(f64::from(f32::from_bits(u32::from(bits) << 16))),
        DType::F16 => {
            let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
            let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
            Some(match exponent {
                31 if fraction == 0.0 => sign * f64::INFINITY,
                31 => f64::NAN,
                0 => sign * fraction * 2f64.powi(-24),
                _ => sign * (1024.0 + fraction) * 2f64.powi(exponent - 25),
            })
        }
        _ => None,
    }
}
