//! Module to text.
//!
//! Ops come in dependency order and values are numbered in that order, so two equal functions print alike. Nothing here
//! fails: a function that the verifier refuses prints too, as far as it can (a dead operand is `%dead`).

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use super::attrs;
use super::constants::ConstantPool;
use super::lex::{is_word, quote};
use super::literal::{inline, is_splat};
use crate::graph::{Function, Node, NodeId, SymbolFacts, Value};
use crate::module::Module;
use crate::op::{AttrValue, Op};
use crate::origin::Origin;
use crate::tensor::Tensor;
use crate::types::{DType, ValueType};

/// The version of the text format.
pub(super) const VERSION: usize = 1;

/// What goes into the text.
#[derive(Clone, Debug)]
pub struct PrintOptions {
    /// Tensors of at most this many elements stand in the text.
    pub inline_elements: usize,
    /// Tensors of one repeated element stand in the text up to this many elements.
    pub splat_elements: usize,
    /// Parameters follow these limits too; else all are in the constants file.
    pub inline_params: bool,
    /// Print where ops came from.
    pub origins: bool,
    /// Of source files, print only what [`Origin::short_source`] shows.
    pub short_sources: bool,
    /// Leave out parameters that no function reads.
    pub used_params: bool,
    /// The constants file's name, for the header.
    pub constants_file: Option<String>,
}

impl Default for PrintOptions {
    fn default() -> Self {
        PrintOptions {
            inline_elements: 64,
            splat_elements: 4096,
            inline_params: false,
            origins: true,
            short_sources: false,
            used_params: false,
            constants_file: None,
        }
    }
}

impl PrintOptions {
    /// Everything stands in the text, whatever its size: a text that can be pasted.
    pub fn inline() -> Self {
        PrintOptions { inline_elements: usize::MAX, splat_elements: 1 << 20, inline_params: true, ..Self::default() }
    }
}

/// A module as text; tensors that do not stand in it are added to `pool`.
pub fn print(module: &Module, options: &PrintOptions, pool: &mut ConstantPool) -> String {
    let mut printer = Printer { out: format!("frit {VERSION}\n"), options, pool };
    if !module.source.is_empty() {
        printer.line(0, &format!("source {}", quote(&module.source)));
    }
    if let Some(file) = &options.constants_file {
        printer.line(0, &format!("constants {}", quote(file)));
    }
    let mut used = HashSet::new();
    if options.used_params {
        module.functions.values().for_each(|f| params_of(f, &mut used));
    }
    for (name, param) in module.params.iter().filter(|(name, _)| !options.used_params || used.contains(name.as_str())) {
        let trainable = if param.trainable { " trainable" } else { "" };
        let value = printer.tensor(&param.value, name, options.inline_params);
        printer.line(0, &format!("param {}{trainable} = {value}", quote(name)));
    }
    for (name, function) in &module.functions {
        printer.out.push('\n');
        printer.function("func", name, function, 0);
    }
    printer.out
}

/// Names of the parameters that a function and its regions read.
fn params_of<'f>(f: &'f Function, names: &mut HashSet<&'f str>) {
    for id in f.nodes() {
        let node = f.node(id);
        if let Op::Param { name, .. } = &node.op {
            names.insert(name);
        }
        node.regions().iter().for_each(|region| params_of(region, names));
    }
}

/// One function as text, everything inline: for messages and tests.
pub fn print_function(function: &Function) -> String {
    let options = PrintOptions::inline();
    let mut printer = Printer { out: String::new(), options: &options, pool: &mut ConstantPool::default() };
    printer.function("func", &function.name, function, 0);
    printer.out
}

struct Printer<'p> {
    out: String,
    options: &'p PrintOptions,
    pool: &'p mut ConstantPool,
}

/// Numbers of values, by order of definition.
#[derive(Default)]
struct Names(HashMap<Value, usize>);

impl Names {
    fn define(&mut self, node: NodeId, results: usize) -> String {
        let names: Vec<String> = (0..results)
            .map(|result| {
                let number = self.0.len();
                self.0.insert(Value { node, result }, number);
                format!("%{number}")
            })
            .collect();
        names.join(", ")
    }

    fn of(&self, value: &Value) -> String {
        self.0.get(value).map_or_else(|| "%dead".to_owned(), |number| format!("%{number}"))
    }
}

/// Whether the op's `ty` attribute is the result type that the text states anyway.
pub(super) fn states_type(word: &str) -> bool {
    matches!(word, "input" | "param")
}

