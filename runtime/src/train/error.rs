//! Why a run ends without having done its work.

use super::{CheckpointError, ConfigError, StepError};
use crate::data::dataset::DatasetError;

/// Why a run ends without having done its work. Whatever it is, the last checkpoint that was written stays.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// Settings without meaning.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Data that can't be used.
    #[error(transparent)]
    Data(#[from] DatasetError),
    /// A checkpoint that can't be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A step or evaluation that can't be run.
    #[error("epoch {epoch}, batch {batch}: {source}")]
    Step {
        /// Counted from 1.
        epoch: u32,
        /// Counted from 1.
        batch: usize,
        /// What whoever runs it says.
        source: StepError,
    },
    /// A loss or gradient is not finite.
    #[error(
        "epoch {epoch}, batch {batch}: {what} is {value}{}",
        .anomaly.as_ref().map(|op| format!("; first not finite: {op}")).unwrap_or_default()
    )]
    Diverged {
        /// Counted from 1.
        epoch: u32,
        /// Counted from 1.
        batch: usize,
        /// Loss, norm of gradients or validation loss.
        what: &'static str,
        /// What it is.
        value: f32,
        /// The op that it came from, as far as is known.
        anomaly: Option<String>,
    },
    /// The run's folder can't be written.
    #[error("{path}: can't {action}: {source}")]
    Folder {
        /// File or folder.
        path: String,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The folder has a run already.
    #[error("{path}: holds a run already")]
    Occupied {
        /// The folder.
        path: String,
    },
    /// Another process works on the run.
    #[error("{path}: another process trains here")]
    Busy {
        /// The folder.
        path: String,
    },
    /// Something that can't be: a bug.
    #[error("internal error: {0}")]
    Internal(String),
}

impl TrainError {
    /// Whether it is a bug of ours.
    pub fn is_internal(&self) -> bool {
        matches!(self, TrainError::Internal(_) | TrainError::Config(ConfigError::Write(_)))
    }

    /// What to do about it.
    pub fn help(&self) -> &'static str {
        match self {
            TrainError::Config(error) => error.help(),
            TrainError::Data(error) => error.help(),
            TrainError::Checkpoint(error) => error.help(),
            TrainError::Step { .. } => "check that the model fits the data",
            TrainError::Diverged { anomaly: None, .. } => {
                "lower the learning rate or clip gradients (--clip-norm 1); --detect-anomaly keeps what it takes to name the op"
            }
            TrainError::Diverged { .. } => "lower the learning rate or clip gradients (--clip-norm 1)",
            TrainError::Folder { source, .. } => match source.kind() {
                std::io::ErrorKind::StorageFull
                | std::io::ErrorKind::QuotaExceeded
                | std::io::ErrorKind::FileTooLarge => {
                    "make room on the disk, then go on with --resume: the last checkpoint is whole"
                }
                std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
                    "choose a folder that can be written with --out, or change its permissions"
                }
                _ => "check the disk and the folder, then go on with --resume: the last checkpoint is whole",
            },
            TrainError::Occupied { .. } => "go on with it (--resume DIR), or choose another folder (--out DIR)",
            TrainError::Busy { .. } => "wait for it to end, or choose another folder (--out DIR)",
            TrainError::Internal(_) => "this is a bug in frit: please report it",
        }
    }
}
