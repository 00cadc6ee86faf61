//! The store's home on a SQL server, for any number of workers.
//!
//! A batch is one transaction: lock the orders in key order, read their events, decide in memory (`batch`), move the
//! accounts in key order, write, commit. The order's row is the lock for everything on the order, so isolation is read
//! committed, and what was read after the lock stays true until the commit. Unique keys are the last word: whoever loses
//! a race for one is told [`StoreError::Transient`], and the next try sees the winner. Every wait has an end.
//!
//! The statements are the dialects' (`postgres`, `mysql`), the classes of errors are in `fault`, the schema is in
//! [`migrate`].

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::{Timestamp, TimestampRound, Unit};
use sqlx::{ConnectOptions as _, Connection as _, Pool, Transaction, pool::PoolOptions};
use tokio::{
    sync::{OnceCell, watch},
    time::timeout,
};

pub(super) use self::dialect::Dialect;
use self::{
    audit::{AuditFilter, AuditRow},
    batch::Batch,
    lease::Lease,
    migrate::{SchemaError, Step},
    rows::{AccountRow, OrderRow, Writes},
};
use super::{
    Account, Announced, Applied, BoxError, Closed, LedgerEntry, Registered, Store, StoreError,
    audit::{AuditLine, AuditQuery},
    seen::Seen,
};
use crate::{
    clock::Clock,
    event::Event,
    fen::Fen,
    ids::{AccountId, OrderId, OutRefundNo},
    order::{Order, Registration},
};

mod audit;
mod batch;
mod dialect;
mod fault;
mod lease;
pub mod migrate;
mod mysql;
mod postgres;
mod rows;

/// The time for one call, its waits for a connection and for locks included.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// The time to get a connection.
const ACQUIRE_LIMIT: Duration = Duration::from_secs(5);
/// Idle connections are closed before the server closes them.
const IDLE_LIMIT: Duration = Duration::from_secs(45);
/// Events that are read and written at once, at most: MySQL takes 65,535 values a statement.
const PART_MAX: usize = 1000;

/// The store; clones share its connections.
#[derive(Clone)]
pub struct SqlStore<D: Dialect> {
    pool: Pool<D>,
    clock: Arc<dyn Clock>,
    /// Set once the schema was found to be right.
    checked: Arc<OnceCell<()>>,
    /// Set once it was found to be wrong.
    mismatch: watch::Sender<Option<SchemaError>>,
}

/// An address that the driver does not understand. Does not show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an address such as scheme://user:password@host:port/database")]
pub struct AddressError;

impl<D: Dialect> SqlStore<D> {
    /// The store at this address, with so many connections at most. Nothing is connected before it is used.
    #[must_use]
    pub fn new(options: Options<D>, connections: u32, clock: Arc<dyn Clock>) -> Self {
        let pool = PoolOptions::<D>::new()
            .max_connections(connections)
            .acquire_timeout(ACQUIRE_LIMIT)
            .idle_timeout(IDLE_LIMIT)
            .after_connect(|connection, _| Box::pin(D::prepare(connection)))
            .connect_lazy_with(options);
        Self { pool, clock, checked: Arc::default(), mismatch: watch::Sender::new(None) }
    }

    /// Whether this program may use the database; `Err` where it cannot be asked now.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn check_schema(&self) -> Result<Result<(), SchemaError>, StoreError> {
        bounded(async {
            let mut lease = Lease::of(&self.pool).await?;
            dialect::warn_of_forgetting::<D>(lease.connection()).await?;
            Ok(migrate::status(lease.connection(), D::SCRIPTS).await?.1)
        })
        .await
    }

    /// A connection for one call.
    async fn lease(&self) -> Result<Lease<D>, StoreError> {
        self.usable().await?;
        Lease::of(&self.pool).await
    }

    /// Asks for the schema until it was right once: the server may have been away when the program started.
    async fn usable(&self) -> Result<(), StoreError> {
        let check = || async {
            self.check_schema().await?.map_err(|mismatch| {
                self.mismatch.send_replace(Some(mismatch));
                StoreError::Unavailable(Box::new(mismatch))
            })
        };
        self.checked.get_or_try_init(check).await.map(drop)
    }

    fn now(&self) -> Timestamp {
        // What the servers keep, so that an answer is the same before and after it was stored.
        let micros = TimestampRound::new().smallest(Unit::Microsecond).mode(jiff::RoundMode::Trunc);
        self.clock.now().round(micros).expect("every moment lies between two microseconds")
    }
}

