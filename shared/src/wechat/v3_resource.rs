//! The outer JSON of a v3 notification, and the opening of the ciphertext in it.
//!
//! `resource.ciphertext` is base64 of AES-256-GCM output with its 16-byte tag, under the merchant's v3 key, with
//! `resource.nonce` (12 bytes) and `resource.associated_data`. That it opens does not prove who wrote it: the signature
//! was checked before. Source: the vendor's page on decrypting callbacks and certificates.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret as _, SecretSlice};

use super::{json::Object, keys::ApiV3Key};
use crate::reason::{Reason, Rejection};

/// The only algorithm that is supported.
pub const ALGORITHM: &str = "AEAD_AES_256_GCM";

/// The outer part of a notification, its content still encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// WeChat's number for the notification; for tracing only, since whether a repeat keeps it is not documented.
    pub id: Option<String>,
    /// When WeChat made it, as WeChat wrote it. A repeat keeps the old time, so nothing may depend on its age.
    pub create_time: Option<String>,
    /// What it is about, `TRANSACTION.SUCCESS` for instance.
    pub event_type: String,
    /// The encrypted content.
    pub resource: Resource,
}

/// The encrypted content. Printing it shows what kind it is, not the content.
#[derive(Clone, PartialEq, Eq)]
pub struct Resource {
    /// The cipher's name.
    pub algorithm: String,
    /// Base64 of ciphertext and tag.
    pub ciphertext: String,
    /// What the tag covers besides the ciphertext; empty where absent.
    pub associated_data: String,
    /// The cipher's nonce; it has nothing to do with the header `Wechatpay-Nonce`.
    pub nonce: String,
    /// The kind of content, `transaction` or `refund` for instance; informative.
    pub original_type: Option<String>,
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resource")
            .field("algorithm", &self.algorithm)
            .field("original_type", &self.original_type)
            .finish_non_exhaustive()
    }
}

/// The v3 keys of one merchant. While WeChat changes from one key to the next, repeats under the old one still come.
#[derive(Debug)]
pub struct ApiV3Keys {
    /// The key that the merchant console shows as set.
    pub current: ApiV3Key,
    /// The key before it.
    pub previous: Option<ApiV3Key>,
}

/// Reads the outer part; members that are not named here are ignored.
///
/// # Errors
/// [`Reason::Unopenable`] where the body is no JSON object with distinct names, [`Reason::InvalidField`] with the name of
/// a member that is missing or of another type.
pub fn parse(body: &[u8]) -> Result<Notice, Rejection> {
    let outer = outer(body)?;
    let resource = outer.object("resource")?;
    Ok(Notice {
        id: outer.text("id").unwrap_or_default(),
        create_time: outer.text("create_time").unwrap_or_default(),
        event_type: outer.required_text("event_type")?,
        resource: Resource {
            algorithm: resource.required_text("algorithm")?,
            ciphertext: resource.required_text("ciphertext")?,
            associated_data: resource.text("associated_data")?.unwrap_or_default(),
            nonce: resource.required_text("nonce")?,
            original_type: resource.text("original_type").unwrap_or_default(),
        },
    })
}

/// What a notification tells of; what is not ours need not be of its form beyond that.
///
/// # Errors
/// As [`parse`].
pub fn event_type(body: &[u8]) -> Result<String, Rejection> {
    outer(body)?.required_text("event_type")
}

fn outer(body: &[u8]) -> Result<Object<'_>, Rejection> {
    let unopenable = || Rejection::new(Reason::Unopenable, "the body is not a JSON object with distinct names");
    Object::parse(body).ok_or_else(unopenable)
}

/// What can be opened once: the content in clear. Its memory is wiped when it goes.
#[derive(Debug)]
pub struct Plaintext(SecretSlice<u8>);

impl Plaintext {
    /// The bytes that WeChat encrypted.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.0.expose_secret()
    }
}

/// Opens the content with the current key, then with the previous one.
///
/// # Errors
/// [`Reason::UnsupportedAlgorithm`], or [`Reason::Unopenable`] for every other fault: base64, nonce, tag or key.
pub fn open(resource: &Resource, keys: &ApiV3Keys) -> Result<Plaintext, Rejection> {
    if resource.algorithm != ALGORITHM {
        return Err(Rejection::new(Reason::UnsupportedAlgorithm, format!("expected {ALGORITHM}, got another")));
    }
    std::iter::once(&keys.current)
        .chain(&keys.previous)
        .find_map(|key| open_with(resource, key))
        .ok_or_else(|| Rejection::new(Reason::Unopenable, "the resource does not open under the v3 key"))
}

