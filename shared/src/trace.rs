//! Traces: one for each notification, from the request through the queue to the store, sent over OTLP.
//!
//! ingress begins a trace and writes it into the message's header `traceparent`, outside the seal; the worker goes on with
//! it, at each attempt anew. What a caller says about traces is not read: he may be anybody. The spans hold our number for
//! the notification, the merchant's name and codes, and nothing of what the notification says. While no collector is
//! configured, each call here looks at one word of memory and returns.

use std::{collections::BTreeMap, env, sync::OnceLock, time::Duration};

use opentelemetry::{
    Context, Key, KeyValue, Value,
    context::FutureExt as _,
    propagation::{Extractor, Injector, TextMapPropagator as _},
    trace::{SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _},
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{SdkTracer, SdkTracerProvider},
};

use crate::{
    config::{Config, ConfigError},
    envelope::{Api, Message},
    event::Event,
    ids::NotificationId,
    queue::topology::NOTIFY,
};

/// How long the end of a program waits until the last spans are sent.
const FLUSH_BUDGET: Duration = Duration::from_secs(2);

static RUNNING: OnceLock<(SdkTracerProvider, SdkTracer)> = OnceLock::new();

/// Begins to send traces, if a collector is configured. `service` is the program's name in them, unless
/// `OTEL_SERVICE_NAME` gives another.
///
/// # Errors
/// [`ConfigError`] where what the environment says of the exporter (`OTEL_EXPORTER_OTLP_…`) cannot be used.
pub fn start(config: &Config, service: &'static str) -> Result<(), ConfigError> {
    let Some(url) = config.telemetry.traces_url() else { return Ok(()) };
    let exporter = SpanExporter::builder().with_http().with_endpoint(url).build();
    let exporter = exporter.map_err(|error| ConfigError::new("telemetry.otlp_endpoint", error))?;
    let mut resource = Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    if env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name(service);
    }
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build();
    let tracer = provider.tracer("wxpay-notify");
    if RUNNING.set((provider, tracer)).is_err() {
        tracing::warn!("traces are sent already");
    }
    Ok(())
}

/// Sends the spans that were not sent yet, within two seconds; later ones are lost.
pub async fn end() {
    let Some((provider, _)) = RUNNING.get() else { return };
    let ended = tokio::task::spawn_blocking(|| provider.shutdown_with_timeout(FLUSH_BUDGET)).await;
    if let Ok(Err(error)) = ended {
        tracing::warn!(%error, "the last spans were not sent");
    }
}

fn tracer() -> Option<&'static SdkTracer> {
    RUNNING.get().map(|(_, tracer)| tracer)
}

/// A step of ingress. It ends when it is dropped.
pub struct Span(Option<Context>);

impl Span {
    /// A request on a notify route, which begins a trace.
    #[must_use]
    pub fn request(route: Api) -> Self {
        let route = match route {
            Api::V2 => "/v2/{merchant}",
            Api::V3 => "/v3/{merchant}",
        };
        let attributes = || vec![KeyValue::new("http.route", route)];
        Self(tracer().map(|tracer| child(tracer, &Context::new(), "accept", SpanKind::Server, attributes())))
    }

    /// The publish of this request's notification.
    #[must_use]
    pub fn publish(&self) -> Self {
        let begin = |(parent, tracer)| child(tracer, parent, "publish", SpanKind::Producer, messaging("send"));
        Self(self.0.as_ref().zip(tracer()).map(begin))
    }

    /// Writes the trace into the message, so that the worker goes on with it.
    pub fn carry(&self, message: &mut Message) {
        if let Some(context) = &self.0 {
            TraceContextPropagator::new().inject_context(context, &mut Headers(&mut message.headers));
        }
    }

    /// What the request turned out to be: whose, by which number, and the result as the metrics name it.
    pub fn result(&self, merchant: &str, notification: Option<&NotificationId>, result: &'static str) {
        let Some(context) = &self.0 else { return };
        context.span().set_attribute(KeyValue::new("wxpay.merchant", merchant.to_owned()));
        context.span().set_attribute(KeyValue::new("wxpay.result", result));
        if let Some(id) = notification {
            context.span().set_attribute(number(id));
        }
    }

    /// It failed, and how.
    pub fn failed(&self, error: &dyn std::error::Error) {
        if let Some(context) = &self.0 {
            context.span().set_status(Status::error(error.to_string()));
        }
    }
}

/// The notifications that a worker handles together, a span each. They end with the work.
pub struct Handling(Option<Context>);

