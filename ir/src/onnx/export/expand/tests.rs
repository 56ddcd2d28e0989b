//! Expanded functions give what the original gives, on every type and at every corner, by the reference evaluator.

use super::*;
use crate::convert::to_f64s;
use crate::op::{BinaryOp, OpClass, ReduceKind, ScatterKind, UnaryOp};
use crate::reference::{Options, eval_function};
use crate::testing::{self, Rng};
use crate::types::{Class, Dim};
use crate::value::HostValue;

const NUMBERS: [DType; 12] = [
    DType::F32,
    DType::F64,
    DType::F16,
    DType::BF16,
    DType::I8,
    DType::I16,
    DType::I32,
    DType::I64,
    DType::U8,
    DType::U16,
    DType::U32,
    DType::U64,
];

fn bytes_of(dtype: DType, value: f64) -> Vec<u8> {
    crate::convert::scalar(dtype, value).expect("a number").bytes().to_vec()
}

fn tensor(dtype: DType, shape: &[usize], values: &[Vec<u8>]) -> HostValue {
    Tensor::from_bytes(dtype, shape, &values.concat()).expect("sizes agree").into()
}

/// Corners of a type, as bytes.
fn corners(dtype: DType) -> Vec<Vec<u8>> {
    if dtype.is_float() {
        let plain = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 3.0, -7.0, 1e-7, -1e-7, 0.3, -0.8, 20.0, -20.0];
        let far = [87.0, -103.0, 129.0, 300.0, 2147483648.0, -2147483648.0, 1e19, f64::INFINITY, f64::NEG_INFINITY];
        return plain.iter().chain(&far).chain(&[f64::NAN]).map(|&v| bytes_of(dtype, v)).collect();
    }
    if dtype == DType::Bool {
        return vec![vec![0], vec![1]];
    }
    let bits = dtype.bits();
    let (low, high): (i128, i128) =
        if dtype.class() == Class::Signed { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) };
    let near = [0, 1, 2, 3, 7, -1, -2, -5, i128::from(bits) - 1, i128::from(bits), i128::from(bits) + 3];
    let all = near.into_iter().chain([low, low + 1, high - 1, high]).filter(|v| (low..=high).contains(v));
    all.map(|v| v.to_le_bytes()[..dtype.size()].to_vec()).collect()
}

/// Every pair of corners.
fn pairs(dtype: DType) -> [HostValue; 2] {
    let all = corners(dtype);
    let n = all.len();
    let left: Vec<Vec<u8>> = (0..n * n).map(|i| all[i / n].clone()).collect();
    let right: Vec<Vec<u8>> = (0..n * n).map(|i| all[i % n].clone()).collect();
    [tensor(dtype, &[n * n], &left), tensor(dtype, &[n * n], &right)]
}

fn single(op: Op, inputs: &[HostValue]) -> Function {
    let mut f = Function::new("infer");
    let operands: Vec<Value> = inputs
        .iter()
        .enumerate()
        .map(|(i, v)| f.add_input(&format!("x{i}"), v.tensor().expect("a tensor").ty()))
        .collect();
    let node = f.add_op(op, &operands, vec![], &Origin::named("op")).expect("typed");
    for result in 0..f.node(node).results().len() {
        f.add_output(&format!("y{result}"), Value { node, result });
    }
    f
}

/// What both give; they are the same within `ulp` units of the type's last place.
#[track_caller]
fn check(f: &Function, inputs: &[HostValue], ulp: f64) {
    let module = Module::default();
    let expanded = expand(&module, f).unwrap_or_else(|e| panic!("{e}"));
    crate::verify::verify(&Module::of(expanded.clone())).unwrap_or_else(|e| panic!("{e}"));
    let run = |f: &Function| eval_function(&module, f, inputs, Options::default()).unwrap_or_else(|e| panic!("{e}"));
    for (wanted, found) in run(f).iter().zip(&run(&expanded)) {
        if wanted == found {
            continue;
        }
        let (w, n) = (wanted.tensor().expect("a tensor"), found.tensor().expect("a tensor"));
        assert_eq!((w.dtype(), w.shape()), (n.dtype(), n.shape()));
        let last = match w.dtype() {
            DType::F64 => f64::EPSILON,
            DType::F32 => f64::from(f32::EPSILON),
            DType::F16 => 2f64.powi(-10),
            _ => 2f64.powi(-7),
        };
        let (Some(a), Some(b)) = (to_f64s(w), to_f64s(n)) else { panic!("{w:?}: {:?} {:?}", w.bytes(), n.bytes()) };
        for (i, (a, b)) in a.iter().zip(&b).enumerate() {
            let same = a == b && a.is_sign_negative() == b.is_sign_negative() || a.is_nan() && b.is_nan();
            assert!(same || (a - b).abs() <= ulp * last * a.abs(), "{} element {i}: {b:e}, expected {a:e}", w.dtype());
        }
    }
}

