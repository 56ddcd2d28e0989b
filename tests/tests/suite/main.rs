//! What crosses crates, in one binary: house rules, conformance, random modules, robustness.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod conformance;
mod faults;
mod proofs;
mod random;
mod robustness;
mod tidy;
