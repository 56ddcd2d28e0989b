//! Module to plan: which ops become kernels, which the library computes, where values live.
//!
//! In: a module of core ops (fused or not). Out: a [`Plan`]. Ops are visited in dependency order; each becomes steps:
//! a fusion or a lone elementwise, movement or reduction op a kernel; a product, convolution or sort that the library
//! knows a call; control and host ops steps of their own. A reshape is the same bytes under another shape. A fusion that
//! can't be lowered is compiled op by op, with a remark: what verifies, compiles or says why not.

use std::collections::{HashMap, HashSet};

use frit_ir::{
    DType, Dim, Function, Module, Node, NodeId, Numerics, Op, OpClass, Origin, Relation, Symbol, Tensor, Value,
    ValueType,
};

use super::{
    Constant, ConstantId, DimId, KernelId, OpCounts, Place, Plan, PlanKernel, Port, Program, ProgramId, SequenceOp,
    Slot, SlotId, Step,
};
use crate::cpu::abi::KernelCode;
use crate::kernel::Kernel;
use crate::lower::{Argument, LowerError, Lowered, lower, lower_apart};
use crate::schedule::Schedule;

mod append;
mod epilogue;
mod guards;
mod inplace;
mod library;
mod lives;
mod over;
mod overwrite;
mod prepare;
mod programs;
mod symbols;

use append::Appends;
use epilogue::Epilogues;
use lives::lives;
pub(super) use over::same_bytes;
use prepare::Preparation;
use symbols::{bind_symbols, bound_by, check_symbols, late_symbols, result_binds};

/// Why a module can't become a plan.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A kernel can't be written.
    #[error(transparent)]
    Lower(#[from] LowerError),
    /// A kernel can't be compiled.
    #[error("kernel `{kernel}` ({origin}): {message}")]
    Code {
        /// Its name.
        kernel: String,
        /// Origin of its ops.
        origin: String,
        /// What the code generator said.
        message: String,
    },
    /// An op that this compiler does not run.
    #[error("`{op}` ({origin}): {message}")]
    Unsupported {
        /// Its word.
        op: String,
        /// Where it came from.
        origin: String,
        /// What is missing.
        message: String,
    },
    /// A symbol that no input shows.
    #[error("function `{function}`: extent `{symbol}` is not the extent of any input; give it with --dim {symbol}=N")]
    Unbound {
        /// The function.
        function: String,
        /// The symbol.
        symbol: String,
    },
    /// A bug of an earlier stage.
    #[error("internal: {0}")]
    Internal(String),
}

impl BuildError {
    /// Whether it is a bug of frit, not of the model.
    pub fn is_internal(&self) -> bool {
        match self {
            BuildError::Internal(_) | BuildError::Lower(LowerError::Internal(_)) => true,
            // Kernels come from here: one that breaks the rules of the loop IR is nobody else's fault.
            BuildError::Code { message, .. } => message.starts_with("internal") || message.contains(" is not valid: "),
            BuildError::Lower(_) | BuildError::Unsupported { .. } | BuildError::Unbound { .. } => false,
        }
    }
}

/// Turns a kernel into machine code. The code generator is handed in, so that plans can be built, dumped and tested
/// without one.
pub type Generate<'g> = dyn FnMut(&Kernel, &Schedule) -> Result<KernelCode, String> + 'g;

/// [`Generate`] for all kernels of a plan at once, in order: it may work on several threads.
pub type GenerateAll<'g> = dyn FnMut(&[KernelSource]) -> Vec<Result<KernelCode, String>> + 'g;

/// A kernel with its source, for dumps.
#[derive(Clone, Debug)]
pub struct KernelSource {
    /// Loop IR, as lowered.
    pub kernel: Kernel,
    /// How its loops run.
    pub schedule: Schedule,
    /// Origins of its ops.
    pub origin: String,
    /// Its ops but sources, each of them.
    pub parts: Vec<Part>,
}

/// An op of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its word.
    pub op: &'static str,
    /// Where it came from.
    pub origin: String,
}

/// The ops of a kernel.
#[derive(Default)]
pub(super) struct Contents {
    counts: OpCounts,
    parts: Vec<Part>,
}

impl From<OpCounts> for Contents {
    fn from(counts: OpCounts) -> Self {
        Contents { counts, parts: Vec::new() }
    }
}

