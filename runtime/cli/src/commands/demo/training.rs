//! The demo's second half: an AF-KAN learns digits from its initial values, in memory, and is checked.
//!
//! ```text
//!  digits --> CompiledStepper --> accuracy before
//!                     '--> Trainer, Watch --> curves, accuracy after --> check
//! ```
//!
//! What is told is measured: the validation pictures are not trained on, and the last epoch counts, not the best.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use frit_runtime::CompileOptions;
use frit_runtime::data::dataset::{Order, TrainingData, batches};
use frit_runtime::train::config::NetworkConfig;
use frit_runtime::train::metrics::Sums;
use frit_runtime::train::{
    CompiledStepper, Config, EpochRecord, Observer, Optimizer, Schedule, StepError, Stepper, TrainError, Trainer,
};
use serde_json::json;

use super::digits::{self, CLASSES, PIXELS};
use super::plot::{Ink, Panel, plot};
use crate::commands::train::network;
use crate::console::Console;
use crate::error::Done;
use crate::table::{count, milliseconds, time};
use crate::watch::percent;

/// Width of the hidden layer.
const HIDDEN: usize = 32;

/// The least share of the validation pictures that a network that learns gets right; by chance it is a tenth.
const ACCURACY: f64 = 0.9;
/// The largest share of the first epoch's loss that the last may have.
const LOSS: f64 = 0.5;

/// What came of it.
pub(super) struct Trained {
    /// Validation before the first step.
    before: Sums,
    epochs: Vec<EpochRecord>,
    steps: u64,
    /// What compiling step and evaluation took, and the run.
    compiled: Duration,
    ran: Duration,
}

/// Keeps what each epoch came to.
#[derive(Default)]
struct Watch {
    epochs: Vec<EpochRecord>,
}

impl Observer for Watch {
    fn epoch(&mut self, record: &EpochRecord) {
        self.epochs.push(*record);
    }
}

/// Settings of the run: about a second on two cores.
fn config() -> Config {
    Config {
        model: "af-kan".to_owned(),
        epochs: Some(24),
        shuffle: true,
        network: NetworkConfig { layers: vec![PIXELS, HIDDEN, CLASSES], ..NetworkConfig::default() },
        optimizer: Optimizer { learning_rate: 0.005, ..Optimizer::default() },
        schedule: Schedule::Cosine { period: None, minimum: 0.0 },
        ..Config::default()
    }
}

/// Trains, and tells about it. The run has no folder: nothing is written.
pub(super) fn run(console: &Console) -> Done<Trained> {
    let (config, data) = (config(), digits::data()?);
    console.line(format!(
        "\ntrain     an AF-KAN {PIXELS}-{HIDDEN}-{CLASSES} from its initial values, on {} digits of 8 by 8 pixels drawn \
         by code",
        data.train.len()
    ))?;
    let trained = train(&config, &data)?;
    let last = trained.last();
    let rate = last.map_or(0.0, |record| record.samples_per_second);
    console.line(format!(
        "        forward, gradients and update compiled in {}; {} epochs of {} steps in {} ({} samples/s)\n",
        time(trained.compiled),
        trained.epochs.len(),
        trained.steps / trained.epochs.len().max(1) as u64,
        time(trained.ran),
        count(rate as u64)
    ))?;
    for line in trained.curves(if console.draws() { Ink::Braille } else { Ink::Star }) {
        console.line(format!("  {line}"))?;
    }
    console.line(format!(
        "\n  accuracy on {} digits that it was not trained on: {} before, {} after",
        data.validation.len(),
        percent(trained.before()),
        percent(trained.accuracy())
    ))?;
    Ok(trained)
}

fn train(config: &Config, data: &TrainingData) -> Done<Trained> {
    let start = Instant::now();
    let mut stepper = CompiledStepper::new(network(config)?, config, data.train.shape(), &CompileOptions::default())?;
    let compiled = start.elapsed();
    let before = judge(&mut stepper, config, data)?;
    let mut watch = Watch::default();
    let start = Instant::now();
    let outcome = Trainer::new(config.clone(), &mut stepper, data, &mut watch)?.run()?;
    Ok(Trained { before, epochs: watch.epochs, steps: outcome.steps, compiled, ran: start.elapsed() })
}

/// What the network makes of the validation set, as it is.
fn judge(stepper: &mut dyn Stepper, config: &Config, data: &TrainingData) -> Done<Sums> {
    let mut sums = Sums::default();
    batches::for_each(&data.validation, config.batch as usize, Order::Data, 0, |_, batch| {
        let result = stepper.evaluate(&batch)?;
        sums.add(batch.len, result.loss, result.correct);
        Ok(ControlFlow::Continue(()))
    })
    .map_err(|source: StepError| TrainError::Step { epoch: 0, batch: 1, source })?;
    Ok(sums)
}

impl Trained {
    fn last(&self) -> Option<&EpochRecord> {
        self.epochs.last()
    }

