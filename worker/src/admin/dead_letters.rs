//! The dead-letter desk: list, show, replay, discard.
//!
//! A replay is the worker's own flow over a dead letter, attempts counted anew: what comes back is what really happened
//! to each, and the dead letter goes only after that is durable. Whoever stops it half-way starts it again.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{Path, Query, State, rejection::JsonRejection},
    http::StatusCode,
};
use serde::Deserialize;
use wxpay_shared::{
    admin::{
        DeadLetterList, DeadLetterView, Discard, Discarded, PAGE, PAGE_MAX, Replay, ReplayOutcome, ReplayResult,
        Replayed, Selection,
    },
    envelope::{Log, Message},
    ids::{MerchantName, NotificationId},
    queue::{Delivery, Depths, Desk, Home},
    reason::{Reason, Rejection},
    wechat::v2_xml,
};

use super::{Answer, Failure};
use crate::{Worker, settle::Ending};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    reason: Option<Reason>,
    merchant: Option<MerchantName>,
    limit: Option<usize>,
}

pub(super) async fn list(
    State(worker): State<Arc<Worker>>,
    Query(query): Query<ListQuery>,
) -> Answer<Json<DeadLetterList>> {
    let limit = query.limit.unwrap_or(PAGE).min(PAGE_MAX);
    let select = Selection { reason: query.reason, merchant: query.merchant, all: true, ..Selection::default() };
    let mut list = DeadLetterList { dead_letters: Vec::new(), matching: 0, by_reason: BTreeMap::new() };
    let mut desk = worker.parts.dead_letters.open().await?;
    while let Some(delivery) = desk.next().await? {
        *list.by_reason.entry(reason(&delivery.message).code().to_owned()).or_default() += 1;
        if matches(&select, &delivery.message) {
            list.matching += 1;
            if list.dead_letters.len() < PAGE_MAX {
                list.dead_letters.push(view(&delivery.message, false));
            }
        }
    }
    desk.close().await;
    // What a reader left behind comes back in any order; a person wants the oldest first. Ids sort by time.
    list.dead_letters.sort_by(|left, right| (left.received_at, &left.id).cmp(&(right.received_at, &right.id)));
    list.dead_letters.truncate(limit);
    Ok(Json(list))
}

pub(super) async fn show(State(worker): State<Arc<Worker>>, Path(id): Path<String>) -> Answer<Json<DeadLetterView>> {
    let id = NotificationId::parse(&id)?;
    let mut desk = worker.parts.dead_letters.open().await?;
    let mut found = None;
    while let Some(delivery) = desk.next().await? {
        if delivery.message.id == id {
            found = Some(view(&delivery.message, true));
            break;
        }
    }
    desk.close().await;
    found.map(Json).ok_or_else(|| Failure::new(StatusCode::NOT_FOUND, format!("there is no dead letter {id}")))
}

pub(super) async fn replay(
    State(worker): State<Arc<Worker>>,
    body: Result<Json<Replay>, JsonRejection>,
) -> Answer<Json<Replayed>> {
    let Json(request) = body?;
    selective(&request.select)?;
    let limit = request.limit.unwrap_or(PAGE).min(PAGE_MAX);
    let mut replayed = Replayed { results: Vec::new(), left: 0 };
    let mut desk = worker.parts.dead_letters.open().await?;
    while let Some(delivery) = desk.next().await? {
        if !matches(&request.select, &delivery.message) {
            continue;
        }
        if replayed.results.len() == limit {
            replayed.left += 1;
            continue;
        }
        let result = replay_one(&worker, desk.as_ref(), delivery).await;
        tracing::info!(notification = %result.id, outcome = ?result.outcome, detail = result.detail, "replayed");
        replayed.results.push(result);
    }
    desk.close().await;
    Ok(Json(replayed))
}

async fn replay_one(worker: &Worker, desk: &dyn Desk, mut delivery: Delivery) -> ReplayResult {
    let id = delivery.message.id.clone();
    let failed = |detail: String| ReplayResult { id: id.clone(), outcome: ReplayOutcome::Failed, detail };
    delivery.message.log = Log { history: delivery.message.log.history, ..Log::default() };
    let ending = match worker.fenced(std::slice::from_ref(&delivery)).await {
        Ok(mut endings) => endings.pop().expect("one ending for one delivery"),
        Err(error) => return failed(error.to_string()),
    };
    let next = worker.next_home(&mut delivery, &ending);
    let moved = match next {
        None => desk.ack(&[delivery.ticket]).await,
        Some(home) => desk.park(&delivery, home).await,
    };
    if let Err(error) = moved {
        return failed(error.to_string());
    }
    let (outcome, detail) = match ending {
        Ending::Applied => (ReplayOutcome::Applied, String::new()),
        Ending::Duplicate => (ReplayOutcome::AlreadyApplied, String::new()),
        Ending::Ignored => (ReplayOutcome::Ignored, String::new()),
        Ending::Retry(rejection) if matches!(next, Some(Home::Retry(_))) => {
            (ReplayOutcome::Waiting, rejection.to_string())
        }
        Ending::Retry(rejection) | Ending::Dead(rejection) => (ReplayOutcome::DeadAgain, rejection.to_string()),
    };
    ReplayResult { id, outcome, detail }
}

