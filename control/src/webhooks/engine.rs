//! The engine of the leader: runs the scheduler's attempts as tasks, and stores their verdicts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millrace_runtime::{ActorContext, Backoff};
use millrace_wire::topics;
use rand::Rng as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::fan_out::{FanOut, QUEUED};
use super::sender::Attempted;
use super::{Webhooks, sender};
use crate::domain::delivery::{DeliveryKey, Progress, Scheduler, Verdict, judge};
use crate::domain::event::PublicEvent;
use crate::domain::webhook::WebhookId;
use crate::repo::{LastAttempt, RepoError};

/// Interval at which the leader looks for deliveries it does not know, of which a notice was lost.
const LOOK_EVERY: Duration = Duration::from_mins(1);

/// Longest sleep of the engine: the wall clock, by which deliveries are due, may be set meanwhile.
const MAX_SLEEP: Duration = Duration::from_secs(5);

/// Notices that may wait.
const NOTICES: usize = 64;

/// Shortest and longest pause after the state store failed.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Delivers events while this control leads, until the actor is stopped.
pub(crate) async fn run(webhooks: Arc<Webhooks>, actor: ActorContext) -> anyhow::Result<()> {
    let mut leading = webhooks.services.leading.subscribe();
    loop {
        actor.status.set_state("standby");
        tokio::select! {
            leads = leading.wait_for(|leads| *leads) => drop(leads?),
            () = actor.stop.cancelled() => return Ok(()),
        }
        actor.status.set_state("delivering");
        let mut engine = Engine::new(webhooks.clone());
        tokio::select! {
            result = engine.run(&actor) => result?,
            stands_by = leading.wait_for(|leads| !*leads) => drop(stands_by?),
            () = actor.stop.cancelled() => {}
        }
        engine.stop().await;
    }
}

/// The deliveries that wait, for each webhook.
type Counts = Arc<Mutex<HashMap<WebhookId, usize>>>;

struct Engine {
    webhooks: Arc<Webhooks>,
    scheduler: Scheduler,
    attempts: JoinSet<(DeliveryKey, Option<Verdict>)>,
    counts: Counts,
    /// Ends fan-out.
    stop: CancellationToken,
    fan_out: JoinSet<()>,
}

impl Engine {
    fn new(webhooks: Arc<Webhooks>) -> Self {
        Self {
            webhooks,
            scheduler: Scheduler::default(),
            attempts: JoinSet::new(),
            counts: Counts::default(),
            stop: CancellationToken::new(),
            fan_out: JoinSet::new(),
        }
    }

