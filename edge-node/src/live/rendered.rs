//! A rendered playlist: shared bytes, plain and compressed, with the entity tag that goes with them.

use std::io::Write;
use std::sync::OnceLock;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

/// One version of a playlist. It is rendered once; a request clones a pointer.
#[derive(Debug)]
pub struct RenderedPlaylist {
    plain: Bytes,
    gzip: OnceLock<Option<Bytes>>,
    etag: Bytes,
}

impl RenderedPlaylist {
    /// Creates a rendered playlist from its text.
    pub fn new(text: impl Into<Bytes>) -> Self {
        let plain = text.into();
        let etag = Bytes::from(format!("\"{:016x}\"", fnv1a(&plain)));
        Self { plain, gzip: OnceLock::new(), etag }
    }

    /// Returns the text of the playlist without compression.
    pub fn plain(&self) -> Bytes {
        self.plain.clone()
    }

    /// Returns the bytes compressed by gzip, which the first request for them makes. `None` when they are no shorter.
    pub fn gzip(&self) -> Option<Bytes> {
        let shorter = |zipped: &Bytes| zipped.len() < self.plain.len();
        self.gzip.get_or_init(|| compress(&self.plain).filter(shorter)).clone()
    }

    /// Returns the entity tag: a hash of the bytes, so all edges give the same.
    pub fn etag(&self) -> &Bytes {
        &self.etag
    }
}

/// Compresses for speed before size: a playlist is small and lives for the duration of a part.
fn compress(plain: &[u8]) -> Option<Bytes> {
    let mut out = GzEncoder::new(Vec::with_capacity(plain.len() / 4), Compression::fast());
    out.write_all(plain).ok()?;
    out.finish().ok().map(Bytes::from)
}

/// Hashes by FNV-1a with 64 bits.
fn fnv1a(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn rendered_playlist_gives_the_same_text_by_gzip_and_equal_tags_for_equal_texts() {
        let text = "#EXTM3U\n".repeat(100);
        let (first, second) = (RenderedPlaylist::new(text.clone()), RenderedPlaylist::new(text.clone()));
        assert_eq!(first.etag(), second.etag());
        assert_ne!(first.etag(), RenderedPlaylist::new("other").etag());
        let mut unzipped = String::new();
        flate2::read::GzDecoder::new(&first.gzip().unwrap()[..]).read_to_string(&mut unzipped).unwrap();
        assert_eq!(unzipped, text);
        assert!(RenderedPlaylist::new("x").gzip().is_none());
    }
}
