//! The endpoints of the configuration.

use millrace_outgoing::{Destinations, Target};
use millrace_runtime::Secret;
use millrace_wire::ids::UnixMillis;

use super::sender::Endpoint;
use crate::Config;
use crate::domain::webhook::{Webhook, WebhookId};

/// The endpoints of the configuration: an operator's webhook.
#[derive(Debug, Clone, Default)]
pub(crate) struct Configured {
    webhook: Option<(Webhook, Endpoint)>,
}

impl Configured {
    /// Reads the endpoints from the configuration, which has been checked.
    pub(crate) fn new(config: &Config) -> Self {
        let endpoint = |target: Target, secret: &Secret<String>| Endpoint {
            target,
            destinations: Destinations::Any,
            secrets: vec![secret.clone()],
        };
        let url = config.webhook_url.as_ref();
        let webhook = url.and_then(|url| {
            let webhook = Webhook {
                id: WebhookId::configured(),
                owner: None,
                url: url.clone(),
                description: "The webhook of the configuration.".to_owned(),
                events: config.webhook_events.clone(),
                stream: None,
                enabled: true,
                secrets: Vec::new(),
                created_at: UnixMillis(0),
            };
            Some((webhook, endpoint(url.parse().ok()?, &config.webhook_secret)))
        });
        Self { webhook }
    }

    /// Returns the webhooks.
    pub(crate) fn webhooks(&self) -> impl Iterator<Item = &Webhook> {
        self.webhook.iter().map(|(webhook, _)| webhook)
    }

    /// Returns the endpoint of the webhook `id`, if it is one of the configuration.
    pub(crate) fn endpoint(&self, id: &WebhookId) -> Option<Endpoint> {
        self.webhook.iter().find(|(webhook, _)| webhook.id == *id).map(|(_, endpoint)| endpoint.clone())
    }
}
