//! `wxpayctl dlq show`: one dead letter with everything that is known about it.

use std::collections::BTreeMap;

use anyhow::Result;
use wxpay_shared::admin::{DeadLetterView, OrderNow, Standing};

use super::{audit, list};
use crate::screen::{Grid, Screen, code, money, time};

pub(super) fn show(screen: &mut Screen<'_>, letter: &DeadLetterView) -> Result<()> {
    if screen.is_json() {
        return screen.json(letter);
    }
    screen.line(format_args!("dead letter {}", letter.id))?;
    let named = &letter.named;
    let others: Vec<_> = letter.others.iter().map(|named| list::order(letter, named)).collect();
    let seal = if letter.sealed { "fits" } else { "does not fit: this is not what ingress accepted" };
    screen.facts(&[
        ("reason", Some(letter.reason.to_string())),
        ("detail", Some(letter.detail.clone())),
        ("cure", Some(letter.cure.clone())),
        ("merchant", letter.merchant.clone()),
        ("out_trade_no", named.out_trade_no.clone()),
        ("transaction_id", named.transaction_id.clone()),
        ("out_refund_no", named.out_refund_no.clone()),
        ("amount", named.amount.as_ref().map(|amount| format!("{amount} fen"))),
        ("also names", (!others.is_empty()).then(|| others.join(", "))),
        ("first seen", letter.received_at.map(time)),
        ("attempts", Some(letter.attempts.to_string())),
        ("replays", Some(letter.replays.to_string())),
        ("seal", Some(seal.to_owned())),
    ])?;
    history(screen, letter)?;
    fields(screen, "the notification's fields", &letter.fields)?;
    fields(screen, "what it holds encrypted", &letter.content)?;
    if let Some(problem) = &letter.unreadable {
        screen.line(format_args!("\nno more can be read of it: {problem}"))?;
    }
    letter.orders.iter().try_for_each(|order| order_now(screen, order))?;
    screen.line(format_args!("\nonce cured:        wxpayctl dlq replay {}", letter.id))?;
    screen.line(format_args!("nothing to apply:  wxpayctl dlq discard {} --reason '…'", letter.id))
}

fn history(screen: &mut Screen<'_>, letter: &DeadLetterView) -> Result<()> {
    if !letter.history.is_empty() {
        screen.line("\nattempts, oldest first")?;
        let mut grid = Grid::new(["failed", "worker", "error"]);
        for attempt in &letter.history {
            grid.row([time(attempt.at), attempt.worker.clone(), attempt.error.clone()]);
        }
        screen.table(grid)?;
    }
    if !letter.actions.is_empty() {
        screen.line("\nwhat people did with it, oldest first")?;
        let mut grid = Grid::new(["when", "what", "who, why", "result"]);
        for entry in &letter.actions {
            let [when, what, who, result] = audit::cells(entry);
            grid.row([when, what, who, result]);
        }
        screen.table(grid)?;
    }
    Ok(())
}

fn fields(screen: &mut Screen<'_>, title: &str, fields: &BTreeMap<String, String>) -> Result<()> {
    if fields.is_empty() {
        return Ok(());
    }
    screen.line(format_args!("\n{title}"))?;
    let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), Some(value.clone()))).collect();
    screen.facts(&fields)
}

fn order_now(screen: &mut Screen<'_>, order: &OrderNow) -> Result<()> {
    screen.line(format_args!("\norder {} as it is now", order.order))?;
    match &order.standing {
        Standing::NotRegistered => screen.line("  it is not registered"),
        Standing::Unknown { problem } => screen.line(format_args!("  {problem}")),
        Standing::Registered { state, amount, currency, received, refunded, points } => screen.facts(&[
            ("state", Some(code(state))),
            ("amount", Some(money(*amount, currency))),
            ("received", Some(money(*received, currency))),
            ("refunded", Some(money(*refunded, currency))),
            ("points", Some(points.to_string())),
        ]),
    }
}
