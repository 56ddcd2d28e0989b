//! From an expanded function to nodes.
//!
//! A [`Writer`] holds what a model is made of so far; a [`Frame`] what is known inside one function or region: the name
//! of each value, where each symbol's extent can be read, which extents are computed already. Names are unique in the
//! whole graph, subgraphs included, so a region reads the values around it by their names.
//!
//! Broadcasts and constants are written where they are first needed and not before: an elementwise op takes what was
//! broadcast as it was, wherever ONNX's own broadcasting gives the same ([`super::spread`]).

use std::collections::{HashMap, HashSet};

use indexmap::IndexSet;

use super::super::opsets::{self, Version};
use super::super::proto::{AttributeProto, NodeProto, StringStringEntryProto, TensorProto};
use super::super::tensor::to_proto;
use super::control::Functions;
use super::error::Refusals;
use super::types::{self, Names};
use super::{ExportError, ExportOptions};
use crate::graph::{Function, Node, NodeId, Value};
use crate::module::Module;
use crate::op::{AttrValue, Op};
use crate::origin::Origin;
use crate::tensor::Tensor;
use crate::types::{DType, Dim, Symbol, TensorType, ValueType};

/// What a value is so far.
#[derive(Clone, Debug)]
pub(super) enum Held {
    /// A name in the graph.
    Is(String),
    /// A constant that is not written yet.
    Constant(Tensor),
    /// Something smaller, broadcast.
    Spread(Spread),
    /// A view of windows that only pools take.
    Pooled,
}

/// A broadcast that is not written.
#[derive(Clone, Debug)]
pub(super) struct Spread {
    /// What is repeated.
    pub(super) source: Box<Held>,
    /// Its type.
    pub(super) from: TensorType,
    /// Result axis of each of its axes.
    pub(super) axes: Vec<usize>,
}

/// Where extents come from.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// A tensor and an axis of it that has the symbol's extent.
    pub(super) sources: HashMap<Symbol, (String, usize)>,
    /// Extents that are computed: i64[1].
    pub(super) extents: HashMap<Dim, String>,
    /// Lists of extents that are computed: i64[n].
    pub(super) lists: HashMap<Vec<Dim>, String>,
    /// A tensor of these extents.
    pub(super) shapes: HashMap<Vec<Dim>, String>,
}

/// One function or region at work.
pub(super) struct Frame<'f> {
    pub(super) f: &'f Function,
    pub(super) values: HashMap<Value, Held>,
    pub(super) known: Known,
    /// Names that values must have, being outputs.
    pub(super) wanted: HashMap<Value, String>,
    /// Symbols that types may name.
    pub(super) named: HashSet<Symbol>,
    /// Broadcasts brought to the rank of their results, by value.
    pub(super) aligned: HashMap<Value, String>,
    /// Origin of the op at work.
    pub(super) at: Origin,
}

impl<'f> Frame<'f> {
    pub(super) fn new(f: &'f Function, known: Known, named: HashSet<Symbol>) -> Self {
        let (values, wanted, aligned) = (HashMap::new(), HashMap::new(), HashMap::new());
        Frame { f, values, known, wanted, named, aligned, at: Origin::default() }
    }

    /// Binds a value to a name; its extents can be read there from now on.
    pub(super) fn bind(&mut self, value: Value, name: &str) {
        self.values.insert(value, Held::Is(name.to_owned()));
        let ValueType::Tensor(t) = self.f.ty(value) else { return };
        for (axis, dim) in t.dims.iter().enumerate() {
            if let Some(symbol) = dim.as_symbol() {
                self.known.sources.entry(symbol.clone()).or_insert_with(|| (name.to_owned(), axis));
            }
        }
        if t.dims.iter().any(|d| d.known().is_none()) {
            self.known.shapes.entry(t.dims.clone()).or_insert_with(|| name.to_owned());
        }
    }

    /// The tensor type of a value.
    pub(super) fn tensor(&self, value: Value) -> Result<&'f TensorType, ExportError> {
        self.f.ty(value).tensor().ok_or_else(|| internal("a value that must be a tensor is not"))
    }
}

pub(super) fn internal(what: impl Into<String>) -> ExportError {
    ExportError::Internal { what: what.into() }
}

/// One graph with its subgraphs, or one function.
#[derive(Debug, Default)]
pub(super) struct Body {
    pub(super) nodes: Vec<NodeProto>,
    pub(super) names: Names,
    node_names: Names,
    constants: HashMap<(DType, Vec<usize>, Vec<u8>), String>,
    /// Parameters by name in the store: their names here.
    pub(super) params: HashMap<String, String>,
    /// Constants and parameters, in the order of their first use.
    pub(super) stored: Vec<TensorProto>,
    /// Names say what is done, not where it came from: equal bodies look equal.
    pub(super) anonymous: bool,
}

