//! A synthetic encoder with known bytes, and the steps from its messages to packaged output.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

pub mod encoder;

use bytes::Bytes;
use millrace_media::codec::h264::AvcConfig;
use millrace_media::container::flv::{FlvAudio, FlvVideo};
use millrace_media::frame::{AudioConfig, MediaEvent, TrackKind, VideoConfig};
use millrace_media::packager::{Output, Packager, PartSetup};
use millrace_media::segmenter::{Segmenter, SegmenterConfig};
use millrace_media::time::RtmpClock;
use millrace_media::timeline::Timeline;

/// x264 High 3.1, 1280x720, 30 fps, and 1920x1080 would differ in its first bytes only.
pub const SPS: &[u8] = &[
    0x67, 0x64, 0x00, 0x1f, 0xac, 0xd9, 0x40, 0x50, 0x05, 0xbb, 0x01, 0x10, 0x00, 0x00, 0x03, 0x00, 0x10,
    0x00, 0x00, 0x03, 0x03, 0xc0, 0xf1, 0x83, 0x19, 0x60,
];
pub const PPS: &[u8] = &[0x68, 0xeb, 0xe3, 0xcb, 0x22, 0xc0];
pub const OTHER_PPS: &[u8] = &[0x68, 0xeb, 0xe3, 0xcb, 0x22, 0xc1];

pub fn avcc(pps: &[u8]) -> Bytes {
    AvcConfig::build(SPS, pps).unwrap()
}

/// One RTMP message: its timestamp in milliseconds and its content.
#[derive(Debug, Clone)]
pub enum Message {
    Video(u32, FlvVideo),
    Audio(u32, FlvAudio),
}

/// An access unit whose payload carries its number.
pub fn access_unit(number: u32, keyframe: bool, cts_ms: i32) -> FlvVideo {
    // The slice header of an I or P picture of all macroblocks: first_mb_in_slice, slice_type, PPS 0.
    let head = if keyframe { [0x65, 0x88, 0x84] } else { [0x41, 0x9a, 0x24] };
    let mut data = vec![0, 0, 0, 7];
    data.extend(head);
    data.extend(number.to_be_bytes());
    FlvVideo::Nalus { cts_ms, keyframe, data: Bytes::from(data).into() }
}

pub fn audio_frame(number: u32) -> FlvAudio {
    FlvAudio::Raw(Bytes::from([&[0x21][..], &number.to_be_bytes()].concat()).into())
}

/// The properties of the encoder.
#[derive(Debug, Clone)]
pub struct Source {
    pub start_ms: u64,
    pub wrap_bits: u32,
    pub seconds: f64,
    pub fps: Option<f64>,
    pub gop: u32,
    pub b_frames: bool,
    pub rate: Option<u32>,
    /// Delay of the first audio frame.
    pub audio_from_ms: u64,
    /// Milliseconds that are added to the timestamps, in turn.
    pub jitter: Vec<i64>,
}

impl Default for Source {
    fn default() -> Self {
        Self {
            start_ms: 0,
            wrap_bits: 32,
            seconds: 10.0,
            fps: Some(30.0),
            gop: 60,
            b_frames: true,
            rate: Some(48_000),
            audio_from_ms: 0,
            jitter: vec![0],
        }
    }
}

impl Source {
    /// Messages in the order a publisher interleaves them.
    pub fn messages(&self) -> Vec<Message> {
        let mut timed: Vec<(f64, Message)> = Vec::new();
        let stamp = |ms: f64, index: usize| {
            let jitter = self.jitter[index % self.jitter.len()];
            let time = self.start_ms as i64 + ms.round() as i64 + jitter;
            (time.max(0) as u64 % (1u64 << self.wrap_bits)) as u32
        };
        let first = stamp(0.0, 0);
        if let Some(fps) = self.fps {
            timed.push((-2.0, Message::Video(first, FlvVideo::SequenceHeader(avcc(PPS)))));
            for number in 0..(self.seconds * fps) as u32 {
                let ms = f64::from(number) * 1000.0 / fps;
                let key = number % self.gop == 0;
                let frame = 1000.0 / fps;
                let cts = if !self.b_frames {
                    0.0
                } else if key || number % 3 == 1 {
                    2.0 * frame
                } else {
                    frame
                };
                timed.push((
                    ms,
                    Message::Video(stamp(ms, number as usize), access_unit(number, key, cts as i32)),
                ));
            }
        }
        if let Some(rate) = self.rate {
            let asc = millrace_media::codec::aac::AudioSpecificConfig::aac_lc(rate, 2).unwrap();
            timed.push((-1.0, Message::Audio(first, FlvAudio::SequenceHeader(asc))));
            let frame = 1024.0 * 1000.0 / f64::from(rate);
            let skip = (self.audio_from_ms as f64 / frame).ceil() as u32;
            for number in skip..(self.seconds * 1000.0 / frame) as u32 {
                let ms = f64::from(number) * frame;
                timed.push((ms, Message::Audio(stamp(ms, number as usize), audio_frame(number))));
            }
        }
        timed.sort_by(|a, b| a.0.total_cmp(&b.0));
        timed.into_iter().map(|(_, message)| message).collect()
    }
}

