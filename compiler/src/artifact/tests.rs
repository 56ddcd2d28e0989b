//! Round trips, damage of every kind.

use frit_ir::builder::Builder;
use frit_ir::{BinaryOp, Dim, Donation, Function, Numerics, Origin, Param, TensorType};

use super::*;
use crate::cpu::abi::{KernelCode, PhaseCode};
use crate::plan::build::build;
use crate::plan::{LibraryCall, StateForm, Step};

/// A module with a parameter, a symbolic extent and a nested type, and its plan with stand-in code.
fn sample() -> (Plan, Module) {
    let mut f = Function::new("infer");
    let b = Dim::symbol("B");
    let x = f.add_input("x", TensorType::new(DType::F32, vec![b.floordiv(&Dim::from(2usize)), b.clone()]));
    f.add_input("b", TensorType::new(DType::I64, vec![b]));
    let mut builder = Builder::new(&mut f, Origin::named("sample"));
    let y = builder.binary(BinaryOp::Add, x, x).unwrap();
    let ty = TensorType::known(DType::F32, &[3, 100]);
    let w = builder.op(frit_ir::Op::Param { name: "w".to_owned(), ty }, &[]).unwrap();
    let z = builder.binary(BinaryOp::Mul, w, w).unwrap();
    f.add_output("y", y);
    f.add_output("z", z);
    // A product that does what follows it.
    let ty = |dims: &[usize]| TensorType::known(DType::F32, dims);
    let (left, right) = (f.add_input("left", ty(&[2, 3])), f.add_input("right", ty(&[3, 4])));
    let bias = f.add_input("bias", ty(&[4]));
    let product = frit_ir::Op::DotGeneral {
        lhs_batch: Vec::new(),
        rhs_batch: Vec::new(),
        lhs_contract: vec![1],
        rhs_contract: vec![0],
        accumulate: DType::F32,
    };
    let product = Builder::new(&mut f, Origin::named("product")).op(product, &[left, right]).unwrap();
    let mut body = Function::new("");
    let (sum, row) = (body.add_input("sum", ty(&[2, 4])), body.add_input("row", ty(&[4])));
    let mut inner = Builder::new(&mut body, Origin::named("bias"));
    let dims = vec![Dim::from(2usize), Dim::from(4usize)];
    let row = inner.op(frit_ir::Op::Broadcast { dims, axes: vec![1] }, &[row]).unwrap();
    let sum = inner.binary(BinaryOp::Add, row, sum).unwrap();
    body.add_output("y", sum);
    let fusion = f.add_op(frit_ir::Op::Fusion {}, &[product, bias], vec![body], &Origin::named("bias")).unwrap();
    // State of every form: written in place, appended to, copied.
    let mut donated = Vec::new();
    for (i, name) in ["s", "past", "turned"].into_iter().enumerate() {
        let dims = [Dim::from(2usize), Dim::symbol("T")];
        let s = f.add_input(name, TensorType::new(DType::F32, dims.to_vec()));
        let mut builder = Builder::new(&mut f, Origin::named(name));
        let next = match i {
            0 => builder.unary(frit_ir::UnaryOp::Exp, s),
            1 => builder.op(frit_ir::Op::Concat { axis: 1 }, &[s, s]),
            _ => builder.op(
                frit_ir::Op::Slice { starts: vec![Dim::ONE, Dim::ZERO], sizes: dims.to_vec(), steps: vec![-1, 1] },
                &[s],
            ),
        };
        donated.push(Donation { input: 5 + i, output: 2 + i });
        f.add_output(&format!("next_{name}"), next.unwrap());
    }
    f.add_output("product", frit_ir::Value { node: fusion, result: 0 });
    f.donations = donated;
    let mut module = Module::of(f);
    let value = Tensor::f32(&[3, 100], &[0.5; 300]).unwrap();
    module.params.insert("w".to_owned(), Param { value, trainable: true });
    let mut code = |_: &_, _: &_| {
        Ok(KernelCode { bytes: vec![1, 2, 3], phases: vec![PhaseCode { entry: 0, scratch: 64, grain: 8 }] })
    };
    let plan = build(&module, Numerics::STRICT, &[], &mut code).unwrap().plan;
    (plan, module)
}

