//! A v3 notification as WeChat writes it: the content sealed for one merchant, the body signed by the platform.

use anyhow::{Result, anyhow};
use jiff::{Timestamp, tz};
use serde_json::{Value, json};
use wxpay_shared::{
    envelope::Api,
    event::RefundStatus,
    fen::Fen,
    ids::{OutTradeNo, TransactionId},
    wechat::{
        keys::ApiV3Key,
        sender::{RESOURCE_NONCE_LEN, SigningKey, notice_body, seal_resource},
        v3_sign::SIGNATURE,
    },
};

use super::{Outgoing, Payee, v2::Refund};
use crate::random;

/// WeChat marks the signatures by which it tests whether a receiver checks them at all.
pub const PROBE_PREFIX: &str = "WECHATPAY/SIGNTEST/";
const OPENID: &str = "oSIMULATEDpayer0000000000001";

/// A notification of `APIv3`, its content in clear.
#[derive(Clone)]
pub struct Notice {
    event_type: String,
    original_type: &'static str,
    content: Value,
}

/// Values are personal and the type is not.
impl std::fmt::Debug for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notice").field("event_type", &self.event_type).finish_non_exhaustive()
    }
}

/// A part of a combined payment.
#[derive(Clone, Debug)]
pub struct SubOrder {
    /// The order.
    pub out_trade_no: OutTradeNo,
    /// The payment.
    pub transaction_id: TransactionId,
    /// What was paid.
    pub total: Fen,
}

impl Notice {
    /// A successful payment, of which the payer paid `coupon` with a coupon.
    #[must_use]
    pub fn payment(payee: &Payee, part: &SubOrder, coupon: Fen, attach: &str, now: Timestamp) -> Self {
        let payer = if payee.sub_mch_id.is_some() { "sp_openid" } else { "openid" };
        let mut content = json!({
            "out_trade_no": part.out_trade_no.as_str(),
            "transaction_id": part.transaction_id.as_str(),
            "trade_type": "JSAPI",
            "trade_state": "SUCCESS",
            "trade_state_desc": "支付成功",
            "bank_type": "OTHERS",
            "attach": attach,
            "success_time": rfc3339(now),
            "payer": { payer: OPENID },
            "amount": {
                "total": part.total.get(), "payer_total": part.total.saturating_sub(coupon).get(),
                "currency": "CNY", "payer_currency": "CNY",
            },
        });
        if payee.sub_mch_id.is_some() {
            content["sp_appid"] = payee.appid.as_str().into();
        } else {
            content["appid"] = payee.appid.as_str().into();
        }
        if let Some(sub_appid) = &payee.sub_appid {
            content["sub_appid"] = sub_appid.as_str().into();
        }
        name_merchant(&mut content, payee);
        Self { event_type: "TRANSACTION.SUCCESS".to_owned(), original_type: "transaction", content }
    }

    /// One payment of several orders.
    #[must_use]
    pub fn combined(payee: &Payee, combine_out_trade_no: &OutTradeNo, parts: &[SubOrder], now: Timestamp) -> Self {
        let sub_order = |part: &SubOrder| {
            let mut order = json!({
                "mchid": payee.mch_id.as_str(),
                "out_trade_no": part.out_trade_no.as_str(),
                "transaction_id": part.transaction_id.as_str(),
                "trade_type": "JSAPI",
                "trade_state": "SUCCESS",
                "bank_type": "OTHERS",
                "attach": "",
                "success_time": rfc3339(now),
                "amount": {
                    "total_amount": part.total.get(), "payer_amount": part.total.get(),
                    "currency": "CNY", "payer_currency": "CNY",
                },
            });
            if let Some(sub_mch_id) = &payee.sub_mch_id {
                order["sub_mchid"] = sub_mch_id.as_str().into();
            }
            if let Some(sub_appid) = &payee.sub_appid {
                order["sub_appid"] = sub_appid.as_str().into();
            }
            order
        };
        let content = json!({
            "combine_appid": payee.appid.as_str(),
            "combine_mchid": payee.mch_id.as_str(),
            "combine_out_trade_no": combine_out_trade_no.as_str(),
            "combine_payer_info": { "openid": OPENID },
            "sub_orders": parts.iter().map(sub_order).collect::<Vec<_>>(),
        });
        Self { event_type: "TRANSACTION.SUCCESS".to_owned(), original_type: "transaction", content }
    }

