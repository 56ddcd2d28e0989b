//! What is computed again instead of stored: a choice made for all values at once, before kernels are formed.
//!
//! A value that is used on both sides of a *barrier* (an op that is no kernel's, a reduction to one element) can't stay in
//! a register: it is stored and read again, or the ops that made it are run once more on the far side. Training steps
//! are full of these: everything that the forward computes is asked for again by the gradient. The steps of
//! [`super::former`] look at one value after the other, and would store each of a basis's five parts although all five
//! follow from one input.
//!
//! So ops are numbered by the barriers before them, and for each level the cheapest cut is found between what lies in
//! memory and what the level asks for: ops on its far side are copied, values on it are stored. The costs are those of
//! [`super::cost`]; the cut is a maximal flow. Greater memory cost means more recomputation. An elementary function that
//! levels before compute again counts for each of them: stored, they read it too.
//!
//! ```text
//!   memory --load--> x --> exp --> mul --> phi --> sum --> barrier --> gradient
//!                     \                      '---- store or compute again? ---^
//!                      '----> exp' --> mul' --> phi' -------------------------'
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use frit_ir::{Dim, Function, NodeId, Op, TensorType, Value};
use petgraph::Direction;
use petgraph::algo::ford_fulkerson;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;

use super::append::appended;
use super::contract::rounds_with_user;
use super::cost::{self, is_rare, ops};
use super::{SMALL_REDUCE, SPLIT_ABOVE, is_fusable, is_small};
use crate::manager::{Context, PassError};
use crate::simplify::dce::remove_dead;

const RULE: &str = "recompute";
/// What a level must save, in operations: less is not worth longer code.
const WORTHWHILE: f64 = 50_000.0;
/// Ops of one cut: no more are looked at.
const MOST: usize = 4096;
/// What no cut goes through.
const NEVER: u64 = 1 << 50;

/// Copies ops of a function so that kernels need less memory; the step's option `store` says how many times as dear it is
/// to store a value than it takes time. Gives the values that are to be stored for what lies behind a barrier, and are
/// needed before it too.
pub(super) fn recompute(f: &mut Function, context: &mut Context<'_>) -> Result<HashSet<Value>, PassError> {
    let mut levels = Levels::of(f).ok_or_else(|| PassError::Cycle(f.name.clone()))?;
    levels.dear = context.step().get("store", 1) as f64;
    for level in 1..=levels.last {
        let Some(cut) = levels.cut(f, level) else { continue };
        if !context.take(RULE) {
            break;
        }
        levels.apply(f, level, &cut);
    }
    // What all its users compute themselves now.
    context.required(|context| remove_dead(f, context))?;
    let left: HashSet<NodeId> = f.nodes().into_iter().collect();
    let mut settled = levels.stored.clone();
    settled.retain(|v| {
        let mut users = f.uses(*v).into_iter().map(|(user, _)| levels.at(user));
        left.contains(&v.node) && users.next().is_some_and(|first| users.any(|level| level != first))
    });
    Ok(settled)
}

/// Ops by the barriers before them.
struct Levels {
    level: HashMap<NodeId, usize>,
    last: usize,
    /// Ops whose results lie in memory whatever is decided.
    given: HashSet<NodeId>,
    /// Values that are stored for an earlier level.
    stored: HashSet<Value>,
    /// The ops of each level, in order.
    ops: Vec<Vec<NodeId>>,
    /// How many times as dear storing is than it takes time: more where memory is short.
    dear: f64,
    /// What ops that were computed again are copies of.
    copies: HashMap<NodeId, NodeId>,
}

/// What a level computes again and what it reads.
struct Cut {
    copied: Vec<NodeId>,
    stored: Vec<Value>,
}

/// Whether an op's result may come out of the kernel that uses it.
pub(super) fn is_source(op: &Op) -> bool {
    matches!(op, Op::Constant { .. } | Op::Iota { .. } | Op::DimValue { .. })
}

impl Levels {
    fn of(f: &Function) -> Option<Levels> {
        let order = f.toposort()?;
        let alone = appended(f);
        let (mut given, mut barriers) = (HashSet::new(), HashSet::new());
        let mut level: HashMap<NodeId, usize> = HashMap::new();
        for &id in &order {
            let node = f.node(id);
            let behind = |v: &Value| level.get(&v.node).copied().unwrap_or(0) + usize::from(barriers.contains(&v.node));
            let before = node.operands().iter().map(behind).max();
            level.insert(id, before.unwrap_or(0));
            let barrier = is_barrier(f, id);
            if barrier {
                barriers.insert(id);
            }
            if !is_source(&node.op) && (barrier || alone.contains(&id) || !is_fusable(f, id)) {
                given.insert(id);
            }
        }
        let last = level.values().copied().max().unwrap_or(0);
        let mut ops = vec![Vec::new(); last + 1];
        for id in order {
            if let Some(at) = level.get(&id) {
                ops[*at].push(id);
            }
        }
        Some(Levels { level, last, given, stored: HashSet::new(), ops, dear: 1.0, copies: HashMap::new() })
    }

