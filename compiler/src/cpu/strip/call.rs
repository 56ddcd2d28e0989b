//! The call of a leaf: everything that a vector loop needs around its strip.
//!
//! Written where the loop was: what does not depend on the loop variable, addresses and steps of the streams,
//! parameters 16 times over; the call. All of it lies in the frame. What is
//! the same in all iterations of the phase is laid out once, before the first ([`Ready`]). Nothing is computed when the
//! loop runs no iteration, since loads before the call could lie outside of their buffers then.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{F32X4, I32X4, I64};
use cranelift_codegen::ir::{ExtFuncData, ExternalName, InstBuilder, StackSlot, UserExternalName, Value};
use frit_ir::{Dim, Symbol};

use super::clif::signature;
use super::lanes::{Lanes, vector_type};
use super::outline::{Outlined, outline};
use super::unswitch::{Cases, cases};
use crate::cpu::code::ScalarLoop;
use crate::cpu::error::Refusal;
use crate::cpu::function::{Function, Ready};
use crate::cpu::index;
use crate::cpu::scalar::{self, clif_type};
use crate::kernel::{Acc, Reg, Stmt};

/// Bytes of a parameter or an accumulator.
const BLOCK: usize = 64;

/// The leaves of a loop, one for each case of conditions that are known before it runs ([`Cases`]).
struct Choice {
    conditions: Vec<Reg>,
    leaves: Vec<usize>,
}

