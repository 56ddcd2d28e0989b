//! Regions, calls, assertions.
//!
//! A region runs with the symbols of the function around it and may bind its own; they end with it, so a loop's body
//! may count something different on each trip. A called function has symbols of its own.

use super::array::{Array, empty};
use super::extents::{self, Symbols};
use super::item::Item;
use super::{Cx, EvalError, MAX_DEPTH};
use crate::graph::Function;
use crate::types::ValueType;

type Items = Result<Vec<Item>, EvalError>;

fn enter(cx: &Cx<'_>, function: &Function, inputs: Vec<Item>, symbols: Symbols) -> Items {
    let depth = cx.evaluator.depth.get();
    if depth >= MAX_DEPTH {
        return Err(cx.limit("nested calls", MAX_DEPTH as u64));
    }
    cx.evaluator.depth.set(depth + 1);
    let outputs = cx.evaluator.run(function, inputs, symbols);
    cx.evaluator.depth.set(depth);
    outputs
}

/// The results of one region.
pub(super) fn region(cx: &Cx<'_>, which: usize, inputs: Vec<Item>) -> Items {
    let region = cx.regions.get(which).ok_or_else(|| cx.ill_typed(format!("region {which} is missing")))?;
    enter(cx, region, inputs, cx.symbols.clone())
}

pub(super) fn call(cx: &Cx<'_>, name: &str) -> Items {
    let missing = || EvalError::Missing { at: cx.at(), what: "function", name: name.to_owned() };
    let function = cx.evaluator.module.functions.get(name).ok_or_else(missing)?;
    enter(cx, function, cx.operands.to_vec(), Symbols::new())
}

pub(super) fn branch(cx: &Cx<'_>) -> Items {
    let which = usize::from(cx.scalar(0)? == 0);
    region(cx, which, cx.operands[1..].to_vec())
}

pub(super) fn assert(cx: &Cx<'_>, message: &str) -> Items {
    if cx.array(1)?.as_ints().contains(&0) {
        return Err(EvalError::Assert { at: cx.at(), message: message.to_owned() });
    }
    Ok(vec![cx.operand(0)?.clone()])
}

/// `results`: declared types. Where no trip ran they give the extents of what would have been stacked; an extent that
/// only the body could have fixed is 0 then.
pub(super) fn repeat(cx: &Cx<'_>, carried: usize, results: &[ValueType]) -> Items {
    let (trips, mut condition) = (cx.scalar(0)?, cx.operand(1)?.clone());
    let rest = cx.operands[2..].to_vec();
    if rest.len() < carried || results.len() < carried {
        return Err(cx.ill_typed(format!("carries {carried} values, has {}", rest.len().min(results.len()))));
    }
    let (mut state, captured) = (rest[..carried].to_vec(), &rest[carried..]);
    let mut stacks: Vec<Vec<Item>> = vec![Vec::new(); results.len() - carried];
    let mut trip: i64 = 0;
    while i128::from(trip) < trips && holds(cx, &condition)? {
        cx.count(1)?;
        let counter: Item = Array::index(trip).into();
        let inputs = [counter, condition].into_iter().chain(state).chain(captured.iter().cloned());
        let mut outputs = region(cx, 0, inputs.collect())?.into_iter();
        let short = || cx.ill_typed("the region gives too few results".to_owned());
        condition = outputs.next().ok_or_else(short)?;
        state = outputs.by_ref().take(carried).collect();
        if state.len() < carried || outputs.len() != stacks.len() {
            return Err(short());
        }
        for (stack, output) in stacks.iter_mut().zip(outputs) {
            stack.push(output);
        }
        trip += 1;
    }
    for (stack, ty) in stacks.into_iter().zip(&results[carried..]) {
        state.push(stacked(cx, &stack, ty)?.into());
    }
    Ok(state)
}

fn holds(cx: &Cx<'_>, condition: &Item) -> Result<bool, EvalError> {
    match condition {
        Item::Array(a) if a.len() == 1 => Ok(a.first_int() != 0),
        other => Err(cx.ill_typed(format!("the condition is {}, expected a bool scalar", other.kind()))),
    }
}

fn stacked(cx: &Cx<'_>, parts: &[Item], ty: &ValueType) -> Result<Array, EvalError> {
    let Some(declared) = ty.tensor() else { return Err(cx.ill_typed(format!("can't stack into {ty}"))) };
    let mut arrays: Vec<&Array> = Vec::with_capacity(parts.len());
    for part in parts {
        match part {
            Item::Array(array) => arrays.push(array),
            other => return Err(cx.ill_typed(format!("can't stack {}", other.kind()))),
        }
    }
    let Some(first) = arrays.first() else {
        let extent = |d| extents::eval(d, cx.symbols).and_then(|v| usize::try_from(v).ok()).unwrap_or(0);
        let inner = declared.dims.iter().skip(1).map(extent);
        return Ok(empty(declared.dtype, std::iter::once(0).chain(inner).collect()));
    };
    if let Some(odd) = arrays.iter().find(|a| a.ty() != first.ty()) {
        return Err(cx.ill_typed(format!("stacks {} on {}", odd.ty(), first.ty())));
    }
    let shape: Vec<usize> = std::iter::once(arrays.len()).chain(first.shape.iter().copied()).collect();
    let all = Array::joined(&arrays);
    if all.len() > cx.evaluator.options.limit_elements {
        return Err(cx.limit("elements", cx.evaluator.options.limit_elements as u64));
    }
    Ok(all.with_shape(shape))
}
