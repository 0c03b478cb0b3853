//! The proxies that may speak for their clients: what `X-Forwarded-*` and `Forwarded` say is believed from these addresses only.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use crate::text_list::text_list;

/// Addresses read of one `X-Forwarded-For`, from its end: more proxies than any chain has.
const MAX_HOPS: usize = 32;

/// A network in CIDR notation, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// A text is neither an address nor a network in CIDR notation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither an IP address nor a network such as 10.0.0.0/8")]
pub struct NotANetwork(String);

impl Network {
    /// Returns true if the network contains `address`. An IPv4 address that is mapped into IPv6 counts as itself.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let shift = 32 - u32::from(self.prefix);
                let bits = |address: u32| address.checked_shr(shift).unwrap_or(0);
                bits(own.to_bits()) == bits(other.to_bits())
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let shift = 128 - u32::from(self.prefix);
                let bits = |address: u128| address.checked_shr(shift).unwrap_or(0);
                bits(own.to_bits()) == bits(other.to_bits())
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let refused = || NotANetwork(text.to_owned());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.trim().parse().map_err(|_| refused())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => longest,
            Some(prefix) => {
                prefix.trim().parse().ok().filter(|prefix| *prefix <= longest).ok_or_else(refused)?
            }
        };
        Ok(Self { address, prefix })
    }
}

/// The header in which proxies name the address they were connected from. A proxy writes one of them and passes the other on as the
/// client sent it, so only the configured one is believed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardedHeader {
    /// The usual one, a list of addresses.
    #[default]
    XForwardedFor,
    /// The one of RFC 7239, a list of parameters.
    Forwarded,
}

impl ForwardedHeader {
    /// Returns the header's name in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::XForwardedFor => "x-forwarded-for",
            Self::Forwarded => "forwarded",
        }
    }

    /// Returns the address in one element of the header's list; `None` if it is hidden or malformed.
    fn parse(self, element: &str) -> Option<IpAddr> {
        match self {
            Self::XForwardedFor => parse_hop(element),
            Self::Forwarded => {
                let is_for = |name: &str| name.trim().eq_ignore_ascii_case("for");
                let pairs = element.split(';').filter_map(|pair| pair.split_once('='));
                let (_, node) = pairs.into_iter().find(|(name, _)| is_for(name))?;
                parse_hop(node.trim().trim_matches('"'))
            }
        }
    }
}

/// The proxies and CDNs in front of a server, by network. Without any, no header is believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<Network>);

impl TrustedProxies {
    /// Creates the list of these networks.
    pub fn new(networks: Vec<Network>) -> Self {
        Self(networks)
    }

    /// Returns true if `peer` is one of the proxies.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(peer))
    }

    /// Returns the address of the client whose request came from `peer`, by `X-Forwarded-For`: see [`Self::client_by`].
    pub fn client<'a>(&self, peer: IpAddr, forwarded: impl DoubleEndedIterator<Item = &'a str>) -> IpAddr {
        self.client_by(ForwardedHeader::XForwardedFor, peer, forwarded)
    }

    /// Returns the address of the client whose request came from `peer`. Each proxy appends to the header the address it was
    /// connected from, so the client is the last address that is no proxy of the list; what stands before it is the
    /// client's word. `forwarded` are the values of the header in their order.
    pub fn client_by<'a>(
        &self,
        header: ForwardedHeader,
        peer: IpAddr,
        forwarded: impl DoubleEndedIterator<Item = &'a str>,
    ) -> IpAddr {
        let mut client = peer.to_canonical();
        let hops = forwarded.rev().flat_map(|value| value.rsplit(','));
        for hop in hops.take(MAX_HOPS) {
            if !self.trusts(client) {
                break;
            }
            // A malformed address is not a client's: the proxy that wrote it is the last one known.
            let Some(address) = header.parse(hop) else { break };
            client = address;
        }
        client
    }
}

/// Reads an address of `X-Forwarded-For`, with or without a port.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim();
    let address = hop.parse::<IpAddr>().or_else(|_| hop.parse::<SocketAddr>().map(|socket| socket.ip()));
    let bracketed = || hop.strip_prefix('[')?.strip_suffix(']')?.parse::<IpAddr>().ok();
    address.ok().or_else(bracketed).map(|address| address.to_canonical())
}

