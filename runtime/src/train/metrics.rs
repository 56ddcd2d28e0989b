//! What is measured: sums over batches, a record for each epoch, lines of them.

use serde::{Deserialize, Serialize};

/// Sums over some batches: means come out the same however a run is cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sums {
    /// Losses, each times its batch's size.
    pub loss: f64,
    /// Norms of gradients.
    pub grad_norm: f64,
    /// Records that the network got right; none: there are no classes.
    pub correct: Option<u64>,
    /// Records.
    pub records: u64,
    /// Batches.
    pub batches: u64,
    /// Seconds.
    pub seconds: f64,
}

impl Sums {
    /// Adds a batch.
    pub fn add(&mut self, len: usize, loss: f32, correct: Option<u64>) {
        self.loss += f64::from(loss) * len as f64;
        self.correct = match (self.correct, self.batches) {
            (_, 0) => correct,
            (Some(sum), _) => correct.map(|n| sum.saturating_add(n)),
            (None, _) => None,
        };
        self.records = self.records.saturating_add(len as u64);
        self.batches += 1;
    }

    /// Mean loss.
    pub fn mean_loss(&self) -> f64 {
        self.loss / self.records.max(1) as f64
    }

    /// Share of records that the network got right.
    pub fn accuracy(&self) -> Option<f64> {
        self.correct.map(|correct| correct as f64 / self.records.max(1) as f64)
    }

    /// Records a second.
    pub fn rate(&self) -> f64 {
        if self.seconds > 0.0 { self.records as f64 / self.seconds } else { 0.0 }
    }
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepRecord {
    /// Counted from 1, over all epochs.
    pub step: u64,
    /// Counted from 1.
    pub epoch: u32,
    /// Mean over the batch, before the update.
    pub loss: f64,
    /// Share of the batch that the network got right before the update, of classes.
    pub accuracy: Option<f64>,
    /// Of the update.
    pub learning_rate: f64,
    /// Of all gradients together, before clipping.
    pub grad_norm: f64,
}

impl StepRecord {
    /// A line of JSON.
    ///
    /// # Errors
    /// None but internal ones.
    pub fn json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self).map(|text| text + "\n")
    }
}

/// An epoch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochRecord {
    /// Counted from 1.
    pub epoch: u32,
    /// Steps done at its end.
    pub step: u64,
    /// Of its last step.
    pub learning_rate: f64,
    /// Mean over its batches as they were trained on.
    pub train_loss: f64,
    /// The same, of classes.
    pub train_accuracy: Option<f64>,
    /// At its end.
    pub validation_loss: f64,
    /// The same, of classes.
    pub validation_accuracy: Option<f64>,
    /// Mean norm of gradients.
    pub grad_norm: f64,
    /// Records trained on a second.
    pub samples_per_second: f64,
    /// Seconds of training and validation.
    pub seconds: f64,
    /// Whether it is the best so far.
    pub best: bool,
}

impl EpochRecord {
    /// The first line of a table of records.
    pub const CSV_HEADER: &'static str = "epoch,step,learning_rate,train_loss,train_accuracy,validation_loss,\
                                          validation_accuracy,grad_norm,samples_per_second,seconds,best\n";

    /// A line of the table.
    pub fn csv(&self) -> String {
        let optional = |x: Option<f64>| x.map(|x| x.to_string()).unwrap_or_default();
        format!(
            "{},{},{},{},{},{},{},{},{:.1},{:.3},{}\n",
            self.epoch,
            self.step,
            self.learning_rate,
            self.train_loss,
            optional(self.train_accuracy),
            self.validation_loss,
            optional(self.validation_accuracy),
            self.grad_norm,
            self.samples_per_second,
            self.seconds,
            u8::from(self.best)
        )
    }

    /// A line of JSON.
    ///
    /// # Errors
    /// None but internal ones.
    pub fn json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self).map(|text| text + "\n")
    }
}
