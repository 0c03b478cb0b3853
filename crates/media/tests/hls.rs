//! Playlists: text, model and succession.
#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use millrace_media::hls::checker::{Checker, Rule};
use millrace_media::hls::{
    Map, MediaPlaylist, MediaRendition, MultivariantPlaylist, OpenSegment, Part, PreloadHint,
    RenditionReport, Segment, ServerControl, Start, Variant, part_hold_back,
};
use proptest::prelude::*;

const PART: Duration = Duration::from_millis(333);
const PART_TARGET: Duration = Duration::from_millis(355);

fn part(msn: u64, index: usize) -> Part {
    Part { uri: format!("{msn}.{index}.m4s").into(), duration: PART, independent: index == 0, gap: false }
}

fn segment(msn: u64) -> Segment {
    Segment {
        uri: format!("{msn}.m4s").into(),
        duration: Duration::from_secs(2),
        map: Some(Map { uri: "init-0.mp4".into() }),
        program_date_time: Some(1_700_000_000_000 + msn as i64 * 2000),
        parts: (0..6).map(|index| part(msn, index)).collect(),
        ..Segment::default()
    }
}

/// A window of eight segments and some parts of the next.
fn playlist(first: u64, open_parts: usize) -> MediaPlaylist {
    let next = first + 8;
    let mut playlist = MediaPlaylist {
        target_duration: 4,
        part_target: Some(PART_TARGET),
        server_control: Some(ServerControl {
            can_block_reload: true,
            part_hold_back: Some(part_hold_back(PART_TARGET)),
            hold_back: None,
            can_skip_until: Some(Duration::from_secs(24)),
        }),
        media_sequence: first,
        independent_segments: true,
        segments: (first..next).map(segment).collect(),
        open: (open_parts > 0).then(|| OpenSegment {
            discontinuity: false,
            map: Some(Map { uri: "init-0.mp4".into() }),
            program_date_time: Some(1_700_000_000_000 + next as i64 * 2000),
            parts: (0..open_parts).map(|index| part(next, index)).collect(),
        }),
        preload_hint: Some(PreloadHint::Part(part(next, open_parts).uri)),
        ..MediaPlaylist::default()
    };
    playlist.drop_old_parts();
    playlist
}

#[test]
fn low_latency_playlist_renders_all_its_tags() {
    let mut playlist = playlist(7, 1);
    playlist.segments = vec![segment(7)];
    playlist.segments[0].parts.truncate(1);
    playlist.segments[0].discontinuity = true;
    playlist.segments[0].parts[0].gap = true;
    playlist.segments.push(Segment { gap: true, parts: vec![], program_date_time: None, ..segment(8) });
    playlist.discontinuity_sequence = 3;
    playlist.rendition_reports.push(RenditionReport {
        uri: "../audio/index.m3u8".into(),
        last_msn: 9,
        last_part: Some(0),
    });
    playlist.ended = true;
    let expected = "#EXTM3U
#EXT-X-VERSION:9
#EXT-X-TARGETDURATION:4
#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL=24.0,PART-HOLD-BACK=1.065
#EXT-X-PART-INF:PART-TARGET=0.355
#EXT-X-MEDIA-SEQUENCE:7
#EXT-X-DISCONTINUITY-SEQUENCE:3
#EXT-X-INDEPENDENT-SEGMENTS
#EXT-X-DISCONTINUITY
#EXT-X-MAP:URI=\"init-0.mp4\"
#EXT-X-PROGRAM-DATE-TIME:2023-11-14T22:13:34.000Z
#EXT-X-PART:DURATION=0.333,URI=\"7.0.m4s\",INDEPENDENT=YES,GAP=YES
#EXTINF:2.0,
7.m4s
#EXT-X-GAP
#EXTINF:2.0,
8.m4s
#EXT-X-PROGRAM-DATE-TIME:2023-11-14T22:13:50.000Z
#EXT-X-PART:DURATION=0.333,URI=\"15.0.m4s\",INDEPENDENT=YES
#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"15.1.m4s\"
#EXT-X-RENDITION-REPORT:URI=\"../audio/index.m3u8\",LAST-MSN=9,LAST-PART=0
#EXT-X-ENDLIST
";
    assert_eq!(playlist.render(), expected);
}

