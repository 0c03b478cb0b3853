//! The record of a livestream: its status, the transitions between them, and its stream keys.

use millrace_wire::close_reason::CloseReason;
use millrace_wire::ids::{Airing, BroadcastId, KeyHash, KeyId, PlaybackId, StreamId, UnixMillis};
use millrace_wire::message::control::StreamSettings;
use serde::{Deserialize, Serialize};

use super::access::Owner;
use super::airings::Airings;
use super::disconnect::Disconnect;
use super::keys::{DEFAULT_PRIORITY, Key, KeyState, MAX_KEYS, TooManyKeys};

/// The name of the key that a livestream is created with.
const FIRST_NAME: &str = "main";

/// The status of a livestream: `scheduled → live → ended → archived`, or `cancelled` before it began. One that airs again goes
/// from `ended` to `live`, or to `scheduled` when it is reopened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The broadcast has not begun; its keys are accepted, and the first usable media make it live.
    Scheduled,
    /// The broadcast is on, also while its publisher is away within the reconnect window.
    Live,
    /// The broadcast is over: the playlist carries ENDLIST. The keys are refused, unless the livestream airs again.
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
    /// The operator is ready for a livestream that is scheduled; it stays so until its first media come. One that is live
    /// stays as it is.
    Start,
    /// `live → ended`, by the operator.
    Stop,
    /// `live → ended`, because the reconnect window passed.
    End,
    /// `ended → scheduled`, by the operator: the keys begin another broadcast.
    Reopen,
    /// `scheduled → cancelled`, by the operator.
    Cancel,
    /// `ended → archived`, by the operator.
    Archive,
    /// The record is deleted, in any status but live.
    Delete,
    /// Fields of the record change, of a livestream that is scheduled or live, or that airs again; its status does not.
    Change,
}

impl Transition {
    /// Returns the verb that messages use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::End => "end",
            Self::Reopen => "reopen",
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
    /// The keyed hash of the first stream key; the key itself is not stored.
    pub key_hash: KeyHash,
    /// All stream keys, once there is more to say of them than the hash of the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<Key>,
    /// The key that belongs to a service outside the cluster, which is asked about it before each publish.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outside_key: Option<KeyHash>,
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
    /// The time an operator marked it as ready to go live.
    #[serde(default)]
    pub ready_at: Option<UnixMillis>,
    /// The time the current or last broadcast began.
    pub started_at: Option<UnixMillis>,
    /// The time it ended or was cancelled.
    pub ended_at: Option<UnixMillis>,
    /// Its broadcasts so far, and the rule for the next one.
    #[serde(default)]
    pub airings: Airings,
    /// The last refusal or end of a publish with one of its keys.
    #[serde(default)]
    pub last_disconnect: Option<Disconnect>,
}

impl Stream {
    /// Creates the record of a livestream that is scheduled, has this first key, and of which nothing else is said yet.
    pub fn scheduled(
        id: StreamId,
        playback_id: PlaybackId,
        key_hash: KeyHash,
        created_at: UnixMillis,
    ) -> Self {
        Self {
            id,
            playback_id,
            owner: None,
            key_hash,
            keys: Vec::new(),
            outside_key: None,
            title: String::new(),
            description: String::new(),
            scheduled_at: None,
            settings: StreamSettings::default(),
            status: Status::Scheduled,
            broadcast: None,
            created_at,
            ready_at: None,
            started_at: None,
            ended_at: None,
            airings: Airings::default(),
            last_disconnect: None,
        }
    }

    /// Makes a transition, or returns the reason why the status does not allow it. `Delete` and `Change` leave the record as it is: the
    /// caller deletes or changes it.
    pub fn apply(&mut self, transition: Transition, now: UnixMillis) -> Result<(), InvalidTransition> {
        match (transition, self.status) {
            (Transition::Start, Status::Scheduled) => {
                self.ready_at.get_or_insert(now);
            }
            (Transition::Start, Status::Live) | (Transition::Change, Status::Scheduled | Status::Live) => {}
            (Transition::Stop | Transition::End, Status::Live) => {
                self.status = Status::Ended;
                self.ended_at = Some(now);
                self.airings.stopped = transition == Transition::Stop;
            }
            (Transition::Reopen, Status::Ended) => {
                self.airings.begun = self.next_airing().0;
                self.airings.stopped = false;
                self.status = Status::Scheduled;
                (self.broadcast, self.ready_at) = (None, None);
                (self.started_at, self.ended_at) = (None, None);
            }
            (Transition::Cancel, Status::Scheduled) => {
                self.status = Status::Cancelled;
                self.ended_at = Some(now);
            }
            (Transition::Archive, Status::Ended) => self.status = Status::Archived,
            (Transition::Delete, status) if status != Status::Live => {}
            (Transition::Change, Status::Ended) if self.airs_again() => {}
            (transition, status) => return Err(InvalidTransition { transition, status }),
        }
        Ok(())
    }

