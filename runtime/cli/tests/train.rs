//! `frit train`, `frit export` and `frit bench --train` from outside: what is refused, in two lines, before anything is
//! written; that a step is timed; runs that are stopped, gone on with, exported and run.

#![allow(clippy::unwrap_used, reason = "helpers of tests: a file that can't be made is a failed test")]

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use frit_ir::random::Philox;
use frit_runtime::data::{Array, NpyDtype, npy, npz};
use frit_runtime::train::Checkpoint;

fn frit(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_frit")).current_dir(folder).args(arguments).output().unwrap()
}

/// Runs what must fail: the status, and exactly two lines on stderr.
fn fails(folder: &Path, arguments: &[&str], status: i32) -> String {
    let output = frit(folder, arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {said}");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 2, "{arguments:?}: {said}");
    assert!(lines[0].starts_with("error: ") && lines[1].starts_with(" help: ") && lines[1].len() > 10, "{said}");
    said
}

#[test]
fn data_that_cannot_be_used_is_refused_by_file_and_record() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    write("bad.csv", "a,class\n1,0\n2,one\n");
    write("empty.csv", "");
    write("list.txt", "1\n");
    let refused = |data: &str, status| fails(folder, &["train", "mlp", "--layers", "1,2", "--data", data], status);
    let bad = refused("bad.csv", 1);
    assert!(bad.contains("bad.csv: record 2: line 3: column `class`: `one` is no number"), "{bad}");
    assert!(refused("empty.csv", 1).contains("no records"));
    assert!(refused("absent.npz", 1).contains("absent.npz"));
    assert!(refused("list.txt", 1).contains("neither fashion-mnist"));
    let absent = fails(folder, &["train", "af-kan", "--data", "fashion-mnist", "--data-dir", "."], 1);
    assert!(absent.contains("is not here") && absent.contains("apt-get install dataset-fashion-mnist"), "{absent}");
    // Nothing was begun.
    assert!(!folder.join("runs").exists());
}

#[test]
fn settings_without_meaning_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("t.csv"), "1,0\n2,1\n3,0\n").unwrap();
    std::fs::write(folder.join("run.toml"), "batch = 8\nspeed = 9\n").unwrap();
    assert!(fails(folder, &["train"], 2).contains("no model"));
    assert!(fails(folder, &["train", "mlp"], 2).contains("no data"));
    assert!(fails(folder, &["train", "mlp", "--data", "t.csv", "--clip-norm", "0"], 2).contains("optimizer.clip_norm"));
    assert!(fails(folder, &["train", "mlp", "--data", "t.csv", "--optimizer", "magic"], 2).contains("magic"));
    assert!(fails(folder, &["train", "mlp", "--data", "t.csv", "--resume", "x", "--out", "y"], 2).contains("--out"));
    assert!(fails(folder, &["train", "mlp", "--data", "t.csv", "--layers", "0,2"], 2).contains("extent"));
    let wrong = fails(folder, &["train", "mlp", "--data", "t.csv", "--config", "run.toml"], 1);
    assert!(wrong.contains("run.toml: line 2: unknown field `speed`"), "{wrong}");
    assert!(fails(folder, &["train", "absent.onnx", "--data", "t.csv"], 1).contains("absent.onnx"));
    assert!(fails(folder, &["train", "--resume", "nowhere"], 1).contains("nowhere"));
    let state = ["train", "mlp", "--layers", "1,2", "--data", "t.csv", "--state", "a=b"];
    assert!(fails(folder, &state, 2).contains("--state a=b"));
    assert!(fails(folder, &["bench", "mlp", "--train", "--state", "a=b"], 2).contains("--state"));
}

