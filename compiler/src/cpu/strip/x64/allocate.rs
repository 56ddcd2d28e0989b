//! Registers for one straight-line body, written as they are found.
//!
//! A linear scan: what is needed furthest in the future leaves first and is stored once, since every value is written
//! once. Fixed registers (accumulators, masks of the tail, pinned constants) keep theirs.

use super::encode::{Alu, Asm, Cond, Label, Line, Mask, Mem, R10, R11, R15, RAX, RCX, RDI, RSP, Rm};
use super::inst::{Bank, Inst, Kind, Source, VReg};
use super::streams::Streams;
use super::table as t;
use crate::cpu::strip::{Strip, Unsupported};
use frit_ir::DType;
use frit_ir::types::Class;

/// Registers of a bank that may be given out. Mask register 0 means none; 7 is the tail's.
const MASKS: u32 = 0b0111_1110;

/// A rescue, whose rare part is written behind the code.
pub(super) struct Rescue {
    pub(super) begin: Label,
    pub(super) back: Label,
    pub(super) function: u32,
    pub(super) x: u8,
    pub(super) value: u8,
}

/// A guard, whose complete body is written behind the code.
pub(super) struct Detour {
    pub(super) begin: Label,
    pub(super) back: Label,
    /// Group and vector, counted through.
    pub(super) place: usize,
}

/// What all bodies of a leaf share.
pub(super) struct Writer<'a> {
    pub(super) asm: &'a mut Asm,
    pub(super) strip: &'a Strip,
    pub(super) streams: &'a Streams,
    pub(super) rescues: Vec<Rescue>,
    pub(super) detours: Vec<Detour>,
    /// How many virtual registers are masks of the tail: the first. Other bodies use theirs as they like.
    pub(super) masks: usize,
    /// Most slots of the frame that a body spilled to.
    pub(super) slots: usize,
    /// Where they begin.
    pub(super) spill: i32,
}

/// Most vector registers that are needed at once, fixed ones aside.
pub(super) fn pressure(code: &[Inst], banks: &[Bank], fixed: usize) -> usize {
    let mut live = vec![false; banks.len()];
    let (mut now, mut most) = (0usize, 0usize);
    let counts = |r: VReg| r as usize >= fixed && banks.get(r as usize) == Some(&Bank::Vector);
    for inst in code.iter().rev() {
        if let Some(def) = inst.def.filter(|d| counts(*d))
            && let Some(slot @ true) = live.get_mut(def as usize)
        {
            *slot = false;
            now -= 1;
        }
        for r in inst.reads().filter(|r| counts(*r)) {
            if let Some(slot @ false) = live.get_mut(r as usize) {
                *slot = true;
                now += 1;
            }
        }
        most = most.max(now);
    }
    // A result may need a register beside all operands.
    most + 1
}

struct Allocator<'b> {
    banks: &'b [Bank],
    fixed: usize,
    /// Of each virtual register: its real one.
    homes: Vec<Option<u8>>,
    slots: Vec<Option<usize>>,
    /// Positions where it is read, last first.
    next: Vec<Vec<u32>>,
    owners: [[Option<VReg>; 32]; 2],
    free: [u32; 2],
    used_slots: usize,
}

fn lost<T>() -> Result<T, Unsupported> {
    Err(Unsupported("its code needs more registers than there are".to_owned()))
}

