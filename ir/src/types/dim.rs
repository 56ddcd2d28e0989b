//! Extents as canonical expressions.
//!
//! A [`Dim`] is a polynomial with integer coefficients over *atoms*: symbols, and floordiv, mod, min, max of other
//! dims. Two dims that are the same polynomial compare equal, so shape inference needs no prover for the common cases
//! (`B*784` from a reshape equals `784*B` from a product). Symbols stand for extents and are never negative.
//!
//! Arithmetic saturates: a dim that leaves i64 becomes `i64::MAX`, which every later size check refuses; so does a
//! product of too many terms.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A named unknown extent, at least 0.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Symbol(Arc<str>);

impl Symbol {
    /// A symbol from a name; characters that .frit text can't hold become `_`.
    pub fn new(name: &str) -> Self {
        let mut clean: String =
            name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect();
        if clean.is_empty() || clean.starts_with(|c: char| c.is_ascii_digit()) {
            clean.insert(0, '_');
        }
        // The operators' names would read as calls.
        if matches!(clean.as_str(), "floordiv" | "mod" | "min" | "max") {
            clean.push('_');
        }
        Symbol(clean.into())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a polynomial is made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Atom {
    /// A symbol.
    Sym(Symbol),
    /// Quotient rounded down.
    FloorDiv(Dim, Dim),
    /// Remainder of [`Atom::FloorDiv`].
    Mod(Dim, Dim),
    /// The smaller.
    Min(Dim, Dim),
    /// The larger.
    Max(Dim, Dim),
}

/// Sorted product of atoms (with repetition) to its coefficient; the empty product is the constant term.
pub type Terms = BTreeMap<Vec<Atom>, i64>;

/// An extent: a number or a canonical expression over symbols.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dim {
    /// A number.
    Known(i64),
    /// A polynomial with at least one atom in it.
    Expr(Arc<Terms>),
}

/// Terms that one product of two polynomials makes at most.
const MAX_PRODUCT_TERMS: usize = 4096;

impl From<usize> for Dim {
    fn from(v: usize) -> Self {
        Dim::Known(i64::try_from(v).unwrap_or(i64::MAX))
    }
}

impl From<i64> for Dim {
    fn from(v: i64) -> Self {
        Dim::Known(v)
    }
}

impl From<Symbol> for Dim {
    fn from(s: Symbol) -> Self {
        Dim::atom(Atom::Sym(s))
    }
}

impl Dim {
    /// 0.
    pub const ZERO: Dim = Dim::Known(0);
    /// 1.
    pub const ONE: Dim = Dim::Known(1);

    /// A dim that is one symbol.
    pub fn symbol(name: &str) -> Self {
        Symbol::new(name).into()
    }

    /// A dim that is one atom, as it stands.
    pub fn atom(atom: Atom) -> Self {
        Dim::Expr(Arc::new(BTreeMap::from([(vec![atom], 1)])))
    }

    /// The number, when it is one.
    pub fn known(&self) -> Option<i64> {
        match self {
            Dim::Known(v) => Some(*v),
            Dim::Expr(_) => None,
        }
    }

    /// The symbol, when it is exactly one symbol.
    pub fn as_symbol(&self) -> Option<&Symbol> {
        let Dim::Expr(terms) = self else { return None };
        match terms.iter().next() {
            Some((key, 1)) if terms.len() == 1 => match key.as_slice() {
                [Atom::Sym(s)] => Some(s),
                _ => None,
            },
            _ => None,
        }
    }

    /// Coefficients by sorted product of atoms.
    pub fn terms(&self) -> Terms {
        match self {
            Dim::Known(0) => Terms::new(),
            Dim::Known(v) => Terms::from([(Vec::new(), *v)]),
            Dim::Expr(terms) => (**terms).clone(),
        }
    }

    /// The dim of [`Dim::terms`].
    pub fn from_terms(mut terms: Terms) -> Self {
        terms.retain(|_, c| *c != 0);
        match terms.len() {
            0 => Dim::ZERO,
            1 if terms.contains_key(&Vec::new()) => Dim::Known(terms.into_values().next().unwrap_or(0)),
            _ => Dim::Expr(Arc::new(terms)),
        }
    }

