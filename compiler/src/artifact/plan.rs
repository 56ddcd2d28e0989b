//! The parts of a plan as bytes: one row a type.

use std::collections::BTreeMap;

use frit_ir::types::dim::{Atom, Terms};
use frit_ir::{DType, Dim, Relation, Symbol, TensorType, ValueType};

use super::ArtifactError;
use super::codec::{Codec, Reader, damaged, record, variants};
use crate::cpu::abi::PhaseCode;
use crate::plan::{
    Bind, ConstantId, DimId, Epilogue, Guard, KernelId, LibraryCall, OpCounts, Place, PlanKernel, Port, Program,
    ProgramId, SequenceOp, Slot, SlotId, State, StateForm, Step,
};

macro_rules! ids {
    ($($ty:ident)*) => {$(
        impl Codec for $ty {
            fn write(&self, out: &mut Vec<u8>) {
                self.0.write(out);
            }

            fn read(r: &mut Reader<'_>) -> Result<Self, ArtifactError> {
                Ok($ty(Codec::read(r)?))
            }
        }
    )*};
}

ids!(SlotId DimId ProgramId KernelId ConstantId);

/// By name, so that the order of the table of types may change.
impl Codec for DType {
    fn write(&self, out: &mut Vec<u8>) {
        self.name().to_owned().write(out);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, ArtifactError> {
        String::read(r)?.parse().map_err(|_| damaged("has an unknown element type"))
    }
}

impl Codec for Symbol {
    fn write(&self, out: &mut Vec<u8>) {
        self.name().to_owned().write(out);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, ArtifactError> {
        Ok(Symbol::new(&String::read(r)?))
    }
}

impl Codec for Dim {
    fn write(&self, out: &mut Vec<u8>) {
        let terms: Vec<(Vec<Atom>, i64)> = self.terms().into_iter().collect();
        terms.write(out);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, ArtifactError> {
        let terms: Vec<(Vec<Atom>, i64)> = r.nested(Codec::read)?;
        let terms: Terms = terms.into_iter().collect::<BTreeMap<_, _>>();
        Ok(Dim::from_terms(terms))
    }
}

impl Codec for Box<ValueType> {
    fn write(&self, out: &mut Vec<u8>) {
        ValueType::write(self, out);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, ArtifactError> {
        ValueType::read(r).map(Box::new)
    }
}

record! {
    TensorType { dtype, dims }
    PhaseCode { entry, scratch, grain }
    OpCounts { generated, library, host, view }
    PlanKernel { name, origin, code, phases, traps, ops }
    Port { name, ty, slot }
    Bind { symbol, input, axis }
    Slot { ty, dims, place }
    Program { name, inputs, outputs, symbols, binds, guards, dims, slots, steps, ops, states }
    State { input, output, form }
    Epilogue { bias, lower, upper }
}

variants! {
    Atom {
        0 Sym(symbol);
        1 FloorDiv(left, right);
        2 Mod(left, right);
        3 Min(left, right);
        4 Max(left, right);
    }
    ValueType {
        0 Tensor(ty);
        1 Sequence(element);
        2 Optional(element);
        3 Map(key, element);
        4 Unknown;
    }
    Guard {
        0 Extent { input, axis, dim };
        1 Value { input, constant };
        2 Relation { relation, left, right, what, origin };
    }
    Relation {
        0 Equal;
        1 AtMost;
        2 OneOr;
    }
    Place {
        0 Input(index);
        1 Constant(id);
        2 Arena { first, last };
        3 Late;
        4 Alias(of);
        5 Host;
        6 State(index);
        7 Prefix(of);
        8 Prepared(output);
        9 Over(of);
    }
    StateForm {
        0 InPlace { storage };
        1 Append { storage, axis, capacity, len };
        2 Copied { reason };
    }
    SequenceOp {
        0 Construct;
        1 At;
        2 Insert;
        3 Erase;
        4 Length;
    }
    LibraryCall {
        0 MatMul { batch, m, n, k, lhs_transposed, rhs_transposed, lhs_pitch, rhs_pitch, dtype, accumulate, epilogue };
        1 Conv { strides, dilations, low, high, groups };
        2 ConvTranspose { strides, dilations, low, high, output_padding, groups };
        3 Sort { axis, descending };
        4 Concat { axis };
    }
    Step {
        0 Kernel { kernel, arguments, lens, dims, phases };
        1 Library { call, operands, results, origin };
        2 Compact { mask, result, symbol };
        3 If { condition, then, otherwise, arguments, results, binds, origin };
        4 Loop { trip, condition, body, arguments, carried, results, trips, origin };
        5 Call { program, arguments, results, origin };
        6 Assert { condition, message, origin };
        7 Sequence { op, operands, result, origin };
        8 Copy { from, to };
    }
}
