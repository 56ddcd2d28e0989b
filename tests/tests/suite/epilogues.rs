//! Bias and bounds behind a product: done by the product where it can, and the same bits as op by op everywhere.

use std::sync::Arc;

use frit_compiler::artifact::{Artifact, read_file, write_file};
use frit_compiler::cpu::Vectors;
use frit_compiler::driver::{Options, compile};
use frit_compiler::plan::{Epilogue, LibraryCall, Plan, Step};
use frit_ir::testing::Rng;
use frit_ir::text::{NoConstants, from_text};
use frit_ir::{DType, HostValue, Module, Tensor, onnx as import};
use frit_passes::manager::{Level, Math};
use frit_runtime::Model;
use frit_runtime::pool::Pool;
use frit_tests::Case;
use frit_tests::onnx::{Extent, FLOAT, floats, graph, int, model, node, output, value_info};
use frit_tests::wire::Message;

/// Numbers of every kind: one in five is a zero of either sign, an infinity, a NaN or too small to multiply.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let odd = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1e-30, -1e-30, -0.0];
    let mut rng = Rng::new(seed);
    let mut next = || rng.below(4096);
    (0..count)
        .map(|_| match next() {
            n if n % 5 == 0 => odd[n / 5 % 8],
            n => n as f32 / 1024.0 - 2.0,
        })
        .collect()
}

fn all(dims: &[usize]) -> usize {
    dims.iter().product()
}

/// A weight with a name.
fn weight(name: &str, dims: &[usize]) -> Message {
    let shape: Vec<u64> = dims.iter().map(|d| *d as u64).collect();
    // Only finite ones, so that not every sum is NaN.
    let values: Vec<f32> = numbers(all(dims), 7).into_iter().map(|v| if v.is_finite() { v } else { -0.5 }).collect();
    floats(name, &shape, &values)
}

/// A model of an input x, `[n, 7]`, `[n, t, 7]` or `[2, 3, n, 7]`, with weights.
fn imported(nodes: &[Message], rank: usize, outputs: &[&str], n: Option<u64>) -> Module {
    let weights = [
        weight("w", &[7, 37]),
        weight("wt", &[37, 7]),
        weight("stack", &[2, 3, 7, 5]),
        weight("b", &[37]),
        weight("row", &[1, 37]),
        weight("whole", &[3, 37]),
        weight("each_row", &[3, 1]),
        weight("b1", &[1]),
        weight("b5", &[5]),
        floats("zero", &[], &[0.0]),
        floats("below", &[], &[-0.0]),
        floats("six", &[], &[6.0]),
        floats("half", &[], &[-0.5]),
    ];
    let first = n.map_or(Extent::Named("n"), Extent::Known);
    let shape = match rank {
        2 => vec![first, Extent::Known(7)],
        3 => vec![first, Extent::Named("t"), Extent::Known(7)],
        _ => vec![Extent::Known(2), Extent::Known(3), first, Extent::Known(7)],
    };
    let outputs: Vec<Message> = outputs.iter().map(|name| output(name)).collect();
    let bytes = model(graph(nodes, &weights, &[value_info("x", FLOAT, &shape)], &outputs));
    import::from_bytes(bytes, None).expect("a model that imports")
}

fn x(rank: usize, n: usize) -> HostValue {
    let dims = &[vec![n, 7], vec![n, 4, 7], vec![2, 3, n, 7]][rank - 2];
    Tensor::f32(dims, &numbers(all(dims), 3)).expect("as many numbers").into()
}

/// What the products of a plan do besides, and how many kernels there are.
fn steps(plan: &Plan) -> (Vec<Epilogue>, usize) {
    let (mut epilogues, mut kernels) = (Vec::new(), 0);
    for step in plan.programs.iter().filter(|p| p.name != "preparation").flat_map(|p| &p.steps) {
        match step {
            Step::Library { call: LibraryCall::MatMul { epilogue, .. }, .. } => epilogues.push(*epilogue),
            Step::Kernel { .. } => kernels += 1,
            _ => {}
        }
    }
    (epilogues, kernels)
}

/// The bits of all outputs, of one NaN for all.
fn bits(values: &[HostValue]) -> Vec<Vec<u64>> {
    let each = |value: &HostValue| {
        let tensor = value.tensor().expect("a tensor");
        let numbers: Vec<f64> = match tensor.dtype() {
            DType::F64 => tensor.to_vec::<f64>(),
            _ => tensor.to_vec::<f32>().into_iter().map(f64::from).collect(),
        };
        numbers.into_iter().map(|n| if n.is_nan() { f64::NAN.to_bits() } else { n.to_bits() }).collect()
    };
    values.iter().map(each).collect()
}

