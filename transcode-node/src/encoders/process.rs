//! One child process: its start, the frames to and from it, its watchdog, and its end.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use millrace_codec::engine::order::Order;
use millrace_codec::engine::product::Product;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout};

use super::command::{COMMAND, DEVICES};
use super::frames::{ChildMessage, FrameReader, decode_product, encode_order};
use super::sandbox::Limits;
use super::shared::{Shared, media_bytes};
use super::stderr_tail::StderrTail;
use super::watchdog::{LOOK, State, Watchdog, processor_time};
use super::{EndCause, Ended, Event, spawner};

/// The longest time from a child's closed socket to its end, until it is killed.
const EXIT_LIMIT: Duration = Duration::from_secs(2);
/// Messages besides pictures and sound that a child may hand in between two looks, and at once: thumbnails, conditions, reports.
const OTHERS_PER_LOOK: u32 = 32;
const OTHERS_AT_ONCE: u32 = 512;
/// Looks between two samples of the lag, which are taken once a second.
const LOOKS_PER_SAMPLE: u32 = 2;
/// Slices that are written at once.
const SLICES: usize = 64;

/// The program that is started as a child, and its limits.
#[derive(Debug, Clone)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    pub(super) limits: Limits,
}

impl Program {
    fn command(&self, name: &str, socket: OwnedFd) -> Command {
        let Limits { memory_bytes, nice, devices } = self.limits;
        let mut command = Command::new(&self.path);
        command
            .args([name, &memory_bytes.to_string(), &nice.to_string()])
            .args(devices.then_some(DEVICES))
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(socket))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0);
        command
    }

    /// Starts the program with this command, and a socket to it.
    pub(super) async fn start(&self, name: &str) -> std::io::Result<(Child, UnixStream)> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let child = spawner::spawn(self.command(name, theirs.into())).await?;
        Ok((child, UnixStream::from_std(ours)?))
    }
}

/// Runs one child to its end: orders in, checked events out. It is killed when the future is dropped.
pub(super) async fn run(
    program: Program,
    orders: mpsc::Receiver<Order>,
    events: mpsc::Sender<Event>,
    shared: Arc<Shared>,
) {
    let ended = match program.start(COMMAND).await {
        Ok((child, stream)) => Running::new(child, stream, events.clone(), shared.clone()).run(orders).await,
        Err(error) => {
            let text = format!("the encoders' process did not start: {error}");
            Some(Ended { cause: EndCause::NotStarted, text })
        }
    };
    if let Some(ended) = ended {
        shared.ended(&ended);
        // The job may have gone.
        let _ = events.send(Event::Ended(ended)).await;
    }
}

/// Writes orders to the socket as they come.
struct Writer {
    socket: OwnedWriteHalf,
    slices: VecDeque<Bytes>,
    shared: Arc<Shared>,
}

impl Writer {
    /// Writes until the orders or the socket end.
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        while let Some(order) = orders.recv().await {
            let bytes = media_bytes(&order);
            self.slices.extend(encode_order(order).into_slices());
            if self.flush().await.is_err() {
                // The child has gone; its end is seen where its products are read.
                return;
            }
            self.shared.written(bytes);
        }
    }

    async fn flush(&mut self) -> std::io::Result<()> {
        while !self.slices.is_empty() {
            let mut written = {
                let slices: Vec<_> =
                    self.slices.iter().take(SLICES).map(|slice| IoSlice::new(slice)).collect();
                self.socket.write_vectored(&slices).await?
            };
            if written == 0 {
                return Err(std::io::ErrorKind::WriteZero.into());
            }
            while let Some(first) = self.slices.front_mut() {
                let part = written.min(first.len());
                first.advance(part);
                written -= part;
                if !first.is_empty() {
                    break;
                }
                self.slices.pop_front();
            }
        }
        Ok(())
    }
}

/// A child that runs.
struct Running {
    child: Child,
    socket: OwnedReadHalf,
    writer: Option<OwnedWriteHalf>,
    frames: FrameReader,
    tail: StderrTail,
    events: mpsc::Sender<Event>,
    shared: Arc<Shared>,
    watchdog: Watchdog,
    /// Looks since the start.
    looks: u32,
    others: u32,
}

impl Running {
    fn new(child: Child, stream: UnixStream, events: mpsc::Sender<Event>, shared: Arc<Shared>) -> Self {
        let (socket, writer) = stream.into_split();
        Self {
            child,
            socket,
            writer: Some(writer),
            frames: FrameReader::default(),
            tail: StderrTail::default(),
            events,
            shared,
            watchdog: Watchdog::default(),
            looks: 0,
            others: OTHERS_AT_ONCE,
        }
    }