/// Reads a list of networks, or one text in which commas separate them, as environment variables give it.
impl<'de> Deserialize<'de> for TrustedProxies {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let networks = text_list(deserializer)?;
        networks.iter().map(|text| text.parse()).collect::<Result<_, _>>().map(Self).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(networks: &[&str]) -> TrustedProxies {
        TrustedProxies::new(networks.iter().map(|network| network.parse().unwrap()).collect())
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn network_contains_the_addresses_of_its_prefix() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.1.2", "11.0.0.1"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("192.0.2.0/25", "::ffff:192.0.2.127", "192.0.2.128"),
            ("2001:db8::/32", "2001:db8:1::5", "2001:db9::"),
            ("0.0.0.0/0", "203.0.113.9", "::1"),
            ("::/0", "::1", "127.0.0.1"),
        ] {
            let network: Network = network.parse().unwrap();
            assert!(network.contains(address(inside)), "{network:?} {inside}");
            assert!(!network.contains(address(outside)), "{network:?} {outside}");
        }
        for text in ["", "x", "10.0.0.0/33", "::1/129", "10.0.0.0/", "10.0.0/8"] {
            assert!(text.parse::<Network>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn client_is_the_last_forwarded_address_that_is_no_trusted_proxy() {
        let two = proxies(&["10.0.0.0/8", "198.51.100.0/24"]);
        for (peer, forwarded, client) in [
            ("203.0.113.9", &["192.0.2.1"][..], "203.0.113.9"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["192.0.2.1"], "192.0.2.1"),
            ("10.0.0.1", &["6.6.6.6, 192.0.2.1, 198.51.100.3"], "192.0.2.1"),
            ("10.0.0.1", &["6.6.6.6", "192.0.2.1", "10.0.0.9"], "192.0.2.1"),
            ("::ffff:10.0.0.1", &["[2001:db8::1]:4711"], "2001:db8::1"),
            ("10.0.0.1", &["192.0.2.1:5000"], "192.0.2.1"),
            ("10.0.0.1", &["192.0.2.1, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ] {
            assert_eq!(
                two.client(address(peer), forwarded.iter().copied()),
                address(client),
                "{peer} {forwarded:?}"
            );
        }
        let none = TrustedProxies::default();
        assert_eq!(none.client(address("10.0.0.1"), ["192.0.2.1"].into_iter()), address("10.0.0.1"));
    }

    #[test]
    fn client_is_read_of_forwarded_where_the_proxies_write_it() {
        let one = proxies(&["10.0.0.0/8"]);
        for (forwarded, client) in [
            (&["for=192.0.2.60;proto=http;by=203.0.113.43"][..], "192.0.2.60"),
            (&["for=6.6.6.6, For=\"[2001:db8:cafe::17]:4711\""], "2001:db8:cafe::17"),
            (&["for=6.6.6.6", "for=192.0.2.43;host=a, for=10.0.0.9"], "192.0.2.43"),
            (&["for=192.0.2.1, for=_hidden"], "10.0.0.1"),
            (&["for=192.0.2.1, for=unknown"], "10.0.0.1"),
            (&["192.0.2.1"], "10.0.0.1"),
            (&["proto=https;for=\"192.0.2.7:8080\""], "192.0.2.7"),
            (&["by=192.0.2.1"], "10.0.0.1"),
        ] {
            let found =
                one.client_by(ForwardedHeader::Forwarded, address("10.0.0.1"), forwarded.iter().copied());
            assert_eq!(found, address(client), "{forwarded:?}");
        }
        let read = |json: &str| serde_json::from_str::<ForwardedHeader>(json).ok();
        assert_eq!(read("\"x-forwarded-for\""), Some(ForwardedHeader::XForwardedFor));
        assert_eq!(read("\"forwarded\""), Some(ForwardedHeader::Forwarded));
    }

    #[test]
    fn trusted_proxies_are_read_from_a_list_or_from_one_text() {
        let both = proxies(&["10.0.0.0/8", "::1"]);
        let read = |json: &str| serde_json::from_str::<TrustedProxies>(json);
        assert_eq!(read(r#"["10.0.0.0/8", "::1"]"#).unwrap(), both);
        assert_eq!(read(r#""10.0.0.0/8, ::1""#).unwrap(), both);
        assert_eq!(read(r#""""#).unwrap(), TrustedProxies::default());
        assert!(read(r#"["nonsense"]"#).unwrap_err().to_string().contains("nonsense"));
    }
}
