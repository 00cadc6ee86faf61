//! The payment notice of APIv2, from signed fields to a fact.
//!
//! Reads only what an order needs, once every field is there that such a notice always has. The amount is `total_fee`, what
//! the order asked for; `cash_fee` and `settlement_total_fee` are lower where coupons were used and are not looked at. All
//! times are Beijing time. Source: the vendor's page on the v2 payment result notice.

use jiff::{Timestamp, civil::DateTime, tz};

use super::{merchant_ids::MerchantIds, v2_sign::MANDATORY, v2_xml::Fields};
use crate::{
    event::Payment,
    fen::Fen,
    ids::{Currency, IdError, MerchantName, OpenId, OrderId, OutTradeNo, TransactionId},
    reason::{Reason, Rejection},
};

/// What a signed notice says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The order was paid.
    Paid(Payment),
    /// The payment has not succeeded, or no more: the order is not paid by it. The state as the notice names it.
    Unfinished(String),
}

/// Reads the signed fields of a notice that came on this merchant's path.
///
/// # Errors
/// [`Reason::InvalidField`] with the name of the first field that is missing or not as the protocol says,
/// [`Reason::MerchantMismatch`] and [`Reason::AppidMismatch`] for a notice that is another merchant's.
pub fn read(fields: &Fields<'_>, merchant: &MerchantName, ids: &MerchantIds) -> Result<Notice, Rejection> {
    for flag in ["return_code", "result_code"] {
        match required(fields, flag)? {
            "SUCCESS" => {}
            "FAIL" => return Ok(Notice::Unfinished("FAIL".to_owned())),
            _ => return Err(invalid(flag, "expected SUCCESS or FAIL")),
        }
    }
    // Only notices of automatic deductions and answers to queries have one.
    if let Some(state) = fields.get("trade_state").filter(|state| *state != "SUCCESS") {
        return Ok(Notice::Unfinished(state.to_owned()));
    }
    for name in MANDATORY {
        required(fields, name)?;
    }
    let fee = required(fields, "total_fee")?;
    Ok(Notice::Paid(Payment {
        order: OrderId { merchant: merchant.clone(), out_trade_no: id(fields, "out_trade_no", OutTradeNo::parse)? },
        mchid: ids.check_mchid(required(fields, "mch_id")?, fields.get("sub_mch_id"))?,
        appid: ids.check_appid(required(fields, "appid")?, fields.get("sub_appid"))?,
        transaction_id: id(fields, "transaction_id", TransactionId::parse)?,
        amount: Fen::parse(fee).map_err(|error| invalid("total_fee", &error.to_string()))?,
        currency: match fields.get("fee_type") {
            None => Currency::cny(),
            Some(_) => id(fields, "fee_type", Currency::parse)?,
        },
        payer: Some(id(fields, "openid", OpenId::parse)?),
        success_time: beijing_time("time_end", required(fields, "time_end")?)?,
    }))
}

/// `yyyyMMddHHmmss` in Beijing, which has no daylight saving.
fn beijing_time(name: &'static str, text: &str) -> Result<Timestamp, Rejection> {
    let wrong = || invalid(name, "expected yyyyMMddHHmmss");
    // A leap second does not exist here, nor a payment before WeChat.
    if text.len() != 14 || !text.bytes().all(|byte| byte.is_ascii_digit()) || text < "2000" || text.ends_with("60") {
        return Err(wrong());
    }
    let local = DateTime::strptime("%Y%m%d%H%M%S", text).map_err(|_| wrong())?;
    tz::offset(8).to_timestamp(local).map_err(|_| wrong())
}

fn required<'f>(fields: &'f Fields<'_>, name: &'static str) -> Result<&'f str, Rejection> {
    fields.get(name).ok_or_else(|| invalid(name, "missing"))
}

fn id<T>(fields: &Fields<'_>, name: &'static str, parse: fn(&str) -> Result<T, IdError>) -> Result<T, Rejection> {
    parse(required(fields, name)?).map_err(|error| invalid(name, &format!("expected {}", error.rule)))
}