/// A model being written.
pub(super) struct Writer<'m> {
    pub(super) module: &'m Module,
    pub(super) options: &'m ExportOptions,
    /// Version of the default domain.
    pub(super) opset: i64,
    /// The version that everything met so far needs.
    pub(super) needed: i64,
    pub(super) refused: Refusals,
    pub(super) body: Body,
    pub(super) functions: Functions,
}

impl Body {
    /// A body whose names say what is done.
    pub(super) fn anonymous(anonymous: bool) -> Self {
        Body { anonymous, ..Body::default() }
    }
}

impl<'m> Writer<'m> {
    pub(super) fn new(module: &'m Module, options: &'m ExportOptions, opset: i64) -> Self {
        let (refused, body, functions) = (Refusals::default(), Body::default(), Functions::default());
        Writer { module, options, opset, needed: opset, refused, body, functions }
    }

    // ---- nodes ----

    /// What nodes and results of the op at work are named after.
    fn base<'a>(&self, frame: &'a Frame<'_>) -> &'a str {
        if self.body.anonymous { "op" } else { frame.at.name.as_deref().unwrap_or("op") }
    }

    pub(super) fn refuse(&mut self, frame: &Frame<'_>, what: impl Into<String>) {
        self.refused.add(what, frame.at.to_string());
    }

    /// A helper node with one result, named after the op at work.
    pub(super) fn emit(
        &mut self,
        frame: &Frame<'_>,
        op_type: &str,
        inputs: &[&str],
        attributes: Vec<AttributeProto>,
    ) -> String {
        let base = self.base(frame);
        let base = if self.body.anonymous { base.to_owned() } else { format!("{base}/{op_type}") };
        let output = self.body.names.fresh(&base);
        self.push(frame, &base, "", op_type, inputs, vec![output.clone()], attributes);
        output
    }

    /// The node that gives the results of the op at work.
    pub(super) fn finish(
        &mut self,
        frame: &mut Frame<'_>,
        id: NodeId,
        op_type: &str,
        inputs: &[&str],
        attributes: Vec<AttributeProto>,
    ) {
        self.finish_in(frame, id, "", op_type, inputs, attributes);
    }

    /// [`Writer::finish`] with an operator of a domain.
    pub(super) fn finish_in(
        &mut self,
        frame: &mut Frame<'_>,
        id: NodeId,
        domain: &str,
        op_type: &str,
        inputs: &[&str],
        attributes: Vec<AttributeProto>,
    ) {
        let outputs: Vec<String> =
            (0..frame.f.node(id).results().len()).map(|r| self.result(frame, Value { node: id, result: r })).collect();
        let base = self.base(frame).to_owned();
        self.push(frame, &base, domain, op_type, inputs, outputs.clone(), attributes);
        for (result, name) in outputs.iter().enumerate() {
            frame.bind(Value { node: id, result }, name);
        }
    }

    /// A node whose only result has a name already.
    pub(super) fn named(
        &mut self,
        frame: &Frame<'_>,
        op_type: &str,
        inputs: &[&str],
        output: &str,
        attributes: Vec<AttributeProto>,
    ) {
        let base = self.base(frame).to_owned();
        self.push(frame, &base, "", op_type, inputs, vec![output.to_owned()], attributes);
    }

    /// A node of two results, the first of a given name; gives the second's.
    pub(super) fn emit_two(
        &mut self,
        frame: &Frame<'_>,
        op_type: &str,
        inputs: &[&str],
        first: &str,
        attributes: Vec<AttributeProto>,
    ) -> String {
        let base = self.base(frame).to_owned();
        let second = self.body.names.fresh(&format!("{base}/{op_type}"));
        self.push(frame, &base, "", op_type, inputs, vec![first.to_owned(), second.clone()], attributes);
        second
    }

    /// The name that a result gets.
    pub(super) fn result(&mut self, frame: &mut Frame<'_>, value: Value) -> String {
        if let Some(name) = frame.wanted.remove(&value) {
            return name;
        }
        let base = self.base(frame).to_owned();
        match value.result {
            0 => self.body.names.fresh(&base),
            r => self.body.names.fresh(&format!("{base}.{r}")),
        }
    }

    fn push(
        &mut self,
        frame: &Frame<'_>,
        base: &str,
        domain: &str,
        op_type: &str,
        inputs: &[&str],
        outputs: Vec<String>,
        attributes: Vec<AttributeProto>,
    ) {
        if domain.is_empty()
            && let Version::Later(version) = opsets::version("", op_type, self.opset)
        {
            self.needed = self.needed.max(version);
            self.refuse(frame, format!("{op_type} (new in opset {version})"));
        }
        let trace = frame.at.source.as_deref().filter(|_| !self.body.anonymous).and_then(stack_trace);
        self.body.nodes.push(NodeProto {
            input: inputs.iter().map(|&i| i.to_owned()).collect(),
            output: outputs,
            name: Some(self.body.node_names.fresh(base)),
            op_type: Some(op_type.to_owned()),
            domain: (!domain.is_empty()).then(|| domain.to_owned()),
            attribute: attributes,
            metadata_props: trace.into_iter().collect(),
            ..NodeProto::default()
        });
    }

