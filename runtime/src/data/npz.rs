//! NumPy's .npz files: a zip archive of .npy files.
//!
//! In: bytes of an archive, its members stored or deflated, plain or zip64. Out: named [`Array`]s
//! in the archive's order. Writing stores (nothing is compressed), with zip64 where it must.
//!
//! What holds: every length and offset of the archive is checked against what is there before it
//! is used, and a deflated member is inflated only up to the size that its entry states.
//!
//! Source of the layout: PKWARE's APPNOTE.TXT 6.3.

use super::{Array, DataError, npy};
use flate2::{Crc, read::DeflateDecoder};
use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::path::Path;

const LOCAL: u32 = 0x0403_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
const END64: u32 = 0x0606_4b50;
const END64_LOCATOR: u32 = 0x0706_4b50;
/// The extra field that holds 64-bit sizes.
const EXTRA64: u16 = 1;
const STORED: u16 = 0;
const DEFLATED: u16 = 8;
/// Deflate cannot make a byte into more than this.
const MAX_RATIO: u64 = 1032;

/// Reads all arrays of an archive in memory, in its order; names without `.npy`.
///
/// # Errors
/// [`DataError::Damaged`] or [`DataError::Unsupported`], naming the member.
pub fn read(bytes: &[u8]) -> Result<Vec<(String, Array)>, DataError> {
    let mut seen = HashSet::new();
    let mut arrays = Vec::new();
    for entry in directory(bytes)? {
        let Some(name) = entry.name.strip_suffix(".npy") else {
            let reason = "not a .npy file; an .npz archive holds nothing else";
            return Err(DataError::unsupported(reason).in_member(&entry.name));
        };
        if !seen.insert(name.to_owned()) {
            return Err(DataError::damaged(entry.offset, "a name that occurs twice").in_member(name));
        }
        let content = entry.content(bytes).map_err(|error| error.in_member(name))?;
        let array = npy::read_owned(content).map_err(|error| error.in_member(name))?;
        arrays.push((name.to_owned(), array));
    }
    Ok(arrays)
}

/// Reads an .npz file.
///
/// # Errors
/// As [`read`], and what the system says.
pub fn read_file(path: &Path) -> Result<Vec<(String, Array)>, DataError> {
    let bytes = std::fs::read(path).map_err(|error| DataError::io(path, error))?;
    read(&bytes).map_err(|error| error.in_file(path))
}

/// Writes an .npz file.
///
/// # Errors
/// A name given twice or too long, and what the system says.
pub fn write_file<'a>(path: &Path, arrays: impl IntoIterator<Item = (&'a str, &'a Array)>) -> Result<(), DataError> {
    let file = std::fs::File::create(path).map_err(|error| DataError::io(path, error))?;
    let mut out = io::BufWriter::new(file);
    write(&mut out, arrays).map_err(|error| error.in_file(path))?;
    out.flush().map_err(|error| DataError::io(path, error))
}

/// Writes arrays as an .npz archive.
///
/// # Errors
/// A name given twice or too long, and what `out` says.
pub fn write<'a>(
    out: &mut impl Write,
    arrays: impl IntoIterator<Item = (&'a str, &'a Array)>,
) -> Result<(), DataError> {
    write_with(out, arrays, u64::from(u32::MAX))
}

