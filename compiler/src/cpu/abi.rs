//! What generated code and its caller agree on.
//!
//! A phase becomes one function `extern "C" fn(args: *const KernelArgs, begin: i64, end: i64)` that runs its body for
//! outer = begin .. end. Code is position independent and has no relocations: constants lie beside it, calls between
//! its own functions are relative, and everything else it needs comes through [`KernelArgs`].

/// Version of [`KernelArgs`] and [`FUNCTIONS`]; an artifact with another one is recompiled.
pub const ABI_VERSION: u32 = 1;

/// The argument of every phase function.
#[repr(C)]
#[derive(Debug)]
pub struct KernelArgs {
    /// Start of each argument buffer, in the kernel's order.
    pub buffers: *const *mut u8,
    /// Value of each kernel dim.
    pub dims: *const i64,
    /// The worker's scratch memory, 64-byte aligned, at least as large as the phase asks for.
    pub scratch: *mut u8,
    /// Address of each function of [`FUNCTIONS`].
    pub functions: *const usize,
    /// 0, or 1 + the code of a check that failed.
    pub status: *mut u32,
}

/// Functions that code may call, by position in the table: f64 elementary functions (f32 ones are generated inline),
/// integer powers of signed (`ipow`) and unsigned (`upow`) 64-bit values, a b + c rounded once for CPUs without such an
/// instruction. [`super::functions::table`] holds their addresses.
pub const FUNCTIONS: &[&str] = &[
    "exp", "expm1", "log", "log1p", "sin", "cos", "tan", "asin", "acos", "atan", "tanh", "erf", "pow", "atan2", "fmod",
    "ipow", "upow", "fma", "fmaf",
];

/// A compiled phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PhaseCode {
    /// Offset of its entry in the code.
    pub entry: usize,
    /// Bytes of scratch it needs (locals have known sizes).
    pub scratch: usize,
    /// Fewest iterations worth a thread.
    pub grain: u32,
}

/// Machine code of one kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelCode {
    /// Position-independent bytes, aligned to 64 when placed.
    pub bytes: Vec<u8>,
    /// One entry a phase.
    pub phases: Vec<PhaseCode>,
}
