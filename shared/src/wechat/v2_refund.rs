//! A v2 refund notice: opening its ciphertext, and reading the refund in it.
//!
//! The notice carries no signature. `req_info` is base64 of AES-256 in ECB mode with PKCS#7 padding, under the 32 digits
//! of the lower-case MD5 of the merchant's v2 key; that it opens is all that speaks for it. Blocks can be cut and pasted
//! between two notices, and an old one never expires, so what is read here is a claim: it takes effect only next to
//! records of our own. Source: the vendor's v2 page on refund result notices.

use std::fmt;

use aws_lc_rs::cipher::{AES_256, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::{Timestamp, civil::DateTime, tz};
use md5::{Digest as _, Md5};
use secrecy::{ExposeSecret as _, SecretBox, SecretString};

use super::{keys::V2Key, merchant_ids::MerchantIds};
use crate::{
    envelope::hex,
    event::{Refund, RefundStatus},
    fen::Fen,
    ids::{IdError, MchId, MerchantName, OrderId, OutRefundNo, OutTradeNo, RefundId, TransactionId},
    reason::{Reason, Rejection},
};

/// The `req_info` does not open. One error for base64, length, padding and UTF-8: telling them apart would help only
/// somebody who tries out ciphertexts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the refund notice cannot be decrypted")]
pub struct Undecryptable;

/// What the outer part of a refund notice says once it has been checked.
pub struct Outer<'a> {
    /// The merchant's number; the provider's in service-provider mode.
    pub mchid: MchId,
    /// The ciphertext for [`open_req_info`].
    pub req_info: &'a str,
}

impl fmt::Debug for Outer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outer").field("mchid", &self.mchid).finish_non_exhaustive()
    }
}

/// Checks the outer part (root `xml`), whose fields `get` returns by name. Nothing in it is authenticated, but a notice
/// with another merchant's numbers is certainly not for this one.
///
/// # Errors
/// [`Reason::InvalidField`] with the field's name, [`Reason::MerchantMismatch`], [`Reason::AppidMismatch`].
pub fn read_outer<'a>(get: impl Fn(&str) -> Option<&'a str>, ids: &MerchantIds) -> Result<Outer<'a>, Rejection> {
    if required(&get, "return_code")? != "SUCCESS" {
        return Err(invalid("return_code", "SUCCESS"));
    }
    let mchid = ids.check_mchid(required(&get, "mch_id")?, get("sub_mch_id"))?;
    ids.check_appid(required(&get, "appid")?, get("sub_appid"))?;
    Ok(Outer { mchid, req_info: required(&get, "req_info")? })
}

/// The XML (root `root`) inside a `req_info`. White space in the base64 is passed over: XML writers break long lines.
///
/// # Errors
/// [`Undecryptable`].
pub fn open_req_info(key: &V2Key, req_info: &str) -> Result<SecretString, Undecryptable> {
    let text: String = req_info.chars().filter(|char| !char.is_ascii_whitespace()).collect();
    let mut bytes = STANDARD.decode(text).map_err(|_| Undecryptable)?;
    let key = PaddedBlockDecryptingKey::ecb_pkcs7(cipher_key(key)).map_err(|_| Undecryptable)?;
    let length = key.decrypt(&mut bytes, DecryptionContext::None).map_err(|_| Undecryptable)?.len();
    bytes.truncate(length);
    String::from_utf8(bytes).map(SecretString::from).map_err(|_| Undecryptable)
}

/// The refund that the inner part claims; `get` returns its fields by name, `mchid` is [`Outer::mchid`].
///
/// # Errors
/// [`Reason::InvalidField`] with the name of a field that is missing or not of its form.
pub fn read_refund<'a>(
    get: impl Fn(&str) -> Option<&'a str>,
    merchant: &MerchantName,
    mchid: MchId,
) -> Result<Refund, Rejection> {
    let status = match required(&get, "refund_status")? {
        "SUCCESS" => RefundStatus::Success,
        "CHANGE" => RefundStatus::Abnormal,
        "REFUNDCLOSE" => RefundStatus::Closed,
        _ => return Err(invalid("refund_status", "SUCCESS, CHANGE or REFUNDCLOSE")),
    };
    let total = fen(&get, "total_fee")?;
    let amount = fen(&get, "refund_fee")?;
    if amount > total {
        return Err(invalid("refund_fee", "at most total_fee"));
    }
    for (settled, limit) in [("settlement_total_fee", total), ("settlement_refund_fee", amount)] {
        let fits = |text: &str| text == "0" || Fen::parse(text).is_ok_and(|fee| fee <= limit);
        if get(settled).is_some_and(|text| !text.is_empty() && !fits(text)) {
            return Err(invalid(settled, "an amount that is no greater than what it is a part of"));
        }
    }
    let success_time = match (status, get("success_time").filter(|text| !text.is_empty())) {
        (RefundStatus::Success, Some(text)) => {
            Some(beijing_time(text).ok_or_else(|| invalid("success_time", "yyyy-MM-dd HH:mm:ss"))?)
        }
        (RefundStatus::Success | RefundStatus::Abnormal | RefundStatus::Closed, _) => None,
    };
    Ok(Refund {
        order: OrderId { merchant: merchant.clone(), out_trade_no: id(&get, "out_trade_no", OutTradeNo::parse)? },
        mchid,
        transaction_id: id(&get, "transaction_id", TransactionId::parse)?,
        refund_id: id(&get, "refund_id", RefundId::parse)?,
        out_refund_no: id(&get, "out_refund_no", OutRefundNo::parse)?,
        total,
        amount,
        status,
        success_time,
        must_be_announced: false,
    })
}

