//! What differs between servers: the statements. When to run which is in [`super`], what to write in `batch`.

use async_trait::async_trait;
use sqlx::{Database, migrate::Migrate};

use super::{
    audit::{AuditFilter, AuditRow},
    migrate::Script,
    rows::{AccountRow, EventRow, LedgerRow, OrderRow, Writes},
};
use crate::ids::{AccountId, OrderId};

/// A kind of SQL server. Every call is one statement or a few, inside a transaction of the caller's.
#[async_trait]
pub trait Dialect: Database<Connection: Migrate> {
    /// The scripts that make the schema, in order.
    const SCRIPTS: &'static [Script];
    /// Begins a transaction that only reads, all of it from one moment.
    const BEGIN_SNAPSHOT: &'static str;

    /// Prepares a new connection: isolation, and an end to every wait.
    async fn prepare(connection: &mut Self::Connection) -> sqlx::Result<()>;

    /// What of the server's settings lets it forget a commit that it told, where no session can change that.
    async fn forgetful(connection: &mut Self::Connection) -> sqlx::Result<Option<&'static str>>;

    /// Waits until nobody else changes the schema, and keeps others from it until the connection ends.
    async fn lock_schema(connection: &mut Self::Connection) -> sqlx::Result<()>;

    /// Reads one order.
    async fn order(connection: &mut Self::Connection, id: &OrderId) -> sqlx::Result<Option<OrderRow>>;

    /// Reads and locks those of these orders that exist, in key order.
    async fn lock_orders(connection: &mut Self::Connection, ids: &[&OrderId]) -> sqlx::Result<Vec<OrderRow>>;

    /// The events of these orders, and those under these keys. Some may come twice.
    async fn events(
        connection: &mut Self::Connection,
        ids: &[&OrderId],
        keys: &[String],
    ) -> sqlx::Result<Vec<EventRow>>;

    /// Inserts an order unless there is one of its name. Whether it did.
    async fn insert_order(connection: &mut Self::Connection, order: &OrderRow) -> sqlx::Result<bool>;

    /// Adds to accounts, makes those that do not exist, and locks them in the order given. What they are then.
    async fn move_points(connection: &mut Self::Connection, moves: &[AccountRow]) -> sqlx::Result<Vec<AccountRow>>;

    /// Updates orders, which are locked; appends events and ledger entries.
    async fn write(connection: &mut Self::Connection, writes: &Writes) -> sqlx::Result<()>;

    /// Reads one account.
    async fn account(connection: &mut Self::Connection, id: &AccountId) -> sqlx::Result<Option<AccountRow>>;

    /// An account's latest entries, newest first.
    async fn ledger_of_account(
        connection: &mut Self::Connection,
        id: &AccountId,
        limit: i64,
    ) -> sqlx::Result<Vec<LedgerRow>>;

    /// An order's entries, oldest first.
    async fn ledger_of_order(connection: &mut Self::Connection, id: &OrderId) -> sqlx::Result<Vec<LedgerRow>>;

    /// Appends lines to the audit record.
    async fn insert_audit(connection: &mut Self::Connection, lines: &[AuditRow]) -> sqlx::Result<()>;

    /// The latest lines of the audit record, newest first.
    async fn audit(connection: &mut Self::Connection, query: &AuditFilter) -> sqlx::Result<Vec<AuditRow>>;
}

/// Says what [`Dialect::forgetful`] found.
pub(super) async fn warn_of_forgetting<D: Dialect>(connection: &mut D::Connection) -> sqlx::Result<()> {
    if let Some(setting) = D::forgetful(connection).await? {
        tracing::warn!(setting, "as this setting is, the store's server may forget what it confirmed when it crashes");
    }
    Ok(())
}
