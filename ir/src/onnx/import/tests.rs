//! Models built here, and every model of the shared cases.

use prost::Message;

use super::*;
use crate::graph::{Function, Node};
use crate::onnx::proto::{AttributeProto, NodeProto};
use crate::onnx::proto::{
    DataType, OpaqueTypeProto, TensorProto, TensorShapeProto, TensorTypeProto, TypeProto, TypeValue,
};
use crate::onnx::read_value;
use crate::onnx::testing::*;
use crate::op::{AttrValue, Op};
use crate::tensor::Tensor;
use crate::types::ValueType;
use crate::value::HostValue;

fn import(model: &ModelProto) -> Result<Module, OnnxError> {
    from_bytes(model.encode_to_vec(), None)
}

fn infer(model: &ModelProto) -> Function {
    let module = import(model).unwrap_or_else(|e| panic!("{e}"));
    crate::verify::verify(&module).unwrap_or_else(|e| panic!("{e}"));
    module.entry().unwrap().clone()
}

fn refusal(model: &ModelProto) -> String {
    import(model).map(|_| ()).unwrap_err().to_string()
}

/// `y = nodes(x)`.
pub(super) fn unary(nodes: Vec<NodeProto>) -> ModelProto {
    model(graph(vec![value("x", "N 4")], nodes, "y"))
}

/// The ops of a function, each as `Type(operand names) -> number of results`, sources left out.
fn listing(function: &Function) -> Vec<String> {
    let word = |node: &Node| match &node.op {
        Op::Onnx { op_type, .. } => op_type.clone(),
        Op::Input { name, .. } | Op::Param { name, .. } => name.clone(),
        other => other.name().to_owned(),
    };
    let nodes = function.toposort().unwrap().into_iter().map(|id| function.node(id));
    let lines = nodes.filter(|n| matches!(n.op, Op::Onnx { .. })).map(|n| {
        let operands: Vec<String> = n.operands().iter().map(|v| word(function.node(v.node))).collect();
        format!("{}({})", word(n), operands.join(", "))
    });
    lines.collect()
}

fn onnx_node<'f>(function: &'f Function, wanted: &str) -> &'f Node {
    let mut nodes = function.nodes().into_iter().map(|id| function.node(id));
    nodes.find(|n| matches!(&n.op, Op::Onnx { op_type, .. } if op_type == wanted)).unwrap()
}

fn attribute<'f>(node: &'f Node, name: &str) -> Option<&'f AttrValue> {
    match &node.op {
        Op::Onnx { attributes, .. } => attributes.get(name),
        _ => None,
    }
}

#[test]
fn nodes_carry_version_attributes_and_origin() {
    let f = infer(&unary(vec![node_with("Softmax", "x", "y", vec![int("axis", 1)])]));
    let node = onnx_node(&f, "Softmax");
    assert!(matches!(&node.op, Op::Onnx { domain, since_version: 13, .. } if domain.is_empty()));
    assert_eq!(attribute(node, "axis"), Some(&AttrValue::Int(1)));
    assert_eq!(node.origin.to_string(), "y_node");
    assert_eq!(f.outputs()[0].name, "y");
}

#[test]
fn nodes_in_any_order_are_sorted() {
    let f = infer(&unary(vec![node("Add", "a b", "y"), node("Exp", "a", "b"), node("Neg", "x", "a")]));
    assert_eq!(listing(&f), ["Neg(x)", "Exp(Neg)", "Add(Neg, Exp)"]);
}

#[test]
fn operands_left_out_are_absent_and_trailing_ones_gone() {
    let f = infer(&unary(vec![node("Clip", "x - x -", "y - -")]));
    assert_eq!(listing(&f), ["Clip(x, absent, x)"]);
    assert_eq!(onnx_node(&f, "Clip").results().len(), 1);
}

#[test]
fn named_dims_are_symbols_and_stay_distinct() {
    let inputs = vec![value("x", "a.b 2"), value("z", "a/b a.b"), value("u", "? ?")];
    let f = infer(&model(graph(inputs, vec![node("Foo", "x z u", "y")], "y")));
    let types: Vec<String> = f.input_values().map(|v| f.ty(v).to_string()).collect();
    assert_eq!(types, ["f32[a_b, 2]", "f32[a_b_2, a_b]", "f32[u_dim0, u_dim1]"]);
}

