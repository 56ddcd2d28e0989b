//! Legalize on graphs built by hand: extents that fold, reports, errors, values.

use std::collections::BTreeMap;

use frit_ir::reference::{Options, eval_function};
use frit_ir::value::HostValue;
use frit_ir::verify::verify_core;
use frit_ir::{AttrValue, DType, Dim, Function, Module, Op, Origin, Tensor, TensorType, Value, ValueType};

use super::{LegalizeError, LegalizeOptions, legalize};

/// A function under construction, of ONNX ops.
struct Graph {
    f: Function,
    count: usize,
}

impl Graph {
    fn new() -> Self {
        Graph { f: Function::new("infer"), count: 0 }
    }

    fn input(&mut self, name: &str, dtype: DType, dims: &[Dim]) -> Value {
        self.f.add_input(name, TensorType::new(dtype, dims))
    }

    fn ints(&mut self, shape: &[usize], values: &[i64]) -> Value {
        let value = Tensor::i64(shape, values).expect("sizes agree");
        let node = self.f.add_op(Op::Constant { value }, &[], vec![], &Origin::named("c")).expect("a constant");
        Value { node, result: 0 }
    }

    fn absent(&mut self) -> Value {
        let node = self.f.add_op(Op::Absent {}, &[], vec![], &Origin::default()).expect("nothing");
        Value { node, result: 0 }
    }

    fn node(&mut self, op_type: &str, since: i64, operands: &[Value], attributes: &[(&str, AttrValue)]) -> Value {
        let attributes: BTreeMap<String, AttrValue> =
            attributes.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
        let op = Op::Onnx { domain: String::new(), op_type: op_type.to_owned(), since_version: since, attributes };
        self.count += 1;
        let origin = Origin::named(format!("{op_type}_{}", self.count));
        let node = self.f.add_typed(op, operands, vec![ValueType::Unknown], vec![], &origin);
        Value { node, result: 0 }
    }

    fn done(mut self, output: Value) -> Module {
        self.f.add_output("y", output);
        Module::of(self.f)
    }
}

fn output_type(module: &Module) -> String {
    let f = module.entry().expect("there is one function");
    f.ty(f.outputs()[0].value).to_string()
}

#[test]
fn shape_arithmetic_folds_with_a_symbolic_batch() {
    let mut g = Graph::new();
    let x = g.input("x", DType::F32, &[Dim::symbol("B"), Dim::Known(4), Dim::Known(6)]);
    let shape = g.node("Shape", 19, &[x], &[]);
    let zero = g.ints(&[], &[0]);
    let batch = g.node("Gather", 13, &[shape, zero], &[("axis", AttrValue::Int(0))]);
    let axes = g.ints(&[1], &[0]);
    let batch = g.node("Unsqueeze", 13, &[batch, axes], &[]);
    let four = g.ints(&[1], &[4]);
    let rows = g.node("Mul", 14, &[batch, four], &[]);
    let rest = g.ints(&[1], &[-1]);
    let wanted = g.node("Concat", 13, &[rows, rest], &[("axis", AttrValue::Int(0))]);
    let y = g.node("Reshape", 19, &[x, wanted], &[]);
    let mut module = g.done(y);
    legalize(&mut module, &LegalizeOptions::default()).expect("the shape folds");
    assert_eq!(output_type(&module), "f32[4*B, 6]");
}

#[test]
fn a_squeeze_of_64_names_node_axis_and_extent() {
    let mut g = Graph::new();
    let x = g.input("x", DType::F32, &[Dim::Known(64), Dim::Known(3)]);
    let axes = g.ints(&[1], &[0]);
    let y = g.node("Squeeze", 13, &[x, axes], &[]);
    let error = legalize(&mut g.done(y), &LegalizeOptions::default()).expect_err("64 is not 1");
    let text = error.to_string();
    assert!(text.contains("Squeeze_1") && text.contains("axis 0") && text.contains("64"), "{text}");
}

