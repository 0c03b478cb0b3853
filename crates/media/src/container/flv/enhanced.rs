//! Extended headers of Enhanced RTMP (Veovera, versions 1 and 2), which name codecs by FourCC.

use std::fmt;

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

/// A message with an extended header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExMessage {
    /// A packet of one track.
    Packet(ExPacket),
    /// Packets of other tracks than the first, track 0, which alone is read.
    OtherTrack,
    /// A client command such as a seek, which carries no media.
    Command,
}

/// A packet of track 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExPacket {
    /// `VideoPacketType` or `AudioPacketType`, modifiers and tracks resolved.
    pub packet_type: u8,
    /// The codec of the packet.
    pub four_cc: FourCc,
    /// True for a keyframe (`VideoFrameType::KeyFrame`); means nothing for audio.
    pub is_keyframe: bool,
    /// True if the message holds packets of other tracks as well.
    pub has_other_tracks: bool,
    /// The rest of the packet; shares the message's memory.
    pub body: ByteChain,
}

/// Packet types that video and audio share.
pub(super) const SEQUENCE_START: u8 = 0;
pub(super) const CODED_FRAMES: u8 = 1;
pub(super) const SEQUENCE_END: u8 = 2;
/// `VideoPacketType::CodedFramesX`: coded frames whose composition offset is 0 and left out.
pub(super) const CODED_FRAMES_X: u8 = 3;
/// `VideoPacketType::Metadata`, the one packet that a command's frame type does not change; in audio,
/// `AudioPacketType::MultichannelConfig`.
pub(super) const METADATA: u8 = 4;
/// Frame types of a keyframe and of a client command (`VideoFrameType`).
const FRAME_KEY: u8 = 1;
const FRAME_COMMAND: u8 = 5;
/// The packet types that stand for several tracks.
const VIDEO_MULTITRACK: u8 = 6;
const AUDIO_MULTITRACK: u8 = 5;
/// The packet type of a modifier, in audio and video.
const MOD_EX: u8 = 7;
/// Most modifiers of one message; one is defined.
const MAX_MODIFIERS: usize = 8;
/// Most tracks of one message that are looked through for track 0.
const MAX_TRACKS: usize = 64;
/// `AvMultitrackType`: one track, or several of different codecs.
const ONE_TRACK: u8 = 0;
const MANY_CODECS: u8 = 2;

/// True if a message that begins with this packet type may have packets of several tracks.
pub(super) const fn may_have_tracks(packet_type: u8) -> bool {
    matches!(packet_type, VIDEO_MULTITRACK | AUDIO_MULTITRACK | MOD_EX)
}

impl ExMessage {
    /// Reads a video message; `None` if it is truncated.
    pub fn parse_video(body: ByteChain) -> Option<Self> {
        let frame_type = body.first_chunk::<1>()?[0] >> 4 & 7;
        let is_command = |packet_type| frame_type == FRAME_COMMAND && packet_type != METADATA;
        Self::parse(body, VIDEO_MULTITRACK, is_command, frame_type == FRAME_KEY)
    }

    /// Reads an audio message; `None` if it is truncated.
    pub fn parse_audio(body: ByteChain) -> Option<Self> {
        Self::parse(body, AUDIO_MULTITRACK, |_| false, false)
    }

    fn parse(
        mut body: ByteChain,
        multitrack: u8,
        is_command: impl Fn(u8) -> bool,
        is_keyframe: bool,
    ) -> Option<Self> {
        let mut packet_type = take::<1>(&mut body)?[0] & 0x0f;
        for _ in 0..MAX_MODIFIERS {
            if packet_type == MOD_EX {
                packet_type = skip_modifier(&mut body)?;
            }
        }
        if packet_type == MOD_EX {
            return None;
        }
        if is_command(packet_type) {
            return Some(Self::Command);
        }
        if packet_type == multitrack {
            return Self::of_tracks(body, is_keyframe);
        }
        let four_cc = FourCc(take(&mut body)?);
        Some(Self::Packet(ExPacket { packet_type, four_cc, is_keyframe, has_other_tracks: false, body }))
    }

    /// Reads the packet of track 0 among those of several tracks.
    fn of_tracks(mut body: ByteChain, is_keyframe: bool) -> Option<Self> {
        let [kinds] = take(&mut body)?;
        let (tracks, packet_type) = (kinds >> 4, kinds & 0x0f);
        let mut four_cc = if tracks == MANY_CODECS { [0; 4] } else { take(&mut body)? };
        for index in 0..MAX_TRACKS {
            if index > 0 && body.is_empty() {
                break;
            }
            if tracks == MANY_CODECS {
                four_cc = take(&mut body)?;
            }
            let [track] = take(&mut body)?;
            let mut size = body.len();
            if tracks != ONE_TRACK {
                let [high, middle, low] = take(&mut body)?;
                size = u32::from_be_bytes([0, high, middle, low]) as usize;
            }
            if size > body.len() {
                return None;
            }
            if track == 0 {
                let has_other_tracks = index > 0 || size < body.len();
                let (four_cc, body) = (FourCc(four_cc), body.slice(0..size));
                return Some(Self::Packet(ExPacket {
                    packet_type,
                    four_cc,
                    is_keyframe,
                    has_other_tracks,
                    body,
                }));
            }
            body.skip(size);
        }
        Some(Self::OtherTrack)
    }
}

