//! A publisher that loops a clip in real time over RTMP.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::{Bytes, BytesMut};
use millrace_media::container::flv::file::{Reader, TagKind};
use millrace_rtmp::{ClientConfig, ClientEvent, ClientSession};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

/// From connecting to being let in.
const START_LIMIT: Duration = Duration::from_secs(20);

/// The tags of a clip, ready to be sent again and again.
#[derive(Debug, Clone)]
pub struct Reel {
    headers: Vec<Shot>,
    shots: Vec<Shot>,
    length_ms: u32,
}

/// One FLV tag of the reel.
#[derive(Debug, Clone)]
pub struct Shot {
    /// The kind of the tag, audio or video.
    pub kind: TagKind,
    /// Milliseconds since the clip began.
    pub at_ms: u32,
    /// The payload of the RTMP message.
    pub body: Bytes,
}

/// FLV packet type 0: codec parameters, sent once.
fn is_sequence_header(kind: TagKind, body: &[u8]) -> bool {
    kind != TagKind::Script && body.get(1) == Some(&0)
}

impl Reel {
    /// Reads an FLV file of `seconds` length, starting with a keyframe.
    pub fn open(path: &Path, seconds: u32) -> Result<Self> {
        let file = std::fs::read(path).with_context(|| path.display().to_string())?;
        let mut reel = Self { headers: Vec::new(), shots: Vec::new(), length_ms: seconds * 1000 };
        for tag in Reader::new(file.into())? {
            let tag = tag?;
            let shot = Shot { kind: tag.kind, at_ms: tag.timestamp_ms, body: tag.body };
            if is_sequence_header(shot.kind, &shot.body) {
                reel.headers.push(shot);
            } else if shot.kind != TagKind::Script
                && shot.at_ms < reel.length_ms
                && shot.body.get(1) == Some(&1)
            {
                reel.shots.push(shot);
            }
        }
        if reel.shots.is_empty() {
            bail!("{} holds no media", path.display());
        }
        Ok(reel)
    }

    /// Returns the reel with its sound from `at_ms` on only, codec parameters included: an encoder whose sound begins late, and
    /// which has not announced it.
    #[must_use]
    pub fn with_late_sound(mut self, at_ms: u32) -> Self {
        let is_sound = |shot: &Shot| shot.kind == TagKind::Audio;
        self.shots.retain(|shot| !is_sound(shot) || shot.at_ms >= at_ms);
        let place = self.shots.partition_point(|shot| shot.at_ms < at_ms);
        let (late, headers) = std::mem::take(&mut self.headers).into_iter().partition(is_sound);
        self.headers = headers;
        let late: Vec<Shot> = late;
        self.shots.splice(place..place, late.into_iter().map(|header| Shot { at_ms, ..header }));
        self
    }
}

/// The chunk size of OBS and ffmpeg: a picture is several chunks.
const CHUNK_BYTES: u32 = 4096;

/// The counts of all publishers of a run together.
#[derive(Debug, Default)]
pub struct Tally {
    /// The number of messages sent.
    pub messages: AtomicU64,
    /// The payload bytes sent.
    pub bytes: AtomicU64,
    /// The furthest a publisher fell behind its clock, in milliseconds.
    pub late_ms: AtomicU64,
    /// Set to end the run.
    pub stop: AtomicBool,
}

/// Pushes `reel` to `url` until the tally is stopped, starting the clock `offset` late. `sent` sees every
/// media message as it is handed to the socket.
pub async fn publish(
    url: String,
    reel: Arc<Reel>,
    offset: Duration,
    tally: Arc<Tally>,
    mut sent: impl FnMut(&Shot) + Send,
) -> Result<()> {
    let mut connection = Connection::open(&url).await?;
    tokio::time::timeout(START_LIMIT, connection.start()).await.context("the server did not answer")??;
    let start = Instant::now() + offset;
    for header in &reel.headers {
        connection.send(header, 0).await?;
    }
    for round in 0_u32.. {
        let base = round * reel.length_ms;
        for shot in &reel.shots {
            let due = start + Duration::from_millis(u64::from(base) + u64::from(shot.at_ms));
            sleep_until(due).await;
            if tally.stop.load(Ordering::Relaxed) {
                return connection.end().await;
            }
            sent(shot);
            connection.send(shot, base + shot.at_ms).await?;
            tally.messages.fetch_add(1, Ordering::Relaxed);
            tally.bytes.fetch_add(shot.body.len() as u64, Ordering::Relaxed);
            tally.late_ms.fetch_max(due.elapsed().as_millis() as u64, Ordering::Relaxed);
        }
    }
    Ok(())
}

struct Connection {
    socket: TcpStream,
    session: ClientSession,
    buffer: BytesMut,
    began: Instant,
}

impl Connection {
    async fn open(url: &str) -> Result<Self> {
        let mut config = ClientConfig::from_url(url).context("an RTMP URL")?;
        config.chunk_bytes = CHUNK_BYTES;
        let socket = TcpStream::connect((config.host.as_str(), config.port)).await.context("connecting")?;
        socket.set_nodelay(true)?;
        let session = ClientSession::new(config, Duration::ZERO)?;
        Ok(Self { socket, session, buffer: BytesMut::new(), began: Instant::now() })
    }

    /// Performs the handshake and the commands up to `NetStream.Publish.Start`.
    async fn start(&mut self) -> Result<()> {
        while !self.session.is_publishing() {
            self.flush().await?;
            self.session.prepare_read(&mut self.buffer);
            if self.socket.read_buf(&mut self.buffer).await? == 0 {
                bail!("the server closed before publishing began");
            }
            self.events()?;
        }
        Ok(())
    }

    fn events(&mut self) -> Result<()> {
        while let Some(event) = self.session.next_event(self.began.elapsed(), &mut self.buffer)? {
            if let ClientEvent::Refused { code, description } = event {
                bail!("refused: {code}: {description}");
            }
        }
        Ok(())
    }

    async fn send(&mut self, shot: &Shot, timestamp: u32) -> Result<()> {
        match shot.kind {
            TagKind::Video => self.session.push_video(timestamp, shot.body.clone())?,
            _ => self.session.push_audio(timestamp, shot.body.clone())?,
        }
        self.flush().await?;
        // Acknowledgements and pings are rare; one look without waiting keeps up with them.
        self.session.prepare_read(&mut self.buffer);
        match self.socket.try_read_buf(&mut self.buffer) {
            Ok(0) => bail!("the server closed"),
            Ok(_) => self.events(),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn flush(&mut self) -> Result<()> {
        while let Some(bytes) = self.session.poll_transmit() {
            self.socket.write_all(&bytes).await?;
        }
        Ok(())
    }

    async fn end(mut self) -> Result<()> {
        self.session.unpublish()?;
        self.flush().await?;
        self.socket.shutdown().await?;
        Ok(())
    }
}
