//! A rendition's media playlist: the slots in order, GAPs where it has nothing to show, then the open segment.

use std::sync::Arc;
use std::time::Duration;

use millrace_media::hls::{
    Map, MediaPlaylist, OpenSegment, Part, PreloadHint, Segment, ServerControl, Start, part_hold_back,
};
use millrace_wire::fact::{MediaDuration, PartEntry, RenditionSegment, SegmentSlot, StreamState};
use millrace_wire::ids::{Generation, Msn, Rendition};

use super::PlaylistPosition;
use crate::state::apply::slot_duration;

/// See [`join_point`]: half a frame at 25 frames a second.
const START_INSIDE: Duration = Duration::from_millis(20);
/// The author of names nobody has: grants begin at 1.
const NOBODY: Generation = Generation(0);

fn duration(d: MediaDuration) -> Duration {
    // Playlists are written to the microsecond; rounded, so that sums stay close to the media.
    let timescale = u128::from(d.timescale.max(1));
    let us = (u128::from(d.ticks) * 1_000_000 + timescale / 2) / timescale;
    Duration::from_micros(u64::try_from(us).unwrap_or(u64::MAX))
}

/// Writes the names of objects; where only the shape of a playlist is wanted, all are one empty name.
struct Names(Option<Arc<str>>);

impl Names {
    fn write(&self, name: impl FnOnce() -> String) -> Arc<str> {
        self.0.clone().unwrap_or_else(|| name().into())
    }

    fn segment(&self, slot: &SegmentSlot, generation: Generation) -> Arc<str> {
        self.write(|| format!("{}/{}.{generation}.m4s", slot.epoch, slot.msn))
    }

    fn part(&self, slot: &SegmentSlot, generation: Generation, part: usize) -> Arc<str> {
        self.write(|| format!("{}/{}.{generation}.{part}.m4s", slot.epoch, slot.msn))
    }

    fn map(&self, slot: &SegmentSlot, track: &RenditionSegment) -> Map {
        Map { uri: self.write(|| format!("{}/init-{}.mp4", slot.epoch, track.init_version)) }
    }
}

/// A rendition's playlist and how far it has come; `None` while it has nothing to play.
pub fn media(snapshot: &StreamState, rendition: &Rendition) -> Option<(MediaPlaylist, PlaylistPosition)> {
    walk(snapshot, rendition, Names(None))
}

/// How far a rendition's playlist has come, without writing the playlist; `None` while it has nothing to play.
pub(super) fn head_of(snapshot: &StreamState, rendition: &Rendition) -> Option<PlaylistPosition> {
    walk(snapshot, rendition, Names(Some(Arc::from("")))).map(|(_, head)| head)
}

fn walk(
    snapshot: &StreamState,
    rendition: &Rendition,
    names: Names,
) -> Option<(MediaPlaylist, PlaylistPosition)> {
    let part_target = snapshot.renditions.get(rendition)?.part_target.map(duration);
    let first_map = |s: &Arc<SegmentSlot>| s.tracks.get(rendition).map(|t| names.map(s, t));
    let first_map = snapshot.slots.iter().find_map(first_map)?;
    let mut walk = Walk {
        names,
        rendition,
        part_target,
        segments: Vec::new(),
        open: None,
        map: Some(first_map),
        independent: true,
        parts: 0,
        last: snapshot.slots.iter().rev().find(|s| s.tracks.contains_key(rendition)).map(|s| s.msn),
        target: MediaDuration { ticks: u64::from(snapshot.target_duration), timescale: 1 },
    };
    let mut last: Option<u64> = None;
    for slot in &snapshot.slots {
        let discontinuity = last.is_some_and(|d| d != slot.discontinuity_sequence.0);
        last = Some(slot.discontinuity_sequence.0);
        if !walk.slot(slot, discontinuity) {
            break;
        }
    }
    if walk.segments.iter().all(|s| s.gap) && walk.open.as_ref().is_none_or(|o| o.parts.is_empty()) {
        return None;
    }
    Some(walk.finish(snapshot))
}

struct Walk<'a> {
    names: Names,
    rendition: &'a Rendition,
    part_target: Option<Duration>,
    segments: Vec<Segment>,
    open: Option<OpenSegment>,
    map: Option<Map>,
    /// Every listed segment starts with a keyframe.
    independent: bool,
    /// Parts of the newest complete segment.
    parts: u32,
    /// The newest segment the rendition has anything of.
    last: Option<Msn>,
    /// TARGETDURATION, for what has no length of its own.
    target: MediaDuration,
}

