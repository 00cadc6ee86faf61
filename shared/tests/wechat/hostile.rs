//! Inputs that nobody signed: none may be accepted, none may panic.

use crate::support::{Vector, ids, merchant, platform_keys, v2_key, v3_keys, vectors};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use proptest::prelude::*;
use secrecy::ExposeSecret as _;
use wxpay_shared::wechat::{
    keys::{ApiV3Key, PlatformKeys, V2Key},
    sender::{seal_req_info, seal_resource},
    v2_refund, v2_xml, v3_event, v3_resource, v3_sign,
    v3_sign::{NONCE, SIGNATURE, SIGNATURE_TYPE, TIMESTAMP, V3Headers},
};

const EVENT_TYPES: [&str; 4] = ["TRANSACTION.SUCCESS", "REFUND.SUCCESS", "REFUND.ABNORMAL", "REFUND.CLOSED"];

fn signed() -> Vec<Vector> {
    let accepted = |vector: &Vector| vector.ingress == "accept";
    vectors("v3").into_iter().filter(accepted).collect()
}

fn is_accepted(vector: &Vector, keys: &PlatformKeys) -> bool {
    let now = Timestamp::from_second(vector.now.unwrap()).unwrap();
    V3Headers::read(&vector.headers).is_ok_and(|headers| v3_sign::verify(&headers, &vector.body, now, keys).is_ok())
}

#[test]
fn no_bit_of_a_signed_body_can_change() {
    let keys = platform_keys();
    let mut vector = signed().remove(0);
    assert!(is_accepted(&vector, &keys));
    for index in 0..vector.body.len() {
        for bit in 0..8 {
            vector.body[index] ^= 1 << bit;
            assert!(!is_accepted(&vector, &keys), "bit {bit} of byte {index}");
            vector.body[index] ^= 1 << bit;
        }
    }
    assert!(is_accepted(&vector, &keys));
}

#[test]
fn no_bit_of_the_signed_headers_can_change() {
    let keys = platform_keys();
    for mut vector in signed() {
        // The serial is not signed: it only picks the key, in more than one spelling.
        for name in [TIMESTAMP, NONCE, SIGNATURE, SIGNATURE_TYPE] {
            let Some(value) = vector.headers.get(name).cloned() else { continue };
            for index in 0..value.len() {
                for bit in 0..8 {
                    let mut bytes = value.as_bytes().to_vec();
                    bytes[index] ^= 1 << bit;
                    let Ok(changed) = axum::http::HeaderValue::from_bytes(&bytes) else { continue };
                    vector.headers.insert(name, changed);
                    assert!(!is_accepted(&vector, &keys), "{}: {name}, bit {bit} of byte {index}", vector.id);
                }
            }
            vector.headers.insert(name, value);
        }
    }
}

#[test]
fn no_bit_of_a_ciphertext_can_change() {
    let keys = v3_keys();
    let sealed = v3_resource::parse(&signed()[0].body).unwrap().resource;
    assert!(v3_resource::open(&sealed, &keys).is_ok());
    let bytes = STANDARD.decode(&sealed.ciphertext).unwrap();
    for index in 0..bytes.len() {
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[index] ^= 1 << bit;
            let resource = v3_resource::Resource { ciphertext: STANDARD.encode(changed), ..sealed.clone() };
            assert!(v3_resource::open(&resource, &keys).is_err(), "bit {bit} of byte {index}");
        }
    }
}

