//! Retention: segments past the window of streams that are not recorded leave the bucket, whichever worker stored them.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use common::{Backends, Control, renewal};
use millrace_link::Link;
use millrace_protocol::state::apply;
use millrace_state::{StateStore, Tx};
use millrace_store::{FaultyStore, Meta, SharedStore, StoreFaults, list_all};
use millrace_testkit::wait;
use millrace_wire::fact::{
    MediaDuration, RenditionSegment, RenditionState, Segment, SegmentEntry, SegmentSlot, StreamState,
};
use millrace_wire::ids::{
    DiscontinuitySeq, FactSeq, Generation, InitVersion, Msn, Rendition, StreamId, UnixMillis,
};
use millrace_wire::message::announce::IndexFact;
use millrace_wire::message::control::{ClaimGrant, ClaimReply, LeaseReply, SealReport};
use millrace_wire::object_names::{self, ObjectKind, ObjectName};
use millrace_wire::{state_keys, topic, topics};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// Bound of a failure: the tests wait for conditions, not for this time.
const LIMIT: Duration = Duration::from_mins(1);

/// Interval of renewals; a lease lasts three times as long.
const RENEW_EVERY: Duration = Duration::from_secs(1);

/// Segments of the grace period that stay below the checkpoint: a playlist of 3 target durations and a segment at both
/// of its ends, and the segment itself, at 2 s each.
const GRACE: u64 = 6;

/// Segments that the checkpoint lists.
const LISTED: u64 = 11;

fn renditions() -> [Rendition; 2] {
    [Rendition::audio(), Rendition::video()]
}

/// A worker with one grant: it stores objects and index entries.
struct Worker<'a> {
    store: &'a SharedStore,
    state: Arc<dyn StateStore>,
    grant: &'a ClaimGrant,
    generation: Generation,
}

impl Worker<'_> {
    fn name(&self, rendition: Rendition, kind: ObjectKind) -> ObjectName {
        ObjectName { playback: self.grant.playback, rendition, epoch: self.grant.epoch, kind }
    }

    async fn put(&self, rendition: &Rendition, kind: ObjectKind) {
        let key = self.name(rendition.clone(), kind).key();
        self.store.put(&key, "media".into(), Meta::default()).await.unwrap();
    }

    async fn store_segments(&self, numbers: Range<u64>) {
        for rendition in renditions() {
            self.put(&rendition, ObjectKind::Init(InitVersion(0))).await;
            for n in numbers.clone() {
                let msn = self.grant.first_msn.plus(n);
                self.put(&rendition, ObjectKind::Segment(msn, self.generation)).await;
                let fact = IndexFact {
                    stream: self.grant.stream,
                    broadcast: self.grant.broadcast,
                    epoch: self.grant.epoch,
                    generation: self.generation,
                    segment: segment(rendition.clone(), msn),
                };
                let key = state_keys::segment(fact.stream, &rendition, fact.epoch, msn);
                let put = Tx::new().put(key, topic::encode(&fact).unwrap());
                self.state.commit(put).await.unwrap();
            }
        }
    }

    /// Writes the checkpoint that lists the `LISTED` segments below `end`.
    async fn checkpoint(&self, end: u64, ended: bool) {
        let slots = (end - LISTED..end).map(|n| Arc::new(self.slot(self.grant.first_msn.plus(n))));
        let checkpoint = StreamState {
            epoch: self.grant.epoch,
            generation: self.generation,
            seq: FactSeq(end),
            target_duration: 2,
            opened: true,
            ended,
            first_msn: self.grant.first_msn.plus(end - LISTED),
            slots: slots.collect(),
            renditions: renditions().map(|rendition| (rendition, RenditionState::default())).into(),
            ..apply::empty(self.grant.broadcast)
        };
        let key = state_keys::snapshot(self.grant.stream);
        self.state.commit(Tx::new().put(key, topic::encode(&checkpoint).unwrap())).await.unwrap();
    }

    fn slot(&self, msn: Msn) -> SegmentSlot {
        let entry = SegmentEntry {
            generation: self.generation,
            seq: FactSeq(1),
            duration: MediaDuration::from_millis(2_000),
            independent: true,
            bytes: 5,
            parts: 1,
        };
        let track = RenditionSegment {
            init_version: InitVersion(0),
            parts: Vec::new(),
            segment: Some(entry),
            stored: true,
        };
        SegmentSlot {
            msn,
            epoch: self.grant.epoch,
            discontinuity_sequence: DiscontinuitySeq(0),
            program_date_time: UnixMillis(msn.0 * 1_000),
            gap: None,
            rendition_gaps: BTreeMap::new(),
            tracks: renditions()
                .map(|rendition| (rendition, track.clone()))
                .into_iter()
                .collect::<BTreeMap<_, _>>(),
        }
    }

    /// Returns the names of the segments with these numbers and of the initialisation section, for each rendition.
    fn objects(&self, numbers: Range<u64>) -> BTreeSet<String> {
        let kinds = numbers
            .map(|n| ObjectKind::Segment(self.grant.first_msn.plus(n), self.generation))
            .chain([ObjectKind::Init(InitVersion(0))]);
        kinds.flat_map(|kind| renditions().map(|rendition| self.name(rendition, kind).key())).collect()
    }
}

