//! The checks of a v2 notification: a signed payment, or an encrypted refund.

use secrecy::ExposeSecret as _;
use wxpay_shared::{
    merchant::Merchant,
    wechat::{
        v2_payment, v2_refund,
        v2_sign::{self, SignRefusal, SignType},
        v2_xml::{self, Fields, XmlError},
    },
};

use super::{
    checklist::Checklist,
    content::{merchant_cause, rejected},
    v2_hints,
};

/// What a successful payment needs to be applied.
const PAYMENT: [&str; 8] =
    ["return_code", "result_code", "appid", "mch_id", "out_trade_no", "transaction_id", "total_fee", "time_end"];
const REFUND_OUTER: [&str; 4] = ["return_code", "appid", "mch_id", "req_info"];
const REFUND_INNER: [&str; 7] =
    ["refund_status", "total_fee", "refund_fee", "out_trade_no", "transaction_id", "refund_id", "out_refund_no"];
const AES_BLOCK: usize = 16;

/// Every check that can be made; says what the body is.
pub(super) fn check(body: &[u8], merchant: &Merchant, list: &mut Checklist) -> &'static str {
    let fields = match v2_xml::parse(body, "xml") {
        Ok(fields) => fields,
        Err(error) => {
            list.fail("format", error.to_string(), format_cause(error, body));
            return "a v2 notification";
        }
    };
    list.ok("format", format!("flat XML in UTF-8 with {} fields", fields.iter().count()));
    if fields.contains("req_info") {
        refund(&fields, merchant, list);
        "a v2 refund notice"
    } else {
        payment(&fields, merchant, list);
        "a v2 payment notice"
    }
}

fn format_cause(error: XmlError, body: &[u8]) -> &'static str {
    match error {
        _ if body.is_empty() => "The file is empty: the body was read before it was saved, or not saved at all.",
        _ if body.trim_ascii_start().starts_with(b"{") => {
            "This is JSON: a v3 notification was sent to the v2 address, or a framework converted the XML."
        }
        XmlError::Encoding => {
            "WeChat sends UTF-8: something on the way, or whatever saved the file, changed the encoding."
        }
        XmlError::Doctype => {
            "WeChat never sends a DOCTYPE: this is an attempt to read files (XXE), not a notification."
        }
        XmlError::Nested | XmlError::Duplicate | XmlError::TooManyFields => {
            "WeChat sends each field once and nothing inside it: this document was not made by WeChat."
        }
        XmlError::Malformed => {
            "The body was cut off, has something before or after the document, or is not WeChat's own XML with root \
             `xml`: save the raw bytes that arrived."
        }
    }
}

fn present(fields: &Fields<'_>, names: &[&'static str], what: &str, list: &mut Checklist) {
    let missing: Vec<_> = names.iter().copied().filter(|name| fields.get(name).is_none()).collect();
    if missing.is_empty() {
        list.ok("fields", format!("all that {what} needs"));
    } else if fields.contains("combine_mch_id") {
        let cause = "It is a combined payment (合单) in v2's form, whose parts are not applied: ingress takes it, and it \
                     becomes a dead letter for a person.";
        list.fail("fields", "a combined payment", cause);
    } else {
        let cause = "WeChat sends these in every such notice: the body was rebuilt from parsed values, or it is some \
                     other message of WeChat's (the answer to an API call, say).";
        list.fail("fields", format!("missing or empty: {}", missing.join(", ")), cause);
    }
}

fn payment(fields: &Fields<'_>, merchant: &Merchant, list: &mut Checklist) {
    let failed = ["return_code", "result_code"].iter().any(|name| fields.get(name) == Some("FAIL"));
    if failed {
        list.note("fields", "return_code or result_code is FAIL: it changes nothing, even if WeChat signed it");
    } else {
        present(fields, &PAYMENT, "a payment", list);
    }
    signature(fields, merchant, list);
    numbers(fields, merchant, list);
    if list.passed() && !failed {
        match v2_payment::read(fields, &merchant.name, &merchant.ids) {
            Ok(_) => list.ok("values", "an amount in fen, a time and numbers as the protocol writes them"),
            Err(rejection) => rejected(&rejection, "values", list),
        }
    }
}

