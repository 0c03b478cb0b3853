//! A worker's job at the limits of its log: long holes in the media, long absences of control, failing rungs.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use millrace_protocol::job::{Input, Output, Packaged, SEAL_SILENCE_MS, WorkerJob};
use millrace_protocol::state::apply;
use millrace_protocol::{Machine, Millis};
use millrace_wire::fact::{
    EpochOpen, MediaDuration, Part, RenditionGap, Segment, StreamState, TrackInfo, TrackMedia,
};
use millrace_wire::ids::*;
use millrace_wire::message::announce::{EpochAnnouncement, EpochPhase};
use millrace_wire::message::control::StreamSettings;
use millrace_wire::message::job::{COPY_COST, Grant};
use millrace_wire::message::media::{FrameUnit, MediaMessage, MediaUnit, Track};
use millrace_wire::message::repair::RepairReply;

const EPOCH: Epoch = Epoch(7);
const FIRST: u64 = 100;
const BROADCAST: BroadcastId = BroadcastId::from_u128(3);

fn playback() -> PlaybackId {
    "00112233445566778899aabbccddeeff".parse().unwrap()
}

fn job(base: StreamState) -> WorkerJob {
    let grant = Grant {
        stream: StreamId::from_u128(1),
        playback: playback(),
        session: SessionId::from_u128(2),
        epoch: EPOCH,
        generation: Generation(1),
        open: EpochOpen {
            broadcast: BROADCAST,
            first_msn: Msn(FIRST),
            discontinuity_sequence: DiscontinuitySeq(0),
            program_date_time: UnixMillis(1_700_000_000_000),
            target_duration: 4,
            lead_gaps: 2,
            plan: millrace_wire::ladder::LadderPlan::default(),
        },
        cost: COPY_COST,
        base,
        resume_from: MediaSeq(0),
        settings: StreamSettings { window: 600, ..StreamSettings::default() },
    };
    let node = "worker-1".parse().unwrap();
    WorkerJob::new(Millis(0), grant, node, BTreeSet::from([RungId::copy()]), 1 << 16, 1).unwrap()
}

/// A unit that begins a segment, as message number `seq`.
fn boundary(seq: u64, msn: u64) -> MediaMessage {
    let unit = MediaUnit::Frame(FrameUnit {
        track: Track::Video,
        msn: Msn(msn),
        discontinuity_sequence: DiscontinuitySeq(0),
        init_version: InitVersion(0),
        dts: 0,
        cts: 0,
        keyframe: true,
        boundary: true,
        independent: true,
        discontinuity: false,
        duration: 0,
        may_be_last: false,
        data: bytes::Bytes::from_static(b"unit").into(),
    });
    MediaMessage { epoch: EPOCH, seq: MediaSeq(seq), end: false, units: vec![unit] }
}

fn part(rendition: &Rendition, msn: u64) -> Part {
    Part {
        rendition: rendition.clone(),
        msn: Msn(msn),
        part: PartIndex(0),
        duration: MediaDuration::from_millis(2_000),
        independent: true,
        bytes: 4,
        discontinuity_sequence: DiscontinuitySeq(0),
        program_date_time: UnixMillis(1_700_000_000_000),
        init_version: InitVersion(0),
        gap: false,
        last: false,
    }
}

fn segment(rendition: &Rendition, msn: u64) -> Segment {
    let Part {
        duration, independent, bytes, discontinuity_sequence, program_date_time, init_version, ..
    } = part(rendition, msn);
    let (rendition, msn, parts) = (rendition.clone(), Msn(msn), 1);
    Segment {
        rendition,
        msn,
        parts,
        duration,
        independent,
        bytes,
        discontinuity_sequence,
        program_date_time,
        init_version,
    }
}

fn make(job: &mut WorkerJob, packaged: Packaged) {
    job.handle(Millis(1), Input::Packaged(RungId::copy(), packaged)).unwrap();
}

fn describe(job: &mut WorkerJob, rendition: &Rendition) {
    let info = TrackInfo {
        media: TrackMedia::Video { width: 640, height: 360, frame_rate_milli: None },
        codecs: "avc1.64001e".to_owned(),
        bandwidth: 1,
        timescale: 90_000,
    };
    let (version, bytes) = (InitVersion(0), bytes::Bytes::from_static(b"init"));
    make(job, Packaged::Init { rendition: rendition.clone(), version, info, bytes });
}

fn outputs(job: &mut WorkerJob) -> Vec<Output> {
    std::iter::from_fn(|| job.poll_output()).collect()
}

fn gaps(state: &StreamState) -> Vec<u64> {
    state.slots.iter().filter(|slot| slot.gap.is_some()).map(|slot| slot.msn.0).collect()
}

/// The session's replay buffer has lost everything before segment `FIRST + lost`.
fn job_after_loss(lost: u64) -> WorkerJob {
    let mut job = job(apply::empty(BROADCAST));
    describe(&mut job, &Rendition::video());
    job.handle(Millis(1), Input::MediaReply(RepairReply { oldest: Some(50), next: 51 })).unwrap();
    job.handle(Millis(1), Input::Media(boundary(50, FIRST + lost))).unwrap();
    make(
        &mut job,
        Packaged::Part(part(&Rendition::video(), FIRST + lost), bytes::Bytes::from_static(b"part").into()),
    );
    job
}

