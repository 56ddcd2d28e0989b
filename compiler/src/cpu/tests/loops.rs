//! Loops, reductions, branches, locals, checks.

use frit_ir::{BinaryOp, DType, Dim, UnaryOp};

use super::harness::{f32s, run, run_with, values, vectors};
use crate::cpu::{CodeError, CodeOptions, Effort, compile, compile_text};
use crate::kernel::build::KernelBuilder;
use crate::kernel::{Combine, Expr, Reg, Role, Scalar, Stmt};
use crate::schedule::{Directive, Schedule};

/// Numbers that round, with both zeros among them.
pub(crate) fn sample(n: usize) -> Vec<f32> {
    (0..n).map(|i| if i % 7 == 3 { -0.0 } else { ((i * 37 + 11) % 101) as f32 / 7.0 - 6.0 }).collect()
}

/// The sum of `frit_ir::order`.
fn tree(values: &[f32], neutral: f32, combine: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [neutral; 16];
    for (k, v) in values.iter().enumerate() {
        lanes[k % 16] = combine(lanes[k % 16], *v);
    }
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] = combine(lanes[i], lanes[i + half]);
        }
    }
    lanes[0]
}

#[test]
fn an_elementwise_chain_runs() {
    let mut b = KernelBuilder::new("chain", false);
    let n = b.dim(&Dim::symbol("N"));
    let x = b.buffer("x", DType::F32, n.clone(), Role::Input);
    let y = b.buffer("y", DType::F32, n.clone(), Role::Output);
    b.phase(n, |b, i| {
        let v = b.load(x, i.clone());
        let half = b.constant(Scalar::f32(0.5));
        let w = b.binary(BinaryOp::Mul, v, half);
        let w = b.binary(BinaryOp::Sub, w, v);
        let w = b.unary(UnaryOp::Abs, w);
        let w = b.unary(UnaryOp::Sqrt, w);
        b.push(Stmt::Store { buffer: y, index: i, value: w });
    });
    let kernel = b.finish();
    for n in [0, 1, 2, 50] {
        let x = sample(n);
        let out = run(&kernel, &Schedule::default(), &[f32s(&x), vec![0; 4 * n]], &[n as i64]);
        let expected: Vec<f32> = x.iter().map(|v| (v * 0.5 - v).abs().sqrt()).collect();
        assert_eq!(out.buffers[1], f32s(&expected));
    }
}

#[test]
fn rows_reduce_in_the_fixed_order() {
    let mut b = KernelBuilder::new("rows", false);
    let (rows, n) = (b.dim(&Dim::symbol("R")), b.dim(&Dim::symbol("N")));
    let x = b.buffer("x", DType::F32, &rows * &n, Role::Input);
    let outs: Vec<_> = (0..5).map(|i| b.buffer(&format!("y{i}"), DType::F32, rows.clone(), Role::Output)).collect();
    let places: Vec<_> = (0..2).map(|i| b.buffer(&format!("p{i}"), DType::I64, rows.clone(), Role::Output)).collect();
    b.phase(rows.clone(), |b, row| {
        let results = b.reduce(n.clone(), |b, k| {
            let v = b.load(x, &(&row * &n) + &k);
            let k = b.let_(DType::I64, Expr::Index(k));
            let square = b.binary(BinaryOp::Mul, v, v);
            vec![
                (v, Combine::Sum),
                (v, Combine::Prod),
                (v, Combine::Min),
                (v, Combine::Max),
                (square, Combine::Sum),
                (v, Combine::ArgMin(k)),
                (v, Combine::ArgMax(k)),
            ]
        });
        for (result, buffer) in results.into_iter().zip(outs.iter().chain(&places)) {
            b.push(Stmt::Store { buffer: *buffer, index: row.clone(), value: result });
        }
    });
    let kernel = b.finish();
    for n in (0..40).chain([63, 64, 65, 100]) {
        let rows = 3;
        let x = sample(rows * n);
        let mut arguments = vec![f32s(&x)];
        arguments.extend((0..5).map(|_| vec![0; 4 * rows]));
        arguments.extend((0..2).map(|_| vec![0; 8 * rows]));
        for effort in [Effort::Speed, Effort::None] {
            let out = run_with(&kernel, &Schedule::default(), &arguments, &[rows as i64, n as i64], effort);
            for row in 0..rows {
                let x = &x[row * n..(row + 1) * n];
                let get = |i: usize| values(&out.buffers[i + 1], f32::from_le_bytes)[row].to_bits();
                let squares: Vec<f32> = x.iter().map(|v| v * v).collect();
                assert_eq!(get(0), tree(x, 0.0, |a, b| a + b).to_bits(), "sum of {n}");
                assert_eq!(get(1), tree(x, 1.0, |a, b| a * b).to_bits(), "product of {n}");
                let lowest = x.iter().copied().fold(f32::INFINITY, |a, b| if b < a { b } else { a });
                let highest = x.iter().copied().fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a });
                assert_eq!(f32::from_bits(get(2)), lowest, "min of {n}");
                assert_eq!(f32::from_bits(get(3)), highest, "max of {n}");
                assert_eq!(get(4), tree(&squares, 0.0, |a, b| a + b).to_bits(), "squares of {n}");
                let place = |i: usize| values(&out.buffers[i], i64::from_le_bytes)[row];
                assert_eq!(place(6), x.iter().position(|v| *v == lowest).unwrap_or(0) as i64, "argmin of {n}");
                assert_eq!(place(7), x.iter().position(|v| *v == highest).unwrap_or(0) as i64, "argmax of {n}");
            }
        }
    }
}

