//! What a type rule leaves open: relations of extents that hold only for some values of their symbols.
//!
//! [`super::infer`] refuses known extents that contradict an op and takes the others. This table says, op by op, what
//! the others must satisfy: with all symbols replaced by numbers, inference accepts an op exactly when its needs hold
//! (a test walks small numbers). An op without an entry compares canonical expressions only, and needs nothing.

use super::{Op, ReduceKind};
use crate::requirement::Relation;
use crate::types::{Dim, TensorType, ValueType};

/// A relation that an op relies on, and which extents it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// How they must stand.
    pub relation: Relation,
    /// One extent.
    pub left: Dim,
    /// The other.
    pub right: Dim,
    /// Which they are.
    pub what: String,
}

/// Needs so far; what holds for all values of the symbols is left out.
struct Needs(Vec<Need>);

impl Needs {
    fn add(&mut self, relation: Relation, left: &Dim, right: &Dim, what: impl FnOnce() -> String) {
        if !relation.is_proven(left, right) {
            self.0.push(Need { relation, left: left.clone(), right: right.clone(), what: what() });
        }
    }

    fn not_negative(&mut self, dims: &[Dim], what: &str) {
        for (axis, dim) in dims.iter().enumerate() {
            self.add(Relation::AtMost, &Dim::ZERO, dim, || format!("{what} {axis}"));
        }
    }

    fn fits(&mut self, sizes: &[Dim], dims: &[Dim]) {
        for (axis, (size, dim)) in sizes.iter().zip(dims).enumerate() {
            self.add(Relation::AtMost, size, dim, || format!("the part of axis {axis}"));
        }
    }

    /// An axis that is looked up for `dims` has an element, unless nothing is looked up.
    fn indexed(&mut self, extent: &Dim, dims: &[Dim]) {
        if !Relation::AtMost.is_proven(&Dim::ONE, extent) {
            let some = Dim::product(dims).minimum(&Dim::ONE);
            self.add(Relation::AtMost, &some, extent, || "the axis that is indexed".to_owned());
        }
    }

    /// Elements start, start + step, .. of each axis lie inside; of no elements nothing is asked.
    fn slice(&mut self, x: &TensorType, starts: &[Dim], sizes: &[Dim], steps: &[i64]) {
        self.not_negative(sizes, "result axis");
        for (axis, (((start, size), step), extent)) in starts.iter().zip(sizes).zip(steps).zip(&x.dims).enumerate() {
            if *size == Dim::ZERO {
                continue;
            }
            let span = &(size - &Dim::ONE) * &Dim::Known(*step);
            let last = start + &span;
            let (low, high) = if *step > 0 { (start, &last) } else { (&last, start) };
            let end = high + &Dim::ONE;
            // 0 where there is no element.
            let any = size.minimum(&Dim::ONE);
            let bound = |reach: &Dim| if any == Dim::ONE { reach.clone() } else { &any * reach };
            let what = |side: &str| format!("the slice of axis {axis} {side}");
            if !low.is_nonnegative() {
                self.add(Relation::AtMost, &Dim::ZERO, &bound(low), || what("begins inside"));
            }
            if !Relation::AtMost.is_proven(&end, extent) {
                self.add(Relation::AtMost, &bound(&end), extent, || what("ends inside"));
            }
        }
    }
}

