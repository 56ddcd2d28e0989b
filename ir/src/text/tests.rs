//! Round trips, shared and remapped constants, errors, damaged texts.

use super::*;
use crate::graph::{Donation, Function, SymbolFacts};
use crate::op::{AttrValue, BinaryOp, Numerics, Op};
use crate::types::{DType, Dim, Symbol, TensorType, ValueType};
use crate::{Origin, Param, Relation, Requirement, Tensor};
use std::collections::BTreeMap;

/// Reads what is printed, compares the texts, and gives the module read.
#[track_caller]
fn round_trip(module: &Module) -> Module {
    let printed = to_text(module);
    let read = match from_text(&printed.text, &printed.constants) {
        Ok(module) => module,
        Err(e) => panic!("{e}\n{}\n{}", e.excerpt(), printed.text),
    };
    let again = to_text(&read);
    assert_eq!(printed.text, again.text);
    let inline = to_inline_text(module);
    let read = from_text(&inline, &NoConstants).unwrap_or_else(|e| panic!("{e}\n{}", e.excerpt()));
    assert_eq!(inline, to_inline_text(&read));
    read
}

fn bytes(dtype: DType, elements: usize) -> Tensor {
    let data: Vec<u8> = (0..elements * dtype.size()).map(|i| (i * 37 % 256) as u8).collect();
    Tensor::from_bytes(dtype, &[elements], &data).expect("sizes agree")
}

/// A module with something of everything that a text has to carry.
fn everything() -> Module {
    let mut module = Module { source: "dir/\"odd\" näme.onnx".into(), ..Module::default() };
    for (trainable, dtype) in [(true, DType::F32), (false, DType::F8E4M3FNUZ), (false, DType::I4)] {
        let value = bytes(dtype, 100);
        module.params.insert(format!("p.{dtype}"), Param { value, trainable });
    }
    let words = Tensor::from_strings(&[2], vec!["a\"b\\\n\u{1}".into(), "ü".into()]).expect("two strings");
    module.params.insert("words".into(), Param { value: words.clone(), trainable: false });

    let mut f = Function::new("infer");
    let shape = vec![Dim::symbol("B"), Dim::Known(4)];
    let x = f.add_input("x", TensorType::new(DType::F32, shape.clone()));
    let c = f.add_input("condition", TensorType::scalar(DType::Bool));
    f.set_origin(c.node, Origin { name: None, source: Some("m.py:3".into()) });
    f.symbols.insert(Symbol::new("B"), SymbolFacts { min: 1, max: Some(64), multiple_of: 2 });
    f.symbols.insert(Symbol::new("N"), SymbolFacts::default());
    f.donations.push(Donation { input: 0, output: 1 });
    for (relation, what) in [(Relation::Equal, "axis 0"), (Relation::AtMost, ""), (Relation::OneOr, "a \"b\"")] {
        let (left, right) = (Dim::symbol("B"), (&Dim::symbol("B") - &Dim::Known(3)).floordiv(&Dim::Known(2)));
        let origin = Origin { name: Some("add".into()), source: Some("m.py:9".into()) };
        f.require(Requirement { relation, left, right, what: what.to_owned(), origin });
    }
    let origin = Origin { name: Some("add\t1".into()), source: Some("m.py:7 in forward".into()) };
    let add = f.add_op_with(Op::Binary(BinaryOp::Add), &[x, x], vec![], &origin, Numerics::FAST).expect("types agree");
    let sum = crate::Value { node: add, result: 0 };
    let region = |op| {
        let mut r = Function::default();
        let a = r.add_input("a", TensorType::new(DType::F32, shape.clone()));
        let node = r.add_op(op, &[a, a], vec![], &Origin::named("inner")).expect("types agree");
        r.add_output("r", crate::Value { node, result: 0 });
        r
    };
    let regions = vec![region(Op::Binary(BinaryOp::Mul)), region(Op::Binary(BinaryOp::Sub))];
    let branch = f.add_op(Op::If {}, &[c, sum], regions, &Origin::named("if")).expect("types agree");
    for dtype in DType::ALL.iter().filter(|d| **d != DType::Str) {
        for elements in [0, 1, 5, 64, 65] {
            let value = bytes(*dtype, elements);
            f.add_op(Op::Constant { value }, &[], vec![], &Origin::named("k")).expect("a constant");
        }
    }
    f.add_op(Op::Constant { value: words }, &[], vec![], &Origin::default()).expect("a constant");
    let b = Dim::symbol("B");
    let dims = [
        Dim::Known(5),
        Dim::symbol("f32"),
        Dim::symbol("true"),
        &Dim::symbol("nan") - &Dim::Known(3),
        &Dim::Known(-2) * &b,
        (&b + &Dim::ONE).floordiv(&Dim::Known(2)).maximum(&Dim::symbol("C")),
        &Dim::Known(i64::MIN) * &b,
    ];
    let mut attributes = BTreeMap::from([
        (
            "f".to_owned(),
            AttrValue::List(
                [0.1, -0.0, f64::INFINITY, f64::NEG_INFINITY, 1e300, f64::NAN, -f64::NAN].map(AttrValue::Float).into(),
            ),
        ),
        ("i".to_owned(), AttrValue::List([0, -1, i64::MIN, i64::MAX].map(AttrValue::Int).into())),
        ("dims".to_owned(), AttrValue::List(dims.map(AttrValue::Dim).into())),
        ("odd name".to_owned(), AttrValue::Word("max".into())),
        ("d".to_owned(), AttrValue::DType(DType::BF16)),
        ("none".to_owned(), AttrValue::List(vec![])),
        ("t".to_owned(), AttrValue::Tensor(bytes(DType::F32, 80))),
        ("yes".to_owned(), AttrValue::Bool(true)),
        ("s".to_owned(), AttrValue::Str("}{\";\r".into())),
    ]);
    let map = ValueType::Map(
        DType::Str,
        Box::new(ValueType::Optional(Box::new(TensorType::new(DType::I64, vec![&b * &b]).into()))),
    );
    attributes.insert("type".into(), AttrValue::Type(ValueType::Sequence(Box::new(map.clone()))));
    attributes.insert("dict".into(), AttrValue::Dict(attributes.clone()));
    let onnx = Op::Onnx { domain: String::new(), op_type: "Odd".into(), since_version: 3, attributes };
    let node = f.add_typed(onnx, &[sum], vec![map, ValueType::Unknown], vec![], &Origin::named(""));
    f.add_typed(Op::Call { function: "none".into() }, &[], vec![], vec![], &Origin::named("call"));
    f.add_output("y", crate::Value { node: branch, result: 0 });
    f.add_output("z", crate::Value { node, result: 1 });
    module.functions.insert("infer".into(), f);
    module.functions.insert("odd name".into(), Function::new("odd name"));
    module
}

