//! A worker's job at the limits of its log: long holes in the media, long absences of control, failing rungs.

use std::collections::BTreeSet;

use millrace_protocol::job::{
    Input, Output, POST_ROLL_FRAMES, POST_ROLL_MS, PRE_ROLL_WAIT_MS, Packaged, QUIESCE_LIMIT_MS,
    SEAL_SILENCE_MS, WorkerJob,
};
use millrace_protocol::state::apply;
use millrace_protocol::{Machine, Millis};
use millrace_wire::fact::{
    EpochOpen, MediaDuration, Part, RenditionGap, Segment, StreamState, TrackInfo, TrackMedia,
};
use millrace_wire::ids::*;
use millrace_wire::message::announce::{EpochAnnouncement, EpochPhase};
use millrace_wire::message::control::StreamSettings;
use millrace_wire::message::job::{COPY_COST, Grant};
use millrace_wire::message::media::{MediaMessage, MediaUnit, Track};
use millrace_wire::message::repair::RepairReply;

use super::frames::first_of;

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
    job_from(base, rungs, (0, None))
}

/// The same that resumes with a message, and decodes from another on.
fn job_from(base: StreamState, rungs: &[&str], (resume, pre_roll): (u64, Option<u64>)) -> WorkerJob {
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
        resume_from: MediaSeq(resume),
        pre_roll_from: pre_roll.map(MediaSeq),
        settings: StreamSettings { window: 600, ..StreamSettings::default() },
    };
    let node = "worker-1".parse().unwrap();
    let rungs: BTreeSet<RungId> = rungs.iter().map(|rung| rung.parse().unwrap()).collect();
    WorkerJob::new(Millis(0), grant, node, rungs, 1 << 16, 1).unwrap()
}

