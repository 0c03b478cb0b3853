//! The server's state machine: consumes bytes, yields events, queues answers.

use super::aggregate::Aggregate;
use super::event::Event;
use super::info::Rejection;
use super::keepalive::{Due, Keepalive};
use super::rate::RateLimit;
use crate::amf::Value;
use crate::chunk::{ChunkReader, MAX_HEADER_BYTES};
use crate::error::{ErrorKind, Location, Phase, RtmpError};
use crate::handshake::Handshake;
use crate::limits::{Limits, MIN_READ_BYTES, MIN_WINDOW_ACK_BYTES, READ_BYTES, READ_BYTES_BEFORE_PUBLISH};
use crate::message::{Message, MessageType, UserControl, control_u32};
use crate::transmit::{Transmit, status};
use bytes::{Bytes, BytesMut};
use millrace_buf::ByteChain;
use std::time::Duration;

/// The phase of a session.
#[derive(Debug)]
pub(super) enum State {
    Handshake(Handshake),
    /// The handshake is complete; `connect` is awaited.
    Open,
    ConnectPending {
        transaction: f64,
    },
    /// The connection is accepted; `publish` is awaited.
    Connected,
    PublishPending {
        stream: u32,
    },
    Publishing {
        stream: u32,
    },
    /// The publish or connection was refused or ended; queued answers are still sent.
    Finished,
}

/// The server's side of one connection.
///
/// While a decision is pending nothing is parsed, so that the peer's bytes wait in its socket.
#[derive(Debug)]
pub struct ServerSession {
    pub(super) state: State,
    pub(super) reader: ChunkReader,
    pub(super) transmit: Transmit,
    pub(super) limits: Limits,
    pub(super) raw_app: String,
    pub(super) message_streams: u32,
    commands: u32,
    pub(super) rate: RateLimit,
    /// Start of the current phase; deadlines count from it.
    since: Duration,
    /// Offset of the connection at the start of the current phase.
    phase_offset: u64,
    window_ack: u32,
    acknowledged: u64,
    handshake_bytes: u64,
    pub(super) aggregate: Option<Aggregate>,
    pub(super) ignored: u64,
    ping_answered: Option<u32>,
    keepalive: Keepalive,
    /// A read buffer that is not in use; see [`Self::prepare_read`].
    other_buffer: BytesMut,
}

impl ServerSession {
    /// Creates a session for a connection accepted at `now` (a monotonic time with any origin).
    pub fn new(limits: Limits, now: Duration) -> Self {
        let mut reader = ChunkReader::new(limits, crate::handshake::HANDSHAKE_BYTES as u64);
        // The small limit holds until a publish is accepted. It is not restored after an unpublish: frames still under
        // way must not fail.
        reader.set_media_limit(limits.control_bytes);
        Self {
            state: State::Handshake(Handshake::server()),
            reader,
            transmit: Transmit::default(),
            limits,
            raw_app: String::new(),
            message_streams: 0,
            commands: 0,
            rate: RateLimit::new(&limits, now),
            since: now,
            phase_offset: 0,
            window_ack: limits.window_ack,
            acknowledged: 0,
            handshake_bytes: 0,
            aggregate: None,
            ignored: 0,
            ping_answered: None,
            keepalive: Keepalive::new(&limits, now),
            other_buffer: BytesMut::new(),
        }
    }

    /// Reserves room in `buf` for the next read: little before a publish, whole frames afterwards.
    ///
    /// Two buffers take turns: pictures on their way to the bus hold slices of the one that is full.
    pub fn prepare_read(&mut self, buf: &mut BytesMut) {
        let publishing = matches!(self.state, State::Publishing { .. });
        let room = if publishing { READ_BYTES } else { READ_BYTES_BEFORE_PUBLISH };
        if buf.capacity() - buf.len() >= MIN_READ_BYTES.min(room) || buf.try_reclaim(room) {
            return;
        }
        if !self.other_buffer.try_reclaim(buf.len() + room) {
            // While publishing only a part of a header is left over; with room for it the buffer can be used again.
            self.other_buffer = BytesMut::with_capacity(buf.len() + room + MAX_HEADER_BYTES);
        }
        self.other_buffer.extend_from_slice(buf);
        std::mem::swap(&mut self.other_buffer, buf);
        self.other_buffer.clear();
    }

