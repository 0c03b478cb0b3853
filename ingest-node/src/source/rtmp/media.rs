//! RTMP media messages and metadata as source events.

use millrace_buf::ByteChain;
use millrace_media::container::flv::{FlvAudio, FlvError, FlvVideo};
use millrace_media::frame::{AudioConfig, TrackConfig, TrackKind, VideoConfig};
use millrace_media::time::{RtmpClock, Timescale};
use millrace_rtmp::StreamInfo;

use crate::session::source::{
    DeclaredAudio, MediaError, MediaFault, MessagePosition, SourceEvent, SourceFrame, SourceMetadata,
};

/// The media of one publish: unwraps its clock and numbers its messages.
#[derive(Debug, Default)]
pub(super) struct MediaReader {
    clock: RtmpClock,
    messages: u64,
}

/// The event of a message, `None` if it carries no media.
type Read = Result<Option<SourceEvent>, MediaError>;

impl MediaReader {
    /// Reads a video message: an FLV VIDEODATA body.
    pub(super) fn video(&mut self, timestamp: u32, body: ByteChain) -> Read {
        let mut position = self.next_position(TrackKind::Video, timestamp);
        let Some(video) = FlvVideo::parse(body).map_err(|error| at(position, fault(error)))? else {
            return Ok(None);
        };
        position.time = self.clock.unwrap(timestamp);
        match video {
            FlvVideo::SequenceHeader(avcc) => match VideoConfig::from_avcc(avcc) {
                Ok(config) => Ok(Some(SourceEvent::Config { position, config: TrackConfig::Video(config) })),
                Err(error) => Err(at(position, MediaFault::malformed(error))),
            },
            FlvVideo::Nalus { cts_ms, data, .. } => {
                let presentation_time = position.time + i64::from(cts_ms);
                Ok(Some(SourceEvent::Frame(SourceFrame { position, presentation_time, data })))
            }
            FlvVideo::EndOfSequence => Ok(None),
        }
    }

    /// Reads an audio message: an FLV AUDIODATA body.
    pub(super) fn audio(&mut self, timestamp: u32, body: ByteChain) -> Read {
        let mut position = self.next_position(TrackKind::Audio, timestamp);
        let Some(audio) = FlvAudio::parse(body).map_err(|error| at(position, fault(error)))? else {
            return Ok(None);
        };
        position.time = self.clock.unwrap(timestamp);
        match audio {
            FlvAudio::SequenceHeader(asc) => match AudioConfig::from_asc(asc) {
                Ok(config) => Ok(Some(SourceEvent::Config { position, config: TrackConfig::Audio(config) })),
                Err(error) => Err(at(position, MediaFault::malformed(error))),
            },
            FlvAudio::Raw(data) => {
                let presentation_time = position.time;
                Ok(Some(SourceEvent::Frame(SourceFrame { position, presentation_time, data })))
            }
        }
    }

    /// Returns the position of the next message. Its time is the message's own until the clock has unwrapped it: an
    /// unreadable message does not move the clock.
    fn next_position(&mut self, track: TrackKind, timestamp: u32) -> MessagePosition {
        self.messages += 1;
        MessagePosition {
            track,
            number: self.messages,
            time: i64::from(timestamp),
            timescale: Timescale::MILLIS,
        }
    }
}

/// Reads the properties of an `onMetaData` message.
pub(super) fn metadata(properties: &[(String, millrace_rtmp::Value)]) -> SourceMetadata {
    let info = StreamInfo::from_properties(properties);
    SourceMetadata {
        width: info.width,
        height: info.height,
        frame_rate: info.frame_rate,
        video_bitrate: info.video_bitrate,
        audio_bitrate: info.audio_bitrate,
        aac: info.aac.map(|aac| DeclaredAudio { sample_rate: aac.sample_rate, channels: aac.channels }),
    }
}

fn at(position: MessagePosition, fault: MediaFault) -> MediaError {
    MediaError { position, fault }
}

fn fault(error: FlvError) -> MediaFault {
    if error.is_codec_refusal() {
        MediaFault::CodecNotAccepted(error.to_string())
    } else {
        MediaFault::malformed(error)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn body(bytes: &'static [u8]) -> ByteChain {
        Bytes::from_static(bytes).into()
    }

    #[test]
    fn reader_yields_configurations_and_frames_with_positions() {
        let mut reader = MediaReader::default();
        let config = reader.audio(0, body(&[0xaf, 0, 0x11, 0x90])).unwrap().unwrap();
        assert!(matches!(config, SourceEvent::Config { position, .. } if position.number == 1), "{config:?}");
        let Some(SourceEvent::Frame(frame)) = reader.video(40, body(&[0x27, 1, 0, 0, 67, 9])).unwrap() else {
            panic!("no frame");
        };
        let position = frame.position;
        assert_eq!((position.track, position.number, position.time), (TrackKind::Video, 2, 40));
        assert_eq!((frame.presentation_time, frame.data.len()), (107, 1));
        assert!(reader.video(41, body(&[])).unwrap().is_none(), "an empty body carries no media");
    }

    #[test]
    fn reader_locates_a_fault_by_track_number_and_time() {
        let mut reader = MediaReader::default();
        reader.audio(0, body(&[0xaf, 0, 0x11, 0x90])).unwrap();
        let error = reader.video(40, body(&[0x17, 0])).unwrap_err();
        assert_eq!(error.to_string(), "video message 2 at 0.040 s: video body is truncated");
        assert_eq!(error.fault.ends_publish(), None);
        let error = reader.audio(60, body(&[0xaf, 0, 0xff])).unwrap_err();
        assert!(error.to_string().starts_with("audio message 3 at 0.060 s: "), "{error}");
    }

    #[test]
    fn reader_names_the_codec_it_does_not_accept() {
        use millrace_wire::close_reason::CloseReason;
        let mut reader = MediaReader::default();
        for (track, bytes, name) in [
            (TrackKind::Video, &b"\x91hvc1...."[..], "HEVC"),
            (TrackKind::Video, b"\x91av01....", "AV1"),
            (TrackKind::Video, &[0x12, 0, 0, 0, 0, 0], "Sorenson H.263"),
            (TrackKind::Audio, &[0x2f, 1, 2, 3], "MP3"),
            (TrackKind::Audio, b"\x90Opus", "Opus"),
        ] {
            let error = match track {
                TrackKind::Video => reader.video(0, body(bytes)).unwrap_err(),
                TrackKind::Audio => reader.audio(0, body(bytes)).unwrap_err(),
            };
            assert!(error.to_string().contains(name), "{error}");
            assert_eq!(error.fault.ends_publish(), Some(CloseReason::CodecNotAccepted), "{error}");
        }
    }
}
