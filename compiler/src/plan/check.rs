//! Whether a plan's numbers point somewhere: what a runtime relies on before it follows them.
//!
//! A plan may come from a file. [`Plan::check`] is called once when a model is made; afterwards every slot, extent,
//! symbol, constant, kernel and program that a step names exists, aliases lead to earlier slots, programs call earlier
//! programs only (so that no run recurses), and code entries lie inside the code. Lives of arena slots hold all steps that
//! touch them (P2). What lies over another slot has its size, is first touched by a kernel, and no step touches the other
//! one afterwards (P4); in which order that kernel itself reads and writes is in its code, which is taken on trust like all
//! code.

use frit_ir::{DType, Dim, ValueType};

use super::build::same_bytes;
use super::{DimId, Guard, LibraryCall, Place, Plan, Program, Slot, SlotId, State, StateForm, Step};

/// What is wrong, in words.
type Checked = Result<(), String>;

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(what()) }
}

impl Plan {
    /// Checks every reference; the text says which one leads nowhere.
    ///
    /// # Errors
    /// A description of the first bad reference.
    pub fn check(&self) -> Checked {
        for (name, id) in &self.entries {
            ensure(id.index() < self.programs.len(), || format!("entry `{name}` has no program"))?;
        }
        if let Some(id) = self.preparation {
            let program = self.programs.get(id.index());
            let ready = program.is_some_and(|p| p.inputs.is_empty() && p.symbols.is_empty());
            ensure(ready, || "what prepares it is no program without inputs".to_owned())?;
        }
        for kernel in &self.kernels {
            for phase in &kernel.phases {
                let entry = kernel.code.checked_add(phase.entry);
                ensure(entry.is_some_and(|e| e < self.code.len()), || {
                    format!("kernel `{}` begins outside of the code", kernel.name)
                })?;
            }
        }
        for (index, program) in self.programs.iter().enumerate() {
            let checker = Checker { plan: self, program, index };
            checker.program().map_err(|what| format!("program `{}`: {what}", program.name))?;
        }
        Ok(())
    }
}

/// All slots that a step reads or writes.
fn touches(step: &Step) -> Vec<SlotId> {
    match step {
        Step::Kernel { arguments, .. } => arguments.clone(),
        Step::Library { operands, results, .. } => operands.iter().chain(results).copied().collect(),
        Step::Compact { mask, result, .. } => vec![*mask, *result],
        Step::If { condition, arguments, results, .. } => {
            [condition].into_iter().chain(arguments).chain(results).copied().collect()
        }
        Step::Loop { trip, condition, arguments, results, .. } => {
            [trip, condition].into_iter().chain(arguments).chain(results).copied().collect()
        }
        Step::Call { arguments, results, .. } => arguments.iter().chain(results).copied().collect(),
        Step::Assert { condition, .. } => vec![*condition],
        Step::Sequence { operands, result, .. } => operands.iter().chain([result]).copied().collect(),
        Step::Copy { from, to } => vec![*from, *to],
    }
}

fn dtype(slot: &Slot) -> Option<DType> {
    slot.ty.tensor().map(|t| t.dtype)
}

struct Checker<'p> {
    plan: &'p Plan,
    program: &'p Program,
    index: usize,
}

