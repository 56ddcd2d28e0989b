//! What crosses crates, in one binary: house rules, conformance, random modules, robustness.

mod cli;
mod tidy;
