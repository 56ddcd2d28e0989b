//! How far compiled code may be from the wide evaluation, element by element.
//!
//! In: a function and its inputs. Out: for each output its value in f64 and an absolute bound on the error of any
//! evaluation that rounds each op to its type, sums in any order, and computes elementary functions within the stated
//! number of ulp. The bound runs beside the wide evaluation: each value carries a bound an element, each op turns its
//! operands' bounds into its own (endpoints where it is monotone, Lipschitz constants and products of magnitudes
//! elsewhere) and adds its rounding: 0.5 ulp for + - * / sqrt, n times that for n-term sums (Higham, Accuracy and
//! Stability of Numerical Algorithms, chapter 4; twice gamma_n to first order).
//!
//! Where a result jumps inside an operand's bound (floor, a comparison, a cast to an integer, an index), the bound is
//! infinite: that element can't be checked. So are results of `loop` and of the sequence ops, and whatever follows
//! from them. A bound of 0 says that the result is the same bits as a number.

use std::collections::HashMap;

use super::array::{Array, Data};
use super::elementwise::{binary_float, unary_float};
use super::extents::Symbols;
use super::item::Item;
use super::{Cx, EvalError, Evaluator, Options};
use crate::graph::{Function, Node, Value};
use crate::module::Module;
use crate::op::{BinaryOp, Op, ReduceKind, ScatterKind, UnaryOp};
use crate::types::DType;
use crate::value::HostValue;

const INF: f64 = f64::INFINITY;

/// An output and how far another evaluation may be from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Bounded {
    /// The wide value; f32, f16 and bf16 as f64.
    pub value: HostValue,
    /// Absolute bound of each element, infinite where it can't be checked; empty when the value is no tensor.
    pub error: Vec<f64>,
}

/// Outputs with bounds. `inputs` hold exactly what the other evaluation is given. `elementary`: ulp of elementary functions, 2 in strict mode and 4 in fast mode.
pub fn error_bound(
    module: &Module,
    function: &Function,
    inputs: &[HostValue],
    elementary: f64,
) -> Result<Vec<Bounded>, EvalError> {
    let tracker = Tracker { evaluator: Evaluator::new(module, Options::wide()), elementary };
    let inputs = tracker.evaluator.accept(function, inputs)?.into_iter().map(Tracked::exact).collect();
    let outputs = tracker.run(function, inputs, Symbols::new())?;
    outputs.into_iter().map(|t| Ok(Bounded { value: t.item.into_host(true)?, error: t.error })).collect()
}

/// A value and the bound of each element.
#[derive(Clone)]
struct Tracked {
    item: Item,
    error: Vec<f64>,
}

impl Tracked {
    fn constant(item: Item, error: f64) -> Tracked {
        let len = if let Item::Array(a) = &item { a.len() } else { 0 };
        Tracked { item, error: vec![error; len] }
    }

    fn exact(item: Item) -> Tracked {
        Tracked::constant(item, 0.0)
    }

    /// No tensor, or an element without a bound.
    fn is_open(&self) -> bool {
        !matches!(self.item, Item::Array(_)) || self.error.iter().any(|e| e.is_infinite())
    }

    /// Elements as f64 through `change` of value and bound.
    fn map(&self, change: impl Fn(f64, f64) -> f64) -> Item {
        let Item::Array(array) = &self.item else { return self.item.clone() };
        let data = array.to_floats().into_iter().zip(&self.error).map(|(v, e)| change(v, *e)).collect();
        Array { dtype: DType::F64, shape: array.shape.clone(), data: Data::Float(data) }.into()
    }

    fn errors(&self) -> Item {
        self.map(|_, e| e)
    }

    fn magnitudes(&self) -> Item {
        self.map(|v, _| v.abs())
    }

    fn reaches(&self) -> Item {
        self.map(|v, e| v.abs() + e)
    }
}

/// Half a unit in the last place relative to a value, half the smallest step, and the largest finite value of a type.
fn precision(dtype: DType) -> (f64, f64, f64) {
    match dtype {
        DType::F32 => (2f64.powi(-24), 2f64.powi(-150), f64::from(f32::MAX)),
        DType::F16 => (2f64.powi(-11), 2f64.powi(-25), 65504.0),
        DType::BF16 => (2f64.powi(-8), 2f64.powi(-134), f64::from(half::bf16::MAX)),
        // Both evaluations round in f64.
        _ => (2f64.powi(-52), f64::MIN_POSITIVE, f64::MAX),
    }
}

