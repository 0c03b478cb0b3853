//! Broadcasts whose author is gone: control says the end, and a real edge's playlists carry it.
#![allow(clippy::unwrap_used, reason = "tests")]

#[allow(dead_code, reason = "shared with other tests")]
mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{Backends, Control};
use millrace_bus::SharedBus;
use millrace_cluster::author::{Author, Frames};
use millrace_cluster::{Millis, view};
use millrace_media::cmaf::init_segment;
use millrace_media::sample::{AudioConfig, TrackConfig};
use millrace_runtime::{Drain, Metrics, Readiness, SystemClock};
use millrace_state::Tx;
use millrace_store::{Meta, PutBody};
use millrace_testkit::wait;
use millrace_wire::announce::{EpochAnnouncement, EpochPhase, IndexFact, SessionAnnouncement};
use millrace_wire::control_api::{ClaimGrant, ClaimReply, LeaseReply, SealReport, decode};
use millrace_wire::fact::{EpochOpen, Fact, MediaDuration, Part, Segment, TrackInfo, TrackMedia};
use millrace_wire::ids::{
    DiscontinuitySeq, Generation, InitVersion, Msn, PartIndex, Rendition, SessionId, UnixMillis,
};
use millrace_wire::objects::{ObjectKind, ObjectName};
use millrace_wire::{keys, subjects};
use reqwest::StatusCode;
use serde_json::json;

/// Generous: it is waited for a condition, and this only bounds a failure.
const LIMIT: Duration = Duration::from_secs(40);
const GENERATION: Generation = Generation(1);
const SEGMENTS: u64 = 5;

/// A worker's log of one audio rendition, as far as it matters here.
struct Worker {
    bus: SharedBus,
    grant: ClaimGrant,
    author: Author,
}

