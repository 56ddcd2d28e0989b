//! Which ops a product does to its result itself, as it stores it.
//!
//! In: a function after fusion. Out: for each fusion that is nothing but a bias and bounds of one product, the product
//! and what they are. The call of the library then takes the fusion's place, so that the result is written once.
//!
//! A product is only taken along where nothing else reads it, and the bias where it has one element for each column of the
//! product (its last axes, those of the right operand), the same for all rows and matrices. The library rounds each op
//! on its own, after the whole sum: the bits are those of the ops. A result that is written over a donated input stays a
//! kernel's, since a product may not write over what it reads.

use std::collections::{HashMap, HashSet};

use frit_ir::{BinaryOp, DType, Dim, Function, NodeId, Op, Tensor, Value};

use super::super::Epilogue;
use super::library::{free_count, is_library_product};
use super::{BuildError, Building, PlanBuilder, Slots};

/// A bias.
#[derive(Clone, Debug)]
pub(super) enum Bias {
    /// A value of the function.
    Value(Value),
    /// A constant that the fusion has taken in.
    Constant(Tensor),
}

/// What follows a product.
#[derive(Clone, Debug)]
pub(super) struct Following {
    /// The product.
    pub(super) product: NodeId,
    /// One element for each column.
    pub(super) bias: Option<Bias>,
    /// What is done, in the order of its fields.
    pub(super) epilogue: Epilogue,
}

/// The products of a function that wait for what follows them.
#[derive(Default)]
pub(super) struct Epilogues {
    followed: HashMap<NodeId, Following>,
    waiting: HashSet<NodeId>,
}

impl Epilogues {
    pub(super) fn of(f: &Function) -> Epilogues {
        let donated: HashSet<Value> =
            f.donations.iter().filter_map(|d| f.outputs().get(d.output)).map(|o| o.value).collect();
        let mut found = Epilogues::default();
        for id in f.nodes() {
            if donated.contains(&Value { node: id, result: 0 }) {
                continue;
            }
            if let Some(following) = following(f, id) {
                found.waiting.insert(following.product);
                found.followed.insert(id, following);
            }
        }
        found
    }

    /// What a fusion does to a product, if that is all it does.
    pub(super) fn of_fusion(&self, id: NodeId) -> Option<&Following> {
        self.followed.get(&id)
    }

    /// Whether a product is computed in the place of the fusion behind it.
    pub(super) fn waits(&self, id: NodeId) -> bool {
        self.waiting.contains(&id)
    }
}

impl PlanBuilder<'_> {
    /// Steps for every op of a function or of a body that is written out.
    pub(super) fn steps(&mut self, b: &mut Building, f: &Function, slots: &mut Slots) -> Result<(), BuildError> {
        let around = std::mem::replace(&mut b.epilogues, Epilogues::of(f));
        let done = self.steps_in_order(b, f, slots);
        b.epilogues = around;
        done
    }
}

/// The bounds met so far, from the result up.
#[derive(Default)]
struct Bounds {
    lower: Option<f64>,
    upper: Option<f64>,
}

impl Bounds {
    /// Adds a bound that is applied before those that are known; false where the two ops of an epilogue can't say it.
    fn add(&mut self, op: BinaryOp, bound: f64) -> bool {
        match op {
            BinaryOp::Max if self.lower.is_none() => self.lower = Some(bound),
            // The lower bound is applied first; the order is all one where they leave something between them.
            BinaryOp::Min if self.upper.is_none() && self.lower.is_none_or(|lower| lower <= bound) => {
                self.upper = Some(bound);
            }
            _ => return false,
        }
        true
    }
}

