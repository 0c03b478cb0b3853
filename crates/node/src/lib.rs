//! How a process of the cluster is put together: its command line and configuration, its connections to NATS, Redis and S3,
//! its metrics and its end by a signal. Each node crate is a [`Role`] on top of it, run by its own program or by `millrace`.
#![forbid(unsafe_code)]

mod backends;
mod cli;
mod key_secret;
mod ops;
mod process;

use std::process::ExitCode;

use millrace_runtime::http::HttpHandle;
use millrace_runtime::logging::LogConfig;
use millrace_runtime::{ConfigTree, Section};

#[cfg(feature = "store")]
pub use backends::store;
pub use backends::{BusConfig, StateConfig, StoreConfig, bus, state};
pub use cli::{NodeArgs, Program, Vars};
pub use key_secret::key_secret;
pub use ops::healthcheck;
pub use process::{NodeConfig, Process};

/// A kind of node as a cluster runs it.
pub trait Role {
    /// Its name, and the command of `millrace`.
    const NAME: &'static str;
    /// Its own program.
    const PROGRAM: &'static str;
    /// What it is for, in a line of help.
    const ABOUT: &'static str;
    /// Its section of the configuration.
    type Config: Section;
    /// What it stands on.
    type Deps;
    /// The running node.
    type Node;

    /// Connects what the node stands on.
    fn connect(
        config: &Self::Config,
        tree: &ConfigTree,
        process: &Process,
    ) -> impl Future<Output = anyhow::Result<Self::Deps>>;

    /// Serves the node's metrics and health, unless an HTTP server of its own does.
    fn observe(_: &Self::Config, _: &ConfigTree, _: &Process) -> anyhow::Result<Option<HttpHandle>> {
        Ok(None)
    }

    /// Starts the node.
    fn start(config: Self::Config, deps: Self::Deps) -> impl Future<Output = anyhow::Result<Self::Node>>;

    /// Ends its work; the process's drain has begun.
    fn drain(node: Self::Node) -> impl Future<Output = ()>;
}

/// Runs a role in this process until a signal says stop.
pub async fn run<R: Role>(tree: &ConfigTree) -> anyhow::Result<()> {
    let process = Process::new()?;
    let config: R::Config = tree.section()?;
    let deps = R::connect(&config, tree, &process).await?;
    let observed = R::observe(&config, tree, &process)?;
    let node = R::start(config, deps).await?;
    process.drain.draining().await;
    R::drain(node).await;
    if let Some(observed) = observed {
        observed.stop().await;
    }
    tracing::info!("stopped");
    Ok(())
}

/// Reads the sections that all roles have, as their owners would.
pub fn read_common(tree: &ConfigTree) -> anyhow::Result<()> {
    tree.section::<LogConfig>()?;
    tree.section::<NodeConfig>()?;
    tree.section::<BusConfig>()?;
    tree.section::<StateConfig>()?;
    tree.section::<StoreConfig>()?;
    Ok(())
}

/// Says in one line what went wrong, if anything did.
pub fn report(program: &str, result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{program}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
