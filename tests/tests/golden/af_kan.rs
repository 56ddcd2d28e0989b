//! AF-KAN cases: `meta` says which network, `p.*` are its parameters, `x` and `y` what goes in and comes out.
//!
//! `gy` is the gradient of y, `gx` that of x, `g.*` those of the parameters.
//!
//! A file may hold parameters that its methods never use: their gradients `g.*` are zero. One that has a gradient and
//! is not known here is a failure, as is one that the network takes and the file lacks.

use std::collections::BTreeMap;

use frit_compiler::driver::{Options, compile};
use frit_ir::convert::to_f64s;
use frit_ir::model::{AfKan, Combination, Norm};
use frit_ir::random::Philox;
use frit_ir::reference::{Options as Evaluate, eval_function};
use frit_ir::{Function, HostValue, Module, Op, Origin, Tensor, Value};
use frit_passes::manager::{Level, Math};
use frit_runtime::Model;
use serde_json::Value as Json;

use super::file::{Case, differs, largest, single};

/// Share of a tensor's largest element that values may be off.
const RELATIVE: f64 = 1e-4;
/// Share of the largest of all gradients that any may be off: what is 0 mathematically is a sum of terms of that size.
const CANCELLED: f64 = 1e-6;
/// How many times the spread of plain f32 arithmetic a gradient may be off where that is more.
const SPREADS: f64 = 4.0;
/// Share of a tensor's largest element, and of the largest of all gradients, that no spread excuses.
const INEXCUSABLE: (f64, f64) = (1e-2, 1e-4);
/// Inputs beyond this are far from every basis: gradients must be finite there, for most underflow in one order of
/// evaluation and not in another.
const FAR: f64 = 16.0;

/// The record of a case that is an AF-KAN.
pub(crate) fn meta(case: &Case) -> Option<Json> {
    let meta: Json = serde_json::from_slice(case.get("meta")?.bytes()).ok()?;
    ["layers", "methods", "func"].iter().all(|key| meta.get(key).is_some()).then_some(meta)
}

/// What a case has shown.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// All that is wrong.
    pub(crate) wrong: Vec<String>,
    /// Gradients beyond [`RELATIVE`] that plain f32 arithmetic doesn't get any better.
    pub(crate) rounded: Vec<String>,
}

/// Checks a case in fast and strict math.
pub(crate) fn check(case: &Case, meta: &Json) -> Checked {
    let mut checked = Checked::default();
    let prepared = config(meta).and_then(|(config, train)| Ok((network(case, &config)?, train)));
    match prepared {
        Err(e) => checked.wrong.push(e),
        Ok((module, train)) => {
            let entry = if train && module.functions.contains_key("train") { "train" } else { "infer" };
            for math in [Math::Fast, Math::Strict] {
                if let Err(e) = forward(case, &module, entry, math) {
                    checked.wrong.push(format!("{math:?}: {e}"));
                }
                if let Err(e) = gradients(case, &module, entry, math, &mut checked) {
                    checked.wrong.push(format!("{math:?}: gradients: {e}"));
                }
            }
        }
    }
    checked
}

/// The configuration, and whether it trains.
fn config(meta: &Json) -> Result<(AfKan, bool), String> {
    let field = |key: &str| meta.get(key).ok_or_else(|| format!("meta has no `{key}`"));
    let number = |key: &str| usize_of(field(key)?).map_err(|e| format!("meta `{key}`: {e}"));
    fn word<T: std::str::FromStr<Err: std::fmt::Display>>(value: &Json) -> Result<T, String> {
        value.as_str().ok_or_else(|| format!("{value} is no word"))?.parse().map_err(|e: T::Err| e.to_string())
    }
    let flag = |key: &str, absent: bool| match meta.get(key) {
        None => Ok(absent),
        Some(v) => v.as_bool().ok_or_else(|| format!("meta `{key}`: {v} is no flag")),
    };
    let config = AfKan {
        layers: list(field("layers")?).iter().map(usize_of).collect::<Result<_, _>>()?,
        grid: number("grid")?,
        order: number("order")?,
        activation: word(field("base_activation")?)?,
        function: word(field("func")?)?,
        methods: list(field("methods")?).iter().map(word).collect::<Result<_, _>>()?,
        combination: meta.get("combined").map_or(Ok(Combination::Sum), word)?,
        norm: match field("norm")? {
            Json::Null => Norm::None,
            other => word(other)?,
        },
        func_norm: flag("func_norm", true)?,
    };
    Ok((config, flag("train", false)?))
}

