//! The gradient of an extreme of all looks at the elements of those rows only that have one: whatever rows are passed
//! over, results are the reference's.

use std::sync::Arc;

use frit_compiler::cpu::Vectors;
use frit_ir::model::AfKan;
use frit_ir::model::train::{Loss, Recipe, Update, train_module};
use frit_ir::text::{NoConstants, from_text};
use frit_passes::manager::{Level, Math};
use frit_runtime::pool::Pool;
use frit_tests::{Case, within};

/// Each element's share of 1 where it is the largest of all, and how many are; `y` follows from `x`.
fn shares(rows: &str, y: &str) -> String {
    format!(
        "frit 1\nfunc @infer(%x \"x\": f32[{rows}, 7, 6]) {{\n{y}  \
         %all = reduce(%y) {{axes = [0, 1, 2], kind = #max}}\n  \
         %row = reduce(%y) {{axes = [1, 2], kind = #max}}\n  \
         %allr = broadcast(%all) {{dims = [{rows}], axes = []}}\n  \
         %has = eq(%row, %allr)\n  %none = not(%has)\n  \
         %alls = broadcast(%all) {{dims = [{rows}, 7, 6], axes = []}}\n  %is = eq(%y, %alls)\n  \
         %one = constant {{value = f32[] dense(1.0)}}\n  %ones = broadcast(%one) {{dims = [{rows}, 7, 6], axes = []}}\n  \
         %zero = constant {{value = f32[] dense(0.0)}}\n  %zeros = broadcast(%zero) {{dims = [{rows}, 7, 6], axes = []}}\n  \
         %zeror = broadcast(%zero) {{dims = [{rows}], axes = []}}\n  \
         %each = select(%is, %ones, %zeros)\n  %count = reduce(%each) {{axes = [1, 2], kind = #sum}}\n  \
         %counted = select(%none, %zeror, %count) {{likely = true}}\n  \
         %n = reduce(%counted) {{axes = [0], kind = #sum}}\n  \
         %ns = broadcast(%n) {{dims = [{rows}, 7, 6], axes = []}}\n  %share = div(%ones, %ns)\n  \
         %given = select(%is, %share, %zeros)\n  %gap = sub(%alls, %y)\n  \
         return \"given\" = %given, \"n\" = %n, \"gap\" = %gap\n}}\n"
    )
}

#[test]
fn rows_without_an_extreme_are_passed_over() {
    let pool = Arc::new(Pool::new(2));
    // One element is the largest; most rows hold some of them; all elements are equal.
    // Dear enough to be kept from one pass over a row to the next.
    let few = "  %q = mul(%x, %x)\n  %r = sqrt(%q)\n  %s = add(%r, %q)\n  %t = sqrt(%s)\n  %y = sub(%x, %t)\n";
    let many = "  %c = constant {value = f32[] dense(0.25)}\n  %b = broadcast(%c) {dims = [R, 7, 6], axes = []}\n  \
                %m = min(%x, %b)\n  %y = add(%m, %b)\n";
    let all = "  %y = sub(%x, %x)\n";
    for y in [few, many, all] {
        let fixed = from_text(&shares("150", &y.replace('R', "150")), &NoConstants).expect("a module");
        let inputs = Case::fed(fixed.clone(), 3).expect("an input of numbers").inputs;
        let open = from_text(&shares("B", &y.replace('R', "B")), &NoConstants).expect("a module");
        for module in [fixed, open] {
            let case = Case { inputs: inputs.clone(), ..Case::fed(module, 3).expect("an input of numbers") };
            for (math, slack) in [(Math::Strict, 1.0), (Math::Fast, 8.0)] {
                let bounds = case.bounds(0.0).expect("the reference runs");
                for level in [Level::O0, Level::O3] {
                    let found = case.run(level, math, Vectors::Widest, &pool).expect("it runs");
                    within(&found, &bounds, slack).unwrap_or_else(|e| panic!("{level:?} {math:?}\n{y}{e:?}"));
                }
            }
        }
    }
}

#[test]
fn steps_of_networks_have_the_same_bits_at_every_level() {
    let pool = Arc::new(Pool::new(2));
    let network = AfKan { layers: vec![6, 5, 4], ..AfKan::default() }.module(1).expect("a network");
    let recipe = Recipe {
        loss: Loss::Mse,
        output: None,
        update: Update::Sgd { momentum: false, nesterov: false },
        decay: Default::default(),
        clip_norm: None,
        frozen: Vec::new(),
    };
    let mut module = train_module(&network, &recipe).expect("a training step");
    module.functions.retain(|name, _| name == "train_step");
    let case = Case::fed(module, 5).expect("inputs of numbers");
    let plain = case.run(Level::O0, Math::Strict, Vectors::Groups(4), &pool).expect("it runs");
    let fused = case.run(Level::O3, Math::Strict, Vectors::Widest, &pool).expect("it runs");
    for (i, (plain, fused)) in plain.iter().zip(&fused).enumerate() {
        let [plain, fused] = [plain, fused].map(|v| v.tensor().expect("a tensor").bytes());
        assert_eq!(plain, fused, "output {i}");
    }
}
