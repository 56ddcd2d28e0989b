//! Loops that divide their variable by a small number: so many iterations written out as one.
//!
//! ```text
//!  for i < 96 { y[i] = x[i / 6] c[i % 6] }   -->   for j < 16 { y[6 j] = x[j] c[0]; ...; y[6 j + 5] = x[j] c[5] }
//! ```
//!
//! A quotient is no address that a vector can walk along, so such a loop runs one element at a time; written out it
//! divides nothing, and what its copies share (x[j], all that is computed of it) is computed once.
//!
//! In: a kernel and the loops that are to be vectors. Out: the same kernel with the same bits, where those of them that
//! gain are written out.

use std::collections::{HashMap, HashSet};

use frit_ir::{DType, Dim, Symbol};

use super::emit::UNROLLED;
use super::index::Ranges;
use super::map::divisors_in;
use crate::kernel::rewrite::{Rewrite, renamed};
use crate::kernel::{BufferId, Expr, Kernel, Reg, Role, Stmt};

/// Statements that a body may have when it is written out.
const LARGE: usize = 800;

/// Writes out what gains; see the page.
pub(super) fn write_out(kernel: &mut Kernel, vectors: &HashSet<&Symbol>) {
    let inputs = kernel.buffers.iter().map(|b| b.role == Role::Input).collect();
    let mut writer = Writer { inputs, regs: std::mem::take(&mut kernel.regs) };
    for phase in &mut kernel.phases {
        phase.body = writer.body(std::mem::take(&mut phase.body), vectors);
    }
    kernel.regs = writer.regs;
}

struct Writer {
    /// Which buffers nothing writes.
    inputs: Vec<bool>,
    regs: Vec<DType>,
}

impl Writer {
    fn body(&mut self, stmts: Vec<Stmt>, vectors: &HashSet<&Symbol>) -> Vec<Stmt> {
        let mut out = Vec::with_capacity(stmts.len());
        for stmt in stmts {
            out.push(match stmt {
                Stmt::For { var, extent, body } if vectors.contains(&var) => match period(&var, &extent, &body) {
                    Some(period) => {
                        let extent = extent.floordiv(&Dim::Known(period));
                        let body = self.copies(&var, &ranges(&var, &extent), period, &body);
                        Stmt::For { var, extent, body }
                    }
                    None => Stmt::For { var, extent, body },
                },
                Stmt::For { var, extent, body } => Stmt::For { var, extent, body: self.body(body, vectors) },
                Stmt::Reduce { var, extent, body, accs } => {
                    Stmt::Reduce { var, extent, body: self.body(body, vectors), accs }
                }
                Stmt::If { condition, then, otherwise } => {
                    let (then, otherwise) = (self.body(then, vectors), self.body(otherwise, vectors));
                    Stmt::If { condition, then, otherwise }
                }
                Stmt::Let(..) | Stmt::Store { .. } | Stmt::Check { .. } => stmt,
            });
        }
        out
    }

    /// Iterations `period * var + k` of a body, for each k.
    fn copies(&mut self, var: &Symbol, ranges: &Ranges, period: i64, body: &[Stmt]) -> Vec<Stmt> {
        let mut out = Vec::new();
        let mut known: HashMap<Expr, Reg> = HashMap::new();
        for k in 0..period {
            let at = &(&Dim::from(var.clone()) * &Dim::Known(period)) + &Dim::Known(k);
            let mut copy = Copy { var, at, ranges, renamed: HashMap::new() };
            for stmt in body {
                let Stmt::Let(reg, expr) = stmt else {
                    out.push(copy.stmt(stmt.clone()));
                    continue;
                };
                let expr = copy.expr(expr);
                let lasting = match &expr {
                    Expr::Load { buffer, .. } => self.inputs.get(buffer.0 as usize) == Some(&true),
                    _ => true,
                };
                if let Some(same) = known.get(&expr).filter(|_| lasting) {
                    copy.renamed.insert(*reg, *same);
                    continue;
                }
                let dtype = self.regs.get(reg.0 as usize).copied().unwrap_or(DType::F32);
                self.regs.push(dtype);
                let new = Reg(self.regs.len() as u32 - 1);
                copy.renamed.insert(*reg, new);
                known.insert(expr.clone(), new);
                out.push(Stmt::Let(new, expr));
            }
        }
        out
    }
}

