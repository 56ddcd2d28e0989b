//! What a kernel does, counted from its loop IR: instructions of every loop, elements touched of every buffer.
//!
//! In: a kernel whose functions are written out ([`crate::kernel::expand`]), its schedule and the extents of a run. Out:
//! [`Work`], which knows no machine and no width. Counting follows the code generator: a vector loop is a strip, where what
//! does not depend on its variable runs once before it; every other statement runs for one element at a time.

use std::collections::{HashMap, HashSet};

use frit_ir::{BinaryOp, DType, Dim, Symbol, UnaryOp};

use crate::kernel::{BufferId, Combine, Expr, Kernel, Reg, Role, Stmt};
use crate::schedule::Schedule;

/// Instructions, of all lanes at once in a strip, of one element elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Instructions {
    /// Floating-point operations of one element: a sum, product, quotient, root or extreme is one, an fma two.
    pub flops: f64,
    /// Products and fmas.
    pub products: f64,
    /// Sums and differences.
    pub sums: f64,
    /// Everything else between registers: comparisons, selects, bits, conversions.
    pub others: f64,
    /// Divisions.
    pub divisions: f64,
    /// Square roots.
    pub roots: f64,
    /// Loads of neighbours.
    pub loads: f64,
    /// Stores of neighbours.
    pub stores: f64,
    /// Functions that are called.
    pub calls: f64,
}

impl Instructions {
    fn add(&mut self, other: &Instructions, times: f64) {
        self.flops += other.flops * times;
        self.products += other.products * times;
        self.sums += other.sums * times;
        self.others += other.others * times;
        self.divisions += other.divisions * times;
        self.roots += other.roots * times;
        self.loads += other.loads * times;
        self.stores += other.stores * times;
        self.calls += other.calls * times;
    }
}

/// How an accumulator waits for its last value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Chain {
    /// A sum or product.
    Sum,
    /// A minimum or maximum, NaN checked.
    Extreme,
}

/// A vector loop.
#[derive(Clone, Debug, PartialEq)]
pub struct Strip {
    /// How often it is called in the phase.
    pub calls: f64,
    /// Its elements a call.
    pub extent: f64,
    /// Its body.
    pub body: Instructions,
    /// Values brought into all lanes before a call.
    pub parameters: f64,
    /// Its slowest accumulator.
    pub chain: Option<Chain>,
    /// Accesses that move element by element.
    pub apart: Vec<Apart>,
}

/// An access whose elements are no neighbours.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Apart {
    /// Bytes from one element to the next.
    pub distance: f64,
    /// Bytes of the buffer.
    pub whole: f64,
}

/// A phase of a kernel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PhaseWork {
    /// Iterations of its outer index.
    pub extent: f64,
    /// Fewest of them worth a thread.
    pub grain: u32,
    /// Its vector loops.
    pub strips: Vec<Strip>,
    /// What runs one element at a time, over the whole phase.
    pub scalar: Instructions,
    /// Rounds of loops that are no vectors.
    pub rounds: f64,
}

impl PhaseWork {
    /// Floating-point operations.
    pub fn flops(&self) -> f64 {
        self.scalar.flops + self.strips.iter().map(|s| s.body.flops * s.calls * s.extent).sum::<f64>()
    }
}

/// Elements of a buffer that a kernel touches, each counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Touched {
    /// Bytes read.
    pub read: f64,
    /// Bytes written.
    pub written: f64,
}

/// What one call of a kernel does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Work {
    /// In order.
    pub phases: Vec<PhaseWork>,
    /// Of each argument, in call order.
    pub arguments: Vec<Touched>,
}

impl Work {
    /// Floating-point operations.
    pub fn flops(&self) -> f64 {
        self.phases.iter().map(PhaseWork::flops).sum()
    }
}

