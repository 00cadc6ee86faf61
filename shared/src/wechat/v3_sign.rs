//! Who wrote a v3 notification: the signature in its headers, checked over the body's raw bytes.
//!
//! WeChat signs `timestamp LF nonce LF body LF` with RSA (PKCS#1 v1.5) and SHA-256. The order of the checks is fixed:
//! headers, clock, key, signature; nobody whose signature was not checked gets any of our parsers to run, and the body's
//! shape is looked at last. Source: the vendor's pages on callback signatures and on signature probes (签名探测).

use aws_lc_rs::digest::{Context, SHA256};
use axum::http::HeaderMap;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde::de::IgnoredAny;

use super::keys::{LookupError, PlatformKeys};

/// How far WeChat's clock and ours may be apart, in seconds, either way. Exactly so many are still accepted: WeChat's own
/// libraries disagree on that second, and a refusal costs a notification while the signature still protects it.
pub const CLOCK_SKEW_MAX_S: u64 = 300;
/// The header that names the moment of signing, in seconds since 1970.
pub const TIMESTAMP: &str = "Wechatpay-Timestamp";
/// The header with the signature's random part.
pub const NONCE: &str = "Wechatpay-Nonce";
/// The header with the signature, base64.
pub const SIGNATURE: &str = "Wechatpay-Signature";
/// The header that names the key.
pub const SERIAL: &str = "Wechatpay-Serial";
/// The header that names the algorithm; absent means [`RSA_SHA256`].
pub const SIGNATURE_TYPE: &str = "Wechatpay-Signature-Type";
/// The only algorithm that is supported.
pub const RSA_SHA256: &str = "WECHATPAY2-SHA256-RSA2048";

/// WeChat marks the signatures by which it tests whether a receiver checks them at all.
const PROBE_PREFIX: &str = "WECHATPAY/SIGNTEST/";
/// Digits of a timestamp until the year 33658: keeps milliseconds out as well as overflow.
const TIMESTAMP_DIGITS_MAX: usize = 12;

/// Why a v3 notification is refused. The text may be sent back: it tells nothing that the sender does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum V3Refusal {
    /// A header is not there; something between WeChat and us drops it, or it is not WeChat.
    #[error("header {0} is missing")]
    MissingHeader(&'static str),
    /// A header is there more than once, so that two readers could see two values.
    #[error("header {0} is repeated")]
    DuplicateHeader(&'static str),
    /// A header's value is not of its form.
    #[error("header {0} is malformed")]
    MalformedHeader(&'static str),
    /// Another algorithm than [`RSA_SHA256`], SM2 for instance.
    #[error("the signature type is not supported")]
    UnsupportedSignatureType,
    /// Signed too long ago or too far ahead: a replay, or one of the clocks is wrong.
    #[error("the timestamp is more than {CLOCK_SKEW_MAX_S} s away")]
    StaleTimestamp,
    /// No platform key has this serial. The header is the sender's word: never fetch keys because of it.
    #[error("the serial is unknown")]
    UnknownSerial,
    /// The platform certificate is outside its validity.
    #[error("the platform certificate is outside its validity")]
    Expired,
    /// WeChat tests whether signatures are checked; the real notification follows. To be refused without noise.
    #[error("the signature is wrong")]
    Probe,
    /// The signature does not fit, or is no base64.
    #[error("the signature is wrong")]
    BadSignature,
    /// Signed by WeChat, but cut, or no JSON object in UTF-8.
    #[error("the body is not a JSON object")]
    BadJson,
}

impl V3Refusal {
    /// The stable code, for metrics and logs.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::MissingHeader(_) => "missing_header",
            Self::DuplicateHeader(_) => "duplicate_header",
            Self::MalformedHeader(_) => "bad_header",
            Self::UnsupportedSignatureType => "unsupported_signature_type",
            Self::StaleTimestamp => "stale_timestamp",
            Self::UnknownSerial => "unknown_serial",
            Self::Expired => "expired_certificate",
            Self::Probe => "signature_probe",
            Self::BadSignature => "bad_signature",
            Self::BadJson => "bad_json",
        }
    }
}

/// What a notification's headers say about its signature; all of it the sender's word until [`verify`] has passed.
#[derive(Clone, Copy)]
pub struct V3Headers<'a> {
    timestamp: &'a str,
    seconds: i64,
    nonce: &'a str,
    signature: &'a str,
    serial: &'a str,
}

