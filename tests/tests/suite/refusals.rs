//! What is not supported, or can't be, is refused at once and in full, with names; what only lacks a shape gets it from
//! the values given.

use std::path::{Path, PathBuf};

use frit_compiler::driver::Options;
use frit_ir::{HostValue, Tensor};
use frit_passes::manager::{Level, Math};
use frit_runtime::compile::{Compiled, Runner};
use frit_runtime::load::load_module;
use frit_runtime::{LoadError, Model};
use frit_tests::onnx::{
    BOOL, Extent, FLOAT, INT64, floats, graph, int, int_list, ints, model, node, output, subgraph, unranked, value_info,
};
use frit_tests::wire::Message;

const ROW: [Extent<'static>; 2] = [Extent::Named("N"), Extent::Known(4)];

fn written(folder: &Path, graph: Message) -> PathBuf {
    let path = folder.join("model.onnx");
    std::fs::write(&path, model(graph)).unwrap();
    path
}

fn load(graph: Message) -> Result<frit_ir::Module, Box<LoadError>> {
    let folder = tempfile::tempdir().unwrap();
    load_module(&written(folder.path(), graph)).map_err(Box::new)
}

fn compiled(graph: Message) -> Result<Compiled, Box<LoadError>> {
    load(graph).and_then(|module| Model::compile(module, &Options::default()).map_err(Box::new))
}

fn refusal(graph: Message) -> String {
    compiled(graph).map(|_| ()).unwrap_err().to_string()
}

fn f32s(shape: &[usize], values: &[f32]) -> HostValue {
    Tensor::f32(shape, values).unwrap().into()
}

/// An If, a Loop and nodes after them, each with an operator that nobody has.
fn lacking(inputs: &[Message], more: &[Message]) -> Message {
    let branch = |op: &str, result: &str| graph(&[node(op, &["x"], &[result], &[])], &[], &[], &[output(result)]);
    let inner = subgraph("then_branch", branch("NoSuchInner", "inner"));
    let nested = node("If", &["c"], &["nested"], &[inner, subgraph("else_branch", branch("Exp", "fine"))]);
    let then = graph(&[nested], &[], &[], &[output("nested")]);
    let choice = [subgraph("then_branch", then), subgraph("else_branch", branch("NoSuchElse", "e"))];
    let body = graph(
        &[node("Identity", &["go"], &["on"], &[]), node("NoSuchStep", &["s"], &["t"], &[])],
        &[],
        &[output("i"), output("go"), output("s")],
        &[output("on"), output("t")],
    );
    let nodes = [
        node("If", &["c"], &["chosen"], &choice),
        node("Loop", &["n", "", "chosen"], &["looped"], &[subgraph("body", body)]),
        node("NoSuchAfter", &["looped"], &["after"], &[]),
        node("Add", &["after", "x"], &["sum"], &[]),
        node("NoSuchAfter", &["sum"], &["y"], &[]),
    ];
    let given = [value_info("x", FLOAT, &ROW), value_info("c", BOOL, &[]), value_info("n", INT64, &[])];
    graph(&[&nodes, more].concat(), &[], &[&given, inputs].concat(), &[output("y")])
}

/// The operators of [`lacking`], and their nodes.
const LACKING: [(&str, &str); 4] = [
    ("NoSuchInner", "`NoSuchInner_inner`"),
    ("NoSuchElse", "`NoSuchElse_e`"),
    ("NoSuchStep", "`NoSuchStep_t`"),
    ("NoSuchAfter", "`NoSuchAfter_after`, `NoSuchAfter_y`"),
];

#[test]
fn every_missing_operator_has_its_line() {
    let said = refusal(lacking(&[], &[]));
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 1 + LACKING.len(), "{said}");
    for (op, nodes) in LACKING {
        let line = lines.iter().find(|l| l.contains(op)).unwrap_or_else(|| panic!("{op} is missing: {said}"));
        assert!(line.contains(&format!("ai.onnx {op} (version 17)")) && line.ends_with(nodes), "{line}");
    }
}

