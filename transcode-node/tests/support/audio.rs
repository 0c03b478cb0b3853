//! Audio as ingest stamps it: a stream of one track.
#![allow(dead_code, reason = "each test file uses its part")]

use bytes::Bytes;
use millrace_media::frame::AudioConfig;
use millrace_wire::fact::EpochOpen;
use millrace_wire::ids::{BroadcastId, DiscontinuitySeq, Epoch, InitVersion, MediaSeq, Msn, UnixMillis};
use millrace_wire::message::media::{MediaMessage, MediaUnit, Track, UnitKind};

/// Samples per second of the test's audio, and per frame.
pub(crate) const RATE: i64 = 48_000;
pub(crate) const FRAME: i64 = 1024;
pub(crate) const FIRST: u64 = 1000;
pub(crate) const SEGMENT_SECONDS: i64 = 2;

pub(crate) fn open() -> EpochOpen {
    EpochOpen {
        broadcast: BroadcastId::from_u128(1),
        first_msn: Msn(FIRST),
        discontinuity_sequence: DiscontinuitySeq(3),
        program_date_time: UnixMillis(1_700_000_000_000),
        target_duration: 4,
        lead_gaps: 0,
    }
}

pub(crate) fn unit(kind: UnitKind, pts: i64, data: Bytes) -> MediaUnit {
    let segment = pts / (RATE * SEGMENT_SECONDS);
    let before = (pts - FRAME).div_euclid(RATE * SEGMENT_SECONDS);
    MediaUnit {
        track: Track::Audio,
        kind,
        msn: Msn(FIRST + segment as u64),
        discontinuity_sequence: DiscontinuitySeq(3),
        init_version: InitVersion(0),
        dts: pts,
        cts: 0,
        keyframe: true,
        boundary: kind == UnitKind::Frame && before < segment,
        independent: true,
        discontinuity: false,
        data: data.into(),
    }
}

/// `seconds` of audio, one frame a message; every segment's first message repeats the configuration.
pub(crate) fn messages(seconds: i64) -> Vec<MediaMessage> {
    let asc = AudioConfig::aac_lc(RATE as u32, 2).unwrap().record;
    let frames = seconds * RATE / FRAME;
    (0..frames)
        .map(|n| {
            let pts = n * FRAME;
            let frame = unit(UnitKind::Frame, pts, Bytes::from(n.to_be_bytes().to_vec()));
            let config =
                frame.boundary.then(|| unit(UnitKind::Config { bandwidth: 128_000 }, pts, asc.clone()));
            let units = config.into_iter().chain([frame]).collect();
            MediaMessage { epoch: Epoch(1), seq: MediaSeq(n as u64), end: n + 1 == frames, units }
        })
        .collect()
}
