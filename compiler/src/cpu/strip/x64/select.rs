//! Which instructions compute a strip: from its ops to instructions on virtual registers.
//!
//! One iteration covers 16 elements a group; each group is written as many times as it takes vectors, one after the
//! other, so that few values live at once (the machine overlaps them by itself). Constants, parameters and streams
//! that are read once are memory operands; the allocator then keeps the busiest constants in registers that are left
//! over ([`Pin`]).
//!
//! Loads keep their place before stores: what a load stands for is in a register before any store behind it is written,
//! since another stream may be the same memory, of the same elements.
//!
//! Lanes hold types as the page of [`super::super::lanes`] says, but for bools with AVX-512, which live in mask
//! registers. A strip that needs anything else is refused, and another back end takes it.

use frit_ir::types::Class;
use frit_ir::{BinaryOp, DType, UnaryOp};

use super::ahead::Ahead;
use super::analyse::{Guarded, Part, Shape, Usual, absorbed, guarded, merged, reach};
use super::encode::{Asm, Mem, RSI};
use super::inst::{Bank, Fixed, Inst, Kind, Source, VReg};
use super::streams::Streams;
use super::table::{self as t, Ins};
use crate::cpu::strip::lanes::lane_bits;
use crate::cpu::strip::{Op, Strip, StripAcc, Unsupported, Val, operands};
use crate::kernel::Scalar;

/// Where a value is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
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

pub(super) struct Select<'a> {
    usual: Option<&'a Usual>,
    pub(super) strip: &'a Strip,
    pub(super) streams: &'a Streams,
    pub(super) asm: &'a mut Asm,
    pub(super) shape: Shape,
    pub(super) fixed: &'a Fixed,
    pub(super) out: Selected,
    pub(super) places: Vec<Option<Place>>,
    pub(super) uses: Vec<u32>,
    last: Vec<usize>,
    /// The last op at which a value's place is read: what an op absorbs, it reads.
    pub(super) reach: Vec<usize>,
    /// Of each stream: the value that this element was last given.
    pub(super) written: Vec<Option<Val>>,
    /// Comparisons that their only user absorbs: see [`absorbed`].
    absorbed: Vec<bool>,
    /// Of each accumulator: whether it has what this element gives it.
    combined: Vec<bool>,
    /// Of each accumulator: the extreme that it takes where that is computed.
    pub(super) guarded: Vec<Option<Guarded>>,
    /// What is computed for the next vector.
    ahead: Option<&'a Ahead>,
    /// Whether the vector being written is the first of the next elements.
    pub(super) ahead_of_all: bool,
    /// The op, group and vector being written.
    pub(super) at: usize,
    pub(super) group: usize,
    pub(super) copy: usize,
}

/// Sign bit of a lane.
const SIGN: u32 = 0x8000_0000;

