//! What a media playlist says.

use std::sync::Arc;
use std::time::Duration;

/// A media playlist. Times are kept to the microsecond.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MediaPlaylist {
    /// EXT-X-TARGETDURATION in seconds.
    pub target_duration: u32,
    /// EXT-X-PART-INF:PART-TARGET.
    pub part_target: Option<Duration>,
    /// EXT-X-SERVER-CONTROL.
    pub server_control: Option<ServerControl>,
    /// EXT-X-MEDIA-SEQUENCE: number of the first segment (skipped ones included).
    pub media_sequence: u64,
    /// EXT-X-DISCONTINUITY-SEQUENCE.
    pub discontinuity_sequence: u64,
    /// EXT-X-INDEPENDENT-SEGMENTS; must be false when any segment may start without a keyframe.
    pub independent_segments: bool,
    /// EXT-X-START.
    pub start: Option<Start>,
    /// EXT-X-SKIP:SKIPPED-SEGMENTS; above 0 this is a delta update.
    pub skipped_segments: u64,
    /// Complete segments, oldest first.
    pub segments: Vec<Segment>,
    /// Parts of the segment that is not complete yet.
    pub open: Option<OpenSegment>,
    /// EXT-X-PRELOAD-HINT.
    pub preload_hint: Option<PreloadHint>,
    /// EXT-X-RENDITION-REPORT, one for each other rendition.
    pub rendition_reports: Vec<RenditionReport>,
    /// EXT-X-ENDLIST.
    pub ended: bool,
}

/// EXT-X-START: where a player should begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// TIME-OFFSET in milliseconds: from the beginning, or from the end when negative.
    pub time_offset_ms: i32,
    /// PRECISE=YES: nothing before the offset is shown.
    pub precise: bool,
}

/// EXT-X-SERVER-CONTROL.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServerControl {
    /// CAN-BLOCK-RELOAD=YES.
    pub can_block_reload: bool,
    /// PART-HOLD-BACK; see [`part_hold_back`].
    pub part_hold_back: Option<Duration>,
    /// HOLD-BACK, at least three target durations.
    pub hold_back: Option<Duration>,
    /// CAN-SKIP-UNTIL, at least six target durations.
    pub can_skip_until: Option<Duration>,
}

/// Three times PART-TARGET, as RFC 8216bis §4.4.3.8 recommends.
pub const fn part_hold_back(part_target: Duration) -> Duration {
    Duration::from_micros(part_target.as_micros() as u64 * 3)
}

/// EXT-X-MAP.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Map {
    /// Init segment.
    pub uri: Arc<str>,
}

/// A complete segment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Segment {
    /// Where it is; gaps have one too.
    pub uri: Arc<str>,
    /// EXTINF.
    pub duration: Duration,
    /// EXT-X-DISCONTINUITY before it.
    pub discontinuity: bool,
    /// EXT-X-GAP: not to be loaded.
    pub gap: bool,
    /// The init segment that applies to it; written where it changes.
    pub map: Option<Map>,
    /// EXT-X-PROGRAM-DATE-TIME in Unix milliseconds.
    pub program_date_time: Option<i64>,
    /// Its parts, while they are listed.
    pub parts: Vec<Part>,
}

/// The segment in progress.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenSegment {
    /// EXT-X-DISCONTINUITY before it.
    pub discontinuity: bool,
    /// The init segment that applies to it.
    pub map: Option<Map>,
    /// EXT-X-PROGRAM-DATE-TIME in Unix milliseconds.
    pub program_date_time: Option<i64>,
    /// Parts so far.
    pub parts: Vec<Part>,
}

/// EXT-X-PART.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Part {
    /// Where it is.
    pub uri: Arc<str>,
    /// DURATION.
    pub duration: Duration,
    /// INDEPENDENT=YES.
    pub independent: bool,
    /// GAP=YES.
    pub gap: bool,
}

/// EXT-X-PRELOAD-HINT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PreloadHint {
    /// The next part.
    Part(Arc<str>),
    /// The next init segment.
    Map(Arc<str>),
}

/// EXT-X-RENDITION-REPORT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenditionReport {
    /// The other rendition's playlist, relative to this one.
    pub uri: Arc<str>,
    /// LAST-MSN.
    pub last_msn: u64,
    /// LAST-PART.
    pub last_part: Option<u64>,
}

impl MediaPlaylist {
    /// Number of the segment in progress, or of the one to come.
    pub fn next_msn(&self) -> u64 {
        self.media_sequence + self.skipped_segments + self.segments.len() as u64
    }

    /// The newest position: media sequence number, and parts listed of it when it is open.
    pub fn position(&self) -> (u64, usize) {
        (self.next_msn(), self.open.as_ref().map_or(0, |open| open.parts.len()))
    }

    /// Duration of the listed segments.
    pub fn duration(&self) -> Duration {
        self.segments.iter().map(|segment| segment.duration).sum()
    }

    /// Removes the parts of segments that end more than three target durations before the end (RFC 8216bis §4.4.4.9):
    /// players at the live edge no longer need them.
    pub fn drop_old_parts(&mut self) {
        let keep = Duration::from_secs(u64::from(self.target_duration) * 3);
        let mut age: Duration = self.open.iter().flat_map(|open| &open.parts).map(|part| part.duration).sum();
        for segment in self.segments.iter_mut().rev() {
            if age > keep {
                segment.parts.clear();
            }
            age += segment.duration;
        }
    }

    /// How many segments a delta update skips: those further from the end than CAN-SKIP-UNTIL (§6.2.5.1). 0: none.
    pub fn skippable(&self) -> usize {
        let Some(until) = self.server_control.and_then(|control| control.can_skip_until) else { return 0 };
        if self.skipped_segments > 0 {
            return 0;
        }
        let mut age: Duration = self.open.iter().flat_map(|open| &open.parts).map(|part| part.duration).sum();
        let mut kept = 0;
        for segment in self.segments.iter().rev() {
            if age > until {
                break;
            }
            age += segment.duration;
            kept += 1;
        }
        self.segments.len() - kept
    }

    /// The delta update that skips [`Self::skippable`] segments; `None` when there is nothing to skip.
    pub fn delta(&self) -> Option<Self> {
        let skip = self.skippable();
        if skip == 0 {
            return None;
        }
        let segments = self.segments[skip..].to_vec();
        Some(Self { segments, skipped_segments: skip as u64, ..self.clone_without_segments() })
    }

    fn clone_without_segments(&self) -> Self {
        Self {
            segments: Vec::new(),
            open: self.open.clone(),
            preload_hint: self.preload_hint.clone(),
            rendition_reports: self.rendition_reports.clone(),
            ..*self
        }
    }

    /// Puts back what a delta update skipped, from the full playlist loaded before; `None` when they do not fit.
    #[must_use]
    pub fn with_skipped_from(&self, before: &Self) -> Option<Self> {
        let mut full = self.clone();
        full.skipped_segments = 0;
        let first = usize::try_from(self.media_sequence.checked_sub(before.media_sequence)?).ok()?;
        let count = usize::try_from(self.skipped_segments).ok()?;
        let skipped = before.segments.get(first..first.checked_add(count)?)?;
        full.segments.splice(0..0, skipped.iter().cloned());
        let mut map = None;
        for segment in &mut full.segments {
            segment.map = segment.map.take().or_else(|| map.take());
            map.clone_from(&segment.map);
        }
        Some(full)
    }
}
