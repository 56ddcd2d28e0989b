//! A run allocates nothing after the first with the same shapes: a counting allocator in a binary of its own.
#![cfg(feature = "jit")]
#![allow(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use frit_ir::builder::Builder;
use frit_ir::op::infer::TypeError;
use frit_ir::{BinaryOp, DType, Dim, Donation, Function, Module, Op, Origin, ReduceKind, Tensor, TensorType, UnaryOp};
use frit_runtime::pool::Pool;
use frit_runtime::{CompileOptions, InputRef, Model, StateBuffer};

struct Counting;

static COUNT: AtomicUsize = AtomicUsize::new(0);

/// One test at a time: the counter is the process's.
static ALONE: Mutex<()> = Mutex::new(());

// SAFETY: hands everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// softmax(relu(x w)): a product, elementwise ops, reductions; batch symbolic.
fn module() -> Result<Module, TypeError> {
    let mut f = Function::new("infer");
    let x = f.add_input("x", TensorType::new(DType::F32, vec![Dim::symbol("B"), Dim::from(64usize)]));
    let w = f.add_input("w", TensorType::known(DType::F32, &[64, 32]));
    let mut b = Builder::new(&mut f, Origin::named("test"));
    let dot = Op::DotGeneral {
        lhs_batch: vec![],
        rhs_batch: vec![],
        lhs_contract: vec![1],
        rhs_contract: vec![0],
        accumulate: DType::F32,
    };
    let y = b.op(dot, &[x, w])?;
    let zero = b.scalar(DType::F32, 0.0)?;
    let y = b.binary(BinaryOp::Max, y, zero)?;
    let most = b.reduce(y, vec![1], ReduceKind::Max, true)?;
    let y = b.binary(BinaryOp::Sub, y, most)?;
    let y = b.unary(UnaryOp::Exp, y)?;
    let sum = b.reduce(y, vec![1], ReduceKind::Sum, true)?;
    let y = b.binary(BinaryOp::Div, y, sum)?;
    f.add_output("y", y);
    Ok(Module::of(f))
}

#[test]
fn later_runs_allocate_nothing() {
    let _alone = ALONE.lock();
    let pool = Arc::new(Pool::new(2));
    let model =
        Model::compile(module().unwrap(), &CompileOptions::default()).unwrap().model.with_pool(Arc::clone(&pool));
    let mut context = model.context();
    let batch = 512;
    let x: Vec<f32> = (0..batch * 64).map(|i| (i % 17) as f32 * 0.1 - 0.8).collect();
    let w: Vec<f32> = (0..64 * 32).map(|i| (i % 13) as f32 * 0.1 - 0.6).collect();
    let (x, w) = (Tensor::f32(&[batch, 64], &x).unwrap(), Tensor::f32(&[64, 32], &w).unwrap());
    let inputs: [InputRef<'_>; 2] = [(&x).into(), (&w).into()];
    // Every worker has its first tile of every kind behind it: those may set up memory of their thread.
    for _ in 0..200 {
        context.run(&inputs).unwrap();
        std::thread::sleep(Duration::from_micros(100));
    }
    let before = COUNT.load(Ordering::Relaxed);
    for _ in 0..100 {
        context.run(&inputs).unwrap();
    }
    let after = COUNT.load(Ordering::Relaxed);
    let sum: f32 = context.output_tensor("y").unwrap().to_vec::<f32>()[..32].iter().sum();
    assert!((sum - 1.0).abs() < 1e-4, "{sum}");
    assert_eq!(after - before, 0, "allocations in 100 runs");
}

/// softmax(q k^T) k over a cache that grows by one row a step, and a counter.
fn decoder() -> Result<Module, TypeError> {
    let dims = |time: Dim| vec![Dim::from(2usize), Dim::from(3usize), time, Dim::from(64usize)];
    let mut f = Function::new("infer");
    let q = f.add_input("q", TensorType::new(DType::F32, dims(Dim::ONE)));
    let past = f.add_input("past", TensorType::new(DType::F32, dims(Dim::symbol("T"))));
    let count = f.add_input("count", TensorType::scalar(DType::I64));
    let mut b = Builder::new(&mut f, Origin::named("test"));
    let product = |lhs: usize, rhs: usize| Op::DotGeneral {
        lhs_batch: vec![0, 1],
        rhs_batch: vec![0, 1],
        lhs_contract: vec![lhs],
        rhs_contract: vec![rhs],
        accumulate: DType::F32,
    };
    let cache = b.op(Op::Concat { axis: 2 }, &[past, q])?;
    let scores = b.op(product(3, 3), &[q, cache])?;
    let most = b.reduce(scores, vec![3], ReduceKind::Max, true)?;
    let shifted = b.binary(BinaryOp::Sub, scores, most)?;
    let weights = b.unary(UnaryOp::Exp, shifted)?;
    let sum = b.reduce(weights, vec![3], ReduceKind::Sum, true)?;
    let weights = b.binary(BinaryOp::Div, weights, sum)?;
    let y = b.op(product(3, 2), &[weights, cache])?;
    let one = b.scalar(DType::I64, 1.0)?;
    let next = b.binary(BinaryOp::Add, count, one)?;
    f.add_output("y", y);
    f.add_output("cache", cache);
    f.add_output("next", next);
    f.donations = vec![Donation { input: 1, output: 1 }, Donation { input: 2, output: 2 }];
    Ok(Module::of(f))
}

#[test]
fn steps_with_room_allocate_nothing() {
    let _alone = ALONE.lock();
    const ROOM: usize = 300;
    let compiled = Model::compile(decoder().unwrap(), &CompileOptions::default()).unwrap();
    let pool = Arc::new(Pool::new(2));
    let model = compiled.model.with_pool(Arc::clone(&pool));
    // A thread allocates as it starts, which may be long after it was asked for: wait until each has a tile at once.
    let started = Barrier::new(2);
    pool.run(2, &|_, _| _ = started.wait());
    let empty = Tensor::f32(&[2, 3, 0, 64], &[]).unwrap();
    let zero = Tensor::i64(&[], &[0]).unwrap();
    let mut states = [
        StateBuffer::with_capacity(&model, 0, (&empty).into(), ROOM).unwrap(),
        StateBuffer::new(&model, 1, (&zero).into()).unwrap(),
    ];
    let q: Vec<f32> = (0..6 * 64).map(|i| (i % 17) as f32 * 0.1 - 0.8).collect();
    let q = Tensor::f32(&[2, 3, 1, 64], &q).unwrap();
    let mut context = model.context();
    let place = states[0].bytes().as_ptr();
    let mut before = 0;
    // Twice until the cache is full: in the first round workers set up memory of their threads.
    for _ in 0..2 {
        states[0].truncate(0);
        before = COUNT.load(Ordering::Relaxed);
        for _ in 0..ROOM {
            context.step(&[(&q).into()], &mut states).unwrap();
        }
    }
    assert_eq!(COUNT.load(Ordering::Relaxed) - before, 0, "allocations in {ROOM} steps");
    assert_eq!((states[0].shape(), states[0].bytes().as_ptr()), (&[2, 3, ROOM, 64][..], place));
    assert_eq!(states[1].to_tensor().unwrap().to_vec::<i64>(), [2 * ROOM as i64]);
    // Every row is q, so whatever the weights, so is the result.
    let y = context.output_tensor("y").unwrap().to_vec::<f32>();
    assert!(y.iter().zip(q.to_vec::<f32>()).all(|(y, q)| (y - q).abs() < 1e-5));
}