    // ---- constants ----

    /// A constant; equal ones are stored once.
    pub(super) fn constant(&mut self, frame: &Frame<'_>, value: &Tensor) -> String {
        let key = match value.strings() {
            None => (value.dtype(), value.shape().to_vec(), value.bytes().to_vec()),
            Some(texts) => (value.dtype(), value.shape().to_vec(), texts.join("\0").into_bytes()),
        };
        if let Some(name) = self.body.constants.get(&key) {
            return name.clone();
        }
        self.check_type(frame, value.dtype());
        let base = if self.body.anonymous { "constant" } else { frame.at.name.as_deref().unwrap_or("constant") };
        let name = self.body.names.fresh(base);
        self.body.stored.push(to_proto(&name, value));
        self.body.constants.insert(key, name.clone());
        name
    }

    /// Integers as i64[n].
    pub(super) fn list(&mut self, frame: &Frame<'_>, values: &[i64]) -> Result<String, ExportError> {
        let tensor = Tensor::i64(&[values.len()], values).map_err(|e| internal(e.to_string()))?;
        Ok(self.constant(frame, &tensor))
    }

    /// An i64 scalar.
    pub(super) fn number(&mut self, frame: &Frame<'_>, value: i64) -> Result<String, ExportError> {
        let tensor = Tensor::i64(&[], &[value]).map_err(|e| internal(e.to_string()))?;
        Ok(self.constant(frame, &tensor))
    }

    /// Whether the opset has an element type; else that is reported.
    pub(super) fn check_type(&mut self, frame: &Frame<'_>, dtype: DType) {
        let since = types::since(dtype);
        if since > self.opset {
            self.needed = self.needed.max(since);
            self.refuse(frame, format!("element type {dtype} (new in opset {since})"));
        }
    }

    // ---- values ----

    /// The name of a value, which is written now if it is not yet.
    pub(super) fn name(&mut self, frame: &mut Frame<'_>, value: Value) -> Result<String, ExportError> {
        let held = frame.values.get(&value).cloned().ok_or_else(|| internal("a value is used before it is there"))?;
        let name = match held {
            Held::Is(name) => return Ok(name),
            Held::Constant(tensor) => self.constant(frame, &tensor),
            Held::Spread(spread) => self.materialized(frame, value, &spread)?,
            Held::Pooled => return Err(internal("a view of windows is used by more than pools")),
        };
        frame.bind(value, &name);
        Ok(name)
    }

    /// Names of several values.
    pub(super) fn all(&mut self, frame: &mut Frame<'_>, values: &[Value]) -> Result<Vec<String>, ExportError> {
        values.iter().map(|v| self.name(frame, *v)).collect()
    }

    // ---- functions ----

    /// Writes every op of the frame's function. An op whose extents another op has yet to fix waits for it.
    pub(super) fn ops(&mut self, frame: &mut Frame<'_>) -> Result<(), ExportError> {
        let f = frame.f;
        let mut waiting = f.toposort().ok_or_else(|| internal(format!("function `{}` has a cycle", f.name)))?;
        waiting.retain(|id| !matches!(f.node(*id).op, Op::Input { .. }));
        while !waiting.is_empty() {
            let before = waiting.len();
            let mut later = Vec::new();
            for id in waiting {
                let node = f.node(id);
                let there = node.operands().iter().all(|v| frame.values.contains_key(v));
                let bound = |s: &Symbol| frame.known.reads(s);
                if !there || !needed_symbols(&node.op, node.regions()).iter().all(bound) {
                    later.push(id);
                    continue;
                }
                self.op(frame, id)?;
            }
            if later.len() == before {
                return self.stuck(frame, &later);
            }
            waiting = later;
        }
        Ok(())
    }

    fn stuck(&mut self, frame: &mut Frame<'_>, waiting: &[NodeId]) -> Result<(), ExportError> {
        for &id in waiting {
            let node = frame.f.node(id);
            frame.at = node.origin.clone();
            for symbol in needed_symbols(&node.op, node.regions()) {
                if !frame.known.reads(&symbol) {
                    self.refuse(frame, format!("extent {symbol}, which no tensor has"));
                }
            }
        }
        if self.refused.is_empty() { Err(internal("ops wait for one another")) } else { Err(self.unsupported()) }
    }

