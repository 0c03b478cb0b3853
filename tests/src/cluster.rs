//! A real cluster on one machine: every node a process of its own on a real nats-server, redis-server and MinIO.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_state::{RedisConfig, RedisState};
use millrace_store::{S3Config, S3Store};
use millrace_testkit::{MinioServer, NatsServer, RedisServer, ports};
use tempfile::TempDir;

use crate::api::Api;
use millrace_testkit::Process;
use millrace_testkit::programs::{millrace_command, node_command, spawn, tail};
use millrace_testkit::{http, wait};

/// Start-up of a node on a busy two-core machine.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// A worker gives its jobs 30 s to move, an ingest node its publishers 20 s.
const DRAIN_LIMIT: Duration = Duration::from_secs(40);
const TOKEN: &str = "test-admin-token-0123456789abcdef";
const BUCKET: &str = "millrace";

/// A node of the cluster, with the number that distinguishes it from others of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    /// The API, and the stream's lifecycle.
    Control,
    /// The node that takes publishers.
    Ingest,
    /// Packages; the first or the second.
    Transcode(u8),
    /// Serves viewers; the first or the second.
    Edge(u8),
}

impl Node {
    fn role(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Ingest => "ingest",
            Self::Transcode(_) => "transcode",
            Self::Edge(_) => "edge",
        }
    }

    fn name(self) -> String {
        match self {
            Self::Transcode(number) | Self::Edge(number) => format!("{}-{number}", self.role()),
            _ => self.role().to_owned(),
        }
    }
}

/// The programs that the nodes run as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Programs {
    /// The commands of the `millrace` program.
    One,
    /// Each kind its own program.
    Own,
}

fn bucket(minio: &MinioServer) -> S3Config {
    S3Config::new(minio.url(), BUCKET, MinioServer::ACCESS_KEY, MinioServer::SECRET_KEY)
}

/// The servers and the nodes.
#[derive(Debug)]
pub struct Cluster {
    programs: Programs,
    nodes: BTreeMap<Node, Process>,
    ports: BTreeMap<Node, u16>,
    /// The server of the message bus.
    pub nats: NatsServer,
    /// The server of the state store.
    pub redis: RedisServer,
    /// The server of the object store.
    pub minio: MinioServer,
    folder: TempDir,
}

/// The nodes of a whole cluster, in the order of their start.
const ALL: [Node; 6] =
    [Node::Control, Node::Ingest, Node::Transcode(1), Node::Transcode(2), Node::Edge(1), Node::Edge(2)];

impl Cluster {
    /// Control, ingest, two workers and two edges, all ready.
    pub async fn start() -> Result<Self> {
        Self::start_as(Programs::One).await
    }

    /// The same, run as these programs.
    pub async fn start_as(programs: Programs) -> Result<Self> {
        Self::start_nodes(programs, &ALL).await
    }

    /// The servers and these nodes, in this order.
    pub async fn start_with(nodes: &[Node]) -> Result<Self> {
        Self::start_nodes(Programs::One, nodes).await
    }

    async fn start_nodes(programs: Programs, nodes: &[Node]) -> Result<Self> {
        let (nats, redis, minio) =
            (NatsServer::start_any().await, RedisServer::start().await, MinioServer::start().await);
        S3Store::new(&bucket(&minio)).create_bucket().await.context("the bucket")?;
        let ports = ALL.map(|node| (node, ports::free()));
        let folder = TempDir::with_prefix("millrace-protocol-").context("a folder for the cluster")?;
        let mut cluster =
            Self { programs, nodes: BTreeMap::new(), ports: ports.into(), nats, redis, minio, folder };
        std::fs::write(cluster.folder.path().join("millrace.toml"), cluster.configuration())?;
        for &node in nodes {
            cluster.start_node(node).await?;
        }
        Ok(cluster)
    }

    /// One file for all nodes; what differs comes as environment.
    fn configuration(&self) -> String {
        let (nats, redis, minio) = (self.nats.url(), self.redis.url(), self.minio.url());
        let (user, password) = (MinioServer::ACCESS_KEY, MinioServer::SECRET_KEY);
        let (rtmp, edge) = (self.ports[&Node::Ingest], self.edge_url(1));
        format!(
            "[bus]\nurls = ['{nats}']\n\
             [state]\nurl = '{redis}'\n\
             [store]\nendpoint = '{minio}'\nbucket = '{BUCKET}'\naccess_key = '{user}'\nsecret_key = '{password}'\n\
             [control]\nadmin_token = '{TOKEN}'\nrtmp_url = 'rtmp://127.0.0.1:{rtmp}/live'\nedge_url = '{edge}'\n\
             stream_key_secret = 'a-secret-of-the-tests-only-0123456789'\n\
             [ingest]\nstream_key_secret = 'a-secret-of-the-tests-only-0123456789'\n"
        )
    }

