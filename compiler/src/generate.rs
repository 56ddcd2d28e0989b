//! All kernels of a plan to machine code.
//!
//! Kernels do not depend on each other, so they are compiled on several threads; results keep their order, and
//! the bytes of each do not depend on the thread. Before, every vector loop gets the number of lanes that its
//! body is worth: a large body at 16 lanes is four times the code for nothing, a small one needs them to fill the machine.
//! Every phase is split among threads where the cost model ([`crate::cost`]) finds enough in it, and runs its rows in
//! blocks where they are short. What loops compute again and again is moved out of them ([`crate::kernel::hoist`]).

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use frit_ir::{Dim, Symbol};

use crate::cost::count::count;
use crate::cost::{Rates, grain};
use crate::cpu::abi::KernelCode;
use crate::cpu::{CodeGenerator, CodeOptions, Vectors, worth};
use crate::kernel::expand::expand;
use crate::kernel::hoist::hoist;
use crate::kernel::{Expr, Kernel, Stmt};
use crate::plan::build::KernelSource;
use crate::schedule::{Directive, Schedule};

/// Instructions of 128 bits that one vector iteration should not exceed.
const BODY: usize = 256;
/// What an extent is taken for that is not known.
const GUESS: i64 = 64;
/// What an element costs that is gathered lane by lane instead of loaded with its neighbours.
const GATHERED: usize = 8;

/// What became of a kernel.
pub(crate) struct Generated {
    pub(crate) code: KernelCode,
    /// How its loops run in that code.
    pub(crate) schedule: Schedule,
    /// The loops that are no vectors, with the reason.
    pub(crate) remarks: Vec<String>,
}

/// Compiles kernels; results are in their order. `threads`: how many work.
pub(crate) fn generate(
    kernels: &[KernelSource],
    options: &CodeOptions,
    threads: Option<usize>,
) -> Vec<Result<Generated, String>> {
    let lanes = match options.vectors {
        Vectors::Groups(lanes) => Some(lanes),
        Vectors::Widest | Vectors::AtMost(_) => None,
    };
    let machine = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.unwrap_or_else(machine).min(kernels.len());
    let next = AtomicUsize::new(0);
    let work = || {
        let mut generator = CodeGenerator::new(options);
        let mut done = Vec::new();
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(source) = kernels.get(i) else { return done };
            done.push((i, one(&mut generator, source, lanes)));
        }
    };
    let mut results: Vec<Option<Result<Generated, String>>> = (0..kernels.len()).map(|_| None).collect();
    let mut take = |done: Vec<(usize, Result<Generated, String>)>| {
        for (i, generated) in done {
            results[i] = Some(generated);
        }
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        take(work());
        for other in others {
            // What a thread lost to a panic stays without a result and is reported below.
            if let Ok(done) = other.join() {
                take(done);
            }
        }
    });
    let lost = || Err("internal: code generation did not finish".to_owned());
    results.into_iter().map(|r| r.unwrap_or_else(lost)).collect()
}

fn one(generator: &mut CodeGenerator, source: &KernelSource, lanes: Option<u32>) -> Result<Generated, String> {
    let mut kernel = source.kernel.clone();
    hoist(&mut kernel);
    expand(&mut kernel).map_err(|e| e.to_string())?;
    let mut schedule = with_blocks(&kernel, with_grain(&kernel, with_lanes(&kernel, &source.schedule, lanes)));
    let (code, report) = generator.compile(&kernel, &schedule).map_err(|e| e.to_string())?;
    let scalar =
        |d: &Directive| matches!(d, Directive::Vector { var, .. } if report.scalar.iter().any(|l| l.var == var.name()));
    schedule.directives.retain(|d| !scalar(d));
    let remarks =
        report.scalar.iter().map(|l| format!("kernel {}: loop {}: {}", kernel.name, l.var, l.reason)).collect();
    Ok(Generated { code, schedule, remarks })
}

/// The schedule with every vector loop at the lanes it is worth (at most those scheduled), or at `wanted`.
fn with_lanes(kernel: &Kernel, schedule: &Schedule, wanted: Option<u32>) -> Schedule {
    let mut weights = HashMap::new();
    kernel.phases.iter().for_each(|p| weigh(&p.body, &mut weights));
    let mut schedule = schedule.clone();
    for directive in &mut schedule.directives {
        let Directive::Vector { var, lanes } = directive else { continue };
        let weight = weights.get(var).copied().unwrap_or(1).max(1);
        let worth = [16, 8].into_iter().find(|n| weight * n / 4 <= BODY).unwrap_or(4);
        *lanes = wanted.unwrap_or_else(|| (*lanes).min(worth as u32));
    }
    schedule
}

/// The schedule with every phase in blocks whose rows are worth that.
fn with_blocks(kernel: &Kernel, mut schedule: Schedule) -> Schedule {
    for phase in &kernel.phases {
        if let Some(rows) = worth(kernel, phase) {
            schedule.directives.push(Directive::Block { var: phase.outer.clone(), rows });
        }
    }
    schedule
}

/// The schedule with every phase split where the cost model says that threads are worth it.
fn with_grain(kernel: &Kernel, mut schedule: Schedule) -> Schedule {
    let guess = |_: &Symbol| Some(GUESS);
    let Some(work) = count(kernel, &schedule, &guess) else { return schedule };
    for (phase, work) in kernel.phases.iter().zip(&work.phases) {
        for directive in &mut schedule.directives {
            if let Directive::Threads { var, grain: fewest } = directive
                && *var == phase.outer
            {
                *fewest = grain(work, &Rates::typical());
            }
        }
    }
    schedule
}

/// Instructions in the body of each loop, by its variable.
fn weigh(stmts: &[Stmt], weights: &mut HashMap<Symbol, usize>) {
    for stmt in stmts {
        match stmt {
            Stmt::For { var, body, .. } | Stmt::Reduce { var, body, .. } => {
                weights.insert(var.clone(), body.iter().map(|s| weight(s, var)).sum());
                weigh(body, weights);
            }
            Stmt::If { then, otherwise, .. } => {
                weigh(then, weights);
                weigh(otherwise, weights);
            }
            Stmt::Let(..) | Stmt::Store { .. } | Stmt::Check { .. } => {}
        }
    }
}

fn weight(stmt: &Stmt, var: &Symbol) -> usize {
    match stmt {
        Stmt::Let(_, Expr::Const(_)) => 0,
        Stmt::Let(_, Expr::Load { index, .. }) | Stmt::Store { index, .. } => {
            let step = index - &index.substitute(&|s| (s == var).then(|| &Dim::from(s.clone()) - &Dim::ONE));
            if matches!(step, Dim::Known(0 | 1)) { 1 } else { GATHERED }
        }
        Stmt::Let(..) | Stmt::Check { .. } | Stmt::For { .. } | Stmt::Reduce { .. } | Stmt::If { .. } => 1,
    }
}
