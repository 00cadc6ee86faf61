//! The secrets of the configuration: each has two places, a value (best from the environment) and a file.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
};

use lapin::uri::AMQPUri;
use secrecy::{ExposeSecret, SecretString};
use sqlx::{mysql::MySqlConnectOptions, postgres::PgConnectOptions};

use super::{Config, ConfigError, EMBEDDED, Merchant, MerchantKey};
use crate::{
    envelope::SealKeys,
    ids::MerchantName,
    store::open::{Home, SQL_SCHEMES},
};

/// The seal key's least length in bytes.
const SEAL_KEY_MIN: usize = 32;
/// The admin token's. Wrong ones are answered slowly, yet a word of a dictionary would not last.
const ADMIN_TOKEN_MIN: usize = 16;

impl Config {
    /// The queue's address; [`EMBEDDED`] unless set.
    ///
    /// # Errors
    /// [`ConfigError`] where the secret's file cannot be read, for an address that is none, or where the embedded queue is
    /// to be split.
    pub fn queue_url(&self) -> Result<SecretString, ConfigError> {
        let url = self.secret("queue.url", self.queue.url.as_ref(), self.queue.url_file.as_deref())?;
        let url = url_with_scheme("queue.url", url, &["amqp://", "amqps://"])?;
        if url.expose_secret() != EMBEDDED {
            return parsed::<AMQPUri>("queue.url", url);
        }
        if self.queue.shards > 1 {
            let problem = "the embedded queue cannot be split: set shards = 1, or queue.url = \"amqp://…\"";
            return Err(ConfigError::new("queue.shards", problem));
        }
        Ok(url)
    }

    /// The broker's address, for a program that needs one: the embedded queue serves one process only.
    ///
    /// # Errors
    /// [`ConfigError`] where none is set, and as [`Config::queue_url`].
    pub fn broker_url(&self) -> Result<SecretString, ConfigError> {
        let url = self.queue_url()?;
        if url.expose_secret() == EMBEDDED {
            let problem = "the embedded queue serves one process only: run `wxpayctl serve`, or set amqp://…";
            return Err(ConfigError::new("queue.url", problem));
        }
        Ok(url)
    }

    /// The seal's keys, for a program that must share them with another.
    ///
    /// # Errors
    /// [`ConfigError`] where none are set, and as [`Config::seal_keys`].
    pub fn shared_seal_keys(&self) -> Result<SealKeys, ConfigError> {
        self.seal_keys()?
            .ok_or_else(|| ConfigError::new("seal.key", "missing: ingress and worker must have the same one"))
    }

    /// The store's address; [`EMBEDDED`] unless set.
    ///
    /// # Errors
    /// [`ConfigError`] where the secret's file cannot be read, or for an address that is none.
    pub fn store_url(&self) -> Result<SecretString, ConfigError> {
        let url = self.secret("store.url", self.store.url.as_ref(), self.store.url_file.as_deref())?;
        let url = url_with_scheme("store.url", url, &SQL_SCHEMES)?;
        match Home::of(&url)? {
            Home::Embedded => Ok(url),
            Home::Postgres => parsed::<PgConnectOptions>("store.url", url),
            Home::Mysql => parsed::<MySqlConnectOptions>("store.url", url),
        }
    }

    /// The admin API's token, if it has one.
    ///
    /// # Errors
    /// [`ConfigError`] where the file cannot be read, where the token is too short, or where one is required and absent.
    pub fn admin_token(&self) -> Result<Option<SecretString>, ConfigError> {
        let worker = &self.worker;
        let token =
            self.secret("worker.admin_token", worker.admin_token.as_ref(), worker.admin_token_file.as_deref())?;
        if let Some(token) = &token {
            let setting =
                if worker.admin_token_file.is_some() { "worker.admin_token_file" } else { "worker.admin_token" };
            long_enough(setting, token, ADMIN_TOKEN_MIN)?;
        }
        if token.is_none() && !worker.admin_listen.ip().is_loopback() {
            return Err(ConfigError::new("worker.admin_token", "required, since worker.admin_listen is not loopback"));
        }
        Ok(token)
    }

    /// The seal's keys; `None` where none is configured.
    ///
    /// # Errors
    /// [`ConfigError`] where a file cannot be read or a key is too short.
    pub fn seal_keys(&self) -> Result<Option<SealKeys>, ConfigError> {
        let seal = &self.seal;
        let Some(current) = self.secret("seal.key", seal.key.as_ref(), seal.key_file.as_deref())? else {
            return Ok(None);
        };
        long_enough("seal.key", &current, SEAL_KEY_MIN)?;
        let previous =
            self.secret("seal.previous_key", seal.previous_key.as_ref(), seal.previous_key_file.as_deref())?;
        if let Some(previous) = &previous {
            long_enough("seal.previous_key", previous, SEAL_KEY_MIN)?;
        }
        let previous = previous.as_ref().map(|key| key.expose_secret().as_bytes());
        Ok(Some(SealKeys::new(current.expose_secret().as_bytes(), previous)))
    }

