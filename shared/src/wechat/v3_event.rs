//! What a v3 notification says happened: from its body to facts, or to the reason why there is none.
//!
//! `event_type` alone does not tell a payment: profit sharing may come as `TRANSACTION.SUCCESS` too, and one notice may
//! carry the payments of several orders. So the content's shape decides, and only what an order depends on is read.
//! Source: the vendor's pages on payment, combined payment and refund result notices, for merchants and for service
//! providers.

use super::{
    json::Object,
    merchant_ids::MerchantIds,
    v3_resource::{self, ApiV3Keys},
};
use crate::{
    event::{Fact, Payment, Refund, RefundStatus},
    ids::{AppId, Currency, MchId, MerchantName, OpenId, OrderId, OutRefundNo, OutTradeNo, RefundId, TransactionId},
    reason::{Reason, Rejection},
};

/// What becomes of one thing that a notification reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is to be applied.
    Fact(Fact),
    /// It is WeChat's word and changes nothing.
    Ignored(Ignored),
    /// It is WeChat's word and cannot be applied.
    Rejected(Rejection),
}

/// Why an authentic notification changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// A type that this project does not handle; `?` where it is not a name.
    EventType(String),
    /// A payment that has not succeeded; only WeChat's own states are named, others are `?`.
    TradeState(String),
    /// Profit sharing, 分账, under a payment's `event_type`.
    ProfitSharing,
}

impl Ignored {
    /// A payment in this state, as the notification names it.
    #[must_use]
    pub fn trade_state(name: &str) -> Self {
        Self::TradeState(shown(name))
    }
}

/// Reads a whole notification, as ingress accepted it. Content of a type that is not handled is not even decrypted.
///
/// Never empty: one outcome for each payment or refund in it, or one for the notification as a whole.
#[must_use]
pub fn open(body: &[u8], merchant: &MerchantName, ids: &MerchantIds, keys: &ApiV3Keys) -> Vec<Outcome> {
    let opened = || {
        let event_type = v3_resource::event_type(body)?;
        if Kind::of(&event_type).is_none() {
            return Ok(vec![Outcome::Ignored(Ignored::EventType(shown(&event_type)))]);
        }
        let notice = v3_resource::parse(body)?;
        let plaintext = v3_resource::open(&notice.resource, keys)?;
        Ok(read(&notice.event_type, plaintext.expose(), merchant, ids))
    };
    opened().unwrap_or_else(|rejection| vec![Outcome::Rejected(rejection)])
}

/// Reads the content of a notification of this `event_type`. Never empty, as [`open`].
#[must_use]
pub fn read(event_type: &str, plaintext: &[u8], merchant: &MerchantName, ids: &MerchantIds) -> Vec<Outcome> {
    let Some(kind) = Kind::of(event_type) else {
        return vec![Outcome::Ignored(Ignored::EventType(shown(event_type)))];
    };
    let Some(content) = Object::parse(plaintext) else {
        let detail = "the decrypted content is not a JSON object with distinct names";
        return vec![Outcome::Rejected(Rejection::new(Reason::Unopenable, detail))];
    };
    let reader = Reader { merchant, ids };
    match kind {
        Kind::Refund(status) => vec![outcome(reader.refund(&content, status))],
        Kind::Transaction if content.has("sub_orders") => reader.combined(&content),
        Kind::Transaction => vec![outcome(reader.payment(&content))],
    }
}

/// The event types that are handled.
enum Kind {
    Transaction,
    Refund(RefundStatus),
}

impl Kind {
    fn of(event_type: &str) -> Option<Self> {
        match event_type {
            "TRANSACTION.SUCCESS" => Some(Self::Transaction),
            "REFUND.SUCCESS" => Some(Self::Refund(RefundStatus::Success)),
            "REFUND.ABNORMAL" => Some(Self::Refund(RefundStatus::Abnormal)),
            "REFUND.CLOSED" => Some(Self::Refund(RefundStatus::Closed)),
            _ => None,
        }
    }
}

struct Reader<'a> {
    merchant: &'a MerchantName,
    ids: &'a MerchantIds,
}

/// What the parts of a combined payment share, or a payment's own.
struct Payer {
    appid: AppId,
    openid: Option<OpenId>,
}

