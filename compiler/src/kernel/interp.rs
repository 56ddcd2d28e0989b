//! The checking interpreter: what a kernel computes, value by value.
//!
//! It defines what machine code must give, bit for bit (NaN payloads aside), for kernels before and after
//! [`super::expand`]. It checks on values what no verifier can: every index is inside its buffer, nothing is read
//! before it is written, no element is written by one iteration of a phase's outer index and touched by another (K5).

use std::collections::{BTreeSet, HashMap};

use frit_ir::order::LANES;
use frit_ir::{BinaryOp, DType, Dim, Symbol};

use super::{Acc, BufferId, Combine, Expr, Kernel, Reg, Role, Scalar, Stmt, maths, primitive};

/// Elements of one type, little-endian, as a caller passes them.
#[derive(Clone, Debug, PartialEq)]
pub struct Memory {
    /// Element type.
    pub dtype: DType,
    /// [`DType::size`] bytes an element.
    pub bytes: Vec<u8>,
}

impl Memory {
    /// `len` zeros.
    pub fn zeros(dtype: DType, len: usize) -> Self {
        Memory { dtype, bytes: vec![0; len.saturating_mul(dtype.size())] }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.dtype.size().max(1)
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An element; `None` outside.
    pub fn get(&self, index: usize) -> Option<Scalar> {
        let size = self.dtype.size();
        let bytes = self.bytes.get(index.checked_mul(size)?..index.checked_add(1)?.checked_mul(size)?)?;
        let bits = bytes.iter().rev().fold(0u64, |bits, b| bits << 8 | u64::from(*b));
        Some(Scalar { dtype: self.dtype, bits })
    }

    /// Writes an element; nothing outside.
    pub fn set(&mut self, index: usize, value: Scalar) {
        let size = self.dtype.size();
        for (slot, byte) in
            self.bytes.iter_mut().skip(index.saturating_mul(size)).take(size).zip(value.bits.to_le_bytes())
        {
            *slot = byte;
        }
    }

    /// Equal elements, any NaN equal to any other.
    pub fn same(&self, other: &Memory) -> bool {
        self.dtype == other.dtype
            && self.bytes.len() == other.bytes.len()
            && (0..self.len()).all(|i| match (self.get(i), other.get(i)) {
                (Some(a), Some(b)) => a.same(b),
                (a, b) => a == b,
            })
    }
}

/// What a kernel must not do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// An index outside its buffer.
    #[error("{buffer}[{index}] is outside its {len} elements")]
    Bounds {
        /// The buffer's name.
        buffer: String,
        /// The index.
        index: i64,
        /// Its elements.
        len: usize,
    },
    /// A read of what was never written.
    #[error("{buffer}[{index}] is read before it is written")]
    Uninitialised {
        /// The buffer's name.
        buffer: String,
        /// The index.
        index: usize,
    },
    /// K5.
    #[error("K5: {buffer}[{index}] is touched by iterations {first} and {second} of {outer}, and written by one")]
    Race {
        /// The buffer's name.
        buffer: String,
        /// The index.
        index: usize,
        /// The outer index.
        outer: String,
        /// One iteration; -2: several.
        first: i64,
        /// Another.
        second: i64,
    },
    /// A register without a value or of the wrong type.
    #[error("{0} has no value here")]
    Register(Reg),
    /// A value of another type than its register or buffer.
    #[error("{found} given to {what}, which is {expected}")]
    Type {
        /// The register or buffer.
        what: String,
        /// Its type.
        expected: DType,
        /// The value's.
        found: DType,
    },
    /// An operation that its operands' types do not have.
    #[error("`{0}` is not defined for its operands")]
    Undefined(String),
    /// An extent or index that can't be computed.
    #[error("{0} has no value: a symbol is not bound, a divisor is 0 or i64 overflows")]
    Dim(String),
    /// The arguments are not those of the kernel.
    #[error("the kernel takes {0}")]
    Arguments(String),
}

/// No iteration; several iterations.
const NONE: i64 = -1;
const SEVERAL: i64 = -2;

/// A buffer while a kernel runs.
struct Space {
    name: String,
    role: Role,
    memory: Memory,
    written: Vec<bool>,
    /// Iteration of this phase that wrote each element, and those that read it.
    writer: Vec<i64>,
    reader: Vec<i64>,
}

struct Interpreter<'k> {
    kernel: &'k Kernel,
    spaces: Vec<Space>,
    symbols: HashMap<Symbol, i64>,
    regs: Vec<Option<Scalar>>,
    outer: String,
    iteration: i64,
    failed: BTreeSet<u32>,
}

