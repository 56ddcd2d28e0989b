//! What must hold of a function's extents before it may run.
//!
//! A type rule takes two extents that may turn out equal (`k` of one input, `m` of another, or a weight's 9) and says
//! nothing about those that don't. What it left open is a [`Requirement`] on the function: stated once, while every op
//! is still there, it outlives whatever passes do to the op that asked for it. Nothing weakens or drops one; symbols in
//! it are replaced where the function's are. The planner makes it a guard of the run, the reference evaluator checks it.

use std::fmt;

use crate::origin::Origin;
use crate::types::Dim;

/// How two extents must stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Relation {
    /// They are equal.
    Equal,
    /// The first is at most the second.
    AtMost,
    /// The first is 1 or the second: it is repeated.
    OneOr,
}

impl Relation {
    /// Every relation.
    pub const ALL: [Relation; 3] = [Relation::Equal, Relation::AtMost, Relation::OneOr];

    /// Its word in text.
    pub fn name(self) -> &'static str {
        match self {
            Relation::Equal => "equal",
            Relation::AtMost => "at_most",
            Relation::OneOr => "one_or",
        }
    }

    /// Whether two numbers stand so.
    pub fn holds(self, left: i64, right: i64) -> bool {
        match self {
            Relation::Equal => left == right,
            Relation::AtMost => left <= right,
            Relation::OneOr => left == 1 || left == right,
        }
    }

    /// Whether two extents stand so whatever their symbols are. False says only that it was not shown.
    pub fn is_proven(self, left: &Dim, right: &Dim) -> bool {
        if let (Some(left), Some(right)) = (left.known(), right.known()) {
            return self.holds(left, right);
        }
        match self {
            Relation::Equal => left == right,
            Relation::AtMost => left == right || (right - left).is_nonnegative(),
            Relation::OneOr => left == right || *left == Dim::ONE,
        }
    }

    /// What is wrong when two extents of these values don't stand so.
    pub fn broken(self, (left, a): (&Dim, i64), (right, b): (&Dim, i64)) -> String {
        let (left, right) = (valued(left, a), valued(right, b));
        match self {
            Relation::Equal => format!("{left} and {right} must be equal"),
            Relation::AtMost => format!("{left} must be at most {right}"),
            Relation::OneOr => format!("{left} can't be broadcast to {right}"),
        }
    }
}

/// An extent beside its value; a number alone.
fn valued(dim: &Dim, value: i64) -> String {
    if dim.known().is_some() { dim.to_string() } else { format!("{dim} = {value}") }
}

/// A relation between two extents, and who asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// How they must stand.
    pub relation: Relation,
    /// One.
    pub left: Dim,
    /// The other.
    pub right: Dim,
    /// Which extents they are: "lhs axis 1 and rhs axis 0".
    pub what: String,
    /// The op that asks.
    pub origin: Origin,
}

impl Requirement {
    /// Whether it holds whatever the symbols are.
    pub fn is_proven(&self) -> bool {
        self.relation.is_proven(&self.left, &self.right)
    }

    /// Whether both ask for the same, whoever asks.
    pub fn says_the_same(&self, other: &Requirement) -> bool {
        (self.relation, &self.left, &self.right) == (other.relation, &other.left, &other.right)
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({}, {})", self.relation.name(), self.left, self.right)
    }
}
