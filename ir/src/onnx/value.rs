//! Values in files of their own: the `.pb` inputs and outputs of an ONNX test case.
//!
//! In: bytes, and the type that the graph gives the value, for the messages do not say which of them they are. Out: a
//! [`HostValue`]; and back.

use prost::Message;
use prost::bytes::Bytes;

use super::error::OnnxError;
use super::proto::{DataType, MapProto, OptionalProto, SequenceProto, TensorProto, ValueKind};
use super::tensor::{TensorReader, data_type, element, to_proto};
use crate::tensor::Tensor;
use crate::types::{DType, ValueType};

/// A value of any kind.
#[derive(Clone, Debug, PartialEq)]
pub enum HostValue {
    /// A tensor.
    Tensor(Tensor),
    /// A list.
    Sequence(Vec<HostValue>),
    /// A value or nothing.
    Optional(Option<Box<HostValue>>),
    /// Keys (an integer type or string, as a list) and as many values.
    Map(Tensor, Vec<HostValue>),
}

/// Reads a value of type `ty` (tensors for an unknown type).
pub fn read_value(bytes: &[u8], ty: &ValueType) -> Result<HostValue, OnnxError> {
    let mut reader = TensorReader::new(None);
    match ty {
        ValueType::Tensor(_) | ValueType::Unknown => read_tensor(bytes).map(HostValue::Tensor),
        ValueType::Sequence(_) => sequence(&decode::<SequenceProto>(bytes)?, &mut reader),
        ValueType::Optional(_) => optional(&decode::<OptionalProto>(bytes)?, &mut reader),
        ValueType::Map(..) => map(&decode::<MapProto>(bytes)?, &mut reader),
    }
}

/// Reads a tensor.
pub fn read_tensor(bytes: &[u8]) -> Result<Tensor, OnnxError> {
    TensorReader::new(None).read(&decode::<TensorProto>(bytes)?)
}

/// A value as the bytes of a `.pb` file.
pub fn write_value(name: &str, value: &HostValue) -> Vec<u8> {
    match value {
        HostValue::Tensor(t) => to_proto(name, t).encode_to_vec(),
        HostValue::Sequence(items) => sequence_proto(name, items).encode_to_vec(),
        HostValue::Optional(inner) => optional_proto(name, inner.as_deref()).encode_to_vec(),
        HostValue::Map(keys, values) => map_proto(name, keys, values).encode_to_vec(),
    }
}

fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M, OnnxError> {
    M::decode(Bytes::copy_from_slice(bytes)).map_err(|e| OnnxError::invalid("value", e.to_string()))
}

fn sequence(s: &SequenceProto, reader: &mut TensorReader) -> Result<HostValue, OnnxError> {
    let items: Result<Vec<_>, _> = match s.elem_type() {
        // An empty sequence may leave its kind open.
        ValueKind::Undefined | ValueKind::Tensor => {
            s.tensor_values.iter().map(|t| reader.read(t).map(HostValue::Tensor)).collect()
        }
        ValueKind::SparseTensor => {
            s.sparse_tensor_values.iter().map(|t| reader.read_sparse(t).map(HostValue::Tensor)).collect()
        }
        ValueKind::Sequence => s.sequence_values.iter().map(|v| sequence(v, reader)).collect(),
        ValueKind::Map => s.map_values.iter().map(|v| map(v, reader)).collect(),
        ValueKind::Optional => s.optional_values.iter().map(|v| optional(v, reader)).collect(),
    };
    items.map(HostValue::Sequence).map_err(|e| e.inside(|| format!("sequence `{}`", s.name())))
}

fn optional(o: &OptionalProto, reader: &mut TensorReader) -> Result<HostValue, OnnxError> {
    let inner = match o.elem_type() {
        ValueKind::Undefined => None,
        ValueKind::Tensor => o.tensor_value.as_ref().map(|t| reader.read(t).map(HostValue::Tensor)),
        ValueKind::SparseTensor => o.sparse_tensor_value.as_ref().map(|t| reader.read_sparse(t).map(HostValue::Tensor)),
        ValueKind::Sequence => o.sequence_value.as_ref().map(|v| sequence(v, reader)),
        ValueKind::Map => o.map_value.as_ref().map(|v| map(v, reader)),
        ValueKind::Optional => o.optional_value.as_ref().map(|v| optional(v, reader)),
    };
    let inner = inner.transpose().map_err(|e| e.inside(|| format!("optional `{}`", o.name())))?;
    Ok(HostValue::Optional(inner.map(Box::new)))
}

