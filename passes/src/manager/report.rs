//! What passes did, as plain values.

use std::collections::BTreeMap;

/// A rule that almost fired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NearMiss {
    /// The rule.
    pub rule: &'static str,
    /// Origin of the op.
    pub origin: String,
    /// What kept it.
    pub reason: String,
}

/// Why two ops don't share a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// The function.
    pub function: String,
    /// What computes the value.
    pub producer: String,
    /// What uses it (or the sibling).
    pub consumer: String,
    /// Why not.
    pub reason: String,
}

/// One pass of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PassReport {
    /// The step as text: the pass and its options.
    pub step: String,
    /// How long it took.
    pub seconds: f64,
    /// Ops before, regions included.
    pub ops_before: usize,
    /// Ops after.
    pub ops_after: usize,
    /// Rules that fired, and how often.
    pub fired: BTreeMap<&'static str, u64>,
    /// Rules that almost fired; the first of them.
    pub near_misses: Vec<NearMiss>,
    /// How many there were.
    pub near_miss_count: u64,
    /// Why ops don't share a kernel.
    pub remarks: Vec<Remark>,
}

impl PassReport {
    /// Whether the module changed.
    pub fn changed(&self) -> bool {
        !self.fired.is_empty()
    }
}

/// All passes of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// In order.
    pub passes: Vec<PassReport>,
    /// How long all took.
    pub seconds: f64,
    /// Rewrites that spent fuel.
    pub rewrites: u64,
    /// Fuel left, when it was limited.
    pub fuel_left: Option<u64>,
}
