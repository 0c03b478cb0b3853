//! Commands of the connection and its streams (RTMP 7.2), and those that encoders add.

use super::event::{Event, Refusal};
use super::info::{ConnectInfo, PublishMode, PublishRequest, Rejection, locate_key};
use super::session::{ServerSession, State};
use crate::amf::{self, Value};
use crate::error::ErrorKind;
use crate::limits::MAX_NAME_BYTES;
use crate::message::{Message, MessageType, UserControl};
use crate::transmit::status;
use std::time::Duration;

/// Answered as `fmsVer`; encoders look for "FMS/" and its major version.
const SERVER_VERSION: &str = "FMS/3,0,1,123";

/// The description of the status that refuses a player.
const PLAY_REFUSED: &str = "This port takes publishers; viewers use HLS.";

/// Answered as `fourCcList` of Enhanced RTMP: H.264 and AAC.
const FOUR_CCS: [&str; 2] = ["avc1", "mp4a"];

/// A decoded command (RTMP 7.2).
struct Command {
    name: String,
    transaction: f64,
    /// The values after the transaction id; the command object is first.
    arguments: Vec<Value>,
}

impl Command {
    fn text(&self, index: usize) -> &str {
        self.arguments.get(index).and_then(Value::as_str).unwrap_or_default()
    }
}

impl ServerSession {
    pub(super) fn command(&mut self, message: &Message, now: Duration) -> Result<Option<Event>, ErrorKind> {
        let command = decode(message, &self.limits.amf)?;
        match (command.name.as_str(), &self.state) {
            ("connect", State::Open) => return self.connect(command).map(Some),
            ("connect", _) => return Err(ErrorKind::Unexpected("second connect")),
            (_, State::Open) => return Err(ErrorKind::Unexpected("command before connect")),
            _ => {}
        }
        match command.name.as_str() {
            "createStream" => self.create_stream(&command)?,
            "publish" => return self.publish(&command, message.stream),
            "releaseStream" | "_checkbw" => self.result(&command, &[Value::Null, Value::Undefined])?,
            "getStreamLength" => self.result(&command, &[Value::Null, Value::Number(0.0)])?,
            "FCPublish" => {
                let info = status("status", "NetStream.Publish.Start", "ready");
                self.transmit.command(0, "onFCPublish", 0.0, &[Value::Null, info])?;
            }
            "FCUnpublish" | "deleteStream" | "closeStream" => return self.unpublish(&command, message, now),
            "play" | "play2" => {
                return self.refuse(message.stream, Refusal::Play, Rejection::PlayNotFound, PLAY_REFUSED);
            }
            // An unknown command gets no answer: encoders send several that expect none.
            _ => {}
        }
        Ok(None)
    }

    fn connect(&mut self, command: Command) -> Result<Event, ErrorKind> {
        let Some(Value::Object(properties) | Value::EcmaArray(properties)) =
            command.arguments.into_iter().next()
        else {
            return Err(ErrorKind::Malformed("connect"));
        };
        let info = ConnectInfo::from_properties(properties);
        if info.raw_app.len() > MAX_NAME_BYTES || info.tc_url.len() > MAX_NAME_BYTES {
            return Err(ErrorKind::Limit("length of app or tcUrl"));
        }
        self.raw_app.clone_from(&info.raw_app);
        self.state = State::ConnectPending { transaction: command.transaction };
        Ok(Event::ConnectRequested(info))
    }

    pub(super) fn answer_connect(&mut self, transaction: f64) -> Result<(), ErrorKind> {
        let window = self.limits.window_ack;
        self.transmit.control_u32(MessageType::WINDOW_ACK_SIZE, window)?;
        let mut bandwidth = window.to_be_bytes().to_vec();
        bandwidth.push(2); // dynamic (RTMP 5.4.5)
        self.transmit.control(MessageType::SET_PEER_BANDWIDTH, bandwidth.into())?;
        self.transmit.set_chunk_bytes(self.limits.outbound_chunk);
        self.transmit.user_control(UserControl::StreamBegin(0))?;
        let properties = Value::Object(vec![
            ("fmsVer".to_owned(), SERVER_VERSION.into()),
            ("capabilities".to_owned(), 31.0.into()),
            ("mode".to_owned(), 1.0.into()),
            // Enhanced RTMP: the codecs that are taken behind extended headers.
            ("fourCcList".to_owned(), Value::StrictArray(FOUR_CCS.map(Value::from).to_vec())),
        ]);
        let mut info = status("status", "NetConnection.Connect.Success", "connected");
        if let Value::Object(fields) = &mut info {
            fields.push(("objectEncoding".to_owned(), 0.0.into()));
        }
        self.transmit.command(0, "_result", transaction, &[properties, info])
    }

