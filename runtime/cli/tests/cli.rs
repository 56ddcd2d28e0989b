//! The `frit` command from outside: exit statuses, the two lines of an error, the ends of reports, JSON.

#![allow(clippy::unwrap_used, reason = "helpers of tests: a file that can't be made is a failed test")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use frit_ir::builder::Builder;
use frit_ir::{DType, Dim, Function, HostValue, Module, Origin, Tensor, TensorType, UnaryOp, onnx, text};

fn frit<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    Command::new(env!("CARGO_BIN_EXE_frit")).args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs what must fail: the status, and exactly two lines on stderr.
fn fails(arguments: &[&str], status: i32) -> String {
    let output = frit(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {said}");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 2, "{arguments:?}: {said}");
    assert!(lines[0].starts_with("error: ") && lines[0].len() > 10, "{said}");
    assert!(lines[1].starts_with(" help: ") && lines[1].len() > 10, "{said}");
    said
}

/// A module y = exp(x) over [n, 3], as a file.
fn exp_model(folder: &Path) -> PathBuf {
    let mut function = Function::new("infer");
    let x = function.add_input("x", TensorType::new(DType::F32, [Dim::symbol("n"), Dim::from(3_usize)]));
    let y = Builder::new(&mut function, Origin::named("y")).unary(UnaryOp::Exp, x).unwrap();
    function.add_output("y", y);
    let path = folder.join("exp.frit");
    text::write_file(&Module::of(function), &path).unwrap();
    path
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The demo's model, which a clone holds.
fn demo_assets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo")
}

/// A case folder of the demo's model; `right` false: with an output that it does not give.
fn case(folder: &Path, name: &str, right: bool) -> PathBuf {
    let (case, assets) = (folder.join(name), demo_assets());
    let set = case.join("test_data_set_0");
    std::fs::create_dir_all(&set).unwrap();
    std::fs::copy(assets.join("model.onnx"), case.join("model.onnx")).unwrap();
    std::fs::write(case.join("data.json"), r#"{"rtol": 0.001, "atol": 0.00001}"#).unwrap();
    std::fs::copy(assets.join("input.pb"), set.join("input_0.pb")).unwrap();
    let expected = std::fs::read(assets.join("output.pb")).unwrap();
    let expected = if right {
        expected
    } else {
        let shape = onnx::read_tensor(&expected).unwrap().shape().to_vec();
        let zeros = Tensor::f32(&shape, &vec![0.0; shape.iter().product()]).unwrap();
        onnx::write_value("y", &HostValue::Tensor(zeros))
    };
    std::fs::write(set.join("output_0.pb"), expected).unwrap();
    case
}

#[test]
fn the_demo_ends_well_and_says_where_to_look_next() {
    let output = frit(["demo"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&output.stderr));
    for part in [
        "import",
        "legalize",
        "codegen",
        "check     as PyTorch computed",
        "-O3",
        "-O0",
        "train     an AF-KAN",
        "training loss",
        "validation accuracy",
        "frit inspect model.onnx",
    ] {
        assert!(text.contains(part), "`{part}` is missing:\n{text}");
    }
    // No terminal: curves of plain characters.
    assert!(text.contains("|**") && text.is_ascii(), "{text}");
    let json = frit(["demo", "--json"]);
    let record: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(record["passed"], true);
    assert!(record["max_rel_error"].as_f64().unwrap() < 1e-3);
    let training = &record["training"];
    let curve = |name: &str| {
        let values: Vec<f64> = serde_json::from_value(training[name].clone()).unwrap();
        assert_eq!(values.len() as u64, training["epochs"].as_u64().unwrap(), "{training}");
        values
    };
    let (train, validation) = (curve("train_loss"), curve("validation_loss"));
    assert!(train[train.len() - 1] < train[0] / 2.0 && validation[validation.len() - 1] < validation[0], "{training}");
    let (before, after) = (training["accuracy_before"].as_f64().unwrap(), training["accuracy"].as_f64().unwrap());
    assert!(before < 0.3 && after > 0.9 && curve("validation_accuracy").ends_with(&[after]), "{training}");
    assert_eq!(training["passed"], true);
    // The lines went to stderr; the accuracy there is the record's.
    let lines = String::from_utf8_lossy(&json.stderr).into_owned();
    assert!(lines.contains(&format!("{:.2} % before, {:.2} % after", before * 100.0, after * 100.0)), "{lines}");
}

#[test]
fn what_cannot_be_read_is_refused_in_two_lines() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, content).unwrap();
        file
    };
    assert!(fails(&["run", path(&folder.path().join("absent.onnx"))], 1).contains("absent.onnx"));
    assert!(fails(&["run", path(folder.path())], 1).contains("without model.onnx"));
    assert!(fails(&["run", path(&file("empty.onnx", ""))], 1).contains("empty"));
    assert!(fails(&["run", path(&file("model.txt", "x"))], 1).contains("model.txt"));
    assert!(fails(&["run", path(&file("noise.onnx", "not a model"))], 1).contains("noise.onnx"));
    let wrong = fails(&["run", path(&file("wrong.frit", "frit 1\nfoo bar\n"))], 1);
    assert!(wrong.contains("wrong.frit:2:1") && wrong.contains("foo bar"), "{wrong}");
}

