//! What crosses crates, in one binary: house rules, texts in and out, conformance, random modules, robustness.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod columns;
mod conformance;
mod domain;
mod epilogues;
mod export;
mod faults;
mod filetests;
mod fuel;
mod guards;
mod newest;
mod over;
mod prepare;
mod proofs;
mod random;
mod refusals;
mod robustness;
mod scale;
mod shrinking;
mod slices;
mod state;
mod tidy;
mod ties;
mod training;