fn usize_of(value: &Json) -> Result<usize, String> {
    value.as_u64().and_then(|n| usize::try_from(n).ok()).ok_or_else(|| format!("{value} is no number"))
}

/// The elements of a list; one value stands for a list of itself.
fn list(value: &Json) -> &[Json] {
    value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice)
}

/// The network with the case's parameters.
fn network(case: &Case, config: &AfKan) -> Result<Module, String> {
    let mut module = config.module(0).map_err(|e| e.to_string())?;
    for (key, value) in case.iter().filter_map(|(k, v)| Some((k.strip_prefix("p.")?, v))) {
        match module.params.get_mut(key) {
            Some(param) => {
                let value = single(value)?;
                if value.ty() != param.value.ty() {
                    return Err(format!("parameter `{key}` is {}, should be {}", value.ty(), param.value.ty()));
                }
                param.value = value;
            }
            None if case.get(&format!("g.{key}")).is_none_or(|g| largest(g) == 0.0) => {}
            None => return Err(format!("the network has no parameter `{key}`, which has a gradient")),
        }
    }
    let absent = |(name, p): (&String, &frit_ir::Param)| p.trainable && !case.contains_key(&format!("p.{name}"));
    match module.params.iter().find(|(name, p)| absent((name, p))) {
        Some((name, _)) => Err(format!("the file lacks parameter `{name}`")),
        None => Ok(module),
    }
}

/// One function compiled alone.
fn compiled(module: &Module, entry: &str, math: Math) -> Result<Model, String> {
    let mut module = module.clone();
    module.functions.retain(|name, _| name == entry);
    let options = Options { level: Level::O3, math, ..Options::default() };
    let compiled = compile(module, &options).map_err(|e| e.to_string())?;
    Model::new(compiled.plan).map_err(|e| e.to_string())
}

fn tensor(case: &Case, name: &str) -> Result<Tensor, String> {
    single(case.get(name).ok_or_else(|| format!("the file lacks `{name}`"))?)
}

/// Compares the output.
fn forward(case: &Case, module: &Module, entry: &str, math: Math) -> Result<(), String> {
    let (x, y) = (tensor(case, "x")?, tensor(case, "y")?);
    let found = compiled(module, entry, math)?.run(&[("x", &x)]).map_err(|e| e.to_string())?;
    let (name, output) = found.first().ok_or("no output")?;
    match differs(output, &y, RELATIVE, 0.0) {
        Some(difference) => Err(format!("y (`{name}`): {difference}")),
        None => Ok(()),
    }
}

/// A function that gives the output and, for a cotangent `gy` of it, the gradients `g.*` of the trained parameters and
/// `gx`, by one `vjp`; the parameters are inputs.
fn differentiated(module: &Module, entry: &str) -> Result<(Module, Vec<String>), String> {
    let mut forward = module.functions.get(entry).ok_or_else(|| format!("no function `{entry}`"))?.clone();
    let mut names = vec!["x".to_owned()];
    for id in forward.nodes() {
        let Op::Param { name, ty } = forward.node(id).op.clone() else { continue };
        if module.params.get(&name).is_some_and(|p| p.trainable) {
            let input = forward.add_input(&name, ty);
            forward.replace_uses(Value { node: id, result: 0 }, input);
            forward.remove_op(id);
            names.push(name);
        }
    }
    let signature = forward.signature();
    let mut f = Function::new("gradient");
    f.symbols = forward.symbols.clone();
    let mut operands: Vec<Value> =
        names.iter().zip(&signature.inputs).map(|(name, ty)| f.add_input(name, ty.clone())).collect();
    operands.push(f.add_input("gy", signature.outputs.first().ok_or("no output")?.clone()));
    let op = Op::Vjp { of: 1, wrt: (0..names.len()).collect() };
    let origin = Origin::named("gradient");
    let node = f.add_op(op, &operands, vec![forward], &origin).map_err(|e| e.to_string())?;
    let outputs = signature.outputs.len();
    f.add_output("y", Value { node, result: 0 });
    let gradients: Vec<String> =
        names.iter().map(|n| if n == "x" { "gx".to_owned() } else { format!("g.{n}") }).collect();
    for (i, name) in gradients.iter().enumerate() {
        f.add_output(name, Value { node, result: outputs + i });
    }
    let mut made = Module { params: module.params.clone(), ..Module::of(f) };
    made.params.retain(|_, p| !p.trainable);
    Ok((made, names))
}

