//! The encoded rungs of a job: one transcoder decodes the source once and encodes all of them.
//!
//! ```text
//! media ──▶ source ──▶ steps ──▶ orders ──▶ transcoder (a child process)
//!           (part timing,        │                │ products
//!            places)             ▼                ▼
//!                        segments, places ──▶ video, sound ──▶ packager and facts of each rendition
//! ```
//!
//! [`LadderRung`] reads no clock and waits for nothing. A rendition owes each segment of the source ([`owed`]): it completes
//! it, or lists it as GAP once it is over. What a transcoder that has died had not handed in the next one encodes again
//! ([`restart`]).
//!
//! A successor encodes the segments again that its predecessor left open, with an IDR picture where its own parts begin
//! behind the predecessor's ([`part_starts`]).

mod health;
mod names;
mod orders;
mod owed;
mod part_starts;
mod pre_roll;
mod products;
mod recent;
mod restart;
mod segments;
mod sound;
mod source;
mod steps;
mod track;
mod video;

use std::collections::VecDeque;
use std::task::{Context, Poll};

use bytes::Bytes;
use millrace_codec::engine::order::{Order, Plan, RungIndex};
use millrace_media::packager::PartTiming;
use millrace_media::repair::{Repair, RepairCounts};
use millrace_protocol::job::Packaged;
use millrace_wire::fact::{EpochOpen, StreamState};
use millrace_wire::ids::{Rendition, RungId};
use millrace_wire::ladder::LadderPlan;
use millrace_wire::message::announce::Degraded;
use millrace_wire::message::control::StreamSettings;
use millrace_wire::message::ladder_health::RungState;
use millrace_wire::message::media::{MediaMessage, MediaUnit};

use self::health::Health;
use self::part_starts::PartStarts;
use self::pre_roll::PreRoll;
use self::recent::Recent;
use self::segments::{Places, Segments};
use self::sound::Sound;
use self::source::Source;
use self::video::VideoRung;
use super::copy::part_setup;
use super::{LadderNews, Rung, Sheet};
use crate::encoders::crash_policy::CrashPolicy;
use crate::encoders::{EncoderFactory, Encoders};

/// Returns the renditions that the rung may make of a plan.
pub(super) fn renditions(plan: &LadderPlan) -> Vec<Rendition> {
    names::named_rungs(plan).into_iter().map(|(name, _)| name).chain([names::encoded_audio()]).collect()
}

/// The name of the rung.
const LADDER: &str = "ladder";

/// A configuration of the source that the transcoder was given.
#[derive(Debug, Clone, Copy)]
struct Configured {
    /// The version of the source's initialisation section.
    version: u32,
    /// The first segment that has it.
    from_msn: u64,
    timing: PartTiming,
    /// Thousandths of frames per second.
    rate: u32,
}

/// The transcoder that a job has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transcoder {
    /// None runs. It starts at a boundary, if the policy allows it.
    Absent,
    /// One takes orders.
    Runs,
    /// The media are over, and it hands in the rest.
    Flushes,
    /// Everything has been handed in.
    Done,
}

/// The encoded rungs at work on one epoch.
#[derive(Debug)]
pub(crate) struct LadderRung {
    id: RungId,
    plan: Plan,
    encoders: Box<dyn Encoders>,
    policy: CrashPolicy,
    transcoder: Transcoder,
    source: Source,
    segments: Segments,
    places: Places,
    rungs: Vec<VideoRung>,
    sound: Sound,
    /// The source's configurations that this transcoder was given, oldest first.
    configured: VecDeque<Configured>,
    /// The newest media, for the next transcoder.
    recent: Recent,
    /// Media from before the first segment whose configurations have not come.
    pre_roll: PreRoll,
    /// The rungs that are to be encoded from the next segment on, if that changes.
    wish: Option<Vec<RungIndex>>,
    out: VecDeque<Packaged>,
    lost_units: u64,
    health: Health,
    thumbnail: Option<Bytes>,
    sheet: Option<Sheet>,
}

