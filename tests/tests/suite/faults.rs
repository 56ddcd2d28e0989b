//! Seeded faults: does the differential check see a wrong rule, a wrong lowering, a wrong kernel?
//!
//! Each fault changes kernels after lowering, or the module after all passes, as a plausible bug would. Random modules
//! run with it in strict mode, as in `random`; within [`SEEDS`] modules one must give other bits than -O0 without the
//! fault, or leave its error bound. A fault that is never found means that the check is blind there.

use std::sync::Arc;

use frit_compiler::cpu::{CodeGenerator, CodeOptions, Vectors};
use frit_compiler::kernel::expand::expand;
use frit_compiler::kernel::{self, Acc, BufferId, Combine, Expr, Kernel, Stmt};
use frit_compiler::plan::build::build;
use frit_compiler::schedule::Schedule;
use frit_ir::{BinaryOp, Dim, Function, Module, Numerics, Op, UnaryOp, Value};
use frit_passes::manager::{self, Level, Math, Pipeline};
use frit_runtime::Model;
use frit_runtime::pool::Pool;
use frit_tests::case::differing;
use frit_tests::{Case, within};

/// Modules after which a fault counts as missed.
const SEEDS: u64 = 80;

type KernelFault = fn(&mut Kernel) -> bool;
type ModuleFault = fn(&mut Module) -> bool;

#[derive(Clone, Copy)]
enum Fault {
    Kernel(KernelFault),
    Module(ModuleFault),
}

const FAULTS: &[(&str, Fault)] = &[
    ("operands of a subtraction swapped", Fault::Kernel(swapped_subtraction)),
    ("the last iteration of a reduction dropped", Fault::Kernel(short_reduction)),
    ("min for max in a reduction", Fault::Kernel(min_for_max)),
    ("an element read at index 0 for all (a broadcast that is none)", Fault::Kernel(stuck_index)),
    ("neighbours read in place of each other", Fault::Kernel(neighbour)),
    ("arms of a select swapped", Fault::Kernel(swapped_select)),
    ("< for <=", Fault::Kernel(strict_comparison)),
    ("a bit of a constant flipped", Fault::Kernel(wrong_constant)),
    ("a loop one iteration short", Fault::Kernel(short_loop)),
    ("contraction in strict mode", Fault::Kernel(contracted)),
    ("x y becomes x, as if y were 1", Fault::Module(product_with_one)),
    ("two slices of one value merged", Fault::Module(merged_slices)),
    ("reduced along another axis of the same extent", Fault::Module(other_axis)),
    ("-x becomes x", Fault::Module(lost_negation)),
];

/// Calls `change` on every statement, inner ones first, until it says that it changed one.
fn first(kernel: &mut Kernel, change: &mut dyn FnMut(&mut Stmt) -> bool) -> bool {
    fn walk(body: &mut [Stmt], change: &mut dyn FnMut(&mut Stmt) -> bool) -> bool {
        body.iter_mut().any(|stmt| {
            let inner = match stmt {
                Stmt::For { body, .. } | Stmt::Reduce { body, .. } => walk(body, change),
                Stmt::If { then, otherwise, .. } => walk(then, change) || walk(otherwise, change),
                Stmt::Let(..) | Stmt::Store { .. } | Stmt::Check { .. } => false,
            };
            inner || change(stmt)
        })
    }
    kernel.phases.iter_mut().any(|phase| walk(&mut phase.body, change))
}

fn swapped_subtraction(kernel: &mut Kernel) -> bool {
    first(kernel, &mut |stmt| match stmt {
        Stmt::Let(_, Expr::Binary(BinaryOp::Sub, a, b)) if a != b => {
            std::mem::swap(a, b);
            true
        }
        _ => false,
    })
}

fn short_reduction(kernel: &mut Kernel) -> bool {
    first(kernel, &mut |stmt| match stmt {
        Stmt::Reduce { extent, .. } => {
            *extent = (&*extent - &Dim::from(1usize)).maximum(&Dim::from(0usize));
            true
        }
        _ => false,
    })
}