    fn at(&self, id: NodeId) -> usize {
        self.level.get(&id).copied().unwrap_or(0)
    }

    /// Ops of a level that only what is computed almost nowhere needs there.
    fn seldom(&self, f: &Function, level: usize) -> HashSet<NodeId> {
        let mut rare: HashSet<NodeId> = HashSet::new();
        for &id in self.ops[level].iter().rev() {
            let results = f.node(id).results().len();
            let uses = (0..results).flat_map(|result| f.uses(Value { node: id, result }));
            let mut here = uses.filter(|(user, _)| self.at(*user) == level).peekable();
            let output = (0..results).any(|result| f.is_output(Value { node: id, result }));
            if !output
                && here.peek().is_some()
                && here.all(|(user, i)| rare.contains(&user) || is_rare(f.node(user), i))
            {
                rare.insert(id);
            }
        }
        rare
    }

    /// Values of earlier levels that ops of this one read and that don't lie in memory, with whether only ops read them
    /// that are computed almost nowhere.
    fn asked(&self, f: &Function, level: usize) -> BTreeMap<Value, bool> {
        let mut asked = BTreeMap::new();
        let rare = self.seldom(f, level);
        for &id in &self.ops[level] {
            if self.given.contains(&id) && !is_barrier_reduce(f, id) {
                continue;
            }
            let node = f.node(id);
            for (i, &v) in node.operands().iter().enumerate() {
                if self.at(v.node) < level && !self.given.contains(&v.node) {
                    let seldom = rare.contains(&id) || is_rare(node, i);
                    *asked.entry(v).or_insert(true) &= seldom;
                }
            }
        }
        asked
    }

    /// The cheapest cut for a level; `None` where nothing is to be gained.
    fn cut(&self, f: &Function, level: usize) -> Option<Cut> {
        let asked = self.asked(f, level);
        let kept = |v: &Value| self.store_cost(f, *v);
        let as_it_is: f64 = asked.keys().filter(|v| !is_source(f.op(**v))).map(kept).sum();
        if as_it_is < WORTHWHILE {
            return None;
        }
        let mut network = Network::new();
        let mut reached: BTreeSet<Value> = BTreeSet::new();
        let mut open: Vec<Value> = asked.iter().filter(|(_, seldom)| !**seldom).map(|(v, _)| *v).collect();
        while let Some(value) = open.pop() {
            if !reached.insert(value) {
                continue;
            }
            if reached.len() > MOST {
                return None;
            }
            if !self.given.contains(&value.node) {
                let node = f.node(value.node);
                let operands = node.operands().iter().enumerate().filter(|(i, _)| !is_rare(node, *i));
                open.extend(operands.map(|(_, v)| *v));
            }
        }
        for &value in &reached {
            let (into, out) = network.value(value);
            let node = f.node(value.node);
            if self.given.contains(&value.node) {
                network.edge(network.source, into, NEVER);
                network.edge(into, out, scaled(load_cost(f, value)));
                continue;
            }
            // What other levels compute again too, if it is worth a look, they would read then.
            let is_dear = matches!(&node.op, Op::Unary(op) if op.is_elementary());
            let before = if is_dear { self.copies_of(value.node).count() as f64 } else { 0.0 };
            network.edge(network.source, into, scaled(recompute_cost(f, value) * (1.0 + before)));
            let store = if is_source(&node.op) || rounds_with_user(f, value) {
                NEVER
            } else {
                scaled(self.store_cost(f, value) + load_cost(f, value) * before)
            };
            network.edge(into, out, store);
            for operand in node.operands().iter().filter(|v| reached.contains(v)) {
                let (_, from) = network.value(*operand);
                network.edge(from, into, NEVER);
            }
        }
        for (value, _) in asked.iter().filter(|(_, seldom)| !**seldom) {
            let (_, out) = network.value(*value);
            network.edge(out, network.sink, NEVER);
        }
        let (cost, memory_side) = network.cut();
        let mut cut = Cut { copied: Vec::new(), stored: Vec::new() };
        for &value in &reached {
            let (into, out) = network.value(value);
            match (memory_side.contains(&into), memory_side.contains(&out)) {
                (false, _) => cut.copied.push(value.node),
                (true, false) if !self.given.contains(&value.node) => cut.stored.push(value),
                (true, _) => {}
            }
        }
        if as_it_is - (cost as f64 / SCALE) < WORTHWHILE {
            // Nothing is copied; what is asked for and dear to compute is stored all the same.
            cut.copied.clear();
            cut.stored.retain(|v| asked.contains_key(v));
        } else {
            self.copy_rare(f, &asked, &mut cut);
        }
        (!cut.copied.is_empty() || !cut.stored.is_empty()).then_some(cut)
    }

