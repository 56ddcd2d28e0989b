//! Instructions on virtual registers: what selection makes and allocation reads.

use super::encode::Mem;
use super::table::Ins;
use crate::cpu::strip::Val;

/// A virtual register. Each is written once, but for accumulators.
pub(super) type VReg = u32;

/// What kind of register a value needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Bank {
    Vector = 0,
    Mask = 1,
}

/// The last operand of an instruction.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Source {
    Reg(VReg),
    /// Memory; one element for all lanes when the flag is set.
    Mem(Mem, bool),
    None,
}

/// What an instruction is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// On vectors; comparisons under AVX-512 write masks.
    Vector(&'static Ins),
    /// On mask registers.
    Mask(&'static Ins),
    /// Copies the next elements of a stream into its place in the frame, one by one.
    StageIn(u32),
    /// Copies them back.
    StageOut(u32),
    /// Loads the base of a stream without a register of its own into rax, for the next instruction.
    Base(u32),
    /// `tied` where `chosen` is true, else the function of that number of `first`.
    Rescue(u32),
    /// Leaves for the complete body of this group and vector unless all of `chosen` is true.
    Guard(usize),
    /// Where that comes back.
    Back(usize),
}

/// An instruction on virtual registers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inst {
    pub(super) kind: Kind,
    pub(super) def: Option<VReg>,
    /// Read, and overwritten by the result: they share a register.
    pub(super) tied: Option<VReg>,
    pub(super) first: Option<VReg>,
    pub(super) rm: Source,
    pub(super) stored: Option<VReg>,
    /// A vector register named by the immediate, or the condition of a rescue.
    pub(super) chosen: Option<VReg>,
    pub(super) imm: Option<u8>,
    pub(super) mask: Option<VReg>,
    pub(super) zero: bool,
}

impl Inst {
    pub(super) fn new(kind: Kind) -> Self {
        Inst {
            kind,
            def: None,
            tied: None,
            first: None,
            rm: Source::None,
            stored: None,
            chosen: None,
            imm: None,
            mask: None,
            zero: false,
        }
    }

    /// The virtual registers that it reads.
    pub(super) fn reads(&self) -> impl Iterator<Item = VReg> + use<> {
        let rm = match self.rm {
            Source::Reg(r) => Some(r),
            Source::Mem(..) | Source::None => None,
        };
        [self.tied, self.first, rm, self.stored, self.chosen, self.mask].into_iter().flatten()
    }
}

/// Registers that are the same at every iteration.
#[derive(Clone, Debug, Default)]
pub(super) struct Fixed {
    /// Accumulators: a register for each vector of the 16 lanes, for those that are kept in registers.
    pub(super) accs: Vec<Vec<VReg>>,
    /// Which lanes of the tail count: a mask register, moved on from vector to vector, or a vector each.
    pub(super) masks: Vec<VReg>,
    /// What is computed ahead: each result for this vector, and for the next.
    pub(super) ahead: Vec<[VReg; 2]>,
    /// Constants and parameters kept in registers.
    pub(super) pins: Vec<Pin>,
}

/// A constant or parameter in a register of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pin {
    pub(super) val: Val,
    pub(super) reg: VReg,
}