impl Checker<'_> {
    fn program(&self) -> Checked {
        let Program { inputs, outputs, symbols, binds, guards, dims, slots, steps, states, .. } = self.program;
        for (i, slot) in slots.iter().enumerate() {
            self.slot_is_sound(i, slot)?;
        }
        for port in inputs.iter().chain(outputs) {
            self.slot(port.slot)?;
            ensure(port.ty == slots[port.slot.index()].ty, || format!("`{}` and its slot differ in type", port.name))?;
        }
        for bind in binds {
            ensure((bind.symbol as usize) < symbols.len(), || format!("symbol {} does not exist", bind.symbol))?;
            self.input_axis(bind.input, bind.axis)?;
        }
        for guard in guards {
            match guard {
                Guard::Extent { input, axis, dim } => {
                    self.input_axis(*input, *axis)?;
                    self.dim(*dim)?;
                }
                Guard::Value { input, constant } => {
                    ensure((*input as usize) < inputs.len(), || format!("input {input} does not exist"))?;
                    self.constant(constant.index())?;
                }
                Guard::Relation { left, right, .. } => self.dims([left, right])?,
            }
        }
        for dim in dims {
            let mut known = true;
            dim.visit_symbols(&mut |s| known &= symbols.contains(s));
            ensure(known, || format!("extent {dim} has a symbol that is not declared"))?;
        }
        for (index, state) in states.iter().enumerate() {
            self.state(index, state).map_err(|what| format!("state {index}: {what}"))?;
        }
        steps.iter().try_for_each(|step| self.step(step))?;
        self.lives()
    }

    /// Steps touch arena slots within their lives, and no slot that another one lies over.
    fn lives(&self) -> Checked {
        let Program { outputs, slots, steps, .. } = self.program;
        // Values and the steps that touch them, in order; the caller reads outputs behind the last.
        let mut touched: Vec<Vec<usize>> = vec![Vec::new(); slots.len()];
        let of_steps = steps.iter().enumerate().flat_map(|(at, step)| touches(step).into_iter().map(move |s| (at, s)));
        for (at, slot) in of_steps.chain(outputs.iter().map(|o| (steps.len(), o.slot))) {
            touched[self.program.value(slot).index()].push(at);
            if let Place::Arena { first, last } = slots[self.program.root(slot).index()].place {
                ensure((first as usize..=last as usize).contains(&at), || {
                    format!("step {at} touches slot {}, which lives from {first} to {last}", slot.0)
                })?;
            }
        }
        let mut taken = vec![false; slots.len()];
        for (index, slot) in slots.iter().enumerate() {
            let Place::Over(of) = slot.place else { continue };
            let of = self.program.value(of).index();
            let wrong = || format!("slot {index} lies over slot {of}, which is still needed");
            ensure(!std::mem::replace(&mut taken[of], true), wrong)?;
            let Some(begins) = touched[index].first() else { continue };
            ensure(matches!(steps.get(*begins), Some(Step::Kernel { .. })), wrong)?;
            ensure(touched[of].last().is_none_or(|ends| ends <= begins), wrong)?;
        }
        Ok(())
    }

    fn slot_is_sound(&self, index: usize, slot: &Slot) -> Checked {
        self.dims(&slot.dims)?;
        let rank = slot.ty.tensor().map_or(0, |t| t.rank());
        ensure(slot.dims.len() == rank, || format!("slot {index} has {} extents for {}", slot.dims.len(), slot.ty))?;
        match &slot.place {
            Place::Input(i) => {
                ensure((*i as usize) < self.program.inputs.len(), || format!("slot {index}: no input {i}"))
            }
            Place::Constant(id) => {
                self.constant(id.index())?;
                let value = &self.plan.constants[id.index()].value;
                let fits = matches!(&slot.ty, ValueType::Tensor(t) if t.dtype == value.dtype()
                    && t.known_dims().as_deref() == Some(value.shape()));
                ensure(fits, || format!("slot {index} is {}, its constant is not", slot.ty))
            }
            Place::Prepared(output) => {
                // It runs without anything prepared.
                let preparation = self.plan.preparation.filter(|id| id.index() != self.index);
                let port = preparation.and_then(|id| self.plan.programs.get(id.index())?.outputs.get(*output as usize));
                ensure(port.is_some_and(|p| p.ty == slot.ty), || format!("slot {index}: nothing prepares it"))
            }
            Place::State(state) => {
                let storage = self.program.states.get(*state as usize).and_then(|s| match &s.form {
                    StateForm::InPlace { storage } | StateForm::Append { storage, .. } => Some(storage.index()),
                    StateForm::Copied { .. } => None,
                });
                ensure(storage == Some(index), || format!("slot {index} is not the memory of state {state}"))
            }
            // What it is a part of has memory before it: its first bytes, so it can't be longer than that.
            Place::Prefix(of) => {
                let whole = self.program.slots.get(of.index()).filter(|_| of.index() < index);
                let fits = whole.is_some_and(|w| matches!(w.place, Place::State(_)) && dtype(w) == dtype(slot));
                ensure(fits, || format!("slot {index} is no part of a state"))
            }
            Place::Alias(of) => ensure(of.index() < index, || format!("slot {index} is an alias of a later one")),
            Place::Over(of) => {
                let other = self.program.slots.get(of.index()).filter(|_| of.index() < index);
                let fits = other.is_some_and(|other| {
                    let in_arena = matches!(other.place, Place::Arena { .. } | Place::Over(_));
                    let types = slot.ty.tensor().zip(other.ty.tensor());
                    in_arena && types.is_some_and(|(a, b)| same_bytes(a, b))
                });
                ensure(fits, || format!("slot {index} lies over what is not of its size or not of the arena"))
            }
            Place::Arena { .. } | Place::Late | Place::Host => Ok(()),
        }
    }

    /// Input and output exist, each in one state; the storage is of the input's type, but for the capacity.
    fn state(&self, index: usize, state: &State) -> Checked {
        let Program { inputs, outputs, symbols, binds, slots, states, .. } = self.program;
        let (Some(input), Some(output)) = (inputs.get(state.input as usize), outputs.get(state.output as usize)) else {
            return Err("it leads nowhere".to_owned());
        };
        let before = states.iter().take(index);
        let twice = before.clone().any(|s| s.input == state.input || s.output == state.output);
        ensure(!twice, || "its input or output is another state's".to_owned())?;
        let storage = match &state.form {
            StateForm::Copied { .. } => return Ok(()),
            StateForm::InPlace { storage } | StateForm::Append { storage, .. } => *storage,
        };
        self.slot(storage)?;
        let Slot { ty, place, .. } = &slots[storage.index()];
        ensure(*place == Place::State(index as u32), || "its memory is another slot's".to_owned())?;
        ensure(matches!(slots[input.slot.index()].place, Place::Input(i) if i == state.input), || {
            "its input lies elsewhere".to_owned()
        })?;
        let (Some(from), Some(to), Some(held)) = (input.ty.tensor(), output.ty.tensor(), ty.tensor()) else {
            return Err("only tensors have memory".to_owned());
        };
        let root = self.program.root(output.slot);
        match &state.form {
            StateForm::Copied { .. } => Ok(()),
            StateForm::InPlace { .. } => {
                let same = from == to && held.dtype == from.dtype && held.numel() == from.numel();
                ensure(root == storage && same, || format!("{to} is written over {from} as {ty}"))
            }
            StateForm::Append { axis, capacity, len, .. } => {
                self.symbol(*capacity)?;
                self.dim(*len)?;
                let axis = *axis as usize;
                ensure(axis < from.rank() && held.rank() == from.rank() && to.rank() == from.rank(), || {
                    format!("{from} has no axis {axis}")
                })?;
                let mut grown = from.clone();
                grown.dims[axis] = Dim::from(symbols[*capacity as usize].clone());
                ensure(*held == grown, || format!("{from} is held as {held}"))?;
                grown.dims[axis] = self.program.dims[len.index()].clone();
                ensure(*to == grown, || format!("{from} grows to {to}"))?;
                ensure(slots[root.index()].place == Place::Prefix(storage), || "its output lies elsewhere".to_owned())?;
                let bound = binds.iter().any(|b| b.symbol == *capacity)
                    || before
                        .clone()
                        .any(|s| matches!(&s.form, StateForm::Append { capacity: c, .. } if c == capacity));
                ensure(!bound, || "its capacity is bound twice".to_owned())
            }
        }
    }

    fn constant(&self, index: usize) -> Checked {
        ensure(index < self.plan.constants.len(), || format!("constant {index} does not exist"))
    }

    fn slot(&self, slot: SlotId) -> Checked {
        ensure(slot.index() < self.program.slots.len(), || format!("slot {} does not exist", slot.0))
    }

    fn slots<'s>(&self, slots: impl IntoIterator<Item = &'s SlotId>) -> Checked {
        slots.into_iter().try_for_each(|s| self.slot(*s))
    }

    fn axis<'s>(&self, slots: impl IntoIterator<Item = &'s SlotId>, axis: usize) -> Checked {
        slots.into_iter().try_for_each(|s| {
            let rank = self.program.slots[s.index()].dims.len();
            ensure(axis < rank, || format!("slot {} has no axis {axis}", s.0))
        })
    }

    fn dim(&self, dim: DimId) -> Checked {
        ensure(dim.index() < self.program.dims.len(), || format!("extent {} does not exist", dim.0))
    }

    fn dims<'d>(&self, dims: impl IntoIterator<Item = &'d DimId>) -> Checked {
        dims.into_iter().try_for_each(|d| self.dim(*d))
    }

    fn symbol(&self, symbol: u32) -> Checked {
        ensure((symbol as usize) < self.program.symbols.len(), || format!("symbol {symbol} does not exist"))
    }

    fn input_axis(&self, input: u32, axis: u32) -> Checked {
        let ty = self.program.inputs.get(input as usize).and_then(|p| p.ty.tensor());
        ensure(ty.is_some_and(|t| (axis as usize) < t.rank()), || format!("input {input} has no axis {axis}"))
    }

    fn callee(&self, id: super::ProgramId, arguments: usize, results: usize) -> Checked {
        ensure(id.index() < self.index, || format!("calls program {}, which is not an earlier one", id.0))?;
        let callee = &self.plan.programs[id.index()];
        ensure(callee.inputs.len() == arguments && callee.outputs.len() == results, || {
            let (inputs, outputs) = (callee.inputs.len(), callee.outputs.len());
            format!("`{}` takes {inputs} and gives {outputs}, called with {arguments} for {results}", callee.name)
        })
    }

    fn step(&self, step: &Step) -> Checked {
        match step {
            Step::Kernel { kernel, arguments, lens, dims, phases } => {
                let Some(code) = self.plan.kernels.get(kernel.index()) else {
                    return Err(format!("kernel {} does not exist", kernel.0));
                };
                ensure(code.phases.len() == phases.len(), || {
                    format!("kernel `{}` has {} phases, not {}", code.name, code.phases.len(), phases.len())
                })?;
                ensure(lens.len() == arguments.len(), || {
                    format!("kernel `{}` has {} arguments and {} lengths", code.name, arguments.len(), lens.len())
                })?;
                self.slots(arguments)?;
                self.dims(dims.iter().chain(lens).chain(phases))
            }
            Step::Library { call, operands, results, .. } => {
                self.slots(operands.iter().chain(results))?;
                let counts = match call {
                    LibraryCall::MatMul { batch, m, n, k, lhs_pitch, rhs_pitch, epilogue, .. } => {
                        self.dims(batch.iter().chain([m, n, k]).chain(lhs_pitch).chain(rhs_pitch))?;
                        ensure(epilogue.is_sound(), || format!("{} has bounds that are none", call.name()))?;
                        (2 + usize::from(epilogue.bias), 1)
                    }
                    LibraryCall::Conv { .. } | LibraryCall::ConvTranspose { .. } => (2, 1),
                    LibraryCall::Sort { .. } => (1, 2),
                    LibraryCall::Concat { axis } => {
                        self.axis(operands.iter().chain(results), *axis)?;
                        (operands.len(), 1)
                    }
                };
                ensure((operands.len(), results.len()) == counts, || {
                    format!("{} has {} operands and {} results", call.name(), operands.len(), results.len())
                })
            }
            Step::Compact { mask, result, symbol } => {
                self.slots([mask, result])?;
                self.symbol(*symbol)
            }
            Step::If { condition, then, otherwise, arguments, results, binds, .. } => {
                self.slots(arguments.iter().chain(results).chain([condition]))?;
                self.callee(*then, arguments.len(), results.len())?;
                self.callee(*otherwise, arguments.len(), results.len())?;
                binds.iter().try_for_each(|bind| {
                    self.symbol(bind.symbol)?;
                    let slot = results.get(bind.input as usize).map(|s| &self.program.slots[s.index()]);
                    ensure(slot.is_some_and(|s| (bind.axis as usize) < s.dims.len()), || {
                        format!("result {} has no axis {}", bind.input, bind.axis)
                    })
                })
            }
            Step::Loop { trip, condition, body, arguments, carried, results, trips, .. } => {
                self.slots(arguments.iter().chain(results).chain([trip, condition]))?;
                self.callee(*body, arguments.len() + 2, results.len() + 1)?;
                let carried = *carried as usize;
                ensure(carried <= arguments.len() && carried <= results.len(), || {
                    format!("a loop carries {carried} of {} values", arguments.len())
                })?;
                trips.map_or(Ok(()), |s| self.symbol(s))
            }
            Step::Call { program, arguments, results, .. } => {
                self.slots(arguments.iter().chain(results))?;
                self.callee(*program, arguments.len(), results.len())
            }
            Step::Assert { condition, .. } => self.slot(*condition),
            Step::Sequence { operands, result, .. } => self.slots(operands.iter().chain([result])),
            Step::Copy { from, to } => self.slots([from, to]),
        }
    }
}

