//! `wxpayctl dlq`: read the dead letters, replay them once their cause is cured, discard what nobody needs.

use anyhow::Result;
use clap::Subcommand;
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};
use wxpay_shared::{
    admin::{Discard, Selection},
    clock::{Clock as _, SystemClock},
    ids::{MerchantName, NotificationId, OrderId, OutTradeNo},
    reason::Reason,
};

use crate::{
    cli::Verdict,
    client::{AdminArgs, Client},
    screen::{Screen, count},
};

mod list;
mod show;
mod replay;
mod progress;
mod audit;
mod transfer;

/// `wxpayctl dlq`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wxpayctl dlq list --with-reason unknown_order --older-than 2h
  wxpayctl dlq show 0198a5e2-7a54-7cc0-b5a9-f4a93a0a6a10
  wxpayctl dlq replay --with-reason unknown_order --dry-run     says what would become of each
  wxpayctl dlq replay --with-reason unknown_order --why 'orders registered'
  wxpayctl dlq discard 0198a5e2-7a54-7cc0-b5a9-f4a93a0a6a10 --reason 'refunded by hand'
  wxpayctl dlq audit --since 1d                                 who did what, and what came of it
  wxpayctl dlq export --all --to dead.jsonl                     and later: dlq import dead.jsonl")]
pub(crate) struct Args {
    #[command(flatten)]
    admin: AdminArgs,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Lists dead letters, oldest first, with their reasons.
    #[command(after_help = "\
Examples:
  wxpayctl dlq list
  wxpayctl dlq list --with-reason unknown_order --merchant dev
  wxpayctl dlq list --order dev/A1001
  wxpayctl dlq list --older-than 2h --newer-than 1d
  wxpayctl dlq list --check    # exit code 1 if there is any: for a monitor")]
    List(list::Args),
    /// Shows one dead letter with everything that is known about it. Personal fields are masked.
    #[command(after_help = "Example:\n  wxpayctl dlq show 0198a5e2-7a54-7cc0-b5a9-f4a93a0a6a10")]
    Show {
        /// The notification's id.
        #[arg(value_parser = NotificationId::parse)]
        id: NotificationId,
    },
    /// Takes dead letters through the worker once more, attempts counted anew. Nothing is applied twice.
    #[command(after_help = "\
Examples:
  wxpayctl dlq replay 0198a5e2-7a54-7cc0-b5a9-f4a93a0a6a10
  wxpayctl dlq replay --order dev/A1001 --why 'registered late'
  wxpayctl dlq replay --with-reason unknown_order --dry-run
  wxpayctl dlq replay --with-reason unknown_order --limit 500 --rate 20
  wxpayctl dlq replay --all

It may be stopped at any time and started again: what was applied is applied once. The exit code is 1 where one of them
is a dead letter again, or would be.")]
    Replay(replay::Args),
    /// Removes dead letters for good. The audit record keeps each id with who did it and why.
    #[command(after_help = "\
Examples:
  wxpayctl dlq discard 0198a5e2-7a54-7cc0-b5a9-f4a93a0a6a10 --reason 'refunded by hand'
  wxpayctl dlq discard --with-reason unsealed --older-than 30d --reason 'test messages of the staging broker'")]
    Discard(DiscardArgs),
    /// Shows who did what with dead letters, when and why, and what came of it.
    #[command(after_help = "\
Examples:
  wxpayctl dlq audit --since 2h
  wxpayctl dlq audit 0198a5e2-7a54-7cc0-b5a9-f4a93a0a6a10    also when it is no dead letter any more")]
    Audit(audit::Args),
    /// Writes dead letters to a file, byte for byte; they stay where they are.
    #[command(after_help = "\
Examples:
  wxpayctl dlq export --all --to dead.jsonl
  wxpayctl dlq export --merchant dev --older-than 7d --to old.jsonl

The file holds personal data: only its owner can read it. Keep it like a database dump, and delete it after use.")]
    Export(transfer::ExportArgs),
    /// Makes dead letters of what an export wrote.
    #[command(after_help = "\
Example:
  wxpayctl dlq import dead.jsonl

What is a dead letter already is passed over, so a file can be imported twice. A line that is no dead letter is told by
its number, and the others are imported. A line that was edited by hand ends as `unsealed` when it is replayed.")]
    Import(transfer::ImportArgs),
}

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("which").required(true).multiple(true)))]
struct DiscardArgs {
    /// The notifications' ids.
    #[arg(group = "which", value_parser = NotificationId::parse)]
    ids: Vec<NotificationId>,
    /// Those that are dead letters for this reason.
    #[arg(group = "which", long, value_name = "CODE", value_parser = reason)]
    with_reason: Option<Reason>,
    #[command(flatten)]
    filters: Filters,
    /// Why they may go; the audit record keeps it.
    #[arg(long, visible_alias = "why", value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reason: String,
    #[command(flatten)]
    who: Who,
}

