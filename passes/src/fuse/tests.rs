//! Which ops make one kernel, and which don't.

use frit_ir::builder::Builder;
use frit_ir::types::{DType, Dim, TensorType};
use frit_ir::{BinaryOp, Function, Op, Origin, ReduceKind, Tensor, UnaryOp, Value};

use frit_ir::Module;
use frit_ir::reference;
use frit_ir::testing::{self, Rng};
use frit_ir::value::HostValue;

use super::*;
use crate::manager::{Math, Options, Pipeline, run};

fn function(dims: &[usize], build: impl FnOnce(&mut Builder<'_>, Value) -> Vec<Value>) -> Function {
    let mut f = Function::new("infer");
    let x = f.add_input("x", TensorType::known(DType::F32, dims));
    let outputs = build(&mut Builder::new(&mut f, Origin::named("test")), x);
    for (i, v) in outputs.into_iter().enumerate() {
        f.add_output(&format!("y{i}"), v);
    }
    f
}

fn softmax(b: &mut Builder<'_>, x: Value, axis: usize) -> Value {
    let m = b.reduce(x, vec![axis], ReduceKind::Max, true).expect("max");
    let s = b.binary(BinaryOp::Sub, x, m).expect("sub");
    let e = b.unary(UnaryOp::Exp, s).expect("exp");
    let z = b.reduce(e, vec![axis], ReduceKind::Sum, true).expect("sum");
    b.binary(BinaryOp::Div, e, z).expect("div")
}

#[test]
fn softmax_is_one_kernel_of_rows_along_any_axis_and_length() {
    for (dims, axis, rows, reduced) in [(&[64, 784][..], 1, 64, 784), (&[2, 30, 5], 1, 10, 30), (&[64, 10], 1, 64, 10)]
    {
        let f = function(dims, |b, x| vec![softmax(b, x, axis)]);
        let shape = kernel_shape(&f).expect("one kernel");
        let space = shape.space.expect("rows");
        assert_eq!((space.rows, space.reduced, space.sections.len()), (Dim::Known(rows), Dim::Known(reduced), 2));
    }
}

#[test]
fn an_append_to_a_donated_input_stays_alone() {
    let fused = |donated: bool| {
        let mut f = Function::new("infer");
        let past = f.add_input("past", TensorType::new(DType::F32, vec![Dim::symbol("T"), Dim::from(4usize)]));
        let new = f.add_input("new", TensorType::known(DType::F32, &[1, 4]));
        let mut b = Builder::new(&mut f, Origin::named("test"));
        let new = b.unary(UnaryOp::Exp, new).expect("exp");
        let all = b.op(Op::Concat { axis: 0 }, &[past, new]).expect("concat");
        let same = b
            .op(Op::Reshape { dims: vec![&Dim::symbol("T") + &Dim::ONE, Dim::from(4usize)] }, &[all])
            .expect("reshape");
        let y = b.unary(UnaryOp::Neg, all).expect("neg");
        f.add_output("all", same);
        f.add_output("y", y);
        if donated {
            f.donations.push(frit_ir::Donation { input: 0, output: 0 });
        }
        let mut module = Module::of(f);
        run(&mut module, &Pipeline::parse("fuse").expect("a pipeline"), &Options::default()).expect("a pass");
        let f = &module.functions["infer"];
        let lone = f.nodes().into_iter().filter(|id| matches!(f.node(*id).op, Op::Concat { .. })).count();
        (lone, append(f, frit_ir::Donation { input: 0, output: 0 }))
    };
    let (lone, found) = fused(true);
    let found = found.expect("an append");
    assert_eq!((lone, found.axis, found.views.len()), (1, 0, 1));
    let (lone, found) = fused(false);
    assert_eq!(lone, 0);
    assert!(found.expect_err("no concat").contains("made by a `fusion`"));
}

#[test]
fn a_split_reduce_is_a_barrier_for_what_needs_it() {
    let both = |n: usize| {
        function(&[n], |b, x| {
            let sum = b.reduce(x, vec![0], ReduceKind::Sum, false).expect("sum");
            vec![b.binary(BinaryOp::Div, x, sum).expect("div")]
        })
    };
    assert!(kernel_shape(&both(4096)).is_ok());
    assert_eq!(
        kernel_shape(&both(4097)).map(|_| ()),
        Err(Refusal::Barrier { op: "broadcast", elements: Dim::Known(4097) })
    );
}

#[test]
fn reduces_over_other_extents_are_two_kernels() {
    let f = function(&[32, 48], |b, x| {
        [0, 1].map(|axis| b.reduce(x, vec![axis], ReduceKind::Sum, false).expect("sum")).to_vec()
    });
    assert_eq!(kernel_shape(&f).map(|_| ()), Err(Refusal::Reduces("[(32), 48]".into(), "[32, (48)]".into())));
}

#[test]
fn a_short_reduce_is_written_out_and_sizes_must_agree() {
    let f = function(&[64, 784, 6], |b, x| vec![b.reduce(x, vec![2], ReduceKind::Sum, false).expect("sum"), x]);
    assert_eq!(kernel_shape(&f).map(|_| ()), Err(Refusal::Empty));
    let f = function(&[64, 784, 6], |b, x| {
        let y = b.unary(UnaryOp::Neg, x).expect("neg");
        vec![b.reduce(x, vec![2], ReduceKind::Sum, false).expect("sum"), y]
    });
    assert_eq!(kernel_shape(&f).map(|_| ()), Err(Refusal::Counts(Dim::Known(50176), Dim::Known(301056))));
}

fn passes(module: &mut Module, text: &str) -> crate::manager::Report {
    let options = Options { math: Math::AsWritten, ..Options::default() };
    run(module, &Pipeline::parse(text).expect("a pipeline"), &options).expect("runs")
}

/// The ops left in the entry function, fusions as the words in them.
fn shape_of(module: &Module) -> Vec<String> {
    let f = module.entry().expect("a function");
    let words = |f: &Function| -> Vec<String> {
        let order = f.toposort().expect("no cycle");
        order
            .iter()
            .filter(|id| !matches!(f.node(**id).op, Op::Input { .. }))
            .map(|id| f.node(*id).op.name().to_owned())
            .collect()
    };
    let mut shapes = Vec::new();
    for id in f.toposort().expect("no cycle") {
        let node = f.node(id);
        match (&node.op, node.regions()) {
            (Op::Input { .. }, _) => {}
            (Op::Fusion {}, [body]) => shapes.push(format!("({})", words(body).join(" "))),
            (op, _) => shapes.push(op.name().to_owned()),
        }
    }
    shapes
}

fn fused(f: Function) -> Vec<String> {
    let mut module = Module::of(f);
    passes(&mut module, "simplify,fuse");
    shape_of(&module)
}

fn layer_norm(b: &mut Builder<'_>, x: Value, axis: usize, n: f64) -> Value {
    let count = b.scalar(DType::F32, n).expect("n");
    let mean = |b: &mut Builder<'_>, x: Value| {
        let sum = b.reduce(x, vec![axis], ReduceKind::Sum, true).expect("sum");
        b.binary(BinaryOp::Div, sum, count).expect("mean")
    };
    let m = mean(b, x);
    let d = b.binary(BinaryOp::Sub, x, m).expect("centered");
    let square = b.binary(BinaryOp::Mul, d, d).expect("square");
    let var = mean(b, square);
    let eps = b.scalar(DType::F32, 1e-5).expect("eps");
    let var = b.binary(BinaryOp::Add, var, eps).expect("eps");
    let std = b.unary(UnaryOp::Sqrt, var).expect("std");
    b.binary(BinaryOp::Div, d, std).expect("normal")
}

