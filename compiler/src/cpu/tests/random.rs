//! Random kernels: the interpreter's bits at every lane count.

use super::harness::{Compiled, vectors};
use crate::cpu::Effort;
use crate::kernel::interp::{self, Memory};
use crate::kernel::{Kernel, Stmt, expand, testing};
use crate::schedule::Schedule;

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
fn compare(kernel: &Kernel, lanes: u32, start: &[Memory], dims: &[i64], expected: &[Memory], about: &str) -> usize {
    let mut vars = Vec::new();
    kernel.phases.iter().for_each(|p| loops(&p.body, &mut vars));
    let names: Vec<&str> = vars.iter().map(String::as_str).collect();
    let schedule = if lanes == 1 { Schedule::default() } else { vectors(&names, lanes) };
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
                vectorised += compare(&kernel, lanes, &start, &[n], &expected, &format!("seed {seed}, n {n}"));
            }
        }
    }
    assert!(vectorised > 100, "only {vectorised} loops ran as vectors");
}
