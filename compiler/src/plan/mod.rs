//! An executable plan: steps over slots, extents as a table, code and constants beside.
//!
//! ```text
//!  Module --passes--> Module --[build]--> Plan { programs, kernels, code, constants }
//!                                           |            '- one blob of machine code
//!                                           '- steps: kernel, library, host, control
//! ```
//!
//! A [`Plan`] is data only: it knows no thread and no pointer, can be written to an artifact and run by a runtime that
//! has no code generator. A function or region becomes a [`Program`]: slots (values), steps in order, and a table of
//! extents over its symbols. Symbols are bound from input shapes at the start of a run, or by a step that finds a
//! data-dependent extent; sizes and offsets follow from the table.
//!
//! What always holds: P1 a step reads only slots that an earlier step (or the caller) wrote; P2 two arena slots whose
//! lives overlap do not overlap in memory; P3 every extent a step uses is bound before it; P4 no step reads a donated
//! input after a step that writes over it ([`State`]), nor a slot after the kernel that writes another over it
//! ([`Place::Over`]), and that kernel reads each element before; P5 what its ops need of extents is guarded, so that no
//! kernel leaves its buffers.

pub mod build;
mod check;
pub mod memory;

use std::fmt;

use frit_ir::{DType, Dim, Relation, Symbol, Tensor, ValueType};

use crate::cpu::abi::PhaseCode;

macro_rules! ids {
    ($($(#[$meta:meta])* $name:ident;)*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u32);

        impl $name {
            /// As an index.
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }
    )*};
}

ids! {
    /// A value of a program.
    SlotId;
    /// An entry of a program's table of extents.
    DimId;
    /// A program of the plan.
    ProgramId;
    /// A kernel of the plan.
    KernelId;
    /// A constant of the plan.
    ConstantId;
}

/// A compiled module.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Programs; regions and callees are programs too.
    pub programs: Vec<Program>,
    /// Entry functions by name, in the module's order.
    pub entries: Vec<(String, ProgramId)>,
    /// Runs once, when a model is made, without inputs: its outputs are the values of [`Place::Prepared`].
    pub preparation: Option<ProgramId>,
    /// Kernels.
    pub kernels: Vec<PlanKernel>,
    /// Machine code of all kernels, position independent, aligned to 64 when placed.
    pub code: Vec<u8>,
    /// Weights and tables.
    pub constants: Vec<Constant>,
    /// Where the module came from, for messages.
    pub source: String,
}

/// A named constant.
#[derive(Clone, Debug)]
pub struct Constant {
    /// Its name in the parameter store; empty for tables.
    pub name: String,
    /// Its value.
    pub value: Tensor,
}

/// A kernel in the plan's code.
#[derive(Clone, Debug)]
pub struct PlanKernel {
    /// Its name.
    pub name: String,
    /// Origins of its ops, for profiles.
    pub origin: String,
    /// Offset of its code in the blob.
    pub code: usize,
    /// Its phases; entries are relative to `code`.
    pub phases: Vec<PhaseCode>,
    /// Messages of its checks.
    pub traps: Vec<String>,
    /// Core ops that it computes, views included.
    pub ops: OpCounts,
}

/// How many ops ran in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpCounts {
    /// In generated kernels.
    pub generated: usize,
    /// By library calls.
    pub library: usize,
    /// On the host.
    pub host: usize,
    /// As views: no work, or absorbed into a kernel's index arithmetic.
    pub view: usize,
}

impl std::ops::AddAssign for OpCounts {
    fn add_assign(&mut self, other: OpCounts) {
        self.generated += other.generated;
        self.library += other.library;
        self.host += other.host;
        self.view += other.view;
    }
}

/// A function or region, ready to run.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// Its name; regions are named after their op.
    pub name: String,
    /// What a caller binds.
    pub inputs: Vec<Port>,
    /// What it gives.
    pub outputs: Vec<Port>,
    /// Its symbols; a run keeps one i64 for each.
    pub symbols: Vec<Symbol>,
    /// How input shapes bind symbols: (symbol index, input, axis).
    pub binds: Vec<Bind>,
    /// What must hold of input shapes.
    pub guards: Vec<Guard>,
    /// Extents that steps and slots use, over the symbols.
    pub dims: Vec<Dim>,
    /// Values.
    pub slots: Vec<Slot>,
    /// What to do, in order.
    pub steps: Vec<Step>,
    /// How its ops run, regions excluded.
    pub ops: OpCounts,
    /// Outputs that take over the memory of an input.
    pub states: Vec<State>,
}