/// As [`write`], with zip64 fields from `limit` bytes on.
pub(super) fn write_with<'a>(
    out: &mut impl Write,
    arrays: impl IntoIterator<Item = (&'a str, &'a Array)>,
    limit: u64,
) -> Result<(), DataError> {
    let mut seen = HashSet::new();
    let mut put =
        |bytes: &[u8]| out.write_all(bytes).map_err(|source| DataError::Io { path: "the archive".to_owned(), source });
    let (mut central, mut entries, mut position) = (Vec::new(), 0_u64, 0_u64);
    for (name, array) in arrays {
        if !seen.insert(name) || name.len() > 60_000 {
            return Err(DataError::Invalid(format!("an array name that occurs twice or is too long: {name:.80}")));
        }
        let header = npy::header(array);
        let size = (header.len() + array.data().len()) as u64;
        let mut crc = Crc::new();
        crc.update(&header);
        crc.update(array.data());
        let member = Member { name: format!("{name}.npy"), size, crc: crc.sum(), position };
        let local = member.local_header(limit);
        [&local[..], &header, array.data()].into_iter().try_for_each(&mut put)?;
        central.extend(member.central_header(limit));
        position += local.len() as u64 + size;
        entries += 1;
    }
    put(&central)?;
    put(&end_of_archive(entries, central.len() as u64, position, limit))
}

/// A member being written.
struct Member {
    name: String,
    size: u64,
    crc: u32,
    /// Where its local header is.
    position: u64,
}

impl Member {
    /// What local and central headers share: version, flags, method, time, date, CRC, sizes, name
    /// length, extra length.
    fn common(&self, big: bool, extra: usize) -> Vec<u8> {
        let size = if big { u32::MAX } else { self.size as u32 };
        let mut bytes = Vec::new();
        put16(&mut bytes, &[if big { 45 } else { 20 }, 1 << 11, STORED]);
        // 1980-01-01, midnight: the same arrays give the same file.
        put16(&mut bytes, &[0, 1 << 5 | 1]);
        put32(&mut bytes, &[self.crc, size, size]);
        put16(&mut bytes, &[self.name.len() as u16, extra as u16]);
        bytes
    }

    fn local_header(&self, limit: u64) -> Vec<u8> {
        let extra = if self.size >= limit { extra64(&[self.size, self.size]) } else { Vec::new() };
        let mut bytes = LOCAL.to_le_bytes().to_vec();
        bytes.extend(self.common(!extra.is_empty(), extra.len()));
        bytes.extend(self.name.as_bytes());
        bytes.extend(extra);
        bytes
    }

    fn central_header(&self, limit: u64) -> Vec<u8> {
        let big = self.size >= limit;
        let far = self.position >= limit;
        let mut fields = if big { vec![self.size, self.size] } else { Vec::new() };
        fields.extend(far.then_some(self.position));
        let extra = if fields.is_empty() { Vec::new() } else { extra64(&fields) };
        let mut bytes = CENTRAL.to_le_bytes().to_vec();
        put16(&mut bytes, &[45]);
        bytes.extend(self.common(big, extra.len()));
        // Comment length, disk, internal attributes.
        put16(&mut bytes, &[0, 0, 0]);
        // External attributes: a regular file that its owner may write, all may read.
        put32(&mut bytes, &[0o100_644 << 16, if far { u32::MAX } else { self.position as u32 }]);
        bytes.extend(self.name.as_bytes());
        bytes.extend(extra);
        bytes
    }
}

fn end_of_archive(entries: u64, size: u64, position: u64, limit: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let big = position >= limit || size >= limit || entries >= u64::from(u16::MAX);
    if big {
        put32(&mut bytes, &[END64]);
        put64(&mut bytes, &[44]);
        put16(&mut bytes, &[45, 45]);
        put32(&mut bytes, &[0, 0]);
        put64(&mut bytes, &[entries, entries, size, position]);
        put32(&mut bytes, &[END64_LOCATOR, 0]);
        put64(&mut bytes, &[position + size]);
        put32(&mut bytes, &[1]);
    }
    let count = if big { u16::MAX } else { entries as u16 };
    put32(&mut bytes, &[END]);
    put16(&mut bytes, &[0, 0, count, count]);
    put32(&mut bytes, &if big { [u32::MAX; 2] } else { [size as u32, position as u32] });
    put16(&mut bytes, &[0]);
    bytes
}

fn extra64(fields: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put16(&mut bytes, &[EXTRA64, 8 * fields.len() as u16]);
    put64(&mut bytes, fields);
    bytes
}