#[test]
fn every_part_of_a_module_survives() {
    let module = everything();
    let read = round_trip(&module);
    assert_eq!(read.params, module.params);
    assert_eq!(read.source, module.source);
    let (f, g) = (&module.functions["infer"], &read.functions["infer"]);
    assert_eq!((&f.symbols, &f.donations), (&g.symbols, &g.donations));
    assert_eq!((f.requirements().len(), f.requirements()), (3, g.requirements()));
    for (a, b) in f.toposort().expect("no cycle").into_iter().zip(g.toposort().expect("no cycle")) {
        let (a, b) = (f.node(a), g.node(b));
        assert_eq!((&a.origin, a.numerics, a.results()), (&b.origin, b.numerics, b.results()));
        // NaN attributes differ from themselves; texts don't.
        assert_eq!(format!("{:?}", a.op), format!("{:?}", b.op));
    }
}

#[test]
fn files_share_one_safetensors_and_are_mapped() {
    let folder = tempfile::tempdir().expect("a folder");
    let module = everything();
    let path = folder.path().join("m.frit");
    write_file(&module, &path).expect("written");
    assert!(folder.path().join("m.safetensors").exists());
    let read = read_file(&path).expect("read");
    assert_eq!(to_inline_text(&read), to_inline_text(&module));
    // What is mapped can be written over.
    write_file(&read, &path).expect("written again");
    assert_eq!(to_inline_text(&read_file(&path).expect("read again")), to_inline_text(&module));

    let mut pool = ConstantPool::default();
    let options = PrintOptions { constants_file: Some("constants.safetensors".into()), ..PrintOptions::default() };
    let texts = [print(&module, &options, &mut pool), print(&read, &options, &mut pool)];
    assert_eq!(texts[0], texts[1]);
    pool.write(&folder.path().join("constants.safetensors")).expect("written");
    for (i, text) in texts.iter().enumerate() {
        let path = folder.path().join(format!("{i}.frit"));
        std::fs::write(&path, text).expect("written");
        assert_eq!(to_inline_text(&read_file(&path).expect("read")), to_inline_text(&module));
    }
}

#[test]
fn a_constants_file_can_not_lead_elsewhere() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, expected) in [("../x.safetensors", "plain file name"), ("/etc/hostname", "plain"), ("none", "none:")] {
        let text = format!("constants \"{name}\"\nparam \"w\" = f32[2] file(\"w\")");
        let error = from_text(&text, &FolderConstants::new(folder.path())).expect_err("refused").to_string();
        assert!(error.contains(expected), "{error}");
    }
    std::fs::write(folder.path().join("bad"), b"\xff\xff\xff\xff\xff\xff\xff\x7f{}").expect("written");
    let text = "constants \"bad\"\nparam \"w\" = f32[2] file(\"w\")";
    let error = from_text(text, &FolderConstants::new(folder.path())).expect_err("refused").to_string();
    assert!(error.contains("no safetensors file"), "{error}");
}

