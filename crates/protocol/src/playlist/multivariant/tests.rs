//! The multivariant playlist of states that tests write down.

use millrace_wire::fact::InitEntry;
use millrace_wire::ids::{BroadcastId, Epoch, FactSeq, Generation, InitVersion, Msn};
use millrace_wire::ladder::{LadderPlan, LadderRung};

use super::*;
use crate::state::apply;

fn rendition(media: TrackMedia, codecs: &str, bandwidth: u64) -> RenditionState {
    let info = TrackInfo { media, codecs: codecs.to_owned(), bandwidth, timescale: 90_000 };
    let (version, seq) = (InitVersion(0), FactSeq(1));
    let init = InitEntry { epoch: Epoch(1), version, generation: Generation(1), seq, info };
    RenditionState { inits: vec![init], ..RenditionState::default() }
}

fn stream(renditions: &[(&str, RenditionState)]) -> StreamState {
    let named = renditions.iter().map(|(name, rendition)| (name.parse().unwrap(), rendition.clone()));
    StreamState { renditions: named.collect(), ..apply::empty(BroadcastId::from_u128(1)) }
}

const AUDIO: TrackMedia = TrackMedia::Audio { channels: 2, sample_rate: 48_000 };
const VIDEO: TrackMedia = TrackMedia::Video { width: 1280, height: 720, frame_rate_milli: None };

#[test]
fn multivariant_lists_each_video_once_per_audio_codec_with_the_codecs_of_both() {
    let state = stream(&[
        ("german", rendition(AUDIO, "mp4a.40.2", 128_000)),
        ("english", rendition(AUDIO, "mp4a.40.2", 192_000)),
        ("low-delay", rendition(AUDIO, "opus", 96_000)),
        ("video", rendition(VIDEO, "av01.0.05M.08", 2_000_000)),
        ("small", rendition(VIDEO, "hvc1.1.6.L93.B0", 500_000)),
    ]);
    let playlist = multivariant(&state).unwrap();
    let variants: Vec<_> = playlist
        .variants
        .iter()
        .map(|v| (v.uri.as_str(), v.codecs.as_str(), v.bandwidth, v.audio.as_deref().unwrap()))
        .collect();
    let expected = [
        // A rung declares 5 % more than the peaks of its picture and its audio.
        ("small/index.m3u8", "hvc1.1.6.L93.B0,mp4a.40.2", 726_600, "audio-mp4a.40.2"),
        ("small/index.m3u8", "hvc1.1.6.L93.B0,opus", 625_800, "audio-opus"),
        ("video/index.m3u8", "av01.0.05M.08,mp4a.40.2", 2_192_000, "audio-mp4a.40.2"),
        ("video/index.m3u8", "av01.0.05M.08,opus", 2_096_000, "audio-opus"),
    ];
    assert_eq!(variants, expected);
    let audio: Vec<_> =
        playlist.audio.iter().map(|a| (a.group_id.as_str(), a.name.as_str(), a.default)).collect();
    let expected = [
        ("audio-mp4a.40.2", "english", true),
        ("audio-mp4a.40.2", "german", false),
        ("audio-opus", "low-delay", true),
    ];
    assert_eq!(audio, expected);
}

#[test]
fn multivariant_leaves_out_an_ended_rendition_unless_all_have_ended() {
    let ended = |rendition: RenditionState| {
        let span = millrace_wire::fact::RenditionSpan { first: Msn(1), last: Msn(2) };
        RenditionState { ended: Some(span), ..rendition }
    };
    let (main, small) = (rendition(VIDEO, "avc1.64001f", 2), rendition(VIDEO, "avc1.64001e", 1));
    let uris = |state: &StreamState| {
        multivariant(state).unwrap().variants.iter().map(|v| v.uri.clone()).collect::<Vec<_>>()
    };
    let one = stream(&[("main", main.clone()), ("small", ended(small.clone()))]);
    assert_eq!(uris(&one), ["main/index.m3u8"]);
    let both = stream(&[("main", ended(main)), ("small", ended(small))]);
    assert_eq!(uris(&both), ["small/index.m3u8", "main/index.m3u8"]);
}

/// A source of 1080 lines, three rungs of the template `standard`, and the source's own audio.
fn ladder(encoded_audio: bool) -> StreamState {
    let lines =
        |height: u32| TrackMedia::Video { width: height * 16 / 9, height, frame_rate_milli: Some(30_000) };
    let mut renditions = vec![
        ("video", rendition(lines(1080), "avc1.640028", 6_000_000)),
        ("720p", rendition(lines(720), "avc1.64001f", 2_800_000)),
        ("480p", rendition(lines(480), "avc1.64001e", 1_400_000)),
        ("360p", rendition(lines(360), "avc1.64001e", 800_000)),
        ("audio", rendition(AUDIO, "mp4a.40.2", 128_000)),
    ];
    if encoded_audio {
        renditions.push(("aac", rendition(AUDIO, "mp4a.40.2", 160_000)));
    }
    let rung = |height, bitrate| LadderRung { height, bitrate, fps: None, preset: None, codec: None };
    let rungs = vec![rung(720, 2_800_000), rung(480, 1_400_000), rung(360, 800_000)];
    StreamState { plan: LadderPlan::of_rungs(rungs), ..stream(&renditions) }
}

