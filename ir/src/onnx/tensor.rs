//! Tensors as ONNX stores them, to and from [`Tensor`].
//!
//! In: a `TensorProto` or `SparseTensorProto`, decoded but not trusted. Out: a [`Tensor`] of the same elements. ONNX
//! has a field for each group of element types, a raw form, and files beside the model; all say the same bytes:
//! little-endian, row-major, elements of 2 and 4 bits packed low bits first. Complex numbers become a trailing dim of
//! 2, packed elements take a byte each, booleans are 0 or 1.
//!
//! The bytes that shape and type ask for are computed with checked arithmetic and compared with those that are there
//! before anything is allocated, so a small file never makes a large tensor. Sparse tensors may, within
//! [`SPARSE_LIMIT`].

use std::borrow::Cow;
use std::path::Path;

use prost::bytes::Bytes;

use super::error::{MissingKind, OnnxError, Report};
use super::external::ExternalFiles;
use super::proto::{DataLocation, DataType, SparseTensorProto, TensorProto};
use crate::tensor::{Tensor, TensorError};
use crate::types::{Class, DType};

/// Bytes that all sparse tensors of a model may take once they are dense.
pub const SPARSE_LIMIT: usize = 64 << 20;

/// Dims that a tensor may have.
pub(crate) const RANK_LIMIT: usize = 64;

/// What a tensor's elements are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Element {
    /// Type of the numbers.
    pub(crate) dtype: DType,
    /// Whether an element is two of them, real and imaginary part.
    pub(crate) complex: bool,
}

/// The element type behind a `DataType` code; `user` needs it, should it be missing here.
pub(crate) fn element(code: i32, user: &str) -> Result<Element, OnnxError> {
    let real = |dtype| Ok(Element { dtype, complex: false });
    let missing = |name: &str| {
        let mut report = Report::default();
        report.add(MissingKind::Type, "", 0, &format!("element type {name}"), user);
        Err(OnnxError::Unsupported(report))
    };
    let Ok(data_type) = DataType::try_from(code) else { return missing(&code.to_string()) };
    match data_type {
        DataType::Undefined => Err(OnnxError::invalid("element type", "is missing")),
        DataType::Complex64 => Ok(Element { dtype: DType::F32, complex: true }),
        DataType::Complex128 => Ok(Element { dtype: DType::F64, complex: true }),
        DataType::Float => real(DType::F32),
        DataType::Double => real(DType::F64),
        DataType::Float16 => real(DType::F16),
        DataType::Bfloat16 => real(DType::BF16),
        DataType::Int8 => real(DType::I8),
        DataType::Int16 => real(DType::I16),
        DataType::Int32 => real(DType::I32),
        DataType::Int64 => real(DType::I64),
        DataType::Uint8 => real(DType::U8),
        DataType::Uint16 => real(DType::U16),
        DataType::Uint32 => real(DType::U32),
        DataType::Uint64 => real(DType::U64),
        DataType::Bool => real(DType::Bool),
        DataType::String => real(DType::Str),
        DataType::Int4 => real(DType::I4),
        DataType::Uint4 => real(DType::U4),
        DataType::Int2 => real(DType::I2),
        DataType::Uint2 => real(DType::U2),
        DataType::Float8e4m3fn => real(DType::F8E4M3FN),
        DataType::Float8e4m3fnuz => real(DType::F8E4M3FNUZ),
        DataType::Float8e5m2 => real(DType::F8E5M2),
        DataType::Float8e5m2fnuz => real(DType::F8E5M2FNUZ),
        DataType::Float8e8m0 => real(DType::F8E8M0),
        DataType::Float4e2m1 => real(DType::F4E2M1),
        DataType::Float6e2m3 => missing("FLOAT6E2M3"),
        DataType::Float6e3m2 => missing("FLOAT6E3M2"),
    }
}