impl LadderRung {
    /// Starts the encoded rungs of `settings` on the epoch that `open` describes. They go on from `base`.
    pub(crate) fn new(
        factory: &dyn EncoderFactory,
        settings: &StreamSettings,
        open: &EpochOpen,
        base: &StreamState,
    ) -> Self {
        let named = names::named_rungs(&settings.plan);
        let plan = names::transcoder_plan(&settings.plan, &named);
        let rung = |(index, (name, _)): (usize, (Rendition, _))| {
            VideoRung::new(RungIndex(u8::try_from(index).unwrap_or(u8::MAX)), name, open, base)
        };
        let rungs: Vec<VideoRung> = named.into_iter().enumerate().map(rung).collect();
        let health = Health::new(rungs.iter().map(|rung| rung.track.rendition().clone()));
        let wanted = rungs.iter().flat_map(|rung| rung.track.next_parts()).collect();
        Self {
            id: Self::rung_id(),
            encoders: factory.open(&plan),
            plan,
            policy: CrashPolicy::default(),
            transcoder: Transcoder::Absent,
            source: Source::new(part_setup(base, settings), PartStarts::new(wanted)),
            segments: Segments::new(open),
            places: Places::default(),
            rungs,
            sound: Sound::new(open, base),
            configured: VecDeque::new(),
            recent: Recent::default(),
            pre_roll: PreRoll::default(),
            wish: None,
            out: VecDeque::new(),
            lost_units: 0,
            health,
            thumbnail: None,
            sheet: None,
        }
    }

    /// Returns the rung's id.
    pub(crate) fn rung_id() -> RungId {
        LADDER.parse().unwrap_or_else(|_| RungId::copy())
    }

    /// Lists what is lost and over, and notes what is complete.
    fn settle(&mut self) {
        for rung in &mut self.rungs {
            rung.track.list_gaps(&self.segments, &mut self.out);
        }
        self.sound.track.list_gaps(&self.segments, &mut self.out);
        let completed = self.rungs.iter_mut().filter_map(|rung| rung.track.take_completed()).max();
        let is_open =
            |rung: &VideoRung| completed.is_some_and(|msn| rung.is_wanted() && rung.track.owed.is_open(msn));
        if completed.is_some() && !self.rungs.iter().any(is_open) {
            self.policy.completed();
        }
    }

    /// Ends the rung: what it owes is lost.
    fn end(&mut self) {
        self.transcoder = Transcoder::Done;
        for rung in &mut self.rungs {
            rung.track.owed.lose_through(u64::MAX);
        }
        self.sound.track.owed.lose_through(u64::MAX);
        self.settle();
        self.out.push_back(Packaged::Flushed);
    }
}

impl Rung for LadderRung {
    fn id(&self) -> &RungId {
        &self.id
    }

    fn pre_roll(&mut self, units: &[MediaUnit]) {
        self.take_pre_roll(units);
    }

    fn push(&mut self, message: MediaMessage) {
        for unit in message.units {
            if let Err(error) = self.source.push(unit) {
                self.lost_units += 1;
                tracing::warn!(%error, "media unit not encoded");
            }
        }
        self.take_steps();
        self.settle();
    }

    fn finish(&mut self) {
        self.source.finish();
        self.take_steps();
        self.segments.end(self.source.end());
        if self.transcoder == Transcoder::Runs && self.encoders.send(Order::Flush).is_ok() {
            self.transcoder = Transcoder::Flushes;
            self.settle();
        } else {
            self.end();
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Packaged> {
        loop {
            if let Some(packaged) = self.out.pop_front() {
                return Poll::Ready(packaged);
            }
            if self.transcoder == Transcoder::Done {
                return Poll::Pending;
            }
            match self.encoders.poll(context) {
                Poll::Ready(event) => self.take_event(event),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn trouble(&self) -> Option<Degraded> {
        if self.policy.is_failing() {
            return Some(Degraded::EncodersFailing);
        }
        self.rungs.iter().any(|rung| rung.is_shed && !rung.is_dropped).then_some(Degraded::RungsShed)
    }

    fn repairs(&self) -> RepairCounts {
        let mut repairs = RepairCounts::new();
        repairs.add(Repair::UnreadableMessage, self.lost_units);
        repairs
    }

    fn take_news(&mut self) -> Option<LadderNews> {
        let Self { health, rungs, policy, transcoder, .. } = self;
        let is_failing = *transcoder == Transcoder::Absent && policy.is_failing();
        health.take(|index| match rungs.iter().find(|rung| rung.index == index)? {
            rung if rung.is_dropped => Some(RungState::Dropped),
            rung if rung.is_shed => Some(RungState::Shed),
            _ => is_failing.then_some(RungState::Failed),
        })
    }

    fn take_sheet(&mut self) -> Option<Sheet> {
        self.sheet.take()
    }

    fn take_thumbnail(&mut self) -> Option<Bytes> {
        self.thumbnail.take()
    }
}
