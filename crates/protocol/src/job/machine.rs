//! The machine of a job: it takes media in order, hands them to the packager, and reports its progress to the
//! session in heartbeats.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use millrace_wire::fact::{Fact, StreamState};
use millrace_wire::fragment::FragmentError;
use millrace_wire::ids::{Msn, NodeId, PartIndex, RungId};
use millrace_wire::message::announce::SessionAnnouncement;
use millrace_wire::message::job::{Grant, Heartbeat};
use millrace_wire::message::repair::{RepairReply, RepairRequest};

use super::completion::{Completion, FIRST_GENERATION};
use super::intake::{Intake, Skipped, Taken};
use super::io::{Input, Output};
use super::objects::Objects;
use super::quiesce::Quiesce;
use crate::log::writer::LogWriter;
use crate::machine::Machine;
use crate::state::gaps::gap_at;
use crate::state::query::{is_stored, listing_end, resume_msn};
use crate::time::{Millis, earlier};

/// The interval of a job's heartbeats.
pub const HEARTBEAT_MS: u64 = 200;

/// The job of one grant.
#[derive(Debug)]
pub struct WorkerJob {
    pub(super) grant: Grant,
    node: NodeId,
    pub(super) writer: LogWriter,
    pub(super) intake: Intake,
    pub(super) objects: Objects,
    pub(super) completion: Completion,
    /// The rungs that package the media.
    pub(super) rungs: BTreeSet<RungId>,
    /// False once another generation or the session has superseded this one: then nothing is announced.
    pub(super) active: bool,
    /// The session has announced this generation: readers follow its log.
    pub(super) announced: bool,
    leaving: bool,
    pub(super) quiesce: Quiesce,
    heartbeat_at: Millis,
    pub(super) out: VecDeque<Output>,
}

impl Machine for WorkerJob {
    type Input = Input;
    type Output = Output;
    /// A fact could not be encoded: the job cannot go on.
    type Error = FragmentError;

    fn handle(&mut self, now: Millis, input: Input) -> Result<(), FragmentError> {
        match input {
            Input::Media(message) if message.epoch == self.grant.epoch => self.intake.on_media(now, message),
            Input::MediaReply(reply) => self.on_media_reply(now, &reply),
            Input::Packaged(rung, packaged) => self.on_packaged(now, &rung, packaged)?,
            Input::Stored(rendition, msn) => self.on_stored(now, rendition, msn)?,
            Input::Epoch(announcement) => self.on_epoch(&announcement),
            Input::Session(announcement) => self.on_session(now, &announcement),
            Input::Revoked => self.supersede(),
            Input::Leave => {
                self.leaving = true;
                self.heartbeat_at = now;
            }
            Input::Quiesce => self.on_quiesce(now),
            Input::Reported => self.on_reported(),
            Input::Tick | Input::Media(_) => {}
        }
        self.drive(now)
    }

    fn handle_timeout(&mut self, now: Millis) -> Result<(), FragmentError> {
        self.handle(now, Input::Tick)
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    fn next_timeout(&self) -> Option<Millis> {
        let own = Some(self.heartbeat_at.min(self.intake.next_timeout()));
        let report = self.completion.report_due().filter(|_| self.active);
        [report, self.quiesce.next_timeout(), self.writer.next_timeout()].into_iter().fold(own, earlier)
    }

    /// True if everything is stored and reported, or the job was superseded and has stored what it had.
    fn is_done(&self) -> bool {
        self.completion.is_done()
    }
}

impl WorkerJob {
    /// Starts the job of `grant` on `node`, whose media `rungs` package. `max_payload` is the bus's largest message in bytes; `seed` spreads the job's
    /// repair requests.
    pub fn new(
        now: Millis,
        grant: Grant,
        node: NodeId,
        rungs: BTreeSet<RungId>,
        max_payload: usize,
        seed: u64,
    ) -> Result<Self, FragmentError> {
        let log = (grant.epoch, grant.generation);
        let mut writer = LogWriter::open(now, log, grant.base.clone(), max_payload)?;
        if !writer.state().opened {
            writer.announce(now, &Fact::EpochOpen(grant.open.clone()), Bytes::new())?;
        }
        let resume = resume_msn(&grant.base, grant.epoch, grant.open.first_msn);
        // A sealed epoch may still lack objects: then its media are packaged again up to their end.
        let is_complete = is_stored(writer.state(), grant.epoch);
        let mut job = Self {
            intake: Intake::new(now, grant.resume_from, grant.pre_roll_from, resume, seed),
            node,
            writer,
            objects: Objects::default(),
            completion: Completion::new(now, is_complete),
            rungs,
            active: true,
            // The session announces the first generation as it grants it.
            announced: grant.generation == FIRST_GENERATION,
            leaving: false,
            quiesce: Quiesce::default(),
            heartbeat_at: now,
            out: VecDeque::new(),
            grant,
        };
        // Asks for the session's numbers at once: its replay buffer may hold all the media there are.
        job.out.push_back(Output::AskMedia(RepairRequest { ranges: vec![] }));
        job.drive(now)?;
        Ok(job)
    }

    /// Returns the grant that this job works on.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// Returns the log's state: the reply to a snapshot request. A standby, which may yet be revoked, gives none.
    pub fn snapshot(&self) -> Option<&StreamState> {
        (self.active && self.announced).then(|| self.writer.state())
    }

    /// True while the job announces nothing because its successor is ready. What rungs make meanwhile must wait: the
    /// successor builds on what readers were shown.
    pub fn is_quiescing(&self) -> bool {
        self.quiesce.is_active()
    }

    /// Takes a repair request from `ring.live` and returns the reply.
    pub fn repair(&mut self, now: Millis, request: &RepairRequest) -> RepairReply {
        let reply = self.writer.repair(now, request);
        self.publish_written();
        reply
    }