/// A plan and what it was made from.
#[derive(Debug, Default)]
pub struct Built {
    /// The plan.
    pub plan: Plan,
    /// One entry a kernel.
    pub kernels: Vec<KernelSource>,
    /// What could not be done, and why.
    pub remarks: Vec<String>,
}

/// Builds the plan of a module, kernel by kernel. `fixed` are the inputs that the module was specialised for, by name.
pub fn build(
    module: &Module,
    numerics: Numerics,
    fixed: &[(String, Tensor)],
    generate: &mut Generate<'_>,
) -> Result<Built, BuildError> {
    let mut all = |kernels: &[KernelSource]| kernels.iter().map(|k| generate(&k.kernel, &k.schedule)).collect();
    build_all(module, numerics, fixed, &mut all)
}

/// [`build`], with all kernels compiled together at the end.
pub fn build_all(
    module: &Module,
    numerics: Numerics,
    fixed: &[(String, Tensor)],
    generate: &mut GenerateAll<'_>,
) -> Result<Built, BuildError> {
    let mut built = programs::programs(module, numerics, fixed)?;
    place(&mut built, generate)?;
    Ok(built)
}

/// Compiles every kernel and lays the code out.
fn place(built: &mut Built, generate: &mut GenerateAll<'_>) -> Result<(), BuildError> {
    let codes = generate(&built.kernels);
    if codes.len() != built.kernels.len() {
        return Err(BuildError::Internal(format!("{} kernels, code for {}", built.kernels.len(), codes.len())));
    }
    let plan = &mut built.plan;
    for ((code, source), kernel) in codes.into_iter().zip(&built.kernels).zip(&mut plan.kernels) {
        let code = code.map_err(|message| BuildError::Code {
            kernel: source.kernel.name.clone(),
            origin: source.origin.clone(),
            message,
        })?;
        plan.code.resize(plan.code.len().next_multiple_of(64), 0);
        kernel.code = plan.code.len();
        kernel.phases = code.phases;
        plan.code.extend(code.bytes);
    }
    Ok(())
}

struct PlanBuilder<'m> {
    module: &'m Module,
    numerics: Numerics,
    /// Names of inputs that the module was specialised for.
    fixed: HashSet<String>,
    built: Built,
    params: HashMap<String, ConstantId>,
    functions: HashMap<String, Option<ProgramId>>,
    preparation: Preparation,
    /// Whether a fusion was taken apart: its ops are kernels of their own.
    apart: bool,
}

/// A program in the making.
pub(super) struct Building {
    program: Program,
    dims: HashMap<Dim, DimId>,
    /// Relations that have a guard.
    required: HashSet<(Relation, DimId, DimId)>,
    /// Symbols that steps bind.
    late: Vec<Symbol>,
    /// Values that grow in place.
    appends: Appends,
    /// Products of the function at hand that wait for what follows them.
    epilogues: Epilogues,
    /// How many bodies are being written out around the op at hand.
    depth: usize,
}

/// Slots of the values of one function or region.
type Slots = HashMap<Value, SlotId>;

impl Building {
    fn new(name: &str, late: Vec<Symbol>) -> Building {
        Building {
            program: Program { name: name.to_owned(), ..Program::default() },
            dims: HashMap::new(),
            required: HashSet::new(),
            late,
            appends: Appends::default(),
            epilogues: Epilogues::default(),
            depth: 0,
        }
    }

    pub(super) fn dim(&mut self, dim: &Dim) -> DimId {
        if let Some(id) = self.dims.get(dim) {
            return *id;
        }
        let id = DimId(self.program.dims.len() as u32);
        self.program.dims.push(dim.clone());
        self.dims.insert(dim.clone(), id);
        dim.visit_symbols(&mut |s| {
            self.symbol(s);
        });
        id
    }

    fn symbol(&mut self, symbol: &Symbol) -> u32 {
        match self.program.symbols.iter().position(|s| s == symbol) {
            Some(i) => i as u32,
            None => {
                self.program.symbols.push(symbol.clone());
                self.program.symbols.len() as u32 - 1
            }
        }
    }

    fn is_late(&self, dims: &[Dim]) -> bool {
        let mut late = false;
        dims.iter().for_each(|d| d.visit_symbols(&mut |s| late |= self.late.contains(s)));
        late
    }

