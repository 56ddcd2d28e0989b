//! What each core op means, as plain loops.
//!
//! In: a function (or one op) and its inputs. Out: its results, or an [`EvalError`] that names the op, where it came
//! from and the operand. Constant folding of small tensors and every test lean on this; it never runs a user's model,
//! so it is written to be read: floats of every type are held as f64, integers as i128, an op computes there and
//! rounds or wraps to its type.
//!
//! What holds for all ops (the table in [`crate::op`] gives the rest):
//! - Every op rounds to its type once. Results of f32 are f64 results rounded to f32: exact for + - * / sqrt, and
//!   within 0.5 ulp and a hair for elementary functions. f16 and bf16 compute in f32: the f32 result is rounded again.
//! - Integers wrap. Division and remainder by 0 give 0; i32::MIN / -1 wraps.
//! - Sums and products follow [`crate::order`]. f16 and bf16 accumulate in f32 and round once at the end, in `reduce`
//!   and in `cumulate` (which runs in plain order). `dot_general` and convolutions sum floats in f64 and round once:
//!   compiled code is compared with them within bounds, not bit for bit. Integers are exact modulo their width.
//! - `min` and `max`, as ops and as reductions: NaN wins, and -0 is below +0, so no order of operands matters. Over
//!   nothing they give the type's largest or smallest value (floats: an infinity).
//! - `argmin`, `argmax`: the first among equals (-0 equals +0); the first NaN wins over all numbers.
//! - `sort` is stable; NaN is the largest, -0 equals +0.
//! - NaN has one payload.
//!
//! With [`Options::wide`] every float is computed and kept in f64 and results of f32, f16 and bf16 come out as f64: the
//! yardstick that error bounds are measured against. Casts to those types keep the value there; casts to the 8- and
//! 4-bit floats still round, being quantisation that the program asks for, and `bitcast` rounds first.
//!
//! Files: `number` (rounding, wrapping, erf), `array` (tensors at work), `extents` (symbols), then a file per op
//! family: `elementwise`, `cast`, `movement`, `indexed`, `reduce`, `contract`, `control`, `sequence`; `bound` runs error
//! bounds beside the wide evaluation.

mod array;
mod bound;
mod cast;
mod contract;
mod control;
mod elementwise;
mod error;
mod extents;
mod indexed;
mod item;
mod movement;
mod number;
mod reduce;
mod sequence;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;

use array::Array;
pub use bound::{Bounded, error_bound};
pub use error::{At, EvalError};
pub use extents::Symbols;
use item::Item;
use number::Rounding;
pub use number::{elementary, erf};

use crate::graph::{Function, NodeId, Value};
use crate::module::Module;
use crate::op::infer::infer;
use crate::op::{Op, OpClass};
use crate::origin::Origin;
use crate::types::{DType, Dim, ValueType};
use crate::value::HostValue;

/// How to evaluate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Keep every float in f64.
    pub wide: bool,
    /// Most elements that one result may have.
    pub limit_elements: usize,
    /// Most scalar steps in all.
    pub limit_steps: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options { wide: false, limit_elements: 1 << 26, limit_steps: 1 << 36 }
    }
}

impl Options {
    /// The yardstick of error bounds.
    pub fn wide() -> Self {
        Options { wide: true, ..Options::default() }
    }
}

/// Calls inside calls; deeper is refused, so that a function that calls itself ends.
const MAX_DEPTH: usize = 64;

/// The results of a function of `module`.
pub fn eval_function(
    module: &Module,
    function: &Function,
    inputs: &[HostValue],
    options: Options,
) -> Result<Vec<HostValue>, EvalError> {
    Evaluator::new(module, options).function(function, inputs)
}

/// The results of one op. `symbols` binds the extents in its attributes, `results` are its declared types (they may
/// name fresh symbols; what they state is checked). Ops that need a module (`param`, `call`) are refused.
pub fn eval_op(
    op: &Op,
    origin: &Origin,
    operands: &[HostValue],
    results: &[ValueType],
    regions: &[Function],
    symbols: &Symbols,
    options: Options,
) -> Result<Vec<HostValue>, EvalError> {
    Evaluator::new(&Module::default(), options).op(op, origin, operands, results, regions, symbols)
}

