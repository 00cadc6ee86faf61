//! What WeChat is told: one table of refusals, and the exact bytes of each reply.
//!
//! v2 looks at the XML's `return_code` and at nothing else, so a refusal has a status of its own only where HTTP itself
//! is at fault; v3 looks at the status and at nothing else. A reason is short, holds nothing that came in, and tells a
//! forger nothing that helps him.

use axum::{
    http::{
        HeaderValue, StatusCode,
        header::{CONNECTION, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use wxpay_shared::{
    envelope::Api,
    queue::PublishError,
    wechat::{v2_sign::SignRefusal, v2_xml::XmlError, v3_sign::V3Refusal},
};

/// The reply that ends WeChat's repeats. Byte for byte what the vendor's pages show.
pub const V2_SUCCESS: &str =
    "<xml><return_code><![CDATA[SUCCESS]]></return_code><return_msg><![CDATA[OK]]></return_msg></xml>";

/// Why a notification was not accepted. WeChat sends again after each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// As many requests as may be handled at a time are being handled.
    #[error("too many requests")]
    Overloaded,
    /// Not from one of WeChat's networks, where that is to be enforced.
    #[error("not from WeChat's networks")]
    ForeignSource,
    /// No merchant of this name, or none with a key for this protocol.
    #[error("unknown merchant")]
    UnknownMerchant,
    /// Not a POST.
    #[error("method not allowed")]
    MethodNotAllowed,
    /// More than [`crate::request::BODY_MAX`] bytes.
    #[error("body too large")]
    BodyTooLarge,
    /// The body did not arrive within [`crate::request::BODY_BUDGET`].
    #[error("body too slow")]
    BodyTimeout,
    /// The connection broke while the body was read.
    #[error("body unreadable")]
    BodyUnreadable,
    /// Not the format.
    #[error("{0}")]
    Xml(#[from] XmlError),
    /// Not WeChat's.
    #[error("{0}")]
    Sign(#[from] SignRefusal),
    /// Signed, but no notification.
    #[error("not a notification")]
    NotANotice,
    /// Signed, but for another merchant number.
    #[error("mch_id is not this merchant's")]
    MerchantMismatch,
    /// A v2 refund notice that does not open under the merchant's key.
    #[error("req_info cannot be opened")]
    Undecryptable,
    /// Not signed by WeChat, by v3's rules.
    #[error("{0}")]
    V3(#[from] V3Refusal),
    /// Authentic, but not durable.
    #[error("try again: {0}")]
    Publish(#[from] PublishError),
    /// A fault of ours.
    #[error("internal error")]
    Internal,
}

impl Refusal {
    /// The stable code, for logs and metrics.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Overloaded => "overloaded",
            Self::ForeignSource => "foreign_source",
            Self::UnknownMerchant => "unknown_merchant",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyTimeout => "body_timeout",
            Self::BodyUnreadable => "body_unreadable",
            Self::Xml(XmlError::Encoding) => "bad_encoding",
            Self::Xml(XmlError::Doctype) => "dtd_forbidden",
            Self::Xml(XmlError::Nested) => "nested_element",
            Self::Xml(XmlError::Duplicate) => "duplicate_field",
            Self::Xml(XmlError::TooManyFields) => "too_many_fields",
            Self::Xml(XmlError::Malformed) => "bad_xml",
            Self::Sign(SignRefusal::Missing) => "missing_sign",
            Self::Sign(SignRefusal::UnsupportedType) => "unsupported_sign_type",
            Self::Sign(SignRefusal::Wrong) => "bad_signature",
            Self::Sign(SignRefusal::Ambiguous) => "ambiguous_signature",
            Self::NotANotice => "not_a_notice",
            Self::MerchantMismatch => "merchant_mismatch",
            Self::Undecryptable => "decrypt_failed",
            Self::V3(refusal) => refusal.code(),
            Self::Publish(PublishError::NotConnected) => "queue_not_connected",
            Self::Publish(PublishError::Blocked) => "queue_blocked",
            Self::Publish(PublishError::Busy) => "queue_busy",
            Self::Publish(PublishError::Full) => "queue_full",
            Self::Publish(PublishError::Unroutable) => "queue_unroutable",
            Self::Publish(PublishError::Nacked) => "queue_nacked",
            Self::Publish(PublishError::Timeout) => "queue_timeout",
            Self::Publish(PublishError::Closed) => "queue_closed",
            Self::Internal => "internal",
        }
    }

    /// Whether it ends its connection. Whoever sends what is no notification asks anew for each, so that nobody can queue
    /// thousands of them and read no reply.
    const fn ends_the_connection(self) -> bool {
        !matches!(self, Self::Overloaded | Self::Publish(_) | Self::Internal)
    }

    /// v2 looks at the XML and at nothing else.
    const fn v2_status(self) -> StatusCode {
        match self {
            Self::UnknownMerchant => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Overloaded
            | Self::ForeignSource
            | Self::BodyUnreadable
            | Self::Xml(_)
            | Self::Sign(_)
            | Self::NotANotice
            | Self::MerchantMismatch
            | Self::Undecryptable
            | Self::V3(_)
            | Self::Publish(_) => StatusCode::OK,
        }
    }

    /// v3 looks at the status and at nothing else.
    const fn v3_status(self) -> StatusCode {
        match self {
            Self::UnknownMerchant
            | Self::MethodNotAllowed
            | Self::BodyTooLarge
            | Self::BodyTimeout
            | Self::Internal => self.v2_status(),
            Self::V3(
                V3Refusal::UnsupportedSignatureType
                | V3Refusal::StaleTimestamp
                | V3Refusal::UnknownSerial
                | V3Refusal::Expired
                | V3Refusal::Probe
                | V3Refusal::BadSignature,
            )
            | Self::Sign(_)
            | Self::Undecryptable
            | Self::MerchantMismatch => StatusCode::UNAUTHORIZED,
            Self::V3(
                V3Refusal::MissingHeader(_)
                | V3Refusal::DuplicateHeader(_)
                | V3Refusal::MalformedHeader(_)
                | V3Refusal::BadJson,
            )
            | Self::BodyUnreadable
            | Self::Xml(_)
            | Self::NotANotice => StatusCode::BAD_REQUEST,
            Self::ForeignSource => StatusCode::FORBIDDEN,
            Self::Overloaded | Self::Publish(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// SUCCESS: WeChat will not send this notification again.
#[must_use]
pub fn success(api: Api) -> Response {
    match api {
        Api::V2 => ([(CONTENT_TYPE, XML)], V2_SUCCESS).into_response(),
        Api::V3 => StatusCode::NO_CONTENT.into_response(),
    }
}

/// FAIL with the reason: WeChat will send it again.
#[must_use]
pub fn failure(route: Api, refusal: Refusal) -> Response {
    let mut reply = match route {
        Api::V2 => {
            let body = format!(
                "<xml><return_code><![CDATA[FAIL]]></return_code><return_msg><![CDATA[{refusal}]]></return_msg></xml>"
            );
            (refusal.v2_status(), [(CONTENT_TYPE, XML)], body).into_response()
        }
        Api::V3 => {
            let body = serde_json::json!({ "code": "FAIL", "message": refusal.to_string() });
            (refusal.v3_status(), axum::Json(body)).into_response()
        }
    };
    if refusal.ends_the_connection() {
        reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    reply
}

/// There is nothing at this path; asking for it again takes another connection.
pub async fn nobody() -> impl IntoResponse {
    (StatusCode::NOT_FOUND, [(CONNECTION, "close")])
}

const XML: &str = "text/xml; charset=utf-8";

#[cfg(test)]
mod tests {
    use wxpay_shared::wechat::v3_sign::SERIAL;

    use super::*;

    /// The refusals of each row of README.md's table, by how the row begins.
    const ROWS: [(&str, &[Refusal]); 10] = [
        (
            "broker away, blocked,",
            &[
                Refusal::Publish(PublishError::NotConnected),
                Refusal::Publish(PublishError::Blocked),
                Refusal::Publish(PublishError::Busy),
                Refusal::Publish(PublishError::Full),
                Refusal::Publish(PublishError::Unroutable),
                Refusal::Publish(PublishError::Nacked),
                Refusal::Publish(PublishError::Timeout),
                Refusal::Publish(PublishError::Closed),
                Refusal::Overloaded,
            ],
        ),
        ("not from WeChat's networks,", &[Refusal::ForeignSource]),
        ("no merchant of this name,", &[Refusal::UnknownMerchant]),
        (
            "sign missing or wrong,",
            &[
                Refusal::Sign(SignRefusal::Missing),
                Refusal::Sign(SignRefusal::UnsupportedType),
                Refusal::Sign(SignRefusal::Wrong),
                Refusal::Sign(SignRefusal::Ambiguous),
            ],
        ),
        ("`req_info` of a refund", &[Refusal::Undecryptable]),
        (
            "signature wrong, serial unknown,",
            &[
                Refusal::V3(V3Refusal::BadSignature),
                Refusal::V3(V3Refusal::UnsupportedSignatureType),
                Refusal::V3(V3Refusal::UnknownSerial),
                Refusal::V3(V3Refusal::Expired),
                Refusal::V3(V3Refusal::StaleTimestamp),
            ],
        ),
        ("signature probe", &[Refusal::V3(V3Refusal::Probe)]),
        (
            "header missing, twice",
            &[
                Refusal::V3(V3Refusal::MissingHeader(SERIAL)),
                Refusal::V3(V3Refusal::DuplicateHeader(SERIAL)),
                Refusal::V3(V3Refusal::MalformedHeader(SERIAL)),
                Refusal::V3(V3Refusal::BadJson),
            ],
        ),
        ("another merchant's `mch_id`", &[Refusal::MerchantMismatch]),
        (
            "not flat UTF-8 XML;",
            &[
                Refusal::Xml(XmlError::Encoding),
                Refusal::Xml(XmlError::Doctype),
                Refusal::Xml(XmlError::Nested),
                Refusal::Xml(XmlError::Duplicate),
                Refusal::Xml(XmlError::TooManyFields),
                Refusal::Xml(XmlError::Malformed),
            ],
        ),
    ];

    /// What a row says of v2 and of v3; nothing where it names no status.
    fn row(begin: &str) -> [Vec<String>; 2] {
        let readme = include_str!("../../README.md");
        let line = readme.lines().find(|line| line.starts_with(&format!("| {begin}"))).expect(begin);
        let cells: Vec<&str> = line.split('|').collect();
        let numbers = |cell: &str| {
            let words = cell.split(|at: char| !at.is_ascii_digit()).filter(|word| word.len() == 3);
            words.map(str::to_owned).collect()
        };
        [numbers(cells[2]), numbers(cells[3])]
    }

    #[test]
    fn the_readme_tells_each_status() {
        for (begin, refusals) in ROWS {
            let said = row(begin);
            assert!(said.iter().any(|status| !status.is_empty()), "{begin}");
            for refusal in refusals {
                for (api, said) in [Api::V2, Api::V3].into_iter().zip(&said) {
                    let status = failure(api, *refusal).status().as_str().to_owned();
                    assert!(said.is_empty() || *said == [status.clone()], "{refusal:?} on {api:?}: {status}, {said:?}");
                }
            }
        }
        let three = [Refusal::BodyTooLarge, Refusal::BodyTimeout, Refusal::MethodNotAllowed];
        let told = |api| three.map(|refusal| failure(api, refusal).status().as_str().to_owned());
        assert_eq!(row("body over 64 KiB"), [told(Api::V2).to_vec(), told(Api::V3).to_vec()]);
        assert_eq!(row("authentic, and the queue"), [["200"], ["204"]]);
        assert_eq!([success(Api::V2).status().as_u16(), success(Api::V3).status().as_u16()], [200, 204]);
    }
}
