//! Shapes that contradict a model: refused, at every level, before anything is read that is not there.
//!
//! A table of small models whose extents are symbols, each with inputs that don't fit and inputs that do. What does not
//! fit is refused at -O0 and -O3, after a round trip through a `.fritc` (its code trusted or compiled again), inside a
//! branch that is taken and inside a loop that runs, and by the reference evaluator on the module as it is before and
//! after all passes; a branch that is not taken asks for nothing. Random graphs over symbols at random extents then
//! compare verdicts: compiled code refuses exactly what the reference refuses, and else computes the same.

use std::sync::Arc;

use frit_compiler::cpu::Vectors;
use frit_ir::reference::{Options as EvalOptions, eval_function};
use frit_ir::testing::{self, Rng};
use frit_ir::{DType, HostValue, Module, Tensor, onnx as import};
use frit_passes::manager::{self, Level, Math, Pipeline};
use frit_runtime::pool::Pool;
use frit_runtime::{CompileOptions, Compiled, Model, RunError};
use frit_tests::onnx::{
    BOOL, Extent, FLOAT, INT64, floats, graph, int, int_list, ints, model, node, output, subgraph, value_info,
};
use frit_tests::wire::Message;
use frit_tests::{Case, within};

use super::random::number;

/// An input: name, element type, extents.
type Port = (&'static str, u64, &'static [Extent<'static>]);

/// A model, shapes that it refuses, shapes that it takes.
struct Row {
    name: &'static str,
    nodes: Vec<Message>,
    weights: Vec<Message>,
    inputs: &'static [Port],
    wrong: Vec<Vec<Tensor>>,
    right: Vec<Vec<Tensor>>,
}

const A: Extent<'_> = Extent::Named("a");
const B: Extent<'_> = Extent::Named("b");
const C: Extent<'_> = Extent::Named("c");
const D: Extent<'_> = Extent::Named("d");
const fn k(n: u64) -> Extent<'static> {
    Extent::Known(n)
}

fn f(shape: &[usize]) -> Tensor {
    let count = shape.iter().product::<usize>();
    let values: Vec<f32> = (0..count).map(|i| (i % 13) as f32 / 4.0 - 1.0).collect();
    Tensor::f32(shape, &values).unwrap()
}

fn i(shape: &[usize], values: &[i64]) -> Tensor {
    Tensor::i64(shape, values).unwrap()
}

fn flags(values: &[u8]) -> Tensor {
    Tensor::from_bytes(DType::Bool, &[values.len()], values).unwrap()
}

fn weight(name: &str, shape: &[u64]) -> Message {
    let count = shape.iter().product::<u64>() as usize;
    floats(name, shape, &(0..count).map(|i| 0.5 + (i % 7) as f32).collect::<Vec<_>>())
}

const X: &[Port] = &[("x", FLOAT, &[A, k(4)])];
const X_12: &[Port] = &[("x", FLOAT, &[A, k(12)])];
const X_B: &[Port] = &[("x", FLOAT, &[A, B])];
const X_Z: &[Port] = &[("x", FLOAT, &[A, k(4)]), ("z", FLOAT, &[B, k(4)])];
const X_K_Z: &[Port] = &[("x", FLOAT, &[A, B]), ("z", FLOAT, &[C, D])];
const X_I: &[Port] = &[("x", FLOAT, &[A, k(4)]), ("i", INT64, &[B, k(2)])];
const SELECT: &[Port] = &[("c", BOOL, &[A]), ("x", FLOAT, &[B]), ("z", FLOAT, &[C])];
const BATCH: &[Port] = &[("x", FLOAT, &[A, k(2), B]), ("z", FLOAT, &[C, B, k(3)])];
const X_AT: &[Port] = &[("x", FLOAT, &[A, k(4)]), ("i", INT64, &[B])];
const UPDATES: &[Port] = &[("x", FLOAT, &[A, k(4)]), ("i", INT64, &[B, k(4)]), ("u", FLOAT, &[C, k(4)])];
const ROWS: &[Port] = &[("x", FLOAT, &[A, k(4)]), ("i", INT64, &[B, k(1)]), ("u", FLOAT, &[C, k(4)])];
const IMAGE: &[Port] = &[("x", FLOAT, &[A, C, k(4), k(4)])];

/// Every model gives `y`.
fn rows() -> Vec<Row> {
    let row = |name, nodes: Vec<Message>, weights: Vec<Message>, inputs, wrong, right| Row {
        name,
        nodes,
        weights,
        inputs,
        wrong,
        right,
    };
    let one = |op: &str, operands: &[&str], attributes: &[Message]| vec![node(op, operands, &["y"], attributes)];
    let then_relu = |op: &str, operands: &[&str], attributes: &[Message]| {
        vec![node(op, operands, &["m"], attributes), node("Relu", &["m"], &["y"], &[])]
    };
    let split = || vec![node("Split", &["x", "s"], &["p", "q"], &[int("axis", 0)]), node("Relu", &["q"], &["y"], &[])];
    let x = |rows: usize| vec![f(&[rows, 4])];
    let pair = |a: usize, b: usize| vec![f(&[a, 4]), f(&[b, 4])];
    let at = |rows: usize, values: &[i64]| vec![f(&[rows, 4]), i(&[values.len() / 2, 2], values)];
    vec![
        row(
            "reshape",
            one("Reshape", &["x", "s"], &[]),
            vec![ints("s", &[2], &[7, 12])],
            X_12,
            vec![vec![f(&[3, 12])], vec![f(&[9, 12])]],
            vec![vec![f(&[7, 12])]],
        ),
        row(
            "reshape in a kernel",
            then_relu("Reshape", &["x", "s"], &[]),
            vec![ints("s", &[2], &[700, 12])],
            X_12,
            vec![vec![f(&[3, 12])]],
            vec![vec![f(&[700, 12])]],
        ),
        row(
            "a reshape that the next one undoes",
            vec![
                node("Reshape", &["x", "s"], &["m"], &[]),
                node("Reshape", &["m", "t"], &["n"], &[]),
                node("Relu", &["n"], &["y"], &[]),
            ],
            vec![ints("s", &[2], &[7, 12]), ints("t", &[2], &[-1, 12])],
            X_12,
            vec![vec![f(&[3, 12])]],
            vec![vec![f(&[7, 12])]],
        ),
        row(
            "reshape with a rest",
            then_relu("Reshape", &["x", "s"], &[]),
            vec![ints("s", &[2], &[-1, 8])],
            X_12,
            vec![vec![f(&[3, 12])]],
            vec![vec![f(&[2, 12])]],
        ),
        row(
            "add",
            one("Add", &["x", "z"], &[]),
            vec![],
            X_Z,
            vec![pair(3, 5), pair(5, 2)],
            vec![pair(5, 5), pair(1, 5), pair(5, 1)],
        ),
        row(
            "add a weight",
            one("Add", &["x", "k"], &[]),
            vec![weight("k", &[7, 4])],
            X,
            vec![x(3), x(9)],
            vec![x(7), x(1)],
        ),
        row(
            "select",
            one("Where", &["c", "x", "z"], &[]),
            vec![],
            SELECT,
            vec![vec![flags(&[1, 0, 1]), f(&[4]), f(&[3])], vec![flags(&[1, 0]), f(&[4]), f(&[4])]],
            vec![vec![flags(&[1, 0, 1]), f(&[3]), f(&[3])], vec![flags(&[1]), f(&[3]), f(&[1])]],
        ),
        row(
            "concat",
            then_relu("Concat", &["x", "z"], &[int("axis", 1)]),
            vec![],
            X_Z,
            vec![pair(3, 5), pair(5, 1)],
            vec![pair(5, 5)],
        ),
        row(
            "concat a weight",
            then_relu("Concat", &["x", "k"], &[int("axis", 1)]),
            vec![weight("k", &[7, 4])],
            X,
            vec![x(3), x(9), x(1)],
            vec![x(7)],
        ),
        row("split", split(), vec![ints("s", &[2], &[2, 4])], X, vec![x(3), x(9)], vec![x(6)]),
        row("a split far outside", split(), vec![ints("s", &[2], &[2, 100_000])], X, vec![x(3)], vec![x(100_002)]),
        row("squeeze", then_relu("Squeeze", &["x", "s"], &[]), vec![ints("s", &[1], &[0])], X, vec![x(3)], vec![x(1)]),
        row(
            "expand",
            then_relu("Expand", &["x", "s"], &[]),
            vec![ints("s", &[2], &[7, 4])],
            X,
            vec![x(3)],
            vec![x(7), x(1)],
        ),
        row(
            "pad below nothing",
            then_relu("Pad", &["x", "p"], &[]),
            vec![ints("p", &[4], &[-2, 0, -2, 0])],
            X,
            vec![x(3)],
            vec![x(6)],
        ),
        row(
            "product",
            one("MatMul", &["x", "z"], &[]),
            vec![],
            X_K_Z,
            vec![vec![f(&[3, 4]), f(&[9, 5])], vec![f(&[3, 9]), f(&[4, 5])]],
            vec![vec![f(&[3, 4]), f(&[4, 5])]],
        ),
        row(
            "product with a weight",
            one("MatMul", &["x", "k"], &[]),
            vec![weight("k", &[9, 5])],
            X_B,
            vec![vec![f(&[3, 4])], vec![f(&[3, 12])]],
            vec![vec![f(&[3, 9])]],
        ),
        row(
            "products of a batch",
            one("MatMul", &["x", "z"], &[]),
            vec![],
            BATCH,
            vec![vec![f(&[3, 2, 4]), f(&[2, 4, 3])], vec![f(&[2, 2, 4]), f(&[5, 4, 3])]],
            vec![vec![f(&[3, 2, 4]), f(&[3, 4, 3])], vec![f(&[1, 2, 4]), f(&[3, 4, 3])]],
        ),
        row(
            "bias of a product",
            then_relu("Gemm", &["x", "w", "k"], &[]),
            vec![weight("w", &[4, 5]), weight("k", &[4, 5])],
            X,
            vec![x(3), x(1)],
            vec![x(4)],
        ),
        row(
            "layer norm",
            one("LayerNormalization", &["x", "k"], &[]),
            vec![weight("k", &[5])],
            X_B,
            vec![vec![f(&[3, 4])], vec![f(&[3, 1])]],
            vec![vec![f(&[3, 5])]],
        ),
        row(
            "batch norm",
            one("BatchNormalization", &["x", "k", "k", "k", "k"], &[]),
            vec![weight("k", &[5])],
            X_B,
            vec![vec![f(&[3, 4])]],
            vec![vec![f(&[3, 5])]],
        ),
        row(
            "top k",
            vec![node("TopK", &["x", "k"], &["y", "at"], &[])],
            vec![ints("k", &[1], &[9])],
            X_B,
            vec![vec![f(&[3, 4])]],
            vec![vec![f(&[3, 9])], vec![f(&[3, 11])]],
        ),
        row(
            "channels",
            one("Conv", &["x", "w"], &[]),
            vec![weight("w", &[2, 3, 3, 3])],
            IMAGE,
            vec![vec![f(&[1, 2, 4, 4])], vec![f(&[1, 4, 4, 4])]],
            vec![vec![f(&[2, 3, 4, 4])]],
        ),
        row(
            "depth to space",
            then_relu("DepthToSpace", &["x"], &[int("blocksize", 2)]),
            vec![],
            IMAGE,
            vec![vec![f(&[1, 6, 4, 4])]],
            vec![vec![f(&[1, 8, 4, 4])]],
        ),
        row(
            "nothing beside something",
            vec![
                node("Slice", &["x", "from", "to"], &["late"], &[]),
                node("Concat", &["late", "z"], &["m"], &[int("axis", 0)]),
                node("Tanh", &["m"], &["n"], &[]),
                node("Transpose", &["n"], &["y"], &[int_list("perm", &[1, 0])]),
            ],
            vec![ints("from", &[1], &[1000]), ints("to", &[1], &[2000])],
            X_Z,
            vec![],
            vec![pair(3, 5), pair(0, 2), pair(1001, 0), pair(0, 0)],
        ),
        row(
            "nothing, padded",
            then_relu("Pad", &["x", "p"], &[]),
            vec![ints("p", &[4], &[1, 0, 1, 0])],
            X,
            vec![],
            vec![x(0), x(2)],
        ),
        row(
            "the largest of nothing",
            one("ArgMax", &["x"], &[int("axis", 1)]),
            vec![],
            X_B,
            vec![vec![f(&[3, 0])]],
            vec![vec![f(&[3, 2])]],
        ),
        row(
            "gather",
            one("Gather", &["x", "i"], &[]),
            vec![],
            X_AT,
            vec![vec![f(&[3, 4]), i(&[2], &[0, 3])], vec![f(&[3, 4]), i(&[1], &[-4])]],
            vec![vec![f(&[3, 4]), i(&[2], &[-3, 2])]],
        ),
        row(
            "gather by known indices",
            one("Gather", &["x", "i"], &[]),
            vec![ints("i", &[3], &[0, -2, 4])],
            X,
            vec![x(3), x(4), x(0)],
            vec![x(5)],
        ),
        row(
            "gather elements",
            one("GatherElements", &["x", "i"], &[int("axis", 1)]),
            vec![],
            X_I,
            vec![at(3, &[0, 4]), at(3, &[0, -5]), at(2, &[0, 0, 1, 1, 2, 2])],
            vec![at(3, &[0, -4, 3, 1])],
        ),
        row(
            "gather by rows of indices",
            one("GatherND", &["x", "i"], &[]),
            vec![],
            X_I,
            vec![at(3, &[0, 4]), at(3, &[1, -5]), at(3, &[3, 0])],
            vec![at(3, &[0, 3, -3, -4])],
        ),
        row(
            "scatter elements",
            one("ScatterElements", &["x", "i", "u"], &[int("axis", 1)]),
            vec![],
            UPDATES,
            vec![
                vec![f(&[3, 4]), i(&[1, 4], &[0, 1, 2, 4]), f(&[1, 4])],
                vec![f(&[3, 4]), i(&[2, 4], &[0, 1, 2, 3, 0, 1, 2, 3]), f(&[1, 4])],
                vec![f(&[1, 4]), i(&[2, 4], &[0, 1, 2, 3, 0, 1, 2, 3]), f(&[2, 4])],
            ],
            vec![vec![f(&[3, 4]), i(&[1, 4], &[0, 1, -2, -1]), f(&[1, 4])]],
        ),
        row(
            "scatter rows",
            one("ScatterND", &["x", "i", "u"], &[]),
            vec![],
            ROWS,
            vec![vec![f(&[3, 4]), i(&[1, 1], &[3]), f(&[1, 4])], vec![f(&[3, 4]), i(&[3, 1], &[0, 1, 2]), f(&[1, 4])]],
            vec![vec![f(&[3, 4]), i(&[2, 1], &[-3, 2]), f(&[2, 4])]],
        ),
    ]
}

/// Where the nodes of a row stand.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Inside {
    Graph,
    Branch,
    Loop,
}

