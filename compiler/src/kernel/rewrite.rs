//! Statements over other registers and other indices.

use std::collections::HashMap;

use frit_ir::{Dim, Symbol};

use super::{Acc, BufferId, Combine, Expr, Reg, Stmt};

/// What becomes of the parts of statements.
pub(crate) trait Rewrite {
    /// A register that is used.
    fn reg(&mut self, reg: Reg) -> Reg;
    /// An index into a buffer, or an extent; its registers are still the old ones.
    fn dim(&mut self, buffer: Option<BufferId>, dim: &Dim) -> Dim;

    /// A body, in order.
    fn body(&mut self, stmts: Vec<Stmt>) -> Vec<Stmt> {
        stmts.into_iter().map(|stmt| self.stmt(stmt)).collect()
    }

    /// A statement with all that is in it.
    fn stmt(&mut self, stmt: Stmt) -> Stmt {
        match stmt {
            Stmt::Let(reg, expr) => Stmt::Let(reg, self.expr(&expr)),
            Stmt::Store { buffer, index, value } => {
                Stmt::Store { buffer, index: self.dim(Some(buffer), &index), value: self.reg(value) }
            }
            Stmt::For { var, extent, body } => {
                let extent = self.dim(None, &extent);
                Stmt::For { var, extent, body: self.body(body) }
            }
            Stmt::Reduce { var, extent, body, accs } => {
                let (extent, body) = (self.dim(None, &extent), self.body(body));
                let accs = accs.into_iter().map(|acc| self.acc(acc)).collect();
                Stmt::Reduce { var, extent, body, accs }
            }
            Stmt::If { condition, then, otherwise } => {
                let condition = self.reg(condition);
                Stmt::If { condition, then: self.body(then), otherwise: self.body(otherwise) }
            }
            Stmt::Check { ok, code } => Stmt::Check { ok: self.reg(ok), code },
        }
    }

    /// An accumulator; its result stays.
    fn acc(&mut self, acc: Acc) -> Acc {
        let combine = match acc.combine {
            Combine::Dot(factor) => Combine::Dot(self.reg(factor)),
            Combine::ArgMin(place) => Combine::ArgMin(self.reg(place)),
            Combine::ArgMax(place) => Combine::ArgMax(self.reg(place)),
            same @ (Combine::Sum | Combine::Prod | Combine::Min | Combine::Max) => same,
        };
        Acc { result: acc.result, value: self.reg(acc.value), combine }
    }

    /// An expression.
    fn expr(&mut self, expr: &Expr) -> Expr {
        match expr {
            Expr::Const(value) => Expr::Const(*value),
            Expr::Load { buffer, index } => Expr::Load { buffer: *buffer, index: self.dim(Some(*buffer), index) },
            Expr::Index(dim) => Expr::Index(self.dim(None, dim)),
            Expr::Unary(op, x) => Expr::Unary(*op, self.reg(*x)),
            Expr::Binary(op, a, b) => Expr::Binary(*op, self.reg(*a), self.reg(*b)),
            Expr::Select(c, a, b) => Expr::Select(self.reg(*c), self.reg(*a), self.reg(*b)),
            Expr::Fma(a, b, c) => Expr::Fma(self.reg(*a), self.reg(*b), self.reg(*c)),
            Expr::Cast { value, to, saturate } => Expr::Cast { value: self.reg(*value), to: *to, saturate: *saturate },
            Expr::Rescue { ok, value, op, x } => {
                Expr::Rescue { ok: self.reg(*ok), value: self.reg(*value), op: *op, x: self.reg(*x) }
            }
            Expr::Bitcast { value, to } => Expr::Bitcast { value: self.reg(*value), to: *to },
        }
    }
}

/// Other registers, the same indices otherwise.
pub(crate) struct Renamed<F>(pub(crate) F);

impl<F: FnMut(Reg) -> Reg> Rewrite for Renamed<F> {
    fn reg(&mut self, reg: Reg) -> Reg {
        (self.0)(reg)
    }

    fn dim(&mut self, _: Option<BufferId>, dim: &Dim) -> Dim {
        renamed(dim, &mut self.0)
    }
}

/// The register that a symbol of an index stands for.
pub(crate) fn register(symbol: &Symbol) -> Option<Reg> {
    symbol.name().strip_prefix('r').and_then(|n| n.parse().ok()).map(Reg)
}

/// An index over other registers.
pub(crate) fn renamed(dim: &Dim, rename: &mut dyn FnMut(Reg) -> Reg) -> Dim {
    let mut changed: HashMap<Symbol, Reg> = HashMap::new();
    dim.visit_symbols(&mut |s| {
        if let Some(reg) = register(s) {
            let new = rename(reg);
            if new != reg {
                changed.insert(s.clone(), new);
            }
        }
    });
    if changed.is_empty() {
        return dim.clone();
    }
    dim.substitute(&|s| changed.get(s).map(|r| r.symbol().into()))
}

/// Calls with every register that an expression uses, those of its index too.
pub(crate) fn visit_regs(expr: &Expr, visit: &mut dyn FnMut(Reg)) {
    Renamed(|reg| {
        visit(reg);
        reg
    })
    .expr(expr);
}

/// Calls with every register that an accumulator uses.
pub(crate) fn visit_acc(acc: &Acc, visit: &mut dyn FnMut(Reg)) {
    Renamed(|reg| {
        visit(reg);
        reg
    })
    .acc(acc.clone());
}
