//! Random strips: every back end against the evaluator, bit for bit in every lane.
#![allow(unsafe_code, reason = "the tests call the leaves that they compiled")]

use std::sync::Arc;

use frit_ir::{BinaryOp, DType, UnaryOp};

use super::clif::ClifBackend;
use super::eval::{StreamMemory, evaluate, folded, is_defined};
use super::lanes::lane_bits;
use super::schedule::{by_result, most_alive, scheduled};
use super::unswitch::{assuming, cases};
use super::{
    Leaf, Op, Stream, StreamArg, Strip, StripAcc, StripBackend, StripSchedule, TypedOp, Unsupported, Val, x64,
};
use crate::cpu::exec::ExecutableCode;
use crate::cpu::target::Encoding;
use crate::cpu::{CodeOptions, Effort, Target, VectorBits, Vectors, functions};
use crate::kernel::{Combine, Scalar};

const TYPES: [DType; 7] = [DType::F32, DType::I32, DType::U32, DType::I8, DType::U8, DType::I16, DType::U16];

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 20) % n as u64) as usize
    }

    fn scalar(&mut self, dtype: DType) -> Scalar {
        const SPECIAL: [f32; 8] = [0.0, -0.0, 1.0, -2.5, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1e-41];
        match dtype {
            DType::F32 if self.below(5) == 0 => Scalar::f32(SPECIAL[self.below(8)]),
            DType::F32 => Scalar::f32((self.below(4001) as f32 - 2000.0) / 32.0),
            DType::Bool => Scalar::bool(self.below(2) == 1),
            _ => Scalar::int(dtype, self.below(1 << 40) as i128),
        }
    }
}

/// A distance of elements: none in all but one of `odds`, else sometimes known.
fn gap(rng: &mut Rng, dtype: DType, odds: usize) -> Option<i32> {
    let times = if rng.below(odds) != 0 { Some(1) } else { [None, Some(2), Some(6)][rng.below(3)] };
    times.map(|times| times * dtype.size() as i32)
}

