//! Sends a tape over RTMP in real time, and tells what the server said.

use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::BytesMut;
use millrace_buf::ByteChain;
use millrace_rtmp::{ClientConfig, ClientEvent, ClientSession, Message, MessageType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use super::{Tag, TagKind, Tape};

/// From connecting to being let in, on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(20);
/// Time that a server has to close a connection of which it ended the publish.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);
/// Chunk size of OBS and ffmpeg.
const CHUNK_BYTES: u32 = 4096;
/// Chunk stream of data messages.
const DATA_STREAM: u32 = 5;
/// AMF0: a string of 13 characters.
const SET_DATA_FRAME: &[u8] = b"\x02\0\x0d@setDataFrame";

/// The end of a publish as the encoder sees it.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// The status that refused or ended the publish: its code and its description.
    pub refused: Option<(String, String)>,
    /// Messages handed to the socket before the end.
    pub sent: usize,
    /// True if the server closed the connection before the tape's end.
    pub closed: bool,
    /// Time from the first message to the end.
    pub lasted: Duration,
}

/// Publishes the tape to `url`. A refusal is a result, not an error.
pub async fn send(tape: &Tape, url: &str) -> Result<Told> {
    let mut config = ClientConfig::from_url(url).context("an RTMP URL")?;
    config.chunk_bytes = CHUNK_BYTES;
    let socket = TcpStream::connect((config.host.as_str(), config.port)).await.context("connecting")?;
    socket.set_nodelay(true)?;
    let mut sender = Sender {
        session: ClientSession::new(config, Duration::ZERO)?,
        socket,
        buffer: BytesMut::new(),
        began: Instant::now(),
        told: Told::default(),
    };
    timeout(START_LIMIT, sender.start()).await.context("the server did not answer")??;
    let start = Instant::now();
    for tag in &tape.tags {
        if sender.told.refused.is_some() || sender.told.closed {
            break;
        }
        sleep_until(start + Duration::from_millis(tag.due_ms.max(0) as u64)).await;
        sender.media(tag).await?;
    }
    sender.told.lasted = start.elapsed();
    sender.end().await;
    Ok(sender.told)
}

struct Sender {
    socket: TcpStream,
    session: ClientSession,
    buffer: BytesMut,
    began: Instant,
    told: Told,
}

impl Sender {
    async fn start(&mut self) -> Result<()> {
        while !self.session.is_publishing() && self.told.refused.is_none() && !self.told.closed {
            self.flush().await;
            self.session.prepare_read(&mut self.buffer);
            match self.socket.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => self.told.closed = true,
                Ok(_) => self.events()?,
            }
        }
        Ok(())
    }

    fn events(&mut self) -> Result<()> {
        while let Some(event) = self.session.next_event(self.began.elapsed(), &mut self.buffer)? {
            if let ClientEvent::Refused { code, description } = event {
                self.told.refused.get_or_insert((code, description));
            }
        }
        Ok(())
    }

    async fn media(&mut self, tag: &Tag) -> Result<()> {
        let stamp = tag.stamp_ms as u32;
        match tag.kind {
            TagKind::Video => self.session.push_video(stamp, tag.body.clone())?,
            TagKind::Audio => self.session.push_audio(stamp, tag.body.clone())?,
            TagKind::Script => self.session.send_message(&Message {
                chunk_stream: DATA_STREAM,
                kind: MessageType::DATA_AMF0,
                stream: self.session.stream(),
                timestamp: stamp,
                payload: ByteChain::from(bytes::Bytes::from([SET_DATA_FRAME, &tag.body[..]].concat())),
            })?,
        }
        self.told.sent += 1;
        self.flush().await;
        self.look()
    }

    /// Reads what is there without waiting: acknowledgements are rare, refusals end the publish.
    fn look(&mut self) -> Result<()> {
        loop {
            self.session.prepare_read(&mut self.buffer);
            match self.socket.try_read_buf(&mut self.buffer) {
                Ok(0) => self.told.closed = true,
                Ok(_) => {
                    self.events()?;
                    continue;
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => self.told.closed = true,
            }
            return Ok(());
        }
    }

    /// Writes what waits; a server that closed shows at the next look, after its last words were read.
    async fn flush(&mut self) {
        while let Some(bytes) = self.session.poll_transmit() {
            if self.socket.write_all(&bytes).await.is_err() {
                self.told.closed = true;
            }
        }
    }

    /// Ends the publish in order; or reads the last words of a server that ended it.
    async fn end(&mut self) {
        if self.told.refused.is_none() && !self.told.closed && self.session.unpublish().is_ok() {
            self.flush().await;
        }
        let _ = self.socket.shutdown().await;
        let last_words = async {
            loop {
                self.session.prepare_read(&mut self.buffer);
                match self.socket.read_buf(&mut self.buffer).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => drop(self.events()),
                }
            }
        };
        // A connection that is kept open after the end has said all the same.
        let _ = timeout(CLOSE_LIMIT, last_words).await;
    }
}
