//! Every rule against finite differences in f64, computed by the reference evaluator.

use std::collections::BTreeSet;

use frit_ir::builder::Builder;
use frit_ir::op::infer::TypeError;
use frit_ir::reference::{Options as EvalOptions, eval_function};
use frit_ir::testing::Rng;
use frit_ir::types::{Dim, TensorType};
use frit_ir::verify::verify;
use frit_ir::{
    BinaryOp, DType, Flag, Function, HostValue, Module, Op, OpClass, Origin, ReduceKind, ScatterKind, Tensor, UnaryOp,
    Value,
};

use super::Grad;
use crate::manager::{Context, Math, Options, Pass, set_numerics};

type Built = Result<Vec<Value>, TypeError>;
type Forward = fn(&mut Builder<'_>, &[Value]) -> Built;

/// Inputs (shape, smallest and largest value) and a forward.
struct Case {
    name: &'static str,
    inputs: &'static [(&'static [usize], f64, f64)],
    forward: Forward,
}

const STEP: f64 = 1e-6;
const TOLERANCE: f64 = 1e-6;

fn known(dims: &[usize]) -> Vec<Dim> {
    dims.iter().map(|&d| Dim::from(d)).collect()
}

fn f64s(shape: &[usize], values: &[f64]) -> Tensor {
    Tensor::from_slice(DType::F64, shape, values).unwrap()
}

fn numbers(value: &HostValue) -> Vec<f64> {
    let HostValue::Tensor(t) = value else { panic!("a tensor") };
    frit_ir::convert::to_f64s(t).unwrap()
}

/// The forward as a function, and the same as a `vjp` of all outputs by all inputs.
fn functions(case: &Case) -> (Function, Function) {
    let mut forward = Function::new("");
    let inputs: Vec<Value> = case
        .inputs
        .iter()
        .enumerate()
        .map(|(i, (shape, _, _))| forward.add_input(&format!("x{i}"), TensorType::new(DType::F64, known(shape))))
        .collect();
    let mut b = Builder::new(&mut forward, Origin::named(case.name));
    let outputs = (case.forward)(&mut b, &inputs).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    for (i, value) in outputs.iter().enumerate() {
        forward.add_output(&format!("y{i}"), *value);
    }
    let mut f = Function::new("infer");
    let signature = forward.signature();
    let mut operands = Vec::new();
    for (i, ty) in signature.inputs.iter().chain(&signature.outputs).enumerate() {
        operands.push(f.add_input(&format!("in{i}"), ty.clone()));
    }
    let op = Op::Vjp { of: signature.outputs.len(), wrt: (0..inputs.len()).collect() };
    let node = f.add_op(op, &operands, vec![forward.clone()], &Origin::named("vjp")).unwrap();
    for result in 0..signature.outputs.len() + inputs.len() {
        f.add_output(&format!("out{result}"), Value { node, result });
    }
    (forward, f)
}

fn expanded(f: Function, math: Math) -> Module {
    let mut module = Module::of(f);
    let options = Options { math, ..Options::default() };
    set_numerics(&mut module, math.numerics().unwrap());
    Grad.run(&mut module, &mut Context::new(&options)).unwrap_or_else(|e| panic!("{e}"));
    verify(&module).unwrap();
    module
}

fn eval(module: &Module, f: &Function, inputs: &[HostValue]) -> Vec<HostValue> {
    eval_function(module, f, inputs, EvalOptions::default()).unwrap_or_else(|e| panic!("{e}"))
}

