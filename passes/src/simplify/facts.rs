//! Facts about values: the range that the elements of a float tensor lie in, NaN aside.
//!
//! Derived from what computes a value, never guessed: a constant's own elements, functions with a bounded range, and
//! interval arithmetic rounded outwards to f32. What nothing is known of may be anything, infinities included. Rules ask
//! here before they divide by a value or move one out of a minimum.

use frit_ir::convert::to_f64s;
use frit_ir::op::BinaryOp;
use frit_ir::types::Dim;
use frit_ir::{DType, Op, ReduceKind, UnaryOp, Value};

use super::algebra::Scope;
use super::assumed::{Assumed, Path};

/// Bounds of all elements that are not NaN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// No element is below.
    pub low: f64,
    /// No element is above.
    pub high: f64,
}

/// Anything.
const ALL: Range = Range { low: f64::NEG_INFINITY, high: f64::INFINITY };
/// Ops that are looked at for one question, shared out among operands: facts are cheap or not worth it.
const BUDGET: usize = 256;
/// Largest constant whose elements are looked at.
const LARGEST: usize = 1 << 10;

impl Range {
    fn new(low: f64, high: f64) -> Range {
        // A bound that is no number (inf - inf) says nothing.
        Range {
            low: if low.is_nan() { f64::NEG_INFINITY } else { low },
            high: if high.is_nan() { f64::INFINITY } else { high },
        }
    }

    /// The numbers between, as f32 may round them.
    fn rounded(self) -> Range {
        let (mut low, mut high) = (self.low as f32, self.high as f32);
        if f64::from(low) > self.low {
            low = low.next_down();
        }
        if f64::from(high) < self.high {
            high = high.next_up();
        }
        Range { low: low.into(), high: high.into() }
    }

    /// With room for the error of an elementary function.
    fn widened(self) -> Range {
        const ULPS: f64 = 8.0 * f32::EPSILON as f64;
        Range::new(self.low - self.low.abs() * ULPS, self.high + self.high.abs() * ULPS).rounded()
    }

    /// What lies in both.
    pub(super) fn intersection(self, other: Range) -> Range {
        Range { low: self.low.max(other.low), high: self.high.min(other.high) }
    }

    fn union(self, other: Range) -> Range {
        Range { low: self.low.min(other.low), high: self.high.max(other.high) }
    }

    fn corners(self, other: Range, op: impl Fn(f64, f64) -> f64) -> Range {
        let all =
            [op(self.low, other.low), op(self.low, other.high), op(self.high, other.low), op(self.high, other.high)];
        if all.iter().any(|v| v.is_nan()) {
            return ALL;
        }
        Range {
            low: all.iter().copied().fold(f64::INFINITY, f64::min),
            high: all.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        }
    }

    /// Whether every element is above 0.
    pub fn is_positive(self) -> bool {
        self.low > 0.0
    }

    /// Whether no element is below 0.
    pub fn is_not_negative(self) -> bool {
        self.low >= 0.0
    }

    /// Whether every element is below 0.
    pub fn is_negative(self) -> bool {
        self.high < 0.0
    }

    /// The largest magnitude.
    pub fn magnitude(self) -> f64 {
        self.low.abs().max(self.high.abs())
    }
}

