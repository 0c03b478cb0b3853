//! Offer, bid, grant and heartbeat between a publisher's session and workers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::fact::{EpochOpen, StreamState};
use crate::ids::{
    Epoch, FactSeq, Generation, MediaSeq, Msn, NodeId, PartIndex, PlaybackId, Rendition, SessionId, StreamId,
};
use crate::ladder::{LadderPlan, LadderRung, RungCodec};
use crate::message::announce::Degraded;
use crate::message::control::StreamSettings;
use crate::message::ladder_health::LadderHealth;
use crate::topic::{MAX_STATE_MESSAGE, Message};

/// Cost units of a job that copies and encodes nothing: the unit itself.
pub const COPY_COST: u64 = 1;
/// Cost units that a processor core of the machine has whose figures are in `docs/PERFORMANCE.md`: a copied stream takes well
/// under a percent of one. A worker measures how many its own have.
pub const CORE_COST: u64 = 100;
/// Pixels that an encoder of H.264 makes in a second for one cost unit, on that machine.
pub const PIXELS_PER_UNIT: u64 = 400_000;
/// Cost units of decoding and scaling a source, whose size nobody knows before it is decoded: those of 1080p at 30 pictures a
/// second.
const DECODE_COST: u64 = 40;
/// Pictures a second of a rung that has no limit, for its cost: most sources have no more.
const USUAL_FPS: u64 = 30;

/// Returns the cost units of a job that makes this plan: [`COPY_COST`] for the source's own bits, and for encoded rungs the
/// decoding of the source and the pixels of each rung, by what its codec takes for one.
pub fn job_cost(plan: &LadderPlan) -> u64 {
    if !plan.encodes() {
        return COPY_COST;
    }
    COPY_COST + DECODE_COST + plan.rungs.iter().map(rung_cost).sum::<u64>()
}

fn rung_cost(rung: &LadderRung) -> u64 {
    let height = u64::from(rung.height);
    let pixels = height * (height * 16 / 9) * rung.fps.map_or(USUAL_FPS, u64::from);
    // An encoder of a newer codec takes several times as long for the same pixels.
    let factor = match rung.codec.unwrap_or_default() {
        RungCodec::H264 => 1,
        RungCodec::Hevc => 3,
        RungCodec::Av1 => 4,
    };
    (pixels * factor).div_ceil(PIXELS_PER_UNIT)
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
    /// First media message that encoders are to decode before those from `resume_from` on, so that they go on where those of
    /// the predecessor stopped; none of it is packaged. `None` if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre_roll_from: Option<MediaSeq>,
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
    /// The reason why encoded renditions are missing; `None` if none is.
    #[serde(default)]
    pub encoding: Option<Degraded>,
}

impl Message for Heartbeat {}

impl Heartbeat {
    /// Returns the heartbeat of a worker that is ready to work on `grant`, and has announced and stored nothing.
    pub fn new(node: NodeId, grant: &Grant) -> Self {
        Self {
            node,
            epoch: grant.epoch,
            generation: grant.generation,
            ready: true,
            leaving: false,
            quiesced: false,
            next_fact: FactSeq(0),
            announced: BTreeMap::new(),
            stored: BTreeMap::new(),
            done: false,
            storage_failing: false,
            ladder: None,
            encoding: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_cost_is_one_unit_for_a_copy_and_grows_with_the_pixels_of_each_encoded_rung() {
        let rung = |height, fps, codec| LadderRung { height, bitrate: 3_000_000, fps, preset: None, codec };
        let cost = |rungs: &[LadderRung]| job_cost(&LadderPlan::of_rungs(rungs.to_vec()));
        assert_eq!(cost(&[]), COPY_COST);
        let base = COPY_COST + DECODE_COST;
        assert_eq!(cost(&[rung(720, None, None)]), base + 70);
        assert_eq!(cost(&[rung(720, Some(60), None)]), base + 139);
        assert_eq!(cost(&[rung(720, Some(15), Some(RungCodec::Hevc))]), base + 104);
        let standard = [rung(720, None, None), rung(480, None, None), rung(360, None, None)];
        assert_eq!(cost(&standard), base + 70 + 31 + 18, "1.6 cores, as measured for a source of 1080p30");
        let largest = LadderRung { height: u32::MAX, fps: Some(120), ..rung(2, None, Some(RungCodec::Av1)) };
        let height = crate::ladder::HEIGHTS.1;
        assert!(cost(&[LadderRung { height, ..largest }]) > 100 * CORE_COST, "and nothing overflows");
    }
}
