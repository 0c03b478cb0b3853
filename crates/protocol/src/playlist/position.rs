//! How far a playlist has come, and what a blocking reload may ask of it.

/// How far a media playlist has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PlaylistPosition {
    /// Media sequence number of the open segment: the one after the last complete one.
    pub open_msn: u64,
    /// Parts of the open segment.
    pub open_parts: u32,
    /// Parts of the segment before it.
    pub previous_parts: u32,
    /// No more will come.
    pub ended: bool,
}

/// What a blocking reload may be answered with (RFC 8216bis §6.2.5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockingDecision {
    /// The playlist has it.
    Now,
    /// It will come.
    Later,
    /// Beyond what a client may ask for: 400.
    TooFar,
}

/// A client may ask for segments this far above the last complete one (RFC 8216bis §6.2.5.2).
const MAX_MSN_AHEAD: u64 = 2;
/// Parts a client may ask for beyond the newest: three is what the RFC names for short parts, and a client
/// that lost a second of parts may skip some.
const MAX_PARTS_AHEAD: u32 = 8;

impl PlaylistPosition {
    /// Whether the playlist holds segment `msn`, or its part `part`.
    pub fn reach(&self, msn: u64, part: Option<u32>) -> BlockingDecision {
        if self.ended {
            return BlockingDecision::Now;
        }
        let Some(part) = part else {
            return match msn {
                m if m < self.open_msn => BlockingDecision::Now,
                m if m < self.open_msn.saturating_add(MAX_MSN_AHEAD) => BlockingDecision::Later,
                _ => BlockingDecision::TooFar,
            };
        };
        // A part beyond the last one of its segment means the first of the next segment.
        let (msn, part) = match msn {
            m if m.saturating_add(1) == self.open_msn && part >= self.previous_parts => (self.open_msn, 0),
            m => (m, part),
        };
        if msn < self.open_msn || (msn == self.open_msn && part < self.open_parts) {
            BlockingDecision::Now
        } else if msn == self.open_msn && part >= self.open_parts + MAX_PARTS_AHEAD
            || msn >= self.open_msn + MAX_MSN_AHEAD
        {
            BlockingDecision::TooFar
        } else {
            BlockingDecision::Later
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_reload_may_ask_for() {
        let head = PlaylistPosition { open_msn: 10, open_parts: 3, previous_parts: 5, ended: false };
        for (msn, part, reach) in [
            (9, None, BlockingDecision::Now),
            (10, None, BlockingDecision::Later),
            (11, None, BlockingDecision::Later),
            (12, None, BlockingDecision::TooFar),
            (u64::MAX, None, BlockingDecision::TooFar),
            (10, Some(2), BlockingDecision::Now),
            (10, Some(3), BlockingDecision::Later),
            (10, Some(11), BlockingDecision::TooFar),
            (11, Some(0), BlockingDecision::Later),
            (12, Some(0), BlockingDecision::TooFar),
            (9, Some(4), BlockingDecision::Now),
            (9, Some(5), BlockingDecision::Now),
            (2, Some(500), BlockingDecision::Now),
        ] {
            assert_eq!(head.reach(msn, part), reach, "{msn} {part:?}");
        }
        let fresh = PlaylistPosition { open_parts: 0, ..head };
        assert_eq!(fresh.reach(9, Some(5)), BlockingDecision::Later, "means the first part of segment 10");
        assert_eq!(fresh.reach(9, Some(4)), BlockingDecision::Now);
        assert_eq!(PlaylistPosition { ended: true, ..head }.reach(500, Some(1)), BlockingDecision::Now);
    }
}
