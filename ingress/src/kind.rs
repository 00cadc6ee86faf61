//! What a notification tells of, as far as its outside shows: a label for the metrics, and no decision.

use std::borrow::Cow;

use serde::Deserialize;

/// What a notification tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A payment.
    Payment,
    /// A refund.
    Refund,
    /// Something else, which the worker ignores or shows to a person.
    Other,
}

impl Kind {
    /// The kind by v3's `event_type`. The body was verified, and its content is still encrypted.
    #[must_use]
    pub fn of_v3(body: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Outside<'a> {
            #[serde(borrow)]
            event_type: Cow<'a, str>,
        }
        match serde_json::from_slice::<Outside<'_>>(body) {
            Ok(outside) if outside.event_type.starts_with("TRANSACTION.") => Self::Payment,
            Ok(outside) if outside.event_type.starts_with("REFUND.") => Self::Refund,
            Ok(_) | Err(_) => Self::Other,
        }
    }

    /// The metrics' label.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Payment => "payment",
            Self::Refund => "refund",
            Self::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_event_type_tells_and_nothing_else_does() {
        for (body, kind) in [
            (r#"{"event_type":"TRANSACTION.SUCCESS"}"#, Kind::Payment),
            (r#"{"id":"1","event_type":"REFUND.ABNORMAL"}"#, Kind::Refund),
            (r#"{"event_type":"COUPON.USE"}"#, Kind::Other),
            (r#"{"event_type":7}"#, Kind::Other),
            (r#"{"summary":"TRANSACTION."}"#, Kind::Other),
        ] {
            assert_eq!(Kind::of_v3(body.as_bytes()), kind, "{body}");
        }
    }
}
