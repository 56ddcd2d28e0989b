//! Products: `MatMul` or `Gemm` where a transpose at the most brings the axes in place, else `Einsum`.

use super::ExportError;
use super::spread::operand;
use super::types::{int, ints, text};
use super::writer::{Frame, Writer, internal};
use crate::graph::NodeId;
use crate::op::Op;
use crate::types::{DType, TensorType};

/// Axes of a product.
struct Axes<'a> {
    rank: usize,
    batch: &'a [usize],
    contract: &'a [usize],
}

impl Axes<'_> {
    fn free(&self) -> Vec<usize> {
        (0..self.rank).filter(|a| !self.batch.contains(a) && !self.contract.contains(a)).collect()
    }
}

/// The orders of axes that make a product a `MatMul`: of the left and of the right operand.
fn matmul_order(lhs: &Axes<'_>, rhs: &Axes<'_>) -> Option<(Vec<usize>, Vec<usize>)> {
    let ([l], [r]) = (lhs.contract, rhs.contract) else { return None };
    let (left, right) = (lhs.free(), rhs.free());
    // Axes before the last two are batch axes of both; without any, one side may have several free axes.
    let fits = matches!((lhs.batch.len(), left.len(), right.len()), (0, _, 0 | 1) | (0, 0, _) | (_, 1, 1));
    if !fits {
        return None;
    }
    let left_order = lhs.batch.iter().chain(&left).chain([l]).copied().collect();
    let mut right_order: Vec<usize> = rhs.batch.iter().chain(&right).copied().collect();
    // The contracted axis is last but one; a vector has no other.
    let place = if right.is_empty() { right_order.len() } else { right_order.len() - 1 };
    right_order.insert(place, *r);
    Some((left_order, right_order))
}

/// Whether a product of bytes into i32 is a `MatMulInteger`.
pub(super) fn is_integer_matmul(op: &Op, a: &TensorType, b: &TensorType) -> bool {
    let Op::DotGeneral { lhs_batch, rhs_batch, lhs_contract, rhs_contract, accumulate } = op else { return false };
    let bytes = |t: &TensorType| matches!(t.dtype, DType::I8 | DType::U8);
    let lhs = Axes { rank: a.rank(), batch: lhs_batch, contract: lhs_contract };
    let rhs = Axes { rank: b.rank(), batch: rhs_batch, contract: rhs_contract };
    *accumulate == DType::I32
        && bytes(a)
        && bytes(b)
        && a.rank() >= 2
        && b.rank() >= 2
        && matmul_order(&lhs, &rhs).is_some()
}

fn is_identity(order: &[usize]) -> bool {
    order.iter().copied().eq(0..order.len())
}

impl Writer<'_> {
    pub(super) fn dot_general(&mut self, frame: &mut Frame<'_>, id: NodeId) -> Result<(), ExportError> {
        let f = frame.f;
        let node = f.node(id);
        let Op::DotGeneral { lhs_batch, rhs_batch, lhs_contract, rhs_contract, .. } = &node.op else {
            return Err(internal("a product of another op"));
        };
        let (a, b) = (frame.tensor(operand(frame, id, 0)?)?, frame.tensor(operand(frame, id, 1)?)?);
        let lhs = Axes { rank: a.rank(), batch: lhs_batch, contract: lhs_contract };
        let rhs = Axes { rank: b.rank(), batch: rhs_batch, contract: rhs_contract };
        let names = self.all(frame, node.operands())?;
        let [x, y] = names.as_slice() else { return Err(internal("`dot_general` takes two")) };
        if lhs_contract.is_empty() && (a.rank() == 0 || b.rank() == 0) {
            self.finish(frame, id, "Mul", &[x, y], Vec::new());
            return Ok(());
        }
        // A vector goes on the side of a matrix where no transpose is needed: v A for A^T v.
        if let ([l], [r]) = (lhs_contract.as_slice(), rhs_contract.as_slice())
            && a.dtype == b.dtype
            && matches!((a.rank(), *l, b.rank(), *r), (2, 0, 1, _) | (1, _, 2, 1))
        {
            self.finish(frame, id, "MatMul", &[y, x], Vec::new());
            return Ok(());
        }
        let vector = a.rank() == 1 || b.rank() == 1;
        let order = matmul_order(&lhs, &rhs).filter(|(l, r)| !vector || (is_identity(l) && is_identity(r)));
        let Some((left, right)) = order else {
            if a.dtype != b.dtype || a.rank() + b.rank() > LETTERS.len() {
                self.refuse(frame, format!("a product of {a} and {b}"));
            }
            let equation = equation(&lhs, &rhs);
            self.finish(frame, id, "Einsum", &[x, y], vec![text("equation", &equation)]);
            return Ok(());
        };
        let matrices = a.rank() == 2 && b.rank() == 2 && lhs_batch.is_empty();
        let turned = !is_identity(&left) || !is_identity(&right);
        if matrices && turned && matches!(a.dtype, DType::F32 | DType::F64) {
            let flag = |name: &str, order: &[usize]| int(name, i64::from(!is_identity(order)));
            let attributes = vec![flag("transA", &left), flag("transB", &right)];
            self.finish(frame, id, "Gemm", &[x, y], attributes);
            return Ok(());
        }
        let x = self.turned(frame, x, &left);
        let y = self.turned(frame, y, &right);
        let op_type = if matches!(a.dtype, DType::I8 | DType::U8) { "MatMulInteger" } else { "MatMul" };
        self.finish(frame, id, op_type, &[&x, &y], Vec::new());
        Ok(())
    }

    fn turned(&mut self, frame: &Frame<'_>, x: &str, order: &[usize]) -> String {
        if is_identity(order) {
            return x.to_owned();
        }
        self.emit(frame, "Transpose", &[x], vec![ints("perm", order.iter().copied())])
    }
}

const LETTERS: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// `left,right->batch left-free right-free`, a letter an axis.
fn equation(lhs: &Axes<'_>, rhs: &Axes<'_>) -> String {
    let mut letters = LETTERS.chars();
    let left: Vec<char> = letters.by_ref().take(lhs.rank).collect();
    let mut right: Vec<Option<char>> = vec![None; rhs.rank];
    let pairs = lhs.batch.iter().zip(rhs.batch).chain(lhs.contract.iter().zip(rhs.contract));
    for (&l, &r) in pairs {
        if let Some(slot) = right.get_mut(r) {
            *slot = left.get(l).copied();
        }
    }
    let right: Vec<char> = right.into_iter().map(|c| c.or_else(|| letters.next()).unwrap_or('a')).collect();
    let from = |letters: &[char], axes: &[usize]| -> String { axes.iter().filter_map(|&a| letters.get(a)).collect() };
    let out = from(&left, lhs.batch) + &from(&left, &lhs.free()) + &from(&right, &rhs.free());
    format!("{},{}->{out}", left.iter().collect::<String>(), right.iter().collect::<String>())
}