fn put16(bytes: &mut Vec<u8>, values: &[u16]) {
    values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
}

fn put32(bytes: &mut Vec<u8>, values: &[u32]) {
    values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
}

fn put64(bytes: &mut Vec<u8>, values: &[u64]) {
    values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
}

/// Reads numbers one after the other, each checked to be there.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], DataError> {
        let end = self.at.checked_add(len);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or_else(|| DataError::damaged(self.at, "the archive ends too soon"))?;
        self.at += len;
        Ok(taken)
    }

    /// A little-endian number of `len` bytes, at most 8.
    fn number(&mut self, len: usize) -> Result<u64, DataError> {
        let bytes = self.take(len)?;
        Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn u16(&mut self) -> Result<u16, DataError> {
        Ok(self.number(2)? as u16)
    }

    fn u32(&mut self) -> Result<u32, DataError> {
        Ok(self.number(4)? as u32)
    }

    fn expect(&mut self, signature: u32, what: &str) -> Result<(), DataError> {
        let at = self.at;
        if self.u32()? == signature {
            return Ok(());
        }
        Err(DataError::damaged(at, format!("{what} is expected here")))
    }
}

/// A cursor at a place that the archive states.
fn cursor(bytes: &[u8], at: u64) -> Cursor<'_> {
    Cursor { bytes, at: usize::try_from(at).unwrap_or(usize::MAX) }
}

/// A member, as the central directory tells it.
struct Entry {
    name: String,
    method: u16,
    crc: u32,
    compressed: u64,
    size: u64,
    position: u64,
    /// Where its record in the directory is, for errors.
    offset: usize,
}

/// The members of an archive.
fn directory(bytes: &[u8]) -> Result<Vec<Entry>, DataError> {
    let (count, position) = find_directory(bytes)?;
    let mut cursor = cursor(bytes, position);
    let mut entries = Vec::new();
    // The count is only a claim: entries are pushed as they are read, and each takes bytes.
    for _ in 0..count {
        entries.push(Entry::parse(&mut cursor)?);
    }
    Ok(entries)
}

/// How many members there are, and where the directory begins.
fn find_directory(bytes: &[u8]) -> Result<(u64, u64), DataError> {
    const END_LEN: usize = 22;
    let newest = bytes.len().checked_sub(END_LEN);
    let newest = newest.ok_or_else(|| DataError::damaged(0, "not a zip archive: it is too short"))?;
    let oldest = newest.saturating_sub(usize::from(u16::MAX));
    // The record is last, but for a comment of up to 64 KiB whose length it states.
    let end = (oldest..=newest).rev().find(|at| {
        let record = bytes.get(*at..).unwrap_or_default();
        let comment = record.get(20..22).and_then(|b| b.try_into().ok()).map(u16::from_le_bytes);
        record.starts_with(&END.to_le_bytes()) && comment.map(|len| usize::from(len) + END_LEN) == Some(record.len())
    });
    let end = end.ok_or_else(|| DataError::damaged(newest, "not a zip archive: it has no end record"))?;
    let mut record = Cursor { bytes, at: end + 4 };
    let disks = record.number(4)?;
    record.u16()?;
    let count = u64::from(record.u16()?);
    record.u32()?;
    let position = u64::from(record.u32()?);
    if disks != 0 && disks != u64::from(u32::MAX) {
        return Err(DataError::unsupported("an archive in several files; join them first"));
    }
    if count != u64::from(u16::MAX) && position != u64::from(u32::MAX) {
        return Ok((count, position));
    }
    let locator = end.checked_sub(20).map(|at| Cursor { bytes, at });
    let Some(mut locator) = locator.filter(|at| at.bytes[at.at..].starts_with(&END64_LOCATOR.to_le_bytes())) else {
        // Exactly 65,535 members, or a directory at 4 GiB - 1: allowed without zip64.
        return Ok((count, position));
    };
    locator.take(8)?;
    let mut record = cursor(bytes, locator.number(8)?);
    record.expect(END64, "the zip64 end record")?;
    record.take(28)?;
    let count = record.number(8)?;
    record.take(8)?;
    Ok((count, record.number(8)?))
}

