//! Which rule takes an operator: one table over all families.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::context::{Ctx, Results};
use super::{
    activation, attention, contraction, control, conv, elementwise, gather, loss, movement, norm, quantize, recurrent,
    reduction, resize, sequence, source,
};

/// Turns one node into core ops.
pub(super) type Rule = for<'a, 's> fn(&mut Ctx<'a, 's>) -> Results;

/// One row: the operator, the versions it covers, its rule.
#[derive(Clone, Copy)]
pub(super) struct Row {
    domain: &'static str,
    op_type: &'static str,
    first: i64,
    last: i64,
    pub(super) rule: Rule,
}

/// A row for every version of an ai.onnx operator.
pub(super) const fn onnx(op_type: &'static str, rule: Rule) -> Row {
    Row { domain: "", op_type, first: 1, last: i64::MAX, rule }
}

/// A row for versions `first` to `last` of an ai.onnx operator.
pub(super) const fn versions(op_type: &'static str, first: i64, last: i64, rule: Rule) -> Row {
    Row { domain: "", op_type, first, last, rule }
}

/// A row of another domain.
pub(super) const fn other(domain: &'static str, op_type: &'static str, rule: Rule) -> Row {
    Row { domain, op_type, first: 1, last: i64::MAX, rule }
}

const FAMILIES: &[&[Row]] = &[
    source::TABLE,
    elementwise::TABLE,
    activation::TABLE,
    movement::TABLE,
    gather::TABLE,
    reduction::TABLE,
    contraction::TABLE,
    conv::TABLE,
    norm::TABLE,
    loss::TABLE,
    quantize::TABLE,
    control::TABLE,
    sequence::TABLE,
    resize::TABLE,
    attention::TABLE,
    recurrent::TABLE,
];

type Index = HashMap<(&'static str, &'static str), Vec<Row>>;

static INDEX: LazyLock<Index> = LazyLock::new(|| {
    let mut index = Index::new();
    for row in FAMILIES.iter().copied().flatten() {
        index.entry((row.domain, row.op_type)).or_default().push(*row);
    }
    index
});

/// The row of an operator. `ai.onnx` is the default domain's other name.
pub(super) fn find(domain: &str, op_type: &str, version: i64) -> Option<Row> {
    let domain = if domain == "ai.onnx" { "" } else { domain };
    INDEX.get(&(domain, op_type))?.iter().find(|r| (r.first..=r.last).contains(&version)).copied()
}