/// Compares gradients with central differences of sum(output cotangent).
fn check(case: &Case) {
    let (forward, backward) = functions(case);
    let mut rng = Rng::new(case.name.bytes().map(u64::from).sum());
    let draw = |rng: &mut Rng, shape: &[usize], low: f64, high: f64| -> Vec<f64> {
        (0..shape.iter().product()).map(|_| low + (high - low) * (rng.signed_unit() + 1.0) / 2.0).collect()
    };
    let mut inputs: Vec<Vec<f64>> = case.inputs.iter().map(|(s, low, high)| draw(&mut rng, s, *low, *high)).collect();
    let host = |inputs: &[Vec<f64>]| -> Vec<HostValue> {
        inputs.iter().zip(case.inputs).map(|(v, (s, _, _))| HostValue::Tensor(f64s(s, v))).collect()
    };
    let empty = Module::default();
    let values = eval(&empty, &forward, &host(&inputs));
    let cotangents: Vec<Tensor> = values
        .iter()
        .map(|v| {
            let HostValue::Tensor(t) = v else { panic!("a tensor") };
            f64s(t.shape(), &draw(&mut rng, t.shape(), -1.0, 1.0))
        })
        .collect();
    let scalar = |inputs: &[Vec<f64>]| -> f64 {
        let out = eval(&empty, &forward, &host(inputs));
        let each = out.iter().zip(&cotangents).flat_map(|(y, g)| {
            let g = frit_ir::convert::to_f64s(g).unwrap();
            numbers(y).into_iter().zip(g).map(|(y, g)| y * g).collect::<Vec<_>>()
        });
        each.sum()
    };
    for math in [Math::Strict, Math::Fast] {
        let module = expanded(backward.clone(), math);
        let mut all = host(&inputs);
        all.extend(cotangents.iter().cloned().map(HostValue::Tensor));
        let found = eval(&module, module.entry().unwrap(), &all);
        for (y, expected) in found.iter().zip(&values) {
            for (a, b) in numbers(y).iter().zip(numbers(expected)) {
                assert!((a - b).abs() <= 1e-9 * (1.0 + b.abs()), "{}: forward {a}, expected {b}", case.name);
            }
        }
        for i in 0..inputs.len() {
            let gradient = numbers(&found[values.len() + i]);
            for j in 0..inputs[i].len() {
                let x = inputs[i][j];
                inputs[i][j] = x + STEP;
                let above = scalar(&inputs);
                inputs[i][j] = x - STEP;
                let below = scalar(&inputs);
                inputs[i][j] = x;
                let expected = (above - below) / (2.0 * STEP);
                let error = (gradient[j] - expected).abs();
                assert!(
                    error <= TOLERANCE * (1.0 + expected.abs()),
                    "{} ({math:?}): d/dx{i}[{j}] is {}, by differences {expected}",
                    case.name,
                    gradient[j]
                );
            }
        }
    }
}

fn one(value: Result<Value, TypeError>) -> Built {
    Ok(vec![value?])
}

/// A unary op as a case; the op is found by the case's name.
fn unary(b: &mut Builder<'_>, x: &[Value]) -> Built {
    let name = b.origin.name.clone().unwrap();
    one(b.unary(UnaryOp::from_name(&name).unwrap(), x[0]))
}

fn binary(b: &mut Builder<'_>, x: &[Value]) -> Built {
    let name = b.origin.name.clone().unwrap();
    one(b.binary(BinaryOp::from_name(&name).unwrap(), x[0], x[1]))
}

macro_rules! case {
    ($name:literal, [$($shape:expr, $low:literal, $high:literal);*], $forward:expr) => {
        Case { name: $name, inputs: &[$((&$shape, $low, $high)),*], forward: $forward }
    };
}

fn indices(b: &mut Builder<'_>, values: &[i64]) -> Result<Value, TypeError> {
    b.constant(Tensor::i64(&[values.len()], values).unwrap())
}

fn slid(axes: &[usize], sizes: &[usize], strides: &[usize], dilations: &[usize], low: &[usize], high: &[usize]) -> Op {
    Op::Window {
        axes: axes.to_vec(),
        sizes: sizes.to_vec(),
        strides: strides.to_vec(),
        dilations: dilations.to_vec(),
        low: low.to_vec(),
        high: high.to_vec(),
    }
}

/// Windows of 3 x 2 over the last two axes of [2, 5, 4], `value` outside, reduced.
fn pooled(b: &mut Builder<'_>, x: Value, value: f64, kind: ReduceKind) -> Built {
    let value = b.scalar(DType::F64, value)?;
    let windows = b.op(slid(&[1, 2], &[3, 2], &[2, 1], &[1, 2], &[1, 0], &[0, 1]), &[x, value])?;
    one(b.reduce(windows, vec![3, 4], kind, false))
}

