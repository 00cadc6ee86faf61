//! The console's listener: what it serves, what it tells the browser, and whom it refuses.

use reqwest::{Method, RequestBuilder, StatusCode, header};
use serde_json::json;
use wxpay_shared::reason::Reason;

use crate::{
    deploy::{read, root},
    harness::pair::Pair,
};

mod browser;

/// Long enough that nobody guesses it.
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Both programs in one process, with an admin token where `token` is given.
async fn together(token: Option<&str>) -> Pair {
    let mut pair = Pair::prepare("embedded");
    if let Some(token) = token {
        pair.set_admin_token(token);
    }
    pair.start_serve();
    pair.worker_ready().await;
    pair
}

fn assets() -> Vec<(String, String)> {
    let folder = std::fs::read_dir(root().join("worker/console")).unwrap();
    let names = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let assets: Vec<_> = names.map(|name| (name.clone(), read(&format!("worker/console/{name}")))).collect();
    assert!(assets.len() > 5, "the files are found");
    assets
}

#[tokio::test(flavor = "multi_thread")]
async fn every_file_is_served_as_it_is_with_headers_that_trust_nothing_else() {
    let pair = together(None).await;
    let mut paths =
        vec![("/queue".to_owned(), "application/json", None), ("/nowhere".to_owned(), "application/json", None)];
    for (name, content) in assets() {
        let (path, kind) = match name.rsplit_once('.').unwrap().1 {
            "html" => ("/".to_owned(), "text/html; charset=utf-8"),
            "css" => (format!("/console/{name}"), "text/css; charset=utf-8"),
            _ => (format!("/console/{name}"), "text/javascript; charset=utf-8"),
        };
        paths.push((path, kind, Some(content)));
    }
    for (path, kind, content) in paths {
        let answer = pair.client.get(pair.admin_url(&path)).send().await.unwrap();
        let head = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(head("content-type"), kind, "{path}");
        assert_eq!(head("x-content-type-options"), "nosniff");
        assert_eq!(head("referrer-policy"), "no-referrer");
        assert_eq!(head("cache-control"), "no-store");
        assert_eq!(
            head("content-security-policy"),
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        if let Some(content) = content {
            assert_eq!(answer.status(), 200, "{path}");
            assert_eq!(answer.text().await.unwrap(), content, "{path}");
        }
    }
}

/// Texts between quotes that begin with `start`, without it.
fn quoted<'a>(content: &'a str, start: &'a str) -> impl Iterator<Item = &'a str> {
    content.split(start).skip(1).filter_map(|rest| rest.split('"').next())
}

#[test]
fn the_bundle_refers_to_its_own_files_only_and_builds_no_markup() {
    let assets = assets();
    let served = read("worker/src/console.rs");
    for (name, content) in &assets {
        assert!(served.contains(&format!("\"{name}\"")) || name == "index.html", "{name} is not served");
        for import in quoted(content, "from \"./").chain(quoted(content, "=\"console/")) {
            assert!(assets.iter().any(|(name, _)| name == import), "{name}: there is no {import}");
        }
        for forbidden in [
            "http://",
            "https://",
            "url(",
            "@import",
            "innerHTML",
            "outerHTML",
            "insertAdjacent",
            "document.write",
            "eval(",
            "style=",
        ] {
            assert!(!content.contains(forbidden), "{name}: {forbidden}");
        }
        assert!(
            content.starts_with("//") || content.starts_with("/*") || name == "index.html",
            "{name} says its duty first"
        );
    }
}

#[test]
fn every_reason_has_a_name_and_a_cure_in_chinese() {
    let reasons = read("worker/console/reasons.js");
    for reason in Reason::ALL {
        let line = reasons.lines().find(|line| line.trim_start().starts_with(&format!("{reason}: [")));
        let line = line.unwrap_or_else(|| panic!("{reason} is missing"));
        assert_eq!(line.matches("\", \"").count(), 2, "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_origin_can_neither_act_nor_look() {
    let pair = together(None).await;
    let own = pair.admin_url("");
    let order = json!({ "merchant": "shop", "out_trade_no": "A1", "amount": 100 });
    let register = || pair.client.post(pair.admin_url("/orders")).json(&order);
    let requests: [(&str, &dyn Fn() -> RequestBuilder); 3] = [
        ("POST /orders", &register),
        ("POST close", &|| pair.client.post(pair.admin_url("/orders/shop/A1/close"))),
        ("GET /dead-letters", &|| pair.client.get(pair.admin_url("/dead-letters"))),
    ];
    for (name, request) in requests {
        for (header, value) in [
            ("Sec-Fetch-Site", "cross-site"),
            ("Sec-Fetch-Site", "same-site"),
            ("Origin", "https://evil.example"),
            ("Origin", "http://127.0.0.1:1"),
            ("Origin", "null"),
        ] {
            let answer = request().header(header, value).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{name} with {header}: {value}");
        }
    }
    let unknown = pair.client.get(pair.admin_url("/orders/shop/A1")).send().await.unwrap();
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND, "nothing was registered");

    // A form can be sent without asking first, but not as JSON.
    let form =
        pair.client.post(pair.admin_url("/orders")).header(header::CONTENT_TYPE, "text/plain").body(order.to_string());
    assert_eq!(form.send().await.unwrap().status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    // Nobody else is ever told that a page of theirs may read this.
    let preflight =
        pair.client.request(Method::OPTIONS, pair.admin_url("/orders")).header("Origin", "https://evil.example");
    let preflight = preflight.header("Access-Control-Request-Method", "POST").send().await.unwrap();
    assert!(!preflight.headers().contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));

    for (header, value) in [("Sec-Fetch-Site", "same-origin"), ("Origin", own.as_str()), ("X-Program", "curl")] {
        let answer = register().header(header, value).send().await.unwrap();
        assert!(answer.status().is_success(), "{header}: {value}");
    }
    // A link to the console from elsewhere works; what it shows asks for itself.
    let link = pair.client.get(pair.admin_url("/")).header("Sec-Fetch-Site", "cross-site").send().await.unwrap();
    assert_eq!(link.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_only_names_that_are_surely_ours_are_answered() {
    let asked = async |pair: &Pair, path: &str, host: &str| {
        let request = pair.client.get(pair.admin_url(path)).header(header::HOST, host).bearer_auth(TOKEN);
        request.send().await.unwrap().status().as_u16()
    };
    let pair = together(None).await;
    for path in ["/", "/console/app.js", "/queue", "/metrics"] {
        for ours in ["127.0.0.1", "127.0.0.1:8082", "localhost:8082", "LOCALHOST", "[::1]:8082", "10.0.0.7"] {
            assert_eq!(asked(&pair, path, ours).await, 200, "{path} at {ours}");
        }
        for strange in [
            "evil.example",
            "evil.example:8082",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "a b",
            "2130706433",
        ] {
            assert_eq!(asked(&pair, path, strange).await, 403, "{path} at {strange}");
        }
    }
    let pair = together(Some(TOKEN)).await;
    assert_eq!(asked(&pair, "/queue", "worker.example").await, 200, "whoever knows the token is no stranger");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_token_the_page_is_there_and_the_data_is_not() {
    let pair = together(Some(TOKEN)).await;
    let get = async |path: &str, token: Option<&str>| {
        let mut request = pair.client.get(pair.admin_url(path));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        request.send().await.unwrap().status().as_u16()
    };
    for path in ["/", "/console/app.js", "/readyz", "/metrics"] {
        assert_eq!(get(path, None).await, 200, "{path}");
    }
    for path in ["/queue", "/merchants", "/dead-letters", "/orders/shop/A1"] {
        assert_eq!(get(path, None).await, 401, "{path}");
        assert_eq!(get(path, Some("0123456789abcdef0123456789abcdeX")).await, 401, "{path}");
    }
    assert_eq!(get("/queue", Some(TOKEN)).await, 200);
}
