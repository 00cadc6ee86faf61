//! The message between ingress and worker: the notification's bytes, what ingress knows about them, and the seal.
//!
//! A [`Message`] is what a queue carries: any bytes, any headers, and the log of what we tried. An [`Envelope`] is a
//! message that ingress sealed: it exists only on the side that made it or behind a checked seal. The seal is an
//! HMAC-SHA256 over id, headers and body under a key that both programs hold, so the broker need not be trusted, and a
//! notification that was verified before a key rotation is still good a week later.

use std::collections::BTreeMap;

use aws_lc_rs::{digest, hmac};
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    ids::{MerchantName, NotificationId},
    reason::{Reason, Rejection},
};

/// The version that this program writes. It reads every version up to this one.
pub const VERSION: u8 = 1;
/// Attempts that a message's history keeps; older ones are forgotten, the counter goes on.
pub const HISTORY_MAX: usize = 20;

const HEADER_PREFIX: &str = "wxpay-";
const HEADER_VERSION: &str = "wxpay-version";
const HEADER_MERCHANT: &str = "wxpay-merchant";
const HEADER_API: &str = "wxpay-api";
const HEADER_RECEIVED_AT: &str = "wxpay-received-at";
const HEADER_SEAL: &str = "wxpay-seal";

/// What a queue carries. Id, headers and body never change on the way; only the log grows.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// The notification's id (AMQP `message_id`); for a foreign message without a valid one, derived from its body.
    pub id: NotificationId,
    /// The headers under the seal, and the seal.
    pub headers: BTreeMap<String, String>,
    /// The notification's body exactly as received.
    pub body: Bytes,
    /// What the workers did with it so far.
    pub log: Log,
}

/// What was tried with a message. Outside the seal: it is ours to change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// Attempts that failed so far, since ingress or since the last replay.
    pub attempts: u32,
    /// Why it is a dead letter; `None` while it is not.
    pub rejection: Option<Rejection>,
    /// The latest attempts, oldest first, at most [`HISTORY_MAX`].
    pub history: Vec<Attempt>,
    /// How often a developer has replayed it.
    #[serde(default)]
    pub replays: u32,
}

/// One failed attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it failed.
    pub at: Timestamp,
    /// Which worker tried.
    pub worker: String,
    /// What it said.
    pub error: String,
}

impl Log {
    /// Adds a failed attempt to the history.
    pub fn note(&mut self, attempt: Attempt) {
        self.history.push(attempt);
        let surplus = self.history.len().saturating_sub(HISTORY_MAX);
        self.history.drain(..surplus);
    }

    /// The log with which a replay begins: attempts are counted anew, and what was tried stays known.
    #[must_use]
    pub fn replayed(self) -> Self {
        Self { attempts: 0, rejection: None, history: self.history, replays: self.replays.saturating_add(1) }
    }
}

/// The protocol in which a notification came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Api {
    /// XML, authenticated by a shared key.
    V2,
    /// JSON, authenticated by an RSA signature.
    V3,
}

impl Api {
    /// `v2` or `v3`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::V3 => "v3",
        }
    }
}

/// A notification that ingress authenticated.
#[derive(Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Our number for it.
    pub id: NotificationId,
    /// On whose path it came.
    pub merchant: MerchantName,
    /// How to read the body.
    pub api: Api,
    /// When ingress received it.
    pub received_at: Timestamp,
    /// The body exactly as received.
    pub body: Bytes,
}

/// The keys of the seal. Printing it shows nothing.
pub struct SealKeys {
    current: hmac::Key,
    previous: Option<hmac::Key>,
}

impl SealKeys {
    /// Seals with `current`; accepts what either of them sealed.
    #[must_use]
    pub fn new(current: &[u8], previous: Option<&[u8]>) -> Self {
        let key = |bytes| hmac::Key::new(hmac::HMAC_SHA256, bytes);
        Self { current: key(current), previous: previous.map(key) }
    }
}

impl std::fmt::Debug for SealKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealKeys(***)")
    }
}

