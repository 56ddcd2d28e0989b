//! State that outlives a run: KV caches, moments, running statistics.
//!
//! A donated input and its output are one value at two times. A [`StateBuffer`] holds it from step to step, and
//! [`Context::step`] updates it: in place, by appending to it, or by copying the output over it, as the plan says.
//!
//! A state that grows has room for `capacity` elements along its axis: `[outer.., capacity, inner..]`, of which
//! `[outer.., len, inner..]` are the value. While the room lasts, a step writes only what is new and nothing moves; when
//! it does not, the buffer doubles. Each part before the axis starts at a multiple of `capacity`, so a value with more
//! than one of them is not dense: [`StateBuffer::view`] gives it where it is, [`StateBuffer::to_tensor`] always.

use frit_compiler::plan::{Place, Port, Program, State, StateForm};
use frit_ir::{DType, Tensor};

use super::bind::{bind, check, missing};
use super::default_memory_limit;
use super::{Context, InputRef, Model, RunError, TensorView};
use crate::executor::memory::{Buffer, Region};
use crate::executor::{Frame, Kept, reserve};

/// The value of a donated input, kept from step to step.
pub struct StateBuffer {
    /// The input.
    port: Port,
    dtype: DType,
    shape: Vec<usize>,
    /// The axis along which it grows in place.
    axis: Option<usize>,
    /// Elements along the axis that there is room for; without an axis, 1.
    capacity: usize,
    buffer: Buffer,
    /// A step that wrote over it failed.
    spoiled: bool,
}

/// Bytes of a state: before the axis how many parts, of how many elements along the axis, of how many bytes each.
struct Layout {
    outer: usize,
    len: usize,
    inner: usize,
}

impl Layout {
    /// Bytes of parts of `len` elements.
    fn bytes(&self, len: usize) -> usize {
        self.outer.saturating_mul(len).saturating_mul(self.inner)
    }
}

impl StateBuffer {
    /// State `index` of [`Model::states`] with a first value, and room for `capacity` elements along the axis that
    /// grows (at least those that it has; of no meaning for state of one size).
    ///
    /// # Errors
    /// No such state, a value that the input does not take, more memory than there is.
    pub fn with_capacity(
        model: &Model,
        index: usize,
        value: TensorView<'_>,
        capacity: usize,
    ) -> Result<StateBuffer, RunError> {
        let program = model.program();
        let Some(state) = program.states.get(index) else {
            let message = format!("there is no state {index}; the model has {}", program.states.len());
            return Err(RunError::ExtraInput(message));
        };
        let port = &program.inputs[state.input as usize];
        if !matches!(program.slots[port.slot.index()].place, Place::Input(_)) {
            let found = "a tensor in memory".to_owned();
            return Err(RunError::Kind {
                name: port.name.clone(),
                expected: format!("{}, a host value", port.ty),
                found,
            });
        }
        check(port, value)?;
        let mut made = StateBuffer {
            port: port.clone(),
            dtype: value.dtype,
            shape: value.shape.to_vec(),
            axis: axis_of(state),
            capacity: 0,
            buffer: Buffer::default(),
            spoiled: false,
        };
        let rows = made.axis.map_or(1, |a| made.shape[a]);
        made.resize(capacity.max(rows), default_memory_limit())?;
        made.set(value)?;
        Ok(made)
    }

    /// [`StateBuffer::with_capacity`] with no more room than the value takes.
    ///
    /// # Errors
    /// As there.
    pub fn new(model: &Model, index: usize, value: TensorView<'_>) -> Result<StateBuffer, RunError> {
        StateBuffer::with_capacity(model, index, value, 0)
    }

