//! Whole runs: what is learnt, written and said; all ways to end; going on.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::train::config::{Loss, LossKind};
use crate::train::optimizer::DecayGroup;

/// Counts what it is told, and asks to stop at a step.
#[derive(Default)]
struct Watcher<'a> {
    started: Vec<Start>,
    steps: u64,
    epochs: u32,
    stop: Option<(u64, &'a AtomicBool)>,
}

impl Observer for Watcher<'_> {
    fn start(&mut self, start: &Start) {
        self.started.push(*start);
    }

    fn step(&mut self, progress: &Progress) {
        self.steps += 1;
        assert!(progress.batch <= progress.batches && progress.sums.batches == progress.batch as u64);
        if let Some((step, flag)) = self.stop {
            flag.store(self.steps >= step, Ordering::Relaxed);
        }
    }

    fn epoch(&mut self, record: &EpochRecord) {
        self.epochs += 1;
        assert_eq!(record.epoch, self.epochs);
    }
}

#[test]
fn a_run_learns_and_leaves_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep").join("run");
    let (config, data) = (config(6), data());
    let mut linear = Linear::new(&config, &data);
    let mut watcher = Watcher::default();
    let run = RunFolder::create(&path, &config, Box::new(SystemDisk)).unwrap();
    let outcome = Trainer::new(config.clone(), &mut linear, &data, &mut watcher).unwrap().in_folder(run).run().unwrap();
    // 50 records in batches of 8: six whole ones, and one of 2.
    assert_eq!((watcher.steps, watcher.epochs, watcher.started[0].batches), (42, 6, 7));
    let best = outcome.best.unwrap();
    assert!(best.metric > 0.75, "{best:?}");
    assert_eq!((outcome.end, outcome.epochs), (End::Finished, 6));
    let largest = outcome.history.iter().filter_map(|r| r.validation_accuracy).fold(0.0, f64::max);
    assert_eq!(best.metric, largest);
    assert_eq!(outcome.history[best.epoch as usize - 1].validation_accuracy, Some(largest));
    assert!(outcome.history[5].train_loss < outcome.history[0].train_loss);
    // The settings that it was made with, and the state that it came to.
    assert_eq!(Config::read_file(&path.join(RunFolder::CONFIG)).unwrap(), config);
    let last = Checkpoint::read_file(&path.join(RunFolder::LAST)).unwrap();
    let mut state = linear.state().unwrap();
    state.sort_keys();
    assert_eq!((last.position.step, last.state), (42, state));
    let kept = Checkpoint::read_file(&path.join(RunFolder::BEST)).unwrap();
    assert_eq!(kept.position.epoch, best.epoch);
    let (csv, records) = lines(&path);
    assert_eq!((csv.len(), records.len()), (7, 6));
    assert!(csv[0].starts_with("epoch,step,learning_rate,train_loss"));
    let curves = std::fs::read_to_string(path.join(RunFolder::CURVES)).unwrap();
    assert!(curves.starts_with("<svg") && curves.matches("<polyline").count() == 4 && curves.ends_with("</svg>\n"));
    let page = std::fs::read_to_string(path.join(RunFolder::REPORT)).unwrap();
    assert!(page.contains("<svg") && page.matches("<tr").count() == 7 && page.contains("of 6 epochs"), "{page}");
    for outside in ["<script", "<link", "src=", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    let left: Vec<_> = std::fs::read_dir(&path)
        .unwrap()
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().ends_with(".tmp"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn numbers_are_learnt_by_squared_differences() {
    let data = slopes();
    let loss = Loss { kind: LossKind::Mse, ..Loss::default() };
    let optimizer = Optimizer { kind: OptimizerKind::Sgd, weight_decay: 0.0, ..config(1).optimizer };
    let config = Config { loss, optimizer, schedule: Schedule::Constant {}, ..config(40) };
    let mut linear = Linear::new(&config, &data);
    let outcome = Trainer::new(config, &mut linear, &data, &mut Silent).unwrap().run().unwrap();
    let best = outcome.best.unwrap();
    let smallest = outcome.history.iter().map(|r| r.validation_loss).fold(f64::INFINITY, f64::min);
    assert_eq!(best.metric, smallest);
    assert!(best.metric < 1e-4 && outcome.history[0].validation_accuracy.is_none(), "{best:?}");
    let weight = linear.state().unwrap()["weight"].to_vec::<f32>();
    assert!([2.0, -1.0, 0.0, 1.0].iter().zip(&weight).all(|(a, b)| (a - b).abs() < 0.02), "{weight:?}");
}

#[test]
fn frozen_parameters_stay_and_groups_decay() {
    let data = data();
    let groups = vec![DecayGroup { pattern: "bias".to_owned(), weight_decay: 0.0 }];
    let mut config = Config { freeze: vec!["weight".to_owned()], ..config(2) };
    config.optimizer.groups = groups;
    let mut linear = Linear::new(&config, &data);
    let before = linear.state().unwrap();
    Trainer::new(config, &mut linear, &data, &mut Silent).unwrap().run().unwrap();
    let after = linear.state().unwrap();
    assert_eq!(before["weight"].bytes(), after["weight"].bytes());
    assert_ne!(before["bias"].bytes(), after["bias"].bytes());
}

#[test]
fn a_run_stopped_anywhere_goes_on_to_the_same_bits() {
    let (config, data) = (config(3), data());
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    begin(&config, &data, &whole, Box::new(SystemDisk)).unwrap();
    // Within an epoch, after its last step, and in the next one.
    for at in [1, 4, 7, 8, 20] {
        let path = folder.path().join(format!("stopped-{at}"));
        let flag = AtomicBool::new(false);
        let mut watcher = Watcher { stop: Some((at, &flag)), ..Watcher::default() };
        let mut linear = Linear::new(&config, &data);
        let run = RunFolder::create(&path, &config, Box::new(SystemDisk)).unwrap();
        let trainer = Trainer::new(config.clone(), &mut linear, &data, &mut watcher).unwrap();
        let outcome = trainer.in_folder(run).until(&flag).run().unwrap();
        assert_eq!((outcome.end, watcher.steps), (End::Stopped, at));
        let saved = Checkpoint::read_file(&path.join(RunFolder::LAST)).unwrap().position;
        assert_eq!((saved.step, saved.epoch, saved.batch), (at, (at as u32 - 1) / 7, (at - 1) % 7 + 1));
        // Lines that were written after the checkpoint, as a crash may leave them, do not come twice.
        let doubled = std::fs::read_to_string(path.join(RunFolder::CSV)).unwrap() + "1,7,0.001,1,1,1,1,1,1,1,1\n2,14";
        std::fs::write(path.join(RunFolder::CSV), doubled).unwrap();
        assert_eq!(go_on(&data, &path).unwrap().end, End::Finished);
        assert_same_run(&whole, &path);
    }
    // A run that is done stays as it is.
    let before = timeless(&whole.join(RunFolder::LAST));
    assert_eq!(go_on(&data, &whole).unwrap().end, End::Finished);
    assert_eq!(timeless(&whole.join(RunFolder::LAST)), before);
}

#[test]
fn a_run_stopped_while_it_is_judged_goes_on_to_the_same_bits() {
    static STOP: AtomicBool = AtomicBool::new(false);
    let (config, data) = (config(2), data());
    let folder = tempfile::tempdir().unwrap();
    let (whole, part) = (folder.path().join("whole"), folder.path().join("part"));
    begin(&config, &data, &whole, Box::new(SystemDisk)).unwrap();
    let at_evaluation = |result| {
        STOP.store(true, Ordering::Relaxed);
        result
    };
    let at_step = |_, result| Ok(result);
    let mut stepper = Faulty { inner: Linear::new(&config, &data), at_step, at_evaluation: Some(at_evaluation) };
    let mut watcher = Watcher::default();
    let run = RunFolder::create(&part, &config, Box::new(SystemDisk)).unwrap();
    let trainer = Trainer::new(config.clone(), &mut stepper, &data, &mut watcher).unwrap();
    let outcome = trainer.in_folder(run).until(&STOP).run().unwrap();
    assert_eq!((outcome.end, outcome.epochs, outcome.steps), (End::Stopped, 0, 7));
    assert!(!part.join(RunFolder::BEST).exists());
    go_on(&data, &part).unwrap();
    assert_same_run(&whole, &part);
}

#[test]
fn a_network_that_cannot_be_judged_ends_the_run() {
    let (config, data) = (config(2), data());
    let at_step = |_, result| Ok(result);
    let at_evaluation = |result| EvalResult { loss: f32::NAN, ..result };
    let mut stepper = Faulty { inner: Linear::new(&config, &data), at_step, at_evaluation: Some(at_evaluation) };
    let error = Trainer::new(config, &mut stepper, &data, &mut Silent).unwrap().run().unwrap_err();
    assert!(error.to_string().contains("epoch 1, batch 1: the validation loss is NaN"), "{error}");
}

#[test]
fn schedules_go_on_where_they_were() {
    let data = data();
    for name in Schedule::NAMES {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { schedule: Schedule::of_name(name).unwrap(), shuffle: false, ..config(2) };
        let (whole, part) = (folder.path().join("whole"), folder.path().join("part"));
        begin(&config, &data, &whole, Box::new(SystemDisk)).unwrap();
        let flag = AtomicBool::new(false);
        let mut watcher = Watcher { stop: Some((9, &flag)), ..Watcher::default() };
        let mut linear = Linear::new(&config, &data);
        let run = RunFolder::create(&part, &config, Box::new(SystemDisk)).unwrap();
        let trainer = Trainer::new(config.clone(), &mut linear, &data, &mut watcher).unwrap();
        trainer.in_folder(run).until(&flag).run().unwrap();
        go_on(&data, &part).unwrap();
        assert_same_run(&whole, &part);
    }
}

#[test]
fn without_progress_a_run_ends_early() {
    let data = data();
    let optimizer = Optimizer { learning_rate: 0.0, ..Optimizer::default() };
    let config = Config { patience: Some(3), optimizer, ..config(50) };
    let folder = tempfile::tempdir().unwrap();
    let outcome = begin(&config, &data, folder.path(), Box::new(SystemDisk)).unwrap();
    assert_eq!((outcome.end, outcome.epochs, outcome.best.unwrap().epoch), (End::Patience, 4, 1));
    assert_eq!(go_on(&data, folder.path()).unwrap().epochs, 4);
}

#[test]
fn a_run_that_diverges_says_where_and_keeps_its_checkpoint() {
    let (config, data) = (config(3), data());
    type Change = fn(StepResult) -> StepResult;
    let cases: [(Change, &str); 3] = [
        (|r| StepResult { loss: f32::NAN, ..r }, "epoch 2, batch 3: the loss is NaN"),
        (|r| StepResult { loss: f32::INFINITY, ..r }, "the loss is inf"),
        (|r| StepResult { grad_norm: f32::INFINITY, ..r }, "the norm of the gradients is inf"),
    ];
    for (change, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        let at_step = |step, result| Ok(if step == 10 { change(result) } else { result });
        let mut stepper = Faulty { inner: Linear::new(&config, &data), at_step, at_evaluation: None };
        let run = RunFolder::create(folder.path(), &config, Box::new(SystemDisk)).unwrap();
        let mut nobody = Silent;
        let trainer = Trainer::new(config.clone(), &mut stepper, &data, &mut nobody).unwrap();
        let error = trainer.in_folder(run).run().unwrap_err();
        let said = error.to_string();
        assert!(said.contains(expected) && said.contains("the product of inputs and `weight`"), "{said}");
        assert!(error.help().contains("learning rate"));
        let last = Checkpoint::read_file(&folder.path().join(RunFolder::LAST)).unwrap();
        assert_eq!((last.position.epoch, last.position.step), (1, 7));
    }
}

#[test]
fn a_real_divergence_is_found() {
    let data = slopes();
    let optimizer = Optimizer { kind: OptimizerKind::Sgd, learning_rate: 1e6, ..Optimizer::default() };
    let loss = Loss { kind: LossKind::Mse, ..Loss::default() };
    let config = Config { optimizer, loss, ..config(200) };
    let mut linear = Linear::new(&config, &data);
    let error = Trainer::new(config, &mut linear, &data, &mut Silent).unwrap().run().unwrap_err();
    assert!(matches!(error, TrainError::Diverged { .. }), "{error}");
}

#[test]
fn a_step_that_fails_is_named() {
    let (config, data) = (config(3), data());
    let at_step = |step, result| if step == 9 { Err("no memory".into()) } else { Ok(result) };
    let mut stepper = Faulty { inner: Linear::new(&config, &data), at_step, at_evaluation: None };
    let error = Trainer::new(config, &mut stepper, &data, &mut Silent).unwrap().run().unwrap_err();
    assert_eq!(error.to_string(), "epoch 2, batch 2: no memory");
}

#[test]
fn labels_that_the_network_lacks_are_refused_before_the_run() {
    let (config, mut data) = (config(1), data());
    let mut linear = Linear::new(&config, &data);
    let classes = Targets::Classes((0..31).map(|i| if i == 16 { 3 } else { 0 }).collect());
    data.validation = Dataset::new("judge", vec![4], vec![0.0; 124], classes).unwrap();
    let error = Trainer::new(config, &mut linear, &data, &mut Silent).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("judge: record 17: label 3 is out of range: the model has 3"), "{error}");
}
