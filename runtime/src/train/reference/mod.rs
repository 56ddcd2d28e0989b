//! What losses and optimisers mean: plain loops in f64 over parameters in f32, in no hurry.
//!
//! A compiled step must do what stands here, to within rounding. [`loss`] losses and their gradients, [`update`] the
//! optimisers' rules, [`linear`] the smallest network that can be trained: what the loop around it is tested with.

pub mod linear;
pub mod loss;
pub mod update;
