//! Settings of a run: defaults, then a TOML file, then flags; saved with the run as `config.toml`.
//!
//! In: text of a file. Out: a [`Config`], checked. What a run depends on has a hash ([`Config::hash`]), by which it is
//! known again when it goes on: another learning rate is refused then, another folder of the same data is not.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Optimizer, Schedule, pattern};
use crate::data::dataset::{Columns, Holdout, Request, Task};

/// What is wrong with settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// No TOML, a setting that does not exist, or one of another type.
    #[error("{path}: {reason}")]
    Syntax {
        /// The file.
        path: String,
        /// What the parser said, with the line.
        reason: String,
    },
    /// A value without meaning.
    #[error("setting `{name}` {wanted}; it is {found}")]
    Value {
        /// The setting.
        name: String,
        /// What it must be, as the rest of a sentence.
        wanted: &'static str,
        /// What it is.
        found: String,
    },
    /// A pattern that no parameter has.
    #[error("setting `{name}`: no parameter is called `{pattern}`; there are {known}")]
    Pattern {
        /// The setting.
        name: &'static str,
        /// The pattern.
        pattern: String,
        /// The parameters.
        known: String,
    },
    /// Settings that can't be written as TOML: a bug.
    #[error("settings can't be written: {0}")]
    Write(String),
}

impl ConfigError {
    pub(super) fn need(fits: bool, name: &str, wanted: &'static str, found: impl Display) -> Result<(), ConfigError> {
        if fits {
            return Ok(());
        }
        Err(ConfigError::Value { name: name.to_owned(), wanted, found: found.to_string() })
    }

    /// What to do about it.
    pub fn help(&self) -> &'static str {
        match self {
            ConfigError::Io { .. } => "check the path of the settings",
            ConfigError::Syntax { .. } => "settings are TOML; the config.toml of any run shows all of them",
            ConfigError::Value { .. } => "correct the setting in the file, or override it with a flag",
            ConfigError::Pattern { .. } => "in patterns, * stands for any characters",
            ConfigError::Write(_) => "this is a bug in frit: please report it",
        }
    }
}

/// What is minimised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossKind {
    /// Cross-entropy of logits and the index of a class.
    #[default]
    CrossEntropy,
    /// Mean of squared differences.
    Mse,
    /// Binary cross-entropy of logits and targets in [0, 1], mean over all outputs.
    Bce,
}

impl LossKind {
    /// All of them.
    pub const ALL: [LossKind; 3] = [LossKind::CrossEntropy, LossKind::Mse, LossKind::Bce];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            LossKind::CrossEntropy => "cross-entropy",
            LossKind::Mse => "mse",
            LossKind::Bce => "bce",
        }
    }

    /// What its targets are.
    pub fn task(self) -> Task {
        match self {
            LossKind::CrossEntropy => Task::Classes,
            LossKind::Mse | LossKind::Bce => Task::Values,
        }
    }
}

/// The loss.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Loss {
    /// What is minimised.
    pub kind: LossKind,
    /// The output that it looks at; the first unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// Share of a target's weight that is spread over all classes (cross-entropy, in training only).
    pub label_smoothing: f64,
}

/// The data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataConfig {
    /// A name or a file.
    pub source: String,
    /// Where the files of a name are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
    /// The array of an .npz that holds the inputs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inputs: Option<String>,
    /// The columns or the array that are the target.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<String>,
    /// Another file to be judged by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<PathBuf>,
    /// Share of the records that is kept to be judged by, where there is no test set.
    pub validation_share: f64,
}

impl Default for DataConfig {
    fn default() -> DataConfig {
        DataConfig {
            source: String::new(),
            folder: None,
            inputs: None,
            targets: Vec::new(),
            validation: None,
            validation_share: 0.2,
        }
    }
}

/// A built-in network; what is not said here `frit new` chooses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkConfig {
    /// Extents of input, hidden layers and output.
    pub layers: Vec<usize>,
    /// Grid size of AF-KAN.
    pub grid: usize,
    /// Order of AF-KAN.
    pub order: usize,
    /// Whether the MLP activates a layer's input, act(norm(x)) W^T, rather than its output as its authors' code does.
    pub activation_first: bool,
}

