//! All four nodes in one process on the embedded backends; nothing else differs from a cluster.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use millrace_bus::MemBus;
use millrace_node::{Backends, Deps, Role, key_secret};
use millrace_runtime::{ConfigTree, Process, Secret};
use millrace_state::RedbState;
use millrace_store::{DirStore, SyncPolicy};
use tracing::info;

use crate::data::{DataDir, Ready, reachable};

/// The longest time from the start of the nodes until they are ready; far more than they need.
const READY_LIMIT: Duration = Duration::from_secs(30);

struct Nodes {
    ingest: millrace_ingest::Node,
    transcode: millrace_transcode::Node,
    edge: millrace_edge::Node,
    control: millrace_control::Node,
}

/// Runs until a signal begins the drain, and then until all nodes are drained.
pub(crate) async fn run(data: &Path, tree: &ConfigTree) -> anyhow::Result<()> {
    let data = DataDir::open(data)?;
    let process = millrace_node::process()?;
    let state = RedbState::open(data.state_file()).await.context("opening the state")?;
    let store =
        DirStore::open(data.media_dir(), SyncPolicy::ProcessCrash).await.context("opening the media")?;
    let backends = Backends { bus: Arc::new(MemBus::new()), state: Arc::new(state), store: Arc::new(store) };
    let nodes = start(tree, &data, &process, &backends).await?;
    let ready = Ready {
        rtmp: format!("rtmp://{}/live", reachable(nodes.ingest.rtmp_addr())),
        edge: format!("http://{}", reachable(nodes.edge.addr())),
        control: format!("http://{}", reachable(nodes.control.addr())),
    };
    tokio::select! {
        ready = process.readiness.until_ready(READY_LIMIT) => ready?,
        () = process.drain.draining() => {}
    }
    if !process.drain.is_draining() {
        data.write_ready(&ready)?;
        info!(rtmp = ready.rtmp, edge = ready.edge, control = ready.control, "millrace is ready");
    }
    process.drain.draining().await;
    data.clear_ready();
    stop(nodes).await;
    info!("stopped");
    Ok(())
}

async fn start(
    tree: &ConfigTree,
    data: &DataDir,
    process: &Process,
    backends: &Backends,
) -> anyhow::Result<Nodes> {
    let (mut settings, new_token) = control_settings(tree, data)?;
    let config = &mut settings.control;
    let key_secret = key_secret(&config.stream_key_secret, &*backends.state).await?;
    let key_secret = Some(key_secret);
    let for_ingest = millrace_ingest::Backends { bus: backends.bus.clone(), key_secret };
    let deps = || Deps::new(backends.clone(), process.clone());
    let edge = millrace_edge::start(tree.section()?, deps()).await?;
    let transcode = millrace_transcode::start(tree.section()?, deps()).await?;
    let ingest = millrace_ingest::start(tree.section()?, Deps::new(for_ingest, process.clone())).await?;
    config.rtmp_port = ingest.rtmp_addr().port();
    config.edge_port = edge.addr().port();
    let token = config.admin_token.clone();
    let control = millrace_control::start(settings, deps()).await?;
    if new_token {
        println!("admin token (kept in the data directory, shown only now): {}", token.expose());
    }
    Ok(Nodes { ingest, transcode, edge, control })
}

/// Returns control's settings with a token; `true` if the token was made now.
fn control_settings(tree: &ConfigTree, data: &DataDir) -> anyhow::Result<(millrace_control::Settings, bool)> {
    let mut settings = millrace_control::Control::config(tree)?;
    if !settings.control.admin_token.expose().is_empty() {
        return Ok((settings, false));
    }
    let (token, new) = data.admin_token()?;
    settings.control.admin_token = Secret::new(token);
    Ok((settings, new))
}

/// Drains the nodes along the path of media, so that what publishers have sent is still packaged and served.
async fn stop(nodes: Nodes) {
    nodes.ingest.drain().await;
    nodes.transcode.drain().await;
    nodes.edge.drain().await;
    nodes.control.drain().await;
}