    /// Returns false while a decision is pending and after the end: the socket need not be read.
    pub fn wants_input(&self) -> bool {
        !matches!(self.state, State::ConnectPending { .. } | State::PublishPending { .. } | State::Finished)
    }

    /// Consumes bytes of `buf` until there is an event. Call until it returns `Ok(None)`, and after each
    /// decision; then send what [`Self::poll_transmit`] holds. An error ends the connection.
    pub fn next_event(&mut self, now: Duration, buf: &mut BytesMut) -> Result<Option<Event>, RtmpError> {
        if let State::Handshake(handshake) = &mut self.state {
            let offset = handshake.consumed();
            let result = handshake.advance(buf, &mut self.transmit.out);
            if !result.map_err(|kind| RtmpError::at_offset(offset, kind))? {
                self.handshake_bytes = self.handshake_consumed();
                return Ok(None);
            }
            self.state = State::Open;
            self.handshake_bytes = self.reader.offset();
            self.begin_phase(now);
            self.acknowledged = self.reader.offset();
        }
        while self.wants_input() {
            if let Some(event) = self.next_of_aggregate(now)? {
                self.touch(now, &event);
                return Ok(Some(event));
            }
            let message = self.reader.read(buf)?;
            self.keepalive.heard(now, self.reader.offset());
            self.count(now, u64::from(message.is_some()))?;
            let Some(message) = message else {
                self.acknowledge()?;
                return Ok(None);
            };
            if let Some(event) = self.handle(message, now)? {
                self.touch(now, &event);
                return Ok(Some(event));
            }
            self.check_bounds()?;
        }
        Ok(None)
    }

