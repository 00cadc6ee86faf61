//! The checks of a v3 notification that ingress makes: headers, clock, key, signature, form.

use jiff::{SignedDuration, Timestamp};
use reqwest::header::HeaderMap;
use wxpay_shared::{
    merchant::V3Keys,
    wechat::{
        keys::LookupError,
        v3_sign::{self, CLOCK_SKEW_MAX_S, NONCE, SERIAL, SIGNATURE, SIGNATURE_TYPE, TIMESTAMP, V3Headers, V3Refusal},
    },
};

use super::checklist::Checklist;

/// By which clocks the timestamp is looked at.
pub(super) struct Clocks {
    /// The time by which it is judged; `None`: it is only told.
    pub(super) judged_at: Option<Timestamp>,
    pub(super) now: Timestamp,
}

/// Every check that can be made before the content is opened.
pub(super) fn check(headers: &HeaderMap, body: &[u8], keys: &V3Keys, clocks: Clocks, list: &mut Checklist) {
    let Some((read, signed_at)) = read_headers(headers, list) else { return };
    timestamp(signed_at, &clocks, list);
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !serial(text(SERIAL), keys, clocks.judged_at.unwrap_or(signed_at), list) {
        return;
    }
    // The clock was judged before; here it is the notification's own.
    match v3_sign::verify(&read, body, signed_at, &keys.platform) {
        Ok(()) => {
            list.ok("probe", "no signature probe");
            list.ok("signature", "WeChat signed exactly these bytes");
        }
        Err(V3Refusal::Probe) => {
            let cause = "WeChat sends such signatures on purpose, to test whether a receiver checks them: a refusal is \
                         right, and the real notification follows.";
            list.fail("probe", "a signature probe (WECHATPAY/SIGNTEST/)", cause);
        }
        Err(_) => {
            list.ok("probe", "no signature probe");
            list.fail("signature", "does not fit these bytes", signature_cause(&read, body, signed_at, keys));
        }
    }
    match v3_sign::envelope_shape(body) {
        Ok(()) => list.ok("JSON", "one object in UTF-8"),
        Err(error) => list.fail("JSON", error.to_string(), "The body was cut, or is not a notification at all."),
    }
}

/// The headers and the moment of signing, if all of them are as they must be.
fn read_headers<'h>(headers: &'h HeaderMap, list: &mut Checklist) -> Option<(V3Headers<'h>, Timestamp)> {
    let read = V3Headers::read(headers);
    let seconds = headers.get(TIMESTAMP).and_then(|value| value.to_str().ok()?.parse().ok());
    let signed_at = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
    for name in [TIMESTAMP, NONCE, SIGNATURE, SERIAL, SIGNATURE_TYPE] {
        let count = headers.get_all(name).iter().count();
        let malformed = read.as_ref().err() == Some(&V3Refusal::MalformedHeader(name))
            || headers.get(name).is_some_and(|value| value.to_str().map_or(true, str::is_empty))
            || (name == TIMESTAMP && signed_at.is_none());
        match count {
            0 if name == SIGNATURE_TYPE => list.ok(name, "absent, which means RSA with SHA-256"),
            0 => {
                let cause = "Something between WeChat and the receiver drops it (a proxy, a gateway, a function's event \
                             format), the saved headers are incomplete, or the sender is not WeChat.";
                list.fail(name, "missing", cause);
            }
            1 if malformed => {
                let cause = "WeChat sends plain seconds since 1970 as timestamp, and plain ASCII elsewhere: something \
                             rewrote the header.";
                list.fail(name, "malformed", cause);
            }
            1 if name == SIGNATURE_TYPE && read.as_ref().err() == Some(&V3Refusal::UnsupportedSignatureType) => {
                let cause = "Only RSA with SHA-256 is supported; the merchant is set to national algorithms (SM2), or \
                             the header was changed.";
                list.fail(name, "another than WECHATPAY2-SHA256-RSA2048", cause);
            }
            1 => list.ok(name, "present once"),
            _ => list.fail(name, "there more than once", "A proxy added it again, or somebody sends two on purpose."),
        }
    }
    Some((read.ok()?, signed_at?))
}

fn timestamp(signed_at: Timestamp, clocks: &Clocks, list: &mut Checklist) {
    let age = clocks.judged_at.unwrap_or(clocks.now).duration_since(signed_at);
    let side = if age.is_negative() { "ahead of" } else { "before" };
    let apart = SignedDuration::from_secs(age.as_secs().abs());
    match clocks.judged_at {
        None => list.note("timestamp", format!("signed at {signed_at}, {apart:#} {side} now; not judged without --at")),
        Some(_) if age.as_secs().unsigned_abs() <= CLOCK_SKEW_MAX_S => {
            list.ok("timestamp", format!("signed at {signed_at}, {apart:#} {side} the time it is judged by"));
        }
        Some(at) => {
            let cause = "The receiver's clock is wrong, the notification waited somewhere on the way, or an old one was \
                         sent again. WeChat signs each repeat anew.";
            let found =
                format!("signed at {signed_at}, {apart:#} {side} {at}; at most {CLOCK_SKEW_MAX_S} s are allowed");
            list.fail("timestamp", found, cause);
        }
    }
}

