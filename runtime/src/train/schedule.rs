//! Learning rates from step to step, as PyTorch's schedulers of the same names compute them.
//!
//! In: a position (epochs and steps done). Out: [`Rates`]. Each formula is the scheduler's closed form, so a position is
//! all that a checkpoint must know. Exponential, step and cosine change by the epoch; one-cycle and cyclic by the step.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use super::ConfigError;

/// How the learning rate changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Schedule {
    /// Not at all.
    Constant {},
    /// ExponentialLR: multiplied by gamma each epoch.
    Exponential {
        /// Factor.
        #[serde(default = "gamma")]
        gamma: f64,
    },
    /// StepLR: multiplied by gamma every so many epochs.
    Step {
        /// Epochs between drops; a third of the run unless given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size: Option<u32>,
        /// Factor.
        #[serde(default = "tenth")]
        gamma: f64,
    },
    /// CosineAnnealingLR: half a cosine from the learning rate to the minimum.
    Cosine {
        /// Epochs of the half wave; those of the run unless given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        period: Option<u32>,
        /// The minimum.
        #[serde(default)]
        minimum: f64,
    },
    /// OneCycleLR: up to the maximum, then down to next to nothing, each along a cosine; momentum the other way.
    OneCycle {
        /// The maximum.
        #[serde(default = "maximum")]
        maximum: f64,
        /// It begins at maximum / division.
        #[serde(default = "division")]
        division: f64,
        /// It ends at maximum / division / final_division.
        #[serde(default = "final_division")]
        final_division: f64,
        /// Share of the steps that rise.
        #[serde(default = "rise")]
        rise: f64,
        /// Momentum at the maximum and at both ends.
        #[serde(default = "one_cycle_momentum")]
        momentum: [f64; 2],
        /// Whether momentum moves at all.
        #[serde(default = "yes")]
        cycle_momentum: bool,
    },
    /// CyclicLR, triangular2: up and down in straight lines, each cycle half as high; momentum the other way.
    Cyclic {
        /// The minimum.
        #[serde(default = "base")]
        minimum: f64,
        /// The maximum of the first cycle.
        #[serde(default = "maximum")]
        maximum: f64,
        /// Steps of a rise, and of a fall.
        #[serde(default = "up")]
        up: u32,
        /// Momentum at the maximum and at the minimum.
        #[serde(default = "cyclic_momentum")]
        momentum: [f64; 2],
        /// Whether momentum moves at all.
        #[serde(default = "yes")]
        cycle_momentum: bool,
    },
}

fn gamma() -> f64 {
    0.8
}
fn tenth() -> f64 {
    0.1
}
fn maximum() -> f64 {
    3e-3
}
fn division() -> f64 {
    3.0
}
fn final_division() -> f64 {
    1e4
}
fn rise() -> f64 {
    0.3
}
fn base() -> f64 {
    3e-6
}
fn up() -> u32 {
    2000
}
fn one_cycle_momentum() -> [f64; 2] {
    [0.85, 0.95]
}
fn cyclic_momentum() -> [f64; 2] {
    [0.8, 0.9]
}
fn yes() -> bool {
    true
}

impl Default for Schedule {
    fn default() -> Schedule {
        Schedule::Exponential { gamma: gamma() }
    }
}

/// What a schedule gives for a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// The learning rate.
    pub learning_rate: f64,
    /// Momentum (the first beta), where the schedule moves it.
    pub momentum: Option<f64>,
}

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// Epochs done.
    pub epoch: u32,
    /// Steps done.
    pub step: u64,
    /// Epochs of the run.
    pub epochs: u32,
    /// Steps of the run.
    pub steps: u64,
}

impl Schedule {
    /// Names of all, for messages and flags.
    pub const NAMES: [&'static str; 6] = ["constant", "exponential", "step", "cosine", "one-cycle", "cyclic"];

    /// The schedule of a name, with its defaults.
    pub fn of_name(name: &str) -> Option<Schedule> {
        Some(match name {
            "constant" => Schedule::Constant {},
            "exponential" => Schedule::Exponential { gamma: gamma() },
            "step" => Schedule::Step { size: None, gamma: tenth() },
            "cosine" => Schedule::Cosine { period: None, minimum: 0.0 },
            "one-cycle" => Schedule::OneCycle {
                maximum: maximum(),
                division: division(),
                final_division: final_division(),
                rise: rise(),
                momentum: one_cycle_momentum(),
                cycle_momentum: true,
            },
            "cyclic" => Schedule::Cyclic {
                minimum: base(),
                maximum: maximum(),
                up: up(),
                momentum: cyclic_momentum(),
                cycle_momentum: true,
            },
            _ => return None,
        })
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Schedule::Constant {} => "constant",
            Schedule::Exponential { .. } => "exponential",
            Schedule::Step { .. } => "step",
            Schedule::Cosine { .. } => "cosine",
            Schedule::OneCycle { .. } => "one-cycle",
            Schedule::Cyclic { .. } => "cyclic",
        }
    }

