//! Groups become `fusion` nodes.
//!
//! The region takes what the group reads, in the order of first use, and gives its outputs in dependency order. The
//! ops it was made from go when nothing uses them any more.

use std::collections::HashMap;

use frit_ir::op::infer::TypeError;
use frit_ir::{Function, Node, NodeId, Numerics, Op, OpClass, Origin, Value};

/// A group as ids of the function.
pub(super) struct Outline {
    /// Ops computed, in dependency order.
    pub(super) members: Vec<NodeId>,
    /// Values stored.
    pub(super) outputs: Vec<Value>,
    /// Values read.
    pub(super) reads: Vec<Value>,
    /// Values that others stand for.
    pub(super) same: HashMap<Value, Value>,
}

impl Outline {
    /// Whether it is worth a node: several ops, not all of them mere names for the same memory.
    pub(super) fn is_kernel(&self, f: &Function) -> bool {
        self.members.len() > 1 && self.members.iter().any(|id| !matches!(f.node(*id).op, Op::Reshape { .. }))
    }

    /// Adds the `fusion` node; the members stay for now.
    pub(super) fn add(&self, f: &mut Function) -> Result<NodeId, TypeError> {
        let mut body = Function::new("");
        body.symbols = f.symbols.clone();
        let mut map: HashMap<Value, Value> = HashMap::new();
        for (i, &read) in self.reads.iter().enumerate() {
            map.insert(read, body.add_input(&format!("i{i}"), f.ty(read).clone()));
        }
        for &id in &self.members {
            let node = f.node(id);
            let standing = |v: &Value| map.get(self.same.get(v).unwrap_or(v)).copied();
            let operands: Vec<Value> = node.operands().iter().filter_map(standing).collect();
            let new = body.add_op_with(node.op.clone(), &operands, Vec::new(), &node.origin, node.numerics)?;
            map.insert(Value { node: id, result: 0 }, Value { node: new, result: 0 });
        }
        for (i, output) in self.outputs.iter().enumerate() {
            if let Some(&value) = map.get(output) {
                body.add_output(&format!("o{i}"), value);
            }
        }
        let nodes: Vec<&Node> = self.members.iter().map(|id| f.node(*id)).collect();
        // Constants and views may be anybody's.
        let own = |n: &&&Node| !matches!(n.op.class(), OpClass::Source | OpClass::Movement);
        let mut origin = Origin::merge(nodes.iter().filter(own).map(|n| &n.origin));
        if origin.is_empty() {
            origin = Origin::merge(nodes.iter().map(|n| &n.origin));
        }
        let numerics = nodes.iter().filter(|n| n.op.takes_numerics()).map(|n| n.numerics).reduce(Numerics::meet);
        let numerics = numerics.unwrap_or_default();
        f.add_op_with(Op::Fusion {}, &self.reads, vec![body], &origin, numerics)
    }
}
