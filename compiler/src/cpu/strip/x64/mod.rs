//! The back end for x86-64 with AVX2 or AVX-512: strips to machine code without Cranelift, which stops at 128 bits and
//! 16 registers. Where the machine has AVX-512, vectors of every width are written with it.
//!
//! ```text
//!  Strip --[select]--> instructions on virtual registers --[allocate]--> bytes   (main loop, then the tail)
//!             |                      |                          |
//!          streams: how memory is reached        table, encode: what instructions look like
//! ```
//!
//! A leaf runs 16 elements an iteration, or a few times 16 when its body is small, as as many vectors as that takes;
//! what is left runs masked, 16 at a time. Lanes without an element are neither read nor written, and combine nothing.
//! Where that many vectors of accumulators do not fit and nothing is stored, the main loop goes over a block of
//! elements once for each column of vectors instead (with AVX-512's 32 registers):
//!
//! ```text
//!  elements  0..4  4..8  8..12  12..16 | 16..20 ...      first pass: 0..4, 16..20, 32..36 and so on,
//!  columns     0     1      2      3   |    0   ...      with a register for each accumulator, then 4..8, 20..24 ...
//! ```
//!
//! What is rare (a lane that needs a function) is written behind the code: where few early values tell whether any lane
//! is rare, the main loop looks at those once and leaves for a complete body, else at every place. Behind such a look
//! clamps that it makes idle are left out. Long chains at the beginning of a body are computed one vector ahead.
//!
//! What strips need and this can't do is refused, and `clif` takes the strip: coverage grows op by op.

mod access;
mod ahead;
mod allocate;
mod analyse;
mod convert;
mod encode;
mod inst;
mod select;
mod streams;
mod table;

use frit_ir::DType;

use ahead::Ahead;
use allocate::{Rescue, Writer, pressure};
use analyse::{Part, Shape, Usual, of_magnitudes};
pub(super) use encode::Isa;
use encode::{
    Alu, Asm, Cond, Gpr, Label, Line, Mem, R8, R9, R10, R11, R12, R13, R14, R15, RAX, RBP, RBX, RCX, RDI, RDX, RSI,
    RSP, Rm,
};
use inst::{Bank, Fixed, Inst, Pin, VReg};
use select::{Select, uniform_memory};
use streams::{ACCUMULATORS, BEGIN, COUNT, FUNCTIONS, RESCUE_VALUE, RESCUE_X, RESULTS, Streams};
use table as t;

use super::lanes::lane_bits;
use super::{Leaf, Op, Strip, StripBackend, StripSchedule, Unsupported, Val};
use crate::cpu::code::Texts;
use crate::cpu::link::Piece;
use crate::cpu::target::{Encoding, VectorBits};

/// Instructions that the main loop of a small body is filled up to.
const FULL: usize = 48;
/// The mask register of the tail: the first that is fixed.
const TAIL_MASK: u8 = MASK_REGISTERS - 1;
const MASK_REGISTERS: u8 = 8;
/// Most bools in mask registers of their own: three and the tail's are left to a body.
const MASK_PINS: usize = 3;
/// Vector registers that are left to a body at least.
const LEFT: usize = 4;
/// Elements of a block that the main loop goes over column by column: few enough to stay in the nearest cache.
const BLOCK: i32 = 1024;

/// Makes leaves of one kind of vectors, and leaves the rest to another back end.
pub(in crate::cpu) struct X64Backend<B> {
    isa: Isa,
    rest: B,
}

impl<B: StripBackend> X64Backend<B> {
    /// For vectors of some width; `rest` takes what this refuses.
    pub(in crate::cpu) fn new(encoding: Encoding, bits: VectorBits, rest: B) -> Self {
        X64Backend { isa: Isa::new(encoding, bits), rest }
    }
}

impl<B: StripBackend> StripBackend for X64Backend<B> {
    fn compile(&mut self, strip: &Strip, schedule: StripSchedule) -> Result<Leaf, Unsupported> {
        match compile(strip, self.isa, schedule.text) {
            Ok(leaf) => Ok(leaf),
            Err(_) => self.rest.compile(strip, schedule),
        }
    }
}

/// Vector registers for accumulators.
fn room(isa: Isa) -> usize {
    if isa.masks() { 12 } else { 6 }
}

