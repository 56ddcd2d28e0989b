//! Weights kept in files beside the model.
//!
//! In: a location that the model names. Out: a read-only mapping of that file, shared by all tensors in it. A model is
//! not trusted to name any file it likes, so the location must be a relative path without `..`; no part of it may be a
//! symbolic link; and what is opened must be a regular file with one name (a hard link could lead out of the folder).
//! Opening never blocks on a pipe and never follows a link put there in the meantime.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;

use super::error::OnnxError;

/// The model's folder and the files of it that are mapped so far.
#[derive(Debug, Default)]
pub(crate) struct ExternalFiles {
    folder: Option<PathBuf>,
    maps: HashMap<String, Arc<Mmap>>,
}

impl ExternalFiles {
    /// Files are looked for in `folder`; without one there are none.
    pub(crate) fn new(folder: Option<&Path>) -> Self {
        let folder = folder.map(|f| if f.as_os_str().is_empty() { PathBuf::from(".") } else { f.to_path_buf() });
        ExternalFiles { folder, maps: HashMap::new() }
    }

    /// The file at `location`, mapped.
    pub(crate) fn map(&mut self, location: &str) -> Result<Arc<Mmap>, OnnxError> {
        if let Some(map) = self.maps.get(location) {
            return Ok(map.clone());
        }
        let file = self.open(location)?;
        let map = crate::map::map(&file).map_err(|source| OnnxError::Io { path: location.into(), source })?;
        let map = Arc::new(map);
        self.maps.insert(location.to_owned(), map.clone());
        Ok(map)
    }

    fn open(&self, location: &str) -> Result<File, OnnxError> {
        let refuse = |what: &str| OnnxError::invalid(format!("external data `{location}`"), what);
        let Some(folder) = &self.folder else {
            return Err(refuse("a model that was not read from a folder can't have external data"));
        };
        let relative = Path::new(location);
        let mut parts = relative.components().filter(|c| *c != Component::CurDir).peekable();
        let named = parts.peek().is_some() && !location.contains('\0');
        if !named || !parts.all(|c| matches!(c, Component::Normal(_))) {
            return Err(refuse("is not a relative path inside the model's folder"));
        }
        let mut path = folder.clone();
        for component in relative.components() {
            path.push(component);
            let found = std::fs::symlink_metadata(&path);
            if found.map_err(|source| OnnxError::Io { path: path.clone(), source })?.is_symlink() {
                return Err(refuse("leads through a symbolic link"));
            }
        }
        let io = |source| OnnxError::Io { path: path.clone(), source };
        let file = open_without_following(&path).map_err(io)?;
        let opened = file.metadata().map_err(io)?;
        if !opened.is_file() {
            return Err(refuse("is not a regular file"));
        }
        if links(&opened) != 1 {
            return Err(refuse("has more than one name (hard links)"));
        }
        // A folder on the way may have been swapped for a link after it was looked at: what is open must be what the
        // resolved path names, and that must lie in the model's folder.
        let resolved = path.canonicalize().map_err(io)?;
        let inside = resolved.starts_with(folder.canonicalize().map_err(io)?);
        if !inside || !same_file(&opened, &resolved.symlink_metadata().map_err(io)?) {
            return Err(refuse("is not inside the model's folder"));
        }
        Ok(file)
    }
}

#[cfg(unix)]
fn open_without_following(path: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)
}

#[cfg(unix)]
fn links(metadata: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::nlink(metadata)
}

#[cfg(unix)]
fn same_file(a: &std::fs::Metadata, b: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

#[cfg(not(unix))]
fn open_without_following(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).open(path)
}

#[cfg(not(unix))]
fn links(_: &std::fs::Metadata) -> u64 {
    1
}

#[cfg(not(unix))]
fn same_file(a: &std::fs::Metadata, b: &std::fs::Metadata) -> bool {
    a.len() == b.len()
}

#[cfg(test)]
mod tests;
