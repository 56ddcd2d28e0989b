//! Attributes of nodes, resolved and checked.
//!
//! In a function body an attribute may stand for one of the call's: it is looked up there, and left out where the call
//! leaves it out. Graphs are set apart, for they become regions.

use std::collections::{BTreeMap, HashMap};

use prost::bytes::Bytes;

use super::super::error::{MissingKind, OnnxError, Report};
use super::super::proto::{AttributeProto, AttributeType, GraphProto, NodeProto};
use super::Importer;
use super::scope::{Binding, Constants};
use crate::op::AttrValue;
use crate::origin::Origin;
use crate::tensor::Tensor;

/// The attributes that a function was called with, or their defaults.
pub(super) type Arguments<'a> = HashMap<&'a str, &'a AttributeProto>;

/// The attributes of a node.
#[derive(Debug, Default)]
pub(super) struct Attributes<'a> {
    pub(super) values: BTreeMap<String, AttrValue>,
    pub(super) graphs: BTreeMap<&'a str, &'a GraphProto>,
}

/// The attributes of a node by name, those that refer to a call's replaced by them.
pub(super) fn resolve<'a>(
    node: &'a NodeProto,
    arguments: Option<&Arguments<'a>>,
) -> Result<BTreeMap<&'a str, &'a AttributeProto>, OnnxError> {
    let mut resolved = BTreeMap::new();
    for attribute in &node.attribute {
        let value = match (attribute.ref_attr_name(), arguments) {
            ("", _) => Some(attribute),
            (reference, Some(arguments)) => arguments.get(reference).copied(),
            (reference, None) => {
                let what = format!("refers to `{reference}` of a function, but is in none");
                return Err(OnnxError::invalid(place(attribute.name()), what));
            }
        };
        if let Some(value) = value
            && resolved.insert(attribute.name(), value).is_some()
        {
            return Err(OnnxError::invalid(place(attribute.name()), "is given twice"));
        }
    }
    Ok(resolved)
}

fn place(attribute: &str) -> String {
    format!("attribute `{attribute}`")
}

/// The kind of an attribute; files of IR version 1 leave it to the field that is filled.
pub(super) fn kind(a: &AttributeProto) -> Result<AttributeType, OnnxError> {
    let stated = a.r#type.unwrap_or(0);
    match AttributeType::try_from(stated) {
        Ok(AttributeType::Undefined) => {}
        Ok(kind) => return Ok(kind),
        Err(_) => return Err(OnnxError::invalid(place(a.name()), format!("{stated} is no kind of attribute"))),
    }
    let filled = [
        (a.f.is_some(), AttributeType::Float),
        (a.i.is_some(), AttributeType::Int),
        (a.s.is_some(), AttributeType::String),
        (a.t.is_some(), AttributeType::Tensor),
        (a.g.is_some(), AttributeType::Graph),
        (!a.floats.is_empty(), AttributeType::Floats),
        (!a.ints.is_empty(), AttributeType::Ints),
        (!a.strings.is_empty(), AttributeType::Strings),
        (!a.tensors.is_empty(), AttributeType::Tensors),
    ];
    let mut filled = filled.iter().filter(|(is, _)| *is);
    match (filled.next(), filled.next()) {
        (Some((_, kind)), None) => Ok(*kind),
        _ => Err(OnnxError::invalid(place(a.name()), "has no kind, and not one value")),
    }
}

