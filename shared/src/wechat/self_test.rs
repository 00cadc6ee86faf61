//! Known answers for every cipher and digest that we depend on, to be computed once at start.
//!
//! A build or a processor that computes one of them wrongly would show as forged notifications and lost payments. A
//! program that cannot reproduce these answers must not start. Where the answers are not from a standard they were made
//! with OpenSSL.

use aws_lc_rs::hmac;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use md5::{Digest as _, Md5};
use secrecy::ExposeSecret as _;

use super::{
    keys::{ApiV3Key, PlatformKeys, V2Key},
    v2_refund,
    v3_resource::{self, ALGORITHM, ApiV3Keys, Resource},
    v3_sign::{self, NONCE, SERIAL, SIGNATURE, TIMESTAMP, V3Headers, V3Refusal},
};
use crate::envelope::hex;

const KEY: &str = "0123456789abcdef0123456789ABCDEF";
const REFUND: &str = "<root><refund_status>SUCCESS</refund_status></root>";
const REFUND_SEALED: &str = "qt7jg+jy4cjQlVwvdne9I3aeLD5UsgAexhO8/+QQSiUqT6kvO2a7gbJAytmSFX/eSjIOmvGjrLaMANv6yNCmkQ==";
const RESOURCE_PLAIN: &[u8] = br#"{"trade_state":"SUCCESS"}"#;
const RESOURCE_SEALED: &str = "YOZv+xMaGw+dsefTb+guj0pLD5SEs1dnDaX2P/7gZIpDCXUonFZYM28=";

const SIGNED_AT: i64 = 1_700_000_000;
const SIGNED_NONCE: &str = "self-test-nonce-0000000000000000";
const SIGNED_BODY: &[u8] = br#"{"self":"test"}"#;
const SIGNER: &str = "PUB_KEY_ID_SELFTEST";
/// Its private half was thrown away after the one signature below.
const SIGNER_PEM: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAvjXtwfDB0ko/nVFinrWO
clGX8s8R5poSGzk1oU2/49UzyGiH3aF33rb7Sb22TBuNtGEVT66Pjnx3oYKv+eUC
ENQvpPQ9L1d8Xblo1G76uisz8gQ9GJ22jvplQDkj9f4vBGczbvjUFDHtbp4y0zq0
rj+7/sqESjvBskdWniMMnr7ayWq7ZUQ5wnOaIEuZRo84xm+D+qM/9ajK4f04IRH1
I+hgFWDybF/UiEdTQFkSlKYNhRM8SB21fjlcCB3TYOd0S2oDxrNLCANh7HVvs7zu
1xR6daqlrZEtcgtLSHXYSNPRPNFoC339yBCRmqblzJoj8NiJYpZvXsVAAdp9Hz7W
3QIDAQAB
-----END PUBLIC KEY-----
";
const SIGNED: &str = "XbtO37E9WcBtubk2EiMyboY+LdSmskKLW/V6Yj7JRWYDuSX4W35Tfhjg0LlnZ3u7GHrcciLu4zcdiKcYAEJcTonuVrvSwmhx\
    6K67xmxofOxBLsEBcwC9kPHfLvflHoU0yEPmQyIA4Z55PoeYlqZuPVYJhpzc42o/Mg9MgEzRWsSElj0sC8KN6hNOzoohzgouQWQNvCedLj7eWAAxhtvZ\
    dbMG5XubRRFXs5x4NvswryrKFhZhpGWFaMY/DzUwcHP3z4337U75hlw4B5MQDG4loQgvaKLqk5HQH+6IvJYb24SoPjUMxLTfAM7o5C5omwDgB96vSoAe\
    fOMlfADcT2dD7A==";

/// Computes every known answer; under a millisecond.
///
/// # Errors
/// The name of the first algorithm that computed something else. The program must not go on.
pub fn self_test() -> Result<(), &'static str> {
    let test = |passed, name| if passed { Ok(()) } else { Err(name) };
    test(hex(&Md5::digest(b"abc")) == "900150983cd24fb0d6963f7d28e17f72", "MD5")?;
    test(hmac_sha256(), "HMAC-SHA256")?;
    test(aes_ecb(), "AES-256-ECB")?;
    test(aes_gcm(), "AES-256-GCM")?;
    test(rsa(), "RSA-SHA256")
}

/// RFC 4231, test case 2.
fn hmac_sha256() -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"Jefe");
    let tag = hmac::sign(&key, b"what do ya want for nothing?");
    hex(tag.as_ref()) == "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
}

fn aes_ecb() -> bool {
    let Ok(key) = V2Key::parse(KEY) else { return false };
    v2_refund::open_req_info(&key, REFUND_SEALED).is_ok_and(|text| text.expose_secret() == REFUND)
}

fn aes_gcm() -> bool {
    let Ok(current) = ApiV3Key::parse(KEY) else { return false };
    let keys = ApiV3Keys { current, previous: None };
    let resource = |associated_data: &str| Resource {
        algorithm: ALGORITHM.to_owned(),
        ciphertext: RESOURCE_SEALED.to_owned(),
        associated_data: associated_data.to_owned(),
        nonce: "abcdefghijkl".to_owned(),
        original_type: None,
    };
    v3_resource::open(&resource("transaction"), &keys).is_ok_and(|plaintext| plaintext.expose() == RESOURCE_PLAIN)
        && v3_resource::open(&resource("transactioN"), &keys).is_err()
}

fn rsa() -> bool {
    let mut keys = PlatformKeys::default();
    let Ok(now) = Timestamp::from_second(SIGNED_AT) else { return false };
    if keys.add_public_key(SIGNER, SIGNER_PEM.as_bytes()).is_err() {
        return false;
    }
    let timestamp = SIGNED_AT.to_string();
    let headers: HeaderMap =
        [(TIMESTAMP, timestamp.as_str()), (NONCE, SIGNED_NONCE), (SIGNATURE, SIGNED), (SERIAL, SIGNER)]
            .into_iter()
            .filter_map(|(name, value)| Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?)))
            .collect();
    let verify = |body| v3_sign::verify(&V3Headers::read(&headers)?, body, now, &keys);
    verify(SIGNED_BODY) == Ok(()) && verify(br#"{"self":"tesT"}"#) == Err(V3Refusal::BadSignature)
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_known_answer_is_computed() {
        assert_eq!(super::self_test(), Ok(()));
    }
}
