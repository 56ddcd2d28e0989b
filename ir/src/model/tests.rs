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
    f.outputs().iter().zip(&results).map(|(o, v)| (o.name.clone(), tensor(v))).collect()
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

#[test]
fn initial_values_follow_the_seed_and_their_distributions() {
    let config = AfKan { methods: Method::ALL.to_vec(), grid: 2, order: 1, ..small() };
    let module = config.module(3).unwrap();
    assert_eq!(module.params, config.module(3).unwrap().params);
    assert_ne!(module.params, config.module(4).unwrap().params);
    let values = |name: &str| module.params[name].value.to_vec::<f32>();
    assert_eq!(values("layers.0.phase_low"), [-0.5, 0.0, 0.5]);
    assert_eq!(values("layers.0.phase_high"), [0.5, 1.0, 1.5]);
    assert_eq!(values("layers.0.temperature"), [6f32.sqrt()]);
    assert_eq!(values("layers.1.norm.weight"), [1.0; 5]);
    assert_eq!(values("layers.1.mh_attn.in_proj_bias"), [0.0; 9]);
    // Every bound of a uniform distribution is kept, and nearly met by large tensors.
    let large = AfKan { layers: vec![400, 300, 10], ..config }.module(0).unwrap();
    let bounds = [
        ("base_weight", 1.0 / 20.0),
        ("gk_linear.weight", 1.0 / 3f32.sqrt()),
        ("gk_linear.bias", 1.0 / 3f32.sqrt()),
        ("conv1d.weight", 1.0 / 3f32.sqrt()),
        ("query_local.weight", 1.0 / 2f32.sqrt()),
        ("local_linear.weight", 1.0 / 2f32.sqrt()),
        ("mh_attn.in_proj_weight", (6.0 / 12f32).sqrt()),
        ("mh_attn.out_proj.weight", 1.0 / 3f32.sqrt()),
    ];
    for (name, bound) in bounds {
        let values = large.params[&format!("layers.0.{name}")].value.to_vec::<f32>();
        let largest = values.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        assert!(largest > 0.0 && largest <= bound, "{name}: {largest} beyond {bound}");
        assert!(values.len() < 100 || largest > 0.99 * bound, "{name}: {largest} far from {bound}");
    }
}

#[test]
fn phases_are_those_of_pytorch() {
    let module = small().module(0).unwrap();
    let values = |name: &str| module.params[name].value.to_vec::<f32>();
    let third = 1.0f32 / 3.0;
    assert_eq!(values("layers.0.phase_low"), [-1.0, -2.0 / 3.0, -third, 0.0, third, 2.0 / 3.0]);
    // torch.arange(-3, 3) / 3 + 4 / 3: the first is 0.33333337, not 1/3.
    assert_eq!(values("layers.0.phase_high")[..3], [0.333_333_37, 0.666_666_7, 1.0]);
}

#[test]
fn what_is_out_of_bounds_is_refused_before_anything_is_allocated() {
    let layers = |layers: &[usize]| AfKan { layers: layers.to_vec(), ..AfKan::default() }.module(0).err();
    let bases = |grid, order| AfKan { grid, order, ..small() }.module(0).err();
    assert_eq!(layers(&[]), Some(ModelError::FewLayers { found: 0 }));
    assert_eq!(layers(&[5]), Some(ModelError::FewLayers { found: 1 }));
    assert!(matches!(layers(&[1; 5000]), Some(ModelError::ManyLayers { found: 5000, .. })));
    assert!(matches!(layers(&[5, 0, 3]), Some(ModelError::Extent { index: 1, extent: 0, .. })));
    assert!(matches!(layers(&[5, usize::MAX]), Some(ModelError::Extent { index: 1, .. })));
    assert!(matches!(layers(&[1 << 24, 1 << 24]), Some(ModelError::Parameters { .. })));
    assert!(matches!(bases(0, 3), Some(ModelError::Bases { grid: 0, .. })));
    assert!(matches!(bases(usize::MAX, 1), Some(ModelError::Bases { .. })));
    assert!(matches!(bases(1, usize::MAX), Some(ModelError::Bases { .. })));
    assert!(bases(1, 0).is_none());
    let methods =
        |methods: &[Method], grid| AfKan { methods: methods.to_vec(), grid, order: 0, ..small() }.module(0).err();
    assert!(matches!(methods(&[], 3), Some(ModelError::Methods { found: 0, .. })));
    assert!(matches!(methods(&[Method::Multistep; 17], 3), Some(ModelError::Methods { found: 17, .. })));
    assert_eq!(methods(&[Method::LocalAttn], 1), Some(ModelError::Windows { bases: 1 }));
    assert!(methods(&[Method::LocalAttn], 2).is_none());
    assert!(matches!(Mlp { layers: vec![3], ..Mlp::default() }.module(0), Err(ModelError::FewLayers { found: 1 })));
    let error = "mish".parse::<Activation>().unwrap_err().to_string();
    assert!(error.contains("`mish` is no activation") && error.contains("softplus"), "{error}");
    assert_eq!("cubic2".parse::<BasisFunction>(), Ok(BasisFunction::Cubic2));
}