/// Counts a kernel for extents of its dims; `None` when an extent has no value.
pub fn count(kernel: &Kernel, schedule: &Schedule, extents: &dyn Fn(&Symbol) -> Option<i64>) -> Option<Work> {
    let mut counter = Counter {
        kernel,
        schedule,
        extents,
        loops: HashMap::new(),
        phase: PhaseWork::default(),
        accesses: HashMap::new(),
    };
    let mut phases = Vec::with_capacity(kernel.phases.len());
    for phase in &kernel.phases {
        let extent = counter.extent(&phase.extent)?;
        counter.phase = PhaseWork { extent, grain: schedule.grain(&phase.outer).unwrap_or(1), ..PhaseWork::default() };
        counter.loops.insert(phase.outer.clone(), extent);
        counter.phase.rounds += extent;
        counter.body(&phase.body, extent)?;
        counter.loops.clear();
        phases.push(std::mem::take(&mut counter.phase));
    }
    let arguments = kernel.arguments().map(|(id, _)| counter.touched(id)).collect::<Option<_>>()?;
    Some(Work { phases, arguments })
}

struct Counter<'k> {
    kernel: &'k Kernel,
    schedule: &'k Schedule,
    extents: &'k dyn Fn(&Symbol) -> Option<i64>,
    /// Extents of the loops around.
    loops: HashMap<Symbol, f64>,
    phase: PhaseWork,
    /// For each buffer, whether it is written and the index: how many elements that can be.
    accesses: HashMap<(BufferId, bool), HashMap<Dim, f64>>,
}

