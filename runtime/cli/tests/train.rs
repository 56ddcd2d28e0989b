//! `frit train`, `frit export` and `frit bench --train` from outside: what is refused, in two lines, before anything is
//! written; that a step is timed.

#![allow(clippy::unwrap_used, reason = "helpers of tests: a file that can't be made is a failed test")]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn frit(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_frit")).current_dir(folder).args(arguments).output().unwrap()
}

/// Runs what must fail: the status, and exactly two lines on stderr.
fn fails(folder: &Path, arguments: &[&str], status: i32) -> String {
    let output = frit(folder, arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {said}");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 2, "{arguments:?}: {said}");
    assert!(lines[0].starts_with("error: ") && lines[1].starts_with(" help: ") && lines[1].len() > 10, "{said}");
    said
}

#[test]
fn data_that_cannot_be_used_is_refused_by_file_and_record() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    write("bad.csv", "a,class\n1,0\n2,one\n");
    write("empty.csv", "");
    write("list.txt", "1\n");
    let refused = |data: &str, status| fails(folder, &["train", "mlp", "--layers", "1,2", "--data", data], status);
    let bad = refused("bad.csv", 1);
    assert!(bad.contains("bad.csv: record 2: line 3: column `class`: `one` is no number"), "{bad}");
    assert!(refused("empty.csv", 1).contains("no records"));
    assert!(refused("absent.npz", 1).contains("absent.npz"));
    assert!(refused("list.txt", 1).contains("neither fashion-mnist"));
    let absent = fails(folder, &["train", "af-kan", "--data", "fashion-mnist", "--data-dir", "."], 1);
    assert!(absent.contains("is not here") && absent.contains("apt-get install dataset-fashion-mnist"), "{absent}");
    // Nothing was begun.
    assert!(!folder.join("runs").exists());
}

#[test]
fn settings_without_meaning_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("t.csv"), "1,0\n2,1\n3,0\n").unwrap();
    std::fs::write(folder.join("run.toml"), "batch = 8\nspeed = 9\n").unwrap();
    assert!(fails(folder, &["train"], 2).contains("no model"));
    assert!(fails(folder, &["train", "mlp"], 2).contains("no data"));
    assert!(fails(folder, &["train", "mlp", "--data", "t.csv", "--clip-norm", "0"], 2).contains("optimizer.clip_norm"));
    assert!(fails(folder, &["train", "mlp", "--data", "t.csv", "--optimizer", "magic"], 2).contains("magic"));
    assert!(fails(folder, &["train", "mlp", "--data", "t.csv", "--resume", "x", "--out", "y"], 2).contains("--out"));
    assert!(fails(folder, &["train", "mlp", "--data", "t.csv", "--layers", "0,2"], 2).contains("extent"));
    let wrong = fails(folder, &["train", "mlp", "--data", "t.csv", "--config", "run.toml"], 1);
    assert!(wrong.contains("run.toml: line 2: unknown field `speed`"), "{wrong}");
    assert!(fails(folder, &["train", "absent.onnx", "--data", "t.csv"], 1).contains("absent.onnx"));
    assert!(fails(folder, &["train", "--resume", "nowhere"], 1).contains("nowhere"));
}