#[test]
fn a_text_written_by_hand_is_filled_in() {
    let text = "; test simplify\nfunc @f(%x \"x\": f32[B, 2]) {\n  %h = add(%x, %x)\n  %half = constant {value = f32[2] dense(0.5, 1)}\n  return \"y\" = %h\n}\n";
    let module = from_text(text, &NoConstants).unwrap_or_else(|e| panic!("{e}\n{}", e.excerpt()));
    let options = PrintOptions { origins: false, ..PrintOptions::inline() };
    let printed = print(&module, &options, &mut ConstantPool::default());
    let expected = "frit 1\n\nfunc @f(%0 \"x\": f32[B, 2]) {\n  %1 = add(%0, %0) : f32[B, 2]\n  %2 = constant {value = f32[2] dense(0.5, 1.0)} : f32[2]\n  return \"y\" = %1\n}\n";
    assert_eq!(printed, expected);
    assert!(to_text(&module).text.contains("%1 = add(%0, %0) : f32[B, 2] at \"line 3\""));
}

#[test]
fn errors_name_the_place() {
    let cases = [
        ("func @f(%0 \"x\": f32[2]) {\n  %1 = ad(%0, %0)\n}", "t:2:8: `ad` is no op"),
        ("func @f(%0 \"x\": f32[2]) {\n  %1 = add(%0, %2)\n}", "t:2:16: `%2` is not defined above"),
        ("func @f(%0 \"x\": f32[2]) {\n  %1 = neg(%0) : f32[3]\n}", "t:2:8: `neg` gives f32[2], the text says f32[3]"),
        ("func @f(%0 \"x\": f33[2]) {", "t:1:17: expected a type, found `f33`"),
        ("param \"w\" = f32[2] dense(1.0)", "t:1:20: a f32 tensor of shape [2] takes 8, not 4"),
        ("param \"w\" = i8[1] dense(300)", "t:1:25: expected an element of type i8, found `300`"),
        (
            "param \"w\" = f32[99999999999] splat(0.0)",
            "t:1:30: a splat of 99999999999 elements is too large for a text",
        ),
        ("param \"w\" = f32[2] file(\"w\")", "t:1:25: no constants file to find \"w\" in"),
        ("frit 9", "t:1:1: this is version 9 of the format; version 1 is read here"),
        ("source \"abc", "t:1:8: the quoted text is not closed on its line"),
        ("func @f() {", "t:1:12: expected an op, `return` or `}`, found the end of the text"),
    ];
    for (text, expected) in cases {
        assert_eq!(parse("t", text, &NoConstants, true).expect_err("refused").to_string(), expected);
    }
    let error = parse("t", cases[1].0, &NoConstants, true).expect_err("refused");
    assert_eq!(error.excerpt(), "2 |   %1 = add(%0, %2)\n  |                ^^");
}

#[test]
fn nesting_is_limited_and_long_sums_are_quick() {
    let deep = 100_000;
    let texts = [
        format!("func @f(%0 \"x\": {}", "seq<".repeat(deep)),
        format!("func @f(%0 \"x\": f32[{}", "min(".repeat(deep)),
        format!("func @f() {{ composite {{attributes = {}", "[".repeat(deep)),
        format!("func @f() {{ composite {{a = {}", "{a = ".repeat(deep)),
        format!("func @f() {{ {}", "fusion region() {".repeat(deep)),
    ];
    for text in texts {
        let error = from_text(&text, &NoConstants).expect_err("refused").to_string();
        assert!(error.contains("nest deeper than 64"), "{error}");
    }
    let sum: Vec<String> = (0..20_000).map(|i| format!("s{i}")).collect();
    assert!(sum.join(" + ").parse::<Dim>().is_ok());
    let product = vec!["s"; 20_000].join("*");
    assert!(product.parse::<Dim>().is_ok());
    let sums: Vec<String> = (0..200).map(|i| format!("a{i} + b{i}")).collect();
    let text =
        format!("func @f(%0 \"x\": f32[]) {{ %1 = broadcast(%0) {{dims = [{}], axes = []}} return }}", sums.join(", "));
    assert!(from_text(&text, &NoConstants).is_err(), "2^200 terms");
}

