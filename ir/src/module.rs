//! A module: entry functions that share one parameter store.

use indexmap::IndexMap;

use crate::graph::Function;
use crate::tensor::Tensor;

/// A stored tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// Its value.
    pub value: Tensor,
    /// Training changes it: the training step takes it as state. Compiled as it is, it is a constant.
    pub trainable: bool,
}

/// Functions and the tensors they share.
#[derive(Clone, Debug, Default)]
pub struct Module {
    /// Entry functions and what they call, by name, in order. `infer` is what `run` runs.
    pub functions: IndexMap<String, Function>,
    /// The parameter store.
    pub params: IndexMap<String, Param>,
    /// Where it came from, for messages: a path or a builder's name.
    pub source: String,
}

impl Module {
    /// A module of one function called by its own name.
    pub fn of(function: Function) -> Self {
        let mut module = Module::default();
        module.functions.insert(function.name.clone(), function);
        module
    }

    /// The function that `run` runs: `infer`, else the first.
    pub fn entry(&self) -> Option<&Function> {
        self.functions.get("infer").or_else(|| self.functions.values().next())
    }

    /// [`Module::entry`], to change it.
    pub fn entry_mut(&mut self) -> Option<&mut Function> {
        let index = self.functions.get_index_of("infer").unwrap_or(0);
        self.functions.get_index_mut(index).map(|(_, f)| f)
    }
}
