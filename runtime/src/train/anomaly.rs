//! Which op gave the first value that is not finite.
//!
//! In: a training step as it is before passes restructure it, and a batch with the state from before the step. Out: the
//! op and its origin. Every float of the step gets a *tap*, a number that says whether all its elements are finite; the
//! step is compiled with its taps as outputs and run once. From the result that is not finite the search goes back over
//! values that are not; the first op, in the order in which they run, that made one of finite operands is named.
//!
//! ```text
//!  x --> exp --> div --> loss          taps: exp inf, div NaN, loss NaN
//!         '--> sum --^                 back from loss: div, sum, exp; exp had finite operands
//! ```
//!
//! Infinities that do no harm (a mask of -inf that a softmax turns into zeros) are not on that way.

use std::collections::{HashMap, HashSet};

use frit_compiler::driver::{pipeline, run_passes};
use frit_ir::builder::Builder;
use frit_ir::op::infer::TypeError;
use frit_ir::{BinaryOp, DType, Function, Module, NodeId, Op, ReduceKind, UnaryOp, Value};
use indexmap::IndexMap;

use super::StepperError;
use crate::compile::CompileOptions;
use crate::load::LoadError;
use crate::session::{InputRef, Model, RunError};

/// Passes that write a step out without changing its values.
const PLAIN: &str = "legalize,shape,canonicalize,grad";
/// Passes over a step with taps: kernels, so that it need not keep every value.
const TAPPED: &str = "canonicalize,fuse(max-ops=64)";

/// What a tap says: finite, an infinity, NaN.
const FINITE: i32 = 0;
const NAN: i32 = 2;

/// A step whose values can be asked for.
pub(super) struct Search {
    module: Module,
    options: CompileOptions,
}

impl Search {
    /// Of a module's functions; `options` are those of the run.
    pub(super) fn new(module: Module, options: CompileOptions) -> Search {
        Search { module, options }
    }

    /// The module.
    pub(super) fn module(&self) -> &Module {
        &self.module
    }

    /// Names the op that gave the first value that is not finite, on the way to the output `result` of `function`;
    /// `None` when that is finite here: then passes made the value.
    ///
    /// # Errors
    /// What the compiler or the run refuses.
    pub(super) fn find<'i>(
        &self,
        function: &str,
        result: &str,
        input: impl Fn(&str) -> Option<InputRef<'i>>,
    ) -> Result<Option<String>, StepperError> {
        let mut module = self.module.clone();
        module.functions.retain(|name, _| name == function);
        let mut options = CompileOptions {
            passes: Some(PLAIN.to_owned()),
            fuel: None,
            dump_dir: None,
            verify_each: false,
            ..self.options.clone()
        };
        let plain = pipeline(&options).map_err(LoadError::Compile)?;
        run_passes(&mut module, &plain, &options).map_err(LoadError::Compile)?;
        let internal = |message: &str| RunError::Internal(format!("`{function}` with taps: {message}"));
        let f = module.functions.get(function).ok_or_else(|| internal("no such function"))?;
        let bad = f.outputs().iter().find(|output| output.name == result);
        let bad = bad.ok_or_else(|| internal("no such output"))?.value;
        let order = f.toposort().ok_or_else(|| internal("a cycle"))?;
        let (tapped, taps) = tapped(f, &order).map_err(|error| internal(&error.to_string()))?;
        let alone = Module {
            functions: IndexMap::from([(function.to_owned(), tapped)]),
            params: module.params.clone(),
            source: module.source.clone(),
        };
        options.passes = Some(TAPPED.to_owned());
        let model = Model::compile(alone, &options)?.model;
        let mut inputs = Vec::with_capacity(model.inputs().len());
        for port in model.inputs() {
            inputs.push(input(&port.name).ok_or_else(|| internal(&format!("no value for input `{}`", port.name)))?);
        }
        let mut context = model.context();
        context.run(&inputs)?;
        let mut found = HashMap::with_capacity(taps.len());
        for (index, value) in taps.into_iter().enumerate() {
            let tap = context.output(index)?.tensor();
            let said = tap.and_then(|view| bytemuck::try_pod_read_unaligned::<i32>(view.data).ok());
            found.insert(value, said.ok_or_else(|| internal("a tap is no number"))?.max(FINITE));
        }
        Ok(first(f, &order, &found, bad))
    }
}

/// A copy of a function whose outputs are taps: one for each of its float values, behind the op that makes it, so that
/// no value has to live until the end.
fn tapped(f: &Function, order: &[NodeId]) -> Result<(Function, Vec<Value>), TypeError> {
    let mut copy = Function::new(&f.name);
    copy.symbols.clone_from(&f.symbols);
    f.requirements().iter().for_each(|r| copy.require(r.clone()));
    let mut copies: HashMap<NodeId, NodeId> = HashMap::new();
    let mut taps: Vec<(Value, Value)> = Vec::new();
    // Inputs in the order of the function, then the rest as it runs.
    let inputs: HashSet<NodeId> = f.inputs().iter().copied().collect();
    let rest = order.iter().filter(|id| !inputs.contains(id));
    for &id in f.inputs().iter().chain(rest) {
        let node = f.node(id);
        let made = match &node.op {
            Op::Input { name, ty } => copy.add_input(name, ty.clone()).node,
            _ => {
                let moved = |v: &Value| Value { node: copies.get(&v.node).copied().unwrap_or(v.node), ..*v };
                let operands: Vec<Value> = node.operands().iter().map(moved).collect();
                copy.add_copy(node, &operands)
            }
        };
        copies.insert(id, made);
        for (result, ty) in node.results().iter().enumerate() {
            let Some(ty) = ty.tensor().filter(|ty| ty.dtype.is_float()) else { continue };
            let mut b = Builder::new(&mut copy, node.origin.clone());
            let tap = tap(&mut b, Value { node: made, result }, ty.dtype)?;
            taps.push((Value { node: id, result }, tap));
        }
    }
    for (i, (_, tap)) in taps.iter().enumerate() {
        copy.add_output(&format!("tap{i}"), *tap);
    }
    Ok((copy, taps.into_iter().map(|(value, _)| value).collect()))
}