/// The AES key: the MD5's 32 hexadecimal digits are its bytes, they are not decoded.
pub(super) fn cipher_key(key: &V2Key) -> UnboundCipherKey {
    let digits: SecretBox<[u8; 32]> = SecretBox::init_with_mut(|digits: &mut [u8; 32]| {
        digits.copy_from_slice(hex(&Md5::digest(key.as_bytes())).as_bytes());
    });
    UnboundCipherKey::new(&AES_256, digits.expose_secret()).expect("32 bytes are an AES-256 key")
}

/// Every time in v2 is Beijing's, without saying so. Beijing keeps UTC+8 all year.
fn beijing_time(text: &str) -> Option<Timestamp> {
    let time = DateTime::strptime("%Y-%m-%d %H:%M:%S", text).ok()?;
    // strptime also takes numbers without their leading zeros, and leap seconds.
    (text.len() == "yyyy-MM-dd HH:mm:ss".len() && !text.ends_with("60") && text >= "2000").then_some(())?;
    tz::offset(8).to_timestamp(time).ok()
}

fn required<'a>(get: &impl Fn(&str) -> Option<&'a str>, name: &str) -> Result<&'a str, Rejection> {
    get(name).filter(|text| !text.is_empty()).ok_or_else(|| invalid(name, "a value"))
}

fn id<'a, T>(
    get: &impl Fn(&str) -> Option<&'a str>,
    name: &str,
    parse: fn(&str) -> Result<T, IdError>,
) -> Result<T, Rejection> {
    parse(required(get, name)?).map_err(|error| invalid(name, error.rule))
}

fn fen<'a>(get: &impl Fn(&str) -> Option<&'a str>, name: &str) -> Result<Fen, Rejection> {
    Fen::parse(required(get, name)?).map_err(|error| Rejection::new(Reason::InvalidField, format!("{name}: {error}")))
}

