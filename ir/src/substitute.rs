//! Symbols replaced by extents, everywhere a function states them.
//!
//! Types of results, extents among attributes, requirements and regions change together, so a module whose types were checked stays
//! so. Attributes are reached through the op table ([`Op::attributes`]): no op is named here.

use std::collections::BTreeMap;

use crate::graph::{Function, Value};
use crate::op::{AttrValue, Op};
use crate::requirement::Requirement;
use crate::types::{Dim, Symbol, ValueType};

/// The extent that a symbol becomes; `None` leaves it.
pub type Replacement<'r> = dyn Fn(&Symbol) -> Option<Dim> + 'r;

/// Calls `visit` on every symbol that a function's requirements and ops mention, inputs excepted, and on those of its
/// regions: what its inputs, or ops inside, have to bind.
pub fn visit_symbols(function: &Function, visit: &mut dyn FnMut(&Symbol)) {
    for Requirement { left, right, .. } in function.requirements() {
        left.visit_symbols(visit);
        right.visit_symbols(visit);
    }
    for id in function.nodes() {
        let node = function.node(id);
        if matches!(node.op, Op::Input { .. }) {
            continue;
        }
        node.results().iter().for_each(|ty| symbols_of_type(ty, visit));
        node.op.attributes().iter().for_each(|(_, value)| symbols_of_attribute(value, visit));
        node.regions().iter().for_each(|region| visit_symbols(region, visit));
    }
}

/// Calls `visit` on every symbol of a type.
pub fn symbols_of_type(ty: &ValueType, visit: &mut dyn FnMut(&Symbol)) {
    match ty {
        ValueType::Tensor(t) => t.dims.iter().for_each(|d| d.visit_symbols(visit)),
        ValueType::Sequence(e) | ValueType::Optional(e) | ValueType::Map(_, e) => symbols_of_type(e, visit),
        ValueType::Unknown => {}
    }
}

/// Calls `visit` on every symbol of an attribute.
pub fn symbols_of_attribute(value: &AttrValue, visit: &mut dyn FnMut(&Symbol)) {
    match value {
        AttrValue::Dim(d) => d.visit_symbols(visit),
        AttrValue::Type(ty) => symbols_of_type(ty, visit),
        AttrValue::List(items) => items.iter().for_each(|v| symbols_of_attribute(v, visit)),
        AttrValue::Dict(items) => items.values().for_each(|v| symbols_of_attribute(v, visit)),
        AttrValue::Int(_)
        | AttrValue::Float(_)
        | AttrValue::Bool(_)
        | AttrValue::Str(_)
        | AttrValue::Word(_)
        | AttrValue::DType(_)
        | AttrValue::Tensor(_) => {}
    }
}

/// Replaces symbols in a function and its regions.
pub fn substitute(function: &mut Function, with: &Replacement<'_>) {
    let mut requirements = function.requirements().to_vec();
    let in_requirement = |r: &mut Requirement| in_dim(&mut r.left, with) | in_dim(&mut r.right, with);
    if any(requirements.iter_mut(), in_requirement) {
        function.set_requirements(requirements);
    }
    for id in function.nodes() {
        for result in 0..function.node(id).results().len() {
            let value = Value { node: id, result };
            let mut ty = function.ty(value).clone();
            if in_type(&mut ty, with) {
                function.set_type(value, ty);
            }
        }
        let op = &function.node(id).op;
        let mut attributes: BTreeMap<String, AttrValue> =
            op.attributes().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let changed = any(attributes.values_mut(), |value| in_attribute(value, with));
        // An op's own attributes always make it again.
        if changed && let Ok(op) = Op::from_parts(op.name(), &attributes) {
            function.set_op(id, op);
        }
        for region in function.regions_mut(id) {
            substitute(region, with);
        }
    }
}

/// Whether any changed; every one is visited.
fn any<T>(items: impl Iterator<Item = T>, change: impl FnMut(T) -> bool) -> bool {
    items.map(change).fold(false, |a, b| a | b)
}

