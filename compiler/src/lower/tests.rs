//! What bodies become: concats as loops over their operands.

use frit_ir::text::{NoConstants, from_text};
use frit_ir::{Dim, Numerics};

use super::lower;
use crate::kernel::interp::{Memory, run};
use crate::kernel::{Kernel, Scalar};

/// The kernel of a function in text.
fn kernel(text: &str) -> Kernel {
    let module = from_text(&format!("frit 1\n{text}"), &NoConstants).expect("a module");
    let body = module.entry().expect("a function");
    lower(body, "k", Numerics::STRICT).expect("a kernel").kernel
}

/// The last argument after a run with `b` in each dim; inputs count on from 1.
fn result(kernel: &Kernel, b: i64) -> Vec<f64> {
    let of = |d: &Dim| d.eval(&|_| Some(b)).expect("an extent");
    let dims: Vec<i64> = kernel.dims.iter().map(|d| of(&d.value)).collect();
    let extent = |d: &Dim| {
        let value = |s: &frit_ir::Symbol| kernel.dims.iter().position(|k| k.symbol == *s).map(|i| dims[i]);
        d.eval(&value).expect("a length") as usize
    };
    let mut next = 0.0;
    let mut arguments: Vec<Memory> = Vec::new();
    for (_, buffer) in kernel.arguments() {
        let mut memory = Memory::zeros(buffer.dtype, extent(&buffer.len));
        if buffer.role == crate::kernel::Role::Input {
            for i in 0..memory.len() {
                next += 1.0;
                memory.set(i, Scalar::f32(next));
            }
        }
        arguments.push(memory);
    }
    run(kernel, &dims, &mut arguments).expect("it runs");
    let last = arguments.last().expect("an output");
    (0..last.len()).map(|i| f64::from(f32::from_bits(last.get(i).expect("inside").bits as u32))).collect()
}

fn selects(kernel: &Kernel) -> usize {
    kernel.to_string().matches("select").count()
}

#[test]
fn elementwise_ops_of_a_concat_are_loops_over_its_operands() {
    let k = kernel(
        "func @infer(%x \"x\": f32[b, 2], %z \"z\": f32[3, 2]) {
           %c = concat(%x, %z) {axis = 0}
           %n = neg(%c)
           %d = concat(%x, %z) {axis = 0}
           %y = add(%n, %d)
           return \"y\" = %y\n}\n",
    );
    assert_eq!((k.phases.len(), selects(&k)), (2, 0), "{k}");
    assert_eq!(result(&k, 2), [0.0; 10]);
    let k = kernel(
        "func @infer(%x \"x\": f32[2, b], %z \"z\": f32[2, 1]) {
           %c = concat(%x, %z) {axis = 1}
           %y = neg(%c)
           return \"y\" = %y\n}\n",
    );
    assert_eq!((k.phases.len(), selects(&k)), (2, 0), "{k}");
    assert_eq!(result(&k, 2), [-1.0, -2.0, -5.0, -3.0, -4.0, -6.0]);
}

#[test]
fn concats_of_concats_are_loops_over_what_ends_up_in_them() {
    let k = kernel(
        "func @infer(%x \"x\": f32[b]) {
           %a = concat(%x, %x) {axis = 0}
           %n = neg(%a)
           %y = concat(%n, %a) {axis = 0}
           return \"y\" = %y\n}\n",
    );
    assert_eq!((k.phases.len(), selects(&k)), (4, 0), "{k}");
    assert_eq!(result(&k, 2), [-1.0, -2.0, -1.0, -2.0, 1.0, 2.0, 1.0, 2.0]);
}

#[test]
fn concats_that_are_cut_elsewhere_still_select() {
    let k = kernel(
        "func @infer(%x \"x\": f32[4], %z \"z\": f32[2]) {
           %c = concat(%x, %z) {axis = 0}
           %d = concat(%z, %x) {axis = 0}
           %y = sub(%c, %d)
           return \"y\" = %y\n}\n",
    );
    assert_eq!(result(&k, 0), [-4.0, -4.0, 2.0, 2.0, 2.0, 2.0], "{k}");
}

#[test]
fn a_kernel_of_many_pieces_grows_with_their_number() {
    let body = |pieces: usize| {
        let operands = vec!["%x"; pieces].join(", ");
        format!("func @infer(%x \"x\": f32[b, 4]) {{\n %y = concat({operands}) {{axis = 1}}\n return \"y\" = %y\n}}\n")
    };
    let start = std::time::Instant::now();
    let k = kernel(&body(2000));
    assert_eq!((k.phases.len(), selects(&k)), (2000, 0));
    // Every phase was written into a copy of all before.
    assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
}

#[test]
fn views_that_do_not_fold_grow_with_their_number() {
    let views = |n: usize| {
        let view = |i: usize| {
            format!("%t{i} = transpose(%v{i}) {{perm = [1, 0]}}\n%v{} = reshape(%t{i}) {{dims = [3, 4]}}\n", i + 1)
        };
        let all: String = (0..n).map(view).collect();
        kernel(&format!("func @infer(%v0 \"x\": f32[3, 4]) {{\n{all}%y = neg(%v{n})\nreturn \"y\" = %y\n}}\n"))
    };
    let expected = |n: usize| {
        let mut v: Vec<usize> = (0..12).collect();
        for _ in 0..n {
            v = (0..12).map(|p| v[p % 3 * 4 + p / 3]).collect();
        }
        v.into_iter().map(|p| -(p as f64 + 1.0)).collect::<Vec<_>>()
    };
    for n in [1, 7, 60] {
        assert_eq!(result(&views(n), 0), expected(n), "{n} views");
    }
    let (some, more) = (views(60).to_string().len(), views(120).to_string().len());
    assert!(more < 3 * some, "{some} characters, then {more}");
}

#[test]
fn concats_that_double_are_one_loop_for_each_copy() {
    let twice = |i: usize| format!("%v{} = concat(%v{i}, %v{i}) {{axis = 0}}\n", i + 1);
    let all: String = (0..7).map(twice).collect();
    let k = kernel(&format!("func @infer(%v0 \"x\": f32[b]) {{\n{all}return \"y\" = %v7\n}}\n"));
    assert_eq!((k.phases.len(), selects(&k)), (128, 0));
    assert_eq!(result(&k, 2), [1.0, 2.0].repeat(128));
}