#[test]
fn unary_ops_on_every_type_and_corner() {
    for &op in UnaryOp::ALL {
        for dtype in NUMBERS.into_iter().chain([DType::Bool]) {
            let values = corners(dtype);
            let x = tensor(dtype, &[values.len()], &values);
            let mut f = Function::new("infer");
            let input = f.add_input("x", x.tensor().expect("a tensor").ty());
            let Ok(node) = f.add_op(Op::Unary(op), &[input], vec![], &Origin::named("op")) else { continue };
            f.add_output("y", Value { node, result: 0 });
            let ulp = match op {
                UnaryOp::Expm1 | UnaryOp::Log1p => 4.0,
                // The quotient of two functions that are off by an ulp each.
                UnaryOp::Tan => 3.0,
                _ => 0.0,
            };
            check(&f, &[x], ulp);
        }
    }
}

#[test]
fn binary_ops_on_every_type_and_pair_of_corners() {
    for &op in BinaryOp::ALL {
        for dtype in NUMBERS.into_iter().chain([DType::Bool]) {
            let inputs = pairs(dtype);
            let mut f = Function::new("infer");
            let ty = inputs[0].tensor().expect("a tensor").ty();
            let operands = [f.add_input("a", ty.clone()), f.add_input("b", ty)];
            let Ok(node) = f.add_op(Op::Binary(op), &operands, vec![], &Origin::named("op")) else { continue };
            f.add_output("y", Value { node, result: 0 });
            check(&f, &inputs, if op == BinaryOp::Atan2 { 3.0 } else { 0.0 });
        }
    }
}

#[test]
fn small_numbers_keep_their_digits() {
    for dtype in [DType::F32, DType::F64] {
        let values: Vec<Vec<u8>> =
            (1..400).flat_map(|i| [1.0, -1.0].map(|s| bytes_of(dtype, s * 10f64.powf(-f64::from(i) / 45.0)))).collect();
        let x = tensor(dtype, &[values.len()], &values);
        for op in [UnaryOp::Expm1, UnaryOp::Log1p] {
            check(&single(Op::Unary(op), std::slice::from_ref(&x)), std::slice::from_ref(&x), 5.0);
        }
    }
}

#[test]
fn known_divisors_and_counts_need_no_guard() {
    for (op, value) in [(BinaryOp::Div, 3.0), (BinaryOp::Rem, 7.0), (BinaryOp::Shr, 3.0), (BinaryOp::Shl, 9.0)] {
        for dtype in NUMBERS.into_iter().filter(|d| d.is_int()) {
            let values = corners(dtype);
            let x = tensor(dtype, &[values.len()], &values);
            let mut f = Function::new("infer");
            let input = f.add_input("x", x.tensor().expect("a tensor").ty());
            let mut b = Builder::new(&mut f, Origin::named("op"));
            let by = b.scalar(dtype, value).expect("a scalar");
            let y = b.binary(op, input, by).expect("typed");
            f.add_output("y", y);
            check(&f, &[x], 0.0);
            let expanded = expand(&Module::default(), &f).expect("expands");
            if matches!(op, BinaryOp::Div | BinaryOp::Rem) {
                assert_eq!(expanded.len(), 4, "input, constant, broadcast, op");
            }
        }
    }
}

