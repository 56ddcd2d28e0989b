//! Attention in its variants, and rotary positions.

use frit_ir::{BinaryOp, DType, Dim, Op, ReduceKind, UnaryOp, Value};

use super::activation::sigmoid;
use super::context::{Ctx, Results};
use super::contraction::matmul;
use super::control::inline_named;
use super::elementwise::along;
use super::error::{Fail, Ruled, invalid, unsupported};
use super::reduction::softmax;
use super::table::{Row, onnx, other};

pub(super) const TABLE: &[Row] = &[
    onnx("Attention", attention),
    onnx("CausalConvWithState", causal_conv),
    other("ai.onnx.preview", "FlexAttention", flex_attention),
    onnx("LinearAttention", linear_attention),
    onnx("RotaryEmbedding", rotary),
];

/// A count of heads that must be there.
fn heads(c: &Ctx, name: &str) -> Ruled<Dim> {
    match c.int(name)?.filter(|&n| n >= 1) {
        Some(n) => Ok(Dim::Known(n)),
        None => invalid(format!("attribute `{name}` must be at least 1")),
    }
}

/// [b, t, h d] as [b, h, t, d].
fn split_heads(c: &mut Ctx, x: Value, heads: &Dim) -> Ruled<Value> {
    let dims = c.shape(x)?;
    let [b, t, hidden] = dims.as_slice() else { return invalid(format!("{} should have three dims", c.ty(x)?)) };
    let split = vec![b.clone(), t.clone(), heads.clone(), hidden.floordiv(heads)];
    let x = c.b.reshape(x, split)?;
    Ok(c.b.transpose(x, vec![0, 2, 1, 3])?)
}

/// [b, h, t, d] as [b, t, h d].
fn join_heads(c: &mut Ctx, x: Value) -> Ruled<Value> {
    let dims = c.shape(x)?;
    let [b, h, t, d] = dims.as_slice() else { return invalid(format!("{} should have four dims", c.ty(x)?)) };
    let joined = vec![b.clone(), t.clone(), h * d];
    let x = c.b.transpose(x, vec![0, 2, 1, 3])?;
    Ok(c.b.reshape(x, joined)?)
}

/// Each head of [b, h, ..] repeated so that there are `heads`: h0, h0, h1, h1, ..
fn repeat_heads(c: &mut Ctx, x: Value, heads: &Dim) -> Ruled<Value> {
    let dims = c.shape(x)?;
    let Some(own) = dims.get(1).cloned() else { return invalid("no heads") };
    if own == *heads {
        return Ok(x);
    }
    let mut grown = dims.clone();
    grown.insert(2, heads.floordiv(&own));
    let axes = (0..grown.len()).filter(|&a| a != 2).collect();
    let x = c.op(Op::Broadcast { dims: grown, axes }, &[x])?;
    let mut merged = dims;
    if let Some(slot) = merged.get_mut(1) {
        *slot = heads.clone();
    }
    Ok(c.b.reshape(x, merged)?)
}

/// Added to the score of a key that is masked out.
const MASKED: f64 = f64::NEG_INFINITY;

/// The mask as numbers added to the scores, as long as the keys are.
fn mask_bias(c: &mut Ctx, mask: Value, dtype: DType, keys: &Dim) -> Ruled<Value> {
    let bias = if c.dtype(mask)? == DType::Bool {
        let (zero, masked) = (c.b.scalar(dtype, 0.0)?, c.b.scalar(dtype, MASKED)?);
        c.pick(mask, zero, masked)?
    } else {
        c.to(mask, dtype)?
    };
    let dims = c.shape(bias)?;
    let Some(last) = dims.last() else { return Ok(bias) };
    let missing = keys - last;
    if *last == Dim::ONE || missing == Dim::ZERO || missing.known().is_some_and(|m| m < 0) {
        return Ok(bias);
    }
    let fill = c.like(bias, MASKED)?;
    let low = vec![Dim::ZERO; dims.len()];
    let mut high = low.clone();
    if let Some(slot) = high.last_mut() {
        *slot = missing;
    }
    Ok(c.op(Op::Pad { low, high }, &[bias, fill])?)
}

