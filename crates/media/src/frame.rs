//! The media model: codec configurations, coded frames, and the segment tags that ingest gives
//! them.

use std::fmt;

use bytes::Bytes;
use millrace_buf::ByteChain;

use crate::codec::aac::{self, AacError, AudioSpecificConfig};
use crate::codec::av1::{self, Av1Config};
use crate::codec::h264::{self, AvcConfig};
use crate::codec::hevc::{self, HevcConfig};
use crate::codec::mp3::Mp3Header;
use crate::codec::opus::{self, OpusConfig};
pub use crate::codec::sync::SyncKind;
use crate::codec::{AudioCodec, CodecError, VideoCodec};
use crate::time::Timescale;

/// One of the two elementary streams of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TrackKind {
    /// The video track; its times are in 90 kHz ticks.
    Video,
    /// The audio track; its times are in samples.
    Audio,
}

impl TrackKind {
    /// Returns the name of the track: `"video"` or `"audio"`.
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

/// The configuration that a video decoder needs before the first access unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VideoConfig {
    /// The codec, which decides the form of `record` and of the access units.
    pub codec: VideoCodec,
    /// The configuration record as the publisher sent it: the content of an `avcC`, `hvcC` or
    /// `av1C` box.
    pub record: Bytes,
    /// RFC 6381 codec string for CODECS, such as `avc1.64001f`.
    pub codecs: String,
    /// Luma width after cropping, in pixels.
    pub width: u32,
    /// Luma height after cropping, in pixels.
    pub height: u32,
    /// Width and height of a pixel as a fraction: 1:1 is a square (HEVC and AV1 always).
    pub pixel_aspect: (u32, u32),
    /// Frames per second as a fraction, if the record states them.
    pub frame_rate: Option<(u32, u32)>,
    /// Size of a NAL unit's length prefix in the access units in bytes: 1, 2 or 4; 0 for AV1, which
    /// has none.
    pub nal_length_size: u8,
}

impl VideoConfig {
    /// Reads the configuration record of a codec.
    pub fn parse(codec: VideoCodec, record: Bytes) -> Result<Self, CodecError> {
        match codec {
            VideoCodec::H264 => {
                let parsed = AvcConfig::parse(&record)?;
                let (codecs, nal_length_size) = (parsed.codecs(), parsed.nal_length_size);
                let h264::Sps { width, height, pixel_aspect, frame_rate, .. } = parsed.sps;
                Ok(Self { codec, record, codecs, width, height, pixel_aspect, frame_rate, nal_length_size })
            }
            VideoCodec::Hevc => {
                let HevcConfig { codecs, nal_length_size, width, height, pixel_aspect, frame_rate } =
                    HevcConfig::parse(&record)?;
                Ok(Self { codec, record, codecs, width, height, pixel_aspect, frame_rate, nal_length_size })
            }
            VideoCodec::Av1 => {
                let Av1Config { codecs, width, height, frame_rate } = Av1Config::parse(&record)?;
                let (pixel_aspect, nal_length_size) = ((1, 1), 0);
                Ok(Self { codec, record, codecs, width, height, pixel_aspect, frame_rate, nal_length_size })
            }
        }
    }

    /// Reads an AVCDecoderConfigurationRecord (H.264; ISO/IEC 14496-15 §5.3.3.1).
    pub fn from_avcc(record: Bytes) -> Result<Self, CodecError> {
        Self::parse(VideoCodec::H264, record)
    }

    /// Returns the width and height that the pictures are shown in, in square pixels. Pixels that are not
    /// square make the pictures wider or higher, as browsers show them.
    pub fn display_size(&self) -> (u32, u32) {
        let (across, down) = self.pixel_aspect;
        let stretch = |side: u32, by: u32, from: u32| {
            let (side, by, from) = (u64::from(side), u64::from(by), u64::from(from.max(1)));
            u32::try_from((side * by + from / 2) / from).unwrap_or(u32::MAX)
        };
        if across >= down {
            (stretch(self.width, across, down), self.height)
        } else {
            (self.width, stretch(self.height, down, across))
        }
    }

    /// Returns how a decoder can start at this access unit. It is read from the coded bytes, because
    /// the flags of containers are not reliable; `flagged` is the container's flag of a keyframe,
    /// which decides only where the bytes leave it open. An error if the access unit is empty or its
    /// inner lengths do not add up.
    pub fn sync_of(&self, data: &ByteChain, flagged: bool) -> Result<SyncKind, CodecError> {
        Ok(match self.codec {
            VideoCodec::H264 => h264::sync_kind(data, self.nal_length_size, flagged)?,
            VideoCodec::Hevc => hevc::sync_kind(data, self.nal_length_size)?,
            VideoCodec::Av1 if av1::is_keyframe(data)? => SyncKind::Idr,
            VideoCodec::Av1 => SyncKind::None,
        })
    }

    /// True if the access unit has B slices, which may be shown before a picture sent earlier. Only those of
    /// H.264 are recognised.
    pub fn is_bidirectional(&self, data: &ByteChain) -> bool {
        self.codec == VideoCodec::H264 && h264::is_bidirectional(data, self.nal_length_size)
    }
}

