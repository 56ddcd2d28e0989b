//! dev
use frit_compiler::driver::{Options, compile};
use frit_passes::manager::{Level, Math};
use frit_runtime::session::Model;
use std::path::Path;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let dir = Path::new(&args[1]);
    let level = Level::from_digit(args[2].parse().unwrap()).unwrap();
    let math = if args.get(3).map(|s| s.as_str()) == Some("strict") { Math::Strict } else { Math::Fast };
    let t = std::time::Instant::now();
    let module = frit_ir::onnx::load(&dir.join("model.onnx")).unwrap();
    println!("load {:?}", t.elapsed());
    let mut o =
        Options { level, math, verify_each: false, dump_dir: args.get(4).map(|s| s.into()), ..Options::default() };
    if args.get(5).is_some() {
        o.lanes = Some(4);
    }
    let compiled = match compile(module, &o) {
        Ok(c) => c,
        Err(e) => {
            println!("ERROR {e}");
            return;
        }
    };
    println!("times {:?}", compiled.times);
    for p in &compiled.report.passes {
        println!("  {} {:.2}ms {} -> {}", p.step, p.seconds * 1e3, p.ops_before, p.ops_after);
    }
    for r in &compiled.remarks {
        println!("remark {r}");
    }
    for k in &compiled.kernels {
        println!("kernel {} phases {} ({})", k.kernel.name, k.kernel.phases.len(), k.origin);
    }
    println!("steps {} code {} bytes", compiled.plan.programs[0].steps.len(), compiled.plan.code.len());
    let model = Model::new(compiled.plan).unwrap();
    let n = model.inputs().len();
    let mut tensors = vec![];
    for i in 0..n {
        let bytes = std::fs::read(dir.join(format!("test_data_set_0/input_{i}.pb"))).unwrap();
        tensors.push(frit_ir::onnx::read_tensor(&bytes).unwrap());
    }
    let inputs: Vec<(String, frit_ir::Tensor)> =
        model.inputs().iter().zip(&tensors).map(|(p, t)| (p.name.clone(), t.clone())).collect();
    let refs: Vec<(&str, &frit_ir::Tensor)> = inputs.iter().map(|(n, t)| (n.as_str(), t)).collect();
    let out = match model.run(&refs) {
        Ok(o) => o,
        Err(e) => {
            println!("RUN ERROR {e}");
            return;
        }
    };
    for (i, (name, t)) in out.iter().enumerate() {
        let bytes = std::fs::read(dir.join(format!("test_data_set_0/output_{i}.pb"))).unwrap();
        let want = frit_ir::onnx::read_tensor(&bytes).unwrap();
        let (a, b) = (t.to_vec::<f32>(), want.to_vec::<f32>());
        let m = a.iter().zip(&b).map(|(x, y)| (x - y).abs()).fold(0f32, f32::max);
        println!("{name} {:?} max abs diff {m} of {:?}", t, &b[..b.len().min(4)]);
    }
    let mut times = vec![];
    for _ in 0..50 {
        let t = std::time::Instant::now();
        let _ = model.run(&refs);
        times.push(t.elapsed());
    }
    times.sort();
    println!("median {:?}", times[25]);
}
