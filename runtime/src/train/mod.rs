//! Training: the loop around a compiled step, and all that a run needs to be stopped, killed and gone on with.
//!
//! ```text
//!  config --.                     .--> observer (bars, lines)
//!  data   --+--> Trainer (loop) --+--> RunFolder: config.toml, metrics, curves, report
//!  Stepper -'       ^    |        '--> best.safetensors, last.safetensors
//!                   '----'  schedule, metrics, early stopping
//! ```
//!
//! In: a [`Config`], [`TrainingData`](crate::data::dataset::TrainingData), a [`Stepper`]. Out: an [`Outcome`], and a
//! folder with the run. What holds: everything that the rest of a run depends on is in `last.safetensors`, which is
//! replaced as a whole or not at all, so a run that goes on after any end gives the bits of one that never ended.
//!
//! - [`config`] settings: defaults, file, flags. [`optimizer`], [`schedule`], [`pattern`] are parts of it.
//! - [`stepper`] what the loop asks of a network: a step, an evaluation, its state.
//! - [`compiled`] a network whose step is one compiled function: built in, or imported; `anomaly` finds the op that made
//!   NaN.
//! - [`memory`] what a run will take, and took; `fit` makes a step fit a limit.
//! - [`trainer`] the loop; [`observer`] who watches it.
//! - [`metrics`] sums and records of epochs; [`chart`], [`report`] pictures and pages of them.
//! - [`checkpoint`] state and position as a file; [`folder`] files written so that a crash leaves the old or the new.
//! - [`mod@reference`] losses and optimisers as plain loops, which define what a compiled step must do.

mod anomaly;
pub mod chart;
pub mod checkpoint;
pub mod compiled;
pub mod config;
mod error;
mod fit;
pub mod folder;
pub mod memory;
pub mod metrics;
pub mod observer;
pub mod optimizer;
pub mod pattern;
pub mod reference;
pub mod report;
pub mod schedule;
pub mod stepper;
#[cfg(test)]
mod tests;
pub mod trainer;

pub use checkpoint::{Checkpoint, CheckpointError, Position};
pub use compiled::{CompiledStepper, Parameters, StepperError};
pub use config::{Config, ConfigError};
pub use error::TrainError;
pub use folder::{Disk, RunFolder, SystemDisk};
pub use memory::{MemoryPlan, Process, Room};
pub use metrics::{EpochRecord, StepRecord};
pub use observer::{Observer, Progress, Silent, Start};
pub use optimizer::{Optimizer, OptimizerKind};
pub use schedule::{Rates, Schedule};
pub use stepper::{EvalResult, Hyper, State, StepError, StepResult, Stepper};
pub use trainer::{End, Outcome, Trainer};
