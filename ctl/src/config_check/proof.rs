//! Proves a merchant's keys: makes a notification of each kind with them, and takes it through the receiver's checks.

use wxpay_shared::{
    clock::{Clock as _, SystemClock},
    config::ConfigError,
    event::RefundStatus,
    fen::Fen,
    ids::{OutRefundNo, OutTradeNo},
    merchant::{Merchant, V3Keys},
    wechat::{
        keys::{ApiV3Key, V2Key},
        v2_sign::SignType,
    },
};

use crate::{
    verify::{self, checklist::Checklist},
    wechat_sender::{
        Outgoing, Payee, new_refund_id, new_transaction_id,
        v2::{Notice, Refund},
        v3,
    },
};

/// One line for each protocol that the merchant takes: `v2: ok, …`.
///
/// # Errors
/// [`ConfigError`] with the name of the first check that a notification of our own fails.
pub(super) fn prove(merchant: &Merchant) -> Result<Vec<String>, ConfigError> {
    let setting = |name: &str| format!("merchants.{}.{name}", merchant.name);
    let ids = &merchant.ids;
    let payee = Payee {
        mch_id: ids.mch_id.clone(),
        appid: ids.appids.first().cloned().ok_or_else(|| ConfigError::new(setting("appids"), "empty"))?,
        sub_mch_id: ids.sub_mch_ids.first().cloned(),
        sub_appid: ids.sub_appids.first().cloned(),
    };
    let mut proofs = Vec::new();
    for (index, key) in merchant.v2_keys.iter().enumerate() {
        for outgoing in v2(&payee, key) {
            passed(&verify::v2(outgoing.body.as_bytes(), merchant).1, || {
                setting(["v2_key", "previous_v2_key"][index])
            })?;
        }
    }
    if !merchant.v2_keys.is_empty() {
        proofs.push("v2: ok, by an MD5 payment, an HMAC-SHA256 payment and a refund".to_owned());
    }
    if let Some(keys) = &merchant.v3 {
        let current = std::iter::once(("api_v3_key", &keys.api.current));
        for (name, key) in current.chain(keys.api.previous.as_ref().map(|key| ("previous_api_v3_key", key))) {
            for body in v3(&payee, key) {
                passed(&verify::v3_content(body.as_bytes(), merchant, keys), || setting(name))?;
            }
        }
        proofs.push(v3_proof(keys));
    }
    Ok(proofs)
}

/// What only WeChat could make is not claimed.
fn v3_proof(keys: &V3Keys) -> String {
    let usable = keys.platform.expiries().filter(|(_, expiry)| expiry.is_none_or(|expiry| expiry > SystemClock.now()));
    let warning = if usable.count() == 0 { "; but every platform certificate has expired" } else { "" };
    format!("v3: ok, by a payment and a refund that open; the signature is WeChat's alone to make{warning}")
}

fn v2(payee: &Payee, key: &V2Key) -> [Outgoing; 3] {
    let payment = || Notice::payment(payee, &order(), amount(), SystemClock.now());
    [
        payment().signed(key, SignType::Md5).outgoing(),
        payment().signed(key, SignType::HmacSha256).outgoing(),
        Notice::refund(payee, &refund(), key).outgoing(),
    ]
}

fn v3(payee: &Payee, key: &ApiV3Key) -> [String; 2] {
    let now = SystemClock.now();
    let part = v3::SubOrder { out_trade_no: order(), transaction_id: new_transaction_id(now), total: amount() };
    [
        v3::Notice::payment(payee, &part, Fen::ZERO, "", now).sealed(key, now),
        v3::Notice::refund(payee, &refund()).sealed(key, now),
    ]
}

fn order() -> OutTradeNo {
    OutTradeNo::parse("config-check").expect("an order's number")
}

fn amount() -> Fen {
    Fen::new(100).expect("an amount")
}

fn refund() -> Refund {
    let at = SystemClock.now();
    Refund {
        out_trade_no: order(),
        transaction_id: new_transaction_id(at),
        out_refund_no: OutRefundNo::parse("config-check").expect("a refund's number"),
        refund_id: new_refund_id(at),
        total: amount(),
        amount: amount(),
        status: RefundStatus::Success,
        at,
    }
}

fn passed(list: &Checklist, setting: impl FnOnce() -> String) -> Result<(), ConfigError> {
    match list.failed() {
        None => Ok(()),
        Some(check) => {
            let problem = format!("a notification made with this key and the merchant's ids fails the check: {check}");
            Err(ConfigError::new(setting(), problem))
        }
    }
}
