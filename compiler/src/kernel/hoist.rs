//! Moves out of a loop what every iteration computes again.
//!
//! In: any kernel that verifies. Out: a kernel with the same bits, where a definition in a loop's body that depends on
//! nothing of that body stands before the loop, as far out as the body of the phase; equal ones that meet there are one.
//! Three loops over a row that each divide by the same root take the root once.
//!
//! What stays: constants, which cost nothing where they are used; loads, unless the loop is known to run and nothing
//! writes the buffer; all that is in a branch, which may not be taken.

use std::collections::{HashMap, HashSet};

use frit_ir::types::dim::Atom;
use frit_ir::{DType, Dim, Symbol};

use super::rewrite::{Renamed, Rewrite, visit_regs};
use super::{Buffer, Expr, Kernel, Reg, Role, Scalar, Stmt};

/// Moves what it can; see the page.
pub fn hoist(kernel: &mut Kernel) {
    for phase in &mut kernel.phases {
        let mut hoister = Hoister {
            buffers: &kernel.buffers,
            regs: std::mem::take(&mut kernel.regs),
            outer: &phase.outer,
            blocks: &phase.extent,
            constants: HashMap::new(),
            renamed: HashMap::new(),
        };
        let body = hoister.body(std::mem::take(&mut phase.body));
        let Hoister { regs, renamed, .. } = hoister;
        kernel.regs = regs;
        phase.body =
            if renamed.is_empty() { body } else { Renamed(|r| renamed.get(&r).copied().unwrap_or(r)).body(body) };
    }
}

struct Hoister<'k> {
    buffers: &'k [Buffer],
    regs: Vec<DType>,
    /// The phase's index, and how often it runs.
    outer: &'k Symbol,
    blocks: &'k Dim,
    /// Constants that were met.
    constants: HashMap<Reg, Scalar>,
    /// Definitions that went because an equal one stands before them.
    renamed: HashMap<Reg, Reg>,
}

/// A body that is being written: its statements, and what they define that an equal definition may use.
#[derive(Default)]
struct Body {
    stmts: Vec<Stmt>,
    known: HashMap<Expr, Reg>,
}

