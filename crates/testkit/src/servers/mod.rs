//! Real servers, each on a free port with a directory of its own, gone with the value.

mod key_service;
mod minio;
mod nats;
mod redis;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::process::Process;

pub use key_service::{Asked, KeyService, Mood};
pub use minio::MinioServer;
pub use nats::{NatsKind, NatsServer};
pub use redis::RedisServer;

/// A server is ready within this, or it is broken: generous for a loaded 2-core machine.
const READY: Duration = Duration::from_secs(30);
/// Another process may take the port between the choice and the start, so the start is repeated this often.
const START_TRIES: usize = 3;

/// True if a missing server is a fault of the machine, as under CI, and not the developer's choice.
fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true" || value == "1")
}

/// Returns the folder of servers that no package provides: `$MILLRACE_BIN_DIR`, else `~/.cache/millrace/bin`.
fn bin_dir() -> PathBuf {
    match (std::env::var_os("MILLRACE_BIN_DIR"), std::env::var_os("HOME")) {
        (Some(dir), _) => dir.into(),
        (None, Some(home)) => Path::new(&home).join(".cache/millrace/bin"),
        (None, None) => PathBuf::from("/usr/local/bin"),
    }
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// Returns the path of the program; panics with the way to install it.
fn need(found: Option<PathBuf>, what: &str, install: &str) -> PathBuf {
    let place = if in_ci() { "CI needs it" } else { "this test needs it" };
    found.unwrap_or_else(|| panic!("{what} is missing and {place}: {install}"))
}

/// A server's process, port and directory.
#[derive(Debug)]
struct Running {
    process: Process,
    port: u16,
    dir: TempDir,
}

impl Running {
    /// Starts the program that `command` describes for a directory and a port, and waits until `ready`
    /// accepts it.
    async fn start(
        name: &str,
        command: impl Fn(&Path, u16) -> Command,
        ready: impl AsyncFn(u16) -> bool,
    ) -> Self {
        let mut dir = TempDir::with_prefix(format!("millrace-{name}-")).expect("make a temporary directory");
        let mut said = String::new();
        for _ in 0..START_TRIES {
            let port = crate::ports::free();
            let log = dir.path().join("log");
            let process = Process::spawn(command(dir.path(), port), &log).expect("start a server");
            let mut running = Self { process, port, dir };
            if running.wait_ready(&ready).await {
                return running;
            }
            said = running.process.output();
            running.process.kill();
            dir = running.dir;
        }
        panic!("{name} did not start:\n{said}");
    }

    async fn wait_ready(&mut self, ready: impl AsyncFn(u16) -> bool) -> bool {
        let deadline = std::time::Instant::now() + READY;
        while self.process.is_running() && std::time::Instant::now() < deadline {
            if ready(self.port).await {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }

    /// Starts it again on the same port and directory.
    async fn again(&mut self, command: Command, ready: impl AsyncFn(u16) -> bool) {
        self.process.kill();
        self.process = Process::spawn(command, self.dir.path().join("log")).expect("start a server");
        assert!(self.wait_ready(ready).await, "server did not come back:\n{}", self.process.output());
    }
}

/// Sends `ask` and looks for `expect` in the answer.
async fn answers(port: u16, ask: &[u8], expect: &str) -> bool {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let talk = async {
        let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        socket.write_all(ask).await.ok()?;
        let mut bytes = vec![0; 4096];
        let count = socket.read(&mut bytes).await.ok()?;
        String::from_utf8_lossy(&bytes[..count]).contains(expect).then_some(())
    };
    tokio::time::timeout(Duration::from_secs(1), talk).await.is_ok_and(|found| found.is_some())
}