    /// True if the livestream is between two broadcasts, and its keys begin the next one.
    pub fn airs_again(&self) -> bool {
        self.status == Status::Ended && self.airings.reusable && !self.airings.stopped
    }

    /// Returns the broadcast that a publisher joins who connects now: the one that is on, if there is one.
    pub fn current_broadcast(&self) -> Option<BroadcastId> {
        self.broadcast.filter(|_| self.status != Status::Ended)
    }

    /// Returns the number of the broadcast that begins next.
    pub fn next_airing(&self) -> Airing {
        // Records of earlier versions have no count.
        Airing(self.airings.begun.max(u32::from(self.broadcast.is_some())))
    }

    /// Returns the number of the broadcast that a publisher joins or begins who connects now.
    pub fn airing(&self) -> Airing {
        let next = self.next_airing();
        if self.current_broadcast().is_some() { Airing(next.0.saturating_sub(1)) } else { next }
    }

    /// Begins the broadcast whose first media came.
    pub fn begin(&mut self, broadcast: BroadcastId, now: UnixMillis) -> Result<(), InvalidTransition> {
        if self.current_broadcast() == Some(broadcast) {
            return Ok(());
        }
        // A record of an earlier version may be live before its first media.
        if !matches!(self.status, Status::Scheduled | Status::Live) && !self.airs_again() {
            return Err(InvalidTransition { transition: Transition::Start, status: self.status });
        }
        self.airings.begun = self.airing().next().0;
        self.status = Status::Live;
        (self.broadcast, self.started_at, self.ended_at) = (Some(broadcast), Some(now), None);
        Ok(())
    }
}

impl Stream {
    /// Returns all keys, the one from the livestream's creation first. A record of an earlier version has that one alone.
    pub fn all_keys(&self) -> Vec<Key> {
        if !self.keys.is_empty() {
            return self.keys.clone();
        }
        vec![Key {
            id: KeyId::from_u128(self.id.to_u128()),
            name: FIRST_NAME.to_owned(),
            hash: self.key_hash,
            priority: DEFAULT_PRIORITY,
            created_at: self.created_at,
            expires_at: None,
            revoked_at: None,
        }]
    }

    /// Returns the key with this hash if it may publish at `now`, or the reason for which it is refused.
    pub fn usable_key(&self, hash: &KeyHash, now: UnixMillis) -> Result<Key, CloseReason> {
        let found = self.all_keys().into_iter().find(|key| key.hash == *hash);
        let key = found.ok_or(CloseReason::RevokedKey)?;
        match key.state(now) {
            KeyState::Active => Ok(key),
            KeyState::Expired => Err(CloseReason::ExpiredKey),
            KeyState::Revoked => Err(CloseReason::RevokedKey),
        }
    }

    /// Adds a key. The key that was revoked first makes room for it where there is none.
    pub fn add_key(&mut self, key: Key) -> Result<(), TooManyKeys> {
        let mut keys = self.all_keys();
        if keys.len() >= MAX_KEYS {
            let revoked = keys.iter().enumerate().filter_map(|(at, key)| Some((key.revoked_at?, at)));
            let (_, oldest) = revoked.min().ok_or(TooManyKeys)?;
            keys.remove(oldest);
        }
        keys.push(key);
        self.keys = keys;
        Ok(())
    }

    /// Revokes a key and returns it; `None` if the livestream has no such key. A key that is revoked already stays so.
    pub fn revoke_key(&mut self, id: KeyId, now: UnixMillis) -> Option<Key> {
        let mut keys = self.all_keys();
        let key = keys.iter_mut().find(|key| key.id == id)?;
        key.revoked_at.get_or_insert(now);
        let revoked = key.clone();
        self.keys = keys;
        Some(revoked)
    }

