//! Schedules, optimisers and losses against numbers that PyTorch 2.15 gave.

use crate::data::dataset::TargetSlice;
use crate::train::config::LossKind;
use crate::train::reference::loss::loss;
use crate::train::reference::update::{clip_factor, update};
use crate::train::schedule::Point;
use crate::train::{Hyper, Optimizer, OptimizerKind, Rates, Schedule};

fn close(found: f64, expected: f64, tolerance: f64) -> bool {
    (found - expected).abs() <= tolerance * expected.abs().max(1e-6)
}

fn by_epoch(schedule: &Schedule, expected: &[(u32, f64)]) {
    for (epoch, rate) in expected {
        let point = Point { epoch: *epoch, step: u64::from(*epoch) * 10, epochs: 35, steps: 350 };
        let found = schedule.at(1e-3, point);
        assert!(close(found.learning_rate, *rate, 1e-12), "{schedule:?} {epoch}: {found:?}");
        assert_eq!(found.momentum, None);
    }
}

fn by_step(schedule: &Schedule, steps: u64, expected: &[(u64, f64, f64)]) {
    for (step, rate, momentum) in expected {
        let found = schedule.at(1e-3, Point { epoch: 0, step: *step, epochs: 1, steps });
        let Rates { learning_rate, momentum: Some(found) } = found else { panic!("{found:?}") };
        assert!(close(learning_rate, *rate, 1e-11), "{schedule:?} {step}: {learning_rate}");
        assert!(close(found, *momentum, 1e-11), "{schedule:?} {step}: {found}");
    }
}

#[test]
fn schedules_are_pytorchs() {
    let named = |name| Schedule::of_name(name).unwrap();
    by_epoch(&named("constant"), &[(0, 1e-3), (34, 1e-3)]);
    by_epoch(
        &named("exponential"),
        &[(0, 0.001), (1, 0.0008), (2, 0.00064), (9, 0.00013421772800000008), (34, 5.070602400912927e-07)],
    );
    by_epoch(
        &named("step"),
        &[(0, 1e-3), (10, 1e-3), (11, 1e-4), (21, 1e-4), (22, 1e-5), (33, 1.0000000000000002e-06), (34, 1e-6)],
    );
    by_epoch(
        &named("cosine"),
        &[
            (0, 0.001),
            (1, 0.0009979871469976197),
            (10, 0.0008117449009293667),
            (17, 0.0005224324151752573),
            (34, 2.012853002380465e-06),
        ],
    );
    by_step(
        &named("one-cycle"),
        100,
        &[
            (0, 0.001, 0.95),
            (1, 0.0010058620428456404, 0.9497068978577179),
            (15, 0.0020541389085854175, 0.897293054570729),
            (28, 0.0029941379571543597, 0.850293102142282),
            (29, 0.003, 0.85),
            (30, 0.0029984896501586453, 0.8500503466729342),
            (31, 0.002993961642278159, 0.850201285300238),
            (60, 0.0017678764143532152, 0.8910721552600681),
            (98, 1.6103498413551816e-06, 0.9499496533270657),
            (99, 1e-07, 0.95),
        ],
    );
    let Schedule::Cyclic { minimum, maximum, momentum, cycle_momentum, .. } = named("cyclic") else { panic!("cyclic") };
    by_step(
        &Schedule::Cyclic { minimum, maximum, momentum, cycle_momentum, up: 20 },
        1000,
        &[
            (0, 3e-06, 0.9),
            (1, 0.00015284999999999946, 0.895),
            (10, 0.0015015, 0.85),
            (20, 0.003, 0.8),
            (21, 0.0028501500000000005, 0.805),
            (39, 0.00015284999999999946, 0.895),
            (40, 3e-06, 0.9),
            (41, 7.792499999999974e-05, 0.8975000000000001),
            (60, 0.0015015, 0.85),
            (100, 0.00075225, 0.875),
            (129, 0.00017158124999999973, 0.894375),
        ],
    );
}

#[test]
fn schedules_of_a_step_or_an_epoch_are_finite() {
    for name in Schedule::NAMES {
        let schedule = Schedule::of_name(name).unwrap();
        assert_eq!(schedule.name(), name);
        schedule.check().unwrap();
        for steps in 1..6 {
            for step in 0..=steps + 1 {
                let rates = schedule.at(1e-3, Point { epoch: step as u32, step, epochs: steps as u32, steps });
                assert!(
                    rates.learning_rate.is_finite() && rates.learning_rate >= 0.0,
                    "{name} {step}/{steps}: {rates:?}"
                );
                assert!(rates.momentum.is_none_or(|m| (0.0..1.0).contains(&m)), "{name} {step}/{steps}: {rates:?}");
            }
        }
    }
}