/// The `DataType` of an element type.
pub fn data_type(dtype: DType) -> DataType {
    match dtype {
        DType::F32 => DataType::Float,
        DType::F64 => DataType::Double,
        DType::F16 => DataType::Float16,
        DType::BF16 => DataType::Bfloat16,
        DType::I8 => DataType::Int8,
        DType::I16 => DataType::Int16,
        DType::I32 => DataType::Int32,
        DType::I64 => DataType::Int64,
        DType::U8 => DataType::Uint8,
        DType::U16 => DataType::Uint16,
        DType::U32 => DataType::Uint32,
        DType::U64 => DataType::Uint64,
        DType::Bool => DataType::Bool,
        DType::Str => DataType::String,
        DType::I4 => DataType::Int4,
        DType::U4 => DataType::Uint4,
        DType::I2 => DataType::Int2,
        DType::U2 => DataType::Uint2,
        DType::F8E4M3FN => DataType::Float8e4m3fn,
        DType::F8E4M3FNUZ => DataType::Float8e4m3fnuz,
        DType::F8E5M2 => DataType::Float8e5m2,
        DType::F8E5M2FNUZ => DataType::Float8e5m2fnuz,
        DType::F8E8M0 => DataType::Float8e8m0,
        DType::F4E2M1 => DataType::Float4e2m1,
    }
}

/// Bits that an element takes in a file.
fn file_bits(dtype: DType) -> usize {
    if dtype.bits() < 8 && dtype != DType::Bool { dtype.bits() as usize } else { dtype.size() * 8 }
}

/// Reads the tensors of one model.
#[derive(Debug)]
pub(crate) struct TensorReader {
    external: ExternalFiles,
    sparse_left: usize,
}

impl TensorReader {
    /// `folder` is where external data may lie.
    pub(crate) fn new(folder: Option<&Path>) -> Self {
        TensorReader { external: ExternalFiles::new(folder), sparse_left: SPARSE_LIMIT }
    }

    /// The tensor that a message describes.
    pub(crate) fn read(&mut self, t: &TensorProto) -> Result<Tensor, OnnxError> {
        self.read_here(t).map_err(|e| e.inside(|| format!("tensor `{}`", t.name())))
    }

    fn read_here(&mut self, t: &TensorProto) -> Result<Tensor, OnnxError> {
        if t.segment.is_some() {
            let mut report = Report::default();
            report.add(MissingKind::Feature, "", 0, "tensors split in segments", t.name());
            return Err(OnnxError::Unsupported(report));
        }
        let element = element(t.data_type(), t.name())?;
        let shape = shape(&t.dims, element)?;
        let numbers = numel(&shape)?;
        let bits = numbers.checked_mul(file_bits(element.dtype));
        let needed = bits.ok_or_else(|| OnnxError::invalid("shape", format!("{:?} is too large", t.dims)))?.div_ceil(8);
        if element.dtype == DType::Str {
            return strings(t, &shape, numbers);
        }
        if t.data_location == Some(DataLocation::External as i32) {
            return self.read_external(t, element.dtype, &shape, numbers, needed);
        }
        let bytes = inline_bytes(t, element)?;
        if bytes.len() != needed {
            let what =
                format!("a {} tensor of shape {shape:?} takes {needed} bytes, not {}", element.dtype, bytes.len());
            return Err(OnnxError::invalid("data", what));
        }
        from_file_bytes(element.dtype, &shape, numbers, &bytes)
    }