fn serial(serial: &str, keys: &V3Keys, at: Timestamp, list: &mut Checklist) -> bool {
    match keys.platform.get(serial, at) {
        Ok(_) => {
            list.ok("serial", format!("{serial} is configured"));
            true
        }
        Err(LookupError::Unknown) => {
            let known: Vec<_> = keys.platform.expiries().map(|(serial, _)| serial).collect();
            let cause = format!(
                "WeChat signed with a key that is not configured: download it and add it to platform_certificates or \
                 platform_public_keys beside the others. While WeChat changes keys, both kinds sign. Configured: {}.",
                known.join(", ")
            );
            list.fail("serial", "no platform key has this serial", cause);
            false
        }
        Err(LookupError::Expired) => {
            let cause = "WeChat never signs with an expired certificate: look at the clock (--at), and add the new \
                         certificate.";
            list.fail("serial", format!("{serial} is a certificate outside its validity"), cause);
            false
        }
    }
}

/// Editors and tools change a saved body's end and line ends; where that is all, it is said.
fn signature_cause(read: &V3Headers<'_>, body: &[u8], signed_at: Timestamp, keys: &V3Keys) -> String {
    let fits = |body: &[u8]| v3_sign::verify(read, body, signed_at, &keys.platform).is_ok();
    let text = String::from_utf8_lossy(body);
    let hints = [
        ("without the line end at its end, which an editor adds", body.trim_ascii_end().to_vec()),
        ("with a line end more at its end", [body, b"\n"].concat()),
        ("with LF instead of CR LF", text.replace("\r\n", "\n").into_bytes()),
        ("with CR LF instead of LF", text.replace('\n', "\r\n").into_bytes()),
        ("without the byte order mark", text.trim_start_matches('\u{feff}').as_bytes().to_vec()),
    ];
    let hint = hints.into_iter().find(|(_, changed)| changed != body && fits(changed));
    let hint = hint.map(|(how, _)| format!("It fits {how}. ")).unwrap_or_default();
    format!(
        "{hint}The usual causes: the body was parsed and written again instead of kept byte for byte, the nonce or \
         timestamp is of another request, the configured key is not the one that WeChat has under this serial, or it \
         is forged."
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use reqwest::header::HeaderValue;
    use wxpay_shared::{config::Config, merchant::Merchants, wechat::sender::SigningKey};

    use super::*;
    use crate::dev_merchant;

    /// Signs this body, as WeChat would, and returns the cause that is told where another arrived.
    fn cause(signed: &str, arrived: &str) -> String {
        let directory = tempfile::tempdir().unwrap();
        let (file, _) = dev_merchant::ensure(directory.path()).unwrap();
        let merchants = Merchants::open(&Config::load(Some(&file), []).unwrap()).unwrap();
        let keys = merchants.get(dev_merchant::NAME).unwrap().v3.as_ref().unwrap();
        let pem = fs::read(directory.path().join(dev_merchant::PLATFORM_PRIVATE_FILE)).unwrap();
        let key = SigningKey::from_pem(dev_merchant::PLATFORM_SERIAL, &pem).unwrap();
        let now = Timestamp::from_second(1_773_800_000).unwrap();
        let headers = key.sign(now, "abcdefghijklmnopqrstuvwxyz012345", signed.as_bytes()).unwrap();
        let headers: HeaderMap = headers
            .into_iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_str(&value).unwrap()))
            .collect();
        let mut list = Checklist::default();
        check(&headers, arrived.as_bytes(), keys, Clocks { judged_at: Some(now), now }, &mut list);
        assert_eq!(list.failed(), Some("signature"));
        list.cause().unwrap().to_owned()
    }

    #[test]
    fn what_an_editor_or_a_tool_did_to_the_body_is_told() {
        for (signed, arrived, told) in [
            ("{}", "{}\n", "It fits without the line end at its end"),
            ("{}\n", "{}", "It fits with a line end more at its end"),
            ("{\n}", "{\r\n}", "It fits with LF instead of CR LF"),
            ("{\r\n}", "{\n}", "It fits with CR LF instead of LF"),
            ("{}", "\u{feff}{}", "It fits without the byte order mark"),
        ] {
            let cause = cause(signed, arrived);
            assert!(cause.starts_with(told), "{signed:?} to {arrived:?}: {cause}");
        }
    }

    #[test]
    fn nothing_is_told_where_no_usual_change_explains_it() {
        assert!(cause("{\"id\":1}", "{\"id\":2}").starts_with("The usual causes"));
    }
}
