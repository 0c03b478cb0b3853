//! This node as a role of a cluster: on NATS, Redis and S3.

use millrace_node::{Process, Role};
use millrace_runtime::ConfigTree;

use crate::{Config, Deps, start};

/// The role.
#[derive(Debug)]
pub struct Transcode;

impl Role for Transcode {
    const NAME: &'static str = "transcode";
    const PROGRAM: &'static str = "millrace-transcode";
    const ABOUT: &'static str = "Packages and stores media.";
    type Config = Config;

    async fn run(config: Config, tree: &ConfigTree, process: &Process) -> anyhow::Result<()> {
        let deps = Deps {
            bus: millrace_node::bus(tree, Self::NAME).await?,
            store: millrace_node::store(tree)?,
            state: millrace_node::state(tree).await?,
            node: None,
            metrics: process.metrics.clone(),
            readiness: process.readiness.clone(),
            clock: process.clock.clone(),
            drain: process.drain.clone(),
        };
        let observed = process.observe(tree, config.metrics_listen)?;
        let node = start(config, deps).await?;
        process.drain.draining().await;
        node.drain().await;
        if let Some(observed) = observed {
            observed.stop().await;
        }
        Ok(())
    }
}