#[test]
fn chains_softmax_and_layer_norm_are_one_kernel_each() {
    for dims in [&[64, 784][..], &[4, 10], &[1, 1000]] {
        let one = fused(function(dims, |b, x| vec![softmax(b, x, 1)]));
        assert_eq!(one.len(), 1, "{dims:?}: {one:?}");
        let one = fused(function(dims, |b, x| vec![layer_norm(b, x, 1, dims[1] as f64)]));
        assert_eq!(one.len(), 1, "{dims:?}: {one:?}");
    }
    let gelu = fused(function(&[100, 100], |b, x| {
        let c = b.scalar(DType::F32, std::f64::consts::FRAC_1_SQRT_2).expect("c");
        let scaled = b.binary(BinaryOp::Mul, x, c).expect("mul");
        let erf = b.unary(UnaryOp::Erf, scaled).expect("erf");
        let (one, half) = (b.scalar(DType::F32, 1.0).expect("1"), b.scalar(DType::F32, 0.5).expect("0.5"));
        let sum = b.binary(BinaryOp::Add, erf, one).expect("add");
        let product = b.binary(BinaryOp::Mul, x, sum).expect("mul");
        vec![b.binary(BinaryOp::Mul, product, half).expect("mul")]
    }));
    assert_eq!(gelu.len(), 1, "{gelu:?}");
}

