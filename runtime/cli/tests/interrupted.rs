//! `frit train` as a process that is interrupted, runs out of disk, or is not alone: what it says, what it keeps, and that
//! the run goes on from there to the bits of one that nothing happened to.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests: a file that can't be made is a failed test")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use frit_ir::random::Philox;
use frit_runtime::train::Checkpoint;

const FRIT: &str = env!("CARGO_BIN_EXE_frit");

fn frit(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(FRIT).current_dir(folder).args(arguments).output().unwrap()
}

fn succeeds(folder: &Path, arguments: &[&str]) {
    let output = frit(folder, arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Two lines, the status of a failure.
fn refused(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.lines().count() == 2 && said.starts_with("error: ") && said.contains("\n help: "), "{said}");
    said
}

/// Points, and on which side of a line they are.
fn data(folder: &Path) {
    let mut random = Philox::new(5, 0);
    let mut point = || [random.uniform(-1.0, 1.0), random.uniform(-1.0, 1.0)];
    let lines: String = (0..400).map(|_| point()).map(|[x, y]| format!("{x},{y},{}\n", usize::from(x > y))).collect();
    std::fs::write(folder.join("points.csv"), lines).unwrap();
}

const NETWORK: [&str; 8] = ["train", "af-kan", "--layers", "2,8,2", "--data", "points.csv", "--batch", "16"];

fn training<'a>(epochs: &'a str, out: &'a str) -> Vec<&'a str> {
    [&NETWORK[..], &["--shuffle", "--epochs", epochs, "--out", out]].concat()
}

/// A run that goes on until somebody stops it, after its first epoch.
fn endless(folder: &Path, out: &str) -> Child {
    let mut child = Command::new(FRIT)
        .current_dir(folder)
        .args(training("1000000", out))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.by_ref().any(|line| line.unwrap().starts_with("epoch ")));
    // Somebody goes on reading.
    std::thread::spawn(move || lines.count());
    child
}

fn interrupt(child: &Child) {
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
}

/// How a child ended, and what it said.
fn ended(mut child: Child) -> (Option<i32>, String) {
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (child.wait().unwrap().code(), said)
}

/// A checkpoint without what clocks said.
fn last(folder: &Path, run: &str) -> Checkpoint {
    let mut checkpoint = Checkpoint::read_file(&folder.join(run).join("last.safetensors")).unwrap();
    let position = &mut checkpoint.position;
    (position.seconds, position.sums.seconds) = (0.0, 0.0);
    for record in &mut position.history {
        (record.seconds, record.samples_per_second) = (0.0, 0.0);
    }
    checkpoint
}

/// The run, gone on with for two epochs, is one that was never interrupted.
fn goes_on(folder: &Path, run: &str) {
    let epochs = (last(folder, run).position.epoch + 2).to_string();
    succeeds(folder, &["train", "--resume", run, "--epochs", &epochs]);
    let whole = format!("{run}-whole");
    succeeds(folder, &training(&epochs, &whole));
    let (whole, again) = (last(folder, &whole), last(folder, run));
    assert_eq!(whole.position, again.position);
    assert!(whole == again, "other bits");
}

#[test]
fn an_interrupt_ends_after_the_step_and_the_run_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    data(folder);
    let child = endless(folder, "run");
    interrupt(&child);
    let (status, said) = ended(child);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("note: stopping after this step"), "{said}");
    assert!(said.contains("the run is saved in run") && said.contains("--resume run"), "{said}");
    let position = last(folder, "run").position;
    assert!(position.epoch >= 1 && position.step >= 20, "{position:?}");
    goes_on(folder, "run");
}

#[test]
fn a_run_belongs_to_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    data(folder);
    let child = endless(folder, "run");
    let said = refused(&frit(folder, &["train", "--resume", "run"]));
    assert!(said.contains("run: another process trains here") && said.contains("--out"), "{said}");
    interrupt(&child);
    assert_eq!(ended(child).0, Some(1));
    // It is free again.
    goes_on(folder, "run");
}

#[test]
fn a_full_disk_is_said_and_the_last_checkpoint_stays() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    data(folder);
    succeeds(folder, &training("3", "run"));
    let before = last(folder, "run");
    // The device that is always full, in the place of the file that becomes the next checkpoint.
    if Path::new("/dev/full").exists() {
        let beside = folder.join("run").join(".last.safetensors.tmp");
        std::os::unix::fs::symlink("/dev/full", &beside).unwrap();
        let said = refused(&frit(folder, &["train", "--resume", "run", "--epochs", "9"]));
        assert!(said.contains("last.safetensors: can't write: ") && said.contains("make room on the disk"), "{said}");
        assert!(last(folder, "run") == before);
        std::fs::remove_file(beside).unwrap();
    }
    // A quota: no file may grow beyond a few blocks.
    let command = format!("trap '' XFSZ; ulimit -f 2; exec {FRIT} train --resume run --epochs 9");
    let output = Command::new("sh").current_dir(folder).args(["-c", &command]).output().unwrap();
    let said = refused(&output);
    assert!(said.contains(": can't ") && said.contains("make room on the disk"), "{said}");
    assert!(last(folder, "run") == before);
    goes_on(folder, "run");
}

#[test]
fn a_folder_that_cannot_be_written_is_said_before_anything_is_trained() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    data(folder);
    for place in ["/proc/frit-run", "/sys/frit-run"] {
        if Path::new(place).parent().is_some_and(Path::exists) {
            let said = refused(&frit(folder, &training("1", place)));
            assert!(said.contains(place) && said.contains("can't make the folder"), "{said}");
        }
    }
}
