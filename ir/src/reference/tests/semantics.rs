//! The corners: order, rounding, wide mode, symbols, refusals.

use std::collections::BTreeMap;

use super::*;
use crate::builder::Builder;
use crate::graph::SymbolFacts;
use crate::module::Param;
use crate::op::{BinaryOp, ReduceKind, UnaryOp};
use crate::order::tree_reduce;
use crate::types::Symbol;

fn run(function: &Function, inputs: &[HostValue], options: Options) -> Result<Vec<HostValue>, EvalError> {
    eval_function(&Module::default(), function, inputs, options)
}

fn reduce(kind: ReduceKind, x: HostValue, like: HostValue) -> HostValue {
    let rank = x.tensor().expect("a tensor").shape().len();
    let op = Op::Reduce { axes: (0..rank).collect(), kind };
    eval(&op, &[x], &[like]).expect("defined").remove(0)
}

#[test]
fn f32_sums_follow_the_order_bit_for_bit() {
    for n in [0, 1, 15, 16, 17, 1000, 4096, 4097, 9000] {
        let values: Vec<f32> = (0..n).map(|i| 1.0 / (i as f32 + 1.0) * if i % 3 == 0 { -1.0 } else { 1.7 }).collect();
        let wide: Vec<f64> = values.iter().map(|&v| v.into()).collect();
        let found = reduce(ReduceKind::Sum, f(&[n], &wide), f(&[], &[0.0]));
        let expected = tree_reduce(&values, 0.0, &|a, b| a + b);
        assert_eq!(numbers(&found)[0].to_bits(), f64::from(expected).to_bits(), "{n}");
    }
}

#[test]
fn sixteen_bit_sums_round_once() {
    // In f16 steps 2048 + 1 stays 2048; in f32 the ones add up.
    let x = t(DType::F16, &[17], &[[2048.0].as_slice(), &[1.0; 16]].concat());
    assert_eq!(numbers(&reduce(ReduceKind::Sum, x.clone(), t(DType::F16, &[], &[0.0]))), [2064.0]);
    let op = Op::Cumulate { axis: 0, kind: ReduceKind::Sum, exclusive: false, reverse: false };
    let sums = numbers(&eval(&op, std::slice::from_ref(&x), std::slice::from_ref(&x)).expect("defined")[0]);
    assert_eq!((sums[1], sums[2], sums[16]), (2048.0, 2050.0, 2064.0));
}

#[test]
fn reductions_of_nothing_and_of_specials() {
    let none = || f(&[0], &[]);
    let scalar = || f(&[], &[0.0]);
    assert_eq!(numbers(&reduce(ReduceKind::Sum, none(), scalar())), [0.0]);
    assert_eq!(numbers(&reduce(ReduceKind::Prod, none(), scalar())), [1.0]);
    assert_eq!(numbers(&reduce(ReduceKind::Min, none(), scalar())), [f64::INFINITY]);
    let bytes = reduce(ReduceKind::Max, t(DType::I8, &[0], &[]), t(DType::I8, &[], &[0.0]));
    assert_eq!(numbers(&bytes), [-128.0]);
    for order in [[0.0, -0.0], [-0.0, 0.0]] {
        assert!(numbers(&reduce(ReduceKind::Min, f(&[2], &order), scalar()))[0].is_sign_negative());
        assert!(numbers(&reduce(ReduceKind::Max, f(&[2], &order), scalar()))[0].is_sign_positive());
    }
    assert!(numbers(&reduce(ReduceKind::Max, f(&[3], &[1.0, f64::NAN, 2.0]), scalar()))[0].is_nan());
    let place = |kind, v: &[f64]| numbers(&reduce(kind, f(&[v.len()], v), i(&[], &[0])))[0];
    assert_eq!(place(ReduceKind::ArgMax, &[5.0, f64::NAN, 9.0, f64::NAN]), 1.0);
    assert_eq!(place(ReduceKind::ArgMin, &[0.0, -0.0]), 0.0);
    assert_eq!(place(ReduceKind::ArgMax, &[1.0, 3.0, 3.0]), 1.0);
}