#[test]
fn nan_wins_and_negative_zero_is_below() {
    let mut b = KernelBuilder::new("extremes", false);
    let x = b.buffer("x", DType::F32, Dim::Known(4), Role::Input);
    let outs: Vec<_> = (0..2).map(|i| b.buffer(&format!("y{i}"), DType::F32, Dim::ONE, Role::Output)).collect();
    let place = b.buffer("p", DType::I64, Dim::ONE, Role::Output);
    b.phase(Dim::ONE, |b, i| {
        let results = b.reduce(Dim::Known(4), |b, k| {
            let v = b.load(x, k.clone());
            let k = b.let_(DType::I64, Expr::Index(k));
            vec![(v, Combine::Min), (v, Combine::Max), (v, Combine::ArgMax(k))]
        });
        for (result, buffer) in results.into_iter().zip(outs.iter().chain([&place])) {
            b.push(Stmt::Store { buffer: *buffer, index: i.clone(), value: result });
        }
    });
    let kernel = b.finish();
    let unrolled = Schedule { directives: vec![Directive::Unroll { var: frit_ir::Symbol::new("i1") }] };
    for schedule in [Schedule::default(), unrolled] {
        let go = |x: &[f32]| run(&kernel, &schedule, &[f32s(x), vec![0; 4], vec![0; 4], vec![0; 8]], &[]).buffers;
        let out = go(&[0.0, -0.0, 0.0, -0.0]);
        assert_eq!((out[1].clone(), out[2].clone()), (f32s(&[-0.0]), f32s(&[0.0])));
        let out = go(&[3.0, f32::NAN, f32::INFINITY, f32::NAN]);
        assert!(values(&out[1], f32::from_le_bytes)[0].is_nan() && values(&out[2], f32::from_le_bytes)[0].is_nan());
        assert_eq!(out[3], 1i64.to_le_bytes());
        let out = go(&[f32::NEG_INFINITY; 4]);
        assert_eq!(out[3], 0i64.to_le_bytes());
    }
}

