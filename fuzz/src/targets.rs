//! What must hold whatever arrives, one plain function for each reader. A panic is a finding.
//!
//! The fuzz targets call them, and so does `make test`, over the notification vectors and mutations of them. They hold
//! keys that sealed and signed nothing, so nothing may be believed here, be it a real notification.

use std::sync::LazyLock;

use axum::http::{HeaderMap, HeaderValue};
use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use wxpay_shared::{
    ids::{AppId, MchId, MerchantName},
    wechat::{
        keys::{ApiV3Key, PlatformKeys, V2Key},
        merchant_ids::MerchantIds,
        sender::{seal_req_info, seal_resource},
        v2_payment, v2_refund, v2_sender, v2_sign,
        v2_xml::{self, FIELDS_MAX},
        v3_event::{self, Outcome},
        v3_resource::{self, ApiV3Keys},
        v3_sign::{self, NONCE, RSA_SHA256, SERIAL, SIGNATURE, SIGNATURE_TYPE, TIMESTAMP, V3Headers},
    },
};

/// The headers that [`v3_headers`] takes from its input, each by its digit.
pub const HEADERS: [&str; 5] = [TIMESTAMP, NONCE, SIGNATURE, SERIAL, SIGNATURE_TYPE];

const EVENT_TYPES: [&str; 5] =
    ["TRANSACTION.SUCCESS", "REFUND.SUCCESS", "REFUND.ABNORMAL", "REFUND.CLOSED", "MCHTRANSFER.BILL.FINISHED"];
const PUBLIC_KEY_ID: &str = "PUB_KEY_ID_0119009900012026031800000000000001";
const SIGNED_AT: i64 = 1_773_800_430;

struct Strangers {
    merchant: MerchantName,
    ids: MerchantIds,
    v2: V2Key,
    v3: ApiV3Keys,
    /// The serial that notifications name, with a key that did not sign them.
    platform: PlatformKeys,
}

static STRANGERS: LazyLock<Strangers> = LazyLock::new(|| {
    let secret = "N0b0dySignsOrSealsUnderThisKey!!";
    let mut platform = PlatformKeys::default();
    let pem = include_bytes!("../../tests/data/vectors/keys/platform_cert_b.public.pem");
    platform.add_public_key(PUBLIC_KEY_ID, pem).expect("a public key of the vectors");
    Strangers {
        merchant: MerchantName::parse("shop").expect("a name"),
        ids: MerchantIds {
            mch_id: MchId::parse("1900990001").expect("a merchant number"),
            appids: vec![AppId::parse("wxtest00000000a001").expect("an appid")],
            sub_mch_ids: vec![],
            sub_appids: vec![],
        },
        v2: V2Key::parse(secret).expect("32 characters"),
        v3: ApiV3Keys { current: ApiV3Key::parse(secret).expect("32 characters"), previous: None },
        platform,
    }
});

/// The XML reader: what it accepts is what a writer would write, and under another key it is nobody's.
pub fn v2_xml(data: &[u8]) {
    for root in ["xml", "root"] {
        let Ok(fields) = v2_xml::parse(data, root) else { continue };
        let names: Vec<&str> = fields.iter().map(|(name, _)| name).collect();
        assert!(names.len() <= FIELDS_MAX, "{} fields", names.len());
        assert!(names.is_sorted_by(|left, right| left < right), "names that are not unique: {names:?}");
        let written = v2_sender::document(root, fields.iter());
        assert!(v2_xml::parse(written.as_bytes(), root).as_ref() == Ok(&fields), "written, it reads otherwise");
        assert!(v2_sign::verify(&fields, &STRANGERS.v2).is_err(), "verified under a key that did not sign it");
        drop(v2_payment::read(&fields, &STRANGERS.merchant, &STRANGERS.ids));
    }
}

