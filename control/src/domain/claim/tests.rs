//! The rules of the claim, each in a test of its own.

use millrace_wire::message::control::{AwayPolicy, OutsideCheck};
use millrace_wire::message::ladder_health::{MediaCondition, RungHealth, RungState};

use super::super::stream::tests::sample;
use super::*;

const LEASE: u64 = LEASE_MS as u64;
const T0: UnixMillis = UnixMillis(1_700_000_000_500);

fn at(ms: u64) -> UnixMillis {
    UnixMillis(T0.0 + ms)
}

fn request(session: u128) -> ClaimRequest {
    ClaimRequest {
        key_hash: sample().key_hash,
        session: SessionId::from_u128(session),
        node: "ingest-1".parse().unwrap(),
        addr: Some([192, 0, 2, 1].into()),
        protocol: "rtmp".to_owned(),
        takes_over: true,
        outside: OutsideCheck::Absent,
    }
}

fn grant(
    now: UnixMillis,
    stream: &Stream,
    claim: Option<&Claim>,
    session: u128,
) -> Result<Decision, CloseReason> {
    let mut decision = decide(now, stream, claim, &request(session), BroadcastId::from_u128(session))?;
    // The first media come at once.
    let first = decision.claim.first_msn.0;
    if let (false, Lease::Kept(Some(claim))) =
        (decision.repeated, renew(now, &decision.claim, &renewal(&decision.claim, Some(first))))
    {
        if !decision.claim.begun {
            decision.stream.begin(claim.broadcast, now).unwrap();
        }
        decision.claim = *claim;
    }
    Ok(decision)
}

/// Decides on the claim of a publisher whose media have not come yet.
fn grant_without_media(now: UnixMillis, stream: &Stream, claim: Option<&Claim>, session: u128) -> Decision {
    decide(now, stream, claim, &request(session), BroadcastId::from_u128(session)).unwrap()
}

fn renewal(claim: &Claim, open: Option<u64>) -> RenewRequest {
    RenewRequest {
        stream: claim.stream,
        session: claim.session,
        epoch: claim.epoch,
        open_msn: open.map(Msn),
        discontinuity_sequence: claim.discontinuity,
        degraded: None,
        notes: Vec::new(),
        ladder: None,
    }
}

fn release(claim: &Claim, open: Option<u64>) -> ReleaseRequest {
    ReleaseRequest {
        stream: claim.stream,
        session: claim.session,
        epoch: claim.epoch,
        open_msn: open.map(Msn),
        discontinuity_sequence: claim.discontinuity,
        reason: CloseReason::ConnectionLost,
        text: String::new(),
    }
}

fn seal(claim: &Claim, last: Option<u64>, ended: bool) -> SealReport {
    SealReport {
        stream: claim.stream,
        epoch: claim.epoch,
        generation: millrace_wire::ids::Generation(1),
        last: last.map(Msn),
        discontinuity_sequence: claim.discontinuity,
        ended,
    }
}

/// A livestream with a TARGETDURATION of 4 s.
fn with_segments_of_4_s() -> Stream {
    let mut stream = sample();
    stream.settings.target_duration = 4;
    stream
}

#[test]
fn renew_with_the_first_media_begins_the_broadcast_and_a_grant_alone_changes_no_stream() {
    let grant = grant_without_media(T0, &sample(), None, 1);
    assert_eq!((&grant.stream, grant.claim.begun, grant.claim.events.len()), (&sample(), false, 0));
    let waiting = renew(at(1_000), &grant.claim, &renewal(&grant.claim, None));
    assert_eq!(waiting, Lease::Kept(None));
    let first = renewal(&grant.claim, Some(1_700_000_000));
    let Lease::Kept(Some(claim)) = renew(at(1_100), &grant.claim, &first) else { panic!("begins") };
    let broadcast = BroadcastId::from_u128(1);
    assert!(claim.begun);
    assert_eq!(claim.events, [LifecycleKind::Started { broadcast }]);
    let mut stream = grant.stream;
    stream.begin(broadcast, at(1_100)).unwrap();
    assert_eq!((stream.status, stream.started_at), (Status::Live, Some(at(1_100))));
    assert_eq!(stream.broadcast, Some(broadcast));
    for status in [Status::Ended, Status::Archived, Status::Cancelled] {
        assert!(Stream { status, ..sample() }.begin(broadcast, T0).is_err());
    }
}

