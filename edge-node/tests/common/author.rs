//! An author for tests: says facts on the bus, keeps its log for repair and answers snapshot requests.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use millrace_bus::SharedBus;
use millrace_protocol::state::apply;
use millrace_wire::fact::{
    EpochOpen, Fact, FactMessage, Gap, MediaDuration, Part, Segment, StreamState, TrackInfo, TrackMedia,
};
use millrace_wire::ids::{
    BroadcastId, DiscontinuitySeq, Epoch, FactSeq, Generation, InitVersion, Msn, NodeId, PartIndex,
    PlaybackId, Rendition, SessionId, StreamId, UnixMillis,
};
use millrace_wire::message::announce::{EpochAnnouncement, EpochPhase, SessionAnnouncement};
use millrace_wire::message::control;
use millrace_wire::message::repair::{RepairReply, RepairRequest};
use millrace_wire::{subjects, topic};
use tokio::task::JoinHandle;

/// The first segment's number.
pub(crate) const FIRST: u64 = 1000;
/// The first segment's wall clock.
pub(crate) const PDT_MS: u64 = 1_790_000_000_000;
/// TARGETDURATION.
pub(crate) const TARGET_S: u32 = 4;

struct Log {
    view: StreamState,
    facts: Vec<FactMessage>,
}

/// The author of one generation of one stream.
#[derive(Clone)]
pub(crate) struct LogWriter {
    pub(crate) stream: StreamId,
    pub(crate) playback: PlaybackId,
    pub(crate) epoch: Epoch,
    pub(crate) generation: Generation,
    broadcast: BroadcastId,
    bus: SharedBus,
    log: Arc<Mutex<Log>>,
    answering: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl LogWriter {
    /// Takes over an empty log; nothing is announced yet.
    pub(crate) async fn new(bus: SharedBus, stream: StreamId, playback: PlaybackId) -> Self {
        let broadcast = BroadcastId::from_u128(77);
        let (epoch, generation) = (Epoch(PDT_MS), Generation(1));
        let base = apply::empty(broadcast);
        let view = apply::takeover(epoch, generation, &base);
        let log = Arc::new(Mutex::new(Log { view, facts: Vec::new() }));
        let answering = Arc::default();
        let author = Self { stream, playback, epoch, generation, broadcast, bus, log, answering };
        author.answer().await;
        author.record(Fact::Takeover { base: Box::new(base) }, Bytes::new());
        author
    }

    /// Answers repair and snapshot requests until the bus closes.
    async fn answer(&self) {
        let ring = subjects::ring_live(self.stream, self.epoch, self.generation);
        let mut repairs = self.bus.subscribe(&ring, 64).await.unwrap();
        let mut snaps = self.bus.subscribe(&subjects::snap(self.stream), 64).await.unwrap();
        let this = self.clone();
        let repairing = tokio::spawn(async move {
            while let Some(request) = repairs.recv().await {
                let ranges = RepairRequest::parse(&request.payload).unwrap().ranges;
                let again: Vec<FactMessage> = {
                    let log = this.log.lock().unwrap();
                    let reply = RepairReply { oldest: Some(0), next: log.facts.len() as u64 };
                    let reply = topic::encode(&reply).unwrap();
                    this.bus.respond(request.reply.as_ref().unwrap(), reply).unwrap();
                    let wanted = |f: &&FactMessage| ranges.iter().any(|(a, b)| (*a..=*b).contains(&f.seq.0));
                    log.facts.iter().filter(wanted).cloned().collect()
                };
                let subject = subjects::repair_live(this.stream, this.epoch, this.generation);
                for fact in &again {
                    this.send(&subject, fact);
                }
            }
        });
        let this = self.clone();
        let telling = tokio::spawn(async move {
            while let Some(request) = snaps.recv().await {
                let snapshot = topic::encode(&this.log.lock().unwrap().view).unwrap();
                this.bus.respond(request.reply.as_ref().unwrap(), snapshot).unwrap();
            }
        });
        self.answering.lock().unwrap().extend([repairing, telling]);
    }

    /// Answers nobody any more.
    #[allow(dead_code)]
    pub(crate) async fn die(&self) {
        let answering: Vec<_> = self.answering.lock().unwrap().drain(..).collect();
        for task in answering {
            task.abort();
            let _ = task.await;
        }
    }

    /// The log's folded state.
    #[allow(dead_code)]
    pub(crate) fn view(&self) -> StreamState {
        self.log.lock().unwrap().view.clone()
    }

    /// A segment is in the store.
    #[allow(dead_code)]
    pub(crate) fn stored(&self, rendition: Rendition, msn: u64) {
        self.record(Fact::Stored { rendition, msn: Msn(msn) }, Bytes::new());
    }

    fn send(&self, subject: &str, fact: &FactMessage) {
        for frame in fact.encode(self.bus.max_payload()).unwrap() {
            self.bus.publish(subject, frame).unwrap();
        }
    }

    fn record(&self, fact: Fact, payload: Bytes) {
        self.keep(fact, payload, true);
    }

    fn keep(&self, fact: Fact, payload: Bytes, sent: bool) {
        let message = {
            let mut log = self.log.lock().unwrap();
            let seq = FactSeq(log.facts.len() as u64);
            apply::apply(&mut log.view, seq, &fact);
            let (epoch, generation) = (self.epoch, self.generation);
            let message = FactMessage { epoch, generation, seq, fact, payload };
            log.facts.push(message.clone());
            message
        };
        if sent {
            self.send(&subjects::live(self.stream, self.epoch, self.generation), &message);
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
        self.bus.publish(&subjects::session(self.stream), granted).unwrap();
    }

    /// Announces the epoch, as control does every second.
    pub(crate) fn announce_epoch(&self) {
        let epoch = EpochAnnouncement {
            stream: self.stream,
            playback: self.playback,
            broadcast: self.broadcast,
            epoch: self.epoch,
            session: Some(SessionId::from_u128(5)),
            phase: EpochPhase::Open,
        };
        let epoch = control::encode(&epoch).unwrap();
        self.bus.publish(&subjects::epoch(self.stream), epoch).unwrap();
    }

    /// Opens the epoch with a video and an audio track.
    pub(crate) fn open(
        &self,
        video: (TrackInfo, Bytes),
        audio: (TrackInfo, Bytes),
        part_target: MediaDuration,
    ) {
        self.record(Fact::EpochOpen(epoch_open(self.broadcast)), Bytes::new());
        for (rendition, (info, init)) in [(Rendition::video(), video), (Rendition::audio(), audio)] {
            let version = InitVersion(0);
            self.record(Fact::Init { rendition: rendition.clone(), version, info }, init);
            self.record(Fact::PartTarget { rendition, target: part_target }, Bytes::new());
        }
    }

    /// Says a part.
    pub(crate) fn part(
        &self,
        rendition: Rendition,
        at: (u64, u32),
        ms: u64,
        independent: bool,
        bytes: Bytes,
    ) {
        self.say_part(rendition, at, ms, independent, bytes, true);
    }

    /// A part that gets lost on its way.
    #[allow(dead_code)]
    pub(crate) fn lost_part(
        &self,
        rendition: Rendition,
        at: (u64, u32),
        ms: u64,
        independent: bool,
        bytes: Bytes,
    ) {
        self.say_part(rendition, at, ms, independent, bytes, false);
    }

    fn say_part(
        &self,
        rendition: Rendition,
        at: (u64, u32),
        ms: u64,
        independent: bool,
        bytes: Bytes,
        sent: bool,
    ) {
        let part = Part {
            rendition,
            msn: Msn(at.0),
            part: PartIndex(at.1),
            duration: MediaDuration::from_millis(ms),
            independent,
            bytes: bytes.len() as u64,
            discontinuity_sequence: DiscontinuitySeq(0),
            program_date_time: date(at.0),
            init_version: InitVersion(0),
            gap: false,
        };
        self.keep(Fact::Part(part), bytes, sent);
    }

    /// Closes a segment of `parts` parts.
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
            discontinuity_sequence: DiscontinuitySeq(0),
            program_date_time: date(msn),
            init_version: InitVersion(0),
        };
        self.record(Fact::Segment(segment), Bytes::new());
    }

