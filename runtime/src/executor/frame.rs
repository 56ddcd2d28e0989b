//! What one program keeps between runs: extents, where its values lie, and the memory for them.
//!
//! In: input shapes and regions. Out: every extent evaluated, guards checked, arena slots placed. A frame is reused: with
//! the extents of the run before, nothing is evaluated, packed or allocated again.

use frit_compiler::plan::memory::{Life, Packing};
use frit_compiler::plan::{DimId, Guard, Place, Plan, Program, Slot, SlotId, StateForm};
use frit_ir::{Dim, HostValue, ValueType};

use super::memory::{Buffer, Pointers, Region};
use crate::session::RunError;

/// What is known of a program before it runs.
pub(crate) struct Facts {
    /// The slot whose memory each slot is.
    roots: Vec<SlotId>,
    /// Whether steps bind symbols: then extents start unknown in every run.
    late: bool,
    /// Arena slots.
    arena: Vec<SlotId>,
    /// Bytes of an element of each slot.
    elements: Vec<usize>,
}

impl Facts {
    pub(crate) fn of(program: &Program) -> Facts {
        let bound = |symbol: usize| {
            program.binds.iter().any(|b| b.symbol as usize == symbol)
                || program.states.iter().any(|s| capacity_of(&s.form).is_some_and(|c| c as usize == symbol))
        };
        let slots = || (0..program.slots.len() as u32).map(SlotId);
        Facts {
            roots: slots().map(|s| program.root(s)).collect(),
            late: (0..program.symbols.len()).any(|s| !bound(s)),
            elements: program.slots.iter().map(|s| s.ty.tensor().map_or(0, |t| t.dtype.size())).collect(),
            arena: slots().filter(|s| matches!(program.slots[s.index()].place, Place::Arena { .. })).collect(),
        }
    }

    /// Bytes of an element of a slot.
    pub(crate) fn element(&self, slot: SlotId) -> usize {
        self.elements[slot.index()]
    }

    /// The slot whose memory a slot is.
    pub(crate) fn root(&self, slot: SlotId) -> usize {
        self.roots[slot.index()].index()
    }
}

/// The symbol that a state binds.
fn capacity_of(form: &StateForm) -> Option<u32> {
    match form {
        StateForm::Append { capacity, .. } => Some(*capacity),
        StateForm::InPlace { .. } | StateForm::Copied { .. } => None,
    }
}

/// Memory that a caller keeps for a state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept {
    /// All of it.
    pub(crate) region: Region,
    /// The extent that it has room for along the axis that grows.
    pub(crate) capacity: usize,
}

/// What one program needs to run. Tables over slots are indexed by root slots.
#[derive(Default)]
pub(crate) struct Frame {
    /// Extents of each input.
    pub(crate) shapes: Vec<Vec<i64>>,
    /// Memory for inputs that don't lie as they should, and for small values that the executor hands in.
    pub(crate) staging: Vec<Buffer>,
    /// Where values lie.
    pub(crate) regions: Vec<Region>,
    /// Host values.
    pub(crate) host: Vec<Option<HostValue>>,
    /// Start of each argument of the kernel at hand.
    pub(crate) pointers: Pointers,
    /// Dims of the kernel at hand.
    pub(crate) kernel_dims: Vec<i64>,
    symbols: Vec<Option<i64>>,
    dims: Vec<Option<i64>>,
    /// Guards that have held in this run.
    held: Vec<bool>,
    /// Memory of states that the caller keeps in this run; `None`: the run's own.
    pub(crate) kept: Vec<Option<Kept>>,
    /// Memory for states that no caller keeps.
    own: Vec<Buffer>,
    /// Whether a capacity differs from that of the run before.
    regrown: bool,
    lives: Vec<Life>,
    packing: Packing,
    arena: Buffer,
    /// Bytes of the arena that the extents at hand need.
    needed: usize,
    late: Vec<Buffer>,
    ready: Vec<bool>,
    /// Whether extents and places are those of `symbols`.
    settled: bool,
    /// Whether the last run came to its first step.
    pub(crate) began: bool,
}

