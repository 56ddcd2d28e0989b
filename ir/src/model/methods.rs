//! From an AF-KAN layer's bases to one number an input: phi [B, D, n] to z [B, D].

use super::init::{Init, Specs};
use super::net::{Net, Part};
use super::{Method, ModelError};
use crate::graph::Value;
use crate::op::{BinaryOp, Op, ReduceKind};
use crate::types::Dim;

/// Bases of a window of local attention; windows don't overlap.
const WINDOW: usize = 2;
/// Taps of spatial attention's convolution.
const TAPS: usize = 3;

/// Lists the parameters of a layer's methods, each once however many methods share it.
pub(super) fn specs(specs: &mut Specs, methods: &[Method], layer: &str, extent: usize, n: usize) {
    let uses = |wanted: &[Method]| methods.iter().any(|m| wanted.contains(m));
    if uses(&[Method::GlobalAttn, Method::SpatialAttn, Method::LocalAttn]) {
        let start = Init::Fill((extent as f64).sqrt() as f32);
        specs.add(format!("{layer}.temperature"), &[], start);
    }
    if uses(&[Method::GlobalAttn, Method::Multistep]) {
        specs.linear(&format!("{layer}.gk_linear"), &[1, n]);
    }
    if uses(&[Method::SpatialAttn]) {
        specs.linear(&format!("{layer}.conv1d"), &[n, 1, TAPS]);
    }
    if uses(&[Method::LocalAttn]) {
        for map in ["query_local", "key_local", "value_local"] {
            specs.linear(&format!("{layer}.{map}"), &[WINDOW, WINDOW]);
        }
        specs.linear(&format!("{layer}.local_linear"), &[1, n / WINDOW * WINDOW]);
    }
    if uses(&[Method::MultiheadAttn]) {
        let name = format!("{layer}.mh_attn");
        // One matrix holds the maps of queries, keys and values; Xavier's bound is of all three.
        specs.add(format!("{name}.in_proj_weight"), &[3 * n, n], Init::xavier(n, 3 * n));
        specs.add(format!("{name}.in_proj_bias"), &[3 * n], Init::Fill(0.0));
        specs.add(format!("{name}.out_proj.weight"), &[n, n], Init::linear(n));
        specs.add(format!("{name}.out_proj.bias"), &[n], Init::Fill(0.0));
    }
}

/// Refuses methods that such bases can't feed.
pub(super) fn check(methods: &[Method], n: usize) -> Result<(), ModelError> {
    if methods.contains(&Method::LocalAttn) && n < WINDOW {
        return Err(ModelError::Windows { bases: n });
    }
    Ok(())
}

/// The layer's number for each input.
pub(super) fn apply(net: &mut Net<'_>, method: Method, layer: &str, phi: Value) -> Part {
    net.at(&format!("{layer}.{method}"));
    match method {
        Method::GlobalAttn => global(net, layer, phi),
        Method::Multistep => multistep(net, layer, phi),
        Method::SpatialAttn => spatial(net, layer, phi),
        Method::LocalAttn => local(net, layer, phi),
        Method::MultiheadAttn => multihead(net, layer, phi),
    }
}

/// x / max(temperature, 1).
fn cooled(net: &mut Net<'_>, layer: &str, x: Value) -> Part {
    let temperature = net.param(&format!("{layer}.temperature"))?;
    let at_least_one = net.with(BinaryOp::Max, temperature, 1.0)?;
    net.div(x, at_least_one)
}

/// A linear map of the last axis to one number, which leaves it.
fn to_one(net: &mut Net<'_>, x: Value, name: &str) -> Part {
    let mapped = net.linear(x, name)?;
    let mut dims = net.b.dims(mapped)?;
    dims.pop();
    net.reshape(mapped, dims)
}

/// phi w + b.
fn multistep(net: &mut Net<'_>, layer: &str, phi: Value) -> Part {
    to_one(net, phi, &format!("{layer}.gk_linear"))
}

/// softmax over inputs of (phi w + b) / max(T, 1), times the sum of the bases.
fn global(net: &mut Net<'_>, layer: &str, phi: Value) -> Part {
    let logits = to_one(net, phi, &format!("{layer}.gk_linear"))?;
    let logits = cooled(net, layer, logits)?;
    let weights = net.softmax(logits, 1)?;
    let sum = net.sum(phi, &[2], false)?;
    net.mul(weights, sum)
}