#[test]
fn sibling_reduces_share_a_kernel_and_views_are_absorbed() {
    let shapes = fused(function(&[64, 784, 6], |b, x| {
        let flat = b.reshape(x, vec![Dim::Known(301_056)]).expect("reshape");
        [ReduceKind::Min, ReduceKind::Max].map(|kind| b.reduce(flat, vec![0], kind, false).expect("reduce")).to_vec()
    }));
    assert_eq!(shapes, ["(reduce reduce)"]);
}

#[test]
fn a_costly_value_is_stored_once_and_the_reason_is_told() {
    let f = function(&[512, 512], |b, x| {
        let mut e = b.unary(UnaryOp::Tanh, x).expect("tanh");
        for _ in 0..4 {
            e = b.unary(UnaryOp::Erf, e).expect("erf");
        }
        [0, 1].map(|axis| b.reduce(e, vec![axis], ReduceKind::Sum, false).expect("sum")).to_vec()
    });
    let mut module = Module::of(f);
    let report = passes(&mut module, "fuse");
    assert_eq!(shape_of(&module), ["(tanh erf erf erf erf reduce)", "reduce"]);
    let remarks = &report.passes[0].remarks;
    assert!(remarks.iter().any(|r| r.reason.starts_with("computing it where it is used costs")), "{remarks:?}");
}

/// One AF-KAN layer as the exporters write it: batch 64, 784 inputs, 6 bases, silu, quad1.
fn basis_layer(batch: usize, inputs: usize) -> Function {
    function(&[batch, inputs], |b, x| {
        let known = |dims: &[usize]| dims.iter().map(|&d| Dim::from(d)).collect::<Vec<_>>();
        let full = known(&[batch, inputs, 6]);
        let column = b.reshape(x, known(&[batch, inputs, 1])).expect("unsqueeze");
        let wide = b.broadcast_to(column, full.clone()).expect("expand");
        let silu = |b: &mut Builder<'_>, v: Value| {
            let n = b.unary(UnaryOp::Neg, v).expect("neg");
            let e = b.unary(UnaryOp::Exp, n).expect("exp");
            let one = b.scalar(DType::F32, 1.0).expect("1");
            let d = b.binary(BinaryOp::Add, e, one).expect("add");
            b.binary(BinaryOp::Div, v, d).expect("div")
        };
        let table = |b: &mut Builder<'_>, values: [f32; 6]| {
            let rows: Vec<f32> = values.iter().copied().cycle().take(inputs * 6).collect();
            b.constant(frit_ir::Tensor::f32(&[inputs, 6], &rows).expect("sizes agree")).expect("table")
        };
        let low = table(b, [-1.0, -0.7, -0.3, 0.0, 0.3, 0.7]);
        let high = table(b, [0.3, 0.7, 1.0, 1.3, 1.7, 2.0]);
        let u = b.binary(BinaryOp::Sub, wide, low).expect("u");
        let v = b.binary(BinaryOp::Sub, high, wide).expect("v");
        let (u, v) = (silu(b, u), silu(b, v));
        let product = b.binary(BinaryOp::Mul, u, v).expect("uv");
        let phi = b.binary(BinaryOp::Mul, product, product).expect("phi");
        let flat = b.reshape(phi, known(&[batch * inputs * 6])).expect("flat");
        let square = b.binary(BinaryOp::Mul, flat, flat).expect("square");
        let sum = b.reduce(square, vec![0], ReduceKind::Sum, false).expect("sum");
        let norm = b.unary(UnaryOp::Sqrt, sum).expect("norm");
        let scaled = b.binary(BinaryOp::Div, phi, norm).expect("l2");
        let lowest = b.reduce(scaled, vec![0, 1, 2], ReduceKind::Min, false).expect("min");
        let highest = b.reduce(scaled, vec![0, 1, 2], ReduceKind::Max, false).expect("max");
        let range = b.binary(BinaryOp::Sub, highest, lowest).expect("range");
        let shifted = b.binary(BinaryOp::Sub, scaled, lowest).expect("shifted");
        let unit = b.binary(BinaryOp::Div, shifted, range).expect("unit");
        let w = b.constant(frit_ir::Tensor::f32(&[6], &[0.1, -0.2, 0.3, 0.1, 0.2, -0.4]).expect("6")).expect("w");
        let weighted = b.binary(BinaryOp::Mul, unit, w).expect("weighted");
        let logits = b.reduce(weighted, vec![2], ReduceKind::Sum, false).expect("logits");
        let bases = b.reduce(unit, vec![2], ReduceKind::Sum, false).expect("bases");
        let a = softmax(b, logits, 1);
        let z = b.binary(BinaryOp::Mul, a, bases).expect("z");
        let normal = layer_norm(b, z, 1, inputs as f64);
        vec![silu(b, normal)]
    })
}

