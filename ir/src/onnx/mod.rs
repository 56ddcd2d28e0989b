//! ONNX files in, modules out; and modules out as ONNX files.
//!
//! ```text
//!  model.onnx --> proto (prost structs) -- import --> Module of `onnx` ops --> passes/legalize
//!                   |                       ^
//!                   '-- tensor <-- external  '-- opsets (which version of an operator is meant)
//!  input_0.pb <--> value
//! ```
//!
//! - [`proto`]: the messages of the format; checks the wire format only.
//! - `tensor`, `external`: constant data in every encoding, in the file or beside it.
//! - `value`: test values in files of their own.
//! - [`opsets`]: the versions of all official operators, as a table.
//! - `trainable`: which initializers training may change; `statistics`: how a batch norm trains; `rewrite`: a model file
//!   with other weights.
//! - `import`: names to values, functions inlined, subgraphs to regions.
//! - `export`: a module of core ops as a model.
//! - `error`: what was wrong, or a report of everything that is missing.
//!
//! Nothing in a file is trusted: whatever its bytes, the answer is a module or an error, and no memory is taken because
//! a file claims to need it.

mod error;
mod export;
mod external;
mod import;
pub mod opsets;
pub mod proto;
mod rewrite;
mod statistics;
mod tensor;
#[cfg(test)]
mod testing;
mod trainable;
mod value;

pub use error::{Missing, MissingKind, OnnxError, Place, Report};
pub use export::{
    DEFAULT_OPSET, EXPORT_OPSETS, ExportError, ExportOptions, Refusals, export, export_bytes, write_file as write_model,
};
pub use import::{INLINE_ELEMENTS, ImportOptions, from_bytes, from_bytes_with, load, survey};
pub use rewrite::{RewriteError, write_with_values};
pub use statistics::{UNBIASED, add_train_function};
pub use tensor::{SPARSE_LIMIT, data_type, to_proto as tensor_to_proto};
pub use value::{read_tensor, read_value, write_value};