#[test]
fn everything_missing_is_in_one_report() {
    let mut g = Graph::new();
    let x = g.input("x", DType::F32, &[Dim::Known(2)]);
    let a = g.node("NoSuchOp", 1, &[x], &[]);
    let b = g.node("Relu", 14, &[a], &[]);
    let y = g.node("NorThis", 1, &[b], &[]);
    let Err(LegalizeError::Unsupported(report)) = legalize(&mut g.done(y), &LegalizeOptions::default()) else {
        panic!("two operators are not supported")
    };
    let names: Vec<&str> = report.entries.iter().map(|e| e.op_type.as_str()).collect();
    assert_eq!(names, ["NoSuchOp", "NorThis"]);
}

#[test]
fn needed_values_are_asked_for_and_used() {
    let build = || {
        let mut g = Graph::new();
        let x = g.input("x", DType::F32, &[Dim::Known(6)]);
        let s = g.input("s", DType::I64, &[Dim::Known(2)]);
        let y = g.node("Reshape", 14, &[x, s], &[]);
        g.done(y)
    };
    let error = legalize(&mut build(), &LegalizeOptions::default()).expect_err("the shape is not known");
    assert!(matches!(&error, LegalizeError::NeedsValues { inputs, .. } if inputs == &["s"]), "{error}");
    let fixed = [("s".to_owned(), Tensor::i64(&[2], &[3, 2]).expect("sizes agree"))].into();
    let mut module = build();
    legalize(&mut module, &LegalizeOptions { fixed, ..LegalizeOptions::default() }).expect("now it is");
    assert_eq!(output_type(&module), "f32[3, 2]");
}

#[test]
fn a_declared_element_type_that_cannot_be_is_an_error() {
    let mut g = Graph::new();
    let x = g.input("x", DType::F32, &[Dim::Known(6)]);
    let y = g.node("Relu", 14, &[x], &[]);
    g.f.set_type(y, TensorType::known(DType::F16, &[6]).into());
    let error = legalize(&mut g.done(y), &LegalizeOptions::default()).expect_err("f16 is not f32");
    assert!(error.to_string().contains("f16[6]"), "{error}");
}

#[test]
fn declared_extents_that_cannot_be_are_overruled() {
    let mut g = Graph::new();
    let x = g.input("x", DType::F32, &[Dim::Known(6)]);
    let y = g.node("ReduceSum", 13, &[x], &[("keepdims", AttrValue::Int(0))]);
    g.f.set_type(y, TensorType::known(DType::F32, &[1, 1]).into());
    let mut module = g.done(y);
    let stats = legalize(&mut module, &LegalizeOptions::default()).expect("the operator holds");
    assert_eq!((output_type(&module).as_str(), stats.overruled), ("f32[]", 1));
}

/// What one operator of f32 vectors gives, by the reference evaluator.
fn computed(op_type: &str, since: i64, inputs: &[&[f32]], attributes: &[(&str, AttrValue)]) -> Vec<f32> {
    let mut g = Graph::new();
    let operands: Vec<Value> =
        (0..inputs.len()).map(|i| g.input(&format!("x{i}"), DType::F32, &[Dim::from(inputs[i].len())])).collect();
    let y = g.node(op_type, since, &operands, attributes);
    let mut module = g.done(y);
    legalize(&mut module, &LegalizeOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    verify_core(&module).unwrap_or_else(|e| panic!("{op_type}: {e}"));
    let values: Vec<HostValue> =
        inputs.iter().map(|v| Tensor::f32(&[v.len()], v).expect("sizes agree").into()).collect();
    let function = module.entry().expect("there is one function");
    let made =
        eval_function(&module, function, &values, Options::default()).unwrap_or_else(|e| panic!("{op_type}: {e}"));
    made[0].tensor().expect("a tensor").to_vec()
}

/// Operator, version, inputs, attributes, expected.
type Example = (&'static str, i64, Vec<Vec<f32>>, Vec<(&'static str, AttrValue)>, Vec<f32>);

