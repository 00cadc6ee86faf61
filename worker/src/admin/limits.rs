//! The bounds of a request's body: read whole, at once, before anybody looks at it.

use std::time::Duration;

use axum::{
    body::to_bytes,
    extract::Request,
    http::StatusCode,
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use tokio::time::timeout;

use super::Failure;

/// The largest body, but for an import. A selection of 10,000 dead letters by their ids has 400 kB.
pub(super) const BODY_MAX: usize = 1 << 20;
/// The time for it to arrive.
const BODY_BUDGET: Duration = Duration::from_secs(10);

pub(super) async fn body(max: usize, request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    match timeout(BODY_BUDGET, to_bytes(body, max)).await {
        Ok(Ok(bytes)) => next.run(Request::from_parts(head, bytes.into())).await,
        Ok(Err(_)) => Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large or broke off").into_response(),
        Err(_) => Failure::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time").into_response(),
    }
}
