//! Programs that programs run: calls, branches, loops.
//!
//! Arguments are handed down as regions, nothing is copied. Results lie in the callee's memory, which its next run
//! writes again, so they are copied into the caller's slots.

use frit_compiler::plan::{Bind, Place, ProgramId, SlotId, Step};

use super::frame::Frame;
use super::memory::Region;
use super::{At, Run};
use crate::session::RunError;

impl Run<'_> {
    /// Runs a program once.
    pub(super) fn call(
        &mut self,
        at: &mut At<'_>,
        callee: ProgramId,
        arguments: &[SlotId],
        results: &[SlotId],
        binds: &[Bind],
        origin: &str,
    ) -> Result<(), RunError> {
        let mut child = self.take(callee);
        let done = self.run_once(at, callee, &mut child, arguments, results, binds, origin);
        self.frames[callee.index()] = child;
        done
    }

    fn run_once(
        &mut self,
        at: &mut At<'_>,
        callee: ProgramId,
        child: &mut Frame,
        arguments: &[SlotId],
        results: &[SlotId],
        binds: &[Bind],
        origin: &str,
    ) -> Result<(), RunError> {
        for (input, slot) in arguments.iter().enumerate() {
            self.hand_down(at, *slot, callee, child, input)?;
        }
        self.execute(callee, child)?;
        let (plan, inner) = (self.plan(), &self.plan().programs[callee.index()]);
        for bind in binds {
            let port = inner.outputs[bind.input as usize].slot;
            let Some(dim) = inner.slots[port.index()].dims.get(bind.axis as usize) else {
                return Err(RunError::Internal(format!("`{origin}`: a result has another rank")));
            };
            at.frame.bind(plan, at.program, bind.symbol, child.dim(inner, *dim)?)?;
        }
        for (output, slot) in results.iter().enumerate() {
            self.hand_up(at, *slot, callee, child, output, origin)?;
        }
        Ok(())
    }

    /// A program's frame, out of the list while it runs.
    fn take(&mut self, callee: ProgramId) -> Frame {
        let mut child = std::mem::take(&mut self.frames[callee.index()]);
        child.fit(&self.plan().programs[callee.index()]);
        child
    }

    /// Binds an input of the callee to a slot of the caller.
    fn hand_down(
        &mut self,
        at: &mut At<'_>,
        slot: SlotId,
        callee: ProgramId,
        child: &mut Frame,
        input: usize,
    ) -> Result<(), RunError> {
        let port = &self.plan().programs[callee.index()].inputs[input];
        at.frame.shape_into(at.program, slot, &mut child.shapes[input])?;
        let rank = port.ty.tensor().map_or(0, |t| t.rank());
        if child.shapes[input].len() != rank {
            return Err(RunError::Internal(format!("`{}` takes {} as input {input}", port.name, port.ty)));
        }
        let root = at.facts.root(slot);
        if matches!(at.program.slots[root].place, Place::Host) {
            child.host[port.slot.index()] = at.frame.host[root].clone();
        } else {
            child.regions[port.slot.index()] = at.region(slot, self.limit)?;
        }
        Ok(())
    }

    /// Copies an output of the callee to a slot of the caller.
    fn hand_up(
        &mut self,
        at: &mut At<'_>,
        slot: SlotId,
        callee: ProgramId,
        child: &mut Frame,
        output: usize,
        origin: &str,
    ) -> Result<(), RunError> {
        let inner = &self.plan().programs[callee.index()];
        let port = inner.outputs[output].slot;
        let source = self.model.facts[callee.index()].root(port);
        let root = at.facts.root(slot);
        if matches!(at.program.slots[root].place, Place::Host) {
            at.frame.host[root] = child.host[source].clone();
            return Ok(());
        }
        let (theirs, ours) = (&inner.slots[port.index()].dims, &at.program.slots[slot.index()].dims);
        for (axis, (theirs, ours)) in theirs.iter().zip(ours).enumerate() {
            let (found, expected) = (child.dim(inner, *theirs)?, at.frame.dim(at.program, *ours)?);
            if found != expected {
                let message = format!("result {output}, axis {axis}: extent {found}, expected {expected}");
                return Err(RunError::Shape { origin: origin.to_owned(), message });
            }
        }
        if at.region(slot, self.limit)?.copy_from(child.regions[source]) {
            return Ok(());
        }
        Err(RunError::Internal(format!("`{origin}`: result {output} has another size")))
    }

    /// Runs the body of a loop while the counter is below the trip count and the condition holds.
    ///
    /// Carried values live in the caller's result slots: the body reads them there and writes new ones into its own
    /// memory, which are copied over once it is done. So a body never overwrites what it still reads.
    pub(super) fn repeat(&mut self, at: &mut At<'_>, step: &Step) -> Result<(), RunError> {
        let Step::Loop { body, .. } = step else { return Ok(()) };
        let mut child = self.take(*body);
        let done = self.run_loop(at, step, &mut child);
        self.frames[body.index()] = child;
        done
    }

    fn run_loop(&mut self, at: &mut At<'_>, step: &Step, child: &mut Frame) -> Result<(), RunError> {
        let Step::Loop { trip, condition, body, arguments, carried, results, trips, origin } = step else {
            return Ok(());
        };
        let (plan, limit) = (self.plan(), self.limit);
        let (carried, inner) = (*carried as usize, &plan.programs[body.index()]);
        let trip = i64::from_le_bytes(at.scalar(*trip, limit)?);
        let mut going = at.scalar::<1>(*condition, limit)?;
        for (argument, result) in arguments.iter().zip(results).take(carried) {
            at.region(*result, limit)?;
            self.copy(at, *argument, *result)?;
        }
        let mut count = 0i64;
        while count < trip && going != [0] {
            self.small_input(*body, child, 0, &count.to_le_bytes())?;
            self.small_input(*body, child, 1, &going)?;
            let slots = results.iter().take(carried).chain(arguments.iter().skip(carried));
            for (i, slot) in slots.enumerate() {
                self.hand_down(at, *slot, *body, child, i + 2)?;
            }
            self.execute(*body, child)?;
            let root = self.model.facts[body.index()].root(inner.outputs[0].slot);
            going = <[u8; 1]>::try_from(child.regions[root].bytes())
                .map_err(|_| RunError::Internal(format!("`{origin}`: the condition is no scalar")))?;
            for (i, result) in results.iter().enumerate() {
                if i < carried {
                    self.hand_up(at, *result, *body, child, i + 1, origin)?;
                } else {
                    let root = self.model.facts[body.index()].root(inner.outputs[i + 1].slot);
                    self.stack(at, *result, child.regions[root], count as usize, origin)?;
                }
            }
            count += 1;
        }
        if let Some(symbol) = trips {
            at.frame.bind(plan, at.program, *symbol, count)?;
        }
        for result in results.iter().skip(carried) {
            self.close_stack(at, *result, count, origin)?;
        }
        Ok(())
    }

    /// Binds a scalar that the executor makes.
    fn small_input(
        &mut self,
        callee: ProgramId,
        child: &mut Frame,
        input: usize,
        bytes: &[u8],
    ) -> Result<(), RunError> {
        let internal = || RunError::Internal("a loop's counter has no place".to_owned());
        let buffer = &mut child.staging[input];
        buffer.reserve(bytes.len()).map_err(|_| internal())?;
        let region = buffer.region(0, bytes.len()).ok_or_else(internal)?;
        region.copy_from(Region::read_only(bytes));
        child.shapes[input].clear();
        child.regions[self.plan().programs[callee.index()].inputs[input].slot.index()] = region;
        Ok(())
    }

    /// Appends one trip's value to a stacked result.
    fn stack(
        &mut self,
        at: &mut At<'_>,
        slot: SlotId,
        value: Region,
        count: usize,
        origin: &str,
    ) -> Result<(), RunError> {
        let root = at.facts.root(slot);
        let offset = value.len().checked_mul(count);
        let end = offset.and_then(|o| o.checked_add(value.len()));
        let (Some(offset), Some(end)) = (offset, end) else {
            let what = format!("what `{origin}` stacks");
            return Err(RunError::Limit { what, bytes: usize::MAX, limit: self.limit });
        };
        if at.program.slots[root].place == Place::Late {
            at.frame.grow_late(at.program, root, end, self.limit)?;
        }
        match at.frame.regions[root].part(offset, value.len()) {
            Some(place) if place.copy_from(value) => Ok(()),
            _ => Err(RunError::Shape {
                origin: origin.to_owned(),
                message: format!("a stacked result has no room for trip {count}"),
            }),
        }
    }

    /// Checks that a stacked result is as long as its extents say.
    fn close_stack(&mut self, at: &mut At<'_>, slot: SlotId, count: i64, origin: &str) -> Result<(), RunError> {
        let dims = &at.program.slots[slot.index()].dims;
        let (expected, found) = match dims.first() {
            Some(first) => (at.frame.dim(at.program, *first)?, count),
            None => return Err(RunError::Internal(format!("`{origin}`: a stacked scalar"))),
        };
        if expected != found {
            let message = format!("the loop ran {found} times, its results are {expected} long");
            return Err(RunError::Shape { origin: origin.to_owned(), message });
        }
        let root = at.facts.root(slot);
        if count == 0 && at.program.slots[root].place == Place::Late {
            return at.frame.grow_late(at.program, root, 0, self.limit);
        }
        Ok(())
    }
}