#[test]
fn frozen_extremes_of_a_batch_give_what_the_batch_gives_and_each_sample_alone() {
    let methods = vec![Method::GlobalAttn, Method::Multistep];
    let config = AfKan { methods, activation: Activation::Tanh, ..small() };
    let module = config.module(5).unwrap();
    let x = sample(&[4, 6]);
    let expected = run(&module, "infer", &x);
    let measuring = config.extremes(&module).unwrap();
    verify(&measuring).unwrap();
    let measured = run(&measuring, "extremes", &x);
    let names: Vec<&str> = measured.iter().map(|(n, _)| n.as_str()).collect();
    assert_eq!(names, ["layers.0.phi_min", "layers.0.phi_max", "layers.1.phi_min", "layers.1.phi_max"]);
    assert_eq!(measured[0].1.shape(), [2]);
    let frozen = config.freeze(&module, &measured).unwrap();
    verify(&frozen).unwrap();
    let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-5 * b.abs().max(0.1));
    let whole = run(&frozen, "infer", &x)[0].1.to_vec::<f32>();
    assert!(close(&whole, &expected[0].1.to_vec()), "{whole:?}, {:?}", expected[0].1.to_vec::<f32>());
    let second = Tensor::f32(&[1, 6], &x.to_vec::<f32>()[6..12]).unwrap();
    let alone = run(&frozen, "infer", &second)[0].1.to_vec::<f32>();
    assert!(close(&alone, &whole[3..6]), "{alone:?}, {:?}", &whole[3..6]);
    // Not so without: the sample is its own batch.
    let own = run(&module, "infer", &second)[0].1.to_vec::<f32>();
    assert!(!close(&own, &whole[3..6]));
}

#[test]
fn extremes_over_batches_are_those_of_all_samples_layer_by_layer() {
    // A norm would undo most of what extremes do.
    let methods = vec![Method::GlobalAttn, Method::Multistep];
    let config = AfKan { layers: vec![6, 5, 4, 3], methods, norm: Norm::None, ..small() };
    let module = config.module(5).unwrap();
    let x = sample(&[8, 6]);
    let parts: Vec<Tensor> =
        x.to_vec::<f32>().chunks(18).map(|part| Tensor::f32(&[part.len() / 6, 6], part).unwrap()).collect();
    assert_eq!(parts.len(), 3);
    let over = |measuring: &Module| {
        let mut found = run(measuring, "extremes", &parts[0]);
        for part in &parts[1..] {
            for ((name, known), (_, other)) in found.iter_mut().zip(run(measuring, "extremes", part)) {
                let wider = if name.ends_with("phi_min") { f32::min } else { f32::max };
                let both = known.to_vec::<f32>().into_iter().zip(other.to_vec::<f32>());
                *known = Tensor::f32(known.shape(), &both.map(|(a, b)| wider(a, b)).collect::<Vec<f32>>()).unwrap();
            }
        }
        found
    };
    let mut measured = Vec::new();
    while let Some(measuring) = config.next_extremes(&module, &measured).unwrap() {
        verify(&measuring).unwrap();
        let found = over(&measuring);
        let layer = measured.len() / 2;
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, [format!("layers.{layer}.phi_min"), format!("layers.{layer}.phi_max")]);
        measured.extend(found);
    }
    let expected = run(&config.extremes(&module).unwrap(), "extremes", &x);
    let apart = |found: &[(String, Tensor)]| {
        let pairs = found.iter().zip(&expected).flat_map(|((a, found), (b, expected))| {
            assert_eq!(a, b);
            found.to_vec::<f32>().into_iter().zip(expected.to_vec::<f32>())
        });
        pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    };
    assert_eq!((measured.len(), expected.len()), (6, 6));
    assert!(apart(&measured) < 1e-6, "{}", apart(&measured));
    // Not so with later layers that see what each batch's own extremes make of it.
    let own = apart(&over(&config.extremes(&module).unwrap()));
    assert!(own > 1e-3, "{own}");
    // What was measured has to fit, and there has to be something to measure.
    measured[0].1 = Tensor::f32(&[2], &[f32::NAN; 2]).unwrap();
    assert!(matches!(config.next_extremes(&module, &measured[..2]), Err(ModelError::Extremes { .. })));
    let plain = AfKan { func_norm: false, ..config };
    assert_eq!(plain.next_extremes(&module, &[]).map(|_| ()), Err(ModelError::NoExtremes));
}

