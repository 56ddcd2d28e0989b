//! Every file of `tests/filetests`: an input and what the compiler makes of it. See [`frit_tests::filetest`].
//!
//! `FRIT_BLESS=1 cargo test --release -p frit-tests filetests` writes what the tests give now; review it with `git diff`.

use std::fs;
use std::path::{Path, PathBuf};

use frit_tests::filetest::{Input, Outcome, check};

const BLESS: &str = "FRIT_BLESS=1 cargo test --release -p frit-tests filetests";

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() { walk(&path, found) } else { found.push(path) }
    }
}

#[test]
fn texts_become_what_is_blessed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("filetests");
    let bless = std::env::var_os("FRIT_BLESS").is_some();
    let mut files = Vec::new();
    walk(&root, &mut files);
    files.sort();
    assert!(files.len() >= 25, "only {} files were found: the walk is broken", files.len());
    let (mut failures, mut blessed) = (Vec::new(), 0);
    for path in &files {
        let name = path.strip_prefix(&root).expect("below the root").display();
        let input = match path.extension().and_then(|e| e.to_str()) {
            Some("frit") => Input::Module,
            Some("loops") => Input::Kernel,
            _ => {
                failures.push(format!("{name}: neither .frit nor .loops"));
                continue;
            }
        };
        let text = fs::read_to_string(path).expect("a text");
        match check(&text, input, bless) {
            Ok(Outcome::Passed) => {}
            Ok(Outcome::Blessed(new)) => {
                fs::write(path, new).expect("the file can be written");
                println!("blessed {name}");
                blessed += 1;
            }
            Ok(Outcome::Skipped(why)) => println!("skipped {name}: {why}"),
            Err(why) => failures.push(format!("{name}: {why}")),
        }
    }
    println!("{} files, {blessed} of them rewritten", files.len());
    assert!(failures.is_empty(), "{}\n\nto accept what is new: {BLESS}", failures.join("\n"));
}

/// A file of one test that passes.
fn good() -> String {
    let input = "; test algebra\n\nfrit 1\nfunc @f(%x \"x\": f32[4]) {\n  %y = neg(%x)\n  %z = neg(%y)\n  return \"z\" = %z\n}\n";
    match check(input, Input::Module, true) {
        Ok(Outcome::Blessed(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_blessed_passes_and_what_differs_is_shown() {
    let text = good();
    assert!(text.contains("\n; --- test algebra\n; algebra: neg-neg 1\n"), "{text}");
    assert_eq!(check(&text, Input::Module, false), Ok(Outcome::Passed));
    assert_eq!(check(&text, Input::Module, true), Ok(Outcome::Passed), "blessing twice changes nothing");
    let other = text.replace("neg-neg 1", "neg-neg 2");
    let said = check(&other, Input::Module, false).expect_err("it differs");
    assert!(said.contains("\n-; algebra: neg-neg 2\n+; algebra: neg-neg 1\n"), "{said}");
    assert_eq!(check(&other, Input::Module, true), Ok(Outcome::Blessed(text)));
}

#[test]
fn files_that_test_nothing_are_refused() {
    let text = good();
    let said = |text: &str, input| check(text, input, false).expect_err("refused");
    let bare = text.split("\n; ---").next().expect("a part").to_owned() + "\n";
    assert!(said(&bare, Input::Module).contains("expects nothing yet"));
    let empty = bare.clone() + "\n; --- test algebra\n";
    assert!(said(&empty, Input::Module).contains("expected text is empty"));
    let with = |line: &str| bare.replacen("; test algebra", line, 1);
    assert!(said(&with("; tset algebra"), Input::Module).contains("no directive `tset`"));
    assert!(said(&with("; test algebrer"), Input::Module).contains("no test `algebrer`"));
    assert!(said(&with("; test passes \"cse,dxe\""), Input::Module).contains("no pass `dxe`"));
    assert!(said(&with("; math loose\n; test cse"), Input::Module).contains("line 1: math is strict or fast"));
    assert!(said(&with("; math fast"), Input::Module).contains("begins with no `; test"));
    assert!(said(&with("; test clif"), Input::Module).contains("needs a level of x86-64"));
    assert!(said(&with("; test error"), Input::Module).contains("nothing is refused"));
    assert!(said(&with("; test algebra"), Input::Kernel).contains("no test `algebra` of a Kernel"));
    let stray = text.clone() + "frit 1\n";
    assert!(said(&stray, Input::Module).contains("`frit 1` stands among what is expected"));
}
