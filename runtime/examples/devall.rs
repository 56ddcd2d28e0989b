//! dev
use frit_compiler::driver::Options;
use frit_passes::manager::{Level, Math};
use frit_runtime::verify::{Verdict, verify};
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let level = Level::from_digit(args[1].parse().unwrap()).unwrap();
    let math = if args[2] == "strict" { Math::Strict } else { Math::Fast };
    let o = Options { level, math, verify_each: true, ..Options::default() };
    let (mut p, mut f, mut s) = (0, 0, 0);
    for d in &args[3..] {
        let r = std::panic::catch_unwind(|| verify(std::path::Path::new(d), &o));
        let name = d.rsplit('/').next().unwrap();
        match r {
            Ok(r) => match r.verdict {
                Verdict::Passed => p += 1,
                Verdict::Failed => {
                    f += 1;
                    println!("FAIL {name}: {:.300}", format!("{:?}", r.reason))
                }
                Verdict::Skipped => {
                    s += 1;
                    println!("skip {name}: {:.300}", format!("{:?}", r.reason))
                }
            },
            Err(_) => {
                f += 1;
                println!("PANIC {name}")
            }
        }
    }
    println!("{p} passed, {f} failed, {s} skipped");
}