    fn on_session(&mut self, now: Millis, announcement: &SessionAnnouncement) {
        let own = self.grant.generation;
        if announcement.epoch != self.grant.epoch {
            return;
        }
        if announcement.generation.is_some_and(|generation| generation > own) {
            self.supersede();
        } else {
            self.intake.on_session_alive(now);
            self.announced |= announcement.generation == Some(own);
        }
    }

    /// Stops announcing, because the session has a successor; with several rungs at the end of the open segment. A worker that does not drain, or whose log readers do not
    /// follow, goes on.
    fn on_quiesce(&mut self, now: Millis) {
        if !(self.active && self.announced && self.leaving && self.completion.is_running()) {
            return;
        }
        match self.intake.newest() {
            Some(open) if self.rungs.len() > 1 => self.quiesce.start_after(open),
            _ => self.quiesce.start(now),
        }
    }

    /// Starts the rungs anew if the session no longer has media that this job needs: the segments they belong to
    /// become GAPs.
    fn on_media_reply(&mut self, now: Millis, reply: &RepairReply) {
        if self.intake.on_reply(now, reply) {
            // What was held was made of media before the loss.
            let _ = self.quiesce.give_up();
            self.out.extend(self.rungs.iter().cloned().map(Output::RestartRung));
            self.objects.drop_open();
        }
    }

    /// Appends a fact to the log, unless this generation is superseded.
    pub(super) fn announce(&mut self, now: Millis, fact: &Fact, payload: Bytes) -> Result<(), FragmentError> {
        if self.active {
            self.writer.announce(now, fact, payload)?;
            self.publish_written();
        }
        Ok(())
    }

    /// Publishes what the log writer has encoded.
    pub(super) fn publish_written(&mut self) {
        while let Some(message) = self.writer.poll_output() {
            self.out.push_back(Output::Publish(message));
        }
    }

    fn drive(&mut self, now: Millis) -> Result<(), FragmentError> {
        if let Some(held) = self.quiesce.expire(now) {
            self.out.extend(self.rungs.iter().cloned().map(Output::RestartRung));
            self.out.extend(held.into_iter().map(Output::Package));
        }
        if self.quiesce.set_complete(self.has_quiesced()) {
            self.heartbeat_at = now;
        }
        if self.completion.is_running() && !self.quiesce.takes_no_media() {
            self.take_media(now)?;
            self.out.extend(self.intake.poll_request(now).map(Output::AskMedia));
        }
        self.drive_ending(now)?;
        self.writer.retransmit(now);
        self.publish_written();
        self.poll_report(now);
        if now >= self.heartbeat_at {
            self.heartbeat_at = now + HEARTBEAT_MS;
            self.out.push_back(Output::Heartbeat(self.heartbeat()));
        }
        self.finish(now);
        Ok(())
    }

    fn take_media(&mut self, now: Millis) -> Result<(), FragmentError> {
        if self.intake.review_pre_roll(now) {
            self.out.push_back(Output::PreRollMissing);
        }
        while !self.reaches_end(now)
            && let Some(taken) = self.intake.pop(self.writer.state(), self.grant.epoch)
        {
            let Taken { message, skipped, pre_roll } = taken;
            self.skip_segments(now, skipped)?;
            if !pre_roll.is_empty() {
                self.out.push_back(Output::PreRoll(pre_roll));
            }
            let is_last = message.end;
            self.quiesce.note_media(&message);
            if !message.units.is_empty() {
                self.out.push_back(Output::Package(message));
            }
            if is_last {
                return self.flush(now);
            }
        }
        if self.reaches_end(now) {
            self.quiesce.flush(&self.rungs);
            self.out.extend(self.rungs.iter().cloned().map(Output::Flush));
        }
        Ok(())
    }

    /// True if the job quiesces, and has taken all media of the last segment and what encoders need behind it.
    fn reaches_end(&mut self, now: Millis) -> bool {
        let Some(last) = self.quiesce.last() else { return false };
        self.intake.has_passed(last) && self.quiesce.has_post_roll(now)
    }

    /// Announces segments whose media are lost as GAPs, or begins the window after them if they are too many.
    fn skip_segments(&mut self, now: Millis, skipped: Skipped) -> Result<(), FragmentError> {
        match skipped {
            Skipped::Listed(numbers) => numbers.into_iter().try_for_each(|msn: Msn| {
                let gap = gap_at(self.writer.state(), msn, &self.grant.open);
                self.announce(now, &Fact::Gap(gap), Bytes::new())
            }),
            Skipped::WindowRestarts(first) => self.announce(now, &Fact::Trim { first }, Bytes::new()),
        }
    }

    /// True if the job announces nothing more and everything it announced is stored: its log ends here.
    fn has_quiesced(&self) -> bool {
        self.quiesce.is_active() && self.objects.is_settled()
    }

    fn heartbeat(&self) -> Heartbeat {
        let state = self.writer.state();
        let newest_part = state.renditions.keys().filter_map(|name| {
            let end = listing_end(state, name)?;
            Some((name.clone(), (end.msn, PartIndex(end.parts.saturating_sub(1)))))
        });
        Heartbeat {
            node: self.node.clone(),
            epoch: self.grant.epoch,
            generation: self.grant.generation,
            ready: self.intake.is_caught_up(),
            leaving: self.leaving,
            quiesced: self.has_quiesced(),
            next_fact: self.writer.next_seq(),
            announced: newest_part.collect(),
            stored: self.objects.newest_stored().clone(),
            done: self.completion.is_sealed() && self.objects.is_settled(),
            // The shell knows the store.
            storage_failing: false,
            ladder: None,
            // And the rungs.
            encoding: None,
        }
    }
}