    /// A merchant's key as it is configured; `None` where it is not set.
    ///
    /// # Errors
    /// [`ConfigError`] where the file cannot be read.
    pub fn merchant_key(
        &self,
        name: &MerchantName,
        merchant: &Merchant,
        key: MerchantKey,
    ) -> Result<Option<SecretString>, ConfigError> {
        let (value, file) = merchant.key(key);
        self.secret(&format!("merchants.{name}.{}", key.setting()), value, file)
    }

    /// Every file that keys are read from which may change in a running program: the merchants' and those of TLS.
    pub fn key_files(&self) -> impl Iterator<Item = PathBuf> {
        let of_merchants = self.merchants.values().flat_map(|merchant| {
            let secrets = MerchantKey::ALL.into_iter().filter_map(|key| merchant.key(key).1);
            let platform = merchant.platform_certificates.iter().chain(merchant.platform_public_keys.values());
            secrets.chain(platform.map(PathBuf::as_path))
        });
        let of_tls = self.ingress.tls_certificate.iter().chain(&self.ingress.tls_key_file).map(PathBuf::as_path);
        of_merchants.chain(of_tls).map(|path| self.path(path))
    }

    /// The file that a secret is read from; `None` where it is given as a value or not at all. A secret is named by the
    /// key of its value, `seal.key` say.
    #[must_use]
    pub fn secret_file(&self, setting: &str) -> Option<PathBuf> {
        let merchant = || {
            let (name, setting) = setting.strip_prefix("merchants.")?.split_once('.')?;
            let key = MerchantKey::ALL.into_iter().find(|key| key.setting() == setting)?;
            self.merchants.get(&MerchantName::parse(name).ok()?)?.key(key).1
        };
        let file = match setting {
            "worker.admin_token" => self.worker.admin_token_file.as_deref(),
            "queue.url" => self.queue.url_file.as_deref(),
            "store.url" => self.store.url_file.as_deref(),
            "seal.key" => self.seal.key_file.as_deref(),
            "seal.previous_key" => self.seal.previous_key_file.as_deref(),
            _ => merchant(),
        };
        file.map(|file| self.path(file))
    }

    /// A secret from its two places, of which at most one may be set.
    fn secret(
        &self,
        setting: &str,
        value: Option<&SecretString>,
        file: Option<&Path>,
    ) -> Result<Option<SecretString>, ConfigError> {
        match (value, file) {
            (Some(_), Some(_)) => Err(ConfigError::new(setting, format!("set either {setting} or {setting}_file"))),
            (Some(value), None) => Ok(Some(without_line_end(value.expose_secret()))),
            (None, None) => Ok(None),
            (None, Some(file)) => read_secret(&format!("{setting}_file"), &self.path(file)).map(Some),
        }
    }
}

/// A secret from a file. A byte order mark and the last line end are not part of it.
///
/// # Errors
/// [`ConfigError`] with the setting that names the file, where it cannot be read.
pub fn read_secret(setting: &str, path: &Path) -> Result<SecretString, ConfigError> {
    let text: SecretString = std::fs::read_to_string(path)
        .map_err(|error| ConfigError::new(setting, format!("cannot read {}: {error}", path.display())))?
        .into();
    Ok(without_line_end(text.expose_secret()))
}

/// The same bytes are the same secret wherever they stand: a shell that fills a variable from a file keeps its line end.
fn without_line_end(text: &str) -> SecretString {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text).into()
}

fn long_enough(setting: &str, secret: &SecretString, least: usize) -> Result<(), ConfigError> {
    if secret.expose_secret().trim() != secret.expose_secret() {
        return Err(ConfigError::new(setting, "begins or ends with white space"));
    }
    match secret.expose_secret().len() {
        length if length < least => {
            Err(ConfigError::new(setting, format!("expected at least {least} characters, got {length}")))
        }
        _ => Ok(()),
    }
}

fn url_with_scheme(setting: &str, url: Option<SecretString>, schemes: &[&str]) -> Result<SecretString, ConfigError> {
    let url = url.unwrap_or_else(|| EMBEDDED.into());
    if url.expose_secret() == EMBEDDED || schemes.iter().any(|scheme| url.expose_secret().starts_with(scheme)) {
        return Ok(url);
    }
    let known = schemes.iter().fold(EMBEDDED.to_owned(), |known, scheme| format!("{known}, {scheme}…"));
    Err(ConfigError::new(setting, format!("expected one of {known}")))
}

/// An address as its driver reads it, so that no program finds out later that it cannot be read. The driver's own error may
/// repeat the address with the password in it.
fn parsed<Address: FromStr>(setting: &str, url: SecretString) -> Result<SecretString, ConfigError> {
    match url.expose_secret().parse::<Address>() {
        Ok(_) => Ok(url),
        Err(_) => Err(ConfigError::new(setting, "expected an address such as scheme://user:password@host:port/name")),
    }
}