    /// Replaces the hash of the livestream's first key and returns the key as it was. Its other properties stay; a revoked one
    /// is valid again.
    pub fn rotate_key(&mut self, hash: KeyHash, now: UnixMillis) -> Option<Key> {
        let mut keys = self.all_keys();
        let first = keys.first_mut()?;
        let old = first.clone();
        (first.hash, first.created_at, first.revoked_at) = (hash, now, None);
        first.expires_at.take_if(|at| *at <= now);
        self.key_hash = hash;
        self.keys = keys;
        Some(old)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample() -> Stream {
        let key_hash = KeyHash::of(b"s", &"000102030405060708090a0b0c0d0e0f".parse().unwrap());
        let playback_id = "000102030405060708090a0b0c0d0e0f".parse().unwrap();
        Stream {
            title: "Match".to_owned(),
            ..Stream::scheduled(StreamId::from_u128(1), playback_id, key_hash, UnixMillis(1))
        }
    }

    #[test]
    fn apply_makes_the_allowed_transitions_of_every_status_and_refuses_the_others() {
        use Status::{Archived, Cancelled, Ended, Live, Scheduled};
        use Transition::{Archive, Cancel, Change, Delete, End, Reopen, Start, Stop};
        let allowed = [
            (Scheduled, Start, Scheduled),
            (Live, Start, Live),
            (Live, Stop, Ended),
            (Live, End, Ended),
            (Ended, Reopen, Scheduled),
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
            for transition in [Start, Stop, End, Reopen, Cancel, Archive, Delete, Change] {
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
        for at in [5, 6] {
            stream.apply(Transition::Start, UnixMillis(at)).unwrap();
            assert_eq!((stream.status, stream.ready_at), (Status::Scheduled, Some(UnixMillis(5))));
        }
        stream.begin(BroadcastId::from_u128(1), UnixMillis(7)).unwrap();
        stream.apply(Transition::Start, UnixMillis(8)).unwrap();
        stream.apply(Transition::Stop, UnixMillis(9)).unwrap();
        assert_eq!((stream.started_at, stream.ended_at), (Some(UnixMillis(7)), Some(UnixMillis(9))));
    }

    #[test]
    fn reusable_livestream_begins_another_broadcast_unless_an_operator_stopped_the_last_one() {
        let mut stream = sample();
        let (first, second) = (BroadcastId::from_u128(1), BroadcastId::from_u128(2));
        stream.airings.reusable = true;
        assert_eq!(stream.airing(), Airing(0));
        stream.begin(first, UnixMillis(5)).unwrap();
        assert_eq!((stream.airing(), stream.next_airing()), (Airing(0), Airing(1)));
        stream.apply(Transition::End, UnixMillis(6)).unwrap();
        assert_eq!((stream.current_broadcast(), stream.airing()), (None, Airing(1)));
        stream.apply(Transition::Change, UnixMillis(6)).unwrap();
        stream.begin(second, UnixMillis(7)).unwrap();
        stream.begin(second, UnixMillis(8)).unwrap();
        assert_eq!((stream.status, stream.airing(), stream.ended_at), (Status::Live, Airing(1), None));
        assert_eq!((stream.broadcast, stream.started_at), (Some(second), Some(UnixMillis(7))));
        stream.apply(Transition::Stop, UnixMillis(9)).unwrap();
        assert!(stream.begin(BroadcastId::from_u128(3), UnixMillis(10)).is_err());
        stream.apply(Transition::Reopen, UnixMillis(11)).unwrap();
        assert_eq!((stream.status, stream.broadcast, stream.airing()), (Status::Scheduled, None, Airing(2)));
    }

    #[test]
    fn reopened_livestream_of_an_earlier_version_counts_its_first_broadcast() {
        let ended = Stream { status: Status::Ended, broadcast: Some(BroadcastId::from_u128(1)), ..sample() };
        let mut stream = ended;
        stream.apply(Transition::Reopen, UnixMillis(2)).unwrap();
        assert_eq!(stream.airing(), Airing(1));
    }
}
