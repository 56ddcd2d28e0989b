//! Index arithmetic: linear positions, their inverse, and simplification by ranges.
//!
//! A view inside a kernel is a change of index. A reshape linearises an index over one shape and delinearises it over
//! another; what makes that free is that `floordiv(784*i + j, 784)` is `i` when `0 <= j < 784`. [`Ranges`] knows the
//! extents of loop variables, [`Ranges::simplify`] uses them.

use std::collections::{HashMap, HashSet};

use frit_ir::types::dim::{Atom, Terms};
use frit_ir::{Dim, Symbol};

/// Extents of the loop variables in scope: 0 <= var < extent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ranges {
    extents: HashMap<Symbol, Dim>,
    /// Symbols of which nothing is known, the sign included (registers).
    opaque: HashSet<Symbol>,
}

impl Ranges {
    /// Declares a loop variable.
    pub(crate) fn insert(&mut self, var: &Dim, extent: &Dim) {
        if let Some(symbol) = var.as_symbol() {
            self.extents.insert(symbol.clone(), extent.clone());
        }
    }

    /// Declares a symbol that may have any value.
    pub(crate) fn insert_opaque(&mut self, symbol: Symbol) {
        self.opaque.insert(symbol);
    }

    /// Smallest and largest value (inclusive) as expressions over symbols that are no loop variables.
    fn bounds(&self, d: &Dim) -> Option<(Dim, Dim)> {
        let (mut low, mut high) = (Dim::ZERO, Dim::ZERO);
        for (atoms, coefficient) in d.terms() {
            let (mut least, mut most) = (Dim::ONE, Dim::ONE);
            for atom in &atoms {
                let (l, h) = self.atom_bounds(atom)?;
                // Products of bounds are bounds of products for non-negative factors only.
                if !l.is_nonnegative() {
                    return None;
                }
                least = &least * &l;
                most = &most * &h;
            }
            let scale = Dim::Known(coefficient);
            if coefficient < 0 {
                std::mem::swap(&mut least, &mut most);
            }
            low = &low + &(&scale * &least);
            high = &high + &(&scale * &most);
        }
        Some((low, high))
    }

    fn atom_bounds(&self, atom: &Atom) -> Option<(Dim, Dim)> {
        match atom {
            Atom::Sym(s) if self.opaque.contains(s) => None,
            Atom::Sym(s) => Some(match self.extents.get(s) {
                Some(extent) => (Dim::ZERO, extent - &Dim::ONE),
                None => (s.clone().into(), s.clone().into()),
            }),
            Atom::FloorDiv(a, b) => {
                let (by, (low, high)) = (b.known().filter(|b| *b > 0)?, self.bounds(a)?);
                Some((low.floordiv(&Dim::Known(by)), high.floordiv(&Dim::Known(by))))
            }
            Atom::Mod(_, b) => {
                let (_, high) = self.bounds(b)?;
                Some((Dim::ZERO, &high - &Dim::ONE))
            }
            Atom::Min(a, b) | Atom::Max(a, b) => {
                let ((a_low, a_high), (b_low, b_high)) = (self.bounds(a)?, self.bounds(b)?);
                Some(if matches!(atom, Atom::Min(..)) {
                    (a_low.minimum(&b_low), a_high.minimum(&b_high))
                } else {
                    (a_low.maximum(&b_low), a_high.maximum(&b_high))
                })
            }
        }
    }

    /// Provably 0 <= d for every value of the variables.
    pub(crate) fn nonnegative(&self, d: &Dim) -> bool {
        self.bounds(d).is_some_and(|(low, _)| low.is_nonnegative())
    }

    /// Provably a < b.
    pub(crate) fn less(&self, a: &Dim, b: &Dim) -> bool {
        self.nonnegative(&(&(b - a) - &Dim::ONE))
    }

    /// An equal index with fewer operations.
    pub(crate) fn simplify(&self, d: &Dim) -> Dim {
        let mut sum = Dim::ZERO;
        for (atoms, coefficient) in d.terms() {
            let mut product = Dim::Known(coefficient);
            for atom in &atoms {
                product = &product * &self.simplify_atom(atom);
            }
            sum = &sum + &product;
        }
        rejoin(sum)
    }

