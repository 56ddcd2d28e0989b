//! What is the same along reduced axes leaves the reduction: one direction, outward, through sums, minima and maxima.
//!
//! A whole pass over a tensor that only scales or shifts it becomes a scalar operation on results. The equations hold
//! for numbers; where a factor overflows or is infinite, the left side may give NaN where the right side gives a number:
//! fast mode only.

use frit_ir::builder::{Builder, Built};
use frit_ir::op::BinaryOp;
use frit_ir::types::Dim;
use frit_ir::{DType, NodeId, Op, ReduceKind, UnaryOp, Value};

use super::movement::input;
use super::reduction::reduce_of;
use super::{Outcome, Rule, Scope, found};

pub(super) static RULES: &[Rule] = &[
    rule!("sum-of-scaled", "sum(x y / z) = sum(x) y / z", "y and z repeat along the summed axes",
        Reassociate Algebra Rounding, sum_of_scaled, |b| {
        let (x, y) = (input(b, &[5, 7]), input(b, &[5, 1]));
        let p = b.binary(BinaryOp::Mul, x, y)?;
        Ok(vec![b.reduce(p, vec![1], ReduceKind::Sum, false)?])
    }),
    rule!("sum-of-negated", "sum(-x) = -sum(x)", "floats; -x is used once", Reassociate Algebra Rounding, sum_of_negated, |b| {
        let x = input(b, &[5, 7]);
        let x = b.unary(UnaryOp::Neg, x)?;
        Ok(vec![b.reduce(x, vec![1], ReduceKind::Sum, false)?])
    }),
    rule!("sum-of-shifted", "sum((x - y) w) = sum(x w) - y sum(w)",
        "y repeats along the summed axes, w along others", Reassociate Algebra Rounding, sum_of_shifted, |b| {
        let (x, y, w) = (input(b, &[5, 7]), input(b, &[5, 1]), input(b, &[7]));
        let p = b.binary(BinaryOp::Sub, x, y)?;
        let p = b.binary(BinaryOp::Mul, p, w)?;
        Ok(vec![b.reduce(p, vec![1], ReduceKind::Sum, false)?])
    }),
    rule!("extreme-of-scaled", "min(x y) = min(x) y, min(x + z) = min(x) + z; max where y < 0",
        "y and z repeat along the reduced axes; the sign of y is known", Reassociate Algebra Rounding, extreme_of_scaled,
        |b| {
        let (x, y) = (input(b, &[5, 7]), input(b, &[5, 1]));
        let (y, one) = (b.unary(UnaryOp::Abs, y)?, b.scalar(DType::F32, 1.0)?);
        let y = b.binary(BinaryOp::Add, y, one)?;
        let p = b.binary(BinaryOp::Div, x, y)?;
        Ok(vec![b.reduce(p, vec![1], ReduceKind::Min, false)?])
    }),
    rule!("difference-of-quotients", "x / y - z / y = (x - z) / y", "one y", Reassociate Algebra Rounding,
        difference_of_quotients, |b| {
        let (x, z, y) = (input(b, &[5, 7]), input(b, &[]), input(b, &[]));
        let y = b.unary(UnaryOp::Abs, y)?;
        let one = b.scalar(DType::F32, 1.0)?;
        let y = b.binary(BinaryOp::Add, y, one)?;
        let (p, q) = (b.binary(BinaryOp::Div, x, y)?, b.binary(BinaryOp::Div, z, y)?);
        Ok(vec![b.binary(BinaryOp::Sub, p, q)?])
    }),
    rule!("quotient-of-quotients", "(x / y) / (z / y) = x / z", "one y of a known sign; where it is 0 the left side is NaN", Reassociate Algebra Rounding,
        quotient_of_quotients, |b| {
        let (x, z, y) = (input(b, &[5, 7]), input(b, &[]), input(b, &[]));
        let y = b.unary(UnaryOp::Abs, y)?;
        let one = b.scalar(DType::F32, 1.0)?;
        let y = b.binary(BinaryOp::Add, y, one)?;
        let (p, q) = (b.binary(BinaryOp::Div, x, y)?, b.binary(BinaryOp::Div, z, y)?);
        Ok(vec![b.binary(BinaryOp::Div, p, q)?])
    }),
];

