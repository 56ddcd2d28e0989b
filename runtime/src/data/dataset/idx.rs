//! IDX: the format of MNIST and its kin. Two zero bytes, an element type, a rank, big-endian extents, the elements.
//!
//! In: a file, gzipped or plain. Out: [`Idx`]. A gzipped file is inflated no further than its own header says.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use super::DatasetError;

/// What a gzipped file begins with.
const GZIP: &[u8] = &[0x1f, 0x8b];

/// Element types, by their code in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// Unsigned, 8 bits: pixels and labels.
    U8,
    /// Signed, 8 bits.
    I8,
    /// Signed, 16 bits.
    I16,
    /// Signed, 32 bits.
    I32,
    /// IEEE single precision.
    F32,
    /// IEEE double precision.
    F64,
}

impl Element {
    fn of_code(code: u8) -> Option<Element> {
        Some(match code {
            0x08 => Element::U8,
            0x09 => Element::I8,
            0x0b => Element::I16,
            0x0c => Element::I32,
            0x0d => Element::F32,
            0x0e => Element::F64,
            _ => return None,
        })
    }

    fn size(self) -> usize {
        match self {
            Element::U8 | Element::I8 => 1,
            Element::I16 => 2,
            Element::I32 | Element::F32 => 4,
            Element::F64 => 8,
        }
    }
}

/// An array of an IDX file.
#[derive(Clone, Debug, PartialEq)]
pub struct Idx {
    /// Element type.
    pub element: Element,
    /// Extents, records first.
    pub shape: Vec<usize>,
    /// Its elements, big-endian.
    pub data: Vec<u8>,
}

impl Idx {
    /// Elements as f64, which holds each of them exactly.
    pub fn values(&self) -> impl Iterator<Item = f64> + '_ {
        self.data.chunks_exact(self.element.size()).map(|bytes| {
            let wide = |n: usize| {
                let mut all = [0_u8; 8];
                all.iter_mut().zip(bytes).take(n).for_each(|(to, from)| *to = *from);
                u64::from_be_bytes(all)
            };
            match self.element {
                Element::U8 => f64::from((wide(1) >> 56) as u8),
                Element::I8 => f64::from((wide(1) >> 56) as u8 as i8),
                Element::I16 => f64::from((wide(2) >> 48) as u16 as i16),
                Element::I32 => f64::from((wide(4) >> 32) as u32 as i32),
                Element::F32 => f64::from(f32::from_bits((wide(4) >> 32) as u32)),
                Element::F64 => f64::from_bits(wide(8)),
            }
        })
    }
}

/// Reads an IDX file.
///
/// # Errors
/// What the system says; a damaged, cut off or foreign file.
pub fn read_file(path: &Path) -> Result<Idx, DatasetError> {
    let mut file = BufReader::new(File::open(path).map_err(|error| DatasetError::io(path, error))?);
    let first = file.fill_buf().map_err(|error| DatasetError::io(path, error))?;
    if first.starts_with(GZIP) {
        read(&mut MultiGzDecoder::new(file), "its gzip data", path)
    } else {
        read(&mut file, "the file", path)
    }
}

fn read(from: &mut impl Read, what: &str, path: &Path) -> Result<Idx, DatasetError> {
    let damaged = |reason: String| DatasetError::damaged(path, reason);
    let mut take = |len: u64, into: &str| -> Result<Vec<u8>, DatasetError> {
        let mut bytes = Vec::new();
        let read = from.by_ref().take(len).read_to_end(&mut bytes);
        read.map_err(|error| damaged(format!("{what} cannot be read in {into}: {error}")))?;
        Ok(bytes)
    };
    let head = take(4, "its header")?;
    let [0, 0, code, rank] = head[..] else {
        return Err(damaged("not an IDX file: it does not begin with two zero bytes, a type and a rank".to_owned()));
    };
    let element =
        Element::of_code(code).ok_or_else(|| damaged(format!("not an IDX file: no element type {code:#04x}")))?;
    let extents = take(4 * u64::from(rank), "its extents")?;
    let shape: Vec<usize> = extents
        .chunks_exact(4)
        .filter_map(|bytes| bytes.try_into().ok().map(u32::from_be_bytes))
        .filter_map(|extent| usize::try_from(extent).ok())
        .collect();
    if shape.len() != usize::from(rank) {
        return Err(damaged("it ends inside its header".to_owned()));
    }
    let size = frit_ir::tensor::checked_numel(&shape).and_then(|n| n.checked_mul(element.size()));
    let size = size.and_then(|size| u64::try_from(size).ok()).filter(|size| *size < u64::MAX);
    let size = size.ok_or_else(|| damaged(format!("shape {shape:?}: more than memory can hold")))?;
    // One byte more: what follows is found, and a checksum at the end is looked at.
    let data = take(size + 1, "its elements")?;
    match (data.len() as u64).cmp(&size) {
        std::cmp::Ordering::Equal => Ok(Idx { element, shape, data }),
        std::cmp::Ordering::Less => {
            Err(damaged(format!("it is cut off: {} bytes of data, shape {shape:?} takes {size}", data.len())))
        }
        std::cmp::Ordering::Greater => Err(damaged(format!("something follows the {size} bytes of shape {shape:?}"))),
    }
}