impl Row {
    fn module(&self, inside: Inside) -> Module {
        let mut ports: Vec<Message> = self.inputs.iter().map(|(name, ty, dims)| value_info(name, *ty, dims)).collect();
        let mut nodes = self.nodes.clone();
        nodes.push(node("Cast", &["y"], &["float"], &[int("to", FLOAT as i64)]));
        nodes.push(node("ReduceSum", &["float"], &["sum"], &[int("keepdims", 0)]));
        let scalar = |name: &str| value_info(name, FLOAT, &[]);
        let zero = floats("zero", &[], &[0.0]);
        let made = match inside {
            Inside::Graph => graph(&self.nodes, &self.weights, &ports, &[output("y")]),
            Inside::Branch => {
                let then = graph(&nodes, &[], &[], &[scalar("sum")]);
                let other = graph(&[node("Identity", &["zero"], &["other"], &[])], &[], &[], &[scalar("other")]);
                let branches = [subgraph("then_branch", then), subgraph("else_branch", other)];
                ports.push(value_info("on", BOOL, &[]));
                let weights = [self.weights.clone(), vec![zero]].concat();
                graph(&[node("If", &["on"], &["r"], &branches)], &weights, &ports, &[output("r")])
            }
            Inside::Loop => {
                nodes.push(node("Identity", &["go"], &["still"], &[]));
                nodes.push(node("Add", &["before", "sum"], &["after"], &[]));
                let takes = [value_info("trip", INT64, &[]), value_info("go", BOOL, &[]), scalar("before")];
                let body = graph(&nodes, &[], &takes, &[value_info("still", BOOL, &[]), scalar("after")]);
                ports.push(value_info("trips", INT64, &[]));
                let weights = [self.weights.clone(), vec![zero]].concat();
                let step = node("Loop", &["trips", "", "zero"], &["r"], &[subgraph("body", body)]);
                graph(&[step], &weights, &ports, &[output("r")])
            }
        };
        import::from_bytes(model(made), None).unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }
}

