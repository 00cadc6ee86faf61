//! What WeChat is told: one table of refusals, and the exact bytes of each reply.
//!
//! v2 looks at the XML's `return_code` and at nothing else, so a refusal has a status of its own only where HTTP itself
//! is at fault. A reason is short, holds nothing that came in, and tells a forger nothing that helps him.

use axum::{
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use wxpay_shared::{
    queue::PublishError,
    wechat::{v2_sign::SignRefusal, v2_xml::XmlError},
};

/// The reply that ends WeChat's repeats. Byte for byte what the vendor's pages show.
pub const V2_SUCCESS: &str =
    "<xml><return_code><![CDATA[SUCCESS]]></return_code><return_msg><![CDATA[OK]]></return_msg></xml>";

/// Why a notification was not accepted. WeChat sends again after each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
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
            Self::Publish(PublishError::NotConnected) => "queue_not_connected",
            Self::Publish(PublishError::Blocked) => "queue_blocked",
            Self::Publish(PublishError::Busy) => "queue_busy",
            Self::Publish(PublishError::Unroutable) => "queue_unroutable",
            Self::Publish(PublishError::Nacked) => "queue_nacked",
            Self::Publish(PublishError::Timeout) => "queue_timeout",
            Self::Publish(PublishError::Closed) => "queue_closed",
            Self::Internal => "internal",
        }
    }

    const fn v2_status(self) -> StatusCode {
        match self {
            Self::UnknownMerchant => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::BodyUnreadable
            | Self::Xml(_)
            | Self::Sign(_)
            | Self::NotANotice
            | Self::MerchantMismatch
            | Self::Publish(_) => StatusCode::OK,
        }
    }
}

/// SUCCESS: WeChat will not send this notification again.
#[must_use]
pub fn v2_success() -> Response {
    ([(CONTENT_TYPE, "text/xml; charset=utf-8")], V2_SUCCESS).into_response()
}

/// FAIL with the reason: WeChat will send it again.
#[must_use]
pub fn v2_failure(refusal: Refusal) -> Response {
    let body =
        format!("<xml><return_code><![CDATA[FAIL]]></return_code><return_msg><![CDATA[{refusal}]]></return_msg></xml>");
    (refusal.v2_status(), [(CONTENT_TYPE, "text/xml; charset=utf-8")], body).into_response()
}
