//! Kernels from text: the inverse of [`super::text`].
//!
//! Reading gives back exactly the kernel that was printed. It checks the form only (words, types of registers, names of
//! buffers); [`super::verify`] checks the rules.

use std::collections::BTreeMap;
use std::str::FromStr;

use frit_ir::{BinaryOp, DType, UnaryOp};

use super::{Acc, Buffer, BufferId, Combine, Expr, Kernel, KernelDim, Phase, Reg, Role, Scalar, Stmt, primitive};
use crate::text::{Cursor, Read, TextError};

/// Bodies that nest in each other at most.
const DEPTH: usize = 128;

impl FromStr for Kernel {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        let mut parser = Parser { cursor: Cursor::new(text), buffers: Vec::new(), regs: BTreeMap::new() };
        let kernel = parser.kernel()?;
        parser.cursor.end(kernel)
    }
}

struct Parser<'t> {
    cursor: Cursor<'t>,
    buffers: Vec<Buffer>,
    /// Types of registers, and where each is first declared.
    regs: BTreeMap<u32, (DType, usize)>,
}

impl Parser<'_> {
    fn kernel(&mut self) -> Read<Kernel> {
        self.cursor.keyword("kernel")?;
        let name = self.cursor.name("the kernel's name")?;
        self.cursor.mark('(')?;
        self.buffers = self.cursor.list(')', buffer)?;
        let (mut dims, mut traps) = (Vec::new(), Vec::new());
        if self.cursor.eat_word("dims") {
            self.cursor.mark('(')?;
            dims = self.cursor.list(')', |c| {
                let symbol = c.symbol()?;
                c.mark('=')?;
                Ok(KernelDim { symbol, value: c.dim()? })
            })?;
        }
        if self.cursor.eat_word("traps") {
            self.cursor.mark('(')?;
            traps = self.cursor.list(')', Cursor::quoted)?;
        }
        if self.cursor.eat_word("unused") {
            self.cursor.mark('(')?;
            loop {
                self.declared()?;
                if !self.cursor.eat(',') {
                    break;
                }
            }
            self.cursor.mark(')')?;
        }
        let fast = self.cursor.eat_word("fast");
        self.cursor.mark('{')?;
        let mut phases = Vec::new();
        while self.cursor.eat_word("phase") {
            let (outer, extent) = self.loop_header()?;
            phases.push(Phase { outer, extent, body: self.body(0)? });
        }
        self.cursor.mark('}')?;
        let mut regs = Vec::with_capacity(self.regs.len());
        for (expected, (number, (dtype, place))) in (0u32..).zip(&self.regs) {
            if expected != *number {
                let message = format!("%{expected} is neither defined nor listed under `unused`, but %{number} is");
                return self.cursor.fail_at(*place, message);
            }
            regs.push(*dtype);
        }
        Ok(Kernel { name, dims, buffers: std::mem::take(&mut self.buffers), regs, phases, traps, fast })
    }

    fn loop_header(&mut self) -> Read<(frit_ir::Symbol, frit_ir::Dim)> {
        let var = self.cursor.symbol()?;
        self.cursor.mark('<')?;
        let extent = self.cursor.dim()?;
        self.cursor.mark('{')?;
        Ok((var, extent))
    }

    /// Statements up to the closing brace, which is passed.
    fn body(&mut self, depth: usize) -> Read<Vec<Stmt>> {
        if depth >= DEPTH {
            return self.cursor.fail(format!("bodies nest deeper than {DEPTH}"));
        }
        let mut stmts = Vec::new();
        while !self.cursor.eat('}') {
            stmts.push(self.stmt(depth)?);
        }
        Ok(stmts)
    }

    fn stmt(&mut self, depth: usize) -> Read<Stmt> {
        match self.cursor.peek() {
            "store" => {
                self.cursor.keyword("store")?;
                let (buffer, index) = self.element()?;
                self.cursor.mark('=')?;
                Ok(Stmt::Store { buffer, index, value: self.reg()? })
            }
            "for" => {
                self.cursor.keyword("for")?;
                let (var, extent) = self.loop_header()?;
                Ok(Stmt::For { var, extent, body: self.body(depth + 1)? })
            }
            "reduce" => {
                self.cursor.keyword("reduce")?;
                let (var, extent) = self.loop_header()?;
                let body = self.body(depth + 1)?;
                let mut accs = Vec::new();
                // A register on the next line begins the next statement.
                if self.cursor.on_this_line('%') {
                    accs.push(self.acc()?);
                    while self.cursor.eat(',') {
                        accs.push(self.acc()?);
                    }
                }
                Ok(Stmt::Reduce { var, extent, body, accs })
            }
            "if" => {
                self.cursor.keyword("if")?;
                let condition = self.reg()?;
                self.cursor.mark('{')?;
                let then = self.body(depth + 1)?;
                let mut otherwise = Vec::new();
                if self.cursor.eat_word("else") {
                    self.cursor.mark('{')?;
                    otherwise = self.body(depth + 1)?;
                }
                Ok(Stmt::If { condition, then, otherwise })
            }
            "check" => {
                self.cursor.keyword("check")?;
                let ok = self.reg()?;
                self.cursor.keyword("else")?;
                Ok(Stmt::Check { ok, code: self.cursor.parsed("the number of a message")? })
            }
            "" if self.cursor.eat('%') => {
                let (reg, dtype) = self.declared_after_mark()?;
                self.cursor.mark('=')?;
                Ok(Stmt::Let(reg, self.expr(dtype)?))
            }
            _ => self.cursor.expected("a statement or `}`"),
        }
    }

    fn reg(&mut self) -> Read<Reg> {
        self.cursor.mark('%')?;
        self.cursor.parsed("a register's number").map(Reg)
    }

    /// `%3: f32`
    fn declared(&mut self) -> Read<(Reg, DType)> {
        self.cursor.mark('%')?;
        self.declared_after_mark()
    }

    fn declared_after_mark(&mut self) -> Read<(Reg, DType)> {
        let place = self.cursor.offset();
        let reg = Reg(self.cursor.parsed("a register's number")?);
        self.cursor.mark(':')?;
        let start = self.cursor.offset();
        let dtype = self.cursor.parsed("an element type")?;
        let (known, _) = *self.regs.entry(reg.0).or_insert((dtype, place));
        if known != dtype {
            return self.cursor.fail_at(start, format!("{reg} is {known} where it was defined before"));
        }
        Ok((reg, dtype))
    }

    fn acc(&mut self) -> Read<Acc> {
        let (result, _) = self.declared()?;
        self.cursor.mark('=')?;
        let how = match self.cursor.peek() {
            word @ ("sum" | "dot" | "prod" | "min" | "max" | "argmin" | "argmax") => word,
            _ => return self.cursor.expected("sum, dot, prod, min, max, argmin or argmax"),
        };
        self.cursor.keyword(how)?;
        let value = self.reg()?;
        let combine = match how {
            "sum" => Combine::Sum,
            "dot" => {
                self.cursor.keyword("by")?;
                Combine::Dot(self.reg()?)
            }
            "prod" => Combine::Prod,
            "min" => Combine::Min,
            "max" => Combine::Max,
            _ => {
                self.cursor.keyword("at")?;
                let index = self.reg()?;
                if how == "argmin" { Combine::ArgMin(index) } else { Combine::ArgMax(index) }
            }
        };
        Ok(Acc { result, value, combine })
    }

    /// `x[4*i0 + i1]`; the name of an earlier buffer hides a later one's, which goes by position: `#2[i0]`.
    fn element(&mut self) -> Read<(BufferId, frit_ir::Dim)> {
        let start = self.cursor.offset();
        let position = if self.cursor.eat('#') {
            self.cursor.parsed::<usize>("a buffer's position").map(|p| (p < self.buffers.len()).then_some(p))?
        } else {
            let name = self.cursor.name("a buffer's name")?;
            self.buffers.iter().position(|b| b.name == name)
        };
        let Some(position) = position else {
            return self.cursor.fail_at(start, "the kernel has no such buffer");
        };
        self.cursor.mark('[')?;
        let index = self.cursor.dim()?;
        self.cursor.mark(']')?;
        Ok((BufferId(position as u32), index))
    }

    fn pair(&mut self) -> Read<(Reg, Reg)> {
        let a = self.reg()?;
        self.cursor.mark(',')?;
        Ok((a, self.reg()?))
    }

    fn triple(&mut self) -> Read<(Reg, Reg, Reg)> {
        let (a, b) = self.pair()?;
        self.cursor.mark(',')?;
        Ok((a, b, self.reg()?))
    }

    /// An expression that gives a type.
    fn expr(&mut self, to: DType) -> Read<Expr> {
        let start = self.cursor.offset();
        Ok(match self.cursor.word("an operation")? {
            "const" => Expr::Const(self.scalar(to)?),
            "load" => {
                let (buffer, index) = self.element()?;
                Expr::Load { buffer, index }
            }
            "index" => {
                self.cursor.mark('[')?;
                let index = self.cursor.dim()?;
                self.cursor.mark(']')?;
                Expr::Index(index)
            }
            "select" => self.triple().map(|(c, a, b)| Expr::Select(c, a, b))?,
            "fma" => self.triple().map(|(a, b, c)| Expr::Fma(a, b, c))?,
            "cast" => {
                let saturate = self.cursor.eat_word("saturate");
                Expr::Cast { value: self.reg()?, to, saturate }
            }
            "bitcast" => Expr::Bitcast { value: self.reg()?, to },
            "rescue" => {
                let Some(op) = UnaryOp::from_name(self.cursor.peek()) else {
                    return self.cursor.expected("an op of one operand");
                };
                self.cursor.keyword(op.name())?;
                let (ok, value, x) = self.triple()?;
                Expr::Rescue { ok, value, op, x }
            }
            word => match (UnaryOp::from_name(word), BinaryOp::from_name(word)) {
                (Some(op), _) => Expr::Unary(op, self.reg()?),
                (None, Some(op)) => self.pair().map(|(a, b)| Expr::Binary(op, a, b))?,
                (None, None) => return self.cursor.fail_at(start, format!("there is no operation `{word}`")),
            },
        })
    }

    /// A constant of a type.
    fn scalar(&mut self, dtype: DType) -> Read<Scalar> {
        let start = self.cursor.offset();
        let word = self.cursor.take(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+'));
        let largest = if dtype.size() < 8 { (1u64 << (8 * dtype.size())) - 1 } else { u64::MAX };
        let bits = word.strip_prefix("0x").and_then(|hex| u64::from_str_radix(hex, 16).ok());
        let value = match dtype {
            _ if word.starts_with("0x") => {
                bits.filter(|bits| *bits <= largest && dtype.size() > 0).map(|bits| Scalar { dtype, bits })
            }
            DType::F32 => word.parse().ok().filter(|v: &f32| v.is_finite()).map(Scalar::f32),
            DType::F64 => word.parse().ok().filter(|v: &f64| v.is_finite()).map(Scalar::f64),
            DType::Bool => word.parse().ok().map(Scalar::bool),
            dtype if primitive::is_plain_int(dtype) => {
                let value = word.parse::<i128>().ok().map(|v| (v, Scalar::int(dtype, v)));
                value.filter(|(v, s)| s.to_int() == *v).map(|(_, s)| s)
            }
            _ => None,
        };
        match value {
            Some(value) => Ok(value),
            None => self.cursor.fail_at(start, format!("`{word}` is no constant of {dtype}")),
        }
    }
}

/// `in x: f32[4*d0]`
fn buffer(c: &mut Cursor<'_>) -> Read<Buffer> {
    let role = match c.peek() {
        "in" => Role::Input,
        "out" => Role::Output,
        "local" => Role::Local,
        _ => return c.expected("in, out or local"),
    };
    c.word("in, out or local")?;
    let name = c.name("a buffer's name")?;
    c.mark(':')?;
    let dtype = c.parsed("an element type")?;
    c.mark('[')?;
    let len = c.dim()?;
    c.mark(']')?;
    Ok(Buffer { name, dtype, len, role })
}