#[test]
fn dims_read_back() {
    for text in ["0", "-7", "B", "4704*B", "floordiv(B + 2, 2)", "-B + 1", "-3*A + A*B + max(A, mod(B, 3))"] {
        let dim: Dim = text.parse().expect("an extent");
        assert_eq!(dim.to_string(), text);
    }
    assert!("9223372036854775808".parse::<Dim>().is_err());
    assert_eq!("-9223372036854775808".parse::<Dim>(), Ok(Dim::Known(i64::MIN)));
    assert_eq!("floordiv(-9223372036854775808*B, -1)".parse::<Dim>().expect("no overflow").eval(&|_| Some(0)), Some(0));
}

#[test]
fn a_drawing_has_every_op() {
    let module = everything();
    let f = &module.functions["infer"];
    let drawing = dot(f);
    assert_eq!(drawing.matches("fillcolor=\"#").count(), f.len() + 4, "two regions of two ops each");
    assert_eq!(drawing.matches('{').count(), drawing.matches('}').count());
}

#[test]
fn random_modules_survive() {
    for seed in 0..400 {
        let module = crate::testing::module(seed, 5 + seed as usize % 40).expect("well typed");
        let read = round_trip(&module);
        assert_eq!(read.params, module.params);
        let (f, g) = (module.entry().expect("a function"), read.entry().expect("a function"));
        assert_eq!((f.len(), &f.symbols), (g.len(), &g.symbols));
        for (a, b) in f.toposort().expect("no cycle").into_iter().zip(g.toposort().expect("no cycle")) {
            let (a, b) = (f.node(a), g.node(b));
            assert_eq!((&a.op, &a.origin, a.results()), (&b.op, &b.origin, b.results()));
        }
    }
}

/// Bytes cut, doubled, swapped or overwritten with pieces of the language.
fn mutate(rng: &mut crate::testing::Rng, text: &str) -> String {
    const PIECES: &[&str] = &[
        "(",
        ")",
        "{",
        "}",
        "[",
        "]",
        ",",
        "=",
        "-",
        "->",
        ":",
        "%0",
        "%1",
        "#max",
        "\"",
        "\\",
        ";",
        "9223372036854775808",
        "-9223372036854775808",
        "0",
        "1",
        "99999999999",
        "0x7fc00001",
        "1e999",
        "nan",
        "f32[",
        "f64[B]",
        "seq<",
        "if",
        "loop",
        "region(",
        "return",
        "floordiv(",
        "min(",
        "mod(",
        "*",
        "+",
        "splat(",
        "dense(",
        "file(",
        "\u{1f600}",
        "symbol B",
        "donate 9 -> 9",
        "math(",
        "at none",
        "from",
        "func @g() {",
        "param \"p\" = i8[4]",
        "axis",
        "true",
    ];
    let mut chars: Vec<char> = text.chars().collect();
    for _ in 0..1 + rng.below(4) {
        let (a, b) = (rng.below(chars.len() + 1), rng.below(chars.len() + 1));
        let (a, b) = (a.min(b), b.min(a + 1 + rng.below(30)).max(a));
        match rng.below(4) {
            0 => drop(chars.drain(a..b)),
            1 => {
                let copy = chars[a..b].to_vec();
                let to = rng.below(chars.len() + 1);
                chars.splice(to..to, copy);
            }
            2 => {
                let piece = PIECES[rng.below(PIECES.len())];
                chars.splice(a..a, piece.chars());
            }
            _ => {
                let piece = PIECES[rng.below(PIECES.len())];
                chars.splice(a..b, piece.chars());
            }
        }
    }
    chars.into_iter().collect()
}

#[test]
fn damaged_texts_are_refused_or_read_but_never_panic() {
    let mut rng = crate::testing::Rng::new(7);
    let mut texts: Vec<String> =
        (0..10).map(|seed| to_inline_text(&crate::testing::module(seed, 12).expect("well typed"))).collect();
    texts.push(to_inline_text(&everything()));
    let (mut read, mut refused) = (0, 0);
    for round in 0..4000 {
        let text = mutate(&mut rng, &texts[round % texts.len()]);
        for checked in [true, false] {
            match parse("damaged", &text, &NoConstants, checked) {
                Ok(module) => {
                    read += 1;
                    // What was read prints, and prints the same again.
                    let printed = to_inline_text(&module);
                    let again = parse("printed", &printed, &NoConstants, checked);
                    let again = again.unwrap_or_else(|e| panic!("{e}\n{}\n{text}", e.excerpt()));
                    assert_eq!(to_inline_text(&again), printed);
                    module.functions.values().for_each(|f| drop(dot(f)));
                }
                Err(e) => {
                    refused += 1;
                    assert!(e.excerpt().lines().count() == 2, "{e}");
                }
            }
        }
    }
    assert!(read > 100 && refused > 3000, "{read} read, {refused} refused");
}
