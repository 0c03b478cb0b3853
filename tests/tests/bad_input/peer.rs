//! A publisher that speaks RTMP correctly and records the server's answers.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use millrace_rtmp::{ClientConfig, ClientEvent, ClientSession};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;

use crate::CLOSE_LIMIT;

/// The way in which the server ended a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Goodbye {
    /// RTMP status code; `None`: closed without a word.
    pub(crate) code: Option<String>,
    /// The server's words beside it.
    pub(crate) words: String,
}

/// One connection to the RTMP port.
pub(crate) struct Peer {
    socket: TcpStream,
    session: ClientSession,
    buffer: BytesMut,
    began: Instant,
    goodbye: Goodbye,
}

/// A connection to `address` from the given local address.
pub(crate) async fn connect_from(local: [u8; 4], address: &str) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((local, 0).into())?;
    socket.connect(address.parse().with_context(|| address.to_owned())?).await.context("connecting")
}

impl Peer {
    /// Connects to the server of `url` without sending a byte.
    pub(crate) async fn connect(local: [u8; 4], url: &str) -> Result<Self> {
        let config = ClientConfig::from_url(url).context("an RTMP URL")?;
        let socket = connect_from(local, &format!("{}:{}", config.host, config.port)).await?;
        let session = ClientSession::new(config, Duration::ZERO)?;
        let goodbye = Goodbye { code: None, words: String::new() };
        Ok(Self { socket, session, buffer: BytesMut::new(), began: Instant::now(), goodbye })
    }

    /// Connects and publishes; fails unless the server lets it in.
    pub(crate) async fn publish(local: [u8; 4], url: &str) -> Result<Self> {
        let mut peer = Self::connect(local, url).await?;
        let started = async {
            while !peer.session.is_publishing() {
                ensure!(peer.turn().await?, "refused: {:?}", peer.goodbye);
            }
            Ok(())
        };
        tokio::time::timeout(CLOSE_LIMIT, started).await.context("no answer to publish")??;
        Ok(peer)
    }

    /// Goes on until the server has closed the connection, and returns its answers.
    pub(crate) async fn until_closed(mut self) -> Result<Goodbye> {
        let closed = async {
            while self.turn().await? {}
            anyhow::Ok(())
        };
        tokio::time::timeout(CLOSE_LIMIT, closed).await.context("the server did not close")??;
        Ok(self.goodbye)
    }

    /// Sends one RTMP video message.
    pub(crate) fn video(&mut self, body: &'static [u8]) -> Result<()> {
        Ok(self.session.push_video(0, Bytes::from_static(body))?)
    }

    /// Sends one RTMP audio message for each body, a frame of AAC apart.
    pub(crate) async fn audio(&mut self, bodies: &[&'static [u8]]) -> Result<()> {
        const FRAME_MS: u32 = 21;
        for (number, body) in (0..).zip(bodies) {
            self.session.push_audio(number * FRAME_MS, Bytes::from_static(body))?;
        }
        while let Some(bytes) = self.session.poll_transmit() {
            self.socket.write_all(&bytes).await.context("audio messages")?;
        }
        Ok(())
    }

    /// Sends video messages with this body, as fast as the socket takes them, until the server has closed.
    pub(crate) async fn flood(&mut self, body: &[u8; 1]) -> Result<()> {
        const MESSAGES: usize = 100_000;
        // RTMP 5.3.1.2: one message with a full header on chunk stream 6, then type 3 headers that repeat it.
        let mut first = vec![6, 0, 0, 0, 0, 0, 1, 9, 1, 0, 0, 0];
        first.extend_from_slice(body);
        self.socket.write_all(&first).await.context("the first message")?;
        let many = [0xc6, body[0]].repeat(MESSAGES);
        let flooded = async { while self.socket.write_all(&many).await.is_ok() {} };
        tokio::time::timeout(CLOSE_LIMIT, flooded).await.context("the flood was never ended")
    }

    /// Sends the beginnings of two video messages of 8 MB, `bytes` together.
    pub(crate) async fn begin_messages(&mut self, bytes: usize) -> Result<()> {
        const CHUNK: usize = 1_000;
        // RTMP 5.4.1: Set Chunk Size, in a chunk of the first size.
        let mut sent = vec![2, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0];
        sent.extend_from_slice(&(CHUNK as u32).to_be_bytes());
        for chunk_stream in [6, 7] {
            sent.extend_from_slice(&[chunk_stream, 0, 0, 0, 0x7a, 0x12, 0, 9, 1, 0, 0, 0]);
            for chunk in 0..bytes / 2 / CHUNK {
                if chunk > 0 {
                    sent.push(0xc0 | chunk_stream);
                }
                sent.extend_from_slice(&[0; CHUNK]);
            }
        }
        self.socket.write_all(&sent).await.context("unfinished messages")
    }

    /// Writes, reads once and records the answers; `false` when the server has closed.
    async fn turn(&mut self) -> Result<bool> {
        while let Some(bytes) = self.session.poll_transmit() {
            if self.socket.write_all(&bytes).await.is_err() {
                break;
            }
        }
        self.session.prepare_read(&mut self.buffer);
        if !matches!(self.socket.read_buf(&mut self.buffer).await, Ok(1..)) {
            return Ok(false);
        }
        while let Some(event) = self.session.next_event(self.began.elapsed(), &mut self.buffer)? {
            if let ClientEvent::Refused { code, description } = event {
                if let Some(before) = &self.goodbye.code {
                    bail!("refused twice: {before}, then {code}");
                }
                self.goodbye = Goodbye { code: Some(code), words: description };
            }
        }
        Ok(true)
    }
}
