//! Thin proofs that wider features stand on the same rooms: control flow with captured values, sequences,
//! data-dependent extents, weights shared by functions.

use std::sync::Arc;

use frit_compiler::cpu::Vectors;
use frit_compiler::plan::Place;
use frit_ir::{HostValue, Module, Tensor, onnx as import, text};
use frit_passes::manager::{Level, Math};
use frit_runtime::pool::Pool;
use frit_tests::Case;
use frit_tests::onnx::{
    BOOL, Extent, FLOAT, floats, graph, int, int_list, ints, model, node, output, subgraph, value_info,
};

const LEVELS: [Level; 2] = [Level::O0, Level::O3];

fn imported(bytes: Vec<u8>) -> Module {
    import::from_bytes(bytes, None).expect("a model that imports")
}

fn f32s(shape: &[usize], values: &[f32]) -> HostValue {
    Tensor::f32(shape, values).expect("as many values as the shape holds").into()
}

fn run(module: &Module, inputs: &[HostValue], level: Level) -> Vec<HostValue> {
    let case = Case { module: module.clone(), inputs: inputs.to_vec() };
    case.run(level, Math::Strict, Vectors::Widest, &Arc::new(Pool::new(2))).expect("a run")
}

/// y = if c { [x, x + w][1] } else { -x }: both branches read x of the graph around them, one makes a sequence.
#[test]
fn if_reads_values_around_it_and_makes_a_sequence() {
    let then = graph(
        &[
            node("Add", &["x", "w"], &["sum"], &[]),
            node("SequenceConstruct", &["x", "sum"], &["list"], &[]),
            node("SequenceAt", &["list", "one"], &["t"], &[]),
        ],
        &[],
        &[],
        &[output("t")],
    );
    let otherwise = graph(&[node("Neg", &["x"], &["e"], &[])], &[], &[], &[output("e")]);
    let branches = [subgraph("then_branch", then), subgraph("else_branch", otherwise)];
    let shape = [Extent::Named("N"), Extent::Known(3)];
    let bytes = model(graph(
        &[node("If", &["c"], &["y"], &branches)],
        &[floats("w", &[3], &[1.0, 2.0, 3.0]), ints("one", &[], &[1])],
        &[value_info("c", BOOL, &[]), value_info("x", FLOAT, &shape)],
        &[value_info("y", FLOAT, &shape)],
    ));
    let module = imported(bytes);
    let x = f32s(&[2, 3], &[1.0, -2.0, 3.0, 0.5, 0.0, -1.0]);
    for level in LEVELS {
        for (flag, expected) in [(1u8, [2.0, 0.0, 6.0, 1.5, 2.0, 2.0]), (0, [-1.0, 2.0, -3.0, -0.5, 0.0, 1.0])] {
            let c = Tensor::from_bytes(frit_ir::DType::Bool, &[], &[flag]).expect("one byte");
            let found = run(&module, &[c.into(), x.clone()], level);
            let y = found[0].tensor().expect("a tensor");
            assert_eq!(y.shape(), [2, 3]);
            assert_eq!(y.to_vec::<f32>(), expected, "{level:?}, c = {flag}");
        }
    }
}

/// The positive entries of x, doubled and summed: how many there are is known only while the model runs.
#[test]
fn nonzero_gives_an_extent_that_later_ops_use() {
    let bytes = model(graph(
        &[
            node("Greater", &["x", "zero"], &["mask"], &[]),
            node("NonZero", &["mask"], &["where"], &[]),
            node("Squeeze", &["where", "axis"], &["at"], &[]),
            node("Gather", &["x", "at"], &["picked"], &[int("axis", 0)]),
            node("Add", &["picked", "picked"], &["doubled"], &[]),
            node("ReduceMax", &["doubled"], &["top"], &[int_list("axes", &[0]), int("keepdims", 0)]),
        ],
        &[floats("zero", &[], &[0.0]), ints("axis", &[1], &[0])],
        &[value_info("x", FLOAT, &[Extent::Named("N")])],
        &[output("doubled"), output("top")],
    ));
    let module = imported(bytes);
    for level in LEVELS {
        for (x, expected) in [
            (vec![1.0f32, -1.0, 2.0, 0.0, 5.0], vec![2.0f32, 4.0, 10.0]),
            (vec![-1.0, -2.0], vec![]),
            (vec![3.0], vec![6.0]),
        ] {
            let found = run(&module, &[f32s(&[x.len()], &x)], level);
            let doubled = found[0].tensor().expect("a tensor");
            assert_eq!(
                (doubled.shape(), doubled.to_vec::<f32>()),
                (&[expected.len()][..], expected.clone()),
                "{level:?}"
            );
            let top = expected.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(found[1].tensor().expect("a tensor").to_vec::<f32>(), [top], "{level:?}");
        }
    }
}

/// Two functions of one module read one weight: the plan holds it once, and each function runs by name.
#[test]
fn functions_share_weights() {
    let source = r#"frit 1
param "w" = f32[3] dense(1.0, 2.0, 4.0)
func @infer(%0 "x": f32[B, 3]) {
  %1 = param {name = "w"} : f32[3]
  %2 = broadcast(%1) {axes = [1], dims = [B, 3]} : f32[B, 3]
  %3 = mul(%0, %2)
  return "y" = %3
}
func @shifted(%0 "x": f32[B, 3]) {
  %1 = param {name = "w"} : f32[3]
  %2 = broadcast(%1) {axes = [1], dims = [B, 3]} : f32[B, 3]
  %3 = add(%0, %2)
  return "y" = %3
}
"#;
    let module = text::from_text(source, &text::NoConstants).expect("a text that reads");
    let x = f32s(&[1, 3], &[1.0, 10.0, 100.0]);
    let case = Case { module, inputs: vec![x] };
    for level in LEVELS {
        let model = case.compile(level, Math::Strict, Vectors::Widest).expect("a model");
        let plan = model.plan();
        let named = plan.constants.iter().filter(|c| c.name == "w").count();
        assert_eq!(named, 1, "{level:?}: the weight is placed once");
        let readers = plan.programs.iter().filter(|p| p.slots.iter().any(|s| matches!(s.place, Place::Constant(_))));
        assert!(readers.count() >= 2, "{level:?}: both functions read it");
        for (name, expected) in [("infer", [1.0f32, 20.0, 400.0]), ("shifted", [2.0, 12.0, 104.0])] {
            let found = case.run_on(&model.function(name).expect("a function")).expect("a run");
            assert_eq!(found[0].tensor().expect("a tensor").to_vec::<f32>(), expected, "{level:?} {name}");
        }
    }
}
