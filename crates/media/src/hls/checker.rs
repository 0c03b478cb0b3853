//! A checker of successive playlists of one rendition against RFC 8216bis and against needs of
//! common players.
//!
//! A [`Checker`] takes every playlist in the order in which a player fetched them, and reports
//! violations within one playlist and from one to the next. It remembers every URI as long as it
//! lives: it is for tests and for probing a server, not for a server's own path.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::model::{Map, MediaPlaylist, Part, Segment};
use super::parse::ParseError;

/// Tolerance of durations, which are written to the microsecond.
const EPSILON: Duration = Duration::from_micros(2);

/// A rule that a playlist may break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// The text must be a media playlist.
    Parses,
    /// EXTINF, rounded, is at most EXT-X-TARGETDURATION (§4.4.3.1).
    TargetDurationExceeded,
    /// EXT-X-TARGETDURATION does not change (§6.2.1).
    TargetDurationChanged,
    /// No part is longer than PART-TARGET (§4.4.4.9).
    PartTargetExceeded,
    /// A part reaches 85 % of PART-TARGET, unless independent, a gap, or the last of its segment
    /// (§4.4.4.9).
    PartTooShort,
    /// PART-TARGET does not change, because AVPlayer gives up if it does.
    PartTargetChanged,
    /// A playlist with parts has EXT-X-PART-INF (§4.4.3.7).
    PartInfMissing,
    /// PART-HOLD-BACK is there and at least twice PART-TARGET (§4.4.3.8).
    PartHoldBack,
    /// HOLD-BACK is at least three target durations (§4.4.3.8).
    HoldBack,
    /// CAN-SKIP-UNTIL is at least six target durations (§4.4.3.8).
    CanSkipUntil,
    /// The parts of a segment are not longer than the segment (§4.4.4.9).
    PartsExceedSegment,
    /// A live low-latency playlist hints at the next part, because hls.js polls in a loop without.
    PreloadHintMissing,
    /// A preload hint names a resource that is not listed yet.
    PreloadHintStale,
    /// A segment of fragmented MP4 has an EXT-X-MAP (§3.1.2).
    MapMissing,
    /// The init segment changes at a discontinuity only.
    MapChangedWithoutDiscontinuity,
    /// EXT-X-MEDIA-SEQUENCE does not decrease (§6.2.2).
    MediaSequenceBackwards,
    /// EXT-X-DISCONTINUITY-SEQUENCE does not decrease (§6.2.2).
    DiscontinuitySequenceBackwards,
    /// EXT-X-DISCONTINUITY-SEQUENCE grows by exactly the EXT-X-DISCONTINUITY tags removed (§6.2.2).
    DiscontinuitySequenceMiscounted,
    /// The newest segment or part only moves forward.
    PositionBackwards,
    /// A media sequence number names the same segment for ever (§6.2.1).
    SegmentChanged,
    /// A listed part does not change, except that it becomes a gap if its bytes are lost.
    PartChanged,
    /// Parts stay listed for three target durations, unless their segment became a gap or the playlist has ended (§6.2.2).
    PartRemovedEarly,
    /// A URI names one resource for ever.
    UriReused,
    /// A playlist that loses segments keeps three target durations (§6.2.2).
    WindowTooShort,
    /// EXT-X-PROGRAM-DATE-TIME does not go back.
    DateBackwards,
    /// Segments, EXT-X-GAP and discontinuities account for all time that passes.
    GapMissing,
    /// Nothing changes after EXT-X-ENDLIST (§4.4.3.4).
    ChangedAfterEnd,
    /// A delta update fits the playlist before it (§6.2.5.1).
    DeltaWithoutBase,
}

/// A violation of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The rule that was broken.
    pub rule: Rule,
    /// The position and the values.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.detail)
    }
}

/// A media sequence number and a part of that segment.
type Name = (u64, Option<u32>);

/// A checker of one rendition; the module describes its use.
#[derive(Debug, Default)]
pub struct Checker {
    last: Option<MediaPlaylist>,
    part_target: Option<Duration>,
    segments: BTreeMap<u64, Segment>,
    parts: BTreeMap<(u64, u32), Part>,
    uris: BTreeMap<Arc<str>, Name>,
    found: Vec<Violation>,
}

impl Checker {
    /// Creates a checker without any playlist.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the last playlist, delta updates applied.
    pub const fn last(&self) -> Option<&MediaPlaylist> {
        self.last.as_ref()
    }

    /// Checks the text of the next playlist; returns the violations.
    pub fn check(&mut self, text: &str) -> Vec<Violation> {
        match MediaPlaylist::parse(text) {
            Ok(playlist) => self.check_playlist(&playlist),
            Err(error) => vec![parse_violation(&error)],
        }
    }

