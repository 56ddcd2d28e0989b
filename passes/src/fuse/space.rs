//! The shape of a kernel: which loops a group of ops runs in (F1 to F8 of [`super`]).
//!
//! In: a function, some of its ops in dependency order, the values that leave the group. Out: the space and a place for
//! each op, or a [`Refusal`]. The answer depends on nothing else, so the pass that forms groups and the compiler that
//! lowers them agree by construction.

use std::collections::BTreeMap;

use frit_ir::types::{DType, Dim};
use frit_ir::{Function, Node, NodeId, Op, ReduceKind, TensorType, Value};

use super::{MOST_PIECES, SMALL_CONSTANT, SMALL_REDUCE, SPLIT_ABOVE};

/// A run of kept or reduced extents of the space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Factor {
    /// Whether the reduces run over it.
    pub reduced: bool,
    /// Its extent, not 1.
    pub extent: Dim,
}

/// The space of a row kernel (F5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space {
    /// Alternating kept and reduced extents, outermost first.
    pub factors: Vec<Factor>,
    /// X: product of the kept factors.
    pub rows: Dim,
    /// R: product of the reduced factors.
    pub reduced: Dim,
    /// Whether the reduces are split in tiles (F8).
    pub split: bool,
    /// The reduces that run over the space, in order of dependence.
    pub sections: Vec<NodeId>,
}

impl Space {
    /// Whether the elements of a row are neighbours.
    pub fn is_trailing(&self) -> bool {
        are_trailing(&self.factors)
    }
}

fn are_trailing(factors: &[Factor]) -> bool {
    matches!(factors, [Factor { reduced: true, .. }] | [Factor { reduced: false, .. }, Factor { reduced: true, .. }])
}

/// Whether a reduce over some axes runs over neighbours: [`Space::is_trailing`] of its space.
pub fn reduces_neighbours(dims: &[Dim], axes: &[usize]) -> bool {
    are_trailing(&factors(dims.iter().enumerate().map(|(i, d)| (d, axes.contains(&i)))))
}

/// Where a value is computed (F6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Needs no section: anywhere.
    Free,
    /// Needs a section, one value a row.
    Row,
    /// Needs a section, one value per row and reduced element.
    Full,
}

/// The loops of a kernel and where each of its ops stands in them.
#[derive(Clone, Debug)]
pub struct KernelShape {
    /// The space of a row kernel; `None` for a map kernel (F4).
    pub space: Option<Space>,
    /// The place of each op; in a map kernel all are free.
    pub places: BTreeMap<NodeId, Place>,
}