#[cfg(test)]
mod tests {
    use frit_ir::{DType, Symbol, TensorType};

    use super::super::{Bind, Epilogue, KernelId, OpCounts, PlanKernel, Port, ProgramId};
    use super::*;

    fn passing() -> Plan {
        let ty: ValueType = TensorType::scalar(DType::F32).into();
        let slot = Slot { ty: ty.clone(), dims: Vec::new(), place: Place::Input(0) };
        let port = Port { name: "x".to_owned(), ty, slot: SlotId(0) };
        let program = Program { inputs: vec![port], slots: vec![slot], ..Program::default() };
        Plan { programs: vec![program], entries: vec![("infer".to_owned(), ProgramId(0))], ..Plan::default() }
    }

    /// A state that grows from `f32[T]` to `f32[T + 1]`, and one written in place.
    fn with_states() -> Plan {
        let symbol = |name: &str| Dim::symbol(name);
        let dims = vec![symbol("T"), symbol("C"), &symbol("T") + &Dim::ONE];
        let ty = |dim: usize| -> ValueType { TensorType::new(DType::F32, vec![dims[dim].clone()]).into() };
        let slot = |dim: usize, place| Slot { ty: ty(dim), dims: vec![DimId(dim as u32)], place };
        let port = |name: &str, dim: usize, slot: u32| Port { name: name.to_owned(), ty: ty(dim), slot: SlotId(slot) };
        let append = StateForm::Append { storage: SlotId(2), axis: 0, capacity: 1, len: DimId(2) };
        let program = Program {
            inputs: vec![port("past", 0, 0), port("s", 0, 1)],
            outputs: vec![port("present", 2, 3), port("t", 0, 4)],
            symbols: vec![Symbol::new("T"), Symbol::new("C")],
            binds: vec![Bind { symbol: 0, input: 0, axis: 0 }],
            slots: vec![
                slot(0, Place::Input(0)),
                slot(0, Place::Input(1)),
                slot(1, Place::State(0)),
                slot(2, Place::Prefix(SlotId(2))),
                slot(0, Place::State(1)),
            ],
            dims,
            states: vec![
                State { input: 0, output: 0, form: append },
                State { input: 1, output: 1, form: StateForm::InPlace { storage: SlotId(4) } },
            ],
            ..Program::default()
        };
        Plan { programs: vec![program], ..Plan::default() }
    }

