//! Rewrites a kernel so that every scalar operation is a machine primitive ([`super::primitive`]).
//!
//! In: any kernel that verifies. Out: the same kernel, each operation that is no primitive replaced by the formula of
//! [`super::maths`] for it; the register keeps its number. Equal primitives of nested bodies are written once, so
//! functions of one operand (its sine and cosine) share their parts.
//!
//! Registers of f16, bf16 and the storage types are only loaded, stored, selected and cast; their casts become bit
//! operations here.

use std::cell::RefCell;
use std::collections::HashMap;

use frit_ir::{BinaryOp, DType, UnaryOp};

use super::maths::{self, Machine, Val};
use super::{Expr, Kernel, Reg, Scalar, Stmt, primitive};

/// An operation that a type does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("kernel {kernel}: `{op}` is not defined on {dtype}")]
pub struct ExpandError {
    /// The kernel's name.
    pub kernel: String,
    /// The operation.
    pub op: String,
    /// Type of its operand.
    pub dtype: DType,
}

/// Replaces what is no primitive; see the page.
pub fn expand(kernel: &mut Kernel) -> Result<(), ExpandError> {
    let recorder =
        Recorder { state: RefCell::new(State { regs: std::mem::take(&mut kernel.regs), scopes: Vec::new() }) };
    let mut expander = Expander { kernel: kernel.name.clone(), fast: kernel.fast, recorder };
    let mut result = Ok(());
    for phase in &mut kernel.phases {
        match expander.body(std::mem::take(&mut phase.body)) {
            Ok(body) => phase.body = body,
            Err(e) => result = Err(e),
        }
    }
    kernel.regs = expander.recorder.state.into_inner().regs;
    result
}

/// A pure operation, to find it again.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Const(Scalar),
    Unary(UnaryOp, Reg),
    Binary(BinaryOp, Reg, Reg),
    Select(Reg, Reg, Reg),
    Fma(Reg, Reg, Reg),
    Cast(Reg, DType, bool),
    Bitcast(Reg, DType),
    Rescue(Reg, Reg, UnaryOp, Reg),
}

/// The key of an expression; loads and indices have none.
fn key(expr: &Expr) -> Option<Key> {
    Some(match expr {
        Expr::Const(s) => Key::Const(*s),
        Expr::Load { .. } | Expr::Index(_) => return None,
        Expr::Unary(op, x) => Key::Unary(*op, *x),
        Expr::Binary(op, a, b) => Key::Binary(*op, *a, *b),
        Expr::Select(c, a, b) => Key::Select(*c, *a, *b),
        Expr::Fma(a, b, c) => Key::Fma(*a, *b, *c),
        Expr::Cast { value, to, saturate } => Key::Cast(*value, *to, *saturate),
        Expr::Rescue { ok, value, op, x } => Key::Rescue(*ok, *value, *op, *x),
        Expr::Bitcast { value, to } => Key::Bitcast(*value, *to),
    })
}

/// An open body.
#[derive(Default)]
struct Scope {
    stmts: Vec<Stmt>,
    known: HashMap<Key, Reg>,
    constants: HashMap<Reg, Scalar>,
}

struct State {
    regs: Vec<DType>,
    scopes: Vec<Scope>,
}

/// The machine that appends primitives to the innermost open body.
struct Recorder {
    state: RefCell<State>,
}

impl Recorder {
    fn emit(&self, dtype: DType, expr: Expr) -> Reg {
        let known = key(&expr).and_then(|k| {
            let state = self.state.borrow();
            state.scopes.iter().rev().find_map(|s| s.known.get(&k).copied())
        });
        if let Some(reg) = known {
            return reg;
        }
        let reg = {
            let mut state = self.state.borrow_mut();
            state.regs.push(dtype);
            Reg(state.regs.len() as u32 - 1)
        };
        self.define(reg, expr);
        reg
    }

    /// Appends a definition and remembers it.
    fn define(&self, reg: Reg, expr: Expr) {
        let mut state = self.state.borrow_mut();
        let Some(scope) = state.scopes.last_mut() else { return };
        if let Expr::Const(s) = &expr {
            scope.constants.insert(reg, *s);
        }
        if let Some(key) = key(&expr) {
            scope.known.entry(key).or_insert(reg);
        }
        scope.stmts.push(Stmt::Let(reg, expr));
    }

    fn push(&self, stmt: Stmt) {
        if let Some(scope) = self.state.borrow_mut().scopes.last_mut() {
            scope.stmts.push(stmt);
        }
    }

    /// Gives `result` to `reg`: renames the definition just written when it is that of `result`, else copies.
    fn assign(&self, reg: Reg, result: Reg, first_new: usize) {
        let mut state = self.state.borrow_mut();
        let dtype = state.regs.get(reg.0 as usize).copied().unwrap_or(DType::F32);
        let last = state.regs.len();
        let Some(scope) = state.scopes.last_mut() else { return };
        if result.0 as usize >= first_new
            && let Some(Stmt::Let(defined, _)) = scope.stmts.last_mut()
            && *defined == result
        {
            *defined = reg;
            for known in scope.known.values_mut().filter(|r| **r == result) {
                *known = reg;
            }
            if let Some(value) = scope.constants.remove(&result) {
                scope.constants.insert(reg, value);
            }
            if result.0 as usize + 1 == last {
                state.regs.pop();
            }
            return;
        }
        drop(state);
        self.define(reg, Expr::Bitcast { value: result, to: dtype });
    }
}