    fn create_stream(&mut self, command: &Command) -> Result<(), ErrorKind> {
        if self.message_streams >= self.limits.message_streams {
            return Err(ErrorKind::Limit("message streams"));
        }
        self.message_streams += 1;
        let id = f64::from(self.message_streams);
        self.result(command, &[Value::Null, Value::Number(id)])
    }

    fn publish(&mut self, command: &Command, stream: u32) -> Result<Option<Event>, ErrorKind> {
        if self.is_publishing() {
            return Err(ErrorKind::Unexpected("second publish"));
        }
        let name = command.text(1);
        if name.len() > MAX_NAME_BYTES {
            return Err(ErrorKind::Limit("length of the stream name"));
        }
        let mode = match command.text(2) {
            "record" => PublishMode::Record,
            "append" => PublishMode::Append,
            _ => PublishMode::Live,
        };
        let Some((app, stream_key, query)) = locate_key(&self.raw_app, name) else {
            return self.refuse(stream, Refusal::NoKey, Rejection::BadName, "no stream key");
        };
        self.state = State::PublishPending { stream };
        Ok(Some(Event::PublishRequested(PublishRequest { app, stream_key, query, mode, stream })))
    }

    /// Finishes the session with a status.
    fn refuse(
        &mut self,
        stream: u32,
        refusal: Refusal,
        status: Rejection,
        text: &str,
    ) -> Result<Option<Event>, ErrorKind> {
        self.on_status(stream, "error", status.code(), text)?;
        self.state = State::Finished;
        Ok(Some(Event::Refused(refusal)))
    }

    /// Ends the publish. Encoders send two or three of these commands; the first counts.
    fn unpublish(
        &mut self,
        command: &Command,
        message: &Message,
        now: Duration,
    ) -> Result<Option<Event>, ErrorKind> {
        let State::Publishing { stream } = self.state else { return Ok(None) };
        let named = match command.name.as_str() {
            "deleteStream" => command.arguments.get(1).and_then(Value::as_number),
            "closeStream" => Some(f64::from(message.stream)),
            _ => None,
        };
        // Deleting another stream than the published one ends no publish.
        if named.is_some_and(|id| id as u32 != stream) {
            return Ok(None);
        }
        self.on_status(stream, "status", "NetStream.Unpublish.Success", "stopped")?;
        self.state = State::Connected;
        self.begin_phase(now);
        Ok(Some(Event::Unpublished))
    }

    fn result(&mut self, command: &Command, arguments: &[Value]) -> Result<(), ErrorKind> {
        self.transmit.command(0, "_result", command.transaction, arguments)
    }
}

/// Decodes a command. A missing transaction id is taken as 0, a missing command object as none.
fn decode(message: &Message, limits: &crate::limits::AmfLimits) -> Result<Command, ErrorKind> {
    // An AMF3 command carries AMF0 behind a zero byte; some encoders leave the byte out.
    let payload = message.payload.contiguous();
    let payload: &[u8] = match (message.kind, payload.split_first()) {
        (MessageType::COMMAND_AMF3, Some((0, rest))) if rest.first() == Some(&2) => rest,
        _ => &payload,
    };
    let mut values = amf::decode(payload, limits)?.into_iter();
    let Some(Value::String(name)) = values.next() else { return Err(ErrorKind::Malformed("command")) };
    let mut values = values.peekable();
    let transaction = match values.peek() {
        Some(Value::Number(n)) => {
            let n = *n;
            values.next();
            n
        }
        _ => 0.0,
    };
    Ok(Command { name, transaction, arguments: values.collect() })
}
