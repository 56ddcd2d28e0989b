//! Random kernels and inputs for tests: straight-line bodies, loops and reductions over several types. The same seed
//! gives the same kernel.

use frit_ir::{BinaryOp, DType, Dim, UnaryOp};

use super::build::KernelBuilder;
use super::interp::Memory;
use super::{Combine, Kernel, Reg, Role, Scalar};

/// A small generator (Knuth's multiplier), the same on every machine.
pub struct Random(pub u64);

impl Random {
    /// 32 random bits.
    pub fn bits(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32
    }

    /// Below `n`; 0 when n is.
    pub fn below(&mut self, n: usize) -> usize {
        self.bits() as usize % n.max(1)
    }

    /// One of a list.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> Option<T> {
        items.get(self.below(items.len())).copied()
    }

    /// A value: mostly small numbers, sometimes any bits.
    pub fn value(&mut self, dtype: DType) -> Scalar {
        let small = self.below(41) as f64 / 8.0 - 2.5;
        let wild = u64::from(self.bits()) << 32 | u64::from(self.bits());
        match (self.below(8), dtype) {
            (_, DType::Bool) => Scalar::bool(wild & 1 == 1),
            (0, _) => Scalar::int(dtype, i128::from(wild)),
            (_, DType::F32) => Scalar::f32(small as f32),
            (_, DType::F64) => Scalar::f64(small),
            _ => Scalar::int(dtype, small as i128),
        }
    }
}

const FLOAT_UNARY: [UnaryOp; 20] = [
    UnaryOp::Neg,
    UnaryOp::Abs,
    UnaryOp::Sign,
    UnaryOp::Floor,
    UnaryOp::Ceil,
    UnaryOp::Trunc,
    UnaryOp::RoundEven,
    UnaryOp::Sqrt,
    UnaryOp::Exp,
    UnaryOp::Expm1,
    UnaryOp::Log,
    UnaryOp::Log1p,
    UnaryOp::Sin,
    UnaryOp::Cos,
    UnaryOp::Tan,
    UnaryOp::Asin,
    UnaryOp::Acos,
    UnaryOp::Atan,
    UnaryOp::Tanh,
    UnaryOp::Erf,
];
const INT_UNARY: [UnaryOp; 4] = [UnaryOp::Neg, UnaryOp::Abs, UnaryOp::Sign, UnaryOp::Not];

const BINARY: [BinaryOp; 17] = [
    BinaryOp::Add,
    BinaryOp::Sub,
    BinaryOp::Mul,
    BinaryOp::Div,
    BinaryOp::Min,
    BinaryOp::Max,
    BinaryOp::Rem,
    BinaryOp::Eq,
    BinaryOp::Lt,
    BinaryOp::Le,
    BinaryOp::Atan2,
    BinaryOp::Pow,
    BinaryOp::And,
    BinaryOp::Or,
    BinaryOp::Xor,
    BinaryOp::Shl,
    BinaryOp::Shr,
];

/// The types of random buffers.
pub const TYPES: [DType; 9] =
    [DType::F32, DType::F32, DType::F32, DType::F64, DType::F16, DType::BF16, DType::I32, DType::I64, DType::U8];

/// A value of the wanted class from what is there, cast where need be.
fn as_type(b: &mut KernelBuilder, reg: Reg, dtype: DType) -> Reg {
    b.cast(reg, dtype, false)
}

/// Appends `count` random operations on `pool`.
fn operations(b: &mut KernelBuilder, random: &mut Random, pool: &mut Vec<Reg>, count: usize) {
    for _ in 0..count {
        let (Some(x), Some(y)) = (random.pick(pool), random.pick(pool)) else { return };
        let dtype = random.pick(&[DType::F32, DType::F32, DType::F64, DType::I32, DType::I64, DType::U8]);
        let dtype = dtype.unwrap_or(DType::F32);
        let (x, y) = (as_type(b, x, dtype), as_type(b, y, dtype));
        let made = match random.below(8) {
            0 | 1 => {
                let ops: &[UnaryOp] = if dtype.is_float() { &FLOAT_UNARY } else { &INT_UNARY };
                random.pick(ops).map(|op| b.unary(op, x))
            }
            2..=5 => {
                // The first 12 are for floats; integers have no atan2.
                let ops = if dtype.is_float() { BINARY.get(..12) } else { Some(&BINARY[..]) };
                let op = ops.and_then(|ops| random.pick(ops));
                op.filter(|op| *op != BinaryOp::Atan2 || dtype.is_float()).map(|op| b.binary(op, x, y))
            }
            6 => {
                let condition = b.binary(BinaryOp::Lt, x, y);
                Some(b.select(condition, x, y))
            }
            _ => {
                let value = random.value(dtype);
                Some(b.constant(value))
            }
        };
        pool.extend(made);
    }
}