    /// Everything refused so far, as the error.
    pub(super) fn unsupported(&mut self) -> ExportError {
        ExportError::Unsupported { opset: self.opset, refused: std::mem::take(&mut self.refused) }
    }

    fn op(&mut self, frame: &mut Frame<'_>, id: NodeId) -> Result<(), ExportError> {
        let node = frame.f.node(id);
        frame.at = node.origin.clone();
        for ty in node.results() {
            if let ValueType::Tensor(t) = ty {
                self.check_type(frame, t.dtype);
            }
        }
        let value = Value { node: id, result: 0 };
        match &node.op {
            Op::Constant { value: tensor } => {
                frame.values.insert(value, Held::Constant(tensor.clone()));
            }
            Op::Param { name, .. } => {
                let name = self.param(frame, name)?;
                frame.bind(value, &name);
            }
            _ => self.write(frame, id)?,
        }
        Ok(())
    }

    /// Names for the outputs of a region, each made by a node of its own graph, and none twice.
    pub(super) fn region_outputs(&mut self, frame: &mut Frame<'_>) -> Result<Vec<String>, ExportError> {
        let mut names: Vec<String> = Vec::with_capacity(frame.f.outputs().len());
        for output in frame.f.outputs() {
            let held = self.name(frame, output.value)?;
            let made = self.body.nodes.iter().any(|n| n.output.contains(&held));
            if made && !names.contains(&held) {
                names.push(held);
                continue;
            }
            frame.at = frame.f.node(output.value.node).origin.clone();
            names.push(self.emit(frame, "Identity", &[&held], Vec::new()));
        }
        Ok(names)
    }

    /// A copy of a value under a given name.
    pub(super) fn copy(&mut self, frame: &Frame<'_>, from: &str, to: &str) {
        self.push(frame, to, "", "Identity", &[from], vec![to.to_owned()], Vec::new());
    }
}

impl Known {
    /// Whether a symbol's extent can be read.
    pub(super) fn reads(&self, symbol: &Symbol) -> bool {
        self.sources.contains_key(symbol) || self.extents.contains_key(&Dim::from(symbol.clone()))
    }
}

/// The symbols whose extents must be there before an op can be written.
pub(super) fn needed_symbols(op: &Op, regions: &[Function]) -> IndexSet<Symbol> {
    let mut needed = IndexSet::new();
    // These make the symbols that they name; a composite's attributes only tell what it is.
    let own = !matches!(op, Op::Compact { .. } | Op::Loop { .. } | Op::SequenceConstruct { .. } | Op::Composite { .. });
    if own {
        op.attributes().iter().for_each(|(_, value)| symbols_of(value, &mut |s| _ = needed.insert(s.clone())));
    }
    for region in regions {
        let (mut inside, mut made) = (IndexSet::new(), HashSet::new());
        for id in region.nodes() {
            let node = region.node(id);
            made.extend(made_symbols(node).cloned());
            inside.extend(needed_symbols(&node.op, node.regions()));
        }
        needed.extend(inside.into_iter().filter(|s| !made.contains(s)));
    }
    needed
}

/// The symbols whose extents the results of an op are the first to have.
pub(super) fn made_symbols(node: &Node) -> impl Iterator<Item = &Symbol> {
    let makes = matches!(
        node.op,
        Op::Input { .. }
            | Op::Compact { .. }
            | Op::If {}
            | Op::Loop { .. }
            | Op::Call { .. }
            | Op::Composite { .. }
            | Op::SequenceAt {}
    );
    let results = if makes { node.results() } else { &[] };
    results.iter().filter_map(ValueType::tensor).flat_map(|t| &t.dims).filter_map(Dim::as_symbol)
}

fn symbols_of(value: &AttrValue, each: &mut dyn FnMut(&Symbol)) {
    match value {
        AttrValue::Dim(d) => d.visit_symbols(each),
        AttrValue::List(items) => items.iter().for_each(|v| symbols_of(v, each)),
        AttrValue::Dict(items) => items.values().for_each(|v| symbols_of(v, each)),
        AttrValue::Int(_)
        | AttrValue::Float(_)
        | AttrValue::Bool(_)
        | AttrValue::Str(_)
        | AttrValue::Word(_)
        | AttrValue::DType(_)
        | AttrValue::Type(_)
        | AttrValue::Tensor(_) => {}
    }
}

/// `file:line in function` as the importer reads it.
fn stack_trace(source: &str) -> Option<StringStringEntryProto> {
    let (place, function) = source.rsplit_once(" in ")?;
    let (file, line) = place.rsplit_once(':')?;
    Some(StringStringEntryProto {
        key: Some("pkg.torch.onnx.stack_trace".to_owned()),
        value: Some(format!("File \"{file}\", line {line}, in {function}")),
    })
}
