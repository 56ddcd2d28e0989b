//! Values from nothing or from shapes: constants, ranges, identities, window functions.

use frit_ir::{AttrValue, BinaryOp, DType, Dim, Op, Tensor, UnaryOp, Value};

use super::context::{Ctx, Results};
use super::error::{Fail, Ruled, invalid, unsupported};
use super::table::{Row, onnx};

pub(super) const TABLE: &[Row] = &[
    onnx("Constant", constant),
    onnx("ConstantOfShape", constant_of_shape),
    onnx("Identity", identity),
    onnx("Shape", shape),
    onnx("Size", size),
    onnx("Range", range),
    onnx("EyeLike", eye_like),
    onnx("HannWindow", window),
    onnx("HammingWindow", window),
    onnx("BlackmanWindow", window),
    onnx("RandomNormal", random),
    onnx("RandomNormalLike", random),
    onnx("RandomUniform", random),
    onnx("RandomUniformLike", random),
    onnx("Bernoulli", random),
    onnx("Multinomial", random),
];

fn tensor_error(e: frit_ir::TensorError) -> Fail {
    Fail::Invalid(e.to_string())
}

fn constant(c: &mut Ctx) -> Results {
    let floats = |items: &[AttrValue]| -> Ruled<Vec<f32>> {
        items
            .iter()
            .map(|i| match i {
                AttrValue::Float(v) => Ok(*v as f32),
                other => invalid(format!("`value_floats` holds {other:?}")),
            })
            .collect()
    };
    let strings = |items: &[AttrValue]| -> Ruled<Vec<String>> {
        items
            .iter()
            .map(|i| match i {
                AttrValue::Str(v) => Ok(v.clone()),
                other => invalid(format!("`value_strings` holds {other:?}")),
            })
            .collect()
    };
    for (name, value) in c.attributes {
        let tensor = match (name.as_str(), value) {
            ("value", AttrValue::Tensor(t)) => t.clone(),
            ("value_float", AttrValue::Float(v)) => Tensor::f32(&[], &[*v as f32]).map_err(tensor_error)?,
            ("value_int", AttrValue::Int(v)) => Tensor::i64(&[], &[*v]).map_err(tensor_error)?,
            ("value_floats", AttrValue::List(l)) => Tensor::f32(&[l.len()], &floats(l)?).map_err(tensor_error)?,
            ("value_ints", AttrValue::List(l)) => {
                let ints = c.ints("value_ints")?.unwrap_or_default();
                Tensor::i64(&[l.len()], &ints).map_err(tensor_error)?
            }
            ("value_string", AttrValue::Str(s)) => Tensor::from_strings(&[], vec![s.clone()]).map_err(tensor_error)?,
            ("value_strings", AttrValue::List(l)) => {
                Tensor::from_strings(&[l.len()], strings(l)?).map_err(tensor_error)?
            }
            ("sparse_value", _) => return unsupported("attribute `sparse_value`"),
            _ => continue,
        };
        return Ok(vec![c.constant(tensor)?]);
    }
    invalid("a constant without a value")
}

/// The one element of a tensor attribute, as a scalar; absent: f32 0.
fn value_attribute(c: &mut Ctx, name: &str) -> Ruled<Value> {
    match c.attr(name).cloned() {
        None => Ok(c.scalar(DType::F32, 0.0)?),
        Some(AttrValue::Tensor(t)) if t.numel() == 1 => {
            let scalar = t.reshaped(&[]).map_err(tensor_error)?;
            Ok(c.constant(scalar)?)
        }
        Some(other) => invalid(format!("attribute `{name}` should be a tensor of one element, is {other:?}")),
    }
}

fn constant_of_shape(c: &mut Ctx) -> Results {
    let shape = c.x(0)?;
    let dims = c.const_dims(shape, "the shape")?;
    if let Some(bad) = dims.iter().filter_map(Dim::known).find(|d| *d < 0) {
        return invalid(format!("an extent of {bad}"));
    }
    let value = value_attribute(c, "value")?;
    Ok(vec![c.full(value, dims)?])
}

fn identity(c: &mut Ctx) -> Results {
    Ok(vec![c.x(0)?])
}

fn shape(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let dims = c.shape(x)?;
    let rank = i64::try_from(dims.len()).unwrap_or(i64::MAX);
    let bound = |v: i64| usize::try_from(if v < 0 { v.saturating_add(rank) } else { v }.clamp(0, rank)).unwrap_or(0);
    let (start, end) = (bound(c.int("start")?.unwrap_or(0)), bound(c.int("end")?.unwrap_or(rank)));
    let part = dims.get(start..end.max(start)).unwrap_or_default();
    Ok(vec![c.dims_tensor(part)?])
}