impl<'b> Function<'_, 'b> {
    /// Writes a loop as a call of its strip, when the schedule wants that and it is possible; returns the results of
    /// the accumulators. `None`: the loop is still to be written.
    pub(in crate::cpu) fn vector_loop(
        &mut self,
        var: &Symbol,
        extent: &Dim,
        body: &[Stmt],
        accs: &[Acc],
    ) -> Result<Option<Vec<Value>>, Refusal> {
        let Some(lanes) = self.schedule.lanes(var) else { return Ok(None) };
        let outlined = outline(self.kernel, var, extent, body, accs, &|reg| self.constant(reg));
        let choice = outlined.and_then(|o| {
            let Cases { conditions, strips } = cases(o.strip.clone());
            let conditions = conditions.iter().filter_map(|p| o.params.get(*p as usize).copied()).collect();
            let leaves = strips.into_iter().map(|strip| self.leaves.of(strip, lanes)).collect::<Result<_, _>>();
            Ok((o, Choice { conditions, leaves: leaves.map_err(|unsupported| unsupported.to_string())? }))
        });
        match choice {
            Ok((outlined, choice)) => {
                self.report.vectorised.push((var.to_string(), lanes));
                self.call_strip(&outlined, &choice, extent, accs).map(Some)
            }
            Err(reason) => {
                self.report.scalar.push(ScalarLoop { var: var.to_string(), reason });
                Ok(None)
            }
        }
    }

    fn lanes(&mut self) -> Lanes<'_, 'b> {
        Lanes { ops: self.ops() }
    }

    fn call_strip(
        &mut self,
        outlined: &Outlined<'_>,
        choice: &Choice,
        extent: &Dim,
        accs: &[Acc],
    ) -> Result<Vec<Value>, Refusal> {
        let extent = index::emit(self, extent)?;
        let n = extent.whole(self.f);
        let memory = self.frame_slot(BLOCK * accs.len().max(1));
        let run = |this: &mut Self| this.set_up_and_call(outlined, choice, n, memory);
        match (extent.value, extent.offset) {
            (None, 1..) => self.scoped(run)?,
            (None, _) => self.store_neutral(accs, memory)?,
            (Some(_), _) => {
                let zero = self.f.ins().iconst(I64, 0);
                let some = self.f.ins().icmp(IntCC::SignedGreaterThan, n, zero);
                self.branch(some, run, |this| this.store_neutral(accs, memory))?;
            }
        }
        let mut results = Vec::with_capacity(accs.len());
        for (k, acc) in accs.iter().enumerate() {
            let dtype = self.reg_type(acc.value)?;
            results.push(self.f.ins().stack_load(I64, clif_type(dtype)?, memory, (BLOCK * k) as i32));
        }
        Ok(results)
    }

    /// The accumulators of no elements.
    fn store_neutral(&mut self, accs: &[Acc], memory: StackSlot) -> Result<(), Refusal> {
        for (k, acc) in accs.iter().enumerate() {
            let neutral = scalar::neutral(acc.combine, self.reg_type(acc.value)?)?;
            let vector = self.lanes().constant(neutral);
            for part in 0..4 {
                self.f.ins().stack_store(I64, vector, memory, (BLOCK * k + 16 * part) as i32);
            }
        }
        Ok(())
    }

    /// Lays out what calls of leaves expect.
    pub(in crate::cpu) fn make_ready(&mut self, ready: &Ready) -> Result<(), Refusal> {
        match ready {
            Ready::Param(reg, slot, at) => {
                let (dtype, value) = (self.reg_type(*reg)?, self.reg(*reg)?);
                let value = self.lanes().lane_of(dtype, value);
                let ty = if vector_type(dtype) == F32X4 { F32X4 } else { I32X4 };
                let vector = self.f.ins().splat(ty, value);
                for part in 0..4 {
                    self.f.ins().stack_store(I64, vector, *slot, at + 16 * part);
                }
            }
            Ready::Address(buffer, start, slot, at) => {
                let (address, offset) = self.address(*buffer, start)?;
                let base = self.f.ins().iadd_imm_s(address, i64::from(offset));
                self.f.ins().stack_store(I64, base, *slot, *at);
            }
            Ready::Distance(buffer, step, slot, at) => {
                let size = self.buffer_type(*buffer)?.size() as i64;
                let bytes = match step.known() {
                    Some(step) => self.f.ins().iconst(I64, step.wrapping_mul(size)),
                    None => {
                        let step = index::emit(self, step)?.whole(self.f);
                        index::scale(self.f, step, size)
                    }
                };
                self.f.ins().stack_store(I64, bytes, *slot, *at);
            }
        }
        Ok(())
    }

    /// Now, or before the first iteration.
    fn lay_out(&mut self, same: bool, what: Ready) -> Result<(), Refusal> {
        if same {
            self.ready.push(what);
            return Ok(());
        }
        self.make_ready(&what)
    }

    fn set_up_and_call(
        &mut self,
        outlined: &Outlined<'_>,
        choice: &Choice,
        n: Value,
        accumulators: StackSlot,
    ) -> Result<(), Refusal> {
        for stmt in &outlined.hoisted {
            self.body(std::slice::from_ref(*stmt))?;
        }
        let streams = self.frame_slot(16 * outlined.walks.len().max(1));
        for (k, walk) in outlined.walks.iter().enumerate() {
            let at = 16 * k as i32;
            let same = self.is_ahead(&walk.start);
            self.lay_out(same, Ready::Address(walk.buffer, walk.start.clone(), streams, at))?;
            let same = self.is_ahead(&walk.step);
            self.lay_out(same, Ready::Distance(walk.buffer, walk.step.clone(), streams, at + 8))?;
        }
        let params = self.frame_slot(BLOCK * outlined.params.len().max(1));
        for (k, reg) in outlined.params.iter().enumerate() {
            let same = self.is_reg_ahead(*reg);
            self.lay_out(same, Ready::Param(*reg, params, (BLOCK * k) as i32))?;
        }
        let streams = self.f.ins().stack_addr(I64, streams, 0);
        let params = self.f.ins().stack_addr(I64, params, 0);
        let accumulators = self.f.ins().stack_addr(I64, accumulators, 0);
        let functions = self.function_table()?;
        self.call_chosen(&choice.conditions, &choice.leaves, &[streams, params, accumulators, n, functions])
    }

    /// Calls the leaf of the case that the conditions say.
    fn call_chosen(&mut self, conditions: &[Reg], leaves: &[usize], arguments: &[Value]) -> Result<(), Refusal> {
        if let Some((last, others)) = conditions.split_last() {
            let (without, with) = leaves.split_at(leaves.len() / 2);
            let holds = self.reg(*last)?;
            let choose = |leaves| move |this: &mut Self| this.call_chosen(others, leaves, arguments);
            return self.branch(holds, choose(with), choose(without));
        }
        let leaf = leaves.first().ok_or_else(|| Refusal::Internal("a loop without a leaf".to_owned()))?;
        let signature = self.f.import_signature(signature(self.convention));
        let name = self.f.func.declare_imported_user_function(UserExternalName { namespace: 0, index: *leaf as u32 });
        let function = self.f.import_function(ExtFuncData {
            name: ExternalName::user(name),
            signature,
            colocated: true,
            patchable: false,
        });
        self.f.ins().call(function, arguments);
        Ok(())
    }
}