impl Worker {
    fn new(bus: SharedBus, grant: ClaimGrant) -> Self {
        let base = view::empty(grant.broadcast);
        let author = Author::open(Millis(0), (grant.epoch, GENERATION), base, bus.max_payload()).unwrap();
        let mut worker = Self { bus, grant, author };
        worker.say(
            Fact::EpochOpen(EpochOpen {
                broadcast: worker.grant.broadcast,
                first_msn: worker.grant.first_msn,
                discontinuity_sequence: DiscontinuitySeq(0),
                program_date_time: date(0),
                target_duration: 4,
                lead_gaps: 0,
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
        worker.say(Fact::Init { rendition, version, info }, init());
        let target = MediaDuration::from_millis(220);
        worker.say(Fact::PartTarget { rendition: Rendition::audio(), target }, Bytes::new());
        worker
    }

    fn say(&mut self, fact: Fact, payload: Bytes) {
        self.author.announce(Millis(0), fact, payload).unwrap();
        self.publish();
    }

    fn publish(&mut self) {
        let (stream, epoch) = (self.grant.stream, self.grant.epoch);
        while let Some(frames) = self.author.poll_output() {
            let (subject, frames) = match frames {
                Frames::Live(frames) => (subjects::live(stream, epoch, GENERATION), frames),
                Frames::Repeat(frames) => (subjects::repair_live(stream, epoch, GENERATION), frames),
            };
            for frame in frames {
                self.bus.publish(&subject, frame).unwrap();
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
            discontinuity_sequence: DiscontinuitySeq(0),
            program_date_time: date(n),
            init_version: InitVersion(0),
            gap: false,
        };
        self.say(Fact::Part(part), Bytes::from_static(b"part"));
    }

    fn segment(&mut self, n: u64) {
        self.part(n);
        self.say(Fact::Segment(segment(self.grant.first_msn, n)), Bytes::new());
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
        let body = serde_json::to_vec(&announcement).unwrap();
        self.bus.publish(&subjects::session(self.grant.stream), body.into()).unwrap();
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
        let deps = millrace_edge::Deps {
            bus: backends.bus.clone(),
            store: backends.store.clone(),
            state: backends.state.clone().unwrap(),
            metrics: Metrics::new(),
            readiness: Readiness::new(),
            clock: SystemClock::shared(),
            drain: Drain::new(),
        };
        let node = millrace_edge::start(config, deps).await.unwrap();
        let base = format!("http://{}/live/{}", node.addr(), grant.playback);
        Self { node, base, client: millrace_testkit::http::client() }
    }

    async fn get(&self, tail: &str) -> Option<String> {
        let answer = self.client.get(format!("{}/{tail}", self.base)).send().await.unwrap();
        if answer.status() == StatusCode::OK { answer.text().await.ok() } else { None }
    }

    async fn playlist(&self) -> String {
        self.get("audio/index.m3u8").await.unwrap_or_default()
    }

    /// The playlist once it holds `text`.
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
async fn the_playlist_ends_though_its_author_died_embedded() {
    the_author_dies(&Backends::embedded().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_playlist_ends_though_its_author_died_on_nats_and_redis() {
    the_author_dies(&Backends::real().await).await;
}

async fn the_author_dies(backends: &Backends) {
    let control = Control::start(backends).await;
    let (id, grant) = live(&control).await;
    let first = grant.first_msn;
    let edge = Edge::start(backends, &grant).await;
    let mut snaps = backends.bus.subscribe(&subjects::snap(grant.stream), 64).await.unwrap();
    edge.playlist().await;
    // The edge follows: it has subscribed and asks who knows something.
    snaps.recv().await.unwrap();
    drop(snaps);
    let mut worker = Worker::new(backends.bus.clone(), grant.clone());
    let mut repairs = backends
        .bus
        .subscribe(&subjects::ring_live(grant.stream, grant.epoch, GENERATION), 64)
        .await
        .unwrap();
    worker.grant_announced();
    (0..SEGMENTS).for_each(|n| worker.segment(n));
    worker.part(SEGMENTS);
    // The facts were said before the edge followed the author: it has them again from the ring.
    let last = format!("{}.1.0.m4s", first.plus(SEGMENTS));
    let before = loop {
        tokio::select! {
            playlist = edge.until(&last) => break playlist,
            request = repairs.recv() => {
                let request = request.unwrap();
                let asked = millrace_wire::repair::RepairRequest::parse(&request.payload).unwrap();
                let reply = worker.author.repair(Millis(0), &asked);
                let reply = serde_json::to_vec(&reply).unwrap();
                backends.bus.respond(request.reply.as_ref().unwrap(), reply.into()).unwrap();
                worker.publish();
            }
        }
    };
    assert!(!before.contains("ENDLIST"));
    drop((worker, repairs));

    assert_eq!(control.post(&id, "stop").await.0, StatusCode::OK);
    let ended = edge.until("#EXT-X-ENDLIST").await;
    for n in 0..SEGMENTS {
        assert!(ended.contains(&format!("{}.1.m4s", first.plus(n))), "{ended}");
    }
    assert!(ended.contains("#EXT-X-GAP"), "the open segment is closed as missing: {ended}");
    assert!(ended.contains(&format!("#EXT-X-MEDIA-SEQUENCE:{first}\n")), "{ended}");
    // Whoever comes now sees the same.
    let late = Edge::start(backends, &grant).await;
    assert_eq!(late.until("#EXT-X-ENDLIST").await, ended);
    late.node.drain().await;
    edge.node.drain().await;
    control.node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_the_end_is_built_from_the_index() {
    let mut backends = Backends::embedded().await;
    let control = Control::start(&backends).await;
    let (id, grant) = live(&control).await;
    let kind = ObjectKind::Init(InitVersion(0));
    let name =
        ObjectName { playback: grant.playback, rendition: Rendition::audio(), epoch: grant.epoch, kind };
    backends.store.put(&name.key(), PutBody::from(init()), Meta::of_type("audio/mp4")).await.unwrap();
    for n in 0..SEGMENTS {
        let fact = IndexFact {
            stream: grant.stream,
            broadcast: grant.broadcast,
            epoch: grant.epoch,
            generation: GENERATION,
            segment: segment(grant.first_msn, n),
        };
        let key = keys::segment(grant.stream, &Rendition::audio(), grant.epoch, fact.segment.msn);
        let put = Tx::new().put(key, serde_json::to_vec(&fact).unwrap());
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
async fn an_author_that_is_alive_ends_its_own_log() {
    let backends = Backends::embedded().await;
    let control = Control::start(&backends).await;
    let (id, grant) = live(&control).await;
    let mut worker = Worker::new(backends.bus.clone(), grant.clone());
    worker.segment(0);
    let ring = subjects::ring_live(grant.stream, grant.epoch, GENERATION);
    let mut probes = backends.bus.subscribe(&ring, 64).await.unwrap();
    let mut snaps = backends.bus.subscribe(&subjects::snap(grant.stream), 64).await.unwrap();
    let mut epochs = backends.bus.subscribe(&subjects::epoch(grant.stream), 1_024).await.unwrap();
    assert_eq!(control.post(&id, "stop").await.0, StatusCode::OK);
    // It is slow: control looks for it, finds it alive, and looks again later.
    let mut seen = 0;
    let search = async {
        while seen < 3 {
            let (message, body) = tokio::select! {
                probe = probes.recv() => {
                    seen += 1;
                    let request = millrace_wire::repair::RepairRequest { ranges: Vec::new() };
                    (probe.unwrap(), serde_json::to_vec(&worker.author.repair(Millis(0), &request)).unwrap())
                }
                snap = snaps.recv() => (snap.unwrap(), serde_json::to_vec(worker.author.view()).unwrap()),
            };
            backends.bus.respond(message.reply.as_ref().unwrap(), body.into()).unwrap();
        }
    };
    tokio::time::timeout(LIMIT, search).await.unwrap();
    worker.say(Fact::End, Bytes::new());
    let report = SealReport {
        stream: grant.stream,
        epoch: grant.epoch,
        generation: GENERATION,
        last: Some(grant.first_msn),
        discontinuity_sequence: DiscontinuitySeq(0),
        ended: true,
    };
    assert_eq!(control.ask::<_, LeaseReply>(subjects::CONTROL_SEALED, &report).await, LeaseReply::Ok);
    let state = backends.state.clone().unwrap();
    wait::until(LIMIT, async || state.get(&keys::claim(grant.stream)).await.unwrap().is_none()).await;
    control.node.drain().await;
    let mut announced = Vec::new();
    while let Ok(Some(message)) = tokio::time::timeout(Duration::ZERO, epochs.recv()).await {
        announced.push(decode::<EpochAnnouncement>(&message.payload).unwrap());
    }
    assert!(announced.iter().any(|a| a.phase == EpochPhase::Ended));
    assert!(announced.iter().all(|a| a.session.is_some() && a.epoch == grant.epoch), "{announced:?}");
}