#[test]
fn what_import_and_legalize_lack_is_one_report() {
    // An input without a type, an attribute of a kind that is not read, a mode that no rule takes.
    let typeless = output("u");
    let mode =
        vec![(1, frit_tests::wire::Content::Bytes(b"type".to_vec())), (20, frit_tests::wire::Content::Varint(14))];
    let nodes = [
        node("Neg", &["u"], &["v"], &[]),
        node("Exp", &["x"], &["w"], &[mode]),
        node("Dropout", &["x", "half", "train"], &["d"], &[]),
    ];
    let mut model = lacking(&[typeless], &nodes);
    model.extend(
        [floats("half", &[], &[0.5]), ints("train", &[], &[1])].map(|m| (5, frit_tests::wire::Content::Message(m))),
    );
    let said = refusal(model);
    let lines: Vec<&str> = said.lines().collect();
    for (op, nodes) in LACKING {
        let line = lines.iter().find(|l| l.contains(op)).unwrap_or_else(|| panic!("{op} is missing: {said}"));
        assert!(line.contains(&format!("op ai.onnx.{op} (opset 17)")) && line.ends_with(nodes), "{line}");
    }
    for part in [
        "type input of unknown type or rank at `u`",
        "attribute kind TypeProtos at `Exp_w`",
        "feature ai.onnx.Dropout: training mode (opset 13) at `Dropout_d`",
    ] {
        assert!(lines.iter().any(|l| l.contains(part)), "`{part}` is missing: {said}");
    }
    assert_eq!(lines.len(), 1 + LACKING.len() + 3, "{said}");
}

/// y = MatMul(x, w) + b over an x of any shape.
fn shapeless() -> Message {
    let nodes = [node("MatMul", &["x", "w"], &["m"], &[]), node("Add", &["m", "b"], &["y"], &[])];
    graph(
        &nodes,
        &[floats("w", &[2, 2], &[1.0, 2.0, 3.0, 4.0])],
        &[unranked("x", FLOAT), unranked("b", FLOAT)],
        &[output("y")],
    )
}

#[test]
fn inputs_without_a_shape_get_that_of_their_values() {
    let mut runner = Runner::new(load(shapeless()).unwrap(), Options::default());
    let mut run = |x: HostValue, b: HostValue| {
        let outputs = runner.run(&[("x", &x), ("b", &b)]).unwrap_or_else(|e| panic!("{e}"));
        outputs[0].1.tensor().map(|t| (t.shape().to_vec(), t.to_vec::<f32>())).unwrap()
    };
    let (row, one) = (f32s(&[1, 2], &[1.0, 1.0]), f32s(&[], &[0.5]));
    assert_eq!(run(row.clone(), one.clone()), (vec![1, 2], vec![4.5, 6.5]));
    // Other extents, other ranks, and the first again.
    assert_eq!(run(f32s(&[2, 2], &[1.0, 0.0, 0.0, 1.0]), one.clone()), (vec![2, 2], vec![1.5, 2.5, 3.5, 4.5]));
    assert_eq!(run(f32s(&[2], &[1.0, 1.0]), f32s(&[2], &[1.0, 2.0])), (vec![2], vec![5.0, 8.0]));
    assert_eq!(run(f32s(&[1, 1, 2], &[1.0, 1.0]), f32s(&[2, 1, 1], &[1.0, 2.0])).0, [2, 1, 2]);
    assert_eq!(run(row, one), (vec![1, 2], vec![4.5, 6.5]));
}

#[test]
fn inputs_without_a_shape_and_a_value_are_named() {
    let said = refusal(shapeless());
    assert!(said.contains("input `x`, input `b` without a declared shape"), "{said}");
    let one = f32s(&[], &[0.5]);
    let module = load(shapeless()).unwrap();
    let Err(error) = Model::compile_for(&module, &[("b", &one)], &Options::default()) else {
        panic!("x has no shape");
    };
    let said = error.to_string();
    assert!(said.contains("input `x` without") && !said.contains("`b`"), "{said}");
}

