//! MinIO.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Running, answers, bin_dir, need, on_path};
use crate::process::Process;

const INSTALL: &str = "GOBIN=~/.cache/millrace/bin go install github.com/minio/minio@latest";

/// A MinIO with one disk and no buckets.
#[derive(Debug)]
pub struct MinioServer {
    running: Running,
    binary: PathBuf,
}

fn command(binary: &Path, dir: &Path, port: u16) -> Command {
    let mut command = Command::new(binary);
    command.arg("server").arg(dir.join("data"));
    command.args(["--quiet", "--address", &format!("127.0.0.1:{port}")]);
    command.args(["--console-address", &format!("127.0.0.1:{}", crate::ports::free())]);
    command.env("MINIO_ROOT_USER", MinioServer::ACCESS_KEY);
    command.env("MINIO_ROOT_PASSWORD", MinioServer::SECRET_KEY);
    command.env("MINIO_BROWSER", "off").env("MINIO_UPDATE", "off").env("HOME", dir);
    command
}

async fn ready(port: u16) -> bool {
    let ask = b"GET /minio/health/cluster HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    answers(port, ask, " 200 OK").await
}

impl MinioServer {
    /// The administrator's name.
    pub const ACCESS_KEY: &str = "millrace";
    /// The administrator's password.
    pub const SECRET_KEY: &str = "millrace-test";

    /// Starts one and waits until it answers.
    pub async fn start() -> Self {
        let built = Some(bin_dir().join("minio")).filter(|file| file.is_file());
        let binary = need(built.or_else(|| on_path("minio")), "MinIO", INSTALL);
        let running = Running::start("minio", |dir, port| command(&binary, dir, port), ready).await;
        Self { running, binary }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.running.port)
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
