//! Kernels: expansion keeps values, what the interpreter catches, a failing example of each rule.

use frit_ir::{BinaryOp, DType, Dim, UnaryOp};

use super::build::KernelBuilder;
use super::expand::expand;
use super::hoist::hoist;
use super::interp::{Fault, Memory, run};
use super::{Combine, Expr, Kernel, Reg, Role, Scalar, Stmt, primitive, testing, verify};

/// Whether every operation left is a primitive.
fn all_primitive(kernel: &Kernel, body: &[Stmt]) -> bool {
    body.iter().all(|s| match s {
        Stmt::Let(_, Expr::Unary(op, x)) => primitive::is_unary(*op, kernel.regs[x.0 as usize]),
        Stmt::Let(_, Expr::Binary(op, a, _)) => {
            let dtype = kernel.regs[a.0 as usize];
            matches!(op, BinaryOp::Div | BinaryOp::Rem | BinaryOp::Shl | BinaryOp::Shr)
                || primitive::is_binary(*op, dtype)
        }
        Stmt::Let(_, Expr::Cast { value, to, saturate }) => {
            primitive::is_cast(kernel.regs[value.0 as usize], *to, *saturate)
        }
        Stmt::Let(..) | Stmt::Store { .. } | Stmt::Check { .. } => true,
        Stmt::For { body, .. } | Stmt::Reduce { body, .. } => all_primitive(kernel, body),
        Stmt::If { then, otherwise, .. } => all_primitive(kernel, then) && all_primitive(kernel, otherwise),
    })
}

#[test]
fn expansion_keeps_every_bit() {
    for seed in 0..400 {
        let kernel = testing::kernel(seed);
        verify(&kernel).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        let mut expanded = kernel.clone();
        expand(&mut expanded).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        verify(&expanded).unwrap_or_else(|e| panic!("seed {seed}, expanded: {e}"));
        assert!(expanded.phases.iter().all(|p| all_primitive(&expanded, &p.body)), "seed {seed}");
        let mut before = testing::arguments(&kernel, &[3], seed);
        let mut after = before.clone();
        run(&kernel, &[3], &mut before).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        run(&expanded, &[3], &mut after).unwrap_or_else(|e| panic!("seed {seed}, expanded: {e}"));
        for (i, (a, b)) in before.iter().zip(&after).enumerate() {
            assert!(a.same(b), "seed {seed}, argument {i}:\n{a:?}\n{b:?}");
        }
    }
}

#[test]
fn hoisting_keeps_every_bit() {
    for seed in 0..400 {
        let kernel = testing::kernel(seed);
        let mut hoisted = kernel.clone();
        hoist(&mut hoisted);
        verify(&hoisted).unwrap_or_else(|e| panic!("seed {seed}, hoisted: {e}"));
        for n in [0, 3] {
            let mut before = testing::arguments(&kernel, &[n], seed);
            let mut after = before.clone();
            run(&kernel, &[n], &mut before).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            run(&hoisted, &[n], &mut after).unwrap_or_else(|e| panic!("seed {seed}, hoisted: {e}"));
            for (i, (a, b)) in before.iter().zip(&after).enumerate() {
                assert!(a.same(b), "seed {seed}, argument {i}:\n{a:?}\n{b:?}");
            }
        }
    }
}

