//! The memory of a run, planned before its first step and measured after its last.
//!
//! What is planned is the growth of the process's peak over what it was before the model was loaded. When a run is about
//! to begin, model, data and code are there and the compiler has come and gone, so the system says what they took; what
//! the run will touch from there on follows from sizes: the arena of a step (packed from the plan's lives and extents,
//! shared with evaluations), scratch memory, batches that are gathered, state that is kept. A checkpoint
//! is written from where state lies.
//!
//! ```text
//!  peak = max(peak until now, resident now + what the run will touch) - peak before
//! ```
//!
//! Where the system does not say, the peak is the sum of the parts.

use std::fmt;

use serde::Serialize;

use super::Config;
use crate::data::dataset::TrainingData;

/// What the system says of this process, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Memory that it has now.
    pub resident: u64,
    /// The most that it ever had.
    pub peak: u64,
}

impl Process {
    /// Of now; `None` where the system does not say (it does on Linux).
    pub fn now() -> Option<Process> {
        Process::from_status(&std::fs::read_to_string("/proc/self/status").ok()?)
    }

    fn from_status(text: &str) -> Option<Process> {
        let of = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
            kib.checked_mul(1024)
        };
        Some(Process { resident: of("VmRSS:")?, peak: of("VmHWM:")? })
    }
}

/// What a stepper needs for batches of some size, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StepMemory {
    /// Parameters, buffers and moments; they are there already.
    pub state: u64,
    /// Copies of state that steps will keep.
    pub kept: u64,
    /// Values between the ops of a step, or of an evaluation: both lie in the same memory.
    pub arena: u64,
    /// What kernels and products write besides their results.
    pub scratch: u64,
}

/// What a run touches besides its steps, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RunMemory {
    /// Records and targets; they are there already.
    pub data: u64,
    /// Batches that are gathered ahead of their use.
    pub batches: u64,
}

/// The memory of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MemoryPlan {
    /// Of its steps.
    #[serde(flatten)]
    pub step: StepMemory,
    /// Of all else.
    #[serde(flatten)]
    pub run: RunMemory,
    /// What the process took until now: code, data, and the compiler at its most.
    pub until_now: u64,
    /// By how much the process's peak will have grown.
    pub peak: u64,
}

/// What code, stacks and small objects take that a run touches for the first time.
const FIRST_TOUCH: u64 = 128 << 10;

impl MemoryPlan {
    /// The plan of a run that is about to begin; `before`: the process before the model was loaded. `unmade`: bytes of
    /// state that is yet to be made.
    pub fn new(step: StepMemory, run: RunMemory, before: Option<Process>, unmade: u64) -> MemoryPlan {
        let touched = [unmade, step.kept, step.arena, step.scratch, run.batches];
        let touched = touched.into_iter().fold(0u64, u64::saturating_add);
        let (until_now, peak) = match (before, Process::now()) {
            (Some(before), Some(now)) => {
                let run = now.resident.saturating_add(touched).saturating_add(FIRST_TOUCH);
                let grown = |to: u64| to.saturating_sub(before.peak);
                (grown(now.peak), grown(now.peak.max(run)))
            }
            _ => {
                let there = step.state.saturating_sub(unmade).saturating_add(run.data);
                (there, there.saturating_add(touched))
            }
        };
        MemoryPlan { step, run, until_now, peak }
    }

    /// What the run has come to, as a person reads it.
    pub fn line(&self, measured: Option<u64>) -> String {
        let planned = Size(self.peak);
        match measured {
            Some(measured) => format!("memory {} at the peak, {planned} planned", Size(measured)),
            None => format!("memory {planned} at the peak as planned"),
        }
    }

    /// By how much the peak has grown since `before`.
    pub fn measured(before: Option<Process>) -> Option<u64> {
        Some(Process::now()?.peak.saturating_sub(before?.peak))
    }
}

/// What a run may take.
#[derive(Clone, Debug)]
pub struct Room {
    /// Bytes by which the process's peak may grow; `None`: any number.
    pub limit: Option<u64>,
    /// The process before the model was loaded.
    pub before: Option<Process>,
    /// Records of a full batch.
    pub batch: usize,
    /// Records of batches that are not full, each size once.
    pub others: Vec<usize>,
    /// What the run takes besides its steps.
    pub run: RunMemory,
}

