//! The units that flow through the system and the codec configuration they need.

use std::fmt;

use bytes::Bytes;

use crate::codec::aac::{AacError, AudioSpecificConfig};
use crate::codec::h264::{AvcConfig, H264Error};
use crate::time::Timescale;
use millrace_buf::ByteChain;

/// Timescale of every video timestamp: 90 000 ticks a second.
pub const VIDEO_TIMESCALE: Timescale = Timescale::VIDEO;

/// Samples in one AAC-LC access unit (ISO/IEC 14496-3 §4.5.2.1.1).
pub const AAC_FRAME_SAMPLES: u32 = 1024;

/// Which of the two elementary streams something belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TrackKind {
    /// H.264.
    Video,
    /// AAC.
    Audio,
}

impl TrackKind {
    /// `"video"` or `"audio"`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Video => "video",
            Self::Audio => "audio",
        }
    }
}

impl fmt::Display for TrackKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a decoder must know before the first access unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VideoConfig {
    /// AVCDecoderConfigurationRecord (ISO/IEC 14496-15 §5.3.3.1), as the publisher sent it.
    pub avcc: Bytes,
    /// Luma width after cropping, in pixels.
    pub width: u32,
    /// Luma height after cropping, in pixels.
    pub height: u32,
    /// Frames per second as a fraction, when the SPS tells (VUI timing).
    pub frame_rate: Option<(u32, u32)>,
    /// RFC 6381 codec string, such as `avc1.64001f`.
    pub codec: String,
    /// Bytes of a NAL unit's length prefix in the access units: 1, 2 or 4.
    pub nal_length_size: u8,
}

impl VideoConfig {
    /// Reads an AVCDecoderConfigurationRecord and its first SPS.
    pub fn from_avcc(avcc: Bytes) -> Result<Self, H264Error> {
        let parsed = AvcConfig::parse(&avcc)?;
        Ok(Self {
            width: parsed.sps.width,
            height: parsed.sps.height,
            frame_rate: parsed.sps.frame_rate,
            codec: parsed.codec(),
            nal_length_size: parsed.nal_length_size,
            avcc,
        })
    }
}

/// What an AAC decoder must know before the first frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudioConfig {
    /// AudioSpecificConfig (ISO/IEC 14496-3 §1.6.2.1), as the publisher sent it.
    pub asc: Bytes,
    /// Sampling rate in Hz, which is the track's timescale too.
    pub rate: u32,
    /// Channels, 1 to 8.
    pub channels: u8,
    /// RFC 6381 codec string, such as `mp4a.40.2`.
    pub codec: String,
}

impl AudioConfig {
    /// Reads an AudioSpecificConfig.
    pub fn from_asc(asc: Bytes) -> Result<Self, AacError> {
        let parsed = AudioSpecificConfig::parse(&asc)?;
        Ok(Self { rate: parsed.rate, channels: parsed.channels, codec: parsed.codec(), asc })
    }

    /// AAC-LC of this rate and channel count: for a publisher that announces audio (metadata) and sends none yet.
    pub fn aac_lc(rate: u32, channels: u8) -> Result<Self, AacError> {
        Self::from_asc(AudioSpecificConfig::aac_lc(rate, channels)?)
    }

    /// Whether a decoder set up with either decodes the other's frames: the records are the same, but for an extension
    /// that says no more than that there is none.
    pub fn same_decoder(&self, other: &Self) -> bool {
        without_empty_extension(&self.asc) == without_empty_extension(&other.asc)
    }

    /// The track's timescale: its sampling rate.
    pub const fn timescale(&self) -> Timescale {
        Timescale::of_rate(self.rate)
    }
}

