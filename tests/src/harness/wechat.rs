//! WeChat's side of refunds and of v3: notices signed or encrypted at this moment, with the keys of the vector set.

use std::{fs, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use wxpay_shared::{
    clock::{Clock as _, SystemClock},
    wechat::{
        keys::{ApiV3Key, V2Key},
        sender::{self, SigningKey},
        v2_sender,
    },
};

use super::pair::{APPID, MCH_ID, PUBLIC_KEY_ID};

pub(crate) const CERT_A: &str = "5A1D0C7E9F3B2A4866D1E0F4C3B2A19087F6E5D4";
pub(crate) const CERT_B: &str = "0C7E9F3B2A4866D1E0F4C3B2A19087F6E5D43B2A";

/// A platform key of the vector set by its file's name, under the serial that it is sent with.
pub(crate) fn platform_key(file: &str, serial: &str) -> SigningKey {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("data/vectors/keys/{file}.private.pkcs8.b64"));
    let text = fs::read_to_string(path).expect("the vector set has its keys");
    SigningKey::from_pkcs8(serial, &STANDARD.decode(text.trim()).expect("base64")).expect("a private key")
}

pub(crate) fn public_key() -> SigningKey {
    platform_key("platform_pubkey", PUBLIC_KEY_ID)
}

/// Headers and body of a v3 notification.
pub(crate) struct Signed {
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
}

/// Signs now; `number` makes nonce and id distinct.
pub(crate) fn v3(key: &SigningKey, api_key: &str, event_type: &str, number: usize, content: &Value) -> Signed {
    let now = SystemClock.now();
    let api_key = ApiV3Key::parse(api_key).expect("an APIv3 key");
    let nonce = format!("{number:012}");
    let nonce: &[u8; 12] = nonce.as_bytes().try_into().expect("twelve digits");
    let kind = if event_type.starts_with("REFUND") { "refund" } else { "transaction" };
    let resource = sender::seal_resource(&api_key, nonce, kind, content.to_string().as_bytes());
    let body = sender::notice_body(&format!("EV-{number}"), now, event_type, &resource);
    let headers = key.sign(now, &format!("{number:032}"), body.as_bytes()).expect("the key signs").into();
    Signed { headers, body }
}

/// The content of a direct payment.
pub(crate) fn transaction(out_trade_no: &str, total: i64) -> Value {
    json!({
        "mchid": MCH_ID, "appid": APPID, "out_trade_no": out_trade_no, "transaction_id": format!("42{out_trade_no}"),
        "trade_type": "JSAPI", "trade_state": "SUCCESS", "bank_type": "OTHERS", "attach": "",
        "success_time": "2026-03-18T10:20:30+08:00", "payer": { "openid": "oTESTpayer0001" },
        "amount": { "total": total, "payer_total": total, "currency": "CNY", "payer_currency": "CNY" }
    })
}

/// The content of a refund; `status` is SUCCESS, ABNORMAL or CLOSED.
pub(crate) fn refund(out_trade_no: &str, total: i64, number: usize, amount: i64, status: &str) -> Value {
    json!({
        "mchid": MCH_ID, "out_trade_no": out_trade_no, "transaction_id": format!("42{out_trade_no}"),
        "out_refund_no": format!("R{number}{out_trade_no}"), "refund_id": format!("50{number}{out_trade_no}"),
        "refund_status": status, "success_time": "2026-03-18T10:30:30+08:00", "user_received_account": "someone's card",
        "amount": { "total": total, "refund": amount, "payer_total": total, "payer_refund": amount }
    })
}

/// A v2 refund notice of the same refund.
pub(crate) fn v2_refund(key: &str, mch_id: &str, content: &Value) -> String {
    v2_refund_with(key, mch_id, content, "TeqClE3i0mvn3DrK")
}

/// The same under a nonce of the caller's.
pub(crate) fn v2_refund_with(key: &str, mch_id: &str, content: &Value, nonce_str: &str) -> String {
    let text = |pointer: &str| {
        let value = &content.pointer(pointer).expect("a field of the content");
        value.as_str().map_or_else(|| value.to_string(), str::to_owned)
    };
    let status = match text("/refund_status").as_str() {
        "SUCCESS" => "SUCCESS",
        "ABNORMAL" => "CHANGE",
        _ => "REFUNDCLOSE",
    };
    let fields = [
        ("out_refund_no", text("/out_refund_no")),
        ("out_trade_no", text("/out_trade_no")),
        ("refund_account", "REFUND_SOURCE_RECHARGE_FUNDS".to_owned()),
        ("refund_fee", text("/amount/refund")),
        ("refund_id", text("/refund_id")),
        ("refund_recv_accout", "招商银行信用卡0403".to_owned()),
        ("refund_request_source", "API".to_owned()),
        ("refund_status", status.to_owned()),
        ("settlement_refund_fee", text("/amount/refund")),
        ("success_time", "2026-03-18 10:30:30".to_owned()),
        ("total_fee", text("/amount/total")),
        ("transaction_id", text("/transaction_id")),
    ];
    let inner = v2_sender::document("root", fields.iter().map(|(name, value)| (*name, value.as_str())));
    let req_info = sender::seal_req_info(&V2Key::parse(key).expect("a v2 key"), &inner);
    v2_sender::document(
        "xml",
        [
            ("return_code", "SUCCESS"),
            ("appid", APPID),
            ("mch_id", mch_id),
            ("nonce_str", nonce_str),
            ("req_info", req_info.as_str()),
        ],
    )
}
