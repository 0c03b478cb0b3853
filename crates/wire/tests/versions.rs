//! Messages recorded from a build of wire version 1 (`tests/v1`) are refused as version 1, each kind.
#![allow(clippy::unwrap_used)]

use millrace_wire::WireError;
use millrace_wire::fact::{FactReader, StreamState};
use millrace_wire::fragment::FragmentError;
use millrace_wire::message::announce::{EpochAnnouncement, IndexFact, SessionAnnouncement};
use millrace_wire::message::control::{
    ClaimReply, ClaimRequest, Kick, LeaseReply, LifecycleEvent, ReleaseRequest, RenewRequest, SealReport,
};
use millrace_wire::message::job::{Bid, GrantOrder, Heartbeat, Offer, WorkerFree};
use millrace_wire::message::media::MediaReader;
use millrace_wire::message::probe::Loopback;
use millrace_wire::message::repair::{RepairReply, RepairRequest, SnapshotRequest};
use millrace_wire::topic::{Message, decode};

fn recorded(name: &str) -> Vec<u8> {
    std::fs::read(format!("tests/v1/{name}")).unwrap()
}

fn assert_refused_as_version_1<T: Message>(name: &str) {
    let refused = decode::<T>(&recorded(name)).err();
    assert!(matches!(refused, Some(WireError::Version { found: 1 })), "{name}: {refused:?}");
}

#[test]
fn decode_refuses_recorded_json_messages_of_version_1() {
    assert_refused_as_version_1::<Heartbeat>("heartbeat.json");
    assert_refused_as_version_1::<Bid>("bid.json");
    assert_refused_as_version_1::<Offer>("offer.json");
    assert_refused_as_version_1::<GrantOrder>("grant.json");
    assert_refused_as_version_1::<GrantOrder>("revoke.json");
    assert_refused_as_version_1::<SessionAnnouncement>("session-announcement.json");
    assert_refused_as_version_1::<EpochAnnouncement>("epoch-announcement.json");
    assert_refused_as_version_1::<StreamState>("snapshot.json");
    assert_refused_as_version_1::<RepairRequest>("repair-request.json");
    assert_refused_as_version_1::<RepairReply>("repair-reply.json");
    assert_refused_as_version_1::<ClaimRequest>("claim-request.json");
    assert_refused_as_version_1::<ClaimReply>("claim-reply.json");
    assert_refused_as_version_1::<RenewRequest>("renew-request.json");
    assert_refused_as_version_1::<ReleaseRequest>("release-request.json");
    assert_refused_as_version_1::<LeaseReply>("lease-reply.json");
    assert_refused_as_version_1::<SealReport>("seal-report.json");
    assert_refused_as_version_1::<Kick>("kick.json");
    assert_refused_as_version_1::<LifecycleEvent>("lifecycle-event.json");
    assert_refused_as_version_1::<IndexFact>("index-fact.json");
}

#[test]
fn decode_refuses_the_empty_messages_of_version_1() {
    assert_refused_as_version_1::<SnapshotRequest>("snapshot-request.empty");
    assert_refused_as_version_1::<WorkerFree>("worker-free.empty");
    assert_refused_as_version_1::<Loopback>("loopback.empty");
}

#[test]
fn fragment_readers_refuse_recorded_binary_messages_of_version_1() {
    let media = MediaReader::default().push(recorded("media-message.bin").into());
    assert_eq!(media.unwrap_err(), FragmentError::Version(1));
    for name in ["fact.bin", "fact-takeover.bin"] {
        let fact = FactReader::default().push(recorded(name).into());
        let refused = WireError::from(fact.unwrap_err());
        assert!(matches!(refused, WireError::Version { found: 1 }), "{name}: {refused:?}");
    }
}
