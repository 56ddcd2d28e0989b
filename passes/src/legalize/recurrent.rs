//! Recurrent layers, written out step by step over a known number of steps.
//!
//! One walk serves all three: a cell says how its gates become the next state, the walk feeds it, masks sequences that
//! have ended and gathers the results of both directions.

use frit_ir::{AttrValue, BinaryOp, DType, Dim, UnaryOp, Value};

use super::activation::{elu_of, hard_sigmoid, leaky_of, sigmoid, softplus, softsign, thresholded_of};
use super::context::{Ctx, Results};
use super::error::{Fail, Ruled, invalid, unsupported};
use super::table::{Row, onnx};

pub(super) const TABLE: &[Row] = &[
    onnx("GRU", |c| layer(c, &Kind { gates: 3, functions: &["Sigmoid", "Tanh"], cell: gru })),
    onnx("LSTM", |c| layer(c, &Kind { gates: 4, functions: &["Sigmoid", "Tanh", "Tanh"], cell: lstm })),
    onnx("RNN", |c| layer(c, &Kind { gates: 1, functions: &["Tanh"], cell: rnn })),
];

/// Most steps that a layer is written out for.
const MAX_STEPS: usize = 64;

/// What differs between the layers.
struct Kind {
    /// Gates in W, R and B.
    gates: usize,
    /// Default activations of one direction.
    functions: &'static [&'static str],
    cell: fn(&mut Ctx, &Direction, Step) -> Ruled<State>,
}

/// The states: H, and C of an LSTM.
#[derive(Clone, Copy)]
struct State {
    h: Value,
    c: Value,
}

/// One step of one direction.
#[derive(Clone, Copy)]
struct Step {
    /// x W^T plus biases, [batch, gates hidden].
    input: Value,
    state: State,
}

/// An activation with its parameters.
struct Activation {
    name: String,
    alpha: Option<f64>,
    beta: Option<f64>,
}

/// Weights and settings of one direction.
struct Direction {
    /// [gates hidden, hidden]
    r: Value,
    /// Bias of R, [gates hidden], where the cell adds it itself.
    r_bias: Option<Value>,
    /// Peepholes i, o, f, each [hidden].
    peepholes: Option<[Value; 3]>,
    functions: Vec<Activation>,
    clip: Option<f64>,
    hidden: Dim,
}

impl Activation {
    fn apply(&self, c: &mut Ctx, x: Value) -> Ruled<Value> {
        let (alpha, beta) = (self.alpha, self.beta);
        match self.name.to_ascii_lowercase().as_str() {
            "affine" => {
                let y = c.mul_s(x, alpha.unwrap_or(1.0))?;
                c.add_s(y, beta.unwrap_or(0.0))
            }
            "elu" => elu_of(c, x, alpha.unwrap_or(1.0)),
            "hardsigmoid" => hard_sigmoid(c, x, alpha.unwrap_or(0.2), beta.unwrap_or(0.5)),
            "leakyrelu" => leaky_of(c, x, alpha.unwrap_or(0.01)),
            "relu" => c.bin_s(BinaryOp::Max, x, 0.0),
            "scaledtanh" => {
                let y = c.mul_s(x, beta.unwrap_or(1.0))?;
                let y = c.un(UnaryOp::Tanh, y)?;
                c.mul_s(y, alpha.unwrap_or(1.0))
            }
            "sigmoid" => sigmoid(c, x),
            "softplus" => softplus(c, x),
            "softsign" => softsign(c, x),
            "tanh" => c.un(UnaryOp::Tanh, x),
            "thresholdedrelu" => thresholded_of(c, x, alpha.unwrap_or(1.0)),
            _ => invalid(format!("no activation `{}`", self.name)),
        }
    }
}

impl Direction {
    fn activate(&self, c: &mut Ctx, function: usize, x: Value) -> Ruled<Value> {
        let x = match self.clip {
            Some(limit) => {
                let low = c.bin_s(BinaryOp::Max, x, -limit)?;
                c.bin_s(BinaryOp::Min, low, limit)?
            }
            None => x,
        };
        match self.functions.get(function) {
            Some(f) => f.apply(c, x),
            None => invalid("attribute `activations` is too short"),
        }
    }

