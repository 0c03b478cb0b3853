//! A source that is not RTMP publishes through the session: the session knows no protocol.
#![allow(clippy::unwrap_used, reason = "a helper fails its test by panicking")]

mod support;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use millrace_bus::MemBus;
use millrace_ingest::{
    Config, Credential, Identity, MediaError, MediaFault, MessagePosition, PublishEnd, Source, SourceEvent,
    SourceFrame, SourceMetadata,
};
use millrace_media::codec::{AudioCodec, VideoCodec};
use millrace_media::container::flv::file::{Tag, TagKind};
use millrace_media::container::flv::{FlvAudio, FlvVideo};
use millrace_media::frame::{AudioConfig, SyncKind, TrackConfig, TrackKind, VideoConfig};
use millrace_media::time::Timescale;
use millrace_runtime::ManualClock;
use millrace_testkit::ClipSpec;
use millrace_wire::close_reason::CloseReason;
use millrace_wire::ids::StreamKey;
use millrace_wire::message::media::{MediaReader, Track};
use millrace_wire::topics;
use support::{Consumer, World, check_order, config, frames, pushed, tags};

/// A source that plays a prepared list of events, and records how the session treats it.
#[derive(Default)]
struct Synthetic {
    key: String,
    /// Events in the order of their arrival; each `receive` delivers one.
    script: VecDeque<Result<SourceEvent, MediaError>>,
    /// The event that has arrived and was not taken.
    arrived: Option<Result<SourceEvent, MediaError>>,
    /// Bytes that each `receive` reports.
    bytes: usize,
    accepted: bool,
    keyframe_requests: usize,
    closed: Vec<PublishEnd>,
    /// The node's clock and the time that passes before each event.
    clock: Option<(ManualClock, Duration)>,
}

impl Synthetic {
    fn new(key: &StreamKey, script: impl IntoIterator<Item = SourceEvent>) -> Self {
        let script = script.into_iter().map(Ok).collect();
        Self { key: key.reveal(), script, bytes: 1, ..Self::default() }
    }
}

impl Source for Synthetic {
    fn identity(&self) -> Identity {
        Identity {
            credential: Credential::stream_key(self.key.clone()),
            address: IpAddr::from([127, 0, 0, 1]),
            protocol: "synthetic",
            may_ask_outside: true,
        }
    }

    fn accept(&mut self) -> Result<(), PublishEnd> {
        self.accepted = true;
        Ok(())
    }

    /// Waits for ever at the end of the script: the session has to end the publish.
    async fn receive(&mut self) -> usize {
        tokio::task::yield_now().await;
        if let Some((clock, step)) = &self.clock {
            clock.advance_ms(step.as_millis() as u64);
        }
        match self.script.pop_front() {
            Some(event) => self.arrived = Some(event),
            None => std::future::pending().await,
        }
        self.bytes
    }

    fn next_event(&mut self) -> Option<Result<SourceEvent, MediaError>> {
        self.arrived.take()
    }

    fn request_keyframe(&mut self) -> bool {
        self.keyframe_requests += 1;
        true
    }

    async fn close(&mut self, end: &PublishEnd) {
        self.closed.push(end.clone());
    }
}

/// A clip as a source with RTP's timescales would yield it: 90 kHz video, audio in samples.
fn events(tags: &[Tag]) -> Vec<SourceEvent> {
    let mut events = Vec::new();
    for (number, tag) in (1..).zip(tags) {
        let (track, timescale) = match tag.kind {
            TagKind::Video => (TrackKind::Video, Timescale::VIDEO),
            _ => (TrackKind::Audio, Timescale::of_rate(48_000)),
        };
        let time = Timescale::MILLIS.convert(i64::from(tag.timestamp_ms), timescale);
        let position = MessagePosition { track, number, time, timescale };
        let frame = |presentation_time, sync, data| {
            SourceEvent::Frame(SourceFrame { position, presentation_time, sync, data })
        };
        let config = |config| SourceEvent::Config { position, config };
        events.extend(match track {
            TrackKind::Video => match FlvVideo::parse(tag.body.clone()).unwrap() {
                Some(FlvVideo::SequenceHeader(avcc)) => {
                    Some(config(TrackConfig::Video(VideoConfig::from_avcc(avcc).unwrap())))
                }
                Some(FlvVideo::Nalus { cts_ms, keyframe, data }) => {
                    let sync = if keyframe { SyncKind::Idr } else { SyncKind::None };
                    Some(frame(time + i64::from(cts_ms) * 90, sync, data))
                }
                _ => None,
            },
            TrackKind::Audio => match FlvAudio::parse(tag.body.clone()).unwrap() {
                Some(FlvAudio::SequenceHeader(asc)) => {
                    Some(config(TrackConfig::Audio(AudioConfig::from_asc(asc).unwrap())))
                }
                Some(FlvAudio::Raw(data)) => Some(frame(time, SyncKind::Idr, data)),
                _ => None,
            },
        });
    }
    events
}

