//! The edge as a role of a cluster, on NATS, Redis and S3.

use millrace_node::{Backends, Role};
use millrace_runtime::{ConfigError, ConfigTree};

use crate::{Config, Deps, Node, start};

/// The role that `millrace edge` runs.
#[derive(Debug)]
pub struct Edge;

impl Role for Edge {
    const NAME: &'static str = "edge";
    const PROGRAM: &'static str = "millrace-edge";
    const ABOUT: &'static str = "Serves viewers.";
    type Config = Config;
    type Backends = Backends;
    type Node = Node;

    fn config(tree: &ConfigTree) -> Result<Config, ConfigError> {
        tree.section()
    }

    async fn start(config: Config, deps: Deps) -> anyhow::Result<Node> {
        start(config, deps).await
    }

    async fn drain(node: Node) {
        node.drain().await;
    }
}