impl Printer<'_> {
    fn line(&mut self, depth: usize, text: &str) {
        self.out.extend(std::iter::repeat_n("  ", depth));
        self.out.push_str(text);
        self.out.push('\n');
    }

    /// A tensor: inline, or by the name that it has in the pool.
    fn tensor(&mut self, tensor: &Tensor, wanted: &str, may_inline: bool) -> String {
        let count = tensor.numel();
        let small = count <= self.options.inline_elements || (count <= self.options.splat_elements && is_splat(tensor));
        if tensor.dtype() == DType::Str || (may_inline && small) {
            return inline(tensor);
        }
        format!("{} file({})", tensor.ty(), quote(&self.pool.add(wanted, tensor)))
    }

    fn function(&mut self, keyword: &str, name: &str, f: &Function, depth: usize) {
        let mut names = Names::default();
        let inputs: Vec<String> = f
            .inputs()
            .iter()
            .filter_map(|&id| f.get(id).map(|node| (id, node)))
            .map(|(id, node)| {
                let value = names.define(id, 1);
                let (name, default) = match &node.op {
                    Op::Input { name, .. } => (name.as_str(), Origin::named(name)),
                    _ => ("", Origin::default()),
                };
                let ty = node.results().first().map_or_else(|| "unknown".to_owned(), ToString::to_string);
                format!("{value} {}: {ty}{}", quote(name), self.tail(node, Some(&default)))
            })
            .collect();
        let label = match (keyword, name) {
            ("region", "") => String::new(),
            (_, name) if is_word(name) => format!(" @{name}"),
            (_, name) => format!(" @{}", quote(name)),
        };
        self.line(depth, &format!("{keyword}{label}({}) {{", inputs.join(", ")));
        for (symbol, facts) in &f.symbols {
            self.line(depth + 1, &format!("symbol {symbol} {}", facts_text(facts)));
        }
        for donation in &f.donations {
            self.line(depth + 1, &format!("donate {} -> {}", donation.input, donation.output));
        }
        for requirement in f.requirements() {
            let what =
                if requirement.what.is_empty() { String::new() } else { format!(" {}", quote(&requirement.what)) };
            let origin = self.origin(&requirement.origin);
            self.line(depth + 1, &format!("require {requirement}{what}{origin}"));
        }
        let inputs: HashSet<NodeId> = f.inputs().iter().copied().collect();
        for id in f.toposort().unwrap_or_else(|| f.nodes()) {
            if let Some(node) = f.get(id).filter(|_| !inputs.contains(&id)) {
                self.op(node, id, &mut names, depth + 1);
            }
        }
        let outputs: Vec<String> =
            f.outputs().iter().map(|o| format!("{} = {}", quote(&o.name), names.of(&o.value))).collect();
        self.line(depth + 1, format!("return {}", outputs.join(", ")).trim_end());
        self.line(depth, "}");
    }

    fn op(&mut self, node: &Node, id: NodeId, names: &mut Names, depth: usize) {
        let operands: Vec<String> = node.operands().iter().map(|v| names.of(v)).collect();
        let values = names.define(id, node.results().len());
        let mut text = if values.is_empty() { String::new() } else { format!("{values} = ") };
        text.push_str(node.op.name());
        if !operands.is_empty() {
            let _ = write!(text, "({})", operands.join(", "));
        }
        let mut attributes = node.op.attributes();
        if states_type(node.op.name()) {
            attributes.retain(|(name, value)| {
                !(*name == "ty" && matches!(value, AttrValue::Type(t) if node.results().first() == Some(t)))
            });
        }
        if !attributes.is_empty() {
            let wanted = node.origin.name.as_deref().unwrap_or("constant");
            let attributes = attributes
                .iter()
                .map(|(name, value)| (*name, attrs::value(value, &mut |t| self.tensor(t, wanted, true))))
                .collect();
            let _ = write!(text, " {}", attrs::dict(attributes));
        }
        let types: Vec<String> = node.results().iter().map(ValueType::to_string).collect();
        let _ = match types.as_slice() {
            [one] => write!(text, " : {one}"),
            several => write!(text, " : ({})", several.join(", ")),
        };
        text.push_str(&self.tail(node, None));
        self.line(depth, &text);
        for region in node.regions() {
            self.function("region", &region.name, region, depth + 1);
        }
    }

    /// Numerics and origin, as far as they differ from the default.
    fn tail(&self, node: &Node, default: Option<&Origin>) -> String {
        let mut text = String::new();
        let numerics = node.numerics;
        let flags = [
            (numerics.contract, "contract"),
            (numerics.reassociate, "reassociate"),
            (numerics.approximate, "approximate"),
        ];
        let flags: Vec<&str> = flags.iter().filter(|(on, _)| *on).map(|(_, word)| *word).collect();
        if !flags.is_empty() {
            let _ = write!(text, " math({})", flags.join(", "));
        }
        if default != Some(&node.origin) {
            text.push_str(&self.origin(&node.origin));
        }
        text
    }

    fn origin(&self, origin: &Origin) -> String {
        let mut text = String::new();
        if !self.options.origins {
            return text;
        }
        let source = match self.options.short_sources {
            true => origin.short_source(),
            false => origin.source.as_deref().map(str::to_owned),
        };
        match (origin.name.as_deref(), source.as_deref()) {
            (None, None) => text.push_str(" at none"),
            (name, source) => {
                for (word, part) in [("at", name), ("from", source)] {
                    if let Some(part) = part {
                        let _ = write!(text, " {word} {}", quote(part));
                    }
                }
            }
        }
        text
    }
}

fn facts_text(facts: &SymbolFacts) -> String {
    let default = SymbolFacts::default();
    let mut parts = Vec::new();
    if facts.min != default.min {
        parts.push(("min", facts.min.to_string()));
    }
    if let Some(max) = facts.max {
        parts.push(("max", max.to_string()));
    }
    if facts.multiple_of != default.multiple_of {
        parts.push(("multiple_of", facts.multiple_of.to_string()));
    }
    attrs::dict(parts)
}
