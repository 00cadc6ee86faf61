//! The configuration of all programs: one TOML file, every key of it overridable from the environment.
//!
//! `queue.url` in the file is `WXPAY__QUEUE__URL` in the environment; a list is written `[a, b]` there. Unknown keys are
//! errors, wherever they come from. Secrets are read from the file that their `…_file` key names or from the environment,
//! and no error ever shows a value. Relative paths are relative to the configuration file.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::SignedDuration;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer};

use crate::{
    envelope::SealKeys,
    ids::{AppId, MchId, MerchantName},
    points::PointsRate,
    queue::QueueSettings,
    store::open::SQL_SCHEMES,
};

mod load;

/// What stands before every key's name in the environment.
pub const ENV_PREFIX: &str = "WXPAY__";
/// The file that is read where none is named.
pub const DEFAULT_FILE: &str = "wxpay.toml";
/// The value of `queue.url` and `store.url` that needs no server.
pub const EMBEDDED: &str = "embedded";
/// The seal key's least length in bytes.
const SEAL_KEY_MIN: usize = 32;

/// Everything that can be configured.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where sled keeps what it keeps.
    pub data_dir: DataDir,
    /// The public side.
    pub ingress: Ingress,
    /// The applying side.
    pub worker: Worker,
    /// Between the two.
    pub queue: Queue,
    /// Orders and points.
    pub store: Store,
    /// The key that ingress and worker share.
    pub seal: Seal,
    /// Who is paid, by the name in the `notify_url`.
    pub merchants: BTreeMap<MerchantName, Merchant>,
    /// Where relative paths start.
    #[serde(skip)]
    base_dir: PathBuf,
}

/// The directory of the embedded database.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct DataDir(PathBuf);

/// The public side.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ingress {
    /// Where WeChat's notifications arrive.
    pub listen: SocketAddr,
    /// Where `/healthz` and `/readyz` answer.
    pub ops_listen: SocketAddr,
}

/// The applying side.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Worker {
    /// Where the admin API, `/healthz` and `/readyz` answer.
    pub admin_listen: SocketAddr,
    /// The bearer token of the admin API; required as soon as `admin_listen` is not loopback.
    admin_token: Option<SecretString>,
    admin_token_file: Option<PathBuf>,
    /// Deliveries that are applied in one transaction, at most.
    #[serde(deserialize_with = "number")]
    pub batch: u16,
    /// Batches that are applied at the same time, at most.
    #[serde(deserialize_with = "number")]
    pub concurrency: u16,
    /// Failed attempts after which a notification becomes a dead letter.
    #[serde(deserialize_with = "number")]
    pub max_attempts: u32,
}

/// Between the two.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Queue {
    /// `embedded`, or `amqp://…` or `amqps://…`.
    url: Option<SecretString>,
    url_file: Option<PathBuf>,
    /// Messages that a worker may hold unsettled.
    #[serde(deserialize_with = "number")]
    pub prefetch: u16,
    /// Publishes that may wait for their confirm at the same time.
    #[serde(deserialize_with = "number")]
    pub in_flight: u16,
    /// The delays of the retry tiers, shortest first; the last one repeats.
    #[serde(deserialize_with = "delays")]
    pub retry_delays: Vec<Duration>,
}

/// Orders and points.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// `embedded`, `postgres://…` or `mysql://…`.
    url: Option<SecretString>,
    url_file: Option<PathBuf>,
}

/// The key that ingress and worker share.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Seal {
    key: Option<SecretString>,
    key_file: Option<PathBuf>,
    previous_key: Option<SecretString>,
    previous_key_file: Option<PathBuf>,
}

/// One merchant.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Merchant {
    /// The merchant number; the provider's in service-provider mode.
    pub mch_id: MchId,
    /// The applications through which its customers pay.
    pub appids: Vec<AppId>,
    /// Service-provider mode: the sub-merchants it acts for.
    #[serde(default)]
    pub sub_mch_ids: Vec<MchId>,
    /// Service-provider mode: the sub-merchants' applications.
    #[serde(default)]
    pub sub_appids: Vec<AppId>,
    v2_key: Option<SecretString>,
    v2_key_file: Option<PathBuf>,
    /// Points per fen, for orders that bring no rate of their own.
    pub points: PointsRate,
}

/// A configuration that cannot be used: the setting, and what is wrong with it. Never a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The key's path, or the file's.
    pub setting: String,
    /// What is wrong, or what was expected.
    pub problem: String,
}

impl ConfigError {
    /// A problem with a setting.
    pub fn new(setting: impl Into<String>, problem: impl fmt::Display) -> Self {
        Self { setting: setting.into(), problem: problem.to_string() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.setting, self.problem)
    }
}