fn random_strip(rng: &mut Rng) -> Strip {
    use BinaryOp::{Add, And, Div, Eq, Le, Lt, Max, Min, Mul, Or, Shl, Shr, Sub, Xor};
    use UnaryOp::{Abs, Ceil, Floor, Neg, Not, RoundEven, Sqrt, Trunc};
    let mut strip = Strip::default();
    for k in 0..2 + rng.below(4) {
        let dtype = if k == 0 { DType::F32 } else { [DType::Bool, TYPES[rng.below(7)]][rng.below(2)] };
        let gap = gap(rng, dtype, 4);
        strip.streams.push(Stream { dtype, gap, loaded: true, stored: false });
        strip.ops.push(TypedOp { op: Op::Load(k as u32), dtype });
    }
    for k in 0..rng.below(5) {
        let dtype = if rng.below(3) == 0 { DType::Bool } else { TYPES[rng.below(7)] };
        strip.params.push(dtype);
        strip.ops.push(TypedOp { op: Op::Param(k as u32), dtype });
    }
    for _ in 0..4 + rng.below(30) {
        let x = rng.below(strip.ops.len()) as Val;
        let dtype = strip.ops[x as usize].dtype;
        let of = |dtype: DType| -> Vec<Val> {
            (0..strip.ops.len()).filter(|i| strip.ops[*i].dtype == dtype).map(|i| i as Val).collect()
        };
        let (alike, bools) = (of(dtype), of(DType::Bool));
        let (y, z) = (alike[rng.below(alike.len())], alike[rng.below(alike.len())]);
        let (op, result) = match (rng.below(9), dtype) {
            (0, _) => (Op::Const(rng.scalar(dtype)), dtype),
            (1, _) => {
                let op = [Neg, Abs, Floor, Ceil, Trunc, RoundEven, Sqrt, Not][rng.below(8)];
                if !is_defined(op, dtype) {
                    continue;
                }
                (Op::Unary(op, x), dtype)
            }
            (2, _) if !bools.is_empty() => (Op::Select(bools[rng.below(bools.len())], y, z), dtype),
            (3, DType::F32) => (Op::Fma(x, y, z), dtype),
            (3 | 4, DType::Bool) => (Op::Cast { value: x, saturate: false }, TYPES[1 + rng.below(6)]),
            (4, DType::I32) => (Op::Cast { value: x, saturate: false }, [DType::F32, DType::U8][rng.below(2)]),
            (4, dtype) if dtype != DType::F32 => (Op::Cast { value: x, saturate: false }, TYPES[1 + rng.below(6)]),
            (5, dtype) if dtype != DType::Bool && dtype != DType::F32 => {
                let most = Scalar::int(dtype, rng.below(dtype.bits() as usize) as i128);
                strip.ops.push(TypedOp { op: Op::Const(most), dtype });
                (Op::Binary([Shl, Shr][rng.below(2)], x, strip.ops.len() as Val - 1), dtype)
            }
            (6, DType::F32) if !bools.is_empty() => {
                let ok = bools[rng.below(bools.len())];
                (Op::Rescue { ok, value: y, op: [UnaryOp::Sin, UnaryOp::Exp][rng.below(2)], x }, dtype)
            }
            (6 | 7, dtype) if dtype != DType::Bool => (Op::Binary([Eq, Lt, Le][rng.below(3)], x, y), DType::Bool),
            (_, DType::F32) => (Op::Binary([Add, Sub, Mul, Div, Min, Max][rng.below(6)], x, y), dtype),
            (_, DType::Bool) => (Op::Binary([And, Or, Xor, Eq][rng.below(4)], x, y), dtype),
            _ => (Op::Binary([Add, Sub, Mul, And, Or, Xor][rng.below(6)], x, y), dtype),
        };
        strip.ops.push(TypedOp { op, dtype: result });
    }
    // Some only combine, as reductions do, and much at once.
    let only = rng.below(4) == 0;
    for _ in 0..if only { 0 } else { 1 + rng.below(3) } {
        let v = rng.below(strip.ops.len()) as Val;
        let dtype = strip.ops[v as usize].dtype;
        let gap = gap(rng, dtype, 3);
        strip.streams.push(Stream { dtype, gap, loaded: false, stored: true });
        strip.ops.push(TypedOp { op: Op::Store(strip.streams.len() as u32 - 1, v), dtype });
    }
    for _ in 0..if only { 20 } else { rng.below(4) } {
        let v = rng.below(strip.ops.len()) as Val;
        if matches!(strip.ops[v as usize].dtype, DType::F32 | DType::I32 | DType::U32) {
            let combine = [Combine::Sum, Combine::Prod, Combine::Min, Combine::Max][rng.below(4)];
            let factor = rng.below(strip.ops.len()) as Val;
            let floats = [v, factor].iter().all(|v| strip.ops[*v as usize].dtype == DType::F32);
            let factor = (floats && combine == Combine::Sum).then_some(factor);
            strip.accs.push(StripAcc { combine, value: v, factor });
        }
    }
    strip
}

type LeafFn = unsafe extern "C" fn(*const StreamArg, *const [u32; 16], *mut [u32; 16], i64, *const usize);

/// Runs a leaf alone: jumps to the start of its code.
fn call(code: &ExecutableCode, streams: &[StreamArg], params: &[[u32; 16]], accs: &mut [[u32; 16]], n: usize) {
    let start = code.address(0).unwrap();
    // SAFETY: the leaf's code begins there and has this signature.
    let leaf = unsafe { std::mem::transmute::<*const u8, LeafFn>(start) };
    let functions = functions::table().as_ptr();
    // SAFETY: the arguments are as large as the strip says.
    unsafe { leaf(streams.as_ptr(), params.as_ptr(), accs.as_mut_ptr(), n as i64, functions) };
}

/// Equal, or both NaN: which NaN comes out is open.
fn same(dtype: DType, a: &[u8], b: &[u8]) -> bool {
    match (super::eval::read(dtype, a), super::eval::read(dtype, b)) {
        (Some(a), Some(b)) => a.same(b),
        _ => false,
    }
}