    /// Whether rates depend on how long the run is: then a run can't be made longer when it goes on.
    pub fn needs_length(&self) -> bool {
        match self {
            Schedule::Constant {} | Schedule::Exponential { .. } | Schedule::Cyclic { .. } => false,
            Schedule::Step { size, .. } => size.is_none(),
            Schedule::Cosine { period, .. } => period.is_none(),
            Schedule::OneCycle { .. } => true,
        }
    }

    /// Refuses settings without meaning.
    ///
    /// # Errors
    /// The setting and what it may be.
    pub fn check(&self) -> Result<(), ConfigError> {
        let positive = |name: &str, x: f64| ConfigError::need(x.is_finite() && x > 0.0, name, "is a number above 0", x);
        let momentum = |[low, high]: &[f64; 2]| {
            let fits = (0.0..1.0).contains(low) && (0.0..1.0).contains(high) && low <= high;
            ConfigError::need(fits, "schedule.momentum", "has two numbers in [0, 1), the smaller first", low)
        };
        match self {
            Schedule::Constant {} => Ok(()),
            Schedule::Exponential { gamma } => positive("schedule.gamma", *gamma),
            Schedule::Step { size, gamma } => {
                ConfigError::need(*size != Some(0), "schedule.size", "is at least 1", 0)?;
                positive("schedule.gamma", *gamma)
            }
            Schedule::Cosine { period, minimum } => {
                ConfigError::need(*period != Some(0), "schedule.period", "is at least 1", 0)?;
                let fits = minimum.is_finite() && *minimum >= 0.0;
                ConfigError::need(fits, "schedule.minimum", "is a number of at least 0", minimum)
            }
            Schedule::OneCycle { maximum, division, final_division, rise, momentum: pair, .. } => {
                positive("schedule.maximum", *maximum)?;
                positive("schedule.division", *division)?;
                positive("schedule.final_division", *final_division)?;
                ConfigError::need((0.0..=1.0).contains(rise), "schedule.rise", "is a share from 0 to 1", rise)?;
                momentum(pair)
            }
            Schedule::Cyclic { minimum, maximum, up, momentum: pair, .. } => {
                positive("schedule.minimum", *minimum)?;
                positive("schedule.maximum", *maximum)?;
                ConfigError::need(maximum >= minimum, "schedule.maximum", "is at least schedule.minimum", maximum)?;
                ConfigError::need(*up > 0, "schedule.up", "is at least 1", up)?;
                momentum(pair)
            }
        }
    }

    /// The rates of the step that comes next.
    pub fn at(&self, learning_rate: f64, point: Point) -> Rates {
        let epoch = f64::from(point.epoch);
        let only = |learning_rate| Rates { learning_rate, momentum: None };
        match self {
            Schedule::Constant {} => only(learning_rate),
            Schedule::Exponential { gamma } => only(learning_rate * gamma.powf(epoch)),
            Schedule::Step { size, gamma } => {
                let size = size.unwrap_or(point.epochs / 3).max(1);
                only(learning_rate * gamma.powf(f64::from(point.epoch / size)))
            }
            Schedule::Cosine { period, minimum } => {
                let period = f64::from(period.unwrap_or(point.epochs).max(1));
                only(minimum + (learning_rate - minimum) * (1.0 + (PI * epoch / period).cos()) / 2.0)
            }
            Schedule::OneCycle { maximum, division, final_division, rise, momentum: [low, high], cycle_momentum } => {
                let (step, last) = (point.step as f64, point.steps as f64 - 1.0);
                let top = rise * point.steps as f64 - 1.0;
                let first = maximum / division;
                let (from, to, begin, end) = if step <= top {
                    ((first, *high), (*maximum, *low), 0.0, top)
                } else {
                    ((*maximum, *low), (first / final_division, *high), top, last)
                };
                let part = if end > begin { ((step - begin) / (end - begin)).min(1.0) } else { 1.0 };
                let between = |from: f64, to: f64| to + (from - to) / 2.0 * (1.0 + (PI * part).cos());
                let momentum = cycle_momentum.then(|| between(from.1, to.1));
                Rates { learning_rate: between(from.0, to.0), momentum }
            }
            Schedule::Cyclic { minimum, maximum, up, momentum: [low, high], cycle_momentum } => {
                let phase = point.step as f64 / (2.0 * f64::from(*up));
                let cycle = (1.0 + phase).floor();
                let x = 1.0 + phase - cycle;
                let height = if x <= 0.5 { x / 0.5 } else { (x - 1.0) / -0.5 } / 2_f64.powf(cycle - 1.0);
                Rates {
                    learning_rate: minimum + (maximum - minimum) * height,
                    momentum: cycle_momentum.then(|| high - (high - low) * height),
                }
            }
        }
    }
}
