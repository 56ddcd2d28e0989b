//! Which ops the library computes, and in what form it wants them.
//!
//! The choice depends on op, types and shape alone, so that every optimisation level makes the same one. An operand
//! whose axes do not lie as the call wants them is transposed first, by a kernel.

use frit_ir::builder::Builder;
use frit_ir::op::infer::TypeError;
use frit_ir::{BinaryOp, DType, Dim, Function, NodeId, Op, Origin, TensorType, Value, ValueType};
use frit_passes::fuse::MOST_PIECES;

use super::super::{DimId, Epilogue, LibraryCall, OpCounts, Place, SlotId, Step};
use super::epilogue::{Bias, Following};
use super::{BuildError, Building, PlanBuilder, Slots, count_ops};
use crate::lower::lower;

/// An operand of a product in matrix form.
struct Matrix {
    slot: SlotId,
    /// Contracted axes come before free ones.
    contract_first: bool,
    /// Elements from one matrix of the batch to the next, where they do not follow each other.
    pitch: Option<DimId>,
}

impl PlanBuilder<'_> {
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
            Op::DotGeneral { .. } => {
                return match self.product(b, f, slots, id)? {
                    Some((call, operands)) => self.call(b, f, slots, id, call, operands),
                    None => Ok(false),
                };
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
            Op::Sort { axis, descending } => {
                self.sort(b, f, slots, id, *axis, *descending)?;
                return Ok(true);
            }
            // Few operands are a kernel with a loop for each; the code for many would be long.
            Op::Concat { axis } if node.operands().len() > MOST_PIECES && dtype != DType::Str => {
                LibraryCall::Concat { axis: *axis }
            }
            _ => return Ok(false),
        };
        let operands = self.read_all(b, f, slots, node.operands())?;
        self.call(b, f, slots, id, call, operands)
    }

    /// The call for a product, and its operands; `None` when the library does not compute it.
    fn product(
        &mut self,
        b: &mut Building,
        f: &Function,
        slots: &Slots,
        id: NodeId,
    ) -> Result<Option<(LibraryCall, Vec<SlotId>)>, BuildError> {
        let node = f.node(id);
        let Op::DotGeneral { lhs_batch, rhs_batch, lhs_contract, rhs_contract, accumulate } = &node.op else {
            return Ok(None);
        };
        if !is_library_product(f, id) {
            return Ok(None);
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
            lhs_pitch: left.pitch,
            rhs_pitch: right.pitch,
            dtype: lhs.dtype,
            accumulate: *accumulate,
            epilogue: Epilogue::default(),
        };
        Ok(Some((call, vec![left.slot, right.slot])))
    }

    /// A product in the place of the fusion that follows it, whose ops it does.
    pub(super) fn product_with(
        &mut self,
        b: &mut Building,
        f: &Function,
        slots: &mut Slots,
        fusion: NodeId,
        following: &Following,
    ) -> Result<(), BuildError> {
        let Following { product, bias, epilogue: what } = following;
        let Some((mut call, mut operands)) = self.product(b, f, slots, *product)? else {
            return Err(BuildError::Internal("a product that waited is none of the library's".to_owned()));
        };
        if let LibraryCall::MatMul { epilogue, .. } = &mut call {
            *epilogue = *what;
        }
        match bias {
            None => {}
            Some(Bias::Value(value)) => operands.push(self.read(b, f, slots, *value)?),
            Some(Bias::Constant(tensor)) => {
                let constant = self.constant("", tensor);
                operands.push(b.slot_at(&tensor.ty().into(), Place::Constant(constant)));
            }
        }
        let node = f.node(fusion);
        let results = self.new_results(b, node, fusion, slots);
        let region = &node.regions()[0];
        // Constants that the fusion has taken in name every op that shares them.
        let does = region.nodes().into_iter().map(|id| region.node(id)).filter(|n| matches!(n.op, Op::Binary(_)));
        let origin = Origin::merge(std::iter::once(&f.node(*product).origin).chain(does.map(|n| &n.origin)));
        b.push(Step::Library { call, operands, results, origin: origin.to_string() });
        let OpCounts { generated, view, .. } = count_ops(region).counts;
        b.program.ops += OpCounts { library: 1 + generated, view, ..OpCounts::default() };
        Ok(())
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

    /// The library sorts the keys and tells where each came from; further operands follow by a gather.
    fn sort(
        &mut self,
        b: &mut Building,
        f: &Function,
        slots: &mut Slots,
        id: NodeId,
        axis: usize,
        descending: bool,
    ) -> Result<(), BuildError> {
        let node = f.node(id);
        let operands = self.read_all(b, f, slots, node.operands())?;
        let results = self.new_results(b, node, id, slots);
        let keys = tensor(f, node.operands()[0])?;
        let positions = TensorType::new(DType::I64, keys.dims.clone());
        let counts = |v: &Value| {
            let counted = matches!(f.op(*v), Op::Iota { dtype: DType::I64, axis: a, .. } if *a == axis);
            counted && f.ty(*v).tensor() == Some(&positions)
        };
        // Operands that count along the axis are the positions themselves.
        let counted = (1..operands.len()).find(|&i| counts(&node.operands()[i]));
        let at = match counted {
            Some(i) => results[i],
            None => b.slot(&positions.clone().into()),
        };
        let call = LibraryCall::Sort { axis, descending };
        let origin = node.origin.to_string();
        b.push(Step::Library { call, operands: vec![operands[0]], results: vec![results[0], at], origin });
        b.program.ops.library += 1;
        for i in 1..operands.len() {
            if Some(i) == counted {
                continue;
            }
            let body = take_along(tensor(f, node.operands()[i])?, &positions, axis, &node.origin)
                .map_err(|e| BuildError::Internal(e.to_string()))?;
            let lowered = lower(&body, "take_along", self.numerics)?;
            self.kernel(b, lowered, &[operands[i], at], &[results[i]], count_ops(&body), &node.origin)?;
        }
        Ok(())
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
        let slot = self.read_any(b, f, slots, value)?;
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
                if let Some((storage, pitch)) = b.matrices(slot, ty, batch) {
                    return Ok(Matrix { slot: storage, contract_first: *first, pitch: Some(pitch) });
                }
                let slot = self.dense(b, slot)?;
                return Ok(Matrix { slot, contract_first: *first, pitch: None });
            }
        }
        let [(free_first, _), (contracted_first, _)] = forms;
        let perm = if contract_first { contracted_first } else { free_first };
        let (body, result) = transpose(ty, &perm, origin)?;
        let (mut operands, ops) = ([slot], count_ops(&body));
        let body = b.in_place_reads(&body, &mut operands)?;
        let lowered = lower(&body, "transpose", self.numerics)?;
        let target = b.slot(&result);
        self.kernel(b, lowered, &operands, &[target], ops, origin)?;
        Ok(Matrix { slot: target, contract_first, pitch: None })
    }
}

