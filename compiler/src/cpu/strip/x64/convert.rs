//! How selected code turns values of one type into another: casts, bools as numbers, integers narrower than a lane.

use frit_ir::DType;
use frit_ir::types::Class;

use super::inst::{Bank, Inst, Kind, Source, VReg};
use super::select::{Place, Select, refuse};
use super::table as t;
use crate::cpu::strip::{Unsupported, Val};

impl Select<'_> {
    /// A bool as an integer or the bits of a float: `bits` where it is true.
    pub(super) fn bits_of(&mut self, v: Val, bits: u32) -> Result<VReg, Unsupported> {
        let x = self.reg(v)?;
        let (mem, splat) = self.asm.splat(bits);
        if !self.masks() {
            return Ok(self.vector(&t::ANDPS, Some(x), Source::Mem(mem, splat), None));
        }
        let def = self.fresh(Bank::Vector);
        let inst = Inst::new(Kind::Vector(&t::SPLAT));
        self.push(Inst { def: Some(def), rm: Source::Mem(mem, false), mask: Some(x), zero: true, ..inst });
        Ok(def)
    }

    /// An integer result brought back into its type's range.
    pub(super) fn normal(&mut self, dtype: DType, x: VReg) -> VReg {
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

    pub(super) fn cast(&mut self, v: Val, to: DType, saturate: bool) -> Result<Place, Unsupported> {
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
}