impl<'a> V3Headers<'a> {
    /// Takes each header that is needed exactly once; others are not looked at.
    ///
    /// # Errors
    /// [`V3Refusal`] with the name of the header that is missing, repeated or malformed, or
    /// [`V3Refusal::UnsupportedSignatureType`].
    pub fn read(headers: &'a HeaderMap) -> Result<Self, V3Refusal> {
        let required = |name| single(headers, name)?.ok_or(V3Refusal::MissingHeader(name));
        let timestamp = required(TIMESTAMP)?;
        let nonce = required(NONCE)?;
        let signature = required(SIGNATURE)?;
        let serial = required(SERIAL)?;
        if single(headers, SIGNATURE_TYPE)?.is_some_and(|kind| kind != RSA_SHA256) {
            return Err(V3Refusal::UnsupportedSignatureType);
        }
        let seconds = plain_seconds(timestamp).ok_or(V3Refusal::MalformedHeader(TIMESTAMP))?;
        Ok(Self { timestamp, seconds, nonce, signature, serial })
    }
}

/// Whether WeChat signed these bytes within [`CLOCK_SKEW_MAX_S`] of `now`.
///
/// # Errors
/// [`V3Refusal`]; the notification must then have no effect.
pub fn verify(headers: &V3Headers<'_>, body: &[u8], now: Timestamp, keys: &PlatformKeys) -> Result<(), V3Refusal> {
    if now.as_second().abs_diff(headers.seconds) > CLOCK_SKEW_MAX_S {
        return Err(V3Refusal::StaleTimestamp);
    }
    let key = keys.get(headers.serial, now).map_err(|error| match error {
        LookupError::Unknown => V3Refusal::UnknownSerial,
        LookupError::Expired => V3Refusal::Expired,
    })?;
    // Only here: a probe under a serial that we lack must still show as an unknown serial, which the merchant has to
    // cure. Dropping this branch would change the counter, not the verdict.
    if headers.signature.starts_with(PROBE_PREFIX) {
        return Err(V3Refusal::Probe);
    }
    let signature = STANDARD.decode(headers.signature).map_err(|_| V3Refusal::BadSignature)?;
    let mut message = Context::new(&SHA256);
    for part in [headers.timestamp.as_bytes(), headers.nonce.as_bytes(), body] {
        message.update(part);
        message.update(b"\n");
    }
    key.verify_digest_sig(&message.finish(), &signature).map_err(|_| V3Refusal::BadSignature)
}

/// Whether a verified body is one complete JSON object in UTF-8; nothing in it is read.
///
/// # Errors
/// [`V3Refusal::BadJson`].
pub fn envelope_shape(body: &[u8]) -> Result<(), V3Refusal> {
    let text = std::str::from_utf8(body).map_err(|_| V3Refusal::BadJson)?;
    if !text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('{') {
        return Err(V3Refusal::BadJson);
    }
    serde_json::from_str::<IgnoredAny>(text).map(drop).map_err(|_| V3Refusal::BadJson)
}

fn single<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>, V3Refusal> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(V3Refusal::DuplicateHeader(name));
    }
    let text = value.to_str().ok().filter(|text| !text.is_empty()).ok_or(V3Refusal::MalformedHeader(name))?;
    Ok(Some(text))
}