#[test]
fn the_help_explains_runs() {
    let folder = tempfile::tempdir().unwrap();
    let output = frit(folder.path(), &["help", "train"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for part in
        ["--data", "--resume", "fashion-mnist", "best.safetensors", "Ctrl-C", "--schedule", "one-cycle", "Recipe"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_model_is_exported_without_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo/model.onnx");
    let output = frit(folder.path(), &["export", model.to_str().unwrap(), "-o", "again.onnx", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let record: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(record["model"], "again.onnx");
    assert_eq!(frit(folder.path(), &["run", "again.onnx"]).status.code(), Some(0));
    assert!(fails(folder.path(), &["export", ".", "-o", "x.onnx"], 1).contains("model.onnx"));
    assert!(fails(folder.path(), &["export", "again.onnx", "-o", "no/x.onnx"], 1).contains("folder does not exist"));
}

/// What `frit bench --train` says as JSON.
fn step(arguments: &[&str]) -> serde_json::Value {
    let folder = tempfile::tempdir().unwrap();
    let all: Vec<&str> = ["bench", "--train", "--json"].iter().chain(arguments).copied().collect();
    let output = frit(folder.path(), &all);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

const SMALL: [&str; 4] = ["--layers", "7,5,3", "--runs", "5"];

#[test]
fn a_training_step_is_timed() {
    for model in ["af-kan", "mlp"] {
        for data in ["normal", "pixels"] {
            let record =
                step(&[&[model, "--data", data, "--threads", "2", "--vector-bits", "128"][..], &SMALL].concat());
            for number in ["median_ms", "min_ms", "compile_ms", "load_ms"] {
                assert!(record[number].as_f64().unwrap() > 0.0, "{number}: {record}");
            }
            let exact = ["runs", "threads", "vector_bits", "batch"].map(|name| record[name].as_u64().unwrap());
            assert_eq!((exact, &record["data"]), ([5, 2, 128, 64], &data.into()), "{record}");
            let [first, last] = ["loss_first", "loss_last"].map(|name| record[name].as_f64().unwrap());
            // Three classes guessed at: the loss is about ln 3. Steps on one batch learn it.
            assert!((0.5..3.0).contains(&first) && last < first, "{record}");
        }
    }
    // The same batch and network of the same seed; others of another.
    let first = |flags: &[&str]| step(&[flags, &["mlp", "--math", "strict"], &SMALL].concat())["loss_first"].clone();
    assert_eq!(first(&[]), first(&["--vector-bits", "128", "-O0"]));
    assert_ne!(first(&[]), first(&["--seed", "1"]));
    assert_ne!(first(&[]), first(&["--batch", "3"]));
}

#[test]
fn a_step_of_a_file_is_timed() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let new = frit(folder.path(), &["new", "af-kan", "--layers", "7,5,3", "-o", "kan.frit", "--seed", "4"]);
    assert_eq!(new.status.code(), Some(0));
    let file = step(&[&path("kan.frit"), "--runs", "2", "--batch", "9", "--seed", "4"]);
    let made = step(&["af-kan", "--layers", "7,5,3", "--runs", "2", "--batch", "9", "--seed", "4"]);
    assert_eq!((&file["loss_first"], &file["batch"]), (&made["loss_first"], &9.into()));
    // A batch that is fixed is the one to use.
    let fixed = step(&[&path("kan.frit"), "--runs", "2", "--dim", "B=6"]);
    assert_eq!(fixed["batch"], 6);
    let wrong = fails(folder.path(), &["bench", "kan.frit", "--train", "--batch", "7", "--dim", "B=6"], 2);
    assert!(wrong.contains("kan.frit") && wrong.contains("6 records at a time"), "{wrong}");
}

#[test]
fn a_step_is_timed_when_asked() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_frit"));
    let command = command.args(["bench", "mlp", "--train", "--layers", "7,5,3", "--serve", "--threads", "1"]);
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"1\n2\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let (_, answers) = said.split_once("ready\n").unwrap();
    let answers: Vec<Vec<u64>> =
        answers.lines().map(|line| line.split(' ').map(|word| word.parse().unwrap()).collect()).collect();
    assert_eq!((output.status.code(), answers.len()), (Some(0), 2), "{said}");
    assert!(answers.iter().all(|a| matches!(a[..], [best, middle, runs] if best <= middle && runs >= 3)), "{said}");
}

#[test]
fn a_step_that_cannot_be_timed_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let text = "frit 1\nfunc @infer(%x \"x\": f32[4, 3]) {\n  %y = exp(%x)\n  return \"y\" = %y\n}\n";
    std::fs::write(folder.join("exp.frit"), text).unwrap();
    for flags in [&["--batch", "3"][..], &["--data", "pixels"]] {
        let wrong = fails(folder, &[&["bench", "exp.frit"], flags].concat(), 2);
        assert!(wrong.contains("--train"), "{wrong}");
    }
    assert!(fails(folder, &["bench", "exp.frit", "--layers", "3,2"], 2).contains("--train"));
    let train = |flags: &[&str], status| fails(folder, &[&["bench", "--train"], flags].concat(), status);
    assert!(train(&["mlp", "--batch", "0"], 2).contains("--batch"));
    assert!(train(&["mlp", "--data", "noise"], 2).contains("noise"));
    assert!(train(&["mlp", "--input", "x=a.npy"], 2).contains("--input"));
    assert!(train(&["mlp", "--trust-code"], 2).contains("--trust-code"));
    assert!(train(&["mlp", "--layers", "0,2"], 2).contains("extent"));
    assert!(train(&["mlp", "--batch", "4000000000"], 1).contains("too many"));
    assert!(train(&["absent.frit"], 1).contains("absent.frit"));
    assert!(train(&["exp.frit"], 1).contains("exp.frit"));
}