#[test]
fn what_loops_share_is_computed_once_a_row() {
    let kernel: Kernel =
        "kernel k(in x: f32[12], in c: f32[1], in d: f32[d0], out y: f32[12], out z: f32[12]) dims(d0 = N) {
      phase i0 < 3 {
        reduce i1 < 4 {
          %0: f32 = load x[4*i0 + i1]
        } %1: f32 = sum %0
        for i2 < 4 {
          %2: f32 = load x[4*i0 + i2]
          %3: f32 = sqrt %1
          %4: f32 = load c[0]
          %5: f32 = const 2.0
          %6: f32 = mul %4, %5
          %7: f32 = mul %2, %3
          %8: f32 = mul %7, %6
          store y[4*i0 + i2] = %8
        }
        for i3 < 4 {
          %9: f32 = load y[4*i0 + i3]
          %10: f32 = sqrt %1
          %11: f32 = div %9, %10
          %12: f32 = load y[4*i0]
          %13: f32 = add %11, %12
          store z[4*i0 + i3] = %13
        }
        for i4 < d0 {
          %14: f32 = load d[0]
          %15: f32 = neg %1
          %16: f32 = add %14, %15
          store z[4*i0] = %16
        }
      }
    }"
        .parse()
        .unwrap_or_else(|e| panic!("{e}"));
    let mut hoisted = kernel.clone();
    hoist(&mut hoisted);
    verify(&hoisted).unwrap();
    let row: Vec<String> = hoisted.phases[0]
        .body
        .iter()
        .filter_map(|s| match s {
            Stmt::Let(_, Expr::Unary(op, _)) => Some(op.name().to_owned()),
            Stmt::Let(_, Expr::Binary(op, ..)) => Some(op.name().to_owned()),
            Stmt::Let(_, Expr::Load { buffer, .. }) => {
                Some(format!("load {}", hoisted.buffers[buffer.0 as usize].name))
            }
            _ => None,
        })
        .collect();
    // One root; no load of what is written; none from a loop that may not run.
    assert_eq!(row, ["sqrt", "load c", "mul", "neg"], "{hoisted}");
    let mut after = vec![
        Memory::zeros(DType::F32, 12),
        Memory::zeros(DType::F32, 1),
        Memory::zeros(DType::F32, 0),
        Memory::zeros(DType::F32, 12),
        Memory::zeros(DType::F32, 12),
    ];
    for i in 0..12 {
        after[0].set(i, Scalar::f32(i as f32 + 0.5));
    }
    after[1].set(0, Scalar::f32(3.0));
    let mut before = after.clone();
    run(&kernel, &[0], &mut before).unwrap();
    run(&hoisted, &[0], &mut after).unwrap();
    assert!(before.iter().zip(&after).all(|(a, b)| a.same(b)));
}

#[test]
fn blocks_of_a_phase_are_known_to_run() {
    let lifted = |extent: &str| {
        let text = format!(
            "kernel k(in c: f32[1], out y: f32[d0]) dims(d0 = N) {{
              phase i0 < floordiv(d0 + 7, 8) {{
                for i1 < {extent} {{
                  %0: f32 = load c[0]
                  store y[8*i0 + i1] = %0
                }}
              }}
            }}"
        );
        let mut kernel: Kernel = text.parse().unwrap_or_else(|e| panic!("{e}"));
        hoist(&mut kernel);
        matches!(kernel.phases[0].body[0], Stmt::Let(..))
    };
    assert!(lifted("8") && lifted("min(8, d0 - 8*i0)"));
    assert!(!lifted("min(8, d0 - 9*i0)") && !lifted("d0 - 8*i0 - 1") && !lifted("min(8, d0)"));
}

/// y[i] = op(x[i]) for i < 4, as one phase.
fn map(body: impl FnOnce(&mut KernelBuilder, Reg) -> Reg, index: impl FnOnce(Dim) -> Dim) -> Kernel {
    let mut b = KernelBuilder::new("map", false);
    let x = b.buffer("x", DType::F32, Dim::from(4usize), Role::Input);
    let y = b.buffer("y", DType::F32, Dim::from(4usize), Role::Output);
    b.phase(Dim::from(4usize), |b, i| {
        let value = b.load(x, i.clone());
        let value = body(b, value);
        b.push(Stmt::Store { buffer: y, index: index(i), value });
    });
    b.finish()
}

fn memories() -> Vec<Memory> {
    vec![Memory::zeros(DType::F32, 4), Memory::zeros(DType::F32, 4)]
}

