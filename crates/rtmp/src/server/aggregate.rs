//! Aggregate messages (RTMP 7.1.6): several FLV tags in one message.

use bytes::{Buf, Bytes};

use crate::message::{Message, MessageType};

/// The parts of an aggregate message that are still to be read.
#[derive(Debug)]
pub(super) struct Aggregate {
    rest: Bytes,
    timestamp: u32,
    /// The first part's own timestamp; the others count from it.
    base: Option<u32>,
}

impl Aggregate {
    /// Takes an aggregate apart. One in several slices is copied: its parts lie across them, and hardly any encoder
    /// sends aggregates.
    pub(super) fn new(message: &Message) -> Self {
        Self { rest: message.payload.contiguous(), timestamp: message.timestamp, base: None }
    }

    /// Returns the next part: message type, timestamp and body. A truncated part ends the aggregate.
    pub(super) fn next_part(&mut self) -> Option<(MessageType, u32, Bytes)> {
        let header = self.rest.first_chunk::<11>()?;
        let kind = MessageType(header[0]);
        let length = u32::from_be_bytes([0, header[1], header[2], header[3]]) as usize;
        let own = u32::from_be_bytes([header[7], header[4], header[5], header[6]]);
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
