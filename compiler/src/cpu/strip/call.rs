//! The call of a leaf: everything that a vector loop needs around its strip.
//!
//! Written where the loop was: what does not depend on the loop variable, addresses and steps of the streams,
//! parameters 16 times over, accumulators from their neutral elements; the call; the lanes combined pairwise. All of it
//! lies in the frame. Nothing is computed when the loop runs no iteration, since loads before the call could lie
//! outside of their buffers then.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{F32X4, I32X4, I64};
use cranelift_codegen::ir::{ExtFuncData, ExternalName, InstBuilder, StackSlot, UserExternalName, Value};
use frit_ir::{Dim, Symbol};

use super::clif::signature;
use super::lanes::{Lanes, vector_type};
use super::outline::{Outlined, outline};
use crate::cpu::code::ScalarLoop;
use crate::cpu::error::Refusal;
use crate::cpu::function::Function;
use crate::cpu::index;
use crate::cpu::scalar;
use crate::kernel::{Acc, Stmt};

/// Bytes of a parameter or an accumulator.
const BLOCK: usize = 64;

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
        let outlined = outline(self.kernel, var, extent, body, accs);
        let leaf = outlined.and_then(|o| match self.leaves.of(o.strip.clone(), lanes) {
            Ok(leaf) => Ok((o, leaf)),
            Err(unsupported) => Err(unsupported.to_string()),
        });
        match leaf {
            Ok((outlined, leaf)) => {
                self.report.vectorised.push((var.to_string(), lanes));
                self.call_strip(&outlined, leaf, extent, accs).map(Some)
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
        leaf: usize,
        extent: &Dim,
        accs: &[Acc],
    ) -> Result<Vec<Value>, Refusal> {
        let extent = index::emit(self, extent)?;
        let n = extent.whole(self.f);
        let memory = self.frame_slot(BLOCK * accs.len().max(1));
        for (k, acc) in accs.iter().enumerate() {
            let neutral = scalar::neutral(acc.combine, self.reg_type(acc.value)?)?;
            let vector = self.lanes().constant(neutral);
            for part in 0..4 {
                self.f.ins().stack_store(I64, vector, memory, (BLOCK * k + 16 * part) as i32);
            }
        }
        let run = |this: &mut Self| this.set_up_and_call(outlined, leaf, n, memory);
        if extent.value.is_none() {
            if extent.offset > 0 {
                self.scoped(run)?;
            }
        } else {
            let zero = self.f.ins().iconst(I64, 0);
            let some = self.f.ins().icmp(IntCC::SignedGreaterThan, n, zero);
            self.branch(some, run, |_| Ok(()))?;
        }
        let mut results = Vec::with_capacity(accs.len());
        for (k, acc) in accs.iter().enumerate() {
            let dtype = self.reg_type(acc.value)?;
            let ty = vector_type(dtype);
            let at = |part: usize| (BLOCK * k + 16 * part) as i32;
            let parts = [0, 1, 2, 3].map(|part| self.f.ins().stack_load(I64, ty, memory, at(part)));
            results.push(self.lanes().combine_all(acc.combine, dtype, parts)?);
        }
        Ok(results)
    }

    fn set_up_and_call(
        &mut self,
        outlined: &Outlined<'_>,
        leaf: usize,
        n: Value,
        accumulators: StackSlot,
    ) -> Result<(), Refusal> {
        for stmt in &outlined.hoisted {
            self.body(std::slice::from_ref(*stmt))?;
        }
        let streams = self.frame_slot(16 * outlined.walks.len().max(1));
        for (k, walk) in outlined.walks.iter().enumerate() {
            let (address, offset) = self.address(walk.buffer, &walk.start)?;
            let base = self.f.ins().iadd_imm_s(address, i64::from(offset));
            self.f.ins().stack_store(I64, base, streams, 16 * k as i32);
            let size = self.buffer_type(walk.buffer)?.size() as i64;
            let step = index::emit(self, &walk.step)?.whole(self.f);
            let step = index::scale(self.f, step, size);
            self.f.ins().stack_store(I64, step, streams, 16 * k as i32 + 8);
        }
        let params = self.frame_slot(BLOCK * outlined.params.len().max(1));
        for (k, reg) in outlined.params.iter().enumerate() {
            let (dtype, value) = (self.reg_type(*reg)?, self.reg(*reg)?);
            let value = self.lanes().lane_of(dtype, value);
            let ty = if vector_type(dtype) == F32X4 { F32X4 } else { I32X4 };
            let vector = self.f.ins().splat(ty, value);
            for part in 0..4 {
                self.f.ins().stack_store(I64, vector, params, (BLOCK * k + 16 * part) as i32);
            }
        }
        let signature = self.f.import_signature(signature(self.convention));
        let name = self.f.func.declare_imported_user_function(UserExternalName { namespace: 0, index: leaf as u32 });
        let function = self.f.import_function(ExtFuncData {
            name: ExternalName::user(name),
            signature,
            colocated: true,
            patchable: false,
        });
        let streams = self.f.ins().stack_addr(I64, streams, 0);
        let params = self.f.ins().stack_addr(I64, params, 0);
        let accumulators = self.f.ins().stack_addr(I64, accumulators, 0);
        let functions = self.function_table()?;
        self.f.ins().call(function, &[streams, params, accumulators, n, functions]);
        Ok(())
    }
}
