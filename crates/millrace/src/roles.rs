//! The four roles of a cluster, each on real NATS, Redis and S3.

use anyhow::Context;
use millrace_runtime::http::{HttpHandle, serve};
use millrace_runtime::{ConfigTree, Secret};
use millrace_state::SharedState;
use tracing::info;

use crate::backends;
use crate::process::{NodeConfig, Process};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Ingest,
    Transcode,
    Edge,
    Control,
}

/// Starts the role, and drains it when a signal says so.
pub(crate) async fn run(role: Role, tree: &ConfigTree) -> anyhow::Result<()> {
    crate::ops::read_all(tree)?;
    let process = Process::new()?;
    match role {
        Role::Ingest => ingest(tree, &process).await?,
        Role::Transcode => transcode(tree, &process).await?,
        Role::Edge => edge(tree, &process).await?,
        Role::Control => control(tree, &process).await?,
    }
    info!("stopped");
    Ok(())
}

fn observe(tree: &ConfigTree, process: &Process) -> anyhow::Result<Option<HttpHandle>> {
    let node: NodeConfig = tree.section()?;
    let serve = |listen| serve(listen, process.observability()).context("node.metrics_listen");
    node.metrics_listen.map(serve).transpose()
}

/// The cluster's secret for key hashes: configured, or the one control keeps in the state store.
async fn key_secret(
    tree: &ConfigTree,
    config: &millrace_ingest::Config,
) -> anyhow::Result<Option<Secret<Vec<u8>>>> {
    if !config.stream_key_secret.expose().is_empty() {
        return Ok(None);
    }
    let state: SharedState = backends::state(tree).await?;
    Ok(Some(millrace_control::hash_secret(&*state).await?))
}

async fn ingest(tree: &ConfigTree, process: &Process) -> anyhow::Result<()> {
    let config: millrace_ingest::Config = tree.section()?;
    let deps = millrace_ingest::Deps {
        bus: backends::bus(tree, "ingest").await?,
        key_secret: key_secret(tree, &config).await?,
        node: None,
        metrics: process.metrics.clone(),
        readiness: process.readiness.clone(),
        clock: process.clock.clone(),
        drain: process.drain.clone(),
    };
    let observed = observe(tree, process)?;
    let node = millrace_ingest::start(config, deps).await?;
    process.drain.draining().await;
    node.drain().await;
    stop(observed).await;
    Ok(())
}

async fn transcode(tree: &ConfigTree, process: &Process) -> anyhow::Result<()> {
    let config: millrace_transcode::Config = tree.section()?;
    let deps = millrace_transcode::Deps {
        bus: backends::bus(tree, "transcode").await?,
        store: backends::store(tree)?,
        state: backends::state(tree).await?,
        node: None,
        metrics: process.metrics.clone(),
        readiness: process.readiness.clone(),
        clock: process.clock.clone(),
        drain: process.drain.clone(),
    };
    let observed = observe(tree, process)?;
    let node = millrace_transcode::start(config, deps).await?;
    process.drain.draining().await;
    node.drain().await;
    stop(observed).await;
    Ok(())
}

async fn edge(tree: &ConfigTree, process: &Process) -> anyhow::Result<()> {
    let deps = millrace_edge::Deps {
        bus: backends::bus(tree, "edge").await?,
        store: backends::store(tree)?,
        state: backends::state(tree).await?,
        metrics: process.metrics.clone(),
        readiness: process.readiness.clone(),
        clock: process.clock.clone(),
        drain: process.drain.clone(),
    };
    let node = millrace_edge::start(tree.section()?, deps).await?;
    process.drain.draining().await;
    node.drain().await;
    Ok(())
}

async fn control(tree: &ConfigTree, process: &Process) -> anyhow::Result<()> {
    let deps = millrace_control::Deps {
        bus: backends::bus(tree, "control").await?,
        store: backends::store(tree)?,
        state: backends::state(tree).await?,
        metrics: process.metrics.clone(),
        readiness: process.readiness.clone(),
        clock: process.clock.clone(),
        drain: process.drain.clone(),
    };
    let node = millrace_control::start(tree.section()?, deps).await?;
    process.drain.draining().await;
    node.drain().await;
    Ok(())
}

async fn stop(observed: Option<HttpHandle>) {
    if let Some(observed) = observed {
        observed.stop().await;
    }
}
