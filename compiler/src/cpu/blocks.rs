//! Short rows side by side: a loop over the rows of a block around each part of a row's work.
//!
//! ```text
//!  row: largest -> exponentials, their sum -> quotients
//!  4 rows: largest of each -> exponentials, sum of each -> quotients of each
//! ```
//!
//! What a row computes from the result of its reduction has to wait for it: the last vector, the lanes combined, a
//! root, a quotient. A short row is over by then, and the next one is too far away in the code for the machine to begin
//! it. Side by side it does: a part of the next row depends on nothing of this one. Loop distribution is always allowed
//! here, since the iterations of a phase do not see each other. Long rows have enough to do by themselves, and would
//! push each other out of the cache.
//!
//! In: a kernel and a schedule that says which phases run in blocks. Out: the same kernel, where those take a block an
//! iteration, from the outer index on, of rows before [`END`]. Values that a later part of a row needs, and local buffers
//! that more than one part uses, exist once for each row of a block.

use std::collections::{HashMap, HashSet};

use frit_ir::{Dim, Symbol};

use crate::kernel::rewrite::{Rewrite, register, visit_acc, visit_regs};
use crate::kernel::{Buffer, BufferId, Expr, Kernel, Phase, Reg, Role, Stmt};
use crate::schedule::Schedule;

/// What stands for the end of the rows that a call of a phase has to run.
pub(super) const END: &str = "end";

/// Rows of a block, the most that fit.
const ROWS: [u32; 2] = [4, 2];
/// Bytes that the rows of a block may take, so that all parts find them in the first level of the cache.
const ROOM: i64 = 28 << 10;

/// How many rows are worth a block, where one is.
pub(crate) fn worth(kernel: &Kernel, phase: &Phase) -> Option<u32> {
    let parts = Parts::of(kernel, phase);
    let mut row: HashMap<BufferId, i64> = HashMap::new();
    for stmt in &phase.body {
        row.extend(Uses::of([stmt]).bytes(kernel)?);
    }
    let bytes = row.values().fold(0, |all: i64, bytes| all.saturating_add(*bytes));
    let enough = |rows: u32| phase.extent.known().is_none_or(|n| n >= i64::from(rows));
    let rows = ROWS.into_iter().find(|rows| enough(*rows) && bytes.saturating_mul(i64::from(*rows)) <= ROOM)?;
    // Nothing waits for what is only stored.
    let loops =
        |part: &Vec<Stmt>| part.iter().any(|s| matches!(s, Stmt::For { .. } | Stmt::Reduce { .. } | Stmt::If { .. }));
    (parts.parts.iter().filter(|part| loops(part)).count() > 1).then_some(rows)
}

/// The kernel with the phases that the schedule wants in blocks, and how many rows an iteration of each phase takes;
/// `None` where none is.
pub(super) fn in_blocks(kernel: &Kernel, schedule: &Schedule) -> Option<(Kernel, Vec<i64>)> {
    let rows: Vec<i64> = kernel.phases.iter().map(|p| schedule.block(&p.outer).map_or(1, i64::from).max(1)).collect();
    if rows.iter().all(|rows| *rows == 1) {
        return None;
    }
    let mut changed = kernel.clone();
    for (i, rows) in rows.iter().enumerate().filter(|(_, rows)| **rows > 1) {
        let Some(phase) = changed.phases.get(i).cloned() else { continue };
        let parts = Parts::of(&changed, &phase);
        let body = Distribution::new(&changed, &phase, &parts, *rows).write(&mut changed, parts);
        if let Some(phase) = changed.phases.get_mut(i) {
            phase.body = body;
        }
    }
    Some((changed, rows))
}

/// The work of a row, cut up.
struct Parts {
    /// Definitions that are the same for all rows.
    common: Vec<Stmt>,
    /// Each waits for results of the one before.
    parts: Vec<Vec<Stmt>>,
}

impl Parts {
    fn of(kernel: &Kernel, phase: &Phase) -> Self {
        let mut common = Vec::new();
        let mut same: HashSet<Reg> = HashSet::new();
        let mut parts: Vec<Vec<Stmt>> = vec![Vec::new()];
        // In which part, at the earliest, what was computed or stored is of use.
        let mut ready: HashMap<Reg, usize> = HashMap::new();
        let mut stored: HashMap<BufferId, usize> = HashMap::new();
        for stmt in &phase.body {
            let uses = Uses::of([stmt]);
            if let Stmt::Let(reg, _) = stmt {
                let input = |b: &BufferId| kernel.buffer(*b).is_some_and(|b| b.role == Role::Input);
                let own = uses.symbols.contains(&phase.outer);
                if !own && uses.regs.is_subset(&same) && uses.loaded.iter().all(input) {
                    same.insert(*reg);
                    common.push(stmt.clone());
                    continue;
                }
            }
            let of_regs = uses.regs.iter().filter_map(|r| ready.get(r));
            let of_memory = uses.loaded.iter().filter_map(|b| stored.get(b));
            let needed = of_regs.chain(of_memory).copied().max().unwrap_or(0);
            while parts.len() <= needed {
                parts.push(Vec::new());
            }
            // Results of a reduction come late; what a loop stores is there at once.
            let late = if uses.reduces { parts.len() } else { needed };
            match stmt {
                Stmt::Let(reg, _) => {
                    ready.insert(*reg, needed);
                }
                Stmt::Reduce { accs, .. } => ready.extend(accs.iter().map(|acc| (acc.result, late))),
                Stmt::For { .. } | Stmt::If { .. } | Stmt::Store { .. } | Stmt::Check { .. } => {}
            }
            let available = if matches!(stmt, Stmt::If { .. }) { late } else { needed };
            for buffer in uses.stored {
                let at = stored.entry(buffer).or_default();
                *at = available.max(*at);
            }
            if let Some(part) = parts.last_mut() {
                part.push(stmt.clone());
            }
        }
        Parts { common, parts }
    }
}