    /// Product of all.
    pub fn product<'a>(dims: impl IntoIterator<Item = &'a Dim>) -> Dim {
        dims.into_iter().fold(Dim::ONE, |acc, d| &acc * d)
    }

    /// `self / by` rounded down; folds where it can be proven exact or `by` is 1. Division by a known 0 gives 0.
    pub fn floordiv(&self, by: &Dim) -> Dim {
        match (self, by) {
            (_, Dim::Known(0)) => return Dim::ZERO,
            (_, Dim::Known(1)) => return self.clone(),
            (Dim::Known(a), Dim::Known(b)) => return Dim::Known(a.checked_div_euclid(*b).unwrap_or(i64::MAX)),
            _ => {}
        }
        if let Some((quotient, rest)) = self.split_by(by)
            && rest == Dim::ZERO
        {
            return quotient;
        }
        Dim::atom(Atom::FloorDiv(self.clone(), by.clone()))
    }

    /// `self - by * floordiv(self, by)`.
    pub fn modulo(&self, by: &Dim) -> Dim {
        match (self, by) {
            (_, Dim::Known(0 | 1)) => return Dim::ZERO,
            (Dim::Known(a), Dim::Known(b)) => return Dim::Known(a.checked_rem_euclid(*b).unwrap_or(0)),
            _ => {}
        }
        if let Some((_, rest)) = self.split_by(by)
            && rest == Dim::ZERO
        {
            return Dim::ZERO;
        }
        Dim::atom(Atom::Mod(self.clone(), by.clone()))
    }

    /// `self / by` rounded up.
    pub fn ceildiv(&self, by: &Dim) -> Dim {
        (&(self + by) - &Dim::ONE).floordiv(by)
    }

    /// The exact quotient, when the division is known to leave no rest.
    pub fn exact_div(&self, by: &Dim) -> Option<Dim> {
        if *by == Dim::ZERO {
            return None;
        }
        self.split_by(by).filter(|(_, rest)| *rest == Dim::ZERO).map(|(quotient, _)| quotient)
    }

    /// Termwise division by a monomial: quotient and the terms that it does not divide.
    fn split_by(&self, by: &Dim) -> Option<(Dim, Dim)> {
        let by = by.terms();
        if by.len() != 1 {
            // A polynomial divides itself and nothing else here.
            return (self.terms() == by).then_some((Dim::ONE, Dim::ZERO));
        }
        let (by_atoms, by_coefficient) = by.iter().next()?;
        if *by_coefficient == 0 {
            return None;
        }
        let (mut quotient, mut rest) = (Terms::new(), Terms::new());
        for (atoms, coefficient) in self.terms() {
            let mut left = atoms.clone();
            // The smallest i64 by -1 overflows: it stays undivided.
            let divides = coefficient.checked_rem(*by_coefficient) == Some(0)
                && by_atoms.iter().all(|a| left.iter().position(|l| l == a).map(|i| left.remove(i)).is_some());
            if divides {
                quotient.insert(left, coefficient / by_coefficient);
            } else {
                rest.insert(atoms, coefficient);
            }
        }
        Some((Dim::from_terms(quotient), Dim::from_terms(rest)))
    }

    /// The smaller of two.
    pub fn minimum(&self, other: &Dim) -> Dim {
        if let (Some(a), Some(b)) = (self.known(), other.known()) {
            return Dim::Known(a.min(b));
        }
        match self.compare(other) {
            Some(std::cmp::Ordering::Less | std::cmp::Ordering::Equal) => self.clone(),
            Some(std::cmp::Ordering::Greater) => other.clone(),
            None => {
                let (a, b) = if self <= other { (self, other) } else { (other, self) };
                Dim::atom(Atom::Min(a.clone(), b.clone()))
            }
        }
    }

    /// The larger of two.
    pub fn maximum(&self, other: &Dim) -> Dim {
        if let (Some(a), Some(b)) = (self.known(), other.known()) {
            return Dim::Known(a.max(b));
        }
        match self.compare(other) {
            Some(std::cmp::Ordering::Less) => other.clone(),
            Some(std::cmp::Ordering::Greater | std::cmp::Ordering::Equal) => self.clone(),
            None => {
                let (a, b) = if self <= other { (self, other) } else { (other, self) };
                Dim::atom(Atom::Max(a.clone(), b.clone()))
            }
        }
    }

