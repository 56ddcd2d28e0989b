//! Module in, module out.
//!
//! ```text
//!  Module --> legalize --> canonicalize --> shape --> simplify --> fuse --> Module for the compiler
//!             ONNX to core  every level     extents    fold, cse,   one Fusion node
//!                                           as Dims    dce, algebra a kernel
//! ```
//!
//! What never happens here: passes know no device and no machine code, and nothing of a user's model is run beyond
//! folding constants through [`frit_ir`]'s reference evaluator.

pub mod fuse;
pub mod legalize;
pub mod manager;
pub mod shape;
pub mod simplify;