fn options(level: Level) -> CompileOptions {
    CompileOptions { level, verify_each: true, ..CompileOptions::default() }
}

/// The inputs, with what decides whether the body runs.
fn fed(inputs: &[Tensor], inside: Inside, runs: bool) -> Vec<HostValue> {
    let control = match inside {
        Inside::Graph => None,
        Inside::Branch => Some(Tensor::from_bytes(DType::Bool, &[], &[u8::from(runs)]).unwrap()),
        Inside::Loop => Some(i(&[], &[if runs { 2 } else { 0 }])),
    };
    inputs.iter().cloned().chain(control).map(HostValue::Tensor).collect()
}

fn run(model: &Model, inputs: &[HostValue]) -> Result<(), RunError> {
    let inputs: Vec<_> = inputs.iter().map(Into::into).collect();
    model.context().run(&inputs)
}

fn reference(module: &Module, inputs: &[HostValue]) -> Result<(), String> {
    let function = module.entry().unwrap();
    eval_function(module, function, inputs, EvalOptions::default()).map(|_| ()).map_err(|e| e.to_string())
}

/// Everything that must say the same of a row's inputs.
fn check(row: &Row, inside: Inside, level: Level, pool: &Arc<Pool>) {
    let at = format!("{} in {inside:?} at {level:?}", row.name);
    let mut legal = row.module(inside);
    manager::run(&mut legal, &Pipeline::parse("legalize").unwrap(), &manager::Options::default()).unwrap();
    let compiled: Compiled =
        Model::compile(row.module(inside), &options(level)).unwrap_or_else(|e| panic!("{at}: {e}"));
    let mut models = vec![compiled.model.with_pool(pool.clone())];
    if inside == Inside::Graph {
        let file = tempfile::tempdir().unwrap();
        let path = file.path().join("m.fritc");
        compiled.write_artifact(&path).unwrap();
        for trusted in [true, false] {
            models.push(Model::load_artifact(&path, trusted).unwrap().with_pool(pool.clone()));
        }
    }
    for wrong in &row.wrong {
        let (inputs, idle) = (fed(wrong, inside, true), fed(wrong, inside, false));
        for model in &models {
            let error = run(model, &inputs).expect_err(&at);
            assert!(matches!(error, RunError::Shape { .. } | RunError::Trap { .. }), "{at}: {error:?}");
            if inside != Inside::Graph {
                run(model, &idle).unwrap_or_else(|e| panic!("{at}: what does not run is refused: {e}"));
            }
        }
        assert!(reference(&legal, &inputs).is_err(), "{at}: the reference takes it");
        assert!(reference(&compiled.module, &inputs).is_err(), "{at}: after all passes the reference takes it");
    }
    for right in &row.right {
        let inputs = fed(right, inside, true);
        for model in &models {
            run(model, &inputs).unwrap_or_else(|e| panic!("{at}: {e}"));
        }
        reference(&legal, &inputs).unwrap_or_else(|e| panic!("{at}: {e}"));
        reference(&compiled.module, &inputs).unwrap_or_else(|e| panic!("{at}: {e}"));
    }
    // One context, a refusal and a run in turn: nothing of one run is believed in the next.
    if let (Some(wrong), Some(right)) = (row.wrong.first(), row.right.first()) {
        let mut context = compiled.model.with_pool(pool.clone()).context();
        let (wrong, right) = (fed(wrong, inside, true), fed(right, inside, true));
        for (inputs, fits) in [(&right, true), (&wrong, false), (&wrong, false), (&right, true), (&right, true)] {
            let inputs: Vec<_> = inputs.iter().map(Into::into).collect();
            assert_eq!(context.run(&inputs).is_ok(), fits, "{at}: in turn");
        }
    }
}

