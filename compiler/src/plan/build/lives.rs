//! What steps touch, and how long arena slots live.

use super::super::{Place, Program, SlotId, Step};
use super::KernelSource;
use crate::kernel::Role;

/// Slots that a step reads, and those that it writes (and may read then).
pub(super) fn accesses(step: &Step, kernels: &[KernelSource]) -> (Vec<SlotId>, Vec<SlotId>) {
    match step {
        Step::Kernel { kernel, arguments, .. } => {
            let Some(source) = kernels.get(kernel.index()) else { return (arguments.clone(), arguments.clone()) };
            let roles = source.kernel.arguments().map(|(_, buffer)| buffer.role);
            let (mut reads, mut writes) = (Vec::new(), Vec::new());
            for (role, slot) in roles.zip(arguments) {
                if role == Role::Input { reads.push(*slot) } else { writes.push(*slot) }
            }
            (reads, writes)
        }
        Step::Library { operands, results, .. } => (operands.clone(), results.clone()),
        Step::Compact { mask, result, .. } => (vec![*mask], vec![*result]),
        Step::If { condition, arguments, results, .. } => {
            (std::iter::once(condition).chain(arguments).copied().collect(), results.clone())
        }
        Step::Loop { trip, condition, arguments, results, .. } => {
            ([trip, condition].into_iter().chain(arguments).copied().collect(), results.clone())
        }
        Step::Call { arguments, results, .. } => (arguments.clone(), results.clone()),
        Step::Assert { condition, .. } => (vec![*condition], Vec::new()),
        Step::Sequence { operands, result, .. } => (operands.clone(), vec![*result]),
        Step::Copy { from, to } => (vec![*from], vec![*to]),
    }
}

/// A step in words.
pub(super) fn describe(step: &Step, kernels: &[KernelSource]) -> String {
    match step {
        Step::Kernel { kernel, .. } => match kernels.get(kernel.index()) {
            Some(source) => format!("kernel `{}` ({})", source.kernel.name, source.origin),
            None => "a kernel".to_owned(),
        },
        Step::Library { call, origin, .. } => format!("`{}` ({origin})", call.name()),
        Step::Compact { .. } => "`compact`".to_owned(),
        Step::If { origin, .. } => format!("`if` ({origin})"),
        Step::Loop { origin, .. } => format!("`loop` ({origin})"),
        Step::Call { origin, .. } => format!("`call` ({origin})"),
        Step::Assert { origin, .. } => format!("`assert` ({origin})"),
        Step::Sequence { origin, .. } => format!("a sequence op ({origin})"),
        Step::Copy { .. } => "a copy to an output".to_owned(),
    }
}

/// Fills in the lives of arena slots.
pub(super) fn lives(program: &mut Program, kernels: &[KernelSource]) {
    let end = program.steps.len() as u32;
    let mut touches: Vec<(SlotId, u32)> = Vec::new();
    for (i, step) in program.steps.iter().enumerate() {
        let (reads, writes) = accesses(step, kernels);
        touches.extend(reads.into_iter().chain(writes).map(|s| (program.root(s), i as u32)));
    }
    touches.extend(program.outputs.iter().map(|o| (program.root(o.slot), end)));
    for (slot, at) in touches {
        if let Place::Arena { first, last } = &mut program.slots[slot.index()].place {
            *first = (*first).min(at);
            *last = (*last).max(at);
        }
    }
}
