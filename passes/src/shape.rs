//! Small integer tensors evaluated as extents.
//!
//! In: a function of core ops, the module's parameters and the values of fixed inputs. Out, for a value that is a small
//! integer or bool tensor: each element as a [`Dim`], where it is one. `Shape -> Gather -> Concat -> Reshape` chains
//! become extents this way, also when the batch is a symbol. A value is evaluated once; [`Values`] remembers.
//!
//! A tensor whose operands are all known is folded by the reference evaluator: float scales and bounds, say.
//!
//! Elements are exact mathematical integers: an element that leaves its type's range is unknown, never wrapped.

use std::collections::HashMap;
use std::rc::Rc;

use frit_ir::reference::{Options, Symbols, eval_op};
use frit_ir::types::Class;
use frit_ir::value::HostValue;
use frit_ir::{BinaryOp, DType, Dim, Function, Op, OpClass, Param, ReduceKind, ScatterKind, Tensor, UnaryOp, Value};
use indexmap::IndexMap;

/// Tensors of more elements are not evaluated.
pub const LIMIT: usize = 4096;

/// Operand chains are followed this far; beyond, a value counts as unknown. Keeps the stack bounded.
const DEPTH: usize = 256;

/// Scalar steps that folding one op may take.
const FOLD_STEPS: u64 = 1 << 20;

/// A small integer or bool tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostInts {
    /// Extents.
    pub shape: Vec<usize>,
    /// Elements, row-major; `None`: not known.
    pub elements: Vec<Option<Dim>>,
}

impl HostInts {
    /// A scalar.
    fn scalar(element: Dim) -> Self {
        HostInts { shape: Vec::new(), elements: vec![Some(element)] }
    }

    /// The elements when all are known extents.
    pub fn dims(&self) -> Option<Vec<Dim>> {
        self.elements.iter().cloned().collect()
    }

    /// The elements when all are numbers.
    pub fn numbers(&self) -> Option<Vec<i64>> {
        self.elements.iter().map(|e| e.as_ref().and_then(Dim::known)).collect()
    }
}

/// What is known of the values of one function.
#[derive(Debug, Default)]
pub struct Values {
    ints: HashMap<Value, Option<Rc<HostInts>>>,
    tensors: HashMap<Value, Option<Tensor>>,
}

/// Elements of `shape` when they are few enough.
fn small(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).filter(|&n| n <= LIMIT)
}

/// The position in `shape` of row-major element `i`.
fn position(mut i: usize, shape: &[usize]) -> Vec<usize> {
    let mut at = vec![0; shape.len()];
    for (slot, &extent) in at.iter_mut().zip(shape).rev() {
        *slot = i % extent.max(1);
        i /= extent.max(1);
    }
    at
}

fn linear(at: &[usize], shape: &[usize]) -> usize {
    at.iter().zip(shape).fold(0, |n, (&i, &extent)| n * extent + i)
}

/// A tensor whose element at a position is the source's element at `from(position)`.
fn gathered(x: &HostInts, shape: Vec<usize>, from: impl Fn(&[usize]) -> Option<Vec<usize>>) -> Option<HostInts> {
    let elements = (0..small(&shape)?)
        .map(|i| x.elements.get(linear(&from(&position(i, &shape))?, &x.shape)).cloned())
        .collect::<Option<Vec<_>>>()?;
    Some(HostInts { shape, elements })
}

impl Values {
    /// States a value: a fixed input's, or what is known outside of a region's input.
    pub fn fix(&mut self, value: Value, tensor: Tensor) {
        self.tensors.insert(value, Some(tensor));
    }

    /// States a value's elements.
    pub fn fix_ints(&mut self, value: Value, ints: Rc<HostInts>) {
        self.ints.insert(value, Some(ints));
    }

    /// The elements of an integer or bool tensor, as far as they are known; `None`: nothing is.
    pub fn ints(&mut self, f: &Function, params: &IndexMap<String, Param>, value: Value) -> Option<Rc<HostInts>> {
        self.ints_within(f, params, value, DEPTH)
    }

