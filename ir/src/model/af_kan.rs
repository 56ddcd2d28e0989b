//! AF-KAN: a Kolmogorov-Arnold network whose bases are pairs of shifted activations (Ta and Tran, "AF-KAN: Activation
//! Function-Based Kolmogorov-Arnold Networks for Efficient Representation Learning", arXiv 2503.06112).
//!
//! A layer of D inputs and O outputs, grid size g, order k and n = g + k bases:
//! - Basis j looks at an input x through two activations, one rising from a lower phase, one falling to an upper one:
//!   u = act(x - low_j), v = act(high_j - x). Phases are trained, start at low_j = (j - k) / g and
//!   high_j = low_j + (k + 1) / g, and are shared by all inputs.
//! - A function type combines them, phi = f(u, v) ([`BasisFunction`]), and phi is normalised over the whole tensor
//!   [B, D, n]: divided by its L2 norm, then mapped to [0, 1] by its least and largest element.
//! - A method makes one number an input of its n bases ([`Method`]).
//! - That is normalised ([`Norm`]), put through the activation again, and mapped linearly to the outputs.
//!
//! Several methods each run the whole stack on a copy of the input, sharing all parameters; their outputs are combined
//! ([`Combination`]).
//!
//! The normalisation over the whole tensor makes a sample's output depend on its batch, at inference too. Frozen
//! extremes ([`AfKan::freeze`]) end that: the module `extremes` ([`AfKan::extremes`]) measures the least and largest
//! phi of each layer on a batch of real data; with these as constants the L2 norm cancels and inference is per sample.
//! Over more than a batch they are measured layer by layer ([`AfKan::next_extremes`]): a layer's depend on how those
//! before it are scaled, which is by the same constants then as in the frozen module.

use std::collections::HashMap;

use indexmap::IndexMap;

use super::init::{Init, Specs};
use super::net::{Net, Part, batch, function};
use super::norm::{Mode, Renewed};
use super::{Activation, BasisFunction, Combination, Method, ModelError, Norm};
use super::{basis, check, methods, norm};
use crate::graph::{SymbolFacts, Value};
use crate::module::{Module, Param};
use crate::op::Op;
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};

/// Configuration of an AF-KAN.
///
/// ```
/// use frit_ir::model::{Activation, AfKan};
///
/// let small = AfKan { layers: vec![6, 5, 3], activation: Activation::Gelu, ..AfKan::default() };
/// let module = small.module(0)?;
/// assert!(frit_ir::verify::verify(&module).is_ok());
/// assert_eq!(module.params["layers.0.base_weight"].value.shape(), [5, 6]);
/// # Ok::<(), frit_ir::model::ModelError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AfKan {
    /// Extents: the input's, each hidden layer's, the output's.
    pub layers: Vec<usize>,
    /// Grid size g.
    pub grid: usize,
    /// Order k.
    pub order: usize,
    /// Activation of bases and layers.
    pub activation: Activation,
    /// How a basis combines its activations.
    pub function: BasisFunction,
    /// How bases become one number; several run side by side.
    pub methods: Vec<Method>,
    /// How several methods' outputs combine; one method's output stands as it is.
    pub combination: Combination,
    /// Norm before a layer's activation.
    pub norm: Norm,
    /// Whether bases are normalised over the whole tensor.
    pub func_norm: bool,
}

impl Default for AfKan {
    /// The best settings of the paper, for images of 28 by 28 pixels and ten classes.
    fn default() -> Self {
        AfKan {
            layers: vec![784, 64, 10],
            grid: 3,
            order: 3,
            activation: Activation::Silu,
            function: BasisFunction::Quad1,
            methods: vec![Method::GlobalAttn],
            combination: Combination::Sum,
            norm: Norm::Layer,
            func_norm: true,
        }
    }
}

