//! One phase to one CLIF function: loops, branches, memory, checks.
//!
//! Registers are SSA values; a register that leaves its scope is forgotten, so a kernel that breaks rule K1 is an error
//! here and never bad code. A constant that stands before all iterations is written anew at every use, so that it is not
//! kept in memory meanwhile. Loops that the schedule makes vectors go to [`super::strip`] when it takes them, and run one
//! element at a time otherwise, with the reason in the report.
//!
//! ```text
//!  entry --> ahead: definitions of the body that are the same in all iterations
//!    |         v
//!    |       ready: what calls of leaves find laid out ([`Ready`])
//!    |         v
//!    '----> body of the phase, again and again --> done
//! ```

use std::collections::HashMap;

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I32, I64};
use cranelift_codegen::ir::{AbiParam, BlockArg, InstBuilder, Signature, StackSlot, Value};
use cranelift_codegen::isa::CallConv;
use cranelift_frontend::FunctionBuilder;
use frit_ir::{DType, Dim, Symbol};

use super::blocks::END;
use super::code::CodeReport;
use super::error::Refusal;
use super::exec::ALIGNMENT;
use super::index::{self, Index, Scope};
use super::scalar::{MEMORY, Ops, clif_type, is_call};
use super::strip::Leaves;
use super::target::Features;
use crate::kernel::{BufferId, Expr, Kernel, Phase, Reg, Role, Scalar, Stmt};
use crate::schedule::Schedule;

/// Where [`super::abi::KernelArgs`] keeps its fields.
mod args {
    pub(super) const BUFFERS: i32 = 0;
    pub(super) const DIMS: i32 = 8;
    pub(super) const SCRATCH: i32 = 16;
    pub(super) const FUNCTIONS: i32 = 24;
    pub(super) const STATUS: i32 = 32;
}

/// Most iterations that a directive may write out.
const MOST_UNROLLED: i64 = 256;

/// The parameters of a phase function.
pub(super) fn signature(convention: CallConv) -> Signature {
    let mut signature = Signature::new(convention);
    signature.params.extend([I64; 3].map(AbiParam::new));
    signature
}

/// Offset in scratch memory of each local that a phase uses, and the bytes of all.
fn place_locals(kernel: &Kernel, used: &[bool]) -> Result<(HashMap<usize, usize>, usize), Refusal> {
    let mut places = HashMap::new();
    let mut end = 0usize;
    for (i, buffer) in kernel.buffers.iter().enumerate() {
        if buffer.role != Role::Local || !used.get(i).copied().unwrap_or(false) {
            continue;
        }
        let len = buffer.len.known().and_then(|len| usize::try_from(len).ok());
        let bytes = len.and_then(|len| len.checked_mul(buffer.dtype.size()));
        let bytes = bytes.filter(|bytes| *bytes <= i32::MAX as usize).ok_or_else(|| {
            Refusal::Unsupported(format!(
                "the local `{}` of {} elements (its size has to be known)",
                buffer.name, buffer.len
            ))
        })?;
        places.insert(i, end);
        end += bytes.next_multiple_of(ALIGNMENT);
    }
    Ok((places, end))
}

/// Which buffers a phase touches.
fn used_buffers(kernel: &Kernel, body: &[Stmt], used: &mut Vec<bool>) {
    used.resize(kernel.buffers.len(), false);
    for stmt in body {
        let buffer = match stmt {
            Stmt::Let(_, Expr::Load { buffer, .. }) | Stmt::Store { buffer, .. } => buffer.0 as usize,
            Stmt::For { body, .. } | Stmt::Reduce { body, .. } => {
                used_buffers(kernel, body, used);
                continue;
            }
            Stmt::If { then, otherwise, .. } => {
                used_buffers(kernel, then, used);
                used_buffers(kernel, otherwise, used);
                continue;
            }
            Stmt::Let(..) | Stmt::Check { .. } => continue,
        };
        if let Some(slot) = used.get_mut(buffer) {
            *slot = true;
        }
    }
}

