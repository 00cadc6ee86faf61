//! `wxpayctl simulate`: plays WeChat to any receiver and says whether the reply is the one that it should get.

use anyhow::Result;
use clap::{Subcommand, ValueEnum};
use wxpay_shared::envelope;

use crate::{cli::Verdict, screen::Screen};

mod merchant;
mod faults;
mod pay;
mod refund;
mod others;
mod play;

/// `wxpayctl simulate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

/// Which protocol WeChat speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Api {
    /// XML, with the merchant's API key.
    V2,
    /// JSON, with the platform's signature.
    V3,
}

impl From<Api> for envelope::Api {
    fn from(api: Api) -> Self {
        match api {
            Api::V2 => Self::V2,
            Api::V3 => Self::V3,
        }
    }
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Posts the notification of a payment, honest or with a fault.
    #[command(after_help = "\
Examples:
  wxpayctl simulate pay --config wxpay.toml --merchant shop --out-trade-no A1001 --amount 8800
  wxpayctl simulate pay --config wxpay.toml --merchant shop --out-trade-no A1001 --amount 8800 --times 5 --parallel
  wxpayctl simulate pay --api v3 --config wxpay-data/dev.toml --merchant dev --out-trade-no A1001 --amount 8800 --probe
  wxpayctl simulate pay --url https://pay.example.com/v2/shop --mch-id 1900000109 --appid wxd678efh567hg6787 \\
      --key-file secrets/shop-v2-key --out-trade-no A1001 --amount 8800 --tamper

An honest notification must be answered SUCCESS (v3: status 200 or 204), also one that cannot be applied: it becomes a
dead letter. One that is not WeChat's (--tamper, --wrong-key, --unsigned, --probe, --stale 301, --unknown-serial, a
wrong --sign-type) must be answered FAIL (v3: a status of 4xx or 5xx). The exit code is 1 where the reply is another.

v3 is signed with the platform's private key, which only WeChat has: the development merchant has one of its own; a
receiver of your own needs a key pair that you made, its public half configured as a platform key.")]
    Pay(Box<pay::Pay>),
    /// Posts the notification of a refund, honest or with a fault.
    #[command(after_help = "\
Examples:
  wxpayctl simulate refund --config wxpay.toml --merchant shop --out-trade-no A1001 --amount 8800 \\
      --transaction-id 4200000001202603180000000001
  ... --refund-amount 800 --out-refund-no R1     a part of it, under the number of `wxpayctl refunds register`
  ... --api v3 --status abnormal                 one that WeChat could not pay out: a dead letter

A refund before its payment is simply this command first, and `simulate pay` with the same --transaction-id after it.
A v2 refund has no signature: it is encrypted under the API key, and --wrong-key takes another one.")]
    Refund(Box<refund::Refund>),
    /// Posts one v3 notification for the payment of several orders.
    #[command(after_help = "\
Example:
  wxpayctl simulate combine --config wxpay-data/dev.toml --merchant dev --order A1001=8800 --order A1002=1200")]
    Combine(Box<others::Combine>),
    /// Posts a v3 notification of any other type, which a receiver acknowledges and ignores.
    #[command(after_help = "\
Examples:
  wxpayctl simulate event COUPON.USE --config wxpay-data/dev.toml --merchant dev
  wxpayctl simulate event TRANSACTION.SUCCESS --content profit-sharing.json --config wxpay-data/dev.toml --merchant dev")]
    Event(Box<others::Event>),
}

pub(crate) async fn run(args: Args, screen: &mut Screen<'_>) -> Result<Verdict> {
    let play = match &args.action {
        Action::Pay(pay) => pay.play()?,
        Action::Refund(refund) => refund.play()?,
        Action::Combine(combine) => combine.play()?,
        Action::Event(event) => event.play()?,
    };
    play.run(screen).await
}
