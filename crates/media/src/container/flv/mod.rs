//! Bodies of RTMP audio and video messages, which are FLV tag bodies (Adobe FLV 10.1, §E.4.2 and
//! §E.4.3).
//!
//! H.264, AAC and MP3 are read, in FLV's own headers and in the extended ones of Enhanced RTMP. Any
//! other codec is an error that names the codec and the setting to change.

pub mod enhanced;
pub mod file;

use std::fmt;

use bytes::Bytes;
use millrace_buf::ByteChain;

use enhanced::{ExMessage, ExPacket, FourCc};

use crate::frame::TrackKind;

/// An error in a tag body, or a codec that is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FlvError {
    /// Fewer bytes than the header needs.
    #[error("{0} body is truncated")]
    Truncated(&'static str),
    /// A video codec other than H.264.
    #[error("{0} is not accepted: choose H.264 in the encoder")]
    VideoCodec(CodecId),
    /// Video other than H.264 in an extended header of Enhanced RTMP.
    #[error("{0} over enhanced RTMP is not accepted: choose H.264 in the encoder")]
    EnhancedVideo(FourCc),
    /// An audio codec other than AAC and MP3.
    #[error("{0} is not accepted: choose AAC in the encoder")]
    AudioCodec(SoundFormat),
    /// Audio other than AAC and MP3 in an extended header of Enhanced RTMP.
    #[error("{0} over enhanced RTMP is not accepted: choose AAC in the encoder")]
    EnhancedAudio(FourCc),
    /// A packet type that FLV reserves.
    #[error("reserved {0} packet type {1}")]
    PacketType(&'static str, u8),
    /// Bytes that are no FLV file.
    #[error("malformed FLV file: {0}")]
    File(&'static str),
}

impl FlvError {
    /// True if the message is well-formed but of a codec that is not accepted, so that no later
    /// message will do either.
    pub const fn is_codec_refusal(&self) -> bool {
        matches!(
            self,
            Self::VideoCodec(_) | Self::EnhancedVideo(_) | Self::AudioCodec(_) | Self::EnhancedAudio(_)
        )
    }
}

/// The video codec of a tag (`CodecID`, Adobe FLV 10.1 §E.4.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodecId(pub u8);

impl fmt::Display for CodecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            2 => "Sorenson H.263",
            3 | 6 => "Screen Video",
            4 | 5 => "VP6",
            7 => "H.264",
            // Two numbers that are in wide use without being part of the specification.
            12 => "HEVC",
            13 => "AV1",
            _ => "unknown video codec",
        };
        write!(f, "{name} (FLV codec {})", self.0)
    }
}

/// The audio codec of a tag (`SoundFormat`, Adobe FLV 10.1 §E.4.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SoundFormat(pub u8);

impl fmt::Display for SoundFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            0 | 3 => "PCM",
            1 => "ADPCM",
            2 | 14 => "MP3",
            4..=6 => "Nellymoser",
            7 | 8 => "G.711",
            10 => "AAC",
            11 => "Speex",
            13 => "Opus",
            _ => "unknown audio codec",
        };
        write!(f, "{name} (FLV sound format {})", self.0)
    }
}

/// True if a message of this track holds packets of other tracks beside track 0, which alone is read.
pub fn has_other_tracks(track: TrackKind, body: &ByteChain) -> bool {
    let Some([first]) = body.first_chunk() else { return false };
    let is_extended = match track {
        TrackKind::Video => first & 0x80 != 0,
        TrackKind::Audio => first >> 4 == SOUND_EX_HEADER,
    };
    if !is_extended || !enhanced::may_have_tracks(first & 0x0f) {
        return false;
    }
    let message = match track {
        TrackKind::Video => ExMessage::parse_video(body.clone()),
        TrackKind::Audio => ExMessage::parse_audio(body.clone()),
    };
    matches!(message, Some(ExMessage::Packet(packet)) if packet.has_other_tracks)
}

