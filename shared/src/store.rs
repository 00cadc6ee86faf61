//! The store's contract: orders, facts and points, changed in one transaction or not at all.
//!
//! `apply` is the one way by which money enters. Every home runs the pure rule of [`crate::order`] inside the transaction
//! that writes its answer, so check and write cannot come apart. What is promised here is checked for every home by one
//! suite (`tests/src/store_contract.rs`).

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use self::{
    audit::{AuditLine, AuditQuery},
    seen::Seen,
};
use crate::{
    event::{Event, EventKey},
    fen::Fen,
    ids::{AccountId, OrderId, OutRefundNo},
    order::{Order, Registration},
    reason::Rejection,
};

mod answer;
pub mod audit;
pub mod seen;
pub mod embedded;
pub mod open;
pub mod sql;

/// Orders, facts, points.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Applies a batch in one transaction; answers each event in its place. When it returns, what it says is durable.
    ///
    /// # Errors
    /// Only for faults of the store: then nothing of the batch was applied, or all of it and the answer was lost. It may
    /// be tried again either way.
    async fn apply(&self, events: &[Event]) -> Result<Vec<Applied>, StoreError>;

    /// What [`Store::apply`] would look at for these events, all of it from one moment. Writes nothing and waits for
    /// nobody's locks.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn look(&self, events: &[Event]) -> Result<Seen, StoreError>;

    /// Appends lines to the audit record; when it returns, they are durable.
    ///
    /// # Errors
    /// [`StoreError`]: all lines are there, or none, or all and the answer was lost.
    async fn write_audit(&self, lines: &[AuditLine]) -> Result<(), StoreError>;

    /// Lines of the audit record, in the order in which they were written.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn audit(&self, query: &AuditQuery) -> Result<Vec<AuditLine>, StoreError>;

    /// Registers an order. The same registration again changes nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn register(&self, registration: &Registration) -> Result<Registered, StoreError>;

    /// Closes an unpaid order, so that no payment can pay it any more. Closing again changes nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn close(&self, id: &OrderId) -> Result<Closed, StoreError>;

    /// Registers a refund that the merchant is about to request, so that a notice about it can be held against it. The
    /// same again changes nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn announce_refund(
        &self,
        id: &OrderId,
        out_refund_no: &OutRefundNo,
        amount: Fen,
    ) -> Result<Announced, StoreError>;

    /// An order with its ledger entries, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn order(&self, id: &OrderId) -> Result<Option<(Order, Vec<LedgerEntry>)>, StoreError>;

    /// A points account with its latest ledger entries, newest first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn account(&self, id: &AccountId, limit: usize) -> Result<Option<Account>, StoreError>;

    /// Whether the store takes a write: it tries one and undoes it. A server that answers may have become a replica, or its
    /// disk full.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn ping(&self) -> Result<(), StoreError>;

    /// Waits for a fault that this process cannot outlive, such as a schema that it does not know. Most homes have none.
    async fn fatal(&self) -> BoxError {
        std::future::pending().await
    }
}

/// What became of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It took effect; the points that moved.
    Fresh {
        /// Points credited (negative: taken back).
        points: i64,
    },
    /// It had taken effect before.
    Duplicate,
    /// It must become a dead letter. Money that moved was recorded on the order.
    Rejected(Rejection),
    /// It may fit later: try again, and make it a dead letter only in the end.
    Waiting(Rejection),
}

/// The answer to a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Registered {
    /// The order is new.
    Fresh(Order),
    /// The same registration was there.
    Known(Order),
    /// Another registration of this number was there; it stays as it is.
    Conflict(Order),
}

/// The answer to closing an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// It is closed.
    Closed(Order),
    /// Money has come, so it cannot be closed.
    Paid(Order),
    /// There is no such order.
    Unknown,
}

/// The answer to the registration of a refund.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Announced {
    /// It is registered.
    Announced,
    /// This number was registered with another amount; that stays.
    Conflict(Fen),
    /// There is no such order.
    Unknown,
}

/// One line of the append-only ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// The account.
    pub account: AccountId,
    /// The order that moved the points.
    pub order: OrderId,
    /// The fact that moved them; no two entries share one.
    pub event: EventKey,
    /// Points credited (negative: taken back).
    pub points: i64,
    /// The account's balance after this entry. Negative: the user owes points.
    pub balance: i64,
    /// When it was written.
    pub at: Timestamp,
}

/// A points account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The sum of all its ledger entries.
    pub balance: i64,
    /// The latest entries, newest first.
    pub entries: Vec<LedgerEntry>,
}

/// A fault of the store, never of an event.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store is away: nothing can be applied until it is back.
    #[error("the store is not available")]
    Unavailable(#[source] BoxError),
    /// This transaction failed, another may not (a deadlock, a conflict).
    #[error("the store could not finish the transaction")]
    Transient(#[source] BoxError),
    /// What the store holds is not what this program wrote.
    #[error("the store holds a record that cannot be read")]
    Corrupt(#[source] BoxError),
}

/// Any error, as a cause.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