/// What maps a layer's bases to [0, 1].
enum Scaling<'e> {
    /// Their own extremes.
    Own,
    /// Constants: least and largest for each layer and method.
    Frozen(&'e [Vec<(f32, f32)>]),
    /// Their own extremes, which are outputs too.
    Measured,
    /// Constants for the first layers; the extremes of the next are the outputs, and nothing comes after it.
    Next(&'e [Vec<(f32, f32)>]),
}

impl<'e> Scaling<'e> {
    /// What a layer is scaled by, unless by its own extremes.
    fn constants(&self, layer: usize) -> Option<&'e [(f32, f32)]> {
        match self {
            Scaling::Own | Scaling::Measured => None,
            Scaling::Frozen(extremes) | Scaling::Next(extremes) => extremes.get(layer).map(Vec::as_slice),
        }
    }

    /// Whether a layer's extremes are outputs.
    fn measures(&self, layer: usize) -> bool {
        match self {
            Scaling::Own | Scaling::Frozen(_) => false,
            Scaling::Measured => true,
            Scaling::Next(before) => layer == before.len(),
        }
    }
}

/// Names of the outputs that a layer's extremes are measured as.
fn extreme_names(layer: usize) -> [String; 2] {
    [format!("layers.{layer}.phi_min"), format!("layers.{layer}.phi_max")]
}

impl AfKan {
    /// The module with initial values under a seed: `infer`, and `train` where the norm is over the batch.
    ///
    /// # Errors
    /// A configuration outside its limits.
    pub fn module(&self, seed: u64) -> Result<Module, ModelError> {
        let params = self.specs()?.initial(seed)?;
        let mut module = self.of(params);
        self.add_function(&mut module, "infer", Mode::Infer, &Scaling::Own)?;
        if self.norm == Norm::Batch {
            self.add_function(&mut module, "train", Mode::Train, &Scaling::Own)?;
        }
        Ok(module)
    }

    /// A module with the parameters of `module` that measures: its function `extremes` takes a batch `x` and gives the
    /// least and largest basis of each layer, `layers.I.phi_min` and `layers.I.phi_max`, f32[number of methods].
    ///
    /// # Errors
    /// A module of another configuration; bases that are not normalised.
    pub fn extremes(&self, module: &Module) -> Result<Module, ModelError> {
        if !self.func_norm {
            return Err(ModelError::NoExtremes);
        }
        let mut made = self.of(self.specs()?.of(module)?);
        self.add_function(&mut made, "extremes", Mode::Infer, &Scaling::Measured)?;
        Ok(made)
    }

    /// A module like that of [`AfKan::extremes`] that measures one layer, the first that `measured` lacks; the layers
    /// before it are scaled by what `measured` says. `None` when it has all layers.
    ///
    /// Asked again and again, each time with what was measured last, it comes to extremes over many batches: the least
    /// of the minima and the largest of the maxima, whichever way the data is parted into batches.
    ///
    /// # Errors
    /// Those of [`AfKan::extremes`]; extremes that don't fit, as in [`AfKan::freeze`].
    pub fn next_extremes(&self, module: &Module, measured: &[(String, Tensor)]) -> Result<Option<Module>, ModelError> {
        if !self.func_norm {
            return Err(ModelError::NoExtremes);
        }
        let mut made = self.of(self.specs()?.of(module)?);
        let count = self.layers.len() - 1;
        let has = |layer: &usize| extreme_names(*layer).iter().all(|name| measured.iter().any(|(n, _)| n == name));
        let before: Vec<_> = (0..count).take_while(has).map(|i| self.frozen(i, measured)).collect::<Result<_, _>>()?;
        if before.len() == count {
            return Ok(None);
        }
        self.add_function(&mut made, "extremes", Mode::Infer, &Scaling::Next(&before))?;
        Ok(Some(made))
    }

    /// The module with extremes as constants, as measured by [`AfKan::extremes`] or layer by layer: `infer` gives each
    /// sample what it gives alone.
    ///
    /// # Errors
    /// A module of another configuration; extremes that are missing, not finite, or not in order.
    pub fn freeze(&self, module: &Module, measured: &[(String, Tensor)]) -> Result<Module, ModelError> {
        if !self.func_norm {
            return Err(ModelError::NoExtremes);
        }
        let mut made = self.of(self.specs()?.of(module)?);
        let frozen: Vec<_> = (0..self.layers.len() - 1).map(|i| self.frozen(i, measured)).collect::<Result<_, _>>()?;
        self.add_function(&mut made, "infer", Mode::Infer, &Scaling::Frozen(&frozen))?;
        Ok(made)
    }

