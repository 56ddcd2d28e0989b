//! Elementary functions outside of their domain: NaN wherever IEEE 754 says so, compiled in both modes, at every level.

use frit_compiler::driver::{Options, compile};
use frit_ir::{AttrValue, DType, Function, HostValue, Module, Op, Origin, Tensor, TensorType, Value, ValueType};
use frit_passes::manager::{Level, Math};
use frit_runtime::Model;

/// y = op(x) over vectors.
fn module(op_type: &str, since_version: i64, dtype: DType) -> Module {
    let mut f = Function::new("infer");
    let x = f.add_input("x", TensorType::new(dtype, ["n"].map(frit_ir::Dim::symbol)));
    let (domain, op_type) = (String::new(), op_type.to_owned());
    let op =
        Op::Onnx { domain, op_type, since_version, attributes: std::collections::BTreeMap::<String, AttrValue>::new() };
    let node = f.add_typed(op, &[x], vec![ValueType::Unknown], vec![], &Origin::named("f"));
    f.add_output("y", Value { node, result: 0 });
    Module::of(f)
}

/// Each function on f64 values of a type: NaN exactly where `std` has it, and near it elsewhere.
fn check(dtype: DType, values: &[f64]) {
    type Reference = fn(f64) -> f64;
    let functions: [(&str, i64, Reference); 7] = [
        ("Acosh", 9, f64::acosh),
        ("Atanh", 9, f64::atanh),
        ("Asin", 7, f64::asin),
        ("Acos", 7, f64::acos),
        ("Log", 13, f64::ln),
        ("Sqrt", 13, f64::sqrt),
        ("Asinh", 9, f64::asinh),
    ];
    let x: HostValue = match dtype {
        DType::F64 => Tensor::from_slice(dtype, &[values.len()], values).unwrap().into(),
        _ => Tensor::f32(&[values.len()], &values.iter().map(|v| *v as f32).collect::<Vec<_>>()).unwrap().into(),
    };
    for (op, since, reference) in functions {
        for (level, math) in [(Level::O0, Math::Strict), (Level::O3, Math::Strict), (Level::O3, Math::Fast)] {
            let options = Options { level, math, ..Options::default() };
            let compiled = compile(module(op, since, dtype), &options).unwrap_or_else(|e| panic!("{op}: {e}"));
            let model = Model::new(compiled.plan).unwrap();
            let outputs = model.run_values(&[("x", &x)]).unwrap_or_else(|e| panic!("{op}: {e}"));
            let found = frit_ir::convert::to_f64s(outputs[0].1.tensor().unwrap()).unwrap();
            for (x, y) in values.iter().zip(found) {
                let expected = reference(*x);
                let near = y == expected || (y - expected).abs() <= 1e-5 * expected.abs();
                assert!(
                    (y.is_nan() && expected.is_nan()) || near,
                    "{op}({x:e}) of {dtype}, {level:?} {math:?}: {y:e}, expected {expected:e}"
                );
            }
        }
    }
}

/// Both signs of magnitudes over the whole range, and what lies around 1.
fn around(eps: f64, largest: f64) -> Vec<f64> {
    let mut values = vec![0.0, 1.0, 1.0 - eps, 1.0 + eps, 0.5, 1.5, 2.0, largest, f64::INFINITY];
    values.extend((-30..=38).map(|e| 10f64.powi(e)).filter(|v| *v < largest));
    values.extend((1..20).map(|e| largest / 10f64.powi(e)));
    values.extend(values.clone().into_iter().map(|v| -v));
    values.push(f64::NAN);
    values
}

#[test]
fn outside_of_its_domain_a_function_is_nan() {
    let singles = around(f64::from(f32::EPSILON), f64::from(f32::MAX));
    check(DType::F32, &singles.iter().map(|v| f64::from(*v as f32)).collect::<Vec<_>>());
    check(DType::F64, &around(f64::EPSILON, f64::MAX));
}