#[test]
fn declared_types_of_results_are_kept_and_the_rest_open() {
    let mut m = unary(vec![node("Neg", "x", "a"), node("Neg", "a", "y")]);
    m.graph.as_mut().unwrap().value_info.push(value("a", "N 4"));
    let f = infer(&m);
    let types: Vec<String> = f.nodes().iter().map(|id| f.node(*id).results()[0].to_string()).collect();
    assert_eq!(types, ["f32[N, 4]", "f32[N, 4]", "unknown"]);
}

#[test]
fn constants_become_ops_or_parameters_by_size_and_only_where_used() {
    let mut m = unary(vec![node("Foo", "x small large", "y")]);
    let graph = m.graph.as_mut().unwrap();
    let tensor = |name, n: usize| zeros(name, DataType::Float, &[n as i64], 4 * n);
    graph.initializer = vec![tensor("small", INLINE_ELEMENTS), tensor("large", INLINE_ELEMENTS + 1), tensor("no", 99)];
    let module = import(&m).unwrap();
    assert_eq!(listing(module.entry().unwrap()), ["Foo(x, constant, large)"]);
    assert_eq!(module.params.keys().collect::<Vec<_>>(), ["large"]);
}

#[test]
fn an_input_with_an_initializer_is_a_constant() {
    let mut m = model(graph(vec![value("x", "N 4"), value("w", "20")], vec![node("Add", "x w", "y")], "y"));
    m.graph.as_mut().unwrap().initializer.push(zeros("w", DataType::Float, &[20], 80));
    let f = infer(&m);
    assert_eq!(f.inputs().len(), 1);
    assert_eq!(listing(&f), ["Add(x, w)"]);
}

#[test]
fn constant_nodes_take_every_form() {
    let value_of = |a: AttributeProto| {
        let f = infer(&unary(vec![node_with("Constant", "", "c", vec![a]), node("Add", "x c", "y")]));
        let ids = f.nodes();
        ids.iter().find_map(|id| match &f.node(*id).op {
            Op::Constant { value } => Some(value.clone()),
            _ => None,
        })
    };
    let attribute = |name: &str| AttributeProto { name: Some(name.into()), ..AttributeProto::default() };
    assert_eq!(value_of(int("value_int", 3)), Tensor::i64(&[], &[3]).ok());
    // Files of IR version 1 say no kind.
    let floats = AttributeProto { floats: vec![1.0, 2.0], ..attribute("value_floats") };
    assert_eq!(value_of(floats), Tensor::f32(&[2], &[1.0, 2.0]).ok());
    let text = AttributeProto { s: Some("a".into()), ..attribute("value_string") };
    assert_eq!(value_of(text), Tensor::from_strings(&[], vec!["a".into()]).ok());
    let tensor = AttributeProto { t: Some(zeros("", DataType::Int4, &[3], 2)), ..attribute("value") };
    assert_eq!(value_of(tensor).map(|t| t.numel()), Some(3));
    let both = unary(vec![node_with("Constant", "", "y", vec![int("value_int", 1), int("value_ints", 1)])]);
    assert!(refusal(&both).contains("a constant has one"));
    let neither = unary(vec![node_with("Constant", "", "y", vec![int("axis", 1)])]);
    assert!(refusal(&neither).contains("no attribute of a constant"));
}

/// `If(c)` whose branches use `a` (a value), `w` (a constant) and `b` (defined inside one of them).
pub(super) fn conditional() -> ModelProto {
    let then_branch = graph(vec![], vec![node("Add", "a w", "b"), node("Neg", "b", "t")], "t");
    let else_branch = graph(vec![], vec![node("Sub", "b x", "e")], "e");
    let branches = vec![subgraph("then_branch", then_branch), subgraph("else_branch", else_branch)];
    let nodes = vec![node("Neg", "x", "a"), node("Exp", "x", "b"), node_with("If", "x", "y", branches)];
    let mut m = unary(nodes);
    m.graph.as_mut().unwrap().initializer.push(zeros("w", DataType::Float, &[1], 4));
    m
}

