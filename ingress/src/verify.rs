//! Step 2: the proof that a notification is WeChat's, and meant for this merchant.
//!
//! Refuses what is not exactly the format, what WeChat did not sign (or, for v2 refunds, encrypt), and what names another
//! merchant number than the path does. Amounts, orders and missing business fields are not looked at: what passes here is
//! WeChat's, and the worker judges it.

use jiff::Timestamp;
use wxpay_shared::{
    envelope::Api,
    merchant::Merchant,
    reason::Reason,
    wechat::{
        v2_refund,
        v2_sign::{self, SignRefusal},
        v2_xml::{self, Fields},
        v3_sign::{self, V3Headers},
    },
};

use crate::{kind::Kind, reply::Refusal, request::Notification};

/// What was proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The protocol in which it came: a v2 refund notice may arrive on the v3 route.
    pub api: Api,
    /// What it tells of.
    pub kind: Kind,
}

/// Verifies a notification that came on this route at this time.
///
/// # Errors
/// [`Refusal`]: nobody may act on these bytes.
pub fn verify(notification: &Notification<'_>, route: Api, now: Timestamp) -> Result<Verified, Refusal> {
    let (api, kind) = match route {
        Api::V2 => (Api::V2, v2(notification)?),
        Api::V3 if is_v2_refund(notification) => (Api::V2, v2(notification)?),
        Api::V3 => (Api::V3, v3(notification, now)?),
    };
    Ok(Verified { api, kind })
}

/// Refunds that are started in the merchant console come in v2's form, whatever the merchant uses otherwise.
fn is_v2_refund(notification: &Notification<'_>) -> bool {
    let body = notification.body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&notification.body);
    let xml = body.trim_ascii_start().starts_with(b"<");
    xml && !notification.merchant.v2_keys.is_empty()
        && v2_xml::parse(&notification.body, "xml").is_ok_and(|fields| fields.contains("req_info"))
}

fn v2(notification: &Notification<'_>) -> Result<Kind, Refusal> {
    let merchant = notification.merchant;
    if merchant.v2_keys.is_empty() {
        return Err(Refusal::UnknownMerchant);
    }
    let fields = v2_xml::parse(&notification.body, "xml")?;
    // A refund notice has no sign. That opens no hole: a body with req_info never counts as a payment, and one without
    // always needs its sign.
    if fields.contains("req_info") {
        v2_refund(&fields, merchant).map(|()| Kind::Refund)
    } else {
        v2_signed(&fields, merchant).map(|()| Kind::Payment)
    }
}

fn v2_signed(fields: &Fields<'_>, merchant: &Merchant) -> Result<(), Refusal> {
    let verdicts = merchant.v2_keys.iter().map(|key| v2_sign::verify(fields, key));
    // The previous key is asked only whether it fits; every other fault does not depend on the key.
    let fits = |verdict: &Result<(), SignRefusal>| *verdict != Err(SignRefusal::Wrong);
    verdicts.into_iter().find(fits).unwrap_or(Err(SignRefusal::Wrong))?;
    // Every notice has a return_code; a signed document without one is some other message of the same merchant's.
    if fields.get("return_code").is_none() {
        return Err(Refusal::NotANotice);
    }
    // v2's combined notices name the merchant as combine_mch_id. The worker does not apply them, but a person must see one.
    let mch_id = fields.get("mch_id").or_else(|| fields.get("combine_mch_id"));
    if mch_id == Some(merchant.ids.mch_id.as_str()) { Ok(()) } else { Err(Refusal::MerchantMismatch) }
}

/// All that proves a refund notice is that it opens under our key, to well-formed XML. The rest is held against the
/// order, by the worker.
fn v2_refund(fields: &Fields<'_>, merchant: &Merchant) -> Result<(), Refusal> {
    let ours = fields.get("mch_id") == Some(merchant.ids.mch_id.as_str());
    match v2_refund::read_outer(|name| fields.get(name), &merchant.ids) {
        Ok(_) => {}
        // A sub-merchant or an appid that is not in the configuration yet is the worker's to judge, as in a payment.
        Err(rejection) if rejection.reason == Reason::MerchantMismatch && ours => {}
        Err(rejection) if rejection.reason == Reason::AppidMismatch => {}
        Err(rejection) if rejection.reason == Reason::MerchantMismatch => return Err(Refusal::MerchantMismatch),
        Err(_) => return Err(Refusal::NotANotice),
    }
    let req_info = fields.get("req_info").ok_or(Refusal::NotANotice)?;
    let opens = merchant.v2_keys.iter().any(|key| {
        v2_refund::open_req_info(key, req_info)
            .is_ok_and(|xml| v2_xml::parse(secrecy::ExposeSecret::expose_secret(&xml).as_bytes(), "root").is_ok())
    });
    // One answer for every fault inside: telling them apart would help only somebody who tries out ciphertexts.
    if opens { Ok(()) } else { Err(Refusal::Undecryptable) }
}

fn v3(notification: &Notification<'_>, now: Timestamp) -> Result<Kind, Refusal> {
    let keys = notification.merchant.v3.as_ref().ok_or(Refusal::UnknownMerchant)?;
    let headers = V3Headers::read(&notification.headers)?;
    v3_sign::verify(&headers, &notification.body, now, &keys.platform)?;
    v3_sign::envelope_shape(&notification.body)?;
    Ok(Kind::of_v3(&notification.body))
}