#[test]
fn wrong_usage_exits_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let model = exp_model(folder.path());
    fails(&["run"], 2);
    fails(&["fly"], 2);
    fails(&["run", path(&model), "-O", "7"], 2);
    assert!(fails(&["run", path(&model), "--passes", "nonsense"], 2).contains("nonsense"));
    assert!(fails(&["run", path(&model), "--dim", "q=2"], 2).contains("`q`"));
    let data = folder.path().join("z.npy");
    std::fs::write(&data, "").unwrap();
    assert!(fails(&["run", path(&model), "--input", &format!("z={}", path(&data))], 2).contains("no input `z`"));
    assert!(fails(&["run", path(&model), "--input", &format!("x={}", path(&data))], 1).contains("z.npy"));
    assert!(fails(&["help", "nothing"], 2).contains("nothing"));
}

#[test]
fn a_run_makes_inputs_and_writes_outputs_and_profiles() {
    let folder = tempfile::tempdir().unwrap();
    let model = exp_model(folder.path());
    let (npz, profile) = (folder.path().join("out.npz"), folder.path().join("profile.json"));
    let output = frit(["run", path(&model), "--dim", "n=5", "--output", path(&npz), "--profile", path(&profile)]);
    let text = stdout(&output);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("input  x: f32 [5, 3], made from seed 0"), "{text}");
    let arrays = frit_runtime::data::npz::read_file(&npz).unwrap();
    assert_eq!((arrays[0].0.as_str(), arrays[0].1.shape()), ("y", &[5, 3][..]));
    let steps: serde_json::Value = serde_json::from_slice(&std::fs::read(&profile).unwrap()).unwrap();
    assert!(!steps["steps"].as_array().unwrap().is_empty());
    // The result of one run is the input of another, by name of the archive's member.
    let renamed = folder.path().join("x.npy");
    frit_runtime::data::npy::write_file(&arrays[0].1, &renamed).unwrap();
    let again = frit(["run", path(&model), "--input", &format!("x={}", path(&renamed)), "--json"]);
    let record: serde_json::Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!(record["outputs"][0]["shape"], serde_json::json!([5, 3]));
}

#[test]
fn verify_ends_with_its_count_and_fails_when_a_case_does() {
    let folder = tempfile::tempdir().unwrap();
    let (right, wrong) = (case(folder.path(), "right", true), case(folder.path(), "wrong", false));
    let output = frit(["verify", path(&right)]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stdout(&output), "PASS right\n1 passed, 0 failed, 0 skipped\n");
    let output = frit(["verify", path(&right), path(&wrong)]);
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    assert!(text.contains("\nFAIL wrong: output `y`: "), "{text}");
    assert_eq!(text.lines().last(), Some("1 passed, 1 failed, 0 skipped"));
    let output = frit(["verify", "--json", path(&right), path(&wrong)]);
    let lines: Vec<serde_json::Value> =
        stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["verdict"], &lines[1]["verdict"]), (&"passed".into(), &"failed".into()));
    assert!(lines[0]["generated"].as_u64().unwrap() > 10);
    assert_eq!(lines[2], serde_json::json!({ "passed": 1, "failed": 1, "skipped": 0 }));
}

#[test]
fn what_is_no_case_fails_and_the_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let right = case(folder.path(), "right", true);
    let (empty, file, absent) = (folder.path().join("empty"), folder.path().join("file"), folder.path().join("absent"));
    std::fs::create_dir(&empty).unwrap();
    std::fs::write(&file, "x").unwrap();
    for flag in [None, Some("--trust-code")] {
        if flag.is_some() {
            let compiled = right.join("model.fritc");
            assert!(frit(["compile", path(&right), "-o", path(&compiled)]).status.success());
        }
        let cases = [path(&empty), path(&right), path(&file), path(&absent), path(&right)];
        let output = frit(["verify"].into_iter().chain(cases).chain(flag));
        assert_eq!((output.status.code(), output.stderr.len()), (Some(1), 0), "{output:?}");
        let (text, model) = (stdout(&output), if flag.is_some() { "model.fritc" } else { "model.onnx" });
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].starts_with(&format!("FAIL empty: a folder without {model}; a test case is a folder")),
            "{text}"
        );
        assert_eq!((lines[1], lines[4]), ("PASS right", "PASS right"), "{text}");
        assert!(lines[2].starts_with("FAIL file: not a folder"), "{text}");
        assert!(lines[3].starts_with("FAIL absent: No such file"), "{text}");
        assert_eq!(lines[5], "2 passed, 3 failed, 0 skipped");
    }
    let output = frit(["verify", "--json", path(&empty), path(&right)]);
    let lines: Vec<serde_json::Value> =
        stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["verdict"], &lines[1]["verdict"]), (&"failed".into(), &"passed".into()));
    assert!(lines[0]["reason"].as_str().unwrap().contains("without model.onnx"));
}

