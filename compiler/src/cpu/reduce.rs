//! Reductions: one element at a time, in the order that every path keeps.
//!
//! Float sums and products follow the fixed tree: element k into lane k mod 16, each lane from the neutral element in
//! ascending k; then lane i with lane i + 8, i + 4, i + 2, i + 1. The lanes lie in the stack frame. Everything else
//! (integers, min, max, argmin, argmax) gives the same in any order and is carried in a register.

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::types::{I8, I64};
use cranelift_codegen::ir::{InstBuilder, StackSlot, StackSlotData, StackSlotKind, Value};
use frit_ir::types::Class;
use frit_ir::{DType, Dim, Symbol};

use super::error::Refusal;
use super::function::Function;
use super::index::{self, Index};
use super::scalar::{self, MEMORY, clif_type};
use crate::kernel::{Acc, Combine, Stmt};

/// Lanes of the fixed tree.
pub(super) const LANES: usize = 16;

/// How the running state of an accumulator is kept.
#[derive(Clone, Copy)]
enum State {
    /// Sixteen lanes in the frame.
    Lanes(StackSlot),
    /// The carried value at this position.
    Carried(usize),
    /// The carried best value at this position, its index behind it.
    Best(usize),
}

impl Function<'_, '_> {
    /// Writes a reduction and defines its results.
    pub(super) fn reduce(&mut self, var: &Symbol, extent: &Dim, body: &[Stmt], accs: &[Acc]) -> Result<(), Refusal> {
        if let Some(results) = self.vector_loop(var, extent, body, accs)? {
            return accs.iter().zip(results).try_for_each(|(acc, value)| self.define(acc.result, value));
        }
        if let Some(n) = self.written_out(var, extent) {
            return self.reduce_written_out(var, n, body, accs);
        }
        let (states, carried) = self.initial_states(accs)?;
        let extent = index::emit(self, extent)?;
        let last = self.count(Index::known(0), extent, &carried, |this, k, carried| {
            this.bind(var, k, |this| {
                this.body(body)?;
                let mut carried = carried.to_vec();
                for (acc, state) in accs.iter().zip(&states) {
                    this.step(acc, *state, k, &mut carried)?;
                }
                Ok(carried)
            })
        })?;
        for (acc, state) in accs.iter().zip(states) {
            let missing = || Refusal::Internal("a reduction lost its state".to_owned());
            let value = match state {
                State::Carried(at) => last.get(at).copied().ok_or_else(missing)?,
                State::Best(at) => last.get(at + 1).copied().ok_or_else(missing)?,
                State::Lanes(slot) => self.combine_slot(acc.combine, self.reg_type(acc.value)?, slot)?,
            };
            self.define(acc.result, value)?;
        }
        Ok(())
    }

    fn initial_states(&mut self, accs: &[Acc]) -> Result<(Vec<State>, Vec<Value>), Refusal> {
        let mut states = Vec::with_capacity(accs.len());
        let mut carried = Vec::new();
        for acc in accs {
            let dtype = self.reg_type(acc.value)?;
            let start = scalar::neutral(acc.combine, dtype)?;
            let start = self.ops().constant(start)?;
            states.push(match acc.combine {
                Combine::ArgMin(_) | Combine::ArgMax(_) => {
                    let none = self.f.ins().iconst(I64, 0);
                    carried.extend([start, none]);
                    State::Best(carried.len() - 2)
                }
                combine if combine.is_ordered(dtype) => {
                    let size = dtype.size();
                    let slot = self.frame_slot(LANES * size);
                    let address = self.f.ins().stack_addr(I64, slot, 0);
                    for lane in 0..LANES {
                        self.f.ins().store(MEMORY, start, address, (lane * size) as i32);
                    }
                    State::Lanes(slot)
                }
                _ => {
                    carried.push(start);
                    State::Carried(carried.len() - 1)
                }
            });
        }
        Ok((states, carried))
    }

    /// Memory in the frame, aligned to 64 bytes as far as the frame is.
    pub(super) fn frame_slot(&mut self, bytes: usize) -> StackSlot {
        self.f.create_sized_stack_slot(StackSlotData::new(StackSlotKind::ExplicitSlot, bytes as u32, 4))
    }

    /// Combines the value of iteration k.
    fn step(&mut self, acc: &Acc, state: State, k: Index, carried: &mut [Value]) -> Result<(), Refusal> {
        let (dtype, value) = (self.reg_type(acc.value)?, self.reg(acc.value)?);
        match state {
            State::Lanes(slot) => {
                let size = dtype.size() as i64;
                let k = k.whole(self.f);
                let lane = self.f.ins().band_imm_s(k, LANES as i64 - 1);
                let offset = index::scale(self.f, lane, size);
                let start = self.f.ins().stack_addr(I64, slot, 0);
                let place = self.f.ins().iadd(start, offset);
                let old = self.f.ins().load(clif_type(dtype)?, MEMORY, place, 0);
                let new = self.combined(acc.combine, dtype, old, value)?;
                self.f.ins().store(MEMORY, new, place, 0);
            }
            State::Carried(at) => {
                let slot = carried.get_mut(at).ok_or_else(|| Refusal::Internal("no carried value".to_owned()))?;
                *slot = self.ops().combine(acc.combine, dtype, *slot, value)?;
            }
            State::Best(at) => {
                let (Combine::ArgMin(place) | Combine::ArgMax(place)) = acc.combine else {
                    return Err(Refusal::Internal("a best index of a plain reduction".to_owned()));
                };
                let place = self.reg(place)?;
                let Some([best, best_place]) = carried.get_mut(at..at + 2) else {
                    return Err(Refusal::Internal("no carried value".to_owned()));
                };
                let better = self.is_better(acc.combine, dtype, value, *best, k);
                *best = self.f.ins().select(better, value, *best);
                *best_place = self.f.ins().select(better, place, *best_place);
            }
        }
        Ok(())
    }