    #[test]
    fn states_that_lead_elsewhere_are_found() {
        assert_eq!(with_states().check(), Ok(()));
        let broken = |what: &str, change: &dyn Fn(&mut Program)| {
            let mut plan = with_states();
            change(&mut plan.programs[0]);
            let error = plan.check().expect_err(what);
            assert!(error.contains(what), "{what}: {error}");
        };
        broken("leads nowhere", &|p| p.states[0].input = 2);
        broken("another state's", &|p| p.states[1].input = 0);
        broken("is not the memory of state", &|p| p.slots[2].place = Place::State(1));
        broken("is not the memory of state", &|p| p.slots[2].place = Place::State(7));
        broken("is no part of a state", &|p| p.slots[3].place = Place::Prefix(SlotId(1)));
        broken("is no part of a state", &|p| p.slots[3].place = Place::Prefix(SlotId(3)));
        broken("its output lies elsewhere", &|p| p.slots[3].place = Place::Alias(SlotId(2)));
        broken("its input lies elsewhere", &|p| p.slots[0].place = Place::Late);
        broken("is written over", &|p| p.outputs[1].slot = SlotId(1));
        broken("symbol 9 does not exist", &|p| {
            p.states[0].form = StateForm::Append { storage: SlotId(2), axis: 0, capacity: 9, len: DimId(2) };
        });
        broken("is held as", &|p| {
            p.states[0].form = StateForm::Append { storage: SlotId(2), axis: 0, capacity: 0, len: DimId(2) };
        });
        broken("grows to", &|p| {
            p.states[0].form = StateForm::Append { storage: SlotId(2), axis: 0, capacity: 1, len: DimId(1) };
        });
        broken("has no axis 1", &|p| {
            p.states[0].form = StateForm::Append { storage: SlotId(2), axis: 1, capacity: 1, len: DimId(2) };
        });
        broken("its capacity is bound twice", &|p| p.binds.push(Bind { symbol: 1, input: 1, axis: 0 }));
    }

