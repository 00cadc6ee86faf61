//! The trees of the embedded store and their keys.
//!
//! | tree | key | value |
//! | --- | --- | --- |
//! | `store.orders` | merchant, order number | the order |
//! | `store.facts` | event key | the order that it was recorded on |
//! | `store.accounts` | merchant, user | balance, count of entries, number of the latest |
//! | `store.ledger` | number | the entry, and the number of the account's entry before |
//! | `store.order_ledger` | merchant, order number, number | nothing |
//!
//! The parts of a key are separated by a zero byte, which no name contains; numbers are big-endian and grow. So the ledger
//! is written at its end only, however many customers pay in turns: the page that takes an entry is in memory. Values are
//! JSON.

use std::{cell::Cell, sync::Arc};

use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sled::{
    Transactional, Tree,
    transaction::{ConflictableTransactionError, TransactionError, TransactionalTree, UnabortableTransactionError},
};

use super::super::{Account, LedgerEntry, StoreError};
use crate::{
    disk::{Disk, DiskError},
    event::EventKey,
    ids::{AccountId, OrderId},
    order::Order,
};

/// The trees, for reading and for opening transactions.
#[derive(Clone)]
pub(super) struct Trees {
    all: [Tree; 5],
}

const ORDERS: usize = 0;
const FACTS: usize = 1;
const ACCOUNTS: usize = 2;
const LEDGER: usize = 3;
const ORDER_LEDGER: usize = 4;

/// What is kept of an account.
#[derive(Default, Serialize, Deserialize)]
struct Points {
    balance: i64,
    entries: u64,
    last: Option<u64>,
}

/// An entry, and its account's entry before it.
#[derive(Serialize, Deserialize)]
struct Linked {
    entry: LedgerEntry,
    before: Option<u64>,
}

impl Trees {
    pub(super) fn open(disk: &Disk) -> Result<Self, DiskError> {
        let names = ["store.orders", "store.facts", "store.accounts", "store.ledger", "store.order_ledger"];
        let [orders, facts, accounts, ledger, order_ledger] = names.map(|name| disk.tree(name));
        let trees = Self { all: [orders?, facts?, accounts?, ledger?, order_ledger?] };
        match trees.all[LEDGER].first().map_err(|error| DiskError::Failed(Arc::new(error)))? {
            // The names of the account came first.
            Some((key, _)) if key.len() != size_of::<u64>() => Err(DiskError::Earlier("ledger")),
            _ => Ok(trees),
        }
    }

    /// Runs a job that reads and writes records, all or nothing. An error undoes everything. On the database's thread, so
    /// that no two take the same numbers.
    pub(super) fn transaction<T>(&self, job: impl Fn(&Records<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let next = match self.all[LEDGER].last().map_err(unavailable)? {
            Some((key, _)) => number(&key)? + 1,
            None => 0,
        };
        let done = self.all.as_slice().transaction(|trees| {
            job(&Records { trees, next: Cell::new(next) }).map_err(ConflictableTransactionError::Abort)
        });
        done.map_err(|error| match error {
            TransactionError::Abort(error) => error,
            TransactionError::Storage(error) => unavailable(error),
        })
    }

    pub(super) fn order(&self, id: &OrderId) -> Result<Option<Order>, StoreError> {
        self.get(ORDERS, &order_key(id))
    }

    pub(super) fn order_of_fact(&self, key: &EventKey) -> Result<Option<OrderId>, StoreError> {
        self.get(FACTS, key.as_str().as_bytes())
    }

    /// Its latest entries, newest first.
    pub(super) fn account(&self, id: &AccountId, limit: usize) -> Result<Option<Account>, StoreError> {
        let Some(Points { balance, last: mut next, .. }) = self.get(ACCOUNTS, &account_key(id))? else {
            return Ok(None);
        };
        let mut entries = Vec::new();
        while entries.len() < limit
            && let Some(number) = next
        {
            let linked = self.entry(number)?;
            entries.push(linked.entry);
            next = linked.before;
        }
        Ok(Some(Account { balance, entries }))
    }

    /// Oldest first.
    pub(super) fn entries_of_order(&self, id: &OrderId) -> Result<Vec<LedgerEntry>, StoreError> {
        let keys = self.all[ORDER_LEDGER].scan_prefix([&order_key(id)[..], b"\0"].concat()).keys();
        keys.map(|key| Ok(self.entry(number(&key.map_err(unavailable)?)?)?.entry)).collect()
    }

    fn entry(&self, number: u64) -> Result<Linked, StoreError> {
        self.get(LEDGER, &number.to_be_bytes())?.ok_or_else(|| corrupt("a ledger entry is missing"))
    }

    fn get<T: DeserializeOwned>(&self, tree: usize, key: &[u8]) -> Result<Option<T>, StoreError> {
        self.all[tree].get(key).map_err(unavailable)?.map(|bytes| read(&bytes)).transpose()
    }
}

/// The records inside a transaction: it sees its own writes.
pub(super) struct Records<'a> {
    trees: &'a [TransactionalTree],
    /// The number of the next ledger entry.
    next: Cell<u64>,
}

