//! Reports of nodes: control asks all nodes at once, and each answers with what it is and which actors it runs.

use serde::{Deserialize, Serialize};

use crate::ids::{NodeId, UnixMillis};
use crate::topic::Message;

/// Actors in one report at most: with the longest texts they stay within the report's length.
pub const MAX_REPORTED_ACTORS: usize = 300;

/// The question to all nodes. Nodes that it does not select do not answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodesRequest {
    /// Only the node of this name answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// The reports list actors, not only their number.
    #[serde(default)]
    pub with_actors: bool,
}

impl Message for NodesRequest {}

/// The answer of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// The name of the node in the cluster.
    pub node: NodeId,
    /// The role: `ingest`, `transcode`, `edge` or `control`.
    pub role: String,
    /// The version of its program.
    pub version: String,
    /// Wall-clock time of its start.
    pub started_at: UnixMillis,
    /// True if the node takes no new work.
    pub draining: bool,
    /// The reason of the drain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_reason: Option<String>,
    /// True if the process of the node is ready for work.
    pub ready: bool,
    /// The reasons for which the process runs with less than it should, such as `degraded: storage: …`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub degraded: Vec<String>,
    /// The number of actors of the node.
    pub actors_total: u64,
    /// The first actors by kind and id, at most [`MAX_REPORTED_ACTORS`]; empty unless the request wanted them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actors: Vec<ActorReport>,
}

impl Message for NodeReport {
    // Half a mebibyte: the bus's own limit is one.
    const MAX_LEN: usize = 512 << 10;

    fn check(&self) -> Result<(), &'static str> {
        if self.actors.len() > MAX_REPORTED_ACTORS { Err("a report lists too many actors") } else { Ok(()) }
    }
}

/// One actor of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActorReport {
    /// The kind of actor, for example `publisher`.
    pub kind: String,
    /// The id, unique among the actors of the kind in one process.
    pub id: String,
    /// The state in a few words.
    pub state: String,
    /// Milliseconds since its first start.
    pub age_ms: u64,
    /// Messages and orders that wait for it.
    pub mailbox: u64,
    /// The number of restarts after failures.
    pub restarts: u32,
    /// Entries in the queue of its loop.
    pub queue: u64,
    /// Milliseconds since the oldest entry of the queue was put there; 0 when the queue is empty.
    pub queue_age_ms: u64,
    /// The error or panic that ended its loop last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<String>,
}
