//! What must hold of extents before a program's steps run.
//!
//! A run may not begin before everything that an op relies on is known to hold: what the function requires (stated
//! before passes deleted the ops that asked), what symbols are said to be, and what each op that is there needs, those
//! inside of fusions included. Each becomes a guard, checked when its symbols are bound.

use frit_ir::{Function, NodeId, Requirement};

use super::super::Guard;
use super::Building;

impl Building {
    /// A guard for a requirement, unless it is proven or there is one.
    pub(super) fn require(&mut self, requirement: &Requirement) {
        if requirement.is_proven() {
            return;
        }
        let (relation, left, right) = (requirement.relation, self.dim(&requirement.left), self.dim(&requirement.right));
        if self.required.insert((relation, left, right)) {
            let (what, origin) = (requirement.what.clone(), requirement.origin.to_string());
            self.program.guards.push(Guard::Relation { relation, left, right, what, origin });
        }
    }

    /// Guards for what a function states of its symbols and extents.
    pub(super) fn require_all(&mut self, function: &Function) {
        for (symbol, facts) in &function.symbols {
            // A fact of a symbol that nothing here uses has nothing to say.
            if self.program.symbols.contains(symbol) || self.late.contains(symbol) {
                facts.about(&symbol.clone().into()).iter().for_each(|r| self.require(r));
            }
        }
        function.requirements().iter().for_each(|r| self.require(r));
    }

    /// Guards for what an op needs.
    pub(super) fn require_needs(&mut self, function: &Function, id: NodeId) {
        function.needs_of(id).iter().for_each(|r| self.require(r));
    }

    /// Guards for all of a body that becomes one kernel.
    pub(super) fn require_body(&mut self, body: &Function) {
        self.require_all(body);
        body.nodes().into_iter().for_each(|id| self.require_needs(body, id));
    }
}