#[test]
fn a_basis_layer_is_few_kernels() {
    let shapes = fused(basis_layer(64, 784));
    let kernels = shapes.iter().filter(|s| s.starts_with('(')).count();
    assert!(kernels == shapes.iter().filter(|s| *s != "constant").count() && kernels <= 6, "{shapes:#?}");
}

fn evaluate(module: &Module, inputs: &[HostValue]) -> Vec<Vec<u8>> {
    let f = module.entry().expect("a function");
    let values = reference::eval_function(module, f, inputs, reference::Options::default()).expect("evaluates");
    values.iter().map(|v| v.tensor().expect("a tensor").bytes().to_vec()).collect()
}

#[test]
fn fused_and_simplified_modules_give_the_same_bits() {
    let (mut kernels, mut runs) = (0, 0);
    for seed in 0..150 {
        let before = testing::module(seed, 4 + seed as usize % 24).expect("a module");
        let mut rng = Rng::new(seed);
        let f = before.entry().expect("a function");
        let extents = testing::extents(&mut rng, f);
        let Some(inputs) = testing::inputs(&mut rng, f, &extents) else { continue };
        let inputs: Vec<HostValue> = inputs.into_iter().map(HostValue::Tensor).collect();
        let expected = evaluate(&before, &inputs);
        for text in ["fuse", "shape,simplify,fuse", "fuse(max-ops=8)"] {
            let mut after = before.clone();
            let report = passes(&mut after, text);
            assert_eq!(evaluate(&after, &inputs), expected, "seed {seed}, {text}");
            kernels += report.passes.iter().filter_map(|p| p.fired.get("fuse")).sum::<u64>();
            let bodies = after.entry().expect("a function");
            for id in bodies.nodes() {
                if let (Op::Fusion {}, [body]) = (&bodies.node(id).op, bodies.node(id).regions()) {
                    kernel_shape(body).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
                }
            }
        }
        runs += 1;
    }
    assert!(runs >= 140 && kernels > 500, "{runs} runs, {kernels} kernels");
}

#[test]
fn what_doubles_at_every_level_makes_no_exponential_body() {
    let f = function(&[4, 4], |b, x| {
        let twice = |b: &mut Builder<'_>, v: Value| b.op(Op::Concat { axis: 0 }, &[v, v]).expect("concat");
        vec![(0..16).fold(x, |v, _| twice(b, v))]
    });
    let shapes = fused(f);
    let concats: Vec<usize> = shapes.iter().map(|s| s.matches("concat").count()).collect();
    // 4 operations a concat, in 2^k copies of the k-th: 7 levels are 508.
    assert!(concats.iter().sum::<usize>() == 16 && concats.iter().all(|n| (1..=7).contains(n)), "{shapes:?}");
}

