//! The assembler: instructions to bytes, with labels, a pool of constants behind the code, and a listing on demand.
//!
//! One encoder each for VEX, EVEX and the few general instructions that a loop needs. Source: Intel 64 and IA-32
//! Architectures Software Developer's Manual, volume 2, sections 2.3 (VEX) and 2.7 (EVEX).

use std::fmt::{self, Write as _};

use super::table::{Form, Ins, Tuple};
use crate::cpu::target::{Encoding, VectorBits};

/// A general register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Gpr(pub(super) u8);

pub(super) const RAX: Gpr = Gpr(0);
pub(super) const RCX: Gpr = Gpr(1);
pub(super) const RDX: Gpr = Gpr(2);
pub(super) const RBX: Gpr = Gpr(3);
pub(super) const RSP: Gpr = Gpr(4);
pub(super) const RBP: Gpr = Gpr(5);
pub(super) const RSI: Gpr = Gpr(6);
pub(super) const RDI: Gpr = Gpr(7);
pub(super) const R8: Gpr = Gpr(8);
pub(super) const R9: Gpr = Gpr(9);
pub(super) const R10: Gpr = Gpr(10);
pub(super) const R11: Gpr = Gpr(11);
pub(super) const R12: Gpr = Gpr(12);
pub(super) const R13: Gpr = Gpr(13);
pub(super) const R14: Gpr = Gpr(14);
pub(super) const R15: Gpr = Gpr(15);

impl fmt::Display for Gpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 16] = [
            "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
            "r15",
        ];
        f.write_str(NAMES.get(usize::from(self.0)).unwrap_or(&"?"))
    }
}

/// The vectors that code is written with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::cpu::strip) struct Isa {
    encoding: Encoding,
    bits: VectorBits,
}

impl Isa {
    /// Vectors of some width, or the widest that the encoding has.
    pub(in crate::cpu::strip) fn new(encoding: Encoding, bits: VectorBits) -> Isa {
        Isa { encoding, bits: bits.min(encoding.widest()) }
    }

    /// The same instructions on four elements.
    pub(super) fn narrow(self) -> Isa {
        Isa { bits: VectorBits::B128, ..self }
    }

    /// Bytes of a vector.
    pub(super) fn bytes(self) -> usize {
        self.bits.bits() as usize / 8
    }

    /// 32-bit elements of a vector.
    pub(super) fn lanes(self) -> usize {
        self.bytes() / 4
    }

    /// Vectors of 16 elements.
    pub(in crate::cpu::strip) fn copies(self) -> usize {
        16 / self.lanes()
    }

    /// Whether masks have registers of their own.
    pub(in crate::cpu::strip) fn masks(self) -> bool {
        self.encoding == Encoding::Evex
    }

    /// Vector registers.
    pub(super) fn registers(self) -> usize {
        if self.masks() { 32 } else { 16 }
    }

    /// The width as both encodings number it: 0, 1, 2.
    fn length(self) -> u8 {
        match self.bits {
            VectorBits::B128 => 0,
            VectorBits::B256 => 1,
            VectorBits::B512 => 2,
        }
    }

    fn letter(self) -> char {
        match self.bits {
            VectorBits::B128 => 'x',
            VectorBits::B256 => 'y',
            VectorBits::B512 => 'z',
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.masks() { "AVX-512" } else { "AVX2" };
        write!(f, "{name}, {} bits", self.bits.bits())
    }
}

/// Memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mem {
    /// `[base + index * 2^scale + disp]`
    At {
        /// Where.
        base: Gpr,
        /// Register and scale.
        index: Option<(Gpr, u8)>,
        /// Bytes.
        disp: i32,
    },
    /// A constant, by its offset in the pool.
    Pool(u32),
}

impl Mem {
    pub(super) fn at(base: Gpr, disp: i32) -> Mem {
        Mem::At { base, index: None, disp }
    }
}

/// The last operand of an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rm {
    /// A register (vector, mask or general, as the instruction says).
    Reg(u8),
    /// Memory; the element there is repeated in all lanes when the flag is set (EVEX only).
    Mem(Mem, bool),
}

/// A mask on a result (EVEX only).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Mask {
    /// Mask register; 0: none.
    pub(super) k: u8,
    /// Lanes without the mask become zero instead of staying.
    pub(super) zero: bool,
}

