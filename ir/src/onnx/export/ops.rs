//! How each core op is written: the table.
//!
//! Every op of an expanded function has a row in [`Writer::write`]; most are one node. The elementwise ones whose ONNX
//! operator has the same meaning are in [`unary`] and [`binary`].

use super::super::tensor::data_type;
use super::ExportError;
use super::spread::operand;
use super::types::{index, int, ints, text};
use super::writer::{Frame, Held, Writer, internal};
use crate::graph::{NodeId, Value};
use crate::op::{BinaryOp, Op, ReduceKind, ScatterKind, UnaryOp};
use crate::types::{DType, Dim, TensorType, ValueType};

/// The operator of the same meaning; `None`: expanded away.
fn unary(op: UnaryOp, dtype: DType) -> Option<&'static str> {
    Some(match op {
        UnaryOp::Neg => "Neg",
        UnaryOp::Abs => "Abs",
        UnaryOp::Sign => "Sign",
        UnaryOp::Floor => "Floor",
        UnaryOp::Ceil => "Ceil",
        UnaryOp::RoundEven => "Round",
        UnaryOp::Sqrt => "Sqrt",
        UnaryOp::Exp => "Exp",
        UnaryOp::Log => "Log",
        UnaryOp::Sin => "Sin",
        UnaryOp::Cos => "Cos",
        UnaryOp::Tan => "Tan",
        UnaryOp::Asin => "Asin",
        UnaryOp::Acos => "Acos",
        UnaryOp::Atan => "Atan",
        UnaryOp::Tanh => "Tanh",
        UnaryOp::Erf => "Erf",
        UnaryOp::Not if dtype == DType::Bool => "Not",
        UnaryOp::Not => "BitwiseNot",
        UnaryOp::Trunc | UnaryOp::Expm1 | UnaryOp::Log1p => return None,
    })
}

/// The operator of the same meaning; `None`: expanded away. (`rem` is `Mod` with `fmod`, shifts have a direction.)
fn binary(op: BinaryOp, dtype: DType) -> Option<&'static str> {
    Some(match op {
        BinaryOp::Add => "Add",
        BinaryOp::Sub => "Sub",
        BinaryOp::Mul => "Mul",
        BinaryOp::Div => "Div",
        BinaryOp::Rem => "Mod",
        BinaryOp::Pow => "Pow",
        BinaryOp::Min => "Min",
        BinaryOp::Max => "Max",
        BinaryOp::And if dtype == DType::Bool => "And",
        BinaryOp::And => "BitwiseAnd",
        BinaryOp::Or if dtype == DType::Bool => "Or",
        BinaryOp::Or => "BitwiseOr",
        BinaryOp::Xor if dtype == DType::Bool => "Xor",
        BinaryOp::Xor => "BitwiseXor",
        BinaryOp::Shl | BinaryOp::Shr => "BitShift",
        BinaryOp::Eq => "Equal",
        BinaryOp::Lt => "Less",
        BinaryOp::Le => "LessOrEqual",
        BinaryOp::Atan2 => return None,
    })
}

fn reduction(kind: ReduceKind) -> &'static str {
    match kind {
        ReduceKind::Sum => "ReduceSum",
        ReduceKind::Prod => "ReduceProd",
        ReduceKind::Min => "ReduceMin",
        ReduceKind::Max => "ReduceMax",
        ReduceKind::ArgMin => "ArgMin",
        ReduceKind::ArgMax => "ArgMax",
    }
}

type Written = Result<(), ExportError>;

