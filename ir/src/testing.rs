//! Random modules and inputs, for tests of every room.
//!
//! In: a seed and a size. Out: a well-typed module of core ops whose one function, `infer`, mixes f32, f64, i64, i32 and
//! bool, known and symbolic extents, parameters, constants, elementwise chains with shared parts, broadcasts that
//! matter, reshapes between elementwise ops and reductions, softmaxes, products, windows, sorts and gathers.
//!
//! Two engines can be compared on it within a tolerance, because it is kept tame. Each value carries a bound of its
//! magnitude: nothing overflows, nothing is divided by 0, nothing is NaN. And each knows whether it is *exact* (free of
//! rounding: inputs, what moves and selects them, small integers): ops that jump (comparisons, floor, argmax, sort,
//! casts to integers) read exact values only, so that a last-bit difference never becomes a large one.
//!
//! Same seed, size and version: same module.

use std::collections::BTreeMap;

use crate::builder::{Builder, broadcast_shapes};
use crate::graph::{Function, SymbolFacts, Value};
use crate::module::{Module, Param};
use crate::op::infer::TypeError;
use crate::op::{BinaryOp, Op, ReduceKind, UnaryOp};
use crate::origin::Origin;
use crate::tensor::{Tensor, checked_numel};
use crate::types::{DType, Dim, Symbol, TensorType};

/// The largest extent that a symbol of a random module may take; the smallest is 1.
pub const MAX_EXTENT: i64 = 24;

/// A value is brought back to [-1, 1] before it grows past this.
const MAX_BOUND: f64 = 4096.0;

/// Elements of a value, at the most, when every symbol is at its largest.
const MAX_ELEMENTS: i64 = 1 << 14;

/// Random numbers from a seed: splitmix64 (Steele, Lea and Flood, 2014).
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A stream; different seeds give unrelated ones.
    pub fn new(seed: u64) -> Self {
        Rng(seed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in 0..n; 0 when n is 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() % (n.max(1) as u64)) as usize
    }

    /// True once in n times.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// A number in [-1, 1).
    pub fn signed_unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    /// One of several; `None` of none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len()))
    }
}

/// Random data of a type: floats in [-2, 2] (a third of the tensors on a grid of eighths, so that ties occur), integers
/// in [-8, 8], bools. `None` for other types.
pub fn tensor(rng: &mut Rng, dtype: DType, shape: &[usize]) -> Option<Tensor> {
    let count = checked_numel(shape)?;
    let grid = rng.once_in(3);
    let mut bytes = Vec::new();
    for _ in 0..count {
        let unit = rng.signed_unit();
        let float = if grid { (unit * 16.0).round() / 8.0 } else { unit * 2.0 };
        let int = (unit * 8.99) as i64;
        match dtype {
            DType::F32 => bytes.extend((float as f32).to_le_bytes()),
            DType::F64 => bytes.extend(float.to_le_bytes()),
            DType::I64 => bytes.extend(int.to_le_bytes()),
            DType::I32 => bytes.extend((int as i32).to_le_bytes()),
            DType::Bool => bytes.push(u8::from(unit < 0.0)),
            _ => return None,
        }
    }
    Tensor::from_bytes(dtype, shape, &bytes).ok()
}

/// Random extents for the symbols of a function, from 1 to [`MAX_EXTENT`].
pub fn extents(rng: &mut Rng, function: &Function) -> BTreeMap<Symbol, i64> {
    let max = MAX_EXTENT as usize;
    function.symbols.keys().map(|s| (s.clone(), 1 + rng.below(max) as i64)).collect()
}

/// Random data for every input; `None` when an input is no tensor of the types used here or an extent is unknown.
pub fn inputs(rng: &mut Rng, function: &Function, extents: &BTreeMap<Symbol, i64>) -> Option<Vec<Tensor>> {
    let types = function.input_values().map(|v| function.ty(v).tensor().cloned());
    types
        .map(|ty| {
            let ty = ty?;
            let extent = |d: &Dim| d.eval(&|s| extents.get(s).copied()).and_then(|v| usize::try_from(v).ok());
            tensor(rng, ty.dtype, &ty.dims.iter().map(extent).collect::<Option<Vec<_>>>()?)
        })
        .collect()
}

