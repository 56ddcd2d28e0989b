//! Every invariant with something that breaks it, and nothing else.

use std::collections::BTreeSet;
use std::path::Path;

use super::*;
use crate::graph::Value;
use crate::op::{BinaryOp, Op, UnaryOp};
use crate::text::{NoConstants, from_text, parse};
use crate::types::{DType, TensorType};
use crate::{Origin, testing};

/// The invariants that a module breaks.
fn broken(module: &Module) -> BTreeSet<Invariant> {
    verify(module).err().into_iter().flat_map(|e| e.findings).map(|f| f.invariant).collect()
}

fn vector() -> TensorType {
    TensorType::known(DType::F32, &[2])
}

/// `infer(x) = neg(x)`, and its values.
fn small() -> (Function, Value, Value) {
    let mut f = Function::new("infer");
    let x = f.add_input("x", vector());
    let node = f.add_op(Op::Unary(UnaryOp::Neg), &[x], vec![], &Origin::named("neg")).expect("types agree");
    let y = Value { node, result: 0 };
    f.add_output("y", y);
    (f, x, y)
}

/// Modules that break what no text can, one invariant each.
fn broken_in_code() -> Vec<(Invariant, Module)> {
    let mut cases = Vec::new();

    let (mut f, x, y) = small();
    f.break_operands(y.node, vec![x, x]);
    f.set_op(y.node, Op::Binary(BinaryOp::Add));
    cases.push((Invariant::V1, Module::of(f)));

    let (mut f, x, _) = small();
    f.set_output(0, Value { result: 3, ..x });
    cases.push((Invariant::V2, Module::of(f)));

    let (mut f, x, y) = small();
    f.set_output(0, x);
    assert!(f.remove_op(y.node));
    f.set_output(0, y);
    cases.push((Invariant::V2, Module::of(f)));

    let (mut f, _, y) = small();
    f.set_operand(y.node, 0, y);
    cases.push((Invariant::V3, Module::of(f)));

    let (f, ..) = small();
    let mut module = Module::default();
    module.functions.insert("other".into(), f);
    cases.push((Invariant::V16, module));

    let mut region = small().0;
    for _ in 0..70 {
        let mut outer = Function::new("infer");
        let x = outer.add_input("x", vector());
        let node = outer.add_op(Op::Fusion {}, &[x], vec![region], &Origin::named("fusion")).expect("types agree");
        outer.add_output("y", Value { node, result: 0 });
        region = outer;
    }
    cases.push((Invariant::V19, Module::of(region)));
    cases
}

#[test]
fn each_invariant_is_broken_by_something_that_breaks_no_other() {
    let mut covered = BTreeSet::new();
    for (invariant, module) in broken_in_code() {
        assert_eq!(broken(&module), BTreeSet::from([invariant]));
        covered.insert(invariant.name().to_owned());
        // What no text can hold prints all the same.
        assert!(!crate::text::to_inline_text(&module).is_empty());
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/invalid");
    for entry in std::fs::read_dir(folder).expect("the folder of invalid texts") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().and_then(|n| n.to_str()).expect("a name").to_owned();
        let text = std::fs::read_to_string(&path).expect("a text");
        let module = parse(&name, &text, &NoConstants, false).unwrap_or_else(|e| panic!("{e}\n{}", e.excerpt()));
        let error = verify(&module).expect_err(&name);
        let number = name.split('_').next().unwrap_or("").to_owned();
        for finding in &error.findings {
            assert_eq!(finding.invariant.name(), number, "{name}: {error}");
        }
        assert!(error.to_string().starts_with(&format!("{number}: ")), "{error}");
        covered.insert(number);
    }
    let all: BTreeSet<String> = Invariant::ALL.iter().map(|i| i.name().to_owned()).collect();
    assert_eq!(covered, all);
}

#[test]
fn random_modules_hold_every_invariant() {
    for seed in 0..300 {
        let module = testing::module(seed, 25).expect("well typed");
        verify(&module).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    }
}

#[test]
fn what_is_allowed_passes() {
    let texts = [
        // Data-dependent extents, made by ops; state that grows; calls with symbols.
        "func @infer(%0 \"mask\": bool[N], %1 \"past\": f32[2, P], %2 \"new\": f32[2, 1]) {
           donate 1 -> 1
           %3 = compact(%0) {count = K} : i64[K]
           %4 = concat(%1, %2) {axis = 1} : f32[2, P + 1]
           %5 = call(%4) {function = \"g\"} : f32[2, P + 1]
           return \"i\" = %3, \"now\" = %4, \"z\" = %5
         }
         func @g(%0 \"a\": f32[M, L]) {
           %1 = neg(%0) math(approximate)
           return \"r\" = %1
         }",
        // An extent that is an expression, whose symbol is bound elsewhere; an onnx op of unknown type.
        "func @infer(%0 \"x\": f32[B], %1 \"z\": f32[2*B]) {
           %2 = absent : unknown
           %3 = onnx(%0, %2) {domain = \"\", op_type = \"Odd\", since_version = 1, attributes = {}} : unknown
           return \"y\" = %1
         }",
        // A sequence whose elements the model leaves open.
        "func @infer(%0 \"s\": seq<unknown>) {
           %1 = sequence_length(%0)
           return \"n\" = %1
         }",
        // One symbol made in both branches.
        "func @infer(%0 \"c\": bool[], %1 \"m\": bool[N]) {
           %2 = if(%0, %1) : i64[K]
             region(%0 \"m\": bool[N]) { %1 = compact(%0) {count = K} return \"r\" = %1 }
             region(%0 \"m\": bool[N]) { %1 = not(%0) %2 = compact(%1) {count = K} return \"r\" = %2 }
           return \"y\" = %2
         }",
    ];
    for text in texts {
        let module = from_text(text, &NoConstants).unwrap_or_else(|e| panic!("{e}\n{}", e.excerpt()));
        verify(&module).unwrap_or_else(|e| panic!("{e}"));
    }
    let module = from_text(texts[1], &NoConstants).expect("read");
    let error = verify_core(&module).expect_err("two ops are not core").to_string();
    assert_eq!(error.lines().count(), 2, "{error}");
    assert!(verify_core(&from_text(texts[0], &NoConstants).expect("read")).is_ok());
}

#[test]
fn an_error_names_number_function_op_and_reason() {
    let text = "func @infer(%0 \"x\": f32[2]) { %1 = neg(%0) : f32[3] at \"node_neg\" return \"y\" = %1 }";
    let module = parse("t", text, &NoConstants, false).expect("read");
    let error = verify(&module).expect_err("refused");
    let expected = "V6: function `infer`, `neg` at node_neg: it gives (f32[2]), but states (f32[3])";
    assert_eq!(error.to_string(), expected);
    // Damage all over is cut short.
    let ops: String = (1..100).map(|i| format!("%{i} = neg(%0) : f32[3]\n")).collect();
    let text = format!("func @infer(%0 \"x\": f32[2]) {{ {ops} return \"y\" = %1 }}");
    let error = verify(&parse("t", &text, &NoConstants, false).expect("read")).expect_err("refused");
    assert_eq!((error.findings.len(), error.more), (MAX_FINDINGS, 79));
}