/// Runs a kernel on its arguments (inputs and outputs, in order) with a value for each of its dims. Returns the codes
/// of the checks that failed, ascending.
pub fn run(kernel: &Kernel, dims: &[i64], arguments: &mut [Memory]) -> Result<Vec<u32>, Fault> {
    if dims.len() != kernel.dims.len() {
        return Err(Fault::Arguments(format!("{} dims, not {}", kernel.dims.len(), dims.len())));
    }
    let symbols = kernel.dims.iter().zip(dims).map(|(d, v)| (d.symbol.clone(), *v)).collect();
    let mut machine = Interpreter {
        kernel,
        spaces: Vec::new(),
        symbols,
        regs: vec![None; kernel.regs.len()],
        outer: String::new(),
        iteration: 0,
        failed: BTreeSet::new(),
    };
    let mut given = arguments.iter();
    for buffer in &kernel.buffers {
        let len = usize::try_from(machine.dim(&buffer.len)?).map_err(|_| Fault::Dim(buffer.len.to_string()))?;
        let memory = match buffer.role {
            Role::Local => Memory::zeros(buffer.dtype, len),
            Role::Input | Role::Output => match given.next() {
                Some(m) if m.dtype == buffer.dtype && m.len() == len => m.clone(),
                _ => return Err(Fault::Arguments(format!("{}: {}[{len}]", buffer.name, buffer.dtype))),
            },
        };
        machine.spaces.push(Space {
            name: buffer.name.clone(),
            role: buffer.role,
            memory,
            written: vec![buffer.role == Role::Input; len],
            writer: vec![NONE; len],
            reader: vec![NONE; len],
        });
    }
    for phase in &kernel.phases {
        machine.outer = phase.outer.to_string();
        for space in &mut machine.spaces {
            space.writer.fill(NONE);
            space.reader.fill(NONE);
        }
        for i in 0..machine.dim(&phase.extent)? {
            machine.iteration = i;
            machine.symbols.insert(phase.outer.clone(), i);
            machine.regs.fill(None);
            for space in machine.spaces.iter_mut().filter(|s| s.role == Role::Local) {
                space.written.fill(false);
            }
            machine.body(&phase.body)?;
        }
        machine.symbols.remove(&phase.outer);
    }
    let results = machine.spaces.into_iter().filter(|s| s.role != Role::Local).map(|s| s.memory);
    for (argument, result) in arguments.iter_mut().zip(results) {
        *argument = result;
    }
    Ok(machine.failed.into_iter().collect())
}

