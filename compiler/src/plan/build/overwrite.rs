//! May a kernel write one buffer where another lies that it reads?
//!
//! In: a kernel, the buffers that are the memory to be overwritten, those that are the memory to be written. Out: whether
//! every element is read for the last time before it is written, whatever the threads do. Phases end one after the
//! other, so only a phase that does both asks anything, and a phase behind it must not read any more. In such a phase,
//! for each load and each store:
//!
//! ```text
//!  phase i0 { for i1 { load s[a i0 + b i1 + f] ... store t[a i0 + b i1 + g] } }
//!        '---- shared loops ----'
//! ```
//!
//! - the load stands before the store where their ways part, so that one iteration of the shared loops has loaded all
//!   that it loads here when it stores; or the two are a known distance apart in every iteration;
//! - different iterations of the shared loops do not meet: both indices step alike with their variables, and what is
//!   added inside (f, g: inner loops, constants) is at least 0 and less than the smallest step; each step is as large as
//!   all smaller ones together go. Iterations of the phase run at once on several threads, those of inner loops one after
//!   the other or side by side in a vector. An index that only has the phase's variable, and is the same in both, needs
//!   no more: no two iterations store to one element (rule K5).
//!
//! Indices with registers (gathers), quotients or remainders of variables are refused but for that last case.
//! What follows may move a load forward (out of loops, into one that is equal) but never behind a store that it stood
//! before: strips keep that order (their page, `schedule`, `x64::select`), blocks of rows keep it within a row, Cranelift
//! keeps all loads and stores in order, and CUDA's pointers are not said to be apart.

use std::collections::HashSet;

use frit_ir::types::dim::Atom;
use frit_ir::{Dim, Symbol};

use crate::kernel::{BufferId, Expr, Kernel, Phase, Stmt};

/// A loop around an access.
#[derive(Clone)]
struct Around<'k> {
    var: &'k Symbol,
    extent: &'k Dim,
    /// How long the ways to what it holds are at least.
    depth: usize,
}

/// A load or store: the way to it through bodies, the loops around it, the element.
struct Access<'k> {
    path: Vec<usize>,
    loops: Vec<Around<'k>>,
    index: &'k Dim,
    store: bool,
}

/// Whether `stored` may be written over `loaded`; see the page.
pub(super) fn may_overwrite(kernel: &Kernel, loaded: &[BufferId], stored: &[BufferId]) -> bool {
    let extents: HashSet<&Symbol> =
        kernel.dims.iter().filter(|d| d.value.is_nonnegative()).map(|d| &d.symbol).collect();
    let mut written = false;
    for phase in &kernel.phases {
        let accesses = accesses(phase, loaded, stored);
        let (stores, loads): (Vec<&Access<'_>>, Vec<&Access<'_>>) = accesses.iter().partition(|a| a.store);
        if written && !loads.is_empty() {
            return false;
        }
        written |= !stores.is_empty();
        if !loads.iter().all(|load| stores.iter().all(|store| apart(load, store, &extents))) {
            return false;
        }
    }
    true
}