fn invalid(name: &str, rule: &str) -> Rejection {
    Rejection::new(Reason::InvalidField, format!("{name}: expected {rule}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ids::AppId, wechat::sender::seal_req_info};

    const INNER: [(&str, &str); 8] = [
        ("transaction_id", "4200009999202603180000000001"),
        ("out_trade_no", "TESTORDER1"),
        ("refund_id", "5030009999202603180000000001"),
        ("out_refund_no", "TESTREFUND1"),
        ("total_fee", "8800"),
        ("refund_fee", "3960"),
        ("refund_status", "SUCCESS"),
        ("success_time", "2026-03-18 10:20:27"),
    ];

    fn key() -> V2Key {
        V2Key::parse("Zx8kQ2mN7pR4tV9wB3yC6dF1gH5jL0sT").unwrap()
    }

    /// The refund in [`INNER`] with one field changed.
    fn refund(name: &str, value: Option<&'static str>) -> Result<Refund, Rejection> {
        let get = |asked: &str| {
            if asked == name { value } else { INNER.iter().find(|(name, _)| *name == asked).map(|(_, value)| *value) }
        };
        read_refund(get, &MerchantName::parse("shop").unwrap(), MchId::parse("1900990001").unwrap())
    }

    #[test]
    fn each_status_has_its_own_end() {
        let refund_of =
            |status| refund("refund_status", Some(status)).map(|refund| (refund.status, refund.success_time));
        let time = Some("2026-03-18T02:20:27Z".parse().unwrap());
        assert_eq!(refund_of("SUCCESS"), Ok((RefundStatus::Success, time)));
        assert_eq!(refund_of("CHANGE"), Ok((RefundStatus::Abnormal, None)));
        assert_eq!(refund_of("REFUNDCLOSE"), Ok((RefundStatus::Closed, None)));
        for status in ["PROCESSING", "success", "SUCCESS ", ""] {
            assert_eq!(refund_of(status).unwrap_err().reason, Reason::InvalidField, "{status}");
        }
    }

    #[test]
    fn every_field_that_a_refund_needs_is_named_where_it_is_wrong() {
        for (name, _) in &INNER[..7] {
            let rejection = refund(name, None).unwrap_err();
            assert_eq!(rejection.reason, Reason::InvalidField);
            assert!(rejection.detail.starts_with(name), "{rejection}");
        }
        for (name, value) in [
            ("refund_fee", "8801"),
            ("refund_fee", "0"),
            ("refund_fee", "-1"),
            ("total_fee", "88.00"),
            ("transaction_id", "4200 1"),
            ("success_time", "2026-03-18T10:20:27"),
            ("success_time", "2026-3-18 10:20:27"),
            ("success_time", "2026-02-30 10:20:27"),
            ("success_time", "2026-03-18 10:20:60"),
            ("success_time", "0001-03-18 10:20:27"),
            ("settlement_refund_fee", "3961"),
            ("settlement_total_fee", "8801"),
            ("settlement_total_fee", "08"),
        ] {
            assert_eq!(refund(name, Some(value)).unwrap_err().reason, Reason::InvalidField, "{name} {value}");
        }
        assert_eq!(refund("refund_fee", Some("8800")).unwrap().amount, Fen::parse("8800").unwrap());
        assert_eq!(refund("success_time", Some("")).unwrap().success_time, None);
    }

    #[test]
    fn the_outer_part_must_be_this_merchants() {
        let ids = MerchantIds {
            mch_id: MchId::parse("1900990001").unwrap(),
            appids: vec![AppId::parse("wxa").unwrap()],
            sub_mch_ids: vec![],
            sub_appids: vec![],
        };
        let outer = |name: &str, value: Option<&'static str>| {
            let fields = [("return_code", "SUCCESS"), ("mch_id", "1900990001"), ("appid", "wxa"), ("req_info", "AAAA")];
            let get = |asked: &str| {
                if asked == name {
                    value
                } else {
                    fields.iter().find(|(name, _)| *name == asked).map(|(_, value)| *value)
                }
            };
            read_outer(get, &ids).map(|outer| outer.req_info).map_err(|rejection| rejection.reason)
        };
        assert_eq!(outer("none", None), Ok("AAAA"));
        for name in ["return_code", "mch_id", "appid", "req_info"] {
            assert_eq!(outer(name, None), Err(Reason::InvalidField), "{name}");
            assert_eq!(outer(name, Some("")), Err(Reason::InvalidField), "{name}");
        }
        assert_eq!(outer("return_code", Some("FAIL")), Err(Reason::InvalidField));
        assert_eq!(outer("mch_id", Some("1900990777")), Err(Reason::MerchantMismatch));
        assert_eq!(outer("sub_mch_id", Some("1900990777")), Err(Reason::MerchantMismatch));
        assert_eq!(outer("appid", Some("wxb")), Err(Reason::AppidMismatch));
    }

    #[test]
    fn what_was_sealed_opens_with_or_without_line_breaks() {
        for text in ["", "x", "<root>0123456789</root>", "<root><a>订单</a></root>"] {
            let sealed = seal_req_info(&key(), text);
            let broken: String = sealed.chars().flat_map(|char| [char, '\n', '\t']).collect();
            assert_eq!(open_req_info(&key(), &sealed).unwrap().expose_secret(), text);
            assert_eq!(open_req_info(&key(), &broken).unwrap().expose_secret(), text);
        }
    }

    #[test]
    fn every_damage_is_the_same_error() {
        let sealed = STANDARD.decode(seal_req_info(&key(), "<root><refund_fee>3960</refund_fee></root>")).unwrap();
        let opened = |bytes: &[u8]| open_req_info(&key(), &STANDARD.encode(bytes)).map(drop);
        assert_eq!(opened(&sealed), Ok(()));
        for index in sealed.len() - 16..sealed.len() {
            let mut bytes = sealed.clone();
            bytes[index] ^= 1;
            assert_eq!(opened(&bytes), Err(Undecryptable), "byte {index}");
        }
        for bytes in [&[][..], &sealed[..16], &sealed[..sealed.len() - 16], &sealed[..sealed.len() - 1], &[0; 54]] {
            assert_eq!(opened(bytes), Err(Undecryptable));
        }
        for text in ["", "=", "AAA", "%%%%", "订单"] {
            assert_eq!(open_req_info(&key(), text).map(drop), Err(Undecryptable), "{text}");
        }
        let other = V2Key::parse("0f1e2d3c4b5a69788796a5b4c3d2e1f0").unwrap();
        assert_eq!(open_req_info(&other, &STANDARD.encode(&sealed)).map(drop), Err(Undecryptable));
    }
}