/// A unit that begins a segment, as message number `seq`.
fn boundary(seq: u64, msn: u64) -> MediaMessage {
    let unit = MediaUnit::Frame(first_of(Msn(msn)));
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

/// The numbers of the frames behind the first segment that a job takes before it stops: a picture and an audio frame in turn.
fn post_roll() -> impl Iterator<Item = (u64, Track)> {
    let frames = 2 * u64::from(POST_ROLL_FRAMES);
    (2..2 + frames).zip([Track::Video, Track::Audio].into_iter().cycle())
}

#[test]
fn job_of_several_rungs_quiesces_once_they_have_handed_in_the_open_segment() {
    let mut job = quiescing();
    assert!(!job.is_quiescing());
    // Encoders look at what comes behind the segment.
    let all: Vec<_> = post_roll().collect();
    let (last, before) = all.split_last().unwrap();
    for (seq, track) in before {
        job.handle(Millis(10), Input::Media(frame(*seq, *track, FIRST + 1))).unwrap();
    }
    let made = outputs(&mut job);
    assert_eq!((segments_of(&made).len(), flushes(&made)), (before.len(), vec![]));
    job.handle(Millis(12), Input::Media(frame(last.0, last.1, FIRST + 1))).unwrap();
    assert_eq!(flushes(&outputs(&mut job)), ["copy", "ladder"]);
    // What is made of it is not announced, what is made of the segment is.
    let next = job.snapshot().unwrap().seq;
    make(
        &mut job,
        Packaged::Part(part(&Rendition::video(), FIRST + 1), bytes::Bytes::from_static(b"part").into()),
    );
    make(&mut job, Packaged::Segment(segment(&Rendition::video(), FIRST + 1)));
    assert_eq!(job.snapshot().unwrap().seq, next);
    make(
        &mut job,
        Packaged::Part(part(&Rendition::video(), FIRST), bytes::Bytes::from_static(b"part").into()),
    );
    assert!(job.snapshot().unwrap().seq > next);
    job.handle(Millis(13), Input::Packaged(RungId::copy(), Packaged::Flushed)).unwrap();
    assert!(!job.is_quiescing() && !is_quiesced(&outputs(&mut job)), "a rung answers late");
    job.handle(Millis(300), Input::Packaged("ladder".parse().unwrap(), Packaged::Flushed)).unwrap();
    assert!(job.is_quiescing() && is_quiesced(&outputs(&mut job)));
    assert!(!job.snapshot().unwrap().sealed);
}

#[test]
fn job_that_quiesces_does_not_wait_for_a_slow_track() {
    let mut job = quiescing();
    job.handle(Millis(10), Input::Media(boundary(2, FIRST + 1))).unwrap();
    job.handle(Millis(11), Input::Media(frame(3, Track::Audio, FIRST + 1))).unwrap();
    assert_eq!(flushes(&outputs(&mut job)), [""; 0]);
    assert!(job.next_timeout().is_some_and(|at| at <= Millis(11 + POST_ROLL_MS)));
    job.handle_timeout(Millis(11 + POST_ROLL_MS)).unwrap();
    assert_eq!(flushes(&outputs(&mut job)), ["copy", "ladder"]);
}

#[test]
fn job_that_quiesced_at_a_boundary_goes_on_with_what_it_held_if_no_successor_comes() {
    let mut job = quiescing();
    for (seq, track) in post_roll() {
        job.handle(Millis(10), Input::Media(frame(seq, track, FIRST + 1))).unwrap();
    }
    for rung in ["copy", "ladder"] {
        job.handle(Millis(11), Input::Packaged(rung.parse().unwrap(), Packaged::Flushed)).unwrap();
    }
    outputs(&mut job);
    let next = post_roll().count() as u64 + 2;
    job.handle(Millis(12), Input::Media(frame(next, Track::Video, FIRST + 1))).unwrap();
    assert_eq!(segments_of(&outputs(&mut job)), []);
    job.handle_timeout(Millis(11 + QUIESCE_LIMIT_MS)).unwrap();
    let made = outputs(&mut job);
    let restarts = made.iter().filter(|output| matches!(output, Output::RestartRung(_))).count();
    let tracks = post_roll().map(|(_, track)| track).chain([Track::Video]);
    let taken: Vec<_> = tracks.map(|track| (FIRST + 1, track)).collect();
    assert_eq!((restarts, segments_of(&made)), (2, taken));
    assert!(!job.is_quiescing());
}

#[test]
fn last_message_of_the_media_ends_the_epoch_of_a_job_that_quiesces() {
    let mut job = quiescing();
    job.handle(Millis(10), Input::Media(boundary(2, FIRST + 1))).unwrap();
    let next = job.snapshot().unwrap().seq;
    make(
        &mut job,
        Packaged::Part(part(&Rendition::video(), FIRST + 1), bytes::Bytes::from_static(b"part").into()),
    );
    assert_eq!(job.snapshot().unwrap().seq, next, "it is held");
    let last = MediaMessage { end: true, ..frame(3, Track::Video, FIRST + 1) };
    job.handle(Millis(11), Input::Media(last)).unwrap();
    let made = outputs(&mut job);
    assert_eq!(segments_of(&made), [(FIRST + 1, Track::Video), (FIRST + 1, Track::Video)]);
    assert_eq!(flushes(&made).len(), 2);
    assert!(job.snapshot().unwrap().seq > next, "the media are over, and what was held is announced");
    for rung in ["copy", "ladder"] {
        job.handle(Millis(12), Input::Packaged(rung.parse().unwrap(), Packaged::Flushed)).unwrap();
    }
    assert!(job.snapshot().unwrap().sealed);
}

/// A successor that resumes with message 10, in which the first segment begins, and decodes from message 6 on.
fn successor() -> WorkerJob {
    let mut job = job_from(apply::empty(BROADCAST), &["copy", "ladder"], (10, Some(6)));
    outputs(&mut job);
    job
}

/// Hands in messages of segment before the first, and the message that begins the first and has audio of the one before.
fn hand_in(job: &mut WorkerJob, now: u64, numbers: std::ops::RangeInclusive<u64>) -> Vec<Output> {
    for seq in numbers {
        let mut message = frame(seq, Track::Video, FIRST - 1);
        if seq == 10 {
            message = boundary(seq, FIRST);
            message.units.extend(frame(seq, Track::Audio, FIRST - 1).units);
        }
        job.handle(Millis(now), Input::Media(message)).unwrap();
    }
    outputs(job)
}

fn pre_rolls(outputs: &[Output]) -> Vec<usize> {
    let pre_rolls = outputs.iter().filter_map(|output| match output {
        Output::PreRoll(units) => Some(units.len()),
        _ => None,
    });
    pre_rolls.collect()
}

fn lacks_pre_roll(outputs: &[Output]) -> usize {
    outputs.iter().filter(|output| matches!(output, Output::PreRollMissing)).count()
}

#[test]
fn successor_decodes_what_comes_before_the_resume_point_and_packages_none_of_it() {
    let mut job = successor();
    assert_eq!(hand_in(&mut job, 1, 6..=9).len(), 0);
    let made = hand_in(&mut job, 2, 10..=10);
    assert_eq!((pre_rolls(&made), segments_of(&made)), (vec![5], vec![(FIRST, Track::Video)]));
    let at = |wanted: fn(&Output) -> bool| made.iter().position(wanted).unwrap();
    assert!(
        at(|output| matches!(output, Output::PreRoll(_))) < at(|output| matches!(output, Output::Package(_)))
    );
    assert_eq!((lacks_pre_roll(&made), gaps(job.snapshot().unwrap()).len()), (0, 2), "the lead gaps");
}

#[test]
fn successor_goes_on_without_the_pre_roll_that_the_session_no_longer_holds() {
    let mut job = successor();
    job.handle(Millis(1), Input::MediaReply(RepairReply { oldest: Some(8), next: 11 })).unwrap();
    let made = hand_in(&mut job, 2, 8..=10);
    assert_eq!((lacks_pre_roll(&made), pre_rolls(&made)), (1, vec![3]));
    assert_eq!(segments_of(&made), [(FIRST, Track::Video)]);
    assert!(!made.iter().any(|output| matches!(output, Output::RestartRung(_))));
}

#[test]
fn successor_waits_for_a_hole_in_its_pre_roll_for_a_moment_only() {
    let mut job = successor();
    hand_in(&mut job, 1, 6..=7);
    let made = hand_in(&mut job, 2, 9..=10);
    assert_eq!((pre_rolls(&made), segments_of(&made)), (vec![], vec![]));
    assert!(job.next_timeout().is_some_and(|at| at <= Millis(PRE_ROLL_WAIT_MS)));
    job.handle_timeout(Millis(PRE_ROLL_WAIT_MS)).unwrap();
    let made = outputs(&mut job);
    // The audio of the message that begins the segment is whole.
    assert_eq!((lacks_pre_roll(&made), pre_rolls(&made)), (1, vec![1]));
    assert_eq!(segments_of(&made), [(FIRST, Track::Video)]);
    job.handle_timeout(Millis(PRE_ROLL_WAIT_MS + 10)).unwrap();
    assert_eq!(lacks_pre_roll(&outputs(&mut job)), 0);
}
