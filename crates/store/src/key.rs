//! Which keys are accepted: those that every store can hold and no file system misreads.

use crate::StoreError;

/// The longest key, in bytes (S3's limit).
pub const MAX_KEY_LEN: usize = 1024;

/// The longest part of a key between slashes, in bytes (most file systems' limit, less room for a suffix).
const MAX_PART_LEN: usize = 240;

/// Accepts a key of `/`-separated parts, each of ASCII letters, digits and `-_.~=+,@`, not beginning with a dot.
///
/// So a key can neither climb out of a directory nor meet the store's own files.
pub fn check_key(key: &str) -> Result<(), StoreError> {
    if key.is_empty() || key.len() > MAX_KEY_LEN || !key.split('/').all(is_part) {
        return Err(StoreError::invalid(format!("key {:?}", key.chars().take(100).collect::<String>())));
    }
    Ok(())
}

fn is_part(part: &str) -> bool {
    let ok = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~=+,@".contains(&byte);
    !part.is_empty() && part.len() <= MAX_PART_LEN && !part.starts_with('.') && part.bytes().all(ok)
}

/// Accepts a list prefix: empty, or the beginning of a key.
pub(crate) fn check_prefix(prefix: &str) -> Result<(), StoreError> {
    let whole = prefix.strip_suffix('/').unwrap_or(prefix);
    if whole.is_empty() && prefix.is_empty() { Ok(()) } else { check_key(whole) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_leave_the_tree_are_refused() {
        for good in ["a", "live/p/video/17/3.1.m4s", "a.b-c_d~e=f", "x/init-1.mp4"] {
            assert_eq!(check_key(good), Ok(()), "{good}");
        }
        let long_part = "x".repeat(MAX_PART_LEN + 1);
        let long_key = "x/".repeat(MAX_KEY_LEN);
        let table = [
            "", "/", "/a", "a/", "a//b", "..", "../a", "a/../b", "a/./b", ".meta/x", "a\0b", "a\\b", "a b",
            "é",
        ];
        for bad in table.into_iter().chain([long_part.as_str(), long_key.as_str()]) {
            assert!(check_key(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn prefixes_are_the_beginning_of_keys() {
        for good in ["", "live", "live/", "live/p/vid"] {
            assert_eq!(check_prefix(good), Ok(()), "{good}");
        }
        for bad in ["/", "../", "live//", ".tmp"] {
            assert!(check_prefix(bad).is_err(), "{bad:?}");
        }
    }
}
