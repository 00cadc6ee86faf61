//! TLS of the public listener: certificate and key from files, exchanged as one without a restart.

use std::{
    path::Path,
    sync::{Arc, PoisonError, RwLock},
};

use jiff::Timestamp;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
};
use x509_parser::parse_x509_certificate;

use crate::{
    config::{Config, ConfigError},
    metric,
};

const CERTIFICATE: &str = "ingress.tls_certificate";
const KEY: &str = "ingress.tls_key_file";

/// A certificate with its key, ready for connections.
pub struct Tls {
    acceptor: TlsAcceptor,
    expires_at: Timestamp,
}

impl Tls {
    /// Opens what is configured; `None` where that is plain HTTP.
    ///
    /// # Errors
    /// [`ConfigError`] for files that cannot be read, hold something else, or do not belong together.
    pub fn open(config: &Config) -> Result<Option<Self>, ConfigError> {
        let (certificate, key) = match (&config.ingress.tls_certificate, &config.ingress.tls_key_file) {
            (None, None) => return Ok(None),
            (Some(certificate), Some(key)) => (config.path(certificate), config.path(key)),
            (Some(_), None) => return Err(ConfigError::new(KEY, format!("missing beside {CERTIFICATE}"))),
            (None, Some(_)) => return Err(ConfigError::new(CERTIFICATE, format!("missing beside {KEY}"))),
        };
        let chain = CertificateDer::pem_slice_iter(&read(CERTIFICATE, &certificate)?)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| ConfigError::new(CERTIFICATE, format!("{}: damaged PEM", certificate.display())))?;
        let first = chain.first().ok_or_else(|| {
            ConfigError::new(CERTIFICATE, format!("{}: expected a certificate in PEM", certificate.display()))
        })?;
        let expires_at = expiry(first)
            .ok_or_else(|| ConfigError::new(CERTIFICATE, format!("{}: damaged certificate", certificate.display())))?;
        // The PEM reader's own text may quote what is in the file.
        let secret = PrivateKeyDer::from_pem_slice(&read(KEY, &key)?)
            .map_err(|_| ConfigError::new(KEY, format!("{}: expected a private key in PEM", key.display())))?;
        let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| ConfigError::new(CERTIFICATE, error))?;
        let mut server = builder
            .with_no_client_auth()
            .with_single_cert(chain, secret)
            .map_err(|error| ConfigError::new(KEY, format!("does not fit {CERTIFICATE}: {error}")))?;
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Some(Self { acceptor: TlsAcceptor::from(Arc::new(server)), expires_at }))
    }
}

/// The TLS of a running listener. A connection keeps what it began with.
pub struct LiveTls(RwLock<TlsAcceptor>);

impl LiveTls {
    /// The certificate at the start.
    #[must_use]
    pub fn new(tls: Tls) -> Self {
        metric::tls_expiry(tls.expires_at);
        Self(RwLock::new(tls.acceptor))
    }

    /// What the next connection gets.
    #[must_use]
    pub fn now(&self) -> TlsAcceptor {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Exchanges certificate and key.
    pub fn replace(&self, tls: Tls) {
        metric::tls_expiry(tls.expires_at);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = tls.acceptor;
    }
}

fn read(setting: &str, path: &Path) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(path).map_err(|error| ConfigError::new(setting, format!("cannot read {}: {error}", path.display())))
}

fn expiry(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let (_, certificate) = parse_x509_certificate(certificate).ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}
