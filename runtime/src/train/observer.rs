//! Who watches a run: a bar, a log, a test.

use super::metrics::Sums;
use super::{EpochRecord, MemoryPlan, StepRecord};

/// A run at its begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Epochs of the run.
    pub epochs: u32,
    /// Epochs done before: the run goes on.
    pub done: u32,
    /// Steps done before.
    pub step: u64,
    /// Steps an epoch.
    pub batches: usize,
    /// Records that are trained on.
    pub train: usize,
    /// Records that are judged by.
    pub validation: usize,
}

/// A run after a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Counted from 1.
    pub epoch: u32,
    /// Steps of the epoch that are done.
    pub batch: usize,
    /// Steps an epoch.
    pub batches: usize,
    /// Of this step.
    pub learning_rate: f64,
    /// The epoch so far.
    pub sums: Sums,
}

/// Who watches a run.
pub trait Observer {
    /// The run begins, or goes on.
    fn start(&mut self, start: &Start) {
        let _ = start;
    }

    /// What the run will take, before its first step.
    fn memory(&mut self, plan: &MemoryPlan) {
        let _ = plan;
    }

    /// A step is done.
    fn step(&mut self, progress: &Progress) {
        let _ = progress;
    }

    /// A step is done that the log has a line of.
    fn logged(&mut self, record: &StepRecord) {
        let _ = record;
    }

    /// Something that takes a while, or that one should know.
    fn note(&mut self, text: &str) {
        let _ = text;
    }

    /// An epoch is done, and saved.
    fn epoch(&mut self, record: &EpochRecord) {
        let _ = record;
    }
}

/// Nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {}
