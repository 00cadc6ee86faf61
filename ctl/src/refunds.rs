//! `wxpayctl refunds`: tells the worker of a refund before it is requested from WeChat.

use anyhow::Result;
use clap::Subcommand;
use wxpay_shared::{
    admin::RegisterRefund,
    fen::Fen,
    ids::{MerchantName, OutRefundNo, OutTradeNo},
};

use crate::{
    cli::Verdict,
    client::AdminArgs,
    screen::{Screen, money},
};

/// `wxpayctl refunds`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    admin: AdminArgs,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Registers a refund of an order before it is requested. The same registration again changes nothing.
    #[command(after_help = "\
Example:
  wxpayctl refunds register dev A1001 R1 800

A refund notice under this number must then have this amount; one with another becomes a dead letter. A merchant with
refunds = \"registered-only\" takes no other refunds at all. Another amount for a known number is a conflict: nothing
changes, and the exit code is 1.")]
    Register {
        /// The merchant's name in the configuration.
        #[arg(value_parser = MerchantName::parse)]
        merchant: MerchantName,
        /// The order's number, 商户订单号.
        #[arg(value_parser = OutTradeNo::parse)]
        out_trade_no: OutTradeNo,
        /// The merchant's number for the refund, 商户退款单号.
        #[arg(value_parser = OutRefundNo::parse)]
        out_refund_no: OutRefundNo,
        /// How much is to be given back, in fen.
        #[arg(value_parser = Fen::parse)]
        amount_fen: Fen,
    },
}

pub(crate) async fn run(args: Args, screen: &mut Screen<'_>) -> Result<Verdict> {
    let client = args.admin.client()?;
    let Action::Register { merchant, out_trade_no, out_refund_no, amount_fen } = args.action;
    let refund = RegisterRefund { out_refund_no: out_refund_no.clone(), amount: amount_fen };
    let order = client.register_refund(&merchant, &out_trade_no, &refund).await?;
    if screen.is_json() {
        screen.json(&order)?;
    } else {
        let amount = money(amount_fen, &order.currency);
        screen
            .line(format_args!("refund {out_refund_no} of order {merchant}/{out_trade_no} is registered: {amount}"))?;
    }
    Ok(Verdict::Fine)
}
