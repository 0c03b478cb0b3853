//! A granted author's job: media in order to the packager, what it makes to the log and the store, heartbeats to the
//! session, seal and end.

mod completion;
mod handover;
mod intake;
mod io;
mod objects;

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use millrace_wire::fact::{Fact, Gap, MediaDuration, StreamState};
use millrace_wire::fragment::FragmentError;
use millrace_wire::ids::{Msn, NodeId, PartIndex, RungId, UnixMillis};
use millrace_wire::message::job::{Grant, Heartbeat};
use millrace_wire::message::repair::{RepairReply, RepairRequest};

use self::completion::{Ending, FIRST_GENERATION};
use self::handover::Yielding;
use self::intake::Intake;
use self::objects::Objects;
use crate::log::writer::LogWriter;
use crate::state::apply::{self, end_of};
use crate::time::earlier;
use crate::{Machine, Millis};

pub use self::completion::{LINGER_MS, REPORT_MS};
pub use self::handover::YIELD_MS;
pub use self::intake::SEAL_SILENCE_MS;
pub use self::io::{Input, Output, Packaged};

/// Heartbeat interval.
pub const HEARTBEAT_MS: u64 = 200;

/// A granted author's job.
#[derive(Debug)]
pub struct WorkerJob {
    grant: Grant,
    node: NodeId,
    author: LogWriter,
    intake: Intake,
    objects: Objects,
    ending: Ending,
    rungs: BTreeSet<RungId>,
    active: bool,
    announced: bool,
    leaving: bool,
    yielding: Yielding,
    heartbeat_at: Millis,
    out: VecDeque<Output>,
}

impl Machine for WorkerJob {
    type Input = Input;
    type Output = Output;
    /// A fact could not be encoded: the job cannot go on.
    type Error = FragmentError;

    fn handle(&mut self, now: Millis, input: Input) -> Result<(), FragmentError> {
        match input {
            Input::Media(m) if m.epoch == self.grant.epoch => self.intake.receive(now, m),
            Input::MediaReply(reply) => self.on_reply(now, &reply),
            Input::Packaged(rung, packaged) => self.on_packaged(now, &rung, packaged)?,
            Input::Stored(rendition, msn) => self.on_stored(now, rendition, msn)?,
            Input::Epoch(a) => self.on_epoch(&a),
            Input::Session(a)
                if a.epoch == self.grant.epoch && a.generation.is_some_and(|g| g > self.grant.generation) =>
            {
                self.supersede();
            }
            Input::Session(a) if a.epoch == self.grant.epoch => {
                self.intake.hear(now);
                self.announced |= a.generation == Some(self.grant.generation);
            }
            Input::Revoked => self.supersede(),
            Input::Leave => {
                self.leaving = true;
                self.heartbeat_at = now;
            }
            Input::Yield => self.on_yield(now),
            Input::Reported => self.on_reported(),
            Input::Tick | Input::Media(_) | Input::Session(_) => {}
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
        let report = self.ending.report_due().filter(|_| self.active);
        let own = earlier(earlier(own, report), self.yielding.next_timeout());
        earlier(own, self.author.next_timeout())
    }

    fn is_done(&self) -> bool {
        self.ending.is_done()
    }
}

impl WorkerJob {
    /// Starts the job of `grant` on `node` with the rungs that package its media; `seed` spreads its repair requests.
    pub fn new(
        now: Millis,
        grant: Grant,
        node: NodeId,
        rungs: BTreeSet<RungId>,
        max_payload: usize,
        seed: u64,
    ) -> Result<Self, FragmentError> {
        let mut author =
            LogWriter::open(now, (grant.epoch, grant.generation), grant.base.clone(), max_payload)?;
        if !author.view().opened {
            author.announce(now, &Fact::EpochOpen(grant.open.clone()), Bytes::new())?;
        }
        let resume = apply::resume_msn(&grant.base, grant.epoch, grant.open.first_msn);
        // A sealed epoch may still lack objects: then its media are packaged again up to their end.
        let stored = apply::is_stored(author.view(), grant.epoch);
        let mut job = Self {
            intake: Intake::new(now, grant.resume_from, resume, seed),
            node,
            author,
            objects: Objects::default(),
            ending: Ending::new(now, stored),
            rungs,
            active: true,
            // Its session announces it as it grants it.
            announced: grant.generation == FIRST_GENERATION,
            leaving: false,
            yielding: Yielding::default(),
            heartbeat_at: now,
            out: VecDeque::new(),
            grant,
        };
        // Asks for the ring's numbers at once: the backlog may be all there is.
        job.out.push_back(Output::AskMedia(RepairRequest { ranges: vec![] }));
        job.drive(now)?;
        Ok(job)
    }
    /// The grant.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }
    /// The log's state: the answer to a snapshot request. A standby, which may yet be revoked, gives none.
    pub fn snapshot(&self) -> Option<&StreamState> {
        (self.active && self.announced).then(|| self.author.view())
    }
    /// Returns true while the job announces nothing because its successor is ready. What rungs make meanwhile must wait:
    /// the successor builds on what readers were shown.
    pub fn is_quiescing(&self) -> bool {
        self.yielding.is_silent()
    }