#[test]
fn casts_that_clamp() {
    let floats = [DType::F32, DType::F64, DType::F16, DType::BF16];
    for to in NUMBERS.into_iter().filter(|d| d.is_int()).chain([DType::I4, DType::U4, DType::I2, DType::U2]) {
        for from in NUMBERS.into_iter().chain([DType::Bool]) {
            let values = corners(from);
            let x = tensor(from, &[values.len()], &values);
            check(&single(Op::Cast { to, saturate: true }, std::slice::from_ref(&x)), &[x], 0.0);
        }
        assert!(floats.iter().all(|f| f.is_float()));
    }
}

#[test]
fn reductions_running_and_sorted() {
    let mut rng = Rng::new(7);
    for dtype in NUMBERS.into_iter().chain([DType::Bool]) {
        let all = corners(dtype);
        let mut draw = |n: usize| (0..n).map(|_| rng.pick(&all).cloned().unwrap_or_default()).collect::<Vec<Vec<u8>>>();
        let x = tensor(dtype, &[3, 6, 2], &draw(36));
        let empty = tensor(dtype, &[3, 0, 2], &[]);
        for &kind in ReduceKind::ALL {
            if dtype == DType::Bool && matches!(kind, ReduceKind::Sum | ReduceKind::Prod) {
                continue;
            }
            let is_arg = matches!(kind, ReduceKind::ArgMin | ReduceKind::ArgMax);
            let op = Op::Reduce { axes: vec![1], kind };
            check(&single(op.clone(), std::slice::from_ref(&x)), std::slice::from_ref(&x), 0.0);
            if is_arg {
                continue;
            }
            check(&single(op, std::slice::from_ref(&empty)), std::slice::from_ref(&empty), 0.0);
            for (exclusive, reverse) in [(false, false), (true, false), (false, true), (true, true)] {
                let op = Op::Cumulate { axis: 1, kind, exclusive, reverse };
                check(&single(op, std::slice::from_ref(&x)), std::slice::from_ref(&x), 0.0);
            }
        }
        let index = tensor(DType::I64, &[3, 6, 2], &(0..36i64).map(|i| i.to_le_bytes().to_vec()).collect::<Vec<_>>());
        for descending in [false, true] {
            let inputs = [x.clone(), index.clone()];
            check(&single(Op::Sort { axis: 1, descending }, &inputs), &inputs, 0.0);
        }
        let condition = tensor(DType::Bool, &[3, 6, 2], &(0..36).map(|i| vec![i % 2]).collect::<Vec<_>>());
        let other = tensor(dtype, &[3, 6, 2], &draw(36));
        let inputs = [condition, x.clone(), other];
        check(&single(Op::Select { likely: crate::op::attr::Flag(false) }, &inputs), &inputs, 0.0);
    }
}

#[test]
fn products_of_every_pair_of_types() {
    for left in NUMBERS {
        for right in NUMBERS {
            for accumulate in [DType::F32, DType::F16, DType::BF16, DType::I32, DType::I64, DType::I8, DType::U32] {
                let some = |dtype: DType, n: u8| -> Vec<Vec<u8>> {
                    (0..n).map(|i| bytes_of(dtype, f64::from(i % 5))).collect()
                };
                let inputs = [tensor(left, &[2, 3, 4], &some(left, 24)), tensor(right, &[4, 3], &some(right, 12))];
                let op = Op::DotGeneral {
                    lhs_batch: vec![1],
                    rhs_batch: vec![1],
                    lhs_contract: vec![2],
                    rhs_contract: vec![0],
                    accumulate,
                };
                check(&single(op, &inputs), &inputs, 0.0);
            }
        }
    }
}