fn in_dim(dim: &mut Dim, with: &Replacement<'_>) -> bool {
    let new = dim.substitute(with);
    let changed = new != *dim;
    *dim = new;
    changed
}

fn in_type(ty: &mut ValueType, with: &Replacement<'_>) -> bool {
    match ty {
        ValueType::Tensor(t) => any(t.dims.iter_mut(), |d| in_dim(d, with)),
        ValueType::Sequence(e) | ValueType::Optional(e) | ValueType::Map(_, e) => in_type(e, with),
        ValueType::Unknown => false,
    }
}

fn in_attribute(value: &mut AttrValue, with: &Replacement<'_>) -> bool {
    match value {
        AttrValue::Dim(dim) => in_dim(dim, with),
        AttrValue::Type(ty) => in_type(ty, with),
        AttrValue::List(values) => any(values.iter_mut(), |v| in_attribute(v, with)),
        AttrValue::Dict(values) => any(values.values_mut(), |v| in_attribute(v, with)),
        AttrValue::Int(_)
        | AttrValue::Float(_)
        | AttrValue::Bool(_)
        | AttrValue::Str(_)
        | AttrValue::Word(_)
        | AttrValue::DType(_)
        | AttrValue::Tensor(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::Builder;
    use crate::module::Module;
    use crate::origin::Origin;
    use crate::types::{DType, TensorType};

    #[test]
    fn types_attributes_and_sequences_follow() {
        let (b, two) = (Dim::symbol("B"), Dim::from(2_usize));
        let mut f = Function::new("infer");
        let x = f.add_input("x", TensorType::new(DType::F32, [b.clone(), Dim::from(3_usize)]));
        let mut build = Builder::new(&mut f, Origin::named("t"));
        let flat = build.reshape(x, vec![&b * &Dim::from(3_usize)]).unwrap();
        let element: ValueType = build.tensor(x).unwrap().into();
        let list = build.op(Op::SequenceConstruct { element }, &[x]).unwrap();
        f.add_output("flat", flat);
        f.add_output("list", list);
        substitute(&mut f, &|s| (s.name() == "B").then(|| two.clone()));
        assert_eq!(f.ty(flat).to_string(), "f32[6]");
        assert_eq!(f.ty(list).to_string(), "seq<f32[2, 3]>");
        crate::verify::verify(&Module::of(f)).unwrap();
    }

    #[test]
    fn what_is_inlined_speaks_of_its_arguments() {
        let [m, p] = ["M", "P"].map(Dim::symbol);
        let mut body = Function::new("g");
        let a = body.add_input("a", TensorType::new(DType::F32, [m.clone(), Dim::from(4_usize)]));
        let flat = Builder::new(&mut body, Origin::named("g")).reshape(a, vec![Dim::from(12_usize)]).unwrap();
        body.add_output("r", flat);
        body.symbols.insert(Symbol::new("M"), crate::graph::SymbolFacts { min: 2, max: Some(9), multiple_of: 0 });
        body.state_needs();
        let mut f = Function::new("infer");
        let x = f.add_input("x", TensorType::new(DType::F32, [&p + &Dim::ONE, Dim::from(4_usize)]));
        let past = f.add_input("past", TensorType::new(DType::F32, [p]));
        let made = f.inline(&body, &[x]).unwrap();
        f.add_output("y", made[0]);
        f.add_output("past", past);
        let texts: Vec<String> = f.requirements().iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["at_most(2, P + 1)", "at_most(P + 1, 9)", "equal(4*P + 4, 12)"]);
        assert!(f.symbols.is_empty());
        let mut mentioned = Vec::new();
        visit_symbols(&f, &mut |s| mentioned.push(s.clone()));
        assert!(!mentioned.is_empty() && mentioned.iter().all(|s| s.name() == "P"));
        crate::verify::verify(&Module::of(f)).unwrap();
    }
}
