//! Kernels as text, as `--emit loops` and dumps show them.
//!
//! ```text
//! kernel map_0(in x: f32[4*d0], out y: f32[4*d0]) dims(d0 = B) fast {
//!   phase i0 < d0 {
//!     for i1 < 4 {
//!       %0: f32 = load x[4*i0 + i1]
//!       %1: f32 = exp %0
//!       store y[4*i0 + i1] = %1
//!     }
//!   }
//! }
//! ```
//!
//! Constants of f32, f64 and integers print as their shortest exact decimal, NaN and the other types as their bits in
//! hex. Buffers go by name, and by position (`#2`) when an earlier one has that name; a register inside an index is
//! `rN`. Names that are no words stand in quotes. Registers that nothing defines are listed after the head:
//! `unused(%7: i32)`. The parser reads all this back.

use std::fmt::{self, Display, Formatter};

use frit_ir::DType;

use super::{Acc, BufferId, Combine, Expr, Kernel, Reg, Role, Scalar, Stmt, primitive};
use crate::text::Name;

impl Display for Scalar {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.dtype {
            DType::F32 if self.to_f32().is_finite() => write!(f, "{:?}", self.to_f32()),
            DType::F64 if self.to_f64().is_finite() => write!(f, "{:?}", self.to_f64()),
            DType::Bool => write!(f, "{}", self.is_true()),
            dtype if primitive::is_plain_int(dtype) => write!(f, "{}", self.to_int()),
            _ => write!(f, "{:#x}", self.bits),
        }
    }
}

/// Items between commas.
fn list<T>(
    f: &mut Formatter<'_>,
    items: impl IntoIterator<Item = T>,
    mut each: impl FnMut(&mut Formatter<'_>, T) -> fmt::Result,
) -> fmt::Result {
    for (i, item) in items.into_iter().enumerate() {
        if i > 0 {
            f.write_str(", ")?;
        }
        each(f, item)?;
    }
    Ok(())
}

impl Display for Kernel {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "kernel {}(", Name(&self.name))?;
        list(f, &self.buffers, |f, b| {
            let role = match b.role {
                Role::Input => "in",
                Role::Output => "out",
                Role::Local => "local",
            };
            write!(f, "{role} {}: {}[{}]", Name(&b.name), b.dtype, b.len)
        })?;
        f.write_str(")")?;
        if !self.dims.is_empty() {
            f.write_str(" dims(")?;
            list(f, &self.dims, |f, d| write!(f, "{} = {}", d.symbol, d.value))?;
            f.write_str(")")?;
        }
        if !self.traps.is_empty() {
            f.write_str(" traps(")?;
            list(f, &self.traps, |f, t| write!(f, "{t:?}"))?;
            f.write_str(")")?;
        }
        let unused = self.unused();
        if !unused.is_empty() {
            f.write_str(" unused(")?;
            list(f, unused, |f, reg| write!(f, "{reg}: {}", self.type_name(reg)))?;
            f.write_str(")")?;
        }
        f.write_str(if self.fast { " fast {\n" } else { " {\n" })?;
        for phase in &self.phases {
            writeln!(f, "  phase {} < {} {{", phase.outer, phase.extent)?;
            self.body(f, &phase.body, 2)?;
            f.write_str("  }\n")?;
        }
        f.write_str("}\n")
    }
}

/// Marks what a body defines.
fn mark_defined(stmts: &[Stmt], defined: &mut [bool]) {
    let mut mark = |reg: Reg| {
        if let Some(slot) = defined.get_mut(reg.0 as usize) {
            *slot = true;
        }
    };
    for stmt in stmts {
        match stmt {
            Stmt::Let(reg, _) => mark(*reg),
            Stmt::Reduce { accs, .. } => accs.iter().for_each(|acc| mark(acc.result)),
            Stmt::For { .. } | Stmt::If { .. } | Stmt::Store { .. } | Stmt::Check { .. } => {}
        }
    }
    for stmt in stmts {
        match stmt {
            Stmt::For { body, .. } | Stmt::Reduce { body, .. } => mark_defined(body, defined),
            Stmt::If { then, otherwise, .. } => {
                mark_defined(then, defined);
                mark_defined(otherwise, defined);
            }
            Stmt::Let(..) | Stmt::Store { .. } | Stmt::Check { .. } => {}
        }
    }
}

