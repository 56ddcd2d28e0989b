//! Size: code and the time to make it follow the size of a model, whatever its form.
//!
//! Each model here once took minutes, gigabytes or the stack; results are compared with the reference's, or with -O0
//! where the reference would be slow.

use std::sync::Arc;
use std::time::{Duration, Instant};

use frit_compiler::cpu::Vectors;
use frit_ir::Module;
use frit_ir::text::{NoConstants, from_text};
use frit_passes::manager::{Level, Math};
use frit_runtime::pool::Pool;
use frit_tests::case::differing;
use frit_tests::{Case, within};

/// Far more than any of them takes, also on a machine that does much else.
const TIME: Duration = Duration::from_secs(120);

fn module(inputs: &str, body: &str, result: &str) -> Module {
    let text = format!("frit 1\nfunc @infer({inputs}) {{\n{body}  return \"y\" = %{result}\n}}\n");
    from_text(&text, &NoConstants).expect("a module")
}

fn case(inputs: &str, body: &str, result: &str) -> Case {
    Case::fed(module(inputs, body, result), 1).expect("an input of numbers")
}

/// -O3 gives the bits of -O0 in time.
fn holds(case: &Case) {
    let (start, pool) = (Instant::now(), Arc::new(Pool::new(2)));
    let [plain, best] =
        [Level::O0, Level::O3].map(|l| case.run(l, Math::Strict, Vectors::Widest, &pool).expect("it runs"));
    assert_eq!(differing(&plain, &best), None);
    assert!(start.elapsed() < TIME, "{:?}", start.elapsed());
}

#[test]
fn concats_of_many_operands_are_copied() {
    for (axis, shapes) in [(0, ["b, 3", "2, 3"]), (1, ["2, b", "2, 3"])] {
        let operands: Vec<&str> = (0..2000).map(|i| ["%x", "%z", "%z"][i % 3]).collect();
        let concat = format!("  %c = concat({}) {{axis = {axis}}}\n", operands.join(", "));
        let inputs = format!("%x \"x\": f32[{}], %z \"z\": f32[{}]", shapes[0], shapes[1]);
        let case = case(&inputs, &(concat + "  %y = neg(%c)\n"), "y");
        holds(&case);
        let found = case.run(Level::O3, Math::Strict, Vectors::Widest, &Arc::new(Pool::new(1))).expect("it runs");
        within(&found, &case.bounds(0.0).expect("the reference runs"), 1.0).expect("the reference's values");
    }
}

#[test]
fn what_doubles_at_every_level_is_not_written_out() {
    let doubled = |f: &str| -> String {
        let line = |i: usize| format!("  %c{} = concat(%{f}{i}, %c{i}) {{axis = 0}}\n", i + 1);
        let neg = |i: usize| if f == "n" { format!("  %n{i} = neg(%c{i})\n") } else { String::new() };
        (0..12).map(|i| neg(i) + &line(i)).collect()
    };
    for f in ["c", "n"] {
        for shape in ["b, 2", "1, 2"] {
            holds(&case(&format!("%c0 \"x\": f32[{shape}]"), &doubled(f), "c12"));
        }
    }
}

#[test]
fn views_without_end_take_little_stack() {
    let turn = |i: usize| {
        format!(
            "  %v{} = transpose(%v{i}) {{perm = [1, 0]}}\n  %r{i} = reshape(%v{}) {{dims = [3, 4]}}\n",
            i + 1,
            i + 1
        )
    };
    let body: String = (0..3000)
        .map(|i| {
            turn(i).replace(&format!("(%v{i})"), &if i == 0 { "(%v0)".to_owned() } else { format!("(%r{})", i - 1) })
        })
        .collect();
    let case = case("%v0 \"x\": f32[3, 4]", &body, "r2999");
    let run = std::thread::Builder::new().stack_size(2 << 20).spawn(move || holds(&case)).expect("a thread");
    run.join().expect("it has stack enough");
}
