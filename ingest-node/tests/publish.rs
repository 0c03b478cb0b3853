//! Publishers of a node on the in-process bus: every frame is published in order, exactly once.

mod support;

use std::sync::Arc;

use bytes::Bytes;
use millrace_bus::MemBus;
use millrace_ingest::{Config, PathRule, Paths};
use millrace_media::container::flv::file::{Tag, TagKind};
use millrace_rtmp::{ClientConfig, StreamName};
use millrace_testkit::{Clip, ClipSpec, FfmpegPublisher};
use millrace_wire::close_reason::CloseReason;
use millrace_wire::message::control::PublishLimits;
use millrace_wire::message::media::{MediaMessage, MediaReader, MediaUnit, Track};
use millrace_wire::message::repair::{RepairReply, RepairRequest};
use millrace_wire::{topic, topics};
use support::{
    Consumer, FakeControl, LIMIT, Pusher, World, check_order, config, eventually, frames, node, pushed, tags,
};

fn short() -> ClipSpec {
    ClipSpec { frames: 150, ..ClipSpec::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_frame_is_published_exactly_once_byte_for_byte() {
    let world = World::start().await;
    let (_clip, tags) = tags(short()).await;
    for chunk_bytes in [0, 4_096, 60_000, 1_000_000] {
        let (stream, key) = world.control.stream();
        let mut consumer = Consumer::of(&world.bus, stream).await;
        let mut pusher = Pusher::publish(&world.url(&key), chunk_bytes).await.unwrap();
        pusher.push(&tags).await.unwrap();
        pusher.unpublish().await;
        let messages = consumer.read_to_end().await;
        check_order(messages);
        for track in [Track::Video, Track::Audio] {
            assert_eq!(frames(messages, track), pushed(&tags, track), "{track:?}, chunks of {chunk_bytes}");
        }
        let release = world.control.released(stream).await;
        assert_eq!(release.reason, CloseReason::PublisherLeft);
        let last = messages.iter().filter_map(MediaMessage::last_msn).max();
        assert_eq!(release.open_msn, last);
    }
    assert_eq!(world.metric("millrace_ingest_publishers"), 0);
    assert_eq!(world.metric("millrace_ingest_frames_total{track=\"video\"}"), 4 * 150);
}

/// The message of a picture as an encoder sends it that gives each NAL unit a message of its own.
fn units_apart(tag: &Tag) -> Vec<Tag> {
    /// Frame type, codec, packet type and composition offset (Adobe FLV 10.1, §E.4.3).
    const HEADER: usize = 5;
    if tag.kind != TagKind::Video || tag.body[1] != 1 {
        return vec![tag.clone()];
    }
    let (header, mut rest) = tag.body.split_at(HEADER);
    let mut apart = Vec::new();
    while let Some((length, _)) = rest.split_first_chunk::<4>() {
        let (unit, after) = rest.split_at(4 + u32::from_be_bytes(*length) as usize);
        apart.push(Tag { body: Bytes::from([header, unit].concat()), ..*tag });
        rest = after;
    }
    apart
}

#[tokio::test(flavor = "multi_thread")]
async fn slices_in_messages_of_their_own_are_joined_from_the_second_picture_on() {
    let world = World::start().await;
    let (_clip, tags) = tags(ClipSpec { slices: 4, ..short() }).await;
    let apart: Vec<Tag> = tags.iter().flat_map(units_apart).collect();
    assert!(apart.len() > tags.len() + 3 * 150, "four slices in each of 150 pictures");
    let (stream, key) = world.control.stream();
    let mut consumer = Consumer::of(&world.bus, stream).await;
    let mut pusher = Pusher::publish(&world.url(&key), 60_000).await.unwrap();
    pusher.push(&apart).await.unwrap();
    pusher.unpublish().await;
    let messages = consumer.read_to_end().await;
    check_order(messages);
    let (got, whole) = (frames(messages, Track::Video), pushed(&tags, Track::Video));
    assert_eq!(got.len(), whole.len());
    assert!(got[0].len() < whole[0].len(), "the first picture had gone when its second slice came");
    assert_eq!(got[1..], whole[1..]);
    assert_eq!(frames(messages, Track::Audio), pushed(&tags, Track::Audio));
    let repairs = |reason| world.metric(&format!("millrace_ingest_repairs_total{{reason=\"{reason}\"}}"));
    assert_eq!((repairs("slices_joined"), repairs("malformed_picture")), (149 * 3, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_carry_segment_tags_that_follow_the_keyframes() {
    let world = World::start().await;
    let (_clip, tags) = tags(short()).await;
    let (stream, key) = world.control.stream();
    let mut consumer = Consumer::of(&world.bus, stream).await;
    let mut pusher = Pusher::publish(&world.url(&key), 60_000).await.unwrap();
    pusher.push(&tags).await.unwrap();
    pusher.unpublish().await;
    let messages = consumer.read_to_end().await;
    let units: Vec<_> = messages.iter().flat_map(|message| &message.units).collect();
    // 5 s with a keyframe each second: segments of 2 s.
    let starts: Vec<_> =
        units.iter().filter_map(|unit| unit.frame()).filter(|frame| frame.boundary).collect();
    assert_eq!(starts.iter().map(|unit| unit.msn.0).collect::<Vec<_>>(), [100, 101, 102]);
    assert!(starts.iter().all(|unit| unit.keyframe && unit.independent && unit.track == Track::Video));
    assert_eq!(starts[1].dts - starts[0].dts, 180_000);
    assert!(units.iter().all(|unit| unit.discontinuity_sequence().0 == 7));
    // One message for one picture, with the audio since the last one.
    let pictures = |message: &MediaMessage| {
        message.units.iter().filter_map(MediaUnit::frame).filter(|frame| frame.track == Track::Video).count()
    };
    assert!(messages.iter().all(|message| pictures(message) <= 1));
    assert!(messages.len() < 150 + 30, "{} messages", messages.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn ffmpeg_publishes_every_frame() {
    let world = World::start().await;
    let clip = Clip::flv(short()).await.unwrap();
    let (_, tags) = tags(short()).await;
    let (stream, key) = world.control.stream();
    let mut consumer = Consumer::of(&world.bus, stream).await;
    let mut ffmpeg = FfmpegPublisher::push(&world.url(&key), &clip.path, false).unwrap();
    let messages = consumer.read_to_end().await;
    check_order(messages);
    for track in [Track::Video, Track::Audio] {
        assert_eq!(frames(messages, track), pushed(&tags, track), "{track:?}");
    }
    assert!(ffmpeg.process().wait(LIMIT).await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_of_one_track_alone_is_published() {
    let world = World::start().await;
    let (_clip, tags) = tags(short()).await;
    for track in [Track::Video, Track::Audio] {
        let kind = if track == Track::Video {
            millrace_media::container::flv::file::TagKind::Video
        } else {
            millrace_media::container::flv::file::TagKind::Audio
        };
        let tags: Vec<_> = tags.iter().filter(|tag| tag.kind == kind).cloned().collect();
        let (stream, key) = world.control.stream();
        let mut consumer = Consumer::of(&world.bus, stream).await;
        let mut pusher = Pusher::publish(&world.url(&key), 60_000).await.unwrap();
        pusher.push(&tags).await.unwrap();
        pusher.unpublish().await;
        let messages = consumer.read_to_end().await;
        check_order(messages);
        assert_eq!(frames(messages, track), pushed(&tags, track), "{track:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_beyond_the_payload_limit_are_fragmented_and_reassembled() {
    let bus = Arc::new(MemBus::with_max_payload(2_048));
    let world = World::with(config(), bus).await;
    let (_clip, tags) = tags(short()).await;
    let (stream, key) = world.control.stream();
    let mut consumer = Consumer::of(&world.bus, stream).await;
    let mut pusher = Pusher::publish(&world.url(&key), 60_000).await.unwrap();
    pusher.push(&tags).await.unwrap();
    pusher.unpublish().await;
    let messages = consumer.read_to_end().await;
    check_order(messages);
    assert_eq!(frames(messages, Track::Video), pushed(&tags, Track::Video));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_request_gets_exactly_the_lost_messages_again() {
    let world = World::start().await;
    let (_clip, tags) = tags(short()).await;
    let (stream, key) = world.control.stream();
    let mut consumer = Consumer::of(&world.bus, stream).await;
    let mut pusher = Pusher::publish(&world.url(&key), 60_000).await.unwrap();
    pusher.push(&tags).await.unwrap();
    consumer.until(|messages| frames(messages, Track::Video).len() >= 150).await;
    let epoch = consumer.messages[0].epoch;
    let mut repairs =
        world.bus.subscribe(topics::repair_media(stream, epoch).subject(), 1_000).await.unwrap();
    let request = topic::encode(&RepairRequest { ranges: vec![(3, 5), (9, 9), (100_000, 100_001)] }).unwrap();
    let subject = topics::ring_media(stream, epoch).into_subject();
    let reply = world.bus.request(&subject, request, LIMIT).await.unwrap();
    let reply: RepairReply = topic::decode(&reply).unwrap();
    assert_eq!(reply.oldest, Some(0));
    assert!(reply.next >= consumer.messages.len() as u64);
    let mut reader = MediaReader::default();
    let mut again = Vec::new();
    while again.len() < 4 {
        let message = tokio::time::timeout(LIMIT, repairs.recv()).await.unwrap().unwrap();
        again.extend(reader.push(message.payload).unwrap());
    }
    let original: Vec<_> = [3, 4, 5, 9].map(|seq: usize| consumer.messages[seq].clone()).to_vec();
    assert_eq!(again, original);
    // An unreadable request is refused and counted, and changes nothing else.
    world.bus.publish(&subject, "{".into()).unwrap();
    let refused = "millrace_ingest_link_refused_messages_total{topic=\"ring.media\",reason=\"malformed\"}";
    eventually("the refusal of the unreadable request", async || (world.metric(refused) == 1).then_some(()))
        .await;
    assert_eq!(world.metric("millrace_ingest_repair_requests_total"), 1);
    assert_eq!(world.metric("millrace_ingest_repair_messages_total"), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn publishers_side_by_side_lose_no_frame() {
    let world = World::start().await;
    let (_clip, tags) = tags(short()).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (stream, key) = world.control.stream();
        let mut consumer = Consumer::of(&world.bus, stream).await;
        let (url, tags) = (world.url(&key), tags.clone());
        tasks.spawn(async move {
            let mut pusher = Pusher::publish(&url, 4_096).await.unwrap();
            pusher.push(&tags).await.unwrap();
            pusher.unpublish().await;
            let messages = consumer.read_to_end().await;
            check_order(messages);
            assert_eq!(frames(messages, Track::Video), pushed(&tags, Track::Video));
            assert_eq!(frames(messages, Track::Audio), pushed(&tags, Track::Audio));
        });
    }
    tasks.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_whose_connection_broke_may_publish_again() {
    let world = World::start().await;
    let (_clip, tags) = tags(short()).await;
    let (stream, key) = world.control.stream();
    let mut consumer = Consumer::of(&world.bus, stream).await;
    let mut pusher = Pusher::publish(&world.url(&key), 60_000).await.unwrap();
    pusher.push(&tags[..40]).await.unwrap();
    // The connection just breaks.
    drop(pusher);
    consumer.read_to_end().await;
    assert_eq!(world.control.released(stream).await.reason, CloseReason::ConnectionLost);
    let first = consumer.messages[0].epoch;
    consumer.messages.clear();
    let mut pusher = Pusher::publish(&world.url(&key), 60_000).await.unwrap();
    pusher.push(&tags).await.unwrap();
    pusher.unpublish().await;
    let messages = consumer.read_to_end().await;
    check_order(messages);
    assert!(messages[0].epoch > first);
}

#[tokio::test(flavor = "multi_thread")]
async fn lease_renewals_carry_the_open_media_sequence_number() {
    let world = World::start().await;
    let (_clip, tags) = tags(short()).await;
    let (stream, key) = world.control.stream();
    let mut pusher = Pusher::publish(&world.url(&key), 60_000).await.unwrap();
    pusher.push(&tags).await.unwrap();
    eventually("a renewal with the open segment", async || {
        let seen = world.control.seen.lock().unwrap();
        seen.renewals.iter().find(|r| r.stream == stream && r.open_msn.is_some_and(|m| m.0 == 102)).cloned()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_streams_bitrate_limit_ends_a_publisher() {
    let world = World::start().await;
    let (_clip, tags) = tags(short()).await;
    let limits = PublishLimits { max_bitrate: 8_000, ..PublishLimits::default() };
    let (stream, key) = world.control.stream_with(Ok(limits));
    let mut pusher = Pusher::publish(&world.url(&key), 60_000).await.unwrap();
    let _ = pusher.push(&tags).await;
    assert_eq!(pusher.refusal().await.as_deref(), Some("NetStream.Publish.Denied"));
    assert_eq!(world.control.released(stream).await.reason, CloseReason::BitrateExceeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_waits_for_control_and_is_refused_after_the_timeout() {
    let bus: millrace_bus::SharedBus = std::sync::Arc::new(millrace_bus::MemBus::new());
    let control = FakeControl::start(&bus).await;
    let (stream, key) = control.stream();
    let seen = control.stop();
    let config = millrace_ingest::Config { publish_timeout_s: 4, ..config() };
    let (node, _process) = node(&bus, config).await;
    let url = format!("rtmp://{}/live/{}", node.rtmp_addr(), key.reveal());
    assert_eq!(Pusher::publish(&url, 0).await.err().as_deref(), Some("NetStream.Failed"));
    // Control returns while a publisher waits: its first claim request got no answer.
    let mut asked = bus.subscribe(topics::claim().subject(), 16).await.unwrap();
    let waiting = tokio::spawn(async move { Pusher::publish(&url, 0).await });
    tokio::time::timeout(LIMIT, asked.recv()).await.expect("a claim").unwrap();
    drop(asked);
    let control = FakeControl::with(&bus, seen).await;
    let pusher = waiting.await.unwrap().unwrap();
    // Control stops again: the stream goes on.
    let seen = control.stop();
    let (_clip, tags) = tags(short()).await;
    let mut pusher = pusher;
    let mut consumer = Consumer::of(&bus, stream).await;
    pusher.push(&tags).await.unwrap();
    pusher.unpublish().await;
    consumer.read_to_end().await;
    assert_eq!(seen.lock().unwrap().claims.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_an_address_reaches_the_livestream_of_its_key() {
    let paths = [("live", PathRule::Key), ("studio", PathRule::OwnKey)];
    let paths = Paths(paths.map(|(name, rule)| (name.to_owned(), rule)).into());
    let world = World::with(Config { paths, ..config() }, Arc::new(MemBus::new())).await;
    let (stream, key) = world.control.stream();
    let key = key.reveal();
    let forms = [
        // Server and key, as OBS and ffmpeg send them, and as encoders do that add a slash or a query.
        ("live", key.clone()),
        ("live/", format!("/{key}")),
        ("live", format!("{key}?token=a&b=c")),
        ("live?token=a", key.clone()),
        // One URL in the server field.
        (&format!("live/{key}"), String::new()),
        (&format!("live/{key}?token=a"), String::new()),
        // Another application of the table.
        ("studio", key.clone()),
    ];
    for (number, (app, name)) in forms.into_iter().enumerate() {
        let mut form = ClientConfig::from_url(&format!("rtmp://{}/x/y", world.node.rtmp_addr())).unwrap();
        (form.app, form.name) = (app.to_owned(), StreamName::new(name));
        let publisher = Pusher::publish_as(form).await;
        assert!(publisher.is_ok(), "form {number}: {:?}", publisher.err());
        drop(publisher);
        let seen = world.control.seen.clone();
        eventually("the release", async || (seen.lock().unwrap().releases.len() > number).then_some(()))
            .await;
        assert_eq!(seen.lock().unwrap().releases[number].stream, stream, "form {number}");
    }
    let elsewhere = format!("rtmp://{}/other/{key}", world.node.rtmp_addr());
    let refused = Pusher::publish_or_refusal(&elsewhere, 0).await.err().unwrap();
    assert_eq!(refused.0, "NetConnection.Connect.InvalidApp");
    assert_eq!(refused.1, "Publish to the application \"live\" or \"studio\".");
}

#[tokio::test(flavor = "multi_thread")]
async fn publisher_that_answers_pings_is_kept_and_one_that_is_silent_is_closed() {
    let config = Config { ping_interval_s: 1, ping_timeout_s: 2, chunk_bytes: 4_096, ..config() };
    let world = World::with(config, Arc::new(MemBus::new())).await;
    let [(_, first), (_, second)] = [world.control.stream(), world.control.stream()];
    let silent = Pusher::publish(&world.url(&first), 60_000).await.unwrap();
    let mut answering = Pusher::publish(&world.url(&second), 128).await.unwrap();
    assert_eq!(answering.server_chunk_bytes(), 4_096);
    let reading = tokio::spawn(async move { answering.event().await });
    eventually("the silent publisher's end", async || {
        (world.metric("millrace_ingest_closed_total{reason=\"idle\"}") == 1).then_some(())
    })
    .await;
    eventually("one connection", async || (world.metric("millrace_ingest_connections") == 1).then_some(()))
        .await;
    assert!(!reading.is_finished());
    reading.abort();
    drop(silent);
}
