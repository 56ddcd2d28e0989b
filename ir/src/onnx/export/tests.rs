//! What models look like: names, broadcasts, extents, functions, reports, external data; that they are read back.

use super::super::proto::{NodeProto, TensorProto};
use super::*;
use crate::onnx::{from_bytes, load};
use crate::text::{NoConstants, from_text};
use crate::types::DType;
use crate::{Param, Tensor, testing};

fn read(text: &str) -> Module {
    from_text(text, &NoConstants).unwrap_or_else(|e| panic!("{e}\n{}", e.excerpt()))
}

/// The model of a text; the importer takes it.
fn exported(text: &str) -> ModelProto {
    let model = export(&read(text), &ExportOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    from_bytes(model.encode_to_vec(), None).unwrap_or_else(|e| panic!("{e}"));
    model
}

fn nodes(model: &ModelProto) -> &[NodeProto] {
    &model.graph.as_ref().expect("a graph").node
}

fn op_types(model: &ModelProto) -> Vec<&str> {
    nodes(model).iter().map(NodeProto::op_type).collect()
}

fn initializer<'m>(model: &'m ModelProto, name: &str) -> &'m TensorProto {
    let graph = model.graph.as_ref().expect("a graph");
    graph.initializer.iter().find(|t| t.name() == name).unwrap_or_else(|| panic!("no initializer {name}"))
}

fn ints(model: &ModelProto, name: &str) -> Vec<i64> {
    let raw = initializer(model, name).raw_data.clone().unwrap_or_default();
    raw.chunks_exact(8).map(|c| i64::from_le_bytes(c.try_into().expect("eight bytes"))).collect()
}

fn refused(text: &str, options: &ExportOptions) -> String {
    export(&read(text), options).map(|_| ()).expect_err("refused").to_string()
}

#[test]
fn names_and_origins_are_kept() {
    let text = r#"func @infer(%0 "image": f32[B, 4]) {
        %1 = param {name = "w.0"} : f32[4, 4] at "load"
        %2 = dot_general(%0, %1) {lhs_batch = [], rhs_batch = [], lhs_contract = [1], rhs_contract = [0],
                                  accumulate = f32} at "linear" from "net.py:7 in forward"
        %3 = tanh(%2) at "linear"
        return "logits" = %3
    }"#;
    let mut module = Module::default();
    let value = Tensor::f32(&[4, 4], &[0.5; 16]).expect("sizes agree");
    module.params.insert("w.0".into(), Param { value: value.clone(), trainable: true });
    module.functions = crate::text::parse("t", text, &NoConstants, false).map(|m| m.functions).expect("read");
    let model = export(&module, &ExportOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(op_types(&model), ["MatMul", "Tanh"]);
    let names: Vec<&str> = nodes(&model).iter().map(NodeProto::name).collect();
    assert_eq!(names, ["linear", "linear__2"]);
    let back = from_bytes(model.encode_to_vec(), None).expect("imported");
    let f = back.entry().expect("a function");
    assert_eq!(f.outputs()[0].name, "logits");
    assert!(matches!(f.op(f.input_values().next().expect("an input")), Op::Input { name, .. } if name == "image"));
    let sources: Vec<String> = f.nodes().iter().map(|id| f.node(*id).origin.to_string()).collect();
    assert!(sources.contains(&"linear (net.py:7 in forward)".to_owned()), "{sources:?}");
    assert_eq!(initializer(&model, "w.0").dims, [4, 4]);
}