fn min_for_max(kernel: &mut Kernel) -> bool {
    let swap = |acc: &mut Acc| {
        acc.combine = match acc.combine {
            Combine::Max => Combine::Min,
            Combine::ArgMax(reg) => Combine::ArgMin(reg),
            _ => return false,
        };
        true
    };
    first(kernel, &mut |stmt| match stmt {
        Stmt::Reduce { accs, .. } => accs.iter_mut().any(swap),
        _ => false,
    })
}

/// An index that reads inputs only: a local may not hold its element yet.
fn input_index<'s>(inputs: &[BufferId], stmt: &'s mut Stmt) -> Option<&'s mut Dim> {
    match stmt {
        Stmt::Let(_, Expr::Load { buffer, index }) if inputs.contains(buffer) && index.known().is_none() => Some(index),
        _ => None,
    }
}

fn inputs(kernel: &Kernel) -> Vec<BufferId> {
    kernel.arguments().filter(|(_, b)| b.role == kernel::Role::Input).map(|(id, _)| id).collect()
}

fn stuck_index(kernel: &mut Kernel) -> bool {
    let inputs = inputs(kernel);
    first(kernel, &mut |stmt| match input_index(&inputs, stmt) {
        Some(index) => {
            *index = Dim::from(0usize);
            true
        }
        None => false,
    })
}

/// One off, and inside: the element before, the first for itself.
fn neighbour(kernel: &mut Kernel) -> bool {
    let inputs = inputs(kernel);
    first(kernel, &mut |stmt| match input_index(&inputs, stmt) {
        Some(index) => {
            *index = (&*index - &Dim::from(1usize)).maximum(&Dim::from(0usize));
            true
        }
        None => false,
    })
}

fn swapped_select(kernel: &mut Kernel) -> bool {
    first(kernel, &mut |stmt| match stmt {
        Stmt::Let(_, Expr::Select(_, a, b)) if a != b => {
            std::mem::swap(a, b);
            true
        }
        _ => false,
    })
}

fn strict_comparison(kernel: &mut Kernel) -> bool {
    first(kernel, &mut |stmt| match stmt {
        Stmt::Let(_, Expr::Binary(op @ BinaryOp::Le, ..)) => {
            *op = BinaryOp::Lt;
            true
        }
        _ => false,
    })
}

fn wrong_constant(kernel: &mut Kernel) -> bool {
    first(kernel, &mut |stmt| match stmt {
        Stmt::Let(_, Expr::Const(scalar)) if scalar.dtype == frit_ir::DType::F32 && scalar.bits != 0 => {
            scalar.bits ^= 1 << 16;
            true
        }
        _ => false,
    })
}

fn short_loop(kernel: &mut Kernel) -> bool {
    first(kernel, &mut |stmt| match stmt {
        Stmt::For { extent, .. } => {
            *extent = (&*extent - &Dim::from(1usize)).maximum(&Dim::from(0usize));
            true
        }
        _ => false,
    })
}

fn contracted(kernel: &mut Kernel) -> bool {
    !std::mem::replace(&mut kernel.fast, true)
}

/// Calls `change` on every op of every function and region until it says that it changed one.
fn first_op(module: &mut Module, change: &mut dyn FnMut(&mut Function, Value) -> bool) -> bool {
    fn walk(function: &mut Function, change: &mut dyn FnMut(&mut Function, Value) -> bool) -> bool {
        function.nodes().into_iter().any(|node| {
            function.regions_mut(node).iter_mut().any(|region| walk(region, change))
                || change(function, Value { node, result: 0 })
        })
    }
    module.functions.values_mut().any(|function| walk(function, change))
}

/// Readers of `value` read another one of its type.
fn redirect(function: &mut Function, value: Value, to: Value) -> bool {
    let fits = value != to && function.ty(value) == function.ty(to);
    if fits {
        function.replace_uses(value, to);
    }
    fits
}

fn product_with_one(module: &mut Module) -> bool {
    first_op(module, &mut |function, value| match (function.op(value), function.node(value.node).operands()) {
        (Op::Binary(BinaryOp::Mul), &[x, _]) => redirect(function, value, x),
        _ => false,
    })
}

fn lost_negation(module: &mut Module) -> bool {
    first_op(module, &mut |function, value| match (function.op(value), function.node(value.node).operands()) {
        (Op::Unary(UnaryOp::Neg), &[x]) => redirect(function, value, x),
        _ => false,
    })
}

