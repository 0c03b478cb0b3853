//! Control as a role of a cluster, connected to NATS, Redis and S3.

use millrace_node::{Backends, Role};
use millrace_runtime::{ConfigError, ConfigTree, Pacing};

use crate::node::{Node, start};
use crate::{Deps, Settings};

/// The role `control` of a cluster.
#[derive(Debug)]
pub struct Control;

impl Role for Control {
    const NAME: &'static str = "control";
    const PROGRAM: &'static str = "millrace-control";
    const ABOUT: &'static str = "The API, the dashboard, keys and the state of livestreams.";
    // No media passes through: claims are answered at once rather than batched.
    const PACING: Pacing = Pacing::Off;
    type Config = Settings;
    type Backends = Backends;
    type Node = Node;

    fn config(tree: &ConfigTree) -> Result<Settings, ConfigError> {
        Ok(Settings { control: tree.section()?, templates: tree.section()? })
    }

    async fn start(config: Settings, deps: Deps) -> anyhow::Result<Node> {
        start(config, deps).await
    }

    async fn drain(node: Node) {
        node.drain().await;
    }
}