#[test]
fn broadcasts_are_left_to_the_operators() {
    let model = exported(
        r#"func @infer(%0 "x": f32[B, 3], %1 "row": f32[3], %2 "column": f32[B]) {
            %3 = constant {value = f32[] dense(2.0)}
            %4 = broadcast(%3) {dims = [B, 3], axes = []}
            %5 = mul(%0, %4)
            %6 = broadcast(%1) {dims = [B, 3], axes = [1]}
            %7 = add(%5, %6)
            %8 = broadcast(%2) {dims = [B, 3], axes = [0]}
            %9 = sub(%7, %8)
            return "y" = %9
        }"#,
    );
    assert_eq!(op_types(&model), ["Mul", "Add", "Unsqueeze", "Sub"]);
    // Nothing has the whole extent but the two together: one is written out, to a shape put together from both.
    let model = exported(
        r#"func @infer(%0 "row": f32[N], %1 "column": f32[B]) {
            %2 = broadcast(%0) {dims = [B, N], axes = [1]}
            %3 = broadcast(%1) {dims = [B, N], axes = [0]}
            %4 = mul(%2, %3)
            return "y" = %4
        }"#,
    );
    assert_eq!(op_types(&model), ["Unsqueeze", "Mul"]);
    // Extents that may be 1 at run time: the product's is neither's.
    let model = exported(
        r#"func @infer(%0 "a": f32[N], %1 "b": f32[M]) {
            %2 = broadcast(%0) {dims = [max(M, N)], axes = [0]}
            %3 = broadcast(%1) {dims = [max(M, N)], axes = [0]}
            %4 = mul(%2, %3)
            return "y" = %4
        }"#,
    );
    assert_eq!(op_types(&model), ["Shape", "Shape", "Max", "Expand", "Mul"]);
}

#[test]
fn shapes_of_run_time_are_computed() {
    let model = exported(
        r#"func @infer(%0 "x": f32[B, 2, 6], %1 "y": f32[N]) {
            %2 = reshape(%0) {dims = [B, 12]}
            %3 = reshape(%0) {dims = [12*B]}
            %4 = reshape(%0) {dims = [2*B, 6]}
            %5 = dim {value = floordiv(N - 3, 2) + B*N}
            %6 = slice(%1) {starts = [N - 1], sizes = [floordiv(N, 2)], steps = [-2]}
            return "kept" = %2, "flat" = %3, "rows" = %4, "size" = %5, "turned" = %6
        }"#,
    );
    let reshapes: Vec<Vec<i64>> = nodes(&model)
        .iter()
        .filter(|n| n.op_type() == "Reshape" && n.output[0] != "size")
        .map(|n| ints(&model, &n.input[1]))
        .collect();
    assert_eq!(reshapes, [vec![0, 12], vec![-1], vec![-1, 6]]);
    let types = op_types(&model);
    // Negative numbers are divided downwards.
    for op in ["Shape", "Mod", "Div", "Mul", "Add", "Less", "Where", "Slice"] {
        assert!(types.contains(&op), "{op}: {types:?}");
    }
}

#[test]
fn a_slice_backwards_to_the_start_has_no_end() {
    let model = exported(
        r#"func @infer(%0 "x": f32[5, 7]) {
            %1 = slice(%0) {starts = [4, 1], sizes = [3, 3], steps = [-2, 2]}
            return "y" = %1
        }"#,
    );
    let slice = &nodes(&model)[0];
    let bounds: Vec<Vec<i64>> = slice.input[1..].iter().map(|n| ints(&model, n)).collect();
    assert_eq!(bounds, [vec![4, 1], vec![i64::MIN, 7], vec![0, 1], vec![-2, 2]]);
}

#[test]
fn products_choose_their_operator() {
    let product = |a: &str, b: &str, axes: &str| {
        let text = format!(
            "func @infer(%0 \"a\": {a}, %1 \"b\": {b}) {{ %2 = dot_general(%0, %1) {{{axes}}} return \"y\" = %2 }}"
        );
        op_types(&exported(&text)).join(" ")
    };
    let axes = |lb: &str, rb: &str, lc: &str, rc: &str, to: &str| {
        format!(
            "lhs_batch = [{lb}], rhs_batch = [{rb}], lhs_contract = [{lc}], rhs_contract = [{rc}], accumulate = {to}"
        )
    };
    assert_eq!(product("f32[2, 3, 4]", "f32[4, 5]", &axes("", "", "2", "0", "f32")), "MatMul");
    assert_eq!(product("f32[3, 4]", "f32[5, 4]", &axes("", "", "1", "1", "f32")), "Gemm");
    assert_eq!(product("f32[2, 3, 4]", "f32[2, 5, 4]", &axes("0", "0", "2", "2", "f32")), "Transpose MatMul");
    assert_eq!(product("f32[3, 4]", "f32[3]", &axes("", "", "0", "0", "f32")), "MatMul");
    assert_eq!(product("f32[2, 3, 4]", "f32[3, 4]", &axes("", "", "1, 2", "0, 1", "f32")), "Einsum");
    assert_eq!(product("i8[3, 4]", "u8[4, 5]", &axes("", "", "1", "0", "i32")), "MatMulInteger");
    assert_eq!(product("i16[3, 4]", "i16[4, 5]", &axes("", "", "1", "0", "i32")), "Cast Cast MatMul");
    assert_eq!(product("f16[3, 4]", "f16[4, 5]", &axes("", "", "1", "0", "f32")), "Cast Cast MatMul");
}