/// Whether an op is a product that the library computes.
pub(super) fn is_library_product(f: &Function, id: NodeId) -> bool {
    let node = f.node(id);
    let Op::DotGeneral { accumulate, .. } = &node.op else { return false };
    let mut dtypes = node.operands().iter().map(|v| f.ty(*v).tensor().map(|t| t.dtype));
    match (dtypes.next().flatten(), dtypes.next().flatten()) {
        (Some(left), Some(right)) => left == right && multiplies(left, *accumulate),
        _ => false,
    }
}

/// How many of a product's last axes are the columns.
pub(super) fn free_count(f: &Function, id: NodeId) -> Option<usize> {
    let node = f.node(id);
    let Op::DotGeneral { rhs_batch, rhs_contract, .. } = &node.op else { return None };
    f.ty(*node.operands().get(1)?).tensor()?.rank().checked_sub(rhs_batch.len() + rhs_contract.len())
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

/// y[.., j, ..] = x[.., positions[.., j, ..], ..] along an axis.
fn take_along(ty: &TensorType, positions: &TensorType, axis: usize, origin: &Origin) -> Result<Function, TypeError> {
    let mut body = Function::new("");
    let x = body.add_input("x", ty.clone());
    let at = body.add_input("positions", positions.clone());
    let mut build = Builder::new(&mut body, origin.clone());
    let mut position: Option<Value> = None;
    for i in 0..ty.rank() {
        let along = if i == axis {
            at
        } else {
            build.op(Op::Iota { dtype: DType::I64, dims: ty.dims.clone(), axis: i }, &[])?
        };
        position = Some(match position {
            None => along,
            Some(before) => {
                let extent = build.dim(ty.dims[i].clone())?;
                let scaled = build.binary(BinaryOp::Mul, before, extent)?;
                build.binary(BinaryOp::Add, scaled, along)?
            }
        });
    }
    let flat = build.reshape(x, vec![ty.numel()])?;
    let y = match position {
        Some(position) => build.op(Op::Gather { axis: 0 }, &[flat, position])?,
        None => x,
    };
    body.add_output("y", y);
    Ok(body)
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
