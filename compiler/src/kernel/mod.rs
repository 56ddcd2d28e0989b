//! The loop IR: what one kernel computes, with no machine in it.
//!
//! A [`Kernel`] is an ordered list of phases over symbolic index spaces. Each phase runs its body once for every value
//! of its outermost index, in any order and on any thread; all of a phase ends before the next begins. Inside are
//! straight-line scalar code ([`Stmt::Let`]), loops, reductions, stores, checks.
//!
//! Indices are [`Dim`] expressions: loop variables, run-time extents and registers are symbols of one namespace, so
//! index arithmetic is canonical and prints as it reads. Buffers are flat; an index counts elements.
//!
//! How loops run (vectors, unrolling, threads) is not here: a [`crate::schedule::Schedule`] beside the kernel says it,
//! and any legal schedule gives the same bits.
//!
//! What always holds (checked by [`mod@verify`]): K1 a register is assigned once, before its uses, in a scope that encloses
//! them; K2 operand types fit; K3 indices name symbols in scope; K4 buffers are written only by stores to outputs or
//! locals; K5 a store of a phase goes to an element that no other iteration of its outer index writes (checked by the
//! interpreter, on values).

use std::fmt;

use frit_ir::types::Class;
use frit_ir::{BinaryOp, DType, Dim, Symbol, UnaryOp};

pub mod build;
pub mod expand;
pub mod hoist;
pub mod interp;
pub mod maths;
mod parse;
pub mod primitive;
pub(crate) mod rewrite;
#[doc(hidden)]
pub mod testing;
#[cfg(test)]
mod tests;
pub mod text;
pub mod verify;

pub use verify::verify;

/// A register: one scalar value in an iteration. As part of an index it is the symbol `rN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reg(pub u32);

impl Reg {
    /// Its symbol in index expressions.
    pub fn symbol(self) -> Symbol {
        Symbol::new(&format!("r{}", self.0))
    }
}

impl fmt::Display for Reg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}", self.0)
    }
}

/// A buffer of the kernel, by position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BufferId(pub u32);

/// What a buffer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Read only.
    Input,
    /// Written; may be read after a store of the same phase iteration or of an earlier phase.
    Output,
    /// Private to one iteration of a phase's outer index; lives in the worker's scratch memory. Contents are undefined
    /// when an iteration begins.
    Local,
}

/// Flat memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Buffer {
    /// Name in text.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Elements.
    pub len: Dim,
    /// What it is for.
    pub role: Role,
}

/// A run-time extent: the host evaluates `value` over the module's symbols before the kernel starts.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelDim {
    /// Its symbol in this kernel's indices (`d0`, `d1`, ...).
    pub symbol: Symbol,
    /// Its value over the module's symbols.
    pub value: Dim,
}

/// A typed constant, as the low bits of `bits`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scalar {
    /// Element type.
    pub dtype: DType,
    /// Its bits, zero-extended.
    pub bits: u64,
}

impl Scalar {
    /// An f32.
    pub fn f32(value: f32) -> Self {
        Scalar { dtype: DType::F32, bits: u64::from(value.to_bits()) }
    }

    /// An i32.
    pub fn i32(value: i32) -> Self {
        Scalar { dtype: DType::I32, bits: u64::from(value as u32) }
    }

    /// An i64.
    pub fn i64(value: i64) -> Self {
        Scalar { dtype: DType::I64, bits: value as u64 }
    }

    /// A bool.
    pub fn bool(value: bool) -> Self {
        Scalar { dtype: DType::Bool, bits: u64::from(value) }
    }
}

