//! Where a run's time goes, step by step.

use std::time::Duration;

use frit_compiler::plan::{Plan, ProgramId, Step};

/// Times of the steps of a context's runs, summed.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// For each program, for each step: nanoseconds and calls.
    times: Vec<Vec<(u64, u64)>>,
}

/// The time of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepTime {
    /// The function or region.
    pub program: String,
    /// The step's place in it.
    pub step: usize,
    /// What it runs: a kernel's name, a library call, or a kind of step.
    pub name: String,
    /// The ops that it computes.
    pub origin: String,
    /// Nanoseconds over all calls; a step that runs a program includes that program's steps.
    pub nanoseconds: u64,
    /// How often it ran.
    pub calls: u64,
}

impl Profile {
    pub(super) fn new(plan: &Plan) -> Profile {
        Profile { times: plan.programs.iter().map(|p| vec![(0, 0); p.steps.len()]).collect() }
    }

    pub(crate) fn add(&mut self, program: ProgramId, step: usize, time: Duration) {
        if let Some((sum, calls)) = self.times.get_mut(program.index()).and_then(|p| p.get_mut(step)) {
            *sum = sum.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
            *calls += 1;
        }
    }

    /// Steps that ran, in order.
    pub fn steps(&self, plan: &Plan) -> Vec<StepTime> {
        let mut steps = Vec::new();
        for (program, times) in plan.programs.iter().zip(&self.times) {
            for (i, (step, (nanoseconds, calls))) in program.steps.iter().zip(times).enumerate() {
                if *calls == 0 {
                    continue;
                }
                let (name, origin) = describe(plan, step);
                let (program, nanoseconds, calls) = (program.name.clone(), *nanoseconds, *calls);
                steps.push(StepTime { program, step: i, name, origin, nanoseconds, calls });
            }
        }
        steps
    }
}

/// Name and origin of a step.
fn describe(plan: &Plan, step: &Step) -> (String, String) {
    let callee = |id: &ProgramId| plan.programs.get(id.index()).map_or("?", |p| p.name.as_str()).to_owned();
    match step {
        Step::Kernel { kernel, .. } => match plan.kernels.get(kernel.index()) {
            Some(kernel) => (kernel.name.clone(), kernel.origin.clone()),
            None => ("kernel".to_owned(), String::new()),
        },
        Step::Library { call, origin, .. } => (call.name().to_owned(), origin.clone()),
        Step::Compact { .. } => ("compact".to_owned(), String::new()),
        Step::If { origin, .. } => ("if".to_owned(), origin.clone()),
        Step::Loop { body, origin, .. } => (format!("loop {}", callee(body)), origin.clone()),
        Step::Call { program, origin, .. } => (format!("call {}", callee(program)), origin.clone()),
        Step::Assert { origin, .. } => ("assert".to_owned(), origin.clone()),
        Step::Sequence { origin, .. } => ("sequence".to_owned(), origin.clone()),
        Step::Copy { .. } => ("copy".to_owned(), String::new()),
    }
}
