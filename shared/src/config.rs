//! The configuration of all programs: one TOML file, every key of it overridable from the environment.
//!
//! `queue.url` in the file is `WXPAY__QUEUE__URL` in the environment; a list is written `[a, b]` there. Unknown keys are
//! errors, wherever they come from. Secrets are read from the file that their `…_file` key names or from the environment,
//! and no error ever shows a value. Relative paths are relative to the configuration file.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::SignedDuration;
use secrecy::SecretString;
use serde::{Deserialize, Deserializer};

use crate::{
    ids::{AppId, MchId, MerchantName},
    points::PointsRate,
    queue::{QueueSettings, topology::SHARDS_MAX},
};

mod environment;
mod ingress;
mod load;
mod secrets;
mod telemetry;

pub use environment::environment;
pub use ingress::{Ingress, SourcePolicy};
pub use secrets::read_secret;
pub use telemetry::Telemetry;

/// What stands before every key's name in the environment.
pub const ENV_PREFIX: &str = "WXPAY__";
/// The file that is read where none is named.
pub const DEFAULT_FILE: &str = "wxpay.toml";
/// The value of `queue.url` and `store.url` that needs no server.
pub const EMBEDDED: &str = "embedded";

/// Everything that can be configured.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where sled keeps what it keeps.
    pub data_dir: DataDir,
    /// Free space on that disk below which no notifications are accepted.
    pub disk_reserve_mb: DiskReserve,
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
    /// Where traces go.
    pub telemetry: Telemetry,
    /// Who is paid, by the name in the `notify_url`.
    pub merchants: BTreeMap<MerchantName, Merchant>,
    /// Where relative paths start.
    #[serde(skip)]
    base_dir: PathBuf,
}

/// Free space that is kept on the disk of the embedded database, in MiB: what was accepted must still be applied.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct DiskReserve(#[serde(deserialize_with = "number")] u64);

/// The directory of the embedded database.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct DataDir(PathBuf);

/// The applying side.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Worker {
    /// Where the admin API, the console, `/healthz`, `/readyz` and `/metrics` answer.
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
    /// The shards of the queue that this worker takes, by their numbers; empty for all.
    #[serde(deserialize_with = "numbers")]
    pub shards: Vec<u16>,
}

/// Between the two.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Queue {
    /// `embedded`, or `amqp://…` or `amqps://…`.
    url: Option<SecretString>,
    url_file: Option<PathBuf>,
    /// Messages that a worker may hold unsettled; on RabbitMQ of up to sixteen notifications each.
    #[serde(deserialize_with = "number")]
    pub prefetch: u16,
    /// Publishes that may wait for their confirm at the same time.
    #[serde(deserialize_with = "number")]
    pub in_flight: u16,
    /// The delays of the retry tiers, shortest first; the last one repeats.
    #[serde(deserialize_with = "delays")]
    pub retry_delays: Vec<Duration>,
    /// Queues on RabbitMQ over which ingress spreads notifications.
    #[serde(deserialize_with = "number")]
    pub shards: u16,
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
    previous_v2_key: Option<SecretString>,
    previous_v2_key_file: Option<PathBuf>,
    api_v3_key: Option<SecretString>,
    api_v3_key_file: Option<PathBuf>,
    previous_api_v3_key: Option<SecretString>,
    previous_api_v3_key_file: Option<PathBuf>,
    /// Files with WeChat's platform certificates (PEM); each brings its serial.
    #[serde(default)]
    pub platform_certificates: Vec<PathBuf>,
    /// Files with WeChat Pay public keys (PEM), by their id `PUB_KEY_ID_…`.
    #[serde(default)]
    pub platform_public_keys: BTreeMap<String, PathBuf>,
    /// Which refund notices are applied.
    #[serde(default)]
    pub refunds: Refunds,
    /// Points per fen, for orders that bring no rate of their own.
    pub points: PointsRate,
}

/// Which refund notices of a merchant are applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refunds {
    /// Every one that fits its order, those from the merchant console included.
    #[default]
    Any,
    /// Only those that the merchant's app registered; every other one becomes a dead letter.
    RegisteredOnly,
}