    /// The extremes of one layer, a pair for each method.
    fn frozen(&self, layer: usize, measured: &[(String, Tensor)]) -> Result<Vec<(f32, f32)>, ModelError> {
        let ty = TensorType::known(DType::F32, &[self.methods.len()]);
        let named = |name: &String| {
            let wrong = |reason: String| ModelError::Extremes { name: name.clone(), reason };
            let (_, tensor) = measured.iter().find(|(n, _)| n == name).ok_or_else(|| wrong("missing".to_owned()))?;
            if tensor.ty() != ty {
                return Err(wrong(format!("should be {ty}, is {}", tensor.ty())));
            }
            Ok(tensor.to_vec::<f32>())
        };
        let names = extreme_names(layer);
        let (least, most) = (named(&names[0])?, named(&names[1])?);
        let pairs: Vec<(f32, f32)> = least.into_iter().zip(most).collect();
        match pairs.iter().find(|(low, high)| !(low.is_finite() && high.is_finite() && low < high)) {
            Some((low, high)) => Err(ModelError::Extremes {
                name: names[1].clone(),
                reason: format!("{high} should be finite and above `{}`, {low}", names[0]),
            }),
            None => Ok(pairs),
        }
    }

    /// A module of no functions yet.
    fn of(&self, params: IndexMap<String, Param>) -> Module {
        Module { functions: IndexMap::new(), params, source: "af-kan".to_owned() }
    }

    /// The parameters in use; the check of the whole configuration.
    fn specs(&self) -> Result<Specs, ModelError> {
        check::layers(&self.layers)?;
        check::methods(self.methods.len())?;
        let n = check::bases(self.grid, self.order)?;
        methods::check(&self.methods, n)?;
        let mut specs = Specs::default();
        // As PyTorch adds a number to a tensor: in f32, the number rounded first.
        let width = ((self.order as f64 + 1.0) / self.grid as f64) as f32;
        for (i, pair) in self.layers.windows(2).enumerate() {
            let &[inputs, outputs] = pair else { continue };
            let layer = format!("layers.{i}");
            let phases = |shift| Init::Phases { grid: self.grid, order: self.order, shift };
            specs.add(format!("{layer}.phase_low"), &[n], phases(0.0));
            specs.add(format!("{layer}.phase_high"), &[n], phases(width));
            methods::specs(&mut specs, &self.methods, &layer, inputs, n);
            norm::specs(&mut specs, self.norm, &format!("{layer}.norm"), inputs);
            specs.add(format!("{layer}.base_weight"), &[outputs, inputs], Init::linear(inputs));
        }
        Ok(specs)
    }

    /// Builds one function over the parameters that the module has.
    fn add_function(
        &self,
        module: &mut Module,
        name: &str,
        mode: Mode,
        scaling: &Scaling<'_>,
    ) -> Result<(), ModelError> {
        let (mut f, x) = function(name, self.layers.first().copied().unwrap_or(0));
        if mode == Mode::Train {
            // The variance of one sample is not known.
            f.symbols.insert(batch(), SymbolFacts { min: 2, ..SymbolFacts::default() });
        }
        let stack = Stack {
            config: self,
            mode,
            scaling,
            net: Net::new(&mut f, &module.params),
            renewed: Renewed::default(),
            measured: Vec::new(),
        };
        let outputs = stack.run(x)?;
        outputs.into_iter().for_each(|(name, value)| f.add_output(&name, value));
        module.functions.insert(name.to_owned(), f);
        Ok(())
    }
}

/// A network while its layers are stacked.
struct Stack<'n> {
    config: &'n AfKan,
    mode: Mode,
    scaling: &'n Scaling<'n>,
    net: Net<'n>,
    renewed: Renewed,
    measured: Vec<(String, Value)>,
}

