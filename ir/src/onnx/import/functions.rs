//! Calls of model-local functions, inlined.
//!
//! A function sees nothing of its caller but its operands and attributes. Functions that call each other twice double
//! at every level, so all of it has a budget; recursion has no meaning and is refused.

use prost::Message;

use super::super::error::{MissingKind, OnnxError};
use super::super::proto::{AttributeType, FunctionProto, NodeProto};
use super::attributes::{Arguments, kind, resolve};
use super::body::Context;
use super::origin::origin;
use super::scope::{Binding, Body, Scope};
use super::{Importer, imported, normal};

/// Domain, name and overload.
pub(super) type FunctionKey<'a> = (&'a str, &'a str, &'a str);

/// Bytes of nodes that inlining may copy, each node counted with [`NODE_COST`] on top of its own.
pub(super) const INLINE_BUDGET: usize = 64 << 20;

/// What a node costs as an op.
const NODE_COST: usize = 1 << 10;

impl<'a> Importer<'a> {
    /// Emits the body of `function` in place of `node`.
    pub(super) fn inline(
        &mut self,
        node: &'a NodeProto,
        function: &'a FunctionProto,
        body: &mut Body,
        scope: &mut Scope<'a>,
        context: &Context<'_, 'a>,
    ) -> Result<(), OnnxError> {
        let key = (normal(function.domain()), function.name(), function.overload());
        if context.calls.contains(&key) {
            return Err(OnnxError::invalid(format!("function `{}`", function.name()), "calls itself"));
        }
        let calls: Vec<FunctionKey<'a>> = context.calls.iter().copied().chain([key]).collect();
        let opsets = match imported(&function.opset_import)? {
            own if own.is_empty() => context.opsets.clone(),
            own => own,
        };
        let arguments = self.arguments(node, function, context)?;
        let mut inner = Scope::default();
        if node.input.len() > function.input.len() {
            let what = format!("takes {} operands, not {}", function.input.len(), node.input.len());
            return Err(OnnxError::invalid(format!("function `{}`", function.name()), what));
        }
        for (index, parameter) in function.input.iter().enumerate() {
            let operand = node.input.get(index).map_or("", String::as_str);
            inner.bind(parameter, self.lookup(operand, scope)?)?;
        }
        let caller = origin(node, context.caller);
        let context = Context {
            opsets: &opsets,
            arguments: Some(&arguments),
            caller: Some(&caller),
            calls: &calls,
            types: &Default::default(),
            depth: context.deeper()?,
        };
        let cost: usize = function.node.iter().map(|n| n.encoded_len() + NODE_COST).sum();
        let Some(left) = self.inline_budget.checked_sub(cost) else {
            return Err(OnnxError::limit(
                format!("function `{}`", function.name()),
                "the model's calls expand too far",
            ));
        };
        self.inline_budget = left;
        self.nodes(&function.node, body, &mut inner, &context)?;
        if node.output.len() > function.output.len() {
            let what = format!("gives {} results, not {}", function.output.len(), node.output.len());
            return Err(OnnxError::invalid(format!("function `{}`", function.name()), what));
        }
        for (output, result) in node.output.iter().zip(&function.output).filter(|(output, _)| !output.is_empty()) {
            let binding = self.lookup(result, &inner)?;
            if matches!(binding, Binding::Absent) {
                return Err(OnnxError::invalid(format!("result `{output}`"), "is an operand that the call leaves out"));
            }
            scope.bind(output, binding)?;
        }
        Ok(())
    }

    fn arguments(
        &mut self,
        node: &'a NodeProto,
        function: &'a FunctionProto,
        context: &Context<'_, 'a>,
    ) -> Result<Arguments<'a>, OnnxError> {
        let defaults = function.attribute_proto.iter().map(|a| (a.name(), a));
        let mut arguments: Arguments<'a> = defaults.collect();
        for (name, value) in resolve(node, context.arguments)? {
            if matches!(kind(value)?, AttributeType::Graph | AttributeType::Graphs) {
                // Its names belong to the caller, where the body can't see them.
                let what = format!("{}.{name} = graph", function.name());
                self.report.add(MissingKind::Attribute, function.domain(), 0, &what, node.name());
            }
            arguments.insert(name, value);
        }
        Ok(arguments)
    }
}
