//! The resources under `/api/v1/nodes`: the nodes of the cluster and their actors, gathered over the bus for each request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use actix_web::HttpResponse;
use actix_web::http::{Method, header};
use actix_web::web::{self, Data, Path};
use jiff::Timestamp;
use millrace_link::{Link, LinkError};
use millrace_node::{gather_node, gather_nodes};
use millrace_runtime::Clock;
use millrace_wire::ids::NodeId;
use millrace_wire::message::node::{ActorReport, NodeReport};
use serde::Serialize;

use super::dto::timestamp;
use super::problem::Problem;
use super::resource::Resource;
use crate::domain::access::{Access, Scope};

/// A node that does not answer is listed as silent for this long after its last answer to this control, then left out. An
/// operator sees a node die, and a node that was removed does not stay.
const SILENT_MS: u64 = 5 * 60 * 1_000;

/// Nodes remembered at most: more than a cluster has. Beyond it, silent nodes are left out.
const MAX_REMEMBERED: usize = 1_024;

/// Returns the resources of nodes, relative to `/api/v1`.
pub(super) fn resources() -> Vec<Resource> {
    vec![
        Resource::new("/nodes", [(Method::GET, Access::Needs(Scope::NodesRead), web::to(list))]),
        Resource::new("/nodes/{id}", [(Method::GET, Access::Needs(Scope::NodesRead), web::to(show))]),
    ]
}

/// The last report of a node, and the time of the answer on the monotonic clock.
#[derive(Debug, Clone)]
struct LastReport {
    report: NodeReport,
    at_ms: u64,
}

/// The nodes that answered this control lately.
pub(crate) struct NodeDirectory {
    link: Link,
    clock: Arc<dyn Clock>,
    answered: Mutex<HashMap<NodeId, LastReport>>,
}

impl NodeDirectory {
    pub(crate) fn new(link: Link, clock: Arc<dyn Clock>) -> Self {
        Self { link, clock, answered: Mutex::default() }
    }

    /// Gathers the reports of all nodes; returns them and those of silent nodes, by name.
    async fn list(&self) -> Result<Vec<NodeView>, LinkError> {
        let reports = gather_nodes(&self.link, false).await?;
        let now = self.clock.now_ms();
        let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        // A node that was draining has left in order and is not silent.
        answered.retain(|_, last| now - last.at_ms < SILENT_MS && !last.report.draining);
        for report in reports {
            if answered.len() < MAX_REMEMBERED || answered.contains_key(&report.node) {
                answered.insert(report.node.clone(), LastReport { report, at_ms: now });
            }
        }
        let mut nodes: Vec<NodeView> =
            answered.values().map(|last| NodeView::new(last, now, self.clock.unix_ms())).collect();
        nodes.sort_by(|left, right| left.id.cmp(&right.id));
        Ok(nodes)
    }

    /// Asks one node for its report with its actors; returns its last report if it is silent.
    async fn show(&self, node: NodeId) -> Result<Option<NodeDetails>, LinkError> {
        let found = gather_node(&self.link, node.clone()).await?;
        let now = self.clock.now_ms();
        let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(report) = found else {
            let last =
                answered.get(&node).filter(|last| now - last.at_ms < SILENT_MS && !last.report.draining);
            return Ok(last.map(|last| NodeDetails::new(last.clone(), now, self.clock.unix_ms())));
        };
        let last = LastReport { report, at_ms: now };
        if let Some(known) = answered.get_mut(&node) {
            *known =
                LastReport { report: NodeReport { actors: Vec::new(), ..last.report.clone() }, at_ms: now };
        }
        Ok(Some(NodeDetails::new(last, now, self.clock.unix_ms())))
    }
}

/// The state of a node in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum NodeState {
    /// The node is ready for work.
    Up,
    /// A condition of the node's readiness does not hold.
    NotReady,
    /// The node takes no new work and is about to end.
    Draining,
    /// The node answered lately and does not answer now.
    Silent,
}

#[derive(Debug, Serialize)]
struct NodeView {
    id: NodeId,
    role: String,
    version: String,
    state: NodeState,
    #[serde(skip_serializing_if = "Option::is_none")]
    drain_reason: Option<String>,
    /// The reasons for which the node runs with less than it should.
    degraded: Vec<String>,
    started_at: Option<Timestamp>,
    age_s: u64,
    /// Seconds since the node's last answer; 0 if it answered this request.
    last_answer_s: u64,
    actors: u64,
}

impl NodeView {
    fn new(last: &LastReport, now_ms: u64, unix_ms: u64) -> Self {
        let LastReport { report, at_ms } = last;
        let state = match (now_ms == *at_ms, report.draining, report.ready) {
            (false, ..) => NodeState::Silent,
            (true, true, _) => NodeState::Draining,
            (true, false, false) => NodeState::NotReady,
            (true, false, true) => NodeState::Up,
        };
        Self {
            id: report.node.clone(),
            role: report.role.clone(),
            version: report.version.clone(),
            state,
            drain_reason: report.drain_reason.clone(),
            degraded: report.degraded.clone(),
            started_at: timestamp(report.started_at),
            age_s: unix_ms.saturating_sub(report.started_at.0) / 1_000,
            last_answer_s: (now_ms - at_ms) / 1_000,
            actors: report.actors_total,
        }
    }
}

#[derive(Debug, Serialize)]
struct NodeList {
    nodes: Vec<NodeView>,
}

#[derive(Debug, Serialize)]
struct NodeDetails {
    #[serde(flatten)]
    node: NodeView,
    actor_list: Vec<ActorReport>,
    /// Actors beyond those in the list.
    more_actors: u64,
}

impl NodeDetails {
    fn new(last: LastReport, now_ms: u64, unix_ms: u64) -> Self {
        let node = NodeView::new(&last, now_ms, unix_ms);
        let actor_list = last.report.actors;
        Self { more_actors: node.actors.saturating_sub(actor_list.len() as u64), node, actor_list }
    }
}

impl From<LinkError> for Problem {
    fn from(error: LinkError) -> Self {
        tracing::warn!(%error, "request failed at the bus; answered with 503");
        Self::unavailable("the bus did not answer; try again")
    }
}

async fn list(nodes: Data<NodeDirectory>) -> Result<HttpResponse, Problem> {
    let nodes = nodes.list().await?;
    Ok(HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(NodeList { nodes }))
}

async fn show(nodes: Data<NodeDirectory>, id: Path<String>) -> Result<HttpResponse, Problem> {
    let missing = || Problem::not_found("there is no such node, or it has not answered for a while");
    let id: NodeId = id.parse().map_err(|_| missing())?;
    let node = nodes.show(id).await?.ok_or_else(missing)?;
    Ok(HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(node))
}
