//! NumPy's .npy files: one array, a header in Python's syntax, then its bytes.
//!
//! In: bytes of versions 1 to 3, C or Fortran order, either endianness. Out: an [`Array`] in C
//! order, little-endian; writing gives version 1 (2 where the header is long).
//!
//! Source: the format's description in NumPy's documentation, `numpy.lib.format`.

use super::DataError;
use std::io::{self, Write};
use std::path::Path;

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// The header ends at a multiple of this, so that mapped data is aligned.
const ALIGN: usize = 64;
/// The most dims an array may have; NumPy's own limit is 64.
const MAX_RANK: usize = 64;

macro_rules! dtypes {
    ($($(#[doc = $doc:literal])+ $name:ident $descr:literal $size:literal $part:literal,)+) => {
        /// Element types of .npy files.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum NpyDtype {
            $($(#[doc = $doc])+ $name,)+
        }

        impl NpyDtype {
            /// All of them.
            pub const ALL: &[NpyDtype] = &[$(NpyDtype::$name),+];

            /// NumPy's code: kind and bytes an element.
            pub fn code(self) -> &'static str {
                match self { $(NpyDtype::$name => $descr),+ }
            }

            /// Bytes an element.
            pub fn size(self) -> usize {
                match self { $(NpyDtype::$name => $size),+ }
            }

            /// Bytes of what the byte order applies to: half an element for complex numbers.
            fn part(self) -> usize {
                match self { $(NpyDtype::$name => $part),+ }
            }
        }
    };
}

dtypes! {
    /// One byte, 0 or 1.
    Bool "b1" 1 1,
    /// Signed, 8 bits.
    I8 "i1" 1 1,
    /// Signed, 16 bits.
    I16 "i2" 2 2,
    /// Signed, 32 bits.
    I32 "i4" 4 4,
    /// Signed, 64 bits.
    I64 "i8" 8 8,
    /// Unsigned, 8 bits.
    U8 "u1" 1 1,
    /// Unsigned, 16 bits.
    U16 "u2" 2 2,
    /// Unsigned, 32 bits.
    U32 "u4" 4 4,
    /// Unsigned, 64 bits.
    U64 "u8" 8 8,
    /// IEEE half precision.
    F16 "f2" 2 2,
    /// IEEE single precision.
    F32 "f4" 4 4,
    /// IEEE double precision.
    F64 "f8" 8 8,
    /// Two f32: real and imaginary part.
    C64 "c8" 8 4,
    /// Two f64: real and imaginary part.
    C128 "c16" 16 8,
}

/// A dense array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Array {
    dtype: NpyDtype,
    shape: Vec<usize>,
    data: Vec<u8>,
}

impl Array {
    /// An array from its elements in C order, little-endian.
    ///
    /// # Errors
    /// When `data` has another length than shape and type ask for.
    pub fn new(dtype: NpyDtype, shape: Vec<usize>, data: Vec<u8>) -> Result<Array, DataError> {
        if byte_len(dtype, &shape) != Some(data.len()) {
            let reason = format!("{} bytes do not make a {} array of shape {shape:?}", data.len(), dtype.code());
            return Err(DataError::Invalid(reason));
        }
        Ok(Array { dtype, shape, data })
    }

    /// Element type.
    pub fn dtype(&self) -> NpyDtype {
        self.dtype
    }

    /// Extents, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Elements in C order, little-endian.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The shape and the bytes.
    pub fn into_parts(self) -> (NpyDtype, Vec<usize>, Vec<u8>) {
        (self.dtype, self.shape, self.data)
    }
}

/// Reads a .npy file from memory. Nothing may follow the array.
///
/// # Errors
/// [`DataError::Damaged`], or [`DataError::Unsupported`] for strings, objects and records.
pub fn read(bytes: &[u8]) -> Result<Array, DataError> {
    read_owned(bytes.to_vec())
}

/// The same; the array keeps the memory.
pub(super) fn read_owned(mut data: Vec<u8>) -> Result<Array, DataError> {
    let header = Header::parse(&data)?;
    let found = data.len().saturating_sub(header.len);
    let wanted = byte_len(header.dtype, &header.shape);
    if wanted != Some(found) {
        let wanted = wanted.map_or("more than memory can hold".to_owned(), |wanted| wanted.to_string());
        let reason =
            format!("{found} bytes of data, but shape {:?} of {} takes {wanted}", header.shape, header.dtype.code());
        return Err(DataError::damaged(header.len, reason));
    }
    data.drain(..header.len.min(data.len()));
    if header.fortran {
        data = to_c_order(&data, &header.shape, header.dtype.size());
    }
    if header.big_endian && header.dtype.part() > 1 {
        data.chunks_exact_mut(header.dtype.part()).for_each(<[u8]>::reverse);
    }
    if header.dtype == NpyDtype::Bool {
        // Any other byte than 0 and 1 is true to NumPy, and undefined to a kernel.
        data.iter_mut().for_each(|byte| *byte = u8::from(*byte != 0));
    }
    Ok(Array { dtype: header.dtype, shape: header.shape, data })
}

/// Reads a .npy file.
///
/// # Errors
/// As [`read`], and what the system says.
pub fn read_file(path: &Path) -> Result<Array, DataError> {
    let bytes = std::fs::read(path).map_err(|error| DataError::io(path, error))?;
    read_owned(bytes).map_err(|error| error.in_file(path))
}

/// Writes an array as .npy.
///
/// # Errors
/// What `out` says.
pub fn write(array: &Array, out: &mut impl Write) -> io::Result<()> {
    out.write_all(&header(array))?;
    out.write_all(&array.data)
}

/// Writes a .npy file.
///
/// # Errors
/// What the system says.
pub fn write_file(array: &Array, path: &Path) -> Result<(), DataError> {
    let write = || -> io::Result<()> {
        let mut out = io::BufWriter::new(std::fs::File::create(path)?);
        write(array, &mut out)?;
        out.flush()
    };
    write().map_err(|error| DataError::io(path, error))
}

/// The bytes before an array's data.
pub(super) fn header(array: &Array) -> Vec<u8> {
    let order = if array.dtype.part() == 1 { '|' } else { '<' };
    let extents: Vec<String> = array.shape.iter().map(usize::to_string).collect();
    let comma = if extents.len() == 1 { "," } else { "" };
    let text = format!(
        "{{'descr': '{order}{}', 'fortran_order': False, 'shape': ({}{comma}), }}",
        array.dtype.code(),
        extents.join(", ")
    );
    let long = text.len() + ALIGN > usize::from(u16::MAX);
    let before = if long { 12 } else { 10 };
    let total = (before + text.len() + 1).next_multiple_of(ALIGN);
    let length = total - before;
    let mut bytes = MAGIC.to_vec();
    bytes.extend([if long { 2 } else { 1 }, 0]);
    bytes.extend(&(length as u32).to_le_bytes()[..before - 8]);
    bytes.extend(text.as_bytes());
    bytes.resize(total - 1, b' ');
    bytes.push(b'\n');
    bytes
}

/// Bytes of an array; `None` when no memory could hold it.
fn byte_len(dtype: NpyDtype, shape: &[usize]) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(dtype.size(), |product, extent| product.checked_mul(*extent))
}

