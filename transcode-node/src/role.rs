//! The transcode node as a role of a cluster, on NATS, Redis and S3.

use millrace_node::{Process, Role};
use millrace_runtime::ConfigTree;
use millrace_runtime::http::HttpHandle;

use crate::{Config, Deps, Node, start};

/// The transcode role.
#[derive(Debug)]
pub struct Transcode;

impl Role for Transcode {
    const NAME: &'static str = "transcode";
    const PROGRAM: &'static str = "millrace-transcode";
    const ABOUT: &'static str = "Packages and stores media.";
    type Config = Config;
    type Deps = Deps;
    type Node = Node;

    async fn connect(_: &Config, tree: &ConfigTree, process: &Process) -> anyhow::Result<Deps> {
        Ok(Deps {
            bus: millrace_node::bus(tree, Self::NAME).await?,
            store: millrace_node::store(tree)?,
            state: millrace_node::state(tree).await?,
            node: None,
            metrics: process.metrics.clone(),
            readiness: process.readiness.clone(),
            clock: process.clock.clone(),
            drain: process.drain.clone(),
        })
    }

    fn observe(config: &Config, tree: &ConfigTree, process: &Process) -> anyhow::Result<Option<HttpHandle>> {
        process.observe(tree, config.metrics_listen)
    }

    async fn start(config: Config, deps: Deps) -> anyhow::Result<Node> {
        start(config, deps).await
    }

    async fn drain(node: Node) {
        node.drain().await;
    }
}
