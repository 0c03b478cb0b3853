//! The state that a job and the task of its child share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millrace_codec::engine::order::{Order, Plan, RungIndex};
use millrace_codec::engine::product::Product;
use tokio::time::Instant;

use super::Ended;
use super::ledger::{Ledger, Violation};
use super::overload::Overload;
use crate::metrics::Metrics;

/// Bytes of orders that may wait for one child: several seconds of the highest rate that ingest takes.
const MAX_QUEUED_BYTES: usize = 64 << 20;
/// Media in flight, in milliseconds, beyond which the transcoder is given up. A worker that takes a stream over has up to the
/// media of its unfinished segments to catch up with.
const MAX_LAG_MS: u64 = 30_000;

/// The state that the job and the task of its child share.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    metrics: Arc<Metrics>,
    started: Instant,
}

#[derive(Debug)]
struct State {
    ledger: Ledger,
    overload: Overload,
    queued_bytes: usize,
    rungs: usize,
    closed: bool,
}

impl Shared {
    pub(super) fn new(plan: &Plan, mut overload: Overload, metrics: Arc<Metrics>) -> Self {
        let started = Instant::now();
        overload.restarted(0);
        metrics.encoder_processes.add(1);
        let shed = overload.shed();
        metrics.rungs_shed.add(shed as i64);
        let state = State {
            ledger: Ledger::new(plan),
            overload,
            queued_bytes: 0,
            rungs: plan.rungs.len(),
            closed: false,
        };
        Self { state: Mutex::new(state), metrics, started }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an order. False if too much waits to take it.
    pub(super) fn take(&self, order: &Order) -> bool {
        let mut state = self.lock();
        state.queued_bytes = state.queued_bytes.saturating_add(media_bytes(order));
        state.ledger.note(order);
        state.queued_bytes <= MAX_QUEUED_BYTES && state.ledger.lag_ms() <= MAX_LAG_MS
    }

    /// Returns the decision about overload, for the next transcoder.
    pub(super) fn overload(&self) -> Overload {
        self.lock().overload.clone()
    }

    /// Notes that an order with so many bytes of media has been written.
    pub(super) fn written(&self, bytes: usize) {
        let mut state = self.lock();
        state.queued_bytes = state.queued_bytes.saturating_sub(bytes);
    }

    /// Checks a product against the orders.
    pub(super) fn check(&self, product: &Product) -> Result<(), Violation> {
        self.lock().ledger.check(product)
    }

    /// True if a flush waits for its answer.
    pub(super) fn is_flushing(&self) -> bool {
        self.lock().ledger.is_flushing()
    }

    /// Looks at the lag; returns the rungs to encode from now on when that changes.
    pub(super) fn sample(&self, now: Instant) -> Option<Vec<RungIndex>> {
        let mut state = self.lock();
        let lag = state.ledger.lag_ms();
        let before = state.overload.shed();
        let now_ms = now.duration_since(self.started).as_millis() as u64;
        if !state.overload.sample(now_ms, lag) {
            return None;
        }
        let (shed, rungs) = (state.overload.shed(), state.rungs);
        self.metrics.rungs_shed.add(shed as i64 - before as i64);
        if shed > before {
            tracing::warn!(
                lag_ms = lag,
                shed,
                rungs,
                "encoding is slower than the source: the highest rung is left out"
            );
        } else {
            tracing::info!(shed, rungs, "encoding keeps up: a rung that was left out is encoded again");
        }
        Some((shed..rungs).map(|rung| RungIndex(rung as u8)).collect())
    }

    /// Counts the end of the child. Its user tells of it, and of what follows.
    pub(super) fn ended(&self, ended: &Ended) {
        self.metrics.encoder_ends.with(&[ended.cause.name()]).inc();
    }

    /// Takes what this child adds to the gauges away, once.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        if !std::mem::replace(&mut state.closed, true) {
            self.metrics.encoder_processes.add(-1);
            self.metrics.rungs_shed.add(-(state.overload.shed() as i64));
        }
    }
}

/// Returns the bytes of media that an order carries.
pub(super) fn media_bytes(order: &Order) -> usize {
    match order {
        Order::Picture(picture) => picture.data.len(),
        Order::Sound(sound) => sound.data.len(),
        Order::Start(_) | Order::VideoConfig(_) | Order::AudioConfig(_) | Order::Encode(_) | Order::Flush => {
            0
        }
    }
}
