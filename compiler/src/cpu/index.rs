//! Index expressions to i64 arithmetic.
//!
//! In: a [`Dim`] over loop variables, kernel dims and registers. Out: an offset that is known now and, if the expression
//! has more than that, a value. Quotients and remainders round down; by 0 they give what division by 1 gives, since
//! nothing may trap and no valid index divides by 0.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{InstBuilder, Value};
use cranelift_frontend::FunctionBuilder;
use frit_ir::types::dim::Atom;
use frit_ir::{Dim, Symbol};

use super::error::Refusal;

/// A number: `value + offset`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Index {
    /// The part that only running code knows.
    pub(super) value: Option<Value>,
    /// The part that is known.
    pub(super) offset: i64,
}

impl Index {
    /// A known number.
    pub(super) fn known(offset: i64) -> Self {
        Index { value: None, offset }
    }

    /// A value.
    pub(super) fn of(value: Value) -> Self {
        Index { value: Some(value), offset: 0 }
    }

    /// Both parts in one value.
    pub(super) fn whole(self, f: &mut FunctionBuilder<'_>) -> Value {
        match self {
            Index { value: None, offset } => f.ins().iconst(I64, offset),
            Index { value: Some(value), offset: 0 } => value,
            Index { value: Some(value), offset } => f.ins().iadd_imm_s(value, offset),
        }
    }
}

/// What symbols mean where an expression stands, and where its code goes.
pub(super) trait Scope {
    /// Whether an expression is known to be at least 0 here (unlike extents, registers may hold any number).
    fn is_nonnegative(&self, dim: &Dim) -> bool;
    /// A symbol's number.
    fn symbol(&mut self, symbol: &Symbol) -> Result<Index, Refusal>;
    /// Calls with the builder.
    fn with<R>(&mut self, write: impl FnOnce(&mut FunctionBuilder<'_>) -> R) -> R;
}

/// Writes the arithmetic of an index.
pub(super) fn emit<S: Scope>(scope: &mut S, dim: &Dim) -> Result<Index, Refusal> {
    let terms = match dim {
        Dim::Known(v) => return Ok(Index::known(*v)),
        Dim::Expr(terms) => terms,
    };
    let mut offset = 0i64;
    let mut sum: Option<Value> = None;
    for (atoms, coefficient) in terms.iter() {
        let mut known = *coefficient;
        let mut product: Option<Value> = None;
        for atom in atoms {
            let part = emit_atom(scope, atom)?;
            match part.value {
                None => known = known.wrapping_mul(part.offset),
                // (value + offset) * known: without other factors the offset can be split off.
                Some(value) if atoms.len() == 1 => {
                    offset = offset.wrapping_add(part.offset.wrapping_mul(known));
                    product = Some(value);
                }
                Some(_) => {
                    scope.with(|f| {
                        let factor = part.whole(f);
                        product = Some(product.map_or(factor, |p| f.ins().imul(p, factor)));
                    });
                }
            }
        }
        match product {
            None => offset = offset.wrapping_add(known),
            Some(value) => scope.with(|f| {
                sum = Some(match (sum, scale(f, value, known)) {
                    (Some(sum), scaled) => f.ins().iadd(sum, scaled),
                    (None, scaled) => scaled,
                });
            }),
        }
    }
    Ok(Index { value: sum, offset })
}

/// value * by.
pub(super) fn scale(f: &mut FunctionBuilder<'_>, value: Value, by: i64) -> Value {
    match by {
        1 => value,
        -1 => f.ins().ineg(value),
        _ if by > 0 && by.count_ones() == 1 => f.ins().ishl_imm_u(value, i64::from(by.trailing_zeros())),
        _ => f.ins().imul_imm_s(value, by),
    }
}

fn emit_atom<S: Scope>(scope: &mut S, atom: &Atom) -> Result<Index, Refusal> {
    let (a, b, nonnegative) = match atom {
        Atom::Sym(symbol) => return scope.symbol(symbol),
        Atom::FloorDiv(a, b) | Atom::Mod(a, b) => (emit(scope, a)?, emit(scope, b)?, scope.is_nonnegative(a)),
        Atom::Min(a, b) | Atom::Max(a, b) => (emit(scope, a)?, emit(scope, b)?, false),
    };
    if a.value.is_none() && b.value.is_none() {
        let (a, b) = (a.offset, b.offset);
        let by = if b == 0 { 1 } else { b };
        return Ok(Index::known(match atom {
            Atom::Sym(_) => a,
            Atom::FloorDiv(..) => a.wrapping_div_euclid(by),
            Atom::Mod(..) => a.wrapping_rem_euclid(by),
            Atom::Min(..) => a.min(b),
            Atom::Max(..) => a.max(b),
        }));
    }
    Ok(Index::of(scope.with(|f| {
        let by = b.value.is_none().then_some(b.offset).filter(|by| *by > 0);
        let (x, y) = (a.whole(f), b.whole(f));
        match atom {
            Atom::FloorDiv(..) => floor_division(f, Part::Quotient, x, y, by, nonnegative),
            Atom::Mod(..) => floor_division(f, Part::Rest, x, y, by, nonnegative),
            Atom::Min(..) => f.ins().smin(x, y),
            Atom::Max(..) | Atom::Sym(_) => f.ins().smax(x, y),
        }
    })))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Quotient,
    Rest,
}

/// Quotient rounded down, or the remainder that belongs to it, of a positive divisor; `by`: the divisor when known.
fn floor_division(
    f: &mut FunctionBuilder<'_>,
    part: Part,
    x: Value,
    y: Value,
    by: Option<i64>,
    nonnegative: bool,
) -> Value {
    if let Some(by) = by.filter(|by| by.count_ones() == 1) {
        // Arithmetic shifts and masks round down for numbers of either sign.
        return match part {
            Part::Quotient => f.ins().sshr_imm_u(x, i64::from(by.trailing_zeros())),
            Part::Rest => f.ins().band_imm_s(x, by - 1),
        };
    }
    let safe = match by {
        Some(_) => y,
        None => {
            let one = f.ins().iconst(I64, 1);
            f.ins().smax(y, one)
        }
    };
    if nonnegative {
        return match part {
            Part::Quotient => f.ins().udiv(x, safe),
            Part::Rest => f.ins().urem(x, safe),
        };
    }
    let rest = f.ins().srem(x, safe);
    let zero = f.ins().iconst(I64, 0);
    let negative = f.ins().icmp(IntCC::SignedLessThan, rest, zero);
    match part {
        Part::Quotient => {
            let quotient = f.ins().sdiv(x, safe);
            let less = f.ins().uextend(I64, negative);
            f.ins().isub(quotient, less)
        }
        Part::Rest => {
            let shifted = f.ins().iadd(rest, safe);
            f.ins().select(negative, shifted, rest)
        }
    }
}
