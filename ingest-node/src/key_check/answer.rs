//! The meaning of the service's answers. The contracts leave much open; ADR 12 has the readings.

use millrace_outgoing::RequestError;
use millrace_wire::close_reason::CloseReason;
use millrace_wire::ids::UnixMillis;
use millrace_wire::message::control::{AcceptedKey, bounded_text};
use serde_json::{Map, Value};

/// The answer of the service about one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// The key may publish, until the time given.
    Accepted { key: AcceptedKey, expires: Option<UnixMillis> },
    /// The key may not publish.
    Refused(Refusal),
    /// The service has decided nothing.
    Failed(Failure),
}

/// The reason why the service refuses a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Unknown,
    Inactive,
    Expired,
}

/// The reason why the service has decided nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    #[error("it did not answer within the time limit")]
    Slow,
    #[error("its answer is not usable: {0}")]
    Unusable(String),
}

impl Answer {
    /// The code of an accepted key.
    pub(super) const ACCEPTED: &'static str = "accepted";

    /// Returns the label in metrics.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Accepted { .. } => Self::ACCEPTED,
            Self::Refused(Refusal::Unknown) => "unknown",
            Self::Refused(Refusal::Inactive) => "inactive",
            Self::Refused(Refusal::Expired) => "expired",
            Self::Failed(Failure::Unreachable(_)) => "unreachable",
            Self::Failed(Failure::Slow) => "slow",
            Self::Failed(Failure::Unusable(_)) => "unusable",
        }
    }
}

impl Refusal {
    pub(super) fn reason(self) -> CloseReason {
        match self {
            Self::Unknown => CloseReason::UnknownKey,
            Self::Inactive => CloseReason::InactiveKey,
            Self::Expired => CloseReason::ExpiredKey,
        }
    }
}

impl Failure {
    pub(super) fn reason(&self) -> CloseReason {
        match self {
            Self::Unreachable(_) => CloseReason::KeyCheckUnreachable,
            Self::Slow => CloseReason::KeyCheckSlow,
            Self::Unusable(_) => CloseReason::KeyCheckFailed,
        }
    }

    pub(super) fn of(error: &RequestError) -> Self {
        match error {
            RequestError::Unreachable { detail, .. } => Self::Unreachable(detail.clone()),
            RequestError::Slow { .. } => Self::Slow,
            other => Self::Unusable(other.code().to_owned()),
        }
    }
}

/// Reads an answer. `kind` is its content type.
pub(super) fn read(status: u16, kind: &str, body: &[u8], now: UnixMillis) -> Answer {
    let unusable = |why: &str| Answer::Failed(Failure::Unusable(why.to_owned()));
    match status {
        200..300 => read_success(kind, body, now),
        // The service is there and has no time for this request.
        408 | 425 | 429 => unusable(&format!("status {status}")),
        400..500 => Answer::Refused(read_refusal(status, body, now)),
        status => unusable(&format!("status {status}")),
    }
}

/// A success accepts, unless its JSON says otherwise. A page that a front end shows for every path accepts nothing.
fn read_success(kind: &str, body: &[u8], now: UnixMillis) -> Answer {
    let unusable = |why: &str| Answer::Failed(Failure::Unusable(why.to_owned()));
    let accepted = |key, expires| Answer::Accepted { key, expires };
    let text = body.trim_ascii();
    if text.is_empty() {
        return accepted(AcceptedKey::default(), None);
    }
    let says_json = kind.to_ascii_lowercase().contains("json");
    match serde_json::from_slice::<Value>(text) {
        Ok(Value::Object(fields)) => {
            let fields = Fields::of(&fields);
            match fields.objection(now) {
                Ok(None) => accepted(fields.accepted(), fields.expiry().ok().flatten()),
                Ok(Some(refusal)) => Answer::Refused(refusal),
                Err(field) => unusable(&format!("the field {field} cannot be read")),
            }
        }
        // The usual answers of a look-up that found nothing.
        Ok(Value::Null | Value::Bool(false)) => Answer::Refused(Refusal::Unknown),
        Ok(Value::Array(list)) if list.is_empty() => Answer::Refused(Refusal::Unknown),
        Ok(Value::Array(_)) => unusable("a list instead of one stream"),
        Err(_) if says_json => unusable("JSON that cannot be parsed"),
        Err(_) if text.starts_with(b"<") || kind.to_ascii_lowercase().contains("html") => {
            unusable("a web page instead of an answer")
        }
        Err(_) if std::str::from_utf8(text).is_err() => unusable("bytes that are no text"),
        Ok(_) | Err(_) => accepted(AcceptedKey::default(), None),
    }
}

/// The status tells refusals apart, and the body more exactly.
fn read_refusal(status: u16, body: &[u8], now: UnixMillis) -> Refusal {
    if let Ok(Value::Object(fields)) = serde_json::from_slice::<Value>(body)
        && let Some(refusal) = Fields::of(&fields).stated(now)
    {
        return refusal;
    }
    match status {
        410 => Refusal::Expired,
        403 => Refusal::Inactive,
        _ => Refusal::Unknown,
    }
}