    /// Takes a repair request from `ring.live`; gives the reply.
    pub fn repair(&mut self, now: Millis, request: &RepairRequest) -> RepairReply {
        let reply = self.author.repair(now, request);
        self.collect();
        reply
    }
    /// What the ring has lost becomes GAPs, with the segments that it touches.
    fn on_reply(&mut self, now: Millis, reply: &RepairReply) {
        if self.intake.on_reply(now, reply) {
            self.out.extend(self.rungs.iter().cloned().map(Output::RestartRung));
            self.objects.drop_open();
        }
    }

    fn gap(&mut self, now: Millis, msn: Msn) -> Result<(), FragmentError> {
        let duration = MediaDuration { ticks: u64::from(self.grant.open.target_duration), timescale: 1 };
        let last = self.author.view().slots.back();
        let discontinuity_sequence =
            last.map_or(self.grant.open.discontinuity_sequence, |s| s.discontinuity_sequence);
        let program_date_time = last.map_or(self.grant.open.program_date_time, |s| {
            UnixMillis(s.program_date_time.0 + apply::slot_duration(s).map_or(0, MediaDuration::as_millis))
        });
        self.announce(
            now,
            &Fact::Gap(Gap { msn, duration, discontinuity_sequence, program_date_time }),
            Bytes::new(),
        )
    }

    fn announce(&mut self, now: Millis, fact: &Fact, payload: Bytes) -> Result<(), FragmentError> {
        if self.active {
            self.author.announce(now, fact, payload)?;
            self.collect();
        }
        Ok(())
    }

    fn collect(&mut self) {
        while let Some(frames) = self.author.poll_output() {
            self.out.push_back(Output::Publish(frames));
        }
    }

    fn drive(&mut self, now: Millis) -> Result<(), FragmentError> {
        self.drive_yielding(now);
        if self.ending.is_running() && !self.yielding.is_silent() {
            self.take_media(now)?;
            self.out.extend(self.intake.poll_request(now).map(Output::AskMedia));
        }
        self.drive_ending(now)?;
        self.author.tick(now);
        self.collect();
        self.poll_report(now);
        if now >= self.heartbeat_at {
            self.heartbeat_at = now + HEARTBEAT_MS;
            self.out.push_back(Output::Heartbeat(self.heartbeat()));
        }
        self.finish(now);
        Ok(())
    }

    fn take_media(&mut self, now: Millis) -> Result<(), FragmentError> {
        while let Some((message, gaps)) = self.intake.pop(self.author.view(), self.grant.epoch) {
            for msn in gaps {
                self.gap(now, msn)?;
            }
            let end = message.end;
            if !message.units.is_empty() {
                self.out.push_back(Output::Package(message));
            }
            if end {
                self.flush();
                return Ok(());
            }
        }
        Ok(())
    }

    fn heartbeat(&self) -> Heartbeat {
        let view = self.author.view();
        let announced = view.renditions.keys().filter_map(|r| {
            let (msn, parts, _) = end_of(view, r)?;
            Some((r.clone(), (msn, PartIndex(parts.saturating_sub(1)))))
        });
        Heartbeat {
            node: self.node.clone(),
            epoch: self.grant.epoch,
            generation: self.grant.generation,
            ready: self.intake.is_caught_up(),
            leaving: self.leaving,
            yielded: self.has_yielded(),
            next_fact: self.author.next_seq(),
            announced: announced.collect(),
            stored: self.objects.stored().collect(),
            done: self.ending.is_sealed() && self.objects.is_settled(),
        }
    }
}
