//! Data in files: arrays in NumPy's formats, and data sets to train on.
//!
//! In: bytes of a file that nobody vouches for. Out: an [`Array`], or a [`DataError`] that says
//! what is wrong and where. Memory is allocated for what a file holds, never for what it claims.
//!
//! - [`npy`] one array a file.
//! - [`npz`] named arrays in a zip archive.
//! - [`dataset`] samples and targets: MNIST's format, tables, arrays; batches of them.
//! - `tensor` conversions to and from the tensors of programs.

pub mod dataset;
pub mod npy;
pub mod npz;
mod tensor;
#[cfg(test)]
mod tests;

pub use npy::{Array, NpyDtype};

use std::path::Path;

/// Why a data file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not the format that it should be, or damaged.
    #[error("{place}at byte {offset}: {reason}")]
    Damaged {
        /// The member of the archive, followed by a space; empty for a file of its own.
        place: String,
        /// Where in the array's bytes, or the archive's.
        offset: usize,
        /// What is wrong there.
        reason: String,
    },
    /// Well formed, but of a kind that frit does not read.
    #[error("{place}{reason}")]
    Unsupported {
        /// The member of the archive, followed by a space; empty for a file of its own.
        place: String,
        /// What it is, and what to do.
        reason: String,
    },
    /// An array whose bytes do not fit its type and shape, or a name that is given twice.
    #[error("{0}")]
    Invalid(String),
}

impl DataError {
    fn damaged(offset: usize, reason: impl Into<String>) -> DataError {
        DataError::Damaged { place: String::new(), offset, reason: reason.into() }
    }

    fn unsupported(reason: impl Into<String>) -> DataError {
        DataError::Unsupported { place: String::new(), reason: reason.into() }
    }

    /// The same error, in a member of an archive.
    fn in_member(self, name: &str) -> DataError {
        let place = format!("{name}: ");
        match self {
            DataError::Damaged { offset, reason, .. } => DataError::Damaged { place, offset, reason },
            DataError::Unsupported { reason, .. } => DataError::Unsupported { place, reason },
            other => other,
        }
    }

    /// The same error, in a file.
    fn in_file(self, path: &Path) -> DataError {
        let file = path.display();
        match self {
            DataError::Damaged { place, offset, reason } => {
                DataError::Damaged { place: format!("{file}: {place}"), offset, reason }
            }
            DataError::Unsupported { place, reason } => {
                DataError::Unsupported { place: format!("{file}: {place}"), reason }
            }
            DataError::Invalid(reason) => DataError::Invalid(format!("{file}: {reason}")),
            DataError::Io { source, .. } => DataError::Io { path: file.to_string(), source },
        }
    }

    fn io(path: &Path, source: std::io::Error) -> DataError {
        DataError::Io { path: path.display().to_string(), source }
    }
}
