//! Media and data messages of a published stream.

use super::event::Event;
use super::session::ServerSession;
use crate::amf::{self, Value};
use crate::error::RtmpError;
use crate::limits::Limits;
use crate::message::{Message, MessageType};
use std::time::Duration;

impl ServerSession {
    /// Returns the event of a media message; one that nothing is published for is dropped and counted.
    pub(super) fn media(&mut self, message: Message) -> Option<Event> {
        if !self.is_publishing() {
            self.ignored += 1;
            return None;
        }
        // An empty audio message is a keep-alive of some encoders.
        if message.payload.is_empty() {
            return None;
        }
        let (timestamp, data) = (message.timestamp, message.payload);
        match message.kind {
            MessageType::VIDEO => Some(Event::Video { timestamp, data }),
            _ => Some(Event::Audio { timestamp, data }),
        }
    }

    /// Returns the event of the next usable part of the current aggregate.
    /// Each part counts as a message.
    pub(super) fn next_of_aggregate(&mut self, now: Duration) -> Result<Option<Event>, RtmpError> {
        while let Some(aggregate) = &mut self.aggregate {
            let Some((kind, timestamp, data)) = aggregate.next_part() else {
                self.aggregate = None;
                break;
            };
            self.count(now, 1)?;
            let message = Message { chunk_stream: 0, kind, stream: 0, timestamp, payload: data.into() };
            let event = match kind {
                MessageType::VIDEO | MessageType::AUDIO => self.media(message),
                MessageType::DATA_AMF0 => self.data(&message),
                _ => None,
            };
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    /// Returns the event of a data message.
    pub(super) fn data(&mut self, message: &Message) -> Option<Event> {
        let event = self.is_publishing().then(|| decode_data(message, &self.limits)).flatten();
        // Unreadable metadata is dropped and counted: it must not end a stream.
        self.ignored += u64::from(event.is_none());
        event
    }
}

fn decode_data(message: &Message, limits: &Limits) -> Option<Event> {
    // AMF3 data carries AMF0 behind a zero byte.
    let payload = message.payload.contiguous();
    let payload: &[u8] = match (message.kind, payload.split_first()) {
        (MessageType::DATA_AMF3, Some((0, rest))) => rest,
        _ => &payload,
    };
    let mut values = amf::decode(payload, &limits.amf).ok()?.into_iter();
    let mut name = values.next()?;
    if name.as_str() == Some("@setDataFrame") {
        name = values.next()?;
    }
    let Value::String(name) = name else { return None };
    let timestamp = message.timestamp;
    if name != "onMetaData" {
        return Some(Event::Data { timestamp, name, values: values.collect() });
    }
    let properties = match values.next() {
        Some(Value::Object(properties) | Value::EcmaArray(properties)) => properties,
        _ => Vec::new(),
    };
    Some(Event::Metadata { timestamp, properties })
}
