//! What one thread keeps to run a model: frames, scratch memory, the shapes of outputs.

use frit_ir::{DType, HostValue, Tensor, ValueType};

use super::bind::{bind, missing};
use super::{InputRef, Model, Profile, RunError, StepTime, TensorView, default_memory_limit, uncopied};
use crate::executor::memory::Buffer;
use crate::executor::{Frame, Run};

/// Runs a model, and holds the outputs of the last run. Reused, it allocates nothing while shapes stay as they were.
pub struct Context {
    pub(super) model: Model,
    frames: Vec<Frame>,
    scratch: Buffer,
    /// Extents of each output of the last run.
    shapes: Vec<Vec<usize>>,
    profile: Option<Profile>,
    pub(super) limit: usize,
    /// Whether outputs can be read.
    pub(super) ran: bool,
}

/// An output of the last run.
#[derive(Clone, Copy, Debug)]
pub enum Output<'a> {
    /// A tensor in the context's memory.
    Tensor(TensorView<'a>),
    /// A host value.
    Host(&'a HostValue),
}

impl<'a> Output<'a> {
    /// The tensor, when it is one in memory.
    pub fn tensor(self) -> Option<TensorView<'a>> {
        match self {
            Output::Tensor(view) => Some(view),
            Output::Host(_) => None,
        }
    }

    /// A copy that outlives the context's next run.
    ///
    /// # Errors
    /// No memory for it.
    pub fn to_host(self) -> Result<HostValue, RunError> {
        match self {
            Output::Tensor(view) => {
                view.to_tensor().map(HostValue::Tensor).map_err(|e| uncopied("a copy of an output", e))
            }
            Output::Host(value) => Ok(value.clone()),
        }
    }
}

impl Context {
    pub(super) fn new(model: &Model) -> Context {
        let mut frames: Vec<Frame> = Vec::new();
        frames.resize_with(model.plan().programs.len(), Frame::default);
        Context {
            model: model.clone(),
            frames,
            scratch: Buffer::default(),
            shapes: vec![Vec::new(); model.outputs().len()],
            profile: None,
            limit: default_memory_limit(),
            ran: false,
        }
    }

    /// The model that it runs.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Refuses runs that need a buffer of more bytes than this; at first it is the machine's memory
    /// ([`default_memory_limit`]).
    pub fn set_memory_limit(&mut self, bytes: usize) {
        self.limit = bytes;
    }

    /// Collects the time of each step from now on, or no longer.
    pub fn set_profiling(&mut self, on: bool) {
        self.profile = on.then(|| Profile::new(self.model.plan()));
    }

    /// Times collected so far.
    pub fn profile(&self) -> Vec<StepTime> {
        self.profile.as_ref().map(|p| p.steps(self.model.plan())).unwrap_or_default()
    }

    /// Bytes of memory that it holds.
    pub fn memory(&self) -> usize {
        self.scratch.len() + self.frames.iter().map(Frame::memory).sum::<usize>()
    }

    /// Takes the memory of another context, as far as it has more: two that never run at once need it once. What the
    /// other has given can't be read any more.
    pub fn take_over(&mut self, other: &mut Context) {
        other.ran = false;
        let (own, theirs) = (self.model.entry().index(), other.model.entry().index());
        if let (Some(own), Some(theirs)) = (self.frames.get_mut(own), other.frames.get_mut(theirs)) {
            own.take_arena(theirs);
        }
        if other.scratch.len() > self.scratch.len() {
            std::mem::swap(&mut self.scratch, &mut other.scratch);
        }
        other.scratch = Buffer::default();
    }

