//! All programs of a module.
//!
//! A fusion that can't be one kernel is compiled op by op, where no product rounds together with the sum that takes it. What
//! other kernels compute of the same values would then differ in the last bit, and an equality between them, as the
//! gradient of a maximum asks for it, would fail: so nothing contracts then, in the whole module.

use std::collections::HashMap;

use frit_ir::{Function, Module, Numerics, Tensor};

use super::{BuildError, Built, PlanBuilder, Preparation};
use crate::plan::{Guard, Plan};

/// The programs of a module, their kernels without code.
pub(super) fn programs(module: &Module, numerics: Numerics, fixed: &[(String, Tensor)]) -> Result<Built, BuildError> {
    let (built, apart) = once(module, numerics, fixed)?;
    if !apart || !module.functions.values().any(contracts) {
        return Ok(built);
    }
    let mut module = module.clone();
    module.functions.values_mut().for_each(round_apart);
    let (mut built, _) = once(&module, numerics, fixed)?;
    built.remarks.push("no product rounds together with its sum, because a fusion is compiled op by op".to_owned());
    Ok(built)
}

/// The programs, and whether a fusion was taken apart.
fn once(module: &Module, numerics: Numerics, fixed: &[(String, Tensor)]) -> Result<(Built, bool), BuildError> {
    let mut builder = PlanBuilder {
        module,
        numerics,
        fixed: fixed.iter().map(|(name, _)| name.clone()).collect(),
        built: Built { plan: Plan { source: module.source.clone(), ..Plan::default() }, ..Built::default() },
        params: HashMap::new(),
        functions: HashMap::new(),
        preparation: Preparation::default(),
        apart: false,
    };
    for (name, function) in &module.functions {
        let id = match builder.functions.get(name) {
            // A caller keeps the state of what it calls: only an entry of its own has donations.
            Some(Some(id)) if function.donations.is_empty() => *id,
            _ => builder.program(name, function, true)?,
        };
        if function.donations.is_empty() {
            builder.functions.insert(name.clone(), Some(id));
        }
        for (input, value) in fixed {
            let program = &builder.built.plan.programs[id.index()];
            if let Some(index) = program.inputs.iter().position(|p| p.name == *input) {
                let constant = builder.constant("", value);
                let guard = Guard::Value { input: index as u32, constant };
                builder.built.plan.programs[id.index()].guards.push(guard);
            }
        }
        builder.built.plan.entries.push((name.clone(), id));
    }
    builder.finish_preparation();
    Ok((builder.built, builder.apart))
}

/// Whether some op of a function may round together with another.
fn contracts(f: &Function) -> bool {
    f.nodes().into_iter().any(|id| {
        let node = f.node(id);
        node.numerics.contract || node.regions().iter().any(contracts)
    })
}

/// Takes the leave to contract from all ops.
fn round_apart(f: &mut Function) {
    for id in f.nodes() {
        let numerics = Numerics { contract: false, ..f.node(id).numerics };
        f.set_numerics(id, numerics);
        f.regions_mut(id).iter_mut().for_each(round_apart);
    }
}
