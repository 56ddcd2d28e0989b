//! A function: SSA ops in a petgraph graph.
//!
//! Nodes are ops; each owns its ordered operands, result types and regions. Graph edges carry `(result, operand)` ports
//! and mirror the operands: they change only through [`Function::add_op`], [`Function::set_operand`],
//! [`Function::replace_uses`] and [`Function::remove_op`], and the verifier checks that both agree. A [`NodeId`] carries
//! the generation of its slot, so a stale id is never another op by accident. Order is by key, not by edge iteration:
//! two equal functions walk equally.
//!
//! Regions are isolated: a region is a function that sees only its inputs.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use petgraph::Direction;
use petgraph::stable_graph::{NodeIndex, StableDiGraph};
use petgraph::visit::{EdgeRef, IntoEdgeReferences};

use crate::op::infer::{Signature, TypeError, infer};
use crate::op::needs::{Need, needs};
use crate::op::{Numerics, Op};
use crate::origin::Origin;
use crate::requirement::{Relation, Requirement};
use crate::substitute::substitute;
use crate::types::{Dim, Symbol, ValueType};

/// An op of one function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId {
    index: NodeIndex,
    generation: u32,
}

/// One result of an op.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value {
    /// The op.
    pub node: NodeId,
    /// Which of its results.
    pub result: usize,
}

/// An op in its place.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it does.
    pub op: Op,
    /// Where it came from.
    pub origin: Origin,
    /// How far its arithmetic may depart from what is written.
    pub numerics: Numerics,
    operands: Vec<Value>,
    results: Vec<ValueType>,
    regions: Vec<Function>,
    generation: u32,
    order: u64,
}

impl Node {
    /// Its operands, in order.
    pub fn operands(&self) -> &[Value] {
        &self.operands
    }

    /// Types of its results.
    pub fn results(&self) -> &[ValueType] {
        &self.results
    }

    /// Its regions.
    pub fn regions(&self) -> &[Function] {
        &self.regions
    }
}

/// Ports of an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// Which result of the source.
    pub result: usize,
    /// Which operand of the target.
    pub operand: usize,
}

/// What is known of a symbol beyond "at least 0".
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SymbolFacts {
    /// At least this.
    pub min: i64,
    /// At most this.
    pub max: Option<i64>,
    /// A multiple of this, when above 1.
    pub multiple_of: i64,
}

impl SymbolFacts {
    /// What they say of an extent that stands for the symbol.
    pub fn about(&self, dim: &Dim) -> Vec<Requirement> {
        let requirement = |relation, left: Dim, right: Dim, what: &str| Requirement {
            relation,
            left,
            right,
            what: what.to_owned(),
            origin: Origin::named(dim.to_string()),
        };
        let mut all = vec![requirement(Relation::AtMost, self.min.into(), dim.clone(), "the least that it may be")];
        if let Some(max) = self.max {
            all.push(requirement(Relation::AtMost, dim.clone(), max.into(), "the most that it may be"));
        }
        if self.multiple_of > 1 {
            let rest = dim.modulo(&self.multiple_of.into());
            all.push(requirement(Relation::Equal, rest, Dim::ZERO, "what is left of its multiple"));
        }
        all.retain(|r| !r.is_proven());
        all
    }
}

/// A named result of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its name.
    pub name: String,
    /// What it is.
    pub value: Value,
}

/// State that a run hands on: an input whose buffer the output may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Donation {
    /// Index of the input.
    pub input: usize,
    /// Index of the output.
    pub output: usize,
}

/// A pure function in SSA form.
#[derive(Clone, Debug, Default)]
pub struct Function {
    /// Its name in the module (regions: empty).
    pub name: String,
    graph: StableDiGraph<Node, Port>,
    inputs: Vec<NodeId>,
    outputs: Vec<Output>,
    /// Facts about its symbols; a symbol without an entry is at least 0.
    pub symbols: BTreeMap<Symbol, SymbolFacts>,
    /// State pairs.
    pub donations: Vec<Donation>,
    requirements: Vec<Requirement>,
    next_generation: u32,
    next_order: u64,
}

impl Function {
    /// An empty function.
    pub fn new(name: &str) -> Self {
        Function { name: name.to_owned(), ..Function::default() }
    }