#[test]
fn plain_playlist_renders_no_low_latency_tags() {
    let mut playlist = playlist(7, 0);
    playlist.part_target = None;
    playlist.server_control = None;
    playlist.preload_hint = None;
    playlist.segments.iter_mut().for_each(|segment| segment.parts.clear());
    let text = playlist.render();
    assert!(text.starts_with("#EXTM3U\n#EXT-X-VERSION:6\n"));
    assert!(!text.contains("PART") && !text.contains("SERVER-CONTROL") && !text.contains("DISCONTINUITY"));
    assert_eq!(text.matches("EXT-X-MAP").count(), 1);
    playlist.server_control = Some(ServerControl::default());
    assert_eq!(playlist.render(), text);
}

#[test]
fn multivariant_playlist_renders_every_attribute_once() {
    let playlist = MultivariantPlaylist {
        independent_segments: true,
        audio: vec![MediaRendition {
            group_id: "audio".into(),
            name: "Audio".into(),
            uri: Some("audio/index.m3u8".into()),
            language: None,
            default: true,
            autoselect: true,
            channels: Some(2),
        }],
        variants: vec![Variant {
            uri: "video/index.m3u8".into(),
            bandwidth: 3_000_000,
            average_bandwidth: Some(2_500_000),
            codecs: "avc1.64001f,mp4a.40.2".into(),
            resolution: Some((1280, 720)),
            frame_rate_milli: Some(29_970),
            audio: Some("audio".into()),
        }],
    };
    let expected = "#EXTM3U
#EXT-X-VERSION:6
#EXT-X-INDEPENDENT-SEGMENTS
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"audio\",NAME=\"Audio\",DEFAULT=YES,AUTOSELECT=YES,CHANNELS=\"2\",URI=\"audio/index.m3u8\"
#EXT-X-STREAM-INF:BANDWIDTH=3000000,AVERAGE-BANDWIDTH=2500000,CODECS=\"avc1.64001f,mp4a.40.2\",RESOLUTION=1280x720,FRAME-RATE=29.970,AUDIO=\"audio\"
video/index.m3u8
";
    assert_eq!(playlist.render(), expected);
    assert_eq!(MultivariantPlaylist::parse(expected).unwrap(), playlist);
    assert!(MultivariantPlaylist::parse("#EXTM3U\nx.m3u8\n").is_err());
    assert!(MultivariantPlaylist::parse("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n").is_err());
    assert!(MediaPlaylist::parse(expected).is_err());
}

#[test]
fn parser_reports_the_line_of_an_error() {
    for (text, line) in [
        ("", 1),
        ("#EXTM3U\n#EXT-X-TARGETDURATION:x\n", 2),
        ("#EXTM3U\n\n#EXT-X-TARGETDURATION:4\n#EXTINF:-1,\n", 4),
        ("#EXTM3U\n#EXT-X-TARGETDURATION:4\na.m4s\n", 3),
        ("#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXT-X-PART:DURATION=1\n", 3),
        ("#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXT-X-PART:DURATION=1,URI=\"a\",URI=\"b\"\n", 3),
        ("#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:99999999999999999999\n", 2),
        ("#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:1\n", 0),
    ] {
        assert_eq!(MediaPlaylist::parse(text).unwrap_err().line, line, "{text:?}");
    }
    let odd = "#EXTM3U\r\n# a comment\r\n#EXT-X-FUTURE:1\r\n#EXT-X-TARGETDURATION:4\r\n#EXTINF:2,title\r\na b.m4s\r\n";
    assert_eq!(&*MediaPlaylist::parse(odd).unwrap().segments[0].uri, "a b.m4s");
}

#[test]
fn delta_update_and_the_playlist_before_give_the_full_playlist() {
    let mut before = playlist(7, 2);
    before.segments.splice(0..0, (0..7).map(segment));
    before.media_sequence = 0;
    before.drop_old_parts();
    let mut after = before.clone();
    after.segments.remove(0);
    after.media_sequence = 1;
    let delta = after.delta().unwrap();
    assert!(delta.skipped_segments > 0);
    let kept: Duration = delta.segments.iter().map(|segment| segment.duration).sum();
    assert!(kept >= Duration::from_secs(24).checked_sub(PART * 2).unwrap());
    let text = delta.render();
    assert!(text.contains("#EXT-X-SKIP:SKIPPED-SEGMENTS="));
    assert_eq!(MediaPlaylist::parse(&text).unwrap().with_skipped_from(&before).unwrap(), after);
    assert!(delta.delta().is_none());
    let mut checker = Checker::new();
    assert_eq!(checker.check_playlist(&before), []);
    assert_eq!(checker.check(&text), []);
    assert_eq!(Checker::new().check(&text)[0].rule, Rule::DeltaWithoutBase);
}

