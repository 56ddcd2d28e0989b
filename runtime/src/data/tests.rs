//! Round trips, files that NumPy wrote, and damaged files.

use super::*;
use flate2::{Compression, Crc, write::DeflateEncoder};
use proptest::prelude::*;
use std::io::Write;

fn npy_bytes(array: &Array) -> Vec<u8> {
    let mut bytes = Vec::new();
    npy::write(array, &mut bytes).unwrap();
    bytes
}

/// A file with this header text, as NumPy pads it.
fn with_header(version: u8, text: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY".to_vec();
    bytes.extend([version, 0]);
    if version == 1 {
        bytes.extend((text.len() as u16).to_le_bytes());
    } else {
        bytes.extend((text.len() as u32).to_le_bytes());
    }
    bytes.extend(text.as_bytes());
    bytes.extend(data);
    bytes
}

fn arrays() -> impl Strategy<Value = Array> {
    let shape = prop::collection::vec(0_usize..5, 0..5);
    (prop::sample::select(NpyDtype::ALL), shape, any::<u8>()).prop_map(|(dtype, shape, seed)| {
        let len = shape.iter().product::<usize>() * dtype.size();
        let mask = if dtype == NpyDtype::Bool { 1 } else { 255 };
        let data = (0..len).map(|at| (at as u8).wrapping_mul(37).wrapping_add(seed) & mask).collect();
        Array::new(dtype, shape, data).unwrap()
    })
}

/// A small archive with a deflated member beside a stored one.
fn deflated_archive(array: &Array) -> Vec<u8> {
    let content = npy_bytes(array);
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&content).unwrap();
    let packed = encoder.finish().unwrap();
    let mut crc = Crc::new();
    crc.update(&content);
    let common = [
        &20_u16.to_le_bytes()[..],
        &[0, 0, 8, 0, 0, 0, 33, 0],
        &crc.sum().to_le_bytes(),
        &(packed.len() as u32).to_le_bytes(),
        &(content.len() as u32).to_le_bytes(),
        &[5, 0, 0, 0],
    ]
    .concat();
    let local = [b"PK\x03\x04", &common[..], b"x.npy", &packed].concat();
    let central = [b"PK\x01\x02\x14\x00", &common[..], &[0; 14], b"x.npy"].concat();
    let end = [
        b"PK\x05\x06\0\0\0\0\x01\0\x01\0",
        &(central.len() as u32).to_le_bytes()[..],
        &(local.len() as u32).to_le_bytes(),
        &[3, 0],
        b"end",
    ]
    .concat();
    [local, central, end].concat()
}

proptest! {
    #[test]
    fn npy_round_trip(array in arrays()) {
        let bytes = npy_bytes(&array);
        prop_assert_eq!(npy::header(&array).len() % 64, 0);
        prop_assert_eq!(npy::read(&bytes).unwrap(), array);
    }

    #[test]
    fn npz_round_trip(all in prop::collection::vec(arrays(), 0..5), zip64: bool) {
        let names: Vec<String> = (0..all.len()).map(|index| format!("layer.{index}/ü")).collect();
        let mut bytes = Vec::new();
        let limit = if zip64 { 0 } else { u64::from(u32::MAX) };
        npz::write_with(&mut bytes, names.iter().map(String::as_str).zip(&all), limit).unwrap();
        let read = npz::read(&bytes).unwrap();
        prop_assert_eq!(read, names.into_iter().zip(all).collect::<Vec<_>>());
    }

    #[test]
    fn damaged_files_are_refused_or_read(
        array in arrays(), kind in 0_u8..4, cut in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut bytes = match kind {
            0 => npy_bytes(&array),
            1 => deflated_archive(&array),
            _ => {
                let mut bytes = Vec::new();
                let limit = if kind == 2 { 0 } else { u64::from(u32::MAX) };
                npz::write_with(&mut bytes, [("a", &array), ("b", &array)], limit).unwrap();
                bytes
            }
        };
        for (at, value) in &changes {
            let at = at.index(bytes.len());
            bytes[at] = *value;
        }
        if changes.len() % 2 == 1 {
            bytes.truncate(cut.index(bytes.len()));
        }
        // An error or an array that is no larger than deflate can make it; never a panic.
        let read = if kind == 0 {
            npy::read(&bytes).map(|array| vec![array])
        } else {
            npz::read(&bytes).map(|arrays| arrays.into_iter().map(|(_, array)| array).collect())
        };
        if let Ok(arrays) = read {
            prop_assert!(arrays.iter().all(|array| array.data().len() <= bytes.len() * 1032));
        }
    }
}

