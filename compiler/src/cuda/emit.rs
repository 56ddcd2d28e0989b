//! Statements, loops and reductions as C++.

use std::fmt::Write;

use frit_ir::{DType, Dim, Symbol};

use super::{CudaError, Refusal, helpers, index, scalar};
use crate::kernel::{Acc, BufferId, Combine, Expr, Kernel, Phase, Reg, Role, Stmt, verify};

/// Bytes of local memory that a thread has at most (CUDA C++ Programming Guide, compute capabilities).
const LOCAL_BYTES: i64 = 512 * 1024;

/// An expanded kernel as CUDA C++; what the text holds and how it is called is said on the page of [`super`].
pub fn emit(kernel: &Kernel) -> Result<String, CudaError> {
    verify(kernel).map_err(|e| Refusal::Invalid(format!("{}: {}", e.rule, e.message)).of(&kernel.name))?;
    program(kernel).map_err(|refusal| refusal.of(&kernel.name))
}

/// The function that runs a phase.
pub fn function_name(kernel: &Kernel, phase: usize) -> String {
    let name = clean(&kernel.name);
    // An identifier begins with no digit, and `_` may be the compiler's.
    let prefix = if name.starts_with(|c: char| c.is_ascii_alphabetic()) { "" } else { "k" };
    format!("{prefix}{name}_p{phase}")
}

/// Characters of identifiers; others become `_`.
fn clean(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

fn program(kernel: &Kernel) -> Result<String, Refusal> {
    let mut functions = String::new();
    for (position, phase) in kernel.phases.iter().enumerate() {
        let mut writer = Writer { kernel, text: String::new(), depth: 2 };
        writer.body(&phase.body)?;
        functions.push('\n');
        functions.push_str(&function(kernel, position, phase, &writer.text)?);
    }
    let mut text = format!("// kernel {:?}", kernel.name);
    for dim in &kernel.dims {
        text.push_str(&format!(", {} = {}", dim.symbol, dim.value));
    }
    text.push('\n');
    for (code, message) in kernel.traps.iter().enumerate() {
        text.push_str(&format!("// check {code}: {message:?}\n"));
    }
    text.push_str(&helpers::used_by(&functions));
    text.push_str(&functions);
    Ok(text)
}

/// One phase around its written body.
fn function(kernel: &Kernel, position: usize, phase: &Phase, body: &str) -> Result<String, Refusal> {
    let mut parameters = Vec::new();
    for (id, buffer) in kernel.arguments() {
        let constant = if buffer.role == Role::Input { "const " } else { "" };
        parameters.push(format!("{constant}{}* {}", scalar::stored(buffer.dtype)?, buffer_name(kernel, id)?));
    }
    for dim in &kernel.dims {
        parameters.push(format!("long long {}", index::declared(&dim.symbol)?));
    }
    parameters.push("unsigned int* status".to_owned());
    let (outer, extent) = (index::declared(&phase.outer)?, index::emit(kernel, &phase.extent)?);
    let mut locals = String::new();
    let mut bytes = 0i64;
    for (position, buffer) in kernel.buffers.iter().enumerate().filter(|(_, b)| b.role == Role::Local) {
        let name = buffer_name(kernel, BufferId(position as u32))?;
        if !body.contains(&format!("{name}[")) {
            continue;
        }
        let what = |why: &str| Refusal::Unsupported(format!("the local `{}` ({why})", buffer.name));
        let len = buffer.len.known().ok_or_else(|| what("its length is known at run time only"))?.max(1);
        bytes = bytes.saturating_add(len.saturating_mul(buffer.dtype.size() as i64));
        if bytes > LOCAL_BYTES {
            return Err(what("a thread has 512 KiB for locals"));
        }
        locals.push_str(&format!("    {} {name}[{len}];\n", scalar::stored(buffer.dtype)?));
    }
    Ok(format!(
        "extern \"C\" __global__ void {}({}) {{\n  \
         const long long stride = (long long)gridDim.x * blockDim.x;\n  \
         const long long first = (long long)blockIdx.x * blockDim.x + threadIdx.x;\n  \
         for (long long {outer} = first; {outer} < {extent}; {outer} += stride) {{\n{locals}{body}  }}\n}}\n",
        function_name(kernel, position),
        parameters.join(", "),
    ))
}

/// A buffer's name: its position makes it one of a kind.
fn buffer_name(kernel: &Kernel, id: BufferId) -> Result<String, Refusal> {
    let buffer = kernel.buffer(id).ok_or_else(|| Refusal::Invalid(format!("there is no buffer {}", id.0)))?;
    Ok(format!("b{}_{}", id.0, clean(&buffer.name)))
}

fn reg_name(reg: Reg) -> String {
    format!("r{}", reg.0)
}

struct Writer<'k> {
    kernel: &'k Kernel,
    text: String,
    depth: usize,
}

