//! Shorthand to write kernels: fresh registers, nested bodies, common subexpressions.
//!
//! A [`KernelBuilder`] keeps a stack of open bodies; [`KernelBuilder::let_`] appends to the innermost one and returns
//! the register of an equal expression that is already in scope instead of a second copy.

use std::collections::HashMap;

use frit_ir::{BinaryOp, DType, Dim, Symbol, UnaryOp};

use super::{Acc, Buffer, BufferId, Expr, Kernel, KernelDim, Phase, Reg, Role, Scalar, Stmt};

/// Key of an expression for reuse.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    Const(Scalar),
    Load(BufferId, Dim),
    Index(Dim),
    Op(String),
}

/// Writes one kernel.
#[derive(Clone)]
pub struct KernelBuilder {
    kernel: Kernel,
    bodies: Vec<Body>,
    next_var: u32,
}

/// A place in the writing of a kernel between two phases.
#[derive(Clone, Copy)]
pub struct Mark {
    dims: usize,
    buffers: usize,
    regs: usize,
    phases: usize,
    traps: usize,
    next_var: u32,
}

#[derive(Clone, Default)]
struct Body {
    stmts: Vec<Stmt>,
    known: HashMap<Key, Reg>,
}

impl KernelBuilder {
    /// An empty kernel.
    pub fn new(name: &str, fast: bool) -> Self {
        let kernel = Kernel {
            name: name.to_owned(),
            dims: Vec::new(),
            buffers: Vec::new(),
            regs: Vec::new(),
            phases: Vec::new(),
            traps: Vec::new(),
            fast,
        };
        KernelBuilder { kernel, bodies: Vec::new(), next_var: 0 }
    }

    /// Where the kernel stands; no body is open.
    pub fn mark(&self) -> Mark {
        let Kernel { dims, buffers, regs, phases, traps, .. } = &self.kernel;
        Mark {
            dims: dims.len(),
            buffers: buffers.len(),
            regs: regs.len(),
            phases: phases.len(),
            traps: traps.len(),
            next_var: self.next_var,
        }
    }

    /// Forgets what was written since.
    pub fn back_to(&mut self, mark: Mark) {
        self.kernel.dims.truncate(mark.dims);
        self.kernel.buffers.truncate(mark.buffers);
        self.kernel.regs.truncate(mark.regs);
        self.kernel.phases.truncate(mark.phases);
        self.kernel.traps.truncate(mark.traps);
        self.next_var = mark.next_var;
        self.bodies.clear();
    }

    /// Adds a buffer.
    pub fn buffer(&mut self, name: &str, dtype: DType, len: Dim, role: Role) -> BufferId {
        self.kernel.buffers.push(Buffer { name: name.to_owned(), dtype, len, role });
        BufferId(self.kernel.buffers.len() as u32 - 1)
    }

    /// The kernel's form of a module extent: numbers stay, anything else becomes a kernel dim.
    pub fn dim(&mut self, value: &Dim) -> Dim {
        if value.known().is_some() {
            return value.clone();
        }
        if let Some(known) = self.kernel.dims.iter().find(|d| d.value == *value) {
            return known.symbol.clone().into();
        }
        let symbol = Symbol::new(&format!("d{}", self.kernel.dims.len()));
        self.kernel.dims.push(KernelDim { symbol: symbol.clone(), value: value.clone() });
        symbol.into()
    }

    /// A fresh loop variable.
    pub fn var(&mut self) -> Symbol {
        self.next_var += 1;
        Symbol::new(&format!("i{}", self.next_var - 1))
    }

    /// A fresh register.
    pub fn reg(&mut self, dtype: DType) -> Reg {
        self.kernel.regs.push(dtype);
        Reg(self.kernel.regs.len() as u32 - 1)
    }

    /// The type of a register.
    pub fn reg_type(&self, reg: Reg) -> DType {
        self.kernel.regs.get(reg.0 as usize).copied().unwrap_or(DType::F32)
    }

    /// Adds a run-time error message and returns its code.
    pub fn trap(&mut self, message: String) -> u32 {
        if let Some(code) = self.kernel.traps.iter().position(|t| *t == message) {
            return code as u32;
        }
        self.kernel.traps.push(message);
        self.kernel.traps.len() as u32 - 1
    }

    /// Opens a body.
    pub fn open(&mut self) {
        self.bodies.push(Body::default());
    }

    /// Closes the innermost body.
    pub fn close(&mut self) -> Vec<Stmt> {
        self.bodies.pop().map(|b| b.stmts).unwrap_or_default()
    }

    /// Appends a statement to the innermost body.
    pub fn push(&mut self, stmt: Stmt) {
        if let Some(body) = self.bodies.last_mut() {
            // A store may change what a load of the same buffer gives.
            if let Stmt::Store { buffer, .. } = &stmt {
                let written = *buffer;
                for body in &mut self.bodies {
                    body.known.retain(|key, _| !matches!(key, Key::Load(b, _) if *b == written));
                }
                if let Some(body) = self.bodies.last_mut() {
                    body.stmts.push(stmt);
                }
                return;
            }
            body.stmts.push(stmt);
        }
    }