#[test]
fn reports_are_json_and_texts_of_stages_are_there() {
    let folder = tempfile::tempdir().unwrap();
    let model = exp_model(folder.path());
    for command in ["inspect", "bench", "compile"] {
        let output = frit([command, path(&model), "--json"]);
        let record: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(record["compile_ms"].as_f64().unwrap() > 0.0, "{command}");
    }
    for (stage, part) in [("frit", "exp"), ("loops", "kernel "), ("clif", "function"), ("asm", "ret")] {
        let output = frit(["compile", path(&model), "--emit", stage]);
        assert!(output.status.success() && stdout(&output).contains(part), "{stage}: {}", stdout(&output));
    }
    let compiled = folder.path().join("exp.fritc");
    assert!(frit(["compile", path(&model), "-o", path(&compiled)]).status.success());
    let output = frit(["run", path(&compiled), "--dim", "n=2"]);
    assert!(output.status.success() && stdout(&output).contains("[2, 3]"), "{output:?}");
    std::fs::write(&compiled, "no artifact").unwrap();
    assert!(fails(&["run", path(&compiled)], 1).contains("exp.fritc"));
    let inspected = stdout(&frit(["inspect", path(&model), "--kernels", "--dim", "n=4"]));
    assert!(inspected.contains("operations  12 floating-point"), "{inspected}");
    assert!(stdout(&frit(["completions", "bash"])).contains("frit"));
    assert!(stdout(&frit(["help", "ops"])).contains("dot_general"));
    assert!(stdout(&frit(["help", "passes"])).contains("legalize"));
}

#[test]
fn models_are_emitted_as_onnx() {
    let folder = tempfile::tempdir().unwrap();
    let model = exp_model(folder.path());
    let written = folder.path().join("exp.onnx");
    let output = frit(["compile", path(&model), "--emit", "onnx", "-o", path(&written)]);
    assert!(output.status.success() && stdout(&output).starts_with("wrote "), "{output:?}");
    let piped = frit(["compile", path(&model), "--emit", "onnx"]);
    assert_eq!(piped.stdout, std::fs::read(&written).unwrap());
    let inspected = stdout(&frit(["run", path(&written), "--dim", "n=2"]));
    assert!(inspected.contains("[2, 3]"), "{inspected}");
    // The demo's network, optimised, exported and checked against PyTorch's result.
    let network = case(folder.path(), "network", true);
    let output = frit(["compile", path(&network), "--emit", "onnx", "-O3", "-o", path(&network.join("model.onnx"))]);
    assert!(output.status.success(), "{output:?}");
    assert!(frit(["verify", path(&network)]).status.success());
    let said = fails(&["compile", path(&model), "--emit", "onnx", "-o", "/no/such/folder/x.onnx"], 1);
    assert!(said.contains("/no/such/folder/x.onnx"), "{said}");
}

#[test]
fn state_is_named_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("cache.frit");
    let text = "frit 1\nfunc @infer(%0 \"past\": f32[2, T, 3], %1 \"x\": f32[2, 1, 3], %2 \"s\": f32[4]) {\n  \
                %3 = concat(%0, %1) {axis = 1} : f32[2, T + 1, 3]\n  \
                %4 = slice(%2) {sizes = [4], starts = [3], steps = [-1]} : f32[4]\n  \
                return \"present\" = %3, \"t\" = %4\n}\n";
    std::fs::write(&model, text).unwrap();
    let shown = stdout(&frit(["inspect", path(&model), "--state", "past=present", "--state", "s=t"]));
    assert!(shown.contains("state   past <- present: appended along axis 1"), "{shown}");
    assert!(shown.contains("state   s <- t: copied: kernel"), "{shown}");
    assert!(shown.contains("state: `t` of `infer` is copied over `s` instead of written in place"), "{shown}");
    let ran = frit(["run", path(&model), "--state", "past=present", "--dim", "T=5"]);
    assert!(ran.status.success() && stdout(&ran).contains("[2, 6, 3]"), "{ran:?}");
    assert!(fails(&["run", path(&model), "--state", "past=next"], 2).contains("no output `next`"));
    assert!(fails(&["run", path(&model), "--state", "past=t"], 2).contains("V13"));
}

#[test]
fn golden_cases_pass_and_the_invalid_one_is_named() {
    let shared = std::env::var_os("FRIT_SHARED").map(PathBuf::from);
    let shared = shared.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"));
    let golden = shared.join("golden/afkan");
    if !golden.is_dir() {
        println!("skipped: no golden cases; FRIT_SHARED names their folder");
        return;
    }
    let mut cases: Vec<PathBuf> =
        std::fs::read_dir(golden.join("cases")).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    let output = frit(std::iter::once(PathBuf::from("verify")).chain(cases));
    let text = stdout(&output);
    assert_eq!(text.lines().last(), Some("10 passed, 0 failed, 0 skipped"), "{text}");
    let said = fails(&["run", path(&golden.join("invalid/squeeze_of_64.onnx"))], 1);
    assert!(said.contains("Squeeze") && said.contains("axis 0") && said.contains("extent 64"), "{said}");
}

