//! `wxpayctl dlq list`: what is there, and why.

use anyhow::Result;
use wxpay_shared::{
    admin::{DeadLetterList, DeadLetterView, Named, PAGE},
    reason::Reason,
};

use super::{Filters, reason};
use crate::{
    cli::Verdict,
    client::Client,
    screen::{Grid, Screen, count, time},
};

/// `wxpayctl dlq list`.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("which").multiple(true)))]
pub(super) struct Args {
    /// Only those with this reason.
    #[arg(long, visible_alias = "reason", value_name = "CODE", value_parser = reason)]
    with_reason: Option<Reason>,
    #[command(flatten)]
    filters: Filters,
    /// How many are listed at most.
    #[arg(long, default_value_t = PAGE)]
    limit: usize,
    /// Goes on where another list ended; it says how.
    #[arg(long)]
    page: Option<String>,
    /// Ends with exit code 1 if any matches.
    #[arg(long)]
    check: bool,
}

pub(super) async fn run(client: &Client, screen: &mut Screen<'_>, args: Args) -> Result<Verdict> {
    let select = args.filters.select(Vec::new(), args.with_reason, false);
    let found = client.dead_letters(&select, args.limit, args.page).await?;
    show(screen, &found)?;
    Ok(Verdict::found_if(args.check && found.matching > 0))
}

pub(super) fn show(screen: &mut Screen<'_>, list: &DeadLetterList) -> Result<()> {
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
    let mut grid = Grid::new(["id, first seen", "order", "amount", "tried", "reason"]).whole(0).whole(3);
    for letter in &list.dead_letters {
        grid.row([
            format!("{}\n{}", letter.id, letter.received_at.map(time).unwrap_or_default()),
            each(letter, |named| Some(order(letter, named))),
            each(letter, |named| named.amount.as_ref().map(|amount| format!("{amount} fen"))),
            tried(letter),
            format!("{}\n{}", letter.reason, letter.detail),
        ]);
    }
    screen.table(grid)?;
    let shown = list.dead_letters.len();
    match &list.next {
        Some(next) => screen.line(format_args!("\n{shown} of {} shown; the next ones: --page '{next}'", list.matching)),
        None if shown < list.matching => screen.line(format_args!("\nthe last {shown} of {}", list.matching)),
        None => screen.line(format_args!("\n{}", count(shown, "dead letter"))),
    }
}

/// One line for each order that a dead letter names.
fn each(letter: &DeadLetterView, tell: impl Fn(&Named) -> Option<String>) -> String {
    let all = std::iter::once(&letter.named).chain(&letter.others);
    all.map(|named| tell(named).unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// `merchant/out_trade_no`, as far as the dead letter says so.
pub(super) fn order(letter: &DeadLetterView, named: &Named) -> String {
    let (merchant, order) = (letter.merchant.as_deref().unwrap_or("?"), named.out_trade_no.as_deref().unwrap_or("?"));
    match &named.out_refund_no {
        Some(refund) => format!("{merchant}/{order}\nrefund {refund}"),
        None => format!("{merchant}/{order}"),
    }
}

/// Attempts, and earlier replays.
fn tried(letter: &DeadLetterView) -> String {
    let attempts = format!("{}×", letter.attempts);
    match letter.replays {
        0 => attempts,
        replays => format!("{attempts}\n{}", count(usize::try_from(replays).unwrap_or(usize::MAX), "replay")),
    }
}
