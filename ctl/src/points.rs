//! `wxpayctl points`: a points account and its latest ledger entries.

use anyhow::Result;
use clap::Subcommand;
use wxpay_shared::ids::{MerchantName, UserId};

use crate::{
    cli::Verdict,
    client::AdminArgs,
    screen::{Grid, Screen, time},
};

/// `wxpayctl points`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    admin: AdminArgs,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Shows the balance of an account and its latest ledger entries, newest first.
    #[command(after_help = "Example:\n  wxpayctl points show dev alice")]
    Show {
        /// The merchant's name in the configuration.
        #[arg(value_parser = MerchantName::parse)]
        merchant: MerchantName,
        /// The user that the order was registered with, or the payer's openid.
        #[arg(value_parser = UserId::parse)]
        user: UserId,
    },
}

pub(crate) async fn run(args: Args, screen: &mut Screen<'_>) -> Result<Verdict> {
    let Action::Show { merchant, user } = args.action;
    let account = args.admin.client()?.points(&merchant, &user).await?;
    if screen.is_json() {
        screen.json(&account)?;
        return Ok(Verdict::Fine);
    }
    screen.line(format_args!("{} of {}: {} points", account.user.as_str(), account.merchant, account.balance))?;
    if !account.ledger.is_empty() {
        screen.line("\nlatest ledger entries, newest first")?;
        let mut grid = Grid::new(["written", "points", "balance", "order"]).right(1).right(2);
        for entry in &account.ledger {
            let (points, balance) = (format!("{:+}", entry.points), entry.balance.to_string());
            grid.row([time(entry.at), points, balance, entry.order.out_trade_no.to_string()]);
        }
        screen.table(grid)?;
    }
    Ok(Verdict::Fine)
}
