//! Vector loops against the same loops run one element at a time, bit for bit, at every lane count and length.

use frit_ir::{BinaryOp, DType, Dim, UnaryOp};

use super::harness::{Compiled, f32s, run, values, vectors};
use super::loops::sample;
use crate::cpu::Effort;
use crate::kernel::build::KernelBuilder;
use crate::kernel::{Acc, Combine, Expr, Kernel, Reg, Role, Scalar, Stmt};
use crate::schedule::Schedule;

/// A small generator of numbers.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 16
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// Types that lanes compute with, and how their elements are made: numbers of any size, specials now and then.
const TYPES: [DType; 8] =
    [DType::F32, DType::I32, DType::U32, DType::I8, DType::U8, DType::I16, DType::U16, DType::Bool];

fn element(rng: &mut Rng, dtype: DType) -> u64 {
    const SPECIAL: [f32; 8] =
        [0.0, -0.0, 1.0, -1.5, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MIN_POSITIVE / 4.0];
    match dtype {
        DType::F32 if rng.below(5) == 0 => u64::from(SPECIAL[rng.below(SPECIAL.len())].to_bits()),
        DType::F32 => u64::from(((rng.below(2001) as f32 - 1000.0) / 64.0).to_bits()),
        DType::Bool => rng.below(2) as u64,
        _ => rng.next() & (u64::MAX >> (64 - 8 * dtype.size())),
    }
}

fn memory(rng: &mut Rng, dtype: DType, n: usize) -> Vec<u8> {
    (0..n).flat_map(|_| element(rng, dtype).to_le_bytes().into_iter().take(dtype.size())).collect()
}

/// Buffers of a random body: (type, step, is output).
struct Body {
    kernel: Kernel,
    buffers: Vec<(DType, usize)>,
}

/// A loop (or reduction) with a random straight-line body over streams of every type and a few steps.
fn random_body(seed: u64, reduce: bool) -> Body {
    let rng = &mut Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut b = KernelBuilder::new("random", false);
    let n = b.dim(&Dim::symbol("N"));
    let mut buffers = Vec::new();
    let mut inputs = Vec::new();
    for i in 0..1 + rng.below(4) {
        let dtype = TYPES[if i == 0 { 0 } else { rng.below(TYPES.len()) }];
        let step = [1, 1, 1, 0, 2, 3][rng.below(6)];
        let len = &(&n * &Dim::from(step)) + &Dim::ONE;
        inputs.push((b.buffer(&format!("x{i}"), dtype, len, Role::Input), step));
        buffers.push((dtype, step));
    }
    let outputs: Vec<_> = (0..1 + rng.below(3))
        .map(|i| {
            let dtype = TYPES[rng.below(TYPES.len())];
            let step = [1, 1, 2][rng.below(3)];
            let len = &(&n * &Dim::from(step)) + &Dim::ONE;
            buffers.push((dtype, step));
            (b.buffer(&format!("y{i}"), dtype, len, Role::Output), dtype, step)
        })
        .collect();
    let sums: Vec<_> = (0..if reduce { 1 + rng.below(3) } else { 0 })
        .map(|i| {
            let dtype = TYPES[rng.below(3)];
            buffers.push((dtype, 0));
            let how = [Combine::Sum, Combine::Prod, Combine::Min, Combine::Max][rng.below(4)];
            (b.buffer(&format!("s{i}"), dtype, Dim::ONE, Role::Output), dtype, how)
        })
        .collect();
    b.phase(Dim::ONE, |b, _| {
        let var = b.var();
        let i = Dim::from(var.clone());
        b.open();
        let mut known: Vec<Reg> = Vec::new();
        for (buffer, step) in &inputs {
            known.push(b.load(*buffer, &i * &Dim::from(*step)));
        }
        for _ in 0..3 + rng.below(24) {
            let made = random_op(rng, b, &known);
            known.extend(made);
        }
        let of_type = |b: &mut KernelBuilder, rng: &mut Rng, dtype: DType| {
            let fitting: Vec<Reg> = known.iter().copied().filter(|r| b.reg_type(*r) == dtype).collect();
            match fitting.as_slice() {
                [] => b.cast(known[0], dtype, true),
                some => some[rng.below(some.len())],
            }
        };
        for (buffer, dtype, step) in &outputs {
            let value = of_type(b, rng, *dtype);
            let value = exact(b, value);
            b.push(Stmt::Store { buffer: *buffer, index: &i * &Dim::from(*step), value });
        }
        let accs: Vec<Acc> = sums
            .iter()
            .map(|(_, dtype, combine)| {
                let value = of_type(b, rng, *dtype);
                Acc { result: b.reg(*dtype), value, combine: *combine }
            })
            .collect();
        let body = b.close();
        let results: Vec<Reg> = accs.iter().map(|a| a.result).collect();
        b.push(if reduce {
            Stmt::Reduce { var, extent: n.clone(), body, accs }
        } else {
            Stmt::For { var, extent: n.clone(), body }
        });
        for ((buffer, ..), value) in sums.iter().zip(results) {
            let value = exact(b, value);
            b.push(Stmt::Store { buffer: *buffer, index: Dim::ZERO, value });
        }
    });
    Body { kernel: b.finish(), buffers }
}