fn read(bytes: &[u8]) -> Result<Artifact, ArtifactError> {
    let mut map = memmap2::MmapMut::map_anon(bytes.len().max(1)).unwrap();
    map[..bytes.len()].copy_from_slice(bytes);
    from_map(&Arc::new(map.make_read_only().unwrap()))
}

#[test]
fn plans_and_modules_round_trip() {
    let (plan, module) = sample();
    let bytes = to_bytes(&plan, &module);
    let artifact = read(&bytes).unwrap();
    assert_eq!(format!("{:?}", artifact.plan), format!("{plan:?}"));
    assert_eq!(artifact.plan.check(), Ok(()));
    assert!(artifact.plan.constants.iter().zip(&plan.constants).all(|(a, b)| a.value == b.value));
    assert_eq!(artifact.mismatch(), None);
    let program = &artifact.plan.programs[0];
    let is_followed = |step: &Step| {
        let Step::Library { call: call @ LibraryCall::MatMul { epilogue, .. }, operands, .. } = step else {
            return false;
        };
        epilogue.bias && operands.len() == 3 && call.name() == "matmul_add"
    };
    assert_eq!(program.steps.iter().filter(|s| is_followed(s)).count(), 1, "{:?}", program.steps);
    let states = &program.states;
    assert!(matches!(states[0].form, StateForm::InPlace { .. }), "{states:?}");
    assert!(matches!(states[1].form, StateForm::Append { axis: 1, .. }), "{states:?}");
    assert!(matches!(&states[2].form, StateForm::Copied { reason } if reason.contains("other elements")));
    let again = artifact.module().unwrap();
    assert_eq!(frit_ir::text::to_inline_text(&again), frit_ir::text::to_inline_text(&module));
    // The weight is stored once, though plan and module name it.
    let weight = module.params["w"].value.bytes();
    assert_eq!(bytes.windows(weight.len()).filter(|w| *w == weight).count(), 1);
}

#[test]
fn another_machine_is_noticed() {
    let (plan, module) = sample();
    let mut artifact = read(&to_bytes(&plan, &module)).unwrap();
    artifact.target.features.push("teleport".to_owned());
    assert_eq!(artifact.mismatch().as_deref(), Some("this CPU has no teleport"));
    artifact.abi += 1;
    assert!(artifact.mismatch().unwrap().contains("calling convention"));
}

#[test]
fn another_version_is_refused_by_its_number() {
    let (plan, module) = sample();
    let bytes = to_bytes(&plan, &module);
    assert!(bytes.starts_with(MAGIC));
    for version in *b"01239a" {
        let mut other = bytes.clone();
        other[VERSION_AT] = version;
        let error = read(&other).unwrap_err();
        assert!(matches!(error, ArtifactError::Version { found } if found == char::from(version)), "{error}");
        let said = format!("of format version {}, this frit reads version {VERSION}", char::from(version));
        assert!(error.to_string().contains(&said), "{error}");
    }
    for no_artifact in [&b"fritd 2\n"[..], b"fritc \n\n", b"fritc 2 ", b"frit 1\n"] {
        let error = read(&[no_artifact, &bytes[MAGIC.len()..]].concat()).unwrap_err();
        assert!(matches!(error, ArtifactError::Magic), "{error}");
    }
}

#[test]
fn damage_is_an_error() {
    let (plan, module) = sample();
    let bytes = to_bytes(&plan, &module);
    for len in 0..bytes.len() {
        assert!(read(&bytes[..len]).is_err(), "cut to {len}");
    }
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0x55;
        // The ABI version is outside of the hash: it makes a mismatch, not an error.
        if (8..12).contains(&at) {
            assert!(read(&changed).unwrap().mismatch().is_some());
        } else {
            assert!(read(&changed).is_err(), "byte {at}");
        }
    }
}

/// With a hash that fits, what the bytes say must still be refused or harmless: no panic, no memory on a claim.
#[test]
fn lies_with_the_right_hash_do_not_panic() {
    let (plan, module) = sample();
    let bytes = to_bytes(&plan, &module);
    let mut accepted = 0;
    for at in HEADER..bytes.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[at] ^= flip;
            let fixed = hash(&changed[HEADER..]).to_le_bytes();
            changed[16..24].copy_from_slice(&fixed);
            if let Ok(artifact) = read(&changed) {
                accepted += usize::from(artifact.plan.check().is_ok());
                let _ = artifact.module();
            }
        }
    }
    assert!(accepted > 0, "changed weights are weights too");
}
