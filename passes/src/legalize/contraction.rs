//! Products summed: matrix products, Gemm, Einsum.
//!
//! 16-bit floats are multiplied and summed in f32 and rounded once, as ONNX Runtime does.

use frit_ir::builder::broadcast_shapes;
use frit_ir::{BinaryOp, DType, Dim, Op, Value};

use super::context::{Ctx, Results};
use super::error::{Fail, Ruled, invalid, unsupported};
use super::table::{Row, onnx};

pub(super) const TABLE: &[Row] = &[
    onnx("Det", det),
    onnx("Einsum", einsum),
    onnx("Gemm", gemm),
    onnx("MatMul", |c| {
        let (a, b) = (c.x(0)?, c.x(1)?);
        Ok(vec![matmul(c, a, b)?])
    }),
    onnx("MatMulInteger", matmul_integer),
];

/// A `dot_general` in f32 (16-bit floats) or the operands' own type, rounded to it.
pub(super) fn product(
    c: &mut Ctx,
    (a, b): (Value, Value),
    batch: [Vec<usize>; 2],
    contract: [Vec<usize>; 2],
) -> Ruled<Value> {
    let dtype = c.dtype(a)?;
    let [lhs_batch, rhs_batch] = batch;
    let [lhs_contract, rhs_contract] = contract;
    let op = Op::DotGeneral { lhs_batch, rhs_batch, lhs_contract, rhs_contract, accumulate: c.wide(dtype) };
    let y = c.op(op, &[a, b])?;
    c.to(y, dtype)
}

/// NumPy's matmul: vectors are rows (left) or columns (right), outer axes broadcast.
pub(super) fn matmul(c: &mut Ctx, a: Value, b: Value) -> Ruled<Value> {
    let (left, right) = (c.shape(a)?, c.shape(b)?);
    let (m, n) = (left.len(), right.len());
    if m == 0 || n == 0 {
        return invalid("a scalar operand");
    }
    if c.dtype(a)? != c.dtype(b)? {
        return invalid(format!("operands are {} and {}", c.ty(a)?, c.ty(b)?));
    }
    let inner = n.saturating_sub(2);
    if let (Some(p), Some(q)) = (left.last().and_then(Dim::known), right.get(inner).and_then(Dim::known))
        && p != q
    {
        return invalid(format!("the operands' inner extents are {p} and {q}"));
    }
    // A matrix or vector at the right serves every outer axis of the left.
    if n <= 2 {
        return product(c, (a, b), [vec![], vec![]], [vec![m - 1], vec![inner]]);
    }
    let outer_left = left.get(..m.saturating_sub(2)).unwrap_or_default().to_vec();
    let outer_right = right.get(..n - 2).unwrap_or_default().to_vec();
    let outer = broadcast_shapes(&[outer_left, outer_right]).map_err(Fail::Invalid)?;
    let grown = |dims: &[Dim], tail: usize| -> Vec<Dim> {
        outer.iter().chain(dims.get(dims.len() - tail.min(dims.len())..).unwrap_or_default()).cloned().collect()
    };
    let tail = m.min(2);
    let a = c.b.broadcast_to(a, grown(&left, tail))?;
    let b = c.b.broadcast_to(b, grown(&right, 2))?;
    let k = outer.len();
    let batch: Vec<usize> = (0..k).collect();
    product(c, (a, b), [batch.clone(), batch], [vec![k + tail - 1], vec![k]])
}

/// alpha op(A) op(B) + beta C.
fn gemm(c: &mut Ctx) -> Results {
    let (a, b) = (c.x(0)?, c.x(1)?);
    if c.rank(a)? != 2 || c.rank(b)? != 2 {
        return invalid(format!("operands are {} and {}, expected matrices", c.ty(a)?, c.ty(b)?));
    }
    let (across_a, across_b) = (c.flag("transA", false)?, c.flag("transB", false)?);
    let mut y = product(c, (a, b), [vec![], vec![]], [vec![usize::from(!across_a)], vec![usize::from(across_b)]])?;
    let (alpha, beta) = (c.float("alpha")?.unwrap_or(1.0), c.float("beta")?.unwrap_or(1.0));
    if alpha != 1.0 {
        y = c.mul_s(y, alpha)?;
    }
    if let Some(bias) = c.opt(2)
        && beta != 0.0
    {
        let bias = if beta == 1.0 { bias } else { c.mul_s(bias, beta)? };
        let dims = c.shape(y)?;
        let bias = c.full(bias, dims)?;
        y = c.add(y, bias)?;
    }
    Ok(vec![y])
}

