//! Small modules through plan, code and executor; what runs refuse.
#![cfg(feature = "jit")]

use std::sync::Arc;

use frit_compiler::cpu::{CodeGenerator, CodeOptions};
use frit_compiler::plan::build::build;
use frit_ir::builder::Builder;
use frit_ir::{
    BinaryOp, DType, Dim, Function, HostValue, Module, Numerics, Op, Origin, Tensor, TensorType, Value, ValueType,
};

use super::*;

fn origin(name: &str) -> Origin {
    Origin::named(name)
}

/// Plan and code of core ops, op by op.
fn model(module: &Module) -> Model {
    let options = CodeOptions::host().unwrap();
    let mut generator = CodeGenerator::new(&options);
    let mut generate =
        |kernel: &_, schedule: &_| generator.compile(kernel, schedule).map(|(code, _)| code).map_err(|e| e.to_string());
    Model::new(build(module, Numerics::STRICT, &[], &mut generate).unwrap().plan).unwrap()
}

fn f32s(shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::f32(shape, values).unwrap()
}

fn numbers(shape: &[usize]) -> Tensor {
    let n = shape.iter().product::<usize>();
    f32s(shape, &(0..n).map(|i| i as f32 / 2.0 - 3.0).collect::<Vec<_>>())
}

fn of(dtype: DType, dims: &[Dim]) -> TensorType {
    TensorType::new(dtype, dims.to_vec())
}

/// y = x w + b, batch symbolic.
fn affine() -> Module {
    let mut f = Function::new("infer");
    let x = f.add_input("x", of(DType::F32, &[Dim::symbol("B"), Dim::from(3usize)]));
    let w = f.add_input("w", of(DType::F32, &[Dim::from(3usize), Dim::from(2usize)]));
    let b = f.add_input("b", of(DType::F32, &[Dim::from(2usize)]));
    let mut build = Builder::new(&mut f, origin("affine"));
    let dot = Op::DotGeneral {
        lhs_batch: vec![],
        rhs_batch: vec![],
        lhs_contract: vec![1],
        rhs_contract: vec![0],
        accumulate: DType::F32,
    };
    let product = build.op(dot, &[x, w]).unwrap();
    let y = build.binary(BinaryOp::Add, product, b).unwrap();
    f.add_output("y", y);
    Module::of(f)
}

fn affine_inputs(batch: usize) -> [Tensor; 3] {
    [numbers(&[batch, 3]), f32s(&[3, 2], &[1.0, 0.0, 0.0, 1.0, 1.0, 1.0]), f32s(&[2], &[10.0, 20.0])]
}

fn affine_result(x: &Tensor) -> Vec<f32> {
    let x = x.to_vec::<f32>();
    x.chunks_exact(3).flat_map(|r| [r[0] + r[2] + 10.0, r[1] + r[2] + 20.0]).collect()
}

#[test]
fn one_model_runs_at_every_batch_size() {
    let model = model(&affine());
    let mut context = model.context();
    for batch in [1usize, 4, 0, 4, 7] {
        let [x, w, b] = affine_inputs(batch);
        context.run(&[(&x).into(), (&w).into(), (&b).into()]).unwrap();
        let y = context.output_tensor("y").unwrap();
        assert_eq!(y.shape(), [batch, 2]);
        assert_eq!(y.to_vec::<f32>(), affine_result(&x));
    }
    // The product, and the broadcast and addition of the bias.
    assert_eq!((model.ops().library, model.ops().generated), (1, 2), "{}", model.ops());
}

#[test]
fn many_threads_share_a_model() {
    let model = model(&affine());
    std::thread::scope(|scope| {
        for batch in 1..6 {
            let model = &model;
            scope.spawn(move || {
                let [x, w, b] = affine_inputs(batch * 100);
                for _ in 0..20 {
                    let results = model.run(&[("w", &w), ("x", &x), ("b", &b)]).unwrap();
                    assert_eq!(results[0].1.to_vec::<f32>(), affine_result(&x));
                }
            });
        }
    });
}

