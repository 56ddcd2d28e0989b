//! Which symbols a program has, and who binds them: extents of inputs, steps that find data-dependent extents.

use frit_ir::{Function, Node, Op, Symbol, ValueType};

use super::super::{Bind, Guard, State, StateForm};
use super::{BuildError, Building};

/// Symbols that ops of a function introduce: their extents are known only after a step.
pub(super) fn late_symbols(function: &Function) -> Vec<Symbol> {
    let inputs = input_symbols(function);
    let mut late: Vec<Symbol> = function.nodes().into_iter().flat_map(|id| bound_by(function.node(id))).collect();
    late.retain(|s| !inputs.contains(s));
    late
}

/// Symbols that an op introduces.
pub(super) fn bound_by(node: &Node) -> Vec<Symbol> {
    match &node.op {
        Op::Compact { count } => vec![count.clone()],
        Op::Loop { trips, .. } => trips.as_symbol().cloned().into_iter().collect(),
        // Branches with extents of their own give them fresh symbols.
        Op::If {} => node
            .results()
            .iter()
            .filter_map(ValueType::tensor)
            .flat_map(|t| t.dims.iter().filter_map(|d| d.as_symbol().cloned()))
            .collect(),
        Op::Fusion {} | Op::Composite { .. } => node.regions().iter().flat_map(late_symbols).collect(),
        _ => Vec::new(),
    }
}

fn input_symbols(function: &Function) -> Vec<Symbol> {
    function
        .input_values()
        .filter_map(|v| function.ty(v).tensor())
        .flat_map(|t| t.dims.iter().filter_map(|d| d.as_symbol().cloned()))
        .collect()
}

/// Binds each symbol by the first extent that is exactly it; every other extent becomes a guard.
pub(super) fn bind_symbols(b: &mut Building, function: &Function) {
    let mut bound: Vec<Symbol> = Vec::new();
    for (input, value) in function.input_values().enumerate() {
        let Some(t) = function.ty(value).tensor() else { continue };
        for (axis, dim) in t.dims.iter().enumerate() {
            let (input, axis) = (input as u32, axis as u32);
            match dim.as_symbol() {
                Some(s) if !bound.contains(s) => {
                    bound.push(s.clone());
                    let symbol = b.symbol(s);
                    b.program.binds.push(Bind { symbol, input, axis });
                }
                _ => {
                    let dim = b.dim(dim);
                    b.program.guards.push(Guard::Extent { input, axis, dim });
                }
            }
        }
    }
}

pub(super) fn check_symbols(b: &Building, function: &str) -> Result<(), BuildError> {
    let capacity = |state: &State| match state.form {
        StateForm::Append { capacity, .. } => Some(capacity),
        StateForm::InPlace { .. } | StateForm::Copied { .. } => None,
    };
    for (i, symbol) in b.program.symbols.iter().enumerate() {
        let bound = b.program.binds.iter().any(|bind| bind.symbol == i as u32)
            || b.program.states.iter().any(|s| capacity(s) == Some(i as u32))
            || b.late.contains(symbol);
        if !bound {
            return Err(BuildError::Unbound { function: function.to_owned(), symbol: symbol.name().to_owned() });
        }
    }
    Ok(())
}

pub(super) fn result_binds(b: &mut Building, node: &Node) -> Vec<Bind> {
    let mut binds = Vec::new();
    for (result, ty) in node.results().iter().enumerate() {
        for (axis, dim) in ty.tensor().iter().flat_map(|t| t.dims.iter().enumerate()) {
            if let Some(s) = dim.as_symbol()
                && b.late.contains(s)
            {
                let symbol = b.symbol(s);
                binds.push(Bind { symbol, input: result as u32, axis: axis as u32 });
            }
        }
    }
    binds
}