/// A value that repeats along reduced axes, and how to lay it out over the result.
#[derive(Clone)]
struct Invariant {
    value: Value,
    /// Its extents without those along reduced axes, which are 1.
    dims: Vec<Dim>,
    /// Where they go in the result.
    places: Vec<usize>,
}

impl Invariant {
    /// Of an operand of what is reduced along `axes`; `None`: it varies along them, or is no broadcast.
    fn of(s: &Scope<'_>, axes: &[usize], operand: Value) -> Option<Invariant> {
        let (Op::Broadcast { axes: places, .. }, Some(value)) = (&s.node(operand).op, s.operand(operand.node, 0))
        else {
            return None;
        };
        let from = s.dims(value);
        let reduced = |i: &usize| places.get(*i).is_some_and(|p| axes.contains(p));
        if axes.is_empty() || (0..from.len()).any(|i| reduced(&i) && from.get(i) != Some(&Dim::ONE)) {
            return None;
        }
        let kept: Vec<usize> = (0..from.len()).filter(|i| !reduced(i)).collect();
        let shifted = |axis: usize| axis - axes.iter().filter(|&&a| a < axis).count();
        Some(Invariant {
            value,
            dims: kept.iter().filter_map(|&i| from.get(i).cloned()).collect(),
            places: kept.iter().filter_map(|&i| places.get(i)).map(|&p| shifted(p)).collect(),
        })
    }

    /// Over the result's extents.
    fn laid_out(self, b: &mut Builder<'_>, dims: &[Dim]) -> Built {
        let value = b.reshape(self.value, self.dims)?;
        if b.dims(value)? == dims {
            return Ok(value);
        }
        b.op(Op::Broadcast { dims: dims.to_vec(), axes: self.places }, &[value])
    }
}

/// A factor of a product, or a divisor.
#[derive(Clone, Copy, PartialEq)]
struct Factor {
    value: Value,
    divides: bool,
}

/// Most nested products and quotients that are taken apart.
const DEPTH: usize = 4;

/// The factors of a value, taken apart as far as it takes to get at those that are wanted; and what was taken apart.
struct Factors<'s, 'a> {
    s: &'s Scope<'a>,
    wanted: &'s dyn Fn(Value) -> bool,
    all: Vec<Factor>,
    seen: Vec<Value>,
}

impl<'s, 'a> Factors<'s, 'a> {
    fn of(s: &'s Scope<'a>, value: Value, wanted: &'s dyn Fn(Value) -> bool) -> Factors<'s, 'a> {
        let mut this = Factors { s, wanted, all: Vec::new(), seen: Vec::new() };
        this.collect(Factor { value, divides: false }, DEPTH, false);
        this
    }

    /// Whether a wanted factor is among those of this one. In what is `shared` with other users a constant is not worth
    /// computing the rest again.
    fn collect(&mut self, factor: Factor, depth: usize, shared: bool) -> bool {
        let Factor { value, divides } = factor;
        let wanted = (self.wanted)(value) && !(shared && self.s.number(value).is_some());
        let shared = shared || !self.s.single_use(value);
        let parts = match (self.s.binary(value.node, BinaryOp::Mul), self.s.binary(value.node, BinaryOp::Div)) {
            (Some((a, b)), _) => Some((a, b, divides)),
            (_, Some((a, b))) => Some((a, b, !divides)),
            (None, None) => None,
        };
        if !wanted
            && depth > 0
            && let Some((a, b, second)) = parts
        {
            let before = (self.all.len(), self.seen.len());
            let left = self.collect(Factor { value: a, divides }, depth - 1, shared);
            let right = self.collect(Factor { value: b, divides: second }, depth - 1, shared);
            if left || right {
                self.seen.push(value);
                return true;
            }
            self.all.truncate(before.0);
            self.seen.truncate(before.1);
        }
        self.all.push(factor);
        wanted
    }
}

