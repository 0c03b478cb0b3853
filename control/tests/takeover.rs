//! Takeover of orphaned logs, seen in the playlists of a real edge.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{Backends, Control};
use millrace_buf::ByteChain;
use millrace_link::Link;
use millrace_media::container::cmaf::init_segment;
use millrace_media::frame::{AudioConfig, TrackConfig};
use millrace_media::hls::checker::Checker;
use millrace_protocol::Millis;
use millrace_protocol::log::writer::{EncodedMessage, LogWriter};
use millrace_protocol::state::apply;
use millrace_runtime::{Metrics, Process, SystemClock};
use millrace_state::Tx;
use millrace_store::Meta;
use millrace_testkit::wait;
use millrace_wire::close_reason::CloseReason;
use millrace_wire::fact::{
    EpochOpen, Fact, MediaDuration, Part, Segment, StreamState, TrackInfo, TrackMedia,
};
use millrace_wire::ids::{
    DiscontinuitySeq, Generation, InitVersion, Msn, PartIndex, Rendition, SessionId, UnixMillis,
};
use millrace_wire::message::announce::{EpochPhase, IndexFact, SessionAnnouncement};
use millrace_wire::message::control::{ClaimGrant, ClaimReply, LeaseReply, ReleaseRequest, SealReport};
use millrace_wire::message::repair::{RepairReply, SnapshotRequest};
use millrace_wire::object_names::{ObjectKind, ObjectName};
use millrace_wire::{state_keys, topic, topics};
use reqwest::StatusCode;
use serde_json::json;

/// Bound of a failure: the tests wait for conditions, not for this time.
const LIMIT: Duration = Duration::from_secs(40);
const GENERATION: Generation = Generation(1);
const SEGMENTS: u64 = 5;

/// A log writer of one audio rendition, without media worth playing.
struct Worker {
    link: Link,
    grant: ClaimGrant,
    writer: LogWriter,
    /// The wall clock of the first sample, in unix milliseconds.
    start: u64,
}

impl Worker {
    fn new(link: Link, grant: ClaimGrant) -> Self {
        let base = apply::empty(grant.broadcast);
        Self::on(base, link, grant)
    }

    fn on(base: StreamState, link: Link, grant: ClaimGrant) -> Self {
        let last = base.slots.back().map_or(0, |slot| slot.program_date_time.0 + 4_000);
        let start = SystemClock::shared().unix_ms().max(last);
        let writer = LogWriter::open(Millis(0), (grant.epoch, GENERATION), base, link.max_payload()).unwrap();
        let mut worker = Self { link, grant, writer, start };
        worker.announce(
            &Fact::EpochOpen(EpochOpen {
                broadcast: worker.grant.broadcast,
                airing: millrace_wire::ids::Airing::FIRST,
                first_msn: worker.grant.first_msn,
                discontinuity_sequence: worker.grant.discontinuity_sequence,
                program_date_time: UnixMillis(start),
                target_duration: 4,
                lead_gaps: 0,
                plan: millrace_wire::ladder::LadderPlan::default(),
            }),
            Bytes::new(),
        );
        let info = TrackInfo {
            media: TrackMedia::Audio { channels: 2, sample_rate: 48_000 },
            codecs: "mp4a.40.2".to_owned(),
            bandwidth: 128_000,
            timescale: 48_000,
        };
        let (rendition, version) = (Rendition::audio(), InitVersion(0));
        worker.announce(&Fact::Init { rendition, version, info }, init());
        let target = MediaDuration::from_millis(220);
        worker.announce(&Fact::PartTarget { rendition: Rendition::audio(), target }, Bytes::new());
        worker
    }

    fn announce(&mut self, fact: &Fact, payload: Bytes) {
        self.writer.announce(Millis(0), fact, payload).unwrap();
        self.publish();
    }