/// State: a donated input and the output that follows it.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Index of the input.
    pub input: u32,
    /// Index of the output.
    pub output: u32,
    /// How the output comes to lie where the input lies.
    pub form: StateForm,
}

/// How state is updated.
#[derive(Clone, Debug, PartialEq)]
pub enum StateForm {
    /// A step writes the output over the input.
    InPlace {
        /// The slot of [`Place::State`] that holds the output.
        storage: SlotId,
    },
    /// The output is the input with more elements along an axis: only those are written, behind the others.
    Append {
        /// The slot of [`Place::State`]: the input's type with room for `capacity` elements along the axis.
        storage: SlotId,
        /// The axis.
        axis: u32,
        /// Index of the symbol of the capacity.
        capacity: u32,
        /// The extent of the output along the axis.
        len: DimId,
    },
    /// The output has memory of its own; who keeps the state copies it from there.
    Copied {
        /// Why.
        reason: String,
    },
}

/// An input or output.
#[derive(Clone, Debug)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its type over the program's symbols.
    pub ty: ValueType,
    /// The slot that holds it.
    pub slot: SlotId,
}

/// A symbol bound by an extent of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind {
    /// Index of the symbol.
    pub symbol: u32,
    /// Index of the input.
    pub input: u32,
    /// Axis of the input.
    pub axis: u32,
}

/// What must hold before any step runs, or as soon as the steps that bind its symbols have run.
#[derive(Clone, Debug, PartialEq)]
pub enum Guard {
    /// An input's extent equals an entry of the table.
    Extent {
        /// Index of the input.
        input: u32,
        /// Its axis.
        axis: u32,
        /// What it must be.
        dim: DimId,
    },
    /// An input equals a constant: the plan was specialised for it.
    Value {
        /// Index of the input.
        input: u32,
        /// What it must be.
        constant: ConstantId,
    },
    /// Two entries of the table stand in a relation.
    Relation {
        /// Which.
        relation: Relation,
        /// One.
        left: DimId,
        /// The other.
        right: DimId,
        /// Which extents they are.
        what: String,
        /// The op that needs it.
        origin: String,
    },
}

/// A value.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Its type.
    pub ty: ValueType,
    /// Its extents in the table (tensors).
    pub dims: Vec<DimId>,
    /// Where it lives.
    pub place: Place,
}

/// Where a value lives.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// The caller's memory.
    Input(u32),
    /// A constant of the plan.
    Constant(ConstantId),
    /// An output of the plan's preparation; a constant from then on.
    Prepared(u32),
    /// The arena, alive from step `first` to step `last`; outputs live to the end.
    Arena {
        /// The step that writes it.
        first: u32,
        /// The last step that reads it.
        last: u32,
    },
    /// Memory of its own, sized when a step has bound its extents.
    Late,
    /// The same bytes as another slot.
    Alias(SlotId),
    /// The memory of another slot, from the kernel on that reads that for the last time and writes this.
    Over(SlotId),
    /// The memory of a state, by its index: the caller's, or the run's own where the caller keeps no state.
    State(u32),
    /// The first bytes of another slot.
    Prefix(SlotId),
    /// A host value (sequence).
    Host,
}

