//! Bodies of RTMP audio and video messages, which are FLV tag bodies (Adobe FLV 10.1, §E.4.2 and §E.4.3).

pub mod file;

use bytes::Bytes;

use millrace_buf::ByteChain;

/// Why a tag body was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FlvError {
    /// Fewer bytes than the header needs.
    #[error("{0} body is truncated")]
    Truncated(&'static str),
    /// A codec other than H.264 (`CodecID`), which this system does not carry.
    #[error("video codec {0} is not H.264")]
    VideoCodec(u8),
    /// An Enhanced RTMP video packet (`IsExHeader`) of this codec.
    #[error("enhanced RTMP video {0:?} is not supported")]
    EnhancedVideo([u8; 4]),
    /// A codec other than AAC (`SoundFormat`).
    #[error("audio codec {0} is not AAC")]
    AudioCodec(u8),
    /// A reserved packet type.
    #[error("reserved {0} packet type {1}")]
    PacketType(&'static str, u8),
    /// Not an FLV file, or a broken one.
    #[error("malformed FLV file: {0}")]
    File(&'static str),
}

/// A video message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlvVideo {
    /// AVCDecoderConfigurationRecord.
    SequenceHeader(Bytes),
    /// One access unit.
    Nalus {
        /// Composition time offset in milliseconds.
        cts_ms: i32,
        /// Frame type 1 (seekable frame).
        keyframe: bool,
        /// NAL units with length prefixes; shares the message's memory.
        data: ByteChain,
    },
    /// End of sequence.
    EndOfSequence,
}

/// An audio message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlvAudio {
    /// AudioSpecificConfig.
    SequenceHeader(Bytes),
    /// One AAC access unit; shares the message's memory.
    Raw(ByteChain),
}

const CODEC_AVC: u8 = 7;
const SOUND_AAC: u8 = 10;
const FRAME_KEY: u8 = 1;
const FRAME_COMMAND: u8 = 5;

impl FlvVideo {
    /// Reads a video message's payload. `None`: a message without media (empty, or a client-side seek command).
    pub fn parse(body: impl Into<ByteChain>) -> Result<Option<Self>, FlvError> {
        let mut body = body.into();
        let Some([first]) = body.first_chunk() else { return Ok(None) };
        let head = body.first_chunk::<5>();
        if first & 0x80 != 0 {
            let Some([_, four_cc @ ..]) = head else { return Err(FlvError::Truncated("video")) };
            return Err(FlvError::EnhancedVideo(four_cc));
        }
        let (frame_type, codec) = (first >> 4, first & 0x0f);
        if frame_type == FRAME_COMMAND {
            return Ok(None);
        }
        if codec != CODEC_AVC {
            return Err(FlvError::VideoCodec(codec));
        }
        let Some([_, packet_type, a, b, c]) = head else {
            return Err(FlvError::Truncated("video"));
        };
        let cts_ms = i32::from_be_bytes([a, b, c, 0]) >> 8; // SI24
        body.skip(5);
        match packet_type {
            0 => Ok(Some(Self::SequenceHeader(body.contiguous()))),
            1 if body.is_empty() => Ok(None),
            1 => Ok(Some(Self::Nalus { cts_ms, keyframe: frame_type == FRAME_KEY, data: body })),
            2 => Ok(Some(Self::EndOfSequence)),
            other => Err(FlvError::PacketType("video", other)),
        }
    }
}

impl FlvAudio {
    /// Reads an audio message's payload. `None`: a message without media.
    pub fn parse(body: impl Into<ByteChain>) -> Result<Option<Self>, FlvError> {
        let mut body = body.into();
        let Some([first]) = body.first_chunk() else { return Ok(None) };
        let format = first >> 4;
        if format != SOUND_AAC {
            return Err(FlvError::AudioCodec(format));
        }
        let Some([_, packet_type]) = body.first_chunk() else { return Err(FlvError::Truncated("audio")) };
        body.skip(2);
        match packet_type {
            0 => Ok(Some(Self::SequenceHeader(body.contiguous()))),
            1 if body.is_empty() => Ok(None),
            1 => Ok(Some(Self::Raw(body))),
            other => Err(FlvError::PacketType("audio", other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_video_bodies() {
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
        assert_eq!(parse(&[0x22, 0]), Err(FlvError::VideoCodec(2)));
        assert_eq!(parse(b"\x91hvc1"), Err(FlvError::EnhancedVideo(*b"hvc1")));
        assert_eq!(parse(&[0x17, 1, 0]), Err(FlvError::Truncated("video")));
        assert_eq!(parse(&[0x17, 3, 0, 0, 0]), Err(FlvError::PacketType("video", 3)));
    }

    #[test]
    fn reads_audio_bodies() {
        let parse = |body: &'static [u8]| FlvAudio::parse(Bytes::from_static(body));
        assert_eq!(
            parse(&[0xaf, 0, 0x11, 0x90]),
            Ok(Some(FlvAudio::SequenceHeader(Bytes::from_static(&[0x11, 0x90]))))
        );
        assert_eq!(parse(&[0xaf, 1, 7]), Ok(Some(FlvAudio::Raw(Bytes::from_static(&[7]).into()))));
        assert_eq!(parse(&[0xaf, 1]), Ok(None));
        assert_eq!(parse(&[]), Ok(None));
        assert_eq!(parse(&[0x2f, 1]), Err(FlvError::AudioCodec(2)));
        assert_eq!(parse(&[0xaf]), Err(FlvError::Truncated("audio")));
    }

    #[test]
    fn shares_the_messages_memory() {
        let body = Bytes::from(vec![0x17, 1, 0, 0, 0, 1, 2, 3]);
        let Ok(Some(FlvVideo::Nalus { data, .. })) = FlvVideo::parse(body.clone()) else { panic!() };
        assert_eq!(data.contiguous().as_ptr(), body[5..].as_ptr());
    }

    proptest! {
        #[test]
        fn never_panics(data in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = FlvVideo::parse(Bytes::from(data.clone()));
            let _ = FlvAudio::parse(Bytes::from(data));
        }
    }
}
