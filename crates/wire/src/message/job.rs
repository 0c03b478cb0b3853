//! Offer, bid, grant and heartbeat between a publisher's session and workers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::fact::{EpochOpen, StreamState};
use crate::ids::{
    Epoch, FactSeq, Generation, MediaSeq, Msn, NodeId, PartIndex, PlaybackId, Rendition, SessionId, StreamId,
};
use crate::ladder::Ladder;
use crate::message::control::StreamSettings;
use crate::message::ladder_health::LadderHealth;
use crate::topic::{MAX_STATE_MESSAGE, Message};

/// Cost units of a job that copies and encodes nothing: the unit itself.
pub const COPY_COST: u64 = 1;
/// Cost units of one encoded rung: an encoder takes about a core, and a copied stream well under a percent of one.
pub const ENCODE_COST: u64 = 100;

/// Returns the cost units of a job that makes this ladder: [`COPY_COST`] for the source's own bits, and [`ENCODE_COST`] more
/// for each encoded rung. A template counts as one rung until it is resolved.
pub fn job_cost(ladder: &Ladder) -> u64 {
    let encoded = match ladder {
        Ladder::Copy => 0,
        Ladder::Template(_) => 1,
        Ladder::Rungs(rungs) => rungs.len() as u64,
    };
    COPY_COST + encoded * ENCODE_COST
}

/// On `jobs.offer`: a session looks for a worker that takes its job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The livestream that this is about.
    pub stream: StreamId,
    /// The epoch that this is about.
    pub epoch: Epoch,
    /// Session to bid to (`jobs.bid.{session}`).
    pub session: SessionId,
    /// Number of the offer within the session; a bid repeats it.
    pub round: u64,
    /// Cost units the job needs; [`COPY_COST`] when it encodes nothing.
    pub cost: u64,
}

impl Message for Offer {}

/// Published by a worker on `jobs.free`: it has free capacity again, so sessions without a worker offer their job anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WorkerFree {}

impl Message for WorkerFree {}

/// On `jobs.bid.{session}`: a worker offers its free capacity for the job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bid {
    /// Number of the offer that is answered.
    pub round: u64,
    /// The worker node that bids.
    pub node: NodeId,
    /// Free cost units; the most free wins.
    pub free: u64,
    /// The bidder already works on this stream (an earlier epoch): it is preferred.
    pub continuing: bool,
}

impl Message for Bid {}

/// On `job.grant.{node}`; repeated until the heartbeats show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum GrantOrder {
    /// The worker writes the log of this generation.
    Grant(Box<Grant>),
    /// A successor has won the bid for a draining primary's job: the primary announces nothing new of this generation,
    /// and sets [`Heartbeat::quiesced`] once everything it announced is stored.
    Quiesce {
        /// The livestream that this is about.
        stream: StreamId,
        /// The epoch that this is about.
        epoch: Epoch,
        /// The generation whose log ends.
        generation: Generation,
    },
    /// Stop announcing this generation; finish uploads and leave.
    Revoke {
        /// The livestream that this is about.
        stream: StreamId,
        /// The epoch that this is about.
        epoch: Epoch,
        /// The generation whose log has ended.
        generation: Generation,
    },
}

impl Message for GrantOrder {
    const MAX_LEN: usize = MAX_STATE_MESSAGE;
}

/// Everything that a worker needs to write the log of one generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The livestream that this is about.
    pub stream: StreamId,
    /// The livestream's id in viewers' URLs.
    pub playback: PlaybackId,
    /// The publisher session that grants.
    pub session: SessionId,
    /// The epoch that this is about.
    pub epoch: Epoch,
    /// The generation that is granted.
    pub generation: Generation,
    /// The numbers that the epoch starts with.
    pub open: EpochOpen,
    /// Cost units of the job, as it was offered.
    #[serde(default = "copy_cost")]
    pub cost: u64,
    /// The state that the log starts from.
    pub base: StreamState,
    /// First media message needed: the start of the oldest segment that may be uncommitted.
    pub resume_from: MediaSeq,
    /// The settings of the livestream.
    pub settings: StreamSettings,
}

const fn copy_cost() -> u64 {
    COPY_COST
}

/// On `job.{stream}.{epoch}.heartbeat`, every 200 ms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "independent flags of the message")]
pub struct Heartbeat {
    /// The worker node that sends it.
    pub node: NodeId,
    /// The epoch that this is about.
    pub epoch: Epoch,
    /// The generation that the worker works on.
    pub generation: Generation,
    /// True if it announces facts: it has reached the resume point.
    pub ready: bool,
    /// True if its node drains: the session grants a successor.
    pub leaving: bool,
    /// It has stopped announcing, and what it announced is stored: its log ends before `next_fact`.
    #[serde(default)]
    pub quiesced: bool,
    /// Next fact number of its log.
    pub next_fact: FactSeq,
    /// Newest announced part per rendition.
    pub announced: BTreeMap<Rendition, (Msn, PartIndex)>,
    /// Per rendition: every segment of the epoch up to this one is stored.
    pub stored: BTreeMap<Rendition, Msn>,
    /// True if the epoch is sealed and everything of it is stored.
    pub done: bool,
    /// True if the object store has taken nothing from this worker for some seconds.
    #[serde(default)]
    pub storage_failing: bool,
    /// The health of the encoded rungs, in the first heartbeat after it has changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ladder: Option<Box<LadderHealth>>,
}

impl Message for Heartbeat {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ladder::LadderRung;

    #[test]
    fn job_cost_is_one_unit_for_a_copy_and_more_for_each_encoded_rung() {
        let rung = LadderRung { height: 720, bitrate: 3_000_000, fps: None, preset: None, codec: None };
        assert_eq!(job_cost(&Ladder::Copy), COPY_COST);
        assert_eq!(job_cost(&Ladder::Rungs(vec![rung.clone(), rung])), COPY_COST + 2 * ENCODE_COST);
    }
}