    /// A tensor whose every element is known: a constant, an untrained parameter, a fixed input, or small and computed
    /// from such.
    pub fn tensor(&mut self, f: &Function, params: &IndexMap<String, Param>, value: Value) -> Option<Tensor> {
        self.tensor_within(f, params, value, DEPTH)
    }

    fn ints_within(
        &mut self,
        f: &Function,
        params: &IndexMap<String, Param>,
        value: Value,
        depth: usize,
    ) -> Option<Rc<HostInts>> {
        if let Some(found) = self.ints.get(&value) {
            return found.clone();
        }
        if depth == 0 {
            return None;
        }
        let ty = f.ty(value).tensor()?;
        if !matches!(ty.dtype.class(), Class::Signed | Class::Unsigned | Class::Bool) {
            return None;
        }
        let shape = ty.known_dims()?;
        small(&shape)?;
        let mut found = self.evaluate(f, params, value, shape.clone(), depth - 1);
        if let Some(ints) = &mut found {
            let (low, high) = range(ty.dtype);
            for element in &mut ints.elements {
                if element.as_ref().and_then(Dim::known).is_some_and(|v| v < low || v > high) {
                    *element = None;
                }
            }
        }
        let found = found.filter(|x| x.shape == shape && Some(x.elements.len()) == small(&shape)).map(Rc::new);
        self.ints.insert(value, found.clone());
        found
    }

    fn source(&self, f: &Function, params: &IndexMap<String, Param>, value: Value) -> Option<Tensor> {
        if let Some(found) = self.tensors.get(&value) {
            return found.clone();
        }
        match f.op(value) {
            Op::Constant { value } => Some(value.clone()),
            Op::Param { name, .. } => params.get(name).filter(|p| !p.trainable).map(|p| p.value.clone()),
            _ => None,
        }
    }

    fn tensor_within(
        &mut self,
        f: &Function,
        params: &IndexMap<String, Param>,
        value: Value,
        depth: usize,
    ) -> Option<Tensor> {
        if let Some(found) = self.source(f, params, value) {
            return Some(found);
        }
        if let Some(found) = self.tensors.get(&value) {
            return found.clone();
        }
        if depth == 0 {
            return None;
        }
        let ty = f.ty(value).tensor()?;
        let shape = ty.known_dims()?;
        small(&shape)?;
        if let Some(numbers) = self.ints_within(f, params, value, depth - 1).and_then(|x| x.numbers()) {
            return ints_tensor(ty.dtype, &shape, &numbers);
        }
        let found = self.folded(f, params, value, depth - 1);
        self.tensors.insert(value, found.clone());
        found
    }

    /// One op whose operands are known, by the reference evaluator.
    fn folded(&mut self, f: &Function, params: &IndexMap<String, Param>, value: Value, depth: usize) -> Option<Tensor> {
        let node = f.node(value.node);
        let class = node.op.class();
        if !matches!(class, OpClass::Elementwise | OpClass::Movement | OpClass::Reduction | OpClass::Contraction) {
            return None;
        }
        let operands = node
            .operands()
            .iter()
            .map(|&v| self.tensor_within(f, params, v, depth).map(HostValue::Tensor))
            .collect::<Option<Vec<_>>>()?;
        let options = Options { limit_elements: LIMIT, limit_steps: FOLD_STEPS, ..Options::default() };
        let symbols = Symbols::new();
        let made = eval_op(&node.op, &node.origin, &operands, node.results(), &[], &symbols, options).ok()?;
        made.get(value.result)?.tensor().cloned()
    }

