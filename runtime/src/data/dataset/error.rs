//! Why a data set cannot be used: the file, the record (counted from 1), what is wrong, what to do.

use std::io;
use std::path::Path;

use crate::data::DataError;

/// Why a data set cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// Not the format that it should be, cut off, or damaged.
    #[error("{path}: {reason}")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong, and where.
        reason: String,
    },
    /// One record is wrong.
    #[error("{path}: record {record}: {reason}")]
    Record {
        /// The file.
        path: String,
        /// Which one, counted from 1.
        record: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// Each part is well formed, but they do not fit together, or not the task.
    #[error("{path}: {reason}")]
    Unfit {
        /// The file.
        path: String,
        /// What does not fit.
        reason: String,
    },
    /// A data set that is known by name is not on this machine.
    #[error("data set `{name}` is not here; looked in {looked}")]
    Absent {
        /// Its name.
        name: &'static str,
        /// The folders that were looked in.
        looked: String,
        /// Where it comes from.
        origin: &'static str,
    },
    /// Neither a name nor a file that is read.
    #[error("data `{0}`: neither fashion-mnist, mnist nor a .csv, .tsv, .npy or .npz file")]
    Unknown(String),
    /// An array file is damaged.
    #[error(transparent)]
    Array(#[from] DataError),
}

impl DatasetError {
    pub(super) fn io(path: &Path, source: io::Error) -> DatasetError {
        DatasetError::Io { path: path.display().to_string(), source }
    }

    pub(super) fn damaged(path: &Path, reason: impl Into<String>) -> DatasetError {
        DatasetError::Damaged { path: path.display().to_string(), reason: reason.into() }
    }

    pub(super) fn unfit(path: &str, reason: impl Into<String>) -> DatasetError {
        DatasetError::Unfit { path: path.to_owned(), reason: reason.into() }
    }

    /// What to do about it.
    pub fn help(&self) -> &'static str {
        match self {
            DatasetError::Io { .. } => "check the path and its permissions",
            DatasetError::Damaged { .. } => "fetch or write the file again",
            DatasetError::Record { .. } => "correct the record, or leave it out",
            DatasetError::Unfit { .. } => {
                "check that the file is the one that was meant, and that it fits --loss and the model"
            }
            DatasetError::Absent { origin, .. } => origin,
            DatasetError::Unknown(_) => "name a data set or a file: --data fashion-mnist, --data table.csv",
            DatasetError::Array(_) => "write the arrays again with numpy.save or numpy.savez",
        }
    }
}