    /// Checks the next playlist; returns the violations.
    pub fn check_playlist(&mut self, playlist: &MediaPlaylist) -> Vec<Violation> {
        let full = if playlist.skipped_segments > 0 {
            if let Some(full) = self.last.as_ref().and_then(|last| playlist.with_skipped_from(last)) {
                full
            } else {
                let detail = format!("skips {} from {}", playlist.skipped_segments, playlist.media_sequence);
                return vec![Violation { rule: Rule::DeltaWithoutBase, detail }];
            }
        } else {
            playlist.clone()
        };
        self.durations(&full);
        self.control(&full);
        self.order(&full);
        self.names(&full);
        if let Some(last) = self.last.take() {
            self.succession(&last, &full);
        }
        self.part_target = self.part_target.or(full.part_target);
        self.last = Some(full);
        std::mem::take(&mut self.found)
    }

    fn report(&mut self, rule: Rule, detail: String) {
        self.found.push(Violation { rule, detail });
    }

    fn durations(&mut self, playlist: &MediaPlaylist) {
        for (msn, segment) in numbered(playlist) {
            if (segment.duration.as_secs_f64() + 0.5).floor() > f64::from(playlist.target_duration) {
                let detail = format!("{msn}: {:?} of {} s", segment.duration, playlist.target_duration);
                self.report(Rule::TargetDurationExceeded, detail);
            }
            let parts: Duration = segment.parts.iter().map(|part| part.duration).sum();
            if parts > segment.duration + EPSILON * (1 + segment.parts.len() as u32) {
                self.report(Rule::PartsExceedSegment, format!("{msn}: {parts:?} of {:?}", segment.duration));
            }
        }
        let mut all = all_parts(playlist).peekable();
        let Some(target) = playlist.part_target else {
            if all.peek().is_some() {
                self.report(Rule::PartInfMissing, String::new());
            }
            return;
        };
        let last_of = |msn: u64| match playlist.segments.get((msn - playlist.media_sequence) as usize) {
            Some(segment) => segment.parts.len() as u32 - 1,
            // The newest part of the open segment may turn out to be its last.
            None => playlist.open.as_ref().map_or(0, |open| open.parts.len() as u32 - 1),
        };
        for (msn, index, part) in all {
            let detail = || format!("{msn}.{index}: {:?} of {target:?}", part.duration);
            if part.duration > target + EPSILON {
                self.report(Rule::PartTargetExceeded, detail());
            }
            let exempt = part.independent || part.gap || index == last_of(msn);
            if !exempt && part.duration + EPSILON < target.mul_f64(0.85) {
                self.report(Rule::PartTooShort, detail());
            }
        }
    }

    fn control(&mut self, playlist: &MediaPlaylist) {
        let target = Duration::from_secs(u64::from(playlist.target_duration));
        let control = playlist.server_control.unwrap_or_default();
        if control.hold_back.is_some_and(|hold| hold < target * 3) {
            self.report(Rule::HoldBack, format!("{:?}", control.hold_back));
        }
        if control.can_skip_until.is_some_and(|skip| skip < target * 6) {
            self.report(Rule::CanSkipUntil, format!("{:?}", control.can_skip_until));
        }
        let Some(part_target) = playlist.part_target else { return };
        if control.part_hold_back.is_none_or(|hold| hold + EPSILON < part_target * 2) {
            self.report(Rule::PartHoldBack, format!("{:?} for {part_target:?}", control.part_hold_back));
        }
        let hint = match &playlist.preload_hint {
            Some(super::PreloadHint::Part(uri) | super::PreloadHint::Map(uri)) => Some(uri),
            None => None,
        };
        match hint {
            None if !playlist.ended => self.report(Rule::PreloadHintMissing, String::new()),
            Some(uri) if all_parts(playlist).any(|(.., part)| part.uri == *uri) => {
                self.report(Rule::PreloadHintStale, uri.to_string());
            }
            _ => {}
        }
    }

    /// Checks maps and dates within one playlist.
    fn order(&mut self, playlist: &MediaPlaylist) {
        let mut map: Option<&Map> = None;
        let mut date: Option<(i64, Duration)> = None;
        let open = playlist.open.as_ref();
        let heads = numbered(playlist)
            .map(|(msn, s)| (msn, s.discontinuity, s.map.as_ref(), s.program_date_time, s.duration, s.gap))
            .chain(open.map(|o| {
                (
                    playlist.next_msn(),
                    o.discontinuity,
                    o.map.as_ref(),
                    o.program_date_time,
                    Duration::ZERO,
                    false,
                )
            }));
        for (msn, discontinuity, new_map, time, duration, gap) in heads {
            if new_map.is_none() && !gap {
                self.report(Rule::MapMissing, msn.to_string());
            }
            if map.is_some() && new_map != map && !discontinuity {
                self.report(Rule::MapChangedWithoutDiscontinuity, msn.to_string());
            }
            map = new_map.or(map);
            if let (Some(time), Some((before, passed))) = (time, date) {
                let expected = before + passed.as_millis() as i64;
                if time < before {
                    self.report(Rule::DateBackwards, format!("{msn}: {time} after {before}"));
                } else if !discontinuity && time - expected > i64::from(playlist.target_duration) * 1000 {
                    self.report(Rule::GapMissing, format!("{msn}: {} ms", time - expected));
                }
            }
            date = match time {
                Some(time) => Some((time, duration)),
                None => date.map(|(start, passed)| (start, passed + duration)),
            };
        }
    }

