//! The broadcasts of a livestream: their count, the numbers that the next one goes on from, and the record of each.

use millrace_wire::ids::{Airing, BroadcastId, DiscontinuitySeq, Epoch, Msn, StreamId, UnixMillis};
use serde::{Deserialize, Serialize};

/// The broadcasts of a livestream so far, and the rule for the next one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Airings {
    /// True if the livestream's keys begin another broadcast after one has ended.
    pub reusable: bool,
    /// True if an operator stopped the last broadcast: an encoder that connects again by itself must not begin another one, so
    /// the keys are refused until the livestream is reopened.
    pub stopped: bool,
    /// The number of broadcasts that have begun. Records of earlier versions have 0.
    pub begun: u32,
    /// The highest numbers of all broadcasts whose claim is gone.
    pub numbers: Option<Numbers>,
}

impl Airings {
    /// Raises the numbers to those that a claim may have used.
    pub fn note(&mut self, used: Numbers) {
        self.numbers = Some(self.numbers.map_or(used, |numbers| numbers.max(used)));
    }
}

/// The highest numbers that a livestream's broadcasts have used. A later broadcast begins above all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbers {
    /// The newest epoch.
    pub epoch: Epoch,
    /// The highest media sequence number.
    pub used: Msn,
    /// The highest discontinuity sequence number.
    pub discontinuity: DiscontinuitySeq,
}

impl Numbers {
    /// Returns the higher of each of the numbers.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            epoch: self.epoch.max(other.epoch),
            used: self.used.max(other.used),
            discontinuity: self.discontinuity.max(other.discontinuity),
        }
    }
}

/// The record of one broadcast.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broadcast {
    /// The id of the broadcast.
    pub id: BroadcastId,
    /// The livestream that it is a broadcast of.
    pub stream: StreamId,
    /// Its number among the broadcasts of the livestream.
    pub airing: Airing,
    /// The time its first media came.
    pub started_at: UnixMillis,
    /// The time it ended; `None` while it is on.
    pub ended_at: Option<UnixMillis>,
    /// The code of the reason for its end: `stopped` for an operator's stop, otherwise the reason for which its last publisher
    /// left.
    pub reason: Option<String>,
}
