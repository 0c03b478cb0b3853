//! The stages of a job up to its end, and the report of the end to control.

use std::collections::BTreeSet;

use millrace_wire::ids::{Generation, RungId};
use millrace_wire::message::announce::{EpochAnnouncement, EpochPhase};

use crate::time::Millis;

/// A report to control is repeated at this interval until it is answered.
pub const REPORT_MS: u64 = 1000;
/// A finished job answers repair requests for this long, so that the session and readers receive its last facts.
pub const LINGER_MS: u64 = 3000;

/// The epoch's first generation: the session announces it with the grant, and no other worker writes beside it.
pub(super) const FIRST_GENERATION: Generation = Generation(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Running,
    Flushing,
    Sealed,
}

/// The stage of a job, control's word on its epoch, and the report that control has yet to answer.
#[derive(Debug)]
pub(super) struct Completion {
    stage: Stage,
    /// The rungs that have not handed in everything yet.
    flushing: BTreeSet<RungId>,
    /// The phase of this epoch, unless it is open.
    phase: Option<EpochPhase>,
    is_superseded_epoch: bool,
    report_at: Option<Millis>,
    is_end_reported: bool,
    finished_at: Option<Millis>,
    done: bool,
}

impl Completion {
    /// Creates the completion of a job that starts `sealed`, with everything stored, or running.
    pub(super) fn new(now: Millis, sealed: bool) -> Self {
        Self {
            stage: if sealed { Stage::Sealed } else { Stage::Running },
            flushing: BTreeSet::new(),
            phase: None,
            is_superseded_epoch: false,
            report_at: sealed.then_some(now),
            is_end_reported: false,
            finished_at: None,
            done: false,
        }
    }

    /// True while media are taken.
    pub(super) fn is_running(&self) -> bool {
        self.stage == Stage::Running
    }

    /// True if nothing more will be packaged.
    pub(super) fn is_sealed(&self) -> bool {
        self.stage == Stage::Sealed
    }

    /// True if the job may be dropped.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// Returns the phase that control has announced for this epoch, unless it is open.
    pub(super) fn phase(&self) -> Option<EpochPhase> {
        self.phase
    }

    /// True if control has announced a newer epoch: readers follow that one, this one's media are completed for the
    /// recording.
    pub(super) fn is_epoch_over(&self) -> bool {
        self.is_superseded_epoch
    }

    /// Notes what control announces; `own` is true for the job's own epoch, false for a newer one.
    pub(super) fn on_epoch(&mut self, announcement: &EpochAnnouncement, own: bool) {
        if own {
            self.phase = (announcement.phase != EpochPhase::Open).then_some(announcement.phase);
        } else {
            self.is_superseded_epoch = true;
        }
    }

    /// Takes no more media: these rungs are flushing.
    pub(super) fn start_flush(&mut self, rungs: &BTreeSet<RungId>) {
        self.stage = Stage::Flushing;
        self.flushing.clone_from(rungs);
    }

    /// Notes that a rung has handed in everything. True if no other one is still flushing.
    pub(super) fn finish_flush(&mut self, rung: &RungId) -> bool {
        self.flushing.remove(rung);
        self.flushing.is_empty()
    }

    /// Packages nothing more. True if the rungs were flushing, so that the epoch is to be sealed.
    pub(super) fn set_sealed(&mut self) -> bool {
        std::mem::replace(&mut self.stage, Stage::Sealed) == Stage::Flushing
    }

    /// Asks for a report to be sent at `at`; `None` if there is nothing to report.
    pub(super) fn schedule_report(&mut self, at: Option<Millis>) {
        self.report_at = at;
    }

    /// Returns when to report; `None` if control has answered, or no longer wants to know.
    pub(super) fn report_due(&self) -> Option<Millis> {
        self.report_at.filter(|_| !self.is_superseded_epoch)
    }

    /// Notes that control has recorded a report; `ended` is true if it reported the end of the broadcast.
    pub(super) fn on_reported(&mut self, ended: bool) {
        self.report_at = None;
        self.is_end_reported = ended;
    }

    /// True if control knows the end of the broadcast from this job.
    pub(super) fn is_end_reported(&self) -> bool {
        self.is_end_reported
    }

    /// Ends the job whose work is finished: at once, or after it has answered repair requests for a while. True the first
    /// time.
    pub(super) fn finish(&mut self, now: Millis, at_once: bool) -> bool {
        let finished_at = *self.finished_at.get_or_insert(now);
        let due = at_once || now - finished_at >= LINGER_MS;
        due && !std::mem::replace(&mut self.done, due)
    }
}
