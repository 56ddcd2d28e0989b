//! Which products round together with the sum that takes them: settled before kernels are formed.
//!
//! A kernel may write `x y + z` as one operation that rounds once. If it did so wherever both happen to be in one
//! kernel, an expression would have other bits where it is computed again from a product that was stored, and the
//! gradient of a maximum would not find it among them. So a sum (or difference, which is made one) keeps its leave to
//! contract only when its product has no other use, in the whole function, and what rounds so is never stored
//! ([`rounds_with_user`]): every copy of both contracts.

use frit_ir::builder::Builder;
use frit_ir::{BinaryOp, DType, Function, NodeId, Numerics, Op, ReduceKind, UnaryOp, Value};

/// Takes the leave from sums whose products others use; puts the product that contracts first.
pub(super) fn settle(f: &mut Function) {
    for id in f.nodes() {
        let node = f.node(id);
        if !node.numerics.contract {
            continue;
        }
        if let (Op::Binary(BinaryOp::Sub), [a, b]) = (&node.op, node.operands()) {
            let (a, b) = (*a, *b);
            if as_sum(f, id, a, b) {
                continue;
            }
        }
        let node = f.node(id);
        let chosen = match (&node.op, node.operands()) {
            (Op::Binary(BinaryOp::Add), [a, b]) => match (is_own(f, *a), is_own(f, *b)) {
                (true, _) => continue,
                (false, true) => Some((*b, *a)),
                (false, false) => None,
            },
            (Op::Reduce { kind: ReduceKind::Sum, .. }, [x]) if !is_product(f, viewed(f, *x)) => continue,
            (Op::Reduce { kind: ReduceKind::Sum, .. }, [x]) if only_summed(f, viewed(f, *x)) => continue,
            (Op::Reduce { kind: ReduceKind::Sum, .. } | Op::Binary(BinaryOp::Sub), _) => None,
            _ => continue,
        };
        match chosen {
            Some((first, second)) => {
                f.set_operand(id, 0, first);
                f.set_operand(id, 1, second);
            }
            None => {
                let numerics = Numerics { contract: false, ..f.node(id).numerics };
                f.set_numerics(id, numerics);
            }
        }
    }
}

/// A difference with a product of its own as a sum, which it equals in every bit: `a - x y = (-x) y + a`,
/// `x y - a = x y + (-a)`. False where neither operand is one.
fn as_sum(f: &mut Function, id: NodeId, a: Value, b: Value) -> bool {
    let own = |v: Value| is_product(f, v) && f.use_count(v) == 1;
    let subtracted = own(b);
    if !subtracted && !own(a) {
        return false;
    }
    let changed = match f.node(b.node).operands() {
        [x, _] if subtracted => *x,
        _ => b,
    };
    let (origin, numerics) = (f.node(id).origin.clone(), f.node(id).numerics);
    let mut builder = Builder { function: f, origin, numerics };
    let Ok(negative) = builder.unary(UnaryOp::Neg, changed) else { return false };
    let (first, second) = if subtracted { (b, a) } else { (a, negative) };
    let Ok(sum) = builder.binary(BinaryOp::Add, first, second) else { return false };
    if subtracted {
        f.set_operand(b.node, 0, negative);
    }
    f.replace_uses(Value { node: id, result: 0 }, sum);
    f.remove_op(id);
    true
}

fn is_product(f: &Function, value: Value) -> bool {
    let node = f.node(value.node);
    let float = f.ty(value).tensor().is_some_and(|t| matches!(t.dtype, DType::F32 | DType::F64));
    node.op == Op::Binary(BinaryOp::Mul) && node.numerics.contract && float
}

fn is_view(op: &Op) -> bool {
    matches!(op, Op::Reshape { .. } | Op::Transpose { .. } | Op::Slice { .. })
}

/// What a view shows.
fn viewed(f: &Function, value: Value) -> Value {
    let node = f.node(value.node);
    match node.operands() {
        [x] if is_view(&node.op) => viewed(f, *x),
        _ => value,
    }
}

/// Whether all that uses a value, perhaps through views, are sums with leave to contract.
fn only_summed(f: &Function, value: Value) -> bool {
    let uses = f.uses(value);
    !uses.is_empty()
        && uses.into_iter().all(|(user, _)| {
            let node = f.node(user);
            match &node.op {
                Op::Reduce { kind: ReduceKind::Sum, .. } => node.numerics.contract,
                op => is_view(op) && only_summed(f, Value { node: user, result: 0 }),
            }
        })
}

/// Whether a value is a product, or a choice of one almost everywhere, that nothing else uses.
fn is_own(f: &Function, value: Value) -> bool {
    if f.use_count(value) != 1 {
        return false;
    }
    let node = f.node(value.node);
    match (&node.op, node.operands()) {
        (Op::Select { likely }, [_, usual, _]) if likely.0 => is_own(f, *usual),
        _ => is_product(f, value),
    }
}

/// Whether a value rounds together with a sum that takes it, after [`settle`]: it is computed where that is.
pub(super) fn rounds_with_user(f: &Function, value: Value) -> bool {
    f.uses(value).into_iter().any(|(user, operand)| match &f.node(user).op {
        Op::Binary(BinaryOp::Add) => operand == 0 && f.node(user).numerics.contract,
        Op::Select { likely } => likely.0 && operand == 1 && rounds_with_user(f, Value { node: user, result: 0 }),
        _ => false,
    })
}