/// One thing to do.
#[derive(Clone, Debug)]
pub enum Step {
    /// Runs a kernel.
    Kernel {
        /// Which.
        kernel: KernelId,
        /// Its argument buffers.
        arguments: Vec<SlotId>,
        /// Elements that it may touch of each; a shorter one is refused.
        lens: Vec<DimId>,
        /// Its dims.
        dims: Vec<DimId>,
        /// Outer iterations of each phase.
        phases: Vec<DimId>,
    },
    /// Calls the library.
    Library {
        /// What.
        call: LibraryCall,
        /// Operands.
        operands: Vec<SlotId>,
        /// Results.
        results: Vec<SlotId>,
        /// Where the op came from.
        origin: String,
    },
    /// Ascending indices of the true elements of a mask; binds a symbol to their number.
    Compact {
        /// `bool[n]`.
        mask: SlotId,
        /// `i64[count]`.
        result: SlotId,
        /// Index of the symbol.
        symbol: u32,
    },
    /// Runs one of two programs.
    If {
        /// `bool[]`.
        condition: SlotId,
        /// When true.
        then: ProgramId,
        /// When false.
        otherwise: ProgramId,
        /// Inputs of both.
        arguments: Vec<SlotId>,
        /// Results.
        results: Vec<SlotId>,
        /// Symbols of this program that extents of results bind (data-dependent branches): (symbol, result, axis).
        binds: Vec<Bind>,
        /// Where the op came from.
        origin: String,
    },
    /// Runs a program repeatedly (the core op `loop`).
    Loop {
        /// `i64[]`.
        trip: SlotId,
        /// `bool[]`.
        condition: SlotId,
        /// (i, condition, carried.., captured..) -> (condition, carried.., stacked..)
        body: ProgramId,
        /// Carried and captured values.
        arguments: Vec<SlotId>,
        /// How many of them are carried.
        carried: u32,
        /// Carried, then stacked results.
        results: Vec<SlotId>,
        /// Symbol bound to the number of trips, unless it was known.
        trips: Option<u32>,
        /// Where the op came from.
        origin: String,
    },
    /// Runs another program.
    Call {
        /// Which.
        program: ProgramId,
        /// Its inputs.
        arguments: Vec<SlotId>,
        /// Its outputs.
        results: Vec<SlotId>,
        /// Where the op came from.
        origin: String,
    },
    /// Fails with a message when an element of the condition is false.
    Assert {
        /// bool tensor.
        condition: SlotId,
        /// What went wrong.
        message: String,
        /// Where the op came from.
        origin: String,
    },
    /// A sequence op.
    Sequence {
        /// Which.
        op: SequenceOp,
        /// Operands.
        operands: Vec<SlotId>,
        /// The result.
        result: SlotId,
        /// Where the op came from.
        origin: String,
    },
    /// Copies a tensor (an input handed on as an output).
    Copy {
        /// From.
        from: SlotId,
        /// To.
        to: SlotId,
    },
}

/// Ops on host lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequenceOp {
    /// A list of the operands.
    Construct,
    /// An element.
    At,
    /// With a value inserted.
    Insert,
    /// Without an element.
    Erase,
    /// The number of elements.
    Length,
}

/// What a product does to a sum that is complete, each op rounded on its own: a bias, the larger of that and a lower
/// bound, the smaller of that and an upper one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Epilogue {
    /// A third operand, an element for each column, is added.
    pub bias: bool,
    /// The core op `max` with this.
    pub lower: Option<f64>,
    /// The core op `min` with this.
    pub upper: Option<f64>,
}

impl Epilogue {
    /// Whether the library has these bounds: no NaN, and no upper one of -0, which would only change a sign.
    pub fn is_sound(&self) -> bool {
        let zero = self.upper.is_some_and(|upper| upper == 0.0 && upper.is_sign_negative());
        !zero && self.lower.iter().chain(&self.upper).all(|bound| !bound.is_nan())
    }

    /// Its ops, by their words.
    pub fn ops(&self) -> impl Iterator<Item = &'static str> {
        let Epilogue { bias, lower, upper } = self;
        let ops = [(*bias, "add"), (lower.is_some(), "max"), (upper.is_some(), "min")];
        ops.into_iter().filter_map(|(is, word)| is.then_some(word))
    }
}