/// What a register is.
#[derive(Clone, Copy)]
enum Held {
    Value(Value),
    /// This, where it is written too.
    Constant(Scalar, Option<Value>),
}

/// What lies in the frame before the first iteration of a phase, since it is the same in all.
pub(super) enum Ready {
    /// A register as the parameter of a strip.
    Param(Reg, StackSlot, i32),
    /// The address of an element.
    Address(BufferId, Dim, StackSlot, i32),
    /// A distance in bytes: elements of a buffer.
    Distance(BufferId, Dim, StackSlot, i32),
}

/// A phase as it is written.
pub(super) struct Function<'a, 'b> {
    /// Where code goes.
    pub(super) f: &'a mut FunctionBuilder<'b>,
    pub(super) kernel: &'a Kernel,
    pub(super) schedule: &'a Schedule,
    pub(super) features: Features,
    pub(super) convention: CallConv,
    /// Vector loops of the kernel.
    pub(super) leaves: &'a mut Leaves,
    pub(super) report: &'a mut CodeReport,
    symbols: HashMap<Symbol, Index>,
    regs: Vec<Option<Held>>,
    defined: Vec<Reg>,
    /// Registers that are the same in all iterations of the phase.
    ahead: Vec<bool>,
    /// What is to be laid out before the iterations of the phase.
    pub(super) ready: Vec<Ready>,
    bases: Vec<Option<Value>>,
    functions: Option<Value>,
    status: Option<Value>,
}

impl Scope for Function<'_, '_> {
    fn is_nonnegative(&self, dim: &Dim) -> bool {
        let mut registers = false;
        dim.visit_symbols(&mut |s| registers |= !self.symbols.contains_key(s));
        !registers && dim.is_nonnegative()
    }

    fn symbol(&mut self, symbol: &Symbol) -> Result<Index, Refusal> {
        if let Some(index) = self.symbols.get(symbol) {
            return Ok(*index);
        }
        let reg = register(symbol).ok_or_else(|| Refusal::Invalid(format!("`{symbol}` is not in scope")))?;
        let dtype = self.reg_type(reg)?;
        if !(dtype.is_int() || dtype == DType::Bool) {
            return Err(Refusal::Invalid(format!("{reg} of type {dtype} in an index")));
        }
        let value = self.reg(reg)?;
        Ok(Index::of(self.ops().widen(value, dtype, I64)))
    }

    fn with<R>(&mut self, write: impl FnOnce(&mut FunctionBuilder<'_>) -> R) -> R {
        write(self.f)
    }
}

/// The register that a symbol stands for.
pub(super) fn register(symbol: &Symbol) -> Option<Reg> {
    symbol.name().strip_prefix('r').and_then(|n| n.parse().ok()).map(Reg)
}

impl<'a, 'b> Function<'a, 'b> {
    /// A function without content.
    pub(super) fn new(
        f: &'a mut FunctionBuilder<'b>,
        kernel: &'a Kernel,
        schedule: &'a Schedule,
        features: Features,
        leaves: &'a mut Leaves,
        report: &'a mut CodeReport,
    ) -> Self {
        let convention = f.func.signature.call_conv;
        Function {
            f,
            kernel,
            schedule,
            features,
            convention,
            leaves,
            report,
            symbols: HashMap::new(),
            regs: vec![None; kernel.regs.len()],
            defined: Vec::new(),
            ahead: vec![false; kernel.regs.len()],
            ready: Vec::new(),
            bases: vec![None; kernel.buffers.len()],
            functions: None,
            status: None,
        }
    }

