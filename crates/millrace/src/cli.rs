//! The command line of `millrace`.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use millrace_node::{NodeArgs, Role, Vars};
use millrace_runtime::{ConfigTree, Loader};

use crate::token::TokenArgs;

/// Self-hosted live streaming.
#[derive(Debug, Parser)]
#[command(name = "millrace", version, about, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// All four nodes in one process on embedded, durable backends.
    Standalone(StandaloneArgs),
    #[command(about = millrace_ingest::Ingest::ABOUT)]
    Ingest(NodeArgs),
    #[command(about = millrace_transcode::Transcode::ABOUT)]
    Transcode(NodeArgs),
    #[command(about = millrace_edge::Edge::ABOUT)]
    Edge(NodeArgs),
    #[command(about = millrace_control::Control::ABOUT)]
    Control(NodeArgs),
    /// Reads the whole configuration and reports its first mistake.
    CheckConfig(NodeArgs),
    /// Makes, lists and revokes API tokens at a running control.
    Token(TokenArgs),
    /// Asks a node for its health, for container health checks: exit status 0 or 1.
    Healthcheck {
        /// The URL to ask, for example `http://127.0.0.1:8080/readyz`.
        url: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct StandaloneArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// The directory of state, media and the admin token. One process at a time.
    #[arg(long, value_name = "DIR", default_value = "millrace-data")]
    pub(crate) data: PathBuf,
    /// The address publishers connect to, e.g. `0.0.0.0:1935`; port 0 chooses one.
    #[arg(long, value_name = "ADDR")]
    rtmp: Option<String>,
    /// The address viewers connect to, e.g. `0.0.0.0:8000`.
    #[arg(long, value_name = "ADDR")]
    edge: Option<String>,
    /// The address of the API and the dashboard, e.g. `127.0.0.1:8080`.
    #[arg(long, value_name = "ADDR")]
    control: Option<String>,
    /// Bearer token of the API. Other users of the machine can read it here: prefer
    /// `MILLRACE_CONTROL_ADMIN_TOKEN_FILE`. Without any, one is made, kept in DIR/admin-token and printed once.
    #[arg(long, value_name = "TOKEN")]
    admin_token: Option<String>,
}

/// The settings that differ in one process: no other node can take over its publishers, so a stop does not wait for them.
const STANDALONE_DEFAULTS: &str = "[ingest]\ndrain_s = 1\n[transcode]\ndrain_s = 5\n";

impl Cli {
    /// The configuration as the flags, the environment `vars` and the file give it.
    pub(crate) fn load(&self, vars: Vars) -> anyhow::Result<ConfigTree> {
        let tree = match &self.command {
            Command::Healthcheck { .. } => Loader::new().load(),
            Command::Standalone(args) => {
                let defaults = Loader::new().text(STANDALONE_DEFAULTS, Path::new("standalone"))?;
                args.node
                    .layers(defaults, vars)?
                    .set("ingest.rtmp", args.rtmp.as_deref(), "--rtmp")
                    .set("edge.listen", args.edge.as_deref(), "--edge")
                    .set("control.listen", args.control.as_deref(), "--control")
                    .set("control.admin_token", args.admin_token.as_deref(), "--admin-token")
                    .load()
            }
            Command::Token(args) => args.node.layers(Loader::new(), vars)?.load(),
            Command::Ingest(args)
            | Command::Transcode(args)
            | Command::Edge(args)
            | Command::Control(args)
            | Command::CheckConfig(args) => args.layers(Loader::new(), vars)?.load(),
        };
        Ok(tree)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_definition_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn standalone_flags_set_their_keys() {
        let cli = Cli::parse_from([
            "millrace",
            "standalone",
            "--data",
            "d",
            "--rtmp",
            "127.0.0.1:0",
            "--edge",
            "127.0.0.1:1",
            "--control",
            "127.0.0.1:2",
            "--admin-token",
            "0123456789abcdef",
            "--set",
            "edge.workers=3",
        ]);
        let tree = cli.load(Vars::new()).unwrap();
        let edge: millrace_edge::Config = tree.section().unwrap();
        assert_eq!((edge.listen.port(), edge.workers), (1, 3));
        let control: millrace_control::Config = tree.section().unwrap();
        assert_eq!(control.listen.port(), 2);
        assert_eq!(control.admin_token.expose(), "0123456789abcdef");
        let ingest: millrace_ingest::Config = tree.section().unwrap();
        assert_eq!((ingest.rtmp.port(), ingest.drain_s), (0, 1));
    }
}
