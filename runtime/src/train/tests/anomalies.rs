//! Runs of compiled networks that diverge: the op that began it is named, by its origin, with and without the flag.

use frit_ir::Module;
use frit_ir::model::Mlp;

use super::*;
use crate::compile::CompileOptions;

/// A run whose parameters grow until something overflows.
fn diverging(detect_anomaly: bool) -> Config {
    let optimizer = Optimizer { kind: OptimizerKind::Sgd, learning_rate: 1e18, ..Optimizer::default() };
    Config { model: "mlp".to_owned(), optimizer, detect_anomaly, ..config(3) }
}

fn network() -> Module {
    Mlp { layers: vec![4, 5, 3], ..Mlp::default() }.module(0).unwrap()
}

fn stepper(config: &Config) -> CompiledStepper {
    CompiledStepper::new(network(), config, &[4], &CompileOptions::default()).unwrap()
}

/// What a run says that can't go well.
fn said(config: &Config, folder: Option<&Path>) -> String {
    let (mut stepper, data, mut nobody) = (stepper(config), data(), Silent);
    let trainer = Trainer::new(config.clone(), &mut stepper, &data, &mut nobody).unwrap();
    let trainer = match folder {
        Some(path) => trainer.in_folder(RunFolder::create(path, config, Box::new(SystemDisk)).unwrap()),
        None => trainer,
    };
    trainer.run().unwrap_err().to_string()
}

#[test]
fn the_op_is_the_same_whether_state_is_kept_or_reached_again() {
    let folder = tempfile::tempdir().unwrap();
    let (kept, again) = (diverging(true), diverging(false));
    let found = said(&kept, None);
    assert!(found.contains("epoch 1, batch ") && found.contains("; first not finite: `"), "{found}");
    assert!(found.contains("` of `layers.") || found.contains("` of `loss"), "{found}");
    assert!(found.contains(" of finite operands"), "{found}");
    assert_eq!(said(&again, Some(folder.path())), found);
    // The checkpoint of before stays, and its state is finite.
    let last = Checkpoint::read_file(&folder.path().join(RunFolder::LAST)).unwrap();
    assert!(last.state.values().all(|t| t.to_vec::<f32>().iter().all(|x| x.is_finite())));
    // Neither kept nor written: only that it went wrong is known.
    assert!(!said(&again, None).contains("first not finite"));
}

#[test]
fn keeping_state_changes_no_bit() {
    let data = data();
    let states = [false, true].map(|detect_anomaly| {
        let config = Config { detect_anomaly, ..config(2) };
        let (mut stepper, mut nobody) = (stepper(&config), Silent);
        Trainer::new(config, &mut stepper, &data, &mut nobody).unwrap().run().unwrap();
        assert_eq!(stepper.rewind().unwrap(), detect_anomaly);
        stepper.state().unwrap()
    });
    // What is put back is the state before the last step, so only the other one is ahead.
    assert_ne!(states[0], states[1]);
    let runs = [false, true].map(|detect_anomaly| {
        let config = Config { detect_anomaly, ..config(2) };
        let (mut stepper, mut nobody) = (stepper(&config), Silent);
        Trainer::new(config, &mut stepper, &data, &mut nobody).unwrap().run().unwrap();
        stepper.state().unwrap()
    });
    assert_eq!(runs[0], runs[1]);
}

#[test]
fn an_evaluation_that_goes_wrong_is_searched_too() {
    let config = config(1);
    let mut stepper = stepper(&config);
    let mut state = stepper.state().unwrap();
    let name = state.keys().find(|name| name.ends_with("base_weight")).unwrap().clone();
    let shape = state[&name].shape().to_vec();
    let count: usize = shape.iter().product();
    state.insert(name, frit_ir::Tensor::f32(&shape, &vec![f32::MAX; count]).unwrap());
    stepper.set_state(&state).unwrap();
    let (inputs, shape) = ([1.0, -3.0, 2.0, 5.0], [4]);
    let targets = crate::data::dataset::TargetSlice::Classes(&[1]);
    let batch = Batch { len: 1, inputs: &inputs, shape: &shape, targets };
    assert!(!stepper.evaluate(&batch).unwrap().loss.is_finite());
    let found = stepper.anomaly(&batch, None).unwrap().unwrap();
    assert!(found.contains("` of `layers.") && found.ends_with("an infinity of finite operands"), "{found}");
}