#[test]
fn a_concat_of_many_is_no_part_of_a_body() {
    let of = |pieces: usize| {
        fused(function(&[4, 4], |b, x| {
            let y = b.op(Op::Concat { axis: 0 }, &vec![x; pieces]).expect("concat");
            vec![b.unary(UnaryOp::Neg, y).expect("neg")]
        }))
    };
    assert_eq!(of(8), ["(concat neg)"]);
    assert_eq!(of(MOST_PIECES + 1), ["concat", "neg"]);
}

#[test]
fn views_without_end_make_several_bodies() {
    let shapes = fused(function(&[4, 8], |b, x| {
        let turn = |b: &mut Builder<'_>, v: Value| {
            let turned = b.transpose(v, vec![1, 0]).expect("transpose");
            let dims = b.dims(turned).expect("dims").into_iter().rev().collect();
            b.reshape(turned, dims).expect("reshape")
        };
        vec![(0..3000).fold(x, |v, _| turn(b, v))]
    }));
    let most = shapes.iter().map(|s| s.split(' ').count()).max().unwrap_or(0);
    assert!((MAX_OPS as usize..=1025).contains(&most), "{most} views in a body");
}

#[test]
fn forming_takes_time_by_the_length_of_a_function() {
    let start = std::time::Instant::now();
    let chain = function(&[16], |b, x| vec![(0..20_000).fold(x, |v, _| b.unary(UnaryOp::Neg, v).expect("neg"))]);
    let mut module = Module::of(chain);
    let report = passes(&mut module, "fuse");
    assert!(report.passes[0].fired["fuse"] > 40);
    // Each op was compared with all others of its kernel once: minutes.
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}

#[test]
fn equal_ops_of_one_kernel_are_one() {
    let f = function(&[64, 64], |b, x| {
        let twice = [(); 2].map(|()| b.unary(UnaryOp::Exp, x).expect("exp"));
        let each = twice.map(|e| b.binary(BinaryOp::Mul, e, e).expect("mul"));
        let sum = b.binary(BinaryOp::Add, each[0], each[1]).expect("add");
        vec![sum, each[1]]
    });
    let mut module = Module::of(f);
    passes(&mut module, "fuse");
    assert_eq!(shape_of(&module), ["(exp mul add)"]);
}

/// Extents of all that kernels of the entry function store.
fn stored(module: &Module) -> Vec<Vec<Dim>> {
    let f = module.entry().expect("a function");
    let kernels = f.nodes().into_iter().filter(|id| matches!(f.node(*id).op, Op::Fusion {}));
    kernels.flat_map(|id| f.node(id).results().iter().filter_map(|t| Some(t.tensor()?.dims.clone()))).collect()
}

#[test]
fn what_readers_compute_from_what_they_read_is_not_stored() {
    let whole = |reads: bool| {
        let mut f = Function::new("infer");
        let inputs = ["x", "u", "v", "w"].map(|n| f.add_input(n, TensorType::known(DType::F32, &[64, 784])));
        let mut b = Builder::new(&mut f, Origin::named("test"));
        let mul = |b: &mut Builder<'_>, x: Value, y: Value| b.binary(BinaryOp::Mul, x, y).expect("mul");
        let product = inputs[1..].iter().fold(inputs[0], |p, y| mul(&mut b, p, *y));
        // Kernels of rows and of columns: both read the factors as well, or the product alone.
        let sums = [1, 0].map(|axis| {
            let mut y = b.unary(UnaryOp::Neg, product).expect("neg");
            for factor in if reads { &inputs[..] } else { &[] } {
                let shifted = b.binary(BinaryOp::Sub, y, *factor).expect("sub");
                y = b.unary(UnaryOp::Abs, shifted).expect("abs");
            }
            b.reduce(y, vec![axis], ReduceKind::Sum, false).expect("sum")
        });
        let [rows, columns] = sums;
        f.add_output("rows", rows);
        f.add_output("columns", columns);
        let mut module = Module::of(f);
        passes(&mut module, "fuse");
        stored(&module).iter().filter(|dims| dims.len() == 2).count()
    };
    assert_eq!(whole(true), 0);
    assert_eq!(whole(false), 1);
}

