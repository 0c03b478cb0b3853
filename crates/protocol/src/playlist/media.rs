//! A rendition's media playlist: the segments in order, GAP where the rendition has no media, then the open segment.

use std::sync::Arc;
use std::time::Duration;

use millrace_media::hls::{
    Map, MediaPlaylist, OpenSegment, Part, PreloadHint, Segment, ServerControl, Start, part_hold_back,
};
use millrace_wire::fact::{
    InitEntry, MediaDuration, PartEntry, RenditionSegment, RenditionSpan, RenditionState, SegmentSlot,
    StreamState,
};
use millrace_wire::ids::{Msn, Rendition};

use super::names::{NO_WRITER, Names, next_part};
use super::position::{PlaylistPosition, parts_ahead};
use crate::state::query::{is_gap_in, slot_duration, target_duration};

/// See [`join_point`]: half a frame at 25 frames a second.
const START_INSIDE: Duration = Duration::from_millis(20);

/// Returns a duration to the microsecond, as playlists write it; rounded, so that sums stay close to the media.
fn rounded(duration: MediaDuration) -> Duration {
    let timescale = u128::from(duration.timescale.max(1));
    let micros = (u128::from(duration.ticks) * 1_000_000 + timescale / 2) / timescale;
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}

/// Returns a rendition's playlist and the position it has reached; `None` while it has nothing to play.
pub fn media(state: &StreamState, rendition: &Rendition) -> Option<(MediaPlaylist, PlaylistPosition)> {
    render(state, rendition, Names::real())
}

/// Returns the position that a rendition's playlist has reached, without writing the playlist; `None` while it has nothing
/// to play.
pub(super) fn position_of(state: &StreamState, rendition: &Rendition) -> Option<PlaylistPosition> {
    render(state, rendition, Names::empty()).map(|(_, position)| position)
}

fn render(
    state: &StreamState,
    rendition: &Rendition,
    names: Names,
) -> Option<(MediaPlaylist, PlaylistPosition)> {
    let described = state.renditions.get(rendition)?;
    let span = described.ended;
    if span.is_some_and(|span| span.first < state.first_msn) {
        // The playlist has ENDLIST and must not change, and it is no longer true.
        return None;
    }
    // A sealed log grows by GAPs even where its last segments have no media of this rendition.
    let goes_on =
        |slot: &&Arc<SegmentSlot>| slot.tracks.contains_key(rendition) || is_gap_in(slot, rendition);
    let is_listed = |slot: &&Arc<SegmentSlot>| {
        span.is_none_or(|RenditionSpan { first, last }| (first..=last).contains(&slot.msn))
    };
    let listed = || state.slots.iter().filter(is_listed);
    let with_media = listed().find_map(|slot| Some((slot.epoch, slot.tracks.get(rendition)?.init_version)));
    // A window of GAPs alone keeps the initialisation section that the rendition had last. One that a later epoch describes
    // changes no playlist that has ended.
    let last_epoch = span.and_then(|_| listed().next_back()).map(|slot| slot.epoch);
    let is_known = |init: &&InitEntry| last_epoch.is_none_or(|last| init.epoch <= last);
    let newest = described.inits.iter().rfind(is_known).map(|init| (init.epoch, init.version));
    let (epoch, version) = with_media.or(newest)?;
    let mut renderer = Renderer {
        map: Some(Map { uri: names.init(epoch, version) }),
        names,
        rendition,
        described,
        part_target: described.part_target.map(rounded),
        segments: Vec::new(),
        open: None,
        independent: Vec::new(),
        previous_parts: 0,
        open_is_full: false,
        last: state.slots.iter().rev().find(goes_on).map(|slot| slot.msn),
        target: target_duration(state.target_duration),
    };
    let mut previous: Option<u64> = None;
    for slot in listed() {
        let discontinuity = previous.is_some_and(|previous| previous != slot.discontinuity_sequence.0);
        previous = Some(slot.discontinuity_sequence.0);
        if !renderer.list(slot, discontinuity) {
            break;
        }
    }
    let is_empty = renderer.segments.iter().all(|segment| segment.gap)
        && renderer.open.as_ref().is_none_or(|open| open.parts.is_empty());
    (!is_empty || goes_on_without_media(state, described)).then(|| renderer.finish(state, span))
}