fn open_with(resource: &Resource, key: &ApiV3Key) -> Option<Plaintext> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_bytes()).ok()?);
    let nonce = Nonce::try_assume_unique_for_key(resource.nonce.as_bytes()).ok()?;
    let mut bytes = STANDARD.decode(&resource.ciphertext).ok()?;
    let length = key.open_in_place(nonce, Aad::from(resource.associated_data.as_bytes()), &mut bytes).ok()?.len();
    bytes.truncate(length);
    Some(Plaintext(bytes.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wechat::sender::{notice_body, seal_resource};

    fn key(text: &str) -> ApiV3Key {
        ApiV3Key::parse(text.repeat(4)).unwrap()
    }

    #[test]
    fn what_was_sealed_opens_under_the_current_and_the_previous_key_only() {
        let (old, new) = (key("old-key!"), key("new-key!"));
        let sealed = |key| seal_resource(key, b"0123456789ab", "transaction", b"{}");
        let opens =
            |resource: &Resource, keys: &ApiV3Keys| open(resource, keys).is_ok_and(|text| text.expose() == b"{}");
        let (by_old, by_new) = (sealed(&old), sealed(&new));
        let changing = ApiV3Keys { current: new, previous: Some(old) };
        assert!(opens(&by_old, &changing) && opens(&by_new, &changing));
        let changed = ApiV3Keys { current: changing.current, previous: None };
        assert!(!opens(&by_old, &changed) && opens(&by_new, &changed));
    }

    #[test]
    fn every_part_of_a_resource_is_under_the_tag() {
        let keys = ApiV3Keys { current: key("new-key!"), previous: None };
        let sealed = seal_resource(&keys.current, b"0123456789ab", "transaction", b"{\"a\":1}");
        let reason = |change: fn(&mut Resource)| {
            let mut resource = sealed.clone();
            change(&mut resource);
            open(&resource, &keys).unwrap_err().reason
        };
        assert_eq!(reason(|it| it.algorithm = "AEAD_SM4_GCM".to_owned()), Reason::UnsupportedAlgorithm);
        assert_eq!(reason(|it| it.associated_data.clear()), Reason::Unopenable);
        assert_eq!(reason(|it| it.nonce = "short".to_owned()), Reason::Unopenable);
        assert_eq!(reason(|it| it.nonce = "0123456789ac".to_owned()), Reason::Unopenable);
        assert_eq!(reason(|it| it.ciphertext.clear()), Reason::Unopenable);
        assert_eq!(reason(|it| it.ciphertext = "AAAA".to_owned()), Reason::Unopenable);
        assert_eq!(reason(|it| it.ciphertext.insert(4, ' ')), Reason::Unopenable);
        // A tag cut to 12 bytes, which some libraries take.
        assert_eq!(
            reason(|it| it.ciphertext = STANDARD.encode(&STANDARD.decode(&it.ciphertext).unwrap()[..19])),
            Reason::Unopenable
        );
    }

    #[test]
    fn the_outer_part_tolerates_what_is_new_and_names_what_is_missing() {
        let keys = ApiV3Keys { current: key("new-key!"), previous: None };
        let sealed = seal_resource(&keys.current, b"0123456789ab", "", b"{}");
        let body = notice_body("EV-1", jiff::Timestamp::UNIX_EPOCH, "TRANSACTION.SUCCESS", &sealed);
        let notice = parse(body.as_bytes()).unwrap();
        assert_eq!((notice.id.as_deref(), notice.event_type.as_str()), (Some("EV-1"), "TRANSACTION.SUCCESS"));
        assert!(open(&notice.resource, &keys).is_ok());

        let strange =
            r#"{"id":7,"new":[],"event_type":"E","resource":{"algorithm":"A","ciphertext":"C","nonce":"N","x":{}}}"#;
        let notice = parse(strange.as_bytes()).unwrap();
        assert_eq!((notice.id, notice.resource.associated_data.as_str()), (None, ""));

        let detail = |text: &str| parse(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(detail(r#"{"event_type":"E"}"#), "invalid_field: resource: expected an object");
        assert_eq!(
            detail(r#"{"event_type":"E","resource":{"algorithm":"A","ciphertext":5,"nonce":"N"}}"#),
            "invalid_field: resource.ciphertext: expected a string"
        );
        let twice = strange.replace("\"x\":{}", "\"nonce\":\"M\"");
        assert_eq!(detail(&twice), "invalid_field: resource: expected an object with distinct names");
        assert!(detail("[]").starts_with("unopenable: "));
    }
}
