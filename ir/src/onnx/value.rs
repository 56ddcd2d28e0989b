//! Values in files of their own: the `.pb` inputs and outputs of an ONNX test case.
//!
//! In: bytes, and the type that the graph gives the value, for the messages do not say which of them they are. Out: a
//! [`HostValue`]; and back.

use std::collections::BTreeMap;

use prost::Message;
use prost::bytes::Bytes;

use super::error::OnnxError;
use super::proto::{DataType, MapProto, OptionalProto, SequenceProto, TensorProto, ValueKind};
use super::tensor::{TensorReader, element, to_proto};
use crate::tensor::Tensor;
use crate::types::{DType, ValueType};
use crate::value::{HostValue, MapKey};

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
        HostValue::Map(entries) => map_proto(name, entries).encode_to_vec(),
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
    let invalid = |what: String| OnnxError::invalid(format!("map `{}`", m.name()), what);
    let key = element(m.key_type(), m.name())?;
    let keys: Vec<MapKey> = if key.dtype == DType::Str {
        let texts = m.string_keys.iter().map(|k| std::str::from_utf8(k).map(|k| MapKey::Str(k.to_owned())));
        texts.collect::<Result<_, _>>().map_err(|_| invalid("a key is not UTF-8".to_owned()))?
    } else if key.dtype.is_int() && !key.complex {
        m.keys.iter().map(|&k| MapKey::Int(k)).collect()
    } else {
        return Err(invalid(format!("keys can't be {}", key.dtype)));
    };
    let values = match m.values.as_ref().map(|v| sequence(v, reader)).transpose()? {
        Some(HostValue::Sequence(values)) => values,
        _ => Vec::new(),
    };
    if values.len() != keys.len() {
        return Err(invalid(format!("{} keys for {} values", keys.len(), values.len())));
    }
    let count = keys.len();
    let entries: BTreeMap<MapKey, HostValue> = keys.into_iter().zip(values).collect();
    if entries.len() != count {
        return Err(invalid("a key comes twice".to_owned()));
    }
    Ok(HostValue::Map(entries))
}

fn sequence_proto<'v>(name: &str, items: impl IntoIterator<Item = &'v HostValue>) -> SequenceProto {
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
            HostValue::Map(entries) => {
                kind = ValueKind::Map;
                message.map_values.push(map_proto("", entries));
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
        Some(HostValue::Map(entries)) => {
            message.map_value = Some(map_proto("", entries));
            ValueKind::Map
        }
    };
    message.elem_type = Some(kind as i32);
    message
}

fn map_proto(name: &str, entries: &BTreeMap<MapKey, HostValue>) -> MapProto {
    let (mut keys, mut string_keys) = (Vec::new(), Vec::new());
    for key in entries.keys() {
        match key {
            MapKey::Int(key) => keys.push(*key),
            MapKey::Str(key) => string_keys.push(Bytes::copy_from_slice(key.as_bytes())),
        }
    }
    let key_type = if string_keys.is_empty() { DataType::Int64 } else { DataType::String };
    MapProto {
        name: Some(name.to_owned()),
        key_type: Some(key_type as i32),
        keys,
        string_keys,
        values: Some(sequence_proto("", entries.values())),
    }
}

#[cfg(test)]
mod tests;