#[test]
fn captured_values_are_operands_and_constants_are_not() {
    let f = infer(&conditional());
    assert!(listing(&f).contains(&"If(x, Exp, x, Neg)".to_owned()), "{:?}", listing(&f));
    let node = onnx_node(&f, "If");
    assert_eq!(attribute(node, "__captured"), Some(&AttrValue::Int(3)));
    let names = ["else_branch", "then_branch"].map(|n| AttrValue::Str(n.into()));
    assert_eq!(attribute(node, "__regions"), Some(&AttrValue::List(names.into())));
    assert_eq!(listing(&node.regions()[0]), ["Sub(b, x)"]);
    // What a branch defines hides what it could capture.
    assert_eq!(listing(&node.regions()[1]), ["Add(a, constant)", "Neg(Add)"]);
    assert_eq!(node.regions()[1].inputs().len(), 3);
}

#[test]
fn functions_are_inlined_with_their_attributes() {
    let body = vec![
        node_with("Gather", "p q", "g", vec![reference("axis", "axis")]),
        node_with("Foo", "g -", "r", vec![reference("given", "mode"), reference("left_out", "nothing")]),
    ];
    let mut twice = function("F", "p q", "r", body);
    (twice.attribute, twice.attribute_proto) = (vec!["axis".into()], vec![int("mode", 7)]);
    let outer = function("G", "p", "s", vec![NodeProto { attribute: vec![int("axis", 1)], ..call("F", "p p", "s") }]);
    let mut m = unary(vec![call("G", "x", "y")]);
    m.functions = vec![twice, outer];
    let f = infer(&m);
    assert_eq!(listing(&f), ["Gather(x, x)", "Foo(Gather)"]);
    assert_eq!(attribute(onnx_node(&f, "Gather"), "axis"), Some(&AttrValue::Int(1)));
    let foo = onnx_node(&f, "Foo");
    assert_eq!(attribute(foo, "given"), Some(&AttrValue::Int(7)));
    assert_eq!(attribute(foo, "left_out"), None);
    assert_eq!(foo.origin.to_string(), "y_node/s_node/r_node");
}

#[test]
fn a_function_body_means_its_own_opsets_and_sees_no_outer_names() {
    let mut old = function("F", "p", "r", vec![node("Softmax", "p", "r")]);
    old.opset_import = vec![opset("", 11)];
    let mut m = unary(vec![call("F", "x", "y")]);
    m.functions = vec![old];
    assert!(matches!(onnx_node(&infer(&m), "Softmax").op, Op::Onnx { since_version: 11, .. }));
    m.functions[0].node[0].input[0] = "x".into();
    assert!(refusal(&m).ends_with("node `r_node` (Softmax), value `x`: is used, but nothing defines it"));
}

#[test]
fn recursion_and_explosions_are_refused() {
    let mut m = unary(vec![call("F0", "x", "y")]);
    m.functions = vec![
        function("F0", "p", "r", vec![call("F1", "p", "r")]),
        function("F1", "p", "r", vec![call("F0", "p", "r")]),
    ];
    assert!(refusal(&m).contains("function `F0`: calls itself"));
    let level = |i: usize| {
        let next = format!("F{}", i + 1);
        let nodes = vec![call(&next, "p", "a"), call(&next, "a", "b"), call(&next, "b", "r")];
        function(&format!("F{i}"), "p", "r", nodes)
    };
    m.functions = (0..30).map(level).collect();
    m.functions.push(function("F30", "p", "r", vec![node("Neg", "p", "r")]));
    assert!(matches!(import(&m), Err(OnnxError::Limit { .. })));
    let chain = |i: usize| function(&format!("F{i}"), "p", "r", vec![call(&format!("F{}", i + 1), "p", "r")]);
    m.functions = (0..10_000).map(chain).collect();
    assert!(matches!(import(&m), Err(OnnxError::Limit { .. })));
}

