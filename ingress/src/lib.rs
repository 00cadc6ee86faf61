//! The public side: a notification comes in, is proven to be WeChat's, is made durable, and only then answered.
//!
//! The four steps are `Ingress::accept`; each is a file. There is no database here and no decision about money: what
//! is authentic but wrong is the worker's to judge, since refusing it would make WeChat repeat it for a day and then
//! drop it.

use std::{sync::Arc, time::Instant};

use axum::{
    Router,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{any, get},
};
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;
use wxpay_shared::{
    clock::Clock,
    config::{self, Config, ConfigError},
    envelope::{Api, Envelope, SealKeys},
    ids::NotificationId,
    merchant::LiveMerchants,
    metric,
    queue::Publisher,
    trace::Span,
};

pub mod request;
pub mod verify;
pub mod kind;
pub mod reply;
pub mod source;
mod readiness;
mod refusal_log;

use kind::Kind;
use readiness::{NotReady, Readiness};
use refusal_log::RefusalLog;
use reply::Refusal;
use source::Sources;
use verify::Verified;

/// What the public side needs to run.
pub struct Ingress {
    merchants: Arc<LiveMerchants>,
    seal: Arc<SealKeys>,
    publisher: Arc<dyn Publisher>,
    clock: Arc<dyn Clock>,
    readiness: Readiness,
    sources: Sources,
    requests: Semaphore,
    refusals: RefusalLog,
}

impl Ingress {
    /// An ingress for these merchants that publishes here, within the configuration's defaults.
    #[must_use]
    pub fn new(
        merchants: Arc<LiveMerchants>,
        seal: Arc<SealKeys>,
        publisher: Arc<dyn Publisher>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let requests = Semaphore::new(permits(config::Ingress::default().requests));
        let (readiness, sources, refusals) = (Readiness::default(), Sources::default(), RefusalLog::default());
        Self { merchants, seal, publisher, clock, readiness, sources, requests, refusals }
    }

    /// The same within the configured bounds.
    ///
    /// # Errors
    /// [`ConfigError`] for a list of networks that cannot be read.
    pub fn within(self, config: &Config) -> Result<Self, ConfigError> {
        Ok(Self { sources: Sources::open(config)?, requests: Semaphore::new(permits(config.ingress.requests)), ..self })
    }

    /// The flow. After `Ok` the notification is durable; after `Err` WeChat is told to send it again.
    async fn accept(&self, request: Request, route: Api, span: &Span) -> Result<Accepted, Refusal> {
        let _permit = self.requests.try_acquire().map_err(|_| Refusal::Overloaded)?;
        self.sources.check(&request)?;
        let received_at = self.clock.now();
        let merchants = self.merchants.now();
        let notification = request::read(request, &merchants).await?;
        let Verified { api, kind } = verify::verify(&notification, route, received_at)?;

        let id = NotificationId::new(received_at);
        let merchant = notification.merchant.name.clone();
        let envelope = Envelope { id: id.clone(), merchant, api, received_at, body: notification.into_body() };
        let mut message = envelope.seal(&self.seal);
        let publishing = span.publish();
        publishing.carry(&mut message);
        let published_at = Instant::now();
        let published = self.publisher.publish(message).await.inspect_err(|error| publishing.failed(error));
        metric::confirmed(published_at.elapsed());
        self.readiness.published(published);
        published?;
        Ok(Accepted { id, api, kind })
    }

    /// The flow's answer, counted and logged.
    async fn answer(&self, request: Request, route: Api) -> Response {
        let began = Instant::now();
        let path = request.uri().path().to_owned();
        let merchants = self.merchants.now();
        // A path that names no merchant is the caller's to choose and must not become a label.
        let merchant = request::merchant_of(&path, &merchants).map_or("", |merchant| merchant.name.as_str());
        let span = Span::request(route);
        let reply = match self.accept(request, route, &span).await {
            Ok(Accepted { id, api, kind }) => {
                tracing::debug!(notification = %id, path, "accepted");
                metric::notification(merchant, api, kind.code(), "accepted");
                span.result(merchant, Some(&id), "accepted");
                reply::success(api)
            }
            Err(refusal) => {
                metric::notification(merchant, route, "unknown", refusal.code());
                span.result(merchant, None, refusal.code());
                self.refusals.log(&path, refusal);
                reply::failure(route, refusal)
            }
        };
        metric::replied(route, began.elapsed());
        reply
    }

    fn ready(&self) -> Result<(), NotReady> {
        self.readiness.check(self.publisher.as_ref())
    }

    /// The metrics page.
    fn metrics(&self) -> String {
        metric::ingress_ready(self.ready().is_ok());
        metric::key_expiries(&self.merchants.now());
        metric::page()
    }
}

fn permits(requests: u32) -> usize {
    usize::try_from(requests).unwrap_or(Semaphore::MAX_PERMITS).min(Semaphore::MAX_PERMITS)
}

/// A notification that is durable.
struct Accepted {
    id: NotificationId,
    api: Api,
    kind: Kind,
}

/// The public routes.
pub fn router(ingress: Arc<Ingress>) -> Router {
    let routes = |api: Api, path: &str| {
        let notify = move |State(ingress): State<Arc<Ingress>>, request: Request| async move {
            ingress.answer(request, api).await
        };
        Router::new()
            .route(path, any(notify))
            // WeChat follows no redirects, so a notify_url with a slash too many is served as it is.
            .route(&format!("{path}/"), any(notify))
            .layer(CatchPanicLayer::custom(move |_| reply::failure(api, Refusal::Internal)))
    };
    routes(Api::V2, "/v2/{merchant}")
        .merge(routes(Api::V3, "/v3/{merchant}"))
        .fallback(reply::nobody)
        .with_state(ingress)
}

/// The routes for whoever watches the program.
pub fn ops_router(ingress: Arc<Ingress>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(async |State(ingress): State<Arc<Ingress>>| ingress.metrics()))
        .with_state(ingress)
}

async fn ready(State(ingress): State<Arc<Ingress>>) -> Response {
    match ingress.ready() {
        Ok(()) => "ready\n".into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {error}\n")).into_response(),
    }
}
