//! Every element type in every encoding, and every way a tensor can lie about itself.

use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::onnx::proto::StringStringEntryProto;
use crate::types::DType::*;

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

fn read(t: &TensorProto) -> Result<Tensor, OnnxError> {
    TensorReader::new(None).read(t)
}

/// Written by the official Python package: three elements in the typed field, the same in raw form, and what numpy
/// holds for them.
const WRITTEN: &[(DType, &str, &str, &str)] = &[
    (F32, "08031001220c0000803f000000bf00004040", "080310014a0c0000803f000000bf00004040", "0000803f000000bf00004040"),
    (
        F64,
        "0803100b5218000000000000f03f000000000000e0bf0000000000000840",
        "0803100b4a18000000000000f03f000000000000e0bf0000000000000840",
        "000000000000f03f000000000000e0bf0000000000000840",
    ),
    (F16, "0803100a2a08807880f002808401", "0803100a4a06003c00b80042", "003c00b80042"),
    (BF16, "080310102a08807f80fe02c08001", "080310104a06803f00bf4040", "803f00bf4040"),
    (I8, "080310032a0c01f8ffffffffffffffff0107", "080310034a0301f807", "01f807"),
    (I16, "080310052a0c01f8ffffffffffffffff0107", "080310054a060100f8ff0700", "0100f8ff0700"),
    (I32, "080310062a0c01f8ffffffffffffffff0107", "080310064a0c01000000f8ffffff07000000", "01000000f8ffffff07000000"),
    (
        I64,
        "080310073a0c01f8ffffffffffffffff0107",
        "080310074a180100000000000000f8ffffffffffffff0700000000000000",
        "0100000000000000f8ffffffffffffff0700000000000000",
    ),
    (U8, "080310022a03010f07", "080310024a03010f07", "010f07"),
    (U16, "080310042a03010f07", "080310044a0601000f000700", "01000f000700"),
    (U32, "0803100c5a03010f07", "0803100c4a0c010000000f00000007000000", "010000000f00000007000000"),
    (
        U64,
        "0803100d5a03010f07",
        "0803100d4a1801000000000000000f000000000000000700000000000000",
        "01000000000000000f000000000000000700000000000000",
    ),
    (Bool, "080310092a03010001", "080310094a03010001", "010001"),
    (I4, "080310162a03810107", "080310164a028107", "01f807"),
    (U4, "080310152a03f10107", "080310154a02f107", "010f07"),
    (I2, "0803101a2a0139", "0803101a4a0139", "01feff"),
    (U2, "080310192a012d", "080310194a012d", "010302"),
    (F8E4M3FN, "080310112a0438b00144", "080310114a0338b044", "38b044"),
    (F8E4M3FNUZ, "080310122a0440b8014c", "080310124a0340b84c", "40b84c"),
    (F8E5M2, "080310132a043cb80142", "080310134a033cb842", "3cb842"),
    (F8E5M2FNUZ, "080310142a0440bc0146", "080310144a0340bc46", "40bc46"),
    (F8E8M0, "080310182a047f80017e", "080310184a037f807e", "7f807e"),
    (F4E2M1, "080310172a03920105", "080310174a029205", "020905"),
];

#[test]
fn typed_and_raw_fields_say_the_same() {
    for (dtype, typed, raw, expected) in WRITTEN {
        for message in [typed, raw] {
            let tensor = read(&TensorProto::decode(bytes(message).as_slice()).unwrap()).unwrap();
            assert_eq!((tensor.dtype(), tensor.shape()), (*dtype, &[3][..]));
            assert_eq!(tensor.bytes(), bytes(expected), "{dtype} from {message}");
            assert_eq!(read(&to_proto("t", &tensor)).unwrap(), tensor, "{dtype} back");
        }
    }
}

#[test]
fn every_numeric_type_is_covered() {
    for dtype in DType::ALL {
        assert!(*dtype == Str || WRITTEN.iter().any(|(d, ..)| d == dtype), "{dtype}");
        assert_eq!(element(data_type(*dtype) as i32, "x").unwrap(), Element { dtype: *dtype, complex: false });
    }
}