/// What a statement touches, with all that is in it.
#[derive(Default)]
struct Uses {
    regs: HashSet<Reg>,
    symbols: HashSet<Symbol>,
    loaded: HashSet<BufferId>,
    stored: HashSet<BufferId>,
    reduces: bool,
    /// Most iterations of a loop.
    longest: i64,
}

impl Uses {
    fn of<'s>(stmts: impl IntoIterator<Item = &'s Stmt>) -> Self {
        let mut uses = Uses::default();
        stmts.into_iter().for_each(|s| uses.stmt(s));
        uses
    }

    fn stmt(&mut self, stmt: &Stmt) {
        match stmt {
            Stmt::Let(_, expr) => {
                visit_regs(expr, &mut |r| {
                    self.regs.insert(r);
                });
                if let Expr::Load { index, .. } | Expr::Index(index) = expr {
                    self.dim(index);
                }
                if let Expr::Load { buffer, .. } = expr {
                    self.loaded.insert(*buffer);
                }
            }
            Stmt::Store { buffer, index, value } => {
                self.dim(index);
                self.regs.insert(*value);
                self.stored.insert(*buffer);
            }
            Stmt::For { extent, body, .. } => self.looped(extent, body),
            Stmt::Reduce { extent, body, accs, .. } => {
                self.looped(extent, body);
                accs.iter().for_each(|acc| {
                    visit_acc(acc, &mut |r| {
                        self.regs.insert(r);
                    })
                });
                self.reduces = true;
            }
            Stmt::If { condition, then, otherwise } => {
                self.regs.insert(*condition);
                then.iter().chain(otherwise).for_each(|s| self.stmt(s));
            }
            Stmt::Check { ok, .. } => {
                self.regs.insert(*ok);
            }
        }
    }

    /// What it reads and writes for a row, by buffer; `None` where that is not known.
    fn bytes(&self, kernel: &Kernel) -> Option<Vec<(BufferId, i64)>> {
        let touched = self.loaded.iter().chain(&self.stored);
        let bytes = |b: &BufferId| {
            let buffer = kernel.buffer(*b)?;
            let elements = buffer.len.known().map_or(self.longest, |len| len.min(self.longest));
            Some((*b, elements.checked_mul(buffer.dtype.size() as i64)?))
        };
        touched.map(bytes).collect()
    }

    fn looped(&mut self, extent: &Dim, body: &[Stmt]) {
        self.dim(extent);
        self.longest = self.longest.max(extent.known().unwrap_or(i64::MAX));
        body.iter().for_each(|s| self.stmt(s));
    }

    fn dim(&mut self, dim: &Dim) {
        dim.visit_symbols(&mut |s| match register(s) {
            Some(reg) => {
                self.regs.insert(reg);
            }
            None => {
                self.symbols.insert(s.clone());
            }
        });
    }
}

/// Local buffers that more than one part uses.
fn shared_locals(kernel: &Kernel, parts: &[Vec<Stmt>]) -> HashSet<BufferId> {
    let mut first: HashMap<BufferId, usize> = HashMap::new();
    let mut shared = HashSet::new();
    for (i, part) in parts.iter().enumerate() {
        let uses = Uses::of(part);
        for buffer in uses.loaded.into_iter().chain(uses.stored) {
            let local = kernel.buffer(buffer).is_some_and(|b| b.role == Role::Local);
            if local && *first.entry(buffer).or_insert(i) != i {
                shared.insert(buffer);
            }
        }
    }
    shared
}

/// A phase that becomes one over blocks of rows.
struct Distribution {
    outer: Symbol,
    /// Rows of a block.
    block: Dim,
    /// Elements of the local buffers that exist once a row.
    locals: HashMap<BufferId, Dim>,
    /// Registers that live on behind their part: that, and the last part that uses them.
    living: Vec<(Reg, usize, usize)>,
    /// Where they lie.
    kept: HashMap<Reg, BufferId>,
    /// The number of the next variable.
    next: usize,
}