/// The content of a video message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlvVideo {
    /// The configuration, an AVCDecoderConfigurationRecord.
    SequenceHeader(Bytes),
    /// One access unit of the video.
    Nalus {
        /// Composition time offset in milliseconds.
        cts_ms: i32,
        /// True if the encoder marked a keyframe (frame type 1).
        keyframe: bool,
        /// NAL units with length prefixes; shares the message's memory.
        data: ByteChain,
    },
    /// The end of the video sequence.
    EndOfSequence,
    /// A message that is not used.
    Unused(Unused),
}

/// The content of a message that is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unused {
    /// A header without media behind it.
    Empty,
    /// Tracks of a multitrack publish other than track 0.
    OtherTrack,
    /// Metadata of the track, such as the colours of a picture or the order of channels.
    Metadata,
}

/// The content of an audio message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlvAudio {
    /// The configuration, an AudioSpecificConfig.
    SequenceHeader(Bytes),
    /// An AAC access unit; shares the message's memory.
    Raw(ByteChain),
    /// MP3 frames, each with its header; shares the message's memory.
    Mp3(ByteChain),
    /// The end of the audio sequence.
    EndOfSequence,
    /// A message that is not used.
    Unused(Unused),
}

const CODEC_AVC: u8 = 7;
/// MP3 at the rate of its frame headers, and MP3 of 8 kHz.
const SOUND_MP3: [u8; 2] = [2, 14];
const SOUND_AAC: u8 = 10;
const SOUND_EX_HEADER: u8 = 9;
const FRAME_KEY: u8 = 1;
const FRAME_COMMAND: u8 = 5;

impl FlvVideo {
    /// Reads the payload of a video message; `None` if it carries no media (it is empty, or a
    /// client command).
    pub fn parse(body: impl Into<ByteChain>) -> Result<Option<Self>, FlvError> {
        let mut body = body.into();
        let Some([first]) = body.first_chunk() else { return Ok(None) };
        if first & 0x80 != 0 {
            return match ExMessage::parse_video(body).ok_or(FlvError::Truncated("video"))? {
                ExMessage::Packet(packet) => Self::of_packet(packet).map(Some),
                ExMessage::OtherTrack => Ok(Some(Self::Unused(Unused::OtherTrack))),
                ExMessage::Command => Ok(None),
            };
        }
        let (frame_type, codec) = (first >> 4, first & 0x0f);
        if frame_type == FRAME_COMMAND {
            return Ok(None);
        }
        if codec != CODEC_AVC {
            return Err(FlvError::VideoCodec(CodecId(codec)));
        }
        let Some([_, packet_type, cts @ ..]) = body.first_chunk::<5>() else {
            return Err(FlvError::Truncated("video"));
        };
        let [high, middle, low] = cts;
        let cts_ms = signed_24([high, middle, low]);
        body.skip(5);
        match packet_type {
            0 => Ok(Some(Self::SequenceHeader(body.contiguous()))),
            1 if body.is_empty() => Ok(Some(Self::Unused(Unused::Empty))),
            1 => Ok(Some(Self::Nalus { cts_ms, keyframe: frame_type == FRAME_KEY, data: body })),
            2 => Ok(Some(Self::EndOfSequence)),
            other => Err(FlvError::PacketType("video", other)),
        }
    }

    /// Reads a packet behind an extended header.
    fn of_packet(packet: ExPacket) -> Result<Self, FlvError> {
        let ExPacket { packet_type, four_cc, is_keyframe: keyframe, mut body, .. } = packet;
        // The colours that precede the first configuration tell nothing of the codec.
        if packet_type == enhanced::METADATA {
            return Ok(Self::Unused(Unused::Metadata));
        }
        if four_cc != FourCc(*b"avc1") {
            return Err(FlvError::EnhancedVideo(four_cc));
        }
        let mut cts_ms = 0;
        if packet_type == enhanced::CODED_FRAMES {
            cts_ms = signed_24(body.first_chunk().ok_or(FlvError::Truncated("video"))?);
            body.skip(3);
        }
        match packet_type {
            enhanced::SEQUENCE_START => Ok(Self::SequenceHeader(body.contiguous())),
            enhanced::CODED_FRAMES | enhanced::CODED_FRAMES_X if body.is_empty() => {
                Ok(Self::Unused(Unused::Empty))
            }
            enhanced::CODED_FRAMES | enhanced::CODED_FRAMES_X => {
                Ok(Self::Nalus { cts_ms, keyframe, data: body })
            }
            enhanced::SEQUENCE_END => Ok(Self::EndOfSequence),
            other => Err(FlvError::PacketType("video", other)),
        }
    }
}

