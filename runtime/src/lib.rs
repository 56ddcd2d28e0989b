//! Plans to results: what runs a compiled model, and what it calls.
//!
//! - [`pool`] the process-wide threads that run tiles.
pub mod pool;