    fn read_external(
        &mut self,
        t: &TensorProto,
        dtype: DType,
        shape: &[usize],
        numbers: usize,
        needed: usize,
    ) -> Result<Tensor, OnnxError> {
        let entry = |key: &str| t.external_data.iter().find(|e| e.key() == key).map(|e| e.value());
        let number = |key: &str| match entry(key) {
            None => Ok(None),
            Some(text) => match text.parse::<usize>() {
                Ok(v) => Ok(Some(v)),
                Err(_) => Err(OnnxError::invalid(format!("external data {key}"), format!("`{text}` is no size"))),
            },
        };
        let location = entry("location").ok_or_else(|| OnnxError::invalid("external data", "has no location"))?;
        let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?);
        if let Some(length) = length
            && length != needed
        {
            let what = format!("a {dtype} tensor of shape {shape:?} takes {needed} bytes, not {length}");
            return Err(OnnxError::invalid(format!("external data `{location}`"), what));
        }
        let map = self.external.map(location)?;
        let Some(bytes) = offset.checked_add(needed).and_then(|end| map.get(offset..end)) else {
            let what = format!("has {} bytes, but bytes {offset} to {offset}+{needed} are asked for", map.len());
            return Err(OnnxError::invalid(format!("external data `{location}`"), what));
        };
        // Bytes that need no rewriting stay where they are.
        if file_bits(dtype) == dtype.size() * 8 && (dtype != DType::Bool || bytes.iter().all(|b| *b < 2)) {
            return Tensor::from_map(dtype, shape, map, offset).map_err(misfit);
        }
        from_file_bytes(dtype, shape, numbers, bytes)
    }

    /// The dense tensor of a sparse one.
    pub(crate) fn read_sparse(&mut self, t: &SparseTensorProto) -> Result<Tensor, OnnxError> {
        let name = t.values.as_ref().map_or("", |v| v.name());
        self.read_sparse_here(t, name).map_err(|e| e.inside(|| format!("sparse tensor `{name}`")))
    }

    fn read_sparse_here(&mut self, t: &SparseTensorProto, name: &str) -> Result<Tensor, OnnxError> {
        let (Some(values), Some(indices)) = (&t.values, &t.indices) else {
            return Err(OnnxError::invalid("data", "has no values or no indices"));
        };
        let complex = element(values.data_type(), values.name())?.complex;
        let (values, indices) = (self.read(values)?, self.read(indices)?);
        let dtype = values.dtype();
        if complex || dtype == DType::Str {
            let mut report = Report::default();
            report.add(MissingKind::Type, "", 0, "sparse tensor of complex numbers or strings", name);
            return Err(OnnxError::Unsupported(report));
        }
        let shape = shape(&t.dims, Element { dtype, complex })?;
        let count = values.numel();
        let (false, [_]) = (indices.dtype() != DType::I64, values.shape()) else {
            return Err(OnnxError::invalid("data", "needs a list of values and int64 indices"));
        };
        let linear = match indices.shape() {
            [n] if *n == count => true,
            [n, rank] if *n == count && *rank == shape.len() => false,
            other => {
                return Err(OnnxError::invalid("indices", format!("shape {other:?} does not fit {count} values")));
            }
        };
        let size = numel(&shape)?.checked_mul(dtype.size()).filter(|s| *s <= self.sparse_left);
        let size = size.ok_or_else(|| {
            OnnxError::limit(
                "dense form",
                format!("the sparse tensors of a model may take {SPARSE_LIMIT} bytes in all"),
            )
        })?;
        self.sparse_left -= size;
        let mut dense = vec![0u8; size];
        let indices = indices.to_vec::<i64>();
        for (k, value) in values.bytes().chunks_exact(dtype.size()).enumerate() {
            let place = if linear {
                indices.get(k).and_then(|&i| usize::try_from(i).ok())
            } else {
                let coordinates = indices.get(k * shape.len()..(k + 1) * shape.len());
                coordinates.and_then(|c| flatten(c, &shape))
            };
            let slot = place
                .and_then(|p| p.checked_mul(dtype.size()))
                .and_then(|start| dense.get_mut(start..start.checked_add(dtype.size())?));
            slot.ok_or_else(|| OnnxError::invalid("indices", format!("entry {k} is outside of {shape:?}")))?
                .copy_from_slice(value);
        }
        Tensor::from_bytes(dtype, &shape, &dense).map_err(misfit)
    }
}

/// Row-major position of coordinates; `None` when one is outside.
fn flatten(coordinates: &[i64], shape: &[usize]) -> Option<usize> {
    coordinates.iter().zip(shape).try_fold(0usize, |position, (&c, &extent)| {
        let c = usize::try_from(c).ok().filter(|c| *c < extent)?;
        position.checked_mul(extent)?.checked_add(c)
    })
}