#[test]
fn thread_counts_give_the_same_bits() {
    let model = model(&affine());
    let [x, w, b] = affine_inputs(5000);
    let runs: Vec<Tensor> = [1, 2, 5]
        .into_iter()
        .map(|threads| {
            let model = model.with_pool(Arc::new(crate::pool::Pool::new(threads)));
            model.run(&[("x", &x), ("w", &w), ("b", &b)]).unwrap().remove(0).1
        })
        .collect();
    assert!(runs.iter().all(|r| *r == runs[0]));
}

#[test]
fn misaligned_inputs_are_copied() {
    let model = model(&affine());
    let [x, w, b] = affine_inputs(2);
    let mut odd = vec![0u8; x.bytes().len() + 4];
    let offset = (1..4).find(|o| !(odd.as_ptr().addr() + o).is_multiple_of(4)).unwrap();
    odd[offset..offset + x.bytes().len()].copy_from_slice(x.bytes());
    let view = TensorView { dtype: DType::F32, shape: x.shape(), data: &odd[offset..offset + x.bytes().len()] };
    let mut context = model.context();
    context.run(&[view.into(), (&w).into(), (&b).into()]).unwrap();
    assert_eq!(context.output_tensor("y").unwrap().to_vec::<f32>(), affine_result(&x));
}

#[test]
fn what_does_not_fit_is_named() {
    let model = model(&affine());
    let [x, w, b] = affine_inputs(2);
    let refused = |inputs: &[(&str, &Tensor)]| model.run(inputs).unwrap_err().to_string();
    assert_eq!(refused(&[("x", &x), ("w", &w)]), "input `b` (f32[2]) is missing; give it a value");
    assert_eq!(refused(&[("x", &x), ("w", &w), ("c", &b)]), "there is no input `c`; inputs are `x`, `w`, `b`");
    assert_eq!(refused(&[("x", &x), ("x", &x)]), "input `x` is given twice");
    let wide = numbers(&[2, 4]);
    assert_eq!(refused(&[("x", &wide), ("w", &w), ("b", &b)]), "input `x`, axis 1: extent 4, expected 3");
    let ints = Tensor::i64(&[2], &[1, 2]).unwrap();
    assert_eq!(
        refused(&[("x", &x), ("w", &w), ("b", &ints)]),
        "input `b`: element type i64, expected f32; convert the data first"
    );
    assert_eq!(refused(&[("x", &b), ("w", &w), ("b", &b)]), "input `x`: shape [2] has 1 dims, expected f32[B, 3]");
    let mut context = model.context();
    let short = TensorView { dtype: DType::F32, shape: &[2, 3], data: &x.bytes()[4..] };
    let error = context.run(&[short.into(), (&w).into(), (&b).into()]).unwrap_err();
    assert_eq!(error.to_string(), "input `x`: 20 bytes of data for a f32 tensor of shape [2, 3]");
    assert!(context.output(0).is_err());
    context.set_memory_limit(100);
    let big = numbers(&[1000, 3]);
    let error = context.run(&[(&big).into(), (&w).into(), (&b).into()]).unwrap_err();
    assert!(matches!(error, RunError::Limit { limit: 100, .. }), "{error}");
}

#[test]
fn specialised_inputs_are_guarded() {
    let module = affine();
    let [x, w, b] = affine_inputs(2);
    let options = CodeOptions::host().unwrap();
    let mut generator = CodeGenerator::new(&options);
    let mut generate =
        |kernel: &_, schedule: &_| generator.compile(kernel, schedule).map(|(code, _)| code).map_err(|e| e.to_string());
    let fixed = [("b".to_owned(), b.clone())];
    let built = build(&module, Numerics::STRICT, &fixed, &mut generate).unwrap();
    let model = Model::new(built.plan).unwrap();
    assert!(model.run(&[("x", &x), ("w", &w), ("b", &b)]).is_ok());
    let other = f32s(&[2], &[0.0, 0.0]);
    let error = model.run(&[("x", &x), ("w", &w), ("b", &other)]).unwrap_err();
    assert!(matches!(error, RunError::Value { .. }), "{error}");
}

