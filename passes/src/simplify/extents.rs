//! The `shape` pass: small integer tensors that are known become constants, scalars that are an extent become `dim`.
//!
//! In: core ops. Out: the same, where no op computes what shapes already say ([`crate::shape::Values`]). What such ops
//! read is often dead afterwards and goes with [`super::dce`].

use frit_ir::types::DType;
use frit_ir::{Function, Module, Op, Param, Tensor, Value};
use indexmap::IndexMap;

use crate::manager::{Context, Pass, PassError};
use crate::shape::{HostInts, Values};

/// The pass.
pub struct Shape;

const CONSTANT: &str = "shape-constant";
const DIM: &str = "shape-dim";

impl Pass for Shape {
    fn run(&self, module: &mut Module, context: &mut Context<'_>) -> Result<(), PassError> {
        for f in module.functions.values_mut() {
            fold_extents(f, &module.params, context)?;
        }
        Ok(())
    }
}

/// What replaces a value of that type.
fn replacement(ints: &HostInts, dtype: DType) -> Option<(&'static str, Op)> {
    if let Some(numbers) = ints.numbers() {
        let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes().into_iter().take(dtype.size())).collect();
        let value = Tensor::from_bytes(dtype, &ints.shape, &bytes).ok()?;
        return Some((CONSTANT, Op::Constant { value }));
    }
    match ints.elements.as_slice() {
        [Some(value)] if ints.shape.is_empty() && dtype == DType::I64 => {
            Some((DIM, Op::DimValue { value: value.clone() }))
        }
        _ => None,
    }
}

fn fold_extents(
    f: &mut Function,
    params: &IndexMap<String, Param>,
    context: &mut Context<'_>,
) -> Result<(), PassError> {
    let mut values = Values::default();
    for id in f.toposort().ok_or_else(|| PassError::Cycle(f.name.clone()))? {
        for region in f.regions_mut(id) {
            fold_extents(region, params, context)?;
        }
        let node = f.node(id);
        let value = Value { node: id, result: 0 };
        let computed = node.results().len() == 1
            && node.regions().is_empty()
            && !matches!(
                node.op,
                Op::Input { .. } | Op::Constant { .. } | Op::Param { .. } | Op::DimValue { .. } | Op::Onnx { .. }
            );
        if !computed || f.use_count(value) == 0 {
            continue;
        }
        // An assert stays: it is there for its failure, also when its value is known.
        if matches!(node.op, Op::Assert { .. }) {
            continue;
        }
        let Some(dtype) = f.ty(value).tensor().map(|t| t.dtype) else { continue };
        let Some(ints) = values.ints(f, params, value) else { continue };
        let Some((rule, op)) = replacement(&ints, dtype) else { continue };
        if !context.take(rule) {
            return Ok(());
        }
        let origin = f.node(id).origin.clone();
        let new = f.add_op(op, &[], Vec::new(), &origin).map_err(|source| PassError::Rewrite {
            pass: "shape",
            rule,
            origin: origin.to_string(),
            source,
        })?;
        let new = Value { node: new, result: 0 };
        // A symbolic extent that the type spells differently keeps its op.
        if f.ty(new) == f.ty(value) {
            f.replace_uses(value, new);
        } else {
            f.remove_op(new.node);
        }
    }
    Ok(())
}