/// The JSON that a command prints, once it did its job.
fn json_of(arguments: &[&str]) -> serde_json::Value {
    let output = frit(arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn code_of_a_file_runs_only_when_it_is_trusted_and_fits() {
    let folder = tempfile::tempdir().unwrap();
    let model = exp_model(folder.path());
    let compiled = folder.path().join("exp.fritc");
    assert!(frit(["compile", path(&model), "--math", "strict", "-o", path(&compiled)]).status.success());
    for command in ["run", "bench", "inspect"] {
        let again = json_of(&[command, path(&compiled), "--json"]);
        assert_eq!(again["code"], "recompiled", "{command}");
        assert!(again["recompiled_because"].as_str().unwrap().contains("not trusted"), "{again}");
        assert!(again["compile_ms"].as_f64().unwrap() > 0.0);
        let loaded = json_of(&[command, path(&compiled), "--trust-code", "--dim", "n=2", "--json"]);
        assert_eq!((&loaded["code"], &loaded["compile_ms"]), (&"loaded".into(), &0.0.into()), "{command}");
        assert!(loaded["load_ms"].as_f64().unwrap() > 0.0);
    }
    let plain = frit(["run", path(&compiled), "--trust-code"]);
    assert!(stdout(&plain).contains("loaded as it is, nothing compiled"), "{}", stdout(&plain));
    // What is compiled again keeps its numerics.
    let strict = stdout(&frit(["compile", path(&compiled), "--emit", "loops"]));
    assert!(strict.contains("kernel ") && !strict.contains(" fast {"), "{strict}");
    // Another version of the calling convention: the four bytes after the magic.
    let mut bytes = std::fs::read(&compiled).unwrap();
    bytes[8] ^= 0xff;
    let other = folder.path().join("other.fritc");
    std::fs::write(&other, &bytes).unwrap();
    let again = json_of(&["run", path(&other), "--trust-code", "--json"]);
    assert_eq!(again["code"], "recompiled");
    assert!(again["recompiled_because"].as_str().unwrap().contains("calling convention"), "{again}");
    let said = stdout(&frit(["run", path(&other), "--trust-code"]));
    assert!(said.starts_with("code   compiled again: it keeps version "), "{said}");
    // What can't be kept is refused.
    assert!(fails(&["run", path(&model), "--trust-code"], 2).contains("holds no machine code"));
    assert!(fails(&["run", path(&compiled), "--trust-code", "-O1"], 2).contains("-O asks for other code"));
    assert!(fails(&["bench", path(&compiled), "--trust-code", "--math", "fast"], 2).contains("--math asks"));
    assert!(fails(&["run", path(&compiled), "--trust-code", "--dim", "q=1"], 2).contains("`q`; it has n"));
}

#[test]
fn inputs_that_a_file_was_compiled_for_stay_fixed() {
    let folder = tempfile::tempdir().unwrap();
    let text = "frit 1\nfunc @infer(%x \"x\": f32[6], %s \"s\": i64[2]) {\n  %y = onnx(%x, %s) {domain = \"\", \
                op_type = \"Reshape\", since_version = 14, attributes = {}} : f32[_a, _b]\n  return \"y\" = %y\n}\n";
    let model = folder.path().join("reshape.frit");
    std::fs::write(&model, text).unwrap();
    let (case, set) = (folder.path().join("case"), folder.path().join("case/test_data_set_0"));
    std::fs::create_dir_all(&set).unwrap();
    let tensor = |file: &str, tensor: Tensor| {
        let array = frit_runtime::data::Array::try_from(&tensor).unwrap();
        let file = folder.path().join(file);
        frit_runtime::data::npy::write_file(&array, &file).unwrap();
        file
    };
    let right = tensor("right.npy", Tensor::i64(&[2], &[2, 3]).unwrap());
    let other = tensor("other.npy", Tensor::i64(&[2], &[3, 2]).unwrap());
    let module = text::read_file(&model).unwrap();
    let mut options = frit_runtime::CompileOptions::default();
    options.fixed.insert("s".to_owned(), Tensor::i64(&[2], &[2, 3]).unwrap());
    let compiled = frit_runtime::Model::compile(module, &options).unwrap();
    let file = case.join("model.fritc");
    compiled.write_artifact(&file).unwrap();
    for trust in [&[][..], &["--trust-code"]] {
        // Not given, it gets the value that it must have.
        let arguments = [&["run", path(&file), "--json"], trust].concat();
        assert_eq!(json_of(&arguments)["outputs"][0]["shape"], serde_json::json!([2, 3]));
        let given = format!("s={}", path(&right));
        let arguments = [&["run", path(&file), "--json", "--input", &given], trust].concat();
        assert_eq!(json_of(&arguments)["outputs"][0]["shape"], serde_json::json!([2, 3]));
        let given = format!("s={}", path(&other));
        let said = fails(&[&["run", path(&file), "--input", &given], trust].concat(), 1);
        assert!(said.contains("`s`"), "{said}");
    }
}

#[test]
fn compiled_files_of_cases_are_verified() {
    let folder = tempfile::tempdir().unwrap();
    let (right, wrong) = (case(folder.path(), "right", true), case(folder.path(), "wrong", false));
    let output = frit(["verify", path(&right), "--trust-code"]);
    assert!(stdout(&output).starts_with("FAIL right: a folder without model.fritc"), "{output:?}");
    for case in [&right, &wrong] {
        assert!(frit(["compile", path(case), "-o", path(&case.join("model.fritc"))]).status.success());
        // It is the compiled file that is checked.
        std::fs::write(case.join("model.onnx"), "no model").unwrap();
    }
    let output = frit(["verify", "--trust-code", path(&right), path(&wrong)]);
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    assert!(text.starts_with("PASS right\nFAIL wrong: output `y`: "), "{text}");
    let output = frit(["verify", "--trust-code", "--json", path(&right)]);
    let record: serde_json::Value = serde_json::from_str(stdout(&output).lines().next().unwrap()).unwrap();
    assert_eq!((&record["code"], &record["internal"]), (&"loaded".into(), &false.into()));
    assert!(record["generated"].as_u64().unwrap() > 10);
}

#[test]
fn flags_that_cannot_be_kept_to_the_letter_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let model = exp_model(folder.path());
    let bench = |bits: &str| frit(["bench", path(&model), "--runs", "1", "--vector-bits", bits, "--json"]);
    for bits in [128, 256, 512] {
        let output = bench(&bits.to_string());
        let record: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let found = record["vector_bits"].as_u64().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(found <= bits && found >= 128, "{record}");
        assert_eq!(said.contains("which are used instead"), found < bits, "{said}");
    }
    fails(&["bench", path(&model), "--vector-bits", "64"], 2);
    // The same file on any number of threads.
    let compiled = |threads: &str| {
        let file = folder.path().join(format!("{threads}.fritc"));
        let demo = demo_assets().join("model.onnx");
        assert!(frit(["compile", path(&demo), "-o", path(&file), "--threads", threads]).status.success());
        std::fs::read(file).unwrap()
    };
    assert!(compiled("1") == compiled("3"));
    fails(&["compile", path(&model), "--threads", "0"], 2);
}

#[test]
fn dumps_hold_only_parameters_that_are_read_and_no_folders_of_the_exporter() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("m.frit");
    let text = "frit 1\nparam \"grid\" = f32[2, 3] dense(1.0, 2.0, 3.0, 1.0, 2.0, 3.0)\n\
                func @infer(%x \"x\": f32[2, 3]) {\n  %g = param {name = \"grid\"} : f32[2, 3]\n  \
                %y = add(%x, %g) at \"node\" from \"/home/someone/deep/net/mlp.py:12 in forward\"\n  return \"y\" = %y\n}\n";
    std::fs::write(&model, text).unwrap();
    let dump = folder.path().join("dump");
    let output = frit(["compile", path(&model), "--dump-ir", path(&dump)]);
    assert!(output.status.success(), "{output:?}");
    let read = |name: &str| std::fs::read_to_string(dump.join(name)).unwrap();
    assert!(read("00-import.frit").contains("param \"grid\""));
    let mut texts: Vec<_> = std::fs::read_dir(&dump).unwrap().map(|e| e.unwrap().file_name()).collect();
    texts.sort();
    let last = texts.iter().filter_map(|n| n.to_str()).rfind(|n| n.ends_with("-fuse.frit")).unwrap();
    let fused = dump.join(last);
    let last = read(last);
    assert!(!last.contains("\"grid\""), "{last}");
    assert!(last.contains("from \"net/mlp.py:12 in forward\""), "{last}");
    for file in std::fs::read_dir(&dump).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("/home/someone"));
    }
    let emitted = stdout(&frit(["compile", path(&model), "--emit", "frit"]));
    assert!(
        emitted.contains("net/mlp.py:12") && !emitted.contains("/home") && !emitted.contains("\"grid\""),
        "{emitted}"
    );
    let table = stdout(&frit(["inspect", path(&model), "--kernels"]));
    assert!(table.contains("node (net/mlp.py:12 in forward)"), "{table}");
    assert!(frit(["run", path(&fused)]).status.success());
}