/// compact of a mask feeding a gather: an extent that only the run shows.
#[test]
fn data_dependent_extents_are_bound() {
    let mut f = Function::new("infer");
    let n = Dim::symbol("N");
    let x = f.add_input("x", of(DType::F32, std::slice::from_ref(&n)));
    let mask = f.add_input("mask", of(DType::Bool, &[n]));
    let mut build = Builder::new(&mut f, origin("select"));
    let count = frit_ir::Symbol::new("count");
    let kept = build.op(Op::Compact { count }, &[mask]).unwrap();
    let dims = vec![Dim::symbol("count")];
    let values = build.op(Op::Cast { to: DType::F32, saturate: false }, &[kept]).unwrap();
    assert_eq!(build.dims(values).unwrap(), dims);
    let doubled = build.binary(BinaryOp::Add, values, values).unwrap();
    f.add_output("kept", kept);
    f.add_output("doubled", doubled);
    let _ = x;
    let model = model(&Module::of(f));
    let mut context = model.context();
    for mask in [vec![1u8, 0, 1, 1], vec![0, 0], vec![1; 100]] {
        let n = mask.len();
        let x = numbers(&[n]);
        let mask_tensor = Tensor::from_bytes(DType::Bool, &[n], &mask).unwrap();
        context.run(&[(&x).into(), (&mask_tensor).into()]).unwrap();
        let expected: Vec<i64> = (0..n as i64).filter(|i| mask[*i as usize] == 1).collect();
        assert_eq!(context.output_tensor("kept").unwrap().to_vec::<i64>(), expected);
        let doubled = context.output_tensor("doubled").unwrap().to_vec::<f32>();
        assert!(doubled.iter().zip(&expected).all(|(d, e)| *d == 2.0 * *e as f32));
        assert_eq!(doubled.len(), expected.len());
    }
}