impl Default for Room {
    fn default() -> Room {
        Room { limit: None, before: None, batch: 1, others: Vec::new(), run: RunMemory::default() }
    }
}

impl Room {
    /// Of a run with these settings and data; `before`: the process before the model was loaded.
    pub fn of(config: &Config, data: &TrainingData, before: Option<Process>) -> Room {
        let wide = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let batch = config.batch as usize;
        let sizes = sizes(batch, [data.train.len(), data.validation.len()]);
        let all = data.train.bytes().saturating_add(data.validation.bytes());
        let gathers = config.shuffle || data.train.is_packed() || data.validation.is_packed();
        // Two buffers change hands.
        let most = data.train.len().max(data.validation.len()).min(batch.saturating_mul(2));
        let gathered = if gathers { data.train.batch_bytes(most) } else { 0 };
        let run = RunMemory { data: wide(all), batches: wide(gathered) };
        let mut others = sizes.into_iter();
        let full = others.next().unwrap_or(batch);
        Room { limit: config.memory_limit, before, batch: full, others: others.collect(), run }
    }

    /// Sizes of all batches.
    pub fn sizes(&self) -> Vec<usize> {
        std::iter::once(self.batch).chain(self.others.iter().copied()).collect()
    }

    /// The plan of a run with these steps, `unmade` bytes of whose state are yet to be made.
    pub fn plan(&self, step: StepMemory, unmade: u64) -> MemoryPlan {
        MemoryPlan::new(step, self.run, self.before, unmade)
    }
}

/// Sizes of the batches that sets of so many records come in, each once, the first set's full one first.
fn sizes(batch: usize, records: [usize; 2]) -> Vec<usize> {
    let mut found = Vec::new();
    for n in records {
        let last = n.checked_rem(batch).unwrap_or(0);
        for size in [if n >= batch { batch } else { 0 }, last] {
            if size > 0 && !found.contains(&size) {
                found.push(size);
            }
        }
    }
    found
}

/// Bytes as people read them.
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut value, mut unit) = (self.0 as f64, 0);
        let units = ["B", "KiB", "MiB", "GiB", "TiB"];
        while value >= 1024.0 && unit + 1 < units.len() {
            value /= 1024.0;
            unit += 1;
        }
        match unit {
            0 => write!(f, "{} B", self.0),
            _ => write!(f, "{value:.1} {}", units[unit]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_linux_says_is_read() {
        let text = "Name:\tx\nVmPeak:\t  9 kB\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(Process::from_status(text), Some(Process { resident: 1 << 20, peak: 2 << 20 }));
        assert_eq!(Process::from_status("VmHWM:\t2048 kB\n"), None);
        assert_eq!(Process::from_status("VmHWM:\tmuch kB\nVmRSS:\t1 kB\n"), None);
    }

    #[test]
    fn batches_have_few_sizes() {
        assert_eq!(sizes(64, [60_000, 10_000]), [64, 32, 16]);
        assert_eq!(sizes(64, [128, 64]), [64]);
        assert_eq!(sizes(64, [50, 70]), [50, 64, 6]);
        assert_eq!(sizes(64, [0, 0]), [0; 0]);
    }

    #[test]
    fn memory_that_is_touched_is_foreseen() {
        if !cfg!(target_os = "linux") {
            return;
        }
        let before = Process::now();
        let step = StepMemory { arena: 256 << 20, ..StepMemory::default() };
        let plan = MemoryPlan::new(step, RunMemory::default(), before, 0);
        let memory = vec![1u8; 256 << 20];
        assert_eq!(memory.iter().map(|x| u64::from(*x)).sum::<u64>(), 256 << 20);
        let measured = MemoryPlan::measured(before).unwrap();
        // Other tests of this process take some too.
        assert!(plan.peak.abs_diff(measured) < 64 << 20, "planned {}, measured {measured}", plan.peak);
    }
}