#[test]
fn operators_compute_what_their_definitions_say() {
    let inf = f32::INFINITY;
    let x = vec![-100.0, -1.0, 0.0, 1.0, 100.0];
    let examples: Vec<Example> = vec![
        ("Sigmoid", 13, vec![x.clone()], vec![], vec![0.0, 0.268_941_43, 0.5, 0.731_058_6, 1.0]),
        ("Softplus", 1, vec![x.clone()], vec![], vec![0.0, 0.313_261_7, std::f32::consts::LN_2, 1.313_261_7, 100.0]),
        ("Relu", 14, vec![x.clone()], vec![], vec![0.0, 0.0, 0.0, 1.0, 100.0]),
        ("Sinh", 9, vec![vec![-1.0, 0.0, 89.0]], vec![], vec![-1.175_201_2, 0.0, 2.244_806_4e38]),
        ("Cosh", 9, vec![vec![-1.0, 0.0, 89.0]], vec![], vec![1.543_080_6, 1.0, 2.244_806_4e38]),
        ("Asinh", 9, vec![vec![-1.0, 1e30]], vec![], vec![-0.881_373_6, 69.770_7]),
        ("Atanh", 9, vec![vec![-1.0, 0.5]], vec![], vec![-inf, 0.549_306_15]),
        ("Mod", 13, vec![vec![-5.5, 5.5], vec![3.0, 3.0]], vec![("fmod", AttrValue::Int(1))], vec![-2.5, 2.5]),
        (
            "Mod",
            28,
            vec![vec![-5.5, 5.5, 1.0, -1.0, inf], vec![3.0, -3.0, -inf, -inf, 2.0]],
            vec![],
            vec![0.5, -0.5, -inf, -1.0, f32::NAN],
        ),
        ("SwiGLU", 28, vec![vec![1.0, -2.0], vec![3.0, 5.0]], vec![], vec![2.193_175_7, -1.192_029_2]),
        ("SwiGLU", 28, vec![vec![1.0], vec![3.0]], vec![("alpha", AttrValue::Float(2.0))], vec![2.642_391_2]),
        ("Clip", 6, vec![x.clone()], vec![("max", AttrValue::Float(2.0))], vec![-100.0, -1.0, 0.0, 1.0, 2.0]),
        ("Softmax", 13, vec![vec![1000.0, 1000.0]], vec![], vec![0.5, 0.5]),
        ("ReduceLogSumExp", 13, vec![vec![1000.0, -inf]], vec![], vec![1000.0]),
        ("LpNormalization", 22, vec![vec![3.0, 4.0]], vec![], vec![0.6, 0.8]),
        ("MatMul", 13, vec![vec![1.0, 2.0], vec![3.0, 4.0]], vec![], vec![11.0]),
        (
            "Einsum",
            12,
            vec![vec![1.0, 2.0], vec![3.0, 4.0]],
            vec![("equation", AttrValue::Str("i,j->ji".to_owned()))],
            vec![3.0, 6.0, 4.0, 8.0],
        ),
        ("HardSwish", 22, vec![vec![-4.0, 1.0, 4.0]], vec![], vec![0.0, 0.666_666_7, 4.0]),
    ];
    for (op_type, since, inputs, attributes, expected) in examples {
        let inputs: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
        let found = computed(op_type, since, &inputs, &attributes);
        assert_eq!(found.len(), expected.len(), "{op_type}");
        for (a, b) in found.iter().zip(&expected) {
            let same = a == b || a.is_nan() && b.is_nan();
            assert!(same || (a - b).abs() <= 1e-6 * b.abs().max(1e-6), "{op_type}: {found:?}, expected {expected:?}");
        }
    }
}

#[test]
fn a_remainder_of_zero_has_the_sign_of_the_divisor() {
    let signs = |fmod| {
        let a = [0.0, -0.0, 4.0, -4.0, 0.0, -0.0, 4.0, -4.0];
        let b = [2.0, 2.0, 2.0, 2.0, -2.0, -2.0, -2.0, -2.0];
        let found = computed("Mod", 28, &[&a, &b], &[("fmod", AttrValue::Int(fmod))]);
        assert!(found.iter().all(|y| *y == 0.0), "{found:?}");
        found.iter().map(|y| y.is_sign_negative()).collect::<Vec<_>>()
    };
    assert_eq!(signs(0), [false, false, false, false, true, true, true, true]);
    assert_eq!(signs(1), [false, true, false, true, false, true, false, true]);
}