    /// Moves the window.
    pub(crate) fn trim(&self, first: u64) {
        self.record(Fact::Trim { first: Msn(first) }, Bytes::new());
    }

    /// A segment nobody has.
    #[allow(dead_code)]
    pub(crate) fn gap(&self, msn: u64) {
        let gap = Gap {
            msn: Msn(msn),
            duration: MediaDuration { ticks: u64::from(TARGET_S), timescale: 1 },
            discontinuity_sequence: DiscontinuitySeq(0),
            program_date_time: date(msn),
        };
        self.record(Fact::Gap(gap), Bytes::new());
    }

    /// No segment of the epoch follows.
    #[allow(dead_code)]
    pub(crate) fn seal(&self) {
        self.record(Fact::Seal { last: None }, Bytes::new());
    }

    /// Ends the broadcast.
    #[allow(dead_code)]
    pub(crate) fn end(&self) {
        self.record(Fact::End, Bytes::new());
    }
}

fn date(msn: u64) -> UnixMillis {
    UnixMillis(PDT_MS + (msn - FIRST) * 2000)
}

fn epoch_open(broadcast: BroadcastId) -> EpochOpen {
    EpochOpen {
        broadcast,
        first_msn: Msn(FIRST),
        discontinuity_sequence: DiscontinuitySeq(0),
        program_date_time: UnixMillis(PDT_MS),
        target_duration: TARGET_S,
        lead_gaps: 1,
    }
}

/// A description of the video track.
pub(crate) fn video_info(width: u32, height: u32, codecs: &str) -> TrackInfo {
    let media = TrackMedia::Video { width, height, frame_rate_milli: Some(30_000) };
    TrackInfo { media, codecs: codecs.to_owned(), bandwidth: 1_000_000, timescale: 90_000 }
}

/// A description of the audio track.
pub(crate) fn audio_info() -> TrackInfo {
    let media = TrackMedia::Audio { channels: 2, sample_rate: 48_000 };
    TrackInfo { media, codecs: "mp4a.40.2".to_owned(), bandwidth: 80_000, timescale: 48_000 }
}