#[test]
fn fast_exp_takes_few_operations() {
    let mut kernel = map(|b, x| b.unary(UnaryOp::Exp, x), |i| i);
    kernel.fast = true;
    expand(&mut kernel).expect("exp expands");
    let work = kernel.phases[0].body.iter().filter(|s| {
        !matches!(s, Stmt::Store { .. } | Stmt::Let(_, Expr::Const(_) | Expr::Load { .. } | Expr::Bitcast { .. }))
    });
    // Two comparisons fuse with their selects.
    assert_eq!(work.count(), 15);
}

#[test]
fn bounds_races_and_unwritten_elements_are_faults() {
    let outside = map(|_, x| x, |i| &i + &Dim::ONE);
    assert!(matches!(run(&outside, &[], &mut memories()), Err(Fault::Bounds { index: 4, .. })));
    let race = map(|_, x| x, |_| Dim::ZERO);
    assert!(matches!(run(&race, &[], &mut memories()), Err(Fault::Race { first: 0, second: 1, .. })));
    let mut b = KernelBuilder::new("unwritten", false);
    let y = b.buffer("y", DType::F32, Dim::from(4usize), Role::Output);
    b.phase(Dim::from(2usize), |b, i| {
        let value = b.load(y, &i + &Dim::ONE);
        b.push(Stmt::Store { buffer: y, index: i, value });
    });
    let found = run(&b.finish(), &[], &mut [Memory::zeros(DType::F32, 4)]);
    assert!(matches!(found, Err(Fault::Uninitialised { index: 1, .. })), "{found:?}");
    assert!(matches!(run(&race, &[], &mut []), Err(Fault::Arguments(_))));
}

#[test]
fn reductions_follow_the_order() {
    let values: Vec<f32> = (0..100).map(|i| 1.0 / (i as f32 + 1.0)).collect();
    let mut b = KernelBuilder::new("sum", false);
    let x = b.buffer("x", DType::F32, Dim::from(100usize), Role::Input);
    let y = b.buffer("y", DType::F32, Dim::ONE, Role::Output);
    b.phase(Dim::ONE, |b, _| {
        let sums = b.reduce(Dim::from(100usize), |b, i| vec![(b.load(x, i), Combine::Sum)]);
        b.push(Stmt::Store { buffer: y, index: Dim::ZERO, value: sums[0] });
    });
    let mut memory = Memory::zeros(DType::F32, 100);
    values.iter().enumerate().for_each(|(i, v)| memory.set(i, Scalar::f32(*v)));
    let mut arguments = [memory, Memory::zeros(DType::F32, 1)];
    run(&b.finish(), &[], &mut arguments).expect("it runs");
    let expected = frit_ir::order::tree_reduce(&values, 0.0, &|a, b| a + b);
    assert_eq!(arguments[1].get(0), Some(Scalar::f32(expected)));
}

fn broken(kernel: &Kernel) -> &'static str {
    verify(kernel).expect_err("it breaks a rule").rule
}

#[test]
fn k1_a_register_is_read_before_it_has_a_value() {
    let mut kernel = map(|_, x| x, |i| i);
    kernel.phases[0].body.reverse();
    assert_eq!(broken(&kernel), "K1");
}

#[test]
fn k1_a_register_is_assigned_twice() {
    let mut kernel = map(|_, x| x, |i| i);
    let first = kernel.phases[0].body[0].clone();
    kernel.phases[0].body.push(first);
    assert_eq!(broken(&kernel), "K1");
}

#[test]
fn k2_operand_types_differ() {
    let kernel = map(
        |b, x| {
            let one = b.constant(Scalar::i32(1));
            b.binary(BinaryOp::Add, x, one)
        },
        |i| i,
    );
    assert_eq!(broken(&kernel), "K2");
}

#[test]
fn k3_an_index_names_nothing_in_scope() {
    assert_eq!(broken(&map(|_, x| x, |_| Dim::symbol("elsewhere"))), "K3");
}

