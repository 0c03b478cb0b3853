//! Publishes as data: the messages of one publish with the times at which they are true, stamped and sent, and
//! the habits of encoders as changes to them.
//!
//! A [`Tape`] starts as a clip that ffmpeg encoded. Mutators ([`times`], [`bodies`]) turn it into the publish of an
//! encoder with a habit; the true times stay, so that a test can tell how far the served media strayed from them.

pub mod bodies;
pub mod clips;
pub mod send;
pub mod times;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::{BufMut, Bytes, BytesMut};
use millrace_media::container::flv::file::Reader;
pub use millrace_media::container::flv::file::TagKind;

/// One message of a publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// Audio, video or metadata.
    pub kind: TagKind,
    /// The true decoding time in milliseconds since the clip began.
    pub true_ms: i64,
    /// The RTMP timestamp that is sent, before it wraps at 32 bits.
    pub stamp_ms: i64,
    /// The time at which the message is sent, in milliseconds since the publish began.
    pub due_ms: i64,
    /// The payload of the RTMP message.
    pub body: Bytes,
}

/// The messages of one publish in the order they are sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tape {
    /// All messages, sequence headers and metadata among them.
    pub tags: Vec<Tag>,
}

/// Frame type, codec, packet type and composition offset of an AVC message (Adobe FLV 10.1, §E.4.3).
const AVC_HEADER_BYTES: usize = 5;

impl Tag {
    /// True for codec parameters (packet type 0).
    pub fn is_header(&self) -> bool {
        self.kind != TagKind::Script && self.body.get(1) == Some(&0)
    }

    /// True for a coded picture.
    pub fn is_picture(&self) -> bool {
        self.kind == TagKind::Video && self.body.get(1) == Some(&1)
    }

    /// True for a picture that is marked as a keyframe.
    pub fn is_keyframe(&self) -> bool {
        self.is_picture() && self.body[0] >> 4 == 1
    }

    /// True for an audio frame.
    pub fn is_sound(&self) -> bool {
        self.kind == TagKind::Audio && self.body.get(1) == Some(&1)
    }

    /// The composition offset of a picture in milliseconds.
    pub fn offset_ms(&self) -> i64 {
        match (self.is_picture(), self.body.get(2..AVC_HEADER_BYTES)) {
            (true, Some(&[high, middle, low])) => i64::from(i32::from_be_bytes([high, middle, low, 0]) >> 8),
            _ => 0,
        }
    }

    /// The true presentation time in milliseconds.
    pub fn true_pts_ms(&self) -> i64 {
        self.true_ms + self.offset_ms()
    }

    /// The payload behind the FLV header: NAL units or an AAC frame.
    pub fn media(&self) -> Bytes {
        let header = if self.kind == TagKind::Video { AVC_HEADER_BYTES } else { 2 };
        self.body.slice(header.min(self.body.len())..)
    }
}

impl Tape {
    /// Reads an FLV file; its messages are stamped truly and sent in real time.
    pub fn open(path: &Path) -> Result<Self> {
        let file = std::fs::read(path).with_context(|| path.display().to_string())?;
        let mut tags = Vec::new();
        for tag in Reader::new(file.into())? {
            let tag = tag?;
            let at = i64::from(tag.timestamp_ms);
            tags.push(Tag { kind: tag.kind, true_ms: at, stamp_ms: at, due_ms: at, body: tag.body });
        }
        Ok(Self { tags })
    }

    /// The pictures in the order they are sent.
    pub fn pictures(&self) -> impl Iterator<Item = &Tag> {
        self.tags.iter().filter(|tag| tag.is_picture())
    }

    /// The audio frames in the order they are sent.
    pub fn sounds(&self) -> impl Iterator<Item = &Tag> {
        self.tags.iter().filter(|tag| tag.is_sound())
    }

    /// The time that sending takes.
    pub fn length(&self) -> Duration {
        let last = self.tags.iter().map(|tag| tag.due_ms).max().unwrap_or_default();
        Duration::from_millis(last.max(0) as u64)
    }

