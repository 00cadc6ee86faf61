//! The notification vectors in `tests/data/vectors`, families v3 and v2refund, against the pure protocol modules: what
//! ingress accepts, and what the worker reads out of it.

use crate::support::{Vector, config, file, ids, merchant, platform_keys, v2_key, v3_keys, vectors};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use wxpay_shared::{
    event::{Fact, RefundStatus},
    reason::{Reason, Rejection},
    wechat::{
        sender::SigningKey,
        v2_refund, v2_xml,
        v3_event::{self, Outcome},
        v3_sign::{self, V3Headers, V3Refusal},
    },
};

#[test]
fn ingress_accepts_and_refuses_every_v3_vector_as_the_manifest_says() {
    let keys = platform_keys();
    let max_body = config()["limits"]["max_body"].as_u64().unwrap();
    for vector in vectors("v3") {
        let verdict = verify(&vector, &keys);
        match vector.ingress.as_str() {
            "accept" => assert_eq!(verdict, Ok(()), "{}", vector.id),
            // The HTTP server refuses it before anybody looks at a signature.
            "refuse" if vector.body.len() as u64 > max_body => assert_eq!(vector.reason, "body_too_large"),
            "refuse" => assert_eq!(verdict.unwrap_err().code(), vector.reason, "{}", vector.id),
            _ => assert_eq!((verdict, vector.id.as_str()), (Ok(()), "boundary-300")),
        }
    }
}

#[test]
fn the_worker_reads_every_accepted_v3_vector_as_the_manifest_says() {
    for vector in vectors("v3").into_iter().filter(|vector| vector.ingress != "refuse") {
        let outcomes = v3_event::open(&vector.body, &merchant(), &ids(vector.has_flag("partner")), &v3_keys());
        let [outcome] = &outcomes[..] else { panic!("{}: {} outcomes", vector.id, outcomes.len()) };
        match (vector.worker.as_str(), outcome) {
            ("apply" | "duplicate" | "either", Outcome::Fact(fact)) => assert_fields(&vector, fact),
            ("ignore", Outcome::Ignored(_)) => {}
            // Read all right; that the order says something else is not for these modules to know.
            ("dead_letter", Outcome::Fact(fact)) => {
                assert!(["tx-amount-mismatch", "tx-currency-mismatch"].contains(&vector.id.as_str()), "{}", vector.id);
                assert_fields(&vector, fact);
            }
            ("dead_letter", Outcome::Rejected(rejection)) => assert_reason(&vector, rejection),
            (worker, outcome) => panic!("{}: expected {worker}, got {outcome:?}", vector.id),
        }
    }
}

#[test]
fn refund_notices_open_and_read_as_the_manifest_says() {
    let mut seen = std::collections::BTreeSet::new();
    for vector in vectors("v2refund") {
        let read = read_refund(&vector);
        match (vector.ingress.as_str(), vector.worker.as_str(), read) {
            ("accept", worker, Ok(fact)) => {
                assert_fields(&vector, &fact);
                assert_eq!(seen.insert(fact.key()), worker == "apply", "{}: {worker}", vector.id);
            }
            ("refuse" | "either", _, Err(_)) => {}
            (ingress, worker, read) => panic!("{}: expected {ingress} {worker}, got {read:?}", vector.id),
        }
    }
    assert_eq!(seen.len(), 5);
}

#[test]
fn every_configured_key_verifies_what_its_private_half_signs_unless_expired() {
    let keys = platform_keys();
    let now = Timestamp::from_second(config()["now"].as_i64().unwrap()).unwrap();
    for (serial, path) in config()["platform_keys"].as_object().unwrap() {
        let path = path.as_str().unwrap();
        let (name, _) = path.split_once('.').unwrap();
        let der = STANDARD.decode(file(&format!("{name}.private.pkcs8.b64")).trim_ascii()).unwrap();
        let signed = SigningKey::from_pkcs8(serial, &der).unwrap().sign(now, "nonce", b"{}").unwrap();
        let headers = signed
            .into_iter()
            .map(|(name, value)| (HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap()));
        let headers: HeaderMap = headers.collect();
        let verdict = v3_sign::verify(&V3Headers::read(&headers).unwrap(), b"{}", now, &keys);
        assert_eq!(verdict, if name.ends_with("expired") { Err(V3Refusal::Expired) } else { Ok(()) }, "{serial}");
    }
}

