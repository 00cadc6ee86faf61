//! Lists of networks: who may stand in front of ingress, and where WeChat sends from.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de::Error as _};

/// Networks and single addresses, in any order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// Reads a text with one network a line. A `#` begins a comment.
    ///
    /// # Errors
    /// The number of the first line that is neither a network nor an address.
    pub fn parse_lines(text: &str) -> Result<Self, usize> {
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()).enumerate();
        let entry = |(index, line)| parse(line).ok_or(index + 1);
        lines.filter(|(_, line)| !line.is_empty()).map(entry).collect::<Result<_, _>>().map(Self)
    }

    /// Whether the address is in one of them. An IPv4 address stays one in IPv6's clothes.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn parse(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

impl<'de> Deserialize<'de> for Networks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wrong = || D::Error::custom("expected networks such as [\"10.0.0.0/8\", \"192.0.2.7\"]");
        let texts = Vec::<String>::deserialize(deserializer).map_err(|_| wrong())?;
        texts.iter().map(|text| parse(text)).collect::<Option<_>>().map(Self).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_addresses_stand_side_by_side() {
        let list =
            Networks::parse_lines("# WeChat\n101.226.103.0/25 # Shanghai\n\n81.71.199.64\n2001:db8::/32\n").unwrap();
        for (address, inside) in [
            ("101.226.103.14", true),
            ("101.226.103.128", false),
            ("81.71.199.64", true),
            ("81.71.199.65", false),
            ("::ffff:101.226.103.14", true),
            ("2001:db8::1", true),
            ("2001:db9::1", false),
        ] {
            assert_eq!(list.contains(address.parse().unwrap()), inside, "{address}");
        }
        assert_eq!(Networks::parse_lines("10.0.0.0/8\n10.0.0.0/33"), Err(2));
        assert!(!Networks::default().contains("127.0.0.1".parse().unwrap()));
    }
}