#[test]
fn windows_that_are_pooled_are_pools() {
    let pool = |fill: &str, kind: &str, axes: &str| {
        let text = format!(
            "func @infer(%0 \"x\": f32[1, 2, 9, 9]) {{
                %1 = constant {{value = f32[] dense({fill})}}
                %2 = window(%0, %1) {{axes = [{axes}], sizes = [3, 3], strides = [2, 2], dilations = [1, 1],
                                      low = [1, 1], high = [1, 1]}}
                %3 = reduce(%2) {{axes = [4, 5], kind = #{kind}}}
                return \"y\" = %3
            }}"
        );
        op_types(&exported(&text)).join(" ")
    };
    assert_eq!(pool("-inf", "max", "2, 3"), "MaxPool");
    assert_eq!(pool("0.0", "sum", "2, 3"), "AveragePool Mul");
    assert!(pool("0.0", "max", "2, 3").starts_with("Pad Gather"), "{}", pool("0.0", "max", "2, 3"));
    assert!(pool("-inf", "max", "1, 3").starts_with("Pad Gather"));
}

const COMPOSITES: &str = r#"func @infer(%0 "x": f32[B, 4], %1 "z": f32[M]) {
    %2 = composite(%0) {name = "twice", attributes = {}} at "first"
        region(%0 "a": f32[B, 4]) {
            %1 = constant {value = f32[] dense(2.0)}
            %2 = broadcast(%1) {dims = [B, 4], axes = []}
            %3 = mul(%0, %2)
            return "r" = %3
        }
    %3 = composite(%2) {name = "twice", attributes = {}} at "second"
        region(%0 "a": f32[B, 4]) {
            %1 = constant {value = f32[] dense(2.0)}
            %2 = broadcast(%1) {dims = [B, 4], axes = []}
            %3 = mul(%0, %2)
            return "r" = %3
        }
    %4 = composite(%3) {name = "spread", attributes = {}} at "third"
        region(%0 "a": f32[B, 4]) {
            %1 = broadcast(%0) {dims = [M, B, 4], axes = [1, 2]}
            return "r" = %1
        }
    return "y" = %4
}"#;

#[test]
fn composites_are_functions_or_their_ops() {
    let model = exported(COMPOSITES);
    let names: Vec<&str> = model.functions.iter().map(|f| f.name()).collect();
    assert_eq!(names, ["twice", "spread"], "equal bodies are one");
    assert_eq!(op_types(&model), ["twice", "twice", "Shape", "spread"]);
    // An extent that no operand has is one.
    assert_eq!(model.functions[1].input, ["a", "M"]);
    let open = ExportOptions { functions: false, ..ExportOptions::default() };
    let model = export(&read(COMPOSITES), &open).expect("exported");
    assert!(model.functions.is_empty());
    assert_eq!(op_types(&model)[..2], ["Mul", "Mul"]);
}