/// The product of factors; `None` where there are none.
fn product(b: &mut Builder<'_>, factors: &[Factor]) -> Result<Option<Value>, frit_ir::op::infer::TypeError> {
    let mut result: Option<Value> = None;
    for f in factors.iter().filter(|f| !f.divides) {
        result = Some(match result {
            Some(r) => b.binary(BinaryOp::Mul, r, f.value)?,
            None => f.value,
        });
    }
    for f in factors.iter().filter(|f| f.divides) {
        let r = match result {
            Some(r) => r,
            None => {
                let dtype = b.tensor(f.value)?.dtype;
                b.scalar(dtype, 1.0)?
            }
        };
        result = Some(b.binary(BinaryOp::Div, r, f.value)?);
    }
    Ok(result)
}

fn sum_of_scaled(s: &Scope<'_>, id: NodeId) -> Outcome {
    let (Some((axes, ReduceKind::Sum, x)), Some(ty)) = (reduce_of(s, id), s.result(id)) else { return Outcome::No };
    if !ty.dtype.is_float() {
        return Outcome::No;
    }
    let wanted = |v| Invariant::of(s, axes, v).is_some();
    let Factors { all, seen, .. } = Factors::of(s, x, &wanted);
    let (mut outside, mut inside) = (Vec::new(), Vec::new());
    for factor in all {
        match Invariant::of(s, axes, factor.value) {
            Some(invariant) => outside.push((invariant, factor.divides)),
            None => inside.push(factor),
        }
    }
    if outside.is_empty() || !inside.iter().any(|f| !f.divides) {
        return Outcome::No;
    }
    let (axes, dims) = (axes.to_vec(), ty.dims.clone());
    found(seen, move |b| {
        let Some(rest) = product(b, &inside)? else { return Ok(x) };
        let mut result = b.reduce(rest, axes, ReduceKind::Sum, false)?;
        for (invariant, divides) in outside {
            let y = invariant.laid_out(b, &dims)?;
            result = b.op(Op::Binary(if divides { BinaryOp::Div } else { BinaryOp::Mul }), &[result, y])?;
        }
        Ok(result)
    })
}

fn sum_of_negated(s: &Scope<'_>, id: NodeId) -> Outcome {
    let Some((axes, ReduceKind::Sum, x)) = reduce_of(s, id) else { return Outcome::No };
    let float = s.result(id).is_some_and(|t| t.dtype.is_float());
    let Some(positive) = s.unary(x, UnaryOp::Neg).filter(|_| float && s.single_use(x)) else { return Outcome::No };
    let axes = axes.to_vec();
    found([x], move |b| {
        let sum = b.reduce(positive, axes, ReduceKind::Sum, false)?;
        b.unary(UnaryOp::Neg, sum)
    })
}

/// The operands of a sum or difference.
fn shift(s: &Scope<'_>, value: Value) -> Option<(BinaryOp, Value, Value)> {
    let of = |op| s.binary(value.node, op).map(|(a, b)| (op, a, b));
    of(BinaryOp::Sub).or_else(|| of(BinaryOp::Add))
}