impl Distribution {
    fn new(kernel: &Kernel, phase: &Phase, parts: &Parts, rows: i64) -> Self {
        let mut life: HashMap<Reg, (usize, usize)> = HashMap::new();
        for (i, part) in parts.parts.iter().enumerate() {
            for stmt in part {
                match stmt {
                    Stmt::Let(reg, _) => {
                        life.insert(*reg, (i, i));
                    }
                    Stmt::Reduce { accs, .. } => life.extend(accs.iter().map(|acc| (acc.result, (i, i)))),
                    Stmt::For { .. } | Stmt::If { .. } | Stmt::Store { .. } | Stmt::Check { .. } => {}
                }
            }
            for reg in Uses::of(part).regs {
                if let Some((_, last)) = life.get_mut(&reg) {
                    *last = i;
                }
            }
        }
        let lives = |(reg, (from, to)): (Reg, (usize, usize))| (from < to).then_some((reg, from, to));
        let mut living: Vec<(Reg, usize, usize)> = life.into_iter().filter_map(lives).collect();
        living.sort_unstable();
        let len = |b: BufferId| kernel.buffer(b).map(|buffer| (b, buffer.len.clone()));
        let locals = shared_locals(kernel, &parts.parts).into_iter().filter_map(len).collect();
        let next = kernel.phases.iter().map(|p| after(&p.outer).max(next_var(&p.body))).max().unwrap_or(0);
        let (outer, block) = (phase.outer.clone(), Dim::Known(rows));
        Distribution { outer, block, locals, living, kept: HashMap::new(), next }
    }

    fn write(mut self, kernel: &mut Kernel, parts: Parts) -> Vec<Stmt> {
        for (buffer, len) in &self.locals {
            if let Some(buffer) = kernel.buffers.get_mut(buffer.0 as usize) {
                buffer.len = len * &self.block;
            }
        }
        let left = &Dim::symbol(END) - &Dim::from(self.outer.clone());
        let extent = self.block.minimum(&left);
        let mut body = parts.common;
        for (i, part) in parts.parts.into_iter().enumerate() {
            let var = Symbol::new(&format!("i{}", self.next));
            self.next += 1;
            let row = Dim::from(var.clone());
            let mut stmts = Vec::with_capacity(part.len() + self.living.len());
            let mut renamed: HashMap<Reg, Reg> = HashMap::new();
            for &(reg, from, to) in &self.living {
                if !(from < i && i <= to) {
                    continue;
                }
                let (Some(dtype), Some(buffer)) = (kernel.reg_type(reg), self.kept.get(&reg)) else { continue };
                kernel.regs.push(dtype);
                let copy = Reg(kernel.regs.len() as u32 - 1);
                renamed.insert(reg, copy);
                stmts.push(Stmt::Let(copy, Expr::Load { buffer: *buffer, index: row.clone() }));
            }
            let place = &Dim::from(self.outer.clone()) + &row;
            let mut rewrite = InRow { outer: &self.outer, place, row: &row, locals: &self.locals, renamed: &renamed };
            stmts.extend(rewrite.body(part));
            for &(reg, from, _) in &self.living {
                if from != i {
                    continue;
                }
                let Some(dtype) = kernel.reg_type(reg) else { continue };
                let (name, len, role) = ("row".to_owned(), self.block.clone(), Role::Local);
                kernel.buffers.push(Buffer { name, dtype, len, role });
                let buffer = BufferId(kernel.buffers.len() as u32 - 1);
                self.kept.insert(reg, buffer);
                stmts.push(Stmt::Store { buffer, index: row.clone(), value: reg });
            }
            body.push(Stmt::For { var, extent: extent.clone(), body: stmts });
        }
        body
    }
}

/// The statements of a row as they stand in the loop over the rows of a block.
struct InRow<'d> {
    outer: &'d Symbol,
    /// The row's number.
    place: Dim,
    /// Which of its block it is.
    row: &'d Dim,
    locals: &'d HashMap<BufferId, Dim>,
    renamed: &'d HashMap<Reg, Reg>,
}

impl Rewrite for InRow<'_> {
    fn reg(&mut self, reg: Reg) -> Reg {
        self.renamed.get(&reg).copied().unwrap_or(reg)
    }

    fn dim(&mut self, buffer: Option<BufferId>, dim: &Dim) -> Dim {
        let dim = dim.substitute(&|s| {
            if s == self.outer {
                return Some(self.place.clone());
            }
            register(s).and_then(|r| self.renamed.get(&r)).map(|r| r.symbol().into())
        });
        match buffer.and_then(|b| self.locals.get(&b)) {
            Some(len) => &dim + &(self.row * len),
            None => dim,
        }
    }
}

/// The number behind a variable's.
fn after(var: &Symbol) -> usize {
    var.name().strip_prefix('i').and_then(|n| n.parse::<usize>().ok()).map_or(0, |n| n + 1)
}

/// The number behind those of all variables of a body.
fn next_var(stmts: &[Stmt]) -> usize {
    let inside = |stmt: &Stmt| match stmt {
        Stmt::For { var, body, .. } | Stmt::Reduce { var, body, .. } => after(var).max(next_var(body)),
        Stmt::If { then, otherwise, .. } => next_var(then).max(next_var(otherwise)),
        Stmt::Let(..) | Stmt::Store { .. } | Stmt::Check { .. } => 0,
    };
    stmts.iter().map(inside).max().unwrap_or(0)
}