#[test]
fn checker_accepts_a_growing_stream() {
    let mut checker = Checker::new();
    for first in 10..20 {
        for open in 0..6 {
            let mut playlist = playlist(first, open);
            // One discontinuity passes through the window.
            for segment in &mut playlist.segments {
                segment.discontinuity = *segment.uri == *"15.m4s";
            }
            playlist.discontinuity_sequence = u64::from(first > 15);
            assert_eq!(checker.check(&playlist.render()), [], "{first} {open}");
        }
    }
}

/// Playlist pairs, each with a rule that it breaks.
#[test]
fn checker_reports_each_violation() {
    type Change = fn(&mut MediaPlaylist);
    let cases: [(Rule, Change); 27] = [
        (Rule::TargetDurationExceeded, |p| p.segments[7].duration = Duration::from_millis(4500)),
        (Rule::TargetDurationChanged, |p| p.target_duration = 5),
        (Rule::PartTargetExceeded, |p| p.segments[7].parts[3].duration = Duration::from_millis(356)),
        (Rule::PartTooShort, |p| p.segments[7].parts[3].duration = Duration::from_millis(300)),
        (Rule::PartTargetChanged, |p| p.part_target = Some(Duration::from_millis(360))),
        (Rule::PartInfMissing, |p| p.part_target = None),
        (Rule::PartHoldBack, |p| p.server_control = None),
        (Rule::HoldBack, |p| p.server_control.as_mut().unwrap().hold_back = Some(Duration::from_secs(6))),
        (Rule::CanSkipUntil, |p| {
            p.server_control.as_mut().unwrap().can_skip_until = Some(Duration::from_secs(12));
        }),
        (Rule::PartsExceedSegment, |p| p.segments[7].duration = Duration::from_millis(1900)),
        (Rule::PreloadHintMissing, |p| p.preload_hint = None),
        (Rule::PreloadHintStale, |p| p.preload_hint = Some(PreloadHint::Part("18.1.m4s".into()))),
        (Rule::MapMissing, |p| p.segments.iter_mut().for_each(|segment| segment.map = None)),
        (Rule::MapChangedWithoutDiscontinuity, |p| {
            p.open.as_mut().unwrap().map.as_mut().unwrap().uri = "init-1.mp4".into();
        }),
        (Rule::MediaSequenceBackwards, |p| *p = playlist(9, 3)),
        (Rule::DiscontinuitySequenceBackwards, |p| p.discontinuity_sequence = 3),
        (Rule::DiscontinuitySequenceMiscounted, |p| p.discontinuity_sequence = 6),
        (Rule::PositionBackwards, |p| p.open.as_mut().unwrap().parts.truncate(1)),
        (Rule::SegmentChanged, |p| p.segments[7].uri = "other.m4s".into()),
        (Rule::SegmentChanged, |p| p.segments[6].gap = true),
        (Rule::PartChanged, |p| p.segments[7].parts[2].uri = "other.m4s".into()),
        (Rule::PartRemovedEarly, |p| p.segments[6].parts.clear()),
        (Rule::UriReused, |p| p.open.as_mut().unwrap().parts[2].uri = "12.m4s".into()),
        (Rule::WindowTooShort, |p| {
            p.segments.drain(..5);
            p.media_sequence += 5;
        }),
        (Rule::DateBackwards, |p| p.open.as_mut().unwrap().program_date_time = Some(1_600_000_000_000)),
        (Rule::GapMissing, |p| p.open.as_mut().unwrap().program_date_time = Some(1_700_000_100_000)),
        (Rule::Parses, |p| p.segments[7].uri = "".into()),
    ];
    for (rule, change) in cases {
        let mut checker = Checker::new();
        let with_sequence = |mut playlist: MediaPlaylist| {
            playlist.discontinuity_sequence += 5;
            playlist
        };
        assert_eq!(checker.check_playlist(&with_sequence(playlist(10, 2))), []);
        let mut next = with_sequence(playlist(10, 3));
        change(&mut next);
        let found = checker.check(&next.render());
        assert!(found.iter().any(|violation| violation.rule == rule), "{rule:?}: {found:?}");
    }
    let mut checker = Checker::new();
    let mut ended = playlist(10, 2);
    ended.ended = true;
    assert_eq!(checker.check_playlist(&ended), []);
    assert!(checker.check_playlist(&playlist(10, 3)).iter().any(|v| v.rule == Rule::ChangedAfterEnd));
}

