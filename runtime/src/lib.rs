//! Plans to results: what runs a compiled model, and what it calls.
//!
//! - [`pool`] the process-wide threads that run tiles.
//! - [`library`] matrix products, convolutions, sorting: what is called rather than generated.
//! - [`data`] arrays in files: .npy and .npz.
pub mod data;
pub mod library;
pub mod pool;
