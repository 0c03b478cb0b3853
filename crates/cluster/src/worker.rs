//! A granted author's job: media in order to the packager, what it makes to the log and the store, heartbeats to the
//! session, seal and end.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use millrace_wire::announce::{EpochAnnouncement, EpochPhase, IndexFact, SessionAnnouncement};
use millrace_wire::control_api::SealReport;
use millrace_wire::fact::{Fact, Gap, MediaDuration, Part, Segment, Slot, Snapshot, TrackInfo};
use millrace_wire::frame::FrameError;
use millrace_wire::ids::{
    DiscontinuitySeq, Generation, InitVersion, Msn, NodeId, PartIndex, Rendition, UnixMillis,
};
use millrace_wire::job::{Grant, Heartbeat};
use millrace_wire::media_msg::MediaMessage;
use millrace_wire::repair::{RepairReply, RepairRequest};

use crate::Millis;
use crate::author::{Author, Frames};
use crate::repair::GapTracker;
use crate::time::earlier;
use crate::view::{self, end_of};

/// Heartbeat interval.
pub const HEARTBEAT_MS: u64 = 200;
/// The session must be silent this long, to requests for its media too, before "the publisher is gone" is believed from
/// anyone else: the lease may have run out because control was away. Several requests fall into it.
pub const SEAL_SILENCE_MS: u64 = 2500;
/// A seal report is repeated until it is answered.
pub const REPORT_MS: u64 = 1000;
/// A finished author answers repair requests for this long: the session and readers hear of the last facts.
pub const LINGER_MS: u64 = 3000;

/// What the packager made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packaged {
    /// An initialisation section.
    Init {
        /// Rendition.
        rendition: Rendition,
        /// Version.
        version: InitVersion,
        /// Description.
        info: TrackInfo,
        /// Bytes.
        bytes: Bytes,
    },
    /// The rendition's PART-TARGET; before its first part.
    PartTarget {
        /// Rendition.
        rendition: Rendition,
        /// PART-TARGET.
        target: MediaDuration,
    },
    /// A part, its bytes in pieces.
    Part(Part, Vec<Bytes>),
    /// A segment is complete; its bytes are its parts'.
    Segment(Segment),
    /// All that [`Output::Flush`] asked for has been handed in.
    Flushed,
}

/// What a job is told.
#[derive(Debug)]
pub enum Input {
    /// From the `media` or `repair.media` subject.
    Media(MediaMessage),
    /// The session's reply to [`Output::AskMedia`].
    MediaReply(RepairReply),
    /// From the packager.
    Packaged(Packaged),
    /// The object of an [`Output::Upload`] is stored.
    Stored(Rendition, Msn),
    /// From `epoch.{stream}`.
    Epoch(EpochAnnouncement),
    /// From `session.{stream}`.
    Session(SessionAnnouncement),
    /// The grant was revoked.
    Revoked,
    /// The node drains: a successor is wanted.
    Leave,
    /// Control has recorded the report.
    Reported,
    /// Nothing but time.
    Tick,
}

/// What a job wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Publish on `live` or `repair.live`.
    Publish(Frames),
    /// Hand to the packager, in this order.
    Package(MediaMessage),
    /// Media are lost for good: drop the open segments, start again with the next message.
    ResetPackager,
    /// Close the open segments as they are, hand everything in, then [`Packaged::Flushed`].
    Flush,
    /// Request on `ring.media`; hand the reply in.
    AskMedia(RepairRequest),
    /// Publish on the heartbeat subject.
    Heartbeat(Heartbeat),
    /// Store an init section.
    UploadInit(Rendition, InitVersion, Bytes),
    /// Store a segment under this generation's name; [`Input::Stored`] when it is.
    Upload(Segment, Vec<Bytes>),
    /// Publish on `index.{stream}`, acknowledged.
    Index(IndexFact),
    /// Request on `control.sealed`; [`Input::Reported`] when answered.
    Report(SealReport),
    /// Superseded: nothing is announced any more.
    Superseded,
    /// Everything is stored and reported: drop the job.
    Done,
}

/// The epoch's first author has no other beside it, announced or not.
const FIRST_GENERATION: Generation = Generation(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Running,
    Flushing,
    Sealed,
}