    /// State `index` of [`Model::states`] of zeros, whose extents are all known: no value is made to copy them from.
    ///
    /// # Errors
    /// As [`StateBuffer::with_capacity`]; extents that are not known.
    pub fn zeros(model: &Model, index: usize) -> Result<StateBuffer, RunError> {
        let port = model.states().get(index).and_then(|state| model.inputs().get(state.input as usize));
        let ty = port.and_then(|port| port.ty.tensor());
        let known = ty.and_then(|ty| Some((ty.dtype, ty.known_dims()?)));
        let (Some(port), Some((dtype, shape))) = (port, known) else {
            return Err(RunError::ExtraInput(format!("state {index} has no known extents")));
        };
        let axis = axis_of(&model.states()[index]);
        let rows = axis.map_or(1, |a| shape[a]);
        let (buffer, port) = (Buffer::default(), port.clone());
        let mut made = StateBuffer { port, dtype, shape, axis, capacity: 0, buffer, spoiled: false };
        made.resize(rows, default_memory_limit())?;
        Ok(made)
    }

    /// The donated input that it is for.
    pub fn name(&self) -> &str {
        &self.port.name
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Extents of the value.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The axis along which it grows in place; `None`: it does not.
    pub fn axis(&self) -> Option<usize> {
        self.axis
    }

    /// Elements along the axis that it has room for.
    pub fn capacity(&self) -> usize {
        self.axis.map_or(0, |_| self.capacity)
    }

    /// The value where it lies; `None` when it has gaps, which [`StateBuffer::to_tensor`] leaves out.
    pub fn view(&self) -> Option<TensorView<'_>> {
        let Layout { outer, len, .. } = self.layout();
        let dense = outer <= 1 || len == self.capacity;
        let data = self.buffer.bytes().get(..self.layout().bytes(len)).filter(|_| dense)?;
        Some(TensorView { dtype: self.dtype, shape: &self.shape, data })
    }

    /// All of its memory: `[outer.., capacity, inner..]`, of which the first elements along the axis are the value.
    pub fn bytes(&self) -> &[u8] {
        self.buffer.bytes().get(..self.room(self.capacity)).unwrap_or(&[])
    }

    /// A dense copy of the value.
    ///
    /// # Errors
    /// None but internal ones.
    pub fn to_tensor(&self) -> Result<Tensor, RunError> {
        if let Some(view) = self.view() {
            return view.to_tensor().map_err(|e| RunError::Internal(e.to_string()));
        }
        let Layout { outer, len, inner } = self.layout();
        let mut bytes = Vec::new();
        for part in 0..outer {
            let start = part * self.capacity * inner;
            bytes.extend(self.buffer.bytes().get(start..start + len * inner).unwrap_or(&[]));
        }
        Tensor::from_bytes(self.dtype, &self.shape, &bytes).map_err(|e| RunError::Internal(e.to_string()))
    }

    /// Replaces the value by another of any extents that the input takes; the room stays, or grows.
    ///
    /// # Errors
    /// Another element type or rank, data of another length, more memory than there is.
    pub fn set(&mut self, value: TensorView<'_>) -> Result<(), RunError> {
        check(&self.port, value)?;
        self.shape.clear();
        self.shape.extend(value.shape);
        let rows = self.axis.map_or(1, |a| self.shape[a]);
        self.resize(self.capacity.max(rows), usize::MAX)?;
        let Layout { outer, len, inner } = self.layout();
        for part in 0..outer {
            let from = value.data.get(part * len * inner..(part + 1) * len * inner).unwrap_or(&[]);
            let to = self.buffer.region(part * self.capacity * inner, len * inner).unwrap_or_default();
            if !to.copy_from(Region::read_only(from)) {
                return Err(RunError::Internal("a state without memory".to_owned()));
            }
        }
        self.spoiled = false;
        Ok(())
    }

    /// Forgets what lies beyond the first `len` elements along the axis that grows: the next step goes on from there.
    /// State of one size stays as it is.
    pub fn truncate(&mut self, len: usize) {
        if let Some(rows) = self.axis.and_then(|a| self.shape.get_mut(a)) {
            *rows = len.min(*rows);
        }
    }

    fn refused(&self, message: impl Into<String>) -> RunError {
        RunError::State { name: self.port.name.clone(), message: message.into() }
    }

