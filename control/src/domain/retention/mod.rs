//! Which stored segments of a stream that is not recorded may be deleted: those that left the live window, after a grace
//! period. Pure rules, no I/O.
//!
//! The rules count playing time, not wall clock: after an absence of the publisher, the segments before it are still
//! listed although they are old. They hold across epochs and workers, because media sequence numbers only grow.

use std::collections::{BTreeSet, VecDeque};

use millrace_protocol::state::checkpoint::MAX_CHECKPOINT_SLOTS;
use millrace_protocol::state::query::slot_duration;
use millrace_wire::fact::{MediaDuration, StreamState};
use millrace_wire::ids::{Epoch, InitVersion, Msn, Rendition, StreamId};
use millrace_wire::message::announce::IndexFact;
use millrace_wire::message::control::StreamSettings;
use millrace_wire::object_names::{ObjectKind, ObjectName};
use serde::{Deserialize, Serialize};

/// A livestream whose stored segments past the window are to be deleted. The record outlives jobs, workers and controls;
/// it is written with each granted claim and deleted when the stream is over and nothing is left to delete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// The id of the livestream.
    pub stream: StreamId,
}

/// Returns the playing time of the longest playlist of a stream, in milliseconds. A playlist holds the window, at least
/// three target durations (RFC 8216 §6.2.2), and the segments at both of its ends.
fn longest_playlist_ms(settings: &StreamSettings) -> u64 {
    let target_ms = target_ms(settings);
    (u64::from(settings.window_s()) * 1_000).max(3 * target_ms) + 2 * target_ms
}

fn target_ms(settings: &StreamSettings) -> u64 {
    u64::from(settings.target_duration.max(1)) * 1_000
}

/// Returns how long a segment stays available after the last playlist that lists it, in milliseconds: the duration of
/// the longest playlist and of the segment itself (RFC 8216bis §6.2.2).
pub fn grace_ms(settings: &StreamSettings) -> u64 {
    longest_playlist_ms(settings) + target_ms(settings)
}

/// The boundary below which segments may be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Horizon {
    /// The first segment the checkpoint lists: neither it nor a later one is deleted.
    pub floor: Msn,
    /// Playing time of the segments below `floor` that stay in each rendition, in milliseconds.
    pub keep_ms: u64,
    /// The newest epoch that may have segments below `floor`.
    pub epoch: Epoch,
    /// Initialisation sections that segments of the checkpoint need.
    inits: BTreeSet<(Rendition, Epoch, InitVersion)>,
}

impl Horizon {
    /// Derives the horizon from a stream's checkpoint. `settled` is true once the broadcast has been over for the grace
    /// period: then only the last playlist stays.
    pub fn new(checkpoint: &StreamState, settings: &StreamSettings, settled: bool) -> Self {
        let listed: u64 = checkpoint
            .slots
            .iter()
            .filter_map(|slot| slot_duration(slot))
            .map(MediaDuration::as_millis)
            .sum();
        // A checkpoint lists less than the playlists of a live stream, whose window ends before the newest segment is
        // stored, and less than any playlist of a window longer than a checkpoint can be.
        let is_whole = (1..MAX_CHECKPOINT_SLOTS).contains(&checkpoint.slots.len());
        let keep_ms = if settled && checkpoint.ended && is_whole {
            0
        } else {
            let grace = grace_ms(settings);
            (longest_playlist_ms(settings) + grace).saturating_sub(listed).max(grace)
        };
        let used = checkpoint.slots.iter().flat_map(|slot| {
            slot.tracks.iter().map(|(rendition, track)| (rendition.clone(), slot.epoch, track.init_version))
        });
        Self {
            floor: checkpoint.first_msn,
            keep_ms,
            epoch: checkpoint.slots.front().map_or(checkpoint.epoch, |slot| slot.epoch),
            inits: used.collect(),
        }
    }
}

/// The first segment of a rendition that stays. Everything before it may be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cutoff {
    /// The epoch of that segment.
    pub epoch: Epoch,
    /// The media sequence number of that segment.
    pub msn: Msn,
}

