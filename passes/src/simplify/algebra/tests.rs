//! The table of rules, walked.

use std::collections::BTreeSet;

use frit_ir::builder::Builder;
use frit_ir::reference;
use frit_ir::testing::Rng;
use frit_ir::value::HostValue;
use frit_ir::{Function, Module, Numerics, Origin, Tensor};

use super::*;
use crate::manager::{Math, Options, count_ops, set_numerics};

fn example(rule: &Rule) -> Module {
    let mut f = Function::new("infer");
    let mut b = Builder::new(&mut f, Origin::named(rule.name));
    let outputs = (rule.example)(&mut b).expect("the example type-checks");
    for (i, value) in outputs.into_iter().enumerate() {
        f.add_output(&format!("y{i}"), value);
    }
    let mut module = Module::of(f);
    set_numerics(&mut module, if rule.needs == Needs::Strict { Numerics::STRICT } else { Numerics::FAST });
    module
}

fn apply(module: &mut Module, rule: &Rule) -> u64 {
    let options = Options { math: Math::AsWritten, ..Options::default() };
    let mut context = Context::new(&options);
    for f in module.functions.values_mut() {
        rewrite(f, &module.params, &[rule.set], Some(rule.name), &mut context).expect("rewrites");
    }
    context.fired()
}

#[test]
fn names_are_unique() {
    let names: BTreeSet<&str> = rules().map(|r| r.name).collect();
    assert_eq!(names.len(), rules().count());
}

#[test]
fn every_rule_fires_once_and_is_done() {
    for rule in rules() {
        let mut module = example(rule);
        let before = count_ops(&module);
        assert!(apply(&mut module, rule) > 0, "`{}` does not fire on its example of {before} ops", rule.name);
        assert_eq!(apply(&mut module, rule), 0, "`{}` fires on its own result", rule.name);
    }
}

/// Random f32 data, with the values that rules get wrong unless `tame`.
fn data(rng: &mut Rng, module: &Module, tame: bool) -> Vec<HostValue> {
    let specials = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1e-40, f32::MAX];
    let f = module.entry().expect("a function");
    let tensor = |rng: &mut Rng, shape: &[usize]| {
        let n = shape.iter().product();
        let values: Vec<f32> = (0..n)
            .map(|_| {
                if !tame && rng.once_in(3) {
                    specials[rng.below(specials.len())]
                } else {
                    rng.signed_unit() as f32 * 4.0
                }
            })
            .collect();
        HostValue::Tensor(Tensor::f32(shape, &values).expect("sizes agree"))
    };
    let shapes = f.input_values().map(|v| f.ty(v).tensor().and_then(|t| t.known_dims()).expect("known extents"));
    shapes.collect::<Vec<_>>().iter().map(|shape| tensor(rng, shape)).collect()
}

fn results(module: &Module, inputs: &[HostValue]) -> Vec<Tensor> {
    let f = module.entry().expect("a function");
    let values = reference::eval_function(module, f, inputs, reference::Options::default()).expect("evaluates");
    values.iter().map(|v| v.tensor().expect("a tensor").clone()).collect()
}

#[test]
fn every_rule_agrees_with_the_reference() {
    let mut rng = Rng::new(7);
    for rule in rules() {
        let before = example(rule);
        let mut after = before.clone();
        apply(&mut after, rule);
        frit_ir::verify::verify(&after).unwrap_or_else(|e| panic!("`{}` breaks the module: {e}", rule.name));
        // Where terms may cancel or overflow another order differs without bound.
        let tame = rule.needs == Needs::Reassociate || rule.name.starts_with("dot");
        for _ in 0..40 {
            let inputs = data(&mut rng, &before, tame);
            for (x, y) in results(&before, &inputs).iter().zip(results(&after, &inputs)) {
                if !x.dtype().is_float() {
                    assert_eq!(x.bytes(), y.bytes(), "`{}` changes bits", rule.name);
                    continue;
                }
                for (a, b) in x.to_vec::<f32>().into_iter().zip(y.to_vec::<f32>()) {
                    let scale = if tame { a.abs().max(b.abs()).max(10.0) } else { a.abs().max(b.abs()) };
                    if rule.agrees == Agrees::Bits {
                        let same = a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
                        assert!(same, "`{}`: {a:?} became {b:?}", rule.name);
                        continue;
                    }
                    let close = a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-5 * scale;
                    assert!(close, "`{}`: {a} became {b}", rule.name);
                }
            }
        }
    }
}
