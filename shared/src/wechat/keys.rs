//! The keys of one merchant, from the bytes of their files: WeChat's public keys by serial, and the two secret ones.
//!
//! A notification names its key in `Wechatpay-Serial`: the serial of a platform certificate, or the id of a WeChat Pay
//! public key (`PUB_KEY_ID_…`). While WeChat moves a merchant from one to the other both kinds sign, so a ring holds both.
//! A key is trusted because the merchant put its file there; certificate chains are not followed. Source: the vendor's
//! pages on platform certificates, on WeChat Pay public keys and on switching between them.

use std::{collections::BTreeMap, fmt};

use aws_lc_rs::signature::{ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256};
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretBox};
use x509_parser::{
    parse_x509_certificate, pem::Pem, prelude::FromDer as _, public_key::PublicKey, x509::SubjectPublicKeyInfo,
};

use crate::envelope::hex;

const PUBLIC_KEY_ID_PREFIX: &str = "PUB_KEY_ID_";
const PUBLIC_KEY_ID_MAX: usize = 64;
/// What [`RSA_PKCS1_2048_8192_SHA256`] verifies with.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Why a key file is not what its place needs. Never shows the file's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is no PEM block, or its base64 is damaged.
    #[error("not a PEM file")]
    NotPem,
    /// There is more than one PEM block, so it is not clear which one is meant.
    #[error("expected one PEM block, got several")]
    SeveralBlocks,
    /// A private key lies where only a public one belongs: somebody may have copied the merchant's own key here.
    #[error("expected a {0}, got a private key: keep it away from here")]
    PrivateKey(&'static str),
    /// The PEM block holds another thing.
    #[error("expected a PEM block {0}, got another")]
    OtherBlock(&'static str),
    /// The block's content is damaged.
    #[error("the {0} is damaged")]
    Damaged(&'static str),
    /// The key is not an RSA key.
    #[error("expected an RSA key, got another kind")]
    NotRsa,
    /// The RSA key is too short or too long.
    #[error("expected an RSA key of 2048 to 8192 bits, got {0} bits")]
    RsaSize(usize),
    /// The id is not one that WeChat gives to public keys.
    #[error("expected a public key id PUB_KEY_ID_ with letters and digits after it")]
    PublicKeyId,
    /// The ring has a key of this serial already.
    #[error("a key with this serial was added before")]
    DuplicateSerial,
}

/// Why the ring has no key for a serial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// No key has this serial.
    #[error("no platform key has this serial")]
    Unknown,
    /// The certificate is not valid any more, or not yet.
    #[error("the platform certificate is outside its validity")]
    Expired,
}

/// WeChat's public keys for one merchant, by serial.
#[derive(Default)]
pub struct PlatformKeys {
    keys: BTreeMap<String, PlatformKey>,
}

struct PlatformKey {
    key: ParsedPublicKey,
    /// Seconds since 1970, first and last; `None` for a public key, which does not expire.
    validity: Option<(i64, i64)>,
}

impl PlatformKeys {
    /// Adds a platform certificate and returns its serial: upper-case hexadecimal without leading zeros.
    ///
    /// An expired certificate is taken too, so that an old file does not keep a program from starting; it is not used.
    ///
    /// # Errors
    /// [`KeyError`]; the ring is then as it was.
    pub fn add_certificate(&mut self, pem: &[u8]) -> Result<String, KeyError> {
        let der = pem_block(pem, "CERTIFICATE")?;
        let (rest, certificate) = parse_x509_certificate(&der).map_err(|_| KeyError::Damaged("certificate"))?;
        if !rest.is_empty() {
            return Err(KeyError::Damaged("certificate"));
        }
        let key = parse_rsa(certificate.public_key())?;
        let serial = canonical(&hex(certificate.raw_serial()));
        let validity = certificate.validity();
        let validity = Some((validity.not_before.timestamp(), validity.not_after.timestamp()));
        self.insert(serial, PlatformKey { key, validity })
    }

    /// Adds a WeChat Pay public key under the id that the merchant console shows next to it, and returns the id.
    ///
    /// # Errors
    /// [`KeyError`]; the ring is then as it was.
    pub fn add_public_key(&mut self, id: &str, pem: &[u8]) -> Result<String, KeyError> {
        let digits = id.strip_prefix(PUBLIC_KEY_ID_PREFIX).ok_or(KeyError::PublicKeyId)?;
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !plain || id.len() > PUBLIC_KEY_ID_MAX {
            return Err(KeyError::PublicKeyId);
        }
        let der = pem_block(pem, "PUBLIC KEY")?;
        let (rest, info) = SubjectPublicKeyInfo::from_der(&der).map_err(|_| KeyError::Damaged("public key"))?;
        if !rest.is_empty() {
            return Err(KeyError::Damaged("public key"));
        }
        self.insert(id.to_owned(), PlatformKey { key: parse_rsa(&info)?, validity: None })
    }

    /// The key of a serial as the header spells it: hexadecimal in either case and with any number of leading zeros,
    /// public key ids to the letter.
    ///
    /// # Errors
    /// [`LookupError::Unknown`], or [`LookupError::Expired`] for a certificate that is not valid at `now`.
    pub fn get(&self, serial: &str, now: Timestamp) -> Result<&ParsedPublicKey, LookupError> {
        let found = self.keys.get(&canonical(serial)).ok_or(LookupError::Unknown)?;
        match found.validity {
            Some((first, last)) if !(first..=last).contains(&now.as_second()) => Err(LookupError::Expired),
            _ => Ok(&found.key),
        }
    }

    /// Every serial with the last second of its validity; `None` for a public key, which does not expire.
    pub fn expiries(&self) -> impl Iterator<Item = (&str, Option<Timestamp>)> {
        self.keys.iter().map(|(serial, key)| {
            let last = key.validity.and_then(|(_, last)| Timestamp::from_second(last).ok());
            (serial.as_str(), last)
        })
    }

    /// Whether there is no key at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    fn insert(&mut self, serial: String, key: PlatformKey) -> Result<String, KeyError> {
        if self.keys.contains_key(&serial) {
            return Err(KeyError::DuplicateSerial);
        }
        self.keys.insert(serial.clone(), key);
        Ok(serial)
    }
}

