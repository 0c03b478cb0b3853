//! The fields of a new stream key.

use millrace_wire::ids::UnixMillis;
use serde::{Deserialize, Serialize};

use super::{FieldError, hidden_rule};
use crate::domain::keys::{DEFAULT_PRIORITY, MAX_PRIORITY};
use crate::domain::visible_text::first_hidden;

/// Longest name of a key, in characters: one line of a table.
const MAX_NAME_CHARS: usize = 100;

/// The body of `POST /api/v1/livestreams/{id}/keys`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// The name that tells operators the keys apart.
    pub name: String,
    /// The rank of its publishers; without it, that of the first key.
    pub priority: Option<u8>,
    /// The time from which it begins no publish any more, an RFC 3339 time.
    pub expires_at: Option<jiff::Timestamp>,
}

/// The checked values of a [`NewKey`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedKey {
    /// The name.
    pub name: String,
    /// The rank of its publishers.
    pub priority: u8,
    /// The time from which it begins no publish any more.
    pub expires_at: Option<UnixMillis>,
}

impl NewKey {
    /// Returns the checked values, or an error for every field that breaks a rule.
    pub fn check(&self, now: UnixMillis) -> Result<CheckedKey, Vec<FieldError>> {
        let mut errors = Vec::new();
        let name = self.name.trim();
        if name.is_empty() || name.chars().count() > MAX_NAME_CHARS {
            let rule = format!("must have 1 to {MAX_NAME_CHARS} printable characters");
            errors.push(FieldError::new("name", rule));
        } else if let Some(hidden) = first_hidden(name, &[]) {
            errors.push(FieldError::new("name", hidden_rule(hidden)));
        }
        let priority = self.priority.unwrap_or(DEFAULT_PRIORITY);
        if priority > MAX_PRIORITY {
            errors.push(FieldError::new("priority", format!("must be from 0 to {MAX_PRIORITY}")));
        }
        let expires_at = self.expires_at.map(|at| u64::try_from(at.as_millisecond()).unwrap_or(0));
        if expires_at.is_some_and(|at| at <= now.0) {
            errors.push(FieldError::new("expires_at", "must be in the future"));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(CheckedKey { name: name.to_owned(), priority, expires_at: expires_at.map(UnixMillis) })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn check_names_every_field_that_breaks_a_rule_and_fills_in_the_priority() {
        let now = UnixMillis(1_900_000_000_000);
        let check = |body| serde_json::from_value::<NewKey>(body).unwrap().check(now);
        let bad = json!({ "name": " ", "priority": 101, "expires_at": "2020-01-01T00:00:00Z" });
        let fields: Vec<_> = check(bad).unwrap_err().into_iter().map(|error| error.field).collect();
        assert_eq!(fields, ["name", "priority", "expires_at"]);
        let hidden = check(json!({ "name": "a\u{202e}b" })).unwrap_err();
        assert!(hidden[0].message.contains("U+202E"), "{hidden:?}");
        let good = check(json!({ "name": " backup ", "expires_at": "2040-01-01T00:00:00Z" })).unwrap();
        assert_eq!((good.name.as_str(), good.priority), ("backup", DEFAULT_PRIORITY));
        assert_eq!(good.expires_at, Some(UnixMillis(2_208_988_800_000)));
    }
}
