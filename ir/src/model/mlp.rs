//! The network that AF-KAN is compared with: the same layers without bases. The paper's formula is y = act(norm(x)) W^T;
//! the network that its authors' code trains and reports is y = act(norm(x) W^T), also in the last layer.

use indexmap::IndexMap;

use super::init::{Init, Specs};
use super::net::{Net, batch, function};
use super::norm::{Mode, Renewed};
use super::{Activation, ModelError, Norm, check, norm};
use crate::graph::SymbolFacts;
use crate::module::Module;

/// Configuration of a multilayer perceptron.
///
/// ```
/// use frit_ir::model::Mlp;
///
/// let module = Mlp::default().module(0)?;
/// let count: usize = module.params.values().map(|p| p.value.numel()).sum();
/// assert_eq!(count, 52_512);
/// # Ok::<(), frit_ir::model::ModelError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mlp {
    /// Extents: the input's, each hidden layer's, the output's.
    pub layers: Vec<usize>,
    /// Activation of each layer.
    pub activation: Activation,
    /// Norm of each layer's input.
    pub norm: Norm,
    /// Whether a layer is act(norm(x) W^T), as in the authors' code, rather than act(norm(x)) W^T.
    pub activation_last: bool,
}

impl Default for Mlp {
    /// The layers of [`AfKan`](super::AfKan)'s default, and the paper's formula.
    fn default() -> Self {
        Mlp { layers: vec![784, 64, 10], activation: Activation::Silu, norm: Norm::Layer, activation_last: false }
    }
}

impl Mlp {
    /// The module with initial values under a seed: `infer`, and `train` where the norm is over the batch.
    ///
    /// # Errors
    /// A configuration outside its limits.
    pub fn module(&self, seed: u64) -> Result<Module, ModelError> {
        check::layers(&self.layers)?;
        let mut specs = Specs::default();
        for (i, pair) in self.layers.windows(2).enumerate() {
            let &[inputs, outputs] = pair else { continue };
            norm::specs(&mut specs, self.norm, &format!("layers.{i}.norm"), inputs);
            specs.add(format!("layers.{i}.base_weight"), &[outputs, inputs], Init::linear(inputs));
        }
        let params = specs.initial(seed)?;
        let mut module = Module { functions: IndexMap::new(), params, source: "mlp".to_owned() };
        self.add_function(&mut module, "infer", Mode::Infer)?;
        if self.norm == Norm::Batch {
            self.add_function(&mut module, "train", Mode::Train)?;
        }
        Ok(module)
    }

    fn add_function(&self, module: &mut Module, name: &str, mode: Mode) -> Result<(), ModelError> {
        let (mut f, mut x) = function(name, self.layers.first().copied().unwrap_or(0));
        if mode == Mode::Train {
            // The variance of one sample is not known.
            f.symbols.insert(batch(), SymbolFacts { min: 2, ..SymbolFacts::default() });
        }
        let mut net = Net::new(&mut f, &module.params);
        let mut renewed = Renewed::default();
        for i in 0..self.layers.len() - 1 {
            let z = norm::apply(&mut net, self.norm, mode, &format!("layers.{i}.norm"), x, &mut renewed)?;
            net.at(&format!("layers.{i}.output"));
            let weight = net.param(&format!("layers.{i}.base_weight"))?;
            x = if self.activation_last {
                let product = net.project(z, weight)?;
                net.activation(product, self.activation)?
            } else {
                let active = net.activation(z, self.activation)?;
                net.project(active, weight)?
            };
        }
        f.add_output("logits", x);
        renewed.iter().for_each(|(name, value)| f.add_output(name, value));
        module.functions.insert(name.to_owned(), f);
        Ok(())
    }
}