    /// Three kernels in a row over values of one size, each result over the operand: slots 0 (an input) to 3, which is
    /// given out from a copy.
    fn with_overs() -> Plan {
        let ty: ValueType = TensorType::new(DType::F32, vec![Dim::Known(8)]).into();
        let slot = |place| Slot { ty: ty.clone(), dims: vec![DimId(0)], place };
        let port = |name: &str, slot: u32| Port { name: name.to_owned(), ty: ty.clone(), slot: SlotId(slot) };
        let step = |from: u32| Step::Kernel {
            kernel: KernelId(0),
            arguments: vec![SlotId(from), SlotId(from + 1)],
            lens: vec![DimId(0), DimId(0)],
            dims: Vec::new(),
            phases: Vec::new(),
        };
        let program = Program {
            inputs: vec![port("x", 0)],
            outputs: vec![port("y", 4)],
            dims: vec![Dim::Known(8)],
            slots: vec![
                slot(Place::Input(0)),
                slot(Place::Arena { first: 0, last: 3 }),
                slot(Place::Over(SlotId(1))),
                slot(Place::Over(SlotId(2))),
                slot(Place::Arena { first: 3, last: 4 }),
            ],
            steps: vec![step(0), step(1), step(2), Step::Copy { from: SlotId(3), to: SlotId(4) }],
            ..Program::default()
        };
        let kernel = PlanKernel {
            name: "k".to_owned(),
            origin: String::new(),
            code: 0,
            phases: Vec::new(),
            traps: Vec::new(),
            ops: OpCounts::default(),
        };
        Plan { programs: vec![program], kernels: vec![kernel], ..Plan::default() }
    }

