//! A rendered playlist: shared bytes, plain and compressed, with the header values that go with them.

use std::io::Write;
use std::sync::OnceLock;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

/// One version of a playlist. Rendered once; a request clones a pointer.
#[derive(Debug)]
pub struct Text {
    plain: Bytes,
    gzip: OnceLock<Option<Bytes>>,
    etag: Bytes,
}

impl Text {
    /// Takes a rendered playlist.
    pub fn new(text: impl Into<Bytes>) -> Self {
        let plain = text.into();
        let etag = Bytes::from(format!("\"{:016x}\"", fnv1a(&plain)));
        Self { plain, gzip: OnceLock::new(), etag }
    }

    /// The bytes as they are.
    pub fn plain(&self) -> Bytes {
        self.plain.clone()
    }

    /// The bytes compressed by gzip: made at the first request for them. `None` when that is no shorter.
    pub fn gzip(&self) -> Option<Bytes> {
        self.gzip.get_or_init(|| compress(&self.plain).filter(|z| z.len() < self.plain.len())).clone()
    }

    /// The entity tag: a hash of the bytes, so all edges give the same.
    pub fn etag(&self) -> &Bytes {
        &self.etag
    }
}

/// Playlists are small and live for a part's time: speed before size.
fn compress(plain: &[u8]) -> Option<Bytes> {
    let mut out = GzEncoder::new(Vec::with_capacity(plain.len() / 4), Compression::fast());
    out.write_all(plain).ok()?;
    out.finish().ok().map(Bytes::from)
}

/// FNV-1a, 64 bits.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn gzip_gives_the_same_text_and_equal_texts_have_equal_tags() {
        let text = "#EXTM3U\n".repeat(100);
        let (a, b) = (Text::new(text.clone()), Text::new(text.clone()));
        assert_eq!(a.etag(), b.etag());
        assert_ne!(a.etag(), Text::new("other").etag());
        let mut back = String::new();
        flate2::read::GzDecoder::new(&a.gzip().unwrap()[..]).read_to_string(&mut back).unwrap();
        assert_eq!(back, text);
        assert!(Text::new("x").gzip().is_none());
    }
}
