//! `wxpayctl simulate pay`: the notification of a payment, in either protocol.

use anyhow::{Result, bail};
use wxpay_shared::{
    clock::{Clock as _, SystemClock},
    fen::Fen,
    ids::{OpenId, OutTradeNo, TransactionId},
    wechat::{keys::V2Key, v2_sign::SignType},
};

use super::{
    Api,
    faults::{Faults, Repeat, other_v2_key},
    merchant::{Keys, MerchantArgs, Target},
    play::{Play, shown},
};
use crate::wechat_sender::{
    Payee, new_transaction_id,
    v2::Notice,
    v3::{self, SubOrder},
};

#[derive(Debug, clap::Args)]
pub(super) struct Pay {
    /// The protocol.
    #[arg(long, value_enum, default_value_t = Api::V2)]
    api: Api,
    #[command(flatten)]
    merchant: MerchantArgs,

    /// The order that is paid.
    #[arg(long, value_parser = OutTradeNo::parse)]
    out_trade_no: OutTradeNo,
    /// What it costs, in fen.
    #[arg(long, value_name = "FEN", value_parser = Fen::parse)]
    amount: Fen,
    /// WeChat's number for the payment; a new one unless given. The same number again is the same payment.
    #[arg(long, value_parser = TransactionId::parse)]
    transaction_id: Option<TransactionId>,
    /// v2: who pays.
    #[arg(long, value_parser = OpenId::parse)]
    openid: Option<OpenId>,
    /// The text that the order brought along.
    #[arg(long)]
    attach: Option<String>,
    /// Pays this much of it with a coupon: `cash_fee` or `payer_total` is lower, the total stays.
    #[arg(long, value_name = "FEN", value_parser = Fen::parse)]
    coupon: Option<Fen>,
    #[command(flatten)]
    repeat: Repeat,
    /// v2: signs with HMAC-SHA256 instead of MD5.
    #[arg(long, conflicts_with = "unsigned")]
    hmac: bool,
    /// v2: adds the `sign_type` field, which WeChat usually leaves out; one that does not fit the signature is a fault.
    #[arg(long, value_name = "TYPE")]
    sign_type: Option<String>,

    /// Says, rightly signed, that another amount was paid.
    #[arg(long, value_name = "FEN", value_parser = Fen::parse)]
    wrong_amount: Option<Fen>,
    #[command(flatten)]
    faults: Faults,
}

impl Pay {
    pub(super) fn play(&self) -> Result<Play> {
        let Target { url, payee, keys } = self.merchant.target(self.api)?;
        let now = SystemClock.now();
        let transaction_id = self.transaction_id.clone().unwrap_or_else(|| new_transaction_id(now));
        let paid = self.wrong_amount.unwrap_or(self.amount);
        if self.coupon.is_some_and(|coupon| coupon > paid) {
            bail!("--coupon: expected at most the amount, {} fen", paid.get());
        }
        let (outgoing, shown) = match keys {
            Keys::V2(key) => {
                let notice = self.v2(&payee, &transaction_id, paid, &key)?;
                (notice.outgoing(), shown::v2(&notice))
            }
            Keys::V3 { api, platform, serial } => {
                if self.hmac || self.sign_type.is_some() || self.openid.is_some() {
                    bail!("--hmac, --sign-type and --openid: only with --api v2");
                }
                let part = SubOrder {
                    out_trade_no: self.out_trade_no.clone(),
                    transaction_id: transaction_id.clone(),
                    total: paid,
                };
                let coupon = self.coupon.unwrap_or(Fen::ZERO);
                let attach = self.attach.as_deref().unwrap_or_default();
                let notice = v3::Notice::payment(&payee, &part, coupon, attach, now);
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
                ("out_trade_no", self.out_trade_no.to_string()),
                ("transaction_id", transaction_id.to_string()),
            ],
            refused: self.faults.must_be_refused() || !self.sign_type_fits(),
            repeat: self.repeat.clone(),
        })
    }

    fn v2(&self, payee: &Payee, transaction_id: &TransactionId, paid: Fen, key: &V2Key) -> Result<Notice> {
        self.faults.only_v2s()?;
        let mut notice = Notice::payment(payee, &self.out_trade_no, paid, SystemClock.now())
            .with("transaction_id", transaction_id.as_str());
        for (name, value) in [
            ("openid", self.openid.as_ref().map(OpenId::as_str)),
            ("attach", self.attach.as_deref()),
            ("sign_type", self.sign_type.as_deref()),
        ] {
            if let Some(value) = value {
                notice = notice.with(name, value);
            }
        }
        if let Some(coupon) = self.coupon {
            notice = notice.with_coupon(coupon);
        }
        if !self.faults.unsigned {
            let other = other_v2_key()?;
            let sign_type = if self.hmac { SignType::HmacSha256 } else { SignType::Md5 };
            notice = notice.signed(self.faults.v2_key(key, &other), sign_type);
        }
        Ok(if self.faults.tamper { notice.with("bank_type", "TAMPERED") } else { notice })
    }

    fn sign_type_fits(&self) -> bool {
        match self.sign_type.as_deref() {
            None | Some("") => true,
            Some("MD5") => !self.hmac,
            Some("HMAC-SHA256") => self.hmac,
            Some(_) => false,
        }
    }
}
