//! The command with a linear network in place of a compiled one: settings, files, last lines, going on.

use clap::Parser;
use frit_runtime::train::reference::linear::Linear;
use frit_runtime::train::{Checkpoint, EpochRecord, StepError, StepResult};

use super::*;
use crate::args::{Cli, Command};
use crate::error::Status;

/// A table of two classes that one number tells apart.
fn table(folder: &Path) -> String {
    let rows: String =
        (0..40).map(|i| format!("{},{},{}\n", i % 7, (i * 5) % 11, u8::from((i * 5) % 11 > 5))).collect();
    let path = folder.join("table.csv");
    std::fs::write(&path, format!("a,b,class\n{rows}")).unwrap();
    path.to_str().unwrap().to_owned()
}

fn train_args(arguments: &[&str]) -> Box<TrainArgs> {
    let all = ["frit", "train"].iter().chain(arguments);
    match Cli::try_parse_from(all).unwrap().command {
        Command::Train(args) => args,
        other => panic!("{other:?}"),
    }
}

fn linear(config: &Config, data: &TrainingData, _: &Room) -> Done<Box<dyn Stepper>> {
    Ok(Box::new(Linear::new(config, data)))
}

fn train(arguments: &[&str]) -> Done {
    run_with(&train_args(arguments), &linear, &AtomicBool::new(false))
}

fn settings(arguments: &[&str], base: Config) -> Done<Config> {
    let mut config = base;
    apply(&mut config, &train_args(arguments))?;
    Ok(config)
}

#[test]
fn flags_are_over_the_file_and_the_file_over_defaults() {
    let text = "model = \"mlp\"\nepochs = 3\nbatch = 16\n[data]\nsource = \"mnist\"\n[optimizer]\nlearning_rate = 0.5\n\
                [schedule]\nkind = \"cosine\"\nminimum = 0.25";
    let file = Config::from_toml(text, "x").unwrap();
    let plain = settings(&[], file.clone()).unwrap();
    assert_eq!((plain.epochs, plain.batch, plain.optimizer.learning_rate, plain.seed), (Some(3), 16, 0.5, 0));
    let flags =
        ["af-kan", "--epochs", "9", "--lr", "0.1", "--schedule", "cosine", "--seed", "4", "--shuffle", "-O", "1"];
    let over = settings(&flags, file.clone()).unwrap();
    assert_eq!(
        (over.model.as_str(), over.epochs, over.batch, over.seed, over.shuffle),
        ("af-kan", Some(9), 16, 4, true)
    );
    // The schedule that the file has keeps its numbers, another has its own.
    assert_eq!((&over.schedule, over.compile.level), (&file.schedule, 1));
    let other = settings(&["--schedule", "cyclic", "--math", "strict"], file).unwrap();
    assert_eq!((other.schedule.name(), other.compile.math), ("cyclic", MathKind::Strict));
    let all = [
        "mlp",
        "--data",
        "mnist",
        "--loss",
        "cross-entropy",
        "--target",
        "logits",
        "--label-smoothing",
        "0.1",
        "--optimizer",
        "sgd",
        "--momentum",
        "0.8",
        "--nesterov",
        "--weight-decay",
        "0",
        "--decay",
        "*.bias=0",
        "--clip-norm",
        "1",
        "--freeze",
        "a.*",
        "--freeze",
        "b",
        "--patience",
        "2",
        "--memory-limit",
        "2G",
        "--detect-anomaly",
        "--layers",
        "5,3",
        "--grid",
        "4",
        "--order",
        "2",
        "--activation-first",
        "--checkpoint-steps",
        "9",
        "--validation-share",
        "0.3",
    ];
    let config = settings(&all, Config::default()).unwrap();
    config.check().unwrap();
    assert_eq!(
        (config.optimizer.kind, config.optimizer.momentum, config.optimizer.nesterov),
        (OptimizerKind::Sgd, 0.8, true)
    );
    assert_eq!((config.optimizer.decay_of("x.bias"), config.optimizer.clip_norm), (0.0, Some(1.0)));
    assert_eq!((config.freeze.len(), config.patience, config.memory_limit), (2, Some(2), Some(2 << 30)));
    let network = &config.network;
    assert_eq!((&network.layers[..], network.grid, network.order), (&[5, 3][..], 4, 2));
    assert!(network.activation_first && !Config::default().network.activation_first);
    assert_eq!((config.loss.output.as_deref(), config.loss.label_smoothing), (Some("logits"), 0.1));
    assert_eq!((config.checkpoint_steps, config.data.validation_share, config.epochs), (Some(9), 0.3, Some(25)));
}

