//! The newest segment and part of a media playlist, and the decision about a blocking reload.

use std::time::Duration;

/// The newest segment and part of a media playlist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PlaylistPosition {
    /// Media sequence number of the open segment: the one after the last complete one.
    pub open_msn: u64,
    /// Number of parts of the open segment.
    pub open_parts: u32,
    /// Number of parts of the segment before the open one.
    pub previous_parts: u32,
    /// Parts that a client may ask for beyond the newest.
    pub parts_ahead: u32,
    /// True if the playlist ends with ENDLIST.
    pub ended: bool,
}

/// The answer to a blocking reload (RFC 8216bis §6.2.5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockingDecision {
    /// The playlist has the segment or part that is asked for.
    Ready,
    /// The segment or part is near enough to be waited for.
    Wait,
    /// The segment or part lies further ahead than a client may ask for: 400.
    BadRequest,
}

/// A client may ask for segments up to this far above the last complete one (RFC 8216bis §6.2.5.2).
const MAX_MSN_AHEAD: u64 = 2;
/// The Advance Part Limit in time (RFC 8216bis §6.2.5.2): three seconds of parts of less than a second.
const ADVANCE: Duration = Duration::from_secs(3);
/// The limit for parts of a second or more.
const LONG_PARTS_AHEAD: u32 = 3;

/// Returns how many parts beyond the newest a client may ask for in a playlist of this PART-TARGET, whose longest listed
/// segment has `most_parts`: the Advance Part Limit of the RFC, and always the last part of such a segment, because hls.js
/// without its low-latency mode asks for that one and gives up after some refusals.
pub(super) fn parts_ahead(part_target: Option<Duration>, most_parts: u32) -> u32 {
    let limit = match part_target {
        Some(target) if !target.is_zero() && target < Duration::from_secs(1) => {
            u32::try_from(ADVANCE.as_micros().div_ceil(target.as_micros())).unwrap_or(u32::MAX)
        }
        _ => LONG_PARTS_AHEAD,
    };
    limit.max(most_parts.saturating_add(1))
}

impl PlaylistPosition {
    /// Decides about a reload that asks for segment `msn`, or for its part `part`.
    pub fn decide(&self, msn: u64, part: Option<u32>) -> BlockingDecision {
        if self.ended {
            return BlockingDecision::Ready;
        }
        let Some(part) = part else {
            return match msn {
                m if m < self.open_msn => BlockingDecision::Ready,
                m if m < self.open_msn.saturating_add(MAX_MSN_AHEAD) => BlockingDecision::Wait,
                _ => BlockingDecision::BadRequest,
            };
        };
        // A part beyond the last one of its segment means the first of the next segment.
        let (msn, part) = match msn {
            msn if msn.saturating_add(1) == self.open_msn && part >= self.previous_parts => {
                (self.open_msn, 0)
            }
            msn => (msn, part),
        };
        if msn < self.open_msn || (msn == self.open_msn && part < self.open_parts) {
            BlockingDecision::Ready
        } else if msn == self.open_msn && part >= self.open_parts.saturating_add(self.parts_ahead)
            || msn >= self.open_msn + MAX_MSN_AHEAD
        {
            BlockingDecision::BadRequest
        } else {
            BlockingDecision::Wait
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocking_reload_is_ready_waits_or_is_refused_by_the_distance_of_its_part() {
        let position =
            PlaylistPosition { open_msn: 10, open_parts: 3, previous_parts: 5, parts_ahead: 8, ended: false };
        for (msn, part, decision) in [
            (9, None, BlockingDecision::Ready),
            (10, None, BlockingDecision::Wait),
            (11, None, BlockingDecision::Wait),
            (12, None, BlockingDecision::BadRequest),
            (u64::MAX, None, BlockingDecision::BadRequest),
            (10, Some(2), BlockingDecision::Ready),
            (10, Some(3), BlockingDecision::Wait),
            (10, Some(11), BlockingDecision::BadRequest),
            (11, Some(0), BlockingDecision::Wait),
            (12, Some(0), BlockingDecision::BadRequest),
            (9, Some(4), BlockingDecision::Ready),
            (9, Some(5), BlockingDecision::Ready),
            (2, Some(500), BlockingDecision::Ready),
        ] {
            assert_eq!(position.decide(msn, part), decision, "{msn} {part:?}");
        }
        let plain =
            PlaylistPosition { parts_ahead: parts_ahead(Some(Duration::from_millis(200)), 20), ..position };
        assert_eq!(plain.decide(10, Some(23)), BlockingDecision::Wait);
        assert_eq!(plain.decide(10, Some(24)), BlockingDecision::BadRequest);
        let fresh = PlaylistPosition { open_parts: 0, ..position };
        assert_eq!(fresh.decide(9, Some(5)), BlockingDecision::Wait, "means the first part of segment 10");
        assert_eq!(fresh.decide(9, Some(4)), BlockingDecision::Ready);
        assert_eq!(
            PlaylistPosition { ended: true, ..position }.decide(500, Some(1)),
            BlockingDecision::Ready
        );
    }

    #[test]
    fn parts_ahead_are_three_seconds_of_short_parts_and_reach_the_end_of_a_listed_segment() {
        let millis = |ms| Some(Duration::from_millis(ms));
        for (target, most, ahead) in [
            (millis(200), 10, 15),
            (millis(213), 10, 15),
            (millis(200), 20, 21),
            (millis(999), 2, 4),
            (millis(1_000), 2, 3),
            (None, 0, 3),
            (millis(0), 0, 3),
        ] {
            assert_eq!(parts_ahead(target, most), ahead, "{target:?} {most}");
        }
    }
}
