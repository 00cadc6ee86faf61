//! `wxpayctl dlq`: read the dead letters, replay them once their cause is cured, discard what nobody needs.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::Subcommand;
use wxpay_shared::{
    admin::{DeadLetterList, DeadLetterView, Discard, PAGE, Replay, ReplayOutcome, Replayed, Selection},
    ids::{MerchantName, NotificationId},
    reason::Reason,
};

use crate::{
    cli::Verdict,
    client::{AdminArgs, Client},
    screen::{Grid, Screen, count, time},
};

/// `wxpayctl dlq`.
#[derive(Debug, clap::Args)]
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
  wxpayctl dlq list --check    # exit code 1 if there is any: for a monitor")]
    List(List),
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
  wxpayctl dlq replay --with-reason unknown_order --limit 500
  wxpayctl dlq replay --all

The exit code is 1 where one of them is a dead letter again.")]
    Replay(ReplayArgs),
    /// Removes dead letters for good. The worker's log keeps each id with your reason.
    #[command(after_help = "\
Examples:
  wxpayctl dlq discard 0198a5e2-7a54-7cc0-b5a9-f4a93a0a6a10 --reason 'refunded by hand'
  wxpayctl dlq discard --with-reason unsealed --reason 'test messages of the staging broker'")]
    Discard(DiscardArgs),
}

#[derive(Debug, clap::Args)]
struct List {
    /// Only those with this reason.
    #[arg(long, visible_alias = "reason", value_name = "CODE", value_parser = reason)]
    with_reason: Option<Reason>,
    /// Only those of this merchant.
    #[arg(long, value_parser = MerchantName::parse)]
    merchant: Option<MerchantName>,
    /// How many are listed at most.
    #[arg(long, default_value_t = PAGE)]
    limit: usize,
    /// Ends with exit code 1 if any matches.
    #[arg(long)]
    check: bool,
}

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("which").required(true).multiple(true)))]
struct ReplayArgs {
    /// The notifications' ids.
    #[arg(group = "which", value_parser = NotificationId::parse)]
    ids: Vec<NotificationId>,
    /// Those with this reason.
    #[arg(group = "which", long, visible_alias = "reason", value_name = "CODE", value_parser = reason)]
    with_reason: Option<Reason>,
    /// Those of this merchant.
    #[arg(group = "which", long, value_parser = MerchantName::parse)]
    merchant: Option<MerchantName>,
    /// All of them.
    #[arg(group = "which", long, conflicts_with_all = ["ids", "with_reason", "merchant"])]
    all: bool,
    /// How many at most.
    #[arg(long, default_value_t = PAGE)]
    limit: usize,
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
    /// Those of this merchant.
    #[arg(group = "which", long, value_parser = MerchantName::parse)]
    merchant: Option<MerchantName>,
    /// Why they may go; the worker logs it with each.
    #[arg(long, visible_alias = "why", value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reason: String,
}

/// A reason's code; the error says which there are.
fn reason(text: &str) -> Result<Reason, String> {
    let codes: Vec<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();
    text.parse().map_err(|_| format!("expected one of {}", codes.join(", ")))
}

pub(crate) async fn run(args: Args, screen: &mut Screen<'_>) -> Result<Verdict> {
    let client = args.admin.client()?;
    match args.action {
        Action::List(list) => {
            let found = client.dead_letters(list.with_reason, list.merchant.as_ref(), Some(list.limit)).await?;
            show_list(screen, &found)?;
            Ok(Verdict::found_if(list.check && found.matching > 0))
        }
        Action::Show { id } => {
            show(screen, &client.dead_letter(&id).await?)?;
            Ok(Verdict::Fine)
        }
        Action::Replay(args) => {
            let ReplayArgs { ids, with_reason, merchant, all, limit } = args;
            let select = Selection { ids, reason: with_reason, merchant, all };
            replay(&client, screen, Replay { select, limit: Some(limit) }).await
        }
        Action::Discard(args) => {
            let DiscardArgs { ids, with_reason, merchant, reason } = args;
            let select = Selection { ids, reason: with_reason, merchant, all: false };
            discard(&client, screen, Discard { select, reason }).await
        }
    }
}