/// x - zero point in i32; a vector of zero points runs along `axis`, counted from the end.
pub(super) fn centred(c: &mut Ctx, x: Value, zero: Option<Value>, from_end: usize) -> Ruled<Value> {
    let wide = c.to(x, DType::I32)?;
    let Some(zero) = zero else { return Ok(wide) };
    let zero = c.to(zero, DType::I32)?;
    let (rank, own) = (c.rank(x)?, c.rank(zero)?);
    let zero = match own {
        1 => match rank.checked_sub(from_end) {
            Some(axis) => super::elementwise::along(c, zero, axis, rank)?,
            None => c.b.reshape(zero, vec![])?,
        },
        _ => zero,
    };
    c.sub(wide, zero)
}

fn matmul_integer(c: &mut Ctx) -> Results {
    let (a, b) = (c.x(0)?, c.x(1)?);
    let (zero_a, zero_b) = (c.opt(2), c.opt(3));
    // Rows of a, columns of b.
    let (a, b) = (centred(c, a, zero_a, 2)?, centred(c, b, zero_b, 1)?);
    Ok(vec![matmul(c, a, b)?])
}

/// One letter of an equation, or an axis of its ellipsis counted from the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    Ellipsis(usize),
    Letter(char),
}

/// Labels of one term over `rank` axes.
fn labels(term: &str, rank: usize) -> Ruled<Vec<Label>> {
    let (before, after) = match term.split_once("...") {
        Some((before, after)) => (before, Some(after)),
        None => (term, None),
    };
    let letters =
        |text: &str| -> Ruled<Vec<Label>> {
            text.chars()
                .map(|l| {
                    if l.is_ascii_alphabetic() { Ok(Label::Letter(l)) } else { invalid(format!("`{term}` is no term")) }
                })
                .collect()
        };
    let mut found = letters(before)?;
    if let Some(after) = after {
        let after = letters(after)?;
        let Some(hidden) = rank.checked_sub(found.len() + after.len()) else {
            return invalid(format!("term `{term}` for rank {rank}"));
        };
        found.extend((0..hidden).rev().map(Label::Ellipsis));
        found.extend(after);
    }
    if found.len() != rank {
        return invalid(format!("term `{term}` for rank {rank}"));
    }
    Ok(found)
}

/// A value and the label of each axis.
struct Term {
    value: Value,
    labels: Vec<Label>,
}

impl Term {
    fn axis(&self, label: Label) -> Option<usize> {
        self.labels.iter().position(|l| *l == label)
    }

    /// Sums the axes that `needed` refuses.
    fn summed(mut self, c: &mut Ctx, needed: impl Fn(Label) -> bool) -> Ruled<Term> {
        let axes: Vec<usize> =
            (0..self.labels.len()).filter(|&a| self.labels.get(a).is_some_and(|l| !needed(*l))).collect();
        if !axes.is_empty() {
            self.value = c.sum(self.value, &axes, false)?;
            self.labels.retain(|l| needed(*l));
        }
        Ok(self)
    }

    /// Keeps the diagonal of axes that share a label: all else is masked, then summed away.
    fn diagonal(mut self, c: &mut Ctx) -> Ruled<Term> {
        while let Some((first, second)) = (0..self.labels.len())
            .find_map(|b| self.labels.iter().take(b).position(|l| Some(l) == self.labels.get(b)).map(|a| (a, b)))
        {
            let dims = c.shape(self.value)?;
            if let (Some(a), Some(b)) = (dims.get(first), dims.get(second)) {
                c.equal(a, b, "axes of one letter")?;
            }
            let (i, j) = (c.iota(DType::I64, dims.clone(), first)?, c.iota(DType::I64, dims, second)?);
            let on = c.bin(BinaryOp::Eq, i, j)?;
            let zero = c.like(self.value, 0.0)?;
            let masked = c.pick(on, self.value, zero)?;
            self.value = c.sum(masked, &[second], false)?;
            self.labels.remove(second);
        }
        Ok(self)
    }