impl fmt::Debug for PlatformKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.keys()).finish()
    }
}

/// A public key id may look like hexadecimal in part, so only what is hexadecimal throughout is folded.
fn canonical(serial: &str) -> String {
    if serial.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        serial.trim_start_matches('0').to_ascii_uppercase()
    } else {
        serial.to_owned()
    }
}

/// The content of the one block of a PEM file, if the block has the label.
fn pem_block(pem: &[u8], label: &'static str) -> Result<Vec<u8>, KeyError> {
    let mut blocks = Pem::iter_from_buffer(without_bom(pem));
    let block = blocks.next().ok_or(KeyError::NotPem)?.map_err(|_| KeyError::NotPem)?;
    if block.label.ends_with("PRIVATE KEY") {
        return Err(KeyError::PrivateKey(label));
    }
    if block.label != label {
        return Err(KeyError::OtherBlock(label));
    }
    if blocks.next().is_some() {
        return Err(KeyError::SeveralBlocks);
    }
    Ok(block.contents)
}

fn parse_rsa(info: &SubjectPublicKeyInfo<'_>) -> Result<ParsedPublicKey, KeyError> {
    let damaged = KeyError::Damaged("public key");
    let PublicKey::RSA(rsa) = info.parsed().map_err(|_| damaged)? else { return Err(KeyError::NotRsa) };
    if !RSA_BITS.contains(&rsa.key_size()) {
        return Err(KeyError::RsaSize(rsa.key_size()));
    }
    ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, info.raw).map_err(|_| damaged)
}