/// The refund opener, with the input as a whole notice, as `req_info`, and as what is sealed in it.
pub fn v2_refund(data: &[u8]) {
    let keys = &*STRANGERS;
    if let Ok(outer) = v2_xml::parse(data, "xml")
        && let Ok(outer) = v2_refund::read_outer(|name| outer.get(name), &keys.ids)
    {
        assert_no_document(&keys.v2, outer.req_info);
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    assert_no_document(&keys.v2, text);
    if let Ok(inner) = v2_xml::parse(data, "root") {
        drop(v2_refund::read_refund(|name| inner.get(name), &keys.merchant, keys.ids.mch_id.clone()));
    }
    let owner = V2Key::parse("0123456789abcdef0123456789ABCDEF").expect("32 characters");
    let sealed = seal_req_info(&owner, text);
    let opened = v2_refund::open_req_info(&owner, &sealed).expect("it opens under its own key");
    assert!(opened.expose_secret() == text, "another text came out");
    assert_no_document(&keys.v2, &sealed);
}

/// ECB has no tag: under a wrong key one block in a few million is by chance padded text. It is never a document.
fn assert_no_document(key: &V2Key, req_info: &str) {
    let Ok(text) = v2_refund::open_req_info(key, req_info) else { return };
    let parsed = v2_xml::parse(text.expose_secret().as_bytes(), "root");
    assert!(parsed.is_err(), "a refund came out under a key that did not seal it");
}

/// The headers and the signature. The input is a body; lines before it, up to an empty one, replace headers: a digit for
/// the place in [`HEADERS`], then the value. A digit on two lines makes the header occur twice.
pub fn v3_headers(data: &[u8]) {
    let (lines, body) = match data.windows(2).position(|pair| pair == b"\n\n") {
        Some(end) => (&data[..end], &data[end + 2..]),
        None => (&[][..], data),
    };
    let mut headers = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n') {
        let Some((digit, value)) = line.split_first() else { continue };
        let Some(name) = HEADERS.get(usize::from(digit.wrapping_sub(b'0'))) else { continue };
        let Ok(value) = HeaderValue::from_bytes(value) else { continue };
        headers.append(*name, value);
    }
    let signature = "A".repeat(342) + "==";
    let usual = [&SIGNED_AT.to_string(), "nonce", &signature, PUBLIC_KEY_ID, RSA_SHA256];
    for (name, value) in HEADERS.into_iter().zip(usual) {
        if !headers.contains_key(name) {
            headers.insert(name, HeaderValue::from_str(value).expect("visible ASCII"));
        }
    }
    let shape = v3_sign::envelope_shape(body);
    assert!(
        shape.is_ok() || v3_resource::parse(body).is_err(),
        "the worker reads what ingress takes for no JSON object"
    );
    let Ok(read) = V3Headers::read(&headers) else { return };
    // The clock of the sender's choice, so that the signature is looked at.
    let claimed = headers[TIMESTAMP].to_str().ok().and_then(|text| text.parse().ok());
    let now = claimed.and_then(|second| Timestamp::from_second(second).ok()).unwrap_or(Timestamp::UNIX_EPOCH);
    let verdict = v3_sign::verify(&read, body, now, &STRANGERS.platform);
    assert!(verdict.is_err(), "verified without the platform's signature");
}

/// The resource opener, with the input as a whole body and as what is sealed in it.
pub fn v3_resource(data: &[u8]) {
    let keys = &*STRANGERS;
    if let Ok(notice) = v3_resource::parse(data) {
        assert!(v3_resource::open(&notice.resource, &keys.v3).is_err(), "opened under a key that did not seal it");
    }
    let outcomes = v3_event::open(data, &keys.merchant, &keys.ids, &keys.v3);
    assert!(!outcomes.is_empty() && !outcomes.iter().any(|outcome| matches!(outcome, Outcome::Fact(_))));
    for event_type in EVENT_TYPES {
        assert!(!v3_event::read(event_type, data, &keys.merchant, &keys.ids).is_empty());
    }
    let owner = || ApiV3Key::parse("0123456789abcdef0123456789ABCDEF").expect("32 characters");
    let sealed = seal_resource(&owner(), b"0123456789ab", "transaction", data);
    let opened = v3_resource::open(&sealed, &ApiV3Keys { current: owner(), previous: None });
    assert!(opened.expect("it opens under its own key").expose() == data, "another content came out");
    assert!(v3_resource::open(&sealed, &keys.v3).is_err(), "opened under a key that did not seal it");
}
