//! `wxpayctl dlq replay`: dead letters through the worker once more, or a rehearsal of it.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};
use wxpay_shared::{
    admin::{Replay, ReplayEnd, ReplayItem, ReplayOutcome, ReplayResult, Replayed},
    ids::NotificationId,
    reason::Reason,
};

use super::{Filters, Who, missing, progress::Progress, reason, say_missing};
use crate::{
    cli::{EndedEarly, Verdict},
    client::{Client, Lines},
    screen::{Grid, Screen},
};

/// Results that are told one by one; of more than these, only those that a person must look at.
const TOLD_MAX: usize = 20;

/// `wxpayctl dlq replay`.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("which").required(true).multiple(true)))]
pub(super) struct Args {
    /// The notifications' ids.
    #[arg(group = "which", value_parser = NotificationId::parse)]
    ids: Vec<NotificationId>,
    /// Those with this reason.
    #[arg(group = "which", long, visible_alias = "reason", value_name = "CODE", value_parser = reason)]
    with_reason: Option<Reason>,
    #[command(flatten)]
    filters: Filters,
    /// All of them.
    #[arg(group = "which", long, conflicts_with_all = ["ids", "with_reason", "merchant", "order", "older_than", "newer_than"])]
    all: bool,
    /// Says what would become of each, and changes nothing.
    #[arg(long)]
    dry_run: bool,
    /// How many at most; all that match unless given.
    #[arg(long)]
    limit: Option<usize>,
    /// How many a second at most.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Why, for the audit record.
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
    #[command(flatten)]
    who: Who,
}

pub(super) async fn run(client: &Client, screen: &mut Screen<'_>, args: Args) -> Result<Verdict> {
    let Args { ids, with_reason, filters, all, dry_run, limit, rate, why, who } = args;
    let select = filters.select(ids, with_reason, all);
    let matching = match select.ids.len() {
        0 => client.dead_letters(&select, 0, None).await?.matching,
        ids => ids,
    };
    let limit = limit.unwrap_or(usize::MAX);
    let request = Replay { select, limit: Some(limit), rate, dry_run, by: who.name(), why };
    let mut progress = Progress::new(matching.min(limit));
    let lines = client.replay_lines(&request).await?;
    let (replayed, stopped) = follow(lines, &mut progress).await?;
    progress.end();
    tell(screen, &request, &replayed, stopped)
}

/// Takes the results as they come, until the end or until the person at the terminal has seen enough.
async fn follow(mut lines: Lines<ReplayItem>, progress: &mut Progress) -> Result<(Replayed, bool)> {
    let mut results: Vec<ReplayResult> = Vec::new();
    let mut outcomes = BTreeMap::new();
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    loop {
        let item = tokio::select! {
            item = lines.next() => item,
            _ = &mut interrupt => return Ok((Replayed { results, end: ReplayEnd::default() }, true)),
        };
        match item {
            Ok(Some(ReplayItem::Result(result))) => {
                *outcomes.entry(result.outcome).or_default() += 1;
                progress.step(|| summary(&outcomes));
                results.push(result);
            }
            Ok(Some(ReplayItem::End(end))) => return Ok((Replayed { results, end }, false)),
            cut => {
                let error = cut.err().unwrap_or_else(|| anyhow!("the answer was cut off"));
                let problem = Some(format!("{error:#}"));
                return Ok((Replayed { results, end: ReplayEnd { left: 0, problem } }, false));
            }
        }
    }
}