    /// What is seldom needed is computed then, from what is stored for others.
    fn copy_rare(&self, f: &Function, asked: &BTreeMap<Value, bool>, cut: &mut Cut) {
        let mut copied: BTreeSet<NodeId> = cut.copied.iter().copied().collect();
        let rare = |id: NodeId| {
            let node = f.node(id);
            node.operands().iter().enumerate().filter(move |(i, _)| is_rare(node, *i)).map(|(_, v)| *v)
        };
        let mut open: Vec<Value> = asked.iter().filter(|(_, seldom)| **seldom).map(|(v, _)| *v).collect();
        open.extend(cut.copied.iter().flat_map(|id| rare(*id)));
        while let Some(value) = open.pop() {
            let lies = self.given.contains(&value.node) || self.stored.contains(&value) || cut.stored.contains(&value);
            if !lies && copied.insert(value.node) {
                open.extend(f.node(value.node).operands());
            }
        }
        cut.copied = copied.into_iter().collect();
    }

    /// Storing a value and reading it; only reading it where it is stored anyway.
    fn store_cost(&self, f: &Function, value: Value) -> f64 {
        let anyway = self.stored.contains(&value)
            || f.is_output(value)
            || f.uses(value).iter().any(|(user, _)| self.given.contains(user) && !is_barrier_reduce(f, *user));
        load_cost(f, value) * if anyway { 1.0 } else { 1.0 + self.dear }
    }

    /// The op that an op is a copy of, or itself.
    fn root(&self, id: NodeId) -> NodeId {
        self.copies.get(&id).copied().unwrap_or(id)
    }

    /// Copies of an op (or of what it is a copy of) for levels that could read its result.
    fn copies_of(&self, id: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let (root, level) = (self.root(id), self.at(id));
        let of_it = self.copies.iter().filter(move |(copy, of)| **of == root && **copy != id);
        of_it.map(|(copy, _)| *copy).filter(move |copy| self.at(*copy) >= level)
    }

    /// Copies ops to a level.
    fn apply(&mut self, f: &mut Function, level: usize, cut: &Cut) {
        self.stored.extend(&cut.stored);
        // What is stored now need not be computed again for levels before.
        for value in &cut.stored {
            for copy in self.copies_of(value.node).collect::<Vec<_>>() {
                f.replace_uses(Value { node: copy, ..*value }, *value);
            }
        }
        let copied: HashSet<NodeId> = cut.copied.iter().copied().collect();
        let mut copies: HashMap<NodeId, NodeId> = HashMap::new();
        let earlier = self.ops.iter().take(level).flatten();
        let order: Vec<NodeId> = earlier.copied().filter(|id| copied.contains(id)).collect();
        let mut made = Vec::with_capacity(order.len());
        for id in order {
            let node = f.node(id).clone();
            let moved = |v: &Value| Value { node: copies.get(&v.node).copied().unwrap_or(v.node), ..*v };
            let operands: Vec<Value> = node.operands().iter().map(moved).collect();
            let copy = f.add_copy(&node, &operands);
            copies.insert(id, copy);
            self.copies.insert(copy, self.root(id));
            made.push(copy);
        }
        for &id in &self.ops[level] {
            if self.given.contains(&id) && !is_barrier_reduce(f, id) {
                continue;
            }
            for (i, operand) in f.node(id).operands().to_vec().into_iter().enumerate() {
                if let Some(&copy) = copies.get(&operand.node) {
                    f.set_operand(id, i, Value { node: copy, ..operand });
                }
            }
        }
        for &copy in &made {
            self.level.insert(copy, level);
        }
        // Copies come before what uses them.
        self.ops[level].splice(0..0, made);
    }
}

