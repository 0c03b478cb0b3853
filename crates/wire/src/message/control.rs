//! Requests of ingest nodes and log writers to control, and control's orders to publisher sessions.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::close_reason::CloseReason;
use crate::ids::{
    Airing, BroadcastId, DiscontinuitySeq, Epoch, Generation, KeyHash, Msn, NodeId, PlaybackId, SessionId,
    StreamId,
};
pub use crate::ladder::{Ladder, LadderPlan};
use crate::message::ladder_health::LadderHealth;
pub use crate::message::lifecycle::{LifecycleEvent, LifecycleKind};
use crate::topic::Message;

impl Message for ClaimRequest {}
impl Message for ClaimReply {}
impl Message for RenewRequest {}
impl Message for ReleaseRequest {}
impl Message for RefusalReport {}
impl Message for SealReport {}
impl Message for LeaseReply {}
impl Message for Kick {}

/// On `control.claim`: a publisher presents a key and asks to go live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimRequest {
    /// The keyed hash of the presented key.
    pub key_hash: KeyHash,
    /// The publisher session that claims.
    pub session: SessionId,
    /// The ingest node that the publisher is connected to.
    pub node: NodeId,
    /// The publisher's address, for audit.
    pub addr: Option<IpAddr>,
    /// Protocol (`rtmp`, `rtmps`, …), for status.
    pub protocol: String,
    /// True if the claim takes the livestream over from a session that holds it. A session asks without first, so that the
    /// running publisher is not displaced before the newer one has shown usable media. A node that does not know the field
    /// takes over at once.
    #[serde(default = "takes_over")]
    pub takes_over: bool,
    /// The check of the key at a service outside the cluster.
    #[serde(default, skip_serializing_if = "OutsideCheck::is_absent")]
    pub outside: OutsideCheck,
}

/// The check of a key that is none of the cluster's own, by a service that the operator named at the ingest node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "check", rename_all = "snake_case")]
pub enum OutsideCheck {
    /// The ingest node has no such service.
    #[default]
    Absent,
    /// The service can be asked; the claim is the first one of its session.
    Available,
    /// The service has accepted the key.
    Accepted(AcceptedKey),
}

impl OutsideCheck {
    fn is_absent(&self) -> bool {
        *self == Self::Absent
    }
}

/// The properties that a service outside the cluster gave with the key it accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedKey {
    /// The title of the stream.
    #[serde(default)]
    pub title: Option<String>,
    /// The id of its owner.
    #[serde(default)]
    pub owner: Option<String>,
}

const fn takes_over() -> bool {
    true
}

/// Control's answer to a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "claim", rename_all = "snake_case")]
pub enum ClaimReply {
    /// The publisher may go live.
    Granted(Box<ClaimGrant>),
    /// The key may publish, but another session holds the livestream: nothing has changed. The session repeats its claim with
    /// [`ClaimRequest::takes_over`] once it has usable media.
    Held {
        /// The livestream that the key is for.
        stream: StreamId,
        /// The limits that the media must keep.
        limits: PublishLimits,
    },
    /// The key is none of the cluster's own: the session asks the service outside, and claims again with
    /// [`OutsideCheck::Accepted`]. Answers only [`OutsideCheck::Available`].
    CheckKey,
    /// The publisher is refused for the reason.
    Refused {
        /// The reason, as a stable code.
        reason: CloseReason,
    },
}

/// An epoch for one session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimGrant {
    /// The livestream that this is about.
    pub stream: StreamId,
    /// The livestream's id in viewers' URLs.
    pub playback: PlaybackId,
    /// The broadcast that the epoch belongs to.
    pub broadcast: BroadcastId,
    /// The number of that broadcast.
    #[serde(default, skip_serializing_if = "Airing::is_first")]
    pub airing: Airing,
    /// The epoch that is given to the session.
    pub epoch: Epoch,
    /// Number of its first segment.
    pub first_msn: Msn,
    /// That segment's discontinuity sequence number.
    pub discontinuity_sequence: DiscontinuitySeq,
    /// The broadcast has earlier epochs: their state is to be asked for before the first grant.
    pub continues: bool,
    /// The newest of those: its sealed state is the one to build on.
    #[serde(default)]
    pub follows: Option<Epoch>,
    /// Lease: renew every third of it.
    pub lease_ms: u32,
    /// The limits that the publisher must keep.
    pub limits: PublishLimits,
    /// The settings of the livestream.
    pub settings: StreamSettings,
}