/// The worst of a value's elements, as an i32 scalar.
fn tap(b: &mut Builder<'_>, value: Value, dtype: DType) -> Result<Value, TypeError> {
    let rank = b.dims(value)?.len();
    let magnitude = b.unary(UnaryOp::Abs, value)?;
    let infinity = b.scalar(dtype, f64::INFINITY)?;
    let finite = b.binary(BinaryOp::Lt, magnitude, infinity)?;
    let same = b.binary(BinaryOp::Eq, value, value)?;
    let (finite, same) = (b.unary(UnaryOp::Not, finite)?, b.unary(UnaryOp::Not, same)?);
    let (finite, same) = (b.cast(finite, DType::I32)?, b.cast(same, DType::I32)?);
    let worst = b.binary(BinaryOp::Add, finite, same)?;
    b.reduce(worst, (0..rank).collect(), ReduceKind::Max, false)
}

/// The op that is to blame for `bad`, in words.
fn first(f: &Function, order: &[NodeId], taps: &HashMap<Value, i32>, bad: Value) -> Option<String> {
    let said = |value: &Value| taps.get(value).copied().unwrap_or(FINITE);
    let (mut way, mut open) = (HashSet::new(), vec![bad]);
    while let Some(value) = open.pop() {
        if said(&value) != FINITE && way.insert(value.node) {
            open.extend(f.node(value.node).operands());
        }
    }
    let worst = |id: NodeId| (0..f.node(id).results().len()).map(|result| said(&Value { node: id, result })).max();
    let operands = |id: NodeId| f.node(id).operands().iter().map(said).max();
    let on_the_way = || order.iter().copied().filter(|id| way.contains(id));
    // Infinities may come from outside (a mask); then what turned them into NaN is to blame.
    let made = on_the_way().find(|id| operands(*id) == Some(FINITE));
    let made = made.or_else(|| on_the_way().find(|id| worst(*id) == Some(NAN) && operands(*id) < Some(NAN)));
    let id = made.or_else(|| on_the_way().next())?;
    let (node, kind) = (f.node(id), if worst(id) == Some(NAN) { "NaN" } else { "an infinity" });
    let types: Vec<String> = node.results().iter().map(ToString::to_string).collect();
    Some(match &node.op {
        Op::Input { name, .. } | Op::Param { name, .. } => format!("`{name}` has {kind} before the step"),
        op => {
            let from = if operands(id) == Some(FINITE) { " of finite operands" } else { "" };
            // The first output is the loss.
            let forward = f.behind(f.outputs().first().map(|output| output.value)).contains(&id);
            let part = if forward { "" } else { "in the gradient or update, " };
            format!("`{}` of `{}` ({part}{}) gives {kind}{from}", op.name(), node.origin, types.join(", "))
        }
    })
}

#[cfg(test)]
mod tests {
    use frit_ir::Tensor;
    use frit_ir::text::{NoConstants, from_text};

    use super::*;

    fn blamed(body: &str, x: [f32; 2]) -> Option<String> {
        let text = format!("frit 1\nfunc @train_step(%x \"x\": f32[2]) {{\n{body}  return \"loss\" = %loss\n}}\n");
        let module = from_text(&text, &NoConstants).unwrap();
        let search = Search::new(module, CompileOptions::default());
        let x = Tensor::f32(&[2], &x).unwrap();
        search.find("train_step", "loss", |name| (name == "x").then(|| (&x).into())).unwrap()
    }

    const QUOTIENT: &str = "  %e = exp(%x) at \"layer.exp\"\n  %s = reduce(%e) {axes = [0], kind = #sum} at \"layer.sum\"\n  \
                            %b = broadcast(%s) {dims = [2], axes = []} at \"layer.sum\"\n  \
                            %q = div(%e, %b) at \"layer.quotient\"\n  \
                            %loss = reduce(%q) {axes = [0], kind = #sum} at \"loss\"\n";

    #[test]
    fn the_op_that_overflows_is_named_and_not_what_follows() {
        let said = blamed(QUOTIENT, [1.0, 100.0]).unwrap();
        assert_eq!(said, "`exp` of `layer.exp` (f32[2]) gives an infinity of finite operands");
        assert_eq!(blamed(QUOTIENT, [1.0, 2.0]), None);
        assert_eq!(blamed(QUOTIENT, [1.0, f32::NAN]).unwrap(), "`x` has NaN before the step");
    }

    #[test]
    fn infinities_that_do_no_harm_are_not_blamed() {
        // log(0) is -inf, and exp makes 0 of it; the square root of -1 is what is wrong.
        let body = "  %l = log(%x) at \"mask\"\n  %e = exp(%l) at \"soft\"\n  %c = cos(%e) at \"one\"\n  \
                    %n = neg(%c) at \"minus\"\n  %r = sqrt(%n) at \"root\"\n  \
                    %loss = reduce(%r) {axes = [0], kind = #sum} at \"loss\"\n";
        let said = blamed(body, [0.0, 0.0]).unwrap();
        assert_eq!(said, "`sqrt` of `root` (f32[2]) gives NaN of finite operands");
    }
}