#[test]
fn wide_mode_keeps_f64() {
    let function = region(&[TensorType::known(DType::F32, &[1])], |build, x| {
        let root = build.unary(UnaryOp::Sqrt, x[0]).expect("typed");
        let half = build.cast(root, DType::F16).expect("typed");
        let back = build.cast(half, DType::F32).expect("typed");
        vec![build.cast(back, DType::F8E4M3FN).expect("typed"), back]
    });
    let two = [f(&[1], &[2.0])];
    let wide = run(&function, &two, Options::wide()).expect("runs");
    assert_eq!(wide[1].tensor().map(Tensor::dtype), Some(DType::F64));
    assert_eq!(numbers(&wide[1]), [2f64.sqrt()]);
    // Quantisation is kept: 1.375 is the nearest f8 value.
    assert_eq!(numbers(&wide[0]), [1.375]);
    let narrow = run(&function, &two, Options::default()).expect("runs");
    assert_eq!(numbers(&narrow[1]), [1.4140625]);
    let given = run(&function, &[t(DType::F64, &[1], &[2.0])], Options::wide()).expect("f64 stands for f32");
    assert_eq!(given, wide);
    assert!(run(&function, &[t(DType::F64, &[1], &[2.0])], Options::default()).is_err());
}

#[test]
fn symbols_come_from_shapes_and_are_checked() {
    let (n, m) = (Dim::symbol("N"), Dim::symbol("M"));
    let double = &n * &Dim::Known(2);
    let types = [TensorType::new(DType::F32, vec![double, m.clone()]), TensorType::new(DType::F32, vec![n.clone()])];
    let mut function = region(&types, |build, x| {
        let count = build.dim(&n * &m).expect("typed");
        let flat = build.reshape(x[0], vec![&(&n * &m) * &Dim::Known(2)]).expect("typed");
        vec![count, flat]
    });
    let good = run(&function, &[f(&[4, 1], &[1.0, 2.0, 3.0, 4.0]), f(&[2], &[0.0; 2])], Options::default());
    let good = good.expect("shapes agree");
    assert_eq!(good[0], i(&[], &[2]));
    assert_eq!(good[1], f(&[4], &[1.0, 2.0, 3.0, 4.0]));
    let bad = run(&function, &[f(&[4, 1], &[0.0; 4]), f(&[3], &[0.0; 3])], Options::default());
    let message = bad.expect_err("2 N is 6").to_string();
    assert_eq!(message, "input `x0`: axis 0 has extent 4, its type says 2*N = 6");
    function.symbols.insert(Symbol::new("M"), SymbolFacts { min: 2, max: None, multiple_of: 1 });
    let fact = run(&function, &[f(&[4, 1], &[0.0; 4]), f(&[2], &[0.0; 2])], Options::default());
    assert!(matches!(fact, Err(EvalError::Fact { value: 1, .. })), "{fact:?}");
}

#[test]
fn counted_extents_bind_their_symbol() {
    let function = region(&[TensorType::known(DType::Bool, &[4])], |build, x| {
        let k = Symbol::new("k");
        // Stands before what fixes it and has no operand: it waits.
        let count = build.dim(k.clone().into()).expect("typed");
        let places = build.op(Op::Compact { count: k.clone() }, &[x[0]]).expect("typed");
        let count = build.broadcast_to(count, vec![k.into()]).expect("typed");
        vec![build.binary(BinaryOp::Mul, places, count).expect("typed")]
    });
    let found = run(&function, &[b(&[4], &[1, 0, 1, 1])], Options::default()).expect("runs");
    assert_eq!(found, [i(&[3], &[0, 6, 9])]);
    let lost = region(&[], |build, _| vec![build.dim(Dim::symbol("k")).expect("typed")]);
    let error = run(&lost, &[], Options::default()).expect_err("nothing fixes k");
    assert!(matches!(error, EvalError::Unbound { .. }), "{error}");
}

#[test]
fn calls_share_parameters_and_recursion_ends() {
    let ty = TensorType::known(DType::I64, &[2]);
    let mut callee = Function::new("callee");
    let x = callee.add_input("x", ty.clone());
    let mut build = Builder::new(&mut callee, origin());
    let w = build.op(Op::Param { name: "w".to_owned(), ty: ty.clone() }, &[]).expect("typed");
    let sum = build.binary(BinaryOp::Add, x, w).expect("typed");
    callee.add_output("y", sum);
    let call = |name: &str, target: &str| {
        let mut function = Function::new(name);
        let x = function.add_input("x", ty.clone());
        let op = Op::Call { function: target.to_owned() };
        let node = function.add_typed(op, &[x], vec![ty.clone().into()], Vec::new(), &origin());
        function.add_output("y", Value { node, result: 0 });
        function
    };
    let mut module = Module::of(callee);
    let value = Tensor::i64(&[2], &[10, 20]).expect("2 values");
    module.params.insert("w".to_owned(), Param { value, trainable: false });
    let caller = call("caller", "callee");
    let found = eval_function(&module, &caller, &[i(&[2], &[1, 2])], Options::default()).expect("runs");
    assert_eq!(found, [i(&[2], &[11, 22])]);
    let endless = call("endless", "endless");
    module.functions.insert("endless".to_owned(), endless.clone());
    let error = eval_function(&module, &endless, &[i(&[2], &[1, 2])], Options::default()).expect_err("never ends");
    assert!(matches!(error, EvalError::Limit { what: "nested calls", .. }), "{error}");
    let lost = call("lost", "nowhere");
    let error = eval_function(&module, &lost, &[i(&[2], &[1, 2])], Options::default()).expect_err("no such function");
    assert_eq!(error.to_string(), "`call` (here): the module has no function `nowhere`");
}

