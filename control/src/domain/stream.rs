//! A livestream's record and its states.

use millrace_wire::ids::{BroadcastId, KeyHash, PlaybackId, StreamId, UnixMillis};
use millrace_wire::message::control::StreamSettings;
use serde::{Deserialize, Serialize};

/// Where a livestream stands: `scheduled → live → ended → archived`, or `cancelled` before it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Not begun; its key is accepted, and the first publisher makes it live.
    Scheduled,
    /// On the air, also while its publisher is away within the reconnect window.
    Live,
    /// Over; the playlist carries ENDLIST and the key is refused.
    Ended,
    /// Over and put away.
    Archived,
    /// Called off before it began.
    Cancelled,
}

impl Status {
    /// The name used by the API.
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

/// A move an operator asks for, or that the reconciler makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// `scheduled → live`: by the operator or by the first publisher.
    Start,
    /// `live → ended`: by the operator or because the reconnect window passed.
    Stop,
    /// `scheduled → cancelled`.
    Cancel,
    /// `ended → archived`.
    Archive,
    /// The record is removed; not while live.
    Delete,
}

impl Move {
    /// The verb used in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Cancel => "cancel",
            Self::Archive => "archive",
            Self::Delete => "delete",
        }
    }
}

/// A move that the state does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot {} a livestream that is {}", asked.as_str(), status.as_str())]
pub struct IllegalMove {
    /// What was asked for.
    pub asked: Move,
    /// The state it was in.
    pub status: Status,
}

/// A livestream as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// Internal id; sorts by creation.
    pub id: StreamId,
    /// Public id in playback URLs.
    pub playback_id: PlaybackId,
    /// Keyed hash of the stream key; the key itself is not stored.
    pub key_hash: KeyHash,
    /// Shown to viewers and operators.
    pub title: String,
    /// Free text.
    pub description: String,
    /// When it is planned to begin.
    pub scheduled_at: Option<UnixMillis>,
    /// The owner's choices.
    pub settings: StreamSettings,
    /// Where it stands.
    pub status: Status,
    /// The airing it is in, or was in last.
    pub broadcast: Option<BroadcastId>,
    /// When the record was made.
    pub created_at: UnixMillis,
    /// When it went live.
    pub started_at: Option<UnixMillis>,
    /// When it ended or was cancelled.
    pub ended_at: Option<UnixMillis>,
}

impl Stream {
    /// Makes a move, or says why not. Deleting leaves the record as it is: the caller removes it.
    pub fn apply(&mut self, asked: Move, now: UnixMillis) -> Result<(), IllegalMove> {
        match (asked, self.status) {
            (Move::Start, Status::Scheduled) => {
                self.status = Status::Live;
                self.started_at = Some(now);
            }
            (Move::Stop, Status::Live) => {
                self.status = Status::Ended;
                self.ended_at = Some(now);
            }
            (Move::Cancel, Status::Scheduled) => {
                self.status = Status::Cancelled;
                self.ended_at = Some(now);
            }
            (Move::Archive, Status::Ended) => self.status = Status::Archived,
            (Move::Delete, status) if status != Status::Live => {}
            (asked, status) => return Err(IllegalMove { asked, status }),
        }
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
        }
    }

    #[test]
    fn every_move_in_every_state() {
        use Move::{Archive, Cancel, Delete, Start, Stop};
        use Status::{Archived, Cancelled, Ended, Live, Scheduled};
        let allowed = [
            (Scheduled, Start, Live),
            (Live, Stop, Ended),
            (Scheduled, Cancel, Cancelled),
            (Ended, Archive, Archived),
            (Scheduled, Delete, Scheduled),
            (Ended, Delete, Ended),
            (Archived, Delete, Archived),
            (Cancelled, Delete, Cancelled),
        ];
        for from in [Scheduled, Live, Ended, Archived, Cancelled] {
            for asked in [Start, Stop, Cancel, Archive, Delete] {
                let mut stream = Stream { status: from, ..sample() };
                let expected = allowed.iter().find(|(state, verb, _)| (*state, *verb) == (from, asked));
                if let Some((_, _, to)) = expected {
                    stream.apply(asked, UnixMillis(9)).unwrap();
                    assert_eq!(stream.status, *to);
                } else {
                    let before = stream.clone();
                    assert_eq!(stream.apply(asked, UnixMillis(9)), Err(IllegalMove { asked, status: from }));
                    assert_eq!(stream, before);
                }
            }
        }
    }

    #[test]
    fn moves_leave_their_times() {
        let mut stream = sample();
        stream.apply(Move::Start, UnixMillis(5)).unwrap();
        stream.apply(Move::Stop, UnixMillis(8)).unwrap();
        assert_eq!((stream.started_at, stream.ended_at), (Some(UnixMillis(5)), Some(UnixMillis(8))));
    }
}
