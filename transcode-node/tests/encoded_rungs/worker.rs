//! A worker's job with its rungs, without a bus: what it announces, and what it stores.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use millrace_media::hls::MediaPlaylist;
use millrace_media::hls::checker::{Checker, Violation};
use millrace_protocol::job::{Input, Output, Packaged, WorkerJob};
use millrace_protocol::log::writer::EncodedMessage;
use millrace_protocol::playlist;
use millrace_protocol::state::apply;
use millrace_protocol::{Machine, Millis};
use millrace_transcode::encoders::EncoderFactory;
use millrace_transcode::rungs::{BuiltInRungs, Rung, RungFactory};
use millrace_wire::fact::{EpochOpen, Fact, FactMessage, FactReader, Segment, StreamState};
use millrace_wire::ids::*;
use millrace_wire::message::control::StreamSettings;
use millrace_wire::message::job::Grant;
use millrace_wire::message::media::MediaMessage;

use super::source::{EPOCH, open, plan};

/// Returns settings with encoded rungs of these heights.
pub fn settings(heights: &[u32]) -> StreamSettings {
    StreamSettings { window: 600, target_duration: 4, plan: plan(heights), ..StreamSettings::default() }
}

/// The generation of a grant, and the messages that it begins with.
#[derive(Debug, Clone, Copy)]
struct Place {
    generation: u64,
    resume_from: u64,
    pre_roll_from: Option<u64>,
}

/// A job of one generation.
pub struct Worker {
    pub job: WorkerJob,
    pub rungs: Vec<Box<dyn Rung>>,
    pub facts: Vec<FactMessage>,
    /// The stored objects.
    pub stored: BTreeMap<(Rendition, Msn), (Segment, Bytes)>,
    reader: FactReader,
    factory: BuiltInRungs,
    now: u64,
}

impl Worker {
    pub fn new(encoders: Arc<dyn EncoderFactory>, settings: StreamSettings) -> Self {
        Self::granted(encoders, settings, (1, 0), apply::empty(open().broadcast))
    }

    /// Returns the worker that is granted a generation on what `base` lists, from a message on.
    pub fn granted(
        encoders: Arc<dyn EncoderFactory>,
        settings: StreamSettings,
        (generation, resume_from): (u64, u64),
        base: StreamState,
    ) -> Self {
        let plan = settings.plan.clone();
        Self::granted_in(encoders, settings, (generation, resume_from), base, EpochOpen { plan, ..open() })
    }

    /// Returns the worker that is granted a generation as [`Worker::granted`] has it, whose encoders decode from message
    /// `pre_roll_from` on.
    pub fn granted_behind(
        encoders: Arc<dyn EncoderFactory>,
        settings: StreamSettings,
        (generation, resume_from, pre_roll_from): (u64, u64, u64),
        base: StreamState,
    ) -> Self {
        let place = Place { generation, resume_from, pre_roll_from: Some(pre_roll_from) };
        let plan = settings.plan.clone();
        Self::start(encoders, settings, place, base, EpochOpen { plan, ..open() })
    }

    /// Returns the worker that is granted a generation of an epoch whose numbers and plan are `open`.
    pub fn granted_in(
        encoders: Arc<dyn EncoderFactory>,
        settings: StreamSettings,
        (generation, resume_from): (u64, u64),
        base: StreamState,
        open: EpochOpen,
    ) -> Self {
        let place = Place { generation, resume_from, pre_roll_from: None };
        Self::start(encoders, settings, place, base, open)
    }

    fn start(
        encoders: Arc<dyn EncoderFactory>,
        settings: StreamSettings,
        place: Place,
        base: StreamState,
        open: EpochOpen,
    ) -> Self {
        let factory = BuiltInRungs::new(encoders);
        let ids = factory.rungs(&settings);
        let rungs = ids.iter().map(|id| factory.start(id, &settings, &open, &base)).collect();
        let grant = Grant {
            stream: StreamId::from_u128(9),
            playback: "00112233445566778899aabbccddeeff".parse().unwrap(),
            session: SessionId::from_u128(5),
            epoch: EPOCH,
            generation: Generation(place.generation),
            open,
            cost: 1,
            base,
            resume_from: MediaSeq(place.resume_from),
            pre_roll_from: place.pre_roll_from.map(MediaSeq),
            settings,
        };
        let node = "worker-a".parse().unwrap();
        let job = WorkerJob::new(Millis(0), grant, node, ids.into_iter().collect(), 1 << 20, 1).unwrap();
        let mut worker = Self {
            job,
            rungs,
            facts: Vec::new(),
            stored: BTreeMap::new(),
            reader: FactReader::default(),
            factory,
            now: 0,
        };
        worker.execute();
        worker
    }

    /// Hands a message of the session in.
    pub fn feed(&mut self, message: &MediaMessage) {
        self.now += 1;
        self.input(Input::Media(message.clone()));
        self.poll();
    }

    /// Hands all messages in.
    pub fn feed_all(&mut self, messages: &[MediaMessage]) {
        for message in messages {
            self.feed(message);
        }
    }

    fn input(&mut self, input: Input) {
        self.job.handle(Millis(self.now), input).unwrap();
        self.execute();
    }