    /// Writes a phase whose body takes `rows` iterations of the outer index; returns the bytes of scratch memory that it
    /// needs.
    pub(super) fn phase(&mut self, phase: &Phase, rows: i64) -> Result<usize, Refusal> {
        let entry = self.f.create_block();
        self.f.append_block_params_for_function_params(entry);
        self.f.switch_to_block(entry);
        let &[arguments, begin, end] = self.f.block_params(entry) else {
            return Err(Refusal::Internal("a phase function has three parameters".to_owned()));
        };
        let mut used = Vec::new();
        used_buffers(self.kernel, &phase.body, &mut used);
        let scratch = self.prologue(arguments, &used)?;
        let [ahead, ready, looped, done] = [(); 4].map(|()| self.f.create_block());
        let i = self.f.append_block_param(looped, I64);
        let some = self.f.ins().icmp(IntCC::SignedLessThan, begin, end);
        self.f.ins().brif(some, ahead, &[], done, &[]);
        self.f.switch_to_block(ahead);
        self.define_ahead(&phase.body)?;
        self.f.ins().jump(ready, &[]);
        self.f.switch_to_block(looped);
        self.bind(&Symbol::new(END), Index::of(end), |this| {
            this.bind(&phase.outer, Index::of(i), |this| this.body(&phase.body))
        })?;
        let following = self.f.ins().iadd_imm_s(i, rows);
        let again = self.f.ins().icmp(IntCC::SignedLessThan, following, end);
        self.f.ins().brif(again, looped, &[BlockArg::Value(following)], done, &[]);
        // Only now it is known what the calls in the body need.
        self.f.switch_to_block(ready);
        for ready in std::mem::take(&mut self.ready) {
            self.make_ready(&ready)?;
        }
        self.f.ins().jump(looped, &[BlockArg::Value(begin)]);
        self.f.switch_to_block(done);
        self.f.ins().return_(&[]);
        Ok(scratch)
    }

    /// Defines what is the same in all iterations of a phase. Loads are, of what nothing writes; some iteration runs them.
    fn define_ahead(&mut self, body: &[Stmt]) -> Result<(), Refusal> {
        for stmt in body {
            let Stmt::Let(reg, expr) = stmt else { continue };
            let same = match expr {
                Expr::Const(_) => false,
                Expr::Load { buffer, index } => {
                    let input = self.kernel.buffer(*buffer).is_some_and(|b| b.role == Role::Input);
                    input && self.is_ahead(index)
                }
                Expr::Index(dim) => self.is_ahead(dim),
                Expr::Unary(_, x) | Expr::Cast { value: x, .. } | Expr::Bitcast { value: x, .. } => {
                    self.is_reg_ahead(*x)
                }
                Expr::Binary(_, a, b) => self.is_reg_ahead(*a) && self.is_reg_ahead(*b),
                Expr::Select(a, b, c) | Expr::Fma(a, b, c) | Expr::Rescue { ok: a, value: b, x: c, .. } => {
                    [a, b, c].into_iter().all(|r| self.is_reg_ahead(*r))
                }
            };
            if let Expr::Const(value) = expr {
                self.define_constant(*reg, *value, true)?;
            } else if same {
                let value = self.expr(*reg, expr)?;
                self.define(*reg, value)?;
            } else {
                continue;
            }
            if let Some(ahead) = self.ahead.get_mut(reg.0 as usize) {
                *ahead = true;
            }
        }
        Ok(())
    }

    /// Whether a register is the same in all iterations of the phase.
    pub(super) fn is_reg_ahead(&self, reg: Reg) -> bool {
        self.ahead.get(reg.0 as usize).copied().unwrap_or(false)
    }

    /// Whether an index is.
    pub(super) fn is_ahead(&self, dim: &Dim) -> bool {
        let mut same = true;
        dim.visit_symbols(&mut |s| {
            let extent = self.kernel.dims.iter().any(|d| d.symbol == *s);
            same &= extent || register(s).is_some_and(|r| self.is_reg_ahead(r));
        });
        same
    }

