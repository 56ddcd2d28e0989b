//! Extents at run time: symbols bound from shapes, and ops with their extents as numbers.

use std::collections::BTreeMap;

use super::error::EvalError;
use crate::graph::{Function, SymbolFacts};
use crate::op::Op;
use crate::types::dim::Atom;
use crate::types::{Dim, Symbol};

/// What each symbol stands for.
pub type Symbols = BTreeMap<Symbol, i64>;

/// The value of an extent, when all its symbols are bound.
pub(super) fn eval(dim: &Dim, symbols: &Symbols) -> Option<i64> {
    dim.eval(&|s| symbols.get(s).copied())
}

/// Binds the symbols that one extent fixes: where a single unbound symbol occurs once, as `c * symbol` added to a part
/// that is known.
fn solve(dim: &Dim, actual: usize, symbols: &mut Symbols) {
    let Ok(mut rest) = i64::try_from(actual) else { return };
    let mut unknown: Option<(Symbol, i64)> = None;
    for (atoms, coefficient) in dim.terms() {
        match atoms.as_slice() {
            [Atom::Sym(s)] if !symbols.contains_key(s) && unknown.is_none() => unknown = Some((s.clone(), coefficient)),
            _ => {
                let mut term = Some(coefficient);
                for atom in &atoms {
                    let value = atom.eval(&|s| symbols.get(s).copied());
                    term = term.and_then(|t| t.checked_mul(value?));
                }
                let Some(left) = term.and_then(|t| rest.checked_sub(t)) else { return };
                rest = left;
            }
        }
    }
    if let Some((symbol, coefficient)) = unknown
        && rest.checked_rem(coefficient) == Some(0)
        && let Some(value) = rest.checked_div(coefficient)
    {
        symbols.insert(symbol, value);
    }
}

/// Binds what these extents fix, then checks every extent that has a value against the actual one. Each shape comes
/// with the name that an error gives it.
pub(super) fn bind(shapes: &[(String, &[Dim], &[usize])], symbols: &mut Symbols) -> Result<(), EvalError> {
    // Plain symbols first, so that `2*N` is a check and not a source when `N` stands elsewhere.
    for plain in [true, false] {
        for (_, dims, actual) in shapes {
            for (dim, actual) in dims.iter().zip(*actual) {
                if !plain || dim.as_symbol().is_some() {
                    solve(dim, *actual, symbols);
                }
            }
        }
    }
    for (what, dims, actual) in shapes {
        for (axis, (dim, found)) in dims.iter().zip(*actual).enumerate() {
            match eval(dim, symbols) {
                Some(expected) if i64::try_from(*found) != Ok(expected) => {
                    let (what, dim) = (what.clone(), dim.to_string());
                    return Err(EvalError::Extent { what, axis, dim, expected, found: *found });
                }
                Some(_) | None => {}
            }
        }
    }
    Ok(())
}

/// Checks the bound symbols against what a function states of them.
pub(super) fn check_facts(function: &Function, symbols: &Symbols) -> Result<(), EvalError> {
    for (symbol, SymbolFacts { min, max, multiple_of }) in &function.symbols {
        let Some(&value) = symbols.get(symbol) else { continue };
        let multiple = *multiple_of <= 1 || value % multiple_of == 0;
        if value < *min || max.is_some_and(|max| value > max) || !multiple {
            let (function, symbol) = (function.name.clone(), symbol.to_string());
            return Err(EvalError::Fact { function, symbol, value });
        }
    }
    Ok(())
}

/// Checks the requirements of a function whose symbols are bound; the others' turn comes once an op has bound them.
pub(super) fn check_requirements(function: &Function, symbols: &Symbols) -> Result<(), EvalError> {
    for requirement in function.requirements() {
        let mut open = false;
        for dim in [&requirement.left, &requirement.right] {
            dim.visit_symbols(&mut |s| open |= !symbols.contains_key(s));
        }
        if open {
            continue;
        }
        let message = match (eval(&requirement.left, symbols), eval(&requirement.right, symbols)) {
            (Some(a), Some(b)) if requirement.relation.holds(a, b) => continue,
            (Some(a), Some(b)) => requirement.relation.broken((&requirement.left, a), (&requirement.right, b)),
            _ => format!("{requirement} can't be computed"),
        };
        let what = requirement.what.clone();
        return Err(EvalError::Requirement { origin: requirement.origin.clone(), what, message });
    }
    Ok(())
}

/// The op with its extents as numbers; the error is the extent that has none.
pub(super) fn concrete(op: &Op, symbols: &Symbols) -> Result<Op, Dim> {
    let number = |dim: &Dim| eval(dim, symbols).map(Dim::Known).ok_or_else(|| dim.clone());
    let numbers = |dims: &[Dim]| dims.iter().map(number).collect::<Result<Vec<_>, _>>();
    Ok(match op {
        Op::Iota { dtype, dims, axis } => Op::Iota { dtype: *dtype, dims: numbers(dims)?, axis: *axis },
        Op::DimValue { value } => Op::DimValue { value: number(value)? },
        Op::Broadcast { dims, axes } => Op::Broadcast { dims: numbers(dims)?, axes: axes.clone() },
        Op::Reshape { dims } => Op::Reshape { dims: numbers(dims)? },
        Op::Slice { starts, sizes, steps } => {
            Op::Slice { starts: numbers(starts)?, sizes: numbers(sizes)?, steps: steps.clone() }
        }
        Op::DynamicSlice { sizes } => Op::DynamicSlice { sizes: numbers(sizes)? },
        Op::Pad { low, high } => Op::Pad { low: numbers(low)?, high: numbers(high)? },
        Op::Unary(_)
        | Op::Binary(_)
        | Op::Input { .. }
        | Op::Constant { .. }
        | Op::Param { .. }
        | Op::Select { .. }
        | Op::Cast { .. }
        | Op::Bitcast { .. }
        | Op::Transpose { .. }
        | Op::UpdateSlice {}
        | Op::Concat { .. }
        | Op::Gather { .. }
        | Op::Scatter { .. }
        | Op::Window { .. }
        | Op::Reduce { .. }
        | Op::Cumulate { .. }
        | Op::Sort { .. }
        | Op::DotGeneral { .. }
        | Op::Conv { .. }
        | Op::ConvTranspose { .. }
        | Op::Compact { .. }
        | Op::If {}
        | Op::Loop { .. }
        | Op::Call { .. }
        | Op::Composite { .. }
        | Op::Fusion {}
        | Op::Vjp { .. }
        | Op::Assert { .. }
        | Op::SequenceConstruct { .. }
        | Op::SequenceAt {}
        | Op::SequenceInsert {}
        | Op::SequenceErase {}
        | Op::SequenceLength {}
        | Op::Absent {}
        | Op::Onnx { .. } => op.clone(),
    })
}
