//! Mapping a file into memory: the only unsafe step of reading weights.
//!
//! [`map`] maps what is already open: who opens a file decides what may be opened (the text takes any regular file that
//! is no link, [`crate::onnx`] only what lies in the model's folder).
#![allow(unsafe_code, reason = "a memory map is unsafe to make: see `map`")]

use std::fs::File;
use std::io;
use std::path::Path;

use memmap2::Mmap;

/// A read-only map of an open file.
pub(crate) fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the map is read-only and private to tensors that only read plain numbers from it, for which every bit
    // pattern is valid. Another process that writes to the file changes what is read, as it would with `read`; one
    // that shortens it ends this process with SIGBUS, which users of mapped files accept: copying weights instead
    // would double the memory of a large model. Our own writers move a new file into place instead of writing to an
    // old one.
    unsafe { Mmap::map(file) }
}

/// A read-only map of a regular file that is no link.
///
/// # Errors
/// What the system says; a file of another kind.
pub fn map_file(path: &Path) -> io::Result<Mmap> {
    let kind = std::fs::symlink_metadata(path)?.file_type();
    if !kind.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    map(&File::open(path)?)
}