    /// Runs with an input for each of [`Model::inputs`], in that order.
    ///
    /// # Errors
    /// Inputs that don't fit, or whatever the run meets; outputs can't be read then.
    pub fn run(&mut self, inputs: &[InputRef<'_>]) -> Result<(), RunError> {
        let ports = self.model.inputs();
        if let Some(port) = ports.get(inputs.len()) {
            return Err(missing(port));
        }
        if inputs.len() > ports.len() {
            let message = format!("{} inputs given, the model takes {}", inputs.len(), ports.len());
            return Err(RunError::ExtraInput(message));
        }
        self.run_bound(&mut |index| inputs.get(index).copied())
    }

    /// Runs with inputs by name.
    ///
    /// # Errors
    /// As [`Context::run`]; names that the model does not have or that come twice.
    pub fn run_named(&mut self, inputs: &[(&str, InputRef<'_>)]) -> Result<(), RunError> {
        let ports = self.model.inputs();
        for (i, (name, _)) in inputs.iter().enumerate() {
            if !ports.iter().any(|p| p.name == *name) {
                let names: Vec<String> = ports.iter().map(|p| format!("`{}`", p.name)).collect();
                return Err(RunError::UnknownInput { name: (*name).to_owned(), known: names.join(", ") });
            }
            if inputs.iter().take(i).any(|(other, _)| other == name) {
                return Err(RunError::ExtraInput(format!("input `{name}` is given twice")));
            }
        }
        let model = self.model.clone();
        self.run_bound(&mut |index| {
            let port = model.inputs().get(index)?;
            inputs.iter().find(|(name, _)| *name == port.name).map(|(_, input)| *input)
        })
    }

    fn run_bound<'i>(&mut self, input: &mut dyn FnMut(usize) -> Option<InputRef<'i>>) -> Result<(), RunError> {
        self.ran = false;
        let mut frame = self.take_frame();
        frame.kept.fill(None);
        let program = self.model.program();
        let bound = program.inputs.iter().enumerate().try_for_each(|(index, port)| {
            let value = input(index).ok_or_else(|| missing(port))?;
            bind(program, &mut frame, index, value, self.limit)
        });
        let done = bound.and_then(|()| self.execute(&mut frame));
        self.put_frame(frame);
        self.ran = done.is_ok();
        done
    }

    /// The entry's frame, out of the list while it runs.
    pub(super) fn take_frame(&mut self) -> Frame {
        let mut frame = std::mem::take(&mut self.frames[self.model.entry().index()]);
        frame.fit(self.model.program());
        frame
    }

    pub(super) fn put_frame(&mut self, frame: Frame) {
        self.frames[self.model.entry().index()] = frame;
    }

    /// Runs the entry; its inputs are bound.
    pub(super) fn execute(&mut self, frame: &mut Frame) -> Result<(), RunError> {
        let (data, entry) = (self.model.data(), self.model.entry());
        let program = &data.plan.programs[entry.index()];
        let mut run = Run {
            model: data,
            pool: self.model.pool(),
            scratch: &mut self.scratch,
            frames: &mut self.frames,
            profile: self.profile.as_mut(),
            limit: self.limit,
        };
        run.execute(entry, frame)?;
        let mut outputs = program.outputs.iter().zip(&mut self.shapes);
        outputs.try_for_each(|(port, shape)| frame.shape_into(program, port.slot, shape))
    }

    /// An output of the last run.
    ///
    /// # Errors
    /// No run, one that failed, or no such output.
    pub fn output(&self, index: usize) -> Result<Output<'_>, RunError> {
        let (data, entry) = (self.model.data(), self.model.entry());
        let program = &data.plan.programs[entry.index()];
        let Some(port) = program.outputs.get(index).filter(|_| self.ran) else {
            let why = if self.ran { "there is none" } else { "the model has not run" };
            return Err(RunError::ExtraInput(format!("output {index} can't be read: {why}")));
        };
        let (frame, facts) = (&self.frames[entry.index()], &data.facts[entry.index()]);
        let root = facts.root(port.slot);
        if frame.keeps(program, index) {
            return Err(RunError::ExtraInput(format!("output `{}` is state: its buffer holds it", port.name)));
        }
        if let Some(value) = &frame.host[root] {
            return Ok(Output::Host(value));
        }
        let dtype = match &port.ty {
            ValueType::Tensor(ty) => ty.dtype,
            _ => DType::Str,
        };
        let bytes = frame.own_bytes(program, facts, root);
        let data = bytes.ok_or_else(|| RunError::Internal(format!("output `{}` has no memory", port.name)))?;
        Ok(Output::Tensor(TensorView { dtype, shape: &self.shapes[index], data }))
    }

    /// An output of the last run by name, as a tensor of its own.
    ///
    /// # Errors
    /// As [`Context::output`]; an output that is no tensor.
    pub fn output_tensor(&self, name: &str) -> Result<Tensor, RunError> {
        let index = self.model.outputs().iter().position(|p| p.name == name);
        let index = index.ok_or_else(|| RunError::ExtraInput(format!("there is no output `{name}`")))?;
        match self.output(index)?.to_host()? {
            HostValue::Tensor(tensor) => Ok(tensor),
            _ => Err(RunError::ExtraInput(format!("output `{name}` is no tensor"))),
        }
    }
}