impl Frame {
    /// Makes the tables as long as the program's.
    pub(crate) fn fit(&mut self, program: &Program) {
        self.shapes.resize_with(program.inputs.len(), Vec::new);
        self.staging.resize_with(program.inputs.len(), Buffer::default);
        self.regions.resize_with(program.slots.len(), Region::default);
        self.host.resize_with(program.slots.len(), || None);
        self.late.resize_with(program.slots.len(), Buffer::default);
        self.ready.resize(program.slots.len(), false);
        self.held.resize(program.guards.len(), false);
        self.symbols.resize(program.symbols.len(), None);
        self.kept.resize(program.states.len(), None);
        self.own.resize_with(program.states.len(), Buffer::default);
    }

    /// Starts a run: inputs are bound (regions, shapes, host values); binds symbols, checks guards, places slots.
    pub(crate) fn begin(
        &mut self,
        plan: &Plan,
        program: &Program,
        facts: &Facts,
        limit: usize,
    ) -> Result<(), RunError> {
        self.began = false;
        self.bind_inputs(program);
        let changed = self.bind_capacities(program)? | !self.settled;
        if facts.late {
            for (i, symbol) in self.symbols.iter_mut().enumerate() {
                let kept = program.states.iter().any(|s| capacity_of(&s.form).is_some_and(|c| c as usize == i));
                if !kept && !program.binds.iter().any(|b| b.symbol as usize == i) {
                    *symbol = None;
                }
            }
        }
        self.ready.fill(false);
        for (held, guard) in self.held.iter_mut().zip(&program.guards) {
            // What relates extents holds for as long as they stay.
            *held &= !changed && !facts.late && matches!(guard, Guard::Relation { .. });
        }
        if changed || facts.late {
            self.settled = false;
            program.evaluate(&self.symbols, &mut self.dims);
        }
        self.check_guards(plan, program)?;
        if std::mem::take(&mut self.regrown) {
            self.foresee(program, facts, limit);
        }
        if changed {
            self.place(program, facts, limit)?;
            self.settled = true;
        } else {
            // Another frame may have taken it.
            reserve(&mut self.arena, self.needed, limit, || arena_of(program))?;
        }
        self.place_states(program, limit)?;
        for (i, slot) in program.slots.iter().enumerate() {
            if let Place::Constant(id) = slot.place {
                self.regions[i] = Region::read_only(plan.constants[id.index()].value.bytes());
            }
        }
        for (slot, (offset, life)) in facts.arena.iter().zip(self.packing.offsets.iter().zip(&self.lives)) {
            let region = self.arena.region(*offset, life.bytes);
            self.regions[slot.index()] = region.ok_or_else(|| RunError::Internal("a slot outside the arena".into()))?;
        }
        self.began = true;
        Ok(())
    }

    /// Binds symbols by the inputs' shapes.
    pub(crate) fn bind_inputs(&mut self, program: &Program) {
        let mut changed = false;
        for bind in &program.binds {
            let extent = self.shapes[bind.input as usize].get(bind.axis as usize).copied();
            let symbol = &mut self.symbols[bind.symbol as usize];
            changed |= *symbol != extent;
            *symbol = extent;
        }
        // Until a run has evaluated them, extents are those of other symbols.
        self.settled &= !changed;
    }

    /// The extent of an appended output along its axis, from the symbols that inputs bind.
    pub(crate) fn appended(&self, program: &Program, len: DimId) -> Result<usize, RunError> {
        let dim = &program.dims[len.index()];
        let symbols = &self.symbols;
        let lookup = |s: &frit_ir::Symbol| program.symbols.iter().position(|x| x == s).and_then(|i| symbols[i]);
        dim.eval(&lookup).and_then(|v| usize::try_from(v).ok()).ok_or_else(|| RunError::Shape {
            origin: program.name.clone(),
            message: format!("the extent {dim} of a state can't be computed for these inputs"),
        })
    }