    fn simplify_atom(&self, atom: &Atom) -> Dim {
        match atom {
            Atom::Sym(s) => match self.extents.get(s) {
                // The only value of a loop that runs once.
                Some(extent) if *extent == Dim::ONE => Dim::ZERO,
                Some(_) | None => s.clone().into(),
            },
            Atom::FloorDiv(a, b) => {
                let (a, b) = (self.simplify(a), self.simplify(b));
                let (quotient, rest) = split(&a, &b);
                if self.nonnegative(&rest) && self.less(&rest, &b) {
                    return quotient;
                }
                // floordiv(q b + r, b) = q + floordiv(r, b), and floordiv(floordiv(x, a), b) = floordiv(x, a b).
                let rest = match single_atom(&rest) {
                    Some(Atom::FloorDiv(x, inner)) if self.positive(&inner) && self.positive(&b) => {
                        let joined = &inner * &b;
                        let (more, rest) = split(&x, &joined);
                        if self.nonnegative(&rest) && self.less(&rest, &joined) { more } else { x.floordiv(&joined) }
                    }
                    _ => rest.floordiv(&b),
                };
                &quotient + &rest
            }
            Atom::Mod(a, b) => {
                let (a, b) = (self.simplify(a), self.simplify(b));
                let (_, rest) = split(&a, &b);
                if self.nonnegative(&rest) && self.less(&rest, &b) { rest } else { rest.modulo(&b) }
            }
            Atom::Min(a, b) => {
                let (a, b) = (self.simplify(a), self.simplify(b));
                if self.nonnegative(&(&b - &a)) {
                    a
                } else if self.nonnegative(&(&a - &b)) {
                    b
                } else {
                    a.minimum(&b)
                }
            }
            Atom::Max(a, b) => {
                let (a, b) = (self.simplify(a), self.simplify(b));
                if self.nonnegative(&(&a - &b)) {
                    a
                } else if self.nonnegative(&(&b - &a)) {
                    b
                } else {
                    a.maximum(&b)
                }
            }
        }
    }

    fn positive(&self, d: &Dim) -> bool {
        self.nonnegative(&(d - &Dim::ONE))
    }
}

fn single_atom(d: &Dim) -> Option<Atom> {
    let terms = d.terms();
    match terms.iter().next() {
        Some((atoms, 1)) if terms.len() == 1 && atoms.len() == 1 => atoms.first().cloned(),
        _ => None,
    }
}

/// a = quotient * b + rest, the quotient taking every term that b divides; known coefficients split too, so that
/// the rest's are in 0..b.
fn split(a: &Dim, b: &Dim) -> (Dim, Dim) {
    let mut quotient = Dim::ZERO;
    let mut rest = Dim::ZERO;
    for (atoms, coefficient) in a.terms() {
        let term = Dim::from_terms(Terms::from([(atoms.clone(), coefficient)]));
        if let Some(q) = term.exact_div(b) {
            quotient = &quotient + &q;
            continue;
        }
        match b.known() {
            Some(by) if by > 0 && coefficient.abs() >= by => {
                let (q, r) = (coefficient.div_euclid(by), coefficient.rem_euclid(by));
                quotient = &quotient + &Dim::from_terms(Terms::from([(atoms.clone(), q)]));
                rest = &rest + &Dim::from_terms(Terms::from([(atoms, r)]));
            }
            _ => rest = &rest + &term,
        }
    }
    (quotient, rest)
}

/// c b floordiv(x, b) + c mod(x, b) = c x.
fn rejoin(mut d: Dim) -> Dim {
    'again: loop {
        let terms = d.terms();
        for (atoms, coefficient) in &terms {
            for (i, atom) in atoms.iter().enumerate() {
                let Atom::Mod(x, b) = atom else { continue };
                let mut others = atoms.clone();
                others.remove(i);
                let factor = Dim::from_terms(Terms::from([(others, *coefficient)]));
                // The quotient by b may stand as one of a quotient: floordiv(floordiv(z, a), b) = floordiv(z, a b).
                let joined = match single_atom(x) {
                    Some(Atom::FloorDiv(z, a)) => Some(z.floordiv(&(&a * b))),
                    _ => None,
                };
                // Present with exactly this coefficient?
                let present = |quotient: &Dim| {
                    let parts = quotient.terms();
                    parts.len() == 1 && parts.iter().all(|(k, c)| terms.get(k) == Some(c))
                };
                let quotients = joined.into_iter().chain([x.floordiv(b)]).map(|by_b| &(&factor * b) * &by_b);
                let Some(quotient) = quotients.into_iter().find(present) else { continue };
                let this = Dim::from_terms(Terms::from([(atoms.clone(), *coefficient)]));
                d = &(&(&d - &this) - &quotient) + &(&factor * x);
                continue 'again;
            }
        }
        return d;
    }
}

/// Row-major position of an index.
pub(crate) fn linearize(index: &[Dim], dims: &[Dim]) -> Dim {
    index.iter().zip(dims).fold(Dim::ZERO, |acc, (i, d)| &(&acc * d) + i)
}

