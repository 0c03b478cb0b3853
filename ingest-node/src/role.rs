//! The ingest node as a role of a cluster: on NATS and Redis.

use millrace_node::{Process, Role, key_secret};
use millrace_runtime::ConfigTree;
use millrace_runtime::http::HttpHandle;

use crate::config::Config;
use crate::node::{Deps, Node, start};

/// The role `ingest`.
#[derive(Debug)]
pub struct Ingest;

impl Role for Ingest {
    const NAME: &'static str = "ingest";
    const PROGRAM: &'static str = "millrace-ingest";
    const ABOUT: &'static str = "Takes publishers: RTMP and RTMPS.";
    type Config = Config;
    type Deps = Deps;
    type Node = Node;

    async fn connect(config: &Config, tree: &ConfigTree, process: &Process) -> anyhow::Result<Deps> {
        // Only the secret is read from the state store: with a configured one the store is not needed.
        let key_secret = if config.stream_key_secret.expose().is_empty() {
            let state = millrace_node::state(tree).await?;
            Some(key_secret(&config.stream_key_secret, &*state).await?)
        } else {
            None
        };
        Ok(Deps {
            bus: millrace_node::bus(tree, Self::NAME).await?,
            key_secret,
            node: None,
            metrics: process.metrics.clone(),
            readiness: process.readiness.clone(),
            clock: process.clock.clone(),
            drain: process.drain.clone(),
        })
    }

    fn observe(_: &Config, tree: &ConfigTree, process: &Process) -> anyhow::Result<Option<HttpHandle>> {
        process.observe(tree, None)
    }

    async fn start(config: Config, deps: Deps) -> anyhow::Result<Node> {
        start(config, deps).await
    }

    async fn drain(node: Node) {
        node.drain().await;
    }
}
