//! Extended headers of Enhanced RTMP (Veovera, versions 1 and 2), which name codecs by FourCC.

use std::fmt;

use bytes::Buf;
use millrace_buf::ByteChain;

/// The four-character code of a codec.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FourCc(pub [u8; 4]);

impl FourCc {
    /// Returns the codec's usual name, if the code is one of Enhanced RTMP's.
    pub const fn codec_name(self) -> Option<&'static str> {
        match &self.0 {
            b"avc1" => Some("H.264"),
            b"hvc1" => Some("HEVC"),
            b"vvc1" => Some("VVC"),
            b"av01" => Some("AV1"),
            b"vp08" => Some("VP8"),
            b"vp09" => Some("VP9"),
            b"mp4a" => Some("AAC"),
            b"Opus" => Some("Opus"),
            b".mp3" => Some("MP3"),
            b"fLaC" => Some("FLAC"),
            b"ac-3" => Some("AC-3"),
            b"ec-3" => Some("E-AC-3"),
            _ => None,
        }
    }
}

impl fmt::Display for FourCc {
    /// Writes the codec's name and its code, such as `HEVC (hvc1)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self.0.escape_ascii();
        match self.codec_name() {
            Some(name) => write!(f, "{name} ({code})"),
            None => write!(f, "unknown codec ({code})"),
        }
    }
}

impl fmt::Debug for FourCc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FourCc({})", self.0.escape_ascii())
    }
}

/// The codec part of an extended header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExHeader {
    /// A message of one codec: its packet type and FourCC.
    Codec {
        /// `VideoPacketType` or `AudioPacketType`, modifiers resolved.
        packet_type: u8,
        /// The codec of the message, which is that of its first track if there are several.
        four_cc: FourCc,
    },
    /// A client command such as a seek, which carries no media.
    Command,
}

/// The frame type of a client command (`VideoFrameType::Command`).
const FRAME_COMMAND: u8 = 5;
/// `VideoPacketType::Metadata`, the one packet that a command's frame type does not change.
const VIDEO_METADATA: u8 = 4;
/// The packet types that stand for several tracks.
const VIDEO_MULTITRACK: u8 = 6;
const AUDIO_MULTITRACK: u8 = 5;
/// The packet type of a modifier, in audio and video.
const MOD_EX: u8 = 7;
/// Most modifiers of one message; one is defined.
const MAX_MODIFIERS: usize = 8;

impl ExHeader {
    /// Reads the extended header of a video message; `None` if it is truncated.
    pub fn parse_video(body: &ByteChain) -> Option<Self> {
        let mut rest = body.reader();
        let first = rest.try_get_u8().ok()?;
        let packet_type = skip_modifiers(&mut rest, first & 0x0f)?;
        if first >> 4 & 7 == FRAME_COMMAND && packet_type != VIDEO_METADATA {
            return Some(Self::Command);
        }
        codec(&mut rest, packet_type, VIDEO_MULTITRACK)
    }

    /// Reads the extended header of an audio message; `None` if it is truncated.
    pub fn parse_audio(body: &ByteChain) -> Option<Self> {
        let mut rest = body.reader();
        let first = rest.try_get_u8().ok()?;
        let packet_type = skip_modifiers(&mut rest, first & 0x0f)?;
        codec(&mut rest, packet_type, AUDIO_MULTITRACK)
    }
}

/// Skips modifiers in front of the packet; returns the packet type that follows them.
fn skip_modifiers(rest: &mut impl Buf, mut packet_type: u8) -> Option<u8> {
    for _ in 0..MAX_MODIFIERS {
        if packet_type != MOD_EX {
            return Some(packet_type);
        }
        // One byte less than the size, or 255 and then a size of 16 bits.
        let size = match rest.try_get_u8().ok()? {
            255 => usize::from(rest.try_get_u16().ok()?) + 1,
            short => usize::from(short) + 1,
        };
        if rest.remaining() < size {
            return None;
        }
        rest.advance(size);
        packet_type = rest.try_get_u8().ok()? & 0x0f;
    }
    None
}

fn codec(rest: &mut impl Buf, packet_type: u8, multitrack: u8) -> Option<ExHeader> {
    // The packet type of the tracks; the FourCC, or the first track's, comes next in every kind of
    // multitrack.
    let packet_type = if packet_type == multitrack { rest.try_get_u8().ok()? & 0x0f } else { packet_type };
    let mut four_cc = [0; 4];
    rest.try_copy_to_slice(&mut four_cc).ok()?;
    Some(ExHeader::Codec { packet_type, four_cc: FourCc(four_cc) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn video(body: &'static [u8]) -> Option<ExHeader> {
        ExHeader::parse_video(&bytes::Bytes::from_static(body).into())
    }

    const fn header(packet_type: u8, four_cc: [u8; 4]) -> ExHeader {
        ExHeader::Codec { packet_type, four_cc: FourCc(four_cc) }
    }

    #[test]
    fn extended_header_names_its_codec() {
        assert_eq!(video(b"\x90hvc1...."), Some(header(0, *b"hvc1")));
        assert_eq!(video(b"\xa1av01...."), Some(header(1, *b"av01")));
        assert_eq!(video(b"\x96\x01vp09\x00"), Some(header(1, *b"vp09")), "several tracks");
        assert_eq!(video(b"\x97\x02abc\x01avc1"), Some(header(1, *b"avc1")), "a modifier of three bytes");
        assert_eq!(video(b"\xd1\x00"), Some(ExHeader::Command));
        assert_eq!(video(b"\x91hv"), None);
        let audio = ExHeader::parse_audio(&bytes::Bytes::from_static(b"\x90Opus...").into());
        assert_eq!(audio, Some(header(0, *b"Opus")));
    }

    #[test]
    fn four_cc_is_shown_with_the_name_of_its_codec() {
        assert_eq!(FourCc(*b"hvc1").to_string(), "HEVC (hvc1)");
        assert_eq!(FourCc(*b".mp3").to_string(), "MP3 (.mp3)");
        assert_eq!(FourCc([0, b'x', 255, b'y']).to_string(), "unknown codec (\\x00x\\xffy)");
    }

    proptest! {
        #[test]
        fn garbage_never_panics(data in prop::collection::vec(any::<u8>(), 0..80), modifiers in 0usize..20) {
            let _ = ExHeader::parse_video(&data.clone().into());
            let _ = ExHeader::parse_audio(&data.clone().into());
            let modified = [&[0x97][..], &[0, 9, 7].repeat(modifiers), &data].concat();
            let _ = ExHeader::parse_video(&modified.into());
        }
    }
}