#[test]
fn readers_that_go_away_cause_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    let model = exp_model(folder.path());
    let gone = |arguments: &[&str], both: bool| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_frit"));
        let (reader, writer) = std::io::pipe().unwrap();
        let errors = if both { Stdio::from(writer.try_clone().unwrap()) } else { Stdio::piped() };
        let child = command.args(arguments).stdout(writer).stderr(errors).spawn().unwrap();
        drop((command, reader));
        child.wait_with_output().unwrap()
    };
    let commands: [&[&str]; 7] = [
        &["help", "ops"],
        &["--help"],
        &["completions", "bash"],
        &["run", path(&model)],
        &["inspect", path(&model), "--kernels"],
        &["compile", path(&model), "--emit", "asm"],
        &["bench", path(&model), "--runs", "1", "--json"],
    ];
    for arguments in commands {
        let output = gone(arguments, false);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
        assert!(!said.contains("error"), "{arguments:?}: {said}");
        assert_eq!(gone(arguments, true).status.code(), Some(0), "{arguments:?}");
    }
    assert_eq!(gone(&["run", "absent.onnx"], true).status.code(), Some(1));
    assert_eq!(gone(&["fly"], true).status.code(), Some(2));
}

#[test]
fn what_cannot_be_written_is_refused_before_the_work() {
    let folder = tempfile::tempdir().unwrap();
    let model = exp_model(folder.path());
    let inside = |name: &str| folder.path().join(name);
    let absent = inside("absent/x.npz");
    for flag in ["--output", "--profile"] {
        assert!(fails(&["run", path(&model), flag, path(&absent)], 1).contains("its folder does not exist"));
    }
    std::fs::create_dir(inside("folder.npz")).unwrap();
    assert!(fails(&["run", path(&model), "--output", path(&inside("folder.npz"))], 1).contains("is a folder"));
    assert!(fails(&["run", path(&model), "--output", path(&inside("x.txt"))], 2).contains(".npz"));
    assert!(fails(&["compile", path(&model), "-o", path(&inside("absent/x.fritc"))], 1).contains("folder"));
    assert!(fails(&["compile", path(&model), "-o", path(&inside("x.onnx"))], 2).contains(".fritc"));
    assert!(
        fails(&["compile", path(&model), "--emit", "loops", "-o", path(&inside("absent/x"))], 1).contains("folder")
    );
    assert!(fails(&["run", path(&model), &format!("--json={}", path(&absent))], 1).contains("absent"));
    assert!(fails(&["run", path(&model), "--dump-ir", path(&model)], 1).contains("can't write"));
    // Text and JSON on one stream are neither.
    fails(&["compile", path(&model), "--emit", "loops", "--json"], 2);
}

