//! Fuel: however many rewrites are made, in strict mode the program gives the same bits, so bisecting the number finds the
//! rewrite after which it does not. What is not optional spends none, whatever pipeline it is part of.

use frit_compiler::driver::{Options, compile};
use frit_ir::HostValue;
use frit_ir::text::{NoConstants, from_text};
use frit_passes::manager::{Level, Math};
use frit_runtime::Model;
use frit_tests::Case;
use frit_tests::case::differing;

/// What canonical rules and inlining are about: powers, a product with a short vector, a function that is called.
const CANONICAL: &str = "frit 1
func @infer(%x \"x\": f32[4, 3], %w \"w\": f32[3]) {
  %two = constant {value = f32[4, 3] splat(2)}
  %minus = constant {value = f32[4, 3] splat(-1)}
  %a = pow(%x, %two)
  %b = pow(%x, %minus)
  %c = add(%a, %b)
  %d = dot_general(%c, %w) {accumulate = f32, lhs_batch = [], lhs_contract = [1], rhs_batch = [], rhs_contract = [0]}
  %e = call(%x) {function = \"cube\"} : f32[4, 3]
  return \"y\" = %d, \"z\" = %e
}
func @cube(%x \"x\": f32[4, 3]) {
  %three = constant {value = f32[4, 3] splat(3)}
  %y = pow(%x, %three)
  return \"y\" = %y
}
";

/// Random modules that are compiled with every amount of fuel.
const MODULES: u64 = if cfg!(debug_assertions) { 4 } else { 40 };

/// The values under options, and how many rewrites were made.
fn values(case: &Case, options: &Options) -> (Vec<HostValue>, u64) {
    let compiled = compile(case.module.clone(), options).unwrap_or_else(|e| panic!("{e}\n{}", case.text()));
    let rewrites = compiled.report.rewrites;
    let model = Model::new(compiled.plan).expect("a model");
    (case.run_on(&model).unwrap_or_else(|e| panic!("{e}\n{}", case.text())), rewrites)
}

/// Compiles with 0, 1, .. rewrites and all; gives how many there are.
fn bisects(case: &Case) -> u64 {
    let strict = Options { math: Math::Strict, ..Options::default() };
    let (expected, total) = values(case, &Options { level: Level::O3, ..strict.clone() });
    let texts = [None, Some("legalize,shape,simplify,fuse"), Some("simplify,strength,cse"), Some("fuse")];
    for passes in texts.map(|text| text.map(str::to_owned)) {
        let options = Options { passes: passes.clone(), ..strict.clone() };
        let (found, total) = values(case, &options);
        if let Some(output) = differing(&expected, &found) {
            panic!("{passes:?}: output {output} has other bits\n{}", case.text());
        }
        for fuel in 0..total {
            let (found, spent) = values(case, &Options { fuel: Some(fuel), ..options.clone() });
            assert_eq!(spent, fuel, "{passes:?}\n{}", case.text());
            if let Some(output) = differing(&expected, &found) {
                panic!("{passes:?}, fuel {fuel} of {total}: output {output} has other bits\n{}", case.text());
            }
        }
    }
    total
}

#[test]
fn every_amount_of_fuel_gives_the_same_bits() {
    let rewrites: u64 = (1..=MODULES)
        .map(|seed| bisects(&Case::random(seed, super::random::size(seed)).expect("a random module")))
        .sum();
    assert!(rewrites > MODULES * 4, "{rewrites} rewrites in {MODULES} modules");
}

#[test]
fn canonical_forms_need_no_fuel() {
    let module = from_text(CANONICAL, &NoConstants).unwrap_or_else(|e| panic!("{e}"));
    let case = Case::fed(module, 7).expect("an input");
    bisects(&case);
}
