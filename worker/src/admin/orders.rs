//! Orders and points.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State, rejection::JsonRejection},
    http::StatusCode,
};
use wxpay_shared::{
    admin::{OrderView, PaymentView, PointsView, RefundView, RegisterOrder, RegisterRefund},
    event::Fact,
    ids::{AccountId, Currency, IdError, MerchantName, OrderId, OutTradeNo, UserId},
    order::{Order, Registration},
    store::{Announced, Closed, LedgerEntry, Registered},
};

use super::{Answer, Failure};
use crate::Worker;

/// Ledger entries of an account that one answer holds.
const LEDGER_PAGE: usize = 100;

pub(super) async fn merchants(State(worker): State<Arc<Worker>>) -> Json<Vec<MerchantName>> {
    Json(worker.parts.merchants.now().iter().map(|merchant| merchant.name.clone()).collect())
}

pub(super) async fn register(
    State(worker): State<Arc<Worker>>,
    body: Result<Json<RegisterOrder>, JsonRejection>,
) -> Answer<(StatusCode, Json<OrderView>)> {
    let Json(order) = body?;
    let merchants = worker.parts.merchants.now();
    let merchant = merchants.get(order.merchant.as_str()).ok_or_else(|| {
        Failure::new(StatusCode::NOT_FOUND, format!("merchant: no merchant {} is configured", order.merchant))
    })?;
    if order.amount.get() == 0 {
        return Err(Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "amount: expected at least 1 fen"));
    }
    if let Some(appid) = order.appid.as_ref().filter(|appid| !merchant.ids.appids.contains(appid)) {
        let detail = format!("appid: {appid} is none of merchant {}", order.merchant);
        return Err(Failure::new(StatusCode::UNPROCESSABLE_ENTITY, detail));
    }
    let rate_asked = order.points;
    let registration = Registration {
        id: OrderId { merchant: order.merchant, out_trade_no: order.out_trade_no },
        amount: order.amount,
        currency: order.currency.unwrap_or_else(Currency::cny),
        user: order.user,
        appid: order.appid,
        rate: rate_asked.unwrap_or(merchant.points),
    };
    let mut registered = worker.parts.store.register(&registration).await?;
    // The merchant's own rate may have changed since. Who asks for none has nothing against the one that it had then.
    if let Registered::Conflict(known) = &registered
        && rate_asked.is_none()
        && known.registration == (Registration { rate: known.registration.rate, ..registration.clone() })
    {
        registered = Registered::Known(known.clone());
    }
    if !matches!(registered, Registered::Conflict(_)) {
        // Also where it was known: its worker may have died before it could call.
        worker.registrations.note(registration.id.clone());
    }
    match registered {
        Registered::Fresh(order) => Ok((StatusCode::CREATED, Json(view(order, Vec::new())))),
        Registered::Known(_) => Ok((StatusCode::OK, Json(find(&worker, &registration.id).await?))),
        Registered::Conflict(known) => {
            Err(Failure::new(StatusCode::CONFLICT, conflict(&known.registration, &registration)))
        }
    }
}

pub(super) async fn show(
    State(worker): State<Arc<Worker>>,
    Path(path): Path<(String, String)>,
) -> Answer<Json<OrderView>> {
    Ok(Json(find(&worker, &order_id(&path)?).await?))
}

pub(super) async fn close(
    State(worker): State<Arc<Worker>>,
    Path(path): Path<(String, String)>,
) -> Answer<Json<OrderView>> {
    let id = order_id(&path)?;
    match worker.parts.store.close(&id).await? {
        Closed::Closed(_) => Ok(Json(find(&worker, &id).await?)),
        Closed::Paid(order) => {
            let detail = format!("order {id} has received {} and cannot be closed", order.received());
            Err(Failure::new(StatusCode::CONFLICT, detail))
        }
        Closed::Unknown => Err(unknown(&id)),
    }
}

