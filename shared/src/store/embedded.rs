//! The store's home on sled, for one process.
//!
//! Every call is a job on the database's thread ([`crate::disk`]): jobs run one at a time, so a batch sees and leaves a
//! consistent state, and each answer, a duplicate's too, is given only when all that it rests on is on disk. A batch is
//! one transaction over all trees (`records`); the rule of [`crate::order`] runs inside it. A batch of repeats needs none,
//! and nothing is flushed for it.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;

use self::{
    audit::AuditRecord,
    records::{Records, Trees},
};
use super::{
    Account, Announced, Applied, Closed, LedgerEntry, Registered, Store, StoreError,
    answer::answer,
    audit::{AuditLine, AuditQuery},
    seen::Seen,
};
use crate::{
    clock::Clock,
    disk::{Disk, DiskError},
    event::Event,
    fen::Fen,
    ids::{AccountId, OrderId, OutRefundNo},
    order::{Change, Order, Registration},
};

mod audit;
mod records;

/// The store; clones share it.
#[derive(Clone)]
pub struct EmbeddedStore {
    disk: Disk,
    trees: Trees,
    audit: AuditRecord,
    clock: Arc<dyn Clock>,
}

impl EmbeddedStore {
    /// The store in an open database.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn open(disk: Disk, clock: Arc<dyn Clock>) -> Result<Self, DiskError> {
        Ok(Self { trees: Trees::open(&disk)?, audit: AuditRecord::open(&disk)?, disk, clock })
    }

    /// A job that writes.
    async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Trees) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let trees = self.trees.clone();
        self.disk.commit(move || job(&trees)).await?
    }

    /// A job that writes nothing.
    async fn read<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Trees) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let trees = self.trees.clone();
        self.disk.look(move || job(&trees)).await?
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn apply(&self, events: &[Event]) -> Result<Vec<Applied>, StoreError> {
        let (trees, events, now) = (self.trees.clone(), events.to_vec(), self.clock.now());
        let decided = self.disk.commit_if_written(move || match repeats(&trees, &events).transpose() {
            Some(answers) => (answers, false),
            None => (apply_all(&trees, &events, now), true),
        });
        decided.await?
    }

    async fn look(&self, events: &[Event]) -> Result<Seen, StoreError> {
        let events = events.to_vec();
        self.read(move |trees| {
            let mut seen = Seen::default();
            for event in &events {
                let (id, key) = (event.fact.order(), event.fact.key());
                seen.orders.extend(trees.order(id)?.map(|order| (id.clone(), order)));
                seen.recorded_on.extend(trees.order_of_fact(&key)?.map(|id| (key, id)));
            }
            Ok(seen)
        })
        .await
    }

    async fn write_audit(&self, lines: &[AuditLine]) -> Result<(), StoreError> {
        let (record, lines) = (self.audit.clone(), lines.to_vec());
        self.disk.commit(move || record.append(&lines)).await?
    }

    async fn audit(&self, query: &AuditQuery) -> Result<Vec<AuditLine>, StoreError> {
        let (record, query) = (self.audit.clone(), query.clone());
        self.disk.run(move || record.read(&query)).await?
    }

    async fn register(&self, registration: &Registration) -> Result<Registered, StoreError> {
        let (registration, now) = (registration.clone(), self.clock.now());
        self.write(move |trees| {
            trees.transaction(|records| match records.order(&registration.id)? {
                Some(order) if order.registration == registration => Ok(Registered::Known(order)),
                Some(order) => Ok(Registered::Conflict(order)),
                None => {
                    let order = Order::new(registration.clone(), now);
                    records.put_order(&order)?;
                    Ok(Registered::Fresh(order))
                }
            })
        })
        .await
    }

    async fn close(&self, id: &OrderId) -> Result<Closed, StoreError> {
        let (id, now) = (id.clone(), self.clock.now());
        self.write(move |trees| {
            trees.transaction(|records| {
                let Some(order) = records.order(&id)? else { return Ok(Closed::Unknown) };
                let Some(closed) = order.close(now) else { return Ok(Closed::Paid(order)) };
                records.put_order(&closed)?;
                Ok(Closed::Closed(closed))
            })
        })
        .await
    }

    async fn announce_refund(
        &self,
        id: &OrderId,
        out_refund_no: &OutRefundNo,
        amount: Fen,
    ) -> Result<Announced, StoreError> {
        let (id, out_refund_no) = (id.clone(), out_refund_no.clone());
        self.write(move |trees| {
            trees.transaction(|records| {
                let Some(order) = records.order(&id)? else { return Ok(Announced::Unknown) };
                match order.announce_refund(&out_refund_no, amount) {
                    Err(known) => Ok(Announced::Conflict(known)),
                    Ok(order) => {
                        records.put_order(&order)?;
                        Ok(Announced::Announced)
                    }
                }
            })
        })
        .await
    }

    async fn order(&self, id: &OrderId) -> Result<Option<(Order, Vec<LedgerEntry>)>, StoreError> {
        let id = id.clone();
        self.read(move |trees| {
            let Some(order) = trees.order(&id)? else { return Ok(None) };
            Ok(Some((order, trees.entries_of_order(&id)?)))
        })
        .await
    }

    async fn account(&self, id: &AccountId, limit: usize) -> Result<Option<Account>, StoreError> {
        let id = id.clone();
        self.read(move |trees| trees.account(&id, limit)).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(self.disk.durable().await?)
    }
}

/// The answers to events that their orders know and that change nothing, as repeats do; `None` where there is another.
fn repeats(trees: &Trees, events: &[Event]) -> Result<Option<Vec<Applied>>, StoreError> {
    let mut answers = Vec::with_capacity(events.len());
    for event in events {
        let id = event.fact.order();
        let Some(order) = trees.order(id)?.filter(|order| order.facts.contains_key(&event.fact.key())) else {
            return Ok(None);
        };
        let (answer, None) = answer(event, Some(&order), Some(id)) else { return Ok(None) };
        answers.push(answer);
    }
    Ok(Some(answers))
}

fn apply_all(trees: &Trees, events: &[Event], now: Timestamp) -> Result<Vec<Applied>, StoreError> {
    trees.transaction(|records| events.iter().map(|event| apply_one(records, event, now)).collect())
}

fn apply_one(records: &Records<'_>, event: &Event, now: Timestamp) -> Result<Applied, StoreError> {
    let (order, key) = (records.order(event.fact.order())?, event.fact.key());
    let recorded_on = records.order_of_fact(&key)?;
    let (applied, change) = answer(event, order.as_ref(), recorded_on.as_ref());
    if let Some(Change { order, entry }) = change {
        let id = &order.registration.id;
        records.put_order(&order)?;
        records.put_fact(&key, id)?;
        if let Some(entry) = entry {
            let account = AccountId { merchant: id.merchant.clone(), user: entry.user };
            records.add_entry(account, id, key, entry.points, now)?;
        }
    }
    Ok(applied)
}

impl From<DiskError> for StoreError {
    fn from(error: DiskError) -> Self {
        match error {
            DiskError::Closed | DiskError::Failed(_) | DiskError::Stuck | DiskError::Earlier(_) => {
                Self::Unavailable(Box::new(error))
            }
            // Whatever made the job panic need not be in the next one.
            DiskError::Panicked => Self::Transient(Box::new(error)),
        }
    }
}