    /// Order of the two, when it holds for every value of the symbols. `Less` and `Greater` mean "at most" and "at
    /// least" here: enough for min and max.
    fn compare(&self, other: &Dim) -> Option<std::cmp::Ordering> {
        let difference = self - other;
        if difference == Dim::ZERO {
            Some(std::cmp::Ordering::Equal)
        } else if difference.is_nonnegative() {
            Some(std::cmp::Ordering::Greater)
        } else if (other - self).is_nonnegative() {
            Some(std::cmp::Ordering::Less)
        } else {
            None
        }
    }

    /// Provably at least 0 for every value of the symbols.
    pub fn is_nonnegative(&self) -> bool {
        match self {
            Dim::Known(v) => *v >= 0,
            Dim::Expr(terms) => terms.iter().all(|(atoms, c)| {
                *c >= 0
                    && atoms.iter().all(|a| match a {
                        Atom::Sym(_) => true,
                        Atom::FloorDiv(a, b) | Atom::Min(a, b) => a.is_nonnegative() && b.is_nonnegative(),
                        Atom::Mod(_, b) => b.is_nonnegative(),
                        Atom::Max(a, b) => a.is_nonnegative() || b.is_nonnegative(),
                    })
            }),
        }
    }

    /// Its value with symbols looked up; `None` when one is not bound, a divisor is 0, or i64 overflows.
    pub fn eval(&self, lookup: &dyn Fn(&Symbol) -> Option<i64>) -> Option<i64> {
        match self {
            Dim::Known(v) => Some(*v),
            Dim::Expr(terms) => {
                let mut sum = 0i64;
                for (atoms, coefficient) in terms.iter() {
                    let mut product = *coefficient;
                    for atom in atoms {
                        product = product.checked_mul(atom.eval(lookup)?)?;
                    }
                    sum = sum.checked_add(product)?;
                }
                Some(sum)
            }
        }
    }

    /// The same with symbols replaced; those that `with` does not know stay.
    pub fn substitute(&self, with: &dyn Fn(&Symbol) -> Option<Dim>) -> Dim {
        let Dim::Expr(terms) = self else { return self.clone() };
        let mut sum = Dim::ZERO;
        for (atoms, coefficient) in terms.iter() {
            let mut product = Dim::Known(*coefficient);
            for atom in atoms {
                let value = match atom {
                    Atom::Sym(s) => with(s).unwrap_or_else(|| Dim::from(s.clone())),
                    Atom::FloorDiv(a, b) => a.substitute(with).floordiv(&b.substitute(with)),
                    Atom::Mod(a, b) => a.substitute(with).modulo(&b.substitute(with)),
                    Atom::Min(a, b) => a.substitute(with).minimum(&b.substitute(with)),
                    Atom::Max(a, b) => a.substitute(with).maximum(&b.substitute(with)),
                };
                product = &product * &value;
            }
            sum = &sum + &product;
        }
        sum
    }

    /// Calls `visit` on every symbol in it.
    pub fn visit_symbols(&self, visit: &mut dyn FnMut(&Symbol)) {
        let Dim::Expr(terms) = self else { return };
        for atom in terms.keys().flatten() {
            match atom {
                Atom::Sym(s) => visit(s),
                Atom::FloorDiv(a, b) | Atom::Mod(a, b) | Atom::Min(a, b) | Atom::Max(a, b) => {
                    a.visit_symbols(visit);
                    b.visit_symbols(visit);
                }
            }
        }
    }
}

impl Atom {
    pub(crate) fn eval(&self, lookup: &dyn Fn(&Symbol) -> Option<i64>) -> Option<i64> {
        match self {
            Atom::Sym(s) => lookup(s),
            Atom::FloorDiv(a, b) => a.eval(lookup)?.checked_div_euclid(b.eval(lookup)?),
            Atom::Mod(a, b) => a.eval(lookup)?.checked_rem_euclid(b.eval(lookup)?),
            Atom::Min(a, b) => Some(a.eval(lookup)?.min(b.eval(lookup)?)),
            Atom::Max(a, b) => Some(a.eval(lookup)?.max(b.eval(lookup)?)),
        }
    }
}

