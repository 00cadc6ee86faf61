//! The report: one row a figure, as a table for people and as JSON for programs.

use anyhow::Result;
use serde::Serialize;

use super::summary::{Ratios, Samples, decimal};
use crate::screen::{Grid, Screen};

/// What was measured, on which machine.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) machine: Machine,
    pub(super) repetitions: u32,
    pub(super) seconds: u64,
    pub(super) figures: Vec<Figure>,
    /// What was not measured, and why.
    pub(super) left_out: Vec<String>,
}

/// Where it was measured.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    pub(super) wxpay: &'static str,
    pub(super) cpu: String,
    pub(super) cpus: usize,
    pub(super) kernel: String,
    pub(super) servers: Vec<String>,
}

/// One row.
#[derive(Debug, Serialize)]
pub(super) struct Figure {
    name: String,
    unit: &'static str,
    values: Samples,
    baseline: Option<Baseline>,
    target: Option<Target>,
    reached: Option<bool>,
    /// What else was seen: cost by part, sizes.
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Baseline {
    name: String,
    values: Samples,
    /// Figure over baseline, in thousandths.
    ratio_thousandths: Ratios,
}

/// What the figure is meant to reach.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Target {
    /// So many thousandths of the baseline, or more.
    RatioAtLeast(u64),
    /// The value itself, or less.
    AtMost(u64),
}

impl Figure {
    pub(super) fn new(name: impl Into<String>, unit: &'static str, values: Samples) -> Self {
        Self { name: name.into(), unit, values, baseline: None, target: None, reached: None, notes: Vec::new() }
    }

    pub(super) fn against(mut self, name: impl Into<String>, values: &Samples) -> Self {
        let ratio_thousandths = self.values.over(values);
        self.baseline = Some(Baseline { name: name.into(), values: values.clone(), ratio_thousandths });
        self
    }

    pub(super) fn target(mut self, target: Target) -> Self {
        self.reached = Some(match target {
            Target::AtMost(limit) => self.values.median() <= limit,
            Target::RatioAtLeast(least) => {
                self.baseline.as_ref().is_some_and(|baseline| baseline.ratio_thousandths.median() >= least)
            }
        });
        self.target = Some(target);
        self
    }

    pub(super) fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// What bounds it where it is missed; said only there.
    pub(super) fn bounded_by(self, what: &str) -> Self {
        if self.is_missed() {
            self.note(format!("what bounds it, with the evidence in docs/benchmarks.md: {what}"))
        } else {
            self
        }
    }

    pub(super) fn is_missed(&self) -> bool {
        self.reached == Some(false)
    }

    fn cells(&self) -> [String; 5] {
        let spread = |samples: &Samples| format!("{} ({}–{})", samples.median(), samples.min(), samples.max());
        let (baseline, ratio) = match &self.baseline {
            Some(baseline) => {
                (format!("{}\n{}", spread(&baseline.values), baseline.name), baseline.ratio_thousandths.text())
            }
            None => Default::default(),
        };
        let target = match self.target {
            Some(Target::RatioAtLeast(least)) => format!("≥ {}", decimal(least)),
            Some(Target::AtMost(limit)) => format!("≤ {limit} {}", self.unit),
            None => String::new(),
        };
        let verdict = match self.reached {
            Some(true) => format!("{target}\nreached"),
            Some(false) => format!("{target}\nMISSED"),
            None => target,
        };
        [self.name.clone(), format!("{} {}", spread(&self.values), self.unit), baseline, ratio, verdict]
    }
}

impl Machine {
    /// This one, with these servers.
    pub(super) fn here(servers: Vec<String>) -> Self {
        let file = |path| std::fs::read_to_string(path).unwrap_or_default();
        let cpu = file("/proc/cpuinfo");
        let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
        Self {
            wxpay: env!("CARGO_PKG_VERSION"),
            cpu: cpu.unwrap_or("unknown").to_owned(),
            cpus: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            kernel: file("/proc/sys/kernel/osrelease").trim().to_owned(),
            servers,
        }
    }
}

impl Report {
    pub(super) fn show(&self, screen: &mut Screen<'_>) -> Result<()> {
        if screen.is_json() {
            return screen.json(self);
        }
        let Machine { wxpay, cpu, cpus, kernel, servers } = &self.machine;
        screen.line(format_args!("wxpay-notify {wxpay} on {cpus} × {cpu}, Linux {kernel}"))?;
        if !servers.is_empty() {
            screen.line(servers.join(", "))?;
        }
        screen.line(format_args!(
            "median (least–greatest) of {} repetitions; a ratio is the median over pairs of repetitions\n",
            self.repetitions
        ))?;
        let mut grid = Grid::new(["figure", "measured", "baseline", "ratio", "target"]);
        for figure in &self.figures {
            grid.row(figure.cells());
        }
        screen.table(grid)?;
        for figure in self.figures.iter().filter(|figure| !figure.notes.is_empty()) {
            screen.line(format_args!("{}: {}", figure.name, figure.notes.join("; ")))?;
        }
        self.left_out.iter().try_for_each(|left_out| screen.line(format_args!("left out: {left_out}")))
    }
}