impl Stack<'_> {
    /// Outputs by name.
    fn run(mut self, x: Value) -> Result<Vec<(String, Value)>, ModelError> {
        let mut copies = vec![x; self.config.methods.len()];
        // A layer at a time, methods in order: running statistics are renewed in that order.
        for layer in 0..self.config.layers.len() - 1 {
            self.layer(layer, &mut copies)?;
            if matches!(self.scaling, Scaling::Next(_)) && self.scaling.measures(layer) {
                break;
            }
        }
        match self.scaling {
            Scaling::Measured | Scaling::Next(_) => return Ok(self.measured),
            Scaling::Own | Scaling::Frozen(_) => {}
        }
        let mut outputs = vec![("logits".to_owned(), self.combined(&copies)?)];
        outputs.extend(self.renewed.iter().map(|(name, value)| (name.to_owned(), value)));
        Ok(outputs)
    }

    fn layer(&mut self, index: usize, copies: &mut [Value]) -> Result<(), ModelError> {
        let layer = format!("layers.{index}");
        let AfKan { activation, function, norm, .. } = *self.config;
        // Copies start as one value: its bases are computed once.
        let mut known: HashMap<Value, Value> = HashMap::new();
        let mut extremes = (Vec::new(), Vec::new());
        for (i, (method, copy)) in self.config.methods.iter().zip(copies.iter_mut()).enumerate() {
            let phi = match known.get(copy) {
                Some(phi) => *phi,
                None => basis::bases(&mut self.net, &layer, *copy, activation, function)?,
            };
            known.insert(*copy, phi);
            let measures = self.scaling.measures(index);
            if measures {
                let (least, most) = basis::extremes(&mut self.net, phi)?;
                extremes.0.push(self.net.unsqueeze(least, 0)?);
                extremes.1.push(self.net.unsqueeze(most, 0)?);
            }
            if measures && matches!(self.scaling, Scaling::Next(_)) {
                continue;
            }
            let phi = self.scaled(index, i, phi)?;
            let z = methods::apply(&mut self.net, *method, &layer, phi)?;
            let z = norm::apply(&mut self.net, norm, self.mode, &format!("{layer}.norm"), z, &mut self.renewed)?;
            self.net.at(&format!("{layer}.output"));
            let active = self.net.activation(z, activation)?;
            let weight = self.net.param(&format!("{layer}.base_weight"))?;
            *copy = self.net.project(active, weight)?;
        }
        for (name, parts) in extreme_names(index).into_iter().zip([extremes.0, extremes.1]) {
            if !parts.is_empty() {
                self.measured.push((name, self.net.b.op(Op::Concat { axis: 0 }, &parts)?));
            }
        }
        Ok(())
    }

    /// A layer's bases as its method takes them.
    fn scaled(&mut self, layer: usize, method: usize, phi: Value) -> Part {
        if !self.config.func_norm {
            return Ok(phi);
        }
        match self.scaling.constants(layer) {
            None => basis::normalised(&mut self.net, phi),
            Some(extremes) => {
                let (least, most) = extremes.get(method).copied().unwrap_or((0.0, 1.0));
                let (least, most) = (self.net.scalar(least.into())?, self.net.scalar(most.into())?);
                basis::scaled(&mut self.net, phi, least, most)
            }
        }
    }

    /// One output of those of several methods.
    fn combined(&mut self, outputs: &[Value]) -> Part {
        let (first, rest) = match outputs {
            [first, rest @ ..] => (*first, rest),
            [] => return Err(ModelError::Methods { found: 0, limit: usize::MAX }),
        };
        if rest.is_empty() {
            return Ok(first);
        }
        self.net.at("combination");
        let net = &mut self.net;
        let mut sum = first;
        let mut product = first;
        for &other in rest {
            (sum, product) = (net.add(sum, other)?, net.mul(product, other)?);
        }
        match self.config.combination {
            Combination::Sum => Ok(sum),
            Combination::Product => Ok(product),
            Combination::SumProduct => net.add(sum, product),
            Combination::Quadratic => {
                let mut total = net.add(sum, product)?;
                for &output in outputs {
                    let square = net.mul(output, output)?;
                    total = net.add(total, square)?;
                }
                Ok(total)
            }
        }
    }
}
