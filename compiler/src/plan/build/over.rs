//! Which values of the arena take over the memory of another one.
//!
//! In: a program whose steps and places are complete, but for the lives of arena slots. Out: [`Place::Over`] for outputs
//! of kernels that may be written over an input which is read there for the last time (`overwrite`). The two are one
//! slot from then on, whose life is that of both, through as many steps as it goes: less memory, and what a kernel writes
//! is in the caches already.
//!
//! A pair has the same number of elements, provably, of the same width. What the caller sees, gives or keeps (inputs,
//! outputs, states, constants) stays out of it. Of the inputs that an output may take over it prefers one of its own
//! type, then the first; as many outputs as possible find one (a matching, with augmenting paths).

use frit_ir::{Dim, TensorType};

use super::super::memory::ALIGN;
use super::super::{Place, Program, SlotId, Step};
use super::KernelSource;
use super::lives::accesses;
use super::overwrite::may_overwrite;
use crate::kernel::{BufferId, Role};

/// The steps that touch a value first and last.
type Touched = Option<(usize, usize)>;

/// Lays outputs of kernels over inputs that die there.
pub(super) fn take_over(program: &mut Program, kernels: &[KernelSource]) {
    let mut touched: Vec<Touched> = vec![None; program.slots.len()];
    for (at, step) in program.steps.iter().enumerate() {
        let (reads, writes) = accesses(step, kernels);
        for slot in reads.into_iter().chain(writes) {
            let touched = &mut touched[program.value(slot).index()];
            *touched = Some((touched.map_or(at, |(first, _)| first), at));
        }
    }
    // Outputs are read behind all steps.
    for output in &program.outputs {
        touched[program.value(output.slot).index()] = None;
    }
    for at in 0..program.steps.len() {
        for (output, input) in pairs(program, kernels, at, &touched) {
            program.slots[output.index()].place = Place::Over(input);
        }
    }
}

/// Outputs of a step, each with the input that it takes over.
fn pairs(program: &Program, kernels: &[KernelSource], at: usize, touched: &[Touched]) -> Vec<(SlotId, SlotId)> {
    let Some(Step::Kernel { kernel, arguments, .. }) = program.steps.get(at) else { return Vec::new() };
    let Some(source) = kernels.get(kernel.index()) else { return Vec::new() };
    let arguments: Vec<(BufferId, Role, SlotId)> = source
        .kernel
        .arguments()
        .zip(arguments)
        .map(|((id, buffer), slot)| (id, buffer.role, program.value(*slot)))
        .collect();
    let buffers = |value: SlotId| -> Vec<BufferId> {
        arguments.iter().filter(|(_, _, slot)| *slot == value).map(|(id, ..)| *id).collect()
    };
    let of_role = |is_input: bool| -> Vec<SlotId> {
        let mut slots: Vec<SlotId> = Vec::new();
        for (_, role, slot) in &arguments {
            // What is both an input and an output is neither.
            let other = arguments.iter().any(|(_, r, s)| s == slot && (*r == Role::Input) != (*role == Role::Input));
            if (*role == Role::Input) == is_input && !other && !slots.contains(slot) {
                slots.push(*slot);
            }
        }
        slots
    };
    let begins = |slot: &SlotId| {
        let place = &program.slots[slot.index()].place;
        matches!(place, Place::Arena { .. }) && touched[slot.index()].is_some_and(|(first, _)| first == at)
    };
    let ends = |slot: &SlotId| {
        let place = &program.slots[slot.index()].place;
        let life = touched[slot.index()];
        matches!(place, Place::Arena { .. } | Place::Over(_))
            && life.is_some_and(|(first, last)| first < at && last == at)
    };
    let mut outputs = of_role(false);
    let mut inputs = of_role(true);
    outputs.retain(begins);
    inputs.retain(ends);
    let ty = |slot: SlotId| program.slots[slot.index()].ty.tensor();
    let candidates: Vec<Vec<usize>> = outputs
        .iter()
        .map(|output| {
            let Some(of_output) = ty(*output).filter(|ty| is_worthwhile(ty)) else { return Vec::new() };
            let mut fitting: Vec<(bool, usize)> = Vec::new();
            for (i, input) in inputs.iter().enumerate() {
                let Some(of_input) = ty(*input).filter(|ty| same_bytes(ty, of_output)) else { continue };
                // A place leads to an earlier slot, so that following places ends.
                if input < output && may_overwrite(&source.kernel, &buffers(*input), &buffers(*output)) {
                    fitting.push((of_input != of_output, i));
                }
            }
            fitting.sort_unstable();
            fitting.into_iter().map(|(_, i)| i).collect()
        })
        .collect();
    let taken = matching(&candidates, inputs.len());
    let of = |(i, output): (usize, Option<usize>)| Some((outputs[output?], inputs[i]));
    taken.into_iter().enumerate().filter_map(of).collect()
}

/// Whether a value takes more than the least that a slot does.
fn is_worthwhile(ty: &TensorType) -> bool {
    let elements = ty.numel().known();
    elements.is_none_or(|n| n.saturating_mul(ty.dtype.size() as i64) > ALIGN as i64)
}

/// Whether two types have equally many elements of one width, for all extents.
pub(in crate::plan) fn same_bytes(a: &TensorType, b: &TensorType) -> bool {
    a.dtype.size() == b.dtype.size() && (a.dims == b.dims || Dim::product(&a.dims) == Dim::product(&b.dims))
}

/// Who takes each of some things: as many takers as possible get one, what they like best where that is free.
fn matching(candidates: &[Vec<usize>], things: usize) -> Vec<Option<usize>> {
    fn find(taker: usize, candidates: &[Vec<usize>], seen: &mut [bool], taken: &mut [Option<usize>]) -> bool {
        let liked = &candidates[taker];
        let free = liked.iter().copied().filter(|thing| taken[*thing].is_none()).collect::<Vec<_>>();
        for thing in free.into_iter().chain(liked.iter().copied()) {
            if std::mem::replace(&mut seen[thing], true) {
                continue;
            }
            if taken[thing].is_none_or(|other| find(other, candidates, seen, taken)) {
                taken[thing] = Some(taker);
                return true;
            }
        }
        false
    }
    let mut taken = vec![None; things];
    for taker in 0..candidates.len() {
        find(taker, candidates, &mut vec![false; things], &mut taken);
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_possible_find_something() {
        assert_eq!(matching(&[vec![0, 1], vec![0]], 2), [Some(1), Some(0)]);
        assert_eq!(matching(&[vec![1, 0], vec![0, 1]], 2), [Some(1), Some(0)]);
        assert_eq!(matching(&[vec![0], vec![0], vec![]], 1), [Some(0)]);
        assert_eq!(matching(&[vec![0, 1], vec![0, 1, 2]], 3), [Some(0), Some(1), None], "what is free comes first");
        assert_eq!(matching(&[vec![0, 1], vec![0, 2], vec![0]], 3), [Some(2), Some(0), Some(1)]);
    }
}