/// The limits that a publisher must keep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishLimits {
    /// Bits per second, averaged over 10 s.
    pub max_bitrate: u64,
    /// Largest width of the video, in pixels.
    pub max_width: u32,
    /// Largest height of the video, in pixels.
    pub max_height: u32,
    /// True if the livestream is encoded, so that audio which players do not decode is accepted.
    #[serde(default)]
    pub encodes: bool,
}

impl Default for PublishLimits {
    fn default() -> Self {
        // 50 Mb/s and 4096 lines cover 2160p60 from any live encoder.
        Self { max_bitrate: 50_000_000, max_width: 4096, max_height: 4096, encodes: false }
    }
}

/// A second publisher on a live key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Takeover {
    /// The newer one wins: an encoder reconnecting after a broken link is not locked out by its own ghost.
    #[default]
    Replace,
    /// The older one wins: the newer one is refused.
    Refuse,
}

/// The policy for the playlist while the publisher is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum AwayPolicy {
    /// GAP segments keep the playlist growing.
    #[default]
    Gap,
    /// The playlist does not grow until the publisher is back.
    Hold,
}

/// A stream's settings as sessions and authors need them. Missing fields take the default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamSettings {
    /// TARGETDURATION in seconds, from 2 to 10.
    pub target_duration: u32,
    /// Length of the live window in seconds, unless `list_segments` sets it.
    pub window: u32,
    /// The number of segments that live playlists list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub list_segments: Option<u32>,
    /// True to keep segments that leave the live window.
    pub record: bool,
    /// True to write the playlists into the bucket as well.
    pub publish_playlist: bool,
    /// The policy for a second publisher on a live key.
    pub takeover: Takeover,
    /// Seconds that a publisher may be away before the broadcast ends.
    pub reconnect_window: u32,
    /// The policy for the playlist in this time.
    pub away: AwayPolicy,
    /// Aimed duration of a part, in milliseconds.
    pub part_ms: u32,
    /// The renditions in which the stream is delivered.
    pub ladder: Ladder,
    /// The ladder with its template resolved, as control does it at the claim of a publisher.
    pub plan: LadderPlan,
}

impl Default for StreamSettings {
    fn default() -> Self {
        Self {
            target_duration: 2,
            window: 60,
            list_segments: None,
            record: false,
            publish_playlist: false,
            takeover: Takeover::default(),
            reconnect_window: 60,
            away: AwayPolicy::default(),
            part_ms: 200,
            ladder: Ladder::default(),
            plan: LadderPlan::default(),
        }
    }
}

/// Target durations by which the playlists in the bucket begin later than those of edges.
const BUCKET_BEGINS_LATER: u32 = 2;

impl StreamSettings {
    /// Returns the length of the live window in seconds. A playlist drops its first segment once the others are longer, so a window
    /// of `list_segments` is half a segment shorter than they are. Where the playlists are in the bucket too, it is those that
    /// list the number.
    pub fn window_s(&self) -> u32 {
        let Some(segments) = self.list_segments else { return self.window };
        let later = if self.publish_playlist { BUCKET_BEGINS_LATER } else { 0 };
        let target = self.target_duration;
        segments.saturating_add(later).saturating_mul(target).saturating_sub(target.div_ceil(2))
    }
}

/// On `control.renew`: the session still publishes. Also the source of a stream's live status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewRequest {
    /// The livestream that this is about.
    pub stream: StreamId,
    /// The publisher session that this is about.
    pub session: SessionId,
    /// The epoch of the publisher session.
    pub epoch: Epoch,
    /// Highest segment number assigned to media so far; `None` before the first unit.
    pub open_msn: Option<Msn>,
    /// Highest discontinuity sequence number assigned to media so far.
    pub discontinuity_sequence: DiscontinuitySeq,
    /// Health, as one of the `announce::Degraded` codes.
    pub degraded: Option<crate::message::announce::Degraded>,
    /// Conditions of the media that last, in words; at most [`HealthNote::MAX`] count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<HealthNote>,
    /// The health of the encoded rungs, as the worker reported it last; `None` for a stream without any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ladder: Option<Box<LadderHealth>>,
}