    /// A new value of a type, in memory that a step writes.
    pub(super) fn slot(&mut self, ty: &ValueType) -> SlotId {
        let place = match ty {
            ValueType::Tensor(t) if t.dtype == DType::Str => Place::Host,
            ValueType::Tensor(t) if self.is_late(&t.dims) => Place::Late,
            ValueType::Tensor(_) => Place::Arena { first: u32::MAX, last: 0 },
            _ => Place::Host,
        };
        self.slot_at(ty, place)
    }

    fn slot_at(&mut self, ty: &ValueType, place: Place) -> SlotId {
        let dims = ty.tensor().map(|t| t.dims.iter().map(|d| self.dim(d)).collect()).unwrap_or_default();
        self.program.slots.push(Slot { ty: ty.clone(), dims, place });
        SlotId(self.program.slots.len() as u32 - 1)
    }

    pub(super) fn push(&mut self, step: Step) {
        self.program.steps.push(step);
    }
}

fn unsupported(node: &Node, message: impl Into<String>) -> BuildError {
    BuildError::Unsupported { op: node.op.name().to_owned(), origin: node.origin.to_string(), message: message.into() }
}

impl PlanBuilder<'_> {
    fn constant(&mut self, name: &str, value: &Tensor) -> ConstantId {
        self.built.plan.constants.push(Constant { name: name.to_owned(), value: value.clone() });
        ConstantId(self.built.plan.constants.len() as u32 - 1)
    }

    fn param(&mut self, name: &str) -> Result<ConstantId, BuildError> {
        if let Some(id) = self.params.get(name) {
            return Ok(*id);
        }
        let Some(param) = self.module.params.get(name) else {
            return Err(BuildError::Internal(format!("parameter `{name}` is not in the store")));
        };
        let id = self.constant(name, &param.value.clone());
        self.params.insert(name.to_owned(), id);
        Ok(id)
    }

    fn function(&mut self, name: &str, function: &Function) -> Result<ProgramId, BuildError> {
        match self.functions.get(name) {
            Some(Some(id)) => return Ok(*id),
            Some(None) => return Err(BuildError::Internal(format!("function `{name}` calls itself"))),
            None => {}
        }
        self.functions.insert(name.to_owned(), None);
        let id = self.program(name, function, false)?;
        self.functions.insert(name.to_owned(), Some(id));
        Ok(id)
    }

    /// A function or region as a program. With `donate`, donated inputs are updated where they lie.
    fn program(&mut self, name: &str, function: &Function, donate: bool) -> Result<ProgramId, BuildError> {
        let mut b = Building::new(name, late_symbols(function));
        let mut slots = Slots::new();
        for (i, value) in function.input_values().enumerate() {
            let ty = function.ty(value);
            // Strings and sequences live on the host, a caller's too.
            let in_memory = ty.tensor().is_some_and(|t| t.dtype != DType::Str);
            let slot = b.slot_at(ty, if in_memory { Place::Input(i as u32) } else { Place::Host });
            slots.insert(value, slot);
            let name = match function.op(value) {
                Op::Input { name, .. } => name.clone(),
                _ => format!("in{i}"),
            };
            b.program.inputs.push(Port { name, ty: ty.clone(), slot });
        }
        bind_symbols(&mut b, function);
        let donations = if donate { function.donations.as_slice() } else { &[] };
        b.require_all(function);
        let refused = self.appends(&mut b, function, donations)?;
        self.steps(&mut b, function, &mut slots)?;
        for (i, output) in function.outputs().iter().enumerate() {
            let slot = match b.appends.makes(i) {
                true => self.read_any(&mut b, function, &slots, output.value)?,
                false => {
                    let slot = self.read(&mut b, function, &slots, output.value)?;
                    own_memory(&mut b, slot)
                }
            };
            b.program.outputs.push(Port { name: output.name.clone(), ty: function.ty(output.value).clone(), slot });
        }
        self.states(&mut b, donations, refused)?;
        self.prepare(&mut b);
        over::take_over(&mut b.program, &self.built.kernels);
        lives(&mut b.program, &self.built.kernels);
        check_symbols(&b, name)?;
        self.built.plan.programs.push(b.program);
        Ok(ProgramId(self.built.plan.programs.len() as u32 - 1))
    }

    /// What [`PlanBuilder::steps`] adds, in order. An op that only mentions a data-dependent
    /// extent waits for the op that finds it, though no value joins them.
    fn steps_in_order(&mut self, b: &mut Building, function: &Function, slots: &mut Slots) -> Result<(), BuildError> {
        let mut waiting = function.toposort().ok_or_else(|| BuildError::Internal("a cycle".to_owned()))?;
        let mut unbound = late_symbols(function);
        if unbound.is_empty() {
            return waiting.into_iter().try_for_each(|id| self.node(b, function, slots, id));
        }
        let mut done: HashSet<NodeId> = HashSet::new();
        while !waiting.is_empty() {
            let mut later = Vec::new();
            let before = waiting.len();
            for id in waiting {
                let node = function.node(id);
                let own = bound_by(node);
                let mut mentions = false;
                for dim in node.results().iter().filter_map(ValueType::tensor).flat_map(|t| &t.dims) {
                    dim.visit_symbols(&mut |s| mentions |= unbound.contains(s) && !own.contains(s));
                }
                if let Op::DimValue { value } = &node.op {
                    value.visit_symbols(&mut |s| mentions |= unbound.contains(s));
                }
                if mentions || !node.operands().iter().all(|v| done.contains(&v.node)) {
                    later.push(id);
                    continue;
                }
                self.node(b, function, slots, id)?;
                unbound.retain(|s| !own.contains(s));
                done.insert(id);
            }
            if later.len() == before {
                let symbol = unbound.first().map(|s| s.name().to_owned()).unwrap_or_default();
                return Err(BuildError::Unbound { function: function.name.clone(), symbol });
            }
            waiting = later;
        }
        Ok(())
    }

    /// The slot of a value, dense.
    fn read(
        &mut self,
        b: &mut Building,
        function: &Function,
        slots: &Slots,
        value: Value,
    ) -> Result<SlotId, BuildError> {
        let slot = self.read_any(b, function, slots, value)?;
        self.dense(b, slot)
    }

    /// The slot of a value, dense or pitched; constants and parameters get theirs at their first use.
    fn read_any(
        &mut self,
        b: &mut Building,
        function: &Function,
        slots: &Slots,
        value: Value,
    ) -> Result<SlotId, BuildError> {
        if let Some(slot) = slots.get(&value) {
            return Ok(*slot);
        }
        let constant = match function.op(value) {
            Op::Constant { value } => self.constant("", value),
            Op::Param { name, .. } => self.param(name)?,
            other => return Err(BuildError::Internal(format!("a `{}` is used before it is made", other.name()))),
        };
        Ok(b.slot_at(function.ty(value), Place::Constant(constant)))
    }

    fn read_all(
        &mut self,
        b: &mut Building,
        function: &Function,
        slots: &Slots,
        values: &[Value],
    ) -> Result<Vec<SlotId>, BuildError> {
        values.iter().map(|v| self.read(b, function, slots, *v)).collect()
    }

    /// Slots of operands that a kernel reads where they lie, whatever their pitch.
    fn read_all_any(
        &mut self,
        b: &mut Building,
        function: &Function,
        slots: &Slots,
        values: &[Value],
    ) -> Result<Vec<SlotId>, BuildError> {
        values.iter().map(|v| self.read_any(b, function, slots, *v)).collect()
    }

    fn new_results(&mut self, b: &mut Building, node: &Node, id: NodeId, slots: &mut Slots) -> Vec<SlotId> {
        let results: Vec<SlotId> = node.results().iter().map(|ty| b.slot(ty)).collect();
        for (result, slot) in results.iter().enumerate() {
            slots.insert(Value { node: id, result }, *slot);
        }
        results
    }

    fn node(&mut self, b: &mut Building, f: &Function, slots: &mut Slots, id: NodeId) -> Result<(), BuildError> {
        let node = f.node(id);
        let origin = node.origin.to_string();
        b.require_needs(f, id);
        if b.depth == 0 && self.append(b, f, slots, id)? {
            return Ok(());
        }
        match &node.op {
            Op::Input { .. } | Op::Constant { .. } | Op::Param { .. } | Op::Absent {} => Ok(()),
            Op::Reshape { .. } => {
                let operand = node.operands()[0];
                let of = self.read_any(b, f, slots, operand)?;
                let ty = &node.results()[0];
                let slot = match b.reshaped(of, ty) {
                    Some(slot) => slot,
                    None => {
                        let of = self.dense(b, of)?;
                        b.slot_at(ty, Place::Alias(of))
                    }
                };
                slots.insert(Value { node: id, result: 0 }, slot);
                b.program.ops.view += 1;
                Ok(())
            }
            Op::Fusion {} => {
                let region = &node.regions()[0];
                if let Some(following) = b.epilogues.of_fusion(id).cloned() {
                    b.require_body(region);
                    return self.product_with(b, f, slots, id, &following);
                }
                let mut operands = self.read_all_any(b, f, slots, node.operands())?;
                let body = b.in_place_reads(region, &mut operands)?;
                match lower_apart(&body, &kernel_name(region), self.numerics) {
                    Ok(parts) => {
                        let results = self.new_results(b, node, id, slots);
                        b.require_body(region);
                        let mut ops = count_ops(region);
                        for (lowered, outputs) in parts {
                            let results: Vec<SlotId> = outputs.iter().map(|&i| results[i]).collect();
                            self.kernel(b, lowered, &operands, &results, std::mem::take(&mut ops), &node.origin)?;
                        }
                        Ok(())
                    }
                    Err(error) => {
                        self.apart = true;
                        self.built.remarks.push(format!("fusion ({origin}) is compiled op by op: {error}"));
                        self.written_out(b, f, slots, id)
                    }
                }
            }
            Op::Composite { .. } => self.written_out(b, f, slots, id),
            Op::If {} => {
                let operands = self.read_all(b, f, slots, node.operands())?;
                let then = self.program(&format!("{}.then", b.program.name), &node.regions()[0], false)?;
                let otherwise = self.program(&format!("{}.else", b.program.name), &node.regions()[1], false)?;
                let results = self.new_results(b, node, id, slots);
                let binds = result_binds(b, node);
                let (condition, arguments) = (operands[0], operands[1..].to_vec());
                b.push(Step::If { condition, then, otherwise, arguments, results, binds, origin });
                b.program.ops.host += 1;
                Ok(())
            }
            Op::Loop { carried, trips } => {
                let operands = self.read_all(b, f, slots, node.operands())?;
                let body = self.program(&format!("{}.loop", b.program.name), &node.regions()[0], false)?;
                let results = self.new_results(b, node, id, slots);
                let trips = trips.as_symbol().map(|s| b.symbol(s));
                let carried = *carried as u32;
                let (trip, condition, arguments) = (operands[0], operands[1], operands[2..].to_vec());
                b.push(Step::Loop { trip, condition, body, arguments, carried, results, trips, origin });
                b.program.ops.host += 1;
                Ok(())
            }
            Op::Call { function } => {
                let Some(callee) = self.module.functions.get(function) else {
                    return Err(BuildError::Internal(format!("function `{function}` is not in the module")));
                };
                let arguments = self.read_all(b, f, slots, node.operands())?;
                let program = self.function(function, callee)?;
                let results = self.new_results(b, node, id, slots);
                b.push(Step::Call { program, arguments, results, origin });
                b.program.ops.host += 1;
                Ok(())
            }
            Op::Assert { message } => {
                let operands = self.read_all(b, f, slots, node.operands())?;
                let (condition, message) = (operands[1], message.clone());
                b.push(Step::Assert { condition, message, origin });
                let slot = b.slot_at(&node.results()[0], Place::Alias(operands[0]));
                slots.insert(Value { node: id, result: 0 }, slot);
                b.program.ops.host += 1;
                Ok(())
            }
            Op::Compact { count } => {
                let mask = self.read(b, f, slots, node.operands()[0])?;
                let results = self.new_results(b, node, id, slots);
                let symbol = b.symbol(count);
                b.push(Step::Compact { mask, result: results[0], symbol });
                b.program.ops.library += 1;
                Ok(())
            }
            Op::SequenceConstruct { .. } => self.sequence(b, f, slots, id, SequenceOp::Construct),
            Op::SequenceAt {} => self.sequence(b, f, slots, id, SequenceOp::At),
            Op::SequenceInsert {} => self.sequence(b, f, slots, id, SequenceOp::Insert),
            Op::SequenceErase {} => self.sequence(b, f, slots, id, SequenceOp::Erase),
            Op::SequenceLength {} => self.sequence(b, f, slots, id, SequenceOp::Length),
            Op::DotGeneral { .. } if b.epilogues.waits(id) => Ok(()),
            Op::DotGeneral { .. }
            | Op::Conv { .. }
            | Op::ConvTranspose { .. }
            | Op::Sort { .. }
            | Op::Concat { .. } => {
                if self.library(b, f, slots, id)? {
                    Ok(())
                } else {
                    self.lone(b, f, slots, id)
                }
            }
            Op::Vjp { .. } => Err(unsupported(node, "`grad` has not written it out")),
            Op::Onnx { op_type, .. } => Err(unsupported(node, format!("ONNX op {op_type} was not legalized"))),
            Op::Unary(_)
            | Op::Binary(_)
            | Op::Select { .. }
            | Op::Cast { .. }
            | Op::Bitcast { .. }
            | Op::Iota { .. }
            | Op::DimValue { .. }
            | Op::Broadcast { .. }
            | Op::Transpose { .. }
            | Op::Slice { .. }
            | Op::DynamicSlice { .. }
            | Op::UpdateSlice {}
            | Op::Pad { .. }
            | Op::Gather { .. }
            | Op::Scatter { .. }
            | Op::Window { .. }
            | Op::Reduce { .. }
            | Op::Cumulate { .. } => self.lone(b, f, slots, id),
        }
    }

    /// The ops of a region as ops of the program itself.
    fn written_out(&mut self, b: &mut Building, f: &Function, slots: &mut Slots, id: NodeId) -> Result<(), BuildError> {
        let node = f.node(id);
        let region = &node.regions()[0];
        let operands = self.read_all_any(b, f, slots, node.operands())?;
        b.require_all(region);
        let mut inner: Slots = region.input_values().zip(operands).collect();
        b.depth += 1;
        let done = self.steps(b, region, &mut inner);
        b.depth -= 1;
        done?;
        for (result, output) in region.outputs().iter().enumerate() {
            let slot = self.read_any(b, region, &inner, output.value)?;
            slots.insert(Value { node: id, result }, slot);
        }
        Ok(())
    }

    fn sequence(
        &mut self,
        b: &mut Building,
        f: &Function,
        slots: &mut Slots,
        id: NodeId,
        op: SequenceOp,
    ) -> Result<(), BuildError> {
        let node = f.node(id);
        let operands = self.read_all(b, f, slots, node.operands())?;
        let results = self.new_results(b, node, id, slots);
        b.push(Step::Sequence { op, operands, result: results[0], origin: node.origin.to_string() });
        b.program.ops.host += 1;
        Ok(())
    }

    /// One op as a kernel of its own.
    fn lone(&mut self, b: &mut Building, f: &Function, slots: &mut Slots, id: NodeId) -> Result<(), BuildError> {
        let node = f.node(id);
        let (body, outside) = lone_body(f, node)?;
        let mut operands = self.read_all_any(b, f, slots, &outside)?;
        let ops = count_ops(&body);
        let body = b.in_place_reads(&body, &mut operands)?;
        let lowered = lower(&body, node.op.name(), self.numerics)?;
        let results = self.new_results(b, node, id, slots);
        self.kernel(b, lowered, &operands, &results, ops, &node.origin)
    }

    /// Compiles a kernel and adds the step that runs it.
    pub(super) fn kernel(
        &mut self,
        b: &mut Building,
        lowered: Lowered,
        operands: &[SlotId],
        results: &[SlotId],
        contents: impl Into<Contents>,
        origin: &Origin,
    ) -> Result<(), BuildError> {
        let Contents { counts: ops, parts } = contents.into();
        let Lowered { kernel, schedule, arguments, .. } = lowered;
        let mut slots = Vec::with_capacity(arguments.len());
        for argument in &arguments {
            slots.push(match argument {
                Argument::Input(i) => operands[*i],
                Argument::Output(i) => results[*i],
                Argument::Param(name) => {
                    let id = self.param(name)?;
                    let ty = self.built.plan.constants[id.index()].value.ty();
                    b.slot_at(&ty.into(), Place::Constant(id))
                }
                Argument::Table(tensor) => {
                    let id = self.constant("", tensor);
                    b.slot_at(&tensor.ty().into(), Place::Constant(id))
                }
                Argument::Temp(dtype, len) => b.slot(&frit_ir::TensorType::new(*dtype, vec![len.clone()]).into()),
            });
        }
        let dims: Vec<DimId> = kernel.dims.iter().map(|d| b.dim(&d.value)).collect();
        let value_of = |s: &Symbol| kernel.dims.iter().find(|d| d.symbol == *s).map(|d| d.value.clone());
        let phases = kernel.phases.iter().map(|p| b.dim(&p.extent.substitute(&value_of))).collect();
        let lens = kernel.arguments().map(|(_, buffer)| b.dim(&buffer.len.substitute(&value_of))).collect();
        let origin = origin.to_string();
        let plan = &mut self.built.plan;
        plan.kernels.push(PlanKernel {
            name: kernel.name.clone(),
            origin: origin.clone(),
            code: 0,
            phases: Vec::new(),
            traps: kernel.traps.clone(),
            ops,
        });
        let id = KernelId(plan.kernels.len() as u32 - 1);
        self.built.kernels.push(KernelSource { kernel, schedule, origin, parts });
        b.program.ops += ops;
        b.push(Step::Kernel { kernel: id, arguments: slots, lens, dims, phases });
        Ok(())
    }
}