/// The sum of the bases, weighted by a softmax over them of a convolution along the inputs, one filter a basis.
fn spatial(net: &mut Net<'_>, layer: &str, phi: Value) -> Part {
    let (weight, bias) = (net.param(&format!("{layer}.conv1d.weight"))?, net.param(&format!("{layer}.conv1d.bias"))?);
    let groups = net.b.dims(bias)?.first().and_then(Dim::known).and_then(|n| usize::try_from(n).ok()).unwrap_or(1);
    let signals = net.b.transpose(phi, vec![0, 2, 1])?;
    let op = Op::Conv { strides: vec![1], dilations: vec![1], low: vec![TAPS / 2], high: vec![TAPS / 2], groups };
    let scores = net.b.op(op, &[signals, weight])?;
    let bias = net.unsqueeze(bias, 1)?;
    let scores = net.add(scores, bias)?;
    let scores = cooled(net, layer, scores)?;
    let weights = net.softmax(scores, 1)?;
    let weighted = net.mul(signals, weights)?;
    net.sum(weighted, &[1], false)
}

/// x [B, D, ..] with axis 2 cut to `start..start + size`.
fn part(net: &mut Net<'_>, x: Value, start: usize, size: usize) -> Part {
    let mut sizes = net.b.dims(x)?;
    let mut starts = vec![Dim::ZERO; sizes.len()];
    if let (Some(s), Some(n)) = (starts.get_mut(2), sizes.get_mut(2)) {
        if *s == Dim::from(start) && *n == Dim::from(size) {
            return Ok(x);
        }
        (*s, *n) = (start.into(), size.into());
    }
    let steps = vec![1; sizes.len()];
    Ok(net.b.op(Op::Slice { starts, sizes, steps }, &[x])?)
}

/// Attention among windows of two bases of one input, laid flat and mapped to one number. A last odd basis is left out.
fn local(net: &mut Net<'_>, layer: &str, phi: Value) -> Part {
    let dims = net.b.dims(phi)?;
    let n = bases_of(&dims);
    let windows = n / WINDOW;
    let even = part(net, phi, 0, windows * WINDOW)?;
    let outer = dims.get(..2).unwrap_or(&[]).to_vec();
    let shaped = |tail: &[usize]| outer.iter().cloned().chain(tail.iter().map(|&d| d.into())).collect::<Vec<Dim>>();
    let cut = net.reshape(even, shaped(&[windows, WINDOW]))?;
    let mut maps = [cut; 3];
    for (map, name) in maps.iter_mut().zip(["query_local", "key_local", "value_local"]) {
        *map = net.linear(cut, &format!("{layer}.{name}"))?;
    }
    let [query, key, value] = maps;
    let scores = batched(net, query, key, 3)?;
    let scores = cooled(net, layer, scores)?;
    let weights = net.softmax(scores, 3)?;
    let mixed = batched(net, weights, value, 2)?;
    let flat = net.reshape(mixed, shaped(&[windows * WINDOW]))?;
    to_one(net, flat, &format!("{layer}.local_linear"))
}

/// Products of the matrices of [B, D, ..]: the last axis of `lhs` with axis `rhs_axis` of `rhs`.
fn batched(net: &mut Net<'_>, lhs: Value, rhs: Value, rhs_axis: usize) -> Part {
    let op = Op::DotGeneral {
        lhs_batch: vec![0, 1],
        rhs_batch: vec![0, 1],
        lhs_contract: vec![3],
        rhs_contract: vec![rhs_axis],
        accumulate: crate::types::DType::F32,
    };
    Ok(net.b.op(op, &[lhs, rhs])?)
}

fn bases_of(dims: &[Dim]) -> usize {
    dims.last().and_then(Dim::known).and_then(|n| usize::try_from(n).ok()).unwrap_or(0)
}

/// Attention among the inputs with a head a basis, so that queries, keys and values are single numbers; then a linear
/// map of the heads, whose results are summed.
fn multihead(net: &mut Net<'_>, layer: &str, phi: Value) -> Part {
    let n = bases_of(&net.b.dims(phi)?);
    let name = format!("{layer}.mh_attn");
    let weight = net.param(&format!("{name}.in_proj_weight"))?;
    let bias = net.param(&format!("{name}.in_proj_bias"))?;
    let all = net.project(phi, weight)?;
    let all = net.add(all, bias)?;
    let mut heads = [all; 3];
    for (i, head) in heads.iter_mut().enumerate() {
        let own = part(net, all, i * n, n)?;
        *head = net.b.transpose(own, vec![0, 2, 1])?;
    }
    let [query, key, value] = heads;
    // The scale 1 / sqrt(head extent) is 1.
    let (query, key, value) = (net.unsqueeze(query, 3)?, net.unsqueeze(key, 2)?, net.unsqueeze(value, 2)?);
    let scores = net.mul(query, key)?;
    let weights = net.softmax(scores, 3)?;
    let weighted = net.mul(weights, value)?;
    let mixed = net.reduce(weighted, &[3], ReduceKind::Sum, false)?;
    let mixed = net.b.transpose(mixed, vec![0, 2, 1])?;
    let out = net.linear(mixed, &format!("{name}.out_proj"))?;
    net.sum(out, &[2], false)
}
