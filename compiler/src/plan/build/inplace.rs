//! State of one size: when may an output be written over the input that it follows?
//!
//! In: a program whose steps are laid out, a donation. Out: the output's slot lies in the state's memory, or the reason
//! why it does not. It may where one step writes the output, no later step reads the input, and that step itself reads an
//! element of the input only before it writes that element. A step that comes too early is moved behind the readers
//! when nothing between depends on it.

use frit_ir::{Donation, ValueType};

use super::super::{Place, Program, SlotId, StateForm, Step};
use super::lives::{accesses, describe};
use super::overwrite::may_overwrite;
use super::{Building, KernelSource, PlanBuilder};
use crate::kernel::BufferId;

impl PlanBuilder<'_> {
    /// Puts an output into the memory of its input; `index` is that of the donation.
    pub(super) fn in_place(&self, b: &mut Building, index: usize, donation: Donation) -> Result<StateForm, String> {
        let program = &mut b.program;
        let (input, output) = (program.inputs[donation.input].slot, program.outputs[donation.output].slot);
        let of_input = &program.slots[input.index()];
        if !matches!(of_input.ty, ValueType::Tensor(_)) || !matches!(of_input.place, Place::Input(_)) {
            return Err("only tensors have memory to take over".to_owned());
        }
        if self.fixed.contains(&program.inputs[donation.input].name) {
            return Err("the model was compiled for one value of it".to_owned());
        }
        let storage = program.root(output);
        if !matches!(program.slots[storage.index()].place, Place::Arena { .. }) {
            return Err("the output's memory is another value's, or sized by a step".to_owned());
        }
        let same = |i: usize| i != donation.output && program.root(program.outputs[i].slot) == storage;
        if let Some(other) = (0..program.outputs.len()).find(|&i| same(i)) {
            return Err(format!("output `{}` is the same value", program.outputs[other].name));
        }
        let kernels = &self.built.kernels;
        let home = home(program, input);
        let mut writers = Vec::new();
        let mut last_read = 0;
        for (at, step) in program.steps.iter().enumerate() {
            let (reads, writes) = accesses(step, kernels);
            if writes.iter().any(|s| program.root(*s) == storage) {
                writers.push(at);
            }
            if reads.iter().any(|s| self::home(program, *s) == home) {
                last_read = at;
            }
        }
        let &[mut writer] = writers.as_slice() else {
            return Err(format!("{} steps write the output", writers.len()));
        };
        if last_read > writer {
            if !delay(program, kernels, writer, last_read) {
                let reader = describe(&program.steps[last_read], kernels);
                return Err(format!("{reader} reads the input after the output is written"));
            }
            writer = last_read;
        }
        reads_first(program, kernels, &program.steps[writer], home, storage)?;
        program.slots[storage.index()].place = Place::State(index as u32);
        Ok(StateForm::InPlace { storage })
    }
}

/// The slot that stands for the memory of a slot: of a state, the input's.
fn home(program: &Program, slot: SlotId) -> SlotId {
    let root = program.root(slot);
    match program.slots[root.index()].place {
        Place::Prefix(of) => home(program, of),
        Place::State(index) => {
            // States are pushed in the order of their indices, and only those with a form lie in a state's memory.
            program.states.get(index as usize).map_or(root, |s| program.inputs[s.input as usize].slot)
        }
        Place::Input(_)
        | Place::Constant(_)
        | Place::Prepared(_)
        | Place::Arena { .. }
        | Place::Late
        | Place::Alias(_)
        | Place::Over(_)
        | Place::Host => root,
    }
}

/// Moves a step behind a later one; false when a step between needs what it writes or writes what it reads.
fn delay(program: &mut Program, kernels: &[KernelSource], from: usize, to: usize) -> bool {
    // Other steps may bind extents that those between use.
    if !matches!(program.steps[from], Step::Kernel { .. } | Step::Library { .. } | Step::Copy { .. }) {
        return false;
    }
    let homes = |slots: &[SlotId]| -> Vec<SlotId> { slots.iter().map(|s| home(program, *s)).collect() };
    let (reads, writes) = accesses(&program.steps[from], kernels);
    let (reads, writes) = (homes(&reads), homes(&writes));
    let free = program.steps[from + 1..=to].iter().all(|step| {
        let (r, w) = accesses(step, kernels);
        let (r, w) = (homes(&r), homes(&w));
        !r.iter().chain(&w).any(|s| writes.contains(s)) && !w.iter().any(|s| reads.contains(s))
    });
    if free {
        program.steps[from..=to].rotate_left(1);
    }
    free
}

/// Whether the step that writes the output reads an element of the input at most before it writes that element.
fn reads_first(
    program: &Program,
    kernels: &[KernelSource],
    step: &Step,
    input: SlotId,
    output: SlotId,
) -> Result<(), String> {
    let (reads, _) = accesses(step, kernels);
    if !reads.iter().any(|s| home(program, *s) == input) {
        return Ok(());
    }
    let refused = || format!("{} reads the input while it writes the output", describe(step, kernels));
    match step {
        Step::Kernel { kernel, arguments, .. } => {
            let Some(source) = kernels.get(kernel.index()) else { return Err(refused()) };
            let of = |wanted: &dyn Fn(SlotId) -> bool| -> Vec<BufferId> {
                let ids = source.kernel.arguments().map(|(id, _)| id);
                ids.zip(arguments).filter(|(_, slot)| wanted(**slot)).map(|(id, _)| id).collect()
            };
            let loaded = of(&|s| home(program, s) == input);
            let stored = of(&|s| program.root(s) == output);
            if may_overwrite(&source.kernel, &loaded, &stored) {
                return Ok(());
            }
            Err(format!("{} reads other elements of the input than it writes", describe(step, kernels)))
        }
        // The same memory twice is nothing to do; a branch or callee writes only what it computed elsewhere.
        Step::Copy { .. } | Step::If { .. } | Step::Call { .. } => Ok(()),
        Step::Library { .. }
        | Step::Compact { .. }
        | Step::Loop { .. }
        | Step::Assert { .. }
        | Step::Sequence { .. } => Err(refused()),
    }
}
