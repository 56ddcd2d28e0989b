//! Less memory for more work: parts of a forward are run once more when its gradient asks for them.
//!
//! In: a function that updates state (a training step), and a number of parts. Out: the same function where the values
//! that the forward leaves for the gradient are not kept but for those at the cuts between parts; what a part leaves is
//! made again by a composite `recompute` before the gradient of that part. [`super::recompute`] decides before what is
//! asked for, and looks at elementwise ops between products; here products and convolutions are run again as well.
//!
//! ```text
//!  x --part 0--> a --part 1--> b --part 2--> loss      kept: a, b
//!                                 grad 2 <---'
//!                a --part 1'--> grad 1 <-'              part 1' waits for the gradient at b
//!  x --part 0'--> grad 0 <-'
//! ```
//!
//! A forward op is one that the first output, the loss, needs; a part is a run of them in their order. The composite's
//! region is isolated, so nothing merges what is computed twice, and it takes one value more than it reads: the gradient
//! that arrives at its part, so that it is not run before. Copies are of the same ops in the same order: no bit changes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use frit_ir::{Function, NodeId, Op, Origin, Value};

use super::cost;
use super::recompute::is_source as is_free;
use crate::manager::{Context, PassError};

const RULE: &str = "segment";
/// What the composites are called.
const NAME: &str = "recompute";

/// Cuts the forward of a training step; gives the composites, the last part's first.
pub(super) fn segment(f: &mut Function, parts: u64, context: &mut Context<'_>) -> Result<Vec<NodeId>, PassError> {
    let parts = usize::try_from(parts).unwrap_or(usize::MAX);
    if parts < 2 || f.donations.is_empty() || f.outputs().is_empty() {
        return Ok(Vec::new());
    }
    let Some(forward) = Forward::of(f, parts) else { return Err(PassError::Cycle(f.name.clone())) };
    let mut made = Vec::new();
    for part in (0..forward.parts.saturating_sub(1)).rev() {
        let Some(plan) = forward.plan(f, part) else { continue };
        if !context.take(RULE) {
            break;
        }
        made.push(plan.apply(f));
    }
    Ok(made)
}

/// Makes composites anew, behind all ops that are there: of what can run, they come last.
pub(super) fn put_last(f: &mut Function, composites: &[NodeId]) {
    for &id in composites {
        let node = f.node(id);
        let (op, operands, results) = (node.op.clone(), node.operands().to_vec(), node.results().to_vec());
        let origin = node.origin.clone();
        let regions = f.take_regions(id);
        let count = results.len();
        let last = f.add_typed(op, &operands, results, regions, &origin);
        for result in 0..count {
            f.replace_uses(Value { node: id, result }, Value { node: last, result });
        }
        f.remove_op(id);
    }
}

/// Whether an op's result is there anyhow, or made where it is used.
fn is_source(op: &Op) -> bool {
    matches!(op, Op::Input { .. } | Op::Param { .. }) || is_free(op)
}

fn bytes(f: &Function, value: Value) -> f64 {
    f.ty(value).tensor().map_or(0.0, |ty| cost::elements(ty) * ty.dtype.size() as f64)
}

/// The ops that the loss needs, cut into parts.
struct Forward {
    /// The part of each.
    part: HashMap<NodeId, usize>,
    parts: usize,
    /// Its ops in order.
    order: Vec<NodeId>,
}

/// A part that is run again.
struct Again {
    /// Values that the gradient asks for.
    asked: Vec<Value>,
    /// Ops that make them, in order.
    ops: Vec<NodeId>,
    /// What those read.
    reads: Vec<Value>,
    /// What must be there before.
    after: Value,
}

