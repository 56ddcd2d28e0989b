//! Thin proofs that wider features stand on the same rooms: control flow with captured values, sequences,
//! data-dependent extents, weights shared by functions, a KV cache that is appended to.

use std::sync::Arc;

use frit_compiler::cpu::Vectors;
use frit_compiler::driver::{Options, compile};
use frit_compiler::plan::LibraryCall::MatMul;
use frit_compiler::plan::{Place, StateForm, Step};
use frit_ir::{HostValue, Module, Tensor, onnx as import, text};
use frit_passes::manager::{Level, Math};
use frit_runtime::pool::Pool;
use frit_runtime::{Model, StateBuffer};
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

/// Heads of the decoder below, channels of a head, channels of a token, batch.
const HEADS: usize = 3;
const WIDTH: usize = 4;
const TOKEN: usize = 5;
const BATCH: usize = 2;

/// One decoding step of attention over a cache: (x, past_k, past_v) -> (y, present_k, present_v, seen), where `seen`
/// reads the past too.
fn decoder() -> Module {
    let weight = |seed: usize, rows: usize, cols: usize| -> Vec<f32> {
        (0..rows * cols).map(|i| ((i * 7 + seed * 13) % 19) as f32 / 19.0 - 0.5).collect()
    };
    let inner = HEADS * WIDTH;
    let dims = [Extent::Named("B"), Extent::Known(HEADS as u64), Extent::Named("T"), Extent::Known(WIDTH as u64)];
    let ints_of = |values: &[usize]| values.iter().map(|&v| v as i64).collect::<Vec<i64>>();
    let mut nodes = Vec::new();
    for part in ["q", "k", "v"] {
        let (flat, split) = (format!("{part}_flat"), format!("{part}_split"));
        nodes.push(node("MatMul", &["x", &format!("w_{part}")], &[&flat], &[]));
        nodes.push(node("Reshape", &[&flat, "heads"], &[&split], &[]));
        nodes.push(node("Transpose", &[&split], &[part], &[int_list("perm", &[0, 2, 1, 3])]));
    }
    nodes.extend([
        node("Concat", &["past_k", "k"], &["present_k"], &[int("axis", 2)]),
        node("Concat", &["past_v", "v"], &["present_v"], &[int("axis", 2)]),
        node("Transpose", &["present_k"], &["keys"], &[int_list("perm", &[0, 1, 3, 2])]),
        node("MatMul", &["q", "keys"], &["scores"], &[]),
        node("Softmax", &["scores"], &["weights"], &[int("axis", -1)]),
        node("MatMul", &["weights", "present_v"], &["context"], &[]),
        node("Transpose", &["context"], &["merged"], &[int_list("perm", &[0, 2, 1, 3])]),
        node("Reshape", &["merged", "token"], &["joined"], &[]),
        node("MatMul", &["joined", "w_o"], &["y"], &[]),
        node("ReduceSum", &["past_k", "time"], &["seen"], &[int("keepdims", 0)]),
    ]);
    let bytes = model(graph(
        &nodes,
        &[
            floats("w_q", &[TOKEN as u64, inner as u64], &weight(1, TOKEN, inner)),
            floats("w_k", &[TOKEN as u64, inner as u64], &weight(2, TOKEN, inner)),
            floats("w_v", &[TOKEN as u64, inner as u64], &weight(3, TOKEN, inner)),
            floats("w_o", &[inner as u64, TOKEN as u64], &weight(4, inner, TOKEN)),
            ints("heads", &[4], &ints_of(&[0, 0, HEADS, WIDTH])),
            ints("token", &[3], &ints_of(&[0, 0, inner])),
            ints("time", &[1], &[2]),
        ],
        &[
            value_info("x", FLOAT, &[Extent::Named("B"), Extent::Known(1), Extent::Known(TOKEN as u64)]),
            value_info("past_k", FLOAT, &dims),
            value_info("past_v", FLOAT, &dims),
        ],
        &[output("y"), output("present_k"), output("present_v"), output("seen")],
    ));
    imported(bytes)
}

/// What the decoder gives for the last of `tokens`, everything computed again: y and the sum of the keys before.
fn attend(module: &Module, tokens: &[Vec<f32>]) -> (Vec<f64>, Vec<f64>) {
    let weight = |name: &str| module.params[name].value.to_vec::<f32>();
    let inner = HEADS * WIDTH;
    let project = |x: &[f32], w: &[f32]| -> Vec<f64> {
        let at = |j: usize| x.iter().enumerate().map(|(i, v)| f64::from(*v) * f64::from(w[i * inner + j])).sum();
        (0..inner).map(at).collect()
    };
    let (mut y, mut seen) = (Vec::new(), Vec::new());
    let (w_q, w_k, w_v, w_o) = (weight("w_q"), weight("w_k"), weight("w_v"), weight("w_o"));
    for b in 0..BATCH {
        let of = |t: &Vec<f32>, w: &[f32]| project(&t[b * TOKEN..(b + 1) * TOKEN], w);
        let q = of(&tokens[tokens.len() - 1], &w_q);
        let keys: Vec<Vec<f64>> = tokens.iter().map(|t| of(t, &w_k)).collect();
        let values: Vec<Vec<f64>> = tokens.iter().map(|t| of(t, &w_v)).collect();
        let mut joined = vec![0.0; inner];
        for h in 0..HEADS {
            let head = h * WIDTH..(h + 1) * WIDTH;
            let score = |k: &Vec<f64>| head.clone().map(|c| q[c] * k[c]).sum::<f64>().exp();
            let weights: Vec<f64> = keys.iter().map(score).collect();
            let sum: f64 = weights.iter().sum();
            for c in head.clone() {
                joined[c] = weights.iter().zip(&values).map(|(w, v)| w / sum * v[c]).sum();
            }
        }
        y.extend((0..TOKEN).map(|j| (0..inner).map(|i| joined[i] * f64::from(w_o[i * TOKEN + j])).sum::<f64>()));
        seen.extend((0..inner).map(|c| keys[..keys.len() - 1].iter().map(|k| k[c]).sum::<f64>()));
    }
    (y, seen)
}

