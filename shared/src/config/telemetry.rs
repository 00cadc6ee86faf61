//! The section of traces.

use axum::http::Uri;
use serde::{Deserialize, Deserializer};

/// Where traces go.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// The base address of a collector that takes OTLP over HTTP; without one there are no traces.
    #[serde(deserialize_with = "address")]
    otlp_endpoint: Option<String>,
}

impl Telemetry {
    /// Where spans are posted; `None` while there are no traces.
    #[must_use]
    pub fn traces_url(&self) -> Option<String> {
        self.otlp_endpoint.as_ref().map(|base| format!("{}/v1/traces", base.trim_end_matches('/')))
    }
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let usable = |uri: Uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.query().is_none();
    if text.parse().is_ok_and(usable) {
        return Ok(Some(text));
    }
    Err(serde::de::Error::custom("expected an address such as http://127.0.0.1:4318"))
}