/// The kinds of vectors that a machine has: those of AVX2 also where leaves are written with AVX-512.
fn isas(target: &Target) -> Vec<x64::Isa> {
    let encodings: &[Encoding] = match target.features.vectors {
        None => &[],
        Some(Encoding::Vex) => &[Encoding::Vex],
        Some(Encoding::Evex) => &[Encoding::Vex, Encoding::Evex],
    };
    let widths = |e: &Encoding| {
        let e = *e;
        VectorBits::ALL.into_iter().filter(move |bits| *bits <= e.widest()).map(move |bits| x64::Isa::new(e, bits))
    };
    encodings.iter().flat_map(widths).collect()
}

/// Compiles a strip with every back end and runs all leaves against the evaluator; `value` gives elements.
fn agree(seed: u64, rng: &mut Rng, strip: &Strip, target: &Arc<Target>, value: fn(&mut Rng, DType) -> Scalar) {
    let effort = [Effort::Speed, Effort::None][seed as usize % 2];
    let options = CodeOptions { target: target.clone(), effort, vectors: Vectors::Groups(4) };
    let mut clif = ClifBackend::new(&options);
    let mut leaves: Vec<(String, ExecutableCode)> = Vec::new();
    let mut add = |name: String, leaf: Leaf| {
        assert!(leaf.piece.calls.is_empty());
        leaves.push((name, ExecutableCode::new(&leaf.piece.bytes).unwrap()));
    };
    for lanes in [4, 8, 16] {
        let leaf = clif.compile(strip, StripSchedule { lanes, text: false }).unwrap();
        add(format!("clif, {lanes} lanes"), leaf);
    }
    for isa in isas(target) {
        // Nothing that random strips hold is left to others.
        let leaf = x64::compile(strip, isa, seed == 0).unwrap();
        assert_eq!(leaf.texts.asm.is_empty(), seed != 0);
        add(format!("x64, {isa}"), leaf);
        let leaf = x64::compile(&by_result(strip), isa, false).unwrap();
        add(format!("x64 in another order, {isa}"), leaf);
    }
    for n in (1..20).chain([31, 32, 33, 40, 64, 71, 130, 2105]) {
        let steps: Vec<usize> = strip
            .streams
            .iter()
            .map(|s| match s.gap {
                Some(gap) => gap as usize,
                None => s.dtype.size() * [1, 2, 5][rng.below(3)],
            })
            .collect();
        let memory: Vec<Vec<u8>> = strip
            .streams
            .iter()
            .zip(&steps)
            .map(|(s, step)| {
                let mut bytes = Vec::new();
                for _ in 0..n {
                    let mut element = vec![0x5a; *step];
                    element[..s.dtype.size()]
                        .copy_from_slice(&value(rng, s.dtype).bits.to_le_bytes()[..s.dtype.size()]);
                    bytes.extend(element);
                }
                bytes
            })
            .collect();
        let params: Vec<Scalar> = strip.params.iter().map(|t| rng.scalar(*t)).collect();
        let start: Vec<[Scalar; 16]> = strip
            .accs
            .iter()
            .map(|acc| [acc.combine.neutral(strip.ops[acc.value as usize].dtype).unwrap(); 16])
            .collect();

        let mut expected: Vec<StreamMemory> =
            memory.iter().zip(&steps).map(|(bytes, step)| StreamMemory { bytes: bytes.clone(), step: *step }).collect();
        let mut expected_accs = start.clone();
        evaluate(strip, &mut expected, &params, &mut expected_accs, n).unwrap();

        for (name, code) in &leaves {
            for shared in [vec![None; strip.streams.len()], over_loads(strip, &steps)] {
                // At an odd address, between guards.
                let mut actual: Vec<Vec<u8>> =
                    memory.iter().map(|m| [&[0xa5; 65][..], m, &[0xa5; 64]].concat()).collect();
                let mut args: Vec<StreamArg> = actual
                    .iter_mut()
                    .zip(&steps)
                    .map(|(m, step)| StreamArg { base: m[65..].as_mut_ptr(), step: *step as i64 })
                    .collect();
                for (k, over) in shared.iter().enumerate() {
                    args[k] = args[over.unwrap_or(k)];
                }
                let splats: Vec<[u32; 16]> = params.iter().map(|p| [lane_bits(*p); 16]).collect();
                let mut accs: Vec<[u32; 16]> = vec![[rng.below(1 << 30) as u32; 16]; start.len()];
                call(code, &args, &splats, &mut accs, n);
                let about = format!("seed {seed}, n {n}, {name}, over {shared:?}");
                for (i, m) in actual.iter().enumerate() {
                    // What lies there in the end: the values of the stream that was written over it.
                    let i = shared.iter().position(|over| *over == Some(i)).unwrap_or(i);
                    let (e, stream) = (&expected[i], &strip.streams[i]);
                    assert!(m[..65].iter().chain(&m[m.len() - 64..]).all(|b| *b == 0xa5), "{about}: outside of {i}");
                    if shared[i].is_some_and(|over| m.as_ptr() != actual[over].as_ptr()) {
                        continue;
                    }
                    let inside = &m[65..m.len() - 64];
                    for (k, (a, b)) in inside.chunks(e.step).zip(e.bytes.chunks(e.step)).enumerate() {
                        let size = stream.dtype.size();
                        assert!(same(stream.dtype, a, b) && a[size..] == b[size..], "{about}: {i}[{k}]: {strip:#?}");
                    }
                }
                for (j, (a, e)) in accs.iter().zip(&expected_accs).enumerate() {
                    let e = folded(strip.accs[j].combine, e);
                    let a = Scalar { dtype: e.dtype, bits: u64::from(a[0]) };
                    assert!(a.same(e), "{about}: accumulator {j}: {a:?} {e:?} {strip:#?}");
                }
            }
        }
    }
}