    fn prologue(&mut self, arguments: Value, used: &[bool]) -> Result<usize, Refusal> {
        let mut field = |offset| self.f.ins().load(I64, MEMORY, arguments, offset);
        let (buffers, dims, scratch) = (field(args::BUFFERS), field(args::DIMS), field(args::SCRATCH));
        self.functions = Some(field(args::FUNCTIONS));
        self.status = Some(field(args::STATUS));
        for (i, dim) in self.kernel.dims.iter().enumerate() {
            let value = self.f.ins().load(I64, MEMORY, dims, 8 * i as i32);
            self.symbols.insert(dim.symbol.clone(), Index::of(value));
        }
        let (places, bytes) = place_locals(self.kernel, used)?;
        let mut position = 0;
        for (i, buffer) in self.kernel.buffers.iter().enumerate() {
            let argument = position;
            if buffer.role != Role::Local {
                position += 1;
            }
            if !used.get(i).copied().unwrap_or(false) {
                continue;
            }
            let base = match places.get(&i) {
                Some(place) => self.f.ins().iadd_imm_s(scratch, *place as i64),
                None => self.f.ins().load(I64, MEMORY, buffers, 8 * argument),
            };
            if let Some(slot) = self.bases.get_mut(i) {
                *slot = Some(base);
            }
        }
        Ok(bytes)
    }

    /// The writer of operations.
    pub(super) fn ops(&mut self) -> Ops<'_, 'b> {
        Ops { f: self.f, features: self.features, functions: self.functions, convention: self.convention }
    }

    /// The address of the function table.
    pub(super) fn function_table(&self) -> Result<Value, Refusal> {
        self.functions.ok_or_else(|| Refusal::Internal("no function table before the prologue".to_owned()))
    }

    /// The type of a register.
    pub(super) fn reg_type(&self, reg: Reg) -> Result<DType, Refusal> {
        self.kernel.reg_type(reg).ok_or_else(|| Refusal::Invalid(format!("{reg} has no type")))
    }

    fn held(&self, reg: Reg) -> Result<Held, Refusal> {
        let held = self.regs.get(reg.0 as usize).copied().flatten();
        held.ok_or_else(|| Refusal::Invalid(format!("{reg} is used where it is not defined (rule K1)")))
    }

    /// The value of a register.
    pub(super) fn reg(&mut self, reg: Reg) -> Result<Value, Refusal> {
        match self.held(reg)? {
            Held::Value(value) | Held::Constant(_, Some(value)) => Ok(value),
            Held::Constant(value, None) => self.ops().constant(value),
        }
    }

    /// What a register always is.
    pub(super) fn constant(&self, reg: Reg) -> Option<Scalar> {
        match self.held(reg) {
            Ok(Held::Constant(value, _)) => Some(value),
            Ok(Held::Value(_)) | Err(_) => None,
        }
    }

    /// Gives a register its value, until the scope ends.
    pub(super) fn define(&mut self, reg: Reg, value: Value) -> Result<(), Refusal> {
        let ty = clif_type(self.reg_type(reg)?)?;
        if self.f.func.dfg.value_type(value) != ty {
            return Err(Refusal::Invalid(format!("{reg} gets a value of another type (rule K2)")));
        }
        self.hold(reg, Held::Value(value))
    }

    fn define_constant(&mut self, reg: Reg, value: Scalar, ahead: bool) -> Result<(), Refusal> {
        clif_type(value.dtype)?;
        if self.reg_type(reg)? != value.dtype {
            return Err(Refusal::Invalid(format!("{reg} gets a constant of another type (rule K2)")));
        }
        let written = if ahead { None } else { Some(self.ops().constant(value)?) };
        self.hold(reg, Held::Constant(value, written))
    }

    fn hold(&mut self, reg: Reg, held: Held) -> Result<(), Refusal> {
        match self.regs.get_mut(reg.0 as usize) {
            Some(slot @ None) => *slot = Some(held),
            _ => return Err(Refusal::Invalid(format!("{reg} is defined twice (rule K1)"))),
        }
        self.defined.push(reg);
        Ok(())
    }

