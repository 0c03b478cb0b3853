//! The handshake (RTMP 5.2), plain and with digests, by rml_rtmp.

use crate::error::ErrorKind;
use bytes::{Buf, BytesMut};
use rml_rtmp::handshake::{Handshake as Library, HandshakeError, HandshakeProcessResult, PeerType};

/// Length of C0, C1 and C2 (or S0, S1 and S2) in bytes.
pub(crate) const HANDSHAKE_BYTES: usize = 1 + 2 * 1536;

/// One side of a handshake.
pub(crate) struct Handshake {
    /// Boxed: 3 KB that only the first moments of a connection need.
    library: Box<Library>,
    consumed: usize,
}

impl std::fmt::Debug for Handshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handshake").field("consumed", &self.consumed).finish_non_exhaustive()
    }
}

impl Handshake {
    /// Creates the answering side of a handshake.
    pub(crate) fn server() -> Self {
        Self { library: Box::new(Library::new(PeerType::Server)), consumed: 0 }
    }

    /// Creates the beginning side; appends C0 and C1.
    pub(crate) fn client(out: &mut BytesMut) -> Result<Self, ErrorKind> {
        let mut library = Box::new(Library::new(PeerType::Client));
        out.extend_from_slice(&library.generate_outbound_p0_and_p1().map_err(|e| fault(&e))?);
        Ok(Self { library, consumed: 0 })
    }

    /// Returns the bytes of the peer consumed so far.
    pub(crate) fn consumed(&self) -> u64 {
        self.consumed as u64
    }

    /// Consumes bytes of the handshake and appends answers; returns true once it is complete.
    pub(crate) fn advance(&mut self, buf: &mut BytesMut, out: &mut BytesMut) -> Result<bool, ErrorKind> {
        // The library copies its input and returns what is left over, so it gets no more than the handshake.
        let count = buf.len().min(HANDSHAKE_BYTES - self.consumed);
        if count == 0 {
            return Ok(false);
        }
        let result = self.library.process_bytes(&buf[..count]).map_err(|e| fault(&e))?;
        buf.advance(count);
        self.consumed += count;
        Ok(match result {
            HandshakeProcessResult::InProgress { response_bytes } => {
                out.extend_from_slice(&response_bytes);
                false
            }
            HandshakeProcessResult::Completed { response_bytes, .. } => {
                out.extend_from_slice(&response_bytes);
                true
            }
        })
    }
}

fn fault(error: &HandshakeError) -> ErrorKind {
    ErrorKind::Handshake(match error {
        HandshakeError::BadVersionId => "version byte is not 3 (plain RTMP)",
        HandshakeError::UnknownPacket1Format => "unknown packet 1",
        _ => "invalid packet",
    })
}