#[test]
fn job_lists_every_segment_lost_with_the_media_and_goes_on_after_it() {
    let job = job_after_loss(40);
    let state = job.snapshot().unwrap();
    let expected: Vec<u64> = (FIRST - 2..FIRST + 40).collect();
    assert_eq!(gaps(state), expected);
    assert_eq!(state.slots.back().unwrap().tracks[&Rendition::video()].parts.len(), 1);
}

#[test]
fn job_restarts_the_window_after_a_loss_too_long_to_list() {
    let job = job_after_loss(1_000);
    let state = job.snapshot().unwrap();
    assert_eq!((state.first_msn, state.slots.len()), (Msn(FIRST + 1_000), 1));
    assert_eq!(state.slots[0].tracks[&Rendition::video()].parts.len(), 1);
}

#[test]
fn sealed_job_lists_gaps_once_after_a_long_absence_of_control() {
    let mut job = job(apply::empty(BROADCAST));
    job.handle(Millis(1), Input::Media(boundary(0, FIRST))).unwrap();
    make(
        &mut job,
        Packaged::Part(part(&Rendition::video(), FIRST), bytes::Bytes::from_static(b"part").into()),
    );
    let away = EpochAnnouncement {
        stream: StreamId::from_u128(1),
        playback: playback(),
        broadcast: BROADCAST,
        epoch: EPOCH,
        session: Some(SessionId::from_u128(2)),
        phase: EpochPhase::Away {
            gaps_through: Some(Msn(FIRST + 40)),
            discontinuity_sequence: DiscontinuitySeq(0),
        },
    };
    job.handle(Millis(SEAL_SILENCE_MS + 1), Input::Epoch(away)).unwrap();
    make(&mut job, Packaged::Segment(segment(&Rendition::video(), FIRST)));
    job.handle(Millis(SEAL_SILENCE_MS + 1), Input::Packaged(RungId::copy(), Packaged::Flushed)).unwrap();
    let listed = job.snapshot().unwrap();
    assert_eq!(listed.slots.back().unwrap().msn, Msn(FIRST + 40));
    let seq = listed.seq;
    job.handle_timeout(Millis(SEAL_SILENCE_MS + 10)).unwrap();
    assert_eq!(job.snapshot().unwrap().seq, seq, "the gaps are announced once");
}

#[test]
fn job_announces_a_rendition_gap_and_uploads_the_other_renditions_only() {
    let low: Rendition = "low".parse().unwrap();
    let mut job = job(apply::empty(BROADCAST));
    for rendition in [&Rendition::video(), &low] {
        describe(&mut job, rendition);
        make(&mut job, Packaged::Part(part(rendition, FIRST), bytes::Bytes::from_static(b"part").into()));
    }
    let Segment { duration, discontinuity_sequence, program_date_time, .. } = segment(&low, FIRST);
    let gap = RenditionGap {
        rendition: low.clone(),
        msn: Msn(FIRST),
        duration,
        discontinuity_sequence,
        program_date_time,
    };
    make(&mut job, Packaged::Gap(gap));
    make(&mut job, Packaged::Segment(segment(&low, FIRST)));
    make(&mut job, Packaged::Segment(segment(&Rendition::video(), FIRST)));
    let uploads: Vec<_> = outputs(&mut job)
        .into_iter()
        .filter_map(
            |output| if let Output::Upload(segment, _) = output { Some(segment.rendition) } else { None },
        )
        .collect();
    assert_eq!(uploads, [Rendition::video()]);
    let slot = job.snapshot().unwrap().slots.back().unwrap().clone();
    assert!(slot.rendition_gaps.contains_key(&low) && slot.tracks[&low].segment.is_none());
    assert!(slot.gap.is_none() && slot.tracks[&Rendition::video()].segment.is_some());
}

#[test]
fn job_ends_one_rendition_and_announces_nothing_more_of_it() {
    let low: Rendition = "low".parse().unwrap();
    let mut job = job(apply::empty(BROADCAST));
    describe(&mut job, &low);
    make(&mut job, Packaged::Part(part(&low, FIRST), bytes::Bytes::from_static(b"part").into()));
    make(&mut job, Packaged::Segment(segment(&low, FIRST)));
    make(&mut job, Packaged::RenditionEnd { rendition: low.clone(), last: Msn(FIRST) });
    let seq = job.snapshot().unwrap().seq;
    make(&mut job, Packaged::Part(part(&low, FIRST + 1), bytes::Bytes::from_static(b"part").into()));
    make(&mut job, Packaged::RenditionEnd { rendition: low.clone(), last: Msn(FIRST + 1) });
    let state = job.snapshot().unwrap();
    assert_eq!((state.seq, state.slots.back().unwrap().msn), (seq, Msn(FIRST)));
    assert_eq!(state.renditions[&low].ended.map(|span| span.last), Some(Msn(FIRST)));
}