    fn evaluate(
        &mut self,
        f: &Function,
        params: &IndexMap<String, Param>,
        value: Value,
        shape: Vec<usize>,
        depth: usize,
    ) -> Option<HostInts> {
        if let Some(tensor) = self.source(f, params, value) {
            let elements = tensor.to_i64s()?.into_iter().map(|v| Some(Dim::Known(v))).collect();
            return Some(HostInts { shape: tensor.shape().to_vec(), elements });
        }
        let node = f.node(value.node);
        let mut operand = |i: usize| -> Option<Rc<HostInts>> {
            let v = *node.operands().get(i)?;
            self.ints_within(f, params, v, depth)
        };
        match &node.op {
            Op::DimValue { value } => Some(HostInts::scalar(value.clone())),
            Op::Iota { axis, .. } => {
                let at = |i| position(i, &shape).get(*axis).map(|&p| Dim::from(p));
                let elements = (0..small(&shape)?).map(at).collect();
                Some(HostInts { shape, elements })
            }
            Op::Unary(op) => {
                let x = operand(0)?;
                let dtype = f.ty(value).tensor()?.dtype;
                Some(HostInts { shape, elements: x.elements.iter().map(|e| unary(*op, e.as_ref()?, dtype)).collect() })
            }
            Op::Binary(op) => {
                let (a, b) = (operand(0)?, operand(1)?);
                let of = f.ty(*node.operands().first()?).tensor()?.dtype;
                let pairs = a.elements.iter().zip(&b.elements);
                Some(HostInts {
                    shape,
                    elements: pairs.map(|(a, b)| binary(*op, a.as_ref(), b.as_ref(), of)).collect(),
                })
            }
            Op::Select { .. } => {
                let (c, a, b) = (operand(0)?, operand(1), operand(2));
                let at =
                    |x: &Option<Rc<HostInts>>, i: usize| x.as_ref().and_then(|x| x.elements.get(i).cloned().flatten());
                let pick = |(i, c): (usize, &Option<Dim>)| match c.as_ref().and_then(Dim::known) {
                    Some(0) => at(&b, i),
                    Some(_) => at(&a, i),
                    None => at(&a, i).filter(|v| at(&b, i).as_ref() == Some(v)),
                };
                Some(HostInts { shape, elements: c.elements.iter().enumerate().map(pick).collect() })
            }
            Op::Cast { to, .. } => {
                let source = *node.operands().first()?;
                if f.ty(source).tensor()?.dtype.is_float() {
                    return self.truncated(f, params, source, *to, depth);
                }
                let x = operand(0)?;
                let cast = |e: &Option<Dim>| match (to, e) {
                    (DType::Bool, Some(d)) => nonzero(d),
                    (_, e) => e.clone(),
                };
                Some(HostInts { shape, elements: x.elements.iter().map(cast).collect() })
            }
            Op::Reshape { .. } => Some(HostInts { shape, elements: operand(0)?.elements.clone() }),
            Op::Assert { .. } => operand(0).map(|x| (*x).clone()),
            Op::Broadcast { axes, .. } => {
                let x = operand(0)?;
                gathered(&x, shape, |at| {
                    axes.iter().zip(&x.shape).map(|(&a, &d)| at.get(a).map(|&p| if d == 1 { 0 } else { p })).collect()
                })
            }
            Op::Transpose { perm } => {
                let x = operand(0)?;
                gathered(&x, shape, |at| {
                    let mut from = vec![0; at.len()];
                    for (&p, &i) in perm.iter().zip(at) {
                        *from.get_mut(p)? = i;
                    }
                    Some(from)
                })
            }
            Op::Slice { starts, steps, .. } => {
                let x = operand(0)?;
                gathered(&x, shape, |at| {
                    at.iter()
                        .zip(starts.iter().zip(steps))
                        .map(|(&i, (start, step))| usize::try_from(start.known()? + i64::try_from(i).ok()? * step).ok())
                        .collect()
                })
            }
            Op::Pad { low, .. } => {
                let (x, fill) = (operand(0)?, operand(1)?.elements.first()?.clone());
                let elements = (0..small(&shape)?).map(|i| {
                    let at: Option<Vec<usize>> = position(i, &shape)
                        .iter()
                        .zip(low)
                        .map(|(&p, l)| p.checked_sub(usize::try_from(l.known()?).ok()?))
                        .collect();
                    match at {
                        Some(at) if at.iter().zip(&x.shape).all(|(p, d)| p < d) => {
                            x.elements.get(linear(&at, &x.shape)).cloned().flatten()
                        }
                        _ => fill.clone(),
                    }
                });
                let elements = elements.collect();
                low.iter().all(|l| l.known().is_some()).then_some(HostInts { shape, elements })
            }
            Op::Concat { axis } => {
                let parts: Vec<(Option<Rc<HostInts>>, Vec<usize>)> = node
                    .operands()
                    .iter()
                    .map(|&v| Some((self.ints_within(f, params, v, depth), f.ty(v).tensor()?.known_dims()?)))
                    .collect::<Option<_>>()?;
                let elements = (0..small(&shape)?).map(|i| {
                    let mut at = position(i, &shape);
                    for (part, part_shape) in &parts {
                        let (slot, &extent) = (at.get_mut(*axis)?, part_shape.get(*axis)?);
                        if *slot < extent {
                            return part.as_ref()?.elements.get(linear(&at, part_shape)).cloned().flatten();
                        }
                        *slot -= extent;
                    }
                    None
                });
                let elements = elements.collect();
                Some(HostInts { shape, elements })
            }
            Op::Gather { axis } => {
                let (x, indices) = (operand(0)?, operand(1)?);
                let rank = indices.shape.len();
                let indices_at: Vec<usize> = indices
                    .elements
                    .iter()
                    .map(|e| e.as_ref().and_then(Dim::known).and_then(|v| usize::try_from(v).ok()))
                    .collect::<Option<_>>()?;
                let extent = *x.shape.get(*axis)?;
                gathered(&x, shape, |at| {
                    let index = *indices_at.get(linear(at.get(*axis..axis + rank)?, &indices.shape))?;
                    let mut from = at.get(..*axis)?.to_vec();
                    from.push(Some(index).filter(|&i| i < extent)?);
                    from.extend(at.get(axis + rank..)?);
                    Some(from)
                })
            }
            Op::Scatter { axis, kind: ScatterKind::Assign } => {
                let (x, indices, updates) = (operand(0)?, operand(1)?.numbers()?, operand(2)?);
                let mut result = (*x).clone();
                for (u, element) in updates.elements.iter().enumerate() {
                    let mut at = position(u, &updates.shape);
                    let slot = at.get_mut(*axis)?;
                    *slot = usize::try_from(*indices.get(*slot)?).ok()?;
                    *result.elements.get_mut(linear(&at, &x.shape))? = element.clone();
                }
                Some(result)
            }
            Op::Reduce { axes, kind } => reduce(&*operand(0)?, axes, *kind, shape),
            Op::Cumulate { axis, kind, exclusive: false, reverse: false } => {
                let x = operand(0)?;
                let combine = combiner(*kind)?;
                let mut elements = x.elements.clone();
                for i in 0..elements.len() {
                    let mut at = position(i, &x.shape);
                    let slot = at.get_mut(*axis)?;
                    if *slot > 0 {
                        *slot -= 1;
                        let before = elements.get(linear(&at, &x.shape))?.clone();
                        let here = elements.get(i)?.clone();
                        *elements.get_mut(i)? = before.zip(here).and_then(|(a, b)| combine(&a, &b));
                    }
                }
                Some(HostInts { shape, elements })
            }
            // Not integer arithmetic of shapes, or not worth it.
            Op::Input { .. }
            | Op::Constant { .. }
            | Op::Param { .. }
            | Op::Bitcast { .. }
            | Op::DynamicSlice { .. }
            | Op::UpdateSlice {}
            | Op::Scatter { .. }
            | Op::Window { .. }
            | Op::Cumulate { .. }
            | Op::Sort { .. }
            | Op::DotGeneral { .. }
            | Op::Conv { .. }
            | Op::ConvTranspose { .. }
            | Op::Compact { .. }
            | Op::If {}
            | Op::Loop { .. }
            | Op::Call { .. }
            | Op::Composite { .. }
            | Op::Fusion {}
            | Op::Vjp { .. }
            | Op::SequenceConstruct { .. }
            | Op::SequenceAt {}
            | Op::SequenceInsert {}
            | Op::SequenceErase {}
            | Op::SequenceLength {}
            | Op::Absent {}
            | Op::Onnx { .. } => None,
        }
    }