fn without_bom(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// Why a text is not a secret key. Never shows the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// A blank, a tab or a line break lies before, after or inside the key.
    #[error("{0}: expected 32 characters without blanks around or between them")]
    Blank(&'static str),
    /// A character outside visible ASCII, a quotation mark of a word processor perhaps.
    #[error("{0}: expected 32 letters, digits or signs of ASCII, got another character")]
    NotAscii(&'static str),
    /// Too short or too long.
    #[error("{name}: expected 32 characters, got {length}")]
    Length {
        /// Which key.
        name: &'static str,
        /// How many characters there are.
        length: usize,
    },
}

macro_rules! secret {
    ($(#[$doc:meta])* $type:ident, $name:literal) => {
        $(#[$doc])*
        ///
        /// Printing it shows nothing, and its memory is wiped when it goes.
        pub struct $type(SecretBox<[u8; 32]>);

        impl $type {
            /// The key in the text of a file or of an environment variable. A byte order mark and line ends after the
            /// key are the text's, not the key's; everything else counts.
            ///
            /// # Errors
            /// [`SecretError`] with the rule that the text breaks.
            pub fn parse(text: impl AsRef<[u8]>) -> Result<Self, SecretError> {
                parse_secret(text.as_ref(), $name).map(Self)
            }

            /// The key's 32 ASCII characters, for the cryptography only.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; 32] {
                self.0.expose_secret()
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($type), "(***)"))
            }
        }
    };
}

secret! {
    /// The merchant's key of v2, `API密钥`: it signs payments, and refunds are encrypted under its MD5.
    V2Key, "v2_key"
}
secret! {
    /// The merchant's key of v3, `APIv3密钥`: an AES-256 key.
    ApiV3Key, "api_v3_key"
}

fn parse_secret(text: &[u8], name: &'static str) -> Result<SecretBox<[u8; 32]>, SecretError> {
    let mut text = without_bom(text);
    while let [rest @ .., b'\r' | b'\n'] = text {
        text = rest;
    }
    if text.iter().any(u8::is_ascii_whitespace) {
        return Err(SecretError::Blank(name));
    }
    if !text.iter().all(u8::is_ascii_graphic) {
        return Err(SecretError::NotAscii(name));
    }
    let length = text.len();
    let key: Box<[u8]> = text.into();
    key.try_into().map(SecretBox::new).map_err(|_| SecretError::Length { name, length })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFICATE: &[u8] = include_bytes!("../../../tests/data/vectors/keys/platform_cert_a.cert.pem");
    const EXPIRED: &[u8] = include_bytes!("../../../tests/data/vectors/keys/platform_cert_expired.cert.pem");
    const PUBLIC: &[u8] = include_bytes!("../../../tests/data/vectors/keys/platform_pubkey.public.pem");
    const SERIAL: &str = "5A1D0C7E9F3B2A4866D1E0F4C3B2A19087F6E5D4";
    const NOT_RSA: &[u8] = b"-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE/c6fEmpZr8+m7+85G7Sql6vWeL12
WGNuPH08xfk3dzFklTyctkoANNzzLxRrrsp0z2g2N4BDAiqcmZ1lWSAMGA==
-----END PUBLIC KEY-----";
    const SHORT: &[u8] = b"-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDDPRzsZUAoSH+nf9ZaVQr23veA
qPIc/ezbA+bXKWq9zAdXx5P8hzkeggRi8yQMma84CG7/L72fdokOf2dBHEPdNaQQ
eAMBurF+JCPZKgpFHnaqSlr6OiBilPavTaEyprC1Tl6yBnp5m/rT6WpQovDzUN8N
0Btxum/QD/L+2/srGwIDAQAB
-----END PUBLIC KEY-----";

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn certificates_and_public_keys_lie_side_by_side() {
        let mut keys = PlatformKeys::default();
        assert_eq!(keys.add_certificate(CERTIFICATE).unwrap(), SERIAL);
        assert_eq!(keys.add_public_key("PUB_KEY_ID_0011", PUBLIC).unwrap(), "PUB_KEY_ID_0011");
        let now = second(1_773_800_430);
        for serial in [SERIAL, &SERIAL.to_lowercase(), &format!("000{SERIAL}"), "PUB_KEY_ID_0011"] {
            assert!(keys.get(serial, now).is_ok(), "{serial}");
        }
        for serial in [
            "",
            "0",
            &SERIAL[1..],
            &format!("{SERIAL}0"),
            "PUB_KEY_ID_11",
            "pub_key_id_0011",
            "0PUB_KEY_ID_0011",
            "0011",
        ] {
            assert_eq!(keys.get(serial, now).unwrap_err(), LookupError::Unknown, "{serial}");
        }
        let expiries: Vec<_> = keys.expiries().map(|(_, last)| last.map(|last| last.to_string())).collect();
        assert_eq!(expiries, [Some("2028-12-31T00:00:00Z".to_owned()), None]);
    }

    #[test]
    fn a_certificate_serves_from_its_first_to_its_last_second() {
        let mut keys = PlatformKeys::default();
        keys.add_certificate(CERTIFICATE).unwrap();
        let last = keys.expiries().next().unwrap().1.unwrap().as_second();
        let first = "2024-01-01T00:00:00Z".parse::<Timestamp>().unwrap().as_second();
        for (at, found) in [(first - 1, false), (first, true), (last, true), (last + 1, false)] {
            assert_eq!(keys.get(SERIAL, second(at)).is_ok(), found, "{at}");
        }
        let serial = keys.add_certificate(EXPIRED).unwrap();
        assert_eq!(keys.get(&serial, second(1_773_800_430)).unwrap_err(), LookupError::Expired);
    }

    #[test]
    fn line_ends_and_byte_order_marks_are_the_files_own_business() {
        let text = String::from_utf8(CERTIFICATE.to_vec()).unwrap();
        for text in [text.replace('\n', "\r\n"), format!("\u{feff}{text}\n\n"), text.trim_end().to_owned()] {
            assert_eq!(PlatformKeys::default().add_certificate(text.as_bytes()).unwrap(), SERIAL);
        }
    }

    #[test]
    fn every_wrong_file_has_its_own_error_and_changes_nothing() {
        let mut keys = PlatformKeys::default();
        let private = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let damaged = b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
        let unfinished = &PUBLIC[..PUBLIC.len() / 2];
        let twice = [PUBLIC, PUBLIC].concat();
        let mut add = |pem: &[u8]| keys.add_public_key("PUB_KEY_ID_1", pem).unwrap_err();
        assert_eq!(add(b""), KeyError::NotPem);
        assert_eq!(add(unfinished), KeyError::NotPem);
        assert_eq!(add(private), KeyError::PrivateKey("PUBLIC KEY"));
        assert_eq!(add(CERTIFICATE), KeyError::OtherBlock("PUBLIC KEY"));
        assert_eq!(add(damaged), KeyError::Damaged("public key"));
        assert_eq!(add(&twice), KeyError::SeveralBlocks);
        assert_eq!(add(NOT_RSA), KeyError::NotRsa);
        assert_eq!(add(SHORT), KeyError::RsaSize(1024));
        for id in ["", "PUB_KEY_ID_", "PUB_KEY_ID_1 ", "5A1D"] {
            assert_eq!(keys.add_public_key(id, PUBLIC), Err(KeyError::PublicKeyId), "{id}");
        }
        assert_eq!(keys.add_certificate(PUBLIC), Err(KeyError::OtherBlock("CERTIFICATE")));
        assert!(keys.is_empty());
        keys.add_public_key("PUB_KEY_ID_1", PUBLIC).unwrap();
        assert_eq!(keys.add_public_key("PUB_KEY_ID_1", PUBLIC), Err(KeyError::DuplicateSerial));
    }

    #[test]
    fn secrets_are_taken_to_the_letter_and_never_shown() {
        let key = "Zx8kQ2mN7pR4tV9wB3yC6dF1gH5jL0sT";
        for text in [key.to_owned(), format!("{key}\n"), format!("\u{feff}{key}\r\n")] {
            let parsed = V2Key::parse(&text).unwrap();
            assert_eq!(
                (parsed.as_bytes().as_slice(), format!("{parsed:?}")),
                (key.as_bytes(), "V2Key(***)".to_owned())
            );
        }
        let error = |text: &str| ApiV3Key::parse(text).unwrap_err();
        for text in
            [format!(" {key}"), format!("{key} "), format!("{key}\t\n"), format!("\n{key}"), key.replace('m', " ")]
        {
            assert_eq!(error(&text), SecretError::Blank("api_v3_key"));
        }
        assert_eq!(error(&key.replace('m', "\u{201c}")), SecretError::NotAscii("api_v3_key"));
        assert_eq!(error(""), SecretError::Length { name: "api_v3_key", length: 0 });
        assert_eq!(error(&format!("{key}x")).to_string(), "api_v3_key: expected 32 characters, got 33");
    }
}
