//! Plans to results: what runs a compiled model, and what it calls.
//!
//! - [`pool`] the process-wide threads that run tiles.
//! - [`library`] matrix products, convolutions, sorting: what is called rather than generated.
pub mod library;
pub mod pool;