/// One vector instruction on real registers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub(super) ins: &'static Ins,
    /// Destination, or what is stored.
    pub(super) reg: u8,
    pub(super) first: Option<u8>,
    pub(super) rm: Rm,
    pub(super) imm: Option<u8>,
    pub(super) mask: Mask,
}

impl Line {
    /// `reg = ins(rm)`, or the store of reg there.
    pub(super) fn plain(ins: &'static Ins, reg: u8, rm: Rm) -> Line {
        Line { ins, reg, first: None, rm, imm: None, mask: Mask::default() }
    }
}

/// A place to jump to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Label(usize);

/// Conditions of jumps, as x86 numbers them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cond {
    /// Carry set.
    Carry = 2,
    /// Carry clear.
    NoCarry = 3,
    NotEqual = 5,
    Less = 12,
    NotLess = 13,
    LessEqual = 14,
    Greater = 15,
}

/// Operations of two general registers, or a register and memory: `reg = reg op rm` (cmp: flags only).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Alu {
    Add = 0x03,
    Sub = 0x2b,
    Xor = 0x33,
    Cmp = 0x3b,
    Mov = 0x8b,
}

pub(super) struct Asm {
    pub(super) isa: Isa,
    code: Vec<u8>,
    listing: Option<String>,
    pool: Vec<u8>,
    /// Where 4 bytes of distance to the pool wait, and what they point to.
    pool_uses: Vec<(usize, u32)>,
    labels: Vec<Option<usize>>,
    jumps: Vec<(usize, Label)>,
    /// Where the frame's size waits.
    frames: Vec<usize>,
}

