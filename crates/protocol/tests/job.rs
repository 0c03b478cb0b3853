//! A worker's job at the limits of its log: long holes in the media, long absences of control, failing rungs.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use millrace_protocol::job::{Input, Output, Packaged, QUIESCE_LIMIT_MS, SEAL_SILENCE_MS, WorkerJob};
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
    job_with(base, &["copy"])
}

/// A job with these rungs.
fn job_with(base: StreamState, rungs: &[&str]) -> WorkerJob {
    let grant = Grant {
        stream: StreamId::from_u128(1),
        playback: playback(),
        session: SessionId::from_u128(2),
        epoch: EPOCH,
        generation: Generation(1),
        open: EpochOpen {
            broadcast: BROADCAST,
            airing: millrace_wire::ids::Airing::FIRST,
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
    let rungs: BTreeSet<RungId> = rungs.iter().map(|rung| rung.parse().unwrap()).collect();
    WorkerJob::new(Millis(0), grant, node, rungs, 1 << 16, 1).unwrap()
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

/// A message of one frame.
fn frame(seq: u64, track: Track, msn: u64) -> MediaMessage {
    let mut message = boundary(seq, msn);
    if let MediaUnit::Frame(frame) = &mut message.units[0] {
        (frame.track, frame.boundary) = (track, false);
    }
    message
}

/// A draining job of two rungs that has taken some of the first segment, and was told to quiesce at 2 ms.
fn quiescing() -> WorkerJob {
    let mut job = job_with(apply::empty(BROADCAST), &["copy", "ladder"]);
    job.handle(Millis(1), Input::Media(boundary(0, FIRST))).unwrap();
    job.handle(Millis(1), Input::Media(frame(1, Track::Audio, FIRST))).unwrap();
    job.handle(Millis(1), Input::Leave).unwrap();
    job.handle(Millis(2), Input::Quiesce).unwrap();
    outputs(&mut job);
    job
}

fn segments_of(outputs: &[Output]) -> Vec<(u64, Track)> {
    let messages = outputs.iter().filter_map(|output| match output {
        Output::Package(message) => Some(message),
        _ => None,
    });
    messages.flat_map(|message| &message.units).map(|unit| (unit.msn().0, unit.track())).collect()
}

fn flushes(outputs: &[Output]) -> Vec<String> {
    let flushed = outputs.iter().filter_map(|output| match output {
        Output::Flush(rung) => Some(rung.to_string()),
        _ => None,
    });
    flushed.collect()
}

fn is_quiesced(outputs: &[Output]) -> bool {
    outputs.iter().any(|output| matches!(output, Output::Heartbeat(heartbeat) if heartbeat.quiesced))
}

#[test]
fn job_of_several_rungs_quiesces_once_they_have_handed_in_the_open_segment() {
    let mut job = quiescing();
    assert!(!job.is_quiescing());
    // The picture of the next segment is held; the audio of this one is still coming.
    job.handle(Millis(10), Input::Media(boundary(2, FIRST + 1))).unwrap();
    job.handle(Millis(11), Input::Media(frame(3, Track::Audio, FIRST))).unwrap();
    let before = outputs(&mut job);
    assert_eq!((segments_of(&before), flushes(&before)), (vec![(FIRST, Track::Audio)], vec![]));
    job.handle(Millis(12), Input::Media(frame(4, Track::Audio, FIRST + 1))).unwrap();
    let after = outputs(&mut job);
    assert_eq!(
        (segments_of(&after), flushes(&after)),
        (vec![], vec!["copy".to_owned(), "ladder".to_owned()])
    );
    job.handle(Millis(13), Input::Packaged(RungId::copy(), Packaged::Flushed)).unwrap();
    assert!(!job.is_quiescing() && !is_quiesced(&outputs(&mut job)), "a rung answers late");
    job.handle(Millis(300), Input::Packaged("ladder".parse().unwrap(), Packaged::Flushed)).unwrap();
    assert!(job.is_quiescing() && is_quiesced(&outputs(&mut job)));
    assert!(!job.snapshot().unwrap().sealed);
}

#[test]
fn job_that_quiesced_at_a_boundary_goes_on_with_what_it_held_if_no_successor_comes() {
    let mut job = quiescing();
    for (seq, track) in [(2, Track::Video), (3, Track::Audio)] {
        job.handle(Millis(10), Input::Media(frame(seq, track, FIRST + 1))).unwrap();
    }
    for rung in ["copy", "ladder"] {
        job.handle(Millis(11), Input::Packaged(rung.parse().unwrap(), Packaged::Flushed)).unwrap();
    }
    job.handle(Millis(12), Input::Media(frame(4, Track::Video, FIRST + 1))).unwrap();
    assert_eq!(segments_of(&outputs(&mut job)), []);
    job.handle_timeout(Millis(11 + QUIESCE_LIMIT_MS)).unwrap();
    let made = outputs(&mut job);
    let restarts = made.iter().filter(|output| matches!(output, Output::RestartRung(_))).count();
    let taken = [Track::Video, Track::Audio, Track::Video].map(|track| (FIRST + 1, track));
    assert_eq!((restarts, segments_of(&made)), (2, taken.to_vec()));
    assert!(!job.is_quiescing());
}

#[test]
fn last_message_of_the_media_ends_the_epoch_of_a_job_that_quiesces() {
    let mut job = quiescing();
    job.handle(Millis(10), Input::Media(boundary(2, FIRST + 1))).unwrap();
    let last = MediaMessage { end: true, ..frame(3, Track::Video, FIRST + 1) };
    job.handle(Millis(11), Input::Media(last)).unwrap();
    let made = outputs(&mut job);
    assert_eq!(segments_of(&made), [(FIRST + 1, Track::Video), (FIRST + 1, Track::Video)]);
    assert_eq!(flushes(&made).len(), 2);
    for rung in ["copy", "ladder"] {
        job.handle(Millis(12), Input::Packaged(rung.parse().unwrap(), Packaged::Flushed)).unwrap();
    }
    assert!(job.snapshot().unwrap().sealed);
}