impl Reader<'_> {
    fn payment(&self, content: &Object<'_>) -> Result<Outcome, Rejection> {
        let sharing = content.has("order_id") || content.has("out_order_no");
        if sharing && !content.has("trade_state") && !content.has("amount") {
            return Ok(Outcome::Ignored(Ignored::ProfitSharing));
        }
        if let Some(ignored) = unfinished(content)? {
            return Ok(Outcome::Ignored(ignored));
        }
        let mchid = self.mchid(content)?;
        let (appid_member, openid_member) =
            if content.has("sp_appid") { ("sp_appid", "sp_openid") } else { ("appid", "openid") };
        let appid = content.required_text(appid_member)?;
        let appid = self.ids.check_appid(&appid, content.text("sub_appid")?.as_deref())?;
        let openid = match content.optional_object("payer")? {
            Some(payer) => payer.optional_id(openid_member, OpenId::parse)?,
            None => None,
        };
        self.fact(content, "total", mchid, Payer { appid, openid })
    }

    fn combined(&self, content: &Object<'_>) -> Vec<Outcome> {
        let common = || {
            self.ids.check_own_mchid(&content.required_text("combine_mchid")?)?;
            let appid = self.ids.check_appid(&content.required_text("combine_appid")?, None)?;
            let openid = match content.optional_object("combine_payer_info")? {
                Some(payer) => payer.optional_id("openid", OpenId::parse)?,
                None => None,
            };
            Ok((appid, openid, content.list("sub_orders")?))
        };
        let (appid, openid, orders) = match common() {
            Ok(common) => common,
            Err(rejection) => return vec![Outcome::Rejected(rejection)],
        };
        let sub_order = |order: Result<Object<'_>, Rejection>| {
            let order = order?;
            if let Some(ignored) = unfinished(&order)? {
                return Ok(Outcome::Ignored(ignored));
            }
            let mchid = self.mchid(&order)?;
            self.ids.check_appid(appid.as_str(), order.text("sub_appid")?.as_deref())?;
            self.fact(&order, "total_amount", mchid, Payer { appid: appid.clone(), openid: openid.clone() })
        };
        orders.into_iter().map(|order| outcome(sub_order(order))).collect()
    }

    fn fact(&self, content: &Object<'_>, total: &str, mchid: MchId, payer: Payer) -> Result<Outcome, Rejection> {
        let amount = content.object("amount")?;
        Ok(Outcome::Fact(Fact::Payment(Payment {
            order: self.order(content)?,
            mchid,
            appid: payer.appid,
            transaction_id: content.id("transaction_id", TransactionId::parse)?,
            amount: amount.fen(total)?,
            currency: amount.optional_id("currency", Currency::parse)?.unwrap_or_else(Currency::cny),
            payer: payer.openid,
            success_time: content
                .time("success_time")?
                .ok_or_else(|| content.invalid("success_time", "a time as RFC 3339 writes it"))?,
        })))
    }

    fn refund(&self, content: &Object<'_>, status: RefundStatus) -> Result<Outcome, Rejection> {
        let expected = match status {
            RefundStatus::Success => "SUCCESS",
            RefundStatus::Abnormal => "ABNORMAL",
            RefundStatus::Closed => "CLOSED",
        };
        if content.required_text("refund_status")? != expected {
            return Err(content.invalid("refund_status", &format!("{expected}, as event_type says")));
        }
        let mchid = self.mchid(content)?;
        let amount = content.object("amount")?;
        let (total, refunded) = (amount.fen("total")?, amount.fen("refund")?);
        if refunded > total {
            return Err(amount.invalid("refund", "at most amount.total"));
        }
        Ok(Outcome::Fact(Fact::Refund(Refund {
            order: self.order(content)?,
            mchid,
            transaction_id: content.id("transaction_id", TransactionId::parse)?,
            refund_id: content.id("refund_id", RefundId::parse)?,
            out_refund_no: content.id("out_refund_no", OutRefundNo::parse)?,
            total,
            amount: refunded,
            status,
            success_time: if status == RefundStatus::Success { content.time("success_time")? } else { None },
            must_be_announced: false,
        })))
    }

    /// A service provider's notices say `sp_mchid` for their own number, except in the parts of a combined payment.
    fn mchid(&self, content: &Object<'_>) -> Result<MchId, Rejection> {
        let member = if content.has("sp_mchid") { "sp_mchid" } else { "mchid" };
        self.ids.check_mchid(&content.required_text(member)?, content.text("sub_mchid")?.as_deref())
    }

    fn order(&self, content: &Object<'_>) -> Result<OrderId, Rejection> {
        let out_trade_no = content.id("out_trade_no", OutTradeNo::parse)?;
        Ok(OrderId { merchant: self.merchant.clone(), out_trade_no })
    }
}

