//! `millrace standalone` as a process of its own, on free ports.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use tempfile::TempDir;

use crate::api::Api;
use millrace_testkit::Process;
use millrace_testkit::disk::SmallDisk;
use millrace_testkit::programs::{millrace_command, spawn, tail};
use millrace_testkit::wait;

/// Start-up on a busy two-core machine.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// The administrator's token of the tests.
pub const TOKEN: &str = "test-admin-token-0123456789abcdef";

/// The addresses at which a started server listens (`ready.json`).
#[derive(Debug, Clone, Deserialize)]
pub struct Ready {
    /// The RTMP URL, `rtmp://host:port/live`.
    pub rtmp: String,
    /// `http://host:port` of the viewers' side.
    pub edge: String,
    /// The URL of the API, `http://host:port`.
    pub control: String,
}

/// A running server and its data.
#[derive(Debug)]
pub struct Standalone {
    folder: TempDir,
    process: Process,
    ready: Ready,
}

impl Standalone {
    /// Starts one on free ports with empty data.
    pub async fn start() -> Result<Self> {
        let folder = TempDir::with_prefix("millrace-e2e-").context("a folder for the server")?;
        let free = "127.0.0.1:0".to_owned();
        let (process, ready) = start_in(folder.path(), &[free.clone(), free.clone(), free]).await?;
        Ok(Self { folder, process, ready })
    }

    /// Starts one as [`Standalone::start`] does, with this configuration file.
    pub async fn start_with(configuration: &str) -> Result<Self> {
        let folder = TempDir::with_prefix("millrace-e2e-").context("a folder for the server")?;
        let file = folder.path().join("millrace.toml");
        std::fs::write(&file, configuration).context("the configuration")?;
        let mut command = millrace_command()?;
        command.env("MILLRACE_CONFIG", file);
        let free = "127.0.0.1:0".to_owned();
        let (process, ready) = start_as(command, folder.path(), &[free.clone(), free.clone(), free]).await?;
        Ok(Self { folder, process, ready })
    }

    /// Starts one as [`Standalone::start`] does, that may open `limit` files.
    pub async fn start_with_open_files(limit: u32) -> Result<Self> {
        let folder = TempDir::with_prefix("millrace-e2e-").context("a folder for the server")?;
        let free = "127.0.0.1:0".to_owned();
        let program = millrace_command()?;
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {limit} && exec \"$0\" \"$@\"")]).arg(program.get_program());
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let (process, ready) = start_as(command, folder.path(), &[free.clone(), free.clone(), free]).await?;
        Ok(Self { folder, process, ready })
    }

    /// Starts one with its data on a disk of `kib` KiB, and these variables in its environment.
    pub async fn start_on_small_disk(kib: u32, variables: &[(&str, &str)]) -> Result<(Self, SmallDisk)> {
        let folder = TempDir::with_prefix("millrace-e2e-").context("a folder for the server")?;
        let data = folder.path().join("data");
        std::fs::create_dir_all(&data).context("the data folder")?;
        let disk = SmallDisk::over(&data, kib);
        let mut command = millrace_command()?;
        command.envs(variables.iter().copied());
        let free = "127.0.0.1:0".to_owned();
        let (process, ready) = start_as(command, folder.path(), &[free.clone(), free.clone(), free]).await?;
        Ok((Self { folder, process, ready }, disk))
    }

    /// The addresses it listens at.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Returns a client of its API.
    pub fn api(&self) -> Api {
        Api::new(&self.ready.control, TOKEN)
    }

    /// Returns the process of the server.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// A folder for logs and files of the test, deleted with the server.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `kill -9`, then a new process on the same data and ports.
    pub async fn kill_and_restart(&mut self) -> Result<()> {
        self.process.kill();
        let addresses =
            [address(&self.ready.rtmp)?, address(&self.ready.edge)?, address(&self.ready.control)?];
        (self.process, self.ready) = start_in(self.folder.path(), &addresses).await?;
        Ok(())
    }
}

/// Returns the `host:port` of a URL.
pub fn address(url: &str) -> Result<String> {
    let rest = url.split_once("://").map(|(_, rest)| rest).with_context(|| format!("no URL: {url}"))?;
    Ok(rest.split('/').next().unwrap_or(rest).to_owned())
}

async fn start_in(folder: &Path, addresses: &[String; 3]) -> Result<(Process, Ready)> {
    start_as(millrace_command()?, folder, addresses).await
}

async fn start_as(
    mut command: Command,
    folder: &Path,
    [rtmp, edge, control]: &[String; 3],
) -> Result<(Process, Ready)> {
    let data = folder.join("data");
    std::fs::create_dir_all(&data).context("the data folder")?;
    let ready_file = data.join("ready.json");
    let _ = std::fs::remove_file(&ready_file);
    command.args([
        "standalone",
        "--rtmp",
        rtmp,
        "--edge",
        edge,
        "--control",
        control,
        "--admin-token",
        TOKEN,
    ]);
    command.arg("--data").arg(&data);
    let mut process = spawn("millrace", folder, command)?;
    let ready = read_ready(&mut process, ready_file).await?;
    Ok((process, ready))
}

async fn read_ready(process: &mut Process, file: PathBuf) -> Result<Ready> {
    let read = || std::fs::read(&file).ok().and_then(|text| serde_json::from_slice::<Ready>(&text).ok());
    let began = std::time::Instant::now();
    loop {
        if let Some(ready) = read() {
            return Ok(ready);
        }
        if !process.is_running() {
            bail!("millrace ended while starting\n{}", tail(process));
        }
        if began.elapsed() > READY_LIMIT {
            bail!("millrace was not ready within {READY_LIMIT:?}\n{}", tail(process));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the status of a livestream is `status`.
pub async fn until_status(api: &Api, id: &str, status: &str, limit: Duration) -> Result<()> {
    wait::value(&format!("status {status}"), limit, || async {
        (api.status(id).await.ok()?["status"] == status).then_some(())
    })
    .await
}
