//! Gap-repair requests to a ring.

use serde::{Deserialize, Serialize};

/// Most ranges in one request; a feed with more holes takes a snapshot instead.
pub const MAX_RANGES: usize = 16;

/// Asks a producer to publish messages again on its repair subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairRequest {
    /// Inclusive ranges of sequence numbers, at most [`MAX_RANGES`].
    pub ranges: Vec<(u64, u64)>,
}

/// A producer's answer, as the reply to the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairReply {
    /// Lowest number the ring still holds; `None`: the ring is empty.
    pub oldest: Option<u64>,
    /// Next number the producer will use.
    pub next: u64,
}

impl RepairRequest {
    /// Reads a request; refuses reversed ranges and too many of them.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let request: Self = serde_json::from_slice(bytes).ok()?;
        let ok = request.ranges.len() <= MAX_RANGES && request.ranges.iter().all(|(a, b)| a <= b);
        ok.then_some(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn garbage_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = RepairRequest::parse(&bytes);
        }
        #[test]
        fn ranges_are_checked(ranges in proptest::collection::vec((any::<u64>(), any::<u64>()), 0..20)) {
            let bytes = serde_json::to_vec(&RepairRequest { ranges: ranges.clone() }).unwrap();
            let good = ranges.len() <= MAX_RANGES && ranges.iter().all(|(a, b)| a <= b);
            prop_assert_eq!(RepairRequest::parse(&bytes), good.then_some(RepairRequest { ranges }));
        }
    }
}
