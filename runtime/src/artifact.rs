//! Compiled files to models.
//!
//! Code of a `.fritc` runs only when the caller trusts the file and machine and calling convention fit; otherwise the
//! module that the file holds is compiled again, where the build has a code generator.

use std::collections::HashMap;
use std::path::Path;

use frit_compiler::artifact;
use frit_ir::{Module, Tensor};

use crate::load::LoadError;
use crate::session::Model;

/// What a compiled file gives.
#[derive(Debug)]
pub enum Opened {
    /// Its code: trusted, and made for this machine.
    Code {
        /// Ready to run.
        model: Model,
        /// Inputs that it was compiled for, with the values that they must have.
        fixed: HashMap<String, Tensor>,
    },
    /// Its module: to be compiled again.
    Module {
        /// The module.
        module: Module,
        /// Inputs that it was compiled for: to be fixed again.
        fixed: HashMap<String, Tensor>,
        /// Why its code is not used.
        reason: String,
    },
}

/// Opens a compiled file. `trust_code`: the file comes from a source whose code may run here.
///
/// # Errors
/// A file that is no whole artifact.
pub fn open_artifact(path: &Path, trust_code: bool) -> Result<Opened, LoadError> {
    let failed = |source| LoadError::Artifact { path: path.to_owned(), source };
    let artifact = artifact::read_file(path).map_err(failed)?;
    let fixed = artifact.fixed_inputs();
    let refusal = if trust_code { artifact.mismatch() } else { Some("its code is not trusted".to_owned()) };
    Ok(match refusal {
        None => Opened::Code { model: Model::new(artifact.plan)?, fixed },
        Some(reason) => Opened::Module { module: artifact.module().map_err(failed)?, fixed, reason },
    })
}

impl Model {
    /// Loads a compiled file, or compiles its module again, with the numerics that it has. `trust_code` as in [`open_artifact`].
    ///
    /// # Errors
    /// A file that is no whole artifact; code that may not or can't run here, in a build that can't compile.
    pub fn load_artifact(path: impl AsRef<Path>, trust_code: bool) -> Result<Model, LoadError> {
        match open_artifact(path.as_ref(), trust_code)? {
            Opened::Code { model, .. } => Ok(model),
            #[cfg(feature = "jit")]
            Opened::Module { module, fixed, .. } => {
                let math = frit_passes::manager::Math::AsWritten;
                let options = crate::CompileOptions { fixed, math, ..crate::CompileOptions::default() };
                Ok(Model::compile(module, &options)?.model)
            }
            #[cfg(not(feature = "jit"))]
            Opened::Module { reason, .. } => Err(LoadError::Code { path: path.as_ref().to_owned(), reason }),
        }
    }
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
        std::fs::write(&path, b"fritc 5\n").unwrap();
        assert!(matches!(Model::load_artifact(&path, true), Err(LoadError::Artifact { .. })));
    }
}
