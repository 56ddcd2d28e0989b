//! Compiles a kernel and runs it over plain vectors.
#![allow(unsafe_code, reason = "the tests call what they compiled")]

use frit_ir::Symbol;

use crate::cpu::abi::{KernelArgs, PhaseCode};
use crate::cpu::exec::ExecutableCode;
use crate::cpu::{CodeGenerator, CodeOptions, CodeReport, Effort, functions};
use crate::kernel::{Kernel, Role};
use crate::schedule::{Directive, Schedule};

/// Elements as bytes.
pub(crate) fn bytes<T: Copy, const N: usize>(values: &[T], to: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|v| to(*v)).collect()
}

/// Bytes as elements.
pub(crate) fn values<T, const N: usize>(bytes: &[u8], from: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.chunks_exact(N).map(|c| from(c.try_into().unwrap())).collect()
}

/// Floats as bytes.
pub(crate) fn f32s(values: &[f32]) -> Vec<u8> {
    bytes(values, f32::to_le_bytes)
}

/// A schedule that makes every loop named so a vector loop.
pub(crate) fn vectors(vars: &[&str], lanes: u32) -> Schedule {
    let directives = vars.iter().map(|v| Directive::Vector { var: Symbol::new(v), lanes });
    Schedule { directives: directives.collect() }
}

/// A caller of one kernel.
pub(crate) struct Outcome {
    /// The argument buffers afterwards.
    pub(crate) buffers: Vec<Vec<u8>>,
    /// The status word.
    pub(crate) status: u32,
    /// What became of vector loops.
    pub(crate) report: CodeReport,
}

/// Runs a kernel; `arguments` are the buffers in order, `dims` the kernel dims. Every buffer lies between guard bytes
/// at an odd multiple of its element size, and a write outside fails the test.
pub(crate) fn run(kernel: &Kernel, schedule: &Schedule, arguments: &[Vec<u8>], dims: &[i64]) -> Outcome {
    run_with(kernel, schedule, arguments, dims, Effort::Auto)
}

pub(crate) fn run_with(
    kernel: &Kernel,
    schedule: &Schedule,
    arguments: &[Vec<u8>],
    dims: &[i64],
    effort: Effort,
) -> Outcome {
    Compiled::new(kernel, schedule, effort).run(arguments, dims)
}

/// A kernel that can run.
pub(crate) struct Compiled<'k> {
    kernel: &'k Kernel,
    phases: Vec<PhaseCode>,
    executable: ExecutableCode,
    report: CodeReport,
}

impl<'k> Compiled<'k> {
    pub(crate) fn new(kernel: &'k Kernel, schedule: &Schedule, effort: Effort) -> Self {
        let options = CodeOptions { effort, ..CodeOptions::host().unwrap() };
        let (code, report) = CodeGenerator::new(&options).compile(kernel, schedule).unwrap();
        let executable = ExecutableCode::new(&code.bytes).unwrap();
        Compiled { kernel, phases: code.phases, executable, report }
    }

    /// Runs it, each phase in two parts.
    pub(crate) fn run(&self, arguments: &[Vec<u8>], dims: &[i64]) -> Outcome {
        let Compiled { kernel, phases, executable, report } = self;
        const GUARD: usize = 192;
        assert_eq!(arguments.len(), kernel.arguments().count());
        let mut padded: Vec<Vec<u8>> = Vec::new();
        let mut starts = Vec::new();
        for (bytes, (_, buffer)) in arguments.iter().zip(kernel.arguments()) {
            let start = GUARD + buffer.dtype.size();
            let mut memory = vec![0xa5u8; start + bytes.len() + GUARD];
            memory[start..start + bytes.len()].copy_from_slice(bytes);
            padded.push(memory);
            starts.push(start);
        }
        let pointers: Vec<*mut u8> = padded.iter_mut().zip(&starts).map(|(m, s)| m[*s..].as_mut_ptr()).collect();
        let mut status = 0u32;
        for (phase, meta) in kernel.phases.iter().zip(phases) {
            let lookup = |s: &Symbol| kernel.dims.iter().position(|d| d.symbol == *s).map(|i| dims[i]);
            let extent = phase.extent.eval(&lookup).unwrap();
            let mut scratch = vec![0xffu8; meta.scratch + 64];
            let shift = scratch.as_ptr().align_offset(64);
            let args = KernelArgs {
                buffers: pointers.as_ptr(),
                dims: dims.as_ptr(),
                scratch: scratch[shift..].as_mut_ptr(),
                functions: functions::table().as_ptr(),
                status: &mut status,
            };
            for (begin, end) in [(0, extent / 3), (extent / 3, extent)] {
                // SAFETY: the code was compiled for these buffers, and the test gives each its size.
                assert!(unsafe { executable.run(meta.entry, &args, begin, end) });
            }
        }
        let mut buffers = Vec::new();
        for ((memory, start), (bytes, (_, buffer))) in
            padded.iter().zip(&starts).zip(arguments.iter().zip(kernel.arguments()))
        {
            let inside = *start..start + bytes.len();
            let outside = memory.iter().enumerate().filter(|(i, _)| !inside.contains(i));
            assert!(outside.into_iter().all(|(_, b)| *b == 0xa5), "a write outside of `{}`", buffer.name);
            let now = memory[inside].to_vec();
            assert!(buffer.role != Role::Input || now == *bytes, "input `{}` was written", buffer.name);
            buffers.push(now);
        }
        Outcome { buffers, status, report: report.clone() }
    }
}