fn sum_of_shifted(s: &Scope<'_>, id: NodeId) -> Outcome {
    let (Some((axes, ReduceKind::Sum, x)), Some(ty)) = (reduce_of(s, id), s.result(id)) else { return Outcome::No };
    if !ty.dtype.is_float() {
        return Outcome::No;
    }
    let shifted_by = |v| {
        let (op, a, b) = shift(s, v)?;
        Some((op, a, Invariant::of(s, axes, b)?))
    };
    let wanted = |v| shifted_by(v).is_some();
    let Factors { all, mut seen, .. } = Factors::of(s, x, &wanted);
    let shifted = all.iter().enumerate().filter(|(_, f)| !f.divides).find_map(|(i, f)| {
        let (op, a, invariant) = shifted_by(f.value)?;
        Some((i, *f, op, a, invariant))
    });
    let Some((place, factor, op, a, invariant)) = shifted else { return Outcome::No };
    let mut rest = all;
    rest.remove(place);
    // Their sum must be less work than the sum that it replaces.
    let thin = |f: &Factor| match (&s.node(f.value).op, s.operand(f.value.node, 0)) {
        (Op::Broadcast { .. }, Some(w)) => Dim::product(s.dims(w)).known().is_some(),
        _ => false,
    };
    let full = s.dims(x);
    let count = Dim::product(axes.iter().filter_map(|&a| full.get(a)));
    if !rest.iter().all(thin) {
        return Outcome::Near("other factors vary as much as the shifted one");
    }
    let Some(count) = count.known().filter(|n| *n > 0) else {
        return Outcome::Near("the number of summed elements is not known");
    };
    if matches!(s.node(a).op, Op::Broadcast { .. }) {
        return Outcome::Near("both terms repeat");
    }
    let (axes, dims, dtype) = (axes.to_vec(), ty.dims.clone(), ty.dtype);
    seen.push(factor.value);
    found(seen, move |b| {
        let mut kept = vec![Factor { value: a, divides: false }];
        kept.extend(rest.iter().copied());
        let Some(left) = product(b, &kept)? else { return Ok(x) };
        let left = b.reduce(left, axes.clone(), ReduceKind::Sum, false)?;
        let weight = match product(b, &rest)? {
            Some(w) => b.reduce(w, axes, ReduceKind::Sum, false)?,
            None => b.scalar(dtype, count as f64)?,
        };
        let y = invariant.laid_out(b, &dims)?;
        let right = b.binary(BinaryOp::Mul, y, weight)?;
        b.binary(op, left, right)
    })
}

fn extreme_of_scaled(s: &Scope<'_>, id: NodeId) -> Outcome {
    let (Some((axes, kind, x)), Some(ty)) = (reduce_of(s, id), s.result(id)) else { return Outcome::No };
    let other = match kind {
        ReduceKind::Min => ReduceKind::Max,
        ReduceKind::Max => ReduceKind::Min,
        ReduceKind::Sum | ReduceKind::Prod | ReduceKind::ArgMin | ReduceKind::ArgMax => return Outcome::No,
    };
    let (Op::Binary(op @ (BinaryOp::Mul | BinaryOp::Div | BinaryOp::Add | BinaryOp::Sub)), [a, b]) =
        (&s.node(x).op, s.node(x).operands())
    else {
        return Outcome::No;
    };
    if !ty.dtype.is_float() {
        return Outcome::No;
    }
    let op = *op;
    let commutes = matches!(op, BinaryOp::Mul | BinaryOp::Add);
    let (inner, invariant) = match (Invariant::of(s, axes, *b), Invariant::of(s, axes, *a)) {
        (Some(i), None) => (*a, i),
        (None, Some(i)) if commutes => (*b, i),
        _ => return Outcome::No,
    };
    let range = s.range(invariant.value);
    let scales = matches!(op, BinaryOp::Mul | BinaryOp::Div);
    let kind = match () {
        // A divisor of 0 gives NaN or an infinity on either side.
        () if !scales || range.is_not_negative() => kind,
        () if range.is_negative() => other,
        () => return Outcome::Near("the sign of the factor is not known"),
    };
    let (axes, dims) = (axes.to_vec(), ty.dims.clone());
    found([x], move |b| {
        let extreme = b.reduce(inner, axes, kind, false)?;
        let y = invariant.laid_out(b, &dims)?;
        b.op(Op::Binary(op), &[extreme, y])
    })
}