    /// Columns of one gate.
    fn gate(&self, c: &mut Ctx, x: Value, gate: usize) -> Ruled<Value> {
        let axis = c.rank(x)?.saturating_sub(1);
        c.part(x, axis, &Dim::from(gate) * &self.hidden, self.hidden.clone())
    }
}

/// a b^T.
fn across(c: &mut Ctx, a: Value, b: Value) -> Ruled<Value> {
    let last = c.rank(a)?.saturating_sub(1);
    super::contraction::product(c, (a, b), [vec![], vec![]], [vec![last], vec![1]])
}

fn rnn(c: &mut Ctx, d: &Direction, step: Step) -> Ruled<State> {
    let past = across(c, step.state.h, d.r)?;
    let sum = c.add(step.input, past)?;
    let h = d.activate(c, 0, sum)?;
    Ok(State { h, c: step.state.c })
}

/// Gates i, o, f, c.
fn lstm(c: &mut Ctx, d: &Direction, step: Step) -> Ruled<State> {
    let State { h, c: cell } = step.state;
    let past = across(c, h, d.r)?;
    let sum = c.add(step.input, past)?;
    let peep = |c: &mut Ctx, x: Value, which: usize, cell: Value| -> Ruled<Value> {
        let Some(p) = d.peepholes.and_then(|p| p.get(which).copied()) else { return Ok(x) };
        let seen = c.mul(p, cell)?;
        c.add(x, seen)
    };
    let input = d.gate(c, sum, 0)?;
    let input = peep(c, input, 0, cell)?;
    let input = d.activate(c, 0, input)?;
    let forget = if c.flag("input_forget", false)? {
        let one = c.like(input, 1.0)?;
        c.sub(one, input)?
    } else {
        let forget = d.gate(c, sum, 2)?;
        let forget = peep(c, forget, 2, cell)?;
        d.activate(c, 0, forget)?
    };
    let candidate = d.gate(c, sum, 3)?;
    let candidate = d.activate(c, 1, candidate)?;
    let (kept, new) = (c.mul(forget, cell)?, c.mul(input, candidate)?);
    let cell = c.add(kept, new)?;
    let output = d.gate(c, sum, 1)?;
    let output = peep(c, output, 1, cell)?;
    let output = d.activate(c, 0, output)?;
    // The last function sees the state without clipping.
    let shown = match d.functions.get(2) {
        Some(f) => f.apply(c, cell)?,
        None => return invalid("attribute `activations` is too short"),
    };
    Ok(State { h: c.mul(output, shown)?, c: cell })
}

/// Gates z, r, h.
fn gru(c: &mut Ctx, d: &Direction, step: Step) -> Ruled<State> {
    let h = step.state.h;
    let Some(r_bias) = d.r_bias else { return invalid("a GRU without its bias") };
    let past = across(c, h, d.r)?;
    let past = c.add(past, r_bias)?;
    let (zx, zh) = (d.gate(c, step.input, 0)?, d.gate(c, past, 0)?);
    let (rx, rh) = (d.gate(c, step.input, 1)?, d.gate(c, past, 1)?);
    let (z, r) = (c.add(zx, zh)?, c.add(rx, rh)?);
    let (z, r) = (d.activate(c, 0, z)?, d.activate(c, 0, r)?);
    let from_past = if c.flag("linear_before_reset", false)? {
        let hh = d.gate(c, past, 2)?;
        c.mul(r, hh)?
    } else {
        let reset = c.mul(r, h)?;
        let rows = c.part(d.r, 0, &Dim::Known(2) * &d.hidden, d.hidden.clone())?;
        let product = across(c, reset, rows)?;
        let bias = d.gate(c, r_bias, 2)?;
        c.add(product, bias)?
    };
    let hx = d.gate(c, step.input, 2)?;
    let candidate = c.add(hx, from_past)?;
    let candidate = d.activate(c, 1, candidate)?;
    let one = c.like(z, 1.0)?;
    let rest = c.sub(one, z)?;
    let (new, kept) = (c.mul(rest, candidate)?, c.mul(z, h)?);
    Ok(State { h: c.add(new, kept)?, c: step.state.c })
}