/// A bound with `units` half-ulp roundings of a result added. What may overflow has none.
fn rounded(dtype: DType, value: f64, error: f64, units: f64) -> f64 {
    let (half, tiny, largest) = precision(dtype);
    let reach = value.abs() + error;
    if !value.is_finite() {
        return if error == 0.0 { 0.0 } else { INF };
    }
    // A hair for the rounding of these sums and of the wide evaluation itself.
    let total = (error + units * (reach * half + tiny)) * (1.0 + 1e-6) + reach * 1e-15 * units.min(1.0);
    if reach * (1.0 + half) > largest || total.is_nan() { INF } else { total }
}

struct Tracker<'m> {
    evaluator: Evaluator<'m>,
    elementary: f64,
}

type Errors = Result<Vec<f64>, EvalError>;

impl Tracker<'_> {
    fn run(&self, function: &Function, inputs: Vec<Tracked>, symbols: Symbols) -> Result<Vec<Tracked>, EvalError> {
        let mut frame = super::Frame { values: HashMap::new(), symbols };
        self.evaluator.enter(function, inputs.iter().map(|t| t.item.clone()).collect(), &mut frame)?;
        let mut values: HashMap<Value, Tracked> = function.input_values().zip(inputs).collect();
        super::in_order(function, |id| {
            let node = function.node(id);
            if matches!(node.op, Op::Input { .. }) {
                return Ok(true);
            }
            let operands: Option<Vec<Tracked>> = node.operands().iter().map(|v| values.get(v).cloned()).collect();
            let Some(operands) = operands else { return Ok(false) };
            for (result, tracked) in self.node(node, &operands, &mut frame.symbols)?.into_iter().enumerate() {
                values.insert(Value { node: id, result }, tracked);
            }
            Ok(true)
        })?;
        super::extents::check_requirements(function, &frame.symbols)?;
        let missing = |name: &str| EvalError::Inputs {
            function: function.name.clone(),
            message: format!("output `{name}` has no value"),
        };
        function.outputs().iter().map(|o| values.get(&o.value).cloned().ok_or_else(|| missing(&o.name))).collect()
    }

    fn node(&self, node: &Node, operands: &[Tracked], symbols: &mut Symbols) -> Result<Vec<Tracked>, EvalError> {
        let mut region = None;
        if let Op::Composite { .. } | Op::Fusion {} = &node.op {
            region = node.regions().first().map(|r| (r, operands, symbols.clone()));
        } else if let (Op::If {}, Some((condition, captured))) = (&node.op, operands.split_first())
            && let Item::Array(flag) = &condition.item
            && !condition.is_open()
        {
            let which = usize::from(flag.first_int() == 0);
            region = node.regions().get(which).map(|r| (r, captured, symbols.clone()));
        } else if let Op::Call { function } = &node.op {
            region = self.evaluator.module.functions.get(function).map(|f| (f, operands, Symbols::new()));
        }
        let items: Vec<Item> = operands.iter().map(|t| t.item.clone()).collect();
        // Also when the region is followed: types are checked and limits hold there.
        let (op, origin) = (&node.op, &node.origin);
        let results = self.evaluator.step(op, origin, &items, node.results(), node.regions(), symbols)?;
        if let Some((region, inputs, symbols)) = region {
            return self.run(region, inputs.to_vec(), symbols);
        }
        let cx = Cx { evaluator: &self.evaluator, op: op.name(), origin, operands: &items, regions: &[], symbols };
        if let Op::Sort { .. } = op {
            return self.sort(&cx, op, operands, results);
        }
        let mut tracked = Vec::with_capacity(results.len());
        for item in results {
            let error = match &item {
                Item::Array(array) => self.errors(&cx, op, operands, array)?,
                Item::Sequence(_) | Item::Host(_) => Vec::new(),
            };
            tracked.push(Tracked { item, error });
        }
        Ok(tracked)
    }

    /// The op on other operands: bounds move as elements do.
    fn again(&self, cx: &Cx<'_>, op: &Op, operands: Vec<Item>) -> Errors {
        let mut results = Cx { operands: &operands, ..*cx }.evaluate(op, &[])?;
        match results.pop() {
            Some(Item::Array(array)) => Ok(array.to_floats()),
            Some(Item::Sequence(_) | Item::Host(_)) | None => Ok(Vec::new()),
        }
    }

    fn errors(&self, cx: &Cx<'_>, op: &Op, operands: &[Tracked], result: &Array) -> Errors {
        let open = vec![INF; result.len()];
        let none = vec![0.0; result.len()];
        let values = result.to_floats();
        // The first `data` operands hold elements, the others say where.
        let moved = |data: usize| -> Errors {
            if operands.iter().skip(data).any(Tracked::is_open) {
                return Ok(open.clone());
            }
            let data = data.min(operands.len());
            let errors = operands[..data].iter().map(Tracked::errors);
            self.again(cx, op, errors.chain(operands[data..].iter().map(|t| t.item.clone())).collect())
        };
        let sum = |op: &Op, terms: usize| self.products(cx, op, operands, result, terms);
        Ok(match op {
            Op::Input { .. } | Op::Constant { .. } | Op::Param { .. } | Op::DimValue { .. } => none,
            // Counts that the type does not hold exactly.
            Op::Iota { dtype, .. } => {
                let exact = super::Rounding { dtype: *dtype, wide: false };
                values.iter().map(|&v| if exact.apply(v) == v { 0.0 } else { rounded(*dtype, v, 0.0, 1.0) }).collect()
            }
            Op::Unary(u) => each(values.len(), |i| self.unary(*u, operands, i, values[i], result.dtype)),
            Op::Binary(b) => each(values.len(), |i| self.binary(*b, operands, i, values[i], result.dtype)),
            Op::Select { .. } => {
                let [c, a, b] = operands else { return Ok(open) };
                let (Item::Array(x), Item::Array(y)) = (&a.item, &b.item) else { return Ok(open) };
                let (Item::Array(flag), x, y) = (&c.item, x.to_floats(), y.to_floats()) else { return Ok(open) };
                each(values.len(), |i| match (c.error[i] > 0.0, flag.as_ints()[i] != 0) {
                    (false, true) => a.error[i],
                    (false, false) => b.error[i],
                    (true, _) if x[i] == y[i] => a.error[i].max(b.error[i]),
                    (true, _) => (x[i] - y[i]).abs() + a.error[i].max(b.error[i]),
                })
                .into_iter()
                .map(|e| if e.is_nan() || (!result.dtype.is_float() && e > 0.0) { INF } else { e })
                .collect()
            }
            Op::Cast { to, .. } => cast(operands, &values, *to),
            Op::Bitcast { .. } => {
                operands.first().map_or(open, |x| x.error.iter().map(|&e| if e == 0.0 { 0.0 } else { INF }).collect())
            }
            Op::Broadcast { .. }
            | Op::Reshape { .. }
            | Op::Transpose { .. }
            | Op::Slice { .. }
            | Op::DynamicSlice { .. }
            | Op::Gather { .. } => moved(1)?,
            Op::UpdateSlice {} | Op::Pad { .. } | Op::Window { .. } => moved(2)?,
            Op::Concat { .. } => moved(operands.len())?,
            Op::Scatter { axis, kind } => self.scatter(cx, operands, result, *axis, *kind)?,
            Op::Reduce { axes, kind } => self.reduce(cx, op, operands, result, axes.is_empty(), *kind)?,
            Op::Cumulate { kind, .. } => self.reduce(cx, op, operands, result, false, *kind)?,
            Op::DotGeneral { lhs_batch, rhs_batch, lhs_contract, rhs_contract, .. } => {
                let Some(Item::Array(a)) = operands.first().map(|t| &t.item) else { return Ok(open) };
                let terms = lhs_contract.iter().map(|&axis| a.shape[axis]).product();
                let wide = Op::DotGeneral {
                    lhs_batch: lhs_batch.clone(),
                    rhs_batch: rhs_batch.clone(),
                    lhs_contract: lhs_contract.clone(),
                    rhs_contract: rhs_contract.clone(),
                    accumulate: DType::F64,
                };
                sum(&wide, terms)?
            }
            Op::Conv { .. } | Op::ConvTranspose { .. } => {
                let Some(Item::Array(w)) = operands.get(1).map(|t| &t.item) else { return Ok(open) };
                sum(op, w.len())?
            }
            Op::Assert { .. } => operands.first().map_or(open, |t| t.error.clone()),
            Op::Compact { .. } => {
                if operands.iter().any(Tracked::is_open) {
                    open
                } else {
                    none
                }
            }
            Op::SequenceLength {} => none,
            // Regions that are followed don't come here.
            Op::If {} | Op::Call { .. } | Op::Composite { .. } | Op::Fusion {} | Op::Vjp { .. } | Op::Loop { .. } => {
                open
            }
            Op::Sort { .. }
            | Op::SequenceConstruct { .. }
            | Op::SequenceAt {}
            | Op::SequenceInsert {}
            | Op::SequenceErase {}
            | Op::Absent {}
            | Op::Onnx { .. } => open,
        })
    }

    fn unary(&self, op: UnaryOp, operands: &[Tracked], i: usize, y: f64, dtype: DType) -> f64 {
        let Some((Item::Array(array), e)) = operands.first().map(|t| (&t.item, t.error[i])) else { return INF };
        let x = match &array.data {
            Data::Float(v) => v[i],
            Data::Int(_) | Data::Text(_) => return if e == 0.0 { 0.0 } else { INF },
        };
        if e.is_infinite() {
            return INF;
        }
        let at = |x: f64| unary_float(op, x).unwrap_or(f64::NAN);
        let ends = (at(x - e) - y).abs().max((at(x + e) - y).abs());
        let ends = if e == 0.0 {
            0.0
        } else if at(x - e).is_nan() || at(x + e).is_nan() {
            INF
        } else {
            ends
        };
        let elementary = 2.0 * self.elementary;
        match op {
            UnaryOp::Neg | UnaryOp::Abs => e,
            UnaryOp::Sign | UnaryOp::Floor | UnaryOp::Ceil | UnaryOp::Trunc | UnaryOp::RoundEven => {
                if ends == 0.0 {
                    0.0
                } else {
                    INF
                }
            }
            UnaryOp::Sqrt if e == 0.0 && is_exact(dtype, y) && y * y == x => 0.0,
            UnaryOp::Sqrt => rounded(dtype, y, ends, 1.0),
            UnaryOp::Sin | UnaryOp::Cos => rounded(dtype, y, e.min(2.0), elementary),
            // Monotone between two poles only.
            UnaryOp::Tan => {
                let same = (x - e).cos() * (x + e).cos() > 0.0 && e < 1.0;
                rounded(dtype, y, if same { ends } else { INF }, elementary)
            }
            UnaryOp::Exp
            | UnaryOp::Expm1
            | UnaryOp::Log
            | UnaryOp::Log1p
            | UnaryOp::Asin
            | UnaryOp::Acos
            | UnaryOp::Atan
            | UnaryOp::Tanh
            | UnaryOp::Erf => rounded(dtype, y, ends, elementary),
            UnaryOp::Not => INF,
        }
    }

    fn binary(&self, op: BinaryOp, operands: &[Tracked], i: usize, y: f64, dtype: DType) -> f64 {
        let [Tracked { item: Item::Array(l), error: le }, Tracked { item: Item::Array(r), error: re }] = operands
        else {
            return INF;
        };
        let (ea, eb) = (le[i], re[i]);
        let (Data::Float(l), Data::Float(r)) = (&l.data, &r.data) else {
            return if ea == 0.0 && eb == 0.0 { 0.0 } else { INF };
        };
        let (a, b) = (l[i], r[i]);
        let exact = ea == 0.0 && eb == 0.0;
        if ea.is_infinite() || eb.is_infinite() {
            return INF;
        }
        let corners = || {
            let ends = [(a - ea, b - eb), (a - ea, b + eb), (a + ea, b - eb), (a + ea, b + eb)];
            let far = ends.map(|(a, b)| (binary_float(op, a, b).unwrap_or(f64::NAN) - y).abs());
            if far.iter().any(|d| d.is_nan()) { INF } else { far.into_iter().fold(0.0, f64::max) }
        };
        let propagated = match op {
            _ if exact => 0.0,
            BinaryOp::Add | BinaryOp::Sub => ea + eb,
            BinaryOp::Mul => a.abs() * eb + b.abs() * ea + ea * eb,
            BinaryOp::Div if eb < b.abs() => (y.abs() * eb + ea) / (b.abs() - eb),
            BinaryOp::Rem if eb == 0.0 && ((a - ea) / b).trunc() == ((a + ea) / b).trunc() => ea,
            BinaryOp::Pow if a - ea > 0.0 => corners(),
            BinaryOp::Pow if eb == 0.0 && b == b.trunc() && (b >= 0.0 || a + ea < 0.0) => corners().max(y.abs()),
            BinaryOp::Atan2 if a.abs() > ea || b > eb => corners(),
            BinaryOp::Min | BinaryOp::Max => ea.max(eb),
            BinaryOp::Eq | BinaryOp::Lt | BinaryOp::Le if (a - b).abs() > ea + eb => 0.0,
            BinaryOp::Div
            | BinaryOp::Rem
            | BinaryOp::Pow
            | BinaryOp::Atan2
            | BinaryOp::And
            | BinaryOp::Or
            | BinaryOp::Xor
            | BinaryOp::Shl
            | BinaryOp::Shr
            | BinaryOp::Eq
            | BinaryOp::Lt
            | BinaryOp::Le => INF,
        };
        match op {
            BinaryOp::Min | BinaryOp::Max | BinaryOp::Eq | BinaryOp::Lt | BinaryOp::Le => propagated,
            // The remainder is exact, given its operands.
            BinaryOp::Rem => propagated,
            // A sum, difference or product that its type holds was not rounded (nor in f64: 1e6 + 1 is itself).
            BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul if exact && is_exact(dtype, y) && small(a, b, y) => 0.0,
            BinaryOp::Pow | BinaryOp::Atan2 => rounded(dtype, y, propagated, 2.0 * self.elementary),
            BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div => rounded(dtype, y, propagated, 1.0),
            BinaryOp::And | BinaryOp::Or | BinaryOp::Xor | BinaryOp::Shl | BinaryOp::Shr => propagated,
        }
    }

    /// A contraction: |a| eb + ea |b| + ea eb, and a rounding for each product and each sum.
    fn products(&self, cx: &Cx<'_>, op: &Op, operands: &[Tracked], result: &Array, terms: usize) -> Errors {
        if !result.dtype.is_float() || operands.iter().any(Tracked::is_open) {
            let open = operands.iter().any(|t| t.error.iter().any(|e| *e > 0.0));
            return Ok(vec![if open { INF } else { 0.0 }; result.len()]);
        }
        let magnitude = self.again(cx, op, operands.iter().map(Tracked::magnitudes).collect())?;
        let reach = self.again(cx, op, operands.iter().map(Tracked::reaches).collect())?;
        let (half, tiny, _) = precision(if result.dtype == DType::F64 { DType::F64 } else { DType::F32 });
        let values = result.to_floats();
        Ok(each(values.len(), |i| {
            let steps = (terms as f64 + 1.0) * 2.0;
            let inner = (reach[i] - magnitude[i]).max(0.0) + steps * (half * reach[i] + tiny) + reach[i] * 1e-14;
            rounded(result.dtype, values[i], if reach[i].is_nan() { INF } else { inner }, 1.0)
        }))
    }

    fn reduce(
        &self,
        cx: &Cx<'_>,
        op: &Op,
        operands: &[Tracked],
        result: &Array,
        nothing: bool,
        kind: ReduceKind,
    ) -> Errors {
        let Some(x) = operands.first() else { return Ok(Vec::new()) };
        if nothing && !matches!(kind, ReduceKind::ArgMin | ReduceKind::ArgMax) {
            return Ok(x.error.clone());
        }
        let Item::Array(array) = &x.item else { return Ok(Vec::new()) };
        let certain = x.error.iter().all(|e| *e == 0.0);
        if !array.dtype.is_float() || matches!(kind, ReduceKind::ArgMin | ReduceKind::ArgMax) {
            // A choice among values that may differ is not followed further.
            return Ok(vec![if certain { 0.0 } else { INF }; result.len()]);
        }
        if matches!(kind, ReduceKind::Min | ReduceKind::Max) {
            let most = x.error.iter().copied().fold(0.0, f64::max);
            return Ok(vec![most; result.len()]);
        }
        let magnitude = self.again(cx, op, vec![x.magnitudes()])?;
        let reach = self.again(cx, op, vec![x.reaches()])?;
        let terms = array.len() as f64 / (result.len() as f64).max(1.0);
        let terms = if matches!(op, Op::Cumulate { .. }) { array.len() as f64 } else { terms };
        let (half, tiny, _) = precision(if result.dtype == DType::F64 { DType::F64 } else { DType::F32 });
        let values = result.to_floats();
        Ok(each(values.len(), |i| {
            let inner = (reach[i] - magnitude[i]).max(0.0) + 2.0 * terms * (half * reach[i] + tiny) + reach[i] * 1e-14;
            rounded(result.dtype, values[i], if inner.is_nan() { INF } else { inner }, 1.0)
        }))
    }

    fn scatter(&self, cx: &Cx<'_>, operands: &[Tracked], result: &Array, axis: usize, kind: ScatterKind) -> Errors {
        let [x, indices, updates] = operands else { return Ok(vec![INF; result.len()]) };
        let whole = |a: &Tracked| a.error.iter().all(|e| *e == 0.0);
        if indices.is_open() || !(result.dtype.is_float() || whole(x) && whole(updates)) {
            return Ok(vec![INF; result.len()]);
        }
        let on = |kind: ScatterKind, a: Item, b: Item| {
            self.again(cx, &Op::Scatter { axis, kind }, vec![a, indices.item.clone(), b])
        };
        if !result.dtype.is_float() {
            return Ok(vec![0.0; result.len()]);
        }
        let values = result.to_floats();
        match kind {
            ScatterKind::Assign => on(ScatterKind::Assign, x.errors(), updates.errors()),
            ScatterKind::Min | ScatterKind::Max => on(ScatterKind::Max, x.errors(), updates.errors()),
            ScatterKind::Add | ScatterKind::Mul => {
                let magnitude = on(kind, x.magnitudes(), updates.magnitudes())?;
                let reach = on(kind, x.reaches(), updates.reaches())?;
                let count = on(ScatterKind::Add, x.map(|_, _| 0.0), updates.map(|_, _| 1.0))?;
                Ok(each(values.len(), |i| {
                    if count[i] == 0.0 {
                        return x.error[i];
                    }
                    let (half, tiny, _) = precision(result.dtype);
                    let inner = (reach[i] - magnitude[i]).max(0.0) + 2.0 * count[i] * (half * reach[i] + tiny);
                    rounded(result.dtype, values[i], if inner.is_nan() { INF } else { inner }, 1.0)
                }))
            }
        }
    }

    /// Sorted keys move by no more than the largest bound; what is carried along jumps, unless the keys are exact.
    fn sort(&self, cx: &Cx<'_>, op: &Op, operands: &[Tracked], results: Vec<Item>) -> Result<Vec<Tracked>, EvalError> {
        let Some(keys) = operands.first() else { return Ok(Vec::new()) };
        let most = keys.error.iter().copied().fold(0.0, f64::max);
        if most > 0.0 {
            let open = |(i, item)| Tracked::constant(item, if i == 0 { most } else { INF });
            return Ok(results.into_iter().enumerate().map(open).collect());
        }
        let carried = results.into_iter().zip(operands).map(|(item, operand)| {
            Ok(Tracked { item, error: self.again(cx, op, vec![keys.item.clone(), operand.errors()])? })
        });
        carried.collect()
    }
}