#[test]
fn claim_without_media_is_withdrawn_by_its_release_alone() {
    let claim = grant_without_media(T0, &sample(), None, 1).claim;
    assert!(claim.is_withdrawn_by(&release(&claim, None)));
    assert!(!claim.is_withdrawn_by(&release(&claim, Some(1_700_000_000))), "media came");
    let other = ReleaseRequest { session: SessionId::from_u128(2), ..release(&claim, None) };
    assert!(!claim.is_withdrawn_by(&other));
    let begun = grant(T0, &sample(), None, 1).unwrap().claim;
    assert!(!begun.is_withdrawn_by(&release(&begun, None)));
    // The renewal that would have begun the broadcast was lost.
    let away = claim.released(at(100), &release(&claim, Some(1_700_000_000))).unwrap();
    assert!(away.begun && away.is_away());
}

#[test]
fn claim_of_a_publisher_that_vanishes_without_media_is_withdrawn_unless_a_log_writer_saw_media() {
    let claim = grant_without_media(T0, &sample(), None, 1).claim;
    let Due::Lapsed(away) = due(at(LEASE), &claim) else { panic!("lapsed") };
    assert_eq!((&away.events[..], due(at(LEASE + END_REPORTED_MS - 1), &away)), (&[][..], Due::Nothing));
    assert_eq!(due(at(LEASE + END_REPORTED_MS), &away), Due::Withdraw);
    assert!(!away.sealed(&seal(&away, None, false)).unwrap().begun);
    let seen = away.sealed(&seal(&away, Some(1_700_000_001), false)).unwrap();
    assert!(seen.begun && matches!(due(at(LEASE + END_REPORTED_MS), &seen), Due::Gaps(_) | Due::Close));
}

#[test]
fn publish_without_media_does_not_lengthen_the_reconnect_window() {
    let first = grant(T0, &sample(), None, 1).unwrap();
    let away = first.claim.released(at(1_000), &release(&first.claim, Some(1_700_000_000))).unwrap();
    let refused = grant_without_media(at(50_000), &first.stream, Some(&away), 2);
    assert!(refused.claim.continues && refused.claim.begun);
    assert_eq!(refused.claim.events, [], "it is not back before media come");
    let left = refused.claim.released(at(50_100), &release(&refused.claim, None)).unwrap();
    assert_eq!((left.presence, &left.events[..]), (away.presence, &[][..]));
    assert_eq!(due(at(61_000), &left), Due::Over);
    let again = grant_without_media(at(55_000), &first.stream, Some(&left), 3).claim;
    let Due::Lapsed(lapsed) = due(at(55_000 + LEASE), &again) else { panic!("lapsed") };
    assert_eq!(lapsed.presence, away.presence);
    // With media it is back, and the next absence counts anew.
    let back = grant(at(55_000), &first.stream, Some(&left), 3).unwrap().claim;
    assert_eq!(back.events, [LifecycleKind::Resumed]);
    let gone = back.released(at(58_000), &release(&back, Some(back.first_msn.0))).unwrap();
    assert_eq!(gone.presence, Presence::Away { since: at(58_000) });
}

#[test]
fn decide_begins_a_broadcast_at_the_time_in_seconds() {
    let grant = grant(T0, &sample(), None, 1).unwrap();
    assert_eq!(grant.claim.epoch, Epoch(T0.0));
    assert_eq!(grant.claim.first_msn, Msn(1_700_000_000));
    assert_eq!(grant.claim.discontinuity, DiscontinuitySeq(0));
    assert_eq!(grant.kick, None);
}