/// A random module; `size` is about the number of steps, each of which adds one to eight ops.
pub fn module(seed: u64, size: usize) -> Result<Module, TypeError> {
    let mut f = Function::new("infer");
    let mut params = Vec::new();
    let mut maker = Maker {
        b: Builder::new(&mut f, Origin::named("random")),
        rng: Rng::new(seed ^ 0x5eed),
        values: Vec::new(),
        shapes: Vec::new(),
        params: &mut params,
    };
    maker.sources()?;
    for step in 0..size {
        maker.b.origin = Origin::named(format!("step_{step}"));
        maker.step()?;
    }
    maker.outputs();
    let mut module = Module::of(f);
    module.source = format!("random module, seed {seed}, size {size}");
    module.params.extend(params);
    Ok(module)
}

/// A value and what is known of it.
#[derive(Clone, Debug)]
struct Known {
    value: Value,
    ty: TensorType,
    /// No element is larger in magnitude.
    bound: f64,
    /// Holds the same numbers in any precision.
    exact: bool,
}

struct Maker<'m> {
    b: Builder<'m>,
    rng: Rng,
    values: Vec<Known>,
    /// Shapes of the inputs: everything else is derived from them.
    shapes: Vec<Vec<Dim>>,
    params: &'m mut Vec<(String, Param)>,
}

type Step = Result<(), TypeError>;

const UNARY: &[UnaryOp] = UnaryOp::ALL;
const FLOATS: [DType; 2] = [DType::F32, DType::F64];

/// Elements of a shape when each symbol is at its largest.
fn largest(dims: &[Dim]) -> i64 {
    Dim::product(dims).eval(&|_| Some(MAX_EXTENT)).unwrap_or(i64::MAX)
}

