//! The back end that takes every strip: 128-bit vectors through Cranelift, on x86-64 and aarch64.
//!
//! One loop runs `lanes` elements an iteration, as 1, 2 or 4 vectors. What is left at the end goes through the same
//! loop body once more, over copies: the remaining elements of each stream are copied to buffers in the frame, the body
//! runs on those, and its stores are copied back. So a tail costs little code, gives the bits of full vectors, and
//! touches nothing outside of the streams.
//!
//! ```text
//!  entry --> body(i, streams, accumulators) <--.
//!    |        | i + lanes < limit -------------'  ^
//!    |        v                                   | streams: copies in the frame
//!    '----> rest(i, streams, accumulators) --> copy in
//!             | nothing left                       body ran on copies: --> copy out, mask accumulators
//!             '-------------------------------> done(i, accumulators) <----------'
//! ```
//!
//! Accumulators are 16 lanes in four vectors. The first vectors of the four take the next elements and then move to the
//! back; when the loop ends at element i, vector j holds the lanes from (i + 4 j) mod 16.

use std::sync::Arc;

use cranelift_codegen::Context;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I32X4, I64};
use cranelift_codegen::ir::{
    self, AbiParam, Block, BlockArg, ConstantData, InstBuilder, Signature, StackSlot, StackSlotData, StackSlotKind,
    UserFuncName, Value,
};
use cranelift_codegen::isa::CallConv;
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use frit_ir::BinaryOp;

use super::lanes::{Lanes, WIDTH, lane_type, vector_type};
use super::{Leaf, Op, Strip, StripBackend, StripSchedule, Unsupported, Val};
use crate::cpu::code::{CodeOptions, Texts, finish};
use crate::cpu::error::Refusal;
use crate::cpu::index;
use crate::cpu::scalar::{MEMORY, Ops, clif_type, neutral};
use crate::cpu::target::{Effort, Target};

/// Vectors of an accumulator.
const ACC_VECTORS: usize = 4;

/// Cranelift as a maker of leaves.
pub(in crate::cpu) struct ClifBackend {
    target: Arc<Target>,
    effort: Effort,
    context: Context,
    builder: FunctionBuilderContext,
}

impl ClifBackend {
    /// For a machine.
    pub(in crate::cpu) fn new(options: &CodeOptions) -> Self {
        ClifBackend {
            target: options.target.clone(),
            // A strip is written without redundancy. Optimising it took twice the time and made code that is no
            // faster (constants hoisted out of the loop spill), often slower: measured on exp and tanh.
            effort: if options.effort == Effort::Auto { Effort::None } else { options.effort },
            context: Context::new(),
            builder: FunctionBuilderContext::new(),
        }
    }
}

/// The parameters of a leaf.
pub(super) fn signature(convention: CallConv) -> Signature {
    let mut signature = Signature::new(convention);
    signature.params.extend([I64; 5].map(AbiParam::new));
    signature
}

impl StripBackend for ClifBackend {
    fn compile(&mut self, strip: &Strip, schedule: StripSchedule) -> Result<Leaf, Unsupported> {
        let groups = match schedule.lanes {
            4 => 1,
            8 => 2,
            16 => 4,
            lanes => return Err(Unsupported(format!("{lanes} lanes (4, 8 and 16 are possible)"))),
        };
        self.context.clear();
        let convention = self.target.convention();
        self.context.func = ir::Function::with_name_signature(UserFuncName::user(1, 0), signature(convention));
        let mut f = FunctionBuilder::new(&mut self.context.func, &mut self.builder);
        let ops = Ops { f: &mut f, features: self.target.features, functions: None, convention };
        let written = Writer { lanes: Lanes { ops }, strip, groups }.leaf();
        f.seal_all_blocks();
        let size = f.func.dfg.num_insts();
        let isa = self.target.isa(self.effort, size);
        if let Err(refusal) = written {
            self.builder = FunctionBuilderContext::new();
            return Err(refusal.into());
        }
        f.finalize(isa.frontend_config());
        let mut texts = Texts::default();
        let title = format!("strip, {} lanes", schedule.lanes);
        let wanted = schedule.text.then_some(&mut texts);
        let piece = finish(&mut self.context, isa.as_ref(), &title, wanted)?;
        Ok(Leaf { piece, texts })
    }
}

