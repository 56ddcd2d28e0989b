//! One function of a network while it is built: parameters by name, and the parts that networks share.
//!
//! A [`Net`] adds ops to one function whose parameters are in a store. What is added carries the place that was named
//! last ([`Net::at`]) as its origin.

use std::collections::HashMap;
use std::f64::consts::FRAC_1_SQRT_2;

use indexmap::IndexMap;

use super::{Activation, ModelError};
use crate::builder::Builder;
use crate::graph::{Function, Value};
use crate::module::Param;
use crate::op::infer::TypeError;
use crate::op::{BinaryOp, Op, ReduceKind, UnaryOp};
use crate::origin::Origin;
use crate::types::{DType, Dim, Symbol, TensorType};

/// A value, or why there is none.
pub(super) type Part = Result<Value, ModelError>;

/// The extent that stands for the number of samples.
pub(super) fn batch() -> Symbol {
    Symbol::new("B")
}

/// A function of one input `x` f32[B, extent].
pub(super) fn function(name: &str, extent: usize) -> (Function, Value) {
    let mut function = Function::new(name);
    let x = function.add_input("x", TensorType::new(DType::F32, [batch().into(), Dim::from(extent)]));
    (function, x)
}

/// A function while it is built.
pub(super) struct Net<'n> {
    pub(super) b: Builder<'n>,
    params: &'n IndexMap<String, Param>,
    read: HashMap<String, Value>,
}

