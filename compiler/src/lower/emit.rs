//! One element of a value, as scalar code.
//!
//! [`Emitter::emit`] gives the register that holds `value[index]`: elementwise ops compute from their operands at the
//! same index, movement ops change the index, inputs load, small reductions are written out. So everything between a
//! kernel's inputs and its outputs lives in registers, and a view costs index arithmetic at most.

use std::collections::HashMap;

use frit_ir::{BinaryOp, DType, Dim, Function, Node, Op, ReduceKind, Symbol, TensorType, UnaryOp, Value, ValueType};

use super::combine::offsets;
use super::index::{Ranges, delinearize, linearize};
use super::line::Lines;
use super::{LowerError, contract};
use crate::kernel::build::KernelBuilder;
use crate::kernel::{BufferId, Reg, Scalar, Stmt};

/// Reductions over at most this many elements are written out instead of looped.
pub(crate) const UNROLLED: i64 = frit_passes::fuse::SMALL_REDUCE;

/// Writes element code for one body.
pub(crate) struct Emitter<'a> {
    pub(crate) body: &'a Function,
    pub(crate) kb: KernelBuilder,
    pub(crate) ranges: Ranges,
    /// Values that lie in memory: body inputs, parameters, tables, row results of an earlier phase.
    pub(crate) memory: HashMap<Value, BufferId>,
    /// Results of reductions of the current row, valid at the row's position only.
    pub(crate) rows: HashMap<Value, Reg>,
    /// Row-major position of the current row.
    pub(crate) row: Dim,
    /// Results of reductions of a block of columns, valid at [`Emitter::row`] too.
    pub(crate) columns: HashMap<Value, BufferId>,
    /// The column that is at work, in the block.
    pub(crate) column: Dim,
    /// Values of the current row that several passes over it share.
    pub(crate) lines: Lines,
    known: Vec<HashMap<(Value, Vec<Dim>), Reg>>,
    /// How many indices around were moved inside of extents that may be 0.
    unsure: u32,
}

pub(super) type Emitted = Result<Reg, LowerError>;

/// The type that arithmetic on `dtype` happens in.
pub(crate) fn arithmetic(dtype: DType) -> DType {
    match dtype {
        DType::F16 | DType::BF16 => DType::F32,
        other => other,
    }
}

impl<'a> Emitter<'a> {
    pub(crate) fn new(body: &'a Function, name: &str, fast: bool) -> Self {
        Emitter {
            body,
            kb: KernelBuilder::new(name, fast),
            ranges: Ranges::default(),
            memory: HashMap::new(),
            rows: HashMap::new(),
            row: Dim::ZERO,
            columns: HashMap::new(),
            column: Dim::ZERO,
            lines: Lines::default(),
            known: Vec::new(),
            unsure: 0,
        }
    }

    // ---- scopes ----

    pub(crate) fn open(&mut self) {
        self.kb.open();
        self.known.push(HashMap::new());
    }

    pub(crate) fn close(&mut self) -> Vec<Stmt> {
        self.known.pop();
        self.kb.close()
    }

    /// A loop variable in scope from here on.
    pub(crate) fn var(&mut self, extent: &Dim) -> (Symbol, Dim) {
        let symbol = self.kb.var();
        let dim = Dim::from(symbol.clone());
        self.ranges.insert(&dim, extent);
        (symbol, dim)
    }

    /// A loop over what `body` writes; returns its variable.
    pub(crate) fn for_<E>(
        &mut self,
        extent: Dim,
        body: impl FnOnce(&mut Self, &Dim) -> Result<(), E>,
    ) -> Result<Symbol, E> {
        let (var, dim) = self.var(&extent);
        self.open();
        let done = body(self, &dim);
        let stmts = self.close();
        done?;
        self.kb.push(Stmt::For { var: var.clone(), extent, body: stmts });
        Ok(var)
    }

    // ---- types ----