    fn layout(&self) -> Layout {
        let product = |dims: &[usize], start: usize| dims.iter().fold(start, |n, d| n.saturating_mul(*d));
        let (outer, len, inner) = match self.axis {
            Some(axis) => (product(&self.shape[..axis], 1), self.shape[axis], &self.shape[axis + 1..]),
            None => (1, 1, self.shape.as_slice()),
        };
        let inner = product(inner, self.dtype.size());
        // Of no bytes there are no parts, however many their extents say.
        Layout { outer: if len == 0 || inner == 0 { 0 } else { outer }, len, inner }
    }

    /// Makes room for `capacity` elements along the axis; what is there stays.
    fn resize(&mut self, capacity: usize, limit: usize) -> Result<(), RunError> {
        let Layout { outer, len, inner } = self.layout();
        let what = || format!("the state of input `{}`", self.port.name);
        let bytes = self.room(capacity);
        if bytes > limit {
            return Err(RunError::Limit { what: what(), bytes, limit });
        }
        // Parts that don't move keep their memory; the others move to a new one.
        if outer <= 1 || capacity == self.capacity {
            reserve(&mut self.buffer, bytes, limit, what)?;
        } else {
            let mut next = Buffer::default();
            reserve(&mut next, bytes, limit, what)?;
            for part in 0..outer {
                let from = self.buffer.region(part * self.capacity * inner, len.min(self.capacity) * inner);
                let to = next.region(part * capacity * inner, len.min(self.capacity) * inner);
                if let (Some(from), Some(to)) = (from, to) {
                    to.copy_from(from);
                }
            }
            self.buffer = next;
        }
        self.capacity = capacity;
        Ok(())
    }

    /// Bytes of room for `capacity` elements along the axis.
    fn room(&self, capacity: usize) -> usize {
        let others = self.shape.iter().enumerate().filter(|(i, _)| Some(*i) != self.axis);
        let rows = self.axis.map_or(1, |_| capacity);
        if rows == 0 || others.clone().any(|(_, d)| *d == 0) {
            return 0;
        }
        others.fold(rows.saturating_mul(self.dtype.size()), |n, (_, d)| n.saturating_mul(*d))
    }

    /// Where it lies, for one run.
    fn kept(&mut self) -> Result<Kept, RunError> {
        let region = self.buffer.region(0, self.room(self.capacity));
        let region = region.ok_or_else(|| RunError::Internal("a state without memory".to_owned()))?;
        Ok(Kept { region, capacity: self.capacity })
    }
}

impl std::fmt::Debug for StateBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let StateBuffer { port, dtype, shape, .. } = self;
        write!(f, "StateBuffer({}: {dtype}{shape:?}, capacity {})", port.name, self.capacity())
    }
}

/// The axis along which a state grows in place.
fn axis_of(state: &State) -> Option<usize> {
    match state.form {
        StateForm::Append { axis, .. } => Some(axis as usize),
        StateForm::InPlace { .. } | StateForm::Copied { .. } => None,
    }
}