/// Longest text of a note or of the end of a publish, in characters: two sentences.
const MAX_TEXT: usize = 300;

/// Returns `text` without control characters, cut to the longest text that a message carries.
pub fn bounded_text(text: &str) -> String {
    text.chars().filter(|char| !char.is_control()).take(MAX_TEXT).collect()
}

/// A condition of a stream's media that lasts, for its health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthNote {
    /// The stable code of the condition.
    pub code: String,
    /// The condition and its likely cause, as one sentence.
    pub text: String,
}

impl HealthNote {
    /// Most notes of one stream; more would hide the ones that matter.
    pub const MAX: usize = 8;

    /// Creates a note with a bounded text.
    pub fn new(code: &str, text: &str) -> Self {
        Self { code: bounded_text(code), text: bounded_text(text) }
    }
}

/// Control's answer to a renewal, a release and a seal report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "lease", rename_all = "snake_case")]
pub enum LeaseReply {
    /// The request is recorded; the lease goes on.
    Ok,
    /// Positive evidence: the session is to stop. Errors and time-outs never are.
    Superseded {
        /// The reason, as a stable code.
        reason: CloseReason,
    },
}

/// On `control.release`: the publisher has left. The open segment closes as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseRequest {
    /// The livestream that this is about.
    pub stream: StreamId,
    /// The publisher session that this is about.
    pub session: SessionId,
    /// The epoch of the publisher session.
    pub epoch: Epoch,
    /// Highest segment number assigned to media; `None` before the first unit.
    pub open_msn: Option<Msn>,
    /// Highest discontinuity sequence number assigned to media.
    pub discontinuity_sequence: DiscontinuitySeq,
    /// The reason the publisher left.
    pub reason: CloseReason,
    /// The reason in words, as the publisher was told; empty if the reason's own text says it all.
    #[serde(default)]
    pub text: String,
}

/// On `control.refused`: an ingest node has refused a publisher before it claimed its key. Sent once, for the livestream's
/// status; a lost report changes nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusalReport {
    /// The keyed hash of the presented key.
    pub key_hash: KeyHash,
    /// The ingest node that refused.
    pub node: NodeId,
    /// The publisher's address.
    pub addr: Option<IpAddr>,
    /// The protocol of the publisher.
    pub protocol: String,
    /// The reason of the refusal.
    pub reason: CloseReason,
    /// The reason in words, as the publisher was told.
    pub text: String,
}

/// On `control.sealed`: an author has sealed or ended an epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealReport {
    /// The livestream that this is about.
    pub stream: StreamId,
    /// The epoch that is given to the session.
    pub epoch: Epoch,
    /// The generation of the log writer that reports.
    pub generation: Generation,
    /// Last segment number used, if any.
    pub last: Option<Msn>,
    /// Highest discontinuity sequence number used.
    pub discontinuity_sequence: DiscontinuitySeq,
    /// True if the log ends with ENDLIST.
    pub ended: bool,
}

