//! What conditions say of the values that they compare.
//!
//! A `select` that is likely to take its first side computes something cheaper there, because a condition holds: of the
//! elements at those places more is known than of all. A condition is taken apart: `a and b` says both, `|v| <= c` bounds
//! v, and where v is the largest of a tensor, every element of that. Views count: what is said of an element is of no use
//! where another one is read, so each bound remembers the axes along which the condition's values were repeated.

use frit_ir::op::BinaryOp;
use frit_ir::{Op, OpClass, ReduceKind, UnaryOp, Value};

use super::algebra::Scope;
use super::facts::Range;

/// Which element of a value is meant by a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// The one at the place.
    Whole,
    /// The value is repeated: the one at these axes of the place.
    Repeated(Vec<usize>),
    /// Another one.
    Elsewhere,
}

impl Path {
    /// Which element of an op's operands is meant.
    pub(super) fn through(&self, op: &Op) -> Path {
        match (op, self) {
            (Op::Broadcast { axes, .. }, Path::Whole) => Path::Repeated(axes.clone()),
            (op, path) if op.class() == OpClass::Elementwise => path.clone(),
            _ => Path::Elsewhere,
        }
    }
}

/// Conditions that hold at a place.
#[derive(Clone, Debug, Default)]
pub struct Assumed {
    truths: Vec<(Value, Path)>,
    /// `None` for the path: every element.
    bounds: Vec<(Value, Option<Path>, Range)>,
}

/// Ops of a value that are searched for conditions.
const NEAR: usize = 32;

impl Assumed {
    /// The conditions under which a value is what it usually is, with what they say.
    pub fn usual(s: &Scope<'_>, values: &[Value]) -> (Vec<Value>, Assumed) {
        let mut conditions = Vec::new();
        let mut open: Vec<Value> = values.to_vec();
        for _ in 0..NEAR {
            let Some(value) = open.pop() else { break };
            let node = s.node(value);
            match (&node.op, node.operands()) {
                (Op::Select { likely }, [c, usual, _]) if likely.0 => {
                    if !conditions.contains(c) {
                        conditions.push(*c);
                    }
                    open.push(*usual);
                }
                (op, operands) if op.class() == OpClass::Elementwise => open.extend(operands),
                _ => {}
            }
        }
        let mut assumed = Assumed::default();
        conditions.iter().for_each(|c| assumed.assume(s, *c, Path::Whole));
        (conditions, assumed)
    }

    fn assume(&mut self, s: &Scope<'_>, condition: Value, path: Path) {
        self.truths.push((condition, path.clone()));
        let node = s.node(condition);
        let inner = path.through(&node.op);
        match (&node.op, node.operands()) {
            (Op::Broadcast { .. }, [c]) => self.assume(s, *c, inner),
            (Op::Binary(BinaryOp::And), [a, b]) => {
                self.assume(s, *a, inner.clone());
                self.assume(s, *b, inner);
            }
            (Op::Binary(BinaryOp::Le), [v, limit]) => {
                if let Some(limit) = s.number(*limit) {
                    self.at_most(s, *v, limit, Some(inner));
                }
            }
            _ => {}
        }
    }

    /// A value is at most a number.
    fn at_most(&mut self, s: &Scope<'_>, v: Value, limit: f64, path: Option<Path>) {
        self.bounds.push((v, path.clone(), Range { low: f64::NEG_INFINITY, high: limit }));
        let node = s.node(v);
        let Some(&operand) = node.operands().first() else { return };
        match &node.op {
            Op::Unary(UnaryOp::Abs) => {
                self.bounds.push((operand, path.clone(), Range { low: -limit, high: limit }));
                // The largest of a tensor of magnitudes is none below 0.
                if matches!(s.node(operand).op, Op::Reduce { kind: ReduceKind::Max, .. }) {
                    self.at_most(s, operand, limit, path);
                }
            }
            Op::Reduce { kind: ReduceKind::Max, axes } if axes.len() == s.dims(operand).len() => {
                self.at_most(s, operand, limit, None);
            }
            _ => {}
        }
    }

    /// Whether a condition is known to hold.
    pub(super) fn holds(&self, condition: Value, path: &Path) -> bool {
        self.truths.iter().any(|(c, at)| *c == condition && at == path && *at != Path::Elsewhere)
    }

    /// What is known of a value's elements.
    pub(super) fn bound(&self, value: Value, path: &Path) -> Option<Range> {
        let fits = |at: &Option<Path>| at.as_ref().is_none_or(|at| at == path && *at != Path::Elsewhere);
        let bounds = self.bounds.iter().filter(|(v, at, _)| *v == value && fits(at)).map(|(_, _, range)| *range);
        bounds.reduce(Range::intersection)
    }
}
