//! A v2 notification as WeChat writes it: a signed payment, or a refund in its ciphertext.

use std::collections::BTreeMap;

use jiff::{Timestamp, tz};
use wxpay_shared::{
    envelope::Api,
    event::RefundStatus,
    fen::Fen,
    ids::{OutRefundNo, OutTradeNo, RefundId, TransactionId},
    wechat::{
        keys::V2Key,
        sender::seal_req_info,
        v2_sender,
        v2_sign::{SignType, digest},
        v2_xml::Fields,
    },
};

use super::{Outgoing, Payee, new_transaction_id};
use crate::random;

/// A notification of APIv2: its fields, in the order in which WeChat writes them.
#[derive(Clone)]
pub struct Notice {
    fields: BTreeMap<String, String>,
}

/// Values are personal and names are not.
impl std::fmt::Debug for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.fields.keys()).finish()
    }
}

/// A refund as WeChat tells of it.
#[derive(Clone, Debug)]
pub struct Refund {
    /// The order.
    pub out_trade_no: OutTradeNo,
    /// The payment that is given back.
    pub transaction_id: TransactionId,
    /// The merchant's number for the refund.
    pub out_refund_no: OutRefundNo,
    /// WeChat's number for it.
    pub refund_id: RefundId,
    /// What was paid.
    pub total: Fen,
    /// What is given back.
    pub amount: Fen,
    /// How it ended.
    pub status: RefundStatus,
    /// When.
    pub at: Timestamp,
}

impl Notice {
    /// The notification of a successful payment, not signed yet. The transaction and the nonce are new each time.
    #[must_use]
    pub fn payment(payee: &Payee, out_trade_no: &OutTradeNo, total_fee: Fen, now: Timestamp) -> Self {
        let paid_at = tz::offset(8).to_datetime(now);
        Self::outer(payee)
            .with("result_code", "SUCCESS")
            .with("openid", "oSIMULATEDpayer0000000000001")
            .with("is_subscribe", "N")
            .with("trade_type", "JSAPI")
            .with("bank_type", "OTHERS")
            .with("fee_type", "CNY")
            .with("cash_fee", total_fee.get().to_string())
            .with("out_trade_no", out_trade_no.as_str())
            .with("time_end", paid_at.strftime("%Y%m%d%H%M%S").to_string())
            .with("transaction_id", new_transaction_id(now).as_str())
            .with("total_fee", total_fee.get().to_string())
    }

    /// The notification of a refund: the outer part, and the refund encrypted under this key.
    #[must_use]
    pub fn refund(payee: &Payee, refund: &Refund, key: &V2Key) -> Self {
        let inner = v2_sender::document("root", refund.fields().iter().map(|(name, value)| (*name, value.as_str())));
        Self::outer(payee).with("req_info", seal_req_info(key, &inner))
    }

    /// What payments and refunds share.
    fn outer(payee: &Payee) -> Self {
        let mut notice = Self { fields: BTreeMap::new() }
            .with("return_code", "SUCCESS")
            .with("appid", payee.appid.as_str())
            .with("mch_id", payee.mch_id.as_str())
            .with("nonce_str", random::hex_digits::<16>());
        if let Some(sub_mch_id) = &payee.sub_mch_id {
            notice = notice.with("sub_mch_id", sub_mch_id.as_str());
        }
        if let Some(sub_appid) = &payee.sub_appid {
            notice = notice.with("sub_appid", sub_appid.as_str());
        }
        notice
    }

    /// The same with this field, new or changed.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.fields.insert(name.to_owned(), value.into());
        self
    }

    /// The same, paid in part by one rechargeable coupon of this much: `cash_fee` is lower, `total_fee` is not.
    #[must_use]
    pub fn with_coupon(self, coupon: Fen) -> Self {
        let total = Fen::parse(self.get("total_fee")).unwrap_or(Fen::ZERO);
        let coupon_fee = coupon.get().to_string();
        self.with("cash_fee", total.saturating_sub(coupon).get().to_string())
            .with("coupon_fee", coupon_fee.clone())
            .with("coupon_count", "1")
            .with("coupon_type_0", "CASH")
            .with("coupon_id_0", random::digits::<10>())
            .with("coupon_fee_0", coupon_fee)
    }

    /// The same with the `sign` of its fields as they are now.
    ///
    /// # Panics
    /// For more than 128 fields, which only a caller's own loop can make.
    #[must_use]
    pub fn signed(self, key: &V2Key, sign_type: SignType) -> Self {
        let fields = Fields::from_pairs(self.iter()).expect("a few dozen fields of different names");
        let sign = digest(&fields, key, sign_type);
        drop(fields);
        self.with("sign", sign)
    }

    /// The same, its ciphertext damaged at the beginning: it no longer opens to XML.
    #[must_use]
    pub fn with_damaged_req_info(self) -> Self {
        let sealed = self.get("req_info");
        let other = if sealed.starts_with('A') { "B" } else { "A" };
        let damaged = format!("{other}{}", sealed.get(1..).unwrap_or_default());
        self.with("req_info", damaged)
    }

    /// A field's value; empty where it is absent.
    #[must_use]
    pub fn get(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    /// Names and values, in the order of the document.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// What WeChat posts.
    #[must_use]
    pub fn outgoing(&self) -> Outgoing {
        Outgoing { api: Api::V2, headers: Vec::new(), body: v2_sender::document("xml", self.iter()) }
    }
}

impl From<Notice> for Outgoing {
    fn from(notice: Notice) -> Self {
        notice.outgoing()
    }
}