    #[test]
    fn slots_over_what_is_needed_are_found() {
        assert_eq!(with_overs().check(), Ok(()));
        let broken = |what: &str, change: &dyn Fn(&mut Program)| {
            let mut plan = with_overs();
            change(&mut plan.programs[0]);
            let error = plan.check().expect_err(what);
            assert!(error.contains(what), "{what}: {error}");
        };
        let other: ValueType = TensorType::new(DType::F64, vec![Dim::Known(8)]).into();
        broken("not of its size", &|p| p.slots[2].ty = other.clone());
        broken("not of its size", &|p| p.slots[2].place = Place::Over(SlotId(0)));
        broken("not of its size", &|p| p.slots[2].place = Place::Over(SlotId(3)));
        broken("not of its size", &|p| p.slots[2].place = Place::Over(SlotId(9)));
        broken("lives from 0 to 2", &|p| p.slots[1].place = Place::Arena { first: 0, last: 2 });
        broken("lives from 1 to 3", &|p| p.slots[1].place = Place::Arena { first: 1, last: 3 });
        broken("lives from 3 to 3", &|p| p.slots[4].place = Place::Arena { first: 3, last: 3 });
        broken("slot 3 lies over slot 1, which is still needed", &|p| p.slots[3].place = Place::Over(SlotId(1)));
        broken("slot 3 lies over slot 2, which is still needed", &|p| {
            p.steps[3] = Step::Copy { from: SlotId(2), to: SlotId(4) };
        });
        broken("slot 2 lies over slot 1, which is still needed", &|p| {
            p.steps[1] = Step::Copy { from: SlotId(1), to: SlotId(2) };
        });
        broken("slot 2 lies over slot 1, which is still needed", &|p| {
            p.slots[1].place = Place::Arena { first: 0, last: 4 };
            p.outputs.push(Port { slot: SlotId(1), ..p.outputs[0].clone() });
        });
    }