    /// A known float tensor cast to integers.
    fn truncated(
        &mut self,
        f: &Function,
        params: &IndexMap<String, Param>,
        value: Value,
        to: DType,
        depth: usize,
    ) -> Option<HostInts> {
        let tensor = self.tensor_within(f, params, value, depth)?;
        let floats = floats(&tensor)?;
        let cast = |v: &f64| {
            if to == DType::Bool {
                return Some(Dim::Known(i64::from(*v != 0.0)));
            }
            (v.abs() < 9e18).then_some(Dim::Known(*v as i64))
        };
        Some(HostInts { shape: tensor.shape().to_vec(), elements: floats.iter().map(cast).collect() })
    }
}

/// The elements of a float tensor as f64; `None` for other types.
pub fn floats(tensor: &Tensor) -> Option<Vec<f64>> {
    match tensor.dtype() {
        DType::F32 => Some(tensor.to_vec::<f32>().into_iter().map(f64::from).collect()),
        DType::F64 => Some(tensor.to_vec::<f64>()),
        _ => None,
    }
}

/// The integers that a type holds, as far as i64 goes.
fn range(dtype: DType) -> (i64, i64) {
    let bits = dtype.bits();
    match dtype.class() {
        Class::Signed if bits < 64 => (-(1i64 << (bits - 1)), (1i64 << (bits - 1)) - 1),
        Class::Unsigned if bits < 64 => (0, (1i64 << bits) - 1),
        Class::Unsigned => (0, i64::MAX),
        Class::Bool => (0, 1),
        Class::Signed | Class::Float | Class::Text => (i64::MIN, i64::MAX),
    }
}