impl Asm {
    pub(super) fn new(isa: Isa, listing: bool) -> Self {
        Asm {
            isa,
            code: Vec::with_capacity(2048),
            listing: listing.then(String::new),
            pool: Vec::new(),
            pool_uses: Vec::new(),
            labels: Vec::new(),
            jumps: Vec::new(),
            frames: Vec::new(),
        }
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(listing) = &mut self.listing {
            let _ = writeln!(listing, "    {}", line());
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.code.extend_from_slice(bytes);
    }

    /// The place of a constant in the pool; equal ones share it.
    pub(super) fn constant(&mut self, bytes: &[u8]) -> Mem {
        let align = bytes.len().max(1);
        let found = self.pool.chunks_exact(align).position(|c| c == bytes);
        let at = found.map_or_else(
            || {
                self.pool.resize(self.pool.len().next_multiple_of(align), 0);
                self.pool.extend_from_slice(bytes);
                self.pool.len() - align
            },
            |i| i * align,
        );
        Mem::Pool(at as u32)
    }

    /// The same 32 bits in every lane: where, and whether one element stands for all.
    pub(super) fn splat(&mut self, bits: u32) -> (Mem, bool) {
        let splat = self.isa.masks();
        let lanes = if splat { 1 } else { self.isa.lanes() };
        (self.constant(&bits.to_le_bytes().repeat(lanes)), splat)
    }

    /// ModRM, SIB, displacement. `unit` is what an 8-bit displacement counts, `behind` how many bytes of the
    /// instruction follow.
    fn modrm(&mut self, reg: u8, rm: Rm, unit: i32, behind: i32) {
        let reg = (reg & 7) << 3;
        match rm {
            Rm::Reg(r) => self.bytes(&[0xc0 | reg | (r & 7)]),
            Rm::Mem(Mem::Pool(offset), _) => {
                self.bytes(&[reg | 5]);
                self.pool_uses.push((self.code.len(), offset));
                self.bytes(&(-behind).to_le_bytes());
            }
            Rm::Mem(Mem::At { base, index, disp }, _) => {
                let near = disp % unit == 0 && i8::try_from(disp / unit).is_ok();
                let mode = match disp {
                    0 if base.0 & 7 != 5 => 0x00,
                    _ if near => 0x40,
                    _ => 0x80,
                };
                if index.is_some() || base.0 & 7 == 4 {
                    let (index, scale) = index.unwrap_or((RSP, 0));
                    self.bytes(&[mode | reg | 4, scale << 6 | (index.0 & 7) << 3 | base.0 & 7]);
                } else {
                    self.bytes(&[mode | reg | base.0 & 7]);
                }
                match mode {
                    0x40 => self.bytes(&[(disp / unit) as u8]),
                    0x80 => self.bytes(&disp.to_le_bytes()),
                    _ => {}
                }
            }
        }
    }

    /// The high bits of register numbers: reg (bit 3), index or rm (bit 4), base or rm (bit 3).
    fn high(reg: u8, rm: Rm) -> (u8, u8, u8) {
        let (x, b) = match rm {
            Rm::Reg(r) => (r >> 4 & 1, r >> 3 & 1),
            Rm::Mem(Mem::At { base, index, .. }, _) => (index.map_or(0, |(i, _)| i.0 >> 3 & 1), base.0 >> 3 & 1),
            Rm::Mem(Mem::Pool(_), _) => (0, 0),
        };
        (reg >> 3 & 1, x, b)
    }

    /// A vector instruction.
    pub(super) fn vector(&mut self, line: Line) {
        if self.listing.is_some() {
            let text = self.text(&line);
            self.note(|| text);
        }
        let Line { ins, reg, first, rm, imm, mask } = line;
        let (field, second) = match ins.form {
            Form::Digit(digit) => (digit, reg),
            Form::Plain | Form::Store => (reg, first.unwrap_or(0)),
        };
        let behind = i32::from(imm.is_some());
        if self.isa.masks() && !ins.low {
            self.evex(ins, field, second, rm, mask);
            let bytes = self.isa.bytes() as i32;
            let unit = match (rm, ins.tuple) {
                (Rm::Mem(_, true), _) | (_, Tuple::One) => 4,
                (_, Tuple::Full | Tuple::Whole) => bytes,
                (_, Tuple::Half) => bytes / 2,
                (_, Tuple::Quarter) => bytes / 4,
            };
            self.modrm(field, rm, unit, behind);
        } else {
            self.vex(ins, field, second, rm, self.isa.length() == 1 && !ins.low);
            self.modrm(field, rm, 1, behind);
        }
        imm.iter().for_each(|imm| self.bytes(&[*imm]));
    }

    fn evex(&mut self, ins: &Ins, field: u8, second: u8, rm: Rm, mask: Mask) {
        let (r, x, b) = Self::high(field, rm);
        let splat = u8::from(matches!(rm, Rm::Mem(_, true)));
        let bytes = [
            0x62,
            (r ^ 1) << 7 | (x ^ 1) << 6 | (b ^ 1) << 5 | (!field >> 4 & 1) << 4 | ins.map,
            u8::from(ins.wide) << 7 | (!second & 15) << 3 | 4 | ins.prefix as u8,
            u8::from(mask.zero) << 7 | self.isa.length() << 5 | splat << 4 | (!second >> 4 & 1) << 3 | mask.k,
            ins.opcode,
        ];
        self.bytes(&bytes);
    }

    fn vex(&mut self, ins: &Ins, field: u8, second: u8, rm: Rm, long: bool) {
        let (r, x, b) = Self::high(field, rm);
        let last = (!second & 15) << 3 | u8::from(long) << 2 | ins.prefix as u8;
        if x == 0 && b == 0 && ins.map == 1 && !ins.wide {
            self.bytes(&[0xc5, (r ^ 1) << 7 | last, ins.opcode]);
        } else {
            let second = (r ^ 1) << 7 | (x ^ 1) << 6 | (b ^ 1) << 5 | ins.map;
            self.bytes(&[0xc4, second, u8::from(ins.wide) << 7 | last, ins.opcode]);
        }
    }

    /// An instruction on mask registers: `reg = op(first, rm)`.
    pub(super) fn mask(&mut self, ins: &'static Ins, reg: u8, first: Option<u8>, rm: Rm, imm: Option<u8>) {
        if self.listing.is_some() {
            let (name, rm) = (ins.name, Self::operand(rm, "k", 16));
            let first = first.map(|f| format!("k{f}, ")).unwrap_or_default();
            self.note(|| {
                if ins.form == Form::Store {
                    format!("{name} {rm}, k{reg}")
                } else {
                    let imm = imm.map(|i| format!(", {i}")).unwrap_or_default();
                    format!("{name} k{reg}, {first}{rm}{imm}")
                }
            });
        }
        self.vex(ins, reg, first.unwrap_or(0), rm, first.is_some());
        self.modrm(reg, rm, 1, i32::from(imm.is_some()));
        imm.iter().for_each(|imm| self.bytes(&[*imm]));
    }

    /// `kmovw reg, gpr`
    pub(super) fn mask_from(&mut self, k: u8, from: Gpr) {
        self.note(|| format!("kmovw k{k}, {from}d"));
        self.bytes(&[0xc5, 0xf8, 0x92, 0xc0 | k << 3 | from.0 & 7]);
    }

    /// `kmovw gpr, reg`
    pub(super) fn mask_to(&mut self, to: Gpr, k: u8) {
        self.note(|| format!("kmovw {to}d, k{k}"));
        self.bytes(&[0xc5, 0xf8, 0x93, 0xc0 | (to.0 & 7) << 3 | k]);
    }

    /// Sets carry when a mask is all ones in 16 lanes, or in 8.
    pub(super) fn mask_test(&mut self, k: u8, lanes: usize) {
        let (letter, prefix) = if lanes == 16 { ('w', 0xf8) } else { ('b', 0xf9) };
        self.note(|| format!("kortest{letter} k{k}, k{k}"));
        self.bytes(&[0xc5, prefix, 0x98, 0xc0 | k << 3 | k]);
    }

    /// The lowest `count` bits of `to` set (all 32 for larger counts below 256); `to` below r8.
    pub(super) fn low_bits(&mut self, to: Gpr, count: Gpr) {
        self.note(|| format!("mov {to}d, -1"));
        self.bytes(&[0xb8 | to.0 & 7]);
        self.bytes(&u32::MAX.to_le_bytes());
        self.note(|| format!("bzhi {to}d, {to}d, {count}d"));
        self.bytes(&[0xc4, 0xe2, (!count.0 & 15) << 3, 0xf5, 0xc0 | (to.0 & 7) << 3 | to.0 & 7]);
    }

    fn general(&mut self, opcode: &[u8], wide: bool, reg: u8, rm: Rm, behind: i32) {
        let (r, x, b) = Self::high(reg, rm);
        let rex = 0x40 | u8::from(wide) << 3 | r << 2 | x << 1 | b;
        if rex != 0x40 {
            self.bytes(&[rex]);
        }
        self.bytes(opcode);
        self.modrm(reg, rm, 1, behind);
    }

    /// `reg = reg op rm`
    pub(super) fn alu(&mut self, op: Alu, reg: Gpr, rm: Rm) {
        self.note(|| format!("{} {reg}, {}", format!("{op:?}").to_lowercase(), Self::operand(rm, "", 0)));
        self.general(&[op as u8], true, reg.0, rm, 0);
    }

    /// `reg = reg op other`
    pub(super) fn alu_reg(&mut self, op: Alu, reg: Gpr, other: Gpr) {
        self.note(|| format!("{} {reg}, {other}", format!("{op:?}").to_lowercase()));
        self.general(&[op as u8], true, reg.0, Rm::Reg(other.0), 0);
    }

    /// `reg = reg * rm`
    pub(super) fn multiply(&mut self, reg: Gpr, rm: Rm) {
        self.note(|| format!("imul {reg}, {}", Self::operand(rm, "", 0)));
        self.general(&[0x0f, 0xaf], true, reg.0, rm, 0);
    }

    /// `[memory] = reg`, 64 bits.
    pub(super) fn save(&mut self, memory: Mem, reg: Gpr) {
        self.note(|| format!("mov {}, {reg}", Self::operand(Rm::Mem(memory, false), "", 0)));
        self.general(&[0x89], true, reg.0, Rm::Mem(memory, false), 0);
    }

    /// `reg = address of memory`
    pub(super) fn address(&mut self, reg: Gpr, memory: Mem) {
        self.note(|| format!("lea {reg}, {}", Self::operand(Rm::Mem(memory, false), "", 0)));
        self.general(&[0x8d], true, reg.0, Rm::Mem(memory, false), 0);
    }

    /// `reg op= constant`: add (0), and (4), sub (5), cmp (7).
    pub(super) fn immediate(&mut self, digit: u8, reg: Gpr, value: i32) {
        let name = ["add", "or", "adc", "sbb", "and", "sub", "xor", "cmp"].get(usize::from(digit)).unwrap_or(&"?");
        self.note(|| format!("{name} {reg}, {value}"));
        if let Ok(short) = i8::try_from(value) {
            self.general(&[0x83], true, digit, Rm::Reg(reg.0), 1);
            self.bytes(&[short as u8]);
        } else {
            self.general(&[0x81], true, digit, Rm::Reg(reg.0), 4);
            self.bytes(&value.to_le_bytes());
        }
    }

    /// `sub rsp, size of the frame`, which is known at the end.
    pub(super) fn frame(&mut self) {
        self.note(|| "sub rsp, frame".to_owned());
        self.general(&[0x81], true, 5, Rm::Reg(RSP.0), 4);
        self.frames.push(self.code.len());
        self.bytes(&[0; 4]);
    }

    /// An element of 1, 2 or 4 bytes into a register, extended to 32 bits.
    pub(super) fn load_element(&mut self, reg: Gpr, memory: Mem, size: usize, signed: bool) {
        let (name, opcode): (&str, &[u8]) = match (size, signed) {
            (1, true) => ("movsx", &[0x0f, 0xbe]),
            (1, false) => ("movzx", &[0x0f, 0xb6]),
            (2, true) => ("movsx", &[0x0f, 0xbf]),
            (2, false) => ("movzx", &[0x0f, 0xb7]),
            _ => ("mov", &[0x8b]),
        };
        self.note(|| format!("{name} {reg}d, {} bytes {}", size, Self::operand(Rm::Mem(memory, false), "", 0)));
        self.general(opcode, false, reg.0, Rm::Mem(memory, false), 0);
    }

    /// The low 1, 2 or 4 bytes of a register (below rsp) to memory.
    pub(super) fn store_element(&mut self, memory: Mem, reg: Gpr, size: usize) {
        self.note(|| format!("mov {} bytes {}, {reg}d", size, Self::operand(Rm::Mem(memory, false), "", 0)));
        if size == 2 {
            self.bytes(&[0x66]);
        }
        self.general(&[if size == 1 { 0x88 } else { 0x89 }], false, reg.0, Rm::Mem(memory, false), 0);
    }

    /// `reg = other` if the condition holds.
    pub(super) fn move_if(&mut self, cond: Cond, reg: Gpr, other: Gpr) {
        self.note(|| format!("cmov({cond:?}) {reg}, {other}"));
        self.general(&[0x0f, 0x40 | cond as u8], true, reg.0, Rm::Reg(other.0), 0);
    }

    /// `bt reg, bit`
    pub(super) fn test_bit(&mut self, reg: Gpr, bit: Gpr) {
        self.note(|| format!("bt {reg}, {bit}"));
        self.general(&[0x0f, 0xa3], true, bit.0, Rm::Reg(reg.0), 0);
    }

    pub(super) fn push(&mut self, reg: Gpr) {
        self.note(|| format!("push {reg}"));
        if reg.0 > 7 {
            self.bytes(&[0x41]);
        }
        self.bytes(&[0x50 | reg.0 & 7]);
    }

    pub(super) fn pop(&mut self, reg: Gpr) {
        self.note(|| format!("pop {reg}"));
        if reg.0 > 7 {
            self.bytes(&[0x41]);
        }
        self.bytes(&[0x58 | reg.0 & 7]);
    }

    pub(super) fn call_reg(&mut self, reg: Gpr) {
        self.note(|| format!("call {reg}"));
        self.general(&[0xff], false, 2, Rm::Reg(reg.0), 0);
    }

    pub(super) fn ret(&mut self) {
        self.note(|| "ret".to_owned());
        self.bytes(&[0xc3]);
    }

    /// Leaves no upper halves behind, which would slow down code that does not know them.
    pub(super) fn zero_upper(&mut self) {
        self.note(|| "vzeroupper".to_owned());
        self.bytes(&[0xc5, 0xf8, 0x77]);
    }

    pub(super) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    pub(super) fn bind(&mut self, label: Label) {
        if let Some(listing) = &mut self.listing {
            let _ = writeln!(listing, "L{}:", label.0);
        }
        if let Some(place) = self.labels.get_mut(label.0) {
            *place = Some(self.code.len());
        }
    }

    /// Starts a loop on a line of the instruction cache, behind as few instructions without effect as it takes.
    pub(super) fn align(&mut self, to: usize) {
        /// The longest of them that decoders take at once.
        const LONGEST: usize = 9;
        let mut left = self.code.len().next_multiple_of(to) - self.code.len();
        while left > 0 {
            let length = left.min(LONGEST);
            self.bytes(match length {
                1 => &[0x90],
                2 => &[0x66, 0x90],
                3 => &[0x0f, 0x1f, 0x00],
                4 => &[0x0f, 0x1f, 0x40, 0x00],
                5 => &[0x0f, 0x1f, 0x44, 0x00, 0x00],
                6 => &[0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00],
                7 => &[0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00],
                8 => &[0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
                _ => &[0x66, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
            });
            left -= length;
        }
    }

    pub(super) fn jump(&mut self, label: Label) {
        self.note(|| format!("jmp L{}", label.0));
        self.bytes(&[0xe9]);
        self.distance(label);
    }

    pub(super) fn jump_if(&mut self, cond: Cond, label: Label) {
        self.note(|| format!("j({cond:?}) L{}", label.0));
        self.bytes(&[0x0f, 0x80 | cond as u8]);
        self.distance(label);
    }

    pub(super) fn call(&mut self, label: Label) {
        self.note(|| format!("call L{}", label.0));
        self.bytes(&[0xe8]);
        self.distance(label);
    }

    fn distance(&mut self, label: Label) {
        self.jumps.push((self.code.len(), label));
        self.bytes(&[0; 4]);
    }

    /// The finished bytes: code, then constants, both aligned to 64; and the listing. `None`: a label has no place.
    pub(super) fn finish(mut self, frame: usize) -> Option<(Vec<u8>, String)> {
        for at in std::mem::take(&mut self.frames) {
            self.patch(at, frame as i32)?;
        }
        for (at, label) in std::mem::take(&mut self.jumps) {
            let target = (*self.labels.get(label.0)?)?;
            self.patch(at, target as i32 - (at as i32 + 4))?;
        }
        let pool = self.code.len().next_multiple_of(64);
        for (at, offset) in std::mem::take(&mut self.pool_uses) {
            let behind = i32::from_le_bytes(*self.code.get(at..)?.first_chunk()?);
            self.patch(at, pool as i32 + offset as i32 - (at as i32 + 4) + behind)?;
        }
        self.code.resize(pool, 0xcc);
        self.code.extend_from_slice(&self.pool);
        Some((self.code, self.listing.unwrap_or_default()))
    }

    fn patch(&mut self, at: usize, value: i32) -> Option<()> {
        *self.code.get_mut(at..)?.first_chunk_mut()? = value.to_le_bytes();
        Some(())
    }

    fn operand(rm: Rm, register: &str, lanes: usize) -> String {
        match rm {
            Rm::Reg(r) => format!("{register}{r}"),
            Rm::Mem(Mem::Pool(offset), splat) => {
                format!("[pool+{offset}]{}", if splat { format!("{{1to{lanes}}}") } else { String::new() })
            }
            Rm::Mem(Mem::At { base, index, disp }, splat) => {
                let index = index.map(|(i, s)| format!("+{i}*{}", 1 << s)).unwrap_or_default();
                let disp = if disp == 0 { String::new() } else { format!("{disp:+}") };
                format!("[{base}{index}{disp}]{}", if splat { format!("{{1to{lanes}}}") } else { String::new() })
            }
        }
    }

    fn text(&self, line: &Line) -> String {
        let Line { ins, reg, first, rm, imm, mask } = *line;
        let class = format!("{}mm", if ins.low { 'x' } else { self.isa.letter() });
        // Comparisons write a mask register.
        let to_mask = self.isa.masks()
            && (matches!(ins.opcode, 0xc2 if ins.map == 1)
                || ins.name.starts_with("vpcmp")
                || ins.name.starts_with("vptestm"));
        let target = if to_mask { format!("k{reg}") } else { format!("{class}{reg}") };
        let masked = match mask {
            Mask { k: 0, .. } => String::new(),
            Mask { k, zero } => format!("{{k{k}}}{}", if zero { "{z}" } else { "" }),
        };
        let first = first.map(|f| format!("{class}{f}, ")).unwrap_or_default();
        let last = Self::operand(rm, &class, self.isa.lanes());
        let imm = match imm {
            // The immediate names a register.
            Some(i) if ins.map == 3 && ins.opcode == 0x4a => format!(", {class}{}", i >> 4),
            Some(i) => format!(", {i}"),
            None => String::new(),
        };
        if ins.form == Form::Store {
            format!("{} {last}{masked}, {first}{target}{imm}", ins.name)
        } else {
            format!("{} {target}{masked}, {first}{last}{imm}", ins.name)
        }
    }
}
