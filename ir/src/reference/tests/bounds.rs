//! Error bounds: what rounds op by op stays inside; faults and jumps don't hide.

use super::*;
use crate::op::{BinaryOp, ReduceKind, UnaryOp};

/// tanh(sum over k of x w, plus its exponential), with a product in between: sums, elementary functions, a division.
fn network() -> Function {
    let types = [TensorType::known(DType::F32, &[4, 50]), TensorType::known(DType::F32, &[50, 3])];
    region(&types, |build, x| {
        let dot = Op::DotGeneral {
            lhs_batch: vec![],
            rhs_batch: vec![],
            lhs_contract: vec![1],
            rhs_contract: vec![0],
            accumulate: DType::F32,
        };
        let y = build.op(dot, &[x[0], x[1]]).expect("typed");
        let e = build.unary(UnaryOp::Exp, y).expect("typed");
        let sum = build.reduce(e, vec![1], ReduceKind::Sum, true).expect("typed");
        let soft = build.binary(BinaryOp::Div, e, sum).expect("typed");
        vec![build.unary(UnaryOp::Tanh, soft).expect("typed"), build.unary(UnaryOp::Floor, y).expect("typed")]
    })
}

#[test]
fn rounding_stays_inside_and_faults_do_not() {
    let function = network();
    let values = |n: usize, by: usize| (0..n).map(|i| ((i * by % 97) as f64 - 48.0) / 97.0).collect::<Vec<_>>();
    let inputs = [f(&[4, 50], &values(200, 31)), f(&[50, 3], &values(150, 57))];
    let module = Module::default();
    let bounds = error_bound(&module, &function, &inputs, 2.0).expect("runs");
    let found = eval_function(&module, &function, &inputs, Options::default()).expect("runs");
    let (wide, narrow) = (numbers(&bounds[0].value), numbers(&found[0]));
    for ((w, n), e) in wide.iter().zip(&narrow).zip(&bounds[0].error) {
        assert!((w - n).abs() <= *e, "{w} {n} {e}");
        // Tight enough that an error in the fourth digit is seen.
        assert!(*e < 1e-4 * w.abs(), "{w} {e}");
    }
    assert!(bounds[1].error.iter().all(|e| *e == 0.0 || e.is_infinite()));
    assert!(bounds[1].error.contains(&0.0), "floor far from a jump is exact");
}

#[test]
fn jumps_inside_the_bound_are_not_checked() {
    let function = region(&[TensorType::known(DType::F32, &[3])], |build, x| {
        let third = build.scalar(DType::F32, 3.0).expect("a scalar");
        let part = build.binary(BinaryOp::Div, x[0], third).expect("typed");
        let whole = build.binary(BinaryOp::Mul, part, third).expect("typed");
        let less = build.binary(BinaryOp::Lt, whole, x[0]).expect("typed");
        let twice = build.binary(BinaryOp::Add, x[0], x[0]).expect("typed");
        vec![less, build.select(less, whole, x[0]).expect("typed"), build.unary(UnaryOp::Floor, twice).expect("typed")]
    });
    let bounds = error_bound(&Module::default(), &function, &[f(&[3], &[0.7, 5.0, 1.0])], 2.0).expect("runs");
    assert!(bounds[0].error.iter().all(|e| e.is_infinite()));
    assert!(bounds[1].error.iter().all(|e| *e > 0.0 && *e < 1e-5), "the branches agree: {:?}", bounds[1].error);
    assert_eq!(bounds[2].error[1..], [0.0, 0.0]);
}

#[test]
fn random_modules_stay_inside() {
    let (mut checked, mut open) = (0u64, 0u64);
    for seed in 0..200 {
        let module = crate::testing::module(seed, 12).expect("well typed");
        let function = module.entry().expect("a function");
        let mut rng = crate::testing::Rng::new(seed);
        let extents = crate::testing::extents(&mut rng, function);
        let Some(inputs) = crate::testing::inputs(&mut rng, function, &extents) else { continue };
        let inputs: Vec<HostValue> = inputs.into_iter().map(HostValue::from).collect();
        // An index outside, say: then both must refuse.
        let found = eval_function(&module, function, &inputs, Options::default());
        let bounds = error_bound(&module, function, &inputs, 2.0);
        let (Ok(found), Ok(bounds)) = (&found, &bounds) else {
            assert!(found.is_err() && bounds.is_err(), "seed {seed}: {found:?} {bounds:?}");
            continue;
        };
        for (output, bound) in found.iter().zip(bounds) {
            let (narrow, wide) = (numbers(output), numbers(&bound.value));
            for ((n, w), e) in narrow.iter().zip(&wide).zip(&bound.error) {
                if e.is_infinite() {
                    open += 1;
                    continue;
                }
                checked += 1;
                let same = n == w || (n.is_nan() && w.is_nan());
                assert!(same || (n - w).abs() <= *e, "seed {seed}: {n} is not {w} within {e}");
            }
        }
    }
    assert!(checked > open, "{checked} elements checked, {open} open");
}