/// Which NaN an operation gives is open: one stands for all.
fn exact(b: &mut KernelBuilder, value: Reg) -> Reg {
    if b.reg_type(value) != DType::F32 {
        return value;
    }
    let is_number = b.binary(BinaryOp::Eq, value, value);
    let nan = b.constant(Scalar::f32(f32::NAN));
    b.select(is_number, value, nan)
}

fn random_op(rng: &mut Rng, b: &mut KernelBuilder, known: &[Reg]) -> Option<Reg> {
    use BinaryOp::{Add, And, Div, Eq, Le, Lt, Max, Min, Mul, Or, Rem, Shl, Shr, Sub, Xor};
    use UnaryOp::{Abs, Ceil, Floor, Neg, Not, RoundEven, Sign, Sqrt, Trunc};
    let x = known[rng.below(known.len())];
    let dtype = b.reg_type(x);
    let alike: Vec<Reg> = known.iter().copied().filter(|r| b.reg_type(*r) == dtype).collect();
    let (y, z) = (alike[rng.below(alike.len())], alike[rng.below(alike.len())]);
    Some(match rng.below(12) {
        0 => b.constant(Scalar { dtype, bits: element(rng, dtype) }),
        1 if dtype == DType::F32 => {
            let op = [Neg, Abs, Floor, Ceil, Trunc, RoundEven, Sqrt, Sign][rng.below(8)];
            b.unary(op, x)
        }
        1 => b.unary(if dtype == DType::Bool { Not } else { [Neg, Not, Abs, Sign][rng.below(4)] }, x),
        2 => {
            let c: Vec<Reg> = known.iter().copied().filter(|r| b.reg_type(*r) == DType::Bool).collect();
            b.select(*c.get(rng.below(c.len().max(1)))?, y, z)
        }
        3 if dtype == DType::F32 => b.fma(x, y, z),
        4 => {
            let to = TYPES[rng.below(TYPES.len())];
            // Floats to i32 without clamping are open outside of its range.
            let saturate = dtype == DType::F32 || rng.below(2) == 0;
            b.cast(x, to, saturate)
        }
        5 => {
            let same: Vec<DType> =
                TYPES.into_iter().filter(|t| t.size() == dtype.size() && *t != DType::Bool).collect();
            if dtype == DType::Bool {
                return None;
            }
            let x = exact(b, x);
            b.bitcast(x, same[rng.below(same.len())])
        }
        6 | 7 => b.binary([Eq, Lt, Le][rng.below(3)], x, y),
        8 if dtype.is_int() => {
            let most = b.constant(Scalar { dtype, bits: u64::from(dtype.bits()) - 1 });
            let amount = b.binary(And, y, most);
            b.binary([Shl, Shr][rng.below(2)], x, amount)
        }
        9 if dtype.is_int() => {
            let amount = b.constant(Scalar { dtype, bits: rng.below(dtype.bits() as usize) as u64 });
            b.binary([Shl, Shr][rng.below(2)], x, amount)
        }
        _ if dtype == DType::F32 => b.binary([Add, Sub, Mul, Div, Min, Max][rng.below(6)], x, y),
        _ if dtype == DType::Bool => b.binary([And, Or, Xor][rng.below(3)], x, y),
        _ => b.binary([Add, Sub, Mul, Div, Rem, Min, Max, And, Or, Xor][rng.below(10)], x, y),
    })
}

