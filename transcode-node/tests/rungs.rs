//! Jobs with a second rung, which fails for a segment or answers late, beside the copy rung.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/audio.rs"]
mod audio;
#[path = "support/session.rs"]
mod session;

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use audio::{FIRST, messages};
use millrace_media::hls::MediaPlaylist;
use millrace_media::hls::checker::Checker;
use millrace_protocol::job::Packaged;
use millrace_runtime::{Metrics, Process};
use millrace_transcode::rungs::copy::{self, CopyRung};
use millrace_transcode::rungs::{BuiltInRungs, Rung, RungFactory};
use millrace_transcode::{Config, Node};
use millrace_wire::fact::{EpochOpen, Fact, RenditionGap, StreamState};
use millrace_wire::ids::{Generation, Msn, Rendition, RungId};
use millrace_wire::message::control::StreamSettings;
use millrace_wire::message::media::MediaMessage;
use millrace_wire::object_names;
use session::{World, eventually, playback};

const NODE: &str = "worker-a";
/// The segment that the second rung has no media for.
const MISSING: Msn = Msn(FIRST + 1);

fn low() -> Rendition {
    "low".parse().unwrap()
}

/// Holds back what the second rung makes while it is closed, as a child process does that encodes slowly.
#[derive(Debug, Default)]
struct Gate {
    closed: bool,
    waker: Option<Waker>,
}

impl Gate {
    fn open(gate: &Mutex<Self>) {
        let mut gate = gate.lock().unwrap();
        gate.closed = false;
        if let Some(waker) = gate.waker.take() {
            waker.wake();
        }
    }
}

/// Makes a rendition `low` of the source's audio, and reports a gap for [`MISSING`].
#[derive(Debug)]
struct SecondRung {
    id: RungId,
    inner: CopyRung,
    gate: Arc<Mutex<Gate>>,
}

impl SecondRung {
    fn rename(packaged: Packaged) -> Packaged {
        match packaged {
            Packaged::Init { version, info, bytes, .. } => {
                Packaged::Init { rendition: low(), version, info, bytes }
            }
            Packaged::PartTarget { target, .. } => Packaged::PartTarget { rendition: low(), target },
            Packaged::Part(mut part, body) => {
                part.rendition = low();
                Packaged::Part(part, body)
            }
            Packaged::Segment(mut segment) => {
                segment.rendition = low();
                Packaged::Segment(segment)
            }
            other => other,
        }
    }

    /// Returns what is left of `packaged` when the encoder fails for [`MISSING`].
    fn fail(packaged: Packaged) -> Option<Packaged> {
        match packaged {
            Packaged::Part(part, _) if part.msn == MISSING => None,
            Packaged::Segment(segment) if segment.msn == MISSING => Some(Packaged::Gap(RenditionGap {
                rendition: segment.rendition,
                msn: segment.msn,
                duration: segment.duration,
                discontinuity_sequence: segment.discontinuity_sequence,
                program_date_time: segment.program_date_time,
            })),
            other => Some(other),
        }
    }
}

impl Rung for SecondRung {
    fn id(&self) -> &RungId {
        &self.id
    }

    fn push(&mut self, message: MediaMessage) {
        self.inner.push(message);
    }

