//! State: whatever is donated, steps give what runs without state give.
//!
//! Small programs say which outputs are written in place and why others are not; random modules check that the choice
//! never shows in a result.

use std::sync::Arc;

use frit_compiler::cpu::Vectors;
use frit_compiler::driver::{Compiled, Options, compile};
use frit_compiler::plan::StateForm;
use frit_ir::builder::Builder;
use frit_ir::{DType, Donation, Function, HostValue, Module, Op, Origin, Tensor, UnaryOp, Value, text};
use frit_passes::manager::{Level, Math};
use frit_runtime::pool::Pool;
use frit_runtime::{InputRef, Model, RunError, StateBuffer};
use frit_tests::Case;

use super::random::{number, size};

const LEVELS: [Level; 2] = [Level::O0, Level::O3];

fn compiled(module: &Module, level: Level) -> Result<Compiled, String> {
    let options = Options { level, math: Math::Strict, ..Options::default() };
    compile(module.clone(), &options).map_err(|e| format!("{level:?}: {e}"))
}

fn model(text: &str, level: Level) -> (Model, Vec<String>) {
    let module = text::from_text(text, &text::NoConstants).expect("a text that reads");
    let compiled = compiled(&module, level).expect("a plan");
    let remarks = compiled.remarks.into_iter().filter(|r| r.starts_with("state:")).collect();
    (Model::new(compiled.plan).expect("a model").with_pool(Arc::new(Pool::new(2))), remarks)
}

fn f32s(shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::f32(shape, values).expect("as many values as the shape holds")
}

fn in_place(model: &Model) -> Vec<bool> {
    model.states().iter().map(|s| matches!(s.form, StateForm::InPlace { .. })).collect()
}

/// Steps a model from a first state, checks that buffers stay where they are, gives the states after each step.
fn steps(model: &Model, first: &[Tensor], inputs: &[Tensor], count: usize) -> Vec<Vec<Tensor>> {
    let buffer = |(i, t): (usize, &Tensor)| StateBuffer::new(model, i, t.into()).expect("a buffer");
    let mut states: Vec<StateBuffer> = first.iter().enumerate().map(buffer).collect();
    let places: Vec<*const u8> = states.iter().map(|s| s.bytes().as_ptr()).collect();
    let mut context = model.context();
    let inputs: Vec<InputRef<'_>> = inputs.iter().map(InputRef::from).collect();
    (0..count)
        .map(|_| {
            context.step(&inputs, &mut states).expect("a step");
            let now: Vec<*const u8> = states.iter().map(|s| s.bytes().as_ptr()).collect();
            assert_eq!(now, places, "state of one size never moves");
            states.iter().map(|s| s.to_tensor().expect("a value")).collect()
        })
        .collect()
}

#[test]
fn a_counter_and_a_running_mean_are_written_in_place() {
    let source = r#"frit 1
func @infer(%0 "count": i64[], %1 "mean": f32[N], %2 "x": f32[N]) {
  donate 0 -> 0
  donate 1 -> 1
  %3 = constant {value = i64[] dense(1)}
  %4 = add(%0, %3)
  %5 = constant {value = f32[] dense(0.5)}
  %6 = broadcast(%5) {axes = [], dims = [N]} : f32[N]
  %7 = mul(%1, %6)
  %8 = mul(%2, %6)
  %9 = add(%7, %8)
  %10 = sub(%2, %1)
  return "next" = %4, "new_mean" = %9, "off" = %10
}
"#;
    for level in LEVELS {
        let (model, remarks) = model(source, level);
        // At -O0 the difference would be computed after the mean: the mean waits for it.
        assert_eq!((in_place(&model), remarks), (vec![true, true], vec![]), "{level:?}");
        let n = 5000;
        let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
        let first = [Tensor::i64(&[], &[40]).expect("a scalar"), f32s(&[n], &vec![1.0; n])];
        let after = steps(&model, &first, &[f32s(&[n], &x)], 3);
        assert_eq!(after[2][0].to_vec::<i64>(), [43], "{level:?}");
        let expected: Vec<f32> = x.iter().map(|x| x * 0.875 + 0.125).collect();
        assert_eq!(after[2][1].to_vec::<f32>(), expected, "{level:?}");
    }
}