/// A granted author's job.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)] // independent conditions, not a state
pub struct WorkerJob {
    grant: Grant,
    node: NodeId,
    author: Author,
    tracker: GapTracker<MediaMessage>,
    last_heard: Millis,
    last_given: Option<Msn>,
    resume: Msn,
    caught_up: bool,
    heard: bool,
    lost: bool,
    spoilt: Option<Msn>,
    stage: Stage,
    active: bool,
    announced: bool,
    leaving: bool,
    epoch_over: bool,
    away: Option<EpochPhase>,
    bodies: BTreeMap<(Rendition, Msn), Vec<Bytes>>,
    uploading: BTreeMap<(Rendition, Msn), Segment>,
    stored: BTreeMap<Rendition, BTreeSet<Msn>>,
    inits: BTreeSet<(Rendition, InitVersion)>,
    heartbeat_at: Millis,
    report_at: Option<Millis>,
    reported_end: bool,
    finished_at: Option<Millis>,
    done: bool,
    out: VecDeque<Output>,
}

impl WorkerJob {
    /// Starts the job of `grant` on `node`; `seed` spreads its repair requests.
    pub fn new(
        now: Millis,
        grant: Grant,
        node: NodeId,
        max_payload: usize,
        seed: u64,
    ) -> Result<Self, FrameError> {
        let mut author = Author::open(now, (grant.epoch, grant.generation), grant.base.clone(), max_payload)?;
        if !author.view().opened {
            author.announce(now, &Fact::EpochOpen(grant.open.clone()), Bytes::new())?;
        }
        let resume = view::resume_msn(&grant.base, grant.epoch, grant.open.first_msn);
        let mut job = Self {
            tracker: GapTracker::new(now, grant.resume_from.0, seed),
            node,
            author,
            last_heard: now,
            last_given: None,
            resume,
            caught_up: false,
            heard: false,
            lost: true,
            spoilt: None,
            stage: Stage::Running,
            active: true,
            announced: false,
            leaving: false,
            epoch_over: false,
            away: None,
            bodies: BTreeMap::new(),
            uploading: BTreeMap::new(),
            stored: BTreeMap::new(),
            inits: BTreeSet::new(),
            heartbeat_at: now,
            report_at: None,
            reported_end: false,
            finished_at: None,
            done: false,
            out: VecDeque::new(),
            grant,
        };
        // Asks for the ring's numbers at once: the backlog may be all there is.
        job.out.push_back(Output::AskMedia(RepairRequest { ranges: vec![] }));
        // A sealed epoch may still lack objects: then its media are packaged again up to their end.
        if view::is_stored(job.author.view(), job.grant.epoch) {
            job.stage = Stage::Sealed;
            job.report_at = Some(now);
        }
        job.drive(now)?;
        Ok(job)
    }
    /// The grant.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }
    /// The log's state: the answer to a snapshot request. A standby, which may yet be revoked, gives none.
    pub fn snapshot(&self) -> Option<&Snapshot> {
        (self.active && self.announced).then(|| self.author.view())
    }
    /// Takes a repair request from `ring.live`; gives the reply.
    pub fn repair(&mut self, now: Millis, request: &RepairRequest) -> RepairReply {
        let reply = self.author.repair(now, request);
        self.collect();
        reply
    }
    /// Next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }
    /// When to hand in [`Input::Tick`].
    pub fn next_timeout(&self) -> Option<Millis> {
        let own = Some(self.heartbeat_at.min(self.tracker.next_timeout()));
        let report = self.report_at.filter(|_| self.active && !self.epoch_over);
        earlier(earlier(own, report), self.author.next_timeout())
    }
    /// Everything is stored and reported, or the job was superseded and has stored what it had.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Takes one input. An error means that a fact could not be encoded: the job cannot go on.
    pub fn handle(&mut self, now: Millis, input: Input) -> Result<(), FrameError> {
        match input {
            Input::Media(m) if m.epoch == self.grant.epoch => {
                self.heard = true;
                self.last_heard = now;
                self.tracker.receive(now, m.seq.0, m);
            }
            Input::MediaReply(reply) => self.on_reply(now, reply),
            Input::Packaged(p) => self.on_packaged(now, p)?,
            Input::Stored(rendition, msn) => self.on_stored(now, rendition, msn)?,
            // Readers follow the newer epoch; this one's media are still completed for the recording.
            Input::Epoch(a) if a.epoch > self.grant.epoch => self.epoch_over = true,
            Input::Epoch(a) if a.epoch == self.grant.epoch => {
                self.away = (a.phase != EpochPhase::Open).then_some(a.phase);
            }
            Input::Session(a)
                if a.epoch == self.grant.epoch && a.generation.is_some_and(|g| g > self.grant.generation) =>
            {
                self.supersede();
            }
            Input::Session(a) if a.epoch == self.grant.epoch => {
                self.announced |= a.generation == Some(self.grant.generation);
            }
            Input::Revoked => self.supersede(),
            Input::Leave => {
                self.leaving = true;
                self.heartbeat_at = now;
            }
            Input::Reported => {
                self.report_at = None;
                self.reported_end = self.author.view().ended;
            }
            Input::Tick | Input::Media(_) | Input::Epoch(_) | Input::Session(_) => {}
        }
        self.drive(now)
    }