impl Config {
    /// Reads the file, or [`DEFAULT_FILE`] if that exists, and then the environment over it.
    ///
    /// # Errors
    /// [`ConfigError`] for a file that cannot be read and for keys and values that are not expected.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        load::load(file, environment)
    }

    /// A path from the configuration, as the program must open it.
    #[must_use]
    pub fn path(&self, path: &Path) -> PathBuf {
        self.base_dir.join(path)
    }

    /// The embedded database's directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.path(&self.data_dir.0)
    }

    /// The queue's address; [`EMBEDDED`] unless set.
    ///
    /// # Errors
    /// [`ConfigError`] where the secret's file cannot be read.
    pub fn queue_url(&self) -> Result<SecretString, ConfigError> {
        let url = self.secret("queue.url", self.queue.url.as_ref(), self.queue.url_file.as_deref())?;
        url_with_scheme("queue.url", url, &["amqp://", "amqps://"])
    }

    /// The store's address; [`EMBEDDED`] unless set.
    ///
    /// # Errors
    /// [`ConfigError`] where the secret's file cannot be read.
    pub fn store_url(&self) -> Result<SecretString, ConfigError> {
        let url = self.secret("store.url", self.store.url.as_ref(), self.store.url_file.as_deref())?;
        url_with_scheme("store.url", url, &SQL_SCHEMES)
    }

    /// How the queue is to be used.
    #[must_use]
    pub fn queue_settings(&self) -> QueueSettings {
        QueueSettings {
            prefetch: self.queue.prefetch,
            in_flight: usize::from(self.queue.in_flight),
            retry_delays: self.queue.retry_delays.clone(),
        }
    }

    /// The admin API's token, if it has one.
    ///
    /// # Errors
    /// [`ConfigError`] where the file cannot be read, or where a token is required and absent.
    pub fn admin_token(&self) -> Result<Option<SecretString>, ConfigError> {
        let worker = &self.worker;
        let token =
            self.secret("worker.admin_token", worker.admin_token.as_ref(), worker.admin_token_file.as_deref())?;
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
        let long_enough = |setting: &str, key: &SecretString| match key.expose_secret().len() {
            length if length < SEAL_KEY_MIN => {
                Err(ConfigError::new(setting, format!("expected at least {SEAL_KEY_MIN} characters, got {length}")))
            }
            _ => Ok(()),
        };
        let Some(current) = self.secret("seal.key", seal.key.as_ref(), seal.key_file.as_deref())? else {
            return Ok(None);
        };
        long_enough("seal.key", &current)?;
        let previous =
            self.secret("seal.previous_key", seal.previous_key.as_ref(), seal.previous_key_file.as_deref())?;
        if let Some(previous) = &previous {
            long_enough("seal.previous_key", previous)?;
        }
        let previous = previous.as_ref().map(|key| key.expose_secret().as_bytes());
        Ok(Some(SealKeys::new(current.expose_secret().as_bytes(), previous)))
    }

    /// A merchant's API key for v2 as it is configured; `None` where it has none.
    ///
    /// # Errors
    /// [`ConfigError`] where the file cannot be read.
    pub fn v2_key(&self, name: &MerchantName, merchant: &Merchant) -> Result<Option<SecretString>, ConfigError> {
        let setting = format!("merchants.{name}.v2_key");
        self.secret(&setting, merchant.v2_key.as_ref(), merchant.v2_key_file.as_deref())
    }

    /// A secret from its two places, of which at most one may be set. A file's byte order mark and last line end are
    /// not part of the secret.
    fn secret(
        &self,
        setting: &str,
        value: Option<&SecretString>,
        file: Option<&Path>,
    ) -> Result<Option<SecretString>, ConfigError> {
        match (value, file) {
            (Some(_), Some(_)) => Err(ConfigError::new(setting, format!("set either {setting} or {setting}_file"))),
            (Some(value), None) => Ok(Some(value.clone())),
            (None, None) => Ok(None),
            (None, Some(file)) => {
                let path = self.path(file);
                let text = std::fs::read_to_string(&path).map_err(|error| {
                    ConfigError::new(format!("{setting}_file"), format!("cannot read {}: {error}", path.display()))
                })?;
                let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
                let text = text.strip_suffix('\n').unwrap_or(text);
                Ok(Some(text.strip_suffix('\r').unwrap_or(text).into()))
            }
        }
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

impl Default for DataDir {
    fn default() -> Self {
        Self("wxpay-data".into())
    }
}

impl Default for Ingress {
    fn default() -> Self {
        Self { listen: ([127, 0, 0, 1], 8080).into(), ops_listen: ([127, 0, 0, 1], 8081).into() }
    }
}

impl Default for Worker {
    fn default() -> Self {
        Self {
            admin_listen: ([127, 0, 0, 1], 8082).into(),
            admin_token: None,
            admin_token_file: None,
            batch: 64,
            concurrency: 4,
            max_attempts: 10,
        }
    }
}

impl Default for Queue {
    fn default() -> Self {
        let retry_delays = [5, 30, 120, 600, 3600].map(Duration::from_secs).to_vec();
        Self { url: None, url_file: None, prefetch: 512, in_flight: 2000, retry_delays }
    }
}

/// A positive number, written as one or, in the environment, as text.
fn number<'de, D: Deserializer<'de>, T: TryFrom<u64>>(deserializer: D) -> Result<T, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(u64),
        Text(String),
    }
    let number = match Written::deserialize(deserializer) {
        Ok(Written::Number(number)) => Some(number),
        Ok(Written::Text(text)) => text.parse().ok(),
        Err(_) => None,
    };
    let number = number.filter(|number| *number > 0).and_then(|number| T::try_from(number).ok());
    number.ok_or_else(|| serde::de::Error::custom("expected a positive number in range"))
}

/// Delays such as `5s`, `2m`, `1h`, growing.
fn delays<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Duration>, D::Error> {
    let wrong = || serde::de::Error::custom("expected growing delays such as [\"5s\", \"2m\", \"1h\"]");
    let texts = Vec::<String>::deserialize(deserializer).map_err(|_| wrong())?;
    let parse = |text: &String| text.parse::<SignedDuration>().ok().and_then(|delay| Duration::try_from(delay).ok());
    let delays = texts.iter().map(parse).collect::<Option<Vec<_>>>().ok_or_else(wrong)?;
    let growing = delays.windows(2).all(|pair| pair[0] < pair[1]);
    match delays.first() {
        Some(first) if growing && *first >= Duration::from_millis(1) => Ok(delays),
        _ => Err(wrong()),
    }
}
