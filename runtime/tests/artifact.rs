//! A compiled file runs in a build that has no code generator. `FRIT_ARTIFACT` names a file that the example `artifact`
//! wrote.
#![cfg(not(feature = "jit"))]

use frit_ir::Tensor;
use frit_runtime::{LoadError, Model};

#[test]
fn a_compiled_file_runs_without_a_compiler() {
    let Some(path) = std::env::var_os("FRIT_ARTIFACT") else {
        eprintln!("skipped: FRIT_ARTIFACT names no file");
        return;
    };
    let refused = Model::load_artifact(&path, false).err();
    assert!(matches!(refused, Some(LoadError::Code { .. })), "untrusted code must not run");
    let model = Model::load_artifact(&path, true).unwrap();
    for batch in [1usize, 5, 300] {
        let x: Vec<f32> = (0..batch * 4).map(|i| (i % 7) as f32 * 0.5 - 1.0).collect();
        let x = Tensor::f32(&[batch, 4], &x).unwrap();
        let y = model.run(&[(model.inputs()[0].name.as_str(), &x)]).unwrap().remove(0).1;
        assert_eq!(y.shape(), [batch, 4]);
        for (row, given) in y.to_vec::<f32>().chunks(4).zip(x.to_vec::<f32>().chunks(4)) {
            let sum: f32 = given.iter().map(|v| v.exp()).sum();
            assert!(row.iter().zip(given).all(|(y, x)| (y - x.exp() / sum).abs() < 1e-6), "{row:?} of {given:?}");
        }
    }
}