#[test]
fn calls_take_parameters_along() {
    let mut module = read(
        r#"func @infer(%0 "x": f32[B]) {
            %1 = call(%0) {function = "g"} : f32[B]
            %2 = call(%1) {function = "g"} : f32[B]
            return "y" = %2
        }
        func @g(%0 "a": f32[N]) {
            %1 = constant {value = f32[1] dense(3.0)}
            %2 = broadcast(%1) {dims = [N], axes = [0]}
            %3 = mul(%0, %2)
            return "r" = %3
        }"#,
    );
    let value = Tensor::f32(&[1], &[3.0]).expect("sizes agree");
    module.params.insert("three".into(), Param { value: value.clone(), trainable: false });
    let g = module.functions.get_mut("g").expect("there");
    let constant = g.nodes().into_iter().find(|id| matches!(g.node(*id).op, Op::Constant { .. })).expect("there");
    g.set_op(constant, Op::Param { name: "three".into(), ty: value.ty() });
    let model = export(&module, &ExportOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(op_types(&model), ["g", "g"]);
    assert_eq!(nodes(&model)[1].input.last().map(String::as_str), Some("three"));
    assert_eq!(model.functions[0].input, ["a", "three"]);
    from_bytes(model.encode_to_vec(), None).expect("imported");
    let open = ExportOptions { functions: false, ..ExportOptions::default() };
    assert_eq!(op_types(&export(&module, &open).expect("exported")), ["Mul", "Mul"]);
}

#[test]
fn outputs_of_every_kind_have_their_names() {
    let model = exported(
        r#"func @infer(%0 "x": f32[2]) {
            %1 = neg(%0)
            %2 = constant {value = f32[1] dense(7.0)}
            %3 = broadcast(%2) {dims = [2], axes = [0]}
            return "x" = %0, "copy" = %0, "a" = %1, "b" = %1, "seven" = %2, "sevens" = %3
        }"#,
    );
    let outputs: Vec<&str> = model.graph.iter().flat_map(|g| &g.output).map(|o| o.name()).collect();
    assert_eq!(outputs, ["x", "copy", "a", "b", "seven", "sevens"]);
    let text = r#"func @infer(%0 "x": f32[2]) { %1 = neg(%0) return "x" = %1 }"#;
    assert!(refused(text, &ExportOptions::default()).contains("the name of another value at `x`"));
}

#[test]
fn branches_and_loops_are_subgraphs() {
    let model = exported(
        r#"func @infer(%0 "c": bool[], %1 "x": f32[B], %2 "n": i64[]) {
            %3 = if(%0, %1)
              region(%0 "v": f32[B]) { %1 = neg(%0) return "r" = %1 }
              region(%0 "v": f32[B]) { return "r" = %0 }
            %4 = constant {value = bool[] dense(true)}
            %5, %6 = loop(%2, %4, %3, %1) {carried = 1, trips = T}
              region(%0 "i": i64[], %1 "go": bool[], %2 "state": f32[B], %3 "step": f32[B]) {
                %4 = add(%2, %3)
                return "go" = %1, "state" = %4, "row" = %4
              }
            return "last" = %5, "all" = %6
        }"#,
    );
    assert_eq!(op_types(&model), ["If", "Loop"]);
    let names = |n: &NodeProto| -> Vec<String> {
        let graphs = n.attribute.iter().filter_map(|a| a.g.as_ref());
        graphs.flat_map(|g| g.node.iter().map(|n| n.op_type().to_owned())).collect()
    };
    // A branch makes what it gives, and so does a body: each output once.
    assert_eq!(names(&nodes(&model)[0]), ["Neg", "Identity"]);
    assert_eq!(names(&nodes(&model)[1]), ["Add", "Identity", "Identity"]);
}