    fn on_reply(&mut self, now: Millis, reply: RepairReply) {
        self.heard = true;
        self.last_heard = now;
        self.tracker.learn_head(now, reply.next);
        if self.tracker.learn_oldest(reply.oldest.unwrap_or(reply.next)).is_some() {
            self.media_lost();
        }
    }

    /// The ring has lost messages this job needs: the segments they touch become GAPs.
    fn media_lost(&mut self) {
        self.out.push_back(Output::ResetPackager);
        self.bodies.clear();
        self.lost = true;
        // The packager had begun this segment and cannot go on.
        if let Some(open) = self.last_given.filter(|m| *m >= self.resume) {
            self.spoilt = Some(open);
        }
    }

    /// The first message, or the first after a loss: a segment can be packaged from its beginning only.
    fn start(&mut self, now: Millis, message: &MediaMessage) -> Result<(), FrameError> {
        let Some(msn) = message.last_msn().filter(|m| *m >= self.resume) else { return Ok(()) };
        self.lost = false;
        let begins = message.seq.0 == 0 || message.units.iter().any(|u| u.boundary && u.msn == msn);
        let first = if begins && self.spoilt < Some(msn) { msn } else { msn.next() };
        let view = self.author.view();
        let tracks = view.renditions.len();
        let complete = |s: &Slot| s.tracks.len() >= tracks && s.tracks.values().all(|t| t.segment.is_some());
        let ours = view.slots.iter().filter(|s| s.epoch == self.grant.epoch && s.gap.is_none());
        let done: BTreeSet<Msn> = ours.filter(|s| complete(s)).map(|s| s.msn).collect();
        // A hole too long to list is left out, as between epochs.
        let from = self.resume.max(Msn(first.0.saturating_sub(view::MAX_HOLE)));
        self.resume = first;
        for n in from.0..first.0 {
            if !done.contains(&Msn(n)) {
                self.gap(now, Msn(n))?;
            }
        }
        Ok(())
    }

    fn gap(&mut self, now: Millis, msn: Msn) -> Result<(), FrameError> {
        let duration = MediaDuration { ticks: u64::from(self.grant.open.target_duration), timescale: 1 };
        let last = self.author.view().slots.back();
        let discontinuity_sequence =
            last.map_or(self.grant.open.discontinuity_sequence, |s| s.discontinuity_sequence);
        let program_date_time = last.map_or(self.grant.open.program_date_time, |s| {
            UnixMillis(s.program_date_time.0 + view::slot_duration(s).map_or(0, MediaDuration::as_millis))
        });
        self.announce(
            now,
            &Fact::Gap(Gap { msn, duration, discontinuity_sequence, program_date_time }),
            Bytes::new(),
        )
    }