#[test]
fn decide_repeats_its_answer_to_a_repeated_request() {
    let first = grant(T0, &sample(), None, 1).unwrap();
    let again = grant(at(900), &first.stream, Some(&first.claim), 1).unwrap();
    assert!(again.repeated);
    assert_eq!(again.claim, first.claim);
}

#[test]
fn decide_grants_a_second_publisher_and_kicks_the_first() {
    let first = grant(T0, &sample(), None, 1).unwrap();
    let second = grant(at(2_000), &first.stream, Some(&first.claim), 2).unwrap();
    assert_eq!(second.kick, Some(SessionId::from_u128(1)));
    assert_eq!(second.claim.epoch, Epoch(at(2_000).0));
    assert_eq!(second.claim.broadcast, first.claim.broadcast);
    assert_eq!(second.claim.discontinuity, DiscontinuitySeq(1));
    assert_eq!(second.claim.first_msn, first.claim.first_msn.plus(5), "the first one may still be stamping");
    assert!(second.claim.continues && !first.claim.continues);
    assert_eq!((second.claim.follows, first.claim.follows), (Some(first.claim.epoch), None));
}

#[test]
fn decide_refuses_a_second_publisher_under_the_refuse_policy() {
    let mut stream = sample();
    stream.settings.takeover = Takeover::Refuse;
    let first = grant(T0, &stream, None, 1).unwrap();
    assert_eq!(grant(at(LEASE - 1), &first.stream, Some(&first.claim), 2), Err(CloseReason::AlreadyLive));
    assert!(grant(at(LEASE), &first.stream, Some(&first.claim), 2).is_ok(), "the lease ran out");
    let away = first.claim.released(at(10), &release(&first.claim, None)).unwrap();
    assert!(grant(at(20), &first.stream, Some(&away), 2).is_ok(), "the first one left");
}

#[test]
fn decide_refuses_publishers_of_a_stream_that_is_over() {
    for status in [Status::Ended, Status::Archived, Status::Cancelled] {
        let stream = Stream { status, ..sample() };
        assert_eq!(grant(T0, &stream, None, 1), Err(CloseReason::StreamEnded));
    }
}

#[test]
fn epochs_grow_when_the_clock_is_set_back() {
    let first = grant(T0, &sample(), None, 1).unwrap();
    let back = UnixMillis(T0.0 - 3_600_000);
    let second = grant(back, &first.stream, Some(&first.claim), 2).unwrap();
    assert_eq!(second.claim.epoch, first.claim.epoch.next());
    assert!(second.claim.first_msn > first.claim.first_msn);
}

/// A claim renewed one second after the grant with 1 700 000 007 open.
fn renewed() -> (Stream, Claim) {
    let first = grant(T0, &sample(), None, 1).unwrap();
    let request = renewal(&first.claim, Some(1_700_000_007));
    let Lease::Kept(Some(claim)) = renew(at(1_000), &first.claim, &request) else { panic!("renewed") };
    (first.stream, *claim)
}

fn sealed_at(claim: &Claim, last: u64) -> Claim {
    claim.sealed(&seal(claim, Some(last), false)).unwrap()
}

#[test]
fn used_through_is_exact_after_a_release() {
    let (stream, claim) = renewed();
    let away = claim.released(at(1_500), &release(&claim, Some(1_700_000_008))).unwrap();
    assert!(away.released);
    assert_eq!(away.used_through(at(60_000)), Msn(1_700_000_008), "time adds nothing");
    assert_eq!(sealed_at(&away, 1_700_000_005).used_through(at(2_000)), Msn(1_700_000_008));
    assert_eq!(sealed_at(&away, 1_700_000_009).used_through(at(2_000)), Msn(1_700_000_009));
    let next = grant(at(2_000), &stream, Some(&away), 2).unwrap().claim;
    assert_eq!(next.first_msn, Msn(1_700_000_009));
    assert!(next.continues && !next.released, "the next session has not left");
}