/// An integer or bool tensor from numbers.
fn ints_tensor(dtype: DType, shape: &[usize], numbers: &[i64]) -> Option<Tensor> {
    let bytes: Vec<u8> =
        numbers.iter().flat_map(|v| v.to_le_bytes().into_iter().take(dtype.size()).collect::<Vec<_>>()).collect();
    Tensor::from_bytes(dtype, shape, &bytes).ok()
}

fn flag(value: bool) -> Option<Dim> {
    Some(Dim::Known(i64::from(value)))
}

/// Whether an extent is not 0, where that is known.
fn nonzero(d: &Dim) -> Option<Dim> {
    equal(d, &Dim::ZERO).and_then(|e| flag(e == Dim::ZERO))
}

/// a < b, where that holds or fails for every value of the symbols.
fn less(a: &Dim, b: &Dim) -> Option<Dim> {
    if (&(b - a) - &Dim::ONE).is_nonnegative() {
        flag(true)
    } else if (a - b).is_nonnegative() {
        flag(false)
    } else {
        None
    }
}

fn equal(a: &Dim, b: &Dim) -> Option<Dim> {
    if a == b {
        return flag(true);
    }
    let apart = less(a, b) == flag(true) || less(b, a) == flag(true);
    if apart { flag(false) } else { None }
}

fn unary(op: UnaryOp, x: &Dim, dtype: DType) -> Option<Dim> {
    match op {
        UnaryOp::Neg => Some(&Dim::ZERO - x),
        UnaryOp::Abs if x.is_nonnegative() => Some(x.clone()),
        UnaryOp::Abs => x.known().and_then(i64::checked_abs).map(Dim::Known),
        UnaryOp::Sign => x.known().map(|v| Dim::Known(v.signum())),
        UnaryOp::Not if dtype == DType::Bool => Some(&Dim::ONE - x),
        UnaryOp::Not if dtype.class() == Class::Signed => Some(&Dim::Known(-1) - x),
        _ => None,
    }
}

fn checked(a: &Dim, b: &Dim, number: impl Fn(i64, i64) -> Option<i64>, dim: impl Fn(&Dim, &Dim) -> Dim) -> Option<Dim> {
    match (a.known(), b.known()) {
        (Some(a), Some(b)) => number(a, b).map(Dim::Known),
        _ => Some(dim(a, b)),
    }
}