#[async_trait]
impl<D: Dialect> Store for SqlStore<D> {
    async fn apply(&self, events: &[Event]) -> Result<Vec<Applied>, StoreError> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let now = self.now();
        bounded(async {
            let mut lease = self.lease().await?;
            let mut transaction = lease.begin().await?;
            let mut applied = Vec::with_capacity(events.len());
            for part in events.chunks(PART_MAX) {
                applied.extend(apply_part::<D>(&mut transaction, part, now).await?);
            }
            transaction.commit().await?;
            Ok(applied)
        })
        .await
    }

    async fn look(&self, events: &[Event]) -> Result<Seen, StoreError> {
        let mut seen = Seen::default();
        bounded(async {
            let mut lease = self.lease().await?;
            let mut snapshot = lease.begin_snapshot().await?;
            for part in events.chunks(PART_MAX) {
                let (ids, keys) = names(part);
                let mut orders = Vec::with_capacity(ids.len());
                for id in &ids {
                    orders.extend(D::order(&mut snapshot, id).await?);
                }
                seen.add(Batch::read(orders, D::events(&mut snapshot, &ids, &keys).await?)?.into_seen());
            }
            snapshot.commit().await?;
            Ok(seen)
        })
        .await
    }

    async fn write_audit(&self, lines: &[AuditLine]) -> Result<(), StoreError> {
        bounded(async {
            let mut lease = self.lease().await?;
            let mut transaction = lease.begin().await?;
            for part in lines.chunks(PART_MAX) {
                let rows: Vec<_> = part.iter().map(AuditRow::of).collect();
                D::insert_audit(&mut transaction, &rows).await?;
            }
            Ok(transaction.commit().await?)
        })
        .await
    }

    async fn audit(&self, query: &AuditQuery) -> Result<Vec<AuditLine>, StoreError> {
        bounded(async {
            let mut lease = self.lease().await?;
            let mut snapshot = lease.begin_snapshot().await?;
            let rows = D::audit(&mut snapshot, &AuditFilter::of(query)).await?;
            snapshot.commit().await?;
            rows.into_iter().rev().map(AuditRow::read).collect()
        })
        .await
    }

    async fn register(&self, registration: &Registration) -> Result<Registered, StoreError> {
        let order = Order::new(registration.clone(), self.now());
        bounded(async {
            let mut lease = self.lease().await?;
            let mut transaction = lease.begin().await?;
            let fresh = D::insert_order(&mut transaction, &OrderRow::of(&order)).await?;
            // Committed before the other order is read: on MySQL whoever lost the race holds a lock that many may share.
            transaction.commit().await?;
            // Given back before another is asked for: callers that hold one each would wait for one another.
            drop(lease);
            if fresh {
                return Ok(Registered::Fresh(order));
            }
            match self.order(&registration.id).await? {
                None => Err(StoreError::Transient("the order that was there is gone".into())),
                Some((known, _)) if known.registration == *registration => Ok(Registered::Known(known)),
                Some((known, _)) => Ok(Registered::Conflict(known)),
            }
        })
        .await
    }

    async fn close(&self, id: &OrderId) -> Result<Closed, StoreError> {
        bounded(async {
            let mut lease = self.lease().await?;
            let mut transaction = lease.begin().await?;
            let Some(order) = lock::<D>(&mut transaction, id).await? else { return Ok(Closed::Unknown) };
            let Some(closed) = order.close(self.now()) else { return Ok(Closed::Paid(order)) };
            write_order::<D>(transaction, &closed).await?;
            Ok(Closed::Closed(closed))
        })
        .await
    }

    async fn announce_refund(
        &self,
        id: &OrderId,
        out_refund_no: &OutRefundNo,
        amount: Fen,
    ) -> Result<Announced, StoreError> {
        bounded(async {
            let mut lease = self.lease().await?;
            let mut transaction = lease.begin().await?;
            let Some(order) = lock::<D>(&mut transaction, id).await? else { return Ok(Announced::Unknown) };
            match order.announce_refund(out_refund_no, amount) {
                Err(known) => Ok(Announced::Conflict(known)),
                Ok(order) => {
                    write_order::<D>(transaction, &order).await?;
                    Ok(Announced::Announced)
                }
            }
        })
        .await
    }

    async fn order(&self, id: &OrderId) -> Result<Option<(Order, Vec<LedgerEntry>)>, StoreError> {
        bounded(async {
            let mut lease = self.lease().await?;
            let mut snapshot = lease.begin_snapshot().await?;
            let Some(row) = D::order(&mut snapshot, id).await? else { return Ok(None) };
            let events = D::events(&mut snapshot, &[id], &[]).await?;
            let ledger = D::ledger_of_order(&mut snapshot, id).await?;
            snapshot.commit().await?;
            let ledger = ledger.into_iter().map(rows::LedgerRow::read).collect::<Result<_, _>>()?;
            Ok(Batch::read(vec![row], events)?.into_order().map(|order| (order, ledger)))
        })
        .await
    }

    async fn account(&self, id: &AccountId, limit: usize) -> Result<Option<Account>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        bounded(async {
            let mut lease = self.lease().await?;
            let mut snapshot = lease.begin_snapshot().await?;
            let Some(account) = D::account(&mut snapshot, id).await? else { return Ok(None) };
            let entries = D::ledger_of_account(&mut snapshot, id, limit).await?;
            snapshot.commit().await?;
            let entries = entries.into_iter().map(rows::LedgerRow::read).collect::<Result<_, _>>()?;
            Ok(Some(Account { balance: account.balance, entries }))
        })
        .await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        bounded(async {
            let mut lease = self.lease().await?;
            let mut transaction = lease.begin().await?;
            // No account of anybody's has these names.
            let nobody = AccountRow { merchant: String::new(), user_id: String::new(), balance: 0, entries: 0 };
            D::move_points(&mut transaction, &[nobody]).await?;
            Ok(transaction.rollback().await?)
        })
        .await
    }

    async fn fatal(&self) -> BoxError {
        let mut mismatch = self.mismatch.subscribe();
        let found = mismatch.wait_for(Option::is_some).await.ok().and_then(|found| *found);
        match found {
            Some(mismatch) => mismatch.into(),
            None => std::future::pending().await,
        }
    }
}