/// Evaluates functions of one module.
pub struct Evaluator<'m> {
    module: &'m Module,
    options: Options,
    steps: Cell<u64>,
    depth: Cell<usize>,
}

impl<'m> Evaluator<'m> {
    /// An evaluator; its limit of steps counts over everything it is asked to do.
    pub fn new(module: &'m Module, options: Options) -> Self {
        Evaluator { module, options, steps: Cell::new(0), depth: Cell::new(0) }
    }

    /// The results of a function, in the order of its outputs.
    pub fn function(&self, function: &Function, inputs: &[HostValue]) -> Result<Vec<HostValue>, EvalError> {
        let items = self.accept(function, inputs)?;
        let outputs = self.run(function, items, Symbols::new())?;
        outputs.into_iter().map(|o| o.into_host(self.options.wide)).collect()
    }

    /// [`eval_op`] in this evaluator's module.
    pub fn op(
        &self,
        op: &Op,
        origin: &Origin,
        operands: &[HostValue],
        results: &[ValueType],
        regions: &[Function],
        symbols: &Symbols,
    ) -> Result<Vec<HostValue>, EvalError> {
        let operands: Vec<Item> = operands.iter().map(Item::from_host).collect();
        let mut symbols = symbols.clone();
        let outputs = self.step(op, origin, &operands, results, regions, &mut symbols)?;
        outputs.into_iter().map(|o| o.into_host(self.options.wide)).collect()
    }

    /// Inputs as the function declares them: in wide mode an f64 tensor stands for any float type.
    fn accept(&self, function: &Function, inputs: &[HostValue]) -> Result<Vec<Item>, EvalError> {
        let fail = |message: String| EvalError::Inputs { function: function.name.clone(), message };
        if inputs.len() != function.inputs().len() {
            return Err(fail(format!("takes {} inputs, given {}", function.inputs().len(), inputs.len())));
        }
        let mut items = Vec::with_capacity(inputs.len());
        for (i, (value, input)) in function.input_values().zip(inputs).enumerate() {
            let mut item = Item::from_host(input);
            if let (ValueType::Tensor(declared), Item::Array(array)) = (function.ty(value), &item)
                && self.options.wide
                && array.dtype == DType::F64
                && matches!(declared.dtype, DType::F32 | DType::F16 | DType::BF16)
            {
                item = Array { dtype: declared.dtype, ..(**array).clone() }.into();
            }
            item.check_kind(function.ty(value)).map_err(|m| fail(format!("input {i}: {m}")))?;
            items.push(item);
        }
        Ok(items)
    }

    /// Runs a function whose symbols may be bound by its surroundings already.
    fn run(&self, function: &Function, inputs: Vec<Item>, symbols: Symbols) -> Result<Vec<Item>, EvalError> {
        let mut frame = Frame { values: HashMap::new(), symbols };
        self.enter(function, inputs, &mut frame)?;
        in_order(function, |id| self.visit(function, id, &mut frame))?;
        extents::check_requirements(function, &frame.symbols)?;
        let missing = |name: &str| EvalError::Inputs {
            function: function.name.clone(),
            message: format!("output `{name}` has no value"),
        };
        function.outputs().iter().map(|o| frame.values.get(&o.value).cloned().ok_or_else(|| missing(&o.name))).collect()
    }

    /// Evaluates one op of a running function; false when an operand has no value yet.
    fn visit(&self, function: &Function, id: NodeId, frame: &mut Frame) -> Result<bool, EvalError> {
        let node = function.node(id);
        if matches!(node.op, Op::Input { .. }) {
            return Ok(true);
        }
        let operands: Option<Vec<Item>> = node.operands().iter().map(|v| frame.values.get(v).cloned()).collect();
        let Some(operands) = operands else { return Ok(false) };
        let symbols = &mut frame.symbols;
        let results = self.step(&node.op, &node.origin, &operands, node.results(), node.regions(), symbols)?;
        for (result, item) in results.into_iter().enumerate() {
            frame.values.insert(Value { node: id, result }, item);
        }
        Ok(true)
    }