fn conv_cases() -> Vec<Case> {
    fn conv(b: &mut Builder<'_>, x: &[Value], strides: [usize; 2], dilations: [usize; 2], groups: usize) -> Built {
        let (strides, dilations) = (strides.to_vec(), dilations.to_vec());
        one(b.op(Op::Conv { strides, dilations, low: vec![1, 0], high: vec![2, 1], groups }, x))
    }
    fn back(b: &mut Builder<'_>, x: &[Value], strides: [usize; 2], dilations: [usize; 2], groups: usize) -> Built {
        let (strides, dilations) = (strides.to_vec(), dilations.to_vec());
        let output_padding = vec![usize::from(strides[0] > 1), 0];
        one(b
            .op(Op::ConvTranspose { strides, dilations, low: vec![1, 0], high: vec![0, 1], output_padding, groups }, x))
    }
    vec![
        case!("conv", [[2, 4, 5, 4], -1.0, 1.0; [6, 4, 3, 2], -1.0, 1.0], |b, x| conv(b, x, [1, 1], [1, 1], 1)),
        case!("conv strided", [[2, 4, 7, 6], -1.0, 1.0; [6, 2, 3, 2], -1.0, 1.0], |b, x| conv(b, x, [3, 2], [2, 1], 2)),
        case!("conv depthwise", [[1, 3, 4, 4], -1.0, 1.0; [3, 1, 2, 3], -1.0, 1.0], |b, x| conv(b, x, [2, 1], [1, 2], 3)),
        case!("conv_transpose", [[2, 4, 3, 4], -1.0, 1.0; [4, 3, 3, 2], -1.0, 1.0], |b, x| back(b, x, [1, 1], [1, 1], 1)),
        case!("conv_transpose strided", [[2, 4, 3, 2], -1.0, 1.0; [4, 3, 3, 2], -1.0, 1.0],
            |b, x| back(b, x, [2, 3], [2, 1], 2)),
    ]
}

fn movement_cases() -> Vec<Case> {
    vec![
        case!("broadcast", [[3, 1], -1.0, 1.0], |b, x| one(b.broadcast_to(x[0], known(&[2, 3, 4])))),
        case!("reshape", [[3, 4], -1.0, 1.0], |b, x| one(b.reshape(x[0], known(&[2, 6])))),
        case!("transpose", [[2, 3, 4], -1.0, 1.0], |b, x| one(b.transpose(x[0], vec![2, 0, 1]))),
        case!("slice", [[7, 6], -1.0, 1.0], |b, x| {
            let op = Op::Slice { starts: known(&[1, 5]), sizes: known(&[3, 3]), steps: vec![2, -2] };
            one(b.op(op, x))
        }),
        case!("dynamic_slice", [[7, 6], -1.0, 1.0], |b, x| {
            let (i, j) = (b.dim(Dim::Known(2))?, b.dim(Dim::Known(9))?);
            one(b.op(Op::DynamicSlice { sizes: known(&[3, 2]) }, &[x[0], i, j]))
        }),
        case!("update_slice", [[5, 4], -1.0, 1.0; [2, 2], -1.0, 1.0], |b, x| {
            let (i, j) = (b.dim(Dim::Known(2))?, b.dim(Dim::Known(9))?);
            one(b.op(Op::UpdateSlice {}, &[x[0], x[1], i, j]))
        }),
        case!("pad", [[2, 3], -1.0, 1.0; [], -1.0, 1.0], |b, x| {
            one(b.op(Op::Pad { low: known(&[1, 0]), high: known(&[0, 2]) }, x))
        }),
        case!("concat", [[2, 3], -1.0, 1.0; [2, 1], -1.0, 1.0], |b, x| one(b.op(Op::Concat { axis: 1 }, x))),
        case!("gather", [[3, 4], -1.0, 1.0], |b, x| {
            let places = b.constant(Tensor::i64(&[2, 3], &[3, 0, 3, 1, 1, 3]).unwrap())?;
            one(b.op(Op::Gather { axis: 1 }, &[x[0], places]))
        }),
        case!("scatter", [[4, 2], -1.0, 1.0; [3, 2], -1.0, 1.0], |b, x| {
            let places = indices(b, &[2, 0, 2])?;
            one(b.op(Op::Scatter { axis: 0, kind: ScatterKind::Assign }, &[x[0], places, x[1]]))
        }),
        case!("scatter add", [[4, 2], -1.0, 1.0; [3, 2], -1.0, 1.0], |b, x| {
            let places = indices(b, &[2, 0, 2])?;
            one(b.op(Op::Scatter { axis: 0, kind: ScatterKind::Add }, &[x[0], places, x[1]]))
        }),
        case!("scatter max", [[4, 2], -1.0, 1.0; [3, 2], -1.0, 1.0], |b, x| {
            let places = indices(b, &[2, 0, 2])?;
            one(b.op(Op::Scatter { axis: 0, kind: ScatterKind::Max }, &[x[0], places, x[1]]))
        }),
        case!("scatter mul", [[4, 2], -1.0, 1.0], |b, x| {
            let (places, factors) = (indices(b, &[2, 0, 2])?, b.constant(f64s(&[3, 2], &[2., 3., 5., 7., 0., 1.]))?);
            one(b.op(Op::Scatter { axis: 0, kind: ScatterKind::Mul }, &[x[0], places, factors]))
        }),
        case!("window", [[2, 5, 4], -1.0, 1.0], |b, x| {
            let value = b.scalar(DType::F64, 0.0)?;
            one(b.op(slid(&[1, 2], &[3, 2], &[2, 1], &[1, 2], &[1, 0], &[0, 1]), &[x[0], value]))
        }),
        case!("window summed", [[2, 5, 4], -1.0, 1.0], |b, x| pooled(b, x[0], 0.0, ReduceKind::Sum)),
        case!("window largest", [[2, 5, 4], -1.0, 1.0], |b, x| pooled(b, x[0], f64::NEG_INFINITY, ReduceKind::Max)),
        case!("windows side by side", [[2, 5, 6], -1.0, 1.0], |b, x| {
            let value = b.scalar(DType::F64, 0.0)?;
            one(b.op(slid(&[1, 2], &[2, 3], &[2, 3], &[1, 1], &[0, 0], &[0, 0]), &[x[0], value]))
        }),
        case!("windows side by side, largest", [[2, 4, 5], -1.0, 1.0], |b, x| {
            let value = b.scalar(DType::F64, f64::NEG_INFINITY)?;
            let windows = b.op(slid(&[1, 2], &[2, 2], &[2, 2], &[1, 1], &[0, 0], &[0, 0]), &[x[0], value])?;
            one(b.reduce(windows, vec![3, 4], ReduceKind::Max, false))
        }),
        case!("windows side by side, over the end", [[2, 5, 4], -1.0, 1.0], |b, x| {
            let value = b.scalar(DType::F64, 0.0)?;
            let windows = b.op(slid(&[1], &[2], &[2], &[1], &[0], &[1]), &[x[0], value])?;
            one(b.reduce(windows, vec![3], ReduceKind::Sum, false))
        }),
    ]
}