    /// Share of the validation set that the initial network gets right.
    fn before(&self) -> f64 {
        self.before.accuracy().unwrap_or(0.0)
    }

    /// Share of the validation set that the network of the last epoch gets right.
    fn accuracy(&self) -> f64 {
        self.last().and_then(|record| record.validation_accuracy).unwrap_or(0.0)
    }

    /// What is wrong with the result, if something is.
    pub(super) fn failure(&self) -> Option<String> {
        let loss = |record: Option<&EpochRecord>| record.map_or(f64::NAN, |record| record.train_loss);
        let (first, last) = (loss(self.epochs.first()), loss(self.last()));
        // No number is not below anything.
        let fell = last <= LOSS * first;
        if !fell {
            return Some(format!("the training loss went from {first:.4} to {last:.4}: it did not fall by half"));
        }
        let (before, after) = (self.before(), self.accuracy());
        if after < ACCURACY || after <= before {
            return Some(format!("the accuracy is {} after training, {} before", percent(after), percent(before)));
        }
        None
    }

    /// Loss and accuracy over epochs. The accuracy begins before the first step, the training loss with the first epoch.
    fn curves(&self, ink: Ink) -> Vec<String> {
        let losses: Vec<f64> = self.epochs.iter().map(|record| record.train_loss).collect();
        let after = self.epochs.iter().map(|record| record.validation_accuracy.unwrap_or(0.0) * 100.0);
        let accuracies: Vec<f64> = std::iter::once(self.before() * 100.0).chain(after).collect();
        let top = losses.iter().copied().fold(0.0, f64::max);
        let end = format!("epoch {}", self.epochs.len());
        let loss = Panel {
            title: "training loss",
            ends: ["1", &end],
            values: &losses,
            // To the next half, so that labels are round.
            top: ((top * 2.0).ceil() / 2.0).max(0.5),
            label: |value| format!("{value:.2}"),
        };
        let accuracy = Panel {
            title: "validation accuracy",
            ends: ["0", &end],
            values: &accuracies,
            top: 100.0,
            label: |value| format!("{value:.0} %"),
        };
        plot(&[loss, accuracy], ink)
    }

    /// The same as data.
    pub(super) fn json(&self) -> serde_json::Value {
        let of = |value: fn(&EpochRecord) -> Option<f64>| self.epochs.iter().map(value).collect::<Vec<_>>();
        json!({
            "compile_ms": milliseconds(self.compiled),
            "seconds": self.ran.as_secs_f64(),
            "epochs": self.epochs.len(),
            "steps": self.steps,
            "train_loss": of(|record| Some(record.train_loss)),
            "validation_loss": of(|record| Some(record.validation_loss)),
            "validation_accuracy": of(|record| record.validation_accuracy),
            "accuracy_before": self.before(),
            "accuracy": self.accuracy(),
            "passed": self.failure().is_none(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_that_learns_passes_and_one_that_does_not_is_told() {
        let data = digits::data().unwrap();
        let learns = train(&Config { epochs: Some(12), ..config() }, &data).unwrap();
        assert_eq!(learns.failure(), None);
        assert!(learns.before() < 0.25 && learns.accuracy() > ACCURACY);
        assert_eq!(learns.epochs.len(), 12);
        // Steps that change next to nothing.
        let mut still = config();
        (still.epochs, still.optimizer.learning_rate) = (Some(2), 1e-12);
        let failure = train(&still, &data).unwrap().failure().unwrap();
        assert!(failure.contains("did not fall"), "{failure}");
    }

    #[test]
    fn a_poor_accuracy_fails_whatever_the_loss() {
        let record = |epoch: u32, loss: f64, accuracy: f64| EpochRecord {
            epoch,
            step: u64::from(epoch),
            learning_rate: 0.1,
            train_loss: loss,
            train_accuracy: Some(accuracy),
            validation_loss: loss,
            validation_accuracy: Some(accuracy),
            grad_norm: 1.0,
            samples_per_second: 1.0,
            seconds: 1.0,
            best: true,
        };
        let with = |loss: f64, accuracy: f64| Trained {
            before: Sums { correct: Some(1), records: 10, batches: 1, ..Sums::default() },
            epochs: vec![record(1, 2.0, 0.3), record(2, loss, accuracy)],
            steps: 2,
            compiled: Duration::ZERO,
            ran: Duration::ZERO,
        };
        assert_eq!(with(0.1, 0.95).failure(), None);
        assert!(with(0.1, 0.5).failure().is_some_and(|text| text.contains("50.00 % after training, 10.00 % before")));
        assert!(with(1.5, 0.95).failure().is_some_and(|text| text.contains("did not fall")));
        assert!(with(f64::NAN, 0.95).failure().is_some());
        let none = Trained { epochs: Vec::new(), ..with(0.1, 0.95) };
        assert!(none.failure().is_some());
    }
}
