//! Few values as one: reductions that are written out instead of looped.

use frit_ir::{BinaryOp, DType, Dim, ReduceKind, UnaryOp, Value};

use super::LowerError;
use super::emit::{Emitted, Emitter, UNROLLED, arithmetic};
use crate::kernel::{Combine, Reg, Scalar};

/// What is combined.
#[derive(Clone, Copy)]
enum Term {
    Value(Reg),
    /// Two factors of a sum's term, of the type that it is summed in.
    Product(Reg, Reg),
}

impl Emitter<'_> {
    pub(super) fn emit_small_reduce(
        &mut self,
        value: Value,
        x: Value,
        axes: &[usize],
        kind: ReduceKind,
        index: &[Dim],
    ) -> Emitted {
        let dims = self.dims(x)?;
        let extents = axes.iter().map(|&a| dims[a].known()).collect::<Option<Vec<i64>>>();
        let Some(extents) = extents.filter(|e| e.iter().product::<i64>() <= UNROLLED) else {
            return Err(LowerError::Unfusable {
                origin: self.body.node(value.node).origin.to_string(),
                message: "a large reduction is needed at another place than its row".to_owned(),
            });
        };
        let node = self.body.node(value.node);
        let free = node.numerics.reassociate;
        // A sum of products rounds once for each of them where it may.
        let factors = if kind == ReduceKind::Sum && node.numerics.contract { self.factors(x) } else { None };
        let mut terms = Vec::new();
        for offset in offsets(&extents) {
            let source = reduced_index(axes, index, &offset);
            terms.push(match factors {
                Some((a, b)) => Term::Product(self.emit(a, &source)?, self.emit(b, &source)?),
                None => Term::Value(self.emit(x, &source)?),
            });
        }
        let dtype = self.tensor(x)?.dtype;
        self.combine_terms(terms, kind, dtype, free)
    }

    /// At most 16 values combined in the order of `frit_ir::order`; `free`: sums may be reordered.
    pub(crate) fn combine_tree(&mut self, values: Vec<Reg>, kind: ReduceKind, dtype: DType, free: bool) -> Emitted {
        self.combine_terms(values.into_iter().map(Term::Value).collect(), kind, dtype, free)
    }

    fn combine_terms(&mut self, terms: Vec<Term>, kind: ReduceKind, dtype: DType, free: bool) -> Emitted {
        let work = reduction_type(dtype);
        let mut lanes: Vec<Term> = Vec::with_capacity(terms.len());
        for term in terms {
            lanes.push(match term {
                Term::Value(v) => Term::Value(self.cast(v, work, false)),
                product => product,
            });
        }
        if lanes.is_empty() {
            let start = combine_of(kind, Reg(0)).neutral(work);
            let neutral = start.ok_or_else(|| LowerError::Internal("no neutral element".to_owned()))?;
            let value = self.kb.constant(neutral);
            return Ok(self.cast(value, dtype, false));
        }
        let is_index = matches!(kind, ReduceKind::ArgMin | ReduceKind::ArgMax);
        let is_extreme = matches!(kind, ReduceKind::Min | ReduceKind::Max);
        if is_index || is_extreme && self.kb.is_fast() && work.is_float() && lanes.len() > 2 {
            let values: Vec<Reg> = lanes.into_iter().map(|term| self.value_of(term)).collect();
            if is_index {
                return self.first_extreme(&values, kind);
            }
            let value = self.plain_extreme(&values, kind);
            return Ok(self.cast(value, dtype, false));
        }
        let combine = combine_of(kind, Reg(0)).op();
        let mut step = UNROLLED as usize / 2;
        while step > 0 {
            for i in 0..step {
                if let Some(&right) = lanes.get(i + step) {
                    lanes[i] = Term::Value(self.combined(combine, lanes[i], right));
                }
            }
            lanes.truncate(step);
            step /= 2;
        }
        let mut result = self.value_of(lanes[0]);
        if kind == ReduceKind::Sum && work.is_float() && !free {
            // Lanes start from +0: a sum of nothing but -0 is +0.
            let zero = self.kb.constant(Scalar { dtype: work, bits: 0 });
            result = self.kb.binary(BinaryOp::Add, result, zero);
        }
        Ok(self.cast(result, dtype, false))
    }

    fn combined(&mut self, combine: BinaryOp, left: Term, right: Term) -> Reg {
        match (left, right) {
            (Term::Product(a, b), other) | (other, Term::Product(a, b)) => {
                let other = self.value_of(other);
                self.kb.fma(a, b, other)
            }
            (Term::Value(a), Term::Value(b)) => self.kb.binary(combine, a, b),
        }
    }

    fn value_of(&mut self, term: Term) -> Reg {
        match term {
            Term::Value(v) => v,
            Term::Product(a, b) => self.kb.binary(BinaryOp::Mul, a, b),
        }
    }

    /// The smallest or largest of several floats, zeros of both signs taken as equal: one comparison each, and one look
    /// for NaN at them all.
    fn plain_extreme(&mut self, values: &[Reg], kind: ReduceKind) -> Reg {
        let mut best = values.to_vec();
        while best.len() > 1 {
            let pairs = best.chunks(2).map(|pair| match *pair {
                [a, b] => {
                    let less = if kind == ReduceKind::Min { (a, b) } else { (b, a) };
                    let first = self.kb.binary(BinaryOp::Lt, less.0, less.1);
                    self.kb.select(first, a, b)
                }
                _ => pair[0],
            });
            best = pairs.collect();
        }
        let mut ordered: Vec<Reg> = values.iter().map(|v| self.kb.binary(BinaryOp::Eq, *v, *v)).collect();
        while ordered.len() > 1 {
            let pairs = ordered.chunks(2).map(|pair| match *pair {
                [a, b] => self.kb.binary(BinaryOp::And, a, b),
                _ => pair[0],
            });
            ordered = pairs.collect();
        }
        let dtype = self.kb.reg_type(values[0]);
        let nan = if dtype == DType::F64 { Scalar::f64(f64::NAN) } else { Scalar::f32(f32::NAN) };
        let nan = self.kb.constant(nan);
        self.kb.select(ordered[0], best[0], nan)
    }

    /// Index of the first extreme value; the first NaN wins.
    fn first_extreme(&mut self, values: &[Reg], kind: ReduceKind) -> Emitted {
        let Some((&first, rest)) = values.split_first() else {
            return Err(LowerError::Internal("the extreme of nothing".to_owned()));
        };
        let (mut best, mut at) = (first, self.kb.constant(Scalar::i64(0)));
        for (i, &v) in rest.iter().enumerate() {
            let better = match kind {
                ReduceKind::ArgMin => self.kb.binary(BinaryOp::Lt, v, best),
                _ => self.kb.binary(BinaryOp::Lt, best, v),
            };
            let better = if self.kb.reg_type(v).is_float() {
                let (v_is, best_is) = (self.kb.binary(BinaryOp::Eq, v, v), self.kb.binary(BinaryOp::Eq, best, best));
                let v_nan = self.kb.unary(UnaryOp::Not, v_is);
                let first_nan = self.kb.binary(BinaryOp::And, v_nan, best_is);
                self.kb.binary(BinaryOp::Or, better, first_nan)
            } else {
                better
            };
            let here = self.kb.constant(Scalar::i64(i as i64 + 1));
            best = self.kb.select(better, v, best);
            at = self.kb.select(better, here, at);
        }
        Ok(at)
    }
}

