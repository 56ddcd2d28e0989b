//! Reductions over outer axes take many columns at once, and give the bits of one column after the other.

use std::sync::Arc;

use frit_compiler::cpu::Vectors;
use frit_ir::order::tree_reduce;
use frit_ir::text::{NoConstants, from_text};
use frit_passes::manager::{Level, Math};
use frit_runtime::pool::Pool;
use frit_tests::{Case, within};

fn case(body: &str, inputs: &str) -> Case {
    let module = from_text(&format!("frit 1\nfunc @infer({inputs}) {{\n{body}}}\n"), &NoConstants).expect("a module");
    Case::fed(module, 7).expect("an input of numbers")
}

#[test]
fn columns_have_the_bits_of_the_documented_order() {
    let pool = Arc::new(Pool::new(2));
    let body = "  %s = reduce(%x) {axes = [0], kind = #sum}\n  %p = reduce(%x) {axes = [0], kind = #prod}\n  \
                %m = reduce(%x) {axes = [0], kind = #min}\n  return \"s\" = %s, \"p\" = %p, \"m\" = %m\n";
    for (rows, columns) in [(5usize, 16usize), (19, 50), (64, 784), (1030, 17), (4097, 300), (9000, 33)] {
        for shape in [format!("{rows}, {columns}"), format!("n, {columns}")] {
            let fixed = from_text(
                &format!("frit 1\nfunc @infer(%x \"x\": f32[{rows}, {columns}]) {{\n{body}}}\n"),
                &NoConstants,
            );
            let inputs = Case::fed(fixed.expect("a module"), 7).expect("an input of numbers").inputs;
            let case = Case { inputs, ..case(body, &format!("%x \"x\": f32[{shape}]")) };
            let x = case.inputs[0].tensor().expect("a tensor").to_vec::<f32>();
            let column = |c: usize| x.iter().skip(c).step_by(columns).copied().collect::<Vec<f32>>();
            let expected: [Vec<f32>; 3] = [
                (0..columns).map(|c| tree_reduce(&column(c), 0.0, &|a, b| a + b)).collect(),
                (0..columns).map(|c| tree_reduce(&column(c), 1.0, &|a, b| a * b)).collect(),
                (0..columns).map(|c| column(c).into_iter().fold(f32::INFINITY, f32::min)).collect(),
            ];
            for vectors in [Vectors::Widest, Vectors::Groups(4)] {
                let found = case.run(Level::O3, Math::Strict, vectors, &pool).expect("it runs");
                for (found, expected) in found.iter().zip(&expected) {
                    let found = found.tensor().expect("a tensor").to_vec::<f32>();
                    let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                    assert_eq!(bits(&found), bits(expected), "[{shape}] {vectors:?}");
                }
            }
        }
    }
}

#[test]
fn passes_over_columns_follow_one_another() {
    let pool = Arc::new(Pool::new(2));
    // Softmax over the first axis, and a mean over the middle one of three.
    let softmax = "  %m = reduce(%x) {axes = [0], kind = #max}\n  %b = broadcast(%m) {dims = [n, 40], axes = [1]}\n  \
                   %d = sub(%x, %b)\n  %e = exp(%d)\n  %s = reduce(%e) {axes = [0], kind = #sum}\n  \
                   %c = broadcast(%s) {dims = [n, 40], axes = [1]}\n  %y = div(%e, %c)\n  return \"y\" = %y, \"s\" = %s\n";
    let middle = "  %q = mul(%x, %x)\n  %s = reduce(%q) {axes = [1], kind = #sum}\n  \
                  %r = reshape(%s) {dims = [b, 1, 24]}\n  return \"y\" = %r\n";
    for (body, inputs) in [(softmax, "%x \"x\": f32[n, 40]"), (middle, "%x \"x\": f32[b, 37, 24]")] {
        let case = case(body, inputs);
        for (math, slack) in [(Math::Strict, 1.0), (Math::Fast, 8.0)] {
            let bounds = case.bounds(0.0).expect("the reference runs");
            let found = case.run(Level::O3, math, Vectors::Widest, &pool).expect("it runs");
            within(&found, &bounds, slack).expect("the reference's values");
        }
    }
}