fn show_list(screen: &mut Screen<'_>, list: &DeadLetterList) -> Result<()> {
    if screen.is_json() {
        return screen.json(list);
    }
    if list.matching == 0 {
        let all: usize = list.by_reason.values().sum();
        return match all {
            0 => screen.line("no dead letters"),
            all => screen.line(format_args!("no dead letter matches; there are {all} in all")),
        };
    }
    let mut grid = Grid::new(["id", "order", "amount", "reason"]).whole(0);
    for letter in &list.dead_letters {
        let merchant = letter.merchant.as_deref().unwrap_or("?");
        grid.row([
            format!("{}\n{}", letter.id, letter.received_at.map(time).unwrap_or_default()),
            format!("{merchant}/{}", letter.out_trade_no.as_deref().unwrap_or("?")),
            letter.amount.as_ref().map(|amount| format!("{amount} fen")).unwrap_or_default(),
            format!("{}\n{}", letter.reason, letter.detail),
        ]);
    }
    screen.table(grid)?;
    let shown = list.dead_letters.len();
    if shown < list.matching {
        screen.line(format_args!("\n{shown} of {} shown; --limit shows more", list.matching))?;
    } else {
        screen.line(format_args!("\n{}", count(shown, "dead letter")))?;
    }
    Ok(())
}

fn show(screen: &mut Screen<'_>, letter: &DeadLetterView) -> Result<()> {
    if screen.is_json() {
        return screen.json(letter);
    }
    screen.line(format_args!("dead letter {}", letter.id))?;
    screen.facts(&[
        ("reason", Some(letter.reason.to_string())),
        ("detail", Some(letter.detail.clone())),
        ("cure", Some(letter.cure.clone())),
        ("merchant", letter.merchant.clone()),
        ("out_trade_no", letter.out_trade_no.clone()),
        ("transaction_id", letter.transaction_id.clone()),
        ("amount", letter.amount.as_ref().map(|amount| format!("{amount} fen"))),
        ("received", letter.received_at.map(time)),
        ("attempts", Some(letter.attempts.to_string())),
    ])?;
    if !letter.history.is_empty() {
        screen.line("\nattempts, oldest first")?;
        let mut grid = Grid::new(["failed", "worker", "error"]);
        for attempt in &letter.history {
            grid.row([time(attempt.at), attempt.worker.clone(), attempt.error.clone()]);
        }
        screen.table(grid)?;
    }
    if !letter.fields.is_empty() {
        screen.line("\nthe notification's fields")?;
        let fields: Vec<_> = letter.fields.iter().map(|(name, value)| (name.as_str(), Some(value.clone()))).collect();
        screen.facts(&fields)?;
    }
    screen.line(format_args!("\nonce cured:  wxpayctl dlq replay {}", letter.id))
}

async fn replay(client: &Client, screen: &mut Screen<'_>, request: Replay) -> Result<Verdict> {
    let replayed = client.replay(&request).await?;
    let missing = missing(&request.select.ids, replayed.results.iter().map(|result| &result.id));
    let bad = |outcome: ReplayOutcome| matches!(outcome, ReplayOutcome::DeadAgain | ReplayOutcome::Failed);
    let negative = replayed.results.is_empty() || !missing.is_empty();
    let verdict = Verdict::found_if(negative || replayed.results.iter().any(|result| bad(result.outcome)));
    if screen.is_json() {
        screen.json(&replayed)?;
        return Ok(verdict);
    }
    show_replayed(screen, &replayed)?;
    // With a limit, an id that was not taken may simply be left.
    if replayed.left == 0 {
        say_missing(screen, &missing)?;
    }
    Ok(verdict)
}

fn show_replayed(screen: &mut Screen<'_>, replayed: &Replayed) -> Result<()> {
    if replayed.results.is_empty() {
        return screen.line("no dead letter matches");
    }
    let mut grid = Grid::new(["id", "outcome", "detail"]).whole(0).whole(1);
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    for result in &replayed.results {
        let (outcome, _) = told(result.outcome);
        *outcomes.entry(outcome).or_default() += 1;
        let detail = if result.detail.is_empty() { told(result.outcome).1 } else { &result.detail };
        grid.row([result.id.to_string(), outcome.to_owned(), detail.to_owned()]);
    }
    screen.table(grid)?;
    let outcomes: Vec<_> = outcomes.iter().map(|(outcome, number)| format!("{number} {outcome}")).collect();
    screen.line(format_args!("\n{} replayed: {}", replayed.results.len(), outcomes.join(", ")))?;
    if replayed.left > 0 {
        screen.line(format_args!("{} more match: run it again, or with a larger --limit", replayed.left))?;
    }
    Ok(())
}