/// An AudioSpecificConfig of AAC-LC without the sync extension that encoders append to say that there is no SBR
/// (ISO/IEC 14496-3 §1.6.5.3: syncExtensionType 0x2b7, object type 5, sbrPresentFlag 0).
fn without_empty_extension(asc: &[u8]) -> &[u8] {
    match asc {
        // Two bytes are the whole record but for a rate that is spelled out (index 15).
        [first, second, 0x56, 0xe5, 0x00] if first & 7 != 7 || second & 0x80 == 0 => &asc[..2],
        _ => asc,
    }
}

/// The configuration of either track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrackConfig {
    /// H.264.
    Video(VideoConfig),
    /// AAC.
    Audio(AudioConfig),
}

impl TrackConfig {
    /// The track it configures.
    pub const fn track(&self) -> TrackKind {
        match self {
            Self::Video(_) => TrackKind::Video,
            Self::Audio(_) => TrackKind::Audio,
        }
    }

    /// RFC 6381 codec string.
    pub fn codec(&self) -> &str {
        match self {
            Self::Video(config) => &config.codec,
            Self::Audio(config) => &config.codec,
        }
    }
}

/// One coded picture.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessUnit {
    /// Decoding time in 90 kHz ticks, unwrapped and strictly increasing.
    pub dts: i64,
    /// Presentation time minus decoding time in 90 kHz ticks; negative is legal.
    pub cts: i32,
    /// True when decoding can start here (IDR).
    pub keyframe: bool,
    /// NAL units with length prefixes (AVCC), byte for byte as published.
    pub data: ByteChain,
}

impl AccessUnit {
    /// Presentation time in 90 kHz ticks.
    pub const fn pts(&self) -> i64 {
        self.dts + self.cts as i64
    }
}

impl fmt::Debug for AccessUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = if self.keyframe { " key" } else { "" };
        write!(f, "AccessUnit(dts {} cts {}{key} {} bytes)", self.dts, self.cts, self.data.len())
    }
}

/// One AAC access unit (1024 samples for AAC-LC), without ADTS header.
#[derive(Clone, PartialEq, Eq)]
pub struct AudioFrame {
    /// Presentation time in samples of the track's rate.
    pub pts: i64,
    /// The raw data block, byte for byte as published.
    pub data: ByteChain,
}

impl fmt::Debug for AudioFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AudioFrame(pts {} {} bytes)", self.pts, self.data.len())
    }
}

/// A unit of either track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediaFrame {
    /// A coded picture.
    Video(AccessUnit),
    /// A coded audio frame.
    Audio(AudioFrame),
}

impl MediaFrame {
    /// The track it belongs to.
    pub const fn track(&self) -> TrackKind {
        match self {
            Self::Video(_) => TrackKind::Video,
            Self::Audio(_) => TrackKind::Audio,
        }
    }

    /// The coded bytes.
    pub const fn data(&self) -> &ByteChain {
        match self {
            Self::Video(unit) => &unit.data,
            Self::Audio(frame) => &frame.data,
        }
    }
}

/// What ingest decided about a unit; carried with it, never decided again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SegmentTag {
    /// Media sequence number of the segment the unit belongs to.
    pub msn: u64,
    /// The segment follows a discontinuity. Set on the segment's boundary unit only.
    pub discontinuity: bool,
    /// First unit of its segment over both tracks; its time is the segment's start.
    pub boundary: bool,
    /// A decoder can start at this unit. On a boundary unit: the segment is independent.
    pub independent: bool,
    /// Version of the init segment of the unit's track.
    pub init_version: u32,
}

/// A unit with ingest's decisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaggedFrame {
    /// Ingest's decisions.
    pub stamp: SegmentTag,
    /// The unit.
    pub unit: MediaFrame,
}

/// What the segmenter gives and the packager takes, in one total order per stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediaEvent {
    /// From here on units with this `init_version` may come; sent again with the same content to those who join late.
    Init {
        /// Version of this track's init segment, growing by one from 0 within an epoch.
        version: u32,
        /// The configuration.
        config: TrackConfig,
    },
    /// A unit.
    Frame(TaggedFrame),
}