impl Walk<'_> {
    /// Lists a slot; `false` when the rendition goes no further.
    fn slot(&mut self, slot: &SegmentSlot, discontinuity: bool) -> bool {
        let program_date_time = Some(slot.program_date_time.0 as i64);
        let track = slot.tracks.get(self.rendition);
        if let Some(track) = track {
            self.map = Some(self.names.map(slot, track));
        }
        let map = self.map.clone();
        let parts = track.map(|t| self.parts_of(slot, t)).unwrap_or_default();
        let complete = track.and_then(|t| t.segment.as_ref());
        let segment = match (complete, slot.gap) {
            (Some(s), _) => {
                self.parts = s.parts;
                self.independent &= s.independent;
                Segment {
                    uri: self.names.segment(slot, s.generation),
                    duration: duration(s.duration),
                    parts,
                    ..Segment::default()
                }
            }
            (None, Some(length)) => self.gap(slot, duration(length), parts),
            // Only the others have media here; this rendition goes on later.
            (None, None) if track.is_none() && self.last > Some(slot.msn) => {
                self.gap(slot, duration(slot_duration(slot).unwrap_or(self.target)), parts)
            }
            (None, None) => {
                if track.is_some() {
                    self.open = Some(OpenSegment { discontinuity, map, program_date_time, parts });
                }
                return false;
            }
        };
        self.segments.push(Segment { discontinuity, map, program_date_time, ..segment });
        true
    }

    /// A segment nobody has. Its parts are listed as gaps too: hls.js starts a window whose only media are parts of the
    /// open segment when a segment with parts stands below it (ADR 0002).
    fn gap(&mut self, slot: &SegmentSlot, length: Duration, had: Vec<Part>) -> Segment {
        let target = self.part_target.filter(|t| !t.is_zero());
        let count = target.map_or(0, |t| (length.as_micros() / t.as_micros()) as usize);
        let missing = |part| Part {
            uri: self.names.part(slot, NOBODY, part),
            duration: target.unwrap_or_default(),
            independent: false,
            gap: true,
        };
        let parts: Vec<Part> = if had.is_empty() { (0..count).map(missing).collect() } else { had };
        self.parts = parts.len() as u32;
        let uri = self.names.segment(slot, NOBODY);
        Segment { uri, duration: length, gap: true, parts, ..Segment::default() }
    }

    /// The parts up to the first that is not there: a later one must wait for it.
    fn parts_of(&self, slot: &SegmentSlot, track: &RenditionSegment) -> Vec<Part> {
        let part = |(i, p): (usize, &PartEntry)| Part {
            uri: self.names.part(slot, p.generation, i),
            duration: duration(p.duration),
            independent: p.independent,
            gap: p.gap,
        };
        track.parts.iter().enumerate().map(part).collect()
    }

    fn finish(self, snapshot: &StreamState) -> (MediaPlaylist, PlaylistPosition) {
        let first = snapshot.slots.front();
        let low_latency = self.part_target.is_some();
        let mut playlist = MediaPlaylist {
            target_duration: snapshot.target_duration,
            part_target: self.part_target,
            server_control: Some(ServerControl {
                can_block_reload: true,
                part_hold_back: self.part_target.map(part_hold_back),
                hold_back: Some(Duration::from_secs(3 * u64::from(snapshot.target_duration))),
                can_skip_until: None,
            }),
            media_sequence: first.map_or(snapshot.first_msn.0, |s| s.msn.0),
            discontinuity_sequence: first.map_or(0, |s| s.discontinuity_sequence.0),
            independent_segments: self.independent,
            segments: self.segments,
            open: self.open,
            ended: snapshot.ended,
            ..MediaPlaylist::default()
        };
        let (open_msn, open_parts) = playlist.position();
        if low_latency && !snapshot.ended {
            playlist.preload_hint = Some(PreloadHint::Part(hint(snapshot, open_msn, open_parts)));
        }
        playlist.drop_old_parts();
        playlist.start = join_point(&playlist);
        let head = PlaylistPosition {
            open_msn,
            open_parts: open_parts as u32,
            previous_parts: self.parts,
            ended: snapshot.ended,
        };
        (playlist, head)
    }
}

/// Where a player is to begin when segments may start without a keyframe: at the newest independent part or segment that
/// is a hold-back from the end (ADR 0002). None where any segment will do.
fn join_point(playlist: &MediaPlaylist) -> Option<Start> {
    if playlist.independent_segments || playlist.ended {
        return None;
    }
    let hold_back = playlist.server_control.and_then(|c| c.part_hold_back)?;
    let open = playlist.open.iter().flat_map(|o| o.parts.iter().rev().map(|p| (p.duration, p.independent)));
    // A segment without parts says nothing of its keyframes.
    let complete = playlist.segments.iter().rev().take_while(|s| !s.gap && !s.parts.is_empty());
    let complete = complete.flat_map(|s| s.parts.iter().rev().map(|p| (p.duration, p.independent)));
    let mut back = Duration::ZERO;
    for (length, independent) in open.chain(complete) {
        back += length;
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

/// The name the author will give the next part.
fn hint(snapshot: &StreamState, msn: u64, part: usize) -> Arc<str> {
    let slot = snapshot.slots.iter().find(|s| s.msn.0 == msn);
    let epoch = slot.map_or(snapshot.epoch, |s| s.epoch);
    format!("{epoch}/{msn}.{}.{part}.m4s", snapshot.generation).into()
}
