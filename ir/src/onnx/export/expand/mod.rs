//! Core ops that ONNX lacks, rewritten in core ops that it has.
//!
//! In: a verified function. Out: a function of the same inputs, outputs and meaning in which each op has one way to be
//! written. Three reasons for a rewrite:
//! - ONNX has no such op: `expm1`, `log1p`, `atan2`, `trunc`, integer `pow`, running products, views of windows, ...
//! - ONNX leaves open what the core fixes: integer division by 0 and by -1, shift counts outside the width, the sign of
//!   a zero or NaN, clamping casts;
//! - no kernel of that element type is to be expected: bfloat16 is computed in f32, which is what it means here; narrow
//!   integers in i32 and unsigned ones in i64, whose low bits are the same.
//!
//! This is module in, module out, so the reference evaluator checks it without any other runtime.
//!
//! Files: `elementwise`, `reduction`, `window` (windows and integer convolutions).

mod elementwise;
mod reduction;
mod window;

use std::collections::HashMap;

pub(super) use window::{pool, pooled};

use super::ExportError;
use crate::builder::{Builder, Built};
use crate::graph::{Function, Node, NodeId, Value};
use crate::module::Module;
use crate::op::infer::TypeError;
use crate::op::{Numerics, Op};
use crate::origin::Origin;
use crate::tensor::Tensor;
use crate::types::{DType, TensorType, ValueType};

type Many = Result<Vec<Value>, TypeError>;

/// The function, rewritten.
pub(super) fn expand(module: &Module, f: &Function) -> Result<Function, ExportError> {
    let mut expander =
        Expander { module, new: Function::new(&f.name), at: Origin::default(), numerics: Numerics::STRICT };
    expander.new.symbols.clone_from(&f.symbols);
    let mut map = HashMap::new();
    for value in f.input_values() {
        let name = if let Op::Input { name, .. } = f.op(value) { name.as_str() } else { "" };
        map.insert(value, expander.new.add_input(name, f.ty(value).clone()));
    }
    expander.body(f, &mut map)?;
    for output in f.outputs() {
        let value = map.get(&output.value).copied().ok_or_else(|| cyclic(f))?;
        expander.new.add_output(&output.name, value);
    }
    Ok(expander.new)
}

fn cyclic(f: &Function) -> ExportError {
    ExportError::Internal { what: format!("function `{}` can't be put in order", f.name) }
}

/// A function under construction, and the op that is being rewritten.
struct Expander<'m> {
    module: &'m Module,
    new: Function,
    at: Origin,
    numerics: Numerics,
}

