//! What `frit train` shows while it runs: a bar on a terminal, plain lines elsewhere, a line an epoch on both.
//!
//! When lines can't be written any more, the run is asked to stop and the error is kept for its end.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use frit_runtime::train::{EpochRecord, MemoryPlan, Observer, Progress, Start, StepRecord};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::console::Console;
use crate::error::CliError;
use crate::table::{bytes, count};

/// Between two looks at the bar's text.
const BAR_EVERY: Duration = Duration::from_millis(100);
/// Between two lines of an epoch where there is no bar.
const LINE_EVERY: Duration = Duration::from_secs(30);

/// Shows a run.
pub(crate) struct Watch<'a> {
    console: &'a Console,
    stop: &'a AtomicBool,
    bar: Option<ProgressBar>,
    epochs: u32,
    last: Instant,
    /// Why lines can't be written.
    pub(crate) failed: Option<CliError>,
}

impl<'a> Watch<'a> {
    /// A bar when stderr is a terminal; `stop` becomes true when nobody reads any more.
    pub(crate) fn new(console: &'a Console, stop: &'a AtomicBool) -> Watch<'a> {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{bar:30} {wide_msg} {eta} left ") {
                bar.set_style(style);
            }
            bar
        });
        Watch { console, stop, bar, epochs: 0, last: Instant::now(), failed: None }
    }

    /// A line; when it can't be written, the run ends.
    pub(crate) fn line(&mut self, text: &str) {
        let print = || self.console.line(text);
        let printed = match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        };
        if let Err(error) = printed {
            self.stop.store(true, Ordering::Relaxed);
            self.failed.get_or_insert(error);
        }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Observer for Watch<'_> {
    fn start(&mut self, start: &Start) {
        self.epochs = start.epochs;
        let (train, validation) = (count(start.train as u64), count(start.validation as u64));
        if start.step > 0 {
            self.line(&format!("goes on after step {} ({} epochs done)", count(start.step), start.done));
        }
        self.line(&format!(
            "{train} records to train on, {validation} to be judged by; {} epochs of {} steps",
            start.epochs,
            count(start.batches as u64)
        ));
        if let Some(bar) = &self.bar {
            bar.set_length(u64::from(start.epochs).saturating_mul(start.batches as u64));
            bar.set_position(start.step);
            bar.reset_eta();
        }
    }

    fn memory(&mut self, plan: &MemoryPlan) {
        self.line(&memory(plan));
    }

    fn note(&mut self, text: &str) {
        self.line(text);
    }

    fn step(&mut self, progress: &Progress) {
        let every = match &self.bar {
            Some(bar) => {
                bar.inc(1);
                BAR_EVERY
            }
            None => LINE_EVERY,
        };
        if self.last.elapsed() < every {
            return;
        }
        self.last = Instant::now();
        let accuracy = progress.sums.accuracy().map(|a| format!("  {}", percent(a))).unwrap_or_default();
        let text = format!(
            "epoch {}/{}  {}/{}  loss {:.4}{accuracy}  {} samples/s",
            progress.epoch,
            self.epochs,
            progress.batch,
            progress.batches,
            progress.sums.mean_loss(),
            count(progress.sums.rate() as u64)
        );
        match &self.bar {
            Some(bar) => bar.set_message(text),
            None => self.line(&text),
        }
    }

    fn logged(&mut self, record: &StepRecord) {
        let accuracy = record.accuracy.map(|a| format!("  {}", percent(a))).unwrap_or_default();
        self.line(&format!(
            "step {}  loss {:.6}{accuracy}  rate {:.3e}  gradient {:.3e}",
            record.step, record.loss, record.learning_rate, record.grad_norm
        ));
    }

    fn epoch(&mut self, record: &EpochRecord) {
        self.last = Instant::now();
        let accuracy = |a: Option<f64>| a.map(|a| format!(" {}", percent(a))).unwrap_or_default();
        let width = self.epochs.to_string().len();
        let text = format!(
            "epoch {:>width$}/{}  loss {:.4}{}  validation {:.4}{}  {} samples/s  {:.2} s{}",
            record.epoch,
            self.epochs,
            record.train_loss,
            accuracy(record.train_accuracy),
            record.validation_loss,
            accuracy(record.validation_accuracy),
            count(record.samples_per_second as u64),
            record.seconds,
            if record.best { "  best" } else { "" }
        );
        self.line(&text);
    }
}

/// What a run takes, as people read it.
pub(crate) fn memory(plan: &MemoryPlan) -> String {
    let MemoryPlan { step, run, until_now, peak } = plan;
    let parts = [
        ("data", run.data),
        ("state", step.state),
        ("state kept", step.kept),
        ("arena", step.arena),
        ("scratch", step.scratch),
        ("batches", run.batches),
        ("until now", *until_now),
    ];
    let shown = parts.into_iter().filter(|(_, size)| *size > 0);
    let shown: Vec<String> = shown.map(|(name, size)| format!("{name} {}", bytes(size))).collect();
    format!("memory {} planned at the peak ({})", bytes(*peak), shown.join(", "))
}

/// A share as people read it.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}
