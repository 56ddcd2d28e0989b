//! The table of passes: name, meaning, options.

use super::Pass;
use super::adapt::Legalize;
use crate::fuse::Fuse;
use crate::grad::Grad;
use crate::simplify::{Simplify, algebra, canonicalize, cse, dce, extents, fold, unbroadcast};

/// An option of a pass; its value is a number.
#[derive(Clone, Copy, Debug)]
pub struct OptionInfo {
    /// Its name.
    pub name: &'static str,
    /// What it means, and what it is when not given.
    pub about: &'static str,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct PassInfo {
    /// Its name in pipelines.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    /// Its options.
    pub options: &'static [OptionInfo],
    /// The pass.
    pub make: fn() -> Box<dyn Pass>,
}

/// Every pass, in the order that pipelines usually have them.
pub static PASSES: &[PassInfo] = &[
    PassInfo { name: "legalize", about: "ONNX ops to core ops", options: &[], make: || Box::new(Legalize) },
    PassInfo {
        name: "shape",
        about: "integers that shapes determine become constants and extents",
        options: &[],
        make: || Box::new(extents::Shape),
    },
    PassInfo {
        name: "canonicalize",
        about: "one form where several round differently; inlines composites and calls; added where it is left out",
        options: &[],
        make: || Box::new(canonicalize::Canonicalize),
    },
    PassInfo {
        name: "grad",
        about: "derivatives (vjp ops) written out; follows canonicalize, added where it is left out",
        options: &[],
        make: || Box::new(Grad),
    },
    PassInfo {
        name: "simplify",
        about: "fold, algebra, cse and dce until nothing changes",
        options: &[OptionInfo { name: "rounds", about: "at most; 8" }],
        make: || Box::new(Simplify),
    },
    PassInfo { name: "algebra", about: "rules from a table", options: &[], make: || Box::new(algebra::Algebra) },
    PassInfo {
        name: "strength",
        about: "cheaper operations, when nothing else applies any more",
        options: &[],
        make: || Box::new(algebra::Strength),
    },
    PassInfo {
        name: "fold",
        about: "small ops on constants become constants",
        options: &[],
        make: || Box::new(fold::Fold),
    },
    PassInfo {
        name: "unbroadcast",
        about: "constants that repeat become broadcasts of smaller ones",
        options: &[],
        make: || Box::new(unbroadcast::Unbroadcast),
    },
    PassInfo { name: "cse", about: "merges equal ops", options: &[], make: || Box::new(cse::Cse) },
    PassInfo { name: "dce", about: "removes ops that nothing uses", options: &[], make: || Box::new(dce::Dce) },
    PassInfo {
        name: "fuse",
        about: "groups of ops that become one kernel",
        options: &[
            OptionInfo { name: "max-ops", about: "operations of one body once unrolled; 384" },
            OptionInfo { name: "max-live", about: "values live at once; 48" },
            OptionInfo { name: "store", about: "how many times as dear storing is than computing again; 1" },
            OptionInfo { name: "segments", about: "parts of a training step's forward that are run again; 1: none" },
        ],
        make: || Box::new(Fuse),
    },
];