/// What an op asks of extents beyond what inference has settled. Operands and results are those of a well-typed op.
pub fn needs(op: &Op, operands: &[&ValueType], results: &[ValueType]) -> Vec<Need> {
    let mut needs = Needs(Vec::new());
    let tensor = |i: usize| operands.get(i).and_then(|ty| ty.tensor());
    match op {
        Op::Iota { dims, .. } => needs.not_negative(dims, "axis"),
        Op::Broadcast { dims, axes } => {
            needs.not_negative(dims, "result axis");
            for (i, (from, &axis)) in tensor(0).iter().flat_map(|x| &x.dims).zip(axes).enumerate() {
                if let Some(to) = dims.get(axis) {
                    needs.add(Relation::OneOr, from, to, || format!("operand axis {i}"));
                }
            }
        }
        Op::Reshape { dims } => {
            needs.not_negative(dims, "result axis");
            if let Some(x) = tensor(0) {
                needs.add(Relation::Equal, &x.numel(), &Dim::product(dims), || "elements before and after".to_owned());
            }
        }
        Op::Slice { starts, sizes, steps } => {
            if let Some(x) = tensor(0) {
                needs.slice(x, starts, sizes, steps);
            }
        }
        Op::DynamicSlice { sizes } => {
            needs.not_negative(sizes, "result axis");
            if let Some(x) = tensor(0) {
                needs.fits(sizes, &x.dims);
            }
        }
        Op::UpdateSlice {} => {
            if let (Some(x), Some(update)) = (tensor(0), tensor(1)) {
                needs.fits(&update.dims, &x.dims);
            }
        }
        Op::Pad { low, high } => {
            needs.not_negative(low, "padding before axis");
            needs.not_negative(high, "padding after axis");
        }
        Op::Reduce { axes, kind: ReduceKind::ArgMin | ReduceKind::ArgMax } => {
            for extent in axes.iter().filter_map(|&a| tensor(0).and_then(|x| x.dims.get(a))) {
                needs.add(Relation::AtMost, &Dim::ONE, extent, || "the axis that is searched".to_owned());
            }
        }
        Op::DotGeneral { lhs_batch, rhs_batch, lhs_contract, rhs_contract, .. } => {
            if let (Some(lhs), Some(rhs)) = (tensor(0), tensor(1)) {
                let pairs = lhs_batch.iter().chain(lhs_contract).zip(rhs_batch.iter().chain(rhs_contract));
                for (&l, &r) in pairs {
                    if let (Some(a), Some(b)) = (lhs.dims.get(l), rhs.dims.get(r)) {
                        needs.add(Relation::Equal, a, b, || format!("left axis {l} and right axis {r}"));
                    }
                }
            }
        }
        Op::Conv { groups, .. } => {
            if let (Some([_, channels, ..]), Some([outputs, inputs, ..])) =
                (tensor(0).map(|x| x.dims.as_slice()), tensor(1).map(|w| w.dims.as_slice()))
            {
                let groups = Dim::from(*groups);
                let what = || "channels of input and weights".to_owned();
                needs.add(Relation::Equal, channels, &(inputs * &groups), what);
                let what = || format!("what is left of the output channels in {groups} groups");
                needs.add(Relation::Equal, &outputs.modulo(&groups), &Dim::ZERO, what);
            }
        }
        Op::ConvTranspose { groups, .. } => {
            if let (Some([_, channels, ..]), Some([inputs, ..])) =
                (tensor(0).map(|x| x.dims.as_slice()), tensor(1).map(|w| w.dims.as_slice()))
            {
                let groups = Dim::from(*groups);
                needs.add(Relation::Equal, channels, inputs, || "channels of input and weights".to_owned());
                let what = || format!("what is left of the input channels in {groups} groups");
                needs.add(Relation::Equal, &inputs.modulo(&groups), &Dim::ZERO, what);
            }
            for result in results.iter().filter_map(ValueType::tensor) {
                needs.not_negative(&result.dims, "result axis");
            }
        }
        Op::Gather { axis } => {
            let extent = tensor(0).and_then(|x| x.dims.get(*axis));
            if let (Some(extent), Some(result)) = (extent, results.first().and_then(ValueType::tensor)) {
                needs.indexed(extent, &result.dims);
            }
        }
        Op::Scatter { axis, .. } => {
            if let (Some(extent), Some(updates)) = (tensor(0).and_then(|x| x.dims.get(*axis)), tensor(2)) {
                needs.indexed(extent, &updates.dims);
            }
        }
        // Extents are compared as expressions, are those of operands, or have 0 as a bound; what regions and callees
        // need is stated there; elements of sequences are checked when they are met.
        Op::Unary(_)
        | Op::Binary(_)
        | Op::Input { .. }
        | Op::Constant { .. }
        | Op::Param { .. }
        | Op::DimValue { .. }
        | Op::Select { .. }
        | Op::Cast { .. }
        | Op::Bitcast { .. }
        | Op::Transpose { .. }
        | Op::Concat { .. }
        | Op::Window { .. }
        | Op::Reduce { .. }
        | Op::Cumulate { .. }
        | Op::Sort { .. }
        | Op::Compact { .. }
        | Op::If {}
        | Op::Loop { .. }
        | Op::Call { .. }
        | Op::Composite { .. }
        | Op::Fusion {}
        | Op::Vjp { .. }
        | Op::Assert { .. }
        | Op::SequenceConstruct { .. }
        | Op::SequenceAt {}
        | Op::SequenceInsert {}
        | Op::SequenceErase {}
        | Op::SequenceLength {}
        | Op::Absent {}
        | Op::Onnx { .. } => {}
    }
    needs.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Function, Value};
    use crate::op::infer::infer;
    use crate::origin::Origin;
    use crate::substitute::substitute;
    use crate::types::{DType, Symbol};

    /// Ops over symbols a, b, c, with the types of their operands.
    fn cases() -> Vec<(Op, Vec<TensorType>)> {
        let [a, b, c] = ["a", "b", "c"].map(Dim::symbol);
        let k = |n: i64| Dim::Known(n);
        let f = |dims: &[&Dim]| TensorType::new(DType::F32, dims.iter().map(|d| (*d).clone()).collect::<Vec<_>>());
        let i = TensorType::scalar(DType::I64);
        let scalar = TensorType::scalar(DType::F32);
        let dims = |dims: &[&Dim]| dims.iter().map(|d| (*d).clone()).collect::<Vec<_>>();
        let slice = |starts: &[&Dim], sizes: &[&Dim], steps: &[i64]| Op::Slice {
            starts: dims(starts),
            sizes: dims(sizes),
            steps: steps.to_vec(),
        };
        let dot = |batch: usize| Op::DotGeneral {
            lhs_batch: (0..batch).collect(),
            rhs_batch: (0..batch).collect(),
            lhs_contract: vec![batch + 1],
            rhs_contract: vec![batch],
            accumulate: DType::F32,
        };
        let (less, apart) = (&a - &k(2), &(&a - &b) + &k(1));
        let window = |groups| (vec![1usize], vec![1usize], vec![0usize], vec![1usize], groups);
        let conv = |(strides, dilations, low, high, groups)| Op::Conv { strides, dilations, low, high, groups };
        let transposed = |groups| Op::ConvTranspose {
            strides: vec![2],
            dilations: vec![1],
            low: vec![1],
            high: vec![1],
            output_padding: vec![0],
            groups,
        };
        vec![
            (Op::Iota { dtype: DType::I64, dims: dims(&[&less, &b]), axis: 0 }, vec![]),
            (Op::Broadcast { dims: dims(&[&b, &k(3)]), axes: vec![0, 1] }, vec![f(&[&a, &c])]),
            (Op::Broadcast { dims: dims(&[&a.maximum(&b)]), axes: vec![0] }, vec![f(&[&b])]),
            (Op::Broadcast { dims: dims(&[&less, &b]), axes: vec![1] }, vec![f(&[&b])]),
            (Op::Reshape { dims: dims(&[&k(6)]) }, vec![f(&[&a, &b])]),
            (Op::Reshape { dims: dims(&[&(&a * &b).floordiv(&k(2)), &k(2)]) }, vec![f(&[&a, &b])]),
            (Op::Reshape { dims: dims(&[&less, &apart]) }, vec![f(&[&c])]),
            (slice(&[&k(1)], &[&k(2)], &[2]), vec![f(&[&a])]),
            (slice(&[&b], &[&c], &[1]), vec![f(&[&a])]),
            (slice(&[&less], &[&b], &[2]), vec![f(&[&k(4)])]),
            (slice(&[&less], &[&k(3)], &[-1]), vec![f(&[&k(4)])]),
            (slice(&[&b, &k(0)], &[&apart, &k(0)], &[-2, 1]), vec![f(&[&a, &c])]),
            (Op::DynamicSlice { sizes: dims(&[&b, &less]) }, vec![f(&[&a, &k(2)]), i.clone(), i.clone()]),
            (Op::UpdateSlice {}, vec![f(&[&a, &k(2)]), f(&[&b, &c]), i.clone(), i]),
            (Op::Pad { low: dims(&[&less]), high: dims(&[&apart]) }, vec![f(&[&c]), scalar.clone()]),
            (Op::Reduce { axes: vec![1], kind: ReduceKind::ArgMax }, vec![f(&[&a, &b])]),
            (Op::Reduce { axes: vec![1], kind: ReduceKind::Max }, vec![f(&[&a, &b])]),
            (dot(0), vec![f(&[&k(2), &a]), f(&[&b, &k(2)])]),
            (dot(1), vec![f(&[&a, &k(2), &c]), f(&[&b, &k(3), &k(2)])]),
            (conv(window(2)), vec![f(&[&k(1), &a, &c]), f(&[&b, &k(1), &k(2)])]),
            (transposed(2), vec![f(&[&k(1), &a, &c]), f(&[&b, &k(1), &k(1)])]),
            (Op::Concat { axis: 0 }, vec![f(&[&a, &c]), f(&[&b, &c])]),
            (Op::Gather { axis: 0 }, vec![f(&[&a, &c]), TensorType::new(DType::I64, vec![b.clone()])]),
            (
                Op::Scatter { axis: 0, kind: crate::op::ScatterKind::Add },
                vec![f(&[&a, &c]), TensorType::new(DType::I64, vec![b.clone()]), f(&[&b, &c])],
            ),
            (
                Op::Window {
                    axes: vec![0],
                    sizes: vec![3],
                    strides: vec![2],
                    dilations: vec![1],
                    low: vec![0],
                    high: vec![0],
                },
                vec![f(&[&a]), scalar],
            ),
        ]
    }

    #[test]
    fn needs_hold_exactly_where_inference_accepts_the_numbers() {
        for (at, (op, operands)) in cases().into_iter().enumerate() {
            let mut f = Function::new("infer");
            let values: Vec<Value> = operands.into_iter().map(|ty| f.add_input("x", ty)).collect();
            let node = f.add_op(op.clone(), &values, vec![], &Origin::named("op")).expect("types may agree");
            f.add_output("y", Value { node, result: 0 });
            f.state_needs();
            let (mut accepted, mut refused) = (0, 0);
            for n in 0..6i64.pow(3) {
                let number = |s: &Symbol| match s.name() {
                    "a" => n % 6,
                    "b" => n / 6 % 6,
                    _ => n / 36,
                };
                let mut fixed = f.clone();
                substitute(&mut fixed, &|s| Some(number(s).into()));
                let types: Vec<&ValueType> = values.iter().map(|v| fixed.ty(*v)).collect();
                let fits = infer(&fixed.node(node).op, &types, &[]).is_ok();
                let value = |d: &Dim| d.eval(&|s| Some(number(s)));
                let holds = f.requirements().iter().all(|r| match (value(&r.left), value(&r.right)) {
                    (Some(a), Some(b)) => r.relation.holds(a, b),
                    _ => false,
                });
                let [a, b, c] = [n % 6, n / 6 % 6, n / 36];
                assert_eq!(holds, fits, "{at}: {op:?} at a = {a}, b = {b}, c = {c}: {:?}", f.requirements());
                // What is left once symbols are numbers is what fails.
                assert_eq!(fixed.requirements().is_empty(), holds, "{at}: {op:?}");
                if fits { accepted += 1 } else { refused += 1 }
            }
            let needs_nothing = f.requirements().is_empty();
            assert!(accepted > 0 && needs_nothing == (refused == 0), "{at}: {accepted} accepted, {refused} refused");
        }
    }
}