#[test]
fn errors_name_op_origin_and_operand() {
    let like = [i(&[1], &[0])];
    let gather = eval(&Op::Gather { axis: 0 }, &[i(&[3], &[1, 2, 3]), i(&[1], &[-1])], &like);
    let message = gather.expect_err("outside").to_string();
    assert_eq!(message, "`gather` (here): operand 1 holds index -1, outside 0..3");
    let assert = eval(&Op::Assert { message: "sizes differ".to_owned() }, &[like[0].clone(), b(&[2], &[1, 0])], &like);
    assert_eq!(assert.expect_err("false").to_string(), "`assert` (here): sizes differ");
    let onnx =
        Op::Onnx { domain: String::new(), op_type: "Relu".to_owned(), since_version: 14, attributes: BTreeMap::new() };
    let message = eval(&onnx, &like, &like).expect_err("not core").to_string();
    assert_eq!(message, "`onnx` (here): ONNX `Relu` is no core op; run `legalize` first");
    assert!(eval(&Op::Absent {}, &[], &like).is_err());
    assert!(eval(&Op::Param { name: "w".to_owned(), ty: TensorType::known(DType::I64, &[1]) }, &[], &like).is_err());
    let input = Op::Input { name: "x".to_owned(), ty: type_of(&like[0]) };
    assert!(matches!(eval(&input, &[], &like), Err(EvalError::Unsupported { .. })));
    let shapes = eval(&Op::Binary(BinaryOp::Add), &[i(&[2], &[1, 2]), i(&[3], &[1, 2, 3])], &like);
    assert!(matches!(shapes, Err(EvalError::Type { .. })), "{shapes:?}");
    let at = eval(&Op::SequenceAt {}, &[HostValue::Sequence(vec![like[0].clone()]), i(&[], &[1])], &like);
    assert!(matches!(at, Err(EvalError::Index { operand: 1, index: 1, extent: 1, .. })), "{at:?}");
    let sum = Op::Cumulate { axis: 0, kind: ReduceKind::Sum, exclusive: false, reverse: false };
    assert!(matches!(eval(&sum, &[b(&[1], &[1])], &[b(&[1], &[1])]), Err(EvalError::Operand { .. })));
}

#[test]
fn limits_hold_before_memory_is_taken() {
    let op = Op::Iota { dtype: DType::I64, dims: vec![Dim::Known(1 << 40)], axis: 0 };
    let types = [TensorType::new(DType::I64, vec![Dim::Known(1 << 40)]).into()];
    let error = eval_op(&op, &origin(), &[], &types, &[], &Symbols::new(), Options::default()).expect_err("too large");
    assert!(matches!(error, EvalError::Limit { what: "elements", .. }), "{error}");
    let flag = TensorType::scalar(DType::Bool);
    let body = region(&[TensorType::scalar(DType::I64), flag], |_, x| vec![x[1]]);
    let op = Op::Loop { carried: 0, trips: Dim::symbol("t") };
    let options = Options { limit_steps: 1000, ..Options::default() };
    let operands = [i(&[], &[i64::MAX]), b(&[], &[1])];
    let error = eval_op(&op, &origin(), &operands, &[], &[body], &Symbols::new(), options).expect_err("endless");
    assert!(matches!(error, EvalError::Limit { what: "steps", .. }), "{error}");
}