/// 20 steps of a decoder over caches `[batch, heads, time, width]`, against everything computed again: with room the
/// caches never move, without they grow; what a run without state gives has the same bits.
#[test]
fn a_cache_is_appended_to_where_it_lies() {
    let module = decoder();
    let state = [("past_k", "present_k"), ("past_v", "present_v")];
    let near = |found: &[f32], wanted: &[f64]| {
        found.len() == wanted.len() && found.iter().zip(wanted).all(|(f, w)| (f64::from(*f) - w).abs() < 1e-5)
    };
    let empty = Tensor::f32(&[BATCH, HEADS, 0, WIDTH], &[]).expect("no elements");
    for level in LEVELS {
        let options = Options {
            level,
            math: Math::Strict,
            state: state.map(|(from, to)| (from.to_owned(), to.to_owned())).to_vec(),
            verify_each: true,
            ..Options::default()
        };
        let compiled = compile(module.clone(), &options).expect("a plan");
        assert!(compiled.remarks.iter().all(|r| !r.contains("state")), "{:?}", compiled.remarks);
        // A .fritc holds the module after all passes: read back as text, it makes the same plan.
        let again = text::from_text(&text::to_inline_text(&compiled.module), &text::NoConstants).expect("a text");
        assert_eq!(again.entry().expect("a function").donations.len(), 2);
        for module in [None, Some(again)] {
            let plan = match module {
                None => compiled.plan.clone(),
                Some(module) => {
                    compile(module, &Options { level, math: Math::Strict, ..Options::default() }).expect("a plan").plan
                }
            };
            assert!(plan.programs.iter().flat_map(|p| &p.steps).all(|s| !matches!(s, Step::Copy { .. })));
            if level == Level::O3 {
                let steps = plan.programs.iter().flat_map(|p| &p.steps);
                let calls =
                    steps.filter(|s| matches!(s, Step::Library { call: MatMul { rhs_pitch: Some(_), .. }, .. }));
                assert!(calls.count() >= 1, "a product reads a cache where it lies");
                assert!(plan.kernels.iter().all(|k| k.name != "dense"), "no cache is copied");
            }
            let model = Model::new(plan).expect("a model");
            assert!(model.states().iter().all(|s| matches!(s.form, StateForm::Append { axis: 2, .. })));
            for (threads, capacity) in [(1, 20), (2, 20), (1, 0), (2, 3)] {
                let model = model.with_pool(Arc::new(Pool::new(threads)));
                let (mut context, mut plain) = (model.context(), model.context());
                let buffer = |i| StateBuffer::with_capacity(&model, i, (&empty).into(), capacity).expect("a buffer");
                let mut states = [buffer(0), buffer(1)];
                let mut past = [empty.clone(), empty.clone()];
                let (mut tokens, mut moves): (Vec<Vec<f32>>, usize) = (Vec::new(), 0);
                for t in 0..20usize {
                    let token: Vec<f32> =
                        (0..BATCH * TOKEN).map(|i| ((i * 5 + t * 11) % 23) as f32 / 10.0 - 1.0).collect();
                    let x = Tensor::f32(&[BATCH, 1, TOKEN], &token).expect("a token");
                    tokens.push(token);
                    let before = states[0].bytes().as_ptr();
                    context.step(&[(&x).into()], &mut states).expect("a step");
                    moves += usize::from(states[0].bytes().as_ptr() != before);
                    let (y, seen) = attend(&compiled.module, &tokens);
                    assert!(near(&context.output_tensor("y").expect("y").to_vec(), &y), "{level:?}, step {t}");
                    assert!(near(&context.output_tensor("seen").expect("seen").to_vec(), &seen), "{level:?}, step {t}");
                    plain.run(&[(&x).into(), (&past[0]).into(), (&past[1]).into()]).expect("a run");
                    assert_eq!(plain.output_tensor("y").expect("y"), context.output_tensor("y").expect("y"));
                    for (i, name) in ["present_k", "present_v"].into_iter().enumerate() {
                        past[i] = plain.output_tensor(name).expect("a cache");
                        assert_eq!(past[i].shape(), [BATCH, HEADS, t + 1, WIDTH]);
                        assert_eq!(states[i].to_tensor().expect("a cache"), past[i], "{level:?}, step {t}");
                    }
                    assert!(context.output(1).is_err(), "a cache is no output of a step");
                }
                match capacity {
                    20 => assert_eq!(moves, 0, "there was room"),
                    // 1, 2, 4, 8, 16, 32 and 3, 6, 12, 24.
                    0 => assert!((5..=6).contains(&moves) && states[0].capacity() == 32, "{moves} moves"),
                    _ => assert!(moves == 3 && states[0].capacity() == 24, "{moves} moves"),
                }
            }
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
