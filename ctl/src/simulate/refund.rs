//! `wxpayctl simulate refund`: the notification of a refund, in either protocol.

use anyhow::{Result, anyhow, bail};
use clap::ValueEnum;
use wxpay_shared::{
    clock::{Clock as _, SystemClock},
    event::RefundStatus,
    fen::Fen,
    ids::{OutRefundNo, OutTradeNo, RefundId, TransactionId},
};

use super::{
    Api,
    faults::{Faults, Repeat, other_v2_key},
    merchant::{Keys, MerchantArgs, Target},
    play::{Play, shown},
};
use crate::{
    random,
    wechat_sender::{new_refund_id, v2, v3},
};

#[derive(Debug, clap::Args)]
pub(super) struct Refund {
    /// The protocol.
    #[arg(long, value_enum, default_value_t = Api::V2)]
    api: Api,
    #[command(flatten)]
    merchant: MerchantArgs,

    /// The order whose payment is given back.
    #[arg(long, value_parser = OutTradeNo::parse)]
    out_trade_no: OutTradeNo,
    /// What was paid, in fen.
    #[arg(long, value_name = "FEN", value_parser = Fen::parse)]
    amount: Fen,
    /// WeChat's number for the payment; `wxpayctl orders show` has it.
    #[arg(long, value_parser = TransactionId::parse)]
    transaction_id: TransactionId,
    /// What is given back, in fen; all of it unless given.
    #[arg(long, value_name = "FEN", value_parser = Fen::parse)]
    refund_amount: Option<Fen>,
    /// The merchant's number for the refund; a new one unless given.
    #[arg(long, value_parser = OutRefundNo::parse)]
    out_refund_no: Option<OutRefundNo>,
    /// WeChat's number for the refund; a new one unless given. The same number again is the same refund.
    #[arg(long, value_parser = RefundId::parse)]
    refund_id: Option<RefundId>,
    /// How the refund ended.
    #[arg(long, value_enum, default_value_t = Status::Success)]
    status: Status,
    #[command(flatten)]
    repeat: Repeat,

    /// Says that another amount had been paid.
    #[arg(long, value_name = "FEN", value_parser = Fen::parse)]
    wrong_amount: Option<Fen>,
    #[command(flatten)]
    faults: Faults,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Status {
    /// The payer has the money.
    Success,
    /// WeChat could not pay it out: a dead letter for a person.
    Abnormal,
    /// It was called off.
    Closed,
}

impl Refund {
    pub(super) fn play(&self) -> Result<Play> {
        let Target { url, payee, keys } = self.merchant.target(self.api)?;
        let refund = self.refund()?;
        let (outgoing, shown) = match keys {
            Keys::V2(key) => {
                self.faults.only_v2s()?;
                if self.faults.unsigned {
                    bail!("--unsigned: only with --api v3, since no v2 refund is signed");
                }
                let other = other_v2_key()?;
                let mut notice = v2::Notice::refund(&payee, &refund, self.faults.v2_key(&key, &other));
                if self.faults.tamper {
                    notice = notice.with_damaged_req_info();
                }
                let mut shown = shown::v2(&notice);
                shown.extend(refund.fields().into_iter().map(|(name, value)| (format!("req_info.{name}"), value)));
                (notice.outgoing(), shown)
            }
            Keys::V3 { api, platform, serial } => {
                let notice = v3::Notice::refund(&payee, &refund);
                let outgoing = self.faults.v3(&notice, &api, &platform, &serial)?;
                let shown = shown::v3(&outgoing, &notice);
                (outgoing, shown)
            }
        };
        Ok(Play {
            url,
            outgoing,
            shown,
            facts: vec![
                ("out_trade_no", refund.out_trade_no.to_string()),
                ("transaction_id", refund.transaction_id.to_string()),
                ("out_refund_no", refund.out_refund_no.to_string()),
                ("refund_id", refund.refund_id.to_string()),
            ],
            refused: self.faults.must_be_refused(),
            repeat: self.repeat.clone(),
        })
    }

    fn refund(&self) -> Result<v2::Refund> {
        let at = SystemClock.now();
        let new_number = || OutRefundNo::parse(&format!("R{}", random::digits::<12>()));
        let out_refund_no = self.out_refund_no.clone().map_or_else(new_number, Ok);
        Ok(v2::Refund {
            out_trade_no: self.out_trade_no.clone(),
            transaction_id: self.transaction_id.clone(),
            out_refund_no: out_refund_no.map_err(|error| anyhow!("{error}"))?,
            refund_id: self.refund_id.clone().unwrap_or_else(|| new_refund_id(at)),
            total: self.wrong_amount.unwrap_or(self.amount),
            amount: self.refund_amount.unwrap_or(self.amount),
            status: match self.status {
                Status::Success => RefundStatus::Success,
                Status::Abnormal => RefundStatus::Abnormal,
                Status::Closed => RefundStatus::Closed,
            },
            at,
        })
    }
}
