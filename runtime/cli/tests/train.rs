//! `frit train` and `frit export` from outside: what is refused, in two lines, before anything is written.

#![allow(clippy::unwrap_used, reason = "helpers of tests: a file that can't be made is a failed test")]

use std::path::Path;
use std::process::{Command, Output};

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