fn reduction_cases() -> Vec<Case> {
    vec![
        case!("sum", [[3, 4, 2], -1.0, 1.0], |b, x| one(b.reduce(x[0], vec![0, 2], ReduceKind::Sum, false))),
        case!("prod", [[3, 4, 2], -1.0, 1.0], |b, x| one(b.reduce(x[0], vec![0, 2], ReduceKind::Prod, false))),
        case!("max", [[3, 4, 2], -1.0, 1.0], |b, x| one(b.reduce(x[0], vec![1], ReduceKind::Max, true))),
        case!("min of all", [[3, 4], -1.0, 1.0], |b, x| one(b.reduce(x[0], vec![0, 1], ReduceKind::Min, false))),
        case!("cumulate", [[3, 4], -1.0, 1.0], |b, x| {
            let op = |exclusive, reverse| Op::Cumulate { axis: 1, kind: ReduceKind::Sum, exclusive, reverse };
            Ok(vec![b.op(op(false, false), x)?, b.op(op(true, true), x)?])
        }),
        case!("sort", [[3, 5], -1.0, 1.0; [3, 5], -1.0, 1.0], |b, x| {
            let op = Op::Sort { axis: 1, descending: true };
            let node = b.function.add_op(op, x, Vec::new(), &Origin::named("sort"))?;
            Ok(vec![Value { node, result: 0 }, Value { node, result: 1 }])
        }),
        case!("softmax", [[3, 4], -2.0, 2.0], |b, x| {
            let top = b.reduce(x[0], vec![1], ReduceKind::Max, true)?;
            let shifted = b.binary(BinaryOp::Sub, x[0], top)?;
            let e = b.unary(UnaryOp::Exp, shifted)?;
            let sum = b.reduce(e, vec![1], ReduceKind::Sum, true)?;
            one(b.binary(BinaryOp::Div, e, sum))
        }),
    ]
}

