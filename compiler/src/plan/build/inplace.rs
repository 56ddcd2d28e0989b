//! State of one size: when may an output be written over the input that it follows?
//!
//! In: a program whose steps are laid out, a donation. Out: the output's slot lies in the state's memory, or the reason
//! why it does not. It may where one step writes the output, no later step reads the input, and that step itself reads an
//! element of the input only before it writes that element. A step that comes too early is moved behind the readers
//! when nothing between depends on it.

use frit_ir::{Dim, Donation, Symbol, ValueType};

use super::super::{Place, Program, SlotId, StateForm, Step};
use super::lives::{accesses, describe};
use super::{Building, KernelSource, PlanBuilder};
use crate::kernel::{BufferId, Expr, Kernel, Stmt};

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
            let fits = element_by_element(&source.kernel, &loaded, &stored);
            if fits {
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

/// A load or store: the loops and branches around it, how far into the innermost body, the element.
struct Access<'k> {
    path: Vec<usize>,
    /// Variables of the loops around it that run more than once.
    vars: Vec<Symbol>,
    index: &'k Dim,
    store: bool,
}

/// Whether every phase that stores `stored` loads `loaded` at the element that it stores, before it does, in one body
/// that meets each element once; and no later phase loads.
fn element_by_element(kernel: &Kernel, loaded: &[BufferId], stored: &[BufferId]) -> bool {
    let mut written = false;
    for phase in &kernel.phases {
        let mut accesses = Vec::new();
        let vars = if phase.extent == Dim::ONE { Vec::new() } else { vec![phase.outer.clone()] };
        collect(&phase.body, &mut Vec::new(), &vars, (loaded, stored), &mut accesses);
        let (stores, loads): (Vec<&Access<'_>>, Vec<&Access<'_>>) = accesses.iter().partition(|a| a.store);
        if written && !loads.is_empty() {
            return false;
        }
        written |= !stores.is_empty();
        let pair = |load: &Access<'_>, store: &Access<'_>| {
            let (Some((at, before)), Some((then, around))) = (load.path.split_last(), store.path.split_last()) else {
                return false;
            };
            let mut shown = vec![false; load.vars.len()];
            load.index.visit_symbols(&mut |s| {
                load.vars.iter().zip(&mut shown).for_each(|(v, shown)| *shown |= v == s);
            });
            before == around && at < then && load.index == store.index && shown.into_iter().all(|s| s)
        };
        if !loads.iter().all(|load| stores.iter().all(|store| pair(load, store))) {
            return false;
        }
    }
    true
}

fn collect<'k>(
    body: &'k [Stmt],
    path: &mut Vec<usize>,
    vars: &[Symbol],
    buffers: (&[BufferId], &[BufferId]),
    found: &mut Vec<Access<'k>>,
) {
    for (at, stmt) in body.iter().enumerate() {
        path.push(at);
        let mut add = |index: &'k Dim, store: bool| {
            found.push(Access { path: path.clone(), vars: vars.to_vec(), index, store });
        };
        match stmt {
            Stmt::Let(_, Expr::Load { buffer, index }) if buffers.0.contains(buffer) => add(index, false),
            // What a kernel reads of its own output is new already.
            Stmt::Store { buffer, index, .. } if buffers.1.contains(buffer) => add(index, true),
            Stmt::For { var, extent, body } | Stmt::Reduce { var, extent, body, .. } => {
                let mut inner = vars.to_vec();
                if *extent != Dim::ONE {
                    inner.push(var.clone());
                }
                path.push(0);
                collect(body, path, &inner, buffers, found);
                path.pop();
            }
            Stmt::If { then, otherwise, .. } => {
                for (branch, body) in [then, otherwise].into_iter().enumerate() {
                    path.push(branch);
                    collect(body, path, vars, buffers, found);
                    path.pop();
                }
            }
            Stmt::Let(..) | Stmt::Store { .. } | Stmt::Check { .. } => {}
        }
        path.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether `s` may lie where `t` is written, in a kernel of these phases.
    fn fits(phases: &str) -> bool {
        let head = "kernel k(in s: f32[d0], out t: f32[d0]) dims(d0 = n) {";
        let kernel: Kernel = format!("{head}\n{phases}\n}}\n").parse().unwrap();
        element_by_element(&kernel, &[BufferId(0)], &[BufferId(1)])
    }

    #[test]
    fn what_is_written_over_is_read_at_that_element_before() {
        let map = |read: &str, write: &str| {
            format!("phase i0 < d0 {{ %0: f32 = load s[{read}]\n %1: f32 = exp %0\n store t[{write}] = %1 }}")
        };
        assert!(fits(&map("i0", "i0")));
        assert!(!fits(&map("d0 - i0 - 1", "i0")), "reversed");
        assert!(!fits(&map("0", "0")), "one element, again and again");
        let late = "phase i0 < d0 { %0: f32 = const 1.0\n store t[i0] = %0\n %1: f32 = load s[i0]\n store t[i0] = %1 }";
        assert!(!fits(late), "read after it is written");
        let nested = "phase i0 < d0 { for i1 < 3 { %0: f32 = load s[3*i0 + i1]\n store t[3*i0 + i1] = %0 } }";
        assert!(fits(nested));
        let repeated = "phase i0 < d0 { for i1 < 3 { %0: f32 = load s[i0]\n store t[i0] = %0 } }";
        assert!(!fits(repeated), "the second time it is new");
        let around = "phase i0 < d0 { %0: f32 = load s[i0]\n for i1 < 1 { store t[i0] = %0 } }";
        assert!(!fits(around), "in another body");
        let sum = "phase i0 < 2 { reduce i1 < d0 { %0: f32 = load s[i1] } %1: f32 = sum %0\n store t[i0] = %1 }";
        assert!(!fits(sum), "all elements for one");
    }

    #[test]
    fn phases_before_the_first_store_may_read_anything() {
        let first = "phase i0 < d0 { %0: f32 = load s[d0 - i0 - 1] }";
        let second = "phase i1 < d0 { %1: f32 = const 1.0\n store t[i1] = %1 }";
        assert!(fits(&format!("{first}\n{second}")));
        assert!(!fits(&format!("{second}\n{}", first.replace("i0", "i2"))), "a later phase reads");
    }
}
