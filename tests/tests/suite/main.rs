//! What crosses crates, in one binary: house rules, texts in and out, conformance, random modules, robustness.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod conformance;
mod export;
mod faults;
mod filetests;
mod guards;
mod prepare;
mod proofs;
mod random;
mod robustness;
mod scale;
mod shrinking;
mod state;
mod tidy;
