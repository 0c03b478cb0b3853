//! The cluster's secret for the hashes of stream keys.

use millrace_runtime::Secret;
use millrace_state::{StateError, StateStore, Tx};
use millrace_wire::state_keys;
use rand::RngCore;

/// As long as the hash (RFC 2104 §3).
const BYTES: usize = 32;

/// Nodes that meet at the record try again; so many times only meet a bug.
const MAX_ATTEMPTS: usize = 16;

/// The secret: what was `configured`, else what the state store has, else made now, once by whoever comes first.
pub async fn key_secret(
    configured: &Secret<String>,
    state: &dyn StateStore,
) -> Result<Secret<Vec<u8>>, StateError> {
    if !configured.expose().is_empty() {
        return Ok(Secret::new(configured.expose().as_bytes().to_vec()));
    }
    for _ in 0..MAX_ATTEMPTS {
        if let Some(found) = state.get(state_keys::HASH_SECRET).await? {
            return Ok(Secret::new(found.value.to_vec()));
        }
        let mut secret = vec![0; BYTES];
        rand::rng().fill_bytes(&mut secret);
        let tx = Tx::new().check(state_keys::HASH_SECRET, None).put(state_keys::HASH_SECRET, secret);
        match state.commit(tx).await {
            Ok(_) | Err(StateError::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Err(StateError::Conflict { key: state_keys::HASH_SECRET.to_owned() })
}

#[cfg(test)]
mod tests {
    use millrace_state::RedbState;

    use super::*;

    #[tokio::test]
    async fn everybody_gets_the_same_and_the_configured_one_goes_over_it() {
        let dir = tempfile::tempdir().unwrap();
        let state = RedbState::open(dir.path().join("state.redb")).await.unwrap();
        let none = Secret::default();
        let (one, two) = tokio::join!(key_secret(&none, &state), key_secret(&none, &state));
        assert_eq!(one.as_ref().unwrap().expose(), two.unwrap().expose());
        assert_eq!(one.unwrap().expose().len(), BYTES);
        let given = key_secret(&Secret::new("given".to_owned()), &state).await.unwrap();
        assert_eq!(given.expose(), b"given");
    }
}
