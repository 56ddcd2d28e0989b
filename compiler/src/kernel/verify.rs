//! What holds for every kernel before it is compiled or run (K1 to K4; K5 is the interpreter's).

use std::collections::HashSet;

use frit_ir::{DType, Dim, Symbol};

use super::{BufferId, Combine, Expr, Kernel, Reg, Role, Stmt, primitive};

/// A rule that a kernel breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("kernel {kernel}: {rule}: {message}")]
pub struct KernelError {
    /// The kernel's name.
    pub kernel: String,
    /// `K1` to `K4`.
    pub rule: &'static str,
    /// What is wrong.
    pub message: String,
}

type Checked = Result<(), (&'static str, String)>;

/// Checks the rules of [`super`]'s page.
pub fn verify(kernel: &Kernel) -> Result<(), KernelError> {
    let mut verifier = Verifier {
        kernel,
        defined: HashSet::new(),
        regs: HashSet::new(),
        symbols: kernel.dims.iter().map(|d| d.symbol.clone()).collect(),
    };
    verifier.run().map_err(|(rule, message)| KernelError { kernel: kernel.name.clone(), rule, message })
}

struct Verifier<'k> {
    kernel: &'k Kernel,
    /// Every register assigned so far, and those in scope.
    defined: HashSet<Reg>,
    regs: HashSet<Reg>,
    symbols: HashSet<Symbol>,
}