/// Whether a load has read what a store overwrites.
fn apart(load: &Access<'_>, store: &Access<'_>, extents: &HashSet<&Symbol>) -> bool {
    let Some(part) = load.path.iter().zip(&store.path).position(|(a, b)| a != b) else { return false };
    let first = load.path[part] < store.path[part];
    let (shared, of_load): (Vec<Around<'_>>, Vec<_>) = load.loops.iter().cloned().partition(|l| l.depth <= part);
    let of_store: Vec<Around<'_>> = store.loops.iter().filter(|l| l.depth > part).cloned().collect();
    let again: Vec<&Around<'_>> = shared.iter().filter(|l| *l.extent != Dim::ONE).collect();
    if first && again.is_empty() {
        return true;
    }
    let phase_alone = again.iter().all(|l| l.depth == 0 && mentions(load.index, l.var));
    if first && phase_alone && load.index == store.index && only(load.index, extents, &shared) {
        return true;
    }
    let (Some(from), Some(to)) = (Form::of(load.index, extents, &shared), Form::of(store.index, extents, &shared))
    else {
        return false;
    };
    if from.steps != to.steps {
        return false;
    }
    let constant = only(&from.rest, extents, &[]) && only(&to.rest, extents, &[]);
    // What one iteration loads behind a store is another element, by a known distance.
    let other = constant && (&from.rest - &to.rest).known().is_some_and(|distance| distance != 0);
    if !first && !other {
        return false;
    }
    // What is the same in both, whatever the iteration, moves nothing.
    let ends = if from.rest == to.rest && constant {
        vec![Dim::ONE]
    } else {
        match (end(&from.rest, extents, &of_load), end(&to.rest, extents, &of_store)) {
            (Some(from), Some(to)) => vec![from, to],
            _ => return false,
        }
    };
    let steps = shared.iter().zip(&from.steps).filter(|(l, _)| *l.extent != Dim::ONE);
    are_distinct(steps.map(|(l, step)| (step, l.extent)).collect(), ends, extents)
}

/// Whether sums of steps, each less often than its extent, are at least `ends` apart: each step has room for all that
/// is smaller.
fn are_distinct(mut steps: Vec<(&Dim, &Dim)>, mut ends: Vec<Dim>, extents: &HashSet<&Symbol>) -> bool {
    while !steps.is_empty() {
        // What is accessed at all ends at 1 or later, so a step that has room is none of 0.
        let has_room = |(step, _): &(&Dim, &Dim)| ends.iter().all(|end| (*step - end).is_nonnegative());
        let Some(at) = steps.iter().rposition(has_room) else { return false };
        let (step, extent) = steps.remove(at);
        match most(extent, extents) {
            Some(most) => ends = vec![step * &most],
            None if steps.is_empty() => {}
            None => return false,
        }
    }
    true
}

/// What an extent is at most, in all iterations: the last block of a loop is cut short by a minimum.
fn most(extent: &Dim, extents: &HashSet<&Symbol>) -> Option<Dim> {
    if only(extent, extents, &[]) {
        return Some(extent.clone());
    }
    let terms = extent.terms();
    let (atoms, 1) = terms.iter().next().filter(|_| terms.len() == 1)? else { return None };
    match atoms.as_slice() {
        [Atom::Min(a, b)] => most(a, extents).or_else(|| most(b, extents)),
        [Atom::FloorDiv(a, by)] if by.known().is_some_and(|n| n > 0) => Some(most(a, extents)?.floordiv(by)),
        _ => None,
    }
}

fn mentions(dim: &Dim, var: &Symbol) -> bool {
    let mut found = false;
    dim.visit_symbols(&mut |s| found |= s == var);
    found
}

/// Whether all symbols of an index are extents of the kernel or variables of loops.
fn only(dim: &Dim, extents: &HashSet<&Symbol>, loops: &[Around<'_>]) -> bool {
    let mut all = true;
    dim.visit_symbols(&mut |s| all &= extents.contains(s) || loops.iter().any(|l| l.var == s));
    all
}

/// An index as steps of some variables, and the rest.
struct Form {
    steps: Vec<Dim>,
    rest: Dim,
}

impl Form {
    /// `None`: a variable stands in a quotient, a remainder or a product of variables.
    fn of(index: &Dim, extents: &HashSet<&Symbol>, loops: &[Around<'_>]) -> Option<Form> {
        let mut form = Form { steps: vec![Dim::ZERO; loops.len()], rest: Dim::ZERO };
        for (atoms, coefficient) in index.terms() {
            let at = atoms.iter().find_map(|a| match a {
                Atom::Sym(s) => loops.iter().position(|l| l.var == s),
                _ => None,
            });
            let mut product = Dim::Known(coefficient);
            let mut left = at;
            for atom in &atoms {
                if let (Atom::Sym(s), Some(k)) = (atom, left)
                    && loops[k].var == s
                {
                    left = None;
                    continue;
                }
                product = &product * &Dim::atom(atom.clone());
            }
            // What is left of the term must not change with the variables.
            let mut varies = false;
            product.visit_symbols(&mut |s| {
                varies |= loops.iter().any(|l| l.var == s) || at.is_some() && !extents.contains(s);
            });
            if varies {
                return None;
            }
            let sum = at.and_then(|k| form.steps.get_mut(k)).unwrap_or(&mut form.rest);
            *sum = &*sum + &product;
        }
        Some(form)
    }
}

/// One more than the largest value of a sum that is never below 0; `None`: it may be, or is no such sum.
fn end(rest: &Dim, extents: &HashSet<&Symbol>, inner: &[Around<'_>]) -> Option<Dim> {
    let form = Form::of(rest, extents, inner)?;
    if !only(&form.rest, extents, &[]) || !form.rest.is_nonnegative() {
        return None;
    }
    let mut end = &form.rest + &Dim::ONE;
    for (step, l) in form.steps.iter().zip(inner) {
        if !step.is_nonnegative() {
            return None;
        }
        end = &end + &(step * &(&most(l.extent, extents)? - &Dim::ONE));
    }
    Some(end)
}

/// Loads and stores of a phase.
fn accesses<'k>(phase: &'k Phase, loaded: &[BufferId], stored: &[BufferId]) -> Vec<Access<'k>> {
    let mut found = Vec::new();
    let outer = Around { var: &phase.outer, extent: &phase.extent, depth: 0 };
    collect(&phase.body, &mut Vec::new(), &mut vec![outer], (loaded, stored), &mut found);
    found
}

fn collect<'k>(
    body: &'k [Stmt],
    path: &mut Vec<usize>,
    loops: &mut Vec<Around<'k>>,
    buffers: (&[BufferId], &[BufferId]),
    found: &mut Vec<Access<'k>>,
) {
    for (at, stmt) in body.iter().enumerate() {
        path.push(at);
        let mut add = |index: &'k Dim, store: bool| {
            found.push(Access { path: path.clone(), loops: loops.clone(), index, store });
        };
        match stmt {
            Stmt::Let(_, Expr::Load { buffer, index }) if buffers.0.contains(buffer) => add(index, false),
            // What a kernel reads of its own output is new already.
            Stmt::Store { buffer, index, .. } if buffers.1.contains(buffer) => add(index, true),
            Stmt::For { var, extent, body } | Stmt::Reduce { var, extent, body, .. } => {
                loops.push(Around { var, extent, depth: path.len() });
                path.push(0);
                collect(body, path, loops, buffers, found);
                path.pop();
                loops.pop();
            }
            Stmt::If { then, otherwise, .. } => {
                for (branch, body) in [then, otherwise].into_iter().enumerate() {
                    path.push(branch);
                    collect(body, path, loops, buffers, found);
                    path.pop();
                }
            }
            Stmt::Let(..) | Stmt::Store { .. } | Stmt::Check { .. } => {}
        }
        path.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether `t` may lie where `s` is, in a kernel of these phases.
    fn fits(phases: &str) -> bool {
        let head = "kernel k(in s: f32[d0], in u: i64[d0], out t: f32[d0]) dims(d0 = n, d1 = m) {";
        let kernel: Kernel = format!("{head}\n{phases}\n}}\n").parse().unwrap();
        may_overwrite(&kernel, &[BufferId(0)], &[BufferId(2)])
    }

    #[test]
    fn what_is_written_over_is_read_at_that_element_before() {
        let map = |read: &str, write: &str| {
            format!("phase i0 < d0 {{ %0: f32 = load s[{read}]\n %1: f32 = exp %0\n store t[{write}] = %1 }}")
        };
        assert!(fits(&map("i0", "i0")));
        let transposed = "mod(i0, 7)*9 + floordiv(i0, 7)";
        assert!(fits(&map(transposed, transposed)), "the same element, wherever it is");
        assert!(!fits(&map(transposed, "i0")), "transposed");
        assert!(!fits(&map("d0 - i0 - 1", "i0")), "reversed");
        assert!(!fits(&map("0", "0")), "one element, again and again");
        assert!(!fits(&map("0", "i0")), "broadcast");
        assert!(!fits(&map("i0 + 1", "i0")), "the next one");
        let late = "phase i0 < d0 { %0: f32 = const 1.0\n store t[i0] = %0\n %1: f32 = load s[i0]\n store t[i0] = %1 }";
        assert!(!fits(late), "read after it is written");
        let nested = "phase i0 < d0 { for i1 < 3 { %0: f32 = load s[3*i0 + i1]\n store t[3*i0 + i1] = %0 } }";
        assert!(fits(nested));
        assert!(!fits(&nested.replace("3*i0", "2*i0")), "rows overlap");
        assert!(!fits(&nested.replace("3*i0 + i1", "3*i0 + floordiv(i1, 2)")), "an element twice");
        let repeated = "phase i0 < d0 { for i1 < 3 { %0: f32 = load s[i0]\n store t[i0] = %0 } }";
        assert!(!fits(repeated), "the second time it is new");
        let periods = "phase i0 < 5 { for i1 < floordiv(min(2045, -2045*i0 + 8000), 5) { %0: f32 = load s[2045*i0 + 5*i1]\n \
                       store t[2045*i0 + 5*i1] = %0\n %1: f32 = load s[2045*i0 + 5*i1 + 1]\n \
                       store t[2045*i0 + 5*i1 + 1] = %1 } }";
        assert!(fits(periods), "blocks, the last one shorter, elements in turns");
        assert!(!fits(&periods.replace("5*i1 + 1]\n", "5*i1 + 5]\n")), "one of the next turn");
        assert!(!fits(&periods.replace("5*i1 + 1]\n", "5*i1]\n")), "one that is new");
        assert!(!fits(&periods.replace("2045*i0 + 5", "2044*i0 + 5")), "blocks that overlap");
        let gather = "phase i0 < d0 { %0: i64 = load u[i0]\n %1: f32 = load s[r0]\n store t[i0] = %1 }";
        assert!(!fits(gather), "a gather");
        assert!(!fits(&gather.replace("t[i0]", "t[r0]")), "and a scatter");
    }

    #[test]
    fn rows_are_read_in_any_way_before_they_are_written() {
        let sum = |read: &str| format!("reduce i1 < d1 {{ %0: f32 = load s[{read}] }} %1: f32 = sum %0\n");
        let store = "for i2 < d1 { %2: f32 = load s[d1*i0 + i2]\n %3: f32 = sub %2, %1\n store t[d1*i0 + i2] = %3 }";
        let rows = |before: &str, behind: &str| format!("phase i0 < 5 {{ {before}{store}\n{behind} }}");
        assert!(fits(&rows(&sum("d1*i0 + i1"), "")));
        assert!(!fits(&rows(&sum("d1*i0 - i1 + d1 - 1"), "")), "backwards, which nobody needs");
        assert!(!fits(&rows(&sum("d1*i0 + i1 + 1"), "")), "one of the next row");
        assert!(!fits(&rows(&sum("i1"), "")), "always the first row");
        assert!(!fits(&rows(&sum("5*i1 + i0"), "")), "columns");
        assert!(!fits(&rows(&sum("i0 + i1"), "")), "rows that overlap");
        let twice = sum("d1*i0 + i1").replace('1', "5").replace("d5", "d1").replace("%0", "%4");
        assert!(fits(&rows(&(sum("d1*i0 + i1") + &twice), "")), "two reductions");
        assert!(!fits(&rows(&sum("d1*i0 + i1"), &twice)), "read in a loop behind");
        let known = rows(&sum("d1*i0 + i1"), "").replace("d1", "784");
        assert!(fits(&known));
        assert!(fits(&known.replacen("784*i0 + i1", "784*i0 + 783", 1)), "one of its own row");
        assert!(!fits(&known.replacen("784*i0 + i1", "784*i0 + 784", 1)), "one of the next row");
        assert!(fits(&known.replace("i0 < 5", "i0 < 1").replacen("784*i0 + i1", "3*i1", 1)), "all of one iteration");
        let deep = "phase i0 < 5 { for i1 < 4 { reduce i2 < 3 { %0: f32 = load s[12*i0 + 3*i1 + i2] } %1: f32 = sum %0\n\
                    for i3 < 3 { store t[12*i0 + 3*i1 + i3] = %1 } } }";
        assert!(fits(deep));
        assert!(!fits(&deep.replace("12*i0 + 3*i1 + i2", "12*i0 + 4*i2 + i1")), "columns within a row");
        assert!(!fits(&deep.replace("i1 < 4", "i1 < 5")), "more rows than there is room");
        let branch = "phase i0 < 5 { %0: f32 = load s[i0]\n %1: bool = eq %0, %0\n if %1 { store t[i0] = %0 } else { \
                      %2: f32 = load s[i0]\n store t[i0] = %2 } }";
        assert!(!fits(branch), "of two branches the later reads");
    }

    #[test]
    fn phases_before_the_first_store_may_read_anything() {
        let first = "phase i0 < d0 { %0: f32 = load s[d0 - i0 - 1] }";
        let second = "phase i1 < d0 { %1: f32 = const 1.0\n store t[i1] = %1 }";
        assert!(fits(&format!("{first}\n{second}")));
        assert!(!fits(&format!("{second}\n{}", first.replace("i0", "i2"))), "a later phase reads");
    }
}
