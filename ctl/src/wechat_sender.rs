//! WeChat's part: posts a notification, and reads the reply as WeChat would.
//!
//! What is posted is built by [`v2`] and [`v3`]. It is honest until it is changed: changes before the signature are
//! WeChat saying something else, changes after it are somebody on the way. Both are what tests and `wxpayctl simulate`
//! are for.

use std::{
    io::ErrorKind,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use jiff::{Timestamp, tz};
use reqwest::{
    Url,
    header::{ACCEPT, CONTENT_TYPE, PRAGMA, USER_AGENT},
};
use wxpay_shared::{
    envelope::Api,
    ids::{AppId, MchId, RefundId, TransactionId},
    wechat::v2_xml,
};

use crate::{client::http_client, random};

pub mod v2;
pub mod v3;

/// WeChat waits 5 s; a person who simulates wants to see how late a reply is, so this waits longer.
const REPLY_BUDGET: Duration = Duration::from_secs(20);
/// Of a reply that is not of the expected form, this much is shown.
const STRANGE_REPLY_MAX: usize = 200;

/// Who is paid, as WeChat names them.
#[derive(Clone, Debug)]
pub struct Payee {
    /// The merchant number; the provider's in service-provider mode.
    pub mch_id: MchId,
    /// The application; the provider's in service-provider mode.
    pub appid: AppId,
    /// The sub-merchant, in service-provider mode.
    pub sub_mch_id: Option<MchId>,
    /// The sub-merchant's application, where the order named one.
    pub sub_appid: Option<AppId>,
}

/// A new number for a payment: 28 digits, as WeChat's own have today.
///
/// # Panics
/// Never: it is made of digits.
#[must_use]
pub fn new_transaction_id(now: Timestamp) -> TransactionId {
    TransactionId::parse(&numbered("42", now)).expect("28 digits are a transaction_id")
}

/// A new number for a refund, as WeChat makes it.
///
/// # Panics
/// Never: it is made of digits.
#[must_use]
pub fn new_refund_id(now: Timestamp) -> RefundId {
    RefundId::parse(&numbered("50", now)).expect("28 digits are a refund_id")
}

fn numbered(prefix: &str, now: Timestamp) -> String {
    let day = tz::offset(8).to_datetime(now).strftime("%Y%m%d");
    format!("{prefix}{}{day}{}", random::digits::<8>(), random::digits::<10>())
}

/// A notification, ready to be posted. Who has seen one whole could replay it, so it is never shown whole.
#[derive(Clone)]
pub struct Outgoing {
    /// The protocol.
    pub api: Api,
    /// The headers that v3 adds, by name.
    pub headers: Vec<(&'static str, String)>,
    /// The exact bytes.
    pub body: String,
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outgoing").field("api", &self.api).finish_non_exhaustive()
    }
}

impl Outgoing {
    /// The same with this header, new or changed on the way.
    #[must_use]
    pub fn with_header(self, name: &'static str, value: String) -> Self {
        let mut changed = self.without_header(name);
        changed.headers.push((name, value));
        changed
    }

    /// The same without this header.
    #[must_use]
    pub fn without_header(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self
    }

    /// A header's value; empty where it is absent.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }
}

/// Posts notifications to one `notify_url`.
#[derive(Clone)]
pub struct Sender {
    http: reqwest::Client,
    url: Url,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The protocol of what was posted.
    pub api: Api,
    /// The HTTP status.
    pub status: u16,
    /// `SUCCESS` or `FAIL` as WeChat understands the reply (v2: the XML's `return_code`; v3: the status), or `None`
    /// where it is not of the expected form.
    pub return_code: Option<String>,
    /// What the receiver said, or the beginning of a body that is not of the expected form.
    pub return_msg: String,
    /// From the first byte sent to the last byte received.
    pub took: Duration,
}

impl Reply {
    /// Whether WeChat takes it as received.
    #[must_use]
    pub fn is_success(&self) -> bool {
        matches!(self.status, 200 | 204) && self.return_code.as_deref() == Some("SUCCESS")
    }

    /// Whether WeChat is plainly told to send again.
    #[must_use]
    pub fn is_fail(&self) -> bool {
        self.return_code.as_deref() == Some("FAIL")
    }

    /// In a word: the `return_code` in v2, the status in v3.
    #[must_use]
    pub fn word(&self) -> String {
        match self.api {
            Api::V2 => self.return_code.clone().unwrap_or_else(|| "?".to_owned()),
            Api::V3 => self.status.to_string(),
        }
    }

    fn read(api: Api, status: u16, body: &[u8], took: Duration) -> Self {
        let (read, form) = match api {
            Api::V2 => (read_v2(body), "XML"),
            Api::V3 => (read_v3(status, body), "JSON"),
        };
        if let Some((return_code, return_msg)) = read {
            return Self { api, status, return_code: Some(return_code), return_msg, took };
        }
        let shown: String = String::from_utf8_lossy(body).chars().take(STRANGE_REPLY_MAX).collect();
        Self { api, status, return_code: None, return_msg: format!("not the expected {form}: {shown:?}"), took }
    }
}

fn read_v2(body: &[u8]) -> Option<(String, String)> {
    let fields = v2_xml::parse(body, "xml").ok()?;
    Some((fields.get("return_code")?.to_owned(), fields.get("return_msg").unwrap_or("").to_owned()))
}

/// Only the status counts; a refusal must say so in JSON.
fn read_v3(status: u16, body: &[u8]) -> Option<(String, String)> {
    if matches!(status, 200 | 204) {
        return Some(("SUCCESS".to_owned(), String::new()));
    }
    let problem: serde_json::Value = serde_json::from_slice(body).ok()?;
    let text = |name: &str| problem.get(name)?.as_str().map(str::to_owned);
    (status >= 400 && text("code")? == "FAIL").then_some(("FAIL".to_owned(), text("message").unwrap_or_default()))
}

impl Sender {
    /// A sender to this address.
    ///
    /// # Errors
    /// Where TLS cannot be set up.
    pub fn new(url: Url) -> Result<Self> {
        Ok(Self { http: http_client(&url, REPLY_BUDGET)?, url })
    }

    /// Posts a notification once.
    ///
    /// # Errors
    /// Where no reply comes back.
    pub async fn post(&self, outgoing: &Outgoing) -> Result<Reply> {
        let begun = Instant::now();
        let content_type = match outgoing.api {
            Api::V2 => "text/xml",
            Api::V3 => "application/json",
        };
        let mut request = self
            .http
            .post(self.url.clone())
            .header(USER_AGENT, "Mozilla/4.0")
            .header(CONTENT_TYPE, content_type)
            .header(ACCEPT, "*/*")
            .header(PRAGMA, "no-cache")
            .body(outgoing.body.clone());
        for (name, value) in &outgoing.headers {
            request = request.header(*name, value);
        }
        let response = request.send().await.map_err(|error| self.unanswered(error))?;
        let status = response.status().as_u16();
        let body = response.bytes().await.map_err(|error| self.unanswered(error))?;
        Ok(Reply::read(outgoing.api, status, &body, begun.elapsed()))
    }

    fn unanswered(&self, error: reqwest::Error) -> anyhow::Error {
        let url = &self.url;
        if is_refused(&error) {
            anyhow!("nothing answers at {url}: start `wxpayctl serve` or `wxpay-ingress`, or correct --url")
        } else if error.is_timeout() {
            anyhow!("no reply from {url} within {} s; WeChat waits 5 s", REPLY_BUDGET.as_secs())
        } else {
            let what = if error.is_connect() { "no connection to" } else { "no whole reply from" };
            anyhow::Error::new(error.without_url()).context(format!("{what} {url}"))
        }
    }
}

/// Nothing listens there, which is no fault of a certificate, say.
fn is_refused(error: &reqwest::Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<std::io::Error>().is_some_and(|it| it.kind() == ErrorKind::ConnectionRefused) {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_read_as_wechat_reads_it() {
        let read = |status, body: &str| Reply::read(Api::V2, status, body.as_bytes(), Duration::ZERO);
        let success =
            "<xml><return_code><![CDATA[SUCCESS]]></return_code><return_msg><![CDATA[OK]]></return_msg></xml>";
        assert!(read(200, success).is_success() && !read(502, success).is_success());
        assert!(read(200, "<xml><return_code>FAIL</return_code></xml>").is_fail());
        let strange = read(200, "success");
        assert!(!strange.is_success() && !strange.is_fail());
        assert_eq!(strange.return_msg, "not the expected XML: \"success\"");

        let read = |status, body: &str| Reply::read(Api::V3, status, body.as_bytes(), Duration::ZERO);
        assert!(read(204, "").is_success() && read(200, r#"{"code":"FAIL"}"#).is_success());
        assert!(read(401, r#"{"code":"FAIL","message":"no"}"#).is_fail());
        for (status, body) in [(404, ""), (500, "<html>"), (302, r#"{"code":"FAIL"}"#), (201, "")] {
            let strange = read(status, body);
            assert!(!strange.is_success() && !strange.is_fail(), "{status} {body}");
        }
    }

    #[test]
    fn numbers_are_as_long_as_wechats() {
        let now = "2026-03-18T02:20:30Z".parse().unwrap();
        assert_eq!(new_transaction_id(now).as_str().len(), 28);
        assert_eq!(&new_refund_id(now).as_str()[10..18], "20260318");
    }
}