    pub(crate) fn tensor(&self, value: Value) -> Result<&'a TensorType, LowerError> {
        match self.body.ty(value) {
            ValueType::Tensor(t) => Ok(t),
            other => Err(self.unsupported(value, format!("a value of type {other} in a kernel"))),
        }
    }

    /// Kernel forms of the extents of a value.
    pub(crate) fn dims(&mut self, value: Value) -> Result<Vec<Dim>, LowerError> {
        let dims = &self.tensor(value)?.dims;
        Ok(dims.iter().map(|d| self.kb.dim(d)).collect())
    }

    pub(crate) fn kernel_dims(&mut self, dims: &[Dim]) -> Vec<Dim> {
        dims.iter().map(|d| self.kb.dim(d)).collect()
    }

    pub(crate) fn unsupported(&self, value: Value, message: String) -> LowerError {
        let node = self.body.node(value.node);
        LowerError::Unsupported { op: node.op.name(), origin: node.origin.to_string(), message }
    }

    // ---- elements ----

    /// The register that holds `value[index]`.
    pub(crate) fn emit(&mut self, value: Value, index: &[Dim]) -> Emitted {
        let key = (value, index.to_vec());
        if let Some(reg) = self.known.iter().rev().find_map(|scope| scope.get(&key)) {
            return Ok(*reg);
        }
        let reg = match self.line_load(value, index) {
            Some(reg) => reg,
            None => self.emit_new(value, index)?,
        };
        self.line_store(value, index, reg);
        if let Some(scope) = self.known.last_mut() {
            scope.insert(key, reg);
        }
        Ok(reg)
    }

    /// From here on the register is `value[index]`.
    pub(crate) fn assume(&mut self, value: Value, index: Vec<Dim>, reg: Reg) {
        if let Some(scope) = self.known.last_mut() {
            scope.insert((value, index), reg);
        }
    }

    /// Loads from memory.
    pub(crate) fn load(&mut self, buffer: BufferId, value: Value, index: &[Dim]) -> Emitted {
        let dims = self.dims(value)?;
        let mut position = self.ranges.simplify(&linearize(index, &dims));
        let len = Dim::product(&dims);
        if self.unsure > 0 && !(self.ranges.nonnegative(&position) && self.ranges.less(&position, &len)) {
            position = position.minimum(&(&len - &Dim::ONE)).maximum(&Dim::ZERO);
        }
        Ok(self.kb.load(buffer, position))
    }

    /// An element at an index moved inside of extents, which may be 0 and have no inside: its value is not used then,
    /// and loads stay at the start of their memory whatever views lie between.
    pub(crate) fn emit_moved(&mut self, value: Value, index: &[Dim], from: &[Dim], dims: &[Dim]) -> Emitted {
        let unsure = index.iter().zip(from).zip(dims).any(|((to, from), d)| to != from && d.known().is_none());
        self.unsure += u32::from(unsure);
        let element = self.emit(value, index);
        self.unsure -= u32::from(unsure);
        element
    }

    /// Whether a value is read from memory or a register instead of computed.
    pub(super) fn is_kept(&self, value: Value) -> bool {
        self.memory.contains_key(&value)
            || self.rows.contains_key(&value)
            || self.columns.contains_key(&value)
            || self.lines.holds(value)
    }

    /// The factors of a product that the sum which takes it may round with: it is not in memory. What else uses the
    /// product does not count: an expression has the same bits in every kernel that computes it.
    pub(super) fn factors(&self, product: Value) -> Option<(Value, Value)> {
        let factor = self.body.node(product.node);
        let float = self.body.ty(product).tensor().is_some_and(|t| matches!(t.dtype, DType::F32 | DType::F64));
        match (&factor.op, factor.operands()) {
            (Op::Binary(BinaryOp::Mul), [x, y]) if factor.numerics.contract && !self.is_kept(product) && float => {
                Some((*x, *y))
            }
            _ => None,
        }
    }

    /// A sum of two values, where one is a product and both may round once.
    fn contracted(&mut self, node: &Node, index: &[Dim]) -> Result<Option<Reg>, LowerError> {
        let (Op::Binary(BinaryOp::Add), [a, b], true) = (&node.op, node.operands(), node.numerics.contract) else {
            return Ok(None);
        };
        for (product, z) in [(*a, *b), (*b, *a)] {
            if let Some((x, y)) = self.factors(product) {
                let (x, y, z) = (self.emit(x, index)?, self.emit(y, index)?, self.emit(z, index)?);
                return Ok(Some(self.kb.fma(x, y, z)));
            }
            if let Some(sum) = self.likely_contracted(product, z, index)? {
                return Ok(Some(sum));
            }
        }
        Ok(None)
    }

    /// `select(c, x y, w) + z` that is likely to take the product: both sides take the sum, so that the usual one rounds
    /// once. The product may be such a choice again.
    fn likely_contracted(&mut self, chosen: Value, z: Value, index: &[Dim]) -> Result<Option<Reg>, LowerError> {
        let node = self.body.node(chosen.node);
        let (Op::Select { likely }, [c, usual, rare]) = (&node.op, node.operands()) else { return Ok(None) };
        if !likely.0 || self.is_kept(chosen) {
            return Ok(None);
        }
        let (c, usual, rare) = (*c, *usual, *rare);
        let (Some((x, y)), Some((function, w))) = (self.factors(usual), self.rare(rare)) else {
            let sum = match self.factors(usual) {
                Some((x, y)) => {
                    let (x, y, z) = (self.emit(x, index)?, self.emit(y, index)?, self.emit(z, index)?);
                    self.kb.fma(x, y, z)
                }
                None => match self.likely_contracted(usual, z, index)? {
                    Some(sum) => sum,
                    None => return Ok(None),
                },
            };
            let (c, rare, z) = (self.emit(c, index)?, self.emit(rare, index)?, self.emit(z, index)?);
            let other = self.kb.binary(BinaryOp::Add, rare, z);
            return Ok(Some(self.kb.select(c, sum, other)));
        };
        let (c, z) = (self.emit(c, index)?, self.emit(z, index)?);
        let (x, y, w) = (self.emit(x, index)?, self.emit(y, index)?, self.emit(w, index)?);
        let (usual, product) = (self.kb.fma(x, y, z), self.kb.binary(BinaryOp::Mul, x, y));
        let rescued = self.kb.rescue(c, product, function, w);
        let rescued = self.kb.binary(BinaryOp::Add, rescued, z);
        Ok(Some(self.kb.select(c, usual, rescued)))
    }

    /// An elementary function of f32 and its operand, when that is what a value is and it is not in memory.
    fn rare(&self, value: Value) -> Option<(UnaryOp, Value)> {
        let node = self.body.node(value.node);
        let single = self.body.ty(value).tensor().is_some_and(|t| t.dtype == DType::F32);
        match (&node.op, node.operands()) {
            (Op::Unary(op), [x]) if op.is_elementary() && single && !self.is_kept(value) => Some((*op, *x)),
            _ => None,
        }
    }

    /// Of an element of a view (a reshape, transpose or slice): whose element it is, and which.
    fn behind_view(&mut self, view: Value, index: &[Dim]) -> Result<Option<(Value, Vec<Dim>)>, LowerError> {
        let node = self.body.node(view.node);
        let Some(&operand) = node.operands().first() else { return Ok(None) };
        let source = match &node.op {
            Op::Reshape { .. } => {
                let (from, to) = (self.dims(operand)?, self.dims(view)?);
                let source = delinearize(&linearize(index, &to), &from, &self.ranges);
                self.short(source, &from)
            }
            Op::Transpose { perm } => {
                let mut source = vec![Dim::ZERO; perm.len()];
                for (i, &p) in perm.iter().enumerate() {
                    source[p] = index[i].clone();
                }
                source
            }
            Op::Slice { starts, steps, .. } => {
                let starts = self.kernel_dims(starts);
                let places = index.iter().zip(starts.iter().zip(steps));
                places.map(|(i, (start, step))| self.ranges.simplify(&(start + &(i * &Dim::Known(*step))))).collect()
            }
            _ => return Ok(None),
        };
        Ok(Some((operand, source)))
    }

    /// The factors of an element that is a product which a sum may round with, views followed.
    pub(super) fn element_factors(&mut self, x: Value, index: Vec<Dim>) -> Result<Option<(Reg, Reg)>, LowerError> {
        let (mut x, mut index) = (x, index);
        while !self.is_kept(x)
            && let Some(behind) = self.behind_view(x, &index)?
        {
            (x, index) = behind;
        }
        match self.factors(x) {
            Some((a, b)) => Ok(Some((self.emit(a, &index)?, self.emit(b, &index)?))),
            None => Ok(None),
        }
    }

    fn emit_new(&mut self, value: Value, index: &[Dim]) -> Emitted {
        if let Some(buffer) = self.memory.get(&value) {
            return self.load(*buffer, value, index);
        }
        let column = self.columns.get(&value).copied();
        if column.is_some() || self.rows.contains_key(&value) {
            let dims = self.dims(value)?;
            let position = self.ranges.simplify(&linearize(index, &dims));
            // Of a single row the index is 0, whatever its loop is called.
            if position != self.ranges.simplify(&self.row) {
                return Err(LowerError::Unfusable {
                    origin: self.body.node(value.node).origin.to_string(),
                    message: format!("a row result is read at {position}, the row is {}", self.row),
                });
            }
            match (self.rows.get(&value), column) {
                (Some(reg), _) => return Ok(*reg),
                (None, Some(buffer)) => return Ok(self.kb.load(buffer, self.column.clone())),
                (None, None) => {}
            }
        }
        let node = self.body.node(value.node);
        let operands = node.operands();
        match &node.op {
            Op::Unary(op) => {
                let x = self.emit(operands[0], index)?;
                self.unary(*op, x)
            }
            Op::Binary(op) => {
                if let Some(sum) = self.contracted(node, index)? {
                    return Ok(sum);
                }
                let (a, b) = (self.emit(operands[0], index)?, self.emit(operands[1], index)?);
                Ok(self.binary(*op, a, b))
            }
            Op::Select { likely } => {
                let c = self.emit(operands[0], index)?;
                if likely.0
                    && let Some((op, x)) = self.rare(operands[2])
                {
                    let (value, x) = (self.emit(operands[1], index)?, self.emit(x, index)?);
                    return Ok(self.kb.rescue(c, value, op, x));
                }
                let (a, b) = (self.emit(operands[1], index)?, self.emit(operands[2], index)?);
                Ok(self.kb.select(c, a, b))
            }
            Op::Cast { to, saturate } => {
                let x = self.emit(operands[0], index)?;
                Ok(self.cast(x, *to, *saturate))
            }
            Op::Bitcast { to } => {
                let x = self.emit(operands[0], index)?;
                Ok(self.kb.bitcast(x, *to))
            }
            Op::Iota { dtype, axis, .. } => {
                let position = self.kb.let_(DType::I64, crate::kernel::Expr::Index(index[*axis].clone()));
                Ok(self.cast(position, *dtype, false))
            }
            Op::DimValue { value } => {
                let dim = self.kb.dim(value);
                Ok(self.index_value(dim))
            }
            Op::Constant { value: tensor } => {
                let dims = tensor.shape().iter().map(|&d| Dim::from(d)).collect::<Vec<_>>();
                let position =
                    if tensor.numel() == 1 { Dim::ZERO } else { self.ranges.simplify(&linearize(index, &dims)) };
                match position.known().and_then(|p| usize::try_from(p).ok()).and_then(|p| scalar_at(tensor, p)) {
                    Some(scalar) => Ok(self.kb.constant(scalar)),
                    None => Err(self.unsupported(value, "a constant that is not laid out in memory".to_owned())),
                }
            }
            Op::Broadcast { axes, .. } => {
                let from = self.dims(operands[0])?;
                let to = self.dims(value)?;
                let source: Vec<Dim> = from
                    .iter()
                    .zip(axes)
                    .map(|(extent, &axis)| match extent {
                        Dim::Known(1) => Dim::ZERO,
                        same if *same == to[axis] => index[axis].clone(),
                        // It is 1 or the result's extent, known at run time only: a stride of 0 or 1.
                        open => self.ranges.simplify(&index[axis].minimum(&(open - &Dim::ONE))),
                    })
                    .collect();
                self.emit(operands[0], &source)
            }
            Op::Reshape { .. } | Op::Transpose { .. } | Op::Slice { .. } => match self.behind_view(value, index)? {
                Some((source, index)) => self.emit(source, &index),
                None => Err(self.unsupported(value, "it is no view".to_owned())),
            },
            Op::DynamicSlice { .. } => {
                let (from, to) = (self.dims(operands[0])?, self.dims(value)?);
                let mut source = Vec::with_capacity(index.len());
                for axis in 0..index.len() {
                    let start = self.clamped_start(operands[axis + 1], &from[axis], &to[axis])?;
                    source.push(&start + &index[axis]);
                }
                self.emit(operands[0], &source)
            }
            Op::UpdateSlice {} => self.emit_update_slice(value, operands, index),
            Op::Pad { low, .. } => {
                let low = self.kernel_dims(low);
                let source: Vec<Dim> = index.iter().zip(&low).map(|(i, l)| i - l).collect();
                self.emit_guarded(operands[0], operands[1], &source)
            }
            Op::Window { axes, strides, dilations, low, .. } => {
                let rank = self.tensor(operands[0])?.rank();
                let mut source = index[..rank].to_vec();
                for (k, &axis) in axes.iter().enumerate() {
                    let offset = &index[rank + k] * &Dim::from(dilations[k]);
                    let start = &index[axis] * &Dim::from(strides[k]);
                    source[axis] = self.ranges.simplify(&(&(&start + &offset) - &Dim::from(low[k])));
                }
                self.emit_guarded(operands[0], operands[1], &source)
            }
            Op::Concat { axis } => self.emit_concat(operands, *axis, index),
            Op::Gather { axis } => self.emit_gather(node, operands, *axis, index),
            Op::Reduce { axes, kind } => self.emit_small_reduce(value, operands[0], axes, *kind, index),
            Op::DotGeneral { .. } | Op::Conv { .. } | Op::ConvTranspose { .. } => {
                let terms = contract::terms(self, value)?;
                let extents = terms.extents.iter().map(Dim::known).collect::<Option<Vec<_>>>();
                let count = extents.as_ref().map(|e| e.iter().product::<i64>());
                match (extents, count) {
                    (Some(extents), Some(count)) if count <= UNROLLED => {
                        let mut values = Vec::new();
                        for offset in offsets(&extents) {
                            values.push(contract::term(self, value, index, &offset)?);
                        }
                        self.combine_tree(values, ReduceKind::Sum, terms.dtype, node.numerics.reassociate)
                    }
                    _ => Err(self.unsupported(value, "a contraction in the middle of a kernel".to_owned())),
                }
            }
            Op::Assert { .. } => self.emit(operands[0], index),
            Op::Input { .. }
            | Op::Param { .. }
            | Op::Scatter { .. }
            | Op::Cumulate { .. }
            | Op::Sort { .. }
            | Op::Compact { .. }
            | Op::If {}
            | Op::Loop { .. }
            | Op::Call { .. }
            | Op::Composite { .. }
            | Op::Fusion {}
            | Op::Vjp { .. }
            | Op::SequenceConstruct { .. }
            | Op::SequenceAt {}
            | Op::SequenceInsert {}
            | Op::SequenceErase {}
            | Op::SequenceLength {}
            | Op::Absent {}
            | Op::Onnx { .. } => Err(self.unsupported(value, "it has no element code".to_owned())),
        }
    }

    /// An index expression as an i64 register.
    pub(crate) fn index_value(&mut self, index: Dim) -> Reg {
        match index {
            Dim::Known(v) => self.kb.constant(Scalar::i64(v)),
            expression => self.kb.let_(DType::I64, crate::kernel::Expr::Index(expression)),
        }
    }

    /// Conversion; 16-bit floats go through f32.
    pub(crate) fn cast(&mut self, x: Reg, to: DType, saturate: bool) -> Reg {
        let from = self.kb.reg_type(x);
        let x = if arithmetic(from) != from && to != DType::F32 { self.kb.cast(x, DType::F32, false) } else { x };
        let through_f32 = arithmetic(to) != to && self.kb.reg_type(x) != DType::F32;
        let x = if through_f32 { self.kb.cast(x, DType::F32, false) } else { x };
        self.kb.cast(x, to, saturate)
    }

    fn unary(&mut self, op: UnaryOp, x: Reg) -> Emitted {
        let dtype = self.kb.reg_type(x);
        let x = self.kb.cast(x, arithmetic(dtype), false);
        let y = self.kb.unary(op, x);
        Ok(self.kb.cast(y, dtype, false))
    }

    pub(crate) fn binary(&mut self, op: BinaryOp, a: Reg, b: Reg) -> Reg {
        let dtype = self.kb.reg_type(a);
        let work = arithmetic(dtype);
        let op = match (op, dtype) {
            (BinaryOp::Min, DType::Bool) => BinaryOp::And,
            (BinaryOp::Max, DType::Bool) => BinaryOp::Or,
            _ => op,
        };
        let (a, b) = (self.kb.cast(a, work, false), self.kb.cast(b, work, false));
        let y = self.kb.binary(op, a, b);
        if op.is_comparison() { y } else { self.kb.cast(y, dtype, false) }
    }

    /// `source` where it is inside `x`, else the scalar `fill`.
    fn emit_guarded(&mut self, x: Value, fill: Value, source: &[Dim]) -> Emitted {
        let dims = self.dims(x)?;
        let fill = self.emit(fill, &[])?;
        if dims.contains(&Dim::ZERO) {
            return Ok(fill);
        }
        match self.inside(source, &dims) {
            (None, _) => self.emit(x, source),
            (Some(inside), clamped) => {
                let element = self.emit_moved(x, &clamped, source, &dims)?;
                Ok(self.kb.select(inside, element, fill))
            }
        }
    }

    /// Whether an index is inside (`None`: always), and the nearest index that is.
    pub(crate) fn inside(&mut self, source: &[Dim], dims: &[Dim]) -> (Option<Reg>, Vec<Dim>) {
        let mut condition: Option<Reg> = None;
        let mut clamped = source.to_vec();
        for (axis, (i, extent)) in source.iter().zip(dims).enumerate() {
            if !self.ranges.nonnegative(i) {
                let (zero, at) = (self.kb.constant(Scalar::i64(0)), self.index_value(i.clone()));
                let above = self.kb.binary(BinaryOp::Le, zero, at);
                condition = Some(self.both(condition, above));
                clamped[axis] = clamped[axis].maximum(&Dim::ZERO);
            }
            if !self.ranges.less(i, extent) {
                let (at, end) = (self.index_value(i.clone()), self.index_value(extent.clone()));
                let below = self.kb.binary(BinaryOp::Lt, at, end);
                condition = Some(self.both(condition, below));
                clamped[axis] = clamped[axis].minimum(&(extent - &Dim::ONE));
            }
        }
        (condition, clamped)
    }

    fn both(&mut self, a: Option<Reg>, b: Reg) -> Reg {
        match a {
            Some(a) => self.kb.binary(BinaryOp::And, a, b),
            None => b,
        }
    }

    /// A register as part of an index.
    fn as_index(&mut self, reg: Reg) -> Dim {
        self.ranges.insert_opaque(reg.symbol());
        reg.symbol().into()
    }

    /// An index inside a value of these extents, its long parts in registers. Each of several views that don't fold
    /// writes the parts of the index before it into every part of its own: written out, they would double at every view.
    fn short(&mut self, index: Vec<Dim>, dims: &[Dim]) -> Vec<Dim> {
        /// Symbols that a part may name, each time that it does.
        const LONG: usize = 48;
        let mut short = Vec::with_capacity(index.len());
        for (part, extent) in index.into_iter().zip(dims) {
            let mut symbols = 0;
            part.visit_symbols(&mut |_| symbols += 1);
            if symbols <= LONG {
                short.push(part);
                continue;
            }
            let held = Dim::from(self.index_value(part).symbol());
            self.ranges.insert(&held, extent);
            short.push(held);
        }
        short
    }

    /// A slice start, moved so that `size` elements stay inside.
    fn clamped_start(&mut self, start: Value, extent: &Dim, size: &Dim) -> Result<Dim, LowerError> {
        let start = self.emit(start, &[])?;
        let (zero, last) = (self.kb.constant(Scalar::i64(0)), self.index_value(extent - size));
        let start = self.kb.binary(BinaryOp::Min, start, last);
        let start = self.kb.binary(BinaryOp::Max, start, zero);
        Ok(self.as_index(start))
    }

    fn emit_update_slice(&mut self, value: Value, operands: &[Value], index: &[Dim]) -> Emitted {
        let (dims, size) = (self.dims(value)?, self.dims(operands[1])?);
        let mut source = Vec::with_capacity(index.len());
        for axis in 0..index.len() {
            let start = self.clamped_start(operands[axis + 2], &dims[axis], &size[axis])?;
            source.push(&index[axis] - &start);
        }
        let old = self.emit(operands[0], index)?;
        if size.contains(&Dim::ZERO) {
            return Ok(old);
        }
        match self.inside(&source, &size) {
            (None, _) => self.emit(operands[1], &source),
            (Some(inside), clamped) => {
                let new = self.emit_moved(operands[1], &clamped, &source, &size)?;
                Ok(self.kb.select(inside, new, old))
            }
        }
    }

    fn emit_concat(&mut self, operands: &[Value], axis: usize, index: &[Dim]) -> Emitted {
        let mut start = Dim::ZERO;
        let mut result: Option<Reg> = None;
        for &operand in operands {
            let dims = self.dims(operand)?;
            let end = &start + &dims[axis];
            let local = self.ranges.simplify(&(&index[axis] - &start));
            let (reaches, passes) =
                (self.ranges.less(&index[axis], &start), self.ranges.nonnegative(&(&index[axis] - &end)));
            if dims[axis] != Dim::ZERO && !reaches && !passes {
                let mut source = index.to_vec();
                source[axis] = self.ranges.simplify(&local.maximum(&Dim::ZERO).minimum(&(&dims[axis] - &Dim::ONE)));
                let element = self.emit_moved(operand, &source, index, &dims)?;
                result = Some(match result {
                    None => element,
                    Some(before) => {
                        let (at, from) = (self.index_value(index[axis].clone()), self.index_value(start.clone()));
                        let earlier = self.kb.binary(BinaryOp::Lt, at, from);
                        self.kb.select(earlier, before, element)
                    }
                });
            }
            start = end;
        }
        result.ok_or_else(|| LowerError::Internal("an element of an empty concat".to_owned()))
    }

    fn emit_gather(&mut self, node: &Node, operands: &[Value], axis: usize, index: &[Dim]) -> Emitted {
        let data = self.dims(operands[0])?;
        let rank = self.tensor(operands[1])?.rank();
        let looked_up = self.emit(operands[1], &index[axis..axis + rank])?;
        let at = self.cast(looked_up, DType::I64, false);
        let checked = self.checked_index(at, &data[axis], &node.origin.to_string());
        let mut source = index[..axis].to_vec();
        source.push(checked);
        source.extend(index[axis + rank..].iter().cloned());
        self.emit(operands[0], &source)
    }

    /// An index register that must be in 0..extent: reports an error when it is not, and stays inside all the same.
    pub(crate) fn checked_index(&mut self, at: Reg, extent: &Dim, origin: &str) -> Dim {
        let code = self.kb.trap(format!("{origin}: an index is outside the extent of its axis"));
        let (zero, end) = (self.kb.constant(Scalar::i64(0)), self.index_value(extent.clone()));
        let (above, below) = (self.kb.binary(BinaryOp::Le, zero, at), self.kb.binary(BinaryOp::Lt, at, end));
        let ok = self.kb.binary(BinaryOp::And, above, below);
        self.kb.push(Stmt::Check { ok, code });
        let safe = self.kb.select(ok, at, zero);
        self.as_index(safe)
    }
}

/// Element `position` of a tensor as a scalar.
pub(crate) fn scalar_at(tensor: &frit_ir::Tensor, position: usize) -> Option<Scalar> {
    let size = tensor.dtype().size();
    let bytes = tensor.bytes().get(position.checked_mul(size)?..)?.get(..size)?;
    let mut word = [0u8; 8];
    word.get_mut(..size)?.copy_from_slice(bytes);
    Some(Scalar { dtype: tensor.dtype(), bits: u64::from_le_bytes(word) })
}
