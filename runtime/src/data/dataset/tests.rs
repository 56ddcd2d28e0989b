//! Good and damaged files of each format, what must be refused by file and record, batches and their order.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;

use super::*;
use crate::data::{Array, NpyDtype, npy, npz};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn idx_bytes(code: u8, shape: &[u32], data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, code, shape.len() as u8];
    shape.iter().for_each(|n| bytes.extend(n.to_be_bytes()));
    bytes.extend(data);
    bytes
}

/// Writes a file and gives its path.
fn file(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// A folder of the four files: `train` and `test` images of 2 by 2 pixels.
fn pictures(folder: &Path, train: usize, test: usize) {
    for (part, count) in [("train", train), ("t10k", test)] {
        let pixels: Vec<u8> = (0..count * 4).map(|i| (i * 37 % 256) as u8).collect();
        let labels: Vec<u8> = (0..count).map(|i| (i % 10) as u8).collect();
        let images = idx_bytes(8, &[count as u32, 2, 2], &pixels);
        file(folder, &format!("{part}-images-idx3-ubyte.gz"), &gzip(&images));
        file(folder, &format!("{part}-labels-idx1-ubyte"), &idx_bytes(8, &[count as u32], &labels));
    }
}

fn request<'a>(source: &'a str, task: Task, columns: &'a Columns, holdout: &'a Holdout) -> Request<'a> {
    Request { source, folder: None, task, columns, holdout, seed: 7 }
}

fn open_text(folder: &Path, text: &str, task: Task, targets: &[&str]) -> Result<TrainingData, DatasetError> {
    let path = file(folder, "table.csv", text.as_bytes());
    let columns = Columns { inputs: None, targets: targets.iter().map(|t| (*t).to_owned()).collect() };
    source::open(&request(path.to_str().unwrap(), task, &columns, &Holdout::Fraction(0.25)))
}

#[test]
fn idx_files_read_alike_gzipped_and_plain() {
    let folder = tempfile::tempdir().unwrap();
    let cases: &[(u8, Vec<u8>, Vec<f64>)] = &[
        (0x08, vec![0, 255], vec![0.0, 255.0]),
        (0x09, vec![0x80, 1], vec![-128.0, 1.0]),
        (0x0b, vec![0xff, 0xfe, 1, 0], vec![-2.0, 256.0]),
        (0x0c, vec![0x80, 0, 0, 0, 0, 0, 1, 0], vec![-2_147_483_648.0, 256.0]),
        (0x0d, [1.5_f32.to_be_bytes(), (-0.25_f32).to_be_bytes()].concat(), vec![1.5, -0.25]),
        (0x0e, [1e-300_f64.to_be_bytes(), 2.0_f64.to_be_bytes()].concat(), vec![1e-300, 2.0]),
    ];
    for (code, data, values) in cases {
        let bytes = idx_bytes(*code, &[2], data);
        let plain = idx::read_file(&file(folder.path(), "plain", &bytes)).unwrap();
        assert_eq!(plain.values().collect::<Vec<_>>(), *values);
        assert_eq!(idx::read_file(&file(folder.path(), "packed.gz", &gzip(&bytes))).unwrap(), plain);
    }
}

#[test]
fn damaged_idx_files_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let good = idx_bytes(8, &[3, 2], &[1, 2, 3, 4, 5, 6]);
    let packed = gzip(&good);
    let mut flipped = packed.clone();
    let crc = flipped.len() - 6;
    flipped[crc] ^= 1;
    let cases: &[(&str, Vec<u8>)] = &[
        ("cut off", good[..good.len() - 1].to_vec()),
        ("follows", [&good[..], &[0]].concat()),
        ("inside its header", good[..6].to_vec()),
        ("not an IDX file", good[..3].to_vec()),
        ("element type 0x0f", idx_bytes(15, &[1], &[0])),
        ("more than memory", idx_bytes(14, &[u32::MAX, u32::MAX, u32::MAX], &[])),
        ("cut off", idx_bytes(8, &[u32::MAX, 1000], &[1, 2])),
        ("cannot be read", packed[..packed.len() - 9].to_vec()),
        ("cannot be read", flipped),
        ("not an IDX file", Vec::new()),
    ];
    for (expected, bytes) in cases {
        let path = file(folder.path(), "bad-images", bytes);
        let error = idx::read_file(&path).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("bad-images"), "{expected}: {error}");
    }
}

