//! Which loops are strips: from a loop body to a [`Strip`] and what its call needs.
//!
//! In: a straight-line body and the registers that are known outside. Registers that do not depend on the loop variable
//! are computed once before the call and become parameters; accesses at `a * var + b` become streams. A body whose
//! iterations could meet in memory (a store that another iteration reads or overwrites) is refused, as is everything
//! that lanes of 32 bits can't hold; the reason goes to the report.

use std::collections::HashMap;

use frit_ir::types::dim::Atom;
use frit_ir::{DType, Dim, Symbol};

use super::{Op, Stream, Strip, StripAcc, TypedOp, Val, fits_lane};
use crate::cpu::function::register;
use crate::kernel::{Acc, BufferId, Combine, Expr, Kernel, Reg, Scalar, Stmt};

/// Why a loop is no strip.
pub(super) type Reason = String;

/// A stream as the loop writes it: elements `step * var + start` of a buffer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Walk {
    pub(super) buffer: BufferId,
    pub(super) start: Dim,
    pub(super) step: Dim,
}

/// A strip and where its operands come from.
#[derive(Debug, Default)]
pub(super) struct Outlined<'k> {
    pub(super) strip: Strip,
    /// Of each stream.
    pub(super) walks: Vec<Walk>,
    /// Of each parameter: a register outside, or one of `hoisted`.
    pub(super) params: Vec<Reg>,
    /// Statements to run once before the call.
    pub(super) hoisted: Vec<&'k Stmt>,
}

/// Outlines a loop; `constant`: what registers that are known outside always are.
pub(super) fn outline<'k>(
    kernel: &'k Kernel,
    var: &Symbol,
    extent: &Dim,
    body: &'k [Stmt],
    accs: &[Acc],
    constant: &dyn Fn(Reg) -> Option<Scalar>,
) -> Result<Outlined<'k>, Reason> {
    let (values, stored) = (HashMap::new(), Vec::new());
    let mut outliner = Outliner { kernel, var, constant, out: Outlined::default(), values, stored };
    for stmt in body {
        if let Stmt::Store { buffer, .. } = stmt {
            outliner.stored.push(*buffer);
        }
    }
    for stmt in body {
        outliner.stmt(stmt)?;
    }
    for acc in accs {
        outliner.acc(acc)?;
    }
    outliner.check_stores(most(extent))?;
    Ok(outliner.out)
}

struct Outliner<'k, 'v> {
    kernel: &'k Kernel,
    var: &'v Symbol,
    /// Of registers outside.
    constant: &'v dyn Fn(Reg) -> Option<Scalar>,
    out: Outlined<'k>,
    /// Registers that lanes compute, and parameters and constants once they are used.
    values: HashMap<Reg, Where>,
    stored: Vec<BufferId>,
}

/// What a register of the body is.
#[derive(Clone, Copy, PartialEq)]
enum Where {
    /// Different in each lane (or already brought into the strip): this op.
    Lane(Val),
    /// The same in all: computed before the call.
    Before,
}

