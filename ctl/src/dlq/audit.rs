//! `wxpayctl dlq audit`: who did what with dead letters, and what came of it.

use anyhow::Result;
use jiff::SignedDuration;
use wxpay_shared::{admin::PAGE, ids::NotificationId, store::audit::AuditEntry};

use super::{age, ago};
use crate::{
    cli::Verdict,
    client::Client,
    screen::{Grid, Screen, count, time},
};

/// `wxpayctl dlq audit`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only what was done with this one.
    #[arg(value_parser = NotificationId::parse)]
    id: Option<NotificationId>,
    /// Only what was done since then: 30m, 2h, 1d.
    #[arg(long, value_name = "AGE", value_parser = age)]
    since: Option<SignedDuration>,
    /// How many are shown at most: the latest.
    #[arg(long, default_value_t = PAGE)]
    limit: usize,
}

pub(super) async fn run(client: &Client, screen: &mut Screen<'_>, args: &Args) -> Result<Verdict> {
    let entries = client.audit(args.id.as_ref(), args.since.map(ago), args.limit).await?;
    show(screen, &entries)?;
    Ok(Verdict::Fine)
}

pub(super) fn show(screen: &mut Screen<'_>, entries: &[AuditEntry]) -> Result<()> {
    if screen.is_json() {
        return screen.json(&entries);
    }
    if entries.is_empty() {
        return screen.line("nothing is on record");
    }
    let mut grid = Grid::new(["dead letter, order, reason", "when, what", "who, why", "result"]).whole(0);
    for entry in entries {
        let [when, what, who, result] = cells(entry);
        let line = &entry.line;
        let which = format!("{}\n{}\n{}", line.notification, line.orders, line.reason);
        grid.row([which, format!("{when}\n{what}"), who, result]);
    }
    screen.table(grid)?;
    screen.line(format_args!("\n{}", count(entries.len(), "action")))
}

/// When, what, who and why, and what came of it.
pub(super) fn cells(entry: &AuditEntry) -> [String; 4] {
    let line = &entry.line;
    let who = if line.why.is_empty() { line.by.clone() } else { format!("{}\n{}", line.by, line.why) };
    let result = match &line.result {
        None => "begun; the worker did not live to write what came of it".to_owned(),
        Some(result) if line.detail.is_empty() => result.replace('_', " "),
        Some(result) => format!("{}\n{}", result.replace('_', " "), line.detail),
    };
    [time(line.at), line.action.code().to_owned(), who, result]
}