/// Softmax-like rows: two reductions, a local between loops, index arithmetic with a quotient and a remainder.
#[test]
fn nested_loops_share_a_local() {
    let (rows, n) = (3usize, 21usize);
    let mut b = KernelBuilder::new("local", false);
    let x = b.buffer("x", DType::F32, Dim::from(rows * n), Role::Input);
    let y = b.buffer("y", DType::F32, Dim::from(rows * n), Role::Output);
    let local = b.buffer("t", DType::F32, Dim::from(n), Role::Local);
    b.phase(Dim::from(rows), |b, row| {
        let base = &row * &Dim::from(n);
        b.for_(Dim::from(n), |b, k| {
            let v = b.load(x, &base + &k);
            let v = b.unary(UnaryOp::Neg, v);
            b.push(Stmt::Store { buffer: local, index: k, value: v });
        });
        let sum = b.reduce(Dim::from(n), |b, k| {
            let v = b.load(local, k);
            vec![(v, Combine::Sum)]
        });
        b.for_(Dim::from(n), |b, k| {
            let column = k.floordiv(&Dim::Known(3));
            let inner = k.modulo(&Dim::Known(3));
            let v = b.load(local, &(&inner * &Dim::Known(7)) + &column);
            let v = b.binary(BinaryOp::Div, v, sum[0]);
            b.push(Stmt::Store { buffer: y, index: &base + &k, value: v });
        });
    });
    let kernel = b.finish();
    let x = sample(rows * n);
    let mut expected = Vec::new();
    for row in x.chunks(n) {
        let negated: Vec<f32> = row.iter().map(|v| -v).collect();
        let sum = tree(&negated, 0.0, |a, b| a + b);
        expected.extend((0..n).map(|k| negated[k % 3 * 7 + k / 3] / sum));
    }
    let unrolled = Schedule {
        directives: ["i1", "i2", "i3"].map(|v| Directive::Unroll { var: frit_ir::Symbol::new(v) }).to_vec(),
    };
    for schedule in [Schedule::default(), unrolled, vectors(&["i1", "i2", "i3"], 8)] {
        let out = run(&kernel, &schedule, &[f32s(&x), vec![0; 4 * rows * n]], &[]);
        assert_eq!(out.buffers[1], f32s(&expected), "{schedule:?}");
    }
}

#[test]
fn branches_and_checks_report_what_failed() {
    let mut b = KernelBuilder::new("branch", false);
    let index = b.buffer("index", DType::I64, Dim::Known(4), Role::Input);
    let x = b.buffer("x", DType::F32, Dim::Known(3), Role::Input);
    let y = b.buffer("y", DType::F32, Dim::Known(4), Role::Output);
    let code = b.trap("index outside".to_owned());
    let other = b.trap("another".to_owned());
    assert_eq!((code, other), (0, 1));
    b.phase(Dim::Known(4), |b, i| {
        let at = b.load(index, i.clone());
        let (zero, end) = (b.constant(Scalar::i64(0)), b.constant(Scalar::i64(3)));
        let low = b.binary(BinaryOp::Le, zero, at);
        let high = b.binary(BinaryOp::Lt, at, end);
        let ok = b.binary(BinaryOp::And, low, high);
        b.push(Stmt::Check { ok, code: other });
        b.open();
        let v = b.load(x, Dim::from(at.symbol()));
        b.push(Stmt::Store { buffer: y, index: i.clone(), value: v });
        let then = b.close();
        b.open();
        let v = b.constant(Scalar::f32(-1.0));
        b.push(Stmt::Store { buffer: y, index: i, value: v });
        let otherwise = b.close();
        b.push(Stmt::If { condition: ok, then, otherwise });
    });
    let kernel = b.finish();
    let go = |index: [i64; 4]| {
        let index = super::harness::bytes(&index, i64::to_le_bytes);
        run(&kernel, &Schedule::default(), &[index, f32s(&[10.0, 11.0, 12.0]), vec![0; 16]], &[])
    };
    let good = go([2, 0, 1, 1]);
    assert_eq!((good.status, &good.buffers[2]), (0, &f32s(&[12.0, 10.0, 11.0, 11.0])));
    let bad = go([2, 3, -1, 0]);
    assert_eq!((bad.status, &bad.buffers[2]), (2, &f32s(&[12.0, -1.0, -1.0, 10.0])));
}

#[test]
fn quotients_by_extents_of_zero_do_not_trap() {
    let mut b = KernelBuilder::new("quotient", false);
    let (n, d) = (b.dim(&Dim::symbol("N")), b.dim(&Dim::symbol("D")));
    let y = b.buffer("y", DType::I64, &n + &n, Role::Output);
    b.phase(n, |b, i| {
        let shifted = &i - &Dim::Known(3);
        let quotient = b.let_(DType::I64, Expr::Index(shifted.floordiv(&d)));
        let rest = b.let_(DType::I64, Expr::Index(shifted.modulo(&d)));
        b.push(Stmt::Store { buffer: y, index: &i * &Dim::Known(2), value: quotient });
        b.push(Stmt::Store { buffer: y, index: &(&i * &Dim::Known(2)) + &Dim::ONE, value: rest });
    });
    let kernel = b.finish();
    for by in [0i64, 1, 2, 5] {
        let out = run(&kernel, &Schedule::default(), &[vec![0; 16 * 9]], &[9, by]);
        let expected: Vec<i64> =
            (-3..6).flat_map(|v: i64| [v.div_euclid(by.max(1)), v.rem_euclid(by.max(1))]).collect();
        assert_eq!(values(&out.buffers[0], i64::from_le_bytes), expected, "by {by}");
    }
}

