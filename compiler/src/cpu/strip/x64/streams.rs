//! How the code of a leaf reaches its streams, and what lies in its frame.
//!
//! A dense stream is read and written where it is, from a register that holds its base (or, when those are used up,
//! from rax, loaded anew each time). A stream with gaps goes element by element through a copy of 16 lanes in the
//! frame. So do elements of 1 and 2 bytes in the tail with AVX2, which has no masked moves for them.

use super::encode::{Gpr, Isa, R8, R9, R12, R13, R14, RBX};
use crate::cpu::strip::Strip;

/// Registers that hold bases. The first two need no saving.
const BASES: [Gpr; 6] = [R8, R9, RBX, R12, R13, R14];

/// Frame: operand and result of a rescue, the table of functions, what runs over columns keeps, where results go, then
/// copies of streams, accumulators, and what is spilled.
pub(super) const RESCUE_X: i32 = 0;
pub(super) const RESCUE_VALUE: i32 = 64;
pub(super) const FUNCTIONS: i32 = 128;
/// While the main loop runs over columns: n, where this pass began, the accumulators.
pub(super) const COUNT: i32 = 136;
pub(super) const BEGIN: i32 = 144;
pub(super) const ACCUMULATORS: i32 = 152;
/// Where the caller looks for results.
pub(super) const RESULTS: i32 = 160;
const STAGES: i32 = 192;

/// How a stream is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Access {
    /// Dense, its base in a register.
    Near(Gpr),
    /// Dense, its base in the arguments.
    Far,
    /// With gaps.
    Strided,
}

/// The plan for all streams of a strip.
pub(super) struct Streams {
    accesses: Vec<Access>,
    /// Whether elements go through the frame in the tail.
    narrow: Vec<bool>,
    /// Registers to save.
    pub(super) saved: Vec<Gpr>,
}

impl Streams {
    pub(super) fn of(strip: &Strip, isa: Isa) -> Self {
        let mut bases = BASES.into_iter();
        let mut saved = Vec::new();
        let mut accesses = Vec::with_capacity(strip.streams.len());
        for stream in &strip.streams {
            let access = match (stream.is_dense(), bases.as_slice().first()) {
                (false, _) => Access::Strided,
                (true, None) => Access::Far,
                (true, Some(base)) => Access::Near(*base),
            };
            if let Access::Near(base) = access {
                bases.next();
                if base != R8 && base != R9 {
                    saved.push(base);
                }
            }
            accesses.push(access);
        }
        let narrow = strip.streams.iter().map(|s| !isa.masks() && s.dtype.size() < 4).collect();
        Streams { accesses, narrow, saved }
    }

    pub(super) fn access(&self, stream: usize) -> Access {
        self.accesses.get(stream).copied().unwrap_or(Access::Far)
    }

    /// Whether a stream goes through the frame.
    pub(super) fn staged(&self, stream: usize, tail: bool) -> bool {
        self.access(stream) == Access::Strided || tail && self.narrow.get(stream) == Some(&true)
    }

    /// Where its copy lies in the frame.
    pub(super) fn stage(&self, stream: usize) -> i32 {
        STAGES + 64 * stream as i32
    }

    /// Bytes of the frame before accumulators.
    pub(super) fn frame(&self) -> i32 {
        self.stage(self.accesses.len())
    }

    /// The bases in registers.
    pub(super) fn near(&self) -> impl Iterator<Item = (usize, Gpr)> + '_ {
        self.accesses.iter().enumerate().filter_map(|(k, access)| match access {
            Access::Near(base) => Some((k, *base)),
            Access::Far | Access::Strided => None,
        })
    }
}
