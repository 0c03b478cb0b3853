//! The ways in which a viewer shows itself, and the keyed hashes under which it is known outside this process.
//!
//! The key is random, shared by all edges and replaced every day ([`Salt`]), so that a hash leads to no address and nothing joins two
//! days. It is keyed with the livestream too: one viewer has other hashes at other livestreams.

use std::net::IpAddr;

use hmac::{Hmac, Mac};
use millrace_runtime::Secret;
use millrace_wire::ids::StreamId;
use sha2::Sha256;

/// Bytes of the day's key.
pub const SALT_BYTES: usize = 32;

/// The key of one day's hashes.
#[derive(Debug, Clone)]
pub struct Salt {
    /// Days since 1970 (UTC).
    pub day: u64,
    /// The random key, the same on all edges.
    pub key: Secret<Vec<u8>>,
}

/// The origin of a request: the viewer's address, as far as trusted proxies tell, and its user agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Client<'a> {
    /// The address that the request came from.
    pub address: IpAddr,
    /// The value of the header `User-Agent`, empty without one.
    pub agent: &'a [u8],
}

/// The way in which a viewer shows itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Identity<'a> {
    /// Requests for playlists and media without an id.
    Requests,
    /// Requests with a session id of CMCD.
    Cmcd(&'a str),
    /// The heartbeats of a session that this cluster has signed; the random part of its id.
    Beacon(u128),
    /// A WebSocket whose page has given the viewer an id.
    Watch(&'a str),
}

impl Identity<'_> {
    /// Returns the first character of the viewer's id, one of [`millrace_state::VIEWER_KINDS`].
    pub(super) const fn kind(&self) -> char {
        match self {
            Self::Requests => 'r',
            Self::Cmcd(_) => 'c',
            Self::Beacon(_) => 'b',
            Self::Watch(_) => 'w',
        }
    }
}

impl Salt {
    /// Returns the group of a client among the viewers of `stream`.
    pub(super) fn group(&self, stream: StreamId, client: &Client<'_>) -> u64 {
        let address = match client.address.to_canonical() {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            IpAddr::V6(address) => address.octets(),
        };
        self.hash(stream, &[b"client\0", &address, client.agent]) as u64
    }

    /// Returns the id of a viewer of `stream`, without its kind. Requests have no id but their group.
    pub(super) fn viewer(&self, stream: StreamId, identity: &Identity<'_>, group: u64) -> u128 {
        match identity {
            Identity::Requests => u128::from(group),
            // Random already, and known to no one but the viewer.
            Identity::Beacon(number) => *number,
            Identity::Cmcd(sid) => self.hash(stream, &[b"cmcd\0", sid.as_bytes()]),
            Identity::Watch(id) => self.hash(stream, &[b"watch\0", id.as_bytes()]),
        }
    }

    fn hash(&self, stream: StreamId, parts: &[&[u8]]) -> u128 {
        // Exposed only as the key of the MAC; HMAC takes keys of any length (RFC 2104 §2).
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.key.expose()) else { return 0 };
        mac.update(stream.to_string().as_bytes());
        for part in parts {
            mac.update(part);
        }
        let digest = mac.finalize().into_bytes();
        digest.iter().take(size_of::<u128>()).fold(0, |number, byte| number << 8 | u128::from(*byte))
    }
}