/// On `control.kick.{session}`: the session ends and passes the reason on to its publisher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kick {
    /// The publisher session that this is about.
    pub session: SessionId,
    /// The reason, as a stable code.
    pub reason: CloseReason,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WireError;
    use crate::topic::{decode, encode};
    use proptest::prelude::*;

    fn claim() -> ClaimRequest {
        ClaimRequest {
            key_hash: KeyHash::of(b"x", &"000102030405060708090a0b0c0d0e0f".parse().unwrap()),
            session: SessionId::from_u128(5),
            node: "ingest-1".parse().unwrap(),
            addr: Some([127, 0, 0, 1].into()),
            protocol: "rtmp".into(),
            takes_over: false,
            outside: OutsideCheck::Absent,
        }
    }

    #[test]
    fn claim_without_an_outside_check_is_written_as_before_and_one_with_it_round_trips() {
        assert!(!String::from_utf8_lossy(&encode(&claim()).unwrap()).contains("outside"));
        let accepted = AcceptedKey { title: Some("Show".into()), owner: None };
        for outside in [OutsideCheck::Available, OutsideCheck::Accepted(accepted)] {
            let request = ClaimRequest { outside, ..claim() };
            assert_eq!(decode::<ClaimRequest>(&encode(&request).unwrap()).unwrap(), request);
        }
        assert_eq!(
            decode::<ClaimReply>(&encode(&ClaimReply::CheckKey).unwrap()).unwrap(),
            ClaimReply::CheckKey
        );
    }

    #[test]
    fn window_follows_the_number_of_listed_segments() {
        let settings = |list_segments, publish_playlist, target_duration| {
            StreamSettings { target_duration, list_segments, publish_playlist, ..StreamSettings::default() }
                .window_s()
        };
        assert_eq!(settings(None, true, 2), 60);
        assert_eq!(
            [settings(Some(3), false, 2), settings(Some(5), false, 2), settings(Some(5), true, 2)],
            [5, 9, 13]
        );
        assert_eq!(settings(Some(4), false, 3), 10);
        let plain = serde_json::to_string(&StreamSettings::default()).unwrap();
        assert!(!plain.contains("list_segments"), "earlier versions wrote it so");
    }

    #[test]
    fn claim_of_a_node_that_does_not_know_the_field_takes_over() {
        let text = String::from_utf8_lossy(&encode(&claim()).unwrap()).replace(",\"takes_over\":false", "");
        assert!(!text.contains("takes_over"), "{text}");
        assert!(decode::<ClaimRequest>(text.as_bytes()).unwrap().takes_over);
    }

    #[test]
    fn messages_carry_a_version_and_round_trip() {
        let bytes = encode(&claim()).unwrap();
        assert!(String::from_utf8_lossy(&bytes).starts_with("{\"v\":3"));
        assert_eq!(decode::<ClaimRequest>(&bytes).unwrap(), claim());
        let newer = String::from_utf8(bytes.into()).unwrap().replacen("\"v\":3", "\"v\":4", 1);
        let refused = decode::<ClaimRequest>(newer.as_bytes());
        assert!(matches!(refused, Err(WireError::Version { found: 4 })), "{refused:?}");
        let refused = ClaimReply::Refused { reason: CloseReason::UnknownKey };
        assert_eq!(decode::<ClaimReply>(&encode(&refused).unwrap()).unwrap(), refused);
        let granted = ClaimReply::Granted(Box::new(ClaimGrant {
            stream: StreamId::from_u128(1),
            playback: "00112233445566778899aabbccddeeff".parse().unwrap(),
            broadcast: BroadcastId::from_u128(2),
            airing: Airing(1),
            epoch: Epoch(u64::MAX),
            first_msn: Msn(4),
            discontinuity_sequence: DiscontinuitySeq(5),
            continues: true,
            follows: Some(Epoch(1)),
            lease_ms: 3000,
            limits: PublishLimits::default(),
            settings: StreamSettings::default(),
        }));
        assert_eq!(decode::<ClaimReply>(&encode(&granted).unwrap()).unwrap(), granted);
        assert_eq!(decode::<LeaseReply>(&encode(&LeaseReply::Ok).unwrap()).unwrap(), LeaseReply::Ok);
    }

    #[test]
    fn missing_settings_take_the_default() {
        let s: StreamSettings = serde_json::from_str("{\"window\": 30}").unwrap();
        assert_eq!(s, StreamSettings { window: 30, ..StreamSettings::default() });
    }

    proptest! {
        #[test]
        fn garbage_is_refused(text in "\\PC{0,200}") {
            let _ = decode::<ClaimRequest>(text.as_bytes());
            let _ = decode::<RenewRequest>(text.as_bytes());
            let _ = decode::<ClaimReply>(text.as_bytes());
        }
        #[test]
        fn damaged_requests_do_not_panic(flip: u16, to: u8) {
            let mut bytes = encode(&claim()).unwrap().to_vec();
            let i = usize::from(flip) % bytes.len();
            bytes[i] = to;
            let _ = decode::<ClaimRequest>(&bytes);
        }
    }
}
