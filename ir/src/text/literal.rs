//! Tensors in text: `f32[2, 2] dense(1.0, 0.5, -0.0, nan)`, `f32[8] splat(0.0)`, `f32[784, 64] file("fc1.weight")`.
//!
//! Elements keep every bit. Floats are the shortest decimal that reads back as the same value; infinities are `inf`,
//! the usual quiet NaN is `nan`; any other NaN, the 8- and 4-bit floats and bytes outside a type's range are hex bits.

use half::{bf16, f16};

use super::constants::ConstantSource;
use super::lex::{Cursor, Read, Token, quote};
use crate::tensor::{Tensor, checked_numel};
use crate::types::{Class, DType, TensorType};

/// Elements that a `splat` stands for at most.
const SPLAT_ELEMENTS: usize = 1 << 20;

/// Bytes that all splats of a text make at most.
const SPLAT_BYTES: usize = 1 << 28;

/// What reading tensors needs.
pub(super) struct Tensors<'s> {
    /// Where named tensors are.
    pub(super) source: &'s dyn ConstantSource,
    /// The constants file that the header names.
    pub(super) file: Option<String>,
    /// Bytes that splats have made.
    splats: usize,
}

impl<'s> Tensors<'s> {
    pub(super) fn new(source: &'s dyn ConstantSource) -> Self {
        Tensors { source, file: None, splats: 0 }
    }
}

/// An element of a dtype: its little-endian bits.
fn bits_of(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    u64::from_le_bytes(word)
}

/// A float with a point or an exponent, or a word.
pub(super) fn float(value: f64) -> String {
    if value.is_nan() && value.to_bits() != f64::NAN.to_bits() {
        return format!("{:#x}", value.to_bits());
    }
    decimal(value, || format!("{value:?}"))
}

/// `shortest` unless it is no number.
fn decimal(value: f64, shortest: impl FnOnce() -> String) -> String {
    match value {
        v if v.is_nan() => "nan".to_owned(),
        v if v.is_infinite() => if v > 0.0 { "inf" } else { "-inf" }.to_owned(),
        _ => shortest(),
    }
}

/// The quiet NaN that `nan` means.
fn usual_nan(dtype: DType) -> Option<u64> {
    match dtype {
        DType::F64 => Some(f64::NAN.to_bits()),
        DType::F32 => Some(f32::NAN.to_bits().into()),
        DType::F16 => Some(f16::NAN.to_bits().into()),
        DType::BF16 => Some(bf16::NAN.to_bits().into()),
        _ => None,
    }
}

/// One element as text.
fn element(dtype: DType, bytes: &[u8]) -> String {
    let bits = bits_of(bytes);
    let hex = || format!("{bits:#x}");
    let float = |value: f64, shortest: String| {
        if value.is_nan() && usual_nan(dtype) != Some(bits) { hex() } else { decimal(value, || shortest) }
    };
    match dtype {
        DType::F64 => float(f64::from_bits(bits), format!("{:?}", f64::from_bits(bits))),
        DType::F32 => {
            let value = f32::from_bits(bits as u32);
            float(value.into(), format!("{value:?}"))
        }
        DType::F16 => {
            let value = f16::from_bits(bits as u16).to_f32();
            float(value.into(), format!("{value:?}"))
        }
        DType::BF16 => {
            let value = bf16::from_bits(bits as u16).to_f32();
            float(value.into(), format!("{value:?}"))
        }
        DType::Bool if bits < 2 => (bits == 1).to_string(),
        _ => match dtype.class() {
            Class::Signed => {
                let unused = 64 - 8 * bytes.len().min(8);
                let value = ((bits << unused) as i64) >> unused;
                if in_range(dtype, value.into()) { value.to_string() } else { hex() }
            }
            Class::Unsigned if in_range(dtype, bits.into()) => bits.to_string(),
            Class::Unsigned | Class::Float | Class::Bool | Class::Text => hex(),
        },
    }
}

/// Whether an integer type holds a value.
fn in_range(dtype: DType, value: i128) -> bool {
    let bits = dtype.bits();
    match dtype.class() {
        Class::Signed => (-(1i128 << (bits - 1))..1i128 << (bits - 1)).contains(&value),
        Class::Unsigned => (0..1i128 << bits).contains(&value),
        Class::Float | Class::Bool | Class::Text => false,
    }
}

/// Whether all elements have the same bits, and there are several.
pub(super) fn is_splat(tensor: &Tensor) -> bool {
    let size = tensor.dtype().size();
    let bytes = tensor.bytes();
    size > 0 && bytes.len() > size && bytes.get(size..) == bytes.get(..bytes.len() - size)
}

/// A tensor with its elements in the text.
pub(super) fn inline(tensor: &Tensor) -> String {
    let dtype = tensor.dtype();
    let size = dtype.size().max(1);
    if is_splat(tensor) {
        return format!("{} splat({})", tensor.ty(), element(dtype, tensor.bytes().get(..size).unwrap_or(&[])));
    }
    let elements: Vec<String> = match tensor.strings() {
        Some(strings) => strings.iter().map(|s| quote(s)).collect(),
        None => tensor.bytes().chunks_exact(size).map(|bytes| element(dtype, bytes)).collect(),
    };
    format!("{} dense({})", tensor.ty(), elements.join(", "))
}

