//! The one binary: `standalone` with everything in one process, the four roles of a cluster, and commands for
//! operators.
#![forbid(unsafe_code)]

mod cli;
mod data;
mod standalone;
mod token;

use anyhow::Context;
use millrace_node::{NodeConfig, Role, healthcheck, report_valid, start_log};
use millrace_runtime::{ConfigTree, Pacing, block_on, start_runtime};

pub use cli::Cli;
use cli::Command;

/// Runs a command to its end.
///
/// # Errors
/// When the configuration is wrong, or the command fails.
pub fn run(cli: &Cli) -> anyhow::Result<()> {
    let tree = cli.load(std::env::vars_os().collect())?;
    match &cli.command {
        Command::CheckConfig(_) => {
            read_all(&tree)?;
            report_valid(&tree);
            Ok(())
        }
        Command::Healthcheck { url } => healthcheck(url),
        Command::Token(args) => token::run(args, &tree),
        Command::Standalone(args) => {
            start_log(&tree)?;
            read_all(&tree)?;
            let node: NodeConfig = tree.section()?;
            // One runtime serves all four nodes: it is paced as the roles that media passes through.
            start_runtime(node.pacing(Pacing::On)).context("the runtime did not start")?;
            block_on(standalone::run(&args.data, &tree)).context("the runtime did not start")?
        }
        Command::Ingest(_) => role::<millrace_ingest::Ingest>(&tree),
        Command::Transcode(_) => role::<millrace_transcode::Transcode>(&tree),
        Command::Edge(_) => role::<millrace_edge::Edge>(&tree),
        Command::Control(_) => role::<millrace_control::Control>(&tree),
    }
}

fn role<R: Role>(tree: &ConfigTree) -> anyhow::Result<()> {
    start_log(tree)?;
    read_all(tree)?;
    millrace_node::run::<R>(tree)
}

/// Checks every section of the configuration.
fn read_all(tree: &ConfigTree) -> anyhow::Result<()> {
    millrace_node::read_common(tree)?;
    tree.section::<millrace_ingest::Config>()?;
    tree.section::<millrace_transcode::Config>()?;
    tree.section::<millrace_edge::Config>()?;
    millrace_control::Control::config(tree)?;
    Ok(())
}
