//! What a model costs, counted from its module and its plan: operations, parameters, memory.
//!
//! Extents that are symbols count with the values given, 1 otherwise. Operations are counted as papers do: an addition,
//! a multiplication or an elementary function is one, a product of matrices 2 m n k; the body of a loop counts once.

use std::collections::{BTreeMap, BTreeSet};

use frit_compiler::plan::memory::{Life, Packing};
use frit_compiler::plan::{Place, Plan, Program};
use frit_ir::{Dim, Function, Module, NodeId, Op, OpClass, Symbol, TensorType, ValueType};

/// Extents of symbols by name.
pub(crate) type Extents = [(String, usize)];

/// Value of an extent; 0 when it can't be told.
fn extent(dim: &Dim, extents: &Extents) -> u64 {
    let lookup = |s: &Symbol| {
        let named = extents.iter().find(|(name, _)| name == s.name()).and_then(|(_, n)| i64::try_from(*n).ok());
        Some(named.unwrap_or(1))
    };
    dim.eval(&lookup).and_then(|v| u64::try_from(v).ok()).unwrap_or(0)
}

fn numel(ty: &TensorType, extents: &Extents) -> u64 {
    ty.dims.iter().fold(1, |n: u64, d| n.saturating_mul(extent(d, extents)))
}

/// Ops of a module by name, regions included, inputs, constants and parameters not.
pub(crate) fn histogram(module: &Module) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    visit(module, &mut |f, id| {
        let name = match &f.node(id).op {
            op if op.class() == OpClass::Source => return,
            Op::Fusion { .. } | Op::Absent { .. } => return,
            Op::Onnx { op_type, domain, .. } if domain.is_empty() => op_type.clone(),
            Op::Onnx { op_type, domain, .. } => format!("{domain}.{op_type}"),
            op => op.name().to_owned(),
        };
        *counts.entry(name).or_insert(0) += 1;
    });
    counts
}

/// Floating-point operations of one run.
pub(crate) fn flops(module: &Module, extents: &Extents) -> u64 {
    let mut sum = 0u64;
    visit(module, &mut |f, id| sum = sum.saturating_add(node_flops(f, id, extents)));
    sum
}

fn node_flops(f: &Function, id: NodeId, extents: &Extents) -> u64 {
    let node = f.node(id);
    let operand = |i: usize| node.operands().get(i).and_then(|v| f.ty(*v).tensor());
    let Some(result) = node.results().first().and_then(ValueType::tensor) else { return 0 };
    let out = numel(result, extents);
    match (&node.op, operand(0), operand(1)) {
        (Op::DotGeneral { lhs_contract, .. }, Some(left), _) => {
            let k = lhs_contract.iter().filter_map(|a| left.dims.get(*a)).map(|d| extent(d, extents));
            k.fold(2 * out, u64::saturating_mul)
        }
        (Op::Conv { .. }, _, Some(w)) => {
            let outputs = w.dims.first().map_or(1, |d| extent(d, extents)).max(1);
            (numel(w, extents) / outputs).saturating_mul(2 * out)
        }
        (Op::ConvTranspose { .. }, Some(x), Some(w)) => {
            let inputs = w.dims.first().map_or(1, |d| extent(d, extents)).max(1);
            (numel(w, extents) / inputs).saturating_mul(2 * numel(x, extents))
        }
        (op, Some(x), _) => match op.class() {
            OpClass::Elementwise if result.dtype.is_float() => out,
            OpClass::Reduction if x.dtype.is_float() => numel(x, extents),
            _ => 0,
        },
        _ => 0,
    }
}

fn visit(module: &Module, see: &mut dyn FnMut(&Function, NodeId)) {
    fn function(f: &Function, see: &mut dyn FnMut(&Function, NodeId)) {
        for id in f.nodes() {
            see(f, id);
            f.node(id).regions().iter().for_each(|region| function(region, see));
        }
    }
    module.functions.values().for_each(|f| function(f, see));
}

/// Weights: elements and bytes, those of constants in the graph included.
pub(crate) fn parameters(module: &Module) -> (u64, u64) {
    let (mut elements, mut bytes) = (0u64, 0u64);
    let mut add = |ty: &TensorType| {
        let n = numel(ty, &[]);
        elements += n;
        bytes += n * ty.dtype.size() as u64;
    };
    let mut seen = BTreeSet::new();
    visit(module, &mut |f, id| match &f.node(id).op {
        Op::Param { name, ty } if seen.insert(name.clone()) => add(ty),
        Op::Constant { value } if value.numel() > 1 => add(&value.ty()),
        _ => {}
    });
    (elements, bytes)
}

/// Bytes of constants that the plan carries.
pub(crate) fn constant_bytes(plan: &Plan) -> u64 {
    plan.constants.iter().map(|c| c.value.bytes().len() as u64).sum()
}

/// Bytes of the arena of a program, values packed by their lives.
pub(crate) fn arena_bytes(program: &Program, extents: &Extents) -> u64 {
    let bytes = |dims: &[frit_compiler::plan::DimId], size: usize| {
        let extents = dims.iter().filter_map(|d| program.dims.get(d.index())).map(|d| extent(d, extents));
        usize::try_from(extents.fold(size as u64, u64::saturating_mul)).unwrap_or(usize::MAX)
    };
    let lives: Vec<Life> = program
        .slots
        .iter()
        .filter_map(|slot| match (&slot.place, slot.ty.tensor()) {
            (Place::Arena { first, last }, Some(ty)) => {
                Some(Life { bytes: bytes(&slot.dims, ty.dtype.size()), first: *first, last: *last })
            }
            _ => None,
        })
        .collect();
    Packing::default().pack(&lives).map_or(u64::MAX, |total| total as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_count_two_each_and_symbols_are_given() {
        let mut f = Function::new("infer");
        let x = f.add_input("x", TensorType::new(frit_ir::DType::F32, [Dim::symbol("n"), Dim::from(3_usize)]));
        let y = f.add_input("y", TensorType::known(frit_ir::DType::F32, &[3, 5]));
        let op = Op::DotGeneral {
            lhs_batch: vec![],
            rhs_batch: vec![],
            lhs_contract: vec![1],
            rhs_contract: vec![0],
            accumulate: frit_ir::DType::F32,
        };
        let product = f.add_op(op, &[x, y], Vec::new(), &frit_ir::Origin::named("product")).unwrap();
        f.add_output("z", frit_ir::Value { node: product, result: 0 });
        let module = Module::of(f);
        assert_eq!(flops(&module, &[("n".to_owned(), 4)]), 2 * 4 * 3 * 5);
        assert_eq!(histogram(&module)["dot_general"], 1);
    }
}