/// Returns a signed number of 24 bits (SI24).
const fn signed_24([high, middle, low]: [u8; 3]) -> i32 {
    i32::from_be_bytes([high, middle, low, 0]) >> 8
}

impl FlvAudio {
    /// Reads the payload of an audio message; `None` if it carries no media.
    pub fn parse(body: impl Into<ByteChain>) -> Result<Option<Self>, FlvError> {
        let mut body = body.into();
        let Some([first]) = body.first_chunk() else { return Ok(None) };
        let format = first >> 4;
        if format == SOUND_EX_HEADER {
            return match ExMessage::parse_audio(body).ok_or(FlvError::Truncated("audio"))? {
                ExMessage::Packet(packet) => Self::of_packet(packet).map(Some),
                ExMessage::OtherTrack => Ok(Some(Self::Unused(Unused::OtherTrack))),
                ExMessage::Command => Ok(None),
            };
        }
        if SOUND_MP3.contains(&format) {
            body.skip(1);
            return Ok(Some(Self::mp3(body)));
        }
        if format != SOUND_AAC {
            return Err(FlvError::AudioCodec(SoundFormat(format)));
        }
        let Some([_, packet_type]) = body.first_chunk() else { return Err(FlvError::Truncated("audio")) };
        body.skip(2);
        match packet_type {
            0 => Ok(Some(Self::SequenceHeader(body.contiguous()))),
            1 if body.is_empty() => Ok(Some(Self::Unused(Unused::Empty))),
            1 => Ok(Some(Self::Raw(body))),
            other => Err(FlvError::PacketType("audio", other)),
        }
    }

    /// Reads a packet behind an extended header.
    fn of_packet(packet: ExPacket) -> Result<Self, FlvError> {
        let ExPacket { packet_type, four_cc, body, .. } = packet;
        if packet_type == enhanced::METADATA {
            return Ok(Self::Unused(Unused::Metadata));
        }
        let is_mp3 = four_cc == FourCc(*b".mp3");
        if !is_mp3 && four_cc != FourCc(*b"mp4a") {
            return Err(FlvError::EnhancedAudio(four_cc));
        }
        match packet_type {
            // MP3 has no configuration beside its frame headers: there is nothing to count as left out.
            enhanced::SEQUENCE_START if is_mp3 => Ok(Self::EndOfSequence),
            enhanced::CODED_FRAMES if is_mp3 => Ok(Self::mp3(body)),
            enhanced::SEQUENCE_START => Ok(Self::SequenceHeader(body.contiguous())),
            enhanced::CODED_FRAMES if body.is_empty() => Ok(Self::Unused(Unused::Empty)),
            enhanced::CODED_FRAMES => Ok(Self::Raw(body)),
            enhanced::SEQUENCE_END => Ok(Self::EndOfSequence),
            other => Err(FlvError::PacketType("audio", other)),
        }
    }