#[test]
fn pictures_become_numbers_from_minus_one_to_one() {
    let folder = tempfile::tempdir().unwrap();
    pictures(folder.path(), 12, 5);
    let (columns, holdout) = (Columns::default(), Holdout::Fraction(0.5));
    let asked = Request { folder: Some(folder.path()), ..request("mnist", Task::Classes, &columns, &holdout) };
    let data = source::open(&asked).unwrap();
    // The test set judges, whatever share is asked for.
    assert_eq!((data.train.len(), data.validation.len(), data.classes()), (12, 5, Some(10)));
    assert_eq!(data.train.shape(), [2, 2]);
    assert_eq!(data.train.inputs()[0], -1.0);
    assert_eq!(data.train.inputs()[1], (37.0 / 255.0 - 0.5) / 0.5);
    assert!(data.train.inputs().iter().all(|x| (-1.0..=1.0).contains(x)));
    assert_eq!(data.validation.targets(), &Targets::Classes(vec![0, 1, 2, 3, 4]));
    data.train.check_classes(10).unwrap();
    let error = data.train.check_classes(4).unwrap_err().to_string();
    assert!(error.contains("record 5") && error.contains("label 4 is out of range"), "{error}");
    let values = Request { task: Task::Values, ..asked };
    assert!(source::open(&values).unwrap_err().to_string().contains("classes"));
}

#[test]
fn what_is_missing_is_said_with_where_it_comes_from() {
    let folder = tempfile::tempdir().unwrap();
    let (columns, holdout) = (Columns::default(), Holdout::Fraction(0.5));
    let asked = |name| Request { folder: Some(folder.path()), ..request(name, Task::Classes, &columns, &holdout) };
    let absent = source::open(&asked("fashion-mnist")).unwrap_err();
    assert!(absent.to_string().contains("is not here") && absent.help().contains("dataset-fashion-mnist"), "{absent}");
    assert!(source::open(&asked("mnist")).unwrap_err().help().contains("--data-dir"));
    pictures(folder.path(), 3, 3);
    std::fs::remove_file(folder.path().join("t10k-labels-idx1-ubyte")).unwrap();
    let part = source::open(&asked("mnist")).unwrap_err().to_string();
    assert!(part.contains("3 of the 4") && part.contains("t10k-labels"), "{part}");
    file(folder.path(), "t10k-labels-idx1-ubyte", &idx_bytes(8, &[2], &[0, 1]));
    let fewer = source::open(&asked("mnist")).unwrap_err().to_string();
    assert!(fewer.contains("3 images, but 2 labels"), "{fewer}");
    for (name, said) in [("absent.csv", "absent.csv"), ("nonsense", "neither"), (".", "neither")] {
        assert!(
            source::open(&request(name, Task::Classes, &columns, &holdout)).unwrap_err().to_string().contains(said)
        );
    }
}

#[test]
fn tables_have_a_target_by_name_by_number_or_last() {
    let folder = tempfile::tempdir().unwrap();
    let text = "width; \"class; of\" ;height\n1;0;2\n3;1;4.5\n\n5;2;-6e-1\n7;0;8\n";
    let data = open_text(folder.path(), text, Task::Classes, &["class; of"]).unwrap();
    assert_eq!((data.train.len(), data.validation.len()), (3, 1));
    assert_eq!(data.train.names(), ["width", "height"]);
    let bare = "1,0.5,2\n3,0.25,4\n5,0.125,6\n7,0,8\n";
    let last = open_text(folder.path(), bare, Task::Values, &[]).unwrap();
    let second = open_text(folder.path(), bare, Task::Values, &["2"]).unwrap();
    assert_eq!(last.train.shape(), [2]);
    let all = |data: &TrainingData| match (data.train.targets(), data.validation.targets()) {
        (Targets::Values { data: a, .. }, Targets::Values { data: b, .. }) => {
            let mut all = [&a[..], b].concat();
            all.sort_by(f32::total_cmp);
            all
        }
        _ => Vec::new(),
    };
    assert_eq!(all(&last), [2.0, 4.0, 6.0, 8.0]);
    assert_eq!(all(&second), [0.0, 0.125, 0.25, 0.5]);
    let two = open_text(folder.path(), bare, Task::Values, &["1", "3"]).unwrap();
    assert_eq!((two.train.shape(), two.train.width()), (&[1][..], 1));
}

