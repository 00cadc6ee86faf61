//! The public side: a notification comes in, is proven to be WeChat's, is made durable, and only then answered.
//!
//! The four steps are [`Ingress::accept`]; each is a file. There is no database here and no decision about money: what
//! is authentic but wrong is the worker's to judge, since refusing it would make WeChat repeat it for a day and then
//! drop it.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{any, get},
};
use tower_http::catch_panic::CatchPanicLayer;
use wxpay_shared::{
    clock::Clock,
    envelope::{Api, Envelope, SealKeys},
    ids::NotificationId,
    merchant::Merchants,
    queue::Publisher,
};

pub mod request;
pub mod verify;
pub mod reply;
mod refusal_log;

use refusal_log::RefusalLog;
use reply::Refusal;

/// What the public side needs to run.
pub struct Ingress {
    merchants: Arc<Merchants>,
    seal: Arc<SealKeys>,
    publisher: Arc<dyn Publisher>,
    clock: Arc<dyn Clock>,
    refusals: RefusalLog,
}

impl Ingress {
    /// An ingress for these merchants that publishes here.
    #[must_use]
    pub fn new(
        merchants: Arc<Merchants>,
        seal: Arc<SealKeys>,
        publisher: Arc<dyn Publisher>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { merchants, seal, publisher, clock, refusals: RefusalLog::default() }
    }

    /// The flow. After `Ok` the notification is durable; after `Err` WeChat is told to send it again.
    async fn accept(&self, request: Request) -> Result<NotificationId, Refusal> {
        let received_at = self.clock.now();
        let notification = request::read(request, &self.merchants).await?;
        verify::v2(&notification)?;

        let id = NotificationId::new(received_at);
        let merchant = notification.merchant.name.clone();
        let envelope = Envelope { id: id.clone(), merchant, api: Api::V2, received_at, body: notification.body };
        self.publisher.publish(envelope.seal(&self.seal)).await?;
        Ok(id)
    }
}

/// The public routes.
pub fn router(ingress: Arc<Ingress>) -> Router {
    Router::new()
        .route("/v2/{merchant}", any(notify_v2))
        // WeChat follows no redirects, so a notify_url with a slash too many is served as it is.
        .route("/v2/{merchant}/", any(notify_v2))
        .layer(CatchPanicLayer::custom(|_| reply::v2_failure(Refusal::Internal)))
        .with_state(ingress)
}

/// The routes for whoever watches the program.
pub fn ops_router(ingress: Arc<Ingress>) -> Router {
    Router::new().route("/healthz", get(async || "ok\n")).route("/readyz", get(ready)).with_state(ingress)
}

async fn notify_v2(State(ingress): State<Arc<Ingress>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    match ingress.accept(request).await {
        Ok(id) => {
            tracing::debug!(notification = %id, path, "accepted");
            reply::v2_success()
        }
        Err(refusal) => {
            ingress.refusals.log(&path, refusal);
            reply::v2_failure(refusal)
        }
    }
}

async fn ready(State(ingress): State<Arc<Ingress>>) -> Response {
    match ingress.publisher.ready() {
        Ok(()) => "ready\n".into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {error}\n")).into_response(),
    }
}