/// How far a query sees to one side; `None`: to the end.
fn window(c: &Ctx, name: &str) -> Ruled<Option<f64>> {
    /// No sequence is longer, and as a float it is exact.
    const FAR: i64 = 1 << 40;
    match c.int(name)?.unwrap_or(-1) {
        -1 => Ok(None),
        n if n >= 0 => Ok(Some(n.min(FAR) as f64)),
        n => invalid(format!("attribute `{name}` is {n}: it may be -1 or not negative")),
    }
}

/// Softmax over the keys, where all of them may be masked out: such a row is 0, not NaN.
fn masked_probabilities(c: &mut Ctx, scores: Value) -> Ruled<Value> {
    let axes = [c.rank(scores)?.saturating_sub(1)];
    let lowest = if c.dtype(scores)? == DType::F64 { f64::MIN } else { f64::from(f32::MIN) };
    let top = c.b.reduce(scores, axes.to_vec(), ReduceKind::Max, true)?;
    let top = c.bin_s(BinaryOp::Max, top, lowest)?;
    let shifted = c.sub(scores, top)?;
    let e = c.un(UnaryOp::Exp, shifted)?;
    // The largest adds 1, so that only a row of zeros is below that.
    let sum = c.sum(e, &axes, true)?;
    let sum = c.bin_s(BinaryOp::Max, sum, 1.0)?;
    c.div(e, sum)
}

/// Softmax over the keys.
fn probabilities(c: &mut Ctx, scores: Value) -> Ruled<Value> {
    let rank = c.rank(scores)?;
    softmax(c, scores, &[rank.saturating_sub(1)])
}