impl Cursor<'_> {
    /// Whether a tensor's data follows its type here.
    pub(super) fn at_literal(&self) -> bool {
        matches!(self.peek(), Token::Word("dense" | "splat" | "file"))
    }

    /// A tensor's data, after its type.
    pub(super) fn literal(&mut self, ty: &TensorType, tensors: &mut Tensors) -> Read<Tensor> {
        let start = self.offset();
        let Some(shape) = ty.known_dims() else {
            return self.fail_at(start, format!("expected known extents for a tensor's data, found {ty}"));
        };
        let Some(count) = checked_numel(&shape) else {
            return self.fail_at(start, format!("{ty} has too many elements"));
        };
        let kind = self.word("`dense`, `splat` or `file`")?;
        self.expect('(')?;
        if kind == "file" {
            let offset = self.offset();
            let name = self.quoted_text("the quoted name of a tensor in the constants file")?;
            self.expect(')')?;
            return match tensors.source.constant(tensors.file.as_deref(), &name, ty) {
                Ok(tensor) => Ok(tensor),
                Err(message) => self.fail_at(offset, message),
            };
        }
        let made = if ty.dtype == DType::Str {
            let mut values = self.list(')', |c| c.quoted_text("a quoted text"))?;
            if kind == "splat" {
                return self.fail_at(start, "a tensor of strings is written with `dense`");
            }
            values.truncate(count.saturating_add(1));
            Tensor::from_strings(&shape, values)
        } else {
            let mut bytes = Vec::new();
            self.list(')', |c| c.element(ty.dtype, &mut bytes))?;
            if kind == "splat" {
                tensors.splats = tensors.splats.saturating_add(count.saturating_mul(ty.dtype.size()));
                if count > SPLAT_ELEMENTS || tensors.splats > SPLAT_BYTES {
                    return self.fail_at(start, format!("a splat of {count} elements is too large for a text"));
                }
                if bytes.len() != ty.dtype.size() {
                    return self.fail_at(start, "a splat takes one element");
                }
                bytes = bytes.repeat(count);
            }
            Tensor::from_bytes(ty.dtype, &shape, &bytes)
        };
        match made {
            Ok(tensor) => Ok(tensor),
            Err(e) => self.fail_at(start, e.to_string()),
        }
    }

    /// One number or bool, appended as bytes.
    fn element(&mut self, dtype: DType, bytes: &mut Vec<u8>) -> Read<()> {
        let start = self.offset();
        let size = dtype.size();
        let negative = self.eat('-')?;
        let token = self.peek().clone();
        let bits: Option<u64> = match token {
            Token::Bits(bits) if !negative => Some(bits).filter(|b| size >= 8 || b >> (8 * size) == 0),
            Token::Word("true") if dtype == DType::Bool && !negative => Some(1),
            Token::Word("false") if dtype == DType::Bool && !negative => Some(0),
            Token::Word("nan") if !negative => usual_nan(dtype),
            Token::Word("inf") if dtype.is_float() => float_bits(dtype, negative, "inf"),
            Token::Float(digits) => float_bits(dtype, negative, digits),
            Token::Int(value) if dtype.is_float() => float_bits(dtype, negative, &value.to_string()),
            Token::Int(value) => {
                let wide = if negative { -i128::from(value) } else { value.into() };
                in_range(dtype, wide).then_some(wide as u64)
            }
            _ => None,
        };
        let Some(bits) = bits else {
            return self.fail_at(start, format!("expected an element of type {dtype}, found {token}"));
        };
        self.advance()?;
        bytes.extend_from_slice(bits.to_le_bytes().get(..size).unwrap_or(&[]));
        Ok(())
    }

    /// A number, as an attribute: a float after an optional `-` that was read.
    pub(super) fn attribute_float(&mut self, negative: bool) -> Read<f64> {
        let value = match *self.peek() {
            Token::Float(digits) => digits.parse().unwrap_or(f64::NAN),
            Token::Word("inf") => f64::INFINITY,
            Token::Word("nan") if !negative => f64::NAN,
            Token::Bits(bits) if !negative => f64::from_bits(bits),
            _ => return self.expected("a float"),
        };
        self.advance()?;
        Ok(if negative { -value } else { value })
    }
}

/// Bits of a decimal number in a float type; `None` for types without a decimal form.
fn float_bits(dtype: DType, negative: bool, digits: &str) -> Option<u64> {
    let text = if negative { format!("-{digits}") } else { digits.to_owned() };
    match dtype {
        DType::F64 => text.parse::<f64>().ok().map(f64::to_bits),
        DType::F32 => text.parse::<f32>().ok().map(|v| v.to_bits().into()),
        DType::F16 => text.parse::<f64>().ok().map(|v| f16::from_f64(v).to_bits().into()),
        DType::BF16 => text.parse::<f64>().ok().map(|v| bf16::from_f64(v).to_bits().into()),
        _ => None,
    }
}
