//! Plans to results: what runs a compiled model, and what it calls.
//!
//! - [`pool`] the process-wide threads that run tiles.
//! - [`library`] matrix products, convolutions, sorting: what is called rather than generated.
//! - [`data`] arrays in files: .npy and .npz.
//! - [`session`] compiled models, contexts that run them; `executor` walks the steps.

pub mod data;
mod executor;
pub mod library;
pub mod pool;
pub mod session;

pub use session::{Context, InputRef, Model, ModelError, Output, RunError, TensorView};
