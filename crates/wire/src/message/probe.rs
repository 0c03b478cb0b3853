//! A publisher session's probe of its own connection to the bus.

use serde::{Deserialize, Serialize};

use crate::topic::Message;

/// Published by a publisher session on `loop.{session}` to itself. A worker's missing heartbeats count as its failure only
/// while these probes come back; otherwise the session's own connection is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Loopback {}

impl Message for Loopback {}
