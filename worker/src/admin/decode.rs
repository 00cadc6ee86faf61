//! What a notification says, for a person: its fields, and those that it holds encrypted.
//!
//! Nothing is checked and nothing decided here: a dead letter may be anything. Personal fields, signatures and whatever is
//! not known to be public leave this file masked only.

use std::collections::BTreeMap;

use secrecy::ExposeSecret as _;
use serde_json::Value;
use wxpay_shared::{
    admin::Named,
    envelope::Message,
    merchant::{Merchant, Merchants},
    wechat::{v2_refund, v2_xml, v3_resource},
};

/// Fields that are read of one document, at most: more than any body has that ingress lets through.
const READ_MAX: usize = 10_000;
/// Fields that are shown of one document, at most.
const SHOWN_MAX: usize = 200;
/// Orders that one document names, at most; a combined payment has no more.
const NAMED_MAX: usize = 50;
/// Characters that are shown of one value, at most.
const VALUE_MAX: usize = 200;

/// A document as names and values. A member of a JSON object has its path as its name: `amount.total`, `orders[0].id`.
type Flat = Vec<(String, String)>;

/// What could be read of a body.
#[derive(Default)]
pub(super) struct Decoded {
    outer: Flat,
    content: Flat,
    /// Why there is no more, where that is so.
    pub(super) unreadable: Option<String>,
}

/// Reads a body as far as it goes, with the keys of the merchant that the headers name.
pub(super) fn decode(message: &Message, merchants: &Merchants) -> Decoded {
    let merchant = message.claimed_merchant().and_then(|name| merchants.get(name));
    if let Ok(fields) = v2_xml::parse(&message.body, "xml") {
        let outer: Flat = fields.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        return match fields.get("req_info") {
            None => Decoded { outer, ..Decoded::default() },
            Some(req_info) => {
                Decoded::with(outer, merchant.ok_or_else(no_merchant).and_then(|it| refund(req_info, it)))
            }
        };
    }
    if let Ok(document) = serde_json::from_slice::<Value>(&message.body) {
        let mut outer = Flat::new();
        flatten(&mut outer, String::new(), &document);
        return Decoded::with(outer, merchant.ok_or_else(no_merchant).and_then(|it| resource(&message.body, it)));
    }
    Decoded { unreadable: Some("the body is neither flat XML nor JSON".to_owned()), ..Decoded::default() }
}

impl Decoded {
    fn with(outer: Flat, content: Result<Flat, String>) -> Self {
        match content {
            Ok(content) => Self { outer, content, unreadable: None },
            Err(problem) => Self { outer, content: Flat::new(), unreadable: Some(problem) },
        }
    }

    /// What it says it is about: several for a combined payment, and one without a name where it names nothing.
    pub(super) fn named(&self) -> Vec<Named> {
        let document = if self.content.is_empty() { &self.outer } else { &self.content };
        let prefixes = document.iter().filter_map(|(name, _)| name.strip_suffix("out_trade_no"));
        let prefixes = prefixes.filter(|prefix| prefix.is_empty() || prefix.ends_with("]."));
        let named: Vec<_> = prefixes.take(NAMED_MAX).map(|prefix| Self::named_under(document, prefix)).collect();
        if named.is_empty() { vec![Self::named_under(document, "")] } else { named }
    }

    fn named_under(document: &Flat, prefix: &str) -> Named {
        let get = |name: &str| {
            let value = document.iter().find(|(known, _)| known.strip_prefix(prefix) == Some(name));
            value.map(|(_, value)| shown(value))
        };
        let amount = ["refund_fee", "amount.refund", "total_fee", "amount.total", "amount.total_amount"];
        Named {
            out_trade_no: get("out_trade_no"),
            transaction_id: get("transaction_id"),
            out_refund_no: get("out_refund_no"),
            amount: amount.into_iter().find_map(get),
        }
    }

    /// The fields of the body, masked.
    pub(super) fn fields(&self) -> BTreeMap<String, String> {
        masked(&self.outer)
    }

    /// The fields that it held encrypted, masked.
    pub(super) fn content(&self) -> BTreeMap<String, String> {
        masked(&self.content)
    }
}

fn no_merchant() -> String {
    "no merchant of the name in its headers is configured, so there is no key to open it".to_owned()
}

fn refund(req_info: &str, merchant: &Merchant) -> Result<Flat, String> {
    let opened = merchant.v2_keys.iter().find_map(|key| v2_refund::open_req_info(key, req_info).ok());
    let xml = opened.ok_or("req_info does not open under the merchant's v2 keys")?;
    let fields = v2_xml::parse(xml.expose_secret().as_bytes(), "root").map_err(|error| format!("req_info: {error}"))?;
    Ok(fields.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

fn resource(body: &[u8], merchant: &Merchant) -> Result<Flat, String> {
    let notice = v3_resource::parse(body).map_err(|rejection| rejection.detail)?;
    let keys = merchant.v3.as_ref().ok_or("the merchant has no APIv3 key")?;
    let plaintext = v3_resource::open(&notice.resource, &keys.api).map_err(|rejection| rejection.detail)?;
    let document: Value =
        serde_json::from_slice(plaintext.expose()).map_err(|_| "the decrypted resource is not JSON")?;
    let mut flat = Flat::new();
    flatten(&mut flat, String::new(), &document);
    Ok(flat)
}

fn flatten(flat: &mut Flat, path: String, value: &Value) {
    if flat.len() >= READ_MAX {
        return;
    }
    match value {
        Value::Object(members) => members.iter().for_each(|(name, value)| {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            flatten(flat, path, value);
        }),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, value)| flatten(flat, format!("{path}[{index}]"), value));
        }
        Value::String(text) => flat.push((path, text.clone())),
        Value::Null | Value::Bool(_) | Value::Number(_) => flat.push((path, value.to_string())),
    }
}

