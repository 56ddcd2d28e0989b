//! Which instructions compute a strip: from its ops to instructions on virtual registers.
//!
//! One iteration covers 16 elements a group; each group is written as many times as it takes vectors, one after the
//! other, so that few values live at once (the machine overlaps them by itself). Constants, parameters and streams
//! that are read once are memory operands; the allocator then keeps the busiest constants in registers that are left
//! over ([`Pin`]).
//!
//! Lanes hold types as the page of [`super::super::lanes`] says, but for bools with AVX-512, which live in mask
//! registers. A strip that needs anything else is refused, and another back end takes it.

use frit_ir::types::Class;
use frit_ir::{BinaryOp, DType, UnaryOp};

use super::encode::{Asm, Mem, RAX, RSI, RSP};
use super::streams::{Access, Streams};
use super::table::{self as t, Ins};
use crate::cpu::strip::lanes::lane_bits;
use crate::cpu::strip::{Op, Strip, Unsupported, Val};
use crate::kernel::{Combine, Scalar};

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
    fn new(kind: Kind) -> Self {
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
    /// Which lanes of the tail count: one mask register, or a vector each.
    pub(super) masks: Vec<VReg>,
    /// Constants and parameters kept in registers.
    pub(super) pins: Vec<Pin>,
}

/// A constant or parameter in a register of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pin {
    pub(super) val: Val,
    pub(super) reg: VReg,
}

/// Where a value is.
#[derive(Clone, Copy, Debug)]
enum Place {
    Reg(VReg),
    Mem(Mem, bool),
}

/// What selection makes.
pub(super) struct Selected {
    pub(super) code: Vec<Inst>,
    /// The bank of each virtual register.
    pub(super) banks: Vec<Bank>,
    /// How much each constant or parameter would gain from a register.
    pub(super) scores: Vec<u32>,
}

/// How one body is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Groups of 16 elements.
    pub(super) groups: usize,
    /// Only some lanes count.
    pub(super) tail: bool,
}

pub(super) struct Select<'a> {
    strip: &'a Strip,
    streams: &'a Streams,
    asm: &'a mut Asm,
    shape: Shape,
    fixed: &'a Fixed,
    out: Selected,
    places: Vec<Option<Place>>,
    uses: Vec<u32>,
    last: Vec<usize>,
    /// Of each stream: the value that this element was last given.
    written: Vec<Option<Val>>,
    /// Comparisons that their only user absorbs: see [`absorbed`].
    absorbed: Vec<bool>,
    /// The op, group and vector being written.
    at: usize,
    group: usize,
    copy: usize,
}

/// Sign bit of a lane.
const SIGN: u32 = 0x8000_0000;

fn refuse<T>(what: String) -> Result<T, Unsupported> {
    Err(Unsupported(what))
}