    /// Checks that URIs and numbers keep naming the same resources.
    fn names(&mut self, playlist: &MediaPlaylist) {
        for (msn, segment) in numbered(playlist) {
            self.name(&segment.uri, (msn, None));
            let bare = Segment { parts: Vec::new(), ..segment.clone() };
            match self.segments.get(&msn) {
                Some(old) if *old != bare => {
                    self.report(Rule::SegmentChanged, format!("{msn}: {old:?} became {bare:?}"));
                }
                Some(_) => {}
                None => {
                    self.segments.insert(msn, bare);
                }
            }
        }
        for (msn, index, part) in all_parts(playlist) {
            self.name(&part.uri, (msn, Some(index)));
            match self.parts.get(&(msn, index)) {
                Some(old) if old != part && (old.gap || !part.gap) => {
                    self.report(Rule::PartChanged, format!("{msn}.{index}: {old:?} became {part:?}"));
                }
                Some(_) => {}
                None => {
                    self.parts.insert((msn, index), part.clone());
                }
            }
        }
    }

    fn name(&mut self, uri: &Arc<str>, name: Name) {
        match self.uris.get(uri) {
            Some(old) if *old != name => self.report(Rule::UriReused, format!("{uri}: {old:?} and {name:?}")),
            Some(_) => {}
            None => {
                self.uris.insert(uri.clone(), name);
            }
        }
    }

    /// Checks the step from one playlist to the next.
    fn succession(&mut self, old: &MediaPlaylist, new: &MediaPlaylist) {
        let change = |old: &dyn fmt::Debug, new: &dyn fmt::Debug| format!("{old:?} became {new:?}");
        if new.target_duration != old.target_duration {
            self.report(Rule::TargetDurationChanged, change(&old.target_duration, &new.target_duration));
        }
        if let (Some(before), Some(after)) = (self.part_target, new.part_target)
            && before != after
        {
            self.report(Rule::PartTargetChanged, change(&before, &after));
        }
        if new.media_sequence < old.media_sequence {
            self.report(Rule::MediaSequenceBackwards, change(&old.media_sequence, &new.media_sequence));
        }
        if new.position() < old.position() {
            self.report(Rule::PositionBackwards, change(&old.position(), &new.position()));
        }
        if old.ended && new != old {
            self.report(Rule::ChangedAfterEnd, String::new());
        }
        let window = Duration::from_secs(u64::from(new.target_duration) * 3);
        if new.media_sequence > old.media_sequence && !new.ended && new.duration() < window {
            self.report(Rule::WindowTooShort, format!("{:?} of {window:?}", new.duration()));
        }
        self.discontinuity_sequence(old, new);
        self.parts_kept(old, new);
    }

    fn discontinuity_sequence(&mut self, old: &MediaPlaylist, new: &MediaPlaylist) {
        let (before, after) = (old.discontinuity_sequence, new.discontinuity_sequence);
        if after < before {
            self.report(Rule::DiscontinuitySequenceBackwards, format!("{before} became {after}"));
            return;
        }
        let removed = old.media_sequence..new.media_sequence.max(old.media_sequence);
        let known = self.segments.range(removed.clone());
        if known.clone().count() as u64 != removed.end - removed.start {
            return; // segments came and went between two fetches
        }
        let tags = known.filter(|(_, segment)| segment.discontinuity).count() as u64;
        if after - before != tags {
            let detail = format!("{before} became {after}, {tags} tags were removed");
            self.report(Rule::DiscontinuitySequenceMiscounted, detail);
        }
    }

    fn parts_kept(&mut self, old: &MediaPlaylist, new: &MediaPlaylist) {
        let keep = Duration::from_secs(u64::from(new.target_duration) * 3);
        let mut age: Duration = new.open.iter().flat_map(|open| &open.parts).map(|part| part.duration).sum();
        let mut missing = Vec::new();
        for (msn, segment) in numbered(new).collect::<Vec<_>>().into_iter().rev() {
            if age > keep {
                break;
            }
            let listed = all_parts(old).filter(|(of, ..)| *of == msn).count();
            // A gap has nothing to fetch, and a player that reads ENDLIST loads whole segments.
            if !new.ended && segment.parts.len() < listed && !segment.gap {
                missing.push(format!("{msn}: {} of {listed} left", segment.parts.len()));
            }
            age += segment.duration;
        }
        for detail in missing {
            self.report(Rule::PartRemovedEarly, detail);
        }
    }
}

fn parse_violation(error: &ParseError) -> Violation {
    Violation { rule: Rule::Parses, detail: error.to_string() }
}

fn numbered(playlist: &MediaPlaylist) -> impl Iterator<Item = (u64, &Segment)> {
    (playlist.media_sequence..).zip(&playlist.segments)
}

fn all_parts(playlist: &MediaPlaylist) -> impl Iterator<Item = (u64, u32, &Part)> {
    let open = playlist.open.iter().map(|open| (playlist.next_msn(), &open.parts));
    numbered(playlist)
        .map(|(msn, segment)| (msn, &segment.parts))
        .chain(open)
        .flat_map(|(msn, parts)| parts.iter().zip(0..).map(move |(part, index)| (msn, index, part)))
}
