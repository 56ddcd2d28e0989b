//! Host lists. A negative position counts from the end.

use std::rc::Rc;

use super::array::Array;
use super::item::Item;
use super::{Cx, EvalError, Evaluated};

fn items<'a>(cx: &'a Cx<'_>) -> Result<&'a Rc<Vec<Item>>, EvalError> {
    match cx.operand(0)? {
        Item::Sequence(items) => Ok(items),
        other => Err(cx.bad_operand(0, format!("is {}, not a sequence", other.kind()))),
    }
}

/// Operand `operand` as a position below `end`, in a list of `length`.
fn position(cx: &Cx<'_>, operand: usize, length: usize, end: usize) -> Result<usize, EvalError> {
    let given = cx.scalar(operand)?;
    let from_start = if given < 0 { given + length as i128 } else { given };
    if (0..end as i128).contains(&from_start) {
        Ok(from_start as usize)
    } else {
        Err(cx.outside(operand, given, length))
    }
}

pub(super) fn length(cx: &Cx<'_>) -> Evaluated {
    Ok(Array::index(i64::try_from(items(cx)?.len()).unwrap_or(i64::MAX)))
}

pub(super) fn at(cx: &Cx<'_>) -> Result<Vec<Item>, EvalError> {
    let list = items(cx)?;
    Ok(vec![list[position(cx, 1, list.len(), list.len())?].clone()])
}

pub(super) fn insert(cx: &Cx<'_>) -> Result<Vec<Item>, EvalError> {
    let mut list = items(cx)?.to_vec();
    // One past the last is a place too.
    let before = position(cx, 2, list.len(), list.len() + 1)?;
    list.insert(before, cx.operand(1)?.clone());
    Ok(vec![Item::Sequence(Rc::new(list))])
}

pub(super) fn erase(cx: &Cx<'_>) -> Result<Vec<Item>, EvalError> {
    let mut list = items(cx)?.to_vec();
    list.remove(position(cx, 1, list.len(), list.len())?);
    Ok(vec![Item::Sequence(Rc::new(list))])
}
