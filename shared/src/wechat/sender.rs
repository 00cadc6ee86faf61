//! WeChat's side of the protocol, for simulators and tests: sealing and signing notifications.
//!
//! No service calls this. It is kept in one file, apart from what receives, so that a reader can see at a glance that
//! ingress and worker hold no key that could make a notification.

use std::fmt;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    cipher::PaddedBlockEncryptingKey,
    encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der},
    rand::SystemRandom,
    rsa::{KeyPair, KeySize},
    signature::{KeyPair as _, RSA_PKCS1_SHA256},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::json;
use x509_parser::pem::Pem;

use super::{
    keys::{ApiV3Key, V2Key},
    v2_refund::cipher_key,
    v3_resource::{ALGORITHM, Resource},
    v3_sign::{NONCE, RSA_SHA256, SERIAL, SIGNATURE, SIGNATURE_TYPE, TIMESTAMP},
};

/// The bytes of a GCM nonce.
pub const RESOURCE_NONCE_LEN: usize = 12;

/// Something that the cryptography refused, a damaged key for instance. Shows no material.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SenderError {
    /// The private key is not an RSA key in PKCS#8.
    #[error("expected an RSA private key in PKCS#8")]
    Key,
    /// The system gave no randomness, or the key cannot sign.
    #[error("the cryptography library refused")]
    Crypto,
}

/// A key that signs notifications as WeChat's platform does, with the serial under which receivers know it.
pub struct SigningKey {
    serial: String,
    pair: KeyPair,
}

impl SigningKey {
    /// A new RSA key of 2048 bits.
    ///
    /// # Errors
    /// [`SenderError::Crypto`].
    pub fn generate(serial: &str) -> Result<Self, SenderError> {
        let pair = KeyPair::generate(KeySize::Rsa2048).map_err(|_| SenderError::Crypto)?;
        Ok(Self { serial: serial.to_owned(), pair })
    }

    /// A key from PKCS#8 DER.
    ///
    /// # Errors
    /// [`SenderError::Key`].
    pub fn from_pkcs8(serial: &str, der: &[u8]) -> Result<Self, SenderError> {
        let pair = KeyPair::from_pkcs8(der).map_err(|_| SenderError::Key)?;
        Ok(Self { serial: serial.to_owned(), pair })
    }

    /// A key from a PEM block `PRIVATE KEY`, as [`SigningKey::private_pem`] writes it.
    ///
    /// # Errors
    /// [`SenderError::Key`].
    pub fn from_pem(serial: &str, pem: &[u8]) -> Result<Self, SenderError> {
        let block = Pem::iter_from_buffer(pem).next().and_then(Result::ok).ok_or(SenderError::Key)?;
        if block.label == "PRIVATE KEY" { Self::from_pkcs8(serial, &block.contents) } else { Err(SenderError::Key) }
    }

    /// The private key, for keeping it.
    ///
    /// # Errors
    /// [`SenderError::Crypto`].
    pub fn private_pem(&self) -> Result<SecretString, SenderError> {
        let der: Pkcs8V1Der<'_> = self.pair.as_der().map_err(|_| SenderError::Crypto)?;
        Ok(pem("PRIVATE KEY", der.as_ref()).into())
    }

    /// The public key, for the receiver's ring.
    ///
    /// # Errors
    /// [`SenderError::Crypto`].
    pub fn public_pem(&self) -> Result<String, SenderError> {
        let der: PublicKeyX509Der<'_> = self.pair.public_key().as_der().map_err(|_| SenderError::Crypto)?;
        Ok(pem("PUBLIC KEY", der.as_ref()))
    }

