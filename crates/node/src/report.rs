//! Reports of nodes: each node runs an actor that answers for it, and control gathers the answers.

use std::time::Duration;

use anyhow::Context;
use millrace_link::{Link, LinkError};
use millrace_runtime::supervisor::SupervisorError;
use millrace_runtime::{ActorContext, ActorFilter, ActorId, ActorStatus, Policy, Process, Supervisor};
use millrace_wire::ids::{NodeId, UnixMillis};
use millrace_wire::message::control::bounded_text;
use millrace_wire::message::node::{ActorReport, MAX_REPORTED_ACTORS, NodeReport, NodesRequest};
use millrace_wire::topics;

/// Requests waiting for one node: several operators who refresh a page at the same time.
const REQUESTS: usize = 64;

/// Nodes in one answer at most: more than a cluster of this design has.
pub const MAX_NODES: usize = 256;

/// A node answers from memory, so a report that takes longer than this is late because the node is.
pub const NODES_WAIT: Duration = Duration::from_millis(700);

/// The identity under which a node reports.
#[derive(Debug, Clone)]
pub struct NodeIdentity {
    /// The name of the node in the cluster.
    pub node: NodeId,
    /// The role, which is also the name of the node's supervisor.
    pub role: &'static str,
}

/// Starts the actor `report/ROLE`, which answers [`gather_nodes`] for this node. Returns when it is subscribed.
///
/// # Errors
/// When the actor cannot be started, or the bus cannot be subscribed to.
pub async fn start_report(
    supervisor: &Supervisor,
    link: &Link,
    process: &Process,
    identity: NodeIdentity,
) -> Result<(), SupervisorError> {
    let started_at = UnixMillis(process.clock.unix_ms());
    let reporter = Reporter { link: link.clone(), process: process.clone(), identity, started_at };
    let id = ActorId::new("report", reporter.identity.role);
    supervisor.spawn_ready(id, Policy::vital(), move |context| reporter.clone().run(context)).await?;
    Ok(())
}

#[derive(Clone)]
struct Reporter {
    link: Link,
    process: Process,
    identity: NodeIdentity,
    started_at: UnixMillis,
}

impl Reporter {
    async fn run(self, context: ActorContext) -> anyhow::Result<()> {
        let mut requests = self.link.respond(&topics::nodes(), REQUESTS).await.context("nodes.list")?;
        context.ready.report();
        loop {
            let request = tokio::select! {
                request = requests.recv() => request.context("the subscription to nodes.list ended")?,
                () = context.stop.cancelled() => return Ok(()),
            };
            if request.message.node.as_ref().is_none_or(|wanted| *wanted == self.identity.node) {
                request.respond(&self.report(request.message.with_actors));
            }
        }
    }

    fn report(&self, with_actors: bool) -> NodeReport {
        let Process { readiness, drain, actors, .. } = &self.process;
        let filter = ActorFilter { supervisor: Some(self.identity.role), ..ActorFilter::default() };
        let list = actors.list(filter, if with_actors { MAX_REPORTED_ACTORS } else { 0 });
        NodeReport {
            node: self.identity.node.clone(),
            role: self.identity.role.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at,
            draining: drain.is_draining(),
            drain_reason: drain.reason().map(str::to_owned),
            ready: readiness.is_ready() && !drain.is_draining(),
            degraded: readiness.degraded().into_iter().map(|part| bounded_text(&part.reason)).collect(),
            actors_total: list.total as u64,
            actors: list.actors.into_iter().map(actor_report).collect(),
        }
    }
}

fn actor_report(status: ActorStatus) -> ActorReport {
    ActorReport {
        kind: status.kind.to_owned(),
        id: status.id,
        state: status.state,
        age_ms: status.age_ms,
        mailbox: status.mailbox,
        restarts: status.restarts,
        queue: status.queue,
        queue_age_ms: status.queue_age_ms,
        last_failure: status.last_failure,
    }
}

/// Asks all nodes of the cluster for their reports and returns them by name. A node that does not answer within
/// [`NODES_WAIT`] is missing; at most [`MAX_NODES`] answer.
///
/// # Errors
/// When the bus is away.
pub async fn gather_nodes(link: &Link, with_actors: bool) -> Result<Vec<NodeReport>, LinkError> {
    let mut nodes = link
        .gather(&topics::nodes(), &NodesRequest { node: None, with_actors }, NODES_WAIT, MAX_NODES)
        .await?;
    nodes.sort_by(|left, right| left.node.cmp(&right.node));
    // A report that the bus delivered twice.
    nodes.dedup_by(|left, right| left.node == right.node);
    Ok(nodes)
}

/// Asks one node for its report, with its actors. Returns `None` when no node of that name answers within
/// [`NODES_WAIT`].
///
/// # Errors
/// When the bus is away.
pub async fn gather_node(link: &Link, node: NodeId) -> Result<Option<NodeReport>, LinkError> {
    let request = NodesRequest { node: Some(node), with_actors: true };
    Ok(link.gather(&topics::nodes(), &request, NODES_WAIT, 1).await?.pop())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use millrace_bus::MemBus;
    use millrace_runtime::Metrics;

    use super::*;

    async fn start_node(link: &Link, process: &Process, role: &'static str, node: &str) -> Supervisor {
        let Process { metrics, drain, actors, .. } = process;
        let supervisor = Supervisor::start(role, metrics, drain, actors).unwrap();
        let identity = NodeIdentity { node: node.parse().unwrap(), role };
        start_report(&supervisor, link, process, identity).await.unwrap();
        supervisor
    }

    #[tokio::test]
    async fn gather_nodes_returns_a_report_of_each_node_of_a_process_and_of_others() {
        let link = Link::new(Arc::new(MemBus::new()), &Metrics::new());
        let (shared, apart) = (Process::default(), Process::default());
        let _edge = start_node(&link, &shared, "edge", "edge-b").await;
        let _control = start_node(&link, &shared, "control", "control-a").await;
        let _ingest = start_node(&link, &apart, "ingest", "ingest-c").await;
        apart.drain.start("test");
        let nodes = gather_nodes(&link, false).await.unwrap();
        let names: Vec<&str> = nodes.iter().map(|node| node.role.as_str()).collect();
        assert_eq!(names, ["control", "edge", "ingest"]);
        assert!(nodes.iter().all(|node| node.actors_total == 1 && node.actors.is_empty()));
        assert_eq!((nodes[1].ready, nodes[1].draining), (true, false));
        assert_eq!((nodes[2].ready, nodes[2].drain_reason.as_deref()), (false, Some("test")));
    }

    #[tokio::test]
    async fn gather_node_returns_the_actors_of_that_node_or_none() {
        let link = Link::new(Arc::new(MemBus::new()), &Metrics::new());
        let process = Process::default();
        let edge = start_node(&link, &process, "edge", "edge-b").await;
        let _control = start_node(&link, &process, "control", "control-a").await;
        let feed = ActorId::new("feed", "01J");
        let child = edge.spawn(feed, Policy::once(), |context| async move {
            context.status.set_state("following");
            context.stop.cancelled().await;
            Ok(())
        });
        child.await.unwrap();
        let found = gather_node(&link, "edge-b".parse().unwrap()).await.unwrap().unwrap();
        let actors: Vec<(&str, &str)> =
            found.actors.iter().map(|actor| (actor.kind.as_str(), actor.id.as_str())).collect();
        assert_eq!(actors, [("feed", "01J"), ("report", "edge")]);
        assert_eq!(gather_node(&link, "edge-x".parse().unwrap()).await.unwrap(), None);
    }
}