    async fn run(&mut self, actor: &ActorContext) -> anyhow::Result<()> {
        let services = &self.webhooks.services;
        let mut notices = services.link.subscribe(&topics::webhooks(), NOTICES).await?;
        self.look(None).await;
        let (sender, mut deliveries) = mpsc::channel(QUEUED);
        let counts = self.counts.clone();
        let waiting = move |id: &WebhookId| {
            counts.lock().unwrap_or_else(PoisonError::into_inner).get(id).copied().unwrap_or(0)
        };
        let fan_out =
            FanOut { webhooks: self.webhooks.clone(), deliveries: sender, waiting: Arc::new(waiting) };
        self.fan_out.spawn(fan_out.run(self.stop.clone()));
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.reset();
        loop {
            let pause = self.start_attempts();
            actor.status.set_queue(self.scheduler.total(), Duration::ZERO);
            tokio::select! {
                Some((key, progress)) = deliveries.recv() => self.add(&key, progress),
                Some(attempt) = self.attempts.join_next() => match attempt {
                    Ok((key, verdict)) => self.settle(&key, verdict.as_ref()),
                    Err(error) => anyhow::bail!("an attempt ended by itself: {error}"),
                },
                notice = notices.recv() => match notice {
                    Some(notice) => if let Ok(webhook) = notice.webhook.parse() {
                        self.look(Some(&webhook)).await;
                    },
                    None => anyhow::bail!("the bus ended the subscription to notices of webhooks"),
                },
                _ = look.tick() => self.look(None).await,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Ends fan-out behind the event it moves, and breaks off attempts: their deliveries go on under the next leader.
    async fn stop(mut self) {
        self.stop.cancel();
        self.attempts.shutdown().await;
        while self.fan_out.join_next().await.is_some() {}
    }

    fn add(&mut self, key: &DeliveryKey, progress: Progress) {
        self.scheduler.add(key, progress);
        self.note(&key.endpoint);
    }

    fn settle(&mut self, key: &DeliveryKey, verdict: Option<&Verdict>) {
        self.scheduler.settle(key, verdict);
        self.note(&key.endpoint);
    }

    fn note(&self, endpoint: &WebhookId) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        match self.scheduler.count(endpoint) {
            0 => drop(counts.remove(endpoint)),
            count => drop(counts.insert(endpoint.clone(), count)),
        }
    }

    /// Adds the deliveries in the state store that the scheduler does not know, of all webhooks or of one.
    async fn look(&mut self, webhook: Option<&WebhookId>) {
        let mut backoff = Backoff::new(PAUSE.0, PAUSE.1);
        let pending = loop {
            match self.webhooks.services.repo.pending_deliveries(webhook).await {
                Ok(pending) => break pending,
                Err(error) => {
                    warn!(%error, "failed to read the deliveries of webhooks; will retry");
                    tokio::time::sleep(backoff.next_delay()).await;
                }
            }
        };
        for (key, progress) in pending {
            self.add(&key, progress);
        }
    }

    /// Starts the attempts that are due; returns the time to the next one.
    fn start_attempts(&mut self) -> Duration {
        let now = self.webhooks.services.wall_clock();
        while let Some((key, progress)) = self.scheduler.start(now) {
            let webhooks = self.webhooks.clone();
            self.attempts.spawn(async move {
                let verdict = attempt(&webhooks, &key, &progress).await;
                (key, verdict)
            });
        }
        let next = self.scheduler.next_due().map(|due| Duration::from_millis(due.0.saturating_sub(now.0)));
        next.unwrap_or(MAX_SLEEP).min(MAX_SLEEP)
    }
}

/// Makes one attempt and stores its verdict; `None` if the delivery is gone, or is another control's.
async fn attempt(webhooks: &Webhooks, key: &DeliveryKey, progress: &Progress) -> Option<Verdict> {
    let repo = &webhooks.services.repo;
    let record = until_done(|| repo.delivery(key)).await?;
    let event = PublicEvent::new(&record.value.event);
    let attempted = match endpoint(webhooks, key).await? {
        Ok(endpoint) => {
            let now = webhooks.services.wall_clock();
            webhooks.sender.post(&endpoint, &event, progress.attempts + 1, now).await
        }
        Err(reason) => Attempted::unsent(reason),
    };
    let now = webhooks.services.wall_clock();
    let verdict = judge(now, &record.value.progress, attempted.outcome, rand::rng().random());
    tell(webhooks, key, &event, &attempted, &verdict);
    let last = LastAttempt { at: now, status: attempted.status, error: attempted.error };
    let stored =
        until_done(|| repo.settle_delivery(key, (&record.value, record.version), &verdict, &last)).await;
    stored.then_some(verdict)
}

/// Returns the endpoint of a delivery, or the reason in words why nothing can be sent to it now; `None` if its webhook is gone.
async fn endpoint(webhooks: &Webhooks, key: &DeliveryKey) -> Option<Result<sender::Endpoint, String>> {
    if let Some(endpoint) = webhooks.configured.endpoint(&key.endpoint) {
        return Some(Ok(endpoint));
    }
    let repo = &webhooks.services.repo;
    let Some(webhook) = until_done(|| repo.webhook(&key.endpoint)).await else {
        // Its deletion may have come before the fan-out of this event.
        until_done(|| repo.delete_webhook(&key.endpoint)).await;
        return None;
    };
    if !webhook.value.enabled {
        return Some(Err("the webhook is disabled".to_owned()));
    }
    Some(webhooks.sender.endpoint(&webhook.value, webhooks.services.wall_clock()))
}

fn tell(
    webhooks: &Webhooks,
    key: &DeliveryKey,
    event: &PublicEvent,
    attempted: &Attempted,
    verdict: &Verdict,
) {
    let (webhook, event, error) = (&key.endpoint, event.id(), &attempted.error);
    let outcome = match verdict {
        Verdict::Delivered => "delivered",
        Verdict::Again(_) => "failed",
        Verdict::Dead => "dead",
    };
    webhooks.services.metrics.deliveries.with(&[outcome]).inc();
    match verdict {
        Verdict::Delivered => debug!(%webhook, event, took = ?attempted.took, "event delivered"),
        Verdict::Again(next) => {
            let pause_s = next.due.0.saturating_sub(webhooks.services.wall_clock().0) / 1_000;
            info!(%webhook, event, attempts = next.attempts, pause_s, error, "delivery failed; will retry");
        }
        Verdict::Dead => {
            warn!(%webhook, event, error, "delivery given up after a day; it is kept as a dead letter for a week");
        }
    }
}

/// Repeats an operation of the state store until it succeeds. A record that cannot be read is retried too: a newer control may
/// have written it and lead again soon.
async fn until_done<T, F: Future<Output = Result<T, RepoError>>>(operation: impl Fn() -> F) -> T {
    let mut backoff = Backoff::new(PAUSE.0, PAUSE.1);
    loop {
        match operation().await {
            Ok(done) => return done,
            Err(error) => {
                debug!(%error, "state store failed during a delivery; will retry");
                tokio::time::sleep(backoff.next_delay()).await;
            }
        }
    }
}
