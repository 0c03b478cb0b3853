//! A trial of the child process before any stream needs it: what it is kept from, and what it can encode with.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use millrace_codec::engine::order::EncoderKind;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::command::PROBE;
use super::process::describe;
use super::speed;
use super::stderr_tail::StderrTail;
use super::transcoder::ChildSettings;

/// The longest time a trial takes: drivers of hardware take seconds to open.
const LIMIT: Duration = Duration::from_secs(30);
/// The largest report.
const MAX_REPORT: u64 = 64 << 10;

/// What a child process is kept from; true for each trial that failed, as it must.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "independent results")]
pub struct Isolation {
    /// It cannot open a file.
    pub no_files: bool,
    /// It cannot open a socket.
    pub no_sockets: bool,
    /// It cannot start a process.
    pub no_processes: bool,
    /// It has no environment.
    pub no_environment: bool,
}

impl Isolation {
    /// Tries everything that must fail.
    fn try_all() -> Self {
        let opens = |path: &str| File::open(path).is_ok();
        let tcp = TcpListener::bind("127.0.0.1:0").is_ok();
        let unix = UnixDatagram::unbound().is_ok() || UnixStream::pair().is_ok();
        Self {
            no_files: !opens("/proc/self/status")
                && !opens("/etc/passwd")
                && File::create("/tmp/millrace").is_err(),
            no_sockets: !tcp && !unix,
            no_processes: Command::new("/bin/true").spawn().is_err(),
            no_environment: std::env::vars_os().next().is_none(),
        }
    }

    /// True if the process is kept from everything. Encoders in hardware need files.
    pub const fn holds(self, devices: bool) -> bool {
        (self.no_files || devices) && self.no_sockets && self.no_processes && self.no_environment
    }
}

/// The trial of one encoder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncoderTrial {
    /// The encoder.
    pub kind: EncoderKind,
    /// The reason why it cannot be used here; `None` if it can.
    pub refused: Option<String>,
}

/// The report of a trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// What the process is kept from.
    pub isolation: Isolation,
    /// The encoders that were tried, in the order of preference.
    pub encoders: Vec<EncoderTrial>,
    /// Pixels that the first encoder that works makes in a second of one core's time; `None` if none works.
    pub pixels_per_second: Option<u64>,
}

impl ProbeReport {
    /// Returns the encoders that work, in the order of preference.
    pub fn usable(&self) -> Vec<EncoderKind> {
        self.encoders.iter().filter(|trial| trial.refused.is_none()).map(|trial| trial.kind).collect()
    }
}

/// Runs the trial in this process, a child, and writes the report to the worker. The order says which encoders are to be tried.
pub(super) fn report(socket: &Arc<UnixStream>) -> anyhow::Result<()> {
    let mut socket: &UnixStream = socket;
    let mut order = Vec::new();
    socket.take(MAX_REPORT).read_to_end(&mut order)?;
    let kinds: Vec<EncoderKind> = serde_json::from_slice(&order).context("order")?;
    let isolation = Isolation::try_all();
    let attempt =
        |kind: EncoderKind| EncoderTrial { kind, refused: kind.probe().err().map(|error| error.to_string()) };
    let encoders = kinds.into_iter().map(attempt).collect();
    let mut report = ProbeReport { isolation, encoders, pixels_per_second: None };
    if let Some(first) = report.usable().first() {
        report.pixels_per_second = Some(speed::measure(*first)?);
    }
    Ok(socket.write_all(&serde_json::to_vec(&report)?)?)
}

/// Runs a trial in a child process with these settings.
///
/// # Errors
/// When the process does not start, ends without a report, or takes too long.
pub async fn probe(settings: &ChildSettings) -> anyhow::Result<ProbeReport> {
    timeout(LIMIT, run(settings)).await.context("the trial of the encoders took too long")?
}

async fn run(settings: &ChildSettings) -> anyhow::Result<ProbeReport> {
    let started = settings.program().start(PROBE).await;
    let (mut child, mut socket) = started.context("the encoders' process did not start")?;
    let order = serde_json::to_vec(&settings.encoders)?;
    // A child that has ended already says why below.
    let _ = socket.write_all(&order).await;
    let _ = socket.shutdown().await;
    let mut report = Vec::new();
    socket.take(MAX_REPORT).read_to_end(&mut report).await.context("report of the encoders' process")?;
    let mut tail = StderrTail::default();
    if let Some(mut stderr) = child.stderr.take() {
        while tail.read(&mut stderr).await {}
    }
    let status = child.wait().await?;
    if !status.success() {
        bail!("the encoders' process {}: {}", describe(status), tail.text());
    }
    serde_json::from_slice(&report).context("report of the encoders' process")
}