impl Envelope {
    /// The message for the queue.
    #[must_use]
    pub fn seal(self, keys: &SealKeys) -> Message {
        let mut headers = BTreeMap::from([
            (HEADER_VERSION.to_owned(), VERSION.to_string()),
            (HEADER_MERCHANT.to_owned(), self.merchant.to_string()),
            (HEADER_API.to_owned(), self.api.code().to_owned()),
            (HEADER_RECEIVED_AT.to_owned(), self.received_at.to_string()),
        ]);
        let seal = hmac::sign(&keys.current, &sealed_bytes(&self.id, &headers, &self.body));
        headers.insert(HEADER_SEAL.to_owned(), hex(seal.as_ref()));
        Message { id: self.id, headers, body: self.body, log: Log::default() }
    }

    /// The envelope in a message, if ingress sealed it.
    ///
    /// # Errors
    /// [`Reason::Unsealed`] where the seal is absent or wrong or a sealed header does not parse,
    /// [`Reason::UnknownVersion`] where a later program sealed it.
    pub fn open(message: &Message, keys: &SealKeys) -> Result<Self, Rejection> {
        let unsealed = |detail: &str| Rejection::new(Reason::Unsealed, detail);
        let seal = message.headers.get(HEADER_SEAL).and_then(|seal| unhex(seal)).ok_or_else(|| unsealed("no seal"))?;
        let bytes = sealed_bytes(&message.id, &message.headers, &message.body);
        let fits = |key: &hmac::Key| hmac::verify(key, &bytes, &seal).is_ok();
        if !fits(&keys.current) && !keys.previous.as_ref().is_some_and(fits) {
            return Err(unsealed("the seal does not fit"));
        }
        let header = |name: &str| message.headers.get(name).map_or("", String::as_str);
        match header(HEADER_VERSION).parse::<u8>() {
            Ok(version) if (1..=VERSION).contains(&version) => {}
            _ => {
                let detail = format!("this program reads versions 1 to {VERSION}");
                return Err(Rejection::new(Reason::UnknownVersion, detail));
            }
        }
        let api = match header(HEADER_API) {
            "v2" => Api::V2,
            "v3" => Api::V3,
            _ => return Err(unsealed("header wxpay-api is neither v2 nor v3")),
        };
        Ok(Self {
            id: message.id.clone(),
            merchant: MerchantName::parse(header(HEADER_MERCHANT)).map_err(|error| unsealed(&error.to_string()))?,
            api,
            received_at: header(HEADER_RECEIVED_AT)
                .parse()
                .map_err(|_| unsealed("header wxpay-received-at is no time"))?,
            body: message.body.clone(),
        })
    }
}

/// Without headers and body: a signed notification is evidence, and personal.
impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message").field("id", &self.id).field("log", &self.log).finish_non_exhaustive()
    }
}

/// Without the body.
impl std::fmt::Debug for Envelope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Envelope").field("id", &self.id).field("merchant", &self.merchant).finish_non_exhaustive()
    }
}

impl Message {
    /// A message as it came from a queue, whoever published it.
    #[must_use]
    pub fn received(id: Option<&str>, headers: BTreeMap<String, String>, body: Bytes, log: Log) -> Self {
        let id = id.and_then(|id| NotificationId::parse(id).ok()).unwrap_or_else(|| {
            let digest = hex(digest::digest(&digest::SHA256, &body).as_ref());
            NotificationId::parse(&digest[..32]).expect("32 hex digits are a valid id")
        });
        Self { id, headers, body, log }
    }

    /// The merchant that the headers name, true or not: for listing, never for deciding.
    #[must_use]
    pub fn claimed_merchant(&self) -> Option<&str> {
        self.headers.get(HEADER_MERCHANT).map(String::as_str)
    }

    /// The protocol that the headers name, true or not: for listing, never for deciding.
    #[must_use]
    pub fn claimed_api(&self) -> Option<&str> {
        self.headers.get(HEADER_API).map(String::as_str)
    }

    /// When ingress received it, according to the headers.
    #[must_use]
    pub fn claimed_received_at(&self) -> Option<Timestamp> {
        self.headers.get(HEADER_RECEIVED_AT)?.parse().ok()
    }
}

