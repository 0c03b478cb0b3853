//! Audio as ingest stamps it: a stream of one track.
#![allow(dead_code, reason = "each test file uses its part")]

use bytes::Bytes;
use millrace_media::frame::AudioConfig;
use millrace_wire::fact::EpochOpen;
use millrace_wire::ids::{BroadcastId, DiscontinuitySeq, Epoch, InitVersion, MediaSeq, Msn, UnixMillis};
use millrace_wire::message::media::{Codec, ConfigUnit, FrameUnit, MediaMessage, MediaUnit, Track};

/// Samples per second of the test's audio, and per frame.
pub(crate) const RATE: i64 = 48_000;
pub(crate) const FRAME: i64 = 1024;
pub(crate) const FIRST: u64 = 1000;
pub(crate) const SEGMENT_SECONDS: i64 = 2;

pub(crate) fn open() -> EpochOpen {
    EpochOpen {
        broadcast: BroadcastId::from_u128(1),
        airing: millrace_wire::ids::Airing::FIRST,
        first_msn: Msn(FIRST),
        discontinuity_sequence: DiscontinuitySeq(3),
        program_date_time: UnixMillis(1_700_000_000_000),
        target_duration: 4,
        lead_gaps: 0,
        plan: millrace_wire::ladder::LadderPlan::default(),
    }
}

fn segment_of(pts: i64) -> i64 {
    pts.div_euclid(RATE * SEGMENT_SECONDS)
}

fn msn_of(pts: i64) -> Msn {
    Msn(FIRST + segment_of(pts) as u64)
}

/// Returns the frame that is presented at `pts`.
pub(crate) fn frame(pts: i64, data: Bytes) -> FrameUnit {
    FrameUnit {
        track: Track::Audio,
        msn: msn_of(pts),
        discontinuity_sequence: DiscontinuitySeq(3),
        init_version: InitVersion(0),
        dts: pts,
        cts: 0,
        keyframe: true,
        boundary: segment_of(pts - FRAME) < segment_of(pts),
        independent: true,
        discontinuity: false,
        duration: 0,
        may_be_last: false,
        data: data.into(),
    }
}

/// Returns the configuration in the segment that is open at `pts`.
pub(crate) fn config(pts: i64, record: Bytes) -> MediaUnit {
    MediaUnit::Config(ConfigUnit {
        codec: Codec::Aac,
        msn: msn_of(pts),
        discontinuity_sequence: DiscontinuitySeq(3),
        init_version: InitVersion(0),
        bit_rate: 128_000,
        record: record.into(),
    })
}

/// `seconds` of audio, one frame a message; every segment's first message repeats the configuration.
pub(crate) fn messages(seconds: i64) -> Vec<MediaMessage> {
    let asc = AudioConfig::aac_lc(RATE as u32, 2).unwrap().record;
    let frames = seconds * RATE / FRAME;
    (0..frames)
        .map(|n| {
            let pts = n * FRAME;
            let frame = frame(pts, Bytes::from(n.to_be_bytes().to_vec()));
            let config = frame.boundary.then(|| config(pts, asc.clone()));
            let units = config.into_iter().chain([MediaUnit::Frame(frame)]).collect();
            MediaMessage { epoch: Epoch(1), seq: MediaSeq(n as u64), end: n + 1 == frames, units }
        })
        .collect()
}