/// The one small number by which a body divides its variable, where it divides the extent too, and is all that is in
/// the way of vectors.
fn period(var: &Symbol, extent: &Dim, body: &[Stmt]) -> Option<i64> {
    let [period] = divisors_in(body, var)?[..] else { return None };
    let by = Dim::Known(period);
    let fits = (2..=UNROLLED).contains(&period)
        && &extent.floordiv(&by) * &by == *extent
        && body.len().saturating_mul(period as usize) <= LARGE
        && body.iter().all(|s| matches!(s, Stmt::Let(..) | Stmt::Store { .. }));
    let ranges = ranges(var, &extent.floordiv(&by));
    let written = |k: i64| {
        let at = &(&Dim::from(var.clone()) * &by) + &Dim::Known(k);
        let mut copy = Copy { var, at, ranges: &ranges, renamed: HashMap::new() };
        divisors_in(&copy.body(body.to_vec()), var)
    };
    (fits && (0..period).all(|k| written(k).is_none())).then_some(period)
}

fn ranges(var: &Symbol, extent: &Dim) -> Ranges {
    let mut ranges = Ranges::default();
    ranges.insert(&Dim::from(var.clone()), extent);
    ranges
}

/// An iteration as it stands among others.
struct Copy<'v> {
    var: &'v Symbol,
    /// Which one it is.
    at: Dim,
    ranges: &'v Ranges,
    renamed: HashMap<Reg, Reg>,
}

impl Rewrite for Copy<'_> {
    fn reg(&mut self, reg: Reg) -> Reg {
        self.renamed.get(&reg).copied().unwrap_or(reg)
    }

    fn dim(&mut self, _: Option<BufferId>, dim: &Dim) -> Dim {
        let renamed = renamed(dim, &mut |r| self.renamed.get(&r).copied().unwrap_or(r));
        self.ranges.simplify(&renamed.substitute(&|s| (s == self.var).then(|| self.at.clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::interp::{Memory, run};
    use crate::kernel::{Scalar, verify};

    fn changed(text: &str) -> (Kernel, Kernel) {
        let kernel: Kernel = text.parse().unwrap_or_else(|e| panic!("{e}"));
        let var = Symbol::new("i1");
        let mut written = kernel.clone();
        write_out(&mut written, &HashSet::from([&var]));
        verify(&written).unwrap();
        (kernel, written)
    }

    #[test]
    fn a_small_divisor_goes_and_shared_parts_are_computed_once() {
        let (kernel, written) = changed(
            "kernel k(in x: f32[8], in c: f32[3], out y: f32[24]) {
              phase i0 < 2 {
                for i1 < 12 {
                  %0: f32 = load x[4*i0 + floordiv(i1, 3)]
                  %1: f32 = sqrt %0
                  %2: f32 = load c[mod(i1, 3)]
                  %3: f32 = mul %1, %2
                  store y[12*i0 + i1] = %3
                }
              }
            }",
        );
        let Some(Stmt::For { extent, body, .. }) = written.phases[0].body.first() else { panic!("{written}") };
        assert_eq!(*extent, Dim::Known(4));
        assert_eq!(divisors_in(body, &Symbol::new("i1")), None, "{written}");
        let roots = body.iter().filter(|s| matches!(s, Stmt::Let(_, Expr::Unary(..)))).count();
        assert_eq!(roots, 1, "{written}");
        let mut before = vec![8, 3, 24].into_iter().map(|n| Memory::zeros(kernel.regs[0], n)).collect::<Vec<_>>();
        for (i, memory) in before.iter_mut().enumerate().take(2) {
            (0..[8, 3][i]).for_each(|k| memory.set(k, Scalar::f32(k as f32 + 0.5)));
        }
        let mut after = before.clone();
        run(&kernel, &[], &mut before).unwrap();
        run(&written, &[], &mut after).unwrap();
        assert!(before.iter().zip(&after).all(|(a, b)| a.same(b)), "{written}");
    }

    #[test]
    fn what_would_not_gain_stays() {
        let with = |extent: &str, a: &str, b: &str| {
            let text = format!(
                "kernel k(in x: f32[90], out y: f32[90]) {{
                  phase i0 < 2 {{
                    for i1 < {extent} {{
                      %0: f32 = load x[{a}]
                      %1: f32 = load x[{b}]
                      %2: f32 = add %0, %1
                      store y[i1 + 45*i0] = %2
                    }}
                  }}
                }}"
            );
            let (before, after) = changed(&text);
            before != after
        };
        assert!(with("12", "floordiv(i1, 3)", "mod(i1, 3)"));
        // Not whole; two numbers; a large one; no division.
        assert!(!with("13", "floordiv(i1, 3)", "mod(i1, 3)"));
        assert!(!with("12", "floordiv(i1, 3)", "mod(i1, 4)"));
        assert!(!with("40", "floordiv(i1, 20)", "i1"));
        assert!(!with("12", "i1", "i0"));
    }
}
