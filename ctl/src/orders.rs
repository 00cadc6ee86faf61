//! `wxpayctl orders`: register an order before its payment, look at it, close it.

use anyhow::Result;
use clap::Subcommand;
use wxpay_shared::{
    admin::{OrderView, RegisterOrder},
    fen::Fen,
    ids::{AppId, Currency, MerchantName, OutTradeNo, UserId},
    points::PointsRate,
    store::LedgerEntry,
};

use crate::{
    cli::Verdict,
    client::AdminArgs,
    screen::{Grid, Screen, code, money, time},
};

/// `wxpayctl orders`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    admin: AdminArgs,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Registers an order before its payment. The same registration again changes nothing.
    #[command(after_help = "\
Example:
  wxpayctl orders register dev A1001 8800 --user alice --points 1/100

Another amount for a known order is a conflict: nothing changes, and the exit code is 1.")]
    Register(Register),
    /// Shows an order: state, money, points, payments, refunds and its points ledger.
    #[command(after_help = "Example:\n  wxpayctl orders show dev A1001")]
    Show(Order),
    /// Closes an unpaid order, so that a late payment becomes a dead letter instead of paying it.
    #[command(after_help = "Example:\n  wxpayctl orders close dev A1001")]
    Close(Order),
}

#[derive(Debug, clap::Args)]
struct Order {
    /// The merchant's name in the configuration.
    #[arg(value_parser = MerchantName::parse)]
    merchant: MerchantName,
    /// The merchant's order number, 商户订单号.
    #[arg(value_parser = OutTradeNo::parse)]
    out_trade_no: OutTradeNo,
}

#[derive(Debug, clap::Args)]
struct Register {
    #[command(flatten)]
    order: Order,
    /// What it costs in fen: the `total_fee` of the prepay request.
    #[arg(value_parser = Fen::parse)]
    amount_fen: Fen,
    /// The currency; CNY unless given.
    #[arg(long, value_name = "CODE", value_parser = Currency::parse)]
    currency: Option<Currency>,
    /// Whose points it earns; the payer's openid unless given.
    #[arg(long, value_parser = UserId::parse)]
    user: Option<UserId>,
    /// The application it must be paid through; any of the merchant's unless given.
    #[arg(long, value_parser = AppId::parse)]
    appid: Option<AppId>,
    /// Points per fen, such as 1/100 for one point a yuan; the merchant's rate unless given.
    #[arg(long, value_name = "POINTS/FEN")]
    points: Option<PointsRate>,
}

pub(crate) async fn run(args: Args, screen: &mut Screen<'_>) -> Result<Verdict> {
    let client = args.admin.client()?;
    match args.action {
        Action::Register(register) => {
            let Order { merchant, out_trade_no } = register.order;
            let order = RegisterOrder {
                merchant,
                out_trade_no,
                amount: register.amount_fen,
                currency: register.currency,
                user: register.user,
                appid: register.appid,
                points: register.points,
            };
            let (new, order) = client.register(&order).await?;
            registered(screen, new, &order)?;
        }
        Action::Show(Order { merchant, out_trade_no }) => {
            show(screen, &client.order(&merchant, &out_trade_no).await?)?;
        }
        Action::Close(Order { merchant, out_trade_no }) => {
            let order = client.close(&merchant, &out_trade_no).await?;
            if screen.is_json() {
                screen.json(&order)?;
            } else {
                screen.line(format_args!("order {}/{} is closed", order.merchant, order.out_trade_no))?;
            }
        }
    }
    Ok(Verdict::Fine)
}

fn registered(screen: &mut Screen<'_>, new: bool, order: &OrderView) -> Result<()> {
    if screen.is_json() {
        return screen.json(order);
    }
    let what = if new { "registered" } else { "is known, with the same facts" };
    let amount = money(order.amount, &order.currency);
    let state = code(&order.state);
    screen.line(format_args!("order {}/{} {what}: {amount}, {state}", order.merchant, order.out_trade_no))
}

fn show(screen: &mut Screen<'_>, order: &OrderView) -> Result<()> {
    if screen.is_json() {
        return screen.json(order);
    }
    screen.line(format_args!("order {}/{}: {}", order.merchant, order.out_trade_no, code(&order.state)))?;
    let account = order.user.as_ref().map_or("whoever pays", |user| user.as_str());
    screen.facts(&[
        ("amount", Some(money(order.amount, &order.currency))),
        ("received", Some(money(order.received, &order.currency))),
        ("kept", Some(money(order.kept, &order.currency))),
        ("points", Some(format!("{} for {account}, at {} per fen", order.points, order.points_rate))),
        ("appid", order.appid.as_ref().map(ToString::to_string)),
        ("registered", Some(time(order.registered_at))),
        ("closed", order.closed_at.map(time)),
        ("refunds known", announced(order)),
    ])?;
    payments(screen, order)?;
    refunds(screen, order)?;
    if !order.ledger.is_empty() {
        screen.line("\npoints ledger, oldest first")?;
        ledger(screen, &order.ledger)?;
    }
    Ok(())
}

