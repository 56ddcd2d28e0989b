//! Which names a graph takes from outside, and the order its nodes run in.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use indexmap::IndexSet;

use super::super::error::OnnxError;
use super::super::proto::{GraphProto, NodeProto};

/// Names that a graph uses and does not define, in the order of their first use. Decoding bounds the nesting of
/// graphs, so recursion is safe.
pub(super) fn free_names(graph: &GraphProto) -> IndexSet<&str> {
    let inputs = graph.input.iter().map(|i| i.name());
    let initializers = graph.initializer.iter().map(|t| t.name());
    let sparse = graph.sparse_initializer.iter().filter_map(|t| t.values.as_ref()).map(|t| t.name());
    let results = graph.node.iter().flat_map(|n| &n.output).map(String::as_str);
    let defined: HashSet<&str> = inputs.chain(initializers).chain(sparse).chain(results).collect();
    let outputs = graph.output.iter().map(|o| o.name());
    let used = graph.node.iter().flat_map(uses).chain(outputs);
    used.filter(|name| !defined.contains(name)).collect()
}

/// Names that a node uses, in its own operands and in its subgraphs; a name may come twice.
fn uses(node: &NodeProto) -> Vec<&str> {
    let mut names: Vec<&str> = node.input.iter().map(String::as_str).filter(|n| !n.is_empty()).collect();
    for attribute in &node.attribute {
        for graph in attribute.g.iter().chain(&attribute.graphs) {
            names.extend(free_names(graph));
        }
    }
    names
}

/// Indices of the nodes in an order in which each comes after those it uses: the file's own where that is one.
pub(super) fn order(nodes: &[NodeProto]) -> Result<Vec<usize>, OnnxError> {
    let mut producers: HashMap<&str, usize> = HashMap::with_capacity(nodes.len());
    for (index, node) in nodes.iter().enumerate() {
        producers.extend(node.output.iter().filter(|o| !o.is_empty()).map(|o| (o.as_str(), index)));
    }
    let needs: Vec<HashSet<usize>> =
        nodes.iter().map(|n| uses(n).into_iter().filter_map(|name| producers.get(name).copied()).collect()).collect();
    if needs.iter().enumerate().all(|(index, needs)| needs.iter().all(|need| *need < index)) {
        return Ok((0..nodes.len()).collect());
    }

    let mut waiting: Vec<usize> = needs.iter().map(HashSet::len).collect();
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (index, needs) in needs.iter().enumerate() {
        for need in needs {
            if let Some(users) = users.get_mut(*need) {
                users.push(index);
            }
        }
    }
    let ready = waiting.iter().enumerate().filter(|(_, needs)| **needs == 0).map(|(index, _)| Reverse(index));
    let mut ready: BinaryHeap<_> = ready.collect();
    let mut sorted = Vec::with_capacity(nodes.len());
    while let Some(Reverse(index)) = ready.pop() {
        sorted.push(index);
        for &user in users.get(index).into_iter().flatten() {
            if let Some(left) = waiting.get_mut(user) {
                *left -= 1;
                if *left == 0 {
                    ready.push(Reverse(user));
                }
            }
        }
    }
    if sorted.len() == nodes.len() {
        return Ok(sorted);
    }
    let done: HashSet<usize> = sorted.into_iter().collect();
    Err(OnnxError::invalid("graph", format!("has a cycle: {}", cycle(nodes, &needs, &done))))
}

/// The nodes of one cycle among those that are not done, each using the next.
fn cycle(nodes: &[NodeProto], needs: &[HashSet<usize>], done: &HashSet<usize>) -> String {
    const SHOWN: usize = 6;
    let next = |index: usize| needs.get(index).and_then(|n| n.iter().filter(|n| !done.contains(n)).min()).copied();
    let mut path: IndexSet<usize> = IndexSet::new();
    let mut at = (0..nodes.len()).find(|index| !done.contains(index));
    while let Some(index) = at
        && path.insert(index)
    {
        at = next(index);
    }
    let start = at.and_then(|index| path.get_index_of(&index)).unwrap_or(0);
    let names = path.iter().skip(start).filter_map(|index| nodes.get(*index)).map(super::body::title);
    let mut names: Vec<String> = names.collect();
    if names.len() > SHOWN {
        names.truncate(SHOWN);
        names.push("...".to_owned());
    }
    names.join(" uses ")
}
