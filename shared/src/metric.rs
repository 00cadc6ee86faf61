//! The metrics: what is counted where, and the page that shows it in Prometheus' text format.
//!
//! Names and labels are in [`list`]. Labels are short lists by construction: merchants are configured, event types come
//! from authentic notifications only. No id is ever a label. A histogram's handle is found once, since every request
//! touches several.

use std::{
    collections::BTreeSet,
    sync::{
        LazyLock, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use metrics::{Counter, Histogram, Label, counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::{admin::ReplayOutcome, envelope::Api, merchant::Merchants, queue::Depths, reason::Reason};

pub mod list;
mod zero;

use list::Kind;

/// How often the samples of histograms are folded into their buckets; until then each takes eight bytes.
const UPKEEP: Duration = Duration::from_secs(5);

static PAGE: OnceLock<PrometheusHandle> = OnceLock::new();
/// Whether this program takes notifications. Where a page counts them, its reader knows by that that ingress is in it.
static IS_INGRESS: AtomicBool = AtomicBool::new(false);

/// Starts counting. Later calls change nothing.
pub fn init() {
    PAGE.get_or_init(|| {
        let histograms = list::ALL.into_iter().filter_map(|metric| match metric.kind {
            Kind::Histogram(bounds) => Some((metric.name, bounds)),
            Kind::Counter | Kind::Gauge => None,
        });
        let builder = histograms.fold(PrometheusBuilder::new(), |builder, (name, bounds)| {
            let builder = builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), bounds);
            builder.expect("every histogram in the list has buckets")
        });
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("another metrics recorder is installed; /metrics stays empty");
        }
        for metric in list::ALL {
            match metric.kind {
                Kind::Counter => describe_counter!(metric.name, metric.help),
                Kind::Gauge => describe_gauge!(metric.name, metric.help),
                Kind::Histogram(_) => describe_histogram!(metric.name, metric.help),
            }
        }
        gauge!(list::BUILD_INFO.name, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        zero::program();
        handle
    });
}

/// Keeps the page's memory bounded when nobody reads it. Never returns.
pub async fn upkeep() {
    let mut tick = tokio::time::interval(UPKEEP);
    loop {
        tick.tick().await;
        if let Some(page) = PAGE.get() {
            page.run_upkeep();
        }
    }
}

/// All metrics in Prometheus' text format.
#[must_use]
pub fn page() -> String {
    PAGE.get().map(PrometheusHandle::render).unwrap_or_default()
}

/// A request on a notify route was answered: `result` is `accepted` or the refusal's code; `kind` what it told of, as
/// far as that is known.
pub fn notification(merchant: &str, api: Api, kind: &'static str, result: &'static str) {
    notifications(merchant, api, kind, result).increment(1);
}

fn notifications(merchant: &str, api: Api, kind: &'static str, result: &'static str) -> Counter {
    let labels = vec![
        Label::new("merchant", merchant.to_owned()),
        Label::from_static_parts("api", api.code()),
        Label::from_static_parts("kind", kind),
        Label::from_static_parts("result", result),
    ];
    counter!(list::NOTIFICATIONS.name, labels)
}

/// A request on a notify route was answered after this time.
pub fn replied(api: Api, after: Duration) {
    static V2: LazyLock<Histogram> = LazyLock::new(|| metrics::histogram!(list::REPLY_SECONDS.name, "api" => "v2"));
    static V3: LazyLock<Histogram> = LazyLock::new(|| metrics::histogram!(list::REPLY_SECONDS.name, "api" => "v3"));
    match api {
        Api::V2 => V2.record(after),
        Api::V3 => V3.record(after),
    }
}

/// A publish was confirmed, or failed, after this time.
pub fn confirmed(after: Duration) {
    static HANDLE: LazyLock<Histogram> = LazyLock::new(|| metrics::histogram!(list::CONFIRM_SECONDS.name));
    HANDLE.record(after);
}

/// A delivery ended: `reason` is the dead letter's, empty for other outcomes.
pub fn delivery(outcome: &'static str, reason: &'static str) {
    deliveries(outcome, reason).increment(1);
}

fn deliveries(outcome: &'static str, reason: &'static str) -> Counter {
    counter!(list::DELIVERIES.name, "outcome" => outcome, "reason" => reason)
}

/// A notification took effect this long after ingress had accepted it.
pub fn applied(age: Duration) {
    static HANDLE: LazyLock<Histogram> = LazyLock::new(|| metrics::histogram!(list::EVENT_AGE.name));
    HANDLE.record(age);
}

/// So many deliveries were handled together, and the oldest of those that were new had waited this long.
pub fn batch(size: usize, oldest: Option<Duration>) {
    static HANDLE: LazyLock<Histogram> = LazyLock::new(|| metrics::histogram!(list::BATCH_SIZE.name));
    HANDLE.record(u32::try_from(size).unwrap_or(u32::MAX));
    if let Some(oldest) = oldest {
        gauge!(list::QUEUE_OLDEST.name).set(oldest);
    }
}

/// A transaction of the store ended after this time.
pub fn transaction(succeeded: bool, after: Duration) {
    static OK: LazyLock<Histogram> = LazyLock::new(|| metrics::histogram!(list::APPLY_SECONDS.name, "result" => "ok"));
    static ERROR: LazyLock<Histogram> =
        LazyLock::new(|| metrics::histogram!(list::APPLY_SECONDS.name, "result" => "error"));
    if succeeded { OK.record(after) } else { ERROR.record(after) }
}

/// An authentic notification, or a part of one, changes nothing. `kind` is its event type or state.
pub fn ignored(kind: &str) {
    counter!(list::IGNORED.name, "kind" => kind.to_owned()).increment(1);
}

/// A dead letter of this reason was replayed, and this came of it.
pub fn replayed(reason: Reason, outcome: ReplayOutcome) {
    replays(reason, outcome).increment(1);
}

fn replays(reason: Reason, outcome: ReplayOutcome) -> Counter {
    counter!(list::REPLAYED.name, "outcome" => outcome.code(), "reason" => reason.code())
}

/// A dead letter of this reason was discarded.
pub fn discarded(reason: Reason) {
    counter!(list::DISCARDED.name, "reason" => reason.code()).increment(1);
}

/// Whether ingress is ready.
pub fn ingress_ready(ready: bool) {
    gauge!(list::INGRESS_READY.name).set(u8::from(ready));
    IS_INGRESS.store(true, Ordering::Relaxed);
}

/// Whether the worker is ready.
pub fn worker_ready(ready: bool) {
    gauge!(list::WORKER_READY.name).set(u8::from(ready));
    zero::worker();
}

/// Whether the worker takes deliveries: 0 while its store is away.
pub fn gate_open(open: bool) {
    gauge!(list::GATE_OPEN.name).set(u8::from(open));
}

/// How many messages are where.
pub fn depths(depths: &Depths) {
    for (queue, messages) in [("notify", depths.notify), ("retry", depths.retry), ("dead", depths.dead)] {
        gauge!(list::QUEUE_MESSAGES.name, "queue" => queue).set(number(messages));
    }
    for tier in &depths.tiers {
        gauge!(list::RETRY_MESSAGES.name, "tier" => tier.delay.clone()).set(number(tier.waiting));
    }
    if depths.notify == 0 {
        gauge!(list::QUEUE_OLDEST.name).set(0);
    }
}

/// Bytes that the embedded database takes, and that are free on its disk.
pub fn data_dir(size: u64, free: u64) {
    gauge!(list::DATA_BYTES.name).set(number(size));
    gauge!(list::DATA_FREE.name).set(number(free));
}

/// A notification came from elsewhere than WeChat's networks.
pub fn foreign_source() {
    counter!(list::FOREIGN_SOURCES.name).increment(1);
}

/// When the certificate of TLS expires.
pub fn tls_expiry(at: Timestamp) {
    gauge!(list::TLS_EXPIRY.name).set(number(u64::try_from(at.as_second()).unwrap_or(0)));
}

/// When the merchants' platform certificates expire. What limits a merchant no more, or is gone, expires never: a series
/// that once was on the page stays there.
pub fn key_expiries(merchants: &Merchants) {
    static SHOWN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
    for merchant in merchants.iter() {
        let name = merchant.name.as_str();
        if merchant.v3.is_some() {
            shown.insert(name.to_owned());
        }
        if IS_INGRESS.load(Ordering::Relaxed) {
            zero::merchant(name);
        }
    }
    for name in shown.iter() {
        let keys = merchants.get(name).and_then(|merchant| merchant.v3.as_ref());
        let lasts = keys.into_iter().flat_map(|keys| keys.platform.expiries()).map(|(_, last)| last);
        let last = lasts.reduce(|one, other| Some(one?.max(other?))).flatten();
        let seconds = last.map_or(f64::INFINITY, |last| number(u64::try_from(last.as_second()).unwrap_or(0)));
        gauge!(list::KEY_EXPIRY.name, "merchant" => name.clone()).set(seconds);
    }
}

/// The key files were read again.
pub fn keys_reloaded(usable: bool) {
    key_reloads(usable).increment(1);
}

fn key_reloads(usable: bool) -> Counter {
    counter!(list::KEY_RELOADS.name, "result" => if usable { "replaced" } else { "kept_old" })
}

/// A count as the page's format has it: exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "no count of ours comes near 2^53")]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::Config;

    /// The merchants of a configuration, each with these platform keys.
    fn merchants(platform_keys: &[(&str, &str)]) -> Merchants {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("wxpay.toml");
        let section = |(name, keys): &(&str, &str)| {
            let keys = keys.replace("KEYS", concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/vectors/keys"));
            format!(
                "[merchants.{name}]\nmch_id = \"1900000109\"\nappids = [\"wxd678efh567hg6787\"]\npoints = \"1/100\"\n{keys}\n"
            )
        };
        fs::write(&file, platform_keys.iter().map(section).collect::<String>()).unwrap();
        Merchants::open(&Config::load(Some(&file), []).unwrap()).unwrap()
    }

    #[test]
    fn what_no_certificate_limits_expires_never() {
        const V2: &str = "v2_key = \"192006250b4c09247ec02edce69f6a2d\"";
        const LIMITED: &str = "api_v3_key = \"192006250b4c09247ec02edce69f6a2d\"\n\
                               platform_certificates = [\"KEYS/platform_cert_a.cert.pem\"]";
        let freed =
            format!("{LIMITED}\nplatform_public_keys = {{ PUB_KEY_ID_1 = \"KEYS/platform_pubkey.public.pem\" }}");
        let recorder = PrometheusBuilder::new().build_recorder();
        let page = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            let expiry = |name: &str| {
                let series = format!("{}{{merchant=\"{name}\"}} ", list::KEY_EXPIRY.name);
                page.render().lines().find_map(|line| line.strip_prefix(&series)?.parse::<f64>().ok())
            };
            key_expiries(&merchants(&[("changed", LIMITED), ("removed", LIMITED), ("v2", V2)]));
            for name in ["changed", "removed"] {
                assert!(expiry(name).is_some_and(f64::is_finite), "{name}");
            }
            key_expiries(&merchants(&[("changed", &freed), ("v2", V2)]));
            assert_eq!(["changed", "removed", "v2"].map(expiry), [Some(f64::INFINITY), Some(f64::INFINITY), None]);
        });
    }
}
