//! A bar on a terminal, nothing elsewhere: what a command prints as lines is progress enough in a log.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Progress through a known number of things.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A bar on stderr when that is a terminal and there is enough to wait for.
    pub(crate) fn new(total: usize) -> Progress {
        let visible = total > 1 && std::io::stderr().is_terminal();
        let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total as u64), target);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len}  {eta} left  {wide_msg}") {
            bar.set_style(style);
        }
        Progress { bar }
    }

    /// What is at work.
    pub(crate) fn begin(&self, what: &str) {
        self.bar.set_message(what.to_owned());
    }

    /// One is done; `print` may write lines, the bar steps aside.
    pub(crate) fn done<T>(&self, print: impl FnOnce() -> T) -> T {
        let result = self.bar.suspend(print);
        self.bar.inc(1);
        result
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
