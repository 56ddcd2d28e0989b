//! What rules see: a function and the constants of its module, with the questions that patterns ask.

use frit_ir::op::BinaryOp;
use frit_ir::types::Dim;
use frit_ir::{DType, Function, Node, NodeId, Op, Param, Tensor, TensorType, UnaryOp, Value};
use indexmap::IndexMap;

/// A function and the module's parameters.
pub struct Scope<'a> {
    /// The function.
    pub f: &'a Function,
    /// Parameters by name.
    pub params: &'a IndexMap<String, Param>,
}

/// Views are followed this far when a constant is looked for.
const DEPTH: usize = 16;

impl<'a> Scope<'a> {
    /// The op that makes a value.
    pub fn node(&self, value: Value) -> &'a Node {
        self.f.node(value.node)
    }

    /// An operand of an op.
    pub fn operand(&self, id: NodeId, i: usize) -> Option<Value> {
        self.f.node(id).operands().get(i).copied()
    }

    /// The tensor type of a value.
    pub fn ty(&self, value: Value) -> Option<&'a TensorType> {
        self.f.ty(value).tensor()
    }

    /// Extents of a value; none when it is no tensor.
    pub fn dims(&self, value: Value) -> &'a [Dim] {
        self.ty(value).map_or(&[], |t| &t.dims)
    }

    /// The tensor type of an op's only result.
    pub fn result(&self, id: NodeId) -> Option<&'a TensorType> {
        self.ty(Value { node: id, result: 0 })
    }

    /// The operand of a unary op.
    pub fn unary(&self, value: Value, op: UnaryOp) -> Option<Value> {
        let node = self.node(value);
        if node.op == Op::Unary(op) { node.operands().first().copied() } else { None }
    }

    /// The operands of a binary op.
    pub fn binary(&self, id: NodeId, op: BinaryOp) -> Option<(Value, Value)> {
        let node = self.f.node(id);
        match node.operands() {
            [a, b] if node.op == Op::Binary(op) => Some((*a, *b)),
            _ => None,
        }
    }

    /// Whether one op uses the value, once.
    pub fn single_use(&self, value: Value) -> bool {
        self.f.use_count(value) == 1
    }

    /// Whether a value is only what likely conditions fall back to.
    pub fn is_fallback(&self, value: Value) -> bool {
        let rare =
            |(user, i): &(NodeId, usize)| *i == 2 && matches!(self.f.node(*user).op, Op::Select { likely } if likely.0);
        let uses = self.f.uses(value);
        !uses.is_empty() && uses.iter().all(rare)
    }

    /// A constant or a parameter: what trains parameters takes them as inputs.
    pub fn constant(&self, value: Value) -> Option<&'a Tensor> {
        match &self.node(value).op {
            Op::Constant { value } => Some(value),
            Op::Param { name, .. } => self.params.get(name).map(|p| &p.value),
            _ => None,
        }
    }

    /// The bytes of the one element that a constant repeats; seen through views.
    pub fn splat(&self, value: Value) -> Option<(DType, Vec<u8>)> {
        let mut at = value;
        for _ in 0..DEPTH {
            match &self.node(at).op {
                Op::Broadcast { .. } | Op::Reshape { .. } | Op::Transpose { .. } | Op::Slice { .. } => {
                    at = *self.node(at).operands().first()?;
                }
                _ => break,
            }
        }
        let tensor = self.constant(at)?;
        let size = tensor.dtype().size();
        // Larger ones are tables, not numbers.
        if size == 0 || tensor.numel() == 0 || tensor.numel() > 4096 {
            return None;
        }
        let first = tensor.bytes().get(..size)?;
        tensor.bytes().chunks_exact(size).all(|e| e == first).then(|| (tensor.dtype(), first.to_vec()))
    }

    /// [`Scope::splat`] as a number that f64 holds exactly; i64 and u64 beyond 2^53 have none.
    pub fn number(&self, value: Value) -> Option<f64> {
        let (dtype, bytes) = self.splat(value)?;
        let scalar = Tensor::from_bytes(dtype, &[], &bytes).ok()?;
        match dtype {
            DType::F32 => scalar.to_vec::<f32>().first().map(|v| f64::from(*v)),
            DType::F64 => scalar.to_vec::<f64>().first().copied(),
            DType::F16 | DType::BF16 => crate::simplify::half_to_f64(dtype, &bytes),
            _ => scalar.to_i64s()?.first().filter(|v| v.unsigned_abs() <= 1 << 53).map(|v| *v as f64),
        }
    }

    /// Whether the value repeats exactly this number (0 and -0 differ).
    pub fn is_number(&self, value: Value, number: f64) -> bool {
        self.number(value).is_some_and(|v| v.to_bits() == number.to_bits())
    }
}

/// How the axes of one shape become those of another that differs in extents of 1 only: for each axis of `from`, the
/// axis of `to`; `None` for an extent of 1 that has no partner. `None` in all when the other extents differ.
pub(crate) fn unit_map(from: &[Dim], to: &[Dim]) -> Option<Vec<Option<usize>>> {
    let real = |dims: &[Dim]| -> Vec<usize> { (0..dims.len()).filter(|&i| dims[i] != Dim::ONE).collect() };
    let (left, right) = (real(from), real(to));
    if left.len() != right.len() || left.iter().zip(&right).any(|(&l, &r)| from[l] != to[r]) {
        return None;
    }
    let mut map = vec![None; from.len()];
    for (l, r) in left.into_iter().zip(right) {
        map[l] = Some(r);
    }
    Some(map)
}

/// What a reshape makes of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// It is this axis of the other shape.
    At(usize),
    /// It is 1 and may not be there.
    Unit,
    /// It is cut or joined with others.
    No,
}

/// For each axis of `from`, what it is in `to`, which has as many elements in the same order.
pub(super) fn kept_axes(from: &[Dim], to: &[Dim]) -> Vec<Kept> {
    let mut kept: Vec<Kept> = from.iter().map(|d| if *d == Dim::ONE { Kept::Unit } else { Kept::No }).collect();
    let real = |dims: &[Dim]| -> Vec<usize> { (0..dims.len()).filter(|&i| dims[i] != Dim::ONE).collect() };
    let (left, right) = (real(from), real(to));
    // Groups of equal products, from the front.
    let (mut i, mut j) = (0, 0);
    while i < left.len() && j < right.len() {
        if from[left[i]] == to[right[j]] {
            kept[left[i]] = Kept::At(right[j]);
            (i, j) = (i + 1, j + 1);
            continue;
        }
        // The shortest runs from here with one product.
        let runs = (1..=left.len() - i).flat_map(|m| (1..=right.len() - j).map(move |n| (m, n)));
        let mut runs: Vec<(usize, usize)> = runs.collect();
        runs.sort_by_key(|(m, n)| m + n);
        let product = |dims: &[Dim], axes: &[usize]| Dim::product(axes.iter().map(|&a| &dims[a]));
        let equal = |m: usize, n: usize| product(from, &left[i..i + m]) == product(to, &right[j..j + n]);
        let Some((m, n)) = runs.into_iter().find(|&(m, n)| equal(m, n)) else { return kept };
        (i, j) = (i + m, j + n);
    }
    kept
}

/// Whether extents are all known.
pub(super) fn known_product<'d>(dims: impl IntoIterator<Item = &'d Dim>) -> Option<i64> {
    Dim::product(dims).known()
}