impl Counter<'_> {
    /// An extent; what depends on a loop around has its value in the middle of it.
    fn extent(&self, dim: &Dim) -> Option<f64> {
        let middle = |s: &Symbol| match self.loops.get(s) {
            Some(extent) => Some((extent / 2.0) as i64),
            None => (self.extents)(s),
        };
        dim.eval(&middle).map(|v| v.max(0) as f64)
    }

    fn body(&mut self, stmts: &[Stmt], times: f64) -> Option<()> {
        for stmt in stmts {
            match stmt {
                Stmt::Let(reg, expr) => {
                    let one = self.instruction(*reg, expr);
                    self.access_of(expr);
                    self.phase.scalar.add(&one, times);
                }
                Stmt::Store { buffer, index, .. } => {
                    self.access(*buffer, index, true);
                    self.phase.scalar.stores += times;
                }
                Stmt::For { var, extent, body } => self.looped(var, extent, body, &[], times)?,
                Stmt::Reduce { var, extent, body, accs } => {
                    let combines: Vec<(Combine, Reg)> = accs.iter().map(|a| (a.combine, a.value)).collect();
                    self.looped(var, extent, body, &combines, times)?;
                }
                // Which way it goes is not known: the longer one, mostly.
                Stmt::If { then, otherwise, .. } => {
                    self.body(then, times)?;
                    self.body(otherwise, times * 0.5)?;
                }
                Stmt::Check { .. } => self.phase.scalar.others += times,
            }
        }
        Some(())
    }

    fn looped(&mut self, var: &Symbol, extent: &Dim, body: &[Stmt], accs: &[(Combine, Reg)], times: f64) -> Option<()> {
        let n = self.extent(extent)?;
        let outer = self.loops.insert(var.clone(), n);
        if self.schedule.lanes(var).is_some() {
            self.strip(var, n, body, accs, times);
        } else {
            if !self.schedule.unrolls(var) {
                self.phase.rounds += times * n;
            }
            for (combine, reg) in accs {
                let one = self.combined(*combine, *reg);
                self.phase.scalar.add(&one, times * n);
            }
            self.body(body, times * n)?;
        }
        match outer {
            Some(outer) => self.loops.insert(var.clone(), outer),
            None => self.loops.remove(var),
        };
        Some(())
    }

    /// A vector loop: what depends on its variable runs in lanes, the rest once before.
    fn strip(&mut self, var: &Symbol, extent: f64, stmts: &[Stmt], accs: &[(Combine, Reg)], calls: f64) {
        let (mut body, mut before) = (Instructions::default(), Instructions::default());
        let (mut varying, mut parameters) = (HashSet::new(), HashSet::new());
        let (mut constants, mut apart) = (HashSet::new(), Vec::new());
        for stmt in stmts {
            match stmt {
                Stmt::Let(reg, expr) => {
                    self.access_of(expr);
                    let operands = operands(expr);
                    let indexed = matches!(expr, Expr::Load { index, .. } | Expr::Index(index) if mentions(index, var));
                    if indexed || operands.iter().any(|r| varying.contains(r)) {
                        varying.insert(*reg);
                        parameters
                            .extend(operands.into_iter().filter(|r| !varying.contains(r) && !constants.contains(r)));
                        match expr {
                            Expr::Load { buffer, index } if !is_neighbour(index, var) => {
                                apart.push(self.apart(*buffer, index, var));
                            }
                            _ => body.add(&self.instruction(*reg, expr), 1.0),
                        }
                    } else {
                        if matches!(expr, Expr::Const(_)) {
                            constants.insert(*reg);
                        }
                        before.add(&self.instruction(*reg, expr), 1.0);
                    }
                }
                Stmt::Store { buffer, index, .. } => {
                    self.access(*buffer, index, true);
                    match is_neighbour(index, var) {
                        true => body.stores += 1.0,
                        false => apart.push(self.apart(*buffer, index, var)),
                    }
                }
                // No strip holds these.
                Stmt::For { .. } | Stmt::Reduce { .. } | Stmt::If { .. } | Stmt::Check { .. } => {}
            }
        }
        accs.iter().for_each(|(combine, reg)| body.add(&self.combined(*combine, *reg), 1.0));
        let chain = accs.iter().map(|(combine, _)| match combine {
            Combine::Sum | Combine::Dot(_) | Combine::Prod => Chain::Sum,
            Combine::Min | Combine::Max | Combine::ArgMin(_) | Combine::ArgMax(_) => Chain::Extreme,
        });
        self.phase.scalar.add(&before, calls);
        let parameters = parameters.len() as f64;
        self.phase.strips.push(Strip { calls, extent, body, parameters, chain: chain.max(), apart });
    }

    fn combined(&self, combine: Combine, reg: Reg) -> Instructions {
        let float = self.kernel.reg_type(reg).is_some_and(DType::is_float);
        let none = Instructions::default();
        match (combine, float) {
            (Combine::Sum, true) => Instructions { sums: 1.0, flops: 1.0, ..none },
            (Combine::Dot(_), true) => Instructions { products: 1.0, flops: 2.0, ..none },
            (Combine::Prod, true) => Instructions { products: 1.0, flops: 1.0, ..none },
            (Combine::Min | Combine::Max, true) => Instructions { others: EXTREME, flops: 1.0, ..none },
            (Combine::ArgMin(_) | Combine::ArgMax(_), true) => Instructions { others: 6.0, flops: 1.0, ..none },
            (_, false) => Instructions { others: 1.0, ..none },
        }
    }

    /// A distance that is not known is a line.
    fn apart(&self, buffer: BufferId, index: &Dim, var: &Symbol) -> Apart {
        let buffer = self.kernel.buffer(buffer);
        let size = buffer.map_or(1, |b| b.dtype.size()) as f64;
        Apart {
            distance: step(index, var).eval(self.extents).map_or(LINE, |n| n.unsigned_abs() as f64 * size),
            whole: buffer.and_then(|b| self.extent(&b.len)).unwrap_or(0.0) * size,
        }
    }

    /// One statement.
    fn instruction(&self, reg: Reg, expr: &Expr) -> Instructions {
        let float = self.kernel.reg_type(reg).is_some_and(DType::is_float);
        let none = Instructions::default();
        let other = Instructions { others: 1.0, ..none };
        match expr {
            Expr::Const(_) | Expr::Bitcast { .. } => none,
            Expr::Load { .. } => Instructions { loads: 1.0, ..none },
            Expr::Unary(UnaryOp::Sqrt, _) => Instructions { roots: 1.0, flops: 1.0, ..none },
            // What the machine has no instruction for was written out before, or is called.
            Expr::Unary(op, _) if op.is_elementary() => Instructions { calls: 1.0, flops: 1.0, ..none },
            Expr::Unary(..) | Expr::Index(_) | Expr::Select(..) | Expr::Cast { .. } => other,
            Expr::Fma(..) => Instructions { products: 1.0, flops: 2.0, ..none },
            Expr::Rescue { .. } => Instructions { others: 2.0, ..none },
            Expr::Binary(op, ..) => match (op, float) {
                (BinaryOp::Add | BinaryOp::Sub, true) => Instructions { sums: 1.0, flops: 1.0, ..none },
                (BinaryOp::Mul, true) => Instructions { products: 1.0, flops: 1.0, ..none },
                (BinaryOp::Div, true) => Instructions { divisions: 1.0, flops: 1.0, ..none },
                (BinaryOp::Min | BinaryOp::Max, true) => Instructions { others: EXTREME, flops: 1.0, ..none },
                (BinaryOp::Rem | BinaryOp::Pow | BinaryOp::Atan2, true) => {
                    Instructions { calls: 1.0, flops: 1.0, ..none }
                }
                (BinaryOp::Mul, false) => Instructions { products: 2.0, ..none },
                (BinaryOp::Div | BinaryOp::Rem, false) => Instructions { divisions: 2.0, ..none },
                _ => other,
            },
        }
    }

    fn access_of(&mut self, expr: &Expr) {
        if let Expr::Load { buffer, index } = expr {
            self.access(*buffer, index, false);
        }
    }

    /// An access reaches as many elements as the loops that its index names have iterations.
    fn access(&mut self, buffer: BufferId, index: &Dim, written: bool) {
        let mut reached = 1.0;
        let mut seen: Vec<Symbol> = Vec::new();
        index.visit_symbols(&mut |s| {
            if !seen.contains(s) {
                seen.push(s.clone());
                // A register is data: it may lead anywhere that the loops around let it.
                reached *= match self.loops.get(s) {
                    Some(extent) => *extent,
                    None if s.name().starts_with('r') => self.loops.values().product(),
                    None => 1.0,
                };
            }
        });
        self.accesses.entry((buffer, written)).or_default().insert(index.clone(), reached);
    }

    fn touched(&self, id: BufferId) -> Option<Touched> {
        let buffer = self.kernel.buffer(id).filter(|b| b.role != Role::Local)?;
        let whole = self.extent(&buffer.len)?;
        let bytes = |written: bool| {
            let reached: f64 = self.accesses.get(&(id, written)).map_or(0.0, |all| all.values().sum());
            reached.min(whole) * buffer.dtype.size() as f64
        };
        Some(Touched { read: bytes(false), written: bytes(true) })
    }
}