    /// Writes an FLV file with the stamped times (Adobe FLV 10.1, §E.2 to §E.4.1), to push with other tools.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut out = BytesMut::new();
        out.put_slice(b"FLV\x01\x05\0\0\0\x09\0\0\0\0");
        for tag in &self.tags {
            let kind = match tag.kind {
                TagKind::Audio => 8,
                TagKind::Video => 9,
                TagKind::Script => 18,
            };
            let size = tag.body.len() as u32;
            let stamp = tag.stamp_ms as u32;
            out.put_u32(kind << 24 | size);
            out.put_u32(stamp.rotate_left(8));
            out.put_slice(&[0; 3]);
            out.put_slice(&tag.body);
            out.put_u32(size + 11);
        }
        std::fs::write(path, out).with_context(|| path.display().to_string())
    }

    /// Changes each message in place.
    #[must_use]
    pub fn map(mut self, mut change: impl FnMut(&mut Tag)) -> Self {
        self.tags.iter_mut().for_each(&mut change);
        self
    }

    /// Changes each picture in place; the function gets its number in sending order.
    #[must_use]
    pub fn map_pictures(self, mut change: impl FnMut(usize, &mut Tag)) -> Self {
        let mut number = 0;
        self.map(|tag| {
            if tag.is_picture() {
                change(number, tag);
                number += 1;
            }
        })
    }

    /// Changes each audio frame in place; the function gets its number.
    #[must_use]
    pub fn map_sounds(self, mut change: impl FnMut(usize, &mut Tag)) -> Self {
        let mut number = 0;
        self.map(|tag| {
            if tag.is_sound() {
                change(number, tag);
                number += 1;
            }
        })
    }

    /// Keeps the messages that `choose` takes.
    #[must_use]
    pub fn keep(mut self, choose: impl FnMut(&Tag) -> bool) -> Self {
        self.tags.retain(choose);
        self
    }

    /// Keeps the pictures whose number, in sending order, `choose` takes, and all other messages.
    #[must_use]
    pub fn keep_pictures(self, mut choose: impl FnMut(usize, &Tag) -> bool) -> Self {
        let mut number = 0;
        self.keep(|tag| {
            if !tag.is_picture() {
                return true;
            }
            number += 1;
            choose(number - 1, tag)
        })
    }

    /// Drops all audio and, as it may announce audio, the metadata.
    #[must_use]
    pub fn video_alone(self) -> Self {
        self.keep(|tag| tag.kind == TagKind::Video)
    }

    /// Drops the metadata.
    #[must_use]
    pub fn without_metadata(self) -> Self {
        self.keep(|tag| tag.kind != TagKind::Script)
    }

    /// Orders messages by the time they are sent; messages of one time keep their order.
    #[must_use]
    pub fn in_sending_order(mut self) -> Self {
        self.tags.sort_by_key(|tag| tag.due_ms);
        self
    }

    /// The pictures of this tape with the sound of another, and this one's metadata.
    #[must_use]
    pub fn with_sound_of(self, other: Self) -> Self {
        let mut tags = self.keep(|tag| tag.kind != TagKind::Audio).tags;
        tags.extend(other.tags.into_iter().filter(|tag| tag.kind == TagKind::Audio));
        Self { tags }.in_sending_order()
    }

    /// Appends another tape, whose times begin `at_ms` later.
    #[must_use]
    pub fn then(mut self, at_ms: i64, next: Self) -> Self {
        self.tags.extend(next.tags.into_iter().map(|tag| Tag {
            true_ms: tag.true_ms + at_ms,
            stamp_ms: tag.stamp_ms + at_ms,
            due_ms: tag.due_ms + at_ms,
            ..tag
        }));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_testkit::{Clip, ClipSpec};

    #[tokio::test]
    async fn tape_is_written_as_the_file_it_was_read_from() {
        let clip = Clip::flv(ClipSpec { frames: 30, ..ClipSpec::default() }).await.unwrap();
        let tape = Tape::open(&clip.path).unwrap();
        assert_eq!(
            (tape.pictures().count(), tape.tags.iter().filter(|tag| tag.is_header()).count()),
            (30, 2)
        );
        let copy = tempfile::NamedTempFile::new().unwrap();
        tape.write(copy.path()).unwrap();
        assert_eq!(Tape::open(copy.path()).unwrap(), tape);
        let moved = tape.clone().map(|tag| tag.stamp_ms += 0x0102_0304);
        moved.write(copy.path()).unwrap();
        let first = tape.tags[0].stamp_ms;
        assert_eq!(Tape::open(copy.path()).unwrap().tags[0].stamp_ms, first + 0x0102_0304);
    }
}