fn attention(c: &mut Ctx) -> Results {
    let (mut q, mut k, mut v) = (c.x(0)?, c.x(1)?, c.x(2)?);
    let dtype = c.dtype(q)?;
    let packed = c.rank(q)? == 3;
    if packed {
        let (q_heads, kv_heads) = (heads(c, "q_num_heads")?, heads(c, "kv_num_heads")?);
        q = split_heads(c, q, &q_heads)?;
        k = split_heads(c, k, &kv_heads)?;
        v = split_heads(c, v, &kv_heads)?;
    }
    if [c.rank(q)?, c.rank(k)?, c.rank(v)?] != [4; 3] {
        return invalid("query, key and value must have three dims or four");
    }
    let mut past = Dim::ZERO;
    if let Some(cache) = c.opt(4) {
        past = c.shape(cache)?.get(2).cloned().unwrap_or(Dim::ZERO);
        k = c.cat(&[cache, k], 2)?;
    }
    if let Some(cache) = c.opt(5) {
        v = c.cat(&[cache, v], 2)?;
    }
    let (present_key, present_value) = (k, v);
    let dims = c.shape(q)?;
    let [_, q_heads, queries, size] = dims.as_slice() else { return invalid("four dims expected") };
    let (q_heads, queries, size) = (q_heads.clone(), queries.clone(), size.clone());
    let keys = c.shape(k)?.get(2).cloned().unwrap_or(Dim::ONE);
    let (k, v) = (repeat_heads(c, k, &q_heads)?, repeat_heads(c, v, &q_heads)?);
    let wide = c.wide(dtype);
    let scores = scaled_scores(c, (q, k), &size, wide)?;
    let soft = c.float("softcap")?.unwrap_or(0.0);
    let capped = if soft > 0.0 {
        let x = c.bin_s(BinaryOp::Div, scores, soft)?;
        let x = c.un(UnaryOp::Tanh, x)?;
        c.mul_s(x, soft)?
    } else {
        scores
    };
    let mut biased = capped;
    if let Some(mask) = c.opt(3) {
        let bias = mask_bias(c, mask, wide, &keys)?;
        biased = c.add(biased, bias)?;
    }
    let lengths = match c.opt(6) {
        Some(lengths) => {
            let lengths = c.to(lengths, DType::I64)?;
            Some(c.spread(lengths, &[0], 4)?)
        }
        None => None,
    };
    let causal = c.flag("is_causal", false)?;
    let (left, right) = (window(c, "left_window_size")?, window(c, "right_window_size")?);
    let masked = c.like(biased, MASKED)?;
    if causal || left.is_some() || right.is_some() {
        let i = c.iota(DType::I64, vec![queries.clone(), keys.clone()], 0)?;
        let j = c.iota(DType::I64, vec![queries.clone(), keys.clone()], 1)?;
        // The first query comes after the past; where keys are padded, the last query stands on the last valid key.
        let offset = match lengths {
            Some(lengths) if c.opt(4).is_none() => {
                let queries = c.dim(queries)?;
                c.sub(lengths, queries)?
            }
            _ => c.dim(past)?,
        };
        let at = c.add(i, offset)?;
        let mut seen = Vec::with_capacity(3);
        if causal {
            seen.push(c.bin(BinaryOp::Le, j, at)?);
        }
        if let Some(left) = left {
            let first = c.bin_s(BinaryOp::Sub, at, left)?;
            seen.push(c.bin(BinaryOp::Le, first, j)?);
        }
        if let Some(right) = right {
            let last = c.add_s(at, right)?;
            seen.push(c.bin(BinaryOp::Le, j, last)?);
        }
        for seen in seen {
            biased = c.pick(seen, biased, masked)?;
        }
    }
    if let Some(lengths) = lengths {
        let j = c.iota(DType::I64, vec![keys], 0)?;
        let valid = c.bin(BinaryOp::Lt, j, lengths)?;
        biased = c.pick(valid, biased, masked)?;
    }
    let precise = match c.dtype_attr("softmax_precision")? {
        Some(p) => c.to(biased, c.wide(p))?,
        None => biased,
    };
    // Behind a past, and without one, a causal row has at least its own key.
    let may_be_empty = c.opt(3).is_some() || lengths.is_some() || left.is_some() || right.is_some();
    let soft = if may_be_empty { masked_probabilities(c, precise)? } else { probabilities(c, precise)? };
    let soft = c.to(soft, wide)?;
    let shown = match c.int("qk_matmul_output_mode")?.unwrap_or(0) {
        0 => scores,
        1 => capped,
        2 => biased,
        3 => soft,
        mode => return invalid(format!("no qk_matmul_output_mode {mode}")),
    };
    let v = c.to(v, wide)?;
    let y = matmul(c, soft, v)?;
    let mut y = c.to(y, dtype)?;
    if packed {
        y = join_heads(c, y)?;
    }
    Ok(vec![y, present_key, present_value, c.to(shown, dtype)?])
}

/// (Q sqrt s) (K sqrt s)^T, s the `scale` attribute or 1 / sqrt(size).
fn scaled_scores(c: &mut Ctx, (q, k): (Value, Value), size: &Dim, wide: DType) -> Ruled<Value> {
    let (q, k) = (c.to(q, wide)?, c.to(k, wide)?);
    let root = match (c.float("scale")?.filter(|s| *s != 0.0), size.known()) {
        (Some(scale), _) => c.b.scalar(wide, scale.abs().sqrt())?,
        (None, Some(size)) => c.b.scalar(wide, (1.0 / (size as f64).sqrt()).sqrt())?,
        (None, None) => {
            let size = c.dim(size.clone())?;
            let size = c.to(size, wide)?;
            let root = c.un(UnaryOp::Sqrt, size)?;
            let root = c.un(UnaryOp::Sqrt, root)?;
            let one = c.like(root, 1.0)?;
            c.div(one, root)?
        }
    };
    let (q, k) = (c.mul(q, root)?, c.mul(k, root)?);
    let k = c.b.transpose(k, vec![0, 1, 3, 2])?;
    let scores = matmul(c, q, k)?;
    let negative = c.float("scale")?.is_some_and(|s| s < 0.0);
    if negative { c.un(UnaryOp::Neg, scores) } else { Ok(scores) }
}

