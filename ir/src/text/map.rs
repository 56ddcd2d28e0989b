//! Mapping a file into memory: the only unsafe step of reading a text or an artifact.
#![allow(unsafe_code, reason = "a memory map is unsafe to make: see `map_file`")]

use std::io;
use std::path::Path;

use memmap2::Mmap;

/// A read-only map of a regular file that is no link.
///
/// # Errors
/// What the system says; a file of another kind.
pub fn map_file(path: &Path) -> io::Result<Mmap> {
    let kind = std::fs::symlink_metadata(path)?.file_type();
    if !kind.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let file = std::fs::File::open(path)?;
    // SAFETY: the map is read-only and private to tensors that only read plain numbers from it, for which every bit
    // pattern is valid. Another process that writes to the file changes what is read, as it would with `read`; one
    // that shortens it ends this process with SIGBUS, which users of mapped files accept. Our own writers move a new
    // file into place instead of writing to an old one.
    unsafe { Mmap::map(&file) }
}