    /// Starts a node (again), on the port it has always had.
    pub async fn start_node(&mut self, node: Node) -> Result<()> {
        let mut command: Command = match self.programs {
            Programs::One => millrace_command()?,
            Programs::Own => node_command(node.role())?,
        };
        if self.programs == Programs::One {
            command.arg(node.role());
        }
        command.arg("--config").arg(self.folder().join("millrace.toml"));
        if let Some(port) = self.ports.get(&node) {
            let key = match node {
                Node::Ingest => "RTMP",
                Node::Transcode(_) => "METRICS_LISTEN",
                Node::Control | Node::Edge(_) => "LISTEN",
            };
            let variable = format!("MILLRACE_{}_{key}", node.role().to_uppercase());
            command.env(variable, format!("127.0.0.1:{port}"));
        }
        let mut process = spawn(&node.name(), self.folder(), command)?;
        self.until_ready(node, &mut process).await.with_context(|| tail(&process))?;
        self.nodes.insert(node, process);
        Ok(())
    }

    async fn until_ready(&self, node: Node, process: &mut Process) -> Result<()> {
        // A stream waits for a worker that is not ready.
        let is_worker = matches!(node, Node::Transcode(_));
        let Some(&port) = self.ports.get(&node).filter(|_| !is_worker) else { return Ok(()) };
        let what = format!("{} to be ready", node.name());
        wait::value(&what, READY_LIMIT, || {
            let running = process.is_running();
            async move {
                if !running {
                    return Some(Err(anyhow::anyhow!("it ended while starting")));
                }
                let ready = match node {
                    Node::Ingest => tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok(),
                    _ => http::get_ok(&format!("http://127.0.0.1:{port}/readyz")).await.is_ok(),
                };
                ready.then_some(Ok(()))
            }
        })
        .await?
    }

    /// Returns the metrics of a node that serves HTTP: all but ingest.
    pub async fn metrics(&self, node: Node) -> Result<String> {
        let port = self.ports.get(&node).with_context(|| format!("{} has no port", node.name()))?;
        http::get_text(&format!("http://127.0.0.1:{port}/metrics")).await
    }

    /// Returns a node that is running.
    pub fn node(&mut self, node: Node) -> Result<&mut Process> {
        self.nodes.get_mut(&node).with_context(|| format!("{} does not run", node.name()))
    }

    /// Ends a node with `kill -9`.
    pub fn kill(&mut self, node: Node) -> Result<()> {
        self.node(node)?.kill();
        Ok(())
    }

    /// SIGTERM, and waits for the node to end in order.
    pub async fn drain(&mut self, node: Node) -> Result<()> {
        let process = self.node(node)?;
        process.terminate();
        let status = process.wait(DRAIN_LIMIT).await.with_context(|| node.name())?;
        ensure!(status.success(), "{} ended with {status}\n{}", node.name(), tail(process));
        Ok(())
    }

    /// Returns the bucket with the cluster's objects.
    pub fn store(&self) -> S3Store {
        S3Store::new(&bucket(&self.minio))
    }

    /// Connects to the cluster's state store.
    pub async fn state(&self) -> Result<RedisState> {
        RedisState::connect(&RedisConfig::new(self.redis.url())).await.context("the state store")
    }

    /// Returns a client of the API.
    pub fn api(&self) -> Api {
        Api::new(&format!("http://127.0.0.1:{}", self.ports[&Node::Control]), TOKEN)
    }

    /// Returns the URL of control, `http://host:port`, and the token of its administrator.
    pub fn control(&self) -> (String, &'static str) {
        (format!("http://127.0.0.1:{}", self.ports[&Node::Control]), TOKEN)
    }

    /// Returns the URL of an edge, `http://host:port`.
    pub fn edge_url(&self, number: u8) -> String {
        format!("http://127.0.0.1:{}", self.ports[&Node::Edge(number)])
    }

    /// The multivariant playlist of a livestream at an edge.
    pub fn hls_url(&self, edge: u8, playback_id: &str) -> String {
        format!("{}/live/{playback_id}/index.m3u8", self.edge_url(edge))
    }

    /// Returns the folder of the logs, which is deleted with the cluster.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The end of every node's log, for messages.
    pub fn tails(&self) -> String {
        self.nodes.values().map(tail).collect::<Vec<_>>().join("\n")
    }
}
