//! Types, attributes and names as ONNX writes them.

use std::collections::HashSet;

use super::super::proto::{
    AttributeProto, AttributeType, Dimension, DimensionValue, GraphProto, MapTypeProto, OptionalTypeProto,
    SequenceTypeProto, TensorShapeProto, TensorTypeProto, TypeProto, TypeValue, ValueInfoProto,
};
use super::super::tensor::data_type;
use crate::types::{DType, Dim, Symbol, TensorType, ValueType};

/// A named type. Extents over `named` symbols get a name, others stay open: runtimes take extents of one name to be
/// equal throughout a run.
pub(super) fn value_info(name: &str, ty: &ValueType, named: &HashSet<Symbol>) -> ValueInfoProto {
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(value_type(ty, named)), ..ValueInfoProto::default() }
}

fn value_type(ty: &ValueType, named: &HashSet<Symbol>) -> TypeProto {
    let inner = |e: &ValueType| Some(Box::new(value_type(e, named)));
    let value = match ty {
        ValueType::Tensor(t) => Some(TypeValue::TensorType(tensor_type(t, named))),
        ValueType::Sequence(e) => Some(TypeValue::SequenceType(Box::new(SequenceTypeProto { elem_type: inner(e) }))),
        ValueType::Optional(e) => Some(TypeValue::OptionalType(Box::new(OptionalTypeProto { elem_type: inner(e) }))),
        ValueType::Map(k, e) => Some(TypeValue::MapType(Box::new(MapTypeProto {
            key_type: Some(data_type(*k) as i32),
            value_type: inner(e),
        }))),
        ValueType::Unknown => None,
    };
    TypeProto { value, denotation: None }
}

fn tensor_type(t: &TensorType, named: &HashSet<Symbol>) -> TensorTypeProto {
    let dim = |d: &Dim| {
        let value = match d {
            Dim::Known(v) => Some(DimensionValue::DimValue(*v)),
            Dim::Expr(_) => {
                let mut all = true;
                d.visit_symbols(&mut |s| all &= named.contains(s));
                all.then(|| DimensionValue::DimParam(d.to_string()))
            }
        };
        Dimension { value, denotation: None }
    };
    let shape = TensorShapeProto { dim: t.dims.iter().map(dim).collect() };
    TensorTypeProto { elem_type: Some(data_type(t.dtype) as i32), shape: Some(shape) }
}

/// The opset in which an element type appeared.
pub(super) fn since(dtype: DType) -> i64 {
    match dtype {
        DType::I2 | DType::U2 => 25,
        DType::F8E8M0 => 24,
        DType::F4E2M1 => 23,
        DType::I4 | DType::U4 => 21,
        DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F8E5M2 | DType::F8E5M2FNUZ => 19,
        DType::F32
        | DType::F64
        | DType::F16
        | DType::BF16
        | DType::I8
        | DType::I16
        | DType::I32
        | DType::I64
        | DType::U8
        | DType::U16
        | DType::U32
        | DType::U64
        | DType::Bool
        | DType::Str => 1,
    }
}

fn attribute(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto { name: Some(name.to_owned()), r#type: Some(kind as i32), ..AttributeProto::default() }
}

/// An attribute of kind INT.
pub(super) fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { i: Some(value), ..attribute(name, AttributeType::Int) }
}

/// An attribute of kind INTS.
pub(super) fn ints(name: &str, values: impl IntoIterator<Item = usize>) -> AttributeProto {
    AttributeProto { ints: values.into_iter().map(index).collect(), ..attribute(name, AttributeType::Ints) }
}

/// An attribute of kind STRING.
pub(super) fn text(name: &str, value: &str) -> AttributeProto {
    AttributeProto { s: Some(value.to_owned().into()), ..attribute(name, AttributeType::String) }
}

/// An attribute of kind GRAPH.
pub(super) fn graph(name: &str, value: GraphProto) -> AttributeProto {
    AttributeProto { g: Some(value), ..attribute(name, AttributeType::Graph) }
}

/// An attribute of kind TENSOR.
pub(super) fn tensor(name: &str, value: super::super::proto::TensorProto) -> AttributeProto {
    AttributeProto { t: Some(value), ..attribute(name, AttributeType::Tensor) }
}

/// A count or axis as ONNX holds it.
pub(super) fn index(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Names that are taken.
#[derive(Debug, Default)]
pub(super) struct Names {
    taken: HashSet<String>,
    copies: std::collections::HashMap<String, usize>,
}

impl Names {
    /// Takes `base`, or one like it.
    pub(super) fn fresh(&mut self, base: &str) -> String {
        let base = if base.is_empty() { "value" } else { base };
        let mut name = base.to_owned();
        while !self.taken.insert(name.clone()) {
            let copy = self.copies.entry(base.to_owned()).or_insert(1);
            *copy += 1;
            name = format!("{base}__{copy}");
        }
        name
    }
}
