//! Counts of kernels written by hand, and what follows from them.

use super::count::{Apart, Chain, count};
use super::{Level, Rates, at_work, grain};
use crate::kernel::Kernel;
use crate::schedule::Schedule;
use frit_ir::Symbol;

fn counted(kernel: &str, schedule: &str, extent: i64) -> super::count::Work {
    let kernel: Kernel = kernel.parse().unwrap();
    let schedule: Schedule = schedule.parse().unwrap();
    count(&kernel, &schedule, &|s: &Symbol| (s.name() == "d0").then_some(extent)).unwrap()
}

const POLYNOMIAL: &str = "kernel polynomial(in x: f32[64*d0], in c: f32[8], out y: f32[64*d0]) dims(d0 = N) {
  phase i0 < d0 {
    for i1 < 64 {
      %0: f32 = load x[64*i0 + i1]
      %1: f32 = load c[2]
      %2: f32 = load c[3]
      %3: f32 = fma %0, %1, %2
      %4: f32 = div %3, %0
      %5: bool = lt %4, %0
      %6: f32 = select %5, %4, %0
      store y[64*i0 + i1] = %6
    }
  }
}";

#[test]
fn what_does_not_depend_on_the_lane_is_counted_once() {
    let work = counted(POLYNOMIAL, "vector i1 16; threads i0 4", 10);
    let phase = &work.phases[0];
    let strip = &phase.strips[0];
    assert_eq!((strip.calls, strip.extent, strip.parameters, strip.chain), (10.0, 64.0, 2.0, None));
    let body = strip.body;
    assert_eq!((body.products, body.sums, body.others, body.divisions), (1.0, 0.0, 2.0, 1.0));
    assert_eq!((body.loads, body.stores, phase.scalar.loads), (1.0, 1.0, 20.0));
    assert_eq!(work.flops(), 3.0 * 640.0);
    assert_eq!(phase.grain, 4);
}

#[test]
fn a_buffer_counts_what_can_be_reached_once() {
    let work = counted(POLYNOMIAL, "vector i1 16", 10);
    let bytes: Vec<(f64, f64)> = work.arguments.iter().map(|t| (t.read, t.written)).collect();
    assert_eq!(bytes, [(2560.0, 0.0), (8.0, 0.0), (0.0, 2560.0)]);
}

#[test]
fn without_a_directive_a_loop_runs_one_element_at_a_time() {
    let work = counted(POLYNOMIAL, "", 10);
    let phase = &work.phases[0];
    assert!(phase.strips.is_empty());
    assert_eq!((phase.scalar.products, phase.scalar.divisions, phase.rounds), (640.0, 640.0, 650.0));
    assert_eq!(work.flops(), 3.0 * 640.0);
    let rates = Rates::typical();
    assert!(rates.serial(phase) > 4.0 * rates.serial(&counted(POLYNOMIAL, "vector i1 16", 10).phases[0]));
}

const COLUMNS: &str = "kernel columns(in x: f32[1024*d0], out y: f32[1024]) dims(d0 = N) {
  phase i0 < 1024 {
    reduce i1 < d0 {
      %0: f32 = load x[1024*i1 + i0]
    } %1: f32 = sum %0
    store y[i0] = %1
  }
}";

#[test]
fn elements_apart_and_accumulators_show() {
    let work = counted(COLUMNS, "vector i1 16", 512);
    let strip = &work.phases[0].strips[0];
    let access = Apart { distance: 4096.0, whole: 4096.0 * 512.0 };
    assert_eq!((strip.apart.as_slice(), strip.chain, strip.body.loads), (&[access][..], Some(Chain::Sum), 0.0));
    assert_eq!(work.flops(), 1024.0 * 512.0);
}

#[test]
fn lines_of_a_walk_that_share_sets_do_not_fit() {
    let level = |name, bytes, read| Level { name, bytes, read, write: read };
    let alone = vec![level("L1", 32768.0, 0.001), level("L2", 1048576.0, 0.02), level("DRAM", f64::INFINITY, 0.1)];
    let rates = Rates { alone, ..Rates::typical() };
    let walk = |extent, distance| rates.walk(extent, Apart { distance, whole: 0.0 });
    // 512 lines of 64 bytes fill the first cache, unless they are 4096 bytes apart; then its sets hold 8.
    assert_eq!(walk(512.0, 68.0), rates.apart);
    assert_eq!(walk(8.0, 4096.0), rates.apart);
    assert_eq!(walk(16.0, 4096.0), 64.0 * 0.02);
    assert_eq!(walk(1024.0, 4096.0), rates.far);
}

#[test]
fn a_dear_iteration_is_worth_a_thread_earlier() {
    let rates = Rates::typical();
    let cheap = counted(POLYNOMIAL, "vector i1 16", 1000);
    let dear = counted(COLUMNS, "vector i1 16", 4096);
    let (cheap, dear) = (grain(&cheap.phases[0], &rates), grain(&dear.phases[0], &rates));
    assert!(dear < 4 && cheap > 50, "{dear} {cheap}");
}

#[test]
fn threads_have_as_many_tiles_as_the_executor_makes() {
    let mut phase = counted(POLYNOMIAL, "vector i1 16; threads i0 100", 250).phases.remove(0);
    assert_eq!(at_work(&phase, 1), 1.0);
    assert_eq!(at_work(&phase, 2), 2.0);
    assert_eq!(at_work(&phase, 4), 2.0);
    phase.grain = 80;
    assert_eq!(at_work(&phase, 2), 1.5);
}
