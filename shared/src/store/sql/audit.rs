//! The audit record's rows: `wxpay_audit`, fields named like columns.

use serde::Serialize;
use sqlx::FromRow;

use super::{
    super::{
        StoreError,
        audit::{Action, AuditLine, AuditQuery},
    },
    rows::{corrupt, moment, written},
};
use crate::ids::NotificationId;

/// A line.
#[derive(Clone, Debug, FromRow, Serialize)]
pub struct AuditRow {
    pub(super) recorded_at: String,
    pub(super) request: String,
    pub(super) action: String,
    pub(super) notification: String,
    pub(super) done_by: String,
    pub(super) why: String,
    pub(super) orders: String,
    pub(super) reason: String,
    pub(super) result: Option<String>,
    pub(super) detail: String,
}

/// Which lines, as values to bind.
#[derive(Clone, Debug)]
pub struct AuditFilter {
    pub(super) notification: Option<String>,
    pub(super) since: Option<String>,
    pub(super) limit: i64,
}

impl AuditFilter {
    pub(super) fn of(query: &AuditQuery) -> Self {
        Self {
            notification: query.notification.as_ref().map(ToString::to_string),
            since: query.since.map(written),
            limit: i64::try_from(query.limit).unwrap_or(i64::MAX),
        }
    }
}

impl AuditRow {
    pub(super) fn of(line: &AuditLine) -> Self {
        Self {
            recorded_at: written(line.at),
            request: line.request.to_string(),
            action: line.action.code().to_owned(),
            notification: line.notification.to_string(),
            done_by: line.by.clone(),
            why: line.why.clone(),
            orders: line.orders.clone(),
            reason: line.reason.to_string(),
            result: line.result.clone(),
            detail: line.detail.clone(),
        }
    }

    pub(super) fn read(self) -> Result<AuditLine, StoreError> {
        Ok(AuditLine {
            at: moment(&self.recorded_at)?,
            request: NotificationId::parse(&self.request).map_err(corrupt)?,
            action: Action::of(&self.action).ok_or_else(|| corrupt("an action that this program does not know"))?,
            notification: NotificationId::parse(&self.notification).map_err(corrupt)?,
            by: self.done_by,
            why: self.why,
            orders: self.orders,
            reason: self.reason.parse().map_err(corrupt)?,
            result: self.result,
            detail: self.detail,
        })
    }
}
