//! Records that several nodes may create at the same time and all of them must agree on.

use bytes::Bytes;

use crate::{StateError, StateStore, Tx};

/// Attempts to create a record. A conflict means that another node has just created it, so the next read finds it; only
/// a record that is deleted again each time uses them up.
const MAX_ATTEMPTS: usize = 16;

/// Returns the value under `key`. Where there is none, creates it with the value that `make` returns; of several nodes
/// that do so at once one succeeds, and all return its value.
///
/// # Errors
/// [`StateError::Unavailable`] when the store does not answer; [`StateError::Conflict`] when the record was created and
/// deleted [`MAX_ATTEMPTS`] times meanwhile.
pub async fn get_or_create(
    state: &dyn StateStore,
    key: &str,
    mut make: impl FnMut() -> Vec<u8>,
) -> Result<Bytes, StateError> {
    for _ in 0..MAX_ATTEMPTS {
        if let Some(found) = state.get(key).await? {
            return Ok(found.value);
        }
        match state.commit(Tx::new().check(key, None).put(key, make())).await {
            Ok(_) | Err(StateError::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Err(StateError::Conflict { key: key.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RedbState;

    #[tokio::test]
    async fn get_or_create_gives_all_callers_the_value_of_the_first_commit() {
        let dir = tempfile::tempdir().unwrap();
        let state = RedbState::open(dir.path().join("state.redb")).await.unwrap();
        let create = |value: u8| get_or_create(&state, "secret", move || vec![value]);
        let (first, second) = tokio::join!(create(1), create(2));
        assert_eq!(first.as_ref().unwrap(), second.as_ref().unwrap());
        assert_eq!(create(3).await.unwrap(), first.unwrap());
    }
}