fn misfit(error: TensorError) -> OnnxError {
    OnnxError::invalid("data", error.to_string())
}

fn shape(dims: &[i64], element: Element) -> Result<Vec<usize>, OnnxError> {
    if dims.len() >= RANK_LIMIT {
        return Err(OnnxError::limit("shape", format!("{} dims; {RANK_LIMIT} are allowed", dims.len())));
    }
    let extents = dims.iter().map(|&d| usize::try_from(d));
    let mut shape = extents
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| OnnxError::invalid("shape", format!("{dims:?} has a negative extent")))?;
    if element.complex {
        shape.push(2);
    }
    Ok(shape)
}

/// Elements of a shape. Extents beside a zero count as well, so that strides can't overflow later.
fn numel(shape: &[usize]) -> Result<usize, OnnxError> {
    const MOST: usize = 1 << 48;
    let product = shape.iter().filter(|d| **d != 0).try_fold(1usize, |n, &d| n.checked_mul(d).filter(|n| *n <= MOST));
    match product {
        Some(_) if shape.contains(&0) => Ok(0),
        Some(n) => Ok(n),
        None => Err(OnnxError::invalid("shape", format!("{shape:?} is too large"))),
    }
}

fn strings(t: &TensorProto, shape: &[usize], count: usize) -> Result<Tensor, OnnxError> {
    if t.string_data.len() != count || t.raw_data.is_some() || t.data_location() == DataLocation::External {
        let what = format!("shape {shape:?} takes {count} strings in string_data, not {}", t.string_data.len());
        return Err(OnnxError::invalid("data", what));
    }
    let texts = t.string_data.iter().map(|b| std::str::from_utf8(b).map(str::to_owned));
    let texts = texts.collect::<Result<Vec<_>, _>>();
    let texts = texts.map_err(|_| OnnxError::invalid("data", "a string is not UTF-8"))?;
    Tensor::from_strings(shape, texts).map_err(misfit)
}

/// The bytes a file would hold for whichever data field is filled.
fn inline_bytes(t: &TensorProto, element: Element) -> Result<Cow<'_, [u8]>, OnnxError> {
    fn le<T: bytemuck::NoUninit>(values: &[T]) -> Cow<'_, [u8]> {
        // Fields decode to native order, and a tensor is little-endian.
        #[cfg(target_endian = "big")]
        compile_error!("tensors are kept in the byte order of files");
        Cow::Borrowed(bytemuck::cast_slice(values))
    }
    let filled = [
        (t.float_data.len(), "float_data"),
        (t.int32_data.len(), "int32_data"),
        (t.string_data.len(), "string_data"),
        (t.int64_data.len(), "int64_data"),
        (t.double_data.len(), "double_data"),
        (t.uint64_data.len(), "uint64_data"),
        (t.raw_data.as_ref().map_or(0, Bytes::len), "raw_data"),
    ];
    let mut filled = filled.iter().filter(|(n, _)| *n > 0).map(|(_, name)| *name);
    let field = filled.next().unwrap_or("raw_data");
    if let Some(second) = filled.next() {
        return Err(OnnxError::invalid("data", format!("both {field} and {second} are filled")));
    }
    let dtype = element.dtype;
    Ok(match (field, dtype) {
        ("raw_data", _) => Cow::Borrowed(t.raw_data.as_deref().unwrap_or(&[])),
        ("float_data", DType::F32) => le(&t.float_data),
        ("double_data", DType::F64) => le(&t.double_data),
        ("int64_data", DType::I64) => le(&t.int64_data),
        ("uint64_data", DType::U64) => le(&t.uint64_data),
        ("uint64_data", DType::U32) => {
            let narrow = t.uint64_data.iter().map(|&v| u32::try_from(v).map(u32::to_le_bytes));
            let narrow = narrow.collect::<Result<Vec<_>, _>>();
            let narrow = narrow.map_err(|_| OnnxError::invalid("uint64_data", "a value does not fit uint32"))?;
            Cow::Owned(narrow.into_iter().flatten().collect())
        }
        ("int32_data", DType::I32) => le(&t.int32_data),
        ("int32_data", _) if dtype.size() <= 2 => Cow::Owned(narrow(&t.int32_data, dtype)?),
        (field, dtype) => {
            return Err(OnnxError::invalid("data", format!("{dtype} elements are not kept in {field}")));
        }
    })
}

