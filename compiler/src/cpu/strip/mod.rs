//! Innermost loops as strips: straight-line code that every lane runs, with no machine and no width in it.
//!
//! ```text
//!  For / Reduce with a `vector` directive --[outline]--> Strip --[StripBackend]--> leaf function
//!        '--[call]--> stream addresses and parameters laid out in the frame, the call, lanes combined
//! ```
//!
//! A strip that asks what is the same in all lanes is several, one for each answer (`unswitch`).
//!
//! A leaf is `extern "C" fn(streams, params, accumulators, n, functions)`:
//! - `streams`: a [`StreamArg`] each, where element 0 lies and how many bytes the next is away;
//! - `params`: 64 bytes each, one value of 4 bytes 16 times over;
//! - `accumulators`: 64 bytes each, of which the first 4 are the result: element k of the strip is combined into lane k mod
//!   16, from a neutral element on; at the end lane i with lane i + 8, i + 4, i + 2, i + 1;
//! - `n`: how many elements, at least one; nothing outside of them is read or written;
//! - `functions`: the table of [`super::abi::FUNCTIONS`].
//!
//! So one layout serves every width, and a back end with wider vectors stands beside `clif` behind [`StripBackend`].
//! `eval` defines what a strip computes; every back end gives its bits at every lane count. Two streams may be one memory,
//! element by element, where all loads of one come before the stores of the other (an output that is written over an
//! input): so no load moves behind a store that it stood before, and each element is read and written in its own turn.
//!
//! Lanes have 32 bits: f32, integers up to 32 bits (kept extended to 32 by their sign), bools, the bits of 16-bit
//! floats. Loops over 64-bit values run one element at a time.

mod call;
pub(super) mod clif;
#[cfg(test)]
mod eval;
mod lanes;
mod outline;
mod schedule;
#[cfg(test)]
mod tests;
mod unswitch;
pub(super) mod x64;

use frit_ir::{BinaryOp, DType, UnaryOp};

use super::code::Texts;
use super::error::Refusal;
use super::link::Piece;
use crate::kernel::{Combine, Scalar};

/// The result of an op, by its position.
pub type Val = u32;

/// Memory that a strip walks along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Element type.
    pub dtype: DType,
    /// Bytes from one element to the next, where that is known; the call gives it all the same.
    pub gap: Option<i32>,
    /// Whether the strip reads it.
    pub loaded: bool,
    /// Whether the strip writes it.
    pub stored: bool,
}

impl Stream {
    /// Whether elements follow each other without gaps.
    pub fn is_dense(&self) -> bool {
        self.gap.is_some_and(|gap| gap as usize == self.dtype.size())
    }
}

/// Where a stream lies, for a call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct StreamArg {
    /// Its first element.
    pub base: *mut u8,
    /// Bytes from one element to the next.
    pub step: i64,
}

/// One operation of every lane.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    /// A constant.
    Const(Scalar),
    /// A value that is the same in all lanes, by position.
    Param(u32),
    /// The lane's element of a stream.
    Load(u32),
    /// Writes the lane's element of a stream; its own value is the value written.
    Store(u32, Val),
    /// A core op.
    Unary(UnaryOp, Val),
    /// A core op.
    Binary(BinaryOp, Val, Val),
    /// `c ? a : b`
    Select(Val, Val, Val),
    /// a b + c, rounded once.
    Fma(Val, Val, Val),
    /// Conversion to the op's type.
    Cast {
        /// What.
        value: Val,
        /// Clamp instead of overflow.
        saturate: bool,
    },
    /// `ok ? value : op(x)` of f32, where op goes through the f64 function of its name.
    Rescue {
        /// Which lanes are good.
        ok: Val,
        /// What good lanes hold.
        value: Val,
        /// An elementary function.
        op: UnaryOp,
        /// Its operand.
        x: Val,
    },
    /// The same bits as the op's type.
    Bitcast(Val),
}

