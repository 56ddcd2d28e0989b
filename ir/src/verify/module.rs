//! Checks across functions: names, parameters, calls, donations (V8 to V10, V13, V15, V16).

use std::collections::{BTreeMap, HashMap, HashSet};

use super::function::{self, signature, stray_element, type_of};
use super::{Invariant, Report, symbols};
use crate::graph::{Function, Node};
use crate::module::Module;
use crate::op::Op;
use crate::types::{Dim, Symbol, ValueType};

/// Checks a module.
pub(super) fn check(module: &Module, report: &mut Report) {
    for (name, param) in &module.params {
        if let Some(message) = stray_element(&param.value) {
            report.add(Invariant::V15, "", None, format!("parameter \"{name}\": {message}"));
        }
    }
    for (name, f) in &module.functions {
        if *name != f.name {
            report.add(Invariant::V16, name, None, format!("it calls itself `{}`", f.name));
        }
        function::check(f, name, 0, report);
        symbols::check(f, name, report);
        donations(f, name, report);
        super::visit(f, 0, &mut |owner, node, _| match &node.op {
            Op::Param { name: param, .. } => {
                let message = match module.params.get(param) {
                    None => format!("the store has no parameter \"{param}\""),
                    Some(p) if node.results() != [p.value.ty().into()] => {
                        format!("\"{param}\" is {} in the store", p.value.ty())
                    }
                    Some(_) => return,
                };
                report.add(Invariant::V8, name, Some(node), message);
            }
            Op::Call { function } => {
                if let Err(message) = call(module, owner, node, function) {
                    report.add(Invariant::V9, name, Some(node), message);
                }
            }
            _ => {}
        });
    }
    recursion(module, report);
}

/// V9 for one call.
fn call(module: &Module, owner: &Function, node: &Node, function: &str) -> Result<(), String> {
    let callee = module.functions.get(function).ok_or_else(|| format!("the module has no function `{function}`"))?;
    let Some(takes) = signature(callee) else { return Ok(()) };
    let given: Option<Vec<&ValueType>> = node.operands().iter().map(|v| type_of(owner, *v)).collect();
    // A dead operand was reported already.
    let Some(given) = given else { return Ok(()) };
    if given.len() != takes.inputs.len() || node.results().len() != takes.outputs.len() {
        let (inputs, outputs) = (takes.inputs.len(), takes.outputs.len());
        return Err(format!("`{function}` takes {inputs} and gives {outputs} values"));
    }
    let mut bound = BTreeMap::new();
    for (ty, given) in takes.inputs.iter().zip(&given) {
        for (dim, given) in dims(ty).iter().zip(dims(given)) {
            if let Some(symbol) = dim.as_symbol() {
                bound.entry(symbol.clone()).or_insert_with(|| given.clone());
            }
        }
    }
    for (i, (ty, given)) in takes.inputs.iter().zip(given).enumerate() {
        if !fits(ty, given, &bound) {
            return Err(format!("operand {i} is {given}, `{function}` takes {ty}"));
        }
    }
    for (i, (ty, stated)) in takes.outputs.iter().zip(node.results()).enumerate() {
        if !fits(ty, stated, &bound) {
            return Err(format!("result {i} is {stated}, `{function}` gives {ty}"));
        }
    }
    Ok(())
}

fn dims(ty: &ValueType) -> &[Dim] {
    ty.tensor().map_or(&[], |t| &t.dims)
}

/// Whether a callee's type is the caller's, its symbols replaced; one that no input binds is data-dependent and fits
/// any extent.
fn fits(callee: &ValueType, caller: &ValueType, bound: &BTreeMap<Symbol, Dim>) -> bool {
    let (ValueType::Tensor(a), ValueType::Tensor(b)) = (callee, caller) else { return callee == caller };
    let extent = |(a, b): (&Dim, &Dim)| {
        let mut open = false;
        a.visit_symbols(&mut |s| open |= !bound.contains_key(s));
        open || a.substitute(&|s| bound.get(s).cloned()) == *b
    };
    a.dtype == b.dtype && a.rank() == b.rank() && a.dims.iter().zip(&b.dims).all(extent)
}

/// V10: functions are taken away once all that they call are; what stays goes round.
fn recursion(module: &Module, report: &mut Report) {
    let mut callers: HashMap<&str, Vec<&str>> = HashMap::new();
    let mut left: HashMap<&str, usize> = HashMap::new();
    for (name, f) in &module.functions {
        let mut called = HashSet::new();
        super::visit(f, 0, &mut |_, node, _| {
            if let Op::Call { function } = &node.op
                && module.functions.contains_key(function)
            {
                called.insert(function.as_str());
            }
        });
        left.insert(name, called.len());
        called.into_iter().for_each(|c| callers.entry(c).or_default().push(name));
    }
    let mut done: Vec<&str> = left.iter().filter(|(_, n)| **n == 0).map(|(name, _)| *name).collect();
    while let Some(name) = done.pop() {
        for caller in callers.get(name).into_iter().flatten() {
            if let Some(n) = left.get_mut(caller) {
                *n -= 1;
                if *n == 0 {
                    done.push(caller);
                }
            }
        }
    }
    let round: Vec<&str> =
        module.functions.keys().map(String::as_str).filter(|name| left.get(name).is_some_and(|n| *n > 0)).collect();
    if let Some(name) = round.first() {
        report.add(Invariant::V10, name, None, format!("calls go round in or below {}", round.join(", ")));
    }
}

/// V13.
fn donations(f: &Function, name: &str, report: &mut Report) {
    let (mut inputs, mut outputs) = (HashSet::new(), HashSet::new());
    for d in &f.donations {
        let input = f.inputs().get(d.input).and_then(|&i| f.get(i)).and_then(|n| n.results().first());
        let output = f.outputs().get(d.output).map(|o| type_of(f, o.value));
        let message = match (input, output) {
            (None, _) => format!("there is no input {} to donate", d.input),
            (_, None) => format!("there is no output {} to donate to", d.output),
            // A dead output was reported already.
            (_, Some(None)) => continue,
            (Some(_), Some(Some(_))) if !inputs.insert(d.input) || !outputs.insert(d.output) => {
                format!("input {} or output {} is donated twice", d.input, d.output)
            }
            (Some(from), Some(Some(to))) if !same_state(from, to) => {
                format!("input {} is {from}, output {} is {to}", d.input, d.output)
            }
            _ => continue,
        };
        report.add(Invariant::V13, name, None, message);
    }
}

/// One type, or one that grew along one axis.
fn same_state(from: &ValueType, to: &ValueType) -> bool {
    let (ValueType::Tensor(a), ValueType::Tensor(b)) = (from, to) else { return from == to };
    let differ = a.dims.iter().zip(&b.dims).filter(|(a, b)| a != b);
    let grows = |(a, b): (&Dim, &Dim)| (b - a).known().is_none_or(|d| d >= 0);
    a.dtype == b.dtype && a.rank() == b.rank() && differ.clone().count() <= 1 && differ.clone().all(grows)
}
