//! Control as a role of a cluster, connected to NATS, Redis and S3.

use millrace_node::{Backends, Role};
use millrace_runtime::Pacing;

use crate::node::{Node, start};
use crate::{Config, Deps};

/// The role `control` of a cluster.
#[derive(Debug)]
pub struct Control;

impl Role for Control {
    const NAME: &'static str = "control";
    const PROGRAM: &'static str = "millrace-control";
    const ABOUT: &'static str = "The API, the dashboard, keys and the state of livestreams.";
    // No media passes through: claims are answered at once rather than batched.
    const PACING: Pacing = Pacing::Off;
    type Config = Config;
    type Backends = Backends;
    type Node = Node;

    async fn start(config: Config, deps: Deps) -> anyhow::Result<Node> {
        start(config, deps).await
    }

    async fn drain(node: Node) {
        node.drain().await;
    }
}