/// A codec of either track.
#[derive(Clone, Copy)]
enum Codec {
    Video(VideoCodec),
    Audio(AudioCodec),
}

fn left() -> SourceEvent {
    SourceEvent::End(CloseReason::PublisherLeft.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn session_publishes_the_frames_of_a_source_that_is_not_rtmp() {
    let world = World::start().await;
    let (_clip, tags) = tags(ClipSpec { frames: 150, ..ClipSpec::default() }).await;
    let (stream, key) = world.control.stream();
    let mut consumer = Consumer::of(&world.bus, stream).await;
    let metadata = SourceMetadata { video_bitrate: Some(1_000_000), ..SourceMetadata::default() };
    let script = [SourceEvent::Metadata(metadata)].into_iter().chain(events(&tags)).chain([left()]);
    let mut source = Synthetic::new(&key, script);
    let end = world.node.publish(&mut source).await;
    assert_eq!(end.reason, CloseReason::PublisherLeft);
    assert!(source.accepted);
    assert_eq!(source.closed, [end]);
    let messages = consumer.read_to_end().await;
    check_order(messages);
    for track in [Track::Video, Track::Audio] {
        assert_eq!(frames(messages, track), pushed(&tags, track), "{track:?}");
    }
    assert_eq!(world.control.seen.lock().unwrap().claims[0].protocol, "synthetic");
    assert_eq!(world.control.released(stream).await.reason, CloseReason::PublisherLeft);
    assert_eq!(world.metric("millrace_ingest_frames_total{track=\"video\"}"), 150);
}

#[tokio::test(flavor = "multi_thread")]
async fn session_refuses_a_source_with_an_unknown_key() {
    let world = World::start().await;
    let key: StreamKey = "ffffffffffffffffffffffffffffffff".parse().unwrap();
    let mut source = Synthetic::new(&key, []);
    let end = world.node.publish(&mut source).await;
    assert_eq!(end, CloseReason::UnknownKey.into());
    assert!(!source.accepted);
    assert_eq!(source.closed, [end]);
}

#[tokio::test(flavor = "multi_thread")]
async fn session_closes_a_source_whose_key_is_taken_over() {
    let world = Arc::new(World::start().await);
    let (_clip, tags) = tags(ClipSpec { frames: 30, ..ClipSpec::default() }).await;
    let (stream, key) = world.control.stream();
    let mut consumer = Consumer::of(&world.bus, stream).await;
    // This one never ends by itself.
    let mut older = Synthetic::new(&key, events(&tags));
    let node = world.clone();
    let running = tokio::spawn(async move {
        let end = node.node.publish(&mut older).await;
        (older, end)
    });
    consumer.until(|messages| !frames(messages, Track::Video).is_empty()).await;
    let mut newer = Synthetic::new(&key, events(&tags).into_iter().chain([left()]));
    assert_eq!(world.node.publish(&mut newer).await.reason, CloseReason::PublisherLeft);
    let (older, end) = running.await.unwrap();
    assert_eq!(end, CloseReason::TakenOver.into());
    assert_eq!(older.closed, [end]);
}

#[tokio::test(flavor = "multi_thread")]
async fn session_requests_a_keyframe_before_it_ends_a_source_without() {
    let world =
        World::with(Config { max_keyframe_interval_s: 10, ..config() }, Arc::new(MemBus::new())).await;
    // 12 s with one keyframe.
    let (_clip, tags) = tags(ClipSpec { frames: 360, gop: 360, audio: false, ..ClipSpec::default() }).await;
    let (_, key) = world.control.stream();
    let mut source = Synthetic::new(&key, events(&tags));
    let end = world.node.publish(&mut source).await;
    assert_eq!(end.reason, CloseReason::KeyframeInterval);
    assert!(end.text.contains("no keyframe for 10 s"), "{}", end.text);
    assert_eq!(source.keyframe_requests, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn session_refuses_configurations_of_codecs_that_are_not_accepted() {
    let world = World::start().await;
    let (_clip, tags) = tags(ClipSpec { frames: 30, ..ClipSpec::default() }).await;
    for (codec, name) in [
        (Codec::Video(VideoCodec::Hevc), "HEVC"),
        (Codec::Video(VideoCodec::Av1), "AV1"),
        (Codec::Audio(AudioCodec::Opus), "Opus"),
        (Codec::Audio(AudioCodec::Mp3), "MP3"),
    ] {
        let (stream, key) = world.control.stream();
        let events = events(&tags).into_iter().map(|event| match (event, codec) {
            (SourceEvent::Config { position, config: TrackConfig::Video(video) }, Codec::Video(codec)) => {
                SourceEvent::Config { position, config: TrackConfig::Video(VideoConfig { codec, ..video }) }
            }
            (SourceEvent::Config { position, config: TrackConfig::Audio(audio) }, Codec::Audio(codec)) => {
                SourceEvent::Config { position, config: TrackConfig::Audio(AudioConfig { codec, ..audio }) }
            }
            (event, _) => event,
        });
        let end = world.node.publish(&mut Synthetic::new(&key, events)).await;
        assert_eq!(end.reason, CloseReason::CodecNotAccepted);
        assert!(end.text.contains(&format!("{name} is not accepted")), "{}", end.text);
        assert_eq!(world.control.released(stream).await.reason, CloseReason::CodecNotAccepted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn session_tells_what_lasts_and_ends_a_source_of_which_nothing_is_usable() {
    const STEP: Duration = Duration::from_millis(100);
    let clock = ManualClock::at_unix_ms(1_700_000_000_000);
    let world = World::with_clock(clock.clone()).await;
    let (_clip, tags) = tags(ClipSpec { frames: 30, audio: false, ..ClipSpec::default() }).await;
    let (stream, key) = world.control.stream();
    let mut offers = world.bus.subscribe(topics::offer().subject(), 64).await.unwrap();
    let mut consumer = world.bus.subscribe(&format!("media.{stream}.*"), 64).await.unwrap();
    // Ten pictures a second for 40 s, and no sequence header.
    let picture = events(&tags).into_iter().find_map(|event| match event {
        SourceEvent::Frame(frame) => Some(frame),
        _ => None,
    });
    let picture = picture.unwrap();
    let pictures = (0..400).map(|number| {
        let time = number * 9_000;
        let position = MessagePosition { number: number as u64 + 1, time, ..picture.position };
        SourceEvent::Frame(SourceFrame { position, presentation_time: time, ..picture.clone() })
    });
    let mut source = Synthetic { clock: Some((clock, STEP)), ..Synthetic::new(&key, pictures) };
    let end = world.node.publish(&mut source).await;
    let text = "no usable media for 30 s: the encoder sends no sequence header";
    assert_eq!((end.reason, end.text.as_str()), (CloseReason::NoUsableMedia, text));
    assert_eq!(source.closed, [end]);
    let release = world.control.released(stream).await;
    assert_eq!((release.reason, release.text.as_str()), (CloseReason::NoUsableMedia, text));
    assert_eq!(release.open_msn, None, "nothing was published");
    let dropped = world.metric("millrace_ingest_repairs_total{reason=\"unconfigured_picture\"}");
    assert!((300..=310).contains(&dropped), "{dropped}");
    let notes: Vec<_> = world
        .control
        .seen
        .lock()
        .unwrap()
        .renewals
        .iter()
        .flat_map(|renewal| renewal.notes.clone())
        .collect();
    let note = notes.first().expect("the note reached control");
    assert_eq!(note.code, "no_usable_picture");
    assert_eq!(note.text, "No usable picture for 5 s: the encoder sends no sequence header.");
    // The epoch's end is the only message, and no worker was asked for.
    let last = MediaReader::default().push(consumer.recv().await.unwrap().payload).unwrap().unwrap();
    assert!(last.end && last.units.is_empty());
    assert!(offers.try_recv().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn session_limits_the_bitrate_of_every_source() {
    let world = World::with(Config { max_bitrate: 8_000, ..config() }, Arc::new(MemBus::new())).await;
    let (_clip, tags) = tags(ClipSpec { frames: 30, ..ClipSpec::default() }).await;
    let (_, key) = world.control.stream();
    let mut source = Synthetic { bytes: 1_000, ..Synthetic::new(&key, events(&tags)) };
    assert_eq!(world.node.publish(&mut source).await.reason, CloseReason::BitrateExceeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn session_ends_a_source_after_256_bad_messages_in_a_row() {
    let world = World::start().await;
    let (_, key) = world.control.stream();
    let bad = |number| {
        let (track, timescale) = (TrackKind::Audio, Timescale::MILLIS);
        let position = MessagePosition { track, number, time: number as i64, timescale };
        Err(MediaError { position, fault: MediaFault::malformed(std::io::Error::other("broken")) })
    };
    let mut source = Synthetic { script: (1..=300).map(bad).collect(), ..Synthetic::new(&key, []) };
    let end = world.node.publish(&mut source).await;
    assert_eq!(end.reason, CloseReason::UnreadableMedia);
    assert_eq!(end.text, "audio message 257 at 0.257 s: broken");
    assert_eq!(world.metric("millrace_ingest_bad_media_total"), 257);
}
