//! A log writer for tests: publishes facts on the bus, keeps its log for repair and answers snapshot requests.
#![allow(dead_code, reason = "the tests and the example each use their part")]

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use millrace_bus::SharedBus;
use millrace_protocol::state::apply;
use millrace_wire::fact::{
    EpochOpen, Fact, FactMessage, Gap, MediaDuration, Part, Segment, StreamState, TrackInfo, TrackMedia,
};
use millrace_wire::ids::{
    Airing, BroadcastId, DiscontinuitySeq, Epoch, FactSeq, Generation, InitVersion, Msn, NodeId, PartIndex,
    PlaybackId, Rendition, SessionId, StreamId, UnixMillis,
};
use millrace_wire::ladder::LadderPlan;
use millrace_wire::message::announce::{EpochAnnouncement, EpochPhase, SessionAnnouncement};
use millrace_wire::message::repair::{RepairReply, RepairRequest};
use millrace_wire::{topic, topics};
use tokio::task::JoinHandle;

/// The media sequence number of the first segment.
pub(crate) const FIRST: u64 = 1000;
/// The media sequence numbers between the beginnings of two broadcasts.
pub(crate) const AIRING_STEP: u64 = 100;
/// The program date time of the first segment, in unix milliseconds.
pub(crate) const PDT_MS: u64 = 1_790_000_000_000;
/// The target duration in seconds.
pub(crate) const TARGET_S: u32 = 4;

struct Log {
    state: StreamState,
    facts: Vec<FactMessage>,
}