/// Refunds that were registered beforehand, whether WeChat has told of them or not.
fn announced(order: &OrderView) -> Option<String> {
    let refunds = order.registered_refunds.iter();
    let refunds: Vec<_> = refunds.map(|(number, amount)| format!("{number}: {amount}")).collect();
    (!refunds.is_empty()).then(|| refunds.join(", "))
}

fn payments(screen: &mut Screen<'_>, order: &OrderView) -> Result<()> {
    if order.payments.is_empty() {
        return Ok(());
    }
    screen.line("\npayments")?;
    let mut grid = Grid::new(["transaction_id", "amount", "paid", "note"]).whole(0);
    for payment in &order.payments {
        let note = payment.rejection.as_ref().map(ToString::to_string).unwrap_or_default();
        grid.row([
            payment.transaction_id.to_string(),
            money(payment.amount, &order.currency),
            time(payment.success_time),
            note,
        ]);
    }
    screen.table(grid)
}

fn refunds(screen: &mut Screen<'_>, order: &OrderView) -> Result<()> {
    if order.refunds.is_empty() {
        return Ok(());
    }
    screen.line("\nrefunds")?;
    let mut grid = Grid::new(["refund_id, out_refund_no", "status", "amount", "arrived", "note"]).whole(0);
    for refund in &order.refunds {
        grid.row([
            format!("{}\n{}", refund.refund_id, refund.out_refund_no),
            code(&refund.status),
            money(refund.amount, &order.currency),
            refund.success_time.map(time).unwrap_or_default(),
            refund.rejection.as_ref().map(ToString::to_string).unwrap_or_default(),
        ]);
    }
    screen.table(grid)
}

fn ledger(screen: &mut Screen<'_>, entries: &[LedgerEntry]) -> Result<()> {
    let mut grid = Grid::new(["written", "points", "balance", "event"]).right(1).right(2);
    for entry in entries {
        grid.row([time(entry.at), format!("{:+}", entry.points), entry.balance.to_string(), entry.event.to_string()]);
    }
    screen.table(grid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: &str = r#"{
        "merchant": "dev", "out_trade_no": "A1001", "state": "paid", "amount": 8800, "currency": "CNY",
        "user": "alice", "appid": null, "points_rate": "1/100", "received": 17600, "kept": 17600, "points": 88,
        "registered_at": "2026-03-18T02:20:00Z", "closed_at": null,
        "payments": [
            {"transaction_id": "4200009999202603180000000001", "amount": 8800, "success_time": "2026-03-18T02:20:30Z",
             "notification": "0198a5e2-7a54-7cc0-b5a9-f4a93a0a6a10", "rejection": null},
            {"transaction_id": "4200009999202603180000000002", "amount": 8800, "success_time": "2026-03-18T02:21:30Z",
             "notification": "0198a5e2-7a54-7cc0-b5a9-f4a93a0a6a11",
             "rejection": {"reason": "surplus_payment", "detail": "the order was paid before"}}
        ],
        "refunds": [],
        "ledger": [{"account": {"merchant": "dev", "user": "alice"},
            "order": {"merchant": "dev", "out_trade_no": "A1001"},
            "event": "pay:1900990001:4200009999202603180000000001",
            "points": 88, "balance": 188, "at": "2026-03-18T02:20:31Z"}]
    }"#;

    fn shown(width: u16, json: bool) -> String {
        let mut out = Vec::new();
        show(&mut Screen::new(&mut out, Some(width), json), &serde_json::from_str(ORDER).unwrap()).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_order_tells_its_story() {
        insta::assert_snapshot!(shown(120, false), @r"
        order dev/A1001: paid
          amount      8800 fen (88.00 yuan)
          received    17600 fen (176.00 yuan)
          kept        17600 fen (176.00 yuan)
          points      88 for alice, at 1/100 per fen
          registered  2026-03-18 10:20:00+08:00

        payments
         transaction_id                 amount                  paid                        note
        ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
         4200009999202603180000000001   8800 fen (88.00 yuan)   2026-03-18 10:20:30+08:00
         4200009999202603180000000002   8800 fen (88.00 yuan)   2026-03-18 10:21:30+08:00   surplus_payment: the order was paid
                                                                                            before

        points ledger, oldest first
         written                     points   balance   event
        ────────────────────────────────────────────────────────────────────────────────────────────
         2026-03-18 10:20:31+08:00      +88       188   pay:1900990001:4200009999202603180000000001
        ");
    }

    #[test]
    fn a_program_gets_the_apis_own_json() {
        let order: OrderView = serde_json::from_str(&shown(80, true)).unwrap();
        assert_eq!(order.payments.len(), 2);
    }
}