fn verify(vector: &Vector, keys: &wxpay_shared::wechat::keys::PlatformKeys) -> Result<(), V3Refusal> {
    let now = Timestamp::from_second(vector.now.unwrap()).unwrap();
    v3_sign::verify(&V3Headers::read(&vector.headers)?, &vector.body, now, keys)?;
    v3_sign::envelope_shape(&vector.body)
}

fn read_refund(vector: &Vector) -> Result<Fact, String> {
    let xml = v2_xml::parse(&vector.body, "xml").map_err(|error| error.to_string())?;
    let ids = ids(vector.has_flag("partner"));
    let outer = v2_refund::read_outer(|name| xml.get(name), &ids).map_err(|error| error.to_string())?;
    let plaintext = v2_refund::open_req_info(&v2_key(), outer.req_info).map_err(|error| error.to_string())?;
    let inner = v2_xml::parse(plaintext.expose_secret().as_bytes(), "root").map_err(|error| error.to_string())?;
    let refund = v2_refund::read_refund(|name| inner.get(name), &merchant(), outer.mchid);
    refund.map(Fact::Refund).map_err(|error| error.to_string())
}

fn assert_fields(vector: &Vector, fact: &Fact) {
    for (name, expected) in vector.fields.as_object().into_iter().flatten() {
        let got = match (fact, name.as_str()) {
            (Fact::Payment(it), "out_trade_no") => it.order.out_trade_no.to_string(),
            (Fact::Payment(it), "transaction_id") => it.transaction_id.to_string(),
            (Fact::Payment(it), "total") => it.amount.get().to_string(),
            (Fact::Payment(it), "currency") => it.currency.to_string(),
            // Read, but not part of the fact.
            (Fact::Payment(_), "trade_state" | "payer_total") => continue,
            (Fact::Refund(it), "out_trade_no") => it.order.out_trade_no.to_string(),
            (Fact::Refund(it), "transaction_id") => it.transaction_id.to_string(),
            (Fact::Refund(it), "refund_id") => it.refund_id.to_string(),
            (Fact::Refund(it), "out_refund_no") => it.out_refund_no.to_string(),
            (Fact::Refund(it), "total") => it.total.get().to_string(),
            (Fact::Refund(it), "refund" | "refund_fee") => it.amount.get().to_string(),
            (Fact::Refund(it), "refund_status") => {
                let codes = match it.status {
                    RefundStatus::Success => ["SUCCESS", "SUCCESS"],
                    RefundStatus::Abnormal => ["ABNORMAL", "CHANGE"],
                    RefundStatus::Closed => ["CLOSED", "REFUNDCLOSE"],
                };
                assert!(codes.contains(&expected.as_str().unwrap()), "{}", vector.id);
                continue;
            }
            (_, name) => panic!("{}: unexpected field {name}", vector.id),
        };
        let expected = expected.as_str().map_or_else(|| expected.to_string(), str::to_owned);
        assert_eq!(got, expected, "{}: {name}", vector.id);
    }
}

fn assert_reason(vector: &Vector, rejection: &Rejection) {
    let expected = match vector.reason.as_str() {
        "decrypt_failed" | "bad_json" => Reason::Unopenable,
        "bad_amount" | "missing_field" => Reason::InvalidField,
        code => code.parse().unwrap(),
    };
    assert_eq!(rejection.reason, expected, "{}: {rejection}", vector.id);
}