/// True if viewers have had media of the rendition that have left the window since: the publisher is, or was until now, away
/// for longer than the window. The playlist then goes on with GAPs alone, whereas a fresh one waits for its first media.
pub(super) fn goes_on_without_media(state: &StreamState, rendition: &RenditionState) -> bool {
    let is_resumed = || state.slots.iter().any(|slot| slot.epoch < state.epoch);
    rendition.part_target.is_some() && !state.slots.is_empty() && (state.sealed || is_resumed())
}

struct Renderer<'a> {
    names: Names,
    rendition: &'a Rendition,
    described: &'a RenditionState,
    part_target: Option<Duration>,
    segments: Vec<Segment>,
    open: Option<OpenSegment>,
    map: Option<Map>,
    /// For each listed segment, true if it starts with a keyframe. A GAP counts as one that does.
    independent: Vec<bool>,
    /// Number of parts of the newest complete segment.
    previous_parts: u32,
    /// True if the open segment ends with its newest part.
    open_is_full: bool,
    /// The newest segment that the rendition has media of, or lists as GAP.
    last: Option<Msn>,
    /// TARGETDURATION, for a segment without a duration of its own.
    target: MediaDuration,
}

impl Renderer<'_> {
    /// Lists a segment. False if the rendition's playlist goes no further.
    fn list(&mut self, slot: &SegmentSlot, discontinuity: bool) -> bool {
        let program_date_time = Some(slot.program_date_time.0 as i64);
        let track = slot.tracks.get(self.rendition);
        // The initialisation section may change at a discontinuity only, so a GAP there takes the one of what follows it.
        let described = self.described.inits.iter().find(|init| discontinuity && init.epoch == slot.epoch);
        let version = track.map(|track| track.init_version).or(described.map(|init| init.version));
        if let Some(version) = version {
            self.map = Some(Map { uri: self.names.init(slot.epoch, version) });
        }
        let map = self.map.clone();
        let parts = track.map(|track| self.parts_of(slot, track)).unwrap_or_default();
        let complete = track.and_then(|track| track.segment.as_ref());
        let gap = slot.rendition_gaps.get(self.rendition).copied().or(slot.gap);
        let segment = match (complete, gap) {
            (Some(complete), _) => {
                self.previous_parts = complete.parts;
                Segment {
                    uri: self.names.segment(slot, complete.generation),
                    duration: rounded(complete.duration),
                    parts,
                    ..Segment::default()
                }
            }
            (None, Some(duration)) => self.gap(slot, rounded(duration), parts),
            // The other renditions have media here, and this one goes on later.
            (None, None) if track.is_none() && self.last > Some(slot.msn) => {
                self.gap(slot, rounded(slot_duration(slot).unwrap_or(self.target)), parts)
            }
            (None, None) => {
                if let Some(track) = track {
                    self.open_is_full = track.parts.last().is_some_and(|part| part.last);
                    self.open = Some(OpenSegment { discontinuity, map, program_date_time, parts });
                }
                return false;
            }
        };
        self.independent.push(complete.is_none_or(|complete| complete.independent));
        self.segments.push(Segment { discontinuity, map, program_date_time, ..segment });
        true
    }

    /// Returns a segment that the rendition does not have. Parts that were listed of it stay. Without any it is listed with
    /// missing parts, which add up to its duration: hls.js starts a window whose only media are parts of the open segment when a segment with parts
    /// stands below it (ADR 0002).
    fn gap(&mut self, slot: &SegmentSlot, duration: Duration, listed: Vec<Part>) -> Segment {
        let target = self.part_target.filter(|target| !target.is_zero());
        let count = target.map_or(0, |target| duration.as_micros().div_ceil(target.as_micros()) as u32);
        let target = target.unwrap_or_default();
        let missing = |part: u32| Part {
            uri: self.names.part(slot, NO_WRITER, part as usize),
            duration: target.min(duration.saturating_sub(target.saturating_mul(part))),
            independent: false,
            gap: true,
        };
        let parts: Vec<Part> = if listed.is_empty() { (0..count).map(missing).collect() } else { listed };
        self.previous_parts = parts.len() as u32;
        let uri = self.names.segment(slot, NO_WRITER);
        Segment { uri, duration, gap: true, parts, ..Segment::default() }
    }

    /// Returns the parts to list of a segment. The playlist of a rendition that has ended while others go on lists none of complete
    /// segments: readers may have dropped them at different times before they learned of the end, and all must show the same.
    fn parts_of(&self, slot: &SegmentSlot, track: &RenditionSegment) -> Vec<Part> {
        if self.described.ended.is_some() && track.segment.is_some() {
            return Vec::new();
        }
        let part = |(index, entry): (usize, &PartEntry)| Part {
            uri: self.names.part(slot, entry.generation, index),
            duration: rounded(entry.duration),
            independent: entry.independent,
            gap: entry.gap,
        };
        track.parts.iter().enumerate().map(part).collect()
    }

    fn finish(self, state: &StreamState, span: Option<RenditionSpan>) -> (MediaPlaylist, PlaylistPosition) {
        let first = state.slots.front();
        let ended = state.ended || span.is_some();
        let low_latency = self.part_target.is_some();
        let mut playlist = MediaPlaylist {
            target_duration: state.target_duration,
            part_target: self.part_target,
            server_control: Some(ServerControl {
                can_block_reload: true,
                part_hold_back: self.part_target.map(part_hold_back),
                hold_back: Some(Duration::from_secs(3 * u64::from(state.target_duration))),
                can_skip_until: None,
            }),
            media_sequence: first.map_or(state.first_msn.0, |slot| slot.msn.0),
            discontinuity_sequence: first.map_or(0, |slot| slot.discontinuity_sequence.0),
            independent_segments: self.independent.iter().all(|independent| *independent),
            segments: self.segments,
            open: self.open,
            ended,
            ..MediaPlaylist::default()
        };
        let (open_msn, open_parts) = playlist.position();
        let listed = playlist.segments.iter().map(|segment| segment.parts.len());
        let most_parts = listed.max().unwrap_or_default() as u32;
        if low_latency && !ended {
            // A player asks for the hinted part at once, so it must be one that comes.
            let (msn, part) = if self.open_is_full { (open_msn + 1, 0) } else { (open_msn, open_parts) };
            playlist.preload_hint = Some(PreloadHint::Part(next_part(state, msn, part)));
        }
        playlist.drop_old_parts();
        playlist.start = join_point(&playlist, &self.independent);
        let position = PlaylistPosition {
            open_msn,
            open_parts: open_parts as u32,
            previous_parts: self.previous_parts,
            parts_ahead: parts_ahead(self.part_target, most_parts),
            ended,
        };
        (playlist, position)
    }
}