#[test]
fn multivariant_starts_with_a_middle_rung_and_lists_the_others_by_bandwidth() {
    let playlist = multivariant(&ladder(false)).unwrap();
    let variants: Vec<_> = playlist
        .variants
        .iter()
        .map(|it| (it.uri.as_str(), it.bandwidth, it.resolution.unwrap().1, it.frame_rate_milli))
        .collect();
    let expected = [
        ("480p/index.m3u8", 1_604_400, 480, Some(30_000)),
        ("video/index.m3u8", 6_128_000, 1080, Some(30_000)),
        ("720p/index.m3u8", 3_074_400, 720, Some(30_000)),
        ("360p/index.m3u8", 974_400, 360, Some(30_000)),
    ];
    assert_eq!(variants, expected);
    assert!(playlist.variants.iter().all(|it| it.audio.as_deref() == Some("audio")));
    assert!(playlist.variants.iter().all(|it| it.average_bandwidth.is_none()), "nothing is measured yet");
}

#[test]
fn frame_rates_of_variants_never_exceed_the_sources_and_are_left_out_if_one_is_unknown() {
    let rates = |of_source: Option<u32>| {
        let mut state = ladder(false);
        let source = TrackMedia::Video { width: 1920, height: 1080, frame_rate_milli: of_source };
        state.renditions.insert(Rendition::video(), rendition(source, "avc1.640028", 6_000_000));
        let playlist = multivariant(&state).unwrap();
        playlist.variants.iter().map(|it| it.frame_rate_milli).collect::<Vec<_>>()
    };
    assert_eq!(rates(Some(29_970)), vec![Some(29_970); 4]);
    let [first, source, ..] = rates(Some(60_000))[..] else { panic!("four variants") };
    assert_eq!((first, source), (Some(30_000), Some(60_000)));
    assert_eq!(rates(None), vec![None; 4]);
}

#[test]
fn multivariant_offers_encoded_audio_in_place_of_the_sources() {
    let state = ladder(true);
    let playlist = multivariant(&state).unwrap();
    assert_eq!(playlist.audio.len(), 1);
    assert_eq!(playlist.audio[0].uri.as_deref(), Some("aac/index.m3u8"));
    assert!(playlist.variants.iter().all(|it| it.audio.as_deref() == Some("audio")));
    assert!(offered(&state).all(|name| name.as_str() != "audio"));
}

#[test]
fn multivariant_of_a_rescue_plan_ends_with_the_audio_alone() {
    let mut state = stream(&[
        ("video", rendition(VIDEO, "avc1.64001f", 3_000_000)),
        ("audio", rendition(AUDIO, "mp4a.40.2", 128_000)),
    ]);
    assert_eq!(multivariant(&state).unwrap().variants.len(), 1);
    state.plan.audio_only = true;
    let playlist = multivariant(&state).unwrap();
    let alone = playlist.variants.last().unwrap();
    assert_eq!((alone.uri.as_str(), alone.bandwidth), ("audio/index.m3u8", 128_000));
    assert_eq!((alone.codecs.as_str(), alone.resolution), ("mp4a.40.2", None));
    assert_eq!(alone.audio.as_deref(), Some("audio"));
    assert!(!awaits_renditions(&state), "nothing is encoded");
}

#[test]
fn average_bandwidth_is_measured_over_the_segments_of_the_window() {
    use std::sync::Arc;

    use millrace_wire::fact::{MediaDuration, RenditionSegment, SegmentEntry, SegmentSlot};
    use millrace_wire::ids::{DiscontinuitySeq, UnixMillis};
    let mut state = ladder(false);
    let segment = |bytes: u64| RenditionSegment {
        init_version: InitVersion(0),
        parts: Vec::new(),
        segment: Some(SegmentEntry {
            generation: Generation(1),
            seq: FactSeq(1),
            duration: MediaDuration::from_secs(2),
            independent: true,
            bytes,
            parts: 1,
        }),
        stored: true,
    };
    for msn in 0..3 {
        let tracks = [("720p", 617_500), ("audio", 30_000)]
            .map(|(name, bytes): (&str, u64)| (name.parse().unwrap(), segment(bytes)));
        state.slots.push_back(Arc::new(SegmentSlot {
            msn: Msn(msn),
            epoch: Epoch(1),
            discontinuity_sequence: DiscontinuitySeq(0),
            program_date_time: UnixMillis(0),
            gap: None,
            rendition_gaps: BTreeMap::new(),
            tracks: tracks.into(),
        }));
    }
    let averages = |state: &StreamState| -> Vec<_> {
        multivariant(state).unwrap().variants.iter().filter_map(|it| it.average_bandwidth).collect()
    };
    // 2.47 Mb/s of pictures and 120 kb/s of sound, each rounded up to two digits.
    assert_eq!(averages(&state), [2_620_000]);
    state.slots.pop_back();
    assert!(averages(&state).is_empty(), "two segments are too few");
}

#[test]
fn renditions_are_awaited_until_every_rung_below_the_source_and_the_audio_is_described() {
    let mut state = ladder(false);
    assert!(!awaits_renditions(&state));
    state.renditions.remove(&"360p".parse().unwrap());
    assert!(awaits_renditions(&state));
    let sealed = StreamState { sealed: true, ..state.clone() };
    assert!(!awaits_renditions(&sealed), "no rung comes any more");
    let mut small = ladder(false);
    for name in ["720p", "480p"] {
        small.renditions.remove(&name.parse().unwrap());
    }
    assert!(awaits_renditions(&small));
    let source = TrackMedia::Video { width: 640, height: 360, frame_rate_milli: None };
    small.renditions.insert(Rendition::video(), rendition(source, "avc1.64001e", 900_000));
    assert!(!awaits_renditions(&small), "rungs above the source are not made");
    let mono = TrackMedia::Audio { channels: 1, sample_rate: 44_100 };
    let mut other = ladder(false);
    other.renditions.insert(Rendition::audio(), rendition(mono, "mp4a.40.5", 64_000));
    assert!(awaits_renditions(&other), "such audio is encoded");
    other.renditions.insert(ENCODED_AUDIO.parse().unwrap(), rendition(AUDIO, "mp4a.40.2", 128_000));
    assert!(!awaits_renditions(&other));
}
