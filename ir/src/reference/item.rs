//! A value at work: an array, a list, or a host value that only passes through.

use std::rc::Rc;

use super::array::Array;
use super::error::EvalError;
use crate::types::ValueType;
use crate::value::HostValue;

#[derive(Clone, Debug)]
pub(super) enum Item {
    Array(Rc<Array>),
    Sequence(Rc<Vec<Item>>),
    /// Optionals and maps: no core op looks into them.
    Host(HostValue),
}

impl From<Array> for Item {
    fn from(array: Array) -> Self {
        Item::Array(Rc::new(array))
    }
}

impl Item {
    pub(super) fn from_host(value: &HostValue) -> Item {
        match value {
            HostValue::Tensor(t) => Array::from_tensor(t).into(),
            HostValue::Sequence(items) => Item::Sequence(Rc::new(items.iter().map(Item::from_host).collect())),
            HostValue::Optional(_) | HostValue::Map(_) => Item::Host(value.clone()),
        }
    }

    pub(super) fn into_host(self, wide: bool) -> Result<HostValue, EvalError> {
        match self {
            Item::Array(array) => {
                let tensor = array.to_tensor(wide).map_err(|e| EvalError::Tensor(array.dtype, e))?;
                Ok(HostValue::Tensor(tensor))
            }
            Item::Sequence(items) => {
                let items: Result<Vec<_>, _> = items.iter().map(|i| i.clone().into_host(wide)).collect();
                Ok(HostValue::Sequence(items?))
            }
            Item::Host(value) => Ok(value),
        }
    }

    pub(super) fn kind(&self) -> &'static str {
        match self {
            Item::Array(_) => "a tensor",
            Item::Sequence(_) => "a sequence",
            Item::Host(value) => value.kind(),
        }
    }

    /// Kind, element type and rank are the type's; extents are checked where symbols are bound.
    pub(super) fn check_kind(&self, ty: &ValueType) -> Result<(), String> {
        match (self, ty) {
            (Item::Array(a), ValueType::Tensor(t)) if a.dtype == t.dtype && a.shape.len() == t.rank() => Ok(()),
            (Item::Array(a), _) => Err(format!("found {}, expected {ty}", a.ty())),
            (Item::Sequence(items), ValueType::Sequence(element)) => {
                items.iter().try_for_each(|i| i.check_kind(element))
            }
            (Item::Host(HostValue::Optional(_)), ValueType::Optional(_))
            | (Item::Host(HostValue::Map(_)), ValueType::Map(..)) => Ok(()),
            (Item::Sequence(_) | Item::Host(_), _) => Err(format!("found {}, expected {ty}", self.kind())),
        }
    }
}