fn segment(rendition: Rendition, msn: Msn) -> Segment {
    Segment {
        rendition,
        msn,
        parts: 1,
        duration: MediaDuration::from_millis(2_000),
        independent: true,
        bytes: 5,
        discontinuity_sequence: DiscontinuitySeq(0),
        program_date_time: UnixMillis(msn.0 * 1_000),
        init_version: InitVersion(0),
    }
}

async fn bucket(store: &SharedStore, grant: &ClaimGrant) -> BTreeSet<String> {
    let entries = list_all(&**store, &object_names::stream_prefix(grant.playback), 10_000).await.unwrap();
    entries.into_iter().map(|entry| entry.key).collect()
}

async fn index_len(state: &dyn StateStore, stream: StreamId) -> usize {
    state.scan(&state_keys::all_segments(stream), None, 1_000).await.unwrap().len()
}

/// Creates a livestream with a window shorter than the API would give it.
async fn create(control: &Control, state: &dyn StateStore, body: Value) -> (String, String) {
    let created = control.create(body).await;
    let id = created["id"].as_str().unwrap().to_owned();
    let key = state_keys::stream(id.parse().unwrap());
    let record = state.get(&key).await.unwrap().unwrap();
    let mut stream: Value = serde_json::from_slice(&record.value).unwrap();
    stream["settings"]["window"] = json!(4);
    state.commit(Tx::new().put(key, stream.to_string())).await.unwrap();
    (id, created["stream_key"].as_str().unwrap().to_owned())
}

async fn claim(control: &Control, key: &str, session: u128) -> ClaimGrant {
    let ClaimReply::Granted(grant) = control.claim(key, session).await else { panic!("granted") };
    *grant
}

/// Renews a session's lease each second, as its ingest node does, so that control neither ends the stream nor takes its
/// log over.
fn keep_lease(link: &Link, grant: &ClaimGrant, session: u128) -> tokio::task::JoinHandle<()> {
    let renewal = renewal(grant, session);
    let link = link.clone();
    tokio::spawn(async move {
        loop {
            // While no control runs there is no answer, and the next renewal makes it good.
            let _ = link.request(&topics::renew(), &renewal, RENEW_EVERY).await;
            tokio::time::sleep(RENEW_EVERY).await;
        }
    })
}

/// Reports the end of the log, as its writer does.
async fn report_end(control: &Control, worker: &Worker<'_>, end: u64) {
    let report = SealReport {
        stream: worker.grant.stream,
        epoch: worker.grant.epoch,
        generation: worker.generation,
        last: Some(worker.grant.first_msn.plus(end - 1)),
        discontinuity_sequence: worker.grant.discontinuity_sequence,
        ended: true,
    };
    assert_eq!(control.ask(topics::sealed(), &report).await, LeaseReply::Ok);
}

async fn metric(control: &Control, name: &str) -> u64 {
    let text = control.raw(Method::GET, "/metrics", None, None).await.text().await.unwrap();
    let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("{name}: {text}"))
}

