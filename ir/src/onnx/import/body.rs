//! Graphs and their nodes.

use std::collections::{BTreeMap, HashMap, HashSet};

use indexmap::IndexSet;

use super::super::error::{MissingKind, OnnxError};
use super::super::proto::{GraphProto, NodeProto, TypeProto, TypeValue, ValueInfoProto};
use super::attributes::Arguments;
use super::functions::FunctionKey;
use super::order::{free_names, order};
use super::origin::origin;
use super::scope::{Binding, Body, Constants, Scope};
use super::{Importer, Opsets, normal};
use crate::graph::{Function, Value};
use crate::op::{AttrValue, Op};
use crate::origin::Origin;
use crate::types::ValueType;

/// Graphs and calls that may lie inside one another.
const DEPTH_LIMIT: usize = 64;

/// What the nodes of a graph have in common.
pub(super) struct Context<'c, 'a> {
    /// Imported versions.
    pub(super) opsets: &'c Opsets<'a>,
    /// In a function body: attributes of the call.
    pub(super) arguments: Option<&'c Arguments<'a>>,
    /// In a function body: where the call came from.
    pub(super) caller: Option<&'c Origin>,
    /// Functions whose bodies this is in.
    pub(super) calls: &'c [FunctionKey<'a>],
    /// Declared types.
    pub(super) types: &'c HashMap<&'a str, &'a TypeProto>,
    /// Graphs and calls that this is in.
    pub(super) depth: usize,
}

impl Context<'_, '_> {
    /// The depth of what is inside of this.
    pub(super) fn deeper(&self) -> Result<usize, OnnxError> {
        if self.depth >= DEPTH_LIMIT {
            return Err(OnnxError::limit("graph", format!("more than {DEPTH_LIMIT} graphs and calls in one another")));
        }
        Ok(self.depth + 1)
    }
}

/// How messages name a node.
pub(super) fn title(node: &NodeProto) -> String {
    let name = origin(node, None).name.unwrap_or_default();
    format!("node `{name}` ({})", node.op_type())
}