/// What a strip's streams are at some point: addresses of the next elements, and distances of those with gaps.
#[derive(Clone)]
struct Cursor {
    addresses: Vec<Value>,
    steps: Vec<Option<Value>>,
}

impl Cursor {
    /// As block arguments.
    fn values(&self) -> impl Iterator<Item = Value> + '_ {
        self.addresses.iter().copied().chain(self.steps.iter().flatten().copied())
    }
}

struct Writer<'s, 'f, 'b> {
    lanes: Lanes<'f, 'b>,
    strip: &'s Strip,
    /// Vectors an iteration.
    groups: usize,
}

fn arguments(values: impl IntoIterator<Item = Value>) -> Vec<BlockArg> {
    values.into_iter().map(BlockArg::Value).collect()
}

fn lost() -> Refusal {
    Refusal::Invalid("an op of a strip uses what is not there".to_owned())
}

impl<'b> Writer<'_, '_, 'b> {
    fn f(&mut self) -> &mut FunctionBuilder<'b> {
        self.lanes.ops.f
    }

    fn elements(&self) -> i64 {
        (self.groups * WIDTH) as i64
    }

    fn leaf(mut self) -> Result<(), Refusal> {
        let f = self.f();
        let entry = f.create_block();
        f.append_block_params_for_function_params(entry);
        f.switch_to_block(entry);
        let &[streams, params, accumulators, n, functions] = f.block_params(entry) else { return Err(lost()) };
        self.lanes.ops.functions = Some(functions);
        let start = self.start(streams);
        let accs = self.start_accumulators()?;
        let (body, rest, done) = (self.f().create_block(), self.f().create_block(), self.f().create_block());
        let elements = self.elements();
        let limit = self.f().ins().band_imm_s(n, -elements);
        let zero = self.f().ins().iconst(I64, 0);
        self.add_params(body, &start, &accs);
        self.add_params(rest, &start, &accs);
        self.f().append_block_param(done, I64);
        self.add_acc_params(done, &accs);

        let some = self.f().ins().icmp(IntCC::SignedGreaterThan, limit, zero);
        let initial = arguments([zero].into_iter().chain(start.values()).chain(accs.iter().flatten().copied()));
        self.f().ins().brif(some, body, &initial, rest, &initial);

        // The body, on streams or on copies of their ends.
        self.f().switch_to_block(body);
        let (i, cursor, before) = self.read_params(body)?;
        let values = self.body(&cursor, params)?;
        let after = self.accumulate(&before, &values)?;
        let next = self.f().ins().iadd_imm_s(i, elements);
        let moved = self.advance(&cursor);
        let again = self.f().ins().icmp(IntCC::SignedLessThan, next, limit);
        let following = arguments([next].into_iter().chain(moved.values()).chain(after.iter().flatten().copied()));
        let ended = self.f().create_block();
        self.f().ins().brif(again, body, &following, ended, &[]);

        self.f().switch_to_block(ended);
        let were_copies = self.f().ins().icmp(IntCC::SignedGreaterThan, next, n);
        let copied = self.f().create_block();
        self.f().ins().brif(were_copies, copied, &[], rest, &following);

        // What is left, into copies.
        self.f().switch_to_block(rest);
        let (i_rest, left_at, accs) = self.read_params(rest)?;
        let left = self.f().ins().isub(n, i_rest);
        let copy = self.f().create_block();
        let any = self.f().ins().icmp(IntCC::SignedGreaterThan, left, zero);
        let finished = arguments([i_rest].into_iter().chain(accs.iter().flatten().copied()));
        self.f().ins().brif(any, copy, &[], done, &finished);
        self.f().switch_to_block(copy);
        let copies = self.copies();
        let saved = self.slot(8 * left_at.values().count());
        for (k, value) in left_at.values().enumerate() {
            self.f().ins().stack_store(I64, value, saved, 8 * k as i32);
        }
        self.copy(&left_at, &copies, left, true)?;
        let on_copies = arguments([i_rest].into_iter().chain(copies.values()).chain(accs.iter().flatten().copied()));
        self.f().ins().jump(body, &on_copies);

        // And back.
        self.f().switch_to_block(copied);
        let left = self.f().ins().isub(n, i);
        let home = self.reload(saved, &cursor);
        self.copy(&home, &cursor, left, false)?;
        let masked = self.mask(&before, &after, left);
        let finished = arguments([i].into_iter().chain(masked.iter().flatten().copied()));
        self.f().ins().jump(done, &finished);

        self.f().switch_to_block(done);
        let at: Vec<Value> = self.f().block_params(done).to_vec();
        self.store_accumulators(accumulators, &at)?;
        self.fold(accumulators)?;
        self.f().ins().return_(&[]);
        Ok(())
    }

    fn slot(&mut self, bytes: usize) -> StackSlot {
        self.f().create_sized_stack_slot(StackSlotData::new(StackSlotKind::ExplicitSlot, bytes as u32, 4))
    }

    /// Streams at their first elements.
    fn start(&mut self, streams: Value) -> Cursor {
        let mut cursor = Cursor { addresses: Vec::new(), steps: Vec::new() };
        for (k, stream) in self.strip.streams.iter().enumerate() {
            let f = self.lanes.ops.f.ins();
            cursor.addresses.push(f.load(I64, MEMORY, streams, 16 * k as i32));
            let step = (!stream.is_dense()).then(|| self.f().ins().load(I64, MEMORY, streams, 16 * k as i32 + 8));
            cursor.steps.push(step);
        }
        cursor
    }

    fn add_params(&mut self, block: Block, cursor: &Cursor, accs: &[[Value; ACC_VECTORS]]) {
        let f = self.f();
        f.append_block_param(block, I64);
        for _ in cursor.values() {
            f.append_block_param(block, I64);
        }
        self.add_acc_params(block, accs);
    }

    fn add_acc_params(&mut self, block: Block, accs: &[[Value; ACC_VECTORS]]) {
        for vector in accs.iter().flatten() {
            let ty = self.f().func.dfg.value_type(*vector);
            self.f().append_block_param(block, ty);
        }
    }

    /// What [`Self::add_params`] added: position, streams, accumulators.
    fn read_params(&mut self, block: Block) -> Result<(Value, Cursor, Vec<[Value; ACC_VECTORS]>), Refusal> {
        let params = self.f().block_params(block).to_vec();
        let mut params = params.into_iter();
        let i = params.next().ok_or_else(lost)?;
        let addresses = params.by_ref().take(self.strip.streams.len()).collect();
        let mut steps = Vec::with_capacity(self.strip.streams.len());
        for stream in &self.strip.streams {
            steps.push(if stream.is_dense() { None } else { Some(params.next().ok_or_else(lost)?) });
        }
        let rest: Vec<Value> = params.collect();
        let (accs, _) = rest.as_chunks::<ACC_VECTORS>();
        Ok((i, Cursor { addresses, steps }, accs.to_vec()))
    }

    /// Accumulators of no elements.
    fn start_accumulators(&mut self) -> Result<Vec<[Value; ACC_VECTORS]>, Refusal> {
        let mut accs = Vec::with_capacity(self.strip.accs.len());
        for acc in &self.strip.accs {
            let dtype = self.strip.ops.get(acc.value as usize).ok_or_else(lost)?.dtype;
            let neutral = neutral(acc.combine, dtype)?;
            accs.push([self.lanes.constant(neutral); ACC_VECTORS]);
        }
        Ok(accs)
    }

    /// Vector j to the lanes from (i + 4 j) mod 16.
    fn store_accumulators(&mut self, memory: Value, params: &[Value]) -> Result<(), Refusal> {
        let (Some(i), Some(vectors)) = (params.first(), params.get(1..)) else { return Err(lost()) };
        let (accs, _) = vectors.as_chunks::<ACC_VECTORS>();
        for j in 0..if accs.is_empty() { 0 } else { ACC_VECTORS } {
            let f = self.f();
            let lane = f.ins().iadd_imm_s(*i, (WIDTH * j) as i64);
            let lane = f.ins().band_imm_s(lane, 15);
            let offset = f.ins().ishl_imm_u(lane, 2);
            let place = f.ins().iadd(memory, offset);
            for (k, acc) in accs.iter().enumerate() {
                let vector = acc.get(j).ok_or_else(lost)?;
                self.f().ins().store(MEMORY, *vector, place, 64 * k as i32);
            }
        }
        Ok(())
    }

    /// The lanes of each accumulator as one, which takes the place of the first.
    fn fold(&mut self, memory: Value) -> Result<(), Refusal> {
        for (k, acc) in self.strip.accs.iter().enumerate() {
            let dtype = self.strip.ops.get(acc.value as usize).ok_or_else(lost)?.dtype;
            let ty = vector_type(dtype);
            let parts = [0, 1, 2, 3].map(|part| self.f().ins().load(ty, MEMORY, memory, 64 * k as i32 + 16 * part));
            let all = self.lanes.combine_all(acc.combine, dtype, parts)?;
            self.f().ins().store(MEMORY, all, memory, 64 * k as i32);
        }
        Ok(())
    }

    /// Combines the vectors of this iteration into the first of the four, and moves those to the back.
    fn accumulate(
        &mut self,
        before: &[[Value; ACC_VECTORS]],
        values: &[Vec<Value>],
    ) -> Result<Vec<[Value; ACC_VECTORS]>, Refusal> {
        let mut after = Vec::with_capacity(before.len());
        for (acc, old) in self.strip.accs.iter().zip(before) {
            let mut vectors = *old;
            let dtype = self.strip.ops.get(acc.value as usize).ok_or_else(lost)?.dtype;
            let new = values.get(acc.value as usize).ok_or_else(lost)?;
            let factors = match acc.factor {
                Some(factor) => Some(values.get(factor as usize).ok_or_else(lost)?),
                None => None,
            };
            for (i, (vector, value)) in vectors.iter_mut().zip(new).enumerate() {
                *vector = match factors {
                    Some(factors) => {
                        let factor = factors.get(i).ok_or_else(lost)?;
                        self.lanes.fma(dtype, *value, *factor, *vector)?
                    }
                    None => self.lanes.combine(acc.combine, dtype, *vector, *value)?,
                };
            }
            vectors.rotate_left(self.groups % ACC_VECTORS);
            after.push(vectors);
        }
        Ok(after)
    }

    /// Of the last iteration only the first `left` lanes count, and nothing moves.
    fn mask(
        &mut self,
        before: &[[Value; ACC_VECTORS]],
        after: &[[Value; ACC_VECTORS]],
        left: Value,
    ) -> Vec<[Value; ACC_VECTORS]> {
        let mut masks = Vec::new();
        if !before.is_empty() {
            let few = self.f().ins().ireduce(ir::types::I32, left);
            let few = self.f().ins().splat(I32X4, few);
            for group in 0..self.groups {
                let numbers: Vec<u8> =
                    (0..WIDTH).flat_map(|lane| ((group * WIDTH + lane) as u32).to_le_bytes()).collect();
                let constant = self.f().func.dfg.constants.insert(ConstantData::from(numbers.as_slice()));
                let numbers = self.f().ins().vconst(I32X4, constant);
                masks.push(self.f().ins().icmp(IntCC::SignedLessThan, numbers, few));
            }
        }
        let mut result = Vec::with_capacity(before.len());
        for ((acc, old), moved) in self.strip.accs.iter().zip(before).zip(after) {
            let mut unmoved = *moved;
            unmoved.rotate_right(self.groups % ACC_VECTORS);
            let mut vectors = *old;
            let dtype = self.strip.ops.get(acc.value as usize).map_or(frit_ir::DType::I32, |op| op.dtype);
            for ((vector, new), mask) in vectors.iter_mut().zip(unmoved).zip(&masks) {
                *vector = self.lanes.select(dtype, *mask, new, *vector);
            }
            result.push(vectors);
        }
        result
    }

    /// Streams one iteration on.
    fn advance(&mut self, cursor: &Cursor) -> Cursor {
        let elements = self.elements();
        let mut moved = cursor.clone();
        for ((address, step), stream) in moved.addresses.iter_mut().zip(&cursor.steps).zip(&self.strip.streams) {
            let f = &mut *self.lanes.ops.f;
            *address = match step {
                None => f.ins().iadd_imm_s(*address, elements * stream.dtype.size() as i64),
                Some(step) => {
                    let distance = index::scale(f, *step, elements);
                    f.ins().iadd(*address, distance)
                }
            };
        }
        moved
    }

    /// Room in the frame for the end of each stream, its elements side by side.
    fn copies(&mut self) -> Cursor {
        let mut cursor = Cursor { addresses: Vec::new(), steps: Vec::new() };
        for stream in &self.strip.streams {
            let slot = self.slot(self.groups * WIDTH * stream.dtype.size());
            let address = self.f().ins().stack_addr(I64, slot, 0);
            cursor.addresses.push(address);
            let step = (!stream.is_dense()).then(|| self.f().ins().iconst(I64, stream.dtype.size() as i64));
            cursor.steps.push(step);
        }
        cursor
    }

    /// The streams that were saved before the copies took their place.
    fn reload(&mut self, saved: StackSlot, shape: &Cursor) -> Cursor {
        let mut position = 0;
        let mut next = |this: &mut Self| {
            position += 8;
            this.f().ins().stack_load(I64, I64, saved, position - 8)
        };
        let addresses = shape.addresses.iter().map(|_| next(self)).collect();
        let steps = shape.steps.iter().map(|step| step.map(|_| next(self))).collect();
        Cursor { addresses, steps }
    }

    /// Copies `left` elements: of what is loaded from streams to copies, or of what is stored back.
    fn copy(&mut self, streams: &Cursor, copies: &Cursor, left: Value, inward: bool) -> Result<(), Refusal> {
        let wanted = |s: &super::Stream| if inward { s.loaded } else { s.stored };
        if !self.strip.streams.iter().any(wanted) {
            return Ok(());
        }
        let (looped, after) = (self.f().create_block(), self.f().create_block());
        let k = self.f().append_block_param(looped, I64);
        let zero = self.f().ins().iconst(I64, 0);
        self.f().ins().jump(looped, &arguments([zero]));
        self.f().switch_to_block(looped);
        for (at, stream) in self.strip.streams.iter().enumerate().filter(|(_, s)| wanted(s)) {
            let size = stream.dtype.size() as i64;
            let (Some(address), Some(step)) = (streams.addresses.get(at), streams.steps.get(at)) else {
                return Err(lost());
            };
            let copy = copies.addresses.get(at).ok_or_else(lost)?;
            let ty = clif_type(stream.dtype)?;
            let f = &mut *self.lanes.ops.f;
            let dense = index::scale(f, k, size);
            let distance = match step {
                None => dense,
                Some(step) => f.ins().imul(k, *step),
            };
            let (outer, inner) = (f.ins().iadd(*address, distance), f.ins().iadd(*copy, dense));
            let (from, to) = if inward { (outer, inner) } else { (inner, outer) };
            let element = f.ins().load(ty, MEMORY, from, 0);
            f.ins().store(MEMORY, element, to, 0);
        }
        let next = self.f().ins().iadd_imm_s(k, 1);
        let again = self.f().ins().icmp(IntCC::SignedLessThan, next, left);
        self.f().ins().brif(again, looped, &arguments([next]), after, &[]);
        self.f().switch_to_block(after);
        Ok(())
    }

    /// The addresses of a vector of a stream with gaps.
    fn spread(&mut self, first: Value, step: Value, group: usize) -> [Value; WIDTH] {
        let f = self.f();
        let mut address = match group {
            0 => first,
            _ => {
                let skipped = index::scale(f, step, (group * WIDTH) as i64);
                f.ins().iadd(first, skipped)
            }
        };
        let mut addresses = [address; WIDTH];
        for slot in addresses.iter_mut().skip(1) {
            address = f.ins().iadd(address, step);
            *slot = address;
        }
        addresses
    }

    /// Every op on every vector of an iteration; each op's vectors.
    fn body(&mut self, cursor: &Cursor, params: Value) -> Result<Vec<Vec<Value>>, Refusal> {
        let mut values: Vec<Vec<Value>> = Vec::with_capacity(self.strip.ops.len());
        for typed in &self.strip.ops {
            let mut vectors: Vec<Value> = Vec::with_capacity(self.groups);
            for group in 0..self.groups {
                // What is the same in all lanes is made once.
                let again = match typed.op {
                    Op::Const(_) | Op::Param(_) => vectors.first().copied(),
                    _ => None,
                };
                vectors.push(match again {
                    Some(value) => value,
                    None => self.op(typed, group, cursor, params, &values)?,
                });
            }
            values.push(vectors);
        }
        Ok(values)
    }

    fn op(
        &mut self,
        typed: &super::TypedOp,
        group: usize,
        cursor: &Cursor,
        params: Value,
        values: &[Vec<Value>],
    ) -> Result<Value, Refusal> {
        let strip = self.strip;
        let dtype_of = |v: Val| strip.ops.get(v as usize).map(|op| op.dtype).ok_or_else(lost);
        let value = |v: Val| values.get(v as usize).and_then(|v| v.get(group)).copied().ok_or_else(lost);
        let lanes = &mut self.lanes;
        match typed.op {
            Op::Const(value) => Ok(lanes.constant(value)),
            Op::Param(p) => Ok(lanes.ops.f.ins().load(vector_type(typed.dtype), MEMORY, params, 64 * p as i32)),
            Op::Load(s) | Op::Store(s, _) => {
                let stream = strip.streams.get(s as usize).ok_or_else(lost)?;
                let address = *cursor.addresses.get(s as usize).ok_or_else(lost)?;
                let step = *cursor.steps.get(s as usize).ok_or_else(lost)?;
                let offset = (group * WIDTH * stream.dtype.size()) as i32;
                match (typed.op, step) {
                    (Op::Store(_, v), None) => {
                        let v = value(v)?;
                        lanes.store(stream.dtype, v, address, offset);
                        Ok(v)
                    }
                    (Op::Store(_, v), Some(step)) => {
                        let v = value(v)?;
                        let addresses = self.spread(address, step, group);
                        self.lanes.scatter(stream.dtype, v, addresses)?;
                        Ok(v)
                    }
                    (_, None) => Ok(lanes.load(stream.dtype, address, offset)),
                    (_, Some(step)) => {
                        let addresses = self.spread(address, step, group);
                        self.lanes.gather(stream.dtype, addresses)
                    }
                }
            }
            Op::Unary(op, x) => lanes.unary(op, dtype_of(x)?, value(x)?),
            Op::Binary(op @ (BinaryOp::Shl | BinaryOp::Shr), a, b) => {
                let dtype = dtype_of(a)?;
                let amount = match strip.ops.get(b as usize).map(|op| op.op) {
                    Some(Op::Const(amount)) => Some(lanes.ops.f.ins().iconst(lane_type(dtype), amount.bits as i64)),
                    Some(Op::Param(p)) => Some(lanes.ops.f.ins().load(lane_type(dtype), MEMORY, params, 64 * p as i32)),
                    _ => None,
                };
                match amount {
                    Some(amount) => Ok(lanes.shift(op, dtype, value(a)?, amount)),
                    None => lanes.binary(op, dtype, value(a)?, value(b)?),
                }
            }
            Op::Binary(op, a, b) => lanes.binary(op, dtype_of(a)?, value(a)?, value(b)?),
            Op::Select(c, a, b) => Ok(lanes.select(typed.dtype, value(c)?, value(a)?, value(b)?)),
            Op::Fma(a, b, c) => lanes.fma(typed.dtype, value(a)?, value(b)?, value(c)?),
            Op::Cast { value: x, saturate } => lanes.cast(dtype_of(x)?, typed.dtype, saturate, value(x)?),
            Op::Rescue { ok, value: v, op, x } => lanes.rescue(op, value(ok)?, value(v)?, value(x)?),
            Op::Bitcast(x) => lanes.bitcast(dtype_of(x)?, typed.dtype, value(x)?),
        }
    }
}
