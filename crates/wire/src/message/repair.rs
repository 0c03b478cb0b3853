//! Requests for what a reader lacks: retransmissions from a replay buffer, and the newest state of a stream.

use serde::{Deserialize, Serialize};

use crate::fact::StreamState;
use crate::topic::{MAX_STATE_MESSAGE, Message};

/// Most ranges in one repair request; a reader with more holes asks for a snapshot instead.
pub const MAX_RANGES: usize = 16;

/// Asks a producer to retransmit messages on its repair subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairRequest {
    /// Inclusive ranges of sequence numbers, at most [`MAX_RANGES`].
    pub ranges: Vec<(u64, u64)>,
}

/// A producer's answer to a repair request: the bounds of its replay buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairReply {
    /// Lowest sequence number that the replay buffer still holds; `None` if it is empty.
    pub oldest: Option<u64>,
    /// Sequence number of the producer's next message.
    pub next: u64,
}

impl Message for RepairRequest {
    fn check(&self) -> Result<(), &'static str> {
        if self.ranges.len() > MAX_RANGES {
            return Err("more ranges than a repair request may hold");
        }
        if self.ranges.iter().any(|(first, last)| first > last) {
            return Err("a range of a repair request ends before it begins");
        }
        Ok(())
    }
}

impl Message for RepairReply {}

/// Asks every reader that follows the stream for the newest state it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SnapshotRequest {}

impl Message for SnapshotRequest {}

/// The answer to a [`SnapshotRequest`], and the checkpoint in the state store.
impl Message for StreamState {
    const MAX_LEN: usize = MAX_STATE_MESSAGE;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::{decode, encode};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn repair_request_decode_refuses_garbage(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode::<RepairRequest>(&bytes);
        }

        #[test]
        fn repair_request_decode_checks_ranges(ranges in proptest::collection::vec((any::<u64>(), any::<u64>()), 0..20)) {
            let bytes = encode(&RepairRequest { ranges: ranges.clone() }).unwrap();
            let good = ranges.len() <= MAX_RANGES && ranges.iter().all(|(a, b)| a <= b);
            prop_assert_eq!(decode(&bytes).ok(), good.then_some(RepairRequest { ranges }));
        }
    }
}
