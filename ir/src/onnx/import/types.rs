//! Declared types.
//!
//! A named dim is one symbol wherever the model uses the name; a dim without a name gets a fresh one. Names that .frit
//! text can't hold are changed, and stay distinct.

use std::collections::{HashMap, HashSet};

use super::super::error::{MissingKind, OnnxError, Report};
use super::super::proto::{DimensionValue, TensorTypeProto, TypeProto, TypeValue};
use super::super::tensor::{RANK_LIMIT, element};
use crate::types::{DType, Dim, Symbol, TensorType, ValueType};

/// The symbols of a model.
#[derive(Debug, Default)]
pub(super) struct Symbols {
    by_name: HashMap<String, Symbol>,
    taken: HashSet<Symbol>,
    copies: HashMap<Symbol, usize>,
}

impl Symbols {
    /// The symbol for a name of the model.
    fn named(&mut self, name: &str) -> Symbol {
        if let Some(symbol) = self.by_name.get(name) {
            return symbol.clone();
        }
        let symbol = self.fresh(name);
        self.by_name.insert(name.to_owned(), symbol.clone());
        symbol
    }

    /// A symbol that nothing else has, called `base` or like it.
    fn fresh(&mut self, base: &str) -> Symbol {
        let base = Symbol::new(base);
        let mut symbol = base.clone();
        while !self.taken.insert(symbol.clone()) {
            let copy = self.copies.entry(base.clone()).or_insert(1);
            *copy += 1;
            symbol = Symbol::new(&format!("{}_{copy}", base.name()));
        }
        symbol
    }

    /// The type that a message describes, of value `user`. A tensor of unknown rank has an unknown type.
    pub(super) fn value_type(&mut self, t: &TypeProto, user: &str) -> Result<ValueType, OnnxError> {
        let unsupported = |what: &str| {
            let mut report = Report::default();
            report.add(MissingKind::Type, "", 0, what, user);
            Err(OnnxError::Unsupported(report))
        };
        let mut inner = |t: &Option<Box<TypeProto>>| match t {
            Some(t) => self.value_type(t, user).map(Box::new),
            None => Ok(Box::new(ValueType::Unknown)),
        };
        match &t.value {
            None => Ok(ValueType::Unknown),
            Some(TypeValue::TensorType(t)) => self.tensor_type(t, user),
            Some(TypeValue::SequenceType(s)) => Ok(ValueType::Sequence(inner(&s.elem_type)?)),
            Some(TypeValue::OptionalType(o)) => Ok(ValueType::Optional(inner(&o.elem_type)?)),
            Some(TypeValue::MapType(m)) => {
                let key = element(m.key_type(), "key type")?;
                if key.complex || !(key.dtype.is_int() || key.dtype == DType::Str) {
                    return Err(OnnxError::invalid("key type", format!("{} can't be a key", key.dtype)));
                }
                Ok(ValueType::Map(key.dtype, inner(&m.value_type)?))
            }
            Some(TypeValue::SparseTensorType(_)) => unsupported("sparse tensor"),
            Some(TypeValue::OpaqueType(o)) => unsupported(&format!("opaque {}.{}", o.domain(), o.name())),
        }
    }

    fn tensor_type(&mut self, t: &TensorTypeProto, user: &str) -> Result<ValueType, OnnxError> {
        // Type inference of exporters leaves the element type of what it could not follow at 0.
        let (Some(shape), true) = (&t.shape, t.elem_type() != 0) else { return Ok(ValueType::Unknown) };
        let element = element(t.elem_type(), user)?;
        if shape.dim.len() >= RANK_LIMIT {
            return Err(OnnxError::limit("shape", format!("{} dims; {RANK_LIMIT} are allowed", shape.dim.len())));
        }
        let mut dims = Vec::with_capacity(shape.dim.len() + 1);
        for (axis, dim) in shape.dim.iter().enumerate() {
            dims.push(match &dim.value {
                Some(DimensionValue::DimValue(v)) if *v < 0 => {
                    return Err(OnnxError::invalid(format!("dim {axis}"), format!("{v} is negative")));
                }
                Some(DimensionValue::DimValue(v)) => Dim::Known(*v),
                Some(DimensionValue::DimParam(name)) if !name.is_empty() => self.named(name).into(),
                Some(DimensionValue::DimParam(_)) | None => self.fresh(&format!("{user}_dim{axis}")).into(),
            });
        }
        if element.complex {
            dims.push(Dim::Known(2));
        }
        let mut known = dims.iter().filter_map(Dim::known).filter(|d| *d > 0);
        let size = i64::try_from(element.dtype.size().max(1)).unwrap_or(i64::MAX);
        if known.try_fold(size, |bytes, d| bytes.checked_mul(d)).is_none() {
            return Err(OnnxError::limit("shape", "makes 2^63 bytes or more"));
        }
        Ok(TensorType::new(element.dtype, dims).into())
    }
}