/// Why ops don't make one kernel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// F1: an op that no kernel body holds.
    #[error("`{0}` is never part of a fused kernel")]
    Op(&'static str),
    /// Nothing to compute, or an output that the group does not compute.
    #[error("the group computes nothing")]
    Empty,
    /// The region has a cycle.
    #[error("the region has a cycle")]
    Cycle,
    /// F4: outputs of different sizes.
    #[error("outputs of {0} and of {1} elements")]
    Counts(Dim, Dim),
    /// F5: a second long reduce over other extents.
    #[error("reduces over {0} and over {1}")]
    Reduces(String, String),
    /// F6: a value that needs a section is moved so that it no longer lines up with the rows.
    #[error("`{0}` moves a reduced value out of its row")]
    Moved(&'static str),
    /// F7: an output that is neither full nor a row.
    #[error("an output of {0} elements in a kernel of {1} rows of {2}")]
    Output(Dim, Dim, Dim),
    /// F8: something needs the result of a split reduce.
    #[error("`{op}` needs the whole reduction of {elements} elements first")]
    Barrier {
        /// What needs it.
        op: &'static str,
        /// How many are reduced.
        elements: Dim,
    },
}

fn result_type(node: &Node) -> Option<&TensorType> {
    match node.results() {
        [ty] => ty.tensor(),
        _ => None,
    }
}

/// Whether a kernel body may hold the op (F1).
pub fn is_fusable(f: &Function, id: NodeId) -> bool {
    let node = f.node(id);
    let allowed = match &node.op {
        Op::Unary(_)
        | Op::Binary(_)
        | Op::Select { .. }
        | Op::Cast { .. }
        | Op::Bitcast { .. }
        | Op::Iota { .. }
        | Op::DimValue { .. }
        | Op::Broadcast { .. }
        | Op::Reshape { .. }
        | Op::Transpose { .. }
        | Op::Slice { .. }
        | Op::Pad { .. }
        | Op::Window { .. }
        | Op::Gather { .. }
        | Op::Reduce { .. } => true,
        Op::Constant { value } => value.numel() <= SMALL_CONSTANT,
        // As many loops as pieces, and as many addresses to keep.
        Op::Concat { .. } => node.operands().len() <= MOST_PIECES,
        Op::Input { .. }
        | Op::Param { .. }
        | Op::DynamicSlice { .. }
        | Op::UpdateSlice {}
        | Op::Scatter { .. }
        | Op::Cumulate { .. }
        | Op::Sort { .. }
        | Op::DotGeneral { .. }
        | Op::Conv { .. }
        | Op::ConvTranspose { .. }
        | Op::Compact { .. }
        | Op::If {}
        | Op::Loop { .. }
        | Op::Call { .. }
        | Op::Composite { .. }
        | Op::Fusion {}
        | Op::Vjp { .. }
        | Op::Assert { .. }
        | Op::SequenceConstruct { .. }
        | Op::SequenceAt { .. }
        | Op::SequenceInsert {}
        | Op::SequenceErase {}
        | Op::SequenceLength {}
        | Op::Absent {}
        | Op::Onnx { .. } => false,
    };
    let numeric = |ty: &TensorType| ty.dtype != DType::Str;
    allowed
        && result_type(node).is_some_and(numeric)
        && node.operands().iter().all(|v| f.ty(*v).tensor().is_some_and(numeric))
}

/// Extents of 1 dropped, neighbours of one kind joined.
fn factors<'a>(dims: impl IntoIterator<Item = (&'a Dim, bool)>) -> Vec<Factor> {
    let mut joined: Vec<Factor> = Vec::new();
    for (extent, reduced) in dims {
        if *extent == Dim::ONE {
            continue;
        }
        match joined.last_mut() {
            Some(last) if last.reduced == reduced => last.extent = &last.extent * extent,
            _ => joined.push(Factor { reduced, extent: extent.clone() }),
        }
    }
    joined
}

fn text(factors: &[Factor]) -> String {
    let parts: Vec<String> =
        factors.iter().map(|f| if f.reduced { format!("({})", f.extent) } else { f.extent.to_string() }).collect();
    format!("[{}]", parts.join(", "))
}

/// The factors of a reduce: its operand's dims, split by its axes.
fn reduce_factors(f: &Function, node: &Node, axes: &[usize]) -> Vec<Factor> {
    let Some(ty) = node.operands().first().and_then(|v| f.ty(*v).tensor()) else { return Vec::new() };
    factors(ty.dims.iter().enumerate().map(|(i, d)| (d, axes.contains(&i))))
}

/// Elements that a reduce combines, when all its extents are known.
fn reduced_count(f: &Function, node: &Node, axes: &[usize]) -> Option<i64> {
    let ty = f.ty(*node.operands().first()?).tensor()?;
    Dim::product(axes.iter().filter_map(|&a| ty.dims.get(a))).known()
}

pub(super) fn is_small(f: &Function, node: &Node, axes: &[usize]) -> bool {
    reduced_count(f, node, axes).is_some_and(|n| n <= SMALL_REDUCE)
}

fn numel(f: &Function, value: Value) -> Dim {
    f.ty(value).tensor().map_or(Dim::ZERO, TensorType::numel)
}

/// The shape of the kernel that a `fusion` body becomes.
pub fn kernel_shape(body: &Function) -> Result<KernelShape, Refusal> {
    let inputs = body.inputs();
    let members: Vec<NodeId> =
        body.toposort().ok_or(Refusal::Cycle)?.into_iter().filter(|id| !inputs.contains(id)).collect();
    let outputs: Vec<Value> = body.outputs().iter().map(|o| o.value).collect();
    kernel_shape_of(body, &members, &outputs)
}

