//! Which ops make one kernel, and which don't.

use frit_ir::builder::Builder;
use frit_ir::types::{DType, Dim, TensorType};
use frit_ir::{BinaryOp, Function, Origin, ReduceKind, UnaryOp, Value};

use super::*;

fn function(dims: &[usize], build: impl FnOnce(&mut Builder<'_>, Value) -> Vec<Value>) -> Function {
    let mut f = Function::new("infer");
    let x = f.add_input("x", TensorType::known(DType::F32, dims));
    let outputs = build(&mut Builder::new(&mut f, Origin::named("test")), x);
    for (i, v) in outputs.into_iter().enumerate() {
        f.add_output(&format!("y{i}"), v);
    }
    f
}

fn softmax(b: &mut Builder<'_>, x: Value, axis: usize) -> Value {
    let m = b.reduce(x, vec![axis], ReduceKind::Max, true).expect("max");
    let s = b.binary(BinaryOp::Sub, x, m).expect("sub");
    let e = b.unary(UnaryOp::Exp, s).expect("exp");
    let z = b.reduce(e, vec![axis], ReduceKind::Sum, true).expect("sum");
    b.binary(BinaryOp::Div, e, z).expect("div")
}

#[test]
fn softmax_is_one_kernel_of_rows_along_any_axis_and_length() {
    for (dims, axis, rows, reduced) in [(&[64, 784][..], 1, 64, 784), (&[2, 30, 5], 1, 10, 30), (&[64, 10], 1, 64, 10)]
    {
        let f = function(dims, |b, x| vec![softmax(b, x, axis)]);
        let shape = kernel_shape(&f).expect("one kernel");
        let space = shape.space.expect("rows");
        assert_eq!((space.rows, space.reduced, space.sections.len()), (Dim::Known(rows), Dim::Known(reduced), 2));
    }
}

#[test]
fn a_split_reduce_is_a_barrier_for_what_needs_it() {
    let both = |n: usize| {
        function(&[n], |b, x| {
            let sum = b.reduce(x, vec![0], ReduceKind::Sum, false).expect("sum");
            vec![b.binary(BinaryOp::Div, x, sum).expect("div")]
        })
    };
    assert!(kernel_shape(&both(4096)).is_ok());
    assert_eq!(
        kernel_shape(&both(4097)).map(|_| ()),
        Err(Refusal::Barrier { op: "broadcast", elements: Dim::Known(4097) })
    );
}

#[test]
fn reduces_over_other_extents_are_two_kernels() {
    let f = function(&[32, 48], |b, x| {
        [0, 1].map(|axis| b.reduce(x, vec![axis], ReduceKind::Sum, false).expect("sum")).to_vec()
    });
    assert_eq!(kernel_shape(&f).map(|_| ()), Err(Refusal::Reduces("[(32), 48]".into(), "[32, (48)]".into())));
}

#[test]
fn a_short_reduce_is_written_out_and_sizes_must_agree() {
    let f = function(&[64, 784, 6], |b, x| vec![b.reduce(x, vec![2], ReduceKind::Sum, false).expect("sum"), x]);
    assert_eq!(kernel_shape(&f).map(|_| ()), Err(Refusal::Empty));
    let f = function(&[64, 784, 6], |b, x| {
        let y = b.unary(UnaryOp::Neg, x).expect("neg");
        vec![b.reduce(x, vec![2], ReduceKind::Sum, false).expect("sum"), y]
    });
    assert_eq!(kernel_shape(&f).map(|_| ()), Err(Refusal::Counts(Dim::Known(50176), Dim::Known(301056))));
}
