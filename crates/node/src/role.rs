//! A role: one kind of node as a process of a cluster runs it.

use std::net::SocketAddr;

use anyhow::Context;
use millrace_runtime::{ConfigError, ConfigTree, Pacing, Process, block_on, start_runtime};
use millrace_wire::ids::{BadId, NodeId};

use crate::NodeIdentity;
use crate::process::{self, NodeConfig};

/// Everything a node is started with.
#[derive(Debug, Clone)]
pub struct Deps<B> {
    /// The servers the node works with.
    pub backends: B,
    /// The services the nodes of this process share.
    pub process: Process,
    /// The name of the node in the cluster; generated when `None`.
    pub node: Option<NodeId>,
}

impl<B> Deps<B> {
    /// Makes the dependencies of a node that generates its name.
    pub fn new(backends: B, process: Process) -> Self {
        Self { backends, process, node: None }
    }

    /// Returns the identity of the node: its given name, else one generated from the role's name.
    ///
    /// # Errors
    /// When `role` cannot begin a node's name.
    pub fn identity(&self, role: &'static str) -> Result<NodeIdentity, BadId> {
        let node = match &self.node {
            Some(node) => node.clone(),
            None => NodeId::generate(role, &mut rand::rng())?,
        };
        Ok(NodeIdentity { node, role })
    }
}

/// The servers of a kind of node, which connects to them by its configuration.
pub trait Connect: Sized {
    /// Connects to the servers; `role` shows in their monitoring.
    ///
    /// # Errors
    /// When the configuration is wrong, or a server that is needed from the start cannot be reached.
    fn connect(tree: &ConfigTree, role: &str) -> impl Future<Output = anyhow::Result<Self>>;
}

/// The place where a role serves the operations routes `/metrics`, `/healthz`, `/readyz` and `/actors`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operations {
    /// The node serves them itself, on its own HTTP server or one it starts.
    Itself,
    /// The process serves them at this address, else at `[node] metrics_listen`, else not at all.
    Process(Option<SocketAddr>),
}

/// A kind of node as a cluster runs it.
pub trait Role {
    /// The name of the role, which is also the command of `millrace`.
    const NAME: &'static str;
    /// The name of the role's own program.
    const PROGRAM: &'static str;
    /// The purpose of the role, as one line of help.
    const ABOUT: &'static str;
    /// The pacing of the role's threads unless `[node] pacing` is set. On for roles that many streams pass through: it
    /// saves CPU, and its delay is within the bars of `docs/PERFORMANCE.md`.
    const PACING: Pacing = Pacing::On;
    /// The role's settings.
    type Config;
    /// The servers the node works with.
    type Backends: Connect;
    /// The type of the running node.
    type Node;

    /// Reads the role's settings from its section of the configuration, and from others that it shares.
    ///
    /// # Errors
    /// When a section is wrong.
    fn config(tree: &ConfigTree) -> Result<Self::Config, ConfigError>;

    /// Returns where the operations routes of the node are served.
    fn operations(_: &Self::Config) -> Operations {
        Operations::Itself
    }

    /// Starts the node with its settings and dependencies.
    fn start(
        config: Self::Config,
        deps: Deps<Self::Backends>,
    ) -> impl Future<Output = anyhow::Result<Self::Node>>;

    /// Drains the node; the drain of the process has begun.
    fn drain(node: Self::Node) -> impl Future<Output = ()>;
}

/// Starts the runtime of this process and runs a role on it until a signal begins its drain, and then until it is drained.
///
/// # Errors
/// When a section of the configuration is wrong, a server cannot be reached, or the runtime or the node cannot start.
pub fn run<R: Role>(tree: &ConfigTree) -> anyhow::Result<()> {
    let node: NodeConfig = tree.section()?;
    start_runtime(node.pacing(R::PACING)).context("the runtime did not start")?;
    block_on(run_node::<R>(tree)).context("the runtime did not start")?
}

async fn run_node<R: Role>(tree: &ConfigTree) -> anyhow::Result<()> {
    let process = process::process()?;
    let config = R::config(tree)?;
    let backends = R::Backends::connect(tree, R::NAME).await?;
    let operations = match R::operations(&config) {
        Operations::Itself => None,
        Operations::Process(own) => process::serve_operations(&process, tree, own)?,
    };
    let node = R::start(config, Deps::new(backends, process.clone())).await?;
    process.drain.draining().await;
    R::drain(node).await;
    if let Some(operations) = operations {
        operations.stop().await;
    }
    tracing::info!("stopped");
    Ok(())
}