fn uri() -> impl Strategy<Value = Arc<str>> {
    "[a-z0-9/._-]{1,20}( ?[a-z%?=&]{1,5})?".prop_map(Arc::from)
}

fn duration() -> impl Strategy<Value = Duration> {
    (0u64..20_000_000).prop_map(Duration::from_micros)
}

fn any_part() -> impl Strategy<Value = Part> {
    (uri(), duration(), any::<bool>(), any::<bool>()).prop_map(|(uri, duration, independent, gap)| Part {
        uri,
        duration,
        independent,
        gap,
    })
}

fn date() -> impl Strategy<Value = Option<i64>> {
    prop::option::of(0i64..4_000_000_000_000)
}

prop_compose! {
    fn any_segment()(
        uri in uri(), duration in duration(), discontinuity: bool, gap: bool, map in uri(), date in date(),
        parts in prop::collection::vec(any_part(), 0..4),
    ) -> Segment {
        Segment { uri, duration, discontinuity, gap, map: Some(Map { uri: map }), program_date_time: date, parts }
    }
}

prop_compose! {
    fn any_open()(
        discontinuity: bool, map in uri(), date in date(), parts in prop::collection::vec(any_part(), 1..4),
    ) -> OpenSegment {
        OpenSegment { discontinuity, map: Some(Map { uri: map }), program_date_time: date, parts }
    }
}

prop_compose! {
    fn any_playlist()(
        (target_duration, part_target, media_sequence, discontinuity_sequence) in
            (1u32..20, prop::option::of(duration()), 0u64..1 << 62, any::<u64>()),
        (independent_segments, ended, skipped_segments) in (any::<bool>(), any::<bool>(), 0u64..50),
        start in prop::option::of((-900_000_000i32..900_000_000, any::<bool>())),
        segments in prop::collection::vec(any_segment(), 0..6),
        open in prop::option::of(any_open()),
        hint in prop::option::of((uri(), any::<bool>())),
        reports in prop::collection::vec((uri(), any::<u64>(), prop::option::of(any::<u64>())), 0..3),
        control in prop::option::of((duration(), prop::option::of(duration()), prop::option::of(duration()))),
    ) -> MediaPlaylist {
        MediaPlaylist {
            target_duration, part_target, media_sequence, discontinuity_sequence, independent_segments, ended,
            skipped_segments, segments, open,
            start: start.map(|(time_offset_ms, precise)| Start { time_offset_ms, precise }),
            preload_hint: hint.map(|(uri, part)| if part { PreloadHint::Part(uri) } else { PreloadHint::Map(uri) }),
            rendition_reports: reports
                .into_iter()
                .map(|(uri, last_msn, last_part)| RenditionReport { uri, last_msn, last_part })
                .collect(),
            server_control: control.map(|(hold, part, skip)| ServerControl {
                can_block_reload: true,
                hold_back: Some(hold),
                part_hold_back: part,
                can_skip_until: skip,
            }),
        }
    }
}

proptest! {
    #[test]
    fn rendered_playlist_is_parsed_back(playlist in any_playlist()) {
        prop_assert_eq!(MediaPlaylist::parse(&playlist.render()).unwrap(), playlist);
    }

    #[test]
    fn parser_never_panics(
        playlist in any_playlist(),
        cuts in prop::collection::vec((0usize..4000, "[#A-Z0-9:=,\"\n.é-]{0,8}"), 0..8),
        noise in ".{0,200}",
    ) {
        let mut text = playlist.render();
        for (at, insert) in cuts {
            let at = (0..=at % text.len()).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.insert_str(at, &insert);
        }
        let mut checker = Checker::new();
        checker.check_playlist(&playlist);
        let _ = checker.check(&text);
        let _ = MultivariantPlaylist::parse(&text);
        let _ = MediaPlaylist::parse(&format!("#EXTM3U\n{noise}"));
        let _ = MultivariantPlaylist::parse(&format!("#EXTM3U\n{noise}"));
    }
}