    fn finish(&mut self) {
        self.inner.finish();
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Packaged> {
        let mut gate = self.gate.lock().unwrap();
        if gate.closed {
            gate.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        drop(gate);
        while let Poll::Ready(packaged) = self.inner.poll(context) {
            if let Some(packaged) = Self::fail(Self::rename(packaged)) {
                return Poll::Ready(packaged);
            }
        }
        Poll::Pending
    }
}

#[derive(Debug, Default)]
struct TwoRungs {
    gate: Arc<Mutex<Gate>>,
}

impl RungFactory for TwoRungs {
    fn rungs(&self, _: &StreamSettings) -> Vec<RungId> {
        vec![RungId::copy(), "low".parse().unwrap()]
    }

    fn start(
        &self,
        id: &RungId,
        settings: &StreamSettings,
        open: &EpochOpen,
        base: &StreamState,
    ) -> Box<dyn Rung> {
        if *id == RungId::copy() {
            return BuiltInRungs::default().start(id, settings, open, base);
        }
        let inner = CopyRung::new(open, copy::part_setup(base, settings));
        Box::new(SecondRung { id: id.clone(), inner, gate: self.gate.clone() })
    }
}

/// Returns a world whose one node, with both rungs, has been granted generation 1, and the second rung's gate.
async fn granted() -> (World, Node, Metrics, Arc<Mutex<Gate>>) {
    let world = World::new().await;
    let rungs = TwoRungs::default();
    let gate = rungs.gate.clone();
    let (node, process): (Node, Process) =
        world.node_with_rungs(NODE, Config::default(), Arc::new(rungs)).await;
    world.offer(NODE).await;
    world.follow(Generation(1)).await;
    let settings = StreamSettings { publish_playlist: true, ..StreamSettings::default() };
    world.grant(NODE, 1, World::first_base(), settings);
    (world, node, process.metrics, gate)
}

/// Ends the broadcast, and returns the playlist that the bucket then has for a rendition.
async fn final_playlist(world: &World, rendition: &Rendition) -> String {
    let key = object_names::media_playlist(playback(), rendition);
    let ended = async || world.text(&key).await.filter(|text| text.ends_with(b"#EXT-X-ENDLIST\n"));
    String::from_utf8(eventually("a playlist with ENDLIST", ended).await.to_vec()).unwrap()
}

async fn idle(metrics: &Metrics) {
    let jobs = || metrics.render().lines().any(|line| line == "millrace_transcode_jobs 0");
    eventually("the job's end", async || jobs().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rung_that_fails_for_a_segment_leaves_a_gap_in_its_own_playlist_only() {
    let (world, node, metrics, _) = granted().await;
    world.publish(&messages(9));
    world.fact("the gap", |f| matches!(&f.fact, Fact::RenditionGap(gap) if gap.msn == MISSING)).await;
    world.announce_generation(1, NODE);
    world.fact("the seal", |f| matches!(f.fact, Fact::Seal { .. })).await;
    world.announce_end();
    for (rendition, gaps) in [(Rendition::audio(), vec![]), (low(), vec![MISSING.0])] {
        let text = final_playlist(&world, &rendition).await;
        assert_eq!(Checker::new().check(&text), [], "{text}");
        let playlist = MediaPlaylist::parse(&text).unwrap();
        let first = playlist.media_sequence;
        let missing = playlist.segments.iter().enumerate().filter(|(_, segment)| segment.gap);
        let missing: Vec<u64> = missing.map(|(index, _)| first + index as u64).collect();
        assert_eq!((playlist.segments.len(), missing), (5, gaps), "{rendition}: {text}");
    }
    idle(&metrics).await;
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn job_seals_its_epoch_only_when_every_rung_has_flushed() {
    let (world, node, metrics, gate) = granted().await;
    gate.lock().unwrap().closed = true;
    world.publish(&messages(9));
    world.announce_generation(1, NODE);
    let last = Msn(FIRST + 4);
    let segment = |rendition: Rendition| move |fact: &Fact| matches!(fact, Fact::Segment(s) if s.rendition == rendition && s.msn == last);
    let audio = segment(Rendition::audio());
    world.fact("the copy rung's last segment", |f| audio(&f.fact)).await;
    let flushed = async || (world.stored(1).len() >= 5).then_some(());
    eventually("the copy rung's segments stored", flushed).await;
    let sealed = || world.facts().iter().any(|f| matches!(f.fact, Fact::Seal { .. }));
    assert!(!sealed(), "the second rung has not flushed");

    Gate::open(&gate);
    let low = segment(low());
    world.fact("the second rung's last segment", |f| low(&f.fact)).await;
    world.fact("the seal", |f| matches!(f.fact, Fact::Seal { .. })).await;
    let facts = world.facts();
    let last_segment = facts.iter().rposition(|f| matches!(f.fact, Fact::Segment(_))).unwrap();
    let seal = facts.iter().position(|f| matches!(f.fact, Fact::Seal { .. })).unwrap();
    assert!(last_segment < seal, "no segment follows the seal");
    world.announce_end();
    idle(&metrics).await;
    node.drain().await;
}
