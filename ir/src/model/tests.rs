//! Configurations at their limits, parameters, the meaning of functions.

use super::*;
use crate::module::Module;
use crate::reference::{Options, eval_function};
use crate::tensor::Tensor;
use crate::value::HostValue;
use crate::verify::verify;

/// Runs one function on x by the reference.
fn run(module: &Module, name: &str, x: &Tensor) -> Vec<(String, Tensor)> {
    let f = &module.functions[name];
    let results = eval_function(module, f, &[HostValue::Tensor(x.clone())], Options::default()).unwrap();
    let tensor = |v: &HostValue| v.tensor().unwrap().clone();
    f.outputs.iter().zip(&results).map(|(o, v)| (o.name.clone(), tensor(v))).collect()
}

fn sample(shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    let values: Vec<f32> = (0..n).map(|i| ((i * 37 % 23) as f32 - 11.0) / 9.0).collect();
    Tensor::f32(shape, &values).unwrap()
}

fn small() -> AfKan {
    AfKan { layers: vec![6, 5, 3], ..AfKan::default() }
}

fn count(module: &Module) -> usize {
    module.params.values().map(|p| p.value.numel()).sum()
}

#[test]
fn only_parameters_in_use_are_made() {
    assert_eq!(count(&AfKan::default().module(0).unwrap()), 52_552);
    assert_eq!(count(&Mlp::default().module(0).unwrap()), 52_512);
    for method in Method::ALL {
        for norm in Norm::ALL {
            let module = AfKan { methods: vec![*method], norm: *norm, ..small() }.module(1).unwrap();
            verify(&module).unwrap();
            let read = |name: &String| {
                let params = |f: &crate::Function| {
                    f.nodes()
                        .into_iter()
                        .any(|id| matches!(&f.node(id).op, crate::Op::Param { name: n, .. } if n == name))
                };
                module.functions.values().any(params)
            };
            assert!(module.params.keys().all(read), "{method} {norm}: {:?}", module.params.keys());
        }
    }
}
