//! FLV files (Adobe FLV 10.1, §E.2 and §E.3), for tools and tests that read the output of an
//! encoder.

use bytes::{Buf, Bytes};

use super::FlvError;

/// The kind of a tag's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagKind {
    /// Audio, a body for [`super::FlvAudio::parse`].
    Audio,
    /// Video, a body for [`super::FlvVideo::parse`].
    Video,
    /// Metadata of the file in AMF0.
    Script,
}

/// One tag of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// The kind of content in `body`.
    pub kind: TagKind,
    /// Timestamp in milliseconds, which wraps at 32 bits.
    pub timestamp_ms: u32,
    /// The content; shares the file's memory.
    pub body: Bytes,
}

/// Walks the tags of a whole file in memory. A last tag that is cut short ends the walk.
#[derive(Debug, Clone)]
pub struct Reader {
    rest: Bytes,
}

const FILE_HEADER_BYTES: usize = 9;
const TAG_HEADER_BYTES: usize = 11;
const PREVIOUS_TAG_SIZE_BYTES: usize = 4;

impl Reader {
    /// Checks the file header and starts at the first tag.
    pub fn new(mut file: Bytes) -> Result<Self, FlvError> {
        if file.len() < FILE_HEADER_BYTES + PREVIOUS_TAG_SIZE_BYTES || &file[..3] != b"FLV" {
            return Err(FlvError::File("no FLV header"));
        }
        let offset = u32::from_be_bytes([file[5], file[6], file[7], file[8]]) as usize;
        if offset < FILE_HEADER_BYTES || offset.saturating_add(PREVIOUS_TAG_SIZE_BYTES) > file.len() {
            return Err(FlvError::File("bad data offset"));
        }
        file.advance(offset + PREVIOUS_TAG_SIZE_BYTES);
        Ok(Self { rest: file })
    }

    /// Returns the next tag of a known kind.
    fn tag(&mut self) -> Option<Result<Tag, FlvError>> {
        loop {
            let header: [u8; TAG_HEADER_BYTES] = self.rest.get(..TAG_HEADER_BYTES)?.try_into().ok()?;
            let size = u32::from_be_bytes([0, header[1], header[2], header[3]]) as usize;
            if self.rest.len() < TAG_HEADER_BYTES + size {
                return None;
            }
            self.rest.advance(TAG_HEADER_BYTES);
            let body = self.rest.split_to(size);
            self.rest.advance(PREVIOUS_TAG_SIZE_BYTES.min(self.rest.len()));
            let kind = match header[0] & 0x1f {
                8 => TagKind::Audio,
                9 => TagKind::Video,
                18 => TagKind::Script,
                _ => continue,
            };
            if header[0] & 0x20 != 0 {
                return Some(Err(FlvError::File("encrypted tag")));
            }
            let timestamp_ms = u32::from_be_bytes([header[7], header[4], header[5], header[6]]);
            return Some(Ok(Tag { kind, timestamp_ms, body }));
        }
    }
}

impl Iterator for Reader {
    type Item = Result<Tag, FlvError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.tag()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reader_walks_tags_and_stops_at_one_that_is_cut_short() {
        let mut file = b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec();
        file.extend([9, 0, 0, 2, 0x01, 0x02, 0x03, 0x04, 0, 0, 0, 0xaa, 0xbb, 0, 0, 0, 13]);
        file.extend([8, 0, 0, 1, 0, 0, 5, 0, 0, 0, 0, 0xcc, 0, 0, 0, 12]);
        let cut = file.len() - 5;
        let tags: Vec<_> = Reader::new(Bytes::from(file.clone())).unwrap().map(Result::unwrap).collect();
        assert_eq!(tags.len(), 2);
        assert_eq!(
            (tags[0].kind, tags[0].timestamp_ms, &tags[0].body[..]),
            (TagKind::Video, 0x0401_0203, &[0xaa, 0xbb][..])
        );
        assert_eq!((tags[1].kind, tags[1].timestamp_ms), (TagKind::Audio, 5));
        assert_eq!(Reader::new(Bytes::from(file[..cut].to_vec())).unwrap().count(), 1);
        assert!(Reader::new(Bytes::from_static(b"RIFF")).is_err());
    }
}