/// The operands of an op.
fn operands(op: &Op) -> impl Iterator<Item = Val> + use<> {
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

/// Comparisons that become part of the instruction of their only user: `a < b ? a : b` is x86's own minimum, and
/// `a == a and b == b` is one comparison for NaN.
fn absorbed(strip: &Strip, uses: &[u32]) -> Vec<bool> {
    let op = |v: Val| strip.ops.get(v as usize).map(|o| o.op);
    let is_f32 = |v: Val| strip.ops.get(v as usize).is_some_and(|o| o.dtype == DType::F32);
    let once = |v: Val| uses.get(v as usize) == Some(&1);
    let mut absorbed = vec![false; strip.ops.len()];
    for typed in &strip.ops {
        let parts = match typed.op {
            Op::Select(c, a, b) if is_f32(a) && once(c) => match op(c) {
                Some(Op::Binary(BinaryOp::Lt, p, q)) if (a, b) == (p, q) || (a, b) == (q, p) => [Some(c), None],
                _ => continue,
            },
            Op::Binary(BinaryOp::And, c, d) if c != d && once(c) && once(d) => match (op(c), op(d)) {
                (Some(Op::Binary(BinaryOp::Eq, a, p)), Some(Op::Binary(BinaryOp::Eq, b, q)))
                    if a == p && b == q && is_f32(a) && is_f32(b) =>
                {
                    [Some(c), Some(d)]
                }
                _ => continue,
            },
            _ => continue,
        };
        for c in parts.into_iter().flatten() {
            if let Some(absorbed) = absorbed.get_mut(c as usize) {
                *absorbed = true;
            }
        }
    }
    absorbed
}

impl<'a> Select<'a> {
    /// Selects one body. `banks` are those of the fixed registers.
    pub(super) fn run(
        strip: &'a Strip,
        streams: &'a Streams,
        asm: &'a mut Asm,
        shape: Shape,
        fixed: &'a Fixed,
        banks: Vec<Bank>,
    ) -> Result<Selected, Unsupported> {
        let count = strip.ops.len();
        let (mut uses, mut last) = (vec![0; count], vec![0; count]);
        let read = |v: Val, at: usize, uses: &mut Vec<u32>, last: &mut Vec<usize>| {
            if let (Some(n), Some(l)) = (uses.get_mut(v as usize), last.get_mut(v as usize)) {
                (*n, *l) = (*n + 1, at);
            }
        };
        for (i, typed) in strip.ops.iter().enumerate() {
            operands(&typed.op).for_each(|v| read(v, i, &mut uses, &mut last));
        }
        strip.accs.iter().for_each(|acc| read(acc.value, usize::MAX, &mut uses, &mut last));
        let out = Selected { code: Vec::with_capacity(4 * count), banks, scores: vec![0; count] };
        let absorbed = absorbed(strip, &uses);
        let (places, written) = (vec![None; count], vec![None; strip.streams.len()]);
        let (at, group, copy) = (0, 0, 0);
        let mut this =
            Select { strip, streams, asm, shape, fixed, out, places, uses, last, written, absorbed, at, group, copy };
        for group in 0..shape.groups {
            this.group = group;
            this.stage(Kind::StageIn, |s| s.loaded);
            for copy in 0..16 / this.lanes() {
                this.copy = copy;
                this.body()?;
            }
            this.stage(Kind::StageOut, |s| s.stored);
        }
        Ok(this.out)
    }

    fn lanes(&self) -> usize {
        self.asm.isa.lanes()
    }

    fn masks(&self) -> bool {
        self.asm.isa.masks()
    }

    fn stage(&mut self, kind: fn(u32) -> Kind, wanted: fn(&crate::cpu::strip::Stream) -> bool) {
        for (k, stream) in self.strip.streams.iter().enumerate() {
            if wanted(stream) && self.streams.staged(k, self.shape.tail) {
                // Which group it is travels in the immediate.
                self.out.code.push(Inst { imm: Some(self.group as u8), ..Inst::new(kind(k as u32)) });
            }
        }
    }

    fn body(&mut self) -> Result<(), Unsupported> {
        self.places.fill(None);
        self.written.fill(None);
        for (i, typed) in self.strip.ops.iter().enumerate() {
            self.at = i;
            let place = self.op(typed.op, typed.dtype)?;
            if let (Some(slot), Some(place)) = (self.places.get_mut(i), place) {
                *slot = Some(place);
            }
        }
        self.at = usize::MAX;
        for (j, acc) in self.strip.accs.iter().enumerate() {
            self.accumulate(j, acc.combine, acc.value)?;
        }
        Ok(())
    }

    // Registers and places.

    fn fresh(&mut self, bank: Bank) -> VReg {
        self.out.banks.push(bank);
        self.out.banks.len() as VReg - 1
    }

    fn push(&mut self, inst: Inst) {
        self.out.code.push(inst);
    }

    /// `fresh = ins(first, rm)`
    fn vector(&mut self, ins: &'static Ins, first: Option<VReg>, rm: Source, imm: Option<u8>) -> VReg {
        let def = self.fresh(Bank::Vector);
        self.push(Inst { def: Some(def), first, rm, imm, ..Inst::new(Kind::Vector(ins)) });
        def
    }

    /// A comparison into a mask register.
    fn compare(&mut self, ins: &'static Ins, first: VReg, rm: Source, imm: Option<u8>) -> VReg {
        let def = self.fresh(Bank::Mask);
        self.push(Inst { def: Some(def), first: Some(first), rm, imm, ..Inst::new(Kind::Vector(ins)) });
        def
    }

    fn mask_op(&mut self, ins: &'static Ins, first: Option<VReg>, rm: VReg) -> VReg {
        let def = self.fresh(Bank::Mask);
        self.push(Inst { def: Some(def), first, rm: Source::Reg(rm), ..Inst::new(Kind::Mask(ins)) });
        def
    }

    /// The same 32 bits in every lane, from the pool.
    fn splat(&mut self, bits: u32) -> (Mem, bool) {
        let splat = self.masks();
        let bytes = bits.to_le_bytes();
        let mem = if splat { self.asm.constant(&bytes) } else { self.asm.constant(&bytes.repeat(self.lanes())) };
        (mem, splat)
    }

    fn splat_source(&mut self, bits: u32) -> Source {
        let (mem, splat) = self.splat(bits);
        Source::Mem(mem, splat)
    }

    /// A value from memory in a register.
    fn load(&mut self, mem: Mem, splat: bool) -> VReg {
        let ins = if splat { &t::SPLAT } else { &t::LOAD };
        self.vector(ins, None, Source::Mem(mem, false), None)
    }

    fn dtype(&self, v: Val) -> DType {
        self.strip.ops.get(v as usize).map_or(DType::F32, |op| op.dtype)
    }

    fn is_uniform(&self, v: Val) -> bool {
        matches!(self.strip.ops.get(v as usize).map(|op| op.op), Some(Op::Const(_) | Op::Param(_)))
    }

    fn place(&mut self, v: Val) -> Result<Place, Unsupported> {
        match self.places.get(v as usize) {
            Some(Some(place)) => Ok(*place),
            _ => refuse("an op of a strip uses what is not there".to_owned()),
        }
    }

    fn score(&mut self, v: Val, gain: u32) {
        if self.is_uniform(v)
            && let Some(score) = self.out.scores.get_mut(v as usize)
        {
            *score += gain;
        }
    }

    /// A value in a register.
    fn reg(&mut self, v: Val) -> Result<VReg, Unsupported> {
        match self.place(v)? {
            Place::Reg(r) => Ok(r),
            Place::Mem(mem, splat) => {
                self.score(v, 4);
                Ok(self.load(mem, splat))
            }
        }
    }

    /// A value as a last operand.
    fn source(&mut self, v: Val) -> Result<Source, Unsupported> {
        Ok(match self.place(v)? {
            Place::Reg(r) => Source::Reg(r),
            Place::Mem(mem, splat) => {
                self.score(v, 1);
                Source::Mem(mem, splat)
            }
        })
    }

    fn in_memory(&self, v: Val) -> bool {
        matches!(self.places.get(v as usize), Some(Some(Place::Mem(..))))
    }

    /// Whether nothing reads a value's register after this op.
    fn dies(&self, v: Val) -> bool {
        !self.is_uniform(v) && !self.in_memory(v) && self.last.get(v as usize) == Some(&self.at)
    }

    // Ops.

    fn op(&mut self, op: Op, dtype: DType) -> Result<Option<Place>, Unsupported> {
        let reg = match op {
            Op::Const(value) => return self.uniform(Some(value), 0, dtype).map(Some),
            Op::Param(p) => return self.uniform(None, p, dtype).map(Some),
            Op::Load(s) => return self.read(s, dtype).map(Some),
            Op::Store(s, v) => {
                self.write(s, v, dtype)?;
                if let Some(written) = self.written.get_mut(s as usize) {
                    *written = Some(v);
                }
                return self.place(v).map(Some);
            }
            Op::Unary(op, x) => self.unary(op, dtype, x)?,
            Op::Binary(..) if self.absorbed.get(self.at) == Some(&true) => return Ok(None),
            Op::Binary(op, a, b) => self.binary(op, self.dtype(a), a, b)?,
            Op::Select(c, a, b) => self.select(dtype, c, a, b)?,
            Op::Fma(a, b, c) if dtype == DType::F32 => self.fma(a, b, c)?,
            Op::Fma(..) => return refuse(format!("`fma` on {dtype}")),
            Op::Cast { value, saturate } => return self.cast(value, dtype, saturate).map(Some),
            Op::Bitcast(v) => {
                let from = self.dtype(v);
                if from.size() != dtype.size() || from == DType::Bool || dtype == DType::Bool {
                    return refuse(format!("a bitcast from {from} to {dtype}"));
                }
                if dtype.size() == 4 {
                    return self.place(v).map(Some);
                }
                let x = self.reg(v)?;
                self.normal(dtype, x)
            }
            Op::Rescue { ok, value, op, x } => self.rescue(ok, value, op, x)?,
        };
        Ok(Some(Place::Reg(reg)))
    }

    fn uniform(&mut self, constant: Option<Scalar>, param: u32, dtype: DType) -> Result<Place, Unsupported> {
        if let Some(pin) = self.fixed.pins.iter().find(|p| p.val as usize == self.at) {
            return Ok(Place::Reg(pin.reg));
        }
        let (mem, splat) = uniform_memory(self.asm, constant, param);
        if dtype != DType::Bool || !self.masks() {
            return Ok(Place::Mem(mem, splat));
        }
        let lanes = self.load(mem, splat);
        Ok(Place::Reg(self.compare(&t::PTESTMD, lanes, Source::Reg(lanes), None)))
    }

    /// The next elements of a stream.
    fn read(&mut self, stream: u32, dtype: DType) -> Result<Place, Unsupported> {
        if let Some(Some(v)) = self.written.get(stream as usize) {
            let v = *v;
            return self.place(v);
        }
        let k = stream as usize;
        let (tail, staged) = (self.shape.tail, self.streams.staged(k, self.shape.tail));
        let mem = self.memory(stream);
        let x = if staged {
            self.load(mem, false)
        } else {
            let ins = match (dtype.size(), dtype.class() == Class::Signed) {
                (4, _) => &t::LOAD,
                (1, true) => &t::PMOVSXBD,
                (1, false) => &t::PMOVZXBD,
                (2, true) => &t::PMOVSXWD,
                (2, false) => &t::PMOVZXWD,
                _ => return refuse(format!("a load of {dtype}")),
            };
            let stored = self.strip.streams.get(k).is_some_and(|s| s.stored);
            let once = self.uses.get(self.at) == Some(&1) && self.streams.access(k) != Access::Far;
            if dtype.size() == 4 && once && !tail && !stored {
                return Ok(Place::Mem(mem, false));
            }
            let mut inst = Inst { rm: Source::Mem(mem, false), ..Inst::new(Kind::Vector(ins)) };
            if tail && self.masks() {
                (inst.mask, inst.zero) = (self.tail_mask(), true);
            } else if tail {
                (inst.kind, inst.first) = (Kind::Vector(&t::MASKLOAD), self.tail_mask());
            }
            let def = self.fresh(Bank::Vector);
            self.push(Inst { def: Some(def), ..inst });
            def
        };
        if dtype != DType::Bool {
            return Ok(Place::Reg(x));
        }
        if self.masks() {
            return Ok(Place::Reg(self.compare(&t::PTESTMD, x, Source::Reg(x), None)));
        }
        let zero = self.splat_source(0);
        Ok(Place::Reg(self.vector(&t::PCMPGTD, Some(x), zero, None)))
    }

    fn tail_mask(&self) -> Option<VReg> {
        self.fixed.masks.get(if self.masks() { 0 } else { self.copy }).copied()
    }

    /// Where the next elements of a stream lie, or their copies; a base that has no register is loaded.
    fn memory(&mut self, stream: u32) -> Mem {
        let k = stream as usize;
        let element = (self.copy * self.lanes()) as i32;
        if self.streams.staged(k, self.shape.tail) {
            return Mem::at(RSP, self.streams.stage(k) + 4 * element);
        }
        let size = self.strip.streams.get(k).map_or(4, |s| s.dtype.size()) as i32;
        let base = match self.streams.access(k) {
            Access::Near(base) => base,
            Access::Far | Access::Strided => {
                self.push(Inst::new(Kind::Base(stream)));
                RAX
            }
        };
        let scale = size.trailing_zeros() as u8;
        Mem::At { base, index: Some((super::encode::R11, scale)), disp: (16 * self.group as i32 + element) * size }
    }

    /// Stores the next elements of a stream.
    fn write(&mut self, stream: u32, v: Val, dtype: DType) -> Result<(), Unsupported> {
        let k = stream as usize;
        let (tail, staged) = (self.shape.tail, self.streams.staged(k, self.shape.tail));
        let mut x = if dtype == DType::Bool { self.bits_of(v, 1)? } else { self.reg(v)? };
        let ins = match dtype.size() {
            _ if staged => &t::STORE,
            4 => &t::STORE,
            1 if self.masks() => &t::PMOVDB,
            2 if self.masks() => &t::PMOVDW,
            1 => {
                let pick = self.bytes_of_lanes(&[0, 4, 8, 12]);
                x = self.vector(&t::PSHUFB, Some(x), pick, None);
                x = self.join_halves(x, [0, 4, 3, 3]);
                if self.lanes() == 8 { &t::STORE8 } else { &t::STORE4 }
            }
            2 => {
                let pick = self.bytes_of_lanes(&[0, 1, 4, 5, 8, 9, 12, 13]);
                x = self.vector(&t::PSHUFB, Some(x), pick, None);
                if self.lanes() == 8 {
                    x = self.join_halves(x, [0, 1, 4, 5]);
                    &t::STORE16
                } else {
                    &t::STORE8
                }
            }
            _ => return refuse(format!("a store of {dtype}")),
        };
        let mem = self.memory(stream);
        let mut inst = Inst { rm: Source::Mem(mem, false), stored: Some(x), ..Inst::new(Kind::Vector(ins)) };
        if tail && !staged {
            if self.masks() {
                inst.mask = self.tail_mask();
            } else {
                (inst.kind, inst.first) = (Kind::Vector(&t::MASKSTORE), self.tail_mask());
            }
        }
        self.push(inst);
        Ok(())
    }

    /// Which bytes of each 128 bits come first; the rest are zeros.
    fn bytes_of_lanes(&mut self, pick: &[u8]) -> Source {
        let mut one = pick.to_vec();
        one.resize(16, 0x80);
        let all = one.repeat(self.lanes() / 4);
        Source::Mem(self.asm.constant(&all), false)
    }

    /// The first parts of both 128-bit halves next to each other.
    fn join_halves(&mut self, x: VReg, doublewords: [u32; 4]) -> VReg {
        if self.lanes() != 8 {
            return x;
        }
        let order: Vec<u8> = doublewords.iter().chain(&[3; 4]).flat_map(|i| i.to_le_bytes()).collect();
        let order = self.asm.constant(&order);
        let order = self.load(order, false);
        self.vector(&t::PERMD, Some(order), Source::Reg(x), None)
    }

    /// A bool as an integer or the bits of a float: `bits` where it is true.
    fn bits_of(&mut self, v: Val, bits: u32) -> Result<VReg, Unsupported> {
        let x = self.reg(v)?;
        let (mem, splat) = self.splat(bits);
        if !self.masks() {
            return Ok(self.vector(&t::ANDPS, Some(x), Source::Mem(mem, splat), None));
        }
        let def = self.fresh(Bank::Vector);
        let inst = Inst::new(Kind::Vector(&t::SPLAT));
        self.push(Inst { def: Some(def), rm: Source::Mem(mem, false), mask: Some(x), zero: true, ..inst });
        Ok(def)
    }

    /// An integer result brought back into its type's range.
    fn normal(&mut self, dtype: DType, x: VReg) -> VReg {
        let unused = 32u32.saturating_sub(8 * dtype.size() as u32);
        if unused == 0 {
            return x;
        }
        if dtype.class() == Class::Signed {
            let high = self.vector(&t::PSLLI, None, Source::Reg(x), Some(unused as u8));
            return self.vector(&t::PSRAI, None, Source::Reg(high), Some(unused as u8));
        }
        let mask = self.splat_source(u32::MAX >> unused);
        self.vector(&t::ANDPS, Some(x), mask, None)
    }

    fn unary(&mut self, op: UnaryOp, dtype: DType, v: Val) -> Result<VReg, Unsupported> {
        if dtype == DType::F32 {
            let rounding = match op {
                UnaryOp::RoundEven => Some(8),
                UnaryOp::Floor => Some(9),
                UnaryOp::Ceil => Some(10),
                UnaryOp::Trunc => Some(11),
                _ => None,
            };
            if rounding.is_some() {
                let x = self.source(v)?;
                let ins = if self.masks() { &t::RNDSCALEPS } else { &t::ROUNDPS };
                return Ok(self.vector(ins, None, x, rounding));
            }
            return match op {
                UnaryOp::Neg => self.with_bits(&t::XORPS, v, SIGN),
                UnaryOp::Abs => self.with_bits(&t::ANDPS, v, !SIGN),
                UnaryOp::Sqrt => {
                    let x = self.source(v)?;
                    Ok(self.vector(&t::SQRTPS, None, x, None))
                }
                _ => refuse(format!("`{}` on {dtype}", op.name())),
            };
        }
        match (op, dtype.class()) {
            (UnaryOp::Not, Class::Bool) if self.masks() => {
                let x = self.reg(v)?;
                Ok(self.mask_op(&t::KNOT, None, x))
            }
            (UnaryOp::Not, Class::Bool) => self.with_bits(&t::XORPS, v, u32::MAX),
            (UnaryOp::Not, Class::Signed | Class::Unsigned) => {
                let all = self.with_bits(&t::XORPS, v, u32::MAX)?;
                Ok(self.normal(dtype, all))
            }
            (UnaryOp::Neg, Class::Signed | Class::Unsigned) => {
                let (mem, splat) = self.splat(0);
                let zero = self.load(mem, splat);
                let x = self.source(v)?;
                let negated = self.vector(&t::PSUBD, Some(zero), x, None);
                Ok(self.normal(dtype, negated))
            }
            _ => refuse(format!("`{}` on {dtype}", op.name())),
        }
    }

    fn with_bits(&mut self, ins: &'static Ins, v: Val, bits: u32) -> Result<VReg, Unsupported> {
        let x = self.reg(v)?;
        let bits = self.splat_source(bits);
        Ok(self.vector(ins, Some(x), bits, None))
    }

    /// `ins(a, b)`, the operands exchanged where that saves a load.
    fn commuting(&mut self, ins: &'static Ins, a: Val, b: Val) -> Result<VReg, Unsupported> {
        let (a, b) = if self.in_memory(a) && !self.in_memory(b) { (b, a) } else { (a, b) };
        self.plain(ins, a, b)
    }

    fn plain(&mut self, ins: &'static Ins, a: Val, b: Val) -> Result<VReg, Unsupported> {
        let first = self.reg(a)?;
        let second = if a == b { Source::Reg(first) } else { self.source(b)? };
        Ok(self.vector(ins, Some(first), second, None))
    }

    /// `dtype` is that of the operands.
    fn binary(&mut self, op: BinaryOp, dtype: DType, a: Val, b: Val) -> Result<VReg, Unsupported> {
        use BinaryOp::{Add, And, Div, Eq, Le, Lt, Max, Min, Mul, Or, Shl, Shr, Sub, Xor};
        let class = dtype.class();
        match (class, op) {
            (Class::Float, _) if dtype != DType::F32 => refuse(format!("`{}` on {dtype}", op.name())),
            (Class::Float, Add) => self.commuting(&t::ADDPS, a, b),
            (Class::Float, Mul) => self.commuting(&t::MULPS, a, b),
            (Class::Float, Sub) => self.plain(&t::SUBPS, a, b),
            (Class::Float, Div) => self.plain(&t::DIVPS, a, b),
            (Class::Float, Min | Max) => {
                let (a, b) = (self.reg(a)?, self.reg(b)?);
                Ok(self.extreme(op == Min, a, b))
            }
            (Class::Float, Eq | Lt | Le) => {
                let predicate = match op {
                    Eq => 0,
                    Lt => 0x11,
                    _ => 0x12,
                };
                let (a, b) = (self.reg(a)?, self.source(b)?);
                Ok(if self.masks() {
                    self.compare(&t::CMPPS, a, b, Some(predicate))
                } else {
                    self.vector(&t::CMPPS, Some(a), b, Some(predicate))
                })
            }
            (Class::Bool, And) if self.absorbed.get(a as usize) == Some(&true) => {
                let operand = |v: Val| self.strip.ops.get(v as usize).and_then(|o| operands(&o.op).next());
                let (Some(x), Some(y)) = (operand(a), operand(b)) else { return refuse("a comparison".to_owned()) };
                let (x, y) = (self.reg(x)?, self.source(y)?);
                const ORDERED: Option<u8> = Some(7);
                Ok(if self.masks() {
                    self.compare(&t::CMPPS, x, y, ORDERED)
                } else {
                    self.vector(&t::CMPPS, Some(x), y, ORDERED)
                })
            }
            (Class::Bool, _) if self.masks() => {
                let ins = match op {
                    And => &t::KAND,
                    Or => &t::KOR,
                    Xor => &t::KXOR,
                    Eq => &t::KXNOR,
                    _ => return refuse(format!("`{}` on {dtype}", op.name())),
                };
                let (a, b) = (self.reg(a)?, self.reg(b)?);
                Ok(self.mask_op(ins, Some(a), b))
            }
            (Class::Bool | Class::Signed | Class::Unsigned, And) => self.commuting(&t::ANDPS, a, b),
            (Class::Bool | Class::Signed | Class::Unsigned, Or) => self.commuting(&t::ORPS, a, b),
            (Class::Bool | Class::Signed | Class::Unsigned, Xor) => self.commuting(&t::XORPS, a, b),
            (Class::Bool, Eq) => self.commuting(&t::PCMPEQD, a, b),
            (Class::Signed | Class::Unsigned, Add | Sub | Mul) => {
                let all = match op {
                    Add => self.commuting(&t::PADDD, a, b)?,
                    Sub => self.plain(&t::PSUBD, a, b)?,
                    _ => self.commuting(&t::PMULLD, a, b)?,
                };
                Ok(self.normal(dtype, all))
            }
            (Class::Signed | Class::Unsigned, Eq | Lt | Le) => self.compare_ints(op, dtype, a, b),
            (Class::Signed | Class::Unsigned, Min | Max) => {
                // Narrow unsigned values are positive in their lane.
                let signed = class == Class::Signed || dtype.size() < 4;
                let ins = match (op, signed) {
                    (Min, true) => &t::PMINSD,
                    (Min, false) => &t::PMINUD,
                    (_, true) => &t::PMAXSD,
                    (_, false) => &t::PMAXUD,
                };
                self.commuting(ins, a, b)
            }
            (Class::Signed | Class::Unsigned, Shl | Shr) => self.shift(op, dtype, a, b),
            _ => refuse(format!("`{}` on {dtype}", op.name())),
        }
    }

    fn compare_ints(&mut self, op: BinaryOp, dtype: DType, a: Val, b: Val) -> Result<VReg, Unsupported> {
        let unsigned = dtype == DType::U32;
        if self.masks() {
            let predicate = match op {
                BinaryOp::Eq => 0,
                BinaryOp::Lt => 1,
                _ => 2,
            };
            let (a, b) = (self.reg(a)?, self.source(b)?);
            return Ok(self.compare(if unsigned { &t::PCMPUD } else { &t::PCMPD }, a, b, Some(predicate)));
        }
        if op == BinaryOp::Eq {
            return self.commuting(&t::PCMPEQD, a, b);
        }
        let (mut x, mut y) = (self.reg(a)?, self.reg(b)?);
        if unsigned {
            let sign = self.splat_source(SIGN);
            x = self.vector(&t::XORPS, Some(x), sign, None);
            y = self.vector(&t::XORPS, Some(y), sign, None);
        }
        if op == BinaryOp::Lt {
            return Ok(self.vector(&t::PCMPGTD, Some(y), Source::Reg(x), None));
        }
        let greater = self.vector(&t::PCMPGTD, Some(x), Source::Reg(y), None);
        let all = self.splat_source(u32::MAX);
        Ok(self.vector(&t::XORPS, Some(greater), all, None))
    }

    fn shift(&mut self, op: BinaryOp, dtype: DType, a: Val, b: Val) -> Result<VReg, Unsupported> {
        let left = op == BinaryOp::Shl;
        let signed = dtype.class() == Class::Signed;
        let amount = match self.strip.ops.get(b as usize).map(|o| o.op) {
            Some(Op::Const(amount)) => Some(amount.bits as u8),
            _ => None,
        };
        let ins = match (amount.is_some(), left, signed) {
            (true, true, _) => &t::PSLLI,
            (true, false, true) => &t::PSRAI,
            (true, false, false) => &t::PSRLI,
            (false, true, _) => &t::PSLLV,
            (false, false, true) => &t::PSRAV,
            (false, false, false) => &t::PSRLV,
        };
        let x = self.reg(a)?;
        let shifted = match amount {
            Some(amount) => self.vector(ins, None, Source::Reg(x), Some(amount)),
            None => {
                let by = self.source(b)?;
                self.vector(ins, Some(x), by, None)
            }
        };
        Ok(if left { self.normal(dtype, shifted) } else { shifted })
    }

    /// The smaller or larger; NaN wins, -0 is below +0.
    fn extreme(&mut self, smallest: bool, a: VReg, b: VReg) -> VReg {
        if self.masks() {
            // `vrange` orders zeros but prefers numbers to NaN: those lanes take the sum, which is NaN.
            let (def, sign_of_result) = (self.fresh(Bank::Vector), 4);
            let unordered = self.compare(&t::CMPPS, a, Source::Reg(b), Some(3));
            let range = Some(sign_of_result | u8::from(!smallest));
            let best = self.vector(&t::RANGEPS, Some(a), Source::Reg(b), range);
            let inst = Inst { first: Some(a), rm: Source::Reg(b), ..Inst::new(Kind::Vector(&t::ADDPS)) };
            self.push(Inst { def: Some(def), tied: Some(best), mask: Some(unordered), ..inst });
            return def;
        }
        // min and max give their second operand for NaN and for zeros of both signs: done both ways, the results
        // differ only then.
        let ins = if smallest { &t::MINPS } else { &t::MAXPS };
        let x = self.vector(ins, Some(a), Source::Reg(b), None);
        let y = self.vector(ins, Some(b), Source::Reg(a), None);
        if smallest {
            return self.vector(&t::ORPS, Some(x), Source::Reg(y), None);
        }
        // Zeros of both signs: -0 - -0 is +0.
        let differ = self.vector(&t::XORPS, Some(x), Source::Reg(y), None);
        let both = self.vector(&t::ORPS, Some(x), Source::Reg(y), None);
        self.vector(&t::SUBPS, Some(both), Source::Reg(differ), None)
    }

    fn select(&mut self, dtype: DType, c: Val, a: Val, b: Val) -> Result<VReg, Unsupported> {
        if self.absorbed.get(c as usize) == Some(&true)
            && let Some(Op::Binary(_, p, _)) = self.strip.ops.get(c as usize).map(|o| o.op)
        {
            // Both give their second operand where the comparison fails.
            return self.plain(if p == a { &t::MINPS } else { &t::MAXPS }, a, b);
        }
        let chosen = self.reg(c)?;
        if !self.masks() {
            // blendv takes its last operand where the condition holds.
            let (b, a) = (self.reg(b)?, self.source(a)?);
            let def = self.fresh(Bank::Vector);
            let inst = Inst { first: Some(b), rm: a, chosen: Some(chosen), ..Inst::new(Kind::Vector(&t::BLENDV)) };
            self.push(Inst { def: Some(def), imm: Some(0), ..inst });
            return Ok(def);
        }
        if dtype == DType::Bool {
            let (a, b) = (self.reg(a)?, self.reg(b)?);
            let taken = self.mask_op(&t::KAND, Some(chosen), a);
            let left = self.mask_op(&t::KANDN, Some(chosen), b);
            return Ok(self.mask_op(&t::KOR, Some(taken), left));
        }
        let (b, a) = (self.reg(b)?, self.source(a)?);
        let def = self.fresh(Bank::Vector);
        let inst = Inst { first: Some(b), rm: a, mask: Some(chosen), ..Inst::new(Kind::Vector(&t::BLENDM)) };
        self.push(Inst { def: Some(def), ..inst });
        Ok(def)
    }

    /// a b + c. The result takes the register of an operand: of one that is not needed any more, if there is one.
    fn fma(&mut self, a: Val, b: Val, c: Val) -> Result<VReg, Unsupported> {
        let (a, b) = if self.in_memory(a) && !self.in_memory(b) { (b, a) } else { (a, b) };
        let (a, b) = if !self.dies(a) && self.dies(b) { (b, a) } else { (a, b) };
        let product_dies = self.dies(a) && a != b && a != c;
        let (ins, tied, first, rm) = if self.dies(c) && c != a && c != b || !product_dies && !self.in_memory(a) {
            // 231: c = a b + c
            let tied = self.reg(c)?;
            let (first, rm) = if self.in_memory(a) { (b, a) } else { (a, b) };
            let first = self.reg(first)?;
            (&t::FMA231, tied, first, self.source(rm)?)
        } else if self.in_memory(b) && !self.in_memory(c) {
            // 132: a = a b + c
            let (tied, first) = (self.reg(a)?, self.reg(c)?);
            (&t::FMA132, tied, first, self.source(b)?)
        } else {
            // 213: a = b a + c
            let (tied, first) = (self.reg(a)?, self.reg(b)?);
            (&t::FMA213, tied, first, self.source(c)?)
        };
        let def = self.fresh(Bank::Vector);
        let inst = Inst::new(Kind::Vector(ins));
        self.push(Inst { def: Some(def), tied: Some(tied), first: Some(first), rm, ..inst });
        Ok(def)
    }

    fn cast(&mut self, v: Val, to: DType, saturate: bool) -> Result<Place, Unsupported> {
        let from = self.dtype(v);
        let plain = |dtype: DType| dtype.is_int() && matches!(dtype.bits(), 8 | 16 | 32);
        if from == to {
            return self.place(v);
        }
        let reg = match (from, to) {
            _ if saturate => return refuse(format!("a saturating cast from {from} to {to}")),
            (DType::F32, DType::I32) => {
                let x = self.source(v)?;
                self.vector(&t::CVTTPS2DQ, None, x, None)
            }
            (DType::Bool, DType::F32) => self.bits_of(v, 1f32.to_bits())?,
            (DType::Bool, to) if plain(to) => self.bits_of(v, 1)?,
            (from, DType::F32) if plain(from) && from != DType::U32 => {
                let x = self.source(v)?;
                self.vector(&t::CVTDQ2PS, None, x, None)
            }
            (from, to) if plain(from) && plain(to) => {
                let x = self.reg(v)?;
                self.normal(to, x)
            }
            _ => return refuse(format!("a cast from {from} to {to}")),
        };
        Ok(Place::Reg(reg))
    }

    fn rescue(&mut self, ok: Val, value: Val, op: UnaryOp, x: Val) -> Result<VReg, Unsupported> {
        let function = crate::cpu::abi::FUNCTIONS.iter().position(|f| *f == op.name());
        let Some(function) = function else { return refuse(format!("`{}`", op.name())) };
        let (ok, value, x) = (self.reg(ok)?, self.reg(value)?, self.reg(x)?);
        let def = self.fresh(Bank::Vector);
        let inst = Inst { first: Some(x), chosen: Some(ok), ..Inst::new(Kind::Rescue(function as u32)) };
        self.push(Inst { def: Some(def), tied: Some(value), ..inst });
        Ok(def)
    }

    /// Combines a value into the accumulator of its lanes.
    fn accumulate(&mut self, j: usize, how: Combine, v: Val) -> Result<(), Unsupported> {
        let dtype = self.dtype(v);
        let tail = self.shape.tail;
        let place = self.fixed.accs.get(j).and_then(|vectors| vectors.get(self.copy)).copied();
        let memory = Mem::at(super::encode::RDX, (64 * j + self.asm.isa.bytes() * self.copy) as i32);
        let acc = match place {
            Some(acc) => acc,
            None => self.load(memory, false),
        };
        let single = match (dtype, how.op()) {
            (DType::F32, BinaryOp::Add) => Some(&t::ADDPS),
            (DType::F32, BinaryOp::Mul) => Some(&t::MULPS),
            (DType::F32, _) => None,
            (_, BinaryOp::Add) => Some(&t::PADDD),
            (_, BinaryOp::Mul) => Some(&t::PMULLD),
            (DType::U32, BinaryOp::Min) => Some(&t::PMINUD),
            (DType::U32, _) => Some(&t::PMAXUD),
            (_, BinaryOp::Min) => Some(&t::PMINSD),
            (_, _) => Some(&t::PMAXSD),
        };
        let new = match single {
            Some(ins) => {
                let value = self.source(v)?;
                if !tail && place.is_some() {
                    let inst = Inst { first: Some(acc), rm: value, ..Inst::new(Kind::Vector(ins)) };
                    self.push(Inst { def: Some(acc), ..inst });
                    return Ok(());
                }
                self.vector(ins, Some(acc), value, None)
            }
            None => {
                let value = self.reg(v)?;
                self.extreme(how.op() == BinaryOp::Min, acc, value)
            }
        };
        let kept = if !tail {
            new
        } else if self.masks() {
            let def = place.unwrap_or_else(|| self.fresh(Bank::Vector));
            let inst = Inst { mask: self.tail_mask(), rm: Source::Reg(new), ..Inst::new(Kind::Vector(&t::MOVE)) };
            self.push(Inst { def: Some(def), tied: Some(acc), ..inst });
            def
        } else {
            let inst = Inst { first: Some(acc), rm: Source::Reg(new), ..Inst::new(Kind::Vector(&t::BLENDV)) };
            let def = place.unwrap_or_else(|| self.fresh(Bank::Vector));
            self.push(Inst { def: Some(def), chosen: self.tail_mask(), imm: Some(0), ..inst });
            def
        };
        match place {
            Some(acc) if kept != acc => {
                let inst = Inst { def: Some(acc), rm: Source::Reg(kept), ..Inst::new(Kind::Vector(&t::MOVE)) };
                self.push(inst);
            }
            Some(_) => {}
            None => {
                let inst = Inst { stored: Some(kept), ..Inst::new(Kind::Vector(&t::STORE)) };
                self.push(Inst { rm: Source::Mem(memory, false), ..inst });
            }
        }
        Ok(())
    }
}

/// Where a constant or parameter lies, and whether one element stands for all lanes.
pub(super) fn uniform_memory(asm: &mut Asm, constant: Option<Scalar>, param: u32) -> (Mem, bool) {
    let splat = asm.isa.masks();
    let mem = match constant {
        Some(value) => {
            let bytes = lane_bits(value).to_le_bytes();
            let lanes = if splat { 1 } else { asm.isa.lanes() };
            asm.constant(&bytes.repeat(lanes))
        }
        None => Mem::at(RSI, 64 * param as i32),
    };
    (mem, splat)
}