    /// Binds the capacity of each state that grows: the caller's, else just enough. True when one changed.
    fn bind_capacities(&mut self, program: &Program) -> Result<bool, RunError> {
        let mut changed = false;
        for (state, kept) in program.states.iter().zip(&self.kept) {
            let StateForm::Append { capacity, len, .. } = state.form else { continue };
            let needed = self.appended(program, len)?;
            let room = kept.map_or(needed, |k| k.capacity);
            if room < needed {
                return Err(RunError::Internal(format!("a state of {needed} rows in room for {room}")));
            }
            let value = Some(i64::try_from(room).unwrap_or(i64::MAX));
            let symbol = &mut self.symbols[capacity as usize];
            if *symbol != value {
                *symbol = value;
                changed = true;
                self.regrown |= kept.is_some();
            }
        }
        Ok(changed)
    }

    /// Makes the arena as large as it will be when states have filled their capacity, so that the steps until then
    /// allocate nothing. What can't be foreseen is left to the steps.
    fn foresee(&mut self, program: &Program, facts: &Facts, limit: usize) {
        let now = self.symbols.clone();
        for state in &program.states {
            let StateForm::Append { axis, capacity, len, .. } = state.form else { continue };
            let Some(ty) = program.inputs[state.input as usize].ty.tensor() else { continue };
            let held = self.shapes[state.input as usize].get(axis as usize).copied();
            let symbol = ty.dims.get(axis as usize).and_then(|d| d.as_symbol());
            let index = symbol.and_then(|s| program.symbols.iter().position(|x| x == s));
            let grown = self.dims.get(len.index()).copied().flatten();
            if let (Some(held), Some(index), Some(grown), Some(room)) = (held, index, grown, now[capacity as usize]) {
                self.symbols[index] = Some((room - (grown - held)).max(0));
            }
        }
        program.evaluate(&self.symbols, &mut self.dims);
        let foreseen = self.place(program, facts, limit);
        self.symbols = now;
        program.evaluate(&self.symbols, &mut self.dims);
        // A later step that needs what was refused here is refused itself, with its own message.
        drop(foreseen);
    }

    /// Says where states lie, and brings what inputs hold to where appends go on.
    fn place_states(&mut self, program: &Program, limit: usize) -> Result<(), RunError> {
        for (index, state) in program.states.iter().enumerate() {
            let storage = match &state.form {
                StateForm::InPlace { storage } | StateForm::Append { storage, .. } => *storage,
                StateForm::Copied { .. } => continue,
            };
            let bytes = self.size(program, storage, limit)?;
            let missing = || RunError::Internal(format!("the memory of state {index} is too small"));
            let region = match self.kept[index] {
                Some(kept) => kept.region.part(0, bytes).ok_or_else(missing)?,
                None => {
                    let what = || format!("the output of `{}`", program.inputs[state.input as usize].name);
                    reserve(&mut self.own[index], bytes, limit, what)?;
                    self.own[index].region(0, bytes).ok_or_else(missing)?
                }
            };
            self.regions[storage.index()] = region;
            let StateForm::Append { axis, .. } = state.form else { continue };
            if self.kept[index].is_none() {
                let input = self.regions[program.inputs[state.input as usize].slot.index()];
                let outer = self.shapes[state.input as usize].iter().take(axis as usize);
                let rows = outer.fold(1usize, |n, d| n.saturating_mul(usize::try_from(*d).unwrap_or(0)));
                if !region.spread(input, rows) {
                    return Err(missing());
                }
            }
        }
        for (index, slot) in program.slots.iter().enumerate() {
            let Place::Prefix(of) = slot.place else { continue };
            let bytes = self.size(program, SlotId(index as u32), limit)?;
            let part = self.regions[of.index()].part(0, bytes);
            self.regions[index] = part.ok_or_else(|| RunError::Internal("a part of a state outside of it".into()))?;
        }
        Ok(())
    }

