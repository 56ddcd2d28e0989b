//! Runs of the smallest network: what they write, how they end, that one which goes on gives the bits of one which never
//! ended; formulas against PyTorch's numbers; settings and checkpoints that must be refused.

mod anomalies;
mod checkpoints;
mod configs;
mod crash;
mod formulas;
mod runs;

use std::path::Path;

use frit_ir::random::Philox;

use super::reference::linear::Linear;
use super::*;
use crate::data::dataset::{Batch, Dataset, Targets, TrainingData};

/// Records of three classes around three points of four dims: learnt in a few epochs.
fn blobs(records: usize, seed: u64) -> Dataset {
    let mut random = Philox::new(seed, 9);
    let (mut inputs, mut classes) = (Vec::new(), Vec::new());
    for i in 0..records {
        let class = i % 3;
        inputs.extend((0..4).map(|d| if d == class { 1.5 } else { 0.0 } + 0.8 * random.normal()));
        classes.push(class as i64);
    }
    Dataset::new("blobs", vec![4], inputs, Targets::Classes(classes)).unwrap()
}

fn data() -> TrainingData {
    TrainingData::new(blobs(50, 1), blobs(31, 2)).unwrap()
}

/// y = 2 a - b + 0.5, and a second output.
fn slopes() -> TrainingData {
    let part = |seed| {
        let mut random = Philox::new(seed, 9);
        let inputs: Vec<f32> = (0..40).map(|_| random.normal()).collect();
        let values = inputs.chunks(2).flat_map(|x| [2.0 * x[0] - x[1] + 0.5, x[1]]).collect();
        Dataset::new("slopes", vec![2], inputs, Targets::Values { data: values, shape: vec![2] }).unwrap()
    };
    TrainingData::new(part(1), part(2)).unwrap()
}

fn config(epochs: u32) -> Config {
    let optimizer = Optimizer { learning_rate: 0.05, ..Optimizer::default() };
    Config { model: "linear".to_owned(), epochs: Some(epochs), batch: 8, shuffle: true, optimizer, ..Config::default() }
}

/// A run from its begin, in a folder of this disk.
fn begin(config: &Config, data: &TrainingData, path: &Path, disk: Box<dyn Disk>) -> Result<Outcome, TrainError> {
    let mut linear = Linear::new(config, data);
    let folder = RunFolder::create(path, config, disk)?;
    Trainer::new(config.clone(), &mut linear, data, &mut Silent)?.in_folder(folder).run()
}

/// A run that goes on, in a new process as far as it can tell.
fn go_on(data: &TrainingData, path: &Path) -> Result<Outcome, TrainError> {
    let (folder, config) = RunFolder::open(path, Box::new(SystemDisk))?;
    let mut linear = Linear::new(&Config { seed: 99, ..config.clone() }, data);
    Trainer::new(config, &mut linear, data, &mut Silent)?.in_folder(folder).resume()?.run()
}

/// A checkpoint without what clocks said.
fn timeless(path: &Path) -> Checkpoint {
    let mut checkpoint = Checkpoint::read_file(path).unwrap();
    let position = &mut checkpoint.position;
    (position.seconds, position.sums.seconds) = (0.0, 0.0);
    position.history.iter_mut().for_each(forget_time);
    checkpoint
}

fn forget_time(record: &mut EpochRecord) {
    (record.seconds, record.samples_per_second) = (0.0, 0.0);
}

/// Lines of metrics without what clocks said.
fn lines(folder: &Path) -> (Vec<String>, Vec<EpochRecord>) {
    let csv = std::fs::read_to_string(folder.join(RunFolder::CSV)).unwrap();
    let parts = |line: &str| line.split(',').take(8).collect::<Vec<_>>().join(",");
    let json = std::fs::read_to_string(folder.join(RunFolder::JSONL)).unwrap();
    let mut records: Vec<EpochRecord> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    records.iter_mut().for_each(forget_time);
    (csv.lines().map(parts).collect(), records)
}

/// Two folders hold the same run, to the last bit of what no clock said.
fn assert_same_run(a: &Path, b: &Path) {
    for name in [RunFolder::LAST, RunFolder::BEST] {
        let (a, b) = (timeless(&a.join(name)), timeless(&b.join(name)));
        assert_eq!(a, b, "{name}");
        for (name, tensor) in &a.state {
            assert_eq!(tensor.bytes(), b.state[name].bytes(), "{name}");
        }
    }
    assert_eq!(lines(a), lines(b));
}

/// A stepper that does something else at one step, or while it judges.
struct Faulty<F: FnMut(u64, StepResult) -> Result<StepResult, StepError>> {
    inner: Linear,
    at_step: F,
    at_evaluation: Option<fn(EvalResult) -> EvalResult>,
}

impl<F: FnMut(u64, StepResult) -> Result<StepResult, StepError>> Stepper for Faulty<F> {
    fn step(&mut self, batch: &Batch<'_>, hyper: &Hyper) -> Result<StepResult, StepError> {
        let result = self.inner.step(batch, hyper)?;
        (self.at_step)(hyper.step, result)
    }

    fn evaluate(&mut self, batch: &Batch<'_>) -> Result<EvalResult, StepError> {
        let result = self.inner.evaluate(batch)?;
        Ok(self.at_evaluation.map_or(result, |change| change(result)))
    }

    fn state(&self) -> Result<State, StepError> {
        self.inner.state()
    }

    fn set_state(&mut self, state: &State) -> Result<(), StepError> {
        self.inner.set_state(state)
    }

    fn classes(&self) -> Option<usize> {
        self.inner.classes()
    }

    fn anomaly(&mut self, batch: &Batch<'_>, hyper: Option<&Hyper>) -> Result<Option<String>, StepError> {
        self.inner.anomaly(batch, hyper)
    }
}