fn contraction_cases() -> Vec<Case> {
    vec![
        case!("dot_general", [[3, 4], -1.0, 1.0; [4, 2], -1.0, 1.0], |b, x| {
            let (lhs_batch, rhs_batch) = (vec![], vec![]);
            let (lhs_contract, rhs_contract) = (vec![1], vec![0]);
            one(b.op(Op::DotGeneral { lhs_batch, rhs_batch, lhs_contract, rhs_contract, accumulate: DType::F64 }, x))
        }),
        case!("dot_general batched", [[4, 2, 3, 5], -1.0, 1.0; [5, 3, 2, 2, 4], -1.0, 1.0], |b, x| {
            // Axes in no order at all.
            let (lhs_batch, rhs_batch) = (vec![1], vec![3]);
            let (lhs_contract, rhs_contract) = (vec![3, 0], vec![0, 4]);
            one(b.op(Op::DotGeneral { lhs_batch, rhs_batch, lhs_contract, rhs_contract, accumulate: DType::F64 }, x))
        }),
    ]
}

/// A region with inputs of these types.
fn region(types: &[TensorType], build: impl Fn(&mut Builder<'_>, &[Value]) -> Built) -> Function {
    let mut f = Function::new("");
    let inputs: Vec<Value> =
        types.iter().enumerate().map(|(i, ty)| f.add_input(&format!("r{i}"), ty.clone())).collect();
    let mut b = Builder::new(&mut f, Origin::named("region"));
    let outputs = build(&mut b, &inputs).unwrap();
    for (i, v) in outputs.into_iter().enumerate() {
        f.add_output(&format!("o{i}"), v);
    }
    f
}

fn control_cases() -> Vec<Case> {
    fn branch(b: &mut Builder<'_>, x: &[Value], condition: f64) -> Built {
        let ty = b.tensor(x[0])?;
        let types = [ty.clone(), ty];
        let first = region(&types, |b, x| one(b.binary(BinaryOp::Mul, x[0], x[1])));
        let second = region(&types, |b, x| one(b.unary(UnaryOp::Sin, x[0])));
        let condition = b.scalar(DType::Bool, condition)?;
        let node = b.function.add_op(Op::If {}, &[condition, x[0], x[1]], vec![first, second], &Origin::named("if"))?;
        Ok(vec![Value { node, result: 0 }])
    }
    vec![
        case!("if", [[3], -1.0, 1.0; [3], -1.0, 1.0], |b, x| branch(b, x, 1.0)),
        case!("if not", [[3], -1.0, 1.0; [3], -1.0, 1.0], |b, x| branch(b, x, 0.0)),
        // h = tanh(h w + x_i), h stacked: what recurrent networks do.
        case!("loop", [[3], -1.0, 1.0; [3, 3], -1.0, 1.0; [4, 3], -1.0, 1.0], |b, x| {
            let types: Vec<TensorType> = [TensorType::scalar(DType::I64), TensorType::scalar(DType::Bool)]
                .into_iter()
                .chain([b.tensor(x[0])?, b.tensor(x[1])?, b.tensor(x[2])?])
                .collect();
            let body = region(&types, |b, r| {
                let zero = b.dim(Dim::ZERO)?;
                let row = b.op(Op::DynamicSlice { sizes: known(&[1, 3]) }, &[r[4], r[0], zero])?;
                let row = b.reshape(row, known(&[3]))?;
                let dot = Op::DotGeneral {
                    lhs_batch: vec![],
                    rhs_batch: vec![],
                    lhs_contract: vec![0],
                    rhs_contract: vec![0],
                    accumulate: DType::F64,
                };
                let product = b.op(dot, &[r[2], r[3]])?;
                let sum = b.binary(BinaryOp::Add, product, row)?;
                let h = b.unary(UnaryOp::Tanh, sum)?;
                let square = b.binary(BinaryOp::Mul, h, h)?;
                Ok(vec![r[1], h, square])
            });
            let (trips, condition) = (b.dim(Dim::Known(4))?, b.scalar(DType::Bool, 1.0)?);
            let op = Op::Loop { carried: 1, trips: Dim::Known(4) };
            let operands = [trips, condition, x[0], x[1], x[2]];
            let node = b.function.add_op(op, &operands, vec![body], &Origin::named("loop"))?;
            Ok(vec![Value { node, result: 0 }, Value { node, result: 1 }])
        }),
        case!("assert", [[3], -1.0, 1.0], |b, x| {
            let condition = b.scalar(DType::Bool, 1.0)?;
            let held = b.op(Op::Assert { message: "never".to_owned() }, &[x[0], condition])?;
            one(b.binary(BinaryOp::Mul, held, held))
        }),
    ]
}

fn elementwise_cases() -> Vec<Case> {
    vec![
        case!("neg", [[5], -2.0, 2.0], unary),
        case!("abs", [[5], -2.0, 2.0], unary),
        case!("sign", [[5], -2.0, 2.0], unary),
        case!("floor", [[5], -2.0, 2.0], unary),
        case!("ceil", [[5], -2.0, 2.0], unary),
        case!("trunc", [[5], -2.0, 2.0], unary),
        case!("round_even", [[5], -2.0, 2.0], unary),
        case!("sqrt", [[5], 0.2, 3.0], unary),
        case!("exp", [[5], -2.0, 2.0], unary),
        case!("expm1", [[5], -2.0, 2.0], unary),
        case!("log", [[5], 0.2, 3.0], unary),
        case!("log1p", [[5], -0.5, 3.0], unary),
        case!("sin", [[5], -2.0, 2.0], unary),
        case!("cos", [[5], -2.0, 2.0], unary),
        case!("tan", [[5], -1.0, 1.0], unary),
        case!("asin", [[5], -0.8, 0.8], unary),
        case!("acos", [[5], -0.8, 0.8], unary),
        case!("atan", [[5], -2.0, 2.0], unary),
        case!("tanh", [[5], -2.0, 2.0], unary),
        case!("erf", [[5], -2.0, 2.0], unary),
        case!("add", [[5], -2.0, 2.0; [5], -2.0, 2.0], binary),
        case!("sub", [[5], -2.0, 2.0; [5], -2.0, 2.0], binary),
        case!("mul", [[5], -2.0, 2.0; [5], -2.0, 2.0], binary),
        case!("div", [[5], -2.0, 2.0; [5], 0.5, 2.0], binary),
        case!("rem", [[5], -3.0, 3.0; [5], 0.7, 0.9], binary),
        case!("pow", [[5], 0.3, 2.0; [5], -2.0, 2.0], binary),
        case!("atan2", [[5], -2.0, 2.0; [5], -2.0, 2.0], binary),
        case!("min", [[5], -2.0, 2.0; [5], -2.0, 2.0], binary),
        case!("max", [[5], -2.0, 2.0; [5], -2.0, 2.0], binary),
        case!("pow of a constant", [[5], -2.0, 2.0], |b, x| {
            let five = b.scalar(DType::F64, 5.0)?;
            one(b.binary(BinaryOp::Pow, x[0], five))
        }),
        case!("clip", [[9], -2.0, 2.0], |b, x| {
            let (low, high) = (b.scalar(DType::F64, -0.5)?, b.scalar(DType::F64, 1.0)?);
            let above = b.binary(BinaryOp::Max, x[0], low)?;
            one(b.binary(BinaryOp::Min, above, high))
        }),
        case!("select", [[5], -2.0, 2.0; [5], -2.0, 2.0], |b, x| {
            let zero = b.scalar(DType::F64, 0.0)?;
            let c = b.binary(BinaryOp::Lt, x[0], zero)?;
            let operands = b.broadcast_all(&[c, x[0], x[1]])?;
            one(b.op(Op::Select { likely: Flag(false) }, &operands))
        }),
        // f32 in between is too coarse for differences; f64 to f64 by way of itself tells the rule.
        case!("cast", [[5], -2.0, 2.0], |b, x| one(b.op(Op::Cast { to: DType::F64, saturate: false }, x))),
    ]
}

fn cases() -> Vec<Case> {
    [elementwise_cases(), movement_cases(), reduction_cases(), contraction_cases(), conv_cases(), control_cases()]
        .into_iter()
        .flatten()
        .collect()
}

#[test]
fn every_rule_agrees_with_finite_differences() {
    for case in cases() {
        check(&case);
    }
}

/// Ops that no float flows through, or that are not there when gradients are taken, or that are refused.
const WITHOUT: &[&str] = &[
    "not",
    "and",
    "or",
    "xor",
    "shl",
    "shr",
    "eq",
    "lt",
    "le",
    "input",
    "constant",
    "param",
    "iota",
    "dim",
    "bitcast",
    "compact",
    "call",
    "composite",
    "fusion",
    "vjp",
    "sequence_construct",
    "sequence_at",
    "sequence_insert",
    "sequence_erase",
    "sequence_length",
    "absent",
    "onnx",
];

#[test]
fn every_op_has_a_case_or_no_gradient() {
    let mut seen: BTreeSet<&'static str> = WITHOUT.iter().copied().collect();
    for case in cases() {
        let (forward, _) = functions(&case);
        seen.extend(forward.nodes().iter().map(|id| forward.node(*id).op.name()));
    }
    let words = UnaryOp::ALL.iter().map(|u| u.name()).chain(BinaryOp::ALL.iter().map(|b| b.name()));
    let missing: Vec<&str> =
        words.chain(Op::DOCS.iter().map(|(word, _, _)| *word)).filter(|word| !seen.contains(word)).collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
    assert!(Op::DOCS.iter().any(|(_, class, _)| *class == OpClass::Foreign));
}

/// The gradient of sum(output) by input 0, at given values.
fn gradient_at(forward: Forward, values: &[f64]) -> Vec<f64> {
    let inputs: &'static [(&'static [usize], f64, f64)] = match values.len() {
        3 => &[(&[3], 0.0, 0.0)],
        4 => &[(&[4], 0.0, 0.0)],
        5400 => &[(&[5400], 0.0, 0.0)],
        n => panic!("no input of {n} values"),
    };
    let case = Case { name: "at", inputs, forward };
    let (forward, backward) = functions(&case);
    let module = expanded(backward, Math::Fast);
    let outputs = forward.signature().outputs;
    let x = HostValue::Tensor(f64s(&[values.len()], values));
    let mut all = vec![x];
    for ty in &outputs {
        let shape: Vec<usize> = ty.tensor().unwrap().known_dims().unwrap();
        let n = shape.iter().product();
        all.push(HostValue::Tensor(f64s(&shape, &vec![1.0; n])));
    }
    numbers(&eval(&module, module.entry().unwrap(), &all)[outputs.len()])
}