/// Runs at every level and compares bits with what op by op gives; returns the plan of the highest.
fn same_bits(what: &str, module: &Module, inputs: &[HostValue]) -> Plan {
    let case = Case { module: module.clone(), inputs: inputs.to_vec() };
    let pools = [Arc::new(Pool::new(1)), Arc::new(Pool::new(2))];
    let expected = case.run(Level::O0, Math::Strict, Vectors::Widest, &pools[0]).expect("a run");
    for level in [Level::O1, Level::O2, Level::O3] {
        for pool in &pools {
            let found = case.run(level, Math::Strict, Vectors::Widest, pool).expect("a run");
            assert_eq!(bits(&found), bits(&expected), "{what}: {level:?}");
        }
    }
    let options = Options { level: Level::O3, math: Math::Strict, verify_each: true, ..Options::default() };
    let plan = compile(module.clone(), &options).expect("a plan").plan;
    plan.check().expect("a sound plan");
    plan
}

fn clip(from: &str, to: &str, lower: &str, upper: &str) -> Message {
    node("Clip", &[from, lower, upper], &[to], &[])
}

#[test]
fn bias_and_bounds_are_done_by_the_product() {
    let relu = |from: &str, to: &str| node("Relu", &[from], &[to], &[]);
    let (mul, add) = (node("MatMul", &["x", "w"], &["a"], &[]), node("Add", &["a", "b"], &["c"], &[]));
    let gemm = |inputs: &[&str], transposed| node("Gemm", inputs, &["c"], &[int("transB", transposed)]);
    let is = |bias, lower, upper| Epilogue { bias, lower, upper };
    let (zero, six) = (Some(0.0), Some(6.0));
    let cases: Vec<(&str, usize, Vec<Message>, Epilogue)> = vec![
        ("linear and relu", 2, vec![mul.clone(), add.clone(), relu("c", "y")], is(true, zero, None)),
        ("linear of a stack", 3, vec![mul.clone(), add.clone(), relu("c", "y")], is(true, zero, None)),
        ("bias first", 2, vec![mul.clone(), node("Add", &["b", "a"], &["y"], &[])], is(true, None, None)),
        ("a bias of one row", 2, vec![mul.clone(), node("Add", &["a", "row"], &["y"], &[])], is(true, None, None)),
        ("no bias", 2, vec![mul.clone(), relu("a", "y")], is(false, zero, None)),
        ("gemm", 2, vec![gemm(&["x", "w", "b"], 0), relu("c", "y")], is(true, zero, None)),
        ("gemm, turned", 2, vec![gemm(&["x", "wt", "b"], 1), clip("c", "y", "zero", "six")], is(true, zero, six)),
        ("only above", 2, vec![mul.clone(), clip("a", "y", "", "six")], is(false, None, six)),
        ("below -0", 2, vec![mul.clone(), add.clone(), clip("c", "y", "below", "")], is(true, Some(-0.0), None)),
        ("nothing between", 2, vec![mul.clone(), clip("a", "y", "six", "half")], is(false, six, Some(-0.5))),
        (
            "a batch of weights",
            4,
            vec![node("MatMul", &["x", "stack"], &["a"], &[]), node("Add", &["a", "b5"], &["c"], &[]), relu("c", "y")],
            is(true, zero, None),
        ),
    ];
    for (what, rank, nodes, expected) in cases {
        let module = imported(&nodes, rank, &["y"], None);
        for n in [0, 1, 3, 65] {
            let plan = same_bits(what, &module, &[x(rank, n)]);
            let (epilogues, kernels) = steps(&plan);
            assert_eq!(epilogues, [expected], "{what}");
            assert_eq!(kernels, 0, "{what}");
        }
    }
    let one = imported(&[mul, add, relu("c", "y")], 2, &["y"], Some(1));
    same_bits("one row", &one, &[x(2, 1)]);
}

#[test]
fn a_network_is_its_products() {
    let mut nodes = vec![node("MatMul", &["x", "w"], &["a"], &[]), node("Add", &["a", "b"], &["c"], &[])];
    nodes.push(node("Relu", &["c"], &["d"], &[]));
    nodes.push(node("Gemm", &["d", "wt"], &["e"], &[]));
    nodes.push(clip("e", "f", "zero", "six"));
    nodes.push(node("Gemm", &["f", "w", "b"], &["g"], &[]));
    nodes.push(node("Relu", &["g"], &["y"], &[]));
    let module = imported(&nodes, 2, &["y"], None);
    let plan = same_bits("network", &module, &[x(2, 9)]);
    let (epilogues, kernels) = steps(&plan);
    assert_eq!((epilogues.len(), kernels, plan.programs.len()), (3, 0, 1));
    let ops = plan.programs[0].ops;
    assert_eq!((ops.generated, ops.library), (0, 3 + 2 + 2 + 2), "every op is counted: {ops}");
    // A compiled file says the same.
    let path = std::env::temp_dir().join(format!("frit-epilogues-{}.fritc", std::process::id()));
    write_file(&plan, &module, &path).expect("a file");
    let read = read_file(&path);
    std::fs::remove_file(&path).expect("a file");
    let Artifact { plan: again, .. } = read.expect("an artifact");
    assert_eq!(steps(&again).0, epilogues);
    Model::new(again).expect("a model");
}

