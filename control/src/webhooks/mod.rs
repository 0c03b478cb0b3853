//! Webhooks: the commands that change them, and the engine that delivers events to them.
//!
//! ```text
//! outbox ──▶ journal MILLRACE_EVENTS ──▶ fan-out ──▶ deliveries in the state store ──▶ engine ──▶ endpoints
//! ```
//!
//! The control that leads runs fan-out and engine. The state store decides which control moves an event or a delivery on, so
//! a change of the leader loses nothing, and delivers twice only what was under way.

mod configured;
mod engine;
mod fan_out;
mod sender;

use std::sync::Arc;
use std::time::Duration;

use millrace_outgoing::Destinations;
use millrace_runtime::Secret;
use millrace_wire::ids::UnixMillis;
use millrace_wire::message::lifecycle::WebhookNotice;
use millrace_wire::{to_hex, topics};
use rand::Rng as _;
use serde_json::{Value, json};
use tracing::debug;
use ulid::Ulid;

pub(crate) use self::configured::Configured;
pub(crate) use self::engine::run;
pub(crate) use self::sender::{Attempted, Sender};
use crate::audit::{Audit, AuditEntry, AuditOutcome, Caller, Change, Command, Target};
use crate::context::Services;
use crate::domain::access::{Owner, Role};
use crate::domain::delivery::DeliveryKey;
use crate::domain::event::PublicEvent;
use crate::domain::validate::FieldError;
use crate::domain::webhook::{Create, Update, Webhook, WebhookId, reached_limit};
use crate::repo::{DeliveryRecord, DeliveryState, RepoError};

/// The reason a command on webhooks was not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WebhookError {
    /// The webhook, or the delivery, does not exist, or the caller may not see it.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// Fields of the request break rules.
    #[error("invalid: {}", FieldError::list(.0))]
    Invalid(Vec<FieldError>),
    /// There are as many webhooks as allowed.
    #[error("there are {0} webhooks already, which is the limit")]
    TooMany(usize),
    /// The webhook cannot be sent to.
    #[error("{0}")]
    Unusable(String),
    /// The state store failed.
    #[error(transparent)]
    Repo(#[from] RepoError),
}

/// The prefix by which a secret of webhooks is recognised.
const SECRET_PREFIX: &str = "whsec_";

/// The commands on webhooks.
pub(crate) struct Webhooks {
    services: Arc<Services>,
    audit: Arc<dyn Audit>,
    sender: Sender,
    configured: Configured,
}

impl Webhooks {
    pub(crate) fn new(
        services: Arc<Services>,
        audit: Arc<dyn Audit>,
        sender: Sender,
        configured: Configured,
    ) -> Self {
        Self { services, audit, sender, configured }
    }

    /// Returns the owner whose webhooks alone the caller sees; `None` for operators, who see all.
    fn owner_of(caller: &Caller) -> Result<Option<Owner>, WebhookError> {
        match caller.identity() {
            Some(identity) if identity.role >= Role::Operator => Ok(None),
            Some(identity) if identity.owner.is_some() => Ok(identity.owner.clone()),
            _ => Err(WebhookError::NotFound("webhook")),
        }
    }

    /// Returns the addresses that URLs of webhooks of this owner may lead to.
    fn destinations(owner: Option<&Owner>) -> Destinations {
        if owner.is_some() { Destinations::Public } else { Destinations::Any }
    }

    /// Returns the webhooks that the caller sees, those of the configuration first.
    pub(crate) async fn list(&self, caller: &Caller) -> Result<Vec<Webhook>, WebhookError> {
        let owner = Self::owner_of(caller)?;
        let configured = self.configured.webhooks().filter(|_| owner.is_none()).cloned();
        let stored = self.services.repo.webhooks().await?;
        let sees = |webhook: &Webhook| owner.is_none() || webhook.owner == owner;
        Ok(configured.chain(stored.into_iter().filter(sees)).collect())
    }

    /// Returns a webhook that the caller sees.
    pub(crate) async fn get(&self, caller: &Caller, id: &WebhookId) -> Result<Webhook, WebhookError> {
        let owner = Self::owner_of(caller)?;
        if let Some(webhook) = self.configured.webhooks().find(|webhook| webhook.id == *id && owner.is_none())
        {
            return Ok(webhook.clone());
        }
        let found = self.services.repo.webhook(id).await?.map(|found| found.value);
        let seen = found.filter(|webhook| owner.is_none() || webhook.owner == owner);
        seen.ok_or(WebhookError::NotFound("webhook"))
    }