    /// Drops axes of extent 1 whose label is longer elsewhere: they broadcast.
    fn without_ones(mut self, c: &mut Ctx, long: impl Fn(Label) -> bool) -> Ruled<Term> {
        let dims = c.shape(self.value)?;
        let drop = |(l, d): &(&Label, &Dim)| **d == Dim::ONE && long(**l);
        let kept: Vec<(Label, Dim)> =
            self.labels.iter().zip(&dims).filter(|p| !drop(p)).map(|(l, d)| (*l, d.clone())).collect();
        self.value = c.b.reshape(self.value, kept.iter().map(|(_, d)| d.clone()).collect())?;
        self.labels = kept.into_iter().map(|(l, _)| l).collect();
        Ok(self)
    }
}

/// Joins two terms: shared labels that are needed later are batch axes, the others are summed.
fn joined(c: &mut Ctx, a: Term, b: Term, needed: impl Fn(Label) -> bool) -> Ruled<Term> {
    let a = a.summed(c, |l| needed(l) || b.axis(l).is_some())?;
    let b = b.summed(c, |l| needed(l) || a.axis(l).is_some())?;
    let shared: Vec<Label> = a.labels.iter().copied().filter(|l| b.axis(*l).is_some()).collect();
    let (batch, contract): (Vec<Label>, Vec<Label>) = shared.iter().partition(|l| needed(**l));
    let axes = |t: &Term, list: &[Label]| list.iter().filter_map(|l| t.axis(*l)).collect::<Vec<usize>>();
    let (batch_axes, contract_axes) =
        ([axes(&a, &batch), axes(&b, &batch)], [axes(&a, &contract), axes(&b, &contract)]);
    let value = product(c, (a.value, b.value), batch_axes, contract_axes)?;
    let free = |t: &Term| t.labels.iter().copied().filter(|l| !shared.contains(l)).collect::<Vec<_>>();
    let labels = batch.iter().copied().chain(free(&a)).chain(free(&b)).collect();
    Ok(Term { value, labels })
}

fn einsum(c: &mut Ctx) -> Results {
    let equation: String = c.text("equation", "")?.chars().filter(|ch| !ch.is_whitespace()).collect();
    let (inputs, output) = match equation.split_once("->") {
        Some((inputs, output)) => (inputs.to_owned(), Some(output.to_owned())),
        None => (equation.clone(), None),
    };
    let operands = c.all()?;
    let texts: Vec<&str> = inputs.split(',').collect();
    if texts.len() != operands.len() {
        return invalid(format!("equation `{equation}` for {} operands", operands.len()));
    }
    let mut terms = Vec::with_capacity(operands.len());
    for (text, &value) in texts.iter().zip(&operands) {
        let labels = labels(text, c.rank(value)?)?;
        terms.push(Term { value, labels }.diagonal(c)?);
    }
    let wanted = output_labels(&equation, output.as_deref(), &texts, &terms)?;
    // The longest extent of each label; shorter ones are 1 and broadcast.
    let mut long: Vec<Label> = Vec::new();
    for term in &terms {
        let dims = c.shape(term.value)?;
        long.extend(term.labels.iter().zip(&dims).filter(|(_, d)| **d != Dim::ONE).map(|(l, _)| *l));
    }
    let mut terms = terms.into_iter();
    let Some(first) = terms.next() else { return invalid("no operands") };
    let mut acc = first.without_ones(c, |l| long.contains(&l))?;
    let mut rest: Vec<Term> = terms.collect();
    while !rest.is_empty() {
        let next = rest.remove(0).without_ones(c, |l| long.contains(&l))?;
        let needed = |l: Label| wanted.contains(&l) || rest.iter().any(|t| t.axis(l).is_some());
        acc = joined(c, acc, next, needed)?;
    }
    let acc = acc.summed(c, |l| wanted.contains(&l))?;
    let Some(perm) = wanted.iter().map(|l| acc.axis(*l)).collect::<Option<Vec<_>>>() else {
        return unsupported(format!("equation `{equation}`: an output axis that no operand has"));
    };
    Ok(vec![c.b.transpose(acc.value, perm)?])
}