/// The activations of every direction, with their parameters taken in order by those that have some.
fn activations(c: &Ctx, kind: &Kind, directions: usize) -> Ruled<Vec<Activation>> {
    let names: Vec<String> = match c.attr("activations") {
        Some(AttrValue::List(list)) => list
            .iter()
            .map(|v| match v {
                AttrValue::Str(s) => Ok(s.clone()),
                other => invalid(format!("attribute `activations` holds {other:?}")),
            })
            .collect::<Ruled<_>>()?,
        _ => (0..directions).flat_map(|_| kind.functions.iter().map(|f| (*f).to_owned())).collect(),
    };
    if names.len() != directions * kind.functions.len() {
        return invalid(format!("attribute `activations` has {} entries", names.len()));
    }
    let floats = |name: &str| -> Vec<f64> {
        match c.attr(name) {
            Some(AttrValue::List(list)) => list
                .iter()
                .filter_map(|v| match v {
                    AttrValue::Float(f) => Some(*f),
                    _ => None,
                })
                .collect(),
            _ => Vec::new(),
        }
    };
    let mut alphas = floats("activation_alpha").into_iter();
    let mut betas = floats("activation_beta").into_iter();
    let has_alpha = ["affine", "elu", "hardsigmoid", "leakyrelu", "scaledtanh", "thresholdedrelu"];
    let has_beta = ["affine", "hardsigmoid", "scaledtanh"];
    let with = |name: String| {
        let lower = name.to_ascii_lowercase();
        let alpha = has_alpha.contains(&lower.as_str()).then(|| alphas.next()).flatten();
        let beta = has_beta.contains(&lower.as_str()).then(|| betas.next()).flatten();
        Activation { name, alpha, beta }
    };
    Ok(names.into_iter().map(with).collect())
}

/// Entry `d` of the first axis, which goes.
fn entry(c: &mut Ctx, x: Value, d: usize) -> Ruled<Value> {
    let part = c.part(x, 0, Dim::from(d), Dim::ONE)?;
    let dims = c.shape(part)?.into_iter().skip(1).collect();
    Ok(c.b.reshape(part, dims)?)
}

fn layer(c: &mut Ctx, kind: &Kind) -> Results {
    let (mut x, w, r) = (c.x(0)?, c.x(1)?, c.x(2)?);
    let batch_first = c.flag("layout", false)?;
    if batch_first {
        x = c.b.transpose(x, vec![1, 0, 2])?;
    }
    let dims = c.shape(x)?;
    let [_, batch, _] = dims.as_slice() else { return invalid(format!("{} should have three dims", c.ty(x)?)) };
    let (steps, batch) = (c.known_extent(x, 0)?, batch.clone());
    if steps > MAX_STEPS {
        return unsupported(format!("{steps} steps"));
    }
    let directions = c.known_extent(w, 0)?;
    let backwards: &[bool] = match (c.text("direction", "forward")?.as_str(), directions) {
        ("forward", 1) => &[false],
        ("reverse", 1) => &[true],
        ("bidirectional", 2) => &[false, true],
        (other, n) => return invalid(format!("direction `{other}` with weights for {n}")),
    };
    let Some(hidden) = c.shape(r)?.get(2).cloned() else { return invalid("R should have three dims") };
    let mut functions = activations(c, kind, directions)?.into_iter();
    let lengths = c.opt(4);
    let mut columns: Vec<Vec<Value>> = Vec::with_capacity(directions);
    let (mut last_h, mut last_c) = (Vec::with_capacity(directions), Vec::with_capacity(directions));
    for (d, &backward) in backwards.iter().enumerate() {
        let own: Vec<Activation> = functions.by_ref().take(kind.functions.len()).collect();
        let (direction, inputs) = direction(c, kind, (x, d), own, &hidden)?;
        let h = initial(c, 5, d, batch_first, vec![batch.clone(), hidden.clone()])?;
        let cell =
            if kind.gates == 4 { initial(c, 6, d, batch_first, vec![batch.clone(), hidden.clone()])? } else { h };
        let mut state = State { h, c: cell };
        let mut column = vec![state.h; steps];
        for t in 0..steps {
            let t = if backward { steps - 1 - t } else { t };
            let input = entry(c, inputs, t)?;
            let next = (kind.cell)(c, &direction, Step { input, state })?;
            let shown = match lengths {
                Some(lengths) => {
                    let (running, shown) = masked(c, lengths, t, state, next)?;
                    state = running;
                    shown
                }
                None => {
                    state = next;
                    next.h
                }
            };
            if let Some(slot) = column.get_mut(t) {
                *slot = shown;
            }
        }
        columns.push(column);
        last_h.push(state.h);
        last_c.push(state.c);
    }
    let y = all_steps(c, &columns, batch_first)?;
    let axis = usize::from(batch_first);
    let mut results = vec![y, stack(c, &last_h, axis)?];
    if kind.gates == 4 {
        results.push(stack(c, &last_c, axis)?);
    }
    Ok(results)
}