/// Takes the first bytes off; `None` if there are fewer.
fn take<const N: usize>(body: &mut ByteChain) -> Option<[u8; N]> {
    let bytes = body.first_chunk()?;
    body.skip(N);
    Some(bytes)
}

/// Skips a modifier in front of the packet; returns the packet type that follows it.
fn skip_modifier(body: &mut ByteChain) -> Option<u8> {
    // One byte less than the size, or 255 and then a size of 16 bits.
    let size = match take::<1>(body)? {
        [255] => usize::from(u16::from_be_bytes(take(body)?)) + 1,
        [short] => usize::from(short) + 1,
    };
    if body.len() < size {
        return None;
    }
    body.skip(size);
    Some(take::<1>(body)?[0] & 0x0f)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn video(body: &'static [u8]) -> Option<ExMessage> {
        ExMessage::parse_video(Bytes::from_static(body).into())
    }

    fn packet(packet_type: u8, four_cc: [u8; 4], is_keyframe: bool, body: &'static [u8]) -> ExMessage {
        let body = Bytes::from_static(body).into();
        let four_cc = FourCc(four_cc);
        let has_other_tracks = false;
        ExMessage::Packet(ExPacket { packet_type, four_cc, is_keyframe, has_other_tracks, body })
    }

    #[test]
    fn extended_header_gives_packet_type_codec_and_body() {
        assert_eq!(video(b"\x90hvc1...."), Some(packet(0, *b"hvc1", true, b"....")));
        assert_eq!(video(b"\xa1av01...."), Some(packet(1, *b"av01", false, b"....")));
        assert_eq!(video(b"\x97\x02abc\x01avc1x"), Some(packet(1, *b"avc1", true, b"x")), "a modifier");
        assert_eq!(video(b"\xd1\x00"), Some(ExMessage::Command));
        assert_eq!(
            video(b"\xd4avc1\x02"),
            Some(packet(4, *b"avc1", false, b"\x02")),
            "metadata of a command"
        );
        assert_eq!(video(b"\x91hv"), None);
        let audio = ExMessage::parse_audio(Bytes::from_static(b"\x90Opus...").into());
        assert_eq!(audio, Some(packet(0, *b"Opus", false, b"...")));
    }

    #[test]
    fn track_0_is_taken_of_several_tracks() {
        assert_eq!(video(b"\x96\x01avc1\x00abc"), Some(packet(1, *b"avc1", true, b"abc")), "one track");
        assert_eq!(video(b"\x96\x01avc1\x01abc"), Some(ExMessage::OtherTrack));
        let many = [
            &b"\x96\x11avc1\x01\0\0\x02xx\x00\0\0\x03abc"[..],
            b"\x96\x11avc1\x00\0\0\x03abc\x01\0\0\x02xx",
            b"\x96\x21hvc1\x01\0\0\x02xxavc1\x00\0\0\x03abc",
        ];
        for body in many {
            let Some(ExMessage::Packet(packet)) = video(body) else { panic!("{body:?}") };
            assert_eq!((packet.four_cc, packet.body), (FourCc(*b"avc1"), Bytes::from_static(b"abc").into()));
            assert!(packet.has_other_tracks);
        }
        assert_eq!(video(b"\x96\x11avc1\x00\0\0\x09abc"), None);
    }

    #[test]
    fn four_cc_is_shown_with_the_name_of_its_codec() {
        assert_eq!(FourCc(*b"hvc1").to_string(), "HEVC (hvc1)");
        assert_eq!(FourCc(*b".mp3").to_string(), "MP3 (.mp3)");
        assert_eq!(FourCc([0, b'x', 255, b'y']).to_string(), "unknown codec (\\x00x\\xffy)");
    }

    proptest! {
        #[test]
        fn garbage_never_panics(data in prop::collection::vec(any::<u8>(), 0..80), modifiers in 0usize..20, tracks: u8) {
            let _ = ExMessage::parse_video(data.clone().into());
            let _ = ExMessage::parse_audio(data.clone().into());
            let modified = [&[0x97][..], &[0, 9, 7].repeat(modifiers), &data].concat();
            let _ = ExMessage::parse_video(modified.into());
            let several = [&[0x96, tracks % 48][..], b"avc1", &data].concat();
            let _ = ExMessage::parse_video(several.into());
        }
    }
}
