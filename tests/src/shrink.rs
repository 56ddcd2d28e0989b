//! Failing modules made small.
//!
//! In: a case and a predicate that holds for it. Out: a case for which it still holds and that none of these steps makes
//! smaller: return one value only, replace an op's result by an input or by an operand, and drop what is then unused.
//! Inputs are drawn anew from the seed each time, so the predicate decides on values too.

use frit_ir::{Function, Module, NodeId, Op, Value};

use crate::case::Case;

/// Most tries: a predicate compiles and runs, so this bounds the wait at some ten seconds.
const TRIES: usize = 400;

/// The smallest case found for which `fails` holds.
pub fn shrink(case: &Case, seed: u64, fails: &dyn Fn(&Case) -> bool) -> Case {
    let mut best = case.clone();
    let mut tries = 0;
    loop {
        let fed = candidates(&best.module).filter_map(|module| Case::fed(module, seed));
        let smaller = fed.take(TRIES.saturating_sub(tries)).inspect(|_| tries += 1).find(|case| fails(case));
        match smaller {
            Some(case) => best = case,
            None => return best,
        }
    }
}

/// Smaller modules, the boldest first.
fn candidates(module: &Module) -> impl Iterator<Item = Module> + '_ {
    let order = module.entry().and_then(Function::toposort).unwrap_or_default();
    let results = |id: NodeId| {
        let count = module.entry().and_then(|f| f.get(id)).map_or(0, |node| node.results().len());
        (0..count).map(move |result| Value { node: id, result })
    };
    let returned = order.clone().into_iter().flat_map(results).filter_map(|value| returning(module, value));
    let cut = order.clone().into_iter().rev().filter_map(|id| without(module, id));
    let passed = order.into_iter().rev().flat_map(move |id| (0..2).filter_map(move |at| passing(module, id, at)));
    returned.chain(cut).chain(passed).filter(|smaller| size(smaller) < size(module))
}

/// Ops that compute, then all ops and outputs: what every step makes smaller, so that shrinking ends.
fn size(module: &Module) -> (usize, usize) {
    let Some(f) = module.entry() else { return (0, 0) };
    let nodes = f.nodes();
    let computing = nodes.iter().filter(|id| !matches!(f.node(**id).op, Op::Input { .. })).count();
    (computing, nodes.len() + f.outputs().len())
}

/// The module with one value of it as its only output.
fn returning(module: &Module, value: Value) -> Option<Module> {
    let mut module = module.clone();
    let function = module.entry_mut()?;
    if matches!(function.op(value), Op::Input { .. }) {
        return None;
    }
    function.clear_outputs();
    function.add_output("y", value);
    function.donations.clear();
    prune(&mut module);
    Some(module)
}

/// The module with an op's first result as an input instead.
fn without(module: &Module, id: NodeId) -> Option<Module> {
    let mut module = module.clone();
    let function = module.entry_mut()?;
    let node = function.get(id)?;
    let leaf = matches!(node.op, Op::Input { .. } | Op::Constant { .. } | Op::Param { .. } | Op::Iota { .. });
    if leaf || node.results().len() != 1 {
        return None;
    }
    let ty = node.results().first()?.clone();
    let taken =
        |name: &str| function.input_values().any(|v| matches!(function.op(v), Op::Input { name: n, .. } if n == name));
    let name = (0..).map(|n| format!("cut{n}")).find(|name| !taken(name))?;
    let input = function.add_input(&name, ty);
    function.replace_uses(Value { node: id, result: 0 }, input);
    prune(&mut module);
    Some(module)
}

/// The module with an op's result replaced by an operand of the same type.
fn passing(module: &Module, id: NodeId, operand: usize) -> Option<Module> {
    let mut module = module.clone();
    let function = module.entry_mut()?;
    let (value, from) = (Value { node: id, result: 0 }, *function.get(id)?.operands().get(operand)?);
    if function.get(id)?.results().len() != 1 || function.ty(value) != function.ty(from) {
        return None;
    }
    function.replace_uses(value, from);
    prune(&mut module);
    Some(module)
}

/// Drops ops and parameters that nothing reads.
fn prune(module: &mut Module) {
    let Some(function) = module.entry_mut() else { return };
    loop {
        let unused = |id: &NodeId| {
            let node = function.node(*id);
            let free = |result| {
                let value = Value { node: *id, result };
                function.use_count(value) == 0 && !function.is_output(value)
            };
            !matches!(node.op, Op::Input { .. } | Op::Assert { .. }) && (0..node.results().len()).all(free)
        };
        let dead: Vec<NodeId> = function.nodes().into_iter().filter(unused).collect();
        // Refused removals must not be tried for ever.
        if dead.into_iter().filter(|id| function.remove_op(*id)).count() == 0 {
            break;
        }
    }
    let mut index = 0;
    while let Some(id) = function.inputs().get(index).copied() {
        let value = Value { node: id, result: 0 };
        let idle = function.use_count(value) == 0 && !function.is_output(value);
        if !(idle && function.remove_input(index)) {
            index += 1;
        }
    }
    let mut used = std::collections::BTreeSet::new();
    for id in function.nodes() {
        if let Op::Param { name, .. } = &function.node(id).op {
            used.insert(name.clone());
        }
    }
    module.params.retain(|name, _| used.contains(name));
}