/// A scalar operation. Types are as for the core op of the same name; arithmetic on f16 and bf16 is written as casts to
/// and from f32 around it, so only casts, selects, loads and stores see those types.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Expr {
    /// A constant.
    Const(Scalar),
    /// An element of a buffer; the index must be inside.
    Load {
        /// From where.
        buffer: BufferId,
        /// Which element.
        index: Dim,
    },
    /// An index as an i64 value.
    Index(Dim),
    /// A core op of one operand.
    Unary(UnaryOp, Reg),
    /// A core op of two operands.
    Binary(BinaryOp, Reg, Reg),
    /// `c ? a : b`
    Select(Reg, Reg, Reg),
    /// a b + c, rounded once.
    Fma(Reg, Reg, Reg),
    /// Conversion, as the core op.
    Cast {
        /// What.
        value: Reg,
        /// To which type.
        to: DType,
        /// Clamp instead of overflow.
        saturate: bool,
    },
    /// `ok ? value : op(x)` of f32, where op is computed in f64 (by the function of that name in
    /// [`crate::cpu::abi::FUNCTIONS`]) and rounded: the rare lanes that an expansion leaves out. Back ends skip the
    /// call when every lane is ok. Only expansions write it.
    Rescue {
        /// A bool: the value is good.
        ok: Reg,
        /// The value when it is.
        value: Reg,
        /// The elementary function.
        op: UnaryOp,
        /// Its operand.
        x: Reg,
    },
    /// The same bits as another type of that size.
    Bitcast {
        /// What.
        value: Reg,
        /// To which type.
        to: DType,
    },
}

/// How a reduction combines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Combine {
    /// Sum, from 0.
    Sum,
    /// Sum of products, from 0: the value times this register, each rounded together with its lane's sum. Floats.
    Dot(Reg),
    /// Product, from 1.
    Prod,
    /// Smallest; NaN wins, -0 is below +0.
    Min,
    /// Largest; NaN wins, -0 is below +0.
    Max,
    /// Index of the first smallest; the index register is an i64 of the body.
    ArgMin(Reg),
    /// Index of the first largest.
    ArgMax(Reg),
}

impl Combine {
    /// How lanes, and results of parts, combine: argmin as min, argmax as max, products as their sum.
    pub fn of_values(self) -> Combine {
        match self {
            Combine::ArgMin(_) => Combine::Min,
            Combine::ArgMax(_) => Combine::Max,
            Combine::Dot(_) => Combine::Sum,
            Combine::Sum | Combine::Prod | Combine::Min | Combine::Max => self,
        }
    }

    /// The type of its result for values of a type: argmin and argmax give an index.
    pub fn result(self, values: DType) -> DType {
        match self {
            Combine::ArgMin(_) | Combine::ArgMax(_) => DType::I64,
            Combine::Sum | Combine::Dot(_) | Combine::Prod | Combine::Min | Combine::Max => values,
        }
    }

    /// Whether the order of combination shows in the result.
    pub fn is_ordered(self, dtype: DType) -> bool {
        matches!(self, Combine::Sum | Combine::Dot(_) | Combine::Prod) && dtype.class() == Class::Float
    }

    /// One step on the values.
    pub fn op(self) -> BinaryOp {
        match self {
            Combine::Sum | Combine::Dot(_) => BinaryOp::Add,
            Combine::Prod => BinaryOp::Mul,
            Combine::Min | Combine::ArgMin(_) => BinaryOp::Min,
            Combine::Max | Combine::ArgMax(_) => BinaryOp::Max,
        }
    }

    /// What a lane starts from; `None` for argmin and argmax, which start from nothing, and for types that do not
    /// reduce.
    pub fn neutral(self, dtype: DType) -> Option<Scalar> {
        let bits = dtype.bits();
        let (low, high): (i128, i128) = match dtype.class() {
            Class::Signed => (-(1 << (bits - 1)), (1 << (bits - 1)) - 1),
            Class::Unsigned => (0, (1 << bits) - 1),
            Class::Bool => (0, 1),
            Class::Float | Class::Text => (0, 0),
        };
        let (float, int) = match self {
            Combine::Sum | Combine::Dot(_) => (0.0, 0),
            Combine::Prod => (1.0, 1),
            Combine::Min => (f64::INFINITY, high),
            Combine::Max => (f64::NEG_INFINITY, low),
            Combine::ArgMin(_) | Combine::ArgMax(_) => return None,
        };
        match (dtype, dtype.class()) {
            (DType::F32, _) => Some(Scalar::f32(float as f32)),
            (DType::F64, _) => Some(Scalar::f64(float)),
            (_, Class::Float | Class::Text) => None,
            (_, Class::Signed | Class::Unsigned | Class::Bool) => Some(Scalar::int(dtype, int)),
        }
    }
}

