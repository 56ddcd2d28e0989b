//! Text to module.
//!
//! Every op's types are inferred again and compared with what the text states (a text may leave them out); `call`,
//! `onnx` and `absent` are believed. Unchecked reading believes every op, so that the verifier can be shown what it
//! refuses. Memory stays in proportion to the text: lists grow as they are read, nesting is limited.

use std::collections::{BTreeMap, HashMap};

use super::constants::ConstantSource;
use super::error::TextError;
use super::lex::{Cursor, Read, Token};
use super::literal::Tensors;
use super::print::{VERSION, states_type};
use crate::graph::{Donation, Function, SymbolFacts, Value};
use crate::module::{Module, Param};
use crate::op::infer::{Signature, infer};
use crate::op::{AttrValue, Numerics, Op};
use crate::origin::Origin;
use crate::requirement::{Relation, Requirement};
use crate::types::{Symbol, ValueType};

/// Reads a module. `name` stands for the text in messages.
pub(super) fn module(name: &str, text: &str, source: &dyn ConstantSource, checked: bool) -> Result<Module, TextError> {
    let parser = Parser { cursor: Cursor::new(name, text)?, tensors: Tensors::new(source), checked };
    parser.module()
}

struct Parser<'t, 's> {
    cursor: Cursor<'t>,
    tensors: Tensors<'s>,
    checked: bool,
}

/// Values of a function by their names in the text.
type Scope<'t> = HashMap<&'t str, Value>;