/// Every part with its length in front, so that no two messages have the same bytes. Headers that others add on the way
/// (tracing, say) are not ours and stay outside.
fn sealed_bytes(id: &NotificationId, headers: &BTreeMap<String, String>, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(body.len() + 256);
    let mut push = |part: &[u8]| {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part);
    };
    push(id.as_str().as_bytes());
    for (name, value) in headers.iter().filter(|(name, _)| name.starts_with(HEADER_PREFIX) && *name != HEADER_SEAL) {
        push(name.as_bytes());
        push(value.as_bytes());
    }
    push(body);
    bytes
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    in_digits(bytes, b"0123456789abcdef")
}

/// Upper-case hexadecimal.
pub(crate) fn upper_hex(bytes: &[u8]) -> String {
    in_digits(bytes, b"0123456789ABCDEF")
}

fn in_digits(bytes: &[u8], digits: &[u8; 16]) -> String {
    let digit = |half: u8| char::from(digits[usize::from(half)]);
    let mut text = String::with_capacity(bytes.len() * 2);
    text.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]));
    text
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &[u8] = b"the seal key that was";
    const NEW: &[u8] = b"the seal key that is";

    fn envelope() -> Envelope {
        Envelope {
            id: NotificationId::parse("a1").unwrap(),
            merchant: MerchantName::parse("shop").unwrap(),
            api: Api::V2,
            received_at: Timestamp::UNIX_EPOCH,
            body: Bytes::from_static(b"<xml></xml>"),
        }
    }

    fn reason(message: &Message, keys: &SealKeys) -> Reason {
        Envelope::open(message, keys).unwrap_err().reason
    }

    #[test]
    fn nothing_under_the_seal_can_change() {
        let keys = SealKeys::new(NEW, None);
        let sealed = envelope().seal(&keys);
        assert!(Envelope::open(&sealed, &keys).unwrap() == envelope());
        let changes: [fn(&mut Message); 8] = [
            |it| it.id = NotificationId::parse("a2").unwrap(),
            |it| it.body = Bytes::from_static(b"<xml> </xml>"),
            |it| it.headers.insert(HEADER_MERCHANT.to_owned(), "other".to_owned()).map_or((), drop),
            |it| it.headers.insert(HEADER_API.to_owned(), "v3".to_owned()).map_or((), drop),
            |it| it.headers.insert(HEADER_VERSION.to_owned(), "2".to_owned()).map_or((), drop),
            |it| it.headers.insert("wxpay-more".to_owned(), String::new()).map_or((), drop),
            |it| it.headers.remove(HEADER_RECEIVED_AT).map_or((), drop),
            |it| it.headers.remove(HEADER_SEAL).map_or((), drop),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut changed = sealed.clone();
            change(&mut changed);
            assert_eq!(reason(&changed, &keys), Reason::Unsealed, "change {number}");
        }
        let seal = &sealed.headers[HEADER_SEAL];
        for at in 0..seal.len() {
            let mut changed = sealed.clone();
            let digit = if seal.as_bytes()[at] == b'0' { "1" } else { "0" };
            changed.headers.get_mut(HEADER_SEAL).unwrap().replace_range(at..=at, digit);
            assert_eq!(reason(&changed, &keys), Reason::Unsealed, "digit {at}");
        }
    }

    #[test]
    fn what_others_add_on_the_way_and_our_log_are_outside_the_seal() {
        let keys = SealKeys::new(NEW, None);
        let mut message = envelope().seal(&keys);
        message.headers.insert("traceparent".to_owned(), "00-1-2-01".to_owned());
        message.log.attempts = 3;
        assert!(Envelope::open(&message, &keys).unwrap() == envelope());
    }

    #[test]
    fn a_seal_fits_under_the_current_and_the_previous_key_only() {
        let (old, new) = (SealKeys::new(OLD, None), SealKeys::new(NEW, None));
        let changing = SealKeys::new(NEW, Some(OLD));
        let (by_old, by_both) = (envelope().seal(&old), envelope().seal(&changing));
        assert!(Envelope::open(&by_old, &changing).unwrap() == envelope());
        assert_eq!(reason(&by_old, &new), Reason::Unsealed);
        assert!(Envelope::open(&by_both, &new).unwrap() == envelope());
        assert_eq!(reason(&by_both, &old), Reason::Unsealed);
    }
}