impl Default for NetworkConfig {
    fn default() -> NetworkConfig {
        NetworkConfig { layers: vec![784, 64, 10], grid: 3, order: 3, activation_first: false }
    }
}

/// How the step is compiled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CompileConfig {
    /// Optimisation level.
    pub level: u8,
    /// Whether arithmetic may depart from what is written.
    pub math: MathKind,
}

/// How far arithmetic may depart from what is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MathKind {
    /// Not at all.
    Strict,
    /// Sums reordered, products contracted, functions to 4 ulp.
    #[default]
    Fast,
}

impl Default for CompileConfig {
    fn default() -> CompileConfig {
        CompileConfig { level: 3, math: MathKind::Fast }
    }
}

/// All settings of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// A file, or the name of a built-in network.
    pub model: String,
    /// Passes over the data; unless given, 25 for `mnist`, else 35.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<u32>,
    /// Records a step.
    pub batch: u32,
    /// Of initial values, shuffling and the records kept for validation.
    pub seed: u64,
    /// Whether each epoch has an order of its own.
    pub shuffle: bool,
    /// Epochs without a better result after which the run ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patience: Option<u32>,
    /// Steps between checkpoints within an epoch; there is one after each epoch anyhow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint_steps: Option<u64>,
    /// Parameters that are not trained; see [`pattern`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub freeze: Vec<String>,
    /// Whether batch norms normalise by their running statistics, which stay as they are.
    pub freeze_statistics: bool,
    /// Steps between two lines of the steps' log; none unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_every: Option<u64>,
    /// Bytes by which the process's peak may grow, from before the model is loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<u64>,
    /// Whether the state from before each step is kept, to find the op that first gave NaN or an infinity.
    pub detect_anomaly: bool,
    /// The network, where `model` names a built-in one.
    pub network: NetworkConfig,
    /// The data.
    pub data: DataConfig,
    /// The loss.
    pub loss: Loss,
    /// The optimiser.
    pub optimizer: Optimizer,
    /// The learning rate's schedule.
    pub schedule: Schedule,
    /// The compilation.
    pub compile: CompileConfig,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            model: String::new(),
            epochs: None,
            batch: 64,
            seed: 0,
            shuffle: false,
            patience: None,
            checkpoint_steps: None,
            freeze: Vec::new(),
            freeze_statistics: false,
            log_every: None,
            memory_limit: None,
            detect_anomaly: false,
            network: NetworkConfig::default(),
            data: DataConfig::default(),
            loss: Loss::default(),
            optimizer: Optimizer::default(),
            schedule: Schedule::default(),
            compile: CompileConfig::default(),
        }
    }
}