    // ---- reading ----

    /// The node, unless the id is stale.
    pub fn get(&self, id: NodeId) -> Option<&Node> {
        self.graph.node_weight(id.index).filter(|n| n.generation == id.generation)
    }

    /// The node of a live id. A stale id is a bug of the caller, never of an input.
    #[allow(clippy::panic, reason = "stale ids come from code, not from input; there is no value to go on with")]
    #[track_caller]
    pub fn node(&self, id: NodeId) -> &Node {
        match self.get(id) {
            Some(node) => node,
            None => panic!("stale node id {id:?} in function `{}`", self.name),
        }
    }

    #[allow(clippy::panic, reason = "as `node`")]
    #[track_caller]
    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        match self.graph.node_weight_mut(id.index).filter(|n| n.generation == id.generation) {
            Some(node) => node,
            None => panic!("stale node id {id:?}"),
        }
    }

    /// The type of a value.
    #[track_caller]
    pub fn ty(&self, value: Value) -> &ValueType {
        &self.node(value.node).results[value.result]
    }

    /// The op that makes a value.
    #[track_caller]
    pub fn op(&self, value: Value) -> &Op {
        &self.node(value.node).op
    }

    /// Its `input` nodes, in order.
    pub fn inputs(&self) -> &[NodeId] {
        &self.inputs
    }

    /// The values of its inputs.
    pub fn input_values(&self) -> impl Iterator<Item = Value> + '_ {
        self.inputs.iter().map(|&node| Value { node, result: 0 })
    }

    /// Its outputs, in order.
    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    /// Number of ops.
    pub fn len(&self) -> usize {
        self.graph.node_count()
    }

    /// Whether it has no op.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every op, by order key; not a topological order after rewrites.
    pub fn nodes(&self) -> Vec<NodeId> {
        let mut ids: Vec<(u64, NodeId)> =
            self.graph.node_indices().map(|i| (self.graph[i].order, self.id(i))).collect();
        ids.sort_unstable();
        ids.into_iter().map(|(_, id)| id).collect()
    }

    fn id(&self, index: NodeIndex) -> NodeId {
        NodeId { index, generation: self.graph[index].generation }
    }

    /// Operands that use a value: (op, operand index), sorted by the op's order. Function outputs are not listed.
    pub fn uses(&self, value: Value) -> Vec<(NodeId, usize)> {
        let mut uses: Vec<(u64, NodeId, usize)> = self
            .graph
            .edges_directed(value.node.index, Direction::Outgoing)
            .filter(|e| e.weight().result == value.result)
            .map(|e| (self.graph[e.target()].order, self.id(e.target()), e.weight().operand))
            .collect();
        uses.sort_unstable();
        uses.into_iter().map(|(_, id, operand)| (id, operand)).collect()
    }

    /// How often a value is used, function outputs included.
    pub fn use_count(&self, value: Value) -> usize {
        let edges = self.graph.edges_directed(value.node.index, Direction::Outgoing);
        edges.filter(|e| e.weight().result == value.result).count()
            + self.outputs.iter().filter(|o| o.value == value).count()
    }

    /// Whether a value is an output.
    pub fn is_output(&self, value: Value) -> bool {
        self.outputs.iter().any(|o| o.value == value)
    }

    /// Ops in dependency order, ties by order key; `None` when there is a cycle.
    pub fn toposort(&self) -> Option<Vec<NodeId>> {
        let mut waiting: HashMap<NodeIndex, usize> = HashMap::with_capacity(self.len());
        let mut ready = BTreeSet::new();
        for index in self.graph.node_indices() {
            let edges = self.graph.edges_directed(index, Direction::Incoming).count();
            if edges == 0 {
                ready.insert((self.graph[index].order, index));
            }
            waiting.insert(index, edges);
        }
        let mut sorted = Vec::with_capacity(self.len());
        while let Some((_, index)) = ready.pop_first() {
            sorted.push(self.id(index));
            for edge in self.graph.edges_directed(index, Direction::Outgoing) {
                if let Some(left) = waiting.get_mut(&edge.target()) {
                    *left -= 1;
                    if *left == 0 {
                        ready.insert((self.graph[edge.target()].order, edge.target()));
                    }
                }
            }
        }
        (sorted.len() == self.len()).then_some(sorted)
    }

    /// Ops that its outputs depend on.
    pub fn live(&self) -> BTreeSet<NodeId> {
        self.behind(self.outputs.iter().map(|o| o.value))
    }

    /// Ops that values depend on.
    pub fn behind(&self, values: impl IntoIterator<Item = Value>) -> BTreeSet<NodeId> {
        let mut live: BTreeSet<NodeId> = BTreeSet::new();
        let mut open: Vec<NodeId> = values.into_iter().map(|v| v.node).collect();
        while let Some(id) = open.pop() {
            if live.insert(id) {
                open.extend(self.node(id).operands.iter().map(|v| v.node));
            }
        }
        live
    }

    /// Input and output types.
    pub fn signature(&self) -> Signature {
        Signature {
            inputs: self.input_values().map(|v| self.ty(v).clone()).collect(),
            outputs: self.outputs.iter().map(|o| self.ty(o.value).clone()).collect(),
        }
    }

    /// What must hold of its extents before it runs.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// What an op asks of extents, as requirements.
    pub fn needs_of(&self, id: NodeId) -> Vec<Requirement> {
        let node = self.node(id);
        let operands: Vec<&ValueType> = node.operands.iter().map(|v| self.ty(*v)).collect();
        let stated = |Need { relation, left, right, what }| Requirement {
            relation,
            left,
            right,
            what,
            origin: node.origin.clone(),
        };
        needs(&node.op, &operands, &node.results).into_iter().map(stated).collect()
    }

    /// Edges as (source, target, port), for the verifier and drawings.
    pub fn edges(&self) -> impl Iterator<Item = (NodeId, NodeId, Port)> + '_ {
        self.graph.edge_references().map(|e| (self.id(e.source()), self.id(e.target()), *e.weight()))
    }

    // ---- building and rewriting ----

    /// Appends an input.
    pub fn add_input(&mut self, name: &str, ty: impl Into<ValueType>) -> Value {
        let ty = ty.into();
        let op = Op::Input { name: name.to_owned(), ty: ty.clone() };
        let node = self.insert(op, Vec::new(), vec![ty], Vec::new(), Origin::named(name), Numerics::STRICT);
        self.inputs.push(node);
        Value { node, result: 0 }
    }

    /// Adds an op whose result types follow from its operands. All operands are live values of this function.
    pub fn add_op(
        &mut self,
        op: Op,
        operands: &[Value],
        regions: Vec<Function>,
        origin: &Origin,
    ) -> Result<NodeId, TypeError> {
        self.add_op_with(op, operands, regions, origin, Numerics::STRICT)
    }

    /// [`Function::add_op`] with numerics.
    pub fn add_op_with(
        &mut self,
        op: Op,
        operands: &[Value],
        regions: Vec<Function>,
        origin: &Origin,
        numerics: Numerics,
    ) -> Result<NodeId, TypeError> {
        let types: Vec<&ValueType> = operands.iter().map(|v| self.ty(*v)).collect();
        let signatures: Vec<Signature> = regions.iter().map(Function::signature).collect();
        let results = infer(&op, &types, &signatures)?;
        Ok(self.insert(op, operands.to_vec(), results, regions, origin.clone(), numerics))
    }

    /// Adds an op whose result types are stated: `onnx` and `call`.
    pub fn add_typed(
        &mut self,
        op: Op,
        operands: &[Value],
        results: Vec<ValueType>,
        regions: Vec<Function>,
        origin: &Origin,
    ) -> NodeId {
        self.insert(op, operands.to_vec(), results, regions, origin.clone(), Numerics::STRICT)
    }

    /// Adds an op as another one is, perhaps of another function, with its regions and numerics, on operands of the same
    /// types.
    pub fn add_copy(&mut self, node: &Node, operands: &[Value]) -> NodeId {
        let Node { op, origin, numerics, results, regions, .. } = node.clone();
        self.insert(op, operands.to_vec(), results, regions, origin, numerics)
    }

    fn insert(
        &mut self,
        op: Op,
        operands: Vec<Value>,
        results: Vec<ValueType>,
        regions: Vec<Function>,
        origin: Origin,
        numerics: Numerics,
    ) -> NodeId {
        let (generation, order) = (self.next_generation, self.next_order);
        self.next_generation = self.next_generation.wrapping_add(1);
        self.next_order += 1;
        let index = self.graph.add_node(Node {
            op,
            origin,
            numerics,
            operands: operands.clone(),
            results,
            regions,
            generation,
            order,
        });
        for (operand, value) in operands.iter().enumerate() {
            self.graph.add_edge(value.node.index, index, Port { result: value.result, operand });
        }
        NodeId { index, generation }
    }

    /// Appends an output.
    pub fn add_output(&mut self, name: &str, value: Value) {
        self.outputs.push(Output { name: name.to_owned(), value });
    }

    /// Replaces the value of an output.
    pub fn set_output(&mut self, index: usize, value: Value) {
        if let Some(output) = self.outputs.get_mut(index) {
            output.value = value;
        }
    }

    /// Drops every output (to build a new list).
    pub fn clear_outputs(&mut self) {
        self.outputs.clear();
    }

    /// Points one operand at another value.
    pub fn set_operand(&mut self, node: NodeId, operand: usize, value: Value) {
        let old = self.node(node).operands[operand];
        if old == value {
            return;
        }
        let edge = self
            .graph
            .edges_connecting(old.node.index, node.index)
            .find(|e| e.weight().operand == operand)
            .map(|e| e.id());
        if let Some(edge) = edge {
            self.graph.remove_edge(edge);
        }
        self.graph.add_edge(value.node.index, node.index, Port { result: value.result, operand });
        self.node_mut(node).operands[operand] = value;
    }

    /// Points every use of `old`, outputs included, at `new`.
    pub fn replace_uses(&mut self, old: Value, new: Value) {
        if old == new {
            return;
        }
        let uses = self.graph.edges_directed(old.node.index, Direction::Outgoing);
        let mut uses: Vec<_> = uses
            .filter(|e| e.weight().result == old.result)
            .map(|e| (self.graph[e.target()].order, e.weight().operand, e.target(), e.id()))
            .collect();
        uses.sort_unstable();
        for (_, operand, user, edge) in uses {
            self.graph.remove_edge(edge);
            self.graph.add_edge(new.node.index, user, Port { result: new.result, operand });
            self.graph[user].operands[operand] = new;
        }
        for output in &mut self.outputs {
            if output.value == old {
                output.value = new;
            }
        }
    }

    /// Removes an op that nothing uses; false (and no change) when something does or it is an input.
    pub fn remove_op(&mut self, id: NodeId) -> bool {
        let Some(node) = self.get(id) else { return false };
        let used = (0..node.results.len()).any(|result| self.use_count(Value { node: id, result }) > 0);
        if used || self.inputs.contains(&id) {
            return false;
        }
        self.graph.remove_node(id.index);
        true
    }

    /// Removes input `index` when nothing uses it.
    pub fn remove_input(&mut self, index: usize) -> bool {
        let Some(&node) = self.inputs.get(index) else { return false };
        if self.use_count(Value { node, result: 0 }) > 0 {
            return false;
        }
        self.inputs.remove(index);
        self.graph.remove_node(node.index);
        true
    }

    /// Replaces operands and leaves the edges: what the verifier has to find.
    #[cfg(test)]
    pub(crate) fn break_operands(&mut self, id: NodeId, operands: Vec<Value>) {
        self.node_mut(id).operands = operands;
    }

    /// States a value's type anew: shape inference narrows symbols. Regions and users are the caller's to keep right.
    pub fn set_type(&mut self, value: Value, ty: ValueType) {
        let node = self.node_mut(value.node);
        if let Op::Input { ty: declared, .. } = &mut node.op {
            *declared = ty.clone();
        }
        node.results[value.result] = ty;
    }

    /// Replaces an op in place, operands and result types unchanged.
    pub fn set_op(&mut self, id: NodeId, op: Op) {
        self.node_mut(id).op = op;
    }

    /// Sets the numerics of an op.
    pub fn set_numerics(&mut self, id: NodeId, numerics: Numerics) {
        self.node_mut(id).numerics = numerics;
    }

    /// Sets the origin of an op.
    pub fn set_origin(&mut self, id: NodeId, origin: Origin) {
        self.node_mut(id).origin = origin;
    }

    /// The regions of an op, to rewrite them. Their signatures must stay.
    pub fn regions_mut(&mut self, id: NodeId) -> &mut [Function] {
        &mut self.node_mut(id).regions
    }

    /// States a requirement, unless it is proven or stated already.
    pub fn require(&mut self, requirement: Requirement) {
        if !requirement.is_proven() && !self.requirements.iter().any(|r| r.says_the_same(&requirement)) {
            self.requirements.push(requirement);
        }
    }

    /// Replaces the list of requirements: for whoever replaces symbols in them.
    pub(crate) fn set_requirements(&mut self, requirements: Vec<Requirement>) {
        self.requirements.clear();
        requirements.into_iter().for_each(|r| self.require(r));
    }

    /// Takes back all but the first `count` requirements: those of an attempt that was given up.
    pub fn retract_requirements(&mut self, count: usize) {
        self.requirements.truncate(count);
    }

    /// States what the ops that its outputs depend on need, regions included: done before passes take ops away.
    pub fn state_needs(&mut self) {
        let live = self.live();
        for id in self.nodes() {
            if live.contains(&id) {
                self.needs_of(id).into_iter().for_each(|r| self.require(r));
                self.regions_mut(id).iter_mut().for_each(Function::state_needs);
            }
        }
    }

    /// Takes the regions out of an op that is about to be removed.
    pub fn take_regions(&mut self, id: NodeId) -> Vec<Function> {
        std::mem::take(&mut self.node_mut(id).regions)
    }

    /// Copies the ops of `body` here with its inputs bound to `arguments`; returns its outputs' values. The copies keep
    /// their origins, requirements come along, and the body's symbols become the arguments' extents. `None` when `body`
    /// has a cycle or the arguments don't fit in number.
    pub fn inline(&mut self, body: &Function, arguments: &[Value]) -> Option<Vec<Value>> {
        if arguments.len() != body.inputs.len() {
            return None;
        }
        let renamed = self.extents_of(body, arguments);
        let fitted;
        let mut body = body;
        if !renamed.is_empty() {
            let mut copy = body.clone();
            substitute(&mut copy, &|s| renamed.get(s).cloned());
            fitted = copy;
            body = &fitted;
        }
        let mut map: HashMap<NodeId, NodeId> = HashMap::new();
        let bound: HashMap<NodeId, Value> = body.inputs.iter().copied().zip(arguments.iter().copied()).collect();
        let resolve = |map: &HashMap<NodeId, NodeId>, v: &Value| match bound.get(&v.node) {
            Some(argument) => Some(*argument),
            None => map.get(&v.node).map(|&node| Value { node, result: v.result }),
        };
        for id in body.toposort()? {
            if bound.contains_key(&id) {
                continue;
            }
            let node = body.node(id);
            let operands = node.operands.iter().map(|v| resolve(&map, v)).collect::<Option<Vec<_>>>()?;
            let copy = self.insert(
                node.op.clone(),
                operands,
                node.results.clone(),
                node.regions.clone(),
                node.origin.clone(),
                node.numerics,
            );
            map.insert(id, copy);
        }
        for (symbol, facts) in &body.symbols {
            match renamed.get(symbol) {
                Some(dim) => facts.about(dim).into_iter().for_each(|r| self.require(r)),
                None => _ = self.symbols.entry(symbol.clone()).or_insert_with(|| facts.clone()),
            }
        }
        body.requirements.iter().for_each(|r| self.require(r.clone()));
        body.outputs.iter().map(|o| resolve(&map, &o.value)).collect()
    }

    /// What symbols of a body's inputs are here, where the arguments spell their extents differently.
    fn extents_of(&self, body: &Function, arguments: &[Value]) -> BTreeMap<Symbol, Dim> {
        let mut found = BTreeMap::new();
        for (input, argument) in body.input_values().zip(arguments) {
            let (Some(inner), Some(outer)) = (body.ty(input).tensor(), self.ty(*argument).tensor()) else { continue };
            for (symbol, dim) in inner.dims.iter().zip(&outer.dims).filter_map(|(i, o)| Some((i.as_symbol()?, o))) {
                found.entry(symbol.clone()).or_insert_with(|| dim.clone());
            }
        }
        found.retain(|symbol, dim| dim.as_symbol() != Some(symbol));
        found
    }
}
