//! Loop IR to machine code for CPUs.

pub mod abi;