/// The types that a graph declares for results of its nodes.
fn declared(graph: &GraphProto) -> HashMap<&str, &TypeProto> {
    let infos = graph.value_info.iter().chain(&graph.output);
    infos.filter_map(|info| Some((info.name(), info.r#type.as_ref()?))).collect()
}

fn without_trailing_blanks(names: &[String]) -> &[String] {
    let end = names.iter().rposition(|n| !n.is_empty()).map_or(0, |last| last + 1);
    names.get(..end).unwrap_or(names)
}

fn mentions_unknown(ty: &ValueType) -> bool {
    match ty {
        ValueType::Unknown => true,
        ValueType::Tensor(_) => false,
        ValueType::Sequence(e) | ValueType::Optional(e) | ValueType::Map(_, e) => mentions_unknown(e),
    }
}

/// Whether an input is declared as a tensor of some element type and no shape.
fn is_unranked(input: &ValueInfoProto) -> bool {
    match input.r#type.as_ref().and_then(|t| t.value.as_ref()) {
        Some(TypeValue::TensorType(t)) => t.shape.is_none() && t.elem_type() != 0,
        _ => false,
    }
}

/// `name`, or one like it, that is not taken; it is now.
fn unused(name: &str, taken: &mut HashSet<String>) -> String {
    let mut free = name.to_owned();
    let mut copies = 1;
    while !taken.insert(free.clone()) {
        copies += 1;
        free = format!("{name}__{copies}");
    }
    free
}

fn own_input<'a>(
    input: &'a ValueInfoProto,
    ty: ValueType,
    body: &mut Body,
    scope: &mut Scope<'a>,
) -> Result<(), OnnxError> {
    if input.name().is_empty() {
        return Err(OnnxError::invalid("graph input", "has no name"));
    }
    scope.bind(input.name(), Binding::Value(body.function.add_input(input.name(), ty)))
}

impl<'a> Importer<'a> {
    /// The function `infer`.
    pub(super) fn main_graph(&mut self, graph: &'a GraphProto, opsets: &Opsets<'a>) -> Result<Function, OnnxError> {
        let context = Context { opsets, arguments: None, caller: None, calls: &[], types: &declared(graph), depth: 0 };
        let (mut body, mut scope) = (Body::new("infer"), Scope::default());
        let constants: HashSet<&str> = graph.initializer.iter().map(|t| t.name()).collect();
        for input in graph.input.iter().filter(|i| !constants.contains(i.name())) {
            let ty = input.r#type.as_ref().map_or(Ok(ValueType::Unknown), |t| self.symbols.value_type(t, input.name()));
            let ty = ty.map_err(|e| e.inside(|| format!("input `{}`", input.name())));
            let failed = matches!(ty, Err(OnnxError::Unsupported(_)));
            let ty = self.collect(input.name(), ty, ValueType::Unknown)?;
            // A tensor whose shape is left out gets one from the value that it is compiled for.
            if !failed && mentions_unknown(&ty) && !is_unranked(input) {
                self.report.add(MissingKind::Type, "", 0, "input of unknown type or rank", input.name());
            }
            own_input(input, ty, &mut body, &mut scope)?;
        }
        if graph.output.is_empty() {
            return Err(OnnxError::invalid("graph", "has no outputs"));
        }
        self.fill(graph, &mut body, &mut scope, &context)?;
        Ok(body.function)
    }

    /// A subgraph as a function of its inputs and `captured`.
    fn region(
        &mut self,
        graph: &'a GraphProto,
        captured: &[(&'a str, Binding, ValueType)],
        context: &Context<'_, 'a>,
    ) -> Result<Function, OnnxError> {
        let context = Context { types: &declared(graph), depth: context.deeper()?, ..*context };
        let (mut body, mut scope) = (Body::new(""), Scope::default());
        for input in &graph.input {
            let ty = input.r#type.as_ref().map_or(Ok(ValueType::Unknown), |t| self.symbols.value_type(t, input.name()));
            let ty = self
                .collect(input.name(), ty, ValueType::Unknown)
                .map_err(|e| e.inside(|| format!("input `{}`", input.name())))?;
            own_input(input, ty, &mut body, &mut scope)?;
        }
        let mut taken: HashSet<String> = graph.input.iter().map(|i| i.name().to_owned()).collect();
        for (name, binding, ty) in captured {
            let binding = match binding {
                Binding::Value(_) => Binding::Value(body.function.add_input(&unused(name, &mut taken), ty.clone())),
                other @ (Binding::Constant(_) | Binding::Absent) => other.clone(),
            };
            scope.capture(name, binding);
        }
        self.fill(graph, &mut body, &mut scope, &context)?;
        Ok(body.function)
    }

    /// Constants, nodes and outputs of a graph whose inputs are in `scope`.
    fn fill(
        &mut self,
        graph: &'a GraphProto,
        body: &mut Body,
        scope: &mut Scope<'a>,
        context: &Context<'_, 'a>,
    ) -> Result<(), OnnxError> {
        for tensor in &graph.initializer {
            let constant = match context.depth {
                0 => self.constants.of_initializer(tensor),
                _ => self.constants.of_proto(tensor, tensor.name(), Origin::named(tensor.name())),
            };
            let constant = self.collect(tensor.name(), constant, Binding::Absent)?;
            scope.bind(tensor.name(), constant)?;
        }
        for tensor in &graph.sparse_initializer {
            let name = tensor.values.as_ref().map_or("", |v| v.name());
            let constant = self.constants.of_sparse(tensor, name);
            let constant = self.collect(name, constant, Binding::Absent)?;
            scope.bind(name, constant)?;
        }
        self.nodes(&graph.node, body, scope, context)?;
        let mut taken = HashSet::new();
        for output in &graph.output {
            let binding = self.lookup(output.name(), scope).map_err(|e| e.inside(|| "graph output".to_owned()))?;
            if matches!(binding, Binding::Absent) && self.report.is_empty() {
                return Err(OnnxError::invalid(format!("graph output `{}`", output.name()), "is no value"));
            }
            // A caller tells the main graph's outputs apart by name; a subgraph's go by position.
            if context.depth == 0 && taken.contains(output.name()) {
                return Err(OnnxError::invalid(format!("graph output `{}`", output.name()), "is listed twice"));
            }
            let value = self.constants.value(body, &binding);
            body.function.add_output(&unused(output.name(), &mut taken), value);
        }
        Ok(())
    }

    /// Emits nodes in dependency order.
    pub(super) fn nodes(
        &mut self,
        nodes: &'a [NodeProto],
        body: &mut Body,
        scope: &mut Scope<'a>,
        context: &Context<'_, 'a>,
    ) -> Result<(), OnnxError> {
        for index in order(nodes)? {
            if let Some(node) = nodes.get(index) {
                self.node(node, body, scope, context).map_err(|e| e.inside(|| title(node)))?;
            }
        }
        Ok(())
    }

    /// What a name stands for; an empty one for nothing.
    pub(super) fn lookup(&self, name: &str, scope: &Scope<'a>) -> Result<Binding, OnnxError> {
        match scope.get(name) {
            _ if name.is_empty() => Ok(Binding::Absent),
            Some(binding) => Ok(binding.clone()),
            None => Err(OnnxError::invalid(format!("value `{name}`"), "is used, but nothing defines it")),
        }
    }

    fn node(
        &mut self,
        node: &'a NodeProto,
        body: &mut Body,
        scope: &mut Scope<'a>,
        context: &Context<'_, 'a>,
    ) -> Result<(), OnnxError> {
        let (domain, op_type) = (normal(node.domain()), node.op_type());
        if op_type.is_empty() {
            return Err(OnnxError::invalid("op_type", "is empty"));
        }
        if let Some(function) = self.functions.get(&(domain, op_type, node.overload())).copied() {
            return self.inline(node, function, body, scope, context);
        }
        let origin = origin(node, context.caller);
        if (domain, op_type) == ("", "Constant") {
            let [output] = node.output.as_slice() else {
                return Err(OnnxError::invalid("outputs", "a constant has one"));
            };
            let constant = self.constant(node, context.arguments, origin);
            let constant = self.collect(output, constant, Binding::Absent)?;
            return scope.bind(output, constant);
        }
        let user = origin.name.clone().unwrap_or_default();
        let since_version = self.since_version(domain, op_type, context.opsets, &user)?;
        let attributes = self.attributes(node, context.arguments, &user)?;
        let mut operands = Vec::with_capacity(node.input.len());
        for name in without_trailing_blanks(&node.input) {
            let binding = self.lookup(name, scope)?;
            operands.push(self.constants.value(body, &binding));
        }
        let mut values = attributes.values;
        let regions = self.regions(&attributes.graphs, &mut values, &mut operands, body, scope, context)?;
        let outputs = without_trailing_blanks(&node.output);
        let mut results = Vec::with_capacity(outputs.len());
        for name in outputs {
            let ty = context.types.get(name.as_str()).map(|t| self.symbols.value_type(t, name));
            // A result's declared type is a hint: what it can't say is left open.
            results.push(match ty {
                None | Some(Err(OnnxError::Unsupported(_))) => ValueType::Unknown,
                Some(other) => other.map_err(|e| e.inside(|| format!("type of `{name}`")))?,
            });
        }
        let op = Op::Onnx { domain: domain.to_owned(), op_type: op_type.to_owned(), since_version, attributes: values };
        let id = body.function.add_typed(op, &operands, results, regions, &origin);
        for (result, name) in outputs.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            scope.bind(name, Binding::Value(Value { node: id, result }))?;
        }
        Ok(())
    }

    /// The subgraphs of a node as regions; what they capture joins the operands.
    fn regions(
        &mut self,
        graphs: &BTreeMap<&'a str, &'a GraphProto>,
        attributes: &mut BTreeMap<String, AttrValue>,
        operands: &mut Vec<Value>,
        body: &mut Body,
        scope: &Scope<'a>,
        context: &Context<'_, 'a>,
    ) -> Result<Vec<Function>, OnnxError> {
        if graphs.is_empty() {
            return Ok(Vec::new());
        }
        let free: IndexSet<&'a str> = graphs.values().flat_map(|g| free_names(g)).filter(|n| !n.is_empty()).collect();
        let mut captured = Vec::with_capacity(free.len());
        let own = operands.len();
        for name in free {
            let mut binding = self.lookup(name, scope)?;
            if Constants::is_trained(&binding) {
                binding = Binding::Value(self.constants.value(body, &binding));
            }
            let mut ty = ValueType::Unknown;
            if let Binding::Value(value) = binding {
                operands.push(value);
                ty = body.function.ty(value).clone();
            }
            captured.push((name, binding, ty));
        }
        let count = i64::try_from(operands.len() - own).unwrap_or(i64::MAX);
        attributes.insert("__captured".to_owned(), AttrValue::Int(count));
        let names = graphs.keys().map(|name| AttrValue::Str((*name).to_owned()));
        attributes.insert("__regions".to_owned(), AttrValue::List(names.collect()));
        let regions = graphs.iter().map(|(name, graph)| {
            self.region(graph, &captured, context).map_err(|e| e.inside(|| format!("graph `{name}`")))
        });
        regions.collect()
    }
}
