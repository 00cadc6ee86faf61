//! Looking at the dead letters: the list, one of them with everything, the audit record, and how many messages are where.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::StatusCode,
};
use jiff::Timestamp;
use serde::Deserialize;
use wxpay_shared::{
    admin::{DeadLetterList, DeadLetterView, PAGE, PAGE_MAX, Selection},
    envelope::Message,
    ids::{MerchantName, NotificationId, OrderId, OutTradeNo},
    queue::Depths,
    reason::Reason,
    store::audit::{AuditEntry, AuditQuery},
};

use super::{
    Answer, Failure,
    select::{Filter, reason},
    to_its_end,
};
use crate::Worker;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    reason: Option<Reason>,
    merchant: Option<MerchantName>,
    order: Option<String>,
    received_before: Option<Timestamp>,
    received_after: Option<Timestamp>,
    limit: Option<usize>,
    page: Option<String>,
}

pub(super) async fn list(
    State(worker): State<Arc<Worker>>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Answer<Json<DeadLetterList>> {
    let Query(query) = query?;
    let limit = query.limit.unwrap_or(PAGE).min(PAGE_MAX);
    let after = query.page.as_deref().map(Place::parse).transpose()?;
    let select = Selection {
        reason: query.reason,
        merchant: query.merchant,
        order: query.order.as_deref().map(order).transpose()?,
        received_before: query.received_before,
        received_after: query.received_after,
        ..Selection::default()
    };
    to_its_end(async move { find(&worker, &select, after.as_ref(), limit).await.map(Json) }).await
}

async fn find(worker: &Arc<Worker>, select: &Selection, after: Option<&Place>, limit: usize) -> Answer<DeadLetterList> {
    let merchants = worker.parts.merchants.now();
    let filter = Filter { select, merchants: &merchants };
    let mut list = DeadLetterList { dead_letters: Vec::new(), matching: 0, by_reason: BTreeMap::new(), next: None };
    // What a reader left behind comes back in any order; a person wants the oldest first. Only a page of them is kept.
    let mut page: BTreeMap<(Place, usize), Message> = BTreeMap::new();
    let mut reading = worker.read_dead_letters().await?;
    let reading_all = async {
        while let Some(letter) = reading.next().await? {
            let message = letter.message;
            *list.by_reason.entry(reason(&message).code().to_owned()).or_default() += 1;
            if filter.matches(&message) {
                list.matching += 1;
                let place = Place(message.claimed_received_at(), message.id.clone());
                if after.is_none_or(|after| place > *after) {
                    page.insert((place, list.matching), message);
                    if page.len() > limit + 1 {
                        page.pop_last();
                    }
                }
            }
        }
        Ok::<_, Failure>(())
    };
    let read = reading_all.await;
    reading.close().await;
    read?;
    if page.len() > limit {
        page.pop_last();
        list.next = page.last_key_value().map(|((place, _), _)| place.to_string());
    }
    list.dead_letters = page.values().map(|message| worker.short_view(message, &merchants)).collect();
    Ok(list)
}

/// Where a dead letter stands in the list: by the time at which ingress received it, and its id.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Place(Option<Timestamp>, NotificationId);

impl Place {
    fn parse(text: &str) -> Answer<Self> {
        let parsed = text.split_once('~').and_then(|(at, id)| {
            let at = if at.is_empty() { None } else { Some(at.parse().ok()?) };
            Some(Self(at, NotificationId::parse(id).ok()?))
        });
        let bad = "page: expected what the page before said as `next`";
        parsed.ok_or_else(|| Failure::new(StatusCode::UNPROCESSABLE_ENTITY, bad))
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = self.0.map(|at| at.to_string()).unwrap_or_default();
        write!(f, "{at}~{}", self.1)
    }
}

fn order(text: &str) -> Answer<OrderId> {
    let bad = || Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "order: expected merchant/out_trade_no");
    let (merchant, out_trade_no) = text.split_once('/').ok_or_else(bad)?;
    Ok(OrderId { merchant: MerchantName::parse(merchant)?, out_trade_no: OutTradeNo::parse(out_trade_no)? })
}

pub(super) async fn show(State(worker): State<Arc<Worker>>, Path(id): Path<String>) -> Answer<Json<DeadLetterView>> {
    let id = NotificationId::parse(&id)?;
    to_its_end(async move {
        let mut reading = worker.read_dead_letters().await?;
        let found = async {
            while let Some(letter) = reading.next().await? {
                if letter.message.id == id {
                    return Ok(Some(letter.message));
                }
            }
            Ok::<_, Failure>(None)
        };
        let found = found.await;
        reading.close().await;
        match found? {
            Some(message) => Ok(Json(worker.whole_view(&message, &worker.parts.merchants.now()).await)),
            None => Err(Failure::new(StatusCode::NOT_FOUND, format!("there is no dead letter {id}"))),
        }
    })
    .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditParameters {
    notification: Option<NotificationId>,
    since: Option<Timestamp>,
    limit: Option<usize>,
}

pub(super) async fn audit(
    State(worker): State<Arc<Worker>>,
    query: Result<Query<AuditParameters>, QueryRejection>,
) -> Answer<Json<Vec<AuditEntry>>> {
    let Query(AuditParameters { notification, since, limit }) = query?;
    // Two lines an action.
    let limit = limit.unwrap_or(PAGE).min(PAGE_MAX) * 2;
    let lines = worker.parts.store.audit(&AuditQuery { notification, since, limit }).await?;
    Ok(Json(AuditEntry::fold(lines)))
}

pub(super) async fn depths(State(worker): State<Arc<Worker>>) -> Answer<Json<Depths>> {
    Ok(Json(worker.parts.dead_letters.depths().await?))
}
