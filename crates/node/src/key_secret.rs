//! The secret under which the cluster hashes stream keys.

use millrace_runtime::Secret;
use millrace_state::{StateError, StateStore, get_or_create};
use millrace_wire::ids::KeyHash;
use millrace_wire::state_keys;

/// Returns the configured secret, else the one in the state store, which the first node of a cluster creates.
///
/// # Errors
/// When nothing is configured and the state store does not answer.
pub async fn key_secret(
    configured: &Secret<String>,
    state: &dyn StateStore,
) -> Result<Secret<Vec<u8>>, StateError> {
    if !configured.expose().is_empty() {
        return Ok(Secret::new(configured.expose().as_bytes().to_vec()));
    }
    let generate = || KeyHash::generate_secret(&mut rand::rng()).to_vec();
    let stored = get_or_create(state, state_keys::HASH_SECRET, generate).await?;
    Ok(Secret::new(stored.to_vec()))
}

#[cfg(test)]
mod tests {
    use millrace_state::RedbState;

    use super::*;

    #[tokio::test]
    async fn key_secret_is_the_stored_one_unless_one_is_configured() {
        let dir = tempfile::tempdir().unwrap();
        let state = RedbState::open(dir.path().join("state.redb")).await.unwrap();
        let none = Secret::default();
        let (one, two) = tokio::join!(key_secret(&none, &state), key_secret(&none, &state));
        assert_eq!(one.as_ref().unwrap().expose(), two.unwrap().expose());
        assert_eq!(one.unwrap().expose().len(), KeyHash::SECRET_BYTES);
        let given = key_secret(&Secret::new("given".to_owned()), &state).await.unwrap();
        assert_eq!(given.expose(), b"given");
    }
}
