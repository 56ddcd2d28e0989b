//! Common subexpressions: of two ops with equal op, operands, numerics and regions, the later goes.
//!
//! One walk in dependency order: operands of an op are already the kept ones when it is looked up, so chains of equal
//! ops merge in one pass. Origins are merged. Operands of commutative ops are compared in either order.
//!
//! Keys are the op's text plus operands, so only ops with small attributes are spelled out; constants compare by value
//! after their hash agrees.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use frit_ir::{Function, Module, NodeId, Op, OpClass, Origin, Value};

use crate::manager::{Context, Pass, PassError};

/// The pass.
pub struct Cse;

const RULE: &str = "common-subexpression";

impl Pass for Cse {
    fn run(&self, module: &mut Module, context: &mut Context<'_>) -> Result<(), PassError> {
        for f in module.functions.values_mut() {
            merge_equal(f, context)?;
        }
        Ok(())
    }
}

/// Merges equal ops of a function, regions first.
pub fn merge_equal(f: &mut Function, context: &mut Context<'_>) -> Result<(), PassError> {
    let order = f.toposort().ok_or_else(|| PassError::Cycle(f.name.clone()))?;
    let mut seen: HashMap<u64, Vec<NodeId>> = HashMap::new();
    for id in order {
        for region in f.regions_mut(id) {
            merge_equal(region, context)?;
        }
        // Ops with regions stay: comparing functions costs more than such pairs are worth.
        if matches!(f.node(id).op, Op::Input { .. } | Op::Onnx { .. } | Op::Call { .. })
            || !f.node(id).regions().is_empty()
        {
            continue;
        }
        let as_it_is = |v: Value| v;
        let candidates = seen.entry(key(f, id, &as_it_is)).or_default();
        let Some(&kept) = candidates.iter().find(|other| equal(f, **other, id, &as_it_is)) else {
            candidates.push(id);
            continue;
        };
        if !context.take(RULE) {
            return Ok(());
        }
        // Of what every op may share, as 0 and 1 and their repetitions, the first says enough.
        if !matches!(f.node(id).op.class(), OpClass::Source | OpClass::Movement) {
            let origin = Origin::merge([&f.node(kept).origin, &f.node(id).origin]);
            f.set_origin(kept, origin);
        }
        for result in 0..f.node(id).results().len() {
            f.replace_uses(Value { node: id, result }, Value { node: kept, result });
        }
        f.remove_op(id);
    }
    Ok(())
}

/// Operands, each as what stands for it; of commutative ops in one order.
fn operands(f: &Function, id: NodeId, standing: &dyn Fn(Value) -> Value) -> Vec<Value> {
    let node = f.node(id);
    let mut operands: Vec<Value> = node.operands().iter().map(|v| standing(*v)).collect();
    if let Op::Binary(op) = node.op
        && op.is_commutative()
    {
        operands.sort_unstable();
    }
    operands
}

/// Equal for equal ops; `standing` gives what stands for an operand.
pub(crate) fn key(f: &Function, id: NodeId, standing: &dyn Fn(Value) -> Value) -> u64 {
    let node = f.node(id);
    let mut hasher = DefaultHasher::new();
    node.op.name().hash(&mut hasher);
    operands(f, id, standing).hash(&mut hasher);
    node.results().hash(&mut hasher);
    if let Op::Constant { value } = &node.op {
        // The ends of a large constant are enough to tell most apart.
        let bytes = value.bytes();
        bytes.get(..bytes.len().min(256)).hash(&mut hasher);
    }
    hasher.finish()
}

/// Whether ops without regions compute the same. Bits decide, so that constants holding NaN merge and 0 and -0 don't: attributes hold no other floats that reach here.
pub(crate) fn equal(f: &Function, a: NodeId, b: NodeId, standing: &dyn Fn(Value) -> Value) -> bool {
    let (left, right) = (f.node(a), f.node(b));
    left.op == right.op
        && left.numerics == right.numerics
        && left.results() == right.results()
        && operands(f, a, standing) == operands(f, b, standing)
}
