//! Symbols replaced by extents, everywhere a function states them.
//!
//! Types of results, extents among attributes and regions change together, so a module whose types were checked stays
//! so. Attributes are reached through the op table ([`Op::attributes`]): no op is named here.

use std::collections::BTreeMap;

use crate::graph::{Function, Value};
use crate::op::{AttrValue, Op};
use crate::types::{Dim, Symbol, ValueType};

/// The extent that a symbol becomes; `None` leaves it.
pub type Replacement<'r> = dyn Fn(&Symbol) -> Option<Dim> + 'r;

/// Replaces symbols in a function and its regions.
pub fn substitute(function: &mut Function, with: &Replacement<'_>) {
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
}