/// A function that holds one op; constants of one element come along, other operands are inputs.
fn lone_body(f: &Function, node: &Node) -> Result<(Function, Vec<Value>), BuildError> {
    let mut body = Function::new("");
    let mut outside: Vec<Value> = Vec::new();
    let mut inner: HashMap<Value, Value> = HashMap::new();
    for &operand in node.operands() {
        if inner.contains_key(&operand) {
            continue;
        }
        let value = match f.op(operand) {
            op @ Op::Constant { value } if value.numel() == 1 => {
                let made = body.add_op(op.clone(), &[], Vec::new(), &f.node(operand.node).origin);
                let node = made.map_err(|e| BuildError::Internal(e.to_string()))?;
                Value { node, result: 0 }
            }
            _ => {
                let input = body.add_input(&format!("in{}", outside.len()), f.ty(operand).clone());
                outside.push(operand);
                input
            }
        };
        inner.insert(operand, value);
    }
    let operands: Vec<Value> = node.operands().iter().map(|v| inner[v]).collect();
    let copy = body.add_copy(node, &operands);
    for result in 0..node.results().len() {
        body.add_output(&format!("out{result}"), Value { node: copy, result });
    }
    Ok((body, outside))
}

fn kernel_name(body: &Function) -> String {
    let mut words: Vec<&str> = Vec::new();
    for id in body.toposort().unwrap_or_default() {
        let op = &body.node(id).op;
        let shown = match op {
            Op::Reduce { kind, .. } => kind.name(),
            _ if matches!(op.class(), OpClass::Elementwise | OpClass::Contraction) => op.name(),
            _ => continue,
        };
        if words.last() != Some(&shown) {
            words.push(shown);
        }
    }
    words.truncate(6);
    if words.is_empty() { "move".to_owned() } else { words.join("_") }
}