impl Interpreter<'_> {
    fn dim(&self, dim: &Dim) -> Result<i64, Fault> {
        let lookup = |symbol: &Symbol| {
            if let Some(v) = self.symbols.get(symbol) {
                return Some(*v);
            }
            let number: usize = symbol.name().strip_prefix('r')?.parse().ok()?;
            i64::try_from(self.regs.get(number).copied().flatten()?.to_int()).ok()
        };
        dim.eval(&lookup).ok_or_else(|| Fault::Dim(dim.to_string()))
    }

    fn reg(&self, reg: Reg) -> Result<Scalar, Fault> {
        self.regs.get(reg.0 as usize).copied().flatten().ok_or(Fault::Register(reg))
    }

    fn define(&mut self, reg: Reg, value: Scalar) -> Result<(), Fault> {
        let expected = self.kernel.reg_type(reg).ok_or(Fault::Register(reg))?;
        if expected != value.dtype {
            return Err(Fault::Type { what: reg.to_string(), expected, found: value.dtype });
        }
        if let Some(slot) = self.regs.get_mut(reg.0 as usize) {
            *slot = Some(value);
        }
        Ok(())
    }

    /// The buffer and an index that is inside.
    fn place(&mut self, buffer: BufferId, index: &Dim) -> Result<(&mut Space, usize), Fault> {
        let at = self.dim(index)?;
        let space = self
            .spaces
            .get_mut(buffer.0 as usize)
            .ok_or_else(|| Fault::Arguments(format!("no buffer {}", buffer.0)))?;
        let len = space.memory.len();
        match usize::try_from(at).ok().filter(|i| *i < len) {
            Some(i) => Ok((space, i)),
            None => Err(Fault::Bounds { buffer: space.name.clone(), index: at, len }),
        }
    }

    fn race(&self, buffer: BufferId, index: usize, first: i64) -> Fault {
        let name = self.kernel.buffer(buffer).map(|b| b.name.clone()).unwrap_or_default();
        Fault::Race { buffer: name, index, outer: self.outer.clone(), first, second: self.iteration }
    }

    fn load(&mut self, buffer: BufferId, index: &Dim) -> Result<Scalar, Fault> {
        let iteration = self.iteration;
        let (space, i) = self.place(buffer, index)?;
        if !space.written.get(i).copied().unwrap_or(false) {
            return Err(Fault::Uninitialised { buffer: space.name.clone(), index: i });
        }
        let mut value = space.memory.get(i).ok_or_else(|| Fault::Dim(index.to_string()))?;
        if value.dtype == DType::Bool {
            // Any byte but 0 is true in what a caller passes.
            value = Scalar::bool(value.bits != 0);
        }
        let mut other = None;
        if space.role == Role::Output {
            if let Some(reader) = space.reader.get_mut(i) {
                *reader = if [NONE, iteration].contains(reader) { iteration } else { SEVERAL };
            }
            other = space.writer.get(i).copied().filter(|w| ![NONE, iteration].contains(w));
        }
        other.map_or(Ok(value), |first| Err(self.race(buffer, i, first)))
    }

    fn store(&mut self, buffer: BufferId, index: &Dim, value: Scalar) -> Result<(), Fault> {
        let iteration = self.iteration;
        let (space, i) = self.place(buffer, index)?;
        if space.memory.dtype != value.dtype {
            return Err(Fault::Type { what: space.name.clone(), expected: space.memory.dtype, found: value.dtype });
        }
        space.memory.set(i, value);
        let mut other = None;
        if let (Some(written), Some(writer), Some(reader)) =
            (space.written.get_mut(i), space.writer.get_mut(i), space.reader.get(i))
        {
            *written = true;
            if space.role == Role::Output {
                other = [*writer, *reader].into_iter().find(|who| ![NONE, iteration].contains(who));
            }
            *writer = iteration;
        }
        other.map_or(Ok(()), |first| Err(self.race(buffer, i, first)))
    }

    fn body(&mut self, stmts: &[Stmt]) -> Result<(), Fault> {
        stmts.iter().try_for_each(|s| self.stmt(s))
    }

    fn stmt(&mut self, stmt: &Stmt) -> Result<(), Fault> {
        match stmt {
            Stmt::Let(reg, expr) => {
                let value = self.expr(expr)?;
                self.define(*reg, value)
            }
            Stmt::Store { buffer, index, value } => {
                let value = self.reg(*value)?;
                self.store(*buffer, index, value)
            }
            Stmt::For { var, extent, body } => {
                for k in 0..self.dim(extent)? {
                    self.symbols.insert(var.clone(), k);
                    self.body(body)?;
                }
                self.symbols.remove(var);
                Ok(())
            }
            Stmt::Reduce { var, extent, body, accs } => {
                let mut lanes = vec![[None; LANES]; accs.len()];
                for k in 0..self.dim(extent)? {
                    self.symbols.insert(var.clone(), k);
                    self.body(body)?;
                    for (acc, lanes) in accs.iter().zip(&mut lanes) {
                        let next = self.candidate(acc)?;
                        if let Some(lane) = lanes.get_mut(k as usize % LANES) {
                            *lane = Some(self.step(acc, *lane, next)?);
                        }
                    }
                }
                self.symbols.remove(var);
                for (acc, lanes) in accs.iter().zip(lanes) {
                    self.finish(acc, lanes)?;
                }
                Ok(())
            }
            Stmt::If { condition, then, otherwise } => {
                let taken = if self.reg(*condition)?.is_true() { then } else { otherwise };
                self.body(taken)
            }
            Stmt::Check { ok, code } => {
                if !self.reg(*ok)?.is_true() {
                    self.failed.insert(*code);
                }
                Ok(())
            }
        }
    }

    fn candidate(&self, acc: &Acc) -> Result<Candidate, Fault> {
        let index = match acc.combine {
            Combine::ArgMin(i) | Combine::ArgMax(i) => self.reg(i)?,
            Combine::Sum | Combine::Dot(_) | Combine::Prod | Combine::Min | Combine::Max => Scalar::i64(0),
        };
        Ok(Candidate { value: self.reg(acc.value)?, index })
    }

    /// What an iteration makes of its lane.
    fn step(&self, acc: &Acc, lane: Option<Candidate>, next: Candidate) -> Result<Candidate, Fault> {
        let Combine::Dot(factor) = acc.combine else { return join(acc.combine, lane, next) };
        let undefined = || Fault::Undefined(format!("dot of {}", next.value.dtype));
        let sum = match lane {
            Some(sum) => sum.value,
            None => acc.combine.neutral(next.value.dtype).ok_or_else(undefined)?,
        };
        let value = primitive::fma(next.value, self.reg(factor)?, sum).ok_or_else(undefined)?;
        Ok(Candidate { value, ..next })
    }

    /// Joins the lanes pairwise and defines the result.
    fn finish(&mut self, acc: &Acc, mut lanes: [Option<Candidate>; LANES]) -> Result<(), Fault> {
        let dtype = self.kernel.reg_type(acc.value).ok_or(Fault::Register(acc.value))?;
        let mut width = LANES / 2;
        while width > 0 {
            for i in 0..width {
                lanes[i] = match (lanes[i], lanes[i + width]) {
                    (left, Some(right)) => Some(join(acc.combine, left, right)?),
                    // An empty lane holds the neutral element, which may change a sign: -0 + 0.
                    (Some(left), None) => match acc.combine.neutral(dtype) {
                        Some(value) => {
                            Some(join(acc.combine, Some(left), Candidate { value, index: Scalar::i64(i64::MAX) })?)
                        }
                        None => Some(left),
                    },
                    (None, None) => None,
                };
            }
            width /= 2;
        }
        let result = match (acc.combine, lanes[0]) {
            (Combine::ArgMin(_) | Combine::ArgMax(_), best) => best.map_or(Scalar::i64(0), |b| b.index),
            (Combine::Sum | Combine::Dot(_) | Combine::Prod | Combine::Min | Combine::Max, Some(best)) => best.value,
            (combine, None) => {
                combine.neutral(dtype).ok_or_else(|| Fault::Undefined(format!("{combine:?} of {dtype}")))?
            }
        };
        self.define(acc.result, result)
    }

    fn expr(&mut self, expr: &Expr) -> Result<Scalar, Fault> {
        let (value, what) = match expr {
            Expr::Const(s) => return Ok(*s),
            Expr::Load { buffer, index } => return self.load(*buffer, index),
            Expr::Index(d) => return Ok(Scalar::i64(self.dim(d)?)),
            Expr::Unary(op, x) => (maths::evaluate_unary(*op, self.reg(*x)?, self.kernel.fast), op.name()),
            Expr::Binary(op, a, b) => (maths::evaluate_binary(*op, self.reg(*a)?, self.reg(*b)?), op.name()),
            Expr::Select(c, a, b) => {
                let (c, a, b) = (self.reg(*c)?, self.reg(*a)?, self.reg(*b)?);
                let fits = c.dtype == DType::Bool && a.dtype == b.dtype;
                (fits.then_some(if c.is_true() { a } else { b }), "select")
            }
            Expr::Fma(a, b, c) => (primitive::fma(self.reg(*a)?, self.reg(*b)?, self.reg(*c)?), "fma"),
            Expr::Cast { value, to, saturate } => (maths::evaluate_cast(self.reg(*value)?, *to, *saturate), "cast"),
            Expr::Rescue { ok, value, op, x } => {
                let (ok, value, x) = (self.reg(*ok)?, self.reg(*value)?, self.reg(*x)?);
                (if ok.is_true() { Some(value) } else { maths::rescued(*op, x) }, "rescue")
            }
            Expr::Bitcast { value, to } => (primitive::bitcast(self.reg(*value)?, *to), "bitcast"),
        };
        value.ok_or_else(|| Fault::Undefined(what.to_owned()))
    }
}

