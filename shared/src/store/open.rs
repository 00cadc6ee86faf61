//! From `store.url` to a store: the one place that tells the homes apart.

use std::sync::Arc;

use anyhow::Context as _;
use secrecy::{ExposeSecret, SecretString};
use sqlx::{MySql, Postgres};

use super::{
    Store,
    embedded::EmbeddedStore,
    sql::{self, Dialect, SqlStore, migrate::Step},
};
use crate::{
    clock::Clock,
    config::{ConfigError, EMBEDDED},
    disk::{Disk, Holds},
};

/// How the addresses of SQL stores begin.
pub const SQL_SCHEMES: [&str; 3] = ["postgres://", "postgresql://", "mysql://"];

const SETTING: &str = "store.url";

/// Where a store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// In the process's own sled directory.
    Embedded,
    /// On PostgreSQL.
    Postgres,
    /// On MySQL or MariaDB.
    Mysql,
}

impl Home {
    /// The home that an address names.
    ///
    /// # Errors
    /// [`ConfigError`] for every other scheme.
    pub fn of(url: &SecretString) -> Result<Self, ConfigError> {
        match url.expose_secret().split_once("://").map_or(url.expose_secret(), |(scheme, _)| scheme) {
            EMBEDDED => Ok(Self::Embedded),
            "postgres" | "postgresql" => Ok(Self::Postgres),
            "mysql" => Ok(Self::Mysql),
            _ => Err(ConfigError::new(SETTING, "no store has addresses of this kind")),
        }
    }

    /// What the sled directory holds beside such a store.
    #[must_use]
    pub const fn disk_holds(self) -> Holds {
        match self {
            Self::Embedded => Holds::Records,
            Self::Postgres | Self::Mysql => Holds::Shortcut,
        }
    }
}

/// Opens the store at this address. A server that is away is no error: the store answers that it is away, and looks at
/// the schema when the server is back ([`Store::fatal`]).
///
/// `connections` bounds the connections to a server; `disk` is used by the embedded home only.
///
/// # Errors
/// [`ConfigError`] for an address that is none, [`SchemaError`](sql::migrate::SchemaError) for a database that this program
/// must not use, [`DiskError`](crate::disk::DiskError). No text shows the address.
pub async fn open(
    url: &SecretString,
    connections: u32,
    disk: &Disk,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<Arc<dyn Store>> {
    match Home::of(url)? {
        Home::Embedded => Ok(Arc::new(EmbeddedStore::open(disk.clone(), clock)?)),
        Home::Postgres => Ok(Arc::new(open_sql::<Postgres>(url, connections, clock).await?)),
        Home::Mysql => Ok(Arc::new(open_sql::<MySql>(url, connections, clock).await?)),
    }
}

/// The scripts that make the schema, and which of them the database at this address has. With `apply`, runs those that
/// it does not have first.
///
/// # Errors
/// Where the store has no schema, the database cannot be asked, a script fails, or a later program was here.
pub async fn migrate(url: &SecretString, apply: bool) -> anyhow::Result<Vec<Step>> {
    match Home::of(url)? {
        Home::Embedded => Err(ConfigError::new(SETTING, "the embedded store has no schema to migrate").into()),
        Home::Postgres => migrate_sql::<Postgres>(url, apply).await,
        Home::Mysql => migrate_sql::<MySql>(url, apply).await,
    }
}

async fn migrate_sql<D: Dialect>(url: &SecretString, apply: bool) -> anyhow::Result<Vec<Step>> {
    let options = sql::options::<D>(url.expose_secret()).map_err(|error| ConfigError::new(SETTING, error))?;
    sql::migrations::<D>(options, apply).await.context(SETTING)
}

async fn open_sql<D: Dialect>(
    url: &SecretString,
    connections: u32,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<SqlStore<D>> {
    let options = sql::options::<D>(url.expose_secret()).map_err(|error| ConfigError::new(SETTING, error))?;
    let store = SqlStore::<D>::new(options, connections, clock);
    match store.check_schema().await {
        Ok(verdict) => verdict.context(SETTING)?,
        Err(error) => {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(%error, source, "the store is away at the start; its schema is looked at when it is back");
        }
    }
    Ok(store)
}