#[test]
fn complex_numbers_become_pairs() {
    let t = TensorProto {
        dims: vec![2],
        data_type: Some(DataType::Complex64 as i32),
        float_data: vec![1.0, 2.0, 3.0, 4.0],
        ..TensorProto::default()
    };
    assert_eq!(read(&t).unwrap(), Tensor::f32(&[2, 2], &[1.0, 2.0, 3.0, 4.0]).unwrap());
}

#[test]
fn strings_are_utf8() {
    let mut t = TensorProto {
        dims: vec![2],
        data_type: Some(DataType::String as i32),
        string_data: vec!["a".into(), "é".into()],
        ..TensorProto::default()
    };
    let tensor = read(&t).unwrap();
    assert_eq!(tensor.strings().unwrap(), ["a", "é"]);
    assert_eq!(read(&to_proto("", &tensor)).unwrap(), tensor);
    t.string_data[1] = Bytes::from_static(&[0xff]);
    assert!(read(&t).unwrap_err().to_string().contains("not UTF-8"));
}

fn f32s(dims: &[i64], raw: usize) -> TensorProto {
    TensorProto {
        name: Some("w".into()),
        dims: dims.to_vec(),
        data_type: Some(DataType::Float as i32),
        raw_data: Some(vec![0; raw].into()),
        ..TensorProto::default()
    }
}

#[test]
fn claimed_sizes_are_compared_with_the_bytes_that_are_there() {
    let cases: &[(&[i64], usize, &str)] = &[
        (&[2], 7, "takes 8 bytes, not 7"),
        (&[2], 9, "takes 8 bytes, not 9"),
        (&[-1], 4, "negative extent"),
        (&[1 << 40], 4, "takes 4398046511104 bytes"),
        (&[i64::MAX, i64::MAX], 4, "too large"),
        (&[0, i64::MAX, i64::MAX], 0, "too large"),
        (&[1; 64], 4, "64 are allowed"),
    ];
    for (dims, raw, expected) in cases {
        let error = read(&f32s(dims, *raw)).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("tensor `w`"), "{error}");
    }
    assert_eq!(read(&f32s(&[0, 5], 0)).unwrap().shape(), [0, 5]);
    assert_eq!(read(&f32s(&[], 4)).unwrap().shape(), [] as [usize; 0]);
}

#[test]
fn fields_that_do_not_fit_the_type_are_errors() {
    let refusal = |change: &dyn Fn(&mut TensorProto)| {
        let mut t = f32s(&[1], 4);
        change(&mut t);
        read(&t).unwrap_err().to_string()
    };
    assert!(refusal(&|t| t.float_data = vec![1.0]).contains("both float_data and raw_data"));
    assert!(refusal(&|t| (t.raw_data, t.int64_data) = (None, vec![1])).contains("not kept in int64_data"));
    assert!(refusal(&|t| t.data_type = None).contains("element type: is missing"));
    assert!(refusal(&|t| t.data_type = Some(99)).contains("not supported: type element type 99 at `w`"));
    assert!(refusal(&|t| t.segment = Some(Default::default())).contains("segments"));
    let too_wide = |t: &mut TensorProto| {
        (t.raw_data, t.int32_data, t.data_type) = (None, vec![300], Some(DataType::Int8 as i32));
    };
    assert!(refusal(&too_wide).contains("300 does not fit i8"));
}

#[test]
fn booleans_are_normalised() {
    let mut t = f32s(&[4], 4);
    (t.data_type, t.raw_data) = (Some(DataType::Bool as i32), Some(vec![0, 1, 2, 255].into()));
    assert_eq!(read(&t).unwrap().bytes(), [0, 1, 1, 1]);
}

fn external(dims: &[i64], entries: &[(&str, &str)]) -> TensorProto {
    TensorProto {
        dims: dims.to_vec(),
        data_type: Some(DataType::Float as i32),
        data_location: Some(DataLocation::External as i32),
        external_data: entries
            .iter()
            .map(|(k, v)| StringStringEntryProto { key: Some((*k).into()), value: Some((*v).into()) })
            .collect(),
        ..TensorProto::default()
    }
}

