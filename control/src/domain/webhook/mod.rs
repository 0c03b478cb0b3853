//! Webhooks: the endpoints that events are delivered to, the rules for them, and the signature of a delivery.

mod request;
mod signature;

use std::fmt;
use std::str::FromStr;

use millrace_wire::ids::{StreamId, UnixMillis};
use millrace_wire::message::control::LifecycleEvent;
use serde::{Deserialize, Serialize};

pub use self::request::{Changes, Create, MAX_DESCRIPTION_CHARS, MAX_URL_CHARS, Update};
pub use self::signature::{sign, signature_header};
use super::access::Owner;

/// Webhooks of one owner: more endpoints than that are an event bus of their own.
pub const MAX_PER_OWNER: usize = 10;

/// Webhooks in all, which an event is compared with one by one.
pub const MAX_WEBHOOKS: usize = 1_000;

/// Webhooks that one event may match: they are written in one transaction of the state store.
pub const MAX_MATCHES: usize = 100;

/// Deliveries that may wait for one endpoint; beyond, events go to its dead letters at once.
pub const MAX_QUEUE: usize = 10_000;

/// The time for which a replaced secret still signs, so that a receiver can be given the new one without a gap.
pub const ROTATION_MS: u64 = 24 * 60 * 60 * 1_000;

/// The id of a webhook: a ULID, or the name of one in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WebhookId(String);

/// Returns the limit that leaves no room for another webhook of `owner` beside `all`; `None` if there is room. Webhooks without an
/// owner are bounded in all.
pub fn reached_limit(owner: Option<&Owner>, all: &[Webhook]) -> Option<usize> {
    let of_owner = all.iter().filter(|webhook| webhook.owner.as_ref() == owner).count();
    if owner.is_some() && of_owner >= MAX_PER_OWNER {
        return Some(MAX_PER_OWNER);
    }
    (all.len() >= MAX_WEBHOOKS).then_some(MAX_WEBHOOKS)
}

/// A text that is no id of a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no id of a webhook")]
pub struct BadWebhookId;

impl WebhookId {
    /// The webhook of the configuration.
    pub fn configured() -> Self {
        Self("configured".to_owned())
    }

    /// The callbacks of the configuration.
    pub fn callback() -> Self {
        Self("callback".to_owned())
    }

    /// Returns the text of the id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for WebhookId {
    type Error = BadWebhookId;

    fn try_from(text: String) -> Result<Self, BadWebhookId> {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if is_plain && (1..=26).contains(&text.len()) { Ok(Self(text)) } else { Err(BadWebhookId) }
    }
}

impl FromStr for WebhookId {
    type Err = BadWebhookId;

    fn from_str(text: &str) -> Result<Self, BadWebhookId> {
        text.to_owned().try_into()
    }
}

impl From<WebhookId> for String {
    fn from(id: WebhookId) -> Self {
        id.0
    }
}

impl fmt::Display for WebhookId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A secret that signs deliveries, as it is stored: sealed, since it has to be read again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningSecret {
    /// The sealed secret.
    pub sealed: String,
    /// The time until which it signs; `None` for the newest one.
    pub until: Option<UnixMillis>,
}

/// The stored record of a webhook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    /// The id.
    pub id: WebhookId,
    /// The owner, whose livestreams' events it gets; `None` for one of the operator, which gets those of all livestreams.
    pub owner: Option<Owner>,
    /// The URL that events are posted to.
    pub url: String,
    /// Free text for its users.
    pub description: String,
    /// The types of events it gets; all if empty.
    pub events: Vec<String>,
    /// The livestream whose events alone it gets.
    pub stream: Option<StreamId>,
    /// False while it gets no events.
    pub enabled: bool,
    /// The secrets that sign, the newest first; at most two.
    pub secrets: Vec<SigningSecret>,
    /// The time it was created.
    pub created_at: UnixMillis,
}

impl Webhook {
    /// Returns true if the event is to be delivered to this webhook.
    pub fn takes(&self, event: &LifecycleEvent) -> bool {
        let is_owned = self.owner.as_ref().is_none_or(|owner| event.owner.as_deref() == Some(owner.as_str()));
        let is_wanted =
            self.events.is_empty() || self.events.iter().any(|kind| kind == event.kind.type_name());
        let is_stream = self.stream.is_none_or(|stream| stream == event.stream);
        self.enabled && is_owned && is_wanted && is_stream
    }

    /// Puts a new secret in front; the one before signs for [`ROTATION_MS`] more, and older ones no longer.
    pub fn rotate(&mut self, sealed: String, now: UnixMillis) {
        self.secrets.truncate(1);
        if let Some(old) = self.secrets.first_mut() {
            old.until = Some(UnixMillis(now.0 + ROTATION_MS));
        }
        self.secrets.insert(0, SigningSecret { sealed, until: None });
    }

