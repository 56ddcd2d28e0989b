//! The folder of a run, written so that a crash at any time leaves the old or the new of each file.
//!
//! ```text
//!  config.toml  metrics.csv  metrics.jsonl  (steps.jsonl)  curves.svg  report.html  best.safetensors  last.safetensors
//! ```
//!
//! `.lock` is held by the process at work: two would write over each other.
//!
//! A file is written beside its place, flushed to the disk, renamed into it, and the folder flushed. Lines of metrics are
//! appended, and put right by the records of the checkpoint when a run goes on: no line comes twice. All writing goes
//! through [`Disk`], so that tests can let it fail anywhere.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Checkpoint, CheckpointError, Config, EpochRecord, StepRecord, TrainError};
use crate::session::TensorView;

/// What a run asks of a disk.
pub trait Disk {
    /// Makes a folder and those above it; one that is there is fine.
    ///
    /// # Errors
    /// What the system says.
    fn make_folder(&mut self, path: &Path) -> io::Result<()>;

    /// Writes a whole file, part after part; `flush`: to the disk itself.
    ///
    /// # Errors
    /// What the system says.
    fn write(&mut self, path: &Path, parts: &[&[u8]], flush: bool) -> io::Result<()>;

    /// Writes at the end of a file.
    ///
    /// # Errors
    /// What the system says.
    fn append(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Puts a file in the place of another.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()>;

    /// Flushes the names of a folder to the disk.
    ///
    /// # Errors
    /// What the system says.
    fn flush_folder(&mut self, path: &Path) -> io::Result<()>;
}

/// The system's.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemDisk;

impl Disk for SystemDisk {
    fn make_folder(&mut self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn write(&mut self, path: &Path, parts: &[&[u8]], flush: bool) -> io::Result<()> {
        let mut file = File::create(path)?;
        parts.iter().try_for_each(|part| file.write_all(part))?;
        if flush { file.sync_all() } else { Ok(()) }
    }

    fn append(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        OpenOptions::new().append(true).create(true).open(path)?.write_all(bytes)
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn flush_folder(&mut self, path: &Path) -> io::Result<()> {
        // Where folders can't be opened as files, renaming is all that the system offers.
        if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
    }
}

/// The folder of a run.
pub struct RunFolder {
    path: PathBuf,
    disk: Box<dyn Disk>,
    /// The folders that were made for it, the innermost first.
    made: Vec<PathBuf>,
    /// Held for as long as this process works on the run; `None`: the system has no locks here.
    _lock: Option<File>,
}

impl RunFolder {
    /// The settings.
    pub const CONFIG: &'static str = "config.toml";
    /// The state after the last step that was saved.
    pub const LAST: &'static str = "last.safetensors";
    /// The state after the best epoch.
    pub const BEST: &'static str = "best.safetensors";
    /// Locked by the process that works on the run.
    pub const LOCK: &'static str = ".lock";
    /// A line an epoch, separated by commas.
    pub const CSV: &'static str = "metrics.csv";
    /// A line an epoch, JSON.
    pub const JSONL: &'static str = "metrics.jsonl";
    /// A line for every so many steps, JSON.
    pub const STEPS: &'static str = "steps.jsonl";
    /// Curves of loss and accuracy.
    pub const CURVES: &'static str = "curves.svg";
    /// A page about the run.
    pub const REPORT: &'static str = "report.html";

    /// A folder for a new run.
    ///
    /// # Errors
    /// One that holds a run; what the system says.
    pub fn create(path: &Path, config: &Config, disk: Box<dyn Disk>) -> Result<RunFolder, TrainError> {
        if path.join(Self::LAST).exists() {
            return Err(TrainError::Occupied { path: path.display().to_string() });
        }
        let absent = path.ancestors().take_while(|p| !p.as_os_str().is_empty() && !p.exists());
        let made = absent.map(Path::to_owned).collect();
        let mut folder = RunFolder { path: path.to_owned(), disk, made, _lock: None };
        folder.disk.make_folder(path).map_err(|source| failed(path, "make the folder", source))?;
        folder._lock = lock(path)?;
        // Another process may have been first.
        if path.join(Self::LAST).exists() {
            return Err(TrainError::Occupied { path: path.display().to_string() });
        }
        folder.write_whole(Self::CONFIG, config.to_toml()?.as_bytes(), true)?;
        folder.write_metrics(&[])?;
        Ok(folder)
    }

    /// The folder of a run that goes on, and its settings.
    ///
    /// # Errors
    /// No folder of a run.
    pub fn open(path: &Path, disk: Box<dyn Disk>) -> Result<(RunFolder, Config), TrainError> {
        let config = Config::read_file(&path.join(Self::CONFIG))?;
        let _lock = lock(path)?;
        Ok((RunFolder { path: path.to_owned(), disk, made: Vec::new(), _lock }, config))
    }

    /// Whether the run has a checkpoint to go on from; without one it begins anew, with the same bits.
    pub fn has_begun(&self) -> bool {
        self.path.join(Self::LAST).exists()
    }

    /// Takes a folder back that [`RunFolder::create`] made for a run that can't begin, as far as nothing else is in it.
    pub fn discard(self) {
        if self.has_begun() {
            return;
        }
        for name in [Self::CONFIG, Self::CSV, Self::JSONL, Self::LOCK] {
            // What can't be removed stays: the run may be tried again in this folder.
            let _ = fs::remove_file(self.path.join(name));
        }
        for folder in &self.made {
            let _ = fs::remove_dir(folder);
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The checkpoint that the run goes on from.
    ///
    /// # Errors
    /// None that is whole.
    pub fn last(&self) -> Result<Checkpoint, CheckpointError> {
        Checkpoint::read_file(&self.path.join(Self::LAST))
    }

    /// Writes the settings: a run that goes on may have other limits.
    ///
    /// # Errors
    /// What the system says; the file is the old one then.
    pub fn save_config(&mut self, config: &Config) -> Result<(), TrainError> {
        self.write_whole(Self::CONFIG, config.to_toml()?.as_bytes(), true)
    }

    /// Writes a checkpoint with this state, whole or not at all.
    ///
    /// # Errors
    /// What the system says; the file is the old one then.
    pub fn save(
        &mut self,
        name: &str,
        checkpoint: &Checkpoint,
        state: &[(&str, TensorView<'_>)],
    ) -> Result<(), TrainError> {
        let (head, tensors) = checkpoint.parts(state)?;
        self.write_parts(name, &[&[&head[..]], &tensors[..]].concat(), true)
    }

    /// Adds an epoch to the lines of metrics.
    ///
    /// # Errors
    /// What the system says.
    pub fn append_metrics(&mut self, record: &EpochRecord) -> Result<(), TrainError> {
        let json = record.json().map_err(|error| TrainError::Internal(error.to_string()))?;
        for (name, line) in [(Self::CSV, record.csv()), (Self::JSONL, json)] {
            let path = self.path.join(name);
            let appended = self.disk.append(&path, line.as_bytes());
            appended.map_err(|source| failed(&path, "write", source))?;
        }
        Ok(())
    }

    /// Adds a step to the log.
    ///
    /// # Errors
    /// What the system says.
    pub fn append_step(&mut self, record: &StepRecord) -> Result<(), TrainError> {
        let json = record.json().map_err(|error| TrainError::Internal(error.to_string()))?;
        let path = self.path.join(Self::STEPS);
        let appended = self.disk.append(&path, json.as_bytes());
        appended.map_err(|source| failed(&path, "write", source))
    }

    /// Takes steps after this one out of the log: they are done again. Lines that a crash cut short go as well.
    ///
    /// # Errors
    /// What the system says; the file is the old one or the new.
    pub fn keep_steps(&mut self, last: u64) -> Result<(), TrainError> {
        let text = fs::read_to_string(self.path.join(Self::STEPS)).unwrap_or_default();
        let done = |line: &&str| serde_json::from_str::<StepRecord>(line).is_ok_and(|record| record.step <= last);
        let kept: String = text.lines().filter(done).map(|line| format!("{line}\n")).collect();
        self.write_whole(Self::STEPS, kept.as_bytes(), false)
    }

    /// Makes the lines of metrics those of these epochs.
    ///
    /// # Errors
    /// What the system says; each file is the old one or the new.
    pub fn write_metrics(&mut self, history: &[EpochRecord]) -> Result<(), TrainError> {
        let csv = history.iter().fold(EpochRecord::CSV_HEADER.to_owned(), |text, record| text + &record.csv());
        let json = history.iter().map(EpochRecord::json).collect::<Result<String, _>>();
        let json = json.map_err(|error| TrainError::Internal(error.to_string()))?;
        self.write_whole(Self::CSV, csv.as_bytes(), false)?;
        self.write_whole(Self::JSONL, json.as_bytes(), false)
    }

    /// Writes a page or a picture.
    ///
    /// # Errors
    /// What the system says; the file is the old one then.
    pub fn write_page(&mut self, name: &str, text: &str) -> Result<(), TrainError> {
        self.write_whole(name, text.as_bytes(), false)
    }

    fn write_whole(&mut self, name: &str, bytes: &[u8], flush: bool) -> Result<(), TrainError> {
        self.write_parts(name, &[bytes], flush)
    }

    fn write_parts(&mut self, name: &str, parts: &[&[u8]], flush: bool) -> Result<(), TrainError> {
        let (path, beside) = (self.path.join(name), self.path.join(format!(".{name}.tmp")));
        let written = self.disk.write(&beside, parts, flush);
        written.map_err(|source| failed(&path, "write", source))?;
        let renamed = self.disk.rename(&beside, &path);
        renamed.map_err(|source| failed(&path, "replace the file", source))?;
        if flush {
            let flushed = self.disk.flush_folder(&self.path);
            flushed.map_err(|source| failed(&self.path, "flush the folder", source))?;
        }
        Ok(())
    }
}

/// How often, and how long, one waits for a run that another process holds.
const LOCK_TRIES: u32 = 10;
const LOCK_WAIT: Duration = Duration::from_millis(50);

/// Takes a run for this process; the system gives it back when the process ends, however it does.
fn lock(path: &Path) -> Result<Option<File>, TrainError> {
    let place = path.join(RunFolder::LOCK);
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&place);
    let file = file.map_err(|source| failed(&place, "open the lock", source))?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            // A process that begins or ends may hold it for a moment.
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_WAIT),
            // Some network file systems have none.
            Err(TryLockError::Error(_)) => return Ok(None),
        }
    }
    Err(TrainError::Busy { path: path.display().to_string() })
}

fn failed(path: &Path, action: &'static str, source: io::Error) -> TrainError {
    TrainError::Folder { path: path.display().to_string(), action, source }
}