pub(super) fn tell(screen: &mut Screen<'_>, request: &Replay, replayed: &Replayed, stopped: bool) -> Result<Verdict> {
    let Replayed { results, end } = replayed;
    let missing = missing(&request.select.ids, results.iter().map(|result| &result.id));
    // With a limit, an id that was not taken may simply be left; so may it after an early end.
    let missing = if end.left == 0 && end.problem.is_none() && !stopped { missing } else { Vec::new() };
    if screen.is_json() {
        screen.json(replayed)?;
    } else {
        show(screen, replayed, request.dry_run)?;
        say_missing(screen, &missing)?;
        if stopped {
            screen.line("stopped; the worker ends with those it has in hand. Run it again to go on")?;
        }
    }
    if let Some(problem) = &end.problem {
        let again = "what has no result is the dead letter that it was: run it again to go on";
        return Err(EndedEarly(format!("{problem}; {again}")).into());
    }
    let bad = |result: &ReplayResult| matches!(result.outcome, ReplayOutcome::DeadAgain | ReplayOutcome::Failed);
    Ok(Verdict::found_if(stopped || results.is_empty() || !missing.is_empty() || results.iter().any(bad)))
}

pub(super) fn show(screen: &mut Screen<'_>, replayed: &Replayed, dry_run: bool) -> Result<()> {
    let Replayed { results, end } = replayed;
    if results.is_empty() {
        return if end.problem.is_some() { Ok(()) } else { screen.line("no dead letter matches") };
    }
    let mut outcomes: BTreeMap<ReplayOutcome, usize> = BTreeMap::new();
    for result in results {
        *outcomes.entry(result.outcome).or_default() += 1;
    }
    let needs_a_look = |result: &&ReplayResult| match result.outcome {
        ReplayOutcome::Applied | ReplayOutcome::AlreadyApplied | ReplayOutcome::Ignored => false,
        ReplayOutcome::Waiting | ReplayOutcome::DeadAgain | ReplayOutcome::Failed => true,
    };
    let told: Vec<_> = if results.len() <= TOLD_MAX {
        results.iter().collect()
    } else {
        results.iter().filter(needs_a_look).take(TOLD_MAX).collect()
    };
    if !told.is_empty() {
        table(screen, &told, dry_run)?;
    }
    let untold = results.iter().filter(needs_a_look).count().saturating_sub(told.len());
    if untold > 0 {
        let more = if dry_run { "--json tells all" } else { "--json or `wxpayctl dlq audit` tells all" };
        screen.line(format_args!("and {untold} more to look at; {more}"))?;
    }
    let verb = if dry_run { "looked at, nothing changed" } else { "replayed" };
    screen.line(format_args!("\n{} {verb}: {}", results.len(), summary(&outcomes)))?;
    if end.left > 0 {
        screen.line(format_args!("{} more match: run it again, or with a larger --limit", end.left))?;
    }
    Ok(())
}

fn table(screen: &mut Screen<'_>, results: &[&ReplayResult], dry_run: bool) -> Result<()> {
    let mut grid = Grid::new(["id", if dry_run { "would be" } else { "outcome" }, "detail"]).whole(0).whole(1);
    for result in results {
        let (outcome, meaning) = told(result.outcome, dry_run);
        let detail = if result.detail.is_empty() { meaning } else { &result.detail };
        grid.row([result.id.to_string(), outcome.to_owned(), detail.to_owned()]);
    }
    screen.table(grid)
}

/// `3 applied, 1 dead again`
fn summary(outcomes: &BTreeMap<ReplayOutcome, usize>) -> String {
    let parts: Vec<_> =
        outcomes.iter().map(|(outcome, number)| format!("{number} {}", told(*outcome, false).0)).collect();
    parts.join(", ")
}

/// What an outcome is called, and what it means where the worker adds nothing.
fn told(outcome: ReplayOutcome, dry_run: bool) -> (&'static str, &'static str) {
    match outcome {
        ReplayOutcome::Applied if dry_run => ("applied", "it would take effect"),
        ReplayOutcome::Applied => ("applied", "it took effect now"),
        ReplayOutcome::AlreadyApplied => ("already applied", "it had taken effect before; nothing changed"),
        ReplayOutcome::Ignored => ("ignored", "it changes nothing"),
        ReplayOutcome::DeadAgain => ("dead again", ""),
        ReplayOutcome::Waiting => ("waiting", "it waits in the retry tiers"),
        ReplayOutcome::Failed => ("failed", "it is the dead letter that it was"),
    }
}