/// The operands of an op.
pub(super) fn operands(op: &Op) -> impl Iterator<Item = Val> + use<> {
    let all = match *op {
        Op::Const(_) | Op::Param(_) | Op::Load(_) => [None; 3],
        Op::Store(_, v) | Op::Unary(_, v) | Op::Cast { value: v, .. } | Op::Bitcast(v) => [Some(v), None, None],
        Op::Binary(_, a, b) => [Some(a), Some(b), None],
        Op::Select(a, b, c) | Op::Fma(a, b, c) | Op::Rescue { ok: a, value: b, x: c, .. } => {
            [Some(a), Some(b), Some(c)]
        }
    };
    all.into_iter().flatten()
}

/// An op and the type of its value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TypedOp {
    /// What is computed.
    pub op: Op,
    /// The type of its value.
    pub dtype: DType,
}

/// A reduction that a strip takes part in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StripAcc {
    /// How.
    pub combine: Combine,
    /// What: of type f32, i32 or u32.
    pub value: Val,
    /// Of a sum of f32: what each value is multiplied by, the product rounded together with the sum.
    pub factor: Option<Val>,
}

/// A straight-line body over streams. Operands come before their uses; lanes do not see each other.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Strip {
    /// Memory.
    pub streams: Vec<Stream>,
    /// Types of the parameters.
    pub params: Vec<DType>,
    /// The body, in order.
    pub ops: Vec<TypedOp>,
    /// What is combined over the elements.
    pub accs: Vec<StripAcc>,
}

/// How a leaf is to be made.
#[derive(Clone, Copy, Debug)]
pub struct StripSchedule {
    /// Elements at once: 4, 8 or 16.
    pub lanes: u32,
    /// Whether texts of the code are wanted.
    pub text: bool,
}

/// A compiled strip.
pub struct Leaf {
    /// Its code.
    pub(super) piece: Piece,
    /// Its texts, when asked for.
    pub(super) texts: Texts,
}

/// Why a back end leaves a strip to others.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unsupported(pub String);

/// Makes leaves.
pub trait StripBackend: Send {
    /// The leaf of a strip, or why not.
    fn compile(&mut self, strip: &Strip, schedule: StripSchedule) -> Result<Leaf, Unsupported>;
}

/// Whether values of a type fit the lanes of strips.
pub(super) fn fits_lane(dtype: DType) -> bool {
    (1..=4).contains(&dtype.size())
}

/// The leaves of one kernel, and who makes them.
pub(super) struct Leaves {
    backend: Box<dyn StripBackend>,
    /// Number of the first leaf among the kernel's functions.
    first: usize,
    text: bool,
    known: Vec<(Strip, u32)>,
    pieces: Vec<Piece>,
    texts: Texts,
}

impl Leaves {
    /// No leaves yet.
    pub(super) fn new(backend: Box<dyn StripBackend>) -> Self {
        let (known, pieces, texts) = (Vec::new(), Vec::new(), Texts::default());
        Leaves { backend, first: 0, text: false, known, pieces, texts }
    }

    /// Begins a kernel whose leaves are numbered from `first`.
    pub(super) fn begin(&mut self, first: usize, text: bool) {
        (self.first, self.text) = (first, text);
        self.known.clear();
        self.pieces.clear();
        self.texts = Texts::default();
    }

    /// The function number of the leaf of a strip: an equal strip's, or a new one.
    fn of(&mut self, strip: Strip, lanes: u32) -> Result<usize, Unsupported> {
        if let Some(i) = self.known.iter().position(|(s, l)| *l == lanes && *s == strip) {
            return Ok(self.first + i);
        }
        let leaf = self.backend.compile(&schedule::scheduled(&strip), StripSchedule { lanes, text: self.text })?;
        self.known.push((strip, lanes));
        self.pieces.push(leaf.piece);
        self.texts.clif.push_str(&leaf.texts.clif);
        self.texts.asm.push_str(&leaf.texts.asm);
        Ok(self.first + self.pieces.len() - 1)
    }

    /// All of the kernel.
    pub(super) fn take(&mut self) -> (Vec<Piece>, Texts) {
        (std::mem::take(&mut self.pieces), std::mem::take(&mut self.texts))
    }
}

impl StripAcc {
    /// What it takes of each element.
    pub(super) fn operands(&self) -> impl Iterator<Item = Val> + use<> {
        [self.value].into_iter().chain(self.factor)
    }
}

impl From<Refusal> for Unsupported {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unsupported(what) | Refusal::Invalid(what) | Refusal::Internal(what) => Unsupported(what),
        }
    }
}
