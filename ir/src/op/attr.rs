//! Attribute values, as text and checks see them.
//!
//! Every attribute type of the op table converts to and from [`AttrValue`], so printer, parser and help need to know
//! these kinds only.

use std::collections::BTreeMap;

use crate::tensor::Tensor;
use crate::types::{DType, Dim, Symbol, TensorType, ValueType};

/// One attribute's value.
#[derive(Clone, Debug, PartialEq)]
pub enum AttrValue {
    /// An integer.
    Int(i64),
    /// A float; ONNX floats are f32, kept exactly.
    Float(f64),
    /// A flag.
    Bool(bool),
    /// Quoted text.
    Str(String),
    /// One of a fixed set of words.
    Word(String),
    /// An element type.
    DType(DType),
    /// An extent.
    Dim(Dim),
    /// A type.
    Type(ValueType),
    /// A tensor.
    Tensor(Tensor),
    /// Several values of one kind.
    List(Vec<AttrValue>),
    /// Named values.
    Dict(BTreeMap<String, AttrValue>),
}

impl AttrValue {
    /// What it is, for messages.
    fn what(&self) -> String {
        match self {
            AttrValue::Int(v) => format!("the integer {v}"),
            AttrValue::Float(v) => format!("the number {v}"),
            AttrValue::Bool(v) => format!("{v}"),
            AttrValue::Str(_) => "a text in quotes".to_owned(),
            AttrValue::Word(word) => format!("the word #{word}"),
            AttrValue::DType(dtype) => format!("the element type {dtype}"),
            AttrValue::Dim(dim) => format!("the extent {dim}"),
            AttrValue::Type(ty) => format!("the type {ty}"),
            AttrValue::Tensor(tensor) => format!("a tensor {}", tensor.ty()),
            AttrValue::List(_) => "a list".to_owned(),
            AttrValue::Dict(_) => "named values in braces".to_owned(),
        }
    }
}

/// A type that can be an attribute.
pub trait Attr: Sized {
    /// As a value.
    fn to_value(&self) -> AttrValue;
    /// From a value; the error says what was expected.
    fn from_value(value: &AttrValue) -> Result<Self, String>;
    /// What an attribute that is not written is; `None`: it has to be written.
    fn absent() -> Option<Self> {
        None
    }
    /// Whether it is not written.
    fn is_absent(&self) -> bool {
        false
    }
}

/// A flag that is written only where it is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Flag(pub bool);

impl Attr for Flag {
    fn to_value(&self) -> AttrValue {
        AttrValue::Bool(self.0)
    }
    fn from_value(value: &AttrValue) -> Result<Self, String> {
        bool::from_value(value).map(Flag)
    }
    fn absent() -> Option<Self> {
        Some(Flag(false))
    }
    fn is_absent(&self) -> bool {
        !self.0
    }
}

/// The error for a value of another kind.
pub(crate) fn expected<T>(what: &str, found: &AttrValue) -> Result<T, String> {
    Err(format!("expected {what}, found {}", found.what()))
}

macro_rules! plain_attr {
    ($($ty:ty, $variant:ident, $what:literal;)*) => {$(
        impl Attr for $ty {
            fn to_value(&self) -> AttrValue {
                AttrValue::$variant(self.clone())
            }
            fn from_value(value: &AttrValue) -> Result<Self, String> {
                match value {
                    AttrValue::$variant(v) => Ok(v.clone()),
                    other => expected($what, other),
                }
            }
        }
    )*};
}

plain_attr! {
    i64, Int, "an integer";
    f64, Float, "a float";
    bool, Bool, "true or false";
    String, Str, "a quoted text";
    DType, DType, "an element type";
    ValueType, Type, "a type";
    Tensor, Tensor, "a tensor";
    BTreeMap<String, AttrValue>, Dict, "named values";
}

impl Attr for usize {
    fn to_value(&self) -> AttrValue {
        AttrValue::Int(i64::try_from(*self).unwrap_or(i64::MAX))
    }
    fn from_value(value: &AttrValue) -> Result<Self, String> {
        match value {
            AttrValue::Int(v) => usize::try_from(*v).map_err(|_| format!("expected a number of at least 0, found {v}")),
            other => expected("an integer", other),
        }
    }
}

impl Attr for Dim {
    fn to_value(&self) -> AttrValue {
        match self {
            Dim::Known(v) => AttrValue::Int(*v),
            Dim::Expr(_) => AttrValue::Dim(self.clone()),
        }
    }
    fn from_value(value: &AttrValue) -> Result<Self, String> {
        match value {
            AttrValue::Int(v) => Ok(Dim::Known(*v)),
            AttrValue::Dim(d) => Ok(d.clone()),
            other => expected("an extent", other),
        }
    }
}

impl Attr for Symbol {
    fn to_value(&self) -> AttrValue {
        AttrValue::Dim(self.clone().into())
    }
    fn from_value(value: &AttrValue) -> Result<Self, String> {
        match value {
            AttrValue::Dim(d) => d.as_symbol().cloned().ok_or_else(|| format!("expected a symbol, found {d}")),
            other => expected("a symbol", other),
        }
    }
}

impl Attr for TensorType {
    fn to_value(&self) -> AttrValue {
        AttrValue::Type(self.clone().into())
    }
    fn from_value(value: &AttrValue) -> Result<Self, String> {
        match value {
            AttrValue::Type(ValueType::Tensor(t)) => Ok(t.clone()),
            other => expected("a tensor type", other),
        }
    }
}

impl<T: Attr> Attr for Vec<T> {
    fn to_value(&self) -> AttrValue {
        AttrValue::List(self.iter().map(Attr::to_value).collect())
    }
    fn from_value(value: &AttrValue) -> Result<Self, String> {
        match value {
            AttrValue::List(items) => items.iter().map(T::from_value).collect(),
            other => expected("a list", other),
        }
    }
}

/// An enum whose values are words in the text.
macro_rules! word_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[doc = $doc:literal])* $variant:ident $text:literal),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[doc = $doc])* $variant),* }

        impl $name {
            /// Every value, in the table's order.
            pub const ALL: &[$name] = &[$($name::$variant),*];

            /// Word and meaning of every value.
            pub const DOCS: &[(&'static str, &'static str)] = &[$(($text, concat!($($doc, "\n"),*))),*];

            /// The word for it.
            pub fn name(self) -> &'static str {
                match self { $($name::$variant => $text),* }
            }

            /// The value a word stands for.
            pub fn from_name(text: &str) -> Option<Self> {
                match text { $($text => Some($name::$variant),)* _ => None }
            }
        }

        impl $crate::op::attr::Attr for $name {
            fn to_value(&self) -> $crate::op::attr::AttrValue {
                $crate::op::attr::AttrValue::Word(self.name().to_owned())
            }
            fn from_value(value: &$crate::op::attr::AttrValue) -> Result<Self, String> {
                match value {
                    $crate::op::attr::AttrValue::Word(w) => $name::from_name(w)
                        .ok_or_else(|| format!(concat!("`{}` is none of", $(" ", $text),*), w)),
                    other => $crate::op::attr::expected("a word, as #sum", other),
                }
            }
        }
    };
}
pub(crate) use word_enum;