#[test]
fn windows_and_integer_convolutions() {
    let count = |dtype: DType, n: usize| (0..n).map(|i| bytes_of(dtype, (i * 7 % 23) as f64)).collect::<Vec<_>>();
    for dtype in [DType::F32, DType::I32, DType::U8, DType::BF16, DType::I16] {
        let inputs = [tensor(dtype, &[2, 7, 3, 6], &count(dtype, 252)), tensor(dtype, &[], &count(dtype, 1))];
        for (axes, dilations, low) in
            [(vec![1, 3], vec![1, 2], vec![0, 1]), (vec![0, 1, 3], vec![1, 1, 1], vec![1, 0, 2])]
        {
            let n = axes.len();
            let op = Op::Window {
                axes,
                sizes: vec![2; n],
                strides: vec![2; n],
                dilations,
                low: low.clone(),
                high: vec![1; n],
            };
            check(&single(op, &inputs), &inputs, 0.0);
        }
    }
    for dtype in NUMBERS.into_iter().filter(|d| d.is_int()) {
        for groups in [1, 2] {
            let inputs = [
                tensor(dtype, &[2, 4, 7, 6], &count(dtype, 336)),
                tensor(dtype, &[6, 4 / groups, 3, 2], &count(dtype, 6 * 4 / groups * 6)),
            ];
            let (strides, dilations) = (vec![2, 1], vec![1, 2]);
            let op = Op::Conv { strides, dilations, low: vec![1, 0], high: vec![2, 1], groups };
            check(&single(op, &inputs), &inputs, 0.0);
        }
    }
}

#[test]
fn scatters_and_storage_types() {
    let places = tensor(DType::U8, &[4], &[vec![2], vec![0], vec![2], vec![1]]);
    for dtype in [DType::F32, DType::I16, DType::U64] {
        let values = |n: usize| (0..n).map(|i| bytes_of(dtype, i as f64)).collect::<Vec<_>>();
        for &kind in ScatterKind::ALL {
            let inputs = [tensor(dtype, &[2, 3], &values(6)), places.clone(), tensor(dtype, &[2, 4], &values(8))];
            check(&single(Op::Scatter { axis: 1, kind }, &inputs), &inputs, 0.0);
        }
    }
    for dtype in [DType::F8E4M3FN, DType::F8E5M2FNUZ, DType::I4, DType::U2, DType::F4E2M1] {
        let x = tensor(dtype, &[2, 3], &(0..6).map(|i| vec![i % 2]).collect::<Vec<_>>());
        let one = tensor(dtype, &[], &[vec![1]]);
        let dims = |list: &[i64]| list.iter().map(|&d| Dim::Known(d)).collect::<Vec<_>>();
        for op in [
            Op::Broadcast { dims: dims(&[4, 2, 3]), axes: vec![1, 2] },
            Op::Reshape { dims: dims(&[3, 2]) },
            Op::Slice { starts: dims(&[1, 2]), sizes: dims(&[1, 2]), steps: vec![1, -1] },
            Op::Transpose { perm: vec![1, 0] },
        ] {
            check(&single(op, std::slice::from_ref(&x)), std::slice::from_ref(&x), 0.0);
        }
        let padded = [x.clone(), one];
        check(&single(Op::Pad { low: dims(&[1, 0]), high: dims(&[0, 2]) }, &padded), &padded, 0.0);
        let gathered = [x, places.clone()];
        let f = single(Op::Gather { axis: 1 }, &gathered);
        check(&f, &gathered, 0.0);
    }
}

/// Random modules, whose ops all have a row of their own here or are plain.
#[test]
fn random_modules_mean_the_same() {
    for seed in 0..200 {
        let module = testing::module(seed, 20).expect("well typed");
        let f = module.entry().expect("a function");
        let mut rng = Rng::new(seed);
        let extents = testing::extents(&mut rng, f);
        let inputs: Vec<HostValue> =
            testing::inputs(&mut rng, f, &extents).expect("inputs").into_iter().map(HostValue::Tensor).collect();
        let expanded = expand(&module, f).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        assert!(expanded.nodes().iter().all(|id| expanded.node(*id).op.class() != OpClass::Foreign));
        let run = |f: &Function| eval_function(&module, f, &inputs, Options::default()).expect("evaluates");
        for (wanted, found) in run(f).iter().zip(run(&expanded)) {
            let (w, n) = (wanted.tensor().expect("a tensor"), found.tensor().expect("a tensor"));
            match (to_f64s(w), to_f64s(n)) {
                (Some(w), Some(n)) => {
                    for (a, b) in w.iter().zip(&n) {
                        let near = (a - b).abs() <= 2e-4 * a.abs().max(1.0);
                        assert!(near || a == b || a.is_nan() && b.is_nan(), "seed {seed}: {b:e}, expected {a:e}");
                    }
                }
                _ => assert_eq!(w.bytes(), n.bytes(), "seed {seed}"),
            }
        }
    }
}
