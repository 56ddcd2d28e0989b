//! Plans to results: what runs a compiled model, and what it calls.
//!
//! - [`pool`] the process-wide threads that run tiles.
//! - [`library`] matrix products, convolutions, sorting: what is called rather than generated.
//! - [`data`] arrays in files: .npy and .npz; data sets to train on.
//! - [`session`] compiled models, contexts that run them; `executor` walks the steps.
//! - [`load`] files to modules; `artifact` compiled files to models. With the feature `jit`: `compile` modules to models, `export` modules as others
//!   may have them, `machine` rates of this machine, `train` runs of training, `verify` ONNX test cases.

mod artifact;
#[cfg(feature = "jit")]
pub mod compile;
pub mod data;
mod executor;
#[cfg(feature = "jit")]
pub mod export;
pub mod library;
pub mod load;
#[cfg(feature = "jit")]
pub mod machine;
pub mod pool;
pub mod session;
#[cfg(feature = "jit")]
pub mod train;
#[cfg(feature = "jit")]
pub mod verify;

pub use artifact::{Opened, open_artifact};
#[cfg(feature = "jit")]
pub use compile::{CompileOptions, Compiled, Runner};
pub use load::{CodeSource, LoadError, load_module};
pub use session::{
    Context, Footprint, InputRef, Model, ModelError, Output, RunError, StateBuffer, TensorView, default_memory_limit,
};