    /// Defines a register of the innermost body, or returns the one that already holds the expression.
    pub fn let_(&mut self, dtype: DType, expr: Expr) -> Reg {
        let key = match &expr {
            Expr::Const(s) => Key::Const(*s),
            Expr::Load { buffer, index } => Key::Load(*buffer, index.clone()),
            Expr::Index(d) => Key::Index(d.clone()),
            Expr::Unary(..)
            | Expr::Binary(..)
            | Expr::Select(..)
            | Expr::Fma(..)
            | Expr::Rescue { .. }
            | Expr::Cast { .. }
            | Expr::Bitcast { .. } => Key::Op(format!("{expr:?}")),
        };
        if let Some(reg) = self.bodies.iter().rev().find_map(|b| b.known.get(&key)) {
            return *reg;
        }
        let reg = self.reg(dtype);
        if let Some(body) = self.bodies.last_mut() {
            body.known.insert(key, reg);
        }
        self.push(Stmt::Let(reg, expr));
        reg
    }

    /// A constant.
    pub fn constant(&mut self, value: Scalar) -> Reg {
        self.let_(value.dtype, Expr::Const(value))
    }

    /// A load.
    pub fn load(&mut self, buffer: BufferId, index: Dim) -> Reg {
        let dtype = self.kernel.buffer(buffer).map_or(DType::F32, |b| b.dtype);
        self.let_(dtype, Expr::Load { buffer, index })
    }

    /// An op of one operand.
    pub fn unary(&mut self, op: UnaryOp, x: Reg) -> Reg {
        let dtype = self.reg_type(x);
        self.let_(dtype, Expr::Unary(op, x))
    }

    /// An op of two operands.
    pub fn binary(&mut self, op: BinaryOp, a: Reg, b: Reg) -> Reg {
        let dtype = if op.is_comparison() { DType::Bool } else { self.reg_type(a) };
        self.let_(dtype, Expr::Binary(op, a, b))
    }

    /// `c ? a : b`
    pub fn select(&mut self, c: Reg, a: Reg, b: Reg) -> Reg {
        let dtype = self.reg_type(a);
        self.let_(dtype, Expr::Select(c, a, b))
    }

    /// `ok ? value : op(x)` of f32, where op(x) is computed for lanes that are not ok only.
    pub fn rescue(&mut self, ok: Reg, value: Reg, op: UnaryOp, x: Reg) -> Reg {
        self.let_(DType::F32, Expr::Rescue { ok, value, op, x })
    }

    /// Whether results may differ in the last digits.
    pub fn is_fast(&self) -> bool {
        self.kernel.fast
    }

    /// a b + c, rounded once.
    pub fn fma(&mut self, a: Reg, b: Reg, c: Reg) -> Reg {
        let dtype = self.reg_type(a);
        self.let_(dtype, Expr::Fma(a, b, c))
    }

    /// A conversion, unless it already has that type.
    pub fn cast(&mut self, value: Reg, to: DType, saturate: bool) -> Reg {
        if self.reg_type(value) == to {
            return value;
        }
        self.let_(to, Expr::Cast { value, to, saturate })
    }

    /// The same bits as another type.
    pub fn bitcast(&mut self, value: Reg, to: DType) -> Reg {
        if self.reg_type(value) == to {
            return value;
        }
        self.let_(to, Expr::Bitcast { value, to })
    }

    /// A loop over what `body` writes.
    pub fn for_(&mut self, extent: Dim, body: impl FnOnce(&mut Self, Dim)) {
        let var = self.var();
        self.open();
        body(self, var.clone().into());
        let body = self.close();
        self.push(Stmt::For { var, extent, body });
    }

    /// A reduction over what `body` writes; it returns (value, how) pairs, and this their results.
    pub fn reduce(&mut self, extent: Dim, body: impl FnOnce(&mut Self, Dim) -> Vec<(Reg, super::Combine)>) -> Vec<Reg> {
        let var = self.var();
        self.open();
        let values = body(self, var.clone().into());
        let body = self.close();
        let accs: Vec<Acc> = values
            .into_iter()
            .map(|(value, combine)| {
                let dtype = combine.result(self.reg_type(value));
                Acc { result: self.reg(dtype), value, combine }
            })
            .collect();
        let results = accs.iter().map(|a| a.result).collect();
        self.push(Stmt::Reduce { var, extent, body, accs });
        results
    }

    /// Adds a phase over what `body` writes.
    pub fn phase(&mut self, extent: Dim, body: impl FnOnce(&mut Self, Dim)) {
        let outer = self.var();
        self.open();
        body(self, outer.clone().into());
        let body = self.close();
        self.kernel.phases.push(Phase { outer, extent, body });
    }

    /// Adds a phase whose body is written.
    pub fn push_phase(&mut self, outer: Symbol, extent: Dim, body: Vec<Stmt>) {
        self.kernel.phases.push(Phase { outer, extent, body });
    }

    /// The module extent that a kernel dim stands for.
    pub fn dim_value(&self, symbol: &Symbol) -> Option<Dim> {
        self.kernel.dims.iter().find(|d| d.symbol == *symbol).map(|d| d.value.clone())
    }

    /// Element type of a buffer.
    pub fn buffer_type(&self, id: BufferId) -> DType {
        self.kernel.buffer(id).map_or(DType::F32, |b| b.dtype)
    }

    /// The phase added last.
    pub fn last_phase(&self) -> Option<&Phase> {
        self.kernel.phases.last()
    }

    /// The kernel.
    pub fn finish(self) -> Kernel {
        self.kernel
    }
}