/// The type that values of `dtype` are reduced in: bools as u8, 16-bit floats as f32.
pub(crate) fn reduction_type(dtype: DType) -> DType {
    match dtype {
        DType::Bool => DType::U8,
        other => arithmetic(other),
    }
}

/// How a large reduction combines; argmin and argmax also need the index.
pub(crate) fn combine_of(kind: ReduceKind, at: Reg) -> Combine {
    match kind {
        ReduceKind::Sum => Combine::Sum,
        ReduceKind::Prod => Combine::Prod,
        ReduceKind::Min => Combine::Min,
        ReduceKind::Max => Combine::Max,
        ReduceKind::ArgMin => Combine::ArgMin(at),
        ReduceKind::ArgMax => Combine::ArgMax(at),
    }
}

/// Every index of a small shape, row-major.
pub(crate) fn offsets(extents: &[i64]) -> Vec<Vec<Dim>> {
    let mut all = vec![Vec::new()];
    for &extent in extents {
        all = all
            .iter()
            .flat_map(|prefix: &Vec<Dim>| {
                (0..extent).map(move |i| {
                    let mut index = prefix.clone();
                    index.push(Dim::Known(i));
                    index
                })
            })
            .collect();
    }
    all
}

/// The operand index of a reduction from the result's index and the position along the reduced axes.
pub(crate) fn reduced_index(axes: &[usize], kept: &[Dim], offset: &[Dim]) -> Vec<Dim> {
    let rank = axes.len() + kept.len();
    let (mut kept, mut offset) = (kept.iter(), offset.iter());
    (0..rank)
        .filter_map(|axis| if axes.contains(&axis) { offset.next().cloned() } else { kept.next().cloned() })
        .collect()
}