impl Expander<'_> {
    /// The ops of `f`, whose inputs `map` binds.
    fn body(&mut self, f: &Function, map: &mut HashMap<Value, Value>) -> Result<(), ExportError> {
        for id in f.toposort().ok_or_else(|| cyclic(f))? {
            let node = f.node(id);
            if matches!(node.op, Op::Input { .. }) {
                continue;
            }
            let operands = node.operands().iter().map(|v| map.get(v).copied()).collect::<Option<Vec<_>>>();
            let operands = operands.ok_or_else(|| cyclic(f))?;
            self.at = node.origin.clone();
            self.numerics = node.numerics;
            let results = match (&node.op, node.regions()) {
                (Op::Fusion {}, [region]) => self.inlined(region, &operands)?,
                _ if !node.regions().is_empty() => self.with_regions(node, &operands)?,
                _ => {
                    let typed = self.node(f, id, &operands);
                    typed.map_err(|error| ExportError::Type { origin: node.origin.to_string(), error })?
                }
            };
            map.extend(results.into_iter().enumerate().map(|(result, v)| (Value { node: id, result }, v)));
        }
        Ok(())
    }

    /// What one kernel would compute, as its ops.
    fn inlined(&mut self, region: &Function, operands: &[Value]) -> Result<Vec<Value>, ExportError> {
        let mut map: HashMap<Value, Value> = region.input_values().zip(operands.iter().copied()).collect();
        self.body(region, &mut map)?;
        let values = region.outputs().iter().map(|o| map.get(&o.value).copied()).collect::<Option<Vec<_>>>();
        values.ok_or_else(|| cyclic(region))
    }

    fn with_regions(&mut self, node: &Node, operands: &[Value]) -> Result<Vec<Value>, ExportError> {
        let regions = node.regions().iter().map(|r| expand(self.module, r)).collect::<Result<Vec<_>, _>>()?;
        self.copy_with(node, operands, regions)
            .map_err(|error| ExportError::Type { origin: node.origin.to_string(), error })
    }

    fn copy_with(&mut self, node: &Node, operands: &[Value], regions: Vec<Function>) -> Many {
        let id = match &node.op {
            Op::Call { .. } | Op::Onnx { .. } => {
                self.new.add_typed(node.op.clone(), operands, node.results().to_vec(), regions, &node.origin)
            }
            _ => self.new.add_op_with(node.op.clone(), operands, regions, &node.origin, node.numerics)?,
        };
        Ok((0..node.results().len()).map(|result| Value { node: id, result }).collect())
    }

    // ---- building ----

    fn b(&mut self) -> Builder<'_> {
        let mut builder = Builder::new(&mut self.new, self.at.clone());
        builder.numerics = self.numerics;
        builder
    }

    fn op(&mut self, op: Op, operands: &[Value]) -> Built {
        self.b().op(op, operands)
    }

    fn tensor(&self, v: Value) -> Result<TensorType, TypeError> {
        let ty = self.new.ty(v);
        let refused = || TypeError { op: "operand", message: format!("{ty} is not a tensor") };
        ty.tensor().cloned().ok_or_else(refused)
    }

    fn dtype(&self, v: Value) -> Result<DType, TypeError> {
        Ok(self.tensor(v)?.dtype)
    }

    fn scalar(&mut self, dtype: DType, value: f64) -> Built {
        self.b().scalar(dtype, value)
    }

    /// A conversion that keeps values or low bits, where one is needed.
    fn cast(&mut self, x: Value, to: DType) -> Built {
        self.b().cast(x, to)
    }

    /// `op` on operands brought to a type that it has, its result brought back.
    fn through(&mut self, wide: DType, operands: &[Value], op: impl FnOnce(&mut Self, &[Value]) -> Built) -> Built {
        let Some(&first) = operands.first() else { return op(self, operands) };
        let narrow = self.dtype(first)?;
        let widened = operands.iter().map(|&v| self.cast(v, wide)).collect::<Result<Vec<_>, _>>()?;
        let result = op(self, &widened)?;
        if self.dtype(result)? == wide { self.cast(result, narrow) } else { Ok(result) }
    }

    /// The tensor that a value is everywhere, broadcasts looked through.
    fn constant(&self, v: Value) -> Option<Tensor> {
        let node = self.new.node(v.node);
        match &node.op {
            Op::Constant { value } => Some(value.clone()),
            Op::Param { name, .. } => self.module.params.get(name).map(|p| p.value.clone()),
            Op::Broadcast { .. } => self.constant(*node.operands().first()?),
            _ => None,
        }
    }

    // ---- one op ----

    fn node(&mut self, f: &Function, id: NodeId, operands: &[Value]) -> Many {
        let node = f.node(id);
        let one = |v: Value| Ok(vec![v]);
        match (&node.op, operands) {
            (Op::Unary(op), [x]) => one(self.unary(*op, *x)?),
            (Op::Binary(op), [a, b]) => one(self.binary(*op, *a, *b)?),
            (Op::Select { .. }, [c, a, b]) => one(self.select(*c, *a, *b)?),
            (Op::Cast { to, saturate }, [x]) => one(self.cast_to(*x, *to, *saturate)?),
            (Op::Bitcast { to }, [x]) => one(self.bitcast(*x, *to)?),
            (Op::Iota { dtype, dims, axis }, _) => {
                let counted = match dtype {
                    DType::F32 | DType::F64 | DType::I32 | DType::I64 => *dtype,
                    _ => DType::I64,
                };
                let iota = self.op(Op::Iota { dtype: counted, dims: dims.clone(), axis: *axis }, &[])?;
                one(self.cast(iota, *dtype)?)
            }
            (Op::Gather { axis }, [x, indices]) => {
                let indices = match self.dtype(*indices)? {
                    DType::I32 | DType::I64 => *indices,
                    _ => self.cast(*indices, DType::I64)?,
                };
                let wide = movable(&node.op, self.dtype(*x)?);
                let axis = *axis;
                one(self.through(wide, &[*x], |e, x| e.op(Op::Gather { axis }, &[x[0], indices]))?)
            }
            (Op::Scatter { axis, kind }, [x, indices, updates]) => {
                let indices = self.cast(*indices, DType::I64)?;
                let wide = movable(&node.op, self.dtype(*x)?);
                let op = Op::Scatter { axis: *axis, kind: *kind };
                one(self.through(wide, &[*x, *updates], |e, v| e.op(op, &[v[0], indices, v[1]]))?)
            }
            (Op::DynamicSlice { .. }, [x, starts @ ..]) => {
                let wide = movable(&node.op, self.dtype(*x)?);
                let op = node.op.clone();
                one(self.through(wide, &[*x], |e, x| e.op(op, &[x, starts].concat()))?)
            }
            (Op::UpdateSlice {}, [x, update, starts @ ..]) => {
                let wide = movable(&node.op, self.dtype(*x)?);
                let op = node.op.clone();
                one(self.through(wide, &[*x, *update], |e, v| e.op(op, &[v, starts].concat()))?)
            }
            (
                Op::Broadcast { .. } | Op::Reshape { .. } | Op::Slice { .. } | Op::Pad { .. } | Op::Concat { .. },
                [x, ..],
            ) => {
                let wide = movable(&node.op, self.dtype(*x)?);
                let op = node.op.clone();
                one(self.through(wide, operands, |e, v| e.op(op, v))?)
            }
            (Op::Window { .. }, [x, fill]) if !window::pooled(f, id) => {
                let dims = result_dims(node);
                one(self.window(&node.op, *x, *fill, &dims)?)
            }
            (Op::Reduce { axes, kind }, [x]) => one(self.reduce(*x, axes.clone(), *kind)?),
            (Op::Cumulate { axis, kind, exclusive, reverse }, [x]) => {
                one(self.cumulate(*x, *axis, *kind, *exclusive, *reverse)?)
            }
            (Op::Sort { .. }, [keys, rest @ ..]) => self.sort(&node.op, *keys, rest),
            (Op::DotGeneral { .. }, [a, b]) => one(self.dot(&node.op, *a, *b)?),
            (Op::Conv { .. } | Op::ConvTranspose { .. }, [x, w]) => {
                let dims = result_dims(node);
                one(self.convolution(&node.op, *x, *w, &dims)?)
            }
            (
                Op::Unary(_)
                | Op::Binary(_)
                | Op::Input { .. }
                | Op::Constant { .. }
                | Op::Param { .. }
                | Op::DimValue { .. }
                | Op::Select { .. }
                | Op::Cast { .. }
                | Op::Bitcast { .. }
                | Op::Broadcast { .. }
                | Op::Reshape { .. }
                | Op::Transpose { .. }
                | Op::Slice { .. }
                | Op::DynamicSlice { .. }
                | Op::UpdateSlice {}
                | Op::Pad { .. }
                | Op::Concat { .. }
                | Op::Gather { .. }
                | Op::Scatter { .. }
                | Op::Window { .. }
                | Op::Reduce { .. }
                | Op::Cumulate { .. }
                | Op::Sort { .. }
                | Op::DotGeneral { .. }
                | Op::Conv { .. }
                | Op::ConvTranspose { .. }
                | Op::Compact { .. }
                | Op::If {}
                | Op::Loop { .. }
                | Op::Call { .. }
                | Op::Composite { .. }
                | Op::Fusion {}
                | Op::Vjp { .. }
                | Op::Assert { .. }
                | Op::SequenceConstruct { .. }
                | Op::SequenceAt {}
                | Op::SequenceInsert {}
                | Op::SequenceErase {}
                | Op::SequenceLength {}
                | Op::Absent {}
                | Op::Onnx { .. },
                _,
            ) => self.copy_with(node, operands, Vec::new()),
        }
    }
}