/// Which dead letters, besides their ids and reasons.
#[derive(Debug, clap::Args)]
struct Filters {
    /// Those of this merchant.
    #[arg(group = "which", long, value_parser = MerchantName::parse)]
    merchant: Option<MerchantName>,
    /// Those that name this order.
    #[arg(group = "which", long, value_name = "MERCHANT/OUT_TRADE_NO", value_parser = order)]
    order: Option<OrderId>,
    /// Those that ingress received longer ago: 30m, 2h, 1d.
    #[arg(group = "which", long, value_name = "AGE", value_parser = age)]
    older_than: Option<SignedDuration>,
    /// Those that ingress received since then: 30m, 2h, 1d.
    #[arg(group = "which", long, value_name = "AGE", value_parser = age)]
    newer_than: Option<SignedDuration>,
}

/// For the audit record.
#[derive(Debug, clap::Args)]
struct Who {
    /// Who does it, for the audit record; your user name unless given.
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    by: Option<String>,
}

impl Who {
    fn name(&self) -> Option<String> {
        self.by.clone().or_else(|| whoami::username().ok())
    }
}

impl Filters {
    fn select(self, ids: Vec<NotificationId>, reason: Option<Reason>, all: bool) -> Selection {
        let Self { merchant, order, older_than, newer_than } = self;
        let (received_before, received_after) = (older_than.map(ago), newer_than.map(ago));
        Selection { ids, reason, merchant, order, received_before, received_after, all }
    }
}

fn ago(age: SignedDuration) -> Timestamp {
    SystemClock.now().checked_sub(age).unwrap_or(Timestamp::MIN)
}

/// A reason's code; the error says which there are.
fn reason(text: &str) -> Result<Reason, String> {
    let codes: Vec<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();
    text.parse().map_err(|_| format!("expected one of {}", codes.join(", ")))
}

fn order(text: &str) -> Result<OrderId, String> {
    let (merchant, out_trade_no) = text.split_once('/').ok_or("expected merchant/out_trade_no")?;
    let merchant = MerchantName::parse(merchant).map_err(|error| error.to_string())?;
    let out_trade_no = OutTradeNo::parse(out_trade_no).map_err(|error| error.to_string())?;
    Ok(OrderId { merchant, out_trade_no })
}

/// A time span back from now.
fn age(text: &str) -> Result<SignedDuration, &'static str> {
    let age = text.parse::<Span>().ok().and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok());
    age.filter(|age| !age.is_negative()).ok_or("expected an age such as 30m, 2h or 1d")
}

pub(crate) async fn run(args: Args, screen: &mut Screen<'_>) -> Result<Verdict> {
    let client = args.admin.client()?;
    match args.action {
        Action::List(args) => list::run(&client, screen, args).await,
        Action::Show { id } => {
            show::show(screen, &client.dead_letter(&id).await?)?;
            Ok(Verdict::Fine)
        }
        Action::Replay(args) => replay::run(&client, screen, args).await,
        Action::Discard(args) => discard(&client, screen, args).await,
        Action::Audit(args) => audit::run(&client, screen, &args).await,
        Action::Export(args) => transfer::export(&client, screen, args).await,
        Action::Import(args) => transfer::import(&client, screen, args).await,
    }
}

async fn discard(client: &Client, screen: &mut Screen<'_>, args: DiscardArgs) -> Result<Verdict> {
    let DiscardArgs { ids, with_reason, filters, reason, who } = args;
    let request = Discard { select: filters.select(ids, with_reason, false), reason, by: who.name() };
    let discarded = client.discard(&request).await?;
    let missing = missing(&request.select.ids, discarded.ids.iter());
    let verdict = Verdict::found_if(discarded.ids.is_empty() || !missing.is_empty());
    if screen.is_json() {
        screen.json(&discarded)?;
        return Ok(verdict);
    }
    for id in &discarded.ids {
        screen.line(format_args!("discarded {id}"))?;
    }
    if discarded.ids.is_empty() {
        screen.line("no dead letter matches")?;
    } else if discarded.ids.len() > 1 {
        screen.line(format_args!("\n{} discarded", count(discarded.ids.len(), "dead letter")))?;
    }
    say_missing(screen, &missing)?;
    Ok(verdict)
}

fn missing<'a>(asked: &[NotificationId], got: impl Iterator<Item = &'a NotificationId>) -> Vec<NotificationId> {
    let got: Vec<_> = got.collect();
    asked.iter().filter(|id| !got.contains(id)).cloned().collect()
}

fn say_missing(screen: &mut Screen<'_>, missing: &[NotificationId]) -> Result<()> {
    missing.iter().try_for_each(|id| screen.line(format_args!("{id} is no dead letter (any more)")))
}

#[cfg(test)]
mod tests;