#[test]
fn shapes_that_contradict_the_model_are_refused() {
    let pool = Arc::new(Pool::new(1));
    for row in rows() {
        for level in [Level::O0, Level::O3] {
            for inside in [Inside::Graph, Inside::Branch, Inside::Loop] {
                check(&row, inside, level, &pool);
            }
        }
    }
}

#[test]
fn a_refusal_names_op_extents_values_and_inputs() {
    let row = rows().into_iter().find(|r| r.name == "product").unwrap();
    let compiled = Model::compile(row.module(Inside::Graph), &options(Level::O3)).unwrap();
    let error = run(&compiled.model, &fed(&row.wrong[0], Inside::Graph, true)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`MatMul_y`: left axis 1 and right axis 0: b = 4 and c = 9 must be equal for these inputs; \
         b is axis 1 of `x`, c is axis 0 of `z`"
    );
}

/// A random graph of ops on matrices whose extents are all symbols; constants have extents of 2 and 3.
fn random_graph(rng: &mut Rng) -> Vec<u8> {
    let names: Vec<String> = (0..6).map(|n| format!("s{n}")).collect();
    let inputs: Vec<Message> = (0..3)
        .map(|n| {
            let dims = [Extent::Named(&names[2 * n]), Extent::Named(&names[2 * n + 1])];
            value_info(&format!("x{n}"), FLOAT, &dims)
        })
        .collect();
    let weights = vec![
        weight("w22", &[2, 2]),
        weight("w23", &[2, 3]),
        weight("w3", &[3]),
        ints("six", &[1], &[6]),
        ints("back", &[2], &[-1, 2]),
        ints("parts", &[2], &[1, 2]),
        ints("k", &[1], &[2]),
        ints("from", &[1], &[1]),
        ints("to", &[1], &[3]),
        ints("zero", &[1], &[0]),
    ];
    let mut values: Vec<String> = ["x0", "x1", "x2", "x0", "x1", "x2", "w22", "w23"].map(str::to_owned).into();
    let mut nodes = Vec::new();
    for n in 0..2 + rng.below(5) {
        let y = format!("v{n}");
        let a = rng.pick(&values).cloned().unwrap_or_default();
        let b = rng.pick(&values).cloned().unwrap_or_default();
        let (a, b, out) = (a.as_str(), b.as_str(), [y.as_str()]);
        match rng.below(12) {
            0 | 1 => nodes.push(node("Add", &[a, b], &out, &[])),
            2 => nodes.push(node("Concat", &[a, b], &out, &[int("axis", rng.below(2) as i64)])),
            3 | 4 => nodes.push(node("MatMul", &[a, b], &out, &[])),
            5 => {
                let flat = format!("flat{n}");
                nodes.push(node("Reshape", &[a, "six"], &[&flat], &[]));
                nodes.push(node("Reshape", &[&flat, "back"], &out, &[]));
            }
            6 => {
                let rest = format!("rest{n}");
                nodes.push(node("Split", &[a, "parts"], &[&rest, &y], &[int("axis", rng.below(2) as i64)]));
            }
            7 => nodes.push(node("TopK", &[a, "k"], &[&y, &format!("at{n}")], &[int("axis", rng.below(2) as i64)])),
            8 => nodes.push(node("Slice", &[a, "from", "to"], &out, &[])),
            9 => nodes.push(node("Transpose", &[a], &out, &[int_list("perm", &[1, 0])])),
            10 => nodes.push(node("LayerNormalization", &[a, "w3"], &out, &[])),
            _ => nodes.push(node("Max", &[a, b, "x0"], &out, &[])),
        }
        values.extend([y.clone(), y]);
    }
    let last = values.last().cloned().unwrap_or_default();
    nodes.push(node("Tanh", &[&last], &["y"], &[]));
    model(graph(&nodes, &weights, &inputs, &[output("y")]))
}