/// `Some` where a payment has not succeeded.
fn unfinished(content: &Object<'_>) -> Result<Option<Ignored>, Rejection> {
    let state = content.required_text("trade_state")?;
    Ok(if state == "SUCCESS" { None } else { Some(Ignored::trade_state(&state)) })
}

fn outcome(result: Result<Outcome, Rejection>) -> Outcome {
    result.unwrap_or_else(Outcome::Rejected)
}

/// A name of WeChat's, fit for a log line.
fn shown(name: &str) -> String {
    let plain = name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if plain { name } else { "?" }.to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn ids(sub_mch_ids: &[&str]) -> MerchantIds {
        MerchantIds {
            mch_id: MchId::parse("1900990001").unwrap(),
            appids: vec![AppId::parse("wxa").unwrap()],
            sub_mch_ids: sub_mch_ids.iter().map(|id| MchId::parse(id).unwrap()).collect(),
            sub_appids: vec![AppId::parse("wxsub").unwrap()],
        }
    }

    fn outcomes(event_type: &str, content: &Value, sub_mch_ids: &[&str]) -> Vec<Outcome> {
        let merchant = MerchantName::parse("shop").unwrap();
        read(event_type, content.to_string().as_bytes(), &merchant, &ids(sub_mch_ids))
    }

    fn only(event_type: &str, content: &Value) -> Outcome {
        let mut outcomes = outcomes(event_type, content, &[]);
        assert_eq!(outcomes.len(), 1);
        outcomes.remove(0)
    }

    fn payment() -> Value {
        json!({
            "mchid": "1900990001", "appid": "wxa", "out_trade_no": "A1", "transaction_id": "42", "trade_state": "SUCCESS",
            "success_time": "2026-03-18T10:20:27+08:00", "payer": {"openid": "oPayer"},
            "amount": {"total": 8800, "payer_total": 8300, "currency": "CNY"},
        })
    }

    fn refund(status: &str) -> Value {
        json!({
            "mchid": "1900990001", "out_trade_no": "A1", "transaction_id": "42", "out_refund_no": "R1", "refund_id": "50",
            "refund_status": status, "success_time": "2026-03-18T10:20:27+08:00",
            "amount": {"total": 8800, "refund": 3960, "payer_total": 8300},
        })
    }

    /// What the first rejection says after `content[path]` was replaced, or removed where there is no value.
    fn rejected(event_type: &str, mut content: Value, path: &str, value: Option<Value>) -> Option<String> {
        let (parent, name) = path.rsplit_once('/').unwrap();
        let parent = content.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        match value {
            Some(value) => drop(parent.insert(name.to_owned(), value)),
            None => drop(parent.remove(name)),
        }
        outcomes(event_type, &content, &[]).into_iter().find_map(|outcome| match outcome {
            Outcome::Rejected(rejection) => Some(rejection.to_string()),
            Outcome::Fact(_) | Outcome::Ignored(_) => None,
        })
    }

    #[test]
    fn a_payment_is_read_with_the_orders_amount_and_not_the_payers() {
        let Outcome::Fact(Fact::Payment(paid)) = only("TRANSACTION.SUCCESS", &payment()) else { panic!("no payment") };
        assert_eq!(paid.amount.get(), 8800);
        assert_eq!(paid.order.to_string(), "shop/A1");
        assert_eq!((paid.mchid.as_str(), paid.appid.as_str(), paid.currency), ("1900990001", "wxa", Currency::cny()));
        assert_eq!(paid.payer.unwrap().as_str(), "oPayer");
        assert_eq!(paid.success_time.to_string(), "2026-03-18T02:20:27Z");
    }

    #[test]
    fn what_no_order_needs_may_have_any_type_or_be_absent() {
        let pay = |path, value| rejected("TRANSACTION.SUCCESS", payment(), path, value);
        for detail in [json!([{"wechatpay_contribute": "100"}]), json!([{"wechatpay_contribute": 100}]), json!(7)] {
            assert_eq!(pay("/promotion_detail", Some(detail)), None);
        }
        assert_eq!(pay("/trade_type", Some(json!("NEWTYPE"))), None);
        for time in ["2026-03-18T02:20:27Z", "2026-03-18T10:20:27.123+08:00", "2026-03-17T18:20:27-08:00"] {
            assert_eq!(pay("/success_time", Some(json!(time))), None, "{time}");
        }
        assert_eq!(pay("/amount/payer_total", Some(json!("8300"))), None);
        assert_eq!(pay("/payer", None), None);
        assert_eq!(pay("/payer/openid", Some(json!(""))), None);
        assert_eq!(pay("/amount/currency", None), None);
        assert_eq!(rejected("REFUND.SUCCESS", refund("SUCCESS"), "/success_time", None), None);
    }

    #[test]
    fn a_member_that_is_wrong_is_named_and_never_quoted() {
        for (path, value) in [
            ("/amount", None),
            ("/amount/total", None),
            ("/amount/total", Some(json!("8800"))),
            ("/amount/total", Some(json!(8800.0))),
            ("/amount/total", Some(json!(-1))),
            ("/amount/total", Some(json!(0))),
            ("/amount/currency", Some(json!("cny"))),
            ("/out_trade_no", None),
            ("/out_trade_no", Some(json!("secret text"))),
            ("/transaction_id", Some(json!(42))),
            ("/success_time", None),
            ("/success_time", Some(json!("2026-03-18 10:20:27"))),
            ("/success_time", Some(json!("2026-03-18T10:20:60+08:00"))),
            ("/success_time", Some(json!("2026-03-18T10:20+08:00"))),
            ("/success_time", Some(json!("20260318T102027+08"))),
            ("/success_time", Some(json!("2026-03-18T10:20:27.+08:00"))),
            ("/success_time", Some(json!("2026-03-18T10:20:27+08:00[Asia/Shanghai]"))),
            ("/payer/openid", Some(json!("secret text"))),
            ("/trade_state", None),
            ("/mchid", None),
            ("/appid", Some(json!("secret text"))),
        ] {
            let text = rejected("TRANSACTION.SUCCESS", payment(), path, value).unwrap();
            let member = path[1..].replace('/', ".");
            assert!(text.starts_with(&format!("invalid_field: {member}: expected ")), "{path}: {text}");
            assert!(!text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn another_merchants_payment_is_a_mismatch() {
        let pay = |path, value: &str| rejected("TRANSACTION.SUCCESS", payment(), path, Some(json!(value))).unwrap();
        assert!(pay("/mchid", "1900990777").starts_with("merchant_mismatch"));
        assert!(pay("/sub_mchid", "1900990777").starts_with("merchant_mismatch"));
        assert!(pay("/appid", "wxother").starts_with("appid_mismatch"));
        assert!(pay("/sub_appid", "wxother").starts_with("appid_mismatch"));
    }

    #[test]
    fn what_is_no_finished_payment_is_ignored() {
        let mut content = payment();
        content["trade_state"] = json!("NOTPAY");
        let ignored = Outcome::Ignored(Ignored::TradeState("NOTPAY".to_owned()));
        assert_eq!(only("TRANSACTION.SUCCESS", &content), ignored);
        let sharing = json!({"mchid": "1900990001", "transaction_id": "42", "order_id": "3", "out_order_no": "P1",
            "receiver": {"type": "MERCHANT_ID", "amount": 888}, "success_time": "2026-03-18T10:20:27+08:00"});
        assert_eq!(only("TRANSACTION.SUCCESS", &sharing), Outcome::Ignored(Ignored::ProfitSharing));
        for (event_type, shown) in
            [("COUPON.USE", "COUPON.USE"), ("transaction.success", "transaction.success"), ("a b\n", "?")]
        {
            let ignored = Outcome::Ignored(Ignored::EventType(shown.to_owned()));
            assert_eq!(only(event_type, &payment()), ignored);
        }
    }

    #[test]
    fn a_refund_ends_as_its_status_says_if_event_type_agrees() {
        for (code, status, timed) in [
            ("SUCCESS", RefundStatus::Success, true),
            ("ABNORMAL", RefundStatus::Abnormal, false),
            ("CLOSED", RefundStatus::Closed, false),
        ] {
            let Outcome::Fact(Fact::Refund(refund)) = only(&format!("REFUND.{code}"), &refund(code)) else {
                panic!("no refund")
            };
            assert_eq!((refund.status, refund.success_time.is_some()), (status, timed));
            assert_eq!((refund.total.get(), refund.amount.get()), (8800, 3960));
        }
        let back = |path, value| rejected("REFUND.SUCCESS", refund("SUCCESS"), path, value).unwrap();
        for status in ["CLOSED", "PROCESSING", "SUCCESS2"] {
            assert!(back("/refund_status", Some(json!(status))).starts_with("invalid_field: refund_status: "));
        }
        assert!(back("/refund_status", None).starts_with("invalid_field: refund_status: "));
        assert!(back("/amount/refund", Some(json!(8801))).starts_with("invalid_field: amount.refund: "));
        assert!(back("/amount/refund", Some(json!("3960"))).starts_with("invalid_field: amount.refund: "));
        assert!(back("/refund_id", None).starts_with("invalid_field: refund_id: "));
        assert!(back("/mchid", Some(json!("1"))).starts_with("merchant_mismatch"));
    }

    #[test]
    fn a_providers_notice_needs_a_known_sub_merchant() {
        let mut content = payment();
        let members = content.as_object_mut().unwrap();
        members.remove("mchid");
        members.remove("appid");
        members.extend(
            json!({"sp_mchid": "1900990001", "sp_appid": "wxa", "sub_mchid": "77", "sub_appid": "wxsub",
            "payer": {"sp_openid": "oProvider", "sub_openid": "oSub"}})
            .as_object()
            .unwrap()
            .clone(),
        );
        let [Outcome::Fact(Fact::Payment(paid))] = &outcomes("TRANSACTION.SUCCESS", &content, &["77"])[..] else {
            panic!("no payment")
        };
        assert_eq!((paid.mchid.as_str(), paid.payer.as_ref().unwrap().as_str()), ("1900990001", "oProvider"));
        for sub_mch_ids in [&["78"][..], &[]] {
            let [Outcome::Rejected(rejection)] = &outcomes("TRANSACTION.SUCCESS", &content, sub_mch_ids)[..] else {
                panic!("accepted")
            };
            assert_eq!(rejection.reason, Reason::MerchantMismatch);
        }
    }

    #[test]
    fn each_part_of_a_combined_payment_stands_for_itself() {
        let part = |out_trade_no: &str, state: &str, total: Value| {
            json!({
                "mchid": "1900990001", "out_trade_no": out_trade_no, "transaction_id": format!("42{out_trade_no}"),
                "trade_state": state, "success_time": "2026-03-18T10:20:27.123+08:00",
                "amount": {"total_amount": total, "payer_amount": 1, "currency": "CNY"},
            })
        };
        let mut foreign = part("A5", "SUCCESS", json!(5));
        foreign["mchid"] = json!("1900990777");
        let mut content = json!({
            "combine_mchid": "1900990001", "combine_appid": "wxa", "combine_out_trade_no": "C1",
            "combine_payer_info": {"openid": "oPayer"},
            "sub_orders": [part("A1", "SUCCESS", json!(10)), part("A2", "CLOSED", json!(20)),
                part("A3", "SUCCESS", json!("30")), 7, foreign, part("A6", "SUCCESS", json!(60))],
        });
        let outcomes = outcomes("TRANSACTION.SUCCESS", &content, &[]);
        let shown: Vec<_> = outcomes
            .iter()
            .map(|outcome| match outcome {
                Outcome::Fact(Fact::Payment(paid)) => format!("{} {} {:?}", paid.order, paid.amount, paid.payer),
                Outcome::Fact(Fact::Refund(_)) => "refund".to_owned(),
                Outcome::Ignored(ignored) => format!("{ignored:?}"),
                Outcome::Rejected(rejection) => rejection.to_string(),
            })
            .collect();
        assert_eq!(
            shown,
            [
                "shop/A1 10 fen Some(***)",
                "TradeState(\"CLOSED\")",
                "invalid_field: sub_orders[2].amount.total_amount: expected an integer number of fen over 0",
                "invalid_field: sub_orders[3]: expected an object with distinct names",
                "merchant_mismatch: expected mch_id 1900990001, got 1900990777",
                "shop/A6 60 fen Some(***)",
            ]
        );
        for (member, value) in
            [("combine_mchid", json!("1900990777")), ("combine_appid", json!("wxb")), ("sub_orders", json!([]))]
        {
            let old = content[member].clone();
            content[member] = value;
            assert!(matches!(only("TRANSACTION.SUCCESS", &content), Outcome::Rejected(_)), "{member}");
            content[member] = old;
        }
    }

    #[test]
    fn duplicate_names_in_the_content_are_refused() {
        let twice = payment().to_string().replace("\"total\":8800", "\"total\":1,\"total\":8800");
        let merchant = MerchantName::parse("shop").unwrap();
        let outcomes = read("TRANSACTION.SUCCESS", twice.as_bytes(), &merchant, &ids(&[]));
        let [Outcome::Rejected(rejection)] = &outcomes[..] else { panic!("accepted") };
        assert_eq!(rejection.to_string(), "invalid_field: amount: expected an object with distinct names");
    }
}