    /// Binds inputs and the symbols in their types.
    fn enter(&self, function: &Function, inputs: Vec<Item>, frame: &mut Frame) -> Result<(), EvalError> {
        let fail = |message: String| EvalError::Inputs { function: function.name.clone(), message };
        if inputs.len() != function.inputs().len() {
            return Err(fail(format!("takes {} inputs, given {}", function.inputs().len(), inputs.len())));
        }
        let mut shapes: Vec<(String, &[Dim], &[usize])> = Vec::new();
        for (i, (value, item)) in function.input_values().zip(&inputs).enumerate() {
            let ty = function.ty(value);
            item.check_kind(ty).map_err(|m| fail(format!("input {i}: {m}")))?;
            if let (ValueType::Tensor(t), Item::Array(array)) = (ty, item) {
                let name = match function.op(value) {
                    Op::Input { name, .. } => format!("input `{name}`"),
                    other => format!("input {i} ({})", other.name()),
                };
                shapes.push((name, &t.dims, &array.shape));
            }
        }
        extents::bind(&shapes, &mut frame.symbols)?;
        extents::check_facts(function, &frame.symbols)?;
        extents::check_requirements(function, &frame.symbols)?;
        frame.values.extend(function.input_values().zip(inputs));
        Ok(())
    }

    /// One op: its results, checked against their declared types, which may bind fresh symbols.
    fn step(
        &self,
        op: &Op,
        origin: &Origin,
        operands: &[Item],
        results: &[ValueType],
        regions: &[Function],
        symbols: &mut Symbols,
    ) -> Result<Vec<Item>, EvalError> {
        let cx = Cx { evaluator: self, op: op.name(), origin, operands, regions, symbols };
        cx.count(1)?;
        if !op.operand_count().allows(operands.len()) || !op.region_count().allows(regions.len()) {
            return Err(cx.ill_typed(format!("{} operands and {} regions", operands.len(), regions.len())));
        }
        let items = cx.evaluate(op, results)?;
        if items.len() != results.len() {
            return Err(cx.ill_typed(format!("gives {} results, {} are declared", items.len(), results.len())));
        }
        let mut shapes: Vec<(String, &[Dim], &[usize])> = Vec::new();
        for (i, (item, ty)) in items.iter().zip(results).enumerate() {
            item.check_kind(ty).map_err(|m| cx.ill_typed(format!("result {i}: {m}")))?;
            if let (ValueType::Tensor(t), Item::Array(array)) = (ty, item) {
                shapes.push((format!("{}, result {i}", cx.at()), &t.dims, &array.shape));
            }
        }
        extents::bind(&shapes, symbols)?;
        Ok(items)
    }
}

