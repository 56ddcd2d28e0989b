//! From a module to an executable plan.

pub mod cpu;
pub mod kernel;
pub mod lower;
pub mod plan;
pub mod schedule;