#[test]
fn extremes_that_do_not_fit_are_refused() {
    let config = small();
    let module = config.module(0).unwrap();
    let good = run(&config.extremes(&module).unwrap(), "extremes", &sample(&[4, 6]));
    assert!(config.freeze(&module, &good).is_ok());
    let with = |at: usize, tensor: Tensor| {
        let mut measured = good.clone();
        measured[at].1 = tensor;
        config.freeze(&module, &measured).map(|_| ()).unwrap_err()
    };
    assert!(matches!(config.freeze(&module, &good[1..]), Err(ModelError::Extremes { .. })));
    for bad in [f32::NAN, f32::INFINITY, -1.0] {
        assert!(matches!(with(1, Tensor::f32(&[1], &[bad]).unwrap()), ModelError::Extremes { .. }), "{bad}");
    }
    assert!(matches!(with(0, Tensor::f32(&[2], &[0.0; 2]).unwrap()), ModelError::Extremes { .. }));
    let other = AfKan { layers: vec![6, 4, 3], ..small() };
    assert!(matches!(other.extremes(&module), Err(ModelError::Param { .. })));
    assert!(matches!(
        small().extremes(&Mlp { layers: vec![6, 5, 3], ..Mlp::default() }.module(0).unwrap()),
        Err(ModelError::Param { .. })
    ));
    let plain = AfKan { func_norm: false, ..small() };
    assert_eq!(plain.extremes(&module).map(|_| ()), Err(ModelError::NoExtremes));
    assert_eq!(plain.freeze(&module, &good).map(|_| ()), Err(ModelError::NoExtremes));
}

/// Both orders by hand: W act(x) and act(W x).
#[test]
fn a_perceptron_activates_what_it_is_told_to() {
    for activation_last in [false, true] {
        let layers = vec![3, 2];
        let config = Mlp { layers, activation: Activation::Relu, norm: Norm::None, activation_last };
        let module = config.module(5).unwrap();
        let x = sample(&[4, 3]);
        let (values, weight) = (x.to_vec::<f32>(), module.params["layers.0.base_weight"].value.to_vec::<f32>());
        let relu = |v: f32| v.max(0.0);
        let before = |v: f32| if activation_last { v } else { relu(v) };
        let mut expected = Vec::new();
        for row in values.chunks(3) {
            for column in weight.chunks(3) {
                let sum = column.iter().zip(row).map(|(w, x)| w * before(*x)).sum::<f32>();
                expected.push(if activation_last { relu(sum) } else { sum });
            }
        }
        let found = run(&module, "infer", &x)[0].1.to_vec::<f32>();
        assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?}, {expected:?}");
        assert!(activation_last == found.iter().all(|v| *v >= 0.0), "{found:?}");
    }
}

/// Batch statistics by hand: x is normalised, running statistics take a tenth of the batch's, the variance unbiased.
#[test]
fn a_batch_norm_trains_on_its_batch_and_infers_by_what_it_kept() {
    let config = Mlp { layers: vec![3, 2], norm: Norm::Batch, ..Mlp::default() };
    let mut module = config.module(2).unwrap();
    verify(&module).unwrap();
    assert!(!module.params["layers.0.norm.running_var"].trainable);
    let x = sample(&[4, 3]);
    let trained = run(&module, "train", &x);
    let names: Vec<&str> = trained.iter().map(|(n, _)| n.as_str()).collect();
    assert_eq!(names, ["logits", "layers.0.norm.running_mean", "layers.0.norm.running_var"]);
    let values = x.to_vec::<f32>();
    for column in 0..3 {
        let column_values: Vec<f64> = (0..4).map(|row| f64::from(values[row * 3 + column])).collect();
        let mean = column_values.iter().sum::<f64>() / 4.0;
        let variance = column_values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 3.0;
        let near = |found: f32, expected: f64| (f64::from(found) - expected).abs() < 1e-6;
        assert!(near(trained[1].1.to_vec::<f32>()[column], 0.1 * mean));
        assert!(near(trained[2].1.to_vec::<f32>()[column], 0.9 + 0.1 * variance));
    }
    // With the batch's own statistics kept, inference gives what training gave.
    for (name, kind) in [("layers.0.norm.running_mean", 0), ("layers.0.norm.running_var", 1)] {
        let kept: Vec<f32> = (0..3)
            .map(|c| {
                let column: Vec<f32> = (0..4).map(|r| values[r * 3 + c]).collect();
                let mean = column.iter().sum::<f32>() / 4.0;
                if kind == 0 { mean } else { column.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / 4.0 }
            })
            .collect();
        module.params[name].value = Tensor::f32(&[3], &kept).unwrap();
    }
    let (trained, inferred) = (trained[0].1.to_vec::<f32>(), run(&module, "infer", &x)[0].1.to_vec::<f32>());
    assert!(trained.iter().zip(&inferred).all(|(a, b)| (a - b).abs() < 1e-5), "{trained:?}, {inferred:?}");
}

/// Methods that share a norm renew it in turn.
#[test]
fn running_statistics_take_every_method() {
    let one = AfKan { norm: Norm::Batch, methods: vec![Method::Multistep], ..small() };
    let two = AfKan { methods: vec![Method::Multistep; 2], ..one.clone() };
    let x = sample(&[4, 6]);
    let mean = |config: &AfKan| run(&config.module(0).unwrap(), "train", &x)[1].1.to_vec::<f32>();
    let (once, twice) = (mean(&one), mean(&two));
    // m, then 0.9 m + m: 1.9 m.
    assert!(once.iter().zip(&twice).all(|(a, b)| (1.9 * a - b).abs() < 1e-6), "{once:?}, {twice:?}");
}
