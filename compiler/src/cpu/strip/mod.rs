//! Vector loops: so far each runs one element at a time, and says so in the report.

pub(super) mod clif;

use cranelift_codegen::ir::Value;
use frit_ir::{Dim, Symbol};

use super::code::{ScalarLoop, Texts};
use super::error::Refusal;
use super::function::Function;
use super::link::Piece;
use crate::kernel::{Acc, Stmt};

pub(super) trait StripBackend: Send {}

pub(super) struct Leaves;

impl Leaves {
    pub(super) fn new(_backend: &mut dyn StripBackend, _first: usize, _text: bool) -> Self {
        Leaves
    }
    pub(super) fn finish(self) -> (Vec<Piece>, Texts) {
        (Vec::new(), Texts::default())
    }
}

impl Function<'_, '_> {
    pub(super) fn vector_loop(
        &mut self,
        var: &Symbol,
        _extent: &Dim,
        _body: &[Stmt],
        _accs: &[Acc],
    ) -> Result<Option<Vec<Value>>, Refusal> {
        if self.schedule.lanes(var).is_some() {
            let reason = "no back end for vector loops".to_owned();
            self.report.scalar.push(ScalarLoop { var: var.to_string(), reason });
        }
        Ok(None)
    }
}
