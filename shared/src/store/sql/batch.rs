//! A batch in memory: the orders and facts that were read under lock, the answers, and what they write. No I/O.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{
    super::{Applied, StoreError, seen::Seen},
    rows::{AccountRow, EventRow, LedgerRow, OrderRow, Writes, written},
};
use crate::{
    event::{Event, EventKey},
    ids::{AccountId, OrderId},
    order::{Change, Order},
};

/// Orders with their facts, as they are and as the answers change them.
pub(super) struct Batch {
    seen: Seen,
    changed: BTreeSet<OrderId>,
    fresh: Vec<EventRow>,
    moves: Vec<Move>,
}

struct Move {
    account: AccountId,
    order: OrderId,
    event: EventKey,
    points: i64,
}

impl Batch {
    /// What was read: the orders, their events, and the events of other orders that have a key of the batch.
    pub(super) fn read(orders: Vec<OrderRow>, events: Vec<EventRow>) -> Result<Self, StoreError> {
        let read = |row: OrderRow| row.read().map(|order| (order.registration.id.clone(), order));
        let mut orders = orders.into_iter().map(read).collect::<Result<BTreeMap<_, _>, _>>()?;
        let mut recorded_on = BTreeMap::new();
        for row in events {
            let (key, id, recorded) = row.read()?;
            if let Some(order) = orders.get_mut(&id) {
                order.facts.insert(key.clone(), recorded);
            }
            recorded_on.insert(key, id);
        }
        Ok(Self { seen: Seen { orders, recorded_on }, changed: BTreeSet::new(), fresh: Vec::new(), moves: Vec::new() })
    }

    /// The order, for whoever asked for one only.
    pub(super) fn into_order(self) -> Option<Order> {
        self.seen.orders.into_values().next()
    }

    /// What was read.
    pub(super) fn into_seen(self) -> Seen {
        self.seen
    }

    /// The answer to an event. Later ones see what it changes.
    pub(super) fn answer(&mut self, event: &Event, now: Timestamp) -> Applied {
        let (id, key) = (event.fact.order(), event.fact.key());
        let (applied, change) = self.seen.answer(event);
        if let Some(Change { order, entry }) = change {
            let recorded = order.facts.get(&key).expect("a change records the fact");
            self.fresh.push(EventRow::of(&key, recorded, now));
            if let Some(entry) = entry {
                let account = AccountId { merchant: id.merchant.clone(), user: entry.user };
                self.moves.push(Move { account, order: id.clone(), event: key, points: entry.points });
            }
            self.changed.insert(id.clone());
        }
        applied
    }

    pub(super) fn is_unchanged(&self) -> bool {
        self.changed.is_empty()
    }

    /// What is to be added to each account, in key order.
    pub(super) fn moves(&self) -> Result<Vec<AccountRow>, StoreError> {
        let mut sums: BTreeMap<&AccountId, (i64, i64)> = BTreeMap::new();
        for Move { account, points, .. } in &self.moves {
            let (sum, entries) = sums.entry(account).or_default();
            *sum = sum.checked_add(*points).ok_or_else(out_of_range)?;
            *entries += 1;
        }
        let row = |(account, (balance, entries)): (&AccountId, _)| AccountRow {
            merchant: account.merchant.to_string(),
            user_id: account.user.as_str().to_owned(),
            balance,
            entries,
        };
        Ok(sums.into_iter().map(row).collect())
    }

    /// What is to be written, given the accounts as they are after the moves.
    pub(super) fn writes(self, moved: &[AccountRow], now: Timestamp) -> Result<Writes, StoreError> {
        let mut ledger: Vec<LedgerRow> = Vec::with_capacity(self.moves.len());
        let mut ends: BTreeMap<(&str, &str), (i64, i64)> = moved
            .iter()
            .map(|row| ((row.merchant.as_str(), row.user_id.as_str()), (row.balance, row.entries)))
            .collect();
        // From the last move to the first: each ends where the one after it begins.
        for Move { account, order, event, points } in self.moves.iter().rev() {
            let end = ends.get_mut(&(account.merchant.as_str(), account.user.as_str()));
            let (balance, seq) = end.ok_or_else(|| StoreError::Transient("a moved account is missing".into()))?;
            ledger.push(LedgerRow {
                merchant: account.merchant.to_string(),
                user_id: account.user.as_str().to_owned(),
                seq: *seq,
                out_trade_no: order.out_trade_no.to_string(),
                event_key: event.to_string(),
                points: *points,
                balance: *balance,
                recorded_at: written(now),
            });
            *balance = balance.checked_sub(*points).ok_or_else(out_of_range)?;
            *seq -= 1;
        }
        ledger.reverse();
        let orders = self.changed.iter().filter_map(|id| self.seen.orders.get(id)).map(OrderRow::of).collect();
        Ok(Writes { orders, events: self.fresh, ledger })
    }
}

/// Only this batch meets the bound, so it must not look like a fault of the whole store.
fn out_of_range() -> StoreError {
    StoreError::Transient("the balance of the account would exceed its range".into())
}
