//! Compiled files to models.
//!
//! Code of a `.fritc` runs only when the caller trusts the file and machine and calling convention fit; otherwise the
//! module that the file holds is compiled again, where the build has a code generator.

use std::path::Path;

use frit_compiler::artifact::{self, Artifact};

use crate::load::LoadError;
use crate::session::Model;

impl Model {
    /// Loads a compiled file. `trust_code`: the file comes from a source whose code may run here.
    ///
    /// # Errors
    /// A file that is no whole artifact; code that may not or can't run here, in a build that can't compile.
    pub fn load_artifact(path: impl AsRef<Path>, trust_code: bool) -> Result<Model, LoadError> {
        let path = path.as_ref();
        let artifact =
            artifact::read_file(path).map_err(|source| LoadError::Artifact { path: path.to_owned(), source })?;
        let refusal = if trust_code { artifact.mismatch() } else { Some("its code is not trusted".to_owned()) };
        match refusal {
            None => Ok(Model::new(artifact.plan)?),
            Some(reason) => again(artifact, path, reason),
        }
    }
}

/// Compiles the module again, with the inputs fixed that the plan was specialised for.
#[cfg(feature = "jit")]
fn again(artifact: Artifact, path: &Path, _reason: String) -> Result<Model, LoadError> {
    use frit_compiler::plan::Guard;

    let module = artifact.module().map_err(|source| LoadError::Artifact { path: path.to_owned(), source })?;
    let mut options = crate::CompileOptions::default();
    artifact.plan.check().map_err(crate::ModelError::Plan)?;
    for (_, id) in &artifact.plan.entries {
        let program = &artifact.plan.programs[id.index()];
        for guard in &program.guards {
            if let Guard::Value { input, constant } = guard {
                let name = program.inputs[*input as usize].name.clone();
                options.fixed.insert(name, artifact.plan.constants[constant.index()].value.clone());
            }
        }
    }
    Ok(Model::compile(module, &options)?.model)
}

#[cfg(not(feature = "jit"))]
fn again(_artifact: Artifact, path: &Path, reason: String) -> Result<Model, LoadError> {
    Err(LoadError::Code { path: path.to_owned(), reason })
}

#[cfg(all(test, feature = "jit"))]
mod tests {
    use frit_ir::text::{NoConstants, from_text};
    use frit_ir::{HostValue, Tensor};

    use super::*;
    use crate::CompileOptions;

    #[test]
    fn trusted_or_compiled_again_gives_the_same() {
        let text = "frit 1\nfunc @infer(%x \"x\": f32[B]) {\n  %y = tanh(%x)\n  return \"y\" = %y\n}\n";
        let module = from_text(text, &NoConstants).unwrap();
        let x = Tensor::f32(&[3], &[0.5, -1.0, 2.0]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.fritc");
        let value = HostValue::Tensor(x.clone());
        let mut options = CompileOptions::default();
        options.fixed.insert("x".to_owned(), x.clone());
        let compiled = Model::compile_for(&module, &[("x", &value)], &options).unwrap();
        compiled.write_artifact(&path).unwrap();
        let expected = compiled.model.run(&[("x", &x)]).unwrap();
        let other = Tensor::f32(&[3], &[0.0; 3]).unwrap();
        for trust in [true, false] {
            let model = Model::load_artifact(&path, trust).unwrap();
            assert_eq!(model.run(&[("x", &x)]).unwrap(), expected);
            assert!(model.run(&[("x", &other)]).is_err(), "the value that it was compiled for is still guarded");
        }
        std::fs::write(&path, b"fritc 1\n").unwrap();
        assert!(matches!(Model::load_artifact(&path, true), Err(LoadError::Artifact { .. })));
    }
}
