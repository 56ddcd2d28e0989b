//! Failing modules made small.
//!
//! In: a case and a predicate that holds for it. Out: a case for which it still holds and that none of these steps makes
//! smaller: keep one output only, or replace an op's result by an input and drop what is then unused. Inputs are drawn
//! anew from the seed each time, so the predicate decides on values too.

use frit_ir::{Module, NodeId, Op, Value};

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
    let (outputs, mut nodes) = match module.entry() {
        Some(f) => (f.outputs().len(), f.toposort().unwrap_or_default()),
        None => (0, Vec::new()),
    };
    nodes.reverse();
    let single = (0..if outputs > 1 { outputs } else { 0 }).filter_map(|keep| with_output(module, keep));
    let cut = nodes.into_iter().filter_map(|id| without(module, id));
    single.chain(cut)
}

fn with_output(module: &Module, keep: usize) -> Option<Module> {
    let mut module = module.clone();
    let function = module.entry_mut()?;
    let output = function.outputs().get(keep)?.clone();
    function.clear_outputs();
    function.add_output(&output.name, output.value);
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
    let name = format!("cut{}", function.inputs().len());
    let input = function.add_input(&name, ty);
    function.replace_uses(Value { node: id, result: 0 }, input);
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