impl Forward {
    fn of(f: &Function, parts: usize) -> Option<Forward> {
        let needed = f.behind([f.outputs().first()?.value]);
        let all = f.toposort()?;
        let order: Vec<NodeId> =
            all.into_iter().filter(|id| needed.contains(id) && !is_source(&f.node(*id).op)).collect();
        let place: HashMap<NodeId, usize> = order.iter().enumerate().map(|(i, id)| (*id, i)).collect();
        // Behind each op: bytes left for the gradient so far, and bytes that the rest of the forward reads.
        let (mut left, mut across) = (vec![0.0; order.len()], vec![0.0; order.len() + 1]);
        for (at, &id) in order.iter().enumerate() {
            for result in 0..f.node(id).results().len() {
                let value = Value { node: id, result };
                let uses = f.uses(value);
                if uses.iter().any(|(user, _)| !needed.contains(user)) {
                    left[at] += bytes(f, value);
                }
                if let Some(&last) = uses.iter().filter_map(|(user, _)| place.get(user)).max() {
                    across[at] += bytes(f, value);
                    across[last] -= bytes(f, value);
                }
            }
        }
        let running = |list: &mut [f64]| {
            let mut sum = 0.0;
            for x in list {
                sum += *x;
                *x = sum;
            }
        };
        running(&mut left);
        running(&mut across);
        let cuts = cuts(&left, &across, parts);
        let part = order.iter().enumerate().map(|(at, id)| (*id, cuts.iter().filter(|cut| **cut < at).count()));
        Some(Forward { part: part.collect(), parts: cuts.len() + 1, order })
    }

    /// The part of a value's op; `None`: it is no op of the forward.
    fn at(&self, value: Value) -> Option<usize> {
        self.part.get(&value.node).copied()
    }

    /// Whether a later part reads a value, so that it lies in memory at a cut.
    fn crosses(&self, f: &Function, value: Value, part: usize) -> bool {
        f.is_output(value) || f.uses(value).iter().any(|(user, _)| self.part.get(user).is_some_and(|p| *p > part))
    }

    /// Ops behind the forward that read what a part leaves, copies included.
    fn readers(&self, f: &Function, values: impl Iterator<Item = Value>) -> HashSet<NodeId> {
        let users = values.flat_map(|v| f.uses(v)).map(|(user, _)| user);
        users.filter(|user| !self.part.contains_key(user)).collect()
    }

    fn values(&self, f: &Function, wanted: impl Fn(usize) -> bool) -> Vec<Value> {
        let ops = self.order.iter().filter(|id| self.part.get(id).is_some_and(|part| wanted(*part)));
        ops.flat_map(|&node| (0..f.node(node).results().len()).map(move |result| Value { node, result })).collect()
    }

    /// What it takes to run a part again; `None` where that brings nothing.
    fn plan(&self, f: &Function, part: usize) -> Option<Again> {
        let own = self.values(f, |p| p == part).into_iter();
        let asked: Vec<Value> = own
            .filter(|v| !self.crosses(f, *v, part))
            .filter(|v| f.uses(*v).iter().any(|(user, _)| !self.part.contains_key(user)))
            .collect();
        if asked.is_empty() {
            return None;
        }
        // Back from there to what lies in memory.
        let (mut again, mut reads, mut open) = (BTreeSet::new(), BTreeSet::new(), asked.clone());
        while let Some(value) = open.pop() {
            let stored = self.at(value) != Some(part) || self.crosses(f, value, part);
            if is_free(f.op(value)) || !stored {
                if again.insert(value.node) {
                    open.extend(f.node(value.node).operands());
                }
            } else {
                reads.insert(value);
            }
        }
        let saved: f64 = asked.iter().map(|v| bytes(f, *v)).sum();
        // What the rest of the gradient does not read lies there longer for this.
        let longer = reads.iter().filter(|v| !is_source(f.op(**v)));
        let longer = longer.filter(|v| f.uses(**v).iter().all(|(user, _)| self.part.contains_key(user)));
        if longer.map(|v| bytes(f, *v)).sum::<f64>() >= saved {
            return None;
        }
        let after = self.arriving(f, part, &asked)?;
        let sources = f.nodes().into_iter().filter(|id| again.contains(id) && is_free(&f.node(*id).op));
        let ops = sources.chain(self.order.iter().copied().filter(|id| again.contains(id))).collect();
        Some(Again { asked, ops, reads: reads.into_iter().collect(), after })
    }