/// ECB has no tag, so a changed block may still be text; it must then be a claim or a rejection, never a panic.
#[test]
fn bit_flips_in_a_refund_notice_never_panic() {
    let vector = vectors("v2refund").remove(0);
    let outer = v2_xml::parse(&vector.body, "xml").unwrap();
    let ids = ids(false);
    let req_info = v2_refund::read_outer(|name| outer.get(name), &ids).unwrap().req_info;
    let bytes = STANDARD.decode(req_info).unwrap();
    let mut opened = 0;
    for index in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[index / 8] ^= 1 << (index % 8);
        let Ok(text) = v2_refund::open_req_info(&v2_key(), &STANDARD.encode(changed)) else { continue };
        opened += 1;
        let Ok(inner) = v2_xml::parse(text.expose_secret().as_bytes(), "root") else { continue };
        drop(v2_refund::read_refund(|name| inner.get(name), &merchant(), ids.mch_id.clone()));
    }
    assert!(opened < bytes.len() / 8, "{opened} of {} flips left a text", bytes.len() * 8);
}

proptest! {
    #[test]
    fn random_bytes_are_refused_by_every_reader(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        prop_assert!(PlatformKeys::default().add_certificate(&bytes).is_err());
        prop_assert!(PlatformKeys::default().add_public_key("PUB_KEY_ID_1", &bytes).is_err());
        let pem = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----", STANDARD.encode(&bytes));
        prop_assert!(PlatformKeys::default().add_certificate(pem.as_bytes()).is_err());
        prop_assert!(v3_resource::parse(&bytes).is_err());
        for outcome in v3_event::open(&bytes, &merchant(), &ids(false), &v3_keys()) {
            prop_assert!(matches!(outcome, v3_event::Outcome::Rejected(_)));
        }
        prop_assert!(v2_refund::open_req_info(&v2_key(), &String::from_utf8_lossy(&bytes)).is_err());
    }

    #[test]
    fn random_json_in_the_content_is_never_a_fact(text in "\\{(\"(amount|trade_state|mchid|sub_orders|payer)\":(null|1|\"SUCCESS\"|\\[\\{\\}\\]|\\{\"total\":1\\}),?){0,5}\\}") {
        for event_type in EVENT_TYPES {
            for outcome in v3_event::read(event_type, text.as_bytes(), &merchant(), &ids(false)) {
                prop_assert!(!matches!(outcome, v3_event::Outcome::Fact(_)));
            }
        }
    }

    #[test]
    fn only_the_right_key_opens(text in "\\PC{0,200}", current in "[!-~]{32}", other in "[!-~]{32}") {
        let keys = v3_resource::ApiV3Keys { current: ApiV3Key::parse(&current).unwrap(), previous: None };
        let sealed = seal_resource(&keys.current, b"0123456789ab", "transaction", text.as_bytes());
        let opened = v3_resource::open(&sealed, &keys).unwrap();
        prop_assert_eq!(opened.expose(), text.as_bytes());
        let wrong = v3_resource::ApiV3Keys { current: ApiV3Key::parse(&other).unwrap(), previous: None };
        prop_assert_eq!(v3_resource::open(&sealed, &wrong).is_ok(), current == other);

        let text = format!("<root><refund_status>SUCCESS</refund_status>{text}</root>");
        let key = V2Key::parse(&current).unwrap();
        let sealed = seal_req_info(&key, &text);
        let opened = v2_refund::open_req_info(&key, &sealed).unwrap();
        prop_assert_eq!(opened.expose_secret(), text.as_str());
        let opened = v2_refund::open_req_info(&V2Key::parse(&other).unwrap(), &sealed);
        prop_assert_eq!(opened.is_ok(), current == other);
    }

    #[test]
    fn any_header_values_are_refused(timestamp in "\\PC{0,12}|17738004[0-9]{2}", nonce in "[ -~]{0,40}", signature in "[ -~]{0,400}", serial in "[ -~]{0,50}|5A1D0C7E9F3B2A4866D1E0F4C3B2A19087F6E5D4") {
        let mut vector = signed().remove(0);
        for (name, value) in [(TIMESTAMP, timestamp), (NONCE, nonce), (SIGNATURE, signature), (v3_sign::SERIAL, serial)] {
            let Ok(value) = axum::http::HeaderValue::from_str(&value) else { return Ok(()) };
            vector.headers.insert(name, value);
        }
        prop_assert!(!is_accepted(&vector, &platform_keys()));
    }
}
