//! Extents that are known at run time only, computed in the graph.
//!
//! A symbol is read off a tensor that has it (`Shape` with `start` and `end`); an expression over symbols becomes a few
//! `Mul`, `Add`, `Div`, `Mod`, `Min`, `Max` on i64[1]. A list of extents that is the shape of a tensor at hand is one
//! `Shape`.

use super::ExportError;
use super::types::{self, index};
use super::writer::{Frame, Writer, internal};
use crate::types::Dim;
use crate::types::dim::Atom;

impl Writer<'_> {
    /// An extent as i64[1].
    pub(super) fn extent(&mut self, frame: &mut Frame<'_>, dim: &Dim) -> Result<String, ExportError> {
        if let Dim::Known(v) = dim {
            return self.list(frame, &[*v]);
        }
        if let Some(name) = frame.known.extents.get(dim) {
            return Ok(name.clone());
        }
        let name = match dim.as_symbol() {
            Some(symbol) => {
                let Some((tensor, axis)) = frame.known.sources.get(symbol).cloned() else {
                    self.refuse(frame, format!("extent {symbol}, which no tensor has"));
                    return self.list(frame, &[1]);
                };
                let range = vec![types::int("start", index(axis)), types::int("end", index(axis + 1))];
                self.emit(frame, "Shape", &[&tensor], range)
            }
            None => self.expression(frame, dim)?,
        };
        frame.known.extents.insert(dim.clone(), name.clone());
        Ok(name)
    }

    fn expression(&mut self, frame: &mut Frame<'_>, dim: &Dim) -> Result<String, ExportError> {
        let mut sum: Option<String> = None;
        // The constant term sorts first; it is added last.
        let terms = dim.terms();
        let (constant, rest): (Vec<_>, Vec<_>) = terms.iter().partition(|(atoms, _)| atoms.is_empty());
        for (atoms, coefficient) in rest.into_iter().chain(constant) {
            let mut product: Option<String> = None;
            for atom in atoms {
                let factor = self.atom(frame, atom)?;
                product = Some(match product {
                    None => factor,
                    Some(p) => self.emit(frame, "Mul", &[&p, &factor], Vec::new()),
                });
            }
            let term = match (product, *coefficient) {
                (None, c) => self.list(frame, &[c])?,
                (Some(p), 1) => p,
                (Some(p), c) => {
                    let c = self.list(frame, &[c])?;
                    self.emit(frame, "Mul", &[&p, &c], Vec::new())
                }
            };
            sum = Some(match sum {
                None => term,
                Some(s) => self.emit(frame, "Add", &[&s, &term], Vec::new()),
            });
        }
        sum.ok_or_else(|| internal("an extent without terms"))
    }

    fn atom(&mut self, frame: &mut Frame<'_>, atom: &Atom) -> Result<String, ExportError> {
        let (op, a, b) = match atom {
            Atom::Sym(symbol) => return self.extent(frame, &Dim::from(symbol.clone())),
            Atom::FloorDiv(a, b) => ("Div", a, b),
            Atom::Mod(a, b) => ("Mod", a, b),
            Atom::Min(a, b) => ("Min", a, b),
            Atom::Max(a, b) => ("Max", a, b),
        };
        let whole = Dim::atom(atom.clone());
        if let Some(name) = frame.known.extents.get(&whole) {
            return Ok(name.clone());
        }
        let negative = op == "Div" && !a.is_nonnegative();
        let (x, y) = (self.extent(frame, a)?, self.extent(frame, b)?);
        let name = if negative {
            // `Div` truncates: without the rest, which `Mod` gives the divisor's sign, the quotient is exact.
            let rest = self.emit(frame, "Mod", &[&x, &y], Vec::new());
            let multiple = self.emit(frame, "Sub", &[&x, &rest], Vec::new());
            self.emit(frame, "Div", &[&multiple, &y], Vec::new())
        } else {
            self.emit(frame, op, &[&x, &y], Vec::new())
        };
        frame.known.extents.insert(whole, name.clone());
        Ok(name)
    }

    /// An extent as an i64 scalar.
    pub(super) fn scalar_extent(&mut self, frame: &mut Frame<'_>, dim: &Dim) -> Result<String, ExportError> {
        if let Dim::Known(v) = dim {
            return self.number(frame, *v);
        }
        let extent = self.extent(frame, dim)?;
        let none = self.list(frame, &[])?;
        Ok(self.emit(frame, "Reshape", &[&extent, &none], Vec::new()))
    }

    /// Extents, or other sizes and positions, as i64[n].
    pub(super) fn extents(&mut self, frame: &mut Frame<'_>, dims: &[Dim]) -> Result<String, ExportError> {
        if let Some(known) = dims.iter().map(Dim::known).collect::<Option<Vec<_>>>() {
            return self.list(frame, &known);
        }
        if let [dim] = dims {
            return self.extent(frame, dim);
        }
        if let Some(name) = frame.known.lists.get(dims) {
            return Ok(name.clone());
        }
        let name = match frame.known.shapes.get(dims).cloned() {
            Some(tensor) => self.emit(frame, "Shape", &[&tensor], Vec::new()),
            None => {
                // Known neighbours are one constant.
                let mut parts = Vec::new();
                let mut run: Vec<i64> = Vec::new();
                for dim in dims {
                    match dim {
                        Dim::Known(v) => run.push(*v),
                        Dim::Expr(_) => {
                            if !run.is_empty() {
                                parts.push(self.list(frame, &std::mem::take(&mut run))?);
                            }
                            parts.push(self.extent(frame, dim)?);
                        }
                    }
                }
                if !run.is_empty() {
                    parts.push(self.list(frame, &run)?);
                }
                let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
                self.emit(frame, "Concat", &parts, vec![types::int("axis", 0)])
            }
        };
        frame.known.lists.insert(dims.to_vec(), name.clone());
        Ok(name)
    }
}
