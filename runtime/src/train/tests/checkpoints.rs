//! Checkpoints: there and back, and files that must be refused by name, whatever they hold.

use std::path::{Path, PathBuf};

use frit_ir::module::Param;
use frit_ir::{DType, Module, Tensor};
use proptest::prelude::*;

use super::{begin, config, data, go_on};
use crate::train::checkpoint::{Best, Checkpoint, CheckpointError, Position};
use crate::train::metrics::Sums;
use crate::train::{Config, Optimizer, OptimizerKind, Rates, RunFolder, State, SystemDisk, TrainError};

fn checkpoint() -> Checkpoint {
    let mut state = State::new();
    state.insert("b".to_owned(), Tensor::f32(&[2, 2], &[1.0, -0.0, f32::MIN_POSITIVE / 2.0, 3.5]).unwrap());
    state.insert("a.x".to_owned(), Tensor::i64(&[1], &[i64::MIN]).unwrap());
    state.insert("flag".to_owned(), Tensor::from_bytes(DType::Bool, &[3], &[0, 1, 1]).unwrap());
    state.insert("half".to_owned(), Tensor::from_bytes(DType::BF16, &[], &[1, 2]).unwrap());
    state.insert("none".to_owned(), Tensor::f32(&[0, 3], &[]).unwrap());
    let sums = Sums { loss: 0.1 + 0.2, grad_norm: 1.0 / 3.0, correct: Some(7), records: 10, batches: 2, seconds: 1e-9 };
    let best = Some(Best { epoch: 2, metric: 0.1_f64.powi(3) });
    let position = Position { epoch: 0, batch: 2, step: 2, sums, best, stale: 0, seconds: 1.0 / 7.0, history: vec![] };
    let rates = Rates { learning_rate: 1e-3 * 0.8_f64.powi(5), momentum: Some(0.95) };
    Checkpoint { config_hash: u64::MAX, data_hash: 1 << 63, seed: u64::MAX - 1, rates, position, state }
}

#[test]
fn a_checkpoint_is_read_as_it_was_written() {
    let mut written = checkpoint();
    let bytes = written.to_bytes().unwrap();
    // The same content is the same file.
    assert_eq!(bytes, written.to_bytes().unwrap());
    let read = Checkpoint::from_bytes(&bytes, Path::new("x")).unwrap();
    written.state.sort_keys();
    assert_eq!(read, written);
    written.state.insert("four".to_owned(), Tensor::from_bytes(DType::I4, &[1], &[1]).unwrap());
    assert!(written.to_bytes().unwrap_err().to_string().contains("`four` is i4"));
}

/// The bytes with one text in place of another of the same length.
fn with(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
    [&bytes[..at], to.as_bytes(), &bytes[at + from.len()..]].concat()
}

#[test]
fn files_that_are_no_checkpoint_of_this_version_are_refused() {
    let bytes = checkpoint().to_bytes().unwrap();
    let read = |bytes: &[u8]| Checkpoint::from_bytes(bytes, Path::new("x.safetensors")).unwrap_err();
    assert!(matches!(read(b""), CheckpointError::Damaged { .. }));
    assert!(matches!(read(&[255; 64]), CheckpointError::Damaged { .. }));
    assert!(matches!(read(&bytes[..bytes.len() - 1]), CheckpointError::Damaged { .. }));
    assert!(matches!(read(&with(&bytes, "\"frit\"", "\"tirf\"")), CheckpointError::Foreign { .. }));
    let newer = read(&with(&bytes, "\\\"format\\\":1", "\\\"format\\\":9"));
    assert!(newer.to_string().contains("version 9") && newer.to_string().contains("x.safetensors"), "{newer}");
    assert!(matches!(read(&with(&bytes, "philox4x32-10", "mersenne-9999")), CheckpointError::Damaged { .. }));
    assert!(matches!(
        read(&with(&bytes, "\\\"stale\\\"", "\\\"spoilt\\\"".get(..9).unwrap())),
        CheckpointError::Damaged { .. }
    ));
    assert!(matches!(read(&with(&bytes, "\"BF16\"", "\"F8_X\"")), CheckpointError::Damaged { .. }));
}

proptest! {
    #[test]
    fn damaged_checkpoints_are_refused_or_read(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5), cut in any::<prop::sample::Index>(), cuts: bool,
    ) {
        let mut bytes = checkpoint().to_bytes().unwrap();
        for (at, value) in changes { let at = at.index(bytes.len()); bytes[at] = value; }
        if cuts { bytes.truncate(cut.index(bytes.len())); }
        if let Ok(read) = Checkpoint::from_bytes(&bytes, Path::new("x")) {
            // What is read must not make a panic later.
            let _ = read.check_position(5, Path::new("x"));
            let _ = read.check_state(&checkpoint().state, Path::new("x"));
            prop_assert!(read.to_bytes().is_ok());
        }
    }
}

#[test]
fn state_of_another_network_is_refused_by_name() {
    let found = checkpoint();
    let check = |change: &dyn Fn(&mut State)| {
        let mut expected = found.state.clone();
        change(&mut expected);
        found.check_state(&expected, Path::new("x")).unwrap_err().to_string()
    };
    found.check_state(&found.state, Path::new("x")).unwrap();
    let missing = check(&|state| drop(state.insert("more".to_owned(), Tensor::f32(&[], &[0.0]).unwrap())));
    assert!(missing.contains("`more`: it is missing"), "{missing}");
    let extra = check(&|state| drop(state.shift_remove("b")));
    assert!(extra.contains("`b`: the model has no such"), "{extra}");
    let shape = check(&|state| drop(state.insert("b".to_owned(), Tensor::f32(&[4], &[0.0; 4]).unwrap())));
    assert!(shape.contains("`b`: it is f32[2, 2], the model's is f32[4]"), "{shape}");
    let dtype =
        check(&|state| drop(state.insert("b".to_owned(), Tensor::from_bytes(DType::I32, &[2, 2], &[0; 16]).unwrap())));
    assert!(dtype.contains("i32[2, 2]"), "{dtype}");
}

