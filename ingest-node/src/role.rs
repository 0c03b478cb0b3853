//! This node as a role of a cluster: on NATS, and on Redis where the key secret is not configured.

use millrace_node::{Connect, Operations, Role, key_secret};
use millrace_runtime::{ConfigError, ConfigTree};

use crate::config::Config;
use crate::node::{Backends, Deps, Node, start};

/// The role `ingest` of the `millrace` binary.
#[derive(Debug)]
pub struct Ingest;

impl Connect for Backends {
    async fn connect(tree: &ConfigTree, role: &str) -> anyhow::Result<Self> {
        let config: Config = tree.section()?;
        // The secret is all that an ingest node reads from the state store.
        let key_secret = if config.stream_key_secret.expose().is_empty() {
            let state = millrace_node::state(tree).await?;
            Some(key_secret(&config.stream_key_secret, &*state).await?)
        } else {
            None
        };
        Ok(Self { bus: millrace_node::bus(tree, role).await?, key_secret })
    }
}

impl Role for Ingest {
    const NAME: &'static str = "ingest";
    const PROGRAM: &'static str = "millrace-ingest";
    const ABOUT: &'static str = "Takes publishers: RTMP and RTMPS.";
    type Config = Config;
    type Backends = Backends;
    type Node = Node;

    fn config(tree: &ConfigTree) -> Result<Config, ConfigError> {
        tree.section()
    }

    fn operations(_: &Config) -> Operations {
        Operations::Process(None)
    }

    async fn start(config: Config, deps: Deps) -> anyhow::Result<Node> {
        start(config, deps).await
    }

    async fn drain(node: Node) {
        node.drain().await;
    }
}