/// The index at a row-major position that is inside.
pub(crate) fn delinearize(position: &Dim, dims: &[Dim], ranges: &Ranges) -> Vec<Dim> {
    let mut index = vec![Dim::ZERO; dims.len()];
    let mut left = position.clone();
    // The outermost extent above 1 needs no mod: the position is inside.
    let first = dims.iter().position(|d| *d != Dim::ONE).unwrap_or(0);
    for axis in (first..dims.len()).rev() {
        if dims[axis] == Dim::ONE {
            continue;
        }
        if axis == first {
            index[axis] = ranges.simplify(&left);
            break;
        }
        index[axis] = ranges.simplify(&left.modulo(&dims[axis]));
        left = ranges.simplify(&left.floordiv(&dims[axis]));
    }
    index
}

/// Whether an index divides something that depends on a loop variable: such an access can't be a vector stream.
pub(crate) fn divides_variable(d: &Dim, var: &Symbol) -> bool {
    d.terms().keys().flatten().any(|atom| match atom {
        Atom::Sym(_) => false,
        Atom::FloorDiv(a, b) | Atom::Mod(a, b) | Atom::Min(a, b) | Atom::Max(a, b) => {
            let mut found = false;
            for part in [a, b] {
                part.visit_symbols(&mut |s| found |= s == var);
            }
            found
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup() -> (Ranges, Dim, Dim) {
        let (i, j) = (Dim::symbol("i0"), Dim::symbol("i1"));
        let mut ranges = Ranges::default();
        ranges.insert(&i, &Dim::symbol("B"));
        ranges.insert(&j, &Dim::Known(784));
        (ranges, i, j)
    }

    #[test]
    fn a_reshape_there_and_back_is_free() {
        let (ranges, i, j) = setup();
        let dims = [Dim::symbol("B"), Dim::Known(784)];
        let flat = linearize(&[i.clone(), j.clone()], &dims);
        assert_eq!(delinearize(&flat, &dims, &ranges), vec![i.clone(), j.clone()]);
        let other = [Dim::symbol("B"), Dim::Known(28), Dim::Known(28)];
        let index = delinearize(&flat, &other, &ranges);
        assert_eq!(index[0], i);
        assert_eq!(ranges.simplify(&linearize(&index, &other)), flat);
    }

    #[test]
    fn a_position_taken_apart_by_an_extent_that_is_not_known_is_put_together() {
        let (x, n) = (Dim::symbol("i0"), Dim::symbol("n"));
        let mut ranges = Ranges::default();
        ranges.insert(&x, &(&Dim::Known(272) * &n));
        let dims = [Dim::Known(17), n, Dim::Known(16)];
        let index = delinearize(&x, &dims, &ranges);
        assert_eq!(ranges.simplify(&linearize(&index, &dims)), x);
    }

    #[test]
    fn a_position_taken_apart_in_three_is_put_together() {
        let x = Dim::symbol("i0");
        let mut ranges = Ranges::default();
        ranges.insert(&x, &Dim::Known(24));
        let dims = [Dim::Known(2), Dim::Known(3), Dim::Known(4)];
        let index = delinearize(&x, &dims, &ranges);
        assert_eq!(ranges.simplify(&linearize(&index, &dims)), x);
    }

    #[test]
    fn minimum_and_unit_loops_fold() {
        let (mut ranges, _, j) = setup();
        assert_eq!(ranges.simplify(&j.minimum(&Dim::Known(783))), j);
        let k = Dim::symbol("i2");
        ranges.insert(&k, &Dim::ONE);
        assert_eq!(ranges.simplify(&(&k + &j)), j);
    }

    #[test]
    fn simplified_indices_keep_their_value() {
        let q = Dim::symbol("i0");
        let mut ranges = Ranges::default();
        ranges.insert(&q, &Dim::Known(5 * 7 * 6));
        let dims = [Dim::Known(5), Dim::Known(7), Dim::Known(6)];
        let index = delinearize(&q, &dims, &ranges);
        let regrouped = delinearize(&linearize(&index, &dims), &[Dim::Known(35), Dim::Known(6)], &ranges);
        for value in 0..210 {
            let at = |d: &Dim| d.eval(&|_| Some(value)).unwrap();
            assert_eq!([at(&index[0]), at(&index[1]), at(&index[2])], [value / 42, value / 6 % 7, value % 6]);
            assert_eq!([at(&regrouped[0]), at(&regrouped[1])], [value / 6, value % 6]);
        }
    }
}