impl Machine for Recorder {
    type Value = Reg;

    fn dtype(&self, x: Reg) -> DType {
        self.state.borrow().regs.get(x.0 as usize).copied().unwrap_or(DType::F32)
    }

    fn constant(&self, value: Scalar) -> Reg {
        self.emit(value.dtype, Expr::Const(value))
    }

    fn known(&self, x: Reg) -> Option<Scalar> {
        self.state.borrow().scopes.iter().rev().find_map(|s| s.constants.get(&x).copied())
    }

    fn unary(&self, op: UnaryOp, x: Reg) -> Reg {
        self.emit(self.dtype(x), Expr::Unary(op, x))
    }

    fn binary(&self, op: BinaryOp, a: Reg, b: Reg) -> Reg {
        let dtype = if op.is_comparison() { DType::Bool } else { self.dtype(a) };
        // Of two constants: the constant.
        if let (Some(x), Some(y)) = (self.known(a), self.known(b))
            && let Some(value) = primitive::binary(op, x, y).filter(|v| !v.is_nan())
        {
            return self.constant(value);
        }
        self.emit(dtype, Expr::Binary(op, a, b))
    }

    fn select(&self, c: Reg, a: Reg, b: Reg) -> Reg {
        if a == b {
            return a;
        }
        self.emit(self.dtype(a), Expr::Select(c, a, b))
    }

    fn fma(&self, a: Reg, b: Reg, c: Reg) -> Reg {
        self.emit(self.dtype(a), Expr::Fma(a, b, c))
    }

    fn cast(&self, x: Reg, to: DType, saturate: bool) -> Reg {
        self.emit(to, Expr::Cast { value: x, to, saturate })
    }

    fn bitcast(&self, x: Reg, to: DType) -> Reg {
        // Bits that were only just reinterpreted come back as they were.
        let source = self.state.borrow().scopes.iter().rev().flat_map(|s| s.stmts.last()).find_map(|s| match s {
            Stmt::Let(reg, Expr::Bitcast { value, .. }) if *reg == x => Some(*value),
            _ => None,
        });
        if let Some(source) = source.filter(|s| self.dtype(*s) == to) {
            return source;
        }
        self.emit(to, Expr::Bitcast { value: x, to })
    }

    fn rescue(&self, ok: Reg, value: Reg, op: UnaryOp, x: Reg) -> Reg {
        self.emit(DType::F32, Expr::Rescue { ok, value, op, x })
    }
}

struct Expander {
    kernel: String,
    fast: bool,
    recorder: Recorder,
}

impl Expander {
    fn body(&mut self, stmts: Vec<Stmt>) -> Result<Vec<Stmt>, ExpandError> {
        self.recorder.state.borrow_mut().scopes.push(Scope::default());
        let outcome = stmts.into_iter().try_for_each(|s| self.stmt(s));
        let scope = self.recorder.state.borrow_mut().scopes.pop();
        outcome.map(|()| scope.map(|s| s.stmts).unwrap_or_default())
    }

    fn stmt(&mut self, stmt: Stmt) -> Result<(), ExpandError> {
        let done = match stmt {
            Stmt::Let(reg, expr) => return self.definition(reg, expr),
            Stmt::For { var, extent, body } => Stmt::For { var, extent, body: self.body(body)? },
            Stmt::Reduce { var, extent, body, accs } => Stmt::Reduce { var, extent, body: self.body(body)?, accs },
            Stmt::If { condition, then, otherwise } => {
                Stmt::If { condition, then: self.body(then)?, otherwise: self.body(otherwise)? }
            }
            Stmt::Store { .. } | Stmt::Check { .. } => stmt,
        };
        self.recorder.push(done);
        Ok(())
    }

    fn definition(&mut self, reg: Reg, expr: Expr) -> Result<(), ExpandError> {
        let machine = &self.recorder;
        let first_new = machine.state.borrow().regs.len();
        let val = |r: Reg| Val::new(machine, r);
        let (result, op, operand) = match &expr {
            Expr::Unary(op, x) if !primitive::is_unary(*op, machine.dtype(*x)) => {
                (maths::unary(*op, val(*x), self.fast), op.name(), *x)
            }
            // A minimum against a constant is cheaper than the primitive.
            Expr::Binary(op, a, b)
                if !primitive::is_binary(*op, machine.dtype(*a))
                    || matches!(op, BinaryOp::Min | BinaryOp::Max) && machine.dtype(*a).is_float() =>
            {
                (maths::binary(*op, val(*a), val(*b)), op.name(), *a)
            }
            Expr::Cast { value, to, saturate } if !maths::is_plain_cast(machine.dtype(*value), *to, *saturate) => {
                (maths::cast(val(*value), *to, *saturate), "cast", *value)
            }
            Expr::Const(_)
            | Expr::Load { .. }
            | Expr::Index(_)
            | Expr::Unary(..)
            | Expr::Binary(..)
            | Expr::Select(..)
            | Expr::Fma(..)
            | Expr::Cast { .. }
            | Expr::Rescue { .. }
            | Expr::Bitcast { .. } => {
                machine.define(reg, expr);
                return Ok(());
            }
        };
        match result {
            Some(v) => {
                machine.assign(reg, v.value, first_new);
                Ok(())
            }
            None => Err(ExpandError { kernel: self.kernel.clone(), op: op.to_owned(), dtype: machine.dtype(operand) }),
        }
    }
}