#[test]
fn ties_are_shared_or_go_where_pytorch_sends_them() {
    let relu: Forward = |b, x| {
        let zero = b.scalar(DType::F64, 0.0)?;
        one(b.binary(BinaryOp::Max, x[0], zero))
    };
    assert_eq!(gradient_at(relu, &[-1.0, 0.0, 2.0]), [0.0, 0.0, 1.0]);
    let largest: Forward = |b, x| one(b.reduce(x[0], vec![0], ReduceKind::Max, false));
    assert_eq!(gradient_at(largest, &[2.0, 1.0, 2.0]), [0.5, 0.0, 0.5]);
    let pooled: Forward = |b, x| {
        let low = b.scalar(DType::F64, f64::NEG_INFINITY)?;
        let windows = b.op(slid(&[0], &[2], &[2], &[1], &[0], &[0]), &[x[0], low])?;
        one(b.reduce(windows, vec![1], ReduceKind::Max, false))
    };
    assert_eq!(gradient_at(pooled, &[3.0, 3.0, 0.0, 1.0]), [1.0, 0.0, 0.0, 1.0]);
}

#[test]
fn ties_of_a_large_tensor_are_counted_by_row_and_place() {
    const WEIGHTS: [f64; 6] = [1.0, 2.0, 4.0, -5.0, 0.5, 4.0];
    // The product of 90 x 60 values and six weights is computed; then its extremes.
    let extremes: Forward = |b, x| {
        let dims = [90, 60, 6].map(Dim::Known).to_vec();
        let weights = b.constant(f64s(&[6], &WEIGHTS))?;
        let weights = b.op(Op::Broadcast { dims: dims.clone(), axes: vec![2] }, &[weights])?;
        let x = b.reshape(x[0], dims[..2].to_vec())?;
        let x = b.op(Op::Broadcast { dims, axes: vec![0, 1] }, &[x])?;
        let x = b.binary(BinaryOp::Mul, x, weights)?;
        let largest = b.reduce(x, vec![0, 1, 2], ReduceKind::Max, false)?;
        let least = b.reduce(x, vec![0, 1, 2], ReduceKind::Min, false)?;
        let twice = b.binary(BinaryOp::Add, least, least)?;
        one(b.binary(BinaryOp::Add, largest, twice))
    };
    // 12 at two places of some rows, -15 at another.
    let x: Vec<f64> = (0..90 * 60).map(|i| if i % 77 == 0 { 3.0 } else { f64::from(i % 5) / 2.0 }).collect();
    let count = x.iter().filter(|v| **v == 3.0).count() as f64;
    let expected = x.iter().map(|v| if *v == 3.0 { (2.0 * 4.0) / (2.0 * count) - 2.0 * 5.0 / count } else { 0.0 });
    for (i, (found, expected)) in gradient_at(extremes, &x).into_iter().zip(expected).enumerate() {
        assert!((found - expected).abs() < 1e-12, "{i}: {found} {expected}");
    }
}