fn invalid(name: &str, what: &str) -> Rejection {
    Rejection::new(Reason::InvalidField, format!("{name}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{AppId, MchId};

    fn notice(change: (&'static str, Option<&'static str>)) -> Result<Notice, Rejection> {
        let pairs = [
            ("return_code", "SUCCESS"),
            ("result_code", "SUCCESS"),
            ("appid", "wx1"),
            ("mch_id", "19001"),
            ("out_trade_no", "A1"),
            ("transaction_id", "42001"),
            ("total_fee", "8800"),
            ("time_end", "20260318102030"),
            ("openid", "o1"),
            ("bank_type", "OTHERS"),
            ("cash_fee", "8800"),
            ("nonce_str", "n"),
            ("trade_type", "JSAPI"),
        ];
        let pairs = pairs.into_iter().filter(|(name, _)| *name != change.0);
        let pairs = pairs.chain(change.1.map(|value| (change.0, value)));
        let ids = MerchantIds {
            mch_id: MchId::parse("19001").unwrap(),
            appids: vec![AppId::parse("wx1").unwrap()],
            sub_mch_ids: Vec::new(),
            sub_appids: Vec::new(),
        };
        read(&Fields::from_pairs(pairs).unwrap(), &MerchantName::parse("shop").unwrap(), &ids)
    }

    #[test]
    fn a_paid_notice_is_a_payment_in_beijing_time() {
        let Ok(Notice::Paid(payment)) = notice(("fee_type", None)) else { panic!("expected a payment") };
        assert_eq!(payment.amount, Fen::new(8800).unwrap());
        assert_eq!(payment.currency, Currency::cny());
        assert_eq!(payment.success_time, "2026-03-18T02:20:30Z".parse().unwrap());
    }

    #[test]
    fn a_failed_payment_is_no_event() {
        for flag in ["result_code", "return_code"] {
            assert_eq!(notice((flag, Some("FAIL"))), Ok(Notice::Unfinished("FAIL".to_owned())));
        }
        for state in ["REFUND", "NOTPAY", "CLOSED", "REVOKED", "USERPAYING", "PAYERROR", "ACCEPT", "PAY_FAIL"] {
            assert_eq!(notice(("trade_state", Some(state))), Ok(Notice::Unfinished(state.to_owned())));
        }
        for state in [None, Some(""), Some("SUCCESS")] {
            assert!(matches!(notice(("trade_state", state)), Ok(Notice::Paid(_))), "{state:?}");
        }
    }

    #[test]
    fn a_notice_without_a_field_that_each_has_pays_nothing() {
        for name in MANDATORY {
            for value in [None, Some("")] {
                let detail = format!("{name}: missing");
                assert_eq!(notice((name, value)), Err(Rejection::new(Reason::InvalidField, detail)));
            }
        }
    }

    #[test]
    fn each_fault_names_its_field() {
        for (name, value, detail) in [
            ("return_code", None, "return_code: missing"),
            ("result_code", Some("OK"), "result_code: expected SUCCESS or FAIL"),
            ("transaction_id", None, "transaction_id: missing"),
            ("transaction_id", Some(""), "transaction_id: missing"),
            ("out_trade_no", Some("a b"), "out_trade_no: expected 1 to 32 of 0-9, A-Z, a-z and _-|*@"),
            ("total_fee", Some("08"), "total_fee: not a plain positive integer number of fen"),
            ("total_fee", None, "total_fee: missing"),
            ("fee_type", Some("cny"), "fee_type: expected three capital letters"),
            ("time_end", Some("2026-03-18"), "time_end: expected yyyyMMddHHmmss"),
            ("time_end", Some("20260230102030"), "time_end: expected yyyyMMddHHmmss"),
            ("time_end", Some("20260318102060"), "time_end: expected yyyyMMddHHmmss"),
            ("time_end", Some("00010318102030"), "time_end: expected yyyyMMddHHmmss"),
        ] {
            assert_eq!(notice((name, value)), Err(Rejection::new(Reason::InvalidField, detail)), "{name}");
        }
    }
}