/// The shape of the kernel that `members` (in dependency order) of a function become when `outputs` leave it.
pub fn kernel_shape_of(f: &Function, members: &[NodeId], outputs: &[Value]) -> Result<KernelShape, Refusal> {
    if let Some(&id) = members.iter().find(|id| !is_fusable(f, **id)) {
        return Err(Refusal::Op(f.node(id).op.name()));
    }
    if outputs.is_empty() || outputs.iter().any(|v| !members.contains(&v.node)) {
        return Err(Refusal::Empty);
    }
    if let Some((anchor, axes)) = long_reduce(f, members) {
        return rows(f, members, outputs, reduce_factors(f, f.node(anchor), &axes), false);
    }
    // A short reduce that is repeated along its axes again (softmax over 10 classes) would be written out for each of
    // them: as rows, it is computed once.
    if let Some((anchor, axes)) = repeated_reduce(f, members)
        && let Ok(shape) = rows(f, members, outputs, reduce_factors(f, f.node(anchor), &axes), true)
    {
        return Ok(shape);
    }
    let count = numel(f, outputs[0]);
    match outputs.iter().map(|v| numel(f, *v)).find(|n| *n != count) {
        Some(other) => Err(Refusal::Counts(count, other)),
        None => Ok(KernelShape { space: None, places: members.iter().map(|id| (*id, Place::Free)).collect() }),
    }
}

fn long_reduce(f: &Function, members: &[NodeId]) -> Option<(NodeId, Vec<usize>)> {
    members.iter().find_map(|&id| match &f.node(id).op {
        Op::Reduce { axes, .. } if !is_small(f, f.node(id), axes) => Some((id, axes.clone())),
        _ => None,
    })
}

/// The reduce nearest above the first broadcast that repeats a reduced value.
fn repeated_reduce(f: &Function, members: &[NodeId]) -> Option<(NodeId, Vec<usize>)> {
    let mut nearest: BTreeMap<NodeId, NodeId> = BTreeMap::new();
    for &id in members {
        let node = f.node(id);
        if let Op::Reduce { axes, .. } = &node.op
            && reduced_count(f, node, axes).is_some_and(|n| n > 1)
        {
            nearest.insert(id, id);
            continue;
        }
        let Some(&reduce) = node.operands().iter().find_map(|v| nearest.get(&v.node)) else { continue };
        if let (Op::Broadcast { .. }, Some(&operand)) = (&node.op, node.operands().first())
            && numel(f, operand) != numel(f, Value { node: id, result: 0 })
            && let Op::Reduce { axes, .. } = &f.node(reduce).op
        {
            return Some((reduce, axes.clone()));
        }
        nearest.insert(id, reduce);
    }
    None
}

fn rows(
    f: &Function,
    members: &[NodeId],
    outputs: &[Value],
    factors: Vec<Factor>,
    short: bool,
) -> Result<KernelShape, Refusal> {
    let product = |reduced: bool| Dim::product(factors.iter().filter(|p| p.reduced == reduced).map(|p| &p.extent));
    let (rows, reduced) = (product(false), product(true));
    let split = rows == Dim::ONE && reduced.known().is_none_or(|r| r > SPLIT_ABOVE);
    let mut space = Space { factors, rows, reduced, split, sections: Vec::new() };
    let mut places: BTreeMap<NodeId, Place> = BTreeMap::new();
    for &id in members {
        let place = place(f, id, &mut space, &places, short)?;
        places.insert(id, place);
    }
    let full = &space.rows * &space.reduced;
    for output in outputs {
        let count = numel(f, *output);
        let fits = match places.get(&output.node) {
            Some(Place::Row | Place::Full) => true,
            Some(Place::Free) | None => {
                let grouped = || (2..=SMALL_REDUCE).any(|n| &count * &Dim::Known(n) == full);
                count == full || count == space.rows || (space.is_trailing() && grouped())
            }
        };
        if !fits {
            return Err(Refusal::Output(count, space.rows, space.reduced));
        }
    }
    Ok(KernelShape { space: Some(space), places })
}

