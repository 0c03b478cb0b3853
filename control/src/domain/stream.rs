//! The record of a livestream, its status and the transitions between them.

use millrace_wire::ids::{BroadcastId, KeyHash, PlaybackId, StreamId, UnixMillis};
use millrace_wire::message::control::StreamSettings;
use serde::{Deserialize, Serialize};

use super::access::Owner;
use super::disconnect::Disconnect;

/// The status of a livestream: `scheduled → live → ended → archived`, or `cancelled` before it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The broadcast has not begun; its key is accepted, and the first usable media make it live.
    Scheduled,
    /// The broadcast is on, also while its publisher is away within the reconnect window.
    Live,
    /// The broadcast is over: the playlist carries ENDLIST and the key is refused.
    Ended,
    /// The broadcast is over and the operator filed it.
    Archived,
    /// The broadcast was cancelled before it began.
    Cancelled,
}

impl Status {
    /// Returns the name that the API uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Live => "live",
            Self::Ended => "ended",
            Self::Archived => "archived",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A change of the status, by an operator or by the reconciler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// `scheduled → live`: by the operator or by the first usable media.
    Start,
    /// `live → ended`: by the operator or because the reconnect window passed.
    Stop,
    /// `scheduled → cancelled`, by the operator.
    Cancel,
    /// `ended → archived`, by the operator.
    Archive,
    /// The record is deleted, in any status but live.
    Delete,
    /// Fields of the record change, of a livestream that is scheduled or live; its status does not.
    Change,
}

impl Transition {
    /// Returns the verb that messages use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Cancel => "cancel",
            Self::Archive => "archive",
            Self::Delete => "delete",
            Self::Change => "change",
        }
    }
}

/// A transition that the status does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot {} a livestream that is {}", transition.as_str(), status.as_str())]
pub struct InvalidTransition {
    /// The transition that was requested.
    pub transition: Transition,
    /// The status that does not allow it.
    pub status: Status,
}

/// The stored record of a livestream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// The internal id; ids sort by creation.
    pub id: StreamId,
    /// The public id in playback URLs.
    pub playback_id: PlaybackId,
    /// The owner, who sees and changes the livestream; operators alone do without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// The keyed hash of the stream key; the key itself is not stored.
    pub key_hash: KeyHash,
    /// The title shown to viewers and operators.
    pub title: String,
    /// Free text shown to viewers and operators.
    pub description: String,
    /// The time at which it is planned to begin.
    pub scheduled_at: Option<UnixMillis>,
    /// The settings chosen at its creation.
    pub settings: StreamSettings,
    /// The status of the livestream.
    pub status: Status,
    /// The current or last broadcast.
    pub broadcast: Option<BroadcastId>,
    /// The time the record was created.
    pub created_at: UnixMillis,
    /// The time the livestream went live.
    pub started_at: Option<UnixMillis>,
    /// The time it ended or was cancelled.
    pub ended_at: Option<UnixMillis>,
    /// The last refusal or end of a publish with its key.
    #[serde(default)]
    pub last_disconnect: Option<Disconnect>,
}

impl Stream {
    /// Makes a transition, or returns the reason why the status does not allow it. `Delete` and `Change` leave the record as it is: the
    /// caller deletes or changes it.
    pub fn apply(&mut self, transition: Transition, now: UnixMillis) -> Result<(), InvalidTransition> {
        match (transition, self.status) {
            (Transition::Start, Status::Scheduled) => {
                self.status = Status::Live;
                self.started_at = Some(now);
            }
            (Transition::Stop, Status::Live) => {
                self.status = Status::Ended;
                self.ended_at = Some(now);
            }
            (Transition::Cancel, Status::Scheduled) => {
                self.status = Status::Cancelled;
                self.ended_at = Some(now);
            }
            (Transition::Archive, Status::Ended) => self.status = Status::Archived,
            (Transition::Delete, status) if status != Status::Live => {}
            (Transition::Change, Status::Scheduled | Status::Live) => {}
            (transition, status) => return Err(InvalidTransition { transition, status }),
        }
        Ok(())
    }

    /// Begins the broadcast whose first media came; a livestream that an operator started is live already.
    pub fn begin(&mut self, broadcast: BroadcastId, now: UnixMillis) -> Result<(), InvalidTransition> {
        if self.status != Status::Live {
            self.apply(Transition::Start, now)?;
        }
        self.broadcast = Some(broadcast);
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample() -> Stream {
        Stream {
            id: StreamId::from_u128(1),
            playback_id: "000102030405060708090a0b0c0d0e0f".parse().unwrap(),
            owner: None,
            key_hash: KeyHash::of(b"s", &"000102030405060708090a0b0c0d0e0f".parse().unwrap()),
            title: "Match".to_owned(),
            description: String::new(),
            scheduled_at: None,
            settings: StreamSettings::default(),
            status: Status::Scheduled,
            broadcast: None,
            created_at: UnixMillis(1),
            started_at: None,
            ended_at: None,
            last_disconnect: None,
        }
    }

    #[test]
    fn apply_makes_the_allowed_transitions_of_every_status_and_refuses_the_others() {
        use Status::{Archived, Cancelled, Ended, Live, Scheduled};
        use Transition::{Archive, Cancel, Change, Delete, Start, Stop};
        let allowed = [
            (Scheduled, Start, Live),
            (Live, Stop, Ended),
            (Scheduled, Cancel, Cancelled),
            (Ended, Archive, Archived),
            (Scheduled, Delete, Scheduled),
            (Ended, Delete, Ended),
            (Archived, Delete, Archived),
            (Cancelled, Delete, Cancelled),
            (Scheduled, Change, Scheduled),
            (Live, Change, Live),
        ];
        for from in [Scheduled, Live, Ended, Archived, Cancelled] {
            for transition in [Start, Stop, Cancel, Archive, Delete, Change] {
                let mut stream = Stream { status: from, ..sample() };
                let expected = allowed.iter().find(|(state, verb, _)| (*state, *verb) == (from, transition));
                if let Some((_, _, to)) = expected {
                    stream.apply(transition, UnixMillis(9)).unwrap();
                    assert_eq!(stream.status, *to);
                } else {
                    let before = stream.clone();
                    assert_eq!(
                        stream.apply(transition, UnixMillis(9)),
                        Err(InvalidTransition { transition, status: from })
                    );
                    assert_eq!(stream, before);
                }
            }
        }
    }

    #[test]
    fn apply_sets_the_times_of_start_and_stop() {
        let mut stream = sample();
        stream.apply(Transition::Start, UnixMillis(5)).unwrap();
        stream.apply(Transition::Stop, UnixMillis(8)).unwrap();
        assert_eq!((stream.started_at, stream.ended_at), (Some(UnixMillis(5)), Some(UnixMillis(8))));
    }
}