fn count_ops(body: &Function) -> Contents {
    let (mut counts, mut parts) = (OpCounts::default(), Vec::new());
    for id in body.nodes() {
        let node = body.node(id);
        if node.op.class() != OpClass::Source {
            parts.push(Part { op: node.op.name(), origin: node.origin.to_string() });
        }
        match node.op.class() {
            OpClass::Source | OpClass::Foreign | OpClass::Control | OpClass::Host => {}
            OpClass::Movement if body.len() > 2 => counts.view += 1,
            OpClass::Movement | OpClass::Elementwise | OpClass::Reduction | OpClass::Contraction => {
                counts.generated += 1;
            }
        }
    }
    Contents { counts, parts }
}

/// An output must have memory of its own: a copy where it would be an input's, a constant's or a state's.
fn own_memory(b: &mut Building, slot: SlotId) -> SlotId {
    let root = b.program.root(slot);
    match b.program.slots[root.index()].place {
        Place::Input(_) | Place::Constant(_) | Place::Prepared(_) | Place::State(_) | Place::Prefix(_) => {
            let ty = b.program.slots[slot.index()].ty.clone();
            let copy = b.slot(&ty);
            b.push(Step::Copy { from: slot, to: copy });
            copy
        }
        Place::Arena { .. } | Place::Late | Place::Alias(_) | Place::Over(_) | Place::Host => slot,
    }
}