/// What [`Handling`] leaves in the context of the work.
struct Handled(Vec<(NotificationId, Context)>);

impl Handling {
    /// Goes on with the trace of each message, or begins one where ingress began none.
    pub fn of<'a>(messages: impl Iterator<Item = &'a Message>) -> Self {
        let Some(tracer) = tracer() else { return Self(None) };
        let begin = |message: &Message| {
            let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), &Known(&message.headers));
            let mut attributes = messaging("process");
            attributes
                .extend([number(&message.id), KeyValue::new("wxpay.attempt", i64::from(message.log.attempts) + 1)]);
            (message.id.clone(), child(tracer, &parent, "process", SpanKind::Consumer, attributes))
        };
        Self(Some(Context::new().with_value(Handled(messages.map(begin).collect()))))
    }

    /// Does the work on them.
    pub async fn during<F: Future>(self, work: F) -> F::Output {
        match self.0 {
            Some(context) => work.with_context(context).await,
            None => work.await,
        }
    }
}

/// Tells the span of a notification in hand what became of it: the outcome as the metrics name it, and the reason of a
/// dead letter.
pub fn outcome(notification: &NotificationId, outcome: &'static str, reason: &'static str) {
    each_of(&[notification], |context| {
        context.span().set_attribute(KeyValue::new("wxpay.outcome", outcome));
        if !reason.is_empty() {
            context.span().set_attribute(KeyValue::new("wxpay.reason", reason));
            context.span().set_status(Status::error(reason));
        }
    });
}

/// A transaction of the store, in the trace of each notification that it is about. Ends when it is dropped.
pub struct Transaction(Vec<Context>);

impl Transaction {
    /// Begins with these events.
    #[must_use]
    pub fn of(events: &[Event]) -> Self {
        let Some(tracer) = tracer() else { return Self(Vec::new()) };
        let notifications: Vec<_> = events.iter().map(|event| &event.notification).collect();
        let mut spans = Vec::new();
        each_of(&notifications, |parent| {
            let size = KeyValue::new("wxpay.batch", i64::try_from(events.len()).unwrap_or(i64::MAX));
            spans.push(child(tracer, parent, "store transaction", SpanKind::Client, vec![size]));
        });
        Self(spans)
    }

    /// Nothing of it took effect.
    pub fn failed(&self) {
        self.0.iter().for_each(|context| context.span().set_status(Status::error("rolled back")));
    }
}

/// The spans of those notifications that the current work is about.
fn each_of(notifications: &[&NotificationId], then: impl FnMut(&Context)) {
    if tracer().is_none() {
        return;
    }
    let current = Context::current();
    let handled = current.get::<Handled>().into_iter().flat_map(|Handled(spans)| spans);
    handled.filter(|(id, _)| notifications.contains(&id)).map(|(_, context)| context).for_each(then);
}

fn child(
    tracer: &SdkTracer,
    parent: &Context,
    name: &'static str,
    kind: SpanKind,
    attributes: Vec<KeyValue>,
) -> Context {
    let span = tracer.span_builder(name).with_kind(kind).with_attributes(attributes);
    parent.with_span(tracer.build_with_context(span, parent))
}

fn messaging(operation: &'static str) -> Vec<KeyValue> {
    vec![KeyValue::new("messaging.operation.type", operation), KeyValue::new("messaging.destination.name", NOTIFY)]
}

fn number(id: &NotificationId) -> KeyValue {
    KeyValue::new(Key::from_static_str("wxpay.notification"), Value::from(id.as_str().to_owned()))
}

/// A message's headers, to write into.
struct Headers<'a>(&'a mut BTreeMap<String, String>);

impl Injector for Headers<'_> {
    fn set(&mut self, name: &str, value: String) {
        // A trace state without entries says nothing.
        if !value.is_empty() {
            self.0.insert(name.to_owned(), value);
        }
    }
}

/// A message's headers, to read.
struct Known<'a>(&'a BTreeMap<String, String>);

impl Extractor for Known<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Log;

    #[tokio::test]
    async fn without_a_collector_nothing_is_made_and_no_message_is_changed() {
        start(&Config::default(), "test").unwrap();
        let mut message = Message::received(Some("0a"), BTreeMap::new(), "body".into(), Log::default());
        let span = Span::request(Api::V2).publish();
        span.carry(&mut message);
        assert!(span.0.is_none() && message.headers.is_empty());
        assert!(Handling::of(std::iter::once(&message)).0.is_none());
        assert!(Transaction::of(&[]).0.is_empty());
        end().await;
    }
}