/// Whether the main loop takes one vector of each 16 elements in a pass of its own: so accumulators that would not all
/// fit need only a register each. Results are the same, since lanes do not see each other; without stores nor does
/// memory. With 16 registers nothing is gained: too few are left for accumulators.
pub(super) fn in_columns(strip: &Strip, isa: Isa) -> bool {
    let alone = strip.streams.iter().all(|s| s.is_dense() && !s.stored);
    alone && isa.masks() && isa.copies() > 1 && strip.accs.len() * isa.copies() > room(isa)
}

/// Whether the main loop of a strip computes something one vector ahead.
#[cfg(test)]
pub(super) fn computes_ahead(strip: &Strip) -> bool {
    Ahead::of(strip, Usual::of(strip).as_ref()).is_some()
}

/// A leaf of a strip, or what it needs that is not here.
pub(super) fn compile(strip: &Strip, isa: Isa, text: bool) -> Result<Leaf, Unsupported> {
    let mut asm = Asm::new(isa, text);
    let streams = Streams::of(strip, isa);

    // Fixed registers, from the top: masks of the tail, accumulators, pins.
    let mut banks = Vec::new();
    let mut homes = Vec::new();
    let (mut top, mut mask) = (isa.registers() as u8, MASK_REGISTERS);
    let mut fix = |bank: Bank, banks: &mut Vec<Bank>, homes: &mut Vec<u8>| -> VReg {
        banks.push(bank);
        let next = if bank == Bank::Mask { &mut mask } else { &mut top };
        *next -= 1;
        homes.push(*next);
        banks.len() as VReg - 1
    };
    let mut fixed = Fixed::default();
    let masks = if isa.masks() { 1 } else { isa.copies() };
    let bank = if isa.masks() { Bank::Mask } else { Bank::Vector };
    fixed.masks = (0..masks).map(|_| fix(bank, &mut banks, &mut homes)).collect();
    let usual = Usual::of(strip);
    let ahead = Ahead::of(strip, usual.as_ref());
    let results = ahead.as_ref().map_or(0, |a| a.results.len());
    let columns = in_columns(strip, isa);
    let copies = if columns { 1 } else { isa.copies() };
    let kept = strip.accs.len().min(room(isa) / copies);
    fixed.accs = (0..kept).map(|_| (0..copies).map(|_| fix(Bank::Vector, &mut banks, &mut homes)).collect()).collect();
    fixed.ahead = (0..results).map(|_| [0; 2].map(|_| fix(Bank::Vector, &mut banks, &mut homes))).collect();

    // What is left over holds the constants that gain most.
    let part = if usual.is_some() { Part::Usual } else { Part::Complete };
    let once = Shape { groups: 1, copies, tail: false, part };
    let trial = Select::run(strip, &streams, &mut asm, once, &fixed, banks.clone(), (usual.as_ref(), ahead.as_ref()))?;
    let vectors = homes.iter().zip(&banks).filter(|(_, b)| **b == Bank::Vector).count();
    let pressure = pressure(&trial.code, &trial.banks, homes.len()).max(LEFT);
    let spare = isa.registers().saturating_sub(pressure + vectors);
    let mut gains: Vec<(u32, u32)> =
        trial.scores.iter().enumerate().filter(|(_, s)| **s > 0).map(|(v, s)| (*s, v as u32)).collect();
    gains.sort_by_key(|(score, v)| (std::cmp::Reverse(*score), *v));
    let is_mask = |v: Val| isa.masks() && strip.ops.get(v as usize).is_some_and(|o| o.dtype == DType::Bool);
    for (bank, most) in [(Bank::Vector, spare), (Bank::Mask, MASK_PINS)] {
        let gains = gains.iter().filter(|(_, val)| is_mask(*val) == (bank == Bank::Mask)).take(most);
        fixed.pins.extend(gains.map(|(_, val)| Pin { val: *val, reg: fix(bank, &mut banks, &mut homes) }));
    }

    let body = trial.code.len().max(1);
    let groups = [4, 2].into_iter().find(|g| body * g <= FULL).unwrap_or(1);
    // The pool of the trial is not used.
    let asm = Asm::new(isa, text);
    let (usual, ahead) = (usual.as_ref(), ahead.as_ref());
    let groups = if ahead.is_some() { 1 } else { groups };
    let mut leaf =
        LeafWriter { asm, strip, streams: &streams, fixed: &fixed, usual, ahead, banks, homes, groups, copies };
    let (rescues, slots, spill) = leaf.write()?;
    let frame = spill as usize + 64 * slots;
    leaf.rare(&rescues, frame as i32);
    let frame = if rescues.is_empty() { frame } else { frame + SAVED };
    let (bytes, listing) =
        leaf.asm.finish(frame.next_multiple_of(64)).ok_or_else(|| Unsupported("a jump leads nowhere".to_owned()))?;
    let mut texts = Texts::default();
    if text {
        let title = format!("; strip, {isa}, {groups} x 16 elements");
        texts.clif = format!("{title}: not by Cranelift; its instructions are in the assembly\n");
        texts.asm = format!("{title}\n{listing}\n");
    }
    Ok(Leaf { piece: Piece { bytes, calls: Vec::new() }, texts })
}