#[test]
fn a_tail_that_overflows_gives_zero() {
    let sigmoid: Forward = |b, x| {
        let minus = b.unary(UnaryOp::Neg, x[0])?;
        let e = b.unary(UnaryOp::Exp, minus)?;
        let one = b.scalar(DType::F64, 1.0)?;
        let below = b.binary(BinaryOp::Add, e, one)?;
        Ok(vec![b.binary(BinaryOp::Div, one, below)?])
    };
    assert_eq!(gradient_at(sigmoid, &[-2000.0, 0.0, 2000.0]), [0.0, 0.25, 0.0]);
}

/// Ops that are left of a gradient: those of a fused kernel or a lone op count alike.
fn ops_of(case: &Case) -> Vec<&'static str> {
    let (_, backward) = functions(case);
    let module = expanded(backward, Math::Fast);
    let f = module.entry().unwrap();
    f.nodes().iter().map(|id| f.node(*id).op.name()).collect()
}

#[test]
fn nothing_flows_through_what_a_softmax_does_not_see() {
    let softmax: Forward = |b, x| {
        let t = b.binary(BinaryOp::Add, x[0], x[1])?;
        let top = b.reduce(t, vec![1], ReduceKind::Max, true)?;
        let shifted = b.binary(BinaryOp::Sub, t, top)?;
        let e = b.unary(UnaryOp::Exp, shifted)?;
        let sum = b.reduce(e, vec![1], ReduceKind::Sum, true)?;
        let a = b.binary(BinaryOp::Div, e, sum)?;
        one(b.binary(BinaryOp::Mul, a, x[2]))
    };
    let case =
        Case { name: "attention", inputs: &[(&[3, 4], -2., 2.), (&[], -1., 1.), (&[3, 4], -1., 1.)], forward: softmax };
    check(&case);
    // No ties are looked for.
    let eqs = |case: &Case| ops_of(case).iter().filter(|op| **op == "eq").count();
    assert_eq!(eqs(&case), 1, "the guard of e^x alone");
    let log_softmax: Forward = |b, x| {
        let top = b.reduce(x[0], vec![1], ReduceKind::Max, true)?;
        let t = b.binary(BinaryOp::Sub, x[0], top)?;
        let e = b.unary(UnaryOp::Exp, t)?;
        let sum = b.reduce(e, vec![1], ReduceKind::Sum, true)?;
        let log = b.unary(UnaryOp::Log, sum)?;
        one(b.binary(BinaryOp::Sub, t, log))
    };
    let case = Case { name: "log softmax", inputs: &[(&[3, 4], -2., 2.)], forward: log_softmax };
    check(&case);
    assert_eq!(eqs(&case), 1);
    // The sum is used besides: the shift is seen.
    let seen: Forward = |b, x| {
        let top = b.reduce(x[0], vec![1], ReduceKind::Max, true)?;
        let t = b.binary(BinaryOp::Sub, x[0], top)?;
        let e = b.unary(UnaryOp::Exp, t)?;
        let sum = b.reduce(e, vec![1], ReduceKind::Sum, true)?;
        Ok(vec![b.binary(BinaryOp::Div, e, sum)?, sum])
    };
    let case = Case { name: "sum seen", inputs: &[(&[3, 4], -2., 2.)], forward: seen };
    check(&case);
    assert_eq!(eqs(&case), 2);
}

#[test]
fn what_has_no_gradient_is_named() {
    let list: Forward = |b, x| {
        let element = b.function.ty(x[0]).clone();
        let node = b.function.add_op(Op::SequenceConstruct { element }, x, Vec::new(), &Origin::named("list"))?;
        let at = b.dim(Dim::ZERO)?;
        one(b.op(Op::SequenceAt {}, &[Value { node, result: 0 }, at]))
    };
    let case = Case { name: "a list", inputs: &[(&[3], -1.0, 1.0)], forward: list };
    let (_, backward) = functions(&case);
    let mut module = Module::of(backward);
    let options = Options::default();
    let error = Grad.run(&mut module, &mut Context::new(&options)).unwrap_err();
    assert!(!error.is_internal());
    let text = error.to_string();
    assert!(text.starts_with("`sequence_at` (a list) has no gradient"), "{text}");
}
