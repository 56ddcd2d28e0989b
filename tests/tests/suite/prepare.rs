//! What follows from constants alone is computed once, when a model is made.

use frit_compiler::cpu::Vectors;
use frit_compiler::plan::{Plan, Step};
use frit_ir::text::{NoConstants, from_text};
use frit_ir::{Module, Param, Tensor};
use frit_passes::manager::{Level, Math};
use frit_tests::{Case, within};

/// A product with a weight whose axes have to be turned first, in a function, a branch and a loop's body.
const TEXT: &str = r#"frit 1
param "w" = f32[6, 9, 4] splat(0)
func @infer(%x "x": f32[B, 6, 4], %c "c": bool[]) {
  %w = param {name = "w"} : f32[6, 9, 4]
  %y = dot_general(%x, %w) {lhs_batch = [], rhs_batch = [], lhs_contract = [1, 2], rhs_contract = [0, 2], accumulate = f32}
  %z = if(%c, %x) : f32[B, 9]
    region(%x "x": f32[B, 6, 4]) {
      %w = param {name = "w"} : f32[6, 9, 4]
      %y = dot_general(%x, %w) {lhs_batch = [], rhs_batch = [], lhs_contract = [1, 2], rhs_contract = [0, 2], accumulate = f32}
      return "z" = %y
    }
    region(%x "x": f32[B, 6, 4]) {
      %w = param {name = "w"} : f32[6, 9, 4]
      %s = reduce(%x) {axes = [1, 2], kind = #sum}
      %t = broadcast(%s) {dims = [B, 9], axes = [0]}
      return "z" = %t
    }
  %r = add(%y, %z)
  return "r" = %r
}
"#;

fn module() -> Module {
    let mut module = from_text(TEXT, &NoConstants).expect("a text that reads");
    let numbers: Vec<f32> = (0..6 * 9 * 4).map(|i| (i % 17) as f32 - 8.0).collect();
    let value = Tensor::f32(&[6, 9, 4], &numbers).expect("a tensor");
    module.params.insert("w".to_owned(), Param { value, ..module.params["w"].clone() });
    module
}

/// Names of the kernels that runs start, branches included.
fn kernels(plan: &Plan) -> Vec<&str> {
    let run = plan.programs.iter().filter(|p| p.name != "preparation").flat_map(|p| &p.steps);
    run.filter_map(|step| match step {
        Step::Kernel { kernel, .. } => Some(plan.kernels[kernel.index()].name.as_str()),
        _ => None,
    })
    .collect()
}

#[test]
fn turned_weights_are_prepared() {
    let case = Case::fed(module(), 3).expect("an input of numbers");
    let bounds = case.bounds(0.0).expect("the reference runs");
    for level in [Level::O0, Level::O3] {
        let model = case.compile(level, Math::Strict, Vectors::Widest).expect("a model");
        let started = kernels(model.plan());
        assert!(!started.contains(&"transpose") && started.contains(&"add"), "{level:?}: {started:?}");
        assert!(model.plan().preparation.is_none(), "it has run");
        for _ in 0..2 {
            within(&case.run_on(&model).expect("a run"), &bounds, 1.0).expect("the reference's values");
        }
        model.plan().check().expect("a sound plan");
    }
}
