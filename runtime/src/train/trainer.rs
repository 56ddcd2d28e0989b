//! The loop: steps, evaluations, checkpoints, until the epochs are done or there is a reason to end.
//!
//! In: settings, a [`Stepper`], data, somebody who watches. Out: an [`Outcome`]. At the end of an epoch, in this order:
//! lines of metrics, the best checkpoint when it is a better one, the last checkpoint. A crash in between leaves a last
//! checkpoint from before, and the epoch that is run again from there makes the same files.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::checkpoint::Best;
use super::metrics::{StepRecord, Sums};
use super::observer::{Observer, Progress, Start};
use super::schedule::Point;
use super::{
    Checkpoint, CheckpointError, Config, EpochRecord, Hyper, MemoryPlan, Position, Process, Rates, Room, RunFolder,
};
use super::{State, StepError, Stepper, TrainError, chart, report};
use crate::data::dataset::{Batch, Dataset, Order, TrainingData, batches};

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All epochs are done.
    Finished,
    /// No better result for as many epochs as was asked for.
    Patience,
    /// Somebody asked it to stop; it can go on.
    Stopped,
}

/// What a run comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Why it ended.
    pub end: End,
    /// The best epoch and its metric: accuracy, or loss where there are no classes.
    pub best: Option<Best>,
    /// Epochs done, of all parts of the run.
    pub epochs: u32,
    /// Steps done, of all parts of the run.
    pub steps: u64,
    /// Seconds of all parts of the run.
    pub seconds: f64,
    /// Every epoch.
    pub history: Vec<EpochRecord>,
    /// Memory as it was planned.
    pub memory: MemoryPlan,
    /// By how much the process's peak has grown, where the system says.
    pub measured: Option<u64>,
}

/// A run.
pub struct Trainer<'a> {
    config: Config,
    stepper: &'a mut dyn Stepper,
    data: &'a TrainingData,
    observer: &'a mut dyn Observer,
    folder: Option<RunFolder>,
    stop: Option<&'a AtomicBool>,
    position: Position,
    config_hash: u64,
    data_hash: u64,
    /// When this part of the run began, and what the parts before took.
    began: Instant,
    before: f64,
    /// The process before the model was loaded.
    process: Option<Process>,
    memory: MemoryPlan,
}