fn signature(fields: &Fields<'_>, merchant: &Merchant, list: &mut Checklist) {
    let Some(sign) = fields.get("sign") else {
        let cause = "WeChat signs every payment notice: this one was rebuilt without its sign, or somebody tries whether \
                     unsigned notices are taken.";
        return list.fail("sign", "missing or empty", cause);
    };
    list.ok("sign", "present");
    let algorithm = match sign.len() {
        32 => SignType::Md5,
        64 => SignType::HmacSha256,
        length => {
            let cause = "The sign was cut, or something was added to it: it has 32 digits (MD5) or 64 (HMAC-SHA256).";
            return list.fail("algorithm", format!("the sign has {length} characters"), cause);
        }
    };
    let name = match algorithm {
        SignType::Md5 => "MD5",
        SignType::HmacSha256 => "HMAC-SHA256",
    };
    match fields.get("sign_type") {
        Some(said) if said != name => {
            let cause = "sign_type and the sign's length contradict each other: one of them was changed on the way.";
            return list.fail("algorithm", format!("the length says {name}, sign_type something else"), cause);
        }
        Some(_) => list.ok("algorithm", format!("{name}, by the sign's length and by sign_type")),
        None => list.ok("algorithm", format!("{name}, by the sign's length; sign_type is absent, as usual")),
    }
    let verdicts: Vec<_> = merchant.v2_keys.iter().map(|key| v2_sign::verify(fields, key)).collect();
    let fits = verdicts.iter().position(|verdict| *verdict != Err(SignRefusal::Wrong));
    match fits.map(|index| (index, verdicts[index])) {
        Some((index, Ok(()))) => list.ok("digest", format!("fits {}", key_name(index))),
        Some((_, Err(_))) => {
            let cause = "A value with `&` in it makes the signed text ambiguous: the digest would fit other fields as \
                         well, so nothing in it can be believed.";
            list.fail("digest", "fits, but would fit other fields too", cause);
        }
        None => {
            let hint = v2_hints::digest(fields, merchant, algorithm);
            let usual = "The usual causes: another API key than the merchant console's (APIv2 密钥), the sandbox's key, \
                         a body that was trimmed, re-encoded or rebuilt, or a field that was dropped or added.";
            let cause = hint.map_or_else(|| usual.to_owned(), |hint| format!("{hint} {usual}"));
            list.fail("digest", format!("fits none of the {} configured", count_keys(merchant)), cause);
        }
    }
}

fn count_keys(merchant: &Merchant) -> String {
    crate::screen::count(merchant.v2_keys.len(), "API key")
}

fn key_name(index: usize) -> &'static str {
    if index == 0 { "the current API key" } else { "the previous API key" }
}

/// Whether it names this merchant, and one of its applications.
fn numbers(fields: &Fields<'_>, merchant: &Merchant, list: &mut Checklist) {
    if let Some(mch_id) = fields.get("mch_id") {
        match merchant.ids.check_mchid(mch_id, fields.get("sub_mch_id")) {
            Ok(mch_id) => list.ok("mch_id", mch_id.to_string()),
            Err(rejection) => list.fail("mch_id", rejection.detail, merchant_cause(&merchant.ids)),
        }
    }
    if let Some(appid) = fields.get("appid") {
        match merchant.ids.check_appid(appid, fields.get("sub_appid")) {
            Ok(appid) => list.ok("appid", appid.to_string()),
            Err(rejection) => rejected(&rejection, "appid", list),
        }
    }
}

fn refund(fields: &Fields<'_>, merchant: &Merchant, list: &mut Checklist) {
    present(fields, &REFUND_OUTER, "a refund notice", list);
    numbers(fields, merchant, list);
    let Some(req_info) = fields.get("req_info") else { return };
    let length = match base64_length(req_info) {
        Some(length) if length > 0 && length % AES_BLOCK == 0 => length,
        Some(length) => {
            let cause = "The ciphertext was cut: it is made of whole blocks of 16 bytes.";
            return list.fail("base64", format!("{length} bytes, which are no whole blocks"), cause);
        }
        None => {
            let cause = "req_info was damaged: a `+` that became a blank in a form, or a cut at the end, for instance.";
            return list.fail("base64", "not base64", cause);
        }
    };
    list.ok("base64", format!("{length} bytes"));
    let opened = merchant.v2_keys.iter().map(|key| v2_refund::open_req_info(key, req_info)).enumerate();
    let opened = opened.filter_map(|(index, opened)| Some((index, opened.ok()?))).next();
    let Some((index, xml)) = opened else {
        let cause = "The usual causes: another API key than the one under which WeChat encrypted it (the APIv2 key also \
                     at a v3 shop), or a ciphertext that was changed.";
        return list.fail("decryption", format!("opens under none of the {}", count_keys(merchant)), cause);
    };
    list.ok("decryption", format!("opens under {}", key_name(index)));
    let inner = match v2_xml::parse(xml.expose_secret().as_bytes(), "root") {
        Ok(inner) => inner,
        Err(error) => {
            let cause = "It opened by chance under a wrong key, or blocks of it were exchanged: it is not WeChat's.";
            return list.fail("inner XML", error.to_string(), cause);
        }
    };
    list.ok("inner XML", format!("flat XML with {} fields", inner.iter().count()));
    inner_fields(&inner, merchant, list);
}

fn inner_fields(inner: &Fields<'_>, merchant: &Merchant, list: &mut Checklist) {
    let missing: Vec<_> = REFUND_INNER.iter().copied().filter(|name| inner.get(name).is_none()).collect();
    if !missing.is_empty() {
        let cause =
            "WeChat sends these with every refund: blocks of the ciphertext may have been removed or exchanged.";
        return list.fail("inner fields", format!("missing or empty: {}", missing.join(", ")), cause);
    }
    match v2_refund::read_refund(|name| inner.get(name), &merchant.name, merchant.ids.mch_id.clone()) {
        Ok(_) => list.ok("inner fields", "all that a refund needs, as the protocol writes them"),
        Err(rejection) => rejected(&rejection, "inner fields", list),
    }
}

/// The length of what base64 stands for; white space is passed over, as the receiver does.
fn base64_length(text: &str) -> Option<usize> {
    let text: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    let digits = &text[..text.len() - padding];
    let plain = digits.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'));
    (plain && padding <= 2 && text.len().is_multiple_of(4)).then(|| digits.len() * 3 / 4)
}