/// Five steps on the loss mean((p c - 1)^2) + 0.1 sum(p^3).
fn five_steps(optimizer: &Optimizer) -> ([f32; 3], Vec<f64>) {
    let mut p = [1.0_f32, -2.0, 0.5];
    let c = [f64::from(0.3_f32), f64::from(-1.7_f32), 2.0];
    let mut moments = vec![vec![0.0; 3]; optimizer.moments().len()];
    let mut norms = Vec::new();
    for step in 1..=5 {
        let slope = |(p, c): (&f32, &f64)| {
            let p = f64::from(*p);
            2.0 / 3.0 * (p * c - 1.0) * c + 0.3 * p * p
        };
        let gradient: Vec<f64> = p.iter().zip(&c).map(slope).collect();
        let norm = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
        norms.push(norm);
        let factor = clip_factor(optimizer, norm);
        let gradient: Vec<f64> = gradient.iter().map(|g| g * factor).collect();
        let hyper = Hyper { step, learning_rate: optimizer.learning_rate, momentum: optimizer.usual_momentum() };
        let scalars = optimizer.scalars(&hyper);
        update(optimizer, &scalars, optimizer.decay_of("p"), &mut p, &gradient, &mut moments);
    }
    (p, norms)
}

#[test]
fn optimisers_are_pytorchs() {
    let base = Optimizer { learning_rate: 0.05, weight_decay: 0.1, ..Optimizer::default() };
    let sgd = Optimizer { kind: OptimizerKind::Sgd, ..base.clone() };
    let cases = [
        (Optimizer { momentum: 0.0, ..sgd.clone() }, [0.939687967300415, -1.60702645778656, 0.476962149143219]),
        (sgd.clone(), [0.8435826897621155, -0.9926546812057495, 0.4439184069633484]),
        (Optimizer { nesterov: true, ..sgd.clone() }, [0.8118289113044739, -0.8269929885864258, 0.445283442735672]),
        (
            Optimizer { kind: OptimizerKind::Adam, ..base.clone() },
            [0.7567619681358337, -1.7506465911865234, 0.46706175804138184],
        ),
        (base.clone(), [0.7429090738296509, -1.7037913799285889, 0.4943883717060089]),
        (
            Optimizer { momentum: 0.0, weight_decay: 0.0, clip_norm: Some(0.5), ..sgd },
            [0.9868882298469543, -1.8758203983306885, 0.49431103467941284],
        ),
    ];
    for (optimizer, expected) in cases {
        optimizer.check().unwrap();
        let (found, norms) = five_steps(&optimizer);
        for (found, expected) in found.iter().zip(expected) {
            assert!(close(f64::from(*found), expected, 1e-6), "{optimizer:?}: {found} {expected}");
        }
        if optimizer.clip_norm.is_some() {
            for (found, expected) in norms.iter().zip([1.530237078666687, 1.5117731094360352, 1.4929516315460205]) {
                assert!(close(*found, expected, 1e-6), "{found} {expected}");
            }
        }
    }
}

#[test]
fn losses_are_pytorchs() {
    let outputs = [0.5, -1.0, 2.0, f64::from(0.1_f32), f64::from(0.2_f32), -3.0];
    let classes = TargetSlice::Classes(&[2, 0]);
    let values = TargetSlice::Values { data: &[1.0, 0.0, 0.25, 0.0, 1.0, 1.0], shape: &[3] };
    let cases: [(LossKind, f64, TargetSlice<'_>, f64, [f64; 6]); 4] = [
        (
            LossKind::CrossEntropy,
            0.0,
            classes,
            0.503440797328949,
            [
                0.08764519542455673,
                0.019556285813450813,
                -0.107201486825943,
                -0.26746565103530884,
                0.2569901943206787,
                0.01047548558562994,
            ],
        ),
        (
            LossKind::CrossEntropy,
            0.1,
            classes,
            0.628440797328949,
            [
                0.07097852975130081,
                0.0028896182775497437,
                -0.07386815547943115,
                -0.2341323345899582,
                0.2403235286474228,
                -0.00619118195027113,
            ],
        ),
        (
            LossKind::Mse,
            0.0,
            values,
            3.4937498569488525,
            [
                -0.1666666716337204,
                -0.3333333432674408,
                0.5833333730697632,
                0.03333333507180214,
                -0.2666666805744171,
                -1.3333333730697632,
            ],
        ),
        (
            LossKind::Bce,
            0.0,
            values,
            1.1342315673828125,
            [
                -0.06292343884706497,
                0.04482357203960419,
                0.10513284057378769,
                0.08749652653932571,
                -0.07502767443656921,
                -0.1587623506784439,
            ],
        ),
    ];
    for (kind, smoothing, targets, expected, gradient) in cases {
        let found = loss(kind, smoothing, &outputs, 3, targets);
        assert!(close(found.loss, expected, 1e-6), "{kind:?}: {} {expected}", found.loss);
        for (found, expected) in found.gradient.iter().zip(gradient) {
            assert!(close(*found, expected, 2e-6), "{kind:?}: {found} {expected}");
        }
        let right = (kind == LossKind::CrossEntropy).then_some(1);
        assert_eq!(found.correct, right, "{kind:?}");
    }
    // Far outputs neither overflow nor make NaN of what is not wanted.
    let far = loss(LossKind::CrossEntropy, 0.0, &[1e4, -1e4], 2, TargetSlice::Classes(&[0]));
    assert_eq!((far.loss, far.correct), (0.0, Some(1)));
    let far = loss(LossKind::Bce, 0.0, &[1e4, -1e4], 1, TargetSlice::Values { data: &[1.0, 0.0], shape: &[1] });
    assert_eq!(far.loss, 0.0);
}
