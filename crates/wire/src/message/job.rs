//! Offer, bid, grant and heartbeat between a publisher's session and workers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::fact::{EpochOpen, StreamState};
use crate::ids::{
    Epoch, FactSeq, Generation, MediaSeq, Msn, NodeId, PartIndex, PlaybackId, Rendition, SessionId, StreamId,
};
use crate::message::control::StreamSettings;
use crate::topic::{MAX_STATE_MESSAGE, Message};

/// Cost units of a job that copies and encodes nothing: the unit itself.
pub const COPY_COST: u64 = 1;

/// On `jobs.offer`: who can take this job?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Stream.
    pub stream: StreamId,
    /// Epoch.
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

/// On `jobs.bid.{session}`: this worker can.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bid {
    /// The offer's number.
    pub round: u64,
    /// The bidder.
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
    /// The worker is the author of this generation.
    Grant(Box<Grant>),
    /// A successor has won the bid for a draining primary's job: the primary announces nothing new of this generation,
    /// and sets [`Heartbeat::quiesced`] once everything it announced is stored.
    Quiesce {
        /// Stream.
        stream: StreamId,
        /// Epoch.
        epoch: Epoch,
        /// Generation that ends.
        generation: Generation,
    },
    /// Stop announcing this generation; finish uploads and leave.
    Revoke {
        /// Stream.
        stream: StreamId,
        /// Epoch.
        epoch: Epoch,
        /// Generation that has ended.
        generation: Generation,
    },
}

impl Message for GrantOrder {
    const MAX_LEN: usize = MAX_STATE_MESSAGE;
}

/// Everything a worker needs to author one generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Stream.
    pub stream: StreamId,
    /// Its public id.
    pub playback: PlaybackId,
    /// Session that grants.
    pub session: SessionId,
    /// Epoch.
    pub epoch: Epoch,
    /// Generation granted.
    pub generation: Generation,
    /// The epoch's numbers.
    pub open: EpochOpen,
    /// Cost units of the job, as it was offered.
    #[serde(default = "copy_cost")]
    pub cost: u64,
    /// State to build on.
    pub base: StreamState,
    /// First media message needed: the start of the oldest segment that may be uncommitted.
    pub resume_from: MediaSeq,
    /// The stream's settings.
    pub settings: StreamSettings,
}

const fn copy_cost() -> u64 {
    COPY_COST
}

/// On `job.{stream}.{epoch}.heartbeat`, every 200 ms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is said for itself on the wire")]
pub struct Heartbeat {
    /// The worker.
    pub node: NodeId,
    /// Epoch.
    pub epoch: Epoch,
    /// Generation it works on.
    pub generation: Generation,
    /// It announces (has reached the resume point).
    pub ready: bool,
    /// It leaves (drain): grant a successor.
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
    /// The epoch is sealed and everything of it is stored.
    pub done: bool,
}

impl Message for Heartbeat {}
