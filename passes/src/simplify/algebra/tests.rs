//! The table of rules, walked.

use std::collections::BTreeSet;

use frit_ir::builder::Builder;
use frit_ir::{Function, Module, Numerics, Origin};

use super::*;
use crate::manager::{Math, Options, count_ops, set_numerics};

fn example(rule: &Rule) -> Module {
    let mut f = Function::new("infer");
    let mut b = Builder::new(&mut f, Origin::named(rule.name));
    let outputs = (rule.example)(&mut b).expect("the example type-checks");
    for (i, value) in outputs.into_iter().enumerate() {
        f.add_output(&format!("y{i}"), value);
    }
    let mut module = Module::of(f);
    set_numerics(&mut module, if rule.needs == Needs::Strict { Numerics::STRICT } else { Numerics::FAST });
    module
}

fn apply(module: &mut Module, rule: &Rule) -> u64 {
    let options = Options { math: Math::AsWritten, ..Options::default() };
    let mut context = Context::new(&options);
    for f in module.functions.values_mut() {
        rewrite(f, &module.params, rule.set, Some(rule.name), &mut context).expect("rewrites");
    }
    context.fired()
}

#[test]
fn names_are_unique() {
    let names: BTreeSet<&str> = rules().map(|r| r.name).collect();
    assert_eq!(names.len(), rules().count());
}

#[test]
fn every_rule_fires_once_and_is_done() {
    for rule in rules() {
        let mut module = example(rule);
        let before = count_ops(&module);
        assert!(apply(&mut module, rule) > 0, "`{}` does not fire on its example of {before} ops", rule.name);
        assert_eq!(apply(&mut module, rule), 0, "`{}` fires on its own result", rule.name);
    }
}