    /// Creates a webhook with a new secret, which is returned here and never again.
    pub(crate) async fn create(
        &self,
        caller: &Caller,
        request: &Create,
    ) -> Result<(Webhook, String), WebhookError> {
        let mut change = Change::default();
        let create = async {
            let owner = Self::owner_of(caller)?;
            request.check(Self::destinations(owner.as_ref())).map_err(WebhookError::Invalid)?;
            let all = self.services.repo.webhooks().await?;
            if let Some(limit) = reached_limit(owner.as_ref(), &all) {
                return Err(WebhookError::TooMany(limit));
            }
            if let Some(stream) = request.stream
                && !caller.owns(self.services.repo.stream(stream).await?.value.owner.as_ref())
            {
                return Err(RepoError::NotFound.into());
            }
            let now = self.services.wall_clock();
            let id = new_id(now);
            let (secret, sealed) = self.new_secret(&id)?;
            let mut webhook = Webhook {
                id,
                owner,
                url: request.url.trim().to_owned(),
                description: request.description.clone(),
                events: request.events.clone(),
                stream: request.stream,
                enabled: request.enabled,
                secrets: Vec::new(),
                created_at: now,
            };
            webhook.rotate(sealed, now);
            self.services.repo.create_webhook(&webhook).await?;
            change = Change::between(None, Some(shown(&webhook)));
            Ok((webhook, secret))
        };
        let created = create.await;
        let id = created.as_ref().ok().map(|(webhook, _)| webhook.id.clone());
        self.audited((caller, Command::CreateWebhook, id), change, created)
    }

    /// Changes fields of a webhook.
    pub(crate) async fn update(
        &self,
        caller: &Caller,
        id: &WebhookId,
        request: Update,
    ) -> Result<Webhook, WebhookError> {
        let mut change = Change::default();
        let update = async {
            let current = self.stored(caller, id).await?;
            let destinations = Self::destinations(current.owner.as_ref());
            let changes = request.check(destinations).map_err(WebhookError::Invalid)?;
            let changed = self.services.repo.change_webhook(id, |webhook| changes.apply(webhook)).await?;
            let changed = changed.ok_or(WebhookError::NotFound("webhook"))?;
            change = Change::between(Some(shown(&current)), Some(shown(&changed)));
            Ok(changed)
        };
        let updated = update.await;
        self.audited((caller, Command::UpdateWebhook, Some(id.clone())), change, updated)
    }

    /// Gives a webhook a new secret, which is returned here and never again. The old one signs beside it for a day.
    pub(crate) async fn rotate(
        &self,
        caller: &Caller,
        id: &WebhookId,
    ) -> Result<(Webhook, String), WebhookError> {
        let rotate = async {
            self.stored(caller, id).await?;
            let (secret, sealed) = self.new_secret(id)?;
            let now = self.services.wall_clock();
            let rotate = |webhook: &mut Webhook| webhook.rotate(sealed.clone(), now);
            let changed = self.services.repo.change_webhook(id, rotate).await?;
            Ok((changed.ok_or(WebhookError::NotFound("webhook"))?, secret))
        };
        let rotated = rotate.await;
        self.audited((caller, Command::RotateWebhookSecret, Some(id.clone())), Change::default(), rotated)
    }

    /// Deletes a webhook with everything that waits for it.
    pub(crate) async fn delete(&self, caller: &Caller, id: &WebhookId) -> Result<(), WebhookError> {
        let mut change = Change::default();
        let delete = async {
            let webhook = self.stored(caller, id).await?;
            change = Change::between(Some(shown(&webhook)), None);
            Ok(self.services.repo.delete_webhook(id).await?)
        };
        let deleted = delete.await;
        self.audited((caller, Command::DeleteWebhook, Some(id.clone())), change, deleted)
    }