    /// Whether the caller's state held an output of the last run.
    pub(crate) fn keeps(&self, program: &Program, output: usize) -> bool {
        program.states.iter().zip(&self.kept).any(|(state, kept)| {
            state.output as usize == output && kept.is_some() && !matches!(state.form, StateForm::Copied { .. })
        })
    }

    /// The bytes of a state in this frame's own memory.
    fn own_state(&self, state: u32, len: usize) -> Option<&[u8]> {
        let index = state as usize;
        let own = self.own.get(index).filter(|_| self.kept.get(index).is_some_and(Option::is_none))?;
        own.bytes().get(..len)
    }

    /// Gives arena slots their places.
    fn place(&mut self, program: &Program, facts: &Facts, limit: usize) -> Result<(), RunError> {
        let mut total = self.pack(program, facts, limit)?;
        // With kept states, extents grow from run to run: a little more each time would be a copy each time.
        if total > self.arena.len() && self.kept.iter().any(Option::is_some) {
            total = total.max(self.arena.len() / 2 * 3).min(limit.max(total));
        }
        self.needed = total;
        reserve(&mut self.arena, total, limit, || arena_of(program))
    }

    /// Packs arena slots; gives the arena's size.
    fn pack(&mut self, program: &Program, facts: &Facts, limit: usize) -> Result<usize, RunError> {
        self.lives.clear();
        for slot in &facts.arena {
            let Slot { place, .. } = &program.slots[slot.index()];
            let Place::Arena { first, last } = *place else { continue };
            // A slot that no step touches has no life and takes no memory.
            let bytes = if first <= last { self.size(program, *slot, limit)? } else { 0 };
            self.lives.push(Life { bytes, first, last });
        }
        Ok(self.packing.pack(&self.lives).unwrap_or(usize::MAX))
    }

    /// The arena's size for inputs of these shapes; extents are evaluated, nothing is allocated for the arena.
    pub(crate) fn arena_for(
        &mut self,
        program: &Program,
        facts: &Facts,
        shapes: &[Vec<i64>],
        limit: usize,
    ) -> Result<usize, RunError> {
        self.fit(program);
        self.shapes.clear();
        self.shapes.extend_from_slice(shapes);
        self.shapes.resize_with(program.inputs.len(), Vec::new);
        self.settled = false;
        self.bind_inputs(program);
        self.bind_capacities(program)?;
        program.evaluate(&self.symbols, &mut self.dims);
        self.pack(program, facts, limit)
    }

    /// Takes the arena of a frame that is not running, where it has one: two that never run at once need one.
    pub(crate) fn take_arena(&mut self, other: &mut Frame) {
        let theirs = std::mem::take(&mut other.arena);
        if theirs.len() > self.arena.len() {
            self.arena = theirs;
        }
    }

    /// Bytes of a slot.
    fn size(&self, program: &Program, slot: SlotId, limit: usize) -> Result<usize, RunError> {
        let Slot { ty, dims, .. } = &program.slots[slot.index()];
        let ValueType::Tensor(ty) = ty else { return Ok(0) };
        let mut numel = Some(1usize);
        let mut empty = false;
        for dim in dims {
            let extent = self.extent(program, *dim)?;
            empty |= extent == 0;
            numel = numel.and_then(|n| n.checked_mul(extent));
        }
        let bytes = if empty { Some(0) } else { numel.and_then(|n| n.checked_mul(ty.dtype.size())) };
        match bytes {
            Some(bytes) if bytes <= limit => Ok(bytes),
            _ => {
                let what = format!("a value {ty} of `{}`", program.name);
                Err(RunError::Limit { what, bytes: bytes.unwrap_or(usize::MAX), limit })
            }
        }
    }

    /// The value of an extent, which must be bound and not negative.
    pub(crate) fn extent(&self, program: &Program, dim: DimId) -> Result<usize, RunError> {
        let value = self.dim(program, dim)?;
        usize::try_from(value).map_err(|_| RunError::Shape {
            origin: program.name.clone(),
            message: format!("the extent {} is {value} for these inputs", program.dims[dim.index()]),
        })
    }