fn flex_attention(c: &mut Ctx) -> Results {
    let (q, k, v) = (c.x(0)?, c.x(1)?, c.x(2)?);
    let dtype = c.dtype(q)?;
    let dims = c.shape(q)?;
    let [_, q_heads, _, size] = dims.as_slice() else { return invalid("query, key and value must have four dims") };
    let (q_heads, size) = (q_heads.clone(), size.clone());
    let precision = match c.dtype_attr("softmax_precision")? {
        Some(p) => p,
        None if dtype == DType::F64 => DType::F64,
        None => DType::F32,
    };
    let (k, v) = (repeat_heads(c, k, &q_heads)?, repeat_heads(c, v, &q_heads)?);
    let wide = c.wide(dtype);
    let scores = scaled_scores(c, (q, k), &size, wide)?;
    let mut scores = c.to(scores, precision)?;
    if let Some(changed) = inline_named(c, "score_mod", &[scores])? {
        scores = changed.first().copied().ok_or_else(|| Fail::Invalid("score_mod gives nothing".to_owned()))?;
    }
    let mut soft = probabilities(c, scores)?;
    if let Some(changed) = inline_named(c, "prob_mod", &[soft])? {
        soft = changed.first().copied().ok_or_else(|| Fail::Invalid("prob_mod gives nothing".to_owned()))?;
    }
    let (soft, v) = (c.to(soft, wide)?, c.to(v, wide)?);
    let y = matmul(c, soft, v)?;
    Ok(vec![c.to(y, dtype)?])
}

/// Pairs of elements turned by the angles of their position.
fn rotary(c: &mut Ctx) -> Results {
    let (x, cos, sin) = (c.x(0)?, c.x(1)?, c.x(2)?);
    let own = c.shape(x)?;
    let packed = own.len() == 3;
    // [b, t, h, d]
    let x = if packed {
        let h = heads(c, "num_heads")?;
        let [b, t, hidden] = own.as_slice() else { return invalid("three dims expected") };
        c.b.reshape(x, vec![b.clone(), t.clone(), h.clone(), hidden.floordiv(&h)])?
    } else if own.len() == 4 {
        c.b.transpose(x, vec![0, 2, 1, 3])?
    } else {
        return invalid(format!("{} should have three dims or four", c.ty(x)?));
    };
    let dims = c.shape(x)?;
    let size = c.known_extent(x, 3)?;
    let turned = match usize::try_from(c.int("rotary_embedding_dim")?.unwrap_or(0)) {
        Ok(0) => size,
        Ok(n) if n <= size => n,
        _ => return invalid("attribute `rotary_embedding_dim` is larger than a head"),
    };
    if turned % 2 != 0 {
        return invalid(format!("{turned} elements are no pairs"));
    }
    let half = Dim::from(turned / 2);
    let mut angles = [cos, sin];
    for angle in &mut angles {
        if let Some(positions) = c.opt(3) {
            *angle = c.op(Op::Gather { axis: 0 }, &[*angle, positions])?;
        }
        let mut spread = c.shape(*angle)?;
        if spread.len() != 3 {
            return invalid(format!("{} should have one row a position", c.ty(*angle)?));
        }
        spread.insert(2, Dim::ONE);
        *angle = c.b.reshape(*angle, spread)?;
    }
    let [cos, sin] = angles;
    let rest = c.part(x, 3, Dim::from(turned), Dim::from(size - turned))?;
    let part = c.part(x, 3, Dim::ZERO, Dim::from(turned))?;
    let interleaved = c.flag("interleaved", false)?;
    // Pairs along a new axis: the last but one for halves, the last for neighbours.
    let outer: Vec<Dim> = dims.iter().take(3).cloned().collect();
    let grouped = |pair: Dim| -> Vec<Dim> {
        let tail = if interleaved { [half.clone(), pair] } else { [pair, half.clone()] };
        outer.iter().cloned().chain(tail).collect()
    };
    let axis = if interleaved { 4 } else { 3 };
    let pairs = c.b.reshape(part, grouped(Dim::Known(2)))?;
    let flat: Vec<Dim> = outer.iter().cloned().chain([half.clone()]).collect();
    let (a, b) = (c.part(pairs, axis, Dim::ZERO, Dim::ONE)?, c.part(pairs, axis, Dim::ONE, Dim::ONE)?);
    let (a, b) = (c.b.reshape(a, flat.clone())?, c.b.reshape(b, flat)?);
    let (ac, bs, a_s, bc) = (c.mul(a, cos)?, c.mul(b, sin)?, c.mul(a, sin)?, c.mul(b, cos)?);
    let (real, imaginary) = (c.sub(ac, bs)?, c.add(a_s, bc)?);
    let (real, imaginary) = (c.b.reshape(real, grouped(Dim::ONE))?, c.b.reshape(imaginary, grouped(Dim::ONE))?);
    let both = c.cat(&[real, imaginary], axis)?;
    let mut y = c.b.reshape(both, outer.iter().cloned().chain([Dim::from(turned)]).collect())?;
    if size > turned {
        y = c.cat(&[y, rest], 3)?;
    }
    if !packed {
        y = c.b.transpose(y, vec![0, 2, 1, 3])?;
    }
    Ok(vec![c.b.reshape(y, own)?])
}