#[test]
fn external_data_is_mapped_and_checked() {
    let folder = tempfile::tempdir().unwrap();
    let numbers: Vec<u8> = [1.0f32, 2.0, 3.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    std::fs::write(folder.path().join("w"), &numbers).unwrap();
    let mut reader = TensorReader::new(Some(folder.path()));
    let mut read = |dims: &[i64], entries: &[(&str, &str)]| reader.read(&external(dims, entries));
    let whole = read(&[3], &[("location", "w")]).unwrap();
    assert_eq!(whole.to_vec::<f32>(), [1.0, 2.0, 3.0]);
    let part = read(&[1, 2], &[("location", "w"), ("offset", "4"), ("length", "8")]).unwrap();
    assert_eq!(part.to_vec::<f32>(), [2.0, 3.0]);
    type Entries<'a> = &'a [(&'a str, &'a str)];
    let refusals: &[(&[i64], Entries<'_>, &str)] = &[
        (&[3], &[("location", "w"), ("offset", "4")], "has 12 bytes"),
        (&[1], &[("location", "w"), ("offset", "18446744073709551615")], "has 12 bytes"),
        (&[1], &[("location", "w"), ("length", "8")], "takes 4 bytes, not 8"),
        (&[1], &[("location", "w"), ("offset", "-4")], "`-4` is no size"),
        (&[1 << 44], &[("location", "w")], "has 12 bytes"),
        (&[1], &[], "no location"),
        (&[1], &[("location", "../w")], "not a relative path"),
    ];
    for (dims, entries, expected) in refusals {
        let error = read(dims, entries).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

fn sparse(dims: &[i64], values: &[f32], index_dims: &[i64], indices: &[i64]) -> SparseTensorProto {
    SparseTensorProto {
        dims: dims.to_vec(),
        values: Some(TensorProto {
            dims: vec![values.len() as i64],
            data_type: Some(DataType::Float as i32),
            float_data: values.to_vec(),
            ..TensorProto::default()
        }),
        indices: Some(TensorProto {
            dims: index_dims.to_vec(),
            data_type: Some(DataType::Int64 as i32),
            int64_data: indices.to_vec(),
            ..TensorProto::default()
        }),
    }
}

#[test]
fn sparse_tensors_become_dense_within_a_limit() {
    let read = |t: &SparseTensorProto| TensorReader::new(None).read_sparse(t);
    let expected = Tensor::f32(&[2, 2], &[0.0, 5.0, 6.0, 0.0]).unwrap();
    assert_eq!(read(&sparse(&[2, 2], &[5.0, 6.0], &[2], &[1, 2])).unwrap(), expected);
    assert_eq!(read(&sparse(&[2, 2], &[5.0, 6.0], &[2, 2], &[0, 1, 1, 0])).unwrap(), expected);
    assert!(matches!(read(&sparse(&[1 << 40], &[5.0], &[1], &[1])), Err(OnnxError::Limit { .. })));
    for (index_dims, indices) in [(&[1][..], &[4][..]), (&[1], &[-1]), (&[1, 2], &[0, 2]), (&[2], &[0, 1])] {
        assert!(matches!(read(&sparse(&[2, 2], &[5.0], index_dims, indices)), Err(OnnxError::Invalid { .. })));
    }
}

proptest! {
    /// Packing loses nothing, whatever the width and count.
    #[test]
    fn packed_elements_survive(elements in prop::collection::vec(any::<u8>(), 0..40), bits in prop::sample::select(vec![2usize, 4])) {
        let mask = (1u8 << bits) - 1;
        let elements: Vec<u8> = elements.iter().map(|e| e & mask).collect();
        prop_assert_eq!(unpack(&pack(&elements, bits), bits, false, elements.len()), elements.clone());
        let signed = unpack(&pack(&elements, bits), bits, true, elements.len());
        prop_assert!(signed.iter().zip(&elements).all(|(s, e)| s & mask == *e && (*s as i8) < 1 << (bits - 1)));
    }
}
