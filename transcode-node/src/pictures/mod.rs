//! Pictures of streams that are copied only: a keyframe every ten seconds is decoded in one child process for all streams of the
//! node.
//!
//! The child gets one keyframe at a time and rests after each, so that pictures take a bounded share of a core. What comes while
//! the queue is full is left out: the stream keeps its older picture. A stream whose keyframes end the child is left out for the
//! rest of its job.

mod sampler;

use std::future::poll_fn;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use millrace_codec::engine::order::{Order, Plan, Slot, SourcePicture};
use millrace_codec::engine::product::Product;
use millrace_runtime::ActorContext;
use millrace_wire::ids::UnixMillis;
use tokio::sync::{Mutex as AsyncMutex, mpsc};

pub(crate) use self::sampler::{Sampler, Snapshot};
use crate::encoders::{EncoderFactory, Encoders, Event};
use crate::metrics::Metrics;

/// Keyframes that may wait: a second's worth at the rate of the budget.
const QUEUE: usize = 32;
/// The child rests this many times as long as a picture took: pictures take at most a fifth of a core.
const REST: u32 = 4;
/// The longest time one picture may take, the start of the child on a busy machine included; a slower child is given up.
const LIMIT: Duration = Duration::from_secs(15);
/// The pause after the end of a child.
const PAUSE: Duration = Duration::from_secs(2);
/// A stream whose keyframes have ended the child so often gets no further pictures from this job.
const MAX_FAILURES: u32 = 3;
/// 90 kHz ticks between two pictures of the child, which makes one for each keyframe.
const STEP: i64 = 20 * 90_000;

/// The place of one stream's newest picture.
#[derive(Debug, Clone, Default)]
pub(crate) struct PictureSlot(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    newest: Mutex<Option<Bytes>>,
    failures: AtomicU32,
}

impl PictureSlot {
    /// Returns the newest picture, if there is one since the last call.
    pub(crate) fn take(&self) -> Option<Bytes> {
        self.0.newest.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, jpeg: Bytes) {
        *self.0.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(jpeg);
    }

    fn failed(&self) {
        self.0.failures.fetch_add(1, Ordering::Relaxed);
    }

    fn is_left_out(&self) -> bool {
        self.0.failures.load(Ordering::Relaxed) >= MAX_FAILURES
    }
}

/// A sheet of small pictures, which grows by one tile at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sheet {
    /// Its number within the job.
    pub number: u32,
    /// The tiles it has.
    pub tiles: u8,
    /// Wall clock of its first tile, as playlists give it.
    pub first: UnixMillis,
    /// The JPEG file.
    pub jpeg: Bytes,
}

#[derive(Debug)]
struct Request {
    snapshot: Snapshot,
    slot: PictureSlot,
}

/// The pictures of a node's copied streams.
#[derive(Debug, Clone)]
pub(crate) struct PictureService {
    requests: mpsc::Sender<Request>,
    queue: Arc<AsyncMutex<mpsc::Receiver<Request>>>,
    factory: Arc<dyn EncoderFactory>,
    metrics: Arc<Metrics>,
}

impl PictureService {
    /// Creates the service; [`PictureService::run`] makes the pictures.
    pub(crate) fn new(factory: Arc<dyn EncoderFactory>, metrics: Arc<Metrics>) -> Self {
        let (requests, queue) = mpsc::channel(QUEUE);
        Self { requests, queue: Arc::new(AsyncMutex::new(queue)), factory, metrics }
    }

    /// Asks for a picture of a keyframe, which comes into `slot`. Returns at once; a keyframe for which there is no room is left
    /// out.
    pub(crate) fn ask(&self, snapshot: Snapshot, slot: &PictureSlot) {
        let request = Request { snapshot, slot: slot.clone() };
        if slot.is_left_out() || self.requests.try_send(request).is_err() {
            self.metrics.pictures.with(&["left_out"]).inc();
        }
    }

    /// Makes pictures until the actor is stopped.
    pub(crate) async fn run(self, actor: ActorContext) -> anyhow::Result<()> {
        actor.status.set_state("making pictures of copied streams");
        let mut queue = self.queue.lock().await;
        let mut child = Child::new(&*self.factory);
        loop {
            let request = tokio::select! {
                request = queue.recv() => request,
                () = actor.stop.cancelled() => None,
            };
            let Some(Request { snapshot, slot }) = request else { return Ok(()) };
            let begin = Instant::now();
            let picture = tokio::time::timeout(LIMIT, child.picture(snapshot)).await;
            let pause = match picture {
                Ok(Ok(jpeg)) => {
                    let outcome = if jpeg.is_some() { "made" } else { "none" };
                    self.metrics.pictures.with(&[outcome]).inc();
                    if let Some(jpeg) = jpeg {
                        slot.put(jpeg);
                    }
                    begin.elapsed() * REST
                }
                Ok(Err(reason)) => {
                    tracing::warn!(%reason, "the process that makes pictures has ended; it is started again");
                    self.fail(&slot, &mut child)
                }
                Err(_) => {
                    tracing::warn!("the process that makes pictures is too slow; it is started again");
                    self.fail(&slot, &mut child)
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = actor.stop.cancelled() => return Ok(()),
            }
        }
    }

    fn fail(&self, slot: &PictureSlot, child: &mut Child) -> Duration {
        self.metrics.pictures.with(&["failed"]).inc();
        slot.failed();
        *child = Child::new(&*self.factory);
        PAUSE
    }
}

/// The process that decodes keyframes, one at a time.
#[derive(Debug)]
struct Child {
    encoders: Box<dyn Encoders>,
    plan: Plan,
    next: Option<u64>,
}

impl Child {
    fn new(factory: &dyn EncoderFactory) -> Self {
        let plan = Plan { pictures: true, ..Plan::default() };
        Self { encoders: factory.open(&plan), plan, next: None }
    }

    /// Returns the picture of a keyframe; `None` if it cannot be decoded. An error if the process has ended.
    async fn picture(&mut self, snapshot: Snapshot) -> Result<Option<Bytes>, String> {
        let number = self.next.unwrap_or_default();
        let mut orders = Vec::with_capacity(4);
        if self.next.is_none() {
            orders.push(Order::Start(self.plan.clone()));
        }
        self.next = Some(number + 1);
        let Snapshot { source, data } = snapshot;
        orders.push(Order::VideoConfig(source));
        orders.push(Order::Picture(SourcePicture {
            slot: Slot(number),
            pts: i64::try_from(number).unwrap_or(i64::MAX).saturating_mul(STEP),
            duration: 3_000,
            starts_segment: true,
            independent: true,
            encode: true,
            keyframe: true,
            data,
        }));
        orders.push(Order::Flush);
        for order in orders {
            self.encoders.send(order).map_err(|behind| behind.to_string())?;
        }
        let mut picture = None;
        loop {
            match poll_fn(|context| self.encoders.poll(context)).await {
                Event::Product(Product::Thumbnail { jpeg, .. }) => picture = Some(jpeg),
                Event::Product(Product::Flushed) => return Ok(picture),
                Event::Product(_) | Event::Encode(_) => {}
                Event::Ended(ended) => return Err(ended.to_string()),
            }
        }
    }
}

#[cfg(test)]
mod tests;