fn region(inputs: &[(&str, TensorType)], fill: impl FnOnce(&mut Builder<'_>, &[Value]) -> Vec<Value>) -> Function {
    let mut f = Function::new("");
    let values: Vec<Value> = inputs.iter().map(|(name, ty)| f.add_input(name, ty.clone())).collect();
    let outputs = fill(&mut Builder::new(&mut f, origin("region")), &values);
    for (i, value) in outputs.into_iter().enumerate() {
        f.add_output(&format!("r{i}"), value);
    }
    f
}

#[test]
fn branches_run_one_side() {
    let ty = of(DType::F32, &[Dim::symbol("B")]);
    let mut f = Function::new("infer");
    let condition = f.add_input("condition", TensorType::scalar(DType::Bool));
    let x = f.add_input("x", ty.clone());
    let then = region(&[("x", ty.clone())], |b, v| vec![b.binary(BinaryOp::Add, v[0], v[0]).unwrap()]);
    let otherwise = region(&[("x", ty)], |b, v| vec![b.binary(BinaryOp::Mul, v[0], v[0]).unwrap()]);
    let node = f.add_op(Op::If {}, &[condition, x], vec![then, otherwise], &origin("if")).unwrap();
    f.add_output("y", Value { node, result: 0 });
    let model = model(&Module::of(f));
    let x = f32s(&[3], &[1.0, 2.0, 3.0]);
    let mut context = model.context();
    for (condition, expected) in [(1u8, [2.0f32, 4.0, 6.0]), (0, [1.0, 4.0, 9.0]), (1, [2.0, 4.0, 6.0])] {
        let condition = Tensor::from_bytes(DType::Bool, &[], &[condition]).unwrap();
        context.run(&[(&condition).into(), (&x).into()]).unwrap();
        assert_eq!(context.output_tensor("y").unwrap().to_vec::<f32>(), expected);
    }
}

#[test]
fn loops_carry_and_stack() {
    // state <- state + step; stacks the states; ends when the sum of a state's first element reaches a bound.
    let ty = of(DType::F32, &[Dim::symbol("B")]);
    let (i64s, bools) = (TensorType::scalar(DType::I64), TensorType::scalar(DType::Bool));
    let mut f = Function::new("infer");
    let trip = f.add_input("trip", i64s.clone());
    let start = f.add_input("start", bools.clone());
    let state = f.add_input("state", ty.clone());
    let step = f.add_input("step", ty.clone());
    let inputs = [("i", i64s), ("go", bools), ("state", ty.clone()), ("step", ty)];
    let body = region(&inputs, |b, v| {
        let next = b.binary(BinaryOp::Add, v[2], v[3]).unwrap();
        let five = b.scalar(DType::I64, 5.0).unwrap();
        let going = b.binary(BinaryOp::Lt, v[0], five).unwrap();
        vec![going, next, next]
    });
    let looped = Op::Loop { carried: 1, trips: Dim::symbol("trips") };
    let node = f.add_op(looped, &[trip, start, state, step], vec![body], &origin("loop")).unwrap();
    f.add_output("last", Value { node, result: 0 });
    f.add_output("all", Value { node, result: 1 });
    let model = model(&Module::of(f));
    let mut context = model.context();
    let (state, step) = (f32s(&[2], &[0.0, 1.0]), f32s(&[2], &[1.0, 10.0]));
    for (trips, start, ran) in [(3i64, 1u8, 3usize), (100, 1, 6), (0, 1, 0), (4, 0, 0), (2, 1, 2)] {
        let trip = Tensor::i64(&[], &[trips]).unwrap();
        let start = Tensor::from_bytes(DType::Bool, &[], &[start]).unwrap();
        context.run(&[(&trip).into(), (&start).into(), (&state).into(), (&step).into()]).unwrap();
        let last = context.output_tensor("last").unwrap().to_vec::<f32>();
        assert_eq!(last, [ran as f32, 1.0 + 10.0 * ran as f32]);
        let all = context.output_tensor("all").unwrap();
        assert_eq!(all.shape(), [ran, 2]);
        let expected: Vec<f32> = (1..=ran).flat_map(|i| [i as f32, 1.0 + 10.0 * i as f32]).collect();
        assert_eq!(all.to_vec::<f32>(), expected);
    }
}

/// y = x wᵀ with weights as a constant, in the loop's body too: state <- state w, `trips` times.
fn weighted(w: &Tensor, constant: bool) -> Module {
    let (rows, square) = (of(DType::F32, &[Dim::symbol("B"), Dim::from(3usize)]), w.ty());
    let (i64s, bools) = (TensorType::scalar(DType::I64), TensorType::scalar(DType::Bool));
    let mut f = Function::new("infer");
    let x = f.add_input("x", rows.clone());
    let given = (!constant).then(|| f.add_input("w", square.clone()));
    let mut build = Builder::new(&mut f, origin("weights"));
    let weights = given.unwrap_or_else(|| build.constant(w.clone()).unwrap());
    let dot = |axis| Op::DotGeneral {
        lhs_batch: vec![],
        rhs_batch: vec![],
        lhs_contract: vec![1],
        rhs_contract: vec![axis],
        accumulate: DType::F32,
    };
    let y = build.op(dot(1), &[x, weights]).unwrap();
    let trip = build.constant(Tensor::i64(&[], &[3]).unwrap()).unwrap();
    let start = build.constant(Tensor::from_bytes(DType::Bool, &[], &[1]).unwrap()).unwrap();
    let inputs = [("i", i64s), ("go", bools), ("state", rows), ("w", square)];
    let body = region(&inputs, |b, v| vec![v[1], b.op(dot(0), &[v[2], v[3]]).unwrap()]);
    let looped = Op::Loop { carried: 1, trips: Dim::from(3usize) };
    let node = f.add_op(looped, &[trip, start, y, weights], vec![body], &origin("loop")).unwrap();
    f.add_output("y", Value { node, result: 0 });
    Module::of(f)
}

#[test]
fn constant_operands_of_products_are_packed() {
    let w = f32s(&[3, 3], &[0.1, 0.7, -0.3, 0.9, 0.2, 0.4, -0.6, 0.3, 0.8]);
    let (packed, plain) = (model(&weighted(&w, true)), model(&weighted(&w, false)));
    assert_eq!(plain.packed_bytes(), 0);
    // On the CPUs that have kernels for it: as it lies and transposed, in the function and in the loop's body.
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("fma") && is_x86_feature_detected!("avx2") {
        assert_eq!(packed.data().packed.shapes(), [(false, 3, 3), (true, 3, 3)]);
        assert!(packed.packed_bytes() >= 2 * 9 * 4);
    }
    for batch in [1usize, 5, 40] {
        let x = numbers(&[batch, 3]);
        let (mut ours, mut theirs) = (packed.context(), plain.context());
        ours.run(&[(&x).into()]).unwrap();
        theirs.run(&[(&x).into(), (&w).into()]).unwrap();
        assert_eq!(ours.output_tensor("y").unwrap(), theirs.output_tensor("y").unwrap());
    }
}

#[test]
fn sequences_hold_tensors() {
    let element: ValueType = of(DType::F32, &[Dim::symbol("B")]).into();
    let mut f = Function::new("infer");
    let a = f.add_input("a", element.tensor().cloned().unwrap());
    let b = f.add_input("b", element.tensor().cloned().unwrap());
    let at = f.add_input("at", TensorType::scalar(DType::I64));
    let mut build = Builder::new(&mut f, origin("list"));
    let list = build.op(Op::SequenceConstruct { element }, &[a, b]).unwrap();
    let sum = build.binary(BinaryOp::Add, a, b).unwrap();
    let list = build.op(Op::SequenceInsert {}, &[list, sum, at]).unwrap();
    let length = build.op(Op::SequenceLength {}, &[list]).unwrap();
    let picked = build.op(Op::SequenceAt {}, &[list, at]).unwrap();
    f.add_output("list", list);
    f.add_output("length", length);
    f.add_output("picked", picked);
    let model = model(&Module::of(f));
    let (a, b) = (f32s(&[2], &[1.0, 2.0]), f32s(&[2], &[5.0, 7.0]));
    let mut context = model.context();
    let mut at = |position: i64| {
        let at = Tensor::i64(&[], &[position]).unwrap();
        context.run_named(&[("at", (&at).into()), ("a", (&a).into()), ("b", (&b).into())])?;
        let list = context.output(0)?.to_host()?;
        Ok::<_, RunError>((list, context.output_tensor("length")?, context.output_tensor("picked")?))
    };
    let sum = f32s(&[2], &[6.0, 9.0]);
    let (list, length, picked) = at(1).unwrap();
    let items = [a.clone(), sum.clone(), b.clone()].map(HostValue::Tensor).to_vec();
    assert_eq!(list, HostValue::Sequence(items));
    assert_eq!((length.to_vec::<i64>(), picked), (vec![3], sum));
    assert!(matches!(at(7), Err(RunError::Sequence { .. })));
}

#[test]
fn assertions_speak() {
    let mut f = Function::new("infer");
    let x = f.add_input("x", of(DType::F32, &[Dim::symbol("B")]));
    let ok = f.add_input("ok", TensorType::scalar(DType::Bool));
    let mut build = Builder::new(&mut f, origin("guarded"));
    let y = build.op(Op::Assert { message: "not ok".to_owned() }, &[x, ok]).unwrap();
    f.add_output("y", y);
    let model = model(&Module::of(f));
    let x = numbers(&[3]);
    let flag = |v: u8| Tensor::from_bytes(DType::Bool, &[], &[v]).unwrap();
    assert_eq!(model.run(&[("x", &x), ("ok", &flag(1))]).unwrap()[0].1, x);
    let error = model.run(&[("x", &x), ("ok", &flag(0))]).unwrap_err();
    assert!(matches!(&error, RunError::Assertion { message, .. } if message == "not ok"), "{error}");
}

#[test]
fn steps_are_timed() {
    let model = model(&affine());
    let [x, w, b] = affine_inputs(2);
    let mut context = model.context();
    context.set_profiling(true);
    for _ in 0..3 {
        context.run(&[(&x).into(), (&w).into(), (&b).into()]).unwrap();
    }
    let steps = context.profile();
    assert_eq!(steps.len(), 3);
    assert!(steps.iter().all(|s| s.calls == 3 && s.nanoseconds > 0), "{steps:?}");
    assert!(steps.iter().any(|s| s.name == "matmul"), "{steps:?}");
}

#[test]
fn the_default_limit_is_the_machines_memory() {
    use super::{default_memory_limit, physical_memory};
    assert_eq!(physical_memory("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Some(16384 * 1024));
    for text in
        ["", "MemFree: 1 kB", "MemTotal: many kB", "MemTotal: 5", "MemTotal: 99999999999999999999 kB", "MemTotal: 0 kB"]
    {
        assert_eq!(physical_memory(text), None, "{text}");
    }
    assert!((1 << 24..1 << 48).contains(&default_memory_limit()));
}

/// A plan of one function whose guards on extents were taken away.
fn unguarded(module: &Module) -> Model {
    let options = CodeOptions::host().unwrap();
    let mut generator = CodeGenerator::new(&options);
    let mut generate =
        |kernel: &_, schedule: &_| generator.compile(kernel, schedule).map(|(code, _)| code).map_err(|e| e.to_string());
    let mut plan = build(module, Numerics::STRICT, &[], &mut generate).unwrap().plan;
    let before: usize = plan.programs.iter().map(|p| p.guards.len()).sum();
    plan.programs.iter_mut().for_each(|p| p.guards.clear());
    assert!(before > 0, "there was something to take away");
    Model::new(plan).unwrap()
}

#[test]
fn a_kernel_is_not_run_on_less_memory_than_it_touches() {
    let mut f = Function::new("infer");
    let x = f.add_input("x", of(DType::F32, &[Dim::symbol("B")]));
    let mut build = Builder::new(&mut f, origin("neg"));
    let long = build.reshape(x, vec![Dim::from(12usize)]).unwrap();
    let y = build.unary(frit_ir::UnaryOp::Neg, long).unwrap();
    f.add_output("y", y);
    let model = unguarded(&Module::of(f));
    assert!(model.run(&[("x", &numbers(&[12]))]).is_ok());
    let error = model.run(&[("x", &numbers(&[3]))]).unwrap_err();
    assert_eq!(error.to_string(), "`neg`: a value has 12 bytes, 48 are needed for these inputs");
}

#[test]
fn memory_that_the_system_does_not_give_is_an_error_that_says_so() {
    let mut f = Function::new("infer");
    let x = f.add_input("x", of(DType::F32, &[Dim::symbol("B")]));
    let mut build = Builder::new(&mut f, origin("wide"));
    let dims = vec![Dim::Known(1 << 58), Dim::symbol("B")];
    let wide = build.broadcast_to(x, dims).unwrap();
    let row = Op::Slice { starts: vec![Dim::ZERO; 2], sizes: vec![Dim::ONE, Dim::symbol("B")], steps: vec![1; 2] };
    let y = build.op(row, &[wide]).unwrap();
    f.add_output("y", y);
    let mut context = model(&Module::of(f)).context();
    let x = numbers(&[1]);
    let refused = context.run(&[(&x).into()]).unwrap_err();
    assert!(matches!(refused, RunError::Limit { .. }), "{refused}");
    context.set_memory_limit(usize::MAX);
    let refused = context.run(&[(&x).into()]).unwrap_err();
    assert!(matches!(refused, RunError::Memory { .. }), "{refused}");
    assert!(refused.to_string().contains("which the system does not give"), "{refused}");
}

#[test]
fn memory_of_a_run_is_foreseen() {
    let model = model(&affine());
    for batch in [1, 1000, 70_000] {
        let foreseen = model.footprint(&[vec![batch, 3], vec![3, 2], vec![2]]).unwrap();
        let inputs = affine_inputs(batch);
        let mut context = model.context();
        context.run(&inputs.each_ref().map(InputRef::from)).unwrap();
        let held = context.memory();
        assert!(foreseen.arena >= batch * 2 * 4 && foreseen.arena <= held, "{foreseen:?}, {held} held");
        assert!(held <= foreseen.total() + 64, "{foreseen:?}, {held} held");
    }
    // Extents that don't follow from shapes are no number.
    assert!(model.footprint(&[]).is_err());
}

#[test]
fn contexts_that_take_turns_hold_their_memory_once() {
    let model = model(&affine());
    let (mut first, mut second) = (model.context(), model.context());
    let (large, small) = (affine_inputs(500), affine_inputs(60));
    first.run(&large.each_ref().map(InputRef::from)).unwrap();
    let alone = first.memory();
    for _ in 0..3 {
        second.take_over(&mut first);
        assert!(first.output(0).is_err(), "its memory is the other's");
        second.run(&small.each_ref().map(InputRef::from)).unwrap();
        assert_eq!(second.output_tensor("y").unwrap().to_vec::<f32>(), affine_result(&small[0]));
        assert_eq!(first.memory() + second.memory(), alone);
        first.take_over(&mut second);
        first.run(&large.each_ref().map(InputRef::from)).unwrap();
        assert_eq!(first.output_tensor("y").unwrap().to_vec::<f32>(), affine_result(&large[0]));
        assert_eq!(first.memory() + second.memory(), alone);
    }
}