impl Scope<'_> {
    /// The range of a value of f32 or f64; other types may be anything.
    pub fn range(&self, value: Value) -> Range {
        self.range_within(value, &Path::Whole, &Assumed::default(), BUDGET)
    }

    /// The range of those elements of a value at whose places some conditions hold.
    pub fn range_where(&self, value: Value, assumed: &Assumed) -> Range {
        self.range_within(value, &Path::Whole, assumed, BUDGET)
    }

    /// Whether a reduce may have nothing to reduce.
    fn is_empty(&self, reduce: Value) -> bool {
        let operand = self.operand(reduce.node, 0);
        !operand.is_some_and(|v| self.dims(v).iter().all(|d| d.known().is_some_and(|n| n > 0)))
    }

    /// Whether one value holds maxima and the other minima of the same elements at each place; there are some.
    fn is_spread(&self, largest: Value, smallest: Value) -> bool {
        let (Some(high), Some(low)) = (self.extreme(largest, ReduceKind::Max), self.extreme(smallest, ReduceKind::Min))
        else {
            return false;
        };
        high == low && self.ty(largest).map(|t| &t.dims) == self.ty(smallest).map(|t| &t.dims)
    }

    /// What a value is the extreme of, and along which axes; none where one element is that of all, whatever the steps.
    fn extreme(&self, value: Value, kind: ReduceKind) -> Option<(Value, &[usize])> {
        let all = self.ty(value).is_some_and(|t| Dim::product(&t.dims) == Dim::ONE);
        let (mut at, mut found) = (value, None);
        while let Some(x) = self.operand(at.node, 0)
            && (found.is_none() || all)
        {
            match &self.node(at).op {
                Op::Reduce { kind: own, axes } if *own == kind && !self.is_empty(at) => {
                    found = Some(if all { &[][..] } else { axes.as_slice() });
                }
                Op::Reshape { .. } if all => {}
                _ => break,
            }
            at = x;
        }
        found.map(|axes| (at, axes))
    }

    fn range_within(&self, value: Value, path: &Path, assumed: &Assumed, budget: usize) -> Range {
        let range = self.range_of(value, path, assumed, budget);
        assumed.bound(value, path).map_or(range, |bound| range.intersection(bound))
    }

    fn range_of(&self, value: Value, path: &Path, assumed: &Assumed, budget: usize) -> Range {
        let float = self.ty(value).is_some_and(|t| matches!(t.dtype, DType::F32 | DType::F64));
        if !float || budget == 0 {
            return ALL;
        }
        if let Some(tensor) = self.constant(value) {
            let elements = if tensor.numel() <= LARGEST { to_f64s(tensor) } else { None };
            let numbers = elements.iter().flatten().copied().filter(|v| !v.is_nan());
            return numbers.map(|v| Range { low: v, high: v }).reduce(Range::union).unwrap_or(ALL);
        }
        let node = self.node(value);
        let path = path.through(&node.op);
        // What is deep on one side leaves enough for a constant on the other.
        let share = (budget - 1) / node.operands().len().max(1);
        let of = |i: usize| node.operands().get(i).map_or(ALL, |v| self.range_within(*v, &path, assumed, share));
        match &node.op {
            Op::Reshape { .. } | Op::Broadcast { .. } | Op::Transpose { .. } | Op::Slice { .. } => of(0),
            // An empty minimum is an infinity.
            Op::Reduce { kind: ReduceKind::Min, .. } if self.is_empty(value) => Range { high: f64::INFINITY, ..of(0) },
            Op::Reduce { kind: ReduceKind::Max, .. } if self.is_empty(value) => {
                Range { low: f64::NEG_INFINITY, ..of(0) }
            }
            Op::Reduce { kind: ReduceKind::Min | ReduceKind::Max, .. } => of(0),
            Op::Reduce { kind: ReduceKind::Sum, .. } => {
                let x = of(0);
                Range {
                    low: if x.low >= 0.0 { 0.0 } else { f64::NEG_INFINITY },
                    high: if x.high <= 0.0 { 0.0 } else { f64::INFINITY },
                }
            }
            Op::Unary(op) => unary(*op, of(0)),
            Op::Binary(op) => match node.operands() {
                // A square.
                [a, b] if a == b && *op == BinaryOp::Mul => {
                    let x = of(0);
                    let most = x.magnitude() * x.magnitude();
                    Range::new(if x.low > 0.0 { x.low * x.low } else { 0.0 }, most).rounded()
                }
                [a, b] => {
                    let (x, y) = (of(0), of(1));
                    let range = binary(*op, x, y);
                    // The largest of some elements less the smallest of the same.
                    let spread = *op == BinaryOp::Sub && self.is_spread(*a, *b);
                    if spread { range.intersection(Range { low: 0.0, high: f64::INFINITY }) } else { range }
                }
                _ => ALL,
            },
            Op::Select { .. } if node.operands().first().is_some_and(|c| assumed.holds(*c, &path)) => of(1),
            Op::Select { .. } => {
                let a = of(1);
                a.union(of(2))
            }
            _ => ALL,
        }
    }
}

