//! Models that PyTorch exported train as they do in PyTorch: 20 steps, the last on a smaller batch.
//!
//! `tests/training/run.py --reference` writes the models, their data and PyTorch's losses; `run.py` compares many more,
//! with PyTorch at hand.

use std::path::PathBuf;

use frit_runtime::CompileOptions;
use frit_runtime::data::dataset::{Batch, TargetSlice};
use frit_runtime::data::{Array, npz};
use frit_runtime::load::load_to_train;
use frit_runtime::train::{CompiledStepper, Config, Hyper, OptimizerKind, Parameters, Stepper};

const BATCH: usize = 4;

fn reference(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("training/reference").join(name)
}

fn data(name: &str) -> (Vec<f32>, Vec<usize>, Vec<i64>) {
    let arrays = npz::read_file(&reference(name).join("data.npz")).expect("arrays");
    let of = |wanted: &str| -> &Array { &arrays.iter().find(|(name, _)| name == wanted).expect("an array").1 };
    let (x, y) = (of("x"), of("y"));
    let x_values = x.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four bytes")));
    let classes = y.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().expect("eight bytes")));
    (x_values.collect(), x.shape()[1..].to_vec(), classes.collect())
}

fn numbers(name: &str, key: &str) -> Vec<f64> {
    let text = std::fs::read_to_string(reference(name).join("losses.json")).expect("losses");
    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    value[key].as_array().expect("a list").iter().map(|v| v.as_f64().expect("a number")).collect()
}

/// Trains as PyTorch did; the largest relative difference of a loss, and what was trained.
fn train(name: &str, config: &Config) -> (f64, Parameters) {
    let (x, shape, y) = data(name);
    let module = load_to_train(&reference(name).join("model.onnx")).expect("a module");
    let mut stepper = CompiledStepper::new(module, config, &shape, &CompileOptions::default()).expect("a stepper");
    let mut worst: f64 = 0.0;
    let size: usize = shape.iter().product();
    let batches = x.chunks(BATCH * size).zip(y.chunks(BATCH));
    let expected = numbers(name, "losses");
    assert_eq!((batches.len(), y.len() % BATCH), (expected.len(), BATCH - 1));
    for (step, ((inputs, classes), expected)) in (1..).zip(batches.zip(expected)) {
        let batch = Batch { len: classes.len(), inputs, shape: &shape, targets: TargetSlice::Classes(classes) };
        let momentum = config.optimizer.usual_momentum();
        let hyper = Hyper { step, learning_rate: config.optimizer.learning_rate, momentum };
        let loss = f64::from(stepper.step(&batch, &hyper).expect("a step").loss);
        worst = worst.max((loss - expected).abs() / expected);
    }
    (worst, stepper.parameters())
}

fn config(kind: OptimizerKind, learning_rate: f64, weight_decay: f64) -> Config {
    let mut config = Config::default();
    config.optimizer.kind = kind;
    config.optimizer.learning_rate = learning_rate;
    config.optimizer.weight_decay = weight_decay;
    config
}

/// As new, its statistics and scales were one initializer to the exporter.
#[test]
fn a_residual_network_trains_as_in_pytorch() {
    let sgd = config(OptimizerKind::Sgd, 0.02, 1e-4);
    let (worst, parameters) = train("resnet", &sgd);
    assert!(worst < 1e-3, "{worst}");
    assert_eq!((parameters.trained.len(), parameters.renewed.len()), (20, 12), "{parameters:?}");
    assert!(parameters.frozen.is_empty() && parameters.constant.is_empty(), "{parameters:?}");
    assert!(parameters.trained.contains(&"layer2.down.1.weight".to_owned()), "{parameters:?}");
    assert!(parameters.renewed.contains(&"layer1.bn2.running_var".to_owned()), "{parameters:?}");
    // Other statistics give other losses; what is frozen is told.
    let frozen = Config { freeze_statistics: true, freeze: vec!["layer1.*".to_owned()], ..sgd };
    let (worst, parameters) = train("resnet", &frozen);
    assert!(worst > 1e-2, "{worst}");
    assert_eq!((parameters.trained.len(), parameters.frozen.len(), parameters.renewed.len()), (14, 10, 0));
}

#[test]
fn a_transformer_trains_as_in_pytorch() {
    let (worst, parameters) = train("transformer", &config(OptimizerKind::Adamw, 1e-3, 0.01));
    assert!(worst < 1e-3, "{worst}");
    assert_eq!((parameters.trained.len(), parameters.constant.len()), (31, 0), "{parameters:?}");
}
