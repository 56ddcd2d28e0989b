//! Slices whose bounds a model computes: counted from either end, clamped, backwards, past the end, over known and
//! symbolic extents, as the operator defines them; where extents would depend on a trip of a loop, refused.

use frit_compiler::driver::Options;
use frit_ir::{HostValue, Tensor};
use frit_passes::manager::{Level, Math};
use frit_runtime::compile::Runner;
use frit_runtime::load::load_module;
use frit_runtime::{LoadError, Model};
use frit_tests::onnx::{BOOL, Extent, FLOAT, INT64, graph, ints, model, node, output, subgraph, value_info};
use frit_tests::wire::Message;

const BOUNDS: [i64; 10] = [i64::MIN + 1, -7, -6, -5, -1, 0, 2, 4, 5, i64::MAX];
const STEPS: [i64; 4] = [1, 2, -1, -3];

fn load(graph: Message) -> frit_ir::Module {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, model(graph)).unwrap();
    load_module(&path).unwrap_or_else(|e| panic!("{e}"))
}

/// Indices that the operator's definition picks of an axis; of an empty one, none.
fn picked(start: i64, end: i64, step: i64, extent: i64) -> Vec<i64> {
    let (low, high) = if step > 0 { (0, extent) } else { (-1, extent - 1) };
    let bound = |b: i64, low: i64| (if b < 0 { b.saturating_add(extent) } else { b }).clamp(low, high.max(low));
    let (mut at, end) = (bound(start, low.max(0)), bound(end, low));
    let mut picked = Vec::new();
    if extent == 0 {
        return picked;
    }
    while (step > 0 && at < end) || (step < 0 && at > end) {
        picked.push(at);
        at += step;
    }
    picked
}

/// Rows 0, 1, .. of an f32[extent, 2], each its own index twice.
fn rows(extent: i64) -> HostValue {
    let values: Vec<f32> = (0..extent).flat_map(|i| [i as f32, i as f32]).collect();
    Tensor::f32(&[extent as usize, 2], &values).unwrap().into()
}

fn expect(found: &HostValue, start: i64, end: i64, step: i64, extent: i64, how: &str) {
    let found = found.tensor().unwrap();
    let indices: Vec<i64> = found.to_vec::<f32>().chunks(2).map(|row| row[0] as i64).collect();
    let expected = picked(start, end, step, extent);
    assert_eq!(indices, expected, "{how}: {start}..{end} by {step} of {extent}");
    assert_eq!(found.shape(), [expected.len(), 2], "{how}: {start}..{end} by {step} of {extent}");
}

fn all() -> impl Iterator<Item = (i64, i64, i64)> {
    STEPS
        .into_iter()
        .flat_map(|step| BOUNDS.into_iter().flat_map(move |s| BOUNDS.into_iter().map(move |e| (s, e, step))))
}

fn options(at: usize) -> Options {
    let (level, math) = if at.is_multiple_of(2) { (Level::O0, Math::Strict) } else { (Level::O3, Math::Fast) };
    Options { level, math, ..Options::default() }
}

#[test]
fn bounds_given_when_it_runs_are_those_of_the_operator() {
    let slice = graph(
        &[node("Slice", &["x", "s", "e", "axis", "t"], &["y"], &[])],
        &[ints("axis", &[1], &[0])],
        &[
            value_info("x", FLOAT, &[Extent::Named("N"), Extent::Known(2)]),
            value_info("s", INT64, &[Extent::Known(1)]),
            value_info("e", INT64, &[Extent::Known(1)]),
            value_info("t", INT64, &[Extent::Known(1)]),
        ],
        &[output("y")],
    );
    let module = load(slice);
    for (at, (start, end, step)) in all().enumerate() {
        let mut runner = Runner::new(module.clone(), options(at));
        let [s, e, t] = [start, end, step].map(|v| HostValue::from(Tensor::i64(&[1], &[v]).unwrap()));
        for extent in [5, 6, 1, 0] {
            let x = rows(extent);
            let found = runner.run(&[("x", &x), ("s", &s), ("e", &e), ("t", &t)]).unwrap_or_else(|e| panic!("{e}"));
            expect(&found[0].1, start, end, step, extent, "inputs");
        }
    }
}

#[test]
fn bounds_computed_from_shapes_are_those_of_the_operator() {
    // start = length of z - 10: symbolic where the slice is compiled.
    for (at, (end, step)) in BOUNDS.into_iter().flat_map(|e| STEPS.into_iter().map(move |t| (e, t))).enumerate() {
        let slice = graph(
            &[
                node("Shape", &["z"], &["length"], &[]),
                node("Sub", &["length", "ten"], &["s"], &[]),
                node("Slice", &["x", "s", "e", "axis", "t"], &["y"], &[]),
            ],
            &[ints("axis", &[1], &[0]), ints("ten", &[1], &[10]), ints("e", &[1], &[end]), ints("t", &[1], &[step])],
            &[
                value_info("x", FLOAT, &[Extent::Named("N"), Extent::Known(2)]),
                value_info("z", FLOAT, &[Extent::Named("Z")]),
            ],
            &[output("y")],
        );
        let model = Model::compile(load(slice), &options(at)).unwrap_or_else(|e| panic!("{e}")).model;
        for start in [-10, -7, -5, -1, 0, 2, 5, 9] {
            let z: HostValue = Tensor::f32(&[(start + 10) as usize], &vec![0.0; (start + 10) as usize]).unwrap().into();
            for extent in [5, 6, 1, 0] {
                let found = model.run_values(&[("x", &rows(extent)), ("z", &z)]);
                let found = found.unwrap_or_else(|e| panic!("{start}..{end} by {step} of {extent}: {e}"));
                expect(&found[0].1, start, end, step, extent, "shapes");
            }
        }
    }
}

/// y[i] = x[i], row by row, `trips` of them.
fn looped(trips: &[Message], inputs: &[Message]) -> Message {
    let body = graph(
        &[
            node("Identity", &["go"], &["on"], &[]),
            node("Unsqueeze", &["i", "axis"], &["s"], &[]),
            node("Add", &["s", "one"], &["e"], &[]),
            node("Slice", &["x", "s", "e", "axis"], &["row"], &[]),
        ],
        &[ints("axis", &[1], &[0]), ints("one", &[1], &[1])],
        &[value_info("i", INT64, &[]), value_info("go", BOOL, &[])],
        &[output("on"), output("row")],
    );
    let x = value_info("x", FLOAT, &[Extent::Named("N"), Extent::Known(2)]);
    graph(
        &[node("Loop", &["n", ""], &["y"], &[subgraph("body", body)])],
        trips,
        &[&[x], inputs].concat(),
        &[output("y")],
    )
}

#[test]
fn bounds_that_a_trip_computes_need_a_loop_that_is_written_out() {
    let model = Model::compile(load(looped(&[ints("n", &[], &[5])], &[])), &Options::default()).unwrap().model;
    let found = model.run_values(&[("x", &rows(6))]).unwrap();
    assert_eq!(found[0].1.tensor().unwrap().shape(), [5, 1, 2]);
    assert_eq!(found[0].1.tensor().unwrap().to_vec::<f32>(), [0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0]);
    // An index past the end gives an empty row, which does not stack with the others.
    assert!(model.run_values(&[("x", &rows(4))]).is_err());
    let many = Model::compile(load(looped(&[ints("n", &[], &[500])], &[])), &Options::default());
    let Err(LoadError::Compile(error)) = many else { panic!("500 trips are not written out") };
    let said = error.to_string();
    assert!(said.contains("Slice") && said.contains("`Slice_row`") && said.contains("starts must be known"), "{said}");
}