    /// The gradient that arrives at a part: made from what later parts left, needed by the part's own, and of all such
    /// values the one with most behind it.
    fn arriving(&self, f: &Function, part: usize, asked: &[Value]) -> Option<Value> {
        let own = below(f, self.readers(f, asked.iter().copied()));
        let later = below(f, self.readers(f, self.values(f, |p| p > part).into_iter()));
        let mut depth: HashMap<NodeId, usize> = HashMap::new();
        let mut best: Option<(usize, Value)> = None;
        for id in f.toposort()? {
            let operands = f.node(id).operands();
            let behind = operands.iter().filter_map(|v| depth.get(&v.node)).max().map_or(0, |d| d + 1);
            depth.insert(id, behind);
            if !own.contains(&id) {
                continue;
            }
            for &value in operands {
                let arrives = later.contains(&value.node) && !own.contains(&value.node);
                let behind = depth.get(&value.node).copied().unwrap_or(0);
                if arrives && best.is_none_or(|(most, _)| behind > most) {
                    best = Some((behind, value));
                }
            }
        }
        best.map(|(_, value)| value)
    }
}

/// Ops and all that depends on them.
fn below(f: &Function, from: HashSet<NodeId>) -> HashSet<NodeId> {
    let mut open: Vec<NodeId> = from.iter().copied().collect();
    let mut found = from;
    while let Some(id) = open.pop() {
        for result in 0..f.node(id).results().len() {
            for (user, _) in f.uses(Value { node: id, result }) {
                if found.insert(user) {
                    open.push(user);
                }
            }
        }
    }
    found
}

/// Where to cut: behind which ops, at most one less than parts. Parts leave about equally much; near such a place the
/// cut goes where least is read across it.
fn cuts(left: &[f64], across: &[f64], parts: usize) -> Vec<usize> {
    let total = left.last().copied().unwrap_or(0.0);
    let mut cuts: Vec<usize> = Vec::new();
    for i in 1..parts.min(left.len()) {
        let (ideal, reach) = (total * i as f64 / parts as f64, total / (2 * parts) as f64);
        let first = cuts.last().map_or(0, |cut| cut + 1);
        let near = (first..left.len().saturating_sub(1)).filter(|at| (left[*at] - ideal).abs() <= reach);
        let off = |at: &usize| (left[*at] - ideal).abs();
        let best = near.min_by(|a, b| across[*a].total_cmp(&across[*b]).then(off(a).total_cmp(&off(b))));
        cuts.extend(best);
    }
    cuts
}

impl Again {
    fn apply(self, f: &mut Function) -> NodeId {
        let mut body = Function::new("");
        body.symbols.clone_from(&f.symbols);
        let mut map: BTreeMap<Value, Value> = BTreeMap::new();
        let mut operands = self.reads.clone();
        operands.push(self.after);
        for (i, &read) in operands.iter().enumerate() {
            let input = body.add_input(&format!("i{i}"), f.ty(read).clone());
            map.entry(read).or_insert(input);
        }
        for &id in &self.ops {
            let node = f.node(id);
            let inside: Vec<Value> = node.operands().iter().filter_map(|v| map.get(v).copied()).collect();
            let copy = body.add_copy(node, &inside);
            for result in 0..node.results().len() {
                map.insert(Value { node: id, result }, Value { node: copy, result });
            }
        }
        let results = self.asked.iter().map(|v| f.ty(*v).clone()).collect();
        for (i, value) in self.asked.iter().enumerate() {
            if let Some(&inside) = map.get(value) {
                body.add_output(&format!("o{i}"), inside);
            }
        }
        let own = self.asked.iter().map(|v| &f.node(v.node).origin);
        let origin = Origin::merge(own);
        let op = Op::Composite { name: NAME.to_owned(), attributes: BTreeMap::new() };
        // Who reads them: the gradient, but not the composite itself, which is not there yet, nor the forward.
        let forward = f.behind(f.outputs().first().map(|output| output.value));
        let node = f.add_typed(op, &operands, results, vec![body], &origin);
        for (result, &value) in self.asked.iter().enumerate() {
            for (user, operand) in f.uses(value) {
                if !forward.contains(&user) && user != node {
                    f.set_operand(user, operand, Value { node, result });
                }
            }
        }
        node
    }
}

#[cfg(test)]
mod tests {
    use frit_ir::model::Mlp;
    use frit_ir::model::train::{Loss, Recipe, Update, train_module};
    use frit_ir::reference::{Options as EvalOptions, eval_function};
    use frit_ir::testing::Rng;
    use frit_ir::{HostValue, Module, Tensor};
    use indexmap::IndexMap;