/// Weights of one direction, and x W^T plus biases for all steps.
fn direction(
    c: &mut Ctx,
    kind: &Kind,
    (x, d): (Value, usize),
    functions: Vec<Activation>,
    hidden: &Dim,
) -> Ruled<(Direction, Value)> {
    let (w, r) = (c.x(1)?, c.x(2)?);
    let (w, r) = (entry(c, w, d)?, entry(c, r, d)?);
    let width = &Dim::from(kind.gates) * hidden;
    let mut inputs = across(c, x, w)?;
    let bias = match c.opt(3) {
        Some(bias) => {
            let bias = entry(c, bias, d)?;
            let w_bias = c.part(bias, 0, Dim::ZERO, width.clone())?;
            inputs = c.add(inputs, w_bias)?;
            c.part(bias, 0, width.clone(), width)?
        }
        None => {
            let zero = c.like(x, 0.0)?;
            c.full(zero, vec![width])?
        }
    };
    // A GRU scales its part of R before adding x: there the bias of R stays apart.
    let r_bias = if kind.gates == 3 {
        Some(bias)
    } else {
        inputs = c.add(inputs, bias)?;
        None
    };
    let peepholes = match c.opt(7).filter(|_| kind.gates == 4) {
        Some(p) => {
            let p = entry(c, p, d)?;
            let mut part = |i: usize| c.part(p, 0, &Dim::from(i) * hidden, hidden.clone());
            Some([part(0)?, part(1)?, part(2)?])
        }
        None => None,
    };
    let direction = Direction { r, r_bias, peepholes, functions, clip: c.float("clip")?, hidden: hidden.clone() };
    Ok((direction, inputs))
}

/// The initial state of direction `d` from operand `i`, else zeros.
fn initial(c: &mut Ctx, i: usize, d: usize, batch_first: bool, dims: Vec<Dim>) -> Ruled<Value> {
    match c.opt(i) {
        Some(v) => {
            let v = if batch_first { c.b.transpose(v, vec![1, 0, 2])? } else { v };
            entry(c, v, d)
        }
        None => {
            let x = c.x(0)?;
            let zero = c.like(x, 0.0)?;
            c.full(zero, dims)
        }
    }
}

/// The state and what is shown at step `t` where sequences may have ended: the state stays, zeros are shown.
fn masked(c: &mut Ctx, lengths: Value, t: usize, old: State, new: State) -> Ruled<(State, Value)> {
    let lengths = c.to(lengths, DType::I64)?;
    let t = c.dim(Dim::from(t))?;
    let on = c.bin(BinaryOp::Lt, t, lengths)?;
    let on = c.spread(on, &[0], 2)?;
    let zero = c.like(new.h, 0.0)?;
    let state = State { h: c.pick(on, new.h, old.h)?, c: c.pick(on, new.c, old.c)? };
    Ok((state, c.pick(on, new.h, zero)?))
}

/// Values next to each other along a new axis.
fn stack(c: &mut Ctx, values: &[Value], axis: usize) -> Ruled<Value> {
    let mut parts = Vec::with_capacity(values.len());
    for &v in values {
        let mut dims = c.shape(v)?;
        dims.insert(axis.min(dims.len()), Dim::ONE);
        parts.push(c.b.reshape(v, dims)?);
    }
    if parts.is_empty() {
        return Err(Fail::Unsupported("no steps".to_owned()));
    }
    c.cat(&parts, axis)
}

/// [steps, directions, batch, hidden], or batch first: [batch, steps, directions, hidden].
fn all_steps(c: &mut Ctx, columns: &[Vec<Value>], batch_first: bool) -> Ruled<Value> {
    let mut sides = Vec::with_capacity(columns.len());
    for column in columns {
        sides.push(stack(c, column, 0)?);
    }
    let y = stack(c, &sides, 1)?;
    if batch_first { Ok(c.b.transpose(y, vec![2, 0, 1, 3])?) } else { Ok(y) }
}
