//! The source: a clip whose pictures carry their numbers, as ingest tags and publishes it.

use bytes::Bytes;
use millrace_link::media_convert::{ConfigPlace, config_unit, frame_unit};
use millrace_media::container::flv::file::{Reader, TagKind};
use millrace_media::container::flv::{FlvAudio, FlvVideo};
use millrace_media::frame::{AudioConfig, MediaEvent, TrackConfig, VideoConfig};
use millrace_media::segmenter::{Segmenter, SegmenterConfig};
use millrace_media::timeline::Timeline;
use millrace_testkit::ffmpeg::ffmpeg;
use millrace_testkit::{Clip, ClipSpec};
use millrace_wire::fact::EpochOpen;
use millrace_wire::ids::{BroadcastId, DiscontinuitySeq, Epoch, InitVersion, MediaSeq, Msn, UnixMillis};
use millrace_wire::ladder::{LadderPlan, LadderRung};
use millrace_wire::message::media::{MediaMessage, MediaUnit};

pub const FIRST: u64 = 1000;
pub const EPOCH: Epoch = Epoch(7);
const SEQUENCE: u64 = 3;

/// One RTMP message of the encoder: its time in milliseconds and its content.
#[derive(Debug, Clone)]
pub enum Message {
    Video(u32, FlvVideo),
    Audio(u32, FlvAudio),
}

/// The numbers of an epoch that is to have encoded rungs of these heights.
pub fn open_with(heights: &[u32]) -> EpochOpen {
    EpochOpen { plan: plan(heights), ..open() }
}

/// Returns the plan of encoded rungs of these heights.
pub fn plan(heights: &[u32]) -> LadderPlan {
    let rung =
        |height: &u32| LadderRung { height: *height, bitrate: 300_000, fps: None, preset: None, codec: None };
    LadderPlan::of_rungs(heights.iter().map(rung).collect())
}

pub fn open() -> EpochOpen {
    EpochOpen {
        broadcast: BroadcastId::from_u128(1),
        airing: millrace_wire::ids::Airing::FIRST,
        first_msn: Msn(FIRST),
        discontinuity_sequence: DiscontinuitySeq(SEQUENCE),
        program_date_time: UnixMillis(1_700_000_000_000),
        target_duration: 4,
        lead_gaps: 0,
        plan: LadderPlan::default(),
    }
}

/// Returns the messages of a clip.
pub async fn clip(spec: ClipSpec) -> Vec<Message> {
    let clip = Clip::flv(spec).await.unwrap();
    read(Bytes::from(std::fs::read(&clip.path).unwrap()))
}

/// Returns the messages of a clip with the sound that ffmpeg makes of `sound`: a source and the encoder's arguments.
pub async fn with_sound(spec: ClipSpec, sound: &str) -> Vec<Message> {
    let clip = Clip::flv(spec).await.unwrap();
    let mut words = sound.split_whitespace();
    let mut command = ffmpeg();
    command.arg("-i").arg(&clip.path).args(["-f", "lavfi", "-i", words.next().unwrap()]);
    command.args(["-c:v", "copy"]).args(words).args(["-t", &clip.seconds().to_string()]);
    command.args(["-map", "0:v", "-map", "1:a", "-f", "flv", "-"]);
    let output = command.stderr(std::process::Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{sound}");
    read(Bytes::from(output.stdout))
}

fn read(file: Bytes) -> Vec<Message> {
    let tags = Reader::new(file).unwrap().map(Result::unwrap);
    let message = tags.filter_map(|tag| match tag.kind {
        TagKind::Video => Some(Message::Video(tag.timestamp_ms, FlvVideo::parse(tag.body).unwrap()?)),
        TagKind::Audio => Some(Message::Audio(tag.timestamp_ms, FlvAudio::parse(tag.body).unwrap()?)),
        TagKind::Script => None,
    });
    message.collect()
}

/// Returns the media that ingest publishes of the messages.
pub fn publish(messages: &[Message]) -> Vec<MediaMessage> {
    let mut timeline = Timeline::new();
    let config = SegmenterConfig { first_msn: FIRST, discontinuity: false, target_duration: 4 };
    let mut segmenter = Segmenter::new(config);
    let mut published = Publisher::default();
    for message in messages {
        feed(&mut timeline, message.clone());
        while let Some(event) = timeline.poll() {
            segmenter.push(event);
        }
        while let Some(event) = segmenter.poll() {
            published.event(event);
        }
    }
    let mut messages = published.messages;
    if let Some(last) = messages.last_mut() {
        last.end = true;
    }
    messages
}

fn feed(timeline: &mut Timeline, message: Message) {
    let (Message::Video(ms, _) | Message::Audio(ms, _)) = message;
    let time = i64::from(ms) * 90;
    match message {
        Message::Video(_, FlvVideo::SequenceHeader(record)) => {
            timeline.video_config(VideoConfig::from_avcc(record).unwrap());
        }
        Message::Video(_, FlvVideo::Nalus { cts_ms, data, .. }) => {
            timeline.push_video(time, i64::from(cts_ms) * 90, data);
        }
        Message::Audio(_, FlvAudio::SequenceHeader(record)) => {
            timeline.audio_config(AudioConfig::from_asc(record).unwrap());
        }
        Message::Audio(_, FlvAudio::Raw(data)) => timeline.push_audio(time, data),
        Message::Video(..) | Message::Audio(..) => {}
    }
}

/// Writes media messages as the ingest node does: each segment's first message repeats the configurations.
#[derive(Default)]
struct Publisher {
    messages: Vec<MediaMessage>,
    inits: Vec<(u32, TrackConfig)>,
    sequence: u64,
}

impl Publisher {
    fn event(&mut self, event: MediaEvent) {
        let tagged = match event {
            MediaEvent::Init { version, config } => {
                self.inits.retain(|(_, known)| known.track() != config.track());
                return self.inits.push((version, config));
            }
            MediaEvent::Frame(tagged) => tagged,
        };
        self.sequence += u64::from(tagged.tag.boundary && tagged.tag.discontinuity);
        let sequence = DiscontinuitySeq(SEQUENCE + self.sequence);
        let mut units: Vec<MediaUnit> = Vec::new();
        let is_first = self.messages.is_empty();
        if tagged.tag.boundary || is_first {
            for (version, config) in &self.inits {
                let place = ConfigPlace {
                    msn: Msn(tagged.tag.msn),
                    discontinuity_sequence: sequence,
                    init_version: InitVersion(*version),
                };
                units.push(config_unit(config, place, 1_000_000));
            }
        }
        units.push(frame_unit(tagged, sequence));
        let seq = MediaSeq(self.messages.len() as u64);
        self.messages.push(MediaMessage { epoch: EPOCH, seq, end: false, units });
    }
}