impl<'k> Outliner<'k, '_> {
    fn stmt(&mut self, stmt: &'k Stmt) -> Result<(), Reason> {
        match stmt {
            Stmt::Let(reg, expr) => self.define(stmt, *reg, expr),
            Stmt::Store { buffer, index, value } => {
                let dtype = self.dtype(*value)?;
                let walk = self.walk(*buffer, index)?.ok_or("every iteration stores to one element")?;
                if walk.step.known().is_none() {
                    return Err(format!("it stores at a distance that only running code knows ({})", walk.step));
                }
                let stream = self.stream(walk, false)?;
                if self.stream_type(stream) != Some(dtype) {
                    return Err(format!("{value} does not fit the buffer it is stored to"));
                }
                let value = self.operand(*value)?;
                self.push(Op::Store(stream, value), dtype);
                Ok(())
            }
            Stmt::For { .. } | Stmt::Reduce { .. } => Err("its body holds a loop".to_owned()),
            Stmt::If { .. } => Err("its body branches".to_owned()),
            Stmt::Check { .. } => Err("its body checks values".to_owned()),
        }
    }

    fn define(&mut self, stmt: &'k Stmt, reg: Reg, expr: &Expr) -> Result<(), Reason> {
        let dtype = self.dtype(reg)?;
        let operands: Vec<Reg> = match expr {
            Expr::Const(_) => Vec::new(),
            Expr::Index(dim) => {
                if self.varies(dim) {
                    return Err("it computes with an index (64-bit lanes)".to_owned());
                }
                Vec::new()
            }
            Expr::Load { buffer, index } => match self.walk(*buffer, index)? {
                Some(walk) => {
                    let stream = self.stream(walk, true)?;
                    if self.stream_type(stream) != Some(dtype) {
                        return Err(format!("{reg} does not fit the buffer it is loaded from"));
                    }
                    return self.lane(reg, Op::Load(stream), dtype);
                }
                None if self.stored.contains(buffer) => return Err("it reads one element of what it writes".to_owned()),
                None => Vec::new(),
            },
            Expr::Unary(_, x) => vec![*x],
            Expr::Binary(_, a, b) => vec![*a, *b],
            Expr::Select(a, b, c) | Expr::Fma(a, b, c) => vec![*a, *b, *c],
            Expr::Rescue { ok, value, x, .. } => vec![*ok, *value, *x],
            Expr::Cast { value, .. } | Expr::Bitcast { value, .. } => vec![*value],
        };
        if operands.iter().all(|r| !self.is_lane(*r)) {
            self.out.hoisted.push(stmt);
            self.values.insert(reg, Where::Before);
            return Ok(());
        }
        let vals = operands.iter().map(|r| self.operand(*r)).collect::<Result<Vec<_>, _>>()?;
        let types = operands.iter().map(|r| self.dtype(*r)).collect::<Result<Vec<_>, _>>()?;
        let op = match (expr, vals.as_slice()) {
            (Expr::Unary(op, _), [x]) => Op::Unary(*op, *x),
            (Expr::Binary(op, ..), [a, b]) => Op::Binary(*op, *a, *b),
            (Expr::Select(..), [c, a, b]) => Op::Select(*c, *a, *b),
            (Expr::Fma(..), [a, b, c]) => Op::Fma(*a, *b, *c),
            (Expr::Cast { saturate, .. }, [x]) => Op::Cast { value: *x, saturate: *saturate },
            (Expr::Bitcast { .. }, [x]) => Op::Bitcast(*x),
            (Expr::Rescue { op, .. }, [ok, value, x]) => Op::Rescue { ok: *ok, value: *value, op: *op, x: *x },
            _ => return Err(format!("operands of {reg} do not fit")),
        };
        let result = match (expr, types.as_slice()) {
            (Expr::Unary(..), [x]) => Some(*x),
            (Expr::Binary(op, ..), [a, b]) if a == b => Some(if op.is_comparison() { DType::Bool } else { *a }),
            (Expr::Select(..), [DType::Bool, a, b]) if a == b => Some(*a),
            (Expr::Fma(..), [a, b, c]) if a == b && b == c => Some(*a),
            (Expr::Rescue { .. }, [DType::Bool, DType::F32, DType::F32]) => Some(DType::F32),
            (Expr::Cast { to, .. } | Expr::Bitcast { to, .. }, _) => Some(*to),
            _ => None,
        };
        if result != Some(dtype) {
            return Err(format!("the types of {reg} and its operands do not fit"));
        }
        self.lane(reg, op, dtype)
    }

    fn acc(&mut self, acc: &Acc) -> Result<(), Reason> {
        if matches!(acc.combine, Combine::ArgMin(_) | Combine::ArgMax(_)) {
            return Err("it looks for an index (64-bit lanes)".to_owned());
        }
        let dtype = self.dtype(acc.value)?;
        if !matches!(dtype, DType::F32 | DType::I32 | DType::U32) {
            return Err(format!("it reduces {dtype}"));
        }
        let value = self.operand(acc.value)?;
        let factor = match acc.combine {
            Combine::Dot(_) if dtype != DType::F32 => return Err(format!("it sums products of {dtype}")),
            Combine::Dot(factor) => Some(self.operand(factor)?),
            _ => None,
        };
        self.out.strip.accs.push(StripAcc { combine: acc.combine.of_values(), value, factor });
        Ok(())
    }

    fn dtype(&self, reg: Reg) -> Result<DType, Reason> {
        self.kernel.reg_type(reg).ok_or_else(|| format!("{reg} has no type"))
    }

    fn is_lane(&self, reg: Reg) -> bool {
        // Parameters are in the strip too, but what only uses those needs no lane.
        matches!(self.values.get(&reg), Some(Where::Lane(val)) if !self.is_uniform(*val))
    }

    fn is_uniform(&self, val: Val) -> bool {
        matches!(self.out.strip.ops.get(val as usize), Some(TypedOp { op: Op::Const(_) | Op::Param(_), .. }))
    }

    fn push(&mut self, op: Op, dtype: DType) -> Val {
        self.out.strip.ops.push(TypedOp { op, dtype });
        self.out.strip.ops.len() as Val - 1
    }

    fn lane(&mut self, reg: Reg, op: Op, dtype: DType) -> Result<(), Reason> {
        if !fits_lane(dtype) {
            return Err(format!("it computes with {dtype} (lanes have 32 bits)"));
        }
        let val = self.push(op, dtype);
        self.values.insert(reg, Where::Lane(val));
        Ok(())
    }

    /// A register as an operand of the strip: uniform ones enter as constants or parameters.
    fn operand(&mut self, reg: Reg) -> Result<Val, Reason> {
        if let Some(Where::Lane(val)) = self.values.get(&reg) {
            return Ok(*val);
        }
        let dtype = self.dtype(reg)?;
        if !fits_lane(dtype) {
            return Err(format!("it computes with {dtype} (lanes have 32 bits)"));
        }
        let constant = self.out.hoisted.iter().find_map(|s| match s {
            Stmt::Let(r, Expr::Const(value)) if *r == reg => Some(*value),
            _ => None,
        });
        let op = match constant.or_else(|| (self.constant)(reg)) {
            Some(value) => Op::Const(value),
            None => {
                self.out.params.push(reg);
                self.out.strip.params.push(dtype);
                Op::Param(self.out.params.len() as u32 - 1)
            }
        };
        let val = self.push(op, dtype);
        self.values.insert(reg, Where::Lane(val));
        Ok(val)
    }

    /// Whether an expression differs between lanes.
    fn varies(&self, dim: &Dim) -> bool {
        let mut found = false;
        dim.visit_symbols(&mut |s| found |= s == self.var || register(s).is_some_and(|r| self.is_lane(r)));
        found
    }

    /// Start and step of an access that differs between lanes; `None`: the same element in all.
    fn walk(&self, buffer: BufferId, index: &Dim) -> Result<Option<Walk>, Reason> {
        if !self.varies(index) {
            return Ok(None);
        }
        let no = || format!("its index {index} is not a multiple of {} and a rest", self.var);
        let (mut start, mut step) = (Dim::ZERO, Dim::ZERO);
        for (atoms, coefficient) in index.terms() {
            let linear = atoms.iter().position(|a| matches!(a, Atom::Sym(s) if s == self.var));
            let mut product = Dim::Known(coefficient);
            for (i, atom) in atoms.iter().enumerate() {
                if Some(i) == linear {
                    continue;
                }
                let factor = match atom {
                    Atom::Sym(s) => Dim::from(s.clone()),
                    Atom::FloorDiv(a, b) => a.floordiv(b),
                    Atom::Mod(a, b) => a.modulo(b),
                    Atom::Min(a, b) => a.minimum(b),
                    Atom::Max(a, b) => a.maximum(b),
                };
                if self.varies(&factor) {
                    return Err(no());
                }
                product = &product * &factor;
            }
            let sum = if linear.is_some() { &mut step } else { &mut start };
            *sum = &*sum + &product;
        }
        Ok((step != Dim::ZERO).then_some(Walk { buffer, start, step }))
    }

    fn stream_type(&self, stream: u32) -> Option<DType> {
        self.out.strip.streams.get(stream as usize).map(|s| s.dtype)
    }

    fn stream(&mut self, walk: Walk, load: bool) -> Result<u32, Reason> {
        let buffer = self.kernel.buffer(walk.buffer).ok_or("it uses a buffer that does not exist")?;
        if !fits_lane(buffer.dtype) {
            return Err(format!("it moves {} (lanes have 32 bits)", buffer.dtype));
        }
        let position = self.out.walks.iter().position(|w| *w == walk);
        let at = match position {
            Some(at) => at,
            None => {
                let size = buffer.dtype.size() as i64;
                let gap = walk.step.known().and_then(|n| n.checked_mul(size)).and_then(|n| i32::try_from(n).ok());
                let stream = Stream { dtype: buffer.dtype, gap, loaded: false, stored: false };
                self.out.strip.streams.push(stream);
                self.out.walks.push(walk);
                self.out.walks.len() - 1
            }
        };
        if let Some(stream) = self.out.strip.streams.get_mut(at) {
            stream.loaded |= load;
            stream.stored |= !load;
        }
        Ok(at as u32)
    }

    /// No iteration reads or overwrites what another one writes; `most` is how many there are at most, if that is known.
    fn check_stores(&self, most: Option<i64>) -> Result<(), Reason> {
        for (i, (a, written)) in self.out.walks.iter().zip(&self.out.strip.streams).enumerate() {
            if !written.stored {
                continue;
            }
            for (j, b) in self.out.walks.iter().enumerate() {
                if i == j || a.buffer != b.buffer {
                    continue;
                }
                // With equal steps, starts that are no whole number of steps apart never meet, nor those of which one
                // lies behind all steps from the other.
                let apart = match (&a.step, (&a.start - &b.start).known()) {
                    (Dim::Known(step), Some(distance)) if a.step == b.step => {
                        let length = most.and_then(|n| n.checked_mul(step.checked_abs()?));
                        distance.checked_rem(*step) != Some(0)
                            || length.is_some_and(|n| distance.checked_abs().is_some_and(|d| d >= n))
                    }
                    _ => false,
                };
                if !apart {
                    return Err("its iterations meet in memory".to_owned());
                }
            }
        }
        Ok(())
    }
}

/// The largest value of an extent, where one is known.
fn most(extent: &Dim) -> Option<i64> {
    let terms = extent.terms();
    match (extent.known(), terms.iter().next()) {
        (Some(n), _) => Some(n),
        (None, Some((atoms, 1))) if terms.len() == 1 => match atoms.as_slice() {
            [Atom::Min(a, b)] => [most(a), most(b)].into_iter().flatten().min(),
            _ => None,
        },
        (None, _) => None,
    }
}