fn vector_var(kernel: &Kernel) -> String {
    match kernel.phases[0].body.first() {
        Some(Stmt::For { var, .. } | Stmt::Reduce { var, .. }) => var.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn random_bodies_give_the_same_bits_at_every_lane_count() {
    for seed in 0..160u64 {
        let Body { kernel, buffers } = random_body(seed, seed % 2 == 1);
        let var = vector_var(&kernel);
        let rng = &mut Rng(seed + 77);
        let effort = if seed % 3 == 0 { Effort::None } else { Effort::Speed };
        let plain = Compiled::new(&kernel, &Schedule::default(), Effort::Auto);
        let wide = [4, 8, 16].map(|lanes| (lanes, Compiled::new(&kernel, &vectors(&[&var], lanes), effort)));
        for n in (0..20).chain([31, 32, 33, 39]) {
            let arguments: Vec<Vec<u8>> =
                buffers.iter().map(|(dtype, step)| memory(rng, *dtype, n * step + 1)).collect();
            let expected = plain.run(&arguments, &[n as i64]);
            for (lanes, compiled) in &wide {
                let vector = compiled.run(&arguments, &[n as i64]);
                assert_eq!(vector.report.vectorised, [(var.clone(), *lanes)], "{:?}", vector.report.scalar);
                for (i, (a, b)) in expected.buffers.iter().zip(&vector.buffers).enumerate() {
                    assert_eq!(a, b, "seed {seed}, n {n}, {lanes} lanes, buffer {i}: {kernel:#?}");
                }
            }
        }
    }
}

/// Rows of sums, products and extremes at every length, through strips inside a loop.
#[test]
fn row_reductions_do_not_depend_on_lanes() {
    let mut b = KernelBuilder::new("rows", false);
    let (rows, n) = (b.dim(&Dim::symbol("R")), b.dim(&Dim::symbol("N")));
    let x = b.buffer("x", DType::F32, &rows * &n, Role::Input);
    let scale = b.buffer("scale", DType::F32, rows.clone(), Role::Input);
    let outs: Vec<_> = (0..4).map(|i| b.buffer(&format!("y{i}"), DType::F32, rows.clone(), Role::Output)).collect();
    let y = b.buffer("y", DType::F32, &rows * &n, Role::Output);
    b.phase(rows.clone(), |b, row| {
        let results = b.reduce(n.clone(), |b, k| {
            let v = b.load(x, &(&row * &n) + &k);
            let s = b.load(scale, row.clone());
            let w = b.binary(BinaryOp::Mul, v, s);
            vec![(w, Combine::Sum), (v, Combine::Prod), (w, Combine::Min), (v, Combine::Max)]
        });
        for (result, buffer) in results.iter().zip(&outs) {
            b.push(Stmt::Store { buffer: *buffer, index: row.clone(), value: *result });
        }
        b.for_(n.clone(), |b, k| {
            let v = b.load(x, &(&row * &n) + &k);
            let v = b.binary(BinaryOp::Sub, v, results[3]);
            b.push(Stmt::Store { buffer: y, index: &(&row * &n) + &k, value: v });
        });
    });
    let kernel = b.finish();
    let plain = Compiled::new(&kernel, &Schedule::default(), Effort::Auto);
    let wide = [4, 8, 16].map(|lanes| (lanes, Compiled::new(&kernel, &vectors(&["i1", "i2"], lanes), Effort::Auto)));
    for n in (0..70).chain([100, 255]) {
        let rows = 3usize;
        let mut arguments = vec![f32s(&sample(rows * n)), f32s(&[0.5, -1.25, 3.0])];
        arguments.extend((0..4).map(|_| vec![0; 4 * rows]));
        arguments.push(vec![0; 4 * rows * n]);
        let expected = plain.run(&arguments, &[rows as i64, n as i64]);
        for (lanes, compiled) in &wide {
            let vector = compiled.run(&arguments, &[rows as i64, n as i64]);
            assert_eq!(vector.report.vectorised.len(), 2, "{:?}", vector.report.scalar);
            assert_eq!(vector.buffers, expected.buffers, "{n} elements, {lanes} lanes");
        }
    }
}

/// A loop that asks flags of its row is written out for what they say.
#[test]
fn rows_choose_their_leaf() {
    let mut b = KernelBuilder::new("rows", false);
    let (rows, n) = (b.dim(&Dim::symbol("R")), b.dim(&Dim::symbol("N")));
    let x = b.buffer("x", DType::F32, &rows * &n, Role::Input);
    let flags: Vec<_> = ["p", "q"].map(|name| b.buffer(name, DType::Bool, rows.clone(), Role::Input)).to_vec();
    let sums = b.buffer("sums", DType::F32, rows.clone(), Role::Output);
    let y = b.buffer("y", DType::F32, &rows * &n, Role::Output);
    b.phase(rows.clone(), |b, row| {
        let results = b.reduce(n.clone(), |b, k| {
            let v = b.load(x, &(&row * &n) + &k);
            let mut value = v;
            for (&flag, op) in flags.iter().zip([BinaryOp::Mul, BinaryOp::Add]) {
                let mut long = v;
                (0..5).for_each(|_| long = b.binary(op, long, v));
                let (flag, half) = (b.load(flag, row.clone()), b.constant(Scalar::f32(0.5)));
                let tied = b.binary(BinaryOp::Lt, v, half);
                let chosen = b.select(tied, long, value);
                value = b.select(flag, chosen, value);
                value = b.binary(BinaryOp::Sub, value, half);
            }
            b.push(Stmt::Store { buffer: y, index: &(&row * &n) + &k, value });
            vec![(value, Combine::Sum)]
        });
        b.push(Stmt::Store { buffer: sums, index: row.clone(), value: results[0] });
    });
    let kernel = b.finish();
    let plain = Compiled::new(&kernel, &Schedule::default(), Effort::Auto);
    for lanes in [4, 8, 16] {
        let wide = Compiled::new(&kernel, &vectors(&["i1"], lanes), Effort::Auto);
        for n in [0, 1, 16, 21, 70] {
            let (p, q) = (vec![0, 1, 0, 255], vec![0, 0, 1, 1]);
            let arguments = [f32s(&sample(4 * n)), p, q, vec![0; 16], vec![0; 16 * n]];
            let (expected, vector) = (plain.run(&arguments, &[4, n as i64]), wide.run(&arguments, &[4, n as i64]));
            assert_eq!(vector.report.vectorised.len(), 1, "{:?}", vector.report.scalar);
            assert_eq!(vector.buffers, expected.buffers, "{n} elements, {lanes} lanes");
        }
    }
}

/// A stream read and written in place, and a store before a load of the same element.
#[test]
fn updates_in_place_keep_their_order() {
    let mut b = KernelBuilder::new("update", false);
    let n = b.dim(&Dim::symbol("N"));
    let x = b.buffer("x", DType::F32, n.clone(), Role::Input);
    let y = b.buffer("y", DType::F32, n.clone(), Role::Output);
    b.phase(Dim::ONE, |b, _| {
        b.for_(n.clone(), |b, i| {
            let v = b.load(x, i.clone());
            b.push(Stmt::Store { buffer: y, index: i.clone(), value: v });
            let w = b.load(y, i.clone());
            let w = b.binary(BinaryOp::Add, w, v);
            b.push(Stmt::Store { buffer: y, index: i, value: w });
        });
    });
    let kernel = b.finish();
    for n in 0..40 {
        let x = sample(n);
        let out = run(&kernel, &vectors(&["i1"], 8), &[f32s(&x), vec![0; 4 * n]], &[n as i64]);
        assert_eq!(out.report.vectorised.len(), 1);
        assert_eq!(values(&out.buffers[1], f32::from_le_bytes), x.iter().map(|v| v + v).collect::<Vec<_>>());
    }
}

#[test]
fn loops_that_are_no_strips_say_why() {
    let reason = |build: &dyn Fn(&mut KernelBuilder, Dim)| {
        let mut b = KernelBuilder::new("refused", false);
        b.buffer("x", DType::F32, Dim::Known(64), Role::Input);
        b.buffer("y", DType::F32, Dim::Known(64), Role::Output);
        b.buffer("i", DType::I64, Dim::Known(64), Role::Output);
        b.phase(Dim::ONE, |b, _| b.for_(Dim::Known(20), |b, i| build(b, i)));
        let arguments = [f32s(&sample(64)), vec![0; 256], vec![0; 512]];
        let vector = run(&b.finish(), &vectors(&["i1"], 4), &arguments, &[]);
        match vector.report.scalar.as_slice() {
            [one] => one.reason.clone(),
            other => panic!("{other:?}"),
        }
    };
    let (x, y, wide) = (crate::kernel::BufferId(0), crate::kernel::BufferId(1), crate::kernel::BufferId(2));
    let store = |b: &mut KernelBuilder, index: Dim, value: Reg| b.push(Stmt::Store { buffer: y, index, value });
    assert!(
        reason(&|b, i| {
            let v = b.load(x, i.floordiv(&Dim::Known(3)));
            store(b, i, v);
        })
        .contains("floordiv")
    );
    assert!(
        reason(&|b, i| {
            let v = b.load(y, i.clone());
            store(b, &i + &Dim::ONE, v);
        })
        .contains("meet in memory")
    );
    assert!(
        reason(&|b, i| {
            let v = b.load(x, i);
            store(b, Dim::ZERO, v);
        })
        .contains("one element")
    );
    assert!(
        reason(&|b, i| {
            let v = b.let_(DType::I64, Expr::Index(i.clone()));
            b.push(Stmt::Store { buffer: wide, index: i, value: v });
        })
        .contains("64-bit")
    );
    assert!(
        reason(&|b, i| {
            b.for_(Dim::Known(2), |b, _| {
                let v = b.load(x, i.clone());
                store(b, i.clone(), v);
            });
        })
        .contains("holds a loop")
    );
}

/// Two interleaved stores never meet, and a run-time step works.
#[test]
fn steps_may_be_interleaved_or_known_late() {
    let mut b = KernelBuilder::new("steps", false);
    let (n, step) = (b.dim(&Dim::symbol("N")), b.dim(&Dim::symbol("S")));
    let x = b.buffer("x", DType::F32, &n * &step, Role::Input);
    let y = b.buffer("y", DType::F32, &n + &n, Role::Output);
    b.phase(Dim::ONE, |b, _| {
        b.for_(n.clone(), |b, i| {
            let v = b.load(x, &i * &step);
            let w = b.unary(UnaryOp::Neg, v);
            b.push(Stmt::Store { buffer: y, index: &i * &Dim::Known(2), value: v });
            b.push(Stmt::Store { buffer: y, index: &(&i * &Dim::Known(2)) + &Dim::ONE, value: w });
        });
    });
    let kernel = b.finish();
    for (n, step) in [(0, 1), (5, 0), (9, 3), (33, 1)] {
        let x = sample((n * step).max(1));
        let out = run(&kernel, &vectors(&["i1"], 8), &[f32s(&x), vec![0; 8 * n]], &[n as i64, step as i64]);
        assert_eq!(out.report.vectorised.len(), 1, "{:?}", out.report);
        let expected: Vec<f32> = (0..n).flat_map(|i| [x[i * step], -x[i * step]]).collect();
        assert_eq!(out.buffers[1], f32s(&expected));
    }
}