/// The configuration that an audio decoder needs before the first frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudioConfig {
    /// The codec, which decides the form of `record` and of the frames.
    pub codec: AudioCodec,
    /// The configuration record. AAC: the AudioSpecificConfig as the publisher sent it, but for
    /// a channel configuration in place of a program config element. Opus: the content of a `dOps` box. MP3, which has no record: a frame header of free bit rate.
    pub record: Bytes,
    /// RFC 6381 codec string for CODECS, such as `mp4a.40.2`.
    pub codecs: String,
    /// Sampling rate in Hz, which is the track's timescale too.
    pub rate: u32,
    /// The number of channels, 1 to 8.
    pub channels: u8,
    /// Samples of each channel in a usual frame. Opus frames may differ from it, see
    /// [`AudioConfig::samples_of`].
    pub frame_samples: u32,
}

impl AudioConfig {
    /// Reads the configuration record of a codec: an AudioSpecificConfig, an `OpusHead` or the
    /// content of a `dOps` box, or an MP3 frame.
    pub fn parse(codec: AudioCodec, record: Bytes) -> Result<Self, CodecError> {
        match codec {
            AudioCodec::Aac => {
                let parsed = AudioSpecificConfig::parse(&record)?;
                let AudioSpecificConfig { rate, channels, .. } = parsed;
                let record = parsed.without_elements().unwrap_or(record);
                let (codecs, frame_samples) = (parsed.codecs(), aac::FRAME_SAMPLES);
                Ok(Self { codec, record, codecs, rate, channels, frame_samples })
            }
            AudioCodec::Opus => {
                let record = opus::to_specific_box(record)?;
                let OpusConfig { channels, .. } = OpusConfig::parse(&record)?;
                let (codecs, frame_samples) = ("opus".to_owned(), opus::USUAL_FRAME_SAMPLES);
                Ok(Self { codec, record, codecs, rate: opus::RATE, channels, frame_samples })
            }
            AudioCodec::Mp3 => {
                let parsed = Mp3Header::parse(&record)?;
                let record = Bytes::copy_from_slice(&parsed.record());
                let Mp3Header { rate, channels, .. } = parsed;
                let (codecs, frame_samples) = (parsed.codecs(), parsed.frame_samples());
                Ok(Self { codec, record, codecs, rate, channels, frame_samples })
            }
        }
    }

    /// Reads an AudioSpecificConfig (AAC; ISO/IEC 14496-3 §1.6.2.1).
    pub fn from_asc(record: Bytes) -> Result<Self, CodecError> {
        Self::parse(AudioCodec::Aac, record)
    }

    /// Returns AAC-LC of this rate and channel count, for a publisher that declares audio and has
    /// not sent any yet.
    pub fn aac_lc(rate: u32, channels: u8) -> Result<Self, AacError> {
        let record = AudioSpecificConfig::aac_lc(rate, channels)?;
        let AudioSpecificConfig { rate, channels, .. } = AudioSpecificConfig::parse(&record)?;
        let (codec, codecs, frame_samples) = (AudioCodec::Aac, "mp4a.40.2".to_owned(), aac::FRAME_SAMPLES);
        Ok(Self { codec, record, codecs, rate, channels, frame_samples })
    }

    /// True if a decoder set up with either configuration decodes the other's frames: the records
    /// are the same, but for an AAC extension which states that there is no extension.
    pub fn same_decoder(&self, other: &Self) -> bool {
        let essential = |config: &Self| match config.codec {
            AudioCodec::Aac => config.record.slice_ref(without_empty_extension(&config.record)),
            AudioCodec::Opus | AudioCodec::Mp3 => config.record.clone(),
        };
        self.codec == other.codec && essential(self) == essential(other)
    }

    /// Returns the track's timescale: its sampling rate.
    pub const fn timescale(&self) -> Timescale {
        Timescale::of_rate(self.rate)
    }

    /// Returns the samples of each channel that a frame decodes to; a malformed Opus packet counts
    /// as a usual one.
    pub fn samples_of(&self, data: &ByteChain) -> u32 {
        match self.codec {
            AudioCodec::Opus => opus::packet_samples(data).unwrap_or(self.frame_samples),
            AudioCodec::Aac | AudioCodec::Mp3 => self.frame_samples,
        }
    }

    /// Returns the duration of a usual frame in 90 kHz ticks, rounded up.
    pub const fn frame_ticks(&self) -> u32 {
        let ticks = self.frame_samples as u64 * Timescale::VIDEO.ticks_per_second() as u64;
        ticks.div_ceil(self.timescale().ticks_per_second() as u64) as u32
    }

    /// Returns a frame of digital silence that this configuration decodes, of
    /// [`AudioConfig::frame_samples`]; `None` if none is known.
    pub fn silent_frame(&self) -> Option<Bytes> {
        match self.codec {
            AudioCodec::Aac => aac::silent_frame(self.channels),
            AudioCodec::Opus | AudioCodec::Mp3 => None,
        }
    }
}