#[test]
fn broken_graphs_are_refused_with_the_place() {
    let nodes = |nodes| refusal(&unary(nodes));
    let undefined = nodes(vec![node("Neg", "nowhere", "y")]);
    assert_eq!(undefined, "invalid ONNX: node `y_node` (Neg), value `nowhere`: is used, but nothing defines it");
    let cycle = nodes(vec![node("Add", "x b", "a"), node("Neg", "a", "b"), node("Neg", "b", "y")]);
    assert_eq!(cycle, "invalid ONNX: graph: has a cycle: node `a_node` (Add) uses node `b_node` (Neg)");
    assert!(nodes(vec![node("Neg", "y", "y")]).contains("cycle: node `y_node` (Neg)"));
    assert!(nodes(vec![node("Neg", "x", "y"), node("Exp", "x", "y")]).contains("value `y`: is defined twice"));
    assert!(nodes(vec![node("Neg", "x", "a"), node("Exp", "a", "x")]).contains("cycle"));
    assert!(nodes(vec![node("Foo", "", "x")]).contains("value `x`: is defined twice"));
    assert!(nodes(vec![]).contains("graph output, value `y`: is used, but nothing defines it"));
    assert!(nodes(vec![node("", "x", "y")]).contains("op_type: is empty"));
    let twice = vec![int("axis", 0), int("axis", 1)];
    assert!(nodes(vec![node_with("Foo", "x", "y", twice)]).contains("attribute `axis`: is given twice"));
    let dangling = vec![reference("axis", "a")];
    assert!(nodes(vec![node_with("Foo", "x", "y", dangling)]).contains("of a function, but is in none"));
    let mut negative = unary(vec![node("Neg", "x", "y")]);
    negative.graph.as_mut().unwrap().input[0] = value("x", "-3");
    assert!(refusal(&negative).contains("input `x`, dim 0: -3 is negative"));
    assert!(from_bytes(Vec::new(), None).unwrap_err().to_string().contains("holds no graph"));
    assert!(from_bytes(vec![0xff; 40], None).is_err());
    let no_import = ModelProto { opset_import: vec![], ..unary(vec![node("Neg", "x", "y")]) };
    assert!(refusal(&no_import).contains("domain `ai.onnx`: is used, but the model does not import it"));
}

#[test]
fn one_report_lists_everything_that_is_missing() {
    let odd = |name| TensorProto { data_type: Some(77), ..zeros(name, DataType::Float, &[], 0) };
    let strange = AttributeProto { name: Some("t".into()), t: Some(odd("")), ..AttributeProto::default() };
    let mut m = unary(vec![
        node("Upsample", "x", "a"),
        node("Frobnicate", "a", "b"),
        node_with("FlexAttention", "b", "c", vec![strange]),
        NodeProto { domain: Some("com.acme".into()), ..node("Magic", "c", "d") },
        node("Upsample", "d", "y"),
    ]);
    m.opset_import.push(opset("com.acme", 3));
    m.graph.as_mut().unwrap().node[2].domain = Some("ai.onnx.preview".into());
    m.opset_import.push(opset("ai.onnx.preview", 9));
    m.graph.as_mut().unwrap().initializer.push(odd("w"));
    let lines = [
        "not supported:",
        "type element type 77 at `w`, `c_node`",
        "op ai.onnx.Upsample (removed in opset 10) (opset 21) at `a_node`, `y_node`",
        "opset ai.onnx.preview 9 (1 to 1 are known) at `c_node`",
        "op ai.onnx.Frobnicate (opset 21) at `b_node`",
        "op com.acme.Magic (opset 3) at `d_node`",
    ];
    assert_eq!(refusal(&m), lines.join("\n  "));
}

#[test]
fn the_newest_format_is_read_and_only_what_it_adds_is_refused() {
    let newest = |ir_version, nodes| ModelProto {
        ir_version: Some(ir_version),
        opset_import: vec![opset("", 28)],
        ..unary(nodes)
    };
    let swiglu = newest(14, vec![node("SwiGLU", "x x", "y")]);
    assert!(matches!(&onnx_node(&infer(&swiglu), "SwiGLU").op, Op::Onnx { since_version: 28, .. }));
    let later = refusal(&newest(15, vec![node("Neg", "x", "y")]));
    assert!(later.contains("IR version 15 (1..=14 are known)"), "{later}");
    let opset_29 = ModelProto { opset_import: vec![opset("", 29)], ..newest(14, vec![node("Neg", "x", "y")]) };
    assert!(refusal(&opset_29).contains("ai.onnx 29 (6 to 28 are known)"));
    // Element types and opaque types, by name and user.
    let typed = |value: TypeValue| {
        let mut model = newest(14, vec![node("Identity", "x", "y")]);
        let input = &mut model.graph.as_mut().unwrap().input[0];
        input.r#type = Some(TypeProto { value: Some(value), ..TypeProto::default() });
        refusal(&model)
    };
    for (code, name) in [(27, "FLOAT6E2M3"), (28, "FLOAT6E3M2"), (29, "29")] {
        let tensor = TensorTypeProto { elem_type: Some(code), shape: Some(TensorShapeProto::default()) };
        let said = typed(TypeValue::TensorType(tensor));
        assert!(said.contains(&format!("element type {name} at `x`")), "{said}");
    }
    let opaque = OpaqueTypeProto { domain: Some("com.acme".into()), name: Some("Table".into()) };
    let said = typed(TypeValue::OpaqueType(opaque));
    assert!(said.contains("opaque com.acme.Table at `x`"), "{said}");
}