    /// Writes a scope: what it defines is forgotten at its end.
    pub(super) fn scoped<R>(&mut self, write: impl FnOnce(&mut Self) -> Result<R, Refusal>) -> Result<R, Refusal> {
        let mark = self.defined.len();
        let result = write(self);
        for reg in self.defined.drain(mark..) {
            if let Some(slot) = self.regs.get_mut(reg.0 as usize) {
                *slot = None;
            }
        }
        result
    }

    /// Writes a scope in which a symbol has a value.
    pub(super) fn bind<R>(
        &mut self,
        symbol: &Symbol,
        value: Index,
        write: impl FnOnce(&mut Self) -> Result<R, Refusal>,
    ) -> Result<R, Refusal> {
        let outer = self.symbols.insert(symbol.clone(), value);
        let result = self.scoped(write);
        match outer {
            Some(outer) => self.symbols.insert(symbol.clone(), outer),
            None => self.symbols.remove(symbol),
        };
        result
    }

    /// A loop over from .. to that carries values; returns them as they are at the end.
    pub(super) fn count(
        &mut self,
        from: Index,
        to: Index,
        carried: &[Value],
        body: impl FnOnce(&mut Self, Index, &[Value]) -> Result<Vec<Value>, Refusal>,
    ) -> Result<Vec<Value>, Refusal> {
        if from.value.is_none() && to.value.is_none() {
            match to.offset.saturating_sub(from.offset) {
                ..=0 => return Ok(carried.to_vec()),
                1 => return body(self, from, carried),
                _ => {}
            }
        }
        let (first, limit) = (from.whole(self.f), to.whole(self.f));
        let (looped, done) = (self.f.create_block(), self.f.create_block());
        let i = self.f.append_block_param(looped, I64);
        for value in carried {
            let ty = self.f.func.dfg.value_type(*value);
            self.f.append_block_param(looped, ty);
            self.f.append_block_param(done, ty);
        }
        let arguments = |first: Option<Value>, rest: &[Value]| -> Vec<BlockArg> {
            first.iter().chain(rest).map(|v| BlockArg::Value(*v)).collect()
        };
        let enter = self.f.ins().icmp(IntCC::SignedLessThan, first, limit);
        self.f.ins().brif(enter, looped, &arguments(Some(first), carried), done, &arguments(None, carried));
        self.f.switch_to_block(looped);
        let inside: Vec<Value> = self.f.block_params(looped).iter().skip(1).copied().collect();
        let next = body(self, Index::of(i), &inside)?;
        let following = self.f.ins().iadd_imm_s(i, 1);
        let again = self.f.ins().icmp(IntCC::SignedLessThan, following, limit);
        self.f.ins().brif(again, looped, &arguments(Some(following), &next), done, &arguments(None, &next));
        self.f.switch_to_block(done);
        Ok(self.f.block_params(done).to_vec())
    }

    /// Runs `then` or `otherwise`, neither of which gives a value.
    pub(super) fn branch(
        &mut self,
        condition: Value,
        then: impl FnOnce(&mut Self) -> Result<(), Refusal>,
        otherwise: impl FnOnce(&mut Self) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let (yes, no, after) = (self.f.create_block(), self.f.create_block(), self.f.create_block());
        self.f.ins().brif(condition, yes, &[], no, &[]);
        self.f.switch_to_block(yes);
        self.scoped(then)?;
        self.f.ins().jump(after, &[]);
        self.f.switch_to_block(no);
        self.scoped(otherwise)?;
        self.f.ins().jump(after, &[]);
        self.f.switch_to_block(after);
        Ok(())
    }

