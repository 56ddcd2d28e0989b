//! CUDA C++: the text of one kernel, what is refused, and emitted text run by a host compiler against the interpreter.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use frit_ir::{BinaryOp, DType, Dim, UnaryOp};

use super::{CudaError, emit, function_name, scalar};
use crate::kernel::build::KernelBuilder;
use crate::kernel::expand::expand;
use crate::kernel::interp::{self, Memory};
use crate::kernel::{Combine, Expr, Kernel, Role, Scalar, Stmt, testing};

/// Rows of 40 as softmax, of elements picked by a quotient and a remainder; the largest element's place beside it, and
/// a check that it is no NaN. Locals, a branch, both kinds of reduction.
fn softmax() -> Kernel {
    let mut b = KernelBuilder::new("softmax 40", true);
    let rows = b.dim(&Dim::symbol("B"));
    let width = Dim::from(40usize);
    let x = b.buffer("x", DType::F32, &rows * &width, Role::Input);
    let keep = b.buffer("keep", DType::Bool, rows.clone(), Role::Input);
    let y = b.buffer("y", DType::F32, &rows * &width, Role::Output);
    let place = b.buffer("place", DType::I64, rows.clone(), Role::Output);
    let powers = b.buffer("powers", DType::F32, width.clone(), Role::Local);
    let code = b.trap("softmax: a row's largest element is NaN".to_owned());
    b.phase(rows, |b, row| {
        let at = |i: &Dim| &(&row * &width) + i;
        let largest = b.reduce(width.clone(), |b, i| {
            // The transpose of 5 by 8.
            let turned = &(&i.modulo(&Dim::from(5usize)) * &Dim::from(8usize)) + &i.floordiv(&Dim::from(5usize));
            let value = b.load(x, at(&turned));
            let index = b.let_(DType::I64, Expr::Index(turned));
            vec![(value, Combine::Max), (value, Combine::ArgMax(index))]
        });
        let ok = b.binary(BinaryOp::Eq, largest[0], largest[0]);
        b.push(Stmt::Check { ok, code });
        let sum = b.reduce(width.clone(), |b, i| {
            let value = b.load(x, at(&i));
            let shifted = b.binary(BinaryOp::Sub, value, largest[0]);
            let power = b.unary(UnaryOp::Exp, shifted);
            b.push(Stmt::Store { buffer: powers, index: i, value: power });
            vec![(power, Combine::Sum)]
        });
        b.for_(width.clone(), |b, i| {
            let power = b.load(powers, i.clone());
            let value = b.binary(BinaryOp::Div, power, sum[0]);
            b.push(Stmt::Store { buffer: y, index: at(&i), value });
        });
        let keep = b.load(keep, row.clone());
        let stores = [largest[1], b.constant(Scalar::i64(-1))]
            .map(|value| vec![Stmt::Store { buffer: place, index: row.clone(), value }]);
        let [then, otherwise] = stores;
        b.push(Stmt::If { condition: keep, then, otherwise });
    });
    let mut kernel = b.finish();
    expand(&mut kernel).expect("it expands");
    kernel
}

#[test]
fn softmax_reads_as_written() {
    let text = emit(&softmax()).expect("it can be written");
    if std::env::var_os("FRIT_BLESS").is_some() {
        let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cuda/expected/softmax.cu");
        std::fs::write(place, &text).expect("the expected text can be written");
    }
    assert_eq!(text, include_str!("expected/softmax.cu"), "FRIT_BLESS=1 rewrites the expected text");
}

/// One kernel with its arguments before and after.
struct Case {
    kernel: Kernel,
    dims: Vec<i64>,
    before: Vec<Memory>,
    after: Vec<Memory>,
    failed: Vec<u32>,
}

impl Case {
    fn new(kernel: Kernel, rows: i64, seed: u64) -> Self {
        let dims = vec![rows; kernel.dims.len()];
        let before = testing::arguments(&kernel, &dims, seed);
        let mut after = before.clone();
        let failed = interp::run(&kernel, &dims, &mut after).unwrap_or_else(|e| panic!("{}: {e}", kernel.name));
        Case { kernel, dims, before, after, failed }
    }

    /// The statements that run it.
    fn call(&self) -> String {
        let mut text = String::from("  {\n    unsigned int status = 0;\n");
        let mut arguments = String::new();
        for (i, memory) in self.before.iter().enumerate() {
            let _ = writeln!(text, "    Argument a{i}({});", memory.bytes.len());
            let _ = write!(arguments, "a{i}.at<{}>(), ", scalar::stored(memory.dtype).expect("a carried type"));
        }
        self.dims.iter().for_each(|d| arguments.push_str(&format!("{d}LL, ")));
        for phase in 0..self.kernel.phases.len() {
            let _ =
                writeln!(text, "    launch([&] {{ {}({arguments}&status); }});", function_name(&self.kernel, phase));
        }
        (0..self.before.len()).for_each(|i| text.push_str(&format!("    a{i}.write();\n")));
        text + "    fwrite(&status, 1, 4, stdout);\n  }\n"
    }
}