    /// Returns bytes to write to the peer, in order.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        self.transmit.poll()
    }

    /// Returns the number of bytes waiting in [`Self::poll_transmit`].
    pub fn pending_transmit(&self) -> usize {
        self.transmit.pending()
    }

    /// Returns the time for [`Self::handle_timeout`], on the clock of `now`; `None` while the peer waits for a decision.
    pub fn deadline(&self) -> Option<Duration> {
        let (limit, _) = self.time_limit()?;
        let phase = self.since + limit;
        // Before, the deadlines of the phases are as short as a ping's.
        let ping = self.keepalive.deadline().filter(|_| self.is_publishing());
        Some(ping.map_or(phase, |ping| ping.min(phase)))
    }

    /// Returns an error if the current phase's deadline has passed or the peer has been silent for too long; queues a ping if one
    /// is due.
    pub fn handle_timeout(&mut self, now: Duration) -> Result<(), RtmpError> {
        let received = self.bytes_received();
        let timed_out = |phase| Err(RtmpError::at_offset(received, ErrorKind::TimedOut(phase)));
        match self.time_limit() {
            Some((limit, phase)) if now >= self.since + limit => return timed_out(phase),
            _ if !self.is_publishing() => return Ok(()),
            _ => {}
        }
        match self.keepalive.step(now) {
            Due::Nothing => Ok(()),
            Due::Silent => timed_out(Phase::Ping),
            // Peers send the number back; it wraps after 49 days.
            Due::Ping => self.send_ping(now.as_millis() as u32),
        }
    }

    /// Accepts the pending `connect`; a publish may follow.
    pub fn accept_connect(&mut self) -> Result<(), RtmpError> {
        let State::ConnectPending { transaction } = self.state else {
            return Err(self.error(ErrorKind::Misuse("no connect is pending")));
        };
        self.state = State::Connected;
        self.answer_connect(transaction).map_err(|kind| self.error(kind))
    }

    /// Refuses the pending `connect`; the connection is finished once the answer is sent.
    pub fn reject_connect(&mut self, why: Rejection, description: &str) -> Result<(), RtmpError> {
        let State::ConnectPending { transaction } = self.state else {
            return Err(self.error(ErrorKind::Misuse("no connect is pending")));
        };
        self.state = State::Finished;
        let info = status("error", why.code(), description);
        let sent = self.transmit.command(0, "_error", transaction, &[Value::Null, info]);
        sent.map_err(|kind| self.error(kind))
    }

    /// Accepts the pending `publish`; media may follow.
    pub fn accept_publish(&mut self, now: Duration) -> Result<(), RtmpError> {
        let State::PublishPending { stream } = self.state else {
            return Err(self.error(ErrorKind::Misuse("no publish is pending")));
        };
        self.state = State::Publishing { stream };
        self.since = now;
        self.keepalive = Keepalive::new(&self.limits, now);
        self.reader.set_media_limit(self.limits.message_bytes);
        let began = self.transmit.user_control(UserControl::StreamBegin(stream));
        let sent =
            began.and_then(|()| self.on_status(stream, "status", "NetStream.Publish.Start", "publishing"));
        sent.map_err(|kind| self.error(kind))
    }

    /// Refuses the pending `publish`; the connection is finished once the answer is sent.
    pub fn reject_publish(&mut self, why: Rejection, description: &str) -> Result<(), RtmpError> {
        let State::PublishPending { stream } = self.state else {
            return Err(self.error(ErrorKind::Misuse("no publish is pending")));
        };
        self.finish(stream, why, description)
    }

    /// Ends the publish from the server's side (stopped, taken over, limits) with a status and its description.
    pub fn kick(&mut self, why: Rejection, description: &str) -> Result<(), RtmpError> {
        match self.state {
            State::Publishing { stream } | State::PublishPending { stream } => {
                self.finish(stream, why, description)
            }
            _ => {
                self.state = State::Finished;
                Ok(())
            }
        }
    }

    /// Sends a ping request that the peer answers with the given timestamp (RTMP 7.1.7).
    pub fn send_ping(&mut self, timestamp: u32) -> Result<(), RtmpError> {
        let sent = self.transmit.user_control(UserControl::PingRequest(timestamp));
        sent.map_err(|kind| self.error(kind))
    }

    /// Returns the timestamp of the last ping that the peer answered.
    pub fn last_pong(&self) -> Option<u32> {
        self.ping_answered
    }

    /// Returns true once refused or kicked: the connection closes after the queued answers are sent.
    pub fn is_finished(&self) -> bool {
        matches!(self.state, State::Finished)
    }

    /// Returns true while media are accepted.
    pub fn is_publishing(&self) -> bool {
        matches!(self.state, State::Publishing { .. })
    }

    /// Returns the bytes of the connection consumed so far, including the handshake.
    pub fn bytes_received(&self) -> u64 {
        if let State::Handshake(_) = self.state { self.handshake_bytes } else { self.reader.offset() }
    }

    /// Returns the number of messages dropped because they could not be used (media without publish, broken metadata).
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    fn handshake_consumed(&self) -> u64 {
        if let State::Handshake(handshake) = &self.state { handshake.consumed() } else { 0 }
    }

    fn time_limit(&self) -> Option<(Duration, Phase)> {
        match self.state {
            State::Handshake(_) => Some((self.limits.handshake, Phase::Handshake)),
            State::Open | State::Connected => Some((self.limits.publish, Phase::Publish)),
            State::Publishing { .. } => Some((self.limits.idle, Phase::Media)),
            State::ConnectPending { .. } | State::PublishPending { .. } | State::Finished => None,
        }
    }

    pub(super) fn error(&self, kind: ErrorKind) -> RtmpError {
        RtmpError::at_offset(self.bytes_received(), kind)
    }

    pub(super) fn begin_phase(&mut self, now: Duration) {
        self.since = now;
        self.commands = 0;
        self.phase_offset = self.reader.offset();
    }

    fn touch(&mut self, now: Duration, event: &Event) {
        if matches!(event, Event::Video { .. } | Event::Audio { .. }) {
            self.since = now;
        }
    }

    fn finish(&mut self, stream: u32, why: Rejection, description: &str) -> Result<(), RtmpError> {
        self.state = State::Finished;
        let sent = self.on_status(stream, "error", why.code(), description);
        sent.map_err(|kind| self.error(kind))
    }

    /// Counts messages towards the limits of the rates.
    pub(super) fn count(&mut self, now: Duration, messages: u64) -> Result<(), RtmpError> {
        let counted = self.rate.count(now, messages, self.reader.chunks());
        counted.map_err(|kind| self.error(kind))
    }

    fn check_bounds(&self) -> Result<(), RtmpError> {
        if self.transmit.pending() > self.limits.pending_transmit {
            return Err(self.error(ErrorKind::Limit("the peer does not read its answers")));
        }
        if matches!(self.state, State::Open | State::Connected)
            && self.reader.offset() - self.phase_offset > self.limits.bytes_before_publish
        {
            return Err(self.error(ErrorKind::Limit("bytes before publish")));
        }
        Ok(())
    }

    fn acknowledge(&mut self) -> Result<(), RtmpError> {
        let received = self.reader.offset();
        if received - self.acknowledged >= u64::from(self.window_ack) {
            self.acknowledged = received;
            // Counted from the end of the handshake; the sequence number wraps at 2^32 (RTMP 5.4.3).
            let sequence = (received - self.handshake_bytes) as u32;
            let sent = self.transmit.control_u32(MessageType::ACKNOWLEDGEMENT, sequence);
            sent.map_err(|kind| self.error(kind))?;
        }
        self.check_bounds()
    }

    fn handle(&mut self, message: Message, now: Duration) -> Result<Option<Event>, RtmpError> {
        let at = Location {
            offset: self.reader.offset(),
            chunk_stream: Some(message.chunk_stream),
            message_type: Some(message.kind.0),
        };
        let result = match message.kind {
            MessageType::VIDEO | MessageType::AUDIO => Ok(self.media(message)),
            MessageType::AGGREGATE if self.is_publishing() => {
                self.aggregate = Some(Aggregate::new(&message));
                Ok(None)
            }
            MessageType::DATA_AMF0 | MessageType::DATA_AMF3 => Ok(self.data(&message)),
            MessageType::COMMAND_AMF0 | MessageType::COMMAND_AMF3 => self.count_command(&message, now),
            MessageType::USER_CONTROL => self.user_control(&message.payload).map(|()| None),
            MessageType::WINDOW_ACK_SIZE => self.window(&message.payload).map(|()| None),
            MessageType::SET_CHUNK_SIZE
            | MessageType::ABORT
            | MessageType::ACKNOWLEDGEMENT
            | MessageType::SET_PEER_BANDWIDTH => Ok(None),
            _ => {
                self.ignored += 1;
                Ok(None)
            }
        };
        result.map_err(|kind| RtmpError { at, kind })
    }

    fn count_command(&mut self, message: &Message, now: Duration) -> Result<Option<Event>, ErrorKind> {
        self.commands += 1;
        if !self.is_publishing() && self.commands > self.limits.commands_before_publish {
            return Err(ErrorKind::Limit("commands before publish"));
        }
        self.command(message, now)
    }

    fn user_control(&mut self, payload: &ByteChain) -> Result<(), ErrorKind> {
        match UserControl::decode(payload)? {
            UserControl::PingRequest(timestamp) => {
                self.transmit.user_control(UserControl::PingResponse(timestamp))
            }
            UserControl::PingResponse(timestamp) => {
                self.ping_answered = Some(timestamp);
                Ok(())
            }
            UserControl::StreamBegin(_) | UserControl::Other(_) => Ok(()),
        }
    }

    fn window(&mut self, payload: &ByteChain) -> Result<(), ErrorKind> {
        self.window_ack = control_u32(payload, "window acknowledgement size")?.max(MIN_WINDOW_ACK_BYTES);
        Ok(())
    }

    pub(super) fn on_status(
        &mut self,
        stream: u32,
        level: &str,
        code: &str,
        description: &str,
    ) -> Result<(), ErrorKind> {
        let info = status(level, code, description);
        self.transmit.command(stream, "onStatus", 0.0, &[Value::Null, info])
    }
}