/// Applies events in the order given. They see one another.
async fn apply_part<D: Dialect>(
    connection: &mut D::Connection,
    events: &[Event],
    now: Timestamp,
) -> Result<Vec<Applied>, StoreError> {
    let (ids, keys) = names(events);
    let orders = D::lock_orders(connection, &ids).await?;
    let mut batch = Batch::read(orders, D::events(connection, &ids, &keys).await?)?;
    let applied = events.iter().map(|event| batch.answer(event, now)).collect();
    if batch.is_unchanged() {
        return Ok(applied);
    }
    let moves = batch.moves()?;
    let moved = if moves.is_empty() { Vec::new() } else { D::move_points(connection, &moves).await? };
    D::write(connection, &batch.writes(&moved, now)?).await?;
    Ok(applied)
}

/// The orders and keys that these events name, each once and in order.
fn names(events: &[Event]) -> (Vec<&OrderId>, Vec<String>) {
    let ids: BTreeSet<&OrderId> = events.iter().map(|event| event.fact.order()).collect();
    let keys: BTreeSet<String> = events.iter().map(|event| event.fact.key().to_string()).collect();
    (ids.into_iter().collect(), keys.into_iter().collect())
}

/// An order with its facts; nobody else changes it before the transaction ends.
async fn lock<D: Dialect>(connection: &mut D::Connection, id: &OrderId) -> Result<Option<Order>, StoreError> {
    let orders = D::lock_orders(connection, &[id]).await?;
    let events = D::events(connection, &[id], &[]).await?;
    Ok(Batch::read(orders, events)?.into_order())
}

async fn write_order<D: Dialect>(mut transaction: Transaction<'_, D>, order: &Order) -> Result<(), StoreError> {
    let writes = Writes { orders: vec![OrderRow::of(order)], ..Writes::default() };
    D::write(&mut transaction, &writes).await?;
    Ok(transaction.commit().await?)
}

async fn bounded<T>(call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let late = |_| StoreError::Unavailable("the database did not answer in time".into());
    timeout(CALL_LIMIT, call).await.map_err(late)?
}

/// How a server is reached.
pub type Options<D> = <<D as sqlx::Database>::Connection as sqlx::Connection>::Options;

/// An address as the driver reads it.
///
/// # Errors
/// [`AddressError`].
pub(super) fn options<D: Dialect>(url: &str) -> Result<Options<D>, AddressError> {
    // The driver's log has statements; ours says what they were for.
    url.parse::<Options<D>>().map(|options| options.disable_statement_logging()).map_err(|_| AddressError)
}

/// The scripts of this program and which of them the database has; runs the missing ones first where asked to. Without
/// the store's limits in time, since a script may take long.
///
/// # Errors
/// Where the database cannot be asked, a script fails, or a later program was here.
pub(super) async fn migrations<D: Dialect>(options: Options<D>, apply: bool) -> anyhow::Result<Vec<Step>> {
    let mut connection = options.connect().await?;
    if apply {
        D::lock_schema(&mut connection).await?;
    }
    let (steps, verdict) = migrate::status(&mut connection, D::SCRIPTS).await?;
    let steps = match verdict {
        Err(SchemaError::Missing { .. } | SchemaError::Older { .. }) if apply => {
            migrate::apply(&mut connection, D::SCRIPTS).await?;
            migrate::status(&mut connection, D::SCRIPTS).await?.0
        }
        Ok(()) | Err(SchemaError::Missing { .. } | SchemaError::Older { .. }) => steps,
        Err(error) => return Err(error.into()),
    };
    connection.close().await?;
    Ok(steps)
}