    /// Returns the secrets that sign at `now`, the newest first.
    pub fn signing_secrets(&self, now: UnixMillis) -> impl Iterator<Item = &str> {
        let signs = move |secret: &&SigningSecret| secret.until.is_none_or(|until| now < until);
        self.secrets.iter().filter(signs).map(|secret| secret.sealed.as_str())
    }
}

#[cfg(test)]
mod tests {
    use millrace_wire::message::control::LifecycleKind;

    use super::*;

    fn webhook() -> Webhook {
        Webhook {
            id: "W".parse().unwrap(),
            owner: None,
            url: "https://example.com/".to_owned(),
            description: String::new(),
            events: Vec::new(),
            stream: None,
            enabled: true,
            secrets: Vec::new(),
            created_at: UnixMillis(1),
        }
    }

    #[test]
    fn webhook_takes_the_events_of_its_owner_types_and_stream_while_it_is_enabled() {
        let event = LifecycleEvent {
            stream: StreamId::from_u128(1),
            sequence: 1,
            at: UnixMillis(1),
            playback: None,
            broadcast: None,
            owner: Some("anna".to_owned()),
            kind: LifecycleKind::Created,
        };
        let of_nobody = LifecycleEvent { owner: None, ..event.clone() };
        let owner = |name: &str| Some(name.parse().unwrap());
        for (webhook, takes, takes_of_nobody) in [
            (webhook(), true, true),
            (Webhook { enabled: false, ..webhook() }, false, false),
            (Webhook { owner: owner("anna"), ..webhook() }, true, false),
            (Webhook { owner: owner("bert"), ..webhook() }, false, false),
            (Webhook { events: vec!["stream.created".to_owned()], ..webhook() }, true, true),
            (Webhook { events: vec!["stream.ended".to_owned()], ..webhook() }, false, false),
            (Webhook { stream: Some(StreamId::from_u128(1)), ..webhook() }, true, true),
            (Webhook { stream: Some(StreamId::from_u128(2)), ..webhook() }, false, false),
        ] {
            let taken = (webhook.takes(&event), webhook.takes(&of_nobody));
            assert_eq!(taken, (takes, takes_of_nobody), "{webhook:?}");
        }
    }

    #[test]
    fn reached_limit_is_10_webhooks_for_each_owner_and_1_000_in_all() {
        let (anna, bert): (Owner, Owner) = ("anna".parse().unwrap(), "bert".parse().unwrap());
        let mut all = vec![Webhook { owner: Some(anna.clone()), ..webhook() }; MAX_PER_OWNER - 1];
        assert_eq!(reached_limit(Some(&anna), &all), None);
        all.push(Webhook { owner: Some(anna.clone()), ..webhook() });
        assert_eq!(reached_limit(Some(&anna), &all), Some(MAX_PER_OWNER));
        assert_eq!(reached_limit(Some(&bert), &all), None);
        all.resize(MAX_WEBHOOKS - 1, webhook());
        assert_eq!(reached_limit(None, &all), None, "an operator's are bounded in all alone");
        all.push(webhook());
        assert_eq!(reached_limit(None, &all), Some(MAX_WEBHOOKS));
        assert_eq!(reached_limit(Some(&bert), &all), Some(MAX_WEBHOOKS));
    }

    #[test]
    fn rotate_lets_the_old_secret_sign_for_a_day_beside_the_new_one() {
        let mut webhook = webhook();
        webhook.rotate("a".to_owned(), UnixMillis(0));
        webhook.rotate("b".to_owned(), UnixMillis(10));
        let signing = |webhook: &Webhook, now| -> Vec<String> {
            webhook.signing_secrets(UnixMillis(now)).map(str::to_owned).collect()
        };
        assert_eq!(signing(&webhook, 9 + ROTATION_MS), ["b", "a"]);
        assert_eq!(signing(&webhook, 10 + ROTATION_MS), ["b"]);
        webhook.rotate("c".to_owned(), UnixMillis(20));
        assert_eq!(signing(&webhook, 21), ["c", "b"], "at most two");
    }

    #[test]
    fn webhook_id_is_a_short_plain_word() {
        for bad in ["", "a.b", "a-b", "a:b", &"a".repeat(27)] {
            assert!(bad.parse::<WebhookId>().is_err(), "{bad:?}");
        }
        assert!("01JDN7PK2XFT7S04HMASW9NF6Y".parse::<WebhookId>().is_ok());
        for id in [WebhookId::configured(), WebhookId::callback()] {
            assert_eq!(id.as_str().parse::<WebhookId>().unwrap(), id);
        }
    }
}
