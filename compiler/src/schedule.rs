//! Schedules: how the loops of a kernel run, as a plain value beside it.
//!
//! A schedule is a list of directives that name loop variables; it changes speed, never bits. Text form, one directive
//! after another: `vector i3 4; unroll i4; threads i0 64`.

use frit_ir::Symbol;

/// One choice for one loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Directive {
    /// Run `lanes` iterations at once (4, 8 or 16; the body must be straight-line).
    Vector {
        /// The loop.
        var: Symbol,
        /// Iterations at once.
        lanes: u32,
    },
    /// Write out every iteration; the extent must be known.
    Unroll {
        /// The loop.
        var: Symbol,
    },
    /// Split the outer index of a phase over threads, at least `grain` iterations each.
    Threads {
        /// The outer index.
        var: Symbol,
        /// Fewest iterations worth a thread.
        grain: u32,
    },
}

/// How the loops of one kernel run; loops without a directive run serially.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Schedule {
    /// The choices.
    pub directives: Vec<Directive>,
}

impl Schedule {
    /// Lanes of a loop, when it is to be vectorised.
    pub fn lanes(&self, loop_var: &Symbol) -> Option<u32> {
        self.directives.iter().find_map(|d| match d {
            Directive::Vector { var, lanes } if var == loop_var => Some(*lanes),
            Directive::Vector { .. } | Directive::Unroll { .. } | Directive::Threads { .. } => None,
        })
    }

    /// Whether a loop is to be written out.
    pub fn unrolls(&self, loop_var: &Symbol) -> bool {
        self.directives.iter().any(|d| matches!(d, Directive::Unroll { var } if var == loop_var))
    }

    /// Fewest iterations of a phase's outer index worth a thread.
    pub fn grain(&self, outer: &Symbol) -> Option<u32> {
        self.directives.iter().find_map(|d| match d {
            Directive::Threads { var, grain } if var == outer => Some(*grain),
            Directive::Vector { .. } | Directive::Unroll { .. } | Directive::Threads { .. } => None,
        })
    }
}