/// Elements in Fortran order (first index fastest) put into C order.
fn to_c_order(data: &[u8], shape: &[usize], size: usize) -> Vec<u8> {
    let mut strides = Vec::with_capacity(shape.len());
    let mut step = size;
    for extent in shape {
        strides.push(step);
        step = step.saturating_mul(*extent);
    }
    let mut out = Vec::with_capacity(data.len());
    let mut index = vec![0_usize; shape.len()];
    let mut from = 0;
    while out.len() < data.len() {
        out.extend_from_slice(data.get(from..from + size).unwrap_or_default());
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            from += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            from -= strides[axis] * shape[axis];
            index[axis] = 0;
        }
    }
    out
}

/// What stands before the data.
struct Header {
    dtype: NpyDtype,
    big_endian: bool,
    fortran: bool,
    shape: Vec<usize>,
    /// Bytes up to the data.
    len: usize,
}

impl Header {
    fn parse(bytes: &[u8]) -> Result<Header, DataError> {
        if !bytes.starts_with(MAGIC) {
            return Err(DataError::damaged(0, "not a .npy file: it does not start with \\x93NUMPY"));
        }
        let cut = || DataError::damaged(bytes.len(), "the file ends inside its header");
        let version = *bytes.get(6).ok_or_else(cut)?;
        let (begin, length) = match version {
            1 => {
                let length = bytes.get(8..10).and_then(|b| b.try_into().ok()).map(u16::from_le_bytes);
                (10, length.map(usize::from))
            }
            2 | 3 => {
                let length = bytes.get(8..12).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
                (12, length.and_then(|length| usize::try_from(length).ok()))
            }
            other => {
                let reason = format!("version {other} of the .npy format; save the array with NumPy 1 or 2");
                return Err(DataError::unsupported(reason));
            }
        };
        let end = length.and_then(|length| length.checked_add(begin)).ok_or_else(cut)?;
        let text = bytes.get(begin..end).ok_or_else(cut)?;
        let mut reader = Literal { text, at: 0, begin };
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        reader.take(b'{')?;
        while !reader.try_take(b'}') {
            let key = reader.string()?;
            reader.take(b':')?;
            match key {
                b"descr" => descr = Some(reader.descr()?),
                b"fortran_order" => fortran = Some(reader.boolean()?),
                b"shape" => shape = Some(reader.tuple()?),
                _ => return Err(reader.error("a key other than descr, fortran_order and shape")),
            }
            if !reader.try_take(b',') {
                reader.take(b'}')?;
                break;
            }
        }
        reader.skip_space();
        if reader.at != text.len() {
            return Err(reader.error("something follows the header's closing brace"));
        }
        let (Some((dtype, big_endian)), Some(fortran), Some(shape)) = (descr, fortran, shape) else {
            return Err(reader.error("the header lacks one of descr, fortran_order and shape"));
        };
        Ok(Header { dtype, big_endian, fortran, shape, len: end })
    }
}

