//! The metadata a publisher declares, and the configurations and bandwidths that follow from it.
#![allow(clippy::unwrap_used, reason = "a helper fails its test by panicking")]

mod support;

use millrace_link::media_convert;
use millrace_media::container::cmaf::init_segment;
use millrace_media::container::flv::file::{Tag, TagKind};
use millrace_media::frame::{AudioConfig, MediaEvent, SegmentTag, TaggedFrame, TrackConfig, TrackKind};
use millrace_media::packager::{Output, Packager, PartSetup};
use millrace_testkit::ClipSpec;
use millrace_testkit::ffmpeg::{ffmpeg, output};
use millrace_wire::message::media::{MediaMessage, MediaUnit, Track};
use support::{Consumer, Pusher, World, check_order, frames, pushed, tags};

/// A clip of 5 s with AAC-LC audio at 48 kHz.
fn clip() -> ClipSpec {
    ClipSpec { frames: 150, ..ClipSpec::default() }
}

fn units(messages: &[MediaMessage], track: Track) -> impl Iterator<Item = &MediaUnit> {
    messages.iter().flat_map(|message| &message.units).filter(move |unit| unit.track() == track)
}

fn init_version(unit: &MediaUnit) -> u32 {
    match unit {
        MediaUnit::Config(config) => config.init_version.0,
        MediaUnit::Frame(frame) => frame.init_version.0,
    }
}

async fn publish(declared: &[(&str, millrace_rtmp::Value)], tags: &[Tag]) -> Vec<MediaMessage> {
    let world = World::start().await;
    let (stream, key) = world.control.stream();
    let mut consumer = Consumer::of(&world.bus, stream).await;
    let mut pusher = Pusher::publish(&world.url(&key), 60_000).await.unwrap();
    pusher.metadata(declared).await;
    pusher.push(tags).await.unwrap();
    pusher.unpublish().await;
    consumer.read_to_end().await;
    check_order(&consumer.messages);
    consumer.messages
}

/// Packages the audio of messages as a worker does, into one file.
fn packaged(messages: &[MediaMessage]) -> Vec<u8> {
    let mut packager = Packager::new(PartSetup::Measure { part_ms: 200 });
    let mut file = Vec::new();
    for unit in units(messages, Track::Audio) {
        packager.push(match media_convert::media_event(unit.clone()).unwrap() {
            // Each frame is a segment, so that every part is one frame.
            MediaEvent::Frame(TaggedFrame { tag, frame }) => {
                let tag = SegmentTag { boundary: true, independent: true, ..tag };
                MediaEvent::Frame(TaggedFrame { tag, frame })
            }
            config @ MediaEvent::Init { .. } => config,
        });
    }
    packager.finish();
    while let Some(output) = packager.poll() {
        match output {
            Output::Init(init) => file.extend_from_slice(&init.bytes),
            Output::Part(part) => file.extend(part.body.iter().flatten()),
            _ => {}
        }
    }
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn declared_audio_that_never_arrives_is_replaced_by_decodable_silence() {
    let (_clip, tags) = tags(clip()).await;
    let video: Vec<Tag> = tags.into_iter().filter(|tag| tag.kind == TagKind::Video).collect();
    let declared = [
        ("audiocodecid", 10.0.into()),
        ("audiosamplerate", 44_100.0.into()),
        ("stereo", true.into()),
        ("audiodatarate", 96.0.into()),
        ("videodatarate", 1_000.0.into()),
    ];
    let messages = publish(&declared, &video).await;
    assert_eq!(frames(&messages, Track::Video), pushed(&video, Track::Video));
    let first = &messages[0].units;
    assert!(
        first[0].config().is_some() && first[1].config().is_some(),
        "both tracks from the first message on"
    );
    let expected = TrackConfig::Audio(AudioConfig::aac_lc(44_100, 2).unwrap());
    for config in units(&messages, Track::Audio).filter_map(MediaUnit::config) {
        assert_eq!(config.bit_rate, 100_800);
        assert_eq!(config.init_version.0, 0);
        let config = TrackConfig::Audio(AudioConfig::from_asc(config.record.contiguous()).unwrap());
        assert_eq!(init_segment(&config), init_segment(&expected));
        assert_eq!(config.track(), TrackKind::Audio);
    }
    for config in units(&messages, Track::Video).filter_map(MediaUnit::config) {
        assert_eq!(config.bit_rate, 1_050_000);
    }
    let file = tempfile::Builder::new().suffix(".mp4").tempfile().unwrap();
    std::fs::write(file.path(), packaged(&messages)).unwrap();
    let mut decode = ffmpeg();
    decode.args(["-v", "error", "-xerror", "-i"]).arg(file.path()).args(["-f", "s16le", "pipe:1"]);
    let samples = output(decode).await.unwrap();
    let seconds = samples.len() as f64 / f64::from(44_100 * 2 * 2);
    assert!((4.8..5.1).contains(&seconds), "{seconds} s of silence beside 5 s of pictures");
    assert!(samples.iter().all(|byte| *byte == 0), "not silent");
}

#[tokio::test(flavor = "multi_thread")]
async fn declared_audio_that_arrives_late_follows_silence_under_one_configuration() {
    let (_clip, tags) = tags(clip()).await;
    let late: Vec<Tag> = {
        let (mut header, mut late) = (None, Vec::new());
        for tag in tags {
            match tag.kind {
                TagKind::Audio if header.is_none() => header = Some(tag),
                TagKind::Audio if tag.timestamp_ms < 2_000 => {}
                TagKind::Audio => {
                    late.extend(header.replace(tag.clone()).filter(|header| header.body[1] == 0));
                    late.push(tag);
                }
                _ => late.push(tag),
            }
        }
        late
    };
    let declared =
        [("audiocodecid", 10.0.into()), ("audiosamplerate", 48_000.0.into()), ("stereo", true.into())];
    let messages = publish(&declared, &late).await;
    let real = pushed(&late, Track::Audio);
    let all = frames(&messages, Track::Audio);
    assert!(real.len() > 100 && all.ends_with(&real), "{} of {} frames", real.len(), all.len());
    assert!((85..=96).contains(&(all.len() - real.len())), "two seconds of silence before");
    assert!(units(&messages, Track::Audio).all(|unit| init_version(unit) == 0));
    let audio = || units(&messages, Track::Audio).filter_map(MediaUnit::frame);
    assert!(audio().all(|frame| !frame.discontinuity));
    let times: Vec<i64> = audio().map(|frame| frame.dts).collect();
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] == 1024));
}

#[tokio::test(flavor = "multi_thread")]
async fn untrue_metadata_changes_neither_frames_nor_configurations() {
    let (_clip, tags) = tags(clip()).await;
    let declared = [
        ("audiocodecid", 10.0.into()),
        ("audiosamplerate", 22_050.0.into()),
        ("audiochannels", 1.0.into()),
        ("videodatarate", 1e9.into()),
        ("audiodatarate", 999_999.0.into()),
        ("width", (-1.0).into()),
        ("framerate", f64::NAN.into()),
    ];
    let messages = publish(&declared, &tags).await;
    for track in [Track::Video, Track::Audio] {
        assert_eq!(frames(&messages, track), pushed(&tags, track), "{track:?}");
    }
    // The header arrived in time: the declared configuration is never used.
    assert!(units(&messages, Track::Audio).all(|unit| init_version(unit) == 0));
    for config in units(&messages, Track::Audio).filter_map(MediaUnit::config) {
        assert!(config.bit_rate <= 576_000, "{}", config.bit_rate);
    }
}
