//! Every op against values worked out by hand or by NumPy and ONNX.
//!
//! `cases` lists them as data; a test walks the op table and fails when an op has none. `semantics` pins the corners:
//! rounding, order, specials, errors, symbols.

mod bounds;
mod cases;
mod semantics;

use super::*;
use crate::tensor::Tensor;
use crate::types::{Class, TensorType};

/// A tensor from numbers; floats are rounded to the type, integers must fit f64.
pub(super) fn t(dtype: DType, shape: &[usize], values: &[f64]) -> HostValue {
    let rounding = Rounding { dtype, wide: false };
    let array = match dtype.class() {
        Class::Float => Array::floats(rounding, shape.to_vec(), values.iter().copied()),
        _ => Array::ints(dtype, shape.to_vec(), values.iter().map(|&v| v as i128)),
    };
    array.to_tensor(false).expect("shape and values agree").into()
}

pub(super) fn f(shape: &[usize], values: &[f64]) -> HostValue {
    t(DType::F32, shape, values)
}

pub(super) fn i(shape: &[usize], values: &[i64]) -> HostValue {
    Tensor::i64(shape, values).expect("shape and values agree").into()
}

pub(super) fn b(shape: &[usize], values: &[u8]) -> HostValue {
    Tensor::from_bytes(DType::Bool, shape, values).expect("shape and values agree").into()
}

pub(super) fn text(values: &[&str]) -> HostValue {
    let values = values.iter().map(|s| (*s).to_owned()).collect();
    Tensor::from_strings(&[1], values).expect("shape and values agree").into()
}

/// The type of a value; sequences by their first element.
pub(super) fn type_of(value: &HostValue) -> ValueType {
    match value {
        HostValue::Tensor(t) => t.ty().into(),
        HostValue::Sequence(items) => ValueType::Sequence(Box::new(items.first().map_or(ValueType::Unknown, type_of))),
        HostValue::Optional(_) | HostValue::Map(_) => ValueType::Unknown,
    }
}

pub(super) fn origin() -> Origin {
    Origin::named("here")
}

/// One op with result types as `like` has them.
pub(super) fn eval(op: &Op, operands: &[HostValue], like: &[HostValue]) -> Result<Vec<HostValue>, EvalError> {
    let types: Vec<ValueType> = like.iter().map(type_of).collect();
    eval_op(op, &origin(), operands, &types, &[], &Symbols::new(), Options::default())
}

/// The numbers of a tensor as f64.
pub(super) fn numbers(value: &HostValue) -> Vec<f64> {
    Array::from_tensor(value.tensor().expect("a tensor")).to_floats()
}

/// Equal in type, shape and bits, any NaN being as good as another.
pub(super) fn assert_same(found: &[HostValue], expected: &[HostValue], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (f, e) in found.iter().zip(expected) {
        if let (HostValue::Tensor(a), HostValue::Tensor(b)) = (f, e)
            && a.ty() == b.ty()
            && a.dtype().is_float()
        {
            let (a, b) = (numbers(f), numbers(e));
            let agree = a.iter().zip(&b).all(|(x, y)| x.to_bits() == y.to_bits() || (x.is_nan() && y.is_nan()));
            assert!(agree, "{what}: {a:?} is not {b:?}");
        } else {
            assert_eq!(f, e, "{what}");
        }
    }
}

/// A region of tensors from a closure over the builder.
pub(super) fn region(
    inputs: &[TensorType],
    body: impl FnOnce(&mut crate::builder::Builder<'_>, &[Value]) -> Vec<Value>,
) -> Function {
    let mut function = Function::new("");
    let values: Vec<Value> =
        inputs.iter().enumerate().map(|(i, ty)| function.add_input(&format!("x{i}"), ty.clone())).collect();
    let outputs = body(&mut crate::builder::Builder::new(&mut function, origin()), &values);
    for (i, value) in outputs.into_iter().enumerate() {
        function.add_output(&format!("y{i}"), value);
    }
    function
}
