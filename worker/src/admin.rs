//! The admin API: orders, points and dead letters for a person, `wxpayctl` or the merchant's own backend.
//!
//! On loopback without a token, elsewhere only with one. Its JSON is [`wxpay_shared::admin`].

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{
        DefaultBodyLimit, State,
        rejection::{JsonRejection, QueryRejection},
    },
    http::StatusCode,
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use secrecy::SecretString;
use wxpay_shared::{
    admin::{Problem, Selection},
    queue::QueueError,
    store::StoreError,
};

use crate::{Worker, console};

mod origin;
mod orders;
mod dead_letters;
mod select;
mod decode;
mod view;
mod replay;
mod copies;
mod discard;
mod transfer;
mod trail;
mod lines;
pub(crate) mod turns;
mod limits;
mod token;

use token::Token;

/// All routes of the worker's listener; everything but the probes, the metrics and the console's files wants the token.
pub fn router(worker: Arc<Worker>, token: Option<SecretString>) -> Router {
    let import = post(transfer::import)
        .layer(DefaultBodyLimit::max(transfer::IMPORT_MAX))
        .layer(middleware::from_fn(|request, next| limits::body(transfer::IMPORT_MAX, request, next)));
    let has_token = token.is_some();
    let token = token.map(|token| Arc::new(Token::new(token)));
    let api = Router::new()
        .route("/merchants", get(orders::merchants))
        .route("/orders", post(orders::register))
        .route("/orders/{merchant}/{out_trade_no}", get(orders::show))
        .route("/orders/{merchant}/{out_trade_no}/close", post(orders::close))
        .route("/orders/{merchant}/{out_trade_no}/refunds", post(orders::register_refund))
        .route("/points/{merchant}/{user}", get(orders::points))
        .route("/dead-letters", get(dead_letters::list))
        .route("/dead-letters/{id}", get(dead_letters::show))
        .route("/dead-letters/replay", post(replay::replay))
        .route("/dead-letters/discard", post(discard::discard))
        .route("/dead-letters/export", post(transfer::export))
        .route("/dead-letters/audit", get(dead_letters::audit))
        .route("/queue", get(dead_letters::depths))
        .layer(middleware::from_fn(|request, next| limits::body(limits::BODY_MAX, request, next)))
        .route("/dead-letters/import", import)
        .route_layer(middleware::from_fn_with_state(token, token::authorize));
    let for_programs = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(async |State(worker): State<Arc<Worker>>| worker.metrics()))
        .merge(api)
        .route_layer(middleware::from_fn(origin::refuse_foreign_pages));
    for_programs
        .merge(console::router())
        .fallback(async || Failure::new(StatusCode::NOT_FOUND, "no such path"))
        .layer(middleware::from_fn_with_state(has_token, origin::refuse_strange_names))
        .layer(middleware::map_response(console::headers))
        .with_state(worker)
}

async fn ready(State(worker): State<Arc<Worker>>) -> Response {
    match worker.ready() {
        Ok(()) => "ready\n".into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {error}\n")).into_response(),
    }
}

/// A selection that names nothing would take everything by accident.
fn selective(select: &Selection) -> Answer<()> {
    if *select == Selection::default() {
        let problem = "select: name ids, a reason, a merchant, an order, an age, or all";
        return Err(Failure::new(StatusCode::UNPROCESSABLE_ENTITY, problem));
    }
    Ok(())
}

/// Does a job to its end, even if its client goes away half-way: a reading of the dead letters is always closed.
async fn to_its_end<T: Send + 'static>(job: impl Future<Output = Answer<T>> + Send + 'static) -> Answer<T> {
    let ended = tokio::spawn(job).await;
    ended.unwrap_or_else(|_| Err(Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "the request failed; see the log")))
}

/// A request that was not fulfilled.
struct Failure(StatusCode, String);

type Answer<T> = Result<T, Failure>;

impl Failure {
    fn new(status: StatusCode, error: impl ToString) -> Self {
        Self(status, error.to_string())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(Problem { error: self.1 })).into_response()
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        tracing::warn!(%error, source = std::error::Error::source(&error).map(ToString::to_string), "admin request");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error)
    }
}

impl From<QueueError> for Failure {
    fn from(error: QueueError) -> Self {
        tracing::warn!(%error, source = std::error::Error::source(&error).map(ToString::to_string), "admin request");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error)
    }
}

impl From<QueryRejection> for Failure {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<JsonRejection> for Failure {
    fn from(rejection: JsonRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}
