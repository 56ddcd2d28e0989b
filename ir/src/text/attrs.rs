//! Attribute values in text.
//!
//! Each kind reads back as itself: `3` integer, `3.0` float, `true` flag, `"s"` text, `#sum` word, `f32` element type,
//! `B + 1` extent, `f32[B]` type, `f32[2] dense(..)` tensor, `[..]` list, `{name = ..}` names. An extent that would
//! read as something else stands in round brackets.

use std::collections::BTreeMap;

use super::lex::{Cursor, Read, Token, is_word, quote};
use super::literal::{Tensors, float};
use crate::op::AttrValue;
use crate::tensor::Tensor;
use crate::types::{DType, Dim};

/// How a tensor of an attribute is printed: inline, or by name.
pub(super) type PrintTensor<'p> = dyn FnMut(&Tensor) -> String + 'p;

/// An attribute's value as text.
pub(super) fn value(value: &AttrValue, tensor: &mut PrintTensor) -> String {
    match value {
        AttrValue::Int(v) => v.to_string(),
        AttrValue::Float(v) => float(*v),
        AttrValue::Bool(v) => v.to_string(),
        AttrValue::Str(v) => quote(v),
        AttrValue::Word(v) => format!("#{v}"),
        AttrValue::DType(v) => v.to_string(),
        AttrValue::Dim(v) => dim(v),
        AttrValue::Type(v) => v.to_string(),
        AttrValue::Tensor(v) => tensor(v),
        AttrValue::List(items) => {
            let items: Vec<String> = items.iter().map(|v| self::value(v, tensor)).collect();
            format!("[{}]", items.join(", "))
        }
        AttrValue::Dict(items) => {
            dict(items.iter().map(|(k, v)| (k.as_str(), self::value(v, tensor))).collect::<Vec<_>>())
        }
    }
}

/// `{name = value, ..}`.
pub(super) fn dict(items: Vec<(&str, String)>) -> String {
    let items: Vec<String> = items.into_iter().map(|(k, v)| format!("{} = {v}", name(k))).collect();
    format!("{{{}}}", items.join(", "))
}

/// A name, quoted where it has to be.
pub(super) fn name(name: &str) -> String {
    if is_word(name) { name.to_owned() } else { quote(name) }
}

fn dim(dim: &Dim) -> String {
    let text = dim.to_string();
    let first: String =
        text.trim_start_matches('-').chars().take_while(|&c| c.is_ascii_alphanumeric() || c == '_').collect();
    if dim.known().is_some() || is_reserved(&first) { format!("({text})") } else { text }
}

/// Whether a word starts a value that is no extent.
fn is_reserved(word: &str) -> bool {
    matches!(word, "true" | "false" | "inf" | "nan" | "seq" | "optional" | "map" | "unknown")
        || word.parse::<DType>().is_ok()
}

impl Cursor<'_> {
    /// `name = value, ..}` after the opening bracket.
    pub(super) fn attributes(&mut self, depth: usize, tensors: &mut Tensors) -> Read<BTreeMap<String, AttrValue>> {
        let mut attributes = BTreeMap::new();
        self.list('}', |c| {
            let start = c.offset();
            let name = match c.peek() {
                Token::Text(_) => c.quoted_text("an attribute's name")?,
                _ => c.word("an attribute's name")?.to_owned(),
            };
            c.expect('=')?;
            let value = c.attribute(depth, tensors)?;
            match attributes.insert(name, value) {
                None => Ok(()),
                Some(_) => c.fail_at(start, "the attribute is given twice"),
            }
        })?;
        Ok(attributes)
    }

    fn attribute(&mut self, depth: usize, tensors: &mut Tensors) -> Read<AttrValue> {
        let depth = self.deeper(depth, "attribute values")?;
        let start = self.offset();
        match *self.peek() {
            Token::Text(_) => Ok(AttrValue::Str(self.quoted_text("a text")?)),
            Token::Choice(word) => {
                self.advance()?;
                Ok(AttrValue::Word(word.to_owned()))
            }
            Token::Float(_) | Token::Bits(_) | Token::Word("inf" | "nan") => {
                Ok(AttrValue::Float(self.attribute_float(false)?))
            }
            Token::Mark('-') => {
                self.advance()?;
                match self.peek() {
                    Token::Float(_) | Token::Word("inf") => Ok(AttrValue::Float(self.attribute_float(true)?)),
                    _ => Ok(plain(self.dim(0, true)?)),
                }
            }
            Token::Mark('[') => {
                self.advance()?;
                Ok(AttrValue::List(self.list(']', |c| c.attribute(depth, tensors))?))
            }
            Token::Mark('{') => {
                self.advance()?;
                Ok(AttrValue::Dict(self.attributes(depth, tensors)?))
            }
            Token::Mark('(') => {
                self.advance()?;
                let dim = self.dim(0, false)?;
                self.expect(')')?;
                Ok(AttrValue::Dim(dim))
            }
            Token::Word(word @ ("true" | "false")) => {
                self.advance()?;
                Ok(AttrValue::Bool(word == "true"))
            }
            Token::Word("seq" | "optional" | "map" | "unknown") => Ok(AttrValue::Type(self.value_type(0)?)),
            Token::Word(word) if word.parse::<DType>().is_ok() => {
                let dtype = self.dtype()?;
                if *self.peek() != Token::Mark('[') {
                    return Ok(AttrValue::DType(dtype));
                }
                let ty = self.tensor_type(dtype)?;
                if !self.at_literal() {
                    return Ok(AttrValue::Type(ty.into()));
                }
                Ok(AttrValue::Tensor(self.literal(&ty, tensors)?))
            }
            Token::Word(_) | Token::Int(_) => Ok(plain(self.dim(0, false)?)),
            Token::Value(_) | Token::Arrow | Token::Mark(_) | Token::End => {
                self.fail_at(start, format!("expected an attribute's value, found {}", self.peek()))
            }
        }
    }
}

/// A number is an integer, anything else an extent.
fn plain(dim: Dim) -> AttrValue {
    match dim {
        Dim::Known(v) => AttrValue::Int(v),
        Dim::Expr(_) => AttrValue::Dim(dim),
    }
}
