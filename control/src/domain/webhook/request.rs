//! The fields of requests to create and to change a webhook, and the rules they must keep.

use millrace_outgoing::{Destinations, Target};
use millrace_wire::ids::StreamId;
use millrace_wire::message::control::LifecycleKind;
use serde::Deserialize;

use super::Webhook;
use crate::domain::validate::FieldError;
use crate::domain::visible_text::first_hidden;

/// Longest URL of a webhook.
pub const MAX_URL_CHARS: usize = 2_000;

/// Longest description of a webhook.
pub const MAX_DESCRIPTION_CHARS: usize = 500;

/// A request to create a webhook.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// The URL that events are posted to.
    pub url: String,
    /// Free text for its users.
    #[serde(default)]
    pub description: String,
    /// The types of events it gets; all if empty.
    #[serde(default)]
    pub events: Vec<String>,
    /// The livestream whose events alone it gets.
    #[serde(default)]
    pub stream: Option<StreamId>,
    /// False for a webhook that gets no events yet.
    #[serde(default = "enabled")]
    pub enabled: bool,
}

const fn enabled() -> bool {
    true
}

/// A request to change a webhook; absent fields stay as they are.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Update {
    url: Option<String>,
    description: Option<String>,
    events: Option<Vec<String>>,
    enabled: Option<bool>,
}

/// Changes of a webhook that keep the rules.
#[derive(Debug, Clone)]
pub struct Changes(Update);

impl Changes {
    /// Makes the changes.
    pub fn apply(&self, webhook: &mut Webhook) {
        let Update { url, description, events, enabled } = self.0.clone();
        webhook.url = url.unwrap_or_else(|| std::mem::take(&mut webhook.url));
        webhook.description = description.unwrap_or_else(|| std::mem::take(&mut webhook.description));
        webhook.events = events.unwrap_or_else(|| std::mem::take(&mut webhook.events));
        webhook.enabled = enabled.unwrap_or(webhook.enabled);
    }
}

impl Create {
    /// Returns the rules that the request breaks. `destinations` are the addresses its URL may lead to.
    pub fn check(&self, destinations: Destinations) -> Result<(), Vec<FieldError>> {
        let errors = [
            broken_url_rule(&self.url, destinations).map(|rule| FieldError::new("url", rule)),
            broken_description_rule(&self.description).map(|rule| FieldError::new("description", rule)),
            broken_events_rule(&self.events).map(|rule| FieldError::new("events", rule)),
        ];
        result((), errors)
    }
}

impl Update {
    /// Returns the changes, or the rules that the request breaks.
    pub fn check(self, destinations: Destinations) -> Result<Changes, Vec<FieldError>> {
        let url = self.url.as_deref().and_then(|url| broken_url_rule(url, destinations));
        let description = self.description.as_deref().and_then(broken_description_rule);
        let events = self.events.as_deref().and_then(broken_events_rule);
        let errors = [
            url.map(|rule| FieldError::new("url", rule)),
            description.map(|rule| FieldError::new("description", rule)),
            events.map(|rule| FieldError::new("events", rule)),
        ];
        result(Changes(self), errors)
    }
}

fn result<T>(value: T, errors: [Option<FieldError>; 3]) -> Result<T, Vec<FieldError>> {
    let errors: Vec<FieldError> = errors.into_iter().flatten().collect();
    if errors.is_empty() { Ok(value) } else { Err(errors) }
}

fn broken_url_rule(url: &str, destinations: Destinations) -> Option<String> {
    if url.chars().count() > MAX_URL_CHARS {
        return Some(format!("must have at most {MAX_URL_CHARS} characters"));
    }
    match url.parse::<Target>() {
        Err(error) => Some(format!("must be an http or https URL: {error}")),
        // A name is looked up, and its addresses are checked, with each delivery.
        Ok(target) if !target.may_lead_to(destinations) => {
            Some("must not lead to a private, link-local or metadata address".to_owned())
        }
        Ok(_) => None,
    }
}

fn broken_description_rule(description: &str) -> Option<String> {
    let is_long = description.chars().count() > MAX_DESCRIPTION_CHARS;
    (is_long || first_hidden(description, &['\n']).is_some())
        .then(|| format!("must have at most {MAX_DESCRIPTION_CHARS} printable characters"))
}

fn broken_events_rule(events: &[String]) -> Option<String> {
    let unknown = events.iter().find(|event| !LifecycleKind::TYPES.contains(&event.as_str()))?;
    // The list of types is as long as the sentence allows; an unknown text is shown in quotes and cut.
    let unknown: String = unknown.chars().take(40).collect();
    Some(format!(
        "must name types of events, and {unknown:?} is none: use {}",
        LifecycleKind::TYPES.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(url: &str, events: &[&str], destinations: Destinations) -> Vec<String> {
        let request = serde_json::json!({ "url": url, "events": events });
        let request: Create = serde_json::from_value(request).unwrap();
        let errors = request.check(destinations).err().unwrap_or_default();
        errors.into_iter().map(|error| error.field).collect()
    }

    #[test]
    fn check_refuses_bad_urls_unknown_types_and_private_addresses_of_owners() {
        use Destinations::{Any, Public};
        assert_eq!(fields("https://example.com/hook?a=b", &["stream.ended"], Public), [""; 0]);
        for bad in
            ["", "ftp://example.com/", "example.com", "https://", &format!("https://a/{}", "x".repeat(2_000))]
        {
            assert_eq!(fields(bad, &["stream.gone"], Any), ["url", "events"], "{bad}");
        }
        for private in
            ["http://127.0.0.1:3000/", "http://169.254.169.254/latest", "http://[::1]/", "http://10.1.2.3/"]
        {
            assert_eq!(fields(private, &[], Public), ["url"], "{private}");
            assert_eq!(fields(private, &[], Any), [""; 0], "{private}");
        }
    }

    #[test]
    fn update_changes_the_named_fields_alone() {
        let update: Update = serde_json::from_str(r#"{"enabled":false,"events":["stream.ended"]}"#).unwrap();
        let mut webhook: Webhook = serde_json::from_value(serde_json::json!({
            "id": "W", "owner": null, "url": "https://example.com/", "description": "d", "events": [],
            "stream": null, "enabled": true, "secrets": [], "created_at": 1,
        }))
        .unwrap();
        let expected = Webhook { enabled: false, events: vec!["stream.ended".to_owned()], ..webhook.clone() };
        update.check(Destinations::Public).unwrap().apply(&mut webhook);
        assert_eq!(webhook, expected);
    }
}