#[test]
fn everything_that_is_in_the_way_is_in_one_report() {
    let text = r#"func @infer(%0 "x": f32[1, 1, 3], %1 "w": i32[1, 1, 2], %2 "z": i32[1, 1, 3]) {
        %3 = bitcast(%0) {to = i32} at "bits"
        %4 = conv_transpose(%2, %1) {strides = [1], dilations = [1], low = [0], high = [0], output_padding = [0],
                                     groups = 1} at "grow"
        %5 = bitcast(%0) {to = u32} at "more"
        return "a" = %3, "b" = %4, "c" = %5
    }"#;
    let error = export(&read(text), &ExportOptions { opset: Some(21), ..ExportOptions::default() });
    let error = error.map(|_| ()).expect_err("refused");
    let expected = "ONNX opset 21 can't express BitCast (new in opset 26) at `bits`, `more`; \
                    conv_transpose of i32 at `grow`";
    assert_eq!(error.to_string(), expected);
    assert!(!error.help().is_empty() && !error.is_internal());
    let ExportError::Unsupported { refused: report, .. } = error else { panic!("another error") };
    assert_eq!(report.items().map(|(_, at)| at.len()).collect::<Vec<_>>(), [2, 1]);
    let odd = |opset| refused(text, &ExportOptions { opset: Some(opset), ..ExportOptions::default() });
    assert_eq!(odd(5), "opset 5 is not written (18 to 26 are)");
    let absent = ExportOptions { function: Some("train".into()), ..ExportOptions::default() };
    assert_eq!(refused(text, &absent), "the module has no function `train`");
    let foreign = r#"func @infer(%0 "x": f32[2]) {
        %1 = onnx(%0) {domain = "", op_type = "Relu", since_version = 14, attributes = {}} : f32[2] at "r"
        return "y" = %1
    }"#;
    let said = refused(foreign, &ExportOptions::default());
    assert_eq!(said, "ONNX opset 21 can't express ai.onnx.Relu before `legalize` at `r`");
}

#[test]
fn a_newer_opset_is_taken_where_one_is_needed() {
    let text = r#"func @infer(%0 "x": f32[2]) { %1 = bitcast(%0) {to = i32} return "y" = %1 }"#;
    let model = exported(text);
    assert_eq!((model.opset_import[0].version(), model.ir_version()), (26, 13));
    let plain = exported(r#"func @infer(%0 "x": f32[2]) { %1 = neg(%0) return "y" = %1 }"#);
    assert_eq!((plain.opset_import[0].version(), plain.ir_version()), (DEFAULT_OPSET, 10));
    let nibbles =
        exported(r#"func @infer(%0 "x": u2[4]) { %1 = cast(%0) {to = f32, saturate = false} return "y" = %1 }"#);
    assert_eq!(nibbles.opset_import[0].version(), 25);
}

#[test]
fn large_weights_lie_beside_the_model() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("big.onnx");
    let mut module = testing::module(5, 12).expect("well typed");
    let f = module.entry_mut().expect("a function");
    let mut b = crate::builder::Builder::new(f, crate::Origin::named("big"));
    let ty = crate::TensorType::known(DType::F32, &[50, 40]);
    let w = b.op(Op::Param { name: "big".into(), ty }, &[]).expect("typed");
    f.add_output("big_out", w);
    let value = Tensor::f32(&[50, 40], &(0..2000).map(|i| i as f32).collect::<Vec<_>>()).expect("sizes agree");
    module.params.insert("big".into(), Param { value: value.clone(), trainable: false });
    let options = ExportOptions { external_above: 0, ..ExportOptions::default() };
    write_file(&module, &options, &path).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(std::fs::metadata(folder.path().join("big.onnx.data")).expect("there").len() % 4096, 8000 % 4096);
    let back = load(&path).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(back.params.get("big").map(|p| &p.value), Some(&value));
    let alone = folder.path().join("alone.onnx");
    write_file(&module, &ExportOptions::default(), &alone).unwrap_or_else(|e| panic!("{e}"));
    assert!(!folder.path().join("alone.onnx.data").exists());
    let nowhere = write_file(&module, &options, Path::new("/no/such/folder/x.onnx")).expect_err("refused");
    assert!(matches!(nowhere, ExportError::Io { .. }), "{nowhere}");
}

#[test]
fn same_module_same_bytes_and_random_ones_are_read_back() {
    for seed in 0..150 {
        let module = testing::module(seed, 20).expect("well typed");
        let bytes = export_bytes(&module, &ExportOptions::default()).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        let again = testing::module(seed, 20).expect("well typed");
        assert!(bytes == export_bytes(&again, &ExportOptions::default()).expect("exported"), "seed {seed}");
        let back = from_bytes(bytes, None).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        let names = |m: &Module| -> Vec<String> {
            m.entry().expect("a function").outputs().iter().map(|o| o.name.clone()).collect()
        };
        assert_eq!(names(&back), names(&module));
    }
}
