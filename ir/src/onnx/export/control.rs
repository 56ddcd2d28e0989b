//! Branches, loops, calls and composites.
//!
//! Regions become subgraphs that read what they capture by its name. A composite becomes a model-local function of its
//! body, a called function of the module too, unless [`ExportOptions::functions`](super::ExportOptions::functions) says
//! no: then their ops stand in the caller. A function of ONNX sees nothing but its inputs, so parameters, and extents
//! that no tensor among them has, are inputs as well.

use std::collections::{HashMap, HashSet};

use indexmap::IndexSet;

use super::super::proto::{FunctionProto, GraphProto, OperatorSetIdProto};
use super::super::tensor::to_proto;
use super::types::{self, value_info};
use super::writer::{Body, Frame, Held, Known, Writer, internal, made_symbols, needed_symbols};
use super::{DOMAIN, ExportError};
use crate::graph::{Function, NodeId, Value};
use crate::module::Module;
use crate::op::Op;
use crate::types::{Dim, Symbol};

type Written = Result<(), ExportError>;

/// Model-local functions so far.
#[derive(Debug, Default)]
pub(super) struct Functions {
    /// In the order of their first call.
    pub(super) written: Vec<FunctionProto>,
    names: types::Names,
    /// Functions of the module that were called.
    called: HashMap<String, Local>,
}

/// A model-local function, and what it takes beyond its operands.
#[derive(Clone, Debug)]
struct Local {
    name: String,
    params: Vec<String>,
    symbols: Vec<Symbol>,
}