impl<'a> Importer<'a> {
    /// The attributes of a node whose operator is not `Constant`.
    pub(super) fn attributes(
        &mut self,
        node: &'a NodeProto,
        arguments: Option<&Arguments<'a>>,
        user: &str,
    ) -> Result<Attributes<'a>, OnnxError> {
        let mut attributes = Attributes::default();
        for (name, attribute) in resolve(node, arguments)? {
            if kind(attribute)? == AttributeType::Graph {
                let graph = attribute.g.as_ref();
                let graph = graph.ok_or_else(|| OnnxError::invalid(place(name), "holds no graph"))?;
                attributes.graphs.insert(name, graph);
                continue;
            }
            let value = self.attribute(attribute, user).map_err(|e| e.inside(|| place(name)));
            if let Some(value) = self.collect(user, value.map(Some), None)? {
                attributes.values.insert(name.to_owned(), value);
            }
        }
        Ok(attributes)
    }

    fn attribute(&mut self, a: &'a AttributeProto, user: &str) -> Result<AttrValue, OnnxError> {
        let list = |items: Vec<AttrValue>| Ok(AttrValue::List(items));
        let no_value = || OnnxError::invalid("value", "is missing");
        match kind(a)? {
            AttributeType::Float => Ok(AttrValue::Float(f64::from(a.f()))),
            AttributeType::Int => Ok(AttrValue::Int(a.i())),
            AttributeType::String => text(a.s.as_ref().unwrap_or(&Bytes::new())).map(AttrValue::Str),
            AttributeType::Floats => list(a.floats.iter().map(|&f| AttrValue::Float(f64::from(f))).collect()),
            AttributeType::Ints => list(a.ints.iter().map(|&i| AttrValue::Int(i)).collect()),
            AttributeType::Strings => {
                list(a.strings.iter().map(|s| text(s).map(AttrValue::Str)).collect::<Result<_, _>>()?)
            }
            AttributeType::Tensor => self.constants.tensor(a.t.as_ref().ok_or_else(no_value)?).map(AttrValue::Tensor),
            AttributeType::SparseTensor => {
                let tensor = a.sparse_tensor.as_ref().ok_or_else(no_value)?;
                self.constants.sparse_tensor(tensor).map(AttrValue::Tensor)
            }
            AttributeType::Tensors => {
                let tensors = a.tensors.iter().map(|t| self.constants.tensor(t).map(AttrValue::Tensor));
                list(tensors.collect::<Result<_, _>>()?)
            }
            AttributeType::TypeProto => {
                self.symbols.value_type(a.tp.as_ref().ok_or_else(no_value)?, user).map(AttrValue::Type)
            }
            other @ (AttributeType::Undefined
            | AttributeType::Graph
            | AttributeType::Graphs
            | AttributeType::SparseTensors
            | AttributeType::TypeProtos) => {
                let mut report = Report::default();
                report.add(MissingKind::Attribute, "", 0, &format!("kind {other:?}"), user);
                Err(OnnxError::Unsupported(report))
            }
        }
    }

    /// What a `Constant` node says, bound to its output.
    pub(super) fn constant(
        &mut self,
        node: &'a NodeProto,
        arguments: Option<&Arguments<'a>>,
        origin: Origin,
    ) -> Result<Binding, OnnxError> {
        let attributes = resolve(node, arguments)?;
        let mut attributes = attributes.into_iter();
        let (Some((attribute, a)), None) = (attributes.next(), attributes.next()) else {
            return Err(OnnxError::invalid("attributes", "a constant has one"));
        };
        let name = node.output.first().map_or("", String::as_str);
        let no_value = || OnnxError::invalid(place(attribute), "is missing");
        let misfit = |e: crate::tensor::TensorError| OnnxError::invalid(place(attribute), e.to_string());
        let tensor = match (attribute, kind(a)?) {
            ("value", AttributeType::Tensor) => {
                return self.constants.of_proto(a.t.as_ref().ok_or_else(no_value)?, name, origin);
            }
            ("value" | "sparse_value", AttributeType::SparseTensor) => {
                self.constants.sparse_tensor(a.sparse_tensor.as_ref().ok_or_else(no_value)?)?
            }
            ("value_float", AttributeType::Float) => Tensor::f32(&[], &[a.f()]).map_err(misfit)?,
            ("value_floats", AttributeType::Floats) => Tensor::f32(&[a.floats.len()], &a.floats).map_err(misfit)?,
            ("value_int", AttributeType::Int) => Tensor::i64(&[], &[a.i()]).map_err(misfit)?,
            ("value_ints", AttributeType::Ints) => Tensor::i64(&[a.ints.len()], &a.ints).map_err(misfit)?,
            ("value_string", AttributeType::String) => {
                let text = text(a.s.as_ref().unwrap_or(&Bytes::new()))?;
                Tensor::from_strings(&[], vec![text]).map_err(misfit)?
            }
            ("value_strings", AttributeType::Strings) => {
                let texts = a.strings.iter().map(text).collect::<Result<Vec<_>, _>>()?;
                Tensor::from_strings(&[texts.len()], texts).map_err(misfit)?
            }
            (_, kind) => {
                let what = format!("of kind {kind:?} is no attribute of a constant");
                return Err(OnnxError::invalid(place(attribute), what));
            }
        };
        Ok(Constants::of_tensor(tensor, name, origin))
    }
}

fn text(bytes: &Bytes) -> Result<String, OnnxError> {
    let text = std::str::from_utf8(bytes).map_err(|_| OnnxError::invalid("text", "is not UTF-8"))?;
    Ok(text.to_owned())
}
