//! The bytes of a media object, which the cache and the answers that send it share.

use std::sync::OnceLock;

use millrace_buf::ByteChain;
use millrace_runtime::metrics::Gauge;

/// The bytes of an object. Once they have left the cache, they count as held until the last answer has sent them: an answer
/// to a client that does not read them may keep them for long, outside the bounds of the cache.
#[derive(Debug)]
pub struct Media {
    bytes: ByteChain,
    /// The gauge in which the bytes count as held, once they have left the cache.
    held: OnceLock<Gauge>,
}

impl Media {
    /// Makes the bytes of an object that is in the cache or will be.
    pub fn new(bytes: impl Into<ByteChain>) -> Self {
        Self { bytes: bytes.into(), held: OnceLock::new() }
    }

    /// Returns the bytes.
    pub fn bytes(&self) -> &ByteChain {
        &self.bytes
    }

    /// Returns the number of bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Returns true if there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Notes that the cache does not keep the object, or no longer does; its bytes count in `held` until they are freed.
    pub fn leave_cache(&self, held: &Gauge) {
        if self.held.set(held.clone()).is_ok() {
            held.add(self.len() as i64);
        }
    }

    /// Returns true if the bytes are in memory for the answers that send them alone.
    pub fn is_held(&self) -> bool {
        self.held.get().is_some()
    }
}

impl Drop for Media {
    fn drop(&mut self) {
        if let Some(held) = self.held.get() {
            held.add(-(self.len() as i64));
        }
    }
}