pub(super) async fn register_refund(
    State(worker): State<Arc<Worker>>,
    Path(path): Path<(String, String)>,
    body: Result<Json<RegisterRefund>, JsonRejection>,
) -> Answer<Json<OrderView>> {
    let id = order_id(&path)?;
    let Json(RegisterRefund { out_refund_no, amount }) = body?;
    if amount.get() == 0 {
        return Err(Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "amount: expected at least 1 fen"));
    }
    match worker.parts.store.announce_refund(&id, &out_refund_no, amount).await? {
        Announced::Announced => Ok(Json(find(&worker, &id).await?)),
        Announced::Conflict(known) => {
            let detail = format!("refund {out_refund_no} is registered with {known}, not {amount}");
            Err(Failure::new(StatusCode::CONFLICT, detail))
        }
        Announced::Unknown => Err(unknown(&id)),
    }
}

pub(super) async fn points(
    State(worker): State<Arc<Worker>>,
    Path((merchant, user)): Path<(String, String)>,
) -> Answer<Json<PointsView>> {
    let id = AccountId { merchant: MerchantName::parse(&merchant)?, user: UserId::parse(&user)? };
    let account = worker.parts.store.account(&id, LEDGER_PAGE).await?;
    let account = account.ok_or_else(|| Failure::new(StatusCode::NOT_FOUND, "this user has no points account"))?;
    let AccountId { merchant, user } = id;
    Ok(Json(PointsView { merchant, user, balance: account.balance, ledger: account.entries }))
}

async fn find(worker: &Worker, id: &OrderId) -> Answer<OrderView> {
    let (order, ledger) = worker.parts.store.order(id).await?.ok_or_else(|| unknown(id))?;
    Ok(view(order, ledger))
}

fn order_id((merchant, out_trade_no): &(String, String)) -> Answer<OrderId> {
    Ok(OrderId { merchant: MerchantName::parse(merchant)?, out_trade_no: OutTradeNo::parse(out_trade_no)? })
}

fn unknown(id: &OrderId) -> Failure {
    Failure::new(StatusCode::NOT_FOUND, format!("order {id} is not registered"))
}

/// What differs, for the person whose registration was refused.
fn conflict(known: &Registration, asked: &Registration) -> String {
    let mut differences = Vec::new();
    let mut compare = |name: &str, known: String, asked: String| {
        if known != asked {
            differences.push(format!("{name} is {known}, not {asked}"));
        }
    };
    let optional = |id: Option<&dyn std::fmt::Display>| id.map_or_else(|| "any".to_owned(), ToString::to_string);
    compare("amount", known.amount.to_string(), asked.amount.to_string());
    compare("currency", known.currency.to_string(), asked.currency.to_string());
    compare(
        "appid",
        optional(known.appid.as_ref().map(|id| id as _)),
        optional(asked.appid.as_ref().map(|id| id as _)),
    );
    compare("points", known.rate.to_string(), asked.rate.to_string());
    if known.user != asked.user {
        differences.push("user is another".to_owned());
    }
    format!("order {} is registered with other facts: {}", known.id, differences.join(", "))
}

impl From<IdError> for Failure {
    fn from(error: IdError) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, error)
    }
}

fn view(order: Order, ledger: Vec<LedgerEntry>) -> OrderView {
    let (state, received, kept) = (order.state(), order.received(), order.kept());
    let (mut payments, mut refunds) = (Vec::new(), Vec::new());
    for recorded in order.facts.into_values() {
        let (notification, rejection) = (recorded.notification, recorded.rejection);
        match recorded.fact {
            Fact::Payment(payment) => payments.push(PaymentView {
                transaction_id: payment.transaction_id,
                amount: payment.amount,
                success_time: payment.success_time,
                notification,
                rejection,
            }),
            Fact::Refund(refund) => refunds.push(RefundView {
                refund_id: refund.refund_id,
                out_refund_no: refund.out_refund_no,
                status: refund.status,
                amount: refund.amount,
                success_time: refund.success_time,
                notification,
                rejection,
            }),
        }
    }
    OrderView {
        merchant: order.registration.id.merchant,
        out_trade_no: order.registration.id.out_trade_no,
        state,
        amount: order.registration.amount,
        currency: order.registration.currency,
        user: order.account,
        appid: order.registration.appid,
        points_rate: order.registration.rate,
        received,
        kept,
        points: order.credited,
        registered_at: order.registered_at,
        closed_at: order.closed_at,
        registered_refunds: order.announced_refunds,
        payments,
        refunds,
        ledger,
    }
}
