//! Pipelines as text, fuel, counters.

use frit_ir::builder::Builder;
use frit_ir::types::{DType, TensorType};
use frit_ir::{BinaryOp, Function, Module, Origin, UnaryOp};

use super::*;

fn doubled() -> Module {
    let mut f = Function::new("infer");
    let x = f.add_input("x", TensorType::known(DType::F32, &[4]));
    let mut b = Builder::new(&mut f, Origin::named("t"));
    let first = b.unary(UnaryOp::Exp, x).expect("exp");
    let second = b.unary(UnaryOp::Exp, x).expect("exp");
    b.unary(UnaryOp::Neg, x).expect("neg");
    let y = b.binary(BinaryOp::Add, first, second).expect("add");
    f.add_output("y", y);
    Module::of(f)
}

#[test]
fn every_level_and_its_own_text_are_read() {
    for digit in 0..4 {
        let level = Level::from_digit(digit).expect("a level");
        let pipeline = Pipeline::parse(&format!("-O{digit}")).expect("a preset");
        assert_eq!(pipeline.to_string(), level.pipeline_text());
        assert_eq!(Pipeline::of(level).to_string(), pipeline.to_string());
    }
}

#[test]
fn mistakes_in_a_pipeline_are_named() {
    let said = |text: &str| Pipeline::parse(text).expect_err("refused").to_string();
    assert!(said("cse,dxe").starts_with("there is no pass `dxe`; passes are "));
    assert_eq!(said("cse(n=1)"), "pass `cse` has no option `n`; it has none");
    assert_eq!(said("cse dce"), "passes `cse dce`: expected `,` or the end, found `d` at character 5");
    assert_eq!(said("cse,"), "passes `cse,`: expected the name of a pass, found the end at character 5");
    assert!(said("fuse(max-ops=many)").contains("`many` is not a whole number"));
    assert!(said("fuse(max-ops)").contains("expected `=` after `max-ops`"));
    assert!(said("fuse(max-ops=1;)").contains("expected `,` or `)`, found `;`"));
}

#[test]
fn fuel_limits_rewrites_and_the_report_counts_them() {
    let pipeline = Pipeline::parse("cse, dce").expect("a pipeline");
    for fuel in 0..3u64 {
        let mut module = doubled();
        let options = Options { fuel: Some(fuel), ..Options::default() };
        let report = run(&mut module, &pipeline, &options).expect("runs");
        assert_eq!((report.rewrites, report.fuel_left), (fuel.min(2), Some(0)));
        assert_eq!(count_ops(&module), 4 - fuel.min(2) as usize);
    }
    let mut module = doubled();
    let report = run(&mut module, &pipeline, &Options::default()).expect("runs");
    assert_eq!(report.passes[0].fired.get("common-subexpression"), Some(&1));
    assert_eq!((report.passes[1].ops_before, report.passes[1].ops_after), (3, 2));
}

#[test]
fn canonicalizing_spends_no_fuel() {
    let squared = || {
        let mut f = Function::new("infer");
        let x = f.add_input("x", TensorType::known(DType::F32, &[4]));
        let mut b = Builder::new(&mut f, Origin::named("t"));
        let two = b
            .scalar(DType::F32, 2.0)
            .and_then(|two| b.broadcast_to(two, vec![frit_ir::Dim::Known(4)]))
            .expect("a constant");
        let y = b.binary(BinaryOp::Pow, x, two).expect("pow");
        f.add_output("y", y);
        Module::of(f)
    };
    for fuel in [Some(0), Some(1), None] {
        let mut module = squared();
        let pipeline = Pipeline::parse("canonicalize").expect("a pipeline");
        let report = run(&mut module, &pipeline, &Options { fuel, ..Options::default() }).expect("runs");
        assert_eq!(report.passes[0].fired.get("pow-two"), Some(&1), "{:?}", report.passes[0].fired);
        assert_eq!((report.rewrites, report.fuel_left), (0, fuel));
    }
}

#[test]
fn required_passes_are_added_where_types_are_known() {
    let of = |text: &str| Pipeline::parse(text).expect("a pipeline").with_required().to_string();
    assert_eq!(of("legalize,shape,cse"), "legalize,shape,canonicalize,grad,cse");
    assert_eq!(of("fuse(max-ops=2)"), "canonicalize,grad,fuse(max-ops=2)");
    assert_eq!(of("cse,shape"), "canonicalize,grad,cse,shape");
    assert_eq!(of("shape,canonicalize,cse"), "shape,canonicalize,grad,cse");
    for digit in 0..4 {
        let level = Level::from_digit(digit).expect("a level");
        assert_eq!(of(&format!("O{digit}")), level.pipeline_text());
    }
}

#[test]
fn a_dump_holds_what_changed_and_reads_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let options = Options { dump_dir: Some(dir.path().to_owned()), ..Options::default() };
    let pipeline = Pipeline::parse("cse,cse,dce").expect("a pipeline");
    let mut module = doubled();
    run(&mut module, &pipeline, &options).expect("runs");
    let mut names: Vec<String> = std::fs::read_dir(dir.path())
        .expect("lists")
        .map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort_unstable();
    let stems = ["00-import", "01-cse", "03-dce"];
    let mut expected: Vec<String> = stems.iter().flat_map(|s| [format!("{s}.dot"), format!("{s}.frit")]).collect();
    expected.extend(["constants.safetensors".to_owned(), "summary.md".to_owned()]);
    assert_eq!(names, expected);
    let last = frit_ir::text::read_file(&dir.path().join("03-dce.frit")).expect("reads back");
    assert_eq!(frit_ir::text::to_inline_text(&last), frit_ir::text::to_inline_text(&module));
    let summary = std::fs::read_to_string(dir.path().join("summary.md")).expect("a summary");
    assert!(summary.contains("| cse | unchanged |") && summary.contains("common-subexpression 1"), "{summary}");
}
