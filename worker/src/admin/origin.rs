//! Keeps other people's web pages away from the API.
//!
//! A browser on the operator's machine reaches the loopback, and whatever page is open in it can make it send requests.
//! Two questions, which `curl`, `wxpayctl` and backends answer rightly without knowing them: did a page of another origin
//! send this, and was it sent to a name that is surely ours? The second is for a page that had its own name resolve to the
//! loopback (DNS rebinding): to the browser it is of one origin with us.

use std::net::IpAddr;

use axum::{
    extract::{Request, State},
    http::{
        HeaderName, StatusCode,
        header::{HOST, ORIGIN},
        uri::{Authority, Uri},
    },
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::Failure;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Refuses what a page of another origin sent.
pub(super) async fn refuse_foreign_pages(request: Request, next: Next) -> Response {
    if is_foreign(&request) {
        return Failure::new(StatusCode::FORBIDDEN, "a web page of another origin sent this").into_response();
    }
    next.run(request).await
}

/// Refuses names that may be anybody's. With a token there is no need: a page that rebinds a name does not know it.
pub(super) async fn refuse_strange_names(State(has_token): State<bool>, request: Request, next: Next) -> Response {
    let host = header(&request, HOST).map(|host| host.parse::<Authority>().ok());
    let asked = request.uri().authority().cloned().map(Some);
    if !has_token && [host, asked].into_iter().flatten().any(|name| !name.is_some_and(|name| is_ours(&name))) {
        let problem = "without a token, this answers to localhost and IP addresses only; set worker.admin_token";
        return Failure::new(StatusCode::FORBIDDEN, problem).into_response();
    }
    next.run(request).await
}

/// By what every current browser says of its own accord; older ones say at least where a POST comes from.
fn is_foreign(request: &Request) -> bool {
    match (header(request, SEC_FETCH_SITE), header(request, ORIGIN)) {
        (Some(site), _) => !matches!(site, "same-origin" | "none"),
        (None, Some(origin)) => {
            let origin = origin.parse::<Uri>().ok().and_then(|origin| origin.authority().cloned());
            origin.is_none_or(|origin| header(request, HOST) != Some(origin.as_str()))
        }
        (None, None) => false,
    }
}

/// No name server can be made to say something else about these.
fn is_ours(name: &Authority) -> bool {
    let host = name.host();
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

/// A header as text; a value that is none is told apart from one that is absent.
fn header(request: &Request, name: HeaderName) -> Option<&str> {
    request.headers().get(name).map(|value| value.to_str().unwrap_or_default())
}
