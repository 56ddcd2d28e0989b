//! A network in code: builds an AF-KAN, runs a batch, then freezes what makes a sample depend on its batch.
//!
//! `cargo run --release --example af_kan`

use std::error::Error;

use frit_ir::model::{AfKan, BasisFunction};
use frit_ir::random::Philox;
use frit_ir::{Module, Tensor};
use frit_runtime::{CompileOptions, Model};

/// Compiles a module and runs its function on one input.
fn run(module: &Module, x: &Tensor) -> Result<Vec<(String, Tensor)>, Box<dyn Error>> {
    let model = Model::compile(module.clone(), &CompileOptions::default())?.model;
    Ok(model.run(&[("x", x)])?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let network = AfKan { layers: vec![16, 8, 3], function: BasisFunction::Quad2, ..AfKan::default() };
    let module = network.module(42)?;
    let count: usize = module.params.values().map(|p| p.value.numel()).sum();
    println!("{count} parameters in {} tensors", module.params.len());

    let mut random = Philox::new(1, 1);
    let values: Vec<f32> = (0..64 * 16).map(|_| random.normal()).collect();
    let batch = Tensor::f32(&[64, 16], &values)?;
    let first = Tensor::f32(&[1, 16], &values[..16])?;
    let logits = |outputs: Vec<(String, Tensor)>| outputs[0].1.to_vec::<f32>()[..3].to_vec();
    println!("first sample, in its batch: {:?}", logits(run(&module, &batch)?));
    println!("the same sample alone:      {:?}", logits(run(&module, &first)?));

    // The extremes of each layer's bases on a batch, as constants.
    let measured = run(&network.extremes(&module)?, &batch)?;
    let frozen = network.freeze(&module, &measured)?;
    println!("frozen, in its batch:       {:?}", logits(run(&frozen, &batch)?));
    println!("frozen, alone:              {:?}", logits(run(&frozen, &first)?));
    Ok(())
}