impl Hoister<'_> {
    fn body(&mut self, stmts: Vec<Stmt>) -> Vec<Stmt> {
        let mut out = Body::default();
        for stmt in stmts {
            let stmt = match stmt {
                Stmt::Let(reg, expr) => {
                    let expr = self.renamed_expr(expr);
                    if let Expr::Const(value) = expr {
                        self.constants.insert(reg, value);
                    }
                    if self.is_lasting(&expr) {
                        out.known.entry(expr.clone()).or_insert(reg);
                    }
                    Stmt::Let(reg, expr)
                }
                Stmt::For { var, extent, body } => {
                    let body = self.body(body);
                    let body = self.lift(&var, &extent, body, &mut out);
                    Stmt::For { var, extent, body }
                }
                Stmt::Reduce { var, extent, body, accs } => {
                    let body = self.body(body);
                    let body = self.lift(&var, &extent, body, &mut out);
                    Stmt::Reduce { var, extent, body, accs }
                }
                Stmt::If { condition, then, otherwise } => {
                    Stmt::If { condition, then: self.body(then), otherwise: self.body(otherwise) }
                }
                Stmt::Store { .. } | Stmt::Check { .. } => stmt,
            };
            out.stmts.push(stmt);
        }
        out.stmts
    }

    /// Moves definitions of a loop's body to the body around it; what stays.
    fn lift(&mut self, var: &Symbol, extent: &Dim, body: Vec<Stmt>, out: &mut Body) -> Vec<Stmt> {
        let runs = self.runs(extent);
        let mut inside: HashSet<Reg> = HashSet::new();
        let mut stay = Vec::with_capacity(body.len());
        for stmt in body {
            match stmt {
                Stmt::Let(reg, expr) => {
                    let expr = self.renamed_expr(expr);
                    let constant = matches!(expr, Expr::Const(_));
                    let loads = matches!(expr, Expr::Load { .. });
                    if !constant && self.is_lasting(&expr) && (runs || !loads) && is_free(&expr, var, &inside) {
                        let expr = Renamed(|r| self.outside(r, out)).expr(&expr);
                        match out.known.get(&expr) {
                            Some(same) => {
                                self.renamed.insert(reg, *same);
                            }
                            None => {
                                out.known.insert(expr.clone(), reg);
                                out.stmts.push(Stmt::Let(reg, expr));
                            }
                        }
                        continue;
                    }
                    if !constant {
                        inside.insert(reg);
                    }
                    stay.push(Stmt::Let(reg, expr));
                }
                Stmt::Reduce { ref accs, .. } => {
                    inside.extend(accs.iter().map(|acc| acc.result));
                    stay.push(stmt);
                }
                Stmt::For { .. } | Stmt::If { .. } | Stmt::Store { .. } | Stmt::Check { .. } => stay.push(stmt),
            }
        }
        stay
    }

    /// A register as it is known in the body around: constants are written again there.
    fn outside(&mut self, reg: Reg, out: &mut Body) -> Reg {
        let Some(value) = self.constants.get(&reg).copied() else { return reg };
        *out.known.entry(Expr::Const(value)).or_insert_with(|| {
            self.regs.push(value.dtype);
            let copy = Reg(self.regs.len() as u32 - 1);
            self.constants.insert(copy, value);
            out.stmts.push(Stmt::Let(copy, Expr::Const(value)));
            copy
        })
    }

    /// Whether an expression gives the same wherever it stands in the phase.
    fn is_lasting(&self, expr: &Expr) -> bool {
        match expr {
            Expr::Load { buffer, .. } => self.buffers.get(buffer.0 as usize).is_some_and(|b| b.role == Role::Input),
            Expr::Const(_)
            | Expr::Index(_)
            | Expr::Unary(..)
            | Expr::Binary(..)
            | Expr::Select(..)
            | Expr::Fma(..)
            | Expr::Cast { .. }
            | Expr::Rescue { .. }
            | Expr::Bitcast { .. } => true,
        }
    }

    fn renamed_expr(&self, expr: Expr) -> Expr {
        if self.renamed.is_empty() { expr } else { Renamed(|r| self.current(r)).expr(&expr) }
    }

    fn current(&self, reg: Reg) -> Reg {
        self.renamed.get(&reg).copied().unwrap_or(reg)
    }

    /// Whether a loop of the phase runs at least once: also the rest of what the phase cuts in blocks does.
    fn runs(&self, extent: &Dim) -> bool {
        if let Some(n) = extent.known() {
            return n > 0;
        }
        let terms = extent.terms();
        if let Some((atoms, 1)) = terms.iter().next()
            && terms.len() == 1
            && let [Atom::Min(a, b)] = atoms.as_slice()
        {
            return self.runs(a) && self.runs(b);
        }
        // all - block * outer, of ceil(all / block) blocks.
        let outer = Dim::from(self.outer.clone());
        terms.iter().any(|(atoms, coefficient)| {
            let block = Dim::Known(coefficient.saturating_neg());
            let all = extent + &(&block * &outer);
            matches!(atoms.as_slice(), [Atom::Sym(s)] if s == self.outer)
                && *coefficient < 0
                && all.ceildiv(&block) == *self.blocks
        })
    }
}

/// Whether an expression needs neither the loop variable nor what the body keeps.
fn is_free(expr: &Expr, var: &Symbol, inside: &HashSet<Reg>) -> bool {
    let mut free = true;
    if let Expr::Load { index, .. } | Expr::Index(index) = expr {
        index.visit_symbols(&mut |s| free &= s != var);
    }
    visit_regs(expr, &mut |r| free &= !inside.contains(&r));
    free
}
