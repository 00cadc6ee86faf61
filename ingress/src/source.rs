//! Where a request really comes from, and whether WeChat sends from there.
//!
//! This is a second fence and no proof: what a notification is worth, its signature says. `X-Forwarded-For` is read from
//! its end, as far as the proxies that added to it are trusted; what a client wrote into it itself is never believed.

use std::net::IpAddr;

use axum::{extract::Request, http::HeaderMap};
use wxpay_shared::{
    config::{Config, ConfigError, SourcePolicy},
    http::Peer,
    metric,
    networks::Networks,
};

use crate::reply::Refusal;

const FORWARDED_FOR: &str = "x-forwarded-for";
/// What WeChat publishes.
const PUBLISHED: &str = include_str!("../data/wechat-networks.txt");

/// Whom to believe, and what to do with strangers.
#[derive(Debug, Default)]
pub struct Sources {
    trusted_proxies: Networks,
    policy: SourcePolicy,
    networks: Networks,
}

impl Sources {
    /// As configured.
    ///
    /// # Errors
    /// [`ConfigError`] for a file of networks that cannot be read.
    pub fn open(config: &Config) -> Result<Self, ConfigError> {
        let setting = "ingress.source_networks_file";
        let networks = match &config.ingress.source_networks_file {
            None => Networks::parse_lines(PUBLISHED)
                .map_err(|line| ConfigError::new(setting, format!("the built-in list is damaged in line {line}")))?,
            Some(file) => {
                let path = config.path(file);
                let problem = |problem: String| ConfigError::new(setting, format!("{}{problem}", path.display()));
                let text = std::fs::read_to_string(&path).map_err(|error| problem(format!(": {error}")))?;
                Networks::parse_lines(&text).map_err(|line| problem(format!(":{line}: expected a network")))?
            }
        };
        let (trusted_proxies, policy) = (config.ingress.trusted_proxies.clone(), config.ingress.source_networks);
        Ok(Self { trusted_proxies, policy, networks })
    }

    /// Looks where a request comes from, if anybody wants to know.
    ///
    /// # Errors
    /// [`Refusal::ForeignSource`] where that is to be enforced.
    pub(crate) fn check(&self, request: &Request) -> Result<(), Refusal> {
        if self.policy == SourcePolicy::Off {
            return Ok(());
        }
        let source = request.extensions().get::<Peer>().map(|peer| self.of(peer.0.ip(), request.headers()));
        if source.is_some_and(|source| self.networks.contains(source)) {
            return Ok(());
        }
        metric::foreign_source();
        tracing::debug!(?source, "a notification comes from elsewhere than WeChat's networks");
        if self.policy == SourcePolicy::Enforce { Err(Refusal::ForeignSource) } else { Ok(()) }
    }

    /// The address from which a request was sent, over all proxies that are trusted.
    fn of(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut source = peer;
        let lists = headers.get_all(FORWARDED_FOR).iter().rev();
        let addresses = lists.flat_map(|list| list.to_str().unwrap_or("").rsplit(',')).map(str::trim);
        for address in addresses {
            if !self.trusted_proxies.contains(source) {
                break;
            }
            // A proxy that writes something else hides where the request comes from; then it is the proxy's.
            let Ok(address) = address.parse() else { break };
            source = address;
        }
        source
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn only_named_proxies_say_who_was_before_them() {
        let sources = Sources {
            trusted_proxies: Networks::parse_lines("10.0.0.0/8").unwrap(),
            policy: SourcePolicy::Enforce,
            networks: Networks::parse_lines(PUBLISHED).unwrap(),
        };
        let of = |peer: &str, lists: &[&str]| {
            let mut headers = HeaderMap::new();
            for list in lists {
                headers.append(FORWARDED_FOR, list.parse().unwrap());
            }
            sources.of(address(peer), &headers)
        };
        let wechat = "101.226.103.14";
        assert_eq!(of("203.0.113.9", &[wechat]), address("203.0.113.9"), "a stranger's header is not believed");
        assert_eq!(of("10.0.0.1", &[wechat]), address(wechat));
        assert_eq!(of("10.0.0.1", &["1.2.3.4, 101.226.103.14, 10.0.0.2"]), address(wechat), "over two proxies");
        assert_eq!(of("10.0.0.1", &[wechat, "203.0.113.9"]), address("203.0.113.9"), "the last list is the nearest");
        assert_eq!(of("10.0.0.1", &["101.226.103.14, unknown"]), address("10.0.0.1"));
        assert_eq!(of("10.0.0.1", &[]), address("10.0.0.1"));
        assert!(sources.networks.contains(address(wechat)));
    }

    #[test]
    fn strangers_are_passed_counted_or_refused() {
        let request = |ip: &str| {
            let mut request = Request::new(axum::body::Body::empty());
            request.extensions_mut().insert(Peer((address(ip), 1).into()));
            request
        };
        for (policy, answer) in [
            (SourcePolicy::Off, Ok(())),
            (SourcePolicy::Report, Ok(())),
            (SourcePolicy::Enforce, Err(Refusal::ForeignSource)),
        ] {
            let networks = Networks::parse_lines(PUBLISHED).unwrap();
            let sources = Sources { policy, networks, trusted_proxies: Networks::default() };
            assert_eq!(sources.check(&request("203.0.113.9")), answer);
            assert_eq!(sources.check(&request("140.207.54.1")), Ok(()));
        }
    }
}