impl Writer<'_> {
    fn line(&mut self, line: impl AsRef<str>) {
        // Writing to a string can't fail.
        let _ = writeln!(self.text, "{:1$}{2}", "", 2 * self.depth, line.as_ref());
    }

    fn reg_type(&self, reg: Reg) -> Result<DType, Refusal> {
        self.kernel.reg_type(reg).ok_or_else(|| Refusal::Invalid(format!("there is no register {reg}")))
    }

    fn element(&self, buffer: BufferId, index: &Dim) -> Result<String, Refusal> {
        Ok(format!("{}[{}]", buffer_name(self.kernel, buffer)?, index::emit(self.kernel, index)?))
    }

    fn body(&mut self, stmts: &[Stmt]) -> Result<(), Refusal> {
        stmts.iter().try_for_each(|s| self.stmt(s))
    }

    fn nested(&mut self, stmts: &[Stmt]) -> Result<(), Refusal> {
        self.depth += 1;
        let done = self.body(stmts);
        self.depth -= 1;
        done
    }

    fn loop_header(&self, var: &Symbol, extent: &Dim) -> Result<String, Refusal> {
        let (var, extent) = (index::declared(var)?, index::emit(self.kernel, extent)?);
        Ok(format!("for (long long {var} = 0; {var} < {extent}; ++{var}) {{"))
    }

    fn stmt(&mut self, stmt: &Stmt) -> Result<(), Refusal> {
        match stmt {
            Stmt::Let(reg, expr) => {
                let (ty, value) = (scalar::carried(self.reg_type(*reg)?)?, self.expr(expr)?);
                self.line(format!("const {ty} {} = {value};", reg_name(*reg)));
            }
            Stmt::Store { buffer, index, value } => {
                let place = self.element(*buffer, index)?;
                self.line(format!("{place} = {};", reg_name(*value)));
            }
            Stmt::For { var, extent, body } => {
                let header = self.loop_header(var, extent)?;
                self.line(header);
                self.nested(body)?;
                self.line("}");
            }
            Stmt::Reduce { var, extent, body, accs } => self.reduce(var, extent, body, accs)?,
            Stmt::If { condition, then, otherwise } => {
                self.line(format!("if ({}) {{", reg_name(*condition)));
                self.nested(then)?;
                if !otherwise.is_empty() {
                    self.line("} else {");
                    self.nested(otherwise)?;
                }
                self.line("}");
            }
            Stmt::Check { ok, code } => {
                self.line(format!("if (!{}) atomicMax(status, {}u);", reg_name(*ok), u64::from(*code) + 1));
            }
        }
        Ok(())
    }

    /// Float sums and products in sixteen lanes, joined pairwise; everything else gives the same in any order and is
    /// carried in its result.
    fn reduce(&mut self, var: &Symbol, extent: &Dim, body: &[Stmt], accs: &[Acc]) -> Result<(), Refusal> {
        for acc in accs {
            let (dtype, result) = (self.reg_type(acc.value)?, reg_name(acc.result));
            let ty = scalar::carried(dtype)?;
            match acc.combine {
                Combine::ArgMin(_) | Combine::ArgMax(_) => {
                    self.line(format!("{ty} {result}_value = 0;"));
                    self.line(format!("long long {result} = 0;"));
                }
                combine => {
                    let start = scalar::neutral(combine, dtype)?;
                    if combine.is_ordered(dtype) {
                        self.line(format!("{ty} {result}_lanes[16];"));
                        self.line(format!("for (int lane = 0; lane < 16; ++lane) {result}_lanes[lane] = {start};"));
                    } else {
                        self.line(format!("{ty} {result} = {start};"));
                    }
                }
            }
        }
        let header = self.loop_header(var, extent)?;
        self.line(header);
        self.nested(body)?;
        self.depth += 1;
        let stepped = accs.iter().try_for_each(|acc| self.step(var, acc));
        self.depth -= 1;
        stepped?;
        self.line("}");
        for acc in accs {
            let (dtype, result) = (self.reg_type(acc.value)?, reg_name(acc.result));
            if !acc.combine.is_ordered(dtype) {
                continue;
            }
            let lanes = format!("{result}_lanes");
            let (low, high) = (format!("{lanes}[lane]"), format!("{lanes}[lane + step]"));
            let joined = scalar::combine(acc.combine, dtype, &low, &high)?;
            self.line("for (int step = 8; step > 0; step /= 2)");
            self.line(format!("  for (int lane = 0; lane < step; ++lane) {low} = {joined};"));
            self.line(format!("const {} {result} = {lanes}[0];", scalar::carried(dtype)?));
        }
        Ok(())
    }

    /// Combines the value of one iteration.
    fn step(&mut self, var: &Symbol, acc: &Acc) -> Result<(), Refusal> {
        let (dtype, result, value) = (self.reg_type(acc.value)?, reg_name(acc.result), reg_name(acc.value));
        let var = index::declared(var)?;
        match acc.combine {
            Combine::ArgMin(place) | Combine::ArgMax(place) => {
                let (place, best) = (reg_name(place), format!("{result}_value"));
                let beats = scalar::beats(acc.combine, dtype, [&value, &place], [&best, &result])?;
                self.line(format!("if ({var} == 0 || {beats}) {{"));
                self.line(format!("  {best} = {value};"));
                self.line(format!("  {result} = {place};"));
                self.line("}");
            }
            combine => {
                let place = if combine.is_ordered(dtype) { format!("{result}_lanes[{var} & 15]") } else { result };
                let joined = match combine {
                    Combine::Dot(factor) => scalar::fma(dtype, &value, &reg_name(factor), &place)?,
                    combine => scalar::combine(combine, dtype, &place, &value)?,
                };
                self.line(format!("{place} = {joined};"));
            }
        }
        Ok(())
    }

    fn expr(&self, expr: &Expr) -> Result<String, Refusal> {
        match expr {
            Expr::Const(value) => scalar::constant(*value),
            Expr::Load { buffer, index } => {
                let place = self.element(*buffer, index)?;
                // Any byte but 0 is true.
                let truth = self.kernel.buffer(*buffer).is_some_and(|b| b.dtype == DType::Bool);
                Ok(if truth { format!("{place} != 0") } else { place })
            }
            Expr::Index(dim) => index::emit(self.kernel, dim),
            Expr::Unary(op, x) => scalar::unary(*op, self.reg_type(*x)?, &reg_name(*x)),
            Expr::Binary(op, a, b) => scalar::binary(*op, self.reg_type(*a)?, &reg_name(*a), &reg_name(*b)),
            Expr::Select(c, a, b) => Ok(format!("{} ? {} : {}", reg_name(*c), reg_name(*a), reg_name(*b))),
            Expr::Fma(a, b, c) => scalar::fma(self.reg_type(*a)?, &reg_name(*a), &reg_name(*b), &reg_name(*c)),
            Expr::Cast { value, to, saturate } => {
                scalar::cast(self.reg_type(*value)?, *to, *saturate, &reg_name(*value))
            }
            Expr::Rescue { ok, value, op, x } => {
                let called = scalar::unary(*op, DType::F64, &format!("(double){}", reg_name(*x)))?;
                Ok(format!("{} ? {} : (float){called}", reg_name(*ok), reg_name(*value)))
            }
            Expr::Bitcast { value, to } => scalar::bitcast(self.reg_type(*value)?, *to, &reg_name(*value)),
        }
    }
}