#[test]
fn a_convolution_is_a_window_and_a_dot() {
    let (x, w): (Vec<f64>, Vec<f64>) =
        ((0..50).map(|i| f64::from(i * 7 % 11)).collect(), (0..18).map(|i| f64::from(i % 5) - 2.0).collect());
    let (x, w) = (f(&[1, 2, 5, 5], &x), f(&[1, 2, 3, 3], &w));
    let conv = Op::Conv { strides: vec![2, 1], dilations: vec![1, 1], low: vec![1, 0], high: vec![0, 1], groups: 1 };
    let direct = eval(&conv, &[x.clone(), w.clone()], &[f(&[1, 1, 2, 4], &[0.0; 8])]).expect("defined");
    let window = Op::Window {
        axes: vec![2, 3],
        sizes: vec![3, 3],
        strides: vec![2, 1],
        dilations: vec![1, 1],
        low: vec![1, 0],
        high: vec![0, 1],
    };
    let views = eval(&window, &[x, f(&[], &[0.0])], &[f(&[1, 2, 2, 4, 3, 3], &[0.0; 144])]).expect("defined");
    let dot = Op::DotGeneral {
        lhs_batch: vec![],
        rhs_batch: vec![],
        lhs_contract: vec![1, 4, 5],
        rhs_contract: vec![1, 2, 3],
        accumulate: DType::F32,
    };
    let found = eval(&dot, &[views[0].clone(), w], &[f(&[1, 2, 4, 1], &[0.0; 8])]).expect("defined");
    assert_eq!(numbers(&found[0]), numbers(&direct[0]));
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    type Machine = fn(f32, f32) -> f32;

    proptest! {
        #[test]
        fn f32_arithmetic_is_the_machines(pairs in prop::collection::vec((any::<f32>(), any::<f32>()), 1..64)) {
            let (a, c): (Vec<f64>, Vec<f64>) = pairs.iter().map(|(a, b)| (f64::from(*a), f64::from(*b))).unzip();
            let n = [pairs.len()];
            let ops: [(BinaryOp, Machine); 5] = [
                (BinaryOp::Add, |a, b| a + b),
                (BinaryOp::Sub, |a, b| a - b),
                (BinaryOp::Mul, |a, b| a * b),
                (BinaryOp::Div, |a, b| a / b),
                (BinaryOp::Rem, |a, b| a % b),
            ];
            for (op, machine) in ops {
                let expected: Vec<f64> = pairs.iter().map(|(a, b)| f64::from(machine(*a, *b))).collect();
                let found = eval(&Op::Binary(op), &[f(&n, &a), f(&n, &c)], &[f(&n, &a)]).expect("defined");
                assert_same(&found, &[f(&n, &expected)], op.name());
            }
        }

        #[test]
        fn i64_arithmetic_is_the_machines(a in any::<i64>(), c in any::<i64>(), small in 0i64..64) {
            let one = |op, a, c| {
                let found = eval(&Op::Binary(op), &[i(&[], &[a]), i(&[], &[c])], &[i(&[], &[0])]).expect("defined");
                found[0].tensor().and_then(Tensor::to_i64s).expect("integers")[0]
            };
            prop_assert_eq!(one(BinaryOp::Add, a, c), a.wrapping_add(c));
            prop_assert_eq!(one(BinaryOp::Mul, a, c), a.wrapping_mul(c));
            prop_assert_eq!(one(BinaryOp::Div, a, c), if c == 0 { 0 } else { a.wrapping_div(c) });
            prop_assert_eq!(one(BinaryOp::Rem, a, c), if c == 0 { 0 } else { a.wrapping_rem(c) });
            prop_assert_eq!(one(BinaryOp::Shl, a, small), a << small);
            prop_assert_eq!(one(BinaryOp::Shr, a, small), a >> small);
            prop_assert_eq!(one(BinaryOp::Pow, a, small), a.wrapping_pow(small as u32));
        }

        #[test]
        fn transposing_twice_and_slicing_a_concat_give_back(x in prop::collection::vec(any::<i64>(), 24)) {
            let x = i(&[2, 3, 4], &x);
            let there = eval(&Op::Transpose { perm: vec![2, 0, 1] }, std::slice::from_ref(&x), &[i(&[4, 2, 3], &[0; 24])]).expect("defined");
            let back = eval(&Op::Transpose { perm: vec![1, 2, 0] }, &there, std::slice::from_ref(&x)).expect("defined");
            prop_assert_eq!(&back[0], &x);
            let joined = eval(&Op::Concat { axis: 1 }, &[x.clone(), x.clone()], &[i(&[2, 6, 4], &[0; 48])]).expect("defined");
            let known = |v: [i64; 3]| v.map(Dim::Known).to_vec();
            let op = Op::Slice { starts: known([0, 3, 0]), sizes: known([2, 3, 4]), steps: vec![1; 3] };
            prop_assert_eq!(&eval(&op, &joined, std::slice::from_ref(&x)).expect("defined")[0], &x);
        }
    }
}