impl Writer<'_> {
    pub(super) fn branch(&mut self, frame: &mut Frame<'_>, id: NodeId) -> Written {
        let f = frame.f;
        let node = f.node(id);
        let ([first, second], Some((condition, captured))) = (node.regions(), node.operands().split_first()) else {
            return Err(internal("`if` takes two regions"));
        };
        let condition = self.name(frame, *condition)?;
        let captured = self.captured(frame, captured)?;
        let mut attributes = Vec::with_capacity(2);
        for (name, region) in [("then_branch", first), ("else_branch", second)] {
            let mut inner = Frame::new(region, frame.known.clone(), frame.named.clone());
            inner.at = frame.at.clone();
            for (value, held) in region.input_values().zip(&captured) {
                hold(&mut inner, value, held);
            }
            let graph = self.subgraph(&mut inner, name, Vec::new())?;
            attributes.push(types::graph(name, graph));
        }
        self.finish(frame, id, "If", &[&condition], attributes);
        Ok(())
    }

    pub(super) fn repeat(&mut self, frame: &mut Frame<'_>, id: NodeId, carried: usize) -> Written {
        let f = frame.f;
        let node = f.node(id);
        let [region] = node.regions() else { return Err(internal("`loop` takes one region")) };
        let own = node.operands().get(..2 + carried).ok_or_else(|| internal("`loop` has too few operands"))?;
        let names = self.all(frame, own)?;
        let captured = self.captured(frame, node.operands().get(2 + carried..).unwrap_or(&[]))?;
        let mut inner = Frame::new(region, frame.known.clone(), frame.named.clone());
        inner.at = frame.at.clone();
        let mut inputs = Vec::with_capacity(own.len());
        for (i, value) in region.input_values().enumerate() {
            if let Some(held) = i.checked_sub(own.len()).and_then(|c| captured.get(c)) {
                hold(&mut inner, value, held);
                continue;
            }
            let name = self.body.names.fresh(input_name(region, value));
            inputs.push(value_info(&name, region.ty(value), &frame.named));
            inner.bind(value, &name);
        }
        let graph = self.subgraph(&mut inner, "body", inputs)?;
        self.finish_with(frame, id, "Loop", &names, vec![types::graph("body", graph)])
    }

    /// What regions capture: names, and constants that they may write as they need them.
    fn captured(&mut self, frame: &mut Frame<'_>, operands: &[Value]) -> Result<Vec<Held>, ExportError> {
        let held = operands.iter().map(|v| match frame.values.get(v) {
            Some(Held::Constant(tensor)) => Ok(Held::Constant(tensor.clone())),
            _ => self.name(frame, *v).map(Held::Is),
        });
        held.collect()
    }

    /// A region whose captured values are bound.
    fn subgraph(
        &mut self,
        frame: &mut Frame<'_>,
        name: &str,
        input: Vec<super::super::proto::ValueInfoProto>,
    ) -> Result<GraphProto, ExportError> {
        let outer = std::mem::take(&mut self.body.nodes);
        let written = self.ops(frame).and_then(|()| self.region_outputs(frame));
        let node = std::mem::replace(&mut self.body.nodes, outer);
        let types = frame.f.outputs().iter().map(|o| frame.f.ty(o.value));
        let output = written?.iter().zip(types).map(|(n, ty)| value_info(n, ty, &frame.named)).collect();
        Ok(GraphProto { node, name: Some(name.to_owned()), input, output, ..GraphProto::default() })
    }

    pub(super) fn composite(&mut self, frame: &mut Frame<'_>, id: NodeId, name: &str) -> Written {
        let f = frame.f;
        let node = f.node(id);
        let [region] = node.regions() else { return Err(internal("`composite` takes one region")) };
        if !self.options.functions {
            return self.inlined(frame, id, region, true);
        }
        let mut local = self.local(frame, name, region, true)?;
        // Equal bodies are one function.
        if let Some((last, others)) = self.functions.written.split_last()
            && let Some(equal) =
                others.iter().find(|o| FunctionProto { name: last.name.clone(), ..(*o).clone() } == *last)
        {
            local.name = equal.name().to_owned();
            self.functions.written.pop();
        }
        self.call_local(frame, id, &local)
    }

    pub(super) fn call(&mut self, frame: &mut Frame<'_>, id: NodeId, name: &str) -> Written {
        let missing = || internal(format!("the module has no function `{name}`"));
        let callee = self.module.functions.get(name).ok_or_else(missing)?;
        if !self.options.functions {
            let callee = super::expand::expand(self.module, callee)?;
            return self.inlined(frame, id, &callee, false);
        }
        let local = match self.functions.called.get(name) {
            Some(local) => local.clone(),
            None => {
                let callee = super::expand::expand(self.module, callee)?;
                let local = self.local(frame, name, &callee, false)?;
                self.functions.called.insert(name.to_owned(), local.clone());
                local
            }
        };
        self.call_local(frame, id, &local)
    }

    fn call_local(&mut self, frame: &mut Frame<'_>, id: NodeId, local: &Local) -> Written {
        let f = frame.f;
        let mut names = self.all(frame, f.node(id).operands())?;
        for param in &local.params {
            names.push(self.param(frame, param)?);
        }
        for symbol in &local.symbols {
            names.push(self.extent(frame, &Dim::from(symbol.clone()))?);
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.finish_in(frame, id, DOMAIN, &local.name, &names, Vec::new());
        Ok(())
    }

    /// The ops of a body in the place of its op. `region`: it sees the symbols around it.
    fn inlined(&mut self, frame: &mut Frame<'_>, id: NodeId, body: &Function, region: bool) -> Written {
        let held = self.captured(frame, frame.f.node(id).operands())?;
        let (known, named) = if region {
            (std::mem::take(&mut frame.known), frame.named.clone())
        } else {
            (Known::default(), HashSet::new())
        };
        let mut inner = Frame::new(body, known, named);
        for (value, held) in body.input_values().zip(&held) {
            hold(&mut inner, value, held);
        }
        for (result, output) in body.outputs().iter().enumerate() {
            if let Some(name) = frame.wanted.get(&Value { node: id, result }) {
                inner.wanted.entry(output.value).or_insert_with(|| name.clone());
            }
        }
        self.ops(&mut inner)?;
        let mut names = Vec::with_capacity(body.outputs().len());
        for output in body.outputs() {
            names.push(self.name(&mut inner, output.value)?);
        }
        if region {
            frame.known = inner.known;
        }
        for (result, name) in names.iter().enumerate() {
            frame.bind(Value { node: id, result }, name);
        }
        Ok(())
    }

    /// Writes a body as a model-local function.
    fn local(&mut self, frame: &Frame<'_>, title: &str, body: &Function, region: bool) -> Result<Local, ExportError> {
        let name = self.functions.names.fresh(title);
        let mut params = IndexSet::new();
        params_of(self.module, body, &mut params);
        let symbols: Vec<Symbol> = if region { open_symbols(body).into_iter().collect() } else { Vec::new() };
        let outer = std::mem::replace(&mut self.body, Body::anonymous(region));
        let mut inner = Frame::new(body, Known::default(), HashSet::new());
        inner.at = frame.at.clone();
        let mut input = Vec::new();
        for value in body.input_values() {
            let taken = self.body.names.fresh(input_name(body, value));
            inner.bind(value, &taken);
            input.push(taken);
        }
        for param in &params {
            let taken = self.body.names.fresh(param);
            self.body.params.insert(param.clone(), taken.clone());
            input.push(taken);
        }
        for symbol in &symbols {
            let taken = self.body.names.fresh(symbol.name());
            inner.known.extents.insert(Dim::from(symbol.clone()), taken.clone());
            input.push(taken);
        }
        let written = self.ops(&mut inner).and_then(|()| self.region_outputs(&mut inner));
        let own = std::mem::replace(&mut self.body, outer);
        let output = written?;
        let constants = own.stored.into_iter().map(constant_node);
        let function = FunctionProto {
            name: Some(name.clone()),
            domain: Some(DOMAIN.to_owned()),
            input,
            output,
            node: constants.chain(own.nodes).collect(),
            opset_import: self.opsets(true),
            ..FunctionProto::default()
        };
        self.functions.written.push(function);
        Ok(Local { name, params: params.into_iter().collect(), symbols })
    }

    /// The domains that nodes are of; `calls`: some may call functions of the model.
    pub(super) fn opsets(&self, calls: bool) -> Vec<OperatorSetIdProto> {
        let import = |domain: &str, version| OperatorSetIdProto { domain: Some(domain.into()), version: Some(version) };
        let mut opsets = vec![import("", self.opset)];
        if calls {
            opsets.push(import(DOMAIN, 1));
        }
        opsets
    }

    /// A parameter under its name, stored at its first use.
    pub(super) fn param(&mut self, frame: &Frame<'_>, name: &str) -> Result<String, ExportError> {
        if let Some(here) = self.body.params.get(name) {
            return Ok(here.clone());
        }
        let missing = || internal(format!("the store has no parameter `{name}`"));
        let value = &self.module.params.get(name).ok_or_else(missing)?.value;
        self.check_type(frame, value.dtype());
        let here = self.body.names.fresh(name);
        self.body.stored.push(to_proto(&here, value));
        self.body.params.insert(name.to_owned(), here.clone());
        Ok(here)
    }
}

