//! Which ops the library computes, and in what form it wants them.
//!
//! The choice depends on op, types and shape alone, so that every optimisation level makes the same one. An operand
//! whose axes do not lie as the call wants them is transposed first, by a kernel.

use frit_ir::{DType, Dim, Function, NodeId, Op, Origin, TensorType, Value, ValueType};

use super::super::{DimId, LibraryCall, SlotId, Step};
use super::{BuildError, Building, PlanBuilder, Slots};
use crate::lower::lower;

/// An operand of a product in matrix form.
struct Matrix {
    slot: SlotId,
    /// Contracted axes come before free ones.
    contract_first: bool,
}

impl PlanBuilder<'_, '_, '_> {
    /// Adds the call for an op; false when the library does not compute it.
    pub(super) fn library(
        &mut self,
        b: &mut Building,
        f: &Function,
        slots: &mut Slots,
        id: NodeId,
    ) -> Result<bool, BuildError> {
        let node = f.node(id);
        let Some(first) = node.operands().first().and_then(|v| f.ty(*v).tensor()) else { return Ok(false) };
        let dtype = first.dtype;
        let call = match &node.op {
            Op::DotGeneral { lhs_batch, rhs_batch, lhs_contract, rhs_contract, accumulate } => {
                let right = f.ty(node.operands()[1]).tensor().map(|t| t.dtype);
                if right != Some(dtype) || !multiplies(dtype, *accumulate) {
                    return Ok(false);
                }
                let (lhs, rhs) = (node.operands()[0], node.operands()[1]);
                let left = self.matrix(b, f, slots, (lhs, lhs_batch, lhs_contract), false, &node.origin)?;
                let right = self.matrix(b, f, slots, (rhs, rhs_batch, rhs_contract), true, &node.origin)?;
                let (lhs, rhs) = (tensor(f, lhs)?, tensor(f, rhs)?);
                let batch: Vec<DimId> = lhs_batch.iter().map(|&a| b.dim(&lhs.dims[a])).collect();
                let call = LibraryCall::MatMul {
                    batch,
                    m: b.dim(&Dim::product(&free(lhs, lhs_batch, lhs_contract))),
                    n: b.dim(&Dim::product(&free(rhs, rhs_batch, rhs_contract))),
                    k: b.dim(&Dim::product(lhs_contract.iter().map(|&a| &lhs.dims[a]))),
                    lhs_transposed: left.contract_first,
                    rhs_transposed: !right.contract_first,
                    lhs_shared: false,
                    rhs_shared: false,
                    dtype,
                    accumulate: *accumulate,
                };
                return self.call(b, f, slots, id, call, vec![left.slot, right.slot]);
            }
            Op::Conv { strides, dilations, low, high, groups } if dtype == DType::F32 => LibraryCall::Conv {
                strides: strides.clone(),
                dilations: dilations.clone(),
                low: low.clone(),
                high: high.clone(),
                groups: *groups,
            },
            Op::ConvTranspose { strides, dilations, low, high, output_padding, groups } if dtype == DType::F32 => {
                LibraryCall::ConvTranspose {
                    strides: strides.clone(),
                    dilations: dilations.clone(),
                    low: low.clone(),
                    high: high.clone(),
                    output_padding: output_padding.clone(),
                    groups: *groups,
                }
            }
            Op::Sort { axis, descending } => LibraryCall::Sort { axis: *axis, descending: *descending },
            _ => return Ok(false),
        };
        let operands = self.read_all(b, f, slots, node.operands())?;
        self.call(b, f, slots, id, call, operands)
    }

    fn call(
        &mut self,
        b: &mut Building,
        f: &Function,
        slots: &mut Slots,
        id: NodeId,
        call: LibraryCall,
        operands: Vec<SlotId>,
    ) -> Result<bool, BuildError> {
        let node = f.node(id);
        let results = self.new_results(b, node, id, slots);
        b.push(Step::Library { call, operands, results, origin: node.origin.to_string() });
        b.program.ops.library += 1;
        Ok(true)
    }

    /// An operand as [batch.., free.., contract..] or [batch.., contract.., free..], transposed where it is neither.
    fn matrix(
        &mut self,
        b: &mut Building,
        f: &Function,
        slots: &Slots,
        (value, batch, contract): (Value, &[usize], &[usize]),
        contract_first: bool,
        origin: &Origin,
    ) -> Result<Matrix, BuildError> {
        let slot = self.read(b, f, slots, value)?;
        let ty = tensor(f, value)?;
        let free: Vec<usize> = (0..ty.rank()).filter(|a| !batch.contains(a) && !contract.contains(a)).collect();
        let order = |first: &[usize], second: &[usize]| -> Vec<usize> {
            batch.iter().chain(first).chain(second).copied().collect()
        };
        let forms = [(order(&free, contract), false), (order(contract, &free), true)];
        for (perm, first) in &forms {
            // Axes of extent 1 may stand anywhere.
            let real: Vec<usize> = perm.iter().copied().filter(|&a| ty.dims[a] != Dim::ONE).collect();
            if real.is_sorted() {
                return Ok(Matrix { slot, contract_first: *first });
            }
        }
        let [(free_first, _), (contracted_first, _)] = forms;
        let perm = if contract_first { contracted_first } else { free_first };
        let (body, result) = transpose(ty, &perm, origin)?;
        let lowered = lower(&body, "transpose", self.numerics)?;
        let target = b.slot(&result);
        self.kernel(b, lowered, &[slot], &[target], &body, origin)?;
        Ok(Matrix { slot: target, contract_first })
    }
}

/// Whether the library multiplies this type into that sum.
fn multiplies(dtype: DType, accumulate: DType) -> bool {
    matches!((dtype, accumulate), (DType::F32, DType::F32) | (DType::F64, DType::F64))
}

fn tensor(f: &Function, value: Value) -> Result<&TensorType, BuildError> {
    f.ty(value).tensor().ok_or_else(|| BuildError::Internal("an operand is no tensor".to_owned()))
}

fn free(ty: &TensorType, batch: &[usize], contract: &[usize]) -> Vec<Dim> {
    (0..ty.rank()).filter(|a| !batch.contains(a) && !contract.contains(a)).map(|a| ty.dims[a].clone()).collect()
}

fn transpose(ty: &TensorType, perm: &[usize], origin: &Origin) -> Result<(Function, ValueType), BuildError> {
    let mut body = Function::new("");
    let x = body.add_input("x", ty.clone());
    let node = body
        .add_op(Op::Transpose { perm: perm.to_vec() }, &[x], Vec::new(), origin)
        .map_err(|e| BuildError::Internal(e.to_string()))?;
    let value = Value { node, result: 0 };
    body.add_output("y", value);
    let result = body.ty(value).clone();
    Ok((body, result))
}