#[test]
fn wrong_records_of_tables_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        ("", "no records"),
        ("a,b\n", "only a header"),
        ("a,b\n1,2\n3\n", "record 2: line 3: 1 columns"),
        ("a,b\n1,2\n3,x\n", "record 2: line 3: column `b`: `x`"),
        ("1,2\n3,\"4\n", "record 2: line 2: a quote"),
        ("1,nan\n2,3\n4,5", "label NaN is no integer"),
        ("a,b\nnan,1\n3,1\n", "record 1: input `a` is NaN"),
        ("a,b\n1,1\n1e39,1\n", "record 2: input `a` is inf"),
        ("1,0\n2,1.5\n", "record 2: label 1.5 is no integer"),
        ("1,0\n2,-1\n", "label -1 is below 0"),
        ("1,x\n2,1\n", "numbers beside `x`"),
        ("1\n2\n", "leave no input"),
        ("1,2\n", "one record"),
    ];
    for (text, expected) in cases {
        let error = open_text(folder.path(), text, Task::Classes, &[]).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("table.csv"), "{text:?}: {error}");
    }
    let missing = open_text(folder.path(), "a,b\n1,2\n", Task::Classes, &["c"]).unwrap_err().to_string();
    assert!(missing.contains("no column `c`; columns: a, b"), "{missing}");
    let several = open_text(folder.path(), "a,b,c\n1,2,3\n", Task::Classes, &["b", "c"]).unwrap_err().to_string();
    assert!(several.contains("2 target columns"), "{several}");
    let path = file(folder.path(), "bytes.csv", b"1,2\n\xff,3\n");
    let (columns, holdout) = (Columns::default(), Holdout::Fraction(0.5));
    let asked = request(path.to_str().unwrap(), Task::Classes, &columns, &holdout);
    assert!(source::open(&asked).unwrap_err().to_string().contains("UTF-8 text at byte 4"));
}

fn f32_array(shape: &[usize], values: &[f32]) -> Array {
    Array::new(NpyDtype::F32, shape.to_vec(), values.iter().flat_map(|v| v.to_le_bytes()).collect()).unwrap()
}