pub(super) fn refuse<T>(what: String) -> Result<T, Unsupported> {
    Err(Unsupported(what))
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
        (usual, ahead): (Option<&'a Usual>, Option<&'a Ahead>),
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
        strip.accs.iter().flat_map(StripAcc::operands).for_each(|v| read(v, usize::MAX, &mut uses, &mut last));
        let out = Selected { code: Vec::with_capacity(4 * count), banks, scores: vec![0; count] };
        let mut absorbed = absorbed(strip, &uses);
        if asm.isa.masks() {
            merged(strip, &uses, &mut absorbed);
        }
        let reach = reach(strip, &absorbed);
        let (places, written) = (vec![None; count], vec![None; strip.streams.len()]);
        let (at, group, copy) = (0, 0, 0);
        let usual = usual.filter(|_| matches!(shape.part, Part::Usual | Part::First));
        // Only behind guards, where nothing is combined twice.
        let late = |g: &Guarded| {
            usual.is_none_or(|u| u.early.get(g.at) != Some(&true) && !u.conditions.contains(&g.condition))
        };
        let guarded = if shape.tail { Vec::new() } else { guarded(strip) };
        let guarded = guarded.into_iter().map(|g| g.filter(late)).collect();
        let mut this = Select {
            usual,
            strip,
            streams,
            asm,
            shape,
            fixed,
            out,
            places,
            uses,
            last,
            reach,
            written,
            absorbed,
            combined: vec![false; strip.accs.len()],
            guarded,
            ahead: ahead.filter(|_| !shape.tail && !matches!(shape.part, Part::One(..))),
            ahead_of_all: false,
            at,
            group,
            copy,
        };
        match shape.part {
            Part::One(group, copy) => {
                (this.group, this.copy) = (group, copy);
                this.body()?;
                return Ok(this.out);
            }
            Part::First => {
                this.chains(0)?;
                return Ok(this.out);
            }
            Part::Fold => {
                this.fold()?;
                return Ok(this.out);
            }
            Part::Complete | Part::Usual => {}
        }
        for group in 0..shape.groups {
            this.group = group;
            this.stage(Kind::StageIn, |s| s.loaded);
            for copy in 0..shape.copies {
                if shape.tail && copy > 0 {
                    this.next_mask();
                }
                this.copy = copy;
                this.body()?;
            }
            this.stage(Kind::StageOut, |s| s.stored);
        }
        Ok(this.out)
    }

    pub(super) fn lanes(&self) -> usize {
        self.asm.isa.lanes()
    }

    pub(super) fn masks(&self) -> bool {
        self.asm.isa.masks()
    }

    fn body(&mut self) -> Result<(), Unsupported> {
        self.places.fill(None);
        self.written.fill(None);
        self.combined.fill(false);
        let place = self.group * self.shape.copies + self.copy;
        let ahead = self.ahead;
        if ahead.is_some() {
            self.next_chains()?;
        }
        let rest = |i: usize| ahead.is_none_or(|a| a.rest.get(i) == Some(&true) && !a.results.contains(&(i as Val)));
        match self.usual {
            None => {
                self.accumulate_ahead()?;
                self.ops(&rest, true)?;
            }
            Some(usual) => {
                // Behind the guard, where nothing is combined twice.
                self.ops(&|i| usual.early.get(i) == Some(&true), false)?;
                self.guard(&usual.conditions, place)?;
                self.at = usize::MAX;
                for (i, _) in usual.early.iter().enumerate().filter(|(_, early)| **early) {
                    self.accumulate_value(i as Val)?;
                }
                self.accumulate_ahead()?;
                let late = |i| usual.early.get(i) != Some(&true) && usual.late.get(i) == Some(&true) && rest(i);
                self.ops(&late, true)?;
            }
        }
        if self.usual.is_some() {
            self.push(Inst::new(Kind::Back(place)));
        }
        for [now, next] in ahead.map(|_| self.fixed.ahead.clone()).unwrap_or_default() {
            self.push(Inst { def: Some(now), rm: Source::Reg(next), ..Inst::new(Kind::Vector(&t::MOVE)) });
        }
        Ok(())
    }

    /// What is computed ahead, for the vector after this one; this one's is at hand.
    fn next_chains(&mut self) -> Result<(), Unsupported> {
        let copy = self.copy;
        let is_last = copy + 1 >= self.shape.copies;
        (self.copy, self.ahead_of_all) = if is_last { (0, true) } else { (copy + 1, false) };
        self.chains(1)?;
        (self.copy, self.ahead_of_all) = (copy, false);
        self.places.fill(None);
        for (v, [now, _]) in self.ahead.iter().flat_map(|a| &a.results).zip(&self.fixed.ahead) {
            if let Some(place) = self.places.get_mut(*v as usize) {
                *place = Some(Place::Reg(*now));
            }
        }
        Ok(())
    }

    /// Combines what was computed ahead into the accumulators that take it as it is.
    fn accumulate_ahead(&mut self) -> Result<(), Unsupported> {
        let results = self.ahead.map(|a| a.results.as_slice()).unwrap_or_default();
        results.iter().try_for_each(|v| self.accumulate_value(*v))
    }

    /// What is computed ahead, into the registers of this vector (0) or of the next (1).
    fn chains(&mut self, which: usize) -> Result<(), Unsupported> {
        let Some(ahead) = self.ahead else { return Ok(()) };
        self.ops(&|i| ahead.chains.get(i) == Some(&true), false)?;
        for (v, regs) in ahead.results.iter().zip(&self.fixed.ahead) {
            let value = self.reg(*v)?;
            self.push(Inst { def: Some(regs[which]), rm: Source::Reg(value), ..Inst::new(Kind::Vector(&t::MOVE)) });
        }
        Ok(())
    }

    /// Combines a value into the accumulators that take it as it is.
    fn accumulate_value(&mut self, v: Val) -> Result<(), Unsupported> {
        for (j, acc) in self.strip.accs.iter().enumerate().filter(|(_, acc)| acc.operands().any(|o| o == v)) {
            let ready = acc.operands().all(|o| matches!(self.places.get(o as usize), Some(Some(_))));
            if !ready || self.guarded.get(j).copied().flatten().is_some() {
                continue;
            }
            if let Some(combined @ false) = self.combined.get_mut(j) {
                *combined = true;
                self.accumulate(j)?;
            }
        }
        Ok(())
    }

    /// Ops, each perhaps with the accumulators that take its value: at once, so that it need not be kept.
    fn ops(&mut self, wanted: &dyn Fn(usize) -> bool, accumulate: bool) -> Result<(), Unsupported> {
        for (i, typed) in self.strip.ops.iter().enumerate().filter(|(i, _)| wanted(*i)) {
            self.at = i;
            let place = self.op(typed.op, typed.dtype)?;
            if let (Some(slot), Some(place)) = (self.places.get_mut(i), place) {
                *slot = Some(place);
            }
            if accumulate {
                self.accumulate_value(i as Val)?;
            }
        }
        Ok(())
    }

    /// Leaves unless the conditions hold in all lanes.
    fn guard(&mut self, conditions: &[Val], place: usize) -> Result<(), Unsupported> {
        let mut all: Option<VReg> = None;
        for &condition in conditions {
            let c = self.reg(condition)?;
            all = Some(match all {
                None => c,
                Some(a) if self.masks() => self.mask_op(&t::KAND, Some(a), c),
                Some(a) => self.vector(&t::ANDPS, Some(a), Source::Reg(c), None),
            });
        }
        self.push(Inst { chosen: all, ..Inst::new(Kind::Guard(place)) });
        Ok(())
    }

    // Registers and places.

    pub(super) fn fresh(&mut self, bank: Bank) -> VReg {
        self.out.banks.push(bank);
        self.out.banks.len() as VReg - 1
    }

    pub(super) fn push(&mut self, inst: Inst) {
        self.out.code.push(inst);
    }

    /// `fresh = ins(first, rm)`
    pub(super) fn vector(&mut self, ins: &'static Ins, first: Option<VReg>, rm: Source, imm: Option<u8>) -> VReg {
        let def = self.fresh(Bank::Vector);
        self.push(Inst { def: Some(def), first, rm, imm, ..Inst::new(Kind::Vector(ins)) });
        def
    }

    /// A comparison into a mask register.
    pub(super) fn compare(&mut self, ins: &'static Ins, first: VReg, rm: Source, imm: Option<u8>) -> VReg {
        let def = self.fresh(Bank::Mask);
        self.push(Inst { def: Some(def), first: Some(first), rm, imm, ..Inst::new(Kind::Vector(ins)) });
        def
    }

    fn mask_op(&mut self, ins: &'static Ins, first: Option<VReg>, rm: VReg) -> VReg {
        let def = self.fresh(Bank::Mask);
        self.push(Inst { def: Some(def), first, rm: Source::Reg(rm), ..Inst::new(Kind::Mask(ins)) });
        def
    }

    pub(super) fn splat_source(&mut self, bits: u32) -> Source {
        let (mem, splat) = self.asm.splat(bits);
        Source::Mem(mem, splat)
    }

    /// A value from memory in a register.
    pub(super) fn load(&mut self, mem: Mem, splat: bool) -> VReg {
        let ins = if splat { &t::SPLAT } else { &t::LOAD };
        self.vector(ins, None, Source::Mem(mem, false), None)
    }

    pub(super) fn dtype(&self, v: Val) -> DType {
        self.strip.ops.get(v as usize).map_or(DType::F32, |op| op.dtype)
    }

    pub(super) fn is_uniform(&self, v: Val) -> bool {
        matches!(self.strip.ops.get(v as usize).map(|op| op.op), Some(Op::Const(_) | Op::Param(_)))
    }

    pub(super) fn place(&mut self, v: Val) -> Result<Place, Unsupported> {
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
    pub(super) fn reg(&mut self, v: Val) -> Result<VReg, Unsupported> {
        match self.place(v)? {
            Place::Reg(r) => Ok(r),
            Place::Mem(mem, splat) => {
                self.score(v, 4);
                Ok(self.load(mem, splat))
            }
        }
    }

    /// A value as a last operand.
    pub(super) fn source(&mut self, v: Val) -> Result<Source, Unsupported> {
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
            Op::Unary(UnaryOp::Neg, _) | Op::Binary(..) if self.absorbed.get(self.at) == Some(&true) => {
                return Ok(None);
            }
            Op::Unary(op, x) => self.unary(op, dtype, x)?,
            Op::Binary(op, a, b) => self.binary(op, self.dtype(a), a, b)?,
            Op::Select(c, a, _) if self.usual.is_some_and(|u| u.conditions.contains(&c)) => {
                return self.place(a).map(Some);
            }
            Op::Select(c, a, b) => {
                let at = self.at;
                if let Some(j) = self.guarded.iter().position(|g| g.is_some_and(|g| g.at == at)) {
                    self.accumulate_guarded(j)?;
                    return Ok(None);
                }
                if self.absorbed.get(c as usize) == Some(&true)
                    && let Some(value) = self.usual.and_then(|u| u.clamped(self.strip, c, a, b))
                {
                    return self.place(value).map(Some);
                }
                self.select(dtype, c, a, b)?
            }
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
            Op::Rescue { value, .. } if self.usual.is_some() => return self.place(value).map(Some),
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
        self.score(self.at as Val, 3);
        let lanes = self.load(mem, splat);
        Ok(Place::Reg(self.compare(&t::PTESTMD, lanes, Source::Reg(lanes), None)))
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
                let (mem, splat) = self.asm.splat(0);
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
    pub(super) fn extreme(&mut self, smallest: bool, a: VReg, b: VReg) -> VReg {
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
        if self.absorbed.get(a as usize) == Some(&true) {
            return self.merge(chosen, a, b);
        }
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

    /// `chosen ? op(x, y) : other`: the operation leaves the lanes of `other` that are not chosen.
    fn merge(&mut self, chosen: VReg, value: Val, other: Val) -> Result<VReg, Unsupported> {
        let Some(Op::Binary(op, x, y)) = self.strip.ops.get(value as usize).map(|o| o.op) else {
            return refuse("an operation".to_owned());
        };
        let ins = match op {
            BinaryOp::Add => &t::ADDPS,
            BinaryOp::Sub => &t::SUBPS,
            BinaryOp::Mul => &t::MULPS,
            _ => &t::DIVPS,
        };
        let commutes = matches!(op, BinaryOp::Add | BinaryOp::Mul);
        let (x, y) = if commutes && self.in_memory(x) && !self.in_memory(y) { (y, x) } else { (x, y) };
        let (tied, first, rm) = (self.reg(other)?, self.reg(x)?, self.source(y)?);
        let def = self.fresh(Bank::Vector);
        let inst = Inst { first: Some(first), rm, mask: Some(chosen), ..Inst::new(Kind::Vector(ins)) };
        self.push(Inst { def: Some(def), tied: Some(tied), ..inst });
        Ok(def)
    }

    /// The operand of a negation that its only user, a fused multiply-add, takes along.
    fn negated(&self, v: Val) -> Option<Val> {
        match self.strip.ops.get(v as usize).map(|o| o.op) {
            Some(Op::Unary(UnaryOp::Neg, x)) if self.absorbed.get(v as usize) == Some(&true) => Some(x),
            _ => None,
        }
    }

    /// a b + c. The result takes the register of an operand: of one that is not needed any more, if there is one.
    fn fma(&mut self, a: Val, b: Val, c: Val) -> Result<VReg, Unsupported> {
        let (forms, a, b, c) = match (self.negated(a), self.negated(b), self.negated(c)) {
            (Some(a), ..) => ([&t::FNMA132, &t::FNMA213, &t::FNMA231], a, b, c),
            (_, Some(b), _) => ([&t::FNMA132, &t::FNMA213, &t::FNMA231], a, b, c),
            (.., Some(c)) => ([&t::FMS132, &t::FMS213, &t::FMS231], a, b, c),
            _ => ([&t::FMA132, &t::FMA213, &t::FMA231], a, b, c),
        };
        let (a, b) = if self.in_memory(a) && !self.in_memory(b) { (b, a) } else { (a, b) };
        let (a, b) = if !self.dies(a) && self.dies(b) { (b, a) } else { (a, b) };
        let product_dies = self.dies(a) && a != b && a != c;
        let (ins, tied, first, rm) = if self.dies(c) && c != a && c != b || !product_dies && !self.in_memory(a) {
            // 231: c = a b + c
            let tied = self.reg(c)?;
            let (first, rm) = if self.in_memory(a) { (b, a) } else { (a, b) };
            let first = self.reg(first)?;
            (forms[2], tied, first, self.source(rm)?)
        } else if self.in_memory(b) && !self.in_memory(c) {
            // 132: a = a b + c
            let (tied, first) = (self.reg(a)?, self.reg(c)?);
            (forms[0], tied, first, self.source(b)?)
        } else {
            // 213: a = b a + c
            let (tied, first) = (self.reg(a)?, self.reg(b)?);
            (forms[1], tied, first, self.source(c)?)
        };
        let def = self.fresh(Bank::Vector);
        let inst = Inst::new(Kind::Vector(ins));
        self.push(Inst { def: Some(def), tied: Some(tied), first: Some(first), rm, ..inst });
        Ok(def)
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
}

/// Where a constant or parameter lies, and whether one element stands for all lanes.
pub(super) fn uniform_memory(asm: &mut Asm, constant: Option<Scalar>, param: u32) -> (Mem, bool) {
    match constant {
        Some(value) => asm.splat(lane_bits(value)),
        None => (Mem::at(RSI, 64 * param as i32), asm.isa.masks()),
    }
}
