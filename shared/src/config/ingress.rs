//! The section of the public side.

use std::{net::SocketAddr, path::PathBuf};

use serde::Deserialize;

use super::number;
use crate::networks::Networks;

/// The public side.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ingress {
    /// Where WeChat's notifications arrive.
    pub listen: SocketAddr,
    /// Where `/healthz` and `/readyz` answer.
    pub ops_listen: SocketAddr,
    /// A file with the certificate chain (PEM) for TLS at `listen`; without one it speaks plain HTTP.
    pub tls_certificate: Option<PathBuf>,
    /// The file with the certificate's private key (PEM).
    pub tls_key_file: Option<PathBuf>,
    /// Requests at a time; more are refused at once.
    #[serde(deserialize_with = "number")]
    pub requests: u32,
    /// The proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Networks,
    /// What becomes of a notification from elsewhere than WeChat's networks.
    pub source_networks: SourcePolicy,
    /// A file with WeChat's networks, one a line, instead of the built-in list.
    pub source_networks_file: Option<PathBuf>,
}

/// What becomes of a notification from elsewhere than WeChat's networks. Its signature is checked in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourcePolicy {
    /// Nobody looks.
    #[default]
    Off,
    /// It is counted.
    Report,
    /// It is counted and refused.
    Enforce,
}

impl Ingress {
    /// What it speaks at `listen`: `https` with a certificate, else `http`.
    #[must_use]
    pub const fn scheme(&self) -> &'static str {
        if self.tls_certificate.is_some() { "https" } else { "http" }
    }
}

impl Default for Ingress {
    fn default() -> Self {
        Self {
            listen: ([127, 0, 0, 1], 8080).into(),
            ops_listen: ([127, 0, 0, 1], 8081).into(),
            tls_certificate: None,
            tls_key_file: None,
            requests: 4096,
            trusted_proxies: Networks::default(),
            source_networks: SourcePolicy::Off,
            source_networks_file: None,
        }
    }
}
