//! `wxpayctl simulate combine` and `simulate event`: what only v3 has.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::json;
use wxpay_shared::{
    clock::{Clock as _, SystemClock},
    fen::Fen,
    ids::OutTradeNo,
};

use super::{
    Api,
    faults::{Faults, Repeat},
    merchant::{Keys, MerchantArgs, Target},
    play::{Play, shown},
};
use crate::{
    random,
    wechat_sender::{Payee, new_transaction_id, v3},
};

#[derive(Debug, clap::Args)]
pub(super) struct Combine {
    #[command(flatten)]
    merchant: MerchantArgs,
    /// An order that is paid, and its amount in fen; once for each.
    #[arg(long = "order", value_name = "OUT_TRADE_NO=FEN", required = true, value_parser = part)]
    orders: Vec<v3::SubOrder>,
    #[command(flatten)]
    repeat: Repeat,
    #[command(flatten)]
    faults: Faults,
}

#[derive(Debug, clap::Args)]
pub(super) struct Event {
    /// The `event_type`, `COUPON.USE` for instance.
    #[arg(value_name = "TYPE")]
    event_type: String,
    #[command(flatten)]
    merchant: MerchantArgs,
    /// A JSON file with the content before it is encrypted; the merchant's number alone unless given.
    #[arg(long, value_name = "FILE")]
    content: Option<PathBuf>,
    #[command(flatten)]
    repeat: Repeat,
    #[command(flatten)]
    faults: Faults,
}

impl Combine {
    pub(super) fn play(&self) -> Result<Play> {
        let number = OutTradeNo::parse(&format!("C{}", random::digits::<12>())).map_err(|error| anyhow!("{error}"))?;
        let notice = |payee: &Payee| Ok(v3::Notice::combined(payee, &number, &self.orders, SystemClock.now()));
        let orders = self.orders.iter().map(|part| part.out_trade_no.to_string()).collect::<Vec<_>>().join(", ");
        play(&self.merchant, &self.faults, &self.repeat, notice, vec![("out_trade_no", orders)])
    }
}

impl Event {
    pub(super) fn play(&self) -> Result<Play> {
        let notice = |payee: &Payee| {
            let content = match &self.content {
                None => json!({ "mchid": payee.mch_id.as_str() }),
                Some(file) => {
                    let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
                    serde_json::from_slice(&text).map_err(|_| anyhow!("{}: expected JSON", file.display()))?
                }
            };
            Ok(v3::Notice::event(&self.event_type, content))
        };
        play(&self.merchant, &self.faults, &self.repeat, notice, Vec::new())
    }
}

fn play(
    merchant: &MerchantArgs,
    faults: &Faults,
    repeat: &Repeat,
    notice: impl FnOnce(&Payee) -> Result<v3::Notice>,
    facts: Vec<(&'static str, String)>,
) -> Result<Play> {
    let Target { url, payee, keys } = merchant.target(Api::V3)?;
    let Keys::V3 { api, platform, serial } = keys else { bail!("only v3 has this notification") };
    let notice = notice(&payee)?;
    let outgoing = faults.v3(&notice, &api, &platform, &serial)?;
    let shown = shown::v3(&outgoing, &notice);
    Ok(Play { url, outgoing, shown, facts, refused: faults.must_be_refused(), repeat: repeat.clone() })
}

fn part(text: &str) -> Result<v3::SubOrder, String> {
    let (number, amount) = text.split_once('=').ok_or("expected OUT_TRADE_NO=FEN")?;
    let out_trade_no = OutTradeNo::parse(number).map_err(|error| error.to_string())?;
    let total = Fen::parse(amount).map_err(|error| error.to_string())?;
    Ok(v3::SubOrder { out_trade_no, transaction_id: new_transaction_id(SystemClock.now()), total })
}