/// One accumulator of a reduction.
#[derive(Clone, Debug, PartialEq)]
pub struct Acc {
    /// The result, defined after the reduction: of the value's type, or i64 for argmin and argmax.
    pub result: Reg,
    /// The value combined in each iteration, a register of the body.
    pub value: Reg,
    /// How.
    pub combine: Combine,
}

/// A statement.
#[derive(Clone, Debug, PartialEq)]
pub enum Stmt {
    /// Defines a register.
    Let(Reg, Expr),
    /// Writes an element; the index must be inside.
    Store {
        /// To where.
        buffer: BufferId,
        /// Which element.
        index: Dim,
        /// What.
        value: Reg,
    },
    /// Runs the body for var = 0 .. extent, in order unless a schedule (legally) says otherwise.
    For {
        /// The loop variable.
        var: Symbol,
        /// How often.
        extent: Dim,
        /// What.
        body: Vec<Stmt>,
    },
    /// Combines values over var = 0 .. extent in the order of `frit_ir::order`: element k into lane k mod 16, lanes
    /// pairwise at the end. (Splitting long reductions into tiles is written out as loops around this.)
    Reduce {
        /// The loop variable.
        var: Symbol,
        /// How often.
        extent: Dim,
        /// Computes the values; it may store to locals and outputs too.
        body: Vec<Stmt>,
        /// What is combined.
        accs: Vec<Acc>,
    },
    /// Runs one of two bodies.
    If {
        /// A bool register.
        condition: Reg,
        /// When true.
        then: Vec<Stmt>,
        /// When false.
        otherwise: Vec<Stmt>,
    },
    /// When `ok` is false, reports run-time error `code` (see [`Kernel::traps`]) and goes on.
    Check {
        /// A bool register.
        ok: Reg,
        /// Index into the kernel's traps.
        code: u32,
    },
}

/// A step of a kernel: `body` for outer = 0 .. extent, in any order, on any thread.
#[derive(Clone, Debug, PartialEq)]
pub struct Phase {
    /// The outer index.
    pub outer: Symbol,
    /// How often.
    pub extent: Dim,
    /// What.
    pub body: Vec<Stmt>,
}

/// A kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Kernel {
    /// Its name: what it computes, and a number.
    pub name: String,
    /// Run-time extents.
    pub dims: Vec<KernelDim>,
    /// Its memory: arguments (inputs and outputs, in call order), then locals.
    pub buffers: Vec<Buffer>,
    /// Type of each register.
    pub regs: Vec<DType>,
    /// What it does.
    pub phases: Vec<Phase>,
    /// Messages of its checks: which op failed and how.
    pub traps: Vec<String>,
    /// May a b + c be contracted and elementary functions use the 4 ulp forms?
    pub fast: bool,
}

impl Kernel {
    /// The type of a register.
    pub fn reg_type(&self, reg: Reg) -> Option<DType> {
        self.regs.get(reg.0 as usize).copied()
    }

    /// A buffer.
    pub fn buffer(&self, id: BufferId) -> Option<&Buffer> {
        self.buffers.get(id.0 as usize)
    }

    /// Buffers that a caller passes, in order.
    pub fn arguments(&self) -> impl Iterator<Item = (BufferId, &Buffer)> {
        self.buffers.iter().enumerate().filter(|(_, b)| b.role != Role::Local).map(|(i, b)| (BufferId(i as u32), b))
    }
}
