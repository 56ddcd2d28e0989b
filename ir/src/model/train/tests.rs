//! Losses and updates against PyTorch 2.15's numbers, and what a training module refuses.

use indexmap::IndexMap;

use super::*;
use crate::model::Mlp;
use crate::reference::{Options, eval_function};
use crate::tensor::Tensor;
use crate::value::HostValue;

fn run(f: &Function, inputs: &[Tensor]) -> Vec<Vec<f32>> {
    let inputs: Vec<HostValue> = inputs.iter().cloned().map(HostValue::Tensor).collect();
    let found = eval_function(&Module::default(), f, &inputs, Options::default()).unwrap();
    found.iter().map(|v| v.tensor().unwrap().to_vec()).collect()
}

fn close(found: f32, expected: f32) {
    assert!((found - expected).abs() <= 1e-6 * expected.abs().max(1.0), "{found}, expected {expected}");
}

#[test]
fn losses_are_those_of_pytorch() {
    let x = Tensor::f32(&[2, 3], &[0.5, -1.0, 2.0, 1.5, 0.25, -0.75]).unwrap();
    let classes = Tensor::i64(&[2], &[2, 1]).unwrap();
    let values = Tensor::f32(&[2, 3], &[0.0, 1.0, 0.5, 1.0, 0.0, 0.25]).unwrap();
    let smoothed = |smoothing| Loss::CrossEntropy { smoothing };
    let cases = [
        (smoothed(0.0), &classes, 0.910_991_97),
        (smoothed(0.1), &classes, 0.981_825_3),
        (Loss::Mse, &values, 1.302_083_4),
        (Loss::Bce, &values, 0.835_998_36),
    ];
    for (loss, target, expected) in cases {
        let mut f = Function::new("loss");
        let (output, wanted) = (f.add_input("x", x.ty()), f.add_input("t", target.ty()));
        assert_eq!(loss.target(&x.ty()), Some(target.ty()));
        let value = loss.of(&mut Builder::new(&mut f, Origin::named("loss")), output, wanted).unwrap();
        f.add_output("loss", value);
        close(run(&f, &[x.clone(), target.clone()])[0][0], expected);
    }
}

#[test]
fn two_steps_of_each_update_are_those_of_pytorch() {
    let sgd = |momentum, nesterov| Update::Sgd { momentum, nesterov };
    let adam = |decoupled| Update::Adam { decoupled, beta2: 0.999, epsilon: 1e-8 };
    let cases = [
        (sgd(false, false), 0.9, [1.048_051, -1.983_527_1]),
        (sgd(true, false), 0.9, [1.002_151, -1.959_227_1]),
        (sgd(true, true), 0.9, [1.050_074_1, -1.946_877_5]),
        (adam(false), 0.9, [0.935_523_7, -1.864_838_2]),
        (adam(true), 0.9, [0.934_711_4, -1.869_468_3]),
    ];
    for (update, momentum, expected) in cases {
        let mut f = Function::new("update");
        let ty = TensorType::known(DType::F32, &[2]);
        let (param, gradient) = (f.add_input("p", ty.clone()), f.add_input("g", ty));
        let scalars = SCALARS.map(|name| f.add_input(name, TensorType::scalar(DType::F32)));
        let mut b = Builder::new(&mut f, Origin::named("update"));
        let (next, moved) = update.apply(&mut b, "p", param, gradient, 0.01, &scalars).unwrap();
        assert_eq!(moved.len(), moments(update).len());
        f.add_output("p", next);
        for (name, _, next) in &moved {
            f.add_output(name, *next);
        }
        let mut state = vec![vec![1.0, -2.0]];
        state.resize(1 + moved.len(), vec![0.0, 0.0]);
        for (step, gradient) in [[0.5, -0.25], [-1.0, 0.125]].iter().enumerate() {
            let power = i32::try_from(step).unwrap() + 1;
            let numbers = [0.1, momentum, 1.0 - f32::powi(momentum, power), 1.0 - 0.999_f32.powi(power)];
            let vector = |v: &[f32]| Tensor::f32(&[2], v).unwrap();
            let mut inputs = vec![vector(&state[0]), vector(gradient)];
            inputs.extend(numbers.iter().map(|n| Tensor::f32(&[], &[*n]).unwrap()));
            inputs.extend(state[1..].iter().map(|v| vector(v)));
            state = run(&f, &inputs);
        }
        for (found, expected) in state[0].iter().zip(expected) {
            // The corrections are f32 here.
            assert!((found - expected).abs() < 2e-5, "{update:?}: {found}, expected {expected}");
        }
    }
}

fn recipe(frozen: Vec<String>, output: Option<&str>) -> Recipe<'_> {
    let update = Update::Adam { decoupled: true, beta2: 0.999, epsilon: 1e-8 };
    let loss = Loss::CrossEntropy { smoothing: 0.0 };
    Recipe { loss, output, update, decay: IndexMap::new(), clip_norm: Some(1.0), frozen }
}

#[test]
fn a_step_donates_all_of_its_state() {
    let module = Mlp { layers: vec![4, 3, 2], ..Mlp::default() }.module(0).unwrap();
    let made = train_module(&module, &recipe(vec!["layers.0.base_weight".to_owned()], None)).unwrap();
    crate::verify::verify(&made).unwrap();
    let step = &made.functions["train_step"];
    // Five of the six parameters, with two moments each; the frozen one is a constant.
    assert_eq!(module.params.len(), 6);
    assert_eq!(step.donations.len(), 5 * 3);
    for donation in &step.donations {
        let input = step.input_values().nth(donation.input).unwrap();
        let Op::Input { name, .. } = step.op(input) else { panic!("an input") };
        assert_eq!(*name, step.outputs()[donation.output].name);
    }
}

/// Of two heads the one that the loss looks at is trained; decay leaves the other.
#[test]
fn what_the_output_does_not_depend_on_is_no_state() {
    let mut module = Mlp { layers: vec![4, 3, 2], ..Mlp::default() }.module(0).unwrap();
    let f = module.entry_mut().unwrap();
    let hidden = f.nodes().into_iter().find(|id| matches!(&f.node(*id).op, Op::DotGeneral { .. })).unwrap();
    f.add_output("hidden", Value { node: hidden, result: 0 });
    let made = train_module(&module, &recipe(Vec::new(), Some("hidden"))).unwrap();
    let inputs = made.functions["train_step"].input_values();
    let names: Vec<String> = inputs
        .filter_map(|v| match made.functions["train_step"].op(v) {
            Op::Input { name, .. } if name.starts_with("layers.") => Some(name.clone()),
            _ => None,
        })
        .collect();
    assert!(names.len() == 3 && names.iter().all(|name| name.starts_with("layers.0.")), "{names:?}");
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let module = Mlp { layers: vec![4, 2], ..Mlp::default() }.module(0).unwrap();
    let all: Vec<String> = module.params.keys().cloned().collect();
    assert_eq!(train_module(&module, &recipe(all, None)).unwrap_err(), TrainError::NoParameters);
    let error = train_module(&module, &recipe(Vec::new(), Some("nothing"))).unwrap_err();
    assert!(matches!(&error, TrainError::NoOutput { known, .. } if known == "`logits`"), "{error}");
    assert_eq!(train_module(&Module::default(), &recipe(Vec::new(), None)).unwrap_err(), TrainError::NoFunction);
}
