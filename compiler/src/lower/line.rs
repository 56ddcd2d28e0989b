//! What a row computes more than once is kept: a line of memory of the row's length, in the first level of the cache.
//!
//! A row is passed over several times, once for each level of its reductions and once for its outputs (softmax: the
//! largest, the sum of exponentials, the quotients). A value that two passes need is stored by the first and loaded by
//! the others where computing it again costs more than that.

use std::collections::HashSet;

use frit_ir::{DType, Dim, Op, OpClass, Value};
use frit_passes::fuse::op_cost;

use super::LowerError;
use super::emit::Emitter;
use crate::kernel::{BufferId, Reg, Role, Stmt};

/// Cost of what is worth a store and a load; [`op_cost`]'s unit.
const WORTH: f64 = 5.0;
/// Bytes that the lines of a kernel may take.
const ROOM: i64 = 16 << 10;

/// One pass over a row: the values that it computes at each position.
pub(crate) struct Pass {
    pub(crate) roots: Vec<Value>,
}

/// The lines of a row, and the pass that is being written.
#[derive(Default)]
pub(crate) struct Lines {
    /// Extents of the values that are kept.
    dims: Vec<Dim>,
    /// What passes store, by pass.
    wanted: Vec<Vec<(Value, BufferId)>>,
    /// What passes before this one stored.
    kept: Vec<(Value, BufferId)>,
    /// What this one still has to store.
    open: Vec<(Value, BufferId)>,
    /// What this one has stored.
    stored: Vec<(Value, BufferId)>,
    /// Index of the elements of this pass, and their position in the row.
    at: Option<(Vec<Dim>, Dim)>,
}

impl Lines {
    fn find(list: &[(Value, BufferId)], value: Value) -> Option<BufferId> {
        list.iter().find(|(v, _)| *v == value).map(|(_, buffer)| *buffer)
    }

    /// Whether a value is computed on its own because it is, or will be, in a line.
    pub(crate) fn holds(&self, value: Value) -> bool {
        self.at.is_some() && (Self::find(&self.kept, value).or_else(|| Self::find(&self.open, value))).is_some()
    }
}

impl Emitter<'_> {
    /// Chooses what the passes of a row of `length` elements keep. Their values have the extents `dims`.
    pub(crate) fn plan_lines(&mut self, passes: &[Pass], dims: &[Dim], length: i64) -> Result<(), LowerError> {
        let mut lines = Lines { dims: dims.to_vec(), wanted: vec![Vec::new(); passes.len()], ..Lines::default() };
        let order = self.body.toposort().ok_or_else(|| LowerError::Internal("a cycle in a fused body".to_owned()))?;
        let mut kept: HashSet<Value> = HashSet::new();
        let mut room = ROOM;
        for (i, pass) in passes.iter().enumerate() {
            let Some(further) = passes.get(i + 1..).filter(|p| !p.is_empty()) else { break };
            let later = |e: &mut Self, kept: &HashSet<Value>| -> Result<HashSet<Value>, LowerError> {
                let mut all = HashSet::new();
                for pass in further {
                    all.extend(e.reached(&pass.roots, kept, dims)?);
                }
                Ok(all)
            };
            let here = self.reached(&pass.roots, &kept, dims)?;
            let mut needed = later(self, &kept)?;
            for value in order.iter().rev().map(|&node| Value { node, result: 0 }).filter(|v| here.contains(v)) {
                let dtype = self.tensor(value)?.dtype;
                let bytes = length.saturating_mul(dtype.size() as i64);
                let fits = matches!(dtype, DType::F32 | DType::F64) && bytes <= room;
                if kept.contains(&value) || !needed.contains(&value) || !fits {
                    continue;
                }
                let cone = self.reached(&[value], &kept, dims)?;
                if cone.iter().map(|v| self.cost(*v)).sum::<f64>() < WORTH {
                    continue;
                }
                room -= bytes;
                kept.insert(value);
                let buffer = self.kb.buffer("line", dtype, Dim::Known(length), Role::Local);
                lines.wanted[i].push((value, buffer));
                needed = later(self, &kept)?;
            }
        }
        self.lines = lines;
        Ok(())
    }

    /// What an op of a pass costs: a reduction in it is written out, an operand and a step for each element.
    fn cost(&self, value: Value) -> f64 {
        let node = self.body.node(value.node);
        let own = op_cost(node).max(1.0);
        let (Op::Reduce { axes, .. }, [x]) = (&node.op, node.operands()) else { return own };
        let extents = self.body.ty(*x).tensor().map_or(&[][..], |t| &t.dims);
        let count = Dim::product(axes.iter().filter_map(|&a| extents.get(a))).known().unwrap_or(1);
        own.max(2.0 * count as f64)
    }

    /// Values at the positions of a pass that `roots` are computed from, down to what is kept or no elementwise op.
    /// Leaves that cost a load are among them.
    fn reached(&mut self, roots: &[Value], kept: &HashSet<Value>, dims: &[Dim]) -> Result<HashSet<Value>, LowerError> {
        let (mut seen, mut open) = (HashSet::new(), roots.to_vec());
        while let Some(value) = open.pop() {
            let node = self.body.node(value.node);
            let inside = matches!(self.body.ty(value), frit_ir::ValueType::Tensor(_)) && self.dims(value)? == dims;
            // What repeats is loaded, or computed, outside of the loop.
            let repeats = node.op.class() == OpClass::Movement && !self.is_kept(value);
            if !inside || repeats || !seen.insert(value) || kept.contains(&value) || self.is_kept(value) {
                continue;
            }
            if node.op.class() == OpClass::Elementwise {
                open.extend(node.operands());
            }
        }
        Ok(seen)
    }

    /// Begins a pass: elements at `index` lie at `position` of the row.
    pub(crate) fn begin_pass(&mut self, pass: usize, index: Vec<Dim>, position: Dim) {
        self.lines.open = self.lines.wanted.get(pass).cloned().unwrap_or_default();
        self.lines.at = Some((index, position));
    }

    /// Ends a pass: what it stored can be loaded.
    pub(crate) fn end_pass(&mut self) {
        self.lines.at = None;
        self.lines.open.clear();
        let stored = std::mem::take(&mut self.lines.stored);
        self.lines.kept.extend(stored);
    }

    /// A value from its line.
    pub(crate) fn line_load(&mut self, value: Value, index: &[Dim]) -> Option<Reg> {
        let position = self.lines.at.as_ref().filter(|(at, _)| at == index)?.1.clone();
        let buffer = Lines::find(&self.lines.kept, value)?;
        Some(self.kb.load(buffer, position))
    }

    /// Stores a value into its line, where this pass has to.
    pub(crate) fn line_store(&mut self, value: Value, index: &[Dim], reg: Reg) {
        let Some((_, position)) = self.lines.at.as_ref().filter(|(at, _)| at == index) else { return };
        let Some(i) = self.lines.open.iter().position(|(v, _)| *v == value) else { return };
        let (value, buffer) = self.lines.open.remove(i);
        self.kb.push(Stmt::Store { buffer, index: position.clone(), value: reg });
        self.lines.stored.push((value, buffer));
    }

    /// Whether values of these extents may be kept.
    pub(crate) fn keeps(&self, dims: &[Dim]) -> bool {
        !self.lines.dims.is_empty() && self.lines.dims == dims
    }
}