/// A merchant's secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MerchantKey {
    /// The API key of v2.
    V2,
    /// The API key of v2 before the last change.
    PreviousV2,
    /// The `APIv3` key.
    ApiV3,
    /// The `APIv3` key before the last change.
    PreviousApiV3,
}

impl MerchantKey {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::V2, Self::PreviousV2, Self::ApiV3, Self::PreviousApiV3];

    /// The setting's name within the merchant's section.
    #[must_use]
    pub const fn setting(self) -> &'static str {
        match self {
            Self::V2 => "v2_key",
            Self::PreviousV2 => "previous_v2_key",
            Self::ApiV3 => "api_v3_key",
            Self::PreviousApiV3 => "previous_api_v3_key",
        }
    }
}

impl Merchant {
    fn key(&self, key: MerchantKey) -> (Option<&SecretString>, Option<&Path>) {
        let (value, file) = match key {
            MerchantKey::V2 => (&self.v2_key, &self.v2_key_file),
            MerchantKey::PreviousV2 => (&self.previous_v2_key, &self.previous_v2_key_file),
            MerchantKey::ApiV3 => (&self.api_v3_key, &self.api_v3_key_file),
            MerchantKey::PreviousApiV3 => (&self.previous_api_v3_key, &self.previous_api_v3_key_file),
        };
        (value.as_ref(), file.as_deref())
    }
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

    /// The embedded database's reserve in bytes.
    #[must_use]
    pub fn disk_reserve(&self) -> u64 {
        self.disk_reserve_mb.0.saturating_mul(1 << 20)
    }

    /// How the queue is to be used.
    #[must_use]
    pub fn queue_settings(&self) -> QueueSettings {
        QueueSettings {
            prefetch: self.queue.prefetch,
            in_flight: usize::from(self.queue.in_flight),
            retry_delays: self.queue.retry_delays.clone(),
            shards: self.queue.shards,
            taken_shards: self.worker.shards.clone(),
        }
    }

    /// What one key alone does not show.
    fn check(&self) -> Result<(), ConfigError> {
        let shards = self.queue.shards;
        if shards > SHARDS_MAX {
            return Err(ConfigError::new("queue.shards", format!("expected at most {SHARDS_MAX}")));
        }
        let taken = &self.worker.shards;
        let distinct: BTreeSet<_> = taken.iter().filter(|number| **number < shards).collect();
        if distinct.len() < taken.len() {
            let problem =
                format!("expected different numbers from 0 to {}, since queue.shards is {shards}", shards - 1);
            return Err(ConfigError::new("worker.shards", problem));
        }
        Ok(())
    }
}

impl Default for DataDir {
    fn default() -> Self {
        Self("wxpay-data".into())
    }
}

impl Default for DiskReserve {
    fn default() -> Self {
        Self(256)
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
            shards: Vec::new(),
        }
    }
}

impl Default for Queue {
    fn default() -> Self {
        let retry_delays = [5, 30, 120, 600, 3600].map(Duration::from_secs).to_vec();
        Self { url: None, url_file: None, prefetch: 512, in_flight: 2000, retry_delays, shards: 1 }
    }
}

/// A number, written as one or, in the environment, as text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u64),
    Text(String),
}

impl Written {
    fn number<T: TryFrom<u64>>(self) -> Option<T> {
        let number = match self {
            Self::Number(number) => number,
            Self::Text(text) => text.parse().ok()?,
        };
        T::try_from(number).ok()
    }
}

/// A positive number.
fn number<'de, D: Deserializer<'de>, T: TryFrom<u64>>(deserializer: D) -> Result<T, D::Error> {
    let number = Written::deserialize(deserializer).ok().and_then(Written::number);
    let number = number.filter(|number: &u64| *number > 0).and_then(|number| T::try_from(number).ok());
    number.ok_or_else(|| serde::de::Error::custom("expected a positive number in range"))
}

/// Numbers, 0 among them.
fn numbers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u16>, D::Error> {
    let written = Vec::<Written>::deserialize(deserializer).ok();
    let numbers = written.and_then(|written| written.into_iter().map(Written::number).collect());
    numbers.ok_or_else(|| serde::de::Error::custom("expected numbers such as [0, 2]"))
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