/// A reader of the few Python literals that a header may hold.
struct Literal<'a> {
    text: &'a [u8],
    at: usize,
    /// Where the text begins in the file, for errors.
    begin: usize,
}

impl<'a> Literal<'a> {
    fn error(&self, reason: &str) -> DataError {
        DataError::damaged(self.begin + self.at, reason)
    }

    fn skip_space(&mut self) {
        let rest = self.text.get(self.at..).unwrap_or_default();
        self.at += rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    }

    fn try_take(&mut self, byte: u8) -> bool {
        self.skip_space();
        let found = self.text.get(self.at) == Some(&byte);
        self.at += usize::from(found);
        found
    }

    fn take(&mut self, byte: u8) -> Result<(), DataError> {
        if self.try_take(byte) {
            return Ok(());
        }
        Err(self.error(&format!("{:?} is expected in the header", char::from(byte))))
    }

    /// The bytes from here on that `accept` takes.
    fn run(&mut self, accept: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let len = rest.iter().take_while(|byte| accept(**byte)).count();
        self.at += len;
        rest.get(..len).unwrap_or_default()
    }

    fn string(&mut self) -> Result<&'a [u8], DataError> {
        self.skip_space();
        let quote = match self.text.get(self.at) {
            Some(quote @ (b'\'' | b'"')) => *quote,
            _ => return Err(self.error("a quoted string is expected in the header")),
        };
        self.at += 1;
        let content = self.run(|byte| byte != quote && byte != b'\\');
        self.take(quote)?;
        Ok(content)
    }

    fn boolean(&mut self) -> Result<bool, DataError> {
        self.skip_space();
        match self.run(|byte| byte.is_ascii_alphabetic()) {
            b"True" => Ok(true),
            b"False" => Ok(false),
            _ => Err(self.error("True or False is expected in the header")),
        }
    }

    fn tuple(&mut self) -> Result<Vec<usize>, DataError> {
        let mut extents = Vec::new();
        self.take(b'(')?;
        while !self.try_take(b')') {
            if extents.len() == MAX_RANK {
                return Err(self.error("more than 64 dims"));
            }
            self.skip_space();
            let digits = std::str::from_utf8(self.run(|byte| byte.is_ascii_digit())).unwrap_or_default();
            // Python 2 wrote long integers with an L.
            self.try_take(b'L');
            let extent = digits.parse().map_err(|_| self.error("an extent that is not a number"))?;
            extents.push(extent);
            if !self.try_take(b',') {
                self.take(b')')?;
                break;
            }
        }
        Ok(extents)
    }

    fn descr(&mut self) -> Result<(NpyDtype, bool), DataError> {
        self.skip_space();
        if self.text.get(self.at) == Some(&b'[') {
            return Err(DataError::unsupported("an array of records; save each field as an array of its own"));
        }
        let descr = String::from_utf8_lossy(self.string()?).into_owned();
        let (order, code) = match descr.as_bytes().first() {
            Some(b'<' | b'=' | b'|' | b'>') => descr.split_at(1),
            _ => ("<", descr.as_str()),
        };
        let code = if code == "?" { "b1" } else { code };
        let dtype = NpyDtype::ALL.iter().find(|dtype| dtype.code() == code);
        let dtype = dtype.copied().ok_or_else(|| {
            let reason = format!("elements of type {descr:?}; save a numeric or boolean array");
            DataError::unsupported(reason)
        })?;
        Ok((dtype, order == ">"))
    }
}
