//! The parts of a cluster's process around its node: command line and configuration, connections to NATS, Redis and S3,
//! metrics, and the drain on a signal. Each node crate is a [`Role`], run by its own program or by `millrace`.
#![forbid(unsafe_code)]

mod allocator;
mod backends;
mod cli;
mod key_secret;
mod ladder_templates;
mod ops;
mod process;
mod repairs;
mod report;
mod role;
mod seal;

use std::process::ExitCode;

use millrace_runtime::logging::LogConfig;
use millrace_runtime::{ConfigTree, logging};

#[cfg(feature = "store")]
pub use backends::{Backends, store};
pub use backends::{BusConfig, StateConfig, StoreConfig, bus, state};
pub use cli::{NodeArgs, Program, Vars};
pub use key_secret::key_secret;
pub use ladder_templates::{COPY, LadderTemplate, LadderTemplates};
pub use ops::healthcheck;
pub use process::{NodeConfig, process};
pub use repairs::RepairReport;
pub use report::{MAX_NODES, NODES_WAIT, NodeIdentity, gather_node, gather_nodes, start_report};
pub use role::{Connect, Deps, Operations, Role, run};
pub use seal::Sealer;

/// Checks the sections that all roles have.
pub fn read_common(tree: &ConfigTree) -> anyhow::Result<()> {
    tree.section::<LogConfig>()?;
    tree.section::<NodeConfig>()?;
    tree.section::<BusConfig>()?;
    tree.section::<StateConfig>()?;
    tree.section::<StoreConfig>()?;
    Ok(())
}

/// Starts the log, and warns of environment variables that name no section of the configuration.
pub fn start_log(tree: &ConfigTree) -> anyhow::Result<()> {
    logging::init(&tree.section::<LogConfig>()?);
    if let Some(warning) = tree.warning() {
        tracing::warn!("{warning}");
    }
    Ok(())
}

/// Prints the result of a check of the configuration.
pub fn report_valid(tree: &ConfigTree) {
    if let Some(warning) = tree.warning() {
        eprintln!("warning: {warning}");
    }
    println!("the configuration is valid");
}

/// Prints an error in one line and returns the exit status of the program.
pub fn report(program: &str, result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{program}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
