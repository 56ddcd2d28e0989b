//! AF-KAN cases: `meta` says which network, `p.*` are its parameters, `x` and `y` what goes in and comes out.
//!
//! A file may hold parameters that its methods never use: their gradients `g.*` are zero. One that has a gradient and
//! is not known here is a failure, as is one that the network takes and the file lacks.

use frit_compiler::driver::{Options, compile};
use frit_ir::model::{AfKan, Combination, Norm};
use frit_ir::{Module, Tensor};
use frit_passes::manager::{Level, Math};
use frit_runtime::Model;
use serde_json::Value as Json;

use super::file::{Case, differs, largest, single};

/// Share of a tensor's largest element that values may be off.
const RELATIVE: f64 = 1e-4;

/// The record of a case that is an AF-KAN.
pub(crate) fn meta(case: &Case) -> Option<Json> {
    let meta: Json = serde_json::from_slice(case.get("meta")?.bytes()).ok()?;
    ["layers", "methods", "func"].iter().all(|key| meta.get(key).is_some()).then_some(meta)
}

/// All that is wrong with a case.
pub(crate) fn check(case: &Case, meta: &Json) -> Vec<String> {
    let mut wrong = Vec::new();
    let prepared = config(meta).and_then(|(config, train)| Ok((network(case, &config)?, train)));
    match prepared {
        Err(e) => wrong.push(e),
        Ok((module, train)) => {
            let entry = if train && module.functions.contains_key("train") { "train" } else { "infer" };
            for math in [Math::Fast, Math::Strict] {
                let mut tell = |e: String| wrong.push(format!("{math:?}: {e}"));
                forward(case, &module, entry, math).unwrap_or_else(&mut tell);
            }
        }
    }
    wrong
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
