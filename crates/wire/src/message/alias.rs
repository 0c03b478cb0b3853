//! The question of an edge which livestream a stream key belongs to.

use serde::{Deserialize, Serialize};

use crate::ids::{KeyHash, PlaybackId};
use crate::topic::Message;

impl Message for AliasRequest {}
impl Message for AliasReply {}

/// On `control.alias`: an edge that takes stream keys in viewers' URLs asks for the public id behind one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliasRequest {
    /// The keyed hash of the key in the URL.
    pub key_hash: KeyHash,
}

/// Control's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliasReply {
    /// The public id of the livestream; `None` for a key that is unknown or revoked.
    pub playback: Option<PlaybackId>,
}
