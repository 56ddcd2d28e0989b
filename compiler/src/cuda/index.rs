//! Index expressions as C++ of `long long`.
//!
//! Loop variables and dims keep their names where these are a letter and digits (`i0`, `d1`), and begin with `s_`
//! otherwise, so that no name is a word of the language or of the emitted text. `rN` is register N.

use frit_ir::types::dim::Atom;
use frit_ir::{DType, Dim, Symbol};

use super::Refusal;
use crate::kernel::{Kernel, Reg};

/// The register that a symbol of an index stands for, when it is written as one.
fn register(symbol: &Symbol) -> Option<Reg> {
    symbol.name().strip_prefix('r').and_then(|n| n.parse().ok()).map(Reg)
}

/// The name of a loop variable or dim.
pub(super) fn declared(symbol: &Symbol) -> Result<String, Refusal> {
    if register(symbol).is_some() {
        return Err(Refusal::Invalid(format!("the loop or dim `{symbol}` has the name of a register")));
    }
    let name = symbol.name();
    let mut chars = name.chars();
    let plain = chars.next().is_some_and(|c| c.is_ascii_alphabetic())
        && !chars.as_str().is_empty()
        && chars.all(|c| c.is_ascii_digit());
    Ok(if plain { name.to_owned() } else { format!("s_{name}") })
}

/// A number as a literal of its own or a wider type.
pub(super) fn literal(value: i64) -> String {
    match value {
        i64::MIN => "(-9223372036854775807LL - 1)".to_owned(),
        v if i32::try_from(v).is_ok_and(|v| v != i32::MIN) => v.to_string(),
        v => format!("{v}LL"),
    }
}

/// An index or extent.
pub(super) fn emit(kernel: &Kernel, dim: &Dim) -> Result<String, Refusal> {
    let terms = match dim {
        Dim::Known(v) => return Ok(literal(*v)),
        Dim::Expr(terms) => terms,
    };
    let mut text = String::new();
    // The constant term reads best last.
    let (constant, rest): (Vec<_>, Vec<_>) = terms.iter().partition(|(atoms, _)| atoms.is_empty());
    for (atoms, coefficient) in rest.into_iter().chain(constant) {
        let first = text.is_empty();
        let factor = match coefficient {
            // Its magnitude is no i64.
            &i64::MIN => {
                text.push_str(if first { "" } else { " + " });
                literal(i64::MIN)
            }
            c => {
                text.push_str(match (first, *c < 0) {
                    (true, true) => "-",
                    (true, false) => "",
                    (false, true) => " - ",
                    (false, false) => " + ",
                });
                literal(c.abs())
            }
        };
        let mut factors: Vec<String> = atoms.iter().map(|a| emit_atom(kernel, a)).collect::<Result<_, _>>()?;
        if factors.is_empty() || factor != "1" {
            factors.insert(0, factor);
        }
        text.push_str(&factors.join(" * "));
    }
    Ok(text)
}

/// Whether it is at least 0 whatever the registers in it hold: only loop variables and dims always are.
fn is_nonnegative(dim: &Dim) -> bool {
    let mut free = true;
    dim.visit_symbols(&mut |s| free &= register(s).is_none());
    free && dim.is_nonnegative()
}

fn emit_atom(kernel: &Kernel, atom: &Atom) -> Result<String, Refusal> {
    let (name, mark, a, b) = match atom {
        Atom::Sym(symbol) => {
            let Some(reg) = register(symbol) else { return declared(symbol) };
            return Ok(match kernel.reg_type(reg) {
                Some(DType::I64) => format!("r{}", reg.0),
                _ => format!("(long long)r{}", reg.0),
            });
        }
        Atom::FloorDiv(a, b) => ("frit_floordiv", Some('/'), a, b),
        Atom::Mod(a, b) => ("frit_mod", Some('%'), a, b),
        Atom::Min(a, b) => ("frit_least", None, a, b),
        Atom::Max(a, b) => ("frit_most", None, a, b),
    };
    let (left, right) = (emit(kernel, a)?, emit(kernel, b)?);
    Ok(match mark {
        Some(mark) if is_nonnegative(a) && b.known().is_some_and(|b| b > 0) => {
            // A name needs no parentheses.
            let left = if a.as_symbol().is_some() { left } else { format!("({left})") };
            format!("({left} {mark} {right})")
        }
        _ => format!("{name}({left}, {right})"),
    })
}
