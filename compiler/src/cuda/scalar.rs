//! The operations of the loop IR on one value each, as C++ expressions.
//!
//! Operands are names or expressions in parentheses. Everything is exact: floats by the `_rn` intrinsics, integers on
//! the unsigned type of 32 or 64 bits and cut to their own. Shifts and divisions are [`crate::kernel::primitive`]'s:
//! expansion has guarded them.

use frit_ir::types::Class;
use frit_ir::{BinaryOp, DType, UnaryOp};

use super::{Refusal, index};
use crate::kernel::{Combine, Scalar, primitive};

/// The C++ type that carries a value of an element type.
pub(super) fn carried(dtype: DType) -> Result<&'static str, Refusal> {
    Ok(match (dtype, dtype.class(), dtype.size()) {
        (DType::F32, ..) => "float",
        (DType::F64, ..) => "double",
        (_, Class::Bool, _) => "bool",
        (_, Class::Signed, 1) => "signed char",
        (_, Class::Signed, 2) => "short",
        (_, Class::Signed, 4) => "int",
        (_, Class::Signed, 8) => "long long",
        (_, Class::Unsigned | Class::Float, 1) => "unsigned char",
        (_, Class::Unsigned | Class::Float, 2) => "unsigned short",
        (_, Class::Unsigned, 4) => "unsigned int",
        (_, Class::Unsigned, 8) => "unsigned long long",
        _ => return Err(Refusal::Unsupported(format!("a value of type {dtype}"))),
    })
}

/// The C++ type of an element in memory.
pub(super) fn stored(dtype: DType) -> Result<&'static str, Refusal> {
    if dtype == DType::Bool { Ok("unsigned char") } else { carried(dtype) }
}

/// The unsigned type that integers of a type are computed in.
fn unsigned(dtype: DType) -> &'static str {
    if dtype.size() == 8 { "unsigned long long" } else { "unsigned int" }
}

fn not_expanded(op: &str, dtype: DType) -> Refusal {
    Refusal::Invalid(format!("`{op}` of {dtype} is no machine primitive; expand the kernel first"))
}

/// A constant.
pub(super) fn constant(value: Scalar) -> Result<String, Refusal> {
    carried(value.dtype)?;
    Ok(match value.dtype {
        DType::F32 if value.to_f32().is_finite() => format!("{:?}f", value.to_f32()),
        DType::F32 => format!("__uint_as_float({:#x}u)", value.bits as u32),
        DType::F64 if value.to_f64().is_finite() => format!("{:?}", value.to_f64()),
        DType::F64 => format!("__longlong_as_double((long long){:#x}ULL)", value.bits),
        DType::Bool => value.is_true().to_string(),
        DType::U64 => format!("{}ULL", value.bits),
        DType::U32 => format!("{}u", value.bits as u32),
        dtype if primitive::is_plain_int(dtype) => {
            // Every type left fits.
            index::literal(i64::try_from(value.to_int()).unwrap_or(0))
        }
        _ => format!("{:#x}", value.bits),
    })
}

/// An op of one operand.
pub(super) fn unary(op: UnaryOp, dtype: DType, x: &str) -> Result<String, Refusal> {
    if !primitive::is_unary(op, dtype) {
        return Err(not_expanded(op.name(), dtype));
    }
    let suffix = if dtype == DType::F32 { "f" } else { "" };
    Ok(match op {
        UnaryOp::Neg if dtype.is_float() => format!("-{x}"),
        UnaryOp::Neg => format!("({})(0u - ({}){x})", carried(dtype)?, unsigned(dtype)),
        UnaryOp::Not if dtype == DType::Bool => format!("!{x}"),
        UnaryOp::Not => format!("({})~{x}", carried(dtype)?),
        UnaryOp::Sqrt if dtype == DType::F32 => format!("__fsqrt_rn({x})"),
        UnaryOp::Sqrt => format!("__dsqrt_rn({x})"),
        UnaryOp::Abs => format!("fabs{suffix}({x})"),
        UnaryOp::RoundEven => format!("rint{suffix}({x})"),
        UnaryOp::Floor | UnaryOp::Ceil | UnaryOp::Trunc => format!("{}{suffix}({x})", op.name()),
        // Of f64 only: C names them as ONNX does.
        UnaryOp::Exp
        | UnaryOp::Expm1
        | UnaryOp::Log
        | UnaryOp::Log1p
        | UnaryOp::Sin
        | UnaryOp::Cos
        | UnaryOp::Tan
        | UnaryOp::Asin
        | UnaryOp::Acos
        | UnaryOp::Atan
        | UnaryOp::Tanh
        | UnaryOp::Erf => format!("{}({x})", op.name()),
        UnaryOp::Sign => return Err(not_expanded(op.name(), dtype)),
    })
}

