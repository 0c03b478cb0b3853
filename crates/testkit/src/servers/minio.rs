//! MinIO, and what stands in for it on a developer's machine that has no Go to build it.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Running, answers, bin_dir, in_ci, need, on_path};
use crate::process::Process;

const INSTALL: &str = "scripts/setup test builds it where Go is, and s3s-fs in its place where not";

/// An S3 with no buckets: MinIO with one disk, or `s3s-fs` over a directory.
#[derive(Debug)]
pub struct MinioServer {
    running: Running,
    binary: Binary,
}

#[derive(Debug)]
enum Binary {
    Minio(PathBuf),
    S3sFs(PathBuf),
}

impl Binary {
    fn find(stand_in: bool) -> Self {
        let found = |name| Some(bin_dir().join(name)).filter(|file| file.is_file()).or_else(|| on_path(name));
        let minio = found("minio");
        match found("s3s-fs").filter(|_| minio.is_none() && stand_in && !in_ci()) {
            Some(s3s) => Self::S3sFs(s3s),
            None => Self::Minio(need(minio, "MinIO", INSTALL)),
        }
    }

    fn command(&self, dir: &Path, port: u16) -> Command {
        match self {
            Self::Minio(binary) => minio(binary, dir, port),
            Self::S3sFs(binary) => s3s_fs(binary, dir, port),
        }
    }

    async fn ready(&self, port: u16) -> bool {
        let (path, expect) = match self {
            Self::Minio(_) => ("/minio/health/cluster", " 200 OK"),
            // Any answer to an unauthenticated request means that the server is ready.
            Self::S3sFs(_) => ("/", "HTTP/1.1 "),
        };
        let ask = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        answers(port, ask.as_bytes(), expect).await
    }
}

fn s3s_fs(binary: &Path, dir: &Path, port: u16) -> Command {
    let data = dir.join("data");
    std::fs::create_dir_all(&data).expect("make a temporary directory");
    let mut command = Command::new(binary);
    command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
    command.args(["--access-key", MinioServer::ACCESS_KEY, "--secret-key", MinioServer::SECRET_KEY]);
    command.arg(data);
    command
}

fn minio(binary: &Path, dir: &Path, port: u16) -> Command {
    let mut command = Command::new(binary);
    command.arg("server").arg(dir.join("data"));
    command.args(["--quiet", "--address", &format!("127.0.0.1:{port}")]);
    command.args(["--console-address", &format!("127.0.0.1:{}", crate::ports::free())]);
    command.env("MINIO_ROOT_USER", MinioServer::ACCESS_KEY);
    command.env("MINIO_ROOT_PASSWORD", MinioServer::SECRET_KEY);
    command.env("MINIO_BROWSER", "off").env("MINIO_UPDATE", "off").env("HOME", dir);
    command
}

impl MinioServer {
    /// Returns the name of the administrator.
    pub const ACCESS_KEY: &str = "millrace";
    /// Returns the password of the administrator.
    pub const SECRET_KEY: &str = "millrace-test";

    /// Starts one and waits until it answers: MinIO, or outside CI what stands in for it.
    pub async fn start() -> Self {
        Self::start_as(Binary::find(true)).await
    }

    /// As [`MinioServer::start`], with MinIO and nothing else: `s3s-fs` 0.14 takes objects into buckets that do not exist and
    /// answers a suffix longer than the object with an error, so it cannot say whether a store conforms.
    pub async fn start_real() -> Self {
        Self::start_as(Binary::find(false)).await
    }

    async fn start_as(binary: Binary) -> Self {
        let start = |dir: &Path, port| binary.command(dir, port);
        let running = Running::start("minio", start, async |port| binary.ready(port).await).await;
        Self { running, binary }
    }

    /// Returns the directory that holds its objects, and that a small disk may be mounted over.
    pub fn data(&self) -> PathBuf {
        self.running.dir.path().join("data")
    }

    /// Returns the server's URL, `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.running.port)
    }

    /// The process, to kill or freeze.
    pub fn process(&mut self) -> &mut Process {
        &mut self.running.process
    }

    /// Kills it if it still runs, and starts it again on the same port with what it had stored.
    pub async fn restart(&mut self) {
        let command = self.binary.command(self.running.dir.path(), self.running.port);
        let binary = &self.binary;
        self.running.again(command, async |port| binary.ready(port).await).await;
    }
}