/// Visits every op after its operands. An extent in an op's attributes may be fixed by an op that is no operand of it
/// (`compact` counts): an op whose `visit` finds a symbol unbound, or an operand without a value (false), waits until a
/// round over the others is done.
fn in_order(function: &Function, mut visit: impl FnMut(NodeId) -> Result<bool, EvalError>) -> Result<(), EvalError> {
    let cycle = || EvalError::Cycle { function: function.name.clone() };
    let mut waiting = function.toposort().ok_or_else(cycle)?;
    while !waiting.is_empty() {
        let (mut later, mut first_error) = (Vec::new(), None);
        for &id in &waiting {
            match visit(id) {
                Ok(true) => {}
                Ok(false) => later.push(id),
                Err(error @ EvalError::Unbound { .. }) => {
                    later.push(id);
                    first_error.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        if later.len() == waiting.len() {
            return Err(first_error.unwrap_or_else(cycle));
        }
        waiting = later;
    }
    Ok(())
}

/// Values and symbols of one run of a function.
struct Frame {
    values: HashMap<Value, Item>,
    symbols: Symbols,
}

/// One op at work: what it reads, and how it says what is wrong.
#[derive(Clone, Copy)]
struct Cx<'a> {
    evaluator: &'a Evaluator<'a>,
    op: &'static str,
    origin: &'a Origin,
    operands: &'a [Item],
    regions: &'a [Function],
    symbols: &'a Symbols,
}

type Evaluated = Result<Array, EvalError>;

impl Cx<'_> {
    fn at(&self) -> At {
        At { op: self.op, origin: self.origin.clone() }
    }

    fn ill_typed(&self, message: String) -> EvalError {
        EvalError::Type { at: self.at(), message }
    }

    fn bad_operand(&self, operand: usize, message: impl Into<String>) -> EvalError {
        EvalError::Operand { at: self.at(), operand, message: message.into() }
    }

    fn outside(&self, operand: usize, index: i128, extent: usize) -> EvalError {
        let index = index.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64;
        EvalError::Index { at: self.at(), operand, index, extent }
    }

    fn limit(&self, what: &'static str, limit: u64) -> EvalError {
        EvalError::Limit { at: self.at(), what, limit }
    }

    /// Counts scalar steps before they are made.
    fn count(&self, steps: u64) -> Result<(), EvalError> {
        let total = self.evaluator.steps.get().saturating_add(steps);
        self.evaluator.steps.set(total);
        let limit = self.evaluator.options.limit_steps;
        if total > limit { Err(self.limit("steps", limit)) } else { Ok(()) }
    }

    fn operand(&self, i: usize) -> Result<&Item, EvalError> {
        self.operands.get(i).ok_or_else(|| self.bad_operand(i, "is missing"))
    }

    fn array(&self, i: usize) -> Result<&Array, EvalError> {
        match self.operand(i)? {
            Item::Array(array) => Ok(array),
            other => Err(self.bad_operand(i, format!("is {}, not a tensor", other.kind()))),
        }
    }

    fn arrays(&self) -> Result<Vec<&Array>, EvalError> {
        (0..self.operands.len()).map(|i| self.array(i)).collect()
    }

    /// An integer or bool scalar.
    fn scalar(&self, i: usize) -> Result<i128, EvalError> {
        let array = self.array(i)?;
        match array.as_ints() {
            [value] => Ok(*value),
            _ => Err(self.bad_operand(i, format!("is {}, not an integer scalar", array.ty()))),
        }
    }

    fn rounding(&self, dtype: DType) -> Rounding {
        Rounding { dtype, wide: self.evaluator.options.wide }
    }

    /// Result shape of an op on tensors from the type rules at the actual extents: after this, axes are in range and
    /// operands agree.
    fn check_types(&self, op: &Op) -> Result<Vec<usize>, EvalError> {
        let types: Vec<ValueType> = self.arrays()?.iter().map(|a| a.ty().into()).collect();
        let types: Vec<&ValueType> = types.iter().collect();
        let results = infer(op, &types, &[]).map_err(|e| self.ill_typed(e.message))?;
        let first = results.first().and_then(ValueType::tensor);
        let shape = first.and_then(|t| t.known_dims()).ok_or_else(|| {
            let dim = first.map_or_else(String::new, ToString::to_string);
            EvalError::Unbound { at: self.at(), dim }
        })?;
        let limit = self.evaluator.options.limit_elements;
        match crate::tensor::checked_numel(&shape) {
            Some(n) if n <= limit => self.count(n as u64)?,
            Some(_) | None => return Err(self.limit("elements", limit as u64)),
        }
        Ok(shape)
    }

    fn evaluate(&self, op: &Op, results: &[ValueType]) -> Result<Vec<Item>, EvalError> {
        let op = &extents::concrete(op, self.symbols)
            .map_err(|dim| EvalError::Unbound { at: self.at(), dim: dim.to_string() })?;
        let shape = match op.class() {
            OpClass::Elementwise | OpClass::Movement | OpClass::Reduction | OpClass::Contraction => {
                self.check_types(op)?
            }
            OpClass::Source | OpClass::Control | OpClass::Host | OpClass::Foreign => Vec::new(),
        };
        let array = match op {
            Op::Unary(u) => elementwise::unary(self, *u, self.array(0)?)?,
            Op::Binary(b) => elementwise::binary(self, *b, self.array(0)?, self.array(1)?)?,
            Op::Select { .. } => elementwise::select(self.array(0)?, self.array(1)?, self.array(2)?),
            Op::Cast { to, saturate } => cast::cast(self, self.array(0)?, *to, *saturate)?,
            Op::Bitcast { to } => cast::bitcast(self, self.array(0)?, *to)?,
            Op::Constant { value } => Array::from_tensor(value),
            Op::Param { name, ty } => {
                let missing = || EvalError::Missing { at: self.at(), what: "parameter", name: name.clone() };
                let value = &self.evaluator.module.params.get(name).ok_or_else(missing)?.value;
                if value.ty() != *ty {
                    return Err(self.ill_typed(format!("the store holds {}, the op says {ty}", value.ty())));
                }
                Array::from_tensor(value)
            }
            Op::Iota { dtype, axis, .. } => movement::iota(self, *dtype, shape, *axis),
            Op::DimValue { value } => Array::index(value.known().unwrap_or(0)),
            Op::Broadcast { axes, .. } => movement::broadcast(self.array(0)?, shape, axes),
            Op::Reshape { .. } => self.array(0)?.with_shape(shape),
            Op::Transpose { perm } => movement::transpose(self.array(0)?, shape, perm),
            Op::Slice { starts, steps, .. } => movement::slice(self.array(0)?, shape, starts, steps),
            Op::DynamicSlice { .. } => movement::dynamic_slice(self, shape)?,
            Op::UpdateSlice {} => movement::update_slice(self, shape)?,
            Op::Pad { low, .. } => movement::pad(self.array(0)?, self.array(1)?, shape, low),
            Op::Concat { axis } => movement::concat(&self.arrays()?, shape, *axis),
            Op::Window { axes, strides, dilations, low, .. } => {
                movement::window(self.array(0)?, self.array(1)?, shape, axes, strides, dilations, low)
            }
            Op::Gather { axis } => indexed::gather(self, shape, *axis)?,
            Op::Scatter { axis, kind } => indexed::scatter(self, *axis, *kind)?,
            Op::Compact { .. } => indexed::compact(self)?,
            Op::Reduce { axes, kind } => reduce::reduce(self, self.array(0)?, shape, axes, *kind)?,
            Op::Cumulate { axis, kind, exclusive, reverse } => {
                reduce::cumulate(self, self.array(0)?, *axis, *kind, *exclusive, *reverse)?
            }
            Op::Sort { axis, descending } => {
                let sorted = reduce::sort(&self.arrays()?, *axis, *descending);
                return Ok(sorted.into_iter().map(Item::from).collect());
            }
            Op::DotGeneral { lhs_batch, rhs_batch, lhs_contract, rhs_contract, accumulate } => {
                contract::dot_general(self, shape, (lhs_batch, lhs_contract), (rhs_batch, rhs_contract), *accumulate)?
            }
            Op::Conv { strides, dilations, low, groups, .. } => {
                contract::conv(self, shape, strides, dilations, low, *groups)?
            }
            Op::ConvTranspose { strides, dilations, low, groups, .. } => {
                contract::conv_transpose(self, shape, strides, dilations, low, *groups)?
            }
            Op::SequenceLength {} => sequence::length(self)?,
            Op::If {} => return control::branch(self),
            Op::Loop { carried, .. } => return control::repeat(self, *carried, results),
            Op::Call { function } => return control::call(self, function),
            Op::Composite { .. } | Op::Fusion {} => return control::region(self, 0, self.operands.to_vec()),
            Op::Assert { message } => return control::assert(self, message),
            Op::SequenceConstruct { .. } => return Ok(vec![Item::Sequence(Rc::new(self.operands.to_vec()))]),
            Op::SequenceAt {} => return sequence::at(self),
            Op::SequenceInsert {} => return sequence::insert(self),
            Op::SequenceErase {} => return sequence::erase(self),
            Op::Input { .. } => return Err(self.unsupported("an input has a value only inside a running function")),
            Op::Absent {} => return Err(self.unsupported("an absent operand has no value; run `legalize` first")),
            Op::Vjp { .. } => {
                return Err(self.unsupported("a derivative is calculated after `grad` has written it out"));
            }
            Op::Onnx { op_type, .. } => {
                return Err(self.unsupported(&format!("ONNX `{op_type}` is no core op; run `legalize` first")));
            }
        };
        Ok(vec![array.into()])
    }

    fn unsupported(&self, message: &str) -> EvalError {
        EvalError::Unsupported { at: self.at(), message: message.to_owned() }
    }
}
