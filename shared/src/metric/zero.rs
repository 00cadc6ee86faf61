//! What alerts count, at 0 before it happens: in a series that begins with its first event, `increase` sees nothing.
//!
//! Each program shows its own only. They are made whenever a page is, so the first page has them.

use crate::{admin::ReplayOutcome, envelope::Api, reason::Reason};

/// The refusals after which somebody looks at the merchant's settings, by their codes.
const REFUSED: [&str; 9] = [
    "ambiguous_signature",
    "bad_signature",
    "decrypt_failed",
    "expired_certificate",
    "merchant_mismatch",
    "missing_sign",
    "stale_timestamp",
    "unknown_merchant",
    "unknown_serial",
];

/// What every program counts.
pub(super) fn program() {
    for usable in [true, false] {
        super::key_reloads(usable).increment(0);
    }
}

/// What a worker counts.
pub(super) fn worker() {
    super::deliveries("retry", "").increment(0);
    for reason in Reason::ALL {
        super::deliveries("dead_letter", reason.code()).increment(0);
        for outcome in [ReplayOutcome::DeadAgain, ReplayOutcome::Failed] {
            super::replays(*reason, outcome).increment(0);
        }
    }
}

/// What ingress counts for a merchant.
pub(super) fn merchant(name: &str) {
    for api in [Api::V2, Api::V3] {
        for kind in ["payment", "refund", "other"] {
            super::notifications(name, api, kind, "accepted").increment(0);
        }
        for result in REFUSED {
            super::notifications(name, api, "unknown", result).increment(0);
        }
    }
}