impl Writer<'_> {
    /// Writes one op.
    pub(super) fn write(&mut self, frame: &mut Frame<'_>, id: NodeId) -> Written {
        let f = frame.f;
        let node = f.node(id);
        let operands = node.operands();
        match &node.op {
            Op::Unary(op) => {
                let x = operand(frame, id, 0)?;
                let name = unary(*op, frame.tensor(x)?.dtype).ok_or_else(|| internal("an op was not expanded"))?;
                self.plain(frame, id, name, Vec::new())
            }
            Op::Binary(op) => {
                let dtype = frame.tensor(operand(frame, id, 0)?)?.dtype;
                let name = binary(*op, dtype).ok_or_else(|| internal("an op was not expanded"))?;
                let attributes = match op {
                    BinaryOp::Rem => vec![int("fmod", 1)],
                    BinaryOp::Shl => vec![text("direction", "LEFT")],
                    BinaryOp::Shr => vec![text("direction", "RIGHT")],
                    _ => Vec::new(),
                };
                let names = self.broadcasting(frame, operands)?;
                self.finish_with(frame, id, name, &names, attributes)
            }
            Op::Select { .. } => {
                let names = self.broadcasting(frame, operands)?;
                self.finish_with(frame, id, "Where", &names, Vec::new())
            }
            Op::Cast { to, saturate } => self.cast(frame, id, *to, *saturate),
            Op::Bitcast { to } => {
                let to = int("to", i64::from(data_type(*to) as i32));
                self.plain(frame, id, "BitCast", vec![to])
            }
            Op::Iota { dtype, dims, axis } => self.iota(frame, id, *dtype, dims, *axis),
            Op::DimValue { value } => {
                if let Some(v) = value.known() {
                    let name = self.number(frame, v)?;
                    return self.alias(frame, id, &name);
                }
                let (extent, scalar) = (self.extent(frame, value)?, self.list(frame, &[])?);
                self.finish(frame, id, "Reshape", &[&extent, &scalar], Vec::new());
                Ok(())
            }
            Op::Broadcast { axes, .. } => self.broadcast(frame, id, axes),
            Op::Reshape { dims } => self.reshape(frame, id, dims),
            Op::Transpose { perm } => self.plain(frame, id, "Transpose", vec![ints("perm", perm.iter().copied())]),
            Op::Slice { starts, sizes, steps } => self.slice(frame, id, starts, sizes, steps),
            Op::DynamicSlice { sizes } => self.dynamic_slice(frame, id, sizes),
            Op::UpdateSlice {} => self.update_slice(frame, id),
            Op::Pad { low, high } => {
                let pads = self.extents(frame, &[low.as_slice(), high].concat())?;
                let names = self.all(frame, operands)?;
                let [x, value] = names.as_slice() else { return Err(internal("`pad` takes two")) };
                self.finish(frame, id, "Pad", &[x, &pads, value], Vec::new());
                Ok(())
            }
            Op::Concat { axis } => self.plain(frame, id, "Concat", vec![int("axis", index(*axis))]),
            Op::Gather { axis } => self.plain(frame, id, "Gather", vec![int("axis", index(*axis))]),
            Op::Scatter { axis, kind } => self.scatter(frame, id, *axis, *kind),
            Op::Window { .. } => {
                if !super::expand::pooled(f, id) {
                    return Err(internal("a view of windows was not expanded"));
                }
                frame.values.insert(Value { node: id, result: 0 }, Held::Pooled);
                Ok(())
            }
            Op::Reduce { axes, kind } => self.reduce(frame, id, axes, *kind),
            Op::Cumulate { axis, kind, exclusive, reverse } => {
                if *kind != ReduceKind::Sum {
                    return Err(internal("a running combination was not expanded"));
                }
                let axis = self.number(frame, index(*axis))?;
                let x = self.name(frame, operand(frame, id, 0)?)?;
                let flags = vec![int("exclusive", i64::from(*exclusive)), int("reverse", i64::from(*reverse))];
                self.finish(frame, id, "CumSum", &[&x, &axis], flags);
                Ok(())
            }
            Op::Sort { axis, descending } => self.sort(frame, id, *axis, *descending),
            Op::DotGeneral { .. } => self.dot_general(frame, id),
            Op::Conv { strides, dilations, low, high, groups } => {
                let attributes = vec![
                    ints("strides", strides.iter().copied()),
                    ints("dilations", dilations.iter().copied()),
                    ints("pads", low.iter().chain(high).copied()),
                    int("group", index(*groups)),
                ];
                self.plain(frame, id, "Conv", attributes)
            }
            Op::ConvTranspose { strides, dilations, low, high, output_padding, groups } => {
                let dtype = frame.tensor(operand(frame, id, 0)?)?.dtype;
                if !dtype.is_float() {
                    self.refuse(frame, format!("conv_transpose of {dtype}"));
                }
                let attributes = vec![
                    ints("strides", strides.iter().copied()),
                    ints("dilations", dilations.iter().copied()),
                    ints("pads", low.iter().chain(high).copied()),
                    ints("output_padding", output_padding.iter().copied()),
                    int("group", index(*groups)),
                ];
                self.plain(frame, id, "ConvTranspose", attributes)
            }
            Op::Compact { .. } => {
                let mask = self.name(frame, operand(frame, id, 0)?)?;
                let found = self.emit(frame, "NonZero", &[&mask], Vec::new());
                let axis = self.list(frame, &[0])?;
                self.finish(frame, id, "Squeeze", &[&found, &axis], Vec::new());
                Ok(())
            }
            Op::If {} => self.branch(frame, id),
            Op::Loop { carried, .. } => self.repeat(frame, id, *carried),
            Op::Call { function } => self.call(frame, id, function),
            Op::Composite { name, .. } => self.composite(frame, id, name),
            Op::Assert { message } => self.assert(frame, id, message),
            Op::SequenceConstruct { element } => match (operands, element) {
                ([], ValueType::Tensor(t)) => {
                    let dtype = int("dtype", i64::from(data_type(t.dtype) as i32));
                    self.plain(frame, id, "SequenceEmpty", vec![dtype])
                }
                (_, ValueType::Tensor(_)) => self.plain(frame, id, "SequenceConstruct", Vec::new()),
                (_, other) => self.unwritable(frame, id, format!("a sequence of {other}")),
            },
            Op::SequenceAt {} => self.plain(frame, id, "SequenceAt", Vec::new()),
            Op::SequenceInsert {} => self.plain(frame, id, "SequenceInsert", Vec::new()),
            Op::SequenceErase {} => self.plain(frame, id, "SequenceErase", Vec::new()),
            Op::SequenceLength {} => self.plain(frame, id, "SequenceLength", Vec::new()),
            Op::Vjp { .. } => self.unwritable(frame, id, "a derivative before `grad`".to_owned()),
            Op::Absent {} => self.unwritable(frame, id, "an absent operand outside of an ONNX op".to_owned()),
            Op::Onnx { domain, op_type, .. } => {
                let domain = if domain.is_empty() { "ai.onnx" } else { domain };
                self.unwritable(frame, id, format!("{domain}.{op_type} before `legalize`"))
            }
            Op::Input { .. } | Op::Constant { .. } | Op::Param { .. } | Op::Fusion {} => {
                Err(internal(format!("`{}` in an expanded function", node.op.name())))
            }
        }
    }

    /// One node that takes the operands as they are.
    fn plain(
        &mut self,
        frame: &mut Frame<'_>,
        id: NodeId,
        op_type: &str,
        attributes: Vec<super::super::proto::AttributeProto>,
    ) -> Written {
        let f = frame.f;
        let names = self.all(frame, f.node(id).operands())?;
        self.finish_with(frame, id, op_type, &names, attributes)
    }

    pub(super) fn finish_with(
        &mut self,
        frame: &mut Frame<'_>,
        id: NodeId,
        op_type: &str,
        names: &[String],
        attributes: Vec<super::super::proto::AttributeProto>,
    ) -> Written {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.finish(frame, id, op_type, &names, attributes);
        Ok(())
    }

    /// The result is a value that has a name already.
    pub(super) fn alias(&mut self, frame: &mut Frame<'_>, id: NodeId, name: &str) -> Written {
        frame.bind(Value { node: id, result: 0 }, name);
        Ok(())
    }

    /// Reports an op and goes on, so that the report lists everything.
    fn unwritable(&mut self, frame: &mut Frame<'_>, id: NodeId, what: String) -> Written {
        self.refuse(frame, what);
        for result in 0..frame.f.node(id).results().len() {
            frame.values.insert(Value { node: id, result }, Held::Is(String::new()));
        }
        Ok(())
    }

    fn cast(&mut self, frame: &mut Frame<'_>, id: NodeId, to: DType, saturate: bool) -> Written {
        let x = operand(frame, id, 0)?;
        if frame.tensor(x)?.dtype == to {
            let name = self.name(frame, x)?;
            return self.alias(frame, id, &name);
        }
        let mut attributes = vec![int("to", i64::from(data_type(to) as i32))];
        if to.is_float() && to.bits() == 8 && to != DType::F8E8M0 {
            attributes.push(int("saturate", i64::from(saturate)));
        }
        self.plain(frame, id, "Cast", attributes)
    }

    fn reduce(&mut self, frame: &mut Frame<'_>, id: NodeId, axes: &[usize], kind: ReduceKind) -> Written {
        if let Some((window, kind)) = super::expand::pool(frame.f, id) {
            return self.pool(frame, id, window, kind);
        }
        let x = self.name(frame, operand(frame, id, 0)?)?;
        if let (ReduceKind::ArgMin | ReduceKind::ArgMax, [axis]) = (kind, axes) {
            let attributes = vec![int("axis", index(*axis)), int("keepdims", 0)];
            self.finish(frame, id, reduction(kind), &[&x], attributes);
            return Ok(());
        }
        let axes: Vec<i64> = axes.iter().copied().map(index).collect();
        let axes = self.list(frame, &axes)?;
        self.finish(frame, id, reduction(kind), &[&x, &axes], vec![int("keepdims", 0)]);
        Ok(())
    }

    /// Windows reduced at once. A sum is an average with the padding counted, times the window's size.
    fn pool(&mut self, frame: &mut Frame<'_>, id: NodeId, window: NodeId, kind: ReduceKind) -> Written {
        let x = self.name(frame, operand(frame, window, 0)?)?;
        let Op::Window { sizes, strides, dilations, low, high, .. } = &frame.f.node(window).op else {
            return Err(internal("a pool of no windows"));
        };
        let mut attributes = vec![
            ints("kernel_shape", sizes.iter().copied()),
            ints("strides", strides.iter().copied()),
            ints("dilations", dilations.iter().copied()),
            ints("pads", low.iter().chain(high).copied()),
        ];
        if kind == ReduceKind::Max {
            self.finish(frame, id, "MaxPool", &[&x], attributes);
            return Ok(());
        }
        attributes.push(int("count_include_pad", 1));
        let mean = self.emit(frame, "AveragePool", &[&x], attributes);
        let size = crate::convert::scalar(DType::F32, sizes.iter().map(|&s| s as f64).product());
        let size = size.ok_or_else(|| internal("no f32 scalar"))?;
        let size = self.constant(frame, &size);
        self.finish(frame, id, "Mul", &[&mean, &size], Vec::new());
        Ok(())
    }

    fn sort(&mut self, frame: &mut Frame<'_>, id: NodeId, axis: usize, descending: bool) -> Written {
        let f = frame.f;
        let node = f.node(id);
        let dims = frame.tensor(operand(frame, id, 0)?)?.dims.clone();
        let count = self.extent(frame, dims.get(axis).unwrap_or(&Dim::ONE))?;
        let names = self.all(frame, node.operands())?;
        let (Some((keys, rest)), Some(_)) = (names.split_first(), node.results().first()) else {
            return Err(internal("`sort` takes keys"));
        };
        let attributes = vec![int("axis", index(axis)), int("largest", i64::from(descending)), int("sorted", 1)];
        let sorted = self.result(frame, Value { node: id, result: 0 });
        let order = self.emit_two(frame, "TopK", &[keys, &count], &sorted, attributes);
        frame.bind(Value { node: id, result: 0 }, &sorted);
        for (i, other) in rest.iter().enumerate() {
            let value = Value { node: id, result: i + 1 };
            let name = self.result(frame, value);
            self.named(frame, "GatherElements", &[other, &order], &name, vec![int("axis", index(axis))]);
            frame.bind(value, &name);
        }
        Ok(())
    }

    /// Places along `axis`, each update in its turn: `ScatterElements` with the indices repeated.
    fn scatter(&mut self, frame: &mut Frame<'_>, id: NodeId, axis: usize, kind: ScatterKind) -> Written {
        let f = frame.f;
        let names = self.all(frame, f.node(id).operands())?;
        let [x, indices, updates] = names.as_slice() else { return Err(internal("`scatter` takes three")) };
        let ty: &TensorType = frame.tensor(operand(frame, id, 2)?)?;
        let mut indices = indices.clone();
        if ty.rank() > 1 {
            let others: Vec<i64> = (0..ty.rank()).filter(|&a| a != axis).map(index).collect();
            let axes = self.list(frame, &others)?;
            let lined = self.emit(frame, "Unsqueeze", &[&indices, &axes], Vec::new());
            let shape = self.extents(frame, &ty.dims)?;
            indices = self.emit(frame, "Expand", &[&lined, &shape], Vec::new());
        }
        let reduction = match kind {
            ScatterKind::Assign => "none",
            ScatterKind::Add => "add",
            ScatterKind::Mul => "mul",
            ScatterKind::Min => "min",
            ScatterKind::Max => "max",
        };
        let attributes = vec![int("axis", index(axis)), text("reduction", reduction)];
        self.finish(frame, id, "ScatterElements", &[x, &indices, updates], attributes);
        Ok(())
    }

    /// ONNX has no assertion: the value is multiplied by an element looked up in `[1]`, at a place that is outside
    /// where the condition does not hold.
    fn assert(&mut self, frame: &mut Frame<'_>, id: NodeId, message: &str) -> Written {
        let f = frame.f;
        let (x, condition) = (operand(frame, id, 0)?, operand(frame, id, 1)?);
        let number = match f.ty(x) {
            ValueType::Tensor(t) if t.dtype != DType::BF16 => crate::convert::scalar(t.dtype, 1.0),
            _ => None,
        };
        let (Some(one), ValueType::Tensor(checked)) = (number, f.ty(condition)) else {
            return self.unwritable(frame, id, format!("an assertion about {} (\"{message}\")", f.ty(x)));
        };
        let operator = if one.dtype() == DType::Bool { "And" } else { "Mul" };
        let one = one.reshaped(&[1]).map_err(|e| internal(e.to_string()))?;
        let one = self.constant(frame, &one);
        let (value, condition) = (self.name(frame, x)?, self.name(frame, condition)?);
        let broken = self.emit(frame, "Not", &[&condition], Vec::new());
        let to = int("to", i64::from(data_type(DType::I64) as i32));
        let mut place = self.emit(frame, "Cast", &[&broken], vec![to]);
        if checked.rank() > 0 {
            place = self.emit(frame, "ReduceSum", &[&place], vec![int("keepdims", 0)]);
        }
        let factor = self.emit(frame, "Gather", &[&one, &place], vec![int("axis", 0)]);
        self.finish(frame, id, operator, &[&value, &factor], Vec::new());
        Ok(())
    }
}