#[test]
fn findings_have_a_line_each() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("lacking.frit");
    let op = |op: &str| format!("{{domain = \"\", op_type = \"{op}\", since_version = 1, attributes = {{}}}}");
    let (first, second) = (op("NoSuchOp"), op("NorThis"));
    let text = format!(
        "frit 1\nfunc @infer(%x \"x\": f32[4]) {{\n  %y = onnx(%x) {first} : f32[4] at \"one\\n\"\n  \
         %z = onnx(%y) {second} : f32[4] at \"two\"\n  return \"z\" = %z\n}}\n"
    );
    std::fs::write(&model, text).unwrap();
    let output = frit(["run", path(&model)]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!((output.status.code(), lines.len()), (Some(1), 4), "{said}");
    assert!(lines[0].starts_with("error: ") && lines[0].ends_with("lacking.frit: not supported: 2 things"), "{said}");
    assert!(lines[1].starts_with("       ai.onnx NoSuchOp (version 1): ") && lines[1].contains("node `one"), "{said}");
    assert!(lines[2].starts_with("       ai.onnx NorThis (version 1): ") && lines[2].ends_with("node `two`"), "{said}");
    assert!(lines[3].starts_with(" help: "), "{said}");
}

#[test]
fn outputs_print_as_in_numpy() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("m.frit");
    let text = "frit 1\nfunc @infer(%x \"x\": f32[n]) {\n  %a = constant {value = f32[3] dense(1e35, -2.5, 1e-7)}\n  \
                %b = constant {value = i64[2] dense(9007199254740993, -4)}\n  \
                return \"empty\" = %x, \"a\" = %a, \"b\" = %b\n}\n";
    std::fs::write(&model, text).unwrap();
    let output = frit(["run", path(&model), "--dim", "n=0"]);
    let text = stdout(&output);
    assert!(output.status.success(), "{output:?}");
    let row = |name: &str| {
        let line = text.lines().find(|l| l.trim_start().starts_with(&format!("{name} "))).unwrap_or_default();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(row("empty"), "empty f32 [0]", "{text}");
    assert_eq!(row("a"), "a f32 [3] -2.5 3.3333335e+34 1.e+35 1.e+35 -2.5 1.e-07", "{text}");
    assert_eq!(row("b"), "b i64 [2] -4 4.5035996e+15 9007199254740993 9007199254740993 -4", "{text}");
    let json = json_of(&["run", path(&model), "--dim", "n=0", "--json"]);
    assert_eq!(
        (&json["outputs"][0]["min"], &json["outputs"][0]["first"]),
        (&serde_json::Value::Null, &[0; 0][..].into())
    );
    assert_eq!(json["outputs"][1]["min"], -2.5);
}