/// Returns an AudioSpecificConfig of AAC-LC without the sync extension that encoders append to
/// signal that there is no SBR (ISO/IEC 14496-3 §1.6.5.3: syncExtensionType 0x2b7, object type 5,
/// sbrPresentFlag 0).
fn without_empty_extension(record: &[u8]) -> &[u8] {
    match record {
        // Two bytes are the whole record but for a rate that is spelled out (index 15).
        [first, second, 0x56, 0xe5, 0x00] if first & 7 != 7 || second & 0x80 == 0 => &record[..2],
        _ => record,
    }
}

/// The configuration of either track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrackConfig {
    /// The configuration of the video track.
    Video(VideoConfig),
    /// The configuration of the audio track.
    Audio(AudioConfig),
}

impl TrackConfig {
    /// Returns the track that is configured.
    pub const fn track(&self) -> TrackKind {
        match self {
            Self::Video(_) => TrackKind::Video,
            Self::Audio(_) => TrackKind::Audio,
        }
    }

    /// Returns the RFC 6381 codec string for CODECS.
    pub fn codecs(&self) -> &str {
        match self {
            Self::Video(config) => &config.codecs,
            Self::Audio(config) => &config.codecs,
        }
    }

    /// Returns the track's timescale: 90 kHz for video, the sampling rate for audio.
    pub const fn timescale(&self) -> Timescale {
        match self {
            Self::Video(_) => Timescale::VIDEO,
            Self::Audio(config) => config.timescale(),
        }
    }
}

/// One coded picture, with its times in 90 kHz ticks.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessUnit {
    /// Decoding time in 90 kHz ticks, unwrapped and strictly increasing.
    pub dts: i64,
    /// Composition offset, which is presentation time minus decoding time, in 90 kHz ticks; may be
    /// negative.
    pub cts: i32,
    /// The way in which a decoder can start here.
    pub sync: SyncKind,
    /// The coded bytes, byte for byte as published (H.264 and HEVC: NAL units with length
    /// prefixes).
    pub data: ByteChain,
}

impl AccessUnit {
    /// Returns the presentation time in 90 kHz ticks.
    pub const fn pts(&self) -> i64 {
        self.dts + self.cts as i64
    }
}

impl fmt::Debug for AccessUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dts, cts, sync, data } = self;
        write!(f, "AccessUnit(dts {dts} cts {cts} sync {sync:?} {} bytes)", data.len())
    }
}

/// One coded audio frame, with its time in samples.
#[derive(Clone, PartialEq, Eq)]
pub struct AudioFrame {
    /// Presentation time in samples of the track's rate.
    pub pts: i64,
    /// The coded bytes, byte for byte as published (AAC: a raw data block without ADTS header).
    pub data: ByteChain,
}

impl fmt::Debug for AudioFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AudioFrame(pts {} {} bytes)", self.pts, self.data.len())
    }
}

/// A coded frame of either track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediaFrame {
    /// A coded picture of the video track.
    Video(AccessUnit),
    /// A coded frame of the audio track.
    Audio(AudioFrame),
}

impl MediaFrame {
    /// Returns the track that the frame belongs to.
    pub const fn track(&self) -> TrackKind {
        match self {
            Self::Video(_) => TrackKind::Video,
            Self::Audio(_) => TrackKind::Audio,
        }
    }

    /// Returns the coded bytes of the frame.
    pub const fn data(&self) -> &ByteChain {
        match self {
            Self::Video(picture) => &picture.data,
            Self::Audio(frame) => &frame.data,
        }
    }
}

/// The segment that ingest assigned a frame to. It travels with the frame and is never decided
/// again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "independent marks of the frame")]
pub struct SegmentTag {
    /// Media sequence number of the segment.
    pub msn: u64,
    /// True if the segment follows a discontinuity. Set on the segment's boundary frame only.
    pub discontinuity: bool,
    /// True for the first frame of the segment over both tracks, whose time is the segment's start.
    pub boundary: bool,
    /// True if a decoder can start at this frame. On a boundary frame, the segment is independent.
    pub independent: bool,
    /// Version of the init segment that the frame needs.
    pub init_version: u32,
    /// Decoding time from this picture to the next one, in 90 kHz ticks; 0 for audio, whose frames
    /// know their duration. The next picture's decoding time follows from it.
    pub duration: u32,
    /// True if the next frame of the track may begin another segment. The part that this frame fills
    /// then waits for it, so that no player is told of a part that never comes.
    pub may_be_last: bool,
}

/// A frame with its segment tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaggedFrame {
    /// The segment that the frame belongs to.
    pub tag: SegmentTag,
    /// The coded frame, byte for byte as published.
    pub frame: MediaFrame,
}

/// One step of the segmenter's output and the packager's input, in one total order per stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediaEvent {
    /// A configuration that frames with this `init_version` may need from here on. It is repeated
    /// unchanged for workers that join late.
    Init {
        /// Version of the track's init segment: 0 first, one more for each new configuration of the
        /// epoch.
        version: u32,
        /// The configuration of the track.
        config: TrackConfig,
    },
    /// A frame of the stream.
    Frame(TaggedFrame),
}