impl<'a> Trainer<'a> {
    /// A run from its begin.
    ///
    /// # Errors
    /// Settings without meaning; labels that the network does not have.
    pub fn new(
        config: Config,
        stepper: &'a mut dyn Stepper,
        data: &'a TrainingData,
        observer: &'a mut dyn Observer,
    ) -> Result<Trainer<'a>, TrainError> {
        config.check()?;
        if let Some(classes) = stepper.classes() {
            data.train.check_classes(classes)?;
            data.validation.check_classes(classes)?;
        }
        let (config_hash, data_hash) = (config.hash()?, data.fingerprint());
        Ok(Trainer {
            config,
            stepper,
            data,
            observer,
            folder: None,
            stop: None,
            position: Position::default(),
            config_hash,
            data_hash,
            began: Instant::now(),
            before: 0.0,
            process: None,
            memory: MemoryPlan::default(),
        })
    }

    /// Writes the run to a folder.
    #[must_use]
    pub fn in_folder(mut self, folder: RunFolder) -> Self {
        self.folder = Some(folder);
        self
    }

    /// Memory is planned and measured from here on: the process before the model was loaded.
    #[must_use]
    pub fn since(mut self, process: Option<Process>) -> Self {
        self.process = process;
        self
    }

    /// Ends after the step during which the flag becomes true.
    #[must_use]
    pub fn until(mut self, stop: &'a AtomicBool) -> Self {
        self.stop = Some(stop);
        self
    }

    /// Goes on from the folder's last checkpoint.
    ///
    /// # Errors
    /// No checkpoint that is whole; one of other settings, data or another network.
    pub fn resume(mut self) -> Result<Self, TrainError> {
        let folder = self.folder.as_mut().ok_or_else(|| TrainError::Internal("a run without a folder".to_owned()))?;
        let checkpoint = folder.last()?;
        let path = folder.path().join(RunFolder::LAST);
        let other = |what| Err(CheckpointError::OtherRun { path: path.display().to_string(), what }.into());
        if checkpoint.config_hash != self.config_hash || checkpoint.seed != self.config.seed {
            return other("settings");
        }
        if checkpoint.data_hash != self.data_hash {
            return other("data");
        }
        checkpoint.check_position(self.batches(), &path)?;
        let expected = self.stepper.state().map_err(|source| TrainError::Step { epoch: 1, batch: 1, source })?;
        checkpoint.check_state(&expected, &path)?;
        let put = self.stepper.set_state(&checkpoint.state);
        put.map_err(|source| TrainError::Step { epoch: checkpoint.position.epoch + 1, batch: 1, source })?;
        self.before = checkpoint.position.seconds;
        self.position = checkpoint.position;
        let folder = self.folder.as_mut().ok_or_else(|| TrainError::Internal("a run without a folder".to_owned()))?;
        folder.save_config(&self.config)?;
        folder.write_metrics(&self.position.history)?;
        Ok(self)
    }

    /// Steps an epoch.
    fn batches(&self) -> usize {
        batches::count(self.data.train.len(), self.config.batch as usize)
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// A step that fails, a loss that is not finite, a folder that can't be written. The last checkpoint stays.
    pub fn run(mut self) -> Result<Outcome, TrainError> {
        self.began = Instant::now();
        self.observer.start(&Start {
            epochs: self.config.epochs(),
            done: self.position.epoch,
            step: self.position.step,
            batches: self.batches(),
            train: self.data.train.len(),
            validation: self.data.validation.len(),
        });
        if let Some(folder) = self.folder.as_mut().filter(|_| self.config.log_every.is_some()) {
            folder.keep_steps(self.position.step)?;
        }
        let room = Room::of(&self.config, self.data, self.process);
        let step = self.stepper.memory(&room.sizes());
        let step = step.map_err(|source| TrainError::Step { epoch: self.position.epoch + 1, batch: 1, source })?;
        self.memory = room.plan(step, 0);
        self.observer.memory(&self.memory);
        if self.position.step == 0 {
            // However soon the run is killed, it can go on.
            self.save(RunFolder::LAST)?;
        }
        let end = loop {
            if self.config.patience.is_some_and(|patience| self.position.stale >= patience) {
                break End::Patience;
            }
            if self.position.epoch >= self.config.epochs() {
                break End::Finished;
            }
            if self.train_epoch()?.is_break() {
                self.save(RunFolder::LAST)?;
                break End::Stopped;
            }
            match self.judge()? {
                Some(validation) => self.end_epoch(&validation)?,
                None => {
                    self.save(RunFolder::LAST)?;
                    break End::Stopped;
                }
            }
        };
        self.position.seconds = self.seconds();
        self.write_pages()?;
        Ok(Outcome {
            end,
            best: self.position.best,
            epochs: self.position.epoch,
            steps: self.position.step,
            seconds: self.position.seconds,
            history: self.position.history,
            memory: self.memory,
            measured: MemoryPlan::measured(self.process),
        })
    }

    /// Seconds of all parts of the run until now.
    fn seconds(&self) -> f64 {
        self.before + self.began.elapsed().as_secs_f64()
    }

    fn stopped(&self) -> bool {
        self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed))
    }

    /// What the schedule gives for a step of this epoch, counted from 0.
    fn rates_at(&self, step: u64) -> Rates {
        let epochs = self.config.epochs();
        let steps = u64::from(epochs).saturating_mul(self.batches() as u64);
        let point = Point { epoch: self.position.epoch, step, epochs, steps };
        self.config.schedule.at(self.config.optimizer.learning_rate, point)
    }

    /// What the schedule gave for the step that was last.
    fn last_rate(&self) -> f64 {
        self.rates_at(self.position.step.saturating_sub(1)).learning_rate
    }

    /// What changes from step to step, of a step of this epoch, counted from 0.
    fn hyper(&self, step: u64) -> Hyper {
        let rates = self.rates_at(step);
        let momentum = rates.momentum.unwrap_or_else(|| self.config.optimizer.usual_momentum());
        Hyper { step: step + 1, learning_rate: rates.learning_rate, momentum }
    }

    /// The order of this epoch's records.
    fn order(&self) -> Order {
        match self.config.shuffle {
            true => Order::Shuffled { seed: self.config.seed, epoch: u64::from(self.position.epoch) },
            false => Order::Data,
        }
    }

    /// Trains on what is left of the epoch; breaks when somebody asked to stop.
    fn train_epoch(&mut self) -> Result<ControlFlow<()>, TrainError> {
        let (data, batch) = (self.data, self.config.batch as usize);
        let order = self.order();
        let first = usize::try_from(self.position.batch).unwrap_or(usize::MAX);
        let mut flow = ControlFlow::Continue(());
        let mut last = Instant::now();
        batches::for_each(&data.train, batch, order, first, |index, batch| {
            self.train_batch(index, &batch)?;
            let now = Instant::now();
            self.position.sums.seconds += now.duration_since(last).as_secs_f64();
            last = now;
            let progress = Progress {
                epoch: self.position.epoch + 1,
                batch: index + 1,
                batches: self.batches(),
                learning_rate: self.last_rate(),
                sums: self.position.sums,
            };
            self.observer.step(&progress);
            if self.stopped() {
                flow = ControlFlow::Break(());
            } else if self.config.checkpoint_steps.is_some_and(|n| self.position.step.is_multiple_of(n)) {
                self.save(RunFolder::LAST)?;
                last = Instant::now();
            }
            Ok::<_, TrainError>(flow)
        })?;
        Ok(flow)
    }

    fn train_batch(&mut self, index: usize, batch: &Batch<'_>) -> Result<(), TrainError> {
        let (epoch, number) = (self.position.epoch + 1, index + 1);
        let hyper = self.hyper(self.position.step);
        let result = self.stepper.step(batch, &hyper);
        let result = result.map_err(|source| TrainError::Step { epoch, batch: number, source })?;
        let results = [("the loss", result.loss), ("the norm of the gradients", result.grad_norm)];
        if let Some((what, value)) = results.into_iter().find(|(_, value)| !value.is_finite()) {
            let anomaly = self.blame(index, batch, &hyper);
            return Err(TrainError::Diverged { epoch, batch: number, what, value, anomaly });
        }
        let position = &mut self.position;
        position.sums.add(batch.len, result.loss, result.correct);
        position.sums.grad_norm += f64::from(result.grad_norm);
        position.step += 1;
        position.batch = number as u64;
        if self.config.log_every.is_none_or(|every| !self.position.step.is_multiple_of(every)) {
            return Ok(());
        }
        let record = StepRecord {
            step: hyper.step,
            epoch,
            loss: result.loss.into(),
            accuracy: result.correct.map(|correct| correct as f64 / batch.len.max(1) as f64),
            learning_rate: hyper.learning_rate,
            grad_norm: result.grad_norm.into(),
        };
        self.observer.logged(&record);
        self.folder.as_mut().map_or(Ok(()), |folder| folder.append_step(&record))
    }

    /// Names the op that a result which is not finite came from. The step has spoiled the state: the search begins from
    /// the one before, which was kept or is reached again from the last checkpoint.
    fn blame(&mut self, index: usize, batch: &Batch<'_>, hyper: &Hyper) -> Option<String> {
        let restored = match self.stepper.rewind() {
            Ok(false) => self.replay(index),
            other => other,
        };
        let found = match restored {
            Ok(true) => self.stepper.anomaly(batch, Some(hyper)),
            Ok(false) => return None,
            Err(error) => Err(error),
        };
        found.unwrap_or_else(|error| Some(format!("not known: {error}")))
    }

    /// Steps again from the last checkpoint up to batch `index` of this epoch; false where there is none, or when
    /// somebody asked to stop.
    fn replay(&mut self, index: usize) -> Result<bool, StepError> {
        let Some(folder) = &self.folder else { return Ok(false) };
        let Checkpoint { position, state, .. } = folder.last()?;
        let first = usize::try_from(position.batch)?;
        if position.epoch != self.position.epoch || first > index {
            return Ok(false);
        }
        if index > first {
            self.observer.note(&format!("looking for the op: {} steps again from the last checkpoint", index - first));
        }
        self.stepper.set_state(&state)?;
        let mut at = position.step;
        let mut stopped = false;
        batches::for_each(&self.data.train, self.config.batch as usize, self.order(), first, |i, batch| {
            stopped = self.stopped();
            if stopped || i >= index {
                return Ok(ControlFlow::Break(()));
            }
            let hyper = self.hyper(at);
            at += 1;
            self.stepper.step(&batch, &hyper).map(|_| ControlFlow::Continue(()))
        })?;
        Ok(!stopped)
    }

    /// Judges the network by the validation set; `None` when somebody asked to stop.
    fn judge(&mut self) -> Result<Option<Sums>, TrainError> {
        let (data, batch) = (self.data, self.config.batch as usize);
        let epoch = self.position.epoch + 1;
        let began = Instant::now();
        let mut sums = Sums::default();
        let mut stopped = false;
        batches::for_each(&data.validation, batch, Order::Data, 0, |index, batch| {
            let result = self.stepper.evaluate(&batch);
            let result = result.map_err(|source| TrainError::Step { epoch, batch: index + 1, source })?;
            if !result.loss.is_finite() {
                // The state is as it was: nothing has to be gone through again.
                let found = self.stepper.anomaly(&batch, None);
                let anomaly = found.unwrap_or_else(|error| Some(format!("not known: {error}")));
                let (what, value) = ("the validation loss", result.loss);
                return Err(TrainError::Diverged { epoch, batch: index + 1, what, value, anomaly });
            }
            sums.add(batch.len, result.loss, result.correct);
            stopped = self.stopped();
            Ok::<_, TrainError>(if stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        sums.seconds = began.elapsed().as_secs_f64();
        // Asked during the last batch: the epoch is done, so it may as well be kept.
        let done = sums.records == data.validation.len() as u64;
        Ok((done || !stopped).then_some(sums))
    }

    fn end_epoch(&mut self, validation: &Sums) -> Result<(), TrainError> {
        let last_rate = self.last_rate();
        let position = &mut self.position;
        let train = std::mem::take(&mut position.sums);
        let (loss, accuracy) = (validation.mean_loss(), validation.accuracy());
        let metric = accuracy.unwrap_or(loss);
        let better = position.best.is_none_or(|best| match accuracy {
            Some(accuracy) => accuracy > best.metric,
            None => loss < best.metric,
        });
        position.epoch += 1;
        position.batch = 0;
        position.stale = if better { 0 } else { position.stale + 1 };
        if better {
            position.best = Some(Best { epoch: position.epoch, metric });
        }
        let record = EpochRecord {
            epoch: position.epoch,
            step: position.step,
            learning_rate: last_rate,
            train_loss: train.mean_loss(),
            train_accuracy: train.accuracy(),
            validation_loss: loss,
            validation_accuracy: accuracy,
            grad_norm: train.grad_norm / train.batches.max(1) as f64,
            samples_per_second: train.rate(),
            seconds: train.seconds + validation.seconds,
            best: better,
        };
        position.history.push(record);
        if let Some(folder) = &mut self.folder {
            folder.append_metrics(&record)?;
        }
        if better {
            self.save(RunFolder::BEST)?;
        }
        self.save(RunFolder::LAST)?;
        self.write_pages()?;
        self.observer.epoch(&record);
        Ok(())
    }

    /// Writes a checkpoint of now, where there is a folder.
    fn save(&mut self, name: &str) -> Result<(), TrainError> {
        if self.folder.is_none() {
            return Ok(());
        }
        let (epoch, batch) = (self.position.epoch + 1, self.position.batch as usize + 1);
        self.position.seconds = self.seconds();
        let checkpoint = Checkpoint {
            config_hash: self.config_hash,
            data_hash: self.data_hash,
            seed: self.config.seed,
            rates: self.rates_at(self.position.step),
            position: self.position.clone(),
            state: State::new(),
        };
        let Some(folder) = &mut self.folder else { return Ok(()) };
        let saved = self.stepper.lend(&mut |state| folder.save(name, &checkpoint, state));
        saved.map_err(|source| TrainError::Step { epoch, batch, source })?
    }

    /// Writes curves and report, where there is a folder.
    fn write_pages(&mut self) -> Result<(), TrainError> {
        let Some(folder) = &mut self.folder else { return Ok(()) };
        let curves = chart::curves(&self.position.history);
        let memory = self.memory.line(MemoryPlan::measured(self.process));
        let sizes = format!("{}; {memory}", sizes(&self.data.train, &self.data.validation));
        let page = report::page(&self.config, &self.position, &sizes, &curves)?;
        folder.write_page(RunFolder::CURVES, &curves)?;
        folder.write_page(RunFolder::REPORT, &page)
    }
}

/// Records of both sets, for people.
fn sizes(train: &Dataset, validation: &Dataset) -> String {
    format!("{} records to train on, {} to be judged by", train.len(), validation.len())
}