    /// Writes statements in the scope that is open.
    pub(super) fn body(&mut self, stmts: &[Stmt]) -> Result<(), Refusal> {
        for stmt in stmts {
            match stmt {
                Stmt::Let(reg, _) if self.is_reg_ahead(*reg) => {}
                Stmt::Let(reg, Expr::Const(value)) => self.define_constant(*reg, *value, false)?,
                Stmt::Let(reg, expr) => {
                    let value = self.expr(*reg, expr)?;
                    self.define(*reg, value)?;
                }
                Stmt::Store { buffer, index, value } => self.store(*buffer, index, *value)?,
                Stmt::For { var, extent, body } => self.for_(var, extent, body)?,
                Stmt::Reduce { var, extent, body, accs } => self.reduce(var, extent, body, accs)?,
                Stmt::If { condition, then, otherwise } => {
                    let condition = self.bool_reg(*condition)?;
                    self.branch(condition, |this| this.body(then), |this| this.body(otherwise))?;
                }
                Stmt::Check { ok, code } => self.check(*ok, *code)?,
            }
        }
        Ok(())
    }

    fn bool_reg(&mut self, reg: Reg) -> Result<Value, Refusal> {
        match self.reg_type(reg)? {
            DType::Bool => self.reg(reg),
            other => Err(Refusal::Invalid(format!("{reg} of type {other} as a condition (rule K2)"))),
        }
    }

    fn check(&mut self, ok: Reg, code: u32) -> Result<(), Refusal> {
        let ok = self.bool_reg(ok)?;
        let status = self.status.ok_or_else(|| Refusal::Internal("a check before the prologue".to_owned()))?;
        let (failed, after) = (self.f.create_block(), self.f.create_block());
        self.f.set_cold_block(failed);
        self.f.ins().brif(ok, after, &[], failed, &[]);
        self.f.switch_to_block(failed);
        let number = self.f.ins().iconst(I32, i64::from(code.wrapping_add(1)));
        self.f.ins().store(MEMORY, number, status, 0);
        self.f.ins().jump(after, &[]);
        self.f.switch_to_block(after);
        Ok(())
    }

    fn for_(&mut self, var: &Symbol, extent: &Dim, body: &[Stmt]) -> Result<(), Refusal> {
        if self.vector_loop(var, extent, body, &[])?.is_some() {
            return Ok(());
        }
        if let Some(n) = self.written_out(var, extent) {
            return (0..n).try_for_each(|i| self.bind(var, Index::known(i), |this| this.body(body)));
        }
        let extent = index::emit(self, extent)?;
        self.count(Index::known(0), extent, &[], |this, i, _| {
            this.bind(var, i, |this| this.body(body))?;
            Ok(Vec::new())
        })?;
        Ok(())
    }

    /// Iterations of a loop that the schedule wants written out.
    pub(super) fn written_out(&self, var: &Symbol, extent: &Dim) -> Option<i64> {
        extent.known().filter(|n| self.schedule.unrolls(var) && *n <= MOST_UNROLLED)
    }

    /// Base address of a buffer.
    pub(super) fn base(&self, id: BufferId) -> Result<Value, Refusal> {
        let base = self.bases.get(id.0 as usize).copied().flatten();
        base.ok_or_else(|| Refusal::Invalid(format!("buffer {} does not exist", id.0)))
    }

    /// The element type of a buffer.
    pub(super) fn buffer_type(&self, id: BufferId) -> Result<DType, Refusal> {
        let buffer = self.kernel.buffer(id);
        buffer.map(|b| b.dtype).ok_or_else(|| Refusal::Invalid(format!("buffer {} does not exist", id.0)))
    }

    /// The address of an element: a value, and bytes to add.
    pub(super) fn address(&mut self, buffer: BufferId, dim: &Dim) -> Result<(Value, i32), Refusal> {
        let size = self.buffer_type(buffer)?.size() as i64;
        let base = self.base(buffer)?;
        let index = index::emit(self, dim)?;
        let address = match index.value {
            None => base,
            Some(value) => {
                let bytes = index::scale(self.f, value, size);
                self.f.ins().iadd(base, bytes)
            }
        };
        let bytes = index.offset.wrapping_mul(size);
        match i32::try_from(bytes) {
            Ok(bytes) => Ok((address, bytes)),
            Err(_) => Ok((self.f.ins().iadd_imm_s(address, bytes), 0)),
        }
    }