fn following(f: &Function, id: NodeId) -> Option<Following> {
    let node = f.node(id);
    let (Op::Fusion {}, [region]) = (&node.op, node.regions()) else { return None };
    let [output] = region.outputs() else { return None };
    let outside: HashMap<Value, Value> = region.input_values().zip(node.operands().iter().copied()).collect();
    let product = |value: Value| -> Option<NodeId> {
        let of = *outside.get(&value)?;
        let lone = f.use_count(of) == 1 && is_library_product(f, of.node);
        lone.then_some(of.node)
    };
    let (mut at, mut bounds) = (output.value, Bounds::default());
    loop {
        if let Some(product) = product(at) {
            let epilogue = Epilogue { bias: false, lower: bounds.lower, upper: bounds.upper };
            let does = epilogue.lower.is_some() || epilogue.upper.is_some();
            return (does && epilogue.is_sound()).then_some(Following { product, bias: None, epilogue });
        }
        let (op, operands) = match region.op(at) {
            Op::Binary(op) => (*op, region.node(at.node).operands()),
            _ => return None,
        };
        let &[left, right] = operands else { return None };
        match op {
            BinaryOp::Add => {
                let (product, added) =
                    product(left).map(|p| (p, right)).or_else(|| product(right).map(|p| (p, left)))?;
                let row = per_column(region, added, free_count(f, product)?)?;
                let bias = match region.op(row) {
                    Op::Constant { value } => Bias::Constant(value.clone()),
                    _ => {
                        let value = *outside.get(&row)?;
                        let constant = matches!(f.op(value), Op::Param { .. } | Op::Constant { .. });
                        // One row for one may be a state that the result is written over; what is spread out can't be.
                        if !constant && f.ty(value) == f.ty(Value { node: id, result: 0 }) {
                            return None;
                        }
                        Bias::Value(value)
                    }
                };
                let epilogue = Epilogue { bias: true, lower: bounds.lower, upper: bounds.upper };
                return epilogue.is_sound().then_some(Following { product, bias: Some(bias), epilogue });
            }
            BinaryOp::Max | BinaryOp::Min => {
                let (bound, rest) =
                    number(region, right).map(|n| (n, left)).or_else(|| number(region, left).map(|n| (n, right)))?;
                if !bounds.add(op, bound) {
                    return None;
                }
                at = rest;
            }
            _ => return None,
        }
    }
}

/// The input or constant of the region that a value repeats, element by element along its last `count` axes; the other axes do not
/// change it.
fn per_column(region: &Function, value: Value, count: usize) -> Option<Value> {
    let dims = &region.ty(value).tensor()?.dims;
    let first = dims.len().checked_sub(count)?;
    let (mut at, elements) = match region.op(value) {
        Op::Broadcast { axes, .. } => {
            let operand = *region.node(value.node).operands().first()?;
            let from = &region.ty(operand).tensor()?.dims;
            let kept = |axis: usize| axes.iter().zip(from).any(|(a, from)| *a == axis && *from == dims[axis]);
            // Every axis of a row is there, in order, and nothing else.
            let whole = (first..dims.len()).all(|axis| dims[axis] == Dim::ONE || kept(axis));
            let alone = axes.iter().zip(from).all(|(axis, from)| *axis >= first || *from == Dim::ONE);
            if !whole || !alone || !axes.is_sorted() {
                return None;
            }
            (operand, Dim::product(from))
        }
        _ => (value, Dim::product(dims)),
    };
    if elements != Dim::product(&dims[first..]) {
        return None;
    }
    // A reshape keeps the order of elements.
    while let Op::Reshape { .. } = region.op(at) {
        at = *region.node(at.node).operands().first()?;
    }
    matches!(region.op(at), Op::Input { .. } | Op::Constant { .. }).then_some(at)
}

/// The one number that a value repeats.
fn number(region: &Function, value: Value) -> Option<f64> {
    match region.op(value) {
        Op::Constant { value } => only_number(value),
        Op::Broadcast { .. } | Op::Reshape { .. } => number(region, *region.node(value.node).operands().first()?),
        _ => None,
    }
}

fn only_number(value: &Tensor) -> Option<f64> {
    match value.dtype() {
        DType::F32 => <[u8; 4]>::try_from(value.bytes()).ok().map(|b| f64::from(f32::from_le_bytes(b))),
        DType::F64 => <[u8; 8]>::try_from(value.bytes()).ok().map(f64::from_le_bytes),
        _ => None,
    }
}
