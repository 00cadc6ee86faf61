//! The metrics' names and labels, in one place, and the page that shows them.
//!
//! Labels are short lists by construction: merchants are configured, event types come from authentic notifications only.
//! No id is ever a label.

use std::sync::OnceLock;

use metrics::{counter, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// Starts counting. Later calls change nothing.
pub fn init() {
    static HANDLE: OnceLock<()> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let recorder = PrometheusBuilder::new().build_recorder();
        PAGE.get_or_init(|| recorder.handle());
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("another metrics recorder is installed; /metrics stays empty");
        }
    });
}

static PAGE: OnceLock<PrometheusHandle> = OnceLock::new();

/// All metrics in Prometheus' text format.
#[must_use]
pub fn page() -> String {
    PAGE.get().map(PrometheusHandle::render).unwrap_or_default()
}

/// A request on a notify route was answered: `result` is `accepted` or the refusal's code.
pub fn notification(merchant: &str, api: &'static str, result: &'static str) {
    let labels = [("merchant", merchant.to_owned()), ("api", api.to_owned()), ("result", result.to_owned())];
    counter!("wxpay_ingress_notifications_total", &labels).increment(1);
}

/// A delivery ended: `reason` is the dead letter's, empty for other outcomes.
pub fn delivery(outcome: &'static str, reason: &'static str) {
    counter!("wxpay_worker_deliveries_total", "outcome" => outcome, "reason" => reason).increment(1);
}

/// An authentic notification, or a part of one, changes nothing. `kind` is its event type or state.
pub fn ignored(kind: &str) {
    counter!("wxpay_worker_ignored_total", "kind" => kind.to_owned()).increment(1);
}

/// Whether the worker takes deliveries: 0 while its store is away.
pub fn gate_open(open: bool) {
    gauge!("wxpay_worker_gate_open").set(if open { 1.0 } else { 0.0 });
}

/// The key files were read again.
pub fn keys_reloaded(usable: bool) {
    counter!("wxpay_key_reloads_total", "result" => if usable { "replaced" } else { "kept_old" }).increment(1);
}