fn place(
    f: &Function,
    id: NodeId,
    space: &mut Space,
    places: &BTreeMap<NodeId, Place>,
    short: bool,
) -> Result<Place, Refusal> {
    let node = f.node(id);
    let name = node.op.name();
    let of = |v: &Value| places.get(&v.node).copied().unwrap_or(Place::Free);
    // Elementwise operands agree, or one is free: the first that is not free decides.
    let dependent: Vec<Place> = node.operands().iter().map(of).filter(|p| *p != Place::Free).collect();
    let same_count =
        || node.operands().first().is_some_and(|v| numel(f, *v) == numel(f, Value { node: id, result: 0 }));
    let found = match &node.op {
        Op::Reduce { axes, .. } => {
            let own = reduce_factors(f, node, axes);
            let small = is_small(f, node, axes);
            match dependent.first() {
                _ if own == space.factors && (short || !small) => {
                    if dependent.first() == Some(&Place::Row) {
                        return Err(Refusal::Moved(name));
                    }
                    if space.split && !dependent.is_empty() {
                        return Err(Refusal::Barrier { op: name, elements: space.reduced.clone() });
                    }
                    space.sections.push(id);
                    Place::Row
                }
                _ if !small => return Err(Refusal::Reduces(text(&space.factors), text(&own))),
                None => Place::Free,
                // Over extents of 1: only the shape changes, except that an index is not the value.
                Some(&place) if same_count() && !is_index(&node.op) => place,
                Some(_) => return Err(Refusal::Moved(name)),
            }
        }
        _ if dependent.is_empty() => Place::Free,
        Op::Unary(_) | Op::Binary(_) | Op::Select { .. } | Op::Cast { .. } | Op::Bitcast { .. } => {
            match dependent.split_first() {
                Some((first, rest)) if rest.iter().all(|p| p == first) => *first,
                _ => return Err(Refusal::Moved(name)),
            }
        }
        Op::Reshape { .. } => dependent[0],
        Op::Transpose { perm } if moves_only_ones(f, node, perm) => dependent[0],
        Op::Broadcast { .. } if same_count() => dependent[0],
        Op::Broadcast { dims, axes } if dependent[0] == Place::Row && repeats_rows(f, node, dims, axes, space) => {
            Place::Full
        }
        _ => return Err(Refusal::Moved(name)),
    };
    if space.split && found == Place::Full {
        return Err(Refusal::Barrier { op: name, elements: space.reduced.clone() });
    }
    Ok(found)
}

fn is_index(op: &Op) -> bool {
    matches!(op, Op::Reduce { kind: ReduceKind::ArgMin | ReduceKind::ArgMax, .. })
}

/// Whether a transpose leaves the axes that are not 1 in their order.
pub(crate) fn keeps_order(dims: &[Dim], perm: &[usize]) -> bool {
    let real: Vec<usize> = perm.iter().copied().filter(|&p| dims.get(p) != Some(&Dim::ONE)).collect();
    real.windows(2).all(|w| w[0] < w[1])
}

fn moves_only_ones(f: &Function, node: &Node, perm: &[usize]) -> bool {
    node.operands().first().and_then(|v| f.ty(*v).tensor()).is_some_and(|ty| keeps_order(&ty.dims, perm))
}

/// Whether a broadcast repeats a row value along exactly the reduced factors. An extent that may or may not be 1 at run
/// time is not known to repeat.
fn repeats_rows(f: &Function, node: &Node, dims: &[Dim], axes: &[usize], space: &Space) -> bool {
    let Some(from) = node.operands().first().and_then(|v| f.ty(*v).tensor()) else { return false };
    let mut tagged = Vec::with_capacity(dims.len());
    for (axis, extent) in dims.iter().enumerate() {
        let operand = axes.iter().position(|&a| a == axis).and_then(|i| from.dims.get(i));
        match operand {
            Some(d) if d == extent => tagged.push((extent, false)),
            None | Some(Dim::Known(1)) => tagged.push((extent, true)),
            Some(_) => return false,
        }
    }
    factors(tagged) == space.factors
}