impl<'n> Net<'n> {
    pub(super) fn new(function: &'n mut Function, params: &'n IndexMap<String, Param>) -> Net<'n> {
        let origin = Origin::named(&function.name);
        Net { b: Builder::new(function, origin), params, read: HashMap::new() }
    }

    /// Names the place that what follows belongs to.
    pub(super) fn at(&mut self, place: &str) {
        self.b.origin = Origin::named(place);
    }

    /// A parameter; the same value however often it is asked for.
    pub(super) fn param(&mut self, name: &str) -> Part {
        if let Some(value) = self.read.get(name) {
            return Ok(*value);
        }
        let param = self.params.get(name).ok_or_else(|| TypeError { op: "param", message: format!("no `{name}`") })?;
        let op = Op::Param { name: name.to_owned(), ty: param.value.ty() };
        let node = self.b.function.add_op(op, &[], Vec::new(), &Origin::named(name))?;
        let value = Value { node, result: 0 };
        self.read.insert(name.to_owned(), value);
        Ok(value)
    }

    pub(super) fn scalar(&mut self, value: f64) -> Part {
        Ok(self.b.scalar(DType::F32, value)?)
    }

    pub(super) fn unary(&mut self, op: UnaryOp, x: Value) -> Part {
        Ok(self.b.unary(op, x)?)
    }

    pub(super) fn binary(&mut self, op: BinaryOp, a: Value, b: Value) -> Part {
        Ok(self.b.binary(op, a, b)?)
    }

    pub(super) fn add(&mut self, a: Value, b: Value) -> Part {
        self.binary(BinaryOp::Add, a, b)
    }

    pub(super) fn sub(&mut self, a: Value, b: Value) -> Part {
        self.binary(BinaryOp::Sub, a, b)
    }

    pub(super) fn mul(&mut self, a: Value, b: Value) -> Part {
        self.binary(BinaryOp::Mul, a, b)
    }

    pub(super) fn div(&mut self, a: Value, b: Value) -> Part {
        self.binary(BinaryOp::Div, a, b)
    }

    /// An op with a number at the right.
    pub(super) fn with(&mut self, op: BinaryOp, x: Value, number: f64) -> Part {
        let number = self.scalar(number)?;
        self.binary(op, x, number)
    }

    pub(super) fn reduce(&mut self, x: Value, axes: &[usize], kind: ReduceKind, keep: bool) -> Part {
        Ok(self.b.reduce(x, axes.to_vec(), kind, keep)?)
    }

    pub(super) fn sum(&mut self, x: Value, axes: &[usize], keep: bool) -> Part {
        self.reduce(x, axes, ReduceKind::Sum, keep)
    }

    /// x under other extents.
    pub(super) fn reshape(&mut self, x: Value, dims: Vec<Dim>) -> Part {
        Ok(self.b.reshape(x, dims)?)
    }

    /// x with an axis of extent 1 before `axis`.
    pub(super) fn unsqueeze(&mut self, x: Value, axis: usize) -> Part {
        let mut dims = self.b.dims(x)?;
        dims.insert(axis.min(dims.len()), Dim::ONE);
        self.reshape(x, dims)
    }

    /// Products summed over one axis of each.
    pub(super) fn dot(&mut self, lhs: Value, rhs: Value, lhs_axis: usize, rhs_axis: usize) -> Part {
        let op = Op::DotGeneral {
            lhs_batch: vec![],
            rhs_batch: vec![],
            lhs_contract: vec![lhs_axis],
            rhs_contract: vec![rhs_axis],
            accumulate: DType::F32,
        };
        Ok(self.b.op(op, &[lhs, rhs])?)
    }

    /// x W^T over the last axis.
    pub(super) fn project(&mut self, x: Value, weight: Value) -> Part {
        let rank = self.b.dims(x)?.len();
        self.dot(x, weight, rank.saturating_sub(1), 1)
    }

    /// x W^T + b over the last axis.
    pub(super) fn linear(&mut self, x: Value, name: &str) -> Part {
        let (weight, bias) = (self.param(&format!("{name}.weight"))?, self.param(&format!("{name}.bias"))?);
        let product = self.project(x, weight)?;
        self.add(product, bias)
    }

    /// e^(x - max x) / sum of these, along one axis.
    pub(super) fn softmax(&mut self, x: Value, axis: usize) -> Part {
        let top = self.reduce(x, &[axis], ReduceKind::Max, true)?;
        let below = self.sub(x, top)?;
        let e = self.unary(UnaryOp::Exp, below)?;
        let sum = self.sum(e, &[axis], true)?;
        self.div(e, sum)
    }

    /// 1 / (1 + e^-x).
    fn sigmoid(&mut self, x: Value) -> Part {
        let minus = self.unary(UnaryOp::Neg, x)?;
        let e = self.unary(UnaryOp::Exp, minus)?;
        let below = self.with(BinaryOp::Add, e, 1.0)?;
        let one = self.scalar(1.0)?;
        self.div(one, below)
    }

    /// x where it is not negative, else `other`.
    fn positive_or(&mut self, x: Value, other: Value) -> Part {
        let negative = self.with(BinaryOp::Lt, x, 0.0)?;
        Ok(self.b.select(negative, other, x)?)
    }

    /// alpha (e^x - 1) below 0.
    fn elu(&mut self, x: Value, alpha: f64) -> Part {
        let e = self.unary(UnaryOp::Expm1, x)?;
        let curve = if alpha == 1.0 { e } else { self.with(BinaryOp::Mul, e, alpha)? };
        self.positive_or(x, curve)
    }

    /// An activation function, written so that no intermediate overflows into NaN.
    pub(super) fn activation(&mut self, x: Value, activation: Activation) -> Part {
        match activation {
            Activation::Silu => {
                let gate = self.sigmoid(x)?;
                self.mul(x, gate)
            }
            Activation::Relu => self.with(BinaryOp::Max, x, 0.0),
            Activation::Gelu => {
                let scaled = self.with(BinaryOp::Mul, x, FRAC_1_SQRT_2)?;
                let erf = self.unary(UnaryOp::Erf, scaled)?;
                let one = self.with(BinaryOp::Add, erf, 1.0)?;
                let half = self.with(BinaryOp::Mul, x, 0.5)?;
                self.mul(half, one)
            }
            Activation::Selu => {
                let y = self.elu(x, 1.673_263_242_354_377_2)?;
                self.with(BinaryOp::Mul, y, 1.050_700_987_355_480_5)
            }
            Activation::Elu => self.elu(x, 1.0),
            Activation::LeakyRelu => {
                let small = self.with(BinaryOp::Mul, x, 0.01)?;
                self.positive_or(x, small)
            }
            Activation::Softplus => {
                // x / 2 + |x| / 2 + ln(1 + e^-|x|): the halves are exact, and the slopes add up to that of the whole at 0.
                let magnitude = self.unary(UnaryOp::Abs, x)?;
                let minus = self.unary(UnaryOp::Neg, magnitude)?;
                let e = self.unary(UnaryOp::Exp, minus)?;
                let log = self.unary(UnaryOp::Log1p, e)?;
                let (half, size) = (self.with(BinaryOp::Mul, x, 0.5)?, self.with(BinaryOp::Mul, magnitude, 0.5)?);
                let top = self.add(half, size)?;
                self.add(top, log)
            }
            Activation::Sigmoid => self.sigmoid(x),
            Activation::Tanh => self.unary(UnaryOp::Tanh, x),
        }
    }
}