/// Of each stream that is stored: a stream of the same places that is only loaded, and only before any store; each of
/// these once.
fn over_loads(strip: &Strip, steps: &[usize]) -> Vec<Option<usize>> {
    let mut over = vec![None; strip.streams.len()];
    let first = strip.ops.iter().position(|o| matches!(o.op, Op::Store(..))).unwrap_or(strip.ops.len());
    let late = |k: usize| strip.ops.iter().skip(first).any(|o| o.op == Op::Load(k as u32));
    for (i, stream) in strip.streams.iter().enumerate().filter(|(_, s)| s.stored && !s.loaded) {
        over[i] = (0..strip.streams.len()).find(|k| {
            let of = &strip.streams[*k];
            let fits = of.dtype.size() == stream.dtype.size() && steps[*k] == steps[i];
            of.loaded && !of.stored && fits && !late(*k) && !over.contains(&Some(*k))
        });
    }
    over
}

#[test]
fn random_strips_agree_with_the_evaluator() {
    let target = Arc::new(Target::host().unwrap());
    for seed in 0..200u64 {
        let rng = &mut Rng((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let strip = random_strip(rng);
        agree(seed, rng, &strip, &target, Rng::scalar);
    }
}

/// What is left of a strip where a parameter is known computes the same, and the conditions worth knowing are found.
#[test]
fn cases_compute_what_the_strip_does() {
    let mut shorter = 0;
    for seed in 0..300u64 {
        let rng = &mut Rng((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let strip = random_strip(rng);
        let memory = |rng: &mut Rng, s: &Stream| StreamMemory {
            bytes: (0..20).flat_map(|_| rng.scalar(s.dtype).bits.to_le_bytes()[..s.dtype.size()].to_vec()).collect(),
            step: s.dtype.size(),
        };
        let memories: Vec<StreamMemory> = strip.streams.iter().map(|s| memory(rng, s)).collect();
        let mut params: Vec<Scalar> = strip.params.iter().map(|t| rng.scalar(*t)).collect();
        for p in (0..params.len()).filter(|p| strip.params[*p] == DType::Bool) {
            for holds in [false, true] {
                params[p] = Scalar::bool(holds);
                let case = assuming(&strip, p as u32, holds);
                shorter += usize::from(case.ops.len() < strip.ops.len());
                let results = [&strip, &case].map(|strip| {
                    let copy = |m: &StreamMemory| StreamMemory { bytes: m.bytes.clone(), step: m.step };
                    let mut streams: Vec<StreamMemory> = memories.iter().map(copy).collect();
                    let neutral = |a: &StripAcc| a.combine.neutral(strip.ops[a.value as usize].dtype).unwrap();
                    let mut accs: Vec<[Scalar; 16]> = strip.accs.iter().map(|a| [neutral(a); 16]).collect();
                    evaluate(strip, &mut streams, &params, &mut accs, 20).unwrap();
                    (streams, accs)
                });
                let [(streams, accs), (case_streams, case_accs)] = results;
                for ((a, b), s) in streams.iter().zip(&case_streams).zip(&strip.streams) {
                    let elements = a.bytes.chunks(a.step).zip(b.bytes.chunks(b.step));
                    assert!(elements.into_iter().all(|(a, b)| same(s.dtype, a, b)), "seed {seed}: {strip:#?}");
                }
                let lanes = accs.iter().flatten().zip(case_accs.iter().flatten());
                assert!(lanes.into_iter().all(|(a, b)| a.same(*b)), "seed {seed}: {strip:#?}");
            }
        }
    }
    assert!(shorter > 100, "{shorter}");
}

/// Extremes of squares that are NaN where one of them is, of clamped values, under a guard or not: what the wide back
/// end has shorter code for.
fn extremes_strip(rng: &mut Rng) -> Strip {
    let mut strip = Strip::default();
    let push = |strip: &mut Strip, op: Op, dtype: DType| -> Val {
        strip.ops.push(TypedOp { op, dtype });
        strip.ops.len() as Val - 1
    };
    let stream = Stream { dtype: DType::F32, gap: Some(4), loaded: true, stored: false };
    strip.streams.push(stream);
    let x = push(&mut strip, Op::Load(0), DType::F32);
    let limit = push(&mut strip, Op::Const(Scalar::f32(64.0)), DType::F32);
    let size = push(&mut strip, Op::Unary(UnaryOp::Abs, x), DType::F32);
    let near = push(&mut strip, Op::Binary([BinaryOp::Le, BinaryOp::Lt][rng.below(2)], size, limit), DType::Bool);
    let turned = push(&mut strip, Op::Unary(UnaryOp::Neg, x), DType::F32);
    let mut leaves = Vec::new();
    for _ in 0..1 + rng.below(5) {
        // A clamp, idle for |x| <= 64 or not.
        let v = [x, turned, size][rng.below(3)];
        let edge = [-87.5, -64.0, -20.0, 0.0, 20.0, 64.0, 89.0][rng.below(7)];
        let edge = push(&mut strip, Op::Const(Scalar::f32(edge)), DType::F32);
        let (p, q) = [(v, edge), (edge, v)][rng.below(2)];
        let less = push(&mut strip, Op::Binary(BinaryOp::Lt, p, q), DType::Bool);
        let (a, b) = [(p, q), (q, p)][rng.below(2)];
        let mut v = push(&mut strip, Op::Select(less, a, b), DType::F32);
        if rng.below(2) == 0 {
            v = push(&mut strip, Op::Rescue { ok: near, value: v, op: UnaryOp::Sin, x }, DType::F32);
        }
        // The last is signed: no short code then.
        let leaf = [Op::Binary(BinaryOp::Mul, v, v), Op::Unary(UnaryOp::Abs, v), Op::Unary(UnaryOp::Neg, v)];
        leaves.push(push(&mut strip, leaf[[0, 0, 0, 1, 1, 2][rng.below(6)]], DType::F32));
    }
    let mut good: Option<Val> = None;
    for &leaf in &leaves {
        let number = push(&mut strip, Op::Binary(BinaryOp::Eq, leaf, leaf), DType::Bool);
        good = Some(match good {
            None => number,
            Some(all) => push(&mut strip, Op::Binary(BinaryOp::And, all, number), DType::Bool),
        });
    }
    let nan = push(&mut strip, Op::Const(Scalar::f32(f32::NAN)), DType::F32);
    for combine in [Combine::Min, Combine::Max] {
        let mut best = leaves[0];
        for &leaf in &leaves[1..] {
            let (p, q) = if combine == Combine::Min { (best, leaf) } else { (leaf, best) };
            let less = push(&mut strip, Op::Binary(BinaryOp::Lt, p, q), DType::Bool);
            best = push(&mut strip, Op::Select(less, best, leaf), DType::F32);
        }
        let value = push(&mut strip, Op::Select(good.unwrap(), best, nan), DType::F32);
        strip.accs.push(StripAcc { combine, value, factor: None });
        // Each alone, too.
        let alone = leaves.iter().filter(|_| rng.below(3) == 0);
        strip.accs.extend(alone.map(|leaf| StripAcc { combine, value: *leaf, factor: None }));
    }
    strip
}

#[test]
fn extremes_of_squares_agree_with_the_evaluator() {
    let target = Arc::new(Target::host().unwrap());
    for seed in 1..120u64 {
        let rng = &mut Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let strip = extremes_strip(rng);
        // Mostly small: guards pass and fail.
        agree(seed, rng, &strip, &target, |rng, dtype| match rng.below(40) {
            0 => rng.scalar(dtype),
            1 => Scalar::f32([64.0, -64.0, 0.0, -0.0, f32::INFINITY, 1e30, f32::NAN, -f32::NAN][rng.below(8)]),
            _ => Scalar::f32((rng.below(2001) as f32 - 1000.0) / 16.0),
        });
    }
}

/// Two long chains that everything else waits for, as the exponentials of a basis are, perhaps behind a guard.
fn chains_strip(rng: &mut Rng) -> Strip {
    let mut strip = Strip::default();
    let push = |strip: &mut Strip, op: Op, dtype: DType| -> Val {
        strip.ops.push(TypedOp { op, dtype });
        strip.ops.len() as Val - 1
    };
    for stored in [false, false, true] {
        strip.streams.push(Stream { dtype: DType::F32, gap: Some(4), loaded: !stored, stored });
    }
    let (x, y) = (push(&mut strip, Op::Load(0), DType::F32), push(&mut strip, Op::Load(1), DType::F32));
    let chain = |strip: &mut Strip, x: Val, steps: usize| {
        (0..steps).fold(x, |v, i| {
            let c = push(strip, Op::Const(Scalar::f32(0.25 + i as f32 / 16.0)), DType::F32);
            push(strip, Op::Fma(v, c, x), DType::F32)
        })
    };
    let mut first = chain(&mut strip, x, 6 + rng.below(4));
    if rng.below(2) == 0 {
        let limit = push(&mut strip, Op::Const(Scalar::f32(64.0)), DType::F32);
        let size = push(&mut strip, Op::Unary(UnaryOp::Abs, x), DType::F32);
        let ok = push(&mut strip, Op::Binary(BinaryOp::Le, size, limit), DType::Bool);
        first = push(&mut strip, Op::Rescue { ok, value: first, op: UnaryOp::Sin, x }, DType::F32);
    }
    let one = push(&mut strip, Op::Const(Scalar::f32(1.0)), DType::F32);
    let second = push(&mut strip, Op::Binary(BinaryOp::Div, one, first), DType::F32);
    let mut last = first;
    for i in 0..36 {
        let c = push(&mut strip, Op::Const(Scalar::f32(1.0 - i as f32 / 8.0)), DType::F32);
        let (a, b) = [(first, second), (second, first)][rng.below(2)];
        let p = push(&mut strip, Op::Fma(a, c, y), DType::F32);
        let q = push(&mut strip, Op::Binary(BinaryOp::Mul, p, b), DType::F32);
        let minus = push(&mut strip, Op::Unary(UnaryOp::Neg, q), DType::F32);
        let r = push(&mut strip, Op::Fma(minus, x, p), DType::F32);
        let positive = push(&mut strip, Op::Binary(BinaryOp::Lt, c, r), DType::Bool);
        let sum = push(&mut strip, Op::Binary(BinaryOp::Add, q, r), DType::F32);
        last = push(&mut strip, Op::Select(positive, sum, q), DType::F32);
        let factor = [None, Some(last), Some(c), Some(first)][rng.below(4)];
        if i % 2 == 0 {
            strip.accs.push(StripAcc { combine: Combine::Sum, value: r, factor });
        }
    }
    strip.accs.push(StripAcc { combine: Combine::Sum, value: second, factor: None });
    if rng.below(2) == 0 {
        push(&mut strip, Op::Store(2, last), DType::F32);
    } else {
        strip.streams.pop();
    }
    strip
}

#[test]
fn chains_computed_ahead_agree_with_the_evaluator() {
    let target = Arc::new(Target::host().unwrap());
    for seed in 1..60u64 {
        let rng = &mut Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let strip = chains_strip(rng);
        assert!(x64::computes_ahead(&strip), "nothing is computed ahead");
        for isa in isas(&target).into_iter().filter(|isa| isa.masks() && isa.copies() > 1) {
            let stores = strip.streams.iter().any(|s| s.stored);
            assert_ne!(x64::in_columns(&strip, isa), stores, "{isa}");
        }
        agree(seed, rng, &strip, &target, |rng, dtype| match rng.below(60) {
            0 => rng.scalar(dtype),
            _ => Scalar::f32((rng.below(2001) as f32 - 1000.0) / 16.0),
        });
    }
}

#[test]
fn what_is_computed_for_a_result_is_used_up_first() {
    let mut strip = Strip::default();
    let push = |strip: &mut Strip, op: Op| -> Val {
        strip.ops.push(TypedOp { op, dtype: DType::F32 });
        strip.ops.len() as Val - 1
    };
    strip.streams.push(Stream { dtype: DType::F32, gap: Some(4), loaded: true, stored: false });
    let x = push(&mut strip, Op::Load(0));
    // Two questions of each of twelve parts: all parts, then all squares.
    let parts: Vec<Val> = (0..12)
        .map(|i| {
            let c = push(&mut strip, Op::Const(Scalar::f32(i as f32)));
            push(&mut strip, Op::Binary(BinaryOp::Mul, x, c))
        })
        .collect();
    let squares: Vec<Val> = parts.iter().map(|p| push(&mut strip, Op::Binary(BinaryOp::Mul, *p, *p))).collect();
    strip.accs =
        parts.iter().chain(&squares).map(|v| StripAcc { combine: Combine::Sum, value: *v, factor: None }).collect();
    let (before, after) = (most_alive(&strip), most_alive(&scheduled(&strip)));
    assert!(before > 10 && after <= 3, "{before} values at once became {after}");
}

#[test]
fn other_lane_counts_are_refused() {
    let mut backend = ClifBackend::new(&CodeOptions::host().unwrap());
    let refused = backend.compile(&Strip::default(), StripSchedule { lanes: 5, text: false });
    assert!(matches!(refused, Err(Unsupported(why)) if why.contains("5 lanes")));
}

/// Only conditions that save much are worth a strip of their own, and no more than two of them.
#[test]
fn conditions_are_known_where_that_saves_much() {
    let asks = |lengths: &[usize]| {
        let mut strip = Strip::default();
        let push = |strip: &mut Strip, op: Op, dtype: DType| -> Val {
            strip.ops.push(TypedOp { op, dtype });
            strip.ops.len() as Val - 1
        };
        strip.streams.push(Stream { dtype: DType::F32, gap: Some(4), loaded: true, stored: true });
        let x = push(&mut strip, Op::Load(0), DType::F32);
        let mut value = x;
        for (p, length) in lengths.iter().enumerate() {
            strip.params.push(DType::Bool);
            let asked = push(&mut strip, Op::Param(p as u32), DType::Bool);
            let mut other = x;
            for _ in 0..*length {
                other = push(&mut strip, Op::Binary(BinaryOp::Mul, other, value), DType::F32);
            }
            value = push(&mut strip, Op::Select(asked, other, value), DType::F32);
        }
        push(&mut strip, Op::Store(0, value), DType::F32);
        cases(strip)
    };
    let few = asks(&[3]);
    assert_eq!((few.conditions.len(), few.strips.len()), (0, 1));
    let three = asks(&[10, 3, 30, 20]);
    assert_eq!(three.conditions, [2, 3]);
    let lengths: Vec<usize> = three.strips.iter().map(|s| s.ops.len()).collect();
    // Load, store, two parameters with chain and choice; then the chains of what holds.
    assert_eq!(lengths, [2 + 12 + 5, 2 + 12 + 5 + 30, 2 + 12 + 5 + 20, 2 + 12 + 5 + 50]);
}