pub fn config() -> SegmenterConfig {
    SegmenterConfig { first_msn: 100, discontinuity: false, target_duration: 4 }
}

/// A timeline with the segmenter behind it.
pub struct Ingest {
    pub timeline: Timeline,
    pub segmenter: Segmenter,
    clock: RtmpClock,
}

impl Ingest {
    pub fn new(config: SegmenterConfig) -> Self {
        Self { timeline: Timeline::new(), segmenter: Segmenter::new(config), clock: RtmpClock::new() }
    }

    pub fn push(&mut self, message: Message) -> Vec<MediaEvent> {
        self.feed(message);
        self.drain()
    }

    /// Hands a message to the timeline.
    pub fn feed(&mut self, message: Message) {
        let (Message::Video(ms, _) | Message::Audio(ms, _)) = message;
        let time = self.clock.unwrap(ms) * 90;
        match message {
            Message::Video(_, FlvVideo::SequenceHeader(avcc)) => {
                self.timeline.video_config(VideoConfig::from_avcc(avcc).unwrap());
            }
            Message::Video(_, FlvVideo::Nalus { cts_ms, data, .. }) => {
                self.timeline.push_video(time, i64::from(cts_ms) * 90, data);
            }
            Message::Video(_, FlvVideo::EndOfSequence | FlvVideo::Unused(_))
            | Message::Audio(_, FlvAudio::EndOfSequence | FlvAudio::Unused(_) | FlvAudio::Mp3(_)) => {}
            Message::Audio(_, FlvAudio::SequenceHeader(asc)) => {
                self.timeline.audio_config(AudioConfig::from_asc(asc).unwrap());
            }
            Message::Audio(_, FlvAudio::Raw(data)) => self.timeline.push_audio(time, data),
        }
    }

    /// Passes the timeline's events on; returns those of the segmenter.
    pub fn drain(&mut self) -> Vec<MediaEvent> {
        while let Some(event) = self.timeline.poll() {
            self.segmenter.push(event);
        }
        std::iter::from_fn(|| self.segmenter.poll()).collect()
    }
}

pub fn segment(messages: Vec<Message>, config: SegmenterConfig) -> (Vec<MediaEvent>, Ingest) {
    let mut ingest = Ingest::new(config);
    let events = messages.into_iter().flat_map(|message| ingest.push(message)).collect();
    (events, ingest)
}

/// The default of a stream's settings.
pub const MEASURE: PartSetup = PartSetup::Measure { part_ms: 200 };

/// Packages all events and drains the packager.
pub fn package(
    setup: PartSetup,
    events: impl IntoIterator<Item = MediaEvent>,
    finish: bool,
) -> (Vec<Output>, Packager) {
    let mut packager = Packager::new(setup);
    let mut out = Vec::new();
    for event in events {
        packager.push(event);
        out.extend(std::iter::from_fn(|| packager.poll()));
    }
    if finish {
        packager.finish();
        out.extend(std::iter::from_fn(|| packager.poll()));
    }
    (out, packager)
}

pub fn parts(outputs: &[Output], track: TrackKind) -> Vec<&millrace_media::packager::Part> {
    outputs
        .iter()
        .filter_map(|output| match output {
            Output::Part(part) if part.track == track => Some(part),
            _ => None,
        })
        .collect()
}

pub fn ends(outputs: &[Output], track: TrackKind) -> Vec<millrace_media::packager::SegmentEnd> {
    outputs
        .iter()
        .filter_map(|output| match output {
            Output::SegmentEnd(end) if end.head.track == track => Some(*end),
            _ => None,
        })
        .collect()
}

/// Every sample of a track, through the demultiplexer: (dts, pts, sync, data).
pub fn samples(outputs: &[Output], track: TrackKind) -> Vec<(i64, i64, bool, Bytes)> {
    parts(outputs, track)
        .into_iter()
        .flat_map(|part| {
            millrace_media::container::cmaf::demux::parse_fragments(&part.body.contiguous()).unwrap()
        })
        .flat_map(|fragment| fragment.samples)
        .map(|sample| (sample.dts, sample.dts + i64::from(sample.cts), sample.sync, sample.data))
        .collect()
}

/// The data of every frame of a track, in order.
pub fn frame_data(events: &[MediaEvent], track: TrackKind) -> Vec<Bytes> {
    events
        .iter()
        .filter_map(|event| match event {
            MediaEvent::Frame(tagged) if tagged.frame.track() == track => {
                Some(tagged.frame.data().contiguous())
            }
            _ => None,
        })
        .collect()
}

/// The data of every media message of a track, in order.
pub fn message_data(messages: &[Message], track: TrackKind) -> Vec<Bytes> {
    messages
        .iter()
        .filter_map(|message| match message {
            Message::Video(_, FlvVideo::Nalus { data, .. }) if track == TrackKind::Video => {
                Some(data.contiguous())
            }
            Message::Audio(_, FlvAudio::Raw(data)) if track == TrackKind::Audio => Some(data.contiguous()),
            _ => None,
        })
        .collect()
}