/// A depthwise convolution over the last k positions, the ones before the input taken from the state.
fn causal_conv(c: &mut Ctx) -> Results {
    let (x, w) = (c.x(0)?, c.x(1)?);
    let dtype = c.dtype(x)?;
    let dims = c.shape(x)?;
    let [n, channels, length] = dims.as_slice() else { return invalid(format!("{} should have three dims", c.ty(x)?)) };
    let (taps, groups) = (c.known_extent(w, 2)?, c.known_extent(w, 0)?);
    let Some(before) = taps.checked_sub(1) else { return invalid("a kernel extent of 0") };
    let state_dims = vec![n.clone(), channels.clone(), Dim::from(before)];
    let state = match c.opt(3) {
        Some(state) => state,
        None => {
            let zero = c.like(x, 0.0)?;
            c.full(zero, state_dims)?
        }
    };
    let all = if before == 0 { x } else { c.cat(&[state, x], 2)? };
    let present = c.part(all, 2, length.clone(), Dim::from(before))?;
    let wide = c.wide(dtype);
    let (input, w) = (c.to(all, wide)?, c.to(w, wide)?);
    let one = || vec![1];
    let op = Op::Conv { strides: one(), dilations: one(), low: vec![0], high: vec![0], groups };
    let mut y = c.op(op, &[input, w])?;
    if let Some(bias) = c.opt(2) {
        let bias = c.to(bias, wide)?;
        let bias = along(c, bias, 1, 3)?;
        y = c.add(y, bias)?;
    }
    match c.text("activation", "none")?.as_str() {
        "none" => {}
        "silu" | "swish" => {
            let gate = sigmoid(c, y)?;
            y = c.mul(y, gate)?;
        }
        other => return invalid(format!("no activation `{other}`")),
    }
    // A known length that is equal as a number may differ as an expression.
    let y = c.b.reshape(y, dims)?;
    Ok(vec![c.to(y, dtype)?, present])
}

/// Most tokens that a recurrence is written out for.
const MAX_TOKENS: usize = 64;