#[test]
fn the_help_explains_runs() {
    let folder = tempfile::tempdir().unwrap();
    let output = frit(folder.path(), &["help", "train"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for part in
        ["--data", "--resume", "fashion-mnist", "best.safetensors", "Ctrl-C", "--schedule", "one-cycle", "Recipe"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_model_is_exported_without_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo/model.onnx");
    let output = frit(folder.path(), &["export", model.to_str().unwrap(), "-o", "again.onnx", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let record: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(record["model"], "again.onnx");
    assert_eq!(frit(folder.path(), &["run", "again.onnx"]).status.code(), Some(0));
    assert!(fails(folder.path(), &["export", ".", "-o", "x.onnx"], 1).contains("model.onnx"));
    assert!(fails(folder.path(), &["export", "again.onnx", "-o", "no/x.onnx"], 1).contains("folder does not exist"));
}

/// What `frit bench --train` says as JSON.
fn step(arguments: &[&str]) -> serde_json::Value {
    let folder = tempfile::tempdir().unwrap();
    let all: Vec<&str> = ["bench", "--train", "--json"].iter().chain(arguments).copied().collect();
    let output = frit(folder.path(), &all);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

const SMALL: [&str; 4] = ["--layers", "7,5,3", "--runs", "5"];

#[test]
fn a_training_step_is_timed() {
    for model in ["af-kan", "mlp"] {
        for data in ["normal", "pixels"] {
            let record =
                step(&[&[model, "--data", data, "--threads", "2", "--vector-bits", "128"][..], &SMALL].concat());
            for number in ["median_ms", "min_ms", "compile_ms", "load_ms"] {
                assert!(record[number].as_f64().unwrap() > 0.0, "{number}: {record}");
            }
            let exact = ["runs", "threads", "vector_bits", "batch"].map(|name| record[name].as_u64().unwrap());
            assert_eq!((exact, &record["data"]), ([5, 2, 128, 64], &data.into()), "{record}");
            let [first, last] = ["loss_first", "loss_last"].map(|name| record[name].as_f64().unwrap());
            // Three classes guessed at: the loss is about ln 3. Steps on one batch learn it.
            assert!((0.5..3.0).contains(&first) && last < first, "{record}");
        }
    }
    // The same batch and network of the same seed; others of another.
    let first = |flags: &[&str]| step(&[flags, &["mlp", "--math", "strict"], &SMALL].concat())["loss_first"].clone();
    assert_eq!(first(&[]), first(&["--vector-bits", "128", "-O0"]));
    assert_ne!(first(&[]), first(&["--seed", "1"]));
    assert_ne!(first(&[]), first(&["--batch", "3"]));
}

#[test]
fn a_step_of_a_file_is_timed() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let new = frit(folder.path(), &["new", "af-kan", "--layers", "7,5,3", "-o", "kan.frit", "--seed", "4"]);
    assert_eq!(new.status.code(), Some(0));
    let file = step(&[&path("kan.frit"), "--runs", "2", "--batch", "9", "--seed", "4"]);
    let made = step(&["af-kan", "--layers", "7,5,3", "--runs", "2", "--batch", "9", "--seed", "4"]);
    assert_eq!((&file["loss_first"], &file["batch"]), (&made["loss_first"], &9.into()));
    // A batch that is fixed is the one to use.
    let fixed = step(&[&path("kan.frit"), "--runs", "2", "--dim", "B=6"]);
    assert_eq!(fixed["batch"], 6);
    let wrong = fails(folder.path(), &["bench", "kan.frit", "--train", "--batch", "7", "--dim", "B=6"], 2);
    assert!(wrong.contains("kan.frit") && wrong.contains("6 records at a time"), "{wrong}");
}

#[test]
fn a_step_is_timed_when_asked() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_frit"));
    let command = command.args(["bench", "mlp", "--train", "--layers", "7,5,3", "--serve", "--threads", "1"]);
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"1\n2\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let (_, answers) = said.split_once("ready\n").unwrap();
    let answers: Vec<Vec<u64>> =
        answers.lines().map(|line| line.split(' ').map(|word| word.parse().unwrap()).collect()).collect();
    assert_eq!((output.status.code(), answers.len()), (Some(0), 2), "{said}");
    assert!(answers.iter().all(|a| matches!(a[..], [best, middle, runs] if best <= middle && runs >= 3)), "{said}");
}

#[test]
fn a_step_that_cannot_be_timed_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let text = "frit 1\nfunc @infer(%x \"x\": f32[4, 3]) {\n  %y = exp(%x)\n  return \"y\" = %y\n}\n";
    std::fs::write(folder.join("exp.frit"), text).unwrap();
    for flags in [&["--batch", "3"][..], &["--data", "pixels"]] {
        let wrong = fails(folder, &[&["bench", "exp.frit"], flags].concat(), 2);
        assert!(wrong.contains("--train"), "{wrong}");
    }
    assert!(fails(folder, &["bench", "exp.frit", "--layers", "3,2"], 2).contains("--train"));
    let train = |flags: &[&str], status| fails(folder, &[&["bench", "--train"], flags].concat(), status);
    assert!(train(&["mlp", "--batch", "0"], 2).contains("--batch"));
    assert!(train(&["mlp", "--data", "noise"], 2).contains("noise"));
    assert!(train(&["mlp", "--input", "x=a.npy"], 2).contains("--input"));
    assert!(train(&["mlp", "--trust-code"], 2).contains("--trust-code"));
    assert!(train(&["mlp", "--layers", "0,2"], 2).contains("extent"));
    assert!(train(&["mlp", "--batch", "4000000000"], 1).contains("too many"));
    assert!(train(&["absent.frit"], 1).contains("absent.frit"));
    assert!(train(&["exp.frit"], 1).contains("exp.frit"));
}

/// Points of a square.
fn points(count: usize) -> Vec<[f32; 2]> {
    let mut random = Philox::new(3, 0);
    (0..count).map(|_| [random.uniform(-1.0, 1.0), random.uniform(-1.0, 1.0)]).collect()
}

/// Which side of the diagonal a point is on: a norm over both coordinates keeps that.
fn side([x, y]: [f32; 2]) -> usize {
    usize::from(x > y)
}

/// Records of the points, as a file.
fn sides(folder: &Path) {
    let line = |point: [f32; 2]| format!("{},{},{}\n", point[0], point[1], side(point));
    let lines: String = points(300).into_iter().map(line).collect();
    std::fs::write(folder.join("sides.csv"), format!("x,y,side\n{lines}")).unwrap();
}

/// Runs what must end well.
fn succeeds(folder: &Path, arguments: &[&str]) -> Output {
    let output = frit(folder, arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// The arguments of a run on the points.
fn on_sides<'a>(network: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["train", network, "--layers", "2,8,2", "--data", "sides.csv", "--lr", "0.05"];
    arguments.extend(["--batch", "32", "--shuffle", "--json"]);
    arguments.extend(more);
    arguments
}

/// Trains on the points; the best accuracy.
fn train(folder: &Path, network: &str, more: &[&str]) -> f64 {
    let output = succeeds(folder, &on_sides(network, more));
    let record: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(record["end"], "finished");
    record["best_validation_accuracy"].as_f64().unwrap()
}

/// Leaves out what a clock said.
fn without_times(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(fields) => {
            fields.retain(|name, _| name != "seconds" && name != "samples_per_second");
            fields.values_mut().for_each(without_times);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(without_times),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::String(_) => {}
    }
}

/// All of a checkpoint's file but times: the header, its metadata as a value, and the bytes of the tensors.
fn checkpoint(run: &Path, name: &str) -> (serde_json::Value, serde_json::Value, Vec<u8>) {
    let bytes = std::fs::read(run.join(name)).unwrap();
    let (length, rest) = bytes.split_first_chunk::<8>().unwrap();
    let (header, tensors) = rest.split_at(usize::try_from(u64::from_le_bytes(*length)).unwrap());
    let mut header: serde_json::Value = serde_json::from_slice(header).unwrap();
    let metadata = header["__metadata__"]["frit"].take();
    let mut metadata: serde_json::Value = serde_json::from_str(metadata.as_str().unwrap()).unwrap();
    without_times(&mut metadata);
    assert!(!tensors.is_empty() && !metadata["position"]["history"].as_array().unwrap().is_empty(), "{metadata}");
    (header, metadata, tensors.to_vec())
}

/// Two runs came to the same bits, in the best checkpoint and in the last.
fn same_bits(folder: &Path, a: &str, b: &str) {
    for name in ["best.safetensors", "last.safetensors"] {
        let (a, b) = (checkpoint(&folder.join(a), name), checkpoint(&folder.join(b), name));
        assert_eq!(a.0, b.0, "{name}");
        assert_eq!(a.1, b.1, "{name}");
        assert!(a.2 == b.2, "{name}: other tensors");
    }
}

/// Begins a run whose lines nobody reads: it stops after the first step of an epoch and saves.
fn stops(folder: &Path, arguments: &[&str]) {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    // JSON to a file, so that lines go to stdout.
    let arguments = arguments.iter().map(|argument| if *argument == "--json" { "--json=out.json" } else { argument });
    let mut child = Command::new(env!("CARGO_BIN_EXE_frit"))
        .current_dir(folder)
        .args(arguments)
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{said}");
    assert_eq!(said, "");
}

#[test]
fn a_run_that_is_stopped_goes_on_to_the_bits_of_one_that_was_not() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    sides(folder);
    for network in ["af-kan", "mlp"] {
        let name = |run: &str| format!("{network}-{run}");
        let position = |run: &str| Checkpoint::read_file(&folder.join(run).join("last.safetensors")).unwrap().position;
        let whole = name("whole");
        let accuracy = train(folder, network, &["--epochs", "12", "--out", &whole]);
        assert!(accuracy > 0.95, "{network}: {accuracy}");
        assert_eq!((position(&whole).epoch, position(&whole).step), (12, 96));
        // Ended at an epoch's end.
        let short = name("short");
        train(folder, network, &["--epochs", "5", "--out", &short]);
        assert_eq!(position(&short).epoch, 5);
        succeeds(folder, &["train", "--resume", &short, "--epochs", "12"]);
        same_bits(folder, &whole, &short);
        // Stopped within epochs: the first, and the one that it went on with.
        let stopped = name("stopped");
        stops(folder, &on_sides(network, &["--epochs", "12", "--out", &stopped]));
        assert_eq!((position(&stopped).epoch, position(&stopped).step), (0, 1));
        stops(folder, &["train", "--resume", &stopped]);
        assert_eq!((position(&stopped).epoch, position(&stopped).step), (0, 2));
        succeeds(folder, &["train", "--resume", &stopped]);
        same_bits(folder, &whole, &stopped);
    }
}

#[test]
fn a_run_has_the_same_bits_on_one_thread_and_on_two() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    sides(folder);
    for (network, layers, batch) in [("af-kan", "2,8,2", "32"), ("af-kan", "2,96,96,2", "240"), ("mlp", "2,64,2", "64")]
    {
        let out = |threads: &str| format!("{network}-{layers}-{threads}");
        for threads in ["1", "2"] {
            let (flags, out) = (["--data", "sides.csv", "--epochs", "3"], out(threads));
            let mut arguments = vec!["train", network, "--layers", layers, "--batch", batch, "--threads", threads];
            arguments.extend(flags);
            arguments.extend(["--out", &out]);
            succeeds(folder, &arguments);
        }
        same_bits(folder, &out("1"), &out("2"));
    }
}

/// Writes points as `x.npy`.
fn inputs(folder: &Path, points: &[[f32; 2]]) {
    let bytes = points.iter().flatten().flat_map(|x| x.to_le_bytes()).collect();
    npy::write_file(&Array::new(NpyDtype::F32, vec![points.len(), 2], bytes).unwrap(), &folder.join("x.npy")).unwrap();
}

/// Reads the only output from `out.npz`.
fn logits(folder: &Path, records: usize) -> Vec<f32> {
    let outputs = npz::read_file(&folder.join("out.npz")).unwrap();
    assert_eq!(outputs.len(), 1);
    let (name, logits) = &outputs[0];
    assert_eq!((name.as_str(), logits.shape(), logits.dtype()), ("logits", &[records, 2][..], NpyDtype::F32));
    logits.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

#[test]
fn a_trained_network_is_exported_and_run() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    sides(folder);
    let points = points(300);
    inputs(folder, &points);
    for network in ["af-kan", "mlp"] {
        let model = format!("{network}.onnx");
        let trained = train(folder, network, &["--epochs", "12", "--out", network]);
        succeeds(folder, &["export", network, "-o", &model]);
        succeeds(folder, &["run", &model, "--input", "x=x.npy", "--output", "out.npz"]);
        let logits = logits(folder, 300);
        let right = |(point, logits): &(&[f32; 2], &[f32])| side(**point) == usize::from(logits[1] > logits[0]);
        let right = points.iter().zip(logits.chunks(2)).filter(right).count();
        // The best network was judged in batches of 32, which is what bases of an AF-KAN are normalised over.
        assert!(right as f64 / 300.0 > 0.95, "{network}: {right} of 300, {trained} in training");
        // Other batches, on made-up inputs.
        let output = succeeds(folder, &["run", &model, "--dim", "B=5", "--json"]);
        let record: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(record["outputs"][0]["shape"], serde_json::json!([5, 2]));
    }
}

/// The largest difference of two lists.
fn apart(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Records to train on and to be judged by, in files of their own: the first 240 of the points, and the others.
fn parted(folder: &Path) -> Vec<[f32; 2]> {
    let points = points(300);
    for (name, points) in [("train.csv", &points[..240]), ("rest.csv", &points[240..])] {
        let lines: String = points.iter().map(|p| format!("{},{},{}\n", p[0], p[1], side(*p))).collect();
        std::fs::write(folder.join(name), format!("x,y,side\n{lines}")).unwrap();
    }
    points[..240].to_vec()
}

#[test]
fn a_calibrated_network_gives_each_record_what_it_gives_alone() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let points = parted(folder);
    let train = ["train", "af-kan", "--layers", "2,8,6,2", "--data", "train.csv", "--validation", "rest.csv"];
    succeeds(folder, &[&train[..], &["--lr", "0.05", "--batch", "32", "--epochs", "4", "--out", "run"]].concat());
    let run = |model: &str, points: &[[f32; 2]]| {
        inputs(folder, points);
        succeeds(folder, &["run", model, "--input", "x=x.npy", "--output", "out.npz"]);
        logits(folder, points.len())
    };
    let export = |model: &str, more: &[&str]| {
        let output = succeeds(folder, &[&["export", "run", "-o", model, "--json"][..], more].concat());
        let record: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (record["calibration_records"].clone(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(export("plain.onnx", &[]).0, serde_json::Value::Null);
    let (records, said) = export("whole.onnx", &["--calibrate"]);
    assert_eq!(records, 240);
    assert!(said.contains("calibrated on 240 training records"), "{said}");
    // On all that was measured on, as one batch, every layer's constants are the batch's own extremes. Where the numbers
    // that a norm takes are almost equal, it makes much of how they were rounded.
    let (plain, whole) = (run("plain.onnx", &points), run("whole.onnx", &points));
    let far = plain.iter().zip(&whole).filter(|(a, b)| (**a - **b).abs() > 1e-5).count();
    assert!(far < 24 && apart(&plain, &whole) < 5e-3, "{far} of 480, {}", apart(&plain, &whole));
    // In a part of them not, where the other network gives something else.
    let mut differs = Vec::new();
    for part in [17..20, 0..1, 100..101, 239..240] {
        let (at, points) = (2 * part.start..2 * part.end, &points[part]);
        let own = run("whole.onnx", points);
        assert!(apart(&own, &whole[at.clone()]) < 1e-5, "{own:?} {:?}", &whole[at]);
        differs.push(apart(&run("plain.onnx", points), &plain[at]));
    }
    assert!(differs.iter().all(|d| *d > 1e-4), "{differs:?}");
    // Some of the records, the same ones each time.
    let file = |name: &str| std::fs::read(folder.join(name)).unwrap();
    for model in ["some.onnx", "again.onnx"] {
        assert_eq!(export(model, &["--calibrate=40", "--dim", "B=3"]).0, 40);
    }
    assert!(file("some.onnx") == file("again.onnx"));
    let some = run("some.onnx", &points[..3]);
    assert!(apart(&some, &whole[..6]) > 1e-6, "{some:?}");
    // More than there are is all.
    assert_eq!(export("more.onnx", &["--calibrate=1000000"]).0, 240);
    assert!(file("more.onnx") == file("whole.onnx"));
}

#[test]
fn what_cannot_be_calibrated_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    parted(folder);
    let train = |network: &str, out: &str| {
        let run = ["train", network, "--data", "train.csv", "--validation", "rest.csv", "--epochs", "1", "--out", out];
        let layers = if network.contains('.') { &[][..] } else { &["--layers", "2,4,2"] };
        succeeds(folder, &[&run[..], layers].concat());
    };
    let new = ["new", "af-kan", "--no-func-norm", "--layers", "2,4,2", "-o", "kan.frit"];
    succeeds(folder, &new);
    train("af-kan", "run");
    train("mlp", "mlp");
    train("kan.frit", "file");
    let refused = |source: &str, more: &str, status| {
        let said = fails(folder, &["export", source, "-o", "x.onnx", more], status);
        assert!(said.contains("--calibrate") && !folder.join("x.onnx").exists(), "{said}");
        said
    };
    let mlp = refused("mlp", "--calibrate", 2);
    assert!(mlp.contains("mlp trains mlp, not af-kan") && mlp.contains("does not depend on its batch"), "{mlp}");
    let file = refused("file", "--calibrate", 2);
    assert!(file.contains("kan.frit, not af-kan") && file.contains("built-in network"), "{file}");
    let model = refused("kan.frit", "--calibrate=8", 2);
    assert!(model.contains("kan.frit is no folder of a run") && model.contains("frit train af-kan"), "{model}");
    assert!(refused("run", "--calibrate=0", 2).contains("0 is not in 1.."));
    assert!(fails(folder, &["export", "nowhere", "-o", "x.onnx", "--calibrate"], 1).contains("nowhere"));
    // Other data than was trained on, and none.
    let text = std::fs::read_to_string(folder.join("train.csv")).unwrap();
    std::fs::write(folder.join("train.csv"), text.clone() + "0.5,0.25,1\n").unwrap();
    let other = refused("run", "--calibrate", 1);
    assert!(other.contains("train.csv: other data than run trained on") && other.contains("config.toml"), "{other}");
    std::fs::remove_file(folder.join("train.csv")).unwrap();
    let absent = refused("run", "--calibrate", 1);
    assert!(absent.contains("train.csv: ") && absent.contains("[data] in run/config.toml"), "{absent}");
    // Found where the settings say it is now.
    std::fs::write(folder.join("moved.csv"), text).unwrap();
    let settings = folder.join("run/config.toml");
    let moved = std::fs::read_to_string(&settings).unwrap().replace("train.csv", "moved.csv");
    std::fs::write(&settings, moved).unwrap();
    succeeds(folder, &["export", "run", "-o", "x.onnx", "--calibrate"]);
}

#[test]
fn memory_is_planned_said_and_held_to_its_limit() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let lines: String = points(2500).into_iter().map(|p| format!("{},{},{}\n", p[0], p[1], side(p))).collect();
    std::fs::write(folder.join("many.csv"), lines).unwrap();
    // Wide layers and one large batch: what a step keeps for the gradient is most of what it takes.
    let wide = ["train", "mlp", "--layers", "2,512,512,512,512,512,512,512,512,2", "--data", "many.csv"];
    let wide = [&wide[..], &["--batch", "2000", "--math", "strict", "--epochs", "2"]].concat();
    let run = |out: &str, more: &[&str]| {
        let output = succeeds(folder, &[&wide[..], &["--json=record.json", "--out", out], more].concat());
        let record = std::fs::read_to_string(folder.join("record.json")).unwrap();
        let record: serde_json::Value = serde_json::from_str(&record).unwrap();
        (record, String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (free, said) = run("free", &[]);
    assert!(said.contains("planned at the peak") && said.contains("arena"), "{said}");
    let arena = free["memory"]["arena"].as_u64().unwrap();
    let peak = free["memory"]["peak"].as_u64().unwrap();
    assert!(arena > 20 << 20, "{free}");
    let page = std::fs::read_to_string(folder.join("free").join("report.html")).unwrap();
    assert!(page.contains("memory ") && page.contains(" planned"), "{page}");
    if !cfg!(target_os = "linux") {
        return;
    }
    let limit = (peak - arena / 3).to_string();
    let (held, _) = run("held", &["--memory-limit", &limit]);
    for record in [&free, &held] {
        let (planned, measured) = (&record["memory"]["peak"], &record["memory_measured"]);
        let (planned, measured) = (planned.as_f64().unwrap(), measured.as_f64().unwrap());
        assert!((planned - measured).abs() < 0.1 * measured, "planned {planned}, measured {measured}");
    }
    assert!(held["memory_measured"].as_u64().unwrap() < limit.parse().unwrap(), "{held}");
    assert!(held["memory"]["arena"].as_u64().unwrap() < arena * 2 / 3 + (1 << 20), "{held}");
    // What is computed again has the same bits.
    let last = |run: &str| Checkpoint::read_file(&folder.join(run).join("last.safetensors")).unwrap().state;
    assert!(last("free").iter().eq(last("held").iter()));
    // What can't be is refused before the run begins, with the least that it takes.
    let refused = fails(folder, &[&wide[..], &["--out", "none", "--memory-limit", "1M"]].concat(), 1);
    assert!(refused.contains("at the least; the limit is 1.0 MiB") && refused.contains("--batch"), "{refused}");
    assert!(!folder.join("none").exists());
}

#[test]
fn a_run_that_diverges_names_the_op() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    sides(folder);
    for flags in [&["--detect-anomaly"][..], &[]] {
        let out = format!("run{}", flags.len());
        let steep = ["train", "mlp", "--layers", "2,8,2", "--data", "sides.csv", "--optimizer", "sgd", "--lr", "1e25"];
        let output = frit(folder, &[&steep[..], &["--out", &out], flags].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("first not finite: `") && said.contains(" of finite operands"), "{said}");
        assert!(said.contains("` of `layers.") || said.contains("` of `loss"), "{said}");
        let last = Checkpoint::read_file(&folder.join(&out).join("last.safetensors")).unwrap();
        assert!(last.state.values().all(|t| t.to_vec::<f32>().iter().all(|x| x.is_finite())));
    }
}

/// A model that PyTorch exported, and data for it.
fn exported(name: &str) -> [String; 2] {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/training/reference").join(name);
    ["model.onnx", "data.npz"].map(|file| folder.join(file).to_str().unwrap().to_owned())
}

#[test]
fn an_onnx_model_trains_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let [model, data] = exported("resnet");
    let run =
        ["train", &model, "--data", &data, "--label", "y", "--batch", "16", "--shuffle", "--out", "run", "--json"];
    let output = succeeds(folder, &[&run[..], &["--epochs", "3", "--log-every", "2"]].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    for part in ["in 20 tensors: conv1.weight", "renews 12 running statistics", "step 2  loss "] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let record: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let counts = ["trained", "renewed", "frozen", "constant"].map(|key| record[key].as_array().unwrap().len());
    assert_eq!(counts, [20, 12, 0, 0]);
    let steps = |run: &str| {
        let text = std::fs::read_to_string(folder.join(run).join("steps.jsonl")).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.map(|line| line["step"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    // 63 of 79 records: four steps an epoch, the last on 15.
    assert_eq!(steps("run"), [2, 4, 6, 8, 10, 12]);
    // Steps that are done again are told once.
    let log = folder.join("run/steps.jsonl");
    let extra = std::fs::read_to_string(&log).unwrap().replace("\"step\":12", "\"step\":14");
    std::fs::write(&log, extra + "{\"step\":").unwrap();
    succeeds(folder, &["train", "--resume", "run", "--epochs", "4"]);
    assert_eq!(steps("run"), [2, 4, 6, 8, 10, 14, 16]);
    // The file comes back with what was trained and nothing else changed.
    succeeds(folder, &["export", "run", "-o", "back.onnx"]);
    let best = Checkpoint::read_file(&folder.join("run/best.safetensors")).unwrap();
    let load = |path: &Path| frit_ir::onnx::load(path).unwrap();
    let (before, after) = (load(Path::new(&model)), load(&folder.join("back.onnx")));
    for name in ["conv1.weight", "layer2.conv2.weight", "fc.weight"] {
        assert_eq!(after.params[name].value, best.state[name], "{name}");
        assert_ne!(after.params[name].value, before.params[name].value, "{name}");
    }
    let ports = |module: &frit_ir::Module| module.entry().unwrap().signature();
    assert_eq!(ports(&before), ports(&after));
    succeeds(folder, &["train", "back.onnx", "--data", &data, "--label", "y", "--epochs", "1", "--out", "again"]);
}

#[test]
fn models_that_cannot_be_trained_are_refused_before_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let [model, data] = exported("transformer");
    let refused = |model: &str, more: &[&str]| {
        let all = [&["train", model, "--data", &data, "--label", "y"][..], more].concat();
        let said = fails(folder, &all, 1);
        assert!(said.contains("model") && !folder.join("runs").exists(), "{said}");
        said
    };
    assert!(refused(&model, &["--target", "scores"]).contains("no output `scores`; it has `logits`"));
    assert!(refused(&model, &["--freeze", "encoder.*"]).contains("no parameter is called `encoder.*`"));
    assert!(refused(&model, &["--freeze", "*"]).contains("all are frozen"));
    // A fixed batch: 79 records are 63 and 16.
    let fixed = ["--dim", "batch=16"];
    let batch = refused(&model, &fixed);
    assert!(batch.contains("16 records at a time, a batch has 64") && batch.contains("--batch 16"), "{batch}");
    let last = refused(&model, &[&fixed[..], &["--batch", "16"]].concat());
    assert!(last.contains("of 63 training records the last batch would have 15"), "{last}");
    let [resnet, _] = exported("resnet");
    let sample = refused(&resnet, &[]);
    assert!(sample.contains("input `x`") && sample.contains("[48]"), "{sample}");
    let text =
        "frit 1\nfunc @infer(%x \"x\": f32[B, 3], %m \"m\": f32[B, 3]) {\n  %y = mul(%x, %m)\n  return \"y\" = %y\n}\n";
    std::fs::write(folder.join("model.frit"), text).unwrap();
    assert!(refused("model.frit", &[]).contains("the inputs `x`, `m`"));
}