    /// The headers, name and value, of a v3 notification with this body.
    ///
    /// # Errors
    /// [`SenderError::Crypto`].
    pub fn sign(&self, now: Timestamp, nonce: &str, body: &[u8]) -> Result<[(&'static str, String); 5], SenderError> {
        let timestamp = now.as_second().to_string();
        let message = [timestamp.as_bytes(), b"\n", nonce.as_bytes(), b"\n", body, b"\n"].concat();
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), &message, &mut signature)
            .map_err(|_| SenderError::Crypto)?;
        Ok([
            (TIMESTAMP, timestamp),
            (NONCE, nonce.to_owned()),
            (SIGNATURE, STANDARD.encode(signature)),
            (SERIAL, self.serial.clone()),
            (SIGNATURE_TYPE, RSA_SHA256.to_owned()),
        ])
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("serial", &self.serial).finish_non_exhaustive()
    }
}

/// Encrypts the content of a v3 notification; `original_type`, `transaction` or `refund`, is its associated data.
#[must_use]
pub fn seal_resource(
    key: &ApiV3Key,
    nonce: &[u8; RESOURCE_NONCE_LEN],
    original_type: &str,
    plaintext: &[u8],
) -> Resource {
    let mut bytes = plaintext.to_vec();
    UnboundKey::new(&AES_256_GCM, key.as_bytes())
        .and_then(|key| {
            let nonce_bytes = Nonce::assume_unique_for_key(*nonce);
            LessSafeKey::new(key).seal_in_place_append_tag(nonce_bytes, Aad::from(original_type.as_bytes()), &mut bytes)
        })
        .expect("a key of 32 bytes seals any content that fits into memory");
    Resource {
        algorithm: ALGORITHM.to_owned(),
        ciphertext: STANDARD.encode(bytes),
        associated_data: original_type.to_owned(),
        nonce: String::from_utf8_lossy(nonce).into_owned(),
        original_type: Some(original_type.to_owned()),
    }
}

/// The body of a v3 notification.
#[must_use]
pub fn notice_body(id: &str, create_time: Timestamp, event_type: &str, resource: &Resource) -> String {
    json!({
        "id": id,
        "create_time": create_time.to_string(),
        "resource_type": "encrypt-resource",
        "event_type": event_type,
        "summary": "",
        "resource": {
            "algorithm": resource.algorithm,
            "ciphertext": resource.ciphertext,
            "associated_data": resource.associated_data,
            "nonce": resource.nonce,
            "original_type": resource.original_type,
        },
    })
    .to_string()
}

/// Encrypts the inner XML of a v2 refund notice into its `req_info`.
#[must_use]
pub fn seal_req_info(key: &V2Key, plaintext: &str) -> String {
    let mut bytes = plaintext.as_bytes().to_vec();
    PaddedBlockEncryptingKey::ecb_pkcs7(cipher_key(key))
        .and_then(|key| key.encrypt(&mut bytes))
        .map(drop)
        .expect("AES-256 encrypts any content that fits into memory");
    STANDARD.encode(bytes)
}

fn pem(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in STANDARD.encode(der).as_bytes().chunks(64) {
        text.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn a_signing_key_survives_its_file_and_is_never_shown() {
        let key = SigningKey::generate("PUB_KEY_ID_1").unwrap();
        let private = key.private_pem().unwrap();
        let read = SigningKey::from_pem("PUB_KEY_ID_1", private.expose_secret().as_bytes()).unwrap();
        assert_eq!(read.public_pem().unwrap(), key.public_pem().unwrap());
        assert_eq!(format!("{read:?}"), "SigningKey { serial: \"PUB_KEY_ID_1\", .. }");
        for pem in ["", &key.public_pem().unwrap(), "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"] {
            assert_eq!(SigningKey::from_pem("PUB_KEY_ID_1", pem.as_bytes()).unwrap_err(), SenderError::Key);
        }
    }

    #[test]
    fn key_files_have_lines_that_openssl_reads() {
        let text = SigningKey::generate("PUB_KEY_ID_1").unwrap().public_pem().unwrap();
        assert!(text.starts_with("-----BEGIN PUBLIC KEY-----\n") && text.ends_with("\n-----END PUBLIC KEY-----\n"));
        assert!(text.lines().all(|line| (1..=64).contains(&line.len())));
    }
}
