//! The end of a job: the rungs are flushed, the epoch sealed and reported to control. While the publisher is away the
//! log grows by GAPs, until the broadcast ends or a newer epoch opens. A superseded job only finishes its uploads.

use bytes::Bytes;
use millrace_wire::fact::Fact;
use millrace_wire::fragment::FragmentError;
use millrace_wire::ids::{DiscontinuitySeq, Msn, RungId};
use millrace_wire::message::announce::{EpochAnnouncement, EpochPhase};
use millrace_wire::message::control::SealReport;

use super::completion::REPORT_MS;
use super::io::Output;
use super::machine::WorkerJob;
use crate::state::gaps::while_away;
use crate::time::Millis;

impl WorkerJob {
    /// Takes control's announcement of the newest epoch.
    pub(super) fn on_epoch(&mut self, announcement: &EpochAnnouncement) {
        if announcement.epoch >= self.grant.epoch {
            self.completion.on_epoch(announcement, announcement.epoch == self.grant.epoch);
        }
    }

    /// Notes that control has recorded the report.
    pub(super) fn on_reported(&mut self) {
        self.completion.on_reported(self.writer.state().ended);
    }

    /// Stops packaging and announcing: another generation has this epoch. Complete segments are still stored.
    pub(super) fn supersede(&mut self) {
        if self.active {
            self.active = false;
            self.completion.set_sealed();
            self.objects.drop_open();
            self.out.push_back(Output::Superseded);
        }
    }

    /// Takes no more media and has the rungs close their open segments.
    pub(super) fn flush(&mut self, now: Millis) -> Result<(), FragmentError> {
        for (rung, packaged) in self.quiesce.give_up() {
            self.on_packaged(now, &rung, packaged)?;
        }
        self.completion.start_flush(&self.rungs);
        self.intake.finish();
        self.out.extend(self.rungs.iter().cloned().map(Output::Flush));
        Ok(())
    }

    /// Seals the epoch, or quiesces, once every rung has handed in everything.
    pub(super) fn on_flushed(&mut self, now: Millis, rung: &RungId) -> Result<(), FragmentError> {
        if self.completion.is_running() && self.quiesce.on_flushed(now, rung) {
            return Ok(());
        }
        if self.completion.finish_flush(rung) { self.seal(now) } else { Ok(()) }
    }

    fn seal(&mut self, now: Millis) -> Result<(), FragmentError> {
        if self.completion.is_running() || !self.completion.set_sealed() {
            return Ok(());
        }
        let last = self.last_segment().map(|(msn, _)| msn);
        if !self.writer.state().sealed {
            self.announce(now, &Fact::Seal { last }, Bytes::new())?;
        }
        self.completion.schedule_report(self.active.then_some(now));
        Ok(())
    }

    /// Ends an epoch whose session is silent, once control has announced that the publisher has left; lets a sealed log grow
    /// and end.
    pub(super) fn drive_ending(&mut self, now: Millis) -> Result<(), FragmentError> {
        let is_over = self.completion.phase().is_some() || self.completion.is_epoch_over();
        let takes_media = self.completion.is_running() && !self.quiesce.takes_no_media();
        if takes_media && self.intake.is_session_silent(now) && is_over {
            // An unannounced standby must not seal the epoch: it may lack media the primary already has, and the replay
            // buffer died with the session.
            if self.announced {
                self.flush(now)?;
            } else {
                self.supersede();
            }
        }
        if self.completion.is_sealed() && self.active && !self.writer.state().ended {
            self.drive_sealed(now)?;
        }
        Ok(())
    }

    fn drive_sealed(&mut self, now: Millis) -> Result<(), FragmentError> {
        match self.completion.phase() {
            Some(EpochPhase::Away { gaps_through: Some(through), .. }) => {
                for gap in while_away(self.writer.state(), through, Some(&self.grant.open)) {
                    self.announce(now, &Fact::Gap(gap), Bytes::new())?;
                }
                self.trim(now)
            }
            Some(EpochPhase::Ended) => {
                self.announce(now, &Fact::End, Bytes::new())?;
                self.completion.schedule_report(Some(now));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Reports the end of the epoch, and of the broadcast, until control answers.
    pub(super) fn poll_report(&mut self, now: Millis) {
        if self.active && self.completion.report_due().is_some_and(|at| at <= now) {
            self.completion.schedule_report(Some(now + REPORT_MS));
            self.out.push_back(Output::Report(self.report()));
        }
    }

    fn report(&self) -> SealReport {
        let last = self.last_segment();
        SealReport {
            stream: self.grant.stream,
            epoch: self.grant.epoch,
            generation: self.grant.generation,
            last: last.map(|(msn, _)| msn),
            discontinuity_sequence: last.map_or(DiscontinuitySeq(0), |(_, discontinuity)| discontinuity),
            ended: self.writer.state().ended,
        }
    }

    /// Returns the numbers of the epoch's newest segment.
    fn last_segment(&self) -> Option<(Msn, DiscontinuitySeq)> {
        let epoch = self.grant.epoch;
        let newest = self.writer.state().slots.iter().rev().find(|slot| slot.epoch == epoch)?;
        Some((newest.msn, newest.discontinuity_sequence))
    }

    /// Ends the job once everything is stored and reported, or superseded.
    pub(super) fn finish(&mut self, now: Millis) {
        let has_ended = self.writer.state().ended && self.completion.is_end_reported();
        let is_over = !self.active || self.completion.is_epoch_over() || has_ended;
        if is_over
            && self.completion.is_sealed()
            && self.objects.is_settled()
            && self.completion.finish(now, !self.active)
        {
            self.out.push_back(Output::Done);
        }
    }
}
