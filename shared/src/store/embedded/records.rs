//! The trees of the embedded store and their keys.
//!
//! | tree | key | value |
//! | --- | --- | --- |
//! | `store.orders` | merchant, order number | the order |
//! | `store.facts` | event key | the order that it was recorded on |
//! | `store.accounts` | merchant, user | balance, number of entries |
//! | `store.ledger` | merchant, user, number | the entry |
//! | `store.order_ledger` | merchant, order number, number | the account of the entry |
//!
//! The parts of a key are separated by a zero byte, which no name contains; numbers are big-endian, so the entries of an
//! account or an order lie side by side in their order. Values are JSON.

use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sled::{
    Transactional, Tree,
    transaction::{ConflictableTransactionError, TransactionError, TransactionalTree, UnabortableTransactionError},
};

use super::super::{LedgerEntry, StoreError};
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

#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Balance {
    balance: i64,
    entries: u64,
}

impl Trees {
    pub(super) fn open(disk: &Disk) -> Result<Self, DiskError> {
        let names = ["store.orders", "store.facts", "store.accounts", "store.ledger", "store.order_ledger"];
        let [orders, facts, accounts, ledger, order_ledger] = names.map(|name| disk.tree(name));
        Ok(Self { all: [orders?, facts?, accounts?, ledger?, order_ledger?] })
    }

    /// Runs a job that reads and writes records, all or nothing. An error undoes everything.
    pub(super) fn transaction<T>(&self, job: impl Fn(&Records<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let done = self
            .all
            .as_slice()
            .transaction(|trees| job(&Records { trees }).map_err(ConflictableTransactionError::Abort));
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

    pub(super) fn balance(&self, id: &AccountId) -> Result<Option<i64>, StoreError> {
        Ok(self.get::<Balance>(ACCOUNTS, &account_key(id))?.map(|account| account.balance))
    }

    /// Newest first.
    pub(super) fn latest_of_account(&self, id: &AccountId, limit: usize) -> Result<Vec<LedgerEntry>, StoreError> {
        let entries = self.all[LEDGER].scan_prefix(group(&account_key(id))).rev().take(limit);
        entries.map(|entry| read(&entry.map_err(unavailable)?.1)).collect()
    }

    /// Oldest first.
    pub(super) fn entries_of_order(&self, id: &OrderId) -> Result<Vec<LedgerEntry>, StoreError> {
        let index = self.all[ORDER_LEDGER].scan_prefix(group(&order_key(id)));
        index
            .map(|pointer| {
                let (key, account) = pointer.map_err(unavailable)?;
                let (_, number) = key.split_last_chunk::<8>().ok_or_else(|| corrupt("a key without a number"))?;
                let account: AccountId = read(&account)?;
                let entry = self.get(LEDGER, &numbered(&account_key(&account), u64::from_be_bytes(*number)))?;
                entry.ok_or_else(|| corrupt("an order's ledger entry is missing"))
            })
            .collect()
    }

    fn get<T: DeserializeOwned>(&self, tree: usize, key: &[u8]) -> Result<Option<T>, StoreError> {
        self.all[tree].get(key).map_err(unavailable)?.map(|bytes| read(&bytes)).transpose()
    }
}

/// The records inside a transaction: it sees its own writes.
pub(super) struct Records<'a> {
    trees: &'a [TransactionalTree],
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
        let Balance { balance, entries } = self.get(ACCOUNTS, &key)?.unwrap_or_default();
        // Only this event meets the bound, so it must not look like a fault of the whole store.
        let overflow = || StoreError::Transient("the balance of the account would exceed its range".into());
        let balance = balance.checked_add(points).ok_or_else(overflow)?;
        self.put(ACCOUNTS, &key, &Balance { balance, entries: entries + 1 })?;
        self.put(ORDER_LEDGER, &numbered(&order_key(order), entries), &account)?;
        let entry = LedgerEntry { account, order: order.clone(), event, points, balance, at };
        self.put(LEDGER, &numbered(&key, entries), &entry)
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

/// What all numbered keys of one account or order begin with.
fn group(key: &[u8]) -> Vec<u8> {
    [key, b"\0"].concat()
}

fn numbered(key: &[u8], number: u64) -> Vec<u8> {
    [key, b"\0", &number.to_be_bytes()].concat()
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