impl std::ops::Add for &Dim {
    type Output = Dim;
    fn add(self, other: &Dim) -> Dim {
        if let (Dim::Known(a), Dim::Known(b)) = (self, other) {
            return Dim::Known(a.saturating_add(*b));
        }
        let mut terms = self.terms();
        for (atoms, c) in other.terms() {
            let slot = terms.entry(atoms).or_insert(0);
            *slot = slot.saturating_add(c);
        }
        Dim::from_terms(terms)
    }
}

impl std::ops::Sub for &Dim {
    type Output = Dim;
    fn sub(self, other: &Dim) -> Dim {
        self + &(&Dim::Known(-1) * other)
    }
}

impl std::ops::Mul for &Dim {
    type Output = Dim;
    fn mul(self, other: &Dim) -> Dim {
        if let (Dim::Known(a), Dim::Known(b)) = (self, other) {
            return Dim::Known(a.saturating_mul(*b));
        }
        let (left_terms, right_terms) = (self.terms(), other.terms());
        // Products of sums grow exponentially with their number: past this they count as too large.
        let too_large = |d: &Dim| d.known() == Some(i64::MAX);
        if left_terms.len().saturating_mul(right_terms.len()) > MAX_PRODUCT_TERMS || too_large(self) || too_large(other)
        {
            return Dim::Known(i64::MAX);
        }
        let mut terms = Terms::new();
        for (left, a) in left_terms {
            for (right, b) in &right_terms {
                let mut atoms = left.clone();
                atoms.extend(right.iter().cloned());
                atoms.sort();
                let slot = terms.entry(atoms).or_insert(0);
                *slot = slot.saturating_add(a.saturating_mul(*b));
            }
        }
        Dim::from_terms(terms)
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let terms = match self {
            Dim::Known(v) => return write!(f, "{v}"),
            Dim::Expr(terms) => terms,
        };
        // The constant term sorts first but reads best last.
        let (constant, rest): (Vec<_>, Vec<_>) = terms.iter().partition(|(atoms, _)| atoms.is_empty());
        for (i, (atoms, c)) in rest.into_iter().chain(constant).enumerate() {
            let magnitude = c.unsigned_abs();
            match (i, *c < 0) {
                (0, true) => f.write_str("-")?,
                (0, false) => {}
                (_, true) => f.write_str(" - ")?,
                (_, false) => f.write_str(" + ")?,
            }
            if magnitude != 1 || atoms.is_empty() {
                write!(f, "{magnitude}")?;
                if !atoms.is_empty() {
                    f.write_str("*")?;
                }
            }
            for (k, atom) in atoms.iter().enumerate() {
                if k > 0 {
                    f.write_str("*")?;
                }
                match atom {
                    Atom::Sym(s) => write!(f, "{s}")?,
                    Atom::FloorDiv(a, b) => write!(f, "floordiv({a}, {b})")?,
                    Atom::Mod(a, b) => write!(f, "mod({a}, {b})")?,
                    Atom::Min(a, b) => write!(f, "min({a}, {b})")?,
                    Atom::Max(a, b) => write!(f, "max({a}, {b})")?,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_in_any_order_are_equal() {
        let b = Dim::symbol("B");
        let left = &(&b * &Dim::Known(784)) * &Dim::Known(6);
        let right = &Dim::Known(4704) * &b;
        assert_eq!(left, right);
        assert_eq!(left.to_string(), "4704*B");
        assert_eq!(left.floordiv(&Dim::Known(6)), &Dim::Known(784) * &b);
        assert_eq!(left.floordiv(&b), Dim::Known(4704));
        assert_eq!(left.modulo(&Dim::Known(7)), Dim::ZERO);
    }

    #[test]
    fn what_does_not_divide_stays_an_atom_and_evaluates() {
        let b = Dim::symbol("B");
        let d = (&b + &Dim::ONE).ceildiv(&Dim::Known(2));
        assert_eq!(d.to_string(), "floordiv(B + 2, 2)");
        assert_eq!(d.eval(&|_| Some(5)), Some(3));
        assert_eq!(d.substitute(&|_| Some(Dim::Known(4))), Dim::Known(3));
        assert_eq!((&b - &Dim::ONE).maximum(&b), b);
    }
}