#[test]
fn k4_a_store_to_an_input() {
    let mut kernel = map(|_, x| x, |i| i);
    kernel.buffers[1].role = Role::Input;
    assert_eq!(broken(&kernel), "K4");
}

#[test]
fn kernels_print_as_they_read() {
    let mut b = KernelBuilder::new("rows", true);
    let rows = b.dim(&Dim::symbol("B"));
    let x = b.buffer("x", DType::F32, &rows * &Dim::from(4usize), Role::Input);
    let y = b.buffer("y", DType::I64, rows.clone(), Role::Output);
    let code = b.trap("row \"0\" is empty".to_owned());
    b.phase(rows, |b, row| {
        let best = b.reduce(Dim::from(4usize), |b, i| {
            let value = b.load(x, &(&row * &Dim::from(4usize)) + &i);
            let half = b.constant(Scalar::f32(0.5));
            let scaled = b.binary(BinaryOp::Mul, value, half);
            let index = b.let_(DType::I64, Expr::Index(i));
            vec![(scaled, Combine::ArgMax(index))]
        });
        let zero = b.constant(Scalar::i64(0));
        let ok = b.binary(BinaryOp::Le, zero, best[0]);
        b.push(Stmt::Check { ok, code });
        b.push(Stmt::Store { buffer: y, index: row, value: best[0] });
    });
    let expected = r#"kernel rows(in x: f32[4*d0], out y: i64[d0]) dims(d0 = B) traps("row \"0\" is empty") fast {
  phase i0 < d0 {
    reduce i1 < 4 {
      %0: f32 = load x[4*i0 + i1]
      %1: f32 = const 0.5
      %2: f32 = mul %0, %1
      %3: i64 = index [i1]
    } %4: i64 = argmax %2 at %3
    %5: i64 = const 0
    %6: bool = le %5, %4
    check %6 else 0
    store y[i0] = %4
  }
}
"#;
    assert_eq!(b.finish().to_string(), expected);
}

#[test]
fn text_reads_back_as_the_same_kernel() {
    for seed in 0..200 {
        let mut kernel = testing::kernel(seed);
        for expanded in [false, true] {
            if expanded {
                expand(&mut kernel).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            }
            let text = kernel.to_string();
            let read: Kernel = text.parse().unwrap_or_else(|e| panic!("seed {seed}: {e}\n{text}"));
            // As text too: the constants of equal kernels may be 0 and -0, those of one kernel NaN.
            assert_eq!(read.to_string(), text, "seed {seed}");
            assert_eq!(read, kernel, "seed {seed}");
        }
    }
}

/// Statements that random kernels lack, and names that are no words.
fn unusual() -> Kernel {
    let mut b = KernelBuilder::new("a \"b\"\\\n\u{1b}\u{e9}", false);
    let x = b.buffer("x", DType::Bool, Dim::ONE, Role::Input);
    let again = b.buffer("x", DType::F8E4M3FN, Dim::from(7usize), Role::Local);
    let empty = b.buffer("", DType::F32, Dim::ONE, Role::Output);
    let code = b.trap("quote \" and ; and\nline".to_owned());
    b.reg(DType::U16);
    b.phase(Dim::from(1usize), |b, i| {
        let ok = b.load(x, i.clone());
        b.push(Stmt::Check { ok, code });
        let raw = b.load(again, i.maximum(&Dim::symbol("i9")).modulo(&Dim::from(3usize)));
        b.push(Stmt::Store { buffer: again, index: Dim::ZERO, value: raw });
        b.push(Stmt::Reduce { var: b_var("i7"), extent: Dim::ONE, body: Vec::new(), accs: Vec::new() });
        let value = [f32::NAN, -0.0, f32::NEG_INFINITY, 1e-45].map(|v| b.constant(Scalar::f32(v)));
        b.constant(Scalar::f64(1e300));
        b.constant(Scalar::int(DType::U64, i128::from(u64::MAX)));
        b.constant(Scalar::i64(i64::MIN));
        b.constant(Scalar { dtype: DType::BF16, bits: 0x3f80 });
        let fma = b.fma(value[1], value[2], value[3]);
        let rescue = b.let_(DType::F32, Expr::Rescue { ok, value: fma, op: UnaryOp::Tanh, x: value[0] });
        let bits = b.bitcast(rescue, DType::I32);
        b.cast(bits, DType::I8, true);
        let store = Stmt::Store { buffer: empty, index: i.clone(), value: rescue };
        b.push(Stmt::If { condition: ok, then: Vec::new(), otherwise: vec![store] });
    });
    b.finish()
}