    fn mp3(frames: ByteChain) -> Self {
        if frames.is_empty() { Self::Unused(Unused::Empty) } else { Self::Mp3(frames) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn video_body_gives_configuration_access_unit_or_error() {
        let parse = |body: &'static [u8]| FlvVideo::parse(Bytes::from_static(body));
        assert_eq!(
            parse(&[0x17, 0, 0, 0, 0, 1, 2]),
            Ok(Some(FlvVideo::SequenceHeader(Bytes::from_static(&[1, 2]))))
        );
        let data = || ByteChain::from(Bytes::from_static(&[9]));
        let nalus = |cts_ms, keyframe| FlvVideo::Nalus { cts_ms, keyframe, data: data() };
        assert_eq!(parse(&[0x17, 1, 0, 0, 67, 9]), Ok(Some(nalus(67, true))));
        assert_eq!(parse(&[0x27, 1, 0xff, 0xff, 0xfe, 9]), Ok(Some(nalus(-2, false))));
        assert_eq!(parse(&[0x17, 2, 0, 0, 0]), Ok(Some(FlvVideo::EndOfSequence)));
        assert_eq!(parse(&[]), Ok(None));
        assert_eq!(parse(&[0x57, 0]), Ok(None));
        assert_eq!(parse(&[0x22, 0]), Err(FlvError::VideoCodec(CodecId(2))));
        assert_eq!(parse(b"\x91hvc1"), Err(FlvError::EnhancedVideo(FourCc(*b"hvc1"))));
        assert_eq!(parse(b"\xd1\x00"), Ok(None));
        assert_eq!(parse(b"\x91hv"), Err(FlvError::Truncated("video")));
        assert_eq!(parse(&[0x17, 1, 0]), Err(FlvError::Truncated("video")));
        assert_eq!(parse(&[0x17, 3, 0, 0, 0]), Err(FlvError::PacketType("video", 3)));
        assert_eq!(parse(&[0x27, 1, 0, 0, 0]), Ok(Some(FlvVideo::Unused(Unused::Empty))));
    }

    #[test]
    fn audio_body_gives_configuration_frame_or_error() {
        let parse = |body: &'static [u8]| FlvAudio::parse(Bytes::from_static(body));
        assert_eq!(
            parse(&[0xaf, 0, 0x11, 0x90]),
            Ok(Some(FlvAudio::SequenceHeader(Bytes::from_static(&[0x11, 0x90]))))
        );
        assert_eq!(parse(&[0xaf, 1, 7]), Ok(Some(FlvAudio::Raw(Bytes::from_static(&[7]).into()))));
        assert_eq!(parse(&[0xaf, 1]), Ok(Some(FlvAudio::Unused(Unused::Empty))));
        assert_eq!(parse(&[]), Ok(None));
        assert_eq!(parse(&[0x2f, 1]), Ok(Some(FlvAudio::Mp3(Bytes::from_static(&[1]).into()))));
        assert_eq!(parse(&[0xe2, 1]), Ok(Some(FlvAudio::Mp3(Bytes::from_static(&[1]).into()))));
        assert_eq!(parse(&[0x2f]), Ok(Some(FlvAudio::Unused(Unused::Empty))));
        assert_eq!(parse(&[0x6f, 1]), Err(FlvError::AudioCodec(SoundFormat(6))));
        assert_eq!(parse(&[0xaf]), Err(FlvError::Truncated("audio")));
    }

    #[test]
    fn h264_aac_and_mp3_are_read_behind_extended_headers() {
        let video = |body: &'static [u8]| FlvVideo::parse(Bytes::from_static(body));
        let data = || ByteChain::from(Bytes::from_static(&[9]));
        let nalus = |cts_ms, keyframe| Ok(Some(FlvVideo::Nalus { cts_ms, keyframe, data: data() }));
        let header = FlvVideo::SequenceHeader(Bytes::from_static(&[1, 2]));
        assert_eq!(video(b"\x90avc1\x01\x02"), Ok(Some(header)));
        assert_eq!(video(b"\x91avc1\0\0\x43\x09"), nalus(67, true));
        assert_eq!(video(b"\xa1avc1\xff\xff\xfe\x09"), nalus(-2, false));
        assert_eq!(video(b"\xa3avc1\x09"), nalus(0, false), "without a composition offset");
        assert_eq!(video(b"\x96\x01avc1\0\0\0\x43\x09"), nalus(67, true), "one track");
        assert_eq!(video(b"\x92avc1"), Ok(Some(FlvVideo::EndOfSequence)));
        assert_eq!(video(b"\x94avc1\x02\0"), Ok(Some(FlvVideo::Unused(Unused::Metadata))));
        assert_eq!(video(b"\x94hvc1\x02\0"), Ok(Some(FlvVideo::Unused(Unused::Metadata))));
        assert_eq!(video(b"\x96\x01hvc1\x01x"), Ok(Some(FlvVideo::Unused(Unused::OtherTrack))));
        assert_eq!(video(b"\x91avc1\0\0\0"), Ok(Some(FlvVideo::Unused(Unused::Empty))));
        assert_eq!(video(b"\x91avc1\0"), Err(FlvError::Truncated("video")));
        assert_eq!(video(b"\x95avc1"), Err(FlvError::PacketType("video", 5)));
        let audio = |body: &'static [u8]| FlvAudio::parse(Bytes::from_static(body)).map(Option::unwrap);
        let header = FlvAudio::SequenceHeader(Bytes::from_static(&[0x11, 0x90]));
        assert_eq!(audio(b"\x90mp4a\x11\x90"), Ok(header));
        assert_eq!(audio(b"\x91mp4a\x09"), Ok(FlvAudio::Raw(data())));
        assert_eq!(audio(b"\x95\x01mp4a\0\x09"), Ok(FlvAudio::Raw(data())), "one track");
        assert_eq!(audio(b"\x92mp4a"), Ok(FlvAudio::EndOfSequence));
        assert_eq!(audio(b"\x94mp4a\x01\x02"), Ok(FlvAudio::Unused(Unused::Metadata)));
        assert_eq!(audio(b"\x91mp4a"), Ok(FlvAudio::Unused(Unused::Empty)));
        assert_eq!(audio(b"\x90.mp3"), Ok(FlvAudio::EndOfSequence));
        assert_eq!(audio(b"\x91.mp3\x09"), Ok(FlvAudio::Mp3(data())));
    }

    #[test]
    fn codec_that_is_not_accepted_is_named_with_the_setting_to_change() {
        let video = |body: &'static [u8]| FlvVideo::parse(Bytes::from_static(body)).unwrap_err();
        let audio = |body: &'static [u8]| FlvAudio::parse(Bytes::from_static(body)).unwrap_err();
        for (error, text) in [
            (
                video(b"\x90hvc1"),
                "HEVC (hvc1) over enhanced RTMP is not accepted: choose H.264 in the encoder",
            ),
            (
                video(b"\x90av01"),
                "AV1 (av01) over enhanced RTMP is not accepted: choose H.264 in the encoder",
            ),
            (video(&[0x1c, 0]), "HEVC (FLV codec 12) is not accepted: choose H.264 in the encoder"),
            (audio(b"\x90Opus"), "Opus (Opus) over enhanced RTMP is not accepted: choose AAC in the encoder"),
            (audio(b"\x90fLaC"), "FLAC (fLaC) over enhanced RTMP is not accepted: choose AAC in the encoder"),
            (audio(&[0xbf, 1]), "Speex (FLV sound format 11) is not accepted: choose AAC in the encoder"),
        ] {
            assert_eq!(error.to_string(), text);
            assert!(error.is_codec_refusal());
        }
        assert!(!video(&[0x17, 1, 0]).is_codec_refusal());
    }

    #[test]
    fn access_unit_shares_the_memory_of_its_message() {
        let body = Bytes::from(vec![0x17, 1, 0, 0, 0, 1, 2, 3]);
        let Ok(Some(FlvVideo::Nalus { data, .. })) = FlvVideo::parse(body.clone()) else { panic!() };
        assert_eq!(data.contiguous().as_ptr(), body[5..].as_ptr());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(data in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = FlvVideo::parse(Bytes::from(data.clone()));
            let _ = FlvAudio::parse(Bytes::from(data));
        }
    }
}