    fn publish(&mut self) {
        let (stream, epoch) = (self.grant.stream, self.grant.epoch);
        while let Some(message) = self.writer.poll_output() {
            let (topic, fragments) = match message {
                EncodedMessage::Live(fragments) => (topics::live(stream, epoch, GENERATION), fragments),
                EncodedMessage::Digest(_) => continue,
                EncodedMessage::Retransmit(fragments) => {
                    (topics::repair_live(stream, epoch, GENERATION), fragments)
                }
            };
            for fragment in fragments {
                self.link.publish_fragment(&topic, fragment).unwrap();
            }
        }
    }

    fn part(&mut self, n: u64) {
        let msn = self.grant.first_msn.plus(n);
        let part = Part {
            rendition: Rendition::audio(),
            msn,
            part: PartIndex(0),
            duration: MediaDuration::from_millis(200),
            independent: true,
            bytes: 4,
            discontinuity_sequence: self.grant.discontinuity_sequence,
            program_date_time: UnixMillis(self.start + n * 2_000),
            init_version: InitVersion(0),
            gap: false,
            last: false,
        };
        self.announce(&Fact::Part(part), Bytes::from_static(b"part"));
    }

    fn segment(&mut self, n: u64) {
        self.part(n);
        let segment = Segment {
            discontinuity_sequence: self.grant.discontinuity_sequence,
            program_date_time: UnixMillis(self.start + n * 2_000),
            ..segment(self.grant.first_msn, n)
        };
        self.announce(&Fact::Segment(segment), Bytes::new());
    }

    /// Announces the grant and answers repair requests until the edge shows `text`; the edge may have joined late.
    async fn until(&mut self, edge: &Edge, text: &str) -> String {
        let ring = topics::ring_live(self.grant.stream, self.grant.epoch, GENERATION);
        let mut repairs = self.link.respond(&ring, 64).await.unwrap();
        self.grant_announced();
        loop {
            tokio::select! {
                playlist = edge.until(text) => return playlist,
                request = repairs.recv() => {
                    let request = request.unwrap();
                    let reply = self.writer.repair(Millis(0), &request.message);
                    request.respond(&reply);
                    self.publish();
                }
            }
        }
    }

    fn grant_announced(&self) {
        let announcement = SessionAnnouncement {
            stream: self.grant.stream,
            epoch: self.grant.epoch,
            session: SessionId::from_u128(1),
            generation: Some(GENERATION),
            worker: "worker-1".parse().ok(),
            degraded: None,
        };
        self.link.publish(&topics::session(self.grant.stream), &announcement).unwrap();
    }
}

fn date(n: u64) -> UnixMillis {
    UnixMillis(1_790_000_000_000 + n * 2_000)
}

fn segment(first: Msn, n: u64) -> Segment {
    Segment {
        rendition: Rendition::audio(),
        msn: first.plus(n),
        parts: 1,
        duration: MediaDuration::from_millis(2_000),
        independent: true,
        bytes: 4,
        discontinuity_sequence: DiscontinuitySeq(0),
        program_date_time: date(n),
        init_version: InitVersion(0),
    }
}

fn init() -> Bytes {
    init_segment(&TrackConfig::Audio(AudioConfig::aac_lc(48_000, 2).unwrap()))
}

struct Edge {
    node: millrace_edge::Node,
    base: String,
    client: reqwest::Client,
}

impl Edge {
    async fn start(backends: &Backends, grant: &ClaimGrant) -> Self {
        let config = millrace_edge::Config {
            listen: ([127, 0, 0, 1], 0).into(),
            workers: 1,
            start_hold_s: 0,
            ..millrace_edge::Config::default()
        };
        let connected = millrace_node::Backends {
            bus: backends.bus.clone(),
            store: backends.store.clone(),
            state: backends.state.clone().unwrap(),
        };
        let deps = millrace_edge::Deps::new(connected, Process::default());
        let node = millrace_edge::start(config, deps).await.unwrap();
        let base = format!("http://{}/live/{}", node.addr(), grant.playback);
        Self { node, base, client: millrace_testkit::http::client() }
    }

    /// Starts an edge and waits until it follows the stream and requests a snapshot.
    async fn following(backends: &Backends, grant: &ClaimGrant) -> Self {
        let link = Link::new(backends.bus.clone(), &Metrics::new());
        let mut snapshots = link.respond(&topics::snapshot(grant.stream), 64).await.unwrap();
        let edge = Self::start(backends, grant).await;
        edge.playlist().await;
        snapshots.recv().await.unwrap();
        edge
    }

