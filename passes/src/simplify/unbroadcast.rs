//! `constant-unbroadcast`: a constant that repeats along some axes becomes the broadcast of a smaller one.
//!
//! Exporters write out expanded tables (784 equal rows of 6 phases). Bits are compared, so the result is exact; a tensor
//! that does not repeat is left after its first difference. A parameter that training may change is never looked at.

use frit_ir::types::Dim;
use frit_ir::{Function, Module, Node, Numerics, Op, Origin, Param, Tensor, Value};
use indexmap::IndexMap;

use super::algebra::Scope;
use super::fold::LIMIT;
use crate::manager::{Context, Pass, PassError};

const RULE: &str = "constant-unbroadcast";

/// The pass.
pub struct Unbroadcast;

impl Pass for Unbroadcast {
    fn run(&self, module: &mut Module, context: &mut Context<'_>) -> Result<(), PassError> {
        let (functions, params) = (&mut module.functions, &mut module.params);
        for f in functions.values_mut() {
            shrink_all(f, params, context)?;
        }
        Ok(())
    }
}

/// The tensor without axes along which it repeats, and the axes that stay; `None` when it repeats along none.
fn distinct(tensor: &Tensor) -> Option<(Tensor, Vec<usize>)> {
    let (shape, size) = (tensor.shape(), tensor.dtype().size());
    if size == 0 || tensor.numel() < 2 {
        return None;
    }
    let mut bytes = std::borrow::Cow::Borrowed(tensor.bytes());
    let mut extents: Vec<usize> = shape.to_vec();
    for axis in 0..shape.len() {
        let inner = extents.get(axis + 1..)?.iter().product::<usize>() * size;
        let extent = shape[axis];
        if extent < 2 {
            continue;
        }
        let equal = |block: &[u8]| {
            let mut rows = block.chunks_exact(inner);
            rows.next().is_some_and(|first| rows.all(|row| row == first))
        };
        if bytes.chunks_exact(inner * extent).all(equal) {
            let kept: Vec<u8> = bytes.chunks_exact(inner * extent).flat_map(|block| &block[..inner]).copied().collect();
            bytes = kept.into();
            extents[axis] = 1;
        }
    }
    let axes: Vec<usize> = (0..shape.len()).filter(|&a| extents[a] == shape[a]).collect();
    if axes.len() == shape.len() {
        return None;
    }
    let small: Vec<usize> = axes.iter().map(|&a| shape[a]).collect();
    Some((Tensor::from_bytes(tensor.dtype(), &small, &bytes).ok()?, axes))
}

/// The op that holds a tensor: a constant, or a new parameter when it is large.
fn holder(node: &Node, value: Tensor, params: &mut IndexMap<String, Param>) -> Op {
    let Op::Param { name, .. } = &node.op else { return Op::Constant { value } };
    if value.numel() <= LIMIT {
        return Op::Constant { value };
    }
    let mut name = format!("{name}.distinct");
    while params.get(&name).is_some_and(|p| p.value != value) {
        name.push('_');
    }
    let ty = value.ty();
    params.insert(name.clone(), Param { value, trainable: false });
    Op::Param { name, ty }
}

fn shrink_all(
    f: &mut Function,
    params: &mut IndexMap<String, Param>,
    context: &mut Context<'_>,
) -> Result<(), PassError> {
    for id in f.nodes() {
        for region in f.regions_mut(id) {
            shrink_all(region, params, context)?;
        }
        let old = Value { node: id, result: 0 };
        if !matches!(f.node(id).op, Op::Constant { .. } | Op::Param { .. }) || f.use_count(old) == 0 {
            continue;
        }
        let Some((value, axes)) = (Scope { f, params }).constant(old).and_then(distinct) else { continue };
        if !context.take(RULE) {
            return Ok(());
        }
        let node = f.node(id);
        let origin: Origin = node.origin.clone();
        let dims: Vec<Dim> = f.ty(old).tensor().map_or(Vec::new(), |t| t.dims.clone());
        let op = holder(node, value, params);
        let failed =
            |source| PassError::Rewrite { pass: "unbroadcast", rule: RULE, origin: origin.to_string(), source };
        let small = f.add_op_with(op, &[], Vec::new(), &origin, Numerics::STRICT).map_err(failed)?;
        let small = Value { node: small, result: 0 };
        let wide = f.add_op(Op::Broadcast { dims, axes }, &[small], Vec::new(), &origin).map_err(failed)?;
        f.replace_uses(old, Value { node: wide, result: 0 });
        f.remove_op(id);
    }
    Ok(())
}