#[test]
fn used_through_adds_a_boundary_to_a_seal_without_release() {
    let (stream, claim) = renewed();
    for (last, used) in [(5, 8), (8, 8), (9, 9)] {
        let sealed = sealed_at(&claim, 1_700_000_000 + last);
        assert_eq!(sealed.used_through(at(60_000)), Msn(1_700_000_000 + used));
        let next = grant(at(2_000), &stream, Some(&sealed), 2).unwrap();
        assert_eq!(next.claim.first_msn, Msn(1_700_000_001 + used));
        assert_eq!(next.kick, None, "the session of a sealed epoch is not kicked");
    }
    let unused = claim.sealed(&seal(&claim, None, false)).unwrap();
    assert_eq!(unused.used_through(at(2_000)), Msn(1_700_000_008), "the session has stamped more");
}

#[test]
fn used_through_grows_with_the_silence_of_a_session() {
    let (stream, claim) = renewed();
    for (ms, used) in [(0, 9), (1_000, 9), (1_999, 9), (2_000, 10), (3_000, 11), (9_000, 17)] {
        assert_eq!(claim.used_through(at(ms)), Msn(1_700_000_000 + used), "{ms}");
    }
    let next = grant(at(9_000), &stream, Some(&claim), 2).unwrap().claim;
    assert_eq!(next.first_msn, Msn(1_700_000_018));
}

#[test]
fn renew_does_not_restore_a_lease_of_a_sealed_epoch() {
    let (_, claim) = renewed();
    let Due::Lapsed(away) = due(at(1_000 + LEASE), &claim) else { panic!("lapsed") };
    for claim in [claim, *away] {
        let sealed = sealed_at(&claim, 1_700_000_007);
        let lease = renew(at(5_000), &sealed, &renewal(&claim, Some(1_700_000_009)));
        assert_eq!(lease, Lease::Lost(CloseReason::ConnectionLost));
    }
    assert!(!CloseReason::ConnectionLost.is_final(), "the publisher may come back");
}

#[test]
fn first_msn_of_a_broadcast_is_the_time_or_above_the_used_numbers() {
    let (stream, claim) = renewed();
    let other = Stream { broadcast: Some(BroadcastId::from_u128(9)), ..stream };
    let soon = grant(at(1_000), &other, Some(&claim), 2).unwrap().claim;
    // One number is left for the GAP that leads the window.
    assert_eq!((soon.first_msn, soon.continues), (Msn(1_700_000_011), false));
    let away = claim.released(at(1_500), &release(&claim, None)).unwrap();
    let later = grant(at(100_000), &other, Some(&away), 2).unwrap().claim;
    assert_eq!((later.first_msn, later.continues), (Msn(1_700_000_100), false));
}

#[test]
fn broadcast_after_one_whose_claim_is_gone_goes_on_above_its_numbers() {
    let (mut stream, claim) = renewed();
    stream.airings.note(claim.numbers(at(1_000)));
    stream.airings.note(Claim { epoch: Epoch(1), ..claim.clone() }.numbers(at(1_000)));
    (stream.status, stream.airings.reusable) = (Status::Ended, true);
    // The clock was set back.
    let next = grant_without_media(UnixMillis(5_000), &stream, None, 2).claim;
    let numbers = stream.airings.numbers.unwrap();
    assert_eq!((next.epoch, next.continues), (claim.epoch.next(), false));
    assert_eq!(next.first_msn, numbers.used.plus(2));
    assert_eq!(next.discontinuity, claim.discontinuity.next());
    assert_eq!(next.airing, Airing(1));
}

