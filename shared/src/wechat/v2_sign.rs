//! The signature of APIv2: a digest over all fields under the merchant's API key.
//!
//! The fields that arrived are signed, known or not, so nothing here knows any field but `sign` and `sign_type`. Which
//! algorithm WeChat used shows in the digest's length: `sign_type` is usually absent, and some notices of HMAC merchants
//! come with MD5. Sources: the vendor's pages on the v2 signature algorithm and its answers in the developer community.

use aws_lc_rs::{constant_time, hmac};
use md5::{Digest, Md5};

use super::{keys::V2Key, v2_xml::Fields};
use crate::envelope::upper_hex;

/// Why fields do not count as signed by WeChat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignRefusal {
    /// No `sign`, or an empty one.
    #[error("sign is missing")]
    Missing,
    /// A `sign_type` that is neither `MD5` nor `HMAC-SHA256`.
    #[error("sign_type is not supported")]
    UnsupportedType,
    /// The digest is not the one of these fields under this key.
    #[error("the signature is wrong")]
    Wrong,
    /// The digest fits, but it would fit other fields as well.
    #[error("the signature is ambiguous")]
    Ambiguous,
}

/// The two algorithms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignType {
    /// `MD5`: 32 hexadecimal digits.
    Md5,
    /// `HMAC-SHA256`: 64 hexadecimal digits.
    HmacSha256,
}

/// Fields in which `&` may stand: those that hold text of the merchant's, of the buyer's or of a bank's making.
const FREE_TEXT: [&str; 6] =
    ["attach", "promotion_detail", "device_info", "err_code_des", "return_msg", "sub_order_list"];

/// The fields that every payment notice has. Some sort behind each of [`FREE_TEXT`], so a forger cannot hide them all
/// inside one.
pub(super) const MANDATORY: [&str; 13] = [
    "appid",
    "bank_type",
    "cash_fee",
    "mch_id",
    "nonce_str",
    "openid",
    "out_trade_no",
    "result_code",
    "return_code",
    "time_end",
    "total_fee",
    "trade_type",
    "transaction_id",
];

/// Checks that the fields carry a right `sign`.
///
/// # Errors
/// [`SignRefusal`]; nothing of the fields may be believed then.
pub fn verify(fields: &Fields<'_>, key: &V2Key) -> Result<(), SignRefusal> {
    let sign = fields.get("sign").ok_or(SignRefusal::Missing)?;
    let sign_type = match sign.len() {
        32 => SignType::Md5,
        64 => SignType::HmacSha256,
        _ => return Err(SignRefusal::Wrong),
    };
    match fields.get("sign_type") {
        None => {}
        Some("MD5") if sign_type == SignType::Md5 => {}
        Some("HMAC-SHA256") if sign_type == SignType::HmacSha256 => {}
        Some("MD5" | "HMAC-SHA256") => return Err(SignRefusal::Wrong),
        Some(_) => return Err(SignRefusal::UnsupportedType),
    }
    let expected = digest(fields, key, sign_type);
    constant_time::verify_slices_are_equal(expected.as_bytes(), sign.as_bytes()).map_err(|_| SignRefusal::Wrong)?;
    if ambiguous(fields) { Err(SignRefusal::Ambiguous) } else { Ok(()) }
}

/// The `sign` of these fields: of all that are not empty, except `sign` itself.
#[must_use]
pub fn digest(fields: &Fields<'_>, key: &V2Key, sign_type: SignType) -> String {
    let mut text = Vec::with_capacity(1024);
    for (name, value) in fields.iter().filter(|(name, value)| *name != "sign" && !value.is_empty()) {
        for part in [name, "=", value, "&"] {
            text.extend_from_slice(part.as_bytes());
        }
    }
    text.extend_from_slice(b"key=");
    text.extend_from_slice(key.as_bytes());
    match sign_type {
        SignType::Md5 => upper_hex(&Md5::digest(&text)),
        // The string is the same as for MD5, its `&key=` suffix included.
        SignType::HmacSha256 => {
            upper_hex(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), &text).as_ref())
        }
    }
}