#[test]
fn what_is_read_elsewhere_or_later_is_copied_with_the_reason() {
    let head = "frit 1\nfunc @infer(%0 \"s\": f32[N]) {\n  donate 0 -> 0\n";
    let reversed = "  %1 = slice(%0) {sizes = [N], starts = [N - 1], steps = [-1]} : f32[N]\n";
    let cases = [
        (format!("{head}{reversed}  return \"t\" = %1\n}}\n"), "reads other elements of the input than it writes"),
        // The second output needs both: its reader can't come first.
        (
            format!(
                "{head}{reversed}  %2 = exp(%0)\n  %3 = cumulate(%2) {{axis = 0, exclusive = false, kind = #sum, reverse = false}} : f32[N]\n  \
                 %4 = sub(%0, %3)\n  return \"t\" = %3, \"u\" = %4\n}}\n"
            ),
            "reads the input after the output is written",
        ),
        (format!("{head}  %1 = exp(%0)\n  return \"t\" = %1, \"u\" = %1\n}}\n"), "output `u` is the same value"),
    ];
    for level in LEVELS {
        for (source, reason) in &cases {
            let (model, remarks) = model(source, level);
            assert_eq!(in_place(&model), [false], "{level:?}\n{source}");
            assert!(remarks.len() == 1 && remarks[0].contains(reason), "{level:?}: {remarks:?}");
            let first = f32s(&[3], &[0.5, -1.0, 2.0]);
            let mut expected = first.clone();
            let mut context = model.context();
            for after in steps(&model, std::slice::from_ref(&first), &[], 4) {
                context.run(&[(&expected).into()]).expect("a run");
                expected = context.output_tensor("t").expect("t");
                assert_eq!(after, [expected.clone()], "{level:?}\n{source}");
            }
        }
    }
}

#[test]
fn states_that_change_places_keep_their_values() {
    let source = "frit 1\nfunc @infer(%0 \"a\": f32[2], %1 \"b\": f32[2]) {\n  donate 0 -> 0\n  donate 1 -> 1\n  \
                  return \"c\" = %1, \"d\" = %0\n}\n";
    for level in LEVELS {
        let (model, remarks) = model(source, level);
        assert_eq!((in_place(&model), remarks.len()), (vec![true, false], 1), "{level:?}");
        let (a, b) = (f32s(&[2], &[1.0, 2.0]), f32s(&[2], &[3.0, 4.0]));
        let after = steps(&model, &[a.clone(), b.clone()], &[], 3);
        assert_eq!(after, [vec![b.clone(), a.clone()], vec![a.clone(), b.clone()], vec![b, a]], "{level:?}");
    }
}