/// One or two bytes of each value. Elements of less than a byte come packed: a value is a byte of them.
fn narrow(values: &[i32], dtype: DType) -> Result<Vec<u8>, OnnxError> {
    let signed = dtype.class() == Class::Signed && dtype.bits() >= 8;
    let (low, high) = match (dtype.size(), signed) {
        (1, true) => (i32::from(i8::MIN), i32::from(i8::MAX)),
        (_, true) => (i32::from(i16::MIN), i32::from(i16::MAX)),
        (1, false) => (0, i32::from(u8::MAX)),
        (_, false) => (0, i32::from(u16::MAX)),
    };
    let mut bytes = Vec::with_capacity(values.len() * dtype.size());
    for &value in values {
        if !(low..=high).contains(&value) {
            return Err(OnnxError::invalid("int32_data", format!("{value} does not fit {dtype}")));
        }
        bytes.extend(value.to_le_bytes().into_iter().take(dtype.size()));
    }
    Ok(bytes)
}

/// A tensor from bytes as a file holds them; `bytes` is known to be as long as `numbers` elements take.
fn from_file_bytes(dtype: DType, shape: &[usize], numbers: usize, bytes: &[u8]) -> Result<Tensor, OnnxError> {
    let bits = file_bits(dtype);
    let bytes = if bits < 8 {
        Cow::Owned(unpack(bytes, bits, dtype.class() == Class::Signed, numbers))
    } else if dtype == DType::Bool && bytes.iter().any(|b| *b > 1) {
        Cow::Owned(bytes.iter().map(|b| u8::from(*b != 0)).collect())
    } else {
        Cow::Borrowed(bytes)
    };
    Tensor::from_bytes(dtype, shape, &bytes).map_err(misfit)
}

/// A byte for each of the first `count` elements of `bits` bits, sign-extended if `signed`.
fn unpack(packed: &[u8], bits: usize, signed: bool, count: usize) -> Vec<u8> {
    let unused = 8 - bits;
    let elements = packed.iter().flat_map(|&byte| (0..8 / bits).map(move |k| byte >> (k * bits) << unused));
    let extended = elements.map(|top| if signed { ((top as i8) >> unused) as u8 } else { top >> unused });
    extended.take(count).collect()
}

/// The reverse of [`unpack`].
fn pack(elements: &[u8], bits: usize) -> Vec<u8> {
    let mask = (1u8 << bits) - 1;
    let byte = |group: &[u8]| group.iter().enumerate().fold(0, |byte, (k, e)| byte | (e & mask) << (k * bits));
    elements.chunks(8 / bits).map(byte).collect()
}

/// A tensor as a message.
pub fn to_proto(name: &str, tensor: &Tensor) -> TensorProto {
    let dtype = tensor.dtype();
    let mut message = TensorProto {
        dims: tensor.shape().iter().map(|&d| i64::try_from(d).unwrap_or(i64::MAX)).collect(),
        data_type: Some(data_type(dtype) as i32),
        name: Some(name.to_owned()),
        ..TensorProto::default()
    };
    match tensor.strings() {
        Some(texts) => message.string_data = texts.iter().map(|t| Bytes::copy_from_slice(t.as_bytes())).collect(),
        None if file_bits(dtype) < 8 => message.raw_data = Some(pack(tensor.bytes(), file_bits(dtype)).into()),
        None => message.raw_data = Some(Bytes::copy_from_slice(tensor.bytes())),
    }
    message
}

#[cfg(test)]
mod tests;