    /// Takes what the rungs have made.
    pub fn poll(&mut self) {
        while let Some((id, packaged)) = self.next() {
            self.input(Input::Packaged(id, packaged));
        }
    }

    /// Takes what the rungs make until `is_done`.
    pub fn wait(&mut self, what: &str, is_done: impl Fn(&Self) -> bool) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_mins(1);
        while !is_done(self) {
            assert!(std::time::Instant::now() < deadline, "not in time: {what}");
            std::thread::sleep(std::time::Duration::from_millis(2));
            self.poll();
        }
    }

    fn next(&mut self) -> Option<(RungId, Packaged)> {
        let mut context = Context::from_waker(Waker::noop());
        self.rungs.iter_mut().find_map(|rung| match rung.poll(&mut context) {
            Poll::Ready(packaged) => Some((rung.id().clone(), packaged)),
            Poll::Pending => None,
        })
    }

    fn execute(&mut self) {
        while let Some(output) = self.job.poll_output() {
            match output {
                Output::Publish(EncodedMessage::Live(fragments)) => {
                    for fragment in fragments {
                        self.facts.extend(self.reader.push(fragment).unwrap());
                    }
                }
                Output::PreRoll(units) => self.rungs.iter_mut().for_each(|rung| rung.pre_roll(&units)),
                Output::Package(message) => self.rungs.iter_mut().for_each(|rung| rung.push(message.clone())),
                Output::RestartRung(id) => {
                    let grant = self.job.grant().clone();
                    let base = self.job.snapshot().unwrap_or(&grant.base).clone();
                    let rung = self.rungs.iter_mut().find(|rung| *rung.id() == id).unwrap();
                    *rung = self.factory.start(&id, &grant.settings, &grant.open, &base);
                }
                Output::Flush(id) => {
                    self.rungs.iter_mut().filter(|rung| *rung.id() == id).for_each(|rung| rung.finish());
                }
                Output::Upload(segment, body) => {
                    let key = (segment.rendition.clone(), segment.msn);
                    let old = self.stored.insert(key.clone(), (segment, body.contiguous()));
                    assert!(old.is_none(), "{key:?} stored twice");
                    self.job.handle(Millis(self.now), Input::Stored(key.0, key.1)).unwrap();
                }
                _ => {}
            }
        }
    }

    /// Returns the state that readers fold.
    pub fn state(&self) -> StreamState {
        self.job.snapshot().cloned().unwrap_or_else(|| {
            let mut state = apply::empty(open().broadcast);
            (state.epoch, state.generation) = (EPOCH, self.job.grant().generation);
            for fact in &self.facts {
                apply::apply(&mut state, fact.seq, &fact.fact);
            }
            state
        })
    }

    pub fn is_sealed(&self) -> bool {
        self.facts.iter().any(|fact| matches!(fact.fact, Fact::Seal { .. }))
    }

    /// Returns the parts of a rendition, each with its bytes.
    pub fn parts(&self, rendition: &Rendition) -> Vec<(millrace_wire::fact::Part, Bytes)> {
        let parts = self.facts.iter().filter_map(|fact| match &fact.fact {
            Fact::Part(part) if part.rendition == *rendition => Some((part.clone(), fact.payload.clone())),
            _ => None,
        });
        parts.collect()
    }

    /// Returns the initialisation section of a rendition, of which there must be one.
    pub fn init(&self, rendition: &Rendition) -> Bytes {
        let inits = self.facts.iter().filter_map(|fact| match &fact.fact {
            Fact::Init { rendition: name, .. } if name == rendition => Some(fact.payload.clone()),
            _ => None,
        });
        let inits: Vec<Bytes> = inits.collect();
        assert!(
            !inits.is_empty() && inits.iter().all(|init| *init == inits[0]),
            "{rendition}: {}",
            inits.len()
        );
        inits[0].clone()
    }

    /// Returns the gaps of a rendition.
    pub fn gaps(&self, rendition: &Rendition) -> Vec<u64> {
        let gaps = self.facts.iter().filter_map(|fact| match &fact.fact {
            Fact::RenditionGap(gap) if gap.rendition == *rendition => Some(gap.msn.0),
            _ => None,
        });
        gaps.collect()
    }

    /// Returns the numbers and the durations in milliseconds of the complete segments of a rendition.
    pub fn segments(&self, rendition: &Rendition) -> Vec<(u64, u64)> {
        let segments = self.facts.iter().filter_map(|fact| match &fact.fact {
            Fact::Segment(segment) if segment.rendition == *rendition => {
                Some((segment.msn.0, segment.duration.as_millis()))
            }
            _ => None,
        });
        segments.collect()
    }
}

/// Returns the rules that the playlist of a rendition breaks.
pub fn violations(state: &StreamState, rendition: &Rendition) -> Vec<Violation> {
    let (playlist, _) = playlist::media(state, rendition).expect("something to play");
    Checker::new().check(&playlist.render())
}

/// Returns the playlist of a rendition, which must break no rule.
pub fn playlist_of(state: &StreamState, rendition: &Rendition) -> MediaPlaylist {
    let (playlist, _) = playlist::media(state, rendition).expect("something to play");
    let text = playlist.render();
    assert_eq!(Checker::new().check(&text), [], "{rendition}: {text}");
    playlist
}