#[test]
fn what_a_cut_settles_to_store_is_computed_once() {
    let mut f = Function::new("infer");
    let [x, g] = ["x", "g"].map(|n| f.add_input(n, TensorType::known(DType::F32, &[64, 784])));
    let w = f.add_input("w", TensorType::known(DType::F32, &[784, 784]));
    let mut b = Builder::new(&mut f, Origin::named("test"));
    let (e, one) = (b.unary(UnaryOp::Exp, x).expect("exp"), b.scalar(DType::F32, 1.0).expect("one"));
    let d = b.binary(BinaryOp::Add, e, one).expect("add");
    let s = b.binary(BinaryOp::Div, one, d).expect("div");
    let y = b.binary(BinaryOp::Mul, x, s).expect("mul");
    let dot = Op::DotGeneral {
        lhs_batch: vec![],
        rhs_batch: vec![],
        lhs_contract: vec![1],
        rhs_contract: vec![0],
        accumulate: DType::F32,
    };
    let z = b.op(dot, &[y, w]).expect("dot");
    let z = b.binary(BinaryOp::Mul, z, g).expect("mul");
    let z = b.binary(BinaryOp::Mul, z, s).expect("mul");
    f.add_output("z", z);
    let mut module = Module::of(f);
    passes(&mut module, "fuse");
    let exps: usize = shape_of(&module).iter().map(|kernel| kernel.matches("exp").count()).sum();
    assert_eq!(exps, 1, "{:?}", shape_of(&module));
}

#[test]
fn what_several_levels_compute_again_is_stored_for_all_of_them() {
    // x + e^x w has six elements for each of x: e^x is cheaper to compute once more than to store, but not twice.
    let exps = |levels: usize| {
        let f = function(&[512, 64], |b, x| {
            let weights = Tensor::f32(&[6], &[0.5, 0.25, -1.0, 2.0, 0.125, 3.0]).expect("weights");
            let (e, w) = (b.unary(UnaryOp::Exp, x).expect("exp"), b.constant(weights).expect("constant"));
            let spread = |b: &mut Builder<'_>, v, axes: Vec<usize>| {
                let dims = [512, 64, 6].map(Dim::Known).to_vec();
                b.op(Op::Broadcast { dims, axes }, &[v]).expect("broadcast")
            };
            let (x, e, w) = (spread(b, x, vec![0, 1]), spread(b, e, vec![0, 1]), spread(b, w, vec![2]));
            let p = b.binary(BinaryOp::Mul, e, w).expect("mul");
            let p = b.binary(BinaryOp::Add, p, x).expect("add");
            let mut m = b.reduce(p, vec![0, 1, 2], ReduceKind::Max, false).expect("max");
            for _ in 0..levels {
                let m_of_all = spread(b, m, vec![]);
                let d = b.binary(BinaryOp::Sub, p, m_of_all).expect("sub");
                m = b.reduce(d, vec![0, 1, 2], ReduceKind::Min, false).expect("min");
            }
            vec![m]
        });
        let mut module = Module::of(f);
        passes(&mut module, "fuse");
        shape_of(&module).iter().map(|kernel| kernel.matches("exp").count()).sum::<usize>()
    };
    assert_eq!((exps(1), exps(2), exps(3)), (2, 1, 1));
}

#[test]
fn a_reduction_of_many_is_a_barrier_in_any_steps() {
    let last_is_barrier = |dims: &[usize]| {
        let f = function(dims, |b, x| {
            let rank = dims.len();
            vec![(0..rank).rev().fold(x, |v, axis| b.reduce(v, vec![axis], ReduceKind::Max, false).expect("max"))]
        });
        recompute::is_barrier_reduce(&f, f.outputs()[0].value.node)
    };
    assert!(last_is_barrier(&[64, 64, 6]));
    assert!(!last_is_barrier(&[32, 20, 6]));
}