fn hold(frame: &mut Frame<'_>, value: Value, held: &Held) {
    match held {
        Held::Is(name) => frame.bind(value, name),
        other => _ = frame.values.insert(value, other.clone()),
    }
}

fn input_name(f: &Function, value: Value) -> &str {
    match f.op(value) {
        Op::Input { name, .. } => name,
        _ => "",
    }
}

/// A constant of a function.
fn constant_node(value: super::super::proto::TensorProto) -> super::super::proto::NodeProto {
    let name = value.name.clone();
    super::super::proto::NodeProto {
        output: name.iter().cloned().collect(),
        name,
        op_type: Some("Constant".to_owned()),
        attribute: vec![types::tensor("value", value)],
        ..Default::default()
    }
}

/// Parameters that a body reads, in regions and through calls.
fn params_of(module: &Module, f: &Function, found: &mut IndexSet<String>) {
    for id in f.nodes() {
        let node = f.node(id);
        match &node.op {
            Op::Param { name, .. } => _ = found.insert(name.clone()),
            Op::Call { function } => {
                if let Some(callee) = module.functions.get(function) {
                    params_of(module, callee, found);
                }
            }
            _ => {}
        }
        node.regions().iter().for_each(|r| params_of(module, r, found));
    }
}

/// Symbols of extents that a body computes with and no tensor inside has.
fn open_symbols(body: &Function) -> IndexSet<Symbol> {
    let (mut needed, mut made) = (IndexSet::new(), HashSet::new());
    for id in body.nodes() {
        needed.extend(needed_symbols(&body.node(id).op, body.node(id).regions()));
        made.extend(made_symbols(body.node(id)).cloned());
    }
    needed.into_iter().filter(|s| !made.contains(s)).collect()
}