/// The log writer of one generation of one stream.
#[derive(Clone)]
pub(crate) struct LogWriter {
    pub(crate) stream: StreamId,
    pub(crate) playback: PlaybackId,
    pub(crate) epoch: Epoch,
    pub(crate) generation: Generation,
    broadcast: BroadcastId,
    airing: Airing,
    bus: SharedBus,
    log: Arc<Mutex<Log>>,
    answering: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl LogWriter {
    /// Takes over an empty log. Nothing is announced yet.
    pub(crate) async fn new(bus: SharedBus, stream: StreamId, playback: PlaybackId) -> Self {
        Self::of_airing(bus, stream, playback, Airing::FIRST).await
    }

    /// Takes over the empty log of a broadcast. Each broadcast has an epoch of its own.
    pub(crate) async fn of_airing(
        bus: SharedBus,
        stream: StreamId,
        playback: PlaybackId,
        airing: Airing,
    ) -> Self {
        let broadcast = BroadcastId::from_u128(77 + u128::from(airing.0));
        let (epoch, generation) = (Epoch(PDT_MS + u64::from(airing.0)), Generation(1));
        let base = apply::empty(broadcast);
        let state = apply::takeover(epoch, generation, &base);
        let log = Arc::new(Mutex::new(Log { state, facts: Vec::new() }));
        let answering = Arc::default();
        let writer = Self { stream, playback, epoch, generation, broadcast, airing, bus, log, answering };
        writer.answer().await;
        writer.append(Fact::Takeover { base: Box::new(base) }, Bytes::new());
        writer
    }

    /// Answers repair and snapshot requests until the bus closes or [`LogWriter::stop_answering`] is called.
    pub(crate) async fn answer(&self) {
        let ring = topics::ring_live(self.stream, self.epoch, self.generation).into_subject();
        let mut repairs = self.bus.subscribe(&ring, 64).await.unwrap();
        let mut snaps = self.bus.subscribe(topics::snapshot(self.stream).subject(), 64).await.unwrap();
        let this = self.clone();
        let repairing = tokio::spawn(async move {
            while let Some(request) = repairs.recv().await {
                let ranges = topic::decode::<RepairRequest>(&request.payload).unwrap().ranges;
                let again: Vec<FactMessage> = {
                    let log = this.log.lock().unwrap();
                    let reply = RepairReply { oldest: Some(0), next: log.facts.len() as u64 };
                    let reply = topic::encode(&reply).unwrap();
                    this.bus.respond(request.reply.as_ref().unwrap(), reply).unwrap();
                    let wanted = |fact: &&FactMessage| {
                        ranges.iter().any(|(first, last)| (*first..=*last).contains(&fact.seq.0))
                    };
                    log.facts.iter().filter(wanted).cloned().collect()
                };
                let subject = topics::repair_live(this.stream, this.epoch, this.generation).into_subject();
                for fact in &again {
                    this.send(&subject, fact);
                }
            }
        });
        let this = self.clone();
        let answering = tokio::spawn(async move {
            while let Some(request) = snaps.recv().await {
                let snapshot = topic::encode(&this.log.lock().unwrap().state).unwrap();
                this.bus.respond(request.reply.as_ref().unwrap(), snapshot).unwrap();
            }
        });
        self.answering.lock().unwrap().extend([repairing, answering]);
    }

    /// Answers no request any more, as after the death of its node.
    pub(crate) async fn stop_answering(&self) {
        let answering: Vec<_> = self.answering.lock().unwrap().drain(..).collect();
        for task in answering {
            task.abort();
            let _ = task.await;
        }
    }

    /// Returns the folded state of the log.
    pub(crate) fn state(&self) -> StreamState {
        self.log.lock().unwrap().state.clone()
    }

    /// Appends that a segment is in the store.
    pub(crate) fn stored(&self, rendition: Rendition, msn: u64) {
        self.append(Fact::Stored { rendition, msn: Msn(msn) }, Bytes::new());
    }

    fn send(&self, subject: &str, fact: &FactMessage) {
        for fragment in fact.encode(self.bus.max_payload()).unwrap() {
            self.bus.publish(subject, fragment).unwrap();
        }
    }

    fn append(&self, fact: Fact, payload: Bytes) {
        self.append_fact(fact, payload, true);
    }

    fn append_fact(&self, fact: Fact, payload: Bytes, published: bool) {
        let message = {
            let mut log = self.log.lock().unwrap();
            let seq = FactSeq(log.facts.len() as u64);
            apply::apply(&mut log.state, seq, &fact);
            let (epoch, generation) = (self.epoch, self.generation);
            let message = FactMessage { epoch, generation, seq, fact, payload };
            log.facts.push(message.clone());
            message
        };
        if published {
            self.send(topics::live(self.stream, self.epoch, self.generation).subject(), &message);
        }
    }

    /// Announces the epoch and the generation.
    pub(crate) fn announce(&self) {
        self.announce_epoch();
        let granted = SessionAnnouncement {
            stream: self.stream,
            epoch: self.epoch,
            session: SessionId::from_u128(5),
            generation: Some(self.generation),
            worker: "worker-1".parse::<NodeId>().ok(),
            degraded: None,
        };
        let granted = topic::encode(&granted).unwrap();
        self.bus.publish(topics::session(self.stream).subject(), granted).unwrap();
    }

    /// Announces the epoch, as control does every second.
    pub(crate) fn announce_epoch(&self) {
        self.announce_phase(EpochPhase::Open);
    }

    /// Announces that the publisher is away.
    pub(crate) fn announce_away(&self) {
        let discontinuity_sequence = DiscontinuitySeq(1);
        self.announce_phase(EpochPhase::Away { gaps_through: None, discontinuity_sequence });
    }

    fn announce_phase(&self, phase: EpochPhase) {
        let epoch = EpochAnnouncement {
            stream: self.stream,
            playback: self.playback,
            broadcast: self.broadcast,
            epoch: self.epoch,
            session: Some(SessionId::from_u128(5)),
            phase,
        };
        let epoch = topic::encode(&epoch).unwrap();
        self.bus.publish(topics::epoch(self.stream).subject(), epoch).unwrap();
    }

    /// Opens the epoch with a video and an audio rendition.
    pub(crate) fn open(
        &self,
        video: (TrackInfo, Bytes),
        audio: (TrackInfo, Bytes),
        part_target: MediaDuration,
    ) {
        self.open_with(LadderPlan::default(), video, audio, part_target);
    }

    /// Opens the epoch of a stream with a ladder. Its rungs are added later.
    pub(crate) fn open_with(
        &self,
        plan: LadderPlan,
        video: (TrackInfo, Bytes),
        audio: (TrackInfo, Bytes),
        part_target: MediaDuration,
    ) {
        let open = EpochOpen { plan, ..epoch_open(self.broadcast, self.airing) };
        self.append(Fact::EpochOpen(open), Bytes::new());
        for (rendition, track) in [(Rendition::video(), video), (Rendition::audio(), audio)] {
            self.add_track(rendition, track, part_target);
        }
    }

    /// Appends a rendition with its init section.
    pub(crate) fn add_track(
        &self,
        rendition: Rendition,
        (info, init): (TrackInfo, Bytes),
        part_target: MediaDuration,
    ) {
        let version = InitVersion(0);
        self.append(Fact::Init { rendition: rendition.clone(), version, info }, init);
        self.append(Fact::PartTarget { rendition, target: part_target }, Bytes::new());
    }

    /// Appends a part: `at` is its media sequence number and index.
    pub(crate) fn part(
        &self,
        rendition: Rendition,
        at: (u64, u32),
        ms: u64,
        independent: bool,
        bytes: Bytes,
    ) {
        self.append_part(rendition, at, ms, independent, bytes, true);
    }

    /// Appends a part that is lost on its way to the readers.
    pub(crate) fn lost_part(
        &self,
        rendition: Rendition,
        at: (u64, u32),
        ms: u64,
        independent: bool,
        bytes: Bytes,
    ) {
        self.append_part(rendition, at, ms, independent, bytes, false);
    }

    fn append_part(
        &self,
        rendition: Rendition,
        at: (u64, u32),
        ms: u64,
        independent: bool,
        bytes: Bytes,
        published: bool,
    ) {
        let part = Part {
            rendition,
            msn: Msn(at.0),
            part: PartIndex(at.1),
            duration: MediaDuration::from_millis(ms),
            independent,
            bytes: bytes.len() as u64,
            discontinuity_sequence: DiscontinuitySeq(self.airing.0.into()),
            program_date_time: date(at.0),
            init_version: InitVersion(0),
            gap: false,
            last: false,
        };
        self.append_fact(Fact::Part(part), bytes, published);
    }

    /// Appends the end of a segment of `parts` parts.
    pub(crate) fn segment(
        &self,
        rendition: Rendition,
        msn: u64,
        parts: u32,
        ms: u64,
        independent: bool,
        bytes: u64,
    ) {
        let segment = Segment {
            rendition,
            msn: Msn(msn),
            parts,
            duration: MediaDuration::from_millis(ms),
            independent,
            bytes,
            discontinuity_sequence: DiscontinuitySeq(self.airing.0.into()),
            program_date_time: date(msn),
            init_version: InitVersion(0),
        };
        self.append(Fact::Segment(segment), Bytes::new());
    }

    /// Moves the start of the window to segment `first`.
    pub(crate) fn trim(&self, first: u64) {
        self.append(Fact::Trim { first: Msn(first) }, Bytes::new());
    }

    /// Appends a GAP in place of a segment.
    pub(crate) fn gap(&self, msn: u64) {
        let gap = Gap {
            msn: Msn(msn),
            duration: MediaDuration { ticks: u64::from(TARGET_S), timescale: 1 },
            discontinuity_sequence: DiscontinuitySeq(self.airing.0.into()),
            program_date_time: date(msn),
        };
        self.append(Fact::Gap(gap), Bytes::new());
    }

    /// Appends the seal of the epoch.
    pub(crate) fn seal(&self) {
        self.append(Fact::Seal { last: None }, Bytes::new());
    }

    /// Appends the end of the broadcast.
    pub(crate) fn end(&self) {
        self.append(Fact::End, Bytes::new());
    }
}

fn date(msn: u64) -> UnixMillis {
    UnixMillis(PDT_MS + (msn - FIRST) * 2000)
}

fn epoch_open(broadcast: BroadcastId, airing: Airing) -> EpochOpen {
    let first_msn = FIRST + u64::from(airing.0) * AIRING_STEP;
    EpochOpen {
        broadcast,
        airing,
        first_msn: Msn(first_msn),
        discontinuity_sequence: DiscontinuitySeq(airing.0.into()),
        program_date_time: date(first_msn),
        target_duration: TARGET_S,
        lead_gaps: 1,
        plan: LadderPlan::default(),
    }
}

/// Describes the video track of the test stream.
pub(crate) fn video_info(width: u32, height: u32, codecs: &str) -> TrackInfo {
    let media = TrackMedia::Video { width, height, frame_rate_milli: Some(30_000) };
    TrackInfo { media, codecs: codecs.to_owned(), bandwidth: 1_000_000, timescale: 90_000 }
}

/// Describes the audio track of the test stream.
pub(crate) fn audio_info() -> TrackInfo {
    let media = TrackMedia::Audio { channels: 2, sample_rate: 48_000 };
    TrackInfo { media, codecs: "mp4a.40.2".to_owned(), bandwidth: 80_000, timescale: 48_000 }
}
