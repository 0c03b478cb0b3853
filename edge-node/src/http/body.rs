//! The one adapter between byte chains and HTTP response bodies.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;
use millrace_buf::ByteChain;

/// A response body that sends a chain slice by slice, without joining the slices first.
pub(super) struct ChainBody(pub(super) ByteChain);

impl MessageBody for ChainBody {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.0.len() as u64)
    }

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }

    fn try_into_bytes(self) -> Result<Bytes, Self> {
        if self.0.iter().nth(1).is_some() { Err(self) } else { Ok(self.0.contiguous()) }
    }
}