/// Compiles and runs all cases as one program; `None`: there is no host compiler.
fn run_on_host(cases: &[Case]) -> Option<Vec<u8>> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (source, program) = (folder.path().join("kernels.cpp"), folder.path().join("kernels"));
    let mut text = include_str!("expected/shim.hpp").to_owned();
    let mut names: Vec<&str> = Vec::new();
    for case in cases {
        if !names.contains(&case.kernel.name.as_str()) {
            text.push_str(&emit(&case.kernel).unwrap_or_else(|e| panic!("{e}")));
            names.push(&case.kernel.name);
        }
    }
    text.push_str("int main() {\n");
    cases.iter().for_each(|c| text.push_str(&c.call()));
    text.push_str("}\n");
    std::fs::write(&source, &text).expect("the program can be written");
    // Without built-ins, so that no call is folded to a better rounded value than libm's.
    let options = ["-std=c++17", "-O1", "-w", "-ffp-contract=off", "-fno-builtin", "-o"];
    let compiled = Command::new("g++").args(options).arg(&program).arg(&source).output();
    let Ok(compiled) = compiled else { return None };
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let mut child = Command::new(&program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let input: Vec<u8> = cases.iter().flat_map(|c| &c.before).flat_map(|m| m.bytes.clone()).collect();
    let mut stdin = child.stdin.take().expect("a pipe");
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("it runs");
    writer.join().expect("no panic").expect("all input is read");
    assert!(output.status.success(), "the program ends with {}", output.status);
    Some(output.stdout)
}

#[test]
fn a_host_compiler_gives_the_interpreters_bits() {
    let mut cases = vec![Case::new(softmax(), 7, 1)];
    // A row whose largest element is NaN.
    let mut failing = cases[0].before.clone();
    failing[0].set(43, Scalar::f32(f32::NAN));
    let mut after = failing.clone();
    let failed = interp::run(&cases[0].kernel, &[7], &mut after).expect("it runs");
    assert_eq!(failed, [0]);
    cases.push(Case { kernel: softmax(), dims: vec![7], before: failing, after, failed });
    for seed in 0..18 {
        let mut kernel = testing::kernel(seed);
        expand(&mut kernel).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        // The interpreter's error function is its own, not libm's.
        if !emit(&kernel).unwrap_or_else(|e| panic!("seed {seed}: {e}")).contains("erf(") {
            cases.extend([0, 3, 21].map(|rows| Case::new(kernel.clone(), rows, seed)));
        }
    }
    assert!(cases.len() > 40, "only {} cases", cases.len());
    let Some(output) = run_on_host(&cases) else {
        println!("skipped: there is no g++ to compile the emitted text");
        return;
    };
    let mut rest = &output[..];
    for case in &cases {
        for (i, expected) in case.after.iter().enumerate() {
            let (bytes, tail) = rest.split_at(expected.bytes.len());
            let found = Memory { dtype: expected.dtype, bytes: bytes.to_vec() };
            assert!(found.same(expected), "{} argument {i}:\n{found:?}\n{expected:?}", case.kernel.name);
            rest = tail;
        }
        let (status, tail) = rest.split_at(4);
        assert_eq!(status, case.failed.last().map_or(0, |c| c + 1).to_le_bytes(), "{}", case.kernel.name);
        rest = tail;
    }
    assert!(rest.is_empty(), "{} bytes too many", rest.len());
}

#[test]
fn what_a_thread_can_not_hold_is_refused() {
    let refused = |known: Option<usize>| {
        let mut b = KernelBuilder::new("local", false);
        let len = known.map_or_else(|| b.dim(&Dim::symbol("B")), Dim::from);
        let y = b.buffer("y", DType::F32, Dim::ONE, Role::Output);
        let t = b.buffer("t", DType::F32, len, Role::Local);
        b.phase(Dim::ONE, |b, i| {
            let value = b.constant(Scalar::f32(1.0));
            b.push(Stmt::Store { buffer: t, index: i.clone(), value });
            b.push(Stmt::Store { buffer: y, index: i, value });
        });
        emit(&b.finish()).expect_err("it is too much").to_string()
    };
    assert_eq!(
        refused(Some(1 << 18)),
        "kernel `local`: the local `t` (a thread has 512 KiB for locals) can't be written as CUDA C++"
    );
    assert_eq!(
        refused(None),
        "kernel `local`: the local `t` (its length is known at run time only) can't be written as CUDA C++"
    );
}

#[test]
fn kernels_that_are_not_valid_or_not_expanded_are_refused() {
    let mut b = KernelBuilder::new("map", false);
    let x = b.buffer("x", DType::F32, Dim::ONE, Role::Input);
    let y = b.buffer("y", DType::F32, Dim::ONE, Role::Output);
    b.phase(Dim::ONE, |b, i| {
        let value = b.load(x, i.clone());
        let value = b.unary(UnaryOp::Exp, value);
        b.push(Stmt::Store { buffer: y, index: i, value });
    });
    let mut kernel = b.finish();
    let error = emit(&kernel).expect_err("exp is no primitive of f32");
    assert_eq!(
        error.to_string(),
        "kernel `map` is not valid: `exp` of f32 is no machine primitive; expand the kernel first"
    );
    kernel.phases[0].outer = frit_ir::Symbol::new("r7");
    assert!(matches!(emit(&kernel), Err(CudaError::Invalid { .. })));
}