    /// Sends a test event to a webhook at once, and returns what came of it.
    pub(crate) async fn test(&self, caller: &Caller, id: &WebhookId) -> Result<Attempted, WebhookError> {
        let test = async {
            let webhook = self.get(caller, id).await?;
            let now = self.services.wall_clock();
            let endpoint = match self.configured.endpoint(id) {
                Some(endpoint) => endpoint,
                None => self.sender.endpoint(&webhook, now).map_err(WebhookError::Unusable)?,
            };
            let event = PublicEvent::test(format!("test-{}", Ulid::new()), now, id.as_str());
            Ok(self.sender.post(&endpoint, &event, 1, now).await)
        };
        let tested = test.await;
        self.audited((caller, Command::TestWebhook, Some(id.clone())), Change::default(), tested)
    }

    /// Returns deliveries of a webhook.
    pub(crate) async fn deliveries(
        &self,
        caller: &Caller,
        id: &WebhookId,
        state: DeliveryState,
        after: Option<(millrace_wire::ids::StreamId, u64)>,
        limit: usize,
    ) -> Result<Vec<DeliveryRecord>, WebhookError> {
        self.get(caller, id).await?;
        Ok(self.services.repo.deliveries(id, state, after, limit).await?)
    }

    /// Delivers a dead letter again.
    pub(crate) async fn replay(&self, caller: &Caller, key: &DeliveryKey) -> Result<(), WebhookError> {
        let replay = async {
            self.get(caller, &key.endpoint).await?;
            if !self.services.repo.replay(key, self.services.wall_clock()).await? {
                return Err(WebhookError::NotFound("dead delivery"));
            }
            let notice = WebhookNotice { webhook: key.endpoint.as_str().to_owned() };
            if let Err(error) = self.services.link.publish(&topics::webhooks(), &notice) {
                debug!(%error, "notice of a replayed delivery not published; the delivery is found later");
            }
            Ok(())
        };
        let replayed = replay.await;
        let id = Some(key.endpoint.clone());
        self.audited((caller, Command::ReplayDelivery, id), Change::default(), replayed)
    }

    /// Returns a stored webhook that the caller may change.
    async fn stored(&self, caller: &Caller, id: &WebhookId) -> Result<Webhook, WebhookError> {
        if self.configured.endpoint(id).is_some() {
            let text = "the webhook is part of the configuration, and changes with it";
            return Err(WebhookError::Unusable(text.to_owned()));
        }
        self.get(caller, id).await
    }

    /// Returns a new secret and its sealed text.
    fn new_secret(&self, id: &WebhookId) -> Result<(String, String), WebhookError> {
        let bytes: [u8; 32] = rand::rng().random();
        let secret = Secret::new(format!("{SECRET_PREFIX}{}", to_hex(&bytes)));
        let sealed = self.sender.sealer().seal(id.as_str(), secret.expose());
        let sealed =
            sealed.ok_or_else(|| WebhookError::Unusable("the secret cannot be sealed".to_owned()))?;
        Ok((secret.expose().clone(), sealed))
    }

    fn audited<T>(
        &self,
        (caller, command, id): (&Caller, Command, Option<WebhookId>),
        change: Change,
        result: Result<T, WebhookError>,
    ) -> Result<T, WebhookError> {
        let outcome = match &result {
            Ok(_) => AuditOutcome::Done,
            Err(WebhookError::Repo(error)) => AuditOutcome::Failed(error.to_string()),
            Err(refusal) => AuditOutcome::Refused(refusal.to_string()),
        };
        let target = id.map(Target::Webhook);
        self.audit.record(&AuditEntry { caller, command, stream: None, target, outcome: &outcome, change });
        result
    }
}

/// Returns the fields of a webhook that the audit shows. A URL may carry a key: its origin alone is shown.
fn shown(webhook: &Webhook) -> Value {
    let origin = webhook.url.parse::<millrace_outgoing::Target>().map(|target| target.origin());
    let Webhook { owner, description, events, stream, enabled, .. } = webhook;
    json!({ "owner": owner, "url": origin.unwrap_or_default(), "description": description, "events": events,
        "stream": stream, "enabled": enabled })
}

fn new_id(now: UnixMillis) -> WebhookId {
    let time = std::time::UNIX_EPOCH + Duration::from_millis(now.0);
    // A ULID keeps the rules of ids.
    Ulid::from_datetime(time).to_string().parse().unwrap_or_else(|_| WebhookId::configured())
}
