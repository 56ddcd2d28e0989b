//! Random kernels: the interpreter's bits at every lane count.

use super::harness::{Compiled, vectors};
use crate::cpu::{Effort, worth};
use crate::kernel::hoist::hoist;
use crate::kernel::interp::{self, Memory};
use crate::kernel::{Kernel, Stmt, expand, testing};
use crate::schedule::{Directive, Schedule};

/// The variables of every loop.
fn loops(body: &[Stmt], found: &mut Vec<String>) {
    for stmt in body {
        match stmt {
            Stmt::For { var, body, .. } | Stmt::Reduce { var, body, .. } => {
                found.push(var.to_string());
                loops(body, found);
            }
            Stmt::If { then, otherwise, .. } => {
                loops(then, found);
                loops(otherwise, found);
            }
            Stmt::Let(..) | Stmt::Store { .. } | Stmt::Check { .. } => {}
        }
    }
}

/// Runs a kernel in lanes and compares with what the interpreter left; returns how many loops ran as vectors.
fn compare(
    kernel: &Kernel,
    lanes: u32,
    rows: Option<u32>,
    start: &[Memory],
    dims: &[i64],
    expected: &[Memory],
    about: &str,
) -> usize {
    let mut vars = Vec::new();
    kernel.phases.iter().for_each(|p| loops(&p.body, &mut vars));
    let names: Vec<&str> = vars.iter().map(String::as_str).collect();
    let mut schedule = if lanes == 1 { Schedule::default() } else { vectors(&names, lanes) };
    for (phase, rows) in kernel.phases.iter().zip(rows) {
        schedule.directives.push(Directive::Block { var: phase.outer.clone(), rows });
    }
    let bytes: Vec<Vec<u8>> = start.iter().map(|m| m.bytes.clone()).collect();
    let out = Compiled::new(kernel, &schedule, Effort::Auto).run(&bytes, dims);
    for (i, (bytes, e)) in out.buffers.into_iter().zip(expected).enumerate() {
        let actual = Memory { dtype: e.dtype, bytes };
        assert!(actual.same(e), "{about}, {lanes} lanes, argument {i}:\n{actual:?}\n{e:?}\n{kernel:#?}");
    }
    out.report.vectorised.len()
}

#[test]
fn random_kernels_agree_with_the_interpreter() {
    let mut vectorised = 0;
    for seed in 0..200 {
        let mut kernel = testing::kernel(seed);
        expand::expand(&mut kernel).unwrap();
        for n in [0, 3, 21] {
            let start = testing::arguments(&kernel, &[n], seed);
            let mut expected = start.clone();
            interp::run(&kernel, &[n], &mut expected).unwrap();
            for lanes in [1, 4, 8, 16] {
                vectorised += compare(&kernel, lanes, None, &start, &[n], &expected, &format!("seed {seed}, n {n}"));
            }
        }
    }
    assert!(vectorised > 100, "only {vectorised} loops ran as vectors");
}

#[test]
fn blocks_of_rows_agree_with_the_interpreter() {
    let (mut blocks, mut vectorised) = (0, 0);
    for seed in 0..100 {
        let mut kernel = testing::kernel(seed);
        let plain = kernel.clone();
        hoist(&mut kernel);
        expand::expand(&mut kernel).unwrap();
        blocks += usize::from(kernel.phases.iter().any(|phase| worth(&kernel, phase).is_some()));
        for rows in [2, 4] {
            for n in [0, 1, 4, 21] {
                let start = testing::arguments(&kernel, &[n], seed);
                let mut expected = start.clone();
                interp::run(&plain, &[n], &mut expected).unwrap();
                let about = format!("seed {seed}, n {n} in blocks of {rows}");
                vectorised += compare(&kernel, 16, Some(rows), &start, &[n], &expected, &about);
            }
        }
    }
    assert!(blocks > 50, "only {blocks} kernels are worth blocks");
    assert!(vectorised > 40, "only {vectorised} loops ran as vectors");
}
