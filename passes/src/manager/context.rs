//! What a pass sees of its run: options, fuel, counters.

use std::collections::BTreeMap;

use frit_ir::Origin;

use super::options::{Options, PassOptions};
use super::pipeline::Step;
use super::report::{NearMiss, PassReport, Remark};

/// Near misses and remarks that are kept a pass; later near misses are counted.
const KEPT: usize = 200;

/// Options of the run and the pass, and what has happened so far.
#[derive(Debug)]
pub struct Context<'a> {
    options: &'a Options,
    step: PassOptions,
    report: PassReport,
    fuel: Option<u64>,
    taken: u64,
    /// Whether what is asked for is not optional.
    required: bool,
}

impl<'a> Context<'a> {
    /// A fresh run.
    pub fn new(options: &'a Options) -> Self {
        Context {
            options,
            step: PassOptions::default(),
            report: PassReport::default(),
            fuel: options.fuel,
            taken: 0,
            required: false,
        }
    }

    pub(super) fn begin(&mut self, step: &Step) {
        self.step = step.options.clone();
        self.report = PassReport { step: step.to_string(), ..PassReport::default() };
    }

    pub(super) fn end(&mut self, seconds: f64, ops_before: usize, ops_after: usize) -> PassReport {
        PassReport { seconds, ops_before, ops_after, ..std::mem::take(&mut self.report) }
    }

    /// Options of the run.
    pub fn options(&self) -> &'a Options {
        self.options
    }

    /// Options of this step.
    pub fn step(&self) -> &PassOptions {
        &self.step
    }

    /// Asks to apply a rule: true counts it and spends fuel, false means that nothing may be rewritten any more.
    #[must_use]
    pub fn take(&mut self, rule: &'static str) -> bool {
        if self.required {
            self.count(rule, 1);
            return true;
        }
        if let Some(fuel) = &mut self.fuel {
            if *fuel == 0 {
                return false;
            }
            *fuel -= 1;
        }
        self.taken += 1;
        self.count(rule, 1);
        true
    }

    /// Whether fuel is left.
    pub fn has_fuel(&self) -> bool {
        self.required || self.fuel != Some(0)
    }

    /// Does what is not optional: the rules that it applies are counted, and neither spend fuel nor want for it.
    pub(crate) fn required<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let outer = std::mem::replace(&mut self.required, true);
        let done = work(self);
        self.required = outer;
        done
    }

    /// Counts a rewrite that is not optional.
    pub fn count(&mut self, rule: &'static str, times: u64) {
        if times > 0 {
            *self.report.fired.entry(rule).or_insert(0) += times;
        }
    }

    /// Rewrites counted in this pass so far.
    pub fn fired(&self) -> u64 {
        self.report.fired.values().sum()
    }

    /// How often each rule fired in this pass so far.
    pub fn rules(&self) -> &BTreeMap<&'static str, u64> {
        &self.report.fired
    }

    /// Records that a rule almost fired.
    pub fn near_miss(&mut self, rule: &'static str, origin: &Origin, reason: impl Into<String>) {
        let miss = NearMiss { rule, origin: origin.to_string(), reason: reason.into() };
        if self.report.near_misses.contains(&miss) {
            return;
        }
        self.report.near_miss_count += 1;
        if self.report.near_misses.len() < KEPT {
            self.report.near_misses.push(miss);
        }
    }

    /// Near misses of this pass so far.
    pub fn near_misses(&self) -> &[NearMiss] {
        &self.report.near_misses
    }

    /// Records why two ops don't share a kernel.
    pub fn remark(&mut self, remark: Remark) {
        if self.report.remarks.len() < KEPT && !self.report.remarks.contains(&remark) {
            self.report.remarks.push(remark);
        }
    }

    /// Remarks of this pass so far.
    pub fn remarks(&self) -> &[Remark] {
        &self.report.remarks
    }

    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    pub(super) fn fuel_left(&self) -> Option<u64> {
        self.fuel
    }
}