#[test]
fn parameters_enter_a_module_by_name() {
    let mut found = checkpoint();
    found.state.insert("optimizer.first.b".to_owned(), Tensor::f32(&[2, 2], &[9.0; 4]).unwrap());
    let mut module = Module::default();
    for (name, tensor) in &found.state {
        if !name.starts_with("optimizer.") {
            let value = Tensor::from_bytes(tensor.dtype(), tensor.shape(), &vec![0; tensor.bytes().len()]).unwrap();
            module.params.insert(name.clone(), Param { value, trainable: true });
        }
    }
    module.params.insert("frozen".to_owned(), Param { value: Tensor::f32(&[], &[4.0]).unwrap(), trainable: true });
    found.clone().load_parameters(&mut module, Path::new("x")).unwrap();
    assert_eq!(module.params["b"].value, found.state["b"]);
    assert_eq!(module.params["frozen"].value.to_vec::<f32>(), [4.0]);
    let mut wrong = module.clone();
    wrong.params.insert("b".to_owned(), Param { value: Tensor::f32(&[4], &[0.0; 4]).unwrap(), trainable: true });
    let error = found.clone().load_parameters(&mut wrong, Path::new("x")).unwrap_err().to_string();
    assert!(error.contains("`b`: it is f32[2, 2], the model's is f32[4]"), "{error}");
    wrong.params.shift_remove("b");
    let error = found.load_parameters(&mut wrong, Path::new("x")).unwrap_err().to_string();
    assert!(error.contains("`b`: the model has no such parameter"), "{error}");
}

#[test]
fn positions_that_no_run_is_at_are_refused() {
    let good = checkpoint();
    good.check_position(2, Path::new("x")).unwrap();
    let changes: [&dyn Fn(&mut Position); 7] = [
        &|p| p.batch = 3,
        &|p| p.step = 3,
        &|p| (p.epoch, p.step) = (1, 4),
        &|p| p.epoch = u32::MAX,
        &|p| p.sums.batches = 1,
        &|p| p.stale = 1,
        &|p| (p.batch, p.step) = (u64::MAX, u64::MAX),
    ];
    for change in changes {
        let mut bad = good.clone();
        change(&mut bad.position);
        assert!(bad.check_position(2, Path::new("x")).is_err(), "{:?}", bad.position);
    }
}

/// The message with which a run can't go on.
fn refused(path: &Path) -> String {
    let error = go_on(&data(), path).unwrap_err();
    assert!(error.help().len() > 10);
    error.to_string()
}

fn finished(folder: &Path) -> PathBuf {
    let path = folder.join("run");
    begin(&config(1), &data(), &path, Box::new(SystemDisk)).unwrap();
    path
}

#[test]
fn a_run_goes_on_only_with_what_it_began_with() {
    let folder = tempfile::tempdir().unwrap();
    let path = finished(folder.path());
    let edit = |from: &str, to: &str| {
        let file = path.join(RunFolder::CONFIG);
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(file, text.replace(from, to)).unwrap();
    };
    edit("learning_rate = 0.05", "learning_rate = 0.06");
    assert!(refused(&path).contains("other settings"));
    edit("learning_rate = 0.06", "learning_rate = 0.05");
    edit("epochs = 1\n", "epochs = 2\n");
    let mut other = data();
    other.train = super::blobs(50, 3);
    assert!(go_on(&other, &path).unwrap_err().to_string().contains("other data"));
    // A longer run is the same run.
    assert_eq!(go_on(&data(), &path).unwrap().epochs, 2);
    let last = path.join(RunFolder::LAST);
    let bytes = std::fs::read(&last).unwrap();
    std::fs::write(&last, &bytes[..100]).unwrap();
    assert!(refused(&path).contains("last.safetensors: damaged"));
    std::fs::remove_file(&last).unwrap();
    assert!(refused(&path).contains("last.safetensors"));
    assert!(matches!(go_on(&data(), folder.path()), Err(TrainError::Config(_))));
}

#[test]
fn a_folder_with_a_run_is_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = finished(folder.path());
    let again = begin(&config(1), &data(), &path, Box::new(SystemDisk)).unwrap_err();
    assert!(matches!(again, TrainError::Occupied { .. }) && again.help().contains("--resume"), "{again}");
}

#[test]
fn state_of_another_optimiser_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = finished(folder.path());
    let checkpoint = Checkpoint::read_file(&path.join(RunFolder::LAST)).unwrap();
    let sgd = Config { optimizer: Optimizer { kind: OptimizerKind::Sgd, ..Optimizer::default() }, ..config(1) };
    let linear = crate::train::reference::linear::Linear::new(&sgd, &data());
    let expected = crate::train::Stepper::state(&linear).unwrap();
    let error = checkpoint.check_state(&expected, Path::new("x")).unwrap_err().to_string();
    assert!(error.contains("`optimizer.momentum.weight`: it is missing"), "{error}");
}
