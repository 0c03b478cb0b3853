//! Control as a role of a cluster, connected to NATS, Redis and S3.

use millrace_node::{Process, Role};
use millrace_runtime::ConfigTree;

use crate::node::{Node, start};
use crate::{Config, Deps};

/// The role `control`.
#[derive(Debug)]
pub struct Control;

impl Role for Control {
    const NAME: &'static str = "control";
    const PROGRAM: &'static str = "millrace-control";
    const ABOUT: &'static str = "The API, the dashboard, keys and the state of livestreams.";
    type Config = Config;
    type Deps = Deps;
    type Node = Node;

    async fn connect(_: &Config, tree: &ConfigTree, process: &Process) -> anyhow::Result<Deps> {
        Ok(Deps {
            bus: millrace_node::bus(tree, Self::NAME).await?,
            store: millrace_node::store(tree)?,
            state: millrace_node::state(tree).await?,
            metrics: process.metrics.clone(),
            readiness: process.readiness.clone(),
            clock: process.clock.clone(),
            drain: process.drain.clone(),
        })
    }

    async fn start(config: Config, deps: Deps) -> anyhow::Result<Node> {
        start(config, deps).await
    }

    async fn drain(node: Node) {
        node.drain().await;
    }
}
