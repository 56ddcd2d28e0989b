//! Loop IR to CUDA C++ for NVRTC: one kernel as readable text.
//!
//! ```text
//!  Kernel, expanded --> [emit] statements and loops --> one __global__ function a phase
//!                         |-- [scalar] operations, constants, casts      '-- [helpers] device functions they call
//!                         '-- [index]  index expressions
//! ```
//!
//! In: a kernel after [`crate::kernel::expand`]. Out: text that needs no header, the same for the same kernel.
//!
//! Phase p of kernel `NAME` is `extern "C" __global__ void NAME_pP(...)` ([`function_name`]). All phases take the same
//! parameters: a pointer for every argument buffer in order, a `long long` for every dim in order, then
//! `unsigned int* status`, which the caller sets to 0 and which holds 1 + the highest code of a failed check
//! afterwards. Phases are launched in order on one stream, with any grid and block of one dimension: a thread runs the
//! outer iterations that are its own in a grid-stride loop. Locals and reductions are a thread's own.
//!
//! The bits are those of [`crate::kernel::interp`]: float arithmetic goes through the `_rn` intrinsics, which are never
//! contracted; wrapping integer arithmetic is done on unsigned types; reductions keep the order of `frit_ir::order`.
//! Elementary functions of f64 are CUDA's of that name, within 2 ulp of the interpreter's. f16 and bf16 are carried as
//! their bits in an `unsigned short`, bool in memory as a byte. The text must not be compiled with `--use_fast_math` or
//! `--ftz=true`; every other option is free.

mod emit;
mod helpers;
mod index;
mod scalar;
#[cfg(test)]
mod tests;

pub use emit::{emit, function_name};

/// Why a kernel can't be written as CUDA C++.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CudaError {
    /// The kernel asks for something that a GPU thread does not have.
    #[error("kernel `{kernel}`: {what} can't be written as CUDA C++")]
    Unsupported {
        /// The kernel.
        kernel: String,
        /// What it asks for.
        what: String,
    },
    /// The kernel breaks a rule of the loop IR, or was not expanded.
    #[error("kernel `{kernel}` is not valid: {what}")]
    Invalid {
        /// The kernel.
        kernel: String,
        /// What is wrong.
        what: String,
    },
}

/// An error before the kernel's name is known.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Refusal {
    Unsupported(String),
    Invalid(String),
}

impl Refusal {
    fn of(self, kernel: &str) -> CudaError {
        let kernel = kernel.to_owned();
        match self {
            Refusal::Unsupported(what) => CudaError::Unsupported { kernel, what },
            Refusal::Invalid(what) => CudaError::Invalid { kernel, what },
        }
    }
}