#[test]
fn any_number_of_rows_is_appended() {
    let source = r#"frit 1
func @infer(%0 "past": f32[T, 2], %1 "new": f32[n, 2]) {
  donate 0 -> 0
  %2 = concat(%0, %1) {axis = 0} : f32[T + n, 2]
  %3 = reduce(%2) {axes = [0], kind = #sum} : f32[2]
  return "all" = %2, "sum" = %3
}
"#;
    for level in LEVELS {
        let (model, remarks) = model(source, level);
        assert!(remarks.is_empty() && matches!(model.states()[0].form, StateForm::Append { axis: 0, .. }));
        let mut context = model.context();
        let mut state = [StateBuffer::with_capacity(&model, 0, (&f32s(&[0, 2], &[])).into(), 8).expect("a buffer")];
        let place = state[0].bytes().as_ptr();
        let mut all: Vec<f32> = Vec::new();
        for rows in [3usize, 0, 1, 4] {
            let new: Vec<f32> = (0..rows * 2).map(|i| (all.len() + i) as f32).collect();
            context.step(&[(&f32s(&[rows, 2], &new)).into()], &mut state).expect("a step");
            all.extend(new);
            let view = state[0].view().expect("no gaps: nothing lies before the axis");
            assert_eq!(view.to_tensor().expect("a tensor").to_vec::<f32>(), all, "{level:?}");
            let sums = [0, 1].map(|c| all.iter().skip(c).step_by(2).sum::<f32>());
            assert_eq!(context.output_tensor("sum").expect("a sum").to_vec::<f32>(), sums, "{level:?}");
        }
        assert_eq!((state[0].bytes().as_ptr(), state[0].capacity()), (place, 8));
        state[0].truncate(1);
        context.step(&[(&f32s(&[1, 2], &[9.0, 9.0])).into()], &mut state).expect("a step");
        assert_eq!(state[0].to_tensor().expect("a value").to_vec::<f32>(), [0.0, 1.0, 9.0, 9.0]);
    }
}

#[test]
fn state_that_does_not_fit_is_named() {
    let source = r#"frit 1
func @infer(%0 "past": f32[B, T, 2], %1 "new": f32[B, 1, 2], %2 "s": f32[B]) {
  donate 0 -> 0
  donate 2 -> 1
  %3 = concat(%0, %1) {axis = 1} : f32[B, T + 1, 2]
  %4 = exp(%2)
  return "all" = %3, "t" = %4
}
"#;
    let (model, _) = model(source, Level::O3);
    let past = f32s(&[2, 1, 2], &[0.0; 4]);
    let buffer = |i: usize, t: &Tensor| StateBuffer::with_capacity(&model, i, t.into(), 4);
    assert!(matches!(buffer(2, &past), Err(RunError::ExtraInput(_))));
    let error = buffer(1, &past).expect_err("another rank").to_string();
    assert!(error.starts_with("input `s`: shape [2, 1, 2]"), "{error}");
    let ints = Tensor::i64(&[2], &[1, 2]).expect("integers");
    let error = buffer(1, &ints).expect_err("another type").to_string();
    assert!(error.starts_with("input `s`: element type i64"), "{error}");
    let mut context = model.context();
    let new = f32s(&[2, 1, 2], &[1.0; 4]);
    let s = f32s(&[2], &[0.0; 2]);
    let mut states = [buffer(0, &past).expect("a buffer"), buffer(1, &s).expect("a buffer")];
    assert!(context.step(&[(&new).into()], &mut states[..1]).is_err(), "one state is missing");
    assert!(matches!(context.step(&[], &mut states), Err(RunError::MissingInput { .. })));
    assert!(context.step(&[(&new).into(), (&s).into()], &mut states).is_err(), "one input too many");
    states.reverse();
    let error = context.step(&[(&new).into()], &mut states).expect_err("states in another order").to_string();
    assert!(error.starts_with("state of input `s`: it is no state for input `past`"), "{error}");
    states.reverse();
    // What is refused before the first step leaves state as it was.
    let error = context.step(&[(&f32s(&[3, 1, 2], &[0.0; 6])).into()], &mut states).expect_err("another batch");
    assert!(matches!(error, RunError::Extent { .. }), "{error}");
    context.step(&[(&new).into()], &mut states).expect("a step");
    assert_eq!(states[0].shape(), [2, 2, 2]);
    assert_eq!(states[0].to_tensor().expect("a value").to_vec::<f32>(), [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0]);
    assert!(states[0].view().is_none(), "rows of two batches lie apart");
    // No room and no memory for more.
    context.set_memory_limit(64);
    states[0].truncate(4);
    for _ in 0..2 {
        context.step(&[(&new).into()], &mut states).expect("there is room");
    }
    let error = context.step(&[(&new).into()], &mut states).expect_err("more than the limit").to_string();
    assert!(error.contains("the state of input `past`") && error.contains("the limit is 64"), "{error}");
    assert_eq!(states[0].shape(), [2, 4, 2]);
    // Extents that no tensor can have, with no elements.
    let vast = Tensor::f32(&[usize::MAX, 0, 2], &[]).expect("no elements");
    assert!(matches!(buffer(0, &vast), Err(RunError::Limit { .. })));
}

#[test]
fn a_step_that_fails_half_way_spoils_state() {
    let source = r#"frit 1
func @infer(%0 "s": f32[N], %1 "ok": bool[]) {
  donate 0 -> 0
  %2 = exp(%0)
  %3 = assert(%2, %1) {message = "not ok"} : f32[N]
  return "t" = %3
}
"#;
    let (model, _) = model(source, Level::O0);
    assert_eq!(in_place(&model), [true]);
    let flag = |ok: u8| Tensor::from_bytes(DType::Bool, &[], &[ok]).expect("a flag");
    let first = f32s(&[1], &[0.0]);
    let mut state = [StateBuffer::new(&model, 0, (&first).into()).expect("a buffer")];
    let mut context = model.context();
    assert!(matches!(context.step(&[(&flag(0)).into()], &mut state), Err(RunError::Assertion { .. })));
    assert!(matches!(context.step(&[(&flag(1)).into()], &mut state), Err(RunError::State { .. })));
    state[0].set((&first).into()).expect("a value");
    context.step(&[(&flag(1)).into()], &mut state).expect("a step");
    assert_eq!(state[0].to_tensor().expect("a value").to_vec::<f32>(), [1.0]);
}

/// Donates inputs of a random module: to outputs of their type, or to a `concat` that this adds. Others are read as
/// before, so that whatever a module does with its inputs meets memory that is written over or has gaps.
fn donate(module: &mut Module) -> usize {
    let name = module.entry().map(|f| f.name.clone()).unwrap_or_default();
    let Some(f) = module.functions.get_mut(&name) else { return 0 };
    let inputs: Vec<Value> = f.input_values().collect();
    let mut taken: Vec<usize> = Vec::new();
    for (i, input) in inputs.iter().enumerate() {
        let ty = f.ty(*input).clone();
        let fits = |o: &usize| !taken.contains(o) && *f.ty(f.outputs()[*o].value) == ty;
        if let Some(output) = (0..f.outputs().len()).find(fits) {
            taken.push(output);
            f.donations.push(Donation { input: i, output });
            continue;
        }
        let Some(rank) = ty.tensor().map(|t| t.rank()).filter(|r| *r > 0) else { continue };
        let Some((grown, other)) = append(f, *input, i % rank) else { continue };
        let output = f.outputs().len();
        f.add_output(&format!("grown{i}"), grown);
        f.add_output(&format!("read{i}"), other);
        taken.extend([output, output + 1]);
        f.donations.push(Donation { input: i, output });
    }
    f.donations.len()
}

/// concat(x, x) along an axis, and something that reads it.
fn append(f: &mut Function, x: Value, axis: usize) -> Option<(Value, Value)> {
    let mut b = Builder::new(f, Origin::named("append"));
    let grown = b.op(Op::Concat { axis }, &[x, x]).ok()?;
    let rank = b.tensor(grown).ok()?.rank();
    let turned = b.transpose(grown, (0..rank).rev().collect()).ok()?;
    let other = match b.tensor(grown).ok()?.dtype {
        DType::F32 => b.unary(UnaryOp::Neg, turned).ok()?,
        _ => turned,
    };
    Some((grown, other))
}

/// A step of a model, capacity beyond what is needed: all outputs, those that are state from their buffers.
fn step(model: &Model, inputs: &[HostValue]) -> Result<Vec<HostValue>, String> {
    let mut states = Vec::new();
    for (i, state) in model.states().iter().enumerate() {
        let value = inputs[state.input as usize].tensor().ok_or("a host value is donated")?;
        let room = value.shape().iter().max().map_or(0, |d| 2 * d + 3);
        states.push(StateBuffer::with_capacity(model, i, value.into(), room).map_err(|e| e.to_string())?);
    }
    let donated = |i: &usize| model.states().iter().any(|s| s.input as usize == *i);
    let rest: Vec<InputRef<'_>> = (0..inputs.len()).filter(|i| !donated(i)).map(|i| (&inputs[i]).into()).collect();
    let mut context = model.context();
    context.step(&rest, &mut states).map_err(|e| e.to_string())?;
    let output = |o: usize| match model.states().iter().position(|s| s.output as usize == o) {
        Some(i) => states[i].to_tensor().map(HostValue::Tensor).map_err(|e| e.to_string()),
        None => context.output(o).and_then(|o| o.to_host()).map_err(|e| e.to_string()),
    };
    (0..model.outputs().len()).map(output).collect()
}

#[test]
fn donated_inputs_of_random_modules_never_show() {
    let (count, start) = (number("FRIT_RANDOM_MODULES", 2000) / 4, number("FRIT_RANDOM_SEED", 1));
    let pool = Arc::new(Pool::new(2));
    let mut forms = [0usize; 3];
    for seed in start..start + count {
        let Case { mut module, inputs } = Case::random(seed, size(seed)).expect("a module that type-checks");
        if donate(&mut module) == 0 {
            continue;
        }
        let case = Case { module, inputs };
        let mut without = case.clone();
        without.module.functions.values_mut().for_each(|f| f.donations.clear());
        let expected = without.run(Level::O0, Math::Strict, Vectors::Widest, &pool).expect("a run without state");
        for level in LEVELS {
            let failed = |what: &str| format!("seed {seed}, {level:?}: {what}\n{}", case.text());
            let plan = compiled(&case.module, level).unwrap_or_else(|e| panic!("{}", failed(&e))).plan;
            plan.check().unwrap_or_else(|e| panic!("{}", failed(&e)));
            let model = Model::new(plan).expect("a model").with_pool(pool.clone());
            for state in model.states() {
                forms[match state.form {
                    StateForm::InPlace { .. } => 0,
                    StateForm::Append { .. } => 1,
                    StateForm::Copied { .. } => 2,
                }] += 1;
            }
            let plain = case.run_on(&model).unwrap_or_else(|e| panic!("{}", failed(&e)));
            assert!(plain == expected, "{}", failed("a run has other bits"));
            let stepped = step(&model, &case.inputs).unwrap_or_else(|e| panic!("{}", failed(&e)));
            assert!(stepped == expected, "{}", failed("a step has other bits"));
        }
    }
    println!("{} in place, {} appended, {} copied", forms[0], forms[1], forms[2]);
    assert!(count < 100 || forms.iter().all(|n| *n > 20), "{forms:?}: some form is hardly tested");
}
