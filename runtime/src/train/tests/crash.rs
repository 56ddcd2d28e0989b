//! Runs that end at any write, or by being killed, and go on to the same bits.

use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::*;

/// A disk on which everything fails from one call on, that call half done.
struct Failing {
    calls: Rc<Cell<u32>>,
    fails_at: u32,
    kind: io::ErrorKind,
}

impl Failing {
    /// Whether this call is to be done, and in full.
    fn call(&self) -> io::Result<bool> {
        let call = self.calls.get();
        self.calls.set(call + 1);
        match call.cmp(&self.fails_at) {
            std::cmp::Ordering::Less => Ok(true),
            std::cmp::Ordering::Equal => Ok(false),
            std::cmp::Ordering::Greater => Err(self.kind.into()),
        }
    }
}

impl Disk for Failing {
    fn make_folder(&mut self, path: &Path) -> io::Result<()> {
        if self.call()? { SystemDisk.make_folder(path) } else { Err(self.kind.into()) }
    }

    fn write(&mut self, path: &Path, parts: &[&[u8]], flush: bool) -> io::Result<()> {
        let (whole, bytes) = (self.call()?, parts.concat());
        SystemDisk.write(path, &[if whole { &bytes } else { &bytes[..bytes.len() / 2] }], flush)?;
        if whole { Ok(()) } else { Err(self.kind.into()) }
    }

    fn append(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let whole = self.call()?;
        SystemDisk.append(path, if whole { bytes } else { &bytes[..bytes.len() / 2] })?;
        if whole { Ok(()) } else { Err(self.kind.into()) }
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        if self.call()? { SystemDisk.rename(from, to) } else { Err(self.kind.into()) }
    }

    fn flush_folder(&mut self, path: &Path) -> io::Result<()> {
        if self.call()? { SystemDisk.flush_folder(path) } else { Err(self.kind.into()) }
    }
}

#[test]
fn a_run_that_fails_at_any_write_goes_on_to_the_same_bits() {
    let data = data();
    let config = Config { checkpoint_steps: Some(4), ..config(2) };
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    let calls = Rc::new(Cell::new(0));
    let disk = |calls: &Rc<Cell<u32>>, fails_at| {
        Box::new(Failing { calls: calls.clone(), fails_at, kind: io::ErrorKind::StorageFull })
    };
    begin(&config, &data, &whole, disk(&calls, u32::MAX)).unwrap();
    let all = calls.get();
    assert!(all > 40, "{all} calls");
    let mut resumed = 0;
    for fails_at in 0..all {
        let path = folder.path().join(format!("fails-{fails_at}"));
        let error = begin(&config, &data, &path, disk(&Rc::new(Cell::new(0)), fails_at)).unwrap_err();
        let said = error.to_string();
        assert!(said.contains(path.to_str().unwrap()) && said.contains("can't"), "{said}");
        assert!(error.help().contains("--resume") && error.help().contains("room"), "{}", error.help());
        let last = path.join(RunFolder::LAST);
        if last.exists() {
            // Whatever was half done, what is there is whole.
            Checkpoint::read_file(&last).unwrap();
            go_on(&data, &path).unwrap();
            resumed += 1;
        } else {
            begin(&config, &data, &path, Box::new(SystemDisk)).unwrap();
        }
        assert_same_run(&whole, &path);
    }
    assert!(resumed > 30, "{resumed} of {all} went on");
}

#[test]
fn a_folder_that_cannot_be_written_is_a_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = begin(&config(1), &data(), &file.join("run"), Box::new(SystemDisk)).unwrap_err();
    assert!(error.to_string().contains("can't make the folder"), "{error}");
    let calls = Rc::new(Cell::new(0));
    let disk = Failing { calls, fails_at: 0, kind: io::ErrorKind::ReadOnlyFilesystem };
    let error = begin(&config(1), &data(), &folder.path().join("run"), Box::new(disk)).unwrap_err();
    assert!(error.help().contains("--out"), "{}", error.help());
}

/// The folder that a child is to train in.
const CHILD: &str = "FRIT_TEST_TRAIN_FOLDER";

fn long_config() -> Config {
    Config { checkpoint_steps: Some(2), ..config(12) }
}

/// Not a test by itself: what the test below starts, and kills.
#[test]
#[ignore = "a child process of `a_run_that_is_killed_goes_on_to_the_same_bits`"]
fn child() {
    let Some(path) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    let data = data();
    if path.join(RunFolder::LAST).exists() {
        go_on(&data, &path).unwrap();
    } else {
        begin(&long_config(), &data, &path, Box::new(SystemDisk)).unwrap();
    }
}

fn start(path: &Path) -> Child {
    let arguments = ["--exact", "train::tests::crash::child", "--ignored", "--quiet"];
    let program = std::env::current_exe().unwrap();
    Command::new(program).args(arguments).env(CHILD, path).stdout(std::process::Stdio::null()).spawn().unwrap()
}

/// The step of the checkpoint; none: there is no checkpoint.
fn step_of(path: &Path) -> u64 {
    let last = path.join(RunFolder::LAST);
    // A process that was killed leaves nothing that is not whole.
    if last.exists() { Checkpoint::read_file(&last).unwrap().position.step } else { 0 }
}

#[test]
fn a_run_that_is_killed_goes_on_to_the_same_bits() {
    let data = data();
    let folder = tempfile::tempdir().unwrap();
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
    begin(&long_config(), &data, &whole, Box::new(SystemDisk)).unwrap();
    let mut kills = 0;
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < Duration::from_secs(120), "the run does not get on: step {}", step_of(&killed));
        let (before, mut process) = (step_of(&killed), start(&killed));
        // It is killed as soon as it got on by some steps, wherever it is then.
        let wanted = before + 4 + 6 * kills;
        let status = loop {
            if let Some(status) = process.try_wait().unwrap() {
                break Some(status);
            }
            if step_of(&killed) >= wanted {
                process.kill().unwrap();
                process.wait().unwrap();
                break None;
            }
            std::thread::yield_now();
        };
        match status {
            Some(status) if status.success() => break,
            Some(status) => panic!("the child failed by itself: {status}"),
            None => kills += 1,
        }
    }
    assert!(kills >= 2, "{kills} kills");
    assert_same_run(&whole, &killed);
}
