//! The publishing client's state machine: consumes bytes, yields events, queues messages.

use super::config::ClientConfig;
use crate::amf::{self, Properties, Value};
use crate::chunk::{ChunkReader, ChunkWriter};
use crate::error::{ErrorKind, Phase, RtmpError};
use crate::handshake::{HANDSHAKE_BYTES, Handshake};
use crate::limits::{MIN_WINDOW_ACK_BYTES, READ_BYTES_BEFORE_PUBLISH};
use crate::message::{Message, MessageType, UserControl, control_u32};
use crate::transmit::Transmit;
use bytes::{Bytes, BytesMut};
use std::time::Duration;

const CONNECT: f64 = 1.0;
const RELEASE_STREAM: f64 = 2.0;
const FC_PUBLISH: f64 = 3.0;
const CREATE_STREAM: f64 = 4.0;
const PUBLISH: f64 = 5.0;
/// Chunk streams of media, as OBS and ffmpeg choose them.
const AUDIO: u32 = 4;
const VIDEO: u32 = 6;
const DATA: u32 = 5;

/// An event of a client session.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientEvent {
    /// The server accepted the publish: media may be pushed.
    PublishStarted,
    /// The server refused or ended the stream; the connection is of no more use.
    Refused {
        /// Status code, such as `NetStream.Publish.BadName`.
        code: String,
        /// The server's description of the status.
        description: String,
    },
    /// The server sent another status.
    Status {
        /// Status code, such as `NetStream.Unpublish.Success`.
        code: String,
    },
    /// The server has received this many bytes since the handshake, modulo 2^32 (RTMP 5.4.3).
    Acknowledged(u32),
}

#[derive(Debug)]
enum State {
    Handshake(Handshake),
    Connecting,
    CreatingStream,
    StartingPublish,
    Publishing,
    Finished,
}

/// The publishing side of one connection.
#[derive(Debug)]
pub struct ClientSession {
    state: State,
    config: ClientConfig,
    reader: ChunkReader,
    transmit: Transmit,
    stream: u32,
    since: Duration,
    window_ack: u32,
    acknowledged: u64,
}

impl ClientSession {
    /// Creates a session for a connection opened at `now`; its first packet waits in [`Self::poll_transmit`].
    pub fn new(config: ClientConfig, now: Duration) -> Result<Self, RtmpError> {
        let mut transmit = Transmit::default();
        let handshake = Handshake::client(&mut transmit.out).map_err(|kind| RtmpError::at_offset(0, kind))?;
        Ok(Self {
            state: State::Handshake(handshake),
            reader: ChunkReader::new(config.limits, HANDSHAKE_BYTES as u64),
            window_ack: config.limits.window_ack,
            config,
            transmit,
            stream: 0,
            since: now,
            acknowledged: HANDSHAKE_BYTES as u64,
        })
    }

    /// Reserves room in `buf` for the next read.
    pub fn prepare_read(&self, buf: &mut BytesMut) {
        buf.reserve(READ_BYTES_BEFORE_PUBLISH);
    }

    /// Consumes bytes of `buf` until there is an event. Call until it returns `Ok(None)`.
    pub fn next_event(
        &mut self,
        now: Duration,
        buf: &mut BytesMut,
    ) -> Result<Option<ClientEvent>, RtmpError> {
        if let State::Handshake(handshake) = &mut self.state {
            let offset = handshake.consumed();
            let result = handshake.advance(buf, &mut self.transmit.out);
            if !result.map_err(|kind| RtmpError::at_offset(offset, kind))? {
                return Ok(None);
            }
            self.state = State::Connecting;
            self.since = now;
            self.send_connect().map_err(|kind| self.error(kind))?;
        }
        while let Some(message) = self.reader.read(buf)? {
            let event = self.handle(&message, now).map_err(|kind| self.error(kind))?;
            if event.is_some() {
                return Ok(event);
            }
        }
        self.acknowledge().map_err(|kind| self.error(kind))?;
        Ok(None)
    }

