//! Constant data: the bytes of a tensor, owned, shared or memory-mapped.
//!
//! Data is dense, row-major, little-endian, [`DType::size`] bytes an element. Cloning a [`Tensor`] shares its bytes.
//! A mapped tensor keeps its file mapped for as long as any clone lives.

use std::fmt;
use std::sync::Arc;

use memmap2::Mmap;

use crate::types::{DType, Dim, TensorType};

/// A dense tensor of known shape.
#[derive(Clone)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    data: Storage,
}

#[derive(Clone)]
enum Storage {
    /// Kept in words, so that views of every element type are aligned; `len` bytes are valid.
    Owned {
        words: Arc<Vec<u64>>,
        len: usize,
    },
    Mapped {
        map: Arc<Mmap>,
        offset: usize,
        len: usize,
    },
    Text(Arc<[String]>),
}

/// Why bytes and shape don't make a tensor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// The number of bytes or elements is not what shape and type ask for.
    #[error("a {dtype} tensor of shape {shape:?} takes {expected}, not {found}")]
    Size {
        /// Element type.
        dtype: DType,
        /// Shape.
        shape: Vec<usize>,
        /// Bytes (elements for strings) that it takes; `usize::MAX` when that overflows.
        expected: usize,
        /// Bytes (elements) given.
        found: usize,
    },
    /// The system gives no memory for the bytes.
    #[error("no memory for the {bytes} bytes of a tensor")]
    Memory {
        /// How many.
        bytes: usize,
    },
    /// Numbers given for a string tensor or the reverse.
    #[error("a {0} tensor can't hold this kind of data")]
    Kind(DType),
}

/// Elements of a shape; `None` on overflow.
pub fn checked_numel(shape: &[usize]) -> Option<usize> {
    // A zero anywhere makes the tensor empty, whatever the other extents multiply to.
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
}

fn check_size(dtype: DType, shape: &[usize], found: usize) -> Result<(), TensorError> {
    let unit = if dtype == DType::Str { 1 } else { dtype.size() };
    let expected = checked_numel(shape).and_then(|n| n.checked_mul(unit));
    if expected == Some(found) {
        return Ok(());
    }
    Err(TensorError::Size { dtype, shape: shape.to_vec(), expected: expected.unwrap_or(usize::MAX), found })
}

impl Tensor {
    /// From little-endian bytes, which are copied.
    pub fn from_bytes(dtype: DType, shape: &[usize], bytes: &[u8]) -> Result<Self, TensorError> {
        if dtype == DType::Str {
            return Err(TensorError::Kind(dtype));
        }
        check_size(dtype, shape, bytes.len())?;
        let count = bytes.len().div_ceil(8);
        let mut words: Vec<u64> = Vec::new();
        words.try_reserve_exact(count).map_err(|_| TensorError::Memory { bytes: bytes.len() })?;
        words.resize(count, 0);
        bytemuck::cast_slice_mut::<u64, u8>(&mut words)[..bytes.len()].copy_from_slice(bytes);
        Ok(Tensor { dtype, shape: shape.to_vec(), data: Storage::Owned { words: Arc::new(words), len: bytes.len() } })
    }

    /// From elements of a plain type of the same size as `dtype`'s, which are copied.
    pub fn from_slice<T: bytemuck::NoUninit>(dtype: DType, shape: &[usize], values: &[T]) -> Result<Self, TensorError> {
        Self::from_bytes(dtype, shape, bytemuck::cast_slice(values))
    }

    /// An f32 tensor.
    pub fn f32(shape: &[usize], values: &[f32]) -> Result<Self, TensorError> {
        Self::from_slice(DType::F32, shape, values)
    }

    /// An i64 tensor.
    pub fn i64(shape: &[usize], values: &[i64]) -> Result<Self, TensorError> {
        Self::from_slice(DType::I64, shape, values)
    }

    /// A view of part of a mapped file; nothing is read.
    pub fn from_map(dtype: DType, shape: &[usize], map: Arc<Mmap>, offset: usize) -> Result<Self, TensorError> {
        let left = map.len().saturating_sub(offset);
        let len = checked_numel(shape).and_then(|n| n.checked_mul(dtype.size())).unwrap_or(usize::MAX);
        if dtype == DType::Str {
            return Err(TensorError::Kind(dtype));
        }
        if len > left {
            return Err(TensorError::Size { dtype, shape: shape.to_vec(), expected: len, found: left });
        }
        Ok(Tensor { dtype, shape: shape.to_vec(), data: Storage::Mapped { map, offset, len } })
    }

    /// A string tensor.
    pub fn from_strings(shape: &[usize], values: Vec<String>) -> Result<Self, TensorError> {
        check_size(DType::Str, shape, values.len())?;
        Ok(Tensor { dtype: DType::Str, shape: shape.to_vec(), data: Storage::Text(values.into()) })
    }