fn combiner(kind: ReduceKind) -> Option<fn(&Dim, &Dim) -> Option<Dim>> {
    match kind {
        ReduceKind::Sum => Some(|a, b| checked(a, b, i64::checked_add, |a, b| a + b)),
        ReduceKind::Prod => Some(|a, b| checked(a, b, i64::checked_mul, |a, b| a * b)),
        ReduceKind::Min => Some(|a, b| Some(a.minimum(b))),
        ReduceKind::Max => Some(|a, b| Some(a.maximum(b))),
        ReduceKind::ArgMin | ReduceKind::ArgMax => None,
    }
}

fn binary(op: BinaryOp, a: Option<&Dim>, b: Option<&Dim>, of: DType) -> Option<Dim> {
    if of == DType::Bool && matches!(op, BinaryOp::And | BinaryOp::Or) {
        // One operand may decide alone.
        let decisive = Dim::Known(i64::from(op == BinaryOp::Or));
        if a == Some(&decisive) || b == Some(&decisive) {
            return Some(decisive);
        }
        return a.zip(b).map(|_| &Dim::ONE - &decisive);
    }
    let (a, b) = (a?, b?);
    match op {
        BinaryOp::Add => checked(a, b, i64::checked_add, |a, b| a + b),
        BinaryOp::Sub => checked(a, b, i64::checked_sub, |a, b| a - b),
        BinaryOp::Mul => checked(a, b, i64::checked_mul, |a, b| a * b),
        BinaryOp::Div | BinaryOp::Rem => match (a.known(), b.known()) {
            (_, Some(0)) => Some(Dim::ZERO),
            (Some(a), Some(b)) if op == BinaryOp::Div => a.checked_div(b).map(Dim::Known),
            (Some(a), Some(b)) => a.checked_rem(b).map(Dim::Known),
            // Rounding down is truncation where nothing is negative; a divisor of 0 would differ, so it is excluded.
            _ if a.is_nonnegative() && (b - &Dim::ONE).is_nonnegative() => {
                Some(if op == BinaryOp::Div { a.floordiv(b) } else { a.modulo(b) })
            }
            _ if op == BinaryOp::Div => a.exact_div(b),
            _ => None,
        },
        BinaryOp::Pow => {
            let (a, b) = (a.known()?, u32::try_from(b.known()?).ok()?);
            a.checked_pow(b).map(Dim::Known)
        }
        BinaryOp::Min => Some(a.minimum(b)),
        BinaryOp::Max => Some(a.maximum(b)),
        BinaryOp::And => Some(Dim::Known(a.known()? & b.known()?)),
        BinaryOp::Or => Some(Dim::Known(a.known()? | b.known()?)),
        BinaryOp::Xor => Some(Dim::Known(a.known()? ^ b.known()?)),
        BinaryOp::Eq => equal(a, b),
        BinaryOp::Lt => less(a, b),
        BinaryOp::Le => less(b, a).and_then(|l| flag(l == Dim::ZERO)),
        BinaryOp::Shl | BinaryOp::Shr | BinaryOp::Atan2 => None,
    }
}

fn reduce(x: &HostInts, axes: &[usize], kind: ReduceKind, shape: Vec<usize>) -> Option<HostInts> {
    let combine = combiner(kind)?;
    let mut elements: Vec<Option<Option<Dim>>> = vec![None; small(&shape)?];
    for (i, element) in x.elements.iter().enumerate() {
        let at: Vec<usize> =
            position(i, &x.shape).into_iter().enumerate().filter(|(a, _)| !axes.contains(a)).map(|(_, p)| p).collect();
        let slot = elements.get_mut(linear(&at, &shape))?;
        *slot = Some(match slot.take() {
            None => element.clone(),
            Some(before) => before.zip(element.clone()).and_then(|(a, b)| combine(&a, &b)),
        });
    }
    let empty = match kind {
        ReduceKind::Sum => Some(Dim::ZERO),
        ReduceKind::Prod => Some(Dim::ONE),
        ReduceKind::Min | ReduceKind::Max | ReduceKind::ArgMin | ReduceKind::ArgMax => None,
    };
    Some(HostInts { shape, elements: elements.into_iter().map(|e| e.unwrap_or_else(|| empty.clone())).collect() })
}
