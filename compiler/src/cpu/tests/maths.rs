//! Expanded elementary functions as machine code: the interpreter's bits, alone and in lanes.

use frit_ir::{BinaryOp, DType, Dim, UnaryOp};

use super::harness::{Compiled, f32s, values, vectors};
use crate::cpu::Effort;
use crate::kernel::build::KernelBuilder;
use crate::kernel::{Kernel, Role, Scalar, Stmt, expand, maths};
use crate::schedule::Schedule;

fn inputs() -> Vec<f32> {
    let mut x: Vec<f32> = (-200..200).map(|i| i as f32 * 0.37).collect();
    x.extend([0.0, -0.0, 1.0, -1.0, 1e-30, 1e-42, -1e-42, 1e10, -3e20, 88.0, -104.0]);
    x.extend([f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX, f32::MIN_POSITIVE]);
    x
}

fn check(kernel: &Kernel, arguments: &[Vec<u8>], n: usize, expected: &[Scalar], about: &str) {
    let var = "i1";
    for lanes in [1, 4, 8, 16] {
        let schedule = if lanes == 1 { Schedule::default() } else { vectors(&[var], lanes) };
        let out = Compiled::new(kernel, &schedule, Effort::Auto).run(arguments, &[n as i64]);
        // The remainder goes through f64, which lanes do not hold.
        let vectorised = usize::from(lanes > 1 && about != "rem");
        assert_eq!(out.report.vectorised.len(), vectorised, "{about}: {:?}", out.report.scalar);
        let result = values(out.buffers.last().unwrap(), f32::from_le_bytes);
        for (k, (y, e)) in result.iter().zip(expected).enumerate() {
            assert!(Scalar::f32(*y).same(*e), "{about} in {lanes} lanes, element {k}: {y} {}", e.to_f32());
        }
    }
}

fn kernel_of(inputs: usize, write: impl Fn(&mut KernelBuilder, &[crate::kernel::Reg]) -> crate::kernel::Reg) -> Kernel {
    let mut b = KernelBuilder::new("maths", false);
    let n = b.dim(&Dim::symbol("N"));
    let x: Vec<_> = (0..inputs).map(|i| b.buffer(&format!("x{i}"), DType::F32, n.clone(), Role::Input)).collect();
    let y = b.buffer("y", DType::F32, n.clone(), Role::Output);
    b.phase(Dim::ONE, |b, _| {
        b.for_(n.clone(), |b, i| {
            let loaded: Vec<_> = x.iter().map(|x| b.load(*x, i.clone())).collect();
            let value = write(b, &loaded);
            b.push(Stmt::Store { buffer: y, index: i, value });
        });
    });
    let mut kernel = b.finish();
    expand::expand(&mut kernel).unwrap();
    kernel
}

#[test]
fn functions_of_one_operand() {
    let x = inputs();
    for op in UnaryOp::ALL.iter().copied().filter(|op| *op != UnaryOp::Not) {
        let kernel = kernel_of(1, |b, v| b.unary(op, v[0]));
        let expected: Vec<Scalar> =
            x.iter().map(|v| maths::evaluate_unary(op, Scalar::f32(*v), false).unwrap()).collect();
        check(&kernel, &[f32s(&x), vec![0; 4 * x.len()]], x.len(), &expected, op.name());
    }
}

#[test]
fn functions_of_two_operands() {
    let x = inputs();
    let z: Vec<f32> = x.iter().rev().map(|v| v * 0.61).collect();
    for op in [BinaryOp::Pow, BinaryOp::Atan2, BinaryOp::Rem, BinaryOp::Min, BinaryOp::Max] {
        let kernel = kernel_of(2, |b, v| b.binary(op, v[0], v[1]));
        let pairs = x.iter().zip(&z).map(|(a, b)| (Scalar::f32(*a), Scalar::f32(*b)));
        let expected: Vec<Scalar> = pairs.map(|(a, b)| maths::evaluate_binary(op, a, b).unwrap()).collect();
        check(&kernel, &[f32s(&x), f32s(&z), vec![0; 4 * x.len()]], x.len(), &expected, op.name());
    }
}
