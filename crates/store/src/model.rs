//! The types of objects, their metadata and their listing.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::SystemTime;

use bytes::Bytes;

use crate::StoreError;

/// The metadata that is stored beside an object's bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta {
    /// The value of the `Content-Type` header.
    pub content_type: Option<String>,
    /// The value of the `Cache-Control` header.
    pub cache_control: Option<String>,
    /// The caller's own facts. Names: lower-case ASCII letters, digits and `-`; values: printable ASCII;
    /// 2 KiB together (S3's limit).
    pub user: BTreeMap<String, String>,
}

/// All user metadata of one object, names and values, in bytes (S3's limit).
const MAX_USER_META: usize = 2048;

impl Meta {
    /// Metadata with a content type only.
    pub fn of_type(content_type: impl Into<String>) -> Self {
        Self { content_type: Some(content_type.into()), ..Self::default() }
    }

    /// Returns the metadata with this `Cache-Control`.
    #[must_use]
    pub fn cache(mut self, cache_control: impl Into<String>) -> Self {
        self.cache_control = Some(cache_control.into());
        self
    }

    /// Adds a fact of the caller's own.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.user.insert(name.into(), value.into());
        self
    }

    /// Refuses what some store could not give back unchanged.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let name_ok = |name: &str| {
            !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        let value_ok = |value: &str| {
            value.bytes().all(|b| (0x20..0x7f).contains(&b)) && value.trim() == value && !value.is_empty()
        };
        let headers = self.content_type.iter().chain(&self.cache_control).all(|value| value_ok(value));
        let user = self.user.iter().all(|(name, value)| name_ok(name) && value_ok(value));
        let size: usize = self.user.iter().map(|(name, value)| name.len() + value.len()).sum();
        if headers && user && size <= MAX_USER_META {
            Ok(())
        } else {
            Err(StoreError::invalid("metadata no store can hold"))
        }
    }
}

/// Which bytes of an object: the three forms of RFC 9110 §14.1.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteRange {
    /// From this offset to the end.
    From(u64),
    /// From the first offset up to, not including, the second.
    Between(u64, u64),
    /// The last so many bytes.
    Last(u64),
}

impl ByteRange {
    /// The bytes meant of an object of `size`; an end beyond the object is cut to it.
    pub fn resolve(self, size: u64) -> Result<Range<u64>, StoreError> {
        let range = match self {
            Self::From(start) => start..size,
            Self::Between(start, end) => start..end.min(size),
            Self::Last(count) => size.saturating_sub(count)..size,
        };
        if range.is_empty() {
            return Err(StoreError::invalid(format!("range {self:?} of {size} bytes")));
        }
        Ok(range)
    }

    /// The value of a `Range` header.
    pub(crate) fn to_header(self) -> String {
        match self {
            Self::From(start) => format!("bytes={start}-"),
            Self::Between(start, end) => format!("bytes={start}-{}", end.saturating_sub(1)),
            Self::Last(count) => format!("bytes=-{count}"),
        }
    }
}

/// An object as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// The whole object's size in bytes.
    pub size: u64,
    /// The time at which it was stored.
    pub modified: SystemTime,
    /// The metadata that was stored beside it.
    pub meta: Meta,
}

/// An object, or a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The size and metadata of the whole object.
    pub info: ObjectInfo,
    /// The bytes of the requested range.
    pub body: Bytes,
    /// The offset of `body` in the object, in bytes.
    pub offset: u64,
}

/// One entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListEntry {
    /// The key of the object.
    pub key: String,
    /// The size of the object in bytes.
    pub size: u64,
    /// The time at which it was stored.
    pub modified: SystemTime,
}

/// Some of the objects below a prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListPage {
    /// In byte order of the key.
    pub entries: Vec<ListEntry>,
    /// True if the store has entries after these.
    pub more: bool,
}