/// Bytes that memory moves together.
pub(super) const LINE: f64 = 64.0;

/// Instructions of a minimum or maximum that keeps NaN and the sign of zero.
const EXTREME: f64 = 4.0;

fn operands(expr: &Expr) -> Vec<Reg> {
    match expr {
        Expr::Const(_) | Expr::Load { .. } | Expr::Index(_) => Vec::new(),
        Expr::Unary(_, x) => vec![*x],
        Expr::Binary(_, a, b) => vec![*a, *b],
        Expr::Select(a, b, c) | Expr::Fma(a, b, c) => vec![*a, *b, *c],
        Expr::Rescue { ok, value, x, .. } => vec![*ok, *value, *x],
        Expr::Cast { value, .. } | Expr::Bitcast { value, .. } => vec![*value],
    }
}

fn mentions(index: &Dim, var: &Symbol) -> bool {
    let mut found = false;
    index.visit_symbols(&mut |s| found |= s == var);
    found
}

/// Elements from one lane's to the next's.
fn step(index: &Dim, var: &Symbol) -> Dim {
    index - &index.substitute(&|s| (s == var).then(|| &Dim::from(s.clone()) - &Dim::ONE))
}

/// Whether the element of the next lane is the next one, or the same.
fn is_neighbour(index: &Dim, var: &Symbol) -> bool {
    matches!(step(index, var), Dim::Known(0 | 1))
}