#[test]
fn what_is_missing_or_has_no_meaning_is_wrong_usage() {
    for arguments in [&["--data", "mnist"][..], &["mlp"], &["mlp", "--data", "mnist", "--lr=-1"]] {
        assert_eq!(train(arguments).unwrap_err().status, Status::Usage, "{arguments:?}");
    }
    let absent = train(&["mlp", "--data", "mnist", "--data-dir", "/nowhere"]).unwrap_err();
    assert!(absent.message.contains("/nowhere") && absent.help.contains("train-images-idx3"), "{absent:?}");
    assert!(train(&["absent.onnx", "--data", "mnist"]).unwrap_err().message.contains("absent.onnx"));
    assert!(train(&["--resume", "/nowhere"]).unwrap_err().message.contains("/nowhere"));
    for wrong in [
        &["--optimizer", "magic"][..],
        &["--loss", "x"],
        &["--schedule", "x"],
        &["--epochs", "0"],
        &["--memory-limit", "x"],
    ] {
        assert!(Cli::try_parse_from(["frit", "train", "mlp"].iter().chain(wrong)).is_err(), "{wrong:?}");
    }
}

#[test]
fn a_run_writes_its_folder_and_its_last_line() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out, json) = (table(folder.path()), folder.path().join("run"), folder.path().join("out.json"));
    let json_flag = format!("--json={}", json.display());
    let arguments = ["mlp", "--data", &data, "--epochs", "4", "--batch", "8", "--lr", "0.1", "--shuffle", "--out"];
    let arguments: Vec<&str> = arguments.into_iter().chain([out.to_str().unwrap(), &json_flag]).collect();
    train(&arguments).unwrap();
    let record: serde_json::Value =
        serde_json::from_str(std::fs::read_to_string(&json).unwrap().lines().last().unwrap()).unwrap();
    assert_eq!((&record["epochs"], &record["end"]), (&json!(4), &json!("finished")));
    assert!(
        record["best_validation_accuracy"].as_f64().unwrap() > 0.6 && record["seconds"].as_f64().unwrap() > 0.0,
        "{record}"
    );
    let lines = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let records: Vec<EpochRecord> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records.len(), 4);
    // The folder has a run now; more epochs are another end of the same run.
    assert!(train(&arguments).unwrap_err().help.contains("--resume"));
    train(&["--resume", out.to_str().unwrap(), "--epochs", "6", &json_flag]).unwrap();
    let record: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    assert_eq!(record["epochs"], 6);
    let other = train(&["--resume", out.to_str().unwrap(), "--lr", "0.2"]).unwrap_err();
    assert!(other.message.contains("other settings"), "{other:?}");
}

#[test]
fn numbers_end_in_a_loss() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out, json) = (table(folder.path()), folder.path().join("run"), folder.path().join("out.json"));
    let json_flag = format!("--json={}", json.display());
    train(&[
        "mlp",
        "--data",
        &data,
        "--loss",
        "mse",
        "--label",
        "a,b",
        "--epochs",
        "2",
        "--out",
        out.to_str().unwrap(),
        &json_flag,
    ])
    .unwrap();
    let record: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    assert!(
        record["best_validation_loss"].as_f64().unwrap().is_finite()
            && record.get("best_validation_accuracy").is_none()
    );
}

#[test]
fn an_interrupt_saves_and_says_how_to_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (table(folder.path()), folder.path().join("run"));
    let arguments =
        train_args(&["mlp", "--data", &data, "--epochs", "3", "--batch", "8", "--out", out.to_str().unwrap()]);
    let stopped = run_with(&arguments, &linear, &AtomicBool::new(true)).unwrap_err();
    assert!(stopped.message.contains("1 steps") && stopped.help.contains("--resume"), "{stopped:?}");
    assert_eq!(Checkpoint::read_file(&out.join("last.safetensors")).unwrap().position.step, 1);
    train(&["--resume", out.to_str().unwrap()]).unwrap();
    assert_eq!(Checkpoint::read_file(&out.join("last.safetensors")).unwrap().position.epoch, 3);
}

#[test]
fn a_run_without_a_checkpoint_begins_anew_with_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (table(folder.path()), folder.path().join("run"));
    let arguments = ["mlp", "--data", &data, "--epochs", "2", "--batch", "8", "--shuffle", "--out"];
    train(&arguments.into_iter().chain([out.to_str().unwrap()]).collect::<Vec<_>>()).unwrap();
    let last = out.join("last.safetensors");
    let before = Checkpoint::read_file(&last).unwrap().state;
    // As if it had been killed after its folder was made.
    for name in ["last.safetensors", "best.safetensors"] {
        std::fs::remove_file(out.join(name)).unwrap();
    }
    train(&["--resume", out.to_str().unwrap()]).unwrap();
    assert!(Checkpoint::read_file(&last).unwrap().state == before, "other bits");
}