/// Values are not escaped before signing, so a value with `&name=` in it can be split into fields of a forger's choice
/// without changing the digest. That needs a value with `&`, and then some mandatory field ends up inside another value
/// or `&` inside a field where it never stands. Without any `&` there is one way to read the string.
fn ambiguous(fields: &Fields<'_>) -> bool {
    let mut with_ampersand = fields.iter().filter(|(_, value)| value.contains('&')).peekable();
    with_ampersand.peek().is_some()
        && (with_ampersand.any(|(name, _)| !FREE_TEXT.contains(&name))
            || MANDATORY.iter().any(|name| fields.get(name).is_none()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&'static str, &'static str)]) -> Fields<'static> {
        Fields::from_pairs(pairs.iter().copied()).unwrap()
    }

    #[test]
    fn the_vendors_published_example_has_its_published_signatures() {
        let key = V2Key::parse("192006250b4c09247ec02edce69f6a2d").unwrap();
        let fields = fields(&[
            ("appid", "wxd930ea5d5a258f4f"),
            ("mch_id", "10000100"),
            ("device_info", "1000"),
            ("body", "test"),
            ("nonce_str", "ibuaiVcKdpRxkhJA"),
        ]);
        assert_eq!(digest(&fields, &key, SignType::Md5), "9A0A8659F005D6984697E2CA0A9CF3B7");
        assert_eq!(
            digest(&fields, &key, SignType::HmacSha256),
            "6A9AE1657590FD6257D693A078E1C3E4BB6BA4DC30B23E0EE2496E54170DACD6"
        );
    }

    #[test]
    fn empty_values_are_not_signed_and_zero_is() {
        let key = V2Key::parse("8934e7d15453e97507ef794cf7b0519d").unwrap();
        let notice = [
            ("appid", "wx426b3015555a46be"),
            ("bank_type", "CFT"),
            ("cash_fee", "1"),
            ("fee_type", "CNY"),
            ("is_subscribe", "N"),
            ("mch_id", "1900009851"),
            ("nonce_str", "8VMExX7gt3imLgbM"),
            ("openid", "oHZx6uKDzfAzljIKn_gP7mu99O3M"),
            ("out_trade_no", "SyVcLyh_z"),
            ("result_code", "SUCCESS"),
            ("return_code", "SUCCESS"),
            ("return_msg", "OK"),
            ("time_end", "20180306180002"),
            ("total_fee", "1"),
            ("trade_state", "SUCCESS"),
            ("trade_type", "NATIVE"),
            ("transaction_id", "4200000065201803063807324676"),
        ];
        let sign =
            |more: &[(&'static str, &'static str)]| digest(&fields(&[&notice[..], more].concat()), &key, SignType::Md5);
        assert_eq!(sign(&[("attach", "")]), "D115FD37C70247F7DECF192CE6F56B86");
        assert_eq!(sign(&[("attach", ""), ("coupon_fee", "")]), sign(&[]));
        assert_ne!(sign(&[("coupon_fee", "0")]), sign(&[]));
    }

    #[test]
    fn the_length_names_the_algorithm_and_sign_type_must_agree() {
        let key = V2Key::parse("192006250b4c09247ec02edce69f6a2d").unwrap();
        let other = V2Key::parse("192006250b4c09247ec02edce69f6a2e").unwrap();
        for (signed_with, sign_type, expected) in [
            (SignType::Md5, None, Ok(())),
            (SignType::HmacSha256, None, Ok(())),
            (SignType::Md5, Some("MD5"), Ok(())),
            (SignType::HmacSha256, Some("HMAC-SHA256"), Ok(())),
            (SignType::HmacSha256, Some("MD5"), Err(SignRefusal::Wrong)),
            (SignType::Md5, Some("HMAC-SHA256"), Err(SignRefusal::Wrong)),
            (SignType::Md5, Some("RSA"), Err(SignRefusal::UnsupportedType)),
            (SignType::Md5, Some("md5"), Err(SignRefusal::UnsupportedType)),
        ] {
            let pairs: Vec<_> =
                [("total_fee", "1")].into_iter().chain(sign_type.map(|text| ("sign_type", text))).collect();
            let sign = digest(&fields(&pairs), &key, signed_with);
            let signed = |sign: String| {
                let pairs = pairs.iter().map(|(name, value)| (*name, (*value).to_owned()));
                Fields::from_pairs(pairs.chain([("sign", sign)])).unwrap()
            };
            assert_eq!(verify(&signed(sign.clone()), &key), expected);
            assert!(verify(&signed(sign.clone()), &other).is_err());
            assert!(verify(&signed(sign.to_lowercase()), &key).is_err());
            assert!(verify(&signed(sign[1..].to_owned()), &key).is_err());
        }
        assert_eq!(verify(&fields(&[("total_fee", "1"), ("sign", "")]), &key), Err(SignRefusal::Missing));
    }

    /// A buyer chose `attach` so that the signed string can be cut into fields anew, and then saw the signed body.
    #[test]
    fn a_signature_that_fits_another_reading_is_refused() {
        let key = V2Key::parse("192006250b4c09247ec02edce69f6a2d").unwrap();
        let honest = |attach: &'static str| {
            let mut pairs: Vec<_> = MANDATORY.iter().map(|name| (*name, "1")).collect();
            pairs.push(("attach", attach));
            pairs
        };
        let resign = |original: &[(&'static str, &'static str)], forged: &[(&'static str, &'static str)]| {
            let sign = digest(&fields(original), &key, SignType::Md5);
            assert_eq!(digest(&fields(forged), &key, SignType::Md5), sign, "the forged reading has the same digest");
            let pairs = forged.iter().map(|(name, value)| (*name, (*value).to_owned()));
            verify(&Fields::from_pairs(pairs.chain([("sign", sign)])).unwrap(), &key)
        };
        let attach = "1&mch_id=9&out_trade_no=V1&total_fee=9&transaction_id=T1&z=";
        assert_eq!(resign(&honest(attach), &honest(attach)), Ok(()), "as what it is, it is authentic");
        let rest = "&bank_type=1&cash_fee=1&mch_id=1&nonce_str=1&openid=1&out_trade_no=1&result_code=1&return_code=1\
                    &time_end=1&total_fee=1&trade_type=1&transaction_id=1";
        let forged = [
            ("appid", "1"),
            ("attach", "1"),
            ("mch_id", "9"),
            ("out_trade_no", "V1"),
            ("total_fee", "9"),
            ("transaction_id", "T1"),
            ("z", rest),
        ];
        assert_eq!(resign(&honest(attach), &forged), Err(SignRefusal::Ambiguous), "hidden in an unknown field");
        let forged = [("appid", "1"), ("attach", "1"), ("device_info", rest)];
        assert_eq!(resign(&honest("1&device_info="), &forged), Err(SignRefusal::Ambiguous), "hidden in free text");
    }
}