impl Entry {
    fn parse(cursor: &mut Cursor<'_>) -> Result<Entry, DataError> {
        let offset = cursor.at;
        cursor.expect(CENTRAL, "a directory record")?;
        cursor.take(4)?;
        let flags = cursor.u16()?;
        let method = cursor.u16()?;
        cursor.take(4)?;
        let crc = cursor.u32()?;
        let (compressed, size) = (cursor.u32()?, cursor.u32()?);
        let (name_len, extra_len, comment_len) = (cursor.u16()?, cursor.u16()?, cursor.u16()?);
        cursor.take(8)?;
        let position = cursor.u32()?;
        let name = String::from_utf8_lossy(cursor.take(usize::from(name_len))?).into_owned();
        let extra = cursor.take(usize::from(extra_len))?;
        cursor.take(usize::from(comment_len))?;
        if flags & 1 != 0 {
            return Err(DataError::unsupported("an encrypted member; save it without a password").in_member(&name));
        }
        let mut wide = Extra64::find(extra);
        let mut widen = |value: u32| match value {
            u32::MAX => wide.next().ok_or_else(|| DataError::damaged(offset, "its 64-bit size is missing")),
            value => Ok(u64::from(value)),
        };
        // The order in the extra field: size, compressed size, position, each only where needed.
        let size = widen(size)?;
        let compressed = widen(compressed)?;
        let position = widen(position)?;
        Ok(Entry { name, method, crc, compressed, size, position, offset })
    }

    /// The member's bytes.
    fn content(&self, archive: &[u8]) -> Result<Vec<u8>, DataError> {
        let mut cursor = cursor(archive, self.position);
        cursor.expect(LOCAL, "the member's header")?;
        cursor.take(22)?;
        let (name_len, extra_len) = (cursor.u16()?, cursor.u16()?);
        cursor.take(usize::from(name_len) + usize::from(extra_len))?;
        let begin = cursor.at;
        let packed = cursor.take(usize::try_from(self.compressed).unwrap_or(usize::MAX))?;
        let content = match self.method {
            STORED => packed.to_vec(),
            DEFLATED => {
                if self.size > self.compressed.saturating_mul(MAX_RATIO) {
                    return Err(DataError::damaged(self.offset, "a size that its data cannot inflate to"));
                }
                let mut content = Vec::new();
                let mut decoder = DeflateDecoder::new(packed).take(self.size.saturating_add(1));
                let inflated = decoder.read_to_end(&mut content);
                inflated.map_err(|error| DataError::damaged(begin, format!("it does not inflate: {error}")))?;
                content
            }
            other => {
                let reason = format!("compression method {other}; save it with numpy.savez or savez_compressed");
                return Err(DataError::unsupported(reason));
            }
        };
        if content.len() as u64 != self.size {
            let reason = format!("{} bytes where the directory says {}", content.len(), self.size);
            return Err(DataError::damaged(begin, reason));
        }
        let mut crc = Crc::new();
        crc.update(&content);
        if crc.sum() != self.crc {
            return Err(DataError::damaged(begin, "its checksum is wrong"));
        }
        Ok(content)
    }
}

/// The 64-bit numbers of a member's zip64 extra field.
struct Extra64<'a>(&'a [u8]);

impl<'a> Extra64<'a> {
    fn find(extra: &'a [u8]) -> Extra64<'a> {
        let mut cursor = Cursor { bytes: extra, at: 0 };
        while let (Ok(id), Ok(len)) = (cursor.u16(), cursor.u16()) {
            match cursor.take(usize::from(len)) {
                Ok(field) if id == EXTRA64 => return Extra64(field),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        Extra64(&[])
    }

    fn next(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*number))
    }
}