#[test]
fn what_a_run_does_not_find_leaves_no_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (table(folder.path()), folder.path().join("run"));
    let fails =
        |_: &Config, _: &TrainingData, _: &Room| -> Done<Box<dyn Stepper>> { Err(CliError::failed("no", "no")) };
    let arguments = train_args(&["mlp", "--data", &data, "--out", out.to_str().unwrap()]);
    assert_eq!(run_with(&arguments, &fails, &AtomicBool::new(false)).unwrap_err().message, "no");
    assert!(!out.exists());
}

/// A stepper whose state is a module's, and whose steps add 1 to all of it.
struct Counting {
    module: Module,
}

impl Stepper for Counting {
    fn step(
        &mut self,
        _: &frit_runtime::data::dataset::Batch<'_>,
        _: &frit_runtime::train::Hyper,
    ) -> Result<StepResult, StepError> {
        for param in self.module.params.values_mut() {
            let values: Vec<f32> = param.value.to_vec::<f32>().iter().map(|v| v + 1.0).collect();
            param.value = frit_ir::Tensor::f32(param.value.shape(), &values)?;
        }
        Ok(StepResult { loss: 1.0, correct: Some(1), grad_norm: 1.0 })
    }

    fn evaluate(
        &mut self,
        _: &frit_runtime::data::dataset::Batch<'_>,
    ) -> Result<frit_runtime::train::EvalResult, StepError> {
        Ok(frit_runtime::train::EvalResult { loss: 1.0, correct: Some(1) })
    }

    fn state(&self) -> Result<frit_runtime::train::State, StepError> {
        Ok(self.module.params.iter().map(|(name, param)| (name.clone(), param.value.clone())).collect())
    }

    fn set_state(&mut self, _: &frit_runtime::train::State) -> Result<(), StepError> {
        Ok(())
    }

    fn classes(&self) -> Option<usize> {
        None
    }
}

#[test]
fn the_best_network_is_exported() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out, model) = (table(folder.path()), folder.path().join("run"), folder.path().join("best.onnx"));
    let counting = |config: &Config, _: &TrainingData, _: &Room| -> Done<Box<dyn Stepper>> {
        Ok(Box::new(Counting { module: network(config)? }))
    };
    let out = out.to_str().unwrap();
    let export = |source: &str| {
        let arguments = ["frit", "export", source, "-o", model.to_str().unwrap()];
        match Cli::try_parse_from(arguments).unwrap().command {
            Command::Export(args) => crate::commands::export::run(&args),
            other => panic!("{other:?}"),
        }
    };
    let arguments =
        train_args(&["mlp", "--layers", "2,3,2", "--data", &data, "--epochs", "3", "--batch", "8", "--out", out]);
    assert!(run_with(&arguments, &counting, &AtomicBool::new(true)).is_err());
    assert!(export(out).unwrap_err().message.contains("no best network"));
    let arguments = train_args(&["--resume", out]);
    run_with(&arguments, &counting, &AtomicBool::new(false)).unwrap();
    export(out).unwrap();
    // Every epoch is judged alike, so the first is the best; it was resumed from its first step, with initial values.
    let trained = Checkpoint::read_file(&Path::new(out).join("best.safetensors")).unwrap();
    let exported = engine::load(&model).unwrap().module;
    let entry = exported.entry().unwrap();
    assert_eq!(entry.outputs()[0].name, "logits");
    let x = frit_ir::Tensor::f32(&[3, 2], &[0.5, -1.0, 2.0, 0.25, -3.0, 1.0]).unwrap();
    let evaluate = |module: &Module| {
        let options = frit_ir::reference::Options::default();
        let inputs = [frit_ir::HostValue::Tensor(x.clone())];
        let results = frit_ir::reference::eval_function(module, module.entry().unwrap(), &inputs, options).unwrap();
        results[0].tensor().unwrap().to_vec::<f32>()
    };
    let config = Config::read_file(&Path::new(out).join("config.toml")).unwrap();
    let mut expected = network(&config).unwrap();
    let before = evaluate(&expected);
    trained.load_parameters(&mut expected, Path::new("x")).unwrap();
    let (expected, exported) = (evaluate(&expected), evaluate(&legalized(exported)));
    assert_ne!(before, expected);
    assert!(
        expected.iter().zip(&exported).all(|(a, b)| (a - b).abs() < 1e-5 * a.abs().max(1.0)),
        "{expected:?} {exported:?}"
    );
    std::fs::write(Path::new(out).join("best.safetensors"), "no tensors").unwrap();
    assert!(export(out).unwrap_err().message.contains("damaged"));
}

/// A module of core ops, as the compiler makes of an imported one.
fn legalized(module: Module) -> Module {
    frit_runtime::export::portable(&module, &[], &Default::default()).unwrap().module
}
