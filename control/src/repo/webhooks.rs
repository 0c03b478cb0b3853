//! The records of webhooks, of the deliveries that wait, and of dead letters.

use std::time::Duration;

use millrace_state::{Record, SCAN_PAGE, Tx, Version, scan_all};
use millrace_wire::ids::{StreamId, UnixMillis};
use millrace_wire::message::control::LifecycleEvent;
use millrace_wire::state_keys;
use serde::{Deserialize, Serialize};

use super::outbox::OutboxEntry;
use super::{Repo, RepoError, Versioned, json, read, retry};
use crate::domain::delivery::{DeliveryKey, Progress, Verdict};
use crate::domain::webhook::{MAX_WEBHOOKS, Webhook, WebhookId};

/// A dead letter is kept as long as the journal keeps its event.
const DEAD_LETTER_TTL: Duration = Duration::from_hours(7 * 24);

/// Deliveries that a control which begins to lead reads; far above what [`crate::domain::webhook::MAX_QUEUE`] lets a few
/// endpoints keep waiting.
const MAX_DELIVERIES: usize = 200_000;

/// The newest attempt of a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastAttempt {
    pub(crate) at: UnixMillis,
    /// The status of the answer; `None` without one.
    pub(crate) status: Option<u16>,
    /// The failure in words.
    pub(crate) error: String,
}

/// A delivery that waits, or a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeliveryRecord {
    pub(crate) event: LifecycleEvent,
    pub(crate) progress: Progress,
    pub(crate) last: Option<LastAttempt>,
}

/// The place of deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeliveryState {
    Pending,
    Dead,
}

impl DeliveryState {
    fn prefix(self, webhook: &WebhookId) -> String {
        match self {
            Self::Pending => state_keys::deliveries(webhook.as_str()),
            Self::Dead => state_keys::dead_letters(webhook.as_str()),
        }
    }
}

fn pending_key(key: &DeliveryKey) -> String {
    state_keys::delivery(key.endpoint.as_str(), key.stream, key.sequence)
}

fn dead_key(key: &DeliveryKey) -> String {
    state_keys::dead_letter(key.endpoint.as_str(), key.stream, key.sequence)
}

impl Repo {
    pub(crate) async fn webhook(&self, id: &WebhookId) -> Result<Option<Versioned<Webhook>>, RepoError> {
        self.load(&state_keys::webhook(id.as_str())).await
    }

    /// Returns all webhooks, in the order of their creation.
    pub(crate) async fn webhooks(&self) -> Result<Vec<Webhook>, RepoError> {
        let records = scan_all(self.state(), state_keys::WEBHOOKS, MAX_WEBHOOKS).await?;
        records.iter().map(|record| read(&record.key, &record.value)).collect()
    }

    /// Stores a new webhook.
    pub(crate) async fn create_webhook(&self, webhook: &Webhook) -> Result<(), RepoError> {
        let key = state_keys::webhook(webhook.id.as_str());
        self.state.commit(Tx::new().check(key.clone(), None).put(key, json(webhook))).await?;
        Ok(())
    }

    /// Changes a webhook; `None` if there is none.
    pub(crate) async fn change_webhook(
        &self,
        id: &WebhookId,
        change: impl Fn(&mut Webhook),
    ) -> Result<Option<Webhook>, RepoError> {
        retry!({
            let Some(Versioned { value: mut webhook, version }) = self.webhook(id).await? else {
                return Ok(None);
            };
            change(&mut webhook);
            let key = state_keys::webhook(id.as_str());
            self.state.commit(Tx::new().check(key.clone(), Some(version)).put(key, json(&webhook))).await?;
            Ok(Some(webhook))
        })
    }

    /// Deletes a webhook with everything that waits for it.
    pub(crate) async fn delete_webhook(&self, id: &WebhookId) -> Result<(), RepoError> {
        self.state.commit(Tx::new().delete(state_keys::webhook(id.as_str()))).await?;
        self.delete_prefix(&DeliveryState::Pending.prefix(id)).await?;
        self.delete_prefix(&DeliveryState::Dead.prefix(id)).await
    }

