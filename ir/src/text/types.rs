//! Extents and types from text.
//!
//! A dim is a sum of products of numbers, symbols and `floordiv(a, b)`, `mod`, `min`, `max`, as [`Dim`] prints it; no
//! brackets, so a text never makes a polynomial larger than itself. A type is `f32[B, 4]`, `seq<T>`, `optional<T>`,
//! `map<i64, T>` or `unknown`. Nesting is limited to [`DEPTH`].

use std::str::FromStr;

use super::error::TextError;
use super::lex::{Cursor, Read, Token, signed};
use crate::types::{DType, Dim, TensorType, ValueType};

/// How deep dims, types, attribute lists and regions nest, each.
pub(super) const DEPTH: usize = 64;

/// Dims that one type has at most.
const RANK: usize = 256;

impl<'t> Cursor<'t> {
    /// The next level of `what`; more than [`DEPTH`] are refused.
    pub(super) fn deeper(&self, depth: usize, what: &str) -> Read<usize> {
        if depth < DEPTH {
            return Ok(depth + 1);
        }
        self.fail_at(self.offset(), format!("{what} nest deeper than {DEPTH}"))
    }

    /// An extent; `negative`: a `-` was read already.
    pub(super) fn dim(&mut self, depth: usize, negative: bool) -> Read<Dim> {
        let depth = self.deeper(depth, "extents")?;
        let mut negative = negative || self.eat('-')?;
        let mut terms = Vec::new();
        loop {
            terms.push(self.term(depth, negative)?);
            negative = match self.peek() {
                Token::Mark('+') => false,
                Token::Mark('-') => true,
                _ => return Ok(fold(terms, Dim::ZERO, |a, b| a + b)),
            };
            self.advance()?;
        }
    }

    /// A product; a leading number takes the sign, so that the smallest i64 can be written.
    fn term(&mut self, depth: usize, negative: bool) -> Read<Dim> {
        let (mut factors, mut negative) = (Vec::new(), negative);
        loop {
            let start = self.offset();
            match *self.peek() {
                Token::Int(magnitude) => {
                    self.advance()?;
                    match signed(magnitude, std::mem::take(&mut negative)) {
                        Some(v) => factors.push(Dim::Known(v)),
                        None => return self.fail_at(start, "the extent is outside 64 bits"),
                    }
                }
                Token::Word(word) => {
                    self.advance()?;
                    let join: fn(&Dim, &Dim) -> Dim = match word {
                        "floordiv" => Dim::floordiv,
                        "mod" => Dim::modulo,
                        "min" => Dim::minimum,
                        "max" => Dim::maximum,
                        symbol => {
                            factors.push(Dim::symbol(symbol));
                            if self.eat('*')? {
                                continue;
                            }
                            break;
                        }
                    };
                    self.expect('(')?;
                    let a = self.dim(depth, false)?;
                    self.expect(',')?;
                    let b = self.dim(depth, false)?;
                    self.expect(')')?;
                    factors.push(join(&a, &b));
                }
                _ => return self.expected("an extent: a number, a symbol, floordiv, mod, min or max"),
            }
            if !self.eat('*')? {
                break;
            }
        }
        if negative {
            factors.push(Dim::Known(-1));
        }
        Ok(fold(factors, Dim::ONE, |a, b| a * b))
    }

    /// An element type.
    pub(super) fn dtype(&mut self) -> Read<DType> {
        let start = self.offset();
        let word = self.word("an element type")?;
        match word.parse() {
            Ok(dtype) => Ok(dtype),
            Err(_) => self.fail_at(start, format!("expected an element type, found `{word}`")),
        }
    }

    /// `[dims]` after an element type.
    pub(super) fn tensor_type(&mut self, dtype: DType) -> Read<TensorType> {
        let start = self.offset();
        self.expect('[')?;
        let dims = self.list(']', |c| c.dim(0, false))?;
        if dims.len() > RANK {
            return self.fail_at(start, format!("expected at most {RANK} dims, found {}", dims.len()));
        }
        Ok(TensorType::new(dtype, dims))
    }

    /// Any type.
    pub(super) fn value_type(&mut self, depth: usize) -> Read<ValueType> {
        let depth = self.deeper(depth, "types")?;
        let Token::Word(word) = *self.peek() else { return self.expected("a type") };
        match word {
            "seq" | "optional" => {
                self.advance()?;
                self.expect('<')?;
                let element = Box::new(self.value_type(depth)?);
                self.expect('>')?;
                Ok(if word == "seq" { ValueType::Sequence(element) } else { ValueType::Optional(element) })
            }
            "map" => {
                self.advance()?;
                self.expect('<')?;
                let key = self.dtype()?;
                self.expect(',')?;
                let element = Box::new(self.value_type(depth)?);
                self.expect('>')?;
                Ok(ValueType::Map(key, element))
            }
            "unknown" => {
                self.advance()?;
                Ok(ValueType::Unknown)
            }
            _ => {
                if word.parse::<DType>().is_err() {
                    return self.expected("a type");
                }
                let dtype = self.dtype()?;
                Ok(self.tensor_type(dtype)?.into())
            }
        }
    }

    fn end<T>(&self, value: T) -> Read<T> {
        if *self.peek() == Token::End { Ok(value) } else { self.expected("the end of the text") }
    }
}

/// Combines in pairs, then pairs of pairs: a chain would copy the sum so far at every step.
fn fold(mut items: Vec<Dim>, empty: Dim, join: impl Fn(&Dim, &Dim) -> Dim) -> Dim {
    while items.len() > 1 {
        items = items
            .chunks(2)
            .map(|pair| match pair {
                [a, b] => join(a, b),
                [one] => one.clone(),
                _ => empty.clone(),
            })
            .collect();
    }
    items.pop().unwrap_or(empty)
}

impl FromStr for Dim {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        let mut cursor = Cursor::new("extent", text)?;
        let dim = cursor.dim(0, false)?;
        cursor.end(dim)
    }
}

impl FromStr for ValueType {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        let mut cursor = Cursor::new("type", text)?;
        let ty = cursor.value_type(0)?;
        cursor.end(ty)
    }
}