/// Labels of the result; without `->`: the ellipsis, then letters that occur once, sorted.
fn output_labels(equation: &str, output: Option<&str>, texts: &[&str], terms: &[Term]) -> Ruled<Vec<Label>> {
    let hidden = terms
        .iter()
        .flat_map(|t| &t.labels)
        .filter_map(|l| match l {
            Label::Ellipsis(i) => Some(i + 1),
            Label::Letter(_) => None,
        })
        .max()
        .unwrap_or(0);
    let wanted = match output {
        Some(text) => {
            let letters = text.chars().filter(|l| *l != '.').count();
            labels(text, letters + if text.contains("...") { hidden } else { 0 })?
        }
        None => {
            let all: Vec<char> = texts.iter().flat_map(|t| t.chars()).filter(|l| *l != '.').collect();
            let mut once: Vec<char> =
                all.iter().copied().filter(|l| all.iter().filter(|m| *m == l).count() == 1).collect();
            once.sort_unstable();
            (0..hidden).rev().map(Label::Ellipsis).chain(once.into_iter().map(Label::Letter)).collect()
        }
    };
    let mut seen = wanted.clone();
    seen.sort_unstable();
    if seen.windows(2).any(|w| w[0] == w[1]) {
        return invalid(format!("equation `{equation}` names an output axis twice"));
    }
    match wanted.iter().find(|l| terms.iter().all(|t| t.axis(**l).is_none())) {
        Some(Label::Letter(l)) => invalid(format!("equation `{equation}`: no operand has `{l}`")),
        Some(Label::Ellipsis(_)) | None => Ok(wanted),
    }
}

/// Largest matrix whose determinant is written out.
const MAX_DET: usize = 4;

/// The determinant of small matrices, expanded along the first row.
fn det(c: &mut Ctx) -> Results {
    let x = c.x(0)?;
    let dims = c.shape(x)?;
    let Some(rank) = dims.len().checked_sub(2) else { return invalid("a determinant of less than a matrix") };
    let (rows, columns) = (c.known_extent(x, rank)?, c.known_extent(x, rank + 1)?);
    if rows != columns {
        return invalid(format!("a matrix of {rows} by {columns}"));
    }
    if rows == 0 || rows > MAX_DET {
        return unsupported(format!("matrices of {rows} by {rows}"));
    }
    let outer: Vec<Dim> = dims.iter().take(rank).cloned().collect();
    let mut entries = Vec::with_capacity(rows);
    for i in 0..rows {
        let row = c.part(x, rank, Dim::from(i), Dim::ONE)?;
        let mut cells = Vec::with_capacity(rows);
        for j in 0..rows {
            let cell = c.part(row, rank + 1, Dim::from(j), Dim::ONE)?;
            cells.push(c.b.reshape(cell, outer.clone())?);
        }
        entries.push(cells);
    }
    let all: Vec<usize> = (0..rows).collect();
    Ok(vec![minor(c, &entries, &all)?])
}

/// The determinant of the last `columns.len()` rows over the given columns.
fn minor(c: &mut Ctx, entries: &[Vec<Value>], columns: &[usize]) -> Ruled<Value> {
    let row = entries.len() - columns.len().min(entries.len());
    let mut sum: Option<Value> = None;
    for (i, &column) in columns.iter().enumerate() {
        let Some(&cell) = entries.get(row).and_then(|r| r.get(column)) else { return invalid("no such cell") };
        let rest: Vec<usize> = columns.iter().copied().filter(|&k| k != column).collect();
        let term = if rest.is_empty() {
            cell
        } else {
            let below = minor(c, entries, &rest)?;
            c.mul(cell, below)?
        };
        sum = Some(match sum {
            None => term,
            Some(s) if i % 2 == 1 => c.sub(s, term)?,
            Some(s) => c.add(s, term)?,
        });
    }
    sum.map_or_else(|| invalid("an empty matrix"), Ok)
}