#[test]
fn broadcast_that_is_still_ending_refuses_the_next_one_until_its_end_is_out() {
    let (mut stream, claim) = renewed();
    (stream.status, stream.airings.reusable) = (Status::Ended, true);
    let ended = claim.ended(at(2_000));
    let ask = |now, claim: &Claim| decide(now, &stream, Some(claim), &request(2), BroadcastId::from_u128(2));
    assert_eq!(ask(at(3_000), &ended).unwrap_err(), CloseReason::StillEnding);
    let confirmed = ended.sealed(&seal(&ended, Some(1_700_000_009), true)).unwrap();
    assert!(ask(at(3_000), &confirmed).is_ok());
    let by_control = ended.claimed_by_control(at(8_000));
    assert_eq!(ask(at(9_000), &by_control).unwrap_err(), CloseReason::StillEnding);
    assert!(ask(at(8_000 + END_REPORTED_MS), &by_control).is_ok());
    stream.airings.stopped = true;
    assert_eq!(
        decide(at(3_000), &stream, Some(&confirmed), &request(2), BroadcastId::from_u128(2)).unwrap_err(),
        CloseReason::StreamEnded
    );
}

#[test]
fn claim_without_the_released_field_is_read() {
    let (_, claim) = renewed();
    let mut stored = serde_json::to_value(&claim).unwrap();
    assert!(stored.as_object_mut().unwrap().remove("released").is_some());
    assert_eq!(serde_json::from_value::<Claim>(stored).unwrap(), claim);
}

#[test]
fn numbers_granted_for_gaps_are_not_granted_again() {
    let first = grant(T0, &with_segments_of_4_s(), None, 1).unwrap();
    let away = first.claim.released(T0, &release(&first.claim, Some(1_700_000_010))).unwrap();
    assert_eq!(due(at(3_999), &away), Due::Nothing);
    let Due::Gaps(lent) = due(at(8_000), &away) else { panic!("two target durations passed") };
    assert_eq!(lent.gaps_through, Some(Msn(1_700_000_013)));
    assert_eq!(due(at(8_000), &lent), Due::Close, "its log writer may be gone");
    let sealed = lent.sealed(&seal(&lent, Some(1_700_000_010), false)).unwrap();
    assert_eq!(sealed.used_through(at(8_000)), Msn(1_700_000_013));
    let next = grant(at(9_000), &first.stream, Some(&sealed), 2).unwrap();
    assert_eq!(next.claim.first_msn, Msn(1_700_000_014));
    let mut hold = away.clone();
    hold.settings.away = AwayPolicy::Hold;
    assert_eq!(due(at(AUTHOR_LOOK_MS - 1), &hold), Due::Nothing);
    assert_eq!(due(at(AUTHOR_LOOK_MS), &hold), Due::Close);
}

#[test]
fn renew_writes_an_unchanged_lease_at_its_interval() {
    let first = grant(T0, &sample(), None, 1).unwrap();
    let same = renewal(&first.claim, None);
    assert_eq!(renew(at(1_000), &first.claim, &same), Lease::Kept(None));
    let Lease::Kept(Some(claim)) = renew(at(2_000), &first.claim, &same) else { panic!("due") };
    assert_eq!(claim.renewed_at, at(2_000));
    let degraded = RenewRequest { degraded: Some(Degraded::NoCapacity), ..same };
    let Lease::Kept(Some(claim)) = renew(at(2_100), &claim, &degraded) else { panic!("changed") };
    assert_eq!(claim.degraded, Some(Degraded::NoCapacity));
    let notes = vec![HealthNote::new("audio_hole", "The audio has holes."); HealthNote::MAX + 1];
    let noted = RenewRequest { notes, ..degraded };
    let Lease::Kept(Some(claim)) = renew(at(2_200), &claim, &noted) else { panic!("changed") };
    assert_eq!(claim.notes.len(), HealthNote::MAX);
    assert_eq!(claim.ended(at(2_300)).notes, [], "the notes end with the publish");
}

