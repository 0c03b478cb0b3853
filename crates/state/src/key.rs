//! Which keys, set names and members are accepted.

use crate::StateError;

/// The longest key, set name or member, in bytes.
pub const MAX_KEY_LEN: usize = 512;

/// Printable ASCII without spaces, not empty.
pub(crate) fn check_key(key: &str) -> Result<(), StateError> {
    if key.is_empty() { Err(StateError::invalid("empty key")) } else { check_prefix(key) }
}

/// The beginning of a key, which may be empty.
pub(crate) fn check_prefix(prefix: &str) -> Result<(), StateError> {
    if prefix.len() > MAX_KEY_LEN || !prefix.bytes().all(|byte| byte.is_ascii_graphic()) {
        let shown: String = prefix.chars().take(80).collect();
        return Err(StateError::invalid(format!("key {shown:?}")));
    }
    Ok(())
}