    /// A refund that reached its end.
    #[must_use]
    pub fn refund(payee: &Payee, refund: &Refund) -> Self {
        let status = match refund.status {
            RefundStatus::Success => "SUCCESS",
            RefundStatus::Abnormal => "ABNORMAL",
            RefundStatus::Closed => "CLOSED",
        };
        let mut content = json!({
            "out_trade_no": refund.out_trade_no.as_str(),
            "transaction_id": refund.transaction_id.as_str(),
            "out_refund_no": refund.out_refund_no.as_str(),
            "refund_id": refund.refund_id.as_str(),
            "refund_status": status,
            "user_received_account": "支付用户零钱",
            "amount": {
                "total": refund.total.get(), "refund": refund.amount.get(),
                "payer_total": refund.total.get(), "payer_refund": refund.amount.get(),
            },
        });
        if refund.status == RefundStatus::Success {
            content["success_time"] = rfc3339(refund.at).into();
        }
        name_merchant(&mut content, payee);
        Self { event_type: format!("REFUND.{status}"), original_type: "refund", content }
    }

    /// Any other event.
    #[must_use]
    pub fn event(event_type: &str, content: Value) -> Self {
        Self { event_type: event_type.to_owned(), original_type: "transaction", content }
    }

    /// The type.
    #[must_use]
    pub fn event_type(&self) -> &str {
        &self.event_type
    }

    /// The content before it is encrypted, one line a member.
    #[must_use]
    pub fn facts(&self) -> Vec<(String, String)> {
        let mut facts = Vec::new();
        flatten("", &self.content, &mut facts);
        facts
    }

    /// The body, with the content sealed under this key.
    #[must_use]
    pub fn sealed(&self, key: &ApiV3Key, now: Timestamp) -> String {
        let nonce = random::hex_digits::<{ RESOURCE_NONCE_LEN / 2 }>();
        let nonce = nonce.as_bytes().try_into().expect("two digits a byte");
        let resource = seal_resource(key, nonce, self.original_type, self.content.to_string().as_bytes());
        let id = format!("EV-{}", random::digits::<30>());
        notice_body(&id, now, &self.event_type, &resource)
    }
}

/// A body with WeChat's signature of this moment.
///
/// # Errors
/// Where the key cannot sign.
pub fn signed(body: String, key: &SigningKey, at: Timestamp) -> Result<Outgoing> {
    let headers = key.sign(at, &random::hex_digits::<16>(), body.as_bytes());
    let headers = headers.map_err(|error| anyhow!("the platform key: {error}"))?;
    Ok(Outgoing { api: Api::V3, headers: headers.into(), body })
}

/// The same with a signature by which WeChat tests whether signatures are checked.
#[must_use]
pub fn probing(outgoing: Outgoing) -> Outgoing {
    let signature = format!("{PROBE_PREFIX}{}", outgoing.header(SIGNATURE));
    outgoing.with_header(SIGNATURE, signature)
}

fn name_merchant(content: &mut Value, payee: &Payee) {
    if let Some(sub_mch_id) = &payee.sub_mch_id {
        content["sp_mchid"] = payee.mch_id.as_str().into();
        content["sub_mchid"] = sub_mch_id.as_str().into();
    } else {
        content["mchid"] = payee.mch_id.as_str().into();
    }
}

fn rfc3339(at: Timestamp) -> String {
    tz::offset(8).to_datetime(at).strftime("%Y-%m-%dT%H:%M:%S+08:00").to_string()
}

fn flatten(path: &str, value: &Value, facts: &mut Vec<(String, String)>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(members) => members.iter().for_each(|(name, value)| flatten(&below(name), value, facts)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, value)| flatten(&format!("{path}[{index}]"), value, facts));
        }
        Value::String(text) => facts.push((path.to_owned(), text.clone())),
        Value::Null | Value::Bool(_) | Value::Number(_) => facts.push((path.to_owned(), value.to_string())),
    }
}
