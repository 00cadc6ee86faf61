//! The list of all metrics: names, labels, and what each says. docs/metrics.md is this list, under test.

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution, with these upper bounds of its buckets.
    Histogram(&'static [f64]),
}

/// A metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name on the page.
    pub name: &'static str,
    /// What kind of number it is.
    pub kind: Kind,
    /// The names of its labels. Their values are short lists by construction, and never ids.
    pub labels: &'static [&'static str],
    /// What it says, in one sentence.
    pub help: &'static str,
}

/// From a fraction of a millisecond to the time after which WeChat gives up.
const REPLY: &[f64] = &[0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
/// From at once to the day after which WeChat repeats no more.
const AGE: &[f64] = &[0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0, 3_600.0, 21_600.0, 86_400.0];
const BATCH: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

const fn metric(name: &'static str, kind: Kind, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind, labels, help }
}

pub(super) const BUILD_INFO: Metric =
    metric("wxpay_build_info", Kind::Gauge, &["version"], "Always 1; the label says what runs.");
pub(super) const KEY_RELOADS: Metric = metric(
    "wxpay_key_reloads_total",
    Kind::Counter,
    &["result"],
    "Readings of changed keys: replaced, or kept_old where the new ones cannot be used.",
);
pub(super) const KEY_EXPIRY: Metric = metric(
    "wxpay_platform_key_expiry_timestamp_seconds",
    Kind::Gauge,
    &["merchant"],
    "When the last of a merchant's platform certificates expires; +Inf with a public key, which does not, and for a \
     merchant that was removed.",
);
pub(super) const TLS_EXPIRY: Metric = metric(
    "wxpay_tls_certificate_expiry_timestamp_seconds",
    Kind::Gauge,
    &[],
    "When the certificate of ingress expires; absent where it speaks plain HTTP.",
);
pub(super) const FOREIGN_SOURCES: Metric = metric(
    "wxpay_ingress_foreign_sources_total",
    Kind::Counter,
    &[],
    "Requests from elsewhere than WeChat's networks; counted unless ingress.source_networks is off.",
);
pub(super) const INGRESS_READY: Metric = metric(
    "wxpay_ingress_ready",
    Kind::Gauge,
    &[],
    "1 while ingress can make notifications durable, as /readyz answers; 0 otherwise.",
);
pub(super) const NOTIFICATIONS: Metric = metric(
    "wxpay_ingress_notifications_total",
    Kind::Counter,
    &["merchant", "api", "kind", "result"],
    "Requests on the notify routes. result is accepted or why not: signature_probe is WeChat's own test, unknown_serial a \
     key that is missing here, bad_signature a forgery. kind is known of accepted ones only.",
);
pub(super) const REPLY_SECONDS: Metric = metric(
    "wxpay_ingress_reply_seconds",
    Kind::Histogram(REPLY),
    &["api"],
    "From a request's header to its reply. WeChat gives up after 5 s.",
);
pub(super) const CONFIRM_SECONDS: Metric = metric(
    "wxpay_ingress_confirm_seconds",
    Kind::Histogram(REPLY),
    &[],
    "From a publish to its confirm, or to the failure.",
);
pub(super) const WORKER_READY: Metric = metric(
    "wxpay_worker_ready",
    Kind::Gauge,
    &[],
    "1 while the worker takes notifications, as /readyz answers; 0 otherwise.",
);
pub(super) const GATE_OPEN: Metric = metric(
    "wxpay_worker_gate_open",
    Kind::Gauge,
    &[],
    "0 while the worker takes no notifications because its store is away.",
);
pub(super) const DELIVERIES: Metric = metric(
    "wxpay_worker_deliveries_total",
    Kind::Counter,
    &["outcome", "reason"],
    "What became of notifications: applied, duplicate, ignored, retry or dead_letter. reason is the dead letter's.",
);
pub(super) const IGNORED: Metric = metric(
    "wxpay_worker_ignored_total",
    Kind::Counter,
    &["kind"],
    "Authentic notifications that change nothing, by their event type or state.",
);
pub(super) const EVENT_AGE: Metric = metric(
    "wxpay_worker_event_age_seconds",
    Kind::Histogram(AGE),
    &[],
    "From the reply to WeChat to the effect, of notifications that took effect.",
);
pub(super) const BATCH_SIZE: Metric =
    metric("wxpay_worker_batch_size", Kind::Histogram(BATCH), &[], "Notifications that were handled together.");
pub(super) const APPLY_SECONDS: Metric = metric(
    "wxpay_store_apply_seconds",
    Kind::Histogram(REPLY),
    &["result"],
    "Transactions of the store; result is ok or error.",
);
pub(super) const QUEUE_MESSAGES: Metric = metric(
    "wxpay_queue_messages",
    Kind::Gauge,
    &["queue"],
    "Messages that wait: notify for a worker (on RabbitMQ of up to 16 notifications each), retry in the retry tiers, \
     dead for a person.",
);
pub(super) const RETRY_MESSAGES: Metric = metric(
    "wxpay_queue_retry_messages",
    Kind::Gauge,
    &["tier"],
    "Notifications that wait in each retry tier of RabbitMQ, by its delay. The embedded queue has no tiers apart.",
);
pub(super) const REPLAYED: Metric = metric(
    "wxpay_dead_letters_replayed_total",
    Kind::Counter,
    &["outcome", "reason"],
    "Dead letters that were replayed: by why they were dead, and what came of it: applied, already_applied, ignored, \
     waiting (for another attempt), dead_again or failed (it is where it was).",
);
pub(super) const DISCARDED: Metric = metric(
    "wxpay_dead_letters_discarded_total",
    Kind::Counter,
    &["reason"],
    "Dead letters that a person discarded, by why they were dead.",
);
pub(super) const QUEUE_OLDEST: Metric = metric(
    "wxpay_queue_oldest_seconds",
    Kind::Gauge,
    &[],
    "How long the oldest of the notifications that the worker took last had waited; 0 while none waits.",
);
pub(super) const DATA_BYTES: Metric = metric(
    "wxpay_data_dir_bytes",
    Kind::Gauge,
    &[],
    "Size of the embedded database: the worker's shortcut, or all records where it is the store.",
);
pub(super) const DATA_FREE: Metric =
    metric("wxpay_data_dir_free_bytes", Kind::Gauge, &[], "Free space on the disk of data_dir.");

/// All of them, in the order of the documents.
pub const ALL: [&Metric; 23] = [
    &NOTIFICATIONS,
    &REPLY_SECONDS,
    &CONFIRM_SECONDS,
    &FOREIGN_SOURCES,
    &INGRESS_READY,
    &DELIVERIES,
    &IGNORED,
    &EVENT_AGE,
    &BATCH_SIZE,
    &APPLY_SECONDS,
    &GATE_OPEN,
    &WORKER_READY,
    &QUEUE_MESSAGES,
    &RETRY_MESSAGES,
    &QUEUE_OLDEST,
    &REPLAYED,
    &DISCARDED,
    &DATA_BYTES,
    &DATA_FREE,
    &KEY_EXPIRY,
    &TLS_EXPIRY,
    &KEY_RELOADS,
    &BUILD_INFO,
];