/// Reads one rendition's index entries below the horizon from the oldest on, and finds those to delete. It holds only
/// the entries that stay, so its memory does not grow with the index.
#[derive(Debug)]
pub struct ExpiryScan<'a> {
    horizon: &'a Horizon,
    rendition: Rendition,
    kept: VecDeque<IndexFact>,
    kept_ms: u64,
    expired: Vec<IndexFact>,
}

impl<'a> ExpiryScan<'a> {
    /// Begins the scan of a rendition.
    pub fn new(horizon: &'a Horizon, rendition: Rendition) -> Self {
        Self { horizon, rendition, kept: VecDeque::new(), kept_ms: 0, expired: Vec::new() }
    }

    /// Takes the next entry; returns false once the horizon is reached and no later entry matters.
    pub fn push(&mut self, fact: IndexFact) -> bool {
        if fact.segment.msn >= self.horizon.floor {
            return false;
        }
        self.kept_ms += fact.segment.duration.as_millis();
        self.kept.push_back(fact);
        while let Some(oldest) = self.kept.front().map(|fact| fact.segment.duration.as_millis())
            && self.kept_ms - oldest >= self.horizon.keep_ms
        {
            self.kept_ms -= oldest;
            self.expired.extend(self.kept.pop_front());
        }
        true
    }

    /// Returns the entries to delete so far, oldest first.
    pub fn expired(&self) -> &[IndexFact] {
        &self.expired
    }

    /// Returns the playing time between the oldest entry to delete and the first that stays, in seconds.
    pub fn overdue_s(&self) -> u64 {
        let Some(oldest) = self.expired.first() else { return 0 };
        let newest = self.expired.last().unwrap_or(oldest);
        let ms = newest.segment.program_date_time.0.saturating_sub(oldest.segment.program_date_time.0)
            + newest.segment.duration.as_millis();
        ms.div_ceil(1_000)
    }

    /// Returns the first segment that stays, once the whole rendition below the horizon was read; `None` while the
    /// segments that stay do not fill the grace period, so that nothing older may be deleted.
    pub fn cutoff(&self) -> Option<Cutoff> {
        match self.kept.front() {
            Some(first) if self.kept_ms >= self.horizon.keep_ms => {
                Some(Cutoff { epoch: first.epoch, msn: first.segment.msn })
            }
            None if self.horizon.keep_ms == 0 => {
                Some(Cutoff { epoch: self.horizon.epoch, msn: self.horizon.floor })
            }
            _ => None,
        }
    }

    /// Returns true if an object of this rendition lies before `cutoff` and no segment that stays needs it. Such an
    /// object has no index entry any more, or never had one: an initialisation section, a segment stored twice.
    pub fn is_stray(&self, cutoff: Cutoff, name: &ObjectName) -> bool {
        match name.kind {
            ObjectKind::Segment(msn, _) | ObjectKind::Part(msn, _, _) => msn < cutoff.msn,
            ObjectKind::Init(version) => {
                name.epoch < cutoff.epoch && !self.needs(name.epoch, version)
                    || name.epoch == cutoff.epoch && self.is_superseded(name.epoch, version)
            }
        }
    }

    fn inits(&self) -> impl Iterator<Item = (Epoch, InitVersion)> {
        let kept = self.kept.iter().map(|fact| (fact.epoch, fact.segment.init_version));
        let listed = self.horizon.inits.iter().filter(|(rendition, ..)| *rendition == self.rendition);
        kept.chain(listed.map(|(_, epoch, version)| (*epoch, *version)))
    }

    fn needs(&self, epoch: Epoch, version: InitVersion) -> bool {
        self.inits().any(|init| init == (epoch, version))
    }

    /// Returns true if all segments of the epoch that stay use other, newer versions. Versions grow within an epoch, so
    /// a segment newer than the checkpoint does not need the version either.
    fn is_superseded(&self, epoch: Epoch, version: InitVersion) -> bool {
        let mut versions = self.inits().filter(|init| init.0 == epoch).map(|init| init.1).peekable();
        versions.peek().is_some() && versions.all(|used| used > version)
    }
}

#[cfg(test)]
mod tests;
