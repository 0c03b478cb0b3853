//! How a job ends: the packager is flushed, the epoch sealed and reported to control; while the publisher is away the
//! author goes on with GAPs, until the end or a newer epoch. A superseded author only finishes its uploads.

use std::collections::BTreeSet;

use bytes::Bytes;
use millrace_wire::fact::Fact;
use millrace_wire::fragment::FragmentError;
use millrace_wire::ids::{DiscontinuitySeq, Generation, Msn, RungId};
use millrace_wire::message::announce::{EpochAnnouncement, EpochPhase};
use millrace_wire::message::control::SealReport;

use super::{Output, WorkerJob};
use crate::Millis;
use crate::state::apply;

/// A seal report is repeated until it is answered.
pub const REPORT_MS: u64 = 1000;
/// A finished author answers repair requests for this long: the session and readers hear of the last facts.
pub const LINGER_MS: u64 = 3000;

/// The epoch's first author: announced with its grant, there is no other beside it.
pub(super) const FIRST_GENERATION: Generation = Generation(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Running,
    Flushing,
    Sealed,
}

/// How far a job is from its end.
#[derive(Debug)]
pub(super) struct Ending {
    stage: Stage,
    /// Rungs that have not handed in everything yet.
    flushing: BTreeSet<RungId>,
    away: Option<EpochPhase>,
    epoch_over: bool,
    report_at: Option<Millis>,
    reported_end: bool,
    finished_at: Option<Millis>,
    done: bool,
}

impl Ending {
    /// Of an epoch whose media are all stored already, or not.
    pub(super) fn new(now: Millis, stored: bool) -> Self {
        Self {
            stage: if stored { Stage::Sealed } else { Stage::Running },
            flushing: BTreeSet::new(),
            away: None,
            epoch_over: false,
            report_at: stored.then_some(now),
            reported_end: false,
            finished_at: None,
            done: false,
        }
    }
    /// Media are taken.
    pub(super) fn is_running(&self) -> bool {
        self.stage == Stage::Running
    }
    /// Nothing more will be packaged.
    pub(super) fn is_sealed(&self) -> bool {
        self.stage == Stage::Sealed
    }
    pub(super) fn is_done(&self) -> bool {
        self.done
    }
    /// When to report.
    pub(super) fn report_due(&self) -> Option<Millis> {
        self.report_at.filter(|_| !self.epoch_over)
    }
}

impl WorkerJob {
    pub(super) fn on_epoch(&mut self, a: &EpochAnnouncement) {
        if a.epoch > self.grant.epoch {
            // Readers follow the newer epoch; this one's media are still completed for the recording.
            self.ending.epoch_over = true;
        } else if a.epoch == self.grant.epoch {
            self.ending.away = (a.phase != EpochPhase::Open).then_some(a.phase);
        }
    }

    pub(super) fn on_reported(&mut self) {
        self.ending.report_at = None;
        self.ending.reported_end = self.author.view().ended;
    }

    /// Another author has this epoch: what is complete is still stored, nothing more is packaged or announced.
    pub(super) fn supersede(&mut self) {
        if self.active {
            self.active = false;
            self.ending.stage = Stage::Sealed;
            self.objects.drop_open();
            self.out.push_back(Output::Superseded);
        }
    }

    pub(super) fn flush(&mut self) {
        self.ending.stage = Stage::Flushing;
        self.intake.finish();
        self.ending.flushing.clone_from(&self.rungs);
        self.out.extend(self.rungs.iter().cloned().map(Output::Flush));
    }

    /// Seals the epoch once every rung has handed in everything.
    pub(super) fn on_flushed(&mut self, now: Millis, rung: &RungId) -> Result<(), FragmentError> {
        self.ending.flushing.remove(rung);
        if self.ending.flushing.is_empty() { self.seal(now) } else { Ok(()) }
    }

    fn seal(&mut self, now: Millis) -> Result<(), FragmentError> {
        if self.ending.stage != Stage::Flushing {
            return Ok(());
        }
        self.ending.stage = Stage::Sealed;
        let epoch = self.grant.epoch;
        let last = self.author.view().slots.iter().rev().find(|s| s.epoch == epoch).map(|s| s.msn);
        if !self.author.view().sealed {
            self.announce(now, &Fact::Seal { last }, Bytes::new())?;
        }
        self.ending.report_at = self.active.then_some(now);
        Ok(())
    }

    /// Without its session an epoch is sealed once others say that the publisher is gone, and ended when they say so.
    pub(super) fn drive_ending(&mut self, now: Millis) -> Result<(), FragmentError> {
        let over = self.ending.away.is_some() || self.ending.epoch_over;
        if self.ending.is_running() && !self.yielding.is_silent() && self.intake.is_silent(now) && over {
            // A standby nobody was told of leaves the end to the author: it may lack media that the author has, and
            // with the session the ring is gone.
            if self.announced {
                self.flush();
            } else {
                self.supersede();
            }
        }
        if self.ending.is_sealed() && self.active {
            self.after_seal(now)?;
        }
        Ok(())
    }

    fn after_seal(&mut self, now: Millis) -> Result<(), FragmentError> {
        match self.ending.away {
            Some(EpochPhase::Away { gaps_through: Some(through), .. }) if !self.author.view().ended => {
                let next =
                    self.author.view().slots.back().map_or(self.grant.open.first_msn, |s| s.msn.next());
                // A long absence leaves numbers out rather than listing them all.
                let from = next.max(Msn(through.0.saturating_sub(apply::MAX_HOLE)));
                for msn in from.0..=through.0 {
                    self.gap(now, Msn(msn))?;
                }
                self.trim(now)
            }
            Some(EpochPhase::Ended) if !self.author.view().ended => {
                self.announce(now, &Fact::End, Bytes::new())?;
                self.ending.report_at = Some(now);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn poll_report(&mut self, now: Millis) {
        if self.active && self.ending.report_due().is_some_and(|at| at <= now) {
            self.ending.report_at = Some(now + REPORT_MS);
            self.out.push_back(Output::Report(self.report()));
        }
    }

    fn report(&self) -> SealReport {
        let view = self.author.view();
        let used = view.slots.iter().rev().find(|s| s.epoch == self.grant.epoch);
        SealReport {
            stream: self.grant.stream,
            epoch: self.grant.epoch,
            generation: self.grant.generation,
            last: used.map(|s| s.msn),
            discontinuity_sequence: used.map_or(DiscontinuitySeq(0), |s| s.discontinuity_sequence),
            ended: view.ended,
        }
    }

    pub(super) fn finish(&mut self, now: Millis) {
        let ended = self.author.view().ended && self.ending.reported_end;
        let over = !self.active || self.ending.epoch_over || ended;
        if self.ending.done || !over || !self.ending.is_sealed() || !self.objects.is_settled() {
            return;
        }
        let finished = *self.ending.finished_at.get_or_insert(now);
        if !self.active || now - finished >= LINGER_MS {
            self.ending.done = true;
            self.out.push_back(Output::Done);
        }
    }
}