#[test]
fn renew_stops_a_superseded_session() {
    let first = grant(T0, &sample(), None, 1).unwrap();
    let second = grant(at(2_000), &first.stream, Some(&first.claim), 2).unwrap();
    let lease = renew(at(2_100), &second.claim, &renewal(&first.claim, None));
    assert_eq!(lease, Lease::Lost(CloseReason::TakenOver));
    let ended = first.claim.ended(at(5));
    assert_eq!(renew(at(6), &ended, &renewal(&first.claim, None)), Lease::Lost(CloseReason::StreamEnded));
}

#[test]
fn renew_lets_a_session_of_a_newer_epoch_go_on() {
    let first = grant(T0, &sample(), None, 1).unwrap();
    let newer = RenewRequest { epoch: first.claim.epoch.next(), ..renewal(&first.claim, None) };
    assert_eq!(renew(at(1), &first.claim, &newer), Lease::Unknown);
}

#[test]
fn due_lapses_the_lease_then_ends_the_stream_then_drops_the_claim() {
    let first = grant(T0, &sample(), None, 1).unwrap();
    assert_eq!(due(at(LEASE - 1), &first.claim), Due::Nothing);
    let Due::Lapsed(away) = due(at(LEASE), &first.claim) else { panic!("lapsed") };
    assert_eq!(away.presence, Presence::Away { since: at(LEASE) });
    assert!(matches!(due(at(LEASE + 59_999), &away), Due::Gaps(_)));
    assert_eq!(due(at(LEASE + 60_000), &away), Due::Over);
    let ended = away.ended(at(70_000));
    assert_eq!(due(at(70_001), &ended), Due::Nothing);
    assert_eq!(due(at(70_000 + END_REPORTED_MS), &ended), Due::Close);
    let confirmed = ended.sealed(&seal(&ended, Some(1_700_000_020), true)).unwrap();
    assert_eq!(due(at(70_001), &confirmed), Due::Forget);
}

#[test]
fn renew_restores_the_lapsed_lease_of_a_session_that_was_cut_off() {
    let first = grant(T0, &sample(), None, 1).unwrap();
    let Due::Lapsed(away) = due(at(LEASE), &first.claim) else { panic!("lapsed") };
    let Lease::Kept(Some(back)) = renew(at(9_000), &away, &renewal(&first.claim, Some(0))) else {
        panic!("kept")
    };
    assert_eq!(back.presence, Presence::Publishing);
    assert_eq!(back.open_msn, first.claim.open_msn, "the open number never goes back");
}

#[test]
fn released_ignores_sessions_that_do_not_hold_the_claim() {
    let first = grant(T0, &sample(), None, 1).unwrap();
    let other = ReleaseRequest { session: SessionId::from_u128(9), ..release(&first.claim, None) };
    assert_eq!(first.claim.released(at(1), &other), None);
    let away = first.claim.released(at(1), &release(&first.claim, Some(1_700_000_005))).unwrap();
    assert_eq!((away.presence, away.open_msn), (Presence::Away { since: at(1) }, Msn(1_700_000_005)));
    assert_eq!(
        away.released(at(2), &release(&first.claim, None)),
        None,
        "the window counts from the first release"
    );
}