/// Digits only: a sign, a blank or a leading zero would be a second spelling of the same moment.
fn plain_seconds(text: &str) -> Option<i64> {
    let plain =
        text.len() <= TIMESTAMP_DIGITS_MAX && !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;
    use crate::wechat::sender::SigningKey;

    const NOW: i64 = 1_773_800_430;
    const BODY: &[u8] = "{\"summary\":\"支付成功\"}\r\n\n".as_bytes();

    struct Bench {
        key: SigningKey,
        keys: PlatformKeys,
    }

    impl Bench {
        fn new() -> Self {
            let key = SigningKey::generate("PUB_KEY_ID_1").unwrap();
            let mut keys = PlatformKeys::default();
            keys.add_public_key("PUB_KEY_ID_1", key.public_pem().unwrap().as_bytes()).unwrap();
            Self { key, keys }
        }

        fn signed(&self, at: i64, body: &[u8]) -> HeaderMap {
            let at = Timestamp::from_second(at).unwrap();
            let pairs = self.key.sign(at, "5K8264ILTKCH16CQ2502SI8ZNMTM67VS", body).unwrap();
            pairs.into_iter().map(|(name, value)| (header(name), HeaderValue::try_from(value).unwrap())).collect()
        }

        fn check(&self, headers: &HeaderMap, body: &[u8]) -> Result<(), V3Refusal> {
            verify(&V3Headers::read(headers)?, body, Timestamp::from_second(NOW).unwrap(), &self.keys)
        }
    }

    fn header(name: &str) -> HeaderName {
        HeaderName::try_from(name).unwrap()
    }

    #[test]
    fn the_raw_bytes_are_signed_and_nothing_else() {
        let bench = Bench::new();
        let headers = bench.signed(NOW, BODY);
        assert_eq!(bench.check(&headers, BODY), Ok(()));
        let text = std::str::from_utf8(BODY).unwrap();
        for body in [text.trim_end(), &text.replace("\r\n", "\n"), &text.replace(':', ": "), ""] {
            assert_eq!(bench.check(&headers, body.as_bytes()), Err(V3Refusal::BadSignature));
        }
    }

    #[test]
    fn each_header_is_needed_exactly_once() {
        let bench = Bench::new();
        for name in [TIMESTAMP, NONCE, SIGNATURE, SERIAL] {
            let mut headers = bench.signed(NOW, BODY);
            let value = headers.remove(name).unwrap();
            assert_eq!(bench.check(&headers, BODY), Err(V3Refusal::MissingHeader(name)));
            headers.append(header(name), value.clone());
            headers.append(header(name), value);
            assert_eq!(bench.check(&headers, BODY), Err(V3Refusal::DuplicateHeader(name)));
            headers.insert(header(name), HeaderValue::from_bytes(b"\xff").unwrap());
            assert_eq!(bench.check(&headers, BODY), Err(V3Refusal::MalformedHeader(name)));
        }
        let mut headers = bench.signed(NOW, BODY);
        headers.remove(SIGNATURE_TYPE);
        assert_eq!(bench.check(&headers, BODY), Ok(()));
        headers.insert(header(SIGNATURE_TYPE), HeaderValue::from_static("WECHATPAY2-SM2-WITH-SM3"));
        assert_eq!(bench.check(&headers, BODY), Err(V3Refusal::UnsupportedSignatureType));
    }

    #[test]
    fn the_clocks_may_be_five_minutes_apart_either_way() {
        let bench = Bench::new();
        for (skew, verdict) in [
            (-301, Err(V3Refusal::StaleTimestamp)),
            (-300, Ok(())),
            (0, Ok(())),
            (300, Ok(())),
            (301, Err(V3Refusal::StaleTimestamp)),
        ] {
            assert_eq!(bench.check(&bench.signed(NOW + skew, BODY), BODY), verdict, "{skew}");
        }
        for text in ["+1773800430", "01773800430", "1773800430.0", "-1", "0x69", "1773800430000000", "１７７"] {
            let mut headers = bench.signed(NOW, BODY);
            headers.insert(header(TIMESTAMP), HeaderValue::from_str(text).unwrap());
            assert_eq!(bench.check(&headers, BODY), Err(V3Refusal::MalformedHeader(TIMESTAMP)), "{text}");
        }
        let mut headers = bench.signed(NOW, BODY);
        headers.insert(header(TIMESTAMP), HeaderValue::from_static("177380043000"));
        assert_eq!(bench.check(&headers, BODY), Err(V3Refusal::StaleTimestamp));
    }

    #[test]
    fn probes_unknown_serials_and_wrong_signatures_are_told_apart() {
        let bench = Bench::new();
        let with = |name: &str, value: &'static str| {
            let mut headers = bench.signed(NOW, BODY);
            headers.insert(header(name), HeaderValue::from_static(value));
            bench.check(&headers, BODY)
        };
        assert_eq!(with(SIGNATURE, "WECHATPAY/SIGNTEST/0aB+"), Err(V3Refusal::Probe));
        assert_eq!(with(SIGNATURE, "not base64"), Err(V3Refusal::BadSignature));
        assert_eq!(with(SIGNATURE, "AAAA"), Err(V3Refusal::BadSignature));
        assert_eq!(with(SERIAL, "PUB_KEY_ID_2"), Err(V3Refusal::UnknownSerial));
        assert_eq!(with(NONCE, "5K8264ILTKCH16CQ2502SI8ZNMTM67Vs"), Err(V3Refusal::BadSignature));
    }

    #[test]
    fn only_a_complete_json_object_is_an_envelope() {
        for body in [&b"{}"[..], b" \r\n{\"a\":[1,{}]}\n"] {
            assert_eq!(envelope_shape(body), Ok(()));
        }
        let deep = [b"{\"a\":".as_slice(), &[b'['; 60_000]].concat();
        for body in [
            &b""[..],
            b"{",
            b"{\"a\":1",
            b"[]",
            b"\"x\"",
            b"{}x",
            b"{\"a\":\"\xff\"}",
            b"\xef\xbb\xbf{}",
            &deep,
            b"<xml/>",
        ] {
            assert_eq!(envelope_shape(body), Err(V3Refusal::BadJson));
        }
    }
}
