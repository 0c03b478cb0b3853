//! RTMP media messages and metadata as source events.

use std::collections::VecDeque;

use millrace_buf::ByteChain;
use millrace_media::codec::CodecError;
use millrace_media::codec::h264::H264Error;
use millrace_media::container::flv::{FlvAudio, FlvError, FlvVideo, Unused, has_other_tracks};
use millrace_media::frame::{SyncKind, TrackConfig, TrackKind};
use millrace_media::intake::{AacIntake, AudioStep, H264Intake, Mp3Intake, VideoStep};
use millrace_media::repair::{Repair, RepairCounts};
use millrace_media::time::{RtmpClock, Timescale};
use millrace_rtmp::StreamInfo;

use crate::session::source::{
    DeclaredAudio, MediaError, MediaFault, MessagePosition, SourceEvent, SourceFrame, SourceMetadata,
};

/// AAC frames that may come without a configuration before the publish ends: five seconds and more of them, so that
/// silence never replaces audio that arrives.
const MAX_UNCONFIGURED_AUDIO: u32 = 300;

/// Bytes of a picture that slices of further messages are joined to: the largest message is as large.
const MAX_JOINED_BYTES: usize = 8 * 1024 * 1024;

/// The media of one publish: unwraps its clock, numbers its messages and brings its codecs into the usual form.
#[derive(Debug, Default)]
pub(super) struct MediaReader {
    clock: RtmpClock,
    messages: u64,
    video: H264Intake,
    audio: AacIntake,
    mp3: Mp3Intake,
    unconfigured_audio: u32,
    unused: RepairCounts,
    /// True once the encoder has sent slices of a picture in a message of their own: each picture then waits for the next one.
    joins_slices: bool,
    /// The picture that further slices may come for.
    open_picture: Option<SourceFrame>,
    events: VecDeque<SourceEvent>,
}

impl MediaReader {
    /// Returns the next event of the messages read so far.
    pub(super) fn poll(&mut self) -> Option<SourceEvent> {
        self.events.pop_front()
    }

    /// Returns the counts of everything that was changed or left out.
    pub(super) fn repairs(&self) -> RepairCounts {
        let mut repairs = self.unused;
        repairs.merge(self.video.repairs());
        repairs.merge(self.audio.repairs());
        repairs
    }

    /// Reads a video message: an FLV VIDEODATA body.
    pub(super) fn video(&mut self, timestamp: u32, body: ByteChain) -> Result<(), MediaError> {
        let mut position = self.next_position(TrackKind::Video, timestamp);
        self.unused.add(Repair::ExtraTrack, u64::from(has_other_tracks(TrackKind::Video, &body)));
        let Some(video) = FlvVideo::parse(body).map_err(|error| at(position, fault(error)))? else {
            return Ok(());
        };
        position.time = self.clock.unwrap(timestamp);
        let mut presentation_time = position.time;
        let taken = match video {
            FlvVideo::SequenceHeader(record) => {
                let taken = self.video.record(record);
                self.unused.add(Repair::ConfigRefused, u64::from(taken.is_err()));
                taken
            }
            FlvVideo::Nalus { cts_ms, keyframe, data } => {
                presentation_time += i64::from(cts_ms);
                self.video.picture(presentation_time, keyframe, data)
            }
            FlvVideo::EndOfSequence => Ok(()),
            FlvVideo::Unused(unused) => {
                self.unused.add(repair_of(unused), 1);
                Ok(())
            }
        };
        while let Some(step) = self.video.poll() {
            match step {
                VideoStep::Config(config) => {
                    self.close_picture();
                    let config = TrackConfig::Video(config);
                    self.events.push_back(SourceEvent::Config { position, config });
                }
                VideoStep::Picture { sync, data } => {
                    self.close_picture();
                    self.open_picture = Some(SourceFrame { position, presentation_time, sync, data });
                }
                VideoStep::Rest { data } => self.join(data),
            }
        }
        if !self.joins_slices {
            self.close_picture();
        }
        taken.map_err(|error| {
            if matches!(error, CodecError::H264(H264Error::Truncated("access unit"))) {
                self.unused.add(Repair::MalformedPicture, 1);
            }
            at(position, MediaFault::malformed(error))
        })
    }

    /// Joins further slices to the picture before. The first ones of a publish come when it has gone already, incomplete; from
    /// then on pictures wait.
    fn join(&mut self, slices: ByteChain) {
        self.joins_slices = true;
        match &mut self.open_picture {
            Some(picture) if picture.data.len() + slices.len() <= MAX_JOINED_BYTES => {
                picture.data.extend(slices);
                self.unused.add(Repair::SlicesJoined, 1);
            }
            _ => self.unused.add(Repair::MalformedPicture, 1),
        }
    }

    /// Yields the picture that waits for further slices.
    pub(super) fn close_picture(&mut self) {
        self.events.extend(self.open_picture.take().map(SourceEvent::Frame));
    }