impl Context {
    /// Runs once and updates state. `states` has one buffer for each of [`Model::states`], in that order; `inputs` has a
    /// value for each of [`Model::inputs`] that is not donated, in that order. Outputs are read as after
    /// [`Context::run`], but for those that are state: [`StateBuffer`] holds them.
    ///
    /// Nothing is allocated when the states have room and other extents stay as they were.
    ///
    /// # Errors
    /// As [`Context::run`]; state of the wrong number, type or extents. A state that grows is unchanged after an error.
    /// State of one size may be half written then, and is refused until [`StateBuffer::set`] gives it a value.
    pub fn step(&mut self, inputs: &[InputRef<'_>], states: &mut [StateBuffer]) -> Result<(), RunError> {
        self.ran = false;
        let model = self.model.clone();
        let program = model.program();
        if states.len() != program.states.len() {
            let (given, wanted) = (states.len(), program.states.len());
            return Err(RunError::ExtraInput(format!("{given} states given, the model has {wanted}")));
        }
        let mut frame = self.take_frame();
        let bound = bind_all(program, &mut frame, inputs, states, self.limit);
        if let Err(error) = bound {
            self.put_frame(frame);
            return Err(error);
        }
        let done = self.execute(&mut frame);
        let began = frame.began;
        let done = done.and_then(|()| keep(program, &frame, &model, states, self.limit));
        self.put_frame(frame);
        self.ran = done.is_ok();
        if done.is_err() && began {
            for (state, buffer) in program.states.iter().zip(states) {
                buffer.spoiled |= matches!(state.form, StateForm::InPlace { .. });
            }
        }
        done
    }
}

/// Binds inputs and states, and makes room for what the step appends.
fn bind_all(
    program: &Program,
    frame: &mut Frame,
    inputs: &[InputRef<'_>],
    states: &mut [StateBuffer],
    limit: usize,
) -> Result<(), RunError> {
    let mut rest = inputs.iter();
    for (index, port) in program.inputs.iter().enumerate() {
        let Some(at) = program.states.iter().position(|s| s.input as usize == index) else {
            let input = rest.next().ok_or_else(|| missing(port))?;
            bind(program, frame, index, *input, limit)?;
            continue;
        };
        let (buffer, axis) = (&states[at], axis_of(&program.states[at]));
        let fits = port.ty.tensor().is_some_and(|t| t.dtype == buffer.dtype && t.rank() == buffer.shape.len());
        if buffer.port.name != port.name || !fits || buffer.axis != axis {
            return Err(buffer.refused(format!("it is no state for input `{}` of this model", port.name)));
        }
        if buffer.spoiled {
            return Err(buffer.refused("a step that failed left it half written; give it a value first"));
        }
        frame.shapes[index].clear();
        frame.shapes[index].extend(buffer.shape.iter().map(|d| i64::try_from(*d).unwrap_or(i64::MAX)));
    }
    if rest.next().is_some() {
        let (given, wanted) = (inputs.len(), program.inputs.len() - program.states.len());
        return Err(RunError::ExtraInput(format!("{given} inputs given, the model takes {wanted} beside its states")));
    }
    frame.bind_inputs(program);
    for (at, (state, buffer)) in program.states.iter().zip(states).enumerate() {
        if let StateForm::Append { len, .. } = state.form {
            let needed = frame.appended(program, len)?;
            if needed > buffer.capacity {
                let doubled = needed.max(buffer.capacity.saturating_mul(2));
                buffer.resize(doubled, limit).or_else(|_| buffer.resize(needed, limit))?;
            }
        }
        let kept = buffer.kept()?;
        let layout = buffer.layout();
        // With gaps it is read through its storage alone.
        let dense = if layout.outer <= 1 { kept.region.part(0, layout.bytes(layout.len)) } else { None };
        frame.regions[program.inputs[state.input as usize].slot.index()] = dense.unwrap_or_default();
        frame.kept[at] = Some(kept);
    }
    Ok(())
}

/// After a run that went well: states take over what the run made of them.
fn keep(
    program: &Program,
    frame: &Frame,
    model: &Model,
    states: &mut [StateBuffer],
    limit: usize,
) -> Result<(), RunError> {
    let facts = &model.data().facts[model.entry().index()];
    let made = |state: &State| {
        let slot = program.outputs[state.output as usize].slot;
        frame.own_bytes(program, facts, facts.root(slot)).unwrap_or(&[])
    };
    // What can fail for want of memory comes first, so that all states step on or none does.
    for (state, buffer) in program.states.iter().zip(&mut *states) {
        if matches!(state.form, StateForm::Copied { .. }) {
            let what = || format!("the state of input `{}`", buffer.port.name);
            reserve(&mut buffer.buffer, made(state).len(), limit, what)?;
        }
    }
    for (state, buffer) in program.states.iter().zip(states) {
        match state.form {
            StateForm::InPlace { .. } => {}
            StateForm::Append { axis, len, .. } => buffer.shape[axis as usize] = frame.appended(program, len)?,
            StateForm::Copied { .. } => {
                frame.shape_into(program, program.outputs[state.output as usize].slot, &mut buffer.shape)?;
                let to = buffer.buffer.region(0, buffer.room(1)).unwrap_or_default();
                if !to.copy_from(Region::read_only(made(state))) && buffer.room(1) > 0 {
                    return Err(RunError::Internal(format!("the state of `{}` has another size", buffer.port.name)));
                }
            }
        }
    }
    Ok(())
}
