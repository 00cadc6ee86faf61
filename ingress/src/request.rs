//! Step 1: the request's raw bytes, read once, within bounds, for a merchant that we know.
//!
//! Takes no notice of Content-Type, which WeChat and the proxies before us choose freely. What comes out is what later
//! steps verify, seal and publish: the same bytes.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    extract::Request,
    http::{HeaderMap, Method, header::CONTENT_LENGTH},
};
use http_body_util::{BodyExt as _, LengthLimitError};
use tokio::time::timeout;
use wxpay_shared::merchant::{Merchant, Merchants};

use crate::reply::Refusal;

/// The largest body. Real notices have 1 to 3 kB, with promotion details up to 10 kB.
pub const BODY_MAX: usize = 64 * 1024;
/// The time for the body to arrive. WeChat waits 5 s in all, and the publish may need 3 s of them.
pub const BODY_BUDGET: Duration = Duration::from_millis(1500);
/// How much of a body that is too large is read and thrown away, so that its sender gets to read our answer.
const DRAIN_MAX: usize = 1024 * 1024;

/// A notification that nobody has checked yet.
pub struct Notification<'m> {
    /// On whose path it came.
    pub merchant: &'m Merchant,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its bytes.
    pub body: Bytes,
}

impl Notification<'_> {
    /// Its bytes alone, in memory of their own. What was received lies in a larger buffer of the connection, headers and
    /// all; that one is free again from here on, while the broker is asked.
    #[must_use]
    pub fn into_body(self) -> Bytes {
        Bytes::copy_from_slice(&self.body)
    }
}

/// Reads a request on `/v2/{merchant}` or `/v3/{merchant}`.
///
/// # Errors
/// [`Refusal`]: not a POST, no such merchant, too large, too slow.
pub async fn read(request: Request, merchants: &Merchants) -> Result<Notification<'_>, Refusal> {
    if request.method() != Method::POST {
        return Err(Refusal::MethodNotAllowed);
    }
    let merchant = merchant_of(request.uri().path(), merchants).ok_or(Refusal::UnknownMerchant)?;
    let (head, body) = request.into_parts();
    let announced = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let body = timeout(BODY_BUDGET, read_body(body, announced)).await.map_err(|_| Refusal::BodyTimeout)??;
    Ok(Notification { merchant, headers: head.headers, body })
}

/// The merchant whose name is the last part of the path.
pub fn merchant_of<'m>(path: &str, merchants: &'m Merchants) -> Option<&'m Merchant> {
    path.trim_end_matches('/').rsplit('/').next().and_then(|name| merchants.get(name))
}

async fn read_body(body: Body, announced: Option<usize>) -> Result<Bytes, Refusal> {
    if announced.is_none_or(|length| length <= BODY_MAX) {
        return axum::body::to_bytes(body, BODY_MAX).await.map_err(|error| {
            let too_large = error.into_inner().is::<LengthLimitError>();
            if too_large { Refusal::BodyTooLarge } else { Refusal::BodyUnreadable }
        });
    }
    let (mut rest, mut drained) = (body, 0);
    while let Some(Ok(frame)) = rest.frame().await {
        drained += frame.data_ref().map_or(0, Bytes::len);
        if drained > DRAIN_MAX {
            tracing::debug!("gave up draining a body that is too large");
            break;
        }
    }
    Err(Refusal::BodyTooLarge)
}
