//! The payment notice of APIv2, from signed fields to a fact.
//!
//! Reads only what an order needs. The amount is `total_fee`, what the order asked for; `cash_fee` and
//! `settlement_total_fee` are lower where coupons were used and are not looked at. All times are Beijing time. Source:
//! the vendor's page on the v2 payment result notice.

use jiff::{Timestamp, civil::DateTime, tz};

use super::{merchant_ids::MerchantIds, v2_xml::Fields};
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
    /// The payment failed: nothing happened to the order.
    Failed,
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
            "FAIL" => return Ok(Notice::Failed),
            _ => return Err(invalid(flag, "expected SUCCESS or FAIL")),
        }
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
        payer: match fields.get("openid") {
            None => None,
            Some(_) => Some(id(fields, "openid", OpenId::parse)?),
        },
        success_time: beijing_time("time_end", required(fields, "time_end")?)?,
    }))
}

/// `yyyyMMddHHmmss` in Beijing, which has no daylight saving.
fn beijing_time(name: &'static str, text: &str) -> Result<Timestamp, Rejection> {
    let wrong = || invalid(name, "expected yyyyMMddHHmmss");
    if text.len() != 14 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
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
        assert_eq!(notice(("result_code", Some("FAIL"))), Ok(Notice::Failed));
        assert_eq!(notice(("return_code", Some("FAIL"))), Ok(Notice::Failed));
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
        ] {
            assert_eq!(notice((name, value)), Err(Rejection::new(Reason::InvalidField, detail)), "{name}");
        }
    }
}
