//! Media and data messages: what a published stream consists of.

use super::session::{Event, ServerSession};
use crate::amf::{self, Value};
use crate::limits::Limits;
use crate::message::{Message, MessageType};
use bytes::{Buf, Bytes};

/// An aggregate message being taken apart (RTMP 7.1.6).
#[derive(Debug)]
pub(super) struct Aggregate {
    rest: Bytes,
    timestamp: u32,
    /// The first part's own timestamp: parts are relative to it.
    base: Option<u32>,
}

impl ServerSession {
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

    /// Takes the next usable part out of an aggregate: FLV tags, each followed by its length.
    pub(super) fn next_of_aggregate(&mut self) -> Option<Event> {
        while let Some(aggregate) = &mut self.aggregate {
            let Some((kind, timestamp, data)) = aggregate.next_part() else {
                self.aggregate = None;
                break;
            };
            let message = Message { chunk_stream: 0, kind, stream: 0, timestamp, payload: data.into() };
            let event = match kind {
                MessageType::VIDEO | MessageType::AUDIO => self.media(message),
                MessageType::DATA_AMF0 => self.data(&message),
                _ => None,
            };
            if event.is_some() {
                return event;
            }
        }
        None
    }

    pub(super) fn data(&mut self, message: &Message) -> Option<Event> {
        let event = self.is_publishing().then(|| decode_data(message, &self.limits)).flatten();
        // Metadata never decides over a stream: what cannot be read is dropped, and counted.
        self.ignored += u64::from(event.is_none());
        event
    }
}

impl Aggregate {
    /// An aggregate in several pieces is copied: parts of it lie across them, and hardly any encoder sends one.
    pub(super) fn new(message: &Message) -> Self {
        Self { rest: message.payload.contiguous(), timestamp: message.timestamp, base: None }
    }

    fn next_part(&mut self) -> Option<(MessageType, u32, Bytes)> {
        let head = self.rest.first_chunk::<11>()?;
        let kind = MessageType(head[0]);
        let length = u32::from_be_bytes([0, head[1], head[2], head[3]]) as usize;
        let own = u32::from_be_bytes([head[7], head[4], head[5], head[6]]);
        if self.rest.len() < 11 + length {
            return None;
        }
        self.rest.advance(11);
        let data = self.rest.split_to(length);
        self.rest.advance(self.rest.len().min(4));
        let base = *self.base.get_or_insert(own);
        Some((kind, self.timestamp.wrapping_add(own.wrapping_sub(base)), data))
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
