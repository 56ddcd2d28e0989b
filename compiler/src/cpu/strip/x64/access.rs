//! How selected code reads and writes memory: streams and accumulators.

use frit_ir::types::Class;
use frit_ir::{BinaryOp, DType};

use super::analyse::{INFINITY, of_magnitudes};
use super::encode::{Mem, R10, R11, R15, RAX, RDX, RSP};
use super::inst::{Bank, Inst, Kind, Source, VReg};
use super::select::{Place, Select, refuse};
use super::streams::Access;
use super::table::{self as t, Ins};
use crate::cpu::strip::{Stream, StripAcc, Unsupported, Val};
use crate::kernel::Combine;

impl Select<'_> {
    pub(super) fn stage(&mut self, kind: fn(u32) -> Kind, wanted: fn(&Stream) -> bool) {
        for (k, stream) in self.strip.streams.iter().enumerate() {
            if wanted(stream) && self.streams.staged(k, self.shape.tail) {
                // Which group it is travels in the immediate.
                self.out.code.push(Inst { imm: Some(self.group as u8), ..Inst::new(kind(k as u32)) });
            }
        }
    }

    /// The next elements of a stream.
    pub(super) fn read(&mut self, stream: u32, dtype: DType) -> Result<Place, Unsupported> {
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

    /// Moves the mask register of the tail on to the next vector.
    pub(super) fn next_mask(&mut self) {
        if let (true, Some(mask)) = (self.masks(), self.tail_mask()) {
            let inst = Inst { def: Some(mask), rm: Source::Reg(mask), ..Inst::new(Kind::Mask(&t::KSHIFTR)) };
            self.push(Inst { imm: Some(self.lanes() as u8), ..inst });
        }
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
        let index = if self.ahead_of_all { R15 } else { R11 };
        Mem::At { base, index: Some((index, scale)), disp: (16 * self.group as i32 + element) * size }
    }

    /// Brings into registers what has yet to be read from streams: the store that follows may be to the same memory.
    fn read_before_store(&mut self) {
        for v in 0..self.places.len() {
            let Some(Some(Place::Mem(mem, splat))) = self.places.get(v).copied() else { continue };
            if self.reach.get(v).is_none_or(|reach| *reach < self.at) || self.is_uniform(v as Val) {
                continue;
            }
            let reg = self.load(mem, splat);
            if let Some(place) = self.places.get_mut(v) {
                *place = Some(Place::Reg(reg));
            }
        }
    }

    /// Stores the next elements of a stream.
    pub(super) fn write(&mut self, stream: u32, v: Val, dtype: DType) -> Result<(), Unsupported> {
        let k = stream as usize;
        let (tail, staged) = (self.shape.tail, self.streams.staged(k, self.shape.tail));
        self.read_before_store();
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

    /// Combines a value into the accumulator of its lanes.
    pub(super) fn accumulate(&mut self, j: usize) -> Result<(), Unsupported> {
        let Some(acc) = self.strip.accs.get(j).copied() else {
            return refuse("an accumulator that is not there".to_owned());
        };
        let StripAcc { combine: how, value: v, factor } = acc;
        let tail = self.shape.tail;
        let place = self.fixed.accs.get(j).and_then(|vectors| vectors.get(self.copy)).copied();
        let memory = Mem::at(RDX, (64 * j + self.asm.isa.bytes() * self.copy) as i32);
        let single = self.single(&acc);
        let left = if of_magnitudes(self.strip, &acc) && how == Combine::Min { Some(self.left_of(v)?) } else { None };
        // An accumulator without a register is the memory operand.
        if !tail && place.is_none() {
            let in_place = match (factor, single) {
                (Some(factor), _) => {
                    let (tied, first) = (self.reg(v)?, self.reg(factor)?);
                    let def = self.fresh(Bank::Vector);
                    let inst = Inst { rm: Source::Mem(memory, false), ..Inst::new(Kind::Vector(&t::FMA213)) };
                    self.push(Inst { def: Some(def), tied: Some(tied), first: Some(first), ..inst });
                    Some(def)
                }
                (None, Some(ins)) => {
                    let value = left.map_or_else(|| self.reg(v), Ok)?;
                    Some(self.vector(ins, Some(value), Source::Mem(memory, false), None))
                }
                (None, None) => None,
            };
            if let Some(new) = in_place {
                self.keep(memory, new);
                return Ok(());
            }
        }
        let acc = match place {
            Some(acc) => acc,
            None => self.load(memory, false),
        };
        let new = match (factor, single) {
            (Some(factor), _) => {
                let (first, rm) = (self.reg(v)?, self.source(factor)?);
                let def = if tail { self.fresh(Bank::Vector) } else { acc };
                let inst = Inst { first: Some(first), rm, ..Inst::new(Kind::Vector(&t::FMA231)) };
                self.push(Inst { def: Some(def), tied: Some(acc), ..inst });
                if !tail {
                    return Ok(());
                }
                def
            }
            (None, Some(ins)) => {
                let value = left.map_or_else(|| self.source(v), |left| Ok(Source::Reg(left)))?;
                if !tail {
                    let inst = Inst { first: Some(acc), rm: value, ..Inst::new(Kind::Vector(ins)) };
                    self.push(Inst { def: Some(acc), ..inst });
                    return Ok(());
                }
                self.vector(ins, Some(acc), value, None)
            }
            (None, None) => {
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
            None => self.keep(memory, kept),
        }
        Ok(())
    }

    /// Stores a vector of an accumulator that has no register.
    fn keep(&mut self, memory: Mem, value: VReg) {
        let inst = Inst { stored: Some(value), ..Inst::new(Kind::Vector(&t::STORE)) };
        self.push(Inst { rm: Source::Mem(memory, false), ..inst });
    }

    /// Lane i with lane i + 8, i + 4, i + 2, i + 1; the result goes to where r10 says.
    pub(super) fn fold(&mut self) -> Result<(), Unsupported> {
        // The upper two of four lanes first, then the second.
        const ORDERS: [u8; 2] = [0b1110, 0b01];
        for (j, acc) in self.strip.accs.iter().enumerate() {
            let at = |part: usize| Mem::at(RDX, (64 * j + 16 * part) as i32);
            let parts = [0, 1, 2, 3].map(|part| self.load(at(part), false));
            let low = self.both(acc, parts[0], parts[2]);
            let high = self.both(acc, parts[1], parts[3]);
            let mut all = self.both(acc, low, high);
            for order in ORDERS {
                let others = self.vector(&t::PERMILPS, None, Source::Reg(all), Some(order));
                all = self.both(acc, all, others);
            }
            if acc.combine == Combine::Min && of_magnitudes(self.strip, acc) {
                all = self.left(Source::Reg(all));
            }
            self.keep(Mem::at(R10, 64 * j as i32), all);
        }
        Ok(())
    }

    /// Two vectors of an accumulator as one.
    fn both(&mut self, acc: &StripAcc, a: VReg, b: VReg) -> VReg {
        match self.single(acc) {
            Some(ins) => self.vector(ins, Some(a), Source::Reg(b), None),
            None => self.extreme(acc.combine == Combine::Min, a, b),
        }
    }

    /// What is left of the bits of a number up to those of infinity.
    fn left(&mut self, x: Source) -> VReg {
        let (mem, splat) = self.asm.splat(INFINITY);
        let most = self.load(mem, splat);
        self.vector(&t::PSUBD, Some(most), x, None)
    }

    fn left_of(&mut self, v: Val) -> Result<VReg, Unsupported> {
        let x = self.source(v)?;
        Ok(self.left(x))
    }

    /// The instruction that combines values, if one does.
    fn single(&self, acc: &StripAcc) -> Option<&'static Ins> {
        match (self.dtype(acc.value), acc.combine.op()) {
            (DType::F32, BinaryOp::Add) => Some(&t::ADDPS),
            (DType::F32, BinaryOp::Mul) => Some(&t::MULPS),
            (DType::F32, _) => of_magnitudes(self.strip, acc).then_some(&t::PMAXUD),
            (_, BinaryOp::Add) => Some(&t::PADDD),
            (_, BinaryOp::Mul) => Some(&t::PMULLD),
            (DType::U32, BinaryOp::Min) => Some(&t::PMINUD),
            (DType::U32, _) => Some(&t::PMAXUD),
            (_, BinaryOp::Min) => Some(&t::PMINSD),
            (_, _) => Some(&t::PMAXSD),
        }
    }

    /// Combines an extreme that is NaN only where its condition does not hold: the accumulator comes second, so that
    /// its NaN stays.
    pub(super) fn accumulate_guarded(&mut self, j: usize) -> Result<(), Unsupported> {
        let (Some(Some(guarded)), Some(acc)) = (self.guarded.get(j).copied(), self.strip.accs.get(j)) else {
            return refuse("an accumulator that is not there".to_owned());
        };
        let place = self.fixed.accs.get(j).and_then(|vectors| vectors.get(self.copy)).copied();
        let memory = Mem::at(RDX, (64 * j + self.asm.isa.bytes() * self.copy) as i32);
        let ins = if acc.combine == Combine::Min { &t::MINPS } else { &t::MAXPS };
        let best = self.reg(guarded.best)?;
        let kept = place.map_or(Source::Mem(memory, false), Source::Reg);
        let best = self.vector(ins, Some(best), kept, None);
        let (nan, condition) = (self.reg(guarded.nan)?, self.reg(guarded.condition)?);
        let def = place.unwrap_or_else(|| self.fresh(Bank::Vector));
        let inst =
            Inst { def: Some(def), first: Some(nan), rm: Source::Reg(best), ..Inst::new(Kind::Vector(&t::BLENDM)) };
        self.push(if self.masks() {
            Inst { mask: Some(condition), ..inst }
        } else {
            Inst { kind: Kind::Vector(&t::BLENDV), chosen: Some(condition), imm: Some(0), ..inst }
        });
        if place.is_none() {
            self.keep(memory, def);
        }
        Ok(())
    }
}