    fn store(&mut self, buffer: BufferId, dim: &Dim, value: Reg) -> Result<(), Refusal> {
        let (to, dtype) = (self.buffer_type(buffer)?, self.reg_type(value)?);
        if to != dtype {
            return Err(Refusal::Invalid(format!("{value} of type {dtype} stored to a buffer of {to} (rule K2)")));
        }
        let value = self.reg(value)?;
        let (address, offset) = self.address(buffer, dim)?;
        self.f.ins().store(MEMORY, value, address, offset);
        Ok(())
    }

    fn expr(&mut self, reg: Reg, expr: &Expr) -> Result<Value, Refusal> {
        let same = |types: &[DType]| match types {
            [first, rest @ ..] if rest.iter().all(|t| t == first) => Ok(*first),
            _ => Err(Refusal::Invalid(format!("operands of {reg} have different types (rule K2)"))),
        };
        match expr {
            Expr::Const(value) => self.ops().constant(*value),
            Expr::Load { buffer, index } => {
                let dtype = self.buffer_type(*buffer)?;
                let (address, offset) = self.address(*buffer, index)?;
                let value = self.f.ins().load(clif_type(dtype)?, MEMORY, address, offset);
                // Anything but 0 is true in what a caller passes.
                let foreign = self.kernel.buffer(*buffer).is_some_and(|b| b.role == Role::Input);
                if dtype == DType::Bool && foreign {
                    return self.ops().cast(DType::U8, DType::Bool, false, value);
                }
                Ok(value)
            }
            Expr::Index(dim) => {
                let index = index::emit(self, dim)?;
                Ok(index.whole(self.f))
            }
            Expr::Unary(op, x) => {
                let (dtype, x) = (self.reg_type(*x)?, self.reg(*x)?);
                self.ops().unary(*op, dtype, x)
            }
            Expr::Binary(op, a, b) => {
                let dtype = same(&[self.reg_type(*a)?, self.reg_type(*b)?])?;
                let (a, b) = (self.reg(*a)?, self.reg(*b)?);
                self.ops().binary(*op, dtype, a, b)
            }
            Expr::Select(c, a, b) => {
                same(&[self.reg_type(*a)?, self.reg_type(*b)?])?;
                let (c, a, b) = (self.bool_reg(*c)?, self.reg(*a)?, self.reg(*b)?);
                Ok(self.f.ins().select(c, a, b))
            }
            Expr::Fma(a, b, c) => {
                let dtype = same(&[self.reg_type(*a)?, self.reg_type(*b)?, self.reg_type(*c)?])?;
                let (a, b, c) = (self.reg(*a)?, self.reg(*b)?, self.reg(*c)?);
                self.ops().fma(dtype, a, b, c)
            }
            Expr::Cast { value, to, saturate } => {
                let (from, value) = (self.reg_type(*value)?, self.reg(*value)?);
                self.ops().cast(from, *to, *saturate, value)
            }
            Expr::Rescue { ok, value, op, x } => {
                let dtype = same(&[self.reg_type(*value)?, self.reg_type(*x)?, DType::F32])?;
                let (ok, value, x) = (self.bool_reg(*ok)?, self.reg(*value)?, self.reg(*x)?);
                if dtype != DType::F32 || !is_call(Some(*op), None, dtype) {
                    return Err(Refusal::Invalid(format!("{reg} rescues `{}` of {dtype}", op.name())));
                }
                self.ops().rescue(*op, ok, value, x)
            }
            Expr::Bitcast { value, to } => {
                let (from, value) = (self.reg_type(*value)?, self.reg(*value)?);
                self.ops().bitcast(from, *to, value)
            }
        }
    }
}
