//! Loop IR to machine code for CPUs.
//!
//! ```text
//!  Kernel + Schedule --[blocks, code]--> one function a phase --[function, index, scalar, reduce]--> CLIF --[link]--> KernelCode
//!                          '---- innermost loops, outlined --[strip]--> leaf functions ------------^
//!                                                 AVX2 and AVX-512 by an emitter of our own, else through Cranelift
//!  KernelCode --[exec]--> executable memory, called with [abi::KernelArgs]
//! ```
//!
//! [`abi`] is what both sides agree on; [`exec`] and [`functions`] are all that a build without the `jit` feature needs
//! to run code that was compiled before. Kernels come expanded: elementary functions of f32 and arithmetic on 16-bit
//! floats are already written in the few operations that machines have.

pub mod abi;
pub mod exec;
pub mod functions;

#[cfg(feature = "jit")]
mod blocks;
#[cfg(feature = "jit")]
mod code;
#[cfg(feature = "jit")]
mod error;
#[cfg(feature = "jit")]
mod function;
#[cfg(feature = "jit")]
mod index;
#[cfg(feature = "jit")]
mod link;
#[cfg(feature = "jit")]
mod reduce;
#[cfg(feature = "jit")]
mod scalar;
#[cfg(feature = "jit")]
pub mod strip;
#[cfg(feature = "jit")]
mod target;
#[cfg(feature = "jit")]
#[cfg(test)]
mod tests;

#[cfg(feature = "jit")]
pub(crate) use blocks::worth;
#[cfg(feature = "jit")]
pub use code::{CodeGenerator, CodeOptions, CodeReport, ScalarLoop, Vectors, compile, compile_text};
#[cfg(feature = "jit")]
pub use error::CodeError;
#[cfg(feature = "jit")]
pub use target::{Effort, Target, VectorBits};