fn each(n: usize, error: impl Fn(usize) -> f64) -> Vec<f64> {
    (0..n).map(error).collect()
}

fn is_exact(dtype: DType, v: f64) -> bool {
    super::Rounding { dtype, wide: false }.apply(v) == v
}

/// Whether f64 holds a op b exactly for whole numbers: then an unrounded result is the true one.
fn small(a: f64, b: f64, y: f64) -> bool {
    const LIMIT: f64 = 9_007_199_254_740_992.0;
    [a, b, y].iter().all(|v| v.trunc() == *v && v.abs() < LIMIT)
}

fn cast(operands: &[Tracked], values: &[f64], to: DType) -> Vec<f64> {
    let Some(Tracked { item: Item::Array(x), error }) = operands.first() else { return vec![INF; values.len()] };
    let from = x.to_floats();
    each(values.len(), |i| {
        let (v, e) = (from[i], error[i]);
        let whole = !to.is_float() || to.is_storage_only();
        if e == 0.0 && (whole || is_exact(to, values[i])) {
            return 0.0;
        }
        if !whole {
            return rounded(to, values[i], e, 1.0);
        }
        // To bool: both sides of 0 differ; to an integer: values on both sides of a step.
        let same = if to == DType::Bool { v.abs() > e } else { to.is_int() && (v - e).trunc() == (v + e).trunc() };
        if e.is_finite() && same { 0.0 } else { INF }
    })
}