    /// The value of an entry of the table of extents.
    pub(crate) fn dim(&self, program: &Program, dim: DimId) -> Result<i64, RunError> {
        self.dims.get(dim.index()).copied().flatten().ok_or_else(|| RunError::Shape {
            origin: program.name.clone(),
            message: format!("the extent {} can't be computed for these inputs", program.dims[dim.index()]),
        })
    }

    /// The extents of a slot, into a list that is reused.
    pub(crate) fn shape_into<T: TryFrom<i64>>(
        &self,
        program: &Program,
        slot: SlotId,
        out: &mut Vec<T>,
    ) -> Result<(), RunError> {
        out.clear();
        for dim in &program.slots[slot.index()].dims {
            let value = self.dim(program, *dim)?;
            out.push(T::try_from(value).map_err(|_| RunError::Internal(format!("the extent {value} is negative")))?);
        }
        Ok(())
    }

    /// Binds a symbol that a step has found.
    pub(crate) fn bind(&mut self, plan: &Plan, program: &Program, symbol: u32, value: i64) -> Result<(), RunError> {
        let place = &mut self.symbols[symbol as usize];
        match *place {
            Some(known) if known != value => {
                let name = program.symbols[symbol as usize].name();
                let message = format!("the extent {name} is {known} and {value} at once");
                Err(RunError::Shape { origin: program.name.clone(), message })
            }
            Some(_) => Ok(()),
            None => {
                *place = Some(value);
                program.evaluate(&self.symbols, &mut self.dims);
                self.check_guards(plan, program)
            }
        }
    }

    /// Makes sure that a slot which a step is about to touch has memory: late slots are sized when their extents are
    /// bound.
    pub(crate) fn prepare(
        &mut self,
        program: &Program,
        facts: &Facts,
        slot: SlotId,
        limit: usize,
    ) -> Result<Region, RunError> {
        let root = facts.root(slot);
        if program.slots[root].place == Place::Late && !self.ready[root] {
            let bytes = self.size(program, SlotId(root as u32), limit)?;
            self.grow_late(program, root, bytes, limit)?;
        }
        Ok(self.regions[root])
    }

    /// Gives a late slot exactly `bytes`; what it holds stays.
    pub(crate) fn grow_late(
        &mut self,
        program: &Program,
        root: usize,
        bytes: usize,
        limit: usize,
    ) -> Result<(), RunError> {
        let buffer = &mut self.late[root];
        if bytes > buffer.len() {
            // Doubling, so that a value that grows step by step is copied a few times only.
            let wanted = bytes.max(buffer.len().saturating_mul(2)).min(limit.max(bytes));
            reserve(buffer, wanted, limit, || format!("a value of `{}`", program.name))?;
        }
        let region = buffer.region(0, bytes);
        self.regions[root] = region.ok_or_else(|| RunError::Internal("late memory is too small".into()))?;
        self.ready[root] = true;
        Ok(())
    }

    /// Checks the guards whose extents are known and that have not been checked in this run.
    fn check_guards(&mut self, plan: &Plan, program: &Program) -> Result<(), RunError> {
        for (i, guard) in program.guards.iter().enumerate() {
            if !self.held[i] {
                self.held[i] = self.guard_holds(plan, program, guard)?;
            }
        }
        Ok(())
    }