    async fn get(&self, tail: &str) -> Option<String> {
        let answer = self.client.get(format!("{}/{tail}", self.base)).send().await.unwrap();
        if answer.status() == StatusCode::OK { answer.text().await.ok() } else { None }
    }

    async fn playlist(&self) -> String {
        self.get("audio/index.m3u8").await.unwrap_or_default()
    }

    /// Waits until the playlist holds `text`, and returns it.
    async fn until(&self, text: &str) -> String {
        wait::some(LIMIT, async || Some(self.playlist().await).filter(|playlist| playlist.contains(text)))
            .await
    }
}

async fn live(control: &Control) -> (String, ClaimGrant) {
    let created = control.create(json!({"title": "Match"})).await;
    let ClaimReply::Granted(grant) = control.claim(created["stream_key"].as_str().unwrap(), 1).await else {
        panic!("granted")
    };
    (created["id"].as_str().unwrap().to_owned(), *grant)
}

#[tokio::test(flavor = "multi_thread")]
async fn takeover_ends_the_playlist_of_a_dead_log_writer_embedded() {
    log_writer_dies(&Backends::embedded().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn takeover_ends_the_playlist_of_a_dead_log_writer_on_nats_and_redis() {
    log_writer_dies(&Backends::real().await).await;
}

async fn log_writer_dies(backends: &Backends) {
    let control = Control::start(backends).await;
    let (id, grant) = live(&control).await;
    let first = grant.first_msn;
    let edge = Edge::following(backends, &grant).await;
    let mut worker = Worker::new(control.link.clone(), grant.clone());
    (0..SEGMENTS).for_each(|n| worker.segment(n));
    worker.part(SEGMENTS);
    let last = format!("{}.1.0.m4s", first.plus(SEGMENTS));
    let before = worker.until(&edge, &last).await;
    assert!(!before.contains("ENDLIST"));
    drop(worker);

    assert_eq!(control.post(&id, "stop").await.0, StatusCode::OK);
    let ended = edge.until("#EXT-X-ENDLIST").await;
    for n in 0..SEGMENTS {
        assert!(ended.contains(&format!("{}.1.m4s", first.plus(n))), "{ended}");
    }
    assert!(ended.contains("#EXT-X-GAP"), "the open segment is closed as missing: {ended}");
    assert!(ended.contains(&format!("#EXT-X-MEDIA-SEQUENCE:{first}\n")), "{ended}");
    // An edge that joins now shows the same playlist.
    let late = Edge::start(backends, &grant).await;
    assert_eq!(late.until("#EXT-X-ENDLIST").await, ended);
    late.node.drain().await;
    edge.node.drain().await;
    control.node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn takeover_appends_gaps_while_the_publisher_is_away_embedded() {
    publisher_is_away(&Backends::embedded().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn takeover_appends_gaps_while_the_publisher_is_away_on_nats_and_redis() {
    publisher_is_away(&Backends::real().await).await;
}

async fn publisher_is_away(backends: &Backends) {
    let control = Control::start(backends).await;
    let created = control.create(json!({"title": "Match"})).await;
    let (id, key) = (created["id"].as_str().unwrap(), created["stream_key"].as_str().unwrap());
    let grant = granted(control.claim(key, 1).await);
    let first = grant.first_msn;
    let edge = Edge::following(backends, &grant).await;
    let mut worker = Worker::new(control.link.clone(), grant.clone());
    (0..SEGMENTS).for_each(|n| worker.segment(n));
    worker.part(SEGMENTS);
    let open = first.plus(SEGMENTS);
    let mut checker = Checker::new();
    assert_eq!(checker.check(&worker.until(&edge, &format!("{open}.1.0.m4s")).await), []);
    drop(worker);
    let release = ReleaseRequest {
        stream: grant.stream,
        session: SessionId::from_u128(1),
        epoch: grant.epoch,
        open_msn: Some(open),
        discontinuity_sequence: DiscontinuitySeq(0),
        reason: CloseReason::PublisherLeft,
        text: String::new(),
    };
    assert_eq!(control.ask(topics::release(), &release).await, LeaseReply::Ok);

    // Control seals in an epoch of its own and appends a GAP segment for each target duration.
    for gaps in 1..=2 {
        let grown = edge.until(&format!("/{}.0.m4s\n", open.plus(gaps))).await;
        assert_eq!(checker.check(&grown), [], "{grown}");
    }
    let late = Edge::start(backends, &grant).await;
    let shown = late.until("#EXT-X-GAP").await;
    assert_eq!(segments(&shown)[..6], segments(&edge.playlist().await)[..6]);
    assert!(!shown.contains("ENDLIST"));
    let state = backends.state.clone().unwrap();
    let kept = state.get(&state_keys::snapshot(grant.stream)).await.unwrap().unwrap();
    let kept: StreamState = topic::decode(&kept.value).unwrap();
    assert!(kept.sealed && !kept.ended && kept.epoch > grant.epoch, "{kept:?}");

    // The publisher is back: no number that was shown is used again.
    let back = granted(control.claim(key, 2).await);
    assert!(back.continues && back.epoch > kept.epoch);
    let wait = Duration::from_millis(300);
    let known =
        control.link.gather(&topics::snapshot(grant.stream), &SnapshotRequest {}, wait, 3).await.unwrap();
    let base = known.into_iter().max_by_key(|s| (s.epoch, s.seq)).unwrap();
    assert!(base.sealed && base.slots.back().unwrap().msn < back.first_msn, "{base:?}");
    let mut worker = Worker::on(base, control.link.clone(), back.clone());
    worker.segment(0);
    let resumed = worker.until(&edge, &format!("{}/{}.1.m4s", back.epoch, back.first_msn)).await;
    assert_eq!(checker.check(&resumed), [], "{resumed}");
    drop(worker);

    // The second log writer dies too, and the operator stops the stream.
    assert_eq!(control.post(id, "stop").await.0, StatusCode::OK);
    let ended = edge.until("#EXT-X-ENDLIST").await;
    assert_eq!(checker.check(&ended), [], "{ended}");
    late.node.drain().await;
    edge.node.drain().await;
    control.node.drain().await;
}

fn granted(reply: ClaimReply) -> ClaimGrant {
    let ClaimReply::Granted(grant) = reply else { panic!("granted") };
    *grant
}

fn segments(playlist: &str) -> Vec<String> {
    playlist.lines().filter(|line| line.strip_suffix(".m4s").is_some()).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn takeover_waits_while_a_session_with_a_lapsed_lease_answers() {
    let backends = Backends::embedded().await;
    let control = Control::start(&backends).await;
    let (_, grant) = live(&control).await;
    let link = &control.link;
    let mut epochs = link.subscribe(&topics::epoch(grant.stream), 1_024).await.unwrap();
    let mut probes = link.respond(&topics::ring_media(grant.stream, grant.epoch), 64).await.unwrap();
    let mut snapshots = link.respond(&topics::snapshot(grant.stream), 64).await.unwrap();
    let mut worker = Worker::new(link.clone(), grant.clone());
    worker.segment(0);
    let (reply, mut seen) = (RepairReply { oldest: Some(0), next: 1 }, 0);
    let search = async {
        while seen < 2 {
            tokio::select! {
                probe = probes.recv() => {
                    seen += 1;
                    probe.unwrap().respond(&reply);
                }
                snapshot = snapshots.recv() => snapshot.unwrap().respond(worker.writer.state()),
            }
        }
    };
    tokio::time::timeout(LIMIT, search).await.unwrap();
    control.node.drain().await;
    while let Ok(Some(announcement)) = tokio::time::timeout(Duration::ZERO, epochs.recv()).await {
        assert_eq!((announcement.epoch, announcement.session), (grant.epoch, Some(SessionId::from_u128(1))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn takeover_rebuilds_the_state_from_the_index_after_a_crash() {
    let mut backends = Backends::embedded().await;
    let control = Control::start(&backends).await;
    let (id, grant) = live(&control).await;
    let kind = ObjectKind::Init(InitVersion(0));
    let name =
        ObjectName { playback: grant.playback, rendition: Rendition::audio(), epoch: grant.epoch, kind };
    backends.store.put(&name.key(), ByteChain::from(init()), Meta::of_type("audio/mp4")).await.unwrap();
    for n in 0..SEGMENTS {
        let fact = IndexFact {
            stream: grant.stream,
            broadcast: grant.broadcast,
            epoch: grant.epoch,
            generation: GENERATION,
            segment: segment(grant.first_msn, n),
        };
        let key = state_keys::segment(grant.stream, &Rendition::audio(), grant.epoch, fact.segment.msn);
        let put = Tx::new().put(key, topic::encode(&fact).unwrap());
        backends.state.as_ref().unwrap().commit(put).await.unwrap();
    }
    control.node.drain().await;
    backends.reopen().await;

    let control = Control::start(&backends).await;
    let edge = Edge::start(&backends, &grant).await;
    assert_eq!(control.post(&id, "stop").await.0, StatusCode::OK);
    let ended = edge.until("#EXT-X-ENDLIST").await;
    for n in 0..SEGMENTS {
        assert!(ended.contains(&format!("{}.1.m4s", grant.first_msn.plus(n))), "{ended}");
    }
    assert!(!ended.contains("#EXT-X-GAP"), "{ended}");
    let multivariant = edge.get("index.m3u8").await.unwrap();
    assert!(multivariant.contains("CODECS=\"mp4a.40.2\""), "{multivariant}");
    let map = format!("{}/init-0.mp4", grant.epoch);
    assert!(ended.contains(&map), "{ended}");
    assert!(edge.get(&format!("audio/{map}")).await.is_some());
    edge.node.drain().await;
    control.node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn takeover_leaves_the_log_of_a_live_writer_alone() {
    let backends = Backends::embedded().await;
    let control = Control::start(&backends).await;
    let (id, grant) = live(&control).await;
    let mut worker = Worker::new(control.link.clone(), grant.clone());
    worker.segment(0);
    let ring = topics::ring_live(grant.stream, grant.epoch, GENERATION);
    let mut probes = control.link.respond(&ring, 64).await.unwrap();
    let mut snapshots = control.link.respond(&topics::snapshot(grant.stream), 64).await.unwrap();
    let mut epochs = control.link.subscribe(&topics::epoch(grant.stream), 1_024).await.unwrap();
    assert_eq!(control.post(&id, "stop").await.0, StatusCode::OK);
    // The writer is slow to end its log: control finds it alive, and checks again later.
    let mut seen = 0;
    let search = async {
        while seen < 3 {
            tokio::select! {
                probe = probes.recv() => {
                    seen += 1;
                    let probe = probe.unwrap();
                    probe.respond(&worker.writer.repair(Millis(0), &probe.message));
                }
                snapshot = snapshots.recv() => snapshot.unwrap().respond(worker.writer.state()),
            }
        }
    };
    tokio::time::timeout(LIMIT, search).await.unwrap();
    worker.announce(&Fact::End, Bytes::new());
    let report = SealReport {
        stream: grant.stream,
        epoch: grant.epoch,
        generation: GENERATION,
        last: Some(grant.first_msn),
        discontinuity_sequence: DiscontinuitySeq(0),
        ended: true,
    };
    assert_eq!(control.ask(topics::sealed(), &report).await, LeaseReply::Ok);
    let state = backends.state.clone().unwrap();
    wait::until(LIMIT, async || state.get(&state_keys::claim(grant.stream)).await.unwrap().is_none()).await;
    control.node.drain().await;
    let mut announced = Vec::new();
    while let Ok(Some(announcement)) = tokio::time::timeout(Duration::ZERO, epochs.recv()).await {
        announced.push(announcement);
    }
    assert!(announced.iter().any(|a| a.phase == EpochPhase::Ended));
    assert!(announced.iter().all(|a| a.session.is_some() && a.epoch == grant.epoch), "{announced:?}");
}
