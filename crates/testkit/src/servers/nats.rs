//! The nats-server, as packaged by Debian and as the newest release.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Running, answers, bin_dir, in_ci, need, on_path};
use crate::process::Process;

const INSTALL_DEBIAN: &str = "apt-get install nats-server";
const INSTALL_NEWEST: &str =
    "GOBIN=~/.cache/millrace/bin go install github.com/nats-io/nats-server/v2@latest";

/// The version of nats-server to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NatsKind {
    /// The distribution's, 2.9 on Debian 12: the oldest that is supported.
    Distribution,
    /// The newest, built with Go into `$MILLRACE_BIN_DIR` or `~/.cache/millrace/bin`.
    Newest,
}

impl NatsKind {
    fn find(self) -> Option<PathBuf> {
        match self {
            Self::Distribution => on_path("nats-server"),
            Self::Newest => Some(bin_dir().join("nats-server")).filter(|file| file.is_file()),
        }
    }

    fn need(self) -> PathBuf {
        match self {
            Self::Distribution => need(self.find(), "nats-server", INSTALL_DEBIAN),
            Self::Newest => need(self.find(), "the newest nats-server", INSTALL_NEWEST),
        }
    }

    /// The kinds to test with: both in CI, else those that are installed, at least one.
    pub fn all() -> Vec<Self> {
        let both = [Self::Distribution, Self::Newest];
        if in_ci() {
            return both.into();
        }
        let found: Vec<Self> = both.into_iter().filter(|kind| kind.find().is_some()).collect();
        if found.is_empty() { vec![Self::Distribution] } else { found }
    }
}

/// A running nats-server with JetStream.
#[derive(Debug)]
pub struct NatsServer {
    running: Running,
    binary: PathBuf,
}

fn command(binary: &Path, dir: &Path, port: u16) -> Command {
    let mut command = Command::new(binary);
    command.args(["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd"]).arg(dir.join("js"));
    command
}

async fn ready(port: u16) -> bool {
    // The server speaks first.
    answers(port, b"", "INFO").await
}

impl NatsServer {
    /// Starts one and waits until it answers.
    pub async fn start(kind: NatsKind) -> Self {
        let binary = kind.need();
        let running = Running::start("nats", |dir, port| command(&binary, dir, port), ready).await;
        Self { running, binary }
    }

    /// Starts a nats-server without JetStream.
    pub async fn start_plain(kind: NatsKind) -> Self {
        let binary = kind.need();
        let command = |_: &Path, port: u16| {
            let mut command = Command::new(&binary);
            command.args(["-a", "127.0.0.1", "-p", &port.to_string()]);
            command
        };
        let running = Running::start("nats", command, ready).await;
        Self { running, binary }
    }

    /// Starts any that is installed, the newest first.
    pub async fn start_any() -> Self {
        Self::start(NatsKind::all().pop().unwrap_or(NatsKind::Distribution)).await
    }

    /// Returns the server's URL, `nats://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.running.port)
    }

    /// The process, to kill or freeze.
    pub fn process(&mut self) -> &mut Process {
        &mut self.running.process
    }

    /// Kills it if it still runs, and starts it again on the same port with what it had stored.
    pub async fn restart(&mut self) {
        let command = command(&self.binary, self.running.dir.path(), self.running.port);
        self.running.again(command, ready).await;
    }
}