    /// False when an extent is not known yet.
    fn guard_holds(&self, plan: &Plan, program: &Program, guard: &Guard) -> Result<bool, RunError> {
        let value = |dim: &DimId| self.dims.get(dim.index()).copied().flatten();
        let text = |dim: &DimId| &program.dims[dim.index()];
        match guard {
            Guard::Extent { input, axis, dim } => {
                let Some(expected) = value(dim) else { return Ok(false) };
                let found = self.shapes[*input as usize].get(*axis as usize).copied().unwrap_or(-1);
                if found == expected {
                    return Ok(true);
                }
                let expected = match text(dim).known() {
                    Some(known) => known.to_string(),
                    None => format!("{expected} ({})", text(dim)),
                };
                let name = program.inputs[*input as usize].name.clone();
                Err(RunError::Extent { name, axis: *axis as usize, expected, found })
            }
            Guard::Value { input, constant } => {
                let port = &program.inputs[*input as usize];
                if self.regions[port.slot.index()].bytes() == plan.constants[constant.index()].value.bytes() {
                    return Ok(true);
                }
                Err(RunError::Value { name: port.name.clone() })
            }
            Guard::Relation { relation, left, right, what, origin } => {
                let broken = match (value(left), value(right)) {
                    (Some(a), Some(b)) if relation.holds(a, b) => return Ok(true),
                    (Some(a), Some(b)) => relation.broken((text(left), a), (text(right), b)),
                    _ if self.is_open(program, *left) || self.is_open(program, *right) => return Ok(false),
                    _ => format!("{} or {} can't be computed", text(left), text(right)),
                };
                let whose = whose(program, &[text(left), text(right)]);
                let message = format!("{what}: {broken} for these inputs{whose}");
                Err(RunError::Shape { origin: origin.clone(), message })
            }
        }
    }

    /// Whether an extent waits for a step that binds a symbol of it.
    fn is_open(&self, program: &Program, dim: DimId) -> bool {
        let mut open = false;
        program.dims[dim.index()].visit_symbols(&mut |s| {
            let at = program.symbols.iter().position(|known| known == s);
            open |= at.and_then(|at| self.symbols.get(at).copied().flatten()).is_none();
        });
        open
    }

    /// The bytes of a root slot in this frame's own memory, after a run.
    pub(crate) fn own_bytes(&self, program: &Program, facts: &Facts, root: usize) -> Option<&[u8]> {
        let len = self.regions[root].len();
        match program.slots[root].place {
            Place::Arena { .. } => {
                let at = facts.arena.iter().position(|s| s.index() == root)?;
                let offset = *self.packing.offsets.get(at)?;
                self.arena.bytes().get(offset..offset.checked_add(len)?)
            }
            Place::Late => self.late[root].bytes().get(..len),
            Place::State(state) => self.own_state(state, len),
            Place::Prefix(of) => match program.slots[of.index()].place {
                Place::State(state) => self.own_state(state, len),
                _ => None,
            },
            Place::Input(_)
            | Place::Constant(_)
            | Place::Prepared(_)
            | Place::Alias(_)
            | Place::Over(_)
            | Place::Host => None,
        }
    }

    /// Bytes of memory that it holds.
    pub(crate) fn memory(&self) -> usize {
        let others = self.late.iter().chain(&self.staging).chain(&self.own).map(Buffer::len).sum::<usize>();
        self.arena.len() + others
    }
}

/// Which axes of inputs the symbols of extents are: what to change.
fn whose(program: &Program, dims: &[&Dim]) -> String {
    let mut named: Vec<String> = Vec::new();
    for bind in &program.binds {
        let symbol = &program.symbols[bind.symbol as usize];
        let mut mentioned = false;
        dims.iter().for_each(|d| d.visit_symbols(&mut |s| mentioned |= s == symbol));
        if mentioned {
            named.push(format!("{symbol} is axis {} of `{}`", bind.axis, program.inputs[bind.input as usize].name));
        }
    }
    if named.is_empty() { String::new() } else { format!("; {}", named.join(", ")) }
}

fn arena_of(program: &Program) -> String {
    format!("the arena of `{}`", program.name)
}

/// Makes room, within the limit.
pub(crate) fn reserve(
    buffer: &mut Buffer,
    bytes: usize,
    limit: usize,
    what: impl Fn() -> String,
) -> Result<(), RunError> {
    if bytes > limit {
        return Err(RunError::Limit { what: what(), bytes, limit });
    }
    buffer.reserve(bytes).map_err(|_| RunError::Memory { what: what(), bytes })
}
