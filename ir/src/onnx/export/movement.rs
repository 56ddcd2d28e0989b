//! Reshapes, slices and updates.

use super::ExportError;
use super::spread::operand;
use super::types::{index, int};
use super::writer::{Frame, Writer};
use crate::graph::{NodeId, Value};
use crate::op::Op;
use crate::types::Dim;

type Written = Result<(), ExportError>;

impl Writer<'_> {
    /// Extents that stay in place are copied (0), one that the element count gives is left to the runtime (-1); what is
    /// left is computed.
    pub(super) fn reshape(&mut self, frame: &mut Frame<'_>, id: NodeId, dims: &[Dim]) -> Written {
        let x = operand(frame, id, 0)?;
        let from = frame.tensor(x)?;
        let name = self.name(frame, x)?;
        if from.dims == dims {
            return self.alias(frame, id, &name);
        }
        let mut attributes = Vec::new();
        let empty = dims.contains(&Dim::ZERO);
        let kept = |i: usize, d: &Dim| d.known().is_none() && !empty && from.dims.get(i) == Some(d);
        let open: Vec<usize> =
            dims.iter().enumerate().filter(|(i, d)| d.known().is_none() && !kept(*i, d)).map(|(i, _)| i).collect();
        let copies = dims.iter().enumerate().any(|(i, d)| kept(i, d));
        // Beside a copied extent, which may be 0, nothing can be divided.
        let derived = open.len() == 1 && !copies && !empty && from.numel() == Dim::product(dims);
        let shape = if open.is_empty() || derived {
            let entry = |(i, d): (usize, &Dim)| match d.known() {
                Some(v) => v,
                None if kept(i, d) => 0,
                None => -1,
            };
            let entries: Vec<i64> = dims.iter().enumerate().map(entry).collect();
            self.list(frame, &entries)?
        } else {
            self.extents(frame, dims)?
        };
        if empty || (!open.is_empty() && !derived) {
            attributes.push(int("allowzero", 1));
        }
        self.finish(frame, id, "Reshape", &[&name, &shape], attributes);
        Ok(())
    }

    /// Axes that stay whole are left out. Going backwards, an end before the first element is the smallest integer: -1
    /// would be the last element.
    pub(super) fn slice(
        &mut self,
        frame: &mut Frame<'_>,
        id: NodeId,
        starts: &[Dim],
        sizes: &[Dim],
        steps: &[i64],
    ) -> Written {
        let x = operand(frame, id, 0)?;
        let dims = &frame.tensor(x)?.dims;
        let name = self.name(frame, x)?;
        let whole = |&i: &usize| starts[i] == Dim::ZERO && sizes[i] == dims[i] && steps[i] == 1;
        let axes: Vec<usize> = (0..dims.len()).filter(|i| !whole(i)).collect();
        if axes.is_empty() {
            return self.alias(frame, id, &name);
        }
        let (mut from, mut ends, mut open) = (Vec::new(), Vec::new(), false);
        for &i in &axes {
            let end = &starts[i] + &(&sizes[i] * &Dim::Known(steps[i]));
            if sizes[i] == Dim::ZERO {
                from.push(Dim::ZERO);
                ends.push(Dim::ZERO);
                continue;
            }
            from.push(starts[i].clone());
            match end.known() {
                Some(v) if v < 0 => ends.push(Dim::Known(i64::MIN)),
                // `start + size step` may pass the extent, where slices stop.
                Some(_) => ends.push(end),
                None => {
                    open |= steps[i] < 0;
                    ends.push(end);
                }
            }
        }
        let from = self.extents(frame, &from)?;
        let mut to = self.extents(frame, &ends)?;
        if open {
            let (zero, lowest) = (self.list(frame, &[0])?, self.list(frame, &[i64::MIN])?);
            let before = self.emit(frame, "Less", &[&to, &zero], Vec::new());
            to = self.emit(frame, "Where", &[&before, &lowest, &to], Vec::new());
        }
        let by: Vec<i64> = axes.iter().map(|&i| steps[i]).collect();
        let axes: Vec<i64> = axes.into_iter().map(index).collect();
        let axes = self.list(frame, &axes)?;
        if by.iter().all(|&s| s == 1) {
            self.finish(frame, id, "Slice", &[&name, &from, &to, &axes], Vec::new());
        } else {
            let by = self.list(frame, &by)?;
            self.finish(frame, id, "Slice", &[&name, &from, &to, &axes, &by], Vec::new());
        }
        Ok(())
    }

    /// Operand `i`, an i64 scalar, as i64[1] held to 0..=room.
    fn clamped(&mut self, frame: &mut Frame<'_>, id: NodeId, i: usize, room: &Dim) -> Result<String, ExportError> {
        let value = operand(frame, id, i)?;
        if let (Op::Constant { value }, Some(room)) = (frame.f.op(value), room.known()) {
            let start = value.to_i64s().and_then(|v| v.first().copied()).unwrap_or(0);
            return self.list(frame, &[start.min(room).max(0)]);
        }
        let scalar = self.name(frame, value)?;
        let (one, zero) = (self.list(frame, &[1])?, self.list(frame, &[0])?);
        let start = self.emit(frame, "Reshape", &[&scalar, &one], Vec::new());
        let room = self.extent(frame, room)?;
        let below = self.emit(frame, "Min", &[&start, &room], Vec::new());
        Ok(self.emit(frame, "Max", &[&below, &zero], Vec::new()))
    }

    pub(super) fn dynamic_slice(&mut self, frame: &mut Frame<'_>, id: NodeId, sizes: &[Dim]) -> Written {
        let x = operand(frame, id, 0)?;
        let dims = &frame.tensor(x)?.dims;
        let name = self.name(frame, x)?;
        let axes: Vec<usize> = (0..dims.len()).filter(|&i| sizes[i] != dims[i]).collect();
        if axes.is_empty() {
            return self.alias(frame, id, &name);
        }
        let mut starts = Vec::with_capacity(axes.len());
        for &i in &axes {
            starts.push(self.clamped(frame, id, i + 1, &(&dims[i] - &sizes[i]))?);
        }
        let from = match starts.as_slice() {
            [start] => start.clone(),
            _ => {
                let starts: Vec<&str> = starts.iter().map(String::as_str).collect();
                self.emit(frame, "Concat", &starts, vec![int("axis", 0)])
            }
        };
        let taken: Vec<Dim> = axes.iter().map(|&i| sizes[i].clone()).collect();
        let taken = self.extents(frame, &taken)?;
        let to = self.emit(frame, "Add", &[&from, &taken], Vec::new());
        let axes: Vec<i64> = axes.into_iter().map(index).collect();
        let axes = self.list(frame, &axes)?;
        self.finish(frame, id, "Slice", &[&name, &from, &to, &axes], Vec::new());
        Ok(())
    }

    /// Along each axis that the update does not fill: what is before, the middle updated along the other axes, what is
    /// after.
    pub(super) fn update_slice(&mut self, frame: &mut Frame<'_>, id: NodeId) -> Written {
        let (x, update) = (operand(frame, id, 0)?, operand(frame, id, 1)?);
        let (dims, part) = (&frame.tensor(x)?.dims, &frame.tensor(update)?.dims);
        let (name, new) = (self.name(frame, x)?, self.name(frame, update)?);
        let axes: Vec<usize> = (0..dims.len()).filter(|&i| part[i] != dims[i]).collect();
        if axes.is_empty() {
            return self.alias(frame, id, &new);
        }
        let mut bounds = Vec::with_capacity(axes.len());
        for &i in &axes {
            let start = self.clamped(frame, id, i + 2, &(&dims[i] - &part[i]))?;
            let size = self.extent(frame, &part[i])?;
            let end = self.emit(frame, "Add", &[&start, &size], Vec::new());
            bounds.push((i, start, end));
        }
        let result = self.result(frame, Value { node: id, result: 0 });
        self.updated(frame, &name, &new, &bounds, Some(&result))?;
        self.alias(frame, id, &result)
    }

    /// `x` with `new` inside the bounds of each axis; under the name `result` where one is given.
    fn updated(
        &mut self,
        frame: &mut Frame<'_>,
        x: &str,
        new: &str,
        bounds: &[(usize, String, String)],
        result: Option<&str>,
    ) -> Result<String, ExportError> {
        let Some(((axis, start, end), inner)) = bounds.split_first() else { return Ok(new.to_owned()) };
        let (zero, last) = (self.list(frame, &[0])?, self.list(frame, &[i64::MAX])?);
        let along = self.list(frame, &[index(*axis)])?;
        let before = self.emit(frame, "Slice", &[x, &zero, start, &along], Vec::new());
        let after = self.emit(frame, "Slice", &[x, end, &last, &along], Vec::new());
        let middle = if inner.is_empty() {
            new.to_owned()
        } else {
            let middle = self.emit(frame, "Slice", &[x, start, end, &along], Vec::new());
            self.updated(frame, &middle, new, inner, None)?
        };
        let (parts, attributes) = ([before.as_str(), &middle, &after], vec![int("axis", index(*axis))]);
        match result {
            Some(name) => {
                self.named(frame, "Concat", &parts, name, attributes);
                Ok(name.to_owned())
            }
            None => Ok(self.emit(frame, "Concat", &parts, attributes)),
        }
    }
}
