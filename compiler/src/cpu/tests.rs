//! Kernels written by hand, run as machine code, compared with plain Rust.

mod harness;
mod loops;
mod maths;
mod random;
mod types;
mod vectors;
