//! The one binary: `standalone` with everything in one process, the four roles of a cluster, and commands for
//! operators.
#![forbid(unsafe_code)]

mod backends;
mod cli;
mod data;
mod ops;
mod process;
mod roles;
mod standalone;

use anyhow::Context;
use millrace_runtime::block_on;
use millrace_runtime::logging;

pub use cli::Cli;
use cli::Command;

/// Runs a command to its end.
pub fn run(cli: &Cli) -> anyhow::Result<()> {
    let tree = cli.load(std::env::vars_os().collect())?;
    match &cli.command {
        Command::CheckConfig(_) => ops::check_config(&tree),
        Command::Healthcheck { url } => ops::healthcheck(url),
        Command::Standalone(args) => {
            logging::init(&tree.section()?);
            block_on(standalone::run(&args.data, &tree)).context("the runtime did not start")?
        }
        Command::Ingest(_) | Command::Transcode(_) | Command::Edge(_) | Command::Control(_) => {
            logging::init(&tree.section()?);
            block_on(roles::run(cli.command.role(), &tree)).context("the runtime did not start")?
        }
    }
}