/// Scores are all alike, so that a query gives the mean of the values that it sees, or 0 where it sees none.
#[test]
fn attention_sees_through_its_window_from_where_the_query_stands() {
    let seen = |attributes: &[(&str, i64)], padded: Option<i64>| {
        let mut g = Graph::new();
        let [q, k, v] =
            [("q", 3), ("k", 5), ("v", 5)].map(|(name, n)| g.input(name, DType::F32, &[1, 1, n, 1].map(Dim::Known)));
        let mut operands = vec![q, k, v];
        if let Some(length) = padded {
            operands.extend([g.absent(), g.absent(), g.absent(), g.ints(&[1], &[length])]);
        }
        let attributes: Vec<_> = attributes.iter().map(|(name, v)| (*name, AttrValue::Int(*v))).collect();
        let y = g.node("Attention", 25, &operands, &attributes);
        let mut module = g.done(y);
        legalize(&mut module, &LegalizeOptions::default())?;
        verify_core(&module).unwrap_or_else(|e| panic!("{e}"));
        let zeros = |n: usize| Tensor::f32(&[1, 1, n, 1], &vec![0.0; n]).expect("sizes agree");
        let values = Tensor::f32(&[1, 1, 5, 1], &[1.0, 10.0, 100.0, 1000.0, 10000.0]).expect("sizes agree");
        let inputs = [zeros(3).into(), zeros(5).into(), values.into()];
        let function = module.entry().expect("there is one function");
        let made = eval_function(&module, function, &inputs, Options::default()).unwrap_or_else(|e| panic!("{e}"));
        Ok::<_, LegalizeError>(made[0].tensor().expect("a tensor").to_vec::<f32>())
    };
    let means = |attributes: &[(&str, i64)], padded, expected: [f32; 3]| {
        let found = seen(attributes, padded).unwrap_or_else(|e| panic!("{e}"));
        let close = found.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 1e-5 * b.abs());
        assert!(close, "{attributes:?} {padded:?}: {found:?}, expected {expected:?}");
    };
    let (causal, left, right) = ("is_causal", "left_window_size", "right_window_size");
    means(&[], None, [2222.2, 2222.2, 2222.2]);
    means(&[(causal, 1)], None, [1.0, 5.5, 37.0]);
    means(&[(left, 0), (right, 0)], None, [1.0, 10.0, 100.0]);
    means(&[(left, 1), (right, i64::MAX)], None, [2222.2, 2222.2, 2777.5]);
    means(&[(left, -1), (right, 1)], None, [5.5, 37.0, 277.75]);
    means(&[(causal, 1), (left, 1), (right, 3)], None, [1.0, 5.5, 55.0]);
    // Of five keys four are valid: the last of three queries stands on the fourth.
    means(&[(causal, 1)], Some(4), [5.5, 37.0, 277.75]);
    means(&[(left, 0), (right, 1)], Some(4), [55.0, 550.0, 1000.0]);
    // Of five keys one is: the first two queries stand before it.
    means(&[(causal, 1)], Some(1), [0.0, 0.0, 1.0]);
    means(&[(left, 0), (right, 0)], Some(1), [0.0, 0.0, 1.0]);
    let wrong = seen(&[(left, -2)], None).expect_err("no such window").to_string();
    assert!(wrong.contains("`left_window_size` is -2"), "{wrong}");
}

#[test]
fn slices_count_from_either_end_of_a_symbolic_axis() {
    let cut = |start: i64, end: i64, step: i64| {
        let mut g = Graph::new();
        let x = g.input("x", DType::F32, &[Dim::symbol("S")]);
        let operands = [start, end, 0, step].map(|v| g.ints(&[1], &[v]));
        let y = g.node("Slice", 13, &[x, operands[0], operands[1], operands[2], operands[3]], &[]);
        let mut module = g.done(y);
        legalize(&mut module, &LegalizeOptions::default()).expect("a slice");
        let input: HostValue = Tensor::f32(&[5], &[0.0, 1.0, 2.0, 3.0, 4.0]).expect("sizes agree").into();
        let function = module.entry().expect("there is one function");
        let made = eval_function(&module, function, &[input], Options::default()).expect("it runs");
        made[0].tensor().expect("a tensor").to_vec::<f32>()
    };
    assert_eq!(cut(1, i64::MAX, 1), [1.0, 2.0, 3.0, 4.0]);
    assert_eq!(cut(-2, 100, 1), [3.0, 4.0]);
    assert_eq!(cut(0, -1, 2), [0.0, 2.0]);
    assert_eq!(cut(-1, i64::MIN, -2), [4.0, 2.0, 0.0]);
    assert_eq!(cut(7, 9, 1), [0.0; 0]);
}