impl<'t> Parser<'t, '_> {
    fn module(mut self) -> Read<Module> {
        let mut module = Module::default();
        loop {
            let start = self.cursor.offset();
            let word = match *self.cursor.peek() {
                Token::End => return Ok(module),
                Token::Word(word) => word,
                _ => return self.cursor.expected("`param` or `func`"),
            };
            match word {
                "frit" => {
                    self.cursor.advance()?;
                    let version = self.cursor.index("the version of the format")?;
                    if version != VERSION {
                        let message =
                            format!("this is version {version} of the format; version {VERSION} is read here");
                        return self.cursor.fail_at(start, message);
                    }
                }
                "source" => {
                    self.cursor.advance()?;
                    module.source = self.cursor.quoted_text("a quoted path or name")?;
                }
                "constants" => {
                    self.cursor.advance()?;
                    self.tensors.file = Some(self.cursor.quoted_text("a quoted file name")?);
                }
                "param" => {
                    self.cursor.advance()?;
                    let (name, param) = self.param()?;
                    if module.params.insert(name, param).is_some() {
                        return self.cursor.fail_at(start, "the parameter is given twice");
                    }
                }
                "func" => {
                    self.cursor.advance()?;
                    let function = self.function(0)?;
                    if module.functions.insert(function.name.clone(), function).is_some() {
                        return self.cursor.fail_at(start, "the function is given twice");
                    }
                }
                _ => return self.cursor.expected("`frit`, `source`, `constants`, `param` or `func`"),
            }
        }
    }

    fn param(&mut self) -> Read<(String, Param)> {
        let name = self.cursor.quoted_text("the parameter's quoted name")?;
        let trainable = self.cursor.eat_word("trainable")?;
        self.cursor.expect('=')?;
        let dtype = self.cursor.dtype()?;
        let ty = self.cursor.tensor_type(dtype)?;
        if !self.cursor.at_literal() {
            return self.cursor.expected("`dense`, `splat` or `file`");
        }
        let value = self.cursor.literal(&ty, &mut self.tensors)?;
        Ok((name, Param { value, trainable }))
    }

    /// A function or region after its keyword.
    fn function(&mut self, depth: usize) -> Read<Function> {
        let depth = self.cursor.deeper(depth, "regions")?;
        let mut f = Function::default();
        if self.cursor.eat('@')? {
            f.name = match self.cursor.peek() {
                Token::Text(_) => self.cursor.quoted_text("a name")?,
                _ => self.cursor.word("a function's name")?.to_owned(),
            };
        }
        let mut scope = Scope::new();
        self.cursor.expect('(')?;
        if !self.cursor.eat(')')? {
            loop {
                self.input(&mut f, &mut scope)?;
                if self.cursor.eat(')')? {
                    break;
                }
                if !self.cursor.eat(',')? {
                    return self.cursor.expected("`,` or `)`");
                }
            }
        }
        self.cursor.expect('{')?;
        loop {
            match *self.cursor.peek() {
                Token::Word("symbol") => self.symbol(&mut f)?,
                Token::Word("donate") => {
                    self.cursor.advance()?;
                    let input = self.cursor.index("the index of an input")?;
                    if *self.cursor.peek() != Token::Arrow {
                        return self.cursor.expected("`->`");
                    }
                    self.cursor.advance()?;
                    let output = self.cursor.index("the index of an output")?;
                    f.donations.push(Donation { input, output });
                }
                Token::Word("require") => self.requirement(&mut f)?,
                Token::Word("return") => break,
                _ => self.op(&mut f, &mut scope, depth)?,
            }
        }
        self.cursor.advance()?;
        if !self.cursor.eat('}')? {
            self.cursor.list('}', |c| {
                let name = c.quoted_text("an output's quoted name")?;
                c.expect('=')?;
                let value = operand(c, &scope)?;
                f.add_output(&name, value);
                Ok(())
            })?;
        }
        Ok(f)
    }

    fn input(&mut self, f: &mut Function, scope: &mut Scope<'t>) -> Read<()> {
        let start = self.cursor.offset();
        let value_name = self.cursor.value()?;
        let name = self.cursor.quoted_text("the input's quoted name")?;
        self.cursor.expect(':')?;
        let ty = self.cursor.value_type(0)?;
        let value = f.add_input(&name, ty);
        let (numerics, origin) = self.tail()?;
        f.set_numerics(value.node, numerics);
        if let Some(origin) = origin {
            f.set_origin(value.node, origin);
        }
        self.define(scope, value_name, value, start)
    }

    fn define(&self, scope: &mut Scope<'t>, name: &'t str, value: Value, start: usize) -> Read<()> {
        match scope.insert(name, value) {
            None => Ok(()),
            Some(_) => self.cursor.fail_at(start, format!("`%{name}` is defined twice")),
        }
    }

    fn symbol(&mut self, f: &mut Function) -> Read<()> {
        self.cursor.advance()?;
        let start = self.cursor.offset();
        let name = self.cursor.word("a symbol")?;
        let mut facts = SymbolFacts::default();
        self.cursor.expect('{')?;
        self.cursor.list('}', |c| {
            let start = c.offset();
            let word = c.word("`min`, `max` or `multiple_of`")?;
            c.expect('=')?;
            let value = c.integer()?;
            match word {
                "min" => facts.min = value,
                "max" => facts.max = Some(value),
                "multiple_of" => facts.multiple_of = value,
                _ => return c.fail_at(start, format!("expected `min`, `max` or `multiple_of`, found `{word}`")),
            }
            Ok(())
        })?;
        match f.symbols.insert(Symbol::new(name), facts) {
            None => Ok(()),
            Some(_) => self.cursor.fail_at(start, format!("the facts of `{name}` are given twice")),
        }
    }

    /// `require equal(a, b) "which they are" at "origin"`.
    fn requirement(&mut self, f: &mut Function) -> Read<()> {
        let line = self.cursor.line();
        self.cursor.advance()?;
        let start = self.cursor.offset();
        let word = self.cursor.word("`equal`, `at_most` or `one_or`")?;
        let Some(relation) = Relation::ALL.into_iter().find(|r| r.name() == word) else {
            return self.cursor.fail_at(start, format!("expected `equal`, `at_most` or `one_or`, found `{word}`"));
        };
        self.cursor.expect('(')?;
        let left = self.cursor.dim(0, false)?;
        self.cursor.expect(',')?;
        let right = self.cursor.dim(0, false)?;
        self.cursor.expect(')')?;
        let what = match self.cursor.peek() {
            Token::Text(_) => self.cursor.quoted_text("a quoted text")?,
            _ => String::new(),
        };
        let origin = self.origin()?.unwrap_or_else(|| Origin::named(format!("line {line}")));
        f.require(Requirement { relation, left, right, what, origin });
        Ok(())
    }

    fn op(&mut self, f: &mut Function, scope: &mut Scope<'t>, depth: usize) -> Read<()> {
        let line = self.cursor.line();
        let mut names = Vec::new();
        if matches!(self.cursor.peek(), Token::Value(_)) {
            loop {
                let offset = self.cursor.offset();
                names.push((self.cursor.value()?, offset));
                if !self.cursor.eat(',')? {
                    break;
                }
            }
            self.cursor.expect('=')?;
        }
        let start = self.cursor.offset();
        let word = self.cursor.word("an op, `return` or `}`")?;
        let operands = match self.cursor.eat('(')? {
            true => self.cursor.list(')', |c| operand(c, scope))?,
            false => Vec::new(),
        };
        let mut attributes = match self.cursor.eat('{')? {
            true => self.cursor.attributes(0, &mut self.tensors)?,
            false => BTreeMap::new(),
        };
        let stated = self.stated_types()?;
        let (numerics, origin) = self.tail()?;
        let mut regions = Vec::new();
        while self.cursor.eat_word("region")? {
            regions.push(self.function(depth)?);
        }
        if let Some([ty]) = stated.as_deref()
            && states_type(word)
        {
            attributes.entry("ty".to_owned()).or_insert_with(|| AttrValue::Type(ty.clone()));
        }
        let op = match Op::from_parts(word, &attributes) {
            Ok(op) => op,
            Err(message) => return self.cursor.fail_at(start, message),
        };
        let results = self.result_types(f, &op, &operands, &regions, stated, start)?;
        if results.len() != names.len() {
            let message = format!("`{word}` gives {} values, the text names {}", results.len(), names.len());
            return self.cursor.fail_at(start, message);
        }
        let origin = origin.unwrap_or_else(|| Origin::named(format!("line {line}")));
        let node = f.add_typed(op, &operands, results, regions, &origin);
        f.set_numerics(node, numerics);
        for (result, (name, offset)) in names.into_iter().enumerate() {
            self.define(scope, name, Value { node, result }, offset)?;
        }
        Ok(())
    }

    /// `: type` or `: (types)`.
    fn stated_types(&mut self) -> Read<Option<Vec<ValueType>>> {
        if !self.cursor.eat(':')? {
            return Ok(None);
        }
        if self.cursor.eat('(')? {
            return self.cursor.list(')', |c| c.value_type(0)).map(Some);
        }
        Ok(Some(vec![self.cursor.value_type(0)?]))
    }

    /// Numerics and origin; `None`: the text gives no origin.
    fn tail(&mut self) -> Read<(Numerics, Option<Origin>)> {
        let c = &mut self.cursor;
        let mut numerics = Numerics::STRICT;
        if c.eat_word("math")? {
            c.expect('(')?;
            c.list(')', |c| {
                let start = c.offset();
                match c.word("`contract`, `reassociate` or `approximate`")? {
                    "contract" => numerics.contract = true,
                    "reassociate" => numerics.reassociate = true,
                    "approximate" => numerics.approximate = true,
                    other => {
                        let message = format!("expected `contract`, `reassociate` or `approximate`, found `{other}`");
                        return c.fail_at(start, message);
                    }
                }
                Ok(())
            })?;
        }
        Ok((numerics, self.origin()?))
    }

    /// Where something came from; `None`: the text does not say.
    fn origin(&mut self) -> Read<Option<Origin>> {
        let c = &mut self.cursor;
        let mut origin: Option<Origin> = None;
        if c.eat_word("at")? {
            let at = origin.get_or_insert_default();
            if !c.eat_word("none")? {
                at.name = Some(c.quoted_text("a quoted origin or `none`")?.into());
            }
        }
        if c.eat_word("from")? {
            origin.get_or_insert_default().source = Some(c.quoted_text("a quoted place in a source file")?.into());
        }
        Ok(origin)
    }

    fn result_types(
        &self,
        f: &Function,
        op: &Op,
        operands: &[Value],
        regions: &[Function],
        stated: Option<Vec<ValueType>>,
        start: usize,
    ) -> Read<Vec<ValueType>> {
        let believed = !self.checked || matches!(op, Op::Call { .. } | Op::Onnx { .. } | Op::Absent {});
        match stated {
            Some(types) if believed => return Ok(types),
            _ => {}
        }
        let types: Vec<&ValueType> = operands.iter().map(|v| f.ty(*v)).collect();
        let signatures: Vec<Signature> = regions.iter().map(Function::signature).collect();
        let inferred = match infer(op, &types, &signatures) {
            Ok(types) => types,
            Err(e) => return self.cursor.fail_at(start, e.to_string()),
        };
        match stated {
            Some(stated) if stated != inferred => {
                let message = format!("`{}` gives {}, the text says {}", op.name(), list(&inferred), list(&stated));
                self.cursor.fail_at(start, message)
            }
            _ => Ok(inferred),
        }
    }
}

fn list(types: &[ValueType]) -> String {
    let texts: Vec<String> = types.iter().map(ToString::to_string).collect();
    if let [one] = texts.as_slice() { one.clone() } else { format!("({})", texts.join(", ")) }
}

/// A value that was defined before.
fn operand(cursor: &mut Cursor, scope: &Scope) -> Read<Value> {
    let start = cursor.offset();
    let name = cursor.value()?;
    match scope.get(name) {
        Some(value) => Ok(*value),
        None => cursor.fail_at(start, format!("`%{name}` is not defined above")),
    }
}