impl Refund {
    /// The fields of the inner XML, as the vendor's page lists them.
    #[must_use]
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        let status = match self.status {
            RefundStatus::Success => "SUCCESS",
            RefundStatus::Abnormal => "CHANGE",
            RefundStatus::Closed => "REFUNDCLOSE",
        };
        let (total, amount) = (self.total.get().to_string(), self.amount.get().to_string());
        let mut fields = vec![
            ("out_refund_no", self.out_refund_no.to_string()),
            ("out_trade_no", self.out_trade_no.to_string()),
            ("refund_account", "REFUND_SOURCE_RECHARGE_FUNDS".to_owned()),
            ("refund_fee", amount.clone()),
            ("refund_id", self.refund_id.to_string()),
            ("refund_recv_accout", "支付用户零钱".to_owned()),
            ("refund_request_source", "API".to_owned()),
            ("refund_status", status.to_owned()),
            ("settlement_refund_fee", amount),
            ("settlement_total_fee", total.clone()),
            ("total_fee", total),
            ("transaction_id", self.transaction_id.to_string()),
        ];
        if self.status == RefundStatus::Success {
            let time = tz::offset(8).to_datetime(self.at).strftime("%Y-%m-%d %H:%M:%S").to_string();
            fields.push(("success_time", time));
        }
        fields
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;
    use wxpay_shared::{
        ids::{AppId, MchId, MerchantName},
        wechat::{
            merchant_ids::MerchantIds,
            v2_payment::{self, Notice as Read},
            v2_refund,
            v2_sign::{SignRefusal, verify},
            v2_xml,
        },
    };

    use super::*;

    fn key() -> V2Key {
        V2Key::parse("192006250b4c09247ec02edce69f6a2d").unwrap()
    }

    fn payee() -> Payee {
        let (mch_id, appid) = (MchId::parse("1900990001").unwrap(), AppId::parse("wx1").unwrap());
        Payee { mch_id, appid, sub_mch_id: None, sub_appid: None }
    }

    fn notice() -> Notice {
        let order = OutTradeNo::parse("A1001").unwrap();
        Notice::payment(&payee(), &order, Fen::new(8800).unwrap(), "2026-03-18T02:20:30Z".parse().unwrap())
    }

    fn ids() -> MerchantIds {
        let Payee { mch_id, appid, .. } = payee();
        MerchantIds { mch_id, appids: vec![appid], sub_mch_ids: Vec::new(), sub_appids: Vec::new() }
    }

    fn verdict(notice: &Notice) -> Result<(), SignRefusal> {
        verify(&v2_xml::parse(notice.outgoing().body.as_bytes(), "xml").unwrap(), &key())
    }

    #[test]
    fn a_signed_notice_is_what_ingress_and_worker_read() {
        for sign_type in [SignType::Md5, SignType::HmacSha256] {
            let notice = notice().with("attach", "a&b=c <]]>").with_coupon(Fen::new(800).unwrap());
            let xml = notice.signed(&key(), sign_type).outgoing().body;
            let fields = v2_xml::parse(xml.as_bytes(), "xml").unwrap();
            assert_eq!(verify(&fields, &key()), Ok(()));
            let Ok(Read::Paid(payment)) = v2_payment::read(&fields, &MerchantName::parse("dev").unwrap(), &ids())
            else {
                panic!("expected a payment")
            };
            assert_eq!(payment.amount, Fen::new(8800).unwrap());
            assert_eq!(payment.transaction_id.as_str().len(), 28);
            assert_eq!(payment.success_time, "2026-03-18T02:20:30Z".parse().unwrap());
            assert_eq!((fields.get("cash_fee"), fields.get("coupon_fee")), (Some("8000"), Some("800")));
        }
    }

    #[test]
    fn what_is_changed_on_the_way_no_longer_verifies() {
        let honest = notice().signed(&key(), SignType::Md5);
        assert_eq!(verdict(&honest), Ok(()));
        assert_eq!(verdict(&honest.with("total_fee", "1")), Err(SignRefusal::Wrong));
        assert_eq!(verdict(&notice()), Err(SignRefusal::Missing));
    }

    #[test]
    fn a_sealed_refund_is_what_ingress_and_worker_read() {
        let at = "2026-03-18T02:20:30Z".parse().unwrap();
        let refund = Refund {
            out_trade_no: OutTradeNo::parse("A1001").unwrap(),
            transaction_id: new_transaction_id(at),
            out_refund_no: OutRefundNo::parse("R1").unwrap(),
            refund_id: super::super::new_refund_id(at),
            total: Fen::new(8800).unwrap(),
            amount: Fen::new(800).unwrap(),
            status: RefundStatus::Success,
            at,
        };
        let notice = Notice::refund(&payee(), &refund, &key());
        let xml = v2_refund::open_req_info(&key(), notice.get("req_info")).unwrap();
        let inner = v2_xml::parse(xml.expose_secret().as_bytes(), "root").unwrap();
        let merchant = MerchantName::parse("dev").unwrap();
        let read = v2_refund::read_refund(|name| inner.get(name), &merchant, payee().mch_id).unwrap();
        assert_eq!((read.refund_id, read.success_time), (refund.refund_id, Some(at)));
        let damaged = notice.with_damaged_req_info();
        let opened = v2_refund::open_req_info(&key(), damaged.get("req_info"));
        assert!(opened.is_err(), "the first block is random bytes, which are hardly UTF-8 and never the root's tag");
    }

    #[test]
    fn a_notice_shows_no_values() {
        assert!(!format!("{:?}", notice()).contains("SIMULATED"));
    }
}
