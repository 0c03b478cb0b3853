//! The admission of HTTP connections to a port of the process.

use std::sync::Arc;

use super::connection::Permit;
use super::server::Admit;
use crate::metrics::{Metrics, Unit};
use crate::{ConnectionLimit, Port};

/// Returns the decision about new connections to `port`. Those that are turned away are counted in `metrics` by limit.
pub fn admission(port: Port, metrics: &Metrics) -> Admit {
    let help = "HTTP connections closed unread, by limit";
    let counters = metrics.counters("http_turned_away_connections", Unit::Count, help, &["limit"]);
    let [descriptors, address] = [ConnectionLimit::Descriptors, ConnectionLimit::Address]
        .map(|limit| counters.with(&[limit.as_str()]));
    Arc::new(move |peer| match port.admit(peer) {
        Ok(place) => Some(Box::new(place) as Permit),
        Err(limit) => {
            match limit {
                ConnectionLimit::Descriptors => descriptors.inc(),
                ConnectionLimit::Address => address.inc(),
            }
            tracing::debug!(%peer, limit = limit.as_str(), "connection limit reached; connection closed");
            None
        }
    })
}