#[test]
fn random_graphs_at_random_extents_are_refused_where_the_reference_refuses() {
    let count = number("FRIT_RANDOM_SHAPES", if cfg!(debug_assertions) { 60 } else { 600 });
    let pool = Arc::new(Pool::new(1));
    let (mut ran, mut refused, mut impossible) = (0u64, 0u64, 0u64);
    for seed in 1..=count {
        let mut rng = Rng::new(seed);
        let module = import::from_bytes(random_graph(&mut rng), None).expect("a graph spelled out");
        let mut legal = module.clone();
        // What nothing uses asks for nothing.
        let legalize = Pipeline::parse("legalize,dce").unwrap();
        if manager::run(&mut legal, &legalize, &manager::Options::default()).is_err() {
            // Known extents contradict each other whatever the inputs.
            impossible += 1;
            continue;
        }
        let case = Case { module: module.clone(), inputs: Vec::new() };
        let models = [Level::O0, Level::O3].map(|level| {
            let model = case.compile(level, Math::Strict, Vectors::Widest);
            model.unwrap_or_else(|e| panic!("seed {seed}: {e}")).with_pool(pool.clone())
        });
        for _ in 0..12 {
            let (few, shapes) = (rng.below(3) > 0, 3);
            let mut extent = || if few { 2 + rng.below(2) } else { rng.below(5) };
            let shapes: Vec<[usize; 2]> = (0..shapes).map(|_| [extent(), extent()]).collect();
            let inputs = shapes.iter().map(|s| testing::tensor(&mut rng, DType::F32, s).map(HostValue::Tensor));
            let case = Case { module: legal.clone(), inputs: inputs.collect::<Option<_>>().expect("floats") };
            let expected = case.bounds(2.0);
            for model in &models {
                match (case.run_on(model), &expected) {
                    (Ok(found), Ok(expected)) => {
                        within(&found, expected, 1.0).unwrap_or_else(|e| panic!("seed {seed} at {shapes:?}: {e}"));
                        ran += 1;
                    }
                    (Err(_), Err(_)) => refused += 1,
                    (found, expected) => panic!(
                        "seed {seed} at {shapes:?}: {:?}, the reference: {:?}\n{}",
                        found.map(|_| "runs"),
                        expected.as_ref().map(|_| "takes it"),
                        case.text()
                    ),
                }
            }
        }
    }
    println!("{ran} runs, {refused} refusals, {impossible} of {count} graphs contradict themselves");
    assert!(ran > count / 2 && refused > count && impossible < count / 2, "one-sided");
}