/// A convolution or pooling over an image of one channel.
fn windowed(op: &str, image: &[Extent<'_>], attributes: &[Message]) -> Message {
    let (inputs, kernel) = match op {
        "Conv" => (vec!["x", "w"], vec![]),
        _ => (vec!["x"], vec![int_list("kernel_shape", &[3, 3])]),
    };
    let attributes = [&kernel, attributes].concat();
    graph(
        &[node(op, &inputs, &["y"], &attributes)],
        &[floats("w", &[1, 1, 3, 3], &[1.0; 9])],
        &[value_info("x", FLOAT, image)],
        &[output("y")],
    )
}

#[test]
fn a_kernel_larger_than_the_image_is_refused() {
    let (n, h, w) = (Extent::Known(1), Extent::Named("H"), Extent::Known(4));
    for op in ["Conv", "MaxPool", "AveragePool", "LpPool"] {
        let known = [n, n, Extent::Known(2), w];
        let said = refusal(windowed(op, &known, &[]));
        let reach = "axis 2: a kernel of extent 3 reaches over 3 elements, the image has 2 and 0 of padding";
        assert!(said.contains(&format!("{op}_y")) && said.contains(reach), "{said}");
        let dilated = [n, n, w, Extent::Known(3)];
        if op != "LpPool" {
            let said = refusal(windowed(op, &dilated, &[int_list("dilations", &[1, 2])]));
            let reach = "axis 3: a kernel of extent 3 and dilation 2 reaches over 5 elements, the image has 3";
            assert!(said.contains(reach), "{said}");
        }
        // Padding counts, strides don't.
        for enough in [int_list("pads", &[1, 0, 0, 0]), int_list("pads", &[0, 0, 1, 0])] {
            compiled(windowed(op, &known, &[enough])).unwrap_or_else(|e| panic!("{op}: {e}"));
        }
        assert!(refusal(windowed(op, &known, &[int_list("strides", &[2, 2])])).contains("axis 2"));
        let module = load(windowed(op, &[n, n, h, w], &[int_list("strides", &[2, 1])])).unwrap();
        for (level, math) in [(Level::O0, Math::Strict), (Level::O3, Math::Fast)] {
            let options = Options { level, math, ..Options::default() };
            let mut runner = Runner::new(module.clone(), options);
            let mut run = |extent: usize| {
                let x = f32s(&[1, 1, extent, 4], &vec![1.0; extent * 4]);
                let made = runner.run(&[("x", &x)]);
                made.map(|outputs| outputs[0].1.tensor().unwrap().shape().to_vec()).map_err(|e| e.to_string())
            };
            assert_eq!(run(3).unwrap(), [1, 1, 1, 2], "{op}");
            assert_eq!(run(5).unwrap(), [1, 1, 2, 2], "{op}");
            for extent in [0, 1, 2] {
                let said = run(extent).unwrap_err();
                assert!(said.contains(&format!("{op}_y")), "{op}: {said}");
                assert!(said.contains("kernel of extent 3 and the padded image along axis 2"), "{op}: {said}");
                assert!(said.contains(&format!("H = {extent}")), "{op}: {said}");
            }
        }
    }
    // Rounded up, less than a stride of the window may hang over the end.
    let rounded = |extent: u64, stride: i64| {
        let image = [n, n, Extent::Known(extent), w];
        let attributes = [int("ceil_mode", 1), int_list("strides", &[stride, 1])];
        compiled(windowed("MaxPool", &image, &attributes)).is_ok()
    };
    assert!(rounded(2, 2) && rounded(1, 3) && !rounded(1, 2) && !rounded(2, 1));
}

#[test]
fn nesting_deeper_than_protobuf_allows_is_called_so() {
    let nested = |depth: usize| {
        let mut inner = graph(&[node("Neg", &["x"], &["y0"], &[])], &[], &[], &[output("y0")]);
        for level in 1..=depth {
            let (last, name) = (format!("y{}", level - 1), format!("y{level}"));
            let other = graph(&[node("Exp", &["x"], &[&last], &[])], &[], &[], &[output(&last)]);
            let branches = [subgraph("then_branch", inner), subgraph("else_branch", other)];
            inner = graph(&[node("If", &["c"], &[&name], &branches)], &[], &[], &[output(&name)]);
        }
        inner.extend(graph(&[], &[], &[value_info("x", FLOAT, &ROW), value_info("c", BOOL, &[])], &[]));
        inner
    };
    compiled(nested(30)).unwrap_or_else(|e| panic!("{e}"));
    for depth in [34, 50, 300] {
        let said = refusal(nested(depth));
        assert!(said.contains("limit: file: messages lie more than 100 deep"), "{depth}: {said}");
        assert!(said.contains("about 33 nested If") && !said.contains("damaged"), "{depth}: {said}");
    }
}