/// A random kernel that verifies: rows of an outer extent `d0`, each read, computed on in a loop, reduced.
pub fn kernel(seed: u64) -> Kernel {
    let mut random = Random(seed.wrapping_mul(2_654_435_761).wrapping_add(1));
    let mut b = KernelBuilder::new(&format!("random_{seed}"), random.below(2) == 0);
    let rows = b.dim(&Dim::symbol("B"));
    let width = Dim::from(1 + random.below(40));
    let inputs: Vec<_> = (0..1 + random.below(3))
        .map(|i| {
            let dtype = random.pick(&TYPES).unwrap_or(DType::F32);
            b.buffer(&format!("x{i}"), dtype, &rows * &width, Role::Input)
        })
        .collect();
    let out_type = random.pick(&TYPES).unwrap_or(DType::F32);
    let out = b.buffer("y", out_type, &rows * &width, Role::Output);
    let sum_type = random.pick(&[DType::F32, DType::F32, DType::F64, DType::I32]).unwrap_or(DType::F32);
    let sums = b.buffer("s", sum_type, rows.clone(), Role::Output);
    let places = b.buffer("p", DType::I64, rows.clone(), Role::Output);
    let combine = random.pick(&[Combine::Sum, Combine::Prod, Combine::Min, Combine::Max]).unwrap_or(Combine::Sum);
    let rounded = random.below(2) == 0;
    let (first, second) = (random.below(8), random.below(12));
    b.phase(rows, |b, row| {
        let mut reduced = b.reduce(width.clone(), |b, i| {
            let at = &(&row * &width) + &i;
            let mut pool: Vec<Reg> = inputs.iter().map(|x| b.load(*x, at.clone())).collect();
            operations(b, &mut random, &mut pool, first);
            let value = pool.last().copied().map(|r| as_type(b, r, sum_type));
            let index = b.let_(DType::I64, super::Expr::Index(i));
            let first = pool.first().copied().map(|r| as_type(b, r, sum_type));
            let combine = match (combine, first) {
                (Combine::Sum, Some(factor)) if sum_type.is_float() && rounded => Combine::Dot(factor),
                (combine, _) => combine,
            };
            value.map(|v| vec![(v, combine), (v, Combine::ArgMax(index))]).unwrap_or_default()
        });
        if let [sum, place] = reduced[..] {
            b.push(super::Stmt::Store { buffer: sums, index: row.clone(), value: sum });
            b.push(super::Stmt::Store { buffer: places, index: row.clone(), value: place });
        }
        b.for_(width.clone(), |b, i| {
            let at = &(&row * &width) + &i;
            let mut pool: Vec<Reg> = inputs.iter().map(|x| b.load(*x, at.clone())).collect();
            pool.append(&mut reduced);
            operations(b, &mut random, &mut pool, second);
            if let Some(last) = pool.last().copied() {
                let value = as_type(b, last, out_type);
                b.push(super::Stmt::Store { buffer: out, index: at, value });
            }
        });
    });
    b.finish()
}

/// Random contents for a kernel's arguments, for given values of its dims; outputs are zeros.
pub fn arguments(kernel: &Kernel, dims: &[i64], seed: u64) -> Vec<Memory> {
    let mut random = Random(seed.wrapping_add(77));
    let value_of =
        |s: &frit_ir::Symbol| kernel.dims.iter().position(|d| d.symbol == *s).and_then(|i| dims.get(i).copied());
    kernel
        .arguments()
        .map(|(_, buffer)| {
            let len = buffer.len.eval(&value_of).and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
            let mut memory = Memory::zeros(buffer.dtype, len);
            if buffer.role == Role::Input {
                for i in 0..len {
                    memory.set(i, random.value(buffer.dtype));
                }
            }
            memory
        })
        .collect()
}
