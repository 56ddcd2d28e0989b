//! Module in, module out.
//!
//! ```text
//!  Module --> legalize --> shape --> canonicalize --> grad --> simplify --> fuse --> Module for the compiler
//!             ONNX to core  extents   every level      vjp ops   fold, cse,   one Fusion node
//!                           as Dims                    go        dce, algebra a kernel
//! ```
//!
//! What never happens here: passes know no device and no machine code, and nothing of a user's model is run beyond
//! folding constants through [`frit_ir`]'s reference evaluator.

pub mod fuse;
pub mod grad;
pub mod legalize;
pub mod manager;
pub mod shape;
pub mod simplify;