    /// Reads an audio message: an FLV AUDIODATA body.
    pub(super) fn audio(&mut self, timestamp: u32, body: ByteChain) -> Result<(), MediaError> {
        let mut position = self.next_position(TrackKind::Audio, timestamp);
        self.unused.add(Repair::ExtraTrack, u64::from(has_other_tracks(TrackKind::Audio, &body)));
        let Some(audio) = FlvAudio::parse(body).map_err(|error| at(position, fault(error)))? else {
            return Ok(());
        };
        position.time = self.clock.unwrap(timestamp);
        let taken = match audio {
            FlvAudio::SequenceHeader(record) => self.audio.record(record),
            FlvAudio::Raw(data) => self.audio.frames(data),
            FlvAudio::Mp3(frames) => return self.mp3(position, frames),
            FlvAudio::EndOfSequence => Ok(()),
            FlvAudio::Unused(unused) => {
                self.unused.add(repair_of(unused), 1);
                Ok(())
            }
        };
        // A configuration that cannot be used ends the publish: its frames would be silence for ever.
        taken.map_err(|error| at(position, MediaFault::CodecNotAccepted(error.to_string())))?;
        let mut rate = self.audio.rate();
        while let Some(step) = self.audio.poll() {
            self.audio_step(position, step, &mut rate);
        }
        self.check_configured(position)
    }

    /// Reads MP3 frames. An encoder that sent AAC before is refused: its listeners' decoders are set up for that.
    fn mp3(&mut self, position: MessagePosition, frames: ByteChain) -> Result<(), MediaError> {
        if self.audio.rate() > 0 {
            let text =
                "the encoder changes from AAC to MP3 within a publish: publish anew with the other codec";
            return Err(at(position, MediaFault::CodecNotAccepted(text.to_owned())));
        }
        let taken = self.mp3.frames(frames);
        taken.map_err(|error| at(position, MediaFault::CodecNotAccepted(error.to_string())))?;
        let mut rate = self.mp3.rate();
        while let Some(step) = self.mp3.poll() {
            self.audio_step(position, step, &mut rate);
        }
        Ok(())
    }

    /// Yields one step of the audio; `rate` is the sampling rate in Hz of the frames to come.
    fn audio_step(&mut self, position: MessagePosition, step: AudioStep, rate: &mut u32) {
        self.events.push_back(match step {
            AudioStep::Config(config) => {
                *rate = config.rate;
                SourceEvent::Config { position, config: TrackConfig::Audio(config) }
            }
            AudioStep::Frame { offset, data } => {
                let offset_ms = i64::from(offset) * 1_000 / i64::from((*rate).max(1));
                let presentation_time = position.time + offset_ms;
                let sync = SyncKind::Idr;
                SourceEvent::Frame(SourceFrame { position, presentation_time, sync, data })
            }
        });
    }

