//! Ops that stand twice in one kernel: one of them goes.
//!
//! What was copied to be computed again may end up in the kernel of what it was copied from, or two copies in one. Then
//! they are one op there, one output, and one operand of every kernel that reads them, where more becomes equal in turn.

use std::collections::{HashMap, HashSet};

use frit_ir::{Function, NodeId, Value};
use petgraph::algo::toposort;
use petgraph::graph::{DiGraph, NodeIndex};

use super::outline::Outline;
use crate::simplify::cse::{equal, key};

/// Merges equal ops within each kernel. Gives what would have been stored twice, with what is stored.
pub(super) fn merge(f: &Function, outlines: &mut [Outline]) -> HashMap<Value, Value> {
    let mut stored: HashMap<Value, Value> = HashMap::new();
    for index in in_order(outlines) {
        let Some(outline) = outlines.get_mut(index) else { continue };
        let Outline { members, outputs, reads, same, .. } = outline;
        same.extend(reads.iter().filter_map(|read| Some((*read, *stored.get(read)?))));
        let mut once = HashSet::new();
        reads.retain_mut(|read| {
            *read = *same.get(read).unwrap_or(read);
            once.insert(*read)
        });
        let mut seen: HashMap<u64, Vec<NodeId>> = HashMap::new();
        members.retain(|&id| {
            let standing = |v: Value| *same.get(&v).unwrap_or(&v);
            let alike = seen.entry(key(f, id, &standing)).or_default();
            let Some(&first) = alike.iter().find(|other| equal(f, **other, id, &standing)) else {
                alike.push(id);
                return true;
            };
            same.insert(Value { node: id, result: 0 }, Value { node: first, result: 0 });
            false
        });
        let mut once = HashSet::new();
        outputs.retain_mut(|output| {
            if let Some(first) = same.get(output) {
                stored.insert(*output, *first);
                *output = *first;
            }
            once.insert(*output)
        });
    }
    stored
}

/// Kernels, those that others read first.
fn in_order(outlines: &[Outline]) -> Vec<usize> {
    let mut graph: DiGraph<(), ()> = DiGraph::new();
    let nodes: Vec<NodeIndex> = outlines.iter().map(|_| graph.add_node(())).collect();
    let outputs = outlines.iter().zip(&nodes).flat_map(|(outline, node)| outline.outputs.iter().map(|o| (*o, *node)));
    let home: HashMap<Value, NodeIndex> = outputs.collect();
    for (outline, node) in outlines.iter().zip(&nodes) {
        for from in outline.reads.iter().filter_map(|read| home.get(read)) {
            graph.update_edge(*from, *node, ());
        }
    }
    // Kernels make no cycle. If they did, no merge would be the least harm.
    toposort(&graph, None).unwrap_or_default().into_iter().map(NodeIndex::index).collect()
}