#[test]
fn operators_of_no_official_domain_are_left_to_legalize() {
    let mut m = unary(vec![NodeProto { domain: Some("com.acme".into()), ..node("Magic", "x", "y") }]);
    m.opset_import.push(opset("com.acme", 3));
    let f = infer(&m);
    assert!(matches!(&onnx_node(&f, "Magic").op, Op::Onnx { domain, since_version: 3, .. } if domain == "com.acme"));
}

#[test]
fn files_are_read_with_their_external_data() {
    let folder = tempfile::tempdir().unwrap();
    let mut m = unary(vec![node("Add", "x w", "y")]);
    let entry = |key: &str, value: &str| crate::onnx::proto::StringStringEntryProto {
        key: Some(key.into()),
        value: Some(value.into()),
    };
    let w = TensorProto {
        raw_data: None,
        data_location: Some(1),
        external_data: vec![entry("location", "w.bin"), entry("offset", "4")],
        ..zeros("w", DataType::Float, &[20], 0)
    };
    m.graph.as_mut().unwrap().initializer.push(w);
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, m.encode_to_vec()).unwrap();
    assert!(matches!(load(&path), Err(OnnxError::Io { .. })));
    std::fs::write(folder.path().join("w.bin"), [0; 84]).unwrap();
    let module = load(&path).unwrap();
    assert_eq!(module.params["w"].value.shape(), [20]);
    assert_eq!(module.source, path.to_string_lossy());
    assert!(refusal(&m).contains("not read from a folder"));
    assert!(matches!(load(folder.path()), Err(OnnxError::Io { .. })));
}
/// Folders with models to try: the shared ones, and the official cases where `FRIT_ONNX_CASES` says they are.
fn model_files() -> Vec<std::path::PathBuf> {
    let golden = shared_folder().map(|s| s.join("golden"));
    let official = std::env::var_os("FRIT_ONNX_CASES").map(std::path::PathBuf::from);
    let folders = golden.into_iter().chain(official);
    folders.flat_map(|f| files_under(&f)).filter(|p| p.file_name().is_some_and(|n| n == "model.onnx")).collect()
}

#[test]
fn every_known_model_loads_or_is_refused_with_a_reason() {
    let models = model_files();
    if models.is_empty() {
        println!("skipped: no shared folder (FRIT_SHARED)");
    }
    let (mut loaded, mut refused) = (0, 0);
    for path in &models {
        match load(path) {
            Ok(module) => {
                loaded += 1;
                let function = module.entry().unwrap();
                crate::verify::verify(&module).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
                read_test_inputs(path.parent().unwrap(), function);
            }
            Err(OnnxError::Unsupported(report)) => {
                refused += 1;
                println!("{}: {report}", path.display());
            }
            Err(other) => panic!("{}: {other}", path.display()),
        }
    }
    println!("{loaded} loaded, {refused} refused");
    assert!(refused * 50 <= loaded);
}

fn read_test_inputs(case: &Path, function: &Function) {
    for (index, input) in function.input_values().enumerate() {
        let path = case.join(format!("test_data_set_0/input_{index}.pb"));
        let Ok(bytes) = std::fs::read(&path) else { continue };
        let value = read_value(&bytes, function.ty(input)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        if let (HostValue::Tensor(tensor), ValueType::Tensor(ty)) = (&value, function.ty(input)) {
            assert_eq!((tensor.dtype(), tensor.shape().len()), (ty.dtype, ty.rank()), "{}", path.display());
        }
    }
}
