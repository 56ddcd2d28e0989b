//! Writes a small compiled model: `artifact FILE.fritc`. A build without the code generator loads and runs it
//! (`tests/artifact.rs`).

use std::error::Error;
use std::path::Path;

use frit_ir::text::{NoConstants, from_text};
use frit_runtime::{CompileOptions, Model};

const MODULE: &str = r##"frit 1
func @infer(%x "x": f32[B, 4]) {
  %e = exp(%x)
  %s = reduce(%e) {axes = [1], kind = #sum}
  %c = reshape(%s) {dims = [B, 1]}
  %b = broadcast(%c) {dims = [B, 4], axes = [0, 1]}
  %y = div(%e, %b)
  return "y" = %y
}
"##;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: artifact FILE.fritc")?;
    let compiled = Model::compile(from_text(MODULE, &NoConstants)?, &CompileOptions::default())?;
    compiled.write_artifact(Path::new(&path))?;
    Ok(())
}