/// What one iteration offers to a reduction.
#[derive(Clone, Copy)]
struct Candidate {
    value: Scalar,
    index: Scalar,
}

/// `next` combined into a lane, an empty one holding the neutral element.
fn join(combine: Combine, lane: Option<Candidate>, next: Candidate) -> Result<Candidate, Fault> {
    if let Combine::ArgMin(_) | Combine::ArgMax(_) = combine {
        let Some(best) = lane else { return Ok(next) };
        let least = matches!(combine, Combine::ArgMin(_));
        return Ok(if beats(next, best, least)? { next } else { best });
    }
    let op = combine.op();
    let undefined = || Fault::Undefined(format!("{} of {}", op.name(), next.value.dtype));
    let start = match lane {
        Some(c) => c.value,
        None => combine.neutral(next.value.dtype).ok_or_else(undefined)?,
    };
    let value = maths::evaluate_binary(op, start, next.value).ok_or_else(undefined)?;
    Ok(Candidate { value, index: next.index })
}

/// Whether `a` comes before `b` as the first smallest (largest): NaN before numbers, the lower index among equals.
fn beats(a: Candidate, b: Candidate, least: bool) -> Result<bool, Fault> {
    let before = a.index.to_int() < b.index.to_int();
    match (a.value.is_nan(), b.value.is_nan()) {
        (true, true) => return Ok(before),
        (true, false) => return Ok(true),
        (false, true) => return Ok(false),
        (false, false) => {}
    }
    let less = |x: Scalar, y: Scalar| {
        let (x, y) = if least { (x, y) } else { (y, x) };
        maths::evaluate_binary(BinaryOp::Lt, x, y)
            .map(Scalar::is_true)
            .ok_or_else(|| Fault::Undefined(format!("lt of {}", x.dtype)))
    };
    Ok(less(a.value, b.value)? || (before && !less(b.value, a.value)?))
}