impl Kernel {
    /// Registers that nothing defines.
    fn unused(&self) -> Vec<Reg> {
        let mut defined = vec![false; self.regs.len()];
        self.phases.iter().for_each(|p| mark_defined(&p.body, &mut defined));
        (0u32..).map(Reg).zip(defined).filter(|(_, defined)| !defined).map(|(reg, _)| reg).collect()
    }

    fn body(&self, f: &mut Formatter<'_>, stmts: &[Stmt], depth: usize) -> fmt::Result {
        stmts.iter().try_for_each(|s| self.stmt(f, s, depth))
    }

    fn stmt(&self, f: &mut Formatter<'_>, stmt: &Stmt, depth: usize) -> fmt::Result {
        let pad = "  ".repeat(depth);
        f.write_str(&pad)?;
        match stmt {
            Stmt::Let(reg, expr) => {
                write!(f, "{reg}: {} = ", self.type_name(*reg))?;
                self.expr(f, expr)?;
                f.write_str("\n")
            }
            Stmt::Store { buffer, index, value } => {
                writeln!(f, "store {}[{index}] = {value}", self.buffer_name(*buffer))
            }
            Stmt::For { var, extent, body } => {
                writeln!(f, "for {var} < {extent} {{")?;
                self.body(f, body, depth + 1)?;
                writeln!(f, "{pad}}}")
            }
            Stmt::Reduce { var, extent, body, accs } => {
                writeln!(f, "reduce {var} < {extent} {{")?;
                self.body(f, body, depth + 1)?;
                write!(f, "{pad}}}{}", if accs.is_empty() { "" } else { " " })?;
                list(f, accs, |f, acc| self.acc(f, acc))?;
                f.write_str("\n")
            }
            Stmt::If { condition, then, otherwise } => {
                writeln!(f, "if {condition} {{")?;
                self.body(f, then, depth + 1)?;
                if !otherwise.is_empty() {
                    writeln!(f, "{pad}}} else {{")?;
                    self.body(f, otherwise, depth + 1)?;
                }
                writeln!(f, "{pad}}}")
            }
            Stmt::Check { ok, code } => writeln!(f, "check {ok} else {code}"),
        }
    }

    fn acc(&self, f: &mut Formatter<'_>, acc: &Acc) -> fmt::Result {
        write!(f, "{}: {} = ", acc.result, self.type_name(acc.result))?;
        match acc.combine {
            Combine::Sum => write!(f, "sum {}", acc.value),
            Combine::Dot(factor) => write!(f, "dot {} by {factor}", acc.value),
            Combine::Prod => write!(f, "prod {}", acc.value),
            Combine::Min => write!(f, "min {}", acc.value),
            Combine::Max => write!(f, "max {}", acc.value),
            Combine::ArgMin(index) => write!(f, "argmin {} at {index}", acc.value),
            Combine::ArgMax(index) => write!(f, "argmax {} at {index}", acc.value),
        }
    }

    fn expr(&self, f: &mut Formatter<'_>, expr: &Expr) -> fmt::Result {
        match expr {
            Expr::Const(value) => write!(f, "const {value}"),
            Expr::Load { buffer, index } => write!(f, "load {}[{index}]", self.buffer_name(*buffer)),
            Expr::Index(dim) => write!(f, "index [{dim}]"),
            Expr::Unary(op, x) => write!(f, "{} {x}", op.name()),
            Expr::Binary(op, a, b) => write!(f, "{} {a}, {b}", op.name()),
            Expr::Select(c, a, b) => write!(f, "select {c}, {a}, {b}"),
            Expr::Fma(a, b, c) => write!(f, "fma {a}, {b}, {c}"),
            Expr::Cast { value, saturate: false, .. } => write!(f, "cast {value}"),
            Expr::Cast { value, saturate: true, .. } => write!(f, "cast saturate {value}"),
            Expr::Bitcast { value, .. } => write!(f, "bitcast {value}"),
            Expr::Rescue { ok, value, op, x } => write!(f, "rescue {} {ok}, {value}, {x}", op.name()),
        }
    }

    fn type_name(&self, reg: Reg) -> &'static str {
        self.reg_type(reg).map_or("undeclared", DType::name)
    }

    fn buffer_name(&self, id: BufferId) -> String {
        let named = self.buffer(id).filter(|b| {
            let first = self.buffers.iter().position(|other| other.name == b.name);
            first == Some(id.0 as usize)
        });
        named.map_or_else(|| format!("#{}", id.0), |b| Name(&b.name).to_string())
    }
}