#[test]
fn due_grants_gap_numbers_to_the_epoch_of_control_while_the_publisher_is_away() {
    let first = grant(T0, &with_segments_of_4_s(), None, 1).unwrap();
    let away = first.claim.released(T0, &release(&first.claim, Some(1_700_000_010))).unwrap();
    let Due::Gaps(lent) = due(at(6_000), &away) else { panic!("a target duration passed") };
    let own = lent.claimed_by_control(at(6_000));
    assert_eq!(own.used_through(at(60_000)), Msn(1_700_000_012), "control's own numbers are exact");
    assert!(
        matches!(own.announcement().phase, EpochPhase::Away { .. }) && own.announcement().session.is_none()
    );
    assert_eq!(
        due(at(9_999), &own),
        Due::Close,
        "the leader checks that the epoch of control has a live writer"
    );
    let Due::Gaps(more) = due(at(10_000), &own) else { panic!("a target duration since") };
    assert_eq!(more.gaps_through, Some(Msn(1_700_000_013)));
    assert_eq!(due(at(60_000), &more), Due::Over, "the window counts from when the publisher left");
    // It is back, or never knew that it was away.
    let lease = renew(at(7_000), &more, &renewal(&first.claim, None));
    assert_eq!(lease, Lease::Lost(CloseReason::ConnectionLost));
    for session in [1, 2] {
        let next = grant(at(11_000), &first.stream, Some(&more), session).unwrap();
        assert!(!next.repeated && next.kick.is_none() && !next.claim.by_control);
        assert_eq!((next.claim.first_msn, next.claim.continues), (Msn(1_700_000_014), true));
        assert!(next.claim.epoch > own.epoch);
    }
}

#[test]
fn due_asks_for_a_takeover_of_an_end_that_is_not_reported() {
    let first = grant(T0, &sample(), None, 1).unwrap();
    let ended = first.claim.ended(at(10));
    assert_eq!(ended.announcement().session, Some(SessionId::from_u128(1)));
    let own = ended.claimed_by_control(at(6_000));
    assert_eq!(own.epoch, Epoch(at(6_000).0));
    assert_eq!((own.announcement().session, own.announcement().phase), (None, EpochPhase::Ended));
    assert_eq!(
        own.sealed(&seal(&ended, None, true)),
        None,
        "a report of the superseded log writer is ignored"
    );
    assert_eq!(renew(at(6_100), &own, &renewal(&first.claim, None)), Lease::Lost(CloseReason::StreamEnded));
    assert_eq!(
        due(at(6_001), &own),
        Due::Close,
        "the leader checks that the epoch of control has a live writer"
    );
    assert_eq!(due(at(6_000 + END_ANNOUNCED_MS), &own), Due::Forget);
    assert!(own.claimed_by_control(T0).epoch > own.epoch, "epochs grow though the clock goes back");
}

#[test]
fn every_change_of_presence_leaves_its_lifecycle_event() {
    let Decision { stream, claim, .. } = grant(T0, &sample(), None, 1).unwrap();
    let broadcast = claim.broadcast;
    assert_eq!(claim.events, [LifecycleKind::Started { broadcast }]);
    let Lease::Kept(Some(kept)) = renew(at(2_000), &claim, &renewal(&claim, Some(7))) else { panic!("kept") };
    assert_eq!(kept.events, [], "a renewal is no event");
    let Due::Lapsed(away) = due(at(9_000), &kept) else { panic!("lapsed") };
    assert_eq!(away.events, [LifecycleKind::Interrupted]);
    let Lease::Kept(Some(back)) = renew(at(9_500), &away, &renewal(&away, Some(8))) else { panic!("back") };
    assert_eq!(back.events, [LifecycleKind::Resumed]);
    let left = back.released(at(10_000), &release(&back, Some(9))).unwrap();
    assert_eq!(left.events, [LifecycleKind::Interrupted]);
    // The events are not part of the record.
    let stored: Claim = serde_json::from_str(&serde_json::to_string(&left).unwrap()).unwrap();
    assert_eq!(stored, Claim { events: Vec::new(), ..left.clone() });
    let next = grant(at(11_000), &stream, Some(&left), 2).unwrap().claim;
    assert_eq!(next.events, [LifecycleKind::Resumed]);
    let over = next.ended(at(12_000));
    assert_eq!(over.events, [LifecycleKind::Ended { broadcast }]);
    assert_eq!(over.claimed_by_control(at(20_000)).events, []);
}