    /// Returns bytes to write to the server, in order.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        self.transmit.poll()
    }

    /// Returns the number of bytes waiting in [`Self::poll_transmit`]: callers drop frames by it.
    pub fn pending_transmit(&self) -> usize {
        self.transmit.pending()
    }

    /// Returns the chunk size that the server has announced, in bytes.
    pub fn server_chunk_bytes(&self) -> usize {
        self.reader.chunk_bytes()
    }

    /// Returns the time by which the server must have accepted the publish; `None` afterwards.
    pub fn deadline(&self) -> Option<Duration> {
        match self.state {
            State::Handshake(_) => Some(self.since + self.config.limits.handshake),
            State::Connecting | State::CreatingStream | State::StartingPublish => {
                Some(self.since + self.config.limits.publish)
            }
            State::Publishing | State::Finished => None,
        }
    }

    /// Returns an error if the deadline has passed.
    pub fn handle_timeout(&mut self, now: Duration) -> Result<(), RtmpError> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return Ok(());
        }
        let phase = if matches!(self.state, State::Handshake(_)) { Phase::Handshake } else { Phase::Publish };
        Err(self.error(ErrorKind::TimedOut(phase)))
    }

    /// Returns true between [`ClientEvent::PublishStarted`] and the end.
    pub fn is_publishing(&self) -> bool {
        matches!(self.state, State::Publishing)
    }

    /// Returns the message stream id that the server assigned; 0 before.
    pub fn stream(&self) -> u32 {
        self.stream
    }

    /// Queues a video message (FLV VIDEODATA body), `timestamp` in ms.
    pub fn push_video(&mut self, timestamp: u32, data: Bytes) -> Result<(), RtmpError> {
        self.push(VIDEO, MessageType::VIDEO, timestamp, data)
    }

    /// Queues an audio message (FLV AUDIODATA body), `timestamp` in ms.
    pub fn push_audio(&mut self, timestamp: u32, data: Bytes) -> Result<(), RtmpError> {
        self.push(AUDIO, MessageType::AUDIO, timestamp, data)
    }

    /// Queues `@setDataFrame` with `onMetaData` and these properties.
    pub fn push_metadata(&mut self, timestamp: u32, properties: Properties) -> Result<(), RtmpError> {
        self.push_data(
            timestamp,
            &["@setDataFrame".into(), "onMetaData".into(), Value::EcmaArray(properties)],
        )
    }

    /// Queues a data message of these values, its name first.
    pub fn push_data(&mut self, timestamp: u32, values: &[Value]) -> Result<(), RtmpError> {
        let mut payload = BytesMut::with_capacity(256);
        amf::encode(values, &mut payload);
        self.push(DATA, MessageType::DATA_AMF0, timestamp, payload.freeze())
    }

    /// Queues the orderly end of the stream.
    pub fn unpublish(&mut self) -> Result<(), RtmpError> {
        if !self.is_publishing() {
            return Err(self.error(ErrorKind::Misuse("not publishing")));
        }
        self.state = State::Finished;
        let name = Value::from(self.config.name.expose());
        let stream = f64::from(self.stream);
        let sent = self.transmit.command(0, "FCUnpublish", 6.0, &[Value::Null, name]).and_then(|()| {
            self.transmit.command(0, "deleteStream", 7.0, &[Value::Null, Value::Number(stream)])
        });
        sent.map_err(|kind| self.error(kind))
    }

    /// Queues any message in any state, for tests and for messages that this session has no method for.
    pub fn send_message(&mut self, message: &Message) -> Result<(), RtmpError> {
        self.transmit.message(message).map_err(|kind| self.error(kind))
    }

    /// Queues a ping request with a timestamp that the server repeats.
    pub fn send_ping(&mut self, timestamp: u32) -> Result<(), RtmpError> {
        let sent = self.transmit.user_control(UserControl::PingRequest(timestamp));
        sent.map_err(|kind| self.error(kind))
    }

    /// Returns the chunk writer and the queue behind it, for tests that write chunks or arbitrary bytes themselves.
    pub fn raw(&mut self) -> (&mut ChunkWriter, &mut BytesMut) {
        (&mut self.transmit.writer, &mut self.transmit.out)
    }

    fn push(
        &mut self,
        chunk_stream: u32,
        kind: MessageType,
        timestamp: u32,
        payload: Bytes,
    ) -> Result<(), RtmpError> {
        if !self.is_publishing() {
            return Err(self.error(ErrorKind::Misuse("not publishing")));
        }
        self.send_message(&Message {
            chunk_stream,
            kind,
            stream: self.stream,
            timestamp,
            payload: payload.into(),
        })
    }

    fn error(&self, kind: ErrorKind) -> RtmpError {
        RtmpError::at_offset(self.reader.offset(), kind)
    }

    fn send_connect(&mut self) -> Result<(), ErrorKind> {
        if self.config.chunk_bytes > 0 {
            self.transmit.set_chunk_bytes(self.config.chunk_bytes);
        }
        let object = Value::Object(vec![
            ("app".to_owned(), self.config.app.as_str().into()),
            ("type".to_owned(), "nonprivate".into()),
            ("flashVer".to_owned(), self.config.flash_ver.as_str().into()),
            ("tcUrl".to_owned(), self.config.tc_url.as_str().into()),
        ]);
        self.transmit.command(0, "connect", CONNECT, &[object])
    }

    fn acknowledge(&mut self) -> Result<(), ErrorKind> {
        let received = self.reader.offset();
        if received - self.acknowledged < u64::from(self.window_ack) {
            return Ok(());
        }
        self.acknowledged = received;
        let sequence = (received - HANDSHAKE_BYTES as u64) as u32;
        self.transmit.control_u32(MessageType::ACKNOWLEDGEMENT, sequence)
    }

    fn handle(&mut self, message: &Message, now: Duration) -> Result<Option<ClientEvent>, ErrorKind> {
        match message.kind {
            MessageType::COMMAND_AMF0 => {
                return self.command(&message.payload.contiguous(), now);
            }
            MessageType::ACKNOWLEDGEMENT => {
                return control_u32(&message.payload, "acknowledgement")
                    .map(|n| Some(ClientEvent::Acknowledged(n)));
            }
            MessageType::WINDOW_ACK_SIZE => {
                let window = control_u32(&message.payload, "window acknowledgement size")?;
                self.window_ack = window.max(MIN_WINDOW_ACK_BYTES);
            }
            MessageType::USER_CONTROL => {
                if let UserControl::PingRequest(timestamp) = UserControl::decode(&message.payload)? {
                    self.transmit.user_control(UserControl::PingResponse(timestamp))?;
                }
            }
            _ => {}
        }
        if self.transmit.pending() > self.config.limits.message_bytes {
            return Err(ErrorKind::Limit("bytes waiting to be written"));
        }
        Ok(None)
    }

    fn command(&mut self, payload: &[u8], now: Duration) -> Result<Option<ClientEvent>, ErrorKind> {
        let values = amf::decode(payload, &self.config.limits.amf)?;
        let name = values.first().and_then(Value::as_str).unwrap_or_default();
        let transaction = values.get(1).and_then(Value::as_number).unwrap_or(0.0);
        let last = values.get(3).unwrap_or(&Value::Null);
        match name {
            "_result" if transaction == CONNECT && matches!(self.state, State::Connecting) => {
                self.state = State::CreatingStream;
                self.since = now;
                let name = Value::from(self.config.name.expose());
                self.transmit.command(0, "releaseStream", RELEASE_STREAM, &[Value::Null, name.clone()])?;
                self.transmit.command(0, "FCPublish", FC_PUBLISH, &[Value::Null, name])?;
                self.transmit.command(0, "createStream", CREATE_STREAM, &[Value::Null])?;
            }
            "_result" if transaction == CREATE_STREAM && matches!(self.state, State::CreatingStream) => {
                self.state = State::StartingPublish;
                self.stream = last.as_number().unwrap_or(1.0) as u32;
                let name = Value::from(self.config.name.expose());
                self.transmit.command(
                    self.stream,
                    "publish",
                    PUBLISH,
                    &[Value::Null, name, "live".into()],
                )?;
            }
            // Servers without these two commands still accept streams.
            "_error" if transaction == RELEASE_STREAM || transaction == FC_PUBLISH => {}
            "_error" | "onStatus" => return Ok(Some(self.status(name == "_error", last))),
            _ => {}
        }
        Ok(None)
    }

    fn status(&mut self, failed: bool, info: &Value) -> ClientEvent {
        let text = |name| info.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let code = text("code");
        if failed || text("level") == "error" {
            self.state = State::Finished;
            return ClientEvent::Refused { code, description: text("description") };
        }
        if code == "NetStream.Publish.Start" && matches!(self.state, State::StartingPublish) {
            self.state = State::Publishing;
            return ClientEvent::PublishStarted;
        }
        ClientEvent::Status { code }
    }
}