impl Verifier<'_> {
    fn run(&mut self) -> Checked {
        for buffer in &self.kernel.buffers {
            self.dim(&buffer.len)?;
        }
        for phase in &self.kernel.phases {
            self.dim(&phase.extent)?;
            self.scope(&[&phase.outer], &phase.body)?;
            self.regs.clear();
        }
        Ok(())
    }

    /// A body under loop variables; what it defines ends with it.
    fn scope(&mut self, vars: &[&Symbol], body: &[Stmt]) -> Checked {
        let regs = self.regs.clone();
        self.enter(vars, body)?;
        self.regs = regs;
        Ok(())
    }

    /// As [`Self::scope`], but the registers stay, for what reads them at the body's end.
    fn enter(&mut self, vars: &[&Symbol], body: &[Stmt]) -> Checked {
        for var in vars {
            if !self.symbols.insert((*var).clone()) {
                return Err(("K3", format!("{var} names two loops or dims at once")));
            }
        }
        body.iter().try_for_each(|s| self.stmt(s))?;
        for var in vars {
            self.symbols.remove(*var);
        }
        Ok(())
    }

    fn dim(&self, dim: &Dim) -> Checked {
        let mut unknown = None;
        dim.visit_symbols(&mut |s| {
            if !self.symbols.contains(s) && !self.is_register(s) {
                unknown = Some(s.clone());
            }
        });
        unknown.map_or(Ok(()), |s| Err(("K3", format!("{dim}: {s} is no loop, dim or integer register in scope"))))
    }

    fn is_register(&self, symbol: &Symbol) -> bool {
        let reg = symbol.name().strip_prefix('r').and_then(|n| n.parse().ok()).map(Reg);
        reg.is_some_and(|r| self.regs.contains(&r) && self.kernel.reg_type(r).is_some_and(primitive::is_plain_int))
    }

    fn read(&self, reg: Reg) -> Result<DType, (&'static str, String)> {
        match self.kernel.reg_type(reg) {
            Some(dtype) if self.regs.contains(&reg) => Ok(dtype),
            _ => Err(("K1", format!("{reg} is read where it has no value"))),
        }
    }

    fn define(&mut self, reg: Reg, dtype: DType) -> Checked {
        match self.kernel.reg_type(reg) {
            None => return Err(("K1", format!("{reg} is no register of the kernel"))),
            Some(declared) if declared != dtype => {
                return Err(("K2", format!("{reg} is {declared}, what defines it gives {dtype}")));
            }
            Some(_) => {}
        }
        if !self.defined.insert(reg) {
            return Err(("K1", format!("{reg} is assigned twice")));
        }
        self.regs.insert(reg);
        Ok(())
    }

    fn expect(&self, reg: Reg, dtype: DType) -> Checked {
        let found = self.read(reg)?;
        if found == dtype { Ok(()) } else { Err(("K2", format!("{reg} is {found} where {dtype} is needed"))) }
    }

    fn buffer(&self, id: BufferId) -> Result<&super::Buffer, (&'static str, String)> {
        self.kernel.buffer(id).ok_or_else(|| ("K4", format!("there is no buffer {}", id.0)))
    }

    fn stmt(&mut self, stmt: &Stmt) -> Checked {
        match stmt {
            Stmt::Let(reg, expr) => {
                let dtype = self.expr(expr)?;
                self.define(*reg, dtype)
            }
            Stmt::Store { buffer, index, value } => {
                self.dim(index)?;
                let to = self.buffer(*buffer)?;
                if to.role == Role::Input {
                    return Err(("K4", format!("a store to {}, an input", to.name)));
                }
                self.expect(*value, to.dtype)
            }
            Stmt::For { var, extent, body } => {
                self.dim(extent)?;
                self.scope(&[var], body)
            }
            Stmt::Reduce { var, extent, body, accs } => {
                self.dim(extent)?;
                let regs = self.regs.clone();
                self.enter(&[var], body)?;
                let mut results = Vec::new();
                for acc in accs {
                    let value = self.read(acc.value)?;
                    results.push(match acc.combine {
                        Combine::ArgMin(index) | Combine::ArgMax(index) => {
                            self.expect(index, DType::I64)?;
                            DType::I64
                        }
                        Combine::Dot(factor) => {
                            self.expect(factor, value)?;
                            value
                        }
                        Combine::Sum | Combine::Prod | Combine::Min | Combine::Max => value,
                    });
                }
                self.regs = regs;
                accs.iter().zip(results).try_for_each(|(acc, dtype)| self.define(acc.result, dtype))
            }
            Stmt::If { condition, then, otherwise } => {
                self.expect(*condition, DType::Bool)?;
                self.scope(&[], then)?;
                self.scope(&[], otherwise)
            }
            Stmt::Check { ok, code } => {
                self.expect(*ok, DType::Bool)?;
                if self.kernel.traps.get(*code as usize).is_none() {
                    return Err(("K2", format!("the kernel has no message {code}")));
                }
                Ok(())
            }
        }
    }

    /// The type that an expression gives.
    fn expr(&self, expr: &Expr) -> Result<DType, (&'static str, String)> {
        let same = |a: Reg, b: Reg| {
            let dtype = self.read(a)?;
            self.expect(b, dtype)?;
            Ok(dtype)
        };
        match expr {
            Expr::Const(s) => Ok(s.dtype),
            Expr::Load { buffer, index } => {
                self.dim(index)?;
                Ok(self.buffer(*buffer)?.dtype)
            }
            Expr::Index(d) => self.dim(d).map(|()| DType::I64),
            Expr::Unary(_, x) => self.read(*x),
            Expr::Binary(op, a, b) => {
                Ok(if op.is_comparison() { same(*a, *b).map(|_| DType::Bool)? } else { same(*a, *b)? })
            }
            Expr::Select(c, a, b) => {
                self.expect(*c, DType::Bool)?;
                same(*a, *b)
            }
            Expr::Fma(a, b, c) => {
                let dtype = same(*a, *b)?;
                self.expect(*c, dtype)?;
                match dtype {
                    DType::F32 | DType::F64 => Ok(dtype),
                    _ => Err(("K2", format!("fma of {dtype}"))),
                }
            }
            Expr::Cast { value, to, .. } => match (self.read(*value)?, *to) {
                (DType::Str, _) | (_, DType::Str) => Err(("K2", "a cast of strings".to_owned())),
                _ => Ok(*to),
            },
            Expr::Rescue { ok, value, x, .. } => {
                self.expect(*ok, DType::Bool)?;
                self.expect(*value, DType::F32)?;
                self.expect(*x, DType::F32)?;
                Ok(DType::F32)
            }
            Expr::Bitcast { value, to } => {
                let from = self.read(*value)?;
                if from.size() == to.size() { Ok(*to) } else { Err(("K2", format!("{from} and {to} differ in size"))) }
            }
        }
    }
}
