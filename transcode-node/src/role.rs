//! The transcode node as a role of a cluster, on NATS, Redis and S3.

use millrace_node::{Backends, Operations, Role};
use millrace_runtime::{ConfigError, ConfigTree};

use crate::{Config, Deps, Node, start};

/// The role of a transcode node in a cluster.
#[derive(Debug)]
pub struct Transcode;

impl Role for Transcode {
    const NAME: &'static str = "transcode";
    const PROGRAM: &'static str = "millrace-transcode";
    const ABOUT: &'static str = "Packages and stores media.";
    type Config = Config;
    type Backends = Backends;
    type Node = Node;

    fn config(tree: &ConfigTree) -> Result<Config, ConfigError> {
        tree.section()
    }

    fn operations(config: &Config) -> Operations {
        Operations::Process(config.metrics_listen)
    }

    async fn start(config: Config, deps: Deps) -> anyhow::Result<Node> {
        start(config, deps).await
    }

    async fn drain(node: Node) {
        node.drain().await;
    }
}