impl Writer<'_> {
    /// Writes a body; `homes` are the real registers of the fixed virtual ones, which come first.
    pub(super) fn body(&mut self, code: &[Inst], banks: &[Bank], homes: &[u8], tail: bool) -> Result<(), Unsupported> {
        let vectors = if self.asm.isa.registers() == 32 { u32::MAX } else { 0xffff };
        let mut a = Allocator {
            banks,
            fixed: homes.len(),
            homes: vec![None; banks.len()],
            slots: vec![None; banks.len()],
            next: vec![Vec::new(); banks.len()],
            owners: [[None; 32]; 2],
            free: [vectors, MASKS],
            used_slots: 0,
        };
        for (i, inst) in code.iter().enumerate().rev() {
            for r in inst.reads() {
                if let Some(next) = a.next.get_mut(r as usize) {
                    next.push(i as u32);
                }
            }
        }
        for (v, home) in homes.iter().enumerate().skip(if tail { 0 } else { self.masks }) {
            if let (Some(slot), Some(bank)) = (a.homes.get_mut(v), banks.get(v)) {
                *slot = Some(*home);
                a.free[*bank as usize] &= !(1 << home);
            }
        }
        for inst in code {
            self.inst(&mut a, inst, tail)?;
        }
        self.slots = self.slots.max(a.used_slots);
        Ok(())
    }

    fn inst(&mut self, a: &mut Allocator<'_>, inst: &Inst, tail: bool) -> Result<(), Unsupported> {
        match inst.kind {
            Kind::StageIn(stream) => {
                self.stage(stream as usize, inst.imm.unwrap_or(0), tail, true);
                return Ok(());
            }
            Kind::StageOut(stream) => {
                self.stage(stream as usize, inst.imm.unwrap_or(0), tail, false);
                return Ok(());
            }
            Kind::Base(stream) => {
                self.asm.alu(Alu::Mov, RAX, Rm::Mem(Mem::at(RDI, 16 * stream as i32), false));
                return Ok(());
            }
            Kind::Back(place) => {
                if let Some(detour) = self.detours.iter().find(|d| d.place == place) {
                    self.asm.bind(detour.back);
                }
                return Ok(());
            }
            Kind::Vector(_) | Kind::Mask(_) | Kind::Rescue(_) | Kind::Guard(_) => {}
        }
        let mut keep = [0u32; 2];
        for r in inst.reads() {
            if let Some(home) = a.home(r) {
                keep[a.bank(r) as usize] |= 1 << home;
            }
        }
        for r in inst.reads() {
            if a.home(r).is_none() {
                let home = self.home_of(a, r, keep)?;
                let Some(Some(slot)) = a.slots.get(r as usize) else { return lost() };
                self.spilled(a.bank(r), home, *slot, true);
                keep[a.bank(r) as usize] |= 1 << home;
            }
        }
        let register = |a: &Allocator<'_>, r: Option<VReg>| r.and_then(|r| a.home(r));
        let (first, stored) = (register(a, inst.first), register(a, inst.stored));
        let (chosen, mask) = (register(a, inst.chosen), register(a, inst.mask));
        let tied = register(a, inst.tied);
        let rm = match inst.rm {
            Source::Reg(r) => match a.home(r) {
                Some(home) => Some(Rm::Reg(home)),
                None => return lost(),
            },
            Source::Mem(mem, splat) => Some(Rm::Mem(mem, splat)),
            Source::None => None,
        };
        // Where the result goes, before what dies here is free: a copy must not overwrite an operand.
        let mut result = None;
        let dying: Vec<VReg> = inst.reads().filter(|r| a.read_last(*r)).collect();
        if let (Some(def), Some(tied_reg), Some(tied)) = (inst.def, inst.tied, tied) {
            let fixed = a.is_fixed(def);
            if fixed && a.home(def) == Some(tied) {
                result = Some(tied);
            } else if !fixed && dying.contains(&tied_reg) && !a.is_fixed(tied_reg) {
                a.release(tied_reg);
                a.free[a.bank(def) as usize] &= !(1 << tied);
                a.settle(def, tied);
                result = Some(tied);
            } else {
                let home = self.home_of(a, def, keep)?;
                self.asm.vector(Line::plain(&t::MOVE, home, Rm::Reg(tied)));
                result = Some(home);
            }
        }
        for r in dying {
            if !a.is_fixed(r) && Some(r) != inst.def {
                a.release(r);
            }
        }
        if let (Some(def), None) = (inst.def, result) {
            result = Some(self.home_of(a, def, keep)?);
        }
        self.write(inst, result.or(stored), first, rm, chosen, mask)?;
        // What nobody reads needs no register.
        if let Some(def) = inst.def.filter(|d| !a.is_fixed(*d))
            && a.next.get(def as usize).is_none_or(Vec::is_empty)
        {
            a.release(def);
        }
        Ok(())
    }

    fn write(
        &mut self,
        inst: &Inst,
        reg: Option<u8>,
        first: Option<u8>,
        rm: Option<Rm>,
        chosen: Option<u8>,
        mask: Option<u8>,
    ) -> Result<(), Unsupported> {
        match (inst.kind, reg, rm) {
            (Kind::Vector(ins), Some(reg), Some(rm)) => {
                let imm = chosen.map_or(inst.imm, |r| Some(r << 4));
                let mask = Mask { k: mask.unwrap_or(0), zero: inst.zero };
                self.asm.vector(Line { ins, reg, first, rm, imm, mask });
            }
            (Kind::Mask(ins), Some(reg), Some(rm)) => self.asm.mask(ins, reg, first, rm, inst.imm),
            (Kind::Rescue(function), Some(value), None) => {
                let (Some(ok), Some(x)) = (chosen, first) else { return lost() };
                let (begin, back) = (self.asm.label(), self.asm.label());
                if self.asm.isa.masks() && self.asm.isa.lanes() >= 8 {
                    self.asm.mask_to(RAX, ok);
                }
                self.leave_unless(ok, begin);
                self.asm.bind(back);
                self.rescues.push(Rescue { begin, back, function, x, value });
            }
            (Kind::Guard(place), None, None) => {
                let Some(ok) = chosen else { return lost() };
                let (begin, back) = (self.asm.label(), self.asm.label());
                self.leave_unless(ok, begin);
                self.detours.push(Detour { begin, back, place });
            }
            _ => return Err(Unsupported("an instruction of its code is incomplete".to_owned())),
        }
        Ok(())
    }

    /// Jumps unless a condition holds in all lanes. Where no instruction tests that many bits of a mask register, rax
    /// has a bit for each lane where it does. Bits beyond the lanes of a mask register may hold anything.
    fn leave_unless(&mut self, ok: u8, to: Label) {
        let lanes = self.asm.isa.lanes();
        let all = (1 << lanes) - 1;
        if !self.asm.isa.masks() {
            self.asm.vector(Line::plain(&t::MOVMSK, RAX.0, Rm::Reg(ok)));
        } else if lanes >= 8 {
            self.asm.mask_test(ok, lanes);
            self.asm.jump_if(Cond::NoCarry, to);
            return;
        } else {
            self.asm.mask_to(RAX, ok);
            self.asm.immediate(4, RAX, all);
        }
        self.asm.immediate(7, RAX, all);
        self.asm.jump_if(Cond::NotEqual, to);
    }

    /// A free register, after storing what is needed last if there is none.
    fn take(&mut self, a: &mut Allocator<'_>, bank: Bank, keep: [u32; 2]) -> Result<u8, Unsupported> {
        let b = bank as usize;
        if a.free[b] == 0 {
            let far = |r: VReg| a.next.get(r as usize).and_then(|n| n.last()).copied().unwrap_or(u32::MAX);
            let candidates = a.owners[b].iter().enumerate();
            let victim = candidates
                .filter_map(|(home, owner)| owner.map(|r| (home as u8, r)))
                .filter(|(home, _)| keep[b] >> home & 1 == 0)
                .max_by_key(|(_, r)| far(*r));
            let Some((home, r)) = victim else { return lost() };
            if let Some(slot @ None) = a.slots.get_mut(r as usize) {
                *slot = Some(a.used_slots);
                self.spilled(bank, home, a.used_slots, false);
                a.used_slots += 1;
            }
            a.release(r);
        }
        let home = a.free[b].trailing_zeros() as u8;
        a.free[b] &= !(1 << home);
        Ok(home)
    }

    /// The register of a value: its own, or a free one.
    fn home_of(&mut self, a: &mut Allocator<'_>, r: VReg, keep: [u32; 2]) -> Result<u8, Unsupported> {
        if let Some(home) = a.home(r) {
            return Ok(home);
        }
        let home = self.take(a, a.bank(r), keep)?;
        a.settle(r, home);
        Ok(home)
    }

    /// Brings a register back from its slot of the frame, or stores it there.
    fn spilled(&mut self, bank: Bank, home: u8, slot: usize, load: bool) {
        let rm = Rm::Mem(Mem::at(RSP, self.spill + 64 * slot as i32), false);
        match bank {
            Bank::Vector => self.asm.vector(Line::plain(if load { &t::LOAD } else { &t::STORE }, home, rm)),
            Bank::Mask => self.asm.mask(if load { &t::KMOVE } else { &t::KSTORE }, home, None, rm, None),
        }
    }

    /// Copies up to 16 elements of a stream into the frame, or back.
    fn stage(&mut self, k: usize, group: u8, tail: bool, load: bool) {
        let Some(stream) = self.strip.streams.get(k) else { return };
        let (size, signed) = (stream.dtype.size(), stream.dtype.class() == Class::Signed);
        let signed = signed && stream.dtype != DType::Bool;
        let arguments = 16 * k as i32;
        let step = Rm::Mem(Mem::at(RDI, arguments + 8), false);
        self.asm.address(RAX, Mem::at(R11, 16 * i32::from(group)));
        self.asm.multiply(RAX, step);
        self.asm.alu(Alu::Add, RAX, Rm::Mem(Mem::at(RDI, arguments), false));
        let place = self.streams.stage(k);
        let copy = |asm: &mut Asm, memory: Mem, disp: i32| {
            if load {
                asm.load_element(R10, Mem::at(RAX, disp), size, signed);
                asm.store_element(memory, R10, 4);
            } else {
                asm.load_element(R10, memory, 4, false);
                asm.store_element(Mem::at(RAX, disp), R10, size);
            }
        };
        if !tail {
            // Known distances are part of the addresses: no copy waits for another.
            let gap = stream.gap.filter(|gap| gap.checked_mul(16).is_some());
            for lane in 0..16 {
                copy(self.asm, Mem::at(RSP, place + 4 * lane), gap.map_or(0, |gap| gap * lane));
                if gap.is_none() {
                    self.asm.alu(Alu::Add, RAX, step);
                }
            }
            return;
        }
        // At most 16 of what is left.
        let (next, done) = (self.asm.label(), self.asm.label());
        self.asm.alu_reg(Alu::Xor, R15, R15);
        self.asm.bind(next);
        copy(self.asm, Mem::At { base: RSP, index: Some((R15, 2)), disp: place }, 0);
        self.asm.alu(Alu::Add, RAX, step);
        self.asm.immediate(0, R15, 1);
        self.asm.immediate(7, R15, 16);
        // Flags of `cmp r15, 16`: no carry from there on.
        self.asm.jump_if(Cond::NoCarry, done);
        self.asm.address(R10, Mem::At { base: R11, index: Some((R15, 0)), disp: 0 });
        self.asm.alu_reg(Alu::Cmp, R10, RCX);
        self.asm.jump_if(Cond::Less, next);
        self.asm.bind(done);
    }
}

impl Allocator<'_> {
    fn bank(&self, r: VReg) -> Bank {
        self.banks.get(r as usize).copied().unwrap_or(Bank::Vector)
    }

    fn home(&self, r: VReg) -> Option<u8> {
        self.homes.get(r as usize).copied().flatten()
    }

    fn is_fixed(&self, r: VReg) -> bool {
        (r as usize) < self.fixed
    }

    fn settle(&mut self, r: VReg, home: u8) {
        let bank = self.bank(r) as usize;
        if let Some(slot) = self.homes.get_mut(r as usize) {
            *slot = Some(home);
        }
        self.owners[bank][usize::from(home)] = Some(r);
    }

    /// Gives the register of a value back.
    fn release(&mut self, r: VReg) {
        let bank = self.bank(r) as usize;
        if let Some(slot) = self.homes.get_mut(r as usize)
            && let Some(home) = slot.take()
        {
            self.owners[bank][usize::from(home)] = None;
            self.free[bank] |= 1 << home;
        }
    }

    /// Counts one read of a register; whether it was the last.
    fn read_last(&mut self, r: VReg) -> bool {
        self.next.get_mut(r as usize).is_some_and(|next| {
            next.pop();
            next.is_empty()
        })
    }
}