#[test]
fn what_else_reads_or_does_stays_apart() {
    let mul = || node("MatMul", &["x", "w"], &["a"], &[]);
    let add = |bias: &str, to: &str| node("Add", &["a", bias], &[to], &[]);
    let relu = |from: &str, to: &str| node("Relu", &[from], &[to], &[]);
    let cases: Vec<(&str, Vec<Message>, &[&str])> = vec![
        ("the product is an output", vec![mul(), add("b", "c"), relu("c", "y")], &["y", "a"]),
        ("the product has two readers", vec![mul(), add("b", "y"), node("Softmax", &["a"], &["z"], &[])], &["y", "z"]),
        ("the sum is an output", vec![mul(), add("b", "c"), relu("c", "y")], &["y", "c"]),
        ("a bias for each row", vec![mul(), add("each_row", "c"), relu("c", "y")], &["y"]),
        ("a bias for each element", vec![mul(), add("whole", "c"), relu("c", "y")], &["y"]),
        ("one number for all", vec![mul(), add("six", "c"), relu("c", "y")], &["y"]),
        ("one element for all", vec![mul(), add("b1", "c"), relu("c", "y")], &["y"]),
        ("added to itself", vec![mul(), node("Add", &["a", "a"], &["y"], &[])], &["y"]),
        ("another activation", vec![mul(), add("b", "c"), node("Sigmoid", &["c"], &["y"], &[])], &["y"]),
        ("more behind it", vec![mul(), add("b", "c"), relu("c", "d"), node("Exp", &["d"], &["y"], &[])], &["y"]),
        ("an upper bound of -0", vec![mul(), add("b", "c"), clip("c", "y", "", "below")], &["y"]),
        ("bounds first", vec![mul(), relu("a", "c"), node("Add", &["c", "b"], &["y"], &[])], &["y"]),
    ];
    for (what, nodes, outputs) in cases {
        let module = imported(&nodes, 2, outputs, Some(3));
        let plan = same_bits(what, &module, &[x(2, 3)]);
        let (epilogues, kernels) = steps(&plan);
        assert_eq!(epilogues, [Epilogue::default()], "{what}");
        assert!(kernels > 0, "{what}");
    }
}

/// In f64, which has no kernels of ours, with a bias that is computed, and with a minimum before the maximum.
#[test]
fn f64_and_a_bias_that_is_made_on_the_way() {
    let text = |dtype: &str, lower: &str, upper: &str| {
        format!(
            r#"frit 1
func @infer(%x "x": {dtype}[N, 7], %w "w": {dtype}[7, 5], %s "s": {dtype}[5]) {{
  %y = dot_general(%x, %w) {{lhs_batch = [], rhs_batch = [], lhs_contract = [1], rhs_contract = [0], accumulate = {dtype}}}
  %b = sort(%s) {{axis = 0, descending = true}}
  %c = broadcast(%b) {{dims = [N, 5], axes = [1]}}
  %a = add(%c, %y)
  %l = constant {{value = {dtype}[] dense({lower})}}
  %u = constant {{value = {dtype}[] dense({upper})}}
  %ls = broadcast(%l) {{dims = [N, 5], axes = []}}
  %us = broadcast(%u) {{dims = [N, 5], axes = []}}
  %m = min(%us, %a)
  %r = max(%m, %ls)
  return "r" = %r
}}
"#
        )
    };
    for dtype in [DType::F32, DType::F64] {
        let tensor = |dims: &[usize], seed: u64| -> HostValue {
            let values = numbers(all(dims), seed);
            let bytes: Vec<u8> = match dtype {
                DType::F64 => values.iter().flat_map(|v| f64::from(*v).to_le_bytes()).collect(),
                _ => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            };
            Tensor::from_bytes(dtype, dims, &bytes).expect("as many numbers").into()
        };
        let inputs = [tensor(&[9, 7], 1), tensor(&[7, 5], 2), tensor(&[5], 3)];
        let module =
            |lower, upper| from_text(&text(dtype.name(), lower, upper), &NoConstants).expect("a text that reads");
        let (epilogues, kernels) = steps(&same_bits("between", &module("0.0", "1.5"), &inputs));
        let expected = Epilogue { bias: true, lower: Some(0.0), upper: Some(1.5) };
        assert_eq!((epilogues, kernels), (vec![expected], 0), "{dtype}");
        // Nothing lies between these: the order counts.
        let (epilogues, kernels) = steps(&same_bits("crossed", &module("1.5", "0.0"), &inputs));
        assert_eq!((epilogues, kernels), (vec![Epilogue::default()], 1), "{dtype}");
    }
}
