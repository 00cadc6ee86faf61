//! The checks of a v3 notification that the worker makes, and the causes that both protocols share.

use wxpay_shared::{
    merchant::{Merchant, V3Keys},
    reason::{Reason, Rejection},
    wechat::{
        keys::ApiV3Key,
        merchant_ids::MerchantIds,
        v3_event::{self, Ignored, Outcome},
        v3_resource::{self, ALGORITHM, ApiV3Keys, Notice, Plaintext},
    },
};

use super::checklist::Checklist;

/// Opens the content and reads it.
pub(crate) fn v3(body: &[u8], merchant: &Merchant, keys: &V3Keys, list: &mut Checklist) {
    let notice = match v3_resource::parse(body) {
        Ok(notice) => notice,
        Err(rejection) => return rejected(&rejection, "envelope", list),
    };
    list.ok("envelope", "event_type and an encrypted resource");
    if notice.resource.algorithm != ALGORITHM {
        let cause = "The merchant is set to national algorithms (AEAD_SM4_GCM), or it is no notification of WeChat's.";
        return list.fail("algorithm", format!("another than {ALGORITHM}"), cause);
    }
    list.ok("algorithm", ALGORITHM);
    let Some(plaintext) = decrypted(&notice, keys, list) else { return };
    for (index, outcome) in
        v3_event::read(&notice.event_type, plaintext.expose(), &merchant.name, &merchant.ids).into_iter().enumerate()
    {
        match outcome {
            Outcome::Fact(_) => {
                if index == 0 {
                    list.ok("mchid", merchant.ids.mch_id.to_string());
                    list.ok("appid", "one of the merchant's, where the notice names one");
                }
                list.ok("fields", "all that is needed, as the protocol writes them");
            }
            Outcome::Ignored(ignored) => list.note("fields", ignored_as(&ignored)),
            Outcome::Rejected(rejection) if rejection.reason == Reason::MerchantMismatch => {
                list.fail("mchid", rejection.detail, merchant_cause(&merchant.ids));
            }
            Outcome::Rejected(rejection) if rejection.reason == Reason::AppidMismatch => {
                rejected(&rejection, "appid", list);
            }
            Outcome::Rejected(rejection) => rejected(&rejection, "fields", list),
        }
    }
}

fn decrypted(notice: &Notice, keys: &V3Keys, list: &mut Checklist) -> Option<Plaintext> {
    let all = [
        Some(("the current APIv3 key", &keys.api.current)),
        keys.api.previous.as_ref().map(|key| ("the previous APIv3 key", key)),
    ];
    for (name, key) in all.into_iter().flatten() {
        let Ok(current) = ApiV3Key::parse(key.as_bytes()) else { continue };
        if let Ok(plaintext) = v3_resource::open(&notice.resource, &ApiV3Keys { current, previous: None }) {
            list.ok("decryption", format!("opens under {name}"));
            return Some(plaintext);
        }
    }
    let cause = "The usual causes: another APIv3 key than the merchant console's (it is not the APIv2 key), a key that \
                 was changed while this notification was on its way (set the old one as previous_api_v3_key), or a \
                 damaged ciphertext.";
    list.fail("decryption", "opens under none of the configured APIv3 keys", cause);
    None
}

fn ignored_as(ignored: &Ignored) -> String {
    match ignored {
        Ignored::EventType(name) => format!("event_type {name} is acknowledged and changes nothing"),
        Ignored::TradeState(name) => format!("trade_state {name} is acknowledged and changes nothing"),
        Ignored::ProfitSharing => "profit sharing is acknowledged and changes nothing".to_owned(),
    }
}

/// A rejection of the worker's. Its detail names members and rules, never a person's values.
pub(super) fn rejected(rejection: &Rejection, name: &'static str, list: &mut Checklist) {
    list.fail(name, rejection.detail.clone(), rejection.reason.cure());
}

pub(super) fn merchant_cause(ids: &MerchantIds) -> String {
    let mode = if ids.sub_mch_ids.is_empty() { "a direct merchant" } else { "a service provider" };
    format!(
        "It is another merchant's notification on this path (correct that merchant's notify_url), or mch_id and \
         sub_mch_ids are configured wrongly: this one is configured as {mode}."
    )
}