impl Maker<'_> {
    fn sources(&mut self) -> Step {
        let mut symbols = vec![Dim::symbol("B"), Dim::symbol("N")];
        symbols.truncate(self.rng.below(3));
        for symbol in symbols.iter().filter_map(Dim::as_symbol) {
            let facts = SymbolFacts { min: 1, max: Some(MAX_EXTENT), multiple_of: 0 };
            self.b.function.symbols.insert(symbol.clone(), facts);
        }
        // Two full shapes; other inputs leave axes out or have extent 1 there.
        for _ in 0..2 {
            let rank = 1 + self.rng.below(3);
            let mut shape: Vec<Dim> =
                (0..rank).map(|_| Dim::from([1, 2, 3, 4, 6, 8, 9, 16, 17][self.rng.below(9)] as usize)).collect();
            if let Some(symbol) = self.rng.pick(&symbols) {
                shape.insert(0, symbol.clone());
            }
            self.shapes.push(shape);
        }
        // Each symbol stands plainly in some input.
        for (i, symbol) in symbols.iter().enumerate() {
            let value = self.b.function.add_input(&format!("s{i}"), TensorType::new(DType::F32, vec![symbol.clone()]));
            self.know(value, 2.0, true)?;
        }
        for i in 0..3 + self.rng.below(3) {
            let dtype = [DType::F32, DType::F32, DType::F32, DType::F64, DType::I64, DType::I32, DType::Bool]
                [self.rng.below(7)];
            let dims = self.sub_shape();
            let value = self.b.function.add_input(&format!("x{i}"), TensorType::new(dtype, dims));
            self.know(value, bound_of(dtype), true)?;
        }
        for i in 0..1 + self.rng.below(3) {
            let dims = self.sub_shape().into_iter().map(|d| if d.known().is_some() { d } else { Dim::ONE });
            let ty = TensorType::new(FLOATS[self.rng.below(8) / 7], dims.collect::<Vec<_>>());
            let value = self.random_tensor(&ty)?;
            let name = format!("w{i}");
            self.params.push((name.clone(), Param { value, trainable: self.rng.once_in(2) }));
            let value = self.b.op(Op::Param { name, ty }, &[])?;
            self.know(value, 2.0, true)?;
        }
        Ok(())
    }

    fn random_tensor(&mut self, ty: &TensorType) -> Result<Tensor, TypeError> {
        let made = ty.known_dims().and_then(|shape| tensor(&mut self.rng, ty.dtype, &shape));
        made.ok_or_else(|| TypeError { op: "constant", message: format!("no random data for {ty}") })
    }

    /// An input's shape, with leading axes left out or single axes of extent 1 now and then.
    fn sub_shape(&mut self) -> Vec<Dim> {
        let mut dims = self.rng.pick(&self.shapes).cloned().unwrap_or_default();
        if self.rng.once_in(3) {
            let from = self.rng.below(dims.len());
            dims.drain(..from);
        }
        if self.rng.once_in(3) {
            let axis = self.rng.below(dims.len());
            if let Some(dim) = dims.get_mut(axis) {
                *dim = Dim::ONE;
            }
        }
        dims
    }

    /// Keeps a value for later steps; what grew too large is brought back by tanh, a scale or a
    /// remainder.
    fn know(&mut self, value: Value, bound: f64, exact: bool) -> Step {
        let ty = self.b.tensor(value)?;
        let (mut value, mut bound, mut exact) = (value, bound, exact);
        if bound > MAX_BOUND && ty.dtype.is_float() {
            if self.rng.once_in(4) {
                value = self.b.unary(UnaryOp::Tanh, value)?;
            } else {
                let scale = self.b.scalar(ty.dtype, (-bound.log2().ceil()).exp2())?;
                value = self.b.binary(BinaryOp::Mul, value, scale)?;
            }
            (bound, exact) = (1.0, false);
        } else if bound > MAX_BOUND && ty.dtype.is_int() {
            let limit = self.b.scalar(ty.dtype, 97.0)?;
            value = self.b.binary(BinaryOp::Rem, value, limit)?;
            bound = 97.0;
        }
        self.values.push(Known { value, ty, bound, exact });
        Ok(())
    }

    /// A value that `wanted` accepts; late ones more often than early ones.
    fn choose(&mut self, wanted: impl Fn(&Known) -> bool) -> Option<Known> {
        let fitting: Vec<&Known> = self.values.iter().filter(|k| wanted(k)).collect();
        let n = fitting.len();
        let i = self.rng.below(n).max(self.rng.below(n));
        fitting.get(i).map(|k| (*k).clone())
    }

    fn float(&mut self) -> Option<Known> {
        self.choose(|k| k.ty.dtype.is_float())
    }

    /// A second operand of the same type that broadcasts with the first.
    fn partner(&mut self, x: &Known) -> Option<Known> {
        self.choose(|k| {
            let shape = broadcast_shapes(&[k.ty.dims.clone(), x.ty.dims.clone()]);
            let agrees = |(a, b): (&Dim, &Dim)| a == b || *a == Dim::ONE || *b == Dim::ONE;
            k.ty.dtype == x.ty.dtype
                && k.ty.dims.iter().rev().zip(x.ty.dims.iter().rev()).all(agrees)
                && shape.is_ok_and(|dims| largest(&dims) <= MAX_ELEMENTS)
        })
    }

    /// An axis of a value, `None` for a scalar.
    fn axis(&mut self, x: &Known) -> Option<usize> {
        (x.ty.rank() > 0).then(|| self.rng.below(x.ty.rank()))
    }

    /// One step; where the values so far have nothing that fits, a constant is added instead.
    fn step(&mut self) -> Step {
        let done = match self.rng.below(30) {
            0..=4 => self.unary()?,
            5..=11 => self.binary()?,
            12 => self.select()?,
            13 => self.cast()?,
            14..=15 => self.reshape()?,
            16 => self.transpose()?,
            17 => self.slice()?,
            18 => self.pad_or_concat()?,
            19..=21 => self.reduce()?,
            22 => self.softmax()?,
            23..=24 => self.dot()?,
            25 => self.gather()?,
            26 => self.cumulate_or_sort()?,
            27 => self.window()?,
            28 => self.count()?,
            _ => None,
        };
        if done.is_some() {
            return Ok(());
        }
        let dtype = [DType::F32, DType::F64, DType::I64, DType::I32, DType::Bool][self.rng.below(5)];
        let dims: Vec<Dim> = if self.rng.once_in(2) { Vec::new() } else { self.sub_shape() };
        let dims: Vec<Dim> = dims.into_iter().map(|d| if d.known().is_some() { d } else { Dim::ONE }).collect();
        let value = self.random_tensor(&TensorType::new(dtype, dims))?;
        let value = self.b.constant(value)?;
        self.know(value, bound_of(dtype), true)
    }

    fn unary(&mut self) -> Result<Option<()>, TypeError> {
        use UnaryOp::{Abs, Neg, Not, Sign};
        let Some(x) = self.choose(|_| true) else { return Ok(None) };
        let op = match x.ty.dtype {
            DType::Bool => Not,
            d if d.is_float() => UNARY[self.rng.below(UNARY.len())],
            _ => [Neg, Abs, Sign, Not][self.rng.below(4)],
        };
        // The operand that the op is tame on, and a bound of what it gives.
        let one = |m: &mut Self| m.b.scalar(x.ty.dtype, 1.0);
        let (operand, bound, exact) = match op {
            Not if x.ty.dtype.is_float() => return Ok(None),
            Not => (x.value, x.bound + 1.0, true),
            Neg | Abs => (x.value, x.bound, x.exact),
            Sign | UnaryOp::Floor | UnaryOp::Ceil | UnaryOp::Trunc | UnaryOp::RoundEven => {
                if !x.exact {
                    return Ok(None);
                }
                (x.value, x.bound + 1.0, true)
            }
            UnaryOp::Sqrt => {
                let (a, o) = (self.b.unary(Abs, x.value)?, one(self)?);
                (self.b.binary(BinaryOp::Add, a, o)?, (x.bound + 1.0).sqrt(), false)
            }
            UnaryOp::Log => {
                let (a, o) = (self.b.unary(Abs, x.value)?, one(self)?);
                (self.b.binary(BinaryOp::Add, a, o)?, (x.bound + 1.0).ln(), false)
            }
            UnaryOp::Log1p => (self.b.unary(Abs, x.value)?, x.bound.ln_1p(), false),
            UnaryOp::Exp | UnaryOp::Expm1 if x.bound <= 6.0 => (x.value, x.bound.exp(), false),
            UnaryOp::Exp | UnaryOp::Expm1 => {
                let a = self.b.unary(Abs, x.value)?;
                (self.b.unary(Neg, a)?, 1.0, false)
            }
            UnaryOp::Sin | UnaryOp::Cos if x.bound <= 100.0 => (x.value, 1.0, false),
            UnaryOp::Sin | UnaryOp::Cos => return Ok(None),
            UnaryOp::Tan if x.bound <= 1.4 => (x.value, 6.0, false),
            UnaryOp::Asin | UnaryOp::Acos if x.bound <= 0.9 => (x.value, 3.2, false),
            UnaryOp::Tan | UnaryOp::Asin | UnaryOp::Acos => {
                // x / (1 + x^2) lies in [-1/2, 1/2].
                let square = self.b.binary(BinaryOp::Mul, x.value, x.value)?;
                let o = one(self)?;
                let below = self.b.binary(BinaryOp::Add, square, o)?;
                (self.b.binary(BinaryOp::Div, x.value, below)?, 3.2, false)
            }
            UnaryOp::Atan => (x.value, 1.6, false),
            UnaryOp::Tanh | UnaryOp::Erf => (x.value, 1.0, false),
        };
        let value = self.b.unary(op, operand)?;
        self.know(value, bound, exact)?;
        Ok(Some(()))
    }

    fn binary(&mut self) -> Result<Option<()>, TypeError> {
        use BinaryOp::{Add, And, Div, Eq, Le, Lt, Max, Min, Mul, Or, Rem, Sub, Xor};
        let Some(x) = self.choose(|_| true) else { return Ok(None) };
        let Some(y) = self.partner(&x) else { return Ok(None) };
        let ops: &[BinaryOp] = match x.ty.dtype {
            DType::Bool => &[And, Or, Xor, Eq],
            d if d.is_float() => &[Add, Sub, Mul, Mul, Add, Div, Min, Max, BinaryOp::Atan2, Lt, Le, Eq],
            _ => &[Add, Sub, Mul, Div, Rem, Min, Max, And, Or, Xor, Lt, Le, Eq],
        };
        let op = ops[self.rng.below(ops.len())];
        let both = x.exact && y.exact;
        let is_float = x.ty.dtype.is_float();
        let jumps = op.is_comparison() || op == BinaryOp::Atan2;
        if jumps && !both {
            return Ok(None);
        }
        let mut right = y.value;
        if op == Div && is_float {
            let (a, one) = (self.b.unary(UnaryOp::Abs, right)?, self.b.scalar(x.ty.dtype, 1.0)?);
            right = self.b.binary(Add, a, one)?;
        }
        let bound = match op {
            Add | Sub => x.bound + y.bound,
            Mul => x.bound * y.bound,
            Div | Rem => x.bound,
            Min | Max => x.bound.max(y.bound),
            BinaryOp::Atan2 => 3.2,
            // Bits of small integers stay below the next power of two of the larger.
            _ if x.ty.dtype.is_int() && !op.is_comparison() => 2.0 * x.bound.max(y.bound) + 1.0,
            _ => 1.0,
        };
        let exact = !is_float || op.is_comparison() || (both && matches!(op, Min | Max));
        let value = self.b.binary(op, x.value, right)?;
        self.know(value, bound, exact)?;
        Ok(Some(()))
    }

    fn select(&mut self) -> Result<Option<()>, TypeError> {
        let Some(c) = self.choose(|k| k.ty.dtype == DType::Bool) else { return Ok(None) };
        let shape = Known { ty: TensorType::new(DType::F32, c.ty.dims.clone()), ..c.clone() };
        let Some(x) = self.partner(&shape) else { return Ok(None) };
        let y = self.b.scalar(DType::F32, f64::from(self.rng.below(5) as u8) - 2.0)?;
        let value = self.b.select(c.value, x.value, y)?;
        self.know(value, x.bound.max(2.0), x.exact)?;
        Ok(Some(()))
    }

    fn cast(&mut self) -> Result<Option<()>, TypeError> {
        let Some(x) = self.choose(|_| true) else { return Ok(None) };
        let to = [DType::F32, DType::F32, DType::F64, DType::I64, DType::I32, DType::Bool][self.rng.below(6)];
        let from = x.ty.dtype;
        if (from.is_float() && !to.is_float() && !x.exact) || from == to {
            return Ok(None);
        }
        let rounds = from == DType::F64 && to == DType::F32;
        let value = self.b.cast(x.value, to)?;
        self.know(value, if to == DType::Bool { 1.0 } else { x.bound }, x.exact && !rounds)?;
        Ok(Some(()))
    }

    /// Joins two neighbouring axes, splits one, or adds one of extent 1.
    fn reshape(&mut self) -> Result<Option<()>, TypeError> {
        let Some(x) = self.choose(|_| true) else { return Ok(None) };
        let mut dims = x.ty.dims.clone();
        let axis = self.rng.below(dims.len());
        let known = dims.get(axis).and_then(Dim::known);
        match (self.rng.below(3), known) {
            (0, _) if axis + 1 < dims.len() => {
                let joined = &dims[axis] * &dims[axis + 1];
                dims.splice(axis..axis + 2, [joined]);
            }
            (1, Some(extent)) if extent > 1 && extent % 2 == 0 => {
                dims.splice(axis..=axis, [Dim::Known(2), Dim::Known(extent / 2)]);
            }
            _ => dims.insert(axis, Dim::ONE),
        }
        if dims.len() > 5 {
            return Ok(None);
        }
        let value = self.b.reshape(x.value, dims)?;
        self.know(value, x.bound, x.exact)?;
        Ok(Some(()))
    }

    fn transpose(&mut self) -> Result<Option<()>, TypeError> {
        let Some(x) = self.choose(|k| k.ty.rank() > 1) else { return Ok(None) };
        let mut perm: Vec<usize> = (0..x.ty.rank()).collect();
        for i in 1..perm.len() {
            let other = self.rng.below(i + 1);
            perm.swap(i, other);
        }
        let value = self.b.transpose(x.value, perm)?;
        self.know(value, x.bound, x.exact)?;
        Ok(Some(()))
    }

    fn slice(&mut self) -> Result<Option<()>, TypeError> {
        let Some(x) = self.choose(|k| k.ty.rank() > 0) else { return Ok(None) };
        let (mut starts, mut sizes, mut steps) = (Vec::new(), Vec::new(), Vec::new());
        for dim in &x.ty.dims {
            let reversed = self.rng.once_in(4);
            let (start, size, step) = match dim.known() {
                Some(extent) if extent > 1 => {
                    let start = self.rng.below(extent as usize) as i64;
                    let step = 1 + self.rng.below(2) as i64;
                    let room = if reversed { start } else { extent - 1 - start };
                    (Dim::Known(start), Dim::Known(room / step + 1), if reversed { -step } else { step })
                }
                _ if reversed => (dim - &Dim::ONE, dim.clone(), -1),
                _ => (Dim::ZERO, dim.clone(), 1),
            };
            starts.push(start);
            sizes.push(size);
            steps.push(step);
        }
        let value = self.b.op(Op::Slice { starts, sizes, steps }, &[x.value])?;
        self.know(value, x.bound, x.exact)?;
        Ok(Some(()))
    }

    fn pad_or_concat(&mut self) -> Result<Option<()>, TypeError> {
        let Some(x) = self.choose(|k| k.ty.rank() > 0 && largest(&k.ty.dims) <= MAX_ELEMENTS / 4) else {
            return Ok(None);
        };
        let axis = self.rng.below(x.ty.rank());
        if self.rng.once_in(2) {
            let y = self.choose(|k| k.ty == x.ty).unwrap_or_else(|| x.clone());
            let value = self.b.op(Op::Concat { axis }, &[x.value, y.value])?;
            self.know(value, x.bound.max(y.bound), x.exact && y.exact)?;
            return Ok(Some(()));
        }
        let mut amounts = || -> Vec<Dim> {
            (0..x.ty.rank()).map(|a| if a == axis { Dim::from(self.rng.below(3)) } else { Dim::ZERO }).collect()
        };
        let (low, high) = (amounts(), amounts());
        let fill = self.b.scalar(x.ty.dtype, 1.0)?;
        let value = self.b.op(Op::Pad { low, high }, &[x.value, fill])?;
        self.know(value, x.bound.max(1.0), x.exact)?;
        Ok(Some(()))
    }

    fn reduce(&mut self) -> Result<Option<()>, TypeError> {
        use ReduceKind::{ArgMax, ArgMin, Max, Min, Sum};
        let Some(x) = self.choose(|k| k.ty.rank() > 0) else { return Ok(None) };
        let kind = [Sum, Sum, Sum, Max, Min, ArgMax, ArgMin][self.rng.below(7)];
        let is_arg = matches!(kind, ArgMax | ArgMin);
        if (is_arg && !x.exact) || (kind == Sum && x.ty.dtype == DType::Bool) {
            return Ok(None);
        }
        let first = self.rng.below(x.ty.rank());
        let last = if is_arg { first } else { first + self.rng.below(x.ty.rank() - first) };
        let axes: Vec<usize> = (first..=last).collect();
        let count = largest(&x.ty.dims[first..=last]) as f64;
        let bound = if kind == Sum { x.bound * count } else { x.bound };
        let exact = x.exact && !(kind == Sum && x.ty.dtype.is_float());
        let keep = self.rng.once_in(2);
        let value = self.b.reduce(x.value, axes, kind, keep)?;
        self.know(value, if is_arg { count } else { bound }, exact)?;
        Ok(Some(()))
    }

    /// exp(x - max) / sum along one axis; the ingredients stay available to later steps.
    fn softmax(&mut self) -> Result<Option<()>, TypeError> {
        let Some(x) = self.float() else { return Ok(None) };
        let Some(axis) = self.axis(&x) else { return Ok(None) };
        let top = self.b.reduce(x.value, vec![axis], ReduceKind::Max, true)?;
        let shifted = self.b.binary(BinaryOp::Sub, x.value, top)?;
        let exp = self.b.unary(UnaryOp::Exp, shifted)?;
        let sum = self.b.reduce(exp, vec![axis], ReduceKind::Sum, true)?;
        let value = self.b.binary(BinaryOp::Div, exp, sum)?;
        self.know(top, x.bound, x.exact)?;
        self.know(exp, 1.0, false)?;
        self.know(value, 1.0, false)?;
        Ok(Some(()))
    }

    fn dot(&mut self) -> Result<Option<()>, TypeError> {
        let Some(x) = self.choose(|k| k.ty.dtype.is_float() && k.ty.rank() > 0) else { return Ok(None) };
        let contract = self.rng.below(x.ty.rank());
        let depth = x.ty.dims[contract].clone();
        let partner = self.choose(|k| k.ty.dtype == x.ty.dtype && k.ty.rank() <= 3 && k.ty.dims.contains(&depth));
        let y = match (partner, depth.known()) {
            (Some(y), _) => y,
            (None, Some(_)) => {
                let ty = TensorType::new(x.ty.dtype, vec![depth.clone(), Dim::from(1 + self.rng.below(9))]);
                let value = self.random_tensor(&ty)?;
                Known { value: self.b.constant(value)?, ty, bound: 2.0, exact: true }
            }
            (None, None) => return Ok(None),
        };
        let Some(rhs) = y.ty.dims.iter().position(|d| *d == depth) else { return Ok(None) };
        // A shared leading axis becomes a batch axis now and then.
        let batch = contract > 0 && rhs > 0 && x.ty.dims[0] == y.ty.dims[0] && self.rng.once_in(2);
        let axes = if batch { vec![0] } else { Vec::new() };
        let op = Op::DotGeneral {
            lhs_batch: axes.clone(),
            rhs_batch: axes,
            lhs_contract: vec![contract],
            rhs_contract: vec![rhs],
            accumulate: x.ty.dtype,
        };
        let free = largest(&x.ty.dims).saturating_mul(largest(&y.ty.dims));
        let rank = x.ty.rank() + y.ty.rank() - 2;
        if free / largest(std::slice::from_ref(&depth)).max(1) > MAX_ELEMENTS * 8 || rank > 4 {
            return Ok(None);
        }
        let value = self.b.op(op, &[x.value, y.value])?;
        if largest(&self.b.dims(value)?) > MAX_ELEMENTS {
            self.b.function.remove_op(value.node);
            return Ok(None);
        }
        let terms = largest(std::slice::from_ref(&depth)) as f64;
        self.know(value, x.bound * y.bound * terms, false)?;
        Ok(Some(()))
    }

    fn gather(&mut self) -> Result<Option<()>, TypeError> {
        let known = |k: &Known| k.ty.dims.iter().position(|d| d.known().is_some_and(|d| d > 0));
        let Some(x) = self.choose(|k| known(k).is_some()) else { return Ok(None) };
        let Some(axis) = known(&x) else { return Ok(None) };
        let extent = x.ty.dims[axis].known().unwrap_or(1) as usize;
        let indices: Vec<i64> = (0..1 + self.rng.below(4)).map(|_| self.rng.below(extent) as i64).collect();
        let indices = Tensor::i64(&[indices.len()], &indices)
            .map_err(|e| TypeError { op: "constant", message: e.to_string() })?;
        let indices = self.b.constant(indices)?;
        let value = self.b.op(Op::Gather { axis }, &[x.value, indices])?;
        self.know(value, x.bound, x.exact)?;
        Ok(Some(()))
    }

    fn cumulate_or_sort(&mut self) -> Result<Option<()>, TypeError> {
        let sort = self.rng.once_in(2);
        let fits = |k: &Known| k.ty.rank() > 0 && k.ty.dtype != DType::Bool && (k.exact || !sort);
        let Some(x) = self.choose(fits) else { return Ok(None) };
        let axis = self.rng.below(x.ty.rank());
        if sort {
            let value = self.b.op(Op::Sort { axis, descending: self.rng.once_in(2) }, &[x.value])?;
            self.know(value, x.bound, true)?;
            return Ok(Some(()));
        }
        let (exclusive, reverse) = (self.rng.once_in(2), self.rng.once_in(2));
        let value = self.b.op(Op::Cumulate { axis, kind: ReduceKind::Sum, exclusive, reverse }, &[x.value])?;
        let terms = largest(&x.ty.dims[axis..=axis]) as f64;
        self.know(value, x.bound * terms, x.exact && !x.ty.dtype.is_float())?;
        Ok(Some(()))
    }

    /// A pooling: windows along one known axis, then their maximum or sum.
    fn window(&mut self) -> Result<Option<()>, TypeError> {
        let known = |k: &Known| k.ty.dims.iter().position(|d| d.known().is_some_and(|d| d >= 3));
        let Some(x) = self.choose(|k| k.ty.dtype.is_float() && known(k).is_some()) else { return Ok(None) };
        let Some(axis) = known(&x) else { return Ok(None) };
        let fill = self.b.scalar(x.ty.dtype, 0.0)?;
        let op = Op::Window {
            axes: vec![axis],
            sizes: vec![1 + self.rng.below(3)],
            strides: vec![1 + self.rng.below(2)],
            dilations: vec![1],
            low: vec![self.rng.below(2)],
            high: vec![self.rng.below(2)],
        };
        let windows = self.b.op(op, &[x.value, fill])?;
        let kind = [ReduceKind::Sum, ReduceKind::Max][self.rng.below(2)];
        let value = self.b.reduce(windows, vec![x.ty.rank()], kind, false)?;
        self.know(value, x.bound * 3.0, x.exact && kind == ReduceKind::Max)?;
        Ok(Some(()))
    }

    /// Indices or an extent, as numbers.
    fn count(&mut self) -> Result<Option<()>, TypeError> {
        let dtype = [DType::I64, DType::I32, DType::F32][self.rng.below(3)];
        let dims = self.sub_shape();
        let (value, bound) = match self.rng.pick(&dims).cloned() {
            Some(dim) if self.rng.once_in(2) => {
                let value = self.b.dim(dim)?;
                (self.b.cast(value, dtype)?, MAX_EXTENT as f64)
            }
            _ => {
                let axis = self.rng.below(dims.len());
                if dims.is_empty() {
                    return Ok(None);
                }
                (self.b.op(Op::Iota { dtype, dims, axis }, &[])?, MAX_EXTENT as f64)
            }
        };
        self.know(value, bound, true)?;
        Ok(Some(()))
    }

    /// The last values that nothing uses, four at the most; what is left over is dead code, which passes must bear.
    fn outputs(&mut self) {
        let unused: Vec<Value> =
            self.values.iter().map(|k| k.value).filter(|v| self.b.function.use_count(*v) == 0).collect();
        let last = self.values.last().map(|k| k.value);
        let shown: Vec<Value> = if unused.is_empty() { last.into_iter().collect() } else { unused };
        for (i, value) in shown.iter().rev().take(4).enumerate() {
            self.b.function.add_output(&format!("y{i}"), *value);
        }
    }
}

/// The largest magnitude that [`tensor`] makes.
fn bound_of(dtype: DType) -> f64 {
    match dtype {
        DType::Bool => 1.0,
        d if d.is_int() => 8.0,
        _ => 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_well_typed_varied_and_repeatable() {
        let mut words = BTreeMap::<&str, usize>::new();
        for seed in 0..300 {
            let module = module(seed, 20).expect("well typed");
            let f = module.entry().expect("a function");
            assert!((1..=4).contains(&f.outputs().len()));
            for id in f.nodes() {
                *words.entry(f.node(id).op.name()).or_default() += 1;
            }
            let again = super::module(seed, 20).expect("well typed");
            assert_eq!(crate::text::to_inline_text(&module), crate::text::to_inline_text(&again));
            let mut rng = Rng::new(seed);
            let extents = extents(&mut rng, f);
            assert!(inputs(&mut rng, f, &extents).is_some());
        }
        for word in ["reduce", "broadcast", "reshape", "dot_general", "select", "sort", "window", "param", "exp", "dim"]
        {
            assert!(words.get(word).is_some_and(|n| *n >= 15), "{word} is rare: {words:?}");
        }
    }
}