fn unary(op: UnaryOp, x: Range) -> Range {
    match op {
        UnaryOp::Neg => Range { low: -x.high, high: -x.low },
        UnaryOp::Abs => Range {
            low: if x.low >= 0.0 {
                x.low
            } else if x.high <= 0.0 {
                -x.high
            } else {
                0.0
            },
            high: x.magnitude(),
        },
        UnaryOp::Sign | UnaryOp::Tanh | UnaryOp::Erf | UnaryOp::Sin | UnaryOp::Cos => Range { low: -1.0, high: 1.0 },
        UnaryOp::Floor | UnaryOp::Ceil | UnaryOp::Trunc | UnaryOp::RoundEven => {
            Range::new(x.low.floor(), x.high.ceil()).rounded()
        }
        UnaryOp::Sqrt => Range::new(x.low.max(0.0).sqrt(), x.high.max(0.0).sqrt()).rounded(),
        UnaryOp::Exp => {
            let widened = Range::new(x.low.exp(), x.high.exp()).widened();
            Range { low: widened.low.max(0.0), ..widened }
        }
        UnaryOp::Expm1 => Range { low: -1.0, high: f64::INFINITY },
        UnaryOp::Atan => Range { low: -1.571, high: 1.571 },
        UnaryOp::Acos => Range { low: 0.0, high: 3.15 },
        UnaryOp::Asin => Range { low: -1.571, high: 1.571 },
        UnaryOp::Log | UnaryOp::Log1p | UnaryOp::Tan | UnaryOp::Not => ALL,
    }
}

fn binary(op: BinaryOp, a: Range, b: Range) -> Range {
    match op {
        BinaryOp::Add => Range::new(a.low + b.low, a.high + b.high).rounded(),
        BinaryOp::Sub => Range::new(a.low - b.high, a.high - b.low).rounded(),
        BinaryOp::Mul => a.corners(b, |x, y| x * y).rounded(),
        BinaryOp::Div if b.low > 0.0 || b.high < 0.0 => a.corners(b, |x, y| x / y).rounded(),
        BinaryOp::Max => Range { low: a.low.max(b.low), high: a.high.max(b.high) },
        BinaryOp::Min => Range { low: a.low.min(b.low), high: a.high.min(b.high) },
        _ => ALL,
    }
}

#[cfg(test)]
mod tests {
    use frit_ir::builder::Builder;
    use frit_ir::op::Numerics;
    use frit_ir::{Function, Origin};
    use indexmap::IndexMap;

    use super::*;

    /// The range of what `build` makes of an input of `[3]`.
    fn range(build: impl Fn(&mut Builder<'_>, Value) -> Value) -> Range {
        let mut f = Function::new("infer");
        let x = f.add_input("x", frit_ir::TensorType { dtype: DType::F32, dims: vec![Dim::Known(3)] });
        let mut b = Builder { function: &mut f, origin: Origin::named("test"), numerics: Numerics::STRICT };
        let y = build(&mut b, x);
        f.add_output("y", y);
        Scope { f: &f, params: &IndexMap::new() }.range(y)
    }

    #[test]
    fn signs_follow_from_what_computes_a_value() {
        let square = range(|b, x| b.binary(BinaryOp::Mul, x, x).unwrap());
        assert_eq!(square, Range { low: 0.0, high: f64::INFINITY });
        let sigmoid = |b: &mut Builder<'_>, x: Value| {
            let (one, e) = (b.scalar(DType::F32, 1.0).unwrap(), b.unary(UnaryOp::Exp, x).unwrap());
            let d = b.binary(BinaryOp::Add, one, e).unwrap();
            (one, d)
        };
        assert_eq!(range(|b, x| sigmoid(b, x).1).low, 1.0);
        let s = range(|b, x| {
            let (one, d) = sigmoid(b, x);
            b.binary(BinaryOp::Div, one, d).unwrap()
        });
        assert_eq!(s, Range { low: 0.0, high: 1.0 });
        let norm = range(|b, x| {
            let y = b.binary(BinaryOp::Mul, x, x).unwrap();
            let y = b.reduce(y, vec![0], ReduceKind::Sum, false).unwrap();
            let (y, least) = (b.unary(UnaryOp::Sqrt, y).unwrap(), b.scalar(DType::F32, 1e-12).unwrap());
            b.binary(BinaryOp::Max, y, least).unwrap()
        });
        assert!(norm.is_positive());
    }