#[test]
fn two_phases_see_each_other() {
    let mut b = KernelBuilder::new("phases", false);
    let x = b.buffer("x", DType::I32, Dim::Known(8), Role::Input);
    let y = b.buffer("y", DType::I32, Dim::Known(8), Role::Output);
    b.phase(Dim::Known(8), |b, i| {
        let v = b.load(x, i.clone());
        let v = b.binary(BinaryOp::Add, v, v);
        b.push(Stmt::Store { buffer: y, index: i, value: v });
    });
    b.phase(Dim::ONE, |b, _| {
        let sum = b.reduce(Dim::Known(8), |b, k| {
            let v = b.load(y, k);
            vec![(v, Combine::Sum)]
        });
        b.push(Stmt::Store { buffer: y, index: Dim::ZERO, value: sum[0] });
    });
    let x: Vec<u8> = super::harness::bytes(&[1i32, 2, 3, 4, 5, 6, 7, -1], i32::to_le_bytes);
    let out = run(&b.finish(), &Schedule::default(), &[x, vec![0; 32]], &[]);
    assert_eq!(values(&out.buffers[1], i32::from_le_bytes), [54, 4, 6, 8, 10, 12, 14, -2]);
}

#[test]
fn kernels_that_break_rules_are_refused() {
    let options = CodeOptions::host().unwrap();
    let refused = |build: &dyn Fn(&mut KernelBuilder)| {
        let mut b = KernelBuilder::new("bad", false);
        b.buffer("y", DType::F32, Dim::Known(4), Role::Output);
        b.phase(Dim::Known(4), |b, _| build(b));
        compile(&b.finish(), &Schedule::default(), &options)
    };
    let store = |b: &mut KernelBuilder, value| {
        b.push(Stmt::Store { buffer: crate::kernel::BufferId(0), index: Dim::ZERO, value });
    };
    let invalid = |result| matches!(result, Err(CodeError::Invalid { .. }));
    assert!(invalid(refused(&|b| store(b, Reg(0)))), "undefined");
    assert!(invalid(refused(&|b| {
        let v = b.constant(Scalar::i32(1));
        store(b, v);
    })));
    assert!(invalid(refused(&|b| {
        let v = b.let_(DType::I64, Expr::Index(Dim::symbol("nowhere")));
        let v = b.cast(v, DType::F32, false);
        store(b, v);
    })));
    assert!(invalid(refused(&|b| {
        let mut inner = None;
        b.for_(Dim::Known(2), |b, _| inner = Some(b.constant(Scalar::f32(2.0))));
        store(b, inner.unwrap());
    })));
    assert!(matches!(
        refused(&|b| {
            let v = b.reg(DType::Str);
            b.push(Stmt::Let(v, Expr::Const(Scalar { dtype: DType::Str, bits: 0 })));
        }),
        Err(CodeError::Unsupported { .. })
    ));
    // The generator goes on after a refusal.
    let mut generator = crate::cpu::CodeGenerator::new(&options);
    let mut b = KernelBuilder::new("bad", false);
    b.phase(Dim::ONE, |b, _| store(b, Reg(7)));
    assert!(generator.compile(&b.finish(), &Schedule::default()).is_err());
    let mut b = KernelBuilder::new("good", false);
    b.phase(Dim::ONE, |b, _| {
        b.constant(Scalar::f32(1.0));
    });
    assert!(generator.compile(&b.finish(), &Schedule::default()).is_ok());
}

#[test]
fn texts_show_both_levels() {
    let mut b = KernelBuilder::new("text", false);
    let y = b.buffer("y", DType::F32, Dim::Known(4), Role::Output);
    b.phase(Dim::Known(4), |b, i| {
        let v = b.constant(Scalar::f32(2.0));
        b.push(Stmt::Store { buffer: y, index: i, value: v });
    });
    let (clif, asm) = compile_text(&b.finish(), &Schedule::default(), &CodeOptions::host().unwrap()).unwrap();
    assert!(clif.contains("; text, phase 0") && clif.contains("store"), "{clif}");
    assert!(asm.lines().count() > 8, "{asm}");
}