/// What the library is asked to do. Operands are dense and row-major unless strides say otherwise.
#[derive(Clone, Debug, PartialEq)]
pub enum LibraryCall {
    /// `out[b.., m, n] = sum over k of a[b.., m, k] b[b.., k, n]`, a and b of `dtype`, sums of `accumulate`; then what the
    /// epilogue says.
    MatMul {
        /// Batch extents.
        batch: Vec<DimId>,
        /// Rows.
        m: DimId,
        /// Columns.
        n: DimId,
        /// Summed.
        k: DimId,
        /// a is stored `[b.., k, m]`.
        lhs_transposed: bool,
        /// b is stored `[b.., n, k]`.
        rhs_transposed: bool,
        /// Elements from one matrix of a to the next, where they do not follow each other.
        lhs_pitch: Option<DimId>,
        /// Elements from one matrix of b to the next, where they do not follow each other.
        rhs_pitch: Option<DimId>,
        /// Element type of the operands.
        dtype: DType,
        /// Element type of sums and result.
        accumulate: DType,
        /// What is done to each element before it is stored.
        epilogue: Epilogue,
    },
    /// The core op `conv` (f32): x, w -> out.
    Conv {
        /// Step of each spatial axis.
        strides: Vec<usize>,
        /// Step inside the kernel.
        dilations: Vec<usize>,
        /// Padding before.
        low: Vec<usize>,
        /// Padding after.
        high: Vec<usize>,
        /// Groups.
        groups: usize,
    },
    /// The core op `conv_transpose` (f32): x, w -> out.
    ConvTranspose {
        /// Step of each spatial axis.
        strides: Vec<usize>,
        /// Step inside the kernel.
        dilations: Vec<usize>,
        /// Cropped before.
        low: Vec<usize>,
        /// Cropped after.
        high: Vec<usize>,
        /// Added after.
        output_padding: Vec<usize>,
        /// Groups.
        groups: usize,
    },
    /// The core op `sort`.
    Sort {
        /// The axis.
        axis: usize,
        /// Largest first.
        descending: bool,
    },
    /// The core op `concat` of many operands of one type, copied.
    Concat {
        /// Along which.
        axis: usize,
    },
}

impl LibraryCall {
    /// Its name in profiles.
    pub fn name(&self) -> &'static str {
        match self {
            LibraryCall::MatMul { epilogue: Epilogue { bias, lower, upper }, .. } => {
                match (bias, lower.is_some(), upper.is_some()) {
                    (false, false, false) => "matmul",
                    (false, true, false) => "matmul_max",
                    (false, false, true) => "matmul_min",
                    (false, true, true) => "matmul_max_min",
                    (true, false, false) => "matmul_add",
                    (true, true, false) => "matmul_add_max",
                    (true, false, true) => "matmul_add_min",
                    (true, true, true) => "matmul_add_max_min",
                }
            }
            LibraryCall::Conv { .. } => "conv",
            LibraryCall::ConvTranspose { .. } => "conv_transpose",
            LibraryCall::Sort { .. } => "sort",
            LibraryCall::Concat { .. } => "concat",
        }
    }

    /// The extents that it names.
    pub fn dims_mut(&mut self) -> Vec<&mut DimId> {
        match self {
            LibraryCall::MatMul { batch, m, n, k, lhs_pitch, rhs_pitch, .. } => {
                batch.iter_mut().chain([m, n, k]).chain(lhs_pitch).chain(rhs_pitch).collect()
            }
            LibraryCall::Conv { .. }
            | LibraryCall::ConvTranspose { .. }
            | LibraryCall::Sort { .. }
            | LibraryCall::Concat { .. } => Vec::new(),
        }
    }
}

impl fmt::Display for OpCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OpCounts { generated, library, host, view } = self;
        write!(f, "{generated} generated, {library} library, {host} host, {view} view")
    }
}

impl Program {
    /// Evaluates the table of extents; `None` when a symbol of an entry is not bound yet.
    pub fn evaluate(&self, symbols: &[Option<i64>], out: &mut Vec<Option<i64>>) {
        let lookup =
            |s: &Symbol| self.symbols.iter().position(|x| x == s).and_then(|i| symbols.get(i).copied().flatten());
        out.clear();
        out.extend(self.dims.iter().map(|d| d.eval(&lookup)));
    }

    /// The slot whose memory a slot is, following aliases and what lies over another slot.
    pub fn root(&self, slot: SlotId) -> SlotId {
        let mut at = slot;
        while let Some(Slot { place: Place::Alias(of) | Place::Over(of), .. }) = self.slots.get(at.index()) {
            at = *of;
        }
        at
    }

    /// The slot whose value a slot is, following aliases alone.
    pub fn value(&self, slot: SlotId) -> SlotId {
        let mut at = slot;
        while let Some(Slot { place: Place::Alias(of), .. }) = self.slots.get(at.index()) {
            at = *of;
        }
        at
    }
}