    /// Ends the publish if its audio still has no configuration.
    fn check_configured(&mut self, position: MessagePosition) -> Result<(), MediaError> {
        let is_configured = self.audio.rate() > 0 || self.mp3.rate() > 0;
        self.unconfigured_audio = if is_configured { 0 } else { self.unconfigured_audio + 1 };
        if self.unconfigured_audio <= MAX_UNCONFIGURED_AUDIO {
            return Ok(());
        }
        let text = "the encoder sends AAC frames without a sequence header (AudioSpecificConfig), so that they cannot be decoded";
        Err(at(position, MediaFault::CodecNotAccepted(text.to_owned())))
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

const fn repair_of(unused: Unused) -> Repair {
    match unused {
        Unused::Empty => Repair::EmptyMessage,
        Unused::OtherTrack => Repair::ExtraTrack,
        Unused::Metadata => Repair::TrackMetadata,
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
    use millrace_wire::close_reason::CloseReason;

    use super::*;

    fn body(bytes: &'static [u8]) -> ByteChain {
        Bytes::from_static(bytes).into()
    }

    fn events(reader: &mut MediaReader) -> Vec<SourceEvent> {
        std::iter::from_fn(|| reader.poll()).collect()
    }

    #[test]
    fn reader_yields_configurations_and_frames_with_positions() {
        let mut reader = MediaReader::default();
        reader.audio(0, body(&[0xaf, 0, 0x11, 0x90])).unwrap();
        let [SourceEvent::Config { position, .. }] = &events(&mut reader)[..] else {
            panic!("no configuration")
        };
        assert_eq!(position.number, 1);
        reader.video(40, body(&[0x27, 1, 0, 0, 67, 0, 0, 0, 1, 0x41])).unwrap();
        let [SourceEvent::Frame(frame)] = &events(&mut reader)[..] else { panic!("no frame") };
        let position = frame.position;
        assert_eq!((position.track, position.number, position.time), (TrackKind::Video, 2, 40));
        assert_eq!((frame.presentation_time, frame.sync, frame.data.len()), (107, SyncKind::None, 5));
        reader.video(41, body(&[])).unwrap();
        assert_eq!(events(&mut reader), [], "an empty body carries no media");
    }

    #[test]
    fn reader_locates_a_fault_by_track_number_and_time() {
        let mut reader = MediaReader::default();
        reader.audio(0, body(&[0xaf, 0, 0x11, 0x90])).unwrap();
        let error = reader.video(40, body(&[0x17, 0])).unwrap_err();
        assert_eq!(error.to_string(), "video message 2 at 0.040 s: video body is truncated");
        assert_eq!(error.fault.ends_publish(), None);
        let error = reader.video(60, body(&[0x17, 1, 0, 0, 0, 9, 9])).unwrap_err();
        assert!(error.to_string().starts_with("video message 3 at 0.060 s: "), "{error}");
        assert_eq!((error.fault.ends_publish(), reader.repairs().get(Repair::MalformedPicture)), (None, 1));
    }

    #[test]
    fn reader_names_the_codec_it_does_not_accept() {
        let mut reader = MediaReader::default();
        for (track, bytes, name) in [
            (TrackKind::Video, &b"\x91hvc1...."[..], "HEVC (hvc1)"),
            (TrackKind::Video, b"\x91av01....", "AV1 (av01)"),
            (TrackKind::Video, &[0x12, 0, 0, 0, 0, 0], "Sorenson H.263"),
            (TrackKind::Video, &[0x14, 0, 0, 0, 0, 0], "VP6"),
            (TrackKind::Audio, &[0x2f, 1, 2, 3], "MP3"),
            (TrackKind::Audio, &[0x6f, 1, 2, 3], "Nellymoser"),
            (TrackKind::Audio, &[0xbf, 1, 2, 3], "Speex"),
            (TrackKind::Audio, b"\x90Opus", "Opus"),
            (TrackKind::Audio, &[0xaf, 0, 0x09, 0x90], "AAC Main"),
            (TrackKind::Audio, &[0xaf, 0, 0x11, 0x94], "960 samples"),
            (TrackKind::Audio, &[0xaf, 0, 0xff], "AudioSpecificConfig is truncated"),
        ] {
            let error = match track {
                TrackKind::Video => reader.video(0, body(bytes)).unwrap_err(),
                TrackKind::Audio => reader.audio(0, body(bytes)).unwrap_err(),
            };
            assert!(error.to_string().contains(name), "{error}");
            assert_eq!(error.fault.ends_publish(), Some(CloseReason::CodecNotAccepted), "{error}");
        }
    }

    #[test]
    fn reader_takes_mp3_and_refuses_a_change_to_it() {
        // 64 kb/s at 48 kHz: 192 bytes a frame.
        let message =
            [&[0x2f, 0xff, 0xfb, 0x54, 0x64][..], &[0; 188], &[0xff, 0xfb, 0x54, 0x64], &[0; 188]].concat();
        let mut reader = MediaReader::default();
        reader.audio(100, message.clone().into()).unwrap();
        let events: Vec<SourceEvent> = std::iter::from_fn(|| reader.poll()).collect();
        let [SourceEvent::Config { .. }, SourceEvent::Frame(first), SourceEvent::Frame(second)] = &events[..]
        else {
            panic!("{events:?}")
        };
        assert_eq!((first.presentation_time, second.presentation_time), (100, 124));
        let mut reader = MediaReader::default();
        reader.audio(0, body(&[0xaf, 0, 0x11, 0x90])).unwrap();
        let error = reader.audio(20, message.into()).unwrap_err();
        assert_eq!(error.fault.ends_publish(), Some(CloseReason::CodecNotAccepted), "{error}");
    }

    #[test]
    fn reader_ends_a_publish_whose_audio_has_no_configuration() {
        let mut reader = MediaReader::default();
        let read = |reader: &mut MediaReader| reader.audio(0, body(&[0xaf, 1, 0x21]));
        for _ in 0..MAX_UNCONFIGURED_AUDIO {
            read(&mut reader).unwrap();
        }
        let error = read(&mut reader).unwrap_err();
        assert_eq!(error.fault.ends_publish(), Some(CloseReason::CodecNotAccepted), "{error}");
    }

    #[test]
    fn reader_counts_messages_that_hold_other_tracks_beside_the_first() {
        let mut reader = MediaReader::default();
        // Tracks 0 and 1 of one codec, with one byte each, and track 0 alone.
        reader.audio(0, body(b"\x95\x11mp4a\x00\0\0\x01!\x01\0\0\x01!")).unwrap();
        reader.audio(0, body(b"\x95\x01mp4a\x00!")).unwrap();
        assert_eq!(reader.repairs().get(Repair::ExtraTrack), 1);
    }

    #[test]
    fn reader_counts_what_it_leaves_out() {
        let mut reader = MediaReader::default();
        reader.video(0, body(b"\x94avc1\x02\0\x09colorInfo")).unwrap();
        reader.video(0, body(b"\x96\x01avc1\x01\0\0\0....")).unwrap();
        reader.audio(0, body(&[0xaf, 1])).unwrap();
        let repairs: Vec<_> = reader.repairs().iter().collect();
        assert_eq!(repairs, [(Repair::EmptyMessage, 1), (Repair::ExtraTrack, 1), (Repair::TrackMetadata, 1)]);
        assert_eq!(events(&mut reader), []);
    }
}
