//! Lookups that repeat each element in order: views, which cost index arithmetic and need no check.
//!
//! Resizing to the nearest element by whole factors is a gather with such a table.

use frit_ir::types::Dim;
use frit_ir::{NodeId, Op, Tensor, Value};

use super::movement::{TypeErrorOf, input};
use super::{Outcome, Rule, Scope, found};

pub(super) static RULES: &[Rule] = &[
    rule!("gather-repeats", "gather(x, floor(i / k)) = reshape(broadcast(x, k times))",
        "constant indices of rank 1: each of the axis k times, in order", Strict Algebra Bits, repeats, |b| {
        let x = input(b, &[2, 3, 4]);
        let i = b.constant(Tensor::i64(&[6], &[0, 0, 1, 1, 2, 2]).map_err(|e| TypeErrorOf(e.to_string()).into_error())?)?;
        Ok(vec![b.op(Op::Gather { axis: 1 }, &[x, i])?])
    }),
];

/// A lookup by constant indices of rank 1.
struct Lookup {
    x: Value,
    axis: usize,
    /// Elements along the axis.
    extent: i64,
    indices: Vec<i64>,
}

impl Lookup {
    fn of(s: &Scope<'_>, id: NodeId) -> Option<Lookup> {
        let (Op::Gather { axis }, Some(x), Some(i)) = (&s.f.node(id).op, s.operand(id, 0), s.operand(id, 1)) else {
            return None;
        };
        let table = s.constant(i).filter(|t| t.shape().len() == 1 && t.numel() > 1)?;
        let extent = s.dims(x).get(*axis)?.known()?;
        let indices = table.to_i64s()?;
        let inside = indices.iter().all(|i| (0..extent).contains(i));
        inside.then_some(Lookup { x, axis: *axis, extent, indices })
    }
}

fn repeats(s: &Scope<'_>, id: NodeId) -> Outcome {
    let Some(Lookup { x, axis, extent, indices }) = Lookup::of(s, id) else { return Outcome::No };
    let times = indices.len() as i64 / extent.max(1);
    let whole = times > 1 && times * extent == indices.len() as i64;
    if !whole || indices.iter().zip(0..).any(|(&i, place)| i != place / times) {
        return Outcome::No;
    }
    let mut dims = s.dims(x).to_vec();
    let mut result = dims.clone();
    result[axis] = Dim::from(indices.len());
    dims.insert(axis + 1, Dim::Known(times));
    let axes = (0..dims.len()).filter(|&a| a != axis + 1).collect();
    found([], move |b| {
        let repeated = b.op(Op::Broadcast { dims, axes }, &[x])?;
        b.reshape(repeated, result)
    })
}
