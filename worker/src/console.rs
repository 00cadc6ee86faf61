//! The console: a page for people, on the admin API's listener, as a handful of files within the program.
//!
//! The files hold no data; what the page shows it asks of the API, as any client does. Every answer of the listener, the
//! API's too, tells the browser to trust nothing but these files.

use axum::{
    Router,
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
    routing::get,
};

/// Scripts, styles and requests from this origin only; nothing inline, no frame around it, no form that leaves.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! files {
    ($($kind:ident $name:literal),+ $(,)?) => {
        [$(($name, $kind, include_str!(concat!("../console/", $name)))),+]
    };
}

/// Path below `/console/`, media type, content.
const FILES: [(&str, &str, &str); 12] = files![
    CSS "app.css",
    SCRIPT "app.js",
    SCRIPT "api.js",
    SCRIPT "text.js",
    SCRIPT "reasons.js",
    SCRIPT "format.js",
    SCRIPT "dom.js",
    SCRIPT "metrics.js",
    SCRIPT "overview.js",
    SCRIPT "orders.js",
    SCRIPT "dead_letters.js",
    SCRIPT "desk.js",
];

/// The page at `/` and its files.
pub(crate) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let page = get(async || ([(header::CONTENT_TYPE, HTML)], include_str!("../console/index.html")));
    FILES.into_iter().fold(Router::new().route("/", page), |router, (name, kind, content)| {
        let file = get(async move || ([(header::CONTENT_TYPE, kind)], content).into_response());
        router.route(&format!("/console/{name}"), file)
    })
}

/// What every answer tells the browser.
pub(crate) async fn headers(mut response: Response) -> Response {
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
