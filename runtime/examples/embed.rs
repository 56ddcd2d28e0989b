//! Embeds frit: load a model, run it, run it again without allocating.
//!
//! `cargo run --release --example embed -- MODEL.onnx`

use std::error::Error;

use frit_runtime::{InputRef, Model};

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: embed MODEL")?;
    let model = Model::load(&path)?;

    // Zeros for every input; a symbolic extent is 1.
    let mut inputs = Vec::new();
    for port in model.inputs() {
        let ty = port.ty.tensor().ok_or("this example knows tensors only")?;
        let shape: Vec<usize> = ty.dims.iter().map(|d| d.known().map_or(1, |d| d as usize)).collect();
        let bytes = vec![0u8; shape.iter().product::<usize>() * ty.dtype.size()];
        inputs.push(frit_ir::Tensor::from_bytes(ty.dtype, &shape, &bytes)?);
    }

    // A context a thread; the model is shared.
    let mut context = model.context();
    let borrowed: Vec<InputRef> = inputs.iter().map(InputRef::from).collect();
    for _ in 0..10 {
        context.run(&borrowed)?;
    }
    for (i, port) in model.outputs().iter().enumerate() {
        if let Some(output) = context.output(i)?.tensor() {
            println!("{}: {}{:?}, {} bytes", port.name, output.dtype, output.shape, output.data.len());
        }
    }
    Ok(())
}