/// Returns the point at which a player is to begin when segments may start without a keyframe: the newest independent part,
/// or the newest independent segment of which no parts are listed, that is a hold-back from the end (ADR 0002). `None` where
/// any segment will do.
fn join_point(playlist: &MediaPlaylist, independent: &[bool]) -> Option<Start> {
    if playlist.independent_segments || playlist.ended {
        return None;
    }
    let hold_back = playlist.server_control.and_then(|control| control.part_hold_back)?;
    let part = |part: &Part| (part.duration, part.independent);
    let open = playlist.open.iter().flat_map(|open| open.parts.iter().rev()).map(part);
    let complete = playlist.segments.iter().zip(independent).rev().take_while(|(segment, _)| !segment.gap);
    let complete = complete.flat_map(|(segment, independent)| {
        let whole = segment.parts.is_empty().then_some((segment.duration, *independent));
        segment.parts.iter().rev().map(part).chain(whole)
    });
    let mut back = Duration::ZERO;
    for (duration, independent) in open.chain(complete) {
        back += duration;
        if independent && back >= hold_back {
            // A little after the keyframe: rounding must not land in the part before it.
            let offset = back.saturating_sub(START_INSIDE).as_millis();
            return Some(Start {
                time_offset_ms: i32::try_from(offset).ok().map(i32::wrapping_neg)?,
                precise: true,
            });
        }
    }
    None
}