/// Two workers store segments in one epoch, a third after a reconnect; retention deletes those past the window, across an
/// outage of the object store and a change of the leader.
async fn segments_of_dead_workers_and_earlier_epochs(backends: &mut Backends) {
    let faulty = Arc::new(FaultyStore::new(backends.store.clone(), 1));
    let store = std::mem::replace(&mut backends.store, faulty.clone());
    let state = backends.state.clone().unwrap();
    let control = Control::start(backends).await;
    let (id, key) = create(&control, &*state, json!({"title": "Retained", "target_duration_s": 2})).await;
    let before = claim(&control, &key, 1).await;
    let worker = |grant, generation| Worker {
        store: &store,
        state: state.clone(),
        grant,
        generation: Generation(generation),
    };
    // The first worker dies; its successor stores the last three segments again.
    worker(&before, 1).store_segments(0..11).await;
    worker(&before, 2).store_segments(8..20).await;
    let grant = claim(&control, &key, 2).await;
    assert!(grant.continues && grant.epoch > before.epoch);
    let lease = keep_lease(&control.link, &grant, 2);
    let third = worker(&grant, 1);
    third.store_segments(0..40).await;

    faulty.set(StoreFaults { away: true, ..StoreFaults::default() });
    third.checkpoint(40, false).await;
    wait::until(LIMIT, async || {
        metric(&control, "millrace_control_retention_oldest_overdue_seconds").await > 0
    })
    .await;
    assert_eq!(
        index_len(&*state, grant.stream).await,
        2 * 60,
        "without the object store nothing is forgotten"
    );
    faulty.set(StoreFaults::default());

    let kept = third.objects(40 - LISTED - GRACE..40);
    wait::until(LIMIT, async || bucket(&store, &grant).await == kept).await;
    wait::until(LIMIT, async || index_len(&*state, grant.stream).await == 2 * (LISTED + GRACE) as usize)
        .await;
    wait::until(LIMIT, async || {
        metric(&control, "millrace_control_retention_oldest_overdue_seconds").await == 0
    })
    .await;
    let deleted = 2 * (60 - LISTED - GRACE);
    assert_eq!(metric(&control, "millrace_control_retention_segments_deleted_total").await, deleted);
    assert_eq!(metric(&control, "millrace_control_retention_deleted_bytes_total").await, deleted * 5);

    // The next leader goes on with the deletion; after the end the last playlist stays.
    control.node.drain().await;
    let control = Control::start(backends).await;
    third.store_segments(40..50).await;
    third.checkpoint(50, false).await;
    let kept = third.objects(50 - LISTED - GRACE..50);
    wait::until(LIMIT, async || bucket(&store, &grant).await == kept).await;
    third.checkpoint(50, true).await;
    assert_eq!(control.post(&id, "stop").await.0, StatusCode::OK);
    report_end(&control, &third, 50).await;
    let last = third.objects(50 - LISTED..50);
    wait::until(LIMIT, async || bucket(&store, &grant).await == last).await;
    lease.abort();
    control.node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_deletes_segments_of_dead_workers_and_earlier_epochs_embedded() {
    segments_of_dead_workers_and_earlier_epochs(&mut Backends::embedded().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_deletes_segments_of_dead_workers_and_earlier_epochs_on_nats_and_redis() {
    segments_of_dead_workers_and_earlier_epochs(&mut Backends::real().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_keeps_every_segment_of_a_recorded_stream() {
    let backends = Backends::embedded().await;
    let (state, store) = (backends.state.clone().unwrap(), backends.store.clone());
    let control = Control::start(&backends).await;
    let (_, recorded) =
        create(&control, &*state, json!({"title": "Recorded", "record": true, "target_duration_s": 2})).await;
    let (_, other) = create(&control, &*state, json!({"title": "Live", "target_duration_s": 2})).await;
    let (recorded, other) = (claim(&control, &recorded, 1).await, claim(&control, &other, 2).await);
    let leases = [keep_lease(&control.link, &recorded, 1), keep_lease(&control.link, &other, 2)];
    let worker = |grant| Worker { store: &store, state: state.clone(), grant, generation: Generation(1) };
    for worker in [worker(&recorded), worker(&other)] {
        worker.store_segments(0..40).await;
        worker.checkpoint(40, false).await;
    }
    let kept = worker(&other).objects(40 - LISTED - GRACE..40);
    wait::until(LIMIT, async || bucket(&store, &other).await == kept).await;
    assert_eq!(bucket(&store, &recorded).await, worker(&recorded).objects(0..40));
    assert_eq!(index_len(&*state, recorded.stream).await, 2 * 40);
    leases.iter().for_each(tokio::task::JoinHandle::abort);
    control.node.drain().await;
}