    /// What an iteration makes of a lane.
    fn combined(&mut self, combine: Combine, dtype: DType, lane: Value, value: Value) -> Result<Value, Refusal> {
        match combine {
            Combine::Dot(factor) => {
                let factor = self.reg(factor)?;
                self.ops().fma(dtype, value, factor, lane)
            }
            combine => self.ops().combine(combine, dtype, lane, value),
        }
    }

    /// Whether the value of iteration k replaces the best so far: it is the first, or beyond it, or the first NaN.
    fn is_better(&mut self, combine: Combine, dtype: DType, value: Value, best: Value, k: Index) -> Value {
        let smallest = matches!(combine, Combine::ArgMin(_));
        let (a, b) = if smallest { (value, best) } else { (best, value) };
        let better = match dtype.class() {
            Class::Float => {
                let beyond = self.f.ins().fcmp(FloatCC::LessThan, a, b);
                let nan = self.f.ins().fcmp(FloatCC::Unordered, value, value);
                let number = self.f.ins().fcmp(FloatCC::Ordered, best, best);
                let first_nan = self.f.ins().band(nan, number);
                self.f.ins().bor(beyond, first_nan)
            }
            Class::Signed => self.f.ins().icmp(IntCC::SignedLessThan, a, b),
            Class::Unsigned | Class::Bool | Class::Text => self.f.ins().icmp(IntCC::UnsignedLessThan, a, b),
        };
        let first = match k {
            Index { value: None, offset } => self.f.ins().iconst(I8, i64::from(offset == 0)),
            k => {
                let k = k.whole(self.f);
                let zero = self.f.ins().iconst(I64, 0);
                self.f.ins().icmp(IntCC::Equal, k, zero)
            }
        };
        self.f.ins().bor(better, first)
    }

    /// The lanes of a frame slot combined pairwise.
    fn combine_slot(&mut self, combine: Combine, dtype: DType, slot: StackSlot) -> Result<Value, Refusal> {
        let ty = clif_type(dtype)?;
        let start = self.f.ins().stack_addr(I64, slot, 0);
        let lanes = (0..LANES).map(|i| self.f.ins().load(ty, MEMORY, start, (i * dtype.size()) as i32)).collect();
        self.combine_pairwise(combine, dtype, lanes)
    }

    /// Lane i with lane i + half, until one is left.
    fn combine_pairwise(&mut self, combine: Combine, dtype: DType, lanes: Vec<Value>) -> Result<Value, Refusal> {
        let mut lanes = lanes;
        while lanes.len() > 1 {
            let high = lanes.split_off(lanes.len() / 2);
            for (low, high) in lanes.iter_mut().zip(high) {
                *low = self.ops().combine(combine, dtype, *low, high)?;
            }
        }
        lanes.first().copied().ok_or_else(|| Refusal::Internal("a reduction without lanes".to_owned()))
    }

    /// A reduction whose iterations are all written out: lanes are registers.
    fn reduce_written_out(&mut self, var: &Symbol, n: i64, body: &[Stmt], accs: &[Acc]) -> Result<(), Refusal> {
        let mut lanes: Vec<Vec<Value>> = Vec::with_capacity(accs.len());
        for acc in accs {
            let dtype = self.reg_type(acc.value)?;
            let start = scalar::neutral(acc.combine, dtype)?;
            let start = self.ops().constant(start)?;
            lanes.push(match acc.combine {
                Combine::ArgMin(_) | Combine::ArgMax(_) => vec![start, self.f.ins().iconst(I64, 0)],
                combine if combine.is_ordered(dtype) => vec![start; LANES],
                _ => vec![start],
            });
        }
        for k in 0..n {
            self.bind(var, Index::known(k), |this| {
                this.body(body)?;
                for (acc, lanes) in accs.iter().zip(&mut lanes) {
                    let (dtype, value) = (this.reg_type(acc.value)?, this.reg(acc.value)?);
                    if matches!(acc.combine, Combine::ArgMin(_) | Combine::ArgMax(_)) {
                        this.step(acc, State::Best(0), Index::known(k), lanes)?;
                        continue;
                    }
                    let count = lanes.len();
                    if let Some(lane) = lanes.get_mut(k as usize % count) {
                        *lane = this.combined(acc.combine, dtype, *lane, value)?;
                    }
                }
                Ok(())
            })?;
        }
        for (acc, lanes) in accs.iter().zip(lanes) {
            let dtype = self.reg_type(acc.value)?;
            let value = match acc.combine {
                Combine::ArgMin(_) | Combine::ArgMax(_) => lanes.get(1).copied(),
                combine => Some(self.combine_pairwise(combine, dtype, lanes)?),
            };
            let value = value.ok_or_else(|| Refusal::Internal("a reduction without lanes".to_owned()))?;
            self.define(acc.result, value)?;
        }
        Ok(())
    }
}