/// Compares the gradients of every parameter and of x, given that of the output.
fn gradients(case: &Case, module: &Module, entry: &str, math: Math, checked: &mut Checked) -> Result<(), String> {
    let (made, names) = differentiated(module, entry)?;
    let mut given = vec![("gy".to_owned(), tensor(case, "gy")?)];
    for name in names {
        let key = if name == "x" { name.clone() } else { format!("p.{name}") };
        given.push((name, tensor(case, &key)?));
    }
    let inputs: Vec<(&str, &Tensor)> = given.iter().map(|(n, t)| (n.as_str(), t)).collect();
    let found = compiled(&made, "gradient", math)?.run(&inputs).map_err(|e| e.to_string())?;
    let far = inputs.iter().any(|(name, t)| *name == "x" && largest(t) > FAR);
    let all = case.iter().filter(|(k, _)| k.starts_with("g.") || *k == "gx");
    let steepest = all.map(|(_, g)| largest(g)).fold(0.0, f64::max);
    let floor = CANCELLED * steepest;
    let mut spread: Option<BTreeMap<String, f64>> = None;
    for (name, gradient) in found.iter().filter(|(name, _)| name != "y") {
        if far {
            let finite = gradient.to_vec::<f32>().iter().all(|v| v.is_finite());
            checked.wrong.extend((!finite).then(|| format!("{math:?}: {name}: not finite")));
            continue;
        }
        let expected = tensor(case, name)?;
        let Some(first) = differs(gradient, &expected, RELATIVE, floor) else { continue };
        let spread = match &mut spread {
            Some(known) => known,
            none => none.insert(spreads(&made, &given)?),
        };
        let most = (INEXCUSABLE.0 * largest(&expected)).max(INEXCUSABLE.1 * steepest);
        let excused = (SPREADS * spread.get(name).copied().unwrap_or(0.0)).min(most).max(floor);
        match differs(gradient, &expected, RELATIVE, excused) {
            Some(difference) => checked.wrong.push(format!("{math:?}: {name}: {difference}")),
            None => checked.rounded.push(format!("{math:?}: {name}: {first}, by rounding {excused:.1e}")),
        }
    }
    Ok(())
}

/// How far gradients in plain f32 arithmetic, each op rounded once, are from those of the same ops in f64: the largest
/// over a few runs whose inputs are a rounding apart. Layer norms of values that hardly differ, and what cancels to 0,
/// leave f32 few digits; PyTorch's own f32 gradients miss 1e-4 there.
fn spreads(made: &Module, given: &[(String, Tensor)]) -> Result<BTreeMap<String, f64>, String> {
    let options = Options { level: Level::O0, math: Math::Strict, ..Options::default() };
    let module = compile(made.clone(), &options).map_err(|e| e.to_string())?.module;
    let f = module.entry().ok_or("no function")?;
    let values = |options, inputs: &[HostValue]| -> Result<Vec<Vec<f64>>, String> {
        let results = eval_function(&module, f, inputs, options).map_err(|e| e.to_string())?;
        results.iter().map(|v| v.tensor().and_then(to_f64s).ok_or_else(|| "no float tensor".to_owned())).collect()
    };
    let mut spread = BTreeMap::new();
    for run in 0..8 {
        let mut random = Philox::new(run, 0);
        let mut jittered = |(name, tensor): &(String, Tensor)| {
            let step = |v: f32| match random.below(3) {
                0 => v.next_down(),
                1 => v.next_up(),
                _ => v,
            };
            let data: Vec<f32> = tensor.to_vec::<f32>().into_iter().map(step).collect();
            (name.clone(), Tensor::f32(tensor.shape(), &data))
        };
        let inputs: BTreeMap<String, _> = given.iter().map(&mut jittered).collect();
        let order = f.input_values().map(|v| match f.op(v) {
            Op::Input { name, .. } => inputs.get(name).cloned().ok_or_else(|| format!("no input `{name}`")),
            other => Err(format!("`{}` is no input", other.name())),
        });
        let inputs: Vec<HostValue> =
            order.map(|t| t?.map(HostValue::Tensor).map_err(|e| e.to_string())).collect::<Result<_, String>>()?;
        let (rounded, exact) = (values(Evaluate::default(), &inputs)?, values(Evaluate::wide(), &inputs)?);
        for (output, (rounded, exact)) in f.outputs().iter().zip(rounded.iter().zip(&exact)) {
            let off = rounded.iter().zip(exact).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            let known = spread.entry(output.name.clone()).or_insert(0.0f64);
            *known = known.max(off);
        }
    }
    Ok(spread)
}
