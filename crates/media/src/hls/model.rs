//! The content of a media playlist.

use std::sync::Arc;
use std::time::Duration;

/// A media playlist (RFC 8216bis §4.4). Durations are kept to the microsecond.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MediaPlaylist {
    /// The target duration in seconds (EXT-X-TARGETDURATION).
    pub target_duration: u32,
    /// The longest duration of a part (EXT-X-PART-INF:PART-TARGET).
    pub part_target: Option<Duration>,
    /// The delivery features of the server (EXT-X-SERVER-CONTROL).
    pub server_control: Option<ServerControl>,
    /// The media sequence number of the first segment, skipped ones included
    /// (EXT-X-MEDIA-SEQUENCE).
    pub media_sequence: u64,
    /// The number of discontinuities before the first segment (EXT-X-DISCONTINUITY-SEQUENCE).
    pub discontinuity_sequence: u64,
    /// True if every segment starts with a keyframe (EXT-X-INDEPENDENT-SEGMENTS).
    pub independent_segments: bool,
    /// The preferred point to start at (EXT-X-START).
    pub start: Option<Start>,
    /// The number of segments left out (EXT-X-SKIP:SKIPPED-SEGMENTS). Above 0 this is a delta
    /// update.
    pub skipped_segments: u64,
    /// The complete segments, oldest first.
    pub segments: Vec<Segment>,
    /// The segment that is not complete yet, if parts of it are listed.
    pub open: Option<OpenSegment>,
    /// The resource that a client may request in advance (EXT-X-PRELOAD-HINT).
    pub preload_hint: Option<PreloadHint>,
    /// The newest positions of the other renditions (EXT-X-RENDITION-REPORT).
    pub rendition_reports: Vec<RenditionReport>,
    /// True if nothing will be added (EXT-X-ENDLIST).
    pub ended: bool,
}

/// The preferred point to start playback at (EXT-X-START).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// Offset in milliseconds from the beginning, or from the end if negative (TIME-OFFSET).
    pub time_offset_ms: i32,
    /// True if a player must show nothing before the offset (PRECISE=YES).
    pub precise: bool,
}

/// The delivery features of the server (EXT-X-SERVER-CONTROL).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServerControl {
    /// True if the server supports blocking reload (CAN-BLOCK-RELOAD=YES).
    pub can_block_reload: bool,
    /// Distance to the end that a low-latency player keeps (PART-HOLD-BACK), see
    /// [`part_hold_back`].
    pub part_hold_back: Option<Duration>,
    /// Distance to the end that any other player keeps, at least three target durations
    /// (HOLD-BACK).
    pub hold_back: Option<Duration>,
    /// Distance to the end that a delta update never skips, at least six target durations
    /// (CAN-SKIP-UNTIL).
    pub can_skip_until: Option<Duration>,
}

/// Returns PART-HOLD-BACK for a PART-TARGET: three times as much, as RFC 8216bis §4.4.3.8
/// recommends.
pub const fn part_hold_back(part_target: Duration) -> Duration {
    Duration::from_micros(part_target.as_micros() as u64 * 3)
}

/// The init segment that segments need (EXT-X-MAP).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Map {
    /// URI of the init segment.
    pub uri: Arc<str>,
}

/// A complete segment of a media playlist.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Segment {
    /// URI of the segment; gaps have one, too.
    pub uri: Arc<str>,
    /// Duration of the segment (EXTINF).
    pub duration: Duration,
    /// True if a discontinuity precedes it (EXT-X-DISCONTINUITY).
    pub discontinuity: bool,
    /// True if it must not be loaded (EXT-X-GAP).
    pub gap: bool,
    /// The init segment that it needs; written where it changes.
    pub map: Option<Map>,
    /// Wall clock of its first sample in Unix milliseconds (EXT-X-PROGRAM-DATE-TIME).
    pub program_date_time: Option<i64>,
    /// Its parts while they are listed.
    pub parts: Vec<Part>,
}

/// The segment that parts are still being added to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenSegment {
    /// True if a discontinuity precedes it (EXT-X-DISCONTINUITY).
    pub discontinuity: bool,
    /// The init segment that it needs.
    pub map: Option<Map>,
    /// Wall clock of its first sample in Unix milliseconds (EXT-X-PROGRAM-DATE-TIME).
    pub program_date_time: Option<i64>,
    /// The parts that are complete so far.
    pub parts: Vec<Part>,
}

/// A partial segment of a media playlist (EXT-X-PART).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Part {
    /// URI of the part, relative to the playlist.
    pub uri: Arc<str>,
    /// Duration of the part (DURATION).
    pub duration: Duration,
    /// True if it starts with a keyframe (INDEPENDENT=YES).
    pub independent: bool,
    /// True if it must not be loaded (GAP=YES).
    pub gap: bool,
}

/// The resource that a client may request before it is listed (EXT-X-PRELOAD-HINT).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PreloadHint {
    /// URI of the next part (TYPE=PART).
    Part(Arc<str>),
    /// URI of the next init segment (TYPE=MAP).
    Map(Arc<str>),
}

/// The newest position of another rendition (EXT-X-RENDITION-REPORT).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenditionReport {
    /// URI of the other rendition's playlist, relative to this one.
    pub uri: Arc<str>,
    /// Media sequence number of its newest segment (LAST-MSN).
    pub last_msn: u64,
    /// Index of the newest part of that segment (LAST-PART).
    pub last_part: Option<u64>,
}

impl MediaPlaylist {
    /// Returns the media sequence number of the open segment, or of the next one if none is open.
    pub fn next_msn(&self) -> u64 {
        self.media_sequence + self.skipped_segments + self.segments.len() as u64
    }

    /// Returns the newest position: the media sequence number of the open or next segment, and the
    /// parts listed of it.
    pub fn position(&self) -> (u64, usize) {
        (self.next_msn(), self.open.as_ref().map_or(0, |open| open.parts.len()))
    }

    /// Returns the duration of all listed segments.
    pub fn duration(&self) -> Duration {
        self.segments.iter().map(|segment| segment.duration).sum()
    }

    /// Removes the parts of segments that end more than three target durations before the end (RFC
    /// 8216bis §4.4.4.9): players at the live edge no longer need them.
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

    /// Returns the number of segments that a delta update skips: those further from the end than
    /// CAN-SKIP-UNTIL (§6.2.5.1).
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

    /// Returns the delta update that skips [`Self::skippable`] segments; `None` if there are none
    /// to skip.
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

    /// Returns the full playlist of a delta update, given the full playlist that was loaded before;
    /// `None` if they do not fit together.
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
