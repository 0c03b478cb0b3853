//! Writing to a journal behind the caller's back: the live path never waits for it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::{BusError, JournalConfig, SharedBus};

/// Facts under way without an acknowledgement: enough for the round trips of a busy node, too few to starve the
/// readers of the same JetStream.
const WINDOW: usize = 128;
/// Facts that may wait: of 200 streams with two renditions over a minute of absence, in about 8 MB.
const CAPACITY: usize = 16_384;
/// A fact is tried at least once, and no more after this time; shorter than [`super::DEDUP_WINDOW`], so that one whose
/// acknowledgement was lost is not kept twice.
const RETRY_LIMIT: Duration = Duration::from_mins(1);
/// Shortest and longest pause between attempts; an election of JetStream takes up to 5 s.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Lost facts are logged together.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// The outcome of writing one fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The journal acknowledged and keeps the fact.
    Stored,
    /// Acknowledged, and was there already: an earlier acknowledgement was lost.
    Known,
    /// Not taken: too many wait.
    Overflow,
    /// Refused, or not acknowledged in a minute.
    GivenUp,
}

impl Outcome {
    /// The name that metrics show.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Known => "known",
            Self::Overflow => "overflow",
            Self::GivenUp => "given_up",
        }
    }
}

type Told = Box<dyn Fn(Outcome) + Send + Sync>;

struct Fact {
    subject: String,
    id: String,
    payload: Bytes,
    since: Instant,
}

#[derive(Default)]
struct Lost {
    count: u64,
    logged: Option<Instant>,
}

struct Shared {
    journal: String,
    told: Told,
    waiting: watch::Sender<usize>,
    lost: Mutex<Lost>,
}

impl Shared {
    fn tell(&self, outcome: Outcome) {
        (self.told)(outcome);
    }

    fn lose(&self, outcome: Outcome, subject: &str, error: Option<&BusError>) {
        self.tell(outcome);
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.count += 1;
        if lost.logged.is_some_and(|at| at.elapsed() < LOG_EVERY) {
            return;
        }
        lost.logged = Some(Instant::now());
        let (journal, count) = (&self.journal, std::mem::take(&mut lost.count));
        let error = error.map(tracing::field::display);
        tracing::warn!(%journal, count, last = subject, why = outcome.name(), error, "facts are not kept");
    }
}

/// Writes facts to one journal; each is tried until it is acknowledged, for a minute. Facts of one subject are kept in the
/// order they were given. Dropped, it goes on with what waits.
pub struct JournalWriter {
    facts: mpsc::Sender<Fact>,
    shared: Arc<Shared>,
}

impl JournalWriter {
    /// Starts a writer that declares the journal itself and reports each fact's outcome to the callback.
    pub fn start(
        bus: SharedBus,
        config: JournalConfig,
        told: impl Fn(Outcome) + Send + Sync + 'static,
    ) -> Self {
        let shared = Arc::new(Shared {
            journal: config.name.clone(),
            told: Box::new(told),
            waiting: watch::Sender::new(0),
            lost: Mutex::default(),
        });
        let (facts, taken) = mpsc::channel(CAPACITY);
        let pen = Pen { bus, config, declared: tokio::sync::Mutex::new(false), shared: shared.clone() };
        tokio::spawn(write_all(pen, taken));
        Self { facts, shared }
    }

    /// Hands a fact over; never waits. A second one of the same `id` within the journal's dedup window changes nothing.
    pub fn append(&self, subject: String, id: String, payload: Bytes) {
        let room = self.shared.waiting.send_if_modified(|waiting| {
            let room = *waiting < CAPACITY;
            *waiting += usize::from(room);
            room
        });
        if !room {
            return self.shared.lose(Outcome::Overflow, &subject, None);
        }
        // Its bound is the same, and its reader ends after this sender.
        let _ = self.facts.try_send(Fact { subject, id, payload, since: Instant::now() });
    }

    /// Waits until nothing waits any more; `false` when `limit` passed first.
    pub async fn flush(&self, limit: Duration) -> bool {
        let mut waiting = self.shared.waiting.subscribe();
        tokio::time::timeout(limit, waiting.wait_for(|waiting| *waiting == 0)).await.is_ok()
    }
}

impl std::fmt::Debug for JournalWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JournalWriter")
            .field("journal", &self.shared.journal)
            .field("waiting", &*self.shared.waiting.borrow())
            .finish_non_exhaustive()
    }
}

async fn write_all(pen: Pen, mut facts: mpsc::Receiver<Fact>) {
    let pen = &pen;
    let mut under_way = FuturesUnordered::new();
    // Subjects under way, each with what waits behind it.
    let mut lanes: HashMap<String, VecDeque<Fact>> = HashMap::new();
    let mut open = true;
    while open || !under_way.is_empty() {
        tokio::select! {
            fact = facts.recv(), if open && under_way.len() < WINDOW => {
                let Some(fact) = fact else {
                    open = false;
                    continue;
                };
                if let Some(lane) = lanes.get_mut(&fact.subject) {
                    lane.push_back(fact);
                } else {
                    lanes.insert(fact.subject.clone(), VecDeque::new());
                    under_way.push(pen.write(fact));
                }
            }
            Some(subject) = under_way.next() => match lanes.get_mut(&subject).and_then(VecDeque::pop_front) {
                Some(next) => under_way.push(pen.write(next)),
                None => drop(lanes.remove(&subject)),
            },
        }
    }
}

struct Pen {
    bus: SharedBus,
    config: JournalConfig,
    declared: tokio::sync::Mutex<bool>,
    shared: Arc<Shared>,
}

impl Pen {
    /// Writes or gives up; the fact's subject.
    async fn write(&self, fact: Fact) -> String {
        match self.until_kept(&fact).await {
            Ok(true) => self.shared.tell(Outcome::Stored),
            Ok(false) => self.shared.tell(Outcome::Known),
            Err(error) => self.shared.lose(Outcome::GivenUp, &fact.subject, Some(&error)),
        }
        self.shared.waiting.send_modify(|waiting| *waiting -= 1);
        fact.subject
    }

    async fn until_kept(&self, fact: &Fact) -> Result<bool, BusError> {
        let mut longest = PAUSE.0;
        loop {
            let error = match self.once(fact).await {
                Ok(new) => return Ok(new),
                Err(error) => error,
            };
            if !error.is_retryable() || fact.since.elapsed() >= RETRY_LIMIT {
                return Err(error);
            }
            tracing::debug!(journal = %self.config.name, %error, "a fact is not acknowledged yet");
            tokio::time::sleep(longest.mul_f64(rand::random_range(0.5..1.0))).await;
            longest = (longest * 2).min(PAUSE.1);
        }
    }

    async fn once(&self, fact: &Fact) -> Result<bool, BusError> {
        {
            let mut declared = self.declared.lock().await;
            if !*declared {
                self.bus.journal_declare(&self.config).await?;
                *declared = true;
            }
        }
        let kept =
            self.bus.journal_append(&self.config.name, &fact.subject, &fact.id, fact.payload.clone()).await;
        if matches!(kept, Err(BusError::NoResponders { .. })) {
            // JetStream is away, or has lost the journal.
            *self.declared.lock().await = false;
        }
        kept
    }
}