impl Config {
    /// Settings of a file; what it does not say has its default.
    ///
    /// # Errors
    /// What the system says; text that is no settings.
    pub fn read_file(path: &Path) -> Result<Config, ConfigError> {
        let shown = || path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Io { path: shown(), source })?;
        Config::from_toml(&text, &shown())
    }

    /// Settings of a text; `path` is for messages.
    ///
    /// # Errors
    /// Text that is no settings.
    pub fn from_toml(text: &str, path: &str) -> Result<Config, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| text.get(..span.start).unwrap_or(text).matches('\n').count() + 1);
            let line = line.map(|line| format!("line {line}: ")).unwrap_or_default();
            ConfigError::Syntax { path: path.to_owned(), reason: format!("{line}{}", error.message()) }
        })
    }

    /// The settings as text that [`Config::from_toml`] reads.
    ///
    /// # Errors
    /// None but internal ones.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        toml::to_string(self).map_err(|error| ConfigError::Write(error.to_string()))
    }

    /// Refuses settings without meaning.
    ///
    /// # Errors
    /// The setting and what it may be.
    pub fn check(&self) -> Result<(), ConfigError> {
        ConfigError::need(self.epochs != Some(0), "epochs", "is at least 1", 0)?;
        ConfigError::need(self.batch > 0, "batch", "is at least 1", self.batch)?;
        ConfigError::need(self.patience != Some(0), "patience", "is at least 1", 0)?;
        ConfigError::need(self.checkpoint_steps != Some(0), "checkpoint_steps", "is at least 1", 0)?;
        ConfigError::need(self.log_every != Some(0), "log_every", "is at least 1", 0)?;
        ConfigError::need(self.compile.level <= 3, "compile.level", "is 0 to 3", self.compile.level)?;
        let share = self.data.validation_share;
        let fits = share > 0.0 && share < 1.0;
        ConfigError::need(fits, "data.validation_share", "lies between 0 and 1", share)?;
        let smoothing = self.loss.label_smoothing;
        let fits = (0.0..1.0).contains(&smoothing);
        ConfigError::need(fits, "loss.label_smoothing", "lies in [0, 1)", smoothing)?;
        let fits = smoothing == 0.0 || self.loss.kind == LossKind::CrossEntropy;
        ConfigError::need(fits, "loss.label_smoothing", "is for cross-entropy", smoothing)?;
        self.optimizer.check()?;
        self.schedule.check()
    }

    /// Refuses patterns that name no parameter: most likely they were meant to.
    ///
    /// # Errors
    /// The setting and the pattern.
    pub fn check_patterns(&self, parameters: &[&str]) -> Result<(), ConfigError> {
        let frozen = self.freeze.iter().map(|p| ("freeze", p));
        let groups = self.optimizer.groups.iter().map(|group| ("optimizer.groups", &group.pattern));
        let unknown = |(_, p): &(&str, &String)| !parameters.iter().any(|name| pattern::matches(p, name));
        match frozen.chain(groups).find(unknown) {
            Some((name, pattern)) => {
                let more = if parameters.len() > 8 { ", ..." } else { "" };
                let known: Vec<&str> = parameters.iter().take(8).copied().collect();
                let known = format!("{}{more}", known.join(", "));
                Err(ConfigError::Pattern { name, pattern: pattern.clone(), known })
            }
            None => Ok(()),
        }
    }

    /// Whether a parameter is not trained.
    pub fn is_frozen(&self, parameter: &str) -> bool {
        self.freeze.iter().any(|p| pattern::matches(p, parameter))
    }

    /// Passes over the data.
    pub fn epochs(&self) -> u32 {
        self.epochs.unwrap_or(if self.data.source == "mnist" { 25 } else { 35 })
    }

    /// What a run is judged by.
    pub fn holdout(&self) -> Holdout {
        match &self.data.validation {
            Some(path) => Holdout::File(path.clone()),
            None => Holdout::Fraction(self.data.validation_share),
        }
    }

    /// Which parts of a file are inputs and targets.
    pub fn columns(&self) -> Columns {
        Columns { inputs: self.data.inputs.clone(), targets: self.data.targets.clone() }
    }

    /// The data that these settings ask for.
    pub fn request<'a>(&'a self, columns: &'a Columns, holdout: &'a Holdout) -> Request<'a> {
        Request {
            source: &self.data.source,
            folder: self.data.folder.as_deref(),
            task: self.loss.kind.task(),
            columns,
            holdout,
            seed: self.seed,
        }
    }

    /// A hash of all that the bits of a run depend on. Not of where data lies (its content has a checksum of its own), of
    /// limits and checkpoints, nor of when the run ends, unless the schedule looks at that.
    ///
    /// # Errors
    /// None but internal ones.
    pub fn hash(&self) -> Result<u64, ConfigError> {
        let mut rest = self.clone();
        rest.epochs = self.schedule.needs_length().then(|| self.epochs());
        rest.patience = None;
        rest.checkpoint_steps = None;
        rest.log_every = None;
        rest.memory_limit = None;
        rest.detect_anomaly = false;
        rest.data = DataConfig::default();
        // FNV-1a: it tells settings apart, it does not keep secrets.
        let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        Ok(rest.to_toml()?.bytes().fold(0xcbf2_9ce4_8422_2325, fold))
    }
}
