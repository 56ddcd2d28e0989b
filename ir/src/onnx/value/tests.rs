//! Test values there and back, and those of the shared cases.

use super::*;
use crate::onnx::testing::{files_under, shared_folder};
use crate::types::TensorType;

fn list() -> HostValue {
    HostValue::Sequence(vec![
        HostValue::Tensor(Tensor::f32(&[2], &[1.0, 2.0]).unwrap()),
        HostValue::Tensor(Tensor::i64(&[], &[7]).unwrap()),
    ])
}

fn boxed(ty: ValueType) -> Box<ValueType> {
    Box::new(ty)
}

#[test]
fn values_survive_a_file() {
    let tensor = ValueType::Tensor(TensorType::scalar(DType::F32));
    let sequence = ValueType::Sequence(boxed(tensor.clone()));
    let entries = BTreeMap::from(["a", "b"].map(|k| (MapKey::Str(k.into()), list())));
    let cases = [
        (list(), sequence.clone()),
        (HostValue::Sequence(Vec::new()), sequence.clone()),
        (HostValue::Sequence(vec![list(), list()]), ValueType::Sequence(boxed(sequence.clone()))),
        (HostValue::Optional(None), ValueType::Optional(boxed(tensor.clone()))),
        (HostValue::Optional(Some(Box::new(list()))), ValueType::Optional(boxed(sequence))),
        (HostValue::Map(entries), ValueType::Map(DType::Str, boxed(tensor))),
    ];
    for (value, ty) in cases {
        assert_eq!(read_value(&write_value("x", &value), &ty).unwrap(), value);
    }
}

#[test]
fn a_damaged_value_is_an_error() {
    let whole = write_value("x", &list());
    let ty = ValueType::Sequence(boxed(ValueType::Unknown));
    for end in 1..whole.len() {
        // A cut may fall between fields: then fewer elements are left, and nothing else.
        if let Ok(value) = read_value(&whole[..end], &ty) {
            assert!(matches!(value, HostValue::Sequence(items) if items.len() < 2), "cut at {end}");
        }
    }
    assert!(read_tensor(&[0xff; 9]).is_err());
}

#[test]
fn shared_test_values_read() {
    let Some(shared) = shared_folder() else {
        println!("skipped: no shared folder (FRIT_SHARED)");
        return;
    };
    let files = files_under(&shared.join("golden"));
    let values: Vec<_> = files.iter().filter(|p| p.extension().is_some_and(|e| e == "pb")).collect();
    for path in &values {
        read_tensor(&std::fs::read(path).unwrap()).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    assert!(values.len() >= 20);
}