fn map(m: &MapProto, reader: &mut TensorReader) -> Result<HostValue, OnnxError> {
    let place = || format!("map `{}`", m.name());
    let key = element(m.key_type(), "key type").map_err(|e| e.inside(place))?;
    // Keys are stored as int64 or strings whatever their type: read them as a tensor of that field, then narrow.
    let keys = if key.dtype == DType::Str {
        TensorProto {
            dims: vec![i64::try_from(m.string_keys.len()).unwrap_or(i64::MAX)],
            data_type: Some(DataType::String as i32),
            string_data: m.string_keys.clone(),
            ..TensorProto::default()
        }
    } else if key.dtype.is_int() && !key.complex {
        TensorProto {
            dims: vec![i64::try_from(m.keys.len()).unwrap_or(i64::MAX)],
            data_type: Some(DataType::Int64 as i32),
            int64_data: m.keys.clone(),
            ..TensorProto::default()
        }
    } else {
        return Err(OnnxError::invalid(place(), format!("keys can't be {}", key.dtype)));
    };
    let keys = reader.read(&keys).map_err(|e| e.inside(place))?;
    let values = match m.values.as_ref().map(|v| sequence(v, reader)).transpose()? {
        Some(HostValue::Sequence(values)) => values,
        _ => Vec::new(),
    };
    if values.len() != keys.numel() {
        return Err(OnnxError::invalid(place(), format!("{} keys for {} values", keys.numel(), values.len())));
    }
    Ok(HostValue::Map(keys, values))
}

fn sequence_proto(name: &str, items: &[HostValue]) -> SequenceProto {
    let mut message = SequenceProto { name: Some(name.to_owned()), ..SequenceProto::default() };
    let mut kind = ValueKind::Tensor;
    for item in items {
        match item {
            HostValue::Tensor(t) => message.tensor_values.push(to_proto("", t)),
            HostValue::Sequence(items) => {
                kind = ValueKind::Sequence;
                message.sequence_values.push(sequence_proto("", items));
            }
            HostValue::Optional(inner) => {
                kind = ValueKind::Optional;
                message.optional_values.push(optional_proto("", inner.as_deref()));
            }
            HostValue::Map(keys, values) => {
                kind = ValueKind::Map;
                message.map_values.push(map_proto("", keys, values));
            }
        }
    }
    message.elem_type = Some(kind as i32);
    message
}

fn optional_proto(name: &str, inner: Option<&HostValue>) -> OptionalProto {
    let mut message = OptionalProto { name: Some(name.to_owned()), ..OptionalProto::default() };
    let kind = match inner {
        None => ValueKind::Undefined,
        Some(HostValue::Tensor(t)) => {
            message.tensor_value = Some(to_proto("", t));
            ValueKind::Tensor
        }
        Some(HostValue::Sequence(items)) => {
            message.sequence_value = Some(sequence_proto("", items));
            ValueKind::Sequence
        }
        Some(HostValue::Optional(inner)) => {
            message.optional_value = Some(Box::new(optional_proto("", inner.as_deref())));
            ValueKind::Optional
        }
        Some(HostValue::Map(keys, values)) => {
            message.map_value = Some(map_proto("", keys, values));
            ValueKind::Map
        }
    };
    message.elem_type = Some(kind as i32);
    message
}

fn map_proto(name: &str, keys: &Tensor, values: &[HostValue]) -> MapProto {
    MapProto {
        name: Some(name.to_owned()),
        key_type: Some(data_type(keys.dtype()) as i32),
        keys: keys.to_i64s().unwrap_or_default(),
        string_keys: keys.strings().unwrap_or(&[]).iter().map(|k| Bytes::copy_from_slice(k.as_bytes())).collect(),
        values: Some(sequence_proto("", values)),
    }
}

#[cfg(test)]
mod tests;