/// A reduction to one element of many, which runs in tiles, or by way of rows: nothing that needs it shares its kernel.
pub(super) fn is_barrier_reduce(f: &Function, id: NodeId) -> bool {
    let node = f.node(id);
    let (Op::Reduce { axes, .. }, Some(&x)) = (&node.op, node.operands().first()) else { return false };
    let one = node.results().first().and_then(|t| t.tensor()).is_some_and(|t| Dim::product(&t.dims) == Dim::ONE);
    one && !is_small(f, node, axes) && reduces_many(f, x)
}

/// Whether a value has many elements, or is what reductions, one after the other or several together, make of many.
fn reduces_many(f: &Function, value: Value) -> bool {
    let mut at = value;
    while !is_many(f, at) {
        match (f.op(at), f.node(at.node).operands().first()) {
            (Op::Reduce { .. } | Op::Binary(_), Some(&x)) => at = x,
            _ => return false,
        }
    }
    true
}

fn is_many(f: &Function, value: Value) -> bool {
    f.ty(value).tensor().is_none_or(|t| Dim::product(&t.dims).known().is_none_or(|n| n > SPLIT_ABOVE))
}

/// Whether nothing that needs the op can share a kernel with what the op needs.
fn is_barrier(f: &Function, id: NodeId) -> bool {
    let source = matches!(f.node(id).op, Op::Input { .. } | Op::Param { .. } | Op::Constant { .. });
    is_barrier_reduce(f, id) || (!source && !is_fusable(f, id))
}

fn elements(f: &Function, value: Value) -> f64 {
    f.ty(value).tensor().map_or(1.0, cost::elements)
}

fn load_cost(f: &Function, value: Value) -> f64 {
    f.ty(value).tensor().map_or(0.0, |ty| cost::access(ty) * cost::elements(ty) * strides(ty))
}

/// How much dearer an element is to load and store because its neighbours are few: vectors run along another axis then,
/// and their lanes lie apart.
fn strides(ty: &TensorType) -> f64 {
    const APART: f64 = 4.0;
    match ty.dims.last().and_then(Dim::known) {
        Some(extent) if ty.rank() > 1 && (2..=SMALL_REDUCE).contains(&extent) => APART,
        _ => 1.0,
    }
}

fn recompute_cost(f: &Function, value: Value) -> f64 {
    let node = f.node(value.node);
    let work = match &node.op {
        Op::Reduce { .. } => node.operands().first().map_or(0.0, |v| elements(f, *v)),
        _ => elements(f, value),
    };
    ops(node) * work
}

/// Parts of an operation that capacities count.
const SCALE: f64 = 16.0;

fn scaled(cost: f64) -> u64 {
    ((cost * SCALE) as u64).min(NEVER / 2)
}

/// A flow network in which each value has two ends: what makes it, and what it is used by.
struct Network {
    graph: DiGraph<(), u64>,
    source: NodeIndex,
    sink: NodeIndex,
    ends: HashMap<Value, (NodeIndex, NodeIndex)>,
}

impl Network {
    fn new() -> Network {
        let mut graph = DiGraph::new();
        let (source, sink) = (graph.add_node(()), graph.add_node(()));
        Network { graph, source, sink, ends: HashMap::new() }
    }

    fn value(&mut self, value: Value) -> (NodeIndex, NodeIndex) {
        let graph = &mut self.graph;
        *self.ends.entry(value).or_insert_with(|| (graph.add_node(()), graph.add_node(())))
    }

    fn edge(&mut self, from: NodeIndex, to: NodeIndex, capacity: u64) {
        self.graph.add_edge(from, to, capacity);
    }

    /// The least cost of a cut, and the ends on the source's side of it.
    fn cut(&self) -> (u64, HashSet<NodeIndex>) {
        let (most, flows) = ford_fulkerson(&self.graph, self.source, self.sink);
        let flow = |edge: petgraph::graph::EdgeIndex| flows.get(edge.index()).copied().unwrap_or(0);
        let mut reached = HashSet::from([self.source]);
        let mut open = vec![self.source];
        while let Some(at) = open.pop() {
            let forward = self.graph.edges_directed(at, Direction::Outgoing);
            let forward = forward.filter(|e| flow(e.id()) < *e.weight()).map(|e| e.target());
            let back = self.graph.edges_directed(at, Direction::Incoming);
            let back = back.filter(|e| flow(e.id()) > 0).map(|e| e.source());
            let next: Vec<NodeIndex> = forward.chain(back).filter(|n| !reached.contains(n)).collect();
            for node in next {
                if reached.insert(node) {
                    open.push(node);
                }
            }
        }
        (most, reached)
    }
}
