//! What the tests of this folder share: random draws from bytes, and where test files lie.

use prost::bytes::Bytes;
use std::path::{Path, PathBuf};

/// Random values drawn from a byte string; zeros once it is used up, so that every generator ends.
pub(crate) struct Draws<'a> {
    rest: &'a [u8],
}

impl<'a> Draws<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Draws { rest: bytes }
    }

    pub(crate) fn byte(&mut self) -> u8 {
        match self.rest.split_first() {
            Some((first, rest)) => {
                self.rest = rest;
                *first
            }
            None => 0,
        }
    }

    /// Small most of the time, else an extreme.
    pub(crate) fn integer(&mut self) -> i64 {
        match self.byte() {
            255 => i64::MAX,
            254 => i64::MIN,
            253 => -1,
            small => i64::from(small),
        }
    }

    /// Never NaN, so that messages compare equal to themselves.
    pub(crate) fn float(&mut self) -> f32 {
        match self.byte() {
            255 => f32::INFINITY,
            254 => f32::MIN_POSITIVE,
            253 => -0.0,
            small => f32::from(small) / 16.0 - 4.0,
        }
    }

    pub(crate) fn string(&mut self) -> String {
        ["", "x", "y", "W", "Add", "If", "é", "a b"][usize::from(self.byte() % 8)].into()
    }

    pub(crate) fn bytes(&mut self) -> Bytes {
        let count = self.byte() % 9;
        (0..count).map(|_| self.byte()).collect()
    }

    pub(crate) fn option<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.byte() % 2 == 1).then(|| make(self))
    }

    pub(crate) fn list<T>(&mut self, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        // Mostly empty: fields that hold lists of messages would otherwise use up the bytes before the last of them.
        let count = match self.byte() {
            0..=127 => 0,
            128..=223 => 1,
            _ => 2,
        };
        (0..count).map(|_| make(self)).collect()
    }
}

/// The folder of shared test files: `FRIT_SHARED`, else `shared` beside the workspace.
pub(crate) fn shared_folder() -> Option<PathBuf> {
    let path = match std::env::var_os("FRIT_SHARED") {
        Some(path) => PathBuf::from(path),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
    };
    path.is_dir().then_some(path)
}

/// Every regular file below a folder, sorted.
pub(crate) fn files_under(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}
