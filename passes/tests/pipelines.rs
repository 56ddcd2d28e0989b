//! Whole pipelines over real exports: the same results at every level, few kernels, quick.

#![allow(clippy::expect_used, clippy::panic, reason = "a test says what it expects")]

use std::path::{Path, PathBuf};
use std::time::Instant;

use frit_ir::reference;
use frit_ir::testing::{self, Rng};
use frit_ir::value::HostValue;
use frit_ir::{Module, Op, Tensor};
use frit_passes::fuse::kernel_shape;
use frit_passes::manager::{Level, Math, Options, Pipeline, run};

/// The folder of exported AF-KAN cases; `None`, and a line, where it is not there.
fn cases() -> Option<PathBuf> {
    let shared = std::env::var_os("FRIT_SHARED").map(PathBuf::from);
    let shared = shared.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"));
    let cases = shared.join("golden/afkan/cases");
    if cases.is_dir() {
        return Some(cases);
    }
    println!("skipped: {} is not there", cases.display());
    None
}

fn optimised(path: &Path, level: Level, math: Math) -> Module {
    let mut module = frit_ir::onnx::load(path).expect("imports");
    let options = Options { math, ..Options::default() };
    run(&mut module, &Pipeline::of(level), &options).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    frit_ir::verify::verify_core(&module).expect("core ops only");
    module
}

fn evaluate(module: &Module, inputs: &[HostValue]) -> Vec<Tensor> {
    let f = module.entry().expect("a function");
    let values = reference::eval_function(module, f, inputs, reference::Options::default()).expect("evaluates");
    values.iter().map(|v| v.tensor().expect("a tensor").clone()).collect()
}

fn kernels(module: &Module) -> usize {
    let f = module.entry().expect("a function");
    f.nodes().iter().filter(|id| matches!(f.node(**id).op, Op::Fusion {})).count()
}

#[test]
fn strict_results_of_real_exports_don_t_depend_on_the_level() {
    let Some(cases) = cases() else { return };
    let mut rng = Rng::new(1);
    let mut seen = 0;
    for name in ["small_fix_dynamo_static", "small_fix_dynamo_dyn", "small_fix_legacy_static", "small_fix_legacy_dyn"] {
        let path = cases.join(name).join("model.onnx");
        let plain = optimised(&path, Level::O0, Math::Strict);
        let f = plain.entry().expect("a function");
        let extents = testing::extents(&mut rng, f);
        // Symbols without facts get an extent all the same.
        let shape = |v| -> Option<Vec<usize>> {
            let ty = f.ty(v).tensor()?;
            let extent = |d: &frit_ir::Dim| d.eval(&|s| extents.get(s).copied().or(Some(4)));
            ty.dims.iter().map(|d| extent(d).and_then(|e| usize::try_from(e).ok())).collect()
        };
        let inputs: Vec<HostValue> = f
            .input_values()
            .map(|v| {
                let dtype = f.ty(v).tensor().expect("a tensor").dtype;
                let shape = shape(v).expect("extents");
                HostValue::Tensor(testing::tensor(&mut rng, dtype, &shape).expect("data"))
            })
            .collect();
        let expected = evaluate(&plain, &inputs);
        for level in [Level::O1, Level::O2, Level::O3] {
            let module = optimised(&path, level, Math::Strict);
            assert_eq!(evaluate(&module, &inputs), expected, "{name} at {level:?}");
            seen += kernels(&module);
        }
    }
    assert!(seen > 0, "nothing was fused");
}

#[test]
fn every_export_becomes_few_kernels() {
    let Some(cases) = cases() else { return };
    for entry in std::fs::read_dir(cases).expect("lists") {
        let path = entry.expect("an entry").path().join("model.onnx");
        let start = Instant::now();
        let module = optimised(&path, Level::O2, Math::Fast);
        let f = module.entry().expect("a function");
        let mut left = Vec::new();
        for id in f.toposort().expect("no cycle") {
            let node = f.node(id);
            match (&node.op, node.regions()) {
                (Op::Fusion {}, [body]) => {
                    kernel_shape(body).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
                }
                (Op::Input { .. } | Op::Constant { .. } | Op::Param { .. } | Op::Reshape { .. }, _) => {}
                (op, _) => left.push(op.name()),
            }
        }
        println!("{}: {} kernels, alone: {left:?}, {:?}", path.display(), kernels(&module), start.elapsed());
        // Two layers, each: basis, norm, extremes, sums, rows, product; one exporter scatters.
        assert!(kernels(&module) + left.len() <= 16, "{}: {} kernels, {left:?}", path.display(), kernels(&module));
    }
}
