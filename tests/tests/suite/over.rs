//! Values that take over the memory of others: no result shows it.
//!
//! The same plan runs with every value in memory of its own: all bits are equal, strict and fast, on one thread and two.

use std::sync::Arc;

use frit_compiler::cpu::Vectors;
use frit_compiler::driver::{Options, compile};
use frit_compiler::plan::{Place, Plan, Step};
use frit_ir::model::AfKan;
use frit_ir::model::train::{Loss, Recipe, Update, train_module};
use frit_ir::testing::Rng;
use frit_ir::{DType, HostValue, Module, Op, Tensor, text};
use frit_passes::manager::{Level, Math};
use frit_runtime::Model;
use frit_runtime::pool::Pool;
use frit_tests::Case;
use frit_tests::case::differing;

use super::random::{number, size};

/// How many values lie over another one.
fn overs(plan: &Plan) -> usize {
    let slots = plan.programs.iter().flat_map(|p| &p.slots);
    slots.filter(|s| matches!(s.place, Place::Over(_))).count()
}

/// The plan with all values of the arena side by side.
fn side_by_side(mut plan: Plan) -> Plan {
    for program in &mut plan.programs {
        let last = program.steps.len() as u32;
        for slot in &mut program.slots {
            if matches!(slot.place, Place::Arena { .. } | Place::Over(_)) {
                slot.place = Place::Arena { first: 0, last };
            }
        }
    }
    plan
}

/// Compiles a module, runs it with and without values over others; how many there are.
fn same(case: &Case, options: &Options) -> Result<usize, String> {
    let compiled = compile(case.module.clone(), options).map_err(|e| e.to_string())?;
    compiled.plan.check()?;
    let count = overs(&compiled.plan);
    if count == 0 {
        return Ok(0);
    }
    let apart = side_by_side(compiled.plan.clone());
    apart.check()?;
    let model = |plan: Plan| Model::new(plan).map_err(|e| e.to_string());
    let (model, apart) = (model(compiled.plan)?, model(apart)?);
    let expected = case.run_on(&apart.with_pool(Arc::new(Pool::new(1))))?;
    for threads in [1, 2] {
        let found = case.run_on(&model.clone().with_pool(Arc::new(Pool::new(threads))))?;
        if let Some(output) = differing(&expected, &found) {
            let (level, math) = (options.level, options.math);
            return Err(format!("{level:?}, {math:?}, {threads} threads: output {output} differs\n{}", case.text()));
        }
    }
    Ok(count)
}

#[test]
fn values_over_others_never_show_in_random_modules() {
    let (count, start) = (number("FRIT_RANDOM_MODULES", 2000) / 4, number("FRIT_RANDOM_SEED", 1));
    let mut found = 0;
    for seed in start..start + count {
        let case = Case::random(seed, size(seed) + 4).expect("a module that type-checks");
        let vectors = [Vectors::Widest, Vectors::Groups(8)][seed as usize % 2];
        for (level, math) in [(Level::O0, Math::Strict), (Level::O3, Math::Strict), (Level::O3, Math::Fast)] {
            let options = Options { level, math, vectors, ..Options::default() };
            found += same(&case, &options).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        }
    }
    println!("{found} values of {count} random modules lie over another one");
    assert!(found as u64 > count / 4, "{found}");
}

/// A training step whose rows are read by reductions before they are written over, extents known or not.
#[test]
fn a_training_step_has_the_same_bits() {
    let module = AfKan { layers: vec![40, 24, 5], ..AfKan::default() }.module(0).expect("a network");
    let recipe = Recipe {
        loss: Loss::CrossEntropy { smoothing: 0.1 },
        output: None,
        update: Update::Adam { decoupled: true, beta2: 0.999, epsilon: 1e-8 },
        decay: module.params.keys().map(|n| (n.clone(), 1e-4)).collect(),
        clip_norm: None,
        frozen: vec![],
    };
    let made = train_module(&module, &recipe).expect("a training step");
    let mut step = Module::of(made.functions["train_step"].clone());
    step.params = made.params.clone();
    let rng = &mut Rng::new(7);
    let batch = 37;
    let f = step.entry().expect("a function");
    let inputs: Vec<HostValue> = f
        .input_values()
        .map(|v| {
            let ty = f.ty(v).tensor().expect("a tensor");
            let shape: Vec<usize> = ty.dims.iter().map(|d| d.known().map_or(batch, |n| n as usize)).collect();
            let n = shape.iter().product::<usize>();
            let name = if let Op::Input { name, .. } = f.op(v) { name.as_str() } else { "" };
            let value = match (made.params.get(name), ty.dtype) {
                (Some(param), _) => param.value.clone(),
                (None, DType::I64) => Tensor::i64(&shape, &vec![3; n]).expect("labels"),
                (None, _) => {
                    let numbers: Vec<f32> = (0..n).map(|_| rng.below(2001) as f32 / 1000.0).collect();
                    Tensor::f32(&shape, &numbers).expect("numbers")
                }
            };
            HostValue::Tensor(value)
        })
        .collect();
    let case = Case { module: step, inputs };
    for dims in [vec![], vec![("B".to_owned(), batch)]] {
        for math in [Math::Strict, Math::Fast] {
            let options = Options { level: Level::O3, math, dims: dims.clone(), ..Options::default() };
            let found = same(&case, &options).unwrap_or_else(|e| panic!("{e}"));
            assert!(found > 8, "{math:?}: {found} values");
        }
    }
}

fn plan(source: &str, level: Level) -> Plan {
    let module = text::from_text(source, &text::NoConstants).expect("a text that reads");
    let options = Options { level, math: Math::Strict, ..Options::default() };
    compile(module, &options).expect("a plan").plan
}

/// A chain of kernels is one slot; what is read once more, turned or of another size is not taken over.
#[test]
fn values_take_over_what_nothing_needs_any_more() {
    let program = |body: &str| {
        format!("frit 1\nfunc @infer(%0 \"x\": f32[M, N]) {{\n  %1 = exp(%0)\n{body}  return \"y\" = %9\n}}\n")
    };
    let chain = program("  %2 = sin(%1)\n  %3 = tanh(%2)\n  %4 = cos(%3)\n  %9 = neg(%4)\n");
    let made = plan(&chain, Level::O0);
    // Of five kernels the last writes an output, the three before that take over.
    assert_eq!((overs(&made), made.programs[0].steps.len()), (3, 5));
    let in_arena = |p: &Plan| p.programs[0].slots.iter().filter(|s| matches!(s.place, Place::Arena { .. })).count();
    assert_eq!(in_arena(&made), 2);
    let refused = [
        program("  %2 = sin(%1)\n  %9 = add(%1, %2)\n"),
        program("  %2 = transpose(%1) {perm = [1, 0]}\n  %9 = neg(%2)\n"),
        program(
            "  %2 = slice(%1) {sizes = [M, N], starts = [0, N - 1], steps = [1, -1]} : f32[M, N]\n  %9 = neg(%2)\n",
        ),
        program("  %2 = reduce(%1) {axes = [1], kind = #sum} : f32[M]\n  %9 = neg(%2)\n"),
        program("  %2 = cast(%1) {saturate = false, to = f64} : f64[M, N]\n  %9 = neg(%2)\n"),
    ];
    for source in &refused {
        let made = plan(source, Level::O0);
        assert_eq!(overs(&made), 0, "{source}");
        assert!(made.programs[0].steps.iter().all(|s| matches!(s, Step::Kernel { .. })));
    }
}