fn size(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let numel = c.ty(x)?.numel();
    Ok(vec![c.dim(numel)?])
}

fn range(c: &mut Ctx) -> Results {
    let (start, delta) = (c.x(0)?, c.x(2)?);
    let dtype = c.dtype(start)?;
    let count = if dtype.is_int() {
        let [mut start, mut limit, mut delta] = [vec![], vec![], vec![]];
        for (list, v, what) in
            [(&mut start, c.x(0)?, "start"), (&mut limit, c.x(1)?, "limit"), (&mut delta, c.x(2)?, "delta")]
        {
            *list = c.const_dims(v, what)?;
        }
        let ([start], [limit], [delta]) = (start.as_slice(), limit.as_slice(), delta.as_slice()) else {
            return invalid("start, limit and delta must be scalars");
        };
        match delta.known() {
            Some(0) => return invalid("delta is 0"),
            Some(d) if d < 0 => (start - limit).ceildiv(&Dim::Known(d.saturating_neg())).maximum(&Dim::ZERO),
            Some(_) => (limit - start).ceildiv(delta).maximum(&Dim::ZERO),
            None => return unsupported("delta must be known when compiling"),
        }
    } else {
        let mut numbers = [0.0; 3];
        for (i, slot) in numbers.iter_mut().enumerate() {
            let v = c.x(i)?;
            *slot = c.const_floats(v, "a bound of the range")?.first().copied().unwrap_or(f64::NAN);
        }
        let [start, limit, delta] = numbers;
        // Before ceil, ONNX Runtime divides in f64 for every type.
        let count = ((limit - start) / delta).ceil();
        if count.is_nan() || count.abs() > 9e15 {
            return invalid(format!("no range from {start} to {limit} by {delta}"));
        }
        Dim::Known((count as i64).max(0))
    };
    let counter = c.iota(dtype, vec![count], 0)?;
    let (start, delta) = (c.b.reshape(start, vec![])?, c.b.reshape(delta, vec![])?);
    let steps = c.mul(counter, delta)?;
    Ok(vec![c.add(steps, start)?])
}

fn eye_like(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let ty = c.ty(x)?;
    if ty.rank() != 2 {
        return invalid(format!("the input is {ty}, expected two dims"));
    }
    let dtype = c.dtype_attr("dtype")?.unwrap_or(ty.dtype);
    let k = c.int("k")?.unwrap_or(0);
    let rows = c.iota(DType::I64, ty.dims.clone(), 0)?;
    let columns = c.iota(DType::I64, ty.dims, 1)?;
    let shift = c.i64s(&[], &[k])?;
    let diagonal = c.add(rows, shift)?;
    let on = c.bin(BinaryOp::Eq, diagonal, columns)?;
    Ok(vec![c.to(on, dtype)?])
}

/// Hann, Hamming and Blackman windows: sums of cosines of 2 pi i / n, n the size or, when not periodic, size - 1.
fn window(c: &mut Ctx) -> Results {
    let coefficients: &[f64] = match c.op_type {
        "HannWindow" => &[0.5, -0.5],
        "HammingWindow" => &[25.0 / 46.0, -21.0 / 46.0],
        _ => &[0.42, -0.5, 0.08],
    };
    let size = c.x(0)?;
    let dims = c.const_dims(size, "the size")?;
    let [size] = dims.as_slice() else { return invalid("the size must be a scalar") };
    let dtype = c.dtype_attr("output_datatype")?.unwrap_or(DType::F32);
    let n = if c.flag("periodic", true)? { size.clone() } else { size - &Dim::ONE };
    let i = c.iota(DType::F32, vec![size.clone()], 0)?;
    let n = c.dim(n)?;
    let n = c.to(n, DType::F32)?;
    let mut sum = c.scalar(DType::F32, coefficients.first().copied().unwrap_or(0.0))?;
    for (k, a) in coefficients.iter().enumerate().skip(1) {
        let angle = c.mul_s(i, 2.0 * std::f64::consts::PI * k as f64)?;
        let angle = c.div(angle, n)?;
        let cosine = c.un(UnaryOp::Cos, angle)?;
        let term = c.mul_s(cosine, *a)?;
        sum = c.add(term, sum)?;
    }
    Ok(vec![c.to(sum, dtype)?])
}

fn random(_: &mut Ctx) -> Results {
    unsupported("random numbers")
}

/// Whether a value is a scalar or a tensor of one element, as a scalar.
pub(super) fn as_scalar(c: &mut Ctx, v: Value) -> Ruled<Value> {
    let ty = c.ty(v)?;
    match ty.numel().known() {
        Some(1) => Ok(c.b.op(Op::Reshape { dims: Vec::new() }, &[v])?),
        _ => invalid(format!("{ty} should hold one element")),
    }
}
