//! What tests that cross crates share: a case through the pipeline, failing cases made small, ONNX files by hand.
//!
//! ```text
//!  random seed / .frit / ONNX bytes --> Case { module, inputs } --> every level, lane count, pool --> values
//!                                         |                                                          |
//!                                         '--> reference evaluator in f64, with bounds --> compare --'
//! ```
//!
//! [`filetest`] runs files that hold an input and what the compiler makes of it, [`mod@diff`] shows where two texts differ;
//! [`case`] holds the first row and the comparison, [`mod@shrink`] makes what fails small enough to paste, [`wire`] writes,
//! takes apart and damages protobuf messages without knowing their meaning, [`onnx`] spells small models in it.

pub mod case;
pub mod diff;
pub mod filetest;
pub mod onnx;
pub mod shrink;
pub mod wire;

pub use case::{Case, within};
pub use shrink::shrink;
