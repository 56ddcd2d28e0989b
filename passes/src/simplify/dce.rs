//! Dead code: ops that no output needs go, and so do captured operands that no region reads.
//!
//! An `assert` passes its operand on, so what depends on the check keeps it; an assert whose result is unused is dead
//! like any op. Region inputs that a region does not read leave with the operand they bind.

use std::collections::{BTreeSet, HashSet};

use frit_ir::substitute::visit_symbols;
use frit_ir::{Function, Module, NodeId, Op, Symbol, Value};

use crate::manager::{Context, Pass, PassError};

/// The pass.
pub struct Dce;

const DEAD_OP: &str = "dead-op";
const DEAD_CAPTURE: &str = "dead-capture";

impl Pass for Dce {
    fn run(&self, module: &mut Module, context: &mut Context<'_>) -> Result<(), PassError> {
        for f in module.functions.values_mut() {
            remove_dead(f, context)?;
        }
        Ok(())
    }
}

/// Removes dead ops of a function, regions first.
pub fn remove_dead(f: &mut Function, context: &mut Context<'_>) -> Result<(), PassError> {
    for id in f.nodes() {
        for index in 0..f.node(id).regions().len() {
            if let Some(region) = f.regions_mut(id).get_mut(index) {
                remove_dead(region, context)?;
            }
        }
        drop_captures(f, id, context)?;
    }
    let mut live: HashSet<NodeId> = HashSet::new();
    let mut open: Vec<NodeId> = f.outputs().iter().map(|o| o.value.node).collect();
    while let Some(id) = open.pop() {
        if live.insert(id) {
            open.extend(f.node(id).operands().iter().map(|v| v.node));
        }
    }
    // Users go before what they use.
    let order = f.toposort().ok_or_else(|| PassError::Cycle(f.name.clone()))?;
    for id in order.into_iter().rev() {
        let dead = !live.contains(&id) && !matches!(f.node(id).op, Op::Input { .. });
        if dead && context.take(DEAD_OP) {
            f.remove_op(id);
        }
    }
    Ok(())
}

/// How many leading operands of an op are not plain captures of its regions; `None`: its regions bind operands in
/// another way.
fn fixed_operands(op: &Op) -> Option<usize> {
    match op {
        Op::If {} => Some(1),
        Op::Loop { carried, .. } => Some(2 + carried),
        Op::Fusion {} => Some(0),
        // A composite's operands are its interface.
        _ => None,
    }
}

/// Takes captures off the list whose extents alone bind symbols that a region mentions.
fn keep_bindings(region: &Function, shift: usize, unused: &mut BTreeSet<usize>) {
    let symbols = |value: Value| -> Vec<Symbol> {
        let dims = region.ty(value).tensor().map(|t| t.dims.clone()).unwrap_or_default();
        dims.iter().filter_map(|d| d.as_symbol().cloned()).collect()
    };
    let mut mentioned: BTreeSet<Symbol> = BTreeSet::new();
    visit_symbols(region, &mut |s| _ = mentioned.insert(s.clone()));
    let inputs: Vec<Value> = region.input_values().collect();
    for (_, input) in inputs.iter().enumerate().filter(|(i, _)| !unused.contains(&(i + shift))) {
        symbols(*input).iter().for_each(|s| _ = mentioned.remove(s));
    }
    for (i, input) in inputs.iter().enumerate() {
        let binds = symbols(*input);
        if unused.contains(&(i + shift)) && binds.iter().any(|s| mentioned.contains(s)) {
            unused.remove(&(i + shift));
            binds.iter().for_each(|s| _ = mentioned.remove(s));
        }
    }
}

/// Replaces an op by one without the captured operands that no region reads.
fn drop_captures(f: &mut Function, id: NodeId, context: &mut Context<'_>) -> Result<(), PassError> {
    let node = f.node(id);
    let Some(fixed) = fixed_operands(&node.op) else { return Ok(()) };
    if node.regions().is_empty() {
        return Ok(());
    }
    // Operand i binds region input i, except that `if` has its condition in front.
    let shift = usize::from(matches!(node.op, Op::If {}));
    let mut unused: BTreeSet<usize> = (fixed..node.operands().len())
        .filter(|&operand| {
            node.regions().iter().all(|region| {
                region
                    .inputs()
                    .get(operand - shift)
                    .is_some_and(|&input| region.use_count(Value { node: input, result: 0 }) == 0)
            })
        })
        .collect();
    // A branch or a loop's body runs as a program of its own; a fusion has the extents of what is around it.
    if !matches!(node.op, Op::Fusion {}) {
        node.regions().iter().for_each(|region| keep_bindings(region, shift, &mut unused));
    }
    if unused.is_empty() || !context.take(DEAD_CAPTURE) {
        return Ok(());
    }
    let node = f.node(id).clone();
    let operands: Vec<Value> =
        node.operands().iter().enumerate().filter(|(i, _)| !unused.contains(i)).map(|(_, v)| *v).collect();
    let mut regions = node.regions().to_vec();
    for region in &mut regions {
        for operand in unused.iter().rev() {
            region.remove_input(operand - shift);
        }
    }
    let new = f.add_op_with(node.op.clone(), &operands, regions, &node.origin, node.numerics).map_err(|source| {
        PassError::Rewrite { pass: "dce", rule: DEAD_CAPTURE, origin: node.origin.to_string(), source }
    })?;
    for result in 0..node.results().len() {
        f.replace_uses(Value { node: id, result }, Value { node: new, result });
    }
    f.remove_op(id);
    Ok(())
}