    /// `select(|x| <= 3 and |g| <= 2 for all g, e^x e^g, anything) + 1`, x repeated along an axis of two or the other.
    fn guarded(straight: bool) -> Range {
        let mut f = Function::new("infer");
        let ty = |dims: &[i64]| frit_ir::TensorType {
            dtype: DType::F32,
            dims: dims.iter().map(|d| Dim::Known(*d)).collect(),
        };
        let (x, g, rest) = (f.add_input("x", ty(&[4])), f.add_input("g", ty(&[4])), f.add_input("rest", ty(&[4, 4])));
        let mut b = Builder { function: &mut f, origin: Origin::named("test"), numerics: Numerics::STRICT };
        let repeat = |b: &mut Builder<'_>, v: Value, axis: usize| {
            b.op(Op::Broadcast { dims: ty(&[4, 4]).dims, axes: vec![axis] }, &[v]).unwrap()
        };
        let within = |b: &mut Builder<'_>, v: Value, limit: f64| {
            let (size, limit) = (b.unary(UnaryOp::Abs, v).unwrap(), b.scalar(DType::F32, limit).unwrap());
            b.binary(BinaryOp::Le, size, limit).unwrap()
        };
        let near = within(&mut b, x, 3.0);
        let size = b.unary(UnaryOp::Abs, g).unwrap();
        let most = b.reduce(size, vec![0], ReduceKind::Max, false).unwrap();
        let small = within(&mut b, most, 2.0);
        let both = b.binary(BinaryOp::And, near, small).unwrap();
        let holds = repeat(&mut b, both, 0);
        let parts = [(x, usize::from(!straight)), (g, 1)].map(|(v, axis)| {
            let e = b.unary(UnaryOp::Exp, v).unwrap();
            repeat(&mut b, e, axis)
        });
        let product = b.binary(BinaryOp::Mul, parts[0], parts[1]).unwrap();
        let chosen = b.select_likely(holds, product, rest).unwrap();
        let one = b.scalar(DType::F32, 1.0).unwrap();
        let d = b.binary(BinaryOp::Add, chosen, one).unwrap();
        f.add_output("d", d);
        let params = IndexMap::new();
        let scope = Scope { f: &f, params: &params };
        assert_eq!(scope.range(d), ALL);
        let (conditions, assumed) = Assumed::usual(&scope, &[d]);
        assert_eq!(conditions, [holds]);
        scope.range_where(d, &assumed)
    }

    #[test]
    fn likely_conditions_bound_what_is_usual() {
        let range = guarded(true);
        assert!(range.low >= 1.0 && range.high <= 1.0 + 5.1_f64.exp(), "{range:?}");
        // The condition speaks of x[i], the product takes x[j].
        assert_eq!(guarded(false).high, f64::INFINITY);
    }

    #[test]
    fn the_largest_is_not_below_the_smallest() {
        let extreme = |b: &mut Builder<'_>, x: Value, kind: ReduceKind| b.reduce(x, vec![0], kind, false).unwrap();
        let spread = |first: ReduceKind, second: ReduceKind, shift: bool| {
            range(|b, x| {
                let high = extreme(b, x, first);
                let other = if shift { b.unary(UnaryOp::Neg, x).unwrap() } else { x };
                let low = extreme(b, other, second);
                b.binary(BinaryOp::Sub, high, low).unwrap()
            })
        };
        assert!(spread(ReduceKind::Max, ReduceKind::Min, false).is_not_negative());
        assert_eq!(spread(ReduceKind::Min, ReduceKind::Max, false), ALL);
        assert_eq!(spread(ReduceKind::Max, ReduceKind::Min, true), ALL);
        // In steps, as one element of the whole.
        let steps = range(|b, x| {
            let high = extreme(b, x, ReduceKind::Max);
            let low = b.reshape(x, vec![Dim::ONE, Dim::Known(3)]).unwrap();
            let low = b.reduce(low, vec![1], ReduceKind::Min, false).unwrap();
            let low = b.reshape(low, vec![]).unwrap();
            b.binary(BinaryOp::Sub, high, low).unwrap()
        });
        assert!(steps.is_not_negative());
    }

    #[test]
    fn what_may_underflow_is_not_positive() {
        assert!(!range(|b, x| b.unary(UnaryOp::Exp, x).unwrap()).is_positive());
        assert!(range(|b, x| b.unary(UnaryOp::Exp, x).unwrap()).is_not_negative());
        // inf - inf, 0 inf: no bound.
        assert_eq!(range(|b, x| b.binary(BinaryOp::Sub, x, x).unwrap()), ALL);
    }
}
