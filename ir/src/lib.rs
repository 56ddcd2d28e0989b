//! What a frit program is: types, tensors, ops, graphs, text, ONNX.
//!
//! ```text
//!  .onnx ---- onnx/ ---.
//!  .frit ---- text/ ---+--> Module { functions, params } --> passes, compiler
//!  Rust  --- builder --'        |
//!           (model/)            |
//!                               +-- verify: what always holds (V1, V2, ...)
//!                               '-- reference: what each op means, as plain loops
//! ```
//!
//! Rooms, in the order that a newcomer reads them: [`types`] (elements, extents), [`tensor`] (constant data), [`op`]
//! (the core op set, one table), [`graph`] (functions), [`module`], [`requirement`] (of extents), [`origin`], [`builder`], [`order`] (of sums), [`random`] (Philox),
//! [`value`] (what runs take and give), [`model`] (networks built in code), [`reference`](mod@reference) (what each op means), [`text`]
//! (the .frit format), [`verify`] (what always holds).
//!
//! What never happens here: ir knows no device, no schedule and no pass; nothing of a user's model is run.

pub mod builder;
pub mod convert;
pub mod graph;
mod map;
pub mod minifloat;
pub mod model;
pub mod module;
pub mod onnx;
pub mod op;
pub mod order;
pub mod origin;
pub mod random;
pub mod reference;
pub mod requirement;
pub mod substitute;
pub mod tensor;
#[doc(hidden)]
pub mod testing;
pub mod text;
pub mod types;
pub mod value;
pub mod verify;

pub use graph::{Donation, Function, Node, NodeId, Output, Value};
pub use module::{Module, Param};
pub use op::{AttrValue, BinaryOp, Flag, Numerics, Op, OpClass, ReduceKind, ScatterKind, UnaryOp};
pub use origin::Origin;
pub use requirement::{Relation, Requirement};
pub use tensor::{Tensor, TensorError};
pub use types::{DType, Dim, Symbol, TensorType, ValueType};
pub use value::{HostValue, MapKey};