    /// Runs the child to its end; `None` if the job has gone.
    async fn run(mut self, orders: mpsc::Receiver<Order>) -> Option<Ended> {
        let mut stderr = self.child.stderr.take();
        let socket = self.writer.take()?;
        let writer = Writer { socket, slices: VecDeque::new(), shared: self.shared.clone() };
        let mut writer = tokio::spawn(writer.run(orders));
        let mut looks = looks();
        let ended = loop {
            tokio::select! {
                read = self.socket.read_buf(self.frames.buffer()) => match read {
                    Ok(0) | Err(_) => break self.exited(stderr.as_mut()).await,
                    Ok(_) => match self.take_frames().await {
                        Ok(true) => {}
                        Ok(false) => break None,
                        Err(ended) => break Some(ended),
                    },
                },
                more = read_tail(&mut self.tail, &mut stderr) => if !more { stderr = None },
                now = looks.tick() => match self.look(now).await {
                    Ok(true) => {}
                    Ok(false) => break None,
                    Err(ended) => break Some(ended),
                },
                _ = &mut writer, if !writer.is_finished() => {}
            }
        };
        writer.abort();
        ended
    }

    /// Hands in what is complete. False if the job has gone.
    async fn take_frames(&mut self) -> Result<bool, Ended> {
        let misbehaved = |reason: String| Ended {
            cause: EndCause::Misbehaved,
            text: format!("the encoders' process was killed, because it handed in {reason}"),
        };
        loop {
            let frame = self.frames.next_frame().map_err(|error| misbehaved(error.to_string()))?;
            let Some((kind, body)) = frame else { return Ok(true) };
            let message = decode_product(kind, body).map_err(|error| misbehaved(error.to_string()))?;
            let product = match message {
                ChildMessage::Product(product) => product,
                ChildMessage::Failed(reason) => {
                    let text = format!("the encoders ended themselves: {}", reason.escape_debug());
                    return Err(Ended { cause: EndCause::Died, text });
                }
            };
            self.shared.check(&product).map_err(|violation| misbehaved(violation.to_string()))?;
            if !self.note(&product) {
                return Err(misbehaved("reports and conditions without end".to_owned()));
            }
            if self.events.send(Event::Product(product)).await.is_err() {
                return Ok(false);
            }
        }
    }

    /// Notes a product's sign of life. False if there are too many of its kind.
    fn note(&mut self, product: &Product) -> bool {
        self.watchdog.hears(matches!(product, Product::Report(_)));
        if matches!(product, Product::Picture(_) | Product::Sound { .. }) {
            return true;
        }
        let rest = self.others.checked_sub(1);
        self.others = rest.unwrap_or_default();
        rest.is_some()
    }

    /// Looks at the child's progress. False if the job has gone.
    async fn look(&mut self, now: Instant) -> Result<bool, Ended> {
        self.others = (self.others + OTHERS_PER_LOOK).min(OTHERS_AT_ONCE);
        self.looks = self.looks.wrapping_add(1);
        let state = self.watchdog.look(self.shared.is_flushing(), self.child.id().and_then(processor_time));
        if let State::Hangs(time) = state {
            let tail = self.tail.text();
            let text = format!(
                "the encoders' process was killed, because it made nothing for {} s: {tail}",
                time.as_secs()
            );
            return Err(Ended { cause: EndCause::Hung, text });
        }
        let is_sampled = state == State::Lives && self.looks.is_multiple_of(LOOKS_PER_SAMPLE);
        let sample = if is_sampled { self.shared.sample(now) } else { None };
        match sample {
            Some(rungs) => Ok(self.events.send(Event::Encode(rungs)).await.is_ok()),
            None => Ok(!self.events.is_closed()),
        }
    }

    /// Describes the end of a child that has closed its socket.
    async fn exited(&mut self, stderr: Option<&mut tokio::process::ChildStderr>) -> Option<Ended> {
        if let Some(stderr) = stderr {
            let _ = timeout(EXIT_LIMIT, async { while self.tail.read(stderr).await {} }).await;
        }
        let status = match timeout(EXIT_LIMIT, self.child.wait()).await {
            Ok(Ok(status)) => describe(status),
            Ok(Err(error)) => format!("ended; its status is unknown: {error}"),
            Err(_) => "closed its socket and was killed".to_owned(),
        };
        let tail = self.tail.text();
        Some(Ended { cause: EndCause::Died, text: format!("the encoders' process {status}: {tail}") })
    }
}

fn looks() -> Interval {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Reads the error output once; waits for ever when it has ended.
async fn read_tail(tail: &mut StderrTail, stderr: &mut Option<tokio::process::ChildStderr>) -> bool {
    match stderr {
        Some(stderr) => tail.read(stderr).await,
        None => std::future::pending().await,
    }
}

/// Returns the exit status in words.
pub(super) fn describe(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(libc::SIGKILL), _) => {
            "was killed (SIGKILL), by the system for want of memory or by hand".to_owned()
        }
        (Some(libc::SIGSYS), _) => "was killed (SIGSYS), because it made a forbidden system call".to_owned(),
        (Some(signal), _) => format!("died of signal {signal} ({})", signal_name(signal)),
        (None, Some(code)) => format!("exited with status {code}"),
        (None, None) => "ended".to_owned(),
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGILL => "SIGILL",
        libc::SIGFPE => "SIGFPE",
        libc::SIGTERM => "SIGTERM",
        _ => "no fault",
    }
}