#[test]
fn orders_and_endianness() {
    let data: Vec<u8> = (0..6_u16).flat_map(u16::to_be_bytes).collect();
    for version in [1, 2, 3] {
        let text = "{'descr': '>i2', 'fortran_order': True, 'shape': (2, 3), }      \n";
        let array = npy::read(&with_header(version, text, &data)).unwrap();
        assert_eq!((array.dtype(), array.shape()), (NpyDtype::I16, &[2, 3][..]));
        let expected: Vec<u8> = [0_u16, 2, 4, 1, 3, 5].into_iter().flat_map(u16::to_le_bytes).collect();
        assert_eq!(array.data(), expected);
    }
    let text = "{\"shape\": (1L,), \"descr\": \">c8\", \"fortran_order\": False}";
    let array = npy::read(&with_header(1, text, &[1, 2, 3, 4, 5, 6, 7, 8])).unwrap();
    assert_eq!(array.data(), [4, 3, 2, 1, 8, 7, 6, 5]);
    let text = "{'descr': '|b1', 'fortran_order': False, 'shape': (3,)}";
    assert_eq!(npy::read(&with_header(1, text, &[0, 1, 200])).unwrap().data(), [0, 1, 1]);
}

#[test]
fn errors_name_what_is_wrong() {
    let check = |bytes: &[u8], expected: &str| {
        let message = npy::read(bytes).expect_err(expected).to_string();
        assert!(message.contains(expected), "{message:?} should say {expected:?}");
    };
    check(b"PK", "not a .npy file");
    check(b"\x93NUMPY\x01\0\xff\xff{", "ends inside its header");
    check(b"\x93NUMPY\x09\0\x00\x00", "version 9");
    let huge = "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4)}";
    check(&with_header(1, huge, &[0; 16]), "more than memory can hold");
    let long = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000,)}";
    check(&with_header(1, long, &[0; 16]), "takes 4000000000");
    let negative = "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}";
    check(&with_header(1, negative, &[]), "an extent that is not a number");
    let text = "{'descr': '<U5', 'fortran_order': False, 'shape': ()}";
    check(&with_header(1, text, &[0; 20]), "elements of type \"<U5\"");
    let records = "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': ()}";
    check(&with_header(1, records, &[0; 4]), "an array of records");
    let missing = "{'descr': '<f4', 'shape': ()}";
    check(&with_header(1, missing, &[0; 4]), "lacks one of");
    assert!(Array::new(NpyDtype::F32, vec![2], vec![0; 7]).is_err());
}

#[test]
fn archives_with_faults_are_refused() {
    let array = Array::new(NpyDtype::U8, vec![300], vec![7; 300]).unwrap();
    let archive = deflated_archive(&array);
    assert_eq!(npz::read(&archive).unwrap(), [("x".to_owned(), array.clone())]);
    let check = |bytes: &[u8], expected: &str| {
        let message = npz::read(bytes).expect_err(expected).to_string();
        assert!(message.contains(expected), "{message:?} should say {expected:?}");
    };
    check(b"", "too short");
    check(&[0; 100], "no end record");
    check(&archive[..archive.len() - 1], "no end record");
    let changed = |at: usize, value: u8| {
        let mut bytes = archive.clone();
        bytes[at] = value;
        bytes
    };
    let central = archive.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
    check(&changed(central + 8, 1), "x.npy: an encrypted member");
    check(&changed(central + 10, 12), "compression method 12");
    check(&changed(central + 16, archive[central + 16] ^ 1), "its checksum is wrong");
    check(&changed(central + 24, archive[central + 24] ^ 1), "where the directory says");
    check(&changed(central + 27, 0x70), "cannot inflate to");
    check(&changed(central + 50, b'z'), "not a .npy file");
    let mut out = Vec::new();
    assert!(npz::write(&mut out, [("a", &array), ("a", &array)]).is_err());
}

#[test]
fn files_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let array = Array::new(NpyDtype::F16, vec![2, 1], vec![0, 60, 0, 64]).unwrap();
    let (one, many) = (folder.path().join("a.npy"), folder.path().join("a.npz"));
    npy::write_file(&array, &one).unwrap();
    assert_eq!(npy::read_file(&one).unwrap(), array);
    npz::write_file(&many, [("first", &array), ("second", &array)]).unwrap();
    assert_eq!(npz::read_file(&many).unwrap()[1], ("second".to_owned(), array));
    let message = npy::read_file(&many).expect_err("an archive").to_string();
    assert!(message.contains("a.npz: at byte 0"), "{message}");
    assert!(npy::read_file(&folder.path().join("none")).is_err());
}

/// The archives that NumPy wrote, where the shared folder is present.
#[test]
fn golden_archives() {
    let shared = std::env::var_os("FRIT_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"), std::path::PathBuf::from);
    let Ok(files) = std::fs::read_dir(shared.join("golden/afkan")) else {
        println!("skipped: no golden archives in {}", shared.display());
        return;
    };
    let mut archives = 0;
    for file in files.map(|file| file.unwrap().path()) {
        if file.extension().is_some_and(|extension| extension == "npz") {
            let arrays = npz::read_file(&file).unwrap();
            let (_, input) = arrays.iter().find(|(name, _)| name == "x").unwrap();
            assert_eq!((input.dtype(), input.shape()), (NpyDtype::F32, &[4, 6][..]));
            archives += 1;
        }
    }
    println!("read {archives} archives");
    assert!(archives > 0);
}