/// The fields that hold a stream's or key's status.
const STATUS_FIELDS: [&str; 2] = ["status", "state"];
/// The fields that hold a reason in words.
const REASON_FIELDS: [&str; 4] = ["reason", "code", "error", "message"];
/// Words for a stream or key that may not publish now.
const INACTIVE_WORDS: [&str; 7] =
    ["inactive", "ended", "archived", "cancelled", "disabled", "suspended", "revoked"];

/// The fields of an answer, those of an object in it that describes the stream included.
struct Fields<'a>(Vec<&'a Map<String, Value>>);

impl<'a> Fields<'a> {
    fn of(fields: &'a Map<String, Value>) -> Self {
        let inner =
            ["stream", "livestream", "data", "key"].iter().filter_map(|name| fields.get(*name)?.as_object());
        Self(std::iter::once(fields).chain(inner).collect())
    }

    fn get(&self, names: &[&str]) -> Option<&'a Value> {
        let found = |name: &&str| self.0.iter().find_map(|fields| fields.get(*name));
        names.iter().find_map(found).filter(|value| !value.is_null())
    }

    fn text(&self, names: &[&str]) -> Option<String> {
        let text = match self.get(names)? {
            Value::String(text) => bounded_text(text.trim()),
            Value::Number(number) => number.to_string(),
            _ => return None,
        };
        (!text.is_empty()).then_some(text)
    }

    /// Returns the refusal that an answer with a status of success states, or the field that cannot be read.
    fn objection(&self, now: UnixMillis) -> Result<Option<Refusal>, &'static str> {
        let (valid, active) = (self.flag(&["valid"])?, self.flag(&["active", "isActive", "is_active"])?);
        let status = self.word(&STATUS_FIELDS);
        let expired = self.expiry()?.is_some_and(|at| at.0 <= now.0);
        Ok(if expired || status == Some(Refusal::Expired) {
            Some(Refusal::Expired)
        } else if valid == Some(false) {
            Some(status.or_else(|| self.word(&REASON_FIELDS)).unwrap_or(Refusal::Unknown))
        } else if active == Some(false) {
            Some(Refusal::Inactive)
        } else if self.0[0].len() == 1 && self.get(&["error"]).is_some() {
            // An error object with a status of success.
            Some(self.word(&REASON_FIELDS).unwrap_or(Refusal::Unknown))
        } else {
            status
        })
    }

    /// Returns the refusal that a time of expiry, a status or a reason states in an answer that refuses.
    fn stated(&self, now: UnixMillis) -> Option<Refusal> {
        let expired = self.expiry().ok().flatten().is_some_and(|at| at.0 <= now.0);
        let words = || self.word(&STATUS_FIELDS).or_else(|| self.word(&REASON_FIELDS));
        if expired { Some(Refusal::Expired) } else { words() }
    }

    fn flag(&self, names: &[&'static str]) -> Result<Option<bool>, &'static str> {
        match self.get(names) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(names[0]),
        }
    }

    /// Returns the refusal that a word in one of the fields names.
    fn word(&self, names: &[&str]) -> Option<Refusal> {
        names.iter().filter_map(|name| self.text(&[name])).find_map(|text| {
            let text = text.to_ascii_lowercase();
            let has =
                |words: &[&str]| text.split(|c: char| !c.is_alphanumeric()).any(|part| words.contains(&part));
            if has(&["expired"]) {
                Some(Refusal::Expired)
            } else {
                has(&INACTIVE_WORDS).then_some(Refusal::Inactive)
            }
        })
    }

    /// Returns the time from which the key is not valid; an error if the field is no time.
    fn expiry(&self) -> Result<Option<UnixMillis>, &'static str> {
        let Some(value) = self.get(&["expires_at", "expiresAt"]) else { return Ok(None) };
        let at = match value {
            Value::String(text) if text.trim().is_empty() => return Ok(None),
            Value::String(text) => parse_time(text.trim()),
            // Seconds until the year 5000, milliseconds from there on.
            Value::Number(number) => number.as_f64().map(|at| if at < 1e11 { at * 1_000.0 } else { at }),
            _ => None,
        };
        at.filter(|at| at.is_finite()).map(|at| Some(UnixMillis(at.max(0.0) as u64))).ok_or("expires_at")
    }

    fn accepted(&self) -> AcceptedKey {
        let nested = ["artist", "owner", "user"].iter().find_map(|name| {
            let person = self.get(&[name])?.as_object()?;
            Fields(vec![person]).text(&["id"])
        });
        let owner = self.text(&[
            "owner_id",
            "ownerId",
            "artist_id",
            "artistId",
            "user_id",
            "userId",
            "owner",
            "artist",
        ]);
        AcceptedKey { title: self.text(&["title", "name"]), owner: owner.or(nested) }
    }
}