    use super::*;
    use crate::manager::{Math, Options, Pipeline, run};

    /// The training step of a chain of layers, on 64 records, its forward in so many parts.
    fn step(parts: u32) -> Module {
        let module = Mlp { layers: vec![6, 32, 32, 32, 32, 3], ..Mlp::default() }.module(0).unwrap();
        let update = Update::Adam { decoupled: true, beta2: 0.999, epsilon: 1e-8 };
        let loss = Loss::CrossEntropy { smoothing: 0.0 };
        let recipe = Recipe { loss, output: None, update, decay: IndexMap::new(), clip_norm: None, frozen: Vec::new() };
        let mut made = train_module(&module, &recipe).unwrap();
        let batch = |s: &frit_ir::Symbol| (s.name() == "B").then(|| frit_ir::Dim::from(64usize));
        made.functions.values_mut().for_each(|f| frit_ir::substitute::substitute(f, &batch));
        let text = format!("legalize,shape,canonicalize,grad,simplify,strength,cse,fuse(segments={parts})");
        let options = Options { math: Math::Strict, ..Options::default() };
        run(&mut made, &Pipeline::parse(&text).unwrap(), &options).unwrap();
        made
    }

    fn composites(f: &Function) -> Vec<NodeId> {
        let order = f.toposort().unwrap();
        order.into_iter().filter(|id| matches!(f.node(*id).op, Op::Composite { .. })).collect()
    }

    fn results(module: &Module) -> Vec<HostValue> {
        let (mut rng, f) = (Rng::new(7), &module.functions["train_step"]);
        let input = |value: Value| {
            let ty = f.ty(value).tensor().unwrap();
            let shape = ty.known_dims().unwrap();
            let count = shape.iter().product::<usize>();
            HostValue::Tensor(match ty.dtype {
                frit_ir::DType::I64 => Tensor::i64(&shape, &vec![1; count]).unwrap(),
                _ => {
                    let numbers: Vec<f32> = (0..count).map(|_| rng.signed_unit().abs() as f32 + 0.1).collect();
                    Tensor::f32(&shape, &numbers).unwrap()
                }
            })
        };
        let inputs: Vec<HostValue> = f.input_values().map(input).collect();
        eval_function(module, f, &inputs, EvalOptions::default()).unwrap()
    }

    #[test]
    fn parts_of_the_forward_run_again_and_no_bit_changes() {
        let (whole, cut) = (step(1), step(3));
        let expected = results(&whole);
        assert!(composites(&whole.functions["train_step"]).is_empty());
        let f = &cut.functions["train_step"];
        let again = composites(f);
        assert_eq!(again.len(), 2, "all parts but the last");
        // Products are run again, in kernels of their own.
        let ops = |id: &NodeId| {
            let region = &f.node(*id).regions()[0];
            region.nodes().into_iter().map(|id| region.node(id).op.name()).collect::<Vec<_>>()
        };
        for id in &again {
            assert!(ops(id).contains(&"dot_general") && ops(id).contains(&"fusion"), "{:?}", ops(id));
        }
        // The first part is run last: it waits for the gradient that the other's values lead to.
        assert!(below(f, HashSet::from([again[0]])).contains(&again[1]));
        assert!(results(&cut) == expected);
        // An evaluation has no gradient.
        assert!(composites(&cut.functions["evaluate"]).is_empty());
    }

    #[test]
    fn cuts_go_where_least_is_read_across() {
        let left = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
        let across = [9.0, 9.0, 9.0, 9.0, 1.0, 9.0, 9.0, 0.0];
        assert_eq!(cuts(&left, &across, 2), [4]);
        assert_eq!(cuts(&left, &[1.0; 8], 4), [1, 3, 5]);
        assert_eq!(cuts(&left, &across, 1), [0; 0]);
        assert!(cuts(&[], &[], 5).is_empty() && cuts(&[1.0], &[1.0], 5).is_empty());
        assert!(cuts(&left, &across, 100).windows(2).all(|pair| pair[0] < pair[1]));
    }
}