#[test]
fn arrays_are_found_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let x = f32_array(&[4, 2], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
    let bytes = Array::new(NpyDtype::U8, vec![4, 1], vec![0, 1, 1, 2]).unwrap();
    let write = |name: &str, arrays: &[(&str, &Array)]| {
        let path = folder.path().join(name);
        npz::write_file(&path, arrays.iter().copied()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let holdout = Holdout::Fraction(0.5);
    let open = |path: &str, task, columns: &Columns| source::open(&request(path, task, columns, &holdout));
    let plain = write("plain.npz", &[("x", &x), ("y", &bytes)]);
    let data = open(&plain, Task::Classes, &Columns::default()).unwrap();
    assert_eq!((data.train.len(), data.validation.len(), data.classes()), (2, 2, Some(3)));
    let both = write("both.npz", &[("x_train", &x), ("y_train", &bytes), ("x_test", &x), ("y_test", &bytes)]);
    let data = open(&both, Task::Classes, &Columns::default()).unwrap();
    assert_eq!((data.train.len(), data.validation.len()), (4, 4));
    // Bytes are pixels as inputs, and numbers as targets.
    let named = Columns { inputs: Some("y_train".to_owned()), targets: vec!["x_train".to_owned()] };
    let data = open(&both, Task::Values, &named).unwrap();
    assert!(data.train.inputs().iter().all(|x| *x < -0.9), "{:?}", data.train.inputs());
    assert!(matches!(data.train.targets(), Targets::Values { shape, .. } if shape == &[2]));
    let absent = Columns { inputs: Some("z".to_owned()), targets: vec![] };
    let error = open(&plain, Task::Classes, &absent).unwrap_err().to_string();
    assert!(error.contains("looked for z") && error.contains("it holds x, y"), "{error}");
    let short = write("short.npz", &[("x", &x), ("y", &f32_array(&[3], &[0.0, 1.0, 2.0]))]);
    assert!(open(&short, Task::Classes, &Columns::default()).unwrap_err().to_string().contains("4 samples, but 3"));
    let nan =
        write("nan.npz", &[("x", &f32_array(&[2, 2], &[0.0, 1.0, 2.0, f32::NAN])), ("y", &f32_array(&[2], &[0.0; 2]))]);
    let error = open(&nan, Task::Classes, &Columns::default()).unwrap_err().to_string();
    assert!(error.contains("record 2: input 1 is NaN"), "{error}");
    let none = write("none.npz", &[("x", &f32_array(&[0, 2], &[])), ("y", &f32_array(&[0], &[]))]);
    assert!(open(&none, Task::Classes, &Columns::default()).unwrap_err().to_string().contains("no records"));
    let path = folder.path().join("table.npy");
    npy::write_file(&x, &path).unwrap();
    let data = open(path.to_str().unwrap(), Task::Values, &Columns::default()).unwrap();
    assert_eq!((data.train.len(), data.train.shape()), (2, &[1][..]));
    std::fs::write(folder.path().join("cut.npz"), &std::fs::read(&plain).unwrap()[..50]).unwrap();
    let cut = open(folder.path().join("cut.npz").to_str().unwrap(), Task::Classes, &Columns::default());
    assert!(cut.unwrap_err().to_string().contains("cut.npz"));
}

#[test]
fn another_file_may_judge() {
    let folder = tempfile::tempdir().unwrap();
    let train = file(folder.path(), "train.csv", b"1,0\n2,1\n3,1\n");
    let columns = Columns::default();
    let judged = |text: &[u8]| {
        let holdout = Holdout::File(file(folder.path(), "other.csv", text));
        source::open(&request(train.to_str().unwrap(), Task::Classes, &columns, &holdout))
    };
    let data = judged(b"5,1\n").unwrap();
    assert_eq!((data.train.len(), data.validation.len()), (3, 1));
    assert!(judged(b"5,6,1\n").unwrap_err().to_string().contains("other.csv: samples of shape [2]"));
}

/// `len` records whose inputs and targets are their index.
fn counted(len: usize, values: bool) -> Dataset {
    let inputs = (0..len).flat_map(|i| [i as f32, -(i as f32)]).collect();
    let targets = if values {
        Targets::Values { data: (0..len * 3).map(|i| (i / 3) as f32).collect(), shape: vec![3] }
    } else {
        Targets::Classes((0..len as i64).collect())
    };
    Dataset::new("counted", vec![2], inputs, targets).unwrap()
}

/// Records in the order that batches give them, and the sizes of the batches.
fn seen(data: &Dataset, batch: usize, order: Order, first: usize) -> (Vec<usize>, Vec<usize>) {
    let (mut rows, mut sizes) = (Vec::new(), Vec::new());
    batches::for_each(data, batch, order, first, |index, batch: Batch<'_>| -> Result<_, ()> {
        assert_eq!(index, first + sizes.len());
        assert_eq!(batch.inputs.len(), batch.len * 2);
        sizes.push(batch.len);
        for (i, x) in batch.inputs.chunks_exact(2).enumerate() {
            let target = match batch.targets {
                TargetSlice::Classes(classes) => classes[i] as f32,
                TargetSlice::Values { data, .. } => {
                    assert_eq!(data.len(), batch.len * 3);
                    data[i * 3 + 2]
                }
            };
            assert_eq!((x[0], x[1]), (target, -target));
            rows.push(target as usize);
        }
        Ok(ControlFlow::Continue(()))
    })
    .unwrap();
    (rows, sizes)
}

proptest! {
    #[test]
    fn every_record_comes_once(len in 1_usize..70, batch in 1_usize..20, epoch in 0_u64..5, values: bool, from in 0_usize..4) {
        let data = counted(len, values);
        let (rows, sizes) = seen(&data, batch, Order::Data, 0);
        prop_assert_eq!(&rows, &(0..len).collect::<Vec<_>>());
        prop_assert!(sizes[..sizes.len() - 1].iter().all(|n| *n == batch) && sizes.len() == batches::count(len, batch));
        let order = Order::Shuffled { seed: 3, epoch };
        let (mut shuffled, again) = (seen(&data, batch, order, 0).0, seen(&data, batch, order, from).0);
        // Going on within an epoch gives what is left of it.
        prop_assert_eq!(&again[..], shuffled.get(from * batch..).unwrap_or_default());
        shuffled.sort_unstable();
        prop_assert_eq!(shuffled, rows);
    }

    #[test]
    fn damaged_idx_is_refused_or_read(changes in prop::collection::vec((0_usize..60, any::<u8>()), 0..4), packed: bool) {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = idx_bytes(8, &[4, 5], &[7; 20]);
        if packed { bytes = gzip(&bytes); }
        for (at, value) in changes { if let Some(byte) = bytes.get_mut(at) { *byte = value; } }
        if let Ok(idx) = idx::read_file(&file(folder.path(), "x", &bytes)) {
            let size = idx.data.len() / idx.values().count().max(1);
            prop_assert_eq!(idx.shape.iter().product::<usize>() * size, idx.data.len());
        }
    }

    #[test]
    fn any_text_is_a_table_or_refused(text in "[0-9a,;\"\n.\t-]{0,60}") {
        if let Ok(table) = csv::parse(&text, &[], Path::new("x")) {
            prop_assert!(table.columns > 0 && table.values.len() % table.columns == 0 && !table.values.is_empty());
        }
    }
}

#[test]
fn orders_differ_by_epoch_and_by_seed_only() {
    let rows = |seed, epoch| Order::Shuffled { seed, epoch }.rows(1000).unwrap();
    assert_eq!(rows(1, 4), rows(1, 4));
    assert_ne!(rows(1, 4), rows(1, 5));
    assert_ne!(rows(1, 4), rows(2, 4));
}

#[test]
fn work_may_stop_or_fail_at_any_batch() {
    let data = counted(40, false);
    for order in [Order::Data, Order::Shuffled { seed: 0, epoch: 0 }] {
        let mut calls = 0;
        let stopped = batches::for_each(&data, 3, order, 0, |index, _| -> Result<_, String> {
            calls += 1;
            Ok(if index == 4 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        });
        assert_eq!((stopped, calls), (Ok(()), 5));
        let failed = batches::for_each(&data, 3, order, 2, |index, _| match index {
            6 => Err("six"),
            _ => Ok(ControlFlow::Continue(())),
        });
        assert_eq!(failed, Err("six"));
    }
}

#[test]
fn a_fingerprint_sees_every_part() {
    let data = counted(5, false);
    let mut other = data.clone();
    let mut inputs = other.inputs().into_owned();
    inputs[3] += 1.0;
    other.inputs = samples::Samples::Floats(inputs);
    assert_ne!(other.fingerprint(), data.fingerprint());
    let mut other = data.clone();
    other.targets = Targets::Classes(vec![0, 1, 2, 3, 3]);
    assert_ne!(other.fingerprint(), data.fingerprint());
    assert_eq!(data.clone().fingerprint(), data.fingerprint());
}

/// Fashion-MNIST as Debian has it, where it is installed.
#[test]
fn fashion_mnist_is_what_its_authors_say() {
    if !Path::new("/usr/share/datasets/fashion-mnist").is_dir() {
        eprintln!("skipped: Debian's dataset-fashion-mnist is not installed");
        return;
    }
    let (columns, holdout) = (Columns::default(), Holdout::Fraction(0.5));
    let data = source::open(&request("fashion-mnist", Task::Classes, &columns, &holdout)).unwrap();
    assert_eq!((data.train.len(), data.validation.len(), data.train.shape()), (60_000, 10_000, &[28, 28][..]));
    let Targets::Classes(labels) = data.train.targets() else { panic!("classes") };
    assert_eq!(labels[..8], [9, 0, 0, 3, 0, 2, 7, 2]);
    assert!((0..10).all(|class| labels.iter().filter(|l| **l == class).count() == 6000));
}