/// Parses a time of RFC 3339, or a date and time without a zone, which counts as UTC; returns Unix milliseconds.
fn parse_time(text: &str) -> Option<f64> {
    let zoned = text.parse::<jiff::Timestamp>().ok();
    let at = zoned.or_else(|| {
        let local = text.parse::<jiff::civil::DateTime>().ok()?;
        Some(local.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
    })?;
    Some(at.as_millisecond() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-07-29T04:26:40Z.
    const NOW: UnixMillis = UnixMillis(1_785_299_200_000);

    fn code(status: u16, kind: &str, body: &str) -> &'static str {
        read(status, kind, body.as_bytes(), NOW).code()
    }

    #[test]
    fn success_accepts_unless_its_json_says_otherwise() {
        for (body, expected) in [
            ("", "accepted"),
            ("OK", "accepted"),
            ("{}", "accepted"),
            ("true", "accepted"),
            (r#"{"valid":true}"#, "accepted"),
            (r#"{"error":"no such stream"}"#, "unknown"),
            (r#"{"message":"the stream that ended is live again"}"#, "accepted"),
            (r#"{"active":true,"status":"live","expires_at":null}"#, "accepted"),
            (r#"{"expiresAt":"2026-07-29T04:26:41Z"}"#, "accepted"),
            (r#"{"expires_at":"2030-01-01T00:00:00+02:00"}"#, "accepted"),
            (r#"{"expires_at":1785299201}"#, "accepted"),
            (r#"{"valid":false}"#, "unknown"),
            (r#"{"valid":false,"reason":"expired"}"#, "expired"),
            (r#"{"valid":false,"reason":"stream_inactive"}"#, "inactive"),
            ("null", "unknown"),
            ("false", "unknown"),
            ("[]", "unknown"),
            (r#"{"active":false}"#, "inactive"),
            (r#"{"isActive":false}"#, "inactive"),
            (r#"{"is_active":false}"#, "inactive"),
            (r#"{"stream":{"isActive":false}}"#, "inactive"),
            (r#"{"status":"ended"}"#, "inactive"),
            (r#"{"status":"Inactive"}"#, "inactive"),
            (r#"{"expires_at":"2026-07-29T04:26:40Z"}"#, "expired"),
            (r#"{"expiresAt":1785299200000}"#, "expired"),
            (r#"{"active":false,"expires_at":"2020-01-01"}"#, "expired"),
            (r#"{"data":{"expires_at":"2026-07-29T04:26:39"}}"#, "expired"),
        ] {
            let kind = if body == "OK" { "text/plain" } else { "application/json" };
            assert_eq!(code(200, kind, body), expected, "{body}");
        }
        assert_eq!(code(204, "", ""), "accepted");
    }

    #[test]
    fn client_error_refuses_and_its_status_or_body_says_why() {
        for (status, body, expected) in [
            (404, "", "unknown"),
            (400, "", "unknown"),
            (401, "", "unknown"),
            (422, r#"{"error":"Invalid stream key"}"#, "unknown"),
            (403, "", "inactive"),
            (410, "", "expired"),
            (401, r#"{"error":"stream key expired"}"#, "expired"),
            (404, r#"{"error":"Stream is inactive"}"#, "inactive"),
            (403, r#"{"expires_at":"2020-01-01T00:00:00Z"}"#, "expired"),
        ] {
            assert_eq!(code(status, "application/json", body), expected, "{status} {body}");
        }
    }

    #[test]
    fn answers_that_decide_nothing_are_unusable() {
        for (status, kind, body) in [
            (500, "", ""),
            (503, "application/json", r#"{"valid":true}"#),
            (302, "", ""),
            (429, "", ""),
            (200, "application/json", "{\"valid\":tru"),
            (200, "text/html; charset=utf-8", "<!doctype html><title>Site</title>"),
            (200, "", "<html>"),
            (200, "application/json", r#"{"valid":"maybe"}"#),
            (200, "application/json", r#"{"active":"no"}"#),
            (200, "application/json", r#"{"expires_at":"tomorrow"}"#),
            (200, "application/json", r#"[{"active":true}]"#),
        ] {
            assert_eq!(code(status, kind, body), "unusable", "{status} {body}");
        }
        assert_eq!(read(200, "", b"\xff\xfe\x00", NOW).code(), "unusable");
    }

    #[test]
    fn accepted_key_has_the_title_and_the_owner_of_the_answer() {
        let accepted = |body: &str| match read(200, "application/json", body.as_bytes(), NOW) {
            Answer::Accepted { key, .. } => (key.title, key.owner),
            other => panic!("{other:?}"),
        };
        let some = |title: &str, owner: &str| (Some(title.to_owned()), Some(owner.to_owned()));
        assert_eq!(accepted(r#"{"title":" Show\n ","artist_id":42}"#), some("Show", "42"));
        assert_eq!(accepted(r#"{"stream":{"name":"Show","owner":{"id":"u1"}}}"#), some("Show", "u1"));
        assert_eq!(accepted(r#"{"title":"","userId":null}"#), (None, None));
        let long = accepted(&format!(r#"{{"title":"{}"}}"#, "x".repeat(5_000)));
        assert!(long.0.unwrap().len() <= 300);
    }
}
