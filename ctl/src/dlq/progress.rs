//! How far a long command is: a bar on a terminal, and otherwise a line now and then. On standard error, so that what the
//! command says in the end can be piped.

use std::{
    io::{IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::screen::count;

/// How often a line comes where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

pub(super) struct Progress {
    bar: Option<ProgressBar>,
    total: usize,
    done: usize,
    told: Instant,
}

impl Progress {
    /// The progress of a command that will handle about so many.
    pub(super) fn new(total: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(u64::try_from(total).unwrap_or(u64::MAX));
            let style = ProgressStyle::with_template("{bar:30} {pos} of {len}  {per_sec}, {eta} left  {msg}");
            bar.with_style(style.expect("the template is right"))
        });
        Self { bar, total, done: 0, told: Instant::now() }
    }

    /// One more is done; `state` says how it goes.
    pub(super) fn step(&mut self, state: impl FnOnce() -> String) {
        self.done += 1;
        match &self.bar {
            Some(bar) => {
                bar.inc(1);
                bar.set_message(state());
            }
            None if self.told.elapsed() >= LINE_EVERY => {
                self.told = Instant::now();
                let line = format!("{} of {}: {}\n", self.done, count(self.total, "dead letter"), state());
                // Whoever closed standard error does not want to know.
                drop(std::io::stderr().write_all(line.as_bytes()));
            }
            None => {}
        }
    }

    /// The bar goes; what the command says in the end takes its place.
    pub(super) fn end(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