pub(super) async fn discard(
    State(worker): State<Arc<Worker>>,
    body: Result<Json<Discard>, JsonRejection>,
) -> Answer<Json<Discarded>> {
    let Json(request) = body?;
    selective(&request.select)?;
    if request.reason.trim().is_empty() {
        return Err(Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "reason: say why they may go"));
    }
    let mut discarded = Discarded { ids: Vec::new() };
    let mut desk = worker.parts.dead_letters.open().await?;
    while let Some(delivery) = desk.next().await? {
        if matches(&request.select, &delivery.message) {
            desk.ack(&[delivery.ticket]).await?;
            let dead_for = reason(&delivery.message).code();
            tracing::warn!(notification = %delivery.message.id, dead_for, why = request.reason, "discarded a dead letter");
            discarded.ids.push(delivery.message.id);
        }
    }
    desk.close().await;
    Ok(Json(discarded))
}

pub(super) async fn depths(State(worker): State<Arc<Worker>>) -> Answer<Json<Depths>> {
    Ok(Json(worker.parts.dead_letters.depths().await?))
}

/// A selection that names nothing would take everything by accident.
fn selective(select: &Selection) -> Answer<()> {
    if *select == Selection::default() {
        let problem = "select: name ids, a reason, a merchant, or all";
        return Err(Failure::new(StatusCode::UNPROCESSABLE_ENTITY, problem));
    }
    Ok(())
}

fn matches(select: &Selection, message: &Message) -> bool {
    (select.ids.is_empty() || select.ids.contains(&message.id))
        && select.reason.is_none_or(|wanted| wanted == reason(message))
        && select.merchant.as_ref().is_none_or(|wanted| message.claimed_merchant() == Some(wanted.as_str()))
}

/// Why it is dead. A message that somebody else put among the dead letters has no reason of ours: it is unsealed.
fn reason(message: &Message) -> Reason {
    message.log.rejection.as_ref().map_or(Reason::Unsealed, |rejection| rejection.reason)
}

fn view(message: &Message, whole: bool) -> DeadLetterView {
    let unexplained = || Rejection::new(Reason::Unsealed, "put here by somebody else");
    let Rejection { reason, detail } = message.log.rejection.clone().unwrap_or_else(unexplained);
    let fields = v2_xml::parse(&message.body, "xml").ok();
    let field = |name: &str| fields.as_ref().and_then(|fields| fields.get(name)).map(str::to_owned);
    let masked = |(name, value): (&str, &str)| {
        (name.to_owned(), if PUBLIC_FIELDS.contains(&name) { value } else { "***" }.to_owned())
    };
    DeadLetterView {
        id: message.id.clone(),
        reason,
        detail,
        cure: reason.cure().to_owned(),
        merchant: message.claimed_merchant().map(str::to_owned),
        out_trade_no: field("out_trade_no"),
        transaction_id: field("transaction_id"),
        amount: field("total_fee"),
        received_at: message.claimed_received_at(),
        attempts: message.log.attempts,
        history: if whole { message.log.history.clone() } else { Vec::new() },
        fields: fields.filter(|_| whole).map(|fields| fields.iter().map(masked).collect()).unwrap_or_default(),
    }
}

/// The fields that may be shown. Whatever is not in here, known or not, may be personal, a signature, or a buyer's text.
const PUBLIC_FIELDS: [&str; 22] = [
    "appid",
    "bank_type",
    "cash_fee",
    "cash_fee_type",
    "coupon_count",
    "coupon_fee",
    "err_code",
    "fee_type",
    "mch_id",
    "out_trade_no",
    "rate_value",
    "result_code",
    "return_code",
    "settlement_total_fee",
    "sign_type",
    "sub_appid",
    "sub_mch_id",
    "time_end",
    "total_fee",
    "trade_type",
    "transaction_id",
    "version",
];
