//! Keys of the state store. `{ms}` is one Redis hash tag: every key of a transaction lives in one slot.

use crate::ids::{
    Airing, BroadcastId, Epoch, KeyHash, Msn, NodeId, PlaybackId, Rendition, StreamId, TokenId,
};

/// Common prefix of all keys.
pub const PREFIX: &str = "{ms}:";

/// Returns the key of a livestream's record.
pub fn stream(id: StreamId) -> String {
    format!("{PREFIX}stream:{id}")
}
/// Prefix of all stream records, for scans in creation order.
pub const STREAMS: &str = "{ms}:stream:";
/// A stream's claim: epoch, holder, lease.
pub fn claim(id: StreamId) -> String {
    format!("{PREFIX}claim:{id}")
}
/// Prefix of the keys of all claims.
pub const CLAIMS: &str = "{ms}:claim:";
/// Stream id by key hash.
pub fn key_hash(hash: &KeyHash) -> String {
    format!("{PREFIX}key:{hash}")
}
/// Stream id by playback id.
pub fn playback(id: PlaybackId) -> String {
    format!("{PREFIX}playback:{id}")
}
/// Returns the key of a broadcast's record.
pub fn broadcast(stream: StreamId, id: BroadcastId) -> String {
    format!("{PREFIX}broadcast:{stream}:{id}")
}
/// Prefix of a stream's broadcasts.
pub fn broadcasts(stream: StreamId) -> String {
    format!("{PREFIX}broadcast:{stream}:")
}
/// One stored segment in the index. Numbers are zero-padded, so a scan is in order.
pub fn segment(stream: StreamId, rendition: &Rendition, epoch: Epoch, msn: Msn) -> String {
    format!("{PREFIX}segment:{stream}:{rendition}:{:020}:{:020}", epoch.0, msn.0)
}
/// Prefix of a rendition's stored segments.
pub fn segments(stream: StreamId, rendition: &Rendition) -> String {
    format!("{PREFIX}segment:{stream}:{rendition}:")
}
/// Prefix of all stored segments of a stream.
pub fn all_segments(stream: StreamId) -> String {
    format!("{PREFIX}segment:{stream}:")
}
/// A stream's folded state without parts, as its newest author last wrote it.
pub fn snapshot(stream: StreamId) -> String {
    format!("{PREFIX}snapshot:{stream}")
}
/// The checkpoint of an earlier broadcast, kept for players that still ask for its playlists (with a time to live).
pub fn past_snapshot(stream: StreamId, airing: Airing) -> String {
    format!("{PREFIX}past-snapshot:{stream}:{airing}")
}
/// Prefix of the checkpoints of a stream's earlier broadcasts.
pub fn past_snapshots(stream: StreamId) -> String {
    format!("{PREFIX}past-snapshot:{stream}:")
}
/// A deleted stream whose objects are still to be deleted.
pub fn purge(id: PlaybackId) -> String {
    format!("{PREFIX}purge:{id}")
}
/// Prefix of all deleted streams with objects.
pub const PURGES: &str = "{ms}:purge:";
/// A stream that is not recorded: its segments past the window are to be deleted.
pub fn retention(stream: StreamId) -> String {
    format!("{PREFIX}retention:{stream}")
}
/// Prefix of all retention records.
pub const RETENTIONS: &str = "{ms}:retention:";
/// The number of a stream's newest lifecycle event.
pub fn event_counter(stream: StreamId) -> String {
    format!("{PREFIX}event-counter:{stream}")
}
/// A lifecycle event that is not handed to the webhooks yet. Numbers are zero-padded, so a scan is in order.
pub fn outbox_event(stream: StreamId, sequence: u64) -> String {
    format!("{PREFIX}outbox:{stream}:{sequence:020}")
}
/// Prefix of a stream's events in the outbox.
pub fn outbox(stream: StreamId) -> String {
    format!("{PREFIX}outbox:{stream}:")
}
/// Prefix of all events in the outbox.
pub const OUTBOX: &str = "{ms}:outbox:";
/// A webhook's record.
pub fn webhook(id: &str) -> String {
    format!("{PREFIX}webhook:{id}")
}
/// Prefix of all webhooks.
pub const WEBHOOKS: &str = "{ms}:webhook:";
/// An event that is to be delivered to a webhook. Numbers are zero-padded, so a scan is in order.
pub fn delivery(webhook: &str, stream: StreamId, sequence: u64) -> String {
    format!("{PREFIX}delivery:{webhook}:{stream}:{sequence:020}")
}
/// Prefix of a webhook's deliveries.
pub fn deliveries(webhook: &str) -> String {
    format!("{PREFIX}delivery:{webhook}:")
}
/// Prefix of all deliveries.
pub const DELIVERIES: &str = "{ms}:delivery:";
/// A delivery that was given up.
pub fn dead_letter(webhook: &str, stream: StreamId, sequence: u64) -> String {
    format!("{PREFIX}dead-letter:{webhook}:{stream}:{sequence:020}")
}
/// Prefix of a webhook's dead letters.
pub fn dead_letters(webhook: &str) -> String {
    format!("{PREFIX}dead-letter:{webhook}:")
}
/// The audience of a stream: its viewers at this moment.
pub fn viewers(stream: StreamId) -> String {
    format!("{PREFIX}viewers:{stream}")
}
/// The unique viewers of a broadcast.
pub fn unique_viewers(stream: StreamId, broadcast: BroadcastId) -> String {
    format!("{PREFIX}unique:{stream}:{broadcast}")
}
/// The record of a broadcast's audience.
pub fn audience(stream: StreamId, broadcast: BroadcastId) -> String {
    format!("{PREFIX}audience:{stream}:{broadcast}")
}
/// Prefix of the audiences of a stream's broadcasts, in their order.
pub fn audiences(stream: StreamId) -> String {
    format!("{PREFIX}audience:{stream}:")
}
/// The random key of the hashes under which viewers are known on one day, counted in days since 1970 (with a time to live).
pub fn viewer_salt(day: u64) -> String {
    format!("{PREFIX}secret:viewers:{day}")
}
/// A node's heartbeat (with a time to live).
pub fn node(id: &NodeId) -> String {
    format!("{PREFIX}node:{id}")
}
/// Prefix of all node heartbeats.
pub const NODES: &str = "{ms}:node:";
/// Returns the key of an API token's record, which holds the hash of the token.
pub fn token(id: TokenId) -> String {
    format!("{PREFIX}token:{id}")
}
/// Prefix of all API tokens, for scans in creation order.
pub const TOKENS: &str = "{ms}:token:";
/// Returns the key of an entry of the audit log. Numbers are zero-padded, so a scan is in order.
pub fn audit(number: u64) -> String {
    format!("{PREFIX}audit:{number:020}")
}
/// Prefix of all entries of the audit log.
pub const AUDIT: &str = "{ms}:audit:";
/// Key of the first and the next number of the audit log.
pub const AUDIT_HEAD: &str = "{ms}:audit-head";
/// Key of the lease of control's leader.
pub const LEADER: &str = "{ms}:leader";
/// The cluster's random secret for key hashes, when none is configured.
pub const HASH_SECRET: &str = "{ms}:secret:key-hash";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_scan_in_order() {
        let (s, r) = (StreamId::from_u128(7), Rendition::video());
        assert!(segment(s, &r, Epoch(9), Msn(9)) < segment(s, &r, Epoch(9), Msn(10)));
        assert!(segment(s, &r, Epoch(9), Msn(10)) < segment(s, &r, Epoch(10), Msn(1)));
        assert!(segment(s, &r, Epoch(9), Msn(9)).starts_with(&segments(s, &r)));
    }

    #[test]
    fn every_key_is_in_one_slot() {
        let (s, b) = (StreamId::from_u128(7), BroadcastId::from_u128(8));
        for key in [
            stream(s),
            claim(s),
            broadcast(s, b),
            viewers(s),
            snapshot(s),
            token(TokenId::from_u128(1)),
            audit(1),
            AUDIT_HEAD.into(),
            LEADER.into(),
            HASH_SECRET.into(),
            NODES.into(),
        ] {
            assert!(key.starts_with(PREFIX), "{key}");
        }
    }
}
