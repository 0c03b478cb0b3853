//! A response body of several pieces, none of them copied to be joined.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;

use crate::payload::Payload;

/// Sends a payload piece by piece.
pub(super) struct Pieces {
    payload: Payload,
    next: usize,
}

impl Pieces {
    pub(super) fn of(payload: &Payload) -> Self {
        Self { payload: payload.clone(), next: 0 }
    }
}

impl MessageBody for Pieces {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.payload.pieces().iter().skip(self.next).map(|piece| piece.len() as u64).sum())
    }

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        let piece = self.payload.pieces().get(self.next).cloned();
        self.next += 1;
        Poll::Ready(piece.map(Ok))
    }

    fn try_into_bytes(self) -> Result<Bytes, Self> {
        match self.payload.pieces() {
            [only] if self.next == 0 => Ok(only.clone()),
            _ => Err(self),
        }
    }
}
