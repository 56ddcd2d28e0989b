//! Algebra as a table of rules.
//!
//! A [`Rule`] is a name, an equation, a condition in words, what it asks of numerics, a function that looks at one op
//! and says whether the equation applies there ([`Outcome`]), and an example. One test walks the table: each rule fires
//! on its example, the result agrees with the reference evaluator (bit for bit where [`Agrees::Bits`]), and a second run
//! changes nothing.
//!
//! Two sets. [`Set::Canonical`] rules choose one form among several that round differently (x^2 as x x, a product with a
//! vector of six as a sum): they run at every level, so that strict results don't depend on the level. [`Set::Algebra`]
//! rules remove work; in strict mode they never change a bit.
//!
//! What never happens: a rule assumes that there is no NaN, infinity or -0.

/// A row of the table.
macro_rules! rule {
    ($name:literal, $equation:literal, $when:literal, $needs:ident $set:ident $agrees:ident, $apply:expr, $example:expr) => {
        $crate::simplify::algebra::Rule {
            name: $name,
            equation: $equation,
            when: $when,
            needs: $crate::simplify::algebra::Needs::$needs,
            set: $crate::simplify::algebra::Set::$set,
            agrees: $crate::simplify::algebra::Agrees::$agrees,
            apply: $apply,
            example: $example,
        }
    };
}
mod arithmetic;
mod columns;
mod contraction;
mod driver;
mod factor;
mod gather;
mod hoist;
mod movement;
mod outward;
mod power;
mod quotient;
mod reciprocal;
mod reduction;
mod scope;
mod slope;
mod split;
#[cfg(test)]
mod tests;

use frit_ir::builder::{Builder, Built};
use frit_ir::op::infer::TypeError;
use frit_ir::{Module, NodeId, Numerics, Value};

pub(crate) use columns::is_computed;
pub use driver::rewrite;
pub use scope::Scope;
pub(crate) use scope::unit_map;

use crate::manager::{Context, Pass, PassError};

/// What a rule asks of an op's numerics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: it changes no bit, or is canonical.
    Strict,
    /// Sums and products may be reordered.
    Reassociate,
    /// Results may differ in the last digits.
    Approximate,
}

impl Needs {
    fn met(self, numerics: Numerics) -> bool {
        match self {
            Needs::Strict => true,
            Needs::Reassociate => numerics.reassociate,
            Needs::Approximate => numerics.approximate,
        }
    }
}

/// When a rule runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    /// At every level.
    Canonical,
    /// From -O1.
    Algebra,
    /// With those, but not before a gradient is taken: of a guard both forms would be differentiated, and of a product of
    /// denominators a slope that overflows.
    Guarded,
    /// From -O1, when nothing else applies any more: what is cheaper, but hides what other rules look for.
    Strength,
}

/// How a replacement agrees with what it replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agrees {
    /// Every bit, NaN payloads aside.
    Bits,
    /// Up to rounding.
    Rounding,
}

/// Builds a replacement.
pub type Build = Box<dyn FnOnce(&mut Builder<'_>) -> Built>;

/// What a rule finds at an op.
pub enum Outcome {
    /// Another kind of op.
    No,
    /// The equation's left side, but the condition does not hold: why.
    Near(&'static str),
    /// It applies.
    Found {
        /// Ops of the left side besides the root: their origins and numerics count.
        used: Vec<NodeId>,
        /// The right side.
        build: Build,
    },
}

/// A rule that applies where its left side is the root and `used`.
fn found(used: impl IntoIterator<Item = Value>, build: impl FnOnce(&mut Builder<'_>) -> Built + 'static) -> Outcome {
    Outcome::Found { used: used.into_iter().map(|v| v.node).collect(), build: Box::new(build) }
}

/// An equation read from left to right.
pub struct Rule {
    /// Its name, in reports and near misses.
    pub name: &'static str,
    /// What equals what.
    pub equation: &'static str,
    /// When, in words.
    pub when: &'static str,
    /// What it asks of numerics.
    pub needs: Needs,
    /// When it runs.
    pub set: Set,
    /// How both sides agree.
    pub agrees: Agrees,
    /// Looks at an op.
    pub apply: fn(&Scope<'_>, NodeId) -> Outcome,
    /// A function where it fires: adds inputs and ops, gives the outputs.
    pub example: fn(&mut Builder<'_>) -> Result<Vec<Value>, TypeError>,
}

/// The pass.
pub struct Algebra;

impl Pass for Algebra {
    fn run(&self, module: &mut Module, context: &mut Context<'_>) -> Result<(), PassError> {
        for f in module.functions.values_mut() {
            rewrite(f, &module.params, &[Set::Algebra, Set::Guarded], None, context)?;
        }
        Ok(())
    }
}

/// The pass that makes operations cheaper.
pub struct Strength;

impl Pass for Strength {
    fn run(&self, module: &mut Module, context: &mut Context<'_>) -> Result<(), PassError> {
        for f in module.functions.values_mut() {
            rewrite(f, &module.params, &[Set::Strength], None, context)?;
        }
        Ok(())
    }
}

/// Every rule, in the order tried.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    [
        movement::RULES,
        gather::RULES,
        hoist::RULES,
        arithmetic::RULES,
        power::RULES,
        quotient::RULES,
        factor::RULES,
        reciprocal::RULES,
        slope::RULES,
        split::RULES,
        reduction::RULES,
        outward::RULES,
        contraction::RULES,
        columns::RULES,
    ]
    .into_iter()
    .flatten()
}
