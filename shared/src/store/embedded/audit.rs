//! The audit record on sled.
//!
//! | tree | key | value |
//! | --- | --- | --- |
//! | `store.audit` | number | the line, as JSON |
//! | `store.audit_of` | notification, number | nothing |
//!
//! Numbers are big-endian and grow, so the lines lie in the order in which they were written.

use sled::{
    Transactional as _, Tree,
    transaction::{ConflictableTransactionError, TransactionError},
};

use super::{
    super::{
        StoreError,
        audit::{AuditLine, AuditQuery},
    },
    records::{corrupt, number, read, unavailable},
};
use crate::disk::{Disk, DiskError};

#[derive(Clone)]
pub(super) struct AuditRecord {
    lines: Tree,
    of_notification: Tree,
}

impl AuditRecord {
    pub(super) fn open(disk: &Disk) -> Result<Self, DiskError> {
        Ok(Self { lines: disk.tree("store.audit")?, of_notification: disk.tree("store.audit_of")? })
    }

    /// Runs on the database's thread, so that no two take the same numbers.
    pub(super) fn append(&self, lines: &[AuditLine]) -> Result<(), StoreError> {
        let first = match self.lines.last().map_err(unavailable)? {
            Some((key, _)) => number(&key)? + 1,
            None => 0,
        };
        let numbered: Vec<_> = (first..).zip(lines).collect();
        let appended = (&self.lines, &self.of_notification).transaction(|(all, index)| {
            for (number, line) in &numbered {
                let value = serde_json::to_vec(line).expect("lines are text and times, which always become JSON");
                all.insert(&number.to_be_bytes(), value)?;
                index.insert([line.notification.as_str().as_bytes(), b"\0", &number.to_be_bytes()].concat(), &[])?;
            }
            Ok::<_, ConflictableTransactionError<()>>(())
        });
        appended.map_err(|error| match error {
            TransactionError::Storage(error) => unavailable(error),
            TransactionError::Abort(()) => unreachable!("nothing here aborts"),
        })
    }

    pub(super) fn read(&self, query: &AuditQuery) -> Result<Vec<AuditLine>, StoreError> {
        // From the latest back: what is asked for is nearly always there.
        let newest_first: Box<dyn Iterator<Item = Result<AuditLine, StoreError>>> = match &query.notification {
            Some(id) => {
                let keys = self.of_notification.scan_prefix([id.as_str().as_bytes(), b"\0"].concat()).keys().rev();
                Box::new(keys.map(|key| self.line(number(&key.map_err(unavailable)?)?)))
            }
            None => Box::new(self.lines.iter().values().rev().map(|value| read(&value.map_err(unavailable)?))),
        };
        let mut found = Vec::new();
        for line in newest_first.take(query.limit) {
            let line = line?;
            if query.since.is_some_and(|since| line.at < since) {
                break;
            }
            found.push(line);
        }
        found.reverse();
        Ok(found)
    }

    fn line(&self, number: u64) -> Result<AuditLine, StoreError> {
        let value = self.lines.get(number.to_be_bytes()).map_err(unavailable)?;
        read(&value.ok_or_else(|| corrupt("a line of the audit record is missing"))?)
    }
}
