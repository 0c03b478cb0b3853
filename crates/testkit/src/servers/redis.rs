//! The redis-server of the machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Running, answers, need, on_path};
use crate::process::Process;

/// A redis-server that writes every change to its append-only file.
#[derive(Debug)]
pub struct RedisServer {
    running: Running,
    binary: PathBuf,
}

fn command(binary: &Path, dir: &Path, port: u16) -> Command {
    let mut command = Command::new(binary);
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"]).arg(dir);
    command.args(["--save", "", "--appendonly", "yes", "--appendfsync", "always"]);
    command
}

async fn ready(port: u16) -> bool {
    answers(port, b"PING\r\n", "+PONG").await
}

impl RedisServer {
    /// Starts one and waits until it answers.
    pub async fn start() -> Self {
        let binary = need(on_path("redis-server"), "redis-server", "apt-get install redis-server");
        let running = Running::start("redis", |dir, port| command(&binary, dir, port), ready).await;
        Self { running, binary }
    }

    /// Returns the server's URL, `redis://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.running.port)
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
