//! Dead letters of every kind, sealed as ingress would.

use aws_lc_rs::hmac;
use wxpay_shared::{
    admin::LetterFile,
    clock::{Clock as _, SystemClock},
    envelope::{Attempt, Envelope, Log, Message, SealKeys},
    ids::{MerchantName, NotificationId},
    reason::Rejection,
};

use super::*;

const SEAL: &[u8] = b"a seal key for tests, 32 characters or more";

/// A notification that ingress accepted.
#[derive(Clone)]
pub(super) struct Letter {
    pub(super) message: Message,
}

impl Letter {
    fn sealed(merchant: &str, api: Api, body: String) -> Self {
        let received_at = SystemClock.now();
        let envelope = Envelope {
            id: NotificationId::new(received_at),
            merchant: MerchantName::parse(merchant).unwrap(),
            api,
            received_at,
            body: body.into(),
        };
        Self { message: envelope.seal(&SealKeys::new(SEAL, None)) }
    }

    pub(super) fn v2_body(merchant: &str, body: String) -> Self {
        Self::sealed(merchant, Api::V2, body)
    }

    pub(super) fn v2(merchant: &str, notice: &Notice) -> Self {
        Self::v2_body(merchant, notice.xml("nonce"))
    }

    pub(super) fn v3(merchant: &str, event_type: &str, content: &serde_json::Value) -> Self {
        Self::sealed(merchant, Api::V3, wechat::v3(&wechat::public_key(), API_V3_KEY, event_type, 1, content).body)
    }

    /// Encrypted under another key.
    pub(super) fn with_key(event_type: &str, key: &str) -> Self {
        let content = wechat::transaction("GOOD", 1_000);
        Self::sealed("shop", Api::V3, wechat::v3(&wechat::public_key(), key, event_type, 1, &content).body)
    }

    /// Encrypted by another cipher, as it says.
    pub(super) fn with_algorithm(name: &str) -> Self {
        let content = wechat::transaction("GOOD", 1_000);
        let body = wechat::v3(&wechat::public_key(), API_V3_KEY, "TRANSACTION.SUCCESS", 1, &content).body;
        Self::sealed("shop", Api::V3, body.replace("AEAD_AES_256_GCM", name))
    }

    /// Sealed by a program of another version.
    pub(super) fn of_version(version: &str, merchant: &str, notice: &Notice) -> Self {
        let mut message = Self::v2(merchant, notice).message;
        message.headers.insert("wxpay-version".to_owned(), version.to_owned());
        let mut bytes = Vec::new();
        let mut push = |part: &[u8]| {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part);
        };
        push(message.id.as_str().as_bytes());
        for (name, value) in message.headers.iter().filter(|(name, _)| *name != "wxpay-seal") {
            push(name.as_bytes());
            push(value.as_bytes());
        }
        push(&message.body);
        let seal = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SEAL), &bytes);
        let seal: String = seal.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        message.headers.insert("wxpay-seal".to_owned(), seal);
        Self { message }
    }

    /// The same, as a dead letter.
    pub(super) fn dead(mut self, reason: Reason) -> Self {
        let attempt =
            Attempt { at: SystemClock.now(), worker: "worker-9".to_owned(), error: format!("{reason}: told") };
        let rejection = Some(Rejection::new(reason, "told"));
        self.message.log = Log { attempts: 1, rejection, history: vec![attempt], replays: 0 };
        self
    }

    pub(super) fn file(&self) -> LetterFile {
        LetterFile::of(&self.message)
    }
}