    #[test]
    fn products_with_other_operands_or_bounds_are_found() {
        let with = |operands: usize, epilogue: Epilogue| {
            let mut plan = passing();
            let one = DimId(0);
            let call = LibraryCall::MatMul {
                batch: Vec::new(),
                m: one,
                n: one,
                k: one,
                lhs_transposed: false,
                rhs_transposed: false,
                lhs_pitch: None,
                rhs_pitch: None,
                dtype: DType::F32,
                accumulate: DType::F32,
                epilogue,
            };
            let (operands, results) = (vec![SlotId(0); operands], vec![SlotId(0)]);
            plan.programs[0].dims.push(Dim::ONE);
            plan.programs[0].steps.push(Step::Library { call, operands, results, origin: String::new() });
            plan.check()
        };
        let bounds = |lower, upper| Epilogue { bias: false, lower, upper };
        assert_eq!(with(2, Epilogue::default()), Ok(()));
        assert_eq!(with(3, Epilogue { bias: true, ..Epilogue::default() }), Ok(()));
        assert_eq!(with(2, bounds(Some(-0.0), Some(f64::INFINITY))), Ok(()));
        assert!(with(2, Epilogue { bias: true, ..Epilogue::default() }).is_err(), "no bias");
        assert!(with(3, Epilogue::default()).is_err(), "a bias for nothing");
        assert!(with(2, bounds(Some(f64::NAN), None)).is_err());
        assert!(with(2, bounds(None, Some(f64::NAN))).is_err());
        assert!(with(2, bounds(Some(0.0), Some(-0.0))).is_err());
    }

    #[test]
    fn bad_references_are_found() {
        assert_eq!(passing().check(), Ok(()));
        let mut plan = passing();
        plan.entries[0].1 = ProgramId(1);
        assert!(plan.check().is_err());
        let mut plan = passing();
        plan.programs[0].slots[0].place = Place::Alias(SlotId(0));
        assert!(plan.check().is_err());
        let mut plan = passing();
        let call = Step::Call {
            program: ProgramId(0),
            arguments: vec![SlotId(0)],
            results: Vec::new(),
            origin: String::new(),
        };
        plan.programs[0].steps.push(call);
        let error = plan.check().expect_err("it calls itself");
        assert!(error.contains("not an earlier one"), "{error}");
    }
}