    /// Moves an event out of the outbox into the queues of webhooks, or among the dead letters of those whose queue is full, in
    /// one transaction. Returns false if the event is no longer in the outbox: another control has moved it.
    pub(crate) async fn fan_out(
        &self,
        entry: &Versioned<OutboxEntry>,
        queues: &[(WebhookId, DeliveryState)],
        now: UnixMillis,
    ) -> Result<bool, RepoError> {
        let event = &entry.value.event;
        let outbox = state_keys::outbox_event(event.stream, event.sequence);
        let mut tx = Tx::new().check(outbox.clone(), Some(entry.version)).delete(outbox);
        for (webhook, state) in queues {
            let key =
                DeliveryKey { endpoint: webhook.clone(), stream: event.stream, sequence: event.sequence };
            let last = (*state == DeliveryState::Dead).then(|| LastAttempt {
                at: now,
                status: None,
                error: "too many events wait for the webhook".to_owned(),
            });
            let record = json(&DeliveryRecord { event: event.clone(), progress: Progress::new(now), last });
            tx = match state {
                DeliveryState::Pending => tx.put(pending_key(&key), record),
                DeliveryState::Dead => tx.put_ttl(dead_key(&key), record, DEAD_LETTER_TTL),
            };
        }
        match self.state.commit(tx).await {
            Ok(_) => Ok(true),
            Err(millrace_state::StateError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) async fn delivery(
        &self,
        key: &DeliveryKey,
    ) -> Result<Option<Versioned<DeliveryRecord>>, RepoError> {
        self.load(&pending_key(key)).await
    }

    /// Returns the progress of all deliveries that wait, or of those of one webhook.
    pub(crate) async fn pending_deliveries(
        &self,
        webhook: Option<&WebhookId>,
    ) -> Result<Vec<(DeliveryKey, Progress)>, RepoError> {
        let prefix = webhook.map(|id| DeliveryState::Pending.prefix(id));
        let prefix = prefix.as_deref().unwrap_or(state_keys::DELIVERIES);
        let records = scan_all(self.state(), prefix, MAX_DELIVERIES).await?;
        let mut found = Vec::with_capacity(records.len());
        for Record { key, value, .. } in records {
            let record: DeliveryRecord = read(&key, &value)?;
            let endpoint = key.strip_prefix(state_keys::DELIVERIES).and_then(|key| key.split(':').next());
            let Some(Ok(endpoint)) = endpoint.map(str::parse) else { continue };
            let (stream, sequence) = (record.event.stream, record.event.sequence);
            found.push((DeliveryKey { endpoint, stream, sequence }, record.progress));
        }
        Ok(found)
    }

    /// Stores the verdict on an attempt over the version that the attempt was made from. Returns false if the record has changed
    /// since: another control attempts it, or its webhook was deleted.
    pub(crate) async fn settle_delivery(
        &self,
        key: &DeliveryKey,
        (record, version): (&DeliveryRecord, Version),
        verdict: &Verdict,
        last: &LastAttempt,
    ) -> Result<bool, RepoError> {
        let pending = pending_key(key);
        let tx = Tx::new().check(pending.clone(), Some(version));
        let updated = |progress: &Progress| {
            let (event, progress, last) = (record.event.clone(), progress.clone(), Some(last.clone()));
            json(&DeliveryRecord { event, progress, last })
        };
        let tx = match verdict {
            Verdict::Delivered => tx.delete(pending),
            Verdict::Again(progress) => tx.put(pending, updated(progress)),
            Verdict::Dead => {
                tx.delete(pending).put_ttl(dead_key(key), updated(&record.progress), DEAD_LETTER_TTL)
            }
        };
        match self.state.commit(tx).await {
            Ok(_) => Ok(true),
            Err(millrace_state::StateError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns up to `limit` deliveries of a webhook behind `after`, in the order of livestreams and events.
    pub(crate) async fn deliveries(
        &self,
        webhook: &WebhookId,
        state: DeliveryState,
        after: Option<(StreamId, u64)>,
        limit: usize,
    ) -> Result<Vec<DeliveryRecord>, RepoError> {
        let after = after.map(|(stream, sequence)| {
            let key = DeliveryKey { endpoint: webhook.clone(), stream, sequence };
            if state == DeliveryState::Dead { dead_key(&key) } else { pending_key(&key) }
        });
        let records = self.state.scan(&state.prefix(webhook), after.as_deref(), limit.min(SCAN_PAGE)).await?;
        records.iter().map(|record| read(&record.key, &record.value)).collect()
    }

    /// Moves a dead letter back among the deliveries that wait; returns false if there is none.
    pub(crate) async fn replay(&self, key: &DeliveryKey, now: UnixMillis) -> Result<bool, RepoError> {
        retry!({
            let dead = dead_key(key);
            let Some(Versioned { value: letter, version }) = self.load::<DeliveryRecord>(&dead).await? else {
                return Ok(false);
            };
            let record = DeliveryRecord { progress: Progress::new(now), ..letter };
            let tx = Tx::new().check(dead.clone(), Some(version)).delete(dead);
            self.state.commit(tx.put(pending_key(key), json(&record))).await?;
            Ok(true)
        })
    }
}
