//! The command line of a node that runs as its own program, and the flags that all commands share.

use std::ffi::OsString;
use std::marker::PhantomData;
use std::path::PathBuf;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use millrace_runtime::{ConfigTree, Loader};

use crate::{Role, ops, read_common, report_valid, start_log};

/// The flags of every command that reads the configuration.
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// The path of the configuration file (TOML).
    #[arg(long, env = "MILLRACE_CONFIG", value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Log one JSON object per line.
    #[arg(long, global = true)]
    log_json: bool,
    /// Any configuration key, e.g. `--set edge.workers=2`; takes precedence over the file and the environment.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value, global = true)]
    sets: Vec<(String, String)>,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    let known = key.split_once('.').is_some_and(|(section, key)| {
        millrace_runtime::config::SECTIONS.contains(&section) && !key.is_empty()
    });
    if known { Ok((key.to_owned(), value.to_owned())) } else { Err(format!("{key:?} is not SECTION.KEY")) }
}

/// The names and values of environment variables.
pub type Vars = Vec<(OsString, OsString)>;

impl NodeArgs {
    /// Adds the layers of file, environment and flags to `loader`.
    pub fn layers(&self, loader: Loader, vars: Vars) -> anyhow::Result<Loader> {
        let loader = match &self.config {
            Some(path) => loader.file(path)?,
            None => loader,
        };
        let loader = loader.env(vars)?;
        let loader = loader.set("log.json", self.log_json.then_some("true"), "--log-json");
        Ok(self.sets.iter().fold(loader, |loader, (key, value)| loader.set(key, Some(value), "--set")))
    }
}

#[derive(Debug, Parser)]
#[command(version, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    args: NodeArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Reads the node's configuration and reports its first mistake.
    CheckConfig,
    /// Asks a node for its health, for container health checks: exit status 0 or 1.
    Healthcheck {
        /// The URL to ask, for example `http://127.0.0.1:8080/readyz`.
        url: String,
    },
}

/// One role as its own program.
#[derive(Debug)]
pub struct Program<R> {
    cli: Cli,
    role: PhantomData<R>,
}

impl<R: Role> Program<R> {
    /// Parses the command line of the process; ends the process with a message if it is wrong.
    pub fn parse() -> Self {
        let cli = Cli::from_arg_matches(&Self::command().get_matches()).unwrap_or_else(|error| error.exit());
        Self { cli, role: PhantomData }
    }

    fn command() -> clap::Command {
        Cli::command().name(R::PROGRAM).about(R::ABOUT)
    }

    /// Loads the configuration from flags, the environment `vars` and the file.
    pub fn load(&self, vars: Vars) -> anyhow::Result<ConfigTree> {
        let tree = match &self.cli.command {
            Some(Command::Healthcheck { .. }) => Loader::new().load(),
            None | Some(Command::CheckConfig) => self.cli.args.layers(Loader::new(), vars)?.load(),
        };
        Ok(tree)
    }

    /// Runs the command to its end.
    pub fn run(&self, tree: &ConfigTree) -> anyhow::Result<()> {
        if let Some(Command::Healthcheck { url }) = &self.cli.command {
            return ops::healthcheck(url);
        }
        read_common(tree)?;
        R::config(tree)?;
        if let Some(Command::CheckConfig) = &self.cli.command {
            report_valid(tree);
            return Ok(());
        }
        start_log(tree)?;
        crate::run::<R>(tree)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Parser)]
    struct Flags {
        #[command(flatten)]
        _args: NodeArgs,
    }

    #[test]
    fn command_line_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn set_flag_refuses_what_is_no_section_and_key() {
        for bad in ["edge", "edge.=1", "nowhere.key=1", "edge.workers"] {
            assert!(Flags::try_parse_from(["x", "--set", bad]).is_err(), "{bad}");
        }
    }
}