    fn announce(&mut self, now: Millis, fact: &Fact, payload: Bytes) -> Result<(), FrameError> {
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

    fn on_packaged(&mut self, now: Millis, packaged: Packaged) -> Result<(), FrameError> {
        match packaged {
            Packaged::Init { rendition, version, info, bytes } => {
                self.on_init(now, rendition, version, info, bytes)
            }
            Packaged::PartTarget { rendition, target } => {
                let known =
                    self.author.view().renditions.get(&rendition).is_some_and(|r| r.part_target.is_some());
                if known {
                    Ok(())
                } else {
                    self.announce(now, &Fact::PartTarget { rendition, target }, Bytes::new())
                }
            }
            Packaged::Part(part, pieces) => self.on_part(now, part, pieces),
            Packaged::Segment(segment) => self.on_segment(now, segment),
            Packaged::Flushed => self.seal(now),
        }
    }

    /// A description that is given again is announced again when it declares more than before, by whichever author:
    /// what was declared once is never taken back.
    fn on_init(
        &mut self,
        now: Millis,
        rendition: Rendition,
        version: InitVersion,
        mut info: TrackInfo,
        bytes: Bytes,
    ) -> Result<(), FrameError> {
        let epoch = self.grant.epoch;
        let inits = self.author.view().renditions.get(&rendition).map(|r| &r.inits[..]).unwrap_or_default();
        let known = inits.iter().find(|i| (i.epoch, i.version) == (epoch, version));
        let declared = known.map_or(0, |i| i.info.bandwidth);
        let more = info.bandwidth > declared;
        info.bandwidth = info.bandwidth.max(declared);
        if self.inits.insert((rendition.clone(), version)) {
            self.out.push_back(Output::UploadInit(rendition.clone(), version, bytes.clone()));
        } else if !more {
            return Ok(());
        }
        self.announce(now, &Fact::Init { rendition, version, info }, bytes)
    }

    fn on_part(&mut self, now: Millis, part: Part, pieces: Vec<Bytes>) -> Result<(), FrameError> {
        if part.msn < self.resume {
            return Ok(());
        }
        let key = (part.rendition.clone(), part.msn);
        let slot = self.author.view().slots.iter().find(|s| s.msn == part.msn);
        let track = slot.and_then(|s| s.tracks.get(&part.rendition));
        let known = track.is_some_and(|t| t.segment.is_some() || t.parts.len() > part.part.0 as usize);
        // What the ring keeps for repairs is what is uploaded.
        let body = if known || !self.active {
            pieces
        } else {
            self.author.announce_pieces(now, &Fact::Part(part), &pieces)?
        };
        self.collect();
        self.bodies.entry(key).or_default().extend(body);
        Ok(())
    }

    fn on_segment(&mut self, now: Millis, segment: Segment) -> Result<(), FrameError> {
        let key = (segment.rendition.clone(), segment.msn);
        let Some(body) = self.bodies.remove(&key) else { return Ok(()) };
        let slot = self.author.view().slots.iter().find(|s| s.msn == segment.msn);
        if slot.and_then(|s| s.tracks.get(&segment.rendition)).is_some_and(|t| t.committed) {
            return Ok(());
        }
        self.uploading.insert(key, segment.clone());
        self.out.push_back(Output::Upload(segment.clone(), body));
        self.announce(now, &Fact::Segment(segment), Bytes::new())?;
        self.trim(now)
    }

    fn trim(&mut self, now: Millis) -> Result<(), FrameError> {
        let window = u64::from(self.grant.settings.window) * 1000;
        match view::trim_to(self.author.view(), window) {
            Some(first) => self.announce(now, &Fact::Trim { first }, Bytes::new()),
            None => Ok(()),
        }
    }

    fn on_stored(&mut self, now: Millis, rendition: Rendition, msn: Msn) -> Result<(), FrameError> {
        let Some(segment) = self.uploading.remove(&(rendition.clone(), msn)) else { return Ok(()) };
        let Grant { stream, epoch, generation, .. } = self.grant;
        let broadcast = self.grant.open.broadcast;
        self.out.push_back(Output::Index(IndexFact { stream, broadcast, epoch, generation, segment }));
        self.stored.entry(rendition.clone()).or_default().insert(msn);
        self.announce(now, &Fact::Committed { rendition, msn }, Bytes::new())?;
        let (epoch, first) = (self.grant.epoch, self.grant.open.first_msn);
        let oldest = view::resume_msn(self.author.view(), epoch, first);
        self.author.keep_from(now, oldest);
        Ok(())
    }

    /// Another author has this epoch: what is complete is still stored, nothing more is packaged or announced.
    fn supersede(&mut self) {
        if self.active {
            self.active = false;
            self.stage = Stage::Sealed;
            self.bodies.clear();
            self.out.push_back(Output::Superseded);
        }
    }

    fn seal(&mut self, now: Millis) -> Result<(), FrameError> {
        if self.stage != Stage::Flushing {
            return Ok(());
        }
        self.stage = Stage::Sealed;
        let epoch = self.grant.epoch;
        let last = self.author.view().slots.iter().rev().find(|s| s.epoch == epoch).map(|s| s.msn);
        if !self.author.view().sealed {
            self.announce(now, &Fact::Seal { last }, Bytes::new())?;
        }
        self.report_at = self.active.then_some(now);
        Ok(())
    }

    fn drive(&mut self, now: Millis) -> Result<(), FrameError> {
        if self.stage == Stage::Running {
            self.take_media(now)?;
            self.ask_media(now);
        }
        // A session that answers is alive and will send its last message.
        let silent = now - self.last_heard >= SEAL_SILENCE_MS;
        if self.stage == Stage::Running && silent && (self.away.is_some() || self.epoch_over) {
            // A standby nobody was told of leaves the end to the author: it may lack media that the author has, and
            // with the session the ring is gone.
            if self.announced || self.grant.generation == FIRST_GENERATION {
                self.flush();
            } else {
                self.supersede();
            }
        }
        if self.stage == Stage::Sealed && self.active {
            self.after_seal(now)?;
        }
        self.author.tick(now);
        self.collect();
        if self.report_at.is_some_and(|at| at <= now) && self.active && !self.epoch_over {
            self.report_at = Some(now + REPORT_MS);
            self.out.push_back(Output::Report(self.report()));
        }
        if now >= self.heartbeat_at {
            self.heartbeat_at = now + HEARTBEAT_MS;
            self.out.push_back(Output::Heartbeat(self.heartbeat()));
        }
        self.finish(now);
        Ok(())
    }

    fn finish(&mut self, now: Millis) {
        let over = !self.active || self.epoch_over || (self.author.view().ended && self.reported_end);
        if self.done || !over || self.stage != Stage::Sealed || !self.uploading.is_empty() {
            return;
        }
        let finished = *self.finished_at.get_or_insert(now);
        if !self.active || now - finished >= LINGER_MS {
            self.done = true;
            self.out.push_back(Output::Done);
        }
    }

    fn take_media(&mut self, now: Millis) -> Result<(), FrameError> {
        while let Some((_, mut message)) = self.tracker.pop() {
            let end = message.end;
            if self.lost {
                self.start(now, &message)?;
            }
            // The resume point lies inside a message: its earlier units are another author's, already stored.
            let resume = self.resume;
            message.units.retain(|u| u.msn >= resume);
            self.last_given = message.last_msn().max(self.last_given);
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

    fn ask_media(&mut self, now: Millis) {
        self.caught_up |= self.heard && self.tracker.lag() == 0;
        if let Some(request) = self.tracker.poll_request(now) {
            self.out.push_back(Output::AskMedia(request));
        }
    }

    fn flush(&mut self) {
        self.stage = Stage::Flushing;
        self.caught_up = true;
        self.out.push_back(Output::Flush);
    }

    fn after_seal(&mut self, now: Millis) -> Result<(), FrameError> {
        match self.away {
            Some(EpochPhase::Away { gaps_through: Some(through), .. }) if !self.author.view().ended => {
                let next =
                    self.author.view().slots.back().map_or(self.grant.open.first_msn, |s| s.msn.next());
                // A long absence leaves numbers out rather than listing them all.
                let from = next.max(Msn(through.0.saturating_sub(view::MAX_HOLE)));
                for msn in from.0..=through.0 {
                    self.gap(now, Msn(msn))?;
                }
                self.trim(now)
            }
            Some(EpochPhase::Ended) if !self.author.view().ended => {
                self.announce(now, &Fact::End, Bytes::new())?;
                self.report_at = Some(now);
                Ok(())
            }
            _ => Ok(()),
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

    fn heartbeat(&self) -> Heartbeat {
        let view = self.author.view();
        let announced = view.renditions.keys().filter_map(|r| {
            let (msn, parts, _) = end_of(view, r)?;
            Some((r.clone(), (msn, PartIndex(parts.saturating_sub(1)))))
        });
        let committed = self.stored.iter().filter_map(|(r, set)| Some((r.clone(), *set.last()?)));
        Heartbeat {
            node: self.node.clone(),
            epoch: self.grant.epoch,
            generation: self.grant.generation,
            ready: self.caught_up,
            leaving: self.leaving,
            next_fact: self.author.next_seq(),
            announced: announced.collect(),
            committed: committed.collect(),
            done: self.stage == Stage::Sealed && self.uploading.is_empty(),
        }
    }
}
