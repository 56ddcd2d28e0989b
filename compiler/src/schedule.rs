//! Schedules: how the loops of a kernel run, as a plain value beside it.
//!
//! A schedule is a list of directives that name loop variables; it changes speed, never bits. Text form, one directive
//! after another: `vector i3 4; unroll i4; block i0 4; threads i0 64`.

use std::fmt;
use std::str::FromStr;

use frit_ir::Symbol;

use crate::text::{Cursor, Read, TextError};

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
    /// Run a phase in blocks of `rows` iterations of its outer index: the first part of each, then the next part of each.
    Block {
        /// The outer index.
        var: Symbol,
        /// Iterations of a block.
        rows: u32,
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
            Directive::Vector { .. }
            | Directive::Unroll { .. }
            | Directive::Block { .. }
            | Directive::Threads { .. } => None,
        })
    }

    /// Whether a loop is to be written out.
    pub fn unrolls(&self, loop_var: &Symbol) -> bool {
        self.directives.iter().any(|d| matches!(d, Directive::Unroll { var } if var == loop_var))
    }

    /// Iterations of a block of a phase, when it is to run in blocks.
    pub fn block(&self, outer: &Symbol) -> Option<u32> {
        self.directives.iter().find_map(|d| match d {
            Directive::Block { var, rows } if var == outer => Some(*rows),
            Directive::Vector { .. }
            | Directive::Unroll { .. }
            | Directive::Block { .. }
            | Directive::Threads { .. } => None,
        })
    }

    /// Fewest iterations of a phase's outer index worth a thread.
    pub fn grain(&self, outer: &Symbol) -> Option<u32> {
        self.directives.iter().find_map(|d| match d {
            Directive::Threads { var, grain } if var == outer => Some(*grain),
            Directive::Vector { .. }
            | Directive::Unroll { .. }
            | Directive::Block { .. }
            | Directive::Threads { .. } => None,
        })
    }
}

impl fmt::Display for Directive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Directive::Vector { var, lanes } => write!(f, "vector {var} {lanes}"),
            Directive::Unroll { var } => write!(f, "unroll {var}"),
            Directive::Block { var, rows } => write!(f, "block {var} {rows}"),
            Directive::Threads { var, grain } => write!(f, "threads {var} {grain}"),
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, directive) in self.directives.iter().enumerate() {
            f.write_str(if i > 0 { "; " } else { "" })?;
            directive.fmt(f)?;
        }
        Ok(())
    }
}

impl FromStr for Schedule {
    type Err = TextError;

    /// Reads what [`fmt::Display`] writes; an empty text is an empty schedule.
    fn from_str(text: &str) -> Result<Self, TextError> {
        let mut cursor = Cursor::without_comments(text);
        let mut directives = Vec::new();
        while !cursor.is_done() {
            directives.push(directive(&mut cursor)?);
            if !cursor.eat(';') {
                break;
            }
        }
        cursor.end(Schedule { directives })
    }
}

fn directive(cursor: &mut Cursor<'_>) -> Read<Directive> {
    let word = match cursor.peek() {
        word @ ("vector" | "unroll" | "block" | "threads") => word,
        _ => return cursor.expected("vector, unroll, block or threads"),
    };
    cursor.keyword(word)?;
    let var = cursor.symbol()?;
    Ok(match word {
        "vector" => {
            let start = cursor.offset();
            let lanes = cursor.parsed("a number of lanes")?;
            if !matches!(lanes, 4 | 8 | 16) {
                return cursor.fail_at(start, format!("a vector has 4, 8 or 16 lanes, not {lanes}"));
            }
            Directive::Vector { var, lanes }
        }
        "unroll" => Directive::Unroll { var },
        "block" => Directive::Block { var, rows: cursor.parsed("a number of iterations")? },
        _ => Directive::Threads { var, grain: cursor.parsed("a number of iterations")? },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_read_back() {
        let text = "vector i3 4; unroll i4; block i0 2; threads i0 64";
        let schedule: Schedule = text.parse().expect("a schedule");
        assert_eq!(schedule.lanes(&Symbol::new("i3")), Some(4));
        assert!(schedule.unrolls(&Symbol::new("i4")));
        assert_eq!(schedule.grain(&Symbol::new("i0")), Some(64));
        assert_eq!((schedule.block(&Symbol::new("i0")), schedule.block(&Symbol::new("i3"))), (Some(2), None));
        assert_eq!(schedule.to_string(), text);
        assert_eq!("".parse(), Ok(Schedule::default()));
        assert_eq!(" unroll i4 ;".parse::<Schedule>().expect("one").to_string(), "unroll i4");
    }

    #[test]
    fn errors_say_where() {
        let error = |text: &str| text.parse::<Schedule>().expect_err(text).to_string();
        assert_eq!(error("unroll i4;\nvector i3 5"), "line 2, column 11: a vector has 4, 8 or 16 lanes, not 5");
        assert_eq!(error("tile i3"), "line 1, column 1: expected vector, unroll, block or threads, found `tile`");
        assert_eq!(error("unroll i3 i4"), "line 1, column 11: expected the end, found `i4`");
        assert_eq!(error("threads i0"), "line 1, column 11: expected a number of iterations, found the end");
    }
}