fn merged_slices(module: &mut Module) -> bool {
    first_op(module, &mut |function, value| {
        if !matches!(function.op(value), Op::Slice { .. }) {
            return false;
        }
        let operands = function.node(value.node).operands().to_vec();
        let twin = function.nodes().into_iter().map(|node| Value { node, result: 0 }).find(|other| {
            matches!(function.op(*other), Op::Slice { .. })
                && *other != value
                && function.node(other.node).operands() == operands
                && function.op(*other) != function.op(value)
                && function.ty(*other) == function.ty(value)
        });
        twin.is_some_and(|twin| redirect(function, value, twin))
    })
}

fn other_axis(module: &mut Module) -> bool {
    first_op(module, &mut |function, value| {
        let (Op::Reduce { axes, kind }, &[x]) = (function.op(value), function.node(value.node).operands()) else {
            return false;
        };
        let ([axis], Some(ty)) = (axes.as_slice(), function.ty(x).tensor()) else { return false };
        let same = |other: &usize| other != axis && ty.dims.get(*other) == ty.dims.get(*axis);
        let Some(other) = (0..ty.rank()).find(same) else { return false };
        let op = Op::Reduce { axes: vec![other], kind: *kind };
        function.set_op(value.node, op);
        true
    })
}

/// The pipeline at -O3 in strict mode with a fault in it; `None` when it has no place in this module.
fn faulty(case: &Case, fault: Fault) -> Option<Model> {
    let mut module = case.module.clone();
    let options = manager::Options { math: Math::Strict, ..manager::Options::default() };
    manager::run(&mut module, &Pipeline::of(Level::O3), &options).expect("passes without a fault");
    let mut applied = match fault {
        Fault::Module(change) => change(&mut module),
        Fault::Kernel(_) => false,
    };
    let host = CodeOptions::host().expect("a code generator for this machine");
    let mut generator = CodeGenerator::new(&host);
    let mut generate = |kernel: &Kernel, schedule: &Schedule| {
        let mut kernel = kernel.clone();
        if let Fault::Kernel(change) = fault {
            let sound = kernel.clone();
            if change(&mut kernel) && kernel::verify(&kernel).is_ok() {
                applied = true;
            } else {
                kernel = sound;
            }
        }
        expand(&mut kernel).map_err(|e| e.to_string())?;
        generator.compile(&kernel, schedule).map(|(code, _)| code).map_err(|e| e.to_string())
    };
    let built = build(&module, Numerics::STRICT, &[], &mut generate);
    // A fault that the compiler itself refuses is no blind spot of the check, nor found by it.
    let built = built.ok()?;
    applied.then(|| Model::new(built.plan).ok()).flatten()
}

#[test]
fn seeded_faults_are_found() {
    let pool = Arc::new(Pool::new(1));
    let mut missing: Vec<(&str, Fault, u64)> = FAULTS.iter().map(|&(name, fault)| (name, fault, 0)).collect();
    for seed in 1..=SEEDS {
        let case = Case::random(seed, super::random::size(seed)).expect("a random module");
        let expected = case.bounds(2.0).expect("the reference runs it");
        let plain = case.run(Level::O0, Math::Strict, Vectors::Widest, &pool).expect("a run without a fault");
        missing.retain_mut(|(name, fault, tried)| {
            let Some(model) = faulty(&case, *fault) else { return true };
            *tried += 1;
            let seen = match case.run_on(&model.with_pool(pool.clone())) {
                Ok(found) => within(&found, &expected, 1.0)
                    .err()
                    .or_else(|| differing(&plain, &found).map(|o| format!("output {o} has other bits"))),
                Err(message) => Some(message),
            };
            if let Some(seen) = &seen {
                println!("found in module {tried} that has a place for it (seed {seed}): {name}: {seen}");
            }
            seen.is_none()
        });
        if missing.is_empty() {
            return;
        }
    }
    let missing: Vec<String> = missing.iter().map(|(name, _, tried)| format!("{name} (in {tried} modules)")).collect();
    panic!("not found: {}", missing.join("; "));
}