#[test]
fn an_error_names_its_node_once() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("gather.frit");
    let text = "frit 1\nfunc @infer(%x \"x\": f32[4], %i \"i\": i64[2]) {\n  \
                %y = gather(%x, %i) {axis = 0} at \"pick\"\n  return \"y\" = %y\n}\n";
    std::fs::write(&model, text).unwrap();
    let index = folder.path().join("i.npy");
    let nine = Tensor::i64(&[2], &[0, 9]).unwrap();
    frit_runtime::data::npy::write_file(&frit_runtime::data::Array::try_from(&nine).unwrap(), &index).unwrap();
    let said = fails(&["run", path(&model), "--input", &format!("i={}", path(&index))], 1);
    assert!(said.contains(": `pick`: an index is outside") && said.matches("pick").count() == 1, "{said}");
}

#[test]
fn odd_inputs_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let model = exp_model(folder.path());
    let array = |name: &str, tensor: Tensor| {
        let file = folder.path().join(name);
        frit_runtime::data::npy::write_file(&frit_runtime::data::Array::try_from(&tensor).unwrap(), &file).unwrap();
        format!("x={}", path(&file))
    };
    let run = |given: &str, status| fails(&["run", path(&model), "--input", given], status);
    let said = run(&array("dtype.npy", Tensor::i64(&[1, 3], &[1, 2, 3]).unwrap()), 1);
    assert!(said.contains("`x`") && said.contains("i64") && said.contains("expected f32"), "{said}");
    let said = run(&array("rank.npy", Tensor::f32(&[3], &[0.0; 3]).unwrap()), 1);
    assert!(said.contains("`x`") && said.contains("expected f32[n, 3]"), "{said}");
    let four = array("extent.npy", Tensor::f32(&[1, 4], &[0.0; 4]).unwrap());
    assert!(run(&four, 1).contains("axis 1: extent 4, expected 3"));
    assert!(run("x=absent.npy", 1).contains("absent.npy"));
    assert!(run(&format!("x={}", path(folder.path())), 1).contains("is a folder"));
    assert!(run("x=", 2).contains("no value after"));
    assert!(run("=x.npy", 2).contains("no name before"));
    assert!(fails(&["run", path(&model), "--input", &four, "--input", &four], 2).contains("given twice"));
    assert!(fails(&["run", path(&model), "--dim", "n=1", "--dim", "n=2"], 2).contains("--dim n is given twice"));
    assert!(fails(&["run", path(&model), "--dim", "n=x"], 2).contains("n=x"));
    assert!(fails(&["run", path(&model), "--dim", "n=9999999999999"], 1).contains("too large"));
    let unknown = folder.path().join("unknown.frit");
    let op = "{domain = \"\", op_type = \"NoSuchOp\", since_version = 1, attributes = {}}";
    let text = format!(
        "frit 1\nfunc @infer(%x \"x\": f32[4]) {{\n  %y = onnx(%x) {op} : f32[4] at \"first\"\n  return \"y\" = %y\n}}\n"
    );
    std::fs::write(&unknown, text).unwrap();
    for command in ["run", "compile", "inspect", "bench"] {
        let said = fails(&[command, path(&unknown)], 1);
        assert!(said.contains("not supported yet: ai.onnx NoSuchOp") && said.contains("node `first`"), "{said}");
    }
}

#[test]
fn kernels_are_shown_beside_the_limits_of_the_machine() {
    let folder = tempfile::tempdir().unwrap();
    let network = case(folder.path(), "network", true);
    let output = frit(["inspect", path(&network), "--kernels", "--threads", "1", "--json"]);
    let record: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let kernels = record["kernels"].as_array().unwrap();
    let positive = |value: &serde_json::Value| value.as_f64().unwrap() > 0.0;
    assert!(kernels.iter().any(|k| k["kind"] == "library") && kernels.iter().any(|k| k["kind"] == "generated"));
    for kernel in kernels {
        for number in ["flops", "bytes_read", "bytes_written", "median_us", "predicted_us", "limit_us", "share"] {
            assert!(positive(&kernel[number]), "{number}: {kernel}");
        }
        assert!(["memory", "arithmetic"].contains(&kernel["limit"].as_str().unwrap()), "{kernel}");
        assert!(!kernel["nodes"].as_array().unwrap().is_empty(), "{kernel}");
    }
    // What the model states of its products is what is counted of them.
    let products: f64 = kernels.iter().filter(|k| k["name"] == "matmul").map(|k| k["flops"].as_f64().unwrap()).sum();
    assert_eq!(products, 2.0 * 64.0 * (64.0 * 32.0 + 32.0 * 10.0));
    let edges = record["edges"].as_array().unwrap();
    assert!(!edges.is_empty() && edges.iter().all(|e| !e["reasons"].as_array().unwrap().is_empty()), "{edges:?}");
    assert!(positive(&record["machine"]["peak_gflops"]));
    let shown = stdout(&frit(["inspect", path(&network), "--kernels", "--threads", "1"]));
    let (_, from) = shown.split_once("\nsteps: ").unwrap();
    let (steps, _) = from.split_once("\nremarks: ").unwrap();
    assert!(steps.lines().all(|line| line.chars().count() <= 120), "{steps}");
}