fn b_var(name: &str) -> frit_ir::Symbol {
    frit_ir::Symbol::new(name)
}

#[test]
fn unusual_kernels_read_back() {
    let kernel = unusual();
    let text = kernel.to_string();
    let read: Kernel = text.parse().unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(read, kernel, "{text}");
    let commented = text.replace("{\n", "{ ; a comment }\n\n");
    assert_eq!(commented.parse(), Ok(kernel));
}

#[test]
fn mutated_texts_give_a_kernel_or_an_error() {
    const PIECES: [&str; 16] = [
        "%",
        "{",
        "}",
        "(",
        ")",
        "[",
        "]",
        ",",
        "\"",
        "\\u{",
        "#9",
        "4294967295",
        "0x",
        "floordiv(",
        "reduce i1 < ",
        "\u{e9}",
    ];
    let (mut random, mut read) = (testing::Random(7), 0);
    let texts: Vec<String> =
        (0..20).map(|seed| testing::kernel(seed).to_string()).chain([unusual().to_string()]).collect();
    for _ in 0..2000 {
        let Some(text) = texts.get(random.below(texts.len())) else { continue };
        let mut chars: Vec<char> = text.chars().collect();
        for _ in 0..1 + random.below(3) {
            let at = random.below(chars.len());
            match random.below(3) {
                0 => drop(chars.drain(at..(at + 1 + random.below(6)).min(chars.len()))),
                1 => chars.truncate(at),
                _ => drop(chars.splice(at..at, random.pick(&PIECES).unwrap_or_default().chars())),
            }
        }
        match chars.into_iter().collect::<String>().parse::<Kernel>() {
            Ok(kernel) => {
                read += 1;
                let again = kernel.to_string();
                assert_eq!(again.parse::<Kernel>().map(|k| k.to_string()), Ok(again));
            }
            Err(e) => assert!(e.line > 0 && e.column > 0 && !e.message.is_empty(), "{e}"),
        }
    }
    assert!(read > 20, "{read} mutated texts were read");
}

#[test]
fn errors_in_text_say_where() {
    let error = |body: &str| {
        let text = format!("kernel k(in x: f32[4]) {{\n  phase i0 < 4 {{\n{body}\n  }}\n}}\n");
        text.parse::<Kernel>().expect_err(body).to_string()
    };
    assert_eq!(error("    %0: f32 = load y[i0]"), "line 3, column 20: the kernel has no such buffer");
    assert_eq!(error("    %0: f32 = loda x[i0]"), "line 3, column 15: there is no operation `loda`");
    assert_eq!(error("    %0: i8 = const 128"), "line 3, column 20: `128` is no constant of i8");
    assert_eq!(
        error("    %1: i8 = const 1"),
        "line 3, column 6: %0 is neither defined nor listed under `unused`, but %1 is"
    );
    assert_eq!(
        error("    %0: i8 = const 1\n    %0: u8 = const 1"),
        "line 4, column 9: %0 is i8 where it was defined before"
    );
    assert_eq!(error("    %0: f33 = const 1"), "line 3, column 9: expected an element type, found `f33`");
    let deep = "for i1 < 2 {".repeat(5000);
    assert!(error(&deep).contains("nest deeper"));
}