/// An op of two operands of one type.
pub(super) fn binary(op: BinaryOp, dtype: DType, a: &str, b: &str) -> Result<String, Refusal> {
    // 1 is a divisor and a count that every type takes.
    let one = Scalar { dtype, bits: 1 };
    if primitive::binary(op, one, one).is_none() {
        return Err(not_expanded(op.name(), dtype));
    }
    let (float, ty, wide) = (dtype.is_float(), carried(dtype)?, unsigned(dtype));
    let kind = if dtype == DType::F32 { 'f' } else { 'd' };
    Ok(match op {
        BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div if float => {
            format!("__{kind}{}_rn({a}, {b})", op.name())
        }
        BinaryOp::Rem if float => format!("fmod({a}, {b})"),
        BinaryOp::Pow | BinaryOp::Atan2 if float => format!("{}({a}, {b})", op.name()),
        BinaryOp::Add => format!("({ty})(({wide}){a} + ({wide}){b})"),
        BinaryOp::Sub => format!("({ty})(({wide}){a} - ({wide}){b})"),
        BinaryOp::Mul => format!("({ty})(({wide}){a} * ({wide}){b})"),
        BinaryOp::Div => format!("({ty})({a} / {b})"),
        BinaryOp::Rem => format!("({ty})({a} % {b})"),
        BinaryOp::And => format!("({ty})({a} & {b})"),
        BinaryOp::Or => format!("({ty})({a} | {b})"),
        BinaryOp::Xor => format!("({ty})({a} ^ {b})"),
        BinaryOp::Shl => format!("({ty})(({wide}){a} << {b})"),
        BinaryOp::Shr => format!("({ty})({a} >> {b})"),
        BinaryOp::Pow if dtype.class() == Class::Signed => format!("({ty})frit_ipow({a}, {b})"),
        BinaryOp::Pow => format!("({ty})frit_upow({a}, {b})"),
        BinaryOp::Eq => format!("{a} == {b}"),
        BinaryOp::Lt => format!("{a} < {b}"),
        BinaryOp::Le => format!("{a} <= {b}"),
        BinaryOp::Min if float => format!("frit_minimum({a}, {b})"),
        BinaryOp::Max if float => format!("frit_maximum({a}, {b})"),
        BinaryOp::Atan2 | BinaryOp::Min | BinaryOp::Max => return Err(not_expanded(op.name(), dtype)),
    })
}

/// a b + c, rounded once.
pub(super) fn fma(dtype: DType, a: &str, b: &str, c: &str) -> Result<String, Refusal> {
    match dtype {
        DType::F32 => Ok(format!("__fmaf_rn({a}, {b}, {c})")),
        DType::F64 => Ok(format!("__fma_rn({a}, {b}, {c})")),
        _ => Err(not_expanded("fma", dtype)),
    }
}

/// A conversion.
pub(super) fn cast(from: DType, to: DType, saturate: bool, x: &str) -> Result<String, Refusal> {
    if from == to {
        return Ok(x.to_owned());
    }
    if !primitive::is_cast(from, to, saturate) {
        return Err(not_expanded(&format!("cast to {to}"), from));
    }
    Ok(match (from, to) {
        (DType::F32, DType::I32) => format!("__float2int_rz({x})"),
        // An f32 is exact as the double that these take.
        (DType::F32 | DType::F64, DType::I64) => format!("frit_to_i64({x})"),
        (DType::F32 | DType::F64, DType::U64) => format!("frit_to_u64({x})"),
        _ => format!("({}){x}", carried(to)?),
    })
}

/// The same bits as another type.
pub(super) fn bitcast(from: DType, to: DType, x: &str) -> Result<String, Refusal> {
    if from == to {
        return Ok(x.to_owned());
    }
    let bits = match from {
        DType::F32 => format!("__float_as_uint({x})"),
        DType::F64 => format!("__double_as_longlong({x})"),
        _ => x.to_owned(),
    };
    Ok(match to {
        DType::F32 => format!("__uint_as_float((unsigned int){bits})"),
        DType::F64 => format!("__longlong_as_double((long long){bits})"),
        DType::Bool => format!("({bits} & 1) != 0"),
        _ => format!("({}){bits}", carried(to)?),
    })
}

/// What an accumulator starts from.
pub(super) fn neutral(combine: Combine, dtype: DType) -> Result<String, Refusal> {
    constant(combine.neutral(dtype).ok_or_else(|| not_expanded("reduce", dtype))?)
}

/// One step of a reduction (not of argmin and argmax).
pub(super) fn combine(how: Combine, dtype: DType, a: &str, b: &str) -> Result<String, Refusal> {
    let op = match how {
        Combine::Sum | Combine::Dot(_) => return binary(BinaryOp::Add, dtype, a, b),
        Combine::Prod => return binary(BinaryOp::Mul, dtype, a, b),
        Combine::Min | Combine::ArgMin(_) => "min",
        Combine::Max | Combine::ArgMax(_) => "max",
    };
    Ok(match dtype {
        DType::F32 | DType::F64 => format!("frit_{op}_{dtype}({a}, {b})"),
        _ if dtype == DType::Bool || primitive::is_plain_int(dtype) => {
            let (x, y) = if op == "min" { (a, b) } else { (b, a) };
            format!("{x} < {y} ? {a} : {b}")
        }
        _ => return Err(not_expanded(op, dtype)),
    })
}

/// Whether `value` at `place` comes before `best` at `best_place`: beyond it, or NaN beside a number, or equal with the
/// lower index.
pub(super) fn beats(how: Combine, dtype: DType, value: [&str; 2], best: [&str; 2]) -> Result<String, Refusal> {
    let [(v, place), (best, best_place)] = [value, best].map(|[v, place]| (v, place));
    let less = if matches!(how, Combine::ArgMin(_)) { '<' } else { '>' };
    match dtype {
        DType::F32 | DType::F64 => Ok(format!(
            "{v} {less} {best} || ({v} != {v} && {best} == {best}) || ({place} < {best_place} && \
             !({best} {less} {v}) && ({v} != {v}) == ({best} != {best}))"
        )),
        _ if dtype == DType::Bool || primitive::is_plain_int(dtype) => {
            Ok(format!("{v} {less} {best} || ({place} < {best_place} && {v} == {best})"))
        }
        _ => Err(not_expanded("argmin or argmax", dtype)),
    }
}
