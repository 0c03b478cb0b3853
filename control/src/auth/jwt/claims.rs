//! The claims of a JWT (RFC 7519 §4.1): whom it is for and when, its subject as the owner, and the role.

use millrace_wire::ids::UnixMillis;
use serde_json::{Map, Value};

use super::error::JwtError;
use crate::config::Config;
use crate::domain::access::{Identity, Owner, Role};

/// The rules for claims that the configuration makes.
pub(super) struct Rules {
    issuer: String,
    audience: String,
    role_claim: String,
    leeway_s: u64,
}

impl Rules {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            issuer: config.jwt_issuer.clone().unwrap_or_default(),
            audience: config.jwt_audience.clone().unwrap_or_default(),
            role_claim: config.jwt_role_claim.clone(),
            leeway_s: config.jwt_leeway_s,
        }
    }

    /// Returns the identity of the holder of a token with these claims.
    pub(super) fn identity(
        &self,
        claims: &Map<String, Value>,
        now: UnixMillis,
    ) -> Result<Identity, JwtError> {
        self.check_times(claims, now)?;
        if text(claims, "iss")? != self.issuer {
            return Err(JwtError::refused("it is of another issuer"));
        }
        let is_for_us = match claims.get("aud") {
            None => return Err(missing("aud")),
            Some(Value::Array(all)) => all.iter().any(|one| one.as_str() == Some(&self.audience)),
            Some(one) => one.as_str() == Some(&self.audience),
        };
        if !is_for_us {
            return Err(JwtError::refused("it is for another audience"));
        }
        let owner: Owner = text(claims, "sub")?
            .parse()
            .map_err(|rule| JwtError::Refused(format!("its claim sub {rule}")))?;
        let role = role(find(claims, &self.role_claim));
        Ok(Identity { actor: format!("jwt:{owner}"), role, scopes: role.scopes(), owner: Some(owner) })
    }

    fn check_times(&self, claims: &Map<String, Value>, now: UnixMillis) -> Result<(), JwtError> {
        let now_s = now.0 as f64 / 1_000.0;
        let leeway = self.leeway_s as f64;
        let expires = seconds(claims, "exp")?.ok_or_else(|| missing("exp"))?;
        if now_s >= expires + leeway {
            return Err(JwtError::refused("it has expired"));
        }
        match seconds(claims, "nbf")? {
            Some(begins) if now_s + leeway < begins => Err(JwtError::refused("it is not valid yet")),
            _ => Ok(()),
        }
    }
}

fn missing(claim: &str) -> JwtError {
    JwtError::Refused(format!("it lacks the claim {claim}"))
}

fn text<'a>(claims: &'a Map<String, Value>, name: &str) -> Result<&'a str, JwtError> {
    let claim = claims.get(name).ok_or_else(|| missing(name))?;
    claim.as_str().ok_or_else(|| JwtError::Refused(format!("its claim {name} has the wrong form")))
}

/// Returns a NumericDate: seconds since 1970, possibly with a fraction (RFC 7519 §2). One of another form is an error, since it
/// must not count as absent.
fn seconds(claims: &Map<String, Value>, name: &str) -> Result<Option<f64>, JwtError> {
    let Some(claim) = claims.get(name) else { return Ok(None) };
    let seconds = claim.as_f64().filter(|seconds| seconds.is_finite());
    seconds.map(Some).ok_or_else(|| JwtError::Refused(format!("its claim {name} has the wrong form")))
}

/// Returns the claim of a name. A name with dots leads into objects where no claim has it as it stands: `realm_access.roles`.
fn find<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(name) {
        return Some(value);
    }
    let (first, rest) = name.split_once('.')?;
    find(claims.get(first)?.as_object()?, rest)
}

/// Returns the role that a claim names: the highest of several. Without the claim it is a publisher, who has what it owns; a claim
/// that names no role of ours gives the least.
fn role(claim: Option<&Value>) -> Role {
    let named = |value: &Value| value.as_str().and_then(|text| text.parse().ok());
    match claim {
        None | Some(Value::Null) => Role::Publisher,
        Some(Value::Array(values)) => values.iter().filter_map(named).max().unwrap_or(Role::Viewer),
        Some(value) => named(value).unwrap_or(Role::Viewer),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

    fn identity(mut claims: Value, role_claim: &str) -> Result<Identity, JwtError> {
        let config = Config {
            jwt_issuer: Some("issuer".to_owned()),
            jwt_audience: Some("millrace".to_owned()),
            jwt_role_claim: role_claim.to_owned(),
            ..Config::default()
        };
        for (name, value) in
            [("iss", json!("issuer")), ("aud", json!("millrace")), ("exp", json!(1_700_000_001))]
        {
            claims.as_object_mut().unwrap().entry(name).or_insert(value);
        }
        Rules::new(&config).identity(claims.as_object().unwrap(), NOW)
    }

    #[test]
    fn identity_has_the_subject_as_owner_and_the_role_of_the_claim() {
        for (claims, name, role) in [
            (json!({"sub": "alice"}), "role", Role::Publisher),
            (json!({"sub": "alice", "role": "operator"}), "role", Role::Operator),
            (json!({"sub": "alice", "role": null}), "role", Role::Publisher),
            (json!({"sub": "alice", "role": "Operator"}), "role", Role::Viewer),
            (json!({"sub": "alice", "role": 7}), "role", Role::Viewer),
            (json!({"sub": "alice", "roles": ["x", "viewer", "publisher"]}), "roles", Role::Publisher),
            (json!({"sub": "alice", "roles": ["offline_access"]}), "roles", Role::Viewer),
            (json!({"sub": "alice", "a": {"b": {"c": "admin"}}}), "a.b.c", Role::Admin),
            (
                json!({"sub": "alice", "https://x.example/role": "admin"}),
                "https://x.example/role",
                Role::Admin,
            ),
        ] {
            let identity = identity(claims.clone(), name).unwrap();
            assert_eq!((identity.role, identity.scopes), (role, role.scopes()), "{claims}");
            assert_eq!((identity.actor.as_str(), identity.owner.unwrap().as_str()), ("jwt:alice", "alice"));
        }
        for claims in [json!({}), json!({"sub": ""}), json!({"sub": 7}), json!({"sub": "a\nb"})] {
            assert!(identity(claims.clone(), "role").is_err(), "{claims}");
        }
    }

    #[test]
    fn identity_is_refused_at_the_edges_of_its_times_and_for_others() {
        let refused = |claims: Value| identity(claims, "role").unwrap_err().to_string();
        for (claims, text) in [
            (json!({"exp": 1_699_999_970}), "it has expired"),
            (json!({"exp": 1_699_999_969.5}), "it has expired"),
            (json!({"exp": "1800000000"}), "its claim exp has the wrong form"),
            (json!({"nbf": 1_700_000_030.5}), "it is not valid yet"),
            (json!({"nbf": null}), "its claim nbf has the wrong form"),
            (json!({"iss": ["issuer"]}), "its claim iss has the wrong form"),
            (json!({"aud": []}), "it is for another audience"),
            (json!({"aud": {"millrace": 1}}), "it is for another audience"),
        ] {
            let shown = claims.to_string();
            assert!(refused(claims).ends_with(text), "{shown}");
        }
        for claims in [
            json!({"exp": 1_699_999_970.5}),
            json!({"nbf": 1_700_000_030}),
            json!({"aud": ["x", "millrace"]}),
        ] {
            let mut claims = claims;
            claims["sub"] = json!("alice");
            assert!(identity(claims.clone(), "role").is_ok(), "{claims}");
        }
    }
}
