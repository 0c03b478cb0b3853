//! The adapter between media and HTTP response bodies.

use std::convert::Infallible;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;
use millrace_buf::ByteChain;
use millrace_runtime::http::Connection;

use crate::objects::answers::{Answers, OpenAnswer};
use crate::objects::media::Media;

/// The most bytes handed to actix-http at once, which copies them into the connection's write buffer: a client that does
/// not read keeps no more than these. A usual part is one piece. With the head it stays below the 128 KiB from which
/// actix-http allocates a new buffer for each answer.
const PIECE: usize = 120 << 10;

/// A response body that sends an object, or a range of it, piece by piece. The object is not copied, and it is let go once
/// its last piece is in the connection's write buffer.
pub(super) struct MediaBody {
    media: Option<Arc<Media>>,
    /// The range, unless the whole object is sent.
    range: Option<ByteChain>,
    /// The slice that comes next, and how much of it is sent.
    next: (usize, usize),
    left: usize,
    registration: Registration,
}

enum Registration {
    /// To be noted in the list of answers when more than one piece turns out to be needed.
    Due(Arc<Answers>, Arc<Connection>),
    Done {
        _open: OpenAnswer,
    },
    /// The body is sent in one piece, or on a connection without a handle.
    None,
}

impl MediaBody {
    /// Makes the body that sends `range` of an object, or all of it, on `connection`.
    pub(super) fn new(
        media: Arc<Media>,
        range: Option<Range<usize>>,
        answers: &Arc<Answers>,
        connection: Option<Arc<Connection>>,
    ) -> Self {
        let left = range.as_ref().map_or(media.len(), Range::len);
        let range = range.map(|range| media.bytes().slice(range));
        let registration = match connection {
            Some(connection) if left > PIECE => Registration::Due(answers.clone(), connection),
            _ => Registration::None,
        };
        Self { media: Some(media), range, next: (0, 0), left, registration }
    }

    fn piece(&mut self) -> Option<Bytes> {
        let media = self.media.as_ref()?;
        let chain = self.range.as_ref().unwrap_or(media.bytes());
        loop {
            let (slice, sent) = self.next;
            let slice = chain.iter().nth(slice)?;
            let end = slice.len().min(sent + PIECE);
            if end == slice.len() {
                self.next = (self.next.0 + 1, 0);
            } else {
                self.next.1 = end;
            }
            if end > sent {
                return Some(slice.slice(sent..end));
            }
        }
    }
}

impl MessageBody for MediaBody {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.left as u64)
    }

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        let Some(piece) = self.piece() else { return Poll::Ready(None) };
        self.left = self.left.saturating_sub(piece.len());
        let this = &mut *self;
        if this.left == 0 {
            (this.media, this.range, this.registration) = (None, None, Registration::None);
        } else if let (Registration::Due(answers, connection), Some(media)) =
            (&this.registration, &this.media)
        {
            this.registration = Registration::Done { _open: answers.open(media.clone(), connection.clone()) };
        }
        Poll::Ready(Some(Ok(piece)))
    }

    fn try_into_bytes(self) -> Result<Bytes, Self> {
        let Some(media) = &self.media else { return Err(self) };
        let chain = self.range.as_ref().unwrap_or(media.bytes());
        let is_single = self.next == (0, 0) && self.left <= PIECE && chain.iter().nth(1).is_none();
        if is_single { Ok(chain.contiguous()) } else { Err(self) }
    }
}
