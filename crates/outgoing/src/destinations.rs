//! The addresses that a client may connect to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// The addresses that requests may go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destinations {
    /// Every address: the URL was named by the operator, whose services are usually private.
    Any,
    /// Addresses of the public Internet alone: the URL was named by the owner of a stream, who must not reach the
    /// operator's network or a cloud's metadata service through this node.
    Public,
}

impl Destinations {
    /// Returns true if a request may go to `address`.
    pub fn allows(self, address: IpAddr) -> bool {
        match (self, address.to_canonical()) {
            (Self::Any, _) => true,
            (Self::Public, IpAddr::V4(address)) => is_public_v4(address),
            (Self::Public, IpAddr::V6(address)) => is_public_v6(address),
        }
    }
}

/// Returns false for the ranges of RFC 6890 that are not globally reachable, and for multicast.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let shared = a == 100 && (64..128).contains(&b);
    let protocol_assignments = a == 192 && b == 0 && c == 0;
    let relay = a == 192 && b == 88 && c == 99;
    let benchmarks = a == 198 && (18..20).contains(&b);
    !(a == 0
        || a >= 224
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || shared
        || protocol_assignments
        || relay
        || benchmarks)
}

/// Returns true for global unicast (2000::/3) without the ranges in it that lead elsewhere: protocol assignments and
/// Teredo (2001::/23), documentation (2001:db8::/32, 3fff::/20) and 6to4 (2002::/16), which embeds an IPv4 address.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    let global = first & 0xe000 == 0x2000;
    let assignments = first == 0x2001 && second < 0x0200;
    let documentation = (first == 0x2001 && second == 0x0db8) || (first == 0x3fff && second < 0x1000);
    global && !assignments && !documentation && first != 0x2002
}

/// The text of an address that is refused; the client recognises it in the error of a look-up.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the name resolves to no address that requests may go to")]
pub(crate) struct Forbidden;

/// Resolves names with the system's resolver and hands on the allowed addresses alone; the client connects to these.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CheckedResolver(pub(crate) Destinations);

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let destinations = self.0;
        Box::pin(async move {
            // The connector puts the URL's port in place of 0.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> =
                found.filter(|address| destinations.allows(address.ip())).collect();
            if allowed.is_empty() {
                return Err(Forbidden.into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_destinations_leave_out_every_private_and_special_range() {
        let allowed = |text: &str| Destinations::Public.allows(text.parse().unwrap());
        for public in ["8.8.8.8", "93.184.216.34", "100.63.0.1", "172.32.0.1", "2606:2800:220:1::1"] {
            assert!(allowed(public), "{public}");
        }
        let special = [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::1",
        ];
        for special in special {
            assert!(!allowed(special), "{special}");
            assert!(Destinations::Any.allows(special.parse().unwrap()), "{special}");
        }
    }
}