/// Numerator and divisor of a quotient; the divisor where it comes from, and whether both repeat.
struct Quotient {
    numerator: Value,
    divisor: Value,
    /// What both are before they are repeated over the result; `None`: they are not.
    spread: Option<(Vec<usize>, Vec<Dim>)>,
}

/// A quotient, also one that is repeated.
fn quotient(s: &Scope<'_>, value: Value) -> Option<Quotient> {
    if let Some((numerator, divisor)) = s.binary(value.node, BinaryOp::Div) {
        return Some(Quotient { numerator, divisor, spread: None });
    }
    let (Op::Broadcast { axes, dims }, Some(x)) = (&s.node(value).op, s.operand(value.node, 0)) else { return None };
    let (numerator, divisor) = s.binary(x.node, BinaryOp::Div)?;
    Some(Quotient { numerator, divisor, spread: Some((axes.clone(), dims.clone())) })
}

/// What a value repeats when it repeats one element.
fn single(s: &Scope<'_>, value: Value) -> Value {
    let mut at = value;
    while let (Op::Broadcast { .. } | Op::Reshape { .. }, Some(x)) = (&s.node(at).op, s.operand(at.node, 0)) {
        if Dim::product(s.dims(x)) != Dim::ONE {
            break;
        }
        at = x;
    }
    at
}

/// Whether two divisors are the same in every element.
fn same_divisor(s: &Scope<'_>, a: &Quotient, b: &Quotient) -> bool {
    (a.divisor == b.divisor && a.spread == b.spread) || single(s, a.divisor) == single(s, b.divisor)
}

impl Quotient {
    /// One of its operands over the result's extents.
    fn laid_out(&self, b: &mut Builder<'_>, operand: Value) -> Built {
        match &self.spread {
            None => Ok(operand),
            Some((axes, dims)) => b.op(Op::Broadcast { dims: dims.clone(), axes: axes.clone() }, &[operand]),
        }
    }
}

fn difference_of_quotients(s: &Scope<'_>, id: NodeId) -> Outcome {
    let (op, Some((x, z))) = (BinaryOp::Sub, s.binary(id, BinaryOp::Sub)) else { return Outcome::No };
    let (Some(left), Some(right)) = (quotient(s, x), quotient(s, z)) else { return Outcome::No };
    if !same_divisor(s, &left, &right) || !s.result(id).is_some_and(|t| t.dtype.is_float()) {
        return Outcome::No;
    }
    // Minima and maxima of the quotient become those of its numerator.
    let extreme = |user: &Op| matches!(user, Op::Reduce { kind: ReduceKind::Min | ReduceKind::Max, .. });
    let uses = s.f.uses(x);
    if left.spread.is_some() || !uses.iter().all(|(user, _)| *user == id || extreme(&s.f.node(*user).op)) {
        return Outcome::Near("the quotient is used elsewhere too");
    }
    found([x, z], move |b| {
        let (p, q) = (left.laid_out(b, left.numerator)?, right.laid_out(b, right.numerator)?);
        let difference = b.op(Op::Binary(op), &[p, q])?;
        let divisor = left.laid_out(b, left.divisor)?;
        b.op(Op::Binary(BinaryOp::Div), &[difference, divisor])
    })
}

fn quotient_of_quotients(s: &Scope<'_>, id: NodeId) -> Outcome {
    let Some((x, z)) = s.binary(id, BinaryOp::Div) else { return Outcome::No };
    let (Some(left), Some(right)) = (quotient(s, x), quotient(s, z)) else { return Outcome::No };
    if !same_divisor(s, &left, &right) || !s.result(id).is_some_and(|t| t.dtype.is_float()) {
        return Outcome::No;
    }
    let range = s.range(left.divisor);
    if !range.is_not_negative() && !range.is_negative() {
        return Outcome::Near("the sign of the common divisor is not known");
    }
    found([x, z], move |b| {
        let (p, q) = (left.laid_out(b, left.numerator)?, right.laid_out(b, right.numerator)?);
        b.op(Op::Binary(BinaryOp::Div), &[p, q])
    })
}
