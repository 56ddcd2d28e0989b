//! Symbols: each is bound before a run needs it, and its facts can hold (V11, V12).
//!
//! A function's symbols get their values from the shapes of its inputs, so each has to be the whole extent of some
//! input's axis: of `2*B` alone the value would have to be solved for, and might not exist. The others are
//! data-dependent and get theirs from the op that makes them. Regions see the symbols of the function around them.

use std::collections::BTreeSet;

use super::{Invariant, Report};
use crate::graph::{Function, Node};
use crate::op::{Op, OpClass};
use crate::substitute::{symbols_of_attribute, symbols_of_type};
use crate::types::{Dim, Symbol, ValueType};

/// Checks a function of the module with all its regions.
pub(super) fn check(f: &Function, name: &str, report: &mut Report) {
    for (symbol, facts) in &f.symbols {
        if facts.min < 0 || facts.multiple_of < 0 || facts.max.is_some_and(|max| max < facts.min) {
            report.add(Invariant::V12, name, None, format!("the facts of {symbol} can't hold: {facts:?}"));
        }
    }
    let mut bound = BTreeSet::new();
    super::visit(f, 0, &mut |_, node, depth| {
        if matches!(node.op, Op::Onnx { .. }) {
            // A subgraph's inputs have shapes of their own.
            for region in node.regions() {
                region.inputs().iter().filter_map(|&i| region.get(i)).for_each(|n| bind(n, &mut bound));
            }
        }
        if depth == 0 || !matches!(node.op, Op::Input { .. }) {
            bind(node, &mut bound);
        }
    });
    let mut unbound = BTreeSet::new();
    super::visit(f, 0, &mut |_, node, _| {
        let mut used = |s: &Symbol| {
            if !bound.contains(s) && unbound.insert(s.clone()) {
                let message = format!("{s} is neither the whole extent of an input's axis nor made by an op");
                report.add(Invariant::V11, name, Some(node), message);
            }
        };
        node.results().iter().for_each(|ty| symbols_of_type(ty, &mut used));
        if node.op.class() != OpClass::Foreign {
            node.op.attributes().iter().for_each(|(_, value)| symbols_of_attribute(value, &mut used));
        }
    });
    requirements(f, 0, &bound, name, report);
}

fn requirements(f: &Function, depth: usize, bound: &BTreeSet<Symbol>, name: &str, report: &mut Report) {
    for requirement in f.requirements() {
        for dim in [&requirement.left, &requirement.right] {
            dim.visit_symbols(&mut |s| {
                if !bound.contains(s) {
                    let message = format!("the requirement {requirement} mentions {s}, which nothing binds");
                    report.add(Invariant::V11, name, None, message);
                }
            });
        }
    }
    if depth < super::MAX_DEPTH {
        let regions = |id| f.get(id).into_iter().flat_map(Node::regions);
        f.nodes().into_iter().flat_map(regions).for_each(|r| requirements(r, depth + 1, bound, name, report));
    }
}

/// The symbols that an op gives a value.
fn bind(node: &Node, bound: &mut BTreeSet<Symbol>) {
    let mut make = |s: &Symbol| {
        bound.insert(s.clone());
    };
    match &node.op {
        Op::Compact { count } => make(count),
        Op::Loop { trips, .. } => trips.as_symbol().into_iter().for_each(make),
        Op::SequenceConstruct { element } => symbols_of_type(element, &mut make),
        Op::Onnx { .. } | Op::Absent {} | Op::Call { .. } => {
            node.results().iter().for_each(|ty| symbols_of_type(ty, &mut make));
        }
        Op::Input { .. } => node.results().iter().for_each(|ty| match ty {
            ValueType::Tensor(t) => t.dims.iter().filter_map(Dim::as_symbol).for_each(&mut make),
            other => symbols_of_type(other, &mut make),
        }),
        _ => {}
    }
}