/// Bytes that hold all vector and mask registers.
const SAVED: usize = 32 * 64 + 64;
/// What a rescue saves on the stack, return address included.
const PUSHED: [Gpr; 11] = [RCX, RDX, RSI, RDI, R8, R9, R11, RBX, R12, R13, R14];

struct LeafWriter<'a> {
    asm: Asm,
    strip: &'a Strip,
    streams: &'a Streams,
    fixed: &'a Fixed,
    usual: Option<&'a Usual>,
    ahead: Option<&'a Ahead>,
    banks: Vec<Bank>,
    homes: Vec<u8>,
    groups: usize,
    /// Vectors of a group that one pass of the main loop takes.
    copies: usize,
}

impl LeafWriter<'_> {
    /// The registers that a caller must find again: those of streams, and r15, which counts copied elements or those
    /// computed ahead.
    fn saved(&self) -> Vec<Gpr> {
        let mut saved = self.streams.saved.clone();
        saved.push(R15);
        saved
    }

    fn home(&self, reg: VReg) -> u8 {
        self.homes.get(reg as usize).copied().unwrap_or(0)
    }

    /// The main loop and the tail; what is rare, how many slots are spilled to, and where they begin.
    fn write(&mut self) -> Result<(Vec<Rescue>, usize, i32), Unsupported> {
        let saved = self.saved();
        self.asm.push(RBP);
        self.asm.alu_reg(Alu::Mov, RBP, RSP);
        saved.iter().for_each(|r| self.asm.push(*r));
        self.asm.frame();
        self.asm.immediate(4, RSP, -64);
        self.asm.save(Mem::at(RSP, FUNCTIONS), R8);
        for (k, base) in self.streams.near() {
            self.asm.alu(Alu::Mov, base, Rm::Mem(Mem::at(RDI, 16 * k as i32), false));
        }
        let columns = self.columns();
        if !self.strip.accs.is_empty() {
            self.asm.save(Mem::at(RSP, RESULTS), RDX);
            self.asm.address(RDX, Mem::at(RSP, self.streams.frame()));
        }
        self.start_accumulators()?;
        for pin in &self.fixed.pins {
            let (constant, param) = match self.strip.ops.get(pin.val as usize).map(|o| o.op) {
                Some(Op::Const(value)) => (Some(value), 0),
                Some(Op::Param(p)) => (None, p),
                _ => continue,
            };
            let (mem, splat) = uniform_memory(&mut self.asm, constant, param);
            let (home, is_mask) = (self.home(pin.reg), self.banks.get(pin.reg as usize) == Some(&Bank::Mask));
            let vector = if is_mask { 0 } else { home };
            self.asm.vector(Line::plain(if splat { &t::SPLAT } else { &t::LOAD }, vector, Rm::Mem(mem, false)));
            if is_mask {
                self.asm.vector(Line { first: Some(0), ..Line::plain(&t::PTESTMD, home, Rm::Reg(0)) });
            }
        }
        let step = 16 * self.groups as i32;
        let (groups, copies) = (self.groups, self.copies);
        let part = if self.usual.is_some() { Part::Usual } else { Part::Complete };
        let first = self.select(Shape { groups, copies, tail: false, part: Part::First })?;
        let main = self.select(Shape { groups, copies, tail: false, part })?;
        let tail = self.select(Shape { groups: 1, copies: self.asm.isa.copies(), tail: true, part: Part::Complete })?;
        let places = if self.usual.is_some() { 0..groups * copies } else { 0..0 };
        let complete = places
            .map(|p| self.select(Shape { groups, copies, tail: false, part: Part::One(p / copies, p % copies) }))
            .collect::<Result<Vec<_>, _>>()?;
        let wide = self.asm.isa;
        self.asm.isa = wide.narrow();
        let fold = self.select(Shape { groups: 1, copies: 1, tail: false, part: Part::Fold })?;
        self.asm.isa = wide;
        // Accumulators lie at cache lines, which the caller's memory may not.
        let accumulators = self.streams.frame();
        let spill = accumulators + 64 * self.strip.accs.len() as i32;

        let (top, rest, done) = (self.asm.label(), self.asm.label(), self.asm.label());
        self.asm.alu_reg(Alu::Xor, R11, R11);
        self.asm.immediate(7, RCX, step);
        self.asm.jump_if(Cond::Less, rest);
        let mut writer = Writer {
            asm: &mut self.asm,
            strip: self.strip,
            streams: self.streams,
            rescues: Vec::new(),
            detours: Vec::new(),
            masks: self.fixed.masks.len(),
            slots: 0,
            spill,
        };
        let (block, column) = (writer.asm.label(), writer.asm.label());
        if columns {
            begin_columns(writer.asm, column, block);
            move_accumulators(writer.asm, self.fixed, &self.homes, &t::LOAD);
        }
        writer.body(&first.0, &first.1, &self.homes, false)?;
        writer.asm.align(32);
        writer.asm.bind(top);
        if self.ahead.is_some() {
            // r15: the elements after these, or these again where there are none.
            writer.asm.address(RAX, Mem::at(R11, 2 * step));
            writer.asm.address(R15, Mem::at(R11, step));
            writer.asm.alu_reg(Alu::Cmp, RAX, RCX);
            writer.asm.move_if(Cond::Greater, R15, R11);
        }
        writer.body(&main.0, &main.1, &self.homes, false)?;
        writer.asm.immediate(0, R11, step);
        writer.asm.address(RAX, Mem::at(R11, step));
        writer.asm.alu_reg(Alu::Cmp, RAX, RCX);
        writer.asm.jump_if(Cond::LessEqual, top);
        if columns {
            move_accumulators(writer.asm, self.fixed, &self.homes, &t::STORE);
            next_column(writer.asm, step, column, block);
        }

        writer.asm.bind(rest);
        writer.asm.alu_reg(Alu::Cmp, RCX, R11);
        writer.asm.jump_if(Cond::LessEqual, done);
        let again = writer.asm.label();
        writer.asm.bind(again);
        tail_masks(writer.asm, self.fixed, &self.homes);
        writer.body(&tail.0, &tail.1, &self.homes, true)?;
        if self.groups > 1 {
            writer.asm.immediate(0, R11, 16);
            writer.asm.alu_reg(Alu::Cmp, RCX, R11);
            writer.asm.jump_if(Cond::Greater, again);
        }
        writer.asm.bind(done);
        if !columns {
            move_accumulators(writer.asm, self.fixed, &self.homes, &t::STORE);
        }
        if !fold.0.is_empty() {
            writer.asm.alu(Alu::Mov, R10, Rm::Mem(Mem::at(RSP, RESULTS), false));
            writer.asm.isa = wide.narrow();
            writer.body(&fold.0, &fold.1, &[], false)?;
            writer.asm.isa = wide;
        }
        writer.asm.address(RSP, Mem::at(RBP, -8 * saved.len() as i32));
        saved.iter().rev().for_each(|r| writer.asm.pop(*r));
        writer.asm.pop(RBP);
        writer.asm.zero_upper();
        writer.asm.ret();
        for detour in std::mem::take(&mut writer.detours) {
            let Some((code, banks)) = complete.get(detour.place) else { continue };
            writer.asm.bind(detour.begin);
            writer.body(code, banks, &self.homes, false)?;
            writer.asm.jump(detour.back);
        }
        Ok((writer.rescues, writer.slots, spill))
    }

    /// Accumulators of no elements. Those of maxima then never hold -0 where the main loop combines them with what is
    /// never -0: its maximum gives the accumulator when both are zeros.
    fn start_accumulators(&mut self) -> Result<(), Unsupported> {
        for (j, acc) in self.strip.accs.iter().enumerate() {
            let dtype = self.strip.ops.get(acc.value as usize).map(|op| op.dtype);
            let neutral = dtype.and_then(|dtype| acc.combine.neutral(dtype));
            let neutral = neutral.ok_or_else(|| Unsupported("a reduction without a neutral element".to_owned()))?;
            // Nothing is below 0 there, and infinity less 0 is above all.
            let bits = if of_magnitudes(self.strip, acc) { 0 } else { lane_bits(neutral) };
            let (mem, splat) = self.asm.splat(bits);
            let ins = if splat { &t::SPLAT } else { &t::LOAD };
            let kept = self.fixed.accs.get(j).filter(|_| !self.columns()).cloned().unwrap_or_default();
            for reg in &kept {
                self.asm.vector(Line::plain(ins, self.home(*reg), Rm::Mem(mem, false)));
            }
            if kept.is_empty() {
                // Nothing is in the first register yet.
                self.asm.vector(Line::plain(ins, 0, Rm::Mem(mem, false)));
                for c in 0..self.asm.isa.copies() {
                    let memory = Mem::at(RDX, (64 * j + self.asm.isa.bytes() * c) as i32);
                    self.asm.vector(Line::plain(&t::STORE, 0, Rm::Mem(memory, false)));
                }
            }
        }
        Ok(())
    }

    /// Whether the main loop takes one column at a time.
    fn columns(&self) -> bool {
        self.copies < self.asm.isa.copies()
    }

    fn select(&mut self, shape: Shape) -> Result<(Vec<Inst>, Vec<Bank>), Unsupported> {
        let banks = self.banks.clone();
        // The tail takes all columns: no accumulator is in a register then.
        let own = (shape.tail && self.columns()).then(|| Fixed { accs: Vec::new(), ..self.fixed.clone() });
        let fixed = own.as_ref().unwrap_or(self.fixed);
        let selected =
            Select::run(self.strip, self.streams, &mut self.asm, shape, fixed, banks, (self.usual, self.ahead))?;
        Ok((selected.code, selected.banks))
    }

    /// The rare parts: each hands its operands to one routine that calls the function for the lanes that need it.
    fn rare(&mut self, rescues: &[Rescue], save: i32) {
        if rescues.is_empty() {
            return;
        }
        let routine = self.asm.label();
        for rescue in rescues {
            self.asm.bind(rescue.begin);
            self.asm.vector(Line::plain(&t::STORE, rescue.x, Rm::Mem(Mem::at(RSP, RESCUE_X), false)));
            self.asm.vector(Line::plain(&t::STORE, rescue.value, Rm::Mem(Mem::at(RSP, RESCUE_VALUE), false)));
            self.asm.alu_reg(Alu::Xor, R10, R10);
            self.asm.immediate(0, R10, 8 * rescue.function as i32);
            self.asm.call(routine);
            self.asm.vector(Line::plain(&t::LOAD, rescue.value, Rm::Mem(Mem::at(RSP, RESCUE_VALUE), false)));
            self.asm.jump(rescue.back);
        }
        self.asm.bind(routine);
        PUSHED.iter().for_each(|r| self.asm.push(*r));
        let frame = 8 * (PUSHED.len() as i32 + 1);
        self.registers(frame + save, false);
        // rax: a bit for each lane that is good. r10: where the function is in the table.
        self.asm.alu_reg(Alu::Mov, R13, RAX);
        self.asm.alu(Alu::Add, R10, Rm::Mem(Mem::at(RSP, frame + FUNCTIONS), false));
        self.asm.alu(Alu::Mov, R14, Rm::Mem(Mem::at(R10, 0), false));
        self.asm.alu_reg(Alu::Xor, RBX, RBX);
        self.asm.zero_upper();
        let (next, skip) = (self.asm.label(), self.asm.label());
        self.asm.bind(next);
        self.asm.test_bit(R13, RBX);
        self.asm.jump_if(Cond::Carry, skip);
        let lane = |disp| Rm::Mem(Mem::At { base: RSP, index: Some((RBX, 2)), disp: frame + disp }, false);
        self.asm.vector(Line { first: Some(0), ..Line::plain(&t::CVTSS2SD, 0, lane(RESCUE_X)) });
        self.asm.call_reg(R14);
        self.asm.vector(Line { first: Some(0), ..Line::plain(&t::CVTSD2SS, 0, Rm::Reg(0)) });
        self.asm.vector(Line::plain(&t::STORESS, 0, lane(RESCUE_VALUE)));
        self.asm.bind(skip);
        self.asm.immediate(0, RBX, 1);
        self.asm.immediate(7, RBX, self.asm.isa.lanes() as i32);
        self.asm.jump_if(Cond::Less, next);
        self.registers(frame + save, true);
        PUSHED.iter().rev().for_each(|r| self.asm.pop(*r));
        self.asm.ret();
    }

    /// Saves all vector and mask registers, or brings them back.
    fn registers(&mut self, at: i32, load: bool) {
        for home in 0..self.asm.isa.registers() as u8 {
            let memory = Rm::Mem(Mem::at(RSP, at + 64 * i32::from(home)), false);
            self.asm.vector(Line::plain(if load { &t::LOAD } else { &t::STORE }, home, memory));
        }
        if self.asm.isa.masks() {
            for k in 1..8 {
                let memory = Rm::Mem(Mem::at(RSP, at + 32 * 64 + 2 * i32::from(k)), false);
                self.asm.mask(if load { &t::KMOVE } else { &t::KSTORE }, k, None, memory, None);
            }
        }
    }
}