#[test]
fn renew_tells_of_a_degraded_stream_and_of_its_recovery_once() {
    let (_, mut claim) = renewed();
    let mut step = |degraded| {
        let request = RenewRequest { degraded, ..renewal(&claim, Some(claim.open_msn.0)) };
        match renew(at(10), &claim, &request) {
            Lease::Kept(Some(kept)) => {
                claim = *kept;
                claim.events.clone()
            }
            Lease::Kept(None) => Vec::new(),
            lost => panic!("{lost:?}"),
        }
    };
    let (reason, other) = (Degraded::NoCapacity, Degraded::CopyOnly);
    assert_eq!(step(Some(reason)), [LifecycleKind::Degraded { reason }]);
    assert_eq!(step(Some(reason)), []);
    assert_eq!(step(Some(other)), [LifecycleKind::Degraded { reason: other }]);
    assert_eq!(step(None), [LifecycleKind::Recovered]);
    assert_eq!(step(None), []);
}

#[test]
fn first_request_of_a_second_publisher_waits_while_the_first_holds_its_lease() {
    let stream = sample();
    let first = grant(at(0), &stream, None, 1).unwrap();
    let asked = ClaimRequest { takes_over: false, ..request(2) };
    let decide =
        |now, held: &Claim| decide(now, &first.stream, Some(held), &asked, BroadcastId::from_u128(2));
    assert!(decide(at(LEASE - 1), &first.claim).unwrap().waits);
    let lapsed = decide(at(LEASE), &first.claim).unwrap();
    assert!(!lapsed.waits && lapsed.kick.is_some(), "a lapsed lease is taken at once");
    let own = ClaimRequest { session: first.claim.session, ..asked.clone() };
    let repeated =
        super::decide(at(10), &first.stream, Some(&first.claim), &own, first.claim.broadcast).unwrap();
    assert!(repeated.repeated && !repeated.waits);
    assert!(
        !super::decide(at(0), &stream, None, &asked, first.claim.broadcast).unwrap().waits,
        "no other publisher"
    );
}

fn ladder(conditions: &[MediaCondition], state: RungState, bitrate: u64) -> LadderHealth {
    let rung = RungHealth {
        rendition: "720p".parse().unwrap(),
        state,
        encoder: None,
        fps_milli: 0,
        bitrate,
        speed_percent: 0,
        waiting_ms: 0,
    };
    LadderHealth { rungs: vec![rung], conditions: conditions.to_vec(), decoder_waiting_ms: 0 }
}

#[test]
fn renew_tells_each_change_of_conditions_and_rungs_once_and_writes_figures_only_when_due() {
    use LifecycleKind::{ConditionBegan, ConditionEnded, RungsLeftOut};
    use MediaCondition::{Black, Silent};
    use RungState::{Encoding, Shed};
    let (_, mut claim) = renewed();
    let mut told = Vec::new();
    let mut step = |ladder: LadderHealth| {
        let request =
            RenewRequest { ladder: Some(Box::new(ladder)), ..renewal(&claim, Some(claim.open_msn.0)) };
        match renew(at(10), &claim, &request) {
            Lease::Kept(Some(kept)) => {
                told.extend(kept.events.iter().cloned());
                claim = Claim { events: Vec::new(), ..*kept };
                true
            }
            Lease::Kept(None) => false,
            lost => panic!("{lost:?}"),
        }
    };
    assert!(step(ladder(&[], Encoding, 1)), "the first report");
    assert!(!step(ladder(&[], Encoding, 2)), "figures alone wait");
    step(ladder(&[Black, Silent], Shed, 2));
    assert!(!step(ladder(&[Black, Silent], Shed, 3)), "everything is told");
    step(ladder(&[Silent], Encoding, 3));
    let condition = |condition| ConditionBegan { condition };
    let expected = [
        condition(Black),
        condition(Silent),
        RungsLeftOut { rungs: 1 },
        ConditionEnded { condition: Black },
        RungsLeftOut { rungs: 0 },
    ];
    assert_eq!(told, expected);
    assert_eq!(claim.ended(at(20)).ladder, None, "nothing lasts beyond the broadcast");
}