fn masked(document: &Flat) -> BTreeMap<String, String> {
    let mask = |(name, value): &(String, String)| {
        let value = if is_public(name) { shown(value) } else { "***".to_owned() };
        (shown(name), value)
    };
    document.iter().take(SHOWN_MAX).map(mask).collect()
}

/// Fit for a terminal, whatever somebody put into it.
pub(super) fn shown(value: &str) -> String {
    let plain = |letter: char| if letter.is_control() { '\u{fffd}' } else { letter };
    let mut text: String = value.chars().take(VALUE_MAX).map(plain).collect();
    if text.len() < value.len() {
        text.push('…');
    }
    text
}

/// Whether a field may be shown. Whatever is not in the list, known or not, may be personal, a signature, or a buyer's
/// text.
fn is_public(name: &str) -> bool {
    let path: String = name.split('[').map(|part| part.split_once(']').map_or(part, |(_, rest)| rest)).collect();
    PUBLIC_FIELDS.contains(&path.strip_prefix("sub_orders.").unwrap_or(&path))
}

const PUBLIC_FIELDS: &[&str] = &[
    // v2
    "appid",
    "bank_type",
    "cash_fee",
    "cash_fee_type",
    "coupon_count",
    "coupon_fee",
    "err_code",
    "fee_type",
    "mch_id",
    "out_trade_no",
    "rate_value",
    "result_code",
    "return_code",
    "settlement_total_fee",
    "sign_type",
    "sub_appid",
    "sub_mch_id",
    "time_end",
    "total_fee",
    "trade_type",
    "transaction_id",
    "version",
    // a v2 refund's req_info
    "out_refund_no",
    "refund_account",
    "refund_fee",
    "refund_id",
    "refund_request_source",
    "refund_status",
    "settlement_refund_fee",
    "success_time",
    // v3, the envelope
    "id",
    "create_time",
    "event_type",
    "resource_type",
    "resource.algorithm",
    "resource.original_type",
    // v3, the content
    "mchid",
    "sp_appid",
    "sp_mchid",
    "sub_mchid",
    "trade_state",
    "amount.currency",
    "amount.payer_currency",
    "amount.payer_amount",
    "amount.payer_refund",
    "amount.payer_total",
    "amount.refund",
    "amount.total",
    "amount.total_amount",
    "amount.discount_refund",
    "amount.settlement_rate",
    "amount.settlement_total",
    "amount.refund_fee",
    "combine_appid",
    "combine_mchid",
    "combine_out_trade_no",
    // v3, profit sharing
    "order_id",
    "out_order_no",
    "receiver.amount",
    "receiver.type",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_to_be_public_is_shown() {
        let document = serde_json::json!({
            "mchid": "1900990001", "payer": { "openid": "oPerson" }, "attach": "tel 138…", "amount": { "total": 8800 },
            "sub_orders": [{ "out_trade_no": "A1\u{1b}[2J", "attach": "x" }], "amount_of_somebody": "secret",
        });
        let mut flat = Flat::new();
        flatten(&mut flat, String::new(), &document);
        let shown: Vec<_> = masked(&flat).into_iter().filter(|(_, value)| value != "***").collect();
        let expected =
            [("amount.total", "8800"), ("mchid", "1900990001"), ("sub_orders[0].out_trade_no", "A1\u{fffd}[2J")];
        assert_eq!(shown, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(masked(&flat).len(), flat.len(), "the others are there, masked");
    }

    #[test]
    fn several_orders_are_named_each_with_its_amount() {
        let document = serde_json::json!({
            "combine_out_trade_no": "C",
            "sub_orders": [
                { "out_trade_no": "C1", "transaction_id": "42", "amount": { "total_amount": 1 } },
                { "out_trade_no": "C2", "amount": { "total_amount": 2 } },
            ],
        });
        let mut content = Flat::new();
        flatten(&mut content, String::new(), &document);
        let named = Decoded { content, ..Decoded::default() }.named();
        let seen: Vec<_> = named.iter().map(|named| (named.out_trade_no.as_deref(), named.amount.as_deref())).collect();
        assert_eq!(seen, [(Some("C1"), Some("1")), (Some("C2"), Some("2"))]);
        assert_eq!(Decoded::default().named(), [Named::default()]);
    }

    #[test]
    fn every_order_of_the_largest_combined_payment_is_named() {
        let order = |number: usize| {
            let goods: Vec<_> = (0..10).map(|good| serde_json::json!({ "goods_id": good })).collect();
            serde_json::json!({ "promotion_detail": [{ "goods_detail": goods }], "out_trade_no": format!("C{number}") })
        };
        let document = serde_json::json!({ "sub_orders": (0..NAMED_MAX).map(order).collect::<Vec<_>>() });
        let mut content = Flat::new();
        flatten(&mut content, String::new(), &document);
        let decoded = Decoded { content, ..Decoded::default() };
        let named: Vec<_> = decoded.named().into_iter().filter_map(|named| named.out_trade_no).collect();
        assert_eq!(named, (0..NAMED_MAX).map(|number| format!("C{number}")).collect::<Vec<_>>());
        assert_eq!(decoded.content().len(), SHOWN_MAX);
    }
}