/// Loads or stores those accumulators that are kept in registers.
fn move_accumulators(asm: &mut Asm, fixed: &Fixed, homes: &[u8], ins: &'static t::Ins) {
    let bytes = asm.isa.bytes();
    for (j, vectors) in fixed.accs.iter().enumerate() {
        for (c, reg) in vectors.iter().enumerate() {
            let memory = Mem::at(RDX, (64 * j + bytes * c) as i32);
            let home = homes.get(*reg as usize).copied().unwrap_or(0);
            asm.vector(Line::plain(ins, home, Rm::Mem(memory, false)));
        }
    }
}

/// Begins the passes over blocks and, in each, over its columns.
fn begin_columns(asm: &mut Asm, column: Label, block: Label) {
    asm.save(Mem::at(RSP, COUNT), RCX);
    asm.save(Mem::at(RSP, ACCUMULATORS), RDX);
    asm.bind(block);
    // rcx: where the block ends.
    asm.address(RAX, Mem::at(R11, BLOCK));
    asm.alu_reg(Alu::Cmp, RAX, RCX);
    asm.move_if(Cond::Less, RCX, RAX);
    asm.bind(column);
    asm.save(Mem::at(RSP, BEGIN), R11);
}

/// Goes on to the next column, whose elements and lanes of accumulators lie a vector further, or to the next block.
fn next_column(asm: &mut Asm, step: i32, column: Label, block: Label) {
    let (lanes, bytes) = (asm.isa.lanes() as i32, asm.isa.bytes() as i32);
    let kept = |at: i32| Rm::Mem(Mem::at(RSP, at), false);
    let last = asm.label();
    asm.immediate(0, RDX, bytes);
    asm.immediate(0, RCX, lanes);
    asm.alu_reg(Alu::Mov, RAX, RDX);
    asm.alu(Alu::Sub, RAX, kept(ACCUMULATORS));
    asm.immediate(7, RAX, 64);
    asm.jump_if(Cond::NotLess, last);
    asm.alu(Alu::Mov, R11, kept(BEGIN));
    asm.immediate(0, R11, lanes);
    asm.jump(column);
    asm.bind(last);
    asm.alu(Alu::Mov, RDX, kept(ACCUMULATORS));
    asm.alu(Alu::Mov, RCX, kept(COUNT));
    asm.immediate(5, R11, 16 - lanes);
    asm.address(RAX, Mem::at(R11, step));
    asm.alu_reg(Alu::Cmp, RAX, RCX);
    asm.jump_if(Cond::LessEqual, block);
}

/// Marks the lanes of the tail that hold an element: the first rcx - r11.
fn tail_masks(asm: &mut Asm, fixed: &Fixed, homes: &[u8]) {
    let home = |reg: &VReg| homes.get(*reg as usize).copied().unwrap_or(0);
    asm.alu_reg(Alu::Mov, R10, RCX);
    asm.alu_reg(Alu::Sub, R10, R11);
    if asm.isa.masks() {
        asm.low_bits(RAX, R10);
        asm.mask_from(TAIL_MASK, RAX);
        return;
    }
    let lanes = asm.isa.lanes();
    let splat = fixed.masks.last().map_or(0, home);
    asm.vector(Line::plain(&t::MOVD, splat, Rm::Reg(R10.0)));
    asm.vector(Line::plain(&t::SPLAT, splat, Rm::Reg(splat)));
    for (c, reg) in fixed.masks.iter().enumerate() {
        let numbers: Vec<u8> = (0..lanes).flat_map(|lane| ((c * lanes + lane) as u32).to_le_bytes()).collect();
        let numbers = asm.constant(&numbers);
        let rm = Rm::Mem(numbers, false);
        asm.vector(Line { first: Some(splat), ..Line::plain(&t::PCMPGTD, home(reg), rm) });
    }
}