#[test]
fn bursts_are_timed_when_asked() {
    use std::io::Write as _;
    let folder = tempfile::tempdir().unwrap();
    let model = exp_model(folder.path());
    let serve = |asked: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_frit"));
        let command = command.args(["bench", path(&model), "--serve", "--threads", "1"]);
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = pipes.spawn().unwrap();
        child.stdin.take().unwrap().write_all(asked.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let output = serve("1\n2\n");
    let said = stdout(&output);
    let (_, answers) = said.split_once("ready\n").unwrap();
    let answers: Vec<Vec<u64>> =
        answers.lines().map(|line| line.split(' ').map(|word| word.parse().unwrap()).collect()).collect();
    assert_eq!((output.status.code(), answers.len()), (Some(0), 2), "{said}");
    assert!(answers.iter().all(|a| matches!(a[..], [best, middle, runs] if best <= middle && runs >= 3)), "{said}");
    assert_eq!(serve("soon\n").status.code(), Some(2));
}

#[test]
fn kernels_of_one_cuda_text_have_names_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let (model, made) = (folder.path().join("m.frit"), folder.path().join("m.cu"));
    // At -O0 each op is a kernel, named after the op.
    let text = "frit 1\nfunc @infer(%x \"x\": f32[8]) {\n  %a = exp(%x)\n  %b = exp(%a)\n  %c = exp(%b)\n  \
                return \"c\" = %c\n}\n";
    std::fs::write(&model, text).unwrap();
    let output = frit(["compile", path(&model), "-O0", "--emit", "cuda", "-o", path(&made)]);
    assert!(output.status.success(), "{output:?}");
    let text = std::fs::read_to_string(&made).unwrap();
    let mut names: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("extern \"C\" __global__ void ")?.split('(').next()).collect();
    assert_eq!(names.len(), 3, "{text}");
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 3, "{text}");
}

#[test]
fn new_networks_are_models_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kan.frit");
    let kan = ["new", "af-kan", "--layers", "6,5,3", "--method", "global_attn,multistep", "--combine", "quadratic"];
    let rest = ["--grid", "2", "--order", "1", "--function", "cubic1", "--norm", "batch", "--activation", "tanh"];
    let made = frit(kan.iter().chain(&rest).chain(&["--seed", "7", "--json", "-o", path(&file)]));
    let record: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    assert_eq!(record["functions"], serde_json::json!(["infer", "train"]));
    let first = std::fs::read(folder.path().join("kan.safetensors")).unwrap();
    for command in [&["run"][..], &["bench", "--runs", "3"], &["inspect", "--kernels"], &["compile"]] {
        let output = frit(command.iter().chain(&[path(&file), "--dim", "B=4"]));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{command:?}: {said}");
    }
    assert!(stdout(&frit(["run", path(&file), "--dim", "B=4"])).contains("logits"));
    // The same seed gives the same file, another seed another.
    let again = |seed: &str| {
        let made = frit(kan.iter().chain(&rest).chain(&["--seed", seed, "-o", path(&file)]));
        assert_eq!(made.status.code(), Some(0));
        std::fs::read(folder.path().join("kan.safetensors")).unwrap()
    };
    assert_eq!(again("7"), first);
    assert_ne!(again("8"), first);
    let mlp = folder.path().join("mlp.frit");
    let made = stdout(&frit(["new", "mlp", "-o", path(&mlp)]));
    assert!(made.contains("52.5 k parameters") && made.contains("infer -> logits: f32[B, 10]"), "{made}");
    let formula = std::fs::read_to_string(&mlp).unwrap();
    assert_eq!(frit(["new", "mlp", "--activation-last", "-o", path(&mlp)]).status.code(), Some(0));
    assert_ne!(std::fs::read_to_string(&mlp).unwrap(), formula);
}

#[test]
fn networks_that_cannot_be_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.frit");
    let refused = |arguments: &[&str]| {
        let all: Vec<&str> = ["new"].iter().chain(arguments).chain(&["-o", path(&file)]).copied().collect();
        fails(&all, 2)
    };
    assert!(refused(&["af-kan", "--activation", "mish"]).contains("mish"));
    assert!(refused(&["af-kan", "--layers", "784"]).contains("1 layer extents"));
    assert!(refused(&["af-kan", "--layers", "784,0,10"]).contains("layer extent 1 is 0"));
    assert!(refused(&["af-kan", "--layers", "16000000,16000000"]).contains("parameters"));
    assert!(refused(&["af-kan", "--grid", "0"]).contains("grid 0"));
    assert!(refused(&["af-kan", "--grid", "18446744073709551615"]).contains("grid 18446744073709551615"));
    assert!(refused(&["af-kan", "--grid", "1", "--order", "0", "--method", "local_attn"]).contains("local_attn"));
    refused(&["mlp", "--grid", "3"]);
    refused(&["transformer"]);
    assert!(!file.exists());
    assert!(fails(&["new", "mlp", "-o", path(&folder.path().join("x.onnx"))], 2).contains(".frit"));
    assert!(fails(&["new", "mlp", "-o", path(&folder.path().join("no/x.frit"))], 1).contains("folder"));
}