/// A state [b, h, k, v] updated token by token: S = e^g S + beta k (v - e^g S^T k)^T, read as scale q^T S.
fn linear_attention(c: &mut Ctx) -> Results {
    let (q, k, v) = (c.x(0)?, c.x(1)?, c.x(2)?);
    let dtype = c.dtype(q)?;
    let (q_heads, kv_heads) = (heads(c, "q_num_heads")?, heads(c, "kv_num_heads")?);
    let tokens = c.known_extent(q, 1)?;
    if tokens > MAX_TOKENS {
        return unsupported(format!("{tokens} tokens"));
    }
    let rule = c.text("update_rule", "gated_delta")?;
    let (gated, delta) = match rule.as_str() {
        "linear" => (false, false),
        "gated" => (true, false),
        "delta" => (false, true),
        "gated_delta" => (true, true),
        other => return invalid(format!("no update_rule `{other}`")),
    };
    let wide = c.wide(dtype);
    let mut unpacked = [q, k, v];
    for (x, h) in unpacked.iter_mut().zip([&q_heads, &kv_heads, &kv_heads]) {
        let x_wide = c.to(*x, wide)?;
        *x = split_heads(c, x_wide, h)?;
    }
    let [q, k, v] = unpacked;
    let (b, size_k) = (dim_of(c, k, 0)?, dim_of(c, k, 3)?);
    let size_v = dim_of(c, v, 3)?;
    let mut state = match c.opt(3) {
        Some(state) => c.to(state, wide)?,
        None => {
            let zero = c.b.scalar(wide, 0.0)?;
            c.full(zero, vec![b.clone(), kv_heads.clone(), size_k.clone(), size_v.clone()])?
        }
    };
    let state_dims = c.shape(state)?;
    // One factor a head, or one for each of its key elements.
    let decay = if gated {
        let g = c.x(4)?;
        let g = c.to(g, wide)?;
        let g = split_heads(c, g, &kv_heads)?;
        Some(c.un(UnaryOp::Exp, g)?)
    } else {
        None
    };
    let beta = if delta {
        let beta = c.x(5)?;
        let beta = c.to(beta, wide)?;
        let own = dim_of(c, beta, 2)?;
        let h = if own == Dim::ONE { Dim::ONE } else { kv_heads.clone() };
        Some(split_heads(c, beta, &h)?)
    } else {
        None
    };
    let scale = c.float("scale")?.filter(|s| *s != 0.0);
    let mut outputs = Vec::with_capacity(tokens);
    for t in 0..tokens {
        let at = |c: &mut Ctx, x: Value| c.part(x, 2, Dim::from(t), Dim::ONE);
        if let Some(decay) = decay {
            // [b, h, 1, d] as [b, h, d, 1]
            let d = at(c, decay)?;
            let d = c.b.transpose(d, vec![0, 1, 3, 2])?;
            state = c.mul(state, d)?;
        }
        let key = at(c, k)?;
        let column = c.b.transpose(key, vec![0, 1, 3, 2])?;
        let mut value = at(c, v)?;
        if let Some(beta) = beta {
            let known = matmul(c, key, state)?;
            let new = c.sub(value, known)?;
            let beta = at(c, beta)?;
            value = c.mul(new, beta)?;
        }
        let update = c.mul(column, value)?;
        state = c.add(state, update)?;
        state = c.b.reshape(state, state_dims.clone())?;
        let query = at(c, q)?;
        let shared = repeat_heads(c, state, &q_heads)?;
        let read = matmul(c, query, shared)?;
        outputs.push(match (scale, size_k.known()) {
            (Some(scale), _) => c.mul_s(read, scale)?,
            (None, Some(size)) => c.mul_s(read, 1.0 / (size as f64).sqrt())?,
            (None, None) => return unsupported("the size of a head must be known"),
        });
    }
    if outputs.is_empty() {
        return unsupported("no tokens");
    }
    let y = c.cat(&outputs, 2)?;
    let y = join_heads(c, y)?;
    let state_type = match c.opt(3) {
        Some(state) => c.dtype(state)?,
        None => dtype,
    };
    Ok(vec![c.to(y, dtype)?, c.to(state, state_type)?])
}

fn dim_of(c: &Ctx, x: Value, axis: usize) -> Ruled<Dim> {
    match c.shape(x)?.get(axis) {
        Some(d) => Ok(d.clone()),
        None => invalid(format!("{} has no axis {axis}", c.ty(x)?)),
    }
}