/// What a replay's outcome is called, and what it means where the worker adds nothing.
fn told(outcome: ReplayOutcome) -> (&'static str, &'static str) {
    match outcome {
        ReplayOutcome::Applied => ("applied", "it took effect now"),
        ReplayOutcome::AlreadyApplied => ("already applied", "it had taken effect before; nothing changed"),
        ReplayOutcome::Ignored => ("ignored", "it changes nothing"),
        ReplayOutcome::DeadAgain => ("dead again", ""),
        ReplayOutcome::Waiting => ("waiting", "it waits in the retry tiers"),
        ReplayOutcome::Failed => ("failed", "it is the dead letter that it was"),
    }
}

async fn discard(client: &Client, screen: &mut Screen<'_>, request: Discard) -> Result<Verdict> {
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
mod tests {
    use wxpay_shared::admin::ReplayResult;

    use super::*;

    fn text(write: impl FnOnce(&mut Screen<'_>) -> Result<()>) -> String {
        let mut out = Vec::new();
        write(&mut Screen::new(&mut out, Some(100), false)).unwrap();
        String::from_utf8(out).unwrap()
    }

    const LETTER: &str = r#"{
        "id": "0198a5e2-7a54-7cc0-b5a9-f4a93a0a6a10", "reason": "unknown_order", "detail": "order dev/A1 is not registered",
        "cure": "Register the order, then replay.", "merchant": "dev", "out_trade_no": "A1",
        "transaction_id": "4200009999202603180000000001", "amount": "8800", "received_at": "2026-03-18T02:20:30Z",
        "attempts": 1,
        "history": [{"at": "2026-03-18T02:20:31Z", "worker": "shop-1-77", "error": "unknown_order"}],
        "fields": {"openid": "***", "total_fee": "8800"}
    }"#;

    #[test]
    fn a_list_says_what_and_why() {
        let letter = LETTER.replace('\n', " ");
        let list = format!(r#"{{"dead_letters": [{letter}], "matching": 3, "by_reason": {{"unknown_order": 3}}}}"#);
        insta::assert_snapshot!(text(|screen| show_list(screen, &serde_json::from_str(&list)?)), @r"
         id                                     order    amount     reason
        ───────────────────────────────────────────────────────────────────────────────────────────
         0198a5e2-7a54-7cc0-b5a9-f4a93a0a6a10   dev/A1   8800 fen   unknown_order
         2026-03-18 10:20:30+08:00                                  order dev/A1 is not registered

        1 of 3 shown; --limit shows more
        ");
    }

    #[test]
    fn a_dead_letter_says_how_to_cure_it() {
        insta::assert_snapshot!(text(|screen| show(screen, &serde_json::from_str(LETTER)?)), @r"
        dead letter 0198a5e2-7a54-7cc0-b5a9-f4a93a0a6a10
          reason          unknown_order
          detail          order dev/A1 is not registered
          cure            Register the order, then replay.
          merchant        dev
          out_trade_no    A1
          transaction_id  4200009999202603180000000001
          amount          8800 fen
          received        2026-03-18 10:20:30+08:00
          attempts        1

        attempts, oldest first
         failed                      worker      error
        ───────────────────────────────────────────────────────
         2026-03-18 10:20:31+08:00   shop-1-77   unknown_order

        the notification's fields
          openid     ***
          total_fee  8800

        once cured:  wxpayctl dlq replay 0198a5e2-7a54-7cc0-b5a9-f4a93a0a6a10
        ");
    }

    #[test]
    fn a_replay_tells_of_each() {
        let result = |last: char, outcome, detail: &str| ReplayResult {
            id: NotificationId::parse(&format!("0198a5e2-7a54-7cc0-b5a9-f4a93a0a6a1{last}")).unwrap(),
            outcome,
            detail: detail.to_owned(),
        };
        let replayed = Replayed {
            results: vec![
                result('0', ReplayOutcome::Applied, ""),
                result('1', ReplayOutcome::AlreadyApplied, ""),
                result('2', ReplayOutcome::DeadAgain, "amount_mismatch: order 1999 fen, paid 1 fen"),
            ],
            left: 4,
        };
        insta::assert_snapshot!(text(|screen| show_replayed(screen, &replayed)), @r"
         id                                     outcome           detail
        ────────────────────────────────────────────────────────────────────────────────────────────────────
         0198a5e2-7a54-7cc0-b5a9-f4a93a0a6a10   applied           it took effect now
         0198a5e2-7a54-7cc0-b5a9-f4a93a0a6a11   already applied   it had taken effect before; nothing
                                                                  changed
         0198a5e2-7a54-7cc0-b5a9-f4a93a0a6a12   dead again        amount_mismatch: order 1999 fen, paid 1
                                                                  fen

        3 replayed: 1 already applied, 1 applied, 1 dead again
        4 more match: run it again, or with a larger --limit
        ");
    }
}
