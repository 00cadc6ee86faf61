//! Step 2: the proof that a notification is WeChat's, and meant for this merchant.
//!
//! Refuses what is not exactly the format, what carries no right signature, and what names another merchant number than
//! the path does. Amounts, orders and missing business fields are not looked at: a notification with a right signature
//! is WeChat's, and the worker judges it.

use wxpay_shared::{
    merchant::Merchant,
    wechat::{v2_sign, v2_xml},
};

use crate::{reply::Refusal, request::Notification};

/// Verifies a v2 notice.
///
/// # Errors
/// [`Refusal`]: nobody may act on these bytes.
pub fn v2(notification: &Notification<'_>) -> Result<(), Refusal> {
    let Merchant { ids, v2_key, .. } = notification.merchant;
    let key = v2_key.as_ref().ok_or(Refusal::UnknownMerchant)?;
    let fields = v2_xml::parse(&notification.body, "xml")?;
    v2_sign::verify(&fields, key)?;
    // Every notice has a return_code; a signed document without one is some other message of the same merchant's.
    if fields.get("return_code").is_none() {
        return Err(Refusal::NotANotice);
    }
    if fields.get("mch_id") == Some(ids.mch_id.as_str()) { Ok(()) } else { Err(Refusal::MerchantMismatch) }
}
