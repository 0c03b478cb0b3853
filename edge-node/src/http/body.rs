//! The adapter between byte chains and HTTP response bodies.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;
use millrace_buf::ByteChain;

/// A response body that sends a chain slice by slice. Neither the bytes nor the list of slices is copied.
pub(super) struct ChainBody {
    chain: Arc<ByteChain>,
    next: usize,
}

impl ChainBody {
    /// Makes the body of a chain.
    pub(super) fn new(chain: Arc<ByteChain>) -> Self {
        Self { chain, next: 0 }
    }
}

impl MessageBody for ChainBody {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.chain.iter().skip(self.next).map(|slice| slice.len() as u64).sum())
    }

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        let slice = self.chain.iter().nth(self.next).cloned();
        self.next += 1;
        Poll::Ready(slice.map(Ok))
    }

    fn try_into_bytes(self) -> Result<Bytes, Self> {
        let single = self.next == 0 && self.chain.iter().nth(1).is_none();
        if single { Ok(self.chain.contiguous()) } else { Err(self) }
    }
}
