//! What one notification costs on one processor: the proofs, against the least that the libraries need for them, and the
//! pure steps around them.

use std::{collections::BTreeMap, hint::black_box};

use aws_lc_rs::signature::{ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use criterion::{Criterion, criterion_group, criterion_main};
use jiff::Timestamp;
use md5::{Digest as _, Md5};
use wxpay_shared::{
    envelope::{Api, Envelope, SealKeys},
    event::{Event, Fact, Payment},
    fen::Fen,
    ids::{AppId, Currency, MchId, MerchantName, NotificationId, OrderId, OutTradeNo, TransactionId, UserId},
    order::{Order, Registration},
    wechat::{
        keys::{PlatformKeys, V2Key},
        sender::SigningKey,
        v2_sender,
        v2_sign::{self, SignType},
        v2_xml,
        v3_sign::{self, NONCE, SIGNATURE, TIMESTAMP, V3Headers},
    },
};

// As in the programs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const KEY: &str = "192006250b4c09247ec02edce69f6a2d";
const SERIAL: &str = "PUB_KEY_ID_0119000000010000000000000000000001";

fn now() -> Timestamp {
    Timestamp::from_second(1_773_800_430).expect("a time")
}

fn v2_body(key: &V2Key) -> String {
    let fields = [
        ("appid", "wxd678efh567hg6787"),
        ("attach", "store 12, desk 3"),
        ("bank_type", "OTHERS"),
        ("cash_fee", "8800"),
        ("device_info", "WEB"),
        ("fee_type", "CNY"),
        ("is_subscribe", "N"),
        ("mch_id", "1900000109"),
        ("nonce_str", "5d2b6c2a8db53831f7eda20af46e531c"),
        ("openid", "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"),
        ("out_trade_no", "1409811653000000000001"),
        ("result_code", "SUCCESS"),
        ("return_code", "SUCCESS"),
        ("time_end", "20260318102030"),
        ("total_fee", "8800"),
        ("trade_type", "JSAPI"),
        ("transaction_id", "4200000000202603180000000001"),
    ];
    v2_sender::signed(&fields, key, SignType::Md5).expect("the names differ")
}

fn v2(criterion: &mut Criterion) {
    let key = V2Key::parse(KEY).expect("a key");
    let body = v2_body(&key);
    let mut group = criterion.benchmark_group(format!("v2, {} bytes", body.len()));
    group.bench_function("MD5 of the body", |bencher| bencher.iter(|| Md5::digest(black_box(body.as_bytes()))));
    group.bench_function("read and verify", |bencher| {
        bencher.iter(|| {
            let fields = v2_xml::parse(black_box(body.as_bytes()), "xml").expect("a document");
            v2_sign::verify(&fields, &key).expect("signed");
        });
    });
    group.bench_function("read", |bencher| bencher.iter(|| v2_xml::parse(black_box(body.as_bytes()), "xml")));
    group.finish();
}

fn v3(criterion: &mut Criterion) {
    let signer = SigningKey::generate(SERIAL).expect("a key");
    let pem = signer.public_pem().expect("a public key");
    let mut keys = PlatformKeys::default();
    keys.add_public_key(SERIAL, pem.as_bytes()).expect("a public key");
    let body = format!("{{\"id\":\"EV-1\",\"resource\":{{\"ciphertext\":\"{}\"}}}}", "a".repeat(900));
    let pairs = signer.sign(now(), "5K8264ILTKCH16CQ2502SI8ZNMTM67VS", body.as_bytes()).expect("a signature");
    let signed: BTreeMap<_, _> = pairs.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let header = |(name, value): (&&str, &&str)| {
        (HeaderName::try_from(*name).expect("a name"), HeaderValue::from_str(value).expect("a value"))
    };
    let headers: HeaderMap = signed.iter().map(header).collect();

    let der: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = STANDARD.decode(der).expect("base64");
    let key = ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, der).expect("a public key");
    let message = format!("{}\n{}\n{body}\n", signed[TIMESTAMP], signed[NONCE]);
    let signature = STANDARD.decode(signed[SIGNATURE]).expect("base64");
    let mut group = criterion.benchmark_group("v3");
    group.bench_function("RSA-2048 verify of the library", |bencher| {
        bencher.iter(|| key.verify_sig(black_box(message.as_bytes()), &signature).expect("signed"));
    });
    group.bench_function("verify", |bencher| {
        bencher.iter(|| {
            let headers = V3Headers::read(black_box(&headers)).expect("all headers");
            v3_sign::verify(&headers, body.as_bytes(), now(), &keys).expect("signed");
            v3_sign::envelope_shape(body.as_bytes()).expect("JSON");
        });
    });
    group.finish();
}

fn steps(criterion: &mut Criterion) {
    let key = V2Key::parse(KEY).expect("a key");
    let merchant = MerchantName::parse("shop").expect("a name");
    let seal = SealKeys::new(b"a key of the seal, long enough for it", None);
    let envelope = Envelope {
        id: NotificationId::new(now()),
        merchant: merchant.clone(),
        api: Api::V2,
        received_at: now(),
        body: v2_body(&key).into(),
    };
    let id = OrderId { merchant, out_trade_no: OutTradeNo::parse("1409811653000000000001").expect("a number") };
    let registration = Registration {
        id: id.clone(),
        amount: Fen::new(8800).expect("an amount"),
        currency: Currency::cny(),
        user: Some(UserId::parse("u1").expect("a user")),
        appid: None,
        rate: "1/100".parse().expect("a rate"),
    };
    let payment = Payment {
        order: id,
        mchid: MchId::parse("1900000109").expect("a number"),
        appid: AppId::parse("wxd678efh567hg6787").expect("an application"),
        transaction_id: TransactionId::parse("4200000000202603180000000001").expect("a number"),
        amount: Fen::new(8800).expect("an amount"),
        currency: Currency::cny(),
        payer: None,
        success_time: now(),
    };
    let event = Event { notification: envelope.id.clone(), fact: Fact::Payment(payment) };
    let order = Order::new(registration, now());
    let message = envelope.clone().seal(&seal);
    let mut group = criterion.benchmark_group("steps");
    group.bench_function("seal", |bencher| bencher.iter(|| black_box(envelope.clone()).seal(&seal)));
    group.bench_function("open", |bencher| bencher.iter(|| Envelope::open(black_box(&message), &seal)));
    group.bench_function("decide", |bencher| bencher.iter(|| order.decide(black_box(&event))));
    group.finish();
}

criterion_group!(benches, v2, v3, steps);
criterion_main!(benches);