    /// The same data under another shape of as many elements.
    pub fn reshaped(&self, shape: &[usize]) -> Result<Self, TensorError> {
        let found = if self.dtype == DType::Str { self.numel() } else { self.bytes().len() };
        check_size(self.dtype, shape, found)?;
        Ok(Tensor { shape: shape.to_vec(), ..self.clone() })
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Extents, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Its type.
    pub fn ty(&self) -> TensorType {
        TensorType::new(self.dtype, self.shape.iter().map(|&d| Dim::from(d)).collect::<Vec<_>>())
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        checked_numel(&self.shape).unwrap_or(usize::MAX)
    }

    /// The bytes; empty for strings.
    pub fn bytes(&self) -> &[u8] {
        match &self.data {
            Storage::Owned { words, len } => bytemuck::cast_slice::<u64, u8>(words).get(..*len).unwrap_or(&[]),
            Storage::Mapped { map, offset, len } => map.get(*offset..*offset + *len).unwrap_or(&[]),
            Storage::Text(_) => &[],
        }
    }

    /// The strings, when it is a string tensor.
    pub fn strings(&self) -> Option<&[String]> {
        match &self.data {
            Storage::Text(s) => Some(s),
            Storage::Owned { .. } | Storage::Mapped { .. } => None,
        }
    }

    /// A typed view. `None` when the type's size differs or a mapped file holds it unaligned: then use
    /// [`Tensor::to_vec`].
    pub fn as_slice<T: bytemuck::AnyBitPattern>(&self) -> Option<&[T]> {
        if std::mem::size_of::<T>() != self.dtype.size() {
            return None;
        }
        bytemuck::try_cast_slice(self.bytes()).ok()
    }

    /// The elements as a plain type of the same size; empty when the size differs.
    pub fn to_vec<T: bytemuck::AnyBitPattern>(&self) -> Vec<T> {
        if std::mem::size_of::<T>() != self.dtype.size() || self.dtype == DType::Str {
            return Vec::new();
        }
        self.bytes().chunks_exact(self.dtype.size()).map(bytemuck::pod_read_unaligned).collect()
    }

    /// Integers and bools as i64; `None` for other types. u64 beyond i64 is refused too.
    pub fn to_i64s(&self) -> Option<Vec<i64>> {
        fn widen<T: bytemuck::AnyBitPattern + TryInto<i64>>(t: &Tensor) -> Option<Vec<i64>> {
            t.to_vec::<T>().into_iter().map(|v| v.try_into().ok()).collect()
        }
        match self.dtype {
            DType::I64 => Some(self.to_vec::<i64>()),
            DType::I32 => widen::<i32>(self),
            DType::I16 => widen::<i16>(self),
            DType::I8 | DType::I4 | DType::I2 => widen::<i8>(self),
            DType::U64 => widen::<u64>(self),
            DType::U32 => widen::<u32>(self),
            DType::U16 => widen::<u16>(self),
            DType::U8 | DType::U4 | DType::U2 | DType::Bool => widen::<u8>(self),
            DType::F32
            | DType::F64
            | DType::F16
            | DType::BF16
            | DType::F8E4M3FN
            | DType::F8E4M3FNUZ
            | DType::F8E5M2
            | DType::F8E5M2FNUZ
            | DType::F8E8M0
            | DType::F4E2M1
            | DType::Str => None,
        }
    }
}

/// Same type, shape and bits.
impl PartialEq for Tensor {
    fn eq(&self, other: &Self) -> bool {
        self.dtype == other.dtype
            && self.shape == other.shape
            && self.strings() == other.strings()
            && self.bytes() == other.bytes()
    }
}

impl Eq for Tensor {}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({}{:?})", self.dtype, self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_checked_without_overflow() {
        assert!(Tensor::from_bytes(DType::F32, &[2, 2], &[0; 15]).is_err());
        assert!(Tensor::from_bytes(DType::F32, &[usize::MAX, 2], &[0; 8]).is_err());
        let empty = Tensor::f32(&[0, usize::MAX], &[]).expect("a zero extent makes it empty");
        assert_eq!(empty.numel(), 0);
    }

    #[test]
    fn clones_share_and_views_are_typed() {
        let t = Tensor::i64(&[3], &[1, -2, 3]).expect("sizes agree");
        assert_eq!(t.as_slice::<i64>(), Some(&[1, -2, 3][..]));
        assert_eq!(t.as_slice::<f32>(), None);
        assert_eq!(t.clone(), t);
        assert_eq!(t.to_i64s(), Some(vec![1, -2, 3]));
    }
}
