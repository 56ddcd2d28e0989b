//! The shrinker: what fails stays failing, becomes small, and is a text that can be pasted.

use frit_ir::text::{NoConstants, from_text, to_inline_text};
use frit_ir::{Function, Module, Op, ReduceKind, UnaryOp, Value, verify};
use frit_tests::{Case, shrink};

/// Modules that are shrunk.
const WANTED: usize = 40;
/// Seeds tried to find them.
const SEEDS: u64 = 20_000;
/// Ops of random modules before.
const SIZE: usize = 24;

fn is_exp(f: &Function, value: Value) -> bool {
    matches!(f.op(value), Op::Unary(UnaryOp::Exp))
}

fn any_reduce(module: &Module, holds: impl Fn(&Function, Value) -> bool) -> bool {
    let Some(f) = module.entry() else { return false };
    f.nodes().into_iter().any(|id| {
        let node = f.node(id);
        let sums = matches!(&node.op, Op::Reduce { kind: ReduceKind::Sum | ReduceKind::Max, .. });
        sums && node.operands().iter().any(|v| holds(f, *v))
    })
}

/// An exponential that a sum or maximum reads.
fn exp_feeds_a_reduce(case: &Case) -> bool {
    any_reduce(&case.module, is_exp)
}

/// A value at any distance behind which an exponential is.
fn depends_on_exp(f: &Function, value: Value) -> bool {
    is_exp(f, value) || f.node(value.node).operands().iter().any(|v| depends_on_exp(f, *v))
}

fn exp_reaches_a_reduce(case: &Case) -> bool {
    any_reduce(&case.module, depends_on_exp)
}

/// Shrinks random modules for which `fails` holds; gives the op counts before and after, inputs included.
fn shrunk(fails: &dyn Fn(&Case) -> bool) -> Vec<(usize, usize)> {
    let mut counts = Vec::new();
    for seed in 1..=SEEDS {
        let case = Case::random(seed, SIZE).expect("a random module");
        if !fails(&case) {
            continue;
        }
        let small = shrink(&case, seed, fails);
        let text = small.text();
        assert!(fails(&small), "seed {seed}: what was shrunk does not fail:\n{text}");
        verify::verify(&small.module).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{text}"));
        assert_eq!(small.inputs.len(), small.input_names().len(), "seed {seed}: an input without a value");
        let read = from_text(&text, &NoConstants).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{text}"));
        assert_eq!(to_inline_text(&read), text, "seed {seed}: the text reads as another module");
        assert!(fails(&Case { module: read, inputs: small.inputs.clone() }), "seed {seed}: the text does not fail");
        let ops = |case: &Case| case.module.entry().map_or(0, |f| f.nodes().len());
        counts.push((ops(&case), ops(&small)));
        if counts.len() == WANTED {
            return counts;
        }
    }
    panic!("only {} of {SEEDS} modules fail", counts.len());
}

#[test]
fn two_ops_that_fail_together_are_all_that_is_left() {
    let counts = shrunk(&exp_feeds_a_reduce);
    // An input, the exponential, the reduction.
    assert!(counts.iter().all(|(_, after)| *after == 3), "{counts:?}");
    assert!(counts.iter().any(|(before, _)| *before > 15), "only small modules were met: {counts:?}");
}

#[test]
fn ops_far_apart_keep_only_what_joins_them() {
    let counts = shrunk(&exp_reaches_a_reduce);
    // What joins them may change shapes or types, and may need an operand of its own.
    assert!(counts.iter().all(|(_, after)| *after <= 5), "{counts:?}");
}