impl Records<'_> {
    pub(super) fn order(&self, id: &OrderId) -> Result<Option<Order>, StoreError> {
        self.get(ORDERS, &order_key(id))
    }

    pub(super) fn put_order(&self, order: &Order) -> Result<(), StoreError> {
        self.put(ORDERS, &order_key(&order.registration.id), order)
    }

    pub(super) fn order_of_fact(&self, key: &EventKey) -> Result<Option<OrderId>, StoreError> {
        self.get(FACTS, key.as_str().as_bytes())
    }

    pub(super) fn put_fact(&self, key: &EventKey, order: &OrderId) -> Result<(), StoreError> {
        self.put(FACTS, key.as_str().as_bytes(), order)
    }

    /// Moves points on an account and says so in the ledger.
    pub(super) fn add_entry(
        &self,
        account: AccountId,
        order: &OrderId,
        event: EventKey,
        points: i64,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let key = account_key(&account);
        let Points { balance, entries, last } = self.get(ACCOUNTS, &key)?.unwrap_or_default();
        // Only this event meets the bound, so it must not look like a fault of the whole store.
        let overflow = || StoreError::Transient("the balance of the account would exceed its range".into());
        let balance = balance.checked_add(points).ok_or_else(overflow)?;
        let number = self.next.replace(self.next.get() + 1);
        self.put(ACCOUNTS, &key, &Points { balance, entries: entries + 1, last: Some(number) })?;
        let of_order = [&order_key(order)[..], b"\0", &number.to_be_bytes()].concat();
        self.trees[ORDER_LEDGER].insert(of_order, &[]).map_err(transaction_failed)?;
        let entry = LedgerEntry { account, order: order.clone(), event, points, balance, at };
        self.put(LEDGER, &number.to_be_bytes(), &Linked { entry, before: last })
    }

    fn get<T: DeserializeOwned>(&self, tree: usize, key: &[u8]) -> Result<Option<T>, StoreError> {
        self.trees[tree].get(key).map_err(transaction_failed)?.map(|bytes| read(&bytes)).transpose()
    }

    fn put<T: Serialize>(&self, tree: usize, key: &[u8], value: &T) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(value).expect("records are text and numbers, which always become JSON");
        self.trees[tree].insert(key, bytes).map(drop).map_err(transaction_failed)
    }
}

fn order_key(id: &OrderId) -> Vec<u8> {
    [id.merchant.as_str(), id.out_trade_no.as_str()].join("\0").into_bytes()
}

fn account_key(id: &AccountId) -> Vec<u8> {
    [id.merchant.as_str(), id.user.as_str()].join("\0").into_bytes()
}

/// The number that a key ends with.
pub(super) fn number(key: &[u8]) -> Result<u64, StoreError> {
    let number = key.last_chunk::<8>().ok_or_else(|| corrupt("a key without a number"))?;
    Ok(u64::from_be_bytes(*number))
}

pub(super) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|error| StoreError::Corrupt(Box::new(error)))
}

pub(super) fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt(what.into())
}

pub(super) fn unavailable(error: sled::Error) -> StoreError {
    match error {
        sled::Error::Corruption { .. } | sled::Error::CollectionNotFound(_) => StoreError::Corrupt(Box::new(error)),
        sled::Error::Io(_) | sled::Error::Unsupported(_) | sled::Error::ReportableBug(_) => {
            StoreError::Unavailable(Box::new(error))
        }
    }
}

fn transaction_failed(error: UnabortableTransactionError) -> StoreError {
    match error {
        UnabortableTransactionError::Storage(error) => unavailable(error),
        UnabortableTransactionError::Conflict => StoreError::Transient(Box::new(error)),
    }
}