fn result_dims(node: &Node) -> Vec<crate::types::Dim> {
    node.results().first().and_then(ValueType::tensor).map(|t| t.dims.clone()).unwrap_or_default()
}

/// The type in which elements of `dtype` are moved by `op`: its own, unless runtimes have no such kernel.
fn movable(op: &Op, dtype: DType) -> DType {
    match dtype {
        DType::BF16 if matches!(op, Op::Broadcast { .. }) => DType::F32,
        DType::I16 | DType::U16 if matches!(op, Op::Pad { .. }) => DType::I32,
        _ => stored(dtype),
    }
}

/// The type in which elements of a type that only stores are moved; others stay.
fn stored(dtype: DType) -> DType {
    match dtype {
        DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F8E5M2 | DType::F8E5M2FNUZ | DType::F8E8M0 | DType::F4E2M1 => {
            DType::F32
        }
        DType::I4 | DType::I2 => DType::I8,
        DType::U4 | DType::U2 => DType::U8,
        DType::F32
        | DType::F64
        | DType::F16
        | DType::BF16
        | DType::I8
        | DType::I16
        | DType::I32
        | DType::I64
        | DType::U8
        | DType::U16
        | DType::U32
        | DType::U64
        | DType::Bool
        | DType::Str => dtype,
    }
}

#[cfg(test)]
mod tests;
