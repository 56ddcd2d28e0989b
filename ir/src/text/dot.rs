//! A function as a Graphviz drawing: ops as boxes, values as arrows with their types, regions as frames.

use std::collections::HashMap;
use std::fmt::Write as _;

use crate::graph::{Function, NodeId};
use crate::op::{AttrValue, Op, OpClass};

/// Characters of a label's line.
const WIDTH: usize = 48;

/// The drawing, in the DOT language.
pub fn dot(function: &Function) -> String {
    let mut drawing = Drawing { out: String::new(), count: 0 };
    let _ = writeln!(drawing.out, "digraph {} {{", quoted(&function.name));
    drawing.out.push_str("  node [shape=box, style=\"rounded,filled\", fontname=\"monospace\", fontsize=10];\n");
    drawing.out.push_str("  edge [fontname=\"monospace\", fontsize=9];\n");
    drawing.function(function, 1);
    drawing.out.push_str("}\n");
    drawing.out
}

struct Drawing {
    out: String,
    /// Boxes and frames so far: their names.
    count: usize,
}

impl Drawing {
    fn function(&mut self, f: &Function, depth: usize) {
        let indent = "  ".repeat(depth);
        let ids = f.toposort().unwrap_or_else(|| f.nodes());
        let mut boxes: HashMap<NodeId, usize> = HashMap::with_capacity(ids.len());
        for &id in &ids {
            let Some(node) = f.get(id) else { continue };
            let number = self.next();
            boxes.insert(id, number);
            let mut label = vec![title(&node.op)];
            label.extend(node.results().iter().map(ToString::to_string));
            if !node.origin.is_empty() {
                label.push(node.origin.to_string());
            }
            let label: Vec<String> = label.iter().map(|line| short(line)).collect();
            let color = color(node.op.class());
            let label = quoted(&label.join("\n"));
            let _ = writeln!(self.out, "{indent}n{number} [label={label}, fillcolor=\"{color}\"];");
            for (operand, value) in node.operands().iter().enumerate() {
                let Some(from) = boxes.get(&value.node) else { continue };
                let port = if node.operands().len() > 1 { operand.to_string() } else { String::new() };
                let _ = writeln!(self.out, "{indent}n{from} -> n{number} [label={}];", quoted(&port));
            }
            for (i, region) in node.regions().iter().enumerate() {
                let frame = self.next();
                let _ = writeln!(self.out, "{indent}subgraph cluster_{frame} {{");
                let label = quoted(&format!("{} region {i}", node.op.name()));
                let _ = writeln!(self.out, "{indent}  label={label}; fontname=\"monospace\"; fontsize=9;");
                let inside = self.count;
                self.function(region, depth + 1);
                let _ = writeln!(self.out, "{indent}}}");
                if self.count > inside {
                    let _ = writeln!(self.out, "{indent}n{number} -> n{inside} [style=dashed, arrowhead=none];");
                }
            }
        }
        for output in f.outputs() {
            let number = self.next();
            let label = quoted(&short(&output.name));
            let _ = writeln!(self.out, "{indent}n{number} [label={label}, shape=ellipse, fillcolor=white];");
            if let Some(from) = boxes.get(&output.value.node) {
                let _ = writeln!(self.out, "{indent}n{from} -> n{number};");
            }
        }
    }

    fn next(&mut self) -> usize {
        let number = self.count;
        self.count += 1;
        number
    }
}

/// The op's word and its short attributes.
fn title(op: &Op) -> String {
    let attributes: Vec<String> = op
        .attributes()
        .iter()
        .filter(|(_, value)| !matches!(value, AttrValue::Tensor(_) | AttrValue::Type(_) | AttrValue::Dict(_)))
        .map(|(name, value)| format!("{name}={}", super::attrs::value(value, &mut |t| t.ty().to_string())))
        .collect();
    format!("{} {}", op.name(), attributes.join(" ")).trim_end().to_owned()
}

fn color(class: OpClass) -> &'static str {
    match class {
        OpClass::Source => "#dddddd",
        OpClass::Elementwise => "#cfe8cf",
        OpClass::Movement => "#cfdff2",
        OpClass::Reduction => "#f2e3c2",
        OpClass::Contraction => "#f2cfc2",
        OpClass::Control => "#e3cff2",
        OpClass::Host | OpClass::Foreign => "#f2cfe0",
    }
}

fn short(text: &str) -> String {
    if text.chars().count() <= WIDTH {
        return text.to_owned();
    }
    text.chars().take(WIDTH - 2).chain("..".chars()).collect()
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
